"""Byte streams to a server, and how to get one: connect, shake hands, prove the key.

A transport has three verbs, `send`, `receive` and `close`, so that the client above it is the same over a socket and
over ``memory://``.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any, Protocol, TypeVar

import attrs

from registry import _codec, _peers, _wire
from registry._addresses import Address, TlsFiles
from registry._auth import ROLES, ClientHandshake, NotNative, NotStock, StockHandshake
from registry._wire import Kind
from registry.declarations import Interface
from registry.errors import AccessDenied, NotShareable, RegistryError, ServerNotFound, VersionMismatch

T = TypeVar("T")

# How long a blocking read may last before its deadline is looked at again. The kernel keeps this time, so that a read
# whose deadline is further away costs one system call and no poll.
TICK = 1.0
CHUNK = 65_536
STUCK = 30.0  # seconds without progress after which a peer that does not read is given up
SILENCE = (
    "it accepted the connection and then said nothing, where a server would have spoken first; it is one of another "
    "kind, or stands still"
)
SHORTEST, LONGEST = 0.01, 1e9  # seconds of a lease that is believed
# What a server allows that does not say.
USUAL = {"arguments": _wire.MAX_VALUE, "calls": _wire.IN_FLIGHT, "handles": sys.maxsize}
_BOOT: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def clock() -> float:
    """Return seconds for telling how old something is; they go on while the machine is suspended, where it tells."""
    return time.clock_gettime(_BOOT) if _BOOT is not None else monotonic()


def left(deadline: float | None) -> float:
    """Return the seconds until a deadline as a lock's `acquire` takes them."""
    if deadline is None:
        return -1
    return min(max(0.0, deadline - monotonic()), threading.TIMEOUT_MAX)


def command() -> str:
    """Return how people know this program."""
    return os.path.basename(sys.argv[0]) if getattr(sys, "argv", None) and sys.argv[0] else "python"


def is_gone(error: BaseException) -> bool:
    """Tell the end of a connection from what a signal handler raised, which has no number of the kernel."""
    return isinstance(error, OSError) and error.errno is not None and not isinstance(error, RegistryError)


class DeadlinePassed(Exception):
    """The deadline came before the bytes. It is no `TimeoutError`, which signal handlers like to raise.

    Its text tells what the peer did until then, where that is known.
    """


class Transport(Protocol):
    """A byte stream to one server."""

    def send(self, data: bytes) -> None:
        """Send all of it. Raises `OSError` when the stream is gone."""

    def send_pieces(self, pieces: list[_wire.Buffer]) -> None:
        """Send all of them, one after the other, as `send` does."""

    def receive(self, deadline: float | None, most: int = CHUNK) -> bytes:
        """Wait for bytes until `deadline` (as `time.monotonic` counts); empty when the peer has closed.

        Args:
            deadline: When to give up.
            most: How many bytes at most, where that can be chosen.

        Raises:
            DeadlinePassed: The deadline came first; the stream is as it was.
        """

    def is_quiet(self) -> bool:
        """Tell whether nothing has come that was not read, and the peer has not closed; False where nobody knows."""

    def fileno(self) -> int:
        """Return what can be polled; -1 where nothing can, or no longer."""

    def close(self) -> None:
        """End the stream, also for a thread that waits in `receive`."""

    def drop(self) -> None:
        """Let go of an inherited stream in a forked child, without a word to the peer."""


class Greeting:
    """What a server tells with its proof: who it is, and its table of typeids.

    Attributes:
        life: 16 random bytes that name this life of the server.
        limits: What this side keeps to by itself, see `_limits.Limits.told`.
        table: The shared types by typeid; a row that cannot be read raises `ServerNotFound` when it is asked for.
        role: What this process may do there, by the key that it has shown.
        label: The server as errors name it: ``'default' (pid 812, since 10:03)``.
    """

    def __init__(self, body: bytes, address: str) -> None:
        try:
            fields: Any = _codec.decode(body)
            # Empty where the server's own name is a path that is not ours to know.
            self.name = _field(fields, "name", str) or address
            self.role = _field(fields, "role", str, "admin")
            if self.role and self.role not in ROLES:  # without one the server says why, and ends the connection
                raise ValueError(f"it tells of the role {self.role!r}")
            self.pid = _field(fields, "pid", int)
            self.since = _field(fields, "since", float)
            self.host = _field(fields, "host", str)
            self.version = _field(fields, "version", str)
            self.epoch = _field(fields, "epoch", int)
            self.life = _field(fields, "life", bytes)
            self.files = _field(fields, "files", str, "")  # its directory of large values
            # What the trust domain of its clients has behind user and host.
            self.realm = _field(fields, "realm", str, "")
            self.durable = _field(fields, "log", str, "memory") != "memory"  # it can go on in another life
            self.protocol = _field(fields, "protocol", int)
            self.limits = {**USUAL, **_limits(_field(fields, "limits", dict, {}))}
            self.table = Table(_field(fields, "types", dict), address)
            self.label = f"{self.name!r} (pid {self.pid}, since {_clock(self.since)})"
        except (LookupError, TypeError, ValueError, ArithmeticError, OSError, NotShareable) as error:
            raise _unreadable(address, error) from error


def _limits(told: dict[Any, Any]) -> dict[str, int]:
    """Return what a server tells of its limits, as far as it is known here.

    Raises:
        ValueError: It is no number of anything.
    """
    found = {name: told[name] for name in USUAL if name in told}
    if not all(type(value) is int and value > 0 for value in found.values()):
        raise ValueError(f"it tells of the limits {found!r}")
    return found


def _field(fields: Any, name: str, kind: type[T], *default: T) -> T:
    """Return what a greeting has under a name, which is of that very type."""
    if type(fields) is not dict:
        raise TypeError("it is no dict")
    value = fields.get(name, *default) if default else fields[name]
    if type(value) is not kind:
        raise TypeError(f"{name} is of type {type(value).__name__}")
    return value


class Table(Mapping[str, Interface]):
    """The shared types of a server, by typeid. A row is read when it is asked for: most programs use few types."""

    __slots__ = ("_address", "_known", "_rows")

    def __init__(self, rows: dict[str, bytes], address: str) -> None:
        if not all(type(typeid) is str and type(row) is bytes for typeid, row in rows.items()):
            raise TypeError("a row of the table of types is none")
        self._rows = dict(rows)
        self._known: dict[str, Interface] = {}
        self._address = address

    def __getitem__(self, typeid: str) -> Interface:
        interface = self._known.get(typeid)
        if interface is None:
            row = self._rows[typeid]
            try:
                interface = Interface.unpack(_codec.decode(row))
                if interface.typeid != typeid:
                    raise ValueError(f"the row of {typeid} is that of {interface.typeid}")
                self._known[typeid] = interface
            except (TypeError, ValueError, NotShareable) as error:
                raise _unreadable(self._address, error) from error
        return interface

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def _unreadable(address: str, error: Exception) -> ServerNotFound:
    return ServerNotFound(address, f"it answered with a greeting that cannot be read ({error})")


def _clock(seconds: float) -> str:
    then, now = time.localtime(seconds), time.localtime()
    return time.strftime("%H:%M" if then[:3] == now[:3] else "%Y-%m-%d %H:%M", then)


@attrs.frozen
class Dialed:
    """A connection that both ends have proved the key on, with the bytes that came behind the proof."""

    transport: Transport
    greeting: Greeting
    leftover: bytes
    same_user: bool


class Handshake(Protocol):
    """Our side of a handshake: bytes in, bytes out."""

    done: bool

    def receive(self, data: bytes) -> bytes: ...


class SocketTransport:
    """A connected socket, in blocking mode."""

    send: Callable[[_wire.Buffer], None]

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._recv = sock.recv
        self.send = sock.sendall
        sock.setblocking(True)
        self._ticks = sys.platform != "win32"
        if self._ticks:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", int(TICK), 0))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", *_timeval(STUCK)))

    def send_pieces(self, pieces: list[_wire.Buffer]) -> None:
        # The first few together, so that the peer does not wake up for a header.
        sent = self._sock.sendmsg(pieces[:8]) if hasattr(self._sock, "sendmsg") else 0
        for piece in pieces:
            if sent < len(piece):
                self.send(memoryview(piece)[sent:])
            sent = max(0, sent - len(piece))

    def receive(self, deadline: float | None, most: int = CHUNK) -> bytes:
        while True:
            if deadline is not None:
                left = deadline - monotonic()
                if (left < TICK or not self._ticks) and not self._readable(left):
                    raise DeadlinePassed
            try:
                return self._recv(most)
            except BlockingIOError:  # the kernel's tick; look at the deadline again
                continue

    def is_quiet(self) -> bool:
        try:
            return not self._readable(0.0)
        except (OSError, ValueError):
            return False

    def _readable(self, seconds: float) -> bool:
        if hasattr(select, "poll"):
            poll = select.poll()
            try:
                poll.register(self._sock, select.POLLIN)
            except ValueError:  # another thread has closed it, as the next read will tell
                return True
            return bool(poll.poll(max(0.0, seconds) * 1000))
        return bool(select.select([self._sock], [], [], max(0.0, seconds))[0])

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the peer was quicker
        self._sock.close()

    def drop(self) -> None:
        self._sock.close()

    def detach(self) -> socket.socket:
        """Return the socket, which is no longer this transport's."""
        return self._sock


class PatchedTransport(SocketTransport):
    """A socket that waits outside of the kernel, as those of gevent do, so that other greenlets run meanwhile.

    The kernel's timers do not count for it, and it must not be polled: a greenlet that polls is not woken when another
    one closes the socket, and one that waits in the socket itself is.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.send = self._send_all

    def _send_all(self, data: _wire.Buffer) -> None:
        rest = memoryview(data)
        while rest:
            # The one who reads changes it too, but each sets it for the wait that follows.
            self._sock.settimeout(STUCK)
            try:
                rest = rest[self._sock.send(rest) :]
            except TimeoutError as error:
                raise BlockingIOError(errno.EAGAIN, "the peer does not read") from error

    def send_pieces(self, pieces: list[_wire.Buffer]) -> None:
        for piece in pieces:
            self.send(piece)

    def is_quiet(self) -> bool:
        return False

    def receive(self, deadline: float | None, most: int = CHUNK) -> bytes:
        while True:
            left = None if deadline is None else max(0.0, deadline - monotonic())
            self._sock.settimeout(left)
            try:
                return self._recv(most)
            except BlockingIOError:
                raise DeadlinePassed from None
            except TimeoutError as error:
                if left is None or error.errno is not None:
                    raise  # a signal handler's, or the network's
                # The next turn looks once more, without a wait.


def _transport(sock: socket.socket) -> SocketTransport:
    """Return the transport for a connected socket, by who does its waiting."""
    sock.setblocking(True)
    if sys.platform != "win32" and not os.get_blocking(sock.fileno()):
        return PatchedTransport(sock)
    return SocketTransport(sock)


def dial(address: Address, authkey: bytes, deadline: float, tls: TlsFiles | None = None) -> Dialed:
    """Connect to a socket address and shake hands.

    Args:
        address: Of kind unix, tcp or tls.
        authkey: The secret that both sides know.
        deadline: When to give up, as `time.monotonic` counts.
        tls: The files of this end, where the address is of kind tls.

    Raises:
        ServerNotFound: Nobody listens there, or what listens is no server of ours.
        AccessDenied: The keys differ, or one of the two does not accept the other's certificate.
        DeadlinePassed: The deadline came first.
    """
    try:
        with _kept(_connected(address, deadline)) as sock:
            transport: Transport = _transport(sock)
            binding = b""
            if address.kind == "tls":
                from registry import _tls  # it takes `ssl`, which other connections do without

                transport = encrypted = _tls.secure(transport, address, tls or TlsFiles(), _limit(deadline))
                binding = encrypted.binding
            handshake = ClientHandshake(authkey, binding=binding)
            _shake(transport, handshake, deadline)
            greeting = Greeting(handshake.body, str(address))
            return Dialed(transport, greeting, handshake.leftover, _is_ours(sock, address))
    except NotNative as error:
        cure = f'; "stock+{address}" is how to use one' if error.is_stock else ""
        reason = f"what answers there is no server of ours: {error.reason}{cure}"
        raise ServerNotFound(str(address), reason) from error
    except (AccessDenied, VersionMismatch) as error:
        raise error.located(address.label) from error.__cause__


def dial_stock(address: Address, authkey: bytes, deadline: float) -> tuple[SocketTransport, bytes]:
    """Connect to a stock server and shake hands as its own clients do.

    Args:
        address: Of kind stock+unix or stock+tcp.
        authkey: The secret that both sides know.
        deadline: When to give up, as `time.monotonic` counts.

    Returns:
        The connection, and what the server has sent behind the handshake.

    Raises:
        ServerNotFound: What listens there is no stock server.
        AccessDenied: The keys differ.
        OSError: Nobody listens there, or the connection has ended.
        DeadlinePassed: The deadline came first.
    """
    handshake = StockHandshake(authkey)
    try:
        with _kept(_connected(address, deadline)) as sock:
            transport = _transport(sock)
            _shake(transport, handshake, deadline)
            return transport, handshake.leftover
    except NotStock as error:
        reason = f"what answers there is no multiprocessing server: {error.reason}"
        raise ServerNotFound(str(address), reason) from error
    except AccessDenied as error:
        raise error.located(str(address)) from None


@contextmanager
def _kept(sock: socket.socket) -> Iterator[socket.socket]:
    """Close a socket where the block raises."""
    try:
        yield sock
    except BaseException:
        sock.close()
        raise


def _shake(transport: Transport, handshake: Handshake, deadline: float) -> None:
    """Shake hands on a connection.

    Raises:
        OSError: It has ended.
        DeadlinePassed: The deadline came first.
        Exception: Whatever the handshake finds wrong.
    """
    heard = False
    while not handshake.done:
        try:
            data = transport.receive(_limit(deadline))
        except DeadlinePassed:
            raise DeadlinePassed("" if heard else SILENCE) from None
        if not data:
            raise ConnectionResetError("the connection was closed during the handshake")
        heard = True
        answer = handshake.receive(data)
        if answer:
            transport.send(answer)


def _limit(deadline: float) -> float | None:
    """Return a deadline as transports take it."""
    return None if deadline == float("inf") else deadline


def attached(transport: Transport, reader: _wire.Reader, limit: float | None, address: str) -> _wire.Attached:
    """Return the answer to an attach; what follows it stays in the reader.

    Raises:
        ServerNotFound: It refuses the session, or says nothing by the limit.
        OSError: The connection has ended.
    """
    while True:
        try:
            for frame in reader:
                if frame.kind == Kind.ATTACHED:
                    answer = _wire.decode_attached(frame.body)
                    if answer.lease and not SHORTEST <= answer.lease <= LONGEST:
                        raise _wire.ProtocolError(f"a lease of {answer.lease} seconds")
                    return answer
                if frame.kind == Kind.REFUSED:
                    raise ServerNotFound(address, bytes(frame.body).decode("utf-8", "replace"))
        except (_wire.ProtocolError, *_wire.BadBody) as error:
            raise ServerNotFound(address, f"it does not keep to the protocol: {error}") from error
        try:
            if limit is not None and monotonic() >= limit:
                raise DeadlinePassed
            data = transport.receive(limit)
        except DeadlinePassed as error:
            raise ServerNotFound(address, "it accepted the connection and then did not go on") from error
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "it closed the connection")
        reader.feed(data)


def _is_ours(sock: socket.socket, address: Address) -> bool:
    """Tell whether the server runs under our own account on this machine, as the kernel says."""
    if not hasattr(os, "geteuid"):
        return False
    if address.host is not None:
        return _peers.of_tcp(sock).uid == os.geteuid()
    peer, pidfd = _peers.of_unix(sock)
    if pidfd is not None:
        os.close(pidfd)
    return peer.uid == os.geteuid()


def _timeval(seconds: float) -> tuple[int, int]:
    return int(seconds), int(seconds % 1 * 1_000_000)


def _seconds(deadline: float) -> float:
    """Return the time left as a socket takes it, which is never none and never without end."""
    return min(max(0.001, deadline - monotonic()), 86_400.0)


def _connected(address: Address, deadline: float) -> socket.socket:
    if deadline <= monotonic():
        raise DeadlinePassed
    if address.host is not None:
        try:
            sock = socket.create_connection((address.host or "", address.port or 0), timeout=_seconds(deadline))
        except TimeoutError as error:
            if monotonic() < deadline:
                raise
            raise DeadlinePassed from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    if not hasattr(socket, "AF_UNIX"):
        raise ServerNotFound(str(address), "this system has no unix sockets; use tcp://127.0.0.1:PORT")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(_seconds(deadline))
        sock.connect(address.path or "")
    except BaseException:
        sock.close()
        raise
    return sock
