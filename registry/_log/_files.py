"""The directory of a log: which files are in it, and how they come to be and go.

::

    lock                            held by the server, or by whoever changes the files in its place
    secret                          what the files are sealed with, see `_secret`; made with the first of them
    00000000000000000042.segment    the events from 42 on, see `_format`
    00000000000000000041.snapshot   the state after event 41
    *.torn                          what was cut from the end of a segment
    *.N.new                         what is being written by life N; the next one removes it
    restoring/, restored/           a backup that is being put in place, see `_restore`
    before-restore-1/               the log that was there before

A life can end before the process that folds for it: that goes on for a moment beside the next life and its own.

A file has its name once it is whole, but for the segment that is being written.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import chain, pairwise
from pathlib import Path
from typing import BinaryIO

from registry import _peers
from registry._addresses import load_key
from registry._addresses._files import about, sync_directory, write_all
from registry._log._secret import Secret

NAMED = re.compile(r"(\d{20})\.(segment|snapshot)")
_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


class Directory:
    """The files of one log.

    Args:
        path: Where they are.
        life: The number of the server life that writes.
    """

    def __init__(self, path: str | os.PathLike[str], life: int = 0) -> None:
        self.path = Path(path)
        self.life = life
        self._secret: Secret | None = None
        self._is_judged = True

    @property
    def secret(self) -> Secret | None:
        """What its files must be sealed with; None where that is not looked at, see `judged_by`.

        Where it has no secret, there are no seals that it takes.
        """
        if self._secret is None and self._is_judged:
            try:
                self._secret = Secret(load_key(self.path / "secret"))
            except FileNotFoundError:
                return Secret(os.urandom(32))
        return self._secret

    def judged_by(self, secret: Secret | None) -> None:
        """Have its files judged by the secret of another directory, or by none."""
        self._secret, self._is_judged = secret, secret is not None

    def own_secret(self) -> Secret:
        """Return its secret, which is made, and on the disk, where there was none."""
        secret = self._secret
        if secret is None:
            secret = Secret(load_key(self.path / "secret", create=True))
            sync_directory(os.fspath(self.path / "secret"))
            self.judged_by(secret)
        return secret

    def ensure(self) -> None:
        """Make the directory where it is missing, for this account alone."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_directory(os.fspath(self.path))  # also if it was there: whoever made it may have got no further

    @property
    def lock(self) -> Path:
        """The lock file, see `ServerLock`; it is never removed."""
        return self.path / "lock"

    def segment(self, first: int) -> Path:
        """Return the name of the segment that begins with an event."""
        return self.path / f"{first:020d}.segment"

    def snapshot(self, index: int) -> Path:
        """Return the name of the snapshot of the state after an event."""
        return self.path / f"{index:020d}.snapshot"

    def segments(self) -> list[tuple[int, Path]]:
        """Return the first events and names of the segments, in order."""
        return self._named("segment")

    def snapshots(self) -> list[tuple[int, Path]]:
        """Return the events and names of the snapshots, in order."""
        return self._named("snapshot")

    def _named(self, kind: str) -> list[tuple[int, Path]]:
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return []
        found = [match for name in names if (match := NAMED.fullmatch(name)) and match[2] == kind]
        return sorted((int(match[1]), self.path / match[0]) for match in found)

    @property
    def is_empty(self) -> bool:
        """Whether there is no log."""
        return not (self.segments() or self.snapshots())

    def read(self, path: Path) -> bytes:
        """Return what is in one of the files."""
        with about(str(path)):
            return path.read_bytes()

    def put(self, path: Path, parts: Iterable[bytes | memoryview]) -> None:
        """Write a file that is whole, and on the disk, once it has its name."""
        temporary = f"{path}.{self.life}.new"
        with _making(temporary):
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _FLAGS, 0o600)
            try:
                for part in parts:
                    write_all(fd, part)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(temporary, path)
        sync_directory(os.fspath(path))

    def open(self, path: Path, head: bytes) -> int:
        """Make a segment and return its descriptor, for appending. There was none of its name, or an empty one.

        It is on the disk: what is written to a file and synced is lost where its name is.
        """
        temporary = f"{path}.{self.life}.new"
        with _making(temporary):
            fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | _FLAGS, 0o600)
            try:
                write_all(fd, head)
                os.fsync(fd)
                os.replace(temporary, path)
                sync_directory(os.fspath(path))
            except BaseException:
                os.close(fd)
                raise
        return fd

    def sweep(self) -> None:
        """Remove what was being written when its writer ended."""
        for path in self.path.glob("*.new"):
            if NAMED.match(path.name):
                path.unlink(missing_ok=True)

    def trim(self) -> None:
        """Remove what neither the newest snapshot nor the one before it needs."""
        snapshots = self.snapshots()
        if len(snapshots) < 2:
            return
        keep = snapshots[-2][0]
        for _, path in snapshots[:-2]:
            path.unlink(missing_ok=True)
        segments = self.segments()
        for (_, path), (following, _) in pairwise(segments):
            if following <= keep + 1:
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def _making(temporary: str) -> Iterator[None]:
    """Name a new file in errors, and leave no half of it: where there is no space, it would be in the way."""
    try:
        with about(temporary):
            yield
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


class Held(Directory):
    """The files of a log that a server writes on, as far as they are closed: open, so that none of them can go.

    Args:
        path: The directory.
        upto: The last event; it ends a closed segment.

    Raises:
        FileNotFoundError: The server has just removed one, since it has newer ones; look again.
    """

    def __init__(self, path: str | os.PathLike[str], upto: int) -> None:
        super().__init__(path)
        self._files: dict[Path, BinaryIO] = {}
        self._rows = {kind: self._below(kind, upto) for kind in ("segment", "snapshot")}
        with ExitStack() as stack:
            for _, file in chain.from_iterable(self._rows.values()):
                self._files[file] = stack.enter_context(open(file, "rb"))
            self._stack = stack.pop_all()

    def _below(self, kind: str, upto: int) -> list[tuple[int, Path]]:
        return [row for row in super()._named(kind) if row[0] <= upto]

    def _named(self, kind: str) -> list[tuple[int, Path]]:
        return self._rows[kind]

    def read(self, path: Path) -> bytes:
        """Return what is in one of the files, whether or not it is still there."""
        file = self._files[path]
        file.seek(0)
        return file.read()

    def close(self) -> None:
        """Let go of the files."""
        self._stack.close()


def boot() -> str:
    """Return the id of the boot of this machine, or empty where it tells none."""
    return _peers.boot().partition("/")[0]
