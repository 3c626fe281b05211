"""Homes of servers for tests: a name means nobody there but who was started there, and at the end nothing is left."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from registry import _addresses, client
from registry._addresses import _names
from registry.testing import _serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

ENDING: Final = 10.0  # seconds that a server may take to end in order, and then to be gone
# What would lead a client elsewhere than to the names of its home.
_LEADING: Final = ("REGISTRY_ADDRESS", "REGISTRY_AUTHKEY_FILE", "REGISTRY_PLUGINS")


class Home:
    """A ``REGISTRY_HOME`` for as long as a block lasts, with an environment that names no server.

    Whoever takes ``REGISTRY_HOME`` out of the environment meanwhile finds no home, rather than that of the person who
    runs the tests. At the end the servers that were started on demand in it are stopped, and clients that modules hold
    forget that they ever knew them, so that they look up again what their names mean.

    Attributes:
        path: The directory.
    """

    def __init__(self) -> None:
        self.path = _serving.place()
        self._before: dict[str, str | None] = {}
        self._find: Callable[[], str] = _names._home

    def __enter__(self) -> Self:
        self._before = {name: os.environ.get(name) for name in ("REGISTRY_HOME", *_LEADING)}
        for name in _LEADING:
            os.environ.pop(name, None)
        os.environ["REGISTRY_HOME"] = str(self.path)
        self._find, _names._home = _names._home, self._found
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            client.forget(str(self.path))
            loops = sys.modules.get("registry.aio._homes")  # where nobody has imported it there is none to forget
            if loops is not None:
                loops.forget(str(self.path))
            for directory in self.path.iterdir():
                _end(directory / "lock")
        finally:
            _names._home = self._find
            for name, value in self._before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            shutil.rmtree(self.path, ignore_errors=True)

    def _found(self) -> str:
        """Return the home that the environment names, and never the one that goes without saying."""
        if not os.environ.get("REGISTRY_HOME"):
            raise RuntimeError(
                "this test has emptied its environment, where REGISTRY_HOME keeps it from the servers of this user: "
                "leave that there, as in mock.patch.dict(os.environ, {'REGISTRY_HOME': os.environ['REGISTRY_HOME']}, "
                "clear=True)"
            )
        return self._find()


def _end(path: Path) -> None:
    """End the server that has a lock, unless it is a thread of this process, which somebody else sees to."""
    lock = _addresses.ServerLock(path)
    if not path.exists() or lock.acquire():
        lock.release()
        return
    pid = (lock.read_info() or {}).get("pid")
    if not isinstance(pid, int) or pid == os.getpid():
        return
    try:
        pidfd = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    except ProcessLookupError:
        return  # it has just ended by itself
    try:
        for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass  # it has ended by itself
            if select.select([pidfd], [], [], ENDING)[0] if pidfd is not None else lock.wait(ENDING):
                return
    finally:
        lock.release()
        if pidfd is not None:
            os.close(pidfd)
    raise RuntimeError(f"the server of {path.parent} (pid {pid}) does not end")
