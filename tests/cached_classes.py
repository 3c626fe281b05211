"""Shared classes whose reads are cached, each with a way to change that a careless cache would miss."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from registry import SharedObject, hookimpl
from registry.hosting import Waiter, Waiters, at, call, touch


class Lru:
    """Keep the newest entries; what is evicted is told."""

    def __init__(self, size: int = 2) -> None:
        self.size = size
        self.entries: dict[Any, Any] = {}

    def get(self, key: object) -> object:
        return self.entries.get(key)

    def put(self, key: object, value: object) -> None:
        self.entries.pop(key, None)
        self.entries[key] = value
        while len(self.entries) > self.size:
            oldest = next(iter(self.entries))
            del self.entries[oldest]
            touch(oldest)

    def count(self) -> int:
        return len(self.entries)

    def wipe(self) -> None:
        self.entries.clear()


class Expiring:
    """Keep each entry until its time; nothing else changes what is read."""

    def __init__(self) -> None:
        self.entries: dict[Any, tuple[Any, float]] = {}

    def get(self, key: object) -> object:
        entry = self.entries.get(key)
        return None if entry is None else entry[0]

    def left(self, key: object) -> float | None:
        entry = self.entries.get(key)
        return None if entry is None else entry[1] - call().now

    def put(self, key: object, value: object, seconds: float) -> None:
        self.entries[key] = (value, call().now + seconds)
        at(min(until for _, until in self.entries.values()))

    def due(self, now: float) -> None:
        self.entries = {key: entry for key, entry in self.entries.items() if entry[1] > now}
        at(min((until for _, until in self.entries.values()), default=None))


class Sayings:
    """Answer by who asks, and by nothing; and what can be changed in place, and what cannot be decoded here."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.open = False

    def say(self, what: object) -> None:
        self.said.append(what)

    def all(self) -> list[Any]:
        return self.said

    def last(self) -> object:
        return self.said[-1]

    def whose(self) -> str:
        return str(call().caller)

    def mine(self) -> bool:
        return call().owner == call().session

    def when(self) -> float:
        return call().now

    def chance(self) -> bytes:
        return call().random(8)

    def peek(self) -> None:
        touch("a key")

    def echo(self, *args: object, **kwargs: object) -> list[Any]:
        return [list(args), kwargs]


class Crowd:
    """Tell who waits, which changes by deadlines, deaths and lost connections too."""

    def __init__(self) -> None:
        self.waiters = Waiters()

    def wait(self, timeout: float | None = None) -> Waiter:
        return self.waiters.wait(timeout, otherwise=False)

    def open(self) -> int:
        return self.waiters.wake_all(True)

    def waiting(self) -> int:
        return len(self.waiters)

    def in_reach(self) -> bool:
        return self.waiters.first is not None

    def came_back(self, waiter: Waiter) -> None:
        pass


class Restless:
    """Be free to change at any time."""

    def __init__(self) -> None:
        self.reads = 0

    def read(self) -> int:
        self.reads += 1
        return self.reads


class Rows:
    """Have items without being a mapping."""

    def __init__(self) -> None:
        self.rows: dict[Any, Any] = {}

    def __getitem__(self, key: object) -> object:
        return self.rows[key]

    def put(self, key: object, value: object) -> None:
        self.rows[key] = value


LRU = SharedObject("lru", Lru, readonly=["get", "count"], keyed=["get", "put"])
EXPIRING = SharedObject("expiring", Expiring, readonly=["get", "left"], keyed=["get", "left", "put"])
SAYINGS = SharedObject(
    "sayings",
    Sayings,
    readonly=["all", "last", "whose", "mine", "when", "chance", "peek", "echo"],
    carried=["say.what"],
)
CROWD = SharedObject("crowd", Crowd, readonly=["waiting", "in_reach"], waiting=["wait"])
RESTLESS = SharedObject("restless", Restless, readonly=["read"], threaded=True)
ROWS = SharedObject("rows", Rows, readonly=["__getitem__"])
PLAIN = SharedObject("plain", dict)


@hookimpl
def registry_shared_objects() -> Iterable[SharedObject[Any]]:
    """Share them."""
    return [LRU, EXPIRING, SAYINGS, CROWD, RESTLESS, ROWS, PLAIN]
