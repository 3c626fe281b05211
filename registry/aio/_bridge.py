"""Run in a task what would keep a thread waiting: where a thread would wait, the task does.

The client is written once, for threads. Everything in it that waits ends in one of a few places, and a session of an
event loop has its own versions of these (`_link`). There it calls `wait`, which hands an awaitable to the task that
runs the whole; and the loop goes on with others meanwhile. What makes that possible are greenlets: a piece of code
that can be left in the middle of a plain call, and gone on with. So a cancellation is to the client what a signal
handler is that raises in a thread that waits, and everything that is right there is right here.

To make a greenlet costs more than to go on with one, so they are kept for the next call (`_OfThread`).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

P = ParamSpec("P")
T = TypeVar("T")

KEPT = 128  # greenlets that a thread keeps for its next calls
STREAK = 100  # calls that need not wait, such as cached reads, after which the loop has a turn all the same


class Outcome:
    """How a function has ended: with a value, or with an error."""

    __slots__ = ("error", "value")

    def __init__(self, value: Any, error: BaseException | None = None) -> None:
        self.value = value
        self.error = error


class Course(greenlet):  # type: ignore[misc] # it has no types
    """A greenlet that runs one function after another, each for a task.

    It is switched to with a function. It switches back with an awaitable when the function is to wait, and with an
    `Outcome` when it has ended. Where its task goes while it waits, it ends with the frame that it was switched to by.

    Attributes:
        note: For what the function calls, as long as it runs.
    """

    note: Any = None

    @staticmethod
    def run(first: Callable[[], object]) -> None:
        # What stands on its stack while it waits must not lead to itself, or to what has ended: that would live on.
        functions = [first]
        while True:
            functions.append(getcurrent().parent.switch(_outcome(functions.pop())))


def _outcome(function: Callable[[], object]) -> Outcome:
    try:
        return Outcome(function())
    except (GreenletExit, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - it is raised in the task
        return Outcome(None, error)


class _OfThread(threading.local):
    """What a thread has: greenlets that nobody uses, and how many calls in a row have not waited."""

    def __init__(self) -> None:
        self.courses: list[Course] = []
        self.streak = 0


_own = _OfThread()


async def run(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that may `wait`, and return what it returns. Whatever is thrown in is raised where it waits."""
    own = _own
    own.streak += 1
    if own.streak > STREAK:
        own.streak = 0
        await asyncio.sleep(0)
    courses = own.courses
    course = courses.pop() if courses else Course()
    here = getcurrent()
    course.parent = here
    course.gr_context = here.gr_context  # context variables are those of the task
    awaited: Awaitable[object] | Outcome = course.switch(lambda: function(*args, **kwargs))
    while type(awaited) is not Outcome:
        own.streak = 0
        try:
            await awaited  # type: ignore[misc] # it is one that can be awaited
        except GeneratorExit as end:
            course.throw(end)
            raise
        except BaseException as reason:  # noqa: BLE001 - it is for whoever waits
            awaited = course.throw(reason)
        else:
            awaited = course.switch()
    course.gr_context = course.note = None
    if len(courses) < KEPT:
        courses.append(course)
    value, error = awaited.value, awaited.error
    if error is not None:
        try:
            raise error
        finally:
            del awaited, error  # or else it would lead to itself, by its traceback
    return value  # type: ignore[no-any-return]


def wait(awaitable: Awaitable[object]) -> None:
    """Let the task wait that runs this code, by `run`.

    Raises:
        RuntimeError: There is none: the code has been called as code for threads is.
    """
    if not isinstance(getcurrent(), Course):
        raise RuntimeError(
            "what belongs to an event loop was used by code that is not awaited: await the proxies of registry.aio, "
            "and use those of registry.connect() in plain functions"
        )
    getcurrent().parent.switch(awaitable)
