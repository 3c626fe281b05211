"""Shared containers: `registry_containers.dict.Dict` and `registry_containers.counter.Counter`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from registry import SharedObject, hookimpl
from registry_containers.counter import Counter
from registry_containers.dict import Dict

__all__ = ["COUNTER", "DICT", "Counter", "Dict", "registry_shared_objects"]

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

COUNTER = SharedObject(
    "counter",
    Counter,
    readonly=("__bool__", "__float__", "__int__", "get"),
)


@hookimpl
def registry_shared_objects() -> Iterable[SharedObject[Any]]:
    """Share the types of this package."""
    return [DICT, COUNTER]
