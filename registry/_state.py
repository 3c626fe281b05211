"""The state of a hosted object as typed values, and back.

An object tells its state by ``state()`` and ``load(state)``, or it is an attrs class, a dataclass, a plain
builtin container, or an instance whose ``__dict__`` holds nothing but typed values.
"""

from __future__ import annotations

import sys
from collections import OrderedDict, deque
from functools import lru_cache
from typing import Any

import attrs

BUILTIN = (dict, list, set, deque, OrderedDict)


@lru_cache(maxsize=1024)
def _fields(cls: type) -> tuple[str, ...] | None:
    """Return the names of the attributes that make up the state, or None where ``__dict__`` tells."""
    if attrs.has(cls):
        return tuple(field.name for field in attrs.fields(cls))
    if "__dataclass_fields__" in dir(cls):
        return tuple(field.name for field in sys.modules["dataclasses"].fields(cls))
    return None


def capture(instance: Any) -> object:
    """Return the state of `instance` as values for the codec; containers in it are not copied."""
    if type(instance) in BUILTIN:
        return instance
    if hasattr(instance, "state") and hasattr(instance, "load"):
        return instance.state()
    kind: Any = type(instance)
    names = _fields(kind)
    if names is None:
        return dict(vars(instance))
    return {name: getattr(instance, name) for name in names}


def rebuild(instance: Any, state: Any) -> None:
    """Give `instance`, made anew by its factory, the captured state."""
    kind: Any = type(instance)
    if kind in BUILTIN:
        instance.clear()
        if issubclass(kind, (dict, set)):
            instance.update(state)
        else:
            instance.extend(state)
    elif hasattr(instance, "state") and hasattr(instance, "load"):
        instance.load(state)
    elif _fields(kind) is None:
        attributes = vars(instance)
        if list(attributes) != list(state):  # else the instances of a class go on sharing its table of names
            attributes.clear()
        attributes.update(state)
    else:
        for name, value in state.items():
            object.__setattr__(instance, name, value)
