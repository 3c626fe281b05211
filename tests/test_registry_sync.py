"""Locks: one holder at a time, first come first served, and nothing held by the dead."""

from __future__ import annotations

from typing import Any

import pytest
from engine_driver import CANCELLED, START, WAITING, Driver, Ticket, labels
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from registry import Grant, _image
from registry.errors import NotOwner
from registry_sync import LOCK, RLOCK, registry_shared_objects

KINDS = pytest.mark.parametrize("typeid", ["lock", "rlock"])


def driver(**options: Any) -> Driver:
    return Driver(LOCK, RLOCK, twin=True, **options)


def test_declarations() -> None:
    """The plugin's hook declares the whole family; `lock` and `rlock` look alike from outside."""
    assert [record.typeid for record in registry_shared_objects()] == [
        *("lock", "rlock", "rwlock", "semaphore", "bounded_semaphore", "event", "condition", "barrier", "latch")
    ]
    for record in (LOCK, RLOCK):
        assert record.interface.exposed == ("acquire", "locked", "release")
        assert record.interface.shape == "lock"


@KINDS
def test_grant(typeid: str) -> None:
    """A free lock is granted at once, with a number of the epoch, the holder and the time."""
    alice = driver(epoch=3).client("alice")
    grant = alice.call(f"{typeid}:l", "acquire")
    assert grant == Grant((3 << 40) + 1, False, "alice", START)
    assert grant.token == grant.number
    assert alice.call(f"{typeid}:l", "locked") is True
    alice.call(f"{typeid}:l", "release")
    assert alice.call(f"{typeid}:l", "locked") is False


@KINDS
def test_fifo(typeid: str) -> None:
    """Waiters are served in the order in which they came, with numbers that grow."""
    room = driver()
    clients = [room.client() for _ in range(4)]
    tickets = [client.send(f"{typeid}:l", "acquire") for client in clients]
    assert [ticket.waits for ticket in tickets] == [False, True, True, True]
    for client in clients:
        client.call(f"{typeid}:l", "release")
    numbers = [ticket.result().number for ticket in tickets]
    assert numbers == sorted(set(numbers))
    assert room.instance(f"{typeid}:l").vacant()


@KINDS
def test_refusal_names_the_holder(typeid: str) -> None:
    """A falsy grant names who holds the lock when it is given, and since when."""
    room = driver()
    alice, bob, carol = room.client("alice"), room.client("bob"), room.client("carol")
    alice.call(f"{typeid}:l", "acquire")
    assert bob.call(f"{typeid}:l", "acquire", False) == Grant(0, False, "alice", START)
    assert bob.call(f"{typeid}:l", "acquire", timeout=0) == Grant(0, False, "alice", START)
    bob.send(f"{typeid}:l", "acquire")
    waiting = carol.send(f"{typeid}:l", "acquire", timeout=5.0)
    room.advance(1.0)
    alice.call(f"{typeid}:l", "release")
    room.advance(3.9)
    assert waiting.result() is WAITING
    room.advance(0.1)
    assert waiting.result() == Grant(0, False, "bob", START + 1.0)
    assert room.statistics(f"{typeid}:l")["waiters"] == []


@KINDS
def test_timeouts_of_threading(typeid: str) -> None:
    """Timeouts are read as `threading.Lock` reads them."""
    room = driver()
    alice, bob = room.client(), room.client()
    alice.call(f"{typeid}:l", "acquire", True, -1)
    for endless in (None, -1, -1.0, float("inf")):
        ticket = bob.send(f"{typeid}:l", "acquire", timeout=endless)
        assert ticket.waits
        assert room.engine.next_due() is None
        ticket.cancel()
    assert not bob.call(f"{typeid}:l", "acquire", False, -1)
    with pytest.raises(ValueError, match=r"^can't specify a timeout for a non-blocking call$"):
        bob.call(f"{typeid}:l", "acquire", False, 5)
    for client in (alice, bob):
        for wrong in (-2, -0.5, float("nan")):
            with pytest.raises(ValueError, match=r"^timeout value must be a non-negative number$"):
                client.call(f"{typeid}:l", "acquire", timeout=wrong)


@KINDS
def test_not_owner(typeid: str) -> None:
    """Only the holder releases, by no grant but its own; the error names lock and holder."""
    room = driver()
    alice, bob = room.client("alice"), room.client("bob")
    number = alice.call(f"{typeid}:l", "acquire").number
    for args in ((), (number,)):
        with pytest.raises(NotOwner) as raised:
            bob.call(f"{typeid}:l", "release", *args)
        assert (raised.value.object, raised.value.holder) == (f"{typeid}:l", "alice")
    with pytest.raises(NotOwner):
        alice.call(f"{typeid}:l", "release", number + 1)
    alice.call(f"{typeid}:l", "release", number)
    with pytest.raises(NotOwner) as raised:
        alice.call(f"{typeid}:l", "release")
    assert raised.value.holder == ""


def test_lock_belongs_to_the_process() -> None:
    """Any thread of the process releases a lock, and a second acquire by the same process waits."""
    alice = driver().client()
    alice.call("lock:l", "acquire", owner=1)
    second = alice.send("lock:l", "acquire", owner=1)
    third = alice.send("lock:l", "acquire", owner=2)
    alice.call("lock:l", "release", owner=3)
    assert second.result()
    alice.call("lock:l", "release", second.result().number, owner=3)
    assert third.result()


def test_lock_outlives_its_thread() -> None:
    """The thread that acquired a lock may end; the process holds on."""
    room = driver()
    alice = room.client("alice")
    alice.call("lock:l", "acquire", owner=7)
    alice.end_owner(7)
    assert labels(room.statistics("lock:l")["holder"]) == ["alice"]
    alice.call("lock:l", "release", owner=8)


def test_rlock_levels() -> None:
    """The thread that holds an rlock acquires it again at once, by the same number, and releases as often."""
    room = driver()
    alice, bob = room.client(), room.client()
    grants = [alice.call("rlock:l", "acquire", owner=1) for _ in range(3)]
    assert grants[0] == grants[1] == grants[2]
    waiting = [alice.send("rlock:l", "acquire", owner=2), bob.send("rlock:l", "acquire")]
    alice.call("rlock:l", "release", owner=1)
    alice.call("rlock:l", "release", owner=1)
    assert [ticket.waits for ticket in waiting] == [True, True]
    with pytest.raises(NotOwner):
        alice.call("rlock:l", "release", owner=2)
    # The last by its grant, which a `with` block may do from another thread.
    alice.call("rlock:l", "release", grants[0].number, owner=2)
    assert waiting[0].result() and waiting[1].waits
    alice.call("rlock:l", "release", owner=2)
    assert waiting[1].result()


def test_rlock_goes_with_its_thread() -> None:
    """A thread that ends while it holds an rlock frees all its levels, and the next is told."""
    room = driver()
    alice, bob = room.client("alice"), room.client("bob")
    alice.call("rlock:l", "acquire", owner=1)
    alice.call("rlock:l", "acquire", owner=1)
    waiting = bob.send("rlock:l", "acquire")
    alice.end_owner(2)
    assert waiting.waits
    alice.end_owner(1)
    grant = waiting.result()
    assert (grant.abandoned, grant.holder) == (True, "alice")


@KINDS
def test_abandoned(typeid: str) -> None:
    """A holder's death marks the lock until a holder that was told has released."""
    title = f"{typeid}:l"
    room = driver()
    alice, bob, carol, dora = (room.client(name) for name in ("alice", "bob", "carol", "dora"))
    alice.call(title, "acquire")
    alice.call(title, "acquire", False)
    waiting = bob.send(title, "acquire")
    alice.end()
    assert (waiting.result().abandoned, waiting.result().holder) == (True, "alice")
    bob.end()
    assert room.statistics(title)["abandoned"] is True
    assert not room.instance(title).vacant()
    grant = carol.call(title, "acquire")
    assert (grant.abandoned, grant.holder) == (True, "bob")
    carol.call(title, "release")
    assert dora.call(title, "acquire").abandoned is False


@KINDS
def test_unheard_grant_keeps_the_mark(typeid: str) -> None:
    """A grant that was cancelled goes to the next, who is told of the death all the same."""
    title = f"{typeid}:l"
    room = driver()
    alice, bob, carol = room.client("alice"), room.client("bob"), room.client("carol")
    alice.call(title, "acquire")
    bob.deaf = True
    unheard = bob.send(title, "acquire")
    waiting = carol.send(title, "acquire")
    alice.end()
    assert unheard.result().abandoned and waiting.waits
    unheard.cancel()
    assert unheard.result() is CANCELLED
    assert (waiting.result().abandoned, waiting.result().holder) == (True, "alice")


@KINDS
def test_cancelled_wait(typeid: str) -> None:
    """A waiter that gives up is not granted anything later."""
    title = f"{typeid}:l"
    room = driver()
    alice, bob, carol = room.client(), room.client(), room.client()
    alice.call(title, "acquire")
    given_up, waiting = bob.send(title, "acquire"), carol.send(title, "acquire")
    given_up.cancel()
    alice.call(title, "release")
    assert given_up.result() is CANCELLED and waiting.result()


def test_cancelled_level() -> None:
    """Of a holder that has an rlock twice, a cancelled acquire takes one level back."""
    room = driver()
    alice = room.client()
    alice.call("rlock:l", "acquire")
    alice.deaf = True
    alice.send("rlock:l", "acquire").cancel()
    assert alice.call("rlock:l", "locked") is True
    alice.call("rlock:l", "release")
    assert alice.call("rlock:l", "locked") is False


@KINDS
def test_cancel_after_the_release_is_nothing(typeid: str) -> None:
    """Undoing a grant that was released since leaves the lock to its present holder."""
    title = f"{typeid}:l"
    room = driver()
    alice, bob = room.client("alice"), room.client("bob")
    alice.deaf = True
    old = alice.send(title, "acquire")
    alice.send(title, "release")
    bob.call(title, "acquire")
    old.cancel()
    assert labels(room.statistics(title)["holder"]) == ["bob"]


@KINDS
def test_holds(typeid: str) -> None:
    """Exactly the number of the present grant is valid."""
    title = f"{typeid}:l"
    room = driver()
    alice = room.client()
    number = alice.call(title, "acquire").number
    lock = room.instance(title)
    assert lock.holds(number) and not lock.holds(number + 1) and not lock.holds(0)
    alice.call(title, "release")
    assert not lock.holds(number) and not lock.holds(0)


@KINDS
def test_statistics(typeid: str) -> None:
    """Statistics name holder, time, number and waiters, and are no part of the state."""
    title = f"{typeid}:l"
    room = driver()
    alice, bob = room.client("alice"), room.client("bob")
    number = alice.call(title, "acquire").number
    bob.send(title, "acquire")
    before = _image.capture(room.engine)
    told = room.statistics(title)
    assert _image.capture(room.engine) == before
    nobody = {"host": "", "pid": 0, "command": "", "thread": ""}
    assert told["holder"] == {**nobody, "label": "alice", "since": START, "token": number}
    assert told["holders"] == [told["holder"]] and told["abandoned"] is False
    assert told["waiters"] == [{**nobody, "label": "bob", "since": START, "deadline": None}]
    alice.end()
    bob.call(title, "release")
    told = room.statistics(title)
    assert [told[key] for key in ("holder", "holders", "abandoned", "waiters")] == [None, [], False, []]


class Exclusion(RuleBasedStateMachine):
    """A lock or an rlock, called by three processes of two threads each, against a model in a few lines."""

    typeid = "lock"

    def __init__(self) -> None:
        super().__init__()
        self.room = driver()
        self.title = f"{self.typeid}:l"
        self.clients = [self.room.client(f"c{number}") for number in range(3)]
        # The model. A ticket stands in `line` while it waits; `expected` is what its outcome must look like.
        self.holder: tuple[int, int] | None = None
        self.levels = 0
        self.label = ""
        self.mark = ""  # who died holding, until a holder that was told has released
        self.line: list[tuple[Ticket, int, int, float | None]] = []
        self.granted: list[tuple[Ticket, int, int, int]] = []  # ticket, client, owner, number
        self.last = 0
        self.number = 0

    def key(self, client: int, owner: int) -> tuple[int, int]:
        return (client, owner) if self.typeid == "rlock" else (client, 0)

    def give(self, ticket: Ticket, client: int, owner: int) -> None:
        grant = ticket.result()
        assert isinstance(grant, Grant) and grant.number > self.last
        assert (grant.abandoned, grant.holder) == (bool(self.mark), self.mark or self.clients[client].label)
        self.last = self.number = grant.number
        self.holder, self.levels, self.label = self.key(client, owner), 1, self.clients[client].label
        self.granted.append((ticket, client, owner, grant.number))

    def pass_on(self) -> None:
        self.holder, self.levels, self.number = None, 0, 0
        if self.line:
            ticket, client, owner, _ = self.line.pop(0)
            self.give(ticket, client, owner)

    @rule(client=st.integers(0, 2), owner=st.integers(1, 2), timeout=st.sampled_from([None, 0, 1.0, 2.5]))
    def acquire(self, client: int, owner: int, timeout: float | None) -> None:
        if any(entry[1:3] == (client, owner) for entry in self.line):
            return  # a thread makes one call at a time
        ticket = self.clients[client].send(self.title, "acquire", timeout=timeout, owner=owner)
        if self.holder is None:
            self.give(ticket, client, owner)
        elif self.typeid == "rlock" and self.holder == (client, owner):
            self.levels += 1
            assert ticket.result().number == self.number
            self.granted.append((ticket, client, owner, self.number))
        elif timeout == 0:
            assert not ticket.result() and ticket.result().holder == self.label
        else:
            assert ticket.waits
            deadline = None if timeout is None else self.room.now + timeout
            self.line.append((ticket, client, owner, deadline))

    @rule(client=st.integers(0, 2), owner=st.integers(1, 2), by_grant=st.sampled_from([None, 0, 1]))
    def release(self, client: int, owner: int, by_grant: int | None) -> None:
        if any(entry[1:3] == (client, owner) for entry in self.line):
            return
        args = () if by_grant is None else (self.last + by_grant,)
        ticket = self.clients[client].send(self.title, "release", *args, owner=owner)
        if by_grant is None:
            allowed = self.holder == self.key(client, owner)
        else:
            allowed = self.holder is not None and self.holder[0] == client and args[0] == self.number
        assert ticket.outcome() is (None if allowed else NotOwner)
        if allowed:
            self.levels -= 1
            if not self.levels:
                self.mark = ""
                self.pass_on()

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.line))
        entry[0].cancel()
        self.line.remove(entry)
        assert entry[0].result() is CANCELLED

    @precondition(lambda self: self.granted)
    @rule()
    def lose_the_last_reply(self) -> None:
        """The latest grant could not be delivered: its client cancels it, unless it has acknowledged."""
        ticket, client, _, number = self.granted.pop()
        session = self.room.engine.sessions.get(self.clients[client].number)
        if session is None or session.is_stale(ticket.event.seq) or ticket.event.session != session.number:
            return
        ticket.cancel()
        if number == self.number:
            self.levels -= 1
            if not self.levels:
                self.pass_on()

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0]))
    def wait(self, seconds: float) -> None:
        self.room.advance(seconds)
        for entry in list(self.line):
            if entry[3] is not None and entry[3] <= self.room.now:
                self.line.remove(entry)
                assert not entry[0].result() and entry[0].result().holder == self.label

    @rule(client=st.integers(0, 2))
    def die(self, client: int) -> None:
        self.end(client, None)
        self.clients[client].end()
        self.clients[client] = self.room.client(f"c{client}")
        if self.holder is not None and self.holder[0] == client:
            self.mark = self.label
            self.pass_on()

    @rule(client=st.integers(0, 2), owner=st.integers(1, 2))
    def end_thread(self, client: int, owner: int) -> None:
        self.end(client, owner)
        self.clients[client].end_owner(owner)
        if self.holder is not None and self.holder == (client, owner):
            self.mark = self.label
            self.pass_on()

    def end(self, client: int, owner: int | None) -> None:
        self.line = [entry for entry in self.line if entry[1] != client or (owner is not None and entry[2] != owner)]

    @invariant()
    def agree(self) -> None:
        assert all(entry[0].waits for entry in self.line)
        if self.room.engine.find(*self.title.split(":")) is None:
            return
        told = self.room.statistics(self.title)
        assert labels(told["holder"]) == ([self.label] if self.holder else [])
        assert [row["token"] for row in told["holders"]] == ([self.number] if self.holder else [])
        assert told["abandoned"] == bool(self.mark)
        assert labels(told["waiters"]) == [self.clients[entry[1]].label for entry in self.line]
        assert self.room.instance(self.title).vacant() == (self.holder is None and not self.mark)


class ReentrantExclusion(Exclusion):
    typeid = "rlock"


BUDGET = settings(max_examples=60, stateful_step_count=30)
TestLock = Exclusion.TestCase
TestLock.settings = BUDGET
TestRLock = ReentrantExclusion.TestCase
TestRLock.settings = BUDGET
