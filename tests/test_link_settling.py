"""What becomes of a call that was given up, when frames overtake each other and connections break in between.

The real `Link` and the real `Host`, with pipes in place of sockets, so that each test says what arrives when.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import msgspec
import pytest

from registry import _codec, _image, _link, _plugins, _wire
from registry._attachments import Attachment, Identity
from registry._host import Host
from registry._pending import Pending
from registry._transport import DeadlinePassed, Dialed, Greeting
from registry._wire import Frame, Kind
from registry.errors import OutcomeUnknown, ServerNotFound, StateLost

START = 1_800_000_000.0
NOTHING = _codec.encode_arguments((), {})


class Interruption(BaseException):
    """What a signal handler raises."""


class Pipe:
    """A connection whose bytes arrive at once, or when they are let through; `before_reading` happens first."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.attachment = Attachment("", "pipe")
        self.reader = _wire.Reader()
        self.unread: deque[bytes] = deque()
        self.holds_from: int | None = None
        self.sent = 0
        self.cut = False
        self.before_reading: list[Callable[[], None]] = []

    def send(self, data: bytes) -> None:
        if self.cut:
            raise ConnectionResetError(104, "cut")
        self.unread.append(bytes(data))
        self.sent += 1
        if self.holds_from is None or self.sent <= self.holds_from:
            self.let_through()

    def let_through(self) -> None:
        while self.unread:
            self.reader.feed(self.unread.popleft())
            for frame in self.reader:
                self.host.receive(self.attachment, frame, START)

    def receive(self, deadline: float | None) -> bytes:
        if self.before_reading:
            self.before_reading.pop(0)()
        if self.cut:
            return b""
        if not self.attachment.outbox:
            raise DeadlinePassed
        self.host.dirty.clear()
        return self.attachment.outbox.pop(0)

    def close(self) -> None:
        self.cut = True
        self.unread.clear()
        self.host.detach(self.attachment, START)

    drop = close


class About:
    """Names an object in errors."""

    def __init__(self, title: str) -> None:
        self.title = title


@pytest.fixture
def host() -> Host:
    """A server life without sockets."""
    return life(b"l")


def life(letter: bytes, image: bytes = b"") -> Host:
    identity = Identity(
        address="memory://", name="x", pid=0, since=START, host="h", version="1", python="3", epoch=1,
        life=letter * 16, plugins={},
    )  # fmt: skip
    declarations = _plugins.load(only=["registry_containers", "registry_sync"]).declarations
    engine = _image.restore(declarations, image) if image else None
    return Host(declarations, identity, seed=b"s", now=START, engine=engine)


def test_a_grant_that_overtakes_its_undo_is_taken_back(host: Host) -> None:
    """A wait is given up, and granted before the undo is read; the undo goes again when its connection is cut."""
    pipes: list[Pipe] = []

    def connect(deadline: float, resume: bool) -> Dialed:
        pipe = Pipe(host)
        # On the second connection only the attach is read: the undo behind it waits in the socket.
        pipe.holds_from = 1 if len(pipes) == 1 else None
        pipes.append(pipe)
        return Dialed(pipe, Greeting(host.greet(), "x"), b"", True)

    holder = Pipe(host)
    hello = _wire.Attach(b"o" * 16, 1, "h", "t", "holder", "1", 0, {})
    holder.send(_wire.pack(Kind.ATTACH, _wire.encode(hello), generation=1))

    def held(seq: int, method: str) -> None:
        define = msgspec.Raw(_wire.encode(["lock", "l", msgspec.Raw(NOTHING)]))
        body = _wire.CallBody(1, method, msgspec.Raw(NOTHING), {_wire.DEFINITION: define})
        holder.send(_wire.pack(Kind.CALL, _wire.encode(body), generation=1, sequence=seq, received=seq - 1))

    def interrupt() -> None:
        raise Interruption

    held(1, "acquire")
    link = _link.Link(connect, "x", timeout=2.0)
    link.ensure()
    pipes[0].before_reading.append(interrupt)
    with pytest.raises(Interruption):
        link.call(link.handle("lock", "l", NOTHING), "acquire", NOTHING, about=About("lock:l"), waiting=True)
    held(2, "release")
    assert host.statistics("lock", "l")["holder"] is not None

    # The grant is read; then the connection is cut with the undo still unread, which the next attach fences.
    pipes[1].before_reading += [lambda: None, pipes[1].close]
    count = link.handle("counter", "c", NOTHING)
    frame = link.call(count, "incr", NOTHING, about=About("counter:c"))
    assert _codec.decode(frame.body) == 1
    link.call(count, "incr", NOTHING, about=About("counter:c"))
    assert len(pipes) == 3
    assert host.statistics("lock", "l")["holder"] is None
    assert not link._pending


def test_a_handle_that_was_drawn_half_is_drawn_again(host: Host) -> None:
    """A signal handler that raises while a handle is drawn leaves none that the server could not be told of."""

    class Rows(dict[int, tuple[str, str, bytes]]):
        def __setitem__(self, handle: int, key: tuple[str, str, bytes]) -> None:
            link._rows = {}
            raise Interruption

    link = _link.Link(lambda deadline, resume: Dialed(Pipe(host), Greeting(host.greet(), "x"), b"", True), "x")
    link._rows = Rows()
    with pytest.raises(Interruption):
        link.handle("counter", "c", NOTHING)
    frame = link.call(link.handle("counter", "c", NOTHING), "incr", NOTHING, about=About("counter:c"))
    assert _codec.decode(frame.body) == 1


def test_a_call_made_again_is_the_same_request() -> None:
    """What is asked goes along, its time too; what became of the first attempt does not."""
    slot = _link.Pending(_link.CALL, 3, "get", NOTHING, About("dict:d"), True, False, seconds=0.5)
    slot.seq, slot.sent, slot.abandoned = 7, True, True
    assert msgspec.structs.asdict(slot.again()) == {
        **msgspec.structs.asdict(slot), "seq": 0, "sent": False, "abandoned": False
    }  # fmt: skip


def test_a_lost_session_is_not_begun_anew_unnoticed(host: Host) -> None:
    """The lease has run out, and the answer that says so is lost: the next attach does not find a new session."""
    pipes: list[Pipe] = []

    def connect(deadline: float, resume: bool) -> Dialed:
        pipe = Pipe(host)
        pipes.append(pipe)
        if len(pipes) == 2:
            pipe.before_reading.append(pipe.close)  # the server has read the attach, and its answer is lost
        return Dialed(pipe, Greeting(host.greet(), "x"), b"", True)

    link = _link.Link(connect, "x", timeout=2.0)
    count = link.handle("counter", "c", NOTHING)
    link.call(count, "incr", NOTHING, about=About("counter:c"))
    pipes[0].close()
    host.advance(START + host.lease)
    with pytest.raises(StateLost):
        link.call(count, "incr", NOTHING, about=About("counter:c"))
    assert len(pipes) == 3
    assert _codec.decode(link.call(count, "incr", NOTHING, about=About("counter:c")).body) == 2


def test_who_has_seen_an_undo_that_is_lost_has_lost_its_session(host: Host) -> None:
    """Power is lost between a grant and its undo: nobody holds what the one who has forgotten it was granted."""
    hosts, pipes, images = [host], [], []

    def connect(deadline: float, resume: bool) -> Dialed:
        pipes.append(Pipe(hosts[-1]))
        return Dialed(pipes[-1], Greeting(hosts[-1].greet(), "x"), b"", True)

    def interrupt() -> None:
        images.append(_image.capture(host.engine))  # what is left of it
        raise Interruption

    link = _link.Link(connect, "x", timeout=2.0)
    count = link.handle("counter", "c", NOTHING)
    link.call(count, "incr", NOTHING, about=About("counter:c"))
    pipes[0].before_reading.append(interrupt)
    with pytest.raises(Interruption):
        link.call(link.handle("lock", "l", NOTHING), "acquire", NOTHING, about=About("lock:l"), waiting=True)
    link.call(count, "get", NOTHING, about=About("counter:c"), readonly=True)
    assert not link._pending  # it has seen that it holds nothing
    hosts.append(life(b"m", images[0]))
    pipes[-1].close()
    assert hosts[-1].statistics("lock", "l")["holder"] is not None
    with pytest.raises(StateLost, match="this session had seen"):
        link.call(count, "incr", NOTHING, about=About("counter:c"))
    assert hosts[-1].statistics("lock", "l")["holder"] is None


def test_a_loss_that_an_interrupt_hid_is_told_to_the_next_call(host: Host) -> None:
    """A call is to be told that the session is lost, and a signal handler raises first: the loss is not forgotten."""
    pipes: list[Pipe] = []
    second = life(b"m")
    hosts = [host, second, second, second, second]

    def interrupt() -> None:
        raise Interruption

    def connect(deadline: float, resume: bool) -> Dialed:
        pipe = Pipe(hosts[len(pipes)])
        pipes.append(pipe)
        if len(pipes) == 2:
            pipe.before_reading.append(interrupt)
        return Dialed(pipe, Greeting(pipe.host.greet(), "x"), b"", True)

    link = _link.Link(connect, "x", timeout=2.0)
    count = link.handle("counter", "c", NOTHING)
    link.call(count, "incr", NOTHING, about=About("counter:c"))
    pipes[0].close()
    with pytest.raises(Interruption):
        link.call(count, "incr", NOTHING, about=About("counter:c"))
    with pytest.raises(StateLost):
        link.call(count, "incr", NOTHING, about=About("counter:c"))
    assert _codec.decode(link.call(count, "incr", NOTHING, about=About("counter:c")).body) == 1


def test_a_call_that_was_sent_is_not_said_to_be_unsent(host: Host) -> None:
    """Its connection breaks, and the next server accepts and says nothing: what became of the call is unknown."""
    pipes: list[Pipe] = []

    def connect(deadline: float, resume: bool) -> Dialed:
        pipe = Pipe(host)
        pipes.append(pipe)
        if len(pipes) == 1:
            # The attach is answered; the reply to the call is lost.
            pipe.before_reading += [lambda: None, pipe.close]
        elif len(pipes) == 2:
            pipe.holds_from = 0
        return Dialed(pipe, Greeting(host.greet(), "x"), b"", True)

    link = _link.Link(connect, "x", timeout=2.0)
    count = link.handle("counter", "c", NOTHING)
    with pytest.raises(OutcomeUnknown):
        link.call(count, "incr", NOTHING, about=About("counter:c"))
    assert _codec.decode(link.call(count, "get", NOTHING, about=About("counter:c"), readonly=True).body) == 1


def pending(**fields: object) -> Pending:
    """Return a call under way."""
    return Pending(_link.CALL, 1, "get", NOTHING, About("queue:q"), False, **fields)  # type: ignore[arg-type]


def test_what_an_unsent_call_was_to_acknowledge_the_next_one_does(host: Host) -> None:
    """A call takes along which replies are there, and never arrives: the server hears of them by another."""
    gone = True

    def connect(deadline: float, resume: bool) -> Dialed:
        if gone:
            raise ServerNotFound("x", "nobody is there")
        return Dialed(Pipe(host), Greeting(host.greet(), "x"), b"", True)

    link = _link.Link(connect, "x", timeout=2.0)
    count = link.handle("counter", "c", NOTHING)
    link._pending = {1: pending(seq=1, waiting=True, delivered=True)}  # which holds the mark back
    link._next, link._above = 3, [2]
    with pytest.raises(ServerNotFound):
        link.call(count, "incr", NOTHING, about=About("counter:c"))
    gone = False
    link.call(count, "incr", NOTHING, about=About("counter:c"))
    (session,) = host.engine.sessions.values()
    assert session.above.rows() == ((2, 2),)


def test_a_call_that_is_sent_at_its_deadline_is_settled(host: Host) -> None:
    """Another thread sends it as its own gives it up: it is not said to have had no effect."""
    slot = pending(seq=1)

    class Sending:
        """Held by the other thread until now, which has sent the call and has had its reply."""

        def __enter__(self) -> None:
            slot.sent = True
            slot.reply = Frame(Kind.REPLY, 1, 1, 0, 0, _codec.encode(None))

        def __exit__(self, *error: object) -> None:
            pass

    link = _link.Link(lambda deadline, resume: Dialed(Pipe(host), Greeting(host.greet(), "x"), b"", True), "x")
    link._sending = Sending()  # type: ignore[assignment]
    link._settle(slot)
    assert slot.failure is None


def test_a_loss_that_a_call_learns_of_at_its_deadline_is_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that reads finds no server any more, and has the lock a moment before a call that is not sent yet."""
    pipe = Pipe(host)
    link = _link.Link(lambda deadline, resume: Dialed(pipe, Greeting(host.greet(), "x"), b"", True), "x")
    count = link.handle("counter", "c", NOTHING)
    link.call(count, "incr", NOTHING, about=About("counter:c"))
    link._break(pipe)  # type: ignore[arg-type]
    settle = link._settle

    def late(slot: Pending) -> None:
        gone = ServerNotFound("x", "nobody is there")
        link._lose(OutcomeUnknown, str(gone.reason), server_gone=gone)
        settle(slot)

    def passed(slot: Pending, deadline: float | None) -> None:
        raise DeadlinePassed

    monkeypatch.setattr(link, "_settle", late)
    monkeypatch.setattr(link, "_await", passed)
    with pytest.raises(ServerNotFound, match="nobody is there"):
        link.call(count, "get", NOTHING, about=About("counter:c"), readonly=True)


@pytest.mark.parametrize("give_up", ["_settle", "_undo"])
def test_a_call_of_a_lost_session_is_not_cancelled_in_the_next(give_up: str, host: Host) -> None:
    """Its session is lost and another one begun before a call that is given up has the lock: numbers begin anew."""
    link = _link.Link(lambda deadline, resume: Dialed(Pipe(host), Greeting(host.greet(), "x"), b"", True), "x")
    slot = pending(seq=3, sent=True)
    slot.readonly = True
    link._pending = {3: slot}
    link._lose(StateLost, "it is gone")
    link.ensure()
    getattr(link, give_up)(slot)
    count = link.handle("counter", "c", NOTHING)
    done = [link.call(count, "incr", NOTHING, about=About("counter:c")) for _ in range(4)]
    assert [_codec.decode(frame.body) for frame in done] == [1, 2, 3, 4]


def test_who_is_interrupted_while_attaching_has_no_session(host: Host) -> None:
    """The server has begun one, and the interruption came before that was heard; the next attempt begins another."""

    def interrupt() -> None:
        raise Interruption

    pipes = [Pipe(host), Pipe(host)]
    pipes[0].before_reading.append(interrupt)
    waiting = iter(pipes)
    link = _link.Link(lambda deadline, resume: Dialed(next(waiting), Greeting(host.greet(), "x"), b"", True), "x")
    with pytest.raises(Interruption):
        link.ensure()
    assert not host.clients
    count = link.handle("counter", "c", NOTHING)
    assert _codec.decode(link.call(count, "incr", NOTHING, about=About("counter:c")).body) == 1
    link.close()
    assert not host.clients


def test_what_was_told_with_a_read_only_is_told_again_to_the_next_life(host: Host) -> None:
    """A lock has arrived while an older call waits. That was told with a read, and the server, which dies, knew it."""
    pipes: list[Pipe] = []
    lives = [host]

    def connect(deadline: float, resume: bool) -> Dialed:
        pipes.append(Pipe(lives[-1]))
        return Dialed(pipes[-1], Greeting(lives[-1].greet(), "x"), b"", True)

    holder = Pipe(host)
    hello = _wire.Attach(b"o" * 16, 1, "h", "t", "holder", "1", 0, {})
    holder.send(_wire.pack(Kind.ATTACH, _wire.encode(hello), generation=1))
    define = msgspec.Raw(_wire.encode(["lock", "held", msgspec.Raw(NOTHING)]))
    body = _wire.CallBody(1, "acquire", msgspec.Raw(NOTHING), {_wire.DEFINITION: define})
    holder.send(_wire.pack(Kind.CALL, _wire.encode(body), generation=1, sequence=1, received=0))

    link = _link.Link(connect, "x", timeout=2.0)
    link.ensure()
    held, lock, count = (link.handle(*row, NOTHING) for row in (("lock", "held"), ("lock", "l"), ("counter", "c")))
    with link._sending:  # another thread's call, which waits all the time
        link._register(Pending(Kind.CALL, held, "acquire", NOTHING, About("lock:held"), False, True))
    link.call(lock, "acquire", NOTHING, about=About("lock:l"), waiting=True)
    link.call(count, "get", NOTHING, about=About("counter:c"), readonly=True)

    image = _image.capture(host.engine)  # what a log tells of: a read is in none
    link._break(pipes[-1])  # type: ignore[arg-type]
    lives.append(life(b"m", image))
    link.call(count, "incr", NOTHING, about=About("counter:c"))
    (client,) = (each for each in lives[-1].clients.values() if each.key == link.key)
    session = lives[-1].engine.sessions[client.number]
    assert [seq for seq in session.replies if not session.is_stale(seq)] == [4]  # which nobody has said to have

    # What is known to be in a log is not told for ever.
    link.call(count, "incr", NOTHING, about=About("counter:c"))
    link.call(count, "incr", NOTHING, about=About("counter:c"))
    assert not link._unlogged


def test_what_was_given_up_as_its_reply_came_is_settled(host: Host) -> None:
    """Whoever reads has brought the reply to a call after it was given up, and its undo went with a connection."""
    link = _link.Link(lambda deadline, resume: Dialed(Pipe(host), Greeting(host.greet(), "x"), b"", True), "x")
    reply = Frame(Kind.REPLY, 1, 1, 0, 0, _codec.encode(None))
    link._pending = {1: pending(seq=1, sent=True, waiting=True, abandoned=True, reply=reply)}
    link._next = 2
    count = link.handle("counter", "c", NOTHING)
    link.call(count, "incr", NOTHING, about=About("counter:c"))
    assert not link._pending


def test_the_keeper_may_leave_while_a_change_is_noted(host: Host) -> None:
    """Its thread takes itself out of the link between a look at it and its use, and no call of anybody fails."""
    kept = [type("Kept", (), {"note": lambda self, *change: None})(), None]

    class Left(_link.Link):
        @property
        def kept(self) -> object:
            return kept.pop(0) if kept else None

        @kept.setter
        def kept(self, value: object) -> None:
            pass

    link = Left(lambda deadline, resume: Dialed(Pipe(host), Greeting(host.greet(), "x"), b"", True), "x")
    link._note("connected")


def test_a_session_is_lost_while_a_reply_is_taken(host: Host) -> None:
    """A thread takes its call out of the row as the session is lost: neither trips over the other."""
    link = _link.Link(lambda deadline, resume: Dialed(Pipe(host), Greeting(host.greet(), "x"), b"", True), "x")
    row: dict[int, Pending] = {}

    class Taken(Pending, eq=False):
        @property
        def done(self) -> bool:
            row.pop(self.seq, None)
            return True

    row[1] = Taken(_link.CALL, 1, "get", NOTHING, About("dict:d"), False, seq=1)
    link._pending = row
    link._lose(StateLost, "it is gone")
    assert not link._pending


def test_a_connection_is_made_while_a_reply_is_taken(host: Host) -> None:
    """A thread takes its call out of the row as another looks for what to send again: neither trips."""
    link = _link.Link(lambda deadline, resume: Dialed(Pipe(host), Greeting(host.greet(), "x"), b"", True), "x")
    row: dict[int, Pending] = {}

    class Taken(Pending, eq=False):
        @property
        def done(self) -> bool:
            row.pop(self.seq, None)
            return True

    for seq in (1, 2):
        row[seq] = Taken(_link.CALL, 1, "get", NOTHING, About("dict:d"), False, seq=seq)
    link._pending = row
    link.ensure()
    assert not row


def test_a_loss_is_told_by_one_of_two_threads(host: Host) -> None:
    """Another thread takes what is to be told between a look at it and its use: this one's call is made."""
    tell = [StateLost("it is gone")]

    class Told(_link.Link):
        @property
        def _tell(self) -> Exception | None:
            return tell.pop() if tell else None

        @_tell.setter
        def _tell(self, value: object) -> None:
            pass

    link = Told(lambda deadline, resume: Dialed(Pipe(host), Greeting(host.greet(), "x"), b"", True), "x")
    with pytest.raises(StateLost):
        link.call(link.handle("counter", "c", NOTHING), "incr", NOTHING, about=About("counter:c"))


def test_who_is_interrupted_in_giving_up_has_given_up(host: Host) -> None:
    """A signal handler raises as an unsent call is being taken out of the row: it is not sent by the next one."""

    def connect(deadline: float, resume: bool) -> Dialed:
        if interrupts:
            raise ServerNotFound("x", "nobody is there")
        return Dialed(Pipe(host), Greeting(host.greet(), "x"), b"", True)

    class Sending:
        """The lock that is waited for, where the handler raises the second time it is taken."""

        def __enter__(self) -> None:
            taken.append(True)
            if len(taken) == 2:
                raise interrupts.pop()

        def __exit__(self, *error: object) -> None:
            pass

        def _is_owned(self) -> bool:
            return False

    interrupts, taken = [Interruption()], []
    link = _link.Link(connect, "x", timeout=2.0)
    count = link.handle("counter", "c", NOTHING)
    link._enter_session(link.local)
    link._sending = Sending()
    with pytest.raises(Interruption):
        link.call(count, "incr", NOTHING, about=About("counter:c"))
    assert not link._pending
    assert _codec.decode(link.call(count, "incr", NOTHING, about=About("counter:c")).body) == 1


def test_nobody_is_woken_to_read_who_has_left() -> None:
    """A call that is undone has nobody who could; another one is there, and would wait for ever."""
    link = _link.Link(Dialed, "x")  # which is never asked to connect
    locks = [threading.Lock(), threading.Lock()]
    for lock in locks:
        lock.acquire()
    left, stays = (pending(seq=number, parked=True, wake=lock) for number, lock in enumerate(locks, 1))
    link._pending = {1: left, 2: stays}
    link._undo(left)
    link._promote()
    assert [lock.locked() for lock in locks] == [True, False]
