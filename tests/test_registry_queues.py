"""The queue: every item to one getter, in order, and none lost with a getter that never heard of it."""

from __future__ import annotations

import queue
from typing import Any

import pytest
from engine_driver import CANCELLED, START, WAITING, Driver, Ticket
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from registry.errors import LockLost
from registry_queues import QUEUE, registry_shared_objects

Q = "queue:q"


def driver(maxsize: int = 0) -> Driver:
    room = Driver(QUEUE, twin=True)
    room.client("maker").create(Q, maxsize)
    return room


def test_put_many_waits_for_room_for_all() -> None:
    """All the items go in at once, and whoever comes later waits behind; one that gives up lets the next in."""
    room = driver(3)
    one, two, three = room.client(), room.client(), room.client()
    one.call(Q, "put_many", [1, 2])
    many = one.send(Q, "put_many", [3, 4], True, 2.0)
    later = two.send(Q, "put", 5)
    with pytest.raises(queue.Full):
        three.call(Q, "put", 6, False)
    assert many.waits and later.waits
    room.advance(2.5)
    assert many.outcome() is queue.Full
    assert later.result() is None
    assert three.call(Q, "get_many", 10) == [1, 2, 5]
    with pytest.raises(ValueError, match="4 items at once never fit into a queue of 3; put them in parts"):
        one.call(Q, "put_many", [1, 2, 3, 4])
    for wrong in (0, -1, True, 1.5):
        with pytest.raises(ValueError, match="n must be an int of at least 1"):
            one.call(Q, "get_many", wrong)
    assert one.call(Q, "qsize") == 0


def test_get_many_takes_what_comes_together() -> None:
    """Who waits for several gets what is put at once, up to that number; what never arrives goes back in order."""
    room = driver()
    one, two = room.client(), room.client()
    first = one.send(Q, "get_many", 2)
    second = one.send(Q, "get_many", 5)
    two.call(Q, "put_many", [1, 2, 3])
    assert first.result() == [1, 2]
    assert second.result() == [3]
    one.deaf = True
    third = one.send(Q, "get_many", 2)
    two.call(Q, "put_many", [4, 5, 6])
    assert third.result() == [4, 5]
    one.end()
    assert two.call(Q, "get_many", 9) == [4, 5, 6]


def test_declarations() -> None:
    """The plugin's hook declares `queue`, whose items are only carried."""
    assert [record.typeid for record in registry_shared_objects()] == ["queue"]
    assert QUEUE.interface.carried == {"put": {"item": 0}, "put_nowait": {"item": 0}}
    assert QUEUE.interface.waiting == ("claim", "get", "get_many", "put", "put_many")


@pytest.mark.parametrize("item", [None, 0, "x", [1, {"a": (2, 3)}], {1, 2}, 1 << 80])
def test_items_come_out_as_they_went_in(item: object) -> None:
    """An item is carried with its exact type."""
    client = driver().client()
    assert client.call(Q, "put", item) is None
    taken = client.call(Q, "get")
    assert taken == item and type(taken) is type(item)


def test_opaque_items_stay_opaque() -> None:
    """A value of another class is carried as the bytes it came in, with its writer's domain."""
    from registry.hosting import Carried

    room = driver()
    writer = room.client(domain="host:1000")
    ticket = writer.send(Q, "put", Carried(b"\x80\x04.", "claimed", "app.Cookie"))
    assert ticket.result() is None
    assert list(room.instance(Q)._items) == [Carried(b"\x80\x04.", "host:1000", "app.Cookie")]


def test_fifo_both_ways() -> None:
    """Items come out in the order of the puts, to getters in the order in which they came."""
    room = driver()
    clients = [room.client() for _ in range(3)]
    gets = [client.send(Q, "get") for client in clients]
    for item in range(5):
        room.client().call(Q, "put", item)
    assert [ticket.result() for ticket in gets] == [0, 1, 2]
    assert [clients[0].call(Q, "get") for _ in range(2)] == [3, 4]


def test_full() -> None:
    """A put into a full queue waits its turn, or raises Full by its deadline."""
    room = driver(maxsize=2)
    one, two = room.client(), room.client()
    for item in "ab":
        one.call(Q, "put", item)
    assert one.call(Q, "full") is True and one.call(Q, "qsize") == 2
    for call in (("put", "x", False), ("put", "x", True, 0), ("put_nowait", "x")):
        with pytest.raises(queue.Full):
            one.call(Q, *call)
    late = two.send(Q, "put", "x", timeout=1.0)
    waiting = [client.send(Q, "put", item) for client, item in ((one, "c"), (two, "d"))]
    room.advance(1.0)
    with pytest.raises(queue.Full):
        late.result()
    assert one.call(Q, "get") == "a"
    assert [ticket.result() for ticket in waiting] == [None, WAITING]
    assert [one.call(Q, "get") for _ in range(3)] == ["b", "c", "d"]
    assert waiting[1].result() is None
    assert one.call(Q, "empty") is True


def test_empty() -> None:
    """A get from an empty queue waits its turn, or raises Empty by its deadline."""
    room = driver()
    one, two = room.client(), room.client()
    for call in (("get", False), ("get", True, 0), ("get_nowait",)):
        with pytest.raises(queue.Empty):
            one.call(Q, *call)
    waiting = one.send(Q, "get", timeout=2.5)
    room.advance(2.4)
    assert waiting.waits
    room.advance(0.1)
    with pytest.raises(queue.Empty):
        waiting.result()
    two.call(Q, "put", 1)
    assert two.call(Q, "get_nowait") == 1


def test_wrong_timeouts() -> None:
    """A negative timeout is a ValueError, as in the standard library; an infinite one waits."""
    room = driver()
    client = room.client()
    for wrong in (-1, float("nan")):
        with pytest.raises(ValueError, match=r"^'timeout' must be a non-negative number$"):
            client.call(Q, "get", timeout=wrong)
        with pytest.raises(ValueError, match=r"^'timeout' must be a non-negative number$"):
            client.call(Q, "put", 1, timeout=wrong)
    assert client.send(Q, "get", timeout=float("inf")).waits
    assert room.engine.next_due() is None


def test_wrong_maxsize() -> None:
    """A maxsize is an int."""
    with pytest.raises(TypeError, match=r"^maxsize must be an int, not 1\.5 \(float\)$"):
        Driver(QUEUE).client().create(Q, 1.5)


@pytest.mark.parametrize("end", ["cancel", "die"])
def test_unheard_item_goes_to_the_front(end: str) -> None:
    """An item whose getter could not be told goes back to the front, or to who has waited longest."""
    room = driver()
    one, two = room.client(), room.client()
    for item in "abc":
        one.call(Q, "put", item)
    two.deaf = True
    unheard = [two.send(Q, "get"), two.send(Q, "get", block=False)]
    assert [ticket.result() for ticket in unheard] == ["a", "b"]
    if end == "cancel":
        for ticket in reversed(unheard):
            ticket.cancel()
            assert ticket.result() is CANCELLED
    else:
        two.end()
    assert [one.call(Q, "get") for _ in range(3)] == ["a", "b", "c"]

    three, four = room.client(), room.client()
    three.deaf = True
    unheard = [three.send(Q, "get")]
    waiting = four.send(Q, "get")
    one.call(Q, "put", "d")
    assert unheard[0].result() == "d" and waiting.waits
    if end == "cancel":
        unheard[0].cancel()
    else:
        three.end()
    assert waiting.result() == "d"


def test_heard_item_dies_with_its_getter() -> None:
    """An item that its getter has acknowledged is gone with the getter."""
    room = driver()
    one, two = room.client(), room.client()
    one.call(Q, "put", "a")
    assert two.call(Q, "get") == "a"
    two.end()
    assert one.call(Q, "empty") is True


def test_item_that_comes_back_may_exceed_maxsize() -> None:
    """An item that goes back to a full queue makes no room for those who wait to put."""
    room = driver(maxsize=1)
    one, two = room.client(), room.client()
    one.call(Q, "put", "a")
    two.deaf = True
    unheard = two.send(Q, "get")
    one.call(Q, "put", "b")
    waiting = one.send(Q, "put", "c")
    unheard.cancel()
    assert one.call(Q, "qsize") == 2
    assert one.call(Q, "get") == "a" and waiting.waits
    assert one.call(Q, "get") == "b" and waiting.result() is None


def test_a_put_that_happened_is_not_cancelled() -> None:
    """Cancelling a put that has been answered says so: the item stays, and the reply is the answer."""
    room = driver(maxsize=1)
    one, two = room.client(), room.client()
    one.deaf = True
    puts = [one.send(Q, "put", "a"), one.send(Q, "put", "b")]
    two.call(Q, "get")
    for ticket in puts:
        ticket.cancel()
        assert ticket.result() is None
    assert two.call(Q, "get") == "b"


@pytest.mark.parametrize("end", ["cancel", "timeout", "die", "thread"])
def test_a_put_that_gave_up_leaves_nothing(end: str) -> None:
    """The item of a put that ended while it waited never enters, and is not kept."""
    room = driver(maxsize=1)
    one, two = room.client(), room.client()
    one.call(Q, "put", "a")
    waiting = two.send(Q, "put", "b", timeout=1.0, owner=5)
    if end == "cancel":
        waiting.cancel()
    elif end == "timeout":
        room.advance(1.0)
    elif end == "die":
        two.end()
    else:
        two.end_owner(5)
    last = one.send(Q, "put", "c")
    assert len(room.instance(Q)._offers) == 1
    assert one.call(Q, "get") == "a" and last.result() is None
    assert one.call(Q, "get") == "c"
    assert one.call(Q, "empty") is True
    assert not room.instance(Q)._offers


def test_resent_wait_keeps_its_place() -> None:
    """A wait that is sent again after a reconnect keeps its place, with the time that it has left."""
    room = driver()
    one, two = room.client(), room.client()
    first = one.send(Q, "get", timeout=5.0)
    second = two.send(Q, "get")
    first.resend(remaining=5.0)
    first.resend(remaining=2.0)
    first.resend(remaining=5.0)
    room.advance(4.0)
    assert first.waits
    room.client().call(Q, "put", "a")
    assert (first.result(), second.result()) == ("a", WAITING)
    room.advance(10.0)
    assert second.waits


# -- claims


def test_a_claim_is_settled() -> None:
    """An item is out while it is claimed; done it is gone, else it is back at the front."""
    room = driver()
    one, two = room.client("one"), room.client("two")
    for item in "abc":
        one.call(Q, "put", item)
    number, item = one.call(Q, "claim")
    assert item == "a" and one.call(Q, "qsize") == 2
    (claim,) = room.statistics(Q)["holders"]
    assert (claim["label"], claim["since"], claim["token"]) == ("one", START, number)
    assert room.instance(Q).holds(number) and not room.instance(Q).holds(number + 1)
    one.call(Q, "settle", number, False)
    assert two.call(Q, "get") == "a"
    number, item = two.call(Q, "claim")
    assert item == "b"
    with pytest.raises(LockLost, match="queue:q is no longer held here"):
        one.call(Q, "settle", number)
    two.call(Q, "settle", number, owner=9)  # any thread of the process
    with pytest.raises(LockLost):
        two.call(Q, "settle", number)
    assert one.call(Q, "get") == "c" and one.call(Q, "empty") is True


def test_a_claim_waits_its_turn() -> None:
    """Those who get and those who claim stand in one line, and both raise Empty when their time is up."""
    room = driver()
    one, two, three = (room.client() for _ in range(3))
    with pytest.raises(queue.Empty):
        one.call(Q, "claim", False)
    tickets = [one.send(Q, "get"), two.send(Q, "claim"), three.send(Q, "claim", timeout=1.0)]
    tickets.append(one.send(Q, "get", owner=2))
    room.advance(1.0)
    assert tickets[2].outcome() is queue.Empty
    for item in "abc":
        room.client().call(Q, "put", item)
    assert tickets[0].result() == "a" and tickets[1].result()[1] == "b" and tickets[3].result() == "c"
    assert not room.instance(Q)._claimers


def test_a_claim_makes_room() -> None:
    """Whoever waits to put is served, and an item that comes back may exceed the size."""
    room = driver(maxsize=1)
    one, two = room.client(), room.client()
    one.call(Q, "put", "a")
    waiting = one.send(Q, "put", "b")
    number, _ = two.call(Q, "claim")
    assert waiting.result() is None
    two.call(Q, "settle", number, False)
    assert [one.call(Q, "get") for _ in range(2)] == ["a", "b"]


@pytest.mark.parametrize("waits", [False, True])
def test_the_claims_of_the_dead_come_back_in_order(waits: bool) -> None:
    """All that a process had claimed is at the front again, or with those who wait; the end of a thread is no death."""
    room = driver()
    one, two = room.client(), room.client()
    for item in "abcd":
        one.call(Q, "put", item)
    for owner in (1, 2, 3):
        two.call(Q, "claim", owner=owner)
    two.end_owner(2)
    assert one.call(Q, "get") == "d"
    waiting = [one.send(Q, "claim" if owner == 1 else "get", owner=owner) for owner in (1, 2)] if waits else []
    two.end()
    if waits:
        assert waiting[0].result()[1] == "a" and waiting[1].result() == "b"
        assert one.call(Q, "get") == "c"
    else:
        assert [one.call(Q, "get") for _ in range(3)] == ["a", "b", "c"]


@pytest.mark.parametrize("end", ["cancel", "die"])
def test_an_unheard_claim_comes_back(end: str) -> None:
    """A claim that could not be delivered is undone; one that was settled since is not."""
    room = driver()
    one, two = room.client(), room.client()
    one.call(Q, "put", "a")
    two.deaf = True
    unheard = two.send(Q, "claim")
    number = unheard.result()[0]
    if end == "cancel":
        unheard.cancel()
        assert unheard.result() is CANCELLED
    else:
        two.end()
    assert not room.instance(Q).holds(number)
    settled = one.send(Q, "claim")
    one.call(Q, "settle", settled.result()[0])
    assert one.call(Q, "empty") is True and one.call(Q, "qsize") == 0


class Jobs(RuleBasedStateMachine):
    """Three processes that claim, against a list of jobs: each is done once, and none is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.room = driver()
        self.clients = [self.room.client() for _ in range(3)]
        self.items: list[int] = []
        self.claims: dict[int, tuple[int, int]] = {}  # by number: who and what
        self.line: list[tuple[Ticket, int, float | None]] = []
        self.count = 0
        self.done: list[int] = []

    def begin(self, ticket: Ticket, client: int, item: int) -> None:
        number, given = ticket.result()
        assert given == item
        self.claims[number] = (client, item)

    def give_back(self, numbers: list[int]) -> None:
        items = [self.claims.pop(number)[1] for number in numbers]
        while items and self.line:
            ticket, client, _ = self.line.pop(0)
            self.begin(ticket, client, items.pop(0))
        self.items[:0] = items

    @rule()
    def put(self) -> None:
        self.count += 1
        self.clients[0].call(Q, "put", self.count, owner=9)
        if self.line:
            ticket, client, _ = self.line.pop(0)
            self.begin(ticket, client, self.count)
        else:
            self.items.append(self.count)

    @rule(client=st.integers(0, 2), timeout=st.sampled_from([None, 1.0]))
    def claim(self, client: int, timeout: float | None) -> None:
        ticket = self.clients[client].send(Q, "claim", timeout=timeout)
        if self.items:
            self.begin(ticket, client, self.items.pop(0))
        else:
            self.line.append((ticket, client, None if timeout is None else self.room.now + timeout))

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), done=st.booleans())
    def settle(self, data: st.DataObject, done: bool) -> None:
        number = data.draw(st.sampled_from(list(self.claims)))
        client, item = self.claims[number]
        self.clients[client].call(Q, "settle", number, done)
        if done:
            del self.claims[number]
            self.done.append(item)
        else:
            self.give_back([number])

    @rule()
    def pass_time(self) -> None:
        self.room.advance(0.5)
        for entry in [entry for entry in self.line if entry[2] is not None and entry[2] <= self.room.now]:
            assert entry[0].outcome() is queue.Empty
            self.line.remove(entry)

    @rule(client=st.integers(0, 2))
    def die(self, client: int) -> None:
        self.line = [entry for entry in self.line if entry[1] != client]
        self.clients[client].end()
        self.clients[client] = self.room.client()
        self.give_back([number for number, claim in self.claims.items() if claim[0] == client])

    @invariant()
    def agree(self) -> None:
        assert all(entry[0].waits for entry in self.line)
        claimed = [item for _, item in self.claims.values()]
        assert sorted([*self.items, *claimed, *self.done]) == list(range(1, self.count + 1))
        told: Any = self.room.statistics(Q)
        assert told["items"] == len(self.items) and told["getters"] == len(self.line)
        assert [row["token"] for row in told["holders"]] == list(self.claims)


TestJobs = Jobs.TestCase
TestJobs.settings = settings(max_examples=60, stateful_step_count=30)


# -- the whole


def test_statistics() -> None:
    """Statistics count items and those who wait."""
    room = driver(maxsize=1)
    client = room.client()

    def told() -> list[object]:
        return [room.statistics(Q)[key] for key in ("items", "getters", "putters")]

    client.send(Q, "get")
    assert told() == [0, 1, 0]
    for item in range(3):
        client.send(Q, "put", item)
    assert told() == [1, 0, 1]


class Traffic(RuleBasedStateMachine):
    """A queue of two places and one without bounds, used by three processes, against a list."""

    maxsize = 2

    def __init__(self) -> None:
        super().__init__()
        self.room = driver(self.maxsize)
        self.clients = [self.room.client() for _ in range(3)]
        self.items: list[int] = []
        self.getters: list[tuple[Ticket, int, float | None]] = []
        self.putters: list[tuple[Ticket, int, float | None, list[int]]] = []
        self.wanted: dict[Ticket, int] = {}
        self.taken: list[tuple[Ticket, int, Any]] = []  # tickets, clients, items: what may still be taken back
        self.count = 0

    def full(self) -> bool:
        return 0 < self.maxsize <= len(self.items)

    def deadline(self, timeout: float | None) -> float | None:
        return None if timeout is None else self.room.now + timeout

    def fits(self, count: int) -> bool:
        return self.maxsize <= 0 or len(self.items) + count <= self.maxsize

    def hand(self, items: list[int], where: int) -> None:
        """Put items at a place of the list, and give what is there to those who wait."""
        self.items[where:where] = items
        while self.items and self.getters:
            ticket, client, _ = self.getters.pop(0)
            n = self.wanted.get(ticket)
            got: Any = self.items[: n or 1]
            del self.items[: n or 1]
            got = got if n else got[0]
            assert ticket.result() == got
            self.taken.append((ticket, client, got))

    def let_put(self) -> None:
        while self.putters and self.fits(len(self.putters[0][3])):
            put, _, _, offered = self.putters.pop(0)
            assert put.result() is None
            self.hand(offered, len(self.items))

    @rule(
        client=st.integers(0, 2),
        block=st.booleans(),
        timeout=st.sampled_from([None, 0, 1.0, 2.5]),
        n=st.booleans(),
    )
    def put(self, client: int, block: bool, timeout: float | None, n: bool) -> None:
        self.count += 1
        item = self.count
        if n:
            block = False
            ticket = self.clients[client].send(Q, "put_nowait", item)
        else:
            ticket = self.clients[client].send(Q, "put", item, block, timeout)
        self.expect_put(ticket, client, block, timeout, [item])

    def expect_put(self, ticket: Ticket, client: int, block: bool, timeout: float | None, items: list[int]) -> None:
        if not self.putters and self.fits(len(items)):
            self.hand(items, len(self.items))
            assert ticket.result() is None
        elif not block or timeout == 0:
            assert ticket.outcome() is queue.Full
        else:
            self.putters.append((ticket, client, self.deadline(timeout), items))

    @rule(
        client=st.integers(0, 2),
        block=st.booleans(),
        timeout=st.sampled_from([None, 0, 1.0, 2.5]),
        count=st.integers(0, 3),
    )
    def put_many(self, client: int, block: bool, timeout: float | None, count: int) -> None:
        items = [self.count + n + 1 for n in range(count)]
        self.count += count
        ticket = self.clients[client].send(Q, "put_many", items, block, timeout)
        if 0 < self.maxsize < count:
            assert ticket.outcome() is ValueError
        elif not count:
            assert ticket.result() is None
        else:
            self.expect_put(ticket, client, block, timeout, items)

    @rule(
        client=st.integers(0, 2),
        n=st.integers(1, 3),
        block=st.booleans(),
        timeout=st.sampled_from([None, 0, 1.0, 2.5]),
    )
    def get_many(self, client: int, n: int, block: bool, timeout: float | None) -> None:
        ticket = self.clients[client].send(Q, "get_many", n, block, timeout)
        if self.items:
            got = self.items[:n]
            del self.items[:n]
            assert ticket.result() == got
            self.taken.append((ticket, client, got))
            self.let_put()
        elif not block or timeout == 0:
            assert ticket.outcome() is queue.Empty
        else:
            self.wanted[ticket] = n
            self.getters.append((ticket, client, self.deadline(timeout)))

    @rule(client=st.integers(0, 2), block=st.booleans(), timeout=st.sampled_from([None, 0, 1.0, 2.5]))
    def get(self, client: int, block: bool, timeout: float | None) -> None:
        ticket = self.clients[client].send(Q, "get", block, timeout)
        if self.items:
            item = self.items.pop(0)
            assert ticket.result() == item
            self.taken.append((ticket, client, item))
            self.let_put()
        elif not block or timeout == 0:
            assert ticket.outcome() is queue.Empty
        else:
            self.getters.append((ticket, client, self.deadline(timeout)))

    @precondition(lambda self: self.getters or self.putters)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        line: list[Any] = data.draw(st.sampled_from([line for line in (self.getters, self.putters) if line]))
        entry = data.draw(st.sampled_from(line))
        entry[0].cancel()
        line.remove(entry)
        assert entry[0].result() is CANCELLED
        self.let_put()

    @rule(client=st.integers(0, 2), deaf=st.booleans())
    def listen(self, client: int, deaf: bool) -> None:
        """A client that is deaf hears no reply, so that what it got may come back."""
        self.clients[client].deaf = deaf

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.taken))
        self.taken.remove(entry)
        session = self.room.engine.sessions[self.clients[entry[1]].number]
        if session.is_stale(entry[0].event.seq):
            return
        entry[0].cancel()
        assert entry[0].result() is CANCELLED
        self.hand(entry[2] if type(entry[2]) is list else [entry[2]], 0)

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0]))
    def wait(self, seconds: float) -> None:
        self.room.advance(seconds)
        for getter in [entry for entry in self.getters if entry[2] is not None and entry[2] <= self.room.now]:
            self.getters.remove(getter)
            assert getter[0].outcome() is queue.Empty
        late = [entry for entry in self.putters if entry[2] is not None and entry[2] <= self.room.now]
        for putter in sorted(late, key=lambda entry: entry[2]):
            if putter in self.putters:  # else one that gave up before it has made room in the line
                self.putters.remove(putter)
                assert putter[0].outcome() is queue.Full
                self.let_put()

    @rule(client=st.integers(0, 2))
    def die(self, client: int) -> None:
        dead = self.clients[client]
        self.getters = [entry for entry in self.getters if entry[1] != client]
        self.putters = [entry for entry in self.putters if entry[1] != client]
        session = self.room.engine.sessions.get(dead.number)
        lost = [
            entry
            for entry in self.taken
            if entry[1] == client
            and session is not None
            and not dead.heard(entry[0].event.seq)
            and not session.is_stale(entry[0].event.seq)
        ]
        dead.end()
        self.taken = [entry for entry in self.taken if entry[1] != client]
        self.let_put()
        for _, _, item in sorted(lost, key=lambda entry: entry[0].event.seq, reverse=True):
            self.hand(item if type(item) is list else [item], 0)
        self.clients[client] = self.room.client()

    @invariant()
    def agree(self) -> None:
        assert all(entry[0].waits for entry in (*self.getters, *self.putters))
        told = self.room.statistics(Q)
        counts = [told[key] for key in ("items", "getters", "putters")]
        assert counts == [len(self.items), len(self.getters), len(self.putters)]
        assert not (self.items and self.getters)
        assert not (self.putters and self.fits(len(self.putters[0][3])))
        assert [item.scalar() for item in self.room.instance(Q)._items] == self.items


class UnboundedTraffic(Traffic):
    maxsize = 0


BUDGET = settings(max_examples=60, stateful_step_count=30)
TestBounded = Traffic.TestCase
TestBounded.settings = BUDGET
TestUnbounded = UnboundedTraffic.TestCase
TestUnbounded.settings = BUDGET
