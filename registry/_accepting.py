"""Taking connections from a listening socket, and none for as long as hardly any file can be opened.

The loops' own way to do this does not fit. Where no descriptor is left, asyncio logs a traceback for each attempt, of
which it makes thousands, and uvloop takes connections and closes them at once. Both take connections until the very
last descriptor is gone, so that the log, the file of epochs and the files of large values cannot be opened either.

The kernel gives to a new connection the lowest number that is free. So a number near the limit says that nearly all
are taken: then nobody is accepted, who comes waits in the kernel's queue, and `RESERVE` descriptors stay for what else
has to be opened. It goes on when a connection has gone, and looks once in a while in case something else has.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Final

from registry._room import open_files

log = logging.getLogger("registry")

RESERVE: Final = 64  # descriptors that connections leave to everything else; a quarter where there are few
PAUSE: Final = 1.0  # seconds after which it is looked again whether there is a descriptor

_SCARCE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Acceptor:
    """Takes the connections of one listening socket.

    Args:
        loop: Where they live.
        listener: The socket; it is closed with this.
        make: Makes the protocol of a connection.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, listener: socket.socket, make: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._make = make
        self._tasks: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_told = False
        listener.setblocking(False)
        loop.add_reader(listener, self._accept)

    @property
    def is_paused(self) -> bool:
        """Whether nobody is accepted at present."""
        return self._timer is not None

    def resume(self) -> None:
        """Accept again, if there are descriptors by now; to be called when one has been closed."""
        if self._timer is None:
            return
        self._timer.cancel()
        if self._is_scarce():
            self._timer = self._loop.call_later(PAUSE, self.resume)
        else:
            self._timer = None
            self._loop.add_reader(self._listener, self._accept)

    async def close(self) -> None:
        """Accept nobody any more; who has just been accepted, and has not begun, is hung up on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        else:
            self._loop.remove_reader(self._listener)
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self) -> None:
        reserve = _reserve()
        # So few in a turn that those which are still beginning, each of which opens another one, do not use it up.
        for _ in range(max(1, reserve // 4)):
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _SCARCE:
                    raise
                self._pause(error.strerror or str(error))
                return
            sock.setblocking(False)
            task = self._loop.create_task(self._begin(sock))
            self._tasks.add(task)
            task.add_done_callback(partial(self._has_begun, sock))
            if sock.fileno() >= open_files() - reserve:
                self._pause(f"{open_files()} may be open")
                return
            if self._is_told:
                self._is_told = False
                log.info("accepting connections again")

    async def _begin(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make, sock)
        except OSError as error:
            log.info("a connection broke before it began: %s", error)
            sock.close()

    def _has_begun(self, sock: socket.socket, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            sock.close()

    def _pause(self, reason: str) -> None:
        self._loop.remove_reader(self._listener)
        self._timer = self._loop.call_later(PAUSE, self.resume)
        if not self._is_told:
            self._is_told = True
            log.warning(
                "accepting no connections until some have gone, since nearly all files are open that may be (%s); "
                "raise LimitNOFILE= of the unit, or ulimit -n",
                reason,
            )

    def _is_scarce(self) -> bool:
        try:
            number = os.dup(self._listener.fileno())
        except OSError:
            return True
        os.close(number)
        return number >= open_files() - _reserve()


def _reserve() -> int:
    return min(RESERVE, open_files() // 4)
