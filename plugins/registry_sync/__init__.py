"""Shared locks, semaphores, and other things to wait for; each is a module of this package."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from registry import SharedObject, hookimpl
from registry_sync.barrier import Barrier
from registry_sync.bounded_semaphore import BoundedSemaphore
from registry_sync.condition import Condition
from registry_sync.event import Event
from registry_sync.latch import Latch
from registry_sync.lock import Lock
from registry_sync.rlock import RLock
from registry_sync.rwlock import RWLock
from registry_sync.semaphore import Semaphore

__all__ = [
    "BARRIER",
    "BOUNDED_SEMAPHORE",
    "CONDITION",
    "EVENT",
    "LATCH",
    "LOCK",
    "RLOCK",
    "RWLOCK",
    "SEMAPHORE",
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "Latch",
    "Lock",
    "RLock",
    "RWLock",
    "Semaphore",
    "registry_shared_objects",
]

LOCK = SharedObject("lock", Lock, readonly=("locked",), waiting=("acquire",), shape="lock")

RLOCK = SharedObject("rlock", RLock, readonly=("locked",), waiting=("acquire",), shape="lock")

RWLOCK = SharedObject("rwlock", RWLock, readonly=("locked",), waiting=("read", "write"), shape="rwlock")

SEMAPHORE = SharedObject("semaphore", Semaphore, readonly=("value",), waiting=("acquire",), shape="semaphore")

BOUNDED_SEMAPHORE = SharedObject(
    "bounded_semaphore", BoundedSemaphore, readonly=("value",), waiting=("acquire",), shape="semaphore"
)

EVENT = SharedObject("event", Event, readonly=("is_set",), waiting=("wait",))

CONDITION = SharedObject(
    "condition",
    Condition,
    readonly=("locked",),
    waiting=("acquire", "wait", "wait_for"),
    shape="condition",
)

BARRIER = SharedObject("barrier", Barrier, readonly=("broken", "n_waiting", "parties"), waiting=("wait",))

LATCH = SharedObject("latch", Latch, readonly=("remaining",), waiting=("wait",))


@hookimpl
def registry_shared_objects() -> Iterable[SharedObject[Any]]:
    """Share the types of this package."""
    return [LOCK, RLOCK, RWLOCK, SEMAPHORE, BOUNDED_SEMAPHORE, EVENT, CONDITION, BARRIER, LATCH]
