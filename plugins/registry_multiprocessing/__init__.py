"""The types of `multiprocessing.Manager()`, with their meaning of them; `registry.Manager()` serves them.

Containers and values are the very classes that the standard manager has. What waits is written anew, so that a wait
ends with the process that waits, and what a process holds is free when it dies:

===================================  ==================================================================================
``Lock``, ``RLock``                  go to the next; `locks`
``Semaphore``, ``BoundedSemaphore``  what is missing is given back; `semaphores`
``Condition``, ``Event``             nobody is woken in the place of somebody who is gone; `conditions`
``Barrier``                          is broken, as by whoever does not come; `barriers`
``Queue``, ``JoinableQueue``         an item that could not be delivered goes back to the front; `queues`
``Pool``                             ends with its last proxy; `pools`
===================================  ==================================================================================

Objects of these types are threaded: they are never logged, and end with the server.
"""

from __future__ import annotations

from collections.abc import Iterable
from multiprocessing import managers as _managers
from typing import Any, Final

from registry import SharedObject, hookimpl
from registry_multiprocessing.barriers import Barrier
from registry_multiprocessing.conditions import Condition, Event
from registry_multiprocessing.locks import Lock, RLock
from registry_multiprocessing.pools import Pool
from registry_multiprocessing.queues import Queue
from registry_multiprocessing.semaphores import BoundedSemaphore, Semaphore

__all__ = [
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "Lock",
    "Pool",
    "Queue",
    "RLock",
    "Semaphore",
    "registry_shared_objects",
]


def _as_it_is(result: object) -> object:
    """Share what another object has returned."""
    return result


managers: Any = _managers  # whose types are not told to checkers

# What makes an object, and what makes its proxies; the names are those of `SyncManager`.
_TYPES: Final[dict[str, tuple[Any, Any]]] = {
    "Queue": (Queue, managers.AutoProxy),
    "JoinableQueue": (Queue, managers.AutoProxy),
    "Event": (Event, managers.EventProxy),
    "Lock": (Lock, managers.AcquirerProxy),
    "RLock": (RLock, managers.AcquirerProxy),
    "Semaphore": (Semaphore, managers.AcquirerProxy),
    "BoundedSemaphore": (BoundedSemaphore, managers.AcquirerProxy),
    "Condition": (Condition, managers.ConditionProxy),
    "Barrier": (Barrier, managers.BarrierProxy),
    "Pool": (Pool, managers.PoolProxy),
    "list": (list, managers.ListProxy),
    "dict": (dict, managers.DictProxy),
    "Value": (managers.Value, managers.ValueProxy),
    "Array": (managers.Array, managers.ArrayProxy),
    "Namespace": (managers.Namespace, managers.NamespaceProxy),
    "Iterator": (_as_it_is, managers.IteratorProxy),
    "AsyncResult": (_as_it_is, managers.AutoProxy),
}
if hasattr(managers, "SetProxy"):  # Python 3.14
    _TYPES["set"] = (set, managers.SetProxy)


@hookimpl
def registry_shared_objects() -> Iterable[SharedObject[Any]]:
    """Share the types of `multiprocessing.Manager()`."""
    return [
        SharedObject(typeid, factory, per="call", threaded=True, proxy=proxy)
        for typeid, (factory, proxy) in _TYPES.items()
    ]
