"""One connection of a server that speaks TLS: what `_connection` does, with encrypted bytes below.

The handshake of TLS is made here and not by the loop, which would show a connection only once that is done: a stranger
is one from its first moment on. It counts at the door, has the time of one handshake for both together, and is told why
it is refused, as far as TLS has words for that.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from registry import _auth, _tls
from registry._connection import Connection

if TYPE_CHECKING:
    from registry.server import ManagerServer

log = logging.getLogger("registry")

A_TURN = 1 << 20  # bytes that are encrypted for one connection in a turn, so that others need not wait for more
SILENCE = 5.0  # seconds after which a peer that says nothing is taken for one that speaks no TLS


class TlsWriter:
    """What a connection writes to: encrypts it, and hands on what the loop's transport takes, a little in a turn.

    Args:
        transport: The loop's.
        layer: What encrypts.
        soon: Calls something in the loop's next turn.
        pause, resume: Called when more waits than should, and when nothing does any more.
        most: How many bytes should wait at most.
    """

    def __init__(
        self,
        transport: Any,
        layer: _tls.Layer,
        soon: Callable[[Callable[[], object]], object],
        pause: Callable[[], object],
        resume: Callable[[], object],
        most: int = 1 << 20,
    ) -> None:
        self.raw = transport
        self._layer = layer
        self._soon = soon
        self._pause = pause
        self._resume = resume
        self._most = most
        self._waiting: deque[memoryview] = deque()  # then the transport takes nothing, or the next turn sees to it
        self._size = 0
        self._is_held = False  # the transport takes nothing more for now
        self._is_paused = False
        self._is_closing = False
        self.get_extra_info = transport.get_extra_info
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading
        self.set_write_buffer_limits = transport.set_write_buffer_limits

    def write(self, data: Any) -> None:
        if self._is_closing or not data:
            return
        if not (self._waiting or self._is_held or len(data) > _tls.PIECE):
            self.raw.write(self._layer.encrypt(data))
            return
        self._waiting.append(memoryview(data))
        self._size += len(data)
        if len(self._waiting) == 1:
            self._pump()
        if self._size > self._most:
            self._note_pause()

    def hold(self) -> None:
        """Encrypt nothing until `release`, since the transport has enough."""
        self._is_held = True
        self._note_pause()

    def release(self) -> None:
        """Go on."""
        self._is_held = False
        self._pump()

    def _note_pause(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            self._pause()

    def _pump(self) -> None:
        waiting = self._waiting
        encrypted = 0
        while waiting and not self._is_held:
            if self.raw.is_closing():
                self._forget()
                return
            if encrypted >= A_TURN:
                self._soon(self._pump)
                return
            piece = waiting[0][: _tls.PIECE]
            encrypted += len(piece)
            self._size -= len(piece)
            if len(piece) < len(waiting[0]):
                waiting[0] = waiting[0][len(piece) :]
            else:
                waiting.popleft()
            self.raw.write(self._layer.encrypt(piece))
        if waiting:
            return
        if self._is_closing:
            self.raw.close()
        elif self._is_paused and not self._is_held:
            self._is_paused = False
            self._resume()

    def _forget(self) -> None:
        self._waiting.clear()
        self._size = 0

    def get_write_buffer_size(self) -> int:
        return int(self.raw.get_write_buffer_size()) + self._size

    def is_closing(self) -> bool:
        return self._is_closing or bool(self.raw.is_closing())

    def close(self) -> None:
        """Close, once everything has been sent."""
        self._is_closing = True
        if not self._waiting:
            self.raw.close()

    def abort(self) -> None:
        self._is_closing = True
        self._forget()
        self.raw.abort()


class TlsConnection(Connection):
    """One connection: the handshake of TLS, then that of the key, then frames."""

    def __init__(self, server: ManagerServer, credentials: _tls.Credentials) -> None:
        super().__init__(server, credentials.binding)
        self._layer = credentials.layer()
        self._writer: TlsWriter
        self._silence: asyncio.TimerHandle | None = None
        self._certificate: Mapping[str, Any] | None = None
        self._is_over = False  # what comes now has nobody who could read it

    @property
    def certificate(self) -> Mapping[str, Any] | None:
        return self._certificate

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        soon = asyncio.get_running_loop().call_soon
        pause, resume, most = super().pause_writing, super().resume_writing, self._server.limits.unsent
        self._writer = TlsWriter(transport, self._layer, soon, pause, resume, most)
        super().connection_made(self._writer)  # type: ignore[arg-type] # it has what a connection uses

    def _begin(self) -> None:
        self._silence = asyncio.get_running_loop().call_later(SILENCE, self._tell_the_silent)

    def data_received(self, data: bytes) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None
        if self._is_over:
            return
        layer = self._layer
        try:
            if not layer.is_open:
                answer = layer.shake(data)
                if answer:
                    self._writer.raw.write(answer)
                if not layer.is_open:
                    return
                self._certificate = layer.certificate
                super()._begin()
                data = b""
            plain = layer.decrypt(data)
        except ssl.SSLError as error:
            self._fail(error)
            return
        if plain:
            super().data_received(plain)
        if layer.has_ended:
            self._writer.close()

    def connection_lost(self, error: Exception | None) -> None:
        if self._silence is not None:
            self._silence.cancel()
        super().connection_lost(error)

    def pause_writing(self) -> None:
        self._writer.hold()

    def resume_writing(self) -> None:
        self._writer.release()

    def _fail(self, error: ssl.SSLError) -> None:
        """Refuse the peer, or end a connection on which something came that it has not encrypted."""
        self._is_over = True
        if self._layer.is_open:
            log.warning("closed the connection of %s: what came was changed on its way (%s)", self._label, error.reason)
            self.abort()
        else:
            self._writer.raw.write(self._layer.farewell())
            self._turn_away(b"", _tls.refused_client(error))

    def _tell_the_silent(self) -> None:
        """Who speaks TLS has the first word. A client of ours that does not would wait for a challenge."""
        self._is_over = True
        self._writer.raw.write(_auth.secured())
        self._turn_away(b"", f"it said nothing for {SILENCE:g} s, and who speaks TLS begins")
