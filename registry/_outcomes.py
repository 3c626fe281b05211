"""What becomes of what hosted code returns and raises: encoded replies, refusals, verdicts."""

from __future__ import annotations

import builtins
import os
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, MappingView
from functools import lru_cache
from typing import Any, Final

from registry import _codec, _state
from registry._leaves import Carried
from registry._objects import Hosted, state_leaf
from registry._wire import ERROR, REPLY
from registry.declarations import ITERATING, is_primitive
from registry.errors import NotDurable, NotShareable, RegistryError

_HERE = os.path.join(os.path.dirname(__file__), "")


# Methods of a shape that may return a view, an iterator or an object of the class itself, and what clients get for it.
_PARTS: Final[Mapping[str | None, Mapping[str, Callable[[Any], object]]]] = {
    "mapping": {**dict.fromkeys(("keys", "values", "items"), list), "copy": dict},
    "sequence": dict.fromkeys(("copy", "__getitem__"), list),
    "set": dict.fromkeys(("copy", "difference", "intersection", "symmetric_difference", "union"), set),
}


def bound(hosted: Hosted, name: str) -> Callable[..., Any]:
    """Return a method of a live object, which an interface has named: what it returns, it returns as a whole.

    An iterator cannot cross, and a view would show later states; so both are read inside of the call. What a container
    makes of itself, such as its copy, is of a class that clients need not know, and becomes a builtin one.
    """
    method: Callable[..., Any] = getattr(hosted.instance, name)
    if name in ITERATING:
        return lambda *args, **kwargs: list(method(*args, **kwargs))
    part = _PARTS.get(hosted.declaration.interface.shape, {}).get(name)
    if part is None or type(hosted.instance) in _state.BUILTIN:
        return method
    unread = (type(hosted.instance), MappingView, Iterator)

    def whole(*args: Any, **kwargs: Any) -> object:
        value = method(*args, **kwargs)
        return part(value) if type(value) is not Carried and isinstance(value, unread) else value

    return whole


def failure(error: BaseException) -> bytes:
    if isinstance(error, _codec.CodecError):
        # What exactly is wrong with the bytes may depend on how deep the interpreter is by now.
        error = ValueError("the arguments of this call cannot be read, or lie too deep")
    if _codec.crosses(error):
        return _codec.encode_exception(error)
    # The text is all that the author of the class will see of it; our own frames tell nothing.
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_HERE)]
    text = "".join((*traceback.format_list(frames), *traceback.format_exception_only(type(error), error)))
    return _codec.encode_exception(error, text)


def outcome(hosted: Hosted, value: object) -> tuple[int, bytes | _codec.Parts]:
    """Encode what a method returned or a wait was ended with. What cannot cross took effect too."""
    try:
        # Remembered replies are state, so the order of a set must not show in them.
        return REPLY, _codec.encode_result(value, traceless=type(value) is not Carried)
    except NotShareable as error:
        reason = f"{error.reason}. The call took effect"
        return ERROR, failure(NotShareable(f"the result of {hosted.title}, {error.what}", reason))


def is_verdict(error: BaseException) -> bool:
    """Tell whether an exception says more of the interpreter than of the code that it comes out of."""
    return not isinstance(error, Exception) or isinstance(error, (MemoryError, RecursionError))


def named(name: str) -> BaseException:
    """Return an exception of that name, for a replay."""
    known = getattr(builtins, name, None)
    kind: type[BaseException] = type(name, (BaseException,), {})
    if isinstance(known, type) and issubclass(known, BaseException):
        kind = known
    return kind()


def is_stopped(hosted: Hosted) -> RegistryError:
    return RegistryError(f"{hosted.title} is stopped since {hosted.stopped}; delete it, or restart the server")


def check_durable(instance: Any) -> None:
    """Raise `NotDurable` unless the state of an object can be captured."""
    state: object = None
    try:
        state = _state.capture(instance)
        _codec.encode(state, outgoing=state_leaf)
    except (NotShareable, TypeError) as error:
        raise NotDurable(type(instance).__qualname__, _why_not_kept(instance, state, error)) from error


def _why_not_kept(instance: Any, state: object, error: BaseException) -> str:
    """Say what of an object's state cannot be kept, and where it is, as the author of the class knows it."""
    if not isinstance(error, NotShareable):
        return str(error)
    path, _, kind = error.what.removeprefix("value").partition(" of class ")
    found = re.match(r"\['(\w+)'\]", path)
    if found is None or type(state) is not dict or not hasattr(instance, found[1]):
        return f"state(){path} is of class {kind}: {error.reason}"
    if is_primitive(type(state[found[1]])):
        return f"self.{found[1]} is a {kind}, and not needed: methods run one at a time, and wait by hosting.Waiters"
    return f"self.{found[1]}{path[found.end() :]} is of class {kind}: {error.reason}"


@lru_cache(maxsize=256)
def stamp(domain: str) -> Callable[[object], object]:
    """Return what puts the writer's trust domain on its opaque values; what it claims is not asked."""

    def incoming(leaf: object) -> object:
        if type(leaf) is tuple:
            raise NotShareable("an argument", "state of an engine is for that engine alone")
        if type(leaf) is Carried and leaf.domain:
            if not domain:
                raise NotShareable(f"a {leaf.kind}", "only processes of one user on one host exchange pickled values")
            return Carried(leaf.data, domain, leaf.kind)
        return leaf

    return incoming


def unopened(encodings: list[bytes]) -> list[Carried]:
    """Take a row of typed carried values as it is: there is nothing to stamp."""
    return list(map(Carried, encodings))
