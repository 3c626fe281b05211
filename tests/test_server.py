"""The server: its address, its end, peers that misbehave, and who waits for whom."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from servers import KEY, THINGS, Script, Served, another, running, until
from things import ALL

from registry import ManagerServer, _codec, _connection, _process, _wire, connect
from registry import server as module
from registry._addresses import Place, ServerLock, parse
from registry._limits import Limits
from registry._transport import SocketTransport, dial
from registry._wire import Kind
from registry.errors import AccessDenied, ServerNotFound, StateLost


@pytest.fixture
def server(home: Path) -> Iterator[ManagerServer]:
    with ManagerServer("here", KEY, plugins=ALL) as server:
        yield server


class Raw:
    """A client that speaks frames, and obeys no rule but those that a test wants."""

    def __init__(self, address: str) -> None:
        dialed = dial(parse(address), KEY, float("inf"))
        assert isinstance(dialed.transport, SocketTransport)
        self.transport = dialed.transport
        self.sock = dialed.transport._sock
        self.reader = _wire.Reader()
        hello = _wire.Attach(os.urandom(16), 0, "", "raw", "raw", "1", 0, {})
        self.transport.send(_wire.pack(Kind.ATTACH, _wire.encode(hello), generation=1))
        assert self.frame().kind == Kind.ATTACHED

    def frame(self) -> _wire.Frame:
        while (frame := self.reader.next()) is None:
            data = self.transport.receive(None)
            if not data:
                raise EOFError
            self.reader.feed(data)
        return frame

    def call(self, seq: int, typeid: str, name: str, method: str, *args: object, received: int = 0) -> bytes:
        """Return the frame of a call."""
        definition = _wire.encode([typeid, name, _wire.msgspec.Raw(_codec.encode([[], {}]))])
        body = _wire.CallBody(
            hash((typeid, name)) & 0xFFFF,
            method,
            _wire.msgspec.Raw(_codec.encode([list(args), {}])),
            {_wire.DEFINITION: _wire.msgspec.Raw(definition)},
        )
        return _wire.pack(Kind.CALL, _wire.encode(body), generation=1, sequence=seq, received=received)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *exc: object) -> None:
        self.transport.close()


@contextlib.contextmanager
def held_up(server: ManagerServer) -> Iterator[None]:
    """Keep the server's loop from running, so that what arrives meanwhile is all there when it goes on."""
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        go.wait()

    assert server._loop is not None
    server._loop.call_soon_threadsafe(hold)
    held.wait()
    try:
        yield
    finally:
        go.set()


# -- the address ----------------------------------------------------------------------------------


def test_one_server_at_an_address(server: ManagerServer) -> None:
    """A second one is refused, naming the pid of the first; at a port too."""
    with pytest.raises(OSError, match=f"here is served already by pid {os.getpid()}; stop it, or take another name"):
        ManagerServer("here", KEY).open()
    with ManagerServer(("127.0.0.1", 0), KEY) as other:
        host, port = other.address
        assert other.url == f"tcp://127.0.0.1:{port}" and host == "127.0.0.1"
        with pytest.raises(OSError, match="is a server running there already"):
            ManagerServer(other.url, KEY).open()
    with connect("here", KEY) as client:
        assert client.counter("c").incr() == 1


def test_a_network_address_needs_a_word() -> None:
    """Where other hosts could connect without encryption, nothing is bound unless that is said."""
    for address in ("tcp://0.0.0.0:0", ("", 0), "tcp://[::]:0"):
        with pytest.raises(AccessDenied, match="insecure_network=True"):
            ManagerServer(address, KEY)
    server = ManagerServer("tcp://0.0.0.0:0", KEY, insecure_network=True)
    server.open()
    server.stop()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"log": "tape"}, "log must be 'memory', 'process' or 'disk'"),
        ({"trust": "all"}, "trust must be"),
        ({"lease": 0}, "lease must be"),
        ({"address": "memory://"}, "a server listens at"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], text: str) -> None:
    """A wrong argument names what it may be."""
    with pytest.raises(ValueError, match=text):
        ManagerServer(**{"address": "here", **arguments})


def test_a_left_over_socket_is_no_server(home: Path) -> None:
    """A socket file that a dead server left is replaced."""
    with Served("here") as dead:
        dead.kill()
    assert (home / "here" / "socket").exists()
    with ManagerServer("here", KEY), connect("here", KEY) as client:
        assert client.counter("c").incr() == 1
    assert not (home / "here" / "socket").exists()


def test_start_and_stop(home: Path) -> None:
    """`start` returns once clients can connect, and may be called once; `stop` may come at any time."""
    server = ManagerServer("here", KEY)
    server.stop()
    assert server.start() is server
    with pytest.raises(RuntimeError, match="started already"):
        server.start()
    with connect("here", KEY) as client:
        client.counter("c").incr()
        server.stop()
        server.stop()
    with pytest.raises(ServerNotFound):
        connect("here", KEY, start=False)
    again = ManagerServer("here", KEY)
    again.open()
    again.stop()
    assert not (home / "here" / "socket").exists()


def test_a_server_that_cannot_run_says_so(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`start` raises what kept the loop from running, and does not wait for ever."""

    def broken() -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(module, "new_loop", broken)
        with pytest.raises(OSError, match="Too many open files"):
            ManagerServer("here", KEY).start()
    with ManagerServer("here", KEY):
        pass


# -- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(home: Path, number: int) -> None:
    """Whoever waits is told why, and the server ends in order."""
    with Served("here") as served, another("here") as client:

        def wait() -> None:
            with pytest.raises(StateLost, match="the server was stopped"):
                client.queue("q").get()

        with running(wait):
            until(lambda ask: ask.statistics()["waiting"] == 1, client)
            served.signal(number)
        assert served.line() == "ended"
        assert served.wait() == 0
    assert not (home / "here" / "socket").exists()


def test_asked_to_stop(server: ManagerServer) -> None:
    """The answer to the question leaves before the server does."""
    with another("here") as client:
        assert client._home.link().ask("stop") == os.getpid()
    assert server._thread is not None
    server._thread.join(10)
    assert not server._thread.is_alive()


def test_an_idle_server_ends(home: Path) -> None:
    """With neither sessions nor objects for `idle_limit`, a server that was told to ends by itself."""
    server = ManagerServer("here", KEY)
    server.idle_limit = 0.01
    server.start()
    assert server._thread is not None
    server._thread.join(10)
    assert not server._thread.is_alive()


def test_a_fork_of_the_server_holds_nothing(home: Path) -> None:
    """A child of the server's process holds neither port nor lock nor connection once the server is gone."""
    code = """
import os, signal, sys
from registry import ManagerServer
server = ManagerServer(sys.argv[1], sys.argv[2].encode()).start()
print(server.url, flush=True)
sys.stdin.readline()
child = os.fork()
if not child:
    import gc
    gc.collect()
    signal.pause()
print(child, flush=True)
signal.pause()
"""
    for address in ("here", "tcp://127.0.0.1:0"):
        with Script(code, address, KEY.decode()) as script:
            url = script.line()
            with another(url, start=False, timeout=0.5) as client, Raw(url) as raw:
                client.counter("c").incr()
                script.say()
                child = int(script.line())
                try:
                    # The parent goes on, and its lock is not let go of by the child.
                    assert client.counter("c").incr() == 2
                    assert not ServerLock(Place(url).lock).acquire()
                    script.kill()
                    with pytest.raises(EOFError):
                        raw.frame()
                    with pytest.raises(ServerNotFound):
                        connect(url, KEY, start=False)
                    with ManagerServer(url, KEY), connect(url, KEY) as new:
                        assert new.counter("c").incr() == 1
                finally:
                    os.kill(child, signal.SIGKILL)


# -- the collector of cyclic garbage ----------------------------------------------------------------


def test_what_a_server_holds_is_spared_by_the_collector(home: Path) -> None:
    """`run` freezes what was recovered and puts full collections off; afterwards all is as it was."""
    before, found = gc.get_threshold(), []

    def ready() -> None:
        found.append((gc.get_freeze_count(), gc.get_threshold()))
        server.stop()

    server = ManagerServer("here", KEY)
    server.on_ready = ready
    server.run()
    assert found[0][0] > 10_000
    assert found[0][1] == (*before[:2], _process.SPARING)
    assert (gc.get_freeze_count(), gc.get_threshold()) == (0, before)


def test_a_server_on_a_thread_leaves_the_collector_alone(home: Path) -> None:
    """`start` is in somebody's program, whose garbage is not the server's business."""
    before = gc.get_threshold()
    with ManagerServer("here", KEY):
        assert (gc.get_freeze_count(), gc.get_threshold()) == (0, before)


def test_sessions_leave_no_cycles_behind(home: Path) -> None:
    """Calls, errors, waits, deletions and ends of sessions leave the server nothing that only a collection frees."""
    code = """
import gc, sys
from registry import ManagerServer
with ManagerServer(sys.argv[1], sys.argv[2].encode()):
    gc.disable()
    print("ready", flush=True)
    for line in sys.stdin:
        print(gc.collect(), flush=True)
"""

    def use() -> None:
        with another("here", start=False) as client:
            entries, queue, lock = client.dict("d"), client.queue("q"), client.lock("l")
            entries["k"] = [1, 2]
            assert entries["k"] == [1, 2]
            with pytest.raises(KeyError):
                entries["nope"]
            with pytest.raises(Empty):
                queue.get(timeout=0.001)
            with lock, entries.edit("k") as value:
                value.append(3)
            lock.acquire()
            client.delete(queue)

    with Script(code, "here", KEY.decode()) as script:
        assert script.line() == "ready"
        use()
        script.say()
        script.line()  # what is made once
        for _ in range(20):
            use()
        script.say()
        assert script.line() == "0"


# -- processes that end ---------------------------------------------------------------------------


def test_last_words_are_heard_though_nobody_was_reading(server: ManagerServer) -> None:
    """What a process had sent before it ended is read before its end counts, however much waits to be read."""
    code = """
import os, sys
sys.path.insert(0, sys.argv[3])
from servers import another
client = another(sys.argv[1], sys.argv[2].encode())
link = client._home.link()
lock, notes = client.lock("l"), client.notes("n")
grant = lock.acquire()
notes.add("first")
print("held", flush=True)
sys.stdin.readline()
# One call after the other without waiting for a reply, the release last; then the end, without a goodbye.
from registry._link import Pending
from registry import _codec
def post(proxy, method, *args):
    remote = proxy._remote
    slot = Pending(2, remote._handle, method, _codec.encode_arguments(args, {}), remote, False)
    with link._sending:
        slot.seq = link._next
        link._next += 1
        link._pending[slot.seq] = slot
        link._send(slot)
frames, send = [], link._transport.send
link._transport.send = frames.append
for number in range(300):
    post(notes, "add", number)
post(lock, "release", grant.number)
send(b"".join(frames))
os.kill(os.getpid(), 9)
"""
    with connect("here", KEY) as client:
        with Script(code, server.url, KEY.decode(), Path(__file__).parent) as script:
            assert script.line() == "held"
            with held_up(server):
                script.say()
                assert script.wait() == -9
        grant = client.lock("l").acquire(timeout=10)
        assert grant and not grant.abandoned
        assert len(client.notes("n").all()) == 301


@pytest.mark.parametrize("loop", [module.new_loop, asyncio.new_event_loop], ids=["installed", "asyncio"])
def test_last_words_of_a_peer_that_does_not_read_are_heard(
    home: Path, monkeypatch: pytest.MonkeyPatch, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Where reading was paused because a peer does not read, what it has sent counts when writing to it fails."""
    monkeypatch.setattr(module, "new_loop", loop)
    with ManagerServer("here", KEY, plugins=ALL) as server, connect("here", KEY) as client:
        notes, lock = client.notes("n"), client.lock("l")
        notes.add("first")
        with Raw("here") as raw:
            raw.transport.send(raw.call(1, "lock", "l", "acquire"))
            assert raw.frame().kind == Kind.REPLY
            frames = [raw.call(seq, "notes", "n", "big", 100_000) for seq in range(2, 102)]
            raw.transport.send(b"".join(frames) + raw.call(102, "lock", "l", "release"))
            (connection,) = [each for each in server._connections if each._label.startswith("raw")]
            until(lambda ask: connection._blocked, client)
            assert lock.locked()
        until(lambda ask: connection not in server._connections, client)
        grant = lock.acquire(timeout=0)
        assert grant and not grant.abandoned


def test_a_session_without_a_connection_lives_on_its_lease(home: Path) -> None:
    """A connection may go and come; only when the lease has run out is what was held free, and flagged."""
    with ManagerServer(("127.0.0.1", 0), KEY, lease=0.3) as server, connect(server.url, KEY) as client:
        with Raw(server.url) as raw:
            raw.transport.send(raw.call(1, "lock", "l", "acquire"))
            assert raw.frame().kind == Kind.REPLY
        assert not client.lock("l").acquire(timeout=0)
        grant = client.lock("l").acquire(timeout=10)
        assert grant and grant.abandoned and grant.holder == "raw"


def test_a_stall_expires_nobody(home: Path) -> None:
    """The time in which the server itself stood still does not count against a lease."""
    with ManagerServer(("127.0.0.1", 0), KEY, lease=0.4) as server, connect(server.url, KEY) as client:
        raw = Raw(server.url)
        raw.transport.send(raw.call(1, "lock", "l", "acquire"))
        assert raw.frame().kind == Kind.REPLY
        raw.transport.close()
        until(lambda ask: server.host._suspended, client)
        with held_up(server):
            threading.Event().wait(0.6)  # what is looked at is time itself
        for _ in range(20):
            assert client.statistics()["sessions"] == 2
        until(lambda ask: ask.statistics()["sessions"] == 1, client)


def test_a_silent_session_ends_and_is_not_read_any_more(home: Path) -> None:
    """What it held is free and flagged; the rest of a frame that it had begun, and what follows, takes no effect."""
    with ManagerServer(("127.0.0.1", 0), KEY, lease=0.3) as server, connect(server.url, KEY) as client:
        with Raw(server.url) as raw:
            raw.transport.send(raw.call(1, "lock", "l", "acquire"))
            assert raw.frame().kind == Kind.REPLY
            frame = raw.call(2, "counter", "c", "incr")
            raw.transport.send(frame[:50])
            grant = client.lock("l").acquire(timeout=10)
            assert grant and grant.abandoned and grant.holder == "raw"
            with pytest.raises((EOFError, OSError)):
                raw.transport.send(frame[50:])
                raw.transport.send(raw.call(3, "counter", "c", "incr"))
                raw.frame()
        assert client.counter("c").get() == 0
        assert client.statistics()["sessions"] == 1


def test_heartbeats_keep_a_session(home: Path) -> None:
    """Any frame does; the answer tells that it has come."""
    with ManagerServer(("127.0.0.1", 0), KEY, lease=0.4) as server, connect(server.url, KEY) as client:
        with Raw(server.url) as raw:
            raw.transport.send(raw.call(1, "lock", "l", "acquire"))
            assert raw.frame().kind == Kind.REPLY
            began = server.now()
            while server.now() < began + 3 * server.lease:
                raw.transport.send(_wire.pack(Kind.HEARTBEAT, b"beat", generation=1))
                frame = raw.frame()
                assert (frame.kind, frame.body) == (Kind.HEARD, b"beat")
                client.statistics()
            assert not client.lock("l").acquire(timeout=0)


def test_a_stall_expires_nobody_whose_heartbeats_wait(home: Path) -> None:
    """Leases are judged only when what had come meanwhile has been read, whatever the loop does first."""
    with ManagerServer(("127.0.0.1", 0), KEY, lease=0.4) as server, connect(server.url, KEY) as client:
        with Raw(server.url) as raw:
            with held_up(server):
                raw.transport.send(_wire.pack(Kind.HEARTBEAT, b"", generation=1))
                threading.Event().wait(1.0)  # what is looked at is time itself
            assert raw.frame().kind == Kind.HEARD
            assert client.statistics()["sessions"] == 2


# -- peers that misbehave -------------------------------------------------------------------------


def test_a_client_that_sends_without_end_does_not_keep_others_waiting(server: ManagerServer) -> None:
    """Of what lies there from one client a few calls are taken, and then it is another's turn."""
    with Raw("here") as stream, Raw("here") as other:
        with held_up(server):
            stream.transport.send(b"".join(stream.call(seq, "notes", "n", "add", 1) for seq in range(1, 301)))
            other.transport.send(other.call(1, "notes", "n", "add", 1))
        assert _codec.decode(other.frame().body) <= 10
        replies = [_codec.decode(stream.frame().body) for _ in range(300)]
        assert replies == sorted(replies)
        assert replies[-1] == 301


def test_a_peer_that_never_reads_is_bounded_and_cut(server: ManagerServer) -> None:
    """Its calls are no longer taken once its output waits, also those that had been read; then it is cut."""
    stuck = threading.Event()
    server.limits = Limits(stuck=0.2)
    size = 100_000
    with Raw("here") as raw, connect("here", KEY) as client:
        assert client.notes("n").add(1) == 1
        before = server.host.calls
        frames = b"".join(raw.call(seq, "notes", "n", "big", size) for seq in range(1, 1001))
        raw.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while frames:
                frames = frames[raw.sock.send(frames) :]
        (connection,) = [each for each in server._connections if each._label.startswith("raw (pid ")]
        until(lambda ask: connection._blocked, client)
        most = 0
        for _ in range(50):
            client.notes("n").add(1)
            most = max(most, connection._transport.get_write_buffer_size())
        assert most < server.limits.unsent + _connection.FRAMES_A_TURN * size
        assert server.host.calls - before < 400
        poll = select.poll()
        poll.register(raw.sock, select.POLLHUP)
        assert poll.poll(10_000)
        stuck.set()


def test_a_peer_that_reads_again_gets_everything(server: ManagerServer) -> None:
    """A slow reader is only paused: every reply comes, in order."""
    size = 100_000
    with Raw("here") as raw, connect("here", KEY) as client:
        client.notes("n").add(1)
        frames = b"".join(raw.call(seq, "notes", "n", "big", size) for seq in range(1, 201))
        raw.transport.send(frames)
        (connection,) = [each for each in server._connections if each._label.startswith("raw (pid ")]
        until(lambda ask: connection._blocked, client)
        for seq in range(1, 201):
            frame = raw.frame()
            assert frame.sequence == seq and len(frame.body) > size


def test_an_endless_stream_starves_nobody(server: ManagerServer) -> None:
    """A call of another client is taken after two turns of a stream at most, counted in calls and not in time."""
    with Raw("here") as raw, Raw("here") as other:
        stream = b"".join(raw.call(seq, "notes", "n", "add", "stream") for seq in range(1, 2001))
        raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        with held_up(server):
            raw.sock.setblocking(False)
            sent = 0
            with contextlib.suppress(BlockingIOError):
                while sent < len(stream):
                    sent += raw.sock.send(stream[sent:])
            other.transport.send(other.call(1, "notes", "n", "add", "other"))
            assert sent > 20_000
        assert other.frame().kind == Kind.REPLY
        hosted = server.host.engine.find("notes", "n")
        assert hosted is not None
        assert hosted.instance.rows.index("other") <= 2 * 64


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 64,
        _wire.pack(Kind.CALL, b"", generation=1, sequence=1),
        _wire.pack(Kind.CALL, b"\x94\x01\xa3add\x92\x90\x80\x80", generation=1, sequence=1),
        _wire.pack(Kind.REPLY, b"", generation=1, sequence=1),
        _wire.pack(99, b"", generation=1),
    ],
)
def test_nonsense_ends_its_connection_alone(
    server: ManagerServer, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    """A frame that no client sends is refused with the reason; others go on."""
    with Raw("here") as raw, another("here") as client, caplog.at_level(logging.WARNING, "registry"):
        raw.transport.send(data)
        assert raw.frame().kind == Kind.REFUSED
        with pytest.raises(EOFError):
            raw.frame()
        assert client.counter("c").incr() == 1
    assert "closed the connection of raw" in caplog.text


def test_nothing_is_taken_after_a_goodbye(server: ManagerServer) -> None:
    """A session that has ended takes no further calls, and the connection does not come to harm."""
    with Raw("here") as raw, another("here") as client:
        raw.transport.send(raw.call(1, "notes", "n", "add", 1))
        assert raw.frame().kind == Kind.REPLY
        raw.transport.send(
            _wire.pack(Kind.GOODBYE, b"", generation=1, received=1) + raw.call(2, "notes", "n", "add", 2)
        )
        until(lambda ask: ask.statistics()["sessions"] == 1, client)
        assert client.notes("n").all() == [1]


def test_a_peer_that_does_not_show_the_key_is_cut(server: ManagerServer) -> None:
    """Whoever connects and then is silent holds a connection for a moment only."""
    server.limits = Limits(handshake=0.05)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(server.address))
        sock.settimeout(10)
        assert sock.recv(4096)
        assert sock.recv(4096) == b""


def test_the_key_file_is_made_at_first_need(home: Path) -> None:
    """A name without a key gets one that only its user can read, and clients find it."""
    with ManagerServer("fresh"), connect("fresh") as client:
        assert client.counter("c").incr() == 1
        assert (home / "fresh" / "key").stat().st_mode & 0o777 == 0o600
        assert (home / "fresh" / "socket").stat().st_mode & 0o777 == 0o600


def test_plugins_from_a_file(home: Path) -> None:
    """A server in another process takes a plugin from a file."""
    with Served("here", plugins=(THINGS,)), connect("here", KEY) as client:
        assert client.ticket(4).bump() == 5
        assert client.hall().add(1) == 1
