"""From nothing to the first answer: in a process that has imported what it needs, and as a program of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from time import perf_counter

from benchmarks.harness import PLACES, Bench, Row, crew, pinned

PEERS = ("registry", "manager", "redis", "rpyc", "Pyro5")
PROGRAM = "import pathlib; from benchmarks.peers import PEERS; PEERS[{!r}].load().ask(pathlib.Path({!r}))"


def measure(bench: Bench) -> list[Row]:
    """Measure in both places: a connection, one get, and the end of it."""
    rows = []
    names = bench.present(*PEERS)
    for place in PLACES:
        with bench.served(names, place) as servers:
            connects: dict[str, list[float]] = {name: [] for name in servers}
            programs: dict[str, list[float]] = {name: [] for name in servers}
            for server in servers.values():
                server.connect()  # puts there what is asked for
            for _ in range(bench.rounds):
                for name, server in servers.items():
                    with crew("connecting", server, place=place, number=bench.size(30, 2)) as process:
                        connects[name] += [seconds * 1e6 for seconds in process.result()]
                    with pinned(place):
                        began = perf_counter()
                        program = PROGRAM.format(name, str(server.home))
                        subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[1])
                        programs[name].append((perf_counter() - began) * 1e3)
        row = Row("connecting", "connect to first answer", "us", connects, place.name)
        rows.append(row.at_most(0.5, "manager"))
        rows.append(Row("connecting", "a program that asks once and ends", "ms", programs, place.name))
    return rows
