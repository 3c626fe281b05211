"""What the files of a place have in common: who may touch them, where they lie, when they are safe."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator

from registry.errors import AccessDenied

# What flock, mmap and sockets do on these differs from host to host.
NETWORK_FILE_SYSTEMS = frozenset(
    "9p afs beegfs ceph cifs coda fuse.ceph fuse.glusterfs fuse.rclone fuse.s3fs fuse.sshfs glusterfs gpfs "
    "lustre ncpfs nfs nfs4 smb3 smbfs".split()
)


def file_system(path: str, table: str = "/proc/self/mounts") -> str:
    """Return the type of the file system that a path is or would be on; empty where it cannot be known."""
    try:
        with open(table, "rb") as file:
            rows = [row.split() for row in file]
    except OSError:
        return ""
    place = os.fsencode(os.path.realpath(path))
    longest, found = -1, b""
    for row in rows:
        if len(row) < 3:
            continue
        point = row[1]
        if b"\\" in point:  # space, tab, newline and backslash are written as octal numbers
            point = point.decode("unicode_escape").encode("latin-1")
        point = point.rstrip(b"/")
        # Of two mounts on one point the later is seen.
        if len(point) >= longest and (place == point or place.startswith(point + b"/")):
            longest, found = len(point), row[2]
    return found.decode("ascii", "replace")


def check_private(path: str) -> None:
    """Refuse a directory that is not this account's alone.

    Its group may pass through it, to what has a name and a mode that lets it, see `_groups`.

    Raises:
        AccessDenied: it is no directory, a symbolic link, another's, or open to others.
        FileNotFoundError: it is not there.
    """
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        raise AccessDenied(f"{path} is a symbolic link, which could lead anywhere: remove it, or set REGISTRY_HOME")
    if not stat.S_ISDIR(status.st_mode):
        raise AccessDenied(f"{path} is no directory: remove it, or set REGISTRY_HOME")
    if sys.platform == "win32":
        return
    if status.st_uid != os.geteuid():
        raise AccessDenied(
            f"{path} belongs to uid {status.st_uid} and this process runs as uid {os.geteuid()}: "
            f"run as that user, or set REGISTRY_HOME"
        )
    if status.st_mode & 0o067:
        raise AccessDenied(f"{path} is open to others (mode {status.st_mode & 0o777:o}): chmod 700 {path}")


def check_parent(path: str) -> None:
    """Refuse a directory in which another user could put something else in the place of ours."""
    if sys.platform == "win32":
        return
    status = os.stat(path)
    if status.st_uid not in (0, os.geteuid()):
        raise AccessDenied(f"{path} belongs to uid {status.st_uid}: set REGISTRY_HOME to a directory of your own")
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        raise AccessDenied(f"{path} can be written by others (mode {status.st_mode & 0o777:o}): chmod go-w {path}")


def check_socket(path: str, *, listening: bool = False) -> None:
    """Refuse the path of a socket in whose place another user could put one of theirs.

    Args:
        path: Of the socket, which need not be there.
        listening: For the server: its directory must then be this account's, or the system's.

    Raises:
        AccessDenied: It leads through a symbolic link, or a directory on the way can be written by others.
    """
    if sys.platform == "win32":
        return
    directory, name = os.path.split(path)
    real = os.path.realpath(directory)
    if real != directory or os.path.islink(path):
        ends = os.path.join(real, name) if real != directory else os.path.realpath(path)
        raise AccessDenied(
            f"the socket {path} lies behind a symbolic link, which could lead anywhere tomorrow: write unix://{ends}"
        )
    cure = 'use a directory of your own (chmod 700), or a name, such as connect("scrapers")'
    try:
        status = os.stat(directory)
    except FileNotFoundError:
        return  # then there is no socket either
    if status.st_mode & 0o022:
        raise AccessDenied(
            f"the directory of the socket {path} can be written by others (mode {status.st_mode & 0o1777:o}), who "
            f"could put a socket of theirs in its place: {cure}"
        )
    if listening and status.st_uid not in (0, os.geteuid()):
        raise AccessDenied(f"the directory of the socket {path} belongs to uid {status.st_uid}: {cure}")
    while directory != os.path.dirname(directory):
        directory = os.path.dirname(directory)
        mode = os.stat(directory).st_mode
        if mode & 0o022 and not mode & stat.S_ISVTX:  # where it is set, nobody can move what is another's
            raise AccessDenied(
                f"{directory}, above the socket {path}, can be written by others (mode {mode & 0o1777:o}): {cure}"
            )


@contextlib.contextmanager
def about(path: str) -> Iterator[None]:
    """Name a file in the errors about it, where the system knows it by number only."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = path
        raise


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write everything, however little goes in one piece."""
    while data:
        data = data[os.write(fd, data) :]


def sync_directory(path: str) -> None:
    """Make the name of a file as durable as its content."""
    if sys.platform == "win32":
        return  # directories cannot be opened there; NTFS keeps a journal of names
    directory = os.path.dirname(path) or "."
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with about(directory):
            os.fsync(fd)
    finally:
        os.close(fd)


def sync_directories(path: str) -> None:
    """Make the names of a file and of all directories above it durable; the last of them may just have been made."""
    above = os.path.dirname(os.path.abspath(path))
    while True:
        try:
            sync_directory(os.path.join(above, "any"))
        except PermissionError:
            return  # whoever may not open it has not made what is in it
        if os.path.ismount(above):
            return
        above = os.path.dirname(above)
