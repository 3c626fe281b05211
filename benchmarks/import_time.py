"""What ``import registry`` adds to the start of an interpreter."""

from __future__ import annotations

import subprocess
import sys
from statistics import median
from time import perf_counter

from benchmarks.harness import Bench, Row

STATEMENTS = {
    "import registry": "import registry",
    "connect": "from registry import connect",
    "import multiprocessing.managers": "import multiprocessing.managers",
}


def measure(bench: Bench) -> list[Row]:
    """Start interpreters in turn, with and without the import."""
    times: dict[str, list[float]] = {"pass": [], **{name: [] for name in STATEMENTS}}
    for _ in range(bench.rounds):
        for name, rounds in times.items():
            begun = perf_counter()
            subprocess.run([sys.executable, "-c", STATEMENTS.get(name, "pass")], check=True)
            rounds.append((perf_counter() - begun) * 1000)
    bare = median(times.pop("pass"))
    figures = {name: [each - bare for each in rounds] for name, rounds in times.items()}
    note = f"beyond a bare interpreter, {bare:.0f} ms"
    return [Row("import", "import", "ms", figures, note=note)]
