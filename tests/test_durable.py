"""Servers with a log, killed and started again: clients see a pause, nothing else."""

from __future__ import annotations

import errno
import queue
import signal
import threading
from pathlib import Path
from typing import Any, Literal

import pytest
from servers import Script, Served, another, until
from sizes import size
from torture.nursery import experiment

from registry import ManagerServer, SharedObject
from registry._log import _segments
from registry.errors import OutcomeUnknown, RegistryError

HOLDER = """
import sys
from registry import connect
lock = connect(sys.argv[1], b"the key of the tests").lock("l")
lock.acquire()
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("log", ["process", "disk"])
def test_everything_survives(home: Path, log: str) -> None:
    """Objects, a held lock, re-entrance and a wait go on in the next life, and the tokens grow."""
    server = Served("here", log=log)
    with another(server.url) as client, another(server.url) as other:
        client.dict("d")["k"] = [1, 2]
        grant = client.lock("l").acquire()
        again = client.rlock("r")
        again.acquire()
        got: queue.Queue[Any] = queue.Queue()
        waiting = threading.Thread(target=lambda: got.put(other.lock("l").acquire(timeout=60)))
        waiting.start()
        until(lambda ask: ask.statistics()["waiting"] == 1, client)
        with server:
            server.kill()
        with Served("here", log=log):
            assert client.dict("d")["k"] == [1, 2]
            assert client.lock("l").locked()
            again.acquire()
            again.release()
            again.release()
            grant.release()
            waiting.join()
            later = got.get()
            assert later and not later.abandoned and later.token > grant.token


def test_a_clean_stop_keeps_everything(home: Path) -> None:
    """Nobody who waits is told anything; what is left is a snapshot."""
    with Served("here", log="process") as server, another(server.url) as client:
        got: queue.Queue[Any] = queue.Queue()
        waiting = threading.Thread(target=lambda: got.put(client.queue("q").get(timeout=60)))
        waiting.start()
        until(lambda ask: ask.statistics()["waiting"] == 1, client)
        server.signal(signal.SIGTERM)
        assert server.line() == "ended"
        with Served("here", log="process"):
            with another(server.url) as other:
                other.queue("q").put("item")
            waiting.join()
            assert got.get() == "item"


def test_a_death_while_the_server_is_down(home: Path) -> None:
    """It is noticed before anybody can connect: the lock is free, and flagged."""
    with Served("here", log="process") as server, Script(HOLDER, server.url) as holder:
        assert holder.line() == "held"
        server.kill()
        holder.kill()
        with Served("here", log="process"), another(server.url) as client:
            grant = client.lock("l").acquire(blocking=False)
            assert grant and grant.abandoned


def test_an_idle_holder_comes_back(home: Path) -> None:
    """It makes no call, and keeps its lock all the same: its session is resumed behind its back."""
    with Served("here", log="process", lease=2.0) as server, another(server.url) as client:
        key = client._home.link().key
        client.lock("l").acquire()
        server.kill()
        with ManagerServer("here", b"the key of the tests", log="process", lease=2.0) as next_one:
            with another("here") as other:
                until(lambda ask: next_one.host.clients[key].attachment is not None, other)
            assert client.lock("l").locked()


@pytest.mark.parametrize("log", ["process", "disk"])
def test_nobody_hears_of_a_life_before_it_is_on_the_disk(home: Path, log: Literal["process", "disk"]) -> None:
    """Else a loss of power could take its beginning, and with it the sessions of all who have heard of it."""
    server = ManagerServer("here", b"the key of the tests", log=log)
    synced = []

    def ready() -> None:
        durability = server._durability
        assert durability is not None
        synced.append(durability.log.synced)
        server._begin_stop()

    server.on_ready = ready
    server.run()
    assert synced == [server.host.recovered + 1]


def test_a_disk_that_fails_at_the_start_ends_the_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The beginning cannot be synced: the server says so, and does not wait for ever."""

    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "as if the disk had failed")

    monkeypatch.setattr(_segments, "_sync_data", fail)
    server = ManagerServer("here", b"the key of the tests", log="process")
    with pytest.raises(RegistryError, match="cannot be written: .*as if the disk had failed"):
        server.run()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_cannot_be_replayed_is_halted(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A class that is not deterministic is named; its object refuses calls, and all others are served."""
    plugins = [SharedObject("clock", Clock)]
    Clock.now = 1
    server = ManagerServer("here", b"the key of the tests", log="process", plugins=plugins).start()
    with another("here") as client:
        assert client.clock("x").tick() == 1
        assert client.counter("c").incr() == 1
        end_badly(server)
        Clock.now = 2
        with ManagerServer("here", b"the key of the tests", log="process", plugins=plugins):
            with pytest.raises(RegistryError, match=r"clock:x\.tick\(\), gave another result .* Clock is not determ"):
                client.clock("x").tick()
            assert client.counter("c").incr() == 2
    assert "Clock is not deterministic" in caplog.text


def end_badly(server: ManagerServer) -> None:
    """End a server of this process without a snapshot, as where its disk fails."""
    log = server._durability.log if server._durability is not None else None
    assert log is not None and server._thread is not None
    server._post(lambda: log._fail(OSError(5, "as if the disk had failed")))
    server._thread.join()


class Clock:
    """Not to be shared: what it says hangs on the world outside."""

    now = 0

    def tick(self) -> int:
        return Clock.now


class Slow:
    """Threaded: it leaves no trace in the log."""

    began = threading.Event()
    go_on = threading.Event()

    def work(self) -> str:
        Slow.began.set()
        Slow.go_on.wait(30)
        return "done"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_threaded_call_is_not_made_twice(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It leaves no trace in the log: what became of it is unknown, and that is said."""
    plugins = [SharedObject("slow", Slow, threaded=True)]
    server = ManagerServer("here", b"the key of the tests", log="process", plugins=plugins).start()
    assert "threaded objects are not in the log, and end with the server: slow" in caplog.text
    told: queue.Queue[OutcomeUnknown] = queue.Queue()
    with another("here") as client:
        client.counter("c").incr()

        def work() -> None:
            try:
                client.slow("s").work()
            except OutcomeUnknown as error:
                told.put(error)

        caller = threading.Thread(target=work)
        caller.start()
        assert Slow.began.wait(20)
        Slow.go_on.set()
        end_badly(server)
        with ManagerServer("here", b"the key of the tests", log="process", plugins=plugins):
            caller.join()
            assert "a threaded object leaves no trace" in str(told.get())
            assert client.counter("c").incr() == 2


@pytest.mark.once
@pytest.mark.timeout(size(600, 7200))
def test_kills() -> None:
    """Every acknowledged effect is there once, no lock has two holders, no client sees an error."""
    counted = experiment("logs.kills", size(50, 1000), 8)
    assert counted["errors"] == []
    assert counted["counted"] == counted["counter"] > 0
    assert counted["sections"] > 0
    assert counted["put"] == counted["got or left"]
    for name in ("tokens that came twice", "tokens that did not grow", "got twice", "got and never put"):
        assert counted[name] == 0, name


def fails(*args: object) -> None:
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize("log", ["process", "disk"])
def test_a_server_is_not_ready_before_its_log_can_be_written(
    home: Path, monkeypatch: pytest.MonkeyPatch, log: Literal["process", "disk"]
) -> None:
    """A disk that fails at the first event of a life is told by the start, not by what is called then."""
    server = ManagerServer("here", b"the key of the tests", log=log)
    with monkeypatch.context() as patched:
        patched.setattr(_segments._File, "write", fails)
        with pytest.raises(RegistryError, match=r"the log in .* cannot be written: \[Errno 5\] .*; start the server"):
            server.start()
    with ManagerServer("here", b"the key of the tests", log=log), another("here") as client:
        assert client.counter("c").incr() == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_disk_that_fails_in_a_stop_is_told(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At once: nobody waits for a log that cannot be written any more, nor says that it is for want of time."""
    server = ManagerServer("here", b"the key of the tests", log="process").start()
    with another("here") as client, monkeypatch.context() as patched:
        client.counter("c").incr()
        patched.setattr(_segments, "_sync_data", fails)
        server.stop()
    assert server._thread is not None and not server._thread.is_alive()
    assert "cannot be written: [Errno 5] Input/output error" in caplog.text
    assert "stopping although" not in caplog.text
    with ManagerServer("here", b"the key of the tests", log="process"), another("here") as client:
        assert client.counter("c").incr() == 2
