"""The programs of the simulation in `clients`, and the connections that they make.

A program is a process with some threads, which use shared objects by `ManagerClient` and proxies as anybody does. Below
is the real `Link`, which only tells what it asks for and hears; below that are pipes that the simulation moves.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from math import inf
from queue import Empty, Full
from select import POLLIN
from typing import TYPE_CHECKING, Any

from linearizability.attempts import CALLS, PERMITS, ROOM, Attempt
from linearizability.crew import Interruption, Process
from registry import _keeper, _link, _wire
from registry._attachments import Attachment
from registry._host import Host
from registry._leaves import Grant
from registry._pending import Pending
from registry._transport import DeadlinePassed, Dialed
from registry._wire import Frame, Kind
from registry.client import ManagerClient
from registry.errors import Closed, LockLost, NotOwner, OutcomeUnknown, RegistryError, ServerNotFound, StateLost

if TYPE_CHECKING:
    from linearizability.clients import World

ADDRESS = "simulated"
LOSSES = (StateLost, OutcomeUnknown, LockLost, ServerNotFound)
KEEPER = -2  # the place of the thread that looks after a process's session


# -- the network


class Wire:
    """One connection: two pipes, as its client sees them.

    What the client has sent stays in its pipe when the client is gone, as in a kernel.
    """

    def __init__(self, world: World, process: Program, host: Host) -> None:
        self.world = world
        self.process = process
        self.host = host
        self.attachment = Attachment("here" * process.is_local, process.name, leased=not process.is_local)
        self.attachment.sink = self
        self.reader = _wire.Reader()
        self.up = bytearray()
        self.down = bytearray()
        self.arrived = 0  # of what is on its way down
        self.closed = False  # by the client
        self.hung_up = False  # by the server, or by what is between
        self.read = True  # by the server
        self.swallows = False  # the first write after the end is not told so
        self.losses = len(world.record.losses)  # of what had been answered, by now

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

    def is_quiet(self) -> bool:
        return not self._is_readable()

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


# -- the clients


class Link(_link.Link):
    """A link that writes down its attempts, and gives each of its sessions numbers of its own."""

    process: Program
    reads_from: Wire
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
            world.record.may_be_lost(attempt)
            raise
        world.record.end(attempt, frame, None)
        self.process.heard(attempt, None)
        world.record.may_be_lost(attempt)
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
            record = self.process.world.record
            record.settled(slot, slot.reply)
            record.may_be_lost(record.by_slot[id(slot)])

    def keep(self, connected: Any = None) -> None:
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

    def _read(self, transport: Any, deadline: float | None) -> None:
        self.reads_from = transport
        super()._read(transport, deadline)

    def _hand_out(self, frame: Frame) -> None:
        slot = self._pending.get(frame.sequence)
        record = self.process.world.record
        answers = slot is not None and (not slot.abandoned or frame.kind in (Kind.CANCELLED, Kind.STANDS))
        seen = record.arrived(slot, frame, self.reads_from.losses) if answers else 0
        try:
            super()._hand_out(frame)
        except _wire.ProtocolError:
            if answers:
                record.dropped(slot, seen)
            raise
        if slot is not None and slot.abandoned and self._pending.get(frame.sequence) is not slot:
            record.settled(slot, frame)
            record.may_be_lost(record.by_slot[id(slot)])


def _says(wire: Any, events: int) -> bool:
    """Tell whether a connection has what `poll` was asked for."""
    return wire.closed or wire.hung_up or bool(events & POLLIN and wire.arrived)


def _has_to_do(kept: _keeper.Kept, says: Callable[[], bool]) -> bool:
    return bool(kept._changes) or says()


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
        self.unsaid: dict[int, float] = {}  # those of them after which it was answered all the same, and when
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
        return Dialed(wire, host.told, b"", self.is_local)

    def heard(self, attempt: Attempt, error: BaseException | None) -> None:
        """Look whether the loss of a session is told once, and to those only who had changed something."""
        # The numbers tell the session in which an attempt was answered.
        number = attempt.slot.seq // CALLS
        # An interrupt that comes as a loss is raised has it as its context.
        context = error
        while context is not None and not isinstance(context, LOSSES):
            context = context.__context__
        told = context is not None
        if told:
            self.untold.clear()
            # Another thread may have been answered while this one was on its way to be told.
            self.unsaid = {session: when for session, when in self.unsaid.items() if when < attempt.begun}
        if isinstance(error, StateLost) and not self.changed and not self.world.is_fine:
            self.world.record.broken.append(f"{self.name} had changed nothing and was told {error!r}")
        if error is None and attempt.heard is not None and attempt.heard.kind in (Kind.REPLY, Kind.SHOWN):
            lost = {session for session in self.untold if session < number}
            self.unsaid |= dict.fromkeys(lost, self.world.record.time)
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
        link = self.program.link
        for _ in range(10):
            self.program.client._home.cache.forget("counter", "c")  # or else it is no call
            self.attempt(lambda: self.program.counter.get())
            if not any(slot.abandoned or slot.unattended for slot in link._pending.values()):
                return

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
        if verb == "get":
            self.look("counter:c", "get", None, counter.get)
        else:
            getattr(counter, verb)(random.randint(1, 3))

    def use_dict(self) -> None:
        random, shared = self.world.random, self.program.dict
        key, small = random.choice("ab"), random.randint(0, 2)
        what = random.randrange(7)
        if what < 2:
            shared[key] = small
        elif what == 2:
            self.look("dict:d", "__getitem__", (key,), lambda: shared[key])
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
            self.look("queue:q", "qsize", None, queue.qsize)
        else:
            with queue.claim(timeout=timeout):
                self.work()
                if random.random() < 0.5:
                    self.program.counter.incr(1)

    def use_lock(self) -> None:
        random, lock = self.world.random, self.program.lock
        what = random.random()
        if what < 0.05:
            self.look("lock:l", "locked", None, lock.locked)
        elif what < 0.15:
            lock.release()  # whoever of this process has acquired it, and relies on it
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
            self.look("rlock:r", "locked", None, rlock.locked)
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
            self.look("semaphore:s", "value", None, semaphore.value)
        elif what < 0.4 and not self.program.grants:
            self.within(semaphore, self.work)
        elif self.program.grants and what < 0.7:
            self.give_back()
        else:
            self.take("semaphore", semaphore)

    def look(self, subject: str, verb: str, argument: Any, read: Callable[[], Any]) -> None:
        """Read something once or a few times. What is answered without a request is written down here."""
        program, world = self.program, self.world
        link, record = program.link, world.record
        for _ in range(world.random.choice((1, 3, 6))):
            begun, words, before = record.tick(), link.words, len(record.attempts)
            result = read()
            made = [attempt for attempt in record.attempts[before:] if attempt.client == program.name]
            # Where the connection was replaced meanwhile nobody can say from here which life has answered.
            if words and link.words is words and not any(attempt.thread == self.place for attempt in made):
                session, life = f"{program.name}.{link.count}", int(words._told.path)
                record.looked(session, self.place, subject, verb, argument, begun, result, life)
                world.hits += 1
            world.crew.point()

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
