"""Engines, hosts and types that are broken on purpose, one way each.

A mutant puts something else in the place of some methods of the real classes, as long as it is `active`. Each is
a bug that somebody could write and whose callers would notice it only by what they are answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs

from registry import hosting
from registry._attachments import Attachment, Client
from registry._engine import Engine
from registry._events import Call, Cancel, Output, SessionEnded
from registry._host import Host
from registry._sessions import Ranges, Session
from registry._wire import Frame, Kind
from registry.hosting import Waiter, Waiters
from registry_containers import Counter, Dict
from registry_queues import Queue
from registry_sync import Lock, Semaphore
from registry_sync._exclusive import Exclusive

Method = Callable[..., Any]
#: Whose method of which name, and what makes another one of it.
Change = tuple[type, str, Callable[[Method], Method]]


@attrs.frozen
class Mutant:
    """One way to be broken.

    Attributes:
        title: What is wrong.
        kinds: The types that show it.
        changes: What is put in the place of what.
    """

    title: str
    kinds: tuple[str, ...]
    changes: tuple[Change, ...]

    @contextmanager
    def active(self) -> Iterator[None]:
        """Break it for the length of a block."""
        before = [(owner, name, owner.__dict__.get(name)) for owner, name, _ in self.changes]
        try:
            for owner, name, change in self.changes:
                setattr(owner, name, change(getattr(owner, name)))
            yield
        finally:
            for owner, name, method in before:
                if method is None:  # it was inherited
                    delattr(owner, name)
                else:
                    setattr(owner, name, method)


MUTANTS: list[Mutant] = []


def mutant(title: str, *kinds: str) -> Callable[[Callable[[], tuple[Change, ...]]], None]:
    """Add what the function returns to the list."""

    def add(changes: Callable[[], tuple[Change, ...]]) -> None:
        MUTANTS.append(Mutant(title, kinds, changes()))

    return add


# -- what a session is promised


@mutant("replies are not remembered", "counter")
def _() -> tuple[Change, ...]:
    def change(reply: Method) -> Method:
        def forgetful(self: Engine, session: Session, seq: int, *rest: Any) -> None:
            reply(self, session, seq, *rest)
            session.replies.pop(seq)

        return forgetful

    return ((Engine, "_reply", change),)


@mutant("a reconnect forgets the replies", "counter", "dict")
def _() -> tuple[Change, ...]:
    def change(attach: Method) -> Method:
        def forgetful(self: Host, attachment: Attachment, frame: Frame, now: float) -> None:
            attach(self, attachment, frame, now)
            if attachment.client is not None and attachment.client.number:
                self.engine.sessions[attachment.client.number].replies.clear()

        return forgetful

    return ((Host, "_attach", change),)


@mutant("the received mark takes the next reply along", "counter")
def _() -> tuple[Change, ...]:
    # Such a call, sent again, is taken for one that has its reply: nobody answers it. It is run instead.
    def change(acknowledge: Method) -> Method:
        def greedy(self: Session, mark: int, above: Any = ()) -> None:
            acknowledge(self, mark, above)
            self.replies.pop(mark + 1, None)

        return greedy

    return ((Session, "acknowledge", change),)


@mutant("the received mark is ignored", "queue")
def _() -> tuple[Change, ...]:
    def change(acknowledge: Method) -> Method:
        def deaf(self: Session, mark: int, above: Any = ()) -> None:
            pass

        return deaf

    return ((Session, "acknowledge", change),)


@mutant("the received set acknowledges up to its highest", "queue")
def _() -> tuple[Change, ...]:
    def change(rows: Method) -> Method:
        def closed(self: Ranges) -> tuple[tuple[int, int], ...]:
            found = rows(self)
            return ((1, found[-1][1]),) if found else ()

        return closed

    return ((Ranges, "rows", change),)


@mutant("a call that waits and is sent again waits twice", "lock")
def _() -> tuple[Change, ...]:
    def change(call: Method) -> Method:
        def doubled(self: Engine, event: Call) -> None:
            self.sessions[event.session].waits.pop(event.seq, None)
            call(self, event)

        return doubled

    return ((Engine, "_call", change),)


@mutant("an old connection is read on, and a cancel leaves no mark", "lock")
def _() -> tuple[Change, ...]:
    def unfenced(receive: Method) -> Method:
        def reading(self: Host, attachment: Attachment, frame: Frame, now: float) -> None:
            client = attachment.client
            if client is None:
                receive(self, attachment, frame, now)
            else:
                present = client.attachment
                client.attachment = attachment
                receive(self, attachment, frame, now)
                if client.attachment is attachment:
                    client.attachment = present

        return reading

    def unmarked(cancel: Method) -> Method:
        def forgetful(self: Engine, event: Cancel) -> None:
            seen = self.knows(event.session, event.seq)
            cancel(self, event)
            if not seen:
                self.sessions[event.session].replies.pop(event.seq)

        return forgetful

    return ((Host, "receive", unfenced), (Engine, "_cancel", unmarked))


@mutant("a cancel undoes nothing", "lock", "queue")
def _() -> tuple[Change, ...]:
    def change(take_back: Method) -> Method:
        return lambda self, reply: True

    return ((Engine, "_take_back", change),)


@mutant("a cancelled wait stays in line", "lock")
def _() -> tuple[Change, ...]:
    def change(cancel: Method) -> Method:
        def lazy(self: Engine, event: Cancel) -> None:
            session = self.sessions[event.session]
            if session.waits.pop(event.seq, None) is None:
                cancel(self, event)
            else:
                self._reply(session, event.seq, Kind.CANCELLED, b"")

        return lazy

    return ((Engine, "_cancel", change),)


@mutant("a wait that is over stays in line", "queue")
def _() -> tuple[Change, ...]:
    def change(fire: Method) -> Method:
        def lazy(self: Engine, until: float) -> None:
            leave = Engine._leave
            Engine._leave = lambda self, waiter: None  # type: ignore[method-assign]
            try:
                fire(self, until)
            finally:
                Engine._leave = leave  # type: ignore[method-assign]

        return lazy

    return ((Engine, "_fire_due", change),)


@mutant("a death undoes what its session has acknowledged", "queue")
def _() -> tuple[Change, ...]:
    def remembering(call: Method) -> Method:
        def hoarding(self: Engine, event: Call) -> None:
            session = self.sessions[event.session]
            kept = {seq: reply for seq, reply in session.replies.items() if reply.target}
            call(self, event)
            session.replies = {**kept, **session.replies}

        return hoarding

    return ((Engine, "_call", remembering),)


@mutant("a death gives nothing back", "queue")
def _() -> tuple[Change, ...]:
    def change(ended: Method) -> Method:
        def careless(self: Engine, event: SessionEnded) -> None:
            self.sessions[event.session].replies.clear()
            ended(self, event)

        return careless

    return ((Engine, "_session_ended", change),)


@mutant("a death is told no object", "lock", "semaphore")
def _() -> tuple[Change, ...]:
    def change(ended: Method) -> Method:
        def silent(self: Engine, event: SessionEnded) -> None:
            self.sessions[event.session].objects.clear()
            ended(self, event)

        return silent

    return ((Engine, "_session_ended", change),)


# -- when a step takes effect


@mutant("a read is answered from what an earlier one found", "counter", "dict")
def _() -> tuple[Change, ...]:
    def change(read: Method) -> Method:
        def stale(self: Engine, call: Call, **rest: Any) -> Output:
            known = vars(self).setdefault("known", {})
            key = (call.typeid, call.name, call.method, call.arguments)
            if key in known and self.index < known[key][0] + 3:
                found: Output = known[key][1]
                return Output(call.session, call.seq, found.kind, found.body, found.index)
            found = read(self, call, **rest)
            known[key] = (self.index, found)
            return found

        return stale

    return ((Engine, "read", change),)


@mutant("a write is answered before it is done", "dict")
def _() -> tuple[Change, ...]:
    def change(store: Method) -> Method:
        def late(self: Dict, key: Any, value: Any) -> Any:
            # What was stored last comes to be with the next.
            waiting = vars(self).pop("_late", None)
            if waiting is not None:
                store(self, *waiting)
            vars(self)["_late"] = (key, value)
            return value

        return late

    return ((Dict, "_store", change),)


@mutant("a write is lost where two sessions write at once", "counter")
def _() -> tuple[Change, ...]:
    def change(incr: Method) -> Method:
        def racing(self: Counter, by: int = 1) -> Any:
            # As a read and a write with another caller between them.
            session = hosting.call().session
            value = self._value
            writer, before = vars(self).get("_last", (session, value))
            if writer != session and by == 1:
                self._value = before
            result = incr(self, by)
            vars(self)["_last"] = (session, value)
            return result

        return racing

    return ((Counter, "incr", change),)


@mutant("replies of two calls under way are exchanged", "counter")
def _() -> tuple[Change, ...]:
    def change(deliver: Method) -> Method:
        def crossed(self: Host, client: Client, output: Output) -> None:
            last = vars(self).get("last")
            vars(self)["last"] = output
            if last is not None and last.kind == output.kind == Kind.REPLY and output.index % 7 == 0:
                output = Output(output.session, output.seq, output.kind, last.body, output.index)
            deliver(self, client, output)

        return crossed

    return ((Host, "deliver", change),)


# -- what a type promises


@mutant("compare_and_set does not compare", "dict")
def _() -> tuple[Change, ...]:
    def change(compare: Method) -> Method:
        def blind(self: Dict, key: Any, expected: Any, value: Any, version: Any = None) -> bool:
            found = key in self._values
            if found:
                self[key] = value
            return found

        return blind

    return ((Dict, "compare_and_set", change),)


@mutant("pop leaves what it gives", "dict")
def _() -> tuple[Change, ...]:
    def change(pop: Method) -> Method:
        return lambda self, key, default=None: self.get(key, default)

    return ((Dict, "pop", change),)


@mutant("the last item comes out first", "queue")
def _() -> tuple[Change, ...]:
    def change(get: Method) -> Method:
        def reversing(self: Queue, *args: Any, **kwargs: Any) -> Any:
            self._items.rotate(1)
            return get(self, *args, **kwargs)

        return reversing

    return ((Queue, "get", change),)


@mutant("what goes back goes to the end", "queue")
def _() -> tuple[Change, ...]:
    def change(take_back: Method) -> Method:
        def misplaced(self: Queue, value: Any) -> bool:
            before = len(self._items)
            undone: bool = take_back(self, value)
            if len(self._items) > before:
                self._items.rotate(-1)
            return undone

        return misplaced

    return ((Queue, "take_back", change),)


@mutant("what goes back is lost", "queue")
def _() -> tuple[Change, ...]:
    return ((Queue, "take_back", lambda take_back: lambda self, value: True),)


@mutant("what a waiting putter brings is lost", "queue")
def _() -> tuple[Change, ...]:
    def change(get: Method) -> Method:
        def losing(self: Queue, *args: Any, **kwargs: Any) -> Any:
            waiting = len(self._putters)
            result = get(self, *args, **kwargs)
            if len(self._putters) < waiting:
                self._items.pop()
            return result

        return losing

    return ((Queue, "get", change),)


@mutant("a full queue takes one more", "queue")
def _() -> tuple[Change, ...]:
    return ((Queue, "_has_room", lambda has_room: lambda self, count: has_room(self, count - 1)),)


@mutant("a lock is granted twice where two wait", "lock")
def _() -> tuple[Change, ...]:
    def change(pass_on: Method) -> Method:
        def generous(self: Exclusive) -> None:
            pass_on(self)
            if self._holder is not None and self._waiters.first is not None:
                pass_on(self)

        return generous

    return ((Exclusive, "_pass_on", change),)


@mutant("any death frees the lock", "lock")
def _() -> tuple[Change, ...]:
    def change(ended: Method) -> Method:
        return lambda self, owner: None if self._holder is None else ended(self, self._holder)

    return ((Lock, "owner_ended", change),)


@mutant("anybody may release", "lock")
def _() -> tuple[Change, ...]:
    return ((Lock, "_may_release", lambda may: lambda self, holder, number: True),)


@mutant("the mark of a death is not set", "lock")
def _() -> tuple[Change, ...]:
    def change(ended: Method) -> Method:
        def silent(self: Lock, owner: Any) -> None:
            before = self._abandoned
            grant = Exclusive._grant
            Exclusive._grant = lambda self: hosting.Grant(  # type: ignore[method-assign]
                self._number, before, self._who(), self._since
            )
            try:
                ended(self, owner)
            finally:
                Exclusive._grant = grant  # type: ignore[method-assign]
            self._abandoned = before

        return silent

    return ((Lock, "owner_ended", change),)


@mutant("a grant that was undone clears the mark of a death", "lock")
def _() -> tuple[Change, ...]:
    def change(take_back: Method) -> Method:
        def clearing(self: Lock, value: Any) -> Any:
            self._abandoned = False
            return take_back(self, value)

        return clearing

    return ((Lock, "take_back", change),)


@mutant("tokens repeat", "lock")
def _() -> tuple[Change, ...]:
    def change(token: Method) -> Method:
        def repeating(self: Engine) -> int:
            number: int = token(self)
            return number - number % 2

        return repeating

    return ((Engine, "next_token", change),)


@mutant("who came last is served first", "lock")
def _() -> tuple[Change, ...]:
    def change(first: Any) -> Any:
        def last(self: Waiters) -> Waiter | None:
            return next(reversed(self._queue.values()), None)

        return property(last)

    def waking(wake: Method) -> Method:
        def wake_last(self: Waiters, value: object = None) -> Waiter | None:
            waiter = next(reversed(self._queue.values()), None)
            if waiter is not None:
                hosting.call()._steps.resolve(waiter, value)
            return waiter

        return wake_last

    return ((Waiters, "first", change), (Waiters, "wake", waking))


@mutant("there is a permit more than there are", "semaphore")
def _() -> tuple[Change, ...]:
    def change(ended: Method) -> Method:
        def generous(self: Semaphore, owner: Any) -> None:
            ended(self, owner)
            self._value += 1

        return generous

    return ((Semaphore, "owner_ended", change),)


@mutant("a permit that was undone does not come back", "semaphore")
def _() -> tuple[Change, ...]:
    def change(take_back: Method) -> Method:
        def losing(self: Semaphore, value: Any) -> bool:
            return self._permits.pop(value.number, None) is not None

        return losing

    return ((Semaphore, "take_back", change),)
