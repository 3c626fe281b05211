"""A room of locks whose engine is watched by an oracle: can those who wait ever go on?

The oracle knows neither ``blocked_by`` nor the reduction. It takes an image of the engine, puts it into one that looks
for no deadlocks, and tries: whoever is not held up goes on and lets go of all that it has, and so does whoever has been
given something by that, until nothing more happens. Whoever waits still waits for ever.
"""

from __future__ import annotations

import random
from typing import Any

from engine_driver import Client, Driver, Ticket

from registry import SharedObject, _image
from registry._engine import Engine
from registry._events import Cancel, Event, OwnerEnded
from registry._leaves import Owner
from registry.errors import Deadlock
from registry.hosting import Waiter
from registry_sync import BOUNDED_SEMAPHORE, CONDITION, EVENT, LOCK, RLOCK, RWLOCK, SEMAPHORE, BoundedSemaphore


class Slots(BoundedSemaphore):
    """Permits of threads: nobody but the thread that has one returns it."""

    any_thread_releases = False

    def owner_ended(self, owner: Owner) -> None:
        """Return the permits of a thread that has ended, too."""
        self._return([key for key, permit in self._permits.items() if owner.covers(permit[0])])


SLOTS = SharedObject("slots", Slots, readonly=("value",), waiting=("acquire",), shape="semaphore")

DECLARATIONS = (RLOCK, RWLOCK, SLOTS, CONDITION, LOCK, SEMAPHORE, BOUNDED_SEMAPHORE, EVENT)

# A wait for one of these is never a reason for a deadlock: somebody else may end it.
ANYBODY = ("lock", "semaphore", "bounded_semaphore", "event")


class Blind(Engine):
    """An engine that looks for no deadlocks."""

    def _find_hopeless(self, waiter: Waiter) -> None:
        return None


def blind(image: bytes) -> Blind:
    """Return an engine that looks for no deadlocks, in the state of an image."""
    declarations = {declaration.typeid: declaration for declaration in DECLARATIONS}
    engine = _image.restore(declarations, image)
    engine.__class__ = Blind
    assert isinstance(engine, Blind)
    return engine


def held_up(engine: Blind) -> set[Owner]:
    """Return the owners that wait for ever, by trying; the engine is used up by it."""
    waits = _waits(engine)
    first = {owner: set(seqs) for owner, seqs in waits.items()}
    for session in engine.sessions.values():
        if session.away:  # its lease will end
            first = {owner: seqs for owner, seqs in first.items() if owner.session != session.number}
    everybody = {Owner(number, thread) for number in engine.sessions for thread in range(1, 4)} | set(waits)
    gone: set[Owner] = set()
    while True:
        waits = _waits(engine)
        free = [
            owner
            for owner in sorted(everybody - gone)
            if owner not in first
            or first[owner] - set(waits.get(owner, ()))
            or any(map(_is_live, waits[owner].values()))
        ]
        if not free:
            return everybody - gone
        for owner in free:
            gone.add(owner)
            engine.step(OwnerEnded(now=engine.now, session=owner.session, owner=owner.number))


def _waits(engine: Engine) -> dict[Owner, dict[int, tuple[Any, Waiter]]]:
    found: dict[Owner, dict[int, tuple[Any, Waiter]]] = {}
    for hosted in engine.objects.values():
        for waiter in hosted.waits.values():
            found.setdefault(waiter.owner, {})[waiter.seq] = (hosted, waiter)
    return found


def _is_live(wait: tuple[Any, Waiter]) -> bool:
    hosted, waiter = wait
    notify = getattr(hosted.instance, "_waiting", None)
    return (
        waiter.deadline is not None
        or hosted.declaration.typeid in ANYBODY
        or (notify is not None and waiter.home is notify)
    )


class Watched(Driver):
    """A driver that compares what the engine does about deadlocks with the oracle, after each event.

    Attributes:
        found: how many calls were refused or ended as deadlocks.
        suspicions: the texts that a server would log.
    """

    def __init__(self, *, twin: bool = False) -> None:
        self.found = 0
        self.suspicions: list[str] = []
        super().__init__(*DECLARATIONS, twin=twin)

    def feed(self, event: Event) -> Any:
        before = _image.capture(self.engine)
        outputs = super().feed(event)
        self.suspicions += self.engine.suspicions
        refused = []
        for output in outputs:
            ticket = self.tickets.get((output.session, output.seq))
            if ticket is not None:
                outcome = _error(ticket)
                # An rwlock refuses a second upgrade by itself.
                if isinstance(outcome, Deadlock) and outcome.participants:
                    refused.append(Owner(output.session, ticket.event.owner))
        self.found += len(refused)
        other = blind(before)
        other.step(event)
        stuck = held_up(other)
        assert set(refused) <= stuck, f"a false alarm: {refused} of {stuck}"
        assert not stuck or refused, f"nobody noticed {stuck}"
        assert not held_up(blind(_image.capture(self.engine))), "not all were noticed"
        return outputs


def _error(ticket: Ticket) -> object:
    try:
        return ticket.result()
    except Exception as error:  # noqa: BLE001 - whatever was raised is the outcome
        return error


# What an owner may do: typeid:name, method, whether it takes a timeout.
VERBS = (
    *((f"rlock:{name}", verb) for name in "ab" for verb in ("acquire", "acquire", "release")),
    *(("rwlock:t", verb) for verb in ("read", "read", "write", "release")),
    *(("slots:s", verb) for verb in ("acquire", "acquire", "release")),
    *(("condition:c", verb) for verb in ("acquire", "acquire", "wait", "notify_all", "release")),
    *(("lock:l", verb) for verb in ("acquire", "release")),
    *(("bounded_semaphore:b", verb) for verb in ("acquire", "release")),
)
PATIENT = ("acquire", "read", "write", "wait")


class Walk:
    """Owners of two processes that do one thing after the other.

    Args:
        twin: Whether to compare with a second engine that is restored before each event.
    """

    def __init__(self, *, twin: bool = False) -> None:
        self.room = Watched(twin=twin)
        self.clients: list[Client] = [self.room.client(name) for name in "ab"]
        self.clients[0].create("slots:s", 2)
        self.clients[0].create("bounded_semaphore:b", 2)
        self.tickets: list[Ticket] = []

    def step(self, who: int, what: int, timeout: float | None, nested: bool) -> None:
        """Let one of four threads make a call. One that waits does so only from a signal handler, `nested`."""
        self.tickets = [ticket for ticket in self.tickets if ticket.waits]
        client, owner = self.clients[who % 2], 1 + who // 2 % 2
        if client.away:
            if what % 2:
                client.resume()
            return
        busy = [ticket for ticket in self.tickets if ticket.client is client and ticket.event.owner == owner]
        if busy and not (nested and len(busy) == 1):
            return
        title, method = VERBS[what % len(VERBS)]
        kwargs = {"timeout": timeout} if method in PATIENT and timeout is not None else {}
        self.tickets.append(client.send(title, method, owner=owner, **kwargs))

    def turn(self, number: int) -> None:
        """Do something else: let time pass, cancel a wait, end a thread or a process, lose a connection."""
        self.tickets = [ticket for ticket in self.tickets if ticket.waits]
        room, kind = self.room, number % 10
        client = self.clients[number // 10 % 2]
        if kind < 3:
            room.advance(1.0)
        elif client.away:
            client.resume()
        elif kind in (3, 8):
            client.suspend()
        elif kind == 4 and self.tickets:
            ticket = self.tickets[number % len(self.tickets)]
            room.feed(Cancel(now=room.now, session=ticket.event.session, seq=ticket.event.seq, undo=True))
        elif kind == 5 and client.number:
            client.end_owner(1 + number % 2)
        elif kind == 6 and self.tickets:
            self.tickets[number % len(self.tickets)].resend(None if number % 3 else 2.0)
        elif kind == 7 and number % 5 == 0 and client.number:
            client.end()
            self.tickets = [ticket for ticket in self.tickets if ticket.client is not client]
            self.clients[self.clients.index(client)] = room.client(client.label)


def walk(seed: int, length: int = 40, *, twin: bool = False) -> Walk:
    """Go a random way; the same seed goes the same way."""
    draw = random.Random(seed)
    way = Walk(twin=twin)
    for _ in range(length):
        if draw.random() < 0.1:
            way.turn(draw.randrange(1000))
        else:
            timeout = draw.choice((None, None, None, None, 0, 1.5))
            way.step(draw.randrange(4), draw.randrange(len(VERBS)), timeout, draw.random() < 0.1)
    return way
