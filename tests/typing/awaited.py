"""What a type checker makes of programs that use `registry.aio`; it is checked, and never run."""

from __future__ import annotations

import asyncio
from typing import Any

from typing_extensions import assert_type

from registry import aio


async def objects() -> None:
    """What is shared has the types that it has elsewhere, each verb with what it gives once it is awaited."""
    async with aio.connect("scrapers", timeout=5) as shared:
        assert_type(shared, aio.ManagerClient)
        assert_type(await aio.connect(), aio.ManagerClient)
        hits = shared.counter("hits", start=3)
        assert_type(await hits.incr(by=2), "int | float")
        assert_type(await hits.int(), int)
        prices = shared.dict("prices")
        assert_type(await prices.getitem("BTC"), Any)
        assert_type(await prices.len(), int)
        assert_type(await prices.compare_and_set("BTC", 1, 2), bool)
        assert_type(await prices.copy(), "dict[Any, Any]")
        async with prices.edit("BTC") as value:
            assert_type(value, Any)
        async for key in prices:
            assert_type(key, Any)
        jobs = shared.queue("jobs", maxsize=5)
        task = asyncio.create_task(jobs.put("x", timeout=1.5))
        assert_type(await task, None)
        async with jobs.claim() as item:
            assert_type(item, Any)
        assert_type(await shared.event("done").wait(5), bool)
        assert_type(await shared.barrier("all", 3).wait(), int)
        assert_type(await shared.objects("queue:*"), "list[dict[str, Any]]")
        shared.cookies("of a type that only the server knows").whatever()


async def locks() -> None:
    """Locks are blocks, give grants, and decorate coroutine functions."""
    async with aio.ManagerClient("scrapers") as shared:
        async with shared.lock("login") as grant:
            assert_type(grant, aio.Grant)
            assert_type(grant.token, "int | None")
            with grant.guard():
                pass
        async with shared.rwlock("table").read(timeout=1) as grant:
            assert_type(await grant.release(), None)
        assert_type(await shared.rlock("r").acquire(), aio.Grant)
        async with await shared.semaphore("s", 3).acquire(expiry=5) as grant:
            pass
        task = asyncio.create_task(shared.lock("login").acquire())
        assert_type(await task, aio.Grant)
        bell = shared.condition("bell")
        async with bell:
            assert_type(await bell.wait_for(lambda: "x", timeout=1), str)

        @shared.lock("sweep")
        async def sweep(number: int) -> str:
            return str(number)

        assert_type(await sweep(1), str)


async def mistakes() -> None:
    """What is wrong is seen before it runs."""
    async with aio.ManagerClient("scrapers") as shared:
        await shared.counter("hits").incr("one")  # type: ignore[arg-type]
        await shared.dict("prices").setitem("BTC")  # type: ignore[call-arg]
        await shared.lock("login").enter()  # type: ignore[attr-defined]
        shared.queue()  # type: ignore[call-arg]
        with shared.lock("login"):  # type: ignore[attr-defined]
            pass
        async with shared.queue("jobs"):  # type: ignore[attr-defined]
            pass
