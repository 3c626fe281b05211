"""Proxies: what stands in a client for a hosted object.

A proxy's class is made from the server's table of typeids, once for each row: one method for each exposed name, on top
of the mixin of the type's *shape*, which stand in the other files of this package. The mixins know no type, only how a
mapping, a queue or a lock behaves in a client: containers compare by content, locks work in ``with``, what a read
returns is a snapshot. So a proxy has no public name that the hosted class has not.

A proxy made before the client has connected is *unresolved*: its `repr`, `hash` and pickling work without I/O,
anything else connects, takes the row and fixes the class.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from types import FunctionType
from typing import Any, NoReturn

from registry import _codec
from registry.declarations import DUNDERS, ITERATING, Interface
from registry.proxies._base import Proxy, Remote, item, taking
from registry.proxies._containers import MappingShape, SequenceShape, SetShape
from registry.proxies._locks import ConditionShape, GrantingShape, LockShape, SemaphoreShape, locking
from registry.proxies._queues import QueueShape

__all__ = ["Proxy", "Remote", "Unresolved", "proxy_class"]

SHAPES: dict[str | None, type[Proxy]] = {
    None: Proxy,
    "mapping": MappingShape,
    "sequence": SequenceShape,
    "set": SetShape,
    "queue": QueueShape,
    "lock": LockShape,
    "semaphore": SemaphoreShape,
    "rwlock": GrantingShape,
    "condition": ConditionShape,
}


# What these return says something of the whole object: there are no arguments.
_OF_ITSELF = frozenset({"__bool__", "__float__", "__index__", "__int__", "__len__"})


# -- classes


def _method(name: str, waiting: bool) -> Callable[..., Any]:
    def method(self: Proxy, /, *args: object, **kwargs: object) -> Any:
        return self._call(name, *args, **kwargs)

    return taking(_named(method, name)) if waiting else _named(method, name)


# What `_cache.is_valid` does stands here spelled out, since a call of it would double what a hit costs.


def _reading(name: str) -> Callable[..., Any]:
    def method(self: Proxy, /, *args: object, **kwargs: object) -> Any:
        try:
            kind, value, view, place, word, words, _ = self._hits[(name, *args) if args else name]
            if view[place] == word and monotonic() < words.until and not kwargs:
                if not args or (type(args[0]) is kind and len(args) == 1):
                    return value
        except (KeyError, TypeError):
            pass
        return self._read(name, args, kwargs)

    return _named(method, name)


def _reading_itself(name: str) -> Callable[..., Any]:
    def method(self: Proxy) -> Any:
        try:
            _, value, view, place, word, words, _ = self._hits[name]
            if view[place] == word and monotonic() < words.until:
                return value
        except KeyError:
            pass
        return self._read(name, ())

    return _named(method, name)


def _reading_key(name: str) -> Callable[..., Any]:
    def method(self: Proxy, key: object) -> Any:
        try:
            kind, value, view, place, word, words, _ = self._hits[name, key]
            if view[place] == word and monotonic() < words.until and type(key) is kind:
                return value
        except (KeyError, TypeError):
            pass
        return self._read(name, (key,))

    return _named(method, name)


def _named(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"Call `{name}` of the hosted object."
    return method


_classes: dict[tuple[bytes, bool], type[Proxy]] = {}


def proxy_class(interface: Interface) -> type[Proxy]:
    """Return the class of the proxies of a type; the same row of the table gives the same class."""
    key = (_codec.encode(interface.pack()), _is_watching())
    if key not in _classes:
        _classes[key] = _make_class(interface)
    return _classes[key]


def _make_class(interface: Interface) -> type[Proxy]:
    base = SHAPES.get(interface.shape, Proxy)
    body: dict[str, Any] = {
        "__slots__": (),
        "__doc__": interface.doc or None,
        "__module__": __name__,
        "_interface": interface,
    }
    spelled = {name for cls in base.__mro__ if cls is not object for name in vars(cls)}
    for name in interface.exposed:
        # What the shape spells out is the client's side of the same method.
        if name not in spelled:
            if name == "__getitem__" and name in interface.readonly:
                body[name] = item
            elif name == "__contains__" and name in interface.readonly:
                body[name] = _reading_key(name)
            elif name in interface.readonly:
                body[name] = _reading_itself(name) if name in _OF_ITSELF else _reading(name)
            else:
                body[name] = _method(name, name in interface.waiting)
    for name in _PUBLIC.get(interface.shape, frozenset()) - set(interface.exposed):
        body[name] = _Absent()
    for name in ITERATING & set(interface.exposed) - spelled:
        body[name] = _iterating(name)
    made = type(f"{interface.typeid}_proxy", (base,), body)
    if interface.shape == "mapping" and _is_watching():
        from registry.proxies import _watched

        _watched.watch(made)
    return made


def _is_watching() -> bool:
    """Tell whether this process is one that is being developed, see `_watched`."""
    return sys.flags.dev_mode or bool(os.environ.get("REGISTRY_DEBUG"))


def _iterating(name: str) -> Callable[[Proxy], Iterator[Any]]:
    return lambda self: iter(self._call(name))


class _Absent:
    """Hide a method of the shape that the hosted class does not have."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type | None = None) -> NoReturn:
        raise AttributeError(self._name)  # `Proxy.__getattr__` says what there is


_PUBLIC = {
    shape: frozenset(
        name for cls in base.__mro__ if cls is not object for name in vars(cls) if not name.startswith("_")
    )
    for shape, base in SHAPES.items()
}


class Unresolved(Proxy):
    """A proxy that does not know its class yet. Its first use connects and fixes it."""

    __slots__ = ()
    __hash__ = Proxy.__hash__

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        _resolve(self)
        return getattr(self, name)

    def __dir__(self) -> Iterable[str]:
        _resolve(self)
        return dir(self)

    def __eq__(self, other: object) -> bool:
        if self._remote.home.is_revived:
            # It came in a value, and may lead anywhere: who only compares values does not connect to where they say.
            return Proxy.__eq__(self, other)
        _resolve(self)
        return bool(self == other)


def _resolve(proxy: Proxy) -> None:
    # A function, since the class may be fixed by now: by another thread, or in a `with` block by its beginning.
    interface = proxy._remote.resolve()
    if type(proxy) is Unresolved:
        proxy.__class__ = proxy_class(interface)  # type: ignore[assignment]


def _forward(name: str) -> Callable[..., Any]:
    def method(self: Unresolved, /, *args: Any) -> Any:
        _resolve(self)
        found = getattr(type(self), name, None)
        if found is None:
            if name == "__bool__":
                return bool(self)
            raise TypeError(f"{self!r} has no {name}")
        return found(self, *args)

    method.__name__ = name
    return method


for _name in (*DUNDERS, "__enter__", "__exit__"):
    setattr(Unresolved, _name, _forward(_name))


def _decorate(self: Unresolved, /, *args: Any, **kwargs: Any) -> Any:
    """Call the object, or decorate a function, which needs no server before the function is called."""
    if len(args) == 1 and not kwargs and type(args[0]) is FunctionType:
        return locking(self, args[0])
    _resolve(self)
    return type(self).__call__(self, *args, **kwargs)


Unresolved.__call__ = _decorate  # type: ignore[method-assign]
