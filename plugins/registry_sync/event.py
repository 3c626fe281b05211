"""A flag that processes wait for.

Promise
    Whoever waits goes on once the event is set, and so does whoever comes later, until it is cleared. All who
    wait when it is set go on, even if it is cleared at once. Anybody may set and clear it: it has no holder.

Cost
    ``is_set`` and ``clear`` are O(1), ``set`` is O(those who wait).

Failure
    *Who set it dies*: it stays set. *A waiter dies*, or gives up: nothing else happens.
    *The server dies*: the flag, and who waits, are state and come back from the log. Without a log the event
    is not set afterwards.

Example::

    >>> import registry
    >>> with registry.connect("memory://") as shared:
    ...     ready = shared.event("ready")
    ...     ready.wait(timeout=0)
    ...     ready.set()
    ...     ready.wait(timeout=5)
    False
    True
"""

from __future__ import annotations

from registry.hosting import Waiter, Waiters

__all__ = ["Event"]


class Event:
    """Let callers wait for a flag."""

    def __init__(self) -> None:
        self._is_set = False
        self._waiters = Waiters()

    def set(self) -> None:
        """Set the flag, and let all go on who wait for it."""
        self._is_set = True
        self._waiters.wake_all(True)

    def clear(self) -> None:
        """Take the flag back; from now on callers wait."""
        self._is_set = False

    def is_set(self) -> bool:
        """Tell whether the flag is set."""
        return self._is_set

    def wait(self, timeout: float | None = None) -> Waiter | bool:
        """Wait until the flag is set.

        Args:
            timeout: How long to wait, in seconds. None waits.

        Returns:
            True, or False if the time was up first.
        """
        if self._is_set:
            return True
        if timeout is not None and timeout <= 0:
            return False
        return self._waiters.wait(timeout, otherwise=False)

    # -- what the engine calls

    def vacant(self) -> bool:
        """Tell whether the event is as good as new."""
        return not self._is_set and not self._waiters

    def statistics(self) -> dict[str, object]:
        """Return whether it is set."""
        return {"set": self._is_set}
