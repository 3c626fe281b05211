"""A first-in, first-out queue between processes.

Promise
    Each item goes to one getter, in the order in which items came. Getters are served in the order in which
    they came, and so are those who wait to put into a full queue. `queue.Empty` and `queue.Full` are those
    of the standard library. Items are kept as they came and are never decoded here.

Cost
    Every method is O(1), but for the first call after waits to put had ended by a timeout, a cancel or a
    death: it drops what they wanted to put, in O(those who wait to put).

Failure
    *A getter dies* before its session has acknowledged an item that `Queue.get` gave it: the item goes back
    to the front, or to whoever has waited longest. Once acknowledged the item is the getter's, and dies
    with it.
    *A getter that waits dies*: its place in line goes, and no item with it.
    *A putter dies while it waits*: its item was never in the queue. Once ``put`` has returned, the item
    does not depend on the putter.
    *The server dies*: items, and who waits, are state and come back from the log. Without a log they are
    gone, and every client is told so once.

    An item that went back may be seen after one that came later, if another getter had that one meanwhile;
    and a queue to which an item went back may hold more than `maxsize`, until that many have been taken
    out. ::

        A: get() -> 1, killed before it could acknowledge
        B:               get() -> 2
        B:                               get() -> 1

    `Queue.get_nowait` cannot give back: what it answered is gone with its caller. ``get(block=False)`` can.

Example::

    >>> import registry
    >>> with registry.connect("memory://") as shared:
    ...     jobs = shared.queue("jobs", maxsize=10)
    ...     jobs.put({"url": "https://example.org"})
    ...     jobs.get(timeout=5), jobs.empty()
    ({'url': 'https://example.org'}, True)
"""

from __future__ import annotations

import queue
from collections import deque
from math import inf

from registry.hosting import Carried, Waiter, Waiters, carry

__all__ = ["Queue"]


class Queue:
    """Share a first-in, first-out queue.

    Args:
        maxsize: How many items it holds before ``put`` waits; zero or less for any number.
    """

    # Two rules hold between any two steps: where somebody waits to get there is no item, and where somebody
    # waits to put there is no room. Hence whoever comes later can never overtake.

    def __init__(self, maxsize: int = 0) -> None:
        if type(maxsize) is not int:
            raise TypeError(f"maxsize must be an int, not {maxsize!r} ({type(maxsize).__name__})")
        self._maxsize = maxsize
        self._items: deque[Carried] = deque()
        self._getters = Waiters()
        self._putters = Waiters()
        # What each of those who wait to put wants to put, by the number of the wait.
        self._offers: dict[int, Carried] = {}

    def put(self, item: object, block: bool = True, timeout: float | None = None) -> Waiter | None:
        """Put an item at the end.

        Args:
            item: What to put.
            block: Whether to wait while the queue is full.
            timeout: How long to wait, in seconds. None waits.

        Raises:
            queue.Full: There was no room in time.
            ValueError: The timeout is negative.
        """
        seconds = _patience(block, timeout)
        value = carry(item)
        self._tidy()
        if not self.full():
            self._add(value)
            return None
        if seconds == 0:
            raise queue.Full
        waiter = self._putters.wait(seconds, otherwise=queue.Full())
        self._offers[waiter.number] = value
        return waiter

    def get(self, block: bool = True, timeout: float | None = None) -> Waiter | Carried:
        """Take the first item out and return it.

        Args:
            block: Whether to wait while the queue is empty.
            timeout: How long to wait, in seconds. None waits.

        Raises:
            queue.Empty: There was no item in time.
            ValueError: The timeout is negative.
        """
        seconds = _patience(block, timeout)
        self._tidy()
        if not self._items:
            if seconds == 0:
                raise queue.Empty
            return self._getters.wait(seconds, otherwise=queue.Empty())
        item = self._items.popleft()
        if not self.full():
            waiter = self._putters.wake()
            if waiter is not None:
                self._add(self._offers.pop(waiter.number))
        return item

    def put_nowait(self, item: object) -> None:
        """Put an item at the end, or raise `queue.Full` at once."""
        self.put(item, block=False)

    def get_nowait(self) -> Waiter | Carried:
        """Take the first item out and return it, or raise `queue.Empty` at once."""
        return self.get(block=False)

    def qsize(self) -> int:
        """Return how many items there are."""
        return len(self._items)

    def empty(self) -> bool:
        """Tell whether there is no item."""
        return not self._items

    def full(self) -> bool:
        """Tell whether there is no room."""
        return 0 < self._maxsize <= len(self._items)

    # -- what the engine calls ---------------------------------------------------------------------

    def take_back(self, value: object) -> bool:
        """Put an item that its getter never heard of to the front. A put that has happened stays."""
        if not isinstance(value, Carried):
            return False
        if self._getters.wake(value) is None:
            self._items.appendleft(value)
        return True

    def statistics(self) -> dict[str, object]:
        """Return how many items there are, and how many wait to get and to put."""
        return {"items": len(self._items), "getters": len(self._getters), "putters": len(self._putters)}

    # -- within ------------------------------------------------------------------------------------

    def _add(self, value: Carried) -> None:
        if self._getters.wake(value) is None:
            self._items.append(value)

    def _tidy(self) -> None:
        """Drop the items of those who no longer wait; a wait that ends early tells nobody."""
        if len(self._offers) != len(self._putters):
            waiting = {waiter.number for waiter in self._putters}
            self._offers = {number: item for number, item in self._offers.items() if number in waiting}


def _patience(block: bool, timeout: float | None) -> float | None:
    """Return for how many seconds to wait, None for ever, as the standard library's queues read it."""
    if not block:
        return 0.0
    if timeout is None:
        return None
    if not timeout >= 0:  # so written because it is true of nan
        raise ValueError("'timeout' must be a non-negative number")
    return None if timeout == inf else timeout
