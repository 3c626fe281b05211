"""A lock that its holder may acquire again.

Promise
    At most one thread or task holds the lock, of whatever process, as long as the server lives or has a
    log. Its holder may acquire it again, without waiting, and has to release it as often; each of these
    grants has the number of the first. Others are served in the order in which they came.

Cost
    ``acquire`` and ``locked`` are O(1), and so is ``release``, but for the last one: it is O(those who wait
    with a timeout).

Failure
    *The holder dies*, its process or its thread or task alone: all levels go at once, the next has the
    lock, and its grant is ``abandoned`` and names who died. The mark stays until a holder that was told so
    has released.
    *A waiter dies*, or gives up: its place in line goes. If it had been granted the lock and could not be
    told, the next has it; of a holder that has it several times, one level goes.
    *The server dies*: holder, levels and line are state and come back from the log. Without a log the lock is
    free afterwards; until a holder from before makes its next call, and hears `LockLost`, there may be two.

    *Two take two locks in opposite order*: the second of them, whose wait would never end, gets `Deadlock`.

    A thread that never releases is not a death: all others wait. `ManagerClient.statistics` names it.

Example::

    >>> import registry
    >>> with registry.connect("memory://") as shared:
    ...     table = shared.rlock("table")
    ...     with table, table:
    ...         table.locked()
    True
"""

from __future__ import annotations

from registry.hosting import Grant, Owner, Waiter, call
from registry_sync._exclusive import Exclusive, patience

__all__ = ["RLock"]


class RLock(Exclusive):
    """Let one thread or task at a time in, as often as it likes."""

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> Waiter | Grant:
        """Take the lock, take it once more, or wait for it; as `Exclusive.acquire`."""
        if self._holder is None or self._holder != call().owner:
            return super().acquire(blocking, timeout)
        patience(blocking, timeout)
        self._levels += 1
        return self._grant()

    def _holder_for(self, owner: Owner) -> Owner:
        return owner

    def _may_release(self, holder: Owner, number: int | None) -> bool:
        if number is None:
            return holder == call().owner
        # By its grant the lock may be released from any thread, as a `with` block may be left in another one.
        return number == self._number and holder.session == call().session.session
