"""A lock is given back without a wait for the reply where nothing can be learned from it; nothing is lost by that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from servers import KEY, another, running, until

from registry import ManagerClient, ManagerServer, connect
from registry._pending import Mark
from registry.errors import LockLost, NotOwner


@pytest.fixture
def server() -> Iterator[ManagerServer]:
    with ManagerServer("here", KEY) as server:
        yield server


@pytest.fixture
def shared(server: ManagerServer) -> Iterator[ManagerClient]:
    with another("here") as shared:
        yield shared


class Counted:
    """Count what goes over the connection of a client."""

    def __init__(self, client: ManagerClient, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent = self.read = 0
        transport: Any = client._home.link()._transport
        send, receive = transport.send, transport.receive

        def sending(data: bytes) -> None:
            self.sent += 1
            send(data)

        def receiving(deadline: float | None) -> bytes:
            self.read += 1
            data: bytes = receive(deadline)
            return data

        monkeypatch.setattr(transport, "send", sending)
        monkeypatch.setattr(transport, "receive", receiving)


def block(lock: Any) -> None:
    with lock:
        pass


def by_grant(lock: Any) -> None:
    lock.acquire().release()


def by_name(lock: Any) -> None:
    lock.acquire()
    lock.release()


WAYS = pytest.mark.parametrize("way", [block, by_grant, by_name])


@WAYS
@pytest.mark.parametrize("typeid", ["lock", "rlock"])
def test_one_reply_for_a_pair(shared: ManagerClient, monkeypatch: pytest.MonkeyPatch, typeid: str, way: Any) -> None:
    """To take a lock and give it back is two writes and one read; and others can have it."""
    lock = shared.open(typeid, "l")
    way(lock)
    counted = Counted(shared, monkeypatch)
    for _ in range(50):
        way(lock)
    assert counted.sent == 100
    assert counted.read <= 100  # the reply to the release may come by itself, before the next
    with another("here") as other:
        assert other.open(typeid, "l").acquire(timeout=20)
        assert not lock.acquire(blocking=False)
    link = shared._home.link()
    assert len(link._pending) <= 1 and not any(link.given.values())


def test_what_this_process_calls_next_comes_after_it(shared: ManagerClient) -> None:
    """Its threads, and other proxies of the same lock, find it free."""
    lock, same = shared.lock("l"), shared.lock("l")
    for _ in range(200):
        with lock:
            pass
        grant = same.acquire(blocking=False)
        assert grant
        grants: list[Any] = []
        same.release()
        with running(lambda: grants.append(lock.acquire(blocking=False))):  # noqa: B023 - it has run by the next turn
            pass
        assert grants[0]
        lock.release()


@pytest.mark.parametrize("typeid", ["lock", "rlock"])
def test_what_is_not_held_is_refused_at_once(shared: ManagerClient, typeid: str) -> None:
    """Whether it was never taken or has been given back, in whatever way; and nobody else loses it by that."""
    lock = shared.open(typeid, "l")
    with pytest.raises(NotOwner):
        lock.release()
    for way in (block, by_grant, by_name):
        way(lock)
        with pytest.raises(NotOwner):
            lock.release()
    grant = lock.acquire()
    grant.release()
    with another("here") as other:
        theirs = other.open(typeid, "l").acquire(timeout=20)
        for release in (grant.release, lock.release):
            with pytest.raises(NotOwner):
                release()
        theirs.release()


def test_every_level_goes_back(shared: ManagerClient) -> None:
    """An `rlock` that was taken three times is free once it was given back three times, in whatever ways."""
    lock = shared.rlock("r")
    with another("here") as other:
        theirs = other.rlock("r")
        with lock:
            grant = lock.acquire()
            lock.acquire()
            lock.release()
            grant.release()
            assert not theirs.acquire(blocking=False)
        assert theirs.acquire(timeout=20)
        with pytest.raises(NotOwner):
            lock.release()


@WAYS
def test_a_loss_that_was_told_is_raised_where_the_lock_is_given_back(shared: ManagerClient, way: Any) -> None:
    """The server says so the moment a grant is taken away; whoever gives it back then looks, and waits."""
    lock = shared.lock("l")
    with another("here") as admin:
        grant = lock.acquire()
        number = grant.number

        def take_away() -> None:
            admin._home.link()  # the session of an operator
            assert admin.lock("l")._call("#release", number)

        if way is block:
            with pytest.raises(LockLost, match="released by force"), grant:
                take_away()
        else:
            take_away()
            with pytest.raises(LockLost, match="released by force"):
                grant.release() if way is by_grant else lock.release()
        assert shared.counter("c").incr() == 1  # it was told


def test_what_is_lost_when_it_has_been_given_back_is_told_nobody(
    shared: ManagerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss that happens while the release is on its way: all that relied on the grant had been done."""
    lock = shared.lock("l")
    grant = lock.acquire()
    with another("here") as admin:
        assert admin.lock("l")._call("#release", grant.number)
        transport = shared._home.link()._transport
        monkeypatch.setattr(transport, "is_quiet", lambda: True)  # it had looked before
        grant.release()
        assert [shared.counter("c").incr() for _ in range(3)] == [1, 2, 3]


def test_a_session_on_a_lease_waits(home: object) -> None:
    """Over TCP a release tells whether the lock had been lost, so its reply is awaited."""
    with ManagerServer(("127.0.0.1", 0), KEY) as server, connect(server.url, KEY) as shared:
        lock, link = shared.lock("l"), shared._home.link()
        for way in (block, by_grant, by_name):
            way(lock)
            assert len(link._pending) == 0


def test_a_release_that_is_cut_off_is_made_again(server: ManagerServer, shared: ManagerClient) -> None:
    """It stays in the row until its reply is there, so that the next connection begins with it."""
    lock, link = shared.lock("l"), shared._home.link()
    transport: Any = link._transport
    grant = lock.acquire()
    send = transport.send
    transport.send = lambda data: None  # it is written, and never arrives
    grant.release()
    transport.send = send
    link._break(transport)
    assert shared.counter("c").incr() == 1
    with another("here") as other:
        until(lambda ask: not ask.lock("l").locked(), other)


def test_what_another_thread_has_given_back_is_refused_at_once(shared: ManagerClient) -> None:
    """Its grant says so itself, not the next call of somebody else."""
    lock = shared.lock("l")
    grant = lock.acquire()
    with running(lock.release):
        pass
    with pytest.raises(NotOwner):
        grant.release()
    assert shared.counter("c").incr() == 1


def test_a_grant_that_another_thread_gives_back_in_that_moment_is_no_longer_here(shared: ManagerClient) -> None:
    """Of two that look for one grant in the record of this process one has it, and the other is told so."""
    link = shared._home.link()
    rows: list[tuple[int, int]] = []

    class Number(int):
        def __ne__(self, other: object) -> bool:
            rows.clear()  # as another thread does between the look and what follows
            return False

    rows.append((Number(7), 1))
    link.given["lock", "l"] = rows
    assert link.gave_back(Mark("lock", "l", 7)) is False
    rows.append((8, 1))
    assert [link.gave_back(Mark("lock", "l", number)) for number in (7, 8, 8)] == [False, True, False]
