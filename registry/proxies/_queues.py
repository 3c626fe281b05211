"""Queues, and the items of them that are being worked on."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from registry.errors import LockLost, OutcomeUnknown, RegistryError, StateLost
from registry.proxies._base import Proxy, taking

if TYPE_CHECKING:
    from types import TracebackType


class QueueShape(Proxy):
    """A queue: what comes out of it is the taker's own, so nothing is frozen."""

    __slots__ = ()

    @taking
    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the next item, waiting for one."""
        return self._call("get", block, timeout)

    def get_nowait(self) -> Any:
        """Take the next item if there is one."""
        return self._call("get", False)  # a waiting verb, so that an item that does not arrive goes back

    def claim(self, block: bool = True, timeout: float | None = None) -> Claim:
        """Take the next item for as long as it is worked on: ``with q.claim() as item``."""
        return Claim(self, block, timeout)


class Claim:
    """An item of a queue that is being worked on.

    Entering takes it, waiting for one. At the end of the block it is done; after an exception it goes back to the front
    of the queue, as it does when this process dies. Calls made in the block raise `LockLost` once the claim is lost.
    """

    def __init__(self, proxy: QueueShape, block: bool, timeout: float | None) -> None:
        self._proxy = proxy
        self._arguments = (block, timeout)
        self._number = 0
        self._session = b""
        self._pid = 0

    def __enter__(self) -> Any:
        remote = self._proxy._remote
        link = remote.home.link()
        local = link.local
        depth = len(local.guards)
        try:
            self._number, item = self._proxy._call("claim", *self._arguments)
            self._session, self._pid = link.key, os.getpid()
            local.guards.append(remote.mark(self._number))
            taking = local.taking
            if taking is not None:
                taking.delivered = True
            return item
        except BaseException:
            # Interrupted on the way in: the block is not entered, and nobody would ever settle it.
            del local.guards[depth:]
            link.take_back()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._settle(kind is None)
        except RegistryError:
            # The body's own error tells more than that its claim was lost meanwhile.
            if kind is None:
                raise
        except BaseException:
            # A signal handler raised, perhaps before anything was sent: the block is left all the same.
            with suppress(RegistryError):
                self._settle(kind is None)
            raise

    def _settle(self, done: bool) -> None:
        if os.getpid() != self._pid:
            return  # a forked child has claimed nothing
        remote = self._proxy._remote
        link = remote.home.link()
        remote.relax(remote.mark(self._number))
        try:
            if link.key is self._session:
                remote.invoke("settle", (self._number, done))
                return
        except (OutcomeUnknown, StateLost):
            if link.key is self._session:
                raise
        raise LockLost(remote.title, "the session that had claimed the item has ended", link.label)
