"""Locks: `Lock` and `RLock`.

Promise
    As `threading.Lock` and `threading.RLock`, whose threads are here the threads of all processes. A `Lock` may be
    released by any of them, an `RLock` by the thread that has it.

Cost
    O(1). Who waits is let in by turns, but somebody who comes in the moment of a release may be before them.

Failure
    *The holder dies*: the lock is free, and the next in line has it. Whoever releases it in the place of the dead, as
    one does with locks that stay locked, does no harm: one such release is taken without a word. *A waiter dies*, or
    its thread is interrupted: it leaves the line. *A grant cannot be delivered*: it goes to the next.

Example::

    >>> from registry import Manager
    >>> with Manager() as manager:
    ...     lock = manager.Lock()
    ...     with lock:
    ...         lock.acquire(False)
    False
"""

from __future__ import annotations

import threading
from functools import partial

from registry.hosting import GivenUp, Owner, visit
from registry_multiprocessing._waits import Waits

__all__ = ["Lock", "RLock"]


class Lock:
    """Let one in at a time."""

    def __init__(self) -> None:
        self._gate = Waits(threading.Lock())
        self._grant: _Grant | None = None
        # Whether the last holder has died, and nobody has released the lock in its place.
        self._orphaned = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, and tell whether it could be had in time.

        Raises:
            ValueError: A timeout that makes no sense.
        """
        threading.Lock().acquire(blocking, timeout)  # one that is free, which looks at what it is given
        with self._gate:
            here = visit()
            if here.given_up:
                raise GivenUp
            if self._grant is not None and not (
                blocking and self._gate.wait_for(lambda: self._grant is None, None if timeout == -1 else timeout)
            ):
                return False
            self._grant = grant = _Grant(here.process)
            self._orphaned = False
        here.unless_delivered(partial(self._take_back, grant))
        return True

    def release(self) -> None:
        """Give the lock back.

        Raises:
            RuntimeError: Nobody has it.
        """
        with self._gate:
            if self._grant is not None:
                self._free()
            elif self._orphaned:
                self._orphaned = False
            else:
                raise RuntimeError("release unlocked lock")

    def locked(self) -> bool:
        """Tell whether somebody has it."""
        return self._grant is not None

    def owner_ended(self, owner: Owner) -> None:
        """Free the lock if a dead process has it."""
        with self._gate:
            if self._grant is not None and owner.covers(self._grant.owner):
                self._free()
                self._orphaned = True

    def _take_back(self, grant: _Grant) -> None:
        with self._gate:
            if self._grant is grant:
                self._free()

    def _free(self) -> None:
        self._grant = None
        self._gate.notify()

    def __repr__(self) -> str:
        return f"<{'locked' if self.locked() else 'unlocked'} {type(self).__name__}>"


class RLock:
    """Let one thread in at a time, as often as it likes."""

    def __init__(self) -> None:
        self._gate = Waits(threading.Lock())
        self._owner: Owner | None = None
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, once more if this thread has it, and tell whether it could be had in time.

        Raises:
            ValueError: A timeout that makes no sense.
        """
        threading.Lock().acquire(blocking, timeout)
        with self._gate:
            here = visit()
            if here.given_up:
                raise GivenUp
            if self._owner not in (None, here.owner) and not (
                blocking and self._gate.wait_for(lambda: self._owner is None, None if timeout == -1 else timeout)
            ):
                return False
            self._owner = here.owner
            self._count += 1
        here.unless_delivered(partial(self._take_back, here.owner))
        return True

    def release(self) -> None:
        """Give the lock back, once.

        Raises:
            RuntimeError: This thread does not have it.
        """
        with self._gate:
            if self._owner != visit().owner:
                raise RuntimeError("cannot release un-acquired lock")
            self._less()

    def locked(self) -> bool:
        """Tell whether somebody has it."""
        return self._owner is not None

    def owner_ended(self, owner: Owner) -> None:
        """Free the lock if a dead process has it."""
        with self._gate:
            if self._owner is not None and owner.covers(self._owner):
                self._count = 1
                self._less()
            # Whoever of that process is about to have it back, after a wait at a condition, is to see that it is over.
            self._gate.notify_all()

    def _take_back(self, owner: Owner) -> None:
        with self._gate:
            if self._owner == owner:
                self._less()

    def _less(self) -> None:
        self._count -= 1
        if not self._count:
            self._owner = None
            self._gate.notify()

    def __repr__(self) -> str:
        return f"<{'locked' if self.locked() else 'unlocked'} {type(self).__name__} count={self._count}>"

    # What a condition does with its lock, as `threading.Condition` asks for it.

    def _is_owned(self) -> bool:
        return self._owner == visit().owner

    def _release_save(self) -> tuple[Owner | None, int]:
        with self._gate:
            saved = self._owner, self._count
            self._count = 1
            self._less()
        return saved

    def _acquire_restore(self, saved: tuple[Owner | None, int]) -> None:
        # Also for a thread that was interrupted, since it is about to release the lock; but not for a dead one.
        with self._gate:
            while self._owner is not None and not visit().ended:
                threading.Condition.wait(self._gate)
            if visit().ended:
                raise GivenUp
            self._owner, self._count = saved

    __enter__ = acquire

    def __exit__(self, *error: object) -> None:
        self.release()


class _Grant:
    """That somebody has a lock."""

    __slots__ = ("owner",)

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
