"""This project."""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers import Client


def serve(home: Path, ready: Callable[[], None], log: str = "memory", segment: str = "", collections: str = "") -> None:
    """Serve with a log, where one is named; segments of so many events; collections of garbage noted in a file."""
    import registry
    from registry._log import _store

    logging.getLogger("registry").setLevel(logging.ERROR)  # a busy machine is no news here
    if segment:
        _store.SEGMENT_EVENTS = int(segment)
    if collections:
        _note_collections(collections)
    server = registry.ManagerServer(_name(home), log=log)  # type: ignore[arg-type]
    server.on_ready = ready
    server.run()


def _name(home: Path) -> str:
    """Return the name of the server that has this home, which no other benchmark's has."""
    os.environ["REGISTRY_HOME"] = str(home)
    return home.name


def _note_collections(path: str) -> None:
    """Note when collections of cyclic garbage begin and end, those that take more than a millisecond."""
    file = open(path, "w", buffering=1)
    began = 0.0

    def note(phase: str, info: dict[str, int]) -> None:
        nonlocal began
        now = time.monotonic()
        if phase == "start":
            began = now
        elif now - began > 0.001:
            file.write(f"{began} {now}\n")

    gc.callbacks.append(note)


def client(home: Path, **options: Any) -> Any:
    """Return a client of the product's own."""
    import registry

    return registry.connect(_name(home), start=False, **options)


class Ours(Client):
    """A client, and what it uses."""

    def __init__(self, shared: Any) -> None:
        self.shared = shared
        self.d = shared.dict("d")
        self.lock = shared.lock("lock")
        self.d["k"] = 1

    def statements(self) -> dict[str, str]:
        return {
            "get": "d['k']",
            "set": "d['k'] = 1",
            "pair": "lock.acquire(); lock.release()",
            "update": "d.update(MANY)",
            "array": "d['array']",
            "bytes": "d['bytes'] = BYTES; d['bytes']",
        }

    def keep_array(self, array: Any) -> None:
        self.d["array"] = array

    def close(self) -> None:
        self.shared.close()


def ask(home: Path) -> None:
    """Connect, get one key, and leave."""
    with client(home) as shared:
        shared.dict("d")["k"]


def connect(home: Path) -> Client:
    """Connect as users do."""
    return Ours(client(home))


def connect_uncached(home: Path) -> Client:
    """Connect without a cache: each read is a round trip."""
    return Ours(client(home, cache=False))
