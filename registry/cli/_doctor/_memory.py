"""Memory that processes share: large values and the version words lie there; and what else this system can do."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from registry.cli._common import size
from registry.cli._doctor._findings import Finding, note, ok, problem

if TYPE_CHECKING:
    from registry.cli._doctor._scene import Scene

NEARLY_FULL = 0.9
LARGER = "docker run --shm-size=1g, or shm_size: 1gb in a compose file"


def shared_memory(scene: Scene) -> Iterator[Finding]:
    """Check whether there is a tmpfs for large values, how large it is, and whether it may be used."""
    from registry._addresses._files import file_system
    from registry._shelf import LARGE, SMALL_TMPFS

    root = scene.memory
    if sys.platform != "linux":
        yield note("shared memory", "this system has no file system for it: large values go through the socket")
        return
    if not os.access(root, os.W_OK | os.X_OK):
        lack = f"{root} cannot be written" if os.path.isdir(root) else f"there is no {root}"
        cure = f"mount -t tmpfs -o mode=1777 tmpfs {root}"
        yield note("shared memory", f"{lack}: values of {size(LARGE)} and more go through the socket", cure)
        return
    found = os.statvfs(root)
    whole, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    told = f"{root} has {size(whole)}, {size(free)} of them free"
    kind = file_system(root)
    if kind and kind != "tmpfs":
        yield note("shared memory", f"{root} is no memory, but {kind}: large values go over a disk", LARGER)
    if whole < SMALL_TMPFS:
        yield note(
            "shared memory",
            f"{told}; a value takes half of what is free at most, and what finds no room goes through the socket",
            f"{LARGER}; on a host of your own: mount -o remount,size=1g {root}",
        )
    elif free < whole * (1 - NEARLY_FULL):
        yield note("shared memory", f"{told}; large values that find no room go through the socket", f"ls -la {root}")
    else:
        yield ok("shared memory", told)
    yield from _own_folder(root)
    yield from _files(scene)


def _own_folder(root: str) -> Iterator[Finding]:
    """Look at the folder of the version words, which nobody else may have made."""
    folder = os.path.join(root, f"registry-{os.geteuid()}")
    try:
        found = os.lstat(folder)
    except OSError:
        return
    if found.st_uid != os.geteuid() or found.st_mode & 0o170077 != 0o040000:
        yield problem(
            "shared memory", f"{folder} is not this user's alone, and is not used", f"rm -r {folder}, as root"
        )


def _files(scene: Scene) -> Iterator[Finding]:
    from registry._shelf import is_visible

    path = str(scene.status.get("files", ""))
    if path and not is_visible(path):
        yield note(
            "shared memory",
            f"the server's large values lie in {path}, which this process cannot use: they are sent through the socket",
            "run both as one user, in one container or with one /dev/shm (docker run --ipc=container:NAME)",
        )


def reads(scene: Scene) -> Iterator[Finding]:
    """Tell whether this process answers reads of what has not changed by itself, and if not, why."""
    from registry import _words
    from registry.cli._doctor._scene import no_words

    if scene.reads:
        yield note("reads", f"each is a round trip: {scene.reads}")
    elif scene.reads == "":
        yield ok("reads", "what has not changed is read without a call")
    elif not _words.IS_SUPPORTED:
        yield note("reads", f"each is a round trip: {no_words()}")


def deaths(scene: Scene) -> Iterator[Finding]:
    """Tell how the server learns that a client has died."""
    if scene.address is None or scene.place is None:
        return
    after = f" of {scene.lease:g} s" if scene.lease else ""
    late = f"what a client holds is freed when its lease{after} has run out, not at its death"
    if scene.address.path is None:
        yield note("deaths", f"{late}, since it comes over TCP", "unix:///PATH, or a name, on one host")
    elif not hasattr(os, "pidfd_open"):
        yield note("deaths", f"{late}: this system does not tell of the end of a process")
    elif scene.lease:
        found = f"{late}, since the server cannot see this process: it is in another container"
        yield note("deaths", found, "docker run --pid=host for both, or pid: host in a compose file")
    else:
        yield ok("deaths", "what a client of this host holds is freed at its death")
