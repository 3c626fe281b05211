"""Run the benchmarks, and print what they find beside what it is to be.

    python -m benchmarks [--only SUBJECT]... [--peers NAME,...] [--rounds N] [--json FILE] [--plots DIRECTORY]

What is compared takes turns in one run, on servers of its own, and a figure is the median of its rounds; the smallest
and the largest follow in brackets. Round trips are measured twice: client and server on one CPU, and split over two.
`--plots` writes a table and pictures for the documentation, `--from` makes them of what `--json` wrote before.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import (
    bulk,
    clients,
    codec,
    connecting,
    import_time,
    logs,
    network,
    pauses,
    reads,
    report,
    round_trips,
    sizes,
    strangers,
    stream,
)
from benchmarks.harness import Bench

SUBJECTS = {
    "import": import_time.measure,
    "reads": reads.measure,
    "round-trips": round_trips.measure,
    "clients": clients.measure,
    "bulk": bulk.measure,
    "codec": codec.measure,
    "connecting": connecting.measure,
    "network": network.measure,
    "sizes": sizes.measure,
    "stream": stream.measure,
    "logs": logs.measure,
    "pauses": pauses.measure,
    "strangers": strangers.measure,
}


def main() -> int:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=[*SUBJECTS], help="a subject, not all; may be repeated")
    parser.add_argument("--peers", help="the peers to stand beside, with commas between; else all that are installed")
    parser.add_argument("--rounds", type=int, default=7, help="how often each figure is measured (7)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, and nothing else")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write everything there, too")
    parser.add_argument("--from", metavar="FILE", type=Path, dest="earlier", help="measure nothing, show what is there")
    parser.add_argument("--plots", metavar="DIRECTORY", type=Path, help="write a table and pictures there")
    arguments = parser.parse_args()
    if arguments.earlier:
        run = report.load(json.loads(arguments.earlier.read_text()))
    else:
        wanted = tuple(arguments.peers.split(",")) if arguments.peers else None
        bench = Bench(arguments.rounds, arguments.quick, wanted)
        run = report.Run(report.machine(), bench.missing, bench.skipped, [])
        for name in arguments.only or SUBJECTS:
            for row in SUBJECTS[name](bench):
                run.rows.append(row)
                print(report.text(row), flush=True)
        print(report.ending(run))
    if arguments.json:
        arguments.json.write_text(json.dumps(report.dump(run), indent=1) + "\n")
    if arguments.earlier:
        for row in run.rows:
            print(report.text(row))
        print(report.ending(run))
    if arguments.plots:
        report.write(run, arguments.plots)
    return 0


if __name__ == "__main__":
    sys.exit(main())
