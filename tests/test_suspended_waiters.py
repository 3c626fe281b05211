"""Waiters whose process has lost its connection: they keep their place, and nobody waits behind them in vain."""

from __future__ import annotations

import queue
from collections.abc import Callable
from threading import BrokenBarrierError
from typing import Any

import pytest
from engine_driver import CANCELLED, WAITING, Client, Driver, Ticket
from hosted_classes import GATE
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sizes import size

from registry import SharedObject
from registry.errors import Deadlock, NoSuchObject, NotOwner
from registry.hosting import Waiter, Waiters
from registry_containers import DICT
from registry_queues import QUEUE
from registry_sync import BARRIER, CONDITION, EVENT, LATCH, LOCK, RLOCK, RWLOCK, SEMAPHORE

TYPES = (LOCK, RLOCK, RWLOCK, SEMAPHORE, CONDITION, BARRIER, EVENT, LATCH, QUEUE, DICT, GATE)


def driver() -> Driver:
    return Driver(*TYPES, twin=True)


# -- the law ------------------------------------------------------------------------------------------


def here(line: Waiters) -> list[Waiter]:
    """Return those in a line who can be reached."""
    return [waiter for waiter in line if not waiter.away]


def check_law(room: Driver) -> None:
    """Nobody who can be reached waits for something that is free."""
    for (typeid, _), hosted in room.engine.objects.items():
        it: Any = hosted.instance
        if typeid in ("lock", "rlock", "condition"):
            assert it._holder is not None or not here(it._waiters)
        elif typeid == "semaphore":
            assert not it._value or not here(it._waiters)
        elif typeid == "queue":
            assert not it._items or not here(it._getters)
            offers = [it._offers[waiter.number] for waiter in here(it._putters)]
            assert not offers or not it._has_room(len(offers[0]))
        elif typeid == "dict":
            assert all(key in it._turns or not here(line) for key, line in it._lines.items())
        elif typeid == "rwlock":
            assert all(it._others(waiter.owner) for waiter in here(it._upgrade))
            first = it._line.first
            if first is not None:
                wants_to_write = it._wants[first.number] == "write"
                assert it._writer is not None or here(it._upgrade) or (wants_to_write and it._holders)
        elif typeid == "event":
            assert not it._is_set or not len(it._waiters)
        elif typeid == "latch":
            assert it._remaining or not len(it._waiters)


VERBS: list[tuple[str, str, tuple[Any, ...]]] = [
    *[("lock:x", verb, ()) for verb in ("acquire", "acquire", "release")],
    *[("rlock:x", verb, ()) for verb in ("acquire", "acquire", "release")],
    *[("rwlock:x", verb, ()) for verb in ("read", "read", "write", "release", "release")],
    ("rwlock:x", "write", (True, 2.0)),
    *[("semaphore:x", verb, ()) for verb in ("acquire", "acquire", "release")],
    ("semaphore:x", "acquire", (True, 1.0)),
    *[("condition:x", verb, ()) for verb in ("acquire", "acquire", "wait", "notify", "notify_all", "release")],
    ("condition:x", "wait_for", (1.5, True)),
    *[("queue:x", verb, ()) for verb in ("get", "claim", "get")],
    *[("queue:x", "put", (item,)) for item in "abc"],
    ("queue:x", "put", ("late", True, 1.0)),
    ("dict:x", "edit", ("k",)),
    ("dict:x", "edit", ("k",)),
    ("dict:x", "__setitem__", ("k", 1)),
    ("dict:x", "pop", ("k", None)),
    *[("event:x", verb, ()) for verb in ("wait", "set", "clear")],
    ("barrier:x", "wait", ()),
    *[("latch:x", verb, ()) for verb in ("wait", "count_down")],
]

EXPECTED = (NotOwner, Deadlock, RuntimeError, KeyError, queue.Empty, queue.Full, BrokenBarrierError, NoSuchObject)


class Away(RuleBasedStateMachine):
    """Four clients, two threads each, that lose their connections and come back; the law holds after each step."""

    @initialize(typeid=st.sampled_from(sorted({title for title, _, _ in VERBS})))
    def begin(self, typeid: str) -> None:
        self.verbs = [verb for verb in VERBS if verb[0] == typeid]
        self.room = driver()
        maker = self.room.client()
        maker.create("queue:x", 2)
        maker.create("barrier:x", 3)
        maker.create("latch:x", 2)
        self.clients = [self.room.client("abcd"[number]) for number in range(4)]
        self.tickets: list[tuple[int, int, Ticket]] = []
        self.turns: list[tuple[int, int]] = []

    def is_busy(self, client: int, owner: int) -> bool:
        return any(who == client and thread == owner and ticket.waits for who, thread, ticket in self.tickets)

    @rule(client=st.integers(0, 3), owner=st.integers(1, 2), number=st.integers(0, 29))
    def call(self, client: int, owner: int, number: int) -> None:
        """Call something, unless that thread waits or its client has no connection."""
        if self.clients[client].away or self.is_busy(client, owner):
            return
        title, method, args = self.verbs[number % len(self.verbs)]
        ticket = self.clients[client].send(title, method, *args, owner=owner)
        self.tickets.append((client, owner, ticket))
        try:
            result = ticket.result()
        except EXPECTED:
            return
        if method == "edit" and result is not WAITING:
            self.turns.append((client, result[0]))

    @precondition(lambda self: self.turns)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """End the turn of an edit."""
        client, turn = data.draw(st.sampled_from(self.turns))
        if not self.clients[client].away:
            self.turns.remove((client, turn))
            self.clients[client].send("dict:x", "edit", "k", turn)

    @rule(client=st.integers(0, 3))
    def go(self, client: int) -> None:
        """Lose the connection."""
        self.clients[client].suspend()

    @rule(client=st.integers(0, 3))
    def come(self, client: int) -> None:
        """Come back."""
        self.clients[client].resume()

    @rule(client=st.integers(0, 3))
    def die(self, client: int) -> None:
        """End, by death or because the lease has run out."""
        self.clients[client].end()
        self.clients[client] = self.room.client("abcd"[client])
        self.tickets = [entry for entry in self.tickets if entry[0] != client]
        self.turns = [entry for entry in self.turns if entry[0] != client]

    @rule(client=st.integers(0, 3))
    def end_thread(self, client: int) -> None:
        """End a thread."""
        if not self.clients[client].away:
            self.clients[client].end_owner(1)

    @precondition(lambda self: any(ticket.waits for _, _, ticket in self.tickets))
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        """Cancel a wait."""
        client, _, ticket = data.draw(st.sampled_from([entry for entry in self.tickets if entry[2].waits]))
        if not self.clients[client].away:
            ticket.cancel()

    @rule(seconds=st.sampled_from([0.5, 1.5]))
    def pass_time(self, seconds: float) -> None:
        """Let time pass; deadlines of those who are away end, too."""
        self.room.advance(seconds)
        now = self.room.now
        for session in self.room.engine.sessions.values():
            assert all(waiter.deadline is None or waiter.deadline > now for waiter in session.waits.values())

    @invariant()
    def holds(self) -> None:
        """The law; and who is away is known."""
        if not hasattr(self, "room"):
            return
        check_law(self.room)
        for client in self.clients:
            if client.number:
                session = self.room.engine.sessions[client.number]
                assert session.away == client.away
                for waiter in session.waits.values():
                    assert waiter.away == (client.away and self.room.engine._numbered[waiter.target].passes_over)

    def teardown(self) -> None:
        """Once all are back, whoever waits waits for what is taken, and all is in the order of arrival."""
        for client in getattr(self, "clients", []):
            client.resume()
            check_law(self.room)


TestAway = Away.TestCase
TestAway.settings = settings(max_examples=size(60, 3000), stateful_step_count=30)


# -- who comes next -----------------------------------------------------------------------------------


class Line(RuleBasedStateMachine):
    """One lock, and a model of its line: the first who can be reached is next, and places are kept."""

    @initialize(typeid=st.sampled_from(["lock", "rlock", "semaphore", "queue"]))
    def begin(self, typeid: str) -> None:
        self.room = driver()
        self.title = f"{typeid}:x"
        self.get = "get" if typeid == "queue" else "acquire"
        self.give_back: tuple[str, tuple[Any, ...]] = ("put", ("item",)) if typeid == "queue" else ("release", ())
        self.clients = [self.room.client("abcde"[number]) for number in range(5)]
        self.line: list[tuple[int, Ticket]] = []
        self.holder: int | None = None
        if typeid == "queue":
            self.room.client().call(self.title, "put", "item")

    def next(self) -> None:
        """Let the model's next have it."""
        for entry in self.line:
            if self.holder is None and not self.clients[entry[0]].away:
                self.line.remove(entry)
                self.holder = entry[0]
                assert entry[1].result() not in (WAITING, CANCELLED)
                return

    @rule(client=st.integers(0, 4))
    def take(self, client: int) -> None:
        if self.clients[client].away or client == self.holder or client in [number for number, _ in self.line]:
            return
        ticket = self.clients[client].send(self.title, self.get)
        self.line.append((client, ticket))
        if self.holder is None:
            assert not ticket.waits
            self.line.pop()
            self.holder = client

    @precondition(lambda self: self.holder is not None)
    @rule()
    def let_go(self) -> None:
        client = self.clients[self.holder]
        if not client.away:
            method, args = self.give_back
            client.call(self.title, method, *args)
            self.holder = None
            self.next()

    @rule(client=st.integers(0, 4))
    def go(self, client: int) -> None:
        self.clients[client].suspend()

    @rule(client=st.integers(0, 4))
    def come(self, client: int) -> None:
        self.clients[client].resume()
        self.next()

    @rule(client=st.integers(0, 4))
    def give_up(self, client: int) -> None:
        for entry in [entry for entry in self.line if entry[0] == client and not self.clients[client].away]:
            entry[1].cancel()
            self.line.remove(entry)

    @invariant()
    def agree(self) -> None:
        assert all(ticket.waits for _, ticket in getattr(self, "line", []))


TestLine = Line.TestCase
TestLine.settings = settings(max_examples=size(40, 1000), stateful_step_count=30)


# -- stories ------------------------------------------------------------------------------------------


def given(ticket: Ticket) -> bool:
    """Tell whether a call has been given what it asked for."""
    return not ticket.waits and bool(ticket.result())


def three(room: Driver) -> tuple[Client, Client, Client]:
    return room.client("one"), room.client("two"), room.client("three")


@pytest.mark.parametrize("title", ["lock:x", "rlock:x", "condition:x", "semaphore:x"])
def test_a_lock_is_not_kept_for_who_cannot_use_it(title: str) -> None:
    """The line goes on without it; back again it has its old place, and what is free at once."""
    room = driver()
    one, two, three_ = three(room)
    assert one.call(title, "acquire")
    second, third = two.send(title, "acquire"), three_.send(title, "acquire")
    two.suspend()
    one.call(title, "release")
    assert second.waits and given(third)
    fourth = one.send(title, "acquire")
    two.resume()
    three_.call(title, "release")
    assert given(second) and fourth.waits
    two.call(title, "release")
    fifth = two.send(title, "acquire")
    two.suspend()
    one.call(title, "release")
    assert fifth.waits
    assert one.call(title, "acquire", False)
    one.call(title, "release")
    two.resume()
    assert given(fifth)


def test_a_writer_that_is_away_keeps_no_reader_out() -> None:
    """Readers behind it are let in when it goes; it comes after them."""
    room = driver()
    one, two, three_ = three(room)
    assert one.call("rwlock:x", "read")
    writes, reads = two.send("rwlock:x", "write"), three_.send("rwlock:x", "read")
    assert writes.waits and reads.waits
    two.suspend()
    assert given(reads) and given(one.send("rwlock:x", "read", owner=2))
    two.resume()
    again = one.send("rwlock:x", "read", owner=3)
    assert again.waits
    for client, owner in ((one, 1), (one, 2), (three_, 1)):
        client.call("rwlock:x", "release", owner=owner)
    assert given(writes) and again.waits


def test_a_reader_that_is_away_and_would_write() -> None:
    """It still reads, so that a second one who would write is refused; readers are let in meanwhile."""
    room = driver()
    one, two, three_ = three(room)
    assert one.call("rwlock:x", "read") and two.call("rwlock:x", "read")
    writes = one.send("rwlock:x", "write")
    one.suspend()
    with pytest.raises(Deadlock):
        two.call("rwlock:x", "write")
    assert three_.call("rwlock:x", "read")
    three_.call("rwlock:x", "release")
    two.call("rwlock:x", "release")
    assert writes.waits
    one.resume()
    assert given(writes)


def test_items_and_room_are_for_who_is_there() -> None:
    """An item goes to the first getter in reach, or stays; the getter that comes back has it before any other."""
    room = driver()
    one, two, three_ = three(room)
    one.create("queue:q", 1)
    first, second = one.send("queue:q", "get"), two.send("queue:q", "claim")
    one.suspend()
    three_.call("queue:q", "put", "a")
    assert first.waits and second.result()[1] == "a"
    three_.call("queue:q", "put", "b")
    third = three_.send("queue:q", "put", "c")
    assert third.waits
    one.resume()
    assert first.result() == "b" and third.result() is None
    assert two.call("queue:q", "get") == "c"


def test_room_is_for_who_is_there() -> None:
    """A putter that is away lets others put; back again it does, in its old place."""
    room = driver()
    one, two, three_ = three(room)
    one.create("queue:q", 1)
    one.call("queue:q", "put", "a")
    second, third = two.send("queue:q", "put", "b"), three_.send("queue:q", "put", "c")
    two.suspend()
    assert one.call("queue:q", "get") == "a"
    assert second.waits and third.result() is None
    assert one.call("queue:q", "get") == "c"
    two.resume()
    assert second.result() is None
    assert one.call("queue:q", "get") == "b"


def test_a_turn_to_edit() -> None:
    """The turn is for the first in reach; a key that was deleted meanwhile is told to whoever comes back."""
    room = driver()
    one, two, three_ = three(room)
    one.call("dict:d", "__setitem__", "k", 1)
    turn, _ = one.call("dict:d", "edit", "k")
    second, third = two.send("dict:d", "edit", "k"), three_.send("dict:d", "edit", "k")
    two.suspend()
    one.call("dict:d", "edit", "k", turn, 2)
    assert second.waits and third.result()[1] == 2
    three_.call("dict:d", "edit", "k", third.result()[0], 3)
    one.call("dict:d", "edit", "k", one.call("dict:d", "edit", "k")[0], 4)
    two.resume()
    assert second.result()[1] == 4


def test_a_notification_is_for_who_is_there() -> None:
    """It goes to somebody in reach where there is one, else it is kept for who comes back."""
    room = driver()
    one, two, three_ = three(room)
    tickets = []
    for client in (one, two):
        client.call("condition:c", "acquire")
        tickets.append(client.send("condition:c", "wait"))
    one.suspend()
    three_.call("condition:c", "acquire")
    three_.call("condition:c", "notify")
    three_.call("condition:c", "release")
    assert tickets[0].waits and tickets[1].result() is True
    two.call("condition:c", "notify")
    two.call("condition:c", "release")
    assert tickets[0].waits
    assert three_.call("condition:c", "acquire", False)
    one.resume()
    assert tickets[0].waits
    three_.call("condition:c", "release")
    assert tickets[0].result() is True


def test_whom_nothing_is_kept_from() -> None:
    """A party of a barrier has come, though it is away by now; events and latches let all go on."""
    room = driver()
    one, two, _ = three(room)
    one.create("barrier:b", 2)
    one.create("latch:l", 1)
    tickets = [
        one.send(title, "wait", owner=owner) for owner, title in enumerate(["barrier:b", "event:e", "latch:l"], 1)
    ]
    one.suspend()
    assert two.call("barrier:b", "wait") == 1
    two.call("event:e", "set")
    two.call("latch:l", "count_down")
    assert [ticket.result() for ticket in tickets] == [0, True, True]


def test_time_is_up_for_who_is_away() -> None:
    """Its wait ends at its deadline, as any other."""
    room = driver()
    one, two, _ = three(room)
    one.call("lock:x", "acquire")
    late = two.send("lock:x", "acquire", timeout=1.0)
    two.suspend()
    one.call("lock:x", "release")
    room.advance(1.0)
    assert late.result().token is None and not late.result()


def test_a_class_without_the_hook_passes_nobody_over() -> None:
    """What it gives is kept with the reply until the waiter is back; else a class might lose it."""
    room = driver()
    one, two, _ = three(room)
    first, second = one.send("gate:g", "pass_through"), two.send("gate:g", "pass_through")
    one.suspend()
    assert given(two.send("gate:g", "open_one", 5, owner=2))
    assert first.result() == 5 and second.waits


def test_hooks_that_raise_stop_their_object() -> None:
    """As with any hook; what waits there is told."""

    class Sad:
        def __init__(self) -> None:
            self.line = Waiters()

        def wait(self) -> Waiter:
            return self.line.wait()

        def came_back(self, waiter: Waiter) -> None:
            raise ZeroDivisionError

    room = Driver(SharedObject("sad", Sad, waiting=("wait",)), twin=True)
    one, two, _ = three(room)
    tickets = [one.send("sad:s", "wait"), one.send("sad:s", "wait", owner=2), two.send("sad:s", "wait")]
    one.suspend()
    assert all(ticket.waits for ticket in tickets)
    one.resume()
    for ticket in tickets:
        with pytest.raises(Exception, match="stopped since ZeroDivisionError"):
            ticket.result()


def test_suspending_twice_is_as_once() -> None:
    """So is coming back; and a session that waits for nothing is as before."""
    room = driver()
    one, two, _ = three(room)
    one.call("lock:x", "acquire")
    waits = two.send("lock:x", "acquire")
    for client in (one, two):
        client.suspend()
        client.suspend()
        client.resume()
        client.resume()
    one.call("lock:x", "release")
    assert given(waits)


# -- the law catches what it is for -------------------------------------------------------------------


def first_of_all(self: Waiters) -> Waiter | None:
    return next(iter(self), None)


def nothing(self: Any, waiter: Waiter) -> None:
    """Do nothing."""


@pytest.mark.parametrize(
    ("owner", "name", "broken", "story"),
    [
        pytest.param(Waiters, "first", property(first_of_all), "lock:x", id="grants to whoever is away"),
        pytest.param(Waiters, "first", property(first_of_all), "semaphore:x", id="lets in whoever is away"),
        pytest.param(LOCK.factory.__mro__[1], "came_back", nothing, "condition:x", id="forgets who comes back"),
        pytest.param(SEMAPHORE.factory.__mro__[1], "came_back", nothing, "semaphore:x", id="a permit lies there"),
        pytest.param(
            RWLOCK.factory, "went_away", nothing, test_a_writer_that_is_away_keeps_no_reader_out, id="a writer blocks"
        ),
        pytest.param(
            QUEUE.factory, "came_back", nothing, test_items_and_room_are_for_who_is_there, id="an item lies there"
        ),
        pytest.param(DICT.factory, "came_back", nothing, test_a_turn_to_edit, id="a turn lies there"),
    ],
)
def test_broken_engines_are_caught(
    owner: Any, name: str, broken: Any, story: str | Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of these breaks a story; the true engine breaks none."""
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises((AssertionError, NotOwner, TypeError, RuntimeError)):
        if callable(story):
            story()
        else:
            test_a_lock_is_not_kept_for_who_cannot_use_it(story)


def test_the_law_catches_a_grant_to_whoever_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Histories that are drawn at random find it too."""
    monkeypatch.setattr(Waiters, "first", property(first_of_all))
    tries = settings(max_examples=300, stateful_step_count=40, phases=[Phase.generate], derandomize=True, database=None)
    with pytest.raises((AssertionError, NotOwner)):
        run_state_machine_as_test(Line, settings=tries)
