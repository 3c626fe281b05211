"""A lock that one process holds at a time.

Promise
    At most one process holds the lock, as long as the server lives or has a log. It is granted in the order
    in which it was asked for. Its owner is the *process*: any thread of it may release, and a second
    acquire by the same process waits, as with `threading.Lock`. Every grant has a number that is larger
    than that of every grant before it, of whatever lock, for use as a fencing token.

Cost
    ``acquire`` and ``locked`` are O(1), ``release`` is O(those who wait with a timeout).

Failure
    *The holder dies*: the lock goes to the next at once, and the next grant is ``abandoned`` and names who
    died. The mark stays until a holder that was told so has released. A holder on another host is dead when
    its lease has ended, which it may not know: calls inside its ``with`` block then raise `LockLost`, and
    things outside are protected by the token alone. ::

        A: acquire() -> token 7, loses its network, still believes
        B:                lease of A ends: acquire() -> token 8, writes with 8
        A:                                                                     writes with 7: refuse it

    *The holder's thread ends*, but not its process: the lock stays held; any other thread may release it.
    *Two take two locks in opposite order*: both wait, since another thread of their processes may release; the
    server's log says that it may be a deadlock. Of `rlock`, which a thread holds, the second is refused.
    *A waiter dies*, or gives up: its place in line goes. If it had been granted the lock and could not be
    told, the next has it.
    *The server dies*: holder and line are state and come back from the log. Without a log the lock is free
    afterwards; until a holder from before makes its next call, and hears `LockLost`, there may be two.

Example::

    >>> import registry
    >>> with registry.connect("memory://") as shared:
    ...     login = shared.lock("login")
    ...     with login:
    ...         login.locked()
    True
"""

from __future__ import annotations

from registry.hosting import Owner, call
from registry_sync._exclusive import Exclusive

__all__ = ["Lock"]


class Lock(Exclusive):
    """Let one process at a time in."""

    any_thread_releases = True

    def _holder_for(self, owner: Owner) -> Owner:
        return Owner(owner.session, 0)

    def _may_release(self, holder: Owner, number: int | None) -> bool:
        return holder == call().session and number in (None, self._number)
