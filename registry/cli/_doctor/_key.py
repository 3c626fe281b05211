"""The secret: whether it is there, whether it is the server's, and who else can read it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from registry import errors
from registry.cli import _servers
from registry.cli._doctor._findings import Finding, group_of, note, ok, problem, refused, user_of

if TYPE_CHECKING:
    from registry.cli._doctor._scene import Scene


def key(scene: Scene) -> Iterator[Finding]:
    """Check the file that a client of this process takes its key from."""
    from registry._door import weakness

    place = scene.place
    if place is None:
        return
    named = os.environ.get("REGISTRY_AUTHKEY_FILE")
    path = Path(named) if named else place.key
    if scene.secret is None:
        if not named and not os.path.lexists(path):
            yield _missing(scene, path)
        elif scene.no_key is not None:
            yield refused("key", scene.no_key)
        return
    if isinstance(scene.error, errors.AccessDenied) and scene.no_tls is None:
        given = _servers.option(place, "authkey-file")
        cure = f"export REGISTRY_AUTHKEY_FILE={given or 'FILE, with the key of that server in it'}"
        yield problem("key", f"the server refuses the key in {path}", cure)
    elif fault := weakness(scene.secret):
        cure = f"umask 077; head -c 32 /dev/urandom | base64 > {path}, and restart the server"
        yield note("key", f"the key in {path} {fault}", cure)
    yield from readers(path)
    role = scene.status.get("role", "admin")
    if role != "admin":
        able = "look, and change nothing" if role == "read" else "do all but delete, release by force and stop"
        yield ok("key", f"it gives the role {role!r}: this process may {able}")


def _missing(scene: Scene, path: Path) -> Finding:
    if scene.address is not None and scene.address.name is not None and not scene.status:
        return ok("key", f"{path} is not there yet; the first server makes it")
    return problem(
        "key",
        f"there is none for {scene.label}: neither {path} nor a file that REGISTRY_AUTHKEY_FILE names",
        f"export REGISTRY_AUTHKEY_FILE=FILE, with that server's key; where none runs, registry serve -a {scene.label}",
    )


def readers(path: Path) -> Iterator[Finding]:
    """Tell who can read a key file besides its owner and root."""
    if sys.platform == "win32":
        yield note("key", f"{path}; who can read it is not looked at on this system")
        return
    found = path.stat()
    owner = user_of(found.st_uid)
    if _has_list(path):
        yield note("key", f"{path} has an access control list, which may let others read it", f"getfacl {path}")
    elif found.st_mode & 0o040:
        yield note("key", f"{path} of {owner} is readable by the group {group_of(found.st_gid)}")
    else:
        yield ok("key", f"{path}, readable by {owner} alone")


def _has_list(path: Path) -> bool:
    """Tell whether more than its mode says who may read a file."""
    if not hasattr(os, "listxattr"):
        return False
    try:
        return "system.posix_acl_access" in os.listxattr(path)
    except OSError:
        return False
