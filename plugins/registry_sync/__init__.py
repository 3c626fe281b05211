"""Shared locks: `registry_sync.lock.Lock` and `registry_sync.rlock.RLock`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from registry import SharedObject, hookimpl
from registry_sync.lock import Lock
from registry_sync.rlock import RLock

__all__ = ["LOCK", "RLOCK", "Lock", "RLock", "registry_shared_objects"]

LOCK = SharedObject("lock", Lock, readonly=("locked",), waiting=("acquire",), shape="lock")

RLOCK = SharedObject("rlock", RLock, readonly=("locked",), waiting=("acquire",), shape="lock")


@hookimpl
def registry_shared_objects() -> Iterable[SharedObject[Any]]:
    """Share the types of this package."""
    return [LOCK, RLOCK]
