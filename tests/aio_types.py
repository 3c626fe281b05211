"""Write ``registry/aio/_typed.py``: what the first-party types are to a type checker where their verbs are awaited.

Run as a program it writes the file anew; a test compares. The signatures are those of the hosted classes, and of what
their shapes spell out for clients; what comes back is what a client gets of it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import registry
from registry import SharedObject
from registry.aio._proxies import _BLOCKS, _GRANTING, _OF_TASKS
from registry.declarations import DUNDERS, Interface
from registry.proxies import SHAPES, Proxy, proxy_class
from registry_containers import registry_shared_objects as containers
from registry_queues import registry_shared_objects as queues
from registry_sync import registry_shared_objects as sync

FILE = Path(registry.__file__).parent / "aio" / "_typed.py"

HEAD = '''"""What the first-party types are to a type checker, where their verbs are awaited; nothing here is ever run.

Made from their declarations by ``python tests/aio_types.py``.
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, ParamSpec, Protocol, TypeVar

from registry.aio._proxies import Grant

P = ParamSpec("P")
R = TypeVar("R")
T_co = TypeVar("T_co", covariant=True)


class Entering(Coroutine[Any, Any, T_co], AbstractAsyncContextManager[T_co]):
    """A call to await, or a block to enter."""


class Entered(Protocol):
    """What is a block by itself, and decorates coroutine functions."""

    async def __aenter__(self) -> Grant: ...
    async def __aexit__(self, *error: Any) -> None: ...
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]: ...


class Items(Protocol):
    """What ``async for`` goes through."""

    def __aiter__(self) -> AsyncIterator[Any]: ...
'''

_JOIN = "\n\n"
_BUILTINS = re.compile(r"\b(?<!\.)(bool|bytes|dict|float|int|list|object|set|slice|str|tuple)\b")
# Of what a hosted class returns, what a client gets.
_RESULTS = (
    (r"Waiter \| ", ""),
    (r" \| Waiter\b", ""),
    (r"\b(Carried|object|Hashable|Waiter)\b", "Any"),
    (r"\blist\[list\[Any\]\]", "list[Any]"),
)


def declarations() -> list[SharedObject[Any]]:
    """Return the first-party types, sorted."""
    return sorted([*containers(), *queues(), *sync()], key=lambda declaration: declaration.typeid)


def verbs(declaration: SharedObject[Any]) -> Iterator[tuple[str, Any, str]]:
    """Yield each verb with the function whose signature it has, and what it returns."""
    interface = declaration.interface
    cls: Any = declaration.factory
    proxy = proxy_class(interface)
    spelled = {
        name: function
        for base in SHAPES[interface.shape].__mro__
        if issubclass(base, Proxy) and base is not Proxy
        for name, function in vars(base).items()
        if not name.startswith("_") and hasattr(proxy, name)
    }
    for name in sorted({*interface.exposed, *spelled}):
        hosted, shape = getattr(cls, name, None), spelled.get(name)
        function = shape if shape is not None and not _is_open(shape) else hosted
        yield name.strip("_") if name in DUNDERS else name, function, _result(interface, name, function, hosted, shape)


def _is_open(function: Any) -> bool:
    """Tell whether a signature says nothing."""
    kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
    return {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} <= kinds


def _result(interface: Interface, name: str, function: Any, hosted: Any, shape: Any) -> str:
    """Return the annotation of what a verb gives."""
    if interface.shape in _GRANTING and name in _BLOCKS.get(interface.shape, ()):
        return "Entering[Grant]"
    if name in _BLOCKS.get(interface.shape, ()):
        return "AbstractAsyncContextManager[Any]"
    text = str(inspect.signature(function).return_annotation)
    if text == "Any" and hosted is not None:
        text = str(inspect.signature(hosted).return_annotation)
    for pattern, replacement in _RESULTS:
        text = re.sub(pattern, replacement, text)
    return "Any" if text == "<class 'inspect._empty'>" else _qualified(text)


def parameters(function: Any, leave_out: int) -> list[str]:
    """Return the parameters of a signature as lines, without the first ones."""
    rows = []
    star = False
    given = list(inspect.signature(function).parameters.values())[leave_out:]
    for place, parameter in enumerate(given):
        text = f"{parameter.name}: {_qualified(str(parameter.annotation))}"
        if parameter.kind is parameter.VAR_POSITIONAL:
            text, star = f"*{text}", True
        elif parameter.kind is parameter.VAR_KEYWORD:
            text = f"**{text}"
        elif parameter.kind is parameter.KEYWORD_ONLY and not star:
            rows.append("*")
            star = True
        if parameter.default is not parameter.empty:
            default = parameter.default
            plain = default is None or isinstance(default, bool | int | float | str) or default == ()
            text += f" = {default!r}" if plain else " = ..."
        rows.append(text)
        following = given[place + 1].kind if place + 1 < len(given) else None
        if parameter.kind is parameter.POSITIONAL_ONLY and following is not parameter.POSITIONAL_ONLY:
            rows.append("/")
    return rows


def written(kind: str, name: str, rows: list[str], result: str, doc: str) -> str:
    """Return a method as text."""
    given = ["self", *rows]
    lines = [f"    {kind} {name}({', '.join(given)}) -> {result}:"]
    if len(lines[0]) > 120:
        lines = [f"    {kind} {name}("] + [f"        {row}," for row in given] + [f"    ) -> {result}:"]
    return "\n".join([*lines, f'        """{doc}"""'])


def doc_of(function: Any, name: str) -> str:
    """Return the first line of what a method says of itself."""
    doc = inspect.getdoc(function)
    if not doc or name in DUNDERS:
        return f"Do what `{name}` does elsewhere."
    return doc.partition("\n\n")[0].replace("\n", " ").replace("``with ", "``async with ")


def of_type(declaration: SharedObject[Any]) -> str:
    """Return the class of a type as text."""
    interface = declaration.interface
    cls: Any = declaration.factory
    bases = ["Entered"] if interface.shape in _OF_TASKS else []
    if interface.shape == "queue" or "__iter__" in interface.exposed:
        bases.append("Items")
    body = []
    for verb, function, result in verbs(declaration):
        is_plain = not result.startswith(("Entering", "AbstractAsync"))
        doc = doc_of(function, function.__name__)
        body.append(written("async def" if is_plain else "def", verb, parameters(function, 1), result, doc))
    title = inspect.getdoc(cls).partition("\n\n")[0].replace("\n", " ")  # type: ignore[union-attr]
    return f'class {cls.__name__}({", ".join([*bases, "Protocol"])}):\n    """{title}"""\n\n{_JOIN.join(body)}\n'


def _qualified(annotation: str) -> str:
    """Return an annotation in which no verb hides a builtin: some are called `int` and `set`."""
    return _BUILTINS.sub(r"builtins.\1", annotation)


def of_client(declaration: SharedObject[Any]) -> str:
    """Return the attribute of the client for a type as text."""
    cls: Any = declaration.factory
    rows = ["name: builtins.str", "/"]
    for row in parameters(cls.__init__, 1) if "__init__" in vars(cls) or cls.__init__ is not object.__init__ else []:
        named, _, default = row.partition(" = ")
        name, _, annotation = named.partition(": ")
        # Those that come later need not give what the first has given.
        rows.append(f"{name}: {annotation} = {default or '...'}" if annotation else row)
    doc = f"Return the {declaration.typeid} of that name."
    return written("def", declaration.typeid, rows, cls.__name__, doc) + "\n        raise NotImplementedError"


def render() -> str:
    """Return the file as text."""
    classes = [of_type(declaration) for declaration in declarations()]
    client = _JOIN.join(of_client(declaration) for declaration in declarations())
    mixin = f'class Typed:\n    """The first-party types as attributes of a client."""\n\n{client}\n'
    return "\n\n".join([HEAD, *classes, mixin])


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
