"""Tests of the typed codec: exact values, refusals that name the place, damage that is a `CodecError`."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import math
import queue
import subprocess
import sys
import threading
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import _codec, errors
from registry._codec import CodecError
from registry._leaves import Caller, Carried, Grant, Handle, OpaqueValue, Owner
from registry._snapshots import freeze
from registry.errors import NotShareable, RemoteError

Ext = msgspec.msgpack.Ext

TEXT = st.text(st.characters(exclude_categories=()))
ZONES = st.sampled_from(
    [
        None,
        datetime.timezone.utc,
        datetime.timezone(datetime.timedelta(hours=-3, microseconds=1)),
        datetime.timezone(datetime.timedelta(hours=1), "my \ud800 zone"),
        zoneinfo.ZoneInfo("Europe/Berlin"),
        zoneinfo.ZoneInfo("UTC"),
    ]
)
TIMES = st.builds(
    lambda value, fold, zone: value.replace(fold=fold, tzinfo=zone),
    st.datetimes() | st.times(),
    st.integers(0, 1),
    ZONES,
)
BARE = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary()
HASHABLE = (
    BARE
    | st.complex_numbers()
    | TIMES
    | st.dates()
    | st.timedeltas()
    | st.uuids()
    | st.decimals()
    | st.fractions()
    | st.sampled_from([..., NotImplemented, decimal.Decimal("-0E+5"), decimal.Decimal("sNaN12"), -0.0])
    | st.builds(range, st.integers(), st.integers(), st.integers(1))
)
KEYS = st.recursive(
    HASHABLE.filter(lambda key: not (isinstance(key, decimal.Decimal) and key.is_snan())),
    lambda item: st.lists(item, max_size=3).map(tuple) | st.frozensets(item, max_size=3),
    max_leaves=5,
)
VALUES = st.recursive(
    HASHABLE | st.binary().map(bytearray) | st.sets(KEYS, max_size=4) | st.frozensets(KEYS, max_size=4),
    lambda item: (
        st.lists(item, max_size=4)
        | st.lists(item, max_size=4).map(tuple)
        | st.dictionaries(KEYS, item, max_size=4)
        | st.dictionaries(KEYS, item, max_size=4).map(collections.OrderedDict)
        | st.lists(item, max_size=4).map(collections.deque)
        | st.lists(item, max_size=4).map(lambda items: collections.deque(items, 9))
        | st.tuples(item, item, item).map(lambda parts: slice(*parts))
    ),
    max_leaves=15,
)
LEAVES = st.sampled_from(
    [
        Handle("unix:///x", "lock", "login"),
        Grant(1 << 41, True, "cron.py (pid 7)", 1.5),
        Carried(b"\x01"),
        Carried(b"pickle", "host:1000", "shop.Jar"),
        OpaqueValue("shop.Jar", "host:1000"),
        Owner(3, 4),
        Caller("web1", 812, "worker.py", "Worker-3", "billing"),
    ]
)


def same(one: Any, two: Any) -> bool:
    """Tell whether two values are equal in type, value, order, bits, fold and zone, at every level."""
    if type(one) is not type(two):
        return False
    if isinstance(one, float):
        return (one == two and math.copysign(1, one) == math.copysign(1, two)) or (one != one and two != two)
    if isinstance(one, complex):
        return same(one.real, two.real) and same(one.imag, two.imag)
    if isinstance(one, dict):
        return same(list(one), list(two)) and same(list(one.values()), list(two.values()))
    if isinstance(one, (set, frozenset)):
        # Sets of things like NaN have no equality of their own.
        return len(one) == len(two) and _codec.canonical(one) == _codec.canonical(two)
    if isinstance(one, (list, tuple, collections.deque)):
        if isinstance(one, collections.deque) and one.maxlen != two.maxlen:
            return False
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, slice):
        return same((one.start, one.stop, one.step), (two.start, two.stop, two.step))
    if isinstance(one, decimal.Decimal):
        return bool(one.as_tuple() == two.as_tuple())
    if isinstance(one, (datetime.datetime, datetime.time)):
        # Their repr shows the fold and the zone, which equality does not look at.
        return repr(one) == repr(two)
    return bool(one == two)


def nested(levels: int, wrap: Callable[[Any], Any]) -> Any:
    """Wrap a number in that many containers."""
    value: Any = 1
    for _ in range(levels):
        value = wrap(value)
    return value


WRAPS: dict[str, Callable[[Any], Any]] = {
    "list": lambda item: [item],
    "tuple": lambda item: (item,),
    "dict": lambda item: {"a": item},
    "other keys": lambda item: {1 << 70: item},
    "frozenset": lambda item: frozenset([item]),
    "deque": lambda item: collections.deque([item]),
    "OrderedDict": lambda item: collections.OrderedDict(a=item),
    "slice": lambda item: slice(item),
    "exception": lambda item: KeyError(item),
}


# Values that come back


@given(VALUES)
def test_values_come_back_exactly(value: Any) -> None:
    """What is decoded is equal in everything that can be told apart, and canonical bytes decode too."""
    assert same(_codec.decode(_codec.encode(value)), value)
    assert same(_codec.decode(_codec.canonical(value)), value)
    assert same(_codec.decode_carried(_codec.carry(value)), value)


@given(VALUES)
def test_canonical_is_a_function_of_the_value(value: Any) -> None:
    """A value and what it was decoded to have the same canonical bytes."""
    assert _codec.canonical(_codec.decode(_codec.encode(value))) == _codec.canonical(value)


@given(st.lists(KEYS, unique=True))
def test_canonical_sets_have_no_history(items: list[Any]) -> None:
    """The order in which a set was built does not show."""
    forth, back = set(items), set()
    for item in items[::-1]:
        back.add(item)
    assert _codec.canonical(forth) == _codec.canonical(back)
    assert _codec.canonical([frozenset(forth)]) == _codec.canonical([frozenset(back)])


def test_canonical_does_not_hang_on_the_hash_seed() -> None:
    """Two processes with other hash seeds agree."""
    script = "from registry import _codec; print(_codec.canonical({'a', 'b', ('c',), None, 1.5, 'd'}).hex())"
    texts = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True,
            check=True,
            stdin=subprocess.DEVNULL,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1


def test_canonical_keeps_the_order_of_dicts() -> None:
    """The order of a dict can be seen, so it is state."""
    assert _codec.canonical({"a": 1, "b": 2}) != _codec.canonical({"b": 2, "a": 1})


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        ([1], (1,)),
        ({1}, frozenset({1})),
        (b"a", "a"),
        (b"a", bytearray(b"a")),
    ],
)
def test_types_are_part_of_the_value(one: Any, two: Any) -> None:
    """Values that compare equal, or nearly, are not confused."""
    for wrap in (lambda v: v, lambda v: [v], lambda v: {"a": (v,)}):
        assert _codec.encode(wrap(one)) != _codec.encode(wrap(two))
        assert same(_codec.decode(_codec.encode(wrap(one))), wrap(one))
        assert same(_codec.decode(_codec.encode(wrap(two))), wrap(two))


@given(LEAVES)
def test_leaves_come_back(leaf: Any) -> None:
    """Each leaf has a code of its own, alone and in containers."""
    for value in (leaf, [leaf], {"a": (leaf, 1)}):
        assert same(_codec.decode(_codec.encode(value)), value)
    assert _codec.decode(_codec.encode(leaf)).__reduce__ is not None


@given(VALUES)
def test_snapshots_are_taken_as_plain(value: Any) -> None:
    """What was read can be sent again as if it had been copied."""
    assert _codec.encode(freeze(value, "d")) == _codec.encode(value)


def test_views_become_lists() -> None:
    """The views of a dict are sent as what they show."""
    for value in ({"a": 1}, collections.OrderedDict(a=1), freeze({"a": 1}, "d")):
        sent = [value.keys(), value.values(), value.items()]
        assert _codec.decode(_codec.encode(sent)) == [["a"], [1], [("a", 1)]]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_read(kind: Callable[[bytes], Any]) -> None:
    """Bytes are read where they lie."""
    value = [1, (2, b"3"), Carried(b"\x01")]
    assert _codec.decode(kind(_codec.encode(value))) == value
    assert type(_codec.decode(kind(_codec.encode(value)))[2].data) is bytes


# Refusals


class Jar:
    """A class that nobody declared."""


class Text(str):
    """A subclass that would lose its class."""


class Color(enum.IntEnum):
    """An enum whose members are ints."""

    RED = 1


Point = collections.namedtuple("Point", "x y")
HERE = f"{__name__}."


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (
            Jar(),
            f"value of class {HERE}Jar cannot be shared: the other side does not know its class: make it",
        ),
        ([1, {"a": (Jar(),)}], f"value[1]['a'][0] of class {HERE}Jar "),
        ({(1, Jar()): 2}, f"value{{key}}[1] of class {HERE}Jar "),
        ({(1,): Jar()}, f"value[<tuple>] of class {HERE}Jar "),
        ({Jar()}, f"value{{...}} of class {HERE}Jar "),
        (Text("x"), "a subclass of str would lose its class: pass str(v)"),
        (collections.Counter("a"), "a subclass of dict would lose its class: pass dict(v)"),
        (Color.RED, "pass v.value"),
        (Point(1, 2), "a named tuple would lose its names: pass v._asdict() or tuple(v)"),
        (len, "code does not cross"),
        (Jar, "code does not cross"),
        (memoryview(b"a"), "pass bytes(v)"),
        (iter([1]), "it can be read only here: pass list(v)"),
        ((item for item in "a"), "it can be read only here: pass list(v)"),
        (collections.UserDict(a=1).keys(), "it can be read only here: pass list(v)"),
        (threading.Lock(), "the other side does not know its class"),
        (sys.stdout, "it is open in this process only: pass its path or its content"),
        (
            datetime.datetime(2024, 1, 1, tzinfo=type("Zone", (datetime.tzinfo,), {})()),
            "its time zone has no name",
        ),
        (Handle("\ud800", "lock", "a"), "here a str cannot have lone surrogates"),
        (fractions.Fraction(1 << 70_000, 3), "pass its two numbers"),
    ],
)
def test_refusals_name_place_class_and_cure(value: Any, text: str) -> None:
    """What cannot cross is refused by the sender, who is told where it is and what to do."""
    with pytest.raises(NotShareable) as caught:
        _codec.encode(value)
    assert text in str(caught.value)
    with pytest.raises(NotShareable):
        _codec.carry([value])


def test_a_cycle_is_refused() -> None:
    """A value that contains itself ends in a refusal with a short text."""
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(NotShareable, match="or contains itself") as caught:
        _codec.encode(cycle)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_the_limit_of_depth_is_one_for_both_sides(wrap: Callable[[Any], Any]) -> None:
    """The deepest value that is sent can be read, also far down in the stack; one level more is refused."""
    if wrap is WRAPS["slice"] and sys.version_info < (3, 12):
        deepest = slice(nested(_codec.LIMIT - 1, WRAPS["list"]))
    else:
        deepest = nested(_codec.LIMIT, wrap)
    data = _codec.encode(deepest)
    assert _codec.encode(_codec.decode(data)) == data
    if not isinstance(deepest, BaseException):
        with pytest.raises(NotShareable, match="deeper than 200 levels"):
            _codec.encode(wrap(deepest))


def test_reading_does_not_hang_on_the_readers_stack() -> None:
    """A value of the greatest depth takes about one frame a level."""
    data = _codec.encode(nested(_codec.LIMIT, WRAPS["tuple"]))

    def deeper(levels: int) -> Any:
        return deeper(levels - 1) if levels else _codec.decode(data)

    frame: Any = sys._getframe()
    used = 0
    while frame is not None:
        used, frame = used + 1, frame.f_back
    assert type(deeper(sys.getrecursionlimit() - used - _codec.LIMIT - 60)) is tuple


# Damage


@given(VALUES | LEAVES.map(lambda leaf: [leaf]), st.data())
def test_a_cut_is_always_noticed(value: Any, data: st.DataObject) -> None:
    """No beginning of a message is a message."""
    whole = _codec.encode(value)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(CodecError):
        _codec.decode(whole[:cut])


@given(VALUES, st.data())
def test_a_flipped_byte_is_a_value_or_an_error(value: Any, data: st.DataObject) -> None:
    """Damage raises nothing but `CodecError`."""
    whole = bytearray(_codec.encode([value]))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    expect_value_or_codec_error(bytes(whole))


@given(st.binary())
def test_garbage_is_a_value_or_an_error(data: bytes) -> None:
    """Any bytes raise nothing but `CodecError`."""
    expect_value_or_codec_error(data)


@given(st.integers(-128, 127), st.binary() | VALUES.map(_codec.encode))
def test_any_extension_is_a_value_or_an_error(code: int, payload: bytes) -> None:
    """Any payload under any code, as a value, in an array and as a key, raises nothing but `CodecError`."""
    whole = msgspec.msgpack.encode(Ext(code, payload))
    expect_value_or_codec_error(whole)
    expect_value_or_codec_error(b"\x91" + whole)
    expect_value_or_codec_error(b"\x81" + whole + b"\x01")
    expect_value_or_codec_error(b"\x81\x91" + whole + b"\x01")


def expect_value_or_codec_error(data: bytes) -> None:
    """Decode by every door."""
    for door in (_codec.decode, _codec.decode_arguments, lambda data: _codec.decode_carried(Carried(data))):
        try:
            door(data)
        except CodecError:
            pass
    try:
        _codec.decode(data, incoming=lambda leaf: leaf)
    except CodecError:
        pass


def tuples(levels: int) -> bytes:
    """Return the encoding of nested tuples, made without the sender's limit."""
    data = b"\x01"
    for _ in range(levels):
        data = msgspec.msgpack.encode(Ext(1, b"\x91" + data))
    return data


@pytest.mark.parametrize("levels", [_codec.LIMIT + 1, 1_000, 20_000])
@pytest.mark.parametrize(
    "make",
    [lambda n: b"\x91" * n + b"\x01", lambda n: b"\x81\x01" * n + b"\x01", lambda n: tuples(min(n, 2_000))],
    ids=["arrays", "maps", "tuples"],
)
def test_what_is_too_deep_is_refused(levels: int, make: Callable[[int], bytes]) -> None:
    """No depth that a peer can write is a RecursionError."""
    for data in (make(levels), b"\x92" + make(levels) + b"\x80"):
        with pytest.raises(CodecError):
            _codec.decode(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x01\x01",
        b"\xdd\xff\xff\xff\xff",
        msgspec.msgpack.encode(Ext(32, b"\x90")),
        msgspec.msgpack.encode(Ext(40, b"\x90")),
        msgspec.msgpack.encode(Ext(41, b"\x01")),
        msgspec.msgpack.encode(Ext(99, b"\x01")),
        msgspec.msgpack.encode(Ext(36, msgspec.msgpack.encode(["", "kind", b"pickle"]))),
        msgspec.msgpack.encode(Ext(33, msgspec.msgpack.encode(["a", "b"]))),
        msgspec.msgpack.encode(Ext(34, msgspec.msgpack.encode([True, 1, "", 0.0]))),
        msgspec.msgpack.encode(Ext(2, msgspec.msgpack.encode([[]]))),
        msgspec.msgpack.encode(Ext(14, msgspec.msgpack.encode([1]))),
        msgspec.msgpack.encode(Ext(15, msgspec.msgpack.encode([1, [1, 2]]))),
        msgspec.msgpack.encode(Ext(19, msgspec.msgpack.encode([1, 0]))),
        msgspec.msgpack.encode(Ext(7, msgspec.msgpack.encode([1] * 8 + ["../../etc/passwd"]))),
        msgspec.msgpack.encode(Ext(8, msgspec.msgpack.encode([2023, 2, 29]))),
        msgspec.msgpack.encode(Ext(12, b"one")),
    ],
)
def test_nonsense_is_refused(data: bytes) -> None:
    """What no sender writes is a `CodecError`: reserved codes, wrong fields, impossible dates and zones."""
    with pytest.raises(CodecError):
        _codec.decode(data)


# What stands in a value's place


def test_outgoing_is_asked_for_unknown_classes_alone() -> None:
    """Proxies leave as handles, wherever they are; what it declines is refused."""
    asked = []

    def outgoing(value: object) -> object:
        asked.append(type(value))
        return Handle("", "lock", "a") if isinstance(value, Jar) else NotImplemented

    value = [1, "a", {"k": Jar()}, (Jar(),), datetime.date(2024, 2, 29)]
    assert _codec.decode(_codec.encode(value, outgoing=outgoing))[2:4] == [
        {"k": Handle("", "lock", "a")},
        (Handle("", "lock", "a"),),
    ]
    assert asked == [Jar, Jar]
    assert _codec.decode_carried(_codec.carry([Jar()], outgoing)) == [Handle("", "lock", "a")]
    with pytest.raises(NotShareable, match=r"value\[0\] of class object"):
        _codec.encode([object()], outgoing=outgoing)


def test_outgoing_must_return_a_leaf() -> None:
    """A mistake of ours is not sent."""
    with pytest.raises(TypeError, match="must return a leaf"):
        _codec.encode(Jar(), outgoing=lambda value: [1])


def test_state_goes_out_and_comes_in() -> None:
    """The engine's own objects are a payload that only an engine reads."""
    data = _codec.canonical(
        {"waiters": [Jar()]}, outgoing=lambda value: (41, [1, {2}]) if type(value) is Jar else NotImplemented
    )
    assert _codec.decode(data, incoming=lambda leaf: leaf) == {"waiters": [(41, [1, {2}])]}
    with pytest.raises(CodecError, match="for that engine alone"):
        _codec.decode(data)


def test_incoming_is_asked_for_leaves() -> None:
    """Each leaf is offered once; an owner is none of its business."""
    leaves = [
        Handle("", "lock", "a"),
        Grant(7),
        Carried(b"\x01"),
        Carried(b"p", "d", "k"),
        OpaqueValue("a", "b"),
    ]
    asked = []

    def incoming(leaf: object) -> object:
        asked.append(leaf)
        return [len(asked)]

    assert _codec.decode(_codec.encode([*leaves, Owner(1, 2)]), incoming=incoming) == [
        *([n] for n in range(1, 6)),
        Owner(1, 2),
    ]
    assert asked == leaves
    assert _codec.decode(_codec.encode(leaves[0]), incoming=lambda leaf: {"a": 1}) == {"a": 1}


@pytest.mark.parametrize("raised", [KeyError("mine"), CodecError("mine"), RecursionError("mine")])
def test_what_incoming_raises_is_not_translated(raised: Exception) -> None:
    """A failure of the reader is not blamed on the bytes."""

    def incoming(leaf: object) -> object:
        raise raised

    for value in (Carried(b"\x01"), [(Carried(b"\x01"),)], {(1, 2): [Carried(b"\x01")]}):
        with pytest.raises(type(raised)) as caught:
            _codec.decode(_codec.encode(value), incoming=incoming)
        assert caught.value is raised


def test_what_incoming_returns_has_a_depth_of_its_own() -> None:
    """Deep values that are carried may be returned together."""
    deep = nested(_codec.LIMIT, WRAPS["list"])
    data = _codec.encode([("key", _codec.carry(deep))])
    assert _codec.decode(data, incoming=_codec.decode_carried) == [("key", deep)]


# Carried values


def test_carrying_twice_is_carrying_once() -> None:
    """What came carried goes on in the same bytes."""
    carried = _codec.carry([1, (2,)])
    assert _codec.carry(carried) is carried
    assert _codec.decode(_codec.encode(carried)) == carried


def test_a_carried_value_inside_another_is_refused() -> None:
    """A sender cannot hide a pickle in typed bytes, where no server would put its writer's domain on it."""
    for inner in (Carried(b"pickle", "host:1000", "shop.Jar"), Carried(b"\x01")):
        with pytest.raises(NotShareable, match="cannot be part of a carried value"):
            _codec.carry([inner])
        for value in (inner, [inner], ({"a": inner},)):
            with pytest.raises(CodecError, match="another one in it"):
                _codec.decode_carried(Carried(_codec.encode(value)))
    with pytest.raises(CodecError, match="is opaque"):
        _codec.decode_carried(Carried(b"\x01", "host:1000", "int"))


def test_carrying_is_lossless() -> None:
    """What `encode` would turn into something else is left to the pickle of the sender."""
    with pytest.raises(NotShareable, match="only builtin exceptions"):
        _codec.carry([Boom("x")])
    with pytest.raises(NotShareable):
        _codec.carry(KeyError(Jar()))


@pytest.mark.parametrize("size", [*range(20), 127, 128, 254, 255, 256, 257, 65_535])
def test_a_carried_value_alone_is_one_extension(size: int) -> None:
    """In the shortest form that msgpack has for its length, as msgspec writes it."""
    data = bytes(size)
    assert _codec.encode(Carried(data)) == msgspec.msgpack.encode(Ext(35, data))
    assert _codec.encode_result(Carried(data)) == msgspec.msgpack.encode(Ext(35, data))


GRANTS = st.builds(Grant, st.integers(0, 2**63), st.booleans(), st.text(max_size=300), st.floats(allow_nan=False))


@given(GRANTS)
def test_a_grant_alone_is_read_as_one_among_others(grant: Grant) -> None:
    """By its caller and by others, however long the name of its holder."""

    def fields(grant: Grant) -> tuple[object, ...]:
        return grant.number, grant.abandoned, grant.holder, grant.since

    data = _codec.encode_result(grant)
    assert data == _codec.encode(grant)
    alone, (among,) = _codec.decode_result(data, incoming=lambda leaf: leaf), _codec.decode(_codec.encode([grant]))
    assert fields(alone) == fields(among) == fields(grant)


@given(VALUES | GRANTS)
def test_a_result_is_opened_for_its_caller(value: Any) -> None:
    """Whatever its length, as by asking for each leaf; and damage is a `CodecError` all the same."""

    def opened(leaf: Any) -> Any:
        if type(leaf) is Grant:
            return (leaf.number, leaf.abandoned, leaf.holder, leaf.since)
        return _codec.decode_carried(leaf, opened) if type(leaf) is Carried else leaf

    data = bytes(_codec.encode(value if type(value) is Grant else _codec.carry(value)))
    value = opened(value)
    assert same(_codec.decode_result(data, incoming=opened), value)
    for cut in {0, 1, 2, 3, len(data) - 1}:
        for damaged in (data[:cut], data[:cut] + b"\x00" + data[cut:]):
            try:
                wanted = _codec.decode(damaged, incoming=opened)
            except CodecError:
                with pytest.raises(CodecError):
                    _codec.decode_result(damaged, incoming=opened)
            else:
                assert same(_codec.decode_result(damaged, incoming=opened), wanted)


# Arguments


@given(st.lists(VALUES, max_size=4), st.dictionaries(TEXT.filter(str.isidentifier), VALUES, max_size=3))
def test_arguments_come_back(args: list[Any], kwargs: dict[str, Any]) -> None:
    """A call's arguments are exact; the positional ones are read as a list."""
    assert same(_codec.decode_arguments(_codec.encode_arguments(tuple(args), kwargs)), (args, kwargs))


@given(VALUES, VALUES)
def test_carried_parameters_are_not_decoded(key: Any, value: Any) -> None:
    """A parameter that is carried arrives so, by position or by name; the others arrive decoded."""
    carried = _codec.carry(value)
    args, kwargs = _codec.decode_arguments(_codec.encode_arguments((key, value), {}, {"value": 1}))
    assert same(args[0], key)
    assert args[1] == carried
    args, kwargs = _codec.decode_arguments(_codec.encode_arguments((key,), {"value": value}, {"value": 1}))
    assert kwargs == {"value": carried}
    args, kwargs = _codec.decode_arguments(_codec.encode_arguments((key,), {"value": value}, {"value": -1}))
    assert kwargs == {"value": carried}
    args, kwargs = _codec.decode_arguments(_codec.encode_arguments((carried,), {}, {"value": 0}))
    assert args == [carried]


def test_what_cannot_be_typed_is_made_opaque() -> None:
    """The sender may pickle a carried value that the codec refuses, as a whole; else it is refused."""
    opaque = Carried(b"pickle", "host:1000", "Jar")
    data = _codec.encode_arguments((1, [Jar()]), {}, {"value": 1}, opaque=lambda value: opaque)
    args, _ = _codec.decode_arguments(data)
    assert (args, args[1].kind) == ([1, opaque], "Jar")
    with pytest.raises(NotShareable, match=rf"^argument 2\[0\] of class {HERE}Jar cannot be shared"):
        _codec.encode_arguments((1, [Jar()]), {}, {"value": 1})


def test_a_refused_argument_is_named() -> None:
    """By its position from one, or by its name."""
    with pytest.raises(NotShareable, match=r"^argument 2\['a'\] of class object"):
        _codec.encode_arguments((1, {"a": object()}), {})
    with pytest.raises(NotShareable, match=r"^argument 'key' of class object"):
        _codec.encode_arguments((1,), {"key": object()})


def test_big_numbers_do_not_change_the_others() -> None:
    """One argument that msgpack has no room for makes the call go the long way, to the same result."""
    args = (1 << 70, "\ud800", {"\ud800": 1 << 70}, {1 << 64: 1}, (-(1 << 63), (1 << 64) - 1, -(1 << 63) - 1))
    assert _codec.decode_arguments(_codec.encode_arguments(args, {}))[0] == list(args)
    carried = {"value": 0}
    assert _codec.decode_arguments(_codec.encode_arguments(args[:2], {}, carried))[0] == [
        Carried.of(1 << 70),
        "\ud800",
    ]


@pytest.mark.parametrize("value", [1, [], [[]], [[], {}, 1], [{}, []], [[], {1: 2}], [[], []], {"a": 1}])
def test_what_is_no_arguments_is_refused(value: Any) -> None:
    """A server need not look at what it calls with."""
    with pytest.raises(CodecError):
        _codec.decode_arguments(_codec.encode(value))


# Exceptions


class Boom(Exception):
    """An exception that nobody declared."""


def crossed(error: BaseException, traceback: str = "") -> Any:
    """Send an exception as the server does."""
    return _codec.decode(_codec.encode_exception(error, traceback))


@pytest.mark.parametrize(
    "error",
    [
        KeyError("a"),
        KeyError((1, {2})),
        ValueError(),
        IndexError("a", 1),
        StopIteration(3),
        queue.Empty(),
        queue.Full("x"),
        threading.BrokenBarrierError(),
        OSError(2, "No such file", "a.txt"),
        FileNotFoundError(2, "No such file", "a", None, "b"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        errors.LockLost("lock:a", "forced", "'here'"),
        errors.CallTimeout("lock:a.acquire", 5.0, "x"),
        errors.DefinitionConflict("a:b", "x=1", (1, 2), "me", 1.5),
        errors.StaleServer("restart it"),
    ],
    ids=repr,
)
def test_known_exceptions_cross_as_themselves(error: Exception) -> None:
    """Class, arguments and attributes are the same, raised or as a value."""
    for again in (
        crossed(error),
        _codec.decode(_codec.encode([error]))[0],
        _codec.decode(_codec.canonical(error)),
    ):
        assert type(again) is type(error)
        assert again.args == error.args
        assert str(again) == str(error)
        assert vars(again) == vars(error)
        assert getattr(again, "filename", None) == getattr(error, "filename", None)
        assert getattr(again, "filename2", None) == getattr(error, "filename2", None)


@pytest.mark.parametrize("error", [Boom("no luck"), KeyError(Jar()), SystemExit("no luck"), KeyboardInterrupt()])
def test_others_become_remote_errors(error: BaseException) -> None:
    """An unknown class, arguments that cannot cross, or what would end the caller arrive as text."""
    again = crossed(error, "Traceback ...")
    module = "" if type(error).__module__ == "builtins" else HERE
    assert type(again) is RemoteError
    assert again.type_name == module + type(error).__name__
    assert again.message == str(error)
    assert again.traceback == "Traceback ..."


def test_an_exception_without_a_text_still_crosses() -> None:
    """A class whose ``__str__`` raises does not break the reply."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert crossed(Mute()).message == "its text cannot be made"


def test_our_errors_keep_their_class() -> None:
    """An argument of ours that cannot cross is told as text, for the class is what people catch."""
    again = crossed(errors.DeclarationError("factory", "must be callable", Color.RED))
    assert type(again) is errors.DeclarationError
    assert again.value == repr(Color.RED)


def test_the_remote_traceback_is_a_note() -> None:
    """Who may see it finds the remote traceback under the error, and the notes that were there."""
    error = KeyError("a")
    error.__dict__["__notes__"] = ["a note", "\ud800"]
    again = crossed(error, "Traceback ...\n  boom")
    assert vars(again)["__notes__"] == ["remote traceback:\nTraceback ...\n  boom", "a note", "\ud800"]
    assert vars(crossed(KeyError("a"))) == {}
    assert _codec.canonical(error) == _codec.canonical(KeyError("a"))


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("shop.Boom", ["no luck"], "no luck"),
        ("shop.Boom", [1, (2,)], "1, (2,)"),
        ("UnicodeDecodeError", ["utf-8"], "utf-8"),
        ("registry.errors.LockLost", [], ""),
        ("registry.errors.annotations", [], ""),
        ("SystemExit", [1], "1"),
        ("os.system", ["true"], "true"),
        ("queue.Empty.__class__", [], ""),
    ],
)
def test_names_are_looked_up_in_tables_alone(name: str, args: list[Any], message: str) -> None:
    """A name that no table has, or arguments that its class does not take, give a `RemoteError`."""
    payload = msgspec.msgpack.encode([name, msgspec.Raw(_codec.encode(args))])
    error = _codec.decode(msgspec.msgpack.encode(Ext(39, payload)))
    assert type(error) is RemoteError
    assert (error.type_name, error.message) == (name, message)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with Python 3.11")
def test_groups_cross() -> None:
    """A group of known exceptions is one on the other side."""
    group = ExceptionGroup("both", [KeyError("a"), queue.Empty()])  # type: ignore[name-defined]  # noqa: F821
    again = crossed(group)
    assert [type(error) for error in again.exceptions] == [KeyError, queue.Empty]


def test_a_value_stays_exact_where_classes_of_one_name_exist() -> None:
    """A class is known by what it is, not by what it calls itself."""
    fake = type("UUID", (), {"__module__": "uuid"})
    with pytest.raises(NotShareable):
        _codec.encode(fake())
    assert _codec.decode(_codec.encode(uuid.UUID(int=5))) == uuid.UUID(int=5)
