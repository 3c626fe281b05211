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

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from math import inf
from queue import Empty, Full
from random import Random
from select import POLLIN
from types import ModuleType, SimpleNamespace
from typing import Any

import attrs

from linearizability.attempts import CALLS, KINDS, PERMITS, ROOM, Attempt, Record
from linearizability.checker import Model, Operation
from linearizability.crew import Crew, Interruption, Member, Process, replaced
from registry import SharedObject, _keeper, _line, _link, _wire
from registry._host import Attachment, Client, Host, Identity
from registry._leaves import Grant
from registry._pending import Pending
from registry._transport import DeadlinePassed, Dialed, Greeting
from registry._wire import Frame, Kind, ProtocolError
from registry.client import ManagerClient
from registry.errors import (
    Closed,
    LockLost,
    NotOwner,
    OutcomeUnknown,
    RegistryError,
    ServerNotFound,
    StateLost,
)
from registry.proxies import _locks
from registry_containers import COUNTER, DICT
from registry_queues import QUEUE
from registry_sync import LOCK, RLOCK, SEMAPHORE

START = 1_000_000.0
LIFE = 1_000_000  # more events than a life has; how far apart the numbers of the events of two lives are
ADDRESS = "simulated"
PID = 7  # of every client, so that messages have the same length whoever runs this
DECLARATIONS: dict[str, SharedObject[Any]] = {
    declaration.typeid: declaration for declaration in (COUNTER, DICT, QUEUE, LOCK, RLOCK, SEMAPHORE)
}
#: What of the product blocks, reads the clock, or draws random numbers.
MODULES: tuple[ModuleType, ...] = (_link, _line, _locks, _keeper)
KEEPER = -2  # the place of the thread that looks after a process's session


@attrs.frozen
class Recording:
    """What came of a seed.

    Attributes:
        history: The operations, the objects of each life of the server apart.
        models: Their models, by subject.
        refused: What the host said was against the protocol; no client of ours is to be told so.
        broken: What else is not as it is promised.
        stalled: Who was still waiting when the simulation gave up.
    """

    history: tuple[Operation, ...]
    models: dict[str, Model]
    refused: tuple[str, ...]
    broken: tuple[str, ...]
    stalled: tuple[str, ...]


# -- the network


class Wire:
    """One connection: two pipes, as its client sees them.

    What the client has sent stays in its pipe when the client is gone, as in a kernel.
    """

    def __init__(self, world: World, process: Program, host: Host) -> None:
        self.world = world
        self.process = process
        self.host = host
        self.attachment = Attachment("", process.name, leased=not process.is_local)
        self.attachment.sink = self
        self.reader = _wire.Reader()
        self.up = bytearray()
        self.down = bytearray()
        self.arrived = 0  # of what is on its way down
        self.closed = False  # by the client
        self.hung_up = False  # by the server, or by what is between
        self.read = True  # by the server
        self.swallows = False  # the first write after the end is not told so

    def send(self, data: bytes) -> None:
        random, crew = self.world.random, self.world.crew
        if crew.is_dead:
            return
        if random.random() < 0.3:
            crew.point()
        rest = data
        while rest:
            self._check_writable()
            size = len(rest) if random.random() < 0.85 else random.randint(1, len(rest))
            if not self.hung_up:
                self.up += rest[:size]
            rest = rest[size:]
            if rest or random.random() < 0.2:
                crew.point()

    def _check_writable(self) -> None:
        if self.closed:
            raise OSError(errno.EBADF, "closed")
        if self.hung_up and not self.swallows:
            raise BrokenPipeError(errno.EPIPE, "cut")
        self.swallows = False

    def receive(self, deadline: float | None) -> bytes:
        random, crew = self.world.random, self.world.crew
        try:
            there = crew.wait(self._is_readable, inf if deadline is None else deadline)
        except Interruption:
            if random.random() < 0.5:
                self._read()  # the kernel has given it, and nobody has it
            raise
        if not there:
            raise DeadlinePassed
        if self.closed:
            return b""
        if not self.arrived and random.random() < 0.3:
            raise ConnectionResetError(errno.ECONNRESET, "cut")
        return self._read()

    def _read(self) -> bytes:
        """Take some of what has arrived."""
        random = self.world.random
        size = self.arrived if not self.arrived or random.random() < 0.8 else random.randint(1, self.arrived)
        data = bytes(self.down[:size])
        del self.down[:size]
        self.arrived -= size
        return data

    def _is_readable(self) -> bool:
        return self.closed or self.hung_up or bool(self.arrived)

    def close(self) -> None:
        if not self.world.crew.is_dead:
            self.closed = True

    drop = close

    def cut(self) -> None:
        """End it in the middle of what is on its way."""
        random = self.world.random
        if random.random() < 0.6:
            del self.up[random.randint(0, len(self.up)) :]
        self.lose_down()
        self.hung_up = True
        self.swallows = random.random() < 0.3

    def fileno(self) -> int:
        return -1 if self.closed else 0

    def lose_down(self) -> None:
        """Let only some of what is on its way down arrive."""
        self.arrived = self.world.random.randint(self.arrived, len(self.down))
        del self.down[self.arrived :]


# -- the server


class Life(Host):
    """One life of the server, which tells of the sessions that it ends."""

    def __init__(self, world: World, number: int) -> None:
        identity = Identity(
            address="tcp://here:1", name="simulated", pid=1, since=START, host="here", version="1", python="3",
            epoch=number, life=number.to_bytes(16, "big"), plugins={},
        )  # fmt: skip
        seed = b"%d" % number
        super().__init__(DECLARATIONS, identity, seed=seed, now=world.wall, lease=world.lease)
        self.number = number
        self.engine.index += number * LIFE
        self.told = Greeting(self.greeting, ADDRESS)
        self.world = world

    def end(self, client: Client, now: float) -> None:
        known = client.key in self.clients
        begun = self.world.record.tick()
        super().end(client, now)
        if known:
            self.world.record.session_ended(self.world.sessions[client.key], self.number, begun)


# -- the clients


class Link(_link.Link):
    """A link that writes down its attempts, and gives each of its sessions numbers of its own."""

    process: Program
    count = 0

    def _new_session(self) -> None:
        self.count += 1
        super()._new_session()
        self._next = self.count * CALLS + 1

    def handle(self, typeid: str, name: str, definition: bytes) -> int:
        handle = super().handle(typeid, name, definition)
        self.process.world.record.names[self.process.name, handle] = f"{typeid}:{name}"
        return handle

    def _run(self, slot: Pending, deadline: float | None) -> Frame:
        world = self.process.world
        attempt = world.record.begin(self.process.name, world.place, slot)
        try:
            frame = super()._run(slot, deadline)
        except BaseException as error:
            world.record.end(attempt, None, error)
            self.process.heard(attempt, error)
            raise
        world.record.end(attempt, frame, None)
        self.process.heard(attempt, None)
        return frame

    def result(self, *args: Any, **kwargs: Any) -> Any:
        world, member = self.process.world, self.process.world.crew.running
        if world.may_interrupt(member) and world.chance(0.01):
            member.work.__self__.calls = False
            raise Interruption  # before the caller has what the server gave
        return super().result(*args, **kwargs)

    def _undo(self, slot: Pending) -> None:
        self.process.world.record.abandoned(slot)
        super()._undo(slot)

    def _register_later(self, slot: Pending, session: bytes) -> None:
        record = self.process.world.record
        attempt = record.begin(self.process.name, self.process.world.place, slot)
        try:
            super()._register_later(slot, session)
        finally:
            if not slot.seq:
                attempt.fate = "nothing"

    def _dismiss(self, slot: Pending) -> None:
        there = self._pending.get(slot.seq) is slot
        super()._dismiss(slot)
        if there and slot.reply is not None:
            self.process.world.record.settled(slot, slot.reply)

    def _keep(self, connected: Any = None) -> None:
        if self.kept is not None:
            return
        kept = self.kept = _keeper.Kept(self)
        kept._beat_at = self.process.world.crew.now + self.lease / 3
        if connected is not None:
            kept.note(_keeper.CONNECTED, connected)
        elif self._transport is not None:
            kept._connection, kept.state = self._transport, _keeper.CONNECTED
        self.process.world.crew.enlist(self.process, partial(self.look_after, kept), KEEPER)

    def look_after(self, kept: _keeper.Kept) -> None:
        """Do what the keeper's thread does for this session."""
        crew = self.process.world.crew
        while kept.is_wanted:
            number, events = kept.events()
            wire: Any = kept._awaited

            def said(wire: Any = wire, watched: bool = number >= 0, reads: int = events & POLLIN) -> bool:
                return watched and (wire.closed or wire.hung_up or bool(reads and wire.arrived))

            crew.wait(lambda said=said: kept._changes or said(), crew.now + kept.pause())
            kept.turn(said(), min(_keeper.ATTEMPT, self.lease / 3))
        self.kept = None

    def _hand_out(self, frame: Frame) -> None:
        slot = self._pending.get(frame.sequence)
        super()._hand_out(frame)
        if slot is not None and slot.abandoned and self._pending.get(frame.sequence) is not slot:
            self.process.world.record.settled(slot, frame)


class Program(Process):
    """A process that uses shared objects.

    Attributes:
        is_local: The server sees at once that it ends.
    """

    def __init__(self, world: World, number: int, threads: int) -> None:
        super().__init__(f"p{number}")
        self.world = world
        self.is_local = world.random.random() < 0.5
        self.patience = world.random.choice((0.5, 2.0, 10.0)) if world.calls else 1000.0
        world.making = self
        self.link = link = Link.__new__(Link)
        link.process = self
        link.__init__(self.dial, ADDRESS, timeout=self.patience, label=self.name)  # type: ignore[misc]
        self.client = ManagerClient(ADDRESS, timeout=self.patience)
        self.client._home.adopt(link)
        self.counter = self.client.counter("c")
        self.guarded = self.client.counter("g")
        self.dict = self.client.dict("d")
        self.queue = self.client.queue("q", maxsize=ROOM)
        self.lock = self.client.lock("l")
        self.rlock = self.client.rlock("r")
        self.semaphore = self.client.semaphore("s", PERMITS)
        self.grants: list[tuple[str, Grant]] = []
        self.changed = 0  # the last session in which a change was acknowledged
        self.untold: set[int] = set()  # sessions whose loss it has not been told of
        self.threads = threads
        self.away_until = 0.0  # it cannot reach the server before
        for place in range(threads):
            world.crew.enlist(self, Thread(self, place).run, place)

    def dial(self, deadline: float, resume: bool) -> Dialed:
        """Connect, or fail to."""
        world, crew = self.world, self.world.crew
        crew.point()
        back = self.away_until if self.away_until > crew.now else crew.now + 0.3 if world.chance(0.05) else 0.0
        if back:
            crew.wait(lambda: False, min(deadline, back))
            if crew.now >= deadline:
                raise DeadlinePassed
            raise OSError(errno.EHOSTUNREACH, "unreachable")
        if crew.now >= deadline:
            raise DeadlinePassed
        host = world.host
        if host is None:
            raise ServerNotFound(ADDRESS, "nothing listens there")
        wire = Wire(world, self, host)
        world.wires.append(wire)
        if world.chance(0.3):
            crew.point()
        return Dialed(wire, host.told, b"", False)

    def heard(self, attempt: Attempt, error: BaseException | None) -> None:
        """Look whether the loss of a session is told once, and to those only who had changed something."""
        # The numbers tell the session in which an attempt was answered.
        number = attempt.slot.seq // CALLS
        told = isinstance(error, (StateLost, OutcomeUnknown, LockLost, ServerNotFound))
        if told:
            self.untold.clear()
        if isinstance(error, StateLost) and not self.changed and not self.world.is_fine:
            self.world.record.broken.append(f"{self.name} had changed nothing and was told {error!r}")
        if error is None and attempt.heard is not None and attempt.heard.kind == Kind.REPLY:
            lost = {session for session in self.untold if session < number}
            if lost:
                self.world.record.broken.append(f"{self.name} was never told of the loss of its sessions {lost}")
                self.untold -= lost
            if not attempt.slot.readonly:
                self.changed = number
                if number == self.link.count and not attempt.slot.waiting:  # that might be taken back
                    self.untold.add(number)


class Thread:
    """One thread of a program: what it does, until all is wound up."""

    def __init__(self, program: Program, place: int) -> None:
        self.program = program
        self.world = program.world
        self.place = place
        self.calls = False

    def run(self) -> None:
        """Use shared objects, free them in the end, and settle what is open."""
        world, program = self.world, self.program
        while world.calls > 0:
            world.crew.point()
            world.calls -= 1
            self.attempt(getattr(self, f"use_{world.random.choice(world.kinds)}"))
            if not program.grants and world.chance(0.02):
                self.attempt(self.leave)
                return
        while program.grants:
            self.attempt(self.give_back)
            world.crew.point()

    def settle(self) -> None:
        """Make some calls that do nothing, with which all that was given up before is settled."""
        for _ in range(3):
            self.attempt(self.program.counter.get)

    def attempt(self, use: Callable[[], object]) -> None:
        """Do one thing, whatever comes of it."""
        self.world.crew.trace()
        self.calls = True
        try:
            use()
        except (RegistryError, Empty, Full, KeyError, Interruption):
            pass
        finally:
            self.calls = False

    def leave(self) -> None:
        """End this thread, which may hold the rlock, and say so."""
        link, world = self.program.link, self.world
        local = link.local
        if "rlock" in world.kinds:
            world.left.add("rlock")
            self.program.rlock.acquire(timeout=0.3)
        if local.session == link.key:
            world.record.thread_left(self.place, world.sessions[local.session])
            link.owner_ended(local.owner)

    # -- what threads do

    def use_counter(self) -> None:
        random, counter = self.world.random, self.program.counter
        verb = random.choice(("incr", "incr", "decr", "get"))
        getattr(counter, verb)(*(() if verb == "get" else (random.randint(1, 3),)))

    def use_dict(self) -> None:
        random, shared = self.world.random, self.program.dict
        key, small = random.choice("ab"), random.randint(0, 2)
        what = random.randrange(7)
        if what < 2:
            shared[key] = small
        elif what == 2:
            shared[key]
        elif what == 3:
            shared.get(key)
        elif what == 4:
            shared.pop(key, None)
        elif what == 5:
            shared.setdefault(key, small)
        else:
            del shared[key]

    def use_queue(self) -> None:
        random, queue = self.world.random, self.program.queue
        timeout = random.choice((0.0, 0.3, 1.0))
        what = random.random()
        if what < 0.4:
            self.world.items += 1
            queue.put(self.world.items, timeout=timeout)
        elif what < 0.6:
            queue.get(timeout=timeout)
        elif what < 0.7:
            queue.qsize()
        else:
            with queue.claim(timeout=timeout):
                self.work()
                if random.random() < 0.5:
                    self.program.counter.incr(1)

    def use_lock(self) -> None:
        random, lock = self.world.random, self.program.lock
        what = random.random()
        if what < 0.1:
            lock.locked()
        elif what < 0.4 and not self.program.grants:
            # For ever, which nobody does who may keep others waiting.
            self.within(lock, self.program.guarded.incr)
        elif what < 0.6:
            self.within(lock.acquire(timeout=random.choice((0.3, 1.0))), self.program.guarded.incr)
        elif self.program.grants and what < 0.8:
            self.give_back()
        else:
            self.take("lock", lock)

    def use_rlock(self) -> None:
        random, rlock = self.world.random, self.program.rlock
        what = random.random()
        if what < 0.1:
            rlock.locked()
        elif what < 0.6:
            again = partial(self.within, rlock, self.work)
            self.within(rlock.acquire(timeout=random.choice((0.3, 1.0, 3.0))), again)
        elif self.program.grants and what < 0.8:
            self.give_back()
        else:
            self.take("rlock", rlock)

    def use_semaphore(self) -> None:
        random, semaphore = self.world.random, self.program.semaphore
        what = random.random()
        if what < 0.1:
            semaphore.value()
        elif what < 0.4 and not self.program.grants:
            self.within(semaphore, self.work)
        elif self.program.grants and what < 0.7:
            self.give_back()
        else:
            self.take("semaphore", semaphore)

    def within(self, held: Any, use: Callable[[], object]) -> None:
        """Do something inside a block, some times."""
        with held:
            for _ in range(self.world.random.randint(0, 2)):
                self.work()
                use()

    def take(self, kind: str, lock: Any) -> None:
        """Acquire and keep it."""
        random = self.world.random
        if random.random() < 0.3:
            grant = lock.acquire(False)
        else:
            grant = lock.acquire(timeout=random.choice((0.3, 1.0, 3.0)))
        if grant:
            self.program.grants.append((kind, grant))

    def give_back(self) -> None:
        """Release something, unless it is lost."""
        kept = self.program.grants.pop()
        try:
            kept[1].release()
        except (NotOwner, LockLost, Closed):
            pass  # an earlier attempt has done it, or somebody has taken it
        except BaseException:
            if self.program.alive:
                self.program.grants.append(kept)
            raise

    def work(self) -> None:
        """Spend some time on something else."""
        random, crew = self.world.random, self.world.crew
        if random.random() < 0.3:
            crew.wait(lambda: False, crew.now + random.choice((0.01, 0.3, 1.0)))


# -- all of it


class World:
    """A server, its clients, and the pipes between them.

    Args:
        seed: Draws everything.
        kinds: Which types are used.
        calls: How many things are done before all is wound up.
    """

    def __init__(self, seed: int, kinds: tuple[str, ...] = KINDS, calls: int = 60) -> None:
        self.random = random = Random(seed)
        self.kinds = kinds
        self.calls = calls
        self.items = 0
        self.is_fine = random.random() < 0.25
        self.crew = Crew(random, random.choice((0.01, 0.05)) if self.is_fine else 0.0, [_link.__file__])
        self.record = Record()
        self.lease = random.choice((0.3, 1.0, 5.0, 30.0))
        # Some seeds are quiet, so that long stretches without trouble are seen too.
        self.trouble = random.choice((0.0, 0.5, 1.0, 2.0))
        self.restarts = random.random() < 0.4
        self.refused: list[str] = []
        self.sessions: dict[bytes, str] = {}
        self.wires: list[Wire] = []
        self.programs: list[Program] = []
        self.dead: list[Program] = []
        self.making: Program | None = None
        self.left: set[str] = set()  # the types of which something may be held by nobody
        self.life = 1
        self.host: Life | None = Life(self, 1)

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
        others = {
            "os": SimpleNamespace(urandom=self.draw_key, getpid=lambda: PID, path=os.path),
            "_host": lambda: "here",
            "_command": lambda: "test",
            "thread_name": lambda: "a thread",
            "clock": lambda: self.crew.now,
            "_keeper": SimpleNamespace(wake=lambda: None),
            "_is_writable": lambda number: True,
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
        history = self.record.history()
        return Recording(
            history, self.record.models(history), tuple(self.refused), tuple(self.record.broken), tuple(stalled)
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
        self.calls, self.trouble = 0, 0.0
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
        living = {program.link.key for program in self.programs if program.alive}
        return any(key not in living for key in self.host.clients)

    def turn(self) -> None:
        """Let one thing happen."""
        self.crew.now += 0.0005
        able = self.crew.able()
        ups = [wire for wire in self.wires if wire.up or wire.closed or wire.hung_up]
        downs = [wire for wire in self.wires if wire.arrived < len(wire.down)]
        trouble = self.trouble
        due = self.host.next_due() if self.host is not None else None
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
        if self.dead:
            things.append((self.bury, 1))
        if trouble:
            things += [(self.cut, trouble / 2), (self.interrupt, trouble), (self.die, trouble / 10)]
            if self.restarts and self.host is not None and self.life < 5:
                things.append((self.crash, trouble / 15))
        if len(things) == 1:
            self.pass_time(inf)  # nothing else can happen
            return
        self.random.choices([thing for thing, _ in things], [weight for _, weight in things])[0]()

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
                if frame.kind == Kind.ATTACH:
                    key = _wire.decode_attach(frame.body).key
                    self.record.attached(self.sessions[key], host.number)
                host.receive(wire.attachment, frame, self.wall)
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
        if open_ones:
            wire = self.random.choice(open_ones)
            wire.cut()
            if self.random.random() < 0.1:
                wire.process.away_until = self.crew.now + self.random.choice((0.5, 1.0, 4.0))

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

    def is_of(self, key: bytes, program: Program) -> bool:
        """Tell whether a session is one of a process."""
        return self.sessions[key].partition(".")[0] == program.name

    def crash(self) -> None:
        """Kill the server, with all that it has in its memory."""
        for wire in self.wires:
            wire.cut()
            wire.up.clear()
        self.wires.clear()
        self.host = None

    def revive(self) -> None:
        """Let a server come, which remembers nothing."""
        self.life += 1
        self.host = Life(self, self.life)

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
            slots = [slot for slot in program.link._pending.values() if slot.abandoned]
            if slots and program.link.key in host.clients:
                broken.append(f"{program.name} has calls that are not settled: {[slot.seq for slot in slots]}")
        for (typeid, name), hosted in host.engine.objects.items():
            found = host.statistics(typeid, name)
            held = found.get("holder") or found.get("claims") or found.get("holders")
            if held and typeid not in self.left:
                broken.append(f"{typeid}:{name} is held by {held} at the end")
            if hosted.waits:
                broken.append(f"{typeid}:{name} has {len(hosted.waits)} who wait at the end")
        for number, session in host.engine.sessions.items():
            if session.waits:
                broken.append(f"session {number} waits at the end")

    def audit(self) -> list[str]:
        """Let all leave, and let one who is new ask for everything, so that nothing is missing unnoticed."""
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
    return World(seed, kinds, calls).run()
