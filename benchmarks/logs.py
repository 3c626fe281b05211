"""What a log costs: increments by many clients with each kind of log, in turns, and the start from a large state."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from time import monotonic
from typing import Any

CLIENT = """
import sys, time
from registry import connect
counter = connect(sys.argv[1], start=False).counter(sys.argv[2])
counter.incr()
print("ready", flush=True)
sys.stdin.readline()
end, done = time.monotonic() + float(sys.argv[3]), 0
while time.monotonic() < end:
    counter.incr()
    done += 1
print(done, flush=True)
"""
SECONDS = 1.0
ENTRIES = 1_000_000


def measure(rounds: int) -> list[dict[str, Any]]:
    """Measure throughput with 32 and 64 clients, and how long a million entries need to be ready."""
    rows = []
    for clients, kinds in ((32, ("memory", "process")), (64, ("memory", "disk"))):
        rates: dict[str, list[float]] = {kind: [] for kind in kinds}
        events_a_sync: list[float] = []
        for _ in range(rounds):
            for kind in kinds:
                rate, batch = _throughput(kind, clients)
                rates[kind].append(rate)
                if kind == "disk":
                    events_a_sync.append(batch)
        logged, memory = (median(rates[kind]) for kind in reversed(kinds))
        note = f"{median(events_a_sync):.1f} events a sync" if events_a_sync else "beside memory, in one run"
        rows.append(_row(f"{clients} clients, increments, --log {kinds[1]}", logged, "1/s", memory, note))
    rows.append(_row("a million entries ready, clean start", _ready(), "s", None, "process start to first answer"))
    return rows


def _row(what: str, ours: float, unit: str, beside: float | None, note: str) -> dict[str, Any]:
    ratio = ours / beside if beside else None
    return {"what": what, "ours": ours, "unit": unit, "beside": beside, "ratio": ratio, "note": note}


@contextmanager
def _served(home: str, kind: str) -> Iterator[None]:
    from registry import connect
    from registry.errors import AccessDenied, ServerNotFound

    os.environ["REGISTRY_HOME"] = home
    command = [sys.executable, "-m", "registry", "serve", "bench", "--log", kind]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            while True:
                try:
                    connect("bench", start=False).close()
                    break
                except (AccessDenied, ServerNotFound):
                    pass
            yield
        finally:
            server.terminate()


def _throughput(kind: str, clients: int) -> tuple[float, float]:
    """Return calls a second, and events for each time that the disk was waited for."""
    from registry import connect

    with tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as home, _served(home, kind):
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", CLIENT, "bench", f"c{number}", str(SECONDS)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for number in range(clients)
        ]
        for worker in workers:
            worker.stdout.readline()  # type: ignore[union-attr]
        with connect("bench", start=False) as client:
            before = client.statistics()
            for worker in workers:
                worker.stdin.write(b"\n")  # type: ignore[union-attr]
                worker.stdin.flush()  # type: ignore[union-attr]
            done = sum(int(worker.communicate()[0]) for worker in workers)
            after = client.statistics()
    syncs = after["syncs"] - before["syncs"]
    return done / SECONDS, (after["events"] - before["events"]) / max(1, syncs)


def _ready() -> float:
    """Return the seconds from the start of a server with a million entries to its first answer."""
    from registry import connect

    with tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as home:
        with _served(home, "process"), connect("bench", start=False) as client:
            entries = client.dict("d")
            for start in range(0, ENTRIES, 10_000):
                entries.update({f"key-{number}": number for number in range(start, start + 10_000)})
        began = monotonic()
        with _served(home, "process"), connect("bench", start=False) as client:
            if len(client.dict("d")) != ENTRIES:
                raise RuntimeError("entries are missing")
            return monotonic() - began
