"""The same programs on `registry.Manager()` and on `multiprocessing.Manager()` have the same results and errors."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator
from multiprocessing.managers import BaseProxy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import registry

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="private servers listen at unix sockets")


class Point:
    """A class that nobody has declared."""

    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and self.x == other.x

    def __hash__(self) -> int:
        return hash(self.x)

    def __repr__(self) -> str:
        return f"Point({self.x})"


class Inner:
    """Stands for a list of the same manager, put in as a proxy."""

    def __repr__(self) -> str:
        return "Inner()"


SMALL = st.integers(-3, 6)
KEYS = st.one_of(SMALL, st.sampled_from(["a", "b", (1, 2), 1.0, None]))
PLAIN = st.one_of(SMALL, st.text(max_size=2), st.just([1]), st.just({"k": 1}), st.builds(Point, SMALL))
VALUES = st.one_of(PLAIN, st.builds(Inner))
SLICES = st.builds(slice, SMALL | st.none(), SMALL | st.none(), st.sampled_from([None, 1, 2, -1, 0]))
NAMES = st.sampled_from(["x", "y", "copy", "_hidden"])
TIMEOUTS = st.sampled_from([0, 0.001, -2])


def calls(**methods: Any) -> st.SearchStrategy[tuple[str, tuple[Any, ...]]]:
    """Return a strategy of calls: a method, and its arguments drawn each."""
    return st.one_of(*(st.tuples(st.just(name), st.tuples(*args)) for name, args in methods.items()))


ACQUIRING = {
    "acquire": [st.just(False)],
    "__str__": [],
    "release": [],
}
PROGRAMS: dict[str, tuple[st.SearchStrategy[tuple[Any, ...]], st.SearchStrategy[Any]]] = {
    "list": (
        st.tuples() | st.tuples(st.lists(VALUES, max_size=4)),
        calls(
            append=[VALUES], extend=[st.lists(PLAIN, max_size=3)], insert=[SMALL, VALUES], pop=[SMALL], remove=[PLAIN],
            index=[PLAIN], count=[PLAIN], reverse=[], sort=[], __len__=[], __str__=[], __iter__=[],
            __add__=[st.just([1])], __mul__=[SMALL], __rmul__=[SMALL], __imul__=[SMALL],
            __iadd__=[st.lists(PLAIN, max_size=2)], __contains__=[PLAIN], __getitem__=[SMALL | SLICES],
            __delitem__=[SMALL | SLICES], __setitem__=[SMALL, VALUES], _getvalue=[], append_to_last=[PLAIN],
        ),
    ),
    "dict": (
        st.tuples() | st.tuples(st.dictionaries(KEYS, VALUES, max_size=4)),
        calls(
            get=[KEYS, PLAIN], pop=[KEYS], popitem=[], setdefault=[KEYS, VALUES], clear=[], copy=[], keys=[], values=[],
            items=[], update=[st.dictionaries(KEYS, PLAIN, max_size=3)], __len__=[], __str__=[], __iter__=[],
            __contains__=[KEYS | st.just([])], __getitem__=[KEYS], __delitem__=[KEYS],
            __setitem__=[KEYS | st.just([]), VALUES], _getvalue=[],
        ),
    ),
    "Value": (
        st.tuples(st.just("i"), PLAIN),
        calls(get=[], set=[PLAIN], __str__=[], nothing_of_the_kind=[]),
    ),
    "Namespace": (
        st.tuples(),
        calls(__setattr__=[NAMES, VALUES], __getattr__=[NAMES], __delattr__=[NAMES], __str__=[]),
    ),
    "Array": (
        st.tuples(st.sampled_from(["i", "d"]), st.lists(SMALL, max_size=4)),
        calls(__len__=[], __getitem__=[SMALL | SLICES], __setitem__=[SMALL, SMALL], __str__=[], __iter__=[]),
    ),
    "Queue": (
        st.tuples(st.integers(0, 2)),
        calls(
            put=[VALUES, st.just(False)], get=[st.just(False)], put_nowait=[PLAIN], get_nowait=[], qsize=[], empty=[],
            full=[], task_done=[], get_in=[TIMEOUTS], put_in=[PLAIN, TIMEOUTS],
        ),
    ),
    "Lock": (st.tuples(), calls(**ACQUIRING, acquire_in=[TIMEOUTS])),
    "RLock": (st.tuples(), calls(**ACQUIRING, acquire_in=[TIMEOUTS])),
    "Semaphore": (st.tuples(SMALL), calls(**ACQUIRING, acquire_in=[st.just(0)], release_many=[SMALL])),
    "BoundedSemaphore": (st.tuples(SMALL), calls(**ACQUIRING, acquire_in=[st.just(0)], release_many=[SMALL])),
    "Event": (st.tuples(), calls(is_set=[], set=[], clear=[], wait=[st.just(0)])),
    "Condition": (
        st.tuples(), calls(acquire=[st.just(False)], release=[], notify=[SMALL], notify_all=[], wait=[st.just(0)])
    ),
}  # fmt: skip
# What locks and their like look like is each one's own.
SHOWN = ("list", "dict", "Value", "Namespace", "Array")


class Side:
    """One of the two managers, and the object of a program in it."""

    def __init__(self, manager: Any, typeid: str, args: tuple[Any, ...]) -> None:
        self.manager = manager
        self.typeid = typeid
        self.object: Any = None
        self.made = self.outcome(lambda: setattr(self, "object", getattr(manager, typeid)(*self.filled(args))))

    def filled(self, value: Any) -> Any:
        """Put proxies of this manager in the places that were left for them."""
        if type(value) is Inner:
            return self.manager.list([1])
        if type(value) in (tuple, list):
            return type(value)(map(self.filled, value))
        if type(value) is dict:
            return {key: self.filled(each) for key, each in value.items()}
        return value

    def seen(self, value: Any) -> Any:
        """Return a value as it can be compared: proxies as what they stand for."""
        if isinstance(value, BaseProxy):
            return type(value).__name__, value._callmethod("#GETVALUE")
        if type(value) in (tuple, list):
            return type(value)(map(self.seen, value))
        if type(value) is dict:
            return {key: self.seen(each) for key, each in value.items()}
        return value

    def outcome(self, call: Any) -> Any:
        """Return the result of a call, or its error."""
        try:
            return self.seen(call())
        except Exception as error:  # noqa: BLE001 - whatever it is, both are to have it
            last = str(error).strip("-\n").rpartition("\n")[2]
            return type(error).__name__, last

    def do(self, method: str, args: tuple[Any, ...]) -> Any:
        """Make one call of a program."""
        given, it = self.filled(args), self.object
        if method == "append_to_last":
            return self.outcome(lambda: it[len(it) - 1].append(*given))
        if method.endswith("_in"):  # a timeout
            *first, timeout = given
            return self.outcome(lambda: getattr(it, method[:-3])(*first, True, timeout))
        if method == "release_many":
            return self.outcome(lambda: it._callmethod("release", given))
        if method == "__iter__":
            return self.outcome(lambda: list(it))
        if method == "__str__":
            # Addresses of proxies in a container are nobody's to compare.
            return self.outcome(lambda: str(it).partition(" at 0x")[0]) if self.typeid in SHOWN else None
        if method in ("__iadd__", "__imul__"):
            return self.outcome(lambda: getattr(it, method)(*given) is it)
        if method in ("__setattr__", "__getattr__", "__delattr__"):
            plain = {"__setattr__": setattr, "__getattr__": getattr, "__delattr__": delattr}[method]
            return self.outcome(lambda: plain(it, *given))
        return self.outcome(lambda: getattr(it, method)(*given))


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Any, Any]]:
    """Start ours, and the standard one."""
    with registry.Manager() as ours, multiprocessing.Manager() as theirs:
        yield ours, theirs
        BaseProxy._address_to_local.clear()  # type: ignore[attr-defined]


@pytest.mark.parametrize("typeid", PROGRAMS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_programs_cannot_tell_them_apart(both: tuple[Any, Any], typeid: str, data: st.DataObject) -> None:
    """Whatever a program does with an object, results and errors are those of the standard manager."""
    making, calling = PROGRAMS[typeid]
    args = data.draw(making)
    ours, theirs = (Side(manager, typeid, args) for manager in both)
    assert ours.made == theirs.made
    if ours.object is None:
        return
    for method, given_args in data.draw(st.lists(calling, max_size=12)):
        assert ours.do(method, given_args) == theirs.do(method, given_args), method
