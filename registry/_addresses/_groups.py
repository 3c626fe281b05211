"""A server for the members of a group: who may enter its directory, and read its key.

Usually all is its user's alone. A server that is told a group lets it through the directory (by name, it cannot be
listed), to the key and to the socket; whatever else lies there stays closed. Where there are keys of lesser roles for
the members, that of the server is closed to them, too. The next server that is told no group closes all of it again.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from registry.errors import AccessDenied

if TYPE_CHECKING:
    from registry._addresses._names import Place


def gid_of(group: str) -> int:
    """Return the number of a group.

    Args:
        group: Its name, or the number itself.

    Raises:
        ValueError: There is no such group.
    """
    if sys.platform == "win32":
        raise ValueError("files have no groups on this system")
    import grp

    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        if group.isdigit():
            return int(group)
        raise ValueError(f"there is no group {group!r} on this host") from None


def admit(place: Place, gid: int, *, with_key: bool = True) -> None:
    """Let a group through a server's directory, and to the key in it, or not to that."""
    give(str(place.directory), gid, 0o710)
    if place.key.exists():
        give(str(place.key), gid, 0o640 if with_key else 0o600)


def exclude(place: Place) -> None:
    """Close a server's directory again that a group was let through."""
    if sys.platform != "win32" and place.directory.stat().st_mode & 0o010:
        if place.key.exists():
            place.key.chmod(0o600)
        place.directory.chmod(0o700)


def give(path: str, gid: int, mode: int) -> None:
    """Give a file to a group.

    Raises:
        AccessDenied: This user may not, not being a member.
    """
    if sys.platform == "win32":
        return
    try:
        os.chown(path, -1, gid, follow_symlinks=False)
    except PermissionError:
        raise AccessDenied(
            f"{path} cannot be given to the group {gid}, of which this user is no member: usermod -aG {gid} USER"
        ) from None
    os.chmod(path, mode)


def closed_to(path: str, gid: int) -> str:
    """Return the first directory above a path that members of a group cannot pass, as far as modes tell; or empty."""
    above = os.path.dirname(os.path.abspath(path))
    for directory in [*reversed(_parents(above)), above]:
        found = os.stat(directory)
        if not found.st_mode & (0o010 if found.st_gid == gid else 0o001):
            return directory
    return ""


def _parents(path: str) -> list[str]:
    found = []
    while path != os.path.dirname(path):
        path = os.path.dirname(path)
        found.append(path)
    return found
