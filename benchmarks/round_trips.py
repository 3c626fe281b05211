"""One call at a time: get, set, and a lock taken and released, beside the standard manager and a bare echo."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.managers import SyncManager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

CALLS = 1000

SERVER = """
import registry
server = registry.ManagerServer("benchmark")
server.on_ready = lambda: print("ready", flush=True)
server.run()
"""
ECHO = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1]); listener.listen()
print("ready", flush=True)
peer, _ = listener.accept()
while data := peer.recv(65536):
    peer.sendall(data)
"""


def measure(rounds: int) -> list[dict[str, Any]]:
    """Measure on one CPU and split over two; where CPUs cannot be chosen, wherever the system puts them."""
    if not hasattr(os, "sched_setaffinity"):
        return _placed(rounds, "unpinned", None, None)
    ours = os.sched_getaffinity(0)
    cpus = sorted(ours)
    try:
        rows = _placed(rounds, "one CPU", cpus[0], cpus[0])
        if len(cpus) > 1:
            rows += _placed(rounds, "two CPUs", cpus[0], cpus[1])
        return rows
    finally:
        os.sched_setaffinity(0, ours)


def _placed(rounds: int, place: str, client: int | None, server: int | None) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="reg") as home, _echo(home, server) as echo:
        os.environ["REGISTRY_HOME"] = home
        with _our_server(server) as shared, _standard(server) as standard:
            if client is not None:
                os.sched_setaffinity(0, {client})
            ours_dict, ours_lock = shared.dict("d"), shared.lock("l")
            their_dict, their_lock = standard.dict(), standard.Lock()
            ours_dict["k"] = their_dict["k"] = 1
            pairs: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
                ("get", lambda: ours_dict["k"], lambda: their_dict["k"]),
                ("set", lambda: ours_dict.__setitem__("k", 2), lambda: their_dict.__setitem__("k", 2)),
                ("lock + release", lambda: _pair(ours_lock), lambda: _pair(their_lock)),
            ]
            rows = [_row(f"{name}, {place}", *_compare(ours, theirs, rounds), "the standard manager")
                    for name, ours, theirs in pairs]  # fmt: skip
            rows.append(_row(f"get, {place}", *_compare(pairs[0][1], echo, rounds), "a blocking echo of 56 bytes"))
            return rows


def _row(what: str, ours: float, beside: float, peer: str) -> dict[str, Any]:
    return {
        "what": what,
        "ours": ours,
        "beside": beside,
        "unit": "us",
        "ratio": ours / beside,
        "note": f"beside: {peer}",
    }


def _compare(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Time both in turn; return the medians in microseconds."""
    mine: list[float] = []
    yours: list[float] = []
    for _ in range(rounds):
        mine.append(_time(ours))
        yours.append(_time(theirs))
    return median(mine), median(yours)


def _time(function: Callable[[], object]) -> float:
    for _ in range(CALLS // 10):
        function()
    begun = perf_counter()
    for _ in range(CALLS):
        function()
    return (perf_counter() - begun) / CALLS * 1e6


def _pair(lock: Any) -> None:
    lock.acquire()
    lock.release()


def _pin(cpu: int | None) -> None:
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})


@contextmanager
def _process(cpu: int | None, *command: str) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", *command], stdout=subprocess.PIPE, preexec_fn=lambda: _pin(cpu))
    try:
        if process.stdout is not None:
            process.stdout.readline()
        yield
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def _our_server(cpu: int | None) -> Iterator[Any]:
    import registry

    with _process(cpu, SERVER), registry.connect("benchmark", start=False) as shared:
        yield shared


@contextmanager
def _standard(cpu: int | None) -> Iterator[Any]:
    manager = SyncManager()
    manager.start(_pin, (cpu,))
    try:
        yield manager
    finally:
        manager.shutdown()


@contextmanager
def _echo(directory: str, cpu: int | None) -> Iterator[Callable[[], object]]:
    path = str(Path(directory) / "echo")
    with _process(cpu, ECHO, path), socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        message = b"x" * 56

        def echo() -> bytes:
            sock.sendall(message)
            return sock.recv(65536)

        yield echo
