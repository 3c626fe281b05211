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

New pages cost several times as much as to copy into those that are there. So a file of moderate size that nobody has
open or mapped any more, which a write lease tells, goes to a third room, ``spare``, and whoever writes next takes it
from there. What is to become bytes in any case is read and not mapped, into those that the reader gets.

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

from registry import _codec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry._wire import Buffer

#: From how many bytes on a value goes through a file: below that a file costs more than it saves.
LARGE: Final = 256 * 1024

#: Below how many bytes of a whole tmpfs its size is worth a remark; docker gives 64 MB.
SMALL_TMPFS: Final = 256 * 1024 * 1024

ROOT: Final = "/dev/shm"

#: Up to how many bytes a file is written anew when nobody needs it any more.
MODERATE: Final = 4 * 1024 * 1024

SPARE: Final = 2  # files of each size, by powers of two, that wait to be written anew

_PIECES_AT_ONCE = 256
_NAME = re.compile("[0-9a-z-]{1,80}")


class Unusable(LookupError):
    """A file that was named cannot be taken or mapped; the text says why."""


class Mapped(mmap.mmap):
    """The memory of a file of the server's own; the file's name goes with it."""

    path = ""
    pid = 0
    shelf: Shelf

    def __del__(self) -> None:
        if self.path and self.pid == os.getpid():
            length = len(self)
            self.shelf.held -= length
            try:
                self.close()
            except BufferError:
                pass  # at the end of the interpreter a view of it may live on
            self.shelf.retire(self.path, length)


class Shelf:
    """A server's directory of large values.

    Attributes:
        path: the directory.
        size: of the file system that it is on, in bytes.
        held: how many bytes its files have that are the server's.
    """

    def __init__(self, path: str, lock: int) -> None:
        self.path = path
        self.held = 0
        self._lock = lock
        self._count = 0
        self._spared = 0
        self._is_sparing = _tells_of_readers(os.path.join(path, "out", "probe"))
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
                for room in ("in", "out", "spare"):
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
        mapped.path, mapped.pid, mapped.shelf = path, os.getpid(), self
        self.held += length
        return memoryview(mapped)

    def retire(self, path: str, length: int) -> None:
        """Take away the name of a file that is not needed; keep it for whoever writes next if nobody has it open."""
        try:
            if self._is_sparing and LARGE <= length <= MODERATE:
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
                try:
                    if _is_alone(descriptor):
                        os.fchmod(descriptor, 0o600)
                        self._spared += 1
                        # In the place of the oldest of its size, if that was not needed.
                        os.rename(path, _spare(self.path, length, self._spared % SPARE))
                        return
                finally:
                    os.close(descriptor)
            os.unlink(path)
        except OSError:
            pass  # the shelf is gone already

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
    descriptor = _begin(path, target, length)
    if descriptor is None:
        return False
    whole = False
    try:
        if os.fstat(descriptor).st_size > length:
            os.ftruncate(descriptor, length)
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


def _begin(path: str, target: str, length: int) -> int | None:
    """Open a file to write, one that was written before if there is any of that size; None if there is no room."""
    if length <= MODERATE:
        for slot in range(SPARE):
            try:
                os.rename(_spare(path, length, slot), target)
                return os.open(target, os.O_WRONLY | os.O_NOFOLLOW)
            except OSError:
                pass
    try:
        room = os.statvfs(path)
        if length > room.f_bavail * room.f_frsize // 2:
            return None
        return os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError:
        return None


def get(path: str, name: str, length: int) -> memoryview | _codec.Pieces:
    """Return the content of a file that the server has told of: mapped, or of the encoding of bytes these bytes.

    Raises:
        Unusable: it cannot be opened, or is not as it was told.
    """
    if not path or not _NAME.fullmatch(name) or length <= 0:
        raise Unusable(f"{name!r} is no name of a file of {length} bytes that is seen here")
    try:
        descriptor = os.open(os.path.join(path, "out", name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_size != length:
                raise Unusable(f"{name}: it is no file of {length} bytes")
            head = os.pread(descriptor, _codec.BYTES_HEAD, 0)
            if head == _codec.head_of_bytes(length - len(head)):
                return _codec.Pieces((head, _read(descriptor, len(head), length)))
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


def _read(descriptor: int, start: int, end: int) -> bytes:
    content = os.pread(descriptor, end - start, start)  # all at once but for signals, and beyond 2 GB
    while start + len(content) < end:
        more = os.pread(descriptor, end - start - len(content), start + len(content))
        if not more:
            raise Unusable("it became shorter while it was read")
        content += more
    return content


def _spare(path: str, length: int, slot: int) -> str:
    """Return where a file waits that can take so many bytes."""
    return os.path.join(path, "spare", f"{(length - 1).bit_length()}-{slot}")


def _is_settled(descriptor: int) -> bool:
    """Tell whether nobody has a file open for writing, which nobody can open for that any more."""
    return _can_lease(descriptor, fcntl.F_RDLCK)


def _is_alone(descriptor: int) -> bool:
    """Tell whether nobody has a file open, nor mapped, but by this descriptor."""
    return _can_lease(descriptor, fcntl.F_WRLCK)


def _can_lease(descriptor: int, kind: int) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, kind)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return False
    return True


def _tells_of_readers(path: str) -> bool:
    """Tell whether this kernel gives a write lease only on a file that nobody else has mapped to read."""
    try:
        with open(path, "xb") as file:
            file.write(b"mapped")
        # Opened twice, since a mapping by the very descriptor that asks for the lease is no reader to the kernel.
        with open(path, "rb") as asking, open(path, "rb") as reading:
            os.unlink(path)
            with mmap.mmap(reading.fileno(), 0, prot=mmap.PROT_READ):
                reading.close()
                was_alone = _is_alone(asking.fileno())
            return not was_alone and _is_alone(asking.fileno())
    except (OSError, ValueError):
        return False


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
