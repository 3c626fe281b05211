"""The typed codec: values as bytes that need no trust to read.

A value is msgpack. What msgpack knows is written as it is: None, bool, 64-bit int, float (all its bits), str,
bytes, list, and dict with such scalars as keys. The rest is an extension, whose payload is again msgpack
unless the table says otherwise.

====  ======================  =====================================================
code  value                   payload
====  ======================  =====================================================
1     tuple                   array of the items
2, 3  set, frozenset          array of the items
4     bytearray               its bytes
5     complex                 [real, imaginary]
6     int beyond 64 bits      two's complement, big end first
7     datetime                [year, month, day, hour, minute, second, microsecond, fold, zone]
8     date                    [year, month, day]
9     time                    [hour, minute, second, microsecond, fold, zone]
10    timedelta               [days, seconds, microseconds]
11    UUID                    its 16 bytes
12    Decimal                 its text
13    str, lone surrogates    UTF-8 with the surrogates let through
14    dict, other keys        [key, value, key, value, ...]
15    deque                   [maxlen or nil, [item, ...]]
16    range                   [start, stop, step]
17    slice                   [start, stop, step]
18    Ellipsis, NotImplemented  one byte, ``E`` or ``N``
19    Fraction                [numerator, denominator]
20    OrderedDict             [key, value, key, value, ...]
32    declared object         [name, what `ValueType.encode` has made of it]
33    `Handle`                [address, typeid, name]
34    `Grant`                 [number, abandoned, holder, since]
35    `Carried`, typed        the encoding of the value, not looked at
36    `Carried`, opaque       [domain, kind, pickle]
37    `OpaqueValue`           [kind, writer]
38    `Owner`                 [session, number]
39    exception               [public name, [argument, ...], traceback, [note, ...]], or without the last two
40    buffer, outside         [which of those outside of the skeleton, see `_bulk`]
41    state of the engine     a value that only ``incoming`` can read
42    `Caller`                [host, pid, command, thread, label]
43    list, all of it 35      array of the encodings, as bytes
44    dict, all values 35     [[key, ...], [encoding, ...]], the encodings as bytes
45    pairs, all second 35    the same, of a list of tuples of two
46    buffer                  its bytes
47    `Carried`, beside       [which of the parts beside the encoding], with domain and kind of a pickle
48    value with buffers      see `_bulk`; only as the whole of a carried value
====  ======================  =====================================================

A zone is nil, the key of a ``ZoneInfo``, or [days, seconds, microseconds, name or nil] of a ``timezone``; the
name is bytes in the form of code 13.

A list of which every item is a typed `Carried`, and there is one, is always of code 43, never an array of code 35; so
are a dict of such values of code 44, and a list of pairs with such values of code 45. These are *rows*: their encodings
are read and written at once, which is several times as fast as one by one.

Types are exact. A tuple does not come back as a list nor True as 1, so a subclass, which would lose its
class, is refused at the sender; only snapshots are taken for the plain values they are copies of. Nothing
is ever imported, looked up by getattr or called by a name from the other side: classes stand in tables.

Limits: containers lie at most `LIMIT` deep in each other, both ways. A size limit is the frame's.
Whatever is wrong with bytes that are read is a `CodecError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.msgpack import Ext

from .._leaves import Carried, Grant, Parts, pack_scalar
from ..errors import NotShareable
from . import _bulk, _exceptions
from ._base import LIMIT, SCALARS, CodecError
from ._bulk import BESIDE, BYTES_HEAD, OUTSIDE, Pieces, head_of_bytes, is_blob, split
from ._read import EXTENSION, SIMPLE, Reader, read, read_grant, read_inside, read_plain, read_row
from ._values import add_source, declare
from ._write import CarriedDict, CarriedList, Refused, Writer, assembled, carried, is_large, pack, packed, write_grant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ._base import Buffer, Incoming, Outgoing, Rows

__all__ = [
    "BYTES_HEAD",
    "LIMIT",
    "OUTSIDE",
    "CodecError",
    "Parts",
    "Pieces",
    "add_source",
    "canonical",
    "carry",
    "carry_dict",
    "carry_in_pieces",
    "carry_list",
    "carry_pickle",
    "crosses",
    "declare",
    "decode",
    "decode_arguments",
    "decode_carried",
    "decode_result",
    "decode_row",
    "encode",
    "encode_arguments",
    "encode_call",
    "encode_exception",
    "encode_result",
    "exception_arguments",
    "head_of_bytes",
    "split_pickle",
]

_encode = msgspec.msgpack.encode
_NO_NAMES: dict[str, object] = {}
_decode_call = msgspec.msgpack.Decoder(tuple[list[Any], dict[str, Any]]).decode
# The first bytes of an extension of 1, 2, 4, 8 or 16 bytes, and how long a header and such a value are together.
_FIXED = {0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18}
# What stands before a typed carried value of so many bytes.
_CARRIED = [bytes([0xC7, size, 35]) for size in range(256)]
for _first, _size in _FIXED.items():
    _CARRIED[_size - 2] = bytes([_first, 35])


def encode(value: object, *, outgoing: Outgoing | None = None) -> bytes:
    """Encode a value.

    Args:
        value: what to encode.
        outgoing: asked for each object whose class the codec does not know. It returns a leaf (a `Handle`,
            `Grant`, `Carried`, `OpaqueValue`, `Owner` or `Caller`, or ``(41, payload)`` for state of the engine), or
            NotImplemented.

    Raises:
        NotShareable: something in the value cannot cross; the error names its place.
    """
    if type(value) in SCALARS:
        return pack_scalar(value)
    if type(value) is Carried and not value.domain:
        return _carried_alone(value.data)
    return pack(Writer(outgoing), value)


def canonical(value: object, *, outgoing: Outgoing | None = None) -> bytes:
    """Encode a value so that equal values of equal types give equal bytes, in every process.

    As `encode`, but exceptions are class and arguments only.
    The order of a dict is part of its value here.
    """
    if type(value) in SCALARS:
        return pack_scalar(value)
    return pack(Writer(outgoing, traceless=True), value)


def carry(value: object, outgoing: Outgoing | None = None) -> Carried:
    """Encode a value to be carried undecoded; one that is carried already is returned as it is.

    Raises:
        NotShareable: something in the value is not typed. What `encode` would send as something else, such as
            an exception of an undeclared class, is refused here too.
    """
    if type(value) is Carried:
        return value
    if type(value) in SCALARS:
        return Carried(pack_scalar(value))
    made = carry_in_pieces(value, outgoing)
    return made if isinstance(made.data, (bytes, memoryview)) else Carried(bytes(made.data))


def carry_in_pieces(value: object, outgoing: Outgoing | None = None) -> Carried:
    """As `carry`, but leave what is large in pieces, for `encode_arguments`."""
    try:
        return value if type(value) is Carried else carried(value, outgoing)
    except Refused as refused:
        refused.path.append("value")
        raise NotShareable(str(refused), refused.reason) from None


def carry_pickle(pickled: bytes, buffers: list[memoryview], domain: str, kind: str) -> Carried:
    """Make a carried value of a pickle, and of the buffers that it leaves out."""
    return Carried(assembled(pickled, buffers), domain, kind)


def split_pickle(opaque: Carried) -> tuple[Buffer, list[memoryview]]:
    """Undo `carry_pickle`; the buffers cannot be written.

    Raises:
        CodecError: the bytes are damaged.
    """
    return split(opaque.data) if is_blob(opaque.data) else (opaque.data, [])


def carry_dict(mapping: Mapping[Any, object], one: Callable[[object], Carried]) -> object:
    """Return what `encode` writes as a dict of the values, each of them carried undecoded.

    Args:
        mapping: the keys, with the values to carry.
        one: what carries a value that is no bare scalar.
    """
    values = mapping.values()
    kinds = set(map(type, values))
    if mapping and kinds <= SCALARS and not (bytes in kinds and any(map(is_large, values))):
        try:
            return CarriedDict(list(mapping), list(map(_encode, values)))
        except (OverflowError, UnicodeEncodeError):
            pass  # the long way has room for them
    return dict(zip(mapping, map(one, values)))


def carry_list(values: Iterable[object], one: Callable[[object], Carried]) -> object:
    """Return what `encode` writes as a list of the values, each of them carried undecoded, as `carry_dict` does."""
    row = list(values)
    if row and SCALARS.issuperset(map(type, row)) and not any(map(is_large, row)):
        try:
            return CarriedList(list(map(_encode, row)))
        except (OverflowError, UnicodeEncodeError):
            pass  # the long way has room for them
    return list(map(one, row))


def encode_arguments(
    args: Iterable[object],
    kwargs: Mapping[str, object],
    carried: Mapping[str, int] | None = None,
    outgoing: Outgoing | None = None,
    opaque: Callable[[object], Carried] | None = None,
) -> bytes:
    """Encode the arguments of a call.

    Args:
        args: the positional ones.
        kwargs: those given by name.
        carried: the parameters to carry undecoded, by name: the position, or -1 where only the name counts.
        outgoing: as for `encode`.
        opaque: what makes a carried value of one that the codec refuses, such as by pickling it.

    Raises:
        NotShareable: something in an argument cannot cross; the error names the argument and the place in it.
    """
    if not kwargs:
        quick = _scalars(args, carried)
        if quick is not None:
            return quick
    return packed(Writer(outgoing), lambda writer: writer.call(args, kwargs, carried or {}, opaque))


def encode_call(
    args: Iterable[object],
    kwargs: Mapping[str, object],
    carried: Mapping[str, int] | None = None,
    outgoing: Outgoing | None = None,
    opaque: Callable[[object], Carried] | None = None,
) -> bytes | Parts:
    """Encode the arguments of a call, as `encode_arguments` does; large carried values go beside them, uncopied."""
    if not kwargs:
        quick = _scalars(args, carried)
        if quick is not None:
            return quick
    writer = Writer(outgoing)
    parts: list[Any] = []
    writer.beside = parts
    head = packed(writer, lambda writer: writer.call(args, kwargs, carried or {}, opaque))
    return _with(head, parts)


def _scalars(args: Iterable[object], carried: Mapping[str, int] | None) -> bytes | None:
    """Encode arguments that are nothing but scalars, and none of them large, as most are; else return None."""
    if type(args) is not tuple or not SCALARS.issuperset(map(type, args)):
        return None
    try:
        if not carried:
            return _encode((args, _NO_NAMES))
        row: list[Any] = list(args)
        for position in carried.values():
            if 0 <= position < len(row):
                value = row[position]
                if type(value) is bytes and len(value) >= BESIDE:
                    return None
                row[position] = Ext(35, pack_scalar(value))
        return _encode((row, _NO_NAMES))
    except (OverflowError, UnicodeEncodeError):
        return None  # the long way has room for them


def encode_result(value: object, *, traceless: bool = False) -> bytes | Parts:
    """Encode what a method returned, as `encode` does, or as `canonical`; large carried values go beside it."""
    if type(value) in SCALARS:
        return pack_scalar(value)
    if type(value) is Carried and not value.domain and len(value.data) < BESIDE:
        return _carried_alone(value.data)
    if type(value) is Grant:
        try:
            return _encode(write_grant(value))
        except UnicodeEncodeError:
            pass  # the long way has room for it
    writer = Writer(None, traceless=traceless)
    parts: list[Any] = []
    writer.beside = parts
    return _with(pack(writer, value), parts)


def _carried_alone(data: bytes) -> bytes:
    """Encode a typed carried value."""
    return _CARRIED[len(data)] + data if len(data) < 256 else _encode(Ext(35, data))


def _with(head: bytes, parts: list[Any]) -> bytes | Parts:
    if not parts:
        return head
    size = len(head) + sum(map(len, parts))
    if size > _bulk.MOST:
        raise NotShareable(f"a value of {size} bytes", f"one call or reply may have {_bulk.MOST}: send it in parts")
    return Parts(head, tuple(parts))


def encode_exception(error: BaseException, traceback: str = "") -> bytes:
    """Encode an exception that was raised, so that decoding gives an exception to raise.

    Builtin exceptions, those of `queue` and of `registry.errors` go as themselves if their arguments are
    typed; any other as a `RemoteError`. Exceptions that are no `Exception`, such as SystemExit, go as a
    `RemoteError` too, since they would end the caller.

    Args:
        error: the exception.
        traceback: its traceback as text, for those who may see it. It becomes a note.
    """
    return packed(Writer(None), lambda writer: writer.exception(error, traceback, 1))


def exception_arguments(error: BaseException) -> tuple[Any, ...]:
    """Return what an exception of a class that crosses is made from again."""
    return _exceptions.arguments(error)


def crosses(error: BaseException) -> bool:
    """Tell whether an exception's class is one that receivers know; others become a `RemoteError`."""
    return _exceptions.public_name(type(error)) is not None


def decode(data: Buffer | Parts, *, incoming: Incoming | None = None, rows: Rows | None = None) -> Any:
    """Decode what `encode`, `canonical` or `encode_exception` made.

    Args:
        data: the bytes.
        incoming: asked for each `Handle`, `Grant`, `Carried`, `OpaqueValue` and ``(41, payload)``; what it
            returns takes the leaf's place. What it raises is not caught.
        rows: asked for the encodings of each row of typed carried values at once, in the place of `incoming`; what it
            returns takes their places, one for each.

    Raises:
        CodecError: the bytes are no value, or lie too deep.
    """
    if isinstance(data, Parts):
        reader = Reader(incoming, rows=rows)
        reader.buffers = data.buffers
        return read(data.head, reader)
    if data:
        first = data[0]
        if SIMPLE[first]:
            return read_plain(data)
        if first in EXTENSION and incoming is not None:
            value = read_plain(data)
            if type(value) is Ext and value.code == 35:
                return incoming(Carried(bytes(value.data)))
    return read(data, Reader(incoming, rows=rows))


def decode_result(data: Buffer | Parts, *, incoming: Incoming, rows: Rows | None = None) -> Any:
    """Decode what a method returned, for its caller. As `decode`, where `incoming` opens what is typed.

    A carried scalar alone, which most reads of a container return, is opened in one step; so is a grant.
    """
    if type(data) is bytes and data:
        first = data[0]
        size = len(data)
        start = 2 if _FIXED.get(first) == size else 3 if first == 0xC7 and size > 3 == size - data[1] else 0
        code = data[start - 1] if start else 0
        if code == 35:
            inside = data[start:]
            if inside and SIMPLE[inside[0]]:
                return read_plain(inside)
        elif code == 34:
            try:
                grant = read_grant(data[start:])
            except ValueError:
                pass  # the long way says what is wrong with it
            else:
                return incoming(grant)
    return decode(data, incoming=incoming, rows=rows)


def decode_arguments(
    data: Buffer | Parts, *, incoming: Incoming | None = None, rows: Rows | None = None
) -> tuple[list[Any], dict[str, Any]]:
    """Decode what `encode_arguments` made.

    Raises:
        CodecError: the bytes are no arguments.
    """
    if type(data) is bytes and len(data) < BESIDE:
        quick = _plain_arguments(data, incoming)
        if quick is not None:
            return quick, {}
    reader = Reader(incoming, rows=rows)
    if isinstance(data, Parts):
        reader.buffers, data = data.buffers, data.head
    value = read(data, reader)
    if type(value) is list and len(value) == 2:
        args, kwargs = value
        if type(args) is list and type(kwargs) is dict and all(type(name) is str for name in kwargs):
            return args, kwargs
    raise CodecError("these are not the arguments of a call")


def _plain_arguments(data: bytes, incoming: Incoming | None) -> list[Any] | None:
    """Decode arguments that are nothing but scalars, bare or carried, as most are; else return None."""
    try:
        row, named = _decode_call(data)
    except (ValueError, RecursionError):
        return None
    if named:
        return None
    for place, item in enumerate(row):
        kind = type(item)
        if kind is Ext:
            if item.code != 35:
                return None
            leaf = Carried(bytes(item.data))
            row[place] = leaf if incoming is None else incoming(leaf)
        elif kind not in SCALARS:
            return None
    return row


def decode_carried(carried: Carried, incoming: Incoming | None = None) -> Any:
    """Decode a typed carried value, in the process that reads it.

    The server never looked at the bytes, so they are what some other process chose to write. A pickle in them
    would be one that no server has vouched for: it is refused, as is any carried value inside another.

    Raises:
        CodecError: the value is opaque, its bytes are no value, or there is another carried value in it.
    """
    if carried.domain:
        raise CodecError(f"{carried!r} is opaque, not typed")
    data: Any = carried.data
    if type(data) is Pieces:
        head, content = data.parts  # of bytes, see `_shelf.get`
        return content if head == head_of_bytes(len(content)) else read_inside(bytes(data), incoming)
    if data and SIMPLE[data[0]]:
        return read_plain(data)
    return read_inside(data, incoming)


def decode_row(encodings: Sequence[Buffer], incoming: Incoming | None = None) -> list[Any]:
    """Decode a row of typed carried values, in the process that reads them, as `decode_carried` does each.

    Raises:
        CodecError: the bytes of one are no value, or there is another carried value in it.
    """
    return read_row(encodings, incoming)
