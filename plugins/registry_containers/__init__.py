"""Shared containers: a dict, a list, a set, and a counter, each in a module of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from registry import SharedObject, hookimpl
from registry_containers.counter import Counter
from registry_containers.dict import Dict
from registry_containers.list import List
from registry_containers.set import Set

__all__ = ["COUNTER", "DICT", "LIST", "SET", "Counter", "Dict", "List", "Set", "registry_shared_objects"]

DICT = SharedObject(
    "dict",
    Dict,
    readonly=(
        "__contains__",
        "__getitem__",
        "__iter__",
        "__len__",
        "copy",
        "get",
        "get_many",
        "items",
        "keys",
        "values",
    ),
    waiting=("edit",),
    keyed=(
        "__contains__",
        "__delitem__",
        "__getitem__",
        "__setitem__",
        "compare_and_set",
        "edit",
        "get",
        "incr",
        "pop",
        "setdefault",
    ),
    carried=(
        "__setitem__.value",
        "compare_and_set.expected",
        "compare_and_set.value",
        "edit.value",
        "get.default",
        "pop.default",
        "setdefault.default",
    ),
    shape="mapping",
)

LIST = SharedObject(
    "list",
    List,
    readonly=("__contains__", "__getitem__", "__iter__", "__len__", "__reversed__", "copy", "count", "index"),
    carried=(
        "__contains__.value",
        "append.value",
        "count.value",
        "index.value",
        "insert.value",
        "remove.value",
    ),
    shape="sequence",
)

SET = SharedObject(
    "set",
    Set,
    readonly=("__contains__", "__iter__", "__len__", "copy", "isdisjoint", "issubset", "issuperset"),
    keyed=("__contains__", "add", "discard", "remove"),
    shape="set",
)

COUNTER = SharedObject(
    "counter",
    Counter,
    readonly=("__bool__", "__float__", "__int__", "get"),
)


@hookimpl
def registry_shared_objects() -> Iterable[SharedObject[Any]]:
    """Share the types of this package."""
    return [DICT, LIST, SET, COUNTER]
