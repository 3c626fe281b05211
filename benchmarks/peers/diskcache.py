"""diskcache: a directory with SQLite, and no server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers import Client


def serve(home: Path, ready: Callable[[], None]) -> None:
    """Have another process that has it open, as it would be used."""
    import diskcache

    with diskcache.Cache(str(home / "cache")) as cache:
        cache["k"] = 1
        ready()
        threading.Event().wait()


class Cached(Client):
    """The directory, opened here."""

    def __init__(self, home: Path) -> None:
        import diskcache

        self.d = diskcache.Cache(str(home / "cache"))
        self.lock = diskcache.Lock(self.d, "lock")
        self.d["k"] = 1

    def statements(self) -> dict[str, str]:
        return {
            "get": "d['k']",
            "set": "d['k'] = 1",
            "pair": "lock.acquire(); lock.release()",
            "update": "with d.transact():\n for k, v in MANY.items(): d[k] = v",
            "bytes": "d['bytes'] = BYTES; d['bytes']",
        }

    def close(self) -> None:
        self.d.close()


connect = Cached
