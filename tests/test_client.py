"""The client: which server, which session, and what a process leaves behind when it forks or ends."""

from __future__ import annotations

import os
import queue
import signal
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import KEY, THINGS, Script, Served, another, running, until
from things import ALL, COOKIES, NOTES

import registry.client
from registry import ManagerClient, ManagerServer, connect
from registry._connection import Connection
from registry._wire import Frame, Kind
from registry.errors import (
    AccessDenied,
    Closed,
    DefinitionConflict,
    NoSuchObject,
    ServerNotFound,
    StaleServer,
    UnknownType,
    VersionMismatch,
)


@pytest.fixture
def server(home: Path) -> Iterator[ManagerServer]:
    with ManagerServer("here", KEY, plugins=ALL) as server:
        yield server


def test_another_version_of_the_protocol_is_told_on_both_sides(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client names both versions, its server and the cure; the log of the server names that of the client."""
    with ManagerServer("here", KEY):
        monkeypatch.setattr(registry._auth.ClientHandshake, "_answer", as_of_version_2)
        with caplog.at_level("WARNING", "registry"), pytest.raises(VersionMismatch) as caught:
            connect("here", KEY)
    assert str(caught.value) == (
        "this process speaks version 1 and the other side on server here version 1: install one version of "
        'shared-registry on both and "registry restart"'
    )
    assert "a client of protocol version b'2" in caplog.text


def as_of_version_2(self: object, message: bytes) -> bytes:
    """Say hello as a client of a later protocol would."""
    self._hello = hello = b"#REGISTRY#2" + bytes(64)  # type: ignore[attr-defined]
    return len(hello).to_bytes(4, "big") + hello


# -- connecting -----------------------------------------------------------------------------------


def test_a_lazy_client_does_nothing_yet(home: Path) -> None:
    """Making a client, its proxies, and closing it again touches no file and no socket."""
    with ManagerClient("nowhere") as client:
        assert repr(client) == "<client of nowhere, not connected>"
        assert repr(client.dict("d")) == "<shared dict 'd' on nowhere>"
        assert not client._home.is_connected
    assert repr(client) == "<client of nowhere, closed>"
    assert list(home.iterdir()) == []
    assert not registry.client._links


def test_connect_raises_now(home: Path) -> None:
    """`connect` says at once that nobody is there, where it looked, and how to start one."""
    with pytest.raises(ServerNotFound) as caught:
        connect("nowhere", start=False)
    assert "no server of that name runs" in str(caught.value)
    assert "registry serve nowhere" in str(caught.value)
    with pytest.raises(ServerNotFound, match=r"tcp://127\.0\.0\.1:1.*nothing listens there.*Connection refused"):
        connect(("127.0.0.1", 1), KEY)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(ServerNotFound, match="it accepted the connection and then said nothing"):
            connect(("127.0.0.1", port), KEY, timeout=0.05)
    with pytest.raises(ServerNotFound, match="No such file"):
        connect("unix:///nowhere/socket", KEY)
    assert not registry.client._links


def test_connect_is_connected_when_it_returns(server: ManagerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that breaks before the session is on it is made again; if all do, that is said in time."""
    take, cuts = Connection._take, [3]

    def cut(self: Connection, frame: Frame) -> None:
        if frame.kind == Kind.ATTACH and cuts[0]:
            cuts[0] -= 1
            self.abort()
        else:
            take(self, frame)

    monkeypatch.setattr(Connection, "_take", cut)
    with connect(server.url, KEY) as client:
        assert not cuts[0]
        assert client._home.link()._transport is not None
    cuts[0] = -1
    with pytest.raises(ServerNotFound):
        connect(server.url, KEY, timeout=0.2)


def test_a_wrong_key_has_no_effect(server: ManagerServer) -> None:
    """A client with another key gets `AccessDenied`, at every call, and leaves nothing on the server."""
    with ManagerClient("here", b"wrong") as client:
        for _ in range(2):
            with pytest.raises(AccessDenied, match="another key"):
                client.dict("d")["x"] = 1
    with connect("here", KEY) as client:
        assert client.objects() == []
        assert client.statistics()["sessions"] == 1


def test_the_environment_names_the_server(server: ManagerServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`REGISTRY_ADDRESS` and `REGISTRY_AUTHKEY_FILE` stand in for arguments."""
    file = home / "key"
    file.write_bytes(KEY + b"\n")
    file.chmod(0o600)
    monkeypatch.setenv("REGISTRY_ADDRESS", "here")
    monkeypatch.setenv("REGISTRY_AUTHKEY_FILE", str(file))
    with connect() as client:
        assert client.counter("c").incr() == 1
        assert repr(client) == "<client of here, connected>"


def test_clients_of_one_server_share_a_session(server: ManagerServer) -> None:
    """Two clients of a process are one session; the last to close ends it, and frees what it held."""
    with another("here") as other:
        one, two = connect("here", KEY), connect("here", KEY.decode())
        assert one._home.link() is two._home.link()
        assert other.statistics()["sessions"] == 2
        assert one.lock("l").acquire()
        one.close()
        assert two.lock("l").locked()
        assert not two.lock("l").acquire(timeout=0)
        two.close()
        grant = other.lock("l").acquire()
        assert grant.abandoned
        with pytest.raises(Closed, match="make another one"):
            one.dict("d").get("x")
        three = connect("here", KEY)
        assert three.counter("c").incr() == 1
        three.close()


def test_label(server: ManagerServer) -> None:
    """What a client calls itself is what others are told of the holder."""
    with another("here", label="billing") as one, another("here") as two:
        one.lock("l").acquire()
        assert two.lock("l").acquire(timeout=0).holder.startswith(f"billing (pid {os.getpid()} on ")
        assert two.notes("n").whom().count(f"pid {os.getpid()}") == 1


# -- types and objects ----------------------------------------------------------------------------


def test_an_unknown_type(server: ManagerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told at the attribute when connected, at the first use when not; with what may be meant."""
    with connect("here", KEY) as client:
        with pytest.raises(UnknownType, match="no shared type 'dcit' on server 'here'.*did you mean 'dict'"):
            client.dcit
        assert not hasattr(client, "cookies")
        monkeypatch.setattr("registry._plugins.whence", lambda typeid: "shared-cookies 1.2")
        with pytest.raises(UnknownType, match="This interpreter has it from shared-cookies 1.2; that server does not"):
            client.open("cookies", "x")
        assert "dict" in dir(client)
    with ManagerClient("here", KEY) as client:
        jar = client.cookies("x")
        with pytest.raises(UnknownType, match="no shared type 'cookies'"):
            jar.get("x")
        with pytest.raises(AttributeError, match="_private"):
            client._private


def test_open_takes_a_declaration(server: ManagerServer) -> None:
    """A declaration says its type, so that a checker knows it too."""
    with connect("here", KEY) as client:
        assert client.open(NOTES, "n").add(1) == 1
        assert client.notes("n").all() == [1]
        with pytest.raises(UnknownType):
            client.open(COOKIES, "n")


def test_arguments_are_the_definition(server: ManagerServer) -> None:
    """Whoever gives other arguments is told both, and who made it; whoever gives none takes what is there."""
    with connect("here", KEY) as client:
        client.queue("q", maxsize=1).put(1)
        assert client.queue("q").qsize() == 1
        assert client.queue("q", 1).full()
        with pytest.raises(DefinitionConflict, match="maxsize=1.*maxsize=2|maxsize=2.*maxsize=1"):
            client.queue("q", maxsize=2).qsize()
        with pytest.raises(TypeError):
            client.queue("p", nonsense=2).qsize()


def test_objects_and_statistics(server: ManagerServer) -> None:
    """The server lists what it holds, and each object tells of itself."""
    with connect("here", KEY) as client:
        client.dict("prices")["x"] = 1
        client.queue("jobs").put(1)
        client.slow("s").greet()
        rows = client.objects()
        assert [(row["typeid"], row["name"]) for row in rows] == [("dict", "prices"), ("queue", "jobs"), ("slow", "s")]
        assert [row["ephemeral"] for row in rows] == [False, False, True]
        assert [row["name"] for row in client.objects("d*:p*")] == ["prices"]
        assert client.statistics(client.queue("jobs"))["items"] == 1
        assert client.statistics()["objects"] == 3
        with pytest.raises(NoSuchObject, match="dict:none"):
            client.statistics(client.dict("none"))
        with pytest.raises(TypeError, match="takes a proxy"):
            client.statistics("prices")


def test_delete(server: ManagerServer) -> None:
    """Waits end, the name is free, and each session that used it is told once."""
    with connect("here", KEY) as client, another("here") as other:
        jobs = client.queue("q")

        def wait() -> None:
            with pytest.raises(NoSuchObject, match="it was deleted"):
                jobs.get()

        with running(wait):
            until(lambda ask: ask.objects("queue:q") and ask.objects("queue:q")[0]["waiting"], other)
            other.delete(other.queue("q"))
        assert client.objects() == []
        with pytest.raises(NoSuchObject, match="the next call makes a new one"):
            jobs.put(1)
        jobs.put(2)
        assert jobs.get() == 2
        with pytest.raises(NoSuchObject):
            client.delete(client.dict("none"))


def test_threaded_objects(server: ManagerServer) -> None:
    """They may block, each owner's calls on a thread of its own, while others go on."""
    with connect("here", KEY) as client:
        slow = client.slow("s", greeting="hi")
        assert slow.greet() == "hi"
        assert slow.where()[0] == os.getpid()
        answers: list[bool] = []
        with running(lambda: answers.append(slow.hang())):
            client.counter("c").incr()
            slow.release()
        assert answers == [True]
        with pytest.raises(KeyError) as caught:
            slow.fail()
        assert caught.value.args == ("as always",)
        client.delete(slow)
        assert client.objects("slow:*") == []


def test_a_server_with_old_code_is_said_once(home: Path, tmp_path: Path) -> None:
    """After a plugin's file has changed, whoever attaches next is warned, with what to do."""
    plugin = tmp_path / "my_plugin.py"
    text = Path(THINGS).read_text()
    plugin.write_text(text)
    with ManagerServer("here", KEY, plugins=[str(plugin)]) as server:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            another("here").close()
        plugin.write_text(text + "\n# changed\n")
        server._freshness = (0.0, "")
        with pytest.warns(
            StaleServer, match=r'my_plugin\.py changed since here was started; "registry restart'
        ) as caught:
            client = another("here")
        assert len(caught) == 1
        client.counter("c").incr()
        client.close()


# -- processes ------------------------------------------------------------------------------------


def _in_child(function: object) -> str:
    """Run a function in a forked child, and return what it returns or raises as text."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            text = repr(function())  # type: ignore[operator]
        except BaseException as error:  # noqa: BLE001 - it is compared in the parent
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return text


def test_a_forked_child_is_a_session_of_its_own(home: Path) -> None:
    """A child owns nothing of its parent, works at once, and leaves the parent's connection alone."""
    with Served("here") as _, connect("here", KEY) as client:
        lock, count, jobs = client.lock("l"), client.counter("c"), client.queue("q")
        count.incr()
        with lock as grant:

            def child() -> object:
                held = bool(lock.acquire(timeout=0))
                lock.__exit__(None, None, None)
                grant.__exit__(None, None, None)
                try:
                    grant.release()
                except Exception as error:  # noqa: BLE001 - its name is compared
                    released = type(error).__name__
                try:
                    lock.release()
                except Exception as error:  # noqa: BLE001 - its name is compared
                    by_lock = type(error).__name__
                jobs.put("from the child")
                return held, released, by_lock, count.incr(), client.statistics()["sessions"]

            assert _in_child(child) == "(False, 'LockLost', 'NotOwner', 2, 2)"
            assert lock.locked()
            assert count.incr() == 3
        assert not lock.locked()
        assert jobs.get(timeout=5) == "from the child"


def test_a_fork_while_threads_call(home: Path) -> None:
    """A child that is forked while other threads hold every lock of the session is not stuck."""
    with Served("here") as _, connect("here", KEY) as client:
        count, jobs = client.counter("c"), client.queue("q")
        stop: list[bool] = []

        def work() -> None:
            while not stop:
                count.incr()

        def wait() -> None:
            jobs.get()

        with running(work, work, wait):
            texts = [_in_child(lambda: count.get() >= 0) for _ in range(5)]
            stop.append(True)
            jobs.put(1)
        assert texts == ["True"] * 5


ENDS = """
import os, signal, sys
from registry import connect
client = connect(sys.argv[1], sys.argv[2].encode())
lock = client.lock("l")
{acquire}
client.queue("q").put("last words")
print("held", flush=True)
sys.stdin.readline()
{end}
"""


@pytest.mark.parametrize("tcp", [False, True])
def test_the_end_of_an_interpreter_is_a_goodbye(home: Path, tcp: bool) -> None:
    """A process that ends in order frees at once what it holds, on a leased connection too; it was abandoned."""
    code = ENDS.format(acquire="lock.acquire()", end="sys.exit(0)")
    with ManagerServer(("127.0.0.1", 0) if tcp else "here", KEY) as server, connect(server.url, KEY) as client:
        with Script(code, server.url, KEY.decode()) as script:
            assert script.line() == "held"
            assert client.statistics()["sessions"] == 2
            script.say()
            assert script.wait() == 0
        grant = client.lock("l").acquire(timeout=10)
        assert grant and grant.abandoned
        assert client.queue("q").get_nowait() == "last words"


def test_a_clean_release_is_never_flagged(home: Path) -> None:
    """Who released before it ended has abandoned nothing."""
    code = ENDS.format(acquire="with lock: pass", end="os._exit(0)")
    with ManagerServer("here", KEY) as server, connect(server.url, KEY) as client:
        for _ in range(3):
            with Script(code, server.url, KEY.decode()) as script:
                assert script.line() == "held"
                script.say()
                script.wait()
            grant = client.lock("l").acquire(timeout=10)
            assert grant and not grant.abandoned
            grant.release()


def test_kill_frees_a_lock_at_once(home: Path) -> None:
    """On a unix socket a holder that is killed is noticed, and who comes next is told."""
    code = ENDS.format(acquire="lock.acquire()", end="")
    with ManagerServer("here", KEY) as server, connect(server.url, KEY) as client:
        with Script(code, server.url, KEY.decode()) as script:
            assert script.line() == "held"
            holder = client.lock("l").acquire(timeout=0).holder
            script.signal(signal.SIGKILL)
            grant = client.lock("l").acquire(timeout=10)
        assert grant and grant.abandoned and grant.holder == holder
        grant.release()
        grant = client.lock("l").acquire(timeout=10)
        assert grant and not grant.abandoned


def test_kill_frees_a_lock_though_a_child_holds_the_socket(home: Path) -> None:
    """The death of the process counts, not the end of the stream, which a child may keep open."""
    code = ENDS.format(
        acquire="lock.acquire()\nchild = os.fork()\nif not child: signal.pause()",
        end="",
    ).replace('print("held"', 'print("held", child')
    # A child that was forked without Python's knowledge keeps the descriptor: as one of a C library would.
    code = code.replace("child = os.fork()", "import ctypes; child = ctypes.CDLL(None).fork()")
    with ManagerServer("here", KEY) as server, connect(server.url, KEY) as client:
        with Script(code, server.url, KEY.decode()) as script:
            child = int(script.line().split()[1])
            try:
                script.kill()
                grant = client.lock("l").acquire(timeout=10)
                assert grant and grant.abandoned
                assert client.queue("q").get_nowait() == "last words"
            finally:
                os.kill(child, signal.SIGKILL)
        with pytest.raises(queue.Empty):
            client.queue("q").get_nowait()
