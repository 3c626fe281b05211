"""Copies that refuse to be changed.

What a read returns is a copy, and a change to it would be lost in silence. So the dicts, lists and sets in it
are real subclasses of the builtins that read like them (json, ``match``, ``**`` and ``==`` work) and refuse
every method that changes them, naming the cure. `freeze` makes them and `thaw` undoes them; ``.copy()``,
``copy.copy``, ``copy.deepcopy`` and pickle give plain values, all the way down.

Only what is reached from the top through exact builtin dicts, lists, sets and tuples is protected, not what
an object of another class holds.

A known hole: code that takes the insides of a list or dict without asking its class gets through, such as
``heapq.heappush(snapshot, item)`` and ``list.append(snapshot, item)``. Nothing in Python can refuse those.
"""

from __future__ import annotations

import sys
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NoReturn

from .errors import SnapshotError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CONTAINERS", "MISSING", "FrozenDict", "FrozenList", "FrozenSet", "freeze", "is_sealed", "thaw"]


class _Missing:
    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()


class Origin:
    """Say where a snapshot came from; one is shared by all containers of one read.

    Attributes:
        name: the name of the shared object.
        key: the key that was read, or `MISSING`.
        cure: how to change the shared one; empty for the usual words.
    """

    __slots__ = ("cure", "key", "name")

    def __init__(self, name: str, key: object = MISSING, cure: str = "") -> None:
        self.name = name
        self.key = key
        self.cure = cure

    def text(self, kind: str) -> str:
        """Write the message of a refused change to a ``dict``, ``list`` or ``set``."""
        keyed = self.key is not MISSING
        cure = self.cure
        if not cure and keyed:
            proxy = self.name if self.name.isidentifier() else "proxy"
            cure = f'"with {proxy}.edit({self.key!r}) as v"'
        elif not cure:
            cure = "call the methods of its proxy"
        place = f"{self.name!r}[{self.key!r}]" if keyed else repr(self.name)
        return (
            f"this {kind} is a copy of {place}; a change here would be lost. "
            f"To change the shared one: {cure}; to keep your own: v.copy()"
        )


def _refusal(kind: str) -> Callable[..., NoReturn]:
    def refuse(self: Any, *args: object, **kwargs: object) -> NoReturn:
        """Refuse: this is a copy, and a change to it would be lost."""
        origin = getattr(self, "_origin", None)
        if origin is None:  # made by hand, as by FrozenDict({})
            raise SnapshotError(f"this {kind} is a copy that cannot be changed; to keep your own: v.copy()")
        raise SnapshotError(origin.text(kind))

    return refuse


class FrozenDict(dict[Any, Any]):
    """A dict read from a shared object."""

    __slots__ = ("_origin",)

    _origin: Origin

    __init__ = __setitem__ = __delitem__ = __ior__ = _refusal("dict")
    clear = pop = popitem = setdefault = update = _refusal("dict")

    def copy(self) -> dict[Any, Any]:
        """Return a plain copy, plain all the way down."""
        return {key: thaw(item) for key, item in self.items()}

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[Any, Any]:
        from copy import deepcopy

        return deepcopy(self.copy(), memo)

    def __reduce_ex__(self, protocol: object) -> tuple[type, tuple[Any, ...]]:
        return dict, (self.copy(),)


class FrozenList(list[Any]):
    """A list read from a shared object."""

    __slots__ = ("_origin",)

    _origin: Origin

    __init__ = __setitem__ = __delitem__ = __iadd__ = __imul__ = _refusal("list")
    append = clear = extend = insert = _refusal("list")
    pop = remove = reverse = sort = _refusal("list")

    def copy(self) -> list[Any]:
        """Return a plain copy, plain all the way down."""
        return [thaw(item) for item in self]

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        from copy import deepcopy

        return deepcopy(self.copy(), memo)

    def __reduce_ex__(self, protocol: object) -> tuple[type, tuple[Any, ...]]:
        return list, (self.copy(),)


class FrozenSet(set[Any]):
    """A set read from a shared object; not to be taken for ``frozenset``, which it is not."""

    __slots__ = ("_origin",)

    _origin: Origin

    __init__ = __iand__ = __ior__ = __isub__ = __ixor__ = _refusal("set")
    add = clear = difference_update = discard = _refusal("set")
    intersection_update = pop = remove = _refusal("set")
    symmetric_difference_update = update = _refusal("set")

    def copy(self) -> set[Any]:
        """Return a plain copy."""
        return set(self)

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> set[Any]:
        from copy import deepcopy

        return deepcopy(self.copy(), memo)

    def __reduce_ex__(self, protocol: object) -> tuple[type, tuple[Any, ...]]:
        return set, (self.copy(),)

    def __repr__(self) -> str:
        return repr(set(self))


def freeze(value: Any, name: str, key: object = MISSING, cure: str = "") -> Any:
    """Return a value whose containers refuse to be changed.

    Exact dicts, lists and sets are copied, tuples rebuilt where something in them was; all else is kept.

    Args:
        value: the value that was read.
        name: the name of the shared object it was read from.
        key: the key it was read at, if it was.
        cure: how to change the shared one, to end "To change the shared one: ..."; by default ``edit`` of a
            keyed value, else the methods of the proxy.
    """
    if type(value) in CONTAINERS:
        return _freeze(value, Origin(name, key, cure))
    return value


def _freeze(value: Any, origin: Origin) -> Any:
    cls = type(value)
    # The builtins' own methods fill the new object, since its class refuses them.
    if cls is dict:
        frozen_dict = dict.__new__(FrozenDict)
        fields = value if CONTAINERS.isdisjoint(map(type, value.values())) else _frozen_items(value, origin)
        dict.update(frozen_dict, fields)
        frozen_dict._origin = origin
        return frozen_dict
    if cls is list:
        frozen_list = list.__new__(FrozenList)
        kinds = set(map(type, value))
        # Such as the items of a dict, which are looked through all at once.
        is_flat = CONTAINERS.isdisjoint(kinds if kinds != _PAIRS else map(type, chain.from_iterable(value)))
        items = value if is_flat else [_freeze(item, origin) if type(item) in CONTAINERS else item for item in value]
        list.extend(frozen_list, items)
        frozen_list._origin = origin
        return frozen_list
    if cls is tuple:
        parts = [_freeze(item, origin) if type(item) in CONTAINERS else item for item in value]
        return value if all(map(_is, parts, value)) else tuple(parts)
    if cls is set:
        frozen_set = set.__new__(FrozenSet)
        set.update(frozen_set, value)  # what is in a set cannot be changed anyway
        frozen_set._origin = origin
        return frozen_set
    return value


def _frozen_items(value: dict[Any, Any], origin: Origin) -> dict[Any, Any]:
    return {key: _freeze(item, origin) if type(item) in CONTAINERS else item for key, item in value.items()}


def _is(one: object, other: object) -> bool:
    return one is other


def thaw(value: Any) -> Any:
    """Return a value with its snapshots replaced by plain copies; a plain value is returned as it is."""
    cls = type(value)
    if cls in _FROZEN:
        return value.copy()
    if cls is tuple:
        parts = [thaw(item) for item in value]
        return value if all(map(_is, parts, value)) else tuple(parts)
    return value


def is_sealed(value: object) -> bool:
    """Tell whether nothing in a value can be changed: immutable builtins and snapshots of them only."""
    cls = type(value)
    if cls in _ATOMS:
        return True
    if cls is FrozenDict:
        return is_sealed(tuple(value)) and is_sealed(tuple(value.values()))  # type: ignore[arg-type,attr-defined]
    if cls is tuple or cls is frozenset or cls is FrozenList or cls is FrozenSet:
        kinds = set(map(type, value))  # type: ignore[call-overload]
        return kinds <= _ATOMS or all(map(is_sealed, value))  # type: ignore[call-overload]
    return _is_lazy_atom(cls)


def _is_lazy_atom(cls: type) -> bool:
    # Looked up where it is loaded already: a value of a class whose module was never imported cannot be.
    if (cls.__module__, cls.__name__) not in _LAZY_ATOMS:
        return False
    if getattr(sys.modules.get(cls.__module__), cls.__name__, None) is not cls:
        return False
    _ATOMS.add(cls)
    return True


CONTAINERS = frozenset({dict, list, set, tuple})  # what `freeze` looks into
_PAIRS = {tuple}
_FROZEN = frozenset({FrozenDict, FrozenList, FrozenSet})
_ATOMS: set[type] = {
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    range,
    type(Ellipsis),
    type(NotImplemented),
}
_LAZY_ATOMS = frozenset(
    {
        ("datetime", "datetime"),
        ("datetime", "date"),
        ("datetime", "time"),
        ("datetime", "timedelta"),
        ("uuid", "UUID"),
        ("decimal", "Decimal"),
        ("fractions", "Fraction"),
    }
)
