"""Frames: whole, in pieces, in parts, and wrong."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import _wire
from registry._wire import HEADER, HEADER_SIZE, MAX_BODY, MORE, Frame, Kind, ProtocolError, Reader, pack

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
frames = st.builds(Frame, st.integers(0, 255), u32, u64, u64, u64, st.binary(max_size=50))


def packed(frame: Frame) -> bytes:
    """Return a frame's bytes."""
    return pack(
        frame.kind,
        frame.body,
        generation=frame.generation,
        sequence=frame.sequence,
        received=frame.received,
        applied=frame.applied,
    )


@given(st.lists(frames, max_size=5), st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_frames_survive_any_cut(sent: list[Frame], cuts: list[int]) -> None:
    """However a stream is cut, the same frames come out of it, in order."""
    stream = b"".join(map(packed, sent))
    reader, got, place, turn = Reader(), [], 0, 0
    while place < len(stream):
        size = cuts[turn % len(cuts)]
        reader.feed(stream[place : place + size])
        got += list(reader)
        place, turn = place + size, turn + 1
    assert got == sent
    assert reader.pending == 0
    assert reader.next() is None


@given(frames, st.integers(0, 60), st.booleans())
def test_one_whole_frame_needs_no_buffer(frame: Frame, cut: int, waiting: bool) -> None:
    """`whole` returns what is exactly one frame, and feeds everything else."""
    data, reader = packed(frame), Reader()
    if waiting:
        reader.feed(data[:1])
        assert reader.whole(data[1:]) is None
        assert reader.next() == frame
    assert reader.whole(data) == frame
    cut %= len(data)
    assert reader.whole(data[:cut]) is None
    assert reader.whole(data[cut:]) == (None if cut else frame)
    assert list(reader) == ([frame] if cut else [])
    assert reader.whole(data + data) is None
    assert list(reader) == [frame, frame]
    part = header(1, flags=MORE) + b"a"
    assert reader.whole(part) is None
    assert reader.next() is None
    assert reader.whole(header(1) + b"b") is None
    (joined,) = reader
    assert joined.body == b"ab"


def test_the_header_is_as_drawn() -> None:
    """The layout on the wire does not move."""
    data = pack(Kind.CALL, b"ab", generation=3, sequence=4, received=5, applied=6)
    assert data.hex() == "000000020200000000000003" + "".join(f"{number:016x}" for number in (4, 5, 6)) + "6162"
    assert len(data) == HEADER_SIZE + 2 == 38
    assert [kind.value for kind in Kind] == [1, 2, 3, 4, 5, 6, 7, 8, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25]


@pytest.mark.parametrize("extra", [-1, 0, 1, MAX_BODY, MAX_BODY + 1])
def test_large_values_go_on_in_further_frames(extra: int) -> None:
    """A value that passes the size of a frame comes back whole."""
    body = bytes(MAX_BODY + extra)
    data = pack(Kind.REPLY, body, sequence=9)
    reader = Reader()
    reader.feed(data)
    (frame,) = reader
    assert frame.body == body
    assert frame.sequence == 9
    assert len(data) == len(body) + HEADER_SIZE * -(-len(body) // MAX_BODY)


def header(length: int, kind: int = 2, flags: int = 0, reserved: int = 0, sequence: int = 1) -> bytes:
    """Make a header, right or wrong."""
    return HEADER.pack(length, kind, flags, reserved, 1, sequence, 0, 0)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(header(MAX_BODY + 1), id="length"),
        pytest.param(header(2**32 - 1), id="largest length"),
        pytest.param(header(0, flags=2), id="flag"),
        pytest.param(header(0, flags=255), id="flags"),
        pytest.param(header(0, reserved=1), id="reserved"),
        pytest.param(header(1, flags=MORE) + b"a" + header(1, sequence=2) + b"b", id="another sequence"),
        pytest.param(header(1, flags=MORE) + b"a" + header(1, kind=3) + b"b", id="another kind"),
        pytest.param(header(0, flags=MORE), id="empty part"),
    ],
)
def test_wrong_headers_are_refused_at_once(data: bytes) -> None:
    """A header that no peer sends is refused before its body has come, and again at every look."""
    reader = Reader()
    reader.feed(data)
    for _ in range(2):
        with pytest.raises(ProtocolError):
            list(reader)


def test_a_value_has_a_limit() -> None:
    """The parts of one value may not pass the limit together."""
    reader = Reader(limit=10)
    for _ in range(2):
        reader.feed(header(5, flags=MORE) + b"12345")
        assert reader.next() is None
    assert reader.pending == 10
    reader.feed(header(1) + b"6")
    with pytest.raises(ProtocolError, match="more than 10 bytes"):
        reader.next()


@given(st.binary(max_size=100))
def test_no_bytes_do_harm(data: bytes) -> None:
    """Whatever arrives is frames, the beginning of one, or a ProtocolError."""
    reader = Reader()
    reader.feed(data)
    try:
        for frame in reader:
            assert isinstance(frame, Frame)
    except ProtocolError:
        pass


@given(st.binary(max_size=40))
def test_bodies_that_cannot_be_read(body: bytes) -> None:
    """Every decoder raises nothing but `BadBody`."""
    for decode in (
        _wire.decode_call,
        _wire.decode_cancel,
        _wire.decode_control,
        _wire.decode_attach,
        _wire.decode_attached,
        _wire.decode_int,
        _wire.decode_float,
        _wire.decode_sequences,
        _wire.decode_grants,
        _wire.decode_definition,
    ):
        try:
            decode(body)
        except _wire.BadBody:
            pass


def test_a_body_that_lies_too_deep() -> None:
    """Nesting that would take the interpreter's stack is a bad body like any other."""
    with pytest.raises(_wire.BadBody):
        _wire.decode_call(b"\x93\x01\xa1x" + b"\x91" * 100_000)


def test_messages_come_back_as_they_were() -> None:
    """What is encoded is decoded, the numbered fields and the untouched arguments included."""
    raw = msgspec.Raw(b"\x92\x90\x80")
    call = _wire.decode_call(_wire.encode(_wire.CallBody(3, "get", raw, {_wire.OWNER: msgspec.Raw(_wire.encode(7))})))
    assert (call.handle, call.method, bytes(call.arguments)) == (3, "get", b"\x92\x90\x80")
    assert call.fields is not None
    assert _wire.decode_int(call.fields[_wire.OWNER]) == 7
    short = _wire.decode_call(_wire.encode([3, "get", raw]))
    assert short.fields is None
    hello = _wire.Attach(bytes(16), 1, "host", "command", "label", "1.0", 5, {"plugin": "1"})
    assert _wire.decode_attach(_wire.encode(hello)) == hello
    attached = _wire.Attached(True, "", "stale", 30.0)
    assert _wire.decode_attached(_wire.encode(attached)) == attached


def test_what_is_not_admitted_is_dropped_as_it_comes() -> None:
    """A large call that is not to be kept takes no memory, and its place in the stream is known all the same."""
    asked: list[tuple[int, int]] = []

    def admit(length: int, here: int) -> str:
        asked.append((length, here))
        return "no room" if length > 300_000 else ""

    reader = Reader(admit=admit)
    small, kept = pack(Kind.CALL, b"a" * 10, sequence=1), pack(Kind.READ, b"b" * 200_000, sequence=2)
    dropped = pack(Kind.CALL, b"c" * 400_000, sequence=3, received=2)
    stream = small + kept + dropped + small
    got: list[Frame] = []
    for start in range(0, len(stream), 30_000):
        reader.feed(stream[start : start + 30_000])
        got += list(reader)
        assert reader.pending < 300_000
    assert [(frame.sequence, len(frame.body), frame.flags) for frame in got[:2]] == [(1, 10, 0), (2, 200_000, 0)]
    assert got[2] == Frame(Kind.CALL, 0, 3, 2, 0, b"no room", _wire.UNREAD)
    assert got[3].body == b"a" * 10
    assert asked == [(200_000, 0), (400_000, 0)]


def test_a_value_that_grows_beyond_what_is_admitted_is_dropped() -> None:
    """What had been kept of it is, too; each part counts with those before it."""
    reader = Reader(admit=lambda length, here: "no room" if length > 100_000 else "")
    for number, more in enumerate((MORE, MORE, 0)):
        reader.feed(header(70_000, kind=Kind.CALL, flags=more) + bytes(70_000))
        (frame,) = [*reader] or [None]
        assert (frame is None) == bool(more)
        assert reader.pending == (70_000 if number == 0 else 0)
    assert frame is not None
    assert (frame.flags, frame.body) == (_wire.UNREAD, b"no room")


@pytest.mark.parametrize("kind", [Kind.ATTACH, Kind.CONTROL, Kind.GOODBYE, Kind.HEARTBEAT, 99])
def test_a_server_takes_no_large_frames_but_calls(kind: int) -> None:
    """Everything else that a client says is short."""
    reader = Reader(admit=lambda length, here: "")
    reader.feed(header(_wire.SMALL + 1, kind=kind))
    with pytest.raises(ProtocolError, match=f"a frame of kind {int(kind)} with 65537 bytes; at most 65536 are taken"):
        reader.next()


@pytest.mark.parametrize("row", [[], [["1", 5]], [7], "x"])
def test_a_reply_with_items_begins_with_an_encoding(row: object) -> None:
    """One that does not is no reply, and the connection of whoever sent it is of no use."""
    with pytest.raises(ProtocolError, match="a reply that cannot be read"):
        _wire.split_reply(_wire.encode(row))
