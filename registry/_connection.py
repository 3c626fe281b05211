"""One connection of a server: the handshake, then a native client's frames or a stock client's requests."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from registry import _peers, _wire
from registry._attachments import Attachment
from registry._auth import ServerHandshake
from registry._stock import StockConnection
from registry._wire import ATTACH, Kind, ProtocolError

if TYPE_CHECKING:
    from registry.server import ManagerServer

log = logging.getLogger("registry")

# So few that one client which never waits for its replies makes the others' calls hardly longer than they are.
FRAMES_A_TURN = 8
SECONDS_A_TURN = 0.001


class Connection(asyncio.Protocol):
    """One connection: the handshake, then frames or stock requests."""

    def __init__(self, server: ManagerServer, binding: bytes = b"") -> None:
        """Wait for a peer.

        Args:
            server: Whose connection this is.
            binding: What binds the handshake to the TLS connection below.
        """
        self._server = server
        self._transport: Any = None
        self._handshake: ServerHandshake | None = ServerHandshake(
            server.keys, binding=binding, takes_md5=not server.no_md5
        )
        self._reader = _wire.Reader(admit=server.why_unread)
        self._attachment: Attachment | None = None
        self._stock: StockConnection | None = None
        self._backlog = False
        self._blocked = False
        self._pidfd: int | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._peer: _peers.Peer

    # -- events of the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        server = self._server
        server._connections.add(self)
        sock = transport.get_extra_info("socket")
        try:
            if server._address.kind == "unix":
                self._peer, self._pidfd = _peers.of_unix(sock)
            else:
                self._peer = _peers.of_tcp(sock)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=server.limits.unsent)
        self._begin()
        self._deadline = asyncio.get_running_loop().call_later(server.limits.handshake, self._give_up)
        server.door.enter(self)

    def data_received(self, data: bytes) -> None:
        if self._handshake is not None:
            self._shake(data)
        elif self._stock is not None:
            self._stock.feed(data)
            self._server.flush()
        elif self._backlog or (frame := self._reader.whole(data)) is None:
            if self._backlog:
                self._reader.feed(data)
            else:
                self._turn()
            if self._attachment is not None:
                self._server.host.hear(self._attachment, self._server.now())
        else:
            self._take(frame)
            self._server.flush()

    def connection_lost(self, error: Exception | None) -> None:
        server = self._server
        server._connections.discard(self)
        server.door.leave(self)
        server.note_closed()
        if self._deadline is not None:
            self._deadline.cancel()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        if self._stock is not None:
            # A unix socket that is closed with bytes unread in it is reset.
            self._stock.lost(unread=isinstance(error, ConnectionResetError))
        elif self._attachment is not None:
            client = self._attachment.client
            self._attachment.sink = None
            if error is not None:
                # A write has failed while nothing was read from a peer that does not read either: what it had sent
                # before it went counts.
                self.drain()
            server.host.detach(self._attachment, server.now())
            if client is not None and client.key not in server.host.clients:
                server.lifelines.unwatch(client)
        if server._loop is not None:
            server.flush()

    def pause_writing(self) -> None:
        """The peer does not read: take nothing more from it, and cut it if that does not change."""
        self._blocked = True
        self._transport.pause_reading()
        unsent = self._transport.get_write_buffer_size()
        asyncio.get_running_loop().call_later(self._server.limits.stuck, self._check_progress, unsent)

    def resume_writing(self) -> None:
        self._blocked = False
        if self._backlog:
            asyncio.get_running_loop().call_soon(self._next_turn)
        else:
            self._transport.resume_reading()

    # -- what they do

    @property
    def certificate(self) -> Mapping[str, Any] | None:
        """The certificate that the peer has shown and the server has verified, as `ssl` tells it; None without."""
        return None

    def _begin(self) -> None:
        """Have the first word."""
        if self._handshake is not None:
            self._transport.write(self._handshake.opening())

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self._transport.write(data)

    def write_all(self, pieces: list[Any]) -> None:
        """Send frames and pieces of frames; those of some size are sent from where they lie."""
        if len(pieces) == 1:
            self._transport.write(pieces[0])
        elif memoryview in map(type, pieces):
            for piece in pieces:
                self._transport.write(piece)
        else:
            self._transport.write(b"".join(pieces))

    def end(self) -> None:
        """Close, once everything has been sent."""
        self._transport.close()

    def abort(self) -> None:
        """Close at once. What the peer still sends is not read."""
        self._set_backlog(False)
        self._transport.abort()

    @property
    def is_behind(self) -> bool:
        """Whether the peer has sent what has not been taken: the fault is ours, or it waits until it reads."""
        if self._backlog or self._blocked:
            return True
        number = self.fileno()
        if number < 0:
            return False
        sock = socket.socket(fileno=os.dup(number))
        try:
            return bool(sock.recv(1, socket.MSG_PEEK | getattr(socket, "MSG_DONTWAIT", 0)))
        except OSError:
            return False  # nothing is there, or it has been reset
        finally:
            sock.close()

    @property
    def unsent(self) -> int:
        """How many bytes wait for the peer to read them."""
        return int(self._transport.get_write_buffer_size())

    def fileno(self) -> int:
        """Return the descriptor of the socket, -1 when it is closed."""
        sock = self._transport.get_extra_info("socket")
        return sock.fileno() if sock is not None else -1

    @property
    def sock(self) -> Any:
        """The socket, as far as the loop shows it."""
        return self._transport.get_extra_info("socket")

    def hand_over(self) -> socket.socket:
        """Give the socket to a thread that reads and writes it from now on, and let go of it here."""
        sock = socket.socket(fileno=os.dup(self.fileno()))
        self._transport.pause_reading()
        self._transport.abort()
        sock.setblocking(True)
        return sock

    def drain(self) -> None:
        """Take everything that the peer has sent before it ended, from our own buffer and from the kernel's.

        A child of the peer may hold the socket, so there may be no end of the stream to wait for.
        """
        while self._backlog:
            self._turn()
        number = self.fileno()
        if number < 0:
            return
        sock = socket.socket(fileno=os.dup(number))
        try:
            while data := sock.recv(1 << 16, getattr(socket, "MSG_DONTWAIT", 0)):
                self.data_received(data)
                while self._backlog:
                    self._turn()
            if self._stock is not None:
                self._stock.lost()
        except BlockingIOError:
            pass  # that was all
        except ConnectionError:
            if self._stock is not None:
                self._stock.lost(unread=True)
        finally:
            sock.close()

    def _check_progress(self, unsent: int) -> None:
        if self._blocked and not self._transport.is_closing():
            now = self._transport.get_write_buffer_size()
            if now >= unsent:
                log.warning("cut a connection of %s that does not read", self._label)
                self._transport.abort()
            else:
                asyncio.get_running_loop().call_later(self._server.limits.stuck, self._check_progress, now)

    @property
    def _label(self) -> str:
        if self._attachment is not None and self._attachment.client is not None:
            return self._attachment.client.label
        return str(self._peer)

    def _shake(self, data: bytes) -> None:
        handshake = self._handshake
        if handshake is None:
            return
        server = self._server
        answer = handshake.receive(data)
        if handshake.has_wrong_key:
            self._transport.pause_reading()
            server.door.refuse(lambda: self._turn_away(answer, handshake.reason))
            return
        if handshake.outcome == "refused":
            self._turn_away(answer, handshake.reason)
            return
        if answer:
            self._transport.write(answer)
            self._acknowledge()
        if handshake.outcome is None:
            return
        if self._deadline is not None:
            self._deadline.cancel()
        self._handshake = None
        server.door.leave(self)
        if handshake.outcome == "native":
            role = server.role_of(handshake.role, self.certificate)
            self._transport.write(handshake.accept(server.host.greet(role, self._domain)))
            peer = self._peer
            self._attachment = Attachment(
                self._domain,
                pid=peer.pid,
                host=peer.host,
                command=peer.command,
                leased=self._pidfd is None,
                process=peer.process if self._pidfd is not None else "",
                certificate=self.certificate,
                role=role,
            )
            self._attachment.sink = self
            if handshake.leftover:
                self.data_received(handshake.leftover)
        else:
            self._stock = server.stock.accept(self._peer, self._pidfd, self._domain, self, handshake.role)
            self._pidfd = None
            if handshake.leftover:
                self.data_received(handshake.leftover)

    def _turn_away(self, answer: bytes, reason: str) -> None:
        if self._transport.is_closing():
            return
        log.warning("refused a connection from %s: %s", self._peer, reason)
        self._transport.write(answer)
        self._transport.close()

    def _give_up(self) -> None:
        seconds = self._server.limits.handshake
        log.info("refused a connection from %s: it did not show the key within %g s", self._peer, seconds)
        self._transport.abort()

    def _acknowledge(self) -> None:
        """Have the next bytes acknowledged at once.

        The request of a stock client follows its last word of the handshake, and its kernel (Nagle's algorithm)
        would hold it back until our kernel's delayed acknowledgement: 40 ms for each of its many connections.
        """
        if self._peer.kind == "tcp" and hasattr(socket, "TCP_QUICKACK"):
            try:
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            except OSError:
                pass  # it has been reset, which the loop is about to say

    @property
    def _domain(self) -> str:
        """The trust domain of the peer: only processes of our own user on our own host are in ours."""
        uid = self._peer.uid
        if uid is None or not hasattr(os, "geteuid") or uid != os.geteuid():
            return ""
        return self._server.domain

    def _take(self, frame: _wire.Frame) -> None:
        """Hand one frame to the host."""
        attachment = self._attachment
        if attachment is None:
            return
        try:
            self._server.host.receive(attachment, frame, self._server.now())
            if frame.kind == ATTACH:
                self._attached(attachment)
        except ProtocolError as error:
            self._refuse(str(error))

    def _turn(self) -> None:
        """Handle what has arrived, but not so much that others wait for it."""
        server, reader = self._server, self._reader
        until = time.monotonic() + SECONDS_A_TURN
        taken = 0
        try:
            while (frame := reader.next()) is not None:
                self._take(frame)
                taken += 1
                if taken >= FRAMES_A_TURN or self._has_much_to_send() or time.monotonic() > until:
                    self._set_backlog(True)
                    asyncio.get_running_loop().call_soon(self._next_turn)
                    break
            else:
                self._set_backlog(False)
        except ProtocolError as error:
            self._refuse(str(error))
        server.flush()

    def _has_much_to_send(self) -> bool:
        """Tell whether the answers of this turn are as large as those may be that wait for their reader."""
        outbox = self._attachment.outbox if self._attachment is not None else ()
        return bool(outbox) and sum(map(len, outbox)) > self._server.limits.unsent

    def _next_turn(self) -> None:
        if self._backlog and not self._blocked:
            self._turn()

    def _set_backlog(self, backlog: bool) -> None:
        if backlog == self._backlog:
            return
        self._backlog = backlog
        if self._transport.is_closing():
            return
        if backlog:
            self._transport.pause_reading()
        elif not self._blocked:
            self._transport.resume_reading()

    def _attached(self, attachment: Attachment) -> None:
        client = attachment.client
        self._server.stamp()
        if client is not None and self._pidfd is not None:
            self._server.lifelines.watch(client, self._pidfd)
            self._pidfd = None
        if client is not None and client.generation == 1:
            role = "" if client.is_admin else f" with the role {client.role!r}"
            log.info("session of %s began%s", client.label, role)

    def _refuse(self, reason: str) -> None:
        log.warning("closed the connection of %s: %s", self._label, reason)
        self._set_backlog(False)
        self._transport.write(_wire.pack(Kind.REFUSED, reason.encode()))
        self._transport.close()
