"""The log: where it is, whether it can grow, and whether it looks whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry import errors
from registry.cli import _common, _servers
from registry.cli._common import size
from registry.cli._doctor._findings import Finding, note, ok, problem, refused

if TYPE_CHECKING:
    from registry._log._glance import Glance
    from registry.cli._doctor._scene import Scene

LITTLE = 64 << 20  # bytes of free space below which the log may soon not grow any more


def log(scene: Scene) -> Iterator[Finding]:
    """Check the files that survive the server, without reading them."""
    if scene.place is None:
        return
    try:
        mode = str(scene.status.get("log") or _servers.option(scene.place, "log") or "memory")
        state = scene.about.get("state") or _servers.option(scene.place, "state")
    except click.UsageError as error:
        yield problem("log", error.format_message(), "registry serve refuses it, too: mend the file")
        return
    except errors.RegistryError as error:
        yield refused("log", error)
        return
    path = Path(state) if state else scene.place.state
    epoch = path / "epoch" if state and path != scene.place.state else scene.place.epoch
    yield from _kept(scene, mode, path)
    if mode != "memory":
        yield from _directory(path)
        yield from _room(path)
    yield from files(path, epoch, scene.option)


def _kept(scene: Scene, mode: str, path: Path) -> Iterator[Finding]:
    from registry._log._files import Directory
    from registry._starter import tidy

    if mode == "memory":
        if not _is_readable(path) or Directory(path).is_empty:
            yield ok("log", "none is kept: what is shared ends with the server (serve --log process keeps one)")
        else:
            found = f"none is kept, though there is one in {tidy(path)}: what is in it is not served"
            yield note("log", found, "registry serve --log process")
        return
    waiting = int(scene.status.get("events", 0)) - int(scene.status.get("safe", 0))
    behind = f"; {waiting} events wait to be written" if waiting else ""
    yield ok("log", f"{mode}, in {tidy(path)}{behind}")


def _is_readable(path: Path) -> bool:
    return not path.exists() or os.access(path, os.R_OK | os.X_OK)


def _directory(path: Path) -> Iterator[Finding]:
    try:
        found = path.lstat()
    except FileNotFoundError:
        yield ok("log", f"{path} is not there yet; the first server with a log makes it")
        return
    except OSError as error:
        yield problem("log", f"{path} cannot be looked at: {error.strerror}")
        return
    if hasattr(os, "geteuid") and found.st_mode & 0o077:
        mode = f"{found.st_mode & 0o777:o}"
        yield problem(
            "log", f"{path} is open to others (mode {mode}), with all values that are shared", f"chmod 700 {path}"
        )
    if not os.access(path, os.W_OK | os.X_OK):
        yield problem("log", f"{path} cannot be written by this process", f"ls -ld {path}")


def _room(path: Path) -> Iterator[Finding]:
    """Check that there is room for the log to grow."""
    above = path
    while not above.exists():
        above = above.parent
    free = shutil.disk_usage(above).free
    if free < LITTLE:
        yield problem("log", f"{size(free)} are free for {path}; replies are held once it is full", f"df -h {above}")
    else:
        yield ok("log", f"{size(free)} are free for it")


def files(path: Path, epoch: Path, where: str = "") -> Iterator[Finding]:
    """Look at the heads of the files of a log, and at the count of the lives that have written it.

    Args:
        path: The directory.
        epoch: The file with the count.
        where: What tells ``registry state`` that this log is meant.
    """
    from registry._addresses import EpochFile
    from registry._log._files import Directory
    from registry._log._glance import glance

    try:
        counted = EpochFile(epoch).counted()
        known = EpochFile(epoch).read()
        found = glance(Directory(path), known.head if known is not None else 0)
    except errors.RegistryError as error:
        yield refused("log", error)
        return
    except PermissionError as error:
        yield problem("log", f"{error.filename} cannot be looked at: {error.strerror}", f"ls -ld {path}")
        return
    cure = f"registry state verify{where}, and registry state restore BACKUP"
    for failure in found.failures:
        yield problem("log", failure, cure)
    if found.segments or found.snapshots:
        yield from _seen(found, counted, where)


def _seen(found: Glance, counted: int, where: str) -> Iterator[Finding]:
    if not found.failures:
        several = f"{_common.plural(found.segments, 'segment')} and {_common.plural(found.snapshots, 'snapshot')}"
        yield ok(
            "log",
            f"{several} of {size(found.bytes)}, written by {'one life' if counted == 1 else f'{counted} lives'}; what "
            f'they say of themselves is whole, "registry state verify{where}" reads all of them',
        )
    if found.is_unfinished:
        yield note("log", "a restore was interrupted; the next start goes on with it", f"registry restart{where}")
    for path in found.torn:
        yield note(
            "log", f"{path} was cut off in writing, and put aside", f"rm {path}, once nobody misses what was lost"
        )
    for path in found.aside:
        yield note("log", f"{path} has what a restore has replaced", f"rm -r {path}, once the restored state is good")
