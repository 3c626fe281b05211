"""A number that many processes count with.

Promise
    `Counter.incr` and `Counter.decr` are one step each: no two callers get the same result of ``incr()``, and
    no count is lost. The number is an exact Python int of any size, or a float once a float was added.

Cost
    Every method is O(1).

Failure
    Nobody holds a counter and nobody waits for one, so the end of a process means nothing to it. A call that
    was interrupted has counted once or not at all, never twice; the number itself lives as long as the log of
    the server keeps it.

Example::

    >>> import registry
    >>> with registry.connect("memory://") as shared:
    ...     visits = shared.counter("visits")
    ...     visits.incr(), visits.incr(by=10), visits.get()
    (1, 11, 11)

There is no ``visits += 1``: that would be a read and a write, with room for another writer in between.
"""

from __future__ import annotations

__all__ = ["Counter"]


def _checked(what: str, value: object) -> int | float:
    """Return `value` if it is exactly an int or a float; a bool is neither."""
    if type(value) is int or type(value) is float:
        return value
    raise TypeError(f"{what} must be an int or a float, not {value!r} ({type(value).__name__})")


class Counter:
    """Count across processes.

    Args:
        start: The first value.
    """

    def __init__(self, start: int | float = 0) -> None:
        self._value = _checked("start", start)

    def incr(self, by: int | float = 1) -> int | float:
        """Add `by` and return the new value."""
        self._value += _checked("by", by)
        return self._value

    def decr(self, by: int | float = 1) -> int | float:
        """Subtract `by` and return the new value."""
        self._value -= _checked("by", by)
        return self._value

    def get(self) -> int | float:
        """Return the value."""
        return self._value

    def set(self, value: int | float) -> None:
        """Replace the value, whatever others have counted meanwhile."""
        self._value = _checked("value", value)

    def __int__(self) -> int:
        return int(self._value)

    def __float__(self) -> float:
        return float(self._value)

    def __bool__(self) -> bool:
        # Zero would be false, and an object that is there is true: `if counter:` could mean either.
        raise TypeError("a counter is neither true nor false; compare what .get() returns")

    def statistics(self) -> dict[str, object]:
        """Return the value."""
        return {"value": self._value}
