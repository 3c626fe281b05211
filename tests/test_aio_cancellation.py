"""Whoever is cancelled loses nothing, and keeps nothing from others: looked at on the server, when all is over."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from loops import held, in_loop, link_of
from servers import KEY, Wire, until
from sizes import size

from registry import ManagerServer, aio, connect
from registry.aio import _bridge, _link, _transport
from registry.errors import RegistryError


@pytest.fixture
def server(home: Path) -> Any:
    with ManagerServer("here", KEY, lease=5.0) as server:
        yield server


class Trouble:
    """Tasks that use what is shared, and are cancelled at any moment.

    Attributes:
        started: How many there were.
        cancelled: How many were cancelled before they had ended.
    """

    def __init__(self, shared: aio.ManagerClient, seed: int) -> None:
        self.random = random.Random(seed)
        self.shared = shared
        self.lock, self.again = shared.lock("l"), shared.rlock("r")
        self.both, self.permits = shared.rwlock("rw"), shared.semaphore("s", 3)
        self.jobs, self.prices = shared.queue("q", maxsize=20), shared.dict("d")
        self.bell = shared.condition("c")
        self.inside: Counter[str] = Counter()
        self.next = 0
        self.attempted: set[int] = set()
        self.put: set[int] = set()
        self.taken: list[int] = []
        self.started = self.cancelled = 0

    @asynccontextmanager
    async def alone(self, what: str, most: int = 1) -> AsyncIterator[None]:
        """Be one of at most so many in here."""
        self.inside[what] += 1
        assert self.inside[what] <= most, what
        try:
            yield
        finally:
            self.inside[what] -= 1

    async def pause(self) -> None:
        for _ in range(self.random.randint(0, 3)):
            await asyncio.sleep(0)

    async def use_lock(self) -> None:
        async with self.lock, self.alone("lock"):
            await self.pause()

    async def use_grant(self) -> None:
        async with self.lock.acquire(timeout=self.random.choice((None, 30.0))) as grant, self.alone("lock"):
            assert grant
            await self.pause()

    async def use_rlock(self) -> None:
        async with self.again, self.alone("rlock"):
            await self.pause()
            async with self.again:
                await self.pause()

    async def use_rwlock(self) -> None:
        if self.random.random() < 0.5:
            async with self.both.write(), self.alone("writer"):
                assert not self.inside["reader"]
                await self.pause()
        else:
            async with self.both.read(), self.alone("reader", 1_000_000):
                assert not self.inside["writer"]
                await self.pause()

    async def use_semaphore(self) -> None:
        async with self.permits, self.alone("permits", 3):
            await self.pause()

    async def use_condition(self) -> None:
        async with self.bell:
            if self.random.random() < 0.5:
                await self.bell.notify()
            else:
                await self.bell.wait(timeout=0.01)

    async def use_edit(self) -> None:
        async with self.prices.edit("n") as value:
            value[0] += 1
            await self.pause()

    async def use_put(self) -> None:
        self.next += 1
        item = self.next
        self.attempted.add(item)
        await self.jobs.put(item)
        self.put.add(item)

    async def use_get(self) -> None:
        self.taken.append(await self.jobs.get())

    async def use_claim(self) -> None:
        async with self.jobs.claim() as item:
            await self.pause()
            if self.random.random() < 0.5:
                raise KeyError  # it goes back
            self.taken.append(item)  # and is done from here on, also where the end of the block is cancelled

    async def use_many(self) -> None:
        self.taken += await self.jobs.get_many(self.random.randint(1, 3))

    async def attempt(self, use: Callable[[], Awaitable[None]]) -> None:
        with contextlib.suppress(KeyError):
            await use()

    async def cancel(self, task: asyncio.Task[None], turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        self.cancelled += task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def run(self, count: int, together: int = 50) -> None:
        """Have tasks each use something, and cancel each after some turns of the loop, until so many were cancelled."""
        await self.prices.setitem("n", [0])
        uses = [getattr(self, name) for name in dir(self) if name.startswith("use_")]
        running: set[asyncio.Task[None]] = set()
        while self.cancelled < count:
            self.started += 1
            task = asyncio.create_task(self.attempt(self.random.choice(uses)))
            running.add(asyncio.create_task(self.cancel(task, self.random.choice((1, 2, 3, 5, 8, 13, 40, 200)))))
            if len(running) >= together:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for each in done:
                    each.result()
        for each in running:
            await each

    async def check(self, server: ManagerServer) -> None:
        """Nothing is held, nobody waits, every item is there once, and nothing is left to settle."""
        link = link_of(self.shared)
        await self.shared.statistics()
        for _ in range(1000):
            if not link._pending:
                break
            await self.shared.statistics()
        assert not link._pending
        assert held(server) == {}
        rest = []
        while await self.jobs.qsize():
            rest.append(await self.jobs.get_nowait())
        found = Counter(self.taken + rest)
        assert max(found.values(), default=1) == 1, "an item was there twice"
        assert self.put <= found.keys() <= self.attempted
        assert await self.permits.value() == 3
        for each in (self.lock, self.again, self.both, self.bell):
            assert (await self.shared.statistics(each))["holder"] is None
        assert not any(lane.waiters or lane.admitted for lane in link._lanes)


@pytest.mark.parametrize("seed", range(3))
@in_loop
async def test_cancelled_tasks_leak_nothing(server: ManagerServer, seed: int) -> None:
    """Tasks that are cancelled at random, one after the other, hold nothing and lose nothing."""
    async with aio.connect(server.url, KEY) as shared:
        trouble = Trouble(shared, seed)
        await trouble.run(size(400, 10_000))
        assert size(400, 10_000) <= trouble.cancelled < trouble.started
        await trouble.check(server)


@pytest.mark.parametrize("seed", range(2))
@in_loop
async def test_they_leak_nothing_on_a_connection_that_breaks(home: Path, seed: int) -> None:
    """Whatever is on its way when the connection ends is settled on the next."""
    with ManagerServer(("127.0.0.1", 0), KEY, lease=20.0) as server, Wire(*server.address) as wire:  # type: ignore[misc]
        async with aio.connect(f"tcp://127.0.0.1:{wire.port}", KEY) as shared:
            trouble = Trouble(shared, seed)
            wire.cut_between(200, 12_000)
            wire.cut()
            await trouble.run(size(300, 5_000))
            wire.cut_no_more()
            wire.cut()
            await trouble.check(server)
            assert wire.cuts >= size(2, 6)  # two of them for certain, the others after so many bytes


@in_loop
async def test_a_crowd_that_is_cancelled_leaves_nothing(server: ManagerServer) -> None:
    """More tasks than a server lets a session have calls wait at once; whether they wait there or here, they go."""
    crowd = size(5_000, 20_000)
    async with aio.connect(server.url, KEY) as shared:
        lock, jobs = shared.lock("l"), shared.queue("q")
        entered = 0

        async def enter() -> None:
            nonlocal entered
            async with lock:
                entered += 1

        async with lock:
            tasks = [asyncio.create_task(enter()) for _ in range(crowd)]
            takers = [asyncio.create_task(jobs.get()) for _ in range(10)]
            await asyncio.sleep(0)
            # Those that wait leave room for those that make them go on.
            assert await shared.counter("c").incr() == 1
            assert await jobs.qsize() == 0
            random.Random(1).shuffle(tasks)
            for task in tasks[: crowd - 100]:
                task.cancel()
            await asyncio.wait(tasks[: crowd - 100])
            assert entered == 0
        await asyncio.gather(*tasks[crowd - 100 :])
        assert entered == 100
        await jobs.put_many(list(range(10)))
        assert sorted(await asyncio.gather(*takers)) == list(range(10))
        await shared.statistics()
        assert held(server) == {}


# -- at every place where a task waits


class At:
    """Cancel the task that runs at its n-th wait: before it is over, or when it is and the task has not gone on yet."""

    def __init__(self, number: int, is_late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = number
        self.is_late = is_late
        self.was_cancelled = False
        self.task: asyncio.Task[Any] | None = None
        wait = _bridge.wait

        def waiting(future: asyncio.Future[Any]) -> None:
            task = asyncio.current_task()
            if task is self.task and not self.was_cancelled:
                self.left -= 1
                if not self.left:
                    self.was_cancelled = True
                    if self.is_late:
                        future.add_done_callback(lambda _: task.cancel() if task is not None else None)
                    else:
                        asyncio.get_running_loop().call_soon(task.cancel)
            wait(future)

        monkeypatch.setattr(_transport, "wait", waiting)
        monkeypatch.setattr(_link, "wait", waiting)


Story = Callable[[aio.ManagerClient], Coroutine[Any, Any, None]]


def everywhere(server: ManagerServer, monkeypatch: pytest.MonkeyPatch, story: Story, check: Story, waits: int) -> None:
    """Run a story once for each of its waits, cancelled there, and a check after it."""

    async def main(is_late: bool) -> None:
        async with aio.connect(server.url, KEY) as shared:
            await story(shared)
            for number in range(1, 50):
                with monkeypatch.context() as patch:
                    at = At(number, is_late, patch)
                    at.task = asyncio.create_task(story(shared))
                    await asyncio.wait([at.task])
                    assert at.task.cancelled() == at.was_cancelled or not at.task.exception()
                await check(shared)
                await shared.statistics()  # behind the release for whose reply nobody waits
                assert held(server) == {}
                assert link_of(shared).guards == []
                if not at.was_cancelled:
                    assert number > waits
                    return
            raise AssertionError("it waits without end")

    for is_late in (False, True):
        asyncio.run(main(is_late))


@pytest.mark.parametrize("is_late", [False, True], ids=["before", "after"])
def test_the_block_of_a_client(server: ManagerServer, monkeypatch: pytest.MonkeyPatch, is_late: bool) -> None:
    """Whoever is cancelled while connecting, calling or leaving has no session when its loop ends."""

    async def story() -> None:
        async with aio.connect(server.url, KEY) as shared:
            async with shared.rlock("r"):
                await shared.counter("c").incr()

    async def main(number: int) -> bool:
        with monkeypatch.context() as patch:
            at = At(number, is_late, patch)
            at.task = asyncio.create_task(story())
            await asyncio.wait([at.task])
        assert at.task.cancelled() == at.was_cancelled or not at.task.exception()
        return at.was_cancelled

    with connect(server.url, KEY) as client:
        number = 1
        while asyncio.run(main(number)):
            assert threading.active_count() < 10
            number += 1
            until(lambda ask: ask.statistics()["sessions"] == 1, client)
            assert not client.rlock("r").locked()
        assert number > 4


def test_the_block_of_a_lock(server: ManagerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is free afterwards, and nobody is said to have died."""

    async def story(shared: aio.ManagerClient) -> None:
        async with shared.lock("l"):
            await shared.counter("c").incr()

    async def check(shared: aio.ManagerClient) -> None:
        async with shared.lock("l").acquire(timeout=0) as grant:
            assert grant
            assert not grant.abandoned

    everywhere(server, monkeypatch, story, check, 2)


def test_nested_blocks(server: ManagerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """No level is released twice, or not at all."""

    async def story(shared: aio.ManagerClient) -> None:
        lock, both = shared.rlock("r"), shared.rwlock("rw")
        async with lock, both.read(), lock, both.read():
            await shared.counter("c").incr()
        async with both.write():
            pass

    async def check(shared: aio.ManagerClient) -> None:
        assert not await shared.rlock("r").locked()
        async with shared.rwlock("rw").write(timeout=0) as grant:
            assert grant

    everywhere(server, monkeypatch, story, check, 5)


def test_permits_and_conditions(server: ManagerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """All permits are there again, and a condition is free though its waiter was cancelled."""

    async def story(shared: aio.ManagerClient) -> None:
        async with shared.semaphore("s", 2):
            bell = shared.condition("b")
            async with bell:
                await bell.wait(timeout=0.001)
                await bell.wait_for(lambda: True)

    async def check(shared: aio.ManagerClient) -> None:
        assert await shared.semaphore("s", 2).value() == 2
        async with shared.condition("b").acquire(timeout=0) as grant:
            assert grant

    everywhere(server, monkeypatch, story, check, 3)


def test_an_item(server: ManagerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An item that did not reach its taker is there again, and none is there twice."""
    taken: list[object] = []

    async def story(shared: aio.ManagerClient) -> None:
        jobs = shared.queue("q")
        if not await jobs.qsize():
            await jobs.put("item")
        taken.append(await jobs.get(timeout=0))

    async def check(shared: aio.ManagerClient) -> None:
        taken.extend(["left"] * await shared.queue("q").qsize())
        assert len(taken) <= 1
        taken.clear()

    everywhere(server, monkeypatch, story, check, 2)


def test_a_claim(server: ManagerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The item is done, or there again."""
    done: list[object] = []

    async def story(shared: aio.ManagerClient) -> None:
        jobs = shared.queue("q")
        if not await jobs.qsize():
            await jobs.put("item")
        async with jobs.claim() as item:
            await shared.counter("c").incr()
            done.append(item)

    async def check(shared: aio.ManagerClient) -> None:
        assert await shared.queue("q").qsize() + len(done) <= 1
        done.clear()

    everywhere(server, monkeypatch, story, check, 4)


def test_an_edit(server: ManagerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The turn is free again, and the value is the old or the new one."""

    async def story(shared: aio.ManagerClient) -> None:
        prices = shared.dict("d")
        await prices.setdefault("n", [0])
        async with prices.edit("n") as value:
            value[0] += 1
            await shared.counter("c").incr()

    async def check(shared: aio.ManagerClient) -> None:
        async with shared.dict("d").edit("n") as value:
            assert value[0] in (0, 1)
            value[0] = 0

    everywhere(server, monkeypatch, story, check, 4)


@in_loop
async def test_an_error_of_the_body_is_not_hidden_by_a_cancelled_end(server: ManagerServer) -> None:
    """A block that is left by a cancellation says so, whatever becomes of the release."""
    async with aio.connect(server.url, KEY) as shared:
        entered = asyncio.Event()

        async def body() -> None:
            async with shared.rlock("r"):
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(body())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not await shared.rlock("r").locked()


@in_loop
async def test_a_task_group_gives_everything_back(server: ManagerServer) -> None:
    """One task of a group fails; the others are cancelled in the middle of what they do, and nothing is left."""
    if not hasattr(asyncio, "TaskGroup"):
        pytest.skip("task groups come with Python 3.11")
    async with aio.connect(server.url, KEY) as shared:
        lock, jobs, done = shared.lock("l"), shared.queue("q"), shared.event("e")

        async def hold() -> None:
            async with lock:
                await done.wait()

        async def fail() -> None:
            while not held(server).get("event:e"):
                await shared.statistics()
            raise RegistryError("enough")

        with pytest.raises(BaseException) as caught:
            async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined,unused-ignore]
                group.create_task(hold())
                group.create_task(lock.acquire())
                group.create_task(jobs.get())
                group.create_task(fail())
        assert [str(error) for error in caught.value.exceptions] == ["enough"]  # type: ignore[attr-defined]
        await shared.statistics()
        assert held(server) == {}


@in_loop
async def test_a_timeout_gives_everything_back(server: ManagerServer) -> None:
    """`asyncio.wait_for` and `asyncio.timeout` end a wait as any cancellation does."""
    async with aio.connect(server.url, KEY) as shared:
        lock, jobs = shared.lock("l"), shared.queue("q")
        async with lock:
            for timeout in (0.0, 0.001, 0.01):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(lock.acquire(), timeout)
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(jobs.get(), timeout)
                if hasattr(asyncio, "timeout"):
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(timeout), lock:
                            raise AssertionError("it is held")
            await shared.statistics()
            assert set(held(server)) == {"lock:l"}
            assert held(server)["lock:l"]["waiters"] == []
        await shared.statistics()
        assert held(server) == {}
        await jobs.put("item")
        assert await jobs.get(timeout=0) == "item"
