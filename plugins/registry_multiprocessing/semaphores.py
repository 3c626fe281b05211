"""Semaphores: `Semaphore` and `BoundedSemaphore`.

Promise
    As `threading.Semaphore` and `threading.BoundedSemaphore`; anybody may release.

Cost
    O(1), a release by somebody who has acquired nothing included.

Failure
    *Whoever has acquired dies*: what is missing to the first value is given back, as far as the dead had it. So slots
    come back, and a semaphore that began with 0, by which some tell others of news, invents none. A release in the
    place of the dead does no harm, as with locks. *A waiter dies*, or its thread is interrupted: it leaves the line.

Example::

    >>> from registry import Manager
    >>> with Manager() as manager:
    ...     slots = manager.BoundedSemaphore(2)
    ...     slots.acquire(), slots.acquire(), slots.acquire(False)
    (True, True, False)
"""

from __future__ import annotations

import threading
from functools import partial

from registry.hosting import GivenUp, Owner, visit
from registry_multiprocessing._waits import Waits

__all__ = ["BoundedSemaphore", "Semaphore"]


class Semaphore:
    """Let so many in at a time.

    Args:
        value: How many.
    """

    _bounded = False

    def __init__(self, value: int = 1) -> None:
        if value < 0:
            raise ValueError("semaphore initial value must be >= 0")
        self._gate = Waits(threading.Lock())
        self._first = value
        self._value = value
        # How often each process has acquired without a release that was for it, the oldest first; and how much was
        # given back for the dead, that nobody has released in their place, and nobody has taken.
        self._taken: dict[Owner, int] = {}
        self._orphaned = 0

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Go in, and tell whether there was room in time.

        Raises:
            ValueError: A timeout that makes no sense.
        """
        if not blocking and timeout is not None:
            raise ValueError("can't specify timeout for non-blocking acquire")
        with self._gate:
            here = visit()
            if here.given_up:
                raise GivenUp
            if not self._value and not (blocking and self._gate.wait_for(lambda: self._value > 0, timeout)):
                return False
            self._value -= 1
            self._orphaned = min(self._orphaned, self._value)
            self._taken[here.process] = self._taken.get(here.process, 0) + 1
        here.unless_delivered(partial(self._take_back, here.process))
        return True

    def release(self, n: int = 1) -> None:
        """Let somebody in, or so many.

        Raises:
            ValueError: `n` is less than 1, or a `BoundedSemaphore` would let in more than at first.
        """
        if n < 1:
            raise ValueError("n must be one or more")
        with self._gate:
            process = visit().process
            own = self._taken.get(process, 0)
            orphaned = min(self._orphaned, max(0, n - own))
            if self._bounded and self._value + n - orphaned > self._first:
                raise ValueError("Semaphore released too many times")
            self._orphaned -= orphaned
            self._give(process, n - orphaned)

    def owner_ended(self, owner: Owner) -> None:
        """Give back what a dead process had."""
        with self._gate:
            taken = self._taken.pop(owner, 0)
            back = min(taken, max(0, self._first - self._value))
            self._orphaned += back
            self._value += back
            self._gate.notify(back)

    def _take_back(self, process: Owner) -> None:
        with self._gate:
            if process in self._taken:
                self._give(process, 1)

    def _give(self, process: Owner, n: int) -> None:
        """Let in `n`: for what a process has taken, else for what others have, who did so first."""
        self._value += n
        self._gate.notify(n)
        while n and self._taken:
            whose = process if process in self._taken else next(iter(self._taken))
            paid = min(n, self._taken[whose])
            n -= paid
            self._taken[whose] -= paid
            if not self._taken[whose]:
                del self._taken[whose]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} value={self._value}>"


class BoundedSemaphore(Semaphore):
    """Let so many in at a time, and refuse a release too many."""

    _bounded = True
