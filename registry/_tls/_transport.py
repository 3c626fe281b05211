"""A byte stream over TLS for threads that wait."""

from __future__ import annotations

import errno
import ssl
import threading
from typing import TYPE_CHECKING, Any

from registry._auth import NotNative
from registry._tls._contexts import binding_of, client_context
from registry._tls._layer import PIECE, Layer
from registry._tls._refusals import refused_server
from registry.errors import AccessDenied

if TYPE_CHECKING:
    from registry._addresses import Address, TlsFiles
    from registry._transport import Transport
    from registry._wire import Buffer

_PLAIN = b"#CHALLENGE#"  # how a server of ours begins that speaks no TLS


class TlsTransport:
    """A transport whose bytes are encrypted, over one that carries them; see `registry._transport.Transport`.

    Nothing that was decrypted is kept here: a read returns all of it, so that what can be polled tells the truth.

    Attributes:
        inner: What carries them.
        layer: What encrypts them.
    """

    def __init__(self, inner: Transport, layer: Layer, host: str, files: TlsFiles) -> None:
        self.inner = inner
        self.layer = layer
        self._host = host
        self._files = files
        # It knows its owner: a signal handler may raise between an acquisition and the very next instruction.
        self._working: Any = threading.RLock()
        self.is_quiet = inner.is_quiet
        self.fileno = inner.fileno
        self.drop = inner.drop

    @property
    def binding(self) -> bytes:
        """What binds a handshake of the key to this connection."""
        return binding_of(self.layer.der)

    def send(self, data: Buffer) -> None:
        if len(data) <= PIECE:
            self._send_piece(data)
        else:
            whole = memoryview(data)
            for start in range(0, len(whole), PIECE):
                self._send_piece(whole[start : start + PIECE])

    def send_pieces(self, pieces: list[Buffer]) -> None:
        if sum(map(len, pieces)) <= PIECE:
            self._send_piece(b"".join(pieces))
        else:
            for piece in pieces:
                self.send(piece)

    def _send_piece(self, data: Buffer) -> None:
        with self._working:
            encrypted = self.layer.encrypt(data)
        self.inner.send(encrypted)

    def receive(self, deadline: float | None, most: int = PIECE) -> bytes:
        while not self.layer.has_ended:
            encrypted = self.inner.receive(deadline, most)
            if not encrypted:
                break
            try:
                with self._working:
                    data = self.layer.decrypt(encrypted)
            except ssl.SSLError as error:
                raise self._explained(error) from error
            if data:
                return data
        return b""

    def _explained(self, error: ssl.SSLError) -> Exception:
        reason = refused_server(error, self._host, self._files)
        return AccessDenied(reason) if reason else broken(error)

    def close(self) -> None:
        while self._working._is_owned():
            self._working.release()  # a signal handler has raised while this thread worked
        self.inner.close()


def broken(error: ssl.SSLError) -> ConnectionResetError:
    """Return the end of a connection on which something came that cannot be decrypted."""
    return ConnectionResetError(errno.ECONNRESET, f"what came was changed on its way ({error.reason or error})")


def secure(inner: Transport, address: Address, files: TlsFiles, deadline: float | None) -> TlsTransport:
    """Shake hands as a client, and return the stream whose bytes are encrypted.

    Args:
        inner: A connection on which nothing was sent yet.
        address: What it leads to. The server must have a certificate of this host.
        files: What this end goes by.
        deadline: When to give up, as `time.monotonic` counts; None is never.

    Raises:
        AccessDenied: One of the two refuses the other, or a file cannot be used.
        NotNative: What answers speaks no TLS.
        ConnectionResetError: The connection has ended.
        DeadlinePassed: The deadline came first.
    """
    host = address.host or "localhost"
    layer = Layer(client_context(files), host)
    data = b""
    while True:
        try:
            answer = layer.shake(data)
        except ssl.SSLError as error:
            alert = layer.farewell()
            if alert:
                try:
                    inner.send(alert)
                except OSError:
                    pass  # it has gone, and need not be told
            reason = refused_server(error, host, files)
            if reason:
                raise AccessDenied(reason) from error
            if _PLAIN in data[:16]:
                raise NotNative(
                    f"it speaks no TLS: start it with an address tls://, or write tcp://{str(address)[6:]} if the "
                    "network is trusted"
                ) from error
            raise NotNative(f"no TLS handshake is possible with it ({error.reason or error})") from error
        if answer:
            inner.send(answer)
        if layer.is_open:
            return TlsTransport(inner, layer, host, files)
        data = inner.receive(deadline)
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "the connection was closed during the handshake")
