"""Shared objects that tests need: some that wait, some that call back, one on threads, one for each call."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import Any

from registry import SharedObject, hookimpl
from registry.hosting import Waiter, Waiters, call


class Gate:
    """Let callers wait until it is opened."""

    def __init__(self) -> None:
        self.waiters = Waiters()
        self.passed = 0

    def wait(self, timeout: float | None = None) -> Waiter:
        return self.waiters.wait(timeout, otherwise=False)

    def open(self) -> int:
        return self.waiters.wake_all(True)

    def waiting(self) -> int:
        return len(self.waiters)


class Notes:
    """Keep the order in which calls were made."""

    def __init__(self) -> None:
        self.rows: list[Any] = []

    def add(self, row: object) -> int:
        self.rows.append(row)
        return len(self.rows)

    def all(self) -> list[Any]:
        return self.rows

    def whom(self) -> str:
        return str(call().caller)

    def big(self, size: int) -> bytes:
        return b"x" * size

    def echo(self, value: object) -> object:
        return value


class Caller:
    """Call back into a server; set by a test that runs the server on a thread."""

    client: Any = None

    def __init__(self) -> None:
        self.calls = 0

    def call_back(self) -> object:
        return Caller.client.dict("d").get("x")


class Slow:
    """Live on threads, and wait for what a thread waits for."""

    opened = threading.Event()

    def __init__(self, greeting: str = "hello") -> None:
        self.greeting = greeting
        self.count = 0

    def where(self) -> tuple[int, str]:
        return os.getpid(), threading.current_thread().name

    def hang(self) -> bool:
        return Slow.opened.wait(20)

    def release(self) -> None:
        Slow.opened.set()

    def fail(self) -> None:
        raise KeyError("as always")

    def greet(self) -> str:
        return self.greeting


class Ticket:
    """Be made anew by each call."""

    def __init__(self, start: int = 0) -> None:
        self.value = start

    def bump(self) -> int:
        self.value += 1
        return self.value


class Point:
    """Cross as a pickle."""

    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return type(other) is Point and other.x == self.x

    __hash__ = None  # type: ignore[assignment]


GATE = SharedObject("gate", Gate, waiting=("wait",), readonly=("waiting",))
NOTES = SharedObject("notes", Notes, readonly=("all", "big", "echo"))
CALLER = SharedObject("caller", Caller)
SLOW = SharedObject("slow", Slow, threaded=True)
TICKET = SharedObject("ticket", Ticket, per="call")
HALL = SharedObject("hall", Notes, per="server", readonly=("all", "big", "echo"))
COOKIES = SharedObject("cookies", Notes)  # that no server has

ALL = [GATE, NOTES, CALLER, SLOW, TICKET, HALL]


@hookimpl
def registry_shared_objects() -> Iterable[SharedObject[Any]]:
    """Share them all."""
    return ALL
