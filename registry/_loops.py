"""Calls of the blocking client that would stop an event loop: a wait for somebody else, in the thread of all tasks."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from registry.declarations import Interface

# Where the arguments of a verb say whether it is to wait, by the shape that has it.
_WHETHER: dict[str | None, dict[str, int]] = {
    "lock": {"acquire": 0},
    "semaphore": {"acquire": 0},
    "condition": {"acquire": 0},
    "rwlock": {"read": 0, "write": 0},
    "queue": {"get": 0, "claim": 0, "put": 1, "get_many": 1, "put_many": 1},
}


def would_be_stopped(interface: Interface, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Tell whether a call of a method that may wait would stop a loop that runs in this thread.

    A call that says itself that it does not wait is as short as any other. In an IPython kernel, whose cells run within
    a loop of its own, to wait is what the person at it has asked for.
    """
    running = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)  # not there yet while it is imported
    if running is None or running() is None:
        return False
    given: dict[str, Any] = {"block": True, "blocking": True, "timeout": None, **kwargs}
    place = _WHETHER.get(interface.shape, {}).get(method)
    if place is not None:
        given.update(zip(("block", "timeout"), args[place:]))
    if not (given["block"] and given["blocking"]) or given["timeout"] == 0:
        return False
    ipython = sys.modules.get("IPython")
    return ipython is None or getattr(ipython.get_ipython(), "kernel", None) is None
