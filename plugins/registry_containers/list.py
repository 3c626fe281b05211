"""A list that many processes read and change.

Promise
    Each method is one step: `List.extend` adds its values side by side, whoever else appends, and a copy or an
    iteration shows one moment. Values are kept as they came and are never decoded here, so that those of any class can
    be kept; `in`, `List.index`, `List.count` and `List.remove` compare encodings, in which 1, 1.0 and True differ.

Cost
    =========================================================== ===================================
    ``l[i]``, ``l[i] = v``, ``append``, ``pop()``, ``len``      O(1)
    ``extend``                                                  O(values given), in one step
    ``insert``, ``pop(i)``, ``del l[i]``, ``remove``, ``in``,
    ``index``, ``count``, ``reverse``                           O(length), in one step
    slices, iteration, ``copy``                                 O(values returned), in one step
    =========================================================== ===================================

Failure
    Nobody holds a list and nobody waits for one, so the end of a process means nothing to it. A call that was
    interrupted has changed it once or not at all. The list lives as long as the log of the server keeps it.

    What stays possible: an index is only good for the moment in which it was found. ::

        A: i = l.index("x")    finds 1          del l[1]
        B:                           del l[0]             and another value is gone

    To take a value out there is ``l.remove("x")``; to hand out each value once there is a queue; what is to be found
    again by a name belongs into a dict.

Example::

    >>> import registry
    >>> with registry.connect("memory://") as shared:
    ...     names = shared.list("names")
    ...     names.append("ann")
    ...     names += ["bob", "cleo"]
    ...     names[0], names[1:], len(names)
    ('ann', ['bob', 'cleo'], 3)

There is no ``sort``, since values are not decoded: ``l[:] = sorted(l)`` is a read and a write, with room for another
writer in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from registry.hosting import Carried, carry

__all__ = ["List"]


class List:
    """Share a list."""

    def __init__(self) -> None:
        self._values: list[Carried] = []

    def __getitem__(self, index: int | slice) -> Carried | list[Carried]:
        return self._values[index]

    def __setitem__(self, index: int | slice, value: Any) -> None:
        if isinstance(index, slice):
            self._values[index] = list(map(carry, value))
        else:
            self._values[index] = carry(value)

    def __delitem__(self, index: int | slice) -> None:
        del self._values[index]

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, value: object) -> bool:
        return carry(value) in self._values

    def __iter__(self) -> Iterator[Carried]:
        return iter(self._values)

    def __reversed__(self) -> Iterator[Carried]:
        return reversed(self._values)

    def append(self, value: object) -> None:
        """Add a value at the end."""
        self._values.append(carry(value))

    def extend(self, values: Iterable[object]) -> None:
        """Add values at the end, side by side: all of them, or none."""
        self._values.extend(list(map(carry, values)))

    def insert(self, index: int, value: object) -> None:
        """Add a value before the one at `index`."""
        self._values.insert(index, carry(value))

    def pop(self, index: int = -1) -> Carried:
        """Remove the value at `index` and return it.

        Raises:
            IndexError: There is none.
        """
        return self._values.pop(index)

    def remove(self, value: object) -> None:
        """Remove the first of the values that are encoded alike.

        Raises:
            ValueError: There is none.
        """
        del self._values[self.index(value)]

    def index(self, value: object, start: int = 0, stop: int | None = None) -> int:
        """Return where the first of the values stands that are encoded alike, from `start` to before `stop`.

        Raises:
            ValueError: There is none.
        """
        wanted = carry(value)
        for place in range(*slice(start, stop).indices(len(self._values))):
            if self._values[place] == wanted:
                return place
        raise ValueError("the value is not in the list, which compares encodings: 1 and 1.0 differ")

    def count(self, value: object) -> int:
        """Return how many of the values are encoded alike."""
        return self._values.count(carry(value))

    def reverse(self) -> None:
        """Turn the order round."""
        self._values.reverse()

    def clear(self) -> None:
        """Remove every value."""
        self._values.clear()

    def copy(self) -> list[Carried]:
        """Return the content as a plain list."""
        return list(self._values)

    def statistics(self) -> dict[str, object]:
        """Return the number of entries."""
        return {"entries": len(self._values)}
