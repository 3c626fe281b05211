"""Shared queues: `registry_queues.queue.Queue`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from registry import SharedObject, hookimpl
from registry_queues.queue import Queue

__all__ = ["QUEUE", "Queue", "registry_shared_objects"]

QUEUE = SharedObject(
    "queue",
    Queue,
    readonly=("empty", "full", "qsize"),
    waiting=("claim", "get", "get_many", "put", "put_many"),
    carried=("put.item", "put_nowait.item"),
    shape="queue",
)


@hookimpl
def registry_shared_objects() -> Iterable[SharedObject[Any]]:
    """Share the types of this package."""
    return [QUEUE]
