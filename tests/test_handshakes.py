"""Handshakes with a real server, by somebody who has no key, but all that the server and its clients say."""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Client as StockClient
from typing import Any

import pytest
from servers import PATIENCE

from registry import ManagerServer
from registry._auth import ClientHandshake, ServerHandshake
from registry.errors import AccessDenied

pytestmark = [pytest.mark.once, pytest.mark.skipif(sys.platform == "win32", reason="there are no unix sockets")]

KEY = os.urandom(32)
ATTEMPTS = 100


@pytest.fixture(params=["unix", "tcp"])
def server(request: pytest.FixtureRequest, home: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[ManagerServer]:
    """A server that answers wrong keys at once, so that many can be tried."""
    monkeypatch.setattr("registry._door.PATIENCE", 0.0)
    address = f"unix://{home}/sock" if request.param == "unix" else "tcp://127.0.0.1:0"
    with ManagerServer(address, KEY) as server:
        yield server


class Stranger:
    """A connection to a server, framed as handshakes are; the server has sent its challenge."""

    def __init__(self, server: ManagerServer) -> None:
        address: Any = server.address
        self.sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(address)
        self.opening = self.hear()

    @property
    def challenge(self) -> bytes:
        return self.opening.removeprefix(b"#CHALLENGE#")

    def say(self, message: bytes) -> None:
        try:
            self.sock.sendall(struct.pack("!i", len(message)) + message)
        except OSError:
            pass  # it has been refused already

    def hear(self) -> bytes:
        """Return the next message, empty at the end."""
        try:
            head = self.sock.recv(4, socket.MSG_WAITALL)
            return self.sock.recv(struct.unpack("!i", head)[0], socket.MSG_WAITALL) if len(head) == 4 else b""
        except ConnectionError:
            return b""

    def is_in(self) -> bool:
        """Tell whether the server takes this for somebody who has the key, by the next thing that it says."""
        with self.sock:
            heard = self.hear()
        assert heard in (b"#FAILURE#", b"#DENIED#", b"") or heard.startswith(b"#VERSION#") or self._is_welcome(heard)
        return self._is_welcome(heard)

    @staticmethod
    def _is_welcome(heard: bytes) -> bool:
        return heard == b"#WELCOME#" or heard.startswith(b"#REGISTRY#")


def hello(challenge: bytes, key: bytes = KEY) -> bytes:
    """Return what a client of ours says to whoever sends it a challenge."""
    said = ClientHandshake(key).receive(struct.pack("!i", 11 + len(challenge)) + b"#CHALLENGE#" + challenge)
    return said[4:]


def echo(strangers: list[Stranger]) -> None:
    """Send each challenge back, as it came and as an answer."""
    for number, each in enumerate(strangers):
        each.say([each.opening, each.challenge, each.challenge[8:], b"{sha256}" + each.challenge[8:40]][number % 4])


def swap(strangers: list[Stranger]) -> None:
    """Answer each challenge by that of another connection that is open at the same time."""
    for number, each in enumerate(strangers):
        other = strangers[number - 1]
        each.say([other.opening, other.challenge, b"{sha256}" + other.challenge[8:40]][number % 3])


def ask_the_server(strangers: list[Stranger]) -> None:
    """Give the server its own challenges to sign, before anything was shown, and take its answers for answers."""
    for each, other in zip(strangers[::2], strangers[1::2], strict=True):
        each.say(other.opening)
        other.say(each.hear() or b"#WELCOME#")


def welcome(strangers: list[Stranger]) -> None:
    """Say what a server says."""
    for number, each in enumerate(strangers):
        each.say([b"#WELCOME#", b"#REGISTRY#1", b"#REGISTRY#1" + bytes(64), b"#CHALLENGE#" + bytes(20)][number % 4])


def borrow_of_a_client(strangers: list[Stranger]) -> None:
    """Have a native client sign the challenge, and answer as a stock client with what it has signed."""
    for number, each in enumerate(strangers):
        said = hello(each.challenge)
        mac = said[-32:]
        each.say([mac, b"{sha256}" + mac, mac[:16], mac[16:], b"{md5}" + mac[:16], said[10:]][number % 6])


def replay(strangers: list[Stranger]) -> None:
    """Show what a client has said to another challenge."""
    recorded = hello(strangers[0].challenge)
    for each in strangers[1:]:
        each.say(recorded)
    strangers[0].say(b"")


def borrow_of_a_stock_server(strangers: list[Stranger]) -> None:
    """Have another server of the same key sign the challenge, as servers do for stock clients that have shown it."""
    for each in strangers:
        other = ServerHandshake({"admin": KEY})
        other.opening()
        asked = b"#CHALLENGE#" + each.challenge
        each.say(other.receive(struct.pack("!i", len(asked)) + asked)[4:])


WAYS = [echo, swap, ask_the_server, welcome, borrow_of_a_client, replay, borrow_of_a_stock_server]


@pytest.mark.parametrize("way", WAYS)
def test_no_challenge_is_answered_by_reflecting_it(
    server: ManagerServer, way: Callable[[list[Stranger]], None]
) -> None:
    """0 of 100 that are open at once, on a unix socket and over TCP; who has the key gets in meanwhile."""
    strangers = [Stranger(server) for _ in range(ATTEMPTS)]
    assert len({each.challenge for each in strangers}) == ATTEMPTS
    way(strangers)
    with StockClient(server.address, authkey=KEY) as friend:
        assert not friend.closed
    assert sum(each.is_in() for each in strangers) == 0


def test_those_who_have_the_key_are_let_in(server: ManagerServer) -> None:
    """Both kinds, as this test tells it: else the others would prove nothing."""
    import hmac

    native, stock = Stranger(server), Stranger(server)
    native.say(hello(native.challenge))
    stock.say(b"{sha256}" + hmac.digest(KEY, stock.challenge, "sha256"))
    assert native.is_in() and stock.is_in()


class Rogue:
    """Listens without the key; passes on to a server what a client says, and tells it something like the answer."""

    def __init__(self, server: ManagerServer, change: Callable[[bytes], bytes]) -> None:
        self._server = server
        self._change = change
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        near = self._listener.accept()[0]
        near.settimeout(PATIENCE)
        far = Stranger(self._server)
        with near, far.sock:
            near.sendall(struct.pack("!i", len(far.opening)) + far.opening)
            size = near.recv(4, socket.MSG_WAITALL)
            if len(size) == 4:
                said = near.recv(struct.unpack("!i", size)[0], socket.MSG_WAITALL)
                far.say(said)
                answered = self._change(far.hear())
                near.sendall(struct.pack("!i", len(answered)) + answered)

    def __enter__(self) -> Rogue:
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread.join()
        self._listener.close()


@pytest.mark.parametrize("offset", [0, 12, 43, 60, -1])
def test_a_proof_that_was_changed_on_the_way_is_none(server: ManagerServer, offset: int) -> None:
    """The client says so, and sends nothing more: the greeting is covered, with the table of types."""

    def changed(message: bytes) -> bytes:
        data = bytearray(message)
        data[offset] ^= 1
        return bytes(data)

    with Rogue(server, changed) as rogue, socket.create_connection(rogue.address, PATIENCE) as sock:
        client = ClientHandshake(KEY)
        with pytest.raises(AccessDenied, match="does not know the key"):
            while not client.done:
                sock.sendall(client.receive(sock.recv(1 << 20)))


@pytest.mark.parametrize("said", [b"#WELCOME#", b"#FAILURE#", b"", b"#DENIED#"])
def test_a_rogue_has_a_client_show_nothing_more(server: ManagerServer, said: bytes) -> None:
    """Whatever it answers to the hello: no other protocol is tried, and no other answer is computed."""
    with Rogue(server, lambda message: said) as rogue, socket.create_connection(rogue.address, PATIENCE) as sock:
        client = ClientHandshake(KEY)
        sent = b""
        with pytest.raises(Exception, match="does not know the key|stock multiprocessing|another key"):
            while not client.done:
                answer = client.receive(sock.recv(1 << 20))
                sent += answer
                sock.sendall(answer)
    assert sent.count(b"#REGISTRY#1") == 1 and len(sent) == 4 + 75
