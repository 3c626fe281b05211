"""Put another log in the place of the one that is there, so that a crash leaves either of them whole.

The new files are written into a directory beside, ``restore.new``. Until that is called ``restoring`` the old log is
what counts; from then on the new one, whatever happens: whoever takes the directory next goes on where it was
interrupted (`finish`). That is in two phases, and each of their steps can be made again:

1. ``restoring/`` is there: what lies beside it is the old log, and goes into ``before-restore-N/``.
2. ``restored/`` is there, the same under another name: what is in it goes to its place; then the epoch file is told.

Epochs only grow, so that fencing tokens never come twice: lives are counted on from above both, what this place has
counted and what the backup knows, and by a step at that. A backup does not know how many lives have followed it: in
another place, or in this one if its count was lost with its disk.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import msgspec

from registry._addresses import EpochFile
from registry._addresses._files import sync_directory
from registry._log import _recovery
from registry._log._files import NAMED, Directory
from registry.errors import RegistryError

STEP = 1000  # lives that are left out

_NEW, _RESTORING, _RESTORED, _PLAN = "restore.new", "restoring", "restored", "plan"


class Plan(msgspec.Struct, frozen=True):
    """What is to be put in place: up to which event, with which sum, counting from which epoch, the old log where."""

    index: int
    chain: int
    epoch: int
    aside: str


def restore(
    source: Directory, index: int, chain: int, number: int, directory: Directory, epoch: EpochFile
) -> Path | None:
    """Put a log in the place of the one that is there. Its directory is taken.

    Args:
        source: The new one; it has been checked.
        index: Its last event, and the sum of that event's record.
        number: The highest epoch in it.
        directory: Where it is to be.
        epoch: The epoch file that belongs there.

    Returns:
        Where the old log is now, None if there was none.

    Raises:
        RegistryError: The epoch file is damaged, or the source is no longer what it was; nothing was changed.
    """
    finish(directory, epoch)
    plan = Plan(index, chain, max(epoch.counted(), number) + STEP, _aside(directory))
    stage = directory.path / _NEW
    try:
        stage.mkdir(mode=0o700)
        staged = Directory(stage)
        for _, path in (*source.snapshots(), *source.segments()):
            staged.put(stage / path.name, [source.read(path)])
        if _recovery.reach(staged)[:2] != (index, chain):
            raise RegistryError(f"{source.path} has been changed while it was read; nothing was done")
        staged.put(stage / _PLAN, [msgspec.json.encode(plan)])
        stage.rename(directory.path / _RESTORING)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    sync_directory(os.fspath(directory.path / _PLAN))
    finish(directory, epoch)
    aside = directory.path / plan.aside
    return aside if aside.is_dir() else None


def is_unfinished(directory: Directory) -> bool:
    """Tell whether a backup is being put in place, or was when that was interrupted."""
    return (directory.path / _RESTORING).is_dir() or (directory.path / _RESTORED).is_dir()


def finish(directory: Directory, epoch: EpochFile) -> bool:
    """Go on with a restore that was interrupted, and tell whether there was one. The directory is taken."""
    shutil.rmtree(directory.path / _NEW, ignore_errors=True)
    restoring, restored = directory.path / _RESTORING, directory.path / _RESTORED
    if restoring.is_dir():
        aside = directory.path / _plan(restoring).aside
        for path in _log_files(directory.path):
            aside.mkdir(mode=0o700, exist_ok=True)
            path.rename(aside / path.name)
        if aside.is_dir():
            _sync(aside, directory.path)
        restoring.rename(restored)
        _sync(directory.path)
    if not restored.is_dir():
        return False
    if (restored / _PLAN).exists():  # else all has been done but for the last step
        plan = _plan(restored)
        for path in _log_files(restored):
            path.rename(directory.path / path.name)
        _sync(directory.path, restored)
        epoch.put_back(plan.epoch, time.time(), plan.index, plan.chain)
        (restored / _PLAN).unlink()
    restored.rmdir()
    _sync(directory.path)
    return True


def _plan(stage: Path) -> Plan:
    return msgspec.json.decode((stage / _PLAN).read_bytes(), type=Plan)


def _aside(directory: Directory) -> str:
    number = 1
    while (directory.path / f"before-restore-{number}").exists():
        number += 1
    return f"before-restore-{number}"


def _log_files(path: Path) -> list[Path]:
    """Return the files of a log, and what was cut from them or not finished."""
    return sorted(each for each in path.iterdir() if NAMED.match(each.name) and not each.is_dir())


def _sync(*directories: Path) -> None:
    for directory in directories:
        sync_directory(os.fspath(directory / "."))
