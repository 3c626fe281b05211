"""Turning bytes into values.

msgspec calls back for each extension from the inside of its own recursion. Were containers read there, each
level would cost several levels of the interpreter's stack, and whether a value can be read would depend on
who reads it. So the call only makes leaves; containers wait as `_Pending`, and `Reader.finish` makes them
from the outside in, counting their depth.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from .._leaves import (
    BIG_INT,
    LONE_SURROGATES,
    Caller,
    Carried,
    Grant,
    Handle,
    OpaqueValue,
    Owner,
    scalar_of_extension,
)
from ..errors import NotShareable
from . import _exceptions, _values
from ._base import LIMIT, MOST_FRACTION_BITS, SCALARS, CodecError, is_misfit
from ._bulk import is_blob, split

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Sequence

    from ._base import Buffer, Incoming, Rows

_decode = msgspec.msgpack.decode
_decode_plain = msgspec.msgpack.Decoder().decode

# What a first byte can promise: a scalar without an extension.
SIMPLE = [not (0x80 <= n <= 0x9F or 0xDC <= n <= 0xDF or 0xC7 <= n <= 0xC9 or 0xD4 <= n <= 0xD8) for n in range(256)]


# The first bytes of an extension whose header has one size byte or none.
EXTENSION = frozenset({0xC7, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8})


def read_plain(data: Buffer) -> Any:
    """Decode what is msgpack and nothing else; extensions come back as `Ext`, for the caller to look at."""
    try:
        return _decode_plain(data)
    except (ValueError, RecursionError) as error:
        raise CodecError(str(error)) from error


def read(data: Buffer, reader: Reader) -> Any:
    """Decode a value."""
    if not data:
        raise CodecError("no bytes at all")
    if SIMPLE[data[0]]:
        try:
            return _decode_plain(data)
        except ValueError as error:
            raise CodecError(str(error)) from error
    try:
        value = _decode(data, ext_hook=reader.extension)
        # Each level takes a byte, so most messages are too short to be too deep.
        if reader.pending or len(data) > LIMIT:
            value = reader.finish(value, LIMIT)
        return value
    except (CodecError, MemoryError):
        raise
    except Exception as error:  # whatever a constructor says of arguments that it never expected
        if error is reader.failure or not is_misfit(error):
            raise
        raise CodecError(f"{type(error).__name__}: {error}") from error


def read_row(encodings: Sequence[Buffer], incoming: Incoming | None) -> list[Any]:
    """Decode the insides of typed carried values."""
    try:
        values = list(map(_decode_plain, encodings))
    except (ValueError, RecursionError) as error:
        raise CodecError(str(error)) from error
    if not SCALARS.issuperset(map(type, values)):
        for place, value in enumerate(values):
            if type(value) not in SCALARS:
                values[place] = read_inside(encodings[place], incoming)
    return values


def read_inside(data: Buffer, incoming: Incoming | None) -> Any:
    """Decode the inside of a typed carried value."""
    reader = Reader(incoming, inside=True)
    if is_blob(data):
        data, reader.buffers = split(data)
    return read(data, reader)


class _Pending:
    """A container whose payload is still to be read."""

    __slots__ = ("code", "data")

    # msgspec refuses what cannot be hashed as a key of a map, or it would stay there unread.
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, code: int, data: memoryview) -> None:
        self.code = code
        self.data = data


_UNFINISHED = frozenset({list, dict, _Pending})
_STATE = 41
_LIST, _DICT, _PAIRS = 43, 44, 45
_ROWS = frozenset({_LIST, _DICT, _PAIRS})
# A deque and an exception have their items in a second array, which is not a level of its own.
_WRAPPED = frozenset({15, 39})


class Reader:
    """Make the values that msgpack does not know.

    Attributes:
        incoming: what is asked for leaves.
        rows: what is asked for rows of typed carried values.
        inside: whether this is the inside of a carried value, where there is no other one.
        buffers: what stands beside the encoding.
        pending: whether there is a container to finish.
        failure: what `incoming` raised, which is not ours to translate.
    """

    __slots__ = ("buffers", "failure", "incoming", "inside", "pending", "rows")

    def __init__(self, incoming: Incoming | None, *, inside: bool = False, rows: Rows | None = None) -> None:
        self.buffers: Sequence[Buffer] = ()
        self.incoming = incoming
        self.rows = rows
        self.inside = inside
        self.pending = False
        self.failure: BaseException | None = None

    def extension(self, code: int, data: memoryview) -> Any:
        """Make a leaf, or put a container off."""
        if code in _CONTAINERS or code in _ROWS:
            self.pending = True
            return _Pending(code, data)
        leaf = _LEAVES.get(code)
        if leaf is None:
            raise CodecError(f"no value has the extension code {code}")
        value = leaf(self, data)
        if type(value) in _UNFINISHED:
            # Made by incoming(), and finished.
            self.pending = True
            return _Finished(value)
        return value

    def finish(self, value: Any, left: int) -> Any:
        """Return a value with all that is pending in it made; `left` is how deep it may be."""
        cls = type(value)
        if cls not in _UNFINISHED:
            return value.value if cls is _Finished else value
        if left <= 0:
            raise CodecError(f"it lies deeper than {LIMIT} levels")
        make = None
        if cls is _Pending and value.code in _ROWS:
            return self.rows_of(value.code, value.data, left)
        if cls is _Pending:
            make = _CONTAINERS[value.code]
            left += value.code in _WRAPPED
            payload = _decode(value.data, ext_hook=self.extension)
            if value.code == _STATE:
                value = [payload]
            elif type(payload) is list:
                value = payload
            else:
                raise CodecError("an array is missing")
        if cls is dict:
            if not SCALARS.issuperset(map(type, value)):
                raise CodecError("a map has a key that is no scalar")
            slots: Any = value
            kinds = set(map(type, value.values()))
        else:
            slots = range(len(value))
            kinds = set(map(type, value))
        if not _UNREADY.isdisjoint(kinds):
            left -= 1
            for slot in slots:
                if type(value[slot]) in _UNREADY:
                    value[slot] = self.finish(value[slot], left)
        return value if make is None else make(self, value)

    def offer(self, leaf: Any) -> Any:
        """Ask what stands in a leaf's place here."""
        if self.incoming is None:
            return leaf
        try:
            return self.incoming(leaf)
        except BaseException as error:
            self.failure = error
            raise

    def rows_of(self, code: int, data: memoryview, left: int) -> Any:
        """Make a list of a row of typed carried values; with keys a dict, or a list of pairs."""
        try:
            raw, encodings = _columns(data) if code != _LIST else (b"", _encodings(data))
        except msgspec.ValidationError as error:
            raise CodecError("carried values are a row of bytes") from error
        if code == _LIST:
            return self.row(encodings)
        before, self.pending = self.pending, False
        keys = _decode(raw, ext_hook=self.extension)
        is_plain, self.pending = not self.pending, before
        if type(keys) is not list:
            raise CodecError("an array is missing")
        # The keys of a dict lie in it, and plain ones that have a depth are none; those of pairs lie one level deeper.
        if code != _DICT or not is_plain:
            keys = self.finish(keys, left if code == _DICT else left - 1)
        pairs = zip(keys, self.row(encodings), strict=True)
        if code == _PAIRS:
            return list(pairs)
        made = dict(pairs)
        if len(made) != len(keys):
            raise CodecError("a key of a dict comes twice")
        return made

    def row(self, encodings: list[bytes]) -> list[Any]:
        """Ask what stands in the places of a row of typed carried values."""
        if self.inside:
            _refuse_inside()
        if not encodings:
            raise CodecError("carried values are a row of bytes, at least one")
        if self.rows is None:
            leaves = list(map(Carried, encodings))
            return leaves if self.incoming is None else list(map(self.offer, leaves))
        try:
            return self.rows(encodings)
        except BaseException as error:
            self.failure = error
            raise


class _Finished:
    """Keeps what `incoming` returned from being looked at for what is pending in it, or counted."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


_UNREADY = _UNFINISHED | {_Finished}


# Those whose payload is all scalars; msgspec checks the types and the length.
_three_ints = msgspec.msgpack.Decoder(tuple[int, int, int]).decode
_encodings = msgspec.msgpack.Decoder(list[bytes]).decode
_columns = msgspec.msgpack.Decoder(tuple[msgspec.Raw, list[bytes]]).decode
_place = msgspec.msgpack.Decoder(tuple[int]).decode
_place_and_texts = msgspec.msgpack.Decoder(tuple[int, str, str]).decode
_two_ints = msgspec.msgpack.Decoder(tuple[int, int]).decode
_two_floats = msgspec.msgpack.Decoder(tuple[float, float]).decode
_two_texts = msgspec.msgpack.Decoder(tuple[str, str]).decode
_three_texts = msgspec.msgpack.Decoder(tuple[str, str, str]).decode
_caller_fields = msgspec.msgpack.Decoder(tuple[str, int, str, str, str]).decode
_texts_and_bytes = msgspec.msgpack.Decoder(tuple[str, str, bytes]).decode
_grant_fields = msgspec.msgpack.Decoder(tuple[int, bool, str, float]).decode
_Zone = str | tuple[int, int, int, bytes | None] | None
_datetime_fields = msgspec.msgpack.Decoder(tuple[int, int, int, int, int, int, int, int, _Zone]).decode
_time_fields = msgspec.msgpack.Decoder(tuple[int, int, int, int, int, _Zone]).decode


def _read_zone(zone: str | tuple[int, int, int, bytes | None] | None) -> datetime.tzinfo | None:
    import datetime

    if zone is None:
        return None
    if isinstance(zone, str):
        import zoneinfo

        return zoneinfo.ZoneInfo(zone)
    days, seconds, microseconds, name = zone
    offset = datetime.timedelta(days, seconds, microseconds)
    if name is None:
        return datetime.timezone(offset)
    return datetime.timezone(offset, name.decode("utf-8", "surrogatepass"))


def _read_datetime(reader: Reader, data: memoryview) -> object:
    import datetime

    *fields, fold, zone = _datetime_fields(data)
    return datetime.datetime(*fields, tzinfo=_read_zone(zone), fold=fold)  # type: ignore[arg-type,misc]


def _read_date(reader: Reader, data: memoryview) -> object:
    import datetime

    return datetime.date(*_three_ints(data))


def _read_time(reader: Reader, data: memoryview) -> object:
    import datetime

    *fields, fold, zone = _time_fields(data)
    return datetime.time(*fields, tzinfo=_read_zone(zone), fold=fold)  # type: ignore[arg-type,misc]


def _read_timedelta(reader: Reader, data: memoryview) -> object:
    import datetime

    return datetime.timedelta(*_three_ints(data))


def _read_uuid(reader: Reader, data: memoryview) -> object:
    import uuid

    return uuid.UUID(bytes=bytes(data))


def _read_decimal(reader: Reader, data: memoryview) -> object:
    import decimal

    return decimal.Decimal(bytes(data).decode("ascii"))


def _read_big(code: int) -> Callable[[Reader, memoryview], object]:
    return lambda reader, data: scalar_of_extension(code, bytes(data))


def _read_constant(reader: Reader, data: memoryview) -> object:
    if bytes(data) == b"E":
        return Ellipsis
    if bytes(data) == b"N":
        return NotImplemented
    raise CodecError("there is no such constant")


def _read_handle(reader: Reader, data: memoryview) -> object:
    return reader.offer(Handle(*_three_texts(data)))


def read_grant(data: Buffer) -> Grant:
    """Make a grant of the payload of its extension."""
    return Grant(*_grant_fields(data))


def _read_carried(reader: Reader, data: memoryview) -> object:
    if reader.inside:
        _refuse_inside()
    return reader.offer(Carried(bytes(data)))


def _read_pickled(reader: Reader, data: memoryview) -> object:
    if reader.inside:
        _refuse_inside()
    domain, kind, pickled = _texts_and_bytes(data)
    if not domain:
        raise CodecError("an opaque value needs the domain that can read it")
    return reader.offer(Carried(pickled, domain, kind))


def _read_beside(reader: Reader, data: memoryview) -> object:
    if reader.inside:
        _refuse_inside()
    place, domain, kind = (*_place(data), "", "") if len(data) < 8 and data[0] == 0x91 else _place_and_texts(data)
    if kind and not domain:
        raise CodecError("an opaque value needs the domain that can read it")
    return reader.offer(Carried(_buffer(reader, place), domain, kind))  # type: ignore[arg-type]


def _read_outside(reader: Reader, data: memoryview) -> object:
    return memoryview(_buffer(reader, *_place(data))).toreadonly()


def _buffer(reader: Reader, place: int) -> Buffer:
    if not 0 <= place < len(reader.buffers):
        raise CodecError("a part of this value is missing")
    return reader.buffers[place]


def _refuse_inside() -> NoReturn:
    raise CodecError("a carried value has another one in it")


def _read_opaque(reader: Reader, data: memoryview) -> object:
    return reader.offer(OpaqueValue(*_two_texts(data)))


def _read_owner(reader: Reader, data: memoryview) -> object:
    return Owner(*_two_ints(data))


def _read_caller(reader: Reader, data: memoryview) -> object:
    return Caller(*_caller_fields(data))


_LEAVES: dict[int, Callable[[Reader, memoryview], object]] = {
    4: lambda reader, data: bytearray(data),
    5: lambda reader, data: complex(*_two_floats(data)),
    BIG_INT: _read_big(BIG_INT),
    7: _read_datetime,
    8: _read_date,
    9: _read_time,
    10: _read_timedelta,
    11: _read_uuid,
    12: _read_decimal,
    LONE_SURROGATES: _read_big(LONE_SURROGATES),
    18: _read_constant,
    33: _read_handle,
    34: lambda reader, data: reader.offer(read_grant(data)),
    35: _read_carried,
    36: _read_pickled,
    37: _read_opaque,
    38: _read_owner,
    40: _read_outside,
    46: lambda reader, data: memoryview(bytes(data)),  # where memory begins as arrays should
    47: _read_beside,
    42: _read_caller,
}


def _pairs(flat: list[Any]) -> zip[tuple[Any, Any]]:
    if len(flat) % 2:
        raise CodecError("a key has no value")
    return zip(flat[::2], flat[1::2])


def _make_deque(reader: Reader, parts: list[Any]) -> object:
    maxlen, items = parts
    if type(items) is not list or (maxlen is not None and (type(maxlen) is not int or len(items) > maxlen)):
        raise CodecError("a deque is its length and its items")
    return deque(items, maxlen)


def _make_range(reader: Reader, parts: list[Any]) -> object:
    start, stop, step = parts
    return range(start, stop, step)


def _make_slice(reader: Reader, parts: list[Any]) -> object:
    start, stop, step = parts
    return slice(start, stop, step)


def _make_fraction(reader: Reader, parts: list[Any]) -> object:
    if [type(number) for number in parts] != [int, int]:
        raise CodecError("a fraction is two numbers")
    if max(number.bit_length() for number in parts) > MOST_FRACTION_BITS:
        raise CodecError("a fraction this long")
    import fractions

    return fractions.Fraction(*parts)


def _make_state(reader: Reader, parts: list[Any]) -> object:
    if reader.incoming is None:
        raise CodecError("state of an engine is for that engine alone")
    return reader.offer((41, parts[0]))


def _make_exception(reader: Reader, parts: list[Any]) -> object:
    name, args, traceback, notes = parts if len(parts) == 4 else (*parts, "", [])
    if type(args) is not list or type(notes) is not list:
        raise CodecError("an exception has arguments and notes")
    if not all(type(text) is str for text in (name, traceback, *notes)):
        raise CodecError("the name, the traceback and the notes of an exception are text")
    return _exceptions.rebuild(name, args, traceback, notes)


def _make_declared(reader: Reader, parts: list[Any]) -> object:
    name, payload = parts
    if type(name) is not str:
        raise CodecError("a declared object has a name")
    try:
        return _values.put_together(name, payload)
    except NotShareable as error:
        reader.failure = error
        raise


_CONTAINERS: dict[int, Callable[[Reader, list[Any]], object]] = {
    1: lambda reader, items: tuple(items),
    2: lambda reader, items: set(items),
    3: lambda reader, items: frozenset(items),
    14: lambda reader, items: dict(_pairs(items)),
    15: _make_deque,
    16: _make_range,
    17: _make_slice,
    19: _make_fraction,
    20: lambda reader, items: OrderedDict(_pairs(items)),
    32: _make_declared,
    39: _make_exception,
    _STATE: _make_state,
}
