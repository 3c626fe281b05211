"""The handshakes: native, stock, and what each refuses."""

from __future__ import annotations

import glob
import hashlib
import hmac
import os
import socket
import struct
import subprocess
import threading
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import running

from registry._auth import PROOF_LIMIT, ClientHandshake, NotNative, NotStock, ServerHandshake, StockHandshake, secured
from registry.errors import AccessDenied, VersionMismatch

KEY = b"the key of these tests"
KEYS = {"admin": KEY, "write": b"the key of writers", "read": b"the key of readers"}


def framed(message: bytes) -> bytes:
    """Frame as multiprocessing does."""
    return struct.pack("!i", len(message)) + message


def messages(data: bytes) -> list[bytes]:
    """Take frames apart; there must be no rest."""
    found = []
    while data:
        (size,) = struct.unpack_from("!i", data)
        assert len(data) >= 4 + size
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


def shake(server: ServerHandshake, client: ClientHandshake, body: bytes = b"table") -> None:
    """Run a whole native handshake."""
    assert server.receive(client.receive(server.opening())) == b""
    assert server.outcome == "native"
    assert client.receive(server.accept(body)) == b""


def test_both_sides_with_one_key_agree() -> None:
    """A native client is let in and gets the body that the server gave."""
    server, client = ServerHandshake(KEYS), ClientHandshake(KEY)
    shake(server, client, b"the table of typeids" * 1000)
    assert client.done
    assert client.body == b"the table of typeids" * 1000
    assert (client.leftover, server.leftover) == (b"", b"")


@pytest.mark.parametrize("role", KEYS)
def test_the_key_that_a_client_has_shown_tells_its_role(role: str) -> None:
    """A server with several keys answers by the one that was shown, which is all that the client knows of."""
    server, client = ServerHandshake(KEYS), ClientHandshake(KEYS[role])
    assert server.role == ""
    shake(server, client)
    assert (server.role, server.has_wrong_key, client.body) == (role, False, b"table")


@pytest.mark.parametrize("role", KEYS)
def test_the_proof_of_one_role_is_none_of_another(role: str) -> None:
    """Whoever knows the key of readers cannot pass for the server to those who have another one."""
    other = next(key for name, key in KEYS.items() if name != role)
    server, rogue, client = ServerHandshake(KEYS), ServerHandshake({"read": other}), ClientHandshake(KEYS[role])
    rogue._challenge = server._challenge
    hello = client.receive(server.opening())
    rogue._authkey, rogue._client, rogue.outcome = other, messages(hello)[0], "native"
    with pytest.raises(AccessDenied, match="does not know the key"):
        client.receive(rogue.accept(b"table"))


def test_a_key_of_no_role_is_refused_by_a_server_of_several() -> None:
    """A wrong key is compared with each of them, and gives no role."""
    server, client = ServerHandshake(KEYS), ClientHandshake(b"the key of nobody")
    with pytest.raises(AccessDenied, match="another key"):
        client.receive(server.receive(client.receive(server.opening())))
    assert (server.role, server.has_wrong_key, server.outcome) == ("", True, "refused")


def test_the_opening_is_a_stock_challenge() -> None:
    """What the server says first is what CPython's own server says, so that stock clients understand it."""
    (message,) = messages(ServerHandshake(KEYS).opening())
    assert message.startswith(b"#CHALLENGE#{sha256}")
    assert len(message) == len(b"#CHALLENGE#{sha256}") + 40


def test_the_hello_fits_a_stock_servers_limit() -> None:
    """A stock server reads 256 bytes at most; the hello has fewer."""
    (hello,) = messages(ClientHandshake(KEY).receive(ServerHandshake(KEYS).opening()))
    assert hello.startswith(b"#REGISTRY#1")
    assert len(hello) == 75


@given(st.binary(max_size=300), st.binary(max_size=64), st.data())
def test_bytes_may_come_in_any_pieces(body: bytes, behind: bytes, data: st.DataObject) -> None:
    """However the stream is cut, both sides end alike, and what comes behind is left over."""

    def pieces(stream: bytes) -> list[bytes]:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
        parts = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)])]
        return [part for part in parts if part]

    server, client = ServerHandshake(KEYS), ClientHandshake(KEY)
    hello = b"".join(client.receive(part) for part in pieces(server.opening()))
    assert b"".join(server.receive(part) for part in pieces(hello + behind)) == b""
    assert server.outcome == "native"
    assert server.leftover == behind
    assert b"".join(client.receive(part) for part in pieces(server.accept(body) + behind)) == b""
    assert client.done
    assert (client.body, client.leftover) == (body, behind)


def test_a_client_with_another_key_is_denied() -> None:
    """The server says so to a native client in its own words, and the client names the cure."""
    server, client = ServerHandshake(KEYS), ClientHandshake(b"another")
    answer = server.receive(client.receive(server.opening()))
    assert server.outcome == "refused"
    assert "another key" in server.reason
    with pytest.raises(AccessDenied, match="authkey="):
        client.receive(answer)
    assert not client.done


def test_a_refused_peer_is_not_listened_to() -> None:
    """What comes after a refusal is dropped, not collected."""
    server = ServerHandshake(KEYS)
    server.receive(framed(b"nonsense"))
    assert server.outcome == "refused"
    assert server.receive(b"more") == b""
    assert server.leftover == b""


def test_only_a_native_client_is_given_a_proof() -> None:
    """To ask for a proof in any other state is the caller's mistake."""
    server = ServerHandshake(KEYS)
    with pytest.raises(RuntimeError, match="None"):
        server.accept(b"")
    server.receive(b"")
    with pytest.raises(RuntimeError, match="refused"):
        server.accept(b"")


def test_a_proof_has_a_limit() -> None:
    """A body that the client would refuse is not sent."""
    server = ServerHandshake(KEYS)
    server.receive(ClientHandshake(KEY).receive(server.opening()))
    with pytest.raises(ValueError, match="more than"):
        server.accept(bytes(PROOF_LIMIT))


def test_the_handshake_is_a_function_of_its_random_bytes() -> None:
    """With given nonces the bytes are always the same, also those of a release to come."""
    server = ServerHandshake(KEYS, random=bytes(40))
    client = ClientHandshake(KEY, random=bytes(32))
    hello = client.receive(server.opening())
    server.receive(hello)
    digest = hashlib.sha256(server.opening() + hello + server.accept(b"body")).hexdigest()
    assert digest == "20058e1b9be7f840d4de9a85105e44c7306f37162413fb95fb95c4cdf26e9121"


# What a rogue may try


def test_the_hello_reflected_is_no_proof() -> None:
    """A listener without the key that sends the client's own bytes back is found out."""
    client = ClientHandshake(KEY)
    hello = client.receive(ServerHandshake(KEYS).opening())
    with pytest.raises(AccessDenied, match="does not know the key"):
        client.receive(hello)


def test_the_proof_reflected_is_no_hello() -> None:
    """A client without the key that sends a server's proof to it is refused."""
    first, client = ServerHandshake(KEYS), ClientHandshake(KEY)
    first.receive(client.receive(first.opening()))
    proof = first.accept(b"")
    for message in (proof, framed(messages(proof)[0].ljust(75, b"\0"))):
        second = ServerHandshake(KEYS)
        second.receive(message)
        assert second.outcome == "refused"


def test_a_hello_serves_once() -> None:
    """What was overheard opens no second connection: each server challenge is new."""
    first = ServerHandshake(KEYS)
    hello = ClientHandshake(KEY).receive(first.opening())
    second = ServerHandshake(KEYS)
    second.receive(hello)
    assert second.outcome == "refused"


def test_a_proof_serves_once() -> None:
    """A proof that was overheard convinces no second client: each hello is new."""
    server, client = ServerHandshake(KEYS, random=bytes(40)), ClientHandshake(KEY)
    server.receive(client.receive(server.opening()))
    proof = server.accept(b"")
    other = ClientHandshake(KEY)
    other.receive(server.opening())
    with pytest.raises(AccessDenied):
        other.receive(proof)


def test_the_body_is_covered() -> None:
    """A table that was changed on the way is not believed."""
    server, client = ServerHandshake(KEYS), ClientHandshake(KEY)
    server.receive(client.receive(server.opening()))
    with pytest.raises(AccessDenied):
        client.receive(server.accept(b"table")[:-1] + b"E")


def test_a_relay_between_two_tls_connections_fails() -> None:
    """With channel binding a handshake that somebody in the middle passes on is refused at both ends."""
    server, client = ServerHandshake(KEYS, binding=b"outer"), ClientHandshake(KEY, binding=b"inner")
    server.receive(client.receive(server.opening()))
    assert server.outcome == "refused"
    server, client = ServerHandshake(KEYS, binding=b"one"), ClientHandshake(KEY, binding=b"one")
    shake(server, client)
    assert client.done


def test_a_stock_proof_that_is_not_bound_is_refused() -> None:
    """Over TLS it could come from another connection; the right answer to the challenge does not help."""
    server = ServerHandshake(KEY, binding=b"one")
    (challenge,) = messages(server.opening())
    mac = hmac.new(KEY, challenge[len(b"#CHALLENGE#") :], "sha256").digest()
    assert messages(server.receive(framed(b"{sha256}" + mac))) == [b"#FAILURE#"]
    assert server.reason == "a stock client, whose proof would not be bound to its TLS connection"


def test_tls_and_what_is_none_are_told_apart() -> None:
    """A client of TLS is no native client with a strange length, and a server of TLS only is no stranger."""
    server = ServerHandshake(KEY)
    assert server.receive(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03") == b""
    assert (server.outcome, server.reason) == ("refused", "it speaks TLS, and this address does not: tls:// does")
    with pytest.raises(NotNative, match="it speaks TLS only: write tls:// for tcp://"):
        ClientHandshake(KEY).receive(secured())


def test_a_native_client_signs_nothing_for_a_stock_listener() -> None:
    """Relayed to a server as a stock client's answer, the hello of a native client opens nothing."""
    server, client = ServerHandshake(KEYS), ClientHandshake(KEY)
    (challenge,) = messages(server.opening())
    (hello,) = messages(client.receive(server.opening()))
    nonce_and_mac = hello[len(b"#REGISTRY#1") :]
    for digest in ("md5", "sha256", "sha384", "sha3_256", "sha3_384"):
        stock = hmac.new(KEY, challenge[len(b"#CHALLENGE#") :], digest).digest()
        assert stock not in hello
    for answer in (nonce_and_mac[32:], b"{sha256}" + nonce_and_mac[32:], nonce_and_mac[32:48]):
        rogue = ServerHandshake(KEYS, random=challenge[-40:])
        assert messages(rogue.receive(framed(answer))) == [b"#FAILURE#"]
        assert rogue.outcome == "refused"


@pytest.mark.parametrize("label", [b"client", b"server"])
def test_no_stock_answer_is_a_side_key(label: bytes) -> None:
    """A stock client signs what a rogue listener chooses; that gives no key of ours."""
    from registry._auth import _side_key

    key = _side_key(KEY, label)
    guesses = (label, b"shared-registry handshake", b"%b, version 1\x01" % label)
    assert key not in [hmac.digest(KEY, guess, "sha256") for guess in guesses]


@given(st.binary(max_size=600))
def test_garbage_is_refused_and_not_hoarded(data: bytes) -> None:
    """Nothing but a handshake gets in, and a stranger makes the server keep one message at most."""
    server = ServerHandshake(KEYS)
    for start in range(0, len(data), 50):
        server.receive(data[start : start + 50])
    assert server.outcome in (None, "refused")
    assert len(server._buffer) < 4 + 256
    assert server.leftover == b""


@pytest.mark.parametrize("size", [-1, -2147483648, 257, 2147483647])
def test_a_length_out_of_bounds_is_refused_at_once(size: int) -> None:
    """A stranger's length is judged before the bytes that it promises."""
    server = ServerHandshake(KEYS)
    assert messages(server.receive(struct.pack("!i", size))) == [b"#FAILURE#"]
    assert server.outcome == "refused"
    assert str(size) in server.reason


def test_a_peer_that_closes_is_told_apart() -> None:
    """The end of the stream ends the handshake on both sides."""
    server = ServerHandshake(KEYS)
    assert server.receive(b"") == b""
    assert server.outcome == "refused"
    assert "closed" in server.reason
    with pytest.raises(NotNative, match="closed"):
        ClientHandshake(KEY).receive(b"")


# Versions and other servers


def test_another_version_is_named_on_both_sides() -> None:
    """A client of a later protocol learns the server's version, and the other way round."""
    server = ServerHandshake(KEYS)
    answer = server.receive(framed(b"#REGISTRY#2" + bytes(64)))
    assert server.outcome == "refused"
    assert messages(answer) == [b"#VERSION#1"]
    client = ClientHandshake(KEY)
    client.receive(ServerHandshake(KEYS).opening())
    with pytest.raises(VersionMismatch, match="version 7") as caught:
        client.receive(framed(b"#VERSION#7"))
    assert (caught.value.ours, caught.value.theirs) == ("1", "7")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"#CHALLENGE#" + bytes(20), "another Python"),
        (b"#CHALLENGE#{md5}" + bytes(40), "another Python"),
        (b"#CHALLENGE#{sha256}" + bytes(39), "another Python"),
        (b"#WELCOME#", "another protocol"),
        (b"", "another protocol"),
    ],
)
def test_a_server_of_another_kind_is_not_answered(message: bytes, reason: str) -> None:
    """Only the very challenge of our own server gets an answer."""
    with pytest.raises(NotNative, match=reason) as caught:
        ClientHandshake(KEY).receive(framed(message))
    assert caught.value.is_stock == message.startswith(b"#CHALLENGE#")


@pytest.mark.parametrize("banner", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 400 Bad Request\r\n", b"\xff\xff\xff\xff"])
def test_a_banner_is_told_at_its_first_bytes(banner: bytes) -> None:
    """Something else that listens there is not waited for."""
    with pytest.raises(NotNative, match="another protocol") as caught:
        ClientHandshake(KEY).receive(banner)
    assert repr(banner) in caught.value.reason
    assert not caught.value.is_stock


@pytest.mark.parametrize("message", [b"#WELCOME#", b"", b"#REGISTRY#1", b"#VERSION#", b"#VERSION#\x1b[2J"])
def test_anything_but_a_proof_is_a_rogue(message: bytes) -> None:
    """Once the hello is sent only a valid proof is believed."""
    client = ClientHandshake(KEY)
    client.receive(ServerHandshake(KEYS).opening())
    with pytest.raises(AccessDenied):
        client.receive(framed(message))


# Against multiprocessing itself


def stock_client(sock: socket.socket, key: bytes, outcome: list[object]) -> None:
    """Authenticate as `multiprocessing.connection.Client` does, in a thread of its own."""
    with Connection(sock.detach()) as connection:
        try:
            answer_challenge(connection, key)
            deliver_challenge(connection, key)
            connection.send_bytes(b"the first request")
            outcome.append("in")
        except (AuthenticationError, EOFError, OSError) as error:
            outcome.append(error)


def serve(sock: socket.socket, server: ServerHandshake) -> None:
    """Run a server's handshake over a blocking socket."""
    sock.sendall(server.opening())
    while server.outcome is None:
        answer = server.receive(sock.recv(4096))
        if answer:  # even nothing cannot be sent to a client that has said all and gone
            sock.sendall(answer)
    while server.outcome == "stock" and len(server.leftover) < 21:
        server.receive(sock.recv(4096))


@pytest.mark.parametrize(("key", "outcome"), [(KEY, "stock"), (b"another", "refused")])
def test_a_stock_client_of_this_python(key: bytes, outcome: str) -> None:
    """The running Python's own client is served as its own server would, or refused."""
    ours, theirs = socket.socketpair()
    result: list[object] = []
    thread = threading.Thread(target=stock_client, args=(theirs, key, result))
    thread.start()
    with ours:
        server = ServerHandshake(KEYS)
        serve(ours, server)
    thread.join()
    assert server.outcome == outcome
    if outcome == "stock":
        assert result == ["in"]
        assert server.leftover == framed(b"the first request")
    else:
        assert isinstance(result[0], AuthenticationError)


def test_a_stock_server_of_this_python_is_not_native() -> None:
    """The running Python's own server refuses the hello, and the client says what it met."""
    ours, theirs = socket.socketpair()

    def stock_server() -> None:
        with Connection(theirs.detach()) as connection, pytest.raises((AuthenticationError, EOFError)):
            deliver_challenge(connection, KEY)

    thread = threading.Thread(target=stock_server)
    thread.start()
    client = ClientHandshake(KEY)
    with ours, pytest.raises(NotNative, match=r"stock multiprocessing server|another Python"):
        while not client.done:
            ours.sendall(client.receive(ours.recv(4096)))
    thread.join()


STOCK = f"""
import os, sys
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
connection = Connection(int(sys.argv[1]))
answer_challenge(connection, {KEY!r})
deliver_challenge(connection, {KEY!r})
connection.send_bytes(b"the first request")
"""


def other_pythons() -> list[str]:
    """Find one CPython of each minor version that pyenv has here."""
    root = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    # Unlike pathlib's, this glob finds nothing where it may not look.
    paths = map(Path, glob.glob(f"{root}/versions/3.*.*/bin/python3"))
    found = {path.parts[-3].rpartition(".")[0]: str(path) for path in paths}
    return [found[version] for version in sorted(found)]


@pytest.mark.parametrize("python", other_pythons())
def test_stock_clients_of_other_pythons(python: str) -> None:
    """Clients from the days of MD5 to those of today get in."""
    ours, theirs = socket.socketpair()
    with ours:
        ours.settimeout(30)
        command = [python, "-c", STOCK, str(theirs.fileno())]
        with theirs:
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        try:
            server = ServerHandshake(KEYS)
            serve(ours, server)
        finally:
            assert process.wait(30) == 0
    assert server.outcome == "stock"
    assert server.leftover == framed(b"the first request")


# Stock messages one by one


def challenged() -> tuple[ServerHandshake, bytes]:
    """Return a server and the challenge that its answers must sign."""
    server = ServerHandshake(KEYS)
    return server, messages(server.opening())[0][len(b"#CHALLENGE#") :]


@pytest.mark.parametrize("role", KEYS)
@pytest.mark.parametrize("digest", ["md5", "sha256", "sha384", "sha3_256", "sha3_384"])
def test_each_digest_of_multiprocessing_is_taken(digest: str, role: str) -> None:
    """An answer is believed under each of the names that CPython accepts, by the key of each role."""
    server, challenge = challenged()
    key = KEYS[role]
    mac = hmac.new(key, challenge, digest).digest()
    assert messages(server.receive(framed(b"{%b}%b" % (digest.encode(), mac)))) == [b"#WELCOME#"]
    assert server.outcome is None
    own = b"{%b}" % digest.encode() + bytes(40)
    (answer,) = messages(server.receive(framed(b"#CHALLENGE#" + own)))
    assert answer == b"{%b}%b" % (digest.encode(), hmac.new(key, own, digest).digest())
    assert server.role == role
    assert server.receive(framed(b"#WELCOME#")) == b""
    assert server.outcome == "stock"


@pytest.mark.parametrize("prefix", [b"", b"{md5}"])
def test_md5_can_be_turned_off(prefix: bytes) -> None:
    """A right answer with MD5 is refused where the operator says so, and the reason tells who may come."""
    server = ServerHandshake(KEYS, takes_md5=False)
    challenge = messages(server.opening())[0][len(b"#CHALLENGE#") :]
    answer = prefix + hmac.new(KEY, challenge, "md5").digest()
    assert messages(server.receive(framed(answer))) == [b"#FAILURE#"]
    assert server.outcome == "refused"
    assert not server.has_wrong_key
    assert server.reason == (
        "a stock client that answers with MD5, which this server was told not to take; "
        "Python 3.12 and newer speak SHA-256"
    )


@pytest.mark.parametrize("own", [bytes(20), b"{md5}" + bytes(40)])
def test_nothing_is_signed_with_md5_where_it_is_off(own: bytes) -> None:
    """A client that answers with SHA-256 and then wants MD5 of us gets none; with SHA-256 it is served."""
    for wanted, outcome in ((own, "refused"), (b"{sha256}" + bytes(40), None)):
        server = ServerHandshake(KEYS, takes_md5=False)
        challenge = messages(server.opening())[0][len(b"#CHALLENGE#") :]
        answer = b"{sha256}" + hmac.new(KEY, challenge, "sha256").digest()
        assert messages(server.receive(framed(answer))) == [b"#WELCOME#"]
        (said,) = messages(server.receive(framed(b"#CHALLENGE#" + wanted)))
        assert server.outcome == outcome
        assert (said == b"#FAILURE#") == (outcome == "refused")
    assert "MD5" not in server.reason


def without_md5(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this Python refuse MD5, as one does whose OpenSSL is in FIPS mode."""
    new = hmac.new

    def fips(key: bytes, message: bytes, digest: str) -> hmac.HMAC:
        if digest == "md5":
            raise ValueError("[digital envelope routines] unsupported")
        return new(key, message, digest)

    monkeypatch.setattr(hmac, "new", fips)


def test_a_python_without_md5_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old client at a server in FIPS mode is refused with the reason, and no exception."""
    server, challenge = challenged()
    answer = hmac.new(KEY, challenge, "md5").digest()
    without_md5(monkeypatch)
    assert messages(server.receive(framed(answer))) == [b"#FAILURE#"]
    assert server.reason == "a stock client that answers with md5, which this Python does not have (FIPS?)"


@pytest.mark.parametrize("digest", ["sha1", "sha512", "blake2b", ""])
def test_an_unknown_digest_is_refused(digest: str) -> None:
    """A name that is not in the table is not looked up anywhere, even with a right answer."""
    server, challenge = challenged()
    mac = hmac.new(KEY, challenge, digest or "sha256").digest()
    assert messages(server.receive(framed(b"{%b}%b" % (digest.encode(), mac)))) == [b"#FAILURE#"]
    assert server.outcome == "refused"


def test_the_answer_covers_the_prefix() -> None:
    """An answer over the random bytes alone, which a downgraded client would give, is refused."""
    server, challenge = challenged()
    server.receive(framed(hmac.new(KEY, challenge[len(b"{sha256}") :], "md5").digest()))
    assert server.outcome == "refused"


def authenticated() -> ServerHandshake:
    """Return a server that waits for a stock client's own challenge."""
    server, challenge = challenged()
    server.receive(framed(hmac.new(KEY, challenge, "md5").digest()))
    assert server.outcome is None
    return server


def test_a_legacy_challenge_is_answered_as_then() -> None:
    """Twenty bytes mean MD5 without a prefix."""
    (answer,) = messages(authenticated().receive(framed(b"#CHALLENGE#" + bytes(20))))
    assert answer == hmac.new(KEY, bytes(20), "md5").digest()


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"#WELCOME#",
        b"#CHALLENGE#",
        b"#CHALLENGE#" + bytes(19),
        b"#CHALLENGE#" + bytes(40),
        b"#CHALLENGE#{sha1}" + bytes(40),
    ],
)
def test_no_other_challenge_is_answered(message: bytes) -> None:
    """The server signs challenges as multiprocessing makes them, and nothing else."""
    server = authenticated()
    assert messages(server.receive(framed(message))) == [b"#FAILURE#"]
    assert server.outcome == "refused"


def test_nothing_is_signed_for_a_stranger() -> None:
    """A peer that sends its challenge without an answer first gets nothing to use elsewhere."""
    server, _ = challenged()
    assert messages(server.receive(framed(b"#CHALLENGE#" + bytes(20)))) == [b"#FAILURE#"]


def test_a_client_that_does_not_accept_us_is_refused() -> None:
    """The last word of a stock client must be its welcome."""
    server = authenticated()
    server.receive(framed(b"#CHALLENGE#" + bytes(20)))
    server.receive(framed(b"#FAILURE#"))
    assert server.outcome == "refused"
    assert "did not accept" in server.reason


def test_an_impostor_cannot_use_two_connections() -> None:
    """One connection's challenge brought to another as a client's own is not answered."""
    first, challenge = challenged()
    second, _ = challenged()
    assert messages(second.receive(framed(b"#CHALLENGE#" + challenge))) == [b"#FAILURE#"]
    assert first.outcome is None


# Our client at a stock server


def stock_server(sock: socket.socket, key: bytes, outcome: list[object]) -> None:
    """Authenticate as a stock listener does, in a thread of its own."""
    with Connection(sock.detach()) as connection:
        try:
            deliver_challenge(connection, key)
            answer_challenge(connection, key)
            connection.send_bytes(b"the first answer")
            outcome.append("in")
        except (AuthenticationError, EOFError, OSError) as error:
            outcome.append(error)


def at_a_stock_server(key: bytes) -> tuple[StockHandshake, list[object]]:
    """Run our side against the running Python's own listener, as far as it goes."""
    ours, theirs = socket.socketpair()
    outcome: list[object] = []
    client = StockHandshake(KEY)
    with ours, running(lambda: stock_server(theirs, key, outcome)):
        while not client.done or len(client.leftover) < 20:
            answer = client.receive(ours.recv(4096))
            if answer:
                ours.sendall(answer)
    return client, outcome


def test_our_client_is_let_in_by_a_stock_server() -> None:
    """Each side shows the key, and what follows is kept."""
    client, outcome = at_a_stock_server(KEY)
    assert outcome == ["in"]
    assert client.leftover == framed(b"the first answer")


def test_another_key_at_a_stock_server_is_told() -> None:
    """The server's one word for it becomes an error with a cure."""
    with pytest.raises(AccessDenied, match="has another key than this process"):
        at_a_stock_server(b"another")


def asked(challenge: bytes) -> list[bytes]:
    """Return what our client answers to a challenge."""
    return messages(StockHandshake(KEY).receive(framed(b"#CHALLENGE#" + challenge)))


@pytest.mark.parametrize("digest", ["md5", "sha256", "sha384", "sha3_256", "sha3_384"])
def test_each_side_speaks_the_digest_of_the_other(digest: str) -> None:
    """Our answer is of the digest that is asked for, and theirs of any that we know."""
    challenge = b"{%b}" % digest.encode() + bytes(40)
    client = StockHandshake(KEY)
    (answer,) = messages(client.receive(framed(b"#CHALLENGE#" + challenge)))
    assert answer == b"{%b}" % digest.encode() + hmac.new(KEY, challenge, digest).digest()
    (own,) = messages(client.receive(framed(b"#WELCOME#")))
    mac = hmac.new(KEY, own[len(b"#CHALLENGE#") :], digest).digest()
    assert messages(client.receive(framed(b"{%b}" % digest.encode() + mac))) == [b"#WELCOME#"]
    assert client.done


def test_an_old_server_is_spoken_to_as_then() -> None:
    """Twenty bytes mean MD5 without a prefix; a bare MD5 answer is taken."""
    client = StockHandshake(KEY)
    assert messages(client.receive(framed(b"#CHALLENGE#" + bytes(20)))) == [hmac.new(KEY, bytes(20), "md5").digest()]
    (own,) = messages(client.receive(framed(b"#WELCOME#")))
    assert own.startswith(b"#CHALLENGE#{sha256}")
    client.receive(framed(hmac.new(KEY, own[len(b"#CHALLENGE#") :], "md5").digest()))
    assert client.done


def test_a_client_without_md5_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """In FIPS mode an old server is refused by name, and a new one is not asked for MD5."""
    without_md5(monkeypatch)
    with pytest.raises(AccessDenied, match="knows MD5 only, which this Python does not have"):
        asked(bytes(20))
    assert asked(b"{sha256}" + bytes(40))[0].startswith(b"{sha256}")
    client = StockHandshake(KEY)
    client.receive(framed(b"#CHALLENGE#{sha256}" + bytes(40)) + framed(b"#WELCOME#"))
    with pytest.raises(AccessDenied, match="answers with md5, which this Python does not have"):
        client.receive(framed(bytes(16)))


@pytest.mark.parametrize(
    "message",
    [b"", b"#WELCOME#", b"#CHALLENGE#" + bytes(19), b"#CHALLENGE#" + bytes(40), b"#CHALLENGE#{sha1}" + bytes(40)],
)
def test_only_challenges_of_multiprocessing_are_answered(message: bytes) -> None:
    """Whatever else is said first, nothing is signed."""
    with pytest.raises(NotStock):
        StockHandshake(KEY).receive(framed(message))


def test_a_listener_cannot_have_our_challenge_answered_by_another_of_our_clients() -> None:
    """Without the key a listener has nobody to ask but other clients, and those of ours do not help it."""
    first = StockHandshake(KEY)
    first.receive(framed(b"#CHALLENGE#{sha256}" + bytes(40)))
    (own,) = messages(first.receive(framed(b"#WELCOME#")))
    for challenge in (own[len(b"#CHALLENGE#") :], b"{sha384}" + own[len(b"#CHALLENGE#{sha256}") :]):
        with pytest.raises(AccessDenied, match="the challenge of another client"):
            asked(challenge)


@pytest.mark.parametrize("answer", [b"", bytes(16), b"{sha256}" + bytes(32), b"{sha1}" + bytes(20), b"#WELCOME#"])
def test_a_listener_without_the_key_is_found_out(answer: bytes) -> None:
    """Whoever welcomes everybody cannot answer."""
    client = StockHandshake(KEY)
    client.receive(framed(b"#CHALLENGE#{sha256}" + bytes(40)) + framed(b"#WELCOME#"))
    with pytest.raises(AccessDenied, match="does not know the key"):
        client.receive(framed(answer))
    assert not client.done


@given(st.binary(max_size=600))
def test_our_client_survives_any_server(data: bytes) -> None:
    """Nonsense ends in one of the errors, and is not hoarded."""
    client = StockHandshake(KEY)
    try:
        client.receive(data)
    except (NotStock, AccessDenied):
        return
    assert len(client._buffer) <= len(data)
    with pytest.raises(NotStock, match="closed"):
        client.receive(b"")
