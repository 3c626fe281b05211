"""What a log costs: increments by many clients with each kind of log, and the start from a large state."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from time import monotonic

from benchmarks.clients import together
from benchmarks.harness import FREE, Bench, Row, Server, serve
from benchmarks.sizes import fill

ENTRIES = 1_000_000


def measure(bench: Bench) -> list[Row]:
    """Measure throughput with 32 and 64 clients, and how long a million entries need to be ready."""
    process, disk = _rates(bench, 32, "process"), _rates(bench, 64, "disk")
    process[0].at_least(0.7, "memory")
    disk[0].at_least(0.3, "memory")
    return [*process, *disk, _ready(bench)]


def _rates(bench: Bench, clients: int, kind: str) -> list[Row]:
    rates: dict[str, list[float]] = {kind: [], "memory": []}
    batches: list[float] = []
    clients = bench.size(clients, 2)
    with serve("registry", log=kind) as logged, serve("registry") as memory:
        for _ in range(bench.rounds):
            before = _counts(logged)
            rates[kind].append(together(bench, logged, clients, kind="set"))
            after = _counts(logged)
            batches.append((after[0] - before[0]) / max(1, after[1] - before[1]))
            rates["memory"].append(together(bench, memory, clients, kind="set"))
    rows = [Row("logs", f"{clients} clients, sets together, with a log", "1/s", rates, FREE.name)]
    if kind == "disk":
        row = Row("logs", f"events for each sync of the disk, {clients} clients", "events", {kind: batches})
        rows.append(row.within(">= 16 events per sync", 16, row.median(kind), least=True))
    return rows


def _counts(server: Server) -> tuple[int, int]:
    if not server.clients:
        server.connect()
    told = server.clients[0].shared.statistics()  # type: ignore[attr-defined]
    return told["events"], told["syncs"]


def _ready(bench: Bench) -> Row:
    """Return the seconds from the start of a server's process to its first answer."""
    size = bench.size(ENTRIES, 1000)
    seconds = []
    home = Path(tempfile.mkdtemp(prefix="b", dir="/tmp"))
    try:
        with serve("registry", home=home, log="process"):
            fill(home, size)
        for _ in range(bench.size(3, 1)):
            began = monotonic()
            with serve("registry", home=home, log="process") as server:
                entries = server.connect().d  # type: ignore[attr-defined]
                seconds.append(monotonic() - began)
                if len(entries) < size:
                    raise RuntimeError("entries are missing")
    finally:
        shutil.rmtree(home)
    row = Row("logs", f"start with {size:,} small entries to first answer", "s", {"process": seconds})
    return row.within("< 5 s", 5, row.median("process"))
