"""A point at which a number of processes wait for each other.

Promise
    Nobody passes before all parties have come; then all pass, and the barrier is there for the next round.
    Each party of a round is given another number, from zero on, in the order in which they came. A round
    that cannot be completed is *broken*: all who wait, and all who come, get
    `threading.BrokenBarrierError` until somebody calls ``reset``.

Cost
    ``wait`` is O(1), but for the last of a round: it is O(parties).

Failure
    *A party dies while it waits*, or gives up, or its time is up: the barrier breaks for the rest.
    *A party dies on its way to the barrier*: nobody knows that it was to come, since a party is whoever
    waits. The rest wait for somebody else to take its place, so give `wait` a timeout. ::

        A: wait() ...                          still waits
        B: wait() ...                          still waits
        C:            killed while it worked, before its wait()

    *The server dies*: who waits is state and comes back from the log. Without a log those who wait are told
    that it is lost.

    There is no ``action``: it would have to run in the server. Let the party that got 0 do it, between two
    barriers.

Example::

    >>> import registry
    >>> with registry.connect("memory://") as shared:
    ...     start = shared.barrier("start", parties=1)
    ...     start.wait(timeout=5)
    0
"""

from __future__ import annotations

from threading import BrokenBarrierError

from registry.hosting import Waiter, Waiters

__all__ = ["Barrier"]


class Barrier:
    """Let callers wait for each other.

    Args:
        parties: How many have to come.
        timeout: How long each waits, in seconds, where its call does not tell. None waits.
    """

    def __init__(self, parties: int, timeout: float | None = None) -> None:
        if type(parties) is not int or parties < 1:
            raise ValueError(f"parties must be an int of one or more, not {parties!r}")
        self._parties = parties
        self._timeout = timeout
        self._broken = False
        self._waiters = Waiters()

    def wait(self, timeout: float | None = None) -> Waiter | int:
        """Wait until all parties have come.

        Args:
            timeout: How long to wait, in seconds, before the barrier breaks. None takes that of the barrier.

        Returns:
            The number of this party in the round, from 0 to ``parties - 1``.

        Raises:
            threading.BrokenBarrierError: The barrier is broken, or broke, or was reset meanwhile.
        """
        if self._broken:
            raise BrokenBarrierError
        if len(self._waiters) == self._parties - 1:
            for number in range(self._parties - 1):
                self._waiters.wake(number)
            return self._parties - 1
        seconds = self._timeout if timeout is None else timeout
        if seconds is not None and seconds <= 0:
            self._break()
            raise BrokenBarrierError
        return self._waiters.wait(seconds, otherwise=BrokenBarrierError())

    def reset(self) -> None:
        """Make the barrier as new; those who wait are told that it broke."""
        self._waiters.wake_all(BrokenBarrierError())
        self._broken = False

    def abort(self) -> None:
        """Break the barrier."""
        self._break()

    def parties(self) -> int:
        """Return how many have to come."""
        return self._parties

    def n_waiting(self) -> int:
        """Return how many wait."""
        return len(self._waiters)

    def broken(self) -> bool:
        """Tell whether the barrier is broken."""
        return self._broken

    # -- what the engine calls

    def gave_up(self, waiter: Waiter) -> None:
        """Break the barrier: one of its parties has gone."""
        self._break()

    def statistics(self) -> dict[str, object]:
        """Return how many have to come, and whether it is broken."""
        return {"parties": self._parties, "broken": self._broken}

    # -- within

    def _break(self) -> None:
        self._broken = True
        self._waiters.wake_all(BrokenBarrierError())
