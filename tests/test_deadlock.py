"""Deadlocks: which waits are refused, which are only suspected, and what neither of it concerns."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import pytest
from deadlocks import DECLARATIONS, VERBS, Walk, walk
from engine_driver import Client, Driver, Ticket
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import KEY, Script, Served, running, until
from sizes import size

from registry import ManagerClient, ManagerServer, SharedObject, _codec, _state, connect
from registry._deadlock import Need, circles, stuck
from registry._engine import Engine
from registry._leaves import Owner
from registry._objects import state_leaf
from registry.errors import Deadlock
from registry.hosting import Waiter, Waiters
from registry_sync import Condition, RWLock

A, B, C, D, E = (Owner(number, 1) for number in range(1, 6))


class Odd:
    """Say of those who wait whatever it was told to say."""

    def __init__(self) -> None:
        self.said: Any = None
        self.gone: list[str] = []
        self.waiters = Waiters()

    def pass_through(self) -> Any:
        return self.waiters.wait()

    def say(self, said: Any) -> None:
        self.said = said

    def blocked_by(self, waiter: Waiter) -> Any:
        if self.said == "raise":
            raise ZeroDivisionError("no luck")
        if self.said == "wake":
            self.waiters.wake()
        if self.said == "exit":
            raise SystemExit
        return self.said and [[Owner(*owner)] if owner else [] for owner in self.said]

    def gave_up(self, waiter: Waiter) -> None:
        self.gone.append(str(waiter.caller))


ODD = SharedObject("odd", Odd, waiting=("pass_through",))


def clients(count: int, *, twin: bool = True) -> tuple[Driver, list[Client]]:
    room = Driver(*DECLARATIONS, twin=twin)
    return room, [room.client(name) for name in "abcdefghij"[:count]]


def states(room: Driver) -> dict[str, Any]:
    """Return all that a wait could leave behind: the state of each object, and who waits in it."""
    return {
        hosted.title: (_codec.canonical(_state.capture(hosted.instance), outgoing=state_leaf), list(hosted.waits))
        for hosted in room.engine.objects.values()
    }


def refuse(room: Driver, client: Client, title: str, method: str = "acquire", **kwargs: Any) -> Deadlock:
    """Make a call that is refused, see that it leaves no trace, and return the error."""
    before = states(room), room.engine.next_due()
    with pytest.raises(Deadlock) as caught:
        client.call(title, method, **kwargs)
    assert (states(room), room.engine.next_due()) == before
    return caught.value


# -- the reduction


def closed_sets(needs: dict[Owner, list[Need | None]]) -> set[Owner]:
    """Return the owners that wait for ever, by trying every set: those in it keep each other."""
    found: set[Owner] = set()
    owners = list(needs)
    for chosen in chain.from_iterable(combinations(owners, count) for count in range(1, len(owners) + 1)):
        held = set(chosen)
        if all(
            needs[owner] and all(need and any(held.issuperset(group) for group in need) for need in needs[owner])
            for owner in held
        ):
            found |= held
    return found


owners = st.sampled_from([A, B, C, D, E])
need = st.none() | st.lists(st.lists(owners, max_size=3).map(tuple), max_size=3).map(tuple)
systems = st.fixed_dictionaries({owner: st.lists(need, max_size=2) for owner in (A, B, C, D, E)})


@settings(max_examples=size(150, 20_000))
@given(systems)
def test_the_reduction_leaves_who_keeps_each_other(needs: dict[Owner, list[Need | None]]) -> None:
    """Left is the largest set in which each wait has a group of members only; each owner is asked at most once."""
    asked: list[Owner] = []

    def ask(owner: Owner) -> list[Need | None]:
        asked.append(owner)
        return needs[owner]

    expected = closed_sets(needs)
    for first in needs:
        asked.clear()
        left = stuck(first, ask)
        assert len(asked) == len(set(asked))
        assert set(left) == expected & set(asked)
        assert all(left[owner] == needs[owner] for owner in left)


def test_the_reduction_asks_only_for_what_can_be_reached() -> None:
    """Who is not in the way of the first owner, or of whoever goes on, is not asked about."""
    needs: dict[Owner, list[Need | None]] = {A: [((B,),)], B: [None, ((C,),)], C: [((D,),)], D: [((C,),)]}
    asked: list[Owner] = []
    assert stuck(A, lambda owner: asked.append(owner) or needs[owner]) == {}
    assert asked == [A, B]


def test_circles_leave_out_who_stands_behind_them() -> None:
    """A circle is found once, whoever waits for it is in none, and one that waits for itself is one."""
    left: dict[Owner, list[Need]] = {A: [((B,),)], B: [((C,),)], C: [((B,),)], D: [((A,), (D,))], E: [((A,),)]}
    assert circles(left) == [[B, C], [D]]


# -- what is refused


@pytest.mark.parametrize("count", range(2, 11))
def test_a_circle_is_found_at_once_and_has_one_victim(count: int) -> None:
    """Of 2 to 10 owners that wait for each other the last is refused; once it releases, all others go on."""
    room, everybody = clients(count)
    for place, client in enumerate(everybody):
        client.call(f"rlock:{place}", "acquire")
    waiting = [client.send(f"rlock:{place + 1}", "acquire") for place, client in enumerate(everybody[:-1])]
    assert all(ticket.waits for ticket in waiting)
    error = refuse(room, everybody[-1], "rlock:0")
    names = [f"thread 1 of {client.label}" for client in (everybody[-1], *everybody[:-1])]
    assert error.participants == tuple(
        (name, f"rlock:{place}", (names[(place + 1) % count],)) for place, name in enumerate(names)
    )
    for place in reversed(range(count)):
        everybody[place].call(f"rlock:{place}", "release")
        if place:
            assert waiting[place - 1].result()
            everybody[place - 1].call(f"rlock:{place}", "release")
    assert not any(room.instance(f"rlock:{place}").locked() for place in range(count))


def test_the_text_names_everybody() -> None:
    """Each who waits, for what, and for whom, in the order of the circle, and what to do."""
    room, (a, b) = clients(2)
    a.call("rlock:x", "acquire")
    b.call("rlock:y", "acquire", owner=7)
    b.send("rlock:x", "acquire", owner=7)
    assert str(refuse(room, a, "rlock:y")) == (
        "deadlock: thread 1 of a waits for rlock:y until thread 7 of b can go on, and thread 7 of b waits for rlock:x "
        "until thread 1 of a can go on; this call would complete the circle. Take locks in one order everywhere, or "
        "give the call a timeout"
    )


def test_threads_of_one_process_deadlock_too() -> None:
    """Owners are threads, so two of one process are two."""
    room, (a,) = clients(1)
    a.call("rlock:x", "acquire", owner=1)
    a.call("rlock:y", "acquire", owner=2)
    waiting = a.send("rlock:y", "acquire", owner=1)
    refuse(room, a, "rlock:x", owner=2)
    a.call("rlock:y", "release", owner=2)
    assert waiting.result()


def test_a_reader_behind_a_queued_writer() -> None:
    """Nobody but a reader holds the lock, and still the next reader waits: for the writer between them."""
    room, (a, b, c) = clients(3)
    a.call("rwlock:t", "read")
    b.call("rlock:x", "acquire")
    a.send("rlock:x", "acquire")
    c.send("rwlock:t", "write")
    error = refuse(room, b, "rwlock:t", "read")
    assert [row[:2] for row in error.participants] == [
        ("thread 1 of b", "rwlock:t"),
        ("thread 1 of c", "rwlock:t"),
        ("thread 1 of a", "rlock:x"),
    ]


def test_a_writer_needs_every_reader() -> None:
    """One of two readers that waits for the writer is enough, though the other goes on; only that one is named."""
    room, (a, b, c) = clients(3)
    for reader in (a, b):
        reader.call("rwlock:t", "read")
    c.call("rlock:x", "acquire")
    b.send("rlock:x", "acquire")
    error = refuse(room, c, "rwlock:t", "write")
    assert [row[2] for row in error.participants] == [("thread 1 of b",), ("thread 1 of c",)]


def test_all_who_have_a_permit_have_to_be_in_it() -> None:
    """A permit comes from anyone who has one: the deadlock is there when the last of them waits."""
    room, (a, b, c) = clients(3)
    c.create("slots:s", 2)
    a.call("slots:s", "acquire")
    b.call("slots:s", "acquire")
    c.call("rlock:x", "acquire")
    a.send("rlock:x", "acquire")
    waiting = c.send("slots:s", "acquire")
    assert waiting.waits
    error = refuse(room, b, "rlock:x")
    assert error.participants[1] == ("thread 1 of c", "slots:s", ("thread 1 of a", "thread 1 of b"))
    assert "until thread 1 of a or thread 1 of b can go on" in str(error)


def test_the_end_of_a_wait_for_a_notification_can_complete_a_circle() -> None:
    """Its time is up, but whoever has the lock waits for it: its call ends as a deadlock, without the lock."""
    room, (a, b) = clients(2)
    a.call("rlock:x", "acquire")
    a.call("condition:c", "acquire")
    waiting = a.send("condition:c", "wait", 5.0)
    b.call("condition:c", "acquire")
    blocked = b.send("rlock:x", "acquire")
    assert blocked.waits  # in time somebody may notify, and then the wait ends
    room.advance(5.0)
    with pytest.raises(Deadlock, match="thread 1 of a waits for condition:c until thread 1 of b can go on"):
        waiting.result()
    assert room.statistics("condition:c")["holder"]["label"] == "b"
    a.call("rlock:x", "release")
    assert blocked.result()


def test_a_notification_is_not_lost_with_a_deadlock() -> None:
    """One that passes on to a waiter whose wait then ends as a deadlock goes on to the next."""
    room, (a, b, c, d) = clients(4)
    a.call("rlock:x", "acquire")
    tickets = []
    for client in (d, a, c):
        client.call("condition:c", "acquire")
        tickets.append(client.send("condition:c", "wait_for"))
    b.call("condition:c", "acquire")
    b.call("condition:c", "notify")
    blocked = b.send("rlock:x", "acquire")
    assert blocked.waits and [row["label"] for row in room.statistics("condition:c")["waiters"]] == ["d"]
    tickets[0].cancel()  # its notification passes on to `a`, which now needs `b`
    assert tickets[1].outcome() is Deadlock
    assert [row["label"] for row in room.statistics("condition:c")["waiters"]] == ["c"]
    a.call("rlock:x", "release")
    b.call("condition:c", "release")
    assert blocked.result() and tickets[2].result()[0] == 1


@pytest.mark.parametrize("end", ["grant", "cancel", "timeout"])
def test_the_last_way_out_of_an_owner_with_two_waits(end: str) -> None:
    """A thread waits, and so does a signal handler in it: once one has ended, the other may keep it for ever."""
    room, (a, b, c) = clients(3)
    c.call("rlock:free", "acquire")
    a.call("rlock:x", "acquire")
    outer = a.send("rlock:free", "acquire", **({"timeout": 2.0} if end == "timeout" else {}))
    b.call("rlock:y", "acquire")
    inner = a.send("rlock:y", "acquire")
    other = b.send("rlock:x", "acquire")
    assert inner.waits and other.waits
    if end == "grant":
        c.call("rlock:free", "release")
        assert outer.result()
    elif end == "cancel":
        outer.cancel()
    else:
        room.advance(2.0)
        assert not outer.result()
    assert inner.outcome() is Deadlock and other.waits


def test_whoever_comes_to_a_deadlock_that_is_there_is_refused() -> None:
    """A class that lets its holders change while they wait can make a deadlock that nobody saw begin."""
    room = Driver(*DECLARATIONS, ODD, twin=True)
    a, b, c = (room.client(name) for name in "abc")
    a.call("rlock:x", "acquire")
    a.send("odd:o", "pass_through")
    b.send("rlock:x", "acquire")
    b.call("odd:o", "say", [[b.number, 1]], owner=2)
    with pytest.raises(Deadlock, match="; this call would wait for ever") as caught:
        c.call("rlock:x", "acquire")
    assert len(caught.value.participants) == 3
    assert [len(circle) for circle in room.engine.suspected()] == [2]


# -- what is no deadlock


def test_a_permit_may_come_from_somebody_else() -> None:
    """Two permits, of `a` and `c`; `a` waits for what `b` holds, `b` for a permit: `c` will return its own."""
    _, (a, b, c) = clients(3)
    c.create("slots:s", 2)
    a.call("slots:s", "acquire")
    c.call("slots:s", "acquire")
    b.call("rlock:l", "acquire")
    first, second = a.send("rlock:l", "acquire"), b.send("slots:s", "acquire")
    assert first.waits and second.waits
    c.call("slots:s", "release")
    assert second.result()
    b.call("rlock:l", "release")
    assert first.result()


@pytest.mark.parametrize("late", ["first", "last", "call"])
def test_a_wait_with_a_deadline_is_a_way_out(late: str) -> None:
    """One of a circle that gives up in time lets the others go on, be it its own timeout or that of its call."""
    room, (a, b) = clients(2)
    a.call("rlock:x", "acquire")
    b.call("rlock:y", "acquire")
    first = a.send("rlock:y", "acquire", **({"timeout": 3.0} if late == "first" else {}))
    if late == "call":
        first.resend(3.0)
    second = b.send("rlock:x", "acquire", **({"timeout": 3.0} if late == "last" else {}))
    assert first.waits and second.waits
    room.advance(3.0)
    gave_up, waits = (second, first) if late == "last" else (first, second)
    assert not gave_up.result() and waits.waits
    gave_up.client.call("rlock:y" if late == "last" else "rlock:x", "release")
    assert waits.result()


def test_a_process_that_is_cut_off_is_a_way_out_until_it_is_back() -> None:
    """Its lease may end, and then what it has is free; if it comes back, its own wait is the one that cannot end."""
    for back in (False, True):
        room, (a, b) = clients(2)
        a.call("rlock:x", "acquire")
        b.call("rlock:y", "acquire")
        first = a.send("rlock:y", "acquire")
        a.suspend()
        second = b.send("rlock:x", "acquire")
        assert second.waits and room.engine.suspected() == []
        if back:
            a.resume()
            assert first.outcome() is Deadlock and second.waits
            a.call("rlock:x", "release")
        else:
            a.end()
        assert second.result().holder == ("b" if back else "a")


def test_a_timed_writer_is_a_way_out_for_the_reader_behind_it() -> None:
    """Once the writer gives up, the reader behind it is let in beside the other readers."""
    room, (a, b, c) = clients(3)
    a.call("rwlock:t", "read")
    b.call("rlock:x", "acquire")
    a.send("rlock:x", "acquire")
    c.send("rwlock:t", "write", timeout=1.0)
    reading = b.send("rwlock:t", "read")
    assert reading.waits
    room.advance(1.0)
    assert reading.result()


@pytest.mark.parametrize(
    ("title", "method", "signal"),
    [
        ("event:e", "wait", "set"),
        ("semaphore:free", "acquire", "release"),
        ("queue:q", "get", "put"),
        ("latch:n", "wait", "count_down"),
        ("barrier:n", "wait", "wait"),
        ("condition:c", "wait", "notify"),
    ],
)
def test_what_anybody_may_signal_is_a_way_out(title: str, method: str, signal: str) -> None:
    """`a` has a lock and waits for a signal; whoever waits for the lock is not refused, since the signal may come."""
    from registry_queues import QUEUE
    from registry_sync import BARRIER, LATCH

    room = Driver(*DECLARATIONS, QUEUE, LATCH, BARRIER)
    a, b, c = (room.client(name) for name in "abc")
    arguments = {"semaphore:free": (0,), "latch:n": (1,), "barrier:n": (2,)}.get(title, ())
    c.create(title, *arguments)
    a.call("rlock:x", "acquire")
    if signal == "notify":
        a.call(title, "acquire")
    waiting = a.send(title, method)
    blocked = b.send("rlock:x", "acquire")
    assert waiting.waits and blocked.waits
    if signal == "notify":
        c.call(title, "acquire")
    c.call(title, signal, *(["an item"] if signal == "put" else []))
    if signal == "notify":
        c.call(title, "release")
    waiting.result()
    assert not waiting.waits
    a.call("rlock:x", "release")
    assert blocked.result()


def test_a_notified_waiter_is_blocked_by_who_has_the_lock() -> None:
    """It stands in the line of the lock without having asked for it: seen from there it needs the holder."""
    room, (a, b) = clients(2)
    a.call("rlock:x", "acquire")
    a.call("condition:c", "acquire")
    a.send("condition:c", "wait")
    b.call("condition:c", "acquire")
    b.call("condition:c", "notify")
    refuse(room, b, "rlock:x")


def test_a_line_is_no_circle() -> None:
    """Many wait for one lock, and its holder waits for something that will come."""
    _, (a, b, c, d) = clients(4)
    a.call("rlock:x", "acquire")
    a.send("event:e", "wait")
    line = [client.send("rlock:x", "acquire") for client in (b, c, d)]
    b.call("event:e", "set", owner=2)
    for client, ticket in zip((a, b, c), line):
        client.call("rlock:x", "release")
        assert ticket.result()


# -- against the oracle

steps = st.tuples(
    st.integers(0, 3), st.integers(0, len(VERBS) - 1), st.sampled_from([None, None, None, 0, 1.5]), st.booleans()
)


@settings(max_examples=size(40, 2000))
@given(st.lists(steps | st.integers(0, 999), max_size=40))
def test_what_is_refused_is_what_cannot_go_on(way: list[Any]) -> None:
    """Whatever owners do, the oracle agrees after each event, and so does an engine that is restored before it."""
    room = Walk(twin=True)
    for step in way:
        if isinstance(step, int):
            room.turn(step)
        else:
            room.step(*step)


def test_random_ways_meet_deadlocks() -> None:
    """On random ways the engine and the oracle agree, and there is something to agree about."""
    count = size(40, 6000)
    rooms = [walk(seed).room for seed in range(count)]
    assert sum(room.found for room in rooms) > count // 10
    assert sum(len(room.suspicions) for room in rooms) > count // 20


def test_locks_in_one_order_never_deadlock() -> None:
    """Owners that take what they need in one order are never refused nor suspected, whatever kind of lock it is."""
    draw = random.Random(1)
    room, everybody = clients(4, twin=False)
    kinds = ("rlock", "rwlock", "condition", "slots", "lock", "bounded_semaphore", "semaphore")
    order = [f"{kind}:{place}" for place in range(3) for kind in kinds]
    for title in order:
        if title.partition(":")[0] in ("slots", "bounded_semaphore", "semaphore"):
            everybody[0].create(title, 2)
    held: dict[tuple[int, int], list[int]] = {(who, owner): [] for who in range(4) for owner in (1, 2)}
    waits: dict[tuple[int, int], Ticket] = {}
    taken = waited = 0
    while taken < size(2000, 100_000):
        key = draw.choice(list(held))
        client, owner = everybody[key[0]], key[1]
        if key in waits:
            if waits[key].waits:
                continue
            assert waits.pop(key).result()
        last = held[key][-1] if held[key] else -1
        # The more it has the sooner it lets go, so that everybody's turn comes.
        if held[key] and (last + 1 == len(order) or draw.random() < 0.2 * len(held[key])):
            client.call(order[held[key].pop()], "release", owner=owner)
            continue
        place = draw.randrange(last + 1, min(len(order), last + 8))
        method = draw.choice(("read", "write")) if order[place].startswith("rwlock") else "acquire"
        taken += 1
        waits[key] = client.send(order[place], method, owner=owner)
        held[key].append(place)
        waited += waits[key].waits
        assert room.engine.suspicions == []
    assert room.engine.suspected() == []
    assert waited > taken // 10


# Ways to get it wrong, each of which some random way has to show.
def _without_the_queued(self: RWLock, waiter: Waiter) -> list[list[Owner]] | None:
    if waiter.home is self._upgrade or self._wants[waiter.number] == "write":
        return [[holder] for holder in self._holders if holder != waiter.owner]
    return None if self._writer is None else [[self._writer]]


def _with_those_who_wait_for_a_notification(self: Condition, waiter: Waiter) -> list[list[Owner]] | None:
    return None if self._taker is None else [[self._taker]]


_need = Engine._need


def _and_for_or(self: Engine, waiter: Waiter, widely: bool) -> Need | None:
    need = _need(self, waiter, widely)
    return need and tuple((member,) for group in need for member in group)


def _or_for_and(self: Engine, waiter: Waiter, widely: bool) -> Need | None:
    need = _need(self, waiter, widely)
    return need and (tuple(member for group in need for member in group),)


def _with_deadlines(self: Engine, waiter: Waiter, widely: bool) -> Need | None:
    deadline, waiter.deadline = waiter.deadline, None
    try:
        return _need(self, waiter, widely)
    finally:
        waiter.deadline = deadline


def _with_what_any_thread_releases(self: Engine, waiter: Waiter, widely: bool) -> Need | None:
    return _need(self, waiter, True)


# The number is that of a way that shows it; should it do so no longer, others are tried.
MUTANTS: dict[str, tuple[int, type, str, Callable[..., Any]]] = {
    "holders only": (212, RWLock, "blocked_by", _without_the_queued),
    "a wait for a notification counts": (184, Condition, "blocked_by", _with_those_who_wait_for_a_notification),
    "AND where OR is meant": (1, Engine, "_need", _and_for_or),
    "OR where AND is meant": (65, Engine, "_need", _or_for_and),
    "a wait with a deadline counts": (14, Engine, "_need", _with_deadlines),
    "a lock of a process counts": (4, Engine, "_need", _with_what_any_thread_releases),
    "only new waits are looked at": (9, Engine, "_look_again", lambda self: self._waits.changed.clear()),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_oracle_finds_what_is_broken(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each mistake that could be made in the reduction shows on one of the random ways."""
    first, *change = MUTANTS[mutant]
    monkeypatch.setattr(*change)
    for seed in range(first, first + 2000):
        try:
            walk(seed)
        except AssertionError as error:
            assert any(text in str(error) for text in ("a false alarm", "nobody noticed", "not all were noticed"))
            return
    pytest.fail(f"no way shows: {mutant}")


# -- what a hosted class may say


def test_the_hook_is_not_exposed() -> None:
    """`blocked_by` is the engine's, no client's."""
    assert ODD.interface.exposed == ("pass_through", "say")


@pytest.mark.parametrize("said", ["raise", "wake", "exit"])
def test_what_the_hook_raises_ends_the_wait_that_asked(said: str) -> None:
    """It is told whoever made the engine ask; nothing waits, nothing has changed, and the object goes on."""
    room = Driver(*DECLARATIONS, ODD, twin=True)
    a, b = room.client("a"), room.client("b")
    first = a.send("odd:o", "pass_through")
    a.call("odd:o", "say", said, owner=2)
    a.call("rlock:x", "acquire", owner=2)
    assert a.send("odd:o", "pass_through", owner=2).outcome().__name__ in (
        "ZeroDivisionError",
        "DeclarationError",
        "RemoteError",
    )
    assert room.instance("odd:o").gone == ["a"] and len(room.instance("odd:o").waiters) == 1
    b.call("odd:o", "say", None)
    assert first.waits and b.send("odd:o", "pass_through").waits


def test_a_group_of_nobody_never_goes_on() -> None:
    """An object that knows that nobody can end a wait says so; no groups at all are a wait that ends."""
    room = Driver(*DECLARATIONS, ODD, twin=True)
    a = room.client("a")
    a.call("odd:o", "say", [])
    assert a.send("odd:o", "pass_through", owner=2).waits
    a.call("odd:o", "say", [()])
    with pytest.raises(Deadlock, match="a waits for odd:o, which nobody can give; this call would wait for ever"):
        a.call("odd:o", "pass_through")


def test_several_groups_are_told_apart() -> None:
    """One of each is needed, which the text says."""
    room, (a, b, c) = clients(3)
    for reader in (a, b):
        reader.call("rwlock:t", "read")
    c.call("rlock:x", "acquire")
    a.send("rlock:x", "acquire")
    b.send("rlock:x", "acquire")
    text = str(refuse(room, c, "rwlock:t", "write"))
    assert "thread 1 of c waits for rwlock:t until thread 1 of a and thread 1 of b can go on" in text


# -- what is only suspected


def test_a_circle_of_processes_is_suspected() -> None:
    """A lock may be released by another thread of its process, so nobody is refused; it is told once."""
    room, (a, b, c) = clients(3)
    a.call("lock:x", "acquire")
    b.call("lock:y", "acquire")
    first = a.send("lock:y", "acquire")
    assert room.engine.suspicions == room.engine.suspected() == []
    second = b.send("lock:x", "acquire")
    assert room.engine.suspicions == [
        "suspected deadlock: thread 1 of b waits for lock:x until thread 1 of a can go on, and thread 1 of a waits for "
        "lock:y until thread 1 of b can go on. Another thread of these processes may still release what is waited "
        "for. Take locks in one order everywhere, or give the call a timeout"
    ]
    third = c.send("lock:x", "acquire")  # stands behind the circle
    assert room.engine.suspicions == []
    room.restart()
    assert room.engine.suspected() == [
        (
            ("thread 1 of a", "lock:y", ("thread 1 of b",)),
            ("thread 1 of b", "lock:x", ("thread 1 of a",)),
        )
    ]
    assert first.waits and second.waits and third.waits
    a.call("lock:x", "release", owner=2)
    assert second.result() and room.engine.suspected() == []


def test_a_thread_that_takes_a_lock_twice_is_suspected() -> None:
    """It waits for itself, as with `threading.Lock`; another thread of its process does not."""
    room, (a,) = clients(1)
    a.call("lock:x", "acquire")
    assert a.send("lock:x", "acquire", owner=2).waits and room.engine.suspicions == []
    assert a.send("lock:x", "acquire").waits
    assert len(room.engine.suspicions) == 1
    assert room.engine.suspected() == [(("thread 1 of a", "lock:x", ("thread 1 of a",)),)]


def test_permits_of_processes_are_suspected_when_all_are_in_it() -> None:
    """As with locks; a permit that expires comes back by itself, and a plain semaphore can be released by anybody."""
    room, (a, b, c) = clients(3)
    for typeid in ("bounded_semaphore", "semaphore"):
        a.create(f"{typeid}:s", 2)
    for typeid, expiry, suspected in (
        ("semaphore", None, False),
        ("bounded_semaphore", 60.0, False),
        ("bounded_semaphore", None, True),
    ):
        a.call(f"{typeid}:s", "acquire", expiry=expiry)
        b.call(f"{typeid}:s", "acquire")
        c.call("rlock:x", "acquire")
        tickets = [a.send("rlock:x", "acquire"), c.send(f"{typeid}:s", "acquire")]
        assert room.engine.suspicions == []
        tickets.append(b.send("rlock:x", "acquire"))
        assert all(ticket.waits for ticket in tickets)
        assert bool(room.engine.suspicions) is suspected is bool(room.engine.suspected())
        for ticket in tickets:
            ticket.cancel()
        for client in (a, b):
            client.call(f"{typeid}:s", "release")
        c.call("rlock:x", "release")


def test_a_circle_of_both_kinds_is_suspected() -> None:
    """One lock of a process in it is enough for a way out."""
    room, (a, b) = clients(2)
    a.call("rlock:x", "acquire")
    b.call("lock:y", "acquire")
    assert a.send("lock:y", "acquire").waits
    assert b.send("rlock:x", "acquire").waits
    assert len(room.engine.suspicions) == len(room.engine.suspected()) == 1


def test_who_took_the_lock_is_part_of_the_state() -> None:
    """After a restore the circle is still suspected, and so is one that closes only then."""
    room, (a, b) = clients(2)
    a.call("lock:x", "acquire")
    b.call("lock:y", "acquire")
    a.send("lock:y", "acquire")
    room.restart()
    b.send("lock:x", "acquire")
    assert len(room.engine.suspicions) == 1


@pytest.fixture(params=["memory", "server"])
def place(request: pytest.FixtureRequest, home: Path) -> Iterator[ManagerClient]:
    """A client of each kind of server that logs in this process."""
    if request.param == "memory":
        with connect("memory://") as client:
            yield client
    else:
        with ManagerServer("here", KEY), connect("here", KEY) as client:
            yield client


def test_a_suspicion_is_logged_once(place: ManagerClient, caplog: pytest.LogCaptureFixture) -> None:
    """By the server, as a warning that names everybody; whoever comes behind the circle adds nothing."""
    x, y = place.lock("x"), place.lock("y")
    ready = threading.Barrier(3)

    def take(first: Any, second: Any) -> None:
        first.acquire()
        ready.wait()
        second.acquire()
        second.release()

    def waiting(ask: ManagerClient, *counts: int) -> bool:
        return tuple(len(ask.statistics(lock)["waiters"]) for lock in (x, y)) == counts

    with caplog.at_level(logging.WARNING, "registry"), running(partial(take, x, y), partial(take, y, x)):
        ready.wait()
        until(lambda ask: waiting(ask, 1, 1), place)
        with running(x.acquire):
            until(lambda ask: waiting(ask, 2, 1), place)
            x.release()  # which any thread of the process may do; the second has it, and then the third
        y.release()
    x.release()
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("registry", "WARNING")
    assert record.getMessage().startswith("suspected deadlock: thread ")
    assert "lock:x" in record.getMessage() and "lock:y" in record.getMessage()


# -- what it costs


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Waiter]:
    """The waits that the engine has asked objects about."""
    found: list[Waiter] = []

    def counting(self: Engine, waiter: Waiter, widely: bool) -> Need | None:
        found.append(waiter)
        return _need(self, waiter, widely)

    monkeypatch.setattr(Engine, "_need", counting)
    return found


def test_only_what_can_be_reached_is_asked_about(asked: list[Waiter]) -> None:
    """With 1,000 waits elsewhere a new one costs one question, and one more for each wait before it in its chain."""
    _, (a, b, c, d) = clients(4, twin=False)
    for place in range(100):
        a.call(f"rlock:{place}", "acquire")
        for owner in range(5):
            b.send(f"rlock:{place}", "acquire", owner=10 + place * 5 + owner)
            c.send(f"rwlock:{place}", "write", owner=10 + place * 5 + owner)
    a.call("rlock:x", "acquire")
    asked.clear()
    b.send("rlock:x", "acquire")
    assert len(asked) == 1
    c.call("rlock:y", "acquire")
    b.call("rlock:z", "acquire", owner=2)
    b.send("rlock:y", "acquire", owner=2)
    c.send("rlock:x", "acquire")
    asked.clear()
    d.send("rlock:z", "acquire")
    assert len(asked) == 3  # for `z`, for which the second thread of `b` has `y` to get, for which `c` has `x` to get


@pytest.mark.parametrize(
    ("title", "method"), [("rlock:x", "acquire"), ("rwlock:x", "write"), ("condition:x", "acquire")]
)
def test_a_long_line_costs_no_more_than_a_short_one(asked: list[Waiter], title: str, method: str) -> None:
    """Whoever is the thousandth in a line waits for its holder like the first: one question."""
    _, (a, b) = clients(2, twin=False)
    a.call(title, method)
    for owner in range(1000):
        asked.clear()
        b.send(title, method, owner=owner)
        assert len(asked) == 1


def test_many_waits_of_one_owner_end_in_quadratic_time(asked: list[Waiter]) -> None:
    """When the waits of one owner end one after the other, each that is left is asked about once for each end."""
    driver, (a, b) = clients(2, twin=False)
    a.call("lock:x", "acquire")
    count = 40
    waits = [b.send("lock:x", "acquire", timeout=5.0) for _ in range(count)]
    asked.clear()
    driver.advance(5.0)
    assert not any(wait.waits for wait in waits)
    assert len(asked) <= count * (count - 1) / 2


# -- with real processes

CROSSED = """
import sys, threading, registry
from registry.errors import Deadlock

def work():
    with registry.connect(sys.argv[1], sys.argv[2].encode()) as shared, shared.rlock(sys.argv[3]):
        print("has one", flush=True)
        sys.stdin.readline()
        try:
            with shared.rlock(sys.argv[4]):
                print("has both", flush=True)
        except Deadlock as error:
            print("refused:", error, flush=True)
            print(len(error.participants), flush=True)

thread = threading.Thread(target=work, name="the worker")
thread.start()
thread.join()
"""


def test_two_processes_with_two_locks() -> None:
    """They take them in opposite order: one is told so, and lets the other go on."""
    with Served("here") as server, Script(CROSSED, server.url, KEY.decode(), "x", "y") as one:
        with Script(CROSSED, server.url, KEY.decode(), "y", "x") as other:
            scripts = [one, other]
            for script in scripts:
                assert script.line() == "has one"
            for script in scripts:
                script.say()
            lines = [script.line() for script in scripts]
            assert sorted(line.split()[0] for line in lines) == ["has", "refused:"]
            refused = lines.index(max(lines))
            for script in scripts:
                assert f"thread the worker of python -c (pid {script.pid} on " in lines[refused]
            assert "rlock:x" in lines[refused] and "rlock:y" in lines[refused]
            assert scripts[refused].line() == "2"
            assert all(script.wait() == 0 for script in scripts)
