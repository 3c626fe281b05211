"""Run the benchmarks and print a table.

    python -m benchmarks [import | round-trips | logs]... [--json] [--rounds N]

Figures are medians over rounds in which the subjects take turns, so that a machine whose speed drifts does not favour
one of them. Round trips are measured twice: client and server on one CPU, and split over two.
"""

from __future__ import annotations

import argparse
import json
import sys

from benchmarks import import_time, logs, round_trips

SUBJECTS = {"import": import_time.measure, "round-trips": round_trips.measure, "logs": logs.measure}


def main() -> int:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="*", choices=[*SUBJECTS, []], help="which benchmarks; all by default")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each measurement (7)")
    arguments = parser.parse_args()
    rows = [row for name in arguments.what or SUBJECTS for row in SUBJECTS[name](arguments.rounds)]
    if arguments.json:
        json.dump(rows, sys.stdout, indent=1)
        print()
        return 0
    for row in rows:
        beside = f"{row['beside']:>10.1f} {row['unit']}" if row["beside"] is not None else ""
        ratio = f"{row['ratio']:.2f} x" if row["ratio"] is not None else ""
        print(f"{row['what']:<44}{row['ours']:>10.1f} {row['unit']}{beside:>14} {ratio:>9}  {row['note']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
