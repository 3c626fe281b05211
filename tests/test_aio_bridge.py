"""Code for threads runs in a task: where it would keep a thread waiting, the task waits."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from typing import Any
from weakref import ref

import pytest

from registry.aio import _bridge
from registry.aio._bridge import KEPT, STREAK, run, wait

VARIABLE: contextvars.ContextVar[int] = contextvars.ContextVar("VARIABLE", default=0)


def pause() -> None:
    """Wait for one turn of the loop."""
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, None)
    wait(future)


def test_what_it_returns_and_raises_is_the_tasks() -> None:
    """Arguments go in; values and errors come out, after waits and without."""

    def add(one: int, *, two: int, waits: int) -> int:
        for _ in range(waits):
            pause()
        if two < 0:
            raise ValueError(two)
        return one + two

    async def main() -> None:
        for waits in (0, 1, 5):
            assert await run(add, 1, two=2, waits=waits) == 3
            with pytest.raises(ValueError, match="-1") as caught:
                await run(add, 1, two=-1, waits=waits)
            assert [entry.name for entry in caught.traceback][-1] == "add"

    asyncio.run(main())


def test_others_go_on_while_it_waits() -> None:
    """Two that wait by turns see each other's steps."""
    steps: list[str] = []

    def work(name: str) -> None:
        for number in range(3):
            steps.append(f"{name}{number}")
            pause()

    async def main() -> None:
        await asyncio.gather(run(work, "a"), run(work, "b"))

    asyncio.run(main())
    assert steps == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_a_cancellation_is_raised_where_it_waits() -> None:
    """What waits may clean up, wait for that, and even stay."""
    seen: list[str] = []

    def stubborn(stays: bool) -> str:
        try:
            wait(asyncio.get_running_loop().create_future())
        except asyncio.CancelledError:
            pause()
            seen.append("cleaned up")
            if not stays:
                raise
        return "stayed"

    async def main() -> None:
        for stays in (False, True):
            task = asyncio.create_task(run(stubborn, stays))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() is not stays
        assert seen == ["cleaned up"] * 2

    asyncio.run(main())


def test_context_variables_and_the_task_are_those_of_the_caller() -> None:
    """It sees what the task has set, and the task sees what it has."""

    def look() -> tuple[int, object]:
        pause()
        VARIABLE.set(VARIABLE.get() + 1)
        return VARIABLE.get(), asyncio.current_task()

    async def main() -> None:
        VARIABLE.set(1)
        others = asyncio.gather(*(asyncio.create_task(run(look)) for _ in range(3)))
        assert await run(look) == (2, asyncio.current_task())
        assert VARIABLE.get() == 2
        assert {number for number, _ in await others} == {2}
        assert VARIABLE.get() == 2

    asyncio.run(main())


def test_outside_of_a_task_nothing_waits() -> None:
    """Code that is called as code for threads is told what it should have been."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match="await the proxies of registry.aio"):
            pause()
        _bridge._own.courses.clear()
        with pytest.raises(RuntimeError, match="code that is not awaited"):
            wait(asyncio.get_running_loop().create_future())

    asyncio.run(main())


def test_what_need_not_wait_does_not_keep_the_loop() -> None:
    """A task that asks again and again for what is known at once lets others go on."""

    async def main() -> None:
        others = asyncio.create_task(asyncio.sleep(0))
        turns = 0
        while not others.done():
            await run(lambda: None)
            turns += 1
        assert 0 < turns <= 3 * STREAK
        task = asyncio.create_task(endless())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    async def endless() -> None:
        while True:
            await run(lambda: None)

    asyncio.run(main())


def test_greenlets_are_used_again_and_not_hoarded() -> None:
    """One after the other needs one greenlet; many at once are not all kept."""

    async def main() -> None:
        _bridge._own.courses.clear()
        for _ in range(10):
            await run(pause)
        assert len(_bridge._own.courses) == 1
        await asyncio.gather(*(run(pause) for _ in range(2 * KEPT)))
        assert len(_bridge._own.courses) == KEPT

    asyncio.run(main())


class Thing:
    """Something whose end can be seen."""


def test_nothing_outlives_its_call() -> None:
    """What a function had at hand goes when it has ended, whichever way, and so does a greenlet whose task is gone."""
    ended: list[str] = []

    def hold(thing: Any, waits: bool) -> None:
        try:
            if waits:
                wait(asyncio.get_running_loop().create_future())
            raise ValueError
        finally:
            ended.append(type(thing).__name__)

    async def main() -> None:
        things: list[Any] = []
        gc.disable()  # none of it is to need the collector
        try:
            for waits in (False, True):
                thing = Thing()
                things.append(ref(thing))
                coroutine = run(hold, thing, waits)
                del thing
                try:
                    coroutine.send(None)
                except ValueError as error:
                    error.__traceback__ = None
                coroutine.close()
                del coroutine
            assert ended == ["Thing"] * 2
            assert [thing() for thing in things] == [None, None]
        finally:
            gc.enable()

    asyncio.run(main())


def test_what_nobody_waits_for_any_more_cannot_wait() -> None:
    """Where a coroutine is thrown away, its function ends, also one that holds out."""
    ended: list[type[BaseException]] = []

    def hold_out() -> None:
        while True:
            try:
                wait(asyncio.get_running_loop().create_future())
            except GeneratorExit:
                pass
            except BaseException as error:
                ended.append(type(error))
                raise

    async def main() -> None:
        coroutine = run(hold_out)
        coroutine.send(None)
        coroutine.close()
        del coroutine
        assert [kind.__name__ for kind in ended] == ["GreenletExit"]
        assert await run(lambda: 1) == 1

    asyncio.run(main())


def test_each_thread_has_its_own() -> None:
    """A greenlet stays in the thread that it was made for."""
    results: list[object] = []

    def work() -> None:
        asyncio.run(run(pause))
        results.append(asyncio.run(run(threading.get_ident)) == threading.get_ident())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4
