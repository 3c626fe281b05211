"""Small hosted classes that do what classes of users may do, and stories of events to feed engines with.

A story is made of numbers, so that Hypothesis can shrink it, and so that two processes can make the same one.
``python hosted_classes.py`` prints what comes out of a few hundred of them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import msgspec

from registry import SharedObject, _codec, _image
from registry._engine import Engine
from registry._events import (
    Advance,
    Begin,
    Call,
    Cancel,
    Create,
    Event,
    Open,
    Output,
    OwnerEnded,
    Resumed,
    SessionEnded,
    Suspended,
)
from registry._wire import DELETE
from registry.hosting import Owner, Waiters, at, call
from registry_containers import COUNTER, DICT
from registry_queues import QUEUE
from registry_sync import BARRIER, CONDITION, EVENT, LOCK, RLOCK, RWLOCK, SEMAPHORE

START = 1_000_000.0


class Odd:
    """Breaks off, draws, and returns what cannot cross."""

    def __init__(self, start: int = 0) -> None:
        self.notes: list[object] = [start]

    def note(self, value: object) -> int:
        self.notes.append(value)
        return len(self.notes)

    def half(self, value: object) -> None:
        self.notes.append(value)
        raise ValueError("half done")

    def own_error(self) -> None:
        raise type("Own", (Exception,), {})("mine")

    def draw(self) -> list[object]:
        step = call()
        drawn = [step.random(8).hex(), step.random(70).hex(), step.now, step.token(), str(step.caller), step.title]
        self.notes.append(drawn)
        return drawn

    def who(self) -> list[object]:
        return [tuple(call().owner), tuple(call().session), call().random(4), call().now]

    def uncrossable(self) -> object:
        self.notes.append("done")
        return object()

    def refused_inside(self) -> None:
        from registry.hosting import carry

        carry(object())

    def give(self, value: object) -> object:
        return value

    def error_as_a_value(self) -> object:
        return ValueError("a value")

    def numbers(self) -> list[object]:
        return self.notes

    def __iter__(self) -> Any:
        return iter(self.notes)

    def too_deep(self) -> None:
        self.notes.append("went down")
        self.too_deep()

    def exhaust(self) -> None:
        raise MemoryError

    def leave(self) -> None:
        raise SystemExit(3)

    def interrupt(self) -> None:
        raise KeyboardInterrupt

    def sly_token(self) -> int:
        return call().token()

    def sly_alarm(self) -> None:
        at(START)


class Gate:
    """Waits in all the ways in which a method can."""

    def __init__(self) -> None:
        self.waiters = Waiters()
        self.lines: dict[str, Waiters] = {}
        self.seen: list[object] = []
        self.back: list[object] = []
        self.late: list[object] = ["late"]

    def pass_through(self, timeout: float | None = None, otherwise: object = None) -> Any:
        return self.waiters.wait(timeout, otherwise=otherwise)

    def pass_late(self, timeout: float) -> Any:
        return self.waiters.wait(timeout, otherwise=self.late)

    def pass_or_fail(self, timeout: float) -> Any:
        return self.waiters.wait(timeout, otherwise=KeyError("too late"))

    def pass_line(self, name: str, timeout: float | None = None) -> Any:
        return self.lines.setdefault(name, Waiters()).wait(timeout, otherwise=name)

    def drop_line(self, name: str) -> None:
        self.lines.pop(name, None)

    def undeclared(self) -> Any:
        return self.waiters.wait()

    def open_one(self, value: object = True) -> bool:
        self.late.append(value)
        return self.waiters.wake(value) is not None

    def open_all(self, value: object = True) -> int:
        return self.waiters.wake_all(value)

    def fail_all(self) -> int:
        return self.waiters.wake_all(LookupError("closed"))

    def uncrossable_all(self) -> int:
        return self.waiters.wake_all(object())

    def through_at_once(self, value: object) -> Any:
        waiter = self.waiters.wait(5)
        self.waiters.wake_all(value)
        return waiter

    def through_then_raise(self) -> Any:
        self.waiters.wait(5)
        self.waiters.wake_all("first")
        raise ValueError("second")

    def wait_then_raise(self) -> Any:
        self.waiters.wait(5)
        raise ValueError("did not wait")

    def wait_then_return(self) -> Any:
        self.waiters.wait(5)
        return "did not wait"

    def wait_twice(self) -> Any:
        self.waiters.wait(5)
        return self.waiters.wait(5)

    def return_another(self) -> Any:
        return self.waiters.first

    def waiting(self) -> list[str]:
        return [str(waiter.caller) for waiter in self.waiters]

    def sly_wait(self) -> Any:
        return self.waiters.wait(1)

    def sly_wake(self) -> Any:
        return self.waiters.wake(1)

    def owner_ended(self, owner: Owner) -> None:
        self.seen.append(tuple(owner))
        self.waiters.wake(["ended", tuple(owner)])

    def take_back(self, value: object) -> bool:
        self.back.append(value)
        return value != "keep"


class Timer:
    """Is called by the clock."""

    def __init__(self, first: float | None = None) -> None:
        self.rings: list[float] = []
        self.period: float | None = None
        self.waiters = Waiters()
        if first is not None:
            at(call().now + first)

    def every(self, period: float) -> None:
        self.period = period
        at(call().now + period)

    def once(self, delay: float) -> None:
        self.period = None
        at(call().now + delay)

    def never(self) -> None:
        at(None)

    def next_ring(self, timeout: float | None = None) -> Any:
        return self.waiters.wait(timeout, otherwise="no ring")

    def due(self, now: float) -> None:
        self.rings.append(now)
        del self.rings[:-5]
        self.waiters.wake_all(now)
        if self.period is not None:
            at(now + self.period)

    def rung(self) -> list[float]:
        return self.rings


class Broken:
    """Raises where nobody is there to be told."""

    def __init__(self) -> None:
        self.waiters = Waiters()
        self.breaks = ""

    def set(self, what: str) -> None:
        self.breaks = what
        if what == "due":
            at(call().now + 1)

    def pass_through(self) -> Any:
        return self.waiters.wait()

    def grant(self) -> Any:
        return "granted"

    def owner_ended(self, owner: Owner) -> None:
        if self.breaks == "owner_ended":
            raise ZeroDivisionError

    def take_back(self, value: object) -> bool:
        if self.breaks == "take_back":
            raise SystemExit
        return True

    def due(self, now: float) -> None:
        raise ZeroDivisionError

    def vacant(self) -> bool:
        if self.breaks == "vacant":
            raise ZeroDivisionError
        return False


@attrs.define
class Scratch:
    """Belongs to the session that made it."""

    lines: list[str] = attrs.Factory(list)
    waiters: Waiters = attrs.Factory(Waiters)

    def write(self, line: str) -> int:
        self.lines.append(line)
        return len(self.lines)

    def read(self) -> list[str]:
        return self.lines

    def await_more(self) -> Any:
        return self.waiters.wait()


ODD = SharedObject("odd", Odd, readonly=("numbers", "who", "sly_token", "sly_alarm"))
GATE = SharedObject(
    "gate",
    Gate,
    readonly=("sly_wait", "sly_wake"),
    waiting=(
        "pass_through",
        "pass_late",
        "pass_or_fail",
        "pass_line",
        "through_at_once",
        "through_then_raise",
        "wait_then_raise",
        "wait_then_return",
        "wait_twice",
    ),
)
TIMER = SharedObject("timer", Timer, readonly=("rung",), waiting=("next_ring",))
BROKEN = SharedObject("broken", Broken, waiting=("pass_through", "grant"))
SCRATCH = SharedObject("scratch", Scratch, per="call", readonly=("read",), waiting=("await_more",))
PLAIN = SharedObject("plain", dict)

DECLARATIONS: dict[str, SharedObject[Any]] = {
    declaration.typeid: declaration
    for declaration in (
        *(ODD, GATE, TIMER, BROKEN, SCRATCH, PLAIN),
        *(DICT, COUNTER, QUEUE, LOCK, RLOCK),
        *(RWLOCK, SEMAPHORE, CONDITION, BARRIER, EVENT),
    )
}

# What stories call: typeid, method, arguments.
CALLS: list[tuple[str, str, tuple[Any, ...]]] = [
    ("odd", "note", ({"a": [1, {2, 3}]},)),
    ("odd", "half", (1,)),
    ("odd", "own_error", ()),
    ("odd", "draw", ()),
    ("odd", "uncrossable", ()),
    ("odd", "leave", ()),
    ("odd", "__iter__", ()),
    ("odd", "_private", ()),
    ("gate", "pass_through", ()),
    ("gate", "pass_through", (2.0, {"x", "y"})),
    ("gate", "pass_through", (0.0,)),
    ("gate", "pass_late", (1.0,)),
    ("gate", "pass_or_fail", (0.5,)),
    ("gate", "pass_line", ("a", 1.5)),
    ("gate", "drop_line", ("a",)),
    ("gate", "undeclared", ()),
    ("gate", "open_one", ("keep",)),
    ("gate", "open_one", ()),
    ("gate", "open_all", ((1, {2, 3}),)),
    ("gate", "fail_all", ()),
    ("gate", "uncrossable_all", ()),
    ("gate", "through_at_once", (7,)),
    ("gate", "through_then_raise", ()),
    ("gate", "wait_then_raise", ()),
    ("gate", "wait_then_return", ()),
    ("gate", "wait_twice", ()),
    ("gate", "return_another", ()),
    ("gate", "waiting", ()),
    ("timer", "every", (0.75,)),
    ("timer", "every", (0.0,)),
    ("timer", "once", (1.0,)),
    ("timer", "never", ()),
    ("timer", "next_ring", (3.0,)),
    ("broken", "set", ("owner_ended",)),
    ("broken", "set", ("take_back",)),
    ("broken", "set", ("vacant",)),
    ("broken", "set", ("due",)),
    ("broken", "pass_through", ()),
    ("broken", "grant", ()),
    ("scratch", "write", ("line",)),
    ("scratch", "await_more", ()),
    ("plain", "__setitem__", ("k", {3, 1, 2})),
    ("plain", "popitem", ()),
    ("nowhere", "look", ()),
    ("dict", "__setitem__", ("k", {1, 2})),
    ("dict", "__setitem__", (None, 1.5)),
    ("dict", "edit", ("k",)),
    ("dict", "edit", ("k", 2)),
    ("dict", "pop", ("k",)),
    ("counter", "incr", ()),
    ("queue", "put", ("item",)),
    ("queue", "put", (("a", "b"), True, 2.0)),
    ("queue", "get", ()),
    ("queue", "get", (True, 1.0)),
    ("lock", "acquire", ()),
    ("lock", "acquire", (True, 1.0)),
    ("lock", "acquire", (False,)),
    ("lock", "release", ()),
    ("rlock", "acquire", ()),
    ("rlock", "acquire", (True, 2.0)),
    ("rlock", "release", ()),
    ("queue", "claim", ()),
    ("rwlock", "read", ()),
    ("rwlock", "write", (True, 2.0)),
    ("rwlock", "write", ()),
    ("rwlock", "release", ()),
    ("semaphore", "acquire", (True, 1.0)),
    ("semaphore", "acquire", ()),
    ("semaphore", "release", ()),
    ("condition", "acquire", ()),
    ("condition", "wait_for", (1.5, True)),
    ("condition", "wait", ()),
    ("condition", "notify", ()),
    ("condition", "release", ()),
    ("barrier", "wait", (1.0,)),
    ("barrier", "reset", ()),
    ("event", "wait", (1.0,)),
    ("event", "set", ()),
]
DEFINITIONS = {"barrier": (2,), "queue": (1,), "timer": (1.25,), "odd": (5,)}

Step = tuple[int, int, int]


def story(steps: Iterable[Step]) -> list[Event]:
    """Make the events of three clients, none of which behaves well."""
    events: list[Event] = [Begin(now=START, epoch=3, seed=b"seed")]
    now, opened = START, 0
    sessions: dict[int, int] = {}
    calls: dict[int, list[Call]] = {}

    def session(slot: int) -> int:
        nonlocal opened
        if slot not in sessions:
            opened += 1
            events.append(Open(now=now, key=opened.to_bytes(16, "big"), label=f"client {slot}", domain=""))
            sessions[slot] = opened
            calls[opened] = []
        return sessions[slot]

    for kind, a, b in steps:
        number = session(b % 3)
        made = calls[number]
        owner = b // 3 % 2 + 1
        if kind <= 8:
            typeid, method, args = CALLS[a % len(CALLS)]
            seq = len(made) + 1
            if kind == 8:
                method = DELETE
            received = {1: seq - 1, 2: max(0, seq - 4)}.get(b // 6 % 5, 0)
            above = ((seq - 1, seq - 1),) if seq > 1 and b // 6 % 5 == 3 else ()
            definition = _codec.encode_arguments(DEFINITIONS.get(typeid, ()), {})
            create = Create(
                now=now,
                session=number,
                seq=seq,
                owner=owner,
                typeid=typeid,
                name="x",
                arguments=definition,
            )
            made.append(
                Call(
                    now=now,
                    session=number,
                    seq=seq,
                    owner=owner,
                    typeid=typeid,
                    name="x",
                    method=method,
                    arguments=_codec.encode_arguments(args, {}, _carried(typeid, method) if kind != 8 else None),
                    received=received,
                    above=above,
                    grants=(("lock", "x", (3 << 40) + 1),) if b // 6 % 5 == 4 else (),
                )
            )
            events += [create, made[-1]]
        elif kind == 9 and made:
            again = made[a % len(made)]
            remaining = (None, 0.0, 0.5, 2.0)[b // 6 % 4]
            events.append(msgspec.structs.replace(again, now=now, remaining=remaining))
        elif kind == 10:
            seq = max(1, len(made) + 2 - a % 6)
            events.append(Cancel(now=now, session=number, seq=seq, undo=bool(b // 6 % 2)))
        elif kind == 11:
            events.append(OwnerEnded(now=now, session=number, owner=owner))
        elif kind == 12:
            events.append(SessionEnded(now=now, session=number, received=a % 4))
            del sessions[b % 3]
        elif kind == 13 and a % 3:
            events.append((Suspended if a % 3 == 1 else Resumed)(now=now, session=number))
        else:
            now += (0.0, 0.25, 1.0, 3.0, -1.0)[a % 5]
            events.append(Advance(now=now))
    return events


def _carried(typeid: str, method: str) -> Any:
    declaration = DECLARATIONS.get(typeid)
    return declaration.interface.carried.get(method) if declaration is not None else None


def feed(engine: Engine, events: Sequence[Event]) -> list[Output]:
    """Feed an engine, and return everything that came out."""
    return [output for event in events for output in engine.step(event)]


def random_steps(seed: int, length: int = 80) -> list[Step]:
    """Return the steps of a story, the same for the same seed."""
    draw = random.Random(seed)
    return [(draw.randrange(15), draw.randrange(200), draw.randrange(60)) for _ in range(length)]


def main() -> None:
    """Print a digest of what comes out of many stories, and of the states in which they end."""
    digest = hashlib.sha256()
    for seed in range(150):
        engine = Engine(DECLARATIONS)
        for output in feed(engine, story(random_steps(seed))):
            digest.update(repr(output).encode())
        digest.update(_image.capture(engine))
    print(digest.hexdigest())


if __name__ == "__main__":
    main()
