"""The state of a hosted object as typed values, and back.

An object tells its state by ``state()`` and ``load(state)``, or it is an attrs class, a dataclass, a plain
builtin container, or an instance whose ``__dict__`` holds nothing but typed values.
"""

from __future__ import annotations

import sys
from collections import OrderedDict, deque
from typing import Any

import attrs

BUILTIN = (dict, list, set, deque, OrderedDict)


def _fields(instance: object) -> list[str] | None:
    """Return the names of the attributes that make up the state, or None where ``__dict__`` tells."""
    cls = type(instance)
    if attrs.has(cls):
        return [field.name for field in attrs.fields(cls)]
    if "__dataclass_fields__" in dir(cls):
        return [field.name for field in sys.modules["dataclasses"].fields(instance)]
    return None


def capture(instance: Any) -> object:
    """Return the state of `instance` as values for the codec; containers in it are not copied."""
    if type(instance) in BUILTIN:
        return instance
    if hasattr(instance, "state") and hasattr(instance, "load"):
        return instance.state()
    names = _fields(instance)
    if names is None:
        return dict(vars(instance))
    return {name: getattr(instance, name) for name in names}


def rebuild(instance: Any, state: Any) -> None:
    """Give `instance`, made anew by its factory, the captured state."""
    kind = type(instance)
    if kind in BUILTIN:
        instance.clear()
        if issubclass(kind, (dict, set)):
            instance.update(state)
        else:
            instance.extend(state)
    elif hasattr(instance, "state") and hasattr(instance, "load"):
        instance.load(state)
    elif _fields(instance) is None:
        vars(instance).clear()
        vars(instance).update(state)
    else:
        for name, value in state.items():
            object.__setattr__(instance, name, value)
