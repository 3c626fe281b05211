"""The shared list and set: as a list and a set, whatever is done with them, from a client and inside the engine."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from engine_driver import Driver
from hypothesis import given, settings
from hypothesis import strategies as st

from registry import ManagerClient, connect
from registry.errors import NotShareable, SnapshotError
from registry_containers import LIST, SET

# Values of which those that are equal are encoded alike, so that a list agrees with one that compares by `==`.
VALUES = st.integers(-3, 3) | st.text("ab", max_size=2) | st.tuples(st.integers(0, 2)) | st.just([1, {"a": None}])
MEMBERS = st.integers(-3, 3) | st.sampled_from([1.0, True, "a", "b", ("a", 1), None])
INDEXES = st.integers(-5, 5)
SLICES = st.builds(slice, st.none() | INDEXES, st.none() | INDEXES, st.none() | st.sampled_from([-2, -1, 1, 2]))
MANY = st.lists(VALUES, max_size=4)
GROUP = st.lists(MEMBERS, max_size=4)

LIST_STEPS = st.one_of(
    st.tuples(st.just("append"), VALUES),
    st.tuples(st.just("extend"), MANY),
    st.tuples(st.just("insert"), INDEXES, VALUES),
    st.tuples(st.just("pop")),
    st.tuples(st.just("pop"), INDEXES),
    st.tuples(st.just("remove"), VALUES),
    st.tuples(st.just("index"), VALUES),
    st.tuples(st.just("index"), VALUES, INDEXES, INDEXES),
    st.tuples(st.just("count"), VALUES),
    st.tuples(st.just("reverse")),
    st.tuples(st.just("clear")),
    st.tuples(st.just("__getitem__"), INDEXES | SLICES),
    st.tuples(st.just("__setitem__"), INDEXES, VALUES),
    st.tuples(st.just("__setitem__"), SLICES, MANY),
    st.tuples(st.just("__delitem__"), INDEXES | SLICES),
    st.tuples(st.just("__contains__"), VALUES),
    st.tuples(st.just("__len__")),
    st.tuples(st.just("__iadd__"), MANY),
)
SET_STEPS = st.one_of(
    st.tuples(st.sampled_from(["remove", "__contains__"]), MEMBERS),
    st.tuples(st.sampled_from(["update", "difference_update", "intersection_update"]), GROUP),
    st.tuples(st.sampled_from(["update", "difference_update", "intersection_update"]), GROUP, GROUP),
    st.tuples(st.sampled_from(["symmetric_difference_update", "isdisjoint", "issubset", "issuperset"]), GROUP),
    st.tuples(st.sampled_from(["clear", "__len__"])),
    st.tuples(st.sampled_from("__ior__ __iand__ __isub__ __ixor__".split()), st.sets(MEMBERS, max_size=4)),
    st.tuples(st.sampled_from("__or__ __and__ __sub__ __xor__ __rsub__".split()), st.sets(MEMBERS, max_size=4)),
    st.tuples(st.sampled_from("__lt__ __le__ __gt__ __ge__ __eq__".split()), st.sets(MEMBERS, max_size=4)),
)


@pytest.fixture(scope="module")
def shared() -> Iterator[ManagerClient]:
    with connect("memory://") as client:
        yield client


def answer(function: Callable[..., Any], target: Any, *args: Any) -> object:
    """Return what came of a call: its result, itself, or the class of its error."""
    try:
        result = function(target, *args)
    except (IndexError, ValueError, KeyError, TypeError) as error:
        return type(error)
    return "itself" if result is target else result


def play(target: Any, model: Any, steps: list[tuple[Any, ...]]) -> None:
    """Do the same to both, and find the same in both after each step."""
    for name, *args in steps:
        wanted = answer(getattr(type(model), name), model, *args)
        found = answer(getattr(type(target), name), target, *args)
        assert found == wanted, (name, args)
        assert type(found) is type(wanted) or isinstance(found, type(wanted))
        assert target.copy() == model
        assert target == model


@settings(max_examples=150, deadline=None)
@given(st.lists(LIST_STEPS, max_size=12))
def test_a_shared_list_is_a_list(shared: ManagerClient, steps: list[tuple[Any, ...]]) -> None:
    """Step by step, refusals included, which change nothing."""
    target = shared.list("model")
    target.clear()
    play(target, [], steps)
    assert list(reversed(target)) == target.copy()[::-1]
    assert list(target) == target.copy()


@settings(max_examples=150, deadline=None)
@given(st.lists(SET_STEPS, max_size=12))
def test_a_shared_set_is_a_set(shared: ManagerClient, steps: list[tuple[Any, ...]]) -> None:
    """Step by step, refusals included, which change nothing."""
    target = shared.set("model")
    target.clear()
    target.update([1, "a"])
    play(target, {1, "a"}, steps)
    assert set(target) == target.copy()


@settings(max_examples=100, deadline=None)
@given(GROUP)
def test_adding_tells_whether_it_is_new(shared: ManagerClient, members: list[Any]) -> None:
    """So does taking away; and what is taken out comes in the order in which it came in."""
    target, model = shared.set("new"), dict[Any, None]()
    target.clear()
    for member in members:
        assert target.add(member) is (member not in model)
        model.setdefault(member)
    assert [target.pop() for _ in model] == list(model)
    with pytest.raises(KeyError, match="pop from an empty set"):
        target.pop()
    assert target.add("x") is True
    assert (target.discard("x"), target.discard("x")) == (True, False)


def test_operators_of_two_shared_sets(shared: ManagerClient) -> None:
    """Give plain sets; what is no set is refused, as by a set."""
    one, two = shared.set("one"), shared.set("two")
    one.update([1, 2])
    two.update([2, 3])
    assert (one | two, one & two, one - two, one ^ two) == ({1, 2, 3}, {2}, {1}, {1, 3})
    assert {9} | one == {9, 1, 2}
    assert {1, 9} - one == {9}
    assert one > {1} and one <= {1, 2} and not one < two
    one |= two
    assert one == {1, 2, 3} and type(one | two) is set
    for refused in (operator.or_, operator.ior, operator.lt):
        with pytest.raises(TypeError):
            refused(one, [5])
    assert one == {1, 2, 3}


def test_a_list_keeps_what_cannot_be_decoded(shared: ManagerClient) -> None:
    """Values of any class, alone and many at once; what is read is a snapshot that says where it comes from."""
    box = shared.list("boxes")
    box.append(Box(1))
    box += [Box(2), {"a": [3]}]
    box[0:0] = [Box(0)]
    assert [each.number for each in box[:3]] == [0, 1, 2]
    with pytest.raises(SnapshotError, match="'boxes'"):
        box[3]["a"].append(4)
    other = shared.list("others")
    other.extend(box)
    assert other[-1] == {"a": [3]}


def test_a_refusal_changes_nothing(shared: ManagerClient) -> None:
    """Neither does the half of many values that could have been taken."""
    target = shared.list("refused")
    target.extend([1, 2, 3])
    with pytest.raises(NotShareable, match="cannot be shared"):
        target.extend([4, lambda: None])
    with pytest.raises(ValueError, match="attempt to assign sequence of size 1 to extended slice of size 2"):
        target[::2] = [9]
    with pytest.raises(TypeError, match="list indices must be integers or slices, not str"):
        target["a"] = 1
    with pytest.raises(ValueError, match="compares encodings: 1 and 1.0 differ"):
        target.remove(1.0)
    with pytest.raises(IndexError, match="pop index out of range"):
        target.pop(7)
    assert target.copy() == [1, 2, 3]
    members = shared.set("refused")
    for name in ("add", "discard", "remove"):
        with pytest.raises(TypeError, match="unhashable"):
            getattr(members, name)([])
    with pytest.raises(TypeError, match="unhashable"):
        members.update([1], [[]])
    assert len(members) == 0


def test_many_values_are_one_event() -> None:
    """Two engines that are fed the same agree on both, in their images, too."""
    driver = Driver(LIST, SET, twin=True)
    client = driver.client()
    before = driver.engine.index
    client.call("list:l", "extend", [1, "x", (2,)])
    client.call("set:s", "update", ["b", "a"], {1, "c", ("d",)})
    assert driver.engine.index <= before + 5
    assert client.call("list:l", "copy") == [1, "x", (2,)]
    assert client.call("set:s", "copy") == {"b", "a", 1, "c", ("d",)}


class Box:
    """A class that nobody has declared."""

    def __init__(self, number: int) -> None:
        self.number = number
