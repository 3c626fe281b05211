"""Conditions and events.

Promise
    As `threading.Condition` and `threading.Event`.

Cost
    A wait looks after its client meanwhile, which costs some tens of microseconds.

Failure
    *A waiter dies*, or its thread is interrupted: it leaves the line. Had it been notified already, the next is
    notified in its place. *The holder of a condition dies*: its lock goes to the next, see `locks`.

Example::

    >>> from registry import Manager
    >>> with Manager() as manager:
    ...     ready = manager.Event()
    ...     ready.set()
    ...     ready.wait()
    True
"""

from __future__ import annotations

import threading
from typing import Any

from registry.hosting import Owner, referent
from registry_multiprocessing._waits import Waits
from registry_multiprocessing.locks import RLock

__all__ = ["Condition", "Event"]


class Condition(Waits):
    """Have processes wait for each other's news.

    Args:
        lock: A lock of the same manager, by its proxy; None makes an `RLock`.
    """

    def __init__(self, lock: Any = None) -> None:
        super().__init__(RLock() if lock is None else referent(lock))  # type: ignore[arg-type]
        # The proxy, which keeps its lock, who sees to it that it is freed. Without one that is ours to do.
        self._proxy = lock

    def owner_ended(self, owner: Owner) -> None:
        """Free the lock if a dead process has it."""
        if self._proxy is None:
            self._lock.owner_ended(owner)  # type: ignore[attr-defined]


class Event(threading.Event):
    """Have processes wait for something that happens once."""

    def __init__(self) -> None:
        super().__init__()
        self._cond = Waits(threading.Lock())
