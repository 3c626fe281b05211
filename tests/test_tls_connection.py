"""Servers that speak TLS, and their clients: whom each believes, what strangers cost, and what crosses."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import re
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import ProcessError
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

import pytest
from certificates import DAY, HOST, Authority, now, replace, served
from servers import KEY, Script, Wire, another, running, until
from test_frameworks import greenlets, need_gevent
from test_interrupts import everywhere

import registry
from registry import ManagerClient, ManagerServer, _shelf, _tls_connection, aio
from registry._attachments import Attachment
from registry._limits import Limits
from registry._tls import PIECE, _contexts
from registry._tls_connection import TlsWriter
from registry.aio._transport import A_TURN, LoopTls
from registry.errors import AccessDenied, ServerNotFound

URL = f"tls://{HOST}:0"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def server(authority: Authority, home: Path) -> Iterator[ManagerServer]:
    """A server that asks for no certificate."""
    with ManagerServer(URL, KEY, tls=served(authority.issue(name="server"))) as server:
        yield server


@pytest.fixture
def through_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have large values cross as bytes, as between hosts."""
    monkeypatch.setattr(_shelf, "is_visible", lambda path: False)


def port_of(server: ManagerServer) -> int:
    return int(server.url.rpartition(":")[2])


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the log says of refusals."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# -- what crosses ---------------------------------------------------------------------------------


def test_a_client_with_the_ca_and_the_key_is_in(server: ManagerServer, authority: Authority) -> None:
    """The names of the server are those of its certificate; it has no address of `multiprocessing`."""
    with registry.connect(server.url, KEY, tls=authority.trusted()) as shared:
        assert shared.counter("c").incr() == 1
        assert shared._home.link().lease > 0
    with pytest.raises(ValueError, match="is no address for multiprocessing"):
        server.address
    assert server.url.startswith(f"tls://{HOST}:")


def test_large_values_cross(server: ManagerServer, authority: Authority, through_the_socket: None) -> None:
    """Both ways, also many at once, and from several threads together."""
    blob = os.urandom(1 << 20) * 20
    with registry.connect(server.url, KEY, tls=authority.trusted()) as shared:
        assert not shared._home.link().files
        blobs = shared.dict("blobs")

        def put(number: int) -> Callable[[], None]:
            def one() -> None:
                blobs[number] = blob[number:]
                assert blobs[number] == blob[number:]

            return one

        with running(*map(put, range(3))):
            pass
        many = {str(number): "x" * (number % 500) for number in range(30_000)}
        shared.dict("many").update(many)
        assert shared.dict("many").copy() == many


def test_large_values_cross_in_a_loop(server: ManagerServer, authority: Authority, through_the_socket: None) -> None:
    """And small ones go on meanwhile: the loop is not kept waiting for a large one to be encrypted."""
    blob = os.urandom(1 << 20) * 20

    async def main() -> None:
        async with aio.connect(server.url, KEY, tls=authority.trusted()) as shared:
            blobs = shared.dict("blobs")

            async def put(number: int) -> None:
                await blobs.setitem(number, blob[number:])
                assert await blobs.getitem(number) == blob[number:]

            await asyncio.gather(*map(put, range(3)))
            many = {str(number): "x" * (number % 500) for number in range(30_000)}
            await shared.dict("many").update(many)
            assert await shared.dict("many").copy() == many

    asyncio.run(main())


def test_a_loop_encrypts_a_little_in_a_turn(authority: Authority) -> None:
    """However much the kernel would take; the rest leaves in the turns that follow, in order."""
    sent: list[bytes] = []

    class Greedy:
        """A socket that takes everything."""

        def __init__(self, sock: socket.socket) -> None:
            self.fileno = sock.fileno
            self.recv, self.shutdown, self.close = sock.recv, sock.shutdown, sock.close

        def send(self, data: Any) -> int:
            sent.append(bytes(data))
            return len(data)

    async def main() -> None:
        layer: Any = Plain()
        near, far = socket.socketpair()
        transport: Any = LoopTls(asyncio.get_running_loop(), near, layer)
        transport._sock = Greedy(near)
        data = os.urandom(3 * A_TURN)
        transport.send_pieces([b"head", data])
        transport.send(b"tail")
        turns = 0
        while sum(map(len, sent)) < len(data) + 8:
            turns += 1
            await asyncio.sleep(0)
            assert sum(map(len, sent)) <= turns * (A_TURN + PIECE)
        assert turns >= 3
        assert b"".join(sent) == b"head" + data + b"tail"
        transport.close()
        far.close()

    asyncio.run(main())


def test_calls_survive_cuts(server: ManagerServer, authority: Authority) -> None:
    """Wherever the bytes of TLS are cut, each call runs once."""
    with Wire(HOST, port_of(server)) as wire:
        url = f"tls://{HOST}:{wire.port}"
        with registry.connect(url, KEY, tls=authority.trusted(), timeout=60) as shared:
            wire.cut_between(4_000, 30_000)
            wire.cut()
            counter = shared.counter("c")
            counts = [counter.incr() for _ in range(300)]
            wire.cut_no_more()
        assert counts == list(range(1, 301))
        assert wire.cuts > 3


class Raw:
    """The loop's transport, which has enough after each third write."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.is_closed = False
        self.hold: Callable[[], object] = lambda: None
        self.get_extra_info = self.pause_reading = self.resume_reading = self.set_write_buffer_limits = None

    def write(self, data: bytes) -> None:
        self.got.append(data)
        if len(self.got) % 3 == 0:
            self.hold()

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    abort = close


class Plain:
    """A layer that encrypts nothing."""

    def encrypt(self, data: Any) -> bytes:
        return bytes(data)


@pytest.fixture
def raw() -> Raw:
    return Raw()


@pytest.fixture
def calls() -> list[Any]:
    return []


@pytest.fixture
def writer(raw: Raw, calls: list[Any]) -> TlsWriter:
    """What writes to `raw`; what it calls, or asks for in the next turn, stands in `calls`."""
    layer: Any = Plain()
    return TlsWriter(raw, layer, calls.append, lambda: calls.append("pause"), lambda: calls.append("resume"))


def test_a_peer_that_does_not_read_is_given_no_more_than_it_takes(
    raw: Raw, writer: TlsWriter, calls: list[Any]
) -> None:
    """What waits is not encrypted yet, goes out in order, and before the end."""
    raw.hold = writer.hold
    data = os.urandom(10 * PIECE + 5)
    writer.write(b"head")
    writer.write(data)
    assert (len(raw.got), calls) == (3, ["pause"])
    writer.write(b"tail")
    writer.write(b"")
    assert writer.get_write_buffer_size() == len(data) - 2 * PIECE + 4
    for _ in range(3):
        assert len(raw.got) % 3 == 0
        writer.release()
    assert calls == ["pause"]
    writer.release()
    assert calls == ["pause", "resume"]
    assert b"".join(raw.got) == b"head" + data + b"tail"
    writer.write(data)
    writer.close()
    writer.write(b"too late")
    for _ in range(3):
        assert writer.is_closing()
        assert not raw.is_closed
        writer.release()
    writer.release()
    assert raw.is_closed
    assert b"".join(raw.got) == b"head" + data + b"tail" + data
    assert writer.get_write_buffer_size() == 0


def test_others_have_their_turn_while_a_large_value_is_encrypted(raw: Raw, writer: TlsWriter, calls: list[Any]) -> None:
    """However much the peer would take; what is written meanwhile keeps its place."""
    data = os.urandom(_tls_connection.A_TURN)
    writer.write(data * 3)
    writer.write(b"tail")
    assert b"".join(raw.got) == data
    first, again = calls.copy()
    assert (callable(first), again) == (True, "pause")
    first()
    assert b"".join(raw.got) == data * 2
    calls[-1]()
    calls[-1]()
    assert b"".join(raw.got) == data * 3 + b"tail"
    assert calls[-1] == "resume"


def test_what_waits_for_a_peer_that_is_gone_is_forgotten(raw: Raw, writer: TlsWriter, calls: list[Any]) -> None:
    """Whether the connection was given up here, or has ended by itself."""
    writer.write(bytes(3 * _tls_connection.A_TURN))
    raw.is_closed = True
    calls[0]()
    assert (len(raw.got), writer.get_write_buffer_size()) == (_tls_connection.A_TURN // PIECE, 0)
    raw.is_closed = False
    writer.hold()
    writer.write(b"x")
    writer.abort()
    assert (raw.is_closed, writer.get_write_buffer_size()) == (True, 0)


def test_a_client_that_never_reads_is_held_and_goes_on(
    server: ManagerServer, authority: Authority, through_the_socket: None
) -> None:
    """Its replies wait unencrypted, its calls are read no further, and once it reads all arrive."""
    tls = authority.trusted()
    with another(server.url, tls=tls) as slow, another(server.url, tls=tls) as shared:
        shared.dict("d")["blob"] = blob = os.urandom(1 << 20) * 10
        link = slow._home.link()
        handle = slow.dict("d")
        handle._remote.resolve()
        with link._reading:  # nobody reads for it
            threads = [threading.Thread(target=lambda: got.append(handle["blob"])) for _ in range(4)]
            got: list[bytes] = []
            for thread in threads:
                thread.start()
            until(lambda _: any(each._blocked for each in list(server._connections)), shared)
            (held,) = [each for each in list(server._connections) if each._blocked]
            assert isinstance(held, _tls_connection.TlsConnection)
            assert held._writer.raw.get_write_buffer_size() < 4 << 20
        link._promote()
        for thread in threads:
            thread.join(30)
        assert got == [blob] * 4


# -- who is believed ------------------------------------------------------------------------------


def test_bad_certificates_are_refused(authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Six ways, each with a text of its own at the client and one line in the server's log; nobody has got in."""
    others = Authority(tmp_path / "others")
    long_ago, soon = now() - DAY, now() + DAY
    good = authority.issue()
    cases: list[tuple[dict[str, str], dict[str, str], str, str]] = [
        (served(authority.issue(not_after=long_ago)), authority.trusted(), "has expired", "(certificate expired)"),
        (
            served(authority.issue(not_before=soon, not_after=soon + DAY)),
            authority.trusted(),
            "is not valid yet",
            "(bad certificate)",
        ),
        (served(authority.issue("db.example.org")), authority.trusted(), "is for other names", "(bad certificate)"),
        (served(others.issue()), authority.trusted(), "is signed by no CA in", "(unknown ca)"),
        (good, authority.trusted(), "none was shown: name its files", "it shows no certificate"),
        (good, {**others.issue(), "ca": str(authority.ca)}, "does not know the CA", "signed by another CA"),
    ]
    said = []
    for ours, theirs, text, line in cases:
        caplog.clear()
        with ManagerServer(URL, KEY, tls=ours) as server, caplog.at_level(logging.INFO, "registry"):
            with pytest.raises(AccessDenied, match=re.escape(text)) as caught:
                registry.connect(server.url, KEY, tls=theirs)
            said.append(caught.value.reason)
            assert caught.value.server == server.url
            server.stop()
        (logged,) = told(caplog)
        assert logged.startswith(f"refused a connection from {HOST}")
        assert line in logged
        assert not server.host.clients
    assert len(set(said)) == len(cases)


def test_bad_certificates_are_refused_in_a_loop(authority: Authority) -> None:
    """With the same words."""
    with ManagerServer(URL, KEY, tls=authority.issue()) as server:

        async def main() -> None:
            with pytest.raises(AccessDenied, match="none was shown: name its files by"):
                await aio.connect(server.url, KEY, tls=authority.trusted())
            with pytest.raises(AccessDenied, match="by no CA that this system believes"):
                await aio.connect(server.url, KEY)

        asyncio.run(main())


def test_a_client_shows_who_it_is(authority: Authority) -> None:
    """The server keeps the subject and the names with the connection, where they can be asked for."""
    me = authority.issue("worker.example.org", common_name="worker")
    with ManagerServer(URL, KEY, tls=authority.issue()) as server:
        with registry.connect(server.url, KEY, tls=me) as shared:
            shared.statistics()
            (client,) = server.host.clients.values()
            assert client.attachment is not None
            certificate = client.attachment.certificate
    assert certificate is not None
    assert (("commonName", "worker"),) in certificate["subject"]
    assert certificate["subjectAltName"] == (("DNS", "worker.example.org"),)
    assert Attachment().certificate is None


def test_where_none_is_asked_for_none_is_believed(server: ManagerServer, authority: Authority) -> None:
    """A certificate that nobody has verified is not kept."""
    with registry.connect(server.url, KEY, tls=authority.issue("anybody.example.org")) as shared:
        shared.statistics()
        (client,) = server.host.clients.values()
        assert client.attachment is not None
        assert client.attachment.certificate is None


def test_the_key_is_asked_for_all_the_same(server: ManagerServer, authority: Authority) -> None:
    """TLS is not enough to be let in."""
    with pytest.raises(AccessDenied, match="has another key than this process.*something on the way opens TLS"):
        registry.connect(server.url, b"another key of some length", tls=authority.trusted())


class Relay:
    """Something in the middle, with a certificate that clients believe: decrypts what they say, and encrypts it."""

    def __init__(self, port: int, shown: dict[str, str], believed: dict[str, str]) -> None:
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(shown["cert"], shown["key"])
        self._onwards = ssl.create_default_context(cafile=believed["ca"])
        self._to = port
        self._listener = socket.create_server((HOST, 0))
        self.url = f"tls://{HOST}:{self._listener.getsockname()[1]}"
        self.passed: list[bytes] = []

    def serve_one(self) -> None:
        near, _ = self._listener.accept()
        far = socket.create_connection((HOST, self._to))
        with (
            self._context.wrap_socket(near, server_side=True) as near,
            self._onwards.wrap_socket(far, server_hostname=HOST) as far,
        ):
            for one, other in ((far, near), (near, far), (far, near)):  # challenge, hello, and the answer
                data = one.recv(65536)
                self.passed.append(data)
                other.sendall(data)

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.close()


def test_a_handshake_that_is_passed_on_fails(
    server: ManagerServer, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever has a certificate that the client believes is not let in with the client's knowledge of the key."""
    with Relay(port_of(server), authority.issue(), authority.trusted()) as relay, running(relay.serve_one):
        with pytest.raises(AccessDenied, match="or else something on the way opens TLS and encrypts it anew"):
            registry.connect(relay.url, KEY, tls=authority.trusted())
    assert b"#CHALLENGE#" in relay.passed[0]
    assert b"#REGISTRY#" in relay.passed[1]
    assert b"#DENIED#" in relay.passed[2]
    assert not server.host.clients
    assert any("a native client with another key" in line for line in told(caplog))


def test_a_relay_that_opens_nothing_is_none(server: ManagerServer, authority: Authority) -> None:
    """The same bytes, passed on as they are, are a longer wire."""
    with Wire(HOST, port_of(server)) as wire:
        with registry.connect(f"tls://{HOST}:{wire.port}", KEY, tls=authority.trusted()) as shared:
            assert shared.counter("c").incr() == 1


# -- strangers ------------------------------------------------------------------------------------


def test_a_crowd_that_never_speaks_keeps_nobody_out(server: ManagerServer, authority: Authority) -> None:
    """Strangers count from their first moment on, before TLS, and the oldest go first."""
    server.door._most = 20
    strangers = [socket.create_connection((HOST, port_of(server))) for _ in range(100)]
    for stranger in strangers[:40]:
        stranger.settimeout(30)
        assert stranger.recv(1) == b""
    with registry.connect(server.url, KEY, tls=authority.trusted()) as shared:
        assert shared.counter("c").incr() == 1
        assert len(server.door) <= 20
        assert len(server._connections) <= 21
    for stranger in strangers:
        stranger.close()


@pytest.mark.parametrize("sends", [b"", b"\x16\x03\x01\x02\x00\x01"])
def test_who_does_not_get_through_tls_is_cut(
    sends: bytes, server: ManagerServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a handshake has the time of a whole one, and none of it is a reason to wait longer."""
    server.limits = Limits(handshake=0.05)
    monkeypatch.setattr(_tls_connection, "SILENCE", 60.0)
    with socket.create_connection((HOST, port_of(server))) as stranger:
        stranger.sendall(sends)
        stranger.settimeout(30)
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(4096) == b""


def test_a_client_that_does_not_speak_tls_is_told(
    server: ManagerServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It waits for a challenge; after a while of silence it hears that it should begin, and how."""
    monkeypatch.setattr(_tls_connection, "SILENCE", 0.05)
    with pytest.raises(ServerNotFound, match="it speaks TLS only: write tls:// for tcp://"):
        registry.connect(server.url.replace("tls", "tcp"), KEY)
    with pytest.raises((OSError, EOFError, AssertionError, ProcessError)):  # what its version makes of that
        Client((HOST, port_of(server)), authkey=KEY)
    server.stop()
    refused = told(caplog)
    assert len(refused) == 2
    assert all("it said nothing for 0.05 s, and who speaks TLS begins" in line for line in refused)


@pytest.mark.parametrize("sends", [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x10" + b"x" * 16, b"SSH-2.0-x\r\n"])
def test_a_peer_that_speaks_something_else_is_refused(
    sends: bytes, server: ManagerServer, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """In one line, and others are served."""
    with socket.create_connection((HOST, port_of(server))) as stranger:
        stranger.settimeout(30)
        stranger.sendall(sends)
        with contextlib.suppress(ConnectionResetError):
            while stranger.recv(4096):
                pass  # an alert, which it cannot read
    with registry.connect(server.url, KEY, tls=authority.trusted()) as shared:
        assert shared.counter("c").incr() == 1
    (line,) = told(caplog)
    assert "it speaks no TLS" in line


def test_a_client_of_tls_at_a_plain_address_is_told(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And the log of that server says what knocked."""
    with ManagerServer(f"tcp://{HOST}:0", KEY) as server:
        with pytest.raises(ServerNotFound, match="it speaks no TLS: start it with an address tls://, or write tcp://"):
            registry.connect(server.url.replace("tcp", "tls"), KEY)
        server.stop()
    (line,) = told(caplog)
    assert "it speaks TLS, and this address does not: tls:// does" in line


def test_what_is_no_tls_at_all_is_no_server_of_ours(authority: Authority) -> None:
    """Whatever it says."""
    with socket.create_server((HOST, 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as peer:
                peer.recv(65536)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        with running(answer), pytest.raises(ServerNotFound, match="no TLS handshake is possible with it"):
            registry.connect(f"tls://{HOST}:{listener.getsockname()[1]}", KEY, tls=authority.trusted())


# -- beginning, renewing --------------------------------------------------------------------------


def test_a_server_whose_files_cannot_be_used_leaves_nothing_behind(authority: Authority, home: Path) -> None:
    """It has bound nothing and made nothing; with better files it serves."""
    tls = authority.issue()
    os.chmod(tls["key"], 0o644)
    server = ManagerServer(URL, KEY, tls=tls)
    with pytest.raises(AccessDenied, match="chmod 600"):
        server.start()
    assert server._listener is None
    assert list(home.iterdir()) == []
    os.chmod(tls["key"], 0o600)
    with ManagerServer(URL, KEY, tls=tls):
        pass


def test_an_address_beyond_this_host_needs_no_other_word(authority: Authority, home: Path) -> None:
    """TLS is what makes it safe; the key has to be a good one all the same."""
    tls = served(authority.issue())
    with pytest.raises(AccessDenied, match="serve tls://"):
        ManagerServer("tcp://0.0.0.0:0", KEY)
    with ManagerServer("tls://0.0.0.0:0", KEY, tls=tls) as server:
        with registry.connect(f"tls://{HOST}:{port_of(server)}", KEY, tls=authority.trusted()) as shared:
            assert shared.counter("c").incr() == 1
    with pytest.raises(AccessDenied, match="which other hosts can reach"):
        ManagerServer("tls://0.0.0.0:0", b"secret", tls=tls).open()


def test_a_certificate_is_renewed_without_a_restart(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Connections go on; new ones see the new certificate, and the last good one where a new one cannot be used."""
    monkeypatch.setattr(_contexts, "LOOK", 0.0)
    tls = served(authority.issue(name="server"))

    def shown(client: ManagerClient) -> bytes:
        transport: Any = client._home.link()._transport
        return transport.layer.der  # type: ignore[no-any-return]

    trusted = authority.trusted()
    with ManagerServer(URL, KEY, tls=tls) as server, another(server.url, tls=trusted) as old:
        replace(tls, authority.issue())
        with another(server.url, tls=trusted) as new:
            assert shown(new) != shown(old)
            assert (old.counter("c").incr(), new.counter("c").incr()) == (1, 2)
            Path(tls["cert"]).write_bytes(b"not a certificate")
            with another(server.url, tls=trusted) as newer:
                assert shown(newer) == shown(new)
                assert newer.counter("c").incr() == 3
            with another(server.url, tls=trusted) as newer:
                assert [old.counter("c").incr(), new.counter("c").incr(), newer.counter("c").incr()] == [4, 5, 6]
    assert [line for line in told(caplog) if "there is no certificate in" in line] == told(caplog)
    assert len(told(caplog)) == 1


def test_a_client_s_own_certificate_is_read_at_each_connection(authority: Authority, tmp_path: Path) -> None:
    """One that was renewed is shown by the next; a session comes back with it."""
    mine = authority.issue("one.example.org", name="mine")
    with ManagerServer(URL, KEY, tls=authority.issue()) as server, another(server.url, tls=mine) as shared:
        assert shared.counter("c").incr() == 1
        replace(mine, authority.issue("two.example.org"))
        link = shared._home.link()
        assert link._transport is not None
        link._break(link._transport)
        assert shared.counter("c").incr() == 2
        (client,) = server.host.clients.values()
        assert client.attachment is not None
        assert client.attachment.certificate is not None
        assert client.attachment.certificate["subjectAltName"] == (("DNS", "two.example.org"),)


# -- clients --------------------------------------------------------------------------------------


def test_the_environment_is_enough(
    server: ManagerServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each kind of client; for other addresses it says nothing."""
    monkeypatch.setenv("REGISTRY_TLS_CA", str(authority.ca))
    with registry.connect(server.url, KEY) as shared:
        assert shared.counter("c").incr() == 1

    async def main() -> None:
        async with aio.connect(server.url, KEY) as shared:
            assert await shared.counter("c").incr() == 2

    asyncio.run(main())
    with registry.connect("memory://") as shared:
        assert shared.counter("c").incr() == 1


def test_clients_with_the_same_files_share_a_session(server: ManagerServer, authority: Authority) -> None:
    """And others do not: they may be taken for others by the server."""
    me = authority.issue("me.example.org")
    options: list[Any] = [authority.trusted(), {"ca": authority.ca}, me]
    clients = [registry.connect(server.url, KEY, tls=tls) for tls in options]
    links = [client._home.link() for client in clients]
    assert links[0] is links[1]
    assert links[2] is not links[0]
    for client in clients:
        client.close()


def test_a_pickled_proxy_has_the_address_alone(server: ManagerServer, authority: Authority) -> None:
    """It uses what this process was given for the address, and in another one what that has in its environment."""
    with registry.connect(server.url, KEY, tls=authority.trusted()) as shared:
        shared.dict("d")["x"] = 1
        data = pickle.dumps(shared.dict("d"))
        assert str(authority.ca).encode() not in data
        assert pickle.loads(data)["x"] == 1
        code = "import pickle, sys, registry\nproxy = pickle.loads(bytes.fromhex(sys.argv[1]))\nprint(proxy['x'])\n"
        key = authority.ca.with_name("authkey")
        key.write_bytes(KEY)
        key.chmod(0o600)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("REGISTRY_AUTHKEY_FILE", str(key))
            patch.setenv("REGISTRY_TLS_CA", str(authority.ca))
            with Script(code, data.hex()) as script:
                assert script.line() == "1"
                assert script.wait() == 0


def test_a_forked_child_has_a_connection_of_its_own(server: ManagerServer, authority: Authority) -> None:
    """What the parent has encrypted is not gone on with by the child."""
    if not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    code = (
        "import os, sys, registry\n"
        "shared = registry.connect(sys.argv[1], sys.argv[2].encode(), tls={'ca': sys.argv[3]})\n"
        "counter = shared.counter('c')\n"
        "counter.incr()\n"
        "if not os.fork():\n"
        "    counter.incr()\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "print(counter.incr())\n"
    )
    with Script(code, server.url, KEY.decode(), authority.ca) as script:
        assert script.line() == "3"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 looks for signals at other places")
def test_a_signal_handler_that_raises_loses_nothing(server: ManagerServer, authority: Authority) -> None:
    """Wherever it raises in a block over TLS: another thread is not kept from the connection, nor from the lock."""
    with registry.connect(server.url, KEY, tls=authority.trusted()) as shared:
        lock, counter = shared.lock("l"), shared.counter("c")

        def story() -> None:
            with lock:
                counter.incr()

        def check() -> None:
            def other() -> None:
                with lock.acquire(timeout=0) as grant:
                    assert not grant.abandoned

            with running(other):
                pass

        assert everywhere(story, check) > 10
        assert counter.get() > 10


@need_gevent
def test_greenlets_share_an_encrypted_session(server: ManagerServer, authority: Authority) -> None:
    """They wait outside of the kernel, and of OpenSSL."""
    code = f"""
import gevent
from registry import connect
client = connect(sys.argv[1], {KEY!r}, timeout=20, tls={authority.trusted()!r})
count, jobs, seen = client.counter("c"), client.queue("q"), []
def add():
    for _ in range(20):
        seen.append(count.incr())
taker = gevent.spawn(lambda: [len(jobs.get()) for _ in range(20)])
putter = gevent.spawn(lambda: [jobs.put(b"x" * 100_000) for _ in range(20)])
gevent.joinall([gevent.spawn(add) for _ in range(5)], raise_error=True)
print(sorted(seen) == list(range(1, 101)), taker.get() == [100_000] * 20, client.statistics()["sessions"])
"""
    assert greenlets(server.url, code) == ["True True 1"]
