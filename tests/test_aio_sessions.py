"""The session of an event loop: its tasks are owners, it comes back by itself, and it ends with its loop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loops import held, in_loop, link_of, two_sessions, until
from servers import KEY, PATIENCE, Script, Served, Wire, running
from sizes import size
from things import ALL

from registry import ManagerServer, SharedObject, _wire, aio, connect
from registry.aio import _homes, _link, _transport
from registry.errors import CallTimeout, Closed, Deadlock, LockLost, OutcomeUnknown, ServerNotFound, StateLost
from registry.hosting import Owner, call


class Seats:
    """Give seats to whoever asks, and have them back from the dead."""

    def __init__(self) -> None:
        self.taken: list[Owner] = []

    def take(self) -> int:
        self.taken.append(call().owner)
        return len(self.taken)

    def count(self) -> int:
        return len(self.taken)

    def owner_ended(self, owner: Owner) -> None:
        self.taken = [holder for holder in self.taken if not owner.covers(holder)]


SEATS = SharedObject("seats", Seats, readonly=["count"])


@pytest.fixture
def server(home: Path) -> Iterator[ManagerServer]:
    with ManagerServer("here", KEY, plugins=[*ALL, SEATS]) as server:
        yield server


@pytest.fixture
def ends(server: ManagerServer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The owners whose ends the server has heard of."""
    heard: list[int] = []
    owner_ended = server.host._owner_ended

    def hear(client: Any, owner: int, now: float) -> None:
        heard.append(owner)
        owner_ended(client, owner, now)

    monkeypatch.setattr(server.host, "_owner_ended", hear)
    return heard


async def take_turns() -> None:
    """Let the callbacks of a task that has ended run."""
    for _ in range(3):
        await asyncio.sleep(0)


# -- owners -----------------------------------------------------------------------------------------------------------


@in_loop
async def test_tasks_exclude_each_other(server: ManagerServer) -> None:
    """A lock of owners keeps other tasks of the same loop out, and lets its own in again; coroutines are no owners."""
    async with aio.connect(server.url, KEY) as shared:
        lock = shared.rlock("r")

        async def again() -> bool:
            async with lock.acquire(timeout=0) as grant:
                return bool(grant)

        async with lock as grant:
            assert await again()
            refused = await asyncio.create_task(lock.acquire(timeout=0), name="other")
            assert not refused and refused.holder == grant.holder
        entered = asyncio.create_task(lock.acquire(), name="a name")
        assert "thread a name" in (await entered).holder


@in_loop
async def test_a_deadlock_of_tasks_is_found(server: ManagerServer) -> None:
    """Two tasks that take two locks in opposite order: the second wait is refused, and names both."""
    async with aio.connect(server.url, KEY) as shared:
        locks = shared.rlock("one"), shared.rlock("two")
        both = asyncio.Event()

        async def take(first: int) -> None:
            async with locks[first]:
                await asyncio.sleep(0)
                if len(held(server)) == 2:
                    both.set()
                await both.wait()
                async with locks[1 - first]:
                    pass

        tasks = [asyncio.create_task(take(place), name=f"task {place}") for place in (0, 1)]
        await until(lambda: len(held(server)) == 2, shared)
        both.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        (refused,) = [result for result in results if result is not None]
        assert isinstance(refused, Deadlock) and "task 0" in str(refused) and "task 1" in str(refused)
        await shared.statistics()
        assert held(server) == {}


@in_loop
async def test_a_task_that_ends_frees_what_it_held(server: ManagerServer, ends: list[int]) -> None:
    """At once, for whoever waits; and the next grant tells that the holder had died."""
    async with aio.connect(server.url, KEY) as shared:
        lock, both, seats = shared.rlock("r"), shared.rwlock("rw"), shared.seats("s")

        async def hold() -> None:
            await lock.acquire()
            await lock.acquire()
            await both.write()
            await seats.take()

        await asyncio.wait([asyncio.create_task(hold(), name="holder")])
        await take_turns()
        grant = await lock.acquire(timeout=0)
        assert grant and grant.abandoned and "thread holder" in grant.holder
        written = await both.write(timeout=0)
        assert written and written.abandoned
        assert await seats.count() == 0
        assert len(ends) == 1


@in_loop
async def test_a_task_that_fails_frees_what_it_held(server: ManagerServer) -> None:
    """An error, or a cancellation, ends a task like anything else."""
    async with aio.connect(server.url, KEY) as shared:
        lock = shared.rlock("r")

        async def hold(end: Callable[[], Any]) -> None:
            await lock.acquire()
            await end()

        async def fail() -> None:
            raise ZeroDivisionError

        task = asyncio.create_task(hold(fail))
        await asyncio.wait([task])
        assert isinstance(task.exception(), ZeroDivisionError)
        await take_turns()
        assert not await lock.locked()
        task = asyncio.create_task(hold(asyncio.Event().wait))
        await until(lambda: "rlock:r" in held(server), shared)
        task.cancel()
        await asyncio.wait([task])
        await take_turns()
        assert not await lock.locked()


@in_loop
async def test_a_lock_is_the_process_s(server: ManagerServer, ends: list[int]) -> None:
    """The end of the task that took it frees it not; any other may release it."""
    async with aio.connect(server.url, KEY) as shared:
        lock = shared.lock("l")
        grant = await asyncio.create_task(lock.acquire())
        await take_turns()
        assert await lock.locked()
        await grant.release()
        await asyncio.create_task(lock.acquire())
        await asyncio.create_task(lock.release())
        assert not await lock.locked()
        assert ends == []


@in_loop
async def test_the_server_hears_only_of_ends_that_matter(server: ManagerServer, ends: list[int]) -> None:
    """A task that has only used blocks and what nobody can hold ends without a word."""
    async with aio.connect(server.url, KEY) as shared:
        prices, jobs = shared.dict("d"), shared.queue("q")

        async def work(number: int) -> None:
            await prices.setitem(number, [number])
            await jobs.put(number)
            async with shared.rlock("r"), shared.rwlock("rw").read(), shared.lock("l"), shared.semaphore("s"):
                async with prices.edit(number) as value, jobs.claim():
                    value.append(1)
            async with shared.condition("c") as bell:
                assert bell
            assert await shared.seats("s").count() == 0
            assert not await shared.rlock("held").acquire(timeout=0)

        await shared.rlock("held").acquire()
        await asyncio.gather(*(work(number) for number in range(20)))
        await take_turns()
        await shared.statistics()
        assert ends == []


@in_loop
async def test_threads_of_the_server_end_with_their_tasks(server: ManagerServer) -> None:
    """The calls of a task to a threaded object run on a thread of its own there, which goes with it."""
    async with aio.connect(server.url, KEY) as shared:
        slow = shared.slow("s")
        await asyncio.gather(*(asyncio.create_task(slow.greet()) for _ in range(10)))
        await take_turns()
        await shared.statistics()
        assert len(server._threads._workers) == 0  # type: ignore[attr-defined]


@in_loop
async def test_an_end_is_told_though_the_connection_breaks(server: ManagerServer, ends: list[int]) -> None:
    """It is told again on the next connection, until something that came later has been answered."""
    async with aio.connect(server.url, KEY) as shared:
        lock, link = shared.rlock("r"), link_of(shared)

        async def hold() -> None:
            await lock.acquire()
            link._break(link._transport)

        await asyncio.create_task(hold())
        await take_turns()
        assert not await lock.locked()
        assert len(link._ended) == 1
        assert [await shared.counter("c").incr() for _ in range(3)] == [1, 2, 3]
        assert link._ended == []
        assert len(set(ends)) == 1


# -- connections ------------------------------------------------------------------------------------------------------


@in_loop
async def test_calls_survive_cuts(home: Path) -> None:
    """Each call runs once, whatever becomes of the connection, and waits go on."""
    with ManagerServer(("127.0.0.1", 0), KEY) as server, Wire(*server.address) as wire:  # type: ignore[misc]
        async with aio.connect(f"tcp://127.0.0.1:{wire.port}", KEY) as shared:
            count, jobs = shared.counter("c"), shared.queue("q")
            waiting = [asyncio.create_task(jobs.get()) for _ in range(3)]
            wire.cut_between(500, 20_000)
            wire.cut()
            numbers: list[int] = []
            for _ in range(size(10, 200)):
                numbers += await asyncio.gather(*(count.incr() for _ in range(30)))
            wire.cut_no_more()
            wire.cut()
            assert sorted(numbers) == list(range(1, len(numbers) + 1))
            await jobs.put_many(["a", "b", "c"])
            assert sorted(await asyncio.gather(*waiting)) == ["a", "b", "c"]
            assert wire.cuts > 3


@in_loop
async def test_an_idle_session_is_looked_after(home: Path) -> None:
    """Over TCP a task sends signs of life and comes back by itself, and a listener hears of it in the loop."""
    lease = 0.6
    with ManagerServer(("127.0.0.1", 0), KEY, lease=lease) as server, Wire(*server.address) as wire:  # type: ignore[misc]
        async with aio.connect(f"tcp://127.0.0.1:{wire.port}", KEY) as shared:
            states: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
            stop = shared.listen(lambda state: states.put_nowait((state, threading.get_ident())))
            here = threading.get_ident()
            async with shared.lock("l"):
                began = server.now()
                client = server.host.clients[link_of(shared).key]
                while client.heard <= began + 3 * lease:
                    await asyncio.sleep(0.01)  # what is looked at is time itself
                for _ in range(size(3, 50)):
                    wire.cut()
                    assert await asyncio.wait_for(states.get(), PATIENCE) == ("suspended", here)
                    assert await asyncio.wait_for(states.get(), PATIENCE) == ("connected", here)
                await shared.counter("c").incr()
            stop()
            assert not [thread for thread in threading.enumerate() if thread.name == "registry keeper"]


@in_loop
async def test_a_lost_session_is_told_once(home: Path) -> None:
    """A server that comes back without its memory: what was held is lost, what waits is told, then all goes on."""
    with Served("here") as served:
        shared = await aio.connect(served.url, KEY, timeout=20)
        count, lock, jobs = shared.counter("c"), shared.lock("l"), shared.queue("q")
        assert await count.incr() == 1
        waiting = asyncio.create_task(jobs.get())
        with pytest.raises(LockLost):
            async with lock:
                await until(lambda: True, shared)
                served.kill()
                with Served("here"):
                    results = await asyncio.gather(waiting, count.incr(), return_exceptions=True)
                    assert isinstance(results[0], StateLost | LockLost)
                    assert isinstance(results[1], LockLost | StateLost | OutcomeUnknown)
                    assert await asyncio.create_task(count.incr()) == 1
                    assert not await asyncio.create_task(lock.locked())
                    raise LockLost("lock:l", "as the block says by itself")
        await shared.close()


@in_loop
async def test_a_server_that_stands_still_stops_nobody(home: Path) -> None:
    """Calls end at their deadline, and the loop goes on all the while."""
    with Served("here") as served:
        async with aio.connect(served.url, KEY, timeout=0.3) as shared:
            count = shared.counter("c")
            await count.incr()
            turns = 0

            async def others() -> None:
                nonlocal turns
                while True:
                    await asyncio.sleep(0)
                    turns += 1

            beside = asyncio.create_task(others())
            served.signal(signal.SIGSTOP)
            try:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr("registry._link.SETTLE", 0.1)
                    results = await asyncio.gather(
                        count.get(),
                        count.incr(),
                        asyncio.wait_for(shared.lock("l").acquire(), 0.1),
                        return_exceptions=True,
                    )
                assert [type(result) for result in results] == [CallTimeout, OutcomeUnknown, asyncio.TimeoutError]
                assert turns > 100
            finally:
                served.signal(signal.SIGCONT)
            beside.cancel()
            shared._front.here().timeout = 20.0
            assert await count.get() in (1, 2)


@in_loop
async def test_a_connection_that_never_comes_can_be_given_up(home: Path) -> None:
    """Somebody listens and says nothing: others go on, a cancellation ends it, and so does the deadline."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        connecting = asyncio.create_task(aio.ManagerClient(address, KEY, timeout=20).connect())
        client = aio.ManagerClient(address, KEY[::-1], timeout=0.1)
        with pytest.raises(ServerNotFound):
            await client.counter("c").incr()
        await client.close()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        for _ in range(2):
            listener.accept()[0].close()


@in_loop
async def test_whoever_is_closed_while_it_connects_keeps_nobody_from_it(server: ManagerServer) -> None:
    """One task connects for all; where it is thrown away meanwhile, another one does."""
    shared = aio.ManagerClient(server.url, KEY)
    count = shared.counter("c")
    first: Any = count.incr()
    first.send(None)  # it is connecting
    others = [asyncio.create_task(count.incr()) for _ in range(3)]
    await asyncio.sleep(0)
    first.close()
    assert sorted(await asyncio.gather(*others)) == [1, 2, 3]
    link = link_of(shared)
    link._break(link._transport)
    again: Any = count.incr()
    again.send(None)
    others = [asyncio.create_task(count.incr()) for _ in range(3)]
    await asyncio.sleep(0)
    again.close()
    assert sorted(await asyncio.gather(*others)) == [4, 5, 6]
    await shared.close()
    assert repr(shared) == f"<asynchronous client of {server.url}, closed>"


@in_loop
async def test_a_session_that_cannot_be_looked_after_is_tried_again(
    home: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes wrong in looking after it is logged, and ends neither the session nor the looking after."""
    with ManagerServer(("127.0.0.1", 0), KEY, lease=20.0) as server:
        async with aio.connect(server.url, KEY) as shared:
            kept = link_of(shared).kept
            assert kept is not None
            with monkeypatch.context() as patch, caplog.at_level(logging.ERROR, "registry"):
                patch.setattr(kept, "_beat", lambda connection: 1 / 0)
                kept._beat_at = 0.0
                kept.wake()
                while not caplog.records:
                    await asyncio.sleep(0.01)  # what is looked at is time itself
            assert "cannot look after the session" in caplog.text
            client = server.host.clients[link_of(shared).key]
            began = server.now()
            while client.heard <= began:
                await asyncio.sleep(0.01)
            assert link_of(shared).kept is kept
            assert await shared.counter("c").incr() == 1


@in_loop
async def test_what_is_not_taken_is_not_heaped_up(home: Path) -> None:
    """While the server takes nothing, calls wait before they are written; then all goes on."""
    with Served("here") as served:
        async with aio.connect(served.url, KEY, timeout=20) as shared:
            values, link = shared.dict("d"), link_of(shared)
            await values.setitem("x", 0)
            link.files = ""  # so that all of it goes by the connection
            served.signal(signal.SIGSTOP)
            tasks = [asyncio.create_task(values.setitem(number, bytes(200_000))) for number in range(100)]
            while not link._transport.is_full:
                await asyncio.sleep(0)
            assert _transport.FULL < link._transport._size < 2 * _transport.FULL
            assert sum(len(lane.waiters) for lane in link._lanes) > 50
            tasks[-1].cancel()
            served.signal(signal.SIGCONT)
            await asyncio.wait(tasks)
            assert await values.len() == 100
            assert not any(lane.waiters or lane.admitted for lane in link._lanes)


@in_loop
async def test_a_server_that_does_not_read_is_given_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some time without progress the connection is dropped, and a new one made."""
    monkeypatch.setattr(_transport, "STUCK", 0.05)
    with Served("here") as served:
        async with aio.connect(served.url, KEY, timeout=20) as shared:
            values, link = shared.dict("d"), link_of(shared)
            await values.setitem("x", 0)
            link.files = ""
            transport = link._transport
            served.signal(signal.SIGSTOP)
            task = asyncio.create_task(values.setitem("y", bytes(2_000_000)))
            while link._transport is transport:
                await asyncio.sleep(0)
            served.signal(signal.SIGCONT)
            await task
            assert await values.len() == 2


@in_loop
async def test_a_protocol_error_ends_the_connection_only(server: ManagerServer) -> None:
    """What is no frame is no reply; the call is made again on another connection."""
    async with aio.connect(server.url, KEY) as shared:
        count, link = shared.counter("c"), link_of(shared)
        await count.incr()
        reader = link._reader
        reader.feed(b"\xff" * _wire.HEADER_SIZE)
        assert await count.incr() == 2
        assert link._reader is not reader


# -- loops ------------------------------------------------------------------------------------------------------------


def test_two_loops_are_two_sessions(server: ManagerServer) -> None:
    """In two threads at once, with one client and one proxy: each loop waits for itself, and locks exclude them."""
    shared = aio.ManagerClient(server.url, KEY)
    lock, count, jobs, ticket = shared.lock("l"), shared.counter("c"), shared.queue("q"), shared.ticket()
    inside: list[int] = []
    turns = size(50, 2000)

    async def work() -> None:
        async with shared:
            assert await jobs.get() == "go"
            for _ in range(turns):
                async with lock:
                    inside.append(1)
                    await count.incr()
                    await asyncio.sleep(0)
                    assert inside.pop() and not inside
                await count.get()
            await ticket.bump()

    with connect(server.url, KEY) as client:
        with running(lambda: asyncio.run(work()), lambda: asyncio.run(work())):
            until_waiting(client, 2)
            assert client.statistics()["sessions"] == 3
            client.queue("q").put_many(["go", "go"])
        assert client.counter("c").get() == 2 * turns
        assert not client.lock("l").locked()


def until_waiting(client: Any, count: int) -> None:
    while not any(row["waiting"] == count for row in client.objects("queue:q")):
        pass


def test_a_session_ends_with_its_loop(server: ManagerServer) -> None:
    """A program that ends in order leaves nothing behind, though it has closed nothing."""

    async def main() -> None:
        shared = await aio.connect(server.url, KEY)
        await shared.lock("l").acquire()
        asyncio.create_task(shared.queue("q").get())  # noqa: RUF006 - it is to be cancelled with the loop
        await until(lambda: "session 1" in held(server), shared)

    asyncio.run(main())
    with connect(server.url, KEY) as client:
        grant = client.lock("l").acquire(timeout=PATIENCE)
        assert grant and grant.abandoned
        assert client.statistics()["sessions"] == 1
        assert not any(row["waiting"] for row in client.objects())


def test_a_loop_may_be_closed_with_calls_under_way(
    server: ManagerServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever closes a loop in the middle of calls sees no error of ours; the client goes on in the next loop."""
    shared = aio.ManagerClient(server.url, KEY)
    lock, jobs = shared.lock("l"), shared.queue("q")

    async def hold() -> None:
        async with lock, jobs.claim():
            await shared.counter("c").incr()
            await jobs.get()

    async def begin() -> list[asyncio.Task[None]]:
        await shared.connect()
        await jobs.put("item")
        tasks = [asyncio.create_task(hold()) for _ in range(3)]
        tasks.append(asyncio.create_task(shared.rlock("r").acquire()))
        await until(lambda: held(server).get("queue:q", {}).get("waiters"), shared)
        return tasks

    loop = asyncio.new_event_loop()
    tasks = loop.run_until_complete(begin())
    loop.close()
    with caplog.at_level(logging.CRITICAL, "asyncio"):  # it grumbles about tasks that are thrown away
        del tasks
        gc.collect()

    async def go_on() -> None:
        async with shared:
            async with lock.acquire(timeout=PATIENCE) as grant:
                assert grant
            assert await jobs.get(timeout=PATIENCE) == "item"
            assert await shared.counter("c").get() == 1

    # The session of the first loop is over as soon as another loop has one.
    asyncio.run(go_on())


def test_what_is_given_back_elsewhere_is_handed_over(server: ManagerServer) -> None:
    """A destructor may run in another thread than the loop, which gives back what it finds."""

    async def main() -> None:
        async with aio.connect(server.url, KEY) as shared:
            lock = shared.lock("l")
            block = lock.__aexit__
            row = lock._row()
            assert row.opening is not None
            await row.opening().enter(await lock._manager())  # type: ignore[misc,union-attr]
            assert await lock.locked()
            rest = [block]
            del block
            await asyncio.get_running_loop().run_in_executor(None, rest.clear)
            await until(lambda: not held(server), shared)

    asyncio.run(main())


FORKS = """
import asyncio, os, sys
from registry import aio
shared = aio.ManagerClient(sys.argv[1], sys.argv[2].encode())
lock, count, jobs = shared.lock("l"), shared.counter("c"), shared.queue("q")

async def child():
    async with shared:
        print(bool(await lock.acquire(timeout=0)), await count.incr(), flush=True)
        print(sorted((await shared.statistics()).items())[0] is not None, await jobs.get(), flush=True)

async def main():
    async with shared:
        async with lock:
            await count.incr()
            taking = asyncio.create_task(jobs.get())
            await asyncio.sleep(0)
            pid = os.fork()
            if not pid:
                try:
                    asyncio.run(child())
                finally:
                    os._exit(0)
            await jobs.put("a")
            print(await taking, await count.get() in (1, 2), flush=True)
            await jobs.put("b")
            await asyncio.get_running_loop().run_in_executor(None, os.waitpid, pid, 0)
            print(await lock.locked(), await count.incr(), flush=True)
        print(await lock.locked(), flush=True)

asyncio.run(main())
"""


def test_a_forked_child_has_a_session_of_its_own(server: ManagerServer) -> None:
    """A process that forks in the middle keeps what it holds and what it waits for; the child owns nothing of it."""
    with Script(FORKS, server.url, KEY.decode()) as script:
        lines = list(iter(script.line, ""))
        assert script.wait() == 0
    assert sorted(lines) == sorted(["a True", "False 2", "True b", "True 3", "False"])


EXITS = """
import asyncio, sys
from registry import aio

async def main():
    shared = aio.ManagerClient(sys.argv[1], sys.argv[2].encode())
    await shared.lock("l").acquire()
    await shared.queue("q").put("x")
    print("holds", flush=True)
    {end}

loop = asyncio.new_event_loop()
{run}
"""


@pytest.mark.parametrize(
    ("end", "run"),
    [
        ("pass", "loop.run_until_complete(main())"),
        ("sys.exit(0)", "loop.run_until_complete(main())"),
        (
            "await asyncio.Event().wait()",
            "import threading; threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True).start(); "
            "sys.stdin.readline()",
        ),
    ],
    ids=["loop left open", "exit in a task", "loop in a thread"],
)
def test_a_process_that_ends_says_goodbye(server: ManagerServer, end: str, run: str) -> None:
    """Whatever its loops are doing: what it held is free at once, and is said to be abandoned."""
    with connect(server.url, KEY) as client:
        with Script(EXITS.format(end=end, run=run), server.url, KEY.decode()) as script:
            assert script.line() == "holds"
            script.say()
            assert script.wait() == 0
        grant = client.lock("l").acquire(timeout=0)
        assert grant and grant.abandoned
        assert client.queue("q").get_nowait() == "x"


@in_loop
async def test_a_close_ends_the_calls_of_other_tasks(server: ManagerServer) -> None:
    """Those who wait for a reply and those who wait for room are told."""
    async with two_sessions(server) as (shared, other):
        jobs = shared.queue("q")
        with pytest.MonkeyPatch.context() as patch:
            for lane in link_of(shared)._lanes:
                patch.setattr(lane, "most", 2)
            takers = [asyncio.create_task(jobs.get()) for _ in range(4)]
            await until(lambda: len(held(server).get("queue:q", {}).get("waiters", ())) == 2, other)
            await shared.close()
            results = await asyncio.gather(*takers, return_exceptions=True)
        assert [type(result) for result in results] == [Closed] * 4
        await until(lambda: len(server.host.clients) == 1, other)


def test_uvloop_is_a_loop_like_any(server: ManagerServer) -> None:
    """The whole of it in the other event loop that people use."""
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        async with aio.connect(server.url, KEY) as shared:
            numbers = await asyncio.gather(*(shared.counter("c").incr() for _ in range(500)))
            assert sorted(numbers) == list(range(1, 501))
            async with shared.lock("l"):
                refused = await asyncio.create_task(shared.lock("l").acquire(timeout=0.01))
                assert not refused
            link = link_of(shared)
            waiting = asyncio.create_task(shared.queue("q").get())
            await asyncio.sleep(0)
            link._break(link._transport)
            await shared.queue("q").put("x")
            assert await waiting == "x"
            await shared.lock("l").acquire()

    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
    with connect(server.url, KEY) as client:
        assert client.lock("l").acquire(timeout=PATIENCE)


def test_a_loop_that_cannot_watch_sockets_is_refused(server: ManagerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some loops cannot; the error says which to take, and nothing is left open."""

    def add_reader(*args: object) -> None:
        raise NotImplementedError

    async def main() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", add_reader)
        with pytest.raises(RuntimeError, match=r"cannot watch sockets.*asyncio\.SelectorEventLoop"):
            await aio.connect(server.url, KEY)

    asyncio.run(main())
    assert os.getpid()


def test_nothing_of_a_loop_is_kept(server: ManagerServer) -> None:
    """Loops that have ended are forgotten with all that belonged to them."""
    shared = aio.ManagerClient(server.url, KEY)

    async def use() -> None:
        await shared.counter("c").incr()

    for _ in range(5):
        asyncio.run(use())
    assert len(_homes._links) <= 1
    assert len(shared._front._homes) <= 1
    assert _link.MOST_WAITS < _link.MOST < _wire.IN_FLIGHT
