"""Backups: one file with a consistent state of a server, and what is needed to judge it.

A backup is a tar without compression, so that it can be looked into and unpacked by hand, with any tool and in many
years. Its members are files of a log (`_files`): the newest snapshot, the segments behind it up to the last whole
record, and at the end a *manifest*: a line of JSON (`Manifest`), and a line with the BLAKE2b of the first. A file that
was cut has no manifest, and the manifest has size and hash of every other member; so a backup is judged before anything
of it is used. Members are read by their names, and never unpacked to where a name says.

It holds what the directory of the server holds: values, pickles with the stamp of their writer, keys of sessions. So
only its owner may read it.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from registry import __version__
from registry._addresses._files import sync_directory
from registry._log import _recovery
from registry._log._files import NAMED, Directory
from registry._log._recovery import Extent
from registry.errors import RegistryError

FORMAT = 1
MANIFEST = "manifest"


class Member(msgspec.Struct, frozen=True):
    """A file in a backup: its name, how many bytes it has, and their BLAKE2b."""

    name: str
    bytes: int
    blake2b: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup says of itself.

    Attributes:
        format: Of the backup.
        index: The event whose state it has; `chain` is the sum of that event's record.
        snapshot: The event of the snapshot in it, 0 if there is none.
        epoch: The number of the life of the server that it is from.
        code: What the events ran through that came last.
        server: How people call the server, on the machine `host`.
        made: When, in seconds since 1970, by which `version` of the package.
        files: The other members, in order.
    """

    format: int
    index: int
    chain: int
    snapshot: int
    epoch: int
    code: dict[str, str]
    server: str
    host: str
    made: float
    version: str
    files: list[Member]


def write(
    directory: Directory,
    target: Path,
    *,
    head: tuple[int, int] = (0, 0),
    upto: int | None = None,
    epoch: int = 0,
    server: str = "",
    host: str = "",
    force: bool = False,
    warn: Callable[[str], None] = lambda text: None,
) -> Manifest:
    """Write a backup, which has its name once it is whole and on the disk.

    Args:
        directory: The log; nobody changes what is read of it.
        target: The file to write.
        head: The last event, and its chain, that are known to have been there.
        upto: The event to stop at, which ends a segment; None is the last.
        epoch: The number of the life that is counted now.
        server, host: For the manifest.
        force: Whether a file of that name is replaced.
        warn: Called with what is damaged and not needed.

    Raises:
        FileExistsError: There is a file of that name.
        RegistryError: The log is damaged, or lacks something.
    """
    if not force and os.path.lexists(target):
        raise FileExistsError(
            errno.EEXIST, "there is a file of that name, and nothing was written; --force replaces it", str(target)
        )
    temporary = target.with_name(f".{target.name}.{os.getpid()}.new")
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with open(fd, "wb") as file:
            manifest = _write(directory, file, head, upto, epoch, server, host, warn)
            file.flush()
            os.fsync(fd)
        if force:
            os.replace(temporary, target)
        else:
            _name(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(os.fspath(target.absolute()))
    return manifest


def _name(temporary: Path, target: Path) -> None:
    """Give a file its name, which nobody has taken meanwhile."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:  # this file system has no links
        os.rename(temporary, target)
    else:
        temporary.unlink()


def _write(
    directory: Directory,
    file: BinaryIO,
    head: tuple[int, int],
    upto: int | None,
    epoch: int,
    server: str,
    host: str,
    warn: Callable[[str], None],
) -> Manifest:
    newest = _recovery.newest_snapshot(directory, warn)
    extent = Extent()
    code: dict[str, str] = {}
    if newest is not None:
        _, picture, _ = newest
        extent, code, epoch = Extent.of(picture), picture.code, max(epoch, picture.epoch)
    snapshot, sums = extent.snapshot, {extent.snapshot: extent.chain}
    segments = {}
    for segment, _, record in _recovery.walk(directory, extent, upto):
        sums[record.last] = record.sum
        if record.last > snapshot:
            segments[segment.path] = segment
            code, epoch = segment.description.code, max(epoch, segment.description.epoch)
    index = max(sums)
    if index < head[0] or sums.get(head[0], head[1]) != head[1]:
        raise _recovery.cut(directory, index, head[0])
    if not index:
        raise RegistryError(f"there are no events in {directory.path}, and nothing to back up")
    files = []
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        if newest is not None:
            path, _, _ = newest
            files.append(_add(tar, path.name, directory.read(path)))
        for path, segment in segments.items():
            files.append(_add(tar, path.name, directory.read(path)[: segment.end]))
        manifest = Manifest(
            format=FORMAT,
            index=index,
            chain=sums[index],
            snapshot=snapshot,
            epoch=epoch,
            code=code,
            server=server,
            host=host,
            made=time.time(),
            version=__version__,
            files=files,
        )
        line = msgspec.json.encode(manifest)
        _add(tar, MANIFEST, line + b"\n" + _hash(line).encode() + b"\n")
    return manifest


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> Member:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(data), 0o600, int(time.time())
    tar.addfile(member, io.BytesIO(data))
    return Member(name, len(data), _hash(data))


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=32).hexdigest()


class Backup(Directory):
    """A backup, as a directory that can be read.

    Every byte has been looked at when this is made.

    Args:
        path: The file.

    Raises:
        RegistryError: It is no backup, or damaged.
        OSError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.judged_by(None)  # by whom is up to who restores it
        self._file = open(path, "rb")
        try:
            self._tar = tarfile.open(fileobj=self._file, mode="r:")
            self._members = {member.name: member for member in self._tar}
            self.manifest = self._judge()
        except (tarfile.TarError, EOFError, ValueError) as error:
            self._file.close()
            raise self._refused(str(error) or "it is cut off") from None
        except BaseException:
            self._file.close()
            raise

    def _judge(self) -> Manifest:
        if MANIFEST not in self._members:
            raise self._refused("it has no manifest; it is cut off, or no backup")
        line, _, rest = self._content(MANIFEST).partition(b"\n")
        if rest.strip() != _hash(line).encode():
            raise self._refused("its manifest is damaged")
        manifest = msgspec.json.decode(line, type=Manifest)
        if manifest.format != FORMAT:
            raise self._refused(f"it is of format {manifest.format}, and this version reads format {FORMAT}")
        if [*self._members] != [*(member.name for member in manifest.files), MANIFEST]:
            raise self._refused("what is in it is not what its manifest lists")
        for member in manifest.files:
            if NAMED.fullmatch(member.name) is None:
                raise self._refused(f"{member.name!r} in it is no file of a log")
            if _hash(self._content(member.name)) != member.blake2b:
                offset = self._members[member.name].offset_data
                raise self._refused(f"{member.name} in it, from byte {offset} on, is damaged")
        try:
            index, chain, _ = _recovery.reach(self)
        except RegistryError as error:
            raise self._refused(str(error)) from None
        if (index, chain) != (manifest.index, manifest.chain):
            raise self._refused(f"it ends with event {index}, and says that it ends with event {manifest.index}")
        return manifest

    def _refused(self, why: str) -> RegistryError:
        return RegistryError(f"{self.path} cannot be restored: {why}. Nothing was changed")

    def _named(self, kind: str) -> list[tuple[int, Path]]:
        found = [match for name in self._members if (match := NAMED.fullmatch(name)) and match[2] == kind]
        return sorted((int(match[1]), self.path / match[0]) for match in found)

    def read(self, path: Path) -> bytes:
        """Return what is in a file of the backup."""
        return self._content(path.name)

    def _content(self, name: str) -> bytes:
        member = self._members[name]
        file = self._tar.extractfile(member) if member.isreg() else None
        if file is None:
            raise self._refused(f"{name!r} in it is no file")
        data = file.read()
        if len(data) != member.size:
            raise self._refused(f"{name} in it is cut off")
        return data

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
