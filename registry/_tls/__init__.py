"""TLS: what an end shows and whom it believes, the layer between bytes and encrypted bytes, and what refusals mean.

A `Layer` reads no socket. It takes what has arrived and gives what is to be sent, over the `ssl` of the standard
library, so that threads, event loops and the server use one and the same:

* A connection is shared by threads, of which one reads while another writes. An `SSLSocket` cannot do that: it would
  read within OpenSSL, which must not write meanwhile. Here the kernel is waited for outside of the layer, and the
  layer is locked for the moments in which it works in memory (`TlsTransport`).
* The server counts strangers from their first byte on, and can say why it refuses them (`registry._tls_connection`).

The end of a connection is not encrypted: no ``close_notify`` is sent. Whoever can cut a connection can do so in any
case, and what is cut off is a frame without its end, which nobody takes for whole.

What binds the handshake of the key to the connection is a hash of the server's certificate, as in
``tls-server-end-point`` of RFC 5929, but always SHA-256: there the hash follows the signature of the certificate, and
for some signatures there is none. A handshake that somebody passes on from one TLS connection to another fails, unless
he has the server's own private key.
"""

from __future__ import annotations

from registry._tls._contexts import Credentials, Renewed, client_context
from registry._tls._layer import PIECE, Layer
from registry._tls._refusals import is_refusal, refused_client
from registry._tls._transport import TlsTransport, broken, secure

__all__ = [
    "PIECE",
    "Credentials",
    "Layer",
    "Renewed",
    "TlsTransport",
    "broken",
    "client_context",
    "is_refusal",
    "refused_client",
    "secure",
]
