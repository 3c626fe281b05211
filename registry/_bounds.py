"""What the host asks before a client takes more: refusals in words, and counts of what each peer has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from registry._events import Call
from registry._leaves import Parts
from registry._wire import DEFAULT_OWNER, LONGEST_NAME, LONGEST_WORD, OPERATORS, ProtocolError
from registry.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Sized

    from registry._attachments import Client, Identity
    from registry._limits import Limits
    from registry._objects import Hosted
    from registry._wire import Frame

MOST_GRANTS: Final = 1024  # that one call may rely on
MOST_TOLD: Final = 65_536  # replies that one frame may acknowledge
MAKING: Final = 4096  # bytes for which there must be room where an object is made
GIVING: Final = 128  # bytes of a call that gives something back, and brings nothing of size with that
CURE: Final = "Remove or delete what is not needed"


class Room(Protocol):
    """Whether there is memory for what clients bring, see `_room`."""

    limit: int
    left: int
    until: float

    def refuses(self, now: float, length: int) -> bool:
        """Tell whether a call that may add to what is held finds none."""

    def has_for(self, now: float, length: int) -> bool:
        """Tell whether so many bytes can still be taken."""

    def note_freed(self) -> None:
        """Take note that something may have been freed."""

    def used(self) -> int:
        """Return how many bytes are taken."""


class Bounds:
    """The limits of one server, as far as its host keeps them.

    An error of these is a plain `RegistryError`: nothing is wrong with the call itself, so that no builtin error fits,
    and a caller's own `MemoryError` or a `queue.Full` would be taken for something else. It crosses as what it is, and
    is remembered as the reply of its call.

    Args:
        identity: The server.
        limits: Its limits.
        room: Tells whether there is memory for more; without, there is.

    Attributes:
        crowd: The sessions of each peer.
        room: As given.
    """

    def __init__(self, identity: Identity, limits: Limits, room: Room | None) -> None:
        self._identity = identity
        self._limits = limits
        self.room = room
        self.crowd = Crowd(limits.sessions)

    def making(self, call: Call, count: int) -> RegistryError | None:
        """Return the error of a call that would make an object where there may be no more; None where there may.

        Args:
            call: The call.
            count: How many objects there are.
        """
        if count >= self._limits.objects:
            cure = "Delete some (registry objects, registry delete)"
            return self._error(call, f"has {self._limits.objects} objects", "objects", cure)
        if self.room is not None and self.room.refuses(call.now, length_of(call.arguments) + MAKING):
            return self._error(call, self._full(self.room), "stored", CURE)
        return None

    def growing(self, call: Call, hosted: Hosted) -> RegistryError | None:
        """Return the error of a call for which there is no memory; None where there is, and where it frees some."""
        room, length = self.room, length_of(call.arguments)
        if room is None or not room.refuses(call.now, length):
            return None
        gives_back = call.method in hosted.gives_back and length <= GIVING
        if gives_back or call.method in hosted.frees or call.method in OPERATORS:
            room.note_freed()
            return None
        return self._error(call, self._full(room), "stored", CURE)

    def no_thread(self, call: Call) -> RegistryError:
        """Return the error of a call for which there is no thread."""
        reason = f"has {self._limits.threads} threads, of which one session has a quarter, and none is free"
        return self._error(call, reason, "threads", "Try again once calls have ended")

    def why_unread(self, length: int, now: float, here: int = 0) -> str:
        """Return why the arguments of a call are not to be kept; empty if they are.

        Args:
            length: How many bytes they have.
            now: Seconds since 1970.
            here: How many of them have been taken.
        """
        if length > self._limits.arguments:
            most = self._limits.arguments
            return f"takes {most} bytes of arguments in one call, its limit 'arguments'. Put them in parts"
        if self.room is not None and not self.room.has_for(now, max(0, length - here)):
            return f"{self._full(self.room)}, its limit 'stored'. {CURE}"
        return ""

    def unread(self, why: str) -> RegistryError:
        """Return the error of a call whose arguments were not kept, for a reason of `why_unread`."""
        return RegistryError(f"the call had no effect: {self._server} {why}")

    @property
    def _server(self) -> str:
        return f"server {self._identity.name!r} (pid {self._identity.pid})"

    def _full(self, room: Room) -> str:
        return f"holds {room.used()} bytes of at most {room.limit}"

    def _error(self, call: Call, reason: str, name: str, cure: str) -> RegistryError:
        title = f"{call.typeid}:{call.name}" if call.name else call.typeid
        return RegistryError(
            f"{title}.{call.method}() had no effect: {self._server} {reason}, its limit {name!r}. {cure}, or serve "
            f"with --limit {name}=N"
        )


class Crowd:
    """The sessions of each peer: of a process, or where the process is not known of a host.

    Args:
        most: How many one peer may have; None for any number.
    """

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._counts: dict[str, int] = {}

    def check(self, pid: int | None, host: str) -> None:
        """Refuse one more session of a peer that has as many as it may.

        Raises:
            ProtocolError: That is so.
        """
        peer = _peer(pid, host)
        if self._most is not None and self._counts.get(peer, 0) >= self._most:
            raise ProtocolError(
                f"{peer} has {self._most} sessions here, the limit 'sessions'. Close some, or serve with --limit "
                "sessions=N"
            )

    def enter(self, client: Client) -> None:
        """Count a session."""
        peer = _peer(client.pid, client.caller.host)
        self._counts[peer] = self._counts.get(peer, 0) + 1

    def leave(self, client: Client) -> None:
        """Count a session no longer."""
        peer = _peer(client.pid, client.caller.host)
        left = self._counts.pop(peer) - 1
        if left:
            self._counts[peer] = left

    @property
    def largest(self) -> int:
        """The most sessions that any peer has."""
        return max(self._counts.values(), default=0)


def _peer(pid: int | None, host: str) -> str:
    return f"pid {pid}" if pid is not None else f"host {host}" if host else "an unknown host"


def length_of(arguments: bytes | Parts) -> int:
    """Return how many bytes arguments have."""
    return len(arguments.head) + sum(map(len, arguments.buffers)) if isinstance(arguments, Parts) else len(arguments)


def check_number(what: Sized, most: int, kind: str) -> None:
    """Refuse a frame that says too much at once.

    Raises:
        ProtocolError: It does.
    """
    if len(what) > most:
        raise ProtocolError(f"{len(what)} {kind} in one frame; at most {most} are taken")


def check_names(typeid: str, name: str) -> None:
    """Refuse names of a length that no client of ours sends.

    Raises:
        ProtocolError: One is longer.
    """
    for word, most in ((typeid, LONGEST_WORD), (name, LONGEST_NAME)):
        if len(word) > most:
            raise ProtocolError(f"a name of {len(word)} letters; at most {most} are taken")


def unread(client: Client, frame: Frame, now: float) -> Call:
    """Return what is known of a call whose body was not kept: which one it is."""
    return Call(
        now=now,
        session=client.number,
        seq=frame.sequence,
        owner=DEFAULT_OWNER,
        typeid="",
        name="",
        method="",
        arguments=b"",
        received=client.received,
        above=client.above.rows() if client.above.firsts else (),
    )
