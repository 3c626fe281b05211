"""Rows of carried values, which have an encoding of their own because large states are made of them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import _codec
from registry._leaves import Carried

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
