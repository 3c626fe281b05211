"""Sets whose order is another than before, and sets that tell who asks for their order.

The order in which a set is iterated depends on the hash seed where it holds texts, and on the set's history in
any case: a set of numbers that was restored has another one. `jumble` gives sets such a history at once; no element
changes. `Telltale` is for finding the place in the source by which an order has come to show.
"""

from __future__ import annotations

import itertools
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import attrs


def attributes(instance: object) -> dict[str, Any]:
    """Return what an object holds, in its ``__dict__`` and in slots."""
    found = dict(vars(instance)) if hasattr(instance, "__dict__") else {}
    for cls in type(instance).__mro__:
        slots = vars(cls).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name in ("__dict__", "__weakref__"):
                continue
            if name.startswith("__") and not name.endswith("__"):
                name = f"_{cls.__name__.lstrip('_')}{name}"
            if hasattr(instance, name):
                found[name] = getattr(instance, name)
    return found


def change_sets(instance: Any, change: Callable[[Any], Any]) -> None:
    """Put what `change` returns in the place of each set that an object holds, also within other containers."""
    if isinstance(instance, (set, dict, list, deque)):
        _changed(instance, change)
    for name, value in attributes(instance).items():
        fresh = _changed(value, change)
        if fresh is not value:
            object.__setattr__(instance, name, fresh)


def _changed(value: Any, change: Callable[[Any], Any]) -> Any:
    kind = type(value)
    if kind in (set, frozenset, Telltale):
        return change(value)
    if kind in (dict, OrderedDict):
        for key, old in value.items():
            value[key] = _changed(old, change)
    elif kind in (list, deque):
        for place, old in enumerate(value):
            value[place] = _changed(old, change)
    elif kind is tuple:
        fresh = tuple(_changed(old, change) for old in value)
        if any(new is not old for new, old in zip(fresh, value)):
            return fresh
    elif attrs.has(kind):
        change_sets(value, change)
    return value


def jumble(value: Any) -> Any:
    """Give a set another history, after which it is iterated in another order wherever that can be."""
    items = list(value)
    if len(items) < 2:
        return value
    if type(value) is frozenset:
        return frozenset(reversed(items))
    for size, victim in itertools.product((1, 2, 4, 0, 10, 30, 100, 400, 1500), items[:4]):
        # Others that have stood in this one's place made it move on, and have left gaps; many have made the table grow.
        others = [_Other(hash(victim) ^ (n + 1 << 24)) for n in range(size)]
        value.clear()
        value.update(others)
        value.update(reversed(items))
        value.difference_update(others)
        if next(iter(value)) is not items[0]:
            break
    return value


class _Other:
    """Something else that has been in a set, with a hash to collide with."""

    __slots__ = ("_hash",)

    def __init__(self, hashed: int) -> None:
        self._hash = hashed

    def __hash__(self) -> int:
        return self._hash


class Telltale(set[Any]):
    """A set that knows where it is iterated, or where something is taken out of it by chance.

    Attributes:
        places: Where that was so far, as (file, line).
        turned: The place that is given the opposite order.
    """

    places: dict[tuple[str, int], None]
    turned: tuple[str, int] | None

    @classmethod
    def of(cls, value: Any, places: dict[tuple[str, int], None], turned: tuple[str, int] | None) -> Telltale:
        """Make one of a set."""
        self = cls(value)
        self.places, self.turned = places, turned
        return self

    def _ordered(self, frame: FrameType) -> list[Any]:
        place = (frame.f_code.co_filename, frame.f_lineno)
        self.places[place] = None
        return sorted(set.__iter__(self), key=repr, reverse=place == self.turned)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._ordered(sys._getframe(1)))

    def pop(self) -> Any:
        """Take out what stands first, in an order that can be turned."""
        items = self._ordered(sys._getframe(1))
        if not items:
            return set.pop(self)
        self.remove(items[0])
        return items[0]
