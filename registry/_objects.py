"""Live objects as the engine knows them, and what they were made with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container
from functools import lru_cache
from typing import Any

from registry import _codec
from registry._leaves import Carried, OpaqueValue, Parts
from registry.declarations import SharedObject
from registry.errors import DefinitionConflict, NotShareable
from registry.hosting import Waiter, Waiters

# Methods of Python's containers that remove something and add nothing.
REMOVING = frozenset({"__delitem__", "clear", "discard", "pop", "popitem", "popleft", "remove"})
NO_ARGUMENTS = _codec.encode([[], {}])


class Hosted:
    """A live object and what the engine knows of it.

    Attributes:
        number: Its incarnation; numbers are never reused.
        definition: The arguments it was made with, bound to the factory's signature, in canonical form.
        maker: Who made it, for people; `made` says when.
        alarm: When ``due`` is to be called, with the order that breaks ties, or None.
        changed: The index of the last event that may have changed it.
        session: The session it ends with, or 0.
        sessions: The sessions to tell it about when they end.
        passes_over: Whether those who wait in it are passed over while their session has no connection.
        stopped: Why it refuses further calls, or empty.
        gives_back: Its methods that only give back what a grant gave.
        frees: Its methods that never make it hold more.
        keyed: Its methods that touch only what their first argument names.
    """

    __slots__ = (
        "alarm",
        "arguments",
        "changed",
        "declaration",
        "definition",
        "frees",
        "gives_back",
        "instance",
        "keyed",
        "made",
        "maker",
        "methods",
        "name",
        "number",
        "passes_over",
        "session",
        "sessions",
        "stopped",
        "tells_blocked",
        "tells_giving_up",
        "tells_owner",
        "tells_vacant",
        "waits",
    )

    def __init__(
        self,
        number: int,
        declaration: SharedObject[Any],
        name: str,
        arguments: bytes,
        definition: bytes,
        *,
        maker: str,
        made: float,
        session: int,
    ) -> None:
        self.number = number
        self.declaration = declaration
        self.keyed = frozenset(declaration.interface.keyed)
        self.name = name
        self.arguments = arguments
        self.definition = definition
        self.maker = maker
        self.made = made
        self.session = session
        self.sessions: dict[int, None] = {}
        self.waits: dict[int, Waiter] = {}
        self.alarm: tuple[float, int] | None = None
        self.changed = 0
        self.stopped = ""
        self.methods: dict[str, Callable[..., Any]] = {}

    def live(self, instance: Any) -> None:
        """Take the live object that the factory made."""
        self.instance = instance
        self.tells_blocked = hasattr(instance, "blocked_by")
        self.tells_owner = hasattr(instance, "owner_ended")
        self.tells_vacant = hasattr(instance, "vacant")
        self.tells_giving_up = hasattr(instance, "gave_up")
        self.passes_over = hasattr(instance, "came_back")
        self.gives_back = frozenset(getattr(instance, "gives_back", ()))
        self.frees = frozenset(getattr(instance, "frees", REMOVING))

    def check(self, arguments: bytes) -> None:
        """Compare the arguments of a later use with those that the object was made with.

        Raises:
            DefinitionConflict: They differ.
            TypeError: They do not fit the factory.
        """
        if arguments in (self.arguments, NO_ARGUMENTS):
            return
        _, _, given = bind(self.declaration, arguments)
        if given != self.definition:
            stored_text, given_text = _differences(self.definition, given)
            raise DefinitionConflict(self.title, stored_text, given_text, self.maker, self.made)

    @property
    def title(self) -> str:
        """The object as errors and the command line write it."""
        return f"{self.declaration.typeid}:{self.name}" if self.name else self.declaration.typeid


def state_leaf(value: object) -> object:
    """Encode the waits in an object's state by their numbers; the waits themselves are the engine's."""
    if type(value) is Waiters:
        return (41, list(value._queue))
    return NotImplemented


def arguments_of(definition: bytes) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of a definition.

    Raises:
        NotShareable: There is a pickle in them, which nobody has vouched for.
    """
    return ([], {}) if definition == NO_ARGUMENTS else _codec.decode_arguments(definition, incoming=_typed)


def bind(declaration: SharedObject[Any], arguments: bytes) -> tuple[list[Any], dict[str, Any], bytes]:
    """Return the arguments of a definition, and their canonical form bound to the factory's signature.

    Raises:
        TypeError: They do not fit.
        NotShareable: There is a pickle in them, which nobody has vouched for.
    """
    args, kwargs = arguments_of(arguments)
    signature = _signature(declaration.factory)
    if signature is None:
        return args, kwargs, _codec.canonical([args, kwargs])
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        takes = signature.replace(return_annotation=inspect.Signature.empty)
        raise TypeError(f"{declaration.typeid} is defined by {takes}, after its name if it has one: {error}") from None
    given = _codec.canonical(dict(bound.arguments))
    bound.apply_defaults()
    try:
        return args, kwargs, _codec.canonical(dict(bound.arguments))
    except NotShareable:  # a default that is no value, such as a sentinel, cannot be given either
        return args, kwargs, given


def redacted(body: bytes | Parts, domain: str, trusted: Container[str] = ()) -> bytes | Parts:
    """Put an `OpaqueValue` in the place of each opaque value that the reader's domain may not unpickle.

    Those of the domains that are `trusted` it may, and they come as its own.
    """

    replaced = False

    def incoming(leaf: object) -> object:
        nonlocal replaced
        if type(leaf) is Carried and leaf.domain and leaf.domain != domain:
            replaced = True
            if domain and leaf.domain in trusted:
                return Carried(leaf.data, domain, leaf.kind)
            return OpaqueValue(leaf.kind, leaf.domain)
        return leaf

    value = _codec.decode(body, incoming=incoming)
    if not replaced:
        return body
    return _codec.encode_exception(value) if isinstance(value, BaseException) else _codec.encode_result(value)


@lru_cache(maxsize=1024)
def _signature(factory: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(factory)
    except ValueError:  # some builtins tell none
        return None


def _typed(leaf: object) -> object:
    if type(leaf) is tuple or (type(leaf) is Carried and leaf.domain):
        raise NotShareable("an argument of a definition", "it must be a plain typed value")
    return leaf


def _differences(stored: bytes, given: bytes) -> tuple[str, str]:
    """Return the parameters in which two definitions differ, as text."""
    old, new = _codec.decode(stored), _codec.decode(given)
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return repr(old), repr(new)
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    texts = [", ".join(f"{name}={side.get(name)!r}" for name in names) for side in (old, new)]
    return texts[0], texts[1]
