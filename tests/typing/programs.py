"""A program that shares what comes with the package; every line is right, and checkers know what comes back."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, MutableSequence, MutableSet, Sequence
from multiprocessing import get_context
from multiprocessing.managers import SyncManager
from queue import Queue
from typing import Any

from typing_extensions import assert_type

import registry
from registry import Grant, ManagerClient

shared = registry.ManagerClient("scrapers", plugins=["shared_cookies"], label="crawler")


def containers() -> None:
    """Dicts and counters."""
    prices = shared.dict("prices")
    prices["BTC"] = {"usd": 97_000}
    assert_type(prices["BTC"], Any)
    assert_type(prices.copy(), dict[Any, Any])
    assert_type(prices.keys(), Sequence[Any])
    assert_type(prices.get_many(["BTC", "ETH"]), dict[Any, Any])
    assert_type(prices.incr("n", by=2), int | float)
    assert_type(prices.compare_and_set("BTC", None, 1), bool)
    with prices.edit("BTC") as price:
        price["eur"] = 89_000
    prices.update(ETH=3_400)
    del prices["ETH"]
    for key in prices:
        print(key, key in prices, len(prices))

    seen = shared.list("seen")
    seen.append("BTC")
    seen += ["ETH"]
    assert_type(seen[0], Any)
    assert_type(seen[1:], list[Any])
    assert_type(seen.copy(), list[Any])
    tags = shared.set("tags")
    assert_type(tags.add("new"), bool)
    print("new" in tags, tags | {"old"}, tags.issubset({"new", "old"}))

    counter = shared.counter("visits", start=5)
    assert_type(counter.incr(), int | float)
    assert_type(int(counter), int)


def with_types_of_ones_own() -> None:
    """What is in a dict is for the program to say."""
    prices: MutableMapping[str, float] = shared.dict("prices")
    prices["BTC"] = 97_000.0
    print(total(shared.dict("prices")), total(prices))
    names: MutableSequence[str] = shared.list("names")
    tags: MutableSet[str] = shared.set("tags")
    names.extend(tags)


def total(prices: Mapping[str, float]) -> float:
    """Take anything that is a mapping."""
    assert_type(prices.get("BTC"), float | None)
    return sum(prices[name] for name in prices)


def locks() -> None:
    """Whatever gives grants."""
    login = shared.lock("login")
    with login as grant:
        assert_type(grant, Grant)
        assert_type(grant.abandoned, bool)
    grant = login.acquire(timeout=5)
    if grant:
        with grant.guard():
            print(grant.token)
        grant.release()
    with login.acquire(timeout=5):
        pass
    assert_type(login.locked(), bool)
    if login:
        login.acquire(blocking=False)
    with shared.rwlock("files").read(timeout=1), shared.rlock("r"), shared.semaphore("s", value=3):
        pass
    shared.semaphore("s").release(2)
    shared.bounded_semaphore("b", 2).acquire(expiry=60.0)
    condition = shared.condition("c")
    with condition:
        assert_type(condition.wait_for(lambda: [1]), list[int])
        condition.notify_all()


@shared.lock("sweep")
def sweep(depth: int, *, slowly: bool = False) -> str:
    """Be decorated, and keep one's signature."""
    return f"{depth} {slowly}"


assert_type(sweep(3, slowly=True), str)


def waiting() -> None:
    """Queues, events and the like."""
    jobs = shared.queue("jobs", maxsize=100)
    jobs.put({"url": "https://example.org"}, timeout=1.0)
    assert_type(jobs.get(timeout=1.0), Any)
    jobs.put_many([1, 2, 3])
    assert_type(jobs.get_many(10), list[Any])
    with jobs.claim(timeout=5) as job:
        print(job)
    assert_type(jobs.qsize(), int)
    assert_type(shared.event("e").wait(1.0), bool)
    assert_type(shared.barrier("b", 3).wait(), int)
    shared.barrier("b").abort()
    assert_type(shared.latch("l", count=3).count_down(), int)


def managers() -> None:
    """The manager of a program is the one that `multiprocessing` has, whose types are known."""
    with registry.Manager() as manager:
        assert_type(manager, SyncManager)
        assert_type(manager.list([1])[0], int)
        assert_type(manager.dict(a=1).copy(), "dict[str, int]")
        jobs: Queue[str] = manager.Queue()
        jobs.put("one")
        with manager.Lock():
            manager.shutdown()
    assert_type(registry.Manager(get_context("spawn")), SyncManager)


def clients() -> None:
    """What a client itself does."""
    with registry.connect(("127.0.0.1", 6000), b"key", timeout=None, cache=False) as client:
        assert_type(client, ManagerClient)
        assert_type(client.objects("dict:*"), list[dict[str, Any]])
        assert_type(client.statistics(client.dict("d")), dict[str, Any])
        stop = client.listen(print)
        stop()
        client.delete(client.dict("d"))
