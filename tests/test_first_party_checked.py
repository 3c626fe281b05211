"""Every type of this package may be served with a log: `registry.testing.check` finds nothing in any of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import registry_containers
import registry_queues
import registry_sync
from registry import SharedObject
from registry.testing import Call, End, Use, check

pytestmark = pytest.mark.once

PLUGINS = (registry_containers, registry_queues, registry_sync)
ALL = [declaration for plugin in PLUGINS for declaration in plugin.registry_shared_objects()]

# What objects are made with.
ARGUMENTS: dict[str, tuple[Any, ...]] = {"barrier": (2,), "latch": (3,), "queue": (2,), "semaphore": (2,)}


def of_dict() -> list[Call]:
    """Write, read, count, edit in turns, give turns up, time out, and die with a turn."""
    mine, yours = Use("edit", "k"), Use("edit", "k", session=2)
    return [
        ("__setitem__", "k", {"a": [1, (2, 3)]}),
        ("__setitem__", 1, "one"),
        ("__contains__", "k"),
        ("__getitem__", "k"),
        ("__len__",),
        ("__iter__",),
        ("incr", "n"),
        Use("incr", "n", by=2.5, session=2),
        ("get", "missing", 7),
        ("setdefault", "s", "first"),
        ("update", {"x": 1, "y": 2}),
        ("get_many", ["y", "missing", "x"]),
        ("compare_and_set", "x", 1, 10),
        ("compare_and_set", "x", 1.0, 11, 0),
        ("keys",),
        ("values",),
        ("items",),
        ("copy",),
        mine,
        yours,
        Use("edit", "k", session=3),
        ("edit", "k", mine[0], {"a": 2}),
        Use("edit", "k", yours[0], session=2),
        End(3),
        Use("edit", "k", session=4),
        End(4),
        ("__delitem__", 1),
        ("pop", "x"),
        ("popitem",),
        ("clear",),
        ("pop", "x"),
    ]


def of_list() -> list[Call]:
    """Write in all ways, ask in all ways, and be refused."""
    return [
        ("append", {"a": [1]}),
        ("extend", [1, (2,), "x", 1]),
        Use("insert", 1, b"y", session=2),
        ("__getitem__", -1),
        ("__getitem__", slice(1, 3)),
        ("__getitem__", 9),
        ("__setitem__", 0, None),
        ("__setitem__", slice(1, 2), [5, 6]),
        ("__setitem__", "x", 1),
        ("__contains__", 1.0),
        ("__len__",),
        ("__iter__",),
        ("__reversed__",),
        ("index", 1),
        ("index", "missing"),
        ("count", 1),
        ("copy",),
        ("remove", 6),
        ("remove", 6),
        ("reverse",),
        ("pop",),
        ("pop", 0),
        ("__delitem__", slice(0, 2)),
        ("clear",),
        ("pop",),
    ]


def of_set() -> list[Call]:
    """Add and remove in all ways, ask in all ways, and be refused."""
    return [
        ("add", 1),
        Use("add", 1.0, session=2),
        ("add", ("a", b"b")),
        ("add", []),
        ("update", {1, 2, 3}, ["x", "y"]),
        ("__contains__", 2),
        ("__len__",),
        ("__iter__",),
        ("copy",),
        ("isdisjoint", [9]),
        ("issubset", [1]),
        ("issuperset", [1, 2]),
        ("discard", 2),
        ("discard", 2),
        ("remove", 3),
        ("remove", 3),
        ("difference_update", {"x"}),
        ("symmetric_difference_update", {"y", "z"}),
        ("intersection_update", {1, "z", ("a", b"b")}, [1, "z"]),
        ("pop",),
        ("clear",),
        ("pop",),
    ]


def of_counter() -> list[Call]:
    """Count up and down, with ints beyond 64 bits and floats."""
    names = ("get", "__int__", "__float__", "__bool__")
    return [
        ("incr",),
        ("incr", 2**70),
        ("decr", 3),
        *[(name,) for name in names],
        ("set", 1.5),
        ("decr", 0.5),
        ("get",),
    ]


def of_queue() -> list[Call]:
    """Fill it, wait at both ends, claim, settle, time out, and die with a claim."""
    claim = Use("claim", session=2)
    other = Use("claim", session=3)
    return [
        ("put_nowait", "a"),
        ("put", ("b", {1, 2})),
        ("full",),
        Use("put", "c", session=2),
        Use("put", "d", True, 1.0, session=3),
        ("put_nowait", "e"),
        claim,
        ("get",),
        Use("settle", claim[0], session=2),
        other,
        ("qsize",),
        Use("settle", other[0], False, session=3),
        Use("claim", session=4),
        End(4),
        ("get",),
        ("get_nowait",),
        Use("get", True, 2.0, session=5),
        Use("get", session=6),
        ("put", "f", False),
        ("empty",),
        ("put_many", ["g", "h"]),
        ("put_many", ["i"], False),
        ("get_many", 3),
        Use("get_many", 2, session=7),
        Use("get_many", 2, True, 1.0, session=8),
        ("put_many", ["j", "k"]),
        ("put_many", ["l", "m"]),
        Use("put_many", ["n", "o"], session=9),
        Use("put_many", ["p"], True, 1.0, session=10),
        ("get_many", 2),
    ]


def of_lock(*, again: bool = False) -> list[Call]:
    """Take it, wait in line, be refused, time out, die as a holder and in line, and give back."""
    return [
        ("acquire",),
        *([("acquire",), ("release",)] if again else []),
        ("locked",),
        Use("acquire", session=2),
        Use("acquire", True, 1.0, session=3),
        Use("acquire", False, session=4),
        Use("release", session=4),
        Use("locked", after=2.0),
        Use("acquire", session=5),
        End(5),
        ("release",),
        Use("acquire", session=6),
        End(2),
        Use("release", session=6),
        ("acquire",),
        End(1, owner=1),
        ("locked",),
    ]


def of_rwlock() -> list[Call]:
    """Read together, write alone, stand in line, go from one to the other, and die."""
    return [
        ("read",),
        Use("read", session=2),
        Use("write", session=3),
        Use("read", session=4),
        Use("read", True, 1.0, session=5),
        ("write", False),
        ("locked",),
        Use("release", after=2.0),
        Use("release", session=2),
        Use("read", session=3),
        End(3),
        Use("release", session=4),
        ("locked",),
        ("write",),
        ("read",),
        ("release",),
        ("release",),
    ]


def of_semaphore(*, surplus: bool = True) -> list[Call]:
    """Take all permits, wait, give back, give one that nobody had, and die with one."""
    return [
        ("acquire",),
        Use("acquire", session=2),
        Use("acquire", session=3),
        Use("acquire", True, 1.0, session=4),
        ("acquire", False),
        ("value",),
        Use("release", after=2.0),
        End(3),
        End(2),
        ("value",),
        *([("release",)] if surplus else [("release",), ("release",)]),
        ("value",),
    ]


def of_event() -> list[Call]:
    """Wait, time out, set, clear."""
    return [
        Use("wait", session=2),
        Use("wait", 1.0, session=3),
        Use("is_set", after=2.0),
        ("set",),
        ("wait",),
        ("clear",),
        ("is_set",),
        ("wait", 0.0),
    ]


def of_condition() -> list[Call]:
    """Wait for a notification, with and without a timeout, pass one on, and die notified."""
    return [
        *[Use(name, session=session) for session in (1, 2, 3, 4) for name in ("acquire", "wait")],
        Use("acquire", session=5),
        Use("wait_for", 1.0, session=5),
        Use("acquire", session=6, after=2.0),
        Use("release", session=5),
        Use("notify", session=6),
        ("locked",),
        Use("release", session=6),
        Use("wait_for", passing=True),
        End(2),
        Use("acquire", session=7),
        Use("notify_all", session=7),
        Use("release", session=7),
        Use("release", session=3),
        Use("release", session=4),
    ]


def of_barrier() -> list[Call]:
    """Meet, break by a timeout and by a death, abort, and begin anew."""
    return [
        ("wait",),
        ("n_waiting",),
        Use("wait", session=2),
        ("wait", 1.0),
        Use("broken", after=2.0),
        ("reset",),
        Use("wait", session=3),
        End(3),
        ("wait",),
        ("reset",),
        Use("wait", session=4),
        ("abort",),
        ("parties",),
    ]


def of_latch() -> list[Call]:
    """Count down to the end while others wait."""
    return [
        Use("wait", session=2),
        Use("wait", 1.0, session=3),
        ("count_down",),
        Use("remaining", after=2.0),
        ("count_down", 2),
        ("wait",),
        ("count_down",),
    ]


STORIES: dict[str, Callable[[], list[Call]]] = {
    "dict": of_dict,
    "list": of_list,
    "set": of_set,
    "counter": of_counter,
    "queue": of_queue,
    "lock": of_lock,
    "rlock": lambda: of_lock(again=True),
    "rwlock": of_rwlock,
    "semaphore": of_semaphore,
    "bounded_semaphore": lambda: of_semaphore(surplus=False),
    "event": of_event,
    "condition": of_condition,
    "barrier": of_barrier,
    "latch": of_latch,
}
# `bool()` of a counter always raises.
NEVER = {"counter": ("__bool__",)}


def test_every_type_has_a_story() -> None:
    """No type of this package is left out."""
    assert set(STORIES) == {each.typeid for each in ALL}


@pytest.mark.parametrize("declaration", ALL, ids=lambda declaration: declaration.typeid)
def test_a_type_of_this_package_may_be_logged(declaration: SharedObject[Any]) -> None:
    """A story that has every method of the type return, its waits and deaths among it, shows nothing wrong."""
    report = check(declaration, STORIES[declaration.typeid](), args=ARGUMENTS.get(declaration.typeid, ()), seeds=(1, 2))
    assert report.skipped == ()
    assert report.missed == NEVER.get(declaration.typeid, ())


@pytest.mark.parametrize("declaration", ALL, ids=lambda declaration: declaration.typeid)
def test_made_up_calls_show_nothing_either(declaration: SharedObject[Any]) -> None:
    """Whatever is called in whatever order, nothing is wrong."""
    report = check(declaration, args=ARGUMENTS.get(declaration.typeid, ()), seeds=())
    assert report.skipped == ()
    assert report.calls > 40
