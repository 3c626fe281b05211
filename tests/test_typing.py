"""What type checkers are told of our types is what there is.

That they find what is wrong in programs, and nothing in what is right, is for mypy and pyright to say: they are run on
``tests/typing``.
"""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import registry
from registry import ManagerClient, SharedObject
from registry.proxies import proxy_class

TOLD = Path(registry.__file__).with_name("_typed.pyi")


def generator() -> ModuleType:
    """Import what writes the file; the name of its folder is that of a standard module."""
    spec = importlib.util.spec_from_file_location("generate_types", Path(__file__).parent / "typing" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = generator()
DECLARATIONS: list[SharedObject[Any]] = GENERATOR.declarations()
CLASSES = {
    node.name: node for node in ast.parse(TOLD.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)
}


def methods(name: str) -> set[str]:
    """Return the methods of a class of the file."""
    return {node.name for node in CLASSES[name].body if isinstance(node, ast.FunctionDef)}


def test_the_file_is_made_of_the_declarations() -> None:
    """``python -m tests.typing.generate`` would write what is there, but for its layout."""
    there = ast.dump(ast.parse(TOLD.read_text(encoding="utf-8")))
    assert ast.dump(ast.parse(GENERATOR.generate())) == there


@pytest.mark.parametrize("declaration", DECLARATIONS, ids=lambda declaration: declaration.typeid)
def test_a_proxy_has_what_is_told(declaration: SharedObject[Any]) -> None:
    """Neither more nor less: public methods, and those with which Python's syntax works."""
    proxy = proxy_class(declaration.interface)
    told = methods(GENERATOR.title(declaration))
    if declaration.interface.shape in GENERATOR.BASES:
        base = GENERATOR.BASES[declaration.interface.shape][1]
        told |= {name for name in dir(base) if name in declaration.interface.exposed}
    assert all(hasattr(proxy, name) for name in told)
    assert set(declaration.interface.exposed) <= told


def test_clients_have_an_attribute_for_each_type() -> None:
    """Those that are told, and no class at run time that somebody could see."""
    assert methods("FirstParty") == {declaration.typeid for declaration in DECLARATIONS}
    assert ManagerClient.__mro__ == (ManagerClient, object)


def test_what_is_told_is_in_the_package() -> None:
    """The file is installed with the rest."""
    assert TOLD.is_file()
    assert (TOLD.parent / "py.typed").is_file()
