"""Share objects of a class of your own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import registry

__all__ = ["TALLY", "Tally", "registry_shared_objects"]


class Tally:
    """Count names, for all processes together.

    It is an ordinary class. Its methods run in the server, one call at a time: none of them needs a lock, and none may
    block, read a clock or draw a random number; `registry.hosting` has what they need instead.

    Args:
        limit: How many names there may be.
    """

    def __init__(self, limit: int = 1000) -> None:
        self.limit = limit
        self.counts: dict[str, int] = {}

    def count(self, name: str, by: int = 1) -> int:
        """Count a name, and return how often it has been counted. O(1).

        Raises:
            OverflowError: There are too many names.
        """
        if name not in self.counts and len(self.counts) >= self.limit:
            raise OverflowError(f"there are {self.limit} names already")
        self.counts[name] = self.counts.get(name, 0) + by
        return self.counts[name]

    def of(self, name: str) -> int:
        """Return how often a name has been counted. O(1)."""
        return self.counts.get(name, 0)

    def top(self, n: int) -> list[tuple[str, int]]:
        """Return the names that were counted most, with how often. O(names)."""
        return sorted(self.counts.items(), key=lambda entry: (-entry[1], entry[0]))[:n]


# `readonly` names what changes nothing: clients keep what it has returned, until something changes. `keyed` names what
# reads or changes only what its first argument names, so that a change of one name leaves the others known.
TALLY = registry.SharedObject(
    "tally",
    Tally,
    readonly=["of", "top"],
    keyed=["count", "of"],
)


@registry.hookimpl
def registry_shared_objects() -> Iterable[registry.SharedObject[Any]]:
    """Share the types of this plugin."""
    return [TALLY]
