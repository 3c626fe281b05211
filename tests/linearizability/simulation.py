"""Record histories from a real host and engine, with callers behind a network that is drawn from a seed.

Everything between the callers and the host is bytes in pipes, and one random number generator decides what
happens next: which pipe moves by how much, which connection is cut and where, who is interrupted, who dies, how
far the clock goes. The host, the engine, the frames and the types are the real ones. So a seed is a history:
`record(seed)` gives the same operations as often as it is asked.

The callers follow the rules of a client: one session each, several threads with one call under way, replies
acknowledged by mark and set, a new connection with the next generation that begins with the cancels and goes on
with what is unanswered. What they do not do is to lose a session: their server lives on. In `restarts` it does not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from math import inf
from random import Random
from typing import Any

import attrs
import msgspec

from linearizability.checker import UNKNOWN, Model, Operation
from linearizability.models import Counter, DictKeys, FairLock, Queue, Semaphore
from registry import SharedObject, _codec, _wire
from registry._attachments import Attachment, Identity
from registry._host import Host
from registry._leaves import Carried, Grant
from registry._wire import Frame, Kind, ProtocolError
from registry.errors import NoSuchObject
from registry_containers import COUNTER, DICT
from registry_queues import QUEUE
from registry_sync import LOCK, SEMAPHORE

START = 1_000_000.0
DECLARATIONS: dict[str, SharedObject[Any]] = {
    declaration.typeid: declaration for declaration in (COUNTER, DICT, QUEUE, LOCK, SEMAPHORE)
}
KINDS = ("counter", "dict", "queue", "lock", "semaphore")
ROOM = 2  # in the queue
PERMITS = 2  # of the semaphore

#: What each of the shared objects may answer.
MODELS: Mapping[str, Model] = {
    "counter:c": Counter(),
    "dict:d": DictKeys(),
    "queue:q": Queue(ROOM),
    "lock:l": FairLock(),
    "semaphore:s": Semaphore(PERMITS),
}
SUBJECTS = {subject.partition(":")[0]: subject for subject in MODELS}
DEFINITIONS = {
    **dict.fromkeys(MODELS, _codec.encode_arguments((), {})),
    "queue:q": _codec.encode_arguments((), {"maxsize": ROOM}),
    "semaphore:s": _codec.encode_arguments((PERMITS,), {}),
}

IDENTITY = Identity(
    address="memory://",
    name="simulated",
    pid=1,
    since=START,
    host="here",
    version="1",
    python="3",
    epoch=1,
    life=bytes(16),
    plugins={},
)


@attrs.frozen
class Recording:
    """What came of a seed.

    Attributes:
        history: The operations.
        refused: What the host said was against the protocol; no caller of ours is to be told so.
        stalled: Whether calls were still on their way when the simulation gave up waiting for them.
    """

    history: tuple[Operation, ...]
    refused: tuple[str, ...]
    stalled: bool


class Connection:
    """Two pipes. What the caller has sent stays in its pipe when the caller is gone, as in a kernel."""

    def __init__(self, label: str) -> None:
        self.attachment = Attachment("", label)
        self.attachment.sink = self
        self.up: deque[bytes] = deque()
        self.down: deque[bytes] = deque()
        self.server = _wire.Reader()
        self.caller = _wire.Reader()
        self.defined: set[str] = set()
        self.attached = False  # the caller has heard so
        self.open = True  # at the caller's end
        self.read = True  # at the server's end


@attrs.define(eq=False)
class Pending:
    """A call on its way.

    Attributes:
        seq: Its number in its session.
        thread: Which thread of the session it is from.
        verb: The method and its arguments as the model takes them; `method`, `given` and `named` are those of the
            object.
        invoked: When it began.
        deadline: When it gives up by itself, if it does.
        told: The replies that it acknowledges; `sure` tells whether its own reply proves that the server knows.
        settle: Whether its cancel is to undo what it has done, if it was cancelled; `since` when.
    """

    seq: int
    thread: int
    subject: str
    verb: str
    argument: Any
    method: str
    given: tuple[Any, ...]
    invoked: float
    named: dict[str, Any] = attrs.field(factory=dict)
    deadline: float | None = None
    told: frozenset[int] = frozenset()
    sure: bool = True
    settle: bool | None = None
    since: float = 0.0

    @property
    def waits(self) -> bool:
        """Whether what it gives can be taken back."""
        return self.method in DECLARATIONS[self.subject.partition(":")[0]].interface.waiting

    @property
    def reads(self) -> bool:
        """Whether it leaves no trace."""
        return self.verb == "look" or self.method in DECLARATIONS[self.subject.partition(":")[0]].interface.readonly


class Caller:
    """One session, with its threads."""

    def __init__(self, number: int, threads: int) -> None:
        self.name = f"s{number}"
        self.key = number.to_bytes(16, "big")
        self.threads: list[Pending | None] = [None] * threads
        self.pending: dict[int, Pending] = {}
        self.heard: set[int] = set()
        # What it got and might have to give back, until the server is known to know that it has it.
        self.unconfirmed: dict[int, str] = {}
        self.next = 1
        self.generation = 0
        self.connection: Connection | None = None
        # What it tells when it comes back: the server that it was attached to, and what it has seen of it.
        self.life = b""
        self.applied = 0
        self.acknowledged = 0
        self.token: int | None = None  # of the lock that it holds
        self.permits: list[int] = []  # of the semaphore
        self.alive = True
        self.died = 0.0
        self.owing: dict[int, str] = {}  # what it had called and not heard of when it died

    @property
    def mark(self) -> int:
        """The received mark."""
        return min(self.pending, default=self.next) - 1


class Simulation:
    """A host, its callers, and the pipes between them.

    Args:
        seed: Draws everything.
        kinds: Which types are called.
        calls: How many calls are made before all is wound up.
    """

    def __init__(self, seed: int, kinds: tuple[str, ...] = KINDS, calls: int = 60) -> None:
        self.random = Random(seed)
        self.kinds = kinds
        self.calls = calls
        self.now = START
        self.time = 0.0
        self.seed = seed
        self.host = self.make_host()
        self.callers: list[Caller] = []
        self.buried: list[Caller] = []
        self.connections: list[Connection] = []
        self.items = 0
        self.history: list[Operation] = []
        self.refused: list[str] = []
        # Some seeds are quiet, so that long stretches without trouble are seen too.
        self.trouble = self.random.choice((0.0, 0.5, 1.0, 2.0))
        for _ in range(self.random.randint(2, 4)):
            self.join()

    def make_host(self) -> Host:
        """Begin a life of the server."""
        return Host(DECLARATIONS, IDENTITY, seed=b"%d" % self.seed, now=START, lease=inf)

    # -- the whole course --------------------------------------------------------------------------

    def run(self) -> Recording:
        """Let the callers call, wind up, and look at what is left."""
        for _ in range(40 * self.calls):  # or else all might wait for each other
            self.turn()
            if self.calls <= 0:
                break
        stalled = not self.settle()
        self.audit()
        return Recording((*self.history, *self.open_ends()), tuple(self.refused), stalled)

    def turn(self) -> None:
        """Let one thing happen."""
        things = self.things()
        thing = self.random.choices([thing for thing, _ in things], [weight for _, weight in things])[0]
        self.tick()
        thing()

    def things(self) -> list[tuple[Callable[[], object], float]]:
        """Return what may happen, each with its weight."""
        trouble = self.trouble
        return [
            (self.some_call, 10),
            (self.some_bytes_up, 14),
            (self.some_bytes_down, 14),
            (self.pass_time, 1),
            (self.some_cut, trouble),
            (self.some_cancel, trouble),
            (self.some_death, trouble / 3),
            (self.some_burial, 1),
        ]

    def tick(self) -> float:
        """Return the next moment."""
        self.time += 1
        self.now += 0.001
        return self.time

    def settle(self) -> bool:
        """Deliver everything, bury the dead, and free what is held; False where that comes to no end."""
        self.calls = 0
        self.trouble = 0.0
        for _ in range(2_000):
            self.tick()
            moved = self.serve()
            for connection in list(self.connections):
                moved |= self.bytes_up(connection) | self.bytes_down(connection)
            for caller in [caller for caller in self.callers if not caller.alive]:
                self.bury(caller)
                moved = True
            for caller in self.callers:
                if caller.connection is None:
                    self.connect(caller)
                    moved = True
                elif caller.token is not None and None in caller.threads:
                    self.call(caller, "lock")
                    moved = True
                elif caller.permits and None in caller.threads:
                    self.call(caller, "semaphore")
                    moved = True
            if not moved and (self.host.next_due() or inf) < inf:
                self.pass_time()
                moved = True
            if not moved:
                return True
        return False

    def serve(self) -> bool:
        """Let the server do what it does by itself, while all is wound up; False where there is nothing to do."""
        return False

    def audit(self) -> None:
        """Ask one who is new for everything that is there, so that nothing can be missing unnoticed."""
        auditor = self.join()
        questions: list[tuple[str, str, Any, str, tuple[Any, ...]]] = []
        if "counter" in self.kinds:
            questions.append(("counter", "get", None, "get", ()))
        if "dict" in self.kinds:
            questions += [("dict", "get", (key,), "get", (key,)) for key in "ab"]
        if "lock" in self.kinds:
            questions.append(("lock", "look", None, "look", ()))
            questions.append(("lock", "acquire", "try", "acquire", (False,)))
        if "semaphore" in self.kinds:
            questions.append(("semaphore", "value", None, "value", ()))
            questions += [("semaphore", "acquire", "try", "acquire", (False,))] * (PERMITS + 1)
        if "queue" in self.kinds:
            questions += [("queue", "get", None, "get", (False,))] * (ROOM + 4)
        for kind, verb, argument, method, given in questions:
            self.start(auditor, 0, kind, verb, argument, method, *given)
            for _ in range(8):
                self.tick()
                if auditor.connection is not None:
                    self.bytes_up(auditor.connection)
                    self.serve()
                    self.bytes_down(auditor.connection)

    # -- what may happen ---------------------------------------------------------------------------

    def some_call(self) -> None:
        """Let a thread that does nothing call something."""
        idle = [caller for caller in self.callers if caller.alive and None in caller.threads]
        if idle:
            self.calls -= 1
            self.call(self.random.choice(idle), self.random.choice(self.kinds))

    def some_bytes_up(self) -> None:
        """Let the server read from a connection."""
        ready = [connection for connection in self.connections if connection.up]
        if ready:
            self.bytes_up(self.random.choice(ready))

    def some_bytes_down(self) -> None:
        """Let a caller read from its connection."""
        ready = [connection for connection in self.connections if connection.down]
        if ready:
            self.bytes_down(self.random.choice(ready))

    def pass_time(self) -> None:
        """Let time pass, and with it what was to happen by then."""
        self.now += self.random.choice((0.1, 0.5, 2.0))
        self.host.advance(self.now)
        self.collect()

    def some_cut(self) -> None:
        """Cut a connection; or make a new one, where one was cut."""
        caller = self.random.choice(self.callers)
        if not caller.alive:
            return
        if caller.connection is None:
            self.connect(caller)
            return
        self.cut(caller)
        if self.random.random() < 0.7:
            self.connect(caller)

    def some_cancel(self) -> None:
        """Let a thread give up what it waits for, or only the waiting."""
        waiting = [
            (caller, pending)
            for caller in self.callers
            if caller.alive
            for pending in caller.pending.values()
            if pending.settle is None and pending.verb != "look"
        ]
        if not waiting:
            return
        caller, pending = self.random.choice(waiting)
        pending.settle = self.random.random() < 0.6
        pending.since = self.time
        if pending.settle and self.random.random() < 0.5:
            # An interrupted connection is not to be trusted any more.
            self.cut(caller)
            self.connect(caller)
        elif caller.connection is not None and caller.connection.attached:
            self.send_cancel(caller, pending)

    def some_death(self) -> None:
        """Kill a session, or let it say goodbye. Another one comes."""
        living = [caller for caller in self.callers if caller.alive]
        if len(living) < 2 or len(self.buried) > 3:
            return
        caller = self.random.choice(living)
        connection = caller.connection
        if connection is not None and connection.attached and not caller.pending and self.random.random() < 0.5:
            above = sorted(seq for seq in caller.heard if seq > caller.mark)
            self.send(caller, connection, Kind.GOODBYE, 0, _wire.encode(above) if above else b"", caller.mark)
        self.die(caller)
        self.join()

    def die(self, caller: Caller) -> None:
        """End a session, with all that it was about."""
        caller.alive = False
        caller.died = self.time
        caller.owing = {seq: pending.subject for seq, pending in caller.pending.items()}
        caller.connection = None
        for other in self.connections:
            if other.attachment.label == caller.name:
                other.open = False

    def some_burial(self) -> None:
        """Let the server learn of a death, after it has read what the dead had sent."""
        dead = [caller for caller in self.callers if not caller.alive]
        if dead:
            self.bury(self.random.choice(dead))

    # -- callers -----------------------------------------------------------------------------------

    def join(self) -> Caller:
        """Add a session."""
        caller = Caller(len(self.callers) + len(self.buried) + 1, self.random.choice((1, 1, 2)))
        self.callers.append(caller)
        self.connect(caller)
        return caller

    def bury(self, caller: Caller) -> None:
        """End the session of one who is dead."""
        for connection in [other for other in self.connections if other.attachment.label == caller.name]:
            # What was sent has arrived, or died in the sender's own buffers.
            while connection.up and self.random.random() < 0.9:
                self.bytes_up(connection)
            connection.up.clear()
            self.hang_up(connection)
        client = self.host.clients.get(caller.key)
        if client is not None:
            self.host.end(client, self.now)
            self.collect()
        self.callers.remove(caller)
        self.buried.append(caller)
        self.note_end(caller)

    def note_end(self, caller: Caller) -> None:
        """Add to the history that a session has ended."""
        for end in self.ends(caller, None, self.tick()):
            self.note(end)

    def ends(self, caller: Caller, result: Any, returned: float) -> list[Operation]:
        """Return what the end of a session is for each object."""
        rows = []
        for subject in [SUBJECTS[kind] for kind in ("queue", "lock", "semaphore") if kind in self.kinds]:
            found = {seq: True for seq, other in caller.owing.items() if other == subject}
            found |= {seq: False for seq, other in caller.unconfirmed.items() if other == subject}
            unheard = tuple(((caller.name, seq), certain) for seq, certain in sorted(found.items()))
            rows.append(
                Operation(
                    process=caller.name,
                    verb="end",
                    argument=unheard,
                    result=result,
                    invoked=caller.died,
                    returned=returned,
                    subject=subject,
                )
            )
        return rows

    def connect(self, caller: Caller) -> None:
        """Make a new connection and attach the session to it."""
        caller.generation += 1
        connection = caller.connection = Connection(caller.name)
        self.connections.append(connection)
        known, sent, seen = bool(caller.life), caller.next - 1, caller.acknowledged
        who = (caller.key, 0, "", "test", caller.name, "1")
        hello = _wire.Attach(*who, seen, {}, known, caller.life, caller.applied, sent)
        self.send(caller, connection, Kind.ATTACH, 0, _wire.encode(hello))

    def cut(self, caller: Caller) -> None:
        """Cut the present connection. What was sent may still be read by the server, whole or not."""
        connection, caller.connection = caller.connection, None
        if connection is not None:
            connection.open = False
            connection.down.clear()
            keep = self.random.randint(0, len(connection.up))
            rest = list(connection.up)[keep:]
            while len(connection.up) > keep:
                connection.up.pop()
            if rest and self.random.random() < 0.3:
                connection.up.append(rest[0][: self.random.randint(1, len(rest[0]) - 1)])

    def call(self, caller: Caller, kind: str) -> None:
        """Let a thread that does nothing call something of a type."""
        draw = self.random
        thread = draw.choice([place for place, pending in enumerate(caller.threads) if pending is None])
        if kind == "counter":
            verb = draw.choice(("incr", "incr", "decr", "get"))
            by = None if verb == "get" else draw.randint(1, 3)
            self.start(caller, thread, kind, verb, by, verb, *(() if by is None else (by,)))
        elif kind == "dict":
            self.call_dict(caller, thread)
        elif kind == "queue":
            timeout = draw.choice((None, 0.3, 1.0))
            named = {"block": False} if draw.random() < 0.3 else {"timeout": timeout}
            verb = draw.choice(("put", "put", "get", "get", "qsize"))
            if verb == "qsize":
                self.start(caller, thread, kind, verb, None, verb)
            elif verb == "get":
                self.start(caller, thread, kind, verb, None, verb, **named)
            else:
                self.items += 1
                self.start(caller, thread, kind, verb, self.items, verb, self.items, **named)
        elif kind == "lock":
            self.call_lock(caller, thread)
        else:
            self.call_semaphore(caller, thread)

    def call_dict(self, caller: Caller, thread: int) -> None:
        """Let a thread call something of the dict that is about one key."""
        draw = self.random
        key = draw.choice("ab")
        small = draw.randint(0, 2)
        verb, *given = draw.choice(
            (
                ("__setitem__", small),
                ("__setitem__", small),
                ("__getitem__",),
                ("get",),
                ("__contains__",),
                ("__delitem__",),
                ("pop", None),
                ("setdefault", small),
                ("incr", 3),
                ("compare_and_set", small, draw.randint(0, 2)),
                ("compare_and_set", small, draw.randint(0, 2)),
            )
        )
        self.start(caller, thread, "dict", verb, (key, *given), verb, key, *given)

    def call_lock(self, caller: Caller, thread: int) -> None:
        """Let a thread call something of the lock."""
        draw = self.random
        if caller.token is not None and (self.calls <= 0 or draw.random() < 0.7):
            token, caller.token = caller.token, None
            self.start(caller, thread, "lock", "release", token, "release", token)
            return
        what = draw.random()
        if what < 0.1:
            self.start(caller, thread, "lock", "release", None, "release")
        elif what < 0.4:
            self.start(caller, thread, "lock", "look", None, "look")
        elif what < 0.5:
            self.start(caller, thread, "lock", "locked", None, "locked")
        elif what < 0.7:
            self.start(caller, thread, "lock", "acquire", "try", "acquire", False)
        else:
            timeout = draw.choice((None, None, 0.3, 1.0))
            self.start(caller, thread, "lock", "acquire", "wait", "acquire", timeout=timeout)

    def call_semaphore(self, caller: Caller, thread: int) -> None:
        """Let a thread call something of the semaphore."""
        draw = self.random
        what = draw.random()
        if caller.permits and (self.calls <= 0 or what < 0.5):
            token = caller.permits.pop(draw.randrange(len(caller.permits)))
            self.start(caller, thread, "semaphore", "release", token, "release", number=token)
        elif what < 0.6:
            self.start(caller, thread, "semaphore", "value", None, "value")
        elif what < 0.75:
            self.start(caller, thread, "semaphore", "acquire", "try", "acquire", False)
        else:
            timeout = draw.choice((None, None, 0.3, 1.0))
            self.start(caller, thread, "semaphore", "acquire", "wait", "acquire", timeout=timeout)

    def start(
        self,
        caller: Caller,
        thread: int,
        kind: str,
        verb: str,
        argument: Any,
        method: str,
        *given: Any,
        **named: Any,
    ) -> None:
        """Begin a call."""
        pending = Pending(caller.next, thread, SUBJECTS[kind], verb, argument, method, given, self.tick(), named=named)
        if named.get("timeout") is not None:
            pending.deadline = self.now + named["timeout"]
        caller.next += 1
        caller.pending[pending.seq] = pending
        caller.threads[thread] = pending
        if caller.connection is not None and caller.connection.attached:
            self.send_call(caller, pending)

    # -- frames ------------------------------------------------------------------------------------

    def send(self, caller: Caller, connection: Connection, kind: int, seq: int, body: bytes, received: int = 0) -> None:
        """Put a frame on its way."""
        connection.up.append(_wire.pack(kind, body, generation=caller.generation, sequence=seq, received=received))

    def send_call(self, caller: Caller, pending: Pending, again: bool = False) -> None:
        """Send a call, or send it again."""
        connection, seq = caller.connection, pending.seq
        if connection is None:
            return
        mark = min(caller.mark, seq - 1)
        pending.told = frozenset(other for other in caller.heard if other < seq)
        # A wait that is sent again may end before the frame is read that says so.
        pending.sure = pending.verb != "look" and not (again and pending.waits)
        if pending.verb == "look":
            question = msgspec.Raw(_codec.encode([list(pending.subject.split(":")), {}]))
            body = _wire.encode(_wire.ControlBody("statistics", question))
            self.send(caller, connection, Kind.CONTROL, seq, body, mark)
            return
        typeid, _, name = pending.subject.partition(":")
        fields: dict[int, Any] = {_wire.OWNER: pending.thread + 1}
        above = sorted(other for other in pending.told if other > mark)
        if above:
            fields[_wire.RECEIVED_SET] = above
        if again and pending.deadline is not None:
            fields[_wire.REMAINING] = max(0.0, pending.deadline - self.now)
        if pending.subject not in connection.defined:
            connection.defined.add(pending.subject)
            fields[_wire.DEFINITION] = [typeid, name, msgspec.Raw(DEFINITIONS[pending.subject])]
        carried = DECLARATIONS[typeid].interface.carried.get(pending.method)
        arguments = _codec.encode_arguments(pending.given, pending.named, carried)
        raw = {number: msgspec.Raw(_wire.encode(value)) for number, value in fields.items()}
        handle = list(MODELS).index(pending.subject) + 1
        call = _wire.CallBody(handle, pending.method, msgspec.Raw(arguments), raw)
        self.send(caller, connection, Kind.CALL, seq, _wire.encode(call), mark)

    def send_cancel(self, caller: Caller, pending: Pending) -> None:
        """Ask for a call to be settled."""
        if caller.connection is not None:
            body = _wire.encode(_wire.CancelBody(bool(pending.settle)))
            self.send(caller, caller.connection, Kind.CANCEL, pending.seq, body, caller.mark)

    def bytes_up(self, connection: Connection) -> bool:
        """Let the server read a piece; False where there is nothing more to read."""
        if not connection.up:
            if not connection.open and connection.read:
                self.hang_up(connection)
                return True
            return False
        connection.server.feed(connection.up.popleft())
        for frame in connection.server:
            try:
                self.host.receive(connection.attachment, frame, self.now)
            except ProtocolError as error:
                # One that was overtaken by the next connection of its session is told so, and rightly.
                if frame.kind != Kind.ATTACH:
                    self.refused.append(str(error))
                self.collect()
                connection.up.clear()
                connection.open = False
                self.hang_up(connection)
                for caller in self.callers:
                    if caller.connection is connection:
                        caller.connection = None
                return True
        self.collect()
        return True

    def hang_up(self, connection: Connection) -> None:
        """Let the server see the end of a connection."""
        connection.read = False
        self.host.detach(connection.attachment, self.now)
        if connection in self.connections:
            self.connections.remove(connection)

    def collect(self) -> None:
        """Take what the host has to send."""
        for attachment in self.host.dirty:
            connection: Connection = attachment.sink
            if connection.open:
                connection.down.extend(attachment.outbox)
            attachment.outbox.clear()
        self.host.dirty.clear()

    def bytes_down(self, connection: Connection) -> bool:
        """Let a caller read a piece; False where there is nothing to read."""
        if not connection.down:
            return False
        connection.caller.feed(connection.down.popleft())
        for caller in self.callers:
            if caller.connection is connection:
                for frame in connection.caller:
                    self.hear(caller, connection, frame)
        return True

    def hear(self, caller: Caller, connection: Connection, frame: Frame) -> None:
        """Take one frame as a client does."""
        if frame.kind == Kind.ATTACHED:
            if not self.may_go_on(caller, _wire.decode_attached(frame.body)):
                return
            caller.life = self.host.identity.life
            connection.attached = True
            for pending in caller.pending.values():
                if pending.settle is not None:
                    self.send_cancel(caller, pending)
            for pending in caller.pending.values():
                if pending.settle is None:
                    self.send_call(caller, pending, again=True)
            return
        heard = caller.pending.get(frame.sequence)
        if heard is None or frame.generation != caller.generation:
            return
        if heard.settle and frame.kind in (Kind.REPLY, Kind.ERROR):
            return  # its own, which was on its way; the undo is answered by another kind
        if (
            heard.settle is None
            and heard.waits
            and frame.kind == Kind.REPLY
            and self.random.random() < 0.05 * self.trouble
        ):
            # Interrupted just before the caller had it.
            heard.settle = True
            heard.since = self.time
            self.send_cancel(caller, heard)
            return
        self.finish(caller, heard, frame)

    def may_go_on(self, caller: Caller, answer: _wire.Attached) -> bool:
        """Look at what a session was told that has attached; False where it is lost."""
        if caller.life and not answer.resumed:
            self.refused.append(f"{caller.name}: {answer.reason}")
        return True

    def confirm(self, caller: Caller, pending: Pending) -> None:
        """Note that the server knows which replies a session had when it made a call."""
        for seq in pending.told:
            caller.unconfirmed.pop(seq, None)

    def finish(self, caller: Caller, pending: Pending, frame: Frame) -> None:
        """Write down how a call ended."""
        now = self.tick()
        del caller.pending[pending.seq]
        caller.threads[pending.thread] = None
        caller.heard.add(pending.seq)
        caller.applied = max(caller.applied, frame.applied)
        if frame.kind == Kind.REPLY and not pending.reads:
            caller.acknowledged = max(caller.acknowledged, pending.seq)
        if pending.sure and pending.settle is None:
            self.confirm(caller, pending)
        if frame.kind == Kind.CANCELLED:
            if pending.waits:
                self.note(self.operation(caller, pending, UNKNOWN, inf))
                self.note(self.undo(caller, pending, None, now))
            return
        result = _codec.decode(frame.body, incoming=_opened)
        if isinstance(result, NoSuchObject) and pending.verb == "look":
            result = (None, ())  # what nobody has used yet, nobody holds
        elif isinstance(result, BaseException):
            result = type(result)
        elif isinstance(result, Grant) and not result:
            result = False
        elif isinstance(result, Grant):
            if pending.subject == SUBJECTS["lock"]:
                caller.token = result.number
                result = (result.number, result.abandoned)
            else:
                caller.permits.append(result.number)
                result = result.number
        elif pending.verb == "look":
            holder, waiters = result["holder"], result["waiters"]
            result = (holder and holder["label"], tuple(waiter["label"] for waiter in waiters))
        if frame.kind in (Kind.REPLY, Kind.STANDS) and pending.waits:
            caller.unconfirmed[pending.seq] = pending.subject
        self.note(self.operation(caller, pending, result, now))

    def open_ends(self) -> list[Operation]:
        """Return what nobody has heard the end of."""
        rows = []
        for caller in (*self.callers, *self.buried):
            for pending in caller.pending.values():
                rows.append(self.operation(caller, pending, UNKNOWN, inf))
                if pending.settle is not None and pending.waits:
                    rows.append(self.undo(caller, pending, UNKNOWN, inf))
        return rows

    def operation(self, caller: Caller, pending: Pending, result: Any, returned: float) -> Operation:
        """Return what a call is in the history."""
        return Operation(
            process=(caller.name, pending.thread),
            verb=pending.verb,
            argument=pending.argument,
            result=result,
            invoked=pending.invoked,
            returned=returned,
            subject=pending.subject,
            call=(caller.name, pending.seq),
        )

    def undo(self, caller: Caller, pending: Pending, result: Any, returned: float) -> Operation:
        """Return what it is that a call was settled."""
        return Operation(
            process=(caller.name, pending.thread),
            verb="undo",
            argument=(caller.name, pending.seq),
            result=result,
            invoked=pending.since,
            returned=returned,
            subject=pending.subject,
        )

    def note(self, operation: Operation) -> None:
        """Add an operation to the history."""
        self.history.append(operation)


def _opened(leaf: Any) -> Any:
    """Decode what was carried, as a client does."""
    return _codec.decode_carried(leaf) if isinstance(leaf, Carried) else leaf


def record(seed: int, kinds: tuple[str, ...] = KINDS, calls: int = 60) -> Recording:
    """Record the history of a seed."""
    return Simulation(seed, kinds, calls).run()
