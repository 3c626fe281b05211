"""What reads bytes that nobody vouches for. A target takes any bytes, and returns: whatever it raises is a finding.

What a target may answer with is written out in it, by class. That something takes long is a finding, too; the runner
sees to that.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

from hosted_classes import DECLARATIONS, START

from registry import _codec, _wire
from registry._attachments import Attachment, Identity
from registry._auth import ClientHandshake, NotNative, NotStock, ServerHandshake, StockHandshake
from registry._host import Host
from registry._leaves import Carried
from registry._link import Link
from registry._log import _format
from registry._log._secret import Secret
from registry._transport import Greeting, attached
from registry._wire import Kind, ProtocolError
from registry.errors import AccessDenied, RegistryError, ServerNotFound, VersionMismatch

KEY = bytes(range(32))
SECRET = Secret(KEY)
IDENTITY = Identity(
    address="unix:///x",
    name="x",
    pid=1,
    since=START,
    host="here",
    version="1",
    python="3",
    epoch=3,
    life=bytes(16),
    plugins={},
)


def frames(data: bytes) -> None:
    """Cut a stream into frames, in two pieces or as one, and read what frames of each kind may hold."""
    cut = data[0] if data else 0
    reader = _wire.Reader()
    found = []
    try:
        for piece in (data[1 : cut + 1], data[cut + 1 :]):
            frame = reader.whole(piece)
            found += [frame] if frame is not None else list(reader)
    except ProtocolError:
        pass
    assert reader.pending <= len(data)
    for frame in found:
        for read in (
            _wire.decode_call,
            _wire.decode_attach,
            _wire.decode_attached,
            _wire.decode_control,
            _wire.decode_cancel,
        ):
            try:
                read(frame.body)
            except _wire.BadBody:
                pass
        try:
            _wire.split_reply(frame.body)
        except ProtocolError:
            pass


def host(data: bytes) -> None:
    """Give a server frames of a client that has shown the key: they are answered, or end the connection."""
    serving = Host(DECLARATIONS, IDENTITY, seed=b"seed", now=START)
    attachment = Attachment("here:1", "fuzz")
    hello = _wire.Attach(bytes(16), 1, "", "", "", "", 0, {})
    serving.receive(attachment, _wire.Frame(Kind.ATTACH, 1, 0, 0, 0, _wire.encode(hello)), START)
    sequence = 0
    while data:
        kind, size, body = data[0], int.from_bytes(data[1:3], "little"), data[3:]
        body, data = body[:size], body[size:]
        sequence += 1
        try:
            serving.receive(attachment, _wire.Frame(kind, 1, sequence, 0, 0, body), START + sequence)
        except ProtocolError:
            return
        reader = _wire.Reader()
        for piece in attachment.outbox:
            reader.feed(piece)
        attachment.outbox.clear()
        serving.dirty.clear()
        for frame in reader:
            if frame.kind in (Kind.REPLY, Kind.ERROR):
                _codec.decode(frame.body, incoming=lambda leaf: leaf)


def handshake(data: bytes) -> None:
    """Speak to a server and to a client without the key: neither ever takes the peer for one who has it."""
    server = ServerHandshake({"admin": KEY}, random=b"s" * 40)
    server.opening()
    half = len(data) // 2
    for piece in (data[:half], data[half:]):
        server.receive(piece)
        assert server.outcome in (None, "refused")
    client = ClientHandshake(KEY, random=b"c" * 32)
    try:
        client.receive(data)
        client.receive(b"")
    except (NotNative, AccessDenied, VersionMismatch):
        pass
    assert not client.done
    stock = StockHandshake(KEY)
    try:
        stock.receive(data)
        stock.receive(b"")
    except (NotStock, AccessDenied):
        pass
    assert not stock.done


class Said:
    """A stream on which everything has been said already."""

    def receive(self, deadline: float | None, most: int = 0) -> bytes:
        return b""


def client(data: bytes) -> None:
    """Read what a server with the key tells of itself, and its answers: they are understood, or errors of ours."""
    try:
        greeting = Greeting(data, "there")
        for typeid in greeting.table:
            greeting.table[typeid]
    except ServerNotFound:
        pass
    reader = _wire.Reader()
    reader.feed(data)
    try:
        answer = attached(Said(), reader, None, "there")  # type: ignore[arg-type]
        assert not answer.lease or 0 < answer.lease < 1e10
    except (ServerNotFound, ConnectionResetError):
        pass
    link = Link(lambda deadline, resume: 1 / 0, "there")
    for kind in (Kind.REPLY, Kind.ERROR):
        try:
            link.result(_wire.Frame(kind, 1, 1, 0, 0, data), lambda leaf: None)
        except Exception as error:  # noqa: BLE001 - whatever the server says that its object has raised
            assert isinstance(error, RegistryError) or kind == Kind.ERROR
            assert isinstance(str(error), str) and isinstance(repr(error), str)


def codec(data: bytes) -> None:
    """Read a value: what is read can be written, and is then read as the same bytes."""

    def opened(leaf: Any) -> Any:
        return _codec.decode_carried(leaf, opened) if type(leaf) is Carried and not leaf.domain else leaf

    for read in (
        _codec.decode,
        _codec.decode_arguments,
        lambda data: _codec.decode_result(data, incoming=opened),
        lambda data: _codec.decode_carried(Carried(data)),
    ):
        try:
            value = read(data)
        except (_codec.CodecError, _codec.NotShareable):
            continue  # it is none, or of a declared class that is not known here
        if read is _codec.decode:
            try:
                written = _codec.canonical(value)
            except _codec.NotShareable:
                continue  # such as a tuple that is deeper by one than what may be sent
            assert _codec.canonical(_codec.decode(written)) == written


def log(data: bytes) -> None:
    """Read a segment and a snapshot, as they are and with the sums and seals that belong to the bytes."""
    summed = _summed(data)
    for content, secret in ((data, None), (summed, SECRET), (data, SECRET)):
        try:
            description, offset = _format.read_segment(content, secret)
        except (_format.Unreadable, _format.NotSealed):
            offset, index, chain = 0, 0, 0
        else:
            index, chain = description.first - 1, description.chain
        names = _format.Names()
        try:
            for record in _format.records(content, offset, index, chain, secret):
                names.events(record)
        except (_format.Unreadable, _format.NotSealed):
            pass
        _format.judge(content, offset, index, same_boot=bool(len(data) % 2))
        try:
            _format.read_snapshot(content, secret)
        except (_format.Unreadable, _format.NotSealed):
            pass


def _summed(data: bytes) -> bytes:
    """Return a segment with one record of these bytes, as if they had been written."""
    described, _, body = data.partition(b"\xc1")
    head = _format._LENGTH.pack(_format.SEGMENT, len(described)) + described
    head += SECRET.of_segment(head)
    head += _format._SUM.pack(zlib.crc32(head))
    covered = _format._COVERED.pack(len(body), 1, 1, 0, 0)
    seal = SECRET.of_record(b"", covered, body)
    total = zlib.crc32(body, zlib.crc32(covered))
    record = _format._RECORD.pack(_format.RECORD, len(body), 1, 1, 0, 0, total) + body
    return head + record + _format._TAIL.pack(seal, zlib.crc32(seal))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "frames": frames,
    "host": host,
    "handshake": handshake,
    "client": client,
    "codec": codec,
    "log": log,
}
