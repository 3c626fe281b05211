"""Sessions as the engine knows them: what they wait for, which replies they may still ask for again.

A session numbers its calls. Each call runs once, however often it arrives: its reply is kept until the
session says that it has it, by the *received mark* (every reply up to here) or by the *received set* above
the mark, so that one call that waits does not pin the replies of the others.
A cancel that comes before its call leaves a tombstone: a kept reply that says that the call never ran.

The scheme is RIFL's (Lee et al., SOSP'15), with the set added.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from registry._leaves import Parts

if TYPE_CHECKING:
    from registry._leaves import Caller
    from registry.hosting import Waiter


class Reply(msgspec.Struct, array_like=True, gc=False):
    """A remembered reply.

    Attributes:
        kind: REPLY, ERROR or CANCELLED of `_wire.Kind`.
        body: the encoded value or exception.
        index: the event that it comes from; it leaves when that event is safe.
        target: the number of the object that made it, where it can be taken back, else 0.
    """

    kind: int
    body: bytes | Parts
    index: int
    target: int = 0


class Lost(msgspec.Struct):
    """A grant that was taken from a session by force.

    Attributes:
        owner: the number of the owner whose it was, 0 for the session's.
        target: the number of the object that had given it, `title` its name.
        reason: how it was lost, for people.
        told: whether the owner has heard of it.
    """

    owner: int
    target: int
    title: str
    reason: str
    told: bool = False


# How many grants that were taken by force a session remembers, so that it hears `LockLost` when it gives them back.
REMEMBERED_LOSSES = 64


class Ranges:
    """A set of sequence numbers, kept as ranges: what a session has received has few gaps, however long it
    grows.

    Past `MOST` gaps the lowest are closed. Only a session that tells wrong things about itself has that many.

    Attributes:
        firsts: where the ranges begin; empty where there is none, as it mostly is.
    """

    __slots__ = ("_lasts", "firsts")

    MOST = 8192

    def __init__(self, rows: Iterable[tuple[int, int]] = ()) -> None:
        self.firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in rows:
            self.add(first, last)

    def add(self, first: int, last: int) -> None:
        """Add the numbers from `first` to `last`."""
        firsts, lasts = self.firsts, self._lasts
        # The ranges that the new one touches or overlaps, which become one with it.
        end = bisect_right(firsts, last + 1)
        start = end
        while start and lasts[start - 1] >= first - 1:
            start -= 1
        if start < end:
            first, last = min(first, firsts[start]), max(last, lasts[end - 1])
        firsts[start:end] = [first]
        lasts[start:end] = [last]
        if len(firsts) > self.MOST:
            del firsts[1], lasts[0]

    def discard_through(self, mark: int) -> None:
        """Drop all numbers up to `mark`."""
        if not self.firsts:
            return
        gone = bisect_right(self._lasts, mark)
        del self.firsts[:gone], self._lasts[:gone]
        if self.firsts and self.firsts[0] <= mark:
            self.firsts[0] = mark + 1

    def __contains__(self, number: int) -> bool:
        place = bisect_right(self.firsts, number)
        return place > 0 and number <= self._lasts[place - 1]

    def __bool__(self) -> bool:
        return bool(self.firsts)

    def rows(self) -> tuple[tuple[int, int], ...]:
        """Return the ranges, in order."""
        return tuple(zip(self.firsts, self._lasts))


class Session:
    """One client process's life with the engine, across reconnects.

    `caller` is how people are told of it; `process` names its process across restarts of the server, or is empty;
    `role` is what it may do, see `_rights`.
    """

    __slots__ = (
        "above",
        "away",
        "caller",
        "domain",
        "key",
        "lost",
        "mark",
        "number",
        "objects",
        "owned",
        "process",
        "replies",
        "role",
        "waits",
    )

    def __init__(
        self, number: int, key: bytes, caller: Caller, domain: str, process: str = "", role: str = "admin"
    ) -> None:
        self.number = number
        self.key = key
        self.caller = caller
        self.domain = domain
        self.process = process
        self.role = role
        self.away = False  # it waited for something when it lost its connection
        self.mark = 0
        self.above = Ranges()
        self.replies: dict[int, Reply] = {}
        self.waits: dict[int, Waiter] = {}
        # Objects to tell when this session ends, and those that end with it; by number, in order of first
        # use.
        self.objects: dict[int, None] = {}
        self.owned: dict[int, None] = {}
        self.lost: dict[int, Lost] = {}  # by the number of the grant

    def lose(self, number: int, lost: Lost) -> None:
        """Note that a grant was taken away."""
        self.lost[number] = lost
        if len(self.lost) > REMEMBERED_LOSSES:
            del self.lost[next(iter(self.lost))]

    def untold(self, owner: int) -> list[Lost]:
        """Return the losses that an owner is to be told of, the earliest first."""
        return [lost for lost in self.lost.values() if not lost.told and lost.owner in (0, owner)]

    def acknowledge(self, mark: int, above: Iterable[tuple[int, int]] = ()) -> None:
        """Forget the replies that the session has received: all up to `mark`, and the ranges in `above`."""
        replies = self.replies
        if mark > self.mark:
            if mark == self.mark + 1:
                replies.pop(mark, None)
            elif mark - self.mark > len(replies):
                for seq in [seq for seq in replies if seq <= mark]:
                    del replies[seq]
            else:
                for seq in range(self.mark + 1, mark + 1):
                    replies.pop(seq, None)
            self.mark = mark
            if self.above.firsts:
                self.above.discard_through(mark)
        for first, last in above:
            first = max(first, self.mark + 1)
            if first > last:
                continue
            for seq in [seq for seq in replies if first <= seq <= last]:
                del replies[seq]
            self.above.add(first, last)

    def is_stale(self, seq: int) -> bool:
        """Tell whether the session has the reply to `seq` already, so that a resend means nothing."""
        return seq <= self.mark or (bool(self.above.firsts) and seq in self.above)
