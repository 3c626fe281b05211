"""Values that have a leaf of their own on the wire.

They stand at the bottom of the package, since the codec, the engine, the client and the authors of hosted
classes all meet them. None of them does any I/O; a `Grant` is bound to its client from above.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import attrs
import msgspec

from .errors import Closed

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["EVERY", "Bond", "Caller", "Carried", "Grant", "Handle", "OpaqueValue", "Owner", "Parts"]

EVERY: Final = object()  # stands for all keys of an object, where what a step touches is told

# A grant's number is epoch << 40 | n. Epochs start at 1, so a smaller number comes from a server that keeps
# none, and says nothing across that server's lives.
_FIRST_TOKEN = 1 << 40

# The extension codes of the two scalars that msgpack has no room for; the codec shares them.
BIG_INT = 6
LONE_SURROGATES = 13


class Owner(NamedTuple):
    """Name who holds or waits: a session, or one thread or task of it.

    Attributes:
        session: the session's number.
        number: the owner's number in it, never reused; 0 is the session itself.
    """

    session: int
    number: int

    def covers(self, other: Owner) -> bool:
        """Tell whether what ``other`` owns goes when this owner ends."""
        return self.session == other.session and self.number in (0, other.number)


class Caller(NamedTuple):
    """Tell people who calls, holds or waits. What may be held is up to an `Owner`; this is only how it is shown.

    ``str()`` gives ``worker.py (pid 812 on web1), thread Worker-3``.

    Attributes:
        host: the machine; of a process on the server's own, as the server calls it.
        pid: the process, 0 where it is not known. Where the kernel tells it, it is in the server's numbering.
        command: what the process runs.
        thread: the thread, asyncio task or greenlet; empty for the main thread, and where it is not known.
        label: what the process calls itself (``connect(label=...)``); it is shown in the place of the command.
    """

    host: str = ""
    pid: int = 0
    command: str = ""
    thread: str = ""
    label: str = ""

    def __str__(self) -> str:
        process = self.label or self.command or "process"
        if self.pid:
            process += f" (pid {self.pid} on {self.host})" if self.host else f" (pid {self.pid})"
        elif self.host:
            process += f" on {self.host}"
        return f"{process}, thread {self.thread}" if self.thread else process

    def process(self) -> Caller:
        """Return the process alone, without the thread."""
        return self._replace(thread="") if self.thread else self


@attrs.frozen
class Handle:
    """Refer to a shared object from anywhere; what a pickled proxy is.

    Attributes:
        address: the server's address; empty for the server that the handle is sent to.
        typeid: the object's type.
        name: its name.
    """

    address: str
    typeid: str
    name: str

    def __str__(self) -> str:
        return f"{self.typeid}:{self.name}"


@attrs.frozen
class OpaqueValue:
    """Stand in for a value that only processes of its writer's trust domain can read.

    Attributes:
        kind: the qualified name of the value's class.
        writer: the trust domain that wrote it.
    """

    kind: str
    writer: str


_SCALARS = frozenset({type(None), bool, int, float, str, bytes})


def pack_scalar(value: object) -> bytes:
    """Encode a value whose class is exactly one of the scalars'."""
    try:
        return msgspec.msgpack.encode(value)
    except (OverflowError, UnicodeEncodeError):
        return msgspec.msgpack.encode(scalar_extension(value))


def scalar_extension(value: object) -> msgspec.msgpack.Ext:
    """Make the extension for an int beyond 64 bits or a str with lone surrogates."""
    if isinstance(value, int):
        # One bit more than the magnitude, for the sign.
        return msgspec.msgpack.Ext(BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
    if isinstance(value, str):
        return msgspec.msgpack.Ext(LONE_SURROGATES, value.encode("utf-8", "surrogatepass"))
    raise TypeError(f"a {type(value).__name__} needs no extension")


def scalar_of_extension(code: int, data: bytes) -> int | str:
    """Undo `scalar_extension`; ValueError if the bytes are no such value."""
    if code == BIG_INT:
        return int.from_bytes(data, "big", signed=True)
    if code == LONE_SURROGATES:
        return data.decode("utf-8", "surrogatepass")
    raise ValueError(f"extension {code} is not a scalar")


def _is_container(data: bytes) -> bool:
    first = data[0] if data else 0xC1  # 0xC1 is not used by msgpack, so decoding refuses it
    return 0x80 <= first <= 0x9F or 0xDC <= first <= 0xDF


class Parts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An encoding whose large parts stand beside it, so that nobody on the way copies them.

    Attributes:
        head: the encoding, in which a part stands as its number.
        buffers: the parts: bytes, or views of memory that nobody changes.
    """

    head: bytes
    buffers: tuple[bytes, ...]

    def __bool__(self) -> bool:
        return True


class Carried(msgspec.Struct, frozen=True, gc=False, eq=False):
    """Keep a value in the bytes in which it came, undecoded.

    Two are equal if their bytes and their domains are; so are their hashes.

    Attributes:
        data: the typed encoding, or a pickle where ``domain`` is given. Of a large value it may be a view of memory
            that nobody changes, in the place of bytes.
        domain: empty for typed bytes, else the trust domain whose processes may unpickle it.
        kind: the qualified name of the pickled value's class.
    """

    # A struct, since a server holds as many as all dicts and queues have values: it is small, made without a Python
    # call, and nothing that the garbage collector has to visit.

    data: bytes
    domain: str = ""
    kind: str = ""

    @classmethod
    def of(cls, scalar: bool | int | float | str | bytes | None) -> Carried:
        """Make one of a bare scalar.

        Raises:
            TypeError: it is not exactly of type None, bool, int, float, str or bytes.
        """
        if type(scalar) not in _SCALARS:
            raise TypeError(f"only a bare scalar can be carried this way, not a {type(scalar).__name__}")
        return cls(pack_scalar(scalar))

    def scalar(self) -> bool | int | float | str | bytes | None:
        """Return the value of a bare scalar.

        Raises:
            TypeError: the value is a container, opaque, or damaged; it stays undecoded.
        """
        if not self.domain and not _is_container(self.data):
            try:
                value = msgspec.msgpack.decode(self.data)
                if type(value) is msgspec.msgpack.Ext:
                    value = scalar_of_extension(value.code, bytes(value.data))
                if type(value) in _SCALARS:
                    return value  # type: ignore[no-any-return]
            except ValueError:  # damaged bytes, or an extension of another kind
                pass
        raise TypeError(f"{self!r} is not a bare scalar")

    def __eq__(self, other: object) -> bool:
        if type(other) is not Carried:
            return NotImplemented
        return self.data == other.data and self.domain == other.domain

    def __hash__(self) -> int:
        return hash((self.data, self.domain))

    def __reduce__(self) -> tuple[type[Carried], tuple[bytes, str, str]]:
        return Carried, (bytes(self.data), self.domain, self.kind)

    def __repr__(self) -> str:
        if self.domain:
            return f"<carried {self.kind or 'value'} of {self.domain}, {len(self.data)} bytes>"
        return f"<carried value, {len(self.data)} bytes>"


# What ends a ``with`` block: called as ``__exit__`` is.
Exit = Callable[..., Any]


class Bond(Protocol):
    """What a client ties to a grant, so that the grant can act on the lock it is of."""

    def release(self, grant: Grant) -> None:
        """Give it back; ends when the server has it, or at once where it cannot fail."""

    def guard(self, grant: Grant) -> AbstractContextManager[Grant]:
        """Make the calls inside a block carry the grant."""

    def enter(self, grant: Grant) -> Grant:
        """Begin the ``with`` block of a grant; raises `CallTimeout` for a falsy one."""

    def exit(self, grant: Grant) -> Exit:
        """Return what ends the ``with`` block that is about to begin, or the last that did.

        Called, it releases, and raises `LockLost` if the loss is known by then.
        """


class _Exit:
    """The ``__exit__`` of a grant: looked up before a block begins, it is an object for that block alone."""

    def __get__(self, grant: Grant | None, owner: type) -> Exit:
        if grant is None:
            return _leave
        return partial(_leave, grant) if grant._bond is None else grant._bond.exit(grant)


def _leave(
    grant: Grant, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
) -> None:
    grant._bound().exit(grant)(kind, error, traceback)


class Grant:
    """Tell what ``acquire`` gave: truthy if it was given, falsy if not.

    A grant that is garbage-collected releases nothing.

    Attributes:
        number: its number, larger than that of every grant before it; 0 if nothing was given.
        abandoned: whether the last holder died while it held.
        holder: who holds it; of a falsy grant, who has it instead.
        since: since when, in seconds of the wall clock.
    """

    __slots__ = ("_bond", "abandoned", "holder", "number", "since")

    _bond: Bond | None

    def __init__(self, number: int, abandoned: bool = False, holder: str = "", since: float = 0.0) -> None:
        self.number = number
        self.abandoned = abandoned
        self.holder = holder
        self.since = since
        self._bond = None

    @property
    def token(self) -> int | None:
        """Return the fencing token for things outside, such as a database.

        It only grows, also from one life of the server to the next. It is None for a falsy grant, and where
        the server keeps no epoch (``memory://``, or a directory that cannot be written).
        """
        return self.number if self.number >= _FIRST_TOKEN else None

    def release(self) -> None:
        """Give back what was granted.

        Raises:
            NotOwner: it was given back before.
            LockLost: it was taken away meanwhile.
        """
        self._bound().release(self)

    def guard(self) -> AbstractContextManager[Grant]:
        """Return a context in which this thread's or task's calls carry the grant.

        Calls made in it raise `LockLost` once the grant is lost. It is for threads and tasks that a holder
        starts; the block of ``with lock`` needs none.
        """
        return self._bound().guard(self)

    def __enter__(self) -> Self:
        self._bound().enter(self)
        return self

    if TYPE_CHECKING:

        def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
        ) -> None: ...

    else:
        __exit__ = _Exit()

    def _bound(self) -> Bond:
        if self._bond is None:
            raise Closed(f"{self!r}", "it has no connection to a server; use the grant that acquire() returned itself")
        return self._bond

    def __bool__(self) -> bool:
        return self.number != 0

    def __eq__(self, other: object) -> bool:
        if type(other) is not Grant:
            return NotImplemented
        return (
            self.number == other.number
            and self.abandoned == other.abandoned
            and self.holder == other.holder
            and self.since == other.since
        )

    def __hash__(self) -> int:
        return hash((self.number, self.abandoned, self.holder, self.since))

    def __reduce__(self) -> tuple[type[Grant], tuple[int, bool, str, float]]:
        # Without the bond: a copy in another process is a record, not the lock.
        return Grant, (self.number, self.abandoned, self.holder, self.since)

    def __repr__(self) -> str:
        if not self.number:
            return f"<no grant: {self.holder} holds it>" if self.holder else "<no grant>"
        abandoned = ", abandoned by the last holder" if self.abandoned else ""
        if self.token is None:
            return f"<grant {self.number} without a token: this server keeps no epoch{abandoned}>"
        return f"<grant {self.number}{abandoned}>"
