"""UltraDict: a dict in shared memory, to which each process has a copy of its own, and no server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers import Client


def serve(home: Path, ready: Callable[[], None]) -> None:
    """Make it, and keep it."""
    from UltraDict import UltraDict

    shared = UltraDict({"k": 1}, name=f"bench-{home.name}", buffer_size=1 << 22)
    ready()
    threading.Event().wait()
    shared.close()


class Ultra(Client):
    """The dict, attached here."""

    def __init__(self, home: Path) -> None:
        from UltraDict import UltraDict

        self.d = UltraDict(name=f"bench-{home.name}", create=False)

    def statements(self) -> dict[str, str]:
        return {"get": "d['k']", "set": "d['k'] = 1"}

    def close(self) -> None:
        self.d.close()


connect = Ultra
