"""Hosted classes that must not be served with a log, each for a reason of its own, and some that may.

They stand in a module by themselves, so that other interpreters can import them.
"""

from __future__ import annotations

import datetime
import functools
import logging
import os
import random
import secrets
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import attrs

from registry import SharedObject, hosting
from registry.hosting import Owner, Waiter, Waiters


class Tags:
    """Keeps sets, and asks for their order."""

    def __init__(self) -> None:
        self.tags: set[str] = set()
        self.numbers: set[int] = set()
        self.groups: dict[str, set[str]] = {}

    def add(self, tag: str, number: int) -> None:
        self.tags.add(tag)
        self.numbers.add(number)
        self.groups.setdefault("all", set()).add(tag)

    def loop(self) -> list[str]:
        found = []
        for tag in self.tags:
            found.append(tag)
        return found

    def listed(self) -> list[int]:
        sorted(self.numbers)
        return list(self.numbers)

    def take(self) -> str | None:
        return self.tags.pop() if self.tags else None

    def first_of_group(self) -> str:
        return next(iter(self.groups["all"]))

    def text(self) -> str:
        return f"{self.numbers}"

    def local(self, first: str, second: str, third: str) -> list[str]:
        chosen = {first, second, third}
        return [tag.upper() for tag in chosen]

    def helped(self, first: str, second: str, third: str) -> str:
        return self._joined([first, second, third])

    def _joined(self, tags: list[str]) -> str:
        return ",".join(set(tags))


class Reader:
    """Looks at the world outside; each method in another way."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def clock(self) -> float:
        return time.time()

    def quietly(self) -> None:
        self.seen.append(time.monotonic())

    def today(self) -> str:
        return datetime.date.today().isoformat()

    def now(self) -> datetime.datetime:
        return datetime.datetime.now(datetime.timezone.utc)

    def local_time(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(hosting.call().now)

    def dice(self) -> int:
        return random.randint(1, 6)

    def token(self) -> str:
        return secrets.token_hex(8)

    def bytes(self) -> bytes:
        return os.urandom(4)

    def id4(self) -> str:
        return str(uuid.uuid4())

    def id1(self) -> str:
        return str(uuid.uuid1())

    def environment(self) -> str:
        return os.environ.get("HOME", "")

    def pid(self) -> int:
        return os.getpid()

    def file(self) -> int:
        with open(os.devnull) as nothing:
            return len(nothing.read())

    def sleep(self) -> None:
        time.sleep(0)

    def thread(self) -> None:
        worker = threading.Thread(target=int)
        worker.start()
        worker.join()

    def hashed(self, text: str) -> int:
        return hash(text)

    def identity(self) -> int:
        return id(self.seen)

    def deep(self) -> float:
        return _helper(time.perf_counter)


def _helper(function: Callable[[], float]) -> float:
    return function()


class Alarmed:
    """Reads a clock where no client calls it."""

    def __init__(self) -> None:
        self.rings: list[float] = []
        self.ends: list[float] = []

    def ring(self, delay: float) -> None:
        hosting.at(hosting.call().now + delay)

    def due(self, now: float) -> None:
        self.rings.append(time.time())

    def owner_ended(self, owner: Owner) -> None:
        self.ends.append(time.time())


@attrs.define
class Born:
    """Knows when it was made, by the wrong clock."""

    since: float = attrs.field(factory=time.time)

    def age(self) -> float:
        return hosting.call().now - self.since


@attrs.define(slots=False)
class Forgetful:
    """Has attributes that are no fields."""

    total: int = 0

    def add(self, number: int) -> None:
        self.total += number
        self.last = number

    def get(self) -> int:
        return self.total


class Partial:
    """Tells not all of its state."""

    def __init__(self) -> None:
        self.items: list[str] = []
        self.count = 0

    def put(self, item: str) -> int:
        self.items.append(item)
        self.count += 1
        return self.count

    def state(self) -> object:
        return {"items": self.items}

    def load(self, state: dict[str, list[str]]) -> None:
        self.items = state["items"]


class Twisted:
    """Does not take back what it told."""

    def __init__(self) -> None:
        self.items: list[str] = []

    def put(self, item: str) -> None:
        self.items.append(item)

    def state(self) -> object:
        return {"items": self.items}

    def load(self, state: dict[str, list[str]]) -> None:
        self.items = state["items"][::-1]


class Unloadable(Twisted):
    """Refuses what it told."""

    def load(self, state: dict[str, list[str]]) -> None:
        raise LookupError("not this")


class Overfull:
    """Takes in what cannot be told."""

    def __init__(self) -> None:
        self.last: object = None

    def keep(self, number: int) -> None:
        self.last = object()


class Peeked:
    """Counts its reads."""

    def __init__(self) -> None:
        self.items: dict[str, int] = {}
        self.reads = 0

    def put(self, key: str, value: int) -> None:
        self.items[key] = value

    def get(self, key: str) -> int | None:
        self.reads += 1
        return self.items.get(key)


class Common:
    """Keeps its state where no snapshot sees it."""

    shared: list[str] = []  # noqa: RUF012 - that is what is wrong with it

    def put(self, item: str) -> int:
        self.shared.append(item)
        return len(self.shared)


MEMO: dict[str, int] = {}


class Memo:
    """Remembers in its module what came first; within one process every engine finds the same."""

    def __init__(self) -> None:
        self.calls = 0

    def number(self, word: str) -> int:
        return MEMO.setdefault(word, len(MEMO))


@dataclass
class Note:
    """What a dataclass makes by itself, at the time that it happens to be."""

    text: str
    written: datetime.datetime = field(default_factory=datetime.datetime.now)


class Notes:
    """Keeps texts with their times."""

    def __init__(self) -> None:
        self.notes: list[object] = []

    def write(self, text: str) -> None:
        note = Note(text)
        self.notes.append([note.text, note.written])


class Generous:
    """Gives away what only a process of its own can use."""

    def give(self) -> list[object]:
        return [object()]


class Innocent:
    """Has sets, dates and random numbers, and uses them as it may."""

    def __init__(self) -> None:
        self.tags: set[str] = set()
        self.numbers: set[int] = set()
        self.order: dict[str, None] = {}
        self.log: deque[object] = deque(maxlen=3)
        self.waiters = Waiters()

    def add(self, tag: str, number: int) -> None:
        self.tags |= {tag}
        self.numbers.add(number)
        self.order[tag] = None

    def remove(self, tag: str) -> None:
        self.tags.remove(tag)

    def ask(self, tag: str, number: int) -> tuple[bool, bool, int]:
        return tag in self.tags, number in self.numbers, len(self.tags)

    def ordered(self) -> list[str]:
        return sorted(self.tags)

    def bounds(self) -> tuple[int, int, bool]:
        return min(self.numbers), sum(self.numbers), any(number > 2 for number in self.numbers)

    def everything(self) -> set[str]:
        return self.tags

    def both(self, others: set[str]) -> set[str]:
        return self.tags & others

    def in_order(self) -> list[str]:
        return list(self.order)

    def stamp(self) -> datetime.datetime:
        self.log.append(hosting.call().now)
        return datetime.datetime.fromtimestamp(hosting.call().now, datetime.timezone.utc)

    def draw(self) -> tuple[bytes, int, str]:
        step = hosting.call()
        lot = random.Random(step.random(16))
        return step.random(4), lot.randrange(1000), str(uuid.UUID(bytes=step.random(16), version=4))

    def log_line(self) -> None:
        logging.getLogger("checked").warning("a line with a time in it")

    def imports(self) -> int:
        import colorsys

        return len(colorsys.__all__)

    def lookup(self, key: str) -> int:
        return {(key, 1): 2}[key, hash(1)]

    def wait(self, timeout: float | None = None) -> Waiter:
        return self.waiters.wait(timeout, otherwise=False)

    def wake(self) -> int:
        return self.waiters.wake_all(True)

    def fails(self) -> None:
        raise type("Own", (Exception,), {})("mine")


@dataclass
class Record:
    """A dataclass that makes an index of its rows when it is asked for one."""

    rows: list[str] = field(default_factory=list)

    def put(self, row: str) -> None:
        self.rows.append(row)
        vars(self).pop("index", None)

    @functools.cached_property
    def index(self) -> dict[str, int]:
        return {row: place for place, row in enumerate(self.rows)}

    def find(self, row: str) -> int | None:
        return self.index.get(row)


class Derived:
    """Tells its rows, and makes a table of them again when it needs one."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self.table: dict[str, int] | None = None

    def put(self, row: str) -> None:
        self.rows.append(row)
        self.table = None

    def find(self, row: str) -> int | None:
        if self.table is None:
            self.table = {row: place for place, row in enumerate(self.rows)}
        return self.table.get(row)

    def state(self) -> object:
        return self.rows

    def load(self, state: list[str]) -> None:
        self.rows = state


def declare(cls: type, **options: Any) -> SharedObject[Any]:
    """Declare a class by its own name."""
    return SharedObject(cls.__name__.lower(), cls, **options)


LAMBDA = SharedObject("lambda_", lambda: Tags(), exposed=("add", "loop"))
