"""Servers and clients that go on in another life in a way that is broken on purpose.

As in `mutants`; what is put in the place of something is what holds answers back, what goes on in another life, and
what a client does to come back to it. `restarts` and `durable_clients` are to notice.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import msgspec

from linearizability.mutants import Change, Method, Mutant
from registry import _image, _wire
from registry._attachments import Client, Log
from registry._engine import Engine
from registry._events import Begin, Call, Event, Halted, Output, Resumed, Suspended
from registry._host import Host
from registry._line import Line
from registry._link import Link
from registry._pending import Pending
from registry._sessions import Ranges
from registry._transport import Dialed
from registry._wire import Frame
from registry._words import WordPool

LOG_MUTANTS: list[Mutant] = []


def mutant(title: str, *kinds: str) -> Callable[[Callable[[], tuple[Change, ...]]], None]:
    """Add what the function returns to the list."""

    def add(changes: Callable[[], tuple[Change, ...]]) -> None:
        LOG_MUTANTS.append(Mutant(title, kinds, changes()))

    return add


def after(owner: Any, name: str, then: Callable[..., None]) -> tuple[Change, ...]:
    """Return a change that does something further after a method of the host."""

    def change(method: Method) -> Method:
        def both(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = method(self, *args, **kwargs)
            then(self)
            return result

        return both

    return ((owner, name, change),)


def unlogged(*events: type[Event]) -> tuple[Change, ...]:
    """Return a change with which some events are not logged."""

    def change(feed: Method) -> Method:
        def silent(self: Host, event: Event) -> None:
            log: Log | None = self._log
            if isinstance(event, events):
                self._log = None
            feed(self, event)
            self._log = log

        return silent

    return ((Host, "_feed", change),)


# -- what leaves


@mutant("an answer leaves before its event is safe", "counter", "dict")
def _() -> tuple[Change, ...]:
    def change(deliver: Method) -> Method:
        def hasty(self: Host, client: Client, output: Output) -> None:
            if client.deliver is not None:
                client.deliver(output)

        return hasty

    return ((Host, "deliver", change),)


@mutant("one event more than is safe is let go", "queue", "semaphore")
def _() -> tuple[Change, ...]:
    def change(release: Method) -> Method:
        return lambda self, index: release(self, index + 1)

    return ((Host, "release", change),)


@mutant("a server that comes back holds nothing back", "counter", "lock")
def _() -> tuple[Change, ...]:
    def then(self: Host) -> None:
        if self.recovered:
            self._safe = inf

    return after(Host, "release", then)


@mutant("a read does not wait for what it has seen", "counter", "dict")
def _() -> tuple[Change, ...]:
    def change(read: Method) -> Method:
        def careless(self: Engine, *args: Any, **kwargs: Any) -> Output:
            found: Output = msgspec.structs.replace(read(self, *args, **kwargs), index=0)
            return found

        return careless

    return ((Engine, "read", change),)


@mutant("a reply that is sent again does not wait", "queue", "semaphore")
def _() -> tuple[Change, ...]:
    def change(call: Method) -> Method:
        def hasty(self: Engine, event: Call) -> None:
            known = self.sessions[event.session].replies.get(event.seq)
            call(self, event)
            if known is not None:
                self._outputs = [msgspec.structs.replace(output, index=0) for output in self._outputs]

        return hasty

    return ((Engine, "_call", change),)


# -- what is in the log


@mutant("the beginning of a life is not logged", "counter")
def _() -> tuple[Change, ...]:
    return unlogged(Begin)


@mutant("an end of a session is not logged", "lock")
def _() -> tuple[Change, ...]:
    def change(end: Method) -> Method:
        def silent(self: Host, client: Client, now: float) -> None:
            log: Log | None = self._log
            self._log = None
            end(self, client, now)
            self._log = log

        return silent

    return ((Host, "end", change),)


@mutant("that a session went away is not logged", "lock", "queue")
def _() -> tuple[Change, ...]:
    return unlogged(Suspended, Resumed)


@mutant("a halt is not logged", "counter")
def _() -> tuple[Change, ...]:
    return unlogged(Halted)


@mutant("a verdict is not logged", "counter")
def _() -> tuple[Change, ...]:
    return ((Engine, "verdicts", lambda verdicts: property(lambda self: ())),)


# -- what goes on


@mutant("a server that comes back remembers no replies", "counter", "queue")
def _() -> tuple[Change, ...]:
    def then(self: Host) -> None:
        for session in self.engine.sessions.values():
            session.replies.clear()

    return after(Host, "_recall", then)


@mutant("a server that comes back does not know which replies have arrived", "queue")
def _() -> tuple[Change, ...]:
    def change(restore: Method) -> Method:
        def forgetful(*args: Any) -> Engine:
            engine: Engine = restore(*args)
            for session in engine.sessions.values():
                session.mark, session.above = 0, Ranges()
            return engine

        return forgetful

    return ((_image, "restore", change),)  # type: ignore[arg-type]


@mutant("a server that comes back does not know who waits", "lock", "queue")
def _() -> tuple[Change, ...]:
    def then(self: Host) -> None:
        for session in self.engine.sessions.values():
            session.waits.clear()

    return after(Host, "_recall", then)


@mutant("who waits begins its time anew in another life", "lock", "semaphore")
def _() -> tuple[Change, ...]:
    def then(self: Host) -> None:
        for session in self.engine.sessions.values():
            for waiter in session.waits.values():
                if waiter.deadline is not None:
                    waiter.deadline += self.engine.now - waiter.since
                    self.engine._watch(waiter)

    return after(Host, "_recall", then)


@mutant("who waits does so for ever in another life", "lock", "semaphore")
def _() -> tuple[Change, ...]:
    def then(self: Host) -> None:
        for session in self.engine.sessions.values():
            for waiter in session.waits.values():
                waiter.deadline = None

    return after(Host, "_recall", then)


@mutant("a snapshot has the line in another order", "semaphore")
def _() -> tuple[Change, ...]:
    def change(restore: Method) -> Method:
        def reversing(*args: Any) -> Engine:
            engine: Engine = restore(*args)
            for hosted in engine.objects.values():
                hosted.waits = dict(reversed(hosted.waits.items()))
                for waiter in hosted.waits.values():
                    home = waiter.home
                    if home is not None:
                        home._dismiss(waiter)
                        home._admit(waiter)
            return engine

        return reversing

    return ((_image, "restore", change),)  # type: ignore[arg-type]


@mutant("who was away when the server came back is passed over for ever", "lock", "semaphore")
def _() -> tuple[Change, ...]:
    return ((Engine, "_resumed", lambda resumed: lambda self, event: None),)


@mutant("sessions get each other's numbers", "lock", "semaphore")
def _() -> tuple[Change, ...]:
    def then(self: Host) -> None:
        numbers = [client.number for client in self._numbered.values()]
        clients = list(self._numbered.values())
        self._numbered.clear()
        for number, client in zip(numbers, clients[1:] + clients[:1], strict=True):
            client.number = number
            self._numbered[number] = client

    return after(Host, "_recall", then)


@mutant("tokens go on from what the log knows", "lock", "semaphore")
def _() -> tuple[Change, ...]:
    def change(begin: Method) -> Method:
        def repeating(self: Engine, event: Begin) -> None:
            last = self._last_token
            begin(self, event)
            self._last_token = last

        return repeating

    return ((Engine, "_begin", change),)


@mutant("a death while the server was down is not noticed", "lock", "semaphore")
def _() -> tuple[Change, ...]:
    def change(end: Method) -> Method:
        def blind(self: Host, client: Client, now: float) -> None:
            if client.number and not client.generation:
                client.number = 0
            end(self, client, now)

        return blind

    return ((Host, "end", change),)


# -- what is lost


@mutant("nobody is told of what is lost", "counter", "lock")
def _() -> tuple[Change, ...]:
    return ((Host, "_loss_of", lambda loss_of: lambda self, hello, client: ""),)


@mutant("who has seen the last event that is left is told that it has lost something", "counter", "lock")
def _() -> tuple[Change, ...]:
    def change(loss_of: Method) -> Method:
        def timid(self: Host, hello: _wire.Attach, client: Client | None) -> Any:
            return loss_of(self, msgspec.structs.replace(hello, applied=hello.applied + 1), client)

        return timid

    return ((Host, "_loss_of", change),)


@mutant("what a life has lost is forgotten once as much has come after it", "counter", "lock")
def _() -> tuple[Change, ...]:
    def change(end_of: Method) -> Method:
        def hopeful(self: Engine, life: bytes) -> int | None:
            return None if end_of(self, life) is None else self.index

        return hopeful

    return ((Engine, "end_of", change),)


@mutant("a session that has lost something keeps what it held", "lock", "semaphore")
def _() -> tuple[Change, ...]:
    def change(attach: Method) -> Method:
        def sparing(self: Host, *args: Any) -> None:
            end = Host.end
            Host.end = lambda self, client, now: None  # type: ignore[method-assign]
            try:
                attach(self, *args)
            finally:
                Host.end = end  # type: ignore[method-assign]

        return sparing

    return ((Host, "_attach", change),)


# -- clients that come back


RESUMING_MUTANTS: list[Mutant] = []


def resuming(title: str, *kinds: str) -> Callable[[Callable[[], tuple[Change, ...]]], None]:
    """Add what the function returns to the list of clients that do not come back as they should."""

    def add(changes: Callable[[], tuple[Change, ...]]) -> None:
        RESUMING_MUTANTS.append(Mutant(title, kinds, changes()))

    return add


def before_another_life(then: Callable[[Link], None]) -> tuple[Change, ...]:
    """Return a change that does something before a session is brought to another life of its server."""

    def change(attach: Method) -> Method:
        def both(self: Link, dialed: Dialed, limit: float | None) -> None:
            if self._known and dialed.greeting.life != self._life:
                then(self)
            attach(self, dialed, limit)

        return both

    return ((Link, "_attach", change),)


@resuming("a client does not tell what it has seen", "counter", "lock")
def _() -> tuple[Change, ...]:
    def then(self: Link) -> None:
        self._applied = 0

    return before_another_life(then)


@resuming("the answer to an undo does not count as seen", "lock", "semaphore")
def _() -> tuple[Change, ...]:
    def change(hand_out: Method) -> Method:
        def blind(self: Link, frame: Frame) -> None:
            seen = self._applied
            slot = self._pending.get(frame.sequence)
            hand_out(self, frame)
            if slot is not None and slot.abandoned:
                self._applied = seen

        return blind

    return ((Link, "_hand_out", change),)


@resuming("what was sent to an earlier life is made anew", "counter", "queue")
def _() -> tuple[Change, ...]:
    def then(self: Link) -> None:
        row, self._pending = self._pending, {}
        for slot in row.values():
            if slot.sent and not slot.done:
                slot.seq, self._next = self._next, self._next + 1
            self._pending[slot.seq] = slot

    return before_another_life(then)


@resuming("what was sent to an earlier life is taken for done", "counter", "lock")
def _() -> tuple[Change, ...]:
    def change(send: Method) -> Method:
        def trusting(self: Link, slot: Pending, *rest: Any) -> None:
            if not slot.sent or self._generation == slot.asked:
                send(self, slot, *rest)

        return trusting

    return ((Link, "_send", change),)


@resuming("what was given up in an earlier life is forgotten", "lock", "semaphore")
def _() -> tuple[Change, ...]:
    def then(self: Link) -> None:
        for seq, slot in list(self._pending.items()):
            if slot.abandoned:
                del self._pending[seq]

    return before_another_life(then)


@resuming("another life is another server, which is told to nobody", "counter", "lock")
def _() -> tuple[Change, ...]:
    def then(self: Link) -> None:
        row, number = self._pending, self._next
        self._new_session()
        self._pending, self._next = row, max(number, self._next)

    return before_another_life(then)


@resuming("a session takes up the numbers of its calls from the beginning", "counter", "queue")
def _() -> tuple[Change, ...]:
    def then(self: Link) -> None:
        if not self._pending:
            self._next -= self._next % 100_000 - 1

    return before_another_life(then)


@resuming("a client goes on reading by the words of a life that is over", "counter")
def _() -> tuple[Change, ...]:
    def idle(method: Method) -> Method:
        return lambda self: None

    return ((Line, "_drop_words", idle), (WordPool, "poison", idle))
