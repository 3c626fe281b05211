"""The manager of the standard library, by the recipe: a dict and a lock that all clients share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from multiprocessing.managers import AcquirerProxy, BaseManager, DictProxy
from pathlib import Path
from typing import Any

from benchmarks.peers import Client


def _manager(home: Path) -> Any:
    shared: dict[str, object] = {"k": 1}
    lock = threading.Lock()

    class Manager(BaseManager):
        pass

    Manager.register("dict", lambda: shared, DictProxy)
    Manager.register("lock", lambda: lock, AcquirerProxy)
    return Manager(str(home / "socket"), b"benchmark")


def serve(home: Path, ready: Callable[[], None]) -> None:
    """Serve as `serve_forever` does."""
    server = _manager(home).get_server()
    ready()
    server.serve_forever()


class Standard(Client):
    """Proxies of both."""

    def __init__(self, home: Path) -> None:
        manager = _manager(home)
        manager.connect()
        self.d = manager.dict()
        self.lock = manager.lock()

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


def ask(home: Path) -> None:
    """Connect, get one key, and leave."""
    manager = _manager(home)
    manager.connect()
    manager.dict()["k"]


connect = Standard
