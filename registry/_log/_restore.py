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
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import attrs
import msgspec
from msgspec import structs

from registry._addresses import EpochFile
from registry._addresses._files import sync_directory
from registry._log import _format, _pickles, _recovery
from registry._log._files import NAMED, Directory
from registry._log._format import FORMAT, Unreadable
from registry._log._secret import Secret
from registry.errors import RegistryError

STEP = 1000  # lives that are left out

_NEW, _RESTORING, _RESTORED, _PLAN = "restore.new", "restoring", "restored", "plan"


class Plan(msgspec.Struct, frozen=True):
    """What is to be put in place: up to which event, with which sum, counting from which epoch, the old log where."""

    index: int
    chain: int
    epoch: int
    aside: str


def is_own(source: Directory, secret: Secret) -> bool:
    """Tell whether a log was written with a secret, every head, record and snapshot of it. It is whole."""
    source.judged_by(secret)
    try:
        _recovery.reach(source)
    except _recovery.ForgedLog:
        return False
    finally:
        source.judged_by(None)
    return True


@attrs.frozen
class Restored:
    """What came of it.

    Attributes:
        aside: Where the old log is now, None if there was none.
        own: Whether the new one was written with the secret of this directory.
        closed: How many pickles of which stamps nobody can open.
    """

    aside: Path | None
    own: bool
    closed: dict[str, int]


def restore(
    source: Directory,
    index: int,
    chain: int,
    number: int,
    directory: Directory,
    epoch: EpochFile,
    trust: Collection[str] = (),
) -> Restored:
    """Put a log in the place of the one that is there. Its directory is taken.

    One that was not written with the secret of this directory comes from elsewhere: whoever made it may have put stamps
    on pickles as he liked. It is sealed anew, and begins to use another stamp, so that no pickle in it is opened by
    anybody. Those of the stamps that are trusted are.

    Args:
        source: The new one; it has been checked.
        index: Its last event, and the sum of that event's record.
        number: The highest epoch in it.
        directory: Where it is to be.
        epoch: The epoch file that belongs there.
        trust: The stamps of pickles that may be opened again.

    Raises:
        RegistryError: The epoch file is damaged, or the source is no longer what it was; nothing was changed.
    """
    finish(directory, epoch)
    plan = Plan(index, chain, max(epoch.counted(), number) + STEP, _aside(directory))
    secret = directory.own_secret()
    pickles = _pickles.in_log(source)
    own = is_own(source, secret)
    unknown = set(trust) - set(pickles)
    if unknown:
        raise RegistryError(
            f"{source.path} holds no pickles of {', '.join(sorted(unknown))}, only of "
            f"{', '.join(sorted(pickles)) or 'nobody'}. Nothing was changed"
        )
    files = _files(source) if own and not trust else _sealed_anew(source, secret, own, pickles, trust)
    stage = directory.path / _NEW
    try:
        stage.mkdir(mode=0o700)
        staged = Directory(stage)
        staged.judged_by(secret)
        for name, content in files:
            staged.put(stage / name, content)
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
    closed = {stamp: count for stamp, count in pickles.items() if count and not (own or stamp in trust)}
    return Restored(aside if aside.is_dir() else None, own, closed)


def _files(source: Directory) -> Iterator[tuple[str, list[bytes]]]:
    """Yield names and contents of the files of a log, as they are."""
    for _, path in (*source.snapshots(), *source.segments()):
        yield path.name, [source.read(path)]


def _sealed_anew(
    source: Directory, secret: Secret, own: bool, stamps: Iterable[str], trust: Collection[str]
) -> Iterator[tuple[str, list[bytes | memoryview]]]:
    """Yield names and contents of the files of a log, as they are written with another secret, or with other trust."""
    origin, others = _pickles.drawn(), dict.fromkeys(stamps, False)
    if own:
        newest = _recovery.newest_snapshot(source, lambda text: None)
        extent = _recovery.Extent() if newest is None else _recovery.Extent.of(newest[1])
        for _ in _recovery.walk(source, extent, None):
            pass
        origin, others = extent.origin, dict(extent.others)
    others.update(dict.fromkeys(trust, True))
    others.pop(origin, None)
    change = {"origin": origin, "others": others}
    seals: dict[int, bytes] = {}
    seal = b""
    for _, path in source.segments():
        data = source.read(path)
        try:
            content, seal = _format.sealed_anew(data, secret, seal, change, seals)
        except Unreadable:
            content = data  # the last one, torn at its head
        yield path.name, [content]
    for index, path in source.snapshots():
        try:
            picture, image = _format.read_snapshot(source.read(path))
        except Unreadable:
            continue  # one that is not needed
        picture = structs.replace(picture, format=FORMAT, seal=seals.get(index, b""), **change)
        yield path.name, list(_format.pack_snapshot(picture, image, secret))


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
