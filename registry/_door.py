"""Who may knock, how many of them, and how often: what a server does with peers that have not shown the key.

A stranger costs a descriptor and a few kilobytes, over TLS some forty, until it has shown the key, which it has some
seconds for (`Limits.handshake`). Of too many at once (`Limits.strangers`) the one that came first is dropped: who is
honest is through long before so many others have come. A wrong key is answered late, and later the more of them there
were, so that nobody tries many; who has the right one is never kept waiting.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

log = logging.getLogger("registry")

WEAK = 16  # bytes that a key has at least where other hosts can reach the server
PATIENCE = 0.05  # seconds before the answer to a first wrong key; it doubles with each
LONGEST = 2.0  # seconds that an answer is held back at most
FORGIVEN = 30.0  # seconds without a wrong key after which one is again the first
SILENCE = 60.0  # seconds between two lines in the log about the same thing

# What stands in examples, tutorials and the documentation of `multiprocessing`.
KNOWN = frozenset(
    b"abc abcdef abracadabra admin authkey authkey123 changeme default hello key letmein manager mykey mysecret passwd "
    b"password peekaboo qwerty registry secret secretkey supersecret test testing".split()
    + [b"secret password", b"secret key", b"my secret", b"my secret key", b"very secret key"]
)


def weakness(key: bytes) -> str:
    """Return what is wrong with a key that strangers can try, as the end of a sentence; empty if nothing is."""
    if key.lower() in KNOWN or len(set(key)) <= 2:
        return "is one that everybody tries first"
    if len(key) < WEAK:
        return f"has {len(key)} bytes, fewer than {WEAK}"
    return ""


class Guest(Protocol):
    """A connection whose peer has not shown the key."""

    def abort(self) -> None: ...


class Door:
    """The peers of one server that have not shown the key yet.

    Args:
        now: A clock that does not run backwards, in seconds.
        later: Calls something after some seconds.
        most: How many of them there may be.
    """

    def __init__(
        self, now: Callable[[], float], later: Callable[[float, Callable[[], object]], Any], most: int
    ) -> None:
        self._now = now
        self._later = later
        self._most = most
        self._strangers: dict[Guest, None] = {}
        self._wrong = 0
        self._last_wrong = 0.0
        self._dropped = 0
        self._said = -SILENCE

    def __len__(self) -> int:
        return len(self._strangers)

    def enter(self, guest: Guest) -> None:
        """Let a connection stand here. If there are too many, the one that came first is dropped."""
        self._strangers[guest] = None
        if len(self._strangers) > self._most:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            self._dropped += 1
            now = self._now()
            if now - self._said >= SILENCE:
                self._said = now
                log.warning(
                    "more than %d connections have not shown the key; dropped the oldest (%d so far)",
                    self._most,
                    self._dropped,
                )
            oldest.abort()

    def leave(self, guest: Guest) -> None:
        """A connection has shown the key, or is gone."""
        self._strangers.pop(guest, None)

    def refuse(self, answer: Callable[[], object]) -> None:
        """Answer a wrong key, in a while."""
        now = self._now()
        if now - self._last_wrong > FORGIVEN:
            self._wrong = 0
        self._last_wrong = now
        delay = min(LONGEST, PATIENCE * 2.0 ** min(self._wrong, 16))
        self._wrong += 1
        self._later(delay, answer)
