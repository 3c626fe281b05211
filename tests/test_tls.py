"""TLS without a server: the layer, what stands in the files, and what refusals say."""

from __future__ import annotations

import logging
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import DAY, HOST, Authority, now, replace, served
from servers import running

from registry._addresses import TlsFiles, check_file, parse
from registry._tls import (
    PIECE,
    Credentials,
    Layer,
    Renewed,
    TlsTransport,
    _contexts,
    client_context,
    refused_client,
    secure,
)
from registry._tls._contexts import binding_of
from registry._tls._refusals import refused_server
from registry._transport import DeadlinePassed, SocketTransport
from registry.errors import AccessDenied

BLOB = bytes(range(256)) * 4096  # 1 MB


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def files(tls: dict[str, str]) -> TlsFiles:
    return TlsFiles(**tls)


class Pair:
    """The two ends of a connection, and what goes between them.

    Attributes:
        client, server: The layers.
        refused: What the client has raised, and what the server has.
    """

    def __init__(self, client: dict[str, str], server: dict[str, str], host: str = HOST) -> None:
        self.client = Layer(client_context(files(client)), host)
        self.credentials = Credentials(files(server))
        self.server = self.credentials.layer()
        self.refused: list[ssl.SSLError | None] = [None, None]

    def shake(self) -> Pair:
        """Pass on what each says, until both have nothing to say; as far as they get."""
        data, ends = b"", [self.client, self.server]
        turn = 0
        for _ in range(10):
            end = ends[turn]
            if self.refused[turn] is not None:
                break
            try:
                data = end.decrypt(data) if end.is_open else end.shake(data)
            except ssl.SSLError as error:
                self.refused[turn] = error
                data = end.farewell()
            turn = 1 - turn
        return self


# -- the layer ------------------------------------------------------------------------------------


def test_bytes_arrive_as_they_were_encrypted(authority: Authority) -> None:
    """Of any size, in any pieces, and nothing of them shows on the way."""
    pair = Pair(authority.trusted(), served(authority.issue())).shake()
    assert (pair.client.is_open, pair.server.is_open, pair.client.version) == (True, True, "TLSv1.3")
    for data in (b"", b"x", b"hello there", BLOB):
        encrypted = pair.client.encrypt(data)
        assert data == b"x" or data not in encrypted or not data
        opened = b"".join(
            pair.server.decrypt(encrypted[start : start + 1000]) for start in range(0, len(encrypted), 1000)
        )
        assert opened == data
    assert pair.client.decrypt(pair.server.encrypt(memoryview(BLOB)[5:])) == BLOB[5:]


def test_a_part_of_a_record_is_nothing_yet(authority: Authority) -> None:
    """And the rest of it makes it whole; what comes behind it comes with it."""
    pair = Pair(authority.trusted(), served(authority.issue())).shake()
    encrypted = pair.client.encrypt(b"one") + pair.client.encrypt(b"two")
    assert pair.server.decrypt(encrypted[:10]) == b""
    assert pair.server.decrypt(encrypted[10:]) == b"onetwo"


def test_what_was_changed_is_not_decrypted(authority: Authority) -> None:
    """One bit is enough."""
    pair = Pair(authority.trusted(), served(authority.issue())).shake()
    encrypted = bytearray(pair.client.encrypt(b"pay 1"))
    encrypted[-1] ^= 1
    with pytest.raises(ssl.SSLError):
        pair.server.decrypt(bytes(encrypted))


def test_an_end_that_was_said_is_an_end(authority: Authority) -> None:
    """We do not say it ourselves; who does is understood."""
    pair = Pair(authority.trusted(), served(authority.issue())).shake()
    encrypted = pair.client.encrypt(b"last")
    with pytest.raises(ssl.SSLWantReadError):
        pair.client._tls.unwrap()
    assert pair.server.decrypt(encrypted + pair.client.farewell()) == b"last"
    assert pair.server.has_ended


def test_the_verified_certificate_of_a_client_is_told(authority: Authority) -> None:
    """With its subject and its names; where none is asked for there is none."""
    mutual, me = authority.issue(), authority.issue("worker.example.org", common_name="worker")
    pair = Pair(me, mutual).shake()
    assert pair.server.certificate is not None
    assert ("DNS", "worker.example.org") in pair.server.certificate["subjectAltName"]
    assert (("commonName", "worker"),) in pair.server.certificate["subject"]
    assert Pair(me, served(mutual)).shake().server.certificate is None


def test_older_versions_are_not_spoken(authority: Authority) -> None:
    """1.2 is; what is older is refused, and both ends say why."""
    pair = Pair(authority.trusted(), served(authority.issue()))
    context = client_context(files(authority.trusted()))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    pair.client = Layer(context, HOST)
    assert pair.shake().server.version == "TLSv1.2"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    pair = Pair(authority.trusted(), served(authority.issue()))
    context.load_verify_locations(authority.ca)
    pair.client = Layer(context, HOST)
    pair.shake()
    assert not pair.server.is_open
    assert pair.refused[1] is not None
    assert "speaks no TLS that is safe today" in refused_client(pair.refused[1])


def test_both_ends_bind_to_the_same(authority: Authority) -> None:
    """To the server's certificate, the first in its file; another one is another binding."""
    ours = authority.issue()
    pair = Pair(authority.trusted(), served(ours)).shake()
    assert binding_of(pair.client.der) == pair.credentials.binding
    assert pair.credentials.binding.startswith(b"tls-server-end-point:")
    assert Credentials(files(served(authority.issue()))).binding != pair.credentials.binding
    chain = Path(ours["cert"])
    chain.write_bytes(b"what it is for\n" + chain.read_bytes() + authority.ca.read_bytes())
    assert Credentials(files(served(ours))).binding == pair.credentials.binding


# -- the files ------------------------------------------------------------------------------------


def _spoiled(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda tls: os.unlink(tls["cert"]), "the certificate is not there: {cert}"),
        (lambda tls: os.unlink(tls["key"]), "the private key is not there: {key}"),
        (lambda tls: os.unlink(tls["ca"]), "the file of the CA is not there: {ca}"),
        (lambda tls: os.chmod(tls["key"], 0o644), "the private key {key} is open to others (mode 644)"),
        (lambda tls: _spoiled(tls["cert"], b"x"), "there is no certificate in {cert}: name the file that has it"),
        (lambda tls: _spoiled(tls["key"], b"x"), "there is no private key in {key}: name the file that has it"),
        (lambda tls: _spoiled(tls["ca"], b""), "there is no certificate in {ca}: name the file that has those"),
        (
            lambda tls: _spoiled(tls["ca"], b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "the certificates of CAs in {ca} cannot be used: ",
        ),
        (
            lambda tls: _spoiled(tls["cert"], b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "the certificate {cert} and the private key {key} cannot be used: ",
        ),
    ],
)
@pytest.mark.parametrize("load", [client_context, Credentials])
def test_files_that_cannot_be_used_are_named(
    load: Callable[[TlsFiles], Any], spoil: Callable[[dict[str, str]], None], text: str, authority: Authority
) -> None:
    """By both ends alike, with what is wrong with which."""
    tls = authority.issue()
    load(files(tls))
    spoil(tls)
    with pytest.raises(AccessDenied, match=re.escape(text.format(**tls))):
        load(files(tls))


def test_a_certificate_with_the_key_of_another_one_is_refused(authority: Authority) -> None:
    """The two files are named."""
    tls = {**authority.issue(), "key": authority.issue()["key"]}
    with pytest.raises(AccessDenied, match=f"{tls['cert']} and .*{tls['key']} do not belong together: name the key"):
        Credentials(files(tls))


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked(authority: Authority) -> None:
    """OpenSSL would ask on the terminal."""
    from cryptography.hazmat.primitives import serialization as s

    tls = authority.issue()
    key = s.load_pem_private_key(Path(tls["key"]).read_bytes(), None)
    locked = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"x"))
    _spoiled(tls["key"], locked)
    with pytest.raises(AccessDenied, match=f"locked by a passphrase, .*openssl pkey -in {tls['key']}"):
        Credentials(files(tls))


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_files_that_change_are_read_again(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    """At the next connection a second later; what cannot be used changes nothing, and is said once."""
    tls, clock = served(authority.issue(name="server")), Clock()
    with caplog.at_level(logging.INFO, "registry"):
        renewed = Renewed(files(tls), "tls://h:1", clock)
        first = renewed.current()
        replace(tls, authority.issue())
        assert renewed.current() is first  # there was a look a moment ago
        clock.now = 1.0
        second = renewed.current()
        assert second.binding != first.binding
        Path(tls["key"]).write_bytes(b"half a k")
        for _ in range(3):
            clock.now += 1.0
            assert renewed.current() is second
        replace(tls, authority.issue())
        clock.now += 1.0
        assert renewed.current().binding not in (first.binding, second.binding)
        for _ in range(3):
            clock.now += 1.0
            renewed.current()
    assert [record.getMessage() for record in caplog.records] == [
        "tls://h:1 has read its certificate again, and shows it from now on",
        "tls://h:1 goes on with the certificate that it has: there is no private key in "
        f"{tls['key']}: name the file that has it, in PEM",
        "tls://h:1 has read its certificate again, and shows it from now on",
    ]


def test_what_is_bound_is_what_is_shown(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the files are replaced in the very moment in which they are read."""
    tls, others = served(authority.issue(name="server")), [authority.issue()]

    def read(path: str, *args: Any, **options: Any) -> bytes:
        content = check_file(path, *args, **options)
        if path == tls["cert"] and others:
            replace(tls, others.pop())
        return content

    monkeypatch.setattr(_contexts, "check_file", read)
    pair = Pair(authority.trusted(), tls).shake()
    assert not others
    assert binding_of(pair.client.der) == pair.credentials.binding


# -- refusals -------------------------------------------------------------------------------------


def test_six_bad_certificates_are_told_apart(authority: Authority, tmp_path: Path) -> None:
    """Each has a text of its own with its cure, at the client; the server's log names the fault in few words."""
    good, other = authority.issue(), Authority(tmp_path / "other")
    long_ago, soon = now() - DAY, now() + DAY
    cases = [
        ("expired", authority.trusted(), served(authority.issue(not_after=long_ago)), HOST),
        ("early", authority.trusted(), served(authority.issue(not_before=soon, not_after=soon + DAY)), HOST),
        ("name", authority.trusted(), served(authority.issue("other.example.org")), HOST),
        ("ca", authority.trusted(), served(other.issue()), HOST),
        ("none", authority.trusted(), good, HOST),
        ("others", {**other.issue(), "ca": str(authority.ca)}, good, HOST),
        ("client expired", authority.issue(not_after=long_ago), good, HOST),
        ("client early", authority.issue(not_before=soon, not_after=soon + DAY), good, HOST),
    ]
    said, logged = {}, {}
    for name, client, server, host in cases:
        pair = Pair(client, server, host).shake()
        theirs, ours = pair.refused
        assert theirs is not None, name
        assert ours is not None, name
        said[name] = refused_server(theirs, host, files(client))
        logged[name] = refused_client(ours)
    assert all(": " in text for text in said.values()), said
    assert len(set(said.values())) == len(cases)
    # TLS has one word for a name that is another and for a certificate that is not valid yet.
    assert logged["name"] == logged["early"] == "it does not accept this server's certificate (bad certificate)"
    assert len(set(logged.values())) == len(cases) - 1
    for name, text in {
        "expired": "the certificate of the server has expired: renew it there",
        "early": "the certificate of the server is not valid yet: set the clock of this machine right",
        "name": "the certificate of the server is for other names than '127.0.0.1': connect by a name that it has",
        "ca": f"is signed by no CA in {authority.ca} (unable to get local issuer certificate): name the file with",
        "none": "the server lets in only who shows a certificate, and none was shown: name its files by",
        "others": "the server does not know the CA that has signed",
        "client expired": "has expired: renew it",
        "client early": "which may not be valid yet",
    }.items():
        assert text in said[name], (name, said[name])
    for name, text in {
        "expired": "it does not accept this server's certificate (certificate expired)",
        "ca": "it does not accept this server's certificate (unknown ca)",
        "none": "it shows no certificate, and one is asked for",
        "others": "its certificate is signed by another CA",
        "client expired": "its certificate has expired",
        "client early": "its certificate is not valid yet",
    }.items():
        assert text in logged[name], (name, logged[name])


def test_a_missing_certificate_is_told_over_tls_1_2_too(authority: Authority) -> None:
    """Whose alert has no word for it."""
    context = client_context(files(authority.trusted()))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    pair = Pair(authority.trusted(), authority.issue())
    pair.client = Layer(context, HOST)
    error = pair.shake().refused[0]
    assert error is not None
    assert "none was shown: name its files by" in refused_server(error, HOST, files(authority.trusted()))


def test_a_ca_that_is_not_named_is_the_system_s(authority: Authority) -> None:
    """Which does not believe those of the tests, and the text says so."""
    pair = Pair({}, served(authority.issue())).shake()
    assert pair.refused[0] is not None
    assert "is signed by no CA that this system believes" in refused_server(pair.refused[0], HOST, TlsFiles())


# -- the stream of threads ------------------------------------------------------------------------


@pytest.fixture
def ends(authority: Authority) -> Iterator[tuple[TlsTransport, socket.socket, Layer]]:
    """A client's stream, and the other end of it: a socket, and the layer that reads and writes it."""
    near, far = socket.socketpair()
    layer = Credentials(files(served(authority.issue()))).layer()

    def serve() -> None:
        while not layer.is_open:
            far.sendall(layer.shake(far.recv(65536)))

    with running(serve):
        stream = secure(SocketTransport(near), parse(f"tls://{HOST}:1"), files(authority.trusted()), _soon())
    yield stream, far, layer
    stream.close()
    far.close()


def _soon(seconds: float = 20.0) -> float:
    return time.monotonic() + seconds


def test_a_deadline_leaves_the_stream_as_it_was(ends: tuple[TlsTransport, socket.socket, Layer]) -> None:
    """Also in the middle of a record, and there is nothing left in it that a poll would not show."""
    stream, far, layer = ends
    encrypted = layer.encrypt(b"late")
    far.sendall(encrypted[:7])
    for seconds in (-1.0, 0.0, 0.01):
        with pytest.raises(DeadlinePassed):
            stream.receive(_soon(seconds))
    assert stream.is_quiet()
    far.sendall(encrypted[7:] + layer.encrypt(b" and more"))
    assert not stream.is_quiet()
    assert stream.receive(None) == b"late and more"
    assert stream.is_quiet()
    far.close()
    assert stream.receive(_soon()) == b""


def test_one_thread_reads_while_another_writes(ends: tuple[TlsTransport, socket.socket, Layer]) -> None:
    """Both get everything across, though the kernel takes and gives it in parts."""
    stream, far, layer = ends
    rounds = 20
    got = bytearray()

    def echo() -> None:
        left = rounds * len(BLOB)
        while left:
            data = layer.decrypt(far.recv(65536))
            left -= len(data)
            for start in range(0, len(data), PIECE):
                far.sendall(layer.encrypt(data[start : start + PIECE]))

    def read() -> None:
        while len(got) < rounds * len(BLOB):
            got.extend(stream.receive(_soon()))

    with running(echo, read):
        for _ in range(rounds // 2):
            stream.send(BLOB)
            stream.send_pieces([BLOB[:1], memoryview(BLOB)[1:]])
    assert got == BLOB * rounds


def test_close_ends_a_read_in_another_thread(ends: tuple[TlsTransport, socket.socket, Layer]) -> None:
    """As of any stream."""
    stream, _, _ = ends
    began = threading.Event()

    def wait() -> None:
        began.set()
        try:
            assert stream.receive(None) == b""
        except OSError:
            pass  # it was closed before the read began

    with running(wait):
        began.wait()
        stream.close()


def test_what_was_changed_on_its_way_ends_the_stream(ends: tuple[TlsTransport, socket.socket, Layer]) -> None:
    """As any end of a connection does: it can be made again."""
    stream, far, layer = ends
    encrypted = bytearray(layer.encrypt(b"x"))
    encrypted[-1] ^= 1
    far.sendall(encrypted)
    with pytest.raises(ConnectionResetError, match="what came was changed on its way") as caught:
        stream.receive(_soon())
    assert caught.value.errno is not None


def test_a_thread_that_is_interrupted_keeps_no_other_from_the_stream(
    ends: tuple[TlsTransport, socket.socket, Layer],
) -> None:
    """The end of the connection, which follows, lets go of what it had."""
    stream, _, _ = ends
    stream._working.acquire()  # as if a handler had raised behind this
    stream.close()
    with running(lambda: stream._working.acquire() and stream._working.release()):
        pass


def test_a_peer_that_is_silent_takes_no_longer_than_the_deadline(authority: Authority) -> None:
    """Nor one that ends."""
    near, far = socket.socketpair()
    with near, far:
        with pytest.raises(DeadlinePassed):
            secure(SocketTransport(near), parse("tls://h:1"), files(authority.trusted()), _soon(0.01))
        far.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionResetError, match="closed during the handshake"):
            secure(SocketTransport(near), parse("tls://h:1"), files(authority.trusted()), _soon())
