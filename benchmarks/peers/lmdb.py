"""LMDB: a file that all map, and no server. Values are bytes: what decoding them costs comes on top."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers import Client


def _open(home: Path) -> Any:
    import lmdb

    # Without syncs, as what we compare it with: it survives the death of processes, and no loss of power.
    return lmdb.open(str(home / "lmdb"), map_size=1 << 30, sync=False, metasync=False)


def serve(home: Path, ready: Callable[[], None]) -> None:
    """Have another process that has it open, as it would be used."""
    with _open(home), threading.Lock():
        ready()
        threading.Event().wait()


class Mapped(Client):
    """The file, opened here. Each read is a transaction, or it would not see what others write."""

    def __init__(self, home: Path) -> None:
        self.environment = _open(home)
        self.begin = self.environment.begin
        with self.begin(write=True) as transaction:
            transaction.put(b"k", b"1")

    def statements(self) -> dict[str, str]:
        return {
            "get": "with begin() as t: t.get(b'k')",
            "set": "with begin(write=True) as t: t.put(b'k', b'1')",
            "update": "with begin(write=True) as t:\n for k, v in MANY.items(): t.put(k.encode(), b'%d' % v)",
            "array": "with begin() as t: loads(t.get(b'array'))",
            "bytes": "with begin(write=True) as t: t.put(b'bytes', BYTES)\nwith begin() as t: t.get(b'bytes')",
        }

    def names(self) -> dict[str, Any]:
        from pickle import loads

        return {**super().names(), "loads": loads}

    def keep_array(self, array: Any) -> None:
        from pickle import dumps

        with self.begin(write=True) as transaction:
            transaction.put(b"array", dumps(array, 5))

    def close(self) -> None:
        self.environment.close()


connect = Mapped
