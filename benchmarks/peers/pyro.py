"""Pyro5: a daemon with an object that has the methods."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers import Client


def serve(home: Path, ready: Callable[[], None]) -> None:
    """Serve one object."""
    import Pyro5.api

    @Pyro5.api.expose  # type: ignore[misc]
    class Shared:
        def __init__(self) -> None:
            self._d: dict[str, Any] = {"k": 1}
            self._lock = threading.Lock()

        def get(self, key: str) -> Any:
            return self._d[key]

        def set(self, key: str, value: Any) -> None:
            self._d[key] = value

        def update(self, many: dict[str, Any]) -> None:
            self._d.update(many)

        def acquire(self) -> None:
            self._lock.acquire()

        def release(self) -> None:
            self._lock.release()

    Pyro5.config.THREADPOOL_SIZE = 300  # a thread for each client
    with Pyro5.api.Daemon(unixsocket=str(home / "socket")) as daemon:
        daemon.register(Shared(), "shared")
        ready()
        daemon.requestLoop()


class Remote(Client):
    """A proxy."""

    def __init__(self, home: Path) -> None:
        import Pyro5.api

        self.shared = Pyro5.api.Proxy(f"PYRO:shared@./u:{home}/socket")
        self.shared._pyroBind()

    def statements(self) -> dict[str, str]:
        return {
            "get": "shared.get('k')",
            "set": "shared.set('k', 1)",
            "pair": "shared.acquire(); shared.release()",
            "update": "shared.update(MANY)",
        }

    def close(self) -> None:
        self.shared._pyroRelease()


def ask(home: Path) -> None:
    """Connect, get one key, and leave."""
    import Pyro5.api

    with Pyro5.api.Proxy(f"PYRO:shared@./u:{home}/socket") as shared:
        shared.get("k")


connect = Remote
