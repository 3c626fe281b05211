"""Signal handlers that raise, at any place in a call, and what is left afterwards.

An exception of a handler may come between any two instructions. Where that is in the program's own code, the program
alone can know what it had got; so the handler waits until it finds itself inside a call.
"""

from __future__ import annotations

import random
import signal
from typing import Any

from servers import KEY, THINGS, Served, another

from registry import connect
from torture.nursery import Line, Nursery

LOCKS = ("a", "b", "c")
ITEMS = 64


class Interrupt(TimeoutError):
    """What a handler of SIGALRM likes to raise."""


class Alarm:
    """Raise `Interrupt` in the middle of what comes next.

    Attributes:
        raised: How often it has.
        where: In which functions, by name, how often.
    """

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._armed = False
        self.raised = 0
        self.where: dict[str, int] = {}
        signal.signal(signal.SIGALRM, self._ring)

    def set(self) -> None:
        """Let it ring soon."""
        self._armed = True
        signal.setitimer(signal.ITIMER_REAL, self._draw.uniform(0.00002, 0.0006))

    def stop(self) -> None:
        """Let it not ring any more."""
        self._armed = False

    def _ring(self, number: int, frame: Any) -> None:
        if not self._armed:
            return
        if frame.f_code.co_filename == __file__:
            signal.setitimer(signal.ITIMER_REAL, 0.00002)
            return
        self._armed = False
        self.raised += 1
        name = frame.f_code.co_name
        if name in ("__enter__", "__exit__"):
            name = f"{frame.f_code.co_qualname if hasattr(frame.f_code, 'co_qualname') else name} at {frame.f_lasti}"
        self.where[name] = self.where.get(name, 0) + 1
        raise Interrupt


class Victim:
    """A process whose calls are interrupted, and what it knows.

    Attributes:
        wrong: What it was told that cannot be.
        sure: Items that it put and was told so; `unsure`: that it may have put.
        got: Items that it got; `maybe_done`: whose claims it may have ended.
    """

    def __init__(self, url: str, seed: int) -> None:
        self.alarm = Alarm(seed)
        self.client = connect(url, KEY)
        self.wrong: list[str] = []
        self.counted = self.maybe_counted = 0
        self.number = 0
        self.sure: list[int] = []
        self.unsure: list[int] = []
        self.got: list[int] = []
        self.maybe_done: list[int] = []
        self.values: set[Any] = {None}
        self.blocks = self.entered = 0
        self.edited: list[int] = []
        self.maybe_edited: list[int] = []
        self.client.dict("d")["e"] = []

    def run(self, interrupts: int) -> None:
        """Call one thing after the other until so many calls were interrupted."""
        deeds = (
            self.count,
            self.write,
            self.read,
            self.put,
            self.get,
            self.get_nowait,
            self.claim,
            self.block,
            self.granted,
            self.edit,
        )
        turn = 0
        try:
            while self.alarm.raised < interrupts and len(self.wrong) < 10:
                deeds[turn % len(deeds)]()
                turn += 1
        finally:
            self.alarm.stop()

    def count(self) -> None:
        """Increment a counter: told or not, once at most."""
        counter = self.client.counter("c")
        try:
            self.alarm.set()
            value = counter.incr()
            self.alarm.stop()
        except Interrupt:
            self.maybe_counted += 1
            return
        self.counted += 1
        if not self.counted <= value <= self.counted + self.maybe_counted:
            self.wrong.append(f"counted to {value}, which is none of {self.counted} to {self.maybe_counted} more")

    def write(self) -> None:
        """Write an entry: what was interrupted is written, or not."""
        shared = self.client.dict("d")
        self.number += 1
        try:
            self.alarm.set()
            shared["k"] = self.number
            self.alarm.stop()
        except Interrupt:
            self.values.add(self.number)
            return
        self.values = {self.number}

    def read(self) -> None:
        """Read the entry: it is what was written last, or may have been; and so it stays."""
        shared = self.client.dict("d")
        try:
            self.alarm.set()
            value = shared.get("k")
            self.alarm.stop()
        except Interrupt:
            return
        if value not in self.values:
            self.wrong.append(f"read {value}, and not one of {sorted(map(str, self.values))}")
        self.values = {value}

    def put(self) -> None:
        """Put an item."""
        jobs = self.client.queue("q")
        self.number += 1
        number = self.number
        try:
            self.alarm.set()
            jobs.put(number)
            self.alarm.stop()
        except Interrupt:
            self.unsure.append(number)
            return
        self.sure.append(number)

    def get(self) -> None:
        """Get an item: what was interrupted has got none."""
        jobs = self.client.queue("q")
        try:
            self.alarm.set()
            item = jobs.get(timeout=60)
            self.alarm.stop()
        except Interrupt:
            return
        self.got.append(item)

    def get_nowait(self) -> None:
        """Get an item that is there."""
        jobs = self.client.queue("q")
        try:
            self.alarm.set()
            item = jobs.get(block=False)
            self.alarm.stop()
        except Interrupt:
            return
        self.got.append(item)
        # Put two for each that goes for ever, so that there is always one.
        self.number += 2
        for number in (self.number - 1, self.number):
            jobs.put(number)
            self.sure.append(number)

    def claim(self) -> None:
        """Claim an item and be done with it: in the end it is done or back."""
        jobs = self.client.queue("q")
        item = None
        try:
            self.alarm.set()
            with jobs.claim(timeout=60) as item:
                pass
            self.alarm.stop()
        except Interrupt:
            if item is not None:
                self.maybe_done.append(item)
            return
        self.got.append(item)

    def block(self) -> None:
        """Enter and leave a block of a lock: in the end it is free."""
        lock = self.client.lock(LOCKS[self.blocks % len(LOCKS)])
        self.blocks += 1
        try:
            self.alarm.set()
            with lock:
                self.entered += 1
            self.alarm.stop()
        except Interrupt:
            pass

    def granted(self) -> None:
        """Enter and leave a block of a grant."""
        lock = self.client.lock(LOCKS[self.blocks % len(LOCKS)])
        self.blocks += 1
        grant = lock.acquire()
        try:
            self.alarm.set()
            with grant:
                self.entered += 1
            self.alarm.stop()
        except Interrupt:
            if lock.locked():
                lock.release()  # interrupted on the way in: it is still ours

    def edit(self) -> None:
        """Change a list in place: what was interrupted is in it, or not; but its turn is over."""
        shared = self.client.dict("d")
        self.number += 1
        try:
            self.alarm.set()
            with shared.edit("e") as value:
                value.append(self.number)
            self.alarm.stop()
        except Interrupt:
            self.maybe_edited.append(self.number)
            return
        self.edited.append(self.number)


def suffer(line: Line, url: str, interrupts: int, seed: int) -> None:
    """Be interrupted so many times, tell what came of it, and stay."""
    victim = Victim(url, seed)
    for number in range(-ITEMS, 0):
        victim.client.queue("q").put(number)
        victim.sure.append(number)
    victim.run(interrupts)
    guards = len(victim.client._home.link().guards)
    line.say({name: value for name, value in vars(victim).items() if isinstance(value, (int, list))}, guards)
    line.say(victim.alarm.raised, victim.alarm.where, sorted(victim.values, key=str))
    line.hear(None)


def interruptions(count: int, seed: int = 8) -> dict[str, Any]:
    """Interrupt `count` calls of a process, and have another one look at what is left while it lives.

    Returns:
        How many calls were interrupted; wrong replies; locks that were not free; items that were lost, and that came
        twice; claims that were left; what the counter had too few or too many; grants that calls still rely on.
    """
    lost_locks = []
    with Served("here", plugins=(THINGS,)) as server, another("here") as watcher, Nursery() as nursery:
        child = nursery.fork(suffer, server.url, count, seed)
        told, guards = child.hear(None)
        raised, where, values = child.hear()
        for name in LOCKS:
            grant = watcher.lock(name).acquire(timeout=0)
            if not grant or grant.abandoned:
                lost_locks.append(name)
        jobs = watcher.queue("q")
        statistics = watcher.statistics(jobs)
        items = told["got"] + [jobs.get_nowait() for _ in range(jobs.qsize())]
        # Each item that was put is there once or has been got; of some it is not known, but never twice.
        lost = set(told["sure"]) - set(items) - set(told["maybe_done"])
        twice = len(items) - len(set(items))
        invented = set(items) - set(told["sure"]) - set(told["unsure"])
        counted = watcher.counter("c").get()
        least, most = told["counted"], told["counted"] + told["maybe_counted"]
        value = watcher.dict("d").get("k")
        listed = watcher.dict("d").get("e").copy()
        editing = watcher.statistics(watcher.dict("d"))["editing"]
        child.say("go")
        child.end()
    return {
        "interrupted": raised,
        "wrong": told["wrong"],
        "locks lost": lost_locks,
        "items": len(told["sure"]),
        "items lost": sorted(lost),
        "items twice": twice,
        "items invented": sorted(invented),
        "claims left": len(statistics["holders"]) + statistics["getters"] + statistics["putters"],
        "counter off": max(0, least - counted, counted - most),
        "entry off": value not in values,
        "edits lost": sorted(set(told["edited"]) - set(listed)),
        "edits invented": sorted(set(listed) - set(told["edited"]) - set(told["maybe_edited"])),
        "edits twice": len(listed) - len(set(listed)),
        "turns left": editing,
        "guards left": guards,
        "blocks": told["blocks"],
        "where": dict(sorted(where.items(), key=lambda row: -row[1])),
    }
