"""Frames and messages between a client and a server, without I/O.

Every frame is a fixed header and a body, all integers big-endian::

    offset size  field       meaning
    0      4     length      of the body, at most 16 MiB
    4      1     kind        see `Kind`
    5      1     flags       bit 0 MORE: the body goes on in the next frame of this sequence and kind
                             bit 1 PARTS, in a REPLY or STANDS: the body is an array of the encoding and of what stands
                             beside it
    6      2     reserved    zero
    8      4     generation  which connection of its session this is, from 1; older ones are fenced
    12     8     sequence    which call of the session; 0 where the frame is about none
    20     8     received    client: replies up to here have arrived (the received mark); server: 0
    28     8     applied     server: the index of the event that this output comes from
                             client: the lowest it accepts

Bodies are msgpack in the typed form of `_codec`. Who may send what:

===========  ======  ========================================================================================
kind         sender  body
===========  ======  ========================================================================================
ATTACH       client  ``Attach``: who the client is; the first frame of a connection
CALL         client  ``CallBody``: object handle, method, arguments, numbered fields
READ         client  as CALL; a reply that its session may cache is to be SHOWN
CANCEL       client  ``CancelBody``: settle this sequence
OWNER_ENDED  client  the number of an owner that has ended
CONTROL      client  ``ControlBody``: a question to the server itself (its objects, its status, stop)
HEARTBEAT    client  at most 16 bytes, which come back as they are: the session is alive
GOODBYE      client  the session ends; empty, or the sequences above the mark whose replies have arrived
ATTACHED     server  ``Attached``: whether the session was known, and how long it may be silent
HEARD        server  the body of a HEARTBEAT that has come
REPLY        server  the result, encoded
ERROR        server  the exception, encoded
CANCELLED    server  empty: the call of this sequence has and will have no effect
STANDS       server  the result or the exception again: an undo came too late, the effect of the call stands
LOST         server  the number of a grant that was taken from this session; sequence 0
AGAIN        server  empty: a file that the call of this sequence names cannot be taken; send it with the bytes
SHOWN        server  a version word, its place in 4 bytes and its value in 8, then the result of a read, encoded, which
                     is what the read would return for as long as the word has this value
REFUSED      server  why the connection is being closed, as text
===========  ======  ========================================================================================

A call's numbered fields: a reader refuses unknown numbers below 64 and ignores the others.

What stands beside an encoding (`_leaves.Parts`) is a row of items, in field BUFFERS of a call or in the body of a reply
with PARTS. Each is its bytes, or the name and the length of a file in the server's directory (`_shelf`), for clients
that have said that they see it; before each stand some zeros, as bytes. A writer puts that row last, so that large
items are sent from where they lie.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any

import msgspec

VERSION = 1
MAX_BODY = 16 * 1024 * 1024
MAX_VALUE = 1024 * 1024 * 1024
IN_FLIGHT = 4096

HEADER = struct.Struct("!IBBHIQQQ")
HEADER_SIZE = HEADER.size
_pack, _unpack = HEADER.pack, HEADER.unpack_from
MORE = 1
PARTS = 2
UNREAD = 128  # never on the wire: a body that was not kept; in its place stands why, as text
SMALL = 64 * 1024  # bytes up to which a body is cut out of what has arrived; a larger one is put together by itself


class Kind(IntEnum):
    """What a frame is."""

    ATTACH = 1
    CALL = 2
    CANCEL = 3
    OWNER_ENDED = 4
    CONTROL = 5
    GOODBYE = 6
    HEARTBEAT = 7
    READ = 8
    ATTACHED = 16
    REPLY = 17
    ERROR = 18
    CANCELLED = 19
    REFUSED = 20
    STANDS = 21
    HEARD = 22
    SHOWN = 23
    AGAIN = 24
    LOST = 25


# Plain numbers for what is looked at in every call: to look up a member of an enum costs as much as a call.
ATTACH, CALL, CONTROL, READ, SHOWN = map(int, (Kind.ATTACH, Kind.CALL, Kind.CONTROL, Kind.READ, Kind.SHOWN))
AGAIN, CANCELLED, ERROR, REPLY = map(int, (Kind.AGAIN, Kind.CANCELLED, Kind.ERROR, Kind.REPLY))
WITH_PARTS = (Kind.REPLY, Kind.STANDS)


# The numbered fields of a call.
RECEIVED_SET = 1  # list of sequences above the received mark whose replies have arrived
OWNER = 2  # int; absent: owner 1, the first thread of the session
GRANTS = 3  # list of [typeid, name, number]: locks that this call relies on
REMAINING = 4  # float seconds that a resent wait has left
MINIMUM_INDEX = 5  # int; reserved for clusters
DEFINITION = 6  # [typeid, name, arguments]: at a handle's first use on a connection
BUFFERS = 7  # list of what stands beside the arguments
THREAD = 8  # text: the thread or task that calls, where it may wait and is not the main thread
KNOWN_FIELDS = frozenset({RECEIVED_SET, OWNER, GRANTS, REMAINING, MINIMUM_INDEX, DEFINITION, BUFFERS, THREAD})
IGNORED_FROM = 64

DEFAULT_OWNER = 1
LONGEST_THREAD = 100  # letters of a thread's name that are kept
LONGEST_LABEL = 200  # and of what a process says of itself: label, host and command
LONGEST_NAME = 4096  # letters of the name of an object
LONGEST_WORD = 256  # letters of the name of a type or a method

HEARTBEAT_BODY = 16  # bytes that a heartbeat may hold
STAMP = struct.Struct("!d")  # what clients put there: when it was sent, in seconds by their clock

WORD = struct.Struct("!IQ")  # what the body of SHOWN begins with

# The calls of operators: one retires an object, one takes the grant of a number from its holder. No class can expose
# methods of these names.
DELETE = "#delete"
RELEASE = "#release"
OPERATORS = frozenset({DELETE, RELEASE})


class ProtocolError(Exception):
    """The peer broke the protocol; the connection is of no further use. The text says how."""


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One whole message."""

    kind: int
    generation: int
    sequence: int
    received: int
    applied: int
    body: bytes
    flags: int = 0


class CallBody(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A call: which object, which method, and the arguments as `_codec` wrote them."""

    handle: int
    method: str
    arguments: msgspec.Raw
    fields: dict[int, msgspec.Raw] | None = None


class CancelBody(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Settle a call. What has run keeps its reply, which comes again; with `undo` a grant given already is taken back.

    Replies of the call itself may still come before an undo is read. So that its answer can be told from them, it is
    CANCELLED or STANDS and never a reply.
    """

    undo: bool


class ControlBody(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A question to the server itself."""

    verb: str
    arguments: msgspec.Raw


class Attach(msgspec.Struct, frozen=True, array_like=True):
    """Who a client is. `key` names the session across connections and is known to its two ends only.

    With `resumes` the client knows that the server had the session. One that is gone is then not begun anew: the
    answer that says so may be lost, and the next would take the new session for the old one.
    """

    key: bytes
    pid: int
    host: str
    command: str
    label: str
    version: str
    acknowledged: int  # the highest sequence of a change whose reply this session has seen
    code: dict[str, str]  # the plugin modules it has loaded, by version
    resumes: bool = False
    life: bytes = b""  # with `resumes`: the server life that it was attached to last
    applied: int = 0  # the latest event that it has seen the outcome of there
    sent: int = 0  # the highest sequence that it may have sent before
    files: bool = False  # whether it sees the server's directory of large values


class Words(msgspec.Struct, frozen=True, array_like=True):
    """Which file holds the version words of a server life, see `_words`: its path and what tells it from any other."""

    path: str
    device: int
    inode: int
    size: int
    first: int  # what all words began with


class Attached(msgspec.Struct, frozen=True, array_like=True):
    """The answer to `Attach`: whether the session goes on, and if it does not, why.

    A session that is silent for longer than its lease, in seconds, ends. It is 0.0 where the server needs no signs of
    life, since it is told when the process ends. `words` is told to processes of the server's user on its host only.
    With `denied` the session is there and not for this connection, and that says why.
    """

    resumed: bool
    reason: str
    stale: str  # text of a `StaleServer` warning, or empty
    lease: float = 0.0
    words: Words | None = None
    denied: str = ""


encode = msgspec.msgpack.Encoder().encode
decode_call = msgspec.msgpack.Decoder(CallBody).decode
decode_cancel = msgspec.msgpack.Decoder(CancelBody).decode
decode_control = msgspec.msgpack.Decoder(ControlBody).decode
decode_attach = msgspec.msgpack.Decoder(Attach).decode
decode_attached = msgspec.msgpack.Decoder(Attached).decode
decode_int = msgspec.msgpack.Decoder(int).decode
decode_float = msgspec.msgpack.Decoder(float).decode
decode_text = msgspec.msgpack.Decoder(str).decode
decode_sequences = msgspec.msgpack.Decoder(list[int]).decode
decode_grants = msgspec.msgpack.Decoder(list[tuple[str, str, int]]).decode
decode_definition = msgspec.msgpack.Decoder(tuple[str, str, msgspec.Raw]).decode
decode_items = msgspec.msgpack.Decoder(list[memoryview | tuple[str, int]]).decode
BadBody = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)  # what the decoders above raise


def pack(kind: int, body: bytes, generation: int = 0, sequence: int = 0, received: int = 0, applied: int = 0) -> bytes:
    """Return the frame, or the row of frames where the body passes `MAX_BODY`."""
    if len(body) <= MAX_BODY:
        return _pack(len(body), kind, 0, 0, generation, sequence, received, applied) + body
    return b"".join(
        pack_pieces(kind, [body], generation=generation, sequence=sequence, received=received, applied=applied)
    )


Buffer = bytes | bytearray | memoryview
Item = Any  # bytes in some form, or (name, length) of a file


def pack_pieces(
    kind: int,
    pieces: list[Buffer],
    *,
    flags: int = 0,
    generation: int = 0,
    sequence: int = 0,
    received: int = 0,
    applied: int = 0,
) -> list[Buffer]:
    """Return a frame, or a row of frames, whose body is all the pieces; those of some size are not copied."""
    left = sum(map(len, pieces))
    rows: list[Buffer] = []
    small = bytearray()
    room = 0
    for piece in pieces:
        view = memoryview(piece)
        while view:
            if not room:
                room = min(left, MAX_BODY)
                left -= room
                more = MORE if left else 0
                small += HEADER.pack(room, kind, flags | more, 0, generation, sequence, received, applied)
            part, view = view[:room], view[room:]
            room -= len(part)
            if len(part) < SMALL:
                small += part
            else:
                rows += (bytes(small), part)
                small.clear()
    if small:
        rows.append(bytes(small))
    return [row for row in rows if row]


def pack_row(kind: int, body: bytes, generation: int, sequence: int, applied: int) -> list[Buffer]:
    """Return the frame of a server's answer, whole if it is small; a large body is not copied."""
    if len(body) <= SMALL:
        return [_pack(len(body), kind, 0, 0, generation, sequence, 0, applied) + body]
    return pack_pieces(kind, [body], generation=generation, sequence=sequence, applied=applied)


def call_pieces(body: CallBody, items: list[Item]) -> list[Buffer]:
    """Return the body of a call with items beside its arguments."""
    fields = {**(body.fields or {}), BUFFERS: msgspec.Raw(b"")}  # the last one, so that what follows is its value
    return [encode(msgspec.structs.replace(body, fields=fields)), *_array(items)]


def reply_pieces(head: bytes, items: list[Item]) -> list[Buffer]:
    """Return the body of a reply with items beside it."""
    start = encode(head)
    return [b"\xdd" + (1 + 2 * len(items)).to_bytes(4, "big"), start, *_array(items, 5 + len(start))[1:]]


def split_reply(body: Buffer) -> tuple[bytes, list[Item]]:
    """Undo `reply_pieces`; the items are views of the body.

    Raises:
        ProtocolError: It is no such body.
    """
    try:
        row = decode_items(body)
    except BadBody as error:
        raise ProtocolError(f"a reply that cannot be read: {error}") from error
    if not row or isinstance(head := row[0], tuple):
        raise ProtocolError("a reply that cannot be read: it does not begin with an encoding")
    return bytes(head), row[2::2]


def split_items(field: Buffer) -> list[Item]:
    """Undo what `call_pieces` has written of its items; they are views of the field."""
    return list(decode_items(field)[1::2])


def _array(items: list[Item], position: int = 0) -> list[Buffer]:
    """Return a row of items, each behind some zeros, so that large ones begin where numbers in memory should."""
    rows: list[Buffer] = [b"\xdd" + (2 * len(items)).to_bytes(4, "big")]
    for item in items:
        parts = (encode(item),) if type(item) is tuple else getattr(item, "parts", (item,))  # those of `_codec.Pieces`
        header = b"" if type(item) is tuple else b"\xc6" + len(item).to_bytes(4, "big")
        zeros = -(position + 2 + len(header)) % 16
        rows += (b"\xc4" + bytes([zeros]) + bytes(zeros) + header, *parts)
        position += 2 + zeros + len(header) + sum(map(len, parts))
    return rows


class Reader:
    """Cut a stream of bytes into frames.

    Feed it what arrives; take frames until none is whole. It never holds more than one incomplete frame and
    the parts of one value, whose sum is bounded by `limit`. A body of some size is put together where it stays: each of
    its bytes is copied once.

    Args:
        limit: How many bytes a value may have.
        admit: Asked before the body of a call that is not small is kept, with the bytes that it will have and those
            that are here: it returns why it is not to be, or an empty text. What is not kept is dropped as it comes,
            and its message is marked `UNREAD`. Of other kinds only small messages are taken.

    Attributes:
        missing: How many bytes the frame that is being put together has still to bring, as far as that is known.
    """

    __slots__ = (
        "_admit",
        "_buffer",
        "_frame",
        "_head",
        "_is_idle",
        "_large",
        "_limit",
        "_most",
        "_start",
        "_why",
        "missing",
    )  # fmt: skip

    def __init__(self, limit: int = MAX_VALUE, admit: Callable[[int, int], str] | None = None) -> None:
        self._admit = admit
        self._most = MAX_BODY if admit is None else SMALL  # of a body that nobody needs to be asked about
        self._why = ""  # why what is being put together is not kept
        self._buffer = bytearray()
        self._start = 0
        self._limit = limit
        self._large = bytearray()  # of the body that is being put together
        self.missing = 0
        self._frame: tuple[int, ...] | None = None  # the header of that frame
        self._head: tuple[int, int] | None = None  # what the frames of one value have in common
        self._is_idle = True

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add what arrived."""
        if data:
            self._is_idle = False
        if self.missing:
            part = memoryview(data)[: self.missing]
            if not self._why:
                self._large += part
            self.missing -= len(part)
            if len(part) == len(data):
                return
            data = memoryview(data)[len(part) :]
        if self._start:
            del self._buffer[: self._start]
            self._start = 0
        self._buffer += data

    def whole(self, data: bytes) -> Frame | None:
        """Return the message if `data` is exactly one and nothing waits for its rest; else feed it, and
        return None.

        Most reads bring one small frame; this spares them the buffer.
        """
        if self._is_idle and len(data) >= HEADER_SIZE:
            length, kind, flags, reserved, generation, sequence, received, applied = _unpack(data)
            if length == len(data) - HEADER_SIZE <= self._most and not flags and not reserved:
                return Frame(kind, generation, sequence, received, applied, data[HEADER_SIZE:])
        self.feed(data)
        return None

    @property
    def pending(self) -> int:
        """How many bytes wait for the rest of their frame."""
        return len(self._buffer) - self._start + len(self._large)

    def next(self) -> Frame | None:
        """Return the next whole message, or None until more is fed.

        Raises:
            ProtocolError: A header that no peer of this version sends; refused before anything is allocated
            for it.
        """
        while True:
            if self._frame is not None:
                if self.missing:
                    return None
                frame = self._end_large(self._frame)
                if frame is None:
                    continue
                return frame
            buffer = self._buffer
            start = self._start
            if len(buffer) - start < HEADER_SIZE:
                self._is_idle = len(buffer) == start and self._head is None
                return None
            header = _unpack(buffer, start)
            length, kind, flags, reserved, generation, sequence, received, applied = header
            if length > MAX_BODY:
                raise ProtocolError(f"a frame of {length} bytes; at most {MAX_BODY} are allowed")
            if reserved or flags & ~(MORE | PARTS) or (flags & PARTS and kind not in WITH_PARTS):
                raise ProtocolError("a frame with unknown flags")
            if flags or self._head is not None:
                self._check_part(length, kind, flags, sequence)
            elif length <= SMALL:
                end = start + HEADER_SIZE + length
                if len(buffer) < end:
                    return None
                body = bytes(memoryview(buffer)[start + HEADER_SIZE : end])
                self._start = end
                self._is_idle = end == len(buffer)
                return Frame(kind, generation, sequence, received, applied, body)
            if self._admit is not None and not self._why:
                self._why = self._ask(self._admit, kind, length)
            with memoryview(buffer) as view, view[start + HEADER_SIZE : start + HEADER_SIZE + length] as part:
                if not self._why:
                    self._large += part
                self.missing = length - len(part)
                self._start = start + HEADER_SIZE + len(part)
            self._frame = header

    def _ask(self, admit: Callable[[int, int], str], kind: int, length: int) -> str:
        """Ask whether a body is to be kept; what was kept of one that is not is dropped."""
        if kind not in (CALL, READ) and length > SMALL:
            raise ProtocolError(f"a frame of kind {kind} with {length} bytes; at most {SMALL} are taken")
        here = len(self._large)
        why = admit(here + length, here)
        if why:
            self._large = bytearray()
        return why

    def _end_large(self, header: tuple[int, ...]) -> Frame | None:
        """Return the message whose last frame is here; None where it goes on."""
        _, kind, flags, _, generation, sequence, received, applied = header
        self._frame = None
        if flags & MORE:
            self._head = (kind, sequence)
            return None
        self._head = None
        if self._why:
            why, self._why = self._why.encode(), ""
            return Frame(kind, generation, sequence, received, applied, why, UNREAD)
        large, self._large = self._large, bytearray()
        body = bytes(large) if len(large) <= SMALL else memoryview(large).toreadonly()
        return Frame(kind, generation, sequence, received, applied, body, flags)  # type: ignore[arg-type]

    def _check_part(self, length: int, kind: int, flags: int, sequence: int) -> None:
        """Refuse a part of a value that does not belong to the parts before it, or is one too many."""
        if self._head is not None and self._head != (kind, sequence):
            raise ProtocolError("a value was broken off by another frame")
        if flags & MORE and not length:
            raise ProtocolError("a part of a value that holds nothing")
        if len(self._large) + length > self._limit:
            raise ProtocolError(f"a value of more than {self._limit} bytes")

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self.next()) is not None:
            yield frame
