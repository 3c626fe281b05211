"""Stock clients while the server is killed and started again: what they hold stays theirs, until they end."""

from __future__ import annotations

import contextlib
import os
import sys
from multiprocessing.managers import BaseManager, BaseProxy
from pathlib import Path
from typing import Any

import attrs
import pytest
from servers import KEY, THINGS, Script, Served, another, until
from test_stock import Process, Server, locked

from registry import ManagerClient, _image
from registry._stock import STOCK_GRACE

# -- the sessions, without sockets


class Next(Server):
    """The life after one of a server without sockets."""

    def __init__(self, before: Server, watched: tuple[int, ...] = (1, 2)) -> None:
        """Go on; processes with these pids are watched."""
        super().__init__(image=_image.capture(before.host.engine))
        keys = {f"stock-process:{pid}:{pid}".encode() for pid in watched}
        self.stock.recall(keys)


@pytest.fixture
def server() -> Server:
    """Return a first life."""
    return Server()


def test_what_a_process_holds_stays_its_own(server: Server) -> None:
    """A lock of the process can be given back, and an rlock is that of the thread that the client names."""
    process = Process(server)
    lock, rlock = process.make("lock", "l"), process.make("rlock", "r")
    for name in ("Before", "Main", "Main|Thread-1"):
        process.thread(name)  # in another order than in the next life
    main = process.thread("Main|Thread-2")
    main.call(lock, "acquire")
    main.call(rlock, "acquire")
    after = Next(server)
    process = Process(after)
    again, other = process.thread("Main|Thread-2"), process.thread("Main")
    assert other.call(rlock, "acquire", False) is False
    assert again.call(rlock, "acquire", False) is True
    with pytest.raises(RuntimeError):
        other.call(rlock, "release")
    again.call(rlock, "release")
    again.call(rlock, "release")
    assert not locked(after, rlock)
    assert locked(after, lock)
    again.call(lock, "release")
    assert not locked(after, lock)


def test_a_watched_process_lives_as_long_as_it_lives(server: Server) -> None:
    """It may make no call for as long as it likes; one that cannot be watched has its lease to make one."""
    for pid in (1, 2, 3):
        thread = Process(server, pid).thread()
        thread.call(Process(server, pid).make("lock", f"l{pid}"), "acquire")
    after = Next(server, watched=(1,))
    Process(after, 2).thread()
    after.pass_time(after.host.lease + 1)
    assert [locked(after, f"lock:l{pid}") for pid in (1, 2, 3)] == [True, True, False]
    after.end(Process(after, 1).thread())
    assert not locked(after, "lock:l1")
    assert after.host.statistics("lock", "l1")["abandoned"] is True


def test_a_process_that_nothing_names_can_be_recalled(server: Server) -> None:
    """Where the system tells no boot, or not when a process began, its session lives on its lease."""
    process = Process(server)
    process.peer = attrs.evolve(process.peer, started=None)
    process.thread().call(process.make("lock", "l"), "acquire")
    after = Next(server, watched=())
    assert locked(after, "lock:l")
    after.pass_time(after.host.lease + 1)
    assert not locked(after, "lock:l")


def test_a_wait_goes_with_the_connection_that_it_came_on(server: Server) -> None:
    """The client was told that its call has failed: nothing is given to it any more."""
    holder = Process(server, 1).thread()
    lock, items = Process(server, 1).make("lock", "l"), Process(server, 1).make("queue", "q")
    holder.call(lock, "acquire")
    waiting = Process(server, 2)
    assert waiting.thread("A").ask(lock, "acquire") == []
    assert waiting.thread("B").ask(items, "get") == []
    after = Next(server)
    assert not any(session.waits for session in after.host.engine.sessions.values())
    Process(after, 1).thread().call(lock, "release")
    assert not locked(after, lock)
    Process(after, 1).thread().call(items, "put", "item")
    assert Process(after, 1).thread().call(items, "get", False) == "item"
    # Its next call is none of those that were seen already.
    again = Process(after, 2).thread("A")
    assert again.call(lock, "acquire", False) is True
    again.call(lock, "release")


@pytest.mark.parametrize("watched", [(1, 2), ()])
def test_who_waits_again_is_not_passed_over(server: Server, watched: tuple[int, ...]) -> None:
    """A process that waited when the server was killed is there, as soon as that is known."""
    lock = Process(server, 1).make("lock", "l")
    Process(server, 1).thread().call(lock, "acquire")
    Process(server, 2).thread("A").ask(lock, "acquire")
    after = Next(server, watched)
    again = Process(after, 2).thread("A")
    assert again.ask(lock, "acquire") == []
    Process(after, 1).thread().call(lock, "release")
    assert again.answers() == [("#RETURN", True)]


def test_replies_of_an_earlier_life_are_forgotten(server: Server) -> None:
    """Nobody can ask for them again."""
    process = Process(server)
    counter = process.make("counter", "c")
    for name in "ABC":
        process.thread(name).call(counter, "incr")
    after = Next(server)
    assert Process(after).thread().call(counter, "incr") == 4
    session = Process(after).thread().stock.session
    assert session is not None
    assert len(after.host.engine.sessions[session.client.number].replies) == 1


def test_an_object_of_its_own_stays_until_its_maker_ends(server: Server) -> None:
    """How many proxies there are is not in the log, and each of them may be the one that is still used."""
    process = Process(server)
    jar = process.make("jar", "first")
    process.once("incref", jar)
    after = Next(server)
    process, other = Process(after), Process(after, 2)
    process.once("decref", jar)
    assert other.thread().call(jar, "get") == "first"
    other.once("incref", jar)
    other.once("decref", jar)
    process.once("decref", jar)
    assert other.thread().call(jar, "get") == "first"
    # A new one is counted as ever.
    mine = process.make("jar", "second")
    process.once("decref", mine)
    with pytest.raises(LookupError):
        process.thread().call(mine, "get")
    after.end(process.thread())
    with pytest.raises(LookupError):
        other.thread().call(jar, "get")
    assert [row[0] for row in after.host.objects()] == []


def test_names_without_a_process_are_known_again(server: Server) -> None:
    """Each has its grace to come back; two of one name are still two, and an object's session is nobody's name."""
    remote = Process(server, None, "10.0.0.9")
    jar = remote.make("jar", "first")
    for number in (1, 2):
        remote.make("lock", f"l{number}")
        remote.thread("Worker").call(f"lock:l{number}", "acquire")
    after = Next(server)
    remote = Process(after, None, "10.0.0.9")
    first, second = remote.thread("Worker"), remote.thread("Worker")
    remote.once("create", "lock", "other")
    after.pass_time(STOCK_GRACE + 1)
    assert locked(after, "lock:l1") and locked(after, "lock:l2")
    assert remote.thread("Reader").call(jar, "get") == "first"
    for each, lock in ((first, "lock:l1"), (second, "lock:l2")):
        each.call(lock, "release")
    assert not locked(after, "lock:l1") and not locked(after, "lock:l2")
    # Who has not come back has lost what it held.
    remote.thread("Third").call("lock:l1", "acquire")
    last = Next(after)
    last.pass_time(STOCK_GRACE + 1)
    assert not locked(last, "lock:l1")
    assert Process(last, None, "10.0.0.9").thread().call(jar, "get") == "first"


# -- real processes


class Manager(BaseManager):
    """A client that knows nothing of us."""


for _typeid in ("dict", "queue", "lock", "rlock", "ticket"):
    Manager.register(_typeid)


def stock(server: Served) -> Any:
    """Return a connected stock manager."""
    manager = Manager(address=server.url.partition("://")[2], authkey=KEY)
    manager.connect()
    return manager


@pytest.fixture(autouse=True)
def _forgotten() -> Any:
    """Forget the connections of stock proxies afterwards."""
    yield
    BaseProxy._address_to_local.clear()  # type: ignore[attr-defined]


def reconnected(*proxies: Any) -> None:
    """Have stock proxies connect anew, which none of them does by itself."""
    for proxy in proxies:
        proxy._tls.__dict__.pop("connection", None)


linux = pytest.mark.skipif(sys.platform != "linux", reason="a process is known again by what Linux tells of it")


@linux
def test_a_stock_client_keeps_what_it_holds(home: Path) -> None:
    """It connects again after the server was killed, and has its lock, its rlock and its level of it."""
    with Served("here", log="process", lease=1.0) as server:
        m = stock(server)
        lock, rlock, prices = m.lock("l"), m.rlock("r"), m.dict("d")
        lock.acquire()
        rlock.acquire()
        prices["BTC"] = 1
        server.kill()
        with pytest.raises((EOFError, OSError)):
            lock.release()
    with Served("here", log="process", lease=1.0) as server, another(server.url) as other:
        refused = other.lock("l").acquire(blocking=False)
        assert not refused and f"pid {os.getpid()} " in refused.holder
        assert not other.rlock("r").acquire(timeout=1.5)  # longer than the lease
        reconnected(lock, rlock, prices)
        assert prices.get("BTC") == 1
        assert rlock.acquire(False) is True
        rlock.release()
        rlock.release()
        lock.release()
        for kind, name in (("lock", "l"), ("rlock", "r")):
            grant = getattr(other, kind)(name).acquire(blocking=False)
            assert grant and not grant.abandoned


WAITER = """
import sys
from multiprocessing.managers import BaseManager
class Manager(BaseManager): pass
Manager.register("lock")
m = Manager(address=sys.argv[1], authkey=sys.argv[2].encode()); m.connect()
lock = m.lock("l")
print("ready", flush=True)
try:
    lock.acquire()
    print("held", flush=True)
except (EOFError, OSError):
    print("failed", flush=True)
sys.stdin.read()
"""


@linux
def test_a_stock_client_that_ends_while_the_server_is_down(home: Path) -> None:
    """Its lock is free before anybody can connect, and flagged; who had waited in vain is given nothing."""
    with Served("here", log="process") as server:
        where = server.url.partition("://")[2]
        with contextlib.ExitStack() as processes:
            holder = processes.enter_context(Script(WAITER, where, KEY.decode()))
            assert (holder.line(), holder.line()) == ("ready", "held")
            waiter = processes.enter_context(Script(WAITER, where, KEY.decode()))
            assert waiter.line() == "ready"
            with another(server.url) as client:
                until(lambda ask: ask.statistics()["waiting"] == 1, client)
            server.kill()
            assert waiter.line() == "failed"
            holder.kill()
            with Served("here", log="process") as after, another(after.url) as client:
                assert client.statistics()["waiting"] == 0
                grant = client.lock("l").acquire(blocking=False)
                assert grant and grant.abandoned and f"pid {holder.pid}" in grant.holder
                grant.release()


@linux
def test_an_object_of_a_stock_client_is_there_after_a_restart(home: Path) -> None:
    """An object is there as long as its maker lives, whatever the proxies of the time before let go of."""

    def tickets(client: ManagerClient) -> int:
        return sum(row["typeid"] == "ticket" for row in client.objects())

    with Served("here", log="process", plugins=(THINGS,)) as server:
        ticket = stock(server).ticket(10)
        server.kill()
    with Served("here", log="process", plugins=(THINGS,)) as server, another(server.url) as other:
        reconnected(ticket)
        twin = BaseProxy(ticket._token, "pickle", authkey=KEY)
        assert twin._callmethod("bump") == 11  # type: ignore[func-returns-value]
        del twin
        assert ticket.bump() == 12
        new = stock(server).ticket(20)
        assert tickets(other) == 2
        del new
        until(lambda ask: tickets(ask) == 1, other)
        assert ticket.bump() == 13
