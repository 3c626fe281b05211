"""Frames and messages between a client and a server, without I/O.

Every frame is a fixed header and a body, all integers big-endian::

    offset size  field       meaning
    0      4     length      of the body, at most 16 MiB
    4      1     kind        see `Kind`
    5      1     flags       bit 0 MORE: the body goes on in the next frame of this sequence and kind
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
REFUSED      server  why the connection is being closed, as text
===========  ======  ========================================================================================

A call's numbered fields: a reader refuses unknown numbers below 64 and ignores the others.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum

import msgspec

VERSION = 1
MAX_BODY = 16 * 1024 * 1024
MAX_VALUE = 1024 * 1024 * 1024
IN_FLIGHT = 4096

HEADER = struct.Struct("!IBBHIQQQ")
HEADER_SIZE = HEADER.size
MORE = 1


class Kind(IntEnum):
    """What a frame is."""

    ATTACH = 1
    CALL = 2
    CANCEL = 3
    OWNER_ENDED = 4
    CONTROL = 5
    GOODBYE = 6
    HEARTBEAT = 7
    ATTACHED = 16
    REPLY = 17
    ERROR = 18
    CANCELLED = 19
    REFUSED = 20
    STANDS = 21
    HEARD = 22
    LOST = 25


# Plain numbers for what is looked at in every call: to look up a member of an enum costs as much as a call.
CALL, CONTROL = int(Kind.CALL), int(Kind.CONTROL)
REPLY, ERROR, CANCELLED = int(Kind.REPLY), int(Kind.ERROR), int(Kind.CANCELLED)


# The numbered fields of a call.
RECEIVED_SET = 1  # list of sequences above the received mark whose replies have arrived
OWNER = 2  # int; absent: owner 1, the first thread of the session
GRANTS = 3  # list of [typeid, name, number]: locks that this call relies on
REMAINING = 4  # float seconds that a resent wait has left
MINIMUM_INDEX = 5  # int; reserved for clusters
DEFINITION = 6  # [typeid, name, arguments]: at a handle's first use on a connection
BUFFERS = 7  # reserved: out-of-band buffers
THREAD = 8  # text: the thread or task that calls, where it may wait and is not the main thread
KNOWN_FIELDS = frozenset({RECEIVED_SET, OWNER, GRANTS, REMAINING, MINIMUM_INDEX, DEFINITION, BUFFERS, THREAD})
IGNORED_FROM = 64

DEFAULT_OWNER = 1
LONGEST_THREAD = 100  # letters of a thread's name that are kept

HEARTBEAT_BODY = 16  # bytes that a heartbeat may hold
STAMP = struct.Struct("!d")  # what clients put there: when it was sent, in seconds by their clock

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


class Attached(msgspec.Struct, frozen=True, array_like=True):
    """The answer to `Attach`: whether the session goes on, and if it does not, why.

    A session that is silent for longer than its lease, in seconds, ends. It is 0.0 where the server needs no signs of
    life, since it is told when the process ends.
    """

    resumed: bool
    reason: str
    stale: str  # text of a `StaleServer` warning, or empty
    lease: float = 0.0


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
BadBody = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)  # what the decoders above raise


def pack(kind: int, body: bytes, generation: int = 0, sequence: int = 0, received: int = 0, applied: int = 0) -> bytes:
    """Return the frame, or the row of frames where the body passes `MAX_BODY`."""
    if len(body) <= MAX_BODY:
        return HEADER.pack(len(body), kind, 0, 0, generation, sequence, received, applied) + body
    parts = []
    for start in range(0, len(body), MAX_BODY):
        part = body[start : start + MAX_BODY]
        more = MORE if start + MAX_BODY < len(body) else 0
        parts.append(HEADER.pack(len(part), kind, more, 0, generation, sequence, received, applied))
        parts.append(part)
    return b"".join(parts)


class Reader:
    """Cut a stream of bytes into frames.

    Feed it what arrives; take frames until none is whole. It never holds more than one incomplete frame and
    the parts of one value, whose sum is bounded by `limit`.
    """

    __slots__ = ("_buffer", "_head", "_limit", "_parts", "_size", "_start")

    def __init__(self, limit: int = MAX_VALUE) -> None:
        self._buffer = bytearray()
        self._start = 0
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._head: tuple[int, int] | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add what arrived."""
        if self._start:
            del self._buffer[: self._start]
            self._start = 0
        self._buffer += data

    def whole(self, data: bytes) -> Frame | None:
        """Return the message if `data` is exactly one and nothing waits for its rest; else feed it, and
        return None.

        Most reads bring one small frame; this spares them the buffer.
        """
        if len(self._buffer) == self._start and self._head is None and len(data) >= HEADER_SIZE:
            length, kind, flags, reserved, generation, sequence, received, applied = HEADER.unpack_from(data)
            if length == len(data) - HEADER_SIZE <= MAX_BODY and not flags and not reserved:
                return Frame(kind, generation, sequence, received, applied, data[HEADER_SIZE:])
        self.feed(data)
        return None

    @property
    def pending(self) -> int:
        """How many bytes wait for the rest of their frame."""
        return len(self._buffer) - self._start + self._size

    def next(self) -> Frame | None:
        """Return the next whole message, or None until more is fed.

        Raises:
            ProtocolError: A header that no peer of this version sends; refused before anything is allocated
            for it.
        """
        buffer = self._buffer
        while True:
            start = self._start
            if len(buffer) - start < HEADER_SIZE:
                return None
            length, kind, flags, reserved, generation, sequence, received, applied = HEADER.unpack_from(buffer, start)
            if length > MAX_BODY:
                raise ProtocolError(f"a frame of {length} bytes; at most {MAX_BODY} are allowed")
            if reserved or flags & ~MORE:
                raise ProtocolError("a frame with unknown flags")
            if flags or self._head is not None:
                self._check_part(length, kind, flags, sequence)
            end = start + HEADER_SIZE + length
            if len(buffer) < end:
                return None
            body = bytes(memoryview(buffer)[start + HEADER_SIZE : end])
            self._start = end
            if not flags and self._head is None:
                return Frame(kind, generation, sequence, received, applied, body)
            self._parts.append(body)
            self._size += length
            if flags & MORE:
                self._head = (kind, sequence)
                continue
            body = b"".join(self._parts)
            self._parts = []
            self._size = 0
            self._head = None
            return Frame(kind, generation, sequence, received, applied, body)

    def _check_part(self, length: int, kind: int, flags: int, sequence: int) -> None:
        """Refuse a part of a value that does not belong to the parts before it, or is one too many."""
        if self._head is not None and self._head != (kind, sequence):
            raise ProtocolError("a value was broken off by another frame")
        if flags and not length:
            raise ProtocolError("a part of a value that holds nothing")
        if self._size + length > self._limit:
            raise ProtocolError(f"a value of more than {self._limit} bytes")

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self.next()) is not None:
            yield frame
