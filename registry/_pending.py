"""What a client's session keeps for each call under way, and for each thread that calls."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import MutableMapping
from typing import Any, Protocol

import msgspec

from registry._leaves import Parts
from registry._wire import LONGEST_THREAD, Frame, Kind


class AgainError(Exception):
    """The session is a new one, in which a call that nothing was lost of is made again by its own thread."""


class Mark(msgspec.Struct, array_like=True, eq=False):
    """A grant that calls rely on: the type and name of what gave it, and its number. Each is itself alone."""

    typeid: str
    name: str
    number: int


class Pending(msgspec.Struct, eq=False):
    """A call that has no reply yet.

    Attributes:
        about: What the call is to, for errors; anything with a `title`.
        parked: Its thread waits for somebody else to read, on `wake`.
        settling: It is being cancelled; a new connection begins with that.
        asked: The generation on which its cancel was sent.
        abandoned: Nobody waits for it any more; it stays until the server has settled it.
        waiting: Its method may wait, and what it gives can be taken back until it is `delivered`.
        insisting: It gives something back: it is made, exactly once, whatever becomes of its caller.
        relying: Although it gives something back, it relies on the grants of its thread, since it does more than that.
        unattended: Nobody waits for its reply.
        seconds: How long it may take; None waits.
    """

    kind: int
    handle: int
    method: str
    arguments: bytes | Parts
    about: Any
    readonly: bool
    waiting: bool = False
    delivered: bool = False
    insisting: bool = False
    relying: bool = False
    unattended: bool = False
    fields: dict[int, msgspec.Raw] | None = None
    seq: int = 0
    sent: bool = False
    settling: bool = False
    asked: int = 0
    abandoned: bool = False
    parked: bool = False
    reply: Frame | None = None
    failure: Exception | None = None
    wake: Any = None
    seconds: float | None = None

    def again(self) -> Pending:
        """Return the same request as one that nobody has seen yet."""
        return Pending(
            self.kind,
            self.handle,
            self.method,
            self.arguments,
            self.about,
            self.readonly,
            self.waiting,
            seconds=self.seconds,
        )

    @property
    def done(self) -> bool:
        return self.reply is not None or self.failure is not None

    @property
    def title(self) -> str:
        return f"the question {self.method!r}" if self.kind == Kind.CONTROL else f"{self.about.title}.{self.method}()"


class Guards(list[Mark]):
    """The grants that the calls of one thread rely on, innermost last."""

    __slots__ = ("__weakref__",)


class Local:
    """What a thread has of a session: its owner number, and the grants that its calls rely on.

    Attributes:
        taking: The last call, if it gave something that can be taken back, such as a lock or an item.
    """

    __slots__ = ("guards", "owner", "session", "taking")

    def __init__(self, guards: Guards) -> None:
        self.guards = guards
        self.session = b""
        self.owner = 0
        self.taking: Pending | None = None


class EachThread(Protocol):
    """An object of which each thread sees one of its own."""

    mine: Local


def each_thread(everyone: MutableMapping[int, Guards]) -> EachThread:
    """Return what has a `Local` for each thread; for each greenlet where gevent has replaced threads.

    Its class is made now, since that may have happened after this module was imported.

    Args:
        everyone: Takes what each thread relies on, for as long as the thread lives.
    """
    numbers = itertools.count()

    class Each(threading.local):
        def __init__(self) -> None:
            guards = everyone[next(numbers)] = Guards()
            self.mine = Local(guards)

    return Each()


def thread_name() -> str:
    """Return the name of the asyncio task, greenlet or thread that runs, for people; empty for the main thread."""
    name = ""
    asyncio, greenlet = sys.modules.get("asyncio"), sys.modules.get("greenlet")
    if asyncio is not None and asyncio._get_running_loop() is not None:
        task = asyncio.current_task()
        name = task.get_name() if task is not None else ""
    elif greenlet is not None:
        name = getattr(greenlet.getcurrent(), "name", "")
    if not name and threading.get_ident() != threading.main_thread().ident:
        name = threading.current_thread().name
    if not name:
        return ""
    return str(name)[:LONGEST_THREAD].encode("utf-8", "replace").decode()
