"""The secret that a client shows: where it is looked for, and how it is made."""

from __future__ import annotations

import errno
import os
import stat
import sys

from registry._addresses._files import write_all
from registry._addresses._names import Address, Place, parse
from registry.errors import AccessDenied


def load_key(path: str | os.PathLike[str], create: bool = False) -> bytes:
    """Return the key in a key file of ours.

    Args:
        path: the file.
        create: make one of 32 random bytes where there is none. Of several processes that do so at once,
            all return the same key.

    Raises:
        FileNotFoundError: there is none and ``create`` is false.
        AccessDenied: others can read it, or it is not this account's.
        ValueError: it is empty.
    """
    path = os.fspath(path)
    try:
        return _read_key(path, 0o077, follow=False)
    except FileNotFoundError:
        if not create:
            raise
    # Whole before it has its name: a reader sees all of a key or none.
    temporary = f"{path}.{os.urandom(8).hex()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        try:
            write_all(fd, os.urandom(32))
            os.fsync(fd)
        finally:
            os.close(fd)
        try:
            # Neither replaces a file that another process has put there first.
            if sys.platform == "win32":
                os.rename(temporary, path)
            else:
                os.link(temporary, path)
        except FileExistsError:
            pass
    finally:
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass  # renamed
    return _read_key(path, 0o077, follow=False)


def find_authkey(
    authkey: bytes | bytearray | str | None,
    address: str | tuple[str, int] | Address | None = None,
    create: bool = False,
) -> bytes:
    """Return the key for a server.

    It is the argument, else what the file that ``REGISTRY_AUTHKEY_FILE`` names has, without one newline at
    its end, else the key file in the server's directory. ``memory://`` has the empty key.

    Args:
        authkey: as the user gave it; a text stands for its UTF-8.
        address: the server's.
        create: make directory and key file of the server where there are none.

    Raises:
        AccessDenied: there is no key, or others can read its file.
        ValueError: the key is empty.
        TypeError: the argument is neither bytes nor text.
    """
    if authkey is not None:
        if isinstance(authkey, str):
            authkey = authkey.encode()
        elif not isinstance(authkey, (bytes, bytearray)):
            raise TypeError(f"authkey must be bytes or text, not {type(authkey).__name__}")
        if not authkey:
            raise ValueError("authkey is empty, and an empty key is known to everybody: leave it out, or give one")
        return bytes(authkey)
    address = parse(address)
    if address.kind == "memory":
        return b""
    path = os.environ.get("REGISTRY_AUTHKEY_FILE")
    if path:
        return read_authkey(path, "the file that REGISTRY_AUTHKEY_FILE names")
    place = Place(address)
    if create:
        place.ensure()
    try:
        return load_key(os.path.join(place._directory, "key"), create=create)
    except FileNotFoundError:
        raise AccessDenied(
            f"there is no key for {address.label}: give authkey=, or name its file in REGISTRY_AUTHKEY_FILE"
        ) from None


def read_authkey(path: str | os.PathLike[str], what: str = "the key file") -> bytes:
    """Return the key in a file that the user names, without one newline at its end.

    Args:
        path: the file.
        what: how the user is told of it.

    Raises:
        AccessDenied: it is not there, or others can read it.
        ValueError: it is empty.
    """
    try:
        # Its owner and links are the user's affair; a group may be given it to read.
        return _read_key(os.fspath(path), 0o027, follow=True)
    except FileNotFoundError:
        raise AccessDenied(f"{what} is not there: {os.fspath(path)}") from None


def _is_for_group(path: str, status: os.stat_result) -> bool:
    """Tell whether a server has let a group to its key, and through the directory that it lies in."""
    directory = os.stat(os.path.dirname(path))
    is_admitted = directory.st_mode & 0o010 and directory.st_gid == status.st_gid
    return bool(is_admitted) and status.st_mode & 0o077 == 0o040


def _read_key(path: str, refused: int, *, follow: bool) -> bytes:
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
    if not follow:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    try:
        fd = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise AccessDenied(f"the key file {path} is a symbolic link: put the file itself there") from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise AccessDenied(f"the key file {path} may not be read by this user") from None
        raise
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise AccessDenied(f"the key file {path} is no plain file")
        if sys.platform != "win32":
            if not follow and status.st_uid != os.geteuid():
                raise AccessDenied(
                    f"the key file {path} belongs to uid {status.st_uid}, and this process runs "
                    f"as uid {os.geteuid()}: run as that user, or give authkey="
                )
            if status.st_mode & refused and (follow or not _is_for_group(path, status)):
                raise AccessDenied(
                    f"the key file {path} is open to others (mode {status.st_mode & 0o777:o}), and "
                    f"whoever knows the key is let in: chmod 600 {path}"
                )
        key = os.read(fd, 65536)
    finally:
        os.close(fd)
    if follow and key.endswith(b"\n"):
        key = key[:-1]
    if not key:
        raise ValueError(f"the key file {path} is empty: write a key into it, or remove it")
    return key
