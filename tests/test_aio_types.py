"""What type checkers are told of awaited verbs is what there is; see also ``tests/typing/awaited.py``."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from test_typing import DECLARATIONS, GENERATOR

import registry
from registry import SharedObject, aio
from registry.aio._proxies import Part
from registry.proxies import proxy_class

TOLD = Path(registry.__file__).parent / "aio" / "_typed.pyi"
CLASSES = {
    node.name: node for node in ast.parse(TOLD.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)
}


def verbs(name: str) -> set[str]:
    """Return the verbs of a class of the file."""
    found = (node for node in CLASSES[name].body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {node.name for node in found if not node.name.startswith("_")}


def test_the_file_is_made_of_the_declarations() -> None:
    """``python -m tests.typing.generate`` would write what is there, but for its layout."""
    there = ast.dump(ast.parse(TOLD.read_text(encoding="utf-8")))
    assert ast.dump(ast.parse(GENERATOR.generate_awaited())) == there


@pytest.mark.parametrize("declaration", DECLARATIONS, ids=lambda declaration: declaration.typeid)
def test_a_proxy_has_what_is_told(declaration: SharedObject[Any]) -> None:
    """Neither more nor less: each verb that a checker lets pass exists when the program runs."""
    part = Part.__new__(Part)
    part.interface, part._names = declaration.interface, {}
    part.cls = proxy_class(declaration.interface)
    told = verbs(GENERATOR.title(declaration))
    assert sorted(told) == part.verbs()
    assert all(part.name_of(verb) for verb in told)


def test_clients_have_an_attribute_for_each_type() -> None:
    """Those that are told, and no class at run time that somebody could see."""
    assert verbs("FirstParty") == {declaration.typeid for declaration in DECLARATIONS}
    assert aio.ManagerClient.__mro__ == (aio.ManagerClient, object)
