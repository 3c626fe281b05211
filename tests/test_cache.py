"""Reads that a client answers itself: which, until when, and what never changes by it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cached_classes
import pytest
import things
from servers import KEY, another, until

import registry._cache
from registry import ManagerClient, ManagerServer, _words
from registry._cache import Cache, Shelf
from registry._snapshots import FrozenDict, FrozenList
from registry.errors import (
    Closed,
    DefinitionConflict,
    LockLost,
    NoSuchObject,
    SnapshotError,
)

pytestmark = pytest.mark.skipif(not _words.IS_SUPPORTED, reason="no words on this system")


@pytest.fixture
def server(home: Path) -> Iterator[ManagerServer]:
    """Serve the classes of the tests from a thread."""
    with ManagerServer(f"unix://{home}/socket", KEY, plugins=[cached_classes, things]) as server:
        yield server


@pytest.fixture
def shared(server: ManagerServer) -> Iterator[ManagerClient]:
    """Return a client that caches."""
    with another(server.url) as client:
        yield client


@pytest.fixture
def writer(server: ManagerServer) -> Iterator[ManagerClient]:
    """Return a client with a session of its own."""
    with another(server.url, cache=False) as client:
        yield client


@contextmanager
def asking(client: ManagerClient, calls: int) -> Iterator[None]:
    """Check how many calls a block makes."""
    link = client._home.link()
    before = link._next
    yield
    assert link._next - before == calls


# -- what is answered without a call


def test_a_read_is_made_once(shared: ManagerClient, writer: ManagerClient) -> None:
    """What was read is known until it changes, and then it is asked for again, once."""
    theirs, ours = writer.dict("d"), shared.dict("d")
    theirs["k"] = 1
    with asking(shared, 1):
        assert [ours["k"] for _ in range(5)] == [1] * 5
    theirs["k"] = 2
    with asking(shared, 1):
        assert [ours["k"] for _ in range(5)] == [2] * 5
    theirs["other"] = 1
    with asking(shared, 0):
        assert ours["k"] == 2


@pytest.mark.parametrize(
    ("typeid", "prepare", "read", "change"),
    [
        ("dict", lambda d: d.update(k=1), lambda d: d["k"], lambda d: d.incr("k")),
        ("dict", lambda d: d.update(k=1), lambda d: d.get("k"), lambda d: d.update(k=2)),
        ("dict", lambda d: d.update(k=1), lambda d: "k" in d, lambda d: d.pop("k")),
        ("dict", lambda d: d.update(k=1), len, lambda d: d.update(l=2)),
        ("dict", lambda d: d.update(k=1), lambda d: [*iter(d)], lambda d: d.update(l=2)),
        ("dict", lambda d: d.update(k=1), lambda d: d.copy(), lambda d: d.incr("k")),
        ("dict", lambda d: d.update(k=1), lambda d: list(d.items()), lambda d: d.incr("k")),
        ("dict", lambda d: d.update(k=1), lambda d: d == {"k": 1}, lambda d: d.incr("k")),
        ("counter", lambda c: c.incr(), lambda c: c.get(), lambda c: c.incr()),
        ("counter", lambda c: c.incr(), int, lambda c: c.decr()),
        ("queue", lambda q: q.put(1), lambda q: q.qsize(), lambda q: q.get()),
        ("lock", lambda x: x.acquire(), lambda x: x.locked(), lambda x: (x.release(), x.locked())),
        ("event", lambda e: e.clear(), lambda e: e.is_set(), lambda e: e.set()),
        ("lru", lambda x: x.put("a", 1), lambda x: x.get("a"), lambda x: x.put("a", 2)),
        ("lru", lambda x: x.put("a", 1), lambda x: x.count(), lambda x: x.put("b", 2)),
        ("rows", lambda r: r.put("a", [1]), lambda r: r["a"], lambda r: r.put("a", [2])),
        ("sayings", lambda s: s.say([1, {2}]), lambda s: s.last(), lambda s: s.say([2])),
        ("plain", lambda p: p.update({"a": 1}), lambda p: p.get("a", 7), lambda p: p.update({"a": 2})),
    ],
)
def test_every_kind_of_read_is_cached(
    typeid: str, prepare: Any, read: Any, change: Any, shared: ManagerClient, writer: ManagerClient
) -> None:
    """Reads of all types, a user's own included, are made once, and again after a change."""
    theirs, ours = getattr(writer, typeid)("x"), getattr(shared, typeid)("x")
    prepare(theirs)
    with asking(shared, 1):
        first = read(ours)
        assert read(ours) == first
    change(theirs)
    with asking(shared, 1):
        second = read(ours)
        assert read(ours) == second
    assert first != second
    assert second == read(theirs)


@pytest.mark.parametrize("typeid", ["dict", "plain", "rows"])
def test_items_are_found_the_quick_way(typeid: str, shared: ManagerClient) -> None:
    """What `__getitem__` returned stands where a hit looks first, whatever the shape."""
    proxy = getattr(shared, typeid)("x")
    proxy.put("a", 1) if typeid == "rows" else proxy.update({"a": 1})
    assert proxy["a"] == proxy["a"] == 1
    assert proxy._items["a"][:2] == (str, 1)


def test_one_reads_what_one_has_written(shared: ManagerClient) -> None:
    """After a write has returned no thread of this process, nor another proxy, sees what was before."""
    one, two = shared.dict("d"), shared.dict("d")
    for number in range(200):
        one["k"] = number
        assert two["k"] == one["k"] == number
        assert one.get("k") == number


def test_two_proxies_share_what_is_cached(shared: ManagerClient) -> None:
    """A program that names its dict anew each time caches all the same."""
    shared.dict("d")["k"] = 1
    with asking(shared, 1):
        assert [shared.dict("d")["k"] for _ in range(3)] == [1, 1, 1]


def test_cache_can_be_switched_off(shared: ManagerClient, writer: ManagerClient) -> None:
    """With ``cache=False`` every read is a call, also where another client of the process caches."""
    ours = writer.dict("d")
    ours["k"] = 1
    with asking(writer, 3):
        assert [ours["k"] for _ in range(3)] == [1, 1, 1]
    assert writer._home.link().words is None or writer._home.link().words._view is None


def test_a_client_over_loopback_caches(home: Path) -> None:
    """A peer of the same user on the same host is one, however it connects."""
    with ManagerServer("tcp://127.0.0.1:0", KEY) as server, another(server.url) as shared:
        counter = shared.counter("c")
        counter.incr()
        with asking(shared, 1):
            assert [counter.get(), counter.get()] == [1, 1]


def test_who_cannot_map_the_words_asks(shared: ManagerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """In another container the file is not there: reads are calls, and right."""
    monkeypatch.setattr(_words, "map_words", lambda told: None)
    shared.counter("c").incr()
    with asking(shared, 2):
        assert [shared.counter("c").get(), shared.counter("c").get()] == [1, 1]


def test_a_server_without_words_is_asked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a server has none, nothing is cached."""
    monkeypatch.setattr(_words, "IS_SUPPORTED", False)
    with ManagerServer(f"unix://{home}/socket", KEY) as server, another(server.url) as shared:
        shared.counter("c").incr()
        with asking(shared, 2):
            assert [shared.counter("c").get(), shared.counter("c").get()] == [1, 1]


# -- what is not


def test_what_looks_at_the_call_is_asked(shared: ManagerClient) -> None:
    """Who calls, when, and chance are of each call."""
    sayings = shared.sayings("s")
    sayings.say(1)
    for read in (sayings.whose, sayings.mine, sayings.when, sayings.chance):
        with asking(shared, 2):
            read(), read()


def test_threaded_objects_are_asked(shared: ManagerClient) -> None:
    """What may do anything at any time is never cached."""
    restless = shared.restless("r")
    with asking(shared, 3):
        assert [restless.read() for _ in range(3)] == [1, 2, 3]


def test_an_error_is_asked_for_again(shared: ManagerClient) -> None:
    """That there is no such key is not remembered."""
    ours = shared.dict("d")
    ours["other"] = 1
    with asking(shared, 2):
        for _ in range(2):
            with pytest.raises(KeyError):
                ours["missing"]


def test_a_block_of_a_lock_asks(shared: ManagerClient, writer: ManagerClient) -> None:
    """What relies on a grant is refused once the grant is lost, so that it is always asked."""
    ours, lock = shared.dict("d"), shared.lock("l")
    ours["k"] = 1
    assert ours["k"] == ours["k"] == 1
    with pytest.raises(LockLost), lock:
        with asking(shared, 2):
            assert [ours["k"], ours["k"]] == [1, 1]
        writer.delete(writer.lock("l"))
        ours["k"]
        raise AssertionError("the read was answered")


def test_after_a_block_it_caches_again(shared: ManagerClient) -> None:
    """The quick way is off for as long as somebody relies on a grant, and no longer."""
    ours = shared.dict("d")
    ours["k"] = 1
    with shared.lock("l"):
        ours["k"]
    assert ours["k"] == 1
    with asking(shared, 0):
        assert ours["k"] == 1
    words = shared._home.link().words
    assert words is not None and words.until > 0.0


def test_a_block_of_one_thread_leaves_the_others_their_cache(shared: ManagerClient) -> None:
    """Other threads do not rely on the grant; they go the slower way, without a call."""
    ours, seen = shared.dict("d"), []
    ours["k"] = 1
    assert ours["k"] == 1

    def read() -> None:
        with asking(shared, 0):
            seen.append(ours["k"])

    with shared.lock("l"):
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
    assert seen == [1]


def test_a_guard_that_is_given_to_a_thread_asks(shared: ManagerClient) -> None:
    """``grant.guard()`` is a block as well."""
    ours = shared.dict("d")
    ours["k"] = 1
    assert ours["k"] == 1
    grant = shared.lock("l").acquire()
    with asking(shared, 0):
        assert ours["k"] == 1
    with grant.guard(), asking(shared, 1):
        assert ours["k"] == 1
    grant.release()


def test_a_forced_release_is_told_by_the_next_read(shared: ManagerClient, writer: ManagerClient) -> None:
    """A holder that only reads what it has cached hears of its loss all the same."""
    ours = shared.dict("d")
    ours["k"] = 1
    grant = shared.lock("l").acquire()
    assert ours["k"] == ours["k"] == 1
    writer.delete(writer.lock("l"))
    with pytest.raises(LockLost):
        ours["k"]
    assert ours["k"] == 1
    assert grant


def test_a_deletion_is_told_once(shared: ManagerClient, writer: ManagerClient) -> None:
    """Who has cached an object that is deleted is told so, and then finds the new one."""
    ours = shared.counter("c")
    ours.incr()
    assert ours.get() == ours.get() == 1
    writer.delete(writer.counter("c"))
    with pytest.raises(NoSuchObject):
        ours.get()
    assert ours.get() == 0


def test_another_definition_is_compared(shared: ManagerClient) -> None:
    """What is cached by one definition does not answer for another one."""
    assert shared.lru("l", 3).count() == shared.lru("l", 3).count() == 0
    with pytest.raises(DefinitionConflict):
        shared.lru("l", 4).count()


# -- keys and values


def test_keys_are_told_apart_by_their_type(shared: ManagerClient) -> None:
    """1, True and 1.0 are one key of a dict here; a class may answer each in its own way."""
    echo = shared.sayings("s").echo
    values = (1, True, 1.0, "1", b"1", 0, False, 0.0, -0.0, None, "", b"", (), (1,), (True,))
    for _ in range(2):
        for value in values:
            assert repr(echo(value)) == repr([[value], {}])
            assert repr(echo(value, key=value)) == repr([[value], {"key": value}])
            assert repr(echo(key=value)) == repr([[], {"key": value}])
            assert repr(echo(value, value)) == repr([[value, value], {}])
    assert echo("echo") == [["echo"], {}] and echo() == [[], {}]


def test_equal_keys_change_together(shared: ManagerClient, writer: ManagerClient) -> None:
    """Who has cached d[1] sees what was written to d[True]."""
    ours, theirs = shared.dict("d"), writer.dict("d")
    theirs[1] = "one"
    assert [ours[key] for key in (1, True, 1.0) * 2] == ["one"] * 6
    theirs[True] = "true"
    assert [ours[key] for key in (1, True, 1.0)] == ["true"] * 3


def test_what_has_no_hash_is_no_key(shared: ManagerClient) -> None:
    """An argument that no dict takes is asked about like any other, in the one way that is left."""
    echo = shared.sayings("s").echo
    for _ in range(2):
        assert echo([1], {2: {3}}) == [[[1], {2: {3}}], {}]


def test_a_snapshot_is_shared_and_refuses_changes(shared: ManagerClient) -> None:
    """A container is decoded once; nobody can change what another read returns."""
    ours = shared.dict("d")
    ours["k"] = {"a": [1, {2}]}
    one, two = ours["k"], ours["k"]
    assert one is two
    assert type(one) is FrozenDict and type(one["a"]) is FrozenList
    with pytest.raises(SnapshotError, match=r"this list is a copy of 'd'\['k'\]"):
        one["a"].append(2)
    mine = one.copy()
    mine["a"].append(2)
    assert ours["k"] == {"a": [1, {2}]}


def test_what_can_be_changed_is_decoded_for_each_read(shared: ManagerClient) -> None:
    """A bytearray in a value belongs to whoever has read it, and its changes are seen by nobody else."""
    ours = shared.dict("d")
    ours["k"] = [bytearray(b"one")]
    with asking(shared, 1):
        one = ours["k"]
        one[0].extend(b" more")
        assert ours["k"] == [bytearray(b"one")]
        assert ours.get("k")[0] is not one[0]


def test_opaque_values_are_unpickled_for_each_read(shared: ManagerClient) -> None:
    """A value of a class of one's own is another object in each read."""
    ours = shared.dict("d")
    ours["k"] = {"notes": things.Notes()}
    with asking(shared, 1):
        ours["k"]["notes"].rows.append("a ghost")
        assert ours["k"]["notes"].rows == []


def test_copies_are_the_callers(shared: ManagerClient) -> None:
    """``copy()`` gives plain containers all the way down, also from the cache."""
    ours = shared.dict("d")
    ours["k"] = [1]
    for _ in range(3):
        mine = ours.copy()
        assert type(mine) is dict and type(mine["k"]) is list
        mine["k"].append(2)
    assert ours.copy() == {"k": [1]}
    assert ours == {"k": [1]}


def test_a_proxy_in_a_value_stays_one(shared: ManagerClient) -> None:
    """A handle is made a proxy for each read."""
    ours, counter = shared.dict("d"), shared.counter("c")
    ours["k"] = counter
    counter.incr()
    assert [ours["k"].get() for _ in range(3)] == [1, 1, 1]


# -- what else changes


def test_what_is_evicted_is_gone(shared: ManagerClient, writer: ManagerClient) -> None:
    """A keyed method that changes another key says so by ``hosting.touch``."""
    ours, theirs = shared.lru("l"), writer.lru("l")
    theirs.put("a", 1), theirs.put("b", 2)
    assert [ours.get(key) for key in "abab"] == [1, 2] * 2
    theirs.put("c", 3)
    assert ours.get("a") is None
    with asking(shared, 0):
        assert ours.get("b") == 2


def test_what_expires_is_gone(shared: ManagerClient, writer: ManagerClient) -> None:
    """A deadline changes what is read without any call."""
    ours = shared.expiring("e")
    writer.expiring("e").put("a", 1, 0.2)
    while ours.get("a") == 1:
        pass  # from the cache, until the server's clock says that it is over
    assert ours.get("a") is None


def test_a_death_is_seen(shared: ManagerClient, server: ManagerServer) -> None:
    """What a session held when it ended is free, also for those who had cached that it was not."""
    with another(server.url) as holder:
        holder.lock("l").acquire()
        assert shared.lock("l").locked() is shared.lock("l").locked() is True
    until(lambda ask: not ask.lock("l").locked(), shared)


def test_a_release_that_nobody_waits_for_comes_first(shared: ManagerClient, server: ManagerServer) -> None:
    """A release is on its way when `release` returns: what this process reads after it is read behind it."""
    with ManagerClient(server.url, KEY) as one, ManagerClient(server.url, KEY) as two:
        lock, same = one.lock("l"), two.lock("l")
        for _ in range(100):
            grant = lock.acquire()
            assert lock.locked() is lock.locked() is same.locked() is same.locked() is True
            grant.release()
            assert lock.locked() is False
            assert same.locked() is False


def test_what_a_destructor_gives_back_comes_first(shared: ManagerClient) -> None:
    """Only what was read of that object is forgotten, and what was on its way when it was given back."""
    counter, other = shared.counter("c"), shared.counter("other")
    counter.incr(), other.incr()
    assert [counter.get(), counter.get(), other.get(), other.get()] == [1] * 4
    link = shared._home.link()
    link.insist(counter._remote.prepare("incr", ()), link.key)
    with asking(shared, 0):
        assert other.get() == 1
    assert counter.get() == 2


def test_an_interrupted_write_comes_first(shared: ManagerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that its caller gave up is settled before this process reads again."""
    counter, link = shared.counter("c"), shared._home.link()
    counter.incr()
    assert counter.get() == counter.get() == 1

    class Handler(BaseException):
        pass

    def interrupt(*args: object) -> None:
        raise Handler

    with monkeypatch.context() as patch:
        patch.setattr(link, "_await", interrupt)
        with pytest.raises(Handler):
            counter.incr()
    link.ensure()
    seen = counter.get()
    assert seen in (1, 2)
    assert [counter.get() for _ in range(3)] == [seen] * 3


# -- connections, processes, threads


def test_a_cut_connection_drops_the_cache(shared: ManagerClient) -> None:
    """Nothing that was cached on a connection answers once its end is known."""
    counter, link = shared.counter("c"), shared._home.link()
    counter.incr()
    assert counter.get() == counter.get() == 1
    words = link.words
    assert words is not None and link._transport is not None
    link._break(link._transport)
    assert words.until == 0.0 and not words.is_fresh()
    assert counter.get() == counter.get() == 1
    assert link.words is not words
    with asking(shared, 0):
        assert counter.get() == 1


def test_a_closed_client_answers_nothing(server: ManagerServer) -> None:
    """After ``close()`` a read is refused, also where another client of the process goes on."""
    one, two = ManagerClient(server.url, KEY).connect(), ManagerClient(server.url, KEY).connect()
    counters = [client.counter("c") for client in (one, two)]
    counters[0].incr()
    assert [each.get() for each in counters * 2] == [1] * 4
    one.close()
    with pytest.raises(Closed):
        counters[0].get()
    with asking(two, 0):
        assert counters[1].get() == 1
    two.close()
    with pytest.raises(Closed):
        counters[1].get()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_begins_with_nothing(server: ManagerServer) -> None:
    """A forked child has a session and a cache of its own; its parent's goes on."""
    with ManagerClient(server.url, KEY) as shared:
        ours = shared.dict("d")
        ours["k"] = 1
        assert ours["k"] == ours["k"] == 1
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                link = shared._home.link()
                seen = [link.words, ours["k"], ours["k"], link._next, ours["k"], link._next]
                os.write(write, repr(seen).encode())
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        assert os.read(read, 1000).decode() == repr([None, 1, 1, 3, 1, 3])
        os.close(read)
        os.close(write)
        with asking(shared, 0):
            assert ours["k"] == 1


def test_threads_share_the_cache(shared: ManagerClient, writer: ManagerClient) -> None:
    """Many threads read and write at once; each sees its own writes, and time never runs backwards."""
    ours, wrong = shared.dict("d"), []
    for key in range(4):
        ours[key] = 0

    def work(key: int) -> None:
        for number in range(1, 150):
            ours[key] = number
            if ours[key] != number:
                wrong.append((key, number))
            last = [0] * 4
            for other in (*range(4), *range(4)):
                seen = ours[other]
                if seen < last[other]:
                    wrong.append((key, other, seen, last[other]))
                last[other] = seen

    threads = [threading.Thread(target=work, args=(key,)) for key in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# -- how much is kept


def entry(size: int = 1) -> Any:
    """Return an entry that is never valid; the cache does not look."""
    return (None, None, [0], 0, 1, None, size)


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are never more than two halves of entries, or of bytes."""
    monkeypatch.setattr(registry._cache, "ENTRIES", 10)
    monkeypatch.setattr(registry._cache, "BYTES", 100)
    cache = Cache()
    shelf = cache.shelf("dict", "d", b"")
    for number in range(1000):
        cache.put(shelf, number, entry(), True)
        assert len(shelf.items) + len(shelf.old_items) <= 22
    for number in range(1000):
        cache.put(shelf, number, entry(30), True)
        assert len(shelf.items) <= 10 and sum(each[6] for each in shelf.items.values()) <= 100


def test_what_is_forgotten_takes_nothing_more() -> None:
    """A read that was under way when its object was forgotten is not kept."""
    cache = Cache()
    shelf, other = cache.shelf("lock", "l", b""), cache.shelf("lock", "l", b"other")
    kept = cache.shelf("lock", "kept", b"")
    for each in (shelf, other, kept):
        cache.put(each, "locked", entry(), False)
    cache.forget("lock", "l")
    cache.put(shelf, "locked", entry(), False)
    assert not (shelf.hits or other.hits) and kept.hits
    assert cache.shelf("lock", "l", b"") is not shelf


def test_the_same_key_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that changes all the time does not drive out the others."""
    monkeypatch.setattr(registry._cache, "ENTRIES", 10)
    cache = Cache()
    shelf = cache.shelf("dict", "d", b"")
    cache.put(shelf, "quiet", entry(), True)
    for _ in range(1000):
        cache.put(shelf, "busy", entry(), True)
    assert "quiet" in shelf.items


def test_what_is_used_has_a_second_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found in the old half is young again; what is not goes with it."""
    monkeypatch.setattr(registry._cache, "ENTRIES", 10)
    monkeypatch.setattr(registry._cache, "is_valid", lambda entry: True)
    cache = Cache()
    shelf = cache.shelf("dict", "d", b"")
    for number in range(100):
        cache.put(shelf, number, entry(), False)
        cache.put(shelf, "used", entry(), False) if not number else cache.find(shelf, "used", None, False)
    assert cache.find(shelf, "used", None, False) is not None
    assert cache.find(shelf, 0, None, False) is None


def test_objects_that_are_not_read_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shelf of an object that nobody has read for two halves is gone, and a proxy that has it takes another."""
    monkeypatch.setattr(registry._cache, "ENTRIES", 10)
    cache = Cache()
    old = cache.shelf("dict", "old", b"")
    cache.put(old, "k", entry(), True)
    shelf = cache.shelf("dict", "d", b"")
    for number in range(40):
        cache.put(shelf, number, entry(), True)
    assert old.is_out
    cache.put(old, "k", entry(), True)
    assert not old.items
    assert cache.shelf("dict", "old", b"") is not old


def test_a_proxy_outlives_its_shelf(shared: ManagerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads go on, cached and right, whatever is thrown out meanwhile."""
    monkeypatch.setattr(registry._cache, "ENTRIES", 8)
    ours, other = shared.dict("d"), shared.dict("other")
    ours["k"] = 1
    assert ours["k"] == 1
    before: Shelf | None = ours._remote.shelf
    other.update({number: number for number in range(100)})
    for number in range(100):
        assert other[number] == number
    assert before is not None and before.is_out
    assert ours["k"] == 1
    with asking(shared, 0):
        assert ours["k"] == 1
    assert ours._remote.shelf is not before
