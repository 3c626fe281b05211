"""Who is connected, as the host knows it: connections, the sessions that they belong to, and what handles stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import attrs

from registry import _wire
from registry._disclosure import is_insider
from registry._events import Call, Event, Open, Output, Verdicts
from registry._leaves import Caller, Parts
from registry._rights import ADMIN, READ
from registry._sessions import Ranges
from registry.declarations import SharedObject


@attrs.frozen
class Identity:
    """What a server says of itself.

    Attributes:
        address: Where it listens, as a URL.
        name: How people call it: its name, or its address.
        pid: Its process, `since` when it started, in seconds since 1970, on the machine `host`.
        version: Its version of shared-registry; `python` that of its interpreter.
        epoch: The number of this life, 0 where none is kept; `life` is 16 random bytes drawn for it.
        plugins: Its plugins by name, with their versions.
        log: Where its events are kept: ``"memory"``, ``"process"`` or ``"disk"``.
        roles: For which roles it has a key.
        files: The directory of its large values, for processes of its user on its host; empty without.
        realm: What the trust domain of its clients has behind user and host; empty where there is no log.
    """

    address: str
    name: str
    pid: int
    since: float
    host: str
    version: str
    python: str
    epoch: int
    life: bytes
    plugins: dict[str, str]
    log: str = "memory"
    files: str = ""
    realm: str = ""
    roles: tuple[str, ...] = (ADMIN,)


class Threads(Protocol):
    """Where threaded objects live: outside the engine, each owner's calls on a thread of its own."""

    def has_room(self, client: Client, owner: int) -> bool: ...
    def submit(self, client: Client, call: Call, declaration: SharedObject[Any], definition: bytes) -> None: ...
    def withdraw(self, client: Client, seq: int) -> bool: ...
    def owner_ended(self, client: Client, owner: int | None) -> None: ...
    def delete(self, typeid: str, name: str) -> bool: ...
    def objects(self) -> list[list[object]]: ...
    def statistics(self, typeid: str, name: str) -> dict[str, object] | None: ...


class Files(Protocol):
    """Where large values lie that processes of one user on one host need not send, see `_shelf`."""

    def take(self, name: str, length: int) -> memoryview: ...
    def name_of(self, buffer: object) -> str: ...
    def discard(self, key: bytes) -> None: ...


class Log(Protocol):
    """Where events are kept; `syncs` counts how many times the disk was waited for."""

    syncs: int

    def append(self, event: Event, outputs: list[Output], verdicts: Verdicts) -> None:
        """Add an event that has been applied, with what came out of it."""


class Words(Protocol):
    """The version words that caches hang on, see `_words`."""

    told: _wire.Words | None

    def move(self, touched: Iterable[tuple[int, object]]) -> None:
        """Move the words of what a step has touched."""

    def sample(self, number: int, key: object) -> bytes:
        """Return the word that a read of an object hangs on, and what it is."""


class Target:
    """What a handle of a client stands for."""

    __slots__ = ("compared", "declaration", "definition", "name", "number", "readonly", "typeid")

    def __init__(self, typeid: str, name: str, definition: bytes, declaration: SharedObject[Any] | None) -> None:
        self.typeid = typeid
        self.name = name
        self.definition = definition
        self.compared = False  # with the definition of the object as it is
        self.declaration = declaration
        self.readonly = frozenset(declaration.interface.readonly) if declaration is not None else frozenset()
        self.number = 0

    @property
    def title(self) -> str:
        """The object as errors write it."""
        return f"{self.typeid}:{self.name}" if self.name else self.typeid


class Attachment:
    """One connection, as the host knows it.

    Attributes:
        leased: Whether its session must give signs of life; else the shell knows when its process ends.
        sink: The shell's own connection object.
        domain: The trust domain that the shell found the peer in, or empty.
        label: What the shell calls the peer, where it does not name itself.
        pid: The peer's process, where the kernel tells it; then `host` and `command` are what the shell knows of it.
        process: Names that process across restarts of the server, where the kernel tells it, else empty.
        certificate: What the peer has shown over TLS and the server has verified, as `ssl.SSLSocket.getpeercert` tells
            it, with ``subject`` and ``subjectAltName``; None without.
        role: What its peer may do, see `_rights`; empty for one that may not even begin a session.
        outbox: Frames to send, whole or in pieces, in order; the shell empties it.
        sees_files: Whether it sees the server's directory of large values.
        client: The session it belongs to, once it has said so.
    """

    __slots__ = (
        "certificate",
        "client",
        "command",
        "domain",
        "generation",
        "host",
        "label",
        "leased",
        "outbox",
        "pid",
        "process",
        "role",
        "sees_files",
        "sink",
    )

    def __init__(
        self,
        domain: str = "",
        label: str = "",
        pid: int | None = None,
        host: str = "",
        command: str = "",
        leased: bool = False,
        process: str = "",
        certificate: Mapping[str, Any] | None = None,
        role: str = ADMIN,
    ) -> None:
        self.certificate = certificate
        self.domain = domain
        self.label = label
        self.pid = pid
        self.process = process
        self.role = role
        self.host = host
        self.command = command
        self.leased = leased
        self.outbox: list[Any] = []
        self.client: Client | None = None
        self.generation = 0
        self.sees_files = False
        self.sink: Any = None


class Client:
    """A session as the host knows it, from its first connection to its end.

    Attributes:
        caller: How people are told of it; `label` is its text.
        number: Its number in the engine; 0 until its first call that is not a read.
        deliver: Where its outputs go now, or None while it is suspended.
        expires: While it is suspended, when it is believed dead.
        heard: When it last gave a sign of life.
        held: How many outputs for it wait until their events are safe.
        process: Names its process across restarts of the server, or is empty.
        role: What it may do; `is_admin` and `is_reader` tell the ends of that, `is_insider` whether it may see inside.
        last: Its latest call, of a session that may not.
        received: Which replies it has: all up to this, and those in `above`.
        before: Calls up to this number may have been made to an earlier life of the server.
        pins: The replies that name files, by their calls; the files stay until it says that it has the reply.
        slow: Calls that the engine does not remember, with their outputs once they have ended: those of
            threaded objects, and those that were refused on their way to the engine.
    """

    __slots__ = (
        "above",
        "attachment",
        "before",
        "caller",
        "deliver",
        "domain",
        "expires",
        "generation",
        "handles",
        "heard",
        "held",
        "is_admin",
        "is_insider",
        "is_reader",
        "key",
        "label",
        "last",
        "late",
        "number",
        "pid",
        "pins",
        "process",
        "received",
        "role",
        "slow",
    )

    def __init__(
        self, key: bytes, caller: Caller, domain: str, pid: int | None, process: str = "", role: str = ADMIN
    ) -> None:
        self.key = key
        self.caller = caller
        self.label = str(caller)
        self.domain = domain
        self.pid = pid
        self.process = process
        self.role = role
        self.is_admin = role == ADMIN
        self.is_reader = role == READ
        self.is_insider = is_insider(role, domain)
        self.last: Call | None = None
        self.before = 0
        self.number = 0
        self.generation = 0
        self.received = 0
        self.above = Ranges()
        self.attachment: Attachment | None = None
        self.deliver: Callable[[Output], None] | None = None
        self.handles: dict[int, Target] = {}
        self.expires: float | None = None
        self.heard = 0.0
        self.held = 0
        self.pins: dict[int, Parts] = {}
        self.slow: dict[int, Output | None] = {}
        self.late: set[int] = set()

    def opening(self, now: float) -> Open:
        """Return the event that makes the session known to the engine."""
        who = self.caller
        return Open(
            now=now,
            key=self.key,
            label=who.label,
            domain=self.domain,
            host=who.host,
            pid=who.pid,
            command=who.command,
            process=self.process,
            role=self.role,
        )

    def unpin(self) -> None:
        """Let go of the files of replies that it has."""
        pins = self.pins.items()
        self.pins = {seq: body for seq, body in pins if seq > self.received and seq not in self.above}


def caller_of(attachment: Attachment, hello: _wire.Attach) -> Caller:
    """Return how people are told of a new session: by the kernel's word where there is one, else by the client's."""
    most = _wire.LONGEST_LABEL
    label, host, command = (hello.label or attachment.label)[:most], hello.host[:most], hello.command[:most]
    if attachment.pid is None:
        return Caller(host, hello.pid, command, "", label)
    return Caller(attachment.host or host, attachment.pid, attachment.command or command, "", label)


def frames_of(attachment: Attachment, output: Output, body: Parts, files: Files | None) -> list[_wire.Buffer]:
    """Return the frames of a reply with large values; to those who see the files it names what lies in them."""
    items: list[object] = list(body.buffers)
    if attachment.sees_files and files is not None and attachment.client is not None:
        for place, buffer in enumerate(body.buffers):
            name = files.name_of(buffer)
            if name:
                items[place] = (name, len(buffer))
                attachment.client.pins[output.seq] = body
    return _wire.pack_pieces(
        output.kind,
        _wire.reply_pieces(body.head, items),
        flags=_wire.PARTS,
        generation=attachment.generation,
        sequence=output.seq,
        applied=output.index,
    )


def joined(attachment: Attachment | None, head: bytes | Parts, items: list[Any], files: Files | None) -> Parts:
    """Return the arguments of a call with what stands beside them, in memory of our own.

    Raises:
        ProtocolError: No client of ours sends this.
        LookupError: A file is not there.
    """
    if not items or isinstance(head, Parts):
        raise _wire.ProtocolError("a call with nothing beside its arguments")
    buffers: list[Any] = []
    for item in items:
        if type(item) is not tuple:
            # A view of the frame would keep all of it, for as long as any one value in it lives.
            buffers.append(item if len(items) == 1 else bytes(item))
        elif not 0 < item[1] <= _wire.MAX_VALUE:
            raise _wire.ProtocolError(f"a value of {item[1]} bytes")
        elif files is None or attachment is None or not attachment.sees_files:
            raise LookupError(item[0])
        else:
            buffers.append(files.take(*item))
    return Parts(head, tuple(buffers))
