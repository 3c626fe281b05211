"""What methods return is whole by the end of their step, and of a class that clients know."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field
from typing import Any

import attrs
import pytest
from container_classes import CURIOUS, JAR, LAZY, ROW, SHELF, TAGS
from engine_driver import START, Client, Driver

from registry import SharedObject
from registry.errors import NotDurable, NotShareable


class Endless:
    """Count without an end."""

    def keys(self) -> Any:
        return itertools.count()


ENDLESS = SharedObject("endless", Endless)


@pytest.fixture
def driver() -> Driver:
    return Driver(JAR, SHELF, LAZY, CURIOUS, ROW, TAGS, ENDLESS, twin=True)


@pytest.fixture
def client(driver: Driver) -> Client:
    return driver.client()


@pytest.mark.parametrize("title", ["jar:a", "bookshelf:a", "lazy:a"])
def test_views_and_iterators_of_a_mapping_are_lists(client: Client, title: str) -> None:
    """Of exactly that class, with the pairs as tuples."""
    client.call(title, "__setitem__", "b", 1)
    client.call(title, "__setitem__", "a", [2])
    assert client.call(title, "keys") == ["b", "a"]
    assert client.call(title, "values") == [1, [2]]
    assert client.call(title, "items") == [("b", 1), ("a", [2])]
    for method in ("keys", "values", "items", "__iter__"):
        assert type(client.call(title, method)) is list


@pytest.mark.parametrize(
    ("title", "change", "method", "args", "result"),
    [
        ("jar:a", ("__setitem__", "b", 1), "copy", (), {"b": 1}),
        ("lazy:a", ("__setitem__", "b", 1), "copy", (), {"b": 1}),
        ("row:a", ("extend", [1, "two", 3]), "copy", (), [1, "two", 3]),
        ("row:a", ("extend", [1, "two", 3]), "__getitem__", (slice(1, None),), ["two", 3]),
        ("row:a", ("extend", [1, "two", 3]), "__getitem__", (1,), "two"),
        ("row:a", ("append", (1, 2)), "__getitem__", (0,), (1, 2)),
        ("tags:a", ("add", "b"), "copy", (), {"b"}),
        ("tags:a", ("add", "b"), "union", (["c"],), {"b", "c"}),
    ],
)
def test_what_a_container_makes_of_itself_is_a_builtin(
    client: Client, title: str, change: tuple[Any, ...], method: str, args: tuple[Any, ...], result: object
) -> None:
    """Its copy, a slice, a union; and an item is what it is."""
    client.call(title, *change)
    returned = client.call(title, method, *args)
    assert (type(returned), returned) == (type(result), result)


def test_a_view_is_read_inside_of_its_step(client: Client) -> None:
    """What the class does for each item may ask who calls and when, as the method may."""
    client.call("curious:a", "__setitem__", "b", "one")
    assert client.call("curious:a", "items") == [("b", f"one, read at {START:g}")]
    assert client.call("curious:a", "values") == [f"one, read at {START:g}"]


@pytest.mark.parametrize("method", ["values", "items"])
def test_what_fails_while_a_view_is_read_is_its_callers_to_know(client: Client, method: str) -> None:
    """The error comes out of the call, and the object and the engine go on."""
    client.call("curious:a", "__setitem__", "b", "torn")
    with pytest.raises(OSError, match="b cannot be read"):
        client.call("curious:a", method)
    assert client.call("curious:a", "keys") == ["b"]
    client.call("curious:a", "__setitem__", "b", "whole")
    assert len(client.call("curious:a", method)) == 1


def test_a_view_inside_of_something_else_is_refused(client: Client) -> None:
    """Nobody reads it for its author, and the error says how."""
    with pytest.raises(NotShareable, match=r"value\[0\] of class .*KeysView cannot be shared: .*: pass list\(v\)"):
        client.call("curious:a", "views")


def test_an_iterator_of_what_is_no_container_is_refused(client: Client) -> None:
    """It may have no end, and then nobody else would ever be served."""
    with pytest.raises(NotShareable, match=r"pass list\(v\)"):
        client.call("endless:a", "keys")


# -- objects that cannot be kept


class Locked:
    def __init__(self) -> None:
        self.lock = threading.Lock()

    def get(self) -> None: ...


@attrs.define
class Fields:
    lock: Any = attrs.field(factory=threading.Condition)

    def get(self) -> None: ...


@dataclass
class Nested:
    jars: dict[str, Any] = field(default_factory=lambda: {"x": [1, Locked()]})

    def get(self) -> None: ...


class Open:
    def __init__(self) -> None:
        self.file = open(__file__)

    def get(self) -> None: ...


class Telling:
    def state(self) -> object:
        return {"jars": [Locked()]}

    def load(self, state: object) -> None: ...
    def get(self) -> None: ...


UNNEEDED = ", and not needed: methods run one at a time, and wait by hosting.Waiters"
UNKNOWN = f" is of class {__name__}.Locked: the other side does not know its class: make it a dict, or"


@pytest.mark.parametrize(
    ("cls", "reason"),
    [
        (Locked, f"self.lock is a _thread.lock{UNNEEDED}"),
        (Fields, f"self.lock is a threading.Condition{UNNEEDED}"),
        (Nested, f"self.jars['x'][1]{UNKNOWN}"),
        (Telling, f"state()['jars'][0]{UNKNOWN}"),
    ],
)
def test_what_cannot_be_kept_is_named_as_its_author_knows_it(cls: type, reason: str) -> None:
    """The attribute, the place in it, and the cure; the object is not there afterwards."""
    driver = Driver(SharedObject("it", cls))
    with pytest.raises(NotDurable) as caught:
        driver.client().create("it:a")
    assert caught.value.class_name == cls.__qualname__
    assert caught.value.reason.startswith(reason)
    assert driver.engine.find("it", "a") is None


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_an_open_file_is_no_state() -> None:
    """Nor is a socket: the error says what to keep instead."""
    with pytest.raises(NotDurable, match=r"self\.file is of class _io\.TextIOWrapper: it is open in this process only"):
        Driver(SharedObject("it", Open)).client().create("it:a")
