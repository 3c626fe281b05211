"""Handshakes as pure functions: bytes in, bytes out, no I/O.

One port speaks two protocols. The server opens as a stock `multiprocessing` listener does, and the client's
first message tells which protocol it is. A message is framed as `multiprocessing` frames it, a 4-byte
big-endian signed length and a body; until the peer is authenticated a body has at most 256 bytes.

A native client (one round trip)::

    server  #CHALLENGE#{sha256} + 40 random bytes                              *challenge*: {sha256} and on
    client  #REGISTRY#1 + client nonce (32) + MAC (32)                         *hello*
    server  #REGISTRY#1 + MAC (32) + body                                      *proof*
       or   #DENIED#                                                           another key
       or   #VERSION#n                                                         speaks version n only

A server that speaks TLS only says ``#TLS#`` in its first message to who seems to wait for a challenge, and closes.

A stock client, exactly as CPython 3.6 to 3.13 have it::

    server  #CHALLENGE#{sha256} + 40 random bytes
    client  16 bytes HMAC-MD5 (to 3.11), or {digest} + HMAC (3.12 on), over {sha256} and the 40 bytes
    server  #WELCOME#                                                          or #FAILURE#
    client  #CHALLENGE# + 20 random bytes (to 3.11), or #CHALLENGE#{digest} + random bytes
    server  HMAC-MD5, or {digest} + HMAC
    client  #WELCOME#

What a client of ours does with a stock server is the same from the other end (`StockHandshake`), and only where its
user has said so by the address.

What the native form is built to stand:

*Reflection.* Each side has a key of its own, so no message of one side is ever a valid one of the other.

*A rogue listener that borrows answers.* In the stock protocol whoever listens chooses what the client signs.
A native client therefore never computes a stock answer, and the keys of the sides are derived with the authkey as the
*message* of the extracting HMAC (HKDF, RFC 5869), never as its key: nothing that a stock peer can be made to
sign equals anything of ours. The proof covers both nonces, the client's MAC and the body.

*Replay.* Both sides bring a nonce.

*Roles.* A server may have several keys, one for each role. Which one the peer has shown decides what it may do; the
server answers by that same key, so that a peer learns nothing of the others and cannot be talked into another role.
A wrong key is compared with all of them.

What it does not stand: over plain TCP, someone in the middle who passes every byte on sees and may change
what follows the handshake. That takes TLS; its channel binding is covered by both MACs, so that a handshake
relayed between two TLS connections fails.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Callable, Mapping
from os import urandom

from registry.errors import AccessDenied, VersionMismatch

VERSION = 1

ROLES = ("read", "write", "admin")  # that keys give; each may what those before it may, see `_rights`

MESSAGE_LIMIT = 256  # multiprocessing's own, in both directions
PROOF_LIMIT = 16 * 1024 * 1024  # the proof brings the table of typeids

_LENGTH = struct.Struct("!i")

_CHALLENGE = b"#CHALLENGE#"
_WELCOME = b"#WELCOME#"
_FAILURE = b"#FAILURE#"
_NATIVE = b"#REGISTRY#"
_MAGIC = b"%b%d" % (_NATIVE, VERSION)
_DENIED = b"#DENIED#"
_OTHER_VERSION = b"#VERSION#"
_SECURED = b"#TLS#"
_TLS_HANDSHAKE = b"\x16\x03"  # how a client of TLS begins

_DIGEST_PREFIX = b"{sha256}"
_CHALLENGE_RANDOM = 40  # CPython's length since 3.12; more than the 20 that mean "MD5 only"
_NONCE_SIZE = 32
_MAC_SIZE = 32
_HELLO_SIZE = len(_MAGIC) + _NONCE_SIZE + _MAC_SIZE

# The digests that CPython accepts. A table, because the name comes from the peer.
_DIGESTS = {
    b"md5": "md5",
    b"sha256": "sha256",
    b"sha384": "sha384",
    b"sha3_256": "sha3_256",
    b"sha3_384": "sha3_384",
}
_MARK_RANDOM = 20  # of these bytes, in a challenge of ours to a stock server; the rest is a MAC over them
_MD5_SIZE = 16
_WITH_MD5 = "with MD5, which this server was told not to take; Python 3.12 and newer speak SHA-256"
_LEGACY_CHALLENGE_SIZE = 20


class NotNative(Exception):
    """Raised when what answers at an address is no server of ours.

    It may be a stock `multiprocessing` server, or anything else that listens. Speaking the stock protocol
    instead takes a new connection and a decision of the caller: whoever listens could bring this about, and
    would choose what a stock client signs.

    Attributes:
        reason: what the peer did.
        is_stock: whether that is what a stock server would have done.
    """

    def __init__(self, reason: str, *, is_stock: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_stock = is_stock


class NotStock(Exception):
    """Raised when what answers at an address is no stock `multiprocessing` server either.

    Attributes:
        reason: what the peer did.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ServerHandshake:
    """The server's side of one connection, until its peer is authenticated or refused.

    Attributes:
        outcome: ``None`` while it goes on, then ``"native"``, ``"stock"`` or ``"refused"``. After
            ``"native"`` the peer still waits for `accept`.
        role: whose key the peer has shown; empty until it has shown one.
        reason: why the peer was refused; `has_wrong_key` where it has shown another key.
        leftover: bytes that came behind the handshake; the first of the protocol that follows.
    """

    __slots__ = (
        "_authkey",
        "_binding",
        "_buffer",
        "_challenge",
        "_client",
        "_expects",
        "_keys",
        "_takes_md5",
        "has_wrong_key",
        "leftover",
        "outcome",
        "reason",
        "role",
    )

    def __init__(
        self, keys: Mapping[str, bytes], *, binding: bytes = b"", takes_md5: bool = True, random: bytes | None = None
    ) -> None:
        """Begin a handshake.

        Args:
            keys: the secrets that a client may know, by the roles that they give.
            binding: the channel binding of the TLS connection below; empty over anything else.
            takes_md5: whether stock clients may answer with MD5, as those of Python 3.11 and older do.
            random: the 40 bytes of the challenge, for tests.
        """
        if random is None:
            random = urandom(_CHALLENGE_RANDOM)
        self._keys = keys
        self._authkey = b""  # the one that the peer has shown
        self._binding = binding
        self._takes_md5 = takes_md5
        self._challenge = _DIGEST_PREFIX + random
        self._buffer = bytearray()
        self._client = b""
        self._expects = "answer"
        self.outcome: str | None = None
        self.role = ""
        self.reason = ""
        self.has_wrong_key = False
        self.leftover = b""

    def opening(self) -> bytes:
        """Return what the server sends before anything else."""
        return _framed(_CHALLENGE + self._challenge)

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the peer and return the bytes to send now, which may be none.

        No more than one message is kept between two calls, and a peer has two messages to be authenticated:
        what a stranger can make the server hold is bounded by the largest chunk the caller reads.

        Args:
            data: what was read; empty when the peer has closed.
        """
        if self.outcome is not None:
            if self.outcome != "refused":
                self.leftover += data
            return b""
        if not data:
            return self._refuse("the connection was closed during the handshake", b"")
        self._buffer += data
        answer = b""
        while self.outcome is None and len(self._buffer) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._buffer)
            if not 0 <= size <= MESSAGE_LIMIT:
                if self._buffer.startswith(_TLS_HANDSHAKE):
                    answer += self._refuse("it speaks TLS, and this address does not: tls:// does", b"")
                else:
                    answer += self._refuse(f"a message of {size} bytes before authentication")
                break
            end = _LENGTH.size + size
            if len(self._buffer) < end:
                break
            message = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            answer += self._message(message)
        if self.outcome is not None:
            self.leftover = b"" if self.outcome == "refused" else bytes(self._buffer)
            self._buffer.clear()
        return answer

    def accept(self, body: bytes) -> bytes:
        """Return the proof that answers a native client.

        Args:
            body: what the client is told with it, covered by the MAC.

        Raises:
            RuntimeError: the peer is not a native client.
            ValueError: the body is too large.
        """
        if self.outcome != "native":
            raise RuntimeError(f"only a native client is given a proof; this handshake's outcome is {self.outcome!r}")
        mac = _server_mac(self._authkey, self._challenge, self._client, self._binding, body)
        proof = _MAGIC + mac + body
        if len(proof) > PROOF_LIMIT:
            raise ValueError(f"the answer to a handshake has {len(proof)} bytes, more than {PROOF_LIMIT}")
        return _framed(proof)

    def _message(self, message: bytes) -> bytes:
        if self._expects == "answer":
            if message.startswith(_NATIVE):
                return self._hello(message)
            return self._stock_answer(message)
        if self._expects == "challenge":
            return self._stock_challenge(message)
        if message != _WELCOME:
            return self._refuse("the client did not accept our answer to its challenge")
        self.outcome = "stock"
        return b""

    def _hello(self, message: bytes) -> bytes:
        if not message.startswith(_MAGIC) or len(message) != _HELLO_SIZE:
            version = message[len(_NATIVE) : len(_NATIVE) + 8]
            return self._refuse(
                f"a client of protocol version {version!r}", _framed(b"%b%d" % (_OTHER_VERSION, VERSION))
            )
        nonce = message[len(_MAGIC) : -_MAC_SIZE]
        mac = message[-_MAC_SIZE:]
        if not self._find(mac, lambda key: _client_mac(key, self._challenge, nonce, self._binding)):
            return self._refuse("a native client with another key", _framed(_DENIED))
        self._client = message
        self.outcome = "native"
        return b""

    def _stock_answer(self, message: bytes) -> bytes:
        if self._binding:
            return self._refuse("a stock client, whose proof would not be bound to its TLS connection")
        digest, mac = _split_digest(message)
        if len(message) == _MD5_SIZE:
            digest, mac = "md5", message
        if digest is None:
            return self._refuse("the client's first message is no answer to the challenge")
        if digest == "md5" and not self._takes_md5:
            return self._refuse(f"a stock client that answers {_WITH_MD5}")
        if _stock_mac(b"", self._challenge, digest) is None:
            return self._refuse(f"a stock client that answers with {digest}, which this Python does not have (FIPS?)")
        # Over the whole challenge with its prefix, or a client could be talked into a weaker digest.
        if not self._find(mac, lambda key: _stock_mac(key, self._challenge, digest)):
            return self._refuse("a stock client with another key")
        self._expects = "challenge"
        return _framed(_WELCOME)

    def _stock_challenge(self, message: bytes) -> bytes:
        # Only here, to a peer that has shown the key, does the server sign what somebody else chose.
        challenge = message[len(_CHALLENGE) :]
        if not message.startswith(_CHALLENGE) or len(challenge) < _LEGACY_CHALLENGE_SIZE:
            return self._refuse("a stock client sent no challenge of its own")
        if len(challenge) == _LEGACY_CHALLENGE_SIZE:
            digest: str | None = "md5"
            prefix = b""
        else:
            digest, _ = _split_digest(challenge)
            prefix = b"{%b}" % digest.encode() if digest else b""
        if digest == "md5" and not self._takes_md5:
            return self._refuse(f"a stock client that wants an answer {_WITH_MD5}")
        mac = digest and _stock_mac(self._authkey, challenge, digest)
        if not mac:
            return self._refuse("a stock client asked for a digest that is not known here")
        self._expects = "welcome"
        return _framed(prefix + mac)

    def _find(self, mac: bytes, made_by: Callable[[bytes], bytes | None]) -> bool:
        """Find the key by which a peer has made its MAC, and with it the role. False: it is none of ours."""
        for role, key in self._keys.items():
            expected = made_by(key)
            if expected is not None and hmac.compare_digest(expected, mac):
                self.role, self._authkey = role, key
                return True
        self.has_wrong_key = True
        return False

    def _refuse(self, reason: str, answer: bytes | None = None) -> bytes:
        self.outcome = "refused"
        self.reason = reason
        return _framed(_FAILURE) if answer is None else answer


class ClientHandshake:
    """A native client's side of one connection.

    Attributes:
        done: true once the server has proved that it knows the key.
        body: what the server told with its proof.
        leftover: bytes that came behind the proof.
    """

    __slots__ = (
        "_authkey",
        "_binding",
        "_buffer",
        "_challenge",
        "_hello",
        "_nonce",
        "body",
        "done",
        "leftover",
    )

    def __init__(self, authkey: bytes, *, binding: bytes = b"", random: bytes | None = None) -> None:
        """Begin a handshake; the server speaks first.

        Args:
            authkey: the secret that both sides know.
            binding: the channel binding of the TLS connection below; empty over anything else.
            random: the 32 bytes of the client's nonce, for tests.
        """
        self._authkey = authkey
        self._binding = binding
        self._nonce = urandom(_NONCE_SIZE) if random is None else random
        self._buffer = bytearray()
        self._challenge = b""
        self._hello = b""
        self.done = False
        self.body = b""
        self.leftover = b""

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the server and return the bytes to send now, which may be none.

        Args:
            data: what was read; empty when the server has closed.

        Raises:
            NotNative: what listens there is no server of ours.
            AccessDenied: the server has another key, or what answers does not know ours.
            VersionMismatch: the server speaks another version of the protocol.
        """
        if self.done:
            self.leftover += data
            return b""
        if not data:
            raise NotNative("it closed the connection during the handshake")
        self._buffer += data
        answer = b""
        while not self.done and len(self._buffer) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._buffer)
            # Judged by its length alone, so that a server of another kind is told at its first bytes.
            if not 0 <= size <= (PROOF_LIMIT if self._hello else MESSAGE_LIMIT):
                raise NotNative(f"its first bytes are of another protocol: {bytes(self._buffer[:40])!r}")
            end = _LENGTH.size + size
            if len(self._buffer) < end:
                break
            message = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            if self._hello:
                self._proof(message)
            else:
                answer = self._answer(message)
        if self.done:
            self.leftover = bytes(self._buffer)
            self._buffer.clear()
        return answer

    def _answer(self, message: bytes) -> bytes:
        challenge = message[len(_CHALLENGE) :]
        if message == _SECURED:
            raise NotNative("it speaks TLS only: write tls:// for tcp://")
        if (
            not message.startswith(_CHALLENGE + _DIGEST_PREFIX)
            or len(challenge) != len(_DIGEST_PREFIX) + _CHALLENGE_RANDOM
        ):
            if message.startswith(_CHALLENGE):
                raise NotNative("it opened like a stock multiprocessing server of another Python", is_stock=True)
            raise NotNative("its first message is of another protocol")
        self._challenge = challenge
        mac = _client_mac(self._authkey, challenge, self._nonce, self._binding)
        self._hello = _MAGIC + self._nonce + mac
        return _framed(self._hello)

    def _proof(self, message: bytes) -> None:
        if message == _FAILURE:
            raise NotNative("it answered like a stock multiprocessing server", is_stock=True)
        if message == _DENIED:
            raise AccessDenied(
                "the server has another key than this process. Give the one it was started with: authkey=, "
                "the file that REGISTRY_AUTHKEY_FILE names, or the key file in its directory"
                + ("; or else something on the way opens TLS and encrypts it anew" if self._binding else "")
            )
        theirs = message[len(_OTHER_VERSION) :]
        if message.startswith(_OTHER_VERSION) and theirs.isdigit() and len(theirs) < 8:
            raise VersionMismatch(str(VERSION), theirs.decode())
        head = len(_MAGIC) + _MAC_SIZE
        body = message[head:]
        expected = _server_mac(self._authkey, self._challenge, self._hello, self._binding, body)
        if not message.startswith(_MAGIC) or not hmac.compare_digest(expected, message[len(_MAGIC) : head]):
            raise AccessDenied(
                "what answers at this address does not know the key, so it is not the server it claims "
                "to be. Nothing was sent to it; find out what listens there"
            )
        self.body = body
        self.done = True


class StockHandshake:
    """A client's side of one connection to a stock server, for a user who has asked for that.

    It answers with SHA-256 wherever the server knows it, also on a Python whose own `multiprocessing` would use MD5.

    What nothing can mend: whoever listens there chooses what is signed, and can use the answer where the key opens
    something else, while that waits. But a listener without the key cannot have *our* challenge answered by another
    client of this package: those know each other's challenges, which are half random and half a MAC.

    Attributes:
        done: true once each side has shown the key.
        leftover: bytes that came behind the handshake.
    """

    __slots__ = ("_authkey", "_buffer", "_challenge", "_expects", "done", "leftover")

    def __init__(self, authkey: bytes) -> None:
        """Begin a handshake; the server speaks first.

        Args:
            authkey: the secret that both sides know.
        """
        self._authkey = authkey
        self._buffer = bytearray()
        self._challenge = b""
        self._expects = "challenge"
        self.done = False
        self.leftover = b""

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the server and return the bytes to send now, which may be none.

        Args:
            data: what was read; empty when the server has closed.

        Raises:
            NotStock: what listens there is no stock server.
            AccessDenied: the server has another key, or what answers does not know ours.
        """
        if self.done:
            self.leftover += data
            return b""
        if not data:
            raise NotStock("it closed the connection during the handshake")
        self._buffer += data
        answer = b""
        while not self.done and len(self._buffer) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._buffer)
            if not 0 <= size <= MESSAGE_LIMIT:
                raise NotStock(f"its first bytes are of another protocol: {bytes(self._buffer[:40])!r}")
            end = _LENGTH.size + size
            if len(self._buffer) < end:
                break
            message = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            answer += self._message(message)
        if self.done:
            self.leftover = bytes(self._buffer)
            self._buffer.clear()
        return answer

    def _message(self, message: bytes) -> bytes:
        if self._expects == "challenge":
            self._expects = "welcome"
            return _framed(self._answer(message))
        if self._expects == "welcome":
            if message != _WELCOME:
                raise AccessDenied(
                    "the server has another key than this process, or does not take what this process answers with. "
                    "Give the key that the server was started with: authkey=, or the file that "
                    "REGISTRY_AUTHKEY_FILE names"
                )
            self._expects = "answer"
            self._challenge = _marked_challenge(self._authkey)
            return _framed(_CHALLENGE + self._challenge)
        digest, mac = ("md5", message) if len(message) == _MD5_SIZE else _split_digest(message)
        expected = digest and _stock_mac(self._authkey, self._challenge, digest)
        if expected is None and digest is not None:
            raise AccessDenied(f"the server answers with {digest}, which this Python does not have (FIPS?)")
        if not expected or not hmac.compare_digest(expected, mac):
            raise AccessDenied(
                "what answers at this address does not know the key, so it is not the server it claims to be; "
                "find out what listens there"
            )
        self.done = True
        return _framed(_WELCOME)

    def _answer(self, message: bytes) -> bytes:
        challenge = message[len(_CHALLENGE) :]
        if not message.startswith(_CHALLENGE) or len(challenge) < _LEGACY_CHALLENGE_SIZE:
            raise NotStock(f"its first message is of another protocol: {message[:40]!r}")
        if _is_marked(self._authkey, challenge):
            raise AccessDenied(
                "what answers at this address sends us the challenge of another client, to use the answer as its own; "
                "find out what listens there"
            )
        digest, _ = _split_digest(challenge)
        if len(challenge) == _LEGACY_CHALLENGE_SIZE:
            mac = _stock_mac(self._authkey, challenge, "md5")
            if mac is None:
                raise AccessDenied(
                    "the server is of Python 3.11 or older and knows MD5 only, which this Python does not have "
                    "(FIPS?); run the server with Python 3.12 or newer"
                )
            return mac
        mac = None if digest is None else _stock_mac(self._authkey, challenge, digest)
        if digest is None or mac is None:
            raise NotStock("it asks for a digest that this Python does not have")
        return b"{%b}%b" % (digest.encode(), mac)


def secured() -> bytes:
    """Return what a server that speaks TLS only says to who does not."""
    return _framed(_SECURED)


def _framed(message: bytes) -> bytes:
    return _LENGTH.pack(len(message)) + message


def _side_key(authkey: bytes, side: bytes) -> bytes:
    """Derive the key of one side (HKDF-SHA256: extract, then one block of expand)."""
    extracted = hmac.digest(b"shared-registry handshake", authkey, "sha256")
    return hmac.digest(extracted, b"%b, version %d\x01" % (side, VERSION), "sha256")


def _mac(key: bytes, *fields: bytes) -> bytes:
    # Every field with its length: no two lists of fields give the same message.
    return hmac.digest(key, b"".join(len(field).to_bytes(8, "big") + field for field in fields), "sha256")


def _client_mac(authkey: bytes, challenge: bytes, nonce: bytes, binding: bytes) -> bytes:
    return _mac(_side_key(authkey, b"client"), _MAGIC, challenge, nonce, binding)


def _server_mac(authkey: bytes, challenge: bytes, hello: bytes, binding: bytes, body: bytes) -> bytes:
    return _mac(_side_key(authkey, b"server"), _MAGIC, challenge, hello, binding, body)


def _marked_challenge(authkey: bytes) -> bytes:
    """Return a challenge that clients of this package with the same key know for one of theirs."""
    random = urandom(_MARK_RANDOM)
    return _DIGEST_PREFIX + random + _mark(authkey, random)


def _is_marked(authkey: bytes, challenge: bytes) -> bool:
    body = challenge[len(_DIGEST_PREFIX) :]
    return hmac.compare_digest(_mark(authkey, body[:_MARK_RANDOM]), body[_MARK_RANDOM:])


def _mark(authkey: bytes, random: bytes) -> bytes:
    return _mac(_side_key(authkey, b"challenge of a stock client"), random)[: _CHALLENGE_RANDOM - _MARK_RANDOM]


def _split_digest(message: bytes) -> tuple[str | None, bytes]:
    """Split ``{digest}rest``; the digest is ``None`` where there is none that is known."""
    name, brace, rest = message[1:].partition(b"}")
    if message[:1] != b"{" or not brace:
        return None, message
    return _DIGESTS.get(name), rest


def _stock_mac(authkey: bytes, message: bytes, digest: str) -> bytes | None:
    """Sign as `multiprocessing` does; ``None`` where this Python lacks the digest (MD5 under FIPS)."""
    try:
        return hmac.new(authkey, message, digest).digest()
    except ValueError:
        return None
