"""The count of servers that have lived in a place, and the last that is known of their log."""

from __future__ import annotations

import os
import struct
import zlib
from typing import NamedTuple

from registry._addresses._files import about, sync_directories, sync_directory, write_all
from registry.errors import RegistryError


class Life(NamedTuple):
    """What is recorded of a server life.

    Attributes:
        number: from 1; `began` when, in seconds of the wall clock; `id` its random name, 16 bytes.
        head: the head of the log, an event that was there for certain; 0 for none.
        chain: the sum of the record of that event.
    """

    number: int
    began: float
    id: bytes
    head: int = 0
    chain: int = 0


class EpochFile:
    """Counts the lives of servers in one place, so that fencing tokens never come twice.

    It also keeps the *head* of the log: the last event that is known to have been there, with its chain, so that a log
    which has been cut is told from a shorter one.

    4 KiB with two slots, at 0 and 2048, that are written in turn: a write that power loss tears leaves the
    other slot whole. A slot, big-endian::

        offset size  field
        0      4     "RGE2"
        4      8     number of this life, from 1
        12     8     when it began, seconds of the wall clock (double)
        20     16    random id of this life
        36     8     the head: index of an event of the log
        44     4     the sum of its record, see `registry._log`
        48     4     CRC-32 of the 48 bytes before

    Without the head, a slot of 36 bytes with "RGE1" is read, too. Only the holder of the place's lock may write.
    """

    SIZE = 4096
    LIMIT = 1 << 23  # a token is the epoch << 40 | n, and stays below 2**63

    _SLOT = struct.Struct("!4sQd16sQI")
    _OLD_SLOT = struct.Struct("!4sQd16s")
    _SUM = struct.Struct("!I")
    _MAGIC = b"RGE2"
    _OLD_MAGIC = b"RGE1"
    _OFFSETS = (0, 2048)

    __slots__ = ("_path",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)

    @property
    def path(self) -> str:
        """Where it is."""
        return self._path

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
            self._create(Life(1, now, life))
            return 1, life
        slots, good = self._slots(content)
        newest = max(good)
        number = newest.number + 1
        damaged = len(good) < 2 and (newest.number > 1 or any(content[self._OFFSETS[1] :]))
        if damaged:
            # The unreadable slot may have held the next number, and that life may have given out tokens.
            number += 1
        if number >= self.LIMIT:
            raise RegistryError(f"{self._path} counts {self.LIMIT} lives, and there are no tokens for more")
        older = 1 - slots.index(newest)
        fd = os.open(self._path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0))
        try:
            self._write_slot(fd, older, Life(number, now, life, newest.head, newest.chain))
            if damaged:
                # The two numbers are neighbours again, so that the next damage is made good in the same way.
                self._write_slot(fd, 1 - older, Life(number - 1, now, os.urandom(16), newest.head, newest.chain))
        finally:
            os.close(fd)
        sync_directory(self._path)
        return number, life

    def read(self) -> Life | None:
        """Return what is recorded of the newest life; ``None`` if nothing can be read."""
        content = self._content()
        if content is None:
            return None
        return max(filter(None, (self._read_slot(content, offset) for offset in self._OFFSETS)), default=None)

    def record(self, index: int, chain: int) -> None:
        """Record the head of the log, which is on the disk when this returns.

        Args:
            index: an event of the log that is on the disk.
            chain: the sum of its record.
        """
        content = self._content()
        slots = [self._read_slot(content, offset) for offset in self._OFFSETS] if content is not None else []
        newest = max(filter(None, slots), default=None)
        if newest is None:
            raise RegistryError(f"{self._path} counts no life, and can record nothing of its log")
        fd = os.open(self._path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0))
        try:
            # A head that goes back, as where a backup is put in place, needs a number of its own to be the newest.
            number = newest.number if (index, chain) >= (newest.head, newest.chain) else newest.number + 1
            life = newest._replace(number=number, head=index, chain=chain)
            self._write_slot(fd, 1 - slots.index(newest), life)
        finally:
            os.close(fd)

    def put_back(self, number: int, now: float, index: int, chain: int) -> None:
        """Record the head of a log that was put in the place of another one. Nothing happens if that is done already.

        Args:
            number: what lives are counted on from, unless more have been counted.
            now: the wall clock, which is recorded only.
            index: the last event of the log.
            chain: the sum of its record.

        Raises:
            RegistryError: the file is damaged, as for `begin`.
        """
        content = self._content()
        if content is None:
            self._create(Life(number - 1, now, os.urandom(16), index, chain))
            content = self._content() or b""
        slots, good = self._slots(content)
        newest = max(good)
        if newest.number >= number:
            if (newest.head, newest.chain) == (index, chain):
                return
            number = newest.number + 2
        older = 1 - slots.index(newest)
        fd = os.open(self._path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0))
        try:
            # Neighbours, as two lives have them: so that the damage of one slot can be made good.
            self._write_slot(fd, older, Life(number, now, os.urandom(16), index, chain))
            self._write_slot(fd, 1 - older, Life(number - 1, now, os.urandom(16), index, chain))
        finally:
            os.close(fd)

    def counted(self) -> int:
        """Return how many lives are counted, 0 if there is no file.

        Raises:
            RegistryError: the file is damaged, as for `begin`.
        """
        content = self._content()
        return 0 if content is None else max(self._slots(content)[1]).number

    def _create(self, life: Life) -> None:
        # Whole before it has its name, so that an existing file is never excused for being blank.
        temporary = f"{self._path}.new"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            with about(temporary):
                write_all(fd, self._slot(life).ljust(self.SIZE, b"\0"))
                os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, self._path)
        sync_directories(self._path)

    def _slots(self, content: bytes) -> tuple[list[Life | None], list[Life]]:
        """Return both slots, and those that can be read, of which there is one at least."""
        slots = [self._read_slot(content, offset) for offset in self._OFFSETS]
        good = [slot for slot in slots if slot is not None]
        if not good:
            raise RegistryError(
                f"both records of {self._path} are damaged, so that fencing tokens could come twice. "
                f"If nobody relies on tokens of this server, remove the file; else restore it from a backup"
            )
        return slots, good

    def _content(self) -> bytes | None:
        try:
            with open(self._path, "rb") as file:
                content = file.read(self.SIZE)
        except FileNotFoundError:
            return None
        # An empty file has had no life in it; somebody has made room for one.
        return content.ljust(self.SIZE, b"\0") if content else None

    def _write_slot(self, fd: int, place: int, life: Life) -> None:
        with about(self._path):
            os.lseek(fd, self._OFFSETS[place], os.SEEK_SET)
            write_all(fd, self._slot(life))
            os.fsync(fd)

    def _slot(self, life: Life) -> bytes:
        data = self._SLOT.pack(self._MAGIC, *life)
        return data + self._SUM.pack(zlib.crc32(data))

    def _read_slot(self, content: bytes, offset: int) -> Life | None:
        for magic, slot in ((self._MAGIC, self._SLOT), (self._OLD_MAGIC, self._OLD_SLOT)):
            end = offset + slot.size
            data = content[offset:end]
            (checksum,) = self._SUM.unpack_from(content, end)
            if zlib.crc32(data) == checksum and data.startswith(magic):
                return Life(*slot.unpack(data)[1:])
        return None
