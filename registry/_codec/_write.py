"""Turning values into bytes."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import MappingView
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.msgpack import Ext

from .._leaves import Caller, Carried, Grant, Handle, OpaqueValue, Owner, pack_scalar, scalar_extension
from .._snapshots import FrozenDict, FrozenList, FrozenSet
from ..errors import NotShareable
from . import _exceptions, _values
from ._base import LIMIT, MOST_FRACTION_BITS, SCALARS, is_loaded, qualified
from ._bulk import BESIDE, OUTSIDE, Pieces, blob, head_of_bytes

if TYPE_CHECKING:
    import datetime
    import decimal
    import fractions
    import uuid
    from collections.abc import Callable, Collection, Iterable, Mapping

    from ..declarations import ValueType
    from ._base import Outgoing

_encode = msgspec.msgpack.encode

# Of the scalars, those that msgpack always has room for.
_SAFE = SCALARS - {int, str}

_CARRIED = frozenset({Carried})
_TUPLES = {tuple}
_TWO = {2}


class CarriedDict:
    """A dict of typed carried values on its way out: its keys, and the encodings of its values."""

    __slots__ = ("encodings", "keys")

    def __init__(self, keys: list[Any], encodings: list[bytes]) -> None:
        self.keys = keys
        self.encodings = encodings


class CarriedList:
    """A list of typed carried values on its way out: their encodings."""

    __slots__ = ("encodings",)

    def __init__(self, encodings: list[bytes]) -> None:
        self.encodings = encodings


class Refused(Exception):
    """Carries a refusal up to where its place in the value is known; never leaves the codec."""

    def __init__(self, value: object, reason: str) -> None:
        self.value = value
        self.reason = reason
        self.path: list[str] = []  # innermost first

    def __str__(self) -> str:
        path = self.path[::-1]
        place = "".join(path if len(path) <= 12 else [*path[:6], " ... ", *path[-6:]])
        return f"{place} of class {qualified(type(self.value))}"


def pack(writer: Writer, value: object) -> bytes:
    """Encode a value."""

    def build(writer: Writer) -> object:
        try:
            return writer.tree(value, 0)
        except Refused as refused:
            refused.path.append("value")
            raise

    return packed(writer, build)


def packed(writer: Writer, build: Callable[[Writer], object]) -> bytes:
    """Encode the tree that is built with a writer."""
    try:
        return _bytes_of(writer, build)
    except Refused as refused:
        raise NotShareable(str(refused), refused.reason) from None


def _bytes_of(writer: Writer, build: Callable[[Writer], object]) -> bytes:
    try:
        return _encode(build(writer))
    except (OverflowError, UnicodeEncodeError):
        # Somewhere is an int or a str that msgpack has no room for. Looking at each beforehand would cost
        # every value what only these need.
        writer.exact()
    try:
        return _encode(build(writer))
    except UnicodeEncodeError as error:
        raise Refused(error.object, "here a str cannot have lone surrogates") from None


class Writer:
    """Turn a value into a tree that msgspec writes as this codec would have it.

    Throughout, `depth` is the number of containers that a value lies in. A level of nesting takes two Python
    frames, so that the limit of depth is met before that of the interpreter.

    Attributes:
        outgoing: what is asked for objects of unknown classes.
        traceless: whether exceptions go without their traces.
        lossless: whether what would come back as something else is refused.
        declared: whether this is the inside of a declared object, where buffers are.
        plain: the scalars that need no look.
        beside: where large carried values are put that go beside the encoding; None puts them into it.
        outside: where buffers are put that go outside of the skeleton; None puts them into it.
    """

    __slots__ = ("beside", "declared", "lossless", "outgoing", "outside", "plain", "traceless")

    def __init__(self, outgoing: Outgoing | None, *, traceless: bool = False, lossless: bool = False) -> None:
        self.outgoing = outgoing
        self.declared = False
        self.beside: list[Any] | None = None
        self.outside: list[memoryview] | None = None
        self.traceless = traceless
        self.lossless = lossless
        self.plain: frozenset[type] = SCALARS

    def exact(self) -> None:
        """Begin again, and look at every int and str from now on."""
        self.plain = _SAFE
        for parts in (self.beside, self.outside):
            if parts:
                parts.clear()

    def tree(self, value: Any, depth: int) -> Any:
        """Return what msgspec is to write for a value."""
        cls = type(value)
        return value if cls in self.plain else _WRITERS.get(cls, _write_other)(self, value, depth)

    def row(self, *scalars: object) -> list[object]:
        """Return scalars for an array."""
        return [self.tree(item, 0) for item in scalars]

    def items(self, values: Collection[Any], depth: int, mark: str = "") -> Collection[object]:
        """Return the items of a container for an array; `depth` counts that container."""
        plain = self.plain
        if depth > LIMIT:
            raise Refused(values, f"it lies deeper than {LIMIT} levels, or contains itself")
        if plain.issuperset(map(type, values)):
            return values if isinstance(values, (list, tuple)) else list(values)
        out: list[object] = []
        try:
            for item in values:
                cls = type(item)
                out.append(item if cls in plain else _WRITERS.get(cls, _write_other)(self, item, depth))
        except Refused as refused:
            refused.path.append(mark or f"[{len(out)}]")
            raise
        return out

    def members(self, values: Collection[Any], depth: int) -> Collection[object]:
        """Return the items of a set, in the order of their encodings: its own order is no part of its value."""
        return [msgspec.Raw(item) for item in sorted(map(_encode, self.items(values, depth, "{...}")))]

    def pairs(self, value: dict[Any, Any], depth: int) -> list[object]:
        """Return the keys and values of a dict, one after the other."""
        keys = self.items(list(value), depth, "{key}")
        flat: list[object] = [None] * (2 * len(keys))
        flat[::2] = keys
        flat[1::2] = self.mapping(value, depth).values()
        return flat

    def mapping(self, value: dict[Any, Any], depth: int) -> dict[Any, Any]:
        """Return a dict with its values written and its keys as they are."""
        plain = self.plain
        if depth > LIMIT:
            raise Refused(value, f"it lies deeper than {LIMIT} levels, or contains itself")
        if plain.issuperset(map(type, value.values())):
            return value
        out: dict[Any, Any] = {}
        key: Any = None
        try:
            for key, item in value.items():
                cls = type(item)
                out[key] = item if cls in plain else _WRITERS.get(cls, _write_other)(self, item, depth)
        except Refused as refused:
            shown = repr(key) if type(key) in SCALARS else f"<{type(key).__name__}>"
            refused.path.append(f"[{shown if len(shown) <= 60 else shown[:57] + '...'}]")
            raise
        return out

    def call(
        self,
        args: Iterable[object],
        kwargs: Mapping[str, object],
        carried: Mapping[str, int],
        opaque: Callable[[object], Carried] | None,
    ) -> tuple[list[object], dict[str, object]]:
        """Return the arguments of a call."""
        positions = carried.values()
        row: list[object] = []
        named: dict[str, object] = {}
        where: object = None
        try:
            for position, item in enumerate(args):
                where = position + 1
                row.append(self.carried(item, opaque) if position in positions else self.tree(item, 2))
            for name, item in kwargs.items():
                where = repr(name)
                named[name] = self.carried(item, opaque) if name in carried else self.tree(item, 2)
        except Refused as refused:
            refused.path.append(f"argument {where}")
            raise
        return row, named

    def carried(self, value: object, opaque: Callable[[object], Carried] | None) -> object:
        """Write a value that the server is not to decode."""
        if type(value) in SCALARS and (self.beside is None or not is_large(value)):
            return Ext(35, pack_scalar(value))
        if type(value) is not Carried:
            try:
                value = carried(value, self.outgoing)
            except Refused:
                if opaque is None:
                    raise
                value = opaque(value)
        return _write_carried(self, value, 2)

    def exception(self, error: BaseException, traceback: str, depth: int) -> Ext:
        """Write an exception; `depth` counts it, since its arguments lie in it."""
        name = _exceptions.public_name(type(error))
        if name is None:
            return self.exception(_exceptions.remote(error, traceback), traceback, depth)
        args: Collection[object]
        try:
            args = self.items(_exceptions.arguments(error), depth, ".args")
        except Refused:
            if self.lossless:
                raise
            if not _exceptions.is_ours(name):
                return self.exception(_exceptions.remote(error, traceback), traceback, depth)
            # Ours keep their class: what they say is of more use than the object itself.
            args = self.row(*(item if type(item) in SCALARS else _shown(item) for item in error.args))
        payload: list[object] = [name, args]
        notes = [note for note in getattr(error, "__notes__", ()) if type(note) is str]
        if (traceback or notes) and not self.traceless:
            payload += [*self.row(traceback), self.row(*notes)]
        return Ext(39, _encode(payload))


def is_large(value: object) -> bool:
    """Tell whether a scalar is worth going beside the encoding."""
    return type(value) is bytes and len(value) >= BESIDE


def carried(value: object, outgoing: Outgoing | None) -> Carried:
    """Encode a value to be carried; what is large is left in pieces."""
    if is_large(value):
        # What msgpack begins bytes with that have four bytes of length.
        return Carried(Pieces((head_of_bytes(len(value)), value)))  # type: ignore[arg-type]
    writer = Writer(outgoing, lossless=True)
    writer.outside = []
    skeleton = _bytes_of(writer, lambda writer: writer.tree(value, 0))
    return Carried(assembled(skeleton, writer.outside))


def assembled(skeleton: bytes, buffers: list[memoryview]) -> Any:
    """Return a carried value's data; in pieces if that saves the copying of much."""
    if not buffers:
        return skeleton
    pieces = blob(skeleton, buffers)
    return pieces if len(pieces) >= BESIDE else bytes(pieces)


def _is_bare(key: object) -> bool:
    """Tell whether a scalar is written without an extension."""
    if isinstance(key, str):
        if key.isascii():
            return True
        try:
            key.encode()
        except UnicodeEncodeError:
            return False
        return True
    return not isinstance(key, int) or -(1 << 63) <= key < 1 << 64


def _qualified(cls: type) -> str:
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - the class is a user's, and so is what its __repr__ raises
        return f"<{qualified(type(value))}>"


def _why_not(value: object) -> str:
    cls = type(value)
    if isinstance(value, Carried):
        return "it is carried already, and cannot be part of a carried value"
    if hasattr(cls, "_fields") and isinstance(value, tuple):
        return "a named tuple would lose its names: pass v._asdict() or tuple(v), or declare it as a ValueType"
    if hasattr(cls, "__members__"):
        return "an enum's member would lose its class: pass v.value, or declare it as a ValueType"
    for base in (bool, int, float, complex, str, bytes, bytearray, tuple, list, dict, set, frozenset):
        if isinstance(value, base):
            return f"a subclass of {base.__name__} would lose its class: pass {base.__name__}(v)"
    if isinstance(value, BaseException):
        return "only builtin exceptions and those of registry.errors cross: pass str(v)"
    if isinstance(value, memoryview):
        return "it is a view of memory of this process: pass bytes(v)"
    if isinstance(value, type) or callable(value):
        return "code does not cross: pass its name or a value"
    if hasattr(cls, "fileno"):
        return "it is open in this process only: pass its path or its content"
    if hasattr(cls, "__next__") or isinstance(value, MappingView):
        return "it can be read only here: pass list(v)"
    return (
        "the other side does not know its class: make it a dict, or declare the class as a ValueType in a plugin "
        f"that both sides name, or as a SharedObject to share the object itself{_values.unasked()}"
    )


_Write = Any  # Callable[[Writer, Any, int], object], which mypy would have invariant in the value


def _write_scalar(writer: Writer, value: int | str, depth: int) -> object:
    return value if _is_bare(value) else scalar_extension(value)


def _encodings(writer: Writer, values: Collection[Any]) -> list[object] | None:
    """Return the bytes of a row, if the values are one."""
    if values and _CARRIED.issuperset(map(type, values)) and not writer.lossless:
        data = [item.data for item in values if not item.domain]
        if len(data) == len(values) and (writer.beside is None or max(map(len, data)) < BESIDE):
            return data
    return None


def _write_list(writer: Writer, value: list[Any], depth: int) -> object:
    if depth < LIMIT - 1:
        data = _encodings(writer, value)
        if data is not None:
            return Ext(43, _encode(data))
        if value and type(value[0]) is tuple and set(map(type, value)) == _TUPLES and set(map(len, value)) == _TWO:
            data = _encodings(writer, [second for _, second in value])
            if data is not None:
                return Ext(45, _encode((writer.items([first for first, _ in value], depth + 2), data)))
    return writer.items(value, depth + 1)


def _write_view(writer: Writer, value: Collection[Any], depth: int) -> object:
    return _write_list(writer, list(value), depth)


def _write_dict(writer: Writer, value: dict[Any, Any], depth: int) -> object:
    data = _encodings(writer, value.values())
    if data is not None and depth < LIMIT:
        return Ext(44, _encode((writer.items(list(value), depth + 1, "{key}"), data)))
    # Where the writer is not exact, a key that needs an extension makes msgspec fail, and it becomes so.
    if SCALARS.issuperset(map(type, value)) and (writer.plain is SCALARS or all(map(_is_bare, value))):
        return writer.mapping(value, depth + 1)
    return Ext(14, _encode(writer.pairs(value, depth + 1)))


def _write_carried_dict(writer: Writer, value: CarriedDict, depth: int) -> object:
    return Ext(44, _encode((writer.items(value.keys, depth + 1, "{key}"), value.encodings)))


def _write_ordered_dict(writer: Writer, value: dict[Any, Any], depth: int) -> object:
    return Ext(20, _encode(writer.pairs(value, depth + 1)))


def _write_tuple(writer: Writer, value: tuple[Any, ...], depth: int) -> object:
    return Ext(1, _encode(writer.items(value, depth + 1)))


def _write_set(writer: Writer, value: set[Any], depth: int) -> object:
    return Ext(2, _encode(writer.members(value, depth + 1)))


def _write_frozenset(writer: Writer, value: frozenset[Any], depth: int) -> object:
    return Ext(3, _encode(writer.members(value, depth + 1)))


def _write_bytearray(writer: Writer, value: bytearray, depth: int) -> object:
    return Ext(4, bytes(value))


def _write_complex(writer: Writer, value: complex, depth: int) -> object:
    return Ext(5, _encode((value.real, value.imag)))


def _write_deque(writer: Writer, value: deque[Any], depth: int) -> object:
    return Ext(15, _encode((value.maxlen, writer.items(value, depth + 1))))


def _write_span(code: int) -> _Write:
    def write(writer: Writer, value: Any, depth: int) -> object:
        return Ext(code, _encode(writer.items((value.start, value.stop, value.step), depth + 1)))

    return write


def _write_constant(payload: bytes) -> _Write:
    return lambda writer, value, depth: Ext(18, payload)


def _write_zone(writer: Writer, owner: object, zone: datetime.tzinfo | None) -> object:
    if zone is None:
        return None
    cls = type(zone)
    if is_loaded(cls, "datetime", "timezone"):
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        text = name[0].encode("utf-8", "surrogatepass") if name else None
        return offset.days, offset.seconds, offset.microseconds, text
    key = getattr(zone, "key", None)
    if is_loaded(cls, "zoneinfo", "ZoneInfo") and type(key) is str:
        return key
    raise Refused(owner, "its time zone has no name to send: use datetime.timezone or zoneinfo.ZoneInfo(key)")


def _write_datetime(writer: Writer, value: datetime.datetime, depth: int) -> object:
    zone = _write_zone(writer, value, value.tzinfo)
    day = (value.year, value.month, value.day)
    clock = (value.hour, value.minute, value.second, value.microsecond)
    return Ext(7, _encode((*day, *clock, value.fold, zone)))


def _write_date(writer: Writer, value: datetime.date, depth: int) -> object:
    return Ext(8, _encode((value.year, value.month, value.day)))


def _write_time(writer: Writer, value: datetime.time, depth: int) -> object:
    zone = _write_zone(writer, value, value.tzinfo)
    return Ext(9, _encode((value.hour, value.minute, value.second, value.microsecond, value.fold, zone)))


def _write_timedelta(writer: Writer, value: datetime.timedelta, depth: int) -> object:
    return Ext(10, _encode((value.days, value.seconds, value.microseconds)))


def _write_uuid(writer: Writer, value: uuid.UUID, depth: int) -> object:
    return Ext(11, value.bytes)


def _write_decimal(writer: Writer, value: decimal.Decimal, depth: int) -> object:
    return Ext(12, str(value).encode())


def _write_fraction(writer: Writer, value: fractions.Fraction, depth: int) -> object:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MOST_FRACTION_BITS:
        raise Refused(value, f"a Fraction may have {MOST_FRACTION_BITS} bits: pass its two numbers")
    return Ext(19, _encode(writer.row(value.numerator, value.denominator)))


def _write_handle(writer: Writer, value: Handle, depth: int) -> object:
    return Ext(33, _encode((value.address, value.typeid, value.name)))


def write_grant(value: Grant) -> Ext:
    """Return what msgspec is to write for a grant."""
    return Ext(34, _encode((value.number, value.abandoned, value.holder, float(value.since))))


def _write_carried(writer: Writer, value: Carried, depth: int) -> object:
    if writer.lossless:
        raise Refused(value, _why_not(value))
    data = value.data
    if writer.beside is not None and len(data) >= BESIDE:
        writer.beside.append(data)
        place = len(writer.beside) - 1
        return Ext(47, _encode((place, value.domain, value.kind) if value.domain else (place,)))
    if not value.domain:
        return Ext(35, data)
    return Ext(36, _encode((value.domain, value.kind, data)))


def _write_opaque(writer: Writer, value: OpaqueValue, depth: int) -> object:
    return Ext(37, _encode((value.kind, value.writer)))


def _write_owner(writer: Writer, value: Owner, depth: int) -> object:
    return Ext(38, _encode((value.session, value.number)))


def _write_caller(writer: Writer, value: Caller, depth: int) -> object:
    return Ext(42, _encode(tuple(value)))


def _write_exception(writer: Writer, value: BaseException, depth: int) -> object:
    return writer.exception(value, "", depth + 1)


def _write_other(writer: Writer, value: object, depth: int) -> object:
    cls = type(value)
    write = _late_writer(cls)
    if write is not None:
        _WRITERS[cls] = write
        return write(writer, value, depth)
    if writer.outgoing is not None:
        leaf = writer.outgoing(value)
        if type(leaf) is tuple and len(leaf) == 2 and leaf[0] == 41:
            return Ext(41, _encode(writer.tree(leaf[1], depth + 1)))
        if type(leaf) in _LEAF_WRITERS:
            return _LEAF_WRITERS[type(leaf)](writer, leaf, depth)
        if leaf is not NotImplemented:
            raise TypeError(f"outgoing() must return a leaf or NotImplemented, not a {type(leaf).__name__}")
    if isinstance(value, BaseException) and not writer.lossless:
        return writer.exception(value, "", depth + 1)
    raise Refused(value, _why_not(value))


def _write_declared(record: ValueType) -> _Write:
    def write(writer: Writer, value: object, depth: int) -> object:
        if depth >= LIMIT:
            raise Refused(value, f"it lies deeper than {LIMIT} levels, or contains itself")
        try:
            payload = _values.taken_apart(record, value)
        except (ImportError, TypeError, ValueError) as error:
            raise Refused(value, str(error)) from None
        before, writer.declared = writer.declared, True
        try:
            return Ext(32, _encode((record.name, writer.tree(payload, depth + 1))))
        except Refused as refused:
            refused.path.append(f"<{record.name}>")
            raise
        finally:
            writer.declared = before

    return write


def _write_buffer(writer: Writer, value: memoryview, depth: int) -> object:
    if not writer.declared:
        raise Refused(value, _why_not(value))
    if not value.c_contiguous:
        raise Refused(value, "the memory that it is a view of must be in one piece")
    raw = value.cast("B") if value.nbytes else memoryview(b"")
    if writer.outside is None or len(raw) < OUTSIDE:
        return Ext(46, raw)
    writer.outside.append(raw)
    return Ext(40, _encode((len(writer.outside) - 1,)))


def _late_writer(cls: type) -> _Write:
    """Return the writer of a class that this module does not import, or None."""
    if issubclass(cls, BaseException) and _exceptions.public_name(cls) is not None:
        return _write_exception
    module, name = cls.__module__, cls.__name__
    write = _LATE_WRITERS.get((module, name)) if type(module) is str else None
    if write is not None and is_loaded(cls, module, name):
        return write
    record = _values.of_class(cls)  # last, since plugins may be asked for it
    return None if record is None else _write_declared(record)


_LEAF_WRITERS: dict[type, _Write] = {
    Handle: _write_handle,
    Grant: lambda writer, value, depth: write_grant(value),
    Carried: _write_carried,
    OpaqueValue: _write_opaque,
    Owner: _write_owner,
    Caller: _write_caller,
}
_WRITERS: dict[type, _Write] = {
    **dict.fromkeys((int, str), _write_scalar),
    **dict.fromkeys((list, FrozenList), _write_list),
    **dict.fromkeys((dict, FrozenDict), _write_dict),
    **dict.fromkeys((set, FrozenSet), _write_set),
    **dict.fromkeys(map(type, ({}.keys(), {}.values(), {}.items())), _write_view),
    **dict.fromkeys(map(type, (OrderedDict().keys(), OrderedDict().values(), OrderedDict().items())), _write_view),
    tuple: _write_tuple,
    frozenset: _write_frozenset,
    bytearray: _write_bytearray,
    memoryview: _write_buffer,
    complex: _write_complex,
    deque: _write_deque,
    range: _write_span(16),
    slice: _write_span(17),
    type(Ellipsis): _write_constant(b"E"),
    type(NotImplemented): _write_constant(b"N"),
    OrderedDict: _write_ordered_dict,
    CarriedDict: _write_carried_dict,
    CarriedList: lambda writer, value, depth: Ext(43, _encode(value.encodings)),
    **_LEAF_WRITERS,
}
# Classes of modules that this one does not import: a value of one can be here only if its module is loaded.
_LATE_WRITERS: dict[tuple[str, str], _Write] = {
    ("datetime", "datetime"): _write_datetime,
    ("datetime", "date"): _write_date,
    ("datetime", "time"): _write_time,
    ("datetime", "timedelta"): _write_timedelta,
    ("uuid", "UUID"): _write_uuid,
    ("decimal", "Decimal"): _write_decimal,
    ("fractions", "Fraction"): _write_fraction,
}
