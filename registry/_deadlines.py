"""What is due, and when: the deadlines of waits and the alarms of objects, the earliest first.

Entries of waits that ended early and of alarms that were set anew stay behind and are passed over; they are swept
before they outnumber those that stand for something.
"""

from __future__ import annotations

import heapq

from registry._objects import Hosted
from registry.hosting import Waiter

# When, what breaks ties, a count, and whose.
Due = tuple[float, int, int, "Waiter | Hosted"]

KEPT_DEAD = 1024


class Deadlines:
    """A heap of what is due, in the order of (time, number).

    Attributes:
        heap: the entries; empty where nothing is due ever, as it mostly is.
    """

    def __init__(self) -> None:
        self.heap: list[Due] = []
        self._pushed = 0
        self._swept = 0

    def push(self, time: float, order: int, item: Waiter | Hosted) -> None:
        """Add what is due at `time`; `order` breaks ties."""
        # The count keeps two entries of one wait, which is due when it was before, from being compared
        # further.
        self._pushed += 1
        heapq.heappush(self.heap, (time, order, self._pushed, item))
        if self._pushed - self._swept > max(KEPT_DEAD, len(self.heap) // 2):
            self.heap = [entry for entry in self.heap if _is_live(entry)]
            heapq.heapify(self.heap)
            self._swept = self._pushed

    def put_back(self, entry: Due) -> None:
        """Add what `pop` has returned again."""
        heapq.heappush(self.heap, entry)

    def first(self) -> float | None:
        """Return when the earliest is due, or None."""
        heap = self.heap
        while heap and not _is_live(heap[0]):
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def __len__(self) -> int:
        return len(self.heap)

    def pop(self, until: float) -> Due | None:
        """Take out the earliest that is due by `until`, or return None."""
        time = self.first()
        return heapq.heappop(self.heap) if time is not None and time <= until else None


def _is_live(entry: Due) -> bool:
    """Tell whether an entry still stands for something."""
    time, order, _, item = entry
    if isinstance(item, Hosted):
        return item.alarm == (time, order)
    return item.home is not None and item.deadline == time
