"""A first-in, first-out queue between processes.

Promise
    Each item goes to one getter, in the order in which items came. Getters are served in the order in which
    they came, and so are those who wait to put into a full queue. `queue.Empty` and `queue.Full` are those
    of the standard library. Items are kept as they came and are never decoded here.

    ``with jobs.claim() as item`` takes an item for as long as the block lasts: at its end the item is done and
    gone, after an exception it is back at the front. So is it when the process dies, and another one gets
    it. An item is done once, but for that it may be begun more than once.

    ``jobs.put_many(items)`` puts all of them at once, with nobody's between them; where there is no room for all, it
    waits, and who comes later waits behind it. ``jobs.get_many(n)`` waits for one item, and takes what else is there,
    up to `n`.

Cost
    Every method is O(1), for each item that it puts or takes. The death of a process is O(items that are claimed).

Failure
    *A getter dies* before its session has acknowledged an item that `Queue.get` gave it: the item goes back
    to the front, or to whoever has waited longest. Once acknowledged the item is the getter's, and dies
    with it.
    *Who has claimed an item dies*, or its lease ends: the item is back at the front, or with whoever has waited
    longest, in that step. If it was only cut off, its calls inside the block raise `LockLost` from then on,
    and so does the end of the block. ::

        A: claim() -> 1, loses its network, works on
        B:                lease of A ends: claim() -> 1, works too
        A:                                               its next call inside the block: LockLost

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
from collections.abc import Iterable
from math import inf
from typing import Any

from registry.errors import LockLost
from registry.hosting import Caller, Carried, Holder, Owner, Waiter, Waiters, call, carry

__all__ = ["Queue"]

# Who has claimed an item: the process, how people are told of it, since when; and the item.
_Claim = tuple[Owner, Caller, float, Carried]


class Queue:
    """Share a first-in, first-out queue.

    Args:
        maxsize: How many items it holds before ``put`` waits; zero or less for any number.
    """

    gives_back = ("settle",)
    frees = ("claim", "get", "get_many", "get_nowait")

    # Two rules hold between any two steps, of those who can be reached: where somebody waits to get there is no
    # item, and where somebody waits to put there is no room for what the first of them brings. Whoever comes later
    # waits behind them, and can never overtake.

    def __init__(self, maxsize: int = 0) -> None:
        if type(maxsize) is not int:
            raise TypeError(f"maxsize must be an int, not {maxsize!r} ({type(maxsize).__name__})")
        self._maxsize = maxsize
        self._items: deque[Carried] = deque()
        self._getters = Waiters()
        self._putters = Waiters()
        # What each of those who wait to put wants to put, by the number of the wait.
        self._offers: dict[int, list[Carried]] = {}
        # How many those want who wait to get several, by the number of the wait.
        self._wanted: dict[int, int] = {}
        # Those who wait to claim and not to get, by the number of the wait.
        self._claimers: dict[int, None] = {}
        self._claims: dict[int, _Claim] = {}

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
        return self._put([carry(item)], _patience(block, timeout))

    def put_many(self, items: Iterable[object], block: bool = True, timeout: float | None = None) -> Waiter | None:
        """Put items at the end: all of them in one step, or none.

        Args:
            items: What to put, in order.
            block: Whether to wait while there is no room for all of them.
            timeout: How long to wait, in seconds. None waits.

        Raises:
            queue.Full: There was no room for all of them in time.
            ValueError: The timeout is negative, or there are more items than the queue ever has room for.
        """
        seconds = _patience(block, timeout)
        values = list(map(carry, items))
        if 0 < self._maxsize < len(values):
            raise ValueError(
                f"{len(values)} items at once never fit into a queue of {self._maxsize}; put them in parts"
            )
        return self._put(values, seconds) if values else None

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
        return self._take() if self._items else self._wait(seconds)

    def get_many(self, n: int, block: bool = True, timeout: float | None = None) -> Waiter | list[Carried]:
        """Wait for an item, and take it out with those that are there then, up to `n`, in order.

        Args:
            n: How many to take at most; at least 1.
            block: Whether to wait while the queue is empty.
            timeout: How long to wait, in seconds. None waits.

        Raises:
            queue.Empty: There was no item in time.
            ValueError: The timeout is negative, or `n` is less than 1.
        """
        seconds = _patience(block, timeout)
        if type(n) is not int or n < 1:
            raise ValueError(f"n must be an int of at least 1, not {n!r}")
        if self._items:
            return self._take_many(n)
        waiter = self._wait(seconds)
        self._wanted[waiter.number] = n
        return waiter

    def claim(self, block: bool = True, timeout: float | None = None) -> Waiter | list[object]:
        """Take the first item out for as long as it is worked on.

        A client's ``claim`` is made of this: it takes the same arguments and is used in ``with``, which gives the
        item.

        Args:
            block: Whether to wait while the queue is empty.
            timeout: How long to wait, in seconds. None waits.

        Returns:
            The number of the claim, for `settle`, and the item.

        Raises:
            queue.Empty: There was no item in time.
            ValueError: The timeout is negative.
        """
        seconds = _patience(block, timeout)
        if self._items:
            step = call()
            return self._claim(step.session, step.caller, self._take())
        waiter = self._wait(seconds)
        self._claimers[waiter.number] = None
        return waiter

    def settle(self, number: int, done: bool = True) -> None:
        """End a claim, as the end of its ``with`` block does.

        Args:
            number: The number of the claim.
            done: Whether the item is done; if not, it goes back to the front.

        Raises:
            LockLost: This process has no such claim; if it had, the item may be with another by now. Or a lock is
                lost in whose block this was called: then the item goes back, since nobody knows how far it is done.
        """
        step = call()
        claim = self._claims.get(number)
        if claim is None or claim[0] != step.session:
            raise LockLost(step.title, step.taken(number) or "its item is not claimed by this process")
        if step.lost is not None:
            self._give_back([number])
            raise step.lost
        if done:
            del self._claims[number]
        else:
            self._give_back([number])

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
        if isinstance(value, list) and not isinstance(value[0], Carried):
            if value[0] not in self._claims:
                return False
            self._give_back([value[0]])
            return True
        items: list[Any] = value if isinstance(value, list) else [value]
        if not isinstance(items[0], Carried):
            return False
        self._items.extendleft(reversed(items))
        self._serve()
        return True

    def owner_ended(self, owner: Owner) -> None:
        """Put what a process had claimed that has ended to the front; the end of a thread alone is none."""
        self._give_back([number for number, claim in self._claims.items() if owner == claim[0]])

    def gave_up(self, waiter: Waiter) -> None:
        """Drop what was kept for a wait, and let in who waited behind it for no other reason."""
        self._claimers.pop(waiter.number, None)
        self._wanted.pop(waiter.number, None)
        if self._offers.pop(waiter.number, None) is not None:
            self._let_put()

    def went_away(self, waiter: Waiter) -> None:
        """Let in who waited behind somebody who cannot be reached, and brings more than there is room for."""
        self._let_put()

    def came_back(self, waiter: Waiter) -> None:
        """Serve somebody who could not be reached when there was an item, or room."""
        self._serve()
        self._let_put()

    def holds(self, number: int) -> bool:
        """Tell whether the claim of this number is valid."""
        return number in self._claims

    def take_away(self, number: int) -> None:
        """Put a claimed item to the front by force."""
        self._give_back([number])

    def holders(self) -> list[Holder]:
        """Return who has claimed an item."""
        return [Holder(session, caller, since, number) for number, (session, caller, since, _) in self._claims.items()]

    def state(self) -> dict[str, object]:
        """Return the state, with the items as a list, which is much faster than a deque of them."""
        return {**vars(self), "_items": list(self._items)}

    def load(self, state: dict[str, Any]) -> None:
        """Take what `state` returned."""
        vars(self).update(state, _items=deque(state["_items"]))

    def statistics(self) -> dict[str, object]:
        """Return how many items there are, and how many wait to get and to put."""
        return {"items": len(self._items), "getters": len(self._getters), "putters": len(self._putters)}

    # -- within ------------------------------------------------------------------------------------

    def _put(self, values: list[Carried], seconds: float | None) -> Waiter | None:
        if self._putters.first is None and self._has_room(len(values)):
            self._add(values)
            return None
        if seconds == 0:
            raise queue.Full
        waiter: Waiter = self._putters.wait(seconds, otherwise=queue.Full())
        self._offers[waiter.number] = values
        return waiter

    def _has_room(self, count: int) -> bool:
        return self._maxsize <= 0 or len(self._items) + count <= self._maxsize

    def _add(self, values: list[Carried]) -> None:
        self._items.extend(values)
        self._serve()

    def _take_many(self, n: int) -> list[Carried]:
        items = [self._items.popleft() for _ in range(min(n, len(self._items)))]
        self._let_put()
        return items

    def _take(self) -> Carried:
        item = self._items.popleft()
        self._let_put()
        return item

    def _let_put(self) -> None:
        """Take what those bring who wait to put, in their order, for as long as there is room."""
        while (waiter := self._putters.first) is not None and self._has_room(len(self._offers[waiter.number])):
            values = self._offers.pop(waiter.number)
            self._putters.wake()
            self._add(values)

    def _wait(self, seconds: float | None) -> Waiter:
        if seconds == 0:
            raise queue.Empty
        return self._getters.wait(seconds, otherwise=queue.Empty())

    def _serve(self) -> None:
        """Give what is there to those who wait for it, who has waited longest first."""
        items = self._items
        while items and (waiter := self._getters.first) is not None:
            number = waiter.number
            if number in self._claimers:
                del self._claimers[number]
                session = Owner(waiter.owner.session, 0)
                self._getters.wake(self._claim(session, waiter.caller, items.popleft()))
            elif number in self._wanted:
                count = min(self._wanted.pop(number), len(items))
                self._getters.wake([items.popleft() for _ in range(count)])
            else:
                self._getters.wake(items.popleft())

    def _claim(self, session: Owner, caller: Caller, item: Carried) -> list[object]:
        step = call()
        number = step.token()
        self._claims[number] = (session, caller, step.now, item)
        return [number, item]

    def _give_back(self, numbers: list[int]) -> None:
        """Put claimed items to the front, in the order in which they were claimed."""
        items = [self._claims.pop(number)[3] for number in numbers]
        self._items.extendleft(reversed(items))
        self._serve()


def _patience(block: bool, timeout: float | None) -> float | None:
    """Return for how many seconds to wait, None for ever, as the standard library's queues read it."""
    if not block:
        return 0.0
    if timeout is None:
        return None
    if not timeout >= 0:  # so written because it is true of nan
        raise ValueError("'timeout' must be a non-negative number")
    return None if timeout == inf else timeout
