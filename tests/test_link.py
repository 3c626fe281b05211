"""The client's half of a session: threads on one connection, signals, deadlines, connections that break."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from servers import KEY, THINGS, Script, Served, Wire, another, running, until
from things import ALL, Caller

from registry import ManagerClient, ManagerServer, _codec, _link, connect
from registry.errors import (
    CallTimeout,
    Closed,
    LockLost,
    OutcomeUnknown,
    ServerNotFound,
    StateLost,
)
from registry.proxies._blocks import Hold


@pytest.fixture
def server(home: Path) -> Iterator[ManagerServer]:
    with ManagerServer("here", KEY, plugins=ALL) as server:
        yield server


@pytest.fixture
def client(server: ManagerServer) -> Iterator[ManagerClient]:
    with connect("here", KEY) as client:
        yield client


# -- threads --------------------------------------------------------------------------------------


def test_threads_never_mix_their_replies(client: ManagerClient) -> None:
    """Each of 32 threads on one client gets the replies to its own calls."""
    notes = client.notes("n")
    together = threading.Barrier(32)

    def talk(mine: int) -> None:
        together.wait()
        for turn in range(30):
            assert notes.echo([mine, turn]) == [mine, turn]
            notes.add([mine, turn])

    with running(*(lambda mine=mine: talk(mine) for mine in range(32))):
        pass
    rows = notes.all()
    assert len(rows) == 32 * 30
    for mine in range(32):
        assert [turn for who, turn in rows if who == mine] == list(range(30))


def test_program_order_holds_between_threads(client: ManagerClient) -> None:
    """What one thread has written, another sees that was told of it through memory."""
    shared = client.dict("d")
    told: queue.SimpleQueue[int] = queue.SimpleQueue()

    def write() -> None:
        for number in range(200):
            shared["x"] = number
            told.put(number)

    def read() -> None:
        for _ in range(200):
            known = told.get()
            assert shared["x"] >= known

    with running(write, read):
        pass


def test_a_follower_takes_over_from_the_leader(client: ManagerClient, server: ManagerServer) -> None:
    """When the thread that reads for all has its reply, one of those who still wait reads on."""
    gates = [client.gate(f"g{number}") for number in range(4)]
    with another("here") as other, running(*(gate.wait for gate in gates)):
        for gate in gates:
            until(lambda ask, gate=gate: ask.open("gate", gate._remote.name).waiting() == 1, other)
        # Whoever leads, each in turn is let go by somebody else, so that nobody of this client reads meanwhile.
        for gate in gates:
            assert other.gate(gate._remote.name).open() == 1


def test_a_call_is_answered_while_another_thread_reads(client: ManagerClient) -> None:
    """A thread that is parked in a wait hands out the replies of the others."""
    gate, notes = client.gate("g"), client.notes("n")
    with running(gate.wait):
        until(lambda ask: gate.waiting() == 1, client)
        for number in range(50):
            assert notes.echo(number) == number
        gate.open()


def test_a_waiter_whose_leader_only_connected_is_woken(client: ManagerClient) -> None:
    """Whoever becomes the leader for a moment, to connect, leaves nobody behind without one."""
    gate = client.gate("g")
    link = client._home.link()
    with link._reading:
        with running(gate.wait):
            while not any(slot.wake is not None for slot in list(link._pending.values())):
                threading.Event().wait(0)
            # The waiter is parked, and we are the leader; with what follows we leave as one who connected does.
            link._reading.acquire()
            link._stop_leading()
            with another("here") as other:
                until(lambda ask: ask.gate("g").waiting() == 1, other)
                other.gate("g").open()
        link._reading.acquire()


def test_who_has_left_is_not_woken_to_read(client: ManagerClient) -> None:
    """A call whose thread was interrupted while it was parked takes nobody's turn to read."""
    notes = client.notes("n")
    assert notes.echo(1) == 1
    link = client._home.link()
    left, waiting = (notes._remote.prepare("echo", (number,)) for number in (2, 3))
    for slot in (left, waiting):
        with link._sending:
            link._register(slot)
        slot.parked, slot.wake = True, threading.Lock()
        slot.wake.acquire()
    link._give_up(left, KeyboardInterrupt())
    assert left.wake.locked()
    assert not waiting.wake.locked()
    link._give_up(waiting, KeyboardInterrupt())
    assert notes.echo(4) == 4
    assert not link._pending


def test_one_waiting_thread_pins_no_replies(client: ManagerClient, server: ManagerServer) -> None:
    """While one call waits, the replies to the others are acknowledged, and the server forgets them."""
    gate, notes = client.gate("g"), client.notes("n")
    with running(gate.wait):
        until(lambda ask: gate.waiting() == 1, client)
        for number in range(100):
            notes.add(number)
        (session,) = server.host.engine.sessions.values()
        assert len(session.replies) < 5
        gate.open()


# -- signals --------------------------------------------------------------------------------------

INTERRUPTED = """
import random, signal, sys, threading
from registry import connect

class Interrupt(TimeoutError):
    "What a handler of SIGALRM likes to raise."

armed = False
interrupts = 0
chance = random.Random(3)

def handler(number, frame):
    global armed, interrupts
    if not armed:
        return
    # Between two instructions of this script nobody can know what it has got.
    if frame.f_code.co_filename == "<string>":
        signal.setitimer(signal.ITIMER_REAL, 0.00002)
        return
    armed = False
    interrupts += 1
    raise Interrupt

signal.signal(signal.SIGALRM, handler)
client = connect(sys.argv[1], sys.argv[2].encode())
lock, jobs, count, notes = client.lock("l"), client.queue("q"), client.counter("c"), client.notes("n")

def arm():
    global armed
    armed = True
    signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.00002, 0.0008))

problems, stop = [], threading.Event()

def neighbour():
    turn = 0
    while not stop.is_set():
        turn += 1
        if notes.echo(["mine", turn]) != ["mine", turn]:
            problems.append("a reply of another")

thread = threading.Thread(target=neighbour)
thread.start()
put, seen, sure, unsure = 0, [], 0, 0
while interrupts < 240 and not problems:
    step = interrupts % 3
    entered = False
    if step == 1:
        jobs.put(put)  # as many as it takes: on a quick machine few calls last until they are interrupted
        put += 1
    try:
        arm()
        if step == 0:
            with lock:
                entered = True
        elif step == 1:
            item = jobs.get(block=False)
            armed = False
            seen.append(item)
        else:
            count.incr()
            armed = False
            sure += 1
    except Interrupt:
        unsure += step == 2
    armed = False
    if step == 0:
        grant = lock.acquire(timeout=10)
        if not grant or grant.abandoned:
            problems.append(f"the lock is lost: {grant}, {client.statistics(lock)}, {entered}")
        else:
            grant.release()
stop.set()
thread.join()
rest = [jobs.get_nowait() for _ in range(jobs.qsize())]
if sorted(seen + rest) != list(range(put)):
    lost = set(range(put)) - set(seen + rest)
    problems.append(f"items lost: {lost}, twice: {len(seen) + len(rest) - len(set(seen + rest))}")
if not sure <= count.get() <= sure + unsure:
    problems.append(f"counted {count.get()}, not {sure} to {sure + unsure}")
pending = client._home.link()._pending
if any(slot.delivered is False for slot in pending.values()):
    problems.append(f"unsettled: {pending}")
print(problems or "well", flush=True)
"""


def test_a_signal_handler_that_raises_loses_nothing(home: Path) -> None:
    """240 interrupts of calls, at any place: no lock, no item and no reply of another thread is lost."""
    with Served("here", plugins=(THINGS,)) as server, Script(INTERRUPTED, server.url, KEY.decode()) as script:
        assert script.line() == "well"
        assert script.wait() == 0


def test_half_a_frame_is_never_completed_by_another(client: ManagerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that was interrupted breaks the connection before anybody else can write to it."""
    shared = client.dict("d")
    shared["x"] = b"before"
    link = client._home.link()
    transport = link._transport
    send = transport.send  # type: ignore[union-attr]

    def interrupted(data: bytes) -> None:
        send(data[: len(data) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(transport, "send", interrupted)
    with pytest.raises(KeyboardInterrupt):
        shared["x"] = b"a" * 5000
    assert link._transport is not transport
    assert shared["x"] == b"before"


def test_a_grant_that_was_interrupted_on_its_way_goes_back(
    client: ManagerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is free again when the reply of `acquire` was there and an exception kept it from its caller."""
    lock = client.lock("l")
    link = client._home.link()
    result = link.result

    def interrupted(*args: object) -> object:
        monkeypatch.setattr(link, "result", result)
        raise KeyboardInterrupt

    for attempt in (lock.acquire, lock.__enter__):
        monkeypatch.setattr(link, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            attempt()
        assert not lock.locked()
        assert not link.guards
    grant = lock.acquire()
    assert not grant.abandoned
    grant.release()


def test_a_block_of_a_grant_that_was_interrupted_on_its_way_in_is_not_relied_on(
    client: ManagerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where entering a grant is interrupted, the lock goes back, and no later call of the thread relies on it."""
    lock = client.lock("l")
    link = client._home.link()
    made = Hold.__init__

    def interrupted(self: Hold, *args: Any) -> None:
        made(self, *args)
        monkeypatch.setattr(Hold, "__init__", made)
        raise KeyboardInterrupt

    grant = lock.acquire()
    monkeypatch.setattr(Hold, "__init__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        grant.__enter__()
    assert not link.guards
    assert not lock.locked()
    assert client.counter("c").incr() == 1


# -- deadlines ------------------------------------------------------------------------------------


def test_a_call_past_its_deadline_had_no_effect(client: ManagerClient) -> None:
    """`CallTimeout` says that the wait has been undone: the lock goes to somebody else."""
    lock = client.lock("l")
    with another("here") as other, other.lock("l") as _:
        with pytest.raises(CallTimeout, match=r"lock:l\.acquire\(\)"):
            link, remote = lock._remote.home.link(), lock._remote
            handle = link.handle(remote.typeid, remote.name, remote.definition)
            nothing = _codec.encode_arguments((), {})
            link.call(handle, "acquire", nothing, about=remote, waiting=True, timeout=0.05)
        assert client.statistics(lock)["waiters"] == []
    assert lock.acquire(timeout=0)


def test_a_call_that_ran_in_time_is_answered_late(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the deadline the server is asked; what had run by then comes back as its reply."""
    with Served("here") as server, connect("here", KEY, timeout=0.2) as client:
        count = client.counter("c")
        assert count.incr() == 1
        send_cancel = _link.Link._send_cancel

        def resume(self: _link.Link, slot: _link.Pending, *, undo: bool) -> None:
            send_cancel(self, slot, undo=undo)
            server.signal(signal.SIGCONT)

        monkeypatch.setattr(_link.Link, "_send_cancel", resume)
        server.signal(signal.SIGSTOP)
        assert count.incr() == 2


def test_outcome_is_unknown_when_the_server_cannot_be_asked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that a stopped server has not answered is unknown, a read had no effect; and nobody waits long."""
    monkeypatch.setattr(_link, "SETTLE", 0.1)
    with Served("here") as server, connect("here", KEY, timeout=0.1) as client:
        count = client.counter("c")
        count.incr()
        server.signal(signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(OutcomeUnknown, match=r"counter:c\.incr\(\)"):
            count.incr()
        assert time.monotonic() - began < 3.0
        server.signal(signal.SIGCONT)
        assert count.get() in (1, 2)
        assert client._home.link()._mark() == client._home.link()._next - 1


def test_a_read_past_its_deadline_is_a_timeout(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read has no effect, so that there is nothing unknown about it."""
    monkeypatch.setattr(_link, "SETTLE", 0.1)
    with Served("here") as server, connect("here", KEY, timeout=0.1) as client:
        count = client.counter("c")
        count.incr()
        server.signal(signal.SIGSTOP)
        with pytest.raises(CallTimeout, match="no effect"):
            count.get()
        server.signal(signal.SIGCONT)
        assert count.get() == 1


def test_no_timeout_waits_for_ever(server: ManagerServer) -> None:
    """``timeout=None`` is no number that a socket would refuse."""
    with connect("here", KEY, timeout=None) as client:
        assert client.counter("c").incr() == 1


# -- connections that break -----------------------------------------------------------------------


def test_calls_run_once_whatever_is_cut(home: Path) -> None:
    """Through a wire that is cut after random numbers of bytes every call runs exactly once."""
    with ManagerServer(("127.0.0.1", 0), KEY, plugins=ALL) as server:
        host, port = server.address
        with Wire(str(host), int(port)) as wire, another(("127.0.0.1", wire.port)) as client:
            count, jobs, notes = client.counter("c"), client.queue("q"), client.notes("n")
            count.get()
            wire.cut_between(1, 9000)
            wire.cut()

            def work(mine: int) -> None:
                for turn in range(60):
                    count.incr()
                    jobs.put([mine, turn])
                    assert notes.echo([mine, turn]) == [mine, turn]

            with running(*(lambda mine=mine: work(mine) for mine in range(4))):
                pass
            wire.cut_no_more()
            assert count.get() == 240
            items = [jobs.get_nowait() for _ in range(jobs.qsize())]
            for mine in range(4):
                assert [turn for who, turn in items if who == mine] == list(range(60))
            assert wire.cuts > 20


def test_a_wait_survives_a_cut(home: Path) -> None:
    """A call that waits is taken up again on a new connection, with its place in line."""
    with ManagerServer(("127.0.0.1", 0), KEY, plugins=ALL) as server:
        host, port = server.address
        with (
            Wire(str(host), int(port)) as wire,
            another(("127.0.0.1", wire.port)) as client,
            connect(server.url, KEY) as near,
        ):
            jobs = client.queue("q")
            got: list[object] = []
            with running(lambda: got.append(jobs.get())):
                until(lambda ask: ask.statistics(near.queue("q"))["getters"], _made(near, "queue"))
                before = wire.cuts
                wire.cut()
                until(lambda ask: wire.cuts > before and ask.statistics()["sessions"] == 2, near)
                near.queue("q").put("x")
            assert got == ["x"]
            assert near.queue("q").empty()


def _made(client: ManagerClient, typeid: str) -> ManagerClient:
    client.open(typeid, "q").qsize()
    return client


# -- a server that is lost ------------------------------------------------------------------------


def test_loss_is_said_once(home: Path) -> None:
    """After a server died with what it held, each session is told by what it was doing, once."""
    told: dict[str, object] = {}

    def wait(name: str, client: ManagerClient) -> None:
        try:
            told[name] = client.queue("q").get()
        except StateLost as error:
            told[name] = error

    with ExitStack() as stack:
        server = stack.enter_context(Served("here"))
        changed, reading, holding, waiting, fresh, idle = (stack.enter_context(another("here")) for _ in range(6))
        changed.counter("c").incr()
        idle.counter("c").incr()
        assert reading.counter("c").get() == 2
        waiting.counter("c").incr()
        lock = holding.lock("l")
        lock.__enter__()
        with running(lambda: wait("waiting", waiting), lambda: wait("fresh", fresh)):
            until(lambda ask: _getters(ask) == 2, changed)
            server.kill()
            stack.enter_context(Served("here"))
            # Changes that were made are lost: that is said once.
            with pytest.raises(StateLost, match="it is gone with what it held in memory"):
                changed.counter("c").get()
            assert changed.counter("c").get() == 0
            # A session without a change has lost nothing.
            assert reading.counter("c").get() == 0
            # Every call inside a block says that its lock is lost, and so does leaving it; then all is well.
            for _ in range(2):
                with pytest.raises(LockLost, match="lock:l"):
                    holding.counter("c").incr()
            with pytest.raises(LockLost):
                lock.__exit__(None, None, None)
            assert holding.counter("c").incr() == 1
            # One that waits is told too, unless there was nothing to lose: then it goes on waiting.
            until(lambda ask: _getters(ask) == 1, changed)
            changed.queue("q").put("x")
        assert isinstance(told["waiting"], StateLost)
        assert told["fresh"] == "x"
        assert waiting.counter("c").get() == 1
        # A body's own error tells more than that its lock went.
        with pytest.raises(StateLost):
            idle.counter("c").incr()
        assert idle.counter("c").incr() == 2


def test_leaving_a_block_says_that_its_lock_is_lost(home: Path) -> None:
    """Where the loss is found by the release, it is `LockLost`, and not an outcome that is unknown."""
    with Served("here") as server, another("here") as client:
        lock = client.lock("l")
        with ExitStack() as stack, pytest.raises(LockLost, match="lock:l"), lock:
            server.kill()
            server = stack.enter_context(Served("here"))
            stack = stack.pop_all()
        with stack:
            assert not lock.locked()


def test_a_change_without_an_answer_is_unknown(home: Path) -> None:
    """A change that was sent when the server died is neither done nor undone for all that we know."""
    with ExitStack() as stack:
        server = stack.enter_context(Served("here"))
        client = stack.enter_context(another("here"))
        count = client.counter("c")
        count.get()
        server.signal(signal.SIGSTOP)
        errors: list[OutcomeUnknown] = []
        sent = threading.Event()
        transport: Any = client._home.link()._transport
        send = transport.send

        def tell(data: bytes) -> None:
            send(data)
            sent.set()

        transport.send = tell

        def change() -> None:
            with pytest.raises(OutcomeUnknown, match=r"counter:c\.incr\(\)") as caught:
                count.incr()
            errors.append(caught.value)

        with running(change):
            assert sent.wait(10)
            server.kill()
            stack.enter_context(Served("here"))
        assert errors
        assert count.incr() == 1


def test_a_server_that_does_not_come_back_is_not_found(home: Path) -> None:
    """A resume waits until the deadline for its server; a change that was not sent by then is not unknown."""
    with Served("here") as server, connect("here", KEY, timeout=0.3, start=False) as client:
        count = client.counter("c")
        count.incr()
        server.kill()
        with pytest.raises(ServerNotFound, match="no server of that name runs"):
            count.incr()
        with pytest.raises(ServerNotFound, match='no server of that name runs; start it with "registry serve here"'):
            count.get()


def test_a_drained_wait_is_told_once(home: Path) -> None:
    """Whoever heard from the server itself that it was stopped, is not told again by the next."""
    with ExitStack() as stack:
        server = stack.enter_context(Served("here"))
        client = stack.enter_context(another("here"))
        client.counter("c").incr()

        def wait() -> None:
            with pytest.raises(StateLost, match="stopped"):
                client.queue("q").get()

        with running(wait):
            until(lambda ask: _getters(ask) == 1, client)
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
            stack.enter_context(Served("here"))
        assert client.counter("c").incr() == 1


def _getters(client: ManagerClient) -> object:
    client.queue("q").qsize()
    return client.statistics(client.queue("q"))["getters"]


# -- the end --------------------------------------------------------------------------------------


def test_close_ends_calls_under_way(client: ManagerClient) -> None:
    """Calls that wait when the last client closes get `Closed`, and so does any later one."""
    gate = client.gate("g")

    def wait() -> None:
        with pytest.raises(Closed):
            gate.wait()

    with running(wait, wait):
        until(lambda ask: gate.waiting() == 2, client)
        client.close()
    with pytest.raises(Closed):
        gate.open()


def test_what_was_taken_last_is_acknowledged_by_the_goodbye(server: ManagerServer) -> None:
    """An item that its caller has got does not go back to the queue when the client closes."""
    with another("here") as client, another("here") as other:
        for number in range(3):
            client.queue("q").put(number)
        gate = client.gate("g")

        def wait() -> None:
            with pytest.raises(Closed):
                gate.wait()

        with running(wait):
            until(lambda ask: gate.waiting() == 1, client)
            assert client.queue("q").get() == 0
            assert client.queue("q").get() == 1
            client.close()
        until(lambda ask: ask.statistics()["sessions"] == 1, other)
        assert other.queue("q").qsize() == 1


def test_a_hosted_object_cannot_call_its_own_server(server: ManagerServer) -> None:
    """A call back into the server that makes it is refused at once, connected or not."""
    for Caller.client in (another("here"), ManagerClient("here", KEY)):
        with Caller.client as client, another("here") as other:
            with pytest.raises(RuntimeError, match="might wait for itself|would wait for itself"):
                other.caller("c").call_back()
            assert other.counter("c").incr()
            del client
    Caller.client = None
