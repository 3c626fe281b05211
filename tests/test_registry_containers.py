"""Containers: a dict whose entries are carried, with turns for editing, and a counter."""

from __future__ import annotations

from typing import Any

import pytest
from engine_driver import CANCELLED, Driver, Ticket
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from registry.errors import Deadlock, EditConflict, NotShareable
from registry.hosting import Carried
from registry_containers import COUNTER, DICT, registry_shared_objects

D = "dict:d"
C = "counter:c"


def driver() -> Driver:
    return Driver(DICT, COUNTER, twin=True)


def test_declarations() -> None:
    """The plugin's hook declares them, each with its shape."""
    assert [record.typeid for record in registry_shared_objects()] == ["dict", "list", "set", "counter"]
    assert (DICT.interface.shape, COUNTER.interface.shape) == ("mapping", None)
    assert DICT.interface.carried["__setitem__"] == {"value": 1}
    assert DICT.interface.waiting == ("edit",)


# -- the dict as a dict ----------------------------------------------------------------------------


def test_entries() -> None:
    """A dict stores, reads, lists and removes entries, in the order in which their keys came."""
    client = driver().client()
    client.call(D, "__setitem__", "a", [1])
    client.call(D, "__setitem__", (1, "b"), None)
    client.call(D, "__setitem__", "a", {"x": 2.5})
    assert client.call(D, "__getitem__", "a") == {"x": 2.5}
    assert client.call(D, "__len__") == 2
    assert client.call(D, "__contains__", (1, "b")) is True
    assert client.call(D, "keys") == client.call(D, "__iter__") == ["a", (1, "b")]
    assert client.call(D, "values") == [{"x": 2.5}, None]
    assert client.call(D, "items") == [("a", {"x": 2.5}), ((1, "b"), None)]
    assert client.call(D, "copy") == {"a": {"x": 2.5}, (1, "b"): None}
    client.call(D, "__delitem__", "a")
    assert client.call(D, "popitem") == ((1, "b"), None)
    with pytest.raises(KeyError, match="dictionary is empty"):
        client.call(D, "popitem")


def test_get_many() -> None:
    """The keys that are there come back with their values, in the order of the question, at one moment."""
    client = driver().client()
    client.call(D, "update", {"a": 1, (1, "b"): [2], "c": None})
    assert client.call(D, "get_many", ["c", "nowhere", (1, "b"), "c"]) == {"c": None, (1, "b"): [2]}
    assert client.call(D, "get_many", []) == {}
    with pytest.raises(TypeError, match="unhashable"):
        client.call(D, "get_many", [[]])


def test_what_one_update_wrote_conflicts_with_an_edit() -> None:
    """An edit is refused when its key was written by an update of many, also when the value is the same."""
    client = driver().client()
    client.call(D, "update", {"a": 1, "b": 2})
    turn, _ = client.call(D, "edit", "a")
    client.call(D, "update", {"b": 3})
    client.call(D, "edit", "a", turn, 5)
    turn, _ = client.call(D, "edit", "a")
    client.call(D, "update", {"a": 5, "b": 3})
    with pytest.raises(EditConflict):
        client.call(D, "edit", "a", turn, 6)
    assert client.call(D, "copy") == {"a": 5, "b": 3}


def test_missing_keys() -> None:
    """What is missing is a KeyError or the default, as with a dict."""
    client = driver().client()
    client.call(D, "clear")
    for call in (("__getitem__", "k"), ("__delitem__", "k"), ("pop", "k"), ("edit", "k")):
        with pytest.raises(KeyError) as raised:
            client.call(D, *call)
        assert raised.value.args == ("k",)
    assert client.call(D, "get", "k") is None
    assert client.call(D, "get", "k", [1]) == [1]
    assert client.call(D, "pop", "k", None) is None
    assert client.call(D, "pop", "k", default=(1,)) == (1,)
    assert client.call(D, "setdefault", "k", {1}) == {1}
    assert client.call(D, "setdefault", "k", 2) == {1}
    assert client.call(D, "setdefault", "n") is None
    assert client.call(D, "keys") == ["k", "n"]


@pytest.mark.parametrize(
    "call",
    [
        ("__getitem__", []),
        ("__setitem__", [], 1),
        ("__contains__", {}),
        ("get", []),
        ("pop", []),
        ("pop", [], 1),
        ("setdefault", []),
        ("incr", []),
        ("compare_and_set", [], 1, 2),
        ("edit", []),
        ("update", [([], 1)]),
    ],
)
def test_unhashable_keys(call: tuple[Any, ...]) -> None:
    """A key that has no hash is a TypeError, and changes nothing."""
    room = driver()
    client = room.client()
    client.call(D, "__setitem__", "k", 1)
    with pytest.raises(TypeError, match="unhashable"):
        client.call(D, *call)
    assert client.call(D, "items") == [("k", 1)]
    assert room.statistics(D)["editing"] == 0


def test_equal_keys_are_one() -> None:
    """1, 1.0 and True are one key, as in any dict."""
    client = driver().client()
    for key in (1, 1.0, True):
        client.call(D, "__setitem__", key, repr(key))
    assert client.call(D, "items") == [(1, "True")]


def test_update() -> None:
    """An update takes a mapping, pairs and keywords, and stores all of them or none."""
    client = driver().client()
    client.call(D, "update", {"a": 1}, b=[2])
    client.call(D, "update", [["a", 3], ("c", 4)])
    client.call(D, "update", [("d", Carried.of(5))], self=6, other=7)
    client.call(D, "update")
    expected = {"a": 3, "b": [2], "c": 4, "d": 5, "self": 6, "other": 7}
    assert client.call(D, "copy") == expected
    for wrong in ([("x", 1), ("y",)], [("x", 1), 5], 5):
        with pytest.raises((TypeError, ValueError)):
            client.call(D, "update", wrong)
    assert client.call(D, "copy") == expected


def test_opaque_values_are_never_read() -> None:
    """A pickled value is kept as it came, stamped with its writer's domain."""
    room = driver()
    client = room.client(domain="host:1000")
    client.call(D, "__setitem__", "k", Carried(b"\x80\x04.", "claimed", "app.Cookie"))
    assert room.instance(D)["k"] == Carried(b"\x80\x04.", "host:1000", "app.Cookie")
    with pytest.raises(TypeError, match="is not a number"):
        client.call(D, "incr", "k")
    with pytest.raises(NotShareable):
        room.client().call(D, "__setitem__", "k", Carried(b"\x80\x04.", "claimed", "app.Cookie"))
    assert room.instance(D)["k"].domain == "host:1000"


# -- incr ------------------------------------------------------------------------------------------


def test_incr() -> None:
    """Numbers are counted exactly, from 0 where there is none; the result is the new value."""
    client = driver().client()
    assert client.call(D, "incr", "n") == 1
    assert client.call(D, "incr", "n", 1 << 70) == (1 << 70) + 1
    assert client.call(D, "incr", "n", by=-(1 << 70)) == 1
    assert repr(client.call(D, "incr", "n", 0.5)) == "1.5"
    assert client.call(D, "__getitem__", "n") == 1.5


@pytest.mark.parametrize("value", [True, None, "1", [1], 1j, b"1"])
def test_incr_of_what_is_no_number(value: object) -> None:
    """Only an exact int or float is counted, and only such a number is added."""
    client = driver().client()
    client.call(D, "__setitem__", "k", value)
    with pytest.raises(TypeError, match=r"^the value of 'k' is not a number; to change it use edit\('k'\)$"):
        client.call(D, "incr", "k")
    with pytest.raises(TypeError, match=r"^by must be an int or a float, not "):
        client.call(D, "incr", "new", value)
    assert client.call(D, "items") == [("k", value)]


# -- compare_and_set -------------------------------------------------------------------------------


def test_compare_and_set() -> None:
    """A value is replaced if it is the expected one; a missing key never is."""
    client = driver().client()
    assert client.call(D, "compare_and_set", "k", None, 1) is False
    client.call(D, "__setitem__", "k", {"a": [1]})
    assert client.call(D, "compare_and_set", "k", {"a": [2]}, 0) is False
    assert client.call(D, "compare_and_set", "k", {"a": [1]}, 5) is True
    assert client.call(D, "compare_and_set", "k", 5.0, 6) is False
    assert client.call(D, "__getitem__", "k") == 5


def test_compare_and_set_by_version() -> None:
    """Where the encoding does not decide, the caller is given version and value to compare by itself."""
    client = driver().client()
    client.call(D, "__setitem__", "k", 1)
    version, present = client.call(D, "compare_and_set", "k", 1.0, 2, 0)
    assert present == 1 == 1.0 and version > 0
    assert client.call(D, "compare_and_set", "k", 1.0, 2, version) is True
    again, present = client.call(D, "compare_and_set", "k", 1.0, 3, version)
    assert present == 2 and again > version
    client.call(D, "__delitem__", "k")
    assert client.call(D, "compare_and_set", "k", 1.0, 3, again) is False
    client.call(D, "__setitem__", "k", 2)
    assert client.call(D, "compare_and_set", "k", 1.0, 3, again)[0] > again


# -- edit ------------------------------------------------------------------------------------------


def test_edit() -> None:
    """An edit takes the turn of a key, and ends by storing a value or by giving up."""
    room = driver()
    client = room.client()
    client.call(D, "__setitem__", "k", [1])
    turn, value = client.call(D, "edit", "k")
    assert value == [1] and room.statistics(D)["editing"] == 1
    assert client.call(D, "edit", "k", turn, [1, 2]) is None
    assert client.call(D, "__getitem__", "k") == [1, 2]
    turn, value = client.call(D, "edit", "k")
    assert client.call(D, "edit", "k", turn) is None
    assert client.call(D, "__getitem__", "k") == [1, 2]
    turn, value = client.call(D, "edit", "k")
    assert client.call(D, "edit", "k", turn, None) is None
    assert client.call(D, "__getitem__", "k") is None
    assert room.statistics(D)["editing"] == 0


def test_edits_in_opposite_order_are_a_deadlock() -> None:
    """Who would wait for a turn whose holder waits for its own is told so at once, and the other goes on."""
    room = driver()
    one, two = room.client("one"), room.client("two")
    one.call(D, "update", {"a": 1, "b": 2})
    turn, _ = one.call(D, "edit", "a")
    two.call(D, "edit", "b")
    waiting = two.send(D, "edit", "a")
    with pytest.raises(Deadlock, match="thread 1 of one waits for dict:d until thread 1 of two can go on"):
        one.call(D, "edit", "b")
    one.call(D, "edit", "a", turn)
    assert waiting.result()[1] == 1


def test_edits_take_turns() -> None:
    """Editors of one key are served in the order in which they came; other keys are not held up."""
    room = driver()
    one, two = room.client(), room.client()
    one.call(D, "update", a=0, b=0)
    turn, _ = one.call(D, "edit", "a")
    waiting = [one.send(D, "edit", "a", owner=2), two.send(D, "edit", "a")]
    assert two.send(D, "edit", "b", owner=9).result()[1] == 0
    assert [ticket.waits for ticket in waiting] == [True, True]
    one.call(D, "edit", "a", turn, 1)
    assert waiting[0].result()[1] == 1 and waiting[1].waits
    # A `with` block may be left in another thread of the same process.
    one.call(D, "edit", "a", waiting[0].result()[0], 2, owner=3)
    assert waiting[1].result()[1] == 2


def test_edit_twice() -> None:
    """Who has the turn and asks for it again is told, instead of waiting for itself."""
    client = driver().client()
    client.call(D, "__setitem__", "k", 1)
    client.call(D, "edit", "k")
    with pytest.raises(RuntimeError) as raised:
        client.call(D, "edit", "k")
    text = "this thread or task is editing 'k' of dict:d already; leave that block first"
    assert str(raised.value) == text
    assert client.send(D, "edit", "k", owner=2).waits


@pytest.mark.parametrize("change", ["write", "delete", "rewrite", "incr", "update", "clear"])
def test_edit_conflict(change: str) -> None:
    """What was written or deleted during an edit stays, and the edit is told; the turn goes on."""
    room = driver()
    one, two = room.client(), room.client()
    one.call(D, "__setitem__", "k", 1)
    turn, _ = one.call(D, "edit", "k")
    if change == "write":
        two.call(D, "__setitem__", "k", 1)
    elif change == "incr":
        two.call(D, "incr", "k")
    elif change == "update":
        two.call(D, "update", k=1)
    elif change == "clear":
        two.call(D, "clear")
    else:
        two.call(D, "__delitem__", "k")
        if change == "rewrite":
            two.call(D, "__setitem__", "k", 1)
    before = two.call(D, "items")
    waiting = two.send(D, "edit", "k")
    with pytest.raises(EditConflict) as raised:
        one.call(D, "edit", "k", turn, 9)
    assert (raised.value.object, raised.value.key) == (D, "'k'")
    assert two.call(D, "items") == before
    # The next has the turn, or learns that the key is gone.
    assert waiting.outcome() is KeyError if change in ("delete", "clear") else waiting.result()[1] == before[0][1]
    with pytest.raises(EditConflict):
        one.call(D, "edit", "k", turn)


def test_everyone_waiting_for_a_deleted_key_is_told() -> None:
    """A key that is gone by the end of a turn is a KeyError for all who wait, unless it is back by then."""
    room = driver()
    clients = [room.client() for _ in range(4)]
    clients[0].call(D, "__setitem__", "k", 1)
    turn, _ = clients[0].call(D, "edit", "k")
    waiting = [client.send(D, "edit", "k") for client in clients[1:]]
    clients[0].call(D, "__delitem__", "k")
    assert all(ticket.waits for ticket in waiting)
    clients[0].call(D, "edit", "k", turn)
    assert [ticket.outcome() for ticket in waiting] == [KeyError] * 3
    assert not room.instance(D)._lines


def test_turn_of_another_process() -> None:
    """A turn can be ended only by the process that has it."""
    room = driver()
    one, two = room.client(), room.client()
    one.call(D, "__setitem__", "k", 1)
    turn, _ = one.call(D, "edit", "k")
    for args in ((), (5,)):
        with pytest.raises(EditConflict):
            two.call(D, "edit", "k", turn, *args)
    assert one.call(D, "edit", "k", turn, 2) is None


@pytest.mark.parametrize("end", ["die", "thread", "cancel"])
def test_turn_is_freed(end: str) -> None:
    """The turn of an editor that ended, or never heard of it, goes to the next."""
    room = driver()
    one, two = room.client(), room.client()
    two.call(D, "__setitem__", "k", 1)
    one.deaf = True
    editing = one.send(D, "edit", "k", owner=4)
    waiting = two.send(D, "edit", "k")
    assert editing.result()[1] == 1 and waiting.waits
    if end == "die":
        one.end()
    elif end == "thread":
        one.end_owner(5)
        assert waiting.waits
        one.end_owner(4)
    else:
        editing.cancel()
        assert editing.result() is CANCELLED
    assert waiting.result()[1] == 1
    two.call(D, "edit", "k", waiting.result()[0], 2)
    assert room.statistics(D)["editing"] == 0 and not room.instance(D)._lines


def test_a_write_that_happened_is_not_cancelled() -> None:
    """Cancelling the end of an edit that has been answered says so."""
    room = driver()
    client = room.client()
    client.call(D, "__setitem__", "k", 1)
    turn, _ = client.call(D, "edit", "k")
    client.deaf = True
    ending = client.send(D, "edit", "k", turn, 2)
    ending.cancel()
    assert ending.result() is None
    assert room.client().call(D, "__getitem__", "k") == 2


def test_waiters_that_left() -> None:
    """Those who gave up or died while they waited for a turn are passed over, and nothing of them is kept."""
    room = driver()
    one, two, three = room.client(), room.client(), room.client()
    one.call(D, "__setitem__", "k", 1)
    turn, _ = one.call(D, "edit", "k")
    gone = two.send(D, "edit", "k")
    three.send(D, "edit", "k")
    gone.cancel()
    three.end()
    one.call(D, "edit", "k", turn)
    assert room.statistics(D)["editing"] == 0
    assert not room.instance(D)._lines and not room.instance(D)._turns


def test_dict_statistics() -> None:
    """Statistics count entries and keys that are edited."""
    room = driver()
    client = room.client()
    client.call(D, "update", a=1, b=2)
    client.call(D, "edit", "a")
    assert [room.statistics(D)[key] for key in ("entries", "editing")] == [2, 1]


KEYS = st.sampled_from(["a", "b", 1, True, 2.0, (1, None), None])
VALUES = st.one_of(st.integers(-3, 3), st.just(1 << 66), st.floats(allow_nan=False), st.lists(st.booleans()), st.text())


class Entries(RuleBasedStateMachine):
    """A shared dict against a builtin one: every verb, every reply, the order of the keys, and the edits."""

    def __init__(self) -> None:
        super().__init__()
        self.room = driver()
        self.clients = [self.room.client() for _ in range(3)]
        self.clients[0].call(D, "clear")
        self.model: dict[Any, Any] = {}
        # Counts the writings and deletions of each key, to know what an edit will find.
        self.writes: dict[Any, int] = {}
        self.turns: dict[Any, tuple[int, int, int, int]] = {}  # client, owner, turn, writes when it began
        self.lines: dict[Any, list[tuple[Ticket, int, int]]] = {}

    def wrote(self, *keys: Any) -> None:
        for key in keys:
            self.writes[key] = self.writes.get(key, 0) + 1

    def same(self, method: str, *args: Any, client: int = 0) -> None:
        """Call a verb of both, and compare results and errors."""
        ticket = self.clients[client].send(D, method, *args)
        try:
            expected = getattr(self.model, method)(*args)
        except (KeyError, TypeError) as error:
            assert ticket.outcome() is type(error)
        else:
            if method in ("keys", "values", "items", "__iter__"):
                expected = list(expected)
            result = ticket.result()
            assert result == expected and type(result) is type(expected)

    @rule(key=KEYS, value=VALUES, client=st.integers(0, 2))
    def set(self, key: Any, value: Any, client: int) -> None:
        self.same("__setitem__", key, value, client=client)
        self.wrote(key)

    @rule(key=KEYS, value=VALUES)
    def setdefault(self, key: Any, value: Any) -> None:
        if key not in self.model:
            self.wrote(key)
        self.same("setdefault", key, value)

    @rule(key=KEYS, method=st.sampled_from(["__delitem__", "pop"]))
    def remove(self, key: Any, method: str) -> None:
        self.wrote(key)
        self.same(method, key)

    @rule(key=KEYS, value=VALUES)
    def pop(self, key: Any, value: Any) -> None:
        self.wrote(key)
        self.same("pop", key, value)

    @rule()
    def popitem(self) -> None:
        self.wrote(*list(self.model)[-1:])
        self.same("popitem")

    @rule(clear=st.integers(0, 5))
    def clear(self, clear: int) -> None:
        if not clear:
            self.wrote(*self.model)
            self.same("clear")

    @rule(entries=st.lists(st.tuples(KEYS, VALUES), max_size=3), pairs=st.booleans())
    def update(self, entries: list[tuple[Any, Any]], pairs: bool) -> None:
        self.wrote(*dict(entries))
        self.same("update", entries if pairs else dict(entries))

    @rule(key=KEYS, method=st.sampled_from(["__getitem__", "get", "__contains__"]))
    def read(self, key: Any, method: str) -> None:
        self.same(method, key)

    @rule(method=st.sampled_from(["keys", "values", "items", "copy", "__len__", "__iter__"]))
    def read_all(self, method: str) -> None:
        self.same(method)

    @rule(key=KEYS, by=st.one_of(st.integers(-2, 2), st.floats(allow_nan=False)))
    def incr(self, key: Any, by: Any) -> None:
        ticket = self.clients[0].send(D, "incr", key, by)
        present = self.model.get(key, 0)
        if type(present) not in (int, float):
            assert ticket.outcome() is TypeError
            return
        expected = present + by
        assert repr(ticket.result()) == repr(expected)
        self.model[key] = expected
        self.wrote(key)

    @rule(key=KEYS, expected=VALUES, value=VALUES, loose=st.booleans())
    def compare_and_set(self, key: Any, expected: Any, value: Any, loose: bool) -> None:
        ticket = self.clients[0].send(D, "compare_and_set", key, expected, value, *([0] if loose else []))
        present = self.model.get(key)
        if key in self.model and repr(present) == repr(expected):
            assert ticket.result() is True
        elif loose and key in self.model:
            version, found = ticket.result()
            assert repr(found) == repr(present)
            assert self.clients[1].call(D, "compare_and_set", key, [[]], value, version) is True
        else:
            assert ticket.result() is False
            return
        self.model[key] = value
        self.wrote(key)

    # -- edits

    def busy(self, client: int, owner: int) -> bool:
        return any(entry[1:] == (client, owner) for line in self.lines.values() for entry in line)

    def begin(self, key: Any, ticket: Ticket, client: int, owner: int) -> None:
        turn, value = ticket.result()
        assert repr(value) == repr(self.model[key])
        self.turns[key] = (client, owner, turn, self.writes.get(key, 0))

    def pass_on(self, key: Any) -> None:
        del self.turns[key]
        line = self.lines.get(key, [])
        while line:
            ticket, client, owner = line.pop(0)
            if key in self.model:
                self.begin(key, ticket, client, owner)
                return
            assert ticket.outcome() is KeyError

    @rule(key=KEYS, client=st.integers(0, 2), owner=st.integers(1, 2))
    def edit(self, key: Any, client: int, owner: int) -> None:
        if self.busy(client, owner):
            return
        ticket = self.clients[client].send(D, "edit", key, owner=owner)
        held = self.turns.get(key)
        if held is not None and held[:2] == (client, owner):
            assert ticket.outcome() is RuntimeError
        elif held is not None:
            assert ticket.waits
            self.lines.setdefault(key, []).append((ticket, client, owner))
        elif key in self.model:
            self.begin(key, ticket, client, owner)
        else:
            assert ticket.outcome() is KeyError

    @precondition(lambda self: self.turns)
    @rule(data=st.data(), value=st.one_of(st.none(), VALUES), client=st.integers(0, 2))
    def end_edit(self, data: st.DataObject, value: Any, client: int) -> None:
        key = data.draw(st.sampled_from(list(self.turns)))
        holder, _, turn, writes = self.turns[key]
        args = () if value is None else (value,)
        ticket = self.clients[client].send(D, "edit", key, turn, *args, owner=3)
        if client != holder:
            assert ticket.outcome() is EditConflict
            return
        if args and (key not in self.model or self.writes.get(key, 0) != writes):
            assert ticket.outcome() is EditConflict
        else:
            assert ticket.result() is None
            if args:
                self.model[key] = value
                self.wrote(key)
        self.pass_on(key)

    @precondition(lambda self: any(self.lines.values()))
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from([key for key, line in self.lines.items() if line]))
        entry = data.draw(st.sampled_from(self.lines[key]))
        self.lines[key].remove(entry)
        entry[0].cancel()
        assert entry[0].result() is CANCELLED

    def leave(self, client: int, owners: tuple[int, ...]) -> list[Any]:
        for key, line in self.lines.items():
            self.lines[key] = [entry for entry in line if not (entry[1] == client and entry[2] in owners)]
        return [key for key, held in self.turns.items() if held[0] == client and held[1] in owners]

    @rule(client=st.integers(0, 2), owner=st.integers(1, 2))
    def end_thread(self, client: int, owner: int) -> None:
        freed = self.leave(client, (owner,))
        self.clients[client].end_owner(owner)
        for key in freed:
            self.pass_on(key)

    @rule(client=st.integers(0, 2))
    def die(self, client: int) -> None:
        freed = self.leave(client, (1, 2))
        self.clients[client].end()
        for key in freed:
            self.pass_on(key)
        self.clients[client] = self.room.client()

    @invariant()
    def agree(self) -> None:
        shared = self.room.instance(D)
        assert list(shared._values) == list(self.model) and set(shared._versions) <= set(self.model)
        assert all(ticket.waits for line in self.lines.values() for ticket, _, _ in line)
        told = self.room.statistics(D)
        assert [told[key] for key in ("entries", "editing")] == [len(self.model), len(self.turns)]
        assert set(shared._lines) <= set(shared._turns)


TestEntries = Entries.TestCase
TestEntries.settings = settings(max_examples=80, stateful_step_count=30)


# -- counter ---------------------------------------------------------------------------------------


def test_counter() -> None:
    """A counter counts up and down, exactly, and returns the new value."""
    client = driver().client()
    assert client.call(C, "incr") == 1
    assert client.call(C, "incr", by=1 << 80) == (1 << 80) + 1
    assert client.call(C, "decr", 1 << 80) == 1
    assert repr(client.call(C, "decr", 0.5)) == "0.5"
    assert client.call(C, "set", 7) is None
    assert [client.call(C, name) for name in ("get", "__int__", "__float__")] == [7, 7, 7.0]


def test_counter_start() -> None:
    """A counter starts where its definition says."""
    room = driver()
    room.client().create(C, start=2.5)
    assert room.client().call(C, "incr") == 3.5
    assert room.statistics(C)["value"] == 3.5


def test_counter_is_no_truth_value() -> None:
    """Asking a counter for its truth is an error that names get()."""
    client = driver().client()
    client.call(C, "incr")
    with pytest.raises(TypeError, match=r"^a counter is neither true nor false; compare what \.get\(\) returns$"):
        client.call(C, "__bool__")


@pytest.mark.parametrize("value", [True, None, "1", 1j])
def test_counter_refuses(value: object) -> None:
    """A counter counts ints and floats, and is left as it is by anything else."""
    room = driver()
    client = room.client()
    client.call(C, "incr")
    for method, name in (("incr", "by"), ("decr", "by"), ("set", "value")):
        with pytest.raises(TypeError, match=f"^{name} must be an int or a float, not "):
            client.call(C, method, value)
    assert client.call(C, "get") == 1
    with pytest.raises(TypeError, match=r"^start must be an int or a float, not "):
        client.create("counter:other", value)


@given(st.lists(st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False)), max_size=20))
def test_counter_is_a_sum(numbers: list[Any]) -> None:
    """A counter is the sum of what was added, in the order of the calls."""
    room = Driver(COUNTER)
    client = room.client()
    total: Any = 0
    for number in numbers:
        total += number
        assert repr(client.call(C, "incr", number)) == repr(total)
    assert repr(client.call(C, "incr", 0)) == repr(total + 0)
