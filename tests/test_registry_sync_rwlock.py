"""The rwlock: many readers or one writer, one line for both, and a mark that only a dead writer leaves."""

from __future__ import annotations

from typing import Any

import pytest
from engine_driver import CANCELLED, WAITING, Client, Driver, Ticket, labels
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from registry import Grant
from registry.errors import Deadlock, NotOwner
from registry_sync import RWLOCK

T = "rwlock:t"


def clients(count: int) -> tuple[Driver, list[Client]]:
    room = Driver(RWLOCK, twin=True)
    return room, [room.client(name) for name in "abcdefgh"[:count]]


def test_declaration() -> None:
    """Both sides wait and give grants, and one method releases them."""
    assert RWLOCK.interface.exposed == ("locked", "read", "release", "write")
    assert RWLOCK.interface.waiting == ("read", "write")
    assert RWLOCK.interface.shape == "rwlock"


def test_readers_share_and_writers_do_not() -> None:
    """Readers come in together, with numbers of their own; a writer waits for all of them."""
    room, (a, b, c) = clients(3)
    grants = [a.call(T, "read"), b.call(T, "read")]
    assert grants[0].number < grants[1].number
    writing = c.send(T, "write")
    a.call(T, "release")
    assert writing.waits
    b.call(T, "release")
    assert writing.result().holder == "c"
    assert not a.call(T, "read", False) and not a.call(T, "write", timeout=0)
    assert a.call(T, "read", False).holder == "c"
    c.call(T, "release")
    assert room.instance(T).vacant()


def test_no_writer_starves() -> None:
    """A reader that comes after a waiting writer waits behind it, and readers next to each other go together."""
    _, (a, b, c, d, e) = clients(5)
    a.call(T, "read")
    lined = [b.send(T, "write"), c.send(T, "read"), d.send(T, "read"), e.send(T, "write")]
    assert all(ticket.waits for ticket in lined)
    a.call(T, "release")
    assert [ticket.waits for ticket in lined] == [False, True, True, True]
    b.call(T, "release")
    assert [ticket.waits for ticket in lined] == [False, False, False, True]
    c.call(T, "release")
    d.call(T, "release")
    assert lined[3].result()


@pytest.mark.parametrize("end", ["cancel", "timeout", "death", "thread"])
def test_who_waited_behind_a_writer_that_gave_up_goes_on(end: str) -> None:
    """Readers behind a writer that no longer waits are let in at once."""
    room, (a, b, c) = clients(3)
    a.call(T, "read")
    writing = b.send(T, "write", timeout=5.0)
    reading = c.send(T, "read")
    assert reading.waits
    if end == "cancel":
        writing.cancel()
    elif end == "timeout":
        room.advance(5.0)
        assert not writing.result() and writing.result().holder == "a"
    elif end == "death":
        b.end()
    else:
        b.end_owner(1)
    assert reading.result()


def test_levels() -> None:
    """A holder takes more levels without waiting, also behind a waiting writer; each kind has one number."""
    room, (a, b) = clients(2)
    first = a.call(T, "read")
    writing = b.send(T, "write")
    assert a.call(T, "read") == first
    assert a.send(T, "read", owner=2).waits  # another thread is another owner
    a.call(T, "release")
    assert writing.waits
    a.call(T, "release")
    grant = writing.result()
    assert b.call(T, "write") == grant
    reading = b.call(T, "read")
    assert reading.number > grant.number
    told = room.statistics(T)["holders"]
    assert [(row["mode"], row["token"]) for row in told] == [("write", grant.number), ("read", reading.number)]


def test_a_writer_becomes_a_reader() -> None:
    """A writer that keeps `read` lets readers in, and nobody in between."""
    _, (a, b, c) = clients(3)
    writing = a.call(T, "write")
    a.call(T, "read")
    reader, writer = b.send(T, "read"), c.send(T, "write")
    a.call(T, "release", writing.number)
    assert reader.result() and writer.waits
    a.call(T, "release")
    b.call(T, "release")
    assert writer.result()


def test_a_reader_becomes_the_writer() -> None:
    """It waits for the other readers only, before everybody else; new readers wait for it."""
    _, (a, b, c, d) = clients(4)
    a.call(T, "read")
    b.call(T, "read")
    earlier = c.send(T, "write")
    upgrade = a.send(T, "write")
    late = d.send(T, "read")
    assert upgrade.waits and late.waits
    b.call(T, "release")
    assert upgrade.result() and earlier.waits
    a.call(T, "release")
    assert earlier.waits and late.waits  # `a` reads still
    a.call(T, "release")
    assert earlier.result() and late.waits


def test_a_second_upgrade_is_a_deadlock() -> None:
    """Two readers that both want to write would wait for each other: the second is told so at once, and who it is."""
    _, (a, b) = clients(2)
    a.call(T, "read")
    b.call(T, "read")
    upgrade = a.send(T, "write")
    assert not b.call(T, "write", False)
    with pytest.raises(Deadlock, match=r"^deadlock: a reads rwlock:t too and waits to write"):
        b.call(T, "write")
    b.call(T, "release")
    assert upgrade.result()


def test_a_writer_does_not_wait_for_itself() -> None:
    """A thread waits to read and a signal handler in it to write: once it reads, it waits for the others only."""
    _, (a, b, c) = clients(3)
    a.call(T, "write")
    reading, other, writing = b.send(T, "read"), c.send(T, "read"), b.send(T, "write")
    a.call(T, "release")
    assert reading.result() and other.result() and writing.waits
    c.call(T, "release")
    assert writing.result()


def test_release_is_for_holders() -> None:
    """Another process, another thread without the grant, and a grant given back are refused."""
    _, (a, b) = clients(2)
    grant = a.call(T, "read")
    for refused in (
        lambda: b.call(T, "release"),
        lambda: b.call(T, "release", grant.number),
        lambda: a.call(T, "release", owner=2),
    ):
        with pytest.raises(NotOwner) as caught:
            refused()
        assert caught.value.holder == "a"
    a.call(T, "release", grant.number, owner=2)
    with pytest.raises(NotOwner, match="nobody holds it"):
        a.call(T, "release", grant.number)


def test_a_dead_writer_is_told_until_a_writer_has_released() -> None:
    """Readers and writers are told; readers do not clear the mark, and a grant that nobody heard of does not."""
    room, (a, b, c, d) = clients(4)
    a.call(T, "write")
    a.end()
    grant = b.call(T, "read")
    assert (grant.abandoned, grant.holder) == (True, "a")
    b.call(T, "release")
    c.deaf = True
    unheard = c.send(T, "write")
    assert unheard.result().abandoned
    unheard.cancel()
    assert room.statistics(T)["abandoned"] is True
    assert not room.instance(T).vacant()
    grant = d.call(T, "write")
    assert (grant.abandoned, grant.holder) == (True, "a")
    d.call(T, "release")
    assert b.call(T, "read").abandoned is False


def test_a_dead_reader_marks_nothing() -> None:
    """The next grant is as any other."""
    _, (a, b) = clients(2)
    a.call(T, "read")
    writing = b.send(T, "write")
    a.end()
    assert writing.result().abandoned is False


def test_holds() -> None:
    """The grants of all holders are valid, and no others."""
    room, (a, b) = clients(2)
    numbers = [a.call(T, "read").number, b.call(T, "read").number]
    table = room.instance(T)
    assert all(map(table.holds, numbers)) and not table.holds(max(numbers) + 1)
    a.call(T, "release")
    assert [table.holds(number) for number in numbers] == [False, True]


class Table(RuleBasedStateMachine):
    """An rwlock, called by three processes of two threads each, against a model that is a list of levels."""

    def __init__(self) -> None:
        super().__init__()
        self.room, self.clients = clients(3)
        self.held: dict[tuple[int, int], list[str]] = {}  # by (client, thread): its levels
        self.mark = False
        # Those who wait: ticket, (client, thread), mode, deadline. An upgrade stands before all others.
        self.line: list[tuple[Ticket, tuple[int, int], str, float | None]] = []

    def writer(self) -> tuple[int, int] | None:
        return next((who for who, levels in self.held.items() if "write" in levels), None)

    def upgrading(self) -> bool:
        return any(who in self.held for _, who, _, _ in self.line)

    def may_enter(self, who: tuple[int, int], mode: str) -> bool:
        others = [other for other in self.held if other != who]
        return not others if mode == "write" else self.writer() in (None, who)

    def give(self, ticket: Ticket, who: tuple[int, int], mode: str) -> None:
        grant = ticket.result()
        assert isinstance(grant, Grant) and grant and grant.abandoned == self.mark
        self.held.setdefault(who, []).append(mode)

    def let_in(self) -> None:
        while self.line:
            upgrades = [entry for entry in self.line if entry[1] in self.held]
            entry = (upgrades or self.line)[0]
            if not self.may_enter(entry[1], entry[2]):
                break
            self.line.remove(entry)
            self.give(entry[0], entry[1], entry[2])

    def is_busy(self, who: tuple[int, int]) -> bool:
        return any(entry[1] == who for entry in self.line)

    @rule(
        client=st.integers(0, 2),
        owner=st.integers(1, 2),
        mode=st.sampled_from(["read", "write"]),
        timeout=st.sampled_from([None, 0, 1.0]),
    )
    def acquire(self, client: int, owner: int, mode: str, timeout: float | None) -> None:
        who = (client, owner)
        if self.is_busy(who):
            return
        ticket = self.clients[client].send(T, mode, timeout=timeout, owner=owner)
        if self.may_enter(who, mode) and (who in self.held or not self.line):
            self.give(ticket, who, mode)
        elif timeout == 0:
            assert not ticket.result()
        elif mode == "write" and who in self.held and self.upgrading():
            assert ticket.outcome() is Deadlock
        else:
            assert ticket.waits
            self.line.append((ticket, who, mode, None if timeout is None else self.room.now + timeout))

    @rule(client=st.integers(0, 2), owner=st.integers(1, 2))
    def release(self, client: int, owner: int) -> None:
        who = (client, owner)
        if self.is_busy(who):
            return
        ticket = self.clients[client].send(T, "release", owner=owner)
        if who not in self.held:
            assert ticket.outcome() is NotOwner
            return
        assert ticket.result() is None
        levels = self.held[who]
        was_writer = "write" in levels
        levels.pop()
        if was_writer and "write" not in levels:
            self.mark = False
        if not levels:
            del self.held[who]
        self.let_in()

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.line))
        self.line.remove(entry)
        entry[0].cancel()
        assert entry[0].result() is CANCELLED
        self.let_in()

    @rule(seconds=st.sampled_from([0.5, 2.0]))
    def wait(self, seconds: float) -> None:
        self.room.advance(seconds)
        late = [entry for entry in self.line if entry[3] is not None and entry[3] <= self.room.now]
        for entry in sorted(late, key=lambda entry: entry[3] or 0.0):
            if entry in self.line:  # else it was let in when an earlier one gave up
                self.line.remove(entry)
                assert not entry[0].result()
                self.let_in()

    @rule(client=st.integers(0, 2))
    def die(self, client: int) -> None:
        self.clients[client].end()
        self.clients[client] = self.room.client("abc"[client])
        self.forget(lambda who: who[0] == client)

    @rule(client=st.integers(0, 2), owner=st.integers(1, 2))
    def end_thread(self, client: int, owner: int) -> None:
        self.clients[client].end_owner(owner)
        self.forget(lambda who: who == (client, owner))

    def forget(self, is_dead: Any) -> None:
        self.line = [entry for entry in self.line if not is_dead(entry[1])]
        # Who waited behind may come in before the dead one's own grants go, and is then not told.
        self.let_in()
        writer = self.writer()
        if writer is not None and is_dead(writer):
            self.mark = True
        self.held = {who: levels for who, levels in self.held.items() if not is_dead(who)}
        self.let_in()

    @invariant()
    def agree(self) -> None:
        assert all(entry[0].result() is WAITING for entry in self.line)
        assert self.writer() is None or len(self.held) == 1
        if self.room.engine.find("rwlock", "t") is None:
            return
        told = self.room.statistics(T)
        assert sorted(row["mode"] for row in told["waiters"]) == sorted(entry[2] for entry in self.line)
        assert told["abandoned"] == self.mark
        assert set(labels(told["holders"])) == {"abc"[client] for client, _ in self.held}
        assert self.room.instance(T).vacant() == (not self.held and not self.mark)


TestTable = Table.TestCase
TestTable.settings = settings(max_examples=80, stateful_step_count=30)
