"""Where in the source something is, as far as that can be known, and how it is written for people."""

from __future__ import annotations

import ast
import inspect
import os
import textwrap
from collections.abc import Iterator
from typing import Any

from registry import _image
from registry.declarations import SharedObject
from registry.testing._passes import Moment, apply, outcome
from registry.testing._sets import Telltale, change_sets

# What goes through its argument in its order, and what makes an order of none.
_ORDERED = ("enumerate", "iter", "join", "list", "next", "reversed", "tuple", "zip", "map", "filter", "deque")


def written(place: tuple[str, int]) -> str:
    """Write a place as ``jar.py:12``, from the working directory if it lies below."""
    file, line = place
    if not file:
        return ""
    near = os.path.relpath(file) if os.path.isabs(file) else file
    return f"{file if near.startswith('..') else near}:{line}"


def of_method(cls: type, name: str) -> tuple[str, int]:
    """Return where a method begins, or its class."""
    code = getattr(inspect.unwrap(getattr(cls, name, None) or cls), "__code__", None)
    if code is not None and not code.co_filename.startswith("<"):
        return code.co_filename, code.co_firstlineno
    try:
        return inspect.getsourcefile(cls) or "", inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):  # a builtin, or typed at a prompt
        return "", 0


def of_attribute(cls: type, method: str, attribute: str) -> tuple[str, int]:
    """Return where a method, or else any method of the class, sets an attribute; else where the method begins."""
    for function in (getattr(cls, method, None), *vars(cls).values()):
        for node in _nodes(function):
            if isinstance(node, ast.Attribute) and node.attr == attribute and isinstance(node.ctx, ast.Store):
                return of_method_line(function, node)
    return of_method(cls, method)


def of_method_line(function: Any, node: ast.AST) -> tuple[str, int]:
    """Return where a node of a function's own tree is."""
    code = inspect.unwrap(function).__code__
    return code.co_filename, code.co_firstlineno + getattr(node, "lineno", 1) - 1


def of_local_sets(cls: type, method: str) -> list[tuple[str, int]]:
    """Return where a method, and what it calls of its class, goes through a set that it has made itself.

    The source is read for this, so it is a guess: good for telling where to look once an outcome differs.
    """
    found: dict[tuple[str, int], None] = {}
    seen: set[str] = set()
    todo = [method]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        function = getattr(cls, name, None)
        nodes = list(_nodes(function))
        todo += [node.attr for node in nodes if isinstance(node, ast.Attribute) and hasattr(cls, node.attr)]
        known: set[str] = set()
        for node in nodes:
            if isinstance(node, ast.Assign) and _is_set(node.value, known):
                known |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        for node in nodes:
            for iterated in _iterated(node):
                if _is_set(iterated, known):
                    found[of_method_line(function, iterated)] = None
    return list(found)


def of_kept_sets(declaration: SharedObject[Any], name: str, moment: Moment) -> list[tuple[str, int]]:
    """Return where a moment goes through sets of the object's state in a way that shows.

    It is played with sets that know where they are iterated, then once for each of these places with another order
    there: what then has another outcome is such a place.
    """
    places: dict[tuple[str, int], None] = {}
    usual = _with_telltales(declaration, name, moment, places, None)
    return [place for place in list(places) if _with_telltales(declaration, name, moment, {}, place) != usual]


def _with_telltales(
    declaration: SharedObject[Any],
    name: str,
    moment: Moment,
    places: dict[tuple[str, int], None],
    turned: tuple[str, int] | None,
) -> object:
    engine = _image.restore({declaration.typeid: declaration}, moment.image)
    hosted = engine.find(declaration.typeid, name)
    if hosted is None:
        return None
    change_sets(hosted.instance, lambda value: Telltale.of(value, places, turned) if type(value) is set else value)
    outputs = apply(engine, moment.event, moment.reads)
    seen = dict(places)
    change_sets(hosted.instance, lambda value: set(value) if type(value) is Telltale else value)
    result = outcome(engine, hosted, outputs)
    places.clear()
    places.update(seen)
    return result


def _nodes(function: Any) -> Iterator[ast.AST]:
    function = inspect.unwrap(function) if callable(function) else function
    if not inspect.isfunction(function):
        return
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError, TypeError):  # no source, or not by itself
        return
    yield from ast.walk(tree)


def _iterated(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, (ast.For, ast.comprehension)):
        yield node.iter
    elif isinstance(node, ast.Starred):
        yield node.value
    elif isinstance(node, ast.Call):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in _ORDERED:
            yield from node.args
        if called == "pop" and isinstance(node.func, ast.Attribute) and not node.args:
            yield node.func.value


def _is_set(node: ast.expr, known: set[str]) -> bool:
    if isinstance(node, ast.BinOp):
        return _is_set(node.left, known) or _is_set(node.right, known)
    if isinstance(node, ast.Name):
        return node.id in known
    if isinstance(node, ast.Call):
        return getattr(node.func, "id", "") in ("set", "frozenset")
    return isinstance(node, (ast.Set, ast.SetComp))
