"""Sessions as the engine knows them: what they wait for, which replies they may still ask for again.

A session numbers its calls. Each call runs once, however often it arrives: its reply is kept until the session
says that it has it, by the *received mark* (every reply up to here) or by the *received set* above the mark, so
that one call that waits does not pin the replies of the others.
A cancel that comes before its call leaves a tombstone: a kept reply that says that the call never ran.

The scheme is RIFL's (Lee et al., SOSP'15), with the set added.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
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
    body: bytes
    index: int
    target: int = 0


class Session:
    """One client process's life with the engine, across reconnects."""

    __slots__ = (
        "above",
        "domain",
        "key",
        "label",
        "mark",
        "number",
        "objects",
        "owned",
        "replies",
        "waits",
    )

    def __init__(self, number: int, key: bytes, label: str, domain: str) -> None:
        self.number = number
        self.key = key
        self.label = label
        self.domain = domain
        self.mark = 0
        self.above: set[int] = set()
        self.replies: dict[int, Reply] = {}
        self.waits: dict[int, Waiter] = {}
        # Objects to tell when this session ends, and those that end with it; by number, in order of first use.
        self.objects: dict[int, None] = {}
        self.owned: dict[int, None] = {}

    def acknowledge(self, mark: int, above: Iterable[int] = ()) -> None:
        """Forget the replies that the session has received: all up to `mark`, and those in `above`."""
        if mark > self.mark:
            replies = self.replies
            if mark - self.mark > len(replies):
                for seq in [seq for seq in replies if seq <= mark]:
                    del replies[seq]
            else:
                for seq in range(self.mark + 1, mark + 1):
                    replies.pop(seq, None)
            self.mark = mark
            if self.above:
                self.above = {seq for seq in self.above if seq > mark}
        for seq in above:
            if seq > self.mark and self.replies.pop(seq, None) is not None:
                self.above.add(seq)

    def is_stale(self, seq: int) -> bool:
        """Tell whether the session has already received the reply to `seq`, so that a resend means nothing."""
        return seq <= self.mark or seq in self.above
