"""A number of permits that processes share, and that never grows.

It is as `semaphore`, but for one thing: whoever returns a permit must have acquired it. So a mistake shows
where it is made, and there are never more permits than there were to begin with.

Promise, Cost, Failure
    As those of `semaphore`. A release by a process that has acquired less is refused as a whole, `NotOwner`,
    where `threading.BoundedSemaphore` raises `ValueError` and lets one thread return what another has.

Example::

    >>> import registry
    >>> with registry.connect("memory://") as shared:
    ...     connections = shared.bounded_semaphore("connections", 10)
    ...     with connections:
    ...         connections.value()
    9
"""

from __future__ import annotations

from registry.errors import NotOwner
from registry.hosting import Owner, Waiter, call
from registry_sync._permits import Permits

__all__ = ["BoundedSemaphore"]


class BoundedSemaphore(Permits):
    """Let a number of callers in at a time, and take permits back from them alone.

    Args:
        value: How many permits there are to begin with.
    """

    any_thread_releases = True

    def blocked_by(self, waiter: Waiter) -> list[list[Owner]] | None:
        """Return who has to go on for a wait to end: one of those with a permit, unless a permit expires."""
        permits = self._permits.values()
        if not permits or any(expires is not None for _, _, _, expires in permits):
            return None
        return [[owner for owner, _, _, _ in permits]]

    def _check_surplus(self, n: int) -> None:
        """Refuse it."""
        raise NotOwner(call().title, self._who())
