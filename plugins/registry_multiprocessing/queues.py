"""Queues: ``Queue`` and ``JoinableQueue``, which are one class, as in the standard manager.

Promise
    As `queue.Queue`.

Cost
    As there; items are kept unpickled.

Failure
    *Whoever waits for an item dies*, or its thread is interrupted: the item goes to another. *An item cannot be
    delivered*, since its taker has died before it has read it: it goes back to the front. One that was read and not
    worked on is gone.

Example::

    >>> from registry import Manager
    >>> with Manager() as manager:
    ...     jobs = manager.Queue()
    ...     jobs.put("one")
    ...     jobs.get()
    'one'
"""

from __future__ import annotations

import queue
from functools import partial
from typing import Any

from registry.hosting import visit
from registry_multiprocessing._waits import Waits

__all__ = ["Queue"]


class Queue(queue.Queue[Any]):
    """Pass items from process to process, first in, first out.

    Args:
        maxsize: How many there may be; 0 is any number.
    """

    def __init__(self, maxsize: int = 0) -> None:
        super().__init__(maxsize)
        self.not_empty = Waits(self.mutex)
        self.not_full = Waits(self.mutex)
        self.all_tasks_done = Waits(self.mutex)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the next item.

        Raises:
            queue.Empty: There was none in time.
        """
        item = super().get(block, timeout)
        visit().unless_delivered(partial(self._put_back, item))
        return item

    def _put_back(self, item: Any) -> None:
        with self.mutex:
            self.queue.appendleft(item)
            self.not_empty.notify()
