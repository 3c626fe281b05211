"""RPyC: remote references to a dict and a lock, and a thread for each client."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers import Client

CONFIG = {"allow_public_attrs": True, "allow_all_attrs": True, "allow_setattr": True, "sync_request_timeout": None}


def serve(home: Path, ready: Callable[[], None]) -> None:
    """Serve one dict and one lock."""
    import rpyc
    from rpyc.utils.server import ThreadedServer

    class Shared(rpyc.Service):  # type: ignore[misc]
        exposed_d: dict[str, Any] = {"k": 1}  # noqa: RUF012 - shared is what it is meant to be
        exposed_lock = threading.Lock()

    server = ThreadedServer(Shared, socket_path=str(home / "socket"), protocol_config=CONFIG)
    ready()
    server.start()


class Remote(Client):
    """References to both."""

    def __init__(self, home: Path) -> None:
        from rpyc.utils.factory import unix_connect

        self.connection = unix_connect(str(home / "socket"), config=CONFIG)
        self.d = self.connection.root.d
        self.lock = self.connection.root.lock

    def statements(self) -> dict[str, str]:
        return {
            "get": "d['k']",
            "set": "d['k'] = 1",
            "pair": "lock.acquire(); lock.release()",
            "bytes": "d['bytes'] = BYTES; d['bytes']",
        }

    def close(self) -> None:
        self.connection.close()


def ask(home: Path) -> None:
    """Connect, get one key, and leave."""
    from rpyc.utils.factory import unix_connect

    with unix_connect(str(home / "socket"), config=CONFIG) as connection:
        connection.root.d["k"]


connect = Remote
