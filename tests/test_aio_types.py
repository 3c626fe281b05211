"""What type checkers are told of awaited verbs is what the first-party types have; see also ``tests/typing``."""

from __future__ import annotations

import inspect
from typing import Any

import aio_types
import pytest

from registry import aio
from registry.aio import _typed
from registry.aio._proxies import Part


def test_the_file_is_what_the_declarations_make_of_it() -> None:
    """``python tests/aio_types.py`` has been run since a first-party type was changed."""
    assert aio_types.FILE.read_text(encoding="utf-8") == aio_types.render()


@pytest.mark.parametrize("declaration", aio_types.declarations(), ids=lambda declaration: declaration.typeid)
def test_what_is_promised_is_there(declaration: Any) -> None:
    """Each verb that a type checker lets pass exists when the program runs, and none is missing."""
    verbs = {verb for verb, _, _ in aio_types.verbs(declaration)}
    part = Part.__new__(Part)
    part.interface, part._names = declaration.interface, {}
    part.cls = aio_types.proxy_class(declaration.interface)
    assert sorted(verbs) == part.verbs()
    assert all(part.name_of(verb) for verb in verbs)
    typed = vars(getattr(_typed, declaration.factory.__name__))
    assert {name for name, value in typed.items() if inspect.isfunction(value) and name[0] != "_"} == verbs


def test_none_of_it_is_run() -> None:
    """The client has no attribute of these types but those that the server's table gives it."""
    assert not hasattr(aio.ManagerClient, "dict")
    assert aio.ManagerClient.__mro__ == (aio.ManagerClient, object)
