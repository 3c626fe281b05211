"""Large values: what stands beside an encoding in the place of in it, and buffers in carried values.

A carried value with buffers in it, such as the data of an array, is a *blob*: one run of bytes that a reader can map
and use where it lies, since each buffer begins at a multiple of 64 bytes, as numbers in arrays should. All integers are
little-endian::

    offset size  field
    0      1     0xC9, what msgpack begins an extension with that has four bytes of length
    1      4     length of all that follows from offset 6, big-endian
    5      1     48, the code
    6      2     zero
    8      4     length of the skeleton
    12     4     number of buffers
    16     16 n  for each buffer its offset from the beginning of the blob, and its length
    ..     ..    the skeleton: the value without its buffers, an encoding or a pickle of protocol 5
    ..     ..    the buffers, with zeros between them
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from ._base import CodecError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._base import Buffer

#: From how many bytes on an encoding stands beside the message that it is part of.
BESIDE: Final = 64 * 1024

#: From how many bytes on a buffer stands outside of the skeleton of its value.
OUTSIDE: Final = 4096

#: How many bytes one message may have, with what stands beside it; a little less than a frame's reader takes.
MOST = (1 << 30) - (1 << 20)

#: Bytes before the content in the encoding of bytes that stand outside of all else.
BYTES_HEAD: Final = 5

ALIGNMENT: Final = 64
BLOB: Final = 48

_HEAD = struct.Struct(">BIB")
_COUNTS = struct.Struct("<II")
_ENTRY = struct.Struct("<QQ")
_FIRST = 8


class Pieces:
    """Bytes on their way out that have not been put together: what is sent piece by piece is not copied."""

    __slots__ = ("parts", "size")

    def __init__(self, parts: Sequence[Buffer]) -> None:
        self.parts = parts
        self.size = sum(map(len, parts))

    def __len__(self) -> int:
        return self.size

    def __bytes__(self) -> bytes:
        return b"".join(self.parts)


def head_of_bytes(length: int) -> bytes:
    """Return how the encoding of so many bytes begins, in the form that is used from 64 KB on; what follows is they."""
    return b"\xc6" + length.to_bytes(4, "big") if 0 < length < 1 << 32 else b""


def blob(skeleton: bytes, buffers: Sequence[memoryview]) -> Pieces:
    """Put the skeleton of a value and its buffers together."""
    position = _FIRST + _COUNTS.size + _ENTRY.size * len(buffers) + len(skeleton)
    entries = b""
    parts: list[Any] = [b"", skeleton]
    for buffer in buffers:
        gap = -position % ALIGNMENT
        entries += _ENTRY.pack(position + gap, len(buffer))
        parts += [bytes(gap), buffer]
        position += gap + len(buffer)
    parts[0] = (
        _HEAD.pack(0xC9, position - _HEAD.size, BLOB) + bytes(2) + _COUNTS.pack(len(skeleton), len(buffers)) + entries
    )
    return Pieces(parts)


def is_blob(data: Buffer) -> bool:
    """Tell whether carried bytes are a blob; no pickle of protocol 2 or later, and no other encoding, begins so."""
    return len(data) > _FIRST and data[0] == 0xC9 and data[5] == BLOB


def split(data: Buffer) -> tuple[memoryview, list[memoryview]]:
    """Return the skeleton of a blob and its buffers, as views that cannot be written.

    Raises:
        CodecError: It is damaged.
    """
    view = memoryview(data).toreadonly()
    try:
        _, length, _ = _HEAD.unpack_from(view)
        size, count = _COUNTS.unpack_from(view, _FIRST)
        start = _FIRST + _COUNTS.size + _ENTRY.size * count
        if length != len(view) - _HEAD.size or start + size > len(view):
            raise CodecError("a value with buffers is cut short")
        entries = [_ENTRY.unpack_from(view, _FIRST + _COUNTS.size + _ENTRY.size * n) for n in range(count)]
    except struct.error as error:
        raise CodecError(f"a value with buffers is cut short: {error}") from None
    if any(offset < start + size or offset + size_of > len(view) for offset, size_of in entries):
        raise CodecError("a buffer lies outside of its value")
    return view[start : start + size], [view[offset : offset + size_of] for offset, size_of in entries]
