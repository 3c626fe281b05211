"""Drive an `Engine` by events, as the shell of a server would, without any I/O.

`Driver` owns an engine and a clock that only the test moves; `Client` is one session of it: it numbers its
calls, opens itself and creates objects at first use, encodes arguments as the types' carried parameters ask
for, and acknowledges the replies that came, unless it is `deaf`. ``twin=True`` keeps a second engine that is
fed the same events, and is thrown away and restored from its snapshot before each of them: the two must give
the same outputs and have the same snapshot, whatever the test does.
"""

from __future__ import annotations

from typing import Any

from registry import SharedObject, _codec, _image
from registry._engine import Engine
from registry._events import (
    Advance,
    Begin,
    Call,
    Cancel,
    Create,
    Event,
    Open,
    Output,
    OwnerEnded,
    Resumed,
    SessionEnded,
    Suspended,
)
from registry._leaves import Caller, Carried
from registry._wire import Kind

START = 1_000_000.0
SEED = bytes(range(32))


class _Waiting:
    """It is neither true nor false, so that no test takes a wait for a grant."""

    def __repr__(self) -> str:
        return "WAITING"

    def __bool__(self) -> bool:
        raise AssertionError("this call still waits")


#: What a call that still waits has instead of a result, and one that was cancelled.
WAITING = _Waiting()
CANCELLED = type("Cancelled", (), {"__repr__": lambda self: "CANCELLED"})()


def labels(rows: Any) -> list[str]:
    """Return the labels of those who hold or wait, as statistics tell them; of one or none, too."""
    if isinstance(rows, dict) or rows is None:
        rows = [] if rows is None else [rows]
    return [row["label"] for row in rows]


class Driver:
    """An engine with a clock of its own.

    Attributes:
        engine: the engine.
        now: the stamp of the next event; `advance` moves it.
    """

    def __init__(self, *declarations: SharedObject[Any], twin: bool = False, epoch: int = 1) -> None:
        self.declarations = {declaration.typeid: declaration for declaration in declarations}
        self.engine = Engine(self.declarations)
        self.twin = Engine(self.declarations) if twin else None
        self.now = START
        self.tickets: dict[tuple[int, int], Ticket] = {}
        self._keys = 0
        self.feed(Begin(now=self.now, epoch=epoch, seed=SEED))

    def client(self, label: str = "", domain: str = "") -> Client:
        """Make a client; its session opens with its first call that is not a read."""
        self._keys += 1
        return Client(self, self._keys.to_bytes(16, "big"), label or f"client {self._keys}", domain)

    def advance(self, seconds: float) -> None:
        """Let time pass, with what is due in it."""
        self.now += seconds
        self.feed(Advance(now=self.now))

    def feed(self, event: Event) -> list[Output]:
        """Feed one event, hand what comes out to those who wait for it, and compare the twin."""
        outputs = self.engine.step(event)
        if self.twin is not None:
            snapshot = _image.capture(self.twin)
            self.twin = _image.restore(self.declarations, snapshot)
            assert _image.capture(self.twin) == snapshot
            assert self.twin.step(event) == outputs
            assert _image.capture(self.twin) == _image.capture(self.engine)
        for output in outputs:
            ticket = self.tickets.get((output.session, output.seq))
            if ticket is not None:
                ticket.answer(output)
        return outputs

    def restart(self) -> None:
        """Put an engine that is restored from the image in the place of the engine."""
        self.engine = _image.restore(self.declarations, _image.capture(self.engine))

    def instance(self, title: str) -> Any:
        """Return the hosted object of a title such as ``lock:login``."""
        hosted = self.engine.find(*title.split(":"))
        assert hosted is not None, f"there is no {title}"
        return hosted.instance

    def statistics(self, title: str) -> dict[str, object]:
        """Return the statistics of an object."""
        hosted = self.engine.find(*title.split(":"))
        assert hosted is not None, f"there is no {title}"
        return self.engine.statistics(hosted)


class Client:
    """One session.

    Attributes:
        number: the session's number, 0 until it is open.
        deaf: whether replies get lost on their way; they are then not acknowledged.
        away: whether it has no connection; it is then to make no calls.
    """

    def __init__(self, driver: Driver, key: bytes, label: str, domain: str) -> None:
        self.driver = driver
        self.key = key
        self.label = label
        self.domain = domain
        self.number = 0
        self.deaf = False
        self.away = False
        self._seq = 0
        self._received: set[int] = set()
        self._mark = 0

    def send(self, title: str, method: str, /, *args: object, owner: int = 1, **kwargs: object) -> Ticket:
        """Make a call and return it, answered or waiting. A readonly method is answered as a read."""
        driver, engine = self.driver, self.driver.engine
        typeid, name = title.split(":")
        interface = driver.declarations[typeid].interface
        arguments = _codec.encode_arguments(args, kwargs, interface.carried.get(method))
        reads = method in interface.readonly and engine.find(typeid, name) is not None
        if not self.number and not reads:
            driver.feed(Open(now=driver.now, key=self.key, label=self.label, domain=self.domain))
            self.number = engine.session_of(self.key)
        event = Call(
            now=driver.now,
            session=self.number,
            seq=0 if reads else self._seq + 1,
            owner=owner,
            typeid=typeid,
            name=name,
            method=method,
            arguments=arguments,
            received=self.mark,
            above=self.above,
        )
        ticket = Ticket(self, event)
        if reads:
            before = _image.capture(engine) if driver.twin is not None else b""
            ticket.answer(engine.read(event, domain=self.domain, caller=Caller(label=self.label)))
            if driver.twin is not None:
                assert _image.capture(engine) == before, "a read left a trace"
            return ticket
        self._seq += 1
        driver.tickets[self.number, self._seq] = ticket
        if engine.find(typeid, name) is None:
            create = Create(
                now=driver.now,
                session=self.number,
                seq=self._seq,
                owner=owner,
                typeid=typeid,
                name=name,
                arguments=_codec.encode([[], {}]),
            )
            if driver.feed(create):
                return ticket
        driver.feed(event)
        return ticket

    def create(self, title: str, /, *args: object, **kwargs: object) -> None:
        """Create an object with arguments of its own."""
        driver = self.driver
        typeid, name = title.split(":")
        if not self.number:
            driver.feed(Open(now=driver.now, key=self.key, label=self.label, domain=self.domain))
            self.number = driver.engine.session_of(self.key)
        self._seq += 1
        seq = self._seq
        arguments = _codec.encode_arguments(args, kwargs)
        event = Create(
            now=driver.now,
            session=self.number,
            seq=seq,
            owner=1,
            typeid=typeid,
            name=name,
            arguments=arguments,
        )
        outputs = driver.feed(event)
        self.hear(seq)
        if outputs:
            raise _codec.decode(outputs[0].body)

    def call(self, title: str, method: str, /, *args: object, owner: int = 1, **kwargs: object) -> Any:
        """Make a call that is answered at once, and return its result or raise its error."""
        return self.send(title, method, *args, owner=owner, **kwargs).result()

    def end_owner(self, owner: int) -> None:
        """End a thread or task."""
        if self.number:
            self.driver.feed(OwnerEnded(now=self.driver.now, session=self.number, owner=owner))

    def end(self) -> None:
        """End the session, as a death does; replies that were not heard are taken back."""
        if self.number:
            now = self.driver.now
            self.driver.feed(SessionEnded(now=now, session=self.number, received=self.mark, above=self.above))
            self.number = 0

    def suspend(self) -> None:
        """Lose the connection."""
        self.away = True
        if self.number:
            self.driver.feed(Suspended(now=self.driver.now, session=self.number))

    def resume(self) -> None:
        """Have a connection again."""
        self.away = False
        if self.number:
            self.driver.feed(Resumed(now=self.driver.now, session=self.number))

    @property
    def mark(self) -> int:
        """The received mark: every reply up to here has come."""
        while self._mark + 1 in self._received:
            self._mark += 1
            self._received.discard(self._mark)
        return self._mark

    @property
    def above(self) -> tuple[tuple[int, int], ...]:
        """The received set: the ranges of replies that have come above the mark."""
        mark = self.mark
        return tuple((seq, seq) for seq in sorted(self._received) if seq > mark)

    def heard(self, seq: int) -> bool:
        """Tell whether a reply has come."""
        return seq <= self.mark or seq in self._received

    def hear(self, seq: int) -> None:
        """Take note of a reply, to acknowledge it with the next call."""
        if not self.deaf:
            self._received.add(seq)


class Ticket:
    """One call of a client, and its outcome.

    Attributes:
        event: the call, as it was fed.
        outputs: what came for it; more than one only where it was sent again or cancelled.
    """

    def __init__(self, client: Client, event: Call) -> None:
        self.client = client
        self.event = event
        self.outputs: list[Output] = []

    def answer(self, output: Output) -> None:
        """Take an output."""
        self.outputs.append(output)
        if output.seq:
            self.client.hear(output.seq)

    @property
    def waits(self) -> bool:
        """Whether there is no outcome yet."""
        return not self.outputs

    def result(self) -> Any:
        """Return the result, decoded, or raise the error; WAITING or CANCELLED if there is neither."""
        if not self.outputs:
            return WAITING
        output = self.outputs[-1]
        if output.kind == Kind.CANCELLED:
            return CANCELLED
        value = _codec.decode(output.body, incoming=_opened)
        if output.kind == Kind.ERROR or (output.kind == Kind.STANDS and isinstance(value, Exception)):
            raise value
        return value

    def outcome(self) -> Any:
        """Return the result, or the class of the error; for comparing with a model."""
        try:
            return self.result()
        except Exception as error:  # noqa: BLE001 - whatever was raised is the outcome
            return type(error)

    def resend(self, remaining: float | None = None) -> None:
        """Send the call once more, as after a reconnect."""
        driver, event = self.client.driver, self.event
        driver.feed(
            Call(
                now=driver.now,
                session=event.session,
                seq=event.seq,
                owner=event.owner,
                typeid=event.typeid,
                name=event.name,
                method=event.method,
                arguments=event.arguments,
                remaining=remaining,
            )
        )

    def cancel(self, undo: bool = True) -> None:
        """Settle the call."""
        client = self.client
        driver = client.driver
        driver.feed(Cancel(now=driver.now, session=client.number, seq=self.event.seq, undo=undo))


def _opened(leaf: Any) -> Any:
    """Decode what was carried, as a client does."""
    return _codec.decode_carried(leaf) if isinstance(leaf, Carried) else leaf
