"""Record histories of real clients: `ManagerClient`, proxies and `Link`, over pipes that a seed moves.

As in `simulation` the host, the engine, the frames and the types are the real ones and everything between is bytes in
pipes. But the callers are threads of the `crew` that use shared objects as programs do, with ``with`` blocks, claims
and timeouts. One random number generator decides which thread goes on, which pipe moves by how much, where a
connection is cut, what is interrupted by a signal handler, which process dies, when a lease runs out, and when the
server is killed and comes back with an empty memory. So a seed is a history: `record(seed)` gives the same one as often
as it is asked.

Some processes are on the server's machine: their deaths are known exactly. Others are not: they are believed for the
length of the lease.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from contextlib import suppress
from math import inf
from queue import Empty
from random import Random
from types import ModuleType, SimpleNamespace
from typing import Any

import attrs

from linearizability.attempts import KINDS, PERMITS, Record
from linearizability.checker import Model, Operation
from linearizability.crew import Crew, Interruption, Member, replaced
from linearizability.programs import ADDRESS, KEEPER, Program, Thread, Wire
from registry import SharedObject, _cache, _joining, _keeper, _line, _link, _transport, _wire, _words, proxies
from registry._attachments import Client, Identity, Log
from registry._engine import Engine
from registry._host import Host
from registry._transport import Greeting
from registry._wire import Kind, ProtocolError
from registry.proxies import _base, _containers, _locks
from registry_containers import COUNTER, DICT
from registry_queues import QUEUE
from registry_sync import LOCK, RLOCK, SEMAPHORE

START = 1_000_000.0
LIFE = 1_000_000  # more events than a life has; how far apart the numbers of the events of two lives are
PID = 7  # of every client, so that messages have the same length whoever runs this
DECLARATIONS: dict[str, SharedObject[Any]] = {
    declaration.typeid: declaration for declaration in (COUNTER, DICT, QUEUE, LOCK, RLOCK, SEMAPHORE)
}
for declared in DECLARATIONS.values():
    proxies.proxy_class(declared.interface)  # made once in a process, whose first seed is to be as any other
#: What of the product blocks, reads the clock, or draws random numbers.
MODULES: tuple[ModuleType, ...] = (
    _link, _joining, _line, _transport, _locks, _keeper, _words, _cache, proxies, _base, _containers,
)  # fmt: skip
#: Where a thread may lose its turn between any two lines.
FINE = [
    module.__file__
    for module in (_link, _joining, _line, _words, _cache, proxies, _base, _containers)
    if module.__file__
]


@attrs.frozen
class Recording:
    """What came of a seed.

    Attributes:
        history: The operations, the objects of each life of the server apart.
        models: Their models, by subject.
        refused: What the host said was against the protocol; no client of ours is to be told so.
        broken: What else is not as it is promised.
        stalled: Who was still waiting when the simulation gave up.
        hits: How many reads were answered without a request.
    """

    history: tuple[Operation, ...]
    models: dict[str, Model]
    refused: tuple[str, ...]
    broken: tuple[str, ...]
    stalled: tuple[str, ...]
    hits: int


# -- the server


class Words(_words.WordPool):
    """The version words of one life, in memory that the clients on its machine see."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(memoryview(bytearray(_words.SIZE)).cast("Q"), number)
        self.world = world
        self.told = _wire.Words(str(number), 0, 0, _words.SIZE, number)

    def stamp(self) -> None:
        self.view[_words.STAMP] = int(self.world.crew.now * 1e9) + 1


class Life(Host):
    """One life of the server, which tells of the sessions that it ends.

    With a log all lives are one in the history, whose `number` is 1.
    """

    def __init__(self, world: World, number: int, engine: Engine | None = None, log: Log | None = None) -> None:
        identity = Identity(
            address="tcp://here:1", name="simulated", pid=1, since=START, host="here", version="1", python="3",
            epoch=number, life=number.to_bytes(16, "big"), plugins={}, log="memory" if log is None else "process",
        )  # fmt: skip
        seed = b"%d" % number
        self.words = world.words[str(number)] = Words(world, number)
        super().__init__(
            DECLARATIONS,
            identity,
            seed=seed,
            now=world.wall,
            lease=world.lease,
            engine=engine,
            log=log,
            words=self.words,
        )
        self.number = 1
        if log is None:
            self.number = number
            self.engine.index += number * LIFE
        self.told = Greeting(self.greet(), ADDRESS)
        self.world = world

    def end(self, client: Client, now: float) -> None:
        known, logged = client.key in self.clients, bool(client.number)
        begun = self.world.record.tick()
        super().end(client, now)
        if known:
            self.world.session_ended(self.world.sessions[client.key], begun, logged)


# -- all of it


class World:
    """A server, its clients, and the pipes between them.

    Args:
        seed: Draws everything.
        kinds: Which types are used.
        calls: How many things are done before all is wound up.
    """

    most_lives, life_span = 5, 15

    def __init__(self, seed: int, kinds: tuple[str, ...] = KINDS, calls: int = 60) -> None:
        self.random = random = Random(seed)
        self.kinds = kinds
        self.calls = calls
        self.items = 0
        self.is_fine = random.random() < 0.25
        self.crew = Crew(random, random.choice((0.01, 0.05)) if self.is_fine else 0.0, FINE)
        self.record = Record()
        self.lease = random.choice((0.3, 1.0, 5.0, 30.0))
        # Some seeds are quiet, so that long stretches without trouble are seen too.
        self.trouble = random.choice((0.0, 0.5, 1.0, 2.0))
        self.late_cuts = 0
        self.restarts = random.random() < 0.4
        self.refused: list[str] = []
        self.sessions: dict[bytes, str] = {}
        self.wires: list[Wire] = []
        self.programs: list[Program] = []
        self.dead: list[Program] = []
        self.making: Program | None = None
        self.left: set[str] = set()  # the types of which something may be held by nobody
        self.hits = 0  # reads that were answered without a request
        self.words: dict[str, Words] = {}
        self.crashed = 0.0
        self.life = 1
        self.host: Life | None = self.make_life()

    def make_life(self) -> Life:
        """Begin a life of the server, which remembers nothing."""
        return Life(self, self.life)

    @property
    def wall(self) -> float:
        """The server's clock."""
        return START + self.crew.now

    @property
    def place(self) -> int:
        """Which thread of its process runs."""
        return self.crew.running.place if self.crew.running is not None else KEEPER

    def chance(self, part: float) -> bool:
        """Draw whether something happens that happens more often the more trouble there is."""
        return self.random.random() < part * self.trouble

    def run(self) -> Recording:
        """Let the clients call, wind up, and look at what is left."""
        keeper = SimpleNamespace(wake=lambda: None, keep=lambda link, connected=None: link.keep(connected))
        others = {
            "os": SimpleNamespace(urandom=self.draw_key, getpid=lambda: PID, path=os.path, environ={}),
            "_peers": SimpleNamespace(machine=lambda: "here"),
            "command": lambda: "test",
            "__version__": "1",
            "thread_name": lambda: "a thread",
            "clock": lambda: self.crew.now,
            "_keeper": keeper,
            "_current": lambda: keeper,
            "_is_writable": lambda number: True,
            "map_words": lambda told: self.words[told.path].view,
        }
        with replaced(self.crew, MODULES, **others):
            try:
                for _ in range(self.random.randint(2, 3)):
                    self.join()
                stalled = self.course() or self.settle() or self.audit()
            finally:
                for program in self.programs:
                    self.crew.kill(program)
                self.crew.over = True
        for program in self.programs:
            if program.unsaid:
                sessions = sorted(program.unsaid)
                self.record.broken.append(f"{program.name} was never told of the loss of its sessions {sessions}")
        history = self.record.history()
        return Recording(
            history,
            self.record.models(history),
            tuple(self.refused),
            tuple(self.record.broken),
            tuple(stalled),
            self.hits,
        )

    def draw_key(self, size: int) -> bytes:
        """Draw the key of the session that a process begins."""
        member = self.crew.running
        program: Any = self.making if member is None else member.process
        key = self.random.randbytes(size)
        self.sessions[key] = f"{program.name}.{program.link.count}"
        return key

    # -- the course

    def course(self) -> list[str]:
        """Let things happen until all are done; return who does not come to an end."""
        for _ in range(400 * self.calls):
            if self.calls <= 0 or not self.busy():
                break
            self.turn()
        self.calls, self.late_cuts, self.trouble = 0, 2 * (self.trouble > 0), 0.0
        for program in self.programs:
            program.away_until = 0.0
        return self.finish()

    def finish(self) -> list[str]:
        """Let all come to an end without further trouble."""
        for _ in range(20_000):
            if not self.busy() and not self.waits_for_the_server():
                return []
            self.turn()
        return [f"{member.thread.name} waits" for member in self.busy()] or ["the server waits"]

    def busy(self) -> list[Member]:
        """Return the threads that are to come to an end."""
        return [member for member in self.crew.members if member.place != KEEPER]

    def waits_for_the_server(self) -> bool:
        """Tell whether the server has something to do still."""
        if self.host is None or self.dead or any(wire.up or wire.read for wire in self.wires if wire.closed):
            return True
        living = {program.link.key for program in self.programs if program.alive and not program.link.closed}
        return any(key not in living for key in self.host.clients)

    def turn(self) -> None:
        """Let one thing happen."""
        self.crew.now += 0.0005
        able = self.crew.able()
        ups = [wire for wire in self.wires if wire.up or wire.closed or wire.hung_up]
        downs = [wire for wire in self.wires if wire.arrived < len(wire.down)]
        trouble = self.trouble
        due = self.host.next_due() if self.host is not None else None
        if self.host is not None and self.random.random() < 0.1:
            self.host.words.stamp()
        things: list[tuple[Callable[[], object], float]] = [(self.pass_time, 0.2 if self.calls > 0 else 0.0)]
        if able:
            things.append((lambda: self.crew.go_on(self.random.choice(able)), 20))
        if ups:
            things.append((lambda: self.read(self.random.choice(ups)), 14))
        if downs:
            things.append((lambda: self.arrive(self.random.choice(downs)), 14))
        if due is not None and due <= self.wall:
            things.append((self.advance, 10))
        if self.host is None:
            things.append((self.revive, 2))
        else:
            things += self.duties()
        if self.dead:
            things.append((self.bury, 1))
        if self.late_cuts and any(wire.down and not wire.hung_up for wire in self.wires):
            things.append((self.cut_late, 1))
        if trouble:
            things += [(self.cut, trouble / 2), (self.interrupt, trouble), (self.die, trouble / 10)]
            if self.restarts and self.host is not None and self.life < self.most_lives:
                things.append((self.crash, trouble / self.life_span))
        if len(things) == 1:
            self.pass_time(inf)  # nothing else can happen
            return
        self.random.choices([thing for thing, _ in things], [weight for _, weight in things])[0]()

    def duties(self) -> list[tuple[Callable[[], object], float]]:
        """Return what the server has to do by itself, each with its weight."""
        return []

    # -- what may happen

    def join(self) -> Program:
        """Add a process."""
        number = len(self.programs) + 1
        program = Program(self, number, self.random.choice((1, 1, 2, 3)))
        self.programs.append(program)
        return program

    def pass_time(self, step: float = 0.0) -> None:
        """Let time pass, to the next moment at which something is due, or less."""
        due = self.host.next_due() if self.host is not None else None
        next_due = min(self.crew.next_due(), inf if due is None else due - START)
        left = next_due - self.crew.now
        if left > 0:
            left = min(left, step or self.random.choice((0.05, 0.3, 1.0)))
            self.crew.now += left if left < inf else 0.0

    def advance(self) -> None:
        """Let the server see what time it is."""
        if self.host is not None:
            self.host.advance(self.wall)
            self.collect()

    def read(self, wire: Wire) -> None:
        """Let the server read from a connection."""
        host = self.host
        if wire.host is not host or host is None:
            self.wires.remove(wire)
            return
        if not wire.up:
            self.hang_up(wire)
            return
        size = len(wire.up) if self.random.random() < 0.7 else self.random.randint(1, len(wire.up))
        wire.reader.feed(bytes(wire.up[:size]))
        del wire.up[:size]
        try:
            for frame in wire.reader:
                host.receive(wire.attachment, frame, self.wall)
                if frame.kind == Kind.ATTACH and wire.attachment.client is not None:  # else it is told of a loss
                    key = _wire.decode_attach(frame.body).key
                    self.record.attached(self.sessions[key], host.number)
        except ProtocolError as error:
            # One that was overtaken by the next connection of its session is told so, and rightly.
            if frame.kind != Kind.ATTACH:
                self.refused.append(str(error))
            self.collect()
            wire.down += _wire.pack(Kind.REFUSED, str(error).encode())
            self.hang_up(wire)
        self.collect()

    def hang_up(self, wire: Wire) -> None:
        """Let the server see the end of a connection."""
        wire.hung_up, wire.read = True, False
        wire.arrived = len(wire.down)
        wire.host.detach(wire.attachment, self.wall)
        self.wires.remove(wire)

    def collect(self) -> None:
        """Take what the host has to send."""
        if self.host is None:
            return
        for attachment in self.host.dirty:
            wire: Wire = attachment.sink
            if not (wire.hung_up or wire.closed):
                for frame in attachment.outbox:
                    wire.down += frame
            attachment.outbox.clear()
        self.host.dirty.clear()

    def arrive(self, wire: Wire) -> None:
        """Let some of what is on its way to a client arrive."""
        rest = len(wire.down) - wire.arrived
        wire.arrived += rest if self.random.random() < 0.7 else self.random.randint(1, rest)

    def cut(self) -> None:
        """Cut a connection, perhaps for a while."""
        open_ones = [wire for wire in self.wires if not wire.hung_up]
        answering = [wire for wire in open_ones if wire.down]
        if open_ones:
            wire = self.random.choice(answering if answering and self.random.random() < 0.7 else open_ones)
            wire.cut()
            if self.random.random() < 0.3:
                wire.process.away_until = self.crew.now + self.random.choice((0.5, 1.0, 4.0))

    def cut_late(self) -> None:
        """Cut a connection on which an answer is on its way, while all is wound up."""
        self.late_cuts -= 1
        self.random.choice([wire for wire in self.wires if wire.down and not wire.hung_up]).cut()

    def may_interrupt(self, member: Member | None) -> bool:
        """Tell whether a thread is its process's first, where signal handlers run, and uses something shared."""
        if member is None or member.place != 0 or member.is_shielded or not member.process.alive:
            return False
        thread = getattr(member.work, "__self__", None)
        return isinstance(thread, Thread) and thread.calls

    def interrupt(self) -> None:
        """Let a signal handler raise in a thread, where it waits."""
        waiting = [member for member in self.crew.members if self.may_interrupt(member)]
        if waiting:
            member = self.random.choice(waiting)
            member.work.__self__.calls = False  # type: ignore[attr-defined] # but not in what that sets off
            self.crew.go_on(member, Interruption())

    def die(self) -> None:
        """Kill a process, or let it say goodbye. Another one comes."""
        living = [program for program in self.programs if program.alive]
        if len(living) < 2 or len(self.programs) > 6:
            return
        program = self.random.choice(living)
        self.kill(program)
        self.join()

    def kill(self, program: Program) -> None:
        """End a process. What it has sent is on its way."""
        self.crew.kill(program)
        for wire in self.wires:
            if wire.process is program:
                wire.closed = True
                if not program.is_local:
                    wire.cut()
        if program.is_local:
            self.dead.append(program)

    def bury(self) -> None:
        """Let the server learn of a death, after it has read what the dead had sent."""
        program = self.dead.pop(self.random.randrange(len(self.dead)))
        host = self.host
        if host is None:
            return
        for wire in [wire for wire in self.wires if wire.process is program]:
            while wire in self.wires:
                self.read(wire)
        for client in [client for key, client in host.clients.items() if self.is_of(key, program)]:
            host.end(client, self.wall)
        self.collect()

    def session_ended(self, session: str, begun: float, logged: bool) -> None:
        """The server has ended a session, after the moment `begun`; `logged` if it had brought about an event."""
        if self.host is not None:
            self.record.session_ended(session, self.host.number, begun, self.record.unheard(session))

    def is_of(self, key: bytes, program: Program) -> bool:
        """Tell whether a session is one of a process."""
        return self.sessions[key].partition(".")[0] == program.name

    def crash(self) -> None:
        """Kill the server, with all that it has in its memory."""
        for wire in self.wires:
            wire.cut()
            wire.up.clear()
        self.wires.clear()
        self.host, self.crashed = None, self.crew.now

    def revive(self) -> None:
        """Let a server come. It poisons the words of the last, or waits if it cannot."""
        if self.random.random() < 0.5:
            self.words[str(self.life)].poison()
        else:
            self.crew.now = max(self.crew.now, self.crashed + _words.LEASE)
        self.life += 1
        self.host = self.make_life()

    # -- the end

    def settle(self) -> list[str]:
        """Let each process call once more, and look at what is left then."""
        for program in self.programs:
            if program.alive:
                self.crew.enlist(program, Thread(program, -1).settle, -1)
        stalled = self.finish()
        if not stalled:
            self.look()
        return stalled

    def look(self) -> None:
        """After all is given back, nothing is held, nobody waits, and nothing is left open."""
        broken, host = self.record.broken, self.host
        if host is None:
            return
        for program in self.programs:
            if not program.alive:
                continue
            slots = [slot for slot in program.link._pending.values() if slot.abandoned or slot.unattended]
            if slots and program.link.key in host.clients:
                broken.append(f"{program.name} has calls that are not settled: {[slot.seq for slot in slots]}")
        for (typeid, name), hosted in host.engine.objects.items():
            found = host.statistics(typeid, name)
            held = found.get("holders")
            if held and typeid not in self.left:
                broken.append(f"{typeid}:{name} is held by {held} at the end")
            if hosted.waits:
                broken.append(f"{typeid}:{name} has {len(hosted.waits)} who wait at the end")
        for number, session in host.engine.sessions.items():
            if session.waits:
                broken.append(f"session {number} waits at the end")

    def audit(self) -> list[str]:
        """Let all leave, and let one who is new ask for everything, so that nothing is missing unnoticed."""
        self.late_cuts = 0
        for program in self.programs:
            if program.alive:
                self.crew.enlist(program, program.client.close, -1)
        stalled = self.finish()
        auditor = Program(self, len(self.programs) + 1, 0)
        self.programs.append(auditor)
        self.crew.enlist(auditor, lambda: self.questions(auditor), 0)
        stalled += self.finish()
        return stalled

    def questions(self, auditor: Program) -> None:
        """Ask for everything that is there."""
        if "counter" in self.kinds or "queue" in self.kinds:
            auditor.counter.get()
        if "dict" in self.kinds:
            auditor.dict.get("a")
            auditor.dict.get("b")
        if "lock" in self.kinds:
            auditor.guarded.get()
            self.expect(auditor.lock.acquire(False), "the lock")
        if "rlock" in self.kinds:
            self.expect(auditor.rlock.acquire(False), "the rlock")
        if "semaphore" in self.kinds:
            for _ in range(PERMITS):
                self.expect(auditor.semaphore.acquire(False), "a permit")
            auditor.semaphore.acquire(False)
        if "queue" in self.kinds:
            with suppress(Empty):
                while True:
                    auditor.queue.get(False)

    def expect(self, grant: Any, what: str) -> None:
        """Say so where something is not to be had after everybody has left."""
        if not grant:
            self.record.broken.append(f"{what} is held by {grant.holder} after everybody has left")


def record(seed: int, kinds: tuple[str, ...] = KINDS, calls: int = 60) -> Recording:
    """Record the history of a seed."""
    return quietly(World, seed, kinds, calls)


def quietly(world: Callable[[int, tuple[str, ...], int], Any], seed: int, kinds: tuple[str, ...], calls: int) -> Any:
    """Record a history without the garbage collector.

    Destructors give back what blocks have held. What they do is not to depend on when the collector comes by.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        return world(seed, kinds, calls).run()
    finally:
        if collects:
            gc.enable()
