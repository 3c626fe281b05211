"""The bytes of a log: segments of records, and snapshots. No I/O.

A *segment* is a file: a head that describes it, then records, each with the events of one turn of the server. All
integers are big-endian.

::

    head     offset size
             0      4     "RGS2"
             4      4     n, length of the description
             8      n     the description, a msgpack map (`Description`)
             8+n    16    the seal of all before, see `_secret`
             24+n   4     CRC-32 of all before

    record   offset size
             0      4     "RGR2"
             4      4     n, length of the body
             8      8     index of the first event in it
             16     4     how many events there are in it
             20     8     the log was on the disk up to this index when this was written
             28     4     the chain: the sum of the record before, also where that is in the segment before
             32     4     the sum: CRC-32 of the 28 bytes before, behind the magic, and of the body
             36     n     the body, msgpack: new names, events, digests, verdicts
             36+n   16    the seal: of the seal of the record before, of those 28 bytes, and of the body
             52+n   4     CRC-32 of the seal

    snapshot offset size
             0      4     "RGI2"
             4      4     n, length of the description
             8      n     the description, a msgpack map (`Picture`)
             8+n    32    BLAKE2b of the image
             40+n   16    the seal of all before
             56+n   4     CRC-32 of all before
             60+n         the image, see `_image`

The sum of a record does not cover its seal, so that sealing a log anew, as a restore does, leaves its chain.

Files of format 1 have no seals: "RGS1" and "RGR1" are the same without, and in "RGI1" the BLAKE2b is of all before and
of the image, which follows it. They are read where nobody asks for seals.

Objects and methods are named through a table that the segment builds up as it goes, never by a number of a method: a
plugin in which one is inserted would otherwise replay another one.

A record can be judged alone, by its sum, and in its place, by the chain. What that says of damage is told in `judge`.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from registry import _codec
from registry._events import AnyEvent, Call, Event, Output, Verdicts
from registry._log import _secret
from registry._log._secret import Secret
from registry._wire import BadBody, Kind

FORMAT = 2
SEGMENT = b"RGS2"
RECORD = b"RGR2"
SNAPSHOT = b"RGI2"
UNSEALED_SEGMENT, UNSEALED_RECORD, UNSEALED_SNAPSHOT = b"RGS1", b"RGR1", b"RGI1"

_LENGTH = struct.Struct("!4sI")
_SUM = struct.Struct("!I")
_RECORD = struct.Struct("!4sIQIQII")
_COVERED = struct.Struct("!IQIQI")  # what the sum of a record covers of its head
_TAIL = struct.Struct("!16sI")
_DIGEST = 32
_NO_TAIL = (b"", 0)
_ANY_RECORD = RECORD[:3]

_pack = msgspec.msgpack.Encoder().encode


class Unreadable(Exception):
    """These bytes are no whole head, or have been changed."""


class NotSealed(Exception):
    """Something is whole, and was not written with the secret that it should have been; the text begins with it."""

    def __init__(self, what: str, offset: int = 0) -> None:
        super().__init__(what)
        self.offset = offset


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
        seal: That of the record before it, empty if there is none.
        origin: The stamp that pickles get which this life takes.
        others: Further stamps that pickles in the log have, and whether readers of `origin` may open them.
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
    seal: bytes = b""
    origin: str = ""
    others: dict[str, bool] = {}


class Picture(msgspec.Struct, frozen=True):
    """What a snapshot says of itself: the state after event `index`, whose record has the sum `chain` and the `seal`.

    `origin` and `others` are what a `Description` has.
    """

    format: int
    index: int
    chain: int
    code: dict[str, str]
    life: bytes
    epoch: int
    made: float
    seal: bytes = b""
    origin: str = ""
    others: dict[str, bool] = {}


_description = msgspec.msgpack.Decoder(Description).decode
_picture = msgspec.msgpack.Decoder(Picture).decode


def pack_segment(description: Description, secret: Secret) -> bytes:
    """Return the head of a segment."""
    head = _headed(SEGMENT, description)
    head += secret.of_segment(head)
    return head + _SUM.pack(zlib.crc32(head))


def read_segment(data: bytes, secret: Secret | None = None) -> tuple[Description, int]:
    """Return the description of a segment, and where its records begin.

    Args:
        data: The file, or its beginning.
        secret: What it is sealed with; None does not look.

    Raises:
        Unreadable: It is not whole, or damaged.
        NotSealed: Its seal is another one.
    """
    if len(data) < _LENGTH.size:
        raise Unreadable("its head is cut off")
    magic, length = _LENGTH.unpack_from(data)
    end = _LENGTH.size + length
    sealed = end + (_secret.SIZE if magic == SEGMENT else 0)
    if magic not in (SEGMENT, UNSEALED_SEGMENT):
        raise Unreadable("it does not begin as a segment does")
    if len(data) < sealed + _SUM.size:
        raise Unreadable("its head is cut off")
    view = memoryview(data)
    if zlib.crc32(view[:sealed]) != _SUM.unpack_from(data, sealed)[0]:
        raise Unreadable("its head is damaged")
    description: Description = _said(_description, view[:end], magic == SEGMENT)
    if secret is not None and view[end:sealed] != secret.of_segment(view[:end]):
        raise NotSealed(_unsealed("its head", magic == SEGMENT))
    return description, sealed + _SUM.size


def pack_snapshot(picture: Picture, image: bytes | memoryview, secret: Secret) -> tuple[bytes, bytes | memoryview]:
    """Return a snapshot: what comes before the image, and the image."""
    head = _headed(SNAPSHOT, picture) + _hashed(b"", image)
    head += secret.of_snapshot(head)
    return head + _SUM.pack(zlib.crc32(head)), image


def read_snapshot(data: bytes, secret: Secret | None = None) -> tuple[Picture, memoryview]:
    """Return what a snapshot says of itself, and the image.

    Raises:
        Unreadable: It is not whole, or damaged.
        NotSealed: It is not sealed with the secret, if one is given.
    """
    picture, start, end = _read_picture(data, secret)
    view = memoryview(data)
    image = view[end:]
    before = b"" if data.startswith(SNAPSHOT) else view[:start]
    if _hashed(before, image) != view[start : start + _DIGEST]:
        raise Unreadable("it is damaged")
    return picture, image


def peek_snapshot(data: bytes, secret: Secret | None = None) -> Picture:
    """Return what a snapshot says of itself, from its first bytes alone; the image may be damaged.

    Raises:
        Unreadable: Not even that is there.
        NotSealed: It is not sealed with the secret, if one is given.
    """
    return _read_picture(data, secret)[0]


def _read_picture(data: bytes, secret: Secret | None) -> tuple[Picture, int, int]:
    """Return what a snapshot says of itself, where that ends, and where the image begins."""
    if len(data) < _LENGTH.size:
        raise Unreadable("it is cut off")
    magic, length = _LENGTH.unpack_from(data)
    if magic not in (SNAPSHOT, UNSEALED_SNAPSHOT):
        raise Unreadable("it does not begin as a snapshot does")
    is_sealed = magic == SNAPSHOT
    start: int = _LENGTH.size + length
    hashed = start + _DIGEST
    sealed = hashed + (_secret.SIZE if is_sealed else 0)
    end = sealed + (_SUM.size if is_sealed else 0)
    if len(data) < end:
        raise Unreadable("it is cut off")
    view = memoryview(data)
    if is_sealed and zlib.crc32(view[:sealed]) != _SUM.unpack_from(data, sealed)[0]:
        raise Unreadable("it is damaged")
    picture: Picture = _said(_picture, view[:start], is_sealed)
    if secret is not None and view[hashed:sealed] != secret.of_snapshot(view[:hashed]):
        raise NotSealed(_unsealed("it", is_sealed))
    return picture, start, end


def _headed(magic: bytes, said: Description | Picture) -> bytes:
    body = _pack(said)
    return _LENGTH.pack(magic, len(body)) + body


def _said(decode: Callable[[memoryview], Any], head: memoryview, is_sealed: bool) -> Any:
    """Return what the head of a file says, which is of the format that its first bytes tell."""
    try:
        said = decode(head[_LENGTH.size :])
    except BadBody as error:
        raise Unreadable(f"its head is of another version ({error})") from None
    if said.format != (FORMAT if is_sealed else 1):
        raise Unreadable(f"it is of format {said.format}, and this version reads format {FORMAT}")
    return said


def _unsealed(what: str, is_sealed: bool) -> str:
    return f"{what} is sealed with another secret" if is_sealed else f"{what} has no seal"


def _hashed(head: bytes | memoryview, image: bytes | memoryview) -> bytes:
    digest = hashlib.blake2b(head, digest_size=_DIGEST)
    digest.update(image)
    return digest.digest()


# -- records


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record, found whole at `offset`; it ends at `end`. Its seal has not been looked at."""

    offset: int
    end: int
    first: int
    count: int
    synced: int
    before: int
    sum: int
    body: memoryview
    seal: bytes

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
        chain: The sum of the last record that was made, `seal` its seal.
    """

    def __init__(self, index: int, chain: int, secret: Secret, seal: bytes = b"") -> None:
        self.index = index
        self.chain = chain
        self.seal = seal
        self._secret = secret
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
        covered = _COVERED.pack(len(body), first, count, synced, self.chain)
        self.chain = total = zlib.crc32(body, zlib.crc32(covered))
        self.seal = seal = self._secret.of_record(self.seal, covered, body)
        self._begin()
        return b"".join((RECORD, covered, _SUM.pack(total), body, _TAIL.pack(seal, zlib.crc32(seal))))


def read_record(data: bytes, offset: int) -> Record | None:
    """Return the record that begins at `offset` if it is whole and undamaged, wherever it belongs."""
    start = offset + _RECORD.size
    if len(data) < start:
        return None
    magic, length, first, count, synced, before, total = _RECORD.unpack_from(data, offset)
    if magic not in (RECORD, UNSEALED_RECORD) or not count:
        return None
    end = start + length
    stop = end + (_TAIL.size if magic == RECORD else 0)
    if len(data) < stop:
        return None
    body = memoryview(data)[start:end]
    if total != zlib.crc32(body, zlib.crc32(_COVERED.pack(length, first, count, synced, before))):
        return None
    seal, check = _TAIL.unpack_from(data, end) if stop > end else _NO_TAIL
    if check != zlib.crc32(seal):
        return None
    return Record(offset, stop, first, count, synced, before, total, body, seal)


def records(
    data: bytes, offset: int, index: int, chain: int, secret: Secret | None = None, seal: bytes = b""
) -> Iterator[Record]:
    """Yield the records from `offset` on that continue (`index`, `chain`, `seal`), up to the first that does not.

    Args:
        data: A segment.
        offset: Where the first of them begins.
        index: The event before it, with the sum `chain` and the `seal` of its record.
        secret: What they are sealed with; None does not look.

    Raises:
        NotSealed: One continues what is before it, and has another seal.
    """
    while (record := read_record(data, offset)) is not None and (record.first, record.before) == (index + 1, chain):
        if secret is not None:
            covered = memoryview(data)[offset + 4 : offset + 4 + _COVERED.size]
            if record.seal != secret.of_record(seal, covered, record.body):
                raise NotSealed(_unsealed(f"event {record.first}", bool(record.seal)), offset)
        yield record
        offset, index, chain, seal = record.end, record.last, record.sum, record.seal


def sealed_anew(
    data: bytes, secret: Secret, seal: bytes, change: Mapping[str, Any], seals: dict[int, bytes]
) -> tuple[bytes, bytes]:
    """Return a segment, as far as it is whole, as another secret seals it, and the seal of its last record.

    Args:
        data: The segment, which is whole as far as anybody is to have it.
        secret: The other secret.
        seal: That of the record before it.
        change: Fields of its description that get another value.
        seals: Takes the seals of the records, by their last events.

    Raises:
        Unreadable: Its head is damaged.
    """
    description, offset = read_segment(data)
    head = msgspec.structs.replace(description, format=FORMAT, seal=seal, **change)
    parts = [pack_segment(head, secret)]
    for record in records(data, offset, description.first - 1, description.chain):
        start = record.offset + len(RECORD)
        covered = data[start : start + _COVERED.size]
        seals[record.last] = seal = secret.of_record(seal, covered, record.body)
        parts.append(RECORD + covered + _SUM.pack(record.sum) + record.body + _TAIL.pack(seal, zlib.crc32(seal)))
    return b"".join(parts), seal


def judge(data: bytes, offset: int, index: int, same_boot: bool) -> int | None:
    """Tell whether what is at `offset`, where event `index` should be, is damage rather than a torn tail.

    A tail is torn where writing it was cut short. Within one boot the system keeps what was written in order, so that
    nothing whole can lie behind it. After a loss of power a part of what had not been synced may be there, in any
    order; but a record that says that `index` was synced when it was written proves that `index` had been whole.

    Returns:
        Where the record is that proves damage, or None.
    """
    place = data.find(_ANY_RECORD, offset)
    while place >= 0:
        record = read_record(data, place)
        if record is not None and record.last >= index and (same_boot or record.synced >= index):
            return place
        place = data.find(_ANY_RECORD, place + 1)
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
