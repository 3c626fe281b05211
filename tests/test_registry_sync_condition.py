"""The condition: a lock that comes back after each wait, and notifications that find somebody who can use them."""

from __future__ import annotations

from typing import Any

import pytest
from engine_driver import CANCELLED, START, WAITING, Client, Driver, Ticket, labels
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from registry import Grant
from registry.errors import NotOwner
from registry_sync import CONDITION

C = "condition:c"


def clients(count: int) -> tuple[Driver, list[Client]]:
    room = Driver(CONDITION, twin=True)
    return room, [room.client(name) for name in "abcdefgh"[:count]]


def lined_up(room: Driver, waiters: list[Client], *arguments: object) -> list[Ticket]:
    """Have each of these acquire and wait, in order."""
    tickets = []
    for client in waiters:
        assert client.call(C, "acquire")
        tickets.append(client.send(C, "wait_for", *arguments))
    return tickets


def test_declaration() -> None:
    """Acquiring and both waits may wait; the rest answers at once."""
    assert CONDITION.interface.exposed == ("acquire", "locked", "notify", "notify_all", "release", "wait", "wait_for")
    assert CONDITION.interface.waiting == ("acquire", "wait", "wait_for")


def test_wait_gives_the_lock_up_and_has_it_again() -> None:
    """A notified waiter returns once it has the lock, by a newer grant than that of whoever had it meanwhile."""
    room, (a, b) = clients(2)
    number = a.call(C, "acquire").number
    waiting = a.send(C, "wait_for")
    other = b.call(C, "acquire").number
    b.call(C, "notify")
    assert waiting.waits and labels(room.statistics(C)["waiters"]) == ["a"]
    b.call(C, "release")
    notification, grant = waiting.result()
    assert notification == 1 and number < other < grant.number
    assert labels(room.statistics(C)["holder"]) == ["a"]
    a.call(C, "release", number)  # the grant of the block that it waited in
    assert room.instance(C).vacant()


def test_a_plain_wait_tells_no_more_than_a_bool() -> None:
    """For clients without a side of their own `wait` says whether it was notified."""
    room, (a, b) = clients(2)
    a.call(C, "acquire")
    waiting = a.send(C, "wait", 1.0)
    room.advance(1.0)
    assert waiting.result() is False
    waiting = a.send(C, "wait")
    b.call(C, "acquire")
    b.call(C, "notify")
    b.call(C, "release")
    assert waiting.result() is True


def test_notify_takes_them_in_order() -> None:
    """The first `n` of those who wait, or all."""
    room, (a, b, c, d, e) = clients(5)
    tickets = lined_up(room, [a, b, c, d])
    e.call(C, "acquire")
    e.call(C, "notify", 2)
    assert labels(room.statistics(C)["waiting"]) == ["c", "d"]
    e.call(C, "notify_all")
    e.call(C, "notify")
    e.call(C, "release")
    for client, ticket in zip((a, b, c, d), tickets):
        assert ticket.result()[0]
        client.call(C, "release")


def test_levels_and_their_grants_survive_a_wait() -> None:
    """All levels are given up and come back; the grants from before are valid again."""
    room, (a, b) = clients(2)
    outer = a.call(C, "acquire").number
    assert a.call(C, "acquire").number == outer
    waiting = a.send(C, "wait_for", 1.0)
    assert b.call(C, "acquire", False)
    assert not room.instance(C).holds(outer)
    b.call(C, "release")
    room.advance(1.0)
    notification, grant = waiting.result()
    inner = a.call(C, "acquire").number
    assert notification == 0 and inner == grant.number
    assert room.instance(C).holds(outer) and room.instance(C).holds(inner)
    for number in (inner, outer, grant.number):
        assert b.call(C, "locked") is True
        a.call(C, "release", number)
    assert not b.call(C, "locked") and not room.instance(C).holds(outer)
    with pytest.raises(NotOwner):
        a.call(C, "release", outer)


def test_only_the_holder_waits_and_notifies() -> None:
    """Another process or thread is refused, and told who holds the lock."""
    _, (a, b) = clients(2)
    for verb in ("wait", "wait_for", "notify", "notify_all"):
        with pytest.raises(NotOwner, match="nobody holds it"):
            b.call(C, verb)
    a.call(C, "acquire")
    for client, owner in ((b, 1), (a, 2)):
        for verb in ("wait", "wait_for", "notify", "notify_all", "release"):
            with pytest.raises(NotOwner, match="a holds it"):
                client.call(C, verb, owner=owner)
    with pytest.raises(ValueError, match="seconds"):
        a.call(C, "wait", float("nan"))


def test_the_timeout_is_for_the_notification() -> None:
    """When it is up the lock is waited for as long as it takes, and a notification that came in time counts."""
    room, (a, b, c) = clients(3)
    late, early = lined_up(room, [a, b], 1.0)
    c.call(C, "acquire")
    room.advance(1.0)
    assert late.waits and early.waits and labels(room.statistics(C)["waiting"]) == []
    c.call(C, "notify")
    c.call(C, "release")
    assert late.result()[0] == 0
    a.call(C, "release")
    assert early.result()[0] == 0

    b.call(C, "release")
    (early,) = lined_up(room, [c], 1.0)
    a.call(C, "acquire")
    a.call(C, "notify")
    room.advance(5.0)
    a.call(C, "release")
    assert early.result()[0]
    assert room.engine.next_due() is None


def test_no_time_at_all() -> None:
    """With a timeout of zero the lock goes once around those who wait for it."""
    room, (a, b) = clients(2)
    a.call(C, "acquire")
    assert a.call(C, "wait_for", 0)[0] == 0
    other = b.send(C, "acquire")
    waiting = a.send(C, "wait_for", -1)
    assert other.result() and waiting.waits
    b.call(C, "release")
    assert waiting.result()[0] == 0
    assert room.engine.next_due() is None


@pytest.mark.parametrize("end", ["cancel", "death", "thread", "undelivered", "undelivered death"])
def test_a_notification_outlives_its_receiver(end: str) -> None:
    """A notified waiter that gives up or dies before it has returned passes its notification on."""
    room, (a, b, c) = clients(3)
    first, second = lined_up(room, [a, b])
    a.deaf = True
    c.call(C, "acquire")
    c.call(C, "notify")
    if end.startswith("undelivered"):
        c.call(C, "release")
        assert first.result()[0] and second.waits
    if end in ("cancel", "undelivered"):
        first.cancel()
        assert first.result() is CANCELLED
    elif end == "thread":
        a.end_owner(1)
    else:
        a.end()
    if not end.startswith("undelivered"):
        assert second.waits
        c.call(C, "release")
    notification, grant = second.result()
    assert notification == 1
    # Whoever dies while it waits held nothing; one that had the lock may have begun to change something.
    assert grant.abandoned == (end == "undelivered death")


def test_a_notification_that_was_used_does_not_pass_on() -> None:
    """A receiver that has returned, and then dies or gives the lock back, has used it."""
    room, (a, b, c) = clients(3)
    first, second = lined_up(room, [a, b])
    c.call(C, "acquire")
    c.call(C, "notify")
    c.call(C, "release")
    assert first.result()[0]
    a.call(C, "notify", 0)
    a.end()
    assert second.waits and labels(room.statistics(C)["waiting"]) == ["b"]
    assert room.statistics(C)["abandoned"] is True


def test_what_is_of_no_use_passes_on_and_comes_to_an_end() -> None:
    """A receiver that waits on hands its notification to the next who has waited since before; then it is spent."""
    room, (a, b, c, d) = clients(4)
    tickets = lined_up(room, [a, b])
    d.call(C, "acquire")
    d.call(C, "notify")
    d.call(C, "release")
    assert tickets[0].result()[0] == 1
    late = c.send(C, "acquire")
    a.send(C, "wait_for", None, True)
    # c has the lock first, and waits too late for that notification; b had waited before it was made.
    assert late.result()
    c.send(C, "wait_for")
    assert tickets[1].result()[0] == 1
    b.send(C, "wait_for", None, True)
    # a has looked since, c had not waited yet: nobody is left whom it could help.
    assert labels(room.statistics(C)["waiting"]) == ["a", "c", "b"]
    assert b.call(C, "locked") is False


def test_passing_on_without_waiting() -> None:
    """One whose time is up passes it on all the same."""
    room, (a, b, c) = clients(3)
    first, second = lined_up(room, [a, b])
    c.call(C, "acquire")
    c.call(C, "notify")
    c.call(C, "release")
    assert first.result()[0] == 1
    leaving = a.send(C, "wait_for", 0, True)
    assert second.result()[0] == 1 and leaving.waits
    b.call(C, "release")
    assert leaving.result()[0] == 0


def test_a_wait_clears_the_mark() -> None:
    """A holder that was told, and then waits, has left the lock in order."""
    _, (a, b, c) = clients(3)
    a.call(C, "acquire")
    a.end()
    assert b.call(C, "acquire").abandoned
    b.send(C, "wait_for")
    assert c.call(C, "acquire").abandoned is False


def test_statistics() -> None:
    """Who holds it, who wants it, and who waits to be notified."""
    room, (a, b, c) = clients(3)
    lined_up(room, [a])
    number = b.call(C, "acquire").number
    c.send(C, "acquire")
    told: Any = room.statistics(C)
    assert [labels(told[key]) for key in ("holder", "waiters", "waiting")] == [["b"], ["c"], ["a"]]
    assert (told["holder"]["since"], told["holder"]["token"]) == (START, number)


class Work(RuleBasedStateMachine):
    """A condition among four processes of one thread each, against a model of two lines."""

    def __init__(self) -> None:
        super().__init__()
        self.room, self.clients = clients(4)
        self.holder: int | None = None
        self.levels = 0
        self.mark = False
        self.given = 0
        self.count = 0
        # ticket, client, levels, seen, notification, deadline; those who only acquire have seen -1
        self.waiting: list[list[Any]] = []
        self.line: list[list[Any]] = []

    def busy(self, client: int) -> bool:
        return any(entry[1] == client for entry in (*self.waiting, *self.line))

    def pass_on(self) -> None:
        self.holder, self.levels, self.given = None, 0, 0
        if self.line:
            ticket, client, levels, seen, notification, _ = self.line.pop(0)
            result = ticket.result()
            if seen >= 0:
                assert result[0] == notification
                result = result[1]
                self.given = notification
            assert isinstance(result, Grant) and result.abandoned == self.mark
            self.holder, self.levels = client, levels

    def hand_on(self, notification: int) -> None:
        if notification:
            for entry in self.waiting:
                if entry[3] < notification:
                    self.waiting.remove(entry)
                    entry[4], entry[5] = notification, None
                    self.line.append(entry)
                    return

    @rule(client=st.integers(0, 3))
    def acquire(self, client: int) -> None:
        if self.busy(client):
            return
        ticket = self.clients[client].send(C, "acquire")
        if self.holder == client:
            self.levels += 1
            assert ticket.result()
            return
        self.line.append([ticket, client, 1, -1, 0, None])
        if self.holder is None:
            self.pass_on()

    @precondition(lambda self: self.holder is not None)
    @rule()
    def release(self) -> None:
        assert self.clients[self.holder or 0].call(C, "release") is None
        self.levels -= 1
        if not self.levels:
            self.mark = False
            self.pass_on()

    @precondition(lambda self: self.holder is not None)
    @rule(timeout=st.sampled_from([None, 0.0, 1.0, 2.0]), passing=st.booleans())
    def wait(self, timeout: float | None, passing: bool) -> None:
        client = self.holder or 0
        ticket = self.clients[client].send(C, "wait_for", timeout, passing)
        given = self.given
        deadline = self.room.now + timeout if timeout else None
        entry = [ticket, client, self.levels, self.count, 0, deadline]
        if passing:
            self.hand_on(given)
        (self.line if timeout == 0 else self.waiting).append(entry)
        self.mark = False
        self.pass_on()

    @precondition(lambda self: self.holder is not None)
    @rule(n=st.integers(1, 3))
    def notify(self, n: int) -> None:
        assert self.clients[self.holder or 0].call(C, "notify", n) is None
        for entry in self.waiting[:n]:
            self.count += 1
            entry[4], entry[5] = self.count, None
            self.line.append(entry)
        del self.waiting[:n]

    @rule(seconds=st.sampled_from([0.5, 1.5]))
    def pass_time(self, seconds: float) -> None:
        self.room.advance(seconds)
        late = [entry for entry in self.waiting if entry[5] is not None and entry[5] <= self.room.now]
        for entry in sorted(late, key=lambda entry: entry[5]):
            self.waiting.remove(entry)
            entry[5] = None
            self.line.append(entry)
        if self.holder is None:
            self.pass_on()

    @precondition(lambda self: self.waiting or self.line)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from([*self.waiting, *self.line]))
        (self.waiting if entry in self.waiting else self.line).remove(entry)
        entry[0].cancel()
        assert entry[0].result() is CANCELLED
        self.hand_on(entry[4])

    @rule(client=st.integers(0, 3))
    def die(self, client: int) -> None:
        gone = [entry for entry in (*self.waiting, *self.line) if entry[1] == client]
        self.waiting = [entry for entry in self.waiting if entry not in gone]
        self.line = [entry for entry in self.line if entry not in gone]
        for entry in gone:
            self.hand_on(entry[4])
        self.clients[client].end()
        self.clients[client] = self.room.client("abcd"[client])
        if self.holder == client:
            self.mark = True
            self.pass_on()

    @invariant()
    def agree(self) -> None:
        assert all(entry[0].result() is WAITING for entry in (*self.waiting, *self.line))
        assert self.holder is not None or not self.line
        if self.room.engine.find("condition", "c") is None:
            return
        told = self.room.statistics(C)
        assert labels(told["holder"]) == ([] if self.holder is None else ["abcd"[self.holder]])
        assert labels(told["waiters"]) == ["abcd"[entry[1]] for entry in self.line]
        assert labels(told["waiting"]) == ["abcd"[entry[1]] for entry in self.waiting]
        condition = self.room.instance(C)
        assert len(condition._numbers) == condition._levels == self.levels
        assert len(condition._waits) == sum(entry[3] >= 0 for entry in (*self.waiting, *self.line))


TestWork = Work.TestCase
TestWork.settings = settings(max_examples=100, stateful_step_count=30)
