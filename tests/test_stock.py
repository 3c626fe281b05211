"""Stock `multiprocessing` clients: who they are, what they may send, what they are told."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing import AuthenticationError
from multiprocessing.managers import BaseManager, BaseProxy, RemoteError, Token
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import ManagerServer, SharedObject, _image, connect
from registry._attachments import Client, Identity
from registry._framing import BadMessage, cut, frame
from registry._host import Host
from registry._lifelines import Lifelines
from registry._peers import Peer
from registry._stock import LARGEST, STOCK_GRACE, StockConnection, StockSessions
from registry_containers import COUNTER, DICT
from registry_queues import QUEUE
from registry_sync import LOCK, RLOCK

OURS = "this-machine:1000"
START = 1000.0


class Jar:
    """Keep what it is given, until its last proxy goes."""

    def __init__(self, first: object = None) -> None:
        self.content = first

    def put(self, value: object) -> None:
        """Keep a value."""
        self.content = value

    def get(self) -> object:
        """Return what is kept."""
        return self.content


class Sleeper:
    """Block, as only a threaded object may."""

    def __init__(self, word: str = "done") -> None:
        self.word = word

    def nap(self) -> str:
        """Return what it was made with."""
        return self.word


class Opened:
    """A class of a client's own that notes when one is unpickled."""

    times = 0

    def __setstate__(self, state: object) -> None:
        Opened.times += 1

    def __getstate__(self) -> object:
        return ("state",)


JAR = SharedObject("jar", Jar, per="call", readonly=("get",))
BOARD = SharedObject("board", dict, per="server")
SLEEPER = SharedObject("sleeper", Sleeper, threaded=True)
TYPES = [DICT, COUNTER, QUEUE, LOCK, RLOCK, JAR, BOARD]


class Unwatched(Lifelines):
    """Processes that are none."""

    def watch(self, client: Client, pidfd: int) -> None:
        """Let go of what is no pidfd."""
        os.close(pidfd)


class Server:
    """A server without sockets, whose clock stands still until it is moved."""

    def __init__(self, trust: str = "uid", image: bytes | None = None) -> None:
        self.trust = trust
        self.authkey = b"key"
        self.address = "/run/ours/socket"
        self.url = "unix:///run/ours/socket"
        self.time = START
        self.stopping = False
        self.lifelines = Unwatched(lambda client: None)
        identity = Identity(self.url, "ours", 1, START, "here", "0", "3", 1, b"life", {})
        declarations = {t.typeid: t for t in TYPES}
        engine = _image.restore(declarations, image) if image is not None else None
        self.host = Host(declarations, identity, seed=b"seed", now=START, engine=engine)
        self.stock = StockSessions(self)

    def now(self) -> float:
        """Return the time."""
        return self.time

    def _begin_stop(self) -> None:
        self.stopping = True

    def pass_time(self, seconds: float) -> None:
        """Move the clock."""
        self.time += seconds
        self.host.advance(self.time)

    def end(self, connection: Connection) -> None:
        """Let the process of a connection die."""
        session = connection.stock.session
        assert session is not None
        assert session.client.attachment is not None
        session.client.attachment.sink.drain()
        self.host.end(session.client, self.time)


class Elsewhere:
    """A socket whose other end is on another host, so that the kernel knows no process."""

    def getpeername(self) -> object:
        """Return the other end."""
        return "10.0.0.9", 40000

    def getsockname(self) -> object:
        """Return this end."""
        return "10.0.0.1", 6000


class Connection:
    """One connection of a stock client."""

    def __init__(self, server: Server, peer: Peer, domain: str) -> None:
        self.sock = Elsewhere()
        self.server = server
        self.sent = bytearray()
        self.closed = False
        pidfd = os.open(os.devnull, os.O_RDONLY) if peer.pid is not None else None
        self.stock: StockConnection = server.stock.accept(peer, pidfd, domain, self)

    def write(self, data: bytes) -> None:
        """Take what the server sends."""
        self.sent += data

    def end(self) -> None:
        """Close, as the server wants."""
        self.closed = True
        self.stock.lost()

    def drain(self) -> None:
        """Take what is left of a dead client: the end of its stream."""
        self.stock.lost()

    def answers(self) -> list[tuple[str, Any]]:
        """Return the answers that have come since."""
        found = []
        while (message := cut(self.sent)) is not None:
            found.append(pickle.loads(message))
        return found

    def ask(self, ident: object, method: str, *args: object, **kwds: object) -> list[tuple[str, Any]]:
        """Send a request, and return what is answered at once."""
        self.stock.feed(frame(pickle.dumps((ident, method, args, kwds), 2)))
        return self.answers()

    def call(self, ident: object, method: str, *args: object, **kwds: object) -> Any:
        """Send a request, and return the value of its answer or raise its error."""
        ((kind, value),) = self.ask(ident, method, *args, **kwds)
        if kind == "#RETURN":
            return value
        if kind == "#ERROR":
            raise value
        raise RemoteError(value)


class Process:
    """A stock client process on this machine, or where `pid` is None, on another one."""

    def __init__(self, server: Server, pid: int | None = 1, host: str = "here", domain: str = OURS) -> None:
        self.server = server
        kind = "tcp" if pid is None else "unix"
        self.peer = Peer(kind, 1000, pid, pid, host, "client.py")
        self.domain = domain

    def once(self, function: str, *args: object, **kwds: object) -> Any:
        """Ask something on a connection of its own, as stock clients do."""
        connection = Connection(self.server, self.peer, self.domain)
        value = connection.call(None, function, *args, **kwds)
        assert connection.closed
        return value

    def thread(self, name: str = "MainProcess") -> Connection:
        """Open the connection of a thread."""
        connection = Connection(self.server, self.peer, self.domain)
        assert connection.call(None, "accept_connection", name) is None
        return connection

    def make(self, typeid: str, *args: object) -> str:
        """Make an object and return its ident."""
        ident, exposed = self.once("create", typeid, *args)
        assert exposed == self.server.host.declarations[typeid].interface.exposed
        return str(ident)


@pytest.fixture
def server() -> Server:
    """Return a server that trusts processes of its own user."""
    return Server()


def locked(server: Server, ident: str) -> bool:
    """Tell whether a lock is held, as some other process sees it."""
    return bool(Process(server, 999).thread().call(ident, "locked"))


# Messages


@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(1, 60), min_size=1))
def test_messages_are_cut_out_of_any_pieces(messages: list[bytes], sizes: list[int]) -> None:
    """However the stream arrives, the messages in it are the ones that were sent."""
    stream = b"".join(map(frame, messages))
    buffer, found = bytearray(), []
    while stream or buffer:
        size = sizes[len(stream) % len(sizes)]
        buffer += stream[:size]
        stream = stream[size:]
        while (message := cut(buffer)) is not None:
            found.append(message)
        if not stream:
            break
    assert found == messages
    assert not buffer


def test_a_message_may_say_its_length_in_the_long_form() -> None:
    """A length that does not fit into four bytes comes after a -1."""
    assert cut(bytearray(struct.pack("!iQ", -1, 3) + b"abc")) == b"abc"
    assert cut(bytearray(struct.pack("!i", -1))) is None


@pytest.mark.parametrize(
    "head", [struct.pack("!i", LARGEST + 1), struct.pack("!iQ", -1, 1 << 40), struct.pack("!i", -2)]
)
def test_a_length_beyond_the_limit_is_refused(server: Server, head: bytes) -> None:
    """A connection that announces too much is closed before anything is kept for it."""
    with pytest.raises(BadMessage):
        cut(bytearray(head))
    connection = Process(server).thread()
    connection.stock.feed(head)
    assert connection.closed


def test_what_is_no_request_closes_the_connection(server: Server) -> None:
    """A pickle of something else is answered with a text."""
    connection = Connection(server, Process(server).peer, OURS)
    connection.stock.feed(frame(pickle.dumps("hello")))
    assert [kind for kind, _ in connection.answers()] == ["#TRACEBACK"]
    assert connection.closed


# Trust

ran: list[str] = []


class Bomb:
    """Run code where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return ran.append, ("boom",)


def test_a_stranger_s_pickle_is_not_opened(server: Server) -> None:
    """A peer of another user is told why it is refused, and nothing that it sent is unpickled."""
    ran.clear()
    stranger = Connection(server, Peer("tcp", host="10.0.0.9"), "")
    ((kind, error),) = stranger.ask(None, "dummy", Bomb())
    assert (kind, type(error)) == ("#ERROR", PermissionError)
    assert "registry.connect()" in str(error)
    assert "--trust key" in str(error)
    assert stranger.closed
    assert not ran


def test_a_stranger_is_served_where_the_key_is_enough() -> None:
    """With trust in the key anyone who has it may share typed values, but no pickles of classes."""
    server = Server(trust="key")
    stranger = Process(server, None, "10.0.0.9", domain="")
    prices = stranger.make("dict", "prices")
    thread = stranger.thread()
    thread.call(prices, "__setitem__", "BTC", {"usd": 1})
    assert thread.call(prices, "__getitem__", "BTC") == {"usd": 1}
    with pytest.raises(TypeError):
        thread.call(prices, "__setitem__", "path", PurePosixPath("/"))


def test_only_our_user_may_shut_the_server_down() -> None:
    """The stock shutdown stops the server, if it comes from its own user."""
    server = Server(trust="key")
    with pytest.raises(PermissionError):
        Process(server, None, "10.0.0.9", domain="").once("shutdown")
    assert not server.stopping
    assert Process(server).once("shutdown") is None
    assert server.stopping


def test_a_class_of_the_client_is_opened_by_the_reader_alone(server: Server) -> None:
    """The server unpickles a request, but never what it has kept."""
    process = Process(server)
    ident = process.make("dict", "d")
    thread = process.thread()
    thread.call(ident, "__setitem__", "k", Opened())
    before = Opened.times
    thread.stock.feed(frame(pickle.dumps((ident, "__getitem__", ("k",), {}))))
    assert Opened.times == before
    ((kind, value),) = thread.answers()
    assert (kind, type(value)) == ("#RETURN", Opened)
    assert Opened.times == before + 1
    assert "Opened" in thread.call(ident, "__str__")


def test_a_class_of_another_user_cannot_be_read() -> None:
    """What one user's process has pickled is not handed to another's."""
    server = Server(trust="key")
    ours = Process(server)
    ident = ours.make("dict", "d")
    ours.thread().call(ident, "__setitem__", "k", PurePosixPath("/"))
    with pytest.raises(TypeError, match="PurePosixPath"):
        Process(server, None, "10.0.0.9", domain="").thread().call(ident, "__getitem__", "k")


def test_handles_of_processes_are_not_shared(server: Server) -> None:
    """What multiprocessing would pass on by connecting to its owner is refused: it would hold up everyone."""
    process = Process(server)
    ident = process.make("dict", "d")
    pickled = b"cmultiprocessing.connection\nrebuild_connection\n."
    request = b"(V" + ident.encode() + b"\nV__setitem__\n(Vk\n" + pickled[:-1] + b"t(dt."
    thread = process.thread()
    thread.stock.feed(frame(request))
    ((kind, error),) = thread.answers()
    assert (kind, type(error)) == ("#ERROR", TypeError)
    assert not thread.closed


# Objects and values


def test_a_named_object_needs_its_name(server: Server) -> None:
    """Creating one without a name says what to write."""
    with pytest.raises(TypeError, match=r'\.dict\("NAME"\)'):
        Process(server).once("create", "dict")


def test_an_unknown_type_is_named(server: Server) -> None:
    """The error names the type and the server."""
    with pytest.raises(AttributeError, match="no shared type 'cookies' on server ours"):
        Process(server).once("create", "cookies", "x")


def test_a_definition_that_differs_is_refused(server: Server) -> None:
    """Arguments are the definition of an object; other ones are a conflict."""
    process = Process(server)
    process.make("queue", "q", 5)
    process.make("queue", "q")
    with pytest.raises(ValueError, match="maxsize"):
        process.once("create", "queue", "q", 6)


def test_a_dropped_record_comes_back_as_it_was(server: Server) -> None:
    """An object whose record the server has dropped is made again with the arguments that it had."""
    process = Process(server)
    ident = process.make("queue", "q", 1)
    thread = process.thread()
    thread.call(ident, "put_nowait", 1)
    process.once("decref", ident)
    other = Process(server, 2)
    native = other.make("queue", "q")
    assert native == ident
    thread.call(ident, "get_nowait")
    server.host.engine.objects.clear()
    thread.call(ident, "put_nowait", 1)
    with pytest.raises(queue.Full):
        thread.call(ident, "put_nowait", 1)


def test_one_object_for_the_whole_server(server: Server) -> None:
    """A type with one object per server takes no name, and needs no counting."""
    process = Process(server)
    ident = process.make("board")
    process.thread().call(ident, "__setitem__", "a", 1)
    process.once("decref", ident)
    assert Process(server, 2).thread().call(Process(server, 2).make("board"), "__getitem__", "a") == 1


VALUES = [
    None, True, 3, 2**80, 1.5, "text", b"bytes", [1, [2]], (1, 2), {"a": (1,)}, {1, 2}, frozenset({3}),
    bytearray(b"x"), 1j, {(1, 2): 3}, PurePosixPath("/x"),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_come_back_as_they_went(server: Server, value: object) -> None:
    """Builtin values and pickled ones keep their exact type."""
    process = Process(server)
    ident = process.make("dict", "d")
    thread = process.thread()
    thread.call(ident, "__setitem__", "k", value)
    found = thread.call(ident, "__getitem__", "k")
    assert found == value
    assert type(found) is type(value)


def test_what_an_object_holds_can_be_copied_and_shown(server: Server) -> None:
    """`_getvalue`, `str` and iteration of a container give plain values, without being exposed."""
    process = Process(server)
    thread = process.thread()
    d = process.make("dict", "d")
    thread.call(d, "__setitem__", "k", [1])
    assert thread.call(d, "#GETVALUE") == {"k": [1]}
    assert thread.call(d, "__str__") == thread.call(d, "__repr__") == "{'k': [1]}"
    assert next(thread.call(d, "__iter__")) == "k"
    lock = process.make("lock", "l")
    assert thread.call(lock, "__str__") == "<shared lock 'l' on ours>"
    with pytest.raises(RemoteError):
        thread.call(lock, "#GETVALUE")


def test_methods_are_looked_up_in_what_is_exposed(server: Server) -> None:
    """Nothing else of an object can be called, and the answer is the one of a stock server."""
    process = Process(server)
    ident = process.make("lock", "l")
    for name in ("__class__", "owner_ended", "_give", "__init__"):
        with pytest.raises(RemoteError, match="exposes no"):
            process.thread().call(ident, name)
    for name in ("exec", "_take", "feed"):
        with pytest.raises(RemoteError):
            process.once(name)


@pytest.mark.parametrize("ident", ["7f21aa", "dict:", "dict", "nope:x", 17, "jar:gone", "board:x"])
def test_an_ident_that_means_nothing_is_refused(server: Server, ident: object) -> None:
    """Idents are names; any other is told so, and makes no object."""
    with pytest.raises((AttributeError, LookupError)):
        Process(server).thread().call(ident, "get")
    assert not server.host.objects()


def test_questions_to_the_server(server: Server) -> None:
    """The functions of a stock server are there, with the same shape of answers."""
    process = Process(server)
    ident = process.make("lock", "l")
    assert process.once("dummy") is None
    assert process.once("number_of_objects") == 1
    assert "lock:l" in process.once("debug_info")
    assert "acquire" in process.once("get_methods", Token("lock", server.address, ident))
    assert process.once("incref", ident) is None
    assert process.once("decref", ident) is None


def test_a_proxy_in_a_value_is_a_handle(server: Server) -> None:
    """The server makes no connection to itself for a proxy that is sent, and gives it back as a proxy."""
    from registry._stock._messages import ProxyOf

    process = Process(server)
    lock, d = process.make("lock", "l"), process.make("dict", "d")
    thread = process.thread()
    elsewhere = ProxyOf(("10.1.1.1", 5000), "list", "7f00", ("append",))
    thread.call(d, "__setitem__", "k", [ProxyOf(server.address, "lock", lock, ("acquire",)), elsewhere])
    thread.stock.feed(frame(pickle.dumps((d, "__getitem__", ("k",), {}))))
    sent = cut(thread.sent)
    assert sent is not None
    for part in (b"RebuildProxy", b"AutoProxy", lock.encode(), b"10.1.1.1", b"7f00"):
        assert part in sent


# Errors


def test_errors_are_classes_that_the_client_has(server: Server) -> None:
    """Builtin errors cross as themselves, ours as the builtin that they are too, with their text."""
    process = Process(server)
    thread = process.thread()
    d, q, lock = process.make("dict", "d"), process.make("queue", "q"), process.make("lock", "l")
    with pytest.raises(KeyError) as missing:
        thread.call(d, "__getitem__", "k")
    assert missing.value.args == ("k",)
    with pytest.raises(RuntimeError) as stolen:
        thread.call(lock, "release")
    assert type(stolen.value) is RuntimeError
    assert "lock:l on server ours" in str(stolen.value)
    with pytest.raises(TypeError):
        thread.call(d, "get")
    thread.stock.feed(frame(pickle.dumps((q, "get_nowait", (), {}))))
    sent = cut(thread.sent)
    assert sent is not None
    assert b"cqueue\nEmpty" in sent  # Python 3.6 has no module _queue
    assert type(pickle.loads(sent)[1]) is queue.Empty


def test_a_request_that_cannot_be_unpickled_is_answered(server: Server) -> None:
    """A class that the server cannot import is told as a text, and the connection goes on."""
    process = Process(server)
    ident = process.make("dict", "d")
    thread = process.thread()
    thread.stock.feed(frame(b"cno_such_module\nThing\n."))
    ((kind, text),) = thread.answers()
    assert kind == "#TRACEBACK"
    assert "no_such_module" in text
    assert thread.call(ident, "__len__") == 0


# Who holds what


def test_a_lock_is_held_beyond_the_end_of_its_connection(server: Server) -> None:
    """A client closes a thread's connection when its last proxy dies, also inside a critical section."""
    process, other = Process(server, 1), Process(server, 2)
    lock = process.make("lock", "login")
    first = process.thread()
    assert first.call(lock, "acquire") is True
    process.make("lock", "other")
    process.once("decref", "lock:other")
    first.stock.lost()
    assert other.thread().call(lock, "acquire", False) is False
    server.pass_time(10 * STOCK_GRACE)
    assert locked(server, lock)
    assert process.thread().call(lock, "release") is None
    assert not locked(server, lock)


def test_the_death_of_a_process_frees_what_it_held(server: Server) -> None:
    """The next in line has the lock at once, and is the one who is told that it was abandoned."""
    holder, waiter = Process(server, 1), Process(server, 2)
    lock = holder.make("lock", "login")
    holding = holder.thread()
    assert holding.call(lock, "acquire") is True
    waiting = waiter.thread()
    assert waiting.ask(lock, "acquire") == []
    server.end(holding)
    assert waiting.answers() == [("#RETURN", True)]
    assert server.host.statistics("lock", "login")["abandoned"] is True
    assert holding.ask(lock, "locked") == []  # whoever has inherited the socket is not that process


def test_a_lost_connection_takes_its_wait_along(server: Server) -> None:
    """A call that waits on a connection that goes is undone, so that nothing is granted to nobody."""
    holder, waiter = Process(server, 1), Process(server, 2)
    lock = holder.make("lock", "l")
    holding, waiting = holder.thread(), waiter.thread()
    holding.call(lock, "acquire")
    assert waiting.ask(lock, "acquire") == []
    waiting.stock.lost()
    holding.call(lock, "release")
    assert not locked(server, lock)


def test_a_grant_that_was_not_read_is_given_back(server: Server) -> None:
    """A connection that is reset has not read its last reply: the lock goes on to the next."""
    holder, waiter = Process(server, 1), Process(server, 2)
    lock = holder.make("lock", "l")
    holding, waiting = holder.thread(), waiter.thread()
    holding.call(lock, "acquire")
    waiting.ask(lock, "acquire")
    holding.call(lock, "release")
    assert locked(server, lock)
    waiting.stock.lost(unread=True)
    waiting.stock.lost()
    assert not locked(server, lock)


@pytest.mark.parametrize("unread", [False, True])
def test_an_item_is_taken_when_its_reply_was_read(server: Server, unread: bool) -> None:
    """An item whose reply was not read goes back to the front; one that was read is gone with its reader."""
    process = Process(server, 1)
    q = process.make("queue", "q")
    thread = process.thread()
    for item in (1, 2):
        thread.call(q, "put", item)
    assert thread.call(q, "get") == 1
    thread.stock.lost(unread=unread)
    assert Process(server, 2).thread().call(q, "get") == (1 if unread else 2)


def test_an_interrupted_call_does_not_answer_the_next_one(server: Server) -> None:
    """A request says that the client has given up the one before: that is undone, and never answered."""
    holder, waiter = Process(server, 1), Process(server, 2)
    lock, d = holder.make("lock", "l"), holder.make("dict", "d")
    holding, waiting = holder.thread(), waiter.thread()
    holding.call(lock, "acquire")
    assert waiting.ask(lock, "acquire") == []
    assert waiting.call(d, "__len__") == 0
    holding.call(lock, "release")
    assert waiting.answers() == []
    assert not locked(server, lock)


def test_the_owner_is_the_thread_that_the_client_names(server: Server) -> None:
    """Threads of one process have their own rlock levels, over new connections too."""
    process = Process(server)
    rlock = process.make("rlock", "r")
    main, other = process.thread("Main"), process.thread("Main|Thread-1")
    assert main.call(rlock, "acquire") is True
    assert other.call(rlock, "acquire", False) is False
    main.stock.lost()
    again = process.thread("Main")
    assert again.call(rlock, "acquire") is True
    with pytest.raises(RuntimeError):
        other.call(rlock, "release")
    # Of two connections of one name that are open at once only the first is the owner.
    twin = process.thread("Main")
    assert twin.call(rlock, "acquire", False) is False
    again.call(rlock, "release")
    again.call(rlock, "release")
    assert twin.call(rlock, "acquire", False) is True


def test_without_a_process_the_name_is_believed_for_a_while(server: Server) -> None:
    """Where the process is unknown, what a name held is freed some time after its connection went."""
    remote, other = Process(server, None, "10.0.0.9"), Process(server, 2)
    lock = remote.make("lock", "l")
    first = remote.thread("Worker")
    assert first.call(lock, "acquire") is True
    first.stock.lost()
    server.pass_time(STOCK_GRACE - 1)
    assert other.thread().call(lock, "acquire", False) is False
    again = remote.thread("Worker")
    server.pass_time(STOCK_GRACE + 1)
    assert locked(server, lock)
    again.stock.lost()
    server.pass_time(STOCK_GRACE + 1)
    assert not locked(server, lock)
    assert server.host.statistics("lock", "l")["abandoned"] is True
    assert other.thread().call(lock, "acquire", False) is True


def test_names_that_are_open_at_once_are_two_holders(server: Server) -> None:
    """Two remote processes have the same name; each has what it acquired."""
    remote = Process(server, None, "10.0.0.9")
    lock = remote.make("lock", "l")
    one, two = remote.thread("Worker"), remote.thread("Worker")
    assert one.call(lock, "acquire") is True
    assert two.call(lock, "acquire", False) is False
    with pytest.raises(RuntimeError):
        two.call(lock, "release")


def test_nothing_is_left_of_those_who_went(server: Server) -> None:
    """Sessions, owners and objects of processes that have ended do not pile up."""
    for pid in range(1, 50):
        process = Process(server, pid)
        process.make("jar")
        process.make("lock", "l")
        thread = process.thread()
        thread.call("lock:l", "acquire")
        server.end(thread)
    for _ in range(50):
        remote = Process(server, None, "10.0.0.9")
        remote.once("create", "lock", "l")
        remote.thread("Worker").stock.lost()
    server.pass_time(STOCK_GRACE + 1)
    assert not server.host.clients
    assert not server.host.engine.sessions
    assert not server.stock.references
    assert [row[0] for row in server.host.objects()] == ["lock"]


def test_replies_are_forgotten_while_another_call_waits(server: Server) -> None:
    """A thread that waits for ever does not make the server remember every reply of the others."""
    process = Process(server)
    lock, d = process.make("lock", "l"), process.make("dict", "d")
    Process(server, 2).thread().call(lock, "acquire")
    waiting, busy = process.thread("Waiting"), process.thread("Busy")
    waiting.ask(lock, "acquire")
    for n in range(200):
        busy.call(d, "__setitem__", "k", n)
        busy.call(d, "__getitem__", "k")
    session = process.thread().stock.session
    assert session is not None
    assert len(server.host.engine.sessions[session.client.number].replies) <= 2


# Objects of a client's own


def test_an_object_of_its_own_goes_with_its_last_proxy(server: Server) -> None:
    """As with multiprocessing: one is counted for its making, one for each proxy."""
    process, other = Process(server, 1), Process(server, 2)
    jar = process.make("jar", "first")
    assert jar != process.make("jar", "first")
    assert other.thread().call(jar, "get") == "first"
    process.once("incref", jar)
    process.once("decref", jar)
    assert other.thread().call(jar, "get") == "first"
    process.once("decref", jar)
    with pytest.raises(LookupError):
        other.thread().call(jar, "get")
    process.once("decref", jar)
    assert server.stock.references.keys() != {jar}


def test_a_process_gives_up_its_own_proxies_only(server: Server) -> None:
    """Who has no proxy of an object, or none any more, cannot have it end for those who have."""
    process, other = Process(server, 1), Process(server, 2)
    jar = process.make("jar", "first")
    for _ in range(2):
        with pytest.raises(LookupError, match=f"no object {jar} on server ours: this process has no proxy of it"):
            other.once("decref", jar)
        assert other.thread().call(jar, "get") == "first"
        other.once("incref", jar)
        other.once("decref", jar)
    other.once("incref", jar)
    process.once("decref", jar)
    assert process.thread().call(jar, "get") == "first"
    other.once("decref", jar)
    with pytest.raises(LookupError):
        process.thread().call(jar, "get")
    assert not server.host.objects()


def test_those_whose_process_is_unknown_count_together(server: Server) -> None:
    """Where nobody knows who has a proxy, each of them may give one up, but no process that is known."""
    remote, process = Process(server, None, "10.0.0.9"), Process(server, 1)
    jar = process.make("jar", "first")
    remote.once("incref", jar)
    process.once("decref", jar)
    assert remote.thread().call(jar, "get") == "first"
    Process(server, None, "10.0.0.10").once("decref", jar)
    assert not server.host.objects()


@pytest.mark.parametrize("ident", ["7f21aa", "dict:", "nope:x", 17, "jar:gone", "board:x", None])
def test_a_proxy_of_nothing_is_not_counted(server: Server, ident: object) -> None:
    """A token that is made up, or of an earlier life of the server, is refused where it is made a proxy again."""
    with pytest.raises((AttributeError, LookupError)):
        Process(server).once("incref", ident)
    assert Process(server).once("decref", ident) is None  # of a proxy that outlived its object
    assert not server.stock.references
    assert not server.host.objects()


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"garbage",
        b"\x80\x04",
        b"\x80\x04\x8e" + bytes([255] * 8),
        b"\x80\x04\x95" + bytes([255] * 7) + b"\x7fN.",
        b"(" * 100_000,
        b"cos\nno_such_name\n.",
        b"c__main__\n\n.",
        b"Pid\n.",
        pickle.dumps((None, "create", ("dict", "d"), {}))[:-3],
    ],
)
def test_a_pickle_that_is_none_changes_nothing(server: Server, request_: bytes) -> None:
    """Whatever is wrong with it, the client is told by a text, and a thread's connection goes on."""
    process = Process(server)
    thread = process.thread()
    once = Connection(server, process.peer, OURS)
    for connection in (thread, once):
        connection.stock.feed(frame(request_))
        ((kind, text),) = connection.answers()
        assert kind == "#TRACEBACK"
        assert text.endswith("\n")
    assert once.closed
    assert not server.host.objects()
    with pytest.raises(LookupError):
        thread.call("jar:gone", "get")


@pytest.mark.parametrize(
    "request_",
    [
        (None, "create"),
        (None, "create", "dict", {}),
        (None, b"create", ("dict", "d"), {}),
        (None, "create", ("dict", "d"), None),
        [None, "create", ("dict", "d"), {}],
        {"create": "dict"},
        None,
    ],
)
def test_what_has_not_the_form_of_a_request_closes_the_connection(server: Server, request_: object) -> None:
    """A pickle of something else is answered with a text and the end, and makes nothing."""
    process = Process(server)
    for connection in (process.thread(), Connection(server, process.peer, OURS)):
        connection.stock.feed(frame(pickle.dumps(request_)))
        ((kind, text),) = connection.answers()
        assert (kind, text) == ("#TRACEBACK", "a request is (ident, name, args, kwds)\n")
        assert connection.closed
    assert not server.host.objects()


@pytest.mark.parametrize(
    ("function", "arguments", "error"),
    [
        ("create", (), TypeError),
        ("create", ("nope", "x"), AttributeError),
        ("create", ("dict", 5), TypeError),
        ("create", (["dict"], "x"), TypeError),
        ("get_methods", ("dict:x",), AttributeError),
        ("get_methods", (Token("nope", "/run/ours/socket", "nope:x"),), AttributeError),
        ("incref", (), TypeError),
        ("decref", ("dict:x", 2), TypeError),
        ("accept_connection", (), TypeError),
        ("number_of_objects", (1,), TypeError),
    ],
)
def test_a_function_with_wrong_arguments_is_an_error(
    server: Server, function: str, arguments: tuple[object, ...], error: type[Exception]
) -> None:
    """It is raised in the client, and nothing has happened."""
    with pytest.raises(error):
        Process(server).once(function, *arguments)
    assert not server.host.objects()
    assert not server.stock.references


def test_nothing_is_left_of_objects_that_went(server: Server) -> None:
    """A process that makes and drops objects for long is remembered by none of them."""
    process = Process(server)
    thread = process.thread()
    for _ in range(50):
        jar = process.make("jar")
        thread.call(jar, "put", 1)
        process.once("decref", jar)
    session = thread.stock.session
    assert session is not None
    assert not session.made
    assert len(server.host.engine.sessions[session.client.number].replies) <= 2
    assert not server.host.objects()


def test_an_object_of_its_own_goes_with_its_process(server: Server) -> None:
    """The death of the maker is the end of what it had made for itself."""
    process, other = Process(server, 1), Process(server, 2)
    jar = process.make("jar", "first")
    server.end(process.thread())
    with pytest.raises(LookupError):
        other.thread().call(jar, "get")
    assert not server.host.objects()


def test_an_object_of_an_unknown_process_is_kept_while_it_is_used(server: Server) -> None:
    """Without a process to watch, its use is what keeps an object."""
    remote = Process(server, None, "10.0.0.9")
    jar = remote.make("jar", "first")
    for _ in range(3):
        server.pass_time(3000)
        assert remote.thread().call(jar, "get") == "first"
    server.pass_time(4000)
    with pytest.raises(LookupError):
        remote.thread().call(jar, "get")


def test_arguments_of_a_factory_that_do_not_fit(server: Server) -> None:
    """A factory that refuses its arguments leaves nothing behind."""
    process = Process(server)
    with pytest.raises(TypeError):
        process.once("create", "jar", 1, 2, 3)
    assert not server.stock.references
    assert not server.host.objects()


# Unmodified clients, real sockets


class Manager(BaseManager):
    """A client that knows nothing of us."""


for _typeid in ("dict", "queue", "lock", "rlock", "counter", "sleeper"):
    Manager.register(_typeid)


@pytest.fixture(params=["unix", "tcp"])
def real(request: pytest.FixtureRequest) -> Iterator[ManagerServer]:
    """Run a server on a thread, and forget the connections to it afterwards."""
    address: Any = "stock" if request.param == "unix" else ("127.0.0.1", 0)
    with ManagerServer(address, authkey=b"secret", plugins=[SLEEPER]) as server:
        yield server
        BaseProxy._address_to_local.clear()  # type: ignore[attr-defined]


def stock(server: ManagerServer) -> Any:
    """Return a connected stock manager."""
    manager = Manager(address=server.address, authkey=b"secret")
    manager.connect()
    return manager


def test_an_unmodified_client_works(real: ManagerServer) -> None:
    """The recipe that everybody has: connect, a dict, a lock."""
    m = stock(real)
    prices, lock = m.dict("prices"), m.lock("prices")
    lock.acquire()
    prices["BTC"] = (prices.get("BTC") or 0) + 1
    lock.release()
    assert dict(prices.items()) == {"BTC": 1}
    assert list(prices) == ["BTC"]
    assert len(prices) == 1
    assert str(prices) == "{'BTC': 1}"
    assert m.sleeper("s", "well").nap() == "well"


def test_a_wrong_key_is_refused(real: ManagerServer, caplog: pytest.LogCaptureFixture) -> None:
    """The error is the one of multiprocessing, which tells nothing; the server's log tells whose it was."""
    with caplog.at_level("WARNING", "registry"), pytest.raises(AuthenticationError):
        Manager(address=real.address, authkey=b"wrong").connect()
    (line,) = [record.getMessage() for record in caplog.records if "another key" in record.getMessage()]
    assert line.startswith("refused a connection from ")
    assert f"pid {os.getpid()}" in line or isinstance(real.address, tuple)
    assert line.endswith(": a stock client with another key")


def test_threads_of_one_client_count_exactly(real: ManagerServer) -> None:
    """Threads have a connection each, and each is an owner of its own."""
    m = stock(real)
    hits, rlock = m.dict("hits"), m.rlock("hits")
    hits["n"] = 0

    def work() -> None:
        for _ in range(20):
            rlock.acquire()
            hits["n"] = hits["n"] + 1
            rlock.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hits["n"] == 80


HOLDER = """
import sys
from multiprocessing.managers import BaseManager
class Manager(BaseManager): pass
Manager.register("lock")
host, port = sys.argv[1:]
address = host if port == "-" else (host, int(port))
m = Manager(address=address, authkey=b"secret"); m.connect()
lock = m.lock("login"); lock.acquire()
other = m.lock("other"); del other
print("held", flush=True)
sys.stdin.read()
"""


def test_a_killed_process_frees_its_lock(real: ManagerServer) -> None:
    """Over a unix socket and over loopback alike, kill -9 hands the lock on, and the next is told."""
    address = real.address
    where = [address, "-"] if isinstance(address, str) else [address[0], str(address[1])]
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, *where], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        with connect(real.url, b"secret") as shared:
            lock = shared.lock("login")
            refused = lock.acquire(blocking=False)
            assert not refused
            assert f"pid {child.pid}" in refused.holder
            child.send_signal(signal.SIGKILL)
            grant = lock.acquire(timeout=30)
            assert grant
            assert grant.abandoned
            assert f"pid {child.pid}" in grant.holder
            grant.release()
