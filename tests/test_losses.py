"""Who holds what, told alike by the whole family; grants that are taken by force or go with their object."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from engine_driver import START, WAITING, Driver, labels
from servers import another, running

from registry import ManagerClient, ManagerServer
from registry._wire import DELETE, RELEASE
from registry.errors import LockLost, NoSuchObject, NotOwner
from registry_containers import DICT
from registry_queues import QUEUE
from registry_sync import registry_shared_objects

# Everything that can be held: how it is made and taken, so that a second one who takes it waits; how it is given back;
# and whether its owner is the process.
HELD: dict[str, tuple[tuple[Any, ...], str, str, bool]] = {
    "lock": ((), "acquire", "release", True),
    "rlock": ((), "acquire", "release", False),
    "condition": ((), "acquire", "release", False),
    "rwlock": ((), "write", "release", False),
    "semaphore": ((1,), "acquire", "release", True),
    "bounded_semaphore": ((1,), "acquire", "release", True),
    "queue": ((), "claim", "settle", True),
}
# What is only waited for.
AWAITED: dict[str, tuple[tuple[Any, ...], str]] = {
    "event": ((), "wait"),
    "barrier": ((9,), "wait"),
    "latch": ((1,), "wait"),
}
WHO = {"host", "pid", "command", "thread", "label"}

held = pytest.mark.parametrize("typeid", HELD)


def room(typeid: str, twin: bool = True) -> Driver:
    driver = Driver(*registry_shared_objects(), QUEUE, DICT, twin=twin)
    arguments = HELD[typeid][0] if typeid in HELD else AWAITED[typeid][0]
    driver.client("maker").create(f"{typeid}:x", *arguments)
    if typeid == "queue":
        driver.client("maker").call("queue:x", "put", "item")
    return driver


def take(client: Any, typeid: str, **options: Any) -> Any:
    return client.send(f"{typeid}:x", HELD[typeid][1], **options)


def number_of(ticket: Any) -> int:
    result = ticket.result()
    return int(result[0] if isinstance(result, list) else result.number)


def give_back(client: Any, typeid: str, number: int) -> Any:
    before = (1,) if "semaphore" in typeid else ()
    return client.call(f"{typeid}:x", HELD[typeid][2], *before, number)


# -- statistics


@pytest.mark.parametrize("typeid", [*HELD, *AWAITED])
def test_statistics_have_the_same_keys_everywhere(typeid: str) -> None:
    """Who holds, since when and by which grant; who waits, since when and how long: the same rows for all."""
    driver = room(typeid)
    one, two, three = driver.client("one"), driver.client("two"), driver.client("three")
    told: Any = driver.statistics(f"{typeid}:x")
    assert (told["holder"], told["holders"], told["waiters"]) == (None, [], [])
    number = number_of(take(one, typeid)) if typeid in HELD else None
    driver.advance(2.0)
    for client, timeout in ((two, None), (three, 5.0)):
        verb = HELD[typeid][1] if typeid in HELD else AWAITED[typeid][1]
        client.send(f"{typeid}:x", verb, timeout=timeout)
    told = driver.statistics(f"{typeid}:x")
    if number is None:
        assert (told["holder"], told["holders"]) == (None, [])
    else:
        assert told["holder"] == told["holders"][0] and labels(told["holders"]) == ["one"]
        assert {*told["holder"]} >= {*WHO, "since", "token"}
        assert (told["holder"]["since"], told["holder"]["token"]) == (START, number)
    assert all({*row} >= {*WHO, "since", "deadline"} for row in told["waiters"])
    assert [(row["label"], row["since"], row["deadline"]) for row in told["waiters"]] == [
        ("two", START + 2.0, None),
        ("three", START + 2.0, START + 7.0),
    ]


def test_a_turn_to_edit_is_told_too() -> None:
    """It names the key; having no grant, it cannot be taken by force."""
    driver = Driver(DICT)
    one, two = driver.client("one"), driver.client("two")
    one.call("dict:d", "__setitem__", "k", [1])
    one.call("dict:d", "edit", "k")
    two.send("dict:d", "edit", "k")
    told: Any = driver.statistics("dict:d")
    assert labels(told["holders"]) == ["one"] and labels(told["waiters"]) == ["two"]
    assert (told["holder"]["token"], told["holder"]["key"]) == (None, "'k'")
    assert two.call("dict:d", RELEASE, 0, owner=2) is False


# -- taken by force


@held
def test_a_grant_is_taken_by_force(typeid: str) -> None:
    """The next has it in the same step, and the former holder hears it once, at its next call, whatever that is."""
    driver = room(typeid)
    one, two, admin = driver.client("one"), driver.client("two"), driver.client("admin")
    number = number_of(take(one, typeid))
    waiting = take(two, typeid)
    assert admin.call(f"{typeid}:x", RELEASE, number) is True
    assert not driver.instance(f"{typeid}:x").holds(number)
    granted = waiting.result()
    if typeid in ("lock", "rlock", "condition", "rwlock"):
        assert (granted.abandoned, granted.holder) == (True, "one")
    with pytest.raises(LockLost, match=f"^{typeid}:x is no longer held here: it was released by force, by admin"):
        one.call("event:other", "set")
    one.call("event:other", "set")
    assert labels(driver.statistics(f"{typeid}:x")["holders"]) == ["two"]


@held
def test_giving_back_what_was_taken(typeid: str) -> None:
    """A release by the lost grant says `LockLost`, never `NotOwner`, however late, and then nothing more is owed."""
    driver = room(typeid)
    one, admin = driver.client("one"), driver.client("admin")
    number = number_of(take(one, typeid))
    assert admin.call(f"{typeid}:x", RELEASE, number) is True
    for _ in range(2):
        with pytest.raises(LockLost, match="by force"):
            give_back(one, typeid, number)
        one.call("event:other", "set")


@pytest.mark.parametrize("typeid", ["lock", "rlock", "condition", "rwlock", "semaphore", "bounded_semaphore"])
def test_a_release_without_a_number(typeid: str) -> None:
    """It says once that the grant was taken; what the process has else is given back by the next."""
    driver = room(typeid)
    one, admin = driver.client("one"), driver.client("admin")
    number = number_of(take(one, typeid))
    admin.call(f"{typeid}:x", RELEASE, number)
    with pytest.raises(LockLost):
        one.call(f"{typeid}:x", "release")
    assert take(one, typeid).result()
    one.call(f"{typeid}:x", "release")
    if typeid == "semaphore":
        assert one.call(f"{typeid}:x", "value") == 1
    else:
        with pytest.raises(NotOwner):
            one.call(f"{typeid}:x", "release")


@held
def test_force_has_no_effect_where_nobody_holds(typeid: str) -> None:
    """Neither a number that is not out, nor one that was given back, nor none at all takes anything away."""
    driver = room(typeid)
    one, admin = driver.client("one"), driver.client("admin")
    number = number_of(take(one, typeid))
    admin.call("event:other", "clear")
    for wrong in (0, number + 1, number - 1):
        assert admin.call(f"{typeid}:x", RELEASE, wrong) is False
    assert driver.instance(f"{typeid}:x").holds(number)
    give_back(one, typeid, number)
    assert admin.call(f"{typeid}:x", RELEASE, number) is False
    one.call("event:other", "clear")


def test_one_of_several_is_taken() -> None:
    """Of permits and readers only the one of the number goes; the others stay, of the same process, too."""
    driver = Driver(*registry_shared_objects(), twin=True)
    one, admin = driver.client("one"), driver.client("admin")
    one.create("semaphore:s", 2)
    first, second = (one.call("semaphore:s", "acquire").number for _ in range(2))
    admin.call("semaphore:s", RELEASE, first)
    give = driver.instance("semaphore:s")
    assert not give.holds(first) and give.holds(second)
    one.call("semaphore:s", "release", 1, second)  # what is given back is not refused for the other
    assert admin.call("semaphore:s", "value") == 2
    with pytest.raises(LockLost):
        one.call("semaphore:s", "acquire")
    reading = one.call("rwlock:t", "read").number
    other = admin.call("rwlock:t", "read").number
    admin.call("rwlock:t", RELEASE, reading)
    assert driver.instance("rwlock:t").holds(other) and not driver.instance("rwlock:t").holds(reading)
    assert driver.statistics("rwlock:t")["abandoned"] is False


def test_only_the_owner_is_told() -> None:
    """Of an rlock that is its thread; of a lock whichever thread of the process calls next."""
    driver = Driver(*registry_shared_objects(), twin=True)
    one, admin = driver.client("one"), driver.client("admin")
    for typeid, other in (("rlock", False), ("lock", True)):
        number = one.call(f"{typeid}:x", "acquire", owner=1).number
        admin.call(f"{typeid}:x", RELEASE, number)
        if other:
            with pytest.raises(LockLost):
                one.call("event:e", "set", owner=2)
        else:
            one.call("event:e", "set", owner=2)
            with pytest.raises(LockLost):
                one.call("event:e", "set", owner=1)
        one.call("event:e", "set", owner=1)


def test_what_else_is_held_can_be_given_back() -> None:
    """A release of another lock runs although there is a loss to tell, which comes with the call after it."""
    driver = Driver(*registry_shared_objects(), twin=True)
    one, admin = driver.client("one"), driver.client("admin")
    number = one.call("lock:outer", "acquire").number
    one.call("lock:inner", "acquire")
    admin.call("lock:outer", RELEASE, number)
    one.call("lock:inner", "release")
    assert driver.statistics("lock:inner")["holder"] is None
    with pytest.raises(LockLost, match="lock:outer"):
        one.call("lock:inner", "acquire")


def test_a_session_remembers_some_losses() -> None:
    """How many is bounded, and they are part of the state."""
    driver = Driver(*registry_shared_objects())
    one, admin = driver.client("one"), driver.client("admin")
    for _ in range(100):
        number = one.call("lock:l", "acquire").number
        admin.call("lock:l", RELEASE, number)
        with pytest.raises(LockLost):
            one.call("lock:l", "acquire")
    session = driver.engine.sessions[driver.engine.session_of(one.key)]
    assert len(session.lost) == 64 and not driver.engine.losses.untold
    number = one.call("lock:l", "acquire").number
    admin.call("lock:l", RELEASE, number)
    driver.restart()
    assert list(driver.engine.losses.untold) == [session.number]
    with pytest.raises(LockLost):
        one.call("lock:l", "acquire")


@held
def test_deletion_takes_what_is_held(typeid: str) -> None:
    """Who holds it hears `LockLost` at its next call; who waits, `NoSuchObject`."""
    driver = room(typeid)
    one, two, admin = driver.client("one"), driver.client("two"), driver.client("admin")
    take(one, typeid)
    waiting = take(two, typeid)
    assert waiting.result() is WAITING
    admin.call(f"{typeid}:x", DELETE)
    with pytest.raises(NoSuchObject):
        waiting.result()
    with pytest.raises(LockLost, match=f"^{typeid}:x is no longer held here: it was deleted"):
        one.call("event:other", "set")
    one.call("event:other", "set")


# -- through clients


@pytest.fixture
def server(home: Any) -> Iterator[ManagerServer]:
    with ManagerServer("here") as server:
        yield server


@pytest.fixture
def shared(server: ManagerServer) -> Iterator[ManagerClient]:
    with another("here", None) as client:
        yield client


@pytest.fixture
def admin(server: ManagerServer) -> Iterator[ManagerClient]:
    with another("here", None, label="admin") as client:
        yield client


def free(admin: ManagerClient, typeid: str, name: str) -> None:
    """Take the grant of an object that one holds, as the command does."""
    proxy = admin.open(typeid, name)
    (holder,) = admin.statistics(proxy)["holders"]
    assert proxy._remote.invoke(RELEASE, (holder["token"],)) is True


@pytest.mark.parametrize("call", ["a change", "a read", "a first use", "an acquisition"])
def test_the_next_call_says_it_whatever_it_is(shared: ManagerClient, admin: ManagerClient, call: str) -> None:
    """Outside any block, and also where a call would have no effect; the one after it goes through."""
    count = shared.counter("c")
    count.incr()
    shared.lock("l").acquire()
    free(admin, "lock", "l")
    calls: dict[str, Any] = {
        "a change": count.incr,
        "a read": count.get,
        "a first use": shared.dict("new").copy,
        "an acquisition": shared.lock("other").acquire,
    }
    with pytest.raises(LockLost, match="lock:l on server 'here'.* released by force, by admin"):
        calls[call]()
    calls[call]()
    assert count.get() == (2 if call == "a change" else 1)


def test_nothing_of_the_block_takes_effect_afterwards(shared: ManagerClient, admin: ManagerClient) -> None:
    """Each call inside says that the lock is lost, and so does the end; nothing of what they ask is done."""
    count, jobs, kept = shared.counter("c"), shared.queue("q"), shared.dict("d")
    count.incr()
    jobs.put("item")
    kept["k"] = [1]
    with pytest.raises(LockLost, match="lock:l"):
        with shared.lock("l"), jobs.claim() as item, kept.edit("k") as value:
            free(admin, "lock", "l")
            for _ in range(2):
                with pytest.raises(LockLost, match="lock:l"):
                    count.incr()
            value.append(2)
    assert item == "item" and jobs.get(timeout=0) == "item"  # it went back, and is not done
    assert kept["k"] == [1] and count.get() == 1
    with kept.edit("k") as value:  # its turn went back, too
        value.append(3)
    assert kept["k"] == [1, 3]
    assert admin.lock("l").acquire(timeout=0).abandoned


def test_the_end_of_a_block_says_it(shared: ManagerClient, admin: ManagerClient) -> None:
    """Once: the calls after the block go through. An error of the body is not hidden by it."""
    lock, count = shared.lock("l"), shared.counter("c")
    with pytest.raises(LockLost, match="lock:l"):
        with lock:
            free(admin, "lock", "l")
    assert count.incr() == 1
    with pytest.raises(ZeroDivisionError):
        with lock:
            free(admin, "lock", "l")
            1 / 0
    assert count.incr() == 2


def test_inner_blocks_are_left_though_an_outer_lock_is_lost(shared: ManagerClient, admin: ManagerClient) -> None:
    """Each kind of grant inside goes back; else nobody would have it before this process ends."""
    outer = shared.lock("outer")
    shared.semaphore("s", 1), shared.rwlock("t")
    inner: list[Any] = [shared.lock("l"), shared.rlock("r"), shared.condition("c"), shared.semaphore("s", 1)]
    for each in inner:
        with pytest.raises(LockLost, match="lock:outer"):
            with outer:
                with each:
                    free(admin, "lock", "outer")
        assert admin.statistics(each)["holder"] is None
        with pytest.raises(LockLost, match="lock:outer"):
            with outer, shared.rwlock("t").read():
                free(admin, "lock", "outer")
        assert admin.statistics(shared.rwlock("t"))["holder"] is None


def test_a_guard_in_another_thread(shared: ManagerClient, admin: ManagerClient) -> None:
    """A thread that the holder gave its grant to is refused as the holder is, each by itself."""
    count = shared.counter("c")
    count.incr()
    grant = shared.rlock("l").acquire()
    said: list[str] = []

    def begin() -> None:
        with grant.guard():  # the first that this thread does
            count.incr()

    def help_out() -> None:
        for _ in range(2):
            with pytest.raises(LockLost) as caught, grant.guard():
                count.incr()
            said.append(caught.value.reason)
        count.incr()  # without it

    with running(begin):
        pass
    free(admin, "rlock", "l")
    with running(help_out):
        pass
    assert len(said) == 2 and all(text.startswith("it was released by force, by admin (pid ") for text in said)
    assert count_after(count) == 3


def count_after(count: Any) -> int:
    """Read a counter, being told first of what was lost."""
    with pytest.raises(LockLost, match="rlock:l"):
        count.get()
    return int(count.get())


@pytest.mark.parametrize("inside", [False, True])
def test_a_held_lock_is_deleted(shared: ManagerClient, admin: ManagerClient, inside: bool) -> None:
    """Its holder hears `LockLost`, in a block or not, and can make a new one of the name afterwards."""
    lock, count = shared.lock("l"), shared.counter("c")
    count.incr()
    if inside:
        with pytest.raises(LockLost, match="lock:l .*it was deleted"):
            with lock:
                admin.delete(admin.lock("l"))
    else:
        grant = lock.acquire()
        admin.delete(admin.lock("l"))
        with pytest.raises(LockLost, match="lock:l .*it was deleted"):
            count.incr()
        with pytest.raises(LockLost, match="lock:l"):
            grant.release()
    assert count.incr() == 2
    with lock as grant:
        assert not grant.abandoned


def test_a_lost_permit_and_a_lost_claim(shared: ManagerClient, admin: ManagerClient) -> None:
    """Grants of a semaphore and claims of a queue end as those of locks do."""
    slots, jobs = shared.semaphore("s", 1), shared.queue("q")
    jobs.put(1)
    with pytest.raises(LockLost, match="semaphore:s"):
        with slots.acquire():
            free(admin, "semaphore", "s")
    with pytest.raises(LockLost, match="queue:q"):
        with jobs.claim():
            free(admin, "queue", "q")
    assert jobs.get(timeout=0) == 1 and slots.value() == 1
