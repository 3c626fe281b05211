"""What the first-party types are to a type checker, where their verbs are awaited; nothing here is ever run.

Made from their declarations by ``python tests/aio_types.py``.
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, ParamSpec, Protocol, TypeVar

from registry.aio._proxies import Grant

P = ParamSpec("P")
R = TypeVar("R")
T_co = TypeVar("T_co", covariant=True)


class Entering(Coroutine[Any, Any, T_co], AbstractAsyncContextManager[T_co]):
    """A call to await, or a block to enter."""


class Entered(Protocol):
    """What is a block by itself, and decorates coroutine functions."""

    async def __aenter__(self) -> Grant: ...
    async def __aexit__(self, *error: Any) -> None: ...
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]: ...


class Items(Protocol):
    """What ``async for`` goes through."""

    def __aiter__(self) -> AsyncIterator[Any]: ...


class Barrier(Protocol):
    """Let callers wait for each other."""

    async def abort(self) -> None:
        """Break the barrier."""

    async def broken(self) -> builtins.bool:
        """Tell whether the barrier is broken."""

    async def n_waiting(self) -> builtins.int:
        """Return how many wait."""

    async def parties(self) -> builtins.int:
        """Return how many have to come."""

    async def reset(self) -> None:
        """Make the barrier as new; those who wait are told that it broke."""

    async def wait(self, timeout: builtins.float | None = None) -> builtins.int:
        """Wait until all parties have come."""


class BoundedSemaphore(Entered, Protocol):
    """Let a number of callers in at a time, and take permits back from them alone."""

    def acquire(
        self,
        blocking: builtins.bool = True,
        timeout: builtins.float | None = None,
        *,
        expiry: builtins.float | None = None,
    ) -> Entering[Grant]:
        """Take a permit, or wait for one."""

    async def release(self, n: builtins.int = 1, number: builtins.int | None = None) -> None:
        """Return permits: those of the calling thread first, then others of its process."""

    async def value(self) -> builtins.int:
        """Return how many permits are left."""


class Condition(Entered, Protocol):
    """Let one thread or task at a time in, and let it wait for what another one does."""

    def acquire(self, blocking: builtins.bool = True, timeout: builtins.float | None = None) -> Entering[Grant]:
        """Take the lock, take it once more, or wait for it; as that of `rlock`."""

    async def locked(self) -> builtins.bool:
        """Tell whether somebody holds it."""

    async def notify(self, n: builtins.int = 1) -> None:
        """Notify the first `n` of those who wait."""

    async def notify_all(self) -> None:
        """Notify all who wait."""

    async def release(self, number: builtins.int | None = None) -> None:
        """Give the lock to the next, or back; as that of `rlock`."""

    async def wait(self, timeout: builtins.float | None = None) -> builtins.bool:
        """Wait to be notified, without the lock meanwhile; False if the time was up first."""

    async def wait_for(self, predicate: Callable[[], R], timeout: builtins.float | None = None) -> R:
        """Wait until `predicate()` is true, and return what it said last."""


class Counter(Protocol):
    """Count across processes."""

    async def bool(self) -> builtins.bool:
        """Do what `__bool__` does elsewhere."""

    async def float(self) -> builtins.float:
        """Do what `__float__` does elsewhere."""

    async def int(self) -> builtins.int:
        """Do what `__int__` does elsewhere."""

    async def decr(self, by: builtins.int | builtins.float = 1) -> builtins.int | builtins.float:
        """Subtract `by` and return the new value."""

    async def get(self) -> builtins.int | builtins.float:
        """Return the value."""

    async def incr(self, by: builtins.int | builtins.float = 1) -> builtins.int | builtins.float:
        """Add `by` and return the new value."""

    async def set(self, value: builtins.int | builtins.float) -> None:
        """Replace the value, whatever others have counted meanwhile."""


class Dict(Items, Protocol):
    """Share a dict."""

    async def contains(self, key: Hashable) -> builtins.bool:
        """Do what `__contains__` does elsewhere."""

    async def delitem(self, key: Hashable) -> None:
        """Do what `__delitem__` does elsewhere."""

    async def getitem(self, key: Hashable) -> Any:
        """Do what `__getitem__` does elsewhere."""

    async def iter(self) -> Iterator[Any]:
        """Do what `__iter__` does elsewhere."""

    async def len(self) -> builtins.int:
        """Do what `__len__` does elsewhere."""

    async def setitem(self, key: Hashable, value: builtins.object) -> None:
        """Do what `__setitem__` does elsewhere."""

    async def clear(self) -> None:
        """Remove every entry."""

    async def compare_and_set(
        self,
        key: builtins.object,
        expected: builtins.object,
        value: builtins.object,
    ) -> builtins.bool:
        """Set `key` if its value equals `expected`; one call where the two are spelled alike."""

    async def copy(self) -> builtins.dict[Any, Any]:
        """Return the whole mapping of one moment as a plain dict."""

    def edit(self, key: builtins.object) -> AbstractAsyncContextManager[Any]:
        """Change the value of `key` in place: ``async with d.edit(key) as v``."""

    async def get(self, key: builtins.object, default: Any = None) -> Any:
        """Return the value of `key`, or `default`, which never leaves this process."""

    async def get_many(self, keys: Iterable[Hashable]) -> builtins.dict[Any, Any]:
        """Return those of the keys that are there, with their values, in the order in which they were asked for."""

    async def incr(self, key: Hashable, by: builtins.int | builtins.float = 1) -> builtins.int | builtins.float:
        """Add `by` to the number of `key`, and return the new value. A missing key starts at 0."""

    async def items(self) -> builtins.list[builtins.tuple[Any, Any]]:
        """Return the pairs of one moment."""

    async def keys(self) -> builtins.list[Any]:
        """Return the keys of one moment."""

    async def pop(self, key: builtins.object, *default: Any) -> Any:
        """Remove `key` and return its value, plain: it is the caller's now."""

    async def popitem(self) -> builtins.tuple[Any, Any]:
        """Remove the entry that was added last, and return its key and value."""

    async def setdefault(self, key: Hashable, default: builtins.object = None) -> Any:
        """Return the value of `key`; where there is none, store `default` and return it."""

    async def update(self, other: Any = (), /, **kwargs: Any) -> None:
        """Set many keys in one call, at one moment."""

    async def values(self) -> builtins.list[Any]:
        """Return the values of one moment."""


class Event(Protocol):
    """Let callers wait for a flag."""

    async def clear(self) -> None:
        """Take the flag back; from now on callers wait."""

    async def is_set(self) -> builtins.bool:
        """Tell whether the flag is set."""

    async def set(self) -> None:
        """Set the flag, and let all go on who wait for it."""

    async def wait(self, timeout: builtins.float | None = None) -> builtins.bool:
        """Wait until the flag is set."""


class Latch(Protocol):
    """Let callers wait until something has happened so many times."""

    async def count_down(self, n: builtins.int = 1) -> builtins.int:
        """Count `n` times, and return what remains."""

    async def remaining(self) -> builtins.int:
        """Return what remains to be counted."""

    async def wait(self, timeout: builtins.float | None = None) -> builtins.bool:
        """Wait until nothing remains."""


class List(Items, Protocol):
    """Share a list."""

    async def contains(self, value: builtins.object) -> builtins.bool:
        """Do what `__contains__` does elsewhere."""

    async def delitem(self, index: builtins.int | builtins.slice) -> None:
        """Do what `__delitem__` does elsewhere."""

    async def getitem(self, index: builtins.int | builtins.slice) -> Any | builtins.list[Any]:
        """Do what `__getitem__` does elsewhere."""

    async def iter(self) -> Iterator[Any]:
        """Do what `__iter__` does elsewhere."""

    async def len(self) -> builtins.int:
        """Do what `__len__` does elsewhere."""

    async def reversed(self) -> Iterator[Any]:
        """Do what `__reversed__` does elsewhere."""

    async def setitem(self, index: builtins.int | builtins.slice, value: Any) -> None:
        """Do what `__setitem__` does elsewhere."""

    async def append(self, value: builtins.object) -> None:
        """Add a value at the end."""

    async def clear(self) -> None:
        """Remove every value."""

    async def copy(self) -> builtins.list[Any]:
        """Return the whole sequence of one moment as a plain list."""

    async def count(self, value: builtins.object) -> builtins.int:
        """Return how many of the values are encoded alike."""

    async def extend(self, values: Iterable[builtins.object]) -> None:
        """Add values at the end, in one call."""

    async def index(
        self,
        value: builtins.object,
        start: builtins.int = 0,
        stop: builtins.int | None = None,
    ) -> builtins.int:
        """Return where the first of the values stands that are encoded alike, from `start` to before `stop`."""

    async def insert(self, index: builtins.int, value: builtins.object) -> None:
        """Add a value before the one at `index`."""

    async def pop(self, index: builtins.int = -1) -> Any:
        """Remove the value at `index` and return it."""

    async def remove(self, value: builtins.object) -> None:
        """Remove the first of the values that are encoded alike."""

    async def reverse(self) -> None:
        """Turn the order round."""


class Lock(Entered, Protocol):
    """Let one process at a time in."""

    def acquire(self, blocking: builtins.bool = True, timeout: builtins.float | None = None) -> Entering[Grant]:
        """Take the lock, or wait for it."""

    async def locked(self) -> builtins.bool:
        """Tell whether somebody holds it."""

    async def release(self, number: builtins.int | None = None) -> None:
        """Give the lock to the next, or back."""


class Queue(Items, Protocol):
    """Share a first-in, first-out queue."""

    def claim(
        self,
        block: builtins.bool = True,
        timeout: builtins.float | None = None,
    ) -> AbstractAsyncContextManager[Any]:
        """Take the next item for as long as it is worked on: ``async with q.claim() as item``."""

    async def empty(self) -> builtins.bool:
        """Tell whether there is no item."""

    async def full(self) -> builtins.bool:
        """Tell whether there is no room."""

    async def get(self, block: builtins.bool = True, timeout: builtins.float | None = None) -> Any:
        """Take the next item, waiting for one."""

    async def get_many(
        self,
        n: builtins.int,
        block: builtins.bool = True,
        timeout: builtins.float | None = None,
    ) -> builtins.list[Any]:
        """Wait for an item, and take it with those that are there then, up to `n`."""

    async def get_nowait(self) -> Any:
        """Take the next item if there is one."""

    async def put(
        self,
        item: builtins.object,
        block: builtins.bool = True,
        timeout: builtins.float | None = None,
    ) -> None:
        """Put an item at the end."""

    async def put_many(
        self,
        items: Iterable[Any],
        block: builtins.bool = True,
        timeout: builtins.float | None = None,
    ) -> None:
        """Put all the items in one step, waiting for room for all of them."""

    async def put_nowait(self, item: builtins.object) -> None:
        """Put an item at the end, or raise `queue.Full` at once."""

    async def qsize(self) -> builtins.int:
        """Return how many items there are."""

    async def settle(self, number: builtins.int, done: builtins.bool = True) -> None:
        """End a claim, as the end of its ``with`` block does."""


class RLock(Entered, Protocol):
    """Let one thread or task at a time in, as often as it likes."""

    def acquire(self, blocking: builtins.bool = True, timeout: builtins.float | None = None) -> Entering[Grant]:
        """Take the lock, take it once more, or wait for it; as `Exclusive.acquire`."""

    async def locked(self) -> builtins.bool:
        """Tell whether somebody holds it."""

    async def release(self, number: builtins.int | None = None) -> None:
        """Give the lock to the next, or back."""


class RWLock(Protocol):
    """Let many in to read, or one to write."""

    async def locked(self) -> builtins.bool:
        """Tell whether somebody holds it, to read or to write."""

    def read(self, blocking: builtins.bool = True, timeout: builtins.float | None = None) -> Entering[Grant]:
        """Take the lock to read, or wait for it."""

    async def release(self, number: builtins.int | None = None) -> None:
        """Give back what was taken last, or what a grant is for, and let in who can be."""

    def write(self, blocking: builtins.bool = True, timeout: builtins.float | None = None) -> Entering[Grant]:
        """Take the lock to write, or wait for it; a reader becomes the writer."""


class Semaphore(Entered, Protocol):
    """Let a number of callers in at a time."""

    def acquire(
        self,
        blocking: builtins.bool = True,
        timeout: builtins.float | None = None,
        *,
        expiry: builtins.float | None = None,
    ) -> Entering[Grant]:
        """Take a permit, or wait for one."""

    async def release(self, n: builtins.int = 1, number: builtins.int | None = None) -> None:
        """Return permits: those of the calling thread first, then others of its process."""

    async def value(self) -> builtins.int:
        """Return how many permits are left."""


class Set(Items, Protocol):
    """Share a set."""

    async def contains(self, member: Hashable) -> builtins.bool:
        """Do what `__contains__` does elsewhere."""

    async def iter(self) -> Iterator[Any]:
        """Do what `__iter__` does elsewhere."""

    async def len(self) -> builtins.int:
        """Do what `__len__` does elsewhere."""

    async def add(self, member: Hashable) -> builtins.bool:
        """Add a member; tell whether it is new."""

    async def clear(self) -> None:
        """Remove every member."""

    async def copy(self) -> builtins.set[Any]:
        """Return the whole set of one moment as a plain set."""

    async def difference_update(self, *others: Iterable[Hashable]) -> None:
        """Remove the members of all the others."""

    async def discard(self, member: Hashable) -> builtins.bool:
        """Remove a member; tell whether it was there."""

    async def intersection_update(self, *others: Iterable[Hashable]) -> None:
        """Keep only members that are in all the others."""

    async def isdisjoint(self, other: Iterable[Hashable]) -> builtins.bool:
        """Tell whether no member is in the other."""

    async def issubset(self, other: Iterable[Hashable]) -> builtins.bool:
        """Tell whether every member is in the other."""

    async def issuperset(self, other: Iterable[Hashable]) -> builtins.bool:
        """Tell whether every one of the other is a member."""

    async def pop(self) -> Any:
        """Remove the member that was added first, and return it."""

    async def remove(self, member: Hashable) -> None:
        """Remove a member."""

    async def symmetric_difference_update(self, other: Iterable[Hashable]) -> None:
        """Keep what is in one of the two only."""

    async def update(self, *others: Iterable[Hashable]) -> None:
        """Add the members of all the others: all of them, or none."""


class Typed:
    """The first-party types as attributes of a client."""

    def barrier(
        self,
        name: builtins.str,
        /,
        parties: builtins.int = ...,
        timeout: builtins.float | None = None,
    ) -> Barrier:
        """Return the barrier of that name."""
        raise NotImplementedError

    def bounded_semaphore(self, name: builtins.str, /, value: builtins.int = 1) -> BoundedSemaphore:
        """Return the bounded_semaphore of that name."""
        raise NotImplementedError

    def condition(self, name: builtins.str, /) -> Condition:
        """Return the condition of that name."""
        raise NotImplementedError

    def counter(self, name: builtins.str, /, start: builtins.int | builtins.float = 0) -> Counter:
        """Return the counter of that name."""
        raise NotImplementedError

    def dict(self, name: builtins.str, /) -> Dict:
        """Return the dict of that name."""
        raise NotImplementedError

    def event(self, name: builtins.str, /) -> Event:
        """Return the event of that name."""
        raise NotImplementedError

    def latch(self, name: builtins.str, /, count: builtins.int = ...) -> Latch:
        """Return the latch of that name."""
        raise NotImplementedError

    def list(self, name: builtins.str, /) -> List:
        """Return the list of that name."""
        raise NotImplementedError

    def lock(self, name: builtins.str, /) -> Lock:
        """Return the lock of that name."""
        raise NotImplementedError

    def queue(self, name: builtins.str, /, maxsize: builtins.int = 0) -> Queue:
        """Return the queue of that name."""
        raise NotImplementedError

    def rlock(self, name: builtins.str, /) -> RLock:
        """Return the rlock of that name."""
        raise NotImplementedError

    def rwlock(self, name: builtins.str, /) -> RWLock:
        """Return the rwlock of that name."""
        raise NotImplementedError

    def semaphore(self, name: builtins.str, /, value: builtins.int = 1) -> Semaphore:
        """Return the semaphore of that name."""
        raise NotImplementedError

    def set(self, name: builtins.str, /) -> Set:
        """Return the set of that name."""
        raise NotImplementedError
