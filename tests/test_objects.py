"""Definitions of objects: what they were made with, compared with what they are used with."""

from __future__ import annotations

from typing import Any

import pytest
from hosted_classes import ODD

from registry import SharedObject, _codec
from registry._leaves import Carried
from registry._objects import NO_ARGUMENTS, Hosted, bind
from registry.errors import DefinitionConflict, NotShareable


class Sized:
    """Takes arguments in every way."""

    def __init__(self, size: int = 1, *rest: int, name: str = "n", **more: int) -> None:
        self.size = size

    def look(self) -> int:
        return self.size


SIZED = SharedObject("sized", Sized)


def encoded(*args: object, **kwargs: object) -> bytes:
    """Encode the arguments of a definition."""
    return _codec.encode_arguments(args, kwargs)


def hosted(*args: object, **kwargs: object) -> Hosted:
    """Make a record of an object that was made with these arguments."""
    arguments = encoded(*args, **kwargs)
    _, _, definition = bind(SIZED, arguments)
    return Hosted(1, SIZED, "x", arguments, definition, maker="somebody", made=5.0, session=0)


@pytest.mark.parametrize(
    ("made", "used"),
    [
        (encoded(1), encoded(size=1)),
        (encoded(), encoded(1, name="n")),
        (encoded(1, 2, 3), encoded(1, 2, 3)),
        (encoded({"b": {1, 2}}), encoded(size={"b": {2, 1}})),
    ],
)
def test_equal_definitions(made: bytes, used: bytes) -> None:
    """Arguments that mean the same are the same, however they are written."""
    assert bind(SIZED, made)[2] == bind(SIZED, used)[2]


@pytest.mark.parametrize("used", [(2,), (True,), (1.0,), (1, 2), ("1",)])
def test_other_definitions_conflict(used: tuple[Any, ...]) -> None:
    """Other arguments are refused, types included."""
    with pytest.raises(DefinitionConflict) as caught:
        hosted(1).check(encoded(*used))
    assert caught.value.object == "sized:x"
    assert (caught.value.maker, caught.value.since) == ("somebody", 5.0)


def test_no_arguments_mean_whatever_it_is() -> None:
    """A use without arguments takes the object as it is."""
    hosted(7).check(NO_ARGUMENTS)


def test_a_conflict_names_what_differs() -> None:
    """Only the parameters that differ are named."""
    with pytest.raises(DefinitionConflict) as caught:
        hosted(1, name="a").check(encoded(2, name="a"))
    assert (caught.value.stored, caught.value.given) == ("size=1", "size=2")


def test_arguments_that_do_not_fit() -> None:
    """The error shows what the factory takes."""
    with pytest.raises(TypeError, match=r"odd is defined by \(start"):
        bind(ODD, encoded(1, 2))


def test_factories_without_a_signature() -> None:
    """Where a factory tells no signature, arguments are compared as they were given."""
    plain = SharedObject("plain", dict)
    assert bind(plain, encoded([["a", 1]]))[0] == [[["a", 1]]]
    assert bind(plain, encoded([["a", 1]]))[2] != bind(plain, encoded())[2]


def test_defaults_that_are_no_values() -> None:
    """A default that cannot be encoded cannot be given either."""
    missing = object()

    class Optional:
        def __init__(self, value: object = missing) -> None:
            self.value = value is missing

        def look(self) -> bool:
            return self.value

    record = SharedObject("optional", Optional)
    assert bind(record, encoded())[2] != bind(record, encoded(1))[2]


def test_definitions_are_typed() -> None:
    """A pickle in a definition is refused."""
    with pytest.raises(NotShareable, match="definition"):
        bind(SIZED, encoded(Carried(b"pickle", "here", "Thing")))
    assert bind(SIZED, encoded(Carried.of(1)))[0] == [Carried.of(1)]


def test_titles() -> None:
    """An object is written as typeid and name; the only one of its type as the typeid alone."""
    assert hosted().title == "sized:x"
    only = Hosted(1, SIZED, "", NO_ARGUMENTS, b"", maker="", made=0.0, session=0)
    assert only.title == "sized"
