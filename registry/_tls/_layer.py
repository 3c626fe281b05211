"""One end of a TLS connection, without I/O: what has arrived goes in, and what is to be sent comes out."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

RECORD = 16_384  # bytes that a record encrypts at most
PIECE = 1 << 16  # bytes that are encrypted in one go


class Layer:
    """One end of a TLS connection. It is not safe to be used by two threads at once.

    Attributes:
        is_open: Whether the handshake is done.
        has_ended: Whether the peer has said that nothing more follows.
    """

    def __init__(self, context: ssl.SSLContext, host: str | None = None) -> None:
        """Begin; the client has the first word.

        Args:
            context: What this end goes by.
            host: For a client, whose certificate the server must show; None for a server.
        """
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=host is None, server_hostname=host or None
        )
        self.is_open = False
        self.has_ended = False

    def shake(self, data: bytes) -> bytes:
        """Go on with the handshake.

        Args:
            data: What has arrived.

        Returns:
            What is to be sent now.

        Raises:
            ssl.SSLError: One of the two refuses the other; `farewell` is what is to be sent still.
        """
        self._incoming.write(data)
        try:
            self._tls.do_handshake()
            self.is_open = True
        except ssl.SSLWantReadError:
            pass
        return self._outgoing.read()

    def farewell(self) -> bytes:
        """Return what is to be sent after an error: the alert that tells the peer of it."""
        return self._outgoing.read()

    def decrypt(self, data: bytes) -> bytes:
        """Return what the peer has encrypted; empty where no record is whole yet.

        Args:
            data: What has arrived.

        Raises:
            ssl.SSLError: It was changed on its way, or the peer tells of an error.
        """
        incoming, tls = self._incoming, self._tls
        incoming.write(data)
        pieces: list[bytes] = []
        try:
            while piece := tls.read(RECORD):
                if not pieces and not incoming.pending and not tls.pending():
                    return piece  # as most of what arrives is
                pieces.append(piece)
            self.has_ended = True
        except ssl.SSLWantReadError:
            pass
        return b"".join(pieces)

    def encrypt(self, data: Any) -> bytes:
        """Return bytes as they are to be sent, behind all that was encrypted before.

        Args:
            data: Any buffer, of no more than some `PIECE`, since nobody else can run meanwhile.
        """
        write = self._tls.write
        written = write(data) if data else 0
        if written < len(data):
            rest = memoryview(data)[written:]
            while rest:
                rest = rest[write(rest) :]
        return self._outgoing.read()

    @property
    def certificate(self) -> Mapping[str, Any] | None:
        """The certificate of the peer, as `ssl.SSLSocket.getpeercert` tells it, where it was verified; else None."""
        return self._tls.getpeercert() or None

    @property
    def der(self) -> bytes:
        """The certificate of the peer in DER, verified or not; empty without."""
        return self._tls.getpeercert(binary_form=True) or b""

    @property
    def version(self) -> str:
        """The version that the two speak, such as ``TLSv1.3``."""
        return self._tls.version() or ""
