"""Pauses: the worst round trip of a client while a server with a million entries folds its log.

A fold is a process of its own, beside the server; what could stop the server for a moment is told apart:

- *gc*: the server's collection of cyclic garbage, as its `gc.callbacks` tell
- *processor*: the server, or the client itself, could run and had no processor, as the kernel counts
- *other*: the rest, which is the server's own doing
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

import attrs

from benchmarks.harness import Bench, Row, crew, serve
from benchmarks.sizes import fill

ENTRIES = 1_000_000
LONG = 0.020  # seconds


@attrs.frozen
class Probe:
    """A round trip: when it began, the seconds that it took, whether a fold ran, and seconds without a processor."""

    began: float
    took: float
    folding: bool
    starved: float


def measure(bench: Bench) -> list[Row]:
    """Probe without a pause while another client writes so much that segments are closed and folded."""
    entries = bench.size(ENTRIES, 1000)
    seconds = bench.size(60.0, 1.0)
    home = Path(tempfile.mkdtemp(prefix="b", dir="/tmp"))
    try:
        with serve("registry", home=home, log="process"):
            fill(home, entries)
        told = home / "collections"
        segment = str(bench.size(20_000, 200))
        with serve("registry", home=home, log="process", segment=segment, collections=str(told)) as server:
            client = server.connect()
            pid = server.process.pid if server.process is not None else 0
            with crew("writer", server, rate=bench.size(4000, 2000), keys=entries):
                probes = _probe(client.d, pid, seconds)  # type: ignore[attr-defined]
        collections = [tuple(map(float, line.split())) for line in told.read_text().splitlines()]
        collections = [each for each in collections if each[1] > probes[0].began and each[0] < probes[-1].began]
    finally:
        shutil.rmtree(home)
    folding, between = ([probe for probe in probes if probe.folding is each] for each in (True, False))
    figures = {"folding": _worst(folding), "between folds": _worst(between)}
    causes = Counter(_cause(probe, collections) for probe in folding if probe.took > LONG)
    median = sorted(probe.took for probe in folding)[len(folding) // 2] * 1e3 if folding else 0.0
    note = f"{len(folding):,} probes while folding, median {median:.2f} ms, above 20 ms: " + (
        ", ".join(f"{number} {cause}" for cause, number in sorted(causes.items())) or "none"
    )
    row = Row("pauses", f"worst round trip, {entries:,} entries, --log process", "ms", figures, note=note)
    worst = max((probe.took * 1e3 for probe in folding), default=None)
    longest = max((1e3 * (end - begin) for begin, end in collections), default=0.0)
    gc = Row("pauses", "longest collection of garbage in that server meanwhile", "ms", {"registry": [longest]})
    own = {name: _worst(each, own=True) for name, each in (("folding", folding), ("between folds", between))}
    return [
        row.within("no round trip above 20 ms while folding", 20, worst),
        Row("pauses", "the same, without what was waited for a processor", "ms", own),
        gc,
    ]


def _probe(entries: object, pid: int, seconds: float) -> list[Probe]:
    """Read without a pause for so long."""
    probes = []
    began = time.monotonic()
    looked, folding = 0.0, False
    delays = [open(f"/proc/{each}/schedstat", "rb", 0) for each in (pid, os.getpid())]
    try:
        waited = _delay(delays)
        while (now := time.monotonic()) - began < seconds:
            if now - looked > 0.01:
                looked, folding = now, _has_children(pid)
            start = time.monotonic()
            entries["key-1"]  # type: ignore[index]
            took = time.monotonic() - start
            before, waited = waited, _delay(delays)
            probes.append(Probe(start, took, folding, waited - before))
    finally:
        for file in delays:
            file.close()
    return probes


def _delay(files: list[object]) -> float:
    """Return the seconds that these processes' main threads have waited for a processor."""
    total = 0
    for file in files:
        file.seek(0)  # type: ignore[attr-defined]
        total += int(file.read(64).split()[1])  # type: ignore[attr-defined]
    return total / 1e9


def _has_children(pid: int) -> bool:
    """Whether a process has a child: a server has one while it folds."""
    try:
        return any((task / "children").read_text() for task in Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return False


def _worst(probes: list[Probe], own: bool = False) -> list[float]:
    """Return the worst of each tenth, in milliseconds, with or without the wait for a processor."""
    times = [1e3 * max(0.0, each.took - each.starved * own) for each in probes]
    size = max(1, len(times) // 10)
    return [max(times[start : start + size]) for start in range(0, len(times), size)]


def _cause(probe: Probe, collections: list[tuple[float, ...]]) -> str:
    end = probe.began + probe.took
    collected = sum(max(0.0, min(end, stop) - max(probe.began, start)) for start, stop in collections)
    if collected > probe.took / 2:
        return "gc"
    return "processor" if probe.starved > probe.took / 2 else "other"
