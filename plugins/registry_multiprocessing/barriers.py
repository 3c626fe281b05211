"""Barriers.

Promise
    As `threading.Barrier`. The action is called in the server, on the thread of whoever comes last, and may use objects
    of the manager.

Cost
    A wait costs as one at a condition.

Failure
    *Somebody who waits dies*, or is interrupted: it does not come any more, so the barrier is broken, and the others
    get `threading.BrokenBarrierError`.

Example::

    >>> from registry import Manager
    >>> with Manager() as manager:
    ...     manager.Barrier(1).wait()
    0
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from registry.hosting import GivenUp
from registry_multiprocessing._waits import Waits

__all__ = ["Barrier"]


class Barrier(threading.Barrier):
    """Have so many wait for each other.

    Args:
        parties: How many.
        action: Called once by the last of them, before the others go on.
        timeout: Seconds that a wait may take if it says nothing else.
    """

    def __init__(self, parties: int, action: Callable[[], object] | None = None, timeout: float | None = None) -> None:
        super().__init__(parties, action, timeout)  # type: ignore[arg-type]
        self._cond = Waits(threading.Lock())

    def _wait(self, timeout: float | None) -> None:
        try:
            super()._wait(timeout)  # type: ignore[misc]
        except GivenUp:
            self._break()  # type: ignore[attr-defined]
            raise
