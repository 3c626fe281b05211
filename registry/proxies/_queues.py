"""Queues, and the items of them that are being worked on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from registry._codec import carry_list
from registry.errors import RegistryError
from registry.proxies._base import Proxy, taking
from registry.proxies._blocks import Hold, Leaving, leaving, opening

if TYPE_CHECKING:
    from types import TracebackType
    from weakref import ref


class QueueShape(Proxy):
    """A queue: what comes out of it is the taker's own, so nothing is frozen."""

    __slots__ = ()

    @taking
    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the next item, waiting for one."""
        return self._call("get", block, timeout)

    @taking
    def get_many(self, n: int, block: bool = True, timeout: float | None = None) -> Any:
        """Wait for an item, and take it with those that are there then, up to `n`."""
        return self._call("get_many", n, block, timeout)

    @taking
    def put_many(self, items: Iterable[Any], block: bool = True, timeout: float | None = None) -> Any:
        """Put all the items in one step, waiting for room for all of them."""
        # Each is encoded by itself where the class keeps any without decoding it.
        row = carry_list(items, self._remote.carry) if self._interface.carried else list(items)
        return self._call("put_many", row, block, timeout)

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
        self._hold: Hold | None = None
        self.opening: ref[Leaving] | None = None

    def __enter__(self) -> Any:
        block = opening(self)
        remote = self._proxy._remote
        link = remote.home.link()
        local = link.local
        guards = link.guards
        depth = len(guards)
        try:
            self._number, item = self._proxy._call("claim", *self._arguments)
            # Forsaken, the item goes back to the front.
            self._hold = hold = Hold(remote, self._number, "settle", self._number, False)
            if block is not None:
                block.hold = hold
            taking = local.taking
            if taking is not None:
                taking.delivered = True
            return item
        except BaseException:
            # Interrupted on the way in: the block is not entered, and nobody would ever settle it.
            if block is not None:
                block.hold = None
            del guards[depth:]
            link.take_back()
            raise

    @leaving
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        hold: Hold | None = None,
    ) -> None:
        hold = self._hold
        if hold is None:
            return  # it was never entered
        try:
            hold.finish(self._number, kind is None)
        except RegistryError:
            # The body's own error tells more than that its claim was lost meanwhile.
            if kind is None:
                raise

    def _here(self) -> Claim:
        return self
