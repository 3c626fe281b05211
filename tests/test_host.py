"""The host: frames in and out over pipes that lose, delay and repeat, and what it says of misuse."""

from __future__ import annotations

from collections.abc import Iterable
from threading import BrokenBarrierError
from typing import Any

import msgspec
import pytest
from hosted_classes import DECLARATIONS, ODD, START
from hypothesis import given, settings
from hypothesis import strategies as st

from registry import SharedObject, _codec, _image, _wire
from registry._attachments import Attachment, Client, Identity
from registry._engine import KEPT_VACANT
from registry._events import Call
from registry._host import Host
from registry._leaves import Caller, Carried, Grant, OpaqueValue
from registry._wire import DELETE, IN_FLIGHT, Kind, ProtocolError
from registry.errors import (
    DefinitionConflict,
    LockLost,
    NoSuchObject,
    NotShareable,
    RegistryError,
    StateLost,
    UnknownType,
)

IDENTITY = Identity(
    address="unix:///x",
    name="x",
    pid=1,
    since=START,
    host="here",
    version="1",
    python="3",
    epoch=3,
    life=bytes(16),
    plugins={},
)

CANCELLED = "cancelled"
WAITING = "waiting"


def make_host(**options: Any) -> Host:
    """Make a host of all the classes."""
    return Host(DECLARATIONS, IDENTITY, seed=b"seed", now=START, **options)


class Pipe:
    """A client at the other end of a pipe that the test is the master of.

    Frames wait in `wire` until they are delivered, replies until they are heard. `connect` leaves what was on
    its way behind: it may still arrive (`late`), as the bytes that a server had not read yet.

    Attributes:
        outcomes: what came for each call, by its number.
    """

    def __init__(
        self, host: Host, number: int = 1, domain: str = "here:1", pid: int | None = None, leased: bool = False
    ) -> None:
        self.host = host
        self.key = number.to_bytes(16, "big")
        self.domain = domain
        self.pid = pid
        self.leased = leased
        self.heard: list[bytes] = []
        self.generation = 0
        self.now = START
        self.next = 1
        self.pending: dict[int, tuple[str, str, bytes, dict[int, Any]]] = {}
        self.cancelled: dict[int, bool] = {}
        self.above: list[int] = []
        self.handles: dict[tuple[str, bytes], int] = {}
        self.outcomes: dict[int, Any] = {}
        self.wire: list[tuple[Attachment, bytes]] = []
        self.late: list[tuple[Attachment, bytes]] = []
        self.attached: _wire.Attached | None = None
        self.connect()

    def connect(self) -> None:
        """Drop the connection and make another: first the cancels, then what is unanswered, in order."""
        self.late += self.wire
        self.wire = []
        self.generation += 1
        self.attachment = Attachment(self.domain, f"client {self.key[-1]}", self.pid, leased=self.leased)
        self.reader = _wire.Reader()
        self.defined: set[int] = set()
        hello = _wire.Attach(self.key, self.pid or 0, "", "test", "", "1", 0, {})
        self.send(Kind.ATTACH, 0, _wire.encode(hello), received=0)
        self.deliver()
        self.hear()
        for seq, undo in self.cancelled.items():
            if seq in self.pending:
                self.send(Kind.CANCEL, seq, _wire.encode(_wire.CancelBody(undo)))
        for seq in self.pending:
            if seq not in self.cancelled:
                self.send_call(seq)

    def send(self, kind: int, seq: int, body: bytes = b"", received: int | None = None) -> None:
        """Put a frame on the wire."""
        mark = min(self.mark, seq - 1) if received is None else received
        frame = _wire.pack(kind, body, generation=self.generation, sequence=seq, received=max(0, mark if seq else 0))
        self.wire.append((self.attachment, frame))

    def send_call(self, seq: int) -> None:
        """Put the frame of a call on the wire, as often as need be."""
        title, method, arguments, fields = self.pending[seq]
        title, _, text = title.partition(" ")
        definition = bytes.fromhex(text) if text else _codec.encode_arguments((), {})
        handle = self.handles.setdefault((title, definition), len(self.handles) + 1)
        if handle not in self.defined:
            self.defined.add(handle)
            typeid, _, name = title.partition(":")
            fields = {**fields, _wire.DEFINITION: [typeid, name, msgspec.Raw(definition)]}
        raw = {number: msgspec.Raw(_wire.encode(value)) for number, value in fields.items()}
        self.send(Kind.CALL, seq, _wire.encode(_wire.CallBody(handle, method, msgspec.Raw(arguments), raw)))

    def call(self, title: str, method: str, *args: object, fields: dict[int, Any] | None = None) -> int:
        """Make a call; `title` is ``typeid:name``. Returns its number."""
        seq, self.next = self.next, self.next + 1
        declaration = DECLARATIONS.get(title.partition(":")[0])
        carried = declaration.interface.carried.get(method) if declaration else None
        fields = dict(fields or {})
        told = [number for number in self.above if number > self.mark]
        if told:
            fields[_wire.RECEIVED_SET] = told
        self.above = []
        self.pending[seq] = (title, method, _codec.encode_arguments(args, {}, carried), fields)
        self.send_call(seq)
        return seq

    def ask(self, title: str, method: str, *args: object, **options: Any) -> Any:
        """Make a call over a pipe that works, and return its outcome or raise it."""
        seq = self.call(title, method, *args, **options)
        self.flush()
        outcome = self.outcomes.get(seq, WAITING)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def flush(self) -> None:
        """Deliver and hear everything."""
        self.deliver()
        self.hear()

    def cancel(self, seq: int, undo: bool = True) -> None:
        """Settle a call, unless it has been answered."""
        if seq in self.pending:
            self.cancelled.setdefault(seq, undo)
            self.send(Kind.CANCEL, seq, _wire.encode(_wire.CancelBody(self.cancelled[seq])))

    def deliver(self, count: int | None = None) -> None:
        """Let the host have what is on the wire."""
        frames, self.wire = self.wire[:count], self.wire[len(self.wire[:count]) :]
        self._arrive(frames)

    def deliver_late(self) -> None:
        """Let the host have what older connections had left behind."""
        frames, self.late = self.late, []
        self._arrive(frames)

    def _arrive(self, frames: Iterable[tuple[Attachment, bytes]]) -> None:
        for attachment, data in frames:
            reader = _wire.Reader()
            reader.feed(data)
            for frame in reader:
                self.host.receive(attachment, frame, self.now)

    def hear(self) -> None:
        """Take what the host has sent on the present connection."""
        for data in self.attachment.outbox:
            self.reader.feed(data)
        self.attachment.outbox.clear()
        for frame in self.reader:
            if frame.kind == Kind.ATTACHED:
                self.attached = _wire.decode_attached(frame.body)
                continue
            if frame.kind == Kind.HEARD:
                self.heard.append(frame.body)
                continue
            assert frame.generation == self.generation
            if frame.sequence not in self.pending:
                continue
            del self.pending[frame.sequence]
            if self.mark < frame.sequence:
                self.above.append(frame.sequence)
            value: Any = CANCELLED
            if frame.kind != Kind.CANCELLED:
                value = _codec.decode(frame.body, incoming=_opened)
            assert frame.sequence not in self.outcomes
            self.outcomes[frame.sequence] = value

    @property
    def mark(self) -> int:
        """Every reply up to here has come."""
        return min(self.pending, default=self.next) - 1

    @property
    def session(self) -> Any:
        """The session, as the engine knows it."""
        return self.host.engine.sessions[self.host.engine.session_of(self.key)]


def _opened(leaf: Any) -> Any:
    return _codec.decode_carried(leaf) if isinstance(leaf, Carried) and not leaf.domain else leaf


def define(*args: object) -> str:
    """Return what a title is followed by where its object has arguments."""
    return " " + _codec.encode_arguments(args, {}).hex()


# -- exactly once over pipes that fail ---------------------------------------------------------------------

faults = st.lists(
    st.tuples(
        st.sampled_from(["call", "call", "call", "deliver", "hear", "break", "late", "cancel", "late cancel"]),
        st.integers(0, 2),
        st.integers(0, 5),
    ),
    max_size=60,
)


def play(steps: list[tuple[str, int, int]], calls: list[tuple[str, str, tuple[Any, ...]]], host: Host) -> list[Pipe]:
    """Let three clients call over failing pipes; in the end all pipes work, and everything is heard."""
    pipes = [Pipe(host, number) for number in (1, 2, 3)]
    for action, number, a in steps:
        pipe = pipes[number]
        if action == "call":
            title, method, args = calls[a % len(calls)]
            pipe.call(title, method, *args)
        elif action == "deliver":
            pipe.deliver(a)
        elif action == "hear":
            pipe.hear()
        elif action == "break":
            pipe.connect()
        elif action == "late":
            pipe.deliver_late()
        elif pipe.pending:
            seqs = list(pipe.pending)
            if action == "late cancel":
                # As a client does: the connection is dropped, and the cancel goes out with the next.
                pipe.cancelled.setdefault(seqs[a % len(seqs)], True)
                pipe.connect()
            else:
                pipe.cancel(seqs[a % len(seqs)], undo=False)
    for pipe in pipes:
        pipe.connect()
        pipe.deliver_late()
        pipe.flush()
    for pipe in pipes:
        pipe.flush()
    return pipes


@settings(max_examples=200)
@given(faults)
def test_every_call_runs_once_or_never(steps: Any) -> None:
    """Each count is given to one call, and only calls that were said to be cancelled did not count."""
    host = make_host()
    pipes = play(steps, [("counter:x", "incr", ())], host)
    outcomes = [outcome for pipe in pipes for outcome in pipe.outcomes.values()]
    assert all(not pipe.pending for pipe in pipes)
    counts = sorted(outcome for outcome in outcomes if outcome != CANCELLED)
    assert counts == list(range(1, len(counts) + 1))
    assert sum(len(pipe.outcomes) for pipe in pipes) == len(outcomes)


@settings(max_examples=200)
@given(faults)
def test_no_item_is_lost_or_doubled(steps: Any) -> None:
    """What was put is in the queue or was given to one getter, whatever broke."""
    host = make_host()
    calls: list[tuple[str, str, tuple[Any, ...]]] = [
        ("queue:x", "put", ("item",)),
        ("queue:x", "get", ()),
        ("queue:x", "get", (True, 100.0)),
    ]
    pipes = play(steps, calls, host)
    put = sum(outcome is None for pipe in pipes for outcome in pipe.outcomes.values())
    got = sum(outcome == "item" for pipe in pipes for outcome in pipe.outcomes.values())
    left = len(host.engine.objects["queue", "x"].instance._items) if host.engine.objects else 0
    waiting = sum(len(pipe.pending) for pipe in pipes)
    assert put == got + left
    assert not (left and waiting)


@settings(max_examples=200)
@given(faults)
def test_no_lock_is_lost_or_given_twice(steps: Any) -> None:
    """At most one session has heard of a grant that it has not released, and nobody waits for a free lock."""
    host = make_host()
    calls: list[tuple[str, str, tuple[Any, ...]]] = [
        ("lock:x", "acquire", ()),
        ("lock:x", "acquire", (True, 50.0)),
        ("lock:x", "release", ()),
    ]
    pipes = play(steps, calls, host)
    if not host.engine.objects:
        return
    lock = host.engine.objects["lock", "x"].instance
    numbers = [value.number for pipe in pipes for value in pipe.outcomes.values() if isinstance(value, Grant)]
    assert len(set(numbers)) == len(numbers)
    waiting = sum(len(pipe.pending) for pipe in pipes)
    assert waiting == len(lock._waiters)
    if lock._holder is None:
        assert not waiting
    else:
        # Whoever holds it has heard so: no grant went to a call that was given up.
        assert lock._number in numbers


@settings(max_examples=50)
@given(faults)
def test_what_comes_out_depends_on_nothing_else(steps: Any) -> None:
    """The same frames in the same order give the same replies and the same state."""
    calls = [("odd:x", "draw", ()), ("gate:x", "pass_through", (1.0,)), ("gate:x", "open_all", ({"a", "b"},))]
    one, other = make_host(), make_host()
    said = [[pipe.outcomes for pipe in play(steps, calls, host)] for host in (one, other)]
    assert repr(said[0]) == repr(said[1])
    assert _image.capture(one.engine) == _image.capture(other.engine)


@pytest.fixture
def host() -> Host:
    """A host."""
    return make_host()


@pytest.fixture
def pipe(host: Host) -> Pipe:
    """A client of it."""
    return Pipe(host)


def test_frames_of_an_older_connection_are_dropped(host: Host, pipe: Pipe) -> None:
    """What a fenced connection still brings has no effect, also once its call was cancelled."""
    seq = pipe.call("lock:x", "acquire")
    pipe.cancelled[seq] = True
    pipe.connect()
    pipe.flush()
    assert pipe.outcomes[seq] == CANCELLED
    pipe.deliver_late()
    assert host.engine.find("lock", "x") is None
    assert pipe.ask("lock:x", "locked") is False


def test_frames_of_another_generation_are_dropped(host: Host, pipe: Pipe) -> None:
    """A frame that says that it is of another connection is not run on this one."""
    pipe.connect()
    pipe.generation = 1
    pipe.call("counter:x", "incr")
    pipe.deliver()
    assert not host.engine.objects


def test_an_older_connection_cannot_come_back(host: Host, pipe: Pipe) -> None:
    """Attaching needs a generation that is greater than the last."""
    pipe.connect()
    old = pipe.generation
    pipe.generation = old - 1
    with pytest.raises(ProtocolError, match="newer connection"):
        pipe.connect()
    pipe.generation = old
    pipe.connect()
    assert pipe.attached is not None
    assert pipe.attached.resumed


def test_a_session_belongs_to_its_process(host: Host, pipe: Pipe) -> None:
    """Neither a process of another domain nor another process of this one may take a session over."""
    hello = _wire.encode(_wire.Attach(pipe.key, 0, "here", "test", "", "1", 0, {}))
    for domain, pid in (("there:2", None), ("here:1", 42)):
        thief = Attachment(domain, "", pid)
        with pytest.raises(ProtocolError, match="another process"):
            host.receive(thief, _wire.Frame(Kind.ATTACH, 5, 0, 0, 0, hello), START)
    assert pipe.ask("counter:x", "incr") == 1


def test_a_replayed_reply_names_its_event(pipe: Pipe) -> None:
    """Every output carries the index of the event that it comes from, however often it leaves."""
    pipe.ask("counter:x", "incr")
    seq = pipe.call("counter:x", "incr")
    pipe.deliver()
    index = pipe.host.engine.index
    Pipe(pipe.host, 2).ask("counter:x", "incr")
    pipe.connect()
    pipe.deliver()
    reader = _wire.Reader()
    for data in pipe.attachment.outbox:
        reader.feed(data)
    (reply,) = [frame for frame in reader if frame.sequence == seq]
    assert reply.applied == index


def test_a_read_is_not_remembered_and_leaves_no_event(host: Host, pipe: Pipe) -> None:
    """Reads run again when they are resent, and the log never hears of them."""
    pipe.ask("dict:x", "__setitem__", "k", 1)
    index = host.engine.index
    seq = pipe.call("dict:x", "get", "k")
    pipe.deliver()
    pipe.connect()
    pipe.flush()
    assert pipe.outcomes[seq] == 1
    assert host.engine.index == index
    assert not pipe.session.waits
    assert seq not in pipe.session.replies
    other = Pipe(host, 2)
    assert other.ask("dict:x", "get", "k") == 1
    assert host.engine.session_of(other.key) == 0


def test_what_was_heard_is_forgotten(pipe: Pipe) -> None:
    """The mark prunes remembered replies."""
    for _ in range(50):
        pipe.ask("counter:x", "incr")
    assert len(pipe.session.replies) == 1


@pytest.mark.parametrize("between", [0, 1])
def test_a_call_that_waits_pins_no_other_reply(pipe: Pipe, between: int) -> None:
    """Ten thousand calls beside one that waits leave next to nothing, even if every other one is a read."""
    pipe.ask("lock:x", "acquire")
    pipe.ask("lock:x", "acquire")
    for _ in range(5_000):
        pipe.ask("counter:x", "incr")
        for _ in range(between):
            pipe.ask("counter:x", "get")
    assert pipe.session.mark == 1
    assert len(pipe.session.replies) <= 3
    assert len(pipe.session.above.rows()) <= 3
    assert len(pipe.host.clients[pipe.key].above.rows()) <= 3


def test_what_was_heard_before_a_goodbye_is_not_given_back(host: Host, pipe: Pipe) -> None:
    """A session that leaves while one call of it waits keeps the items that its other calls were given."""
    other = Pipe(host, 2)
    other.ask("queue:x", "put", 1)
    other.ask("queue:x", "put", 2)
    pipe.call("gate:x", "pass_through")
    assert pipe.ask("queue:x", "get") == 1
    pipe.send(Kind.GOODBYE, 0, _wire.encode(pipe.above))
    pipe.deliver()
    assert other.ask("queue:x", "qsize") == 1


def test_what_was_told_with_a_read_counts_at_the_end(host: Host, pipe: Pipe) -> None:
    """The host keeps what reads acknowledge for the next event, be it the death of the session."""
    other = Pipe(host, 2)
    other.ask("queue:x", "put", 1)
    pipe.call("gate:x", "pass_through")
    assert pipe.ask("queue:x", "get") == 1
    assert pipe.ask("queue:x", "qsize") == 0
    host.end(host.clients[pipe.key], START)
    assert other.ask("queue:x", "qsize") == 0


def test_a_cancel_of_a_call_that_never_came(host: Host, pipe: Pipe) -> None:
    """A cancel opens the session if need be, and keeps the call from running later."""
    seq = pipe.call("counter:x", "incr")
    pipe.wire.reverse()
    pipe.cancel(seq)
    pipe.wire.reverse()
    pipe.deliver()
    pipe.hear()
    assert pipe.outcomes[seq] == CANCELLED
    assert not host.engine.objects


def test_a_cancelled_read_is_settled_too(pipe: Pipe) -> None:
    """A read that comes after its cancel is not answered with a value."""
    pipe.ask("counter:x", "incr")
    seq = pipe.call("counter:x", "get")
    pipe.wire.reverse()
    pipe.cancel(seq)
    pipe.wire.reverse()
    pipe.flush()
    assert pipe.outcomes[seq] == CANCELLED


def test_a_resent_wait_has_the_time_that_is_left(host: Host, pipe: Pipe) -> None:
    """The field remaining sets the deadline; what is no time is taken as none, or as now."""
    seq = pipe.call("gate:x", "pass_through", None, "late")
    pipe.flush()
    for remaining, due in ((5.0, 5.0), (float("inf"), 5.0), (2, 2.0), (-1.0, 0.0), (float("nan"), 0.0)):
        title, method, arguments, _ = pipe.pending[seq]
        pipe.pending[seq] = (title, method, arguments, {_wire.REMAINING: remaining})
        pipe.connect()
        pipe.flush()
        assert host.next_due() == START + due
    host.advance(START)
    pipe.hear()
    assert pipe.outcomes[seq] == "late"


def test_the_number_of_open_calls_is_bounded(pipe: Pipe) -> None:
    """A session that leaves too much open is refused, but what it has can be asked for again."""
    for _ in range(IN_FLIGHT):
        pipe.call("gate:x", "pass_through")
    pipe.flush()
    pipe.connect()
    pipe.flush()
    assert len(pipe.session.waits) == IN_FLIGHT
    pipe.call("gate:x", "open_all")
    with pytest.raises(ProtocolError, match=str(IN_FLIGHT)):
        pipe.deliver()


def test_cancels_of_nothing_are_bounded(pipe: Pipe) -> None:
    """Nor can it leave more than so many tombstones."""
    for seq in range(1, IN_FLIGHT + 1):
        pipe.send(Kind.CANCEL, seq, _wire.encode(_wire.CancelBody(True)), received=0)
    pipe.deliver()
    pipe.send(Kind.CANCEL, IN_FLIGHT + 1, _wire.encode(_wire.CancelBody(True)), received=0)
    with pytest.raises(ProtocolError, match=str(IN_FLIGHT)):
        pipe.deliver()


# -- sessions ----------------------------------------------------------------------------------------------


def test_a_session_lives_on_its_lease(host: Host, pipe: Pipe) -> None:
    """Without a connection a session is believed for the lease; then what it holds goes on."""
    other = Pipe(host, 2)
    pipe.ask("lock:x", "acquire")
    seq = other.call("lock:x", "acquire")
    other.flush()
    host.detach(pipe.attachment, START)
    assert host.next_due() == START + host.lease
    host.advance(START + host.lease - 0.1)
    assert other.pending
    host.advance(START + host.lease)
    other.flush()
    assert other.outcomes[seq].abandoned
    assert host.next_due() is None


def test_a_session_that_comes_back_in_time_keeps_everything(host: Host, pipe: Pipe) -> None:
    """A new connection ends the suspension."""
    pipe.ask("lock:x", "acquire")
    host.detach(pipe.attachment, START)
    pipe.connect()
    assert pipe.attached is not None
    assert pipe.attached.resumed
    host.advance(START + 10 * host.lease)
    assert pipe.ask("lock:x", "locked") is True


def beat(pipe: Pipe, now: float) -> None:
    """Send a sign of life."""
    pipe.now = now
    pipe.send(Kind.HEARTBEAT, 0, _wire.STAMP.pack(now))
    pipe.flush()


def test_a_client_is_told_its_lease(host: Host, pipe: Pipe) -> None:
    """A session whose process the shell watches needs no signs of life, and never ends by silence."""
    leased = Pipe(host, 2, leased=True)
    assert pipe.attached is not None and leased.attached is not None
    assert (pipe.attached.lease, leased.attached.lease) == (0.0, host.lease)
    host.advance(START + 10 * host.lease)
    assert list(host.clients) == [pipe.key]


def test_heartbeats_come_back_and_leave_no_trace(host: Host) -> None:
    """They keep a session that says nothing else, and are no events."""
    pipe = Pipe(host, leased=True)
    pipe.ask("lock:x", "acquire")
    before = _image.capture(host.engine)
    for turn in range(1, 10):
        beat(pipe, START + turn * host.lease / 2)
        host.advance(pipe.now)
    assert pipe.heard == [_wire.STAMP.pack(START + turn * host.lease / 2) for turn in range(1, 10)]
    assert _image.capture(host.engine) == before
    assert host.next_due() == pipe.now + host.lease


@pytest.mark.parametrize("sign", ["call", "cancel", "control", "bytes"])
def test_whatever_comes_is_a_sign_of_life(host: Host, sign: str) -> None:
    """Any frame counts, and the bytes of one that is not whole."""
    pipe = Pipe(host, leased=True)
    pipe.now = START + host.lease - 1
    if sign == "call":
        pipe.ask("odd:x", "numbers")
    elif sign == "cancel":
        pipe.send(Kind.CANCEL, 1, _wire.encode(_wire.CancelBody(True)), received=0)
        pipe.flush()
    elif sign == "control":
        control(pipe, "status")
    else:
        host.hear(pipe.attachment, pipe.now)
    host.advance(START + host.lease)
    assert host.clients
    host.advance(pipe.now + host.lease)
    assert not host.clients


def test_nothing_of_a_silent_session_takes_effect_afterwards(host: Host) -> None:
    """What it held goes on; a late frame on its old connection is dropped, and so is what it begins a new one with."""
    pipe, other = Pipe(host, leased=True), Pipe(host, 2)
    grant = pipe.ask("lock:x", "acquire")
    seq = other.call("lock:x", "acquire")
    other.flush()
    guard = {_wire.GRANTS: [("lock", "x", grant.number)]}
    pipe.call("counter:x", "incr", fields=guard)  # on its way for longer than the lease
    assert host.judge(START + host.lease - 0.1) == []
    ((client, attachment),) = host.judge(START + host.lease)
    assert client.key == pipe.key and attachment is pipe.attachment
    other.flush()
    assert other.outcomes[seq].abandoned
    pipe.flush()
    assert not pipe.attachment.outbox
    assert host.engine.find("counter", "x") is None
    pipe.connect()
    assert pipe.attached is not None and not pipe.attached.resumed
    pipe.flush()
    assert isinstance(pipe.outcomes[2], LockLost)
    assert other.ask("counter:x", "get") == 0


def test_who_has_sent_what_was_not_taken_is_alive(host: Host) -> None:
    """A connection that is behind is not silent."""
    pipe = Pipe(host, leased=True)
    assert host.judge(START + host.lease, lambda attachment: attachment is pipe.attachment) == []
    host.advance(START + 2 * host.lease - 0.1)
    assert host.clients
    host.advance(START + 2 * host.lease)
    assert not host.clients


def test_a_session_of_another_protocol_has_the_time_that_its_shell_gives(host: Host) -> None:
    """Suspended until a time it lives as long, whatever its own kind of connection is."""
    client = Client(b"stock", Caller("here", 7), "here:1", 7)
    client.attachment = Attachment()
    host.adopt(client)
    host.suspend(client, START + 10.0)

    def is_behind(attachment: Attachment) -> bool:
        raise AssertionError("its shell has no such connection")

    assert host.judge(START + 9.9, is_behind) == []
    assert host.judge(START + 10.0, is_behind) == [(client, None)]


def test_time_in_which_the_server_stood_still_does_not_count(host: Host) -> None:
    """It is credited to connected and suspended sessions alike, but never more than a whole lease from then on."""
    pipe, other = Pipe(host, leased=True), Pipe(host, 2)
    host.detach(other.attachment, START)
    host.credit(5.0, START + 5.0)
    host.advance(START + host.lease + 4.9)
    assert len(host.clients) == 2
    host.credit(1000.0, START + host.lease + 4.9)
    assert host.next_due() == START + 2 * host.lease + 4.9
    host.advance(START + 2 * host.lease + 4.9)
    assert not host.clients
    assert not pipe.attachment.outbox


def test_a_waiter_without_a_connection_is_passed_over(host: Host, pipe: Pipe) -> None:
    """It is told to the engine only where the session waits for something; back again it has what is free."""
    one, two = Pipe(host, 2), Pipe(host, 3)
    pipe.ask("lock:x", "acquire")
    first, second = one.call("lock:x", "acquire"), two.call("lock:x", "acquire")
    one.flush()
    two.flush()
    index = host.engine.index
    host.detach(one.attachment, START)
    assert host.engine.index == index + 1
    pipe.ask("lock:x", "release")
    two.hear()
    assert two.outcomes[second]
    two.ask("lock:x", "release")
    index = host.engine.index
    host.detach(pipe.attachment, START)
    host.detach(two.attachment, START)
    pipe.connect()
    assert host.engine.index == index
    one.connect()
    one.flush()
    assert one.outcomes[first]
    assert not one.session.away


def test_it_may_give_up_when_it_comes_back(host: Host, pipe: Pipe) -> None:
    """What it has just been given goes on to the next."""
    one = Pipe(host, 2)
    pipe.ask("lock:x", "acquire")
    seq = one.call("lock:x", "acquire")
    one.flush()
    host.detach(one.attachment, START)
    pipe.ask("lock:x", "release")
    one.connect()
    assert one.outcomes[seq]
    one.send(Kind.CANCEL, seq, _wire.encode(_wire.CancelBody(True)), received=0)
    one.flush()
    assert pipe.ask("lock:x", "acquire", False)


def test_a_waiter_that_stays_away_ends_with_its_lease(host: Host, pipe: Pipe) -> None:
    """And with it what was kept for it."""
    one = Pipe(host, 2)
    pipe.ask("barrier:x" + define(3), "parties")
    one.call("lock:x", "acquire")
    seq = one.call("barrier:x", "wait")
    one.flush()
    host.detach(one.attachment, START)
    party = pipe.call("barrier:x", "wait")
    pipe.flush()
    host.advance(START + host.lease)
    pipe.flush()
    assert isinstance(pipe.outcomes[party], BrokenBarrierError)
    assert seq in one.pending


def test_the_end_of_an_older_connection_means_nothing(host: Host, pipe: Pipe) -> None:
    """Only the present connection of a session can suspend it."""
    old = pipe.attachment
    pipe.connect()
    host.detach(old, START)
    assert host.next_due() is None
    assert pipe.ask("counter:x", "incr") == 1


def test_a_session_that_was_ended_stays_so(host: Host, pipe: Pipe) -> None:
    """What its connection still brings is dropped, such as from a child that inherited the socket."""
    pipe.ask("lock:x", "acquire")
    host.end(host.clients[pipe.key], START)
    assert not host.clients
    index = host.engine.index
    pipe.call("counter:x", "incr")
    pipe.send(Kind.OWNER_ENDED, 0, _wire.encode(1))
    pipe.send(Kind.GOODBYE, 0)
    pipe.deliver()
    host.detach(pipe.attachment, START)
    assert host.engine.index == index
    assert host.next_due() is None
    pipe.connect()
    assert pipe.attached is not None
    assert not pipe.attached.resumed


def test_a_goodbye_frees_at_once(host: Host, pipe: Pipe) -> None:
    """What a session held goes on in the step of its goodbye."""
    other = Pipe(host, 2)
    pipe.ask("lock:x", "acquire")
    seq = other.call("lock:x", "acquire")
    other.deliver()
    pipe.send(Kind.GOODBYE, 0)
    pipe.deliver()
    other.hear()
    assert other.outcomes[seq].number


def test_the_end_of_an_owner_frees_its_locks(host: Host, pipe: Pipe) -> None:
    """A thread or task that ends frees what was its own."""
    pipe.ask("rlock:x", "acquire", fields={_wire.OWNER: 7})
    with pytest.raises(RuntimeError):
        pipe.ask("rlock:x", "release")
    pipe.send(Kind.OWNER_ENDED, 0, _wire.encode(7))
    pipe.flush()
    assert pipe.ask("rlock:x", "locked") is False


def test_who_waits_is_told_when_the_server_stops(host: Host, pipe: Pipe) -> None:
    """A life that ends tells those who wait, since nothing of it is kept."""
    seq = pipe.call("gate:x", "pass_through")
    pipe.flush()
    host.drain("the server was stopped")
    pipe.hear()
    assert isinstance(pipe.outcomes[seq], StateLost)


# -- objects
# --------------------------------------------------------------------------------------------------


def test_a_deleted_object_is_told_once(host: Host, pipe: Pipe) -> None:
    """Each handle hears of it at its next use, and the use after that makes a new object."""
    other = Pipe(host, 2)
    assert pipe.ask("counter:x", "incr") == other.ask("counter:x", "incr") - 1
    pipe.ask("counter:x", DELETE)
    with pytest.raises(NoSuchObject, match="deleted"):
        other.ask("counter:x", "incr")
    assert other.ask("counter:x", "incr") == 1
    with pytest.raises(NoSuchObject, match="deleted"):
        pipe.ask("counter:x", "get")
    assert pipe.ask("counter:x", "get") == 1
    with pytest.raises(NoSuchObject, match="nothing"):
        pipe.ask("counter:never", DELETE)


def test_it_is_told_though_the_reply_was_lost(host: Host, pipe: Pipe) -> None:
    """The same call gets the same answer when it comes again."""
    other = Pipe(host, 2)
    other.ask("counter:x", "incr")
    pipe.ask("counter:x", DELETE)
    seq = other.call("counter:x", "incr")
    other.deliver()
    other.connect()
    other.flush()
    assert isinstance(other.outcomes[seq], NoSuchObject)
    assert host.engine.find("counter", "x") is None


def test_a_delete_that_was_refused_is_none(host: Host, pipe: Pipe) -> None:
    """A guarded delete without its lock leaves the object, and nobody is told that it is gone."""
    pipe.ask("counter:x", "incr")
    with pytest.raises(LockLost):
        pipe.ask("counter:x", DELETE, fields={_wire.GRANTS: [("lock", "x", 1)]})
    assert pipe.ask("counter:x", "incr") == 2


def test_objects_of_a_call_are_told_once_too(host: Host, pipe: Pipe) -> None:
    """Whoever uses an object that went with its maker hears of it, instead of making an empty one."""
    other = Pipe(host, 2)
    pipe.ask("scratch:abc", "write", "a")
    assert other.ask("scratch:abc", "write", "b") == 2
    host.end(host.clients[pipe.key], START)
    with pytest.raises(NoSuchObject):
        other.ask("scratch:abc", "write", "c")


def test_definitions_conflict(host: Host, pipe: Pipe) -> None:
    """A use with other arguments is refused, by reads and changes alike; one without any is not."""
    other = Pipe(host, 2)
    pipe.ask("queue:x" + define(3), "put", 1)
    for method, args in (("qsize", ()), ("put", (2,))):
        with pytest.raises(DefinitionConflict) as caught:
            other.ask("queue:x" + define(4), method, *args)
        assert (caught.value.stored, caught.value.given) == ("maxsize=3", "maxsize=4")
    with pytest.raises(TypeError):
        other.ask("queue:x" + define(1, 2, 3), "qsize")
    assert other.ask("queue:x" + define(3), "qsize") == 1
    assert other.ask("queue:x", "qsize") == 1


def test_a_record_that_went_comes_back_as_it_was_defined(host: Host) -> None:
    """An object whose record was dropped because it was as new is made with the handle's arguments again."""

    class Sized:
        def __init__(self, size: int = 1) -> None:
            self.size = size

        def look(self) -> int:
            return self.size

        def vacant(self) -> bool:
            return True

    sized = SharedObject("sized", Sized)
    DECLARATIONS["sized"] = sized
    try:
        host = Host({"sized": sized}, IDENTITY, seed=b"", now=START)
        pipe, other = Pipe(host), Pipe(host, 2)
        assert pipe.ask("sized:x" + define(5), "look") == 5
        for number in range(KEPT_VACANT):
            other.ask(f"sized:{number}", "look")
        assert host.engine.find("sized", "x") is None
        assert pipe.ask("sized:x" + define(5), "look") == 5
    finally:
        del DECLARATIONS["sized"]


def test_unknown_types(pipe: Pipe) -> None:
    """A type that the server does not have is named."""
    with pytest.raises(UnknownType, match="nowhere"):
        pipe.ask("nowhere:x", "look")


@pytest.mark.parametrize("method", ["_notes", "notes", "__class__", "note.__self__", "__reduce_ex__", "#"])
def test_only_what_is_exposed_can_be_called(pipe: Pipe, method: str) -> None:
    """Names from a peer are looked up in a table."""
    with pytest.raises(AttributeError, match="exposes no"):
        pipe.ask("odd:x", method)


def test_guarded_calls(host: Host, pipe: Pipe) -> None:
    """A call that relies on a grant runs only while its session, or whoever passed it on, still has it."""
    other = Pipe(host, 2)
    grant = pipe.ask("lock:x", "acquire")
    guard = {_wire.GRANTS: [("lock", "x", grant.number)]}
    assert other.ask("counter:x", "incr", fields=guard) == 1
    assert other.ask("counter:x", "get", fields=guard) == 1
    pipe.ask("lock:x", "release")
    with pytest.raises(LockLost):
        other.ask("counter:x", "incr", fields=guard)
    with pytest.raises(LockLost):
        other.ask("counter:x", "get", fields=guard)
    assert other.ask("counter:x", "get") == 1


# -- opaque values
# --------------------------------------------------------------------------------------------


def test_opaque_values_stay_in_their_domain(host: Host) -> None:
    """Readers of another domain get a placeholder, also inside of containers and errors."""
    writer, reader = Pipe(host, 1, "here:1"), Pipe(host, 2, "here:2")
    value = Carried(b"pickle", "forged", "Thing")
    writer.ask("dict:x", "__setitem__", "k", value)
    writer.ask("dict:x", "__setitem__", "plain", 1)
    mine = writer.ask("dict:x", "get", "k")
    assert (mine.data, mine.domain, mine.kind) == (b"pickle", "here:1", "Thing")
    placeholder = OpaqueValue("Thing", "here:1")
    assert reader.ask("dict:x", "get", "k") == placeholder
    assert reader.ask("dict:x", "copy") == {"k": placeholder, "plain": 1}
    assert reader.ask("dict:x", "pop", "k") == placeholder
    assert reader.ask("dict:x", "get", "plain") == 1


def test_errors_carry_no_pickles_to_others(host: Host) -> None:
    """An opaque value among the arguments of an error is replaced as well."""

    class Blames:
        def __init__(self) -> None:
            self.values: list[object] = []

        def keep(self, value: object) -> None:
            self.values.append(value)

        def blame(self) -> None:
            raise KeyError(*self.values)

    blames = SharedObject("blames", Blames, carried=("keep.value",))
    host = Host({"blames": blames}, IDENTITY, seed=b"", now=START)
    writer, reader = Pipe(host, 1, "here:1"), Pipe(host, 2, "")
    writer.ask("blames:x", "keep", Carried(b"pickle", "here:1", "Thing"))
    with pytest.raises(KeyError) as caught:
        reader.ask("blames:x", "blame")
    assert caught.value.args == (OpaqueValue("Thing", "here:1"),)
    with pytest.raises(KeyError) as caught:
        writer.ask("blames:x", "blame")
    assert caught.value.args == (Carried(b"pickle", "here:1", "Thing"),)


def test_a_peer_without_a_domain_has_no_pickles(host: Host) -> None:
    """It cannot send an opaque value, neither as an argument nor in a definition."""
    pipe = Pipe(host, 1, "")
    value = Carried(b"pickle", "here:1", "Thing")
    with pytest.raises(NotShareable, match="one user"):
        pipe.ask("dict:x", "__setitem__", "k", value)
    with pytest.raises(NotShareable):
        pipe.ask("dict:x", "get", "k", value)
    with pytest.raises(NotShareable, match="definition"):
        pipe.ask("odd:x" + define(value), "note", 1)
    assert pipe.ask("dict:x", "copy") == {}


# -- questions to the server
# ------------------------------------------------------------------------------------


def control(pipe: Pipe, verb: str, *args: object, **kwargs: object) -> Any:
    """Ask the server itself."""
    seq, pipe.next = pipe.next, pipe.next + 1
    pipe.pending[seq] = ("", verb, b"", {})
    body = _wire.ControlBody(verb, msgspec.Raw(_codec.encode_arguments(args, kwargs)))
    pipe.send(Kind.CONTROL, seq, _wire.encode(body))
    pipe.flush()
    outcome = pipe.outcomes[seq]
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def test_an_answer_may_come_later(host: Host, pipe: Pipe) -> None:
    """Where something has to be done first, the answer is sent when that is done."""
    asked: list[Any] = []
    host.control["later"] = lambda word: lambda take: asked.append((word, take))
    with pytest.raises(KeyError):
        control(pipe, "later", "soon")
    ((word, take),) = asked
    take({"done": word})
    pipe.flush()
    assert pipe.outcomes[pipe.next - 1] == {"done": "soon"}


def test_questions_to_the_server(host: Host, pipe: Pipe) -> None:
    """The server tells of itself, of its objects and of each of them; asking changes nothing."""
    pipe.ask("lock:x", "acquire")
    pipe.call("gate:y", "pass_through")
    pipe.flush()
    index = host.engine.index
    status = control(pipe, "status")
    assert (status["sessions"], status["objects"], status["waiting"]) == (1, 2, 1)
    rows = control(pipe, "objects")
    assert [row[:2] + row[4:] for row in rows] == [["gate", "y", False, 1], ["lock", "x", False, 0]]
    assert control(pipe, "statistics", "lock", "x")["holder"]["label"] == "client 1"
    with pytest.raises(NoSuchObject):
        control(pipe, "statistics", "lock", "y")
    with pytest.raises(AttributeError, match="does not answer"):
        control(pipe, "__init__")
    with pytest.raises(TypeError):
        control(pipe, "status", 1)
    assert host.engine.index == index


def test_statistics_that_raise_concern_the_one_who_asks(host: Host) -> None:
    """Whatever an object's statistics raise, the server goes on."""

    class Sad:
        def __init__(self) -> None:
            self.value = 0

        def touch(self) -> None:
            self.value += 1

        def statistics(self) -> dict[str, object]:
            raise LookupError("not today")

    host = Host({"sad": SharedObject("sad", Sad)}, IDENTITY, seed=b"", now=START)
    pipe = Pipe(host)
    pipe.ask("sad:x", "touch")
    with pytest.raises(LookupError, match="not today"):
        control(pipe, "statistics", "sad", "x")


def test_threaded_objects_need_threads(host: Host) -> None:
    """A host without threads refuses them."""
    host = Host({"odd": SharedObject("odd", ODD.factory, threaded=True)}, IDENTITY, seed=b"", now=START)
    with pytest.raises(RegistryError, match="no threads"):
        Pipe(host).ask("odd:x", "note", 1)


# -- misuse
# ----------------------------------------------------------------------------------------------------


def call_body(
    handle: int = 1, method: object = "incr", fields: object = None, arguments: bytes = b"\x92\x90\x80"
) -> bytes:
    """Make the body of a call, right or wrong."""
    return _wire.encode([handle, method, msgspec.Raw(arguments), fields])


DEFINE = {_wire.DEFINITION: ["counter", "new", msgspec.Raw(b"\x92\x90\x80")]}


@pytest.mark.parametrize(
    ("kind", "seq", "received", "body"),
    [
        pytest.param(Kind.CALL, 2, 0, call_body(fields={**DEFINE, 8: 1}), id="unknown field"),
        pytest.param(Kind.CALL, 2, 0, call_body(fields={**DEFINE, 63: 1}), id="last unknown field"),
        pytest.param(Kind.CALL, 2, 0, call_body(fields={**DEFINE, -1: 1}), id="negative field"),
        pytest.param(Kind.CALL, 2, 0, call_body(fields={_wire.OWNER: "me"}), id="owner"),
        pytest.param(Kind.CALL, 2, 0, call_body(fields={_wire.GRANTS: [["lock"]]}), id="grants"),
        pytest.param(Kind.CALL, 2, 0, call_body(fields={_wire.DEFINITION: ["a"]}), id="definition"),
        pytest.param(Kind.CALL, 2, 0, call_body(fields={**DEFINE, _wire.RECEIVED_SET: [2]}), id="set"),
        pytest.param(Kind.CALL, 2, 0, call_body(fields={_wire.REMAINING: "soon"}), id="remaining"),
        pytest.param(Kind.CALL, 2, 2, call_body(fields=DEFINE), id="own reply"),
        pytest.param(Kind.CALL, 0, 0, call_body(fields=DEFINE), id="no number"),
        pytest.param(Kind.CALL, 2, 0, call_body(handle=99), id="handle"),
        pytest.param(Kind.CALL, 2, 0, call_body(method=1), id="method"),
        pytest.param(Kind.CALL, 2, 0, b"", id="empty"),
        pytest.param(Kind.CALL, 2, 0, b"\xc1", id="garbage"),
        pytest.param(Kind.CALL, 2, 0, b"\x93\x01\xa1\xff\xc0", id="not utf-8"),
        pytest.param(Kind.CALL, 2, 0, b"\x93\x01\xa1x" + b"\x91" * 100_000, id="deep"),
        pytest.param(Kind.CANCEL, 2, 0, b"\x90", id="cancel"),
        pytest.param(Kind.OWNER_ENDED, 0, 0, b"\xa1x", id="owner ended"),
        pytest.param(Kind.CONTROL, 2, 0, b"\x91\xa1x", id="control"),
        pytest.param(Kind.GOODBYE, 0, 0, b"\xa1x", id="goodbye"),
        pytest.param(Kind.HEARTBEAT, 0, 0, bytes(17), id="heartbeat"),
        pytest.param(Kind.ATTACH, 0, 0, b"", id="second attach"),
        pytest.param(Kind.REPLY, 2, 0, b"", id="a server's kind"),
        pytest.param(0, 2, 0, b"", id="kind 0"),
        pytest.param(255, 2, 0, b"", id="unknown kind"),
    ],
)
def test_misuse_is_refused_and_changes_nothing(
    host: Host, pipe: Pipe, kind: int, seq: int, received: int, body: bytes
) -> None:
    """What no client of ours sends raises ProtocolError; nothing that follows on that connection is run."""
    pipe.ask("counter:x", "incr")
    before, handles = _image.capture(host.engine), dict(host.clients[pipe.key].handles)
    frame = _wire.Frame(kind, pipe.generation, seq, received, 0, body)
    with pytest.raises(ProtocolError):
        host.receive(pipe.attachment, frame, START)
    assert _image.capture(host.engine) == before
    assert host.clients[pipe.key].handles == handles
    pipe.call("counter:x", "incr")
    pipe.deliver()
    assert _image.capture(host.engine) == before
    pipe.connect()
    pipe.flush()
    assert pipe.outcomes == {1: 1, 2: 2}


def test_fields_of_later_versions_are_ignored(pipe: Pipe) -> None:
    """Unknown fields from 64 on change nothing."""
    assert pipe.ask("counter:x", "incr", fields={64: "later", 1000: [1]}) == 1


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Kind.CALL, call_body()),
        (Kind.GOODBYE, b""),
        (Kind.ATTACH, b""),
        (Kind.ATTACH, _wire.encode(_wire.Attach(b"short", 1, "", "", "", "", 0, {}))),
    ],
)
def test_a_connection_begins_with_an_attach(host: Host, kind: int, body: bytes) -> None:
    """Anything else, and an attach that cannot be read, is refused before there is a session."""
    attachment = Attachment("here:1")
    with pytest.raises(ProtocolError):
        host.receive(attachment, _wire.Frame(kind, 1, 1, 0, 0, body), START)
    assert not host.clients
    assert not attachment.outbox


@settings(max_examples=300)
@given(st.sampled_from([2, 3, 4, 5, 6]), st.binary(max_size=40), st.integers(0, 2**64 - 1), st.integers(0, 5))
def test_no_bytes_do_harm(kind: int, body: bytes, sequence: int, received: int) -> None:
    """Whatever a peer sends is a call, an answer or a ProtocolError."""
    host = make_host()
    pipe = Pipe(host)
    pipe.ask("counter:x", "incr")
    frame = _wire.Frame(kind, 1, sequence, received, 0, body)
    try:
        host.receive(pipe.attachment, frame, START)
    except ProtocolError:
        pass
    other = Pipe(host, 2)
    assert other.ask("counter:x", "incr") == 2


@settings(max_examples=200)
@given(st.binary(max_size=30))
def test_no_arguments_do_harm(arguments: bytes) -> None:
    """Arguments that cannot be read are the caller's error."""
    host = make_host()
    pipe = Pipe(host)
    pipe.ask("odd:x", "note", 1)
    for number, method in enumerate(("note", "numbers"), 2):
        client = host.clients[pipe.key]
        event = Call(
            now=START,
            session=client.number,
            seq=number,
            owner=1,
            typeid="odd",
            name="x",
            method=method,
            arguments=arguments,
        )
        host.submit(client, client.handles[1], event)
    replies = pipe.attachment.outbox
    assert len(replies) == 2


# -- who calls


def test_the_kernels_word_counts_more_than_the_clients(host: Host) -> None:
    """Where the shell knows the process, its pid, host and command are told, else the client's own; labels are kept."""
    hello = _wire.Attach(bytes(16), 5, "there", "theirs.py", "billing", "1", 0, {})
    for number, (attachment, caller) in enumerate(
        [
            (Attachment(), Caller("there", 5, "theirs.py", "", "billing")),
            (Attachment("", "", 7, "here", "ours.py"), Caller("here", 7, "ours.py", "", "billing")),
            (Attachment("", "", 7), Caller("there", 7, "theirs.py", "", "billing")),
        ]
    ):
        hello = msgspec.structs.replace(hello, key=number.to_bytes(16, "big"))
        frame = _wire.Frame(Kind.ATTACH, 1, 0, 0, 0, _wire.encode(hello))
        host.receive(attachment, frame, START)
        assert attachment.client is not None and attachment.client.caller == caller


def test_the_thread_of_a_call_is_kept_by_what_it_holds_and_awaits(host: Host) -> None:
    """It comes with the call, is cut at a length, and is shown with the process's name."""
    one, two = Pipe(host, 1), Pipe(host, 2)
    grant = one.ask("lock:l", "acquire", fields={_wire.THREAD: "Worker-3"})
    assert grant.holder == "client 1, thread Worker-3"
    two.call("lock:l", "acquire", fields={_wire.THREAD: "x" * 1000})
    two.flush()
    (waiter,) = host.engine.objects["lock", "l"].waits.values()
    assert str(waiter.caller) == f"client 2, thread {'x' * _wire.LONGEST_THREAD}"
    assert str(host.engine.sessions[1].caller) == "client 1"


# -- version words


class Words:
    """Version words that write down when they are moved."""

    told = _wire.Words("a file", 1, 2, 3, 4)

    def __init__(self) -> None:
        self.moves: list[tuple[list[tuple[int, object]], int]] = []
        self.pipes: list[Pipe] = []

    def move(self, touched: Iterable[tuple[int, object]]) -> None:
        self.moves.append((list(touched), sum(len(pipe.attachment.outbox) for pipe in self.pipes)))

    def sample(self, number: int, key: object) -> bytes:
        return _wire.WORD.pack(number, 7)


def test_words_are_told_to_processes_of_our_user() -> None:
    """Whoever cannot be in the server's trust domain is not told where they are."""
    host = make_host(words=Words())
    ours, other = Pipe(host, 1), Pipe(host, 2, domain="")
    assert ours.attached is not None and ours.attached.words == Words.told
    assert other.attached is not None and other.attached.words is None
    without = Pipe(make_host(), 1)
    assert without.attached is not None and without.attached.words is None


def test_words_move_before_anything_leaves() -> None:
    """When the reply to a change, or what it has set free, is on its way, the words have moved."""
    words = Words()
    host = make_host(words=words)
    waiting, opening = Pipe(host, 1), Pipe(host, 2)
    waiting.ask("gate:g", "pass_through")
    words.pipes += [waiting, opening]
    words.moves.clear()
    opening.ask("gate:g", "open_all")
    changed = [unsent for touched, unsent in words.moves if touched]
    assert changed and not any(changed)


def test_only_who_asks_for_a_word_is_shown_one() -> None:
    """A READ of what may be cached is SHOWN with its word; a CALL, and what looks at the call, has a plain REPLY."""
    host = make_host(words=Words())
    pipe = Pipe(host, 1)
    pipe.ask("odd:o", "note", 1)
    kinds = []
    for kind, method in ((Kind.CALL, "numbers"), (Kind.READ, "numbers"), (Kind.READ, "who"), (Kind.READ, "note")):
        arguments = msgspec.Raw(_codec.encode_arguments((2,) if method == "note" else (), {}))
        body = _wire.encode(_wire.CallBody(pipe.handles["odd:o", _codec.encode_arguments((), {})], method, arguments))
        host.receive(pipe.attachment, _wire.Frame(kind, pipe.generation, pipe.next, 0, 0, body), START)
        pipe.next += 1
        reader = _wire.Reader()
        reader.feed(pipe.attachment.outbox.pop())
        (frame,) = reader
        kinds.append(frame.kind)
        if frame.kind == Kind.SHOWN:
            assert _wire.WORD.unpack_from(frame.body) == (1, 7)
            assert _codec.decode(frame.body[_wire.WORD.size :]) == [0, 1]
    assert kinds == [Kind.REPLY, Kind.SHOWN, Kind.REPLY, Kind.REPLY]
