"""An application for web servers with an event loop: its handlers await what is shared."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

from registry import aio

shared = aio.ManagerClient("web")
hits, door, jobs = shared.counter("hits"), shared.lock("door"), shared.queue("jobs")
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
    elif path == "/hit":
        answer = await hits.incr()
    body = json.dumps(answer).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
