"""Record histories of real clients whose server dies and goes on from its log.

As in `clients`, but what comes after a death of the server knows all that had been answered: the log is that of `logs`,
and the server is killed between any two steps. So all its lives are one in the history. A client may lose its session
only where its lease has run out, or where it has lost patience with a server that did not come back in time.

In some seeds the machine may lose power under a log that is only written, as in `restarts`. Then a client is also told,
of all that it had been answered, that it is lost; the history is judged as it was until then, and without that.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import attrs

from linearizability.attempts import KINDS
from linearizability.checker import UNKNOWN, Operation, check_objects
from linearizability.clients import DECLARATIONS, Life, Recording, World, quietly
from linearizability.logs import Disk, Log, Logged
from registry import _wire
from registry._attachments import Attachment, Client
from registry._engine import Engine
from registry._events import Call, Event
from registry._wire import Frame

DEAD = "the server took this session for dead, and freed what it held"


@attrs.frozen
class DurableRecording(Recording):
    """What came of a seed.

    Attributes:
        earlier: The histories up to each loss of what had been answered.
        lives: How many lives there were.
        lost: How many sessions were told that something was lost.
    """

    earlier: tuple[tuple[Operation, ...], ...]
    lives: int
    lost: int


class DurableLife(Life):
    """One life of a server that has a log."""

    world: DurableWorld
    attaching = 0  # the generation of the connection that is being attached

    def _attach(self, attachment: Attachment, frame: Frame, now: float) -> None:
        self.attaching = frame.generation
        super()._attach(attachment, frame, now)

    def _loss_of(self, hello: _wire.Attach, client: Client | None) -> str:
        reason = super()._loss_of(hello, client)
        if client is not None and self.attaching <= client.generation:
            return reason  # its session has seen more since, on a later connection, and nobody listens to this one
        before, world = int.from_bytes(hello.life, "big"), self.world
        session = world.sessions[hello.key]
        seen, left = world.record.seen.get(session, 0), min(world.kept[before - 1 :], default=inf)
        world.lost += seen > left
        if seen > left and not world.can_lose_power:
            world.record.broken.append(f"{session} had seen event {seen}, and a kill has left {left}")
        if (seen > left) != (reason not in ("", DEAD)):
            world.record.broken.append(f"{session} had seen event {seen}, {left} is left, and it was told {reason!r}")
        return reason


@attrs.frozen
class End:
    """A session was ended, by the event `index`, after the moment `begun`; `unheard` as `Record.unheard` has it."""

    session: str
    begun: float
    index: int
    unheard: dict[str, Any]


class DurableWorld(Logged, World):
    """A server that has a log, its clients, and the pipes between them."""

    most_lives, life_span = 9, 6

    def __init__(self, seed: int, kinds: tuple[str, ...] = KINDS, calls: int = 60) -> None:
        self.disk: Disk
        self.log: Log
        self.engine: Engine
        self.ends: list[End] = []
        self.noted: list[tuple[End, list[Operation]]] = []
        self.fed: dict[tuple[str, int], int] = {}  # the first event of each call
        self.can_lose_power = seed % 3 == 0
        self.kept: list[int] = []  # the last events that were left of each life
        self.earlier: dict[int, tuple[Operation, ...]] = {}  # by the number of the loss
        self.lost = 0
        super().__init__(seed, kinds, calls)
        self.restarts = True
        self.begin()

    def run(self) -> DurableRecording:
        """Let the clients call and the server die, wind up, and look at what is left."""
        found = super().run()
        broken = (*found.broken, *self.disk.broken)
        for number, operation in self.record.late_looks:
            self.earlier[number] += (operation,)
        earlier = tuple(self.earlier.values())
        models = {**found.models, **self.record.models(tuple(operation for row in earlier for operation in row))}
        return DurableRecording(
            found.history,
            models,
            found.refused,
            broken,
            found.stalled,
            found.hits,
            earlier,
            self.life,
            self.lost,
        )

    # -- lives of the server

    def make_life(self) -> Life:
        if not hasattr(self, "disk"):
            self.disk = Disk(self.random, DECLARATIONS, durable=not self.can_lose_power and self.random.random() < 0.5)
            self.found = self.disk.recover()
        self.disk.lives = self.life
        self.log = Log(self.disk, self.found, self.note_event)
        self.engine = self.found.engine
        return DurableLife(self, self.life, self.engine, self.log)

    def begin(self) -> None:
        """End the sessions of processes that are known to be dead first."""
        gone = [program for program in self.programs if program.is_local and not program.alive]
        for program in gone:
            for client in [client for key, client in self.host.clients.items() if self.is_of(key, program)]:
                self.host.end(client, self.wall)
        self.dead = [program for program in self.dead if program not in gone]
        super().begin()

    def crash(self) -> None:
        if self.random.random() < 0.15:
            self.stop()
        super().crash()
        power = self.can_lose_power and self.random.random() < 0.5
        least = self.log.crash(power)
        self.found = self.disk.recover()
        kept = self.found.index
        self.kept.append(kept)
        self.disk.forget(kept)
        if kept < least:
            self.record.broken.append(f"event {least} was safe, and the log ends with event {kept}")
        if not self.can_lose_power:
            early = [name for name, seen in self.record.seen.items() if seen > kept]
            self.record.broken += [f"{name} has seen what is after event {kept}" for name in early]
        elif kept < self.log.safe:
            self.earlier[len(self.record.losses)] = (*self.record.history(), *self.open_ends())
        self.go_back(kept)

    def open_ends(self) -> list[Operation]:
        """Return the ends of sessions that may or may not have taken effect for others."""
        return [
            self.record.operation(subject, end.session, (end.session, -1), "end", row, end.begun, inf, UNKNOWN)
            for end in self.ends
            for subject, row in end.unheard.items()
        ]

    def go_back(self, kept: int) -> None:
        """Take note that what came after an event has never been."""
        self.note_safe(kept)
        self.ends.clear()  # whom it had ended lives on
        for end, rows in [(end, rows) for end, rows in self.noted if end.index > kept]:
            self.noted.remove((end, rows))
            self.record.ended.pop(end.session, None)
            self.record.ends = [row for row in self.record.ends if row not in rows]
        self.fed = {call: index for call, index in self.fed.items() if index <= kept}
        self.record.lose(kept, self.fed)
        for attempt in self.record.attempts:
            told = attempt.confirmer
            if told is not None and self.fed.get(told.call, inf) > kept:
                attempt.confirmed, attempt.confirmer = False, None  # by a read, of which nothing is known any more

    def revive(self) -> None:
        super().revive()
        self.begin()

    # -- what the log does

    def duties(self) -> list[tuple[Callable[[], object], float]]:
        things: list[tuple[Callable[[], object], float]] = []
        if not self.log.rests:
            things += [(self.commit, 10), (self.sync, 3)]
        if self.calls > 0:
            things += [(self.roll, 0.2), (self.fold, 0.2)]
        return things

    def waits_for_the_server(self) -> bool:
        return super().waits_for_the_server() or not self.log.rests

    # -- what is written down

    def note_event(self, event: Event, index: int) -> None:
        """Note which calls reach the engine."""
        if isinstance(event, Call):
            session = self.engine.sessions[event.session]
            self.fed.setdefault((self.sessions[session.key], event.seq), index)

    def session_ended(self, session: str, begun: float, logged: bool) -> None:
        if not logged:
            return  # it had done nothing, so that it goes on if its client knows an earlier life only
        if self.record.has_called(session):  # now, since its client may begin it once more until the end is safe
            self.ends.append(End(session, begun, self.engine.index, self.record.unheard(session)))
        self.note_safe(self.log.safe)

    def note_safe(self, index: int) -> None:
        """Note the ends of sessions that are safe, and have taken effect for certain."""
        for end in [end for end in self.ends if end.index <= index]:
            self.ends.remove(end)
            count = len(self.record.ends)
            self.record.session_ended(end.session, 1, end.begun, end.unheard)
            self.noted.append((end, self.record.ends[count:]))


def wrong(recording: DurableRecording, limit: int = 2_000_000) -> str:
    """Return what is wrong with what came of a seed, or an empty string."""
    if recording.refused:
        return f"the server refused what a client sent: {recording.refused}"
    if recording.broken:
        return f"broken promises: {recording.broken}"
    if recording.stalled:
        return f"it does not come to an end: {recording.stalled}"
    for history in (*recording.earlier, recording.history):
        verdict = check_objects(history, recording.models, limit=limit)
        if not verdict:
            return str(verdict)
    return ""


def record(seed: int, kinds: tuple[str, ...] = KINDS, calls: int = 60) -> DurableRecording:
    """Record the history of a seed."""
    return quietly(DurableWorld, seed, kinds, calls)
