"""Redis, by redis-py with its parser in C. Nothing is saved to the disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers import Client


def serve(home: Path, ready: Callable[[], None]) -> None:
    """Become a redis-server; its log says that it is ready."""
    options = ["--port", "0", "--unixsocket", str(home / "socket"), "--save", "", "--appendonly", "no"]
    os.execvp("redis-server", ["redis-server", *options, "--dir", str(home), "--maxclients", "10000"])


class Redis(Client):
    """A client with one connection in its pool."""

    def __init__(self, home: Path) -> None:
        import redis

        self.redis = redis.Redis(unix_socket_path=str(home / "socket"))
        self.lock = self.redis.lock("lock")
        self.redis.set("k", 1)
        self.pipeline = self.redis.pipeline

    def statements(self) -> dict[str, str]:
        return {
            "get": "redis.get('k')",
            "set": "redis.set('k', 1)",
            "pair": "lock.acquire(); lock.release()",
            "update": "p = pipeline(transaction=False)\nfor k, v in MANY.items(): p.set(k, v)\np.execute()",
            "array": "loads(redis.get('array'))",
            "bytes": "redis.set('bytes', BYTES); redis.get('bytes')",
        }

    def names(self) -> dict[str, Any]:
        from pickle import loads

        return {**super().names(), "loads": loads}

    def keep_array(self, array: Any) -> None:
        from pickle import dumps

        self.redis.set("array", dumps(array, 5))

    def close(self) -> None:
        self.redis.close()


def ask(home: Path) -> None:
    """Connect, get one key, and leave."""
    import redis

    with redis.Redis(unix_socket_path=str(home / "socket")) as client:
        client.get("k")


connect = Redis
