"""Byte streams to a server that keep no event loop waiting.

They have the verbs of `registry._transport.Transport`. `send` never waits: it hands over, and what is to be sent leaves
at the end of the loop's turn, all in one. `receive` waits as any code of the client does, in the task that it runs in
(`_bridge`), or not at all where its deadline has passed.
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
from collections import deque
from collections.abc import Callable
from ssl import SSLError
from time import monotonic

from registry import _wire
from registry._memory import MemoryTransport
from registry._tls import PIECE, Layer, TlsTransport, broken
from registry._transport import CHUNK, STUCK, DeadlinePassed, SocketTransport, Transport
from registry.aio._bridge import wait

FULL = 1 << 20  # unsent bytes from which on calls wait before they are written
A_TURN = 1 << 20  # bytes that are encrypted in a turn of the loop
TOGETHER = 64  # pieces that leave in one system call


class Wake:
    """Let one task wait for something, by `release` or until a deadline."""

    __slots__ = ("_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[bool] = loop.create_future()

    def release(self) -> None:
        """End the wait, now or when it begins."""
        self._end(True)

    def wait(self, deadline: float | None) -> bool:
        """Wait; tell whether it was released before `deadline`, as `time.monotonic` counts."""
        future = self._future
        if deadline is None:
            wait(future)
        elif not future.done():
            timer = self._loop.call_later(max(0.0, deadline - monotonic()), self._end, False)
            try:
                wait(future)
            finally:
                timer.cancel()
        return future.result()

    def _end(self, released: bool) -> None:
        if not (self._future.done() or self._loop.is_closed()):
            self._future.set_result(released)


class LoopTransport:
    """What has arrived is read by `receive`, or told to whoever has said so by `deliver_to`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._deliver: Callable[[], None] | None = None
        self._reader: Wake | None = None

    def deliver_to(self, function: Callable[[], None]) -> None:
        """Have a function called from now on when there is something to read, the end too, or room to send again."""
        self._deliver = function

    def receive(self, deadline: float | None, most: int = CHUNK) -> bytes:
        while (data := self._take(most)) is None:
            if deadline is not None and deadline <= monotonic():
                raise DeadlinePassed
            self._reader = Wake(self._loop)
            try:
                self._reader.wait(deadline)
            finally:
                self._reader = None
        return data

    def _take(self, most: int) -> bytes | None:
        """Return what has arrived, empty for the end of the stream; None where nothing has."""
        raise NotImplementedError

    def _arrived(self) -> None:
        if self._reader is not None:
            self._reader.release()
        elif self._deliver is not None:
            self._deliver()

    @property
    def is_full(self) -> bool:
        """Whether so much is unsent that calls should wait."""
        return False


class LoopSocket(LoopTransport):
    """A connected socket that an event loop watches.

    Args:
        loop: The loop, which runs in this thread.
        sock: The socket, which belongs to this from now on.

    Attributes:
        is_eager: Whether what is sent now is to leave at once, since nothing is likely to follow in this turn.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        super().__init__(loop)
        self._sock = sock
        self._unsent: deque[memoryview] = deque()
        self._size = 0
        self.is_eager = False
        self._is_scheduled = False  # `_flush` is called at the end of this turn
        self._is_blocked = False  # the kernel takes nothing for now
        self._progress = 0.0
        self._closed = False
        sock.setblocking(False)
        try:
            loop.add_reader(sock.fileno(), self._arrived)
        except NotImplementedError as error:
            sock.close()
            raise RuntimeError(
                f"{type(loop).__name__} cannot watch sockets: run this program in an asyncio.SelectorEventLoop"
            ) from error

    def send(self, data: _wire.Buffer) -> None:
        self.send_pieces([data])

    def send_pieces(self, pieces: list[_wire.Buffer]) -> None:
        if self._closed:
            raise OSError(errno.EPIPE, "the connection is closed")
        for piece in pieces:
            self._unsent.append(memoryview(piece).cast("B"))
            self._size += len(self._unsent[-1])
        if not self._loop.is_running():
            self._flush()  # what a loop calls at its end, or the interpreter at its own, has no later turn
        elif not (self._is_scheduled or self._is_blocked):
            if self.is_eager:
                self._flush()
            else:
                self._is_scheduled = True
                self._loop.call_soon(self._flush)

    @property
    def is_full(self) -> bool:
        return self._size > FULL

    def is_quiet(self) -> bool:
        try:
            if hasattr(select, "poll"):
                poll = select.poll()
                poll.register(self._sock, select.POLLIN)
                return not poll.poll(0)
            return not select.select([self._sock], [], [], 0)[0]
        except (OSError, ValueError):
            return False

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        if self._closed:
            return
        if not (self._is_blocked or self._reader is not None):
            self._flush()  # a goodbye, perhaps
        self._closed = True
        self._unsent.clear()
        if not self._loop.is_closed():
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the peer was quicker
        self._sock.close()
        self._arrived()

    def drop(self) -> None:
        # Nothing is said to the loop: in a forked child it would be the parent's that hears it, by what both watch.
        self._closed = True
        self._unsent.clear()
        self._sock.close()

    def _take(self, most: int) -> bytes | None:
        try:
            return self._sock.recv(most)
        except (BlockingIOError, InterruptedError):
            return None

    def _flush(self) -> None:
        """Send what the kernel takes; the rest once it takes more."""
        self._is_scheduled = False
        if self._closed:
            return
        unsent = self._unsent
        while unsent:
            try:
                sent = self._send_some()
            except (BlockingIOError, InterruptedError):
                self._block()
                return
            except OSError:
                unsent.clear()
                break  # reading tells that it has ended
            self._size -= sent
            self._progress = self._loop.time()
            while unsent and sent >= len(unsent[0]):
                sent -= len(unsent.popleft())
            if sent:
                unsent[0] = unsent[0][sent:]
        self._size = 0
        if self._is_blocked:
            self._is_blocked = False
            self._loop.remove_writer(self._sock.fileno())
            self._arrived()

    def _send_some(self) -> int:
        unsent = self._unsent
        if len(unsent) == 1 or not hasattr(self._sock, "sendmsg"):
            return self._sock.send(unsent[0])
        return self._sock.sendmsg([unsent[place] for place in range(min(TOGETHER, len(unsent)))])

    def _block(self) -> None:
        if not (self._is_blocked or self._loop.is_closed()):
            self._is_blocked = True
            self._progress = self._loop.time()
            self._loop.add_writer(self._sock.fileno(), self._flush)
            self._loop.call_later(STUCK, self._check_progress)

    def _check_progress(self) -> None:
        """Give a peer up that does not read."""
        if self._is_blocked and not self._closed:
            left = self._progress + STUCK - self._loop.time()
            if left > 0:
                self._loop.call_later(left, self._check_progress)
            else:
                self._unsent.clear()
                self.close()


class LoopTls(LoopSocket):
    """A socket that an event loop watches, whose bytes are encrypted.

    Bytes are encrypted when they are about to leave, and so many in a turn that others are not kept waiting.

    Args:
        loop: The loop, which runs in this thread.
        sock: The socket, which belongs to this from now on.
        layer: What encrypts them, its handshake done.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, layer: Layer) -> None:
        super().__init__(loop, sock)
        self.layer = layer
        self._encrypted = memoryview(b"")
        self._encrypted_of = 0  # bytes that `_encrypted` has been made of
        self._left = A_TURN

    def _take(self, most: int) -> bytes | None:
        while not self.layer.has_ended:
            encrypted = super()._take(most)
            if not encrypted:
                return encrypted
            try:
                data = self.layer.decrypt(encrypted)
            except SSLError as error:
                raise broken(error) from error
            if data:
                return data
        return b""

    def _flush(self) -> None:
        self._left = A_TURN
        super()._flush()

    def _send_some(self) -> int:
        if not self._encrypted:
            if self._left <= 0:
                raise BlockingIOError  # the kernel would take more; the next turn goes on
            piece, size = [], 0
            for each in self._unsent:
                piece.append(each[: PIECE - size])
                size += len(piece[-1])
                if size >= PIECE:
                    break
            self._encrypted = memoryview(self.layer.encrypt(piece[0] if len(piece) == 1 else b"".join(piece)))
            self._encrypted_of = size
            self._left -= size
        self._encrypted = self._encrypted[self._sock.send(self._encrypted) :]
        return 0 if self._encrypted else self._encrypted_of


class LoopMemory(LoopTransport):
    """A stream to a server in this process, whose thread brings what it has to say.

    Args:
        loop: The loop, which runs in this thread.
        stream: The stream, which nobody else reads from now on.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, stream: MemoryTransport) -> None:
        super().__init__(loop)
        self._stream = stream
        self._inbox: deque[bytes] = deque()
        before, stream.inbox = stream.inbox, self  # type: ignore[assignment] # it has what is used of one
        while not before.empty():
            self._inbox.append(before.get())
        self.send = stream.send
        self.send_pieces = stream.send_pieces
        self.is_quiet = stream.is_quiet
        self.fileno = stream.fileno
        self.close = stream.close
        self.drop = stream.drop

    def put(self, data: bytes) -> None:
        """Take what the server has said; called in its thread."""
        self._inbox.append(data)
        try:
            self._loop.call_soon_threadsafe(self._arrived)
        except RuntimeError:
            pass  # the loop has been closed

    def _take(self, most: int) -> bytes | None:
        return self._inbox.popleft() if self._inbox else None


def for_loop(loop: asyncio.AbstractEventLoop, transport: Transport) -> LoopSocket | LoopMemory:
    """Return what takes the place of a transport that has just been connected, in a thread."""
    if isinstance(transport, TlsTransport) and isinstance(transport.inner, SocketTransport):
        return LoopTls(loop, transport.inner.detach(), transport.layer)
    if isinstance(transport, SocketTransport):
        return LoopSocket(loop, transport.detach())
    if isinstance(transport, MemoryTransport):
        return LoopMemory(loop, transport)
    raise TypeError(f"no event loop can watch a {type(transport).__name__}")
