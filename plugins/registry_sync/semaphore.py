"""A number of permits that processes share.

Promise
    At most as many callers have a permit as there are permits, as long as the server lives or has a log. They
    are served in the order in which they came. A permit belongs to the *process* that acquired it: any
    thread of it may return it, and it returns when the process dies. Anybody may ``release`` more than it
    has acquired, which adds permits, so a semaphore can be used to signal; `bounded_semaphore` refuses.

Cost
    ``acquire`` is O(1), or O(permits that expire) if the permit does; ``release`` is O(permits that are
    taken, and those who wait with a timeout).

Failure
    *Who has a permit dies*: the permit returns at once, and nothing is marked as abandoned, since permits
    protect a number and not a thing that may be half changed. What the process had released beyond its own
    stays. On another host it is dead when its lease has ended.
    *A permit expires*, where it was acquired with ``expiry``: it returns, and may be given to another, while
    whoever had it may not know. Calls inside its ``with`` block then raise `LockLost`, and so does its end.
    *A thread that has a permit ends*, but not its process: the permit stays out.
    *A waiter dies*, or gives up: its place in line goes. If it had been given a permit and could not be told,
    the next has it.
    *The server dies*: permits and line are state and come back from the log. Without a log all permits are
    there again, while those from before may still be used.

Example::

    >>> import registry
    >>> with registry.connect("memory://") as shared:
    ...     slots = shared.semaphore("slots", 2)
    ...     with slots, slots.acquire(timeout=5, expiry=60):
    ...         slots.value()
    0
"""

from __future__ import annotations

from registry_sync._permits import Permits

__all__ = ["Semaphore"]


class Semaphore(Permits):
    """Let a number of callers in at a time.

    Args:
        value: How many permits there are to begin with.
    """

    def _check_surplus(self, n: int) -> None:
        """Take it as a signal: permits are added."""
