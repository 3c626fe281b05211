"""The state of objects of every kind, and back."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, deque
from typing import Any

import attrs
import pytest

from registry._state import capture, rebuild


class Plain:
    """Keeps its state in its dict."""

    def __init__(self, value: int = 0) -> None:
        self.value = value
        self.fixed = "fixed"


@attrs.define
class Slotted:
    """Keeps its state in the slots that attrs makes."""

    value: int = 0
    _hidden: list[int] = attrs.field(factory=list)
    derived: int = attrs.field(init=False, default=5)


@attrs.frozen
class Frozen:
    """Cannot be changed by assignment."""

    value: int = 0


@dataclasses.dataclass
class Data:
    """Is a dataclass."""

    value: int = 0
    items: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class FrozenData:
    """Is a dataclass that cannot be changed by assignment."""

    value: int = 0


class Tells:
    """Tells its state itself."""

    __slots__ = ("value",)

    def __init__(self, value: int = 0) -> None:
        self.value = value

    def state(self) -> list[int]:
        return [self.value]

    def load(self, state: list[int]) -> None:
        (self.value,) = state


@pytest.mark.parametrize("cls", [Plain, Slotted, Frozen, Data, FrozenData, Tells])
def test_instances_come_back(cls: Any) -> None:
    """What is captured from one instance makes a fresh one equal to it."""
    first, second = cls(7), cls()
    rebuild(second, capture(first))
    assert second.value == 7
    assert capture(second) == capture(first)


def test_private_and_derived_attributes_are_state() -> None:
    """Every field counts, whatever its name and wherever it comes from."""
    first, second = Slotted(1, [2]), Slotted()
    first.derived = 9
    rebuild(second, capture(first))
    assert second == first
    assert capture(first) == {"value": 1, "_hidden": [2], "derived": 9}


def test_attributes_that_were_removed_do_not_come_back() -> None:
    """An instance is made anew, not merged."""
    first, second = Plain(), Plain()
    del first.fixed
    rebuild(second, capture(first))
    assert not hasattr(second, "fixed")


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (dict, {"b": 1, "a": 2}),
        (list, [1, 2]),
        (set, {1, 2}),
        (deque, deque([1, 2])),
        (OrderedDict, OrderedDict(b=1, a=2)),
    ],
)
def test_builtin_containers_come_back(kind: Any, content: Any) -> None:
    """A builtin container is its own state, order included."""
    fresh = kind(content)
    rebuild(fresh, capture(content))
    assert fresh == content
    assert type(fresh) is kind
    if kind is not set:
        assert list(fresh) == list(content)


def test_a_deque_keeps_its_length() -> None:
    """What the factory decided stays."""
    fresh: deque[int] = deque(maxlen=2)
    rebuild(fresh, deque([1, 2], maxlen=2))
    assert (list(fresh), fresh.maxlen) == ([1, 2], 2)


def test_what_has_no_state_says_so() -> None:
    """An instance without attributes to look at raises TypeError."""
    with pytest.raises(TypeError):
        capture(object())
