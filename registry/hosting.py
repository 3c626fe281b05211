"""What authors of hosted classes use: the call under way, waits, and the values that are only carried.

A hosted class is an ordinary class. Its methods run inside the engine, one step at a time, so none of them
needs a lock; none of them may block, read a clock or draw a random number either, because every engine that
is fed the same events must reach the same state. What they need from outside comes from here:

* `call()` tells who calls and when, and gives random bytes and fencing tokens that replay to the same values;
* `Waiters` lets a method wait **by returning**: nothing of the method runs afterwards, the value given to
  `wake` becomes the reply;
* `at(time)` asks for `due(now)` to be called, since nothing expires by itself;
* `touch(*keys)` names further keys that a method declared *keyed* has changed, such as what it evicted.

Optional methods of a hosted class that the engine calls, each as a step of its own:

``owner_ended(owner)``
    A session, or one thread or task of it, has ended. Free what it held: ``owner.covers(holder)``.
``take_back(value)``
    The result of a waiting method could not be delivered. Undo it: the lock goes to the next, the item to the
    front.
``gave_up(waiter)``
    A call that waited here has ended without being woken: at its deadline, by a cancel, with its owner, or as a
    `Deadlock`. It has left its line. Drop what was kept for it, by its ``number``; let those in who waited behind it.
``blocked_by(waiter)``
    Who has to go on before a call that waits here can end: a list of groups of `Owner`, in each of which at least
    one has to. For a mutex that is ``[[holder]]``, for a writer behind readers ``[[first], [second]]``, for one of two
    permits ``[[first, second]]``. None if anybody may end the wait; so it is without this method. Asked when the
    wait begins, and again when `Waiters.adopt` moves it or its process comes back, in every other object too that
    can be reached from there; a wait that could never end gets `Deadlock`. It must not change anything. What it
    raises ends the wait that made the engine ask.

    Name whoever waits in the same line only where the line moves on without the holders: a reader behind a
    queued writer. Waits with a deadline end by themselves and are not asked about.

    A class says ``any_thread_releases = True`` if what a thread has of it is its whole process's, so that any of its
    threads may give it back. A circle through such an object is no `Deadlock`, but is logged as suspected.
``came_back(waiter)``
    A waiter is in reach again, after its process had lost its connection. A class that has this method has such
    waiters *passed over*: they keep their place in line, but `Waiters.first` and `Waiters.wake` know only those who
    are in reach, so that nobody waits for something that is free behind a process that cannot use it. Let the
    waiter in if there is room. Without this method a waiter out of reach is like any other: what it is given waits
    for it until it is back, or its lease has ended.
``went_away(waiter)``
    The process of a waiter has lost its connection. Let those in who waited behind it for no other reason.
``due(now)``
    The time asked for with `at` has come.
``vacant()``
    True when the object is as good as new, so that its record may be dropped.
``holds(token)``
    True while the grant with this number is valid; asked when a call says that it relies on it.
``holders()``
    A `Holder` for each grant that is out, the oldest first. Statistics, ``registry locks`` and ``registry release``
    show them, and whoever holds the object when it is deleted is told by them.
``take_away(number)``
    An operator takes the grant of this number from its holder, by force. Free what it held as if its holder had died:
    the next is told that it was abandoned. The engine tells the former holder.
``gives_back``
    No method, but the names of methods that only give back what a grant gave, such as ``("release",)``. They run
    although another grant of their caller is lost, which any other call would be refused for.
``frees``
    No method either, but the names of methods that never make the object hold more, such as ``("get",)``. They run
    although the server has no memory left for calls that add something, as those in ``gives_back`` do. A class that
    says nothing has the methods by which Python's containers remove something: ``clear``, ``discard``, ``pop``,
    ``popitem``, ``popleft``, ``remove`` and ``__delitem__``.
``state()`` and ``load(state)``
    The whole state as typed values, and back. Needed only where attributes do not tell it.
``statistics()``
    A mapping of plain values for `ManagerClient.statistics`, beside what the engine tells of every object. It is
    never part of the state.

Objects of a type with a `proxy`, which a private server has (`registry.Manager`), run on threads and may block. They
use `visit()` in the place of `call()`, and of the methods above only ``owner_ended(owner)``, on a thread of its own.

An example that runs::

    class Gate:
        def __init__(self):
            self.open = False
            self.waiters = Waiters()

        def pass_through(self, timeout=None):
            if self.open:
                return True
            return self.waiters.wait(timeout, otherwise=False)

        def unlock(self):
            self.open = True
            self.waiters.wake_all(True)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf, isnan
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec

from registry import _codec
from registry._leaves import Caller, Carried, Grant, Handle, OpaqueValue, Owner
from registry.errors import LockLost

__all__ = [
    "Call",
    "Caller",
    "Carried",
    "GivenUp",
    "Grant",
    "Handle",
    "Holder",
    "OpaqueValue",
    "Owner",
    "Visit",
    "Waiter",
    "Waiters",
    "at",
    "call",
    "carry",
    "referent",
    "touch",
    "visit",
]


R = TypeVar("R")


class Steps(Protocol):
    """What the engine offers to the step under way."""

    def draw(self, n: int) -> bytes: ...
    def next_token(self) -> int: ...
    def next_order(self) -> int: ...
    def resolve(self, waiter: Waiter, value: object) -> None: ...
    def moved(self, waiter: Waiter) -> None: ...
    def title(self, target: int) -> str: ...
    def taken(self, step: Call, number: int | None) -> str: ...
    def set_alarm(self, target: int, time: float | None) -> None: ...
    def touch(self, target: int, key: object) -> None: ...


class Holder(NamedTuple):
    """Tell who holds something, as ``holders()`` of a hosted class does.

    Attributes:
        owner: Whose it is: a session, or one thread or task of it.
        caller: How people are told of them.
        since: Since when, in the engine's time.
        number: The number of the grant; 0 where there is none, so that it cannot be taken away.
        more: What else is to be told, such as what it is held for.
    """

    owner: Owner
    caller: Caller
    since: float
    number: int
    more: Mapping[str, object] = {}

    def row(self, **more: object) -> dict[str, object]:
        """Return the holder as statistics tell it: host, pid, command, thread, label, since and token, and `more`."""
        return {**self.caller._asdict(), "since": self.since, "token": self.number or None, **self.more, **more}


class Call(msgspec.Struct, eq=False):
    """The step under way, as the hosted object may see it.

    A read that looks at any of this is answered but never cached, since its answer depends on who asks and
    when.

    Attributes:
        session: The calling session, as an owner that covers all its threads and tasks.
        owner: The calling thread or task.
        now: The engine's time in seconds since 1970. It never runs backwards, and stands still within a step.
        caller: Who calls, for people: host, pid, command, and the thread if it is not the main one.
        lost: In a method that gives back: why another grant that the call relies on is lost, if one is. Nothing but
            giving back may happen then.
    """

    _steps: Steps
    _now: float
    _session: int
    _number: int
    _caller: Caller
    target: int
    seq: int
    looked: bool = False
    parked: Waiter | None = None
    lost: LockLost | None = None

    @property
    def session(self) -> Owner:
        self.looked = True
        return Owner(self._session, 0)

    @property
    def owner(self) -> Owner:
        self.looked = True
        return Owner(self._session, self._number)

    @property
    def now(self) -> float:
        self.looked = True
        return self._now

    @property
    def caller(self) -> Caller:
        self.looked = True
        return self._caller

    @property
    def title(self) -> str:
        """The object under way, as errors write it: ``lock:login``."""
        return self._steps.title(self.target)

    def taken(self, number: int | None = None) -> str:
        """Tell why a grant of this object was taken from the caller by force, so that it can be raised as `LockLost`.

        Args:
            number: The number of the grant; None for one that the caller has not been told of.

        Returns:
            The reason, which counts as told; empty if there was no such grant.
        """
        return self._steps.taken(self, number)

    def random(self, n: int) -> bytes:
        """Return `n` bytes hashed from the seed of the epoch and the event, the same at every replay."""
        self.looked = True
        return self._steps.draw(n)

    def token(self) -> int:
        """Return the next fencing token. Tokens come from one counter of the whole engine, and only grow."""
        self.looked = True
        return self._steps.next_token()


class Waiter:
    """A call that waits. It ends by `Waiters.wake`, at its deadline, by a cancel, or with its session.

    Attributes:
        owner: Who waits.
        caller: Who waits, for people.
        since: When it began, in the engine's time.
        deadline: When it ends by itself, in the engine's time; None waits.
        late: The reply at the deadline, as `encode_reply` makes it.
        away: Whether it is passed over, since its process has no connection; see ``came_back``.
    """

    __slots__ = ("away", "caller", "deadline", "home", "late", "number", "owner", "seq", "since", "target")

    def __init__(
        self,
        number: int,
        owner: Owner,
        caller: Caller,
        seq: int,
        target: int,
        since: float,
        deadline: float | None,
        late: tuple[bool, bytes],
    ) -> None:
        self.number = number
        self.owner = owner
        self.caller = caller
        self.seq = seq
        self.target = target
        self.since = since
        self.deadline = deadline
        self.late = late
        self.away = False
        self.home: Waiters | None = None

    def row(self, **more: object) -> dict[str, object]:
        """Return the waiter as statistics tell it: host, pid, command, thread, label, since, deadline, and `more`."""
        return {**self.caller._asdict(), "since": self.since, "deadline": self.deadline, **more}

    @property
    def otherwise(self) -> object:
        """The reply at the deadline, kept encoded: later changes of a value that was given stay out."""
        return _codec.decode(self.late[1])

    @otherwise.setter
    def otherwise(self, value: object) -> None:
        self.late = encode_reply(value)


class Waiters:
    """The calls that wait for one thing, first come, first served.

    Keep it as an attribute of the hosted object: it is part of the object's state.
    """

    __slots__ = ("_queue",)

    def __init__(self) -> None:
        self._queue: dict[int, Waiter] = {}

    def wait(self, timeout: float | None = None, *, otherwise: object = None) -> R:  # type: ignore[type-var]
        """Make the call under way wait. The method must return what this returns, a `Waiter`.

        For type checkers it is whatever the method gives to its callers, which is what `wake` is given: so that the
        method is annotated with that, ``def take(self) -> int``.

        Args:
            timeout: Seconds until the call ends by itself. None waits until woken.
            otherwise: The reply at the deadline; an exception instance is raised in the caller.

        Raises:
            ValueError: The timeout is not a number.
            NotShareable: The reply at the deadline cannot cross.
            RuntimeError: The call waits already, or this is no call of a method, so that nobody would wait.
        """
        step = call()
        if step.parked is not None:
            raise RuntimeError("a call can wait for one thing only")
        number = step._steps.next_order()
        if not step.seq:
            raise RuntimeError("only a method that a client has called can wait")
        now = step._now
        seconds = inf if timeout is None else float(timeout)
        if isnan(seconds):
            raise ValueError(f"timeout must be a number of seconds, not {timeout!r}")
        deadline = None if seconds == inf else now + max(0.0, seconds)
        late = encode_reply(otherwise)
        waiter = Waiter(
            number, Owner(step._session, step._number), step._caller, step.seq, step.target, now, deadline, late
        )
        self._admit(waiter)
        step.parked = waiter
        return waiter  # type: ignore[return-value]

    def wake(self, value: object = None) -> Waiter | None:
        """End the longest wait with `value` as its reply. Return the waiter, or None where nobody in reach waited."""
        waiter = self.first
        if waiter is not None:
            call()._steps.resolve(waiter, value)
        return waiter

    def wake_all(self, value: object = None) -> int:
        """End every wait with `value`, also of those out of reach. Return how many there were."""
        steps = call()._steps
        waiting = list(self._queue.values())
        for waiter in waiting:
            steps.resolve(waiter, value)
        return len(waiting)

    def adopt(self, waiter: Waiter) -> None:
        """Take a waiter out of the line in which it waits, and to the end of this one; its call waits on."""
        if waiter.home is not None:
            waiter.home._dismiss(waiter)
        self._admit(waiter)
        call()._steps.moved(waiter)

    @property
    def first(self) -> Waiter | None:
        """Who has waited longest of those who are in reach, without waking it."""
        for waiter in self._queue.values():
            if not waiter.away:
                return waiter
        return None

    def __iter__(self) -> Iterator[Waiter]:
        return iter(list(self._queue.values()))

    def __len__(self) -> int:
        return len(self._queue)

    def _admit(self, waiter: Waiter) -> None:
        self._queue[waiter.number] = waiter
        waiter.home = self

    def _dismiss(self, waiter: Waiter) -> None:
        self._queue.pop(waiter.number, None)
        waiter.home = None


_current: ContextVar[Call | None] = ContextVar("registry.hosting.current", default=None)


def call() -> Call:
    """Return the step under way.

    Raises:
        RuntimeError: Outside a step, where there is no caller and no time.
    """
    step = _current.get()
    if step is None:
        raise RuntimeError(
            "hosting.call() works only inside a method that the engine runs; "
            'to try a class without a server, open it on connect("memory://")'
        )
    return step


class GivenUp(Exception):
    """Raised inside a visit that nobody waits for any more; there is nobody who could be told of it."""


class VisitLine(Protocol):
    """Where visits come from; `ended` is whether their process has ended."""

    @property
    def ended(self) -> bool: ...
    def watch(self, visit: Visit) -> None: ...
    def unwatch(self, visit: Visit) -> None: ...


class Visit:
    """A call that a thread of a private server makes for a client.

    Attributes:
        owner: The calling thread of the process; ``owner.session`` is the number of that process.
        caller: Who calls, for people.
        given_up: Whether nobody waits for the reply any more: the process has ended, its thread was interrupted, or it
            has closed its connection. What is held from then on is held by nobody.
    """

    __slots__ = ("_given_up", "_line", "_undo", "_wake", "caller", "owner")

    def __init__(self, owner: Owner, caller: Caller, line: VisitLine) -> None:
        self.owner = owner
        self.caller = caller
        self._line = line
        self._given_up = False
        self._wake: Callable[[], object] | None = None
        self._undo: Callable[[], object] | None = None

    @property
    def given_up(self) -> bool:
        return self._given_up or self._line.ended

    @property
    def ended(self) -> bool:
        """Whether the calling process has ended."""
        return self._line.ended

    @property
    def process(self) -> Owner:
        """The calling process, as an owner that covers all its threads."""
        return Owner(self.owner.session, 0)

    @contextmanager
    def waiting(self, wake: Callable[[], object]) -> Iterator[None]:
        """Have `wake` called once the visit is given up, which it may be already; for the time of a ``with`` block.

        Args:
            wake: Ends the wait in the block. It may be called on any thread, and after the wait has ended.
        """
        self._wake = wake
        self._line.watch(self)
        try:
            if self.given_up:
                wake()
            yield
        finally:
            self._wake = None
            self._line.unwatch(self)

    def unless_delivered(self, undo: Callable[[], object]) -> None:
        """Have `undo` called if the result of this visit does not reach its caller: the item goes to the front."""
        self._undo = undo

    def _give_up(self) -> None:
        self._given_up = True
        wake = self._wake
        if wake is not None:
            wake()

    def _not_delivered(self) -> None:
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()


_visit: ContextVar[Visit | None] = ContextVar("registry.hosting.visit", default=None)


def visit() -> Visit:
    """Return the visit that this thread makes.

    Raises:
        RuntimeError: This thread makes none.
    """
    found = _visit.get()
    if found is None:
        raise RuntimeError("hosting.visit() works only where a private server calls an object, see registry.Manager")
    return found


def referent(proxy: Any) -> Any:
    """Return the object of this private server that a proxy stands for; anything else as it is.

    Whoever keeps the object keeps the proxy, too, which is the reference to it.
    """
    return getattr(getattr(proxy, "_callmethod", None), "referent", proxy)


def carry(value: object) -> Carried:
    """Return `value` as a parameter declared *carried* would have brought it, for values that came decoded.

    Raises:
        NotShareable: No typed encoding fits it.
    """
    return value if isinstance(value, Carried) else _codec.carry(value)


def at(time: float | None) -> None:
    """Ask the engine to call ``due(now)`` of this object at `time`, as `Call.now` counts it.

    An object has one such alarm: a later call replaces it, None takes it back. One for a time that has come
    is called with the next event, and not again before time has gone on.

    Raises:
        ValueError: The time is not a number.
    """
    step = call()
    if time is not None:
        time = float(time)
        if isnan(time):
            raise ValueError("the time of an alarm must be a number")
    step._steps.set_alarm(step.target, None if time == inf else time)


def touch(*keys: object) -> None:
    """Name keys that this step changes besides the first argument of a method declared *keyed*.

    What clients have cached of these keys is asked for again. Elsewhere it says nothing new: any other step that is no
    read counts as a change of all keys.
    """
    step = call()
    for key in keys:
        step._steps.touch(step.target, key)


def encode_reply(value: object) -> tuple[bool, bytes]:
    """Return whether a reply is an error, and its encoding; an exception instance is one.

    Raises:
        NotShareable: It cannot cross.
    """
    if isinstance(value, BaseException):
        return True, _codec.encode_exception(value)
    return False, _codec.canonical(value)  # it is state, so the order of a set must not show
