"""What a client keeps for its calls: here, by what name people are told of the thread that calls."""

from __future__ import annotations

import asyncio
import sys
import threading
from types import SimpleNamespace

import pytest
from servers import running

from registry._pending import thread_name


def test_the_main_thread_is_not_named() -> None:
    """Most programs have one thread, of which there is nothing to tell."""
    assert thread_name() == ""


def test_other_threads_are_named() -> None:
    """By the name that they have now, as far as it can be sent."""
    names: list[str] = []

    def work() -> None:
        for name in ("Worker-3", "x" * 500, "\udcff"):
            threading.current_thread().name = name
            names.append(thread_name())

    with running(work):
        pass
    assert names == ["Worker-3", "x" * 100, "?"]


def test_tasks_are_named() -> None:
    """A task has a name of its own, also in the main thread; code of a loop outside a task has none."""
    names: list[str] = []

    async def work() -> None:
        names.append(thread_name())
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: names.append(thread_name()))
        await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.create_task(work(), name="fetch")

    asyncio.run(main())
    assert names == ["fetch", ""]


def test_greenlets_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of gevent have names; a bare one is its thread."""
    fake = SimpleNamespace(getcurrent=lambda: SimpleNamespace(name="Greenlet-1"))
    monkeypatch.setitem(sys.modules, "greenlet", fake)
    assert thread_name() == "Greenlet-1"
    fake.getcurrent = object
    assert thread_name() == ""
