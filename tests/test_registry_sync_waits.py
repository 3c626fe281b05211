"""Event, barrier and latch: what processes wait for that nobody holds."""

from __future__ import annotations

from threading import BrokenBarrierError

import pytest
from engine_driver import CANCELLED, WAITING, Client, Driver, Ticket, labels
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from registry_sync import BARRIER, EVENT, LATCH

E = "event:e"
B = "barrier:b"
L = "latch:l"


def clients(count: int, *make: object) -> tuple[Driver, list[Client]]:
    room = Driver(EVENT, BARRIER, LATCH, twin=True)
    if make:
        room.client("maker").create(*make)
    return room, [room.client(name) for name in "abcdefgh"[:count]]


# -- events


def test_an_event_lets_all_go_on() -> None:
    """Whoever waits when it is set goes on, even if it is cleared at once; whoever comes later waits again."""
    _, (a, b, c) = clients(3)
    waiting = [a.send(E, "wait"), b.send(E, "wait", 5.0)]
    assert c.call(E, "is_set") is False and all(ticket.waits for ticket in waiting)
    c.call(E, "set")
    c.call(E, "clear")
    assert [ticket.result() for ticket in waiting] == [True, True]
    assert a.send(E, "wait").waits
    c.call(E, "set")
    assert b.call(E, "wait") is True and b.call(E, "is_set") is True


def test_an_event_waits_no_longer_than_told() -> None:
    """False once the time is up; no time at all is an answer at once."""
    room, (a, _) = clients(2)
    assert a.call(E, "wait", 0) is False and a.call(E, "wait", -1) is False
    waiting = a.send(E, "wait", timeout=2.0)
    room.advance(2.0)
    assert waiting.result() is False
    with pytest.raises(ValueError):
        a.call(E, "wait", float("nan"))


@pytest.mark.parametrize("end", ["cancel", "death", "timeout"])
def test_an_event_is_forgotten_with_its_last_waiter(end: str) -> None:
    """One that is not set and that nobody waits for may go; one that is set may not."""
    room, (a, b) = clients(2)
    waiting = a.send(E, "wait", 1.0)
    number = room.engine.find("event", "e").number
    assert not room.instance(E).vacant()
    if end == "cancel":
        waiting.cancel()
    elif end == "death":
        a.end()
    else:
        room.advance(1.0)
    assert room.instance(E).vacant() and list(room.engine._vacant) == [number]
    b.call(E, "set")
    assert not room.instance(E).vacant() and list(room.engine._vacant) == []


def test_event_statistics() -> None:
    """Whether it is set, and who waits."""
    room, (a, _) = clients(2)
    a.send(E, "wait")
    told = room.statistics(E)
    assert (told["set"], labels(told["waiters"])) == (False, ["a"])


# -- latches


def test_a_latch_counts_down_once() -> None:
    """Those who wait go on at zero, and it stays there."""
    room, (a, b) = clients(2, L, 3)
    waiting = a.send(L, "wait")
    assert b.call(L, "count_down") == 2
    assert b.call(L, "wait", 0) is False and labels(room.statistics(L)["waiters"]) == ["a"]
    b.end()
    assert a.call(L, "remaining", owner=2) == 2  # what the dead have counted stays counted
    assert a.call(L, "count_down", 5, owner=2) == 0
    assert waiting.result() is True and a.call(L, "wait") is True


def test_a_latch_waits_no_longer_than_told() -> None:
    """False once the time is up."""
    room, (a,) = clients(1, L, 1)
    waiting = a.send(L, "wait", 1.0)
    room.advance(1.0)
    assert waiting.result() is False


def test_wrong_counts() -> None:
    """Counts are ints; a latch of zero is open from the start."""
    _, (a,) = clients(1, L, 0)
    assert a.call(L, "wait") is True
    for wrong in (-1, 1.0, True, "1"):
        with pytest.raises(ValueError, match="^count must be an int"):
            a.create("latch:m", wrong)
    for wrong in (0, -1, 1.5):
        with pytest.raises(ValueError, match="^n must be one or more"):
            a.call(L, "count_down", wrong)


# -- barriers


def test_all_parties_pass_together() -> None:
    """Nobody before the last; each is given its number in the order of coming; then comes the next round."""
    _, (a, b, c) = clients(3, B, 3)
    for first, second, last in ((a, b, c), (c, a, b)):
        waiting = [first.send(B, "wait"), second.send(B, "wait")]
        assert all(ticket.waits for ticket in waiting) and last.call(B, "n_waiting") == 2
        assert last.call(B, "wait") == 2
        assert [ticket.result() for ticket in waiting] == [0, 1]
    assert a.call(B, "parties") == 3 and a.call(B, "broken") is False


@pytest.mark.parametrize("end", ["cancel", "death", "thread", "timeout", "abort", "impatience"])
def test_a_party_that_gives_up_breaks_it_for_the_rest(end: str) -> None:
    """Those who wait and those who come are told, until it is reset."""
    room, (a, b, c) = clients(3, B, 3)
    gone, waiting = a.send(B, "wait", 1.0), b.send(B, "wait")
    if end == "cancel":
        gone.cancel()
        assert gone.result() is CANCELLED
    elif end == "death":
        a.end()
    elif end == "thread":
        a.end_owner(1)
    elif end == "timeout":
        room.advance(1.0)
        assert gone.outcome() is BrokenBarrierError
    elif end == "abort":
        c.call(B, "abort")
    else:
        room.client("d").create("barrier:other", 3)
        with pytest.raises(BrokenBarrierError):
            c.call("barrier:other", "wait", 0)
        assert c.call(B, "broken") is False  # that was another one
        a.end()
    assert waiting.outcome() is BrokenBarrierError
    assert c.call(B, "broken") is True
    with pytest.raises(BrokenBarrierError):
        c.call(B, "wait")
    c.call(B, "reset")
    assert c.call(B, "broken") is False and c.send(B, "wait").waits


def test_a_reset_sends_those_away_who_wait() -> None:
    """They are told that it broke, and the barrier is as new."""
    _, (a, b) = clients(2, B, 2)
    waiting = a.send(B, "wait")
    b.call(B, "reset")
    assert waiting.outcome() is BrokenBarrierError
    assert b.call(B, "broken") is False


def test_a_barrier_has_a_timeout_of_its_own() -> None:
    """It counts where a call tells none."""
    room, (a, b) = clients(2, B, 2, 1.0)
    waiting = a.send(B, "wait", 5.0)
    room.advance(2.0)
    assert waiting.waits
    waiting.cancel()
    b.call(B, "reset")
    waiting = b.send(B, "wait")
    room.advance(1.0)
    assert waiting.outcome() is BrokenBarrierError


def test_a_round_that_was_passed_stays_passed() -> None:
    """A party that dies after the last has come, and before it heard of it, breaks nothing."""
    _, (a, b, c) = clients(3, B, 2)
    a.deaf = True
    unheard = a.send(B, "wait")
    assert b.call(B, "wait") == 1
    unheard.cancel()
    assert unheard.result() == 0
    a.end()
    assert c.call(B, "broken") is False


def test_wrong_parties() -> None:
    """At least one, and an int."""
    _, (a,) = clients(1)
    for wrong in (0, -1, 1.0, True):
        with pytest.raises(ValueError, match="^parties must be an int of one or more"):
            a.create(B, wrong)


class Rounds(RuleBasedStateMachine):
    """A barrier of two to four parties among five processes, against a model that is a list."""

    @initialize(parties=st.integers(2, 4))
    def begin(self, parties: int) -> None:
        self.parties = parties
        self.room, self.clients = clients(5, B, parties)
        self.broken = False
        self.waiting: list[tuple[Ticket, int, float | None]] = []

    def send_away(self) -> None:
        for ticket, _, _ in self.waiting:
            assert ticket.outcome() is BrokenBarrierError
        self.waiting = []

    @rule(client=st.integers(0, 4), timeout=st.sampled_from([None, 0, 1.0]))
    def come(self, client: int, timeout: float | None) -> None:
        if any(entry[1] == client for entry in self.waiting):
            return
        ticket = self.clients[client].send(B, "wait", timeout)
        if self.broken:
            assert ticket.outcome() is BrokenBarrierError
        elif len(self.waiting) == self.parties - 1:
            assert [entry[0].result() for entry in self.waiting] == list(range(self.parties - 1))
            assert ticket.result() == self.parties - 1
            self.waiting = []
        elif timeout == 0:
            assert ticket.outcome() is BrokenBarrierError
            self.broken = True
            self.send_away()
        else:
            assert ticket.waits
            self.waiting.append((ticket, client, None if timeout is None else self.room.now + timeout))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), dies=st.booleans())
    def go(self, data: st.DataObject, dies: bool) -> None:
        entry = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(entry)
        if dies:
            self.clients[entry[1]].end()
            self.clients[entry[1]] = self.room.client()
        else:
            entry[0].cancel()
            assert entry[0].result() is CANCELLED
        self.broken = True
        self.send_away()

    @rule()
    def pass_time(self) -> None:
        self.room.advance(0.5)
        if any(entry[2] is not None and entry[2] <= self.room.now for entry in self.waiting):
            self.broken = True
            self.send_away()

    @rule(client=st.integers(0, 4), verb=st.sampled_from(["reset", "abort"]))
    def change(self, client: int, verb: str) -> None:
        assert self.clients[client].call(B, verb, owner=2) is None
        self.broken = verb == "abort"
        self.send_away()

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "room"):
            return
        assert all(entry[0].result() is WAITING for entry in self.waiting)
        told = self.room.statistics(B)
        assert told["broken"] == self.broken and len(told["waiters"]) == len(self.waiting)
        assert not (self.broken and self.waiting)


TestRounds = Rounds.TestCase
TestRounds.settings = settings(max_examples=60, stateful_step_count=25)
