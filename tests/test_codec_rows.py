"""Rows of carried values, which have an encoding of their own because large states are made of them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import _codec
from registry._leaves import Carried
from registry.errors import NotShareable

values = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.lists(st.integers(), max_size=3))
carried = st.builds(lambda value: Carried(_codec.encode(value)), values)
pickled = st.builds(lambda data: Carried(data, "domain", "module.Class"), st.binary(min_size=1, max_size=5))


def same(leaf: object) -> object:
    return leaf


@given(st.lists(st.one_of(carried, pickled, values)))
def test_they_come_back_as_they_were(row: list[object]) -> None:
    """Typed values alone, mixed with pickled ones or with plain values; equal rows have equal bytes."""
    data = _codec.canonical(row)
    assert _codec.decode(data, incoming=same) == row
    assert [type(item) for item in _codec.decode(data, incoming=same)] == [type(item) for item in row]
    assert _codec.canonical(list(row)) == data


@pytest.mark.parametrize("payload", [[], ["text"], [b"\x01", 1], [b"\x01", None]])
def test_other_rows_are_refused(payload: object) -> None:
    """A row of this code holds bytes, and at least one."""
    data = msgspec.msgpack.encode(msgspec.msgpack.Ext(43, msgspec.msgpack.encode(payload)))
    with pytest.raises(_codec.CodecError, match="carried values are a row of bytes"):
        _codec.decode(data)


keys = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.tuples(st.integers(), st.text()))


@given(st.dictionaries(keys, st.one_of(carried, pickled, values)))
def test_dicts_and_pairs_come_back_as_they_were(mapping: dict[object, object]) -> None:
    """A dict of carried values and its pairs, keys of every kind included; also what is one only in part."""
    for value in (mapping, list(mapping.items())):
        data = _codec.canonical(value)
        back = _codec.decode(data, incoming=same)
        assert back == value
        assert list(back) == list(value)
        assert _codec.canonical(back) == data
        assert _codec.decode(data, incoming=same, rows=lambda row: list(map(Carried, row))) == value


@given(st.dictionaries(keys, values), st.booleans())
def test_a_dict_to_carry_is_one_of_carried_values(mapping: dict[object, object], once: bool) -> None:
    """What a bulk verb sends is what a dict of carried values is, byte for byte."""
    row = _codec.carry_dict(mapping, _codec.carry)
    whole = {key: _codec.carry(value) for key, value in mapping.items()}
    assert _codec.encode([row]) == _codec.encode([whole])
    back = _codec.decode(_codec.encode(row), incoming=same, rows=_codec.decode_row)
    assert back == mapping
    assert list(map(type, back.values())) == list(map(type, mapping.values()))


@pytest.mark.parametrize("code", [44, 45])
@pytest.mark.parametrize(
    "payload", [[[1], []], [[], []], [[1], [b"\x01", b"\x01"]], [[1], ["text"]], [1, [b"\x01"]], [[[]], [b"\x01"]]]
)
def test_other_columns_are_refused(code: int, payload: object) -> None:
    """As many keys as encodings, at least one, and of a dict only what can be its key."""
    data = msgspec.msgpack.encode(msgspec.msgpack.Ext(code, msgspec.msgpack.encode(payload)))
    if code == 45 and payload == [[[]], [b"\x01"]]:
        assert _codec.decode(data, rows=_codec.decode_row) == [([], 1)]
        return
    with pytest.raises(_codec.CodecError):
        _codec.decode(data)


def test_a_key_that_comes_twice_is_refused() -> None:
    """Equal keys would make one of a dict's rows vanish."""
    data = msgspec.msgpack.encode(msgspec.msgpack.Ext(44, msgspec.msgpack.encode([[1, 1], [b"\x01", b"\x02"]])))
    with pytest.raises(_codec.CodecError, match="a key of a dict comes twice"):
        _codec.decode(data)


def test_rows_lie_no_deeper_than_other_values() -> None:
    """The limit of depth is the same both ways, wherever a row stands."""
    leaf = Carried(b"\x01")
    for innermost in ([leaf], {"k": leaf}, {("a",): leaf}, [("k", leaf)], [(("a",), leaf)]):
        for depth in range(_codec.LIMIT - 4, _codec.LIMIT + 1):
            value: object = innermost
            for _ in range(depth):
                value = [value]
            try:
                data = _codec.encode(value)
            except NotShareable:
                continue
            assert _codec.decode(data) == value


def test_a_carried_value_in_a_row_has_none_inside() -> None:
    """Nobody has vouched for what is inside of carried bytes, in rows as well."""
    inner = _codec.encode([Carried(b"\x01")])
    with pytest.raises(_codec.CodecError, match="a carried value has another one in it"):
        _codec.decode_row([inner])
