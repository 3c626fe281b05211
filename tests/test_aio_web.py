"""Handlers of a web server with an event loop await what is shared, and hold up nobody."""

from __future__ import annotations

import asyncio
import importlib.util
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loops import in_loop
from servers import until
from sizes import size
from webs import Web

from registry import ManagerClient, ManagerServer, connect
from registry.testing import Server

pytestmark = pytest.mark.skipif(importlib.util.find_spec("uvicorn") is None, reason="uvicorn is not installed")

LOOPS = ["asyncio", *(["uvloop"] if importlib.util.find_spec("uvloop") else [])]


@pytest.fixture
def client(home: Path) -> Iterator[ManagerClient]:
    """A client of the server that the application uses."""
    with ManagerServer("web"), connect("web", start=False) as client:
        yield client


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_a_handler_that_waits_holds_up_nobody(home: Path, client: ManagerClient, loop: str) -> None:
    """While some requests wait for a lock and for items, all others are answered; then these are, in their order."""
    requests = size(200, 5_000)
    with Web(home, loop) as web:
        grant = client.lock("door").acquire(timeout=0)
        assert grant
        answered: list[str] = []

        async def ask(path: str) -> Any:
            answer = await web.get(path)
            answered.append(path)
            return answer

        entering = [asyncio.create_task(ask("/enter")) for _ in range(3)]
        taking = asyncio.create_task(ask("/take"))
        while len(client.statistics(client.lock("door"))["waiters"]) < 3 or not _waits(client, "queue:jobs"):
            await asyncio.sleep(0)
        numbers: list[int] = []
        for _ in range(0, requests, 50):
            numbers += await asyncio.gather(*(ask("/hit") for _ in range(50)))
        assert sorted(numbers) == list(range(1, requests + 1))
        assert answered == ["/hit"] * requests  # nobody else could be, and none of these waited for anybody
        client.queue("jobs").put_nowait("a job")
        assert await taking == "a job"
        assert answered[requests:] == ["/take"]
        grant.release()
        assert sorted(await asyncio.gather(*entering)) == [requests + number for number in (1, 2, 3)]
        # One session for the worker, however many requests it has served, and one for this process.
        assert client.statistics()["sessions"] == 2
        web.end()
    until(lambda ask: ask.statistics()["sessions"] == 1, client)
    assert client.lock("door").acquire(timeout=0)


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_no_call_of_a_handler_holds_up_the_loop(home: Path, loop: str) -> None:
    """While the servers stand still no call can be answered, whatever it asks for; requests that make none are."""
    plugins = ("registry_containers", "registry_queues", "registry_sync")
    with (
        Server(*plugins, process=True, address="web") as server,
        Server(*plugins, process=True, address="elsewhere") as other,
        Web(home, loop) as web,
    ):
        client = server.connect()
        client.dict("pages")["count"] = [0]
        client.queue("jobs").put_nowait("a job")
        for each in (server, other):
            each.pause()
        paths = ("/hit", "/read", "/edit", "/many", "/visit", "/status", "/enter", "/take")
        calling = {path: asyncio.create_task(web.get(path)) for path in paths}
        for _ in range(size(50, 1_000)):
            assert await web.get("/") == web.pid
        assert not any(task.done() for task in calling.values())
        for each in (server, other):
            each.resume()
        answers = {path: await task for path, task in calling.items()}
        assert answers["/hit"] + answers["/enter"] == 3  # one came first, the other second
        assert (answers["/edit"], answers["/many"], answers["/visit"]) == (1, 3_000_000, 1)
        assert answers["/take"] == "a job"
        web.end()


def _waits(client: ManagerClient, name: str) -> bool:
    return any(row["waiting"] for row in client.objects(name))


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_a_request_that_is_given_up_gives_up_its_place(home: Path, client: ManagerClient, loop: str) -> None:
    """A worker that ends while its handlers wait leaves nothing behind, neither a place in line nor a lock."""
    with Web(home, loop) as web:
        grant = client.lock("door").acquire(timeout=0)
        entering = [asyncio.create_task(web.get("/enter")) for _ in range(3)]
        taking = asyncio.create_task(web.get("/take"))
        while len(client.statistics(client.lock("door"))["waiters"]) < 3 or not _waits(client, "queue:jobs"):
            await asyncio.sleep(0)
        web.signal(signal.SIGKILL)
        assert web.wait() == -signal.SIGKILL
        await asyncio.wait([taking, *entering])
        for task in (taking, *entering):
            assert isinstance(task.exception(), AssertionError | OSError)
    until(lambda ask: not ask.statistics(ask.lock("door"))["waiters"] and not _waits(ask, "queue:jobs"), client)
    grant.release()
    assert not client.lock("door").locked()
    client.queue("jobs").put_nowait("a job")
    assert client.queue("jobs").get_nowait() == "a job"
