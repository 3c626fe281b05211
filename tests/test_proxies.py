"""Proxies: what they promise without a server in between, and by shape what they do with one."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import KEY, Script, running, until
from things import ALL, NOTES, TICKET, Point

from registry import Grant, ManagerClient, ManagerServer, SharedObject, connect
from registry.errors import (
    CallTimeout,
    EditConflict,
    NotOwner,
    NotShareable,
    SnapshotError,
)
from registry.proxies import Unresolved


@pytest.fixture
def shared() -> Iterator[ManagerClient]:
    with connect("memory://", plugins=[*ALL, SharedObject("plain", dict)]) as client:
        yield client


class Passing:
    """A class that a later version of a program does not have."""


def test_a_pickle_of_a_class_that_is_not_here_is_named(shared: ManagerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another program or Python has pickled is told with its class and this Python; the rest can be read."""
    d = shared.dict("d")
    d.update({"there": Passing(), "here": 1})
    monkeypatch.delattr(f"{__name__}.Passing")
    expected = (
        rf"a {__name__}\.Passing cannot be shared: .* cannot be unpickled in this process, of Python 3\.\d+: .*Passing"
    )
    for read in (lambda: d["there"], d.items, d.copy):
        with pytest.raises(NotShareable, match=expected) as caught:
            read()
        assert type(caught.value.__cause__) is AttributeError
    assert d["here"] == 1
    assert len(d) == 2


# -- the proxy itself -----------------------------------------------------------------------------


def test_what_needs_no_server(home: Path) -> None:
    """`repr`, `str`, `hash` and pickling of an unresolved proxy do no I/O."""
    client = ManagerClient("nowhere", KEY, start=False)
    lock, other = client.lock("login"), client.lock("login")
    assert repr(lock) == str(lock) == "<shared lock 'login' on nowhere>"
    assert repr(client.hall()) == "<shared hall on nowhere>"
    assert hash(lock) == hash(other)
    assert KEY not in pickle.dumps(lock)
    assert repr(pickle.loads(pickle.dumps(lock))) == repr(lock)
    assert copy.copy(lock) is copy.deepcopy(lock) is lock
    assert list(home.iterdir()) == []


def test_the_first_use_fixes_the_class(home: Path) -> None:
    """An unresolved proxy becomes one of its type, the same object as before."""
    with ManagerServer("here", KEY), ManagerClient("here", KEY) as client:
        shared = client.dict("d")
        assert type(shared) is Unresolved
        shared["x"] = 1
        assert type(shared) is not Unresolved
        assert type(shared) is type(client.dict("e"))
        assert shared == {"x": 1}
        with ManagerClient("here", KEY) as another:
            lock = another.lock("l")
            with lock as grant:
                assert grant
            assert not lock.locked()


@pytest.mark.parametrize(
    "use", [len, iter, lambda p: "x" in p, lambda p: p["x"], bool, lambda p: p == {}, dir, lambda p: p.get("x")]
)
def test_any_other_use_resolves(home: Path, use: Any) -> None:
    """Dunders and names alike take the type's row first."""
    with ManagerServer("here", KEY), ManagerClient("here", KEY) as client:
        shared = client.dict("d")
        try:
            use(shared)
        except KeyError:
            pass
        assert type(shared) is not Unresolved


def test_a_dunder_that_the_type_lacks_is_a_type_error(home: Path) -> None:
    """What a class does not expose is what Python says of any class without it."""
    with ManagerServer("here", KEY), ManagerClient("here", KEY) as client:
        with pytest.raises(TypeError):
            len(client.lock("l"))
        with pytest.raises((TypeError, AttributeError)), client.dict("d"):  # the latter is what Python 3.10 says
            pass
        assert bool(client.lock("l")) is True
        assert bool(client.queue("q")) is True
        with pytest.raises(TypeError, match=r"\.get\(\)"):
            bool(client.counter("c"))


def test_a_proxy_has_no_name_of_its_own(shared: ManagerClient) -> None:
    """Public names are those that the hosted class exposes."""
    for typeid, proxy in (
        ("dict", shared.dict("d")),
        ("queue", shared.queue("q")),
        ("lock", shared.lock("l")),
        ("notes", shared.notes("n")),
    ):
        exposed = set(shared._home.interface(typeid).exposed)
        assert {name for name in dir(proxy) if not name.startswith("_")} <= exposed


def test_a_shape_hides_what_the_class_lacks() -> None:
    """A mapping that exposes no `edit` has none, and says so."""

    class Small:
        def __init__(self) -> None:
            self.rows: dict[str, int] = {}

        def __setitem__(self, key: str, value: int) -> None:
            self.rows[key] = value

        def items(self) -> list[tuple[str, int]]:
            return list(self.rows.items())

    small = SharedObject("small", Small, shape="mapping")
    with connect("memory://", plugins=[small]) as shared:
        proxy = shared.small("s")
        proxy["x"] = 1
        assert proxy == {"x": 1}
        assert not hasattr(proxy, "edit")
        with pytest.raises(AttributeError, match="shared small:s on server .* has no method 'edit'"):
            proxy.edit("x")


def test_identity_and_hash(shared: ManagerClient) -> None:
    """Locks and queues are equal where they are the same; containers compare by content and have no hash."""
    assert shared.lock("a") == shared.lock("a") != shared.lock("b")
    assert len({shared.lock("a"), shared.lock("a"), shared.queue("a")}) == 2
    shared.dict("a")["x"] = [1]
    shared.dict("b")["x"] = [1]
    assert shared.dict("a") == shared.dict("b") == {"x": [1]}
    assert shared.dict("a") != {"x": 1}
    with pytest.raises(TypeError, match="unhashable"):
        hash(shared.dict("a"))


def test_a_proxy_is_a_value(shared: ManagerClient) -> None:
    """A proxy in a value comes back as a proxy, of objects that each call makes too."""
    jobs = shared.queue("jobs")
    shared.dict("d")["where"] = {"jobs": [jobs]}
    back = shared.dict("d")["where"]["jobs"][0]
    assert back == jobs
    back.put(1)
    assert jobs.get() == 1
    ticket = shared.ticket(10)
    shared.dict("d")["ticket"] = ticket
    assert ticket.bump() == 11
    assert shared.dict("d")["ticket"].bump() == 12
    assert shared.ticket(10).bump() == 11


def test_a_name_is_required(shared: ManagerClient) -> None:
    """Where objects have names, leaving it out says how to write it; where there is one, nothing is needed."""
    with pytest.raises(TypeError, match=r'a shared lock has a name: \.lock\("NAME"\)'):
        shared.lock()
    with pytest.raises(TypeError):
        shared.dict({"x": 1})
    assert shared.hall().add(1) == 1
    assert shared.hall().add(1) == 2


# -- mappings -------------------------------------------------------------------------------------

KEYS = st.one_of(st.integers(-3, 3), st.sampled_from(["a", "b"]), st.tuples(st.integers(0, 1)))
VALUES = st.one_of(st.integers(), st.text(max_size=3), st.lists(st.integers(), max_size=2), st.none())
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), KEYS, VALUES),
        st.tuples(st.sampled_from(["get", "pop", "del", "in", "item"]), KEYS),
        st.tuples(st.sampled_from(["setdefault", "get", "pop"]), KEYS, VALUES),
        st.tuples(st.just("update"), st.dictionaries(KEYS, VALUES, max_size=3)),
        st.tuples(st.sampled_from(["clear", "popitem", "len", "list", "reprs"])),
    ),
    max_size=12,
)


@pytest.fixture(scope="module")
def laws() -> Iterator[ManagerClient]:
    with connect("memory://") as client:
        yield client


_numbers = itertools.count()


def _step(mapping: Any, step: tuple[Any, ...]) -> object:
    verb, *rest = step
    if verb == "set":
        mapping[rest[0]] = rest[1]
        return None
    if verb == "del":
        del mapping[rest[0]]
        return None
    if verb == "in":
        return rest[0] in mapping
    if verb == "item":
        return mapping[rest[0]]
    if verb == "len":
        return len(mapping), bool(mapping)
    if verb == "list":
        return list(mapping), list(mapping.keys()), list(mapping.values()), list(mapping.items())
    if verb == "reprs":
        return dict(mapping.copy())
    return getattr(mapping, verb)(*rest)


@settings(max_examples=60)
@given(steps=STEPS)
def test_a_mapping_is_a_dict(laws: ManagerClient, steps: list[tuple[Any, ...]]) -> None:
    """Step by step a shared mapping answers as a dict does, errors included."""
    model: dict[Any, Any] = {}
    proxy = laws.dict(f"d{next(_numbers)}")
    for step in steps:
        answers: list[object] = []
        for mapping in (model, proxy):
            try:
                answers.append(_step(mapping, step))
            except KeyError as error:
                answers.append(("KeyError", error.args))
        assert answers[0] == answers[1], step
    assert proxy == model
    assert proxy.copy() == model and type(proxy.copy()) is dict


def test_update_takes_what_dict_takes(shared: ManagerClient) -> None:
    """Mappings, pairs, keyword arguments, other proxies and objects that only have keys."""

    class Odd:
        def keys(self) -> list[str]:
            return ["o"]

        def __getitem__(self, key: str) -> int:
            return 5

    one, two = shared.dict("1"), shared.dict("2")
    one.update({"a": 1})
    one.update([("b", 2)], c=3)
    two.update(one)
    two.update(Odd(), d=Point(4))
    assert two == {"a": 1, "b": 2, "c": 3, "o": 5, "d": Point(4)}


def test_many_at_once(shared: ManagerClient) -> None:
    """Many keys, and many items, in one call each; values that only pickle knows and large ones among them."""
    prices, jobs = shared.dict("prices"), shared.queue("jobs")
    values = {"a": 1, "b": Point(2), "c": b"c" * 100_000, 4: [5]}
    prices.update(values)
    assert prices.get_many(["c", "nowhere", "a", 4, "b"]) == values
    with pytest.raises(SnapshotError):
        prices.get_many(["a"])["a"] = 2
    jobs.put_many(values.values())
    jobs.put_many(n for n in range(3))
    jobs.put_many([])
    assert jobs.get_many(5) == [*values.values(), 0]
    assert jobs.get_many(5, False) == [1, 2]
    with pytest.raises(queue.Empty):
        jobs.get_many(5, timeout=0)
    jobs.put_many(["x" * 10, 1 << 70, "\ud800"])
    assert jobs.get_many(3) == ["x" * 10, 1 << 70, "\ud800"]


def test_what_is_read_is_a_copy_that_cannot_be_changed(shared: ManagerClient) -> None:
    """A change to a read is refused with its place and the two cures; `copy` and json work."""
    prices = shared.dict("prices")
    prices["BTC"] = {"usd": [1, 2]}
    read = prices["BTC"]
    with pytest.raises(SnapshotError) as caught:
        read["usd"] = 3
    assert str(caught.value) == (
        "this dict is a copy of 'prices'['BTC']; a change here would be lost. To change the shared one: "
        "\"with prices.edit('BTC') as v\"; to keep your own: v.copy()"
    )
    with pytest.raises(SnapshotError, match="this list is a copy"):
        read["usd"].append(3)
    for many in (prices.values(), prices.items(), prices.keys()):
        with pytest.raises(SnapshotError):
            many.append(1)
    assert json.dumps(read) == '{"usd": [1, 2]}'
    plain = shared.plain("prices")
    plain["BTC"] = [1]
    with pytest.raises(
        SnapshotError, match=r"'prices'\['BTC'\]; .* shared one: call the methods of its proxy; to keep"
    ):
        plain["BTC"].append(2)  # of what has no `edit` none is named
    own = read.copy()
    own["usd"].append(3)
    assert prices["BTC"] == {"usd": [1, 2]}
    assert prices.get("BTC", None) == {"usd": [1, 2]}
    popped = prices.pop("BTC")
    popped["usd"].append(3)


def test_a_default_never_leaves_the_process(shared: ManagerClient) -> None:
    """What `get` and `pop` fall back to is the caller's own object."""
    default = object()
    assert shared.dict("d").get("x", default) is default
    assert shared.dict("d").pop("x", default) is default


# -- edit and compare_and_set ---------------------------------------------------------------------


def test_edit_writes_back_what_the_block_made(shared: ManagerClient) -> None:
    """The value in the block is plain, and is stored at its end."""
    shared.dict("d")["x"] = {"n": [1]}
    with shared.dict("d").edit("x") as value:
        assert type(value) is dict
        value["n"].append(2)
        assert shared.dict("d")["x"] == {"n": [1]}
    assert shared.dict("d")["x"] == {"n": [1, 2]}


def test_edit_that_fails_writes_nothing(shared: ManagerClient) -> None:
    """An error in the block gives the turn up; a key that is not there is a `KeyError`."""
    shared.dict("d")["x"] = []
    with pytest.raises(ZeroDivisionError), shared.dict("d").edit("x") as value:
        value.append(1 / 0)
    assert shared.dict("d")["x"] == []
    with pytest.raises(KeyError), shared.dict("d").edit("y"):
        pass
    assert shared.statistics(shared.dict("d"))["editing"] == 0


@pytest.mark.parametrize("meddle", ["write", "delete"])
def test_edit_conflicts_with_a_plain_change(shared: ManagerClient, meddle: str) -> None:
    """A plain write or delete meanwhile is not overwritten."""
    mapping = shared.dict("d")
    mapping["x"] = []
    with pytest.raises(EditConflict, match="dict:d"), mapping.edit("x") as value:
        value.append(1)
        if meddle == "write":
            mapping["x"] = [2]
        else:
            del mapping["x"]
    assert mapping == ({"x": [2]} if meddle == "write" else {})
    assert shared.statistics(mapping)["editing"] == 0


def test_edit_takes_turns(shared: ManagerClient) -> None:
    """Threads that edit one key wait for each other, and nothing is lost."""
    mapping = shared.dict("d")
    mapping["x"] = []

    def work() -> None:
        for _ in range(20):
            with mapping.edit("x") as value:
                value.append(len(value))

    with running(*[work] * 4):
        pass
    assert mapping["x"] == list(range(80))


@pytest.mark.parametrize("value", [1, "text", None, (1,), b"x"])
def test_edit_of_what_cannot_be_changed_in_place(shared: ManagerClient, value: object) -> None:
    """A value without a place to change names the verbs that fit, and gives the turn up."""
    shared.dict("d")["x"] = value
    with pytest.raises(SnapshotError, match=r"cannot be changed in place; for numbers there is incr\('x', by\)"):
        with shared.dict("d").edit("x"):
            pass
    assert shared.statistics(shared.dict("d"))["editing"] == 0


def test_compare_and_set_compares_as_python_does(shared: ManagerClient) -> None:
    """1 and 1.0 are equal, and so are objects of a class that says so; a missing key never is."""
    mapping = shared.dict("d")
    assert mapping.compare_and_set("x", None, 1) is False
    mapping["x"] = 1
    assert mapping.compare_and_set("x", 2, 3) is False
    assert mapping.compare_and_set("x", 1.0, [1, {"a": 2}]) is True
    assert mapping.compare_and_set("x", mapping["x"], Point(1)) is True
    assert mapping.compare_and_set("x", Point(2), 0) is False
    assert mapping.compare_and_set("x", Point(1), 0) is True
    assert mapping == {"x": 0}


# -- values of one's own --------------------------------------------------------------------------


def test_a_class_of_ones_own_is_carried(shared: ManagerClient) -> None:
    """In a parameter that is carried, a class goes as a pickle, alone and deep inside a value."""
    shared.dict("d")["p"] = Point(3)
    assert shared.dict("d")["p"] == Point(3)
    shared.queue("q").put(Point(4))
    assert shared.queue("q").get() == Point(4)
    shared.dict("d").update(p=Point(5))
    assert shared.dict("d").copy() == {"p": Point(5)}
    with shared.dict("d").edit("p") as value:
        value.x = 6
    assert shared.dict("d")["p"] == Point(6)


def test_a_class_of_ones_own_is_refused_elsewhere(shared: ManagerClient) -> None:
    """A parameter that the object reads takes plain values only, and says where the other is and what to do."""
    with pytest.raises(NotShareable, match=r"Point") as caught:
        shared.notes("n").add({"deep": [Point(1)]})
    assert "deep" in str(caught.value)
    with pytest.raises(NotShareable, match="cannot be pickled"):
        shared.dict("d")["x"] = lambda: None
    assert shared.notes("n").all() == []


# -- queues ---------------------------------------------------------------------------------------


def test_a_queue_raises_what_queues_raise(shared: ManagerClient) -> None:
    """`queue.Empty` and `queue.Full` are the standard library's; what comes out is the taker's own."""
    jobs = shared.queue("q", maxsize=1)
    with pytest.raises(queue.Empty):
        jobs.get_nowait()
    with pytest.raises(queue.Empty):
        jobs.get(timeout=0.01)
    with pytest.raises(queue.Empty):
        jobs.get(block=False)
    jobs.put({"a": []})
    with pytest.raises(queue.Full):
        jobs.put(2, timeout=0.01)
    with pytest.raises(queue.Full):
        jobs.put_nowait(2)
    item = jobs.get()
    item["a"].append(1)
    assert not hasattr(jobs, "__len__")


# -- locks ----------------------------------------------------------------------------------------


def test_a_lock_is_true_and_gives_grants(shared: ManagerClient) -> None:
    """`acquire` gives a grant, true or false; `with` releases by it."""
    lock = shared.lock("l")
    assert lock
    grant = lock.acquire()
    assert type(grant) is Grant and grant and not grant.abandoned
    refused = lock.acquire(blocking=False)
    assert not refused and refused.holder
    grant.release()
    with pytest.raises(NotOwner):
        grant.release()
    with pytest.raises(NotOwner):
        lock.release()
    with lock as grant:
        assert lock.locked() and grant
    assert not lock.locked()


def test_a_refused_grant_cannot_be_entered(shared: ManagerClient) -> None:
    """``with lock.acquire(timeout=0)`` names the holder, and leaves nothing behind."""
    lock = shared.lock("l")
    with lock:
        with pytest.raises(CallTimeout, match=r"lock:l\.acquire\(\).*it is held by") as caught:
            with lock.acquire(timeout=0):
                pytest.fail("unreachable")
        assert "pid" in str(caught.value)
    assert not lock.locked()
    assert shared._home.link().guards == []
    with lock.acquire(timeout=0):
        assert lock.locked()
    assert not lock.locked()


def test_a_block_may_be_left_in_another_thread(shared: ManagerClient) -> None:
    """A grant is released by its number, from any thread of the process."""
    lock, table = shared.lock("l"), shared.rlock("r")
    grants = [lock.acquire(), table.acquire()]

    def release() -> None:
        for grant in grants:
            grant.release()

    with running(release):
        pass
    assert not lock.locked() and not table.locked()


def test_rlock_counts_its_levels(shared: ManagerClient) -> None:
    """The thread that holds it may enter again; another may not, until the last level is left."""
    table = shared.rlock("r")
    refused: list[Grant] = []
    with table, table:
        with running(lambda: refused.append(table.acquire(blocking=False))):
            pass
        assert table.locked()
    assert not refused[0] and not table.locked()


def test_calls_inside_a_block_rely_on_its_grant(shared: ManagerClient) -> None:
    """Once the lock is lost, as by `delete`, no call inside the block runs."""
    from registry.errors import LockLost, NoSuchObject

    lock, count = shared.lock("l"), shared.counter("c")
    count.incr()
    with pytest.raises((LockLost, NoSuchObject)):
        with lock:
            shared.delete(shared.lock("l"))
    with lock:
        assert count.incr() == 2
    grant = lock.acquire()
    grant.release()
    with pytest.raises(LockLost, match="lock:l"), grant.guard():
        count.incr()
    assert count.get() == 2


# -- other processes ------------------------------------------------------------------------------

ELSEWHERE = """
import pickle, sys
sys.path.insert(0, sys.argv[1])
shared, lock, ticket = pickle.loads(bytes.fromhex(sys.argv[2]))
print(repr(shared), flush=True)
print(shared["x"].x, bool(lock.acquire(timeout=0)), ticket.bump(), flush=True)
from things import Point
shared["y"] = {"deep": Point(8)}["deep"]
print("done", flush=True)
sys.stdin.readline()
"""


def test_a_proxy_works_in_another_process(home: Path) -> None:
    """A pickled proxy finds its server by name and the key by itself; pickled values go between the two."""
    with ManagerServer("here", plugins=ALL), connect("here") as client:
        shared, lock, ticket = client.dict("d"), client.lock("l"), client.ticket(5)
        shared["x"] = Point(7)
        assert ticket.bump() == 6
        data = pickle.dumps((shared, lock, ticket))
        assert (home / "here" / "key").read_bytes().strip() not in data
        with Script(ELSEWHERE, Path(__file__).parent, data.hex()) as script:
            assert script.line() == "<shared dict 'd' on here>"
            assert script.line() == "7 True 7"
            assert script.line() == "done"
            assert shared["y"] == Point(8)
            assert not lock.acquire(timeout=0)
            script.say()
            assert script.wait() == 0
        until(lambda ask: lock.acquire(timeout=0), client)


def test_declarations_are_read_once(shared: ManagerClient) -> None:
    """The same row of the table gives the same class, of whatever client."""
    with connect("memory://", plugins=[NOTES, TICKET]) as other:
        assert type(other.notes("a")) is type(shared.notes("b"))
        assert type(other.dict("a")) is not type(shared.notes("b"))
