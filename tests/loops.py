"""Asynchronous tests, and what is held on a server when they are over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any, ParamSpec

from servers import KEY

from registry import ManagerServer, aio

P = ParamSpec("P")


def in_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test in an event loop of its own."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


def link_of(shared: aio.ManagerClient) -> Any:
    """Return the session of the loop that runs."""
    return shared._front.here().link()


async def until(condition: Callable[[], object], ask: aio.ManagerClient) -> None:
    """Ask the server again and again until something is so."""
    for _ in range(20_000):
        if condition():
            return
        await ask.statistics()
    raise AssertionError("it never came to be so")


def held(server: ManagerServer) -> dict[str, Any]:
    """Return what is held or awaited on a server, as its engine knows it."""
    found = {}
    engine = server.host.engine
    for (typeid, name), hosted in list(engine.objects.items()):
        told = engine.statistics(hosted)
        if told["holders"] or told["waiters"] or told.get("waiting"):
            found[f"{typeid}:{name}"] = told
    for number, session in list(engine.sessions.items()):
        if session.waits:
            found[f"session {number}"] = dict(session.waits)
    return found


@asynccontextmanager
async def two_sessions(server: ManagerServer) -> AsyncIterator[tuple[aio.ManagerClient, aio.ManagerClient]]:
    """Give two clients of a server, of which each has a session of its own in this loop."""
    from registry.aio import _homes

    async with aio.connect(server.url, KEY) as one:
        links = _homes._links[asyncio.get_running_loop()]
        links.clear()  # so that the next does not find it
        async with aio.connect(server.url, KEY) as other:
            yield one, other
