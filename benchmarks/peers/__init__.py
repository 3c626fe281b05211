"""Whom we stand beside: each other way to share objects between processes, behind one small interface.

A peer's server is a process of its own, ``python -m benchmarks.peers NAME HOME``, which says "ready" when it serves.
What its clients do is a statement that is timed as it stands, with nothing of ours around it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

BYTES = b"x" * 56  # what an echo carries: about what one of our requests takes


@attrs.frozen
class Statement:
    """What is timed: Python text, and the names in it."""

    text: str
    names: dict[str, Any]


class Client:
    """A connection of this process to a peer's server."""

    def does(self, work: str) -> Statement | None:
        """Return how a kind of work is done here; None if it cannot be.

        The kinds are ``get`` and ``set`` of the key ``k``; ``pair``, a lock taken and released; ``update`` of 10,000
        keys; ``array``, the get of what `keep_array` has put there; ``bytes``, 1 MB set and read.
        """
        text = self.statements().get(work)
        return Statement(text, self.names()) if text else None

    def statements(self) -> dict[str, str]:
        """Return the texts, by kind of work."""
        raise NotImplementedError

    def names(self) -> dict[str, Any]:
        """Return the names that the texts use."""
        return {
            **vars(self),
            "BYTES": b"x" * (1 << 20),
            "MANY": {f"key-{number}": number for number in range(10_000)},
        }

    def keep_array(self, array: Any) -> None:
        """Put an array there under the key ``array``."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave."""


@attrs.frozen
class Peer:
    """A way to share objects.

    Attributes:
        about: What it is, for tables.
        module: Which module of `benchmarks.peers` speaks to it.
        needs: The distribution that it takes, by the name that is imported, or empty.
        install: How to get it.
        kind: Which of the clients in its module is meant.
    """

    about: str
    module: str
    needs: str = ""
    install: str = ""
    kind: str = "connect"
    check: Callable[[], str] = lambda: ""

    def missing(self) -> str:
        """Return why it cannot be measured here, or an empty text."""
        if self.needs and importlib.util.find_spec(self.needs) is None:
            return f"not installed: {self.install}"
        return self.check()

    def load(self) -> Any:
        """Import the module."""
        return importlib.import_module(f"benchmarks.peers.{self.module}")

    def connect(self, home: Path) -> Client:
        """Connect to the server in a directory."""
        client: Client = getattr(self.load(), self.kind)(home)
        return client


def _no_redis() -> str:
    import shutil

    return "" if shutil.which("redis-server") else "no redis-server on the PATH: apt-get install redis-server"


BENCH = 'pip install "shared-registry[bench]"'
PEERS = {
    "registry": Peer("this project, each read a round trip", "ours", kind="connect_uncached"),
    "registry, cached": Peer("this project, as it is used", "ours"),
    "registry, network": Peer("this project over TCP or TLS", "ours", "trustme", BENCH, "connect_network"),
    "manager": Peer("multiprocessing.managers.SyncManager", "manager"),
    "echo": Peer("56 bytes to a process that blocks in recv and back: the floor", "echo"),
    "uvloop echo": Peer("56 bytes to a uvloop server and back", "echo", "uvloop", BENCH, "connect_uvloop"),
    "redis": Peer("redis-py with hiredis and a Redis on a unix socket", "redis", "hiredis", BENCH, check=_no_redis),
    "diskcache": Peer("diskcache: SQLite files", "diskcache", "diskcache", BENCH),
    "lmdb": Peer("LMDB: a mapped file, values as bytes, unsynced", "lmdb", "lmdb", BENCH),
    "UltraDict": Peer("UltraDict: shared memory", "ultradict", "UltraDict", BENCH),
    "rpyc": Peer("RPyC with one thread for each client", "rpyc", "rpyc", BENCH),
    "Pyro5": Peer("Pyro5, a daemon with threads", "pyro", "Pyro5", BENCH),
}
