"""Record histories from a host and engine whose server dies, again and again, and goes on from its log.

As in `simulation`, and what it says of callers holds here. To what may happen there come here: turns of the server end,
their records are written and synced, segments are closed and folded, the server dies between any two of these, and
another life goes on from what its disk has kept (`logs`). While it is down time goes by, and callers die. What their
connections had brought when it died is lost, and of what was on its way to them a part.

In some seeds the server dies by a kill: then nobody may miss anything, however many lives it takes. In others the
machine may lose power under a log that is only written: what had been answered may be lost then. Who has seen of that
must be told, and lose its session; who has not must go on. The history is then judged twice: as it was until then, and
as it is, without what was lost.

Some laws are looked at directly, since no caller might notice in time: that a replay gives the state that was, that
waits keep their place and deadline, that tokens never come twice, and that nobody waits beyond its time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any

import attrs

from linearizability.checker import UNKNOWN, Model, Operation, check_objects
from linearizability.logs import Disk, Log, Logged
from linearizability.models import Lock
from linearizability.simulation import (
    DECLARATIONS,
    IDENTITY,
    KINDS,
    MODELS,
    PERMITS,
    Caller,
    Pending,
    Recording,
    Simulation,
)
from registry import SharedObject, _codec, _wire
from registry._attachments import Client, Target
from registry._engine import Engine
from registry._events import Call, Event
from registry._host import Host
from registry._leaves import Caller as Known
from registry._leaves import Grant
from registry._wire import Frame

#: As in `simulation`, but for the lock: those who wait are passed over while their session has no connection.
RESTART_MODELS: Mapping[str, Model] = {**MODELS, "lock:l": Lock()}
NOTHING = _codec.encode([[], {}])
WORKER = b"w" * 16  # the key of the one who works with what is fragile


class Fragile:
    """Something that the interpreter may fail in."""

    fails = False

    def __init__(self) -> None:
        self.done = 0

    def work(self) -> int:
        """Work, or fail before anything is done: what is half done differs in a replay, where nobody can see it."""
        if Fragile.fails:
            raise MemoryError
        self.done += 1
        return self.done


ALL: dict[str, SharedObject[Any]] = {**DECLARATIONS, "fragile": SharedObject("fragile", Fragile)}


@attrs.frozen
class RestartRecording(Recording):
    """What came of a seed.

    Attributes:
        earlier: The histories up to each loss of what had been answered.
        broken: What else is not as it is promised.
        lives: How many lives there were.
        lost: How many sessions were lost.
    """

    earlier: tuple[tuple[Operation, ...], ...]
    broken: tuple[str, ...]
    lives: int
    lost: int


@attrs.define(eq=False)
class Burial:
    """The end of a session, which was fed as the event `index`; `noted` once that is safe."""

    caller: Caller
    index: int
    noted: bool = False


class Restarts(Logged, Simulation):
    """A server that dies and comes back, its callers, and the pipes between them."""

    def __init__(self, seed: int, kinds: tuple[str, ...] = KINDS, calls: int = 60) -> None:
        self.disk: Disk
        self.log: Log
        self.is_down = True
        self.can_lose_power = seed % 3 == 0
        self.indexes: list[int] = []  # of the events that the operations of the history were answered with
        self.heard_at = 0
        self.earlier: list[tuple[Operation, ...]] = []
        self.broken: list[str] = []
        self.burials: list[Burial] = []
        self.fed: dict[Any, tuple[float, float]] = {}  # the first and the last event of each call
        self.confirmed: dict[str, list[tuple[float, int, str]]] = {}
        self.doomed: dict[str, float] = {}  # since when callers have seen what is lost
        self.lost = 0
        self.tokens: dict[int, tuple[str, int]] = {}
        self.work = 0
        super().__init__(seed, kinds, calls)
        self.begin()

    def run(self) -> RestartRecording:
        """Let the callers call and the server die, wind up, and look at what is left."""
        found = super().run()
        for caller in self.callers:
            late = [pending for pending in caller.pending.values() if caller.alive and pending.deadline is not None]
            self.broken += [f"{caller.name} waits for ever, and was to until {pending.deadline}" for pending in late]
        return RestartRecording(
            found.history,
            found.refused,
            found.stalled,
            tuple(self.earlier),
            (*self.broken, *self.disk.broken),
            self.disk.lives,
            self.lost,
        )

    def things(self) -> list[tuple[Callable[[], object], float]]:
        """Return what may happen, each with its weight."""
        if self.is_down:
            return [
                (self.revive, 2),
                (self.some_death, self.trouble / 3),
                (self.some_call, 2),
                (self.some_cancel, self.trouble / 3),
            ]
        return [
            *super().things(),
            (self.commit, 8),
            (self.write, 4),
            (self.sync, 2),
            (self.roll, 0.3),
            (self.fold, 0.3),
            (self.some_return, 3),
            (self.some_work, 1),
            (self.crash, 0.3 + self.trouble / 6),
        ]

    # -- lives of the server -----------------------------------------------------------------------

    def make_host(self) -> Host:
        """Begin the next life with what the disk tells."""
        if not hasattr(self, "disk"):
            self.disk = Disk(self.random, ALL, durable=not self.can_lose_power and self.random.random() < 0.5)
            self.found = self.disk.recover()
        disk, found = self.disk, self.found
        disk.lives += 1
        self.log = Log(disk, found, self.note_event)
        identity = attrs.evolve(IDENTITY, epoch=disk.lives, life=disk.lives.to_bytes(16, "big"))
        before = waits(found.engine)
        seed = b"%d/%d" % (self.seed, disk.lives)
        host = Host(ALL, identity, seed=seed, now=self.now, lease=inf, engine=found.engine, log=self.log)
        after = waits(host.engine)
        for title, row in before.items():
            kept = [wait for wait in row if wait[-1] is None or wait[-1] > self.now]
            if after.get(title, []) != kept:
                self.broken.append(f"life {disk.lives}: {title} had {kept} who wait, and has {after.get(title)}")
        self.is_down = False
        return host

    def crash(self) -> None:
        """Let the server die, now and then in order, or the machine lose its power."""
        if self.random.random() < 0.15:
            self.stop()
        power = self.can_lose_power and self.random.random() < 0.5
        for connection in list(self.connections):
            for _ in range(self.random.randint(0, len(connection.down))):
                self.bytes_down(connection)  # it was on its way
        for connection in self.connections:
            connection.open = connection.read = False
            connection.up.clear()
            connection.down.clear()
        for caller in self.callers:
            caller.connection = None
        self.connections.clear()
        self.is_down = True
        least = self.log.crash(power)
        self.found = self.disk.recover()
        kept = self.found.index
        self.disk.forget(kept)
        if kept < least:
            self.broken.append(f"life {self.disk.lives}: event {least} was safe, and the log ends with event {kept}")
        self.go_back(kept)

    def go_back(self, kept: int) -> None:
        """Take note that what came after an event has never been."""
        seen = [caller for caller in self.callers if caller.applied > kept]
        if not self.can_lose_power:
            self.broken += [f"{caller.name} had seen event {caller.applied} of {kept}" for caller in seen]
        if any(index > kept for index in self.indexes):
            self.lose(kept)
        for caller in seen:
            self.doomed.setdefault(caller.name, self.time)
        for burial in list(self.burials):
            if burial.index > kept:
                self.burials.remove(burial)
                self.buried.remove(burial.caller)
                self.callers.append(burial.caller)  # it is dead all the same, and to be buried once more
        self.fed = {call: (first, min(last, kept)) for call, (first, last) in self.fed.items() if first <= kept}
        for caller in (*self.callers, *self.buried):
            rows = self.confirmed.get(caller.name, [])
            self.confirmed[caller.name] = [row for row in rows if row[0] <= kept]
            caller.unconfirmed |= {seq: subject for index, seq, subject in rows if index > kept}
        self.note_safe(kept)

    def lose(self, kept: int) -> None:
        """Put the history aside that was, and go on with what is left of it."""
        self.earlier.append((*self.history, *self.open_ends()))
        rows: list[tuple[Operation, int]] = []
        for operation, index in zip(self.history, self.indexes, strict=True):
            if index <= kept or (operation.result is UNKNOWN and operation.verb != "undo"):
                rows.append((operation, index))
            elif operation.verb == "undo" or self.fed.get(operation.call, (inf, inf))[0] <= kept:
                # It may have waited since before, and its end is lost.
                rows.append((attrs.evolve(operation, result=UNKNOWN, returned=inf), 0))
        self.history = [operation for operation, _ in rows]
        self.indexes = [index for _, index in rows]

    def revive(self) -> None:
        """Let the next life begin, some time later."""
        self.now += self.random.choice((0.0, 0.2, 1.0, 5.0))
        self.host = self.make_host()
        for caller in [caller for caller in self.callers if not caller.alive]:
            if self.random.random() < 0.5:
                self.bury(caller)  # its process is known to be dead
        if self.random.random() < 0.1:
            self.host.halt("fragile", self.random.choice("ab"), "it is not what it was", self.now)
        self.begin()

    # -- what may happen ---------------------------------------------------------------------------

    def settle(self) -> bool:
        done = super().settle()
        for hosted in self.host.engine.objects.values():
            room = {"lock:l": 1, "semaphore:s": PERMITS}.get(hosted.title, 0)
            if hosted.waits and len(self.host.engine.holders(hosted)) < room:
                self.broken.append(f"{hosted.title} is free, and {len(hosted.waits)} wait for it at the end")
        return done

    def serve(self) -> bool:
        if self.is_down:
            self.revive()
            return True
        if self.log.rests:
            return False
        self.commit()
        self.sync()
        return True

    def pass_time(self) -> None:
        if self.is_down:
            self.now += 1.0
        else:
            super().pass_time()

    def some_return(self) -> None:
        """Let a caller come back that has no connection."""
        away = [caller for caller in self.callers if caller.alive and caller.connection is None]
        if away:
            self.connect(self.random.choice(away))

    def some_work(self) -> None:
        """Work with something fragile, in which the interpreter may fail."""
        host = self.host
        client = host.clients.get(WORKER)
        if client is None:
            client = Client(WORKER, Known(label="worker"), "", None)
            host.adopt(client)
        self.work += 1
        name = self.random.choice("ab")
        target = Target("fragile", name, NOTHING, ALL["fragile"])
        Fragile.fails = self.random.random() < 0.2
        try:
            host.submit(
                client,
                target,
                Call(
                    now=self.now, session=client.number, seq=self.work, owner=1, typeid="fragile", name=name,
                    method="work", arguments=NOTHING, received=self.work - 1,
                ),
            )  # fmt: skip
        finally:
            Fragile.fails = False

    # -- callers -----------------------------------------------------------------------------------

    def connect(self, caller: Caller) -> None:
        if not self.is_down:
            super().connect(caller)

    def may_go_on(self, caller: Caller, answer: _wire.Attached) -> bool:
        is_lost = bool(caller.life) and not answer.resumed
        if is_lost != (caller.name in self.doomed):
            said = f"was told that {answer.reason}" if is_lost else "was told nothing"
            what = "seen what is lost" if caller.name in self.doomed else "not seen anything that is lost"
            self.broken.append(f"{caller.name} has {what}, and {said}")
        if not is_lost:
            return True
        if caller.key in self.host.clients:
            self.broken.append(f"{caller.name} has lost its session, and the server has it still")
        self.lost += 1
        self.die(caller)
        self.join()
        return False

    def die(self, caller: Caller) -> None:
        super().die(caller)
        caller.died = min(caller.died, self.doomed.get(caller.name, inf))

    def send_call(self, caller: Caller, pending: Pending, again: bool = False) -> None:
        super().send_call(caller, pending, again)
        if again:
            pending.sure = False  # what comes may have waited to be safe, since before

    def confirm(self, caller: Caller, pending: Pending) -> None:
        # Nothing is known of a read once the server is gone.
        index = inf if pending.reads else self.fed.get((caller.name, pending.seq), (inf, inf))[1]
        row = self.confirmed.setdefault(caller.name, [])
        row += [(index, seq, caller.unconfirmed[seq]) for seq in pending.told if seq in caller.unconfirmed]
        super().confirm(caller, pending)

    def finish(self, caller: Caller, pending: Pending, frame: Frame) -> None:
        self.heard_at = frame.applied
        super().finish(caller, pending, frame)
        self.heard_at = 0
        result = _codec.decode(frame.body) if frame.body else None
        if isinstance(result, Grant) and result:
            call = (caller.name, pending.seq)
            if self.tokens.setdefault(result.number, call) != call:
                self.broken.append(f"token {result.number} came twice: {self.tokens[result.number]} and {call}")
        elif isinstance(result, Grant) and pending.deadline is not None and self.now < pending.deadline:
            self.broken.append(f"{caller.name} was to wait until {pending.deadline}, and gave up at {self.now}")

    # -- what is written down ----------------------------------------------------------------------

    def note(self, operation: Operation) -> None:
        super().note(operation)
        self.indexes.append(self.heard_at)

    def note_end(self, caller: Caller) -> None:
        self.burials.append(Burial(caller, self.host.engine.index))
        self.note_safe(self.log.safe)

    def open_ends(self) -> list[Operation]:
        rows = super().open_ends()
        noted = [burial.caller for burial in self.burials if burial.noted]
        for caller in (*self.callers, *self.buried):
            if caller in noted:
                continue
            if not caller.alive:
                rows += self.ends(caller, UNKNOWN, inf)
            elif caller.name in self.doomed:
                # Its end is told to it by the answer to its first attach, which may have come already.
                caller.died = self.doomed[caller.name]
                caller.owing = {seq: pending.subject for seq, pending in caller.pending.items()}
                rows += self.ends(caller, UNKNOWN, inf)
        return rows

    def note_safe(self, index: int) -> None:
        """Note the ends of sessions that are safe, and have taken effect for certain."""
        for burial in self.burials:
            if not burial.noted and burial.index <= index:
                burial.noted = True
                self.heard_at = burial.index
                super().note_end(burial.caller)
                self.heard_at = 0

    def note_event(self, event: Event, index: int) -> None:
        """Note which calls reach the engine."""
        if isinstance(event, Call):
            call = (self.host.engine.sessions[event.session].caller.label, event.seq)
            self.fed[call] = (self.fed.get(call, (index, index))[0], index)


def waits(engine: Engine) -> dict[str, list[tuple[Any, ...]]]:
    """Return who waits for what, in their order: (session, call, number, deadline), by the object."""
    return {
        hosted.title: [(wait.owner, wait.seq, wait.number, wait.deadline) for wait in hosted.waits.values()]
        for hosted in engine.objects.values()
        if hosted.waits
    }


def wrong(recording: RestartRecording, limit: int = 2_000_000) -> str:
    """Return what is wrong with what came of a seed, or an empty string."""
    if recording.refused:
        return f"the server refused what a caller sent: {recording.refused}"
    if recording.broken:
        return f"broken promises: {recording.broken}"
    if recording.stalled:
        return "calls without an answer"
    for history in (*recording.earlier, recording.history):
        verdict = check_objects(history, RESTART_MODELS, limit=limit)
        if not verdict:
            return str(verdict)
    return ""


def record(seed: int, kinds: tuple[str, ...] = KINDS, calls: int = 60) -> RestartRecording:
    """Record the history of a seed."""
    return Restarts(seed, kinds, calls).run()
