"""Waits that can never end, found when they begin: a reduction of the graph of who waits for whom.

An owner that waits for a lock goes on when those go on who can give it: one of those who have permits (OR), every
reader (AND). A hosted class tells that by ``blocked_by``, see `hosting`. The reduction begins with the owners that go
on whatever the others do: who waits for nothing, who waits with a deadline, who waits for what anybody may signal, and
who cannot be reached and may have died.
Then those go on whom these let go on, and so forth. Whoever is left waits for ever. To follow single edges would not
be enough: with two permits, held by A and C, a circle through A is no deadlock as long as C goes on.

Only what can be reached from one wait is looked at, and each group of it counts once, so the cost is that of what can
be reached. An owner that has several waits, such as a thread in whose wait a signal handler waits too, goes on if one
of them ends.

The graph is that of Holt, *Some deadlock properties of computer systems* (ACM Computing Surveys 4, 1972). Knapp,
*Deadlock detection in distributed databases* (ACM Computing Surveys 19, 1987), tells its AND-OR form.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping

from registry._leaves import Owner
from registry.errors import Deadlock
from registry.hosting import Waiter

# Who has to go on for a wait to end: in every group at least one. None if it ends without them.
Need = tuple[tuple[Owner, ...], ...]

# Who waits, for which object, and who would have to go on first.
Row = tuple[str, str, tuple[str, ...]]

CURE = "Take locks in one order everywhere, or give the call a timeout"
OTHERS = "Another thread of these processes may still release what is waited for"


def stuck(first: Owner, needs: Callable[[Owner], Iterable[Need | None]]) -> dict[Owner, list[Need]]:
    """Return the owners that wait for ever, of those that can be reached from one, with what their waits need.

    Args:
        first: Where to begin.
        needs: Asked once for each owner that is reached: what each of its waits needs; nothing if it waits for nothing.
    """
    left: dict[Owner, list[Need]] = {}
    live: list[Owner] = []
    reached = {first}
    todo = [first]
    while todo:
        owner = todo.pop()
        waits = [need or () for need in needs(owner)]
        if not waits or not all(waits):
            live.append(owner)
            continue
        left[owner] = waits
        for member in _members(waits):
            if member not in reached:
                reached.add(member)
                todo.append(member)
    _reduce(left, live)
    return left


def _reduce(left: dict[Owner, list[Need]], live: list[Owner]) -> None:
    """Take out of `left` whoever goes on because those in `live` do."""
    waits = [(owner, need) for owner, needs in left.items() for need in needs]
    groups = [(wait, group) for wait, (_, need) in enumerate(waits) for group in need]
    missing = [len(need) for _, need in waits]
    counted = [False] * len(groups)
    helped: dict[Owner, list[int]] = {}
    for place, (_, group) in enumerate(groups):
        for member in group:
            helped.setdefault(member, []).append(place)
    while live:
        for place in helped.get(live.pop(), ()):
            if counted[place]:
                continue
            counted[place] = True
            wait = groups[place][0]
            missing[wait] -= 1
            owner = waits[wait][0]
            if not missing[wait] and left.pop(owner, None) is not None:
                live.append(owner)


def circles(left: Mapping[Owner, list[Need]]) -> list[list[Owner]]:
    """Return the circles in which owners that wait for ever wait for each other; those behind them are in none."""
    ahead = _edges(left)
    behind: dict[Owner, list[Owner]] = {owner: [] for owner in ahead}
    for owner, others in ahead.items():
        for other in others:
            behind[other].append(owner)
    found: list[list[Owner]] = []
    told: set[Owner] = set()
    for owner in ahead:
        if owner in told:
            continue
        before = _reach(ahead, owner)
        if owner in before:
            circle = [other for other in _reach(behind, owner) if other in before]
            told.update(circle)
            found.append(sorted(circle))
    return sorted(found)


def _members(waits: Iterable[Need]) -> list[Owner]:
    return [member for need in waits for group in need for member in group]


def _closed(left: Mapping[Owner, list[Need]], need: Need) -> Need:
    """Return the groups of a need of which nobody goes on."""
    return tuple(group for group in need if all(member in left for member in group))


def _edges(left: Mapping[Owner, list[Need]]) -> dict[Owner, list[Owner]]:
    """Return for each of those who wait for ever who is in its way."""
    return {
        owner: list(dict.fromkeys(_members(_closed(left, need) for need in waits))) for owner, waits in left.items()
    }


def _reach(edges: Mapping[Owner, list[Owner]], first: Owner) -> dict[Owner, None]:
    """Return what can be reached by one edge or more, nearest first."""
    found: dict[Owner, None] = {}
    todo = deque([first])
    while todo:
        for owner in edges[todo.popleft()]:
            if owner not in found:
                found[owner] = None
                todo.append(owner)
    return found


class Waits:
    """Who waits for what, and what is to be said of it.

    Args:
        need: What a wait needs. With a second argument that is true, also where any thread of a session may give
            what one of its threads has taken.
        title: The name of an object by its number.

    Attributes:
        changed: Waits to look at again: they have moved to another line, another wait of their owner has ended, or
            their process can be reached again.
        suspicions: What was found that may be a deadlock, as texts. Who reads them clears them.
    """

    def __init__(self, need: Callable[[Waiter, bool], Need | None], title: Callable[[int], str]) -> None:
        self._need = need
        self._title = title
        self._waits: dict[Owner, dict[int, Waiter]] = {}
        self.changed: deque[Waiter] = deque()
        self.suspicions: list[str] = []

    def add(self, waiter: Waiter) -> None:
        """Take note of a wait."""
        self._waits.setdefault(waiter.owner, {})[waiter.number] = waiter

    def discard(self, waiter: Waiter) -> None:
        """Forget a wait; its owner may have another one, for which this one was the way out."""
        waits = self._waits.get(waiter.owner)
        if waits is None or waits.pop(waiter.number, None) is None:
            return
        if waits:
            # All waits of an owner can end or none: one is asked about, and the next when that one has ended.
            self.changed.append(waits[min(waits)])
        else:
            del self._waits[waiter.owner]

    def __contains__(self, waiter: Waiter) -> bool:
        return waiter.number in self._waits.get(waiter.owner, ())

    def look(self, waiter: Waiter) -> Deadlock | None:
        """Return why a wait can never end, or None; take note where that is only suspected.

        What a ``blocked_by`` raises comes through.
        """
        left = stuck(waiter.owner, lambda owner: self._needs(owner, True))
        if waiter.owner not in left:
            return None
        surely = stuck(waiter.owner, lambda owner: self._needs(owner, False))
        if waiter.owner in surely:
            rows, text, is_circle = self._describe(surely, waiter.owner)
            what = "complete the circle" if is_circle else "wait for ever"
            return Deadlock(f"{text}; this call would {what}. {CURE}", rows)
        _, text, is_circle = self._describe(left, waiter.owner)
        if is_circle:  # else it has come behind one that has been told
            self.suspicions.append(f"suspected deadlock: {text}. {OTHERS}. {CURE}")
        return None

    def suspected(self) -> list[tuple[Row, ...]]:
        """Return the circles that there are now: for each the rows of those who wait for each other."""
        asked: dict[Owner, list[Need | None]] = {}

        def needs(owner: Owner) -> list[Need | None]:
            if owner not in asked:
                asked[owner] = self._needs(owner, True)
            return asked[owner]

        left: dict[Owner, list[Need]] = {}
        for owner in sorted(self._waits):
            if owner not in left:
                left.update(stuck(owner, needs))
        return [tuple(row for row, _ in self._rows(left, circle)) for circle in circles(left)]

    # -- within

    def _of(self, owner: Owner) -> list[Waiter]:
        return [waiter for _, waiter in sorted(self._waits.get(owner, {}).items())]

    def _needs(self, owner: Owner, widely: bool) -> list[Need | None]:
        return [self._need(waiter, widely) for waiter in self._of(owner)]

    def _describe(self, left: Mapping[Owner, list[Need]], first: Owner) -> tuple[tuple[Row, ...], str, bool]:
        """Return the rows of those who wait for ever, the nearest first, their text, and whether they are a circle."""
        ahead = _reach(_edges(left), first)
        told = self._rows(left, dict.fromkeys((first, *ahead)))
        text = ", and ".join(f"{who} waits for {title}{until}" for (who, title, _), until in told)
        return tuple(row for row, _ in told), text, first in ahead

    def _rows(self, left: Mapping[Owner, list[Need]], owners: Iterable[Owner]) -> list[tuple[Row, str]]:
        """Return a row for each wait of some owners, with the words for when it would end."""
        rows = []
        for owner in owners:
            for waiter, need in zip(self._of(owner), left[owner]):
                groups = _closed(left, need)
                names = [[self._name(member) for member in group] for group in groups]
                blockers = dict.fromkeys(name for group in names for name in group)
                rows.append(((self._name(owner), self._title(waiter.target), tuple(blockers)), _until(names)))
        return rows

    def _name(self, owner: Owner) -> str:
        """Return how people know an owner that waits."""
        caller = self._of(owner)[0].caller
        # The main thread has no name, nor has one that is not known: then its number tells it from others.
        return f"thread {caller.thread or owner.number} of {caller.process()}"


def _until(groups: list[list[str]]) -> str:
    """Say whom a wait needs: one of each group."""
    if not all(groups):
        return ", which nobody can give"
    words = [
        " or ".join(group) if len(groups) == 1 or len(group) == 1 else f"({' or '.join(group)})" for group in groups
    ]
    return f" until {' and '.join(words)} can go on"
