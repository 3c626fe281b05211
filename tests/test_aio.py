"""The client for asyncio: the same objects and the same rules, each verb awaited."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import pickle
import queue
import types
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from loops import held, in_loop, link_of, until
from servers import KEY, THINGS
from things import ALL, COOKIES, GATE, NOTES, Point

import registry
from registry import ManagerServer, aio, connect
from registry.errors import (
    AccessDenied,
    CallTimeout,
    Closed,
    DefinitionConflict,
    EditConflict,
    LockLost,
    NoSuchObject,
    NotOwner,
    ServerNotFound,
    SnapshotError,
    UnknownType,
)


@pytest.fixture
def server(home: Path) -> Iterator[ManagerServer]:
    with ManagerServer("here", KEY, plugins=ALL) as server:
        yield server


# -- connecting -------------------------------------------------------------------------------------------------------


@in_loop
async def test_connect_is_awaited_or_entered(server: ManagerServer) -> None:
    """Both give a client that has connected; the end of a block, or `close`, ends the session."""
    async with aio.connect("here", KEY) as shared:
        assert repr(shared) == "<asynchronous client of here, connected>"
        assert await shared.counter("c").incr() == 1
    shared = await aio.connect("here", KEY)
    assert await shared.counter("c").incr() == 2
    assert (await shared.statistics())["sessions"] == 1
    await shared.close()
    await shared.close()
    with pytest.raises(Closed, match="this client of here is closed"):
        await shared.counter("c").incr()


@in_loop
async def test_clients_of_one_loop_share_a_session(server: ManagerServer) -> None:
    """Two clients with the same key are one session, which ends with the last of them."""
    async with aio.connect("here", KEY) as one:
        async with aio.connect("here", KEY) as other:
            assert link_of(one) is link_of(other)
            assert await other.counter("c").incr() == 1
        assert await one.counter("c").incr() == 2
        with connect("here", KEY) as blocking:
            assert blocking.statistics()["sessions"] == 2


@in_loop
async def test_connect_raises_when_awaited(server: ManagerServer) -> None:
    """Nobody there, another key, and what the other end may not do: the errors of the blocking client."""
    for _ in range(2):
        with pytest.raises(ServerNotFound, match="no server of that name runs"):
            await aio.connect("nowhere", start=False)
        with pytest.raises(ServerNotFound, match="nothing listens there"):
            async with aio.connect(("127.0.0.1", 1), KEY):
                raise AssertionError("it is not entered")
        with pytest.raises(AccessDenied, match="another key"):
            await aio.connect("here", b"wrong key, which nobody has")
    shared = aio.ManagerClient("here", b"wrong key, which nobody has")
    with pytest.raises(AccessDenied):
        await shared.dict("d").setitem("x", 1)
    await shared.close()
    assert server.host.engine.objects == {}


@in_loop
async def test_what_one_client_says_of_the_server_is_what_the_other_says(server: ManagerServer) -> None:
    """`objects`, `statistics`, `delete` and `listen` are those of the blocking client."""
    async with aio.connect("here", KEY) as shared:
        states: list[str] = []
        stop = shared.listen(states.append)
        prices, jobs = shared.dict("prices"), shared.queue("jobs")
        await prices.setitem("BTC", 1)
        await jobs.put("x")
        assert [row["name"] for row in await shared.objects("queue:*")] == ["jobs"]
        assert (await shared.statistics(jobs))["items"] == 1
        with connect("here", KEY) as blocking:
            assert await shared.objects() == blocking.objects()
        await shared.delete(jobs)
        assert [row["name"] for row in await shared.objects()] == ["prices"]
        with pytest.raises(NoSuchObject, match="was deleted"):
            await jobs.qsize()
        assert await jobs.qsize() == 0
        with pytest.raises(TypeError, match="takes a proxy"):
            await shared.delete("jobs")
        link = link_of(shared)
        link._break(link._transport)
        await jobs.qsize()
        await until(lambda: states == ["suspended", "connected"], shared)
        stop()
        stop()


def test_a_module_may_hold_a_client(server: ManagerServer) -> None:
    """Neither it nor its proxies do I/O before they are used; each loop that uses them has a session of its own."""
    shared = aio.ManagerClient("here", KEY)
    lock, jobs, prices, hits = shared.lock("l"), shared.queue("q"), shared.dict("d"), shared.counter("c")
    both, bell = shared.rwlock("rw"), shared.condition("b")
    assert repr(shared) == "<asynchronous client of here, not connected>"
    assert repr(prices) == "<shared dict 'd' on here>"
    assert server.host.clients == {}

    @lock
    async def count() -> Any:
        return await hits.incr()

    async def main(number: int) -> int:
        async with shared, lock, both.read(), bell:
            await jobs.put(number)
            async with jobs.claim() as item, prices.edit("n") if number > 1 else both.read():
                assert item == number
            await prices.setitem("n", [number])
            assert [key async for key in prices] == ["n"]
        return len(server.host.clients)

    for number in (1, 2, 3):
        assert asyncio.run(main(number)) in (0, 1)  # the server hears of the goodbye, or is about to
    with pytest.raises(RuntimeError, match="no running event loop"):
        shared.counter("c").incr().send(None)

    async def one() -> None:
        async with shared:
            assert await count() == 1
            async for item in jobs:
                raise AssertionError(f"{item} is left")

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(asyncio.wait_for(one(), 0.1))


def test_it_starts_a_server_where_none_runs(home: Path) -> None:
    """A name starts a server on demand, without keeping the loop waiting meanwhile."""
    import server_processes

    async def main() -> int:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        beside = asyncio.create_task(others())
        async with aio.connect("fresh", plugins=[THINGS]) as shared:
            assert await shared.notes("n").add("x") == 1
        beside.cancel()
        return turns

    try:
        assert asyncio.run(main()) > 100
    finally:
        server_processes.end_all(home)


# -- types ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def memory() -> aio.ManagerClient:
    """A client of a server in this process, for one test."""
    return aio.ManagerClient("memory://", plugins=ALL)


@in_loop
async def test_dunders_lose_their_underscores(memory: aio.ManagerClient) -> None:
    """What is an operator elsewhere is a verb here."""
    async with memory as shared:
        prices = shared.dict("d")
        assert await prices.setitem("a", {"usd": 1}) is None
        assert await prices.getitem("a") == {"usd": 1}
        assert await prices.contains("a") and not await prices.contains("b")
        assert await prices.len() == 1
        assert list(await prices.iter()) == ["a"]
        await prices.delitem("a")
        with pytest.raises(KeyError):
            await prices.getitem("a")
        row = shared.list("l")
        await row.extend([1, 2, 3])
        assert await row.getitem(-1) == 3
        assert list(await row.reversed()) == [3, 2, 1]
        assert await row.index(2) == 1
        assert await shared.counter("c").incr(5) == 5


@in_loop
async def test_a_mapping(memory: aio.ManagerClient) -> None:
    """The client's side of a mapping is there: defaults stay here, copies are plain, comparisons are by content."""
    async with memory as shared:
        prices = shared.dict("d")
        marker = object()
        assert await prices.get("a", marker) is marker
        assert await prices.pop("a", marker) is marker
        with pytest.raises(KeyError):
            await prices.pop("a")
        await prices.update({"a": [1]}, b=2)
        assert await prices.setdefault("a", 5) == [1]
        assert await prices.copy() == {"a": [1], "b": 2}
        assert sorted(await prices.keys()) == ["a", "b"]
        assert list(await prices.values()) == [[1], 2]
        assert await prices.compare_and_set("b", 2.0, 3)
        assert not await prices.compare_and_set("b", 2, 4)
        assert await prices.incr("b", by=4) == 7
        found = await prices.getitem("a")
        with pytest.raises(SnapshotError, match="with prices.edit|'d'"):
            found.append(2)
        other = shared.dict("other")
        await other.update(prices)
        assert await other.items() == await prices.items()
        assert {key: await prices.getitem(key) async for key in prices} == {"a": [1], "b": 7}
        await prices.clear()
        assert await prices.len() == 0


@in_loop
async def test_an_edit(memory: aio.ManagerClient) -> None:
    """The block writes back what was changed; not after an error, nor over what somebody else has written."""
    async with memory as shared:
        prices = shared.dict("d")
        await prices.setitem("a", [1])
        async with prices.edit("a") as value:
            value.append(2)
        assert await prices.getitem("a") == [1, 2]
        with pytest.raises(ZeroDivisionError):
            async with prices.edit("a") as value:
                value.append(1 / 0)
        with pytest.raises(EditConflict, match=r"dict:d\['a'\]"):
            async with prices.edit("a") as value:
                await prices.setitem("a", [9])
                value.append(3)
        assert await prices.getitem("a") == [9]
        await prices.setitem("n", 1)
        with pytest.raises(SnapshotError, match="incr"):
            async with prices.edit("n"):
                raise AssertionError("it is not entered")
        with pytest.raises(KeyError):
            async with prices.edit("missing"):
                raise AssertionError("it is not entered")


@in_loop
async def test_a_queue(memory: aio.ManagerClient) -> None:
    """Items as they come, with the exceptions of the standard library."""
    async with memory as shared:
        jobs = shared.queue("q", maxsize=2)
        waiting = asyncio.create_task(jobs.get())
        await jobs.put("a")
        assert await waiting == "a"
        await jobs.put_many([1, 2])
        with pytest.raises(queue.Full):
            await jobs.put(3, timeout=0.001)
        with pytest.raises(queue.Full):
            await jobs.put_nowait(3)
        assert await jobs.get_many(5) == [1, 2]
        with pytest.raises(queue.Empty):
            await jobs.get_nowait()
        with pytest.raises(queue.Empty):
            await jobs.get(timeout=0.001)
        await jobs.put("job")
        with pytest.raises(ZeroDivisionError):
            async with jobs.claim() as item:
                assert item == "job" and await jobs.empty()
                raise ZeroDivisionError
        async with jobs.claim(timeout=1) as item:
            assert item == "job"
        assert await jobs.empty()


@in_loop
async def test_a_queue_is_a_row_without_end(memory: aio.ManagerClient) -> None:
    """`async for` takes item after item, and waits for the next; each goes to one taker."""
    async with memory as shared:
        jobs = shared.queue("q")
        taken: list[tuple[str, int]] = []

        async def work(name: str) -> None:
            async for item in jobs:
                taken.append((name, item))
                if item < 0:
                    return

        workers = [asyncio.create_task(work(name)) for name in "abc"]
        for number in range(30):
            await jobs.put(number)
        await jobs.put_many([-1] * 3)
        await asyncio.gather(*workers)
        assert sorted(item for _, item in taken if item >= 0) == list(range(30))
        assert {name for name, _ in taken} == set("abc")


@in_loop
async def test_locks(memory: aio.ManagerClient) -> None:
    """Entered as they stand, or by the grant that `acquire` gives, with a deadline of its own."""
    async with memory as shared:
        lock = shared.lock("l")
        async with lock as grant:
            assert isinstance(grant, aio.Grant)
            assert grant and grant.number and grant.token is None and not grant.abandoned and grant.since
            assert "Task" in grant.holder
            assert await lock.locked()
            refused = await lock.acquire(timeout=0)
            assert not refused and refused.holder == grant.holder
            assert repr(refused) == f"<no grant: {grant.holder} holds it>"
            with pytest.raises(CallTimeout, match="it is held by"):
                async with lock.acquire(timeout=0.001):
                    raise AssertionError("it is not entered")
        assert not await lock.locked()
        async with lock.acquire(timeout=1) as other:
            assert other.number > grant.number
            assert grant != other and hash(grant) != hash(other)
        taken = await lock.acquire()
        await taken.release()
        with pytest.raises(NotOwner):
            await taken.release()
        taken = await lock.acquire()
        async with taken as entered:
            assert entered == taken
        assert not await lock.locked()
        await lock.acquire()
        await lock.release()
        assert not await lock.locked()


@in_loop
async def test_readers_and_writers(memory: aio.ManagerClient) -> None:
    """The verbs of a lock for many are blocks, and awaited they give grants."""
    async with memory as shared:
        both = shared.rwlock("rw")
        async with both.read() as one, both.read() as other:
            assert one and other
            assert not await asyncio.create_task(both.write(timeout=0))
            assert await asyncio.create_task(both.read(timeout=0))
        async with both.write():
            assert not await asyncio.create_task(both.read(timeout=0))
        grant = await both.write()
        await grant.release()


@in_loop
async def test_a_condition(memory: aio.ManagerClient) -> None:
    """Waiting gives the lock up and comes back with it; the predicate stays in this process."""
    async with memory as shared:
        bell, full = shared.condition("c"), False
        seen: list[bool] = []

        async def wait() -> None:
            async with bell as grant:
                seen.append(await bell.wait_for(lambda: full))
                assert await bell.locked()
                assert grant

        assert not await bell.locked()
        waiting = [asyncio.create_task(wait()) for _ in range(3)]
        while len((await shared.statistics(bell))["waiting"]) < 3:
            await asyncio.sleep(0)
        async with bell:
            await bell.notify_all()
        async with bell:
            full = True
            await bell.notify_all()
        await asyncio.gather(*waiting)
        assert seen == [True] * 3
        async with bell:
            assert await bell.wait(timeout=0.001) is False
            assert await bell.wait_for(lambda: False, timeout=0.001) is False
        assert not await bell.locked()


@in_loop
async def test_semaphores_events_barriers_and_latches(memory: aio.ManagerClient) -> None:
    """Whatever one can wait for, tasks can wait for."""
    async with memory as shared:
        permits = shared.semaphore("s", 2)
        async with permits, permits.acquire():
            assert await permits.value() == 0
            assert not await permits.acquire(blocking=False)
        assert await permits.value() == 2
        event, barrier, latch = shared.event("e"), shared.barrier("b", 3), shared.latch("l", 2)
        waiting = asyncio.gather(event.wait(), latch.wait(), *(barrier.wait() for _ in range(3)))
        await event.set()
        await latch.count_down()
        await latch.count_down()
        assert (await waiting)[0] is True
        assert sorted((await waiting)[2:]) == [0, 1, 2]


@in_loop
async def test_classes_of_ones_own(server: ManagerServer) -> None:
    """A class that waits, one on threads, one for each call: each by its declaration or by name."""
    async with aio.connect("here", KEY) as shared:
        gate = shared.open(GATE, "g")
        waiting = [asyncio.create_task(gate.wait()) for _ in range(3)]
        while await gate.waiting() < 3:
            pass
        assert await gate.open() == 3
        assert await asyncio.gather(*waiting) == [True] * 3
        assert await gate.wait(timeout=0.001) is False
        slow = shared.slow("s")
        hanging = asyncio.create_task(slow.hang())
        assert await asyncio.create_task(slow.greet()) == "hello"
        await asyncio.create_task(slow.release())
        assert await hanging
        with pytest.raises(KeyError, match="as always"):
            await slow.fail()
        one, other = shared.ticket(5), shared.ticket()
        assert [await one.bump(), await one.bump(), await other.bump()] == [6, 7, 1]
        assert await shared.hall().add("x") == 1
        with pytest.raises(UnknownType, match="no shared type 'cookies' on server 'here'"):
            shared.open(COOKIES, "x")
        with pytest.raises(TypeError, match="a shared lock has a name"):
            shared.lock()
        with pytest.raises(DefinitionConflict):
            await shared.slow("s", greeting="x").greet()
            await shared.semaphore("s", 1).value()
            await shared.semaphore("s", 2).value()


@in_loop
async def test_one_proxy_that_makes_an_object_makes_one(server: ManagerServer) -> None:
    """Also where several tasks are the first to use it at once."""
    async with aio.ManagerClient("here", KEY) as shared:
        ticket = shared.ticket()
        assert sorted(await asyncio.gather(*(ticket.bump() for _ in range(5)))) == [1, 2, 3, 4, 5]


@in_loop
async def test_large_and_pickled_values(server: ManagerServer) -> None:
    """Whatever crosses for threads crosses for tasks, while others go on."""
    async with aio.connect("here", KEY) as shared:
        values = shared.dict("d")
        large = [bytes([65 + number]) * 3_000_000 for number in range(4)]
        count = asyncio.create_task(shared.counter("c").incr())
        await asyncio.gather(*(values.setitem(number, value) for number, value in enumerate(large)))
        assert await asyncio.gather(*(values.getitem(number) for number in range(4))) == large
        assert await count == 1
        await values.setitem("p", Point(3))
        assert await values.getitem("p") == Point(3)
        assert await shared.notes("n").big(1_000_000) == b"x" * 1_000_000


@in_loop
async def test_what_was_read_is_not_asked_again(server: ManagerServer) -> None:
    """Reads that nothing has changed are answered without a call, and a change is seen at once."""
    async with aio.connect("here", KEY) as shared:
        prices = shared.dict("d")
        await prices.setitem("a", 1)
        assert await prices.getitem("a") == 1
        if link_of(shared).words is None:
            pytest.skip("this system has no words to share")
        before = server.host.calls
        for _ in range(50):
            assert await prices.getitem("a") == 1
        assert server.host.calls == before
        with connect("here", KEY) as blocking:
            blocking.dict("d")["a"] = 2
        assert await prices.getitem("a") == 2


# -- proxies ----------------------------------------------------------------------------------------------------------


@in_loop
async def test_a_proxy_is_known_by_what_it_stands_for(server: ManagerServer) -> None:
    """Its text, hash and equality take no call; its pickle and its copy lead to the same object."""
    async with aio.connect("here", KEY) as shared, aio.connect("here", KEY) as other:
        prices = shared.dict("d")
        assert prices == other.dict("d") and hash(prices) == hash(other.dict("d"))
        assert prices != shared.dict("e") and prices != shared.counter("d")
        again = pickle.loads(pickle.dumps(prices))
        assert again == prices and KEY not in pickle.dumps(prices)
        stranger = aio.ManagerClient("here", b"wrong key, which nobody has")  # is not the one that it leads to
        again = pickle.loads(pickle.dumps(prices))
        assert stranger.dict("d") == again
        await again.setitem("a", 1)
        assert await prices.copy() == {"a": 1}
        with connect("here", KEY) as blocking:
            assert prices == blocking.dict("d")


@in_loop
async def test_a_proxy_in_a_value_is_one_to_await(server: ManagerServer) -> None:
    """A handle that arrives in a loop is a proxy of that loop, and a blocking one for threads."""
    async with aio.connect("here", KEY) as shared:
        registry_of, jobs = shared.dict("d"), shared.queue("q")
        await registry_of.setitem("jobs", jobs)
        found = await registry_of.getitem("jobs")
        assert found == jobs
        await found.put("x")
        with connect("here", KEY) as blocking:
            assert blocking.dict("d")["jobs"].get_nowait() == "x"


@in_loop
async def test_what_is_not_there_is_said(memory: aio.ManagerClient) -> None:
    """A verb that the type lacks is an AttributeError that names those it has, as soon as that is known."""
    lazy = memory.counter("c").increment
    with pytest.raises(AttributeError, match="shared counter:c on server .* has no verb 'increment'; it has"):
        await lazy()
    async with memory as shared:
        counter = shared.counter("c")
        with pytest.raises(AttributeError, match="it has bool, decr, float, get, incr, int, set$"):
            counter.increment
        assert not hasattr(counter, "_private")
        assert {"incr", "get"} <= set(dir(counter)) and "setitem" in dir(shared.dict("d"))
        assert "counter" in dir(shared)
        with pytest.raises(UnknownType, match="did you mean 'counter'"):
            shared.countr


@in_loop
async def test_operators_say_how_they_are_spelled(memory: aio.ManagerClient) -> None:
    """What cannot be awaited is refused, and names what can."""
    with pytest.raises(TypeError, match=r"len\(\) is no block: await"):
        async with memory.dict("d").len():
            raise AssertionError("it is not entered")
    async with memory as shared:
        prices, lock = shared.dict("d"), shared.lock("l")
        for use, how in (
            (lambda: prices["a"], r"await getitem\(...\)"),
            (lambda: prices.__setitem__("a", 1), r"await setitem\(...\)"),
            (lambda: "a" in prices, r"await contains\(...\)"),
            (lambda: len(prices), r"await len\(...\)"),
            (lambda: list(prices), "async for"),
            (lambda: bool(prices), r"await len\(...\)"),
            (lambda: int(shared.counter("c")), r"await int\(...\)"),
        ):
            with pytest.raises(TypeError, match=f"<shared .* on memory://> belongs to an event loop.*{how}"):
                use()
        assert lock and shared.event("e") and shared.queue("q")
        with pytest.raises(TypeError, match="every use of it is awaited: async with"):
            with lock:
                raise AssertionError("it is not entered")
        with pytest.raises(TypeError, match="is no block; it has"):
            async with prices:
                raise AssertionError("it is not entered")
        with pytest.raises(TypeError, match=r"edit\(\) is a block: async with"):
            await prices.edit("a")
        with pytest.raises(TypeError, match="is no row of items"):
            async for _ in lock:
                raise AssertionError("there is none")


@in_loop
async def test_a_coroutine_that_is_not_awaited_is_told(memory: aio.ManagerClient) -> None:
    """Python's own warning names the object and the verb; a block that was entered gives none."""
    async with memory as shared:
        lock = shared.lock("l")
        with pytest.warns(RuntimeWarning, match="coroutine 'lock:l.acquire' was never awaited"):
            lock.acquire()
            gc.collect()
        with pytest.warns(RuntimeWarning, match="coroutine 'dict:d.setitem' was never awaited"):
            shared.dict("d").setitem("a", 1)
            gc.collect()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            async with lock.acquire():
                pass
            lock.acquire().close()
            gc.collect()


@in_loop
async def test_a_verb_is_a_coroutine(memory: aio.ManagerClient) -> None:
    """What asyncio takes coroutines for takes verbs, those too that are blocks."""
    async with memory as shared:
        lock = shared.lock("l")
        task = asyncio.create_task(lock.acquire())
        assert await task
        locked, refused = await asyncio.gather(lock.locked(), lock.acquire(timeout=0))
        assert locked and not refused
        assert await asyncio.wait_for(lock.locked(), 5)
        await lock.release()


@in_loop
async def test_a_lock_decorates_coroutine_functions(memory: aio.ManagerClient) -> None:
    """Each call runs in a block; a plain function is refused, since it could not wait."""
    async with memory as shared:
        lock, inside = shared.lock("l"), 0

        @lock
        async def work(number: int, *, by: int) -> int:
            """Work alone."""
            nonlocal inside
            inside += 1
            assert inside == 1
            await asyncio.sleep(0)
            inside -= 1
            return number + by

        assert work.__doc__ == "Work alone."
        assert await asyncio.gather(*(work(number, by=1) for number in range(5))) == [1, 2, 3, 4, 5]
        with pytest.raises(TypeError, match="decorates coroutine functions"):
            lock(lambda: None)


# -- blocks -----------------------------------------------------------------------------------------------------------


@in_loop
async def test_blocks_of_an_exit_stack(memory: aio.ManagerClient) -> None:
    """`contextlib.AsyncExitStack` looks exits up in the class."""
    async with memory as shared:
        lock, jobs, permits = shared.lock("l"), shared.queue("q"), shared.semaphore("s", 2)
        await jobs.put("item")
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(lock)
            assert await stack.enter_async_context(jobs.claim()) == "item"
            await stack.enter_async_context(permits)
            await stack.enter_async_context(permits.acquire())
            await stack.enter_async_context(await shared.rlock("r").acquire())
            assert await lock.locked() and await permits.value() == 0
        assert not await lock.locked()
        assert await permits.value() == 2
        assert not await shared.rlock("r").locked()
        assert (await shared.statistics(jobs))["holders"] == []


@in_loop
async def test_a_look_at_the_exit_is_no_exit(memory: aio.ManagerClient) -> None:
    """Whoever only looks an exit up, as `hasattr` does, neither leaves the block nor the next one."""
    async with memory as shared:
        lock = shared.lock("l")
        async with lock as grant:
            assert hasattr(lock, "__aexit__") and hasattr(grant, "__aexit__")
            assert await lock.locked()
        looked_up = lock.__aexit__
        async with lock:
            del looked_up
            assert await lock.locked()
        assert not await lock.locked()


@in_loop
async def test_blocks_need_not_nest(memory: aio.ManagerClient) -> None:
    """Generators leave their blocks in any order, and each leaves its own."""
    async with memory as shared:
        permits, lock = shared.semaphore("s", 3), shared.rlock("r")

        async def inside(number: int) -> AsyncIterator[int]:
            async with permits, lock:
                yield number

        generators = [inside(number) for number in range(3)]
        assert [await generator.__anext__() for generator in generators] == [0, 1, 2]
        for generator, left in zip(generators, (1, 2, 3)):
            await generator.aclose()
            assert await permits.value() == left
        assert not await lock.locked()


@in_loop
async def test_a_task_that_is_thrown_away_gives_back(memory: aio.ManagerClient) -> None:
    """What a coroutine held goes back when it is closed in the middle, though nobody can wait for that."""
    async with memory as shared:
        lock, jobs = shared.lock("l"), shared.queue("q")
        await jobs.put("item")

        async def hold() -> None:
            async with lock, jobs.claim():
                await asyncio.sleep(0)
                await asyncio.Event().wait()

        coroutine: Any = hold()

        @types.coroutine
        def step() -> Any:
            """Drive it by hand within this task, until it waits for what never comes."""
            while (waiting := coroutine.send(None)) is not None or len(link_of(shared).guards) < 2:
                yield waiting

        await step()
        assert await lock.locked()
        coroutine.close()
        assert not await lock.locked()
        assert await jobs.get(timeout=0) == "item"


@in_loop
async def test_calls_in_a_block_rely_on_it(server: ManagerServer) -> None:
    """Once a lock is lost, calls inside its block are refused, and those of tasks that were given its guard."""
    async with aio.connect("here", KEY) as shared:
        lock, count = shared.lock("l"), shared.counter("c")

        async def beside(grant: aio.Grant, guarded: bool) -> Any:
            with grant.guard() if guarded else contextlib.nullcontext():
                return await count.incr()

        with pytest.raises(LockLost, match="lock:l"):
            async with lock as grant:
                assert await asyncio.create_task(beside(grant, True)) == 1
                with connect("here", KEY) as blocking:
                    blocking._home.link()  # another session takes it by force
                    remote = blocking.lock("l")._remote
                    remote.resolve()
                    assert remote.invoke("#release", (grant.number,))
                with pytest.raises(LockLost):
                    await count.incr()
                assert await asyncio.create_task(beside(grant, False)) == 2
                with pytest.raises(LockLost):
                    await asyncio.create_task(beside(grant, True))
        assert await count.get() == 2
        assert held(server) == {}
        assert link_of(shared).guards == []


def test_a_loop_is_needed(memory: aio.ManagerClient) -> None:
    """A verb that is called where no loop runs says so when it is driven, and plain code is sent elsewhere."""
    with pytest.raises(RuntimeError, match="no running event loop"):
        memory.counter("c").incr().send(None)

    async def main() -> None:
        async with memory as shared:
            await shared.counter("c").incr()
            blocking = await shared.counter("c")._part()
            with pytest.raises(RuntimeError, match="use those of registry.connect"):
                blocking.proxy.incr()
            assert await shared.counter("c").incr() in (2, 3)

    asyncio.run(main())


def test_public_names() -> None:
    """The module is one of the package's, and says what is in it."""
    assert registry.aio is aio
    assert aio.__all__ == sorted(aio.__all__)
    assert all(hasattr(aio, name) for name in aio.__all__)
    assert NOTES.typeid == "notes"


@in_loop
async def test_a_pickle_finds_the_key_that_this_process_was_given(server: ManagerServer) -> None:
    """Also before any client has connected in this loop; then both use one session."""
    shared = aio.ManagerClient("here", KEY)
    again = pickle.loads(pickle.dumps(shared.counter("c")))
    assert await again.incr() == 1
    assert await shared.counter("c").incr() == 2
    assert (await shared.statistics())["sessions"] == 1
    memory = pickle.dumps(aio.ManagerClient("memory://").counter("c"))
    with pytest.raises(ServerNotFound, match="it went with its client"):
        pickle.loads(memory)
