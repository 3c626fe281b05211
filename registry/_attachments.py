"""Who is connected, as the host knows it: connections, the sessions that they belong to, and what handles stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import attrs

from registry._events import Call, Output
from registry._leaves import Caller
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


class Threads(Protocol):
    """Where threaded objects live: outside the engine, each owner's calls on a thread of its own."""

    def submit(self, client: Client, call: Call, declaration: SharedObject[Any], definition: bytes) -> None: ...
    def withdraw(self, client: Client, seq: int) -> bool: ...
    def owner_ended(self, client: Client, owner: int | None) -> None: ...
    def delete(self, typeid: str, name: str) -> bool: ...
    def objects(self) -> list[list[object]]: ...
    def statistics(self, typeid: str, name: str) -> dict[str, object] | None: ...


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


class Attachment:
    """One connection, as the host knows it.

    Attributes:
        leased: Whether its session must give signs of life; else the shell knows when its process ends.
        sink: The shell's own connection object.
        domain: The trust domain that the shell found the peer in, or empty.
        label: What the shell calls the peer, where it does not name itself.
        pid: The peer's process, where the kernel tells it; then `host` and `command` are what the shell knows of it.
        process: Names that process across restarts of the server, where the kernel tells it, else empty.
        outbox: Frames to send, in order; the shell empties it.
        client: The session it belongs to, once it has said so.
    """

    __slots__ = (
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
    ) -> None:
        self.domain = domain
        self.label = label
        self.pid = pid
        self.process = process
        self.host = host
        self.command = command
        self.leased = leased
        self.outbox: list[bytes] = []
        self.client: Client | None = None
        self.generation = 0
        self.sink: Any = None


class Client:
    """A session as the host knows it, from its first connection to its end.

    Attributes:
        caller: How people are told of it; `label` is its text.
        number: Its number in the engine; 0 until its first call that is not a read.
        deliver: Where its outputs go now, or None while it is suspended.
        expires: While it is suspended, when it is believed dead.
        heard: When it last gave a sign of life.
        process: Names its process across restarts of the server, or is empty.
        received: Which replies it has: all up to this, and those in `above`.
        before: Calls up to this number may have been made to an earlier life of the server.
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
        "key",
        "label",
        "late",
        "number",
        "pid",
        "process",
        "received",
        "slow",
    )

    def __init__(self, key: bytes, caller: Caller, domain: str, pid: int | None, process: str = "") -> None:
        self.key = key
        self.caller = caller
        self.label = str(caller)
        self.domain = domain
        self.pid = pid
        self.process = process
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
        self.slow: dict[int, Output | None] = {}
        self.late: set[int] = set()
