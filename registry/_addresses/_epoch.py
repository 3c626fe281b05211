"""The count of servers that have lived in a place."""

from __future__ import annotations

import os
import struct
import zlib

from registry._addresses._files import sync_directory, write_all
from registry.errors import RegistryError


class EpochFile:
    """Counts the lives of servers in one place, so that fencing tokens never come twice.

    4 KiB with two slots, at 0 and 2048, that are written in turn: a write that power loss tears leaves the
    other slot whole. A slot, big-endian::

        offset size  field
        0      4     "RGE1"
        4      8     number of this life, from 1
        12     8     when it began, seconds of the wall clock (double)
        20     16    random id of this life
        36     4     CRC-32 of the 36 bytes before

    Only the holder of the place's lock may call `begin`.
    """

    SIZE = 4096
    LIMIT = 1 << 23  # a token is the epoch << 40 | n, and stays below 2**63

    _SLOT = struct.Struct("!4sQd16s")
    _SUM = struct.Struct("!I")
    _MAGIC = b"RGE1"
    _OFFSETS = (0, 2048)

    __slots__ = ("_path",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)

    def begin(self, now: float) -> tuple[int, bytes]:
        """Begin a life: return its number, higher than any before, and its random id of 16 bytes.

        Both are on the disk when this returns.

        Args:
            now: the wall clock, which is recorded only.

        Raises:
            RegistryError: the file is damaged, so that no number can be told to be new.
            OSError: the directory cannot be written. Without an epoch there can be no tokens.
        """
        life = os.urandom(16)
        content = self._content()
        if content is None:
            # Whole before it has its name, so that an existing file is never excused for being blank.
            temporary = f"{self._path}.new"
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), 0o600)
            try:
                write_all(fd, self._slot(1, now, life).ljust(self.SIZE, b"\0"))
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(temporary, self._path)
            sync_directory(self._path)
            return 1, life
        slots = [self._read_slot(content, offset) for offset in self._OFFSETS]
        good = [slot for slot in slots if slot is not None]
        if not good:
            raise RegistryError(
                f"both records of {self._path} are damaged, so that fencing tokens could come twice. "
                f"If nobody relies on tokens of this server, remove the file; else restore it from a backup"
            )
        newest = max(good)
        number = newest[0] + 1
        damaged = len(good) < 2 and (newest[0] > 1 or any(content[self._OFFSETS[1] :]))
        if damaged:
            # The unreadable slot may have held the next number, and that life may have given out tokens.
            number += 1
        if number >= self.LIMIT:
            raise RegistryError(f"{self._path} counts {self.LIMIT} lives, and there are no tokens for more")
        older = 1 - slots.index(newest)
        fd = os.open(self._path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0))
        try:
            self._write_slot(fd, older, number, now, life)
            if damaged:
                # The two numbers are neighbours again, so that the next damage is made good in the same way.
                self._write_slot(fd, 1 - older, number - 1, now, os.urandom(16))
        finally:
            os.close(fd)
        sync_directory(self._path)
        return number, life

    def read(self) -> tuple[int, float, bytes] | None:
        """Return number, beginning and id of the newest life; ``None`` if none can be read."""
        content = self._content()
        if content is None:
            return None
        return max(filter(None, (self._read_slot(content, offset) for offset in self._OFFSETS)), default=None)

    def _content(self) -> bytes | None:
        try:
            with open(self._path, "rb") as file:
                content = file.read(self.SIZE)
        except FileNotFoundError:
            return None
        # An empty file has had no life in it; somebody has made room for one.
        return content.ljust(self.SIZE, b"\0") if content else None

    def _write_slot(self, fd: int, index: int, number: int, now: float, life: bytes) -> None:
        os.lseek(fd, self._OFFSETS[index], os.SEEK_SET)
        write_all(fd, self._slot(number, now, life))
        os.fsync(fd)

    def _slot(self, number: int, now: float, life: bytes) -> bytes:
        data = self._SLOT.pack(self._MAGIC, number, now, life)
        return data + self._SUM.pack(zlib.crc32(data))

    def _read_slot(self, content: bytes, offset: int) -> tuple[int, float, bytes] | None:
        end = offset + self._SLOT.size
        data = content[offset:end]
        (checksum,) = self._SUM.unpack_from(content, end)
        if zlib.crc32(data) != checksum or not data.startswith(self._MAGIC):
            return None
        _, number, began, life = self._SLOT.unpack(data)
        return number, began, life
