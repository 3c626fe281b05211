"""Threads of which exactly one runs at a time, and whose turn it is one random number generator decides.

The code under test is real, blocking, threaded code. Where it would block it hands on the *baton*: it says what it
waits for, and until when, and sleeps until it is given the baton again. Whoever runs the crew, on a thread of its
own, looks at who could go on and lets one of them. So what happens depends on the seed and on nothing else, and it can
be said of every moment who could go on.

Locks and the rest of `threading` that the code uses are replaced by ones that hand on the baton too, by `replaced`.
With `fine` steps a thread may also lose its turn before any line of the files under test, as the interpreter may
switch anywhere.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from math import inf
from random import Random
from types import FrameType, ModuleType, SimpleNamespace
from typing import Any

MARGIN = 20.0  # real seconds after which a member that does not hand on the baton is stuck in something real


class Killed(BaseException):
    """The process of this thread is dead. It unwinds, and nothing that it still does has any effect."""


class Interruption(BaseException):
    """What a signal handler raises."""


class Stuck(Exception):
    """A member blocks on something that the crew does not know of."""


class Process:
    """What threads share: whether they live."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True


class Member:
    """One thread."""

    def __init__(self, crew: Crew, process: Process, work: Callable[[], object], place: int) -> None:
        self.process = process
        self.place = place
        self.ready: Callable[[], object] = _always
        self.until = inf
        self.is_shielded = False  # nothing is to be thrown
        self.ended = False
        self.error: BaseException | None = None
        self.raising: BaseException | None = None  # thrown where it waits, when it goes on
        self.baton = threading.Lock()
        self.baton.acquire()
        self.work = work
        self.crew = crew
        self.thread = threading.Thread(target=self._run, name=f"{process.name} {place}", daemon=True)
        self.thread.start()

    def can_go_on(self) -> bool:
        """Tell whether it has what it waits for, or waits no longer."""
        return not self.ended and (not self.process.alive or self.crew.now >= self.until or bool(self.ready()))

    def _run(self) -> None:
        self.baton.acquire()
        try:
            if self.process.alive:
                self.crew.trace()
                self.work()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 - the crew raises it again
            self.error = error
        finally:
            sys.settrace(None)
            self.ended = True
            self.crew.back.release()


class Crew:
    """All the threads.

    Args:
        random: Decides.
        fine: How probable it is that a thread loses its turn before a line of the traced files.
        traced: The files in which it may.
    """

    def __init__(self, random: Random, fine: float = 0.0, traced: Iterable[str] = ()) -> None:
        self.random = random
        self.now = 0.0
        self.fine = fine
        self.traced = frozenset(traced)
        self.members: list[Member] = []
        self.running: Member | None = None
        self.over = False
        self.back = threading.Lock()
        self.back.acquire()

    # -- for whoever runs the crew

    def enlist(self, process: Process, work: Callable[[], object], place: int = 0) -> Member:
        """Add a thread; it begins when it is given the baton."""
        member = Member(self, process, work, place)
        self.members.append(member)
        return member

    def able(self) -> list[Member]:
        """Return who could go on."""
        return [member for member in self.members if member.can_go_on()]

    def go_on(self, member: Member, raising: BaseException | None = None) -> None:
        """Let a thread run until it hands on the baton, or throw something where it waits."""
        member.raising = raising
        self.running = member
        member.baton.release()
        if not self.back.acquire(True, MARGIN):
            raise Stuck(f"{member.thread.name} does not hand on the baton")
        self.running = None
        if member.ended:
            self.members.remove(member)
            member.thread.join()
            if member.error is not None:
                raise member.error

    def kill(self, process: Process) -> None:
        """End a process: its threads unwind at once, without effect."""
        process.alive = False
        for member in [member for member in self.members if member.process is process]:
            while not member.ended:
                self.go_on(member)

    def next_due(self) -> float:
        """Return when the first of those who wait for a time would go on."""
        return min((member.until for member in self.members), default=inf)

    # -- for the threads

    def wait(self, ready: Callable[[], object], until: float = inf) -> bool:
        """Hand on the baton until something is true, or until a time; tell whether it is true."""
        member = self.running
        if member is None:
            return bool(ready())
        if not member.process.alive:
            raise Killed
        member.ready, member.until = ready, until
        self.back.release()
        member.baton.acquire()
        member.ready, member.until = _always, inf
        if not member.process.alive:
            raise Killed
        raising, member.raising = member.raising, None
        if raising is not None:
            raise raising
        return bool(ready())

    def point(self) -> None:
        """Be where another thread may have its turn first."""
        self.wait(_always)

    @property
    def is_dead(self) -> bool:
        """Whether the thread that asks is one of a dead process, or all is over: then nothing has an effect."""
        return self.over or (self.running is not None and not self.running.process.alive)

    def trace(self) -> None:
        """Let the thread that calls this lose its turn at any line of the traced files, where steps are fine."""
        if self.fine:
            sys.settrace(self._trace)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        return self._line if frame.f_code.co_filename in self.traced else None

    def _line(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line" and self.running is not None and not self.is_dead and self.random.random() < self.fine:
            self.running.is_shielded = True
            try:
                self.point()
            finally:
                self.running.is_shielded = False
        return self._line


def _always() -> bool:
    return True


class Lock:
    """As `threading.Lock`."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._locked = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        crew = self._crew
        if crew.is_dead:
            return True
        if self._locked:
            if not blocking:
                return False
            until = inf if timeout < 0 else crew.now + timeout
            if not crew.wait(lambda: not self._locked, until):
                return False
        self._locked = True
        return True

    def release(self) -> None:
        if self._crew.is_dead:
            return
        if not self._locked:
            raise RuntimeError("release unlocked lock")
        self._locked = False

    def locked(self) -> bool:
        return self._locked

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


class RLock:
    """As `threading.RLock`."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._owner: object = None
        self._levels = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        crew = self._crew
        if crew.is_dead:
            return True
        me = crew.running or crew
        if self._owner is not me:
            if self._owner is not None:
                if not blocking:
                    return False
                until = inf if timeout < 0 else crew.now + timeout
                if not crew.wait(lambda: self._owner is None, until):
                    return False
            self._owner = me
        self._levels += 1
        return True

    def release(self) -> None:
        if self._crew.is_dead:
            return
        if not self._is_owned():
            raise RuntimeError("cannot release un-acquired lock")
        self._levels -= 1
        if not self._levels:
            self._owner = None

    def _is_owned(self) -> bool:
        return not self._crew.is_dead and self._owner is (self._crew.running or self._crew)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


class Event:
    """As `threading.Event`."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        if not self._crew.is_dead:
            self._set = True

    def clear(self) -> None:
        if not self._crew.is_dead:
            self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        return self._crew.wait(lambda: self._set, inf if timeout is None else self._crew.now + timeout)


class Thread:
    """As `threading.Thread`: a further member of the process that starts it."""

    def __init__(
        self,
        crew: Crew,
        group: None = None,
        target: Callable[..., object] = _always,
        name: str = "",
        args: Iterable[Any] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        self._crew = crew
        self._work = lambda: target(*args, **(kwargs or {}))
        self._member: Member | None = None
        self.name = name
        self.daemon = daemon

    def start(self) -> None:
        running = self._crew.running
        if running is None:
            raise RuntimeError("a thread of no process")
        self._member = self._crew.enlist(running.process, self._work, -1)

    def is_alive(self) -> bool:
        return self._member is not None and not self._member.ended

    def join(self, timeout: float | None = None) -> None:
        until = inf if timeout is None else self._crew.now + timeout
        self._crew.wait(lambda: not self.is_alive(), until)


@contextmanager
def replaced(crew: Crew, modules: Iterable[ModuleType], **others: Any) -> Iterator[None]:
    """Put the crew's own in the place of what modules know as `threading` and `monotonic`, for the length of a block.

    Args:
        crew: Whose.
        modules: Where; a module that does not have a name is left without it.
        others: What else to replace, by name.
    """
    names = {
        "threading": SimpleNamespace(
            Lock=lambda: Lock(crew),
            RLock=lambda: RLock(crew),
            Event=lambda: Event(crew),
            Thread=lambda *args, **kwargs: Thread(crew, *args, **kwargs),
            local=threading.local,
            current_thread=threading.current_thread,
            get_ident=threading.get_ident,
            TIMEOUT_MAX=threading.TIMEOUT_MAX,
        ),
        "monotonic": lambda: crew.now,
        **others,
    }
    before = [(module, name, vars(module)[name]) for module in modules for name in names if name in vars(module)]
    try:
        for module, name, _ in before:
            setattr(module, name, names[name])
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
