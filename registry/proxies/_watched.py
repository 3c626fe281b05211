"""In development mode: tell where a write replaces what somebody else has written since it was read.

``d[k] += 1`` is a read and a write, and what others write in between is lost. No server can tell that from a write that
replaces a value on purpose; whoever wrote the program can. So in development mode (``python -X dev``, or
``REGISTRY_DEBUG=1``) a thread remembers what it has read of a mapping, and looks once more before it writes: one call
more for each write that follows a read. In other processes nothing of this is there.

What is remembered is a hash of the value's encoding: values may have no `==` of use, and some can be changed by whoever
has read them. Whatever changes a key ends what was remembered of it, so that a value which is only ever written is
never asked about. The look and the write are two calls: what comes between them is not seen, nor is a value that is the
same again.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from registry.errors import LostUpdateWarning

if TYPE_CHECKING:
    from registry.proxies._base import Proxy, Remote

__all__ = ["watch"]

MOST = 4096  # keys of a server that a thread remembers

_MISSING = b""

Method = Callable[..., Any]


def watch(cls: type[Proxy]) -> None:
    """Have the proxies of a mapping remember what they read, and look before they write."""
    interface = cls._interface
    methods: dict[str, Method] = {name: getattr(cls, name) for name in interface.exposed}
    getitem = methods.get("__getitem__")
    if getitem is None or "__setitem__" not in methods:
        return
    for name, method in methods.items():
        if name == "__getitem__":
            watched = _reading(getitem)
        elif name == "get":
            watched = _getting(getitem)
        elif name == "__setitem__":
            watched = _writing(method, getitem)
        elif name == "update":
            watched = _updating(method, getitem)
        elif name not in interface.readonly:
            watched = _changing(method)
        else:
            continue
        watched.__name__ = watched.__qualname__ = name
        watched.__doc__ = method.__doc__
        setattr(cls, name, watched)


# What a thread has read: by server, then by object and key with its exact type.
class _Seen(threading.local):
    def __init__(self) -> None:
        self.links: WeakKeyDictionary[Any, dict[Any, bytes]] = WeakKeyDictionary()

    def of(self, remote: Remote) -> dict[Any, bytes]:
        link = remote.home.link()
        seen = self.links.get(link)
        if seen is None:
            seen = self.links[link] = {}
        return seen


_seen = _Seen()


def _place(remote: Remote, key: object) -> tuple[object, ...]:
    return remote.typeid, remote.name, type(key), key


def _print(remote: Remote, value: object) -> bytes | None:
    """Return what tells a value from others; None where nothing does."""
    import hashlib

    try:
        return hashlib.blake2b(bytes(remote.carry(value).data), digest_size=16).digest()
    except Exception:  # noqa: BLE001 - what was read can always be used, whether or not it could be sent again
        return None


def _note(remote: Remote, key: object, value: bytes | None) -> None:
    seen = _seen.of(remote)
    try:
        seen.pop(_place(remote, key), None)
        if value is not None:
            seen[_place(remote, key)] = value  # the latest is the last
    except TypeError:
        return  # a class of one's own may have keys that are no keys here
    if len(seen) > MOST:
        del seen[next(iter(seen))]


def _reading(getitem: Method) -> Method:
    def method(self: Proxy, key: object) -> Any:
        try:
            value = getitem(self, key)
        except KeyError:
            _note(self._remote, key, _MISSING)
            raise
        _note(self._remote, key, _print(self._remote, value))
        return value

    return method


def _getting(getitem: Method) -> Method:
    read = _reading(getitem)

    def method(self: Proxy, key: object, default: Any = None) -> Any:
        try:
            return read(self, key)
        except KeyError:
            return default

    return method


def _writing(setitem: Method, getitem: Method) -> Method:
    def method(self: Proxy, key: object, value: object) -> Any:
        _look(self, key, getitem)
        return setitem(self, key, value)

    return method


def _updating(update: Method, getitem: Method) -> Method:
    def method(self: Proxy, other: Any = (), /, **values: Any) -> Any:
        given = {**dict(other.items() if hasattr(other, "items") else other), **values}
        for key in given:
            _look(self, key, getitem)
        return update(self, given)

    return method


def _changing(change: Method) -> Method:
    def method(self: Proxy, /, *args: Any, **kwargs: Any) -> Any:
        _forget(self._remote, *args[:1])
        return change(self, *args, **kwargs)

    return method


def _forget(remote: Remote, *key: object) -> None:
    """Forget what this thread has read of a key, or of all of them: it changes that itself."""
    seen = _seen.of(remote)
    if not key:
        for place in [place for place in seen if place[:2] == (remote.typeid, remote.name)]:
            del seen[place]
        return
    try:
        seen.pop(_place(remote, *key), None)
    except TypeError:
        pass  # that is no key, as the call will say


def _look(proxy: Proxy, key: object, getitem: Method) -> None:
    """Warn if what is about to be replaced is not what this thread has read."""
    remote = proxy._remote
    try:
        read = _seen.of(remote).pop(_place(remote, key), None)
    except TypeError:
        return  # that is no key, as the write will say
    if read is None:
        return
    try:
        now = _print(remote, getitem(proxy, key))
    except KeyError:
        return  # nothing is there that could be lost
    if now is None or now == read:
        return
    name = remote.name or remote.typeid
    cures = [f"for numbers there is {name}.incr({key!r}, by)"] if "incr" in proxy._interface.exposed else []
    if "edit" in proxy._interface.exposed:
        cures.append(f'for all else there is "with {name}.edit({key!r}) as v"')
    what = "was written" if read == _MISSING else "was changed"
    warnings.warn(
        f"{name!r}[{key!r}] {what} by somebody else after this thread had read it, and is replaced here: that change "
        f"is lost{'; ' + ', '.join(cures) if cures else ''}",
        LostUpdateWarning,
        stacklevel=3,
    )
