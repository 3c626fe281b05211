"""Byte streams to a server: deadlines, ends, and what may answer at an address."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from servers import KEY, running

from registry import ManagerServer, _codec, _transport
from registry._addresses import parse
from registry._auth import ServerHandshake
from registry._transport import DeadlinePassed, Greeting, SocketTransport, dial
from registry.errors import AccessDenied, ServerNotFound


@pytest.fixture
def pair() -> Iterator[tuple[SocketTransport, socket.socket]]:
    near, far = socket.socketpair()
    transport = SocketTransport(near)
    yield transport, far
    transport.close()
    far.close()


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Serve one connection by a function, and give the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            with listener.accept()[0] as peer:
                serve(peer)

        with running(run):
            yield listener.getsockname()[1]


def soon(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


# -- the stream -----------------------------------------------------------------------------------


def test_bytes_go_both_ways(pair: tuple[SocketTransport, socket.socket]) -> None:
    """What is sent arrives, and the end of the peer is an empty read."""
    transport, far = pair
    transport.send(b"there")
    assert far.recv(64) == b"there"
    far.sendall(b"back")
    assert transport.receive(None) == b"back"
    far.sendall(b"again")
    assert transport.receive(soon()) == b"again"
    far.close()
    assert transport.receive(soon()) == b""


def test_a_deadline_leaves_the_stream_as_it_was(pair: tuple[SocketTransport, socket.socket]) -> None:
    """A read whose deadline comes takes nothing with it."""
    transport, far = pair
    with pytest.raises(DeadlinePassed):
        transport.receive(soon(0.01))
    with pytest.raises(DeadlinePassed):
        transport.receive(soon(-1))
    far.sendall(b"late")
    assert transport.receive(soon()) == b"late"


def test_a_deadline_is_not_what_handlers_raise() -> None:
    """A `TimeoutError` of a signal handler can be told from our own deadline."""
    assert not issubclass(DeadlinePassed, OSError)


def test_close_ends_a_read_in_another_thread(pair: tuple[SocketTransport, socket.socket]) -> None:
    """A thread that waits for bytes learns at once that the stream was closed."""
    transport, _ = pair
    began = threading.Event()

    def wait() -> None:
        began.set()
        try:
            assert transport.receive(None) == b""
        except OSError:
            pass  # it was closed before the read began

    with running(wait):
        began.wait()
        transport.close()


def test_a_closed_stream_tells_so_also_near_a_deadline(pair: tuple[SocketTransport, socket.socket]) -> None:
    """The poll that a near deadline needs takes a closed socket for readable, and the read tells the truth."""
    transport, _ = pair
    transport.close()
    with pytest.raises(OSError):
        transport.receive(soon(0.5))
    with pytest.raises(OSError):
        transport.send(b"x")


def test_dropping_says_nothing_to_the_peer(pair: tuple[SocketTransport, socket.socket]) -> None:
    """A forked child lets go of the descriptor; the connection of its parent goes on."""
    transport, far = pair
    parents = transport._sock.dup()
    transport.drop()
    parents.sendall(b"still here")
    assert far.recv(64) == b"still here"
    parents.close()


def test_a_peer_that_never_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that makes no progress ends, so that no call waits for ever in it."""
    monkeypatch.setattr(_transport, "STUCK", 0.05)
    near, far = socket.socketpair()
    transport = SocketTransport(near)
    with pytest.raises(OSError) as caught:
        transport.send(b"x" * 50_000_000)
    assert caught.value.errno is not None
    transport.close()
    far.close()


# -- getting one ----------------------------------------------------------------------------------


def test_dialing_a_server(home: Path) -> None:
    """Both ends prove the key, and the server tells who it is."""
    with ManagerServer("here", KEY) as server:
        dialed = dial(parse("here"), KEY, soon())
        assert dialed.same_user
        assert dialed.greeting.name == "here"
        assert dialed.greeting.label.startswith(f"'here' (pid {dialed.greeting.pid}, since ")
        assert set(dialed.greeting.table) == set(server.plugins.declarations)
        dialed.transport.close()


def test_another_key_is_denied(home: Path) -> None:
    """A wrong key is told as such, with the address and the cure, and leaves nothing behind."""
    with ManagerServer("here", KEY) as server:
        with pytest.raises(AccessDenied, match="has another key than this process") as caught:
            dial(parse("here"), b"wrong", soon())
        assert caught.value.server == "here"
        assert not server.host.clients


def test_nobody_listens(home: Path) -> None:
    """Where nobody listens the system's own error tells it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        dial(parse(f"tcp://127.0.0.1:{port}"), KEY, soon())
    with pytest.raises(FileNotFoundError):
        dial(parse("unix:///nowhere/socket"), KEY, soon())


def test_a_server_of_another_kind() -> None:
    """What speaks another protocol is no server of ours."""
    with listening(lambda peer: peer.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")) as port:
        with pytest.raises(ServerNotFound, match="what answers there is no server of ours"):
            dial(parse(f"tcp://127.0.0.1:{port}"), KEY, soon())


def test_a_stock_server_is_told_with_its_address() -> None:
    """Who asks a stock server for our protocol is told how to speak the other one, and has signed nothing for it."""
    sent: list[bytes] = []

    def refuse(peer: socket.socket) -> None:
        with Connection(os.dup(peer.fileno())) as connection:
            connection.send_bytes(b"#CHALLENGE#{sha256}" + bytes(40))
            sent.append(connection.recv_bytes(256))
            connection.send_bytes(b"#FAILURE#")

    with listening(refuse) as port, pytest.raises(ServerNotFound) as caught:
        dial(parse(f"tcp://127.0.0.1:{port}"), KEY, soon())
    assert str(caught.value) == (
        f"no server at tcp://127.0.0.1:{port}: what answers there is no server of ours: it answered like a stock "
        f'multiprocessing server; "stock+tcp://127.0.0.1:{port}" is how to use one'
    )
    assert sent[0].startswith(b"#REGISTRY#")


def test_a_server_that_says_nothing() -> None:
    """One that accepts and then is silent takes no longer than the deadline, and is told from one that does not."""
    with listening(lambda peer: peer.recv(1)) as port, pytest.raises(DeadlinePassed, match="said nothing"):
        dial(parse(f"tcp://127.0.0.1:{port}"), KEY, soon(0.05))
    with listening(lambda peer: (peer.sendall(b"1"), peer.recv(1))) as port, pytest.raises(DeadlinePassed, match="^$"):
        dial(parse(f"tcp://127.0.0.1:{port}"), KEY, soon(0.05))
    with pytest.raises(DeadlinePassed, match="^$"):
        dial(parse("tcp://127.0.0.1:1"), KEY, soon(-1))


@pytest.mark.parametrize(
    "body", [b"", b"\x01", _codec.encode({"name": "x"}), _codec.encode([1]), _codec.encode({"pid": "x"})]
)
def test_a_greeting_that_cannot_be_read(body: bytes) -> None:
    """A proof that carries nonsense is an error of ours, and no crash."""

    def serve(peer: socket.socket) -> None:
        handshake = ServerHandshake({"admin": KEY})
        peer.sendall(handshake.opening())
        while handshake.outcome is None:
            peer.sendall(handshake.receive(peer.recv(4096)))
        peer.sendall(handshake.accept(body))

    with listening(serve) as port, pytest.raises(ServerNotFound, match="a greeting that cannot be read"):
        dial(parse(f"tcp://127.0.0.1:{port}"), KEY, soon())


@pytest.mark.parametrize("row", [["x"], ["x", "often", None, False, [], [], [], {}, ""], ["x", *[5] * 9]])
def test_a_row_of_the_table_that_cannot_be_read(row: list[object]) -> None:
    """It is refused when it is asked for, and hides none of the others."""
    fields = {"name": "x", "pid": 1, "since": 0.0, "host": "h", "version": "1", "epoch": 0, "life": b""}
    good = ["dict", "name", None, False, ["get"], [], [], {}, ""]
    rows = {"x": _codec.encode(row), "dict": _codec.encode(good), "list": _codec.encode(good)}
    table = Greeting(_codec.encode({**fields, "protocol": 1, "types": rows}), "here").table
    assert list(table) == ["x", "dict", "list"]
    assert table["dict"].exposed == ("get",)
    with pytest.raises(ServerNotFound, match="the row of list is that of dict"):
        table["list"]
    for _ in range(2):
        with pytest.raises(ServerNotFound, match="a greeting that cannot be read"):
            table["x"]
    assert table.get("y") is None


def test_a_greeting_names_the_day_of_an_old_server() -> None:
    """A server that runs since another day is not given a time alone."""
    fields = {"name": "x", "pid": 1, "since": 0.0, "host": "h", "version": "1", "epoch": 0, "life": b""}
    fields |= {"protocol": 1, "types": {}}
    assert Greeting(_codec.encode(fields), "here").label.startswith("'x' (pid 1, since 19")
