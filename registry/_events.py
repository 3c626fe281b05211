"""What goes into the engine and what comes out of it.

Events are plain data, encodable as they stand: the same records feed an engine from a socket, a test or a
log. `now` is the stamp of whoever fed the event, in seconds since 1970; the engine's time is the greatest it
has seen.
"""

from __future__ import annotations

import msgspec

from registry._leaves import Parts


class Event(msgspec.Struct, frozen=True, array_like=True, tag=True, kw_only=True, gc=False):
    """Something that happened, in the engine's order."""

    now: float


class Begin(Event, frozen=True):
    """A server life begins.

    `epoch` is the high part of every token drawn in it, `seed` what `hosting.call().random` hashes from, `life` the id
    by which clients know it again.
    """

    epoch: int
    seed: bytes
    life: bytes = b""


class Open(Event, frozen=True):
    """A session makes its first call that is not a read. `host`, `pid` and `command` tell people of its process.

    `process` names that process across restarts (`_peers.Peer.process`), where the kernel has told it. `role` is what
    the session may do: it is kept for when it comes back, the engine asks nobody for rights.
    """

    key: bytes
    label: str
    domain: str
    host: str = ""
    pid: int = 0
    command: str = ""
    process: str = ""
    role: str = "admin"


class Create(Event, frozen=True):
    """An object comes to be; `arguments` are its definition. An error is the reply to the call `seq`."""

    session: int
    seq: int
    owner: int
    typeid: str
    name: str
    arguments: bytes


class Call(Event, frozen=True):
    """A method is called. `arguments` is the encoding of ``[args, kwargs]``, perhaps with large values beside it.

    `received` and `above` acknowledge earlier replies: all up to a mark, and ranges above it, first and last
    included. `grants` are the locks that the call relies on; `remaining` is what a resent wait has left, in
    seconds. `thread` is the name of the thread or task that calls, where it is not the main thread and may wait.
    """

    session: int
    seq: int
    owner: int
    typeid: str
    name: str
    method: str
    arguments: bytes | Parts
    received: int = 0
    above: tuple[tuple[int, int], ...] = ()
    grants: tuple[tuple[str, str, int], ...] = ()
    remaining: float | None = None
    thread: str = ""


class Cancel(Event, frozen=True):
    """Settle a call: one not seen never runs, a wait is undone, and with `undo` a grant is taken back."""

    session: int
    seq: int
    undo: bool
    received: int = 0


class OwnerEnded(Event, frozen=True):
    """A thread or task of a session has ended."""

    session: int
    owner: int


class SessionEnded(Event, frozen=True):
    """A session has ended, by a goodbye or by the death of its process."""

    session: int
    received: int = 0
    above: tuple[tuple[int, int], ...] = ()


class Suspended(Event, frozen=True):
    """A session that waits has no connection any more; it is passed over until it has one."""

    session: int


class Resumed(Event, frozen=True):
    """A suspended session has a connection again."""

    session: int


class Halted(Event, frozen=True):
    """An object is to refuse further calls: what it does cannot be told from its events."""

    typeid: str
    name: str
    reason: str


class Advance(Event, frozen=True):
    """Time passes, and something is due by it."""


AnyEvent = Begin | Open | Create | Call | Cancel | OwnerEnded | SessionEnded | Suspended | Resumed | Halted | Advance

# What ended hosted code without being its doing, in one step: which piece of it, counted from 1, and the exception.
Verdicts = tuple[tuple[int, str], ...]


class Output(msgspec.Struct, frozen=True, gc=False):
    """A reply on its way to a session: `kind` is REPLY, ERROR, CANCELLED or STANDS of `_wire.Kind`; or a notice, LOST.

    It may leave when the event with this `index` is safe. `words` tells what a reply to a read hangs on, if it may be
    cached.
    """

    session: int
    seq: int
    kind: int
    body: bytes | Parts
    index: int
    words: bytes = b""
