"""The thread that looks after sessions: heartbeats, listeners, connections that come back by themselves."""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import KEY, PATIENCE, Script, Served, Wire, another, running, until
from sizes import size

from registry import ManagerClient, ManagerServer, _keeper, connect
from registry.errors import LockLost, StateLost

LEASE = 0.6


class Heard:
    """What a listener was told, in order."""

    def __init__(self) -> None:
        self.states: queue.Queue[str] = queue.Queue()
        self.threads: set[int] = set()

    def __call__(self, state: str) -> None:
        self.threads.add(threading.get_ident())
        self.states.put(state)

    def next(self) -> str:
        return self.states.get(timeout=PATIENCE)


@pytest.fixture
def server(home: Path) -> Iterator[ManagerServer]:
    with ManagerServer(("127.0.0.1", 0), KEY, lease=LEASE) as server:
        yield server


def keepers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "registry keeper"]


def heard_of(server: ManagerServer, client: ManagerClient) -> float:
    """Return when the server last heard of the session of a client."""
    return server.host.clients[client._home.link().key].heard


def keeps_hearing(server: ManagerServer, client: ManagerClient, until: float) -> None:
    """Wait until the server has heard of the session of a client after some time."""
    deadline = server.now() + PATIENCE
    while heard_of(server, client) <= until:
        assert server.now() < deadline
        threading.Event().wait(0.01)  # what is looked at is time itself


# -- when there is a thread -------------------------------------------------------------------------


def test_there_is_no_thread_without_a_reason(home: Path) -> None:
    """A session whose process the server watches costs its program no thread, and no module for one."""
    with (
        ManagerServer("here", KEY),
        Script(
            "import registry, sys, threading\n"
            f"with registry.connect('here', {KEY!r}) as c:\n"
            "    c.counter('n').incr()\n"
            "    print(threading.active_count(), 'registry._keeper' in sys.modules, flush=True)\n"
        ) as script,
    ):
        assert script.line() == "1 False"


def test_there_is_one_thread_and_it_ends(server: ManagerServer) -> None:
    """All sessions of a process have one thread, which ends with the last of them."""
    with connect(server.url, KEY) as one:
        (thread,) = keepers()
        with another(server.url) as other:
            one.listen(print)
            other.listen(print)
            assert keepers() == [thread]
    thread.join(PATIENCE)
    assert not keepers()


# -- heartbeats --------------------------------------------------------------------------------------


def test_a_program_that_does_nothing_keeps_what_it_holds(server: ManagerServer) -> None:
    """Heartbeats go on while no thread of the program calls."""
    with connect(server.url, KEY) as client, another(server.url) as other:
        with client.lock("l"):
            began = server.now()
            keeps_hearing(server, client, began + 3 * LEASE)
            assert not other.lock("l").acquire(timeout=0)
            client.counter("c").incr()
        assert other.counter("c").get() == 1


def test_they_go_on_while_a_call_waits(server: ManagerServer) -> None:
    """The thread that waits reads their answers with everything else."""
    with connect(server.url, KEY) as client, another(server.url) as other:
        items: list[object] = []
        with running(lambda: items.append(client.queue("q").get())):
            began = server.now()
            keeps_hearing(server, client, began + 3 * LEASE)
            other.queue("q").put("item")
        assert items == ["item"]


def test_a_cut_connection_comes_back_by_itself(server: ManagerServer) -> None:
    """A suspended session is resumed in time, though its program makes no call."""
    with Wire(*server.address) as wire, connect(f"tcp://127.0.0.1:{wire.port}", KEY) as client:  # type: ignore[misc]
        heard = Heard()
        stop = client.listen(heard)
        with client.lock("l"):
            for _ in range(size(3, 50)):
                wire.cut()
                assert heard.next() == "suspended"
                assert heard.next() == "connected"
            client.counter("c").incr()
        stop()
        assert heard.threads == {keepers()[0].ident}
        wire.cut()
        assert client.counter("c").get() == 1
    assert heard.states.empty()


def test_many_threads_and_cuts(server: ManagerServer) -> None:
    """The keeper takes no reply away from anybody, and keeps nobody from reading."""
    with Wire(*server.address) as wire, connect(f"tcp://127.0.0.1:{wire.port}", KEY) as client:  # type: ignore[misc]
        counter, turns = client.counter("c"), size(100, 2000)
        done = threading.Event()
        made: list[int] = []

        def count() -> None:
            for _ in range(turns):
                made.append(counter.incr())

        def cut() -> None:
            seen = 0
            while not done.wait(0.01):
                if len(made) > seen:  # a slow machine gets its reply before the next cut
                    seen = len(made)
                    wire.cut()

        with running(cut):
            try:
                with running(*[count] * 4):
                    pass
            finally:
                done.set()
        assert counter.get() == 4 * turns


def test_who_is_cut_off_holds_up_nobody(home: Path) -> None:
    """A waiter whose network is gone is passed over at once, not when its lease has ended."""
    with (
        ManagerServer(("127.0.0.1", 0), KEY) as server,
        Wire(*server.address) as wire,  # type: ignore[misc]
        another(server.url) as client,
    ):
        with another(f"tcp://127.0.0.1:{wire.port}") as cut_off, another(server.url) as last:
            grant = client.lock("l").acquire()
            grants: dict[str, object] = {}

            def wait(name: str, waiter: ManagerClient) -> None:
                grants[name] = waiter.lock("l").acquire(timeout=PATIENCE)
                waiter.lock("l").release()

            with running(lambda: wait("first", cut_off)):
                until(lambda ask: len(ask.statistics(ask.lock("l"))["waiters"]) == 1, client)
                with running(lambda: wait("second", last)):
                    until(lambda ask: len(ask.statistics(ask.lock("l"))["waiters"]) == 2, client)
                    with wire.held():
                        until(lambda ask: is_away(server, cut_off), client)
                        grant.release()
                        until(lambda ask: "second" in grants, client)
                        assert "first" not in grants
                        assert is_away(server, cut_off)
            assert grants["first"] and grants["second"]


def is_away(server: ManagerServer, client: ManagerClient) -> bool:
    """Tell whether the waits of a client are passed over."""
    number = server.host.clients[client._home.link().key].number
    return server.host.engine.sessions[number].away


# -- listeners ---------------------------------------------------------------------------------------


def end_session(server: ManagerServer, client: ManagerClient) -> None:
    """Have the server take the session of a client for dead."""
    record = server.host.clients[client._home.link().key]

    def end() -> None:
        attachment = record.attachment
        server.host.end(record, server.now())
        if attachment is not None and attachment.sink is not None:
            attachment.sink.abort()

    server._post(end)


@pytest.mark.parametrize("address", ["here", "tcp://127.0.0.1:0"])
def test_a_session_that_was_taken_for_dead(home: Path, address: str) -> None:
    """Its listeners hear so, and that there is a new one."""
    with ManagerServer(address, KEY) as server, connect(server.url, KEY) as client:
        heard = Heard()
        client.listen(heard)
        client.counter("c").incr()
        end_session(server, client)
        assert [heard.next() for _ in range(3)] == ["suspended", "lost", "connected"]
        with pytest.raises(StateLost):
            client.counter("c").incr()
        assert client.counter("c").incr() == 2


def test_a_lock_that_was_lost_is_told_at_the_first_call(server: ManagerServer) -> None:
    """Also where the keeper knows already, and has begun a new session."""
    with connect(server.url, KEY) as client:
        heard = Heard()
        client.listen(heard)
        with pytest.raises(LockLost, match="took this session for dead"), client.lock("l"):
            end_session(server, client)
            while heard.next() != "connected":
                pass
            client.counter("c").incr()
        assert client.counter("c").get() == 0


def test_a_server_that_is_started_anew(home: Path) -> None:
    """With the life of a server all its sessions are lost; a listener hears of the next life without a call."""
    heard = Heard()
    with Served("here") as first, connect("here", KEY) as client:
        client.listen(heard)
        client.counter("c").incr()
        first.kill()
        assert heard.next() == "suspended"
        with Served("here"):
            assert [heard.next(), heard.next()] == ["lost", "connected"]
            with pytest.raises(StateLost):
                client.counter("c").incr()


def test_a_client_stops_believing(home: Path) -> None:
    """Once the lease is over since the last answered heartbeat had been sent, it is lost as far as anybody knows.

    Where the server itself had stood still, it goes on as if nothing had been.
    """
    heard = Heard()
    with Served("tcp://127.0.0.1:0", lease=LEASE) as server, connect(server.url, KEY) as client:
        client.listen(heard)
        with client.lock("l"):
            server.signal(signal.SIGSTOP)
            assert [heard.next(), heard.next()] == ["suspended", "lost"]
            server.signal(signal.SIGCONT)
            assert heard.next() == "connected"
            client.counter("c").incr()


def test_what_a_listener_raises_is_logged(server: ManagerServer, caplog: pytest.LogCaptureFixture) -> None:
    """The others hear all the same, and so does it the next time."""
    heard = Heard()

    def raises(state: str) -> None:
        raise SystemExit(f"heard {state}")

    client = ManagerClient(server.url, KEY)
    client.listen(raises)
    client.listen(heard)
    with client, caplog.at_level(logging.ERROR, "registry"):
        client.connect()
        assert heard.next() == "connected"
        end_session(server, client)
        assert [heard.next() for _ in range(3)] == ["suspended", "lost", "connected"]
        assert len([record for record in caplog.records if "a listener" in record.message]) == 4


def test_a_listener_may_call(server: ManagerServer) -> None:
    """It runs like any thread of the program."""
    counts: queue.Queue[int] = queue.Queue()
    with ManagerClient(server.url, KEY) as client:
        client.listen(lambda state: counts.put(client.counter("c").incr()))
        client.connect()
        assert counts.get(timeout=PATIENCE) == 1


def test_nothing_is_told_of_a_client_that_was_closed(server: ManagerServer) -> None:
    """Closing ends its listeners, and those of no other client of the session."""
    mine, others = Heard(), Heard()
    with connect(server.url, KEY) as client, connect(server.url, KEY) as other:
        client.listen(mine)
        other.listen(others)
        client.close()
        end_session(server, other)
        assert [others.next() for _ in range(3)] == ["suspended", "lost", "connected"]
    assert mine.states.empty()
    assert others.states.empty()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_has_a_thread_of_its_own(server: ManagerServer) -> None:
    """The child begins a session of its own at its first call, with its own signs of life and the same listeners."""
    heard = Heard()
    with connect(server.url, KEY) as client:
        client.listen(heard)
        pid = os.fork()
        if not pid:
            status = 1
            try:
                if not keepers() and client.counter("c").incr() == 1 and heard.next() == "connected":
                    status = 0 if len(keepers()) == 1 else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert client.counter("c").get() == 1
    assert heard.states.empty()


def test_it_does_not_keep_a_program_from_ending(server: ManagerServer) -> None:
    """A program that never closes ends as any other, and says goodbye."""
    code = (
        "import registry, sys\n"
        f"c = registry.connect({server.url!r}, {KEY!r})\n"
        "c.listen(print)\n"
        "grant = c.lock('l').acquire()\n"
        "print(bool(grant), flush=True)\n"
    )
    with connect(server.url, KEY) as client, Script(code) as script:
        assert script.line() == "True"
        assert script.wait() == 0
        assert client.lock("l").acquire(timeout=10)


# -- holders that stand still ------------------------------------------------------------------------

HOLDER = """
import sys, registry
from registry.errors import LockLost
client = registry.connect(sys.argv[1], {key!r})
counter = client.counter("inside")
while True:
    try:
        with client.lock("l"):
            print("in", flush=True)
            while True:
                counter.incr()
    except LockLost as error:
        print("lost", flush=True)
        sys.stdin.readline()
"""


def test_nothing_of_a_holder_that_stood_still_takes_effect(home: Path) -> None:
    """It is stopped somewhere in its calls, for longer than its lease; it is told at its first call afterwards."""
    with Served("tcp://127.0.0.1:0", lease=size(3, 10) / 10) as server, connect(server.url, KEY) as client:
        with Script(HOLDER.format(key=KEY), server.url) as holder:
            for _ in range(size(3, 100)):
                assert holder.line() == "in"
                holder.signal(signal.SIGSTOP)
                with client.lock("l").acquire(timeout=PATIENCE) as grant:
                    assert grant.abandoned
                    before = client.counter("inside").get()
                    holder.signal(signal.SIGCONT)
                    assert holder.line() == "lost"
                    assert client.counter("inside").get() == before
                holder.say()


def test_the_order_of_changes_is_mended() -> None:
    """The end of a connection may be told after the next one has begun, and by two threads."""
    told: list[str] = []

    link = types.SimpleNamespace(closed=False, lease=0.0, heard=0.0, label="x", _transport=None)
    link.listeners = {1: told.append}
    one, two = object(), object()
    kept = _keeper.Kept(link)  # type: ignore[arg-type]
    for change, connection in [
        ("connected", one),
        ("connected", two),
        ("suspended", one),
        ("suspended", two),
        ("suspended", two),
        ("connected", one),
        ("lost", None),
        ("suspended", one),
        ("lost", None),
        ("connected", two),
    ]:
        kept.note(change, connection)  # type: ignore[arg-type]
    kept._tell_changes()
    assert told == [
        *("connected", "suspended", "connected", "suspended"),
        *("connected", "suspended", "lost", "connected"),
    ]
