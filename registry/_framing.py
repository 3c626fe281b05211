"""Messages as `multiprocessing` frames them, without I/O.

======  ==========  ==========================================================================================
offset  size        meaning
======  ==========  ==========================================================================================
0       4           length, signed, big end first; -1 where it does not fit
4       8           only after -1: the length, unsigned
4, 12   the length  the message
======  ==========  ==========================================================================================
"""

from __future__ import annotations

import struct
from typing import Final

#: A message of more bytes is refused.
LARGEST: Final = 256 << 20

_SHORT = struct.Struct("!i")
_LONG = struct.Struct("!Q")


class BadMessage(Exception):
    """What came is no message of this protocol; the connection is of no further use."""


def beginning(buffer: bytearray, limit: int = LARGEST) -> tuple[int, int] | None:
    """Return where the first message begins that arrives, and its length; None until that is known.

    Raises:
        BadMessage: it is longer than `limit`, or its length makes no sense.
    """
    if len(buffer) < 4:
        return None
    (length,) = _SHORT.unpack_from(buffer)
    start = 4
    if length == -1:
        if len(buffer) < 12:
            return None
        (length,) = _LONG.unpack_from(buffer, 4)
        start = 12
    if not 0 <= length <= limit:
        raise BadMessage(f"a message of {length} bytes; at most {limit} are taken")
    return start, length


def cut(buffer: bytearray, limit: int = LARGEST) -> bytes | None:
    """Take the first whole message out of what has arrived; None until there is one.

    Raises:
        BadMessage: as `beginning`.
    """
    found = beginning(buffer, limit)
    if found is None:
        return None
    start, length = found
    if len(buffer) < start + length:
        return None
    message = bytes(memoryview(buffer)[start : start + length])
    del buffer[: start + length]
    return message


def frame(message: bytes) -> bytes:
    """Put the length in front of a message."""
    return head(len(message)) + message


def head(length: int) -> bytes:
    """Return what stands in front of a message of a length."""
    return _SHORT.pack(-1) + _LONG.pack(length) if length > 0x7FFFFFFF else _SHORT.pack(length)
