"""A count that processes wait for, down to zero.

Promise
    Whoever waits goes on once the count has come down to zero, and so does whoever comes later: it never goes
    up again. Each ``count_down`` counts once, however often the connection was cut meanwhile. Anybody may
    count: it has no holder.

Cost
    ``count_down`` and ``remaining`` are O(1), but for the last one: it is O(those who wait).

Failure
    *Whoever was to count dies*: what it has counted stays counted, and what it has not is missing. All others
    wait, so give `wait` a timeout where work may be lost, or take a `barrier`, which breaks.
    *A waiter dies*, or gives up: nothing else happens.
    *The server dies*: the count, and who waits, are state and come back from the log. Without a log the first
    to come makes it anew, with the whole count.

Example::

    >>> import registry
    >>> with registry.connect("memory://") as shared:
    ...     loaded = shared.latch("loaded", 2)
    ...     loaded.count_down()
    ...     loaded.wait(timeout=0)
    ...     loaded.count_down()
    ...     loaded.wait(timeout=5)
    1
    False
    0
    True
"""

from __future__ import annotations

from registry.hosting import Waiter, Waiters

__all__ = ["Latch"]


class Latch:
    """Let callers wait until something has happened so many times.

    Args:
        count: How many times.
    """

    def __init__(self, count: int) -> None:
        if type(count) is not int or count < 0:
            raise ValueError(f"count must be an int and not negative, not {count!r}")
        self._remaining = count
        self._waiters = Waiters()

    def count_down(self, n: int = 1) -> int:
        """Count `n` times, and return what remains.

        Raises:
            ValueError: `n` is less than one.
        """
        if type(n) is not int or n < 1:
            raise ValueError(f"n must be one or more, not {n!r}")
        self._remaining = max(0, self._remaining - n)
        if not self._remaining:
            self._waiters.wake_all(True)
        return self._remaining

    def remaining(self) -> int:
        """Return what remains to be counted."""
        return self._remaining

    def wait(self, timeout: float | None = None) -> Waiter | bool:
        """Wait until nothing remains.

        Args:
            timeout: How long to wait, in seconds. None waits.

        Returns:
            True, or False if the time was up first.
        """
        if not self._remaining:
            return True
        if timeout is not None and timeout <= 0:
            return False
        return self._waiters.wait(timeout, otherwise=False)

    # -- what the engine calls

    def statistics(self) -> dict[str, object]:
        """Return what remains to be counted."""
        return {"remaining": self._remaining}
