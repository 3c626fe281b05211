"""Write ``registry/_typed.pyi`` and its twin in ``registry/aio``: what type checkers are told of our types.

    python -m tests.typing.generate

Each is made of the declarations of the first-party plugins, of the signatures of their classes, and of what the shapes
make of these in a client. A test tells when they are to be made again.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, MutableMapping, MutableSequence, MutableSet
from pathlib import Path
from typing import Any

import registry
from registry import SharedObject
from registry.declarations import DUNDERS
from registry.proxies import SHAPES, Proxy

PLUGINS = ("registry_containers", "registry_queues", "registry_sync")
PLACE = Path(registry.__file__).with_name("_typed.pyi")
AWAITED = PLACE.parent / "aio" / "_typed.pyi"

HEAD = '''\
"""The types of this package, as type checkers see the proxies of a client. There is no such module at run time.

Written by ``python -m tests.typing.generate``; a test compares it with the declarations of the plugins. Types of other
plugins are known to checkers by their declarations: ``client.open(COOKIES, "x")``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableMapping, MutableSequence, MutableSet, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, overload

from registry._leaves import Grant

K = TypeVar("K")
V = TypeVar("V")
P = ParamSpec("P")
R = TypeVar("R")
'''

# What containers have by their bases, and checkers know by that; and what keys, values and members are of, which is for
# the program to say.
BASES: dict[str | None, tuple[str, type, str]] = {
    "mapping": ("MutableMapping[K, V]", MutableMapping, "Any, Any"),
    "sequence": ("MutableSequence[V]", MutableSequence, "Any"),
    "set": ("MutableSet[V]", MutableSet, "Any"),
}
GENERIC = {
    "mapping": {"key": "K", "keys": "Iterable[K]", "value": "V", "expected": "object"},
    "sequence": {"value": "V", "values": "Iterable[V]"},
    "set": {"member": "V", "other": "Iterable[V]", "others": "Iterable[V]"},
}
# What is abstract in a base, and what a container does otherwise: a snapshot is no view.
OTHERWISE = {
    "mapping": (
        "def __getitem__(self, key: K) -> V: ...",
        "def __setitem__(self, key: K, value: V) -> None: ...",
        "def __delitem__(self, key: K) -> None: ...",
        "def __iter__(self) -> Iterator[K]: ...",
        "def __len__(self) -> int: ...",
        "def keys(self) -> Sequence[K]: ...  # type: ignore[override]",
        "def values(self) -> Sequence[V]: ...  # type: ignore[override]",
        "def items(self) -> Sequence[tuple[K, V]]: ...  # type: ignore[override]",
    ),
    "sequence": (
        "@overload",
        "def __getitem__(self, index: int) -> V: ...",
        "@overload",
        "def __getitem__(self, index: slice) -> list[V]: ...",
        "@overload",
        "def __setitem__(self, index: int, value: V) -> None: ...",
        "@overload",
        "def __setitem__(self, index: slice, value: Iterable[V]) -> None: ...",
        "def __delitem__(self, index: int | slice) -> None: ...",
        "def __len__(self) -> int: ...",
        "def insert(self, index: int, value: V) -> None: ...",
    ),
    "set": (
        "def __contains__(self, member: object) -> bool: ...",
        "def __iter__(self) -> Iterator[V]: ...",
        "def __len__(self) -> int: ...",
        "def add(self, member: V) -> bool: ...  # type: ignore[override]",
        "def discard(self, member: V) -> bool: ...  # type: ignore[override]",
    ),
}
RESULTS = {
    ("mapping", "copy"): "dict[K, V]",
    ("mapping", "edit"): "AbstractContextManager[V, None]",
    ("mapping", "get_many"): "dict[K, V]",
    ("sequence", "copy"): "list[V]",
    ("set", "copy"): "set[V]",
    ("queue", "claim"): "AbstractContextManager[Any, None]",
    ("queue", "get_many"): "list[Any]",
    ("queue", "put_many"): "None",
}

# The same for clients whose verbs are awaited, which have no bases: every verb stands here.
AWAITED_HEAD = '''\
"""The types of this package, as type checkers see the proxies of `registry.aio`. There is no such module at run time.

Written by ``python -m tests.typing.generate``; a test compares it with the declarations of the plugins.
"""

from __future__ import annotations

import builtins
from abc import ABCMeta
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar, overload

from registry.aio._proxies import Grant

K = TypeVar("K")
V = TypeVar("V")
P = ParamSpec("P")
R = TypeVar("R")
T_co = TypeVar("T_co", covariant=True)

class Entering(Coroutine[Any, Any, T_co], AbstractAsyncContextManager[T_co, None], metaclass=ABCMeta):
    """A call to await, or a block to enter."""
'''
AWAITED_RESULTS = {
    ("mapping", "__getitem__"): "V",
    ("mapping", "__iter__"): "Iterator[K]",
    ("mapping", "get"): "V | Any",
    ("mapping", "items"): "Sequence[tuple[K, V]]",
    ("mapping", "keys"): "Sequence[K]",
    ("mapping", "pop"): "V | Any",
    ("mapping", "popitem"): "tuple[K, V]",
    ("mapping", "setdefault"): "V",
    ("mapping", "values"): "Sequence[V]",
    ("sequence", "__iter__"): "Iterator[V]",
    ("sequence", "__reversed__"): "Iterator[V]",
    ("sequence", "pop"): "V",
    ("set", "__iter__"): "Iterator[V]",
    ("set", "pop"): "V",
}
AWAITED_OTHERWISE = {
    ("sequence", "getitem"): (
        "@overload",
        "async def getitem(self, index: int) -> V: ...",
        "@overload",
        "async def getitem(self, index: slice) -> list[V]: ...",
    ),
    ("sequence", "setitem"): (
        "@overload",
        "async def setitem(self, index: int, value: V) -> None: ...",
        "@overload",
        "async def setitem(self, index: slice, value: Iterable[V]) -> None: ...",
    ),
    ("mapping", "edit"): ("def edit(self, key: K) -> AbstractAsyncContextManager[V, None]: ...",),
}
AWAITED_GENERIC = {"mapping": "Generic[K, V]", "sequence": "Generic[V]", "set": "Generic[V]"}
ENTERED = (
    "async def __aenter__(self) -> Grant: ...",
    "async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, "
    "traceback: TracebackType | None) -> None: ...",
    "def __call__(self, function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]: ...",
)
BUILTINS = re.compile(r"\b(bool|bytes|dict|float|int|list|set|slice|str|tuple)\b")

NOT_OF_USERS = frozenset({"__getattr__", "__init__", "__reduce__", "__copy__", "__deepcopy__", "__slots__", "__repr__"})


def declarations() -> list[SharedObject[Any]]:
    """Return what the plugins share, by typeid."""
    from importlib import import_module

    found = [each for name in PLUGINS for each in import_module(name).registry_shared_objects()]
    return sorted(found, key=lambda each: each.typeid)


def generate() -> str:
    """Return the text of the file."""
    parts = [HEAD]
    for declaration in declarations():
        parts.append("\n".join(proxy(declaration)))
    parts.append("\n".join(mixin()))
    return "\n\n".join(parts) + "\n"


def title(declaration: SharedObject[Any]) -> str:
    """Return the name of the class for a type."""
    return "".join(part.capitalize() for part in declaration.typeid.split("_"))


def proxy(declaration: SharedObject[Any]) -> Iterator[str]:
    """Write the class of a type's proxies."""
    interface = declaration.interface
    shape: Any = SHAPES[interface.shape]
    base, known, _ = BASES.get(interface.shape, ("", object, ""))
    yield f"class {title(declaration)}{f'({base})' if base else ''}:"
    yield f'    """{interface.doc}"""'
    for line in OTHERWISE.get(interface.shape or "", ()):
        yield f"    {line}"
    for name, function in sorted(methods(declaration.factory, interface.exposed, shape, frozenset(dir(known))).items()):
        yield f"    def {name}{signature(function, interface.shape)}: ..."


def methods(
    factory: Any, exposed: tuple[str, ...], shape: type[Proxy], known: frozenset[str]
) -> dict[str, Callable[..., Any]]:
    """Return what a proxy has, and the function that tells its signature: of the shape, or else of the hosted class."""
    found: dict[str, Callable[..., Any]] = {}
    of_shape = {
        name: value
        for cls in reversed(shape.__mro__[: shape.__mro__.index(Proxy)])
        for name, value in vars(cls).items()
        if not (name.startswith("_") and not name.startswith("__")) and name not in NOT_OF_USERS
    }
    for name in exposed:
        spelled = of_shape.get(name)
        # One that hands on whatever it is given says less than the hosted class.
        found[name] = spelled if spelled is not None and not hands_on(spelled) else getattr(factory, name)
    for name, value in of_shape.items():
        # Of its public names a proxy has those that the hosted class exposes.
        if name.startswith("__") and (callable(value) or hasattr(value, "__get__")) and value is not None:
            found[name] = value
    return {
        name: getattr(function, "_function", function)
        for name, function in found.items()
        if name not in known and name not in ("__eq__", "__hash__", "__doc__", "__module__")
    }


def hands_on(function: Any) -> bool:
    """Tell whether a function takes any arguments."""
    kinds = {each.kind for each in inspect.signature(getattr(function, "_function", function)).parameters.values()}
    return {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} <= kinds


def signature(function: Callable[..., Any], shape: str | None) -> str:
    """Return the parameters and the result of a function, as its callers see them in a client."""
    found = inspect.signature(function)
    generic = GENERIC.get(shape or "", {})
    parameters = []
    for name, each in found.parameters.items():
        if name == "hold":
            continue  # between the exit of a block and its entry
        hint = generic.get(name) or seen(each.annotation)
        if name == "self":
            hint = inspect.Parameter.empty
        parameters.append(each.replace(annotation=hint))
    result = RESULTS.get((shape or "", function.__name__)) or seen(found.return_annotation, is_result=True)
    text = str(found.replace(parameters=parameters, return_annotation=inspect.Signature.empty))
    # Annotations are texts here, which would be shown in quotes.
    return re.sub(r"'([^']*)'", r"\1", text) + f" -> {result}"


def seen(hint: Any, *, is_result: bool = False) -> Any:
    """Return what an annotation of a hosted class means to a client."""
    if hint is inspect.Parameter.empty or not isinstance(hint, str):
        return hint
    hint = hint.removeprefix("Waiter | ").replace("Carried", "Any")
    return re.sub(r"\bobject\b", "Any", hint) if is_result else hint


def generate_awaited() -> str:
    """Return the text of the file for `registry.aio`."""
    parts = [AWAITED_HEAD]
    for declaration in declarations():
        parts.append("\n".join(awaited(declaration)))
    parts.append("\n".join(map(qualified, mixin())))
    return "\n\n".join(parts) + "\n"


def awaited(declaration: SharedObject[Any]) -> Iterator[str]:
    """Write the class of a type's proxies where their verbs are awaited."""
    interface = declaration.interface
    shape: Any = SHAPES[interface.shape]
    base = AWAITED_GENERIC.get(interface.shape or "", "")
    yield f"class {title(declaration)}{f'({base})' if base else ''}:"
    yield f'    """{interface.doc}"""'
    if hasattr(shape, "__enter__"):
        yield from (f"    {line}" for line in ENTERED)
    if interface.shape == "queue" or "__iter__" in interface.exposed:
        member = {"mapping": "K", "sequence": "V", "set": "V"}.get(interface.shape or "", "Any")
        yield f"    def __aiter__(self) -> AsyncIterator[{member}]: ..."
    found = methods(declaration.factory, interface.exposed, shape, frozenset())
    told = {name: function for name, function in found.items() if name in interface.exposed}
    hides = any(BUILTINS.fullmatch(verb_of(name)) for name in told)
    for name, function in sorted(told.items()):
        for line in awaited_verb(interface.shape or "", name, function):
            yield f"    {qualified(line) if hides else line}"


def verb_of(name: str) -> str:
    """Return how a method is called where it is awaited."""
    return name.strip("_") if name in DUNDERS else name


def awaited_verb(shape: str, name: str, function: Callable[..., Any]) -> Iterator[str]:
    """Write a verb that is awaited, or gives a block."""
    verb = verb_of(name)
    if (shape, verb) in AWAITED_OTHERWISE:
        yield from AWAITED_OTHERWISE[shape, verb]
        return
    text, _, result = signature(function, shape).rpartition(" -> ")
    result = AWAITED_RESULTS.get((shape, name), result)
    if result.startswith("AbstractContextManager"):
        yield f"def {verb}{text} -> AbstractAsync{result.removeprefix('Abstract')}: ..."
    elif result == "Grant":
        yield f"def {verb}{text} -> Entering[Grant]: ..."
    else:
        yield f"async def {verb}{text} -> {result}: ..."


def qualified(line: str) -> str:
    """Return a line in which no verb hides a builtin: some are called `int`, `set` and `dict`."""
    head, parenthesis, rest = line.partition("(")
    return head + parenthesis + BUILTINS.sub(r"builtins.\1", rest)


def mixin() -> Iterator[str]:
    """Write the attributes of clients."""
    yield "class FirstParty:"
    yield '    """The types of this package as attributes of a client."""'
    for declaration in declarations():
        given = list(inspect.signature(declaration.factory).parameters.values())
        # Who takes what is there gives nothing of what it was made with.
        parts = [f"{each}".replace("'", "") + ("" if "=" in f"{each}" else " = ...") for each in given]
        if declaration.per == "name":
            parts[:0] = ["name: str", "/"]
        of = f"[{BASES[declaration.interface.shape][2]}]" if declaration.interface.shape in BASES else ""
        yield f"    def {declaration.typeid}(self, {', '.join(parts)}) -> {title(declaration)}{of}:"
        yield f'        """{declaration.interface.doc}"""'


def formatted(text: str, place: Path) -> str:
    """Return the text as all our files are formatted."""
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(place), "-"],
        input=text, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


if __name__ == "__main__":
    PLACE.write_text(formatted(generate(), PLACE), encoding="utf-8")
    AWAITED.write_text(formatted(generate_awaited(), AWAITED), encoding="utf-8")
