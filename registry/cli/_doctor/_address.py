"""Where the server is to be found, in which directory, and whether anybody is there."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from registry import errors
from registry.cli import _common
from registry.cli._doctor._findings import Finding, group_of, note, ok, problem, refused

if TYPE_CHECKING:
    from registry._addresses import Place
    from registry.cli._doctor._scene import Scene


def address(scene: Scene) -> Iterator[Finding]:
    """Check that the address means something, and tell what."""
    if scene.trouble is not None:
        yield refused("address", scene.trouble)
        return
    if scene.address is None:
        return
    source = ""
    if scene.asked is None:
        source = ", as REGISTRY_ADDRESS says" if os.environ.get("REGISTRY_ADDRESS") else ", since none is given"
    if scene.address.kind == "memory":
        found = f"memory:// is a server within the process that uses it{source}; there is nothing to look at"
        yield note("address", found, "registry doctor -a NAME")
        return
    named = f", the socket of the name {scene.address.name!r}" if scene.address.name is not None else ""
    yield ok("address", f"{scene.address}{named}{source}")
    if scene.address.name is not None and os.environ.get("REGISTRY_HOME"):
        yield note(
            "address",
            "REGISTRY_HOME is set here; a process without it, such as a cron job, looks elsewhere for a server of this "
            "name",
            f"set REGISTRY_HOME={os.environ['REGISTRY_HOME']} for all of them, or for none",
        )


def directory(scene: Scene) -> Iterator[Finding]:
    """Check that the server's directory is its user's alone."""
    from registry._addresses._files import check_parent, check_private
    from registry._starter import tidy

    place = scene.place
    if place is None:
        return
    path = str(place.directory)
    try:
        check_private(path)
        check_parent(os.path.dirname(path))
    except FileNotFoundError:
        yield _missing(path)
        return
    except errors.AccessDenied as error:
        yield refused("directory", error)
        return
    if not os.access(path, os.W_OK | os.X_OK):
        yield problem("directory", f"{path} cannot be written by this process", f"chmod 700 {path}")
        return
    found = os.stat(path)
    if found.st_mode & 0o010 and sys.platform != "win32":
        yield ok("directory", f"{tidy(path)}, open to its user, and to be passed by the group {group_of(found.st_gid)}")
    else:
        yield ok("directory", f"{tidy(path)}, open to its user alone")


def _missing(path: str) -> Finding:
    above = path
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    if os.access(above, os.W_OK | os.X_OK):
        return ok("directory", f"{path} is not there yet; the first server makes it")
    return problem(
        "directory",
        f"{path} is not there, and {above} cannot be written by this process",
        "set REGISTRY_HOME to a directory that this user may write to",
    )


def server(scene: Scene) -> Iterator[Finding]:
    """Check whether the server runs and answers."""
    place, status = scene.place, scene.status
    if place is None or scene.address is None:
        return
    if status:
        since = _common.clock(status["since"])
        yield ok("server", f"pid {status['pid']} on {status['host']} since {since}, {_holds(status)}")
    elif isinstance(scene.error, errors.ServerNotFound):
        yield _absent(scene, place, scene.error)
    elif isinstance(scene.error, errors.AccessDenied):
        if scene.secret is None:
            yield note("server", "it was not asked, since there is no key to show to it")
        else:
            where = "the key" if scene.no_tls is None else "TLS"
            yield problem("server", f"this process is not let in: {_common.text_of(scene.error)}", f"see {where} below")
    elif scene.error is not None:
        yield problem("server", _common.text_of(scene.error), f'see {place.log}, and "registry restart{scene.option}"')
    if scene.address.path is not None:
        yield from _socket(scene.address.path)


def _holds(status: dict[str, object]) -> str:
    sessions = int(str(status["sessions"])) - 1  # but this one
    return f"{_common.plural(sessions, 'session')}, {_common.plural(int(str(status['objects'])), 'object')}"


def _absent(scene: Scene, place: Place, error: errors.ServerNotFound) -> Finding:
    """Tell why nobody answers."""
    from registry._starter import tidy

    if scene.left is not None:
        gone = (
            ""
            if scene.address is None or scene.address.path is None or place.socket.exists()
            else "; its socket is gone"
        )
        return problem(
            "server",
            f"pid {scene.left} is the server and does not answer{gone}: {error.reason}",
            f"look into {tidy(place.log)}; kill {scene.left} ends it",
        )
    if scene.address is None or scene.address.name is None:
        return problem("server", str(error.reason), f"registry serve -a {scene.label}")
    last = ""
    if "pid" in scene.notes and "ended" not in scene.notes:
        last = f"; the last one (pid {scene.notes['pid']}) was killed, or went with the machine, see {tidy(place.log)}"
    return note("server", f"none runs, and the first connect() starts one{last}")


def _socket(path: str) -> Iterator[Finding]:
    try:
        found = os.lstat(path)
    except OSError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        yield problem("socket", f"{path} is there and is no socket", f"mv {path} {path}.old")
    elif found.st_mode & 0o007:
        mode = f"{found.st_mode & 0o777:o}"
        yield note("socket", f"{path} can be connected to by every user (mode {mode})", f"chmod 600 {path}")
