"""Tests of copies that refuse to be changed."""

from __future__ import annotations

import copy
import datetime
import heapq
import json
import pickle
import pprint
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry._snapshots import FrozenDict, FrozenList, FrozenSet, freeze, is_sealed, thaw
from registry.errors import SnapshotError

PLAIN: dict[str, Any] = {"a": [1, {"b": {2, 3}}], "t": (1, [2]), "n": None, "s": {4}}

KEYS = st.none() | st.booleans() | st.integers() | st.text() | st.tuples(st.integers())
TREES = st.recursive(
    KEYS | st.floats(allow_nan=False) | st.binary() | st.sets(st.integers()),
    lambda item: st.lists(item) | st.dictionaries(KEYS, item) | st.tuples(item, item),
)


def frozen(value: Any) -> Any:
    """Freeze a value as a read would."""
    return freeze(value, "prices", "BTC")


def kinds(value: Any) -> set[type]:
    """Return the classes of the containers in a value."""
    found = {type(value)} if isinstance(value, (dict, list, set, tuple)) else set()
    inner = [*value, *value.values()] if isinstance(value, dict) else value
    for item in inner if isinstance(value, (dict, list, tuple)) else ():
        found |= kinds(item)
    return found


@given(TREES)
def test_a_snapshot_reads_like_the_value(value: Any) -> None:
    """It is equal, looks the same, and has the same order; and plain values are left alone."""
    snapshot = frozen(value)
    assert snapshot == value
    if set not in kinds(value):  # whose order is nobody's promise
        assert repr(snapshot) == repr(value)
    assert kinds(snapshot) <= {FrozenDict, FrozenList, FrozenSet, tuple}
    assert not kinds(value) & {FrozenDict, FrozenList, FrozenSet}


@pytest.mark.parametrize(
    "plain",
    [
        thaw,
        copy.copy,
        copy.deepcopy,
        lambda v: pickle.loads(pickle.dumps(v)),
        lambda v: pickle.loads(pickle.dumps(v, 0)),
    ],
    ids=["thaw", "copy", "deepcopy", "pickle", "pickle0"],
)
@given(value=TREES)
def test_copies_are_plain_all_the_way_down(plain: Callable[[Any], Any], value: Any) -> None:
    """Whatever a user calls a copy can be changed, at every level."""
    snapshot = frozen(value)
    if plain is copy.copy and type(snapshot) is tuple:
        return  # copy.copy of a tuple is the tuple; nothing of ours is asked
    again = plain(snapshot)
    assert again == value
    assert kinds(again) <= {dict, list, set, tuple}


@given(TREES)
def test_the_copy_method_is_the_cure(value: Any) -> None:
    """``v.copy()``, which the error names, gives what can be changed at every level."""
    if isinstance(value, (dict, list, set)):
        again = frozen(value).copy()
        assert again == value
        assert kinds(again) <= {dict, list, set, tuple}


CHANGES: list[tuple[str, Callable[[Any], object]]] = [
    ("dict", lambda v: v.__setitem__("a", 1)),
    ("dict", lambda v: v.__delitem__("a")),
    ("dict", lambda v: v.__ior__({})),
    ("dict", lambda v: v.__init__({})),
    ("dict", lambda v: v.clear()),
    ("dict", lambda v: v.pop("a")),
    ("dict", lambda v: v.popitem()),
    ("dict", lambda v: v.setdefault("a", 1)),
    ("dict", lambda v: v.update(a=1)),
    ("list", lambda v: v.__setitem__(0, 1)),
    ("list", lambda v: v.__setitem__(slice(None), [])),
    ("list", lambda v: v.__delitem__(0)),
    ("list", lambda v: v.__iadd__([1])),
    ("list", lambda v: v.__imul__(2)),
    ("list", lambda v: v.__init__([])),
    ("list", lambda v: v.append(1)),
    ("list", lambda v: v.clear()),
    ("list", lambda v: v.extend([1])),
    ("list", lambda v: v.insert(0, 1)),
    ("list", lambda v: v.pop()),
    ("list", lambda v: v.remove(1)),
    ("list", lambda v: v.reverse()),
    ("list", lambda v: v.sort()),
    ("set", lambda v: v.__iand__({1})),
    ("set", lambda v: v.__ior__({1})),
    ("set", lambda v: v.__isub__({1})),
    ("set", lambda v: v.__ixor__({1})),
    ("set", lambda v: v.__init__({1})),
    ("set", lambda v: v.add(1)),
    ("set", lambda v: v.clear()),
    ("set", lambda v: v.difference_update({1})),
    ("set", lambda v: v.discard(1)),
    ("set", lambda v: v.intersection_update({1})),
    ("set", lambda v: v.pop()),
    ("set", lambda v: v.remove(1)),
    ("set", lambda v: v.symmetric_difference_update({1})),
    ("set", lambda v: v.update({1})),
]


@pytest.mark.parametrize(("kind", "change"), CHANGES)
def test_every_change_is_refused(kind: str, change: Callable[[Any], object]) -> None:
    """Each method that changes names its container's kind and leaves it as it was."""
    value: Any = {"dict": {"a": 1}, "list": [1, 2], "set": {1, 2}}[kind]
    snapshot = frozen(value)
    with pytest.raises(SnapshotError, match=f"^this {kind} is a copy of 'prices'"):
        change(snapshot)
    assert snapshot == value


@pytest.mark.parametrize(("cls", "ours"), [(dict, FrozenDict), (list, FrozenList), (set, FrozenSet)])
def test_no_method_of_the_builtin_was_forgotten(cls: type, ours: type) -> None:
    """What a snapshot does not refuse or replace is known to change nothing."""
    harmless = {
        *dir(object),
        *("__class_getitem__", "__contains__", "__getitem__", "__iter__", "__len__", "__reversed__"),
        *(
            "__add__",
            "__mul__",
            "__rmul__",
            "__or__",
            "__ror__",
            "__and__",
            "__rand__",
            "__sub__",
            "__rsub__",
        ),
        *("__xor__", "__rxor__", "fromkeys", "get", "items", "keys", "values", "count", "index", "union"),
        *("difference", "intersection", "isdisjoint", "issubset", "issuperset", "symmetric_difference"),
    }
    assert set(dir(cls)) - set(vars(ours)) <= harmless


def test_statements_are_refused_too() -> None:
    """What people write is refused, also deep inside."""
    snapshot = frozen(PLAIN)
    with pytest.raises(SnapshotError):
        snapshot["new"] = 1
    with pytest.raises(SnapshotError):
        del snapshot["a"]
    with pytest.raises(SnapshotError):
        snapshot["a"] += [1]
    with pytest.raises(SnapshotError):
        snapshot["a"][1]["b"] |= {1}
    with pytest.raises(SnapshotError):
        snapshot["t"][1].append(3)
    with pytest.raises(SnapshotError):
        snapshot |= {}
    assert snapshot == PLAIN


def test_the_text_of_a_keyed_read() -> None:
    """The error names the object, the key, and both cures."""
    with pytest.raises(SnapshotError) as caught:
        frozen({"x": {}})["x"].clear()
    assert str(caught.value) == (
        "this dict is a copy of 'prices'['BTC']; a change here would be lost. "
        "To change the shared one: \"with prices.edit('BTC') as v\"; to keep your own: v.copy()"
    )


def test_the_text_of_other_reads() -> None:
    """A name that is no identifier, a read without a key, and a cure of the caller's have their own words."""
    with pytest.raises(SnapshotError, match=r'"with proxy.edit\(1\) as v"'):
        freeze([], "my-prices", 1).append(1)
    with pytest.raises(SnapshotError) as caught:
        freeze([], "jobs").append(1)
    assert str(caught.value) == (
        "this list is a copy of 'jobs'; a change here would be lost. "
        "To change the shared one: call the methods of its proxy; to keep your own: v.copy()"
    )
    with pytest.raises(SnapshotError, match=r"one: jobs.append\(item\); to keep"):
        freeze([], "jobs", cure="jobs.append(item)").append(1)


def test_one_made_by_hand_is_refused() -> None:
    """The classes are made by reads alone."""
    with pytest.raises(SnapshotError, match="this dict is a copy that cannot be changed"):
        FrozenDict({})
    with pytest.raises(SnapshotError):
        FrozenDict.fromkeys([1])


def test_a_set_looks_like_a_set() -> None:
    """The repr of a set is the builtin's, not that of a subclass."""
    assert repr(frozen({1})) == "{1}"
    assert repr(frozen(set())) == "set()"


def test_libraries_take_snapshots() -> None:
    """json, pprint, ``**``, ``match``'s protocols, sorting and set algebra work as with the builtins."""
    value = {"a": [1, {"b": 2}], "c": "d"}
    snapshot = frozen(value)
    assert json.loads(json.dumps(snapshot)) == value
    assert json.dumps(snapshot, indent=1) == json.dumps(value, indent=1)
    assert pprint.pformat(snapshot) == pprint.pformat(value)
    assert {**snapshot} == value
    assert dict(snapshot) == value
    assert sorted(frozen([3, 1, 2])) == [1, 2, 3]
    assert frozen([1]) + [2] == [1, 2]
    assert frozen({1, 2}) - {1} == {2}
    assert snapshot | {"e": 1} == {**value, "e": 1}
    match snapshot:
        case {"a": [1, {"b": found}]}:
            assert found == 2
        case _:
            pytest.fail("match did not take a snapshot")


@pytest.mark.parametrize("value", [{1} | {2}, frozenset({1})])
def test_what_is_derived_is_plain(value: Any) -> None:
    """Algebra on a snapshot gives a builtin that can be changed."""
    assert type(frozen({1}) | value) is set
    assert type(frozen({1}).union(value)) is set
    assert type(frozen([1]) + [1]) is list
    assert type(frozen([1])[:]) is list
    assert type(frozen({1: 2}) | {}) is dict


def test_objects_of_other_classes_are_left_alone() -> None:
    """Freezing stops at a class that is not an exact builtin, and keeps its identity."""
    ordered = OrderedDict(a=[1])
    day = datetime.date(2024, 2, 29)
    snapshot = frozen([ordered, day, "x"])
    assert snapshot[0] is ordered
    assert type(snapshot[0]["a"]) is list
    assert freeze(ordered, "d") is ordered
    assert freeze((1, "a"), "d") == (1, "a")


def test_a_tuple_without_containers_is_kept() -> None:
    """Nothing is rebuilt without need."""
    flat = (1, (2, "x"))
    assert frozen([flat])[0] is flat
    assert thaw(flat) is flat


def test_deepcopy_reaches_objects() -> None:
    """``deepcopy`` copies what is not ours too; ``.copy()`` keeps it."""
    ordered = OrderedDict(a=1)
    snapshot = frozen([ordered])
    assert snapshot.copy()[0] is ordered
    assert copy.deepcopy(snapshot)[0] is not ordered


def test_heapq_is_a_known_hole() -> None:
    """C code that takes a list's insides gets through, as documented; here to notice if it ever does not."""
    snapshot = frozen([1])
    heapq.heappush(snapshot, 0)
    assert snapshot == [0, 1]


@pytest.mark.parametrize(
    ("value", "sealed"),
    [
        (None, True),
        ("x", True),
        ((1, (b"", 2.0)), True),
        (datetime.date(2024, 2, 29), True),
        (frozenset({1}), True),
        ({1: 2}, False),
        (([],), False),
        (bytearray(), False),
        (object(), False),
        (OrderedDict(), False),
    ],
)
def test_what_cannot_be_changed(value: Any, sealed: bool) -> None:
    """Only trees of immutable builtins are sealed, and those that freezing made so."""
    assert is_sealed(value) is sealed
    assert is_sealed(frozen([value])) is (sealed or type(value) in (dict, tuple))


@given(TREES)
def test_a_snapshot_of_builtins_is_sealed(value: Any) -> None:
    """A cache may hand out one snapshot of plain values to everybody."""
    assert is_sealed(frozen(value))


def test_a_class_that_lies_about_its_name_is_not_sealed() -> None:
    """A class is known by what it is, not by what it calls itself."""
    fake = type("date", (), {"__module__": "datetime"})
    assert not is_sealed(fake())
