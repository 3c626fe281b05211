"""Classes that were declared: they cross as themselves, by names that both sides know, and no others do."""

from __future__ import annotations

import dataclasses
import enum
import re
import sys
import types
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import pytest
from servers import KEY, another

from registry import ManagerClient, ManagerServer, SharedObject, ValueType, _codec, _plugins, hookimpl
from registry._codec import _values
from registry.errors import DeclarationError, NotShareable, PluginError


@attrs.frozen
class Cookie:
    name: str
    _secret: int = attrs.field(converter=int)
    tags: list[str] = attrs.field(factory=list)
    length: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "length", len(self.name))


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0
    seen: dataclasses.InitVar[int] = 0
    sum: float = dataclasses.field(init=False, default=0.0)

    def __post_init__(self, seen: int) -> None:
        self.sum = self.x + self.y


class Colour(enum.Enum):
    RED = 1
    GREEN = "g"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Row(NamedTuple):
    a: int
    b: Any


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.cents == self.cents  # type: ignore[attr-defined]

    __hash__ = None  # type: ignore[assignment]


class Deep:
    pass


RECORDS = [
    ValueType(Cookie, "test.Cookie"),
    ValueType(Point, "test.Point"),
    ValueType(Colour, "test.Colour"),
    ValueType(Right, "test.Right"),
    ValueType(Row, "test.Row"),
    ValueType(Money, "test.Money", lambda money: money.cents, Money),
    ValueType(Deep, "test.Deep", lambda deep: deep, lambda payload: payload),
    ValueType("fractions:Fraction", "test.Unused", str, str),
]
VALUES: list[Any] = [
    Cookie("sid", 5, ["a"]),
    Point(1.5, 2.5),
    Colour.RED,
    Colour.GREEN,
    Right.READ,
    Right.READ | Right.WRITE,
    Right(0),
    Row(1, [Row(2, None)]),
    Money(250),
    {"k": [Cookie("x", 1), (Money(1), {"y": Point(0.0)})]},
]


@pytest.fixture(autouse=True)
def table() -> Iterator[None]:
    """Give each test the table as it was, with the records of this file."""
    tables = (_values._by_name, _values._by_class, _values._sources, _values._silent)
    before = [dict(each) for each in tables]
    writers = dict(_codec._write._WRITERS)
    _codec.declare(RECORDS)
    yield
    for each, content in zip(tables, before, strict=True):
        each.clear()
        each.update(content)  # type: ignore[arg-type]
    _codec._write._WRITERS.clear()
    _codec._write._WRITERS.update(writers)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_they_cross_as_themselves(value: Any) -> None:
    """Whatever is declared comes back equal and of its class, carried or not, to anybody who has declared it."""
    for back in (_codec.decode(_codec.encode(value)), _codec.decode_carried(_codec.carry(value))):
        assert back == value
        assert type(back) is type(value)
    assert _codec.canonical(value) == _codec.canonical(_codec.decode(_codec.canonical(value)))


def test_fields_that_are_not_given_come_back_too() -> None:
    """What ``__init__`` does not take is set; what it takes goes by its parameter, and validators run."""
    cookie = Cookie("abc", 7)
    object.__setattr__(cookie, "length", 99)
    back = _codec.decode(_codec.encode(cookie))
    assert (back.length, back._secret) == (99, 7)
    point = Point(1.0)
    point.sum = 5.0
    assert _codec.decode(_codec.encode(point)).sum == 5.0


def wire(name: object, payload: object) -> bytes:
    import msgspec

    inner = msgspec.msgpack.encode([name, payload])
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(32, inner))


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("test.Point", {"x": 1.0, "z": 2}),
        ("test.Point", {"y": 1.0}),
        ("test.Point", [1.0]),
        ("test.Cookie", {"name": "a", "_secret": "no number"}),
        ("test.Colour", "BLUE"),
        ("test.Colour", 5),
        ("test.Row", [1]),
        ("test.Row", {"a": 1}),
        (5, {}),
    ],
)
def test_what_does_not_fit_is_refused(name: object, payload: object) -> None:
    """Fields that the class here does not have, or needs, and members and lengths that are none."""
    with pytest.raises(_codec.CodecError):
        _codec.decode(wire(name, payload))


def test_a_new_field_has_its_default() -> None:
    """A sender that does not know a field yet leaves it out."""
    assert _codec.decode(wire("test.Point", {"x": 2.0})) == Point(2.0)


def test_only_the_exact_class_is_declared() -> None:
    """An instance of a subclass would lose its class, and is refused at the sender with the cure."""

    class Special(Money):
        pass

    with pytest.raises(NotShareable, match="declare the class as a ValueType in a plugin that both sides name"):
        _codec.encode(Special(1))
    with pytest.raises(NotShareable, match="or declare it as a ValueType"):
        _codec.encode(namedtuple("Pair", "a")(1))


def test_a_name_that_is_not_declared_here_is_refused() -> None:
    """Names are looked up among what was declared, whatever could be imported by them."""
    with pytest.raises(NotShareable) as caught:
        _codec.decode(wire("os.system", "true"))
    assert str(caught.value) == (
        "a value of the declared type 'os.system' cannot be shared: this process does not know it: declare its class "
        "in the hook registry_value_types of a plugin, and name that in connect(plugins=[...]); a server takes it by -p"
    )


def test_one_without_end_is_refused() -> None:
    """A class whose functions return its own instances is as deep as a value may be, and then too deep."""
    with pytest.raises(NotShareable, match="it lies deeper than 200 levels"):
        _codec.encode(Deep())


def test_what_encode_refuses_is_refused_with_its_reason() -> None:
    """A converter can say that an instance has no form; what it says is told, with the place."""

    def refuse(value: object) -> object:
        raise TypeError("an open file has no form")

    _codec.declare([ValueType("test_value_types:Handle", "test.Handle", refuse, str)])
    sys.modules.setdefault("test_value_types", sys.modules[__name__])
    with pytest.raises(NotShareable, match=r"value\[0\] of class .*Handle cannot be shared: an open file has no form"):
        _codec.encode([Handle()])


class Handle:
    pass


Handle.__module__ = "test_value_types"


# -- records


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((Money, "a b", int, int), "name must be identifiers with dots between them, not 'a b' of type str"),
        ((Money, ""), "name must be identifiers with dots between them, not '' of type str"),
        (
            ("nowhere", "x", int, int),
            "x.cls must be a class, or a text such as 'module:Class', not 'nowhere' of type str",
        ),
        ((5, "x"), "x.cls must be a class, or a text such as 'module:Class', not 5 of type int"),
        ((Money, "x", 5, int), "x.encode must be a function, not 5 of type int"),
        ((Money, "x", int), "x.decode must come together with encode, not None of type NoneType"),
        (("m:C", "x"), "x.cls needs encode and decode, unless it is an attrs class"),
        ((Money, "x"), "x.cls needs encode and decode, unless it is an attrs class"),
    ],
)
def test_records_are_checked(arguments: Any, text: str) -> None:
    """Each rule of a record is told by its field."""
    with pytest.raises(DeclarationError, match=re.escape(text)):
        ValueType(*arguments)


def test_a_subclass_of_an_attrs_class_is_none() -> None:
    """Its own attributes are no fields, and would be lost."""

    class More(Cookie):
        pass

    with pytest.raises(DeclarationError, match="needs encode and decode"):
        ValueType(More, "test.More")


def test_a_name_and_a_class_have_one_meaning() -> None:
    """A second class of a name, and a second name of a class, are refused; nothing of that plugin is taken."""
    with pytest.raises(DeclarationError, match="name is that of .*Cookie in this process already, not 'test.Cookie'"):
        _codec.declare([ValueType(Handle, "test.Fresh", str, str), ValueType(Money, "test.Cookie", str, str)])
    assert _values.of_name("test.Fresh") is None
    with pytest.raises(DeclarationError, match="test.Other.cls is 'test.Cookie' in this process already"):
        _codec.declare([ValueType(Cookie, "test.Other")])
    _codec.declare(RECORDS[:1])  # the same once more is no clash


def test_a_module_that_is_loaded_anew_replaces_its_own() -> None:
    """As in a notebook: the class of the same place and name is the one that counts from then on."""

    def make() -> type:
        class Again:
            pass

        return attrs.frozen(Again)

    one, two = make(), make()
    _codec.declare([ValueType(one, "test.Again")])
    _codec.declare([ValueType(two, "test.Again")])
    assert type(_codec.decode(_codec.encode(two()))) is two


# -- plugins


def plugin(**hooks: Any) -> types.ModuleType:
    module = types.ModuleType("shop_values")
    for name, function in hooks.items():
        setattr(module, name, hookimpl(function))
    return module


def test_a_plugin_declares_them() -> None:
    """Loading a plugin puts its classes into the table; one that returns something else is broken."""
    loaded = _plugins.load(only=[plugin(registry_value_types=lambda: [ValueType(Handle, "test.Loaded", str, str)])])
    assert not loaded.problems
    assert _values.of_class(Handle) is not None
    for wrong, text in (
        (lambda: [5], "registry_value_types returned 5 of type int where a ValueType should be"),
        (lambda: "text", "registry_value_types returned 'text' of type str, not a list of ValueType records"),
        (lambda: [ValueType(Money, "test.Cookie", str, str)], "in this process already"),
    ):
        (broken,) = _plugins.load(only=[plugin(registry_value_types=wrong)]).problems
        assert broken.status == "broken" and text in broken.reason


SHOP = """
import attrs
from registry import ValueType, hookimpl

@attrs.define
class Basket:
    items: list

@hookimpl
def registry_value_types():
    return [ValueType(Basket, "shop.Basket")]
"""


def test_clients_ask_the_plugins_that_they_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file or a module of ``plugins=`` is asked when a value is met; a name that only the server knows is none."""
    file = tmp_path / "shop_of_test.py"
    file.write_text(SHOP)
    with ManagerServer("here", KEY) as server, another(server.url) as plain:
        with another(server.url, plugins=["no_such_module_here", str(file)]) as client:
            assert "shop.Basket" not in _values._by_name
            module = _plugins.from_file(str(file))
            client.dict("d")["b"] = module.Basket([1])
            assert client.dict("d")["b"] == module.Basket([1])
        assert plain.dict("d")["b"] == module.Basket([1])  # the table is the process's


def test_a_plugin_that_cannot_be_asked_is_told_to_who_is_refused(tmp_path: Path) -> None:
    """A file that is gone, or a module that fails, keeps nobody from what needs no plugin."""
    file = tmp_path / "gone.py"
    with ManagerServer("here", KEY) as server, another(server.url, plugins=[str(file)]) as client:
        shared = client.dict("d")
        shared["path"] = Path("/x")  # no typed form: pickled for processes of this user
        shared["money"] = Money(3)
        assert (shared["path"], shared["money"]) == (Path("/x"), Money(3))
        with pytest.raises(NotShareable, match=rf"the plugin {file} could not be asked: FileNotFoundError"):
            client.open("counter", "c").incr(object())


class Till:
    """Keep what the engine decodes."""

    def __init__(self) -> None:
        self.money = Money(0)

    def add(self, money: Money) -> Money:
        self.money = Money(self.money.cents + money.cents)
        return self.money


def test_hosted_classes_take_and_keep_them() -> None:
    """An argument that is not carried comes decoded, and what is kept is state."""
    with ManagerClient("memory://", plugins=[SharedObject("till", Till)]) as shared:
        till = shared.till("t")
        assert till.add(Money(5)) == Money(5)
        assert till.add(Money(7)) == Money(12)


def test_one_that_clashes_is_not_required() -> None:
    """A plugin that was named and means another class by a name is an error."""
    with pytest.raises(PluginError, match="in this process already"):
        _plugins.load(only=[plugin(registry_value_types=lambda: [ValueType(Money, "test.Row", str, str)])]).required()
