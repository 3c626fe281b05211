"""Large values in files that processes of one user on one host map, in the place of sending them.

The files lie on tmpfs, in a directory of the server's that only its user can enter: a *shelf*. It has two rooms. A
client that sends a large value writes a file into ``in`` and names it in its call. The server moves it to ``out``,
looks whether anybody has it open for writing, and maps it: from then on it is the server's. A reader is told the name,
and maps it too. So the bytes are copied once, by their writer.

What is mapped must not change, nor become shorter: whoever then looked at it would see another value, or be killed by
a SIGBUS. That nobody writes to a file is something that Linux tells: a read lease (``F_SETLEASE``) is given only on one
that nobody has open for writing. Where it is not given, such as for a file whose writer has forked meanwhile, the
server copies the bytes into a file that it makes itself.

A file lives as long as the memory that the server has mapped of it: its name goes with the last reference to the value
and to the replies that hold it, while those who have mapped it go on. It does not matter whether its writer lives. The
shelf goes with the server; one whose server was killed is swept by the next that starts, which can tell by the lock on
the directory.

Where there is no tmpfs, or not enough room on it, values go through the socket.
"""

from __future__ import annotations

import mmap
import os
import re
import stat
import sys
from typing import TYPE_CHECKING, Any, Final

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry._wire import Buffer

#: From how many bytes on a value goes through a file: below that a file costs more than it saves.
LARGE: Final = 256 * 1024

#: Below how many bytes of a whole tmpfs its size is worth a remark; docker gives 64 MB.
SMALL_TMPFS: Final = 256 * 1024 * 1024

ROOT: Final = "/dev/shm"

_PIECES_AT_ONCE = 256
_NAME = re.compile("[0-9a-z-]{1,80}")


class Unusable(LookupError):
    """A file that was named cannot be taken or mapped; the text says why."""


class Mapped(mmap.mmap):
    """The memory of a file of the server's own; the file's name goes with it."""

    path = ""
    pid = 0

    def __del__(self) -> None:
        if self.path and self.pid == os.getpid():
            try:
                os.unlink(self.path)
            except OSError:
                pass  # the shelf is gone already


class Shelf:
    """A server's directory of large values.

    Attributes:
        path: the directory.
        size: of the file system that it is on, in bytes.
    """

    def __init__(self, path: str, lock: int) -> None:
        self.path = path
        self._lock = lock
        self._count = 0
        self.size = _size(path)

    @staticmethod
    def open(root: str = ROOT) -> Shelf | None:
        """Make the directory of a server that starts, and sweep those of servers that were killed.

        Returns:
            None where there is no tmpfs to make it on.
        """
        if sys.platform != "linux" or not os.access(root, os.W_OK | os.X_OK):
            return None
        prefix = os.path.join(root, f"registry-{os.geteuid()}-")
        try:
            _sweep(root, os.path.basename(prefix))
            path = prefix + os.urandom(8).hex()
            # Under its own name only once it is locked, or else another server that starts would sweep it.
            os.mkdir(path + ".new", 0o700)
            lock = os.open(path + ".new", os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for room in ("in", "out"):
                    os.mkdir(os.path.join(path + ".new", room), 0o700)
                os.rename(path + ".new", path)
                return Shelf(path, lock)
            except BaseException:
                os.close(lock)
                raise
        except OSError:
            return None

    def take(self, name: str, length: int) -> memoryview:
        """Make a file that a client has written the server's own, and return its content.

        Raises:
            Unusable: there is no such file of that length.
        """
        if not _NAME.fullmatch(name) or length <= 0:
            raise Unusable(f"{name!r} is no name of a file of {length} bytes")
        self._count += 1
        path = os.path.join(self.path, "out", str(self._count))
        try:
            os.rename(os.path.join(self.path, "in", name), path)
            try:
                return self._map(path, length)
            except BaseException:
                os.unlink(path)
                raise
        except (OSError, ValueError) as error:
            raise Unusable(f"{name}: {error}") from error

    def _map(self, path: str, length: int) -> memoryview:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_size != length:
                raise Unusable(f"it is no file of {length} bytes")
            os.fchmod(descriptor, 0o400)
            if not _is_settled(descriptor):
                descriptor = _copied(descriptor, path, length)
            mapped = Mapped(descriptor, length, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)
        mapped.path, mapped.pid = path, os.getpid()
        return memoryview(mapped)

    @staticmethod
    def name_of(buffer: object) -> str:
        """Return the name of the file that holds exactly this buffer, or an empty string."""
        owner = buffer.obj if type(buffer) is memoryview else None
        if type(owner) is Mapped and len(owner) == len(buffer):  # type: ignore[arg-type]
            return os.path.basename(owner.path)
        return ""

    def discard(self, key: bytes) -> None:
        """Remove what a session has written and will never name."""
        prefix = prefix_of(key)
        try:
            with os.scandir(os.path.join(self.path, "in")) as entries:
                for name in [entry.name for entry in entries if entry.name.startswith(prefix)]:
                    os.unlink(os.path.join(self.path, "in", name))
        except OSError:
            pass  # somebody else has swept

    def close(self) -> None:
        """Remove the directory. Who has mapped something goes on with it."""
        _remove(self.path)
        os.close(self._lock)

    def close_inherited(self) -> None:
        """In a forked child: let go of what is the parent's."""
        os.close(self._lock)


def prefix_of(key: bytes) -> str:
    """Return how the names of the files begin that a session writes; it does not tell the session's key."""
    import hashlib

    return hashlib.sha256(b"shelf" + key).hexdigest()[:16] + "-"


def is_visible(path: str) -> bool:
    """Tell whether a server's directory is there, is our user's alone, and can be written."""
    if not path or sys.platform != "linux":
        return False
    try:
        found = os.lstat(path)
    except OSError:
        return False
    is_private = stat.S_ISDIR(found.st_mode) and not stat.S_IMODE(found.st_mode) & 0o077
    return is_private and found.st_uid == os.geteuid()


def put(path: str, name: str, pieces: Sequence[Buffer]) -> bool:
    """Write a file for the server to take; False where there is no room for it.

    It takes half of the room that is left at most, since others need that file system, too.
    """
    length = sum(map(len, pieces))
    target = os.path.join(path, "in", name)
    try:
        room = os.statvfs(path)
        if length > room.f_bavail * room.f_frsize // 2:
            return False
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError:
        return False
    whole = False
    try:
        for start in range(0, len(pieces), _PIECES_AT_ONCE):
            _write(descriptor, pieces[start : start + _PIECES_AT_ONCE])
        whole = True
    except OSError:  # such as no space
        pass
    finally:
        os.close(descriptor)
        if not whole:
            os.unlink(target)
    return whole


def get(path: str, name: str, length: int) -> memoryview:
    """Map a file that the server has told of; what it holds cannot be written.

    Raises:
        Unusable: it cannot be opened, or is not as it was told.
    """
    try:
        descriptor = os.open(os.path.join(path, "out", os.path.basename(name)), os.O_RDONLY | os.O_NOFOLLOW)
        try:
            if os.fstat(descriptor).st_size != length:
                raise Unusable(f"{name}: it is no file of {length} bytes")
            return memoryview(mmap.mmap(descriptor, length, prot=mmap.PROT_READ))
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise Unusable(f"{name}: {error}") from error


def _write(descriptor: int, pieces: Sequence[Any]) -> None:
    rest = [memoryview(piece) for piece in pieces if len(piece)]
    while rest:
        written = os.writev(descriptor, rest)
        while rest and written >= len(rest[0]):
            written -= len(rest.pop(0))
        if written:
            rest[0] = rest[0][written:]


def _is_settled(descriptor: int) -> bool:
    """Tell whether nobody has a file open for writing, which nobody can open for that any more."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return False
    return True


def _copied(descriptor: int, path: str, length: int) -> int:
    """Put a file of our own with the same bytes in the place of one, and return a descriptor of it."""
    fresh = path + ".copy"
    copy = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o400)
    try:
        done = 0
        while done < length:
            count = os.sendfile(copy, descriptor, done, length - done)
            if not count:
                raise Unusable("it became shorter while it was copied")
            done += count
        os.rename(fresh, path)
    except BaseException:
        os.close(copy)
        os.unlink(fresh)
        raise
    os.close(descriptor)
    return copy


def _sweep(root: str, prefix: str) -> None:
    """Remove the directories of servers that are gone."""
    for name in os.listdir(root):
        path = os.path.join(root, name)
        if not name.startswith(prefix) or name.endswith(".new"):
            continue
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(path)
        except OSError:
            pass  # its server lives
        finally:
            os.close(lock)


def _remove(path: str) -> None:
    import shutil  # a client has no use for it

    shutil.rmtree(path, ignore_errors=True)


def _size(path: str) -> int:
    found = os.statvfs(path)
    return found.f_blocks * found.f_frsize
