"""Where another interpreter finds what a test names: a function, a class, or a declaration.

Tests stand in modules that were imported by name, in files that were run, and in files that a test runner has loaded
in its own way. So what is told is both: the name of the module, and its file for where the name leads to nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any, Final

import msgspec

from registry.declarations import SharedObject
from registry.errors import PluginError

# What a declaration is made of, but for its factory.
_FIELDS: Final = ("typeid", "per", "readonly", "waiting", "exposed", "threaded", "keyed", "carried", "shape")
# What a program is imported as. `multiprocessing` calls it so where it spawns, and takes it for the program itself.
_PROGRAM: Final = "__mp_main__"


class Where(msgspec.Struct, array_like=True):
    """Where another interpreter finds something.

    Attributes:
        module: The name of the module; empty for a program.
        file: Its file, or empty.
        name: The dotted name in it.
        is_declaration: Whether that is a declaration itself and not its factory.
    """

    module: str
    file: str
    name: str
    is_declaration: bool = False

    def __str__(self) -> str:
        return f"{self.name} of {self.module or self.file}"


class Declared(msgspec.Struct, array_like=True):
    """A declaration, for another interpreter to make again."""

    where: Where
    fields: dict[str, Any]

    @classmethod
    def of(cls, declaration: SharedObject[Any], where: Where) -> Declared:
        """Tell what a declaration is made of."""
        return cls(where, {field: getattr(declaration, field) for field in _FIELDS})

    def made(self) -> SharedObject[Any] | None:
        """Make it again, as another interpreter; None if it is not found. Imports, which may raise anything."""
        found = load(self.where)
        if found is None:
            return None
        fields = dict(self.fields)
        return SharedObject(fields.pop("typeid"), found.factory if self.where.is_declaration else found, **fields)


class Enough(BaseException):
    """Ends a program that is only imported for its classes, where it comes to check them."""


#: Whether this process is another interpreter and is importing what a test has named.
importing = False


def of_declaration(declaration: SharedObject[Any]) -> Where | str:
    """Return where another interpreter finds a declaration, or why it cannot."""
    factory = declaration.factory
    module = sys.modules.get(getattr(factory, "__module__", None) or "")
    name = getattr(factory, "__qualname__", "")
    if module is not None and name and _resolved(module, name) is factory:
        return _reachable(module, name, False)
    for candidate in [module, *list(sys.modules.values())]:
        if isinstance(candidate, ModuleType):
            for key, value in list(vars(candidate).items()):
                if value is declaration:
                    return _reachable(candidate, key, True)
    if "<locals>" in name:
        return f"{name} is made inside a function: put it at the top of a module"
    return f"neither {declaration.typeid!r} nor its factory {factory!r} has a name at the top of a module"


def of_function(function: Any) -> Where | str:
    """Return where another interpreter finds a function or a class, or why it cannot."""
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    name = getattr(function, "__qualname__", "")
    if module is None or not name or _resolved(module, name) is not function:
        return f"{name or repr(function)} has no name at the top of a module: put it there"
    return _reachable(module, name, False)


def sendable(plugin: Any) -> Any:
    """Return what another process finds a plugin by. It is loaded here.

    Raises:
        PluginError: It cannot be loaded, or another process could not find it.
    """
    if isinstance(plugin, SharedObject):
        where = of_declaration(plugin)
        if isinstance(where, str):
            raise PluginError(plugin.typeid, f"a server of another process cannot find it: {where}")
        return Declared.of(plugin, where)
    from registry import _plugins

    return _plugins.load(only=[plugin]).required().spec[0][0]  # type: ignore[index]


def load(where: Where) -> Any:
    """Import by name, or else from the file, under the same name; None if it is not there."""
    global importing
    importing = True
    try:
        if where.module:
            try:
                found = _resolved(importlib.import_module(where.module), where.name)
                if found is not None or not where.file:
                    return found
            except (ImportError, Enough):
                if not where.file:
                    raise
        if where.module:
            return _resolved(_run(where.module, where.file), where.name)
        program = sys.modules.get(_PROGRAM)
        if program is None or getattr(program, "__file__", None) != where.file:
            program = sys.modules["__main__"] = _run(_PROGRAM, where.file)
        return _resolved(program, where.name)
    finally:
        importing = False


def path() -> list[str]:
    """Return where this interpreter looks for modules, so that another one does, whatever its working directory."""
    return [entry or os.getcwd() for entry in sys.path if isinstance(entry, str)]


def _run(title: str, file: str) -> ModuleType:
    """Import a file under a name, whatever has that name already."""
    spec = importlib.util.spec_from_file_location(title, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python file")
    module = sys.modules[title] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Enough:
        pass
    return module


def _resolved(module: ModuleType, name: str) -> object:
    value: object = module
    for part in name.split("."):
        value = getattr(value, part, None)
    return value


def _reachable(module: ModuleType, name: str, is_declaration: bool) -> Where | str:
    file = getattr(module, "__file__", None) or ""
    title = module.__name__
    if title == "__main__":
        spec = getattr(module, "__spec__", None)
        title = spec.name if spec is not None else ""
        if not title and not os.path.isfile(file):
            return f"{name} was typed at a prompt: put it into a file"
        sys.modules.setdefault(_PROGRAM, module)  # for what comes back
    return Where(title, os.path.abspath(file) if file else "", name, is_declaration)
