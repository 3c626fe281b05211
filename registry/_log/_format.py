"""The bytes of a log: segments of records, and snapshots. No I/O.

A *segment* is a file: a head that describes it, then records, each with the events of one turn of the server. All
integers are big-endian.

::

    head     offset size
             0      4     "RGS1"
             4      4     n, length of the description
             8      n     the description, a msgpack map (`Description`)
             8+n    4     CRC-32 of all before

    record   offset size
             0      4     "RGR1"
             4      4     n, length of the body
             8      8     index of the first event in it
             16     4     how many events there are in it
             20     8     the log was on the disk up to this index when this was written
             28     4     the chain: the sum of the record before, also where that is in the segment before
             32     4     the sum: CRC-32 of the 28 bytes before, behind the magic, and of the body
             36     n     the body, msgpack: new names, events, digests, verdicts

    snapshot offset size
             0      4     "RGI1"
             4      4     n, length of the description
             8      n     the description, a msgpack map (`Picture`)
             8+n    32    BLAKE2b of all before and of the image
             40+n         the image, see `_image`

Objects and methods are named through a table that the segment builds up as it goes, never by a number of a method: a
plugin in which one is inserted would otherwise replay another one.

A record can be judged alone, by its sum, and in its place, by the chain. What that says of damage is told in `judge`.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import msgspec

from registry import _codec
from registry._events import AnyEvent, Call, Event, Output, Verdicts
from registry._wire import BadBody, Kind

FORMAT = 1
SEGMENT = b"RGS1"
RECORD = b"RGR1"
SNAPSHOT = b"RGI1"

_LENGTH = struct.Struct("!4sI")
_SUM = struct.Struct("!I")
_RECORD = struct.Struct("!4sIQIQII")
_COVERED = struct.Struct("!IQIQI")  # what the sum of a record covers of its head
_DIGEST = 32

_pack = msgspec.msgpack.Encoder().encode


class Unreadable(Exception):
    """These bytes are no whole head, or have been changed."""


class Description(msgspec.Struct, frozen=True):
    """What a segment says of itself.

    Attributes:
        format: Of this file.
        first: The index of its first event.
        chain: The sum of the record before it, 0 if there is none.
        synced: The log was on the disk up to this event when it was begun.
        boot: The boot of the machine in which it was written: what was written in another one may not have reached
            the disk.
        code: What its events ran through: the versions and hashes of interpreter, package and plugins.
        life: The server life that wrote it, `epoch` its number, `began` when, in seconds since 1970.
    """

    format: int
    first: int
    chain: int
    synced: int
    boot: str
    code: dict[str, str]
    life: bytes
    epoch: int
    began: float


class Picture(msgspec.Struct, frozen=True):
    """What a snapshot says of itself: the state after event `index`, whose record has the sum `chain`."""

    format: int
    index: int
    chain: int
    code: dict[str, str]
    life: bytes
    epoch: int
    made: float


_description = msgspec.msgpack.Decoder(Description).decode
_picture = msgspec.msgpack.Decoder(Picture).decode


def pack_segment(description: Description) -> bytes:
    """Return the head of a segment."""
    body = _pack(description)
    head = _LENGTH.pack(SEGMENT, len(body)) + body
    return head + _SUM.pack(zlib.crc32(head))


def read_segment(data: bytes) -> tuple[Description, int]:
    """Return the description of a segment, and where its records begin.

    Raises:
        Unreadable: It is not whole, or damaged.
    """
    if len(data) < _LENGTH.size:
        raise Unreadable("its head is cut off")
    magic, length = _LENGTH.unpack_from(data)
    end = _LENGTH.size + length
    if magic != SEGMENT or len(data) < end + _SUM.size:
        raise Unreadable("its head is cut off" if magic == SEGMENT else "it does not begin as a segment does")
    if zlib.crc32(memoryview(data)[:end]) != _SUM.unpack_from(data, end)[0]:
        raise Unreadable("its head is damaged")
    try:
        description = _description(memoryview(data)[_LENGTH.size : end])
    except BadBody as error:
        raise Unreadable(f"its head is of another version ({error})") from None
    if description.format != FORMAT:
        raise Unreadable(f"it is of format {description.format}, and this version reads format {FORMAT}")
    return description, end + _SUM.size


def pack_snapshot(picture: Picture, image: bytes) -> tuple[bytes, bytes]:
    """Return a snapshot: what comes before the image, and the image."""
    body = _pack(picture)
    head = _LENGTH.pack(SNAPSHOT, len(body)) + body
    return head + _hashed(head, image), image


def read_snapshot(data: bytes) -> tuple[Picture, memoryview]:
    """Return what a snapshot says of itself, and the image.

    Raises:
        Unreadable: It is not whole, or damaged.
    """
    start = _snapshot_start(data)
    view = memoryview(data)
    image = view[start + _DIGEST :]
    if _hashed(view[:start], image) != view[start : start + _DIGEST]:
        raise Unreadable("it is damaged")
    return _picture_of(view[:start]), image


def peek_snapshot(data: bytes) -> Picture:
    """Return what a snapshot says of itself, from its first bytes alone; nothing proves that it is so.

    Raises:
        Unreadable: Not even that is there.
    """
    start = _snapshot_start(data)
    if len(data) < start + _DIGEST:
        raise Unreadable("it is cut off")
    return _picture_of(memoryview(data)[:start])


def _snapshot_start(data: bytes) -> int:
    """Return where the description of a snapshot ends."""
    if len(data) < _LENGTH.size:
        raise Unreadable("it is cut off")
    magic, length = _LENGTH.unpack_from(data)
    if magic != SNAPSHOT:
        raise Unreadable("it does not begin as a snapshot does")
    return int(_LENGTH.size + length)


def _picture_of(head: memoryview) -> Picture:
    try:
        picture = _picture(head[_LENGTH.size :])
    except BadBody as error:
        raise Unreadable(f"it is of another version ({error})") from None
    if picture.format != FORMAT:
        raise Unreadable(f"it is of format {picture.format}, and this version reads format {FORMAT}")
    return picture


def _hashed(head: bytes | memoryview, image: bytes | memoryview) -> bytes:
    digest = hashlib.blake2b(head, digest_size=_DIGEST)
    digest.update(image)
    return digest.digest()


# -- records


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record, found whole at `offset`; it ends at `end`."""

    offset: int
    end: int
    first: int
    count: int
    synced: int
    before: int
    sum: int
    body: memoryview

    @property
    def last(self) -> int:
        """The index of its last event."""
        return self.first + self.count - 1


def digest(outputs: list[Output]) -> int:
    """Return a sum of what came out of an event. Of an error only the class counts: its text may name addresses."""
    found = 0
    for output in outputs:
        body = output.body
        if output.kind == Kind.ERROR:
            body = type(_codec.decode(body)).__qualname__.encode()
        found = zlib.crc32(b"%d %d %d " % (output.session, output.seq, output.kind), found)
        for part in (body.head, *body.buffers) if isinstance(body, _codec.Parts) else (body,):
            found = zlib.crc32(part, found)
    return found


class Writer:
    """Make the records of one segment.

    Attributes:
        index: The last event that was added.
        chain: The sum of the last record that was made.
    """

    def __init__(self, index: int, chain: int) -> None:
        self.index = index
        self.chain = chain
        self._names: dict[tuple[str, str, str], int] = {}
        self._begin()

    def _begin(self) -> None:
        self._new: list[tuple[str, str, str]] = []
        self._events: list[object] = []
        self._digests: list[int] = []
        self._verdicts: dict[int, Verdicts] = {}

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: Event, outputs: list[Output], verdicts: Verdicts = ()) -> None:
        """Add an event to the record that comes next."""
        if type(event) is Call:
            name = (event.typeid, event.name, event.method)
            number = self._names.get(name)
            if number is None:
                number = self._names[name] = len(self._names)
                self._new.append(name)
            row: object = (
                event.now, event.session, event.seq, event.owner, number, event.arguments,
                event.received, event.above, event.grants, event.remaining, event.thread,
            )  # fmt: skip
        else:
            row = event
        if verdicts:
            self._verdicts[len(self._events)] = verdicts
        self._events.append(row)
        self._digests.append(digest(outputs) if outputs else 0)
        self.index += 1

    def take(self, synced: int) -> bytes:
        """Return the record of what was added, of one event at least."""
        count = len(self._events)
        first = self.index - count + 1
        body = _pack((self._new, self._events, self._digests, self._verdicts))
        total = zlib.crc32(body, zlib.crc32(_COVERED.pack(len(body), first, count, synced, self.chain)))
        record = _RECORD.pack(RECORD, len(body), first, count, synced, self.chain, total) + body
        self.chain = total
        self._begin()
        return record


def read_record(data: bytes, offset: int) -> Record | None:
    """Return the record that begins at `offset` if it is whole and undamaged, wherever it belongs."""
    start = offset + _RECORD.size
    if len(data) < start:
        return None
    magic, length, first, count, synced, before, total = _RECORD.unpack_from(data, offset)
    if magic != RECORD or len(data) < start + length or not count:
        return None
    body = memoryview(data)[start : start + length]
    if total != zlib.crc32(body, zlib.crc32(_COVERED.pack(length, first, count, synced, before))):
        return None
    return Record(offset, start + length, first, count, synced, before, total, body)


def records(data: bytes, offset: int, index: int, chain: int) -> Iterator[Record]:
    """Yield the records from `offset` on that continue (`index`, `chain`), up to the first that does not."""
    while (record := read_record(data, offset)) is not None and (record.first, record.before) == (index + 1, chain):
        yield record
        offset, index, chain = record.end, record.last, record.sum


def judge(data: bytes, offset: int, index: int, same_boot: bool) -> int | None:
    """Tell whether what is at `offset`, where event `index` should be, is damage rather than a torn tail.

    A tail is torn where writing it was cut short. Within one boot the system keeps what was written in order, so that
    nothing whole can lie behind it. After a loss of power a part of what had not been synced may be there, in any
    order; but a record that says that `index` was synced when it was written proves that `index` had been whole.

    Returns:
        Where the record is that proves damage, or None.
    """
    place = data.find(RECORD, offset)
    while place >= 0:
        record = read_record(data, place)
        if record is not None and record.last >= index and (same_boot or record.synced >= index):
            return place
        place = data.find(RECORD, place + 1)
    return None


class Names:
    """The table of a segment, as its records build it up; read its records in order."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str, str]] = []

    def events(self, record: Record) -> list[tuple[AnyEvent, int, Verdicts]]:
        """Return the events of a record, each with the digest of its outputs and its verdicts.

        Raises:
            Unreadable: It was written by another version.
        """
        try:
            names, events, digests, verdicts = _body(record.body)
            self._rows += names
            return [
                (self._event(row), total, verdicts.get(place, ()))
                for place, (row, total) in enumerate(zip(events, digests, strict=True))
            ]
        except (*BadBody, ValueError, IndexError, TypeError) as error:
            raise Unreadable(f"event {record.first} and its neighbours are of another version ({error})") from None

    def _event(self, row: list[Any]) -> AnyEvent:
        if isinstance(row[0], str):
            return _event(row)
        now, session, seq, owner, number, arguments, received, above, grants, remaining, thread = row
        typeid, name, method = self._rows[number]
        return Call(
            now=now,
            session=session,
            seq=seq,
            owner=owner,
            typeid=typeid,
            name=name,
            method=method,
            arguments=arguments if type(arguments) is bytes else _codec.Parts(arguments[0], tuple(arguments[1])),
            received=received,
            above=tuple(map(tuple, above)),
            grants=tuple(map(tuple, grants)),
            remaining=remaining,
            thread=thread,
        )


_body = msgspec.msgpack.Decoder(
    tuple[list[tuple[str, str, str]], list[list[Any]], list[int], dict[int, tuple[tuple[int, str], ...]]]
).decode


def _event(row: list[Any]) -> AnyEvent:
    event: AnyEvent = msgspec.convert(row, AnyEvent)
    return event
