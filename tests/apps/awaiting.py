"""An application for web servers with an event loop: its handlers await what is shared."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

from registry import aio

shared = aio.ManagerClient("web")
hits, door, jobs = shared.counter("hits"), shared.lock("door"), shared.queue("jobs")
pages, elsewhere = shared.dict("pages"), aio.ManagerClient("elsewhere", start=False)
inside = 0


async def enter() -> int:
    """Be alone, in all workers together."""
    global inside
    async with door:
        inside += 1
        assert inside == 1
        number: int = await hits.incr()
        inside -= 1
    return number


async def edit() -> int:
    """Change a value in its place."""
    async with pages.edit("count") as count:
        count[0] += 1
    number: int = (await pages.getitem("count"))[0]
    return number


async def many() -> int:
    """Write and read much at once, in parts."""
    await pages.update({str(number): b"x" * 100_000 for number in range(30)})
    return sum(len(value) for value in (await pages.copy()).values() if isinstance(value, bytes))


async def visit() -> int:
    """Connect to another server, and leave it again."""
    async with elsewhere:
        number: int = await elsewhere.counter("hits").incr()
    return number


# Whatever can be asked of a server, by requests.
CALLS: dict[str, Callable[[], Awaitable[Any]]] = {
    "/hit": hits.incr,
    "/read": hits.get,
    "/edit": edit,
    "/many": many,
    "/visit": visit,
    "/status": lambda: shared.statistics(hits),
}


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await shared.connect()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await shared.close()
        await send({"type": "lifespan.shutdown.complete"})
        return
    path = scope["path"]
    answer: Any = os.getpid()
    if path == "/enter":
        answer = await enter()
    elif path == "/take":
        answer = await jobs.get()
    elif path in CALLS:
        answer = await CALLS[path]()
    body = json.dumps(answer).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
