"""What a class is tried with: the calls that an author gives, or calls that are made up from signatures."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from random import Random
from typing import Any, Final

import attrs

from registry.declarations import SharedObject

# About so many calls are made up in all, in at least and at most so many rounds.
_CALLS: Final = 100
_ROUNDS: Final = (6, 30)

_WORDS: Final = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen")
_VALUES: Final[dict[object, tuple[object, ...]]] = {
    bool: (True, False),
    int: (1, 2, 0, 3, 17, -1, 1000),
    float: (1.5, 0.5, 0.0, 60.0, -1.0),
    complex: (1j, 0j),
    str: _WORDS,
    bytes: (b"ab", b"", b"xyz"),
    type(None): (None,),
    None: (None,),
}
_ANY: Final = (*_WORDS, 1, 2, 3, None)
_SECONDS: Final = (0.0, 1.0, 2.5)


@attrs.frozen(init=False, eq=False)
class Use:
    """Call a method, as one of a series: ``Use("add", 3, by=2, session=2, after=5.0)``.

    An argument that is an earlier `Use` of the series stands for its result, and an item of one for an item of
    its result: ``Use("settle", claim[0])``. Plain tuples, ``("add", 3)``, do where neither is needed.

    Args:
        method: The method.
        args: Its arguments. One that is called `session`, `owner` or `after` is given by its position.
        session: Which process calls. They are numbered as you like.
        owner: Which thread or task of it, from 1.
        after: How many seconds pass before.
        kwargs: Its arguments by name.
    """

    method: str
    args: tuple[Any, ...]
    session: int
    owner: int
    after: float
    kwargs: Mapping[str, Any]

    def __init__(
        self, method: str, /, *args: Any, session: int = 1, owner: int = 1, after: float = 0.0, **kwargs: Any
    ) -> None:
        self.__attrs_init__(method, args, session, owner, after, kwargs)

    def __getitem__(self, key: Any) -> Item:
        return Item(self, key)

    # Else it would be iterated by the above, for ever.
    __iter__ = None

    def __str__(self) -> str:
        named = [f"{name}={value!r}" for name, value in self.kwargs.items()]
        return f"{self.method}({', '.join([*map(repr, self.args), *named])})"

    def __repr__(self) -> str:
        return f"<{self}>"


@attrs.frozen
class Item:
    """An item of the result of a `Use`, as an argument of a later one."""

    use: Use
    key: Any


@attrs.frozen
class End:
    """End a session, as the death of its process does, or one thread or task of it.

    Attributes:
        session: Which process, as in `Use`.
        owner: Which thread or task of it; None for the whole process.
        after: How many seconds pass before.
    """

    session: int = 1
    owner: int | None = None
    after: float = attrs.field(default=0.0, kw_only=True)

    def __str__(self) -> str:
        return f"the end of session {self.session}" + (f", owner {self.owner}" if self.owner is not None else "")


# Tracebacks and pickles have the public name, which does not move when a private file does.
for _public in (Use, Item, End):
    _public.__module__ = "registry.testing"

#: What a series is made of.
Call = Use | End | tuple[Any, ...]


def given(calls: Iterable[Call]) -> Iterator[Use | End]:
    """Yield the calls of an author, each as what it stands for.

    Raises:
        TypeError: One is nothing that can be called.
    """
    for call in calls:
        if isinstance(call, (Use, End)):
            yield call
        elif isinstance(call, tuple) and call and isinstance(call[0], str):
            yield Use(call[0], *call[1:])
        else:
            raise TypeError(f'calls are tuples such as ("add", 3), Use("add", 3) or End(), not {call!r}')


def made_up(declaration: SharedObject[Any], instance: object, results: list[object]) -> Iterator[Use]:
    """Yield calls of every exposed method, the same for the same class, with values of the types that it asks for.

    Args:
        declaration: Whose methods they are.
        instance: An object of it, of which only signatures are asked.
        results: What the calls have returned so far; numbers among them are used as arguments, since they may be
            of tickets or claims.
    """
    draw = Random(declaration.typeid)
    names = list(declaration.interface.exposed)
    least, most = _ROUNDS
    for number in range(max(least, min(most, _CALLS // len(names)))):
        # Not all methods in each round, so that now and then nothing takes away what others bring.
        chosen = [name for name in names if not number or draw.random() < 0.6]
        draw.shuffle(chosen)
        often = [name for name in chosen for _ in range(draw.choice((1, 1, 3)))]
        for name in often + [name for name in names if name in declaration.interface.readonly]:
            args, kwargs = _arguments(getattr(instance, name), draw, results, number)
            session, owner = draw.choice((1, 1, 2, 3)), draw.choice((1, 1, 2))
            after = draw.choice((0.0, 0.0, 0.0, 0.5, 61.0))
            yield Use(name, *args, session=session, owner=owner, after=after, **kwargs)


def _arguments(method: Any, draw: Random, results: list[object], number: int) -> tuple[list[object], dict[str, object]]:
    try:
        parameters = list(inspect.signature(method).parameters.values())
    except (TypeError, ValueError):  # some builtins tell none: any number may fit
        return [_pick(_ANY, draw) for _ in range(number % 3)], {}
    hints = _hints(method)
    args: list[object] = []
    kwargs: dict[str, object] = {}
    by_position = True
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        hint = hints.get(parameter.name, Any)
        if parameter.kind is parameter.VAR_POSITIONAL:
            if by_position:
                args += [_value(hint, draw) for _ in range(draw.randrange(3))]
            continue
        if parameter.default is not parameter.empty and draw.random() < 0.5:
            by_position = False
            continue
        value = _SECONDS[draw.randrange(3)] if "timeout" in parameter.name else _value(hint, draw)
        numbers = [result for result in results[-8:] if type(result) is int]
        if hint in (int, Any) and numbers and draw.random() < 0.4:
            value = draw.choice(numbers)
        if parameter.kind is not parameter.KEYWORD_ONLY and by_position:
            args.append(value)
        elif parameter.kind is not parameter.POSITIONAL_ONLY:
            if parameter.name in ("session", "owner", "after"):
                continue
            kwargs[parameter.name] = value
    return args, kwargs


def _hints(method: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(method)
    except Exception:  # noqa: BLE001 - annotations are the author's, and may name what is imported for typing only
        return {}


def _value(hint: Any, draw: Random, depth: int = 0) -> object:
    """Return some value of an annotated type, or of any where it is not one of the simple ones."""
    if hint in _VALUES:
        return _pick(_VALUES[hint], draw)
    origin, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin is typing.Annotated:
        return _value(inner[0], draw, depth)
    if origin is typing.Literal:
        return draw.choice(inner)
    if origin in (typing.Union, types.UnionType):
        return _value(draw.choice(inner), draw, depth)
    if not isinstance(origin, type) or origin is object or depth > 2:
        return _pick(_ANY, draw)

    def some(hint: Any) -> list[object]:
        return [_value(hint, draw, depth + 1) for _ in range(draw.randrange(4))]

    if issubclass(origin, tuple) and inner and inner[-1] is not Ellipsis:
        return tuple(_value(each, draw, depth + 1) for each in inner)
    of = inner[0] if inner else Any
    if issubclass(origin, tuple):
        return tuple(some(of))
    if issubclass(origin, Mapping):
        return {_hashable(key): _value(inner[-1] if inner else Any, draw, depth + 1) for key in some(of)}
    if issubclass(origin, AbstractSet):
        values = {_hashable(value) for value in some(of)}
        return frozenset(values) if origin is frozenset else values
    if origin in (Sequence, Iterable, Collection) or issubclass(origin, list):
        return some(of)
    return _pick(_ANY, draw)


def _pick(values: Sequence[object], draw: Random) -> object:
    """Choose one, the first more often, so that what one call puts another finds."""
    return draw.choice(values[:3] if draw.random() < 0.5 else values)


def _hashable(value: object) -> object:
    return value if type(value).__hash__ is not None else repr(value)
