"""Classes that break the laws of their shapes, each in one way, and what should be said of it."""

from __future__ import annotations

import queue
from collections.abc import Iterator, MutableMapping, MutableSequence, MutableSet
from typing import Any

from registry import SharedObject
from registry.hosting import Grant, Waiters, call


class Mapping(MutableMapping[Any, Any]):
    """A mapping that keeps all laws, for others to break one."""

    def __init__(self) -> None:
        self.content: dict[Any, Any] = {}

    def __getitem__(self, key: Any) -> Any:
        return self.content[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.content[key] = value

    def __delitem__(self, key: Any) -> None:
        del self.content[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.content)

    def __len__(self) -> int:
        return len(self.content)

    def keys(self) -> Any:
        return list(self.content)

    def values(self) -> Any:
        return list(self.content.values())

    def items(self) -> Any:
        return list(self.content.items())

    def copy(self) -> dict[Any, Any]:
        return dict(self.content)


class Lenient(Mapping):
    """Say nothing of keys that are missing."""

    def __delitem__(self, key: Any) -> None:
        self.content.pop(key, None)


class Restless(Mapping):
    """Put what is written again at the end."""

    def __setitem__(self, key: Any, value: Any) -> None:
        self.content.pop(key, None)
        self.content[key] = value


class Secretive(Mapping):
    """Claim that keys have nothing to do with each other, while one write drives out another key."""

    def __setitem__(self, key: Any, value: Any) -> None:
        self.content.clear()
        self.content[key] = value


class Elsewhere(Mapping):
    """Keep everything in a place that no log knows."""

    everything: dict[Any, Any] = {}  # noqa: RUF012 - the fault

    def __init__(self) -> None:
        pass

    @property
    def content(self) -> dict[Any, Any]:  # type: ignore[override]
        return self.everything


class Sequence(MutableSequence[Any]):
    """Insert where it likes."""

    def __init__(self) -> None:
        self.content: list[Any] = []

    def __getitem__(self, place: Any) -> Any:
        return self.content[place]

    def __setitem__(self, place: Any, item: Any) -> None:
        self.content[place] = item

    def __delitem__(self, place: Any) -> None:
        del self.content[place]

    def __len__(self) -> int:
        return len(self.content)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.content)

    def insert(self, place: int, item: Any) -> None:
        self.content.append(item)


class Set(MutableSet[Any]):
    """Count an item as often as it is added."""

    def __init__(self) -> None:
        self.content: list[Any] = []

    def __contains__(self, item: object) -> bool:
        return item in self.content

    def __iter__(self) -> Iterator[Any]:
        return iter(self.content)

    def __len__(self) -> int:
        return len(self.content)

    def add(self, item: Any) -> None:
        self.content.append(item)

    def discard(self, item: Any) -> None:
        if item in self.content:
            self.content.remove(item)


class Stack:
    """Give what came last."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.waiters = Waiters()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if self.waiters.first is not None:
            self.waiters.wake(item)
        else:
            self.items.append(item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if self.items:
            return self.items.pop()
        if timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        return self.waiters.wait(timeout if block else 0, otherwise=queue.Empty())

    def qsize(self) -> int:
        return len(self.items)


class Sticky:
    """Stay with a holder that is dead."""

    def __init__(self) -> None:
        self.holder: Any = None
        self.waiters = Waiters()

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> Grant:
        if timeout is not None and timeout != -1 and (timeout < 0 or not blocking):
            raise ValueError("timeout")
        refusal = Grant(0, False, "somebody", 0.0)
        if self.holder is None:
            return self._give(call().owner)
        if not blocking or timeout == 0:
            return refusal
        return self.waiters.wait(None if timeout == -1 else timeout, otherwise=refusal)

    def release(self, number: int | None = None) -> None:
        if self.holder is None or self.holder.session != call().session.session:
            raise RuntimeError("not held")
        waiter = self.waiters.first
        self.holder = None
        if waiter is not None:
            self.waiters.wake(self._give(waiter.owner))

    def _give(self, owner: Any) -> Grant:
        self.holder = owner
        return Grant(call().token(), False, "somebody", 0.0)


LENIENT = SharedObject("lenient", Lenient)
RESTLESS = SharedObject("restless", Restless)
SECRETIVE = SharedObject(
    "secretive", Secretive, readonly=["__getitem__", "get", "copy"], keyed=["__getitem__", "__setitem__", "get"]
)
ELSEWHERE = SharedObject("elsewhere", Elsewhere)
SEQUENCE = SharedObject("sequence", Sequence)
SET = SharedObject("collection", Set)
STACK = SharedObject("stack", Stack, waiting=["get"], shape="queue")
STICKY = SharedObject("sticky", Sticky, waiting=["acquire"], shape="lock")
