"""A set that many processes add to and ask.

Promise
    Each method is one step. `Set.add` tells whether the member is new, so that of many processes that add one member
    exactly one is told True: ``if seen.add(url):`` needs no lock. Members are decoded, and equal as in any set: ``1``,
    ``1.0`` and ``True`` are one. They come in the order in which they were added, in every process.

Cost
    =========================================================== ===================================
    ``add``, ``discard``, ``remove``, ``pop``, ``in``, ``len``  O(1)
    ``update``, ``difference_update``, ``isdisjoint``,
    ``issuperset``                                              O(members given), in one step
    ``intersection_update``, ``issubset``                       O(members given + members), in one step
    iteration, ``copy``, ``clear``                              O(members), in one step
    ``|``, ``&``, ``-``, ``^``                                  one copy; the rest is done by who asks
    =========================================================== ===================================

Failure
    Nobody holds a set and nobody waits for one, so the end of a process means nothing to it: what a process has added
    before it died stays. A call that was interrupted has changed it once or not at all. The set lives as long as the
    log of the server keeps it.

    What stays possible: whoever was told True by ``seen.add(url)`` and dies has done nothing, and nobody else will. For
    work that has to be done there is ``with queue.claim() as item``.

Example::

    >>> import registry
    >>> with registry.connect("memory://") as shared:
    ...     seen = shared.set("seen")
    ...     seen.add("a"), seen.add("a")
    ...     seen |= {"b", "c"}
    ...     "b" in seen, sorted(seen - {"a"})
    (True, False)
    (True, ['b', 'c'])
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator

__all__ = ["Set"]


class Set:
    """Share a set."""

    def __init__(self) -> None:
        # A dict, for its order: that of a set differs from process to process.
        self._members: dict[Hashable, None] = {}

    def __contains__(self, member: Hashable) -> bool:
        return member in self._members

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._members)

    def add(self, member: Hashable) -> bool:
        """Add a member; tell whether it is new."""
        size = len(self._members)
        self._members.setdefault(member)
        return len(self._members) > size

    def discard(self, member: Hashable) -> bool:
        """Remove a member; tell whether it was there."""
        if member not in self._members:
            return False
        del self._members[member]
        return True

    def remove(self, member: Hashable) -> None:
        """Remove a member.

        Raises:
            KeyError: It is not there.
        """
        del self._members[member]

    def pop(self) -> Hashable:
        """Remove the member that was added first, and return it.

        Raises:
            KeyError: There is none.
        """
        if not self._members:
            raise KeyError("pop from an empty set")
        member = next(iter(self._members))
        del self._members[member]
        return member

    def clear(self) -> None:
        """Remove every member."""
        self._members.clear()

    def update(self, *others: Iterable[Hashable]) -> None:
        """Add the members of all the others: all of them, or none."""
        added = [member for other in others for member in other]
        self._members.update(dict.fromkeys(added))

    def difference_update(self, *others: Iterable[Hashable]) -> None:
        """Remove the members of all the others."""
        removed = dict.fromkeys(member for other in others for member in other)
        for member in removed:
            self._members.pop(member, None)

    def intersection_update(self, *others: Iterable[Hashable]) -> None:
        """Keep only members that are in all the others."""
        kept = list(map(dict.fromkeys, others))
        self._members = {member: None for member in self._members if all(member in other for other in kept)}

    def symmetric_difference_update(self, other: Iterable[Hashable]) -> None:
        """Keep what is in one of the two only."""
        given = dict.fromkeys(other)
        both = {member: None for member in given if member in self._members}
        self._members.update(given)
        for member in both:
            del self._members[member]

    def isdisjoint(self, other: Iterable[Hashable]) -> bool:
        """Tell whether no member is in the other."""
        return not any(member in self._members for member in other)

    def issubset(self, other: Iterable[Hashable]) -> bool:
        """Tell whether every member is in the other."""
        given = dict.fromkeys(other)
        return all(member in given for member in self._members)

    def issuperset(self, other: Iterable[Hashable]) -> bool:
        """Tell whether every one of the other is a member."""
        return all(member in self._members for member in other)

    def copy(self) -> set[Hashable]:
        """Return the content as a plain set."""
        return set(self._members)

    def statistics(self) -> dict[str, object]:
        """Return the number of members."""
        return {"members": len(self._members)}
