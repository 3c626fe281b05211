"""Semaphores: never more than there are permits, first come first served, and no permit lost with a process."""

from __future__ import annotations

from typing import Any

import pytest
from engine_driver import CANCELLED, START, WAITING, Client, Driver, Ticket, labels
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from registry import Grant
from registry.errors import LockLost, NotOwner
from registry_sync import BOUNDED_SEMAPHORE, SEMAPHORE

KINDS = pytest.mark.parametrize("typeid", ["semaphore", "bounded_semaphore"])


def clients(title: str, value: int = 1, count: int = 3) -> tuple[Driver, list[Client]]:
    room = Driver(SEMAPHORE, BOUNDED_SEMAPHORE, twin=True)
    room.client("maker").create(title, value)
    return room, [room.client(name) for name in "abcdef"[:count]]


@KINDS
def test_permits(typeid: str) -> None:
    """So many have one at a time; the others wait in line, or are told who has had one for longest."""
    title = f"{typeid}:s"
    room, (a, b, c, d) = clients(title, 2, 4)
    first = a.call(title, "acquire")
    assert first == Grant(first.number, False, "a", START)
    room.advance(1.0)
    b.call(title, "acquire")
    assert a.call(title, "value") == 0
    assert c.call(title, "acquire", False) == Grant(0, False, "a", START)
    waiting = [c.send(title, "acquire"), d.send(title, "acquire", timeout=5.0)]
    a.call(title, "release")
    assert [ticket.waits for ticket in waiting] == [False, True]
    room.advance(5.0)
    assert waiting[1].result() == Grant(0, False, "b", START + 1.0)
    b.call(title, "release")
    assert a.call(title, "value") == 1


@KINDS
@pytest.mark.parametrize("wrong", [-1, 1.5, True, "2", None])
def test_wrong_values(typeid: str, wrong: object) -> None:
    """A number of permits is an int, and not negative."""
    room = Driver(SEMAPHORE, BOUNDED_SEMAPHORE)
    with pytest.raises(ValueError, match=r"^value must be an int and not negative"):
        room.client().create(f"{typeid}:s", wrong)


@KINDS
def test_wrong_arguments(typeid: str) -> None:
    """Timeouts are read as `threading` reads them; an expiry is positive, a release of nothing is none."""
    title = f"{typeid}:s"
    _, (a, *_) = clients(title)
    for arguments in ({"timeout": -2}, {"blocking": False, "timeout": 1}, {"expiry": 0}, {"expiry": float("nan")}):
        with pytest.raises(ValueError):
            a.call(title, "acquire", **arguments)
    number = a.call(title, "acquire").number
    for arguments in ((0,), (-1,), (1.0,), (2, number)):
        with pytest.raises(ValueError, match=r"^n must be one or more"):
            a.call(title, "release", *arguments)


def test_surplus_releases_add() -> None:
    """Whoever has no permit may release, which signals."""
    title = "semaphore:s"
    room, (a, b, c) = clients(title, 0)
    waiting = [a.send(title, "acquire"), b.send(title, "acquire")]
    c.call(title, "release", 3)
    assert all(ticket.result() for ticket in waiting)
    assert a.call(title, "value") == 1
    a.call(title, "release", 2)
    assert a.call(title, "value") == 3
    assert labels(room.statistics(title)["holders"]) == ["b"]


def test_bounded_takes_back_from_holders_only() -> None:
    """A release of more than the process has is refused as a whole, and names who has permits."""
    title = "bounded_semaphore:s"
    _, (a, b, _) = clients(title, 3)
    a.call(title, "acquire")
    b.call(title, "acquire", owner=1)
    for refused in ((2,), (3,)):
        with pytest.raises(NotOwner) as caught:
            a.call(title, "release", *refused)
        assert caught.value.holder == "a, b"
    assert a.call(title, "value") == 1
    b.call(title, "release", owner=2)  # any thread of the process
    with pytest.raises(NotOwner):
        b.call(title, "release")
    assert a.call(title, "value") == 2


@KINDS
def test_release_by_grant(typeid: str) -> None:
    """A grant returns its own permit, once, and from its own process only."""
    title = f"{typeid}:s"
    room, (a, b, _) = clients(title, 2)
    numbers = [a.call(title, "acquire").number for _ in range(2)]
    with pytest.raises(NotOwner):
        b.call(title, "release", number=numbers[0])
    a.call(title, "release", 1, numbers[0], owner=7)
    assert [room.instance(title).holds(number) for number in numbers] == [False, True]
    with pytest.raises(NotOwner):
        a.call(title, "release", number=numbers[0])


@KINDS
def test_a_plain_release_takes_the_threads_own_newest(typeid: str) -> None:
    """A thread returns what it acquired last; only one that has none returns another's."""
    title = f"{typeid}:s"
    room, (a, *_) = clients(title, 3)
    numbers = [a.call(title, "acquire", owner=owner).number for owner in (1, 2, 1)]
    left = []
    for owner in (2, 1, 2):
        a.call(title, "release", owner=owner)
        left.append([row["token"] for row in room.statistics(title)["holders"]])
    assert left == [[numbers[0], numbers[2]], [numbers[0]], []]


@KINDS
def test_death_returns_permits_unmarked(typeid: str) -> None:
    """All permits of a process go to those who wait; the end of a thread alone returns none."""
    title = f"{typeid}:s"
    room, (a, b, c) = clients(title, 2)
    a.call(title, "acquire")
    a.call(title, "acquire", owner=2)
    waiting = [b.send(title, "acquire"), c.send(title, "acquire")]
    a.end_owner(2)
    assert all(ticket.waits for ticket in waiting)
    a.end()
    assert [ticket.result().abandoned for ticket in waiting] == [False, False]
    assert labels(room.statistics(title)["holders"]) == ["b", "c"]


def test_only_net_permits_return() -> None:
    """What a process had released beyond its own stays when it dies, and what it had returned is not counted twice."""
    title = "semaphore:s"
    _, (a, b, _) = clients(title, 2)
    a.call(title, "acquire")
    a.call(title, "release", 3)
    a.call(title, "acquire")
    a.end()
    assert b.call(title, "value") == 4


@KINDS
def test_expiry(typeid: str) -> None:
    """A permit returns by itself when its time is up; whoever had it is told so, and others are not affected."""
    title = f"{typeid}:s"
    room, (a, b, c) = clients(title, 2)
    number = a.call(title, "acquire", expiry=2.0).number
    b.call(title, "acquire")
    waiting = c.send(title, "acquire", expiry=1.0)
    assert room.engine.next_due() == START + 2.0
    room.advance(2.0)
    assert waiting.result()
    with pytest.raises(LockLost, match="its permit has expired"):
        a.call(title, "release", number=number)
    room.advance(1.0)
    assert b.call(title, "value") == 1
    assert room.engine.next_due() is None


@KINDS
def test_an_unheard_permit_goes_to_the_next(typeid: str) -> None:
    """A permit that could not be delivered is given to whoever waits; one released since is not taken twice."""
    title = f"{typeid}:s"
    _, (a, b, _) = clients(title)
    a.deaf = True
    unheard, waiting = a.send(title, "acquire"), b.send(title, "acquire")
    unheard.cancel()
    assert unheard.result() is CANCELLED and waiting.result()
    b.call(title, "release")
    again = a.send(title, "acquire")
    a.send(title, "release")
    again.cancel()
    assert b.call(title, "value") == 1


@KINDS
def test_vacant(typeid: str) -> None:
    """Only one that was made without arguments may be forgotten: who comes without any would get another."""
    room, (a, *_) = clients(f"{typeid}:two", 2)
    title = f"{typeid}:one"
    a.call(title, "acquire")
    assert not room.instance(title).vacant()
    a.call(title, "release")
    assert room.instance(title).vacant() and not room.instance(f"{typeid}:two").vacant()


class Slots(RuleBasedStateMachine):
    """Two permits among three processes of two threads each, against a model: a list of permits, and a line."""

    typeid = "semaphore"

    @initialize(value=st.integers(0, 2))
    def begin(self, value: int) -> None:
        self.title = f"{self.typeid}:s"
        self.room, self.clients = clients(self.title, value)
        self.value = value
        # (client, thread, number, when it expires), oldest first
        self.permits: list[tuple[int, int, int, float | None]] = []
        self.line: list[tuple[Ticket, int, int, float | None, float | None]] = []

    def give(self, ticket: Ticket, client: int, owner: int, expiry: float | None) -> None:
        grant = ticket.result()
        assert isinstance(grant, Grant) and grant and not grant.abandoned
        assert all(grant.number > number for _, _, number, _ in self.permits)
        self.permits.append((client, owner, grant.number, None if expiry is None else self.room.now + expiry))

    def free(self, n: int) -> None:
        for _ in range(n):
            if self.line:
                ticket, client, owner, _, expiry = self.line.pop(0)
                self.give(ticket, client, owner, expiry)
            else:
                self.value += 1

    def is_busy(self, client: int, owner: int) -> bool:
        return any(entry[1:3] == (client, owner) for entry in self.line)

    @rule(
        client=st.integers(0, 2),
        owner=st.integers(1, 2),
        timeout=st.sampled_from([None, 0, 1.0]),
        expiry=st.sampled_from([None, None, 0.5, 2.0]),
    )
    def acquire(self, client: int, owner: int, timeout: float | None, expiry: float | None) -> None:
        if self.is_busy(client, owner):
            return
        ticket = self.clients[client].send(self.title, "acquire", timeout=timeout, expiry=expiry, owner=owner)
        if self.value:
            self.value -= 1
            self.give(ticket, client, owner, expiry)
        elif timeout == 0:
            assert not ticket.result()
        else:
            assert ticket.waits
            self.line.append((ticket, client, owner, None if timeout is None else self.room.now + timeout, expiry))

    @rule(client=st.integers(0, 2), owner=st.integers(1, 2), n=st.integers(1, 3))
    def release(self, client: int, owner: int, n: int) -> None:
        if self.is_busy(client, owner):
            return
        own = [permit for permit in self.permits if permit[0] == client]
        own.sort(key=lambda permit: (permit[1] != owner, -permit[2]))
        outcome = self.clients[client].send(self.title, "release", n, owner=owner).outcome()
        if len(own) < n and self.typeid == "bounded_semaphore":
            assert outcome is NotOwner
            return
        assert outcome is None
        self.permits = [permit for permit in self.permits if permit not in own[:n]]
        self.free(n)

    @precondition(lambda self: self.permits)
    @rule(data=st.data())
    def release_by_grant(self, data: st.DataObject) -> None:
        permit = data.draw(st.sampled_from(self.permits))
        assert self.clients[permit[0]].call(self.title, "release", number=permit[2], owner=9) is None
        self.permits.remove(permit)
        self.free(1)

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.line))
        self.line.remove(entry)
        entry[0].cancel()
        assert entry[0].result() is CANCELLED

    @rule()
    def wait(self) -> None:
        """Half a second at a time: who is refused and who is served at one moment, the engine decides."""
        self.room.advance(0.5)
        now = self.room.now
        late = [entry for entry in self.line if entry[3] is not None and entry[3] <= now]
        answered = {id(entry): entry[0].result() for entry in late}
        for entry in late:
            if not answered[id(entry)]:
                self.line.remove(entry)
        gone = [permit for permit in self.permits if permit[3] is not None and permit[3] <= now]
        self.permits = [permit for permit in self.permits if permit not in gone]
        self.free(len(gone))

    @rule(client=st.integers(0, 2))
    def die(self, client: int) -> None:
        self.line = [entry for entry in self.line if entry[1] != client]
        self.clients[client].end()
        self.clients[client] = self.room.client("abc"[client])
        dead = [permit for permit in self.permits if permit[0] == client]
        self.permits = [permit for permit in self.permits if permit[0] != client]
        self.free(len(dead))

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "room"):
            return
        assert all(entry[0].result() is WAITING for entry in self.line)
        told: Any = self.room.statistics(self.title)
        assert told["value"] == self.value
        assert [row["token"] for row in told["holders"]] == [permit[2] for permit in self.permits]
        assert labels(told["waiters"]) == ["abc"[entry[1]] for entry in self.line]
        assert not (self.value and self.line)
        semaphore = self.room.instance(self.title)
        assert set(semaphore._terms) <= {waiter.number for waiter in semaphore._waiters}, "a leak"


class BoundedSlots(Slots):
    typeid = "bounded_semaphore"


BUDGET = settings(max_examples=50, stateful_step_count=30)
TestSlots = Slots.TestCase
TestSlots.settings = BUDGET
TestBoundedSlots = BoundedSlots.TestCase
TestBoundedSlots.settings = BUDGET
