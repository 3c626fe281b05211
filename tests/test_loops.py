"""A wait of the blocking client is refused where it would stop an event loop, and nowhere else."""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import registry
from registry import ManagerClient
from registry._loops import would_be_stopped
from registry.errors import BlockingInLoop


@pytest.fixture
def client() -> Iterator[ManagerClient]:
    with registry.connect("memory://") as shared:
        yield shared


def in_a_loop(use: Callable[[], Any]) -> Any:
    """Do something in an event loop, as asynchronous code does that forgets that it is."""

    async def main() -> Any:
        return use()

    return asyncio.run(main())


def entered(block: Any) -> None:
    with block:
        pass


WAITS: dict[str, Callable[[ManagerClient], Any]] = {
    "lock:x.acquire": lambda c: c.lock("x").acquire(),
    "rlock:x.acquire": lambda c: entered(c.rlock("x")),
    "semaphore:x.acquire": lambda c: c.semaphore("x").acquire(timeout=5),
    "bounded_semaphore:x.acquire": lambda c: c.bounded_semaphore("x").acquire(True, 5),
    "condition:x.acquire": lambda c: c.condition("x").acquire(blocking=True),
    "rwlock:x.read": lambda c: c.rwlock("x").read(),
    "rwlock:x.write": lambda c: c.rwlock("x").write(),
    "queue:x.get": lambda c: c.queue("x").get(),
    "queue:x.put": lambda c: c.queue("x").put(False),
    "queue:x.put_many": lambda c: c.queue("x").put_many([1]),
    "queue:x.get_many": lambda c: c.queue("x").get_many(0),
    "queue:x.claim": lambda c: entered(c.queue("x").claim()),
    "dict:x.edit": lambda c: entered(c.dict("x").edit("k")),
    "event:x.wait": lambda c: c.event("x").wait(),
    "latch:x.wait": lambda c: c.latch("x").wait(5),
    "barrier:x.wait": lambda c: c.barrier("x", 2).wait(),
}


@pytest.mark.parametrize("call", WAITS)
def test_a_wait_in_a_loop_is_refused(client: ManagerClient, call: str) -> None:
    """Its text names the call and what to do instead; and it has no effect."""
    with pytest.raises(BlockingInLoop) as caught:
        in_a_loop(lambda: WAITS[call](client))
    assert str(caught.value) == (
        f"{call}() would stop the event loop that runs in this thread: await it with registry.aio, or call it in a "
        "thread with asyncio.to_thread()"
    )
    assert client.objects() == []
    assert client._home.link().guards == []


def test_what_does_not_wait_is_not_refused(client: ManagerClient) -> None:
    """Short calls are made in a loop as elsewhere, those too that say that they do not wait for anybody."""

    def use() -> None:
        lock, jobs, both = client.lock("l"), client.queue("q", maxsize=2), client.rwlock("rw")
        client.dict("d")["k"] = 1
        assert client.counter("c").incr() == 1
        first = lock.acquire(False)
        assert first and not lock.acquire(blocking=False) and not lock.acquire(timeout=0)
        assert not lock.acquire(True, 0)
        first.release()
        with both.read(timeout=0), both.read(False):
            pass
        jobs.put_nowait(1)
        jobs.put(2, False)
        with pytest.raises(queue.Full):
            jobs.put(3, block=False)
        assert jobs.get_nowait() == 1
        assert jobs.get(timeout=0) == 2
        with pytest.raises(queue.Empty):
            jobs.get(False)
        with pytest.raises(queue.Empty):
            jobs.get_many(3, False)
        assert not client.event("e").wait(timeout=0)

    in_a_loop(use)


def test_a_block_that_is_refused_is_not_entered(client: ManagerClient) -> None:
    """What was held before is held after, and goes back by itself."""
    held = client.lock("held").acquire()
    with pytest.raises(BlockingInLoop):
        in_a_loop(lambda: entered(client.lock("l")))
    assert client.lock("held").locked()
    held.release()
    assert not client.lock("held").locked()
    with client.lock("l") as grant:
        assert grant


def test_a_thread_beside_a_loop_may_wait(client: ManagerClient) -> None:
    """A loop that runs in another thread is not stopped."""

    async def main() -> object:
        jobs = client.queue("q")
        waiting = asyncio.get_running_loop().run_in_executor(None, jobs.get)
        jobs.put_nowait("item")
        return await waiting

    assert asyncio.run(main()) == "item"


def test_without_a_loop_nobody_is_asked(client: ManagerClient) -> None:
    """asyncio may be imported, and a loop may have run before."""
    asyncio.run(asyncio.sleep(0))
    jobs = client.queue("q")
    threading.Thread(target=lambda: jobs.put("item")).start()
    assert jobs.get() == "item"


def test_a_cell_of_a_kernel_may_wait(client: ManagerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """An IPython kernel runs its cells within a loop, and who waits there has asked for it. At its terminal not."""
    shells: list[object] = [SimpleNamespace(kernel=object()), SimpleNamespace(), None]
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: shells[0], raising=False)

    def cell() -> bool:
        with client.lock("l") as grant:
            return bool(grant)

    assert in_a_loop(cell)
    while len(shells) > 1:
        del shells[0]
        with pytest.raises(BlockingInLoop):
            in_a_loop(cell)


def test_no_loop_module_is_loaded_for_the_answer(client: ManagerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has not imported asyncio has no loop."""
    monkeypatch.delitem(sys.modules, "asyncio")
    interface = client._home.interface("lock")
    assert not would_be_stopped(interface, "acquire", (), {})
    assert "asyncio" not in sys.modules
