"""Look at a log without reading it: what its files say of themselves, in a time that does not grow with it.

So it is found whether files are missing, cut off at the head, of another version or of another log. That a byte has
changed in the middle of one only `_check` finds, which reads all of them. Nothing is changed, and a server may go on
meanwhile.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from registry._log import _format, _restore
from registry._log._files import Directory
from registry._log._format import NotSealed, Unreadable

HEAD = 1 << 20  # bytes; what a file says of itself is far shorter


@attrs.define
class Glance:
    """What is to be seen.

    Attributes:
        segments: How many there are; `snapshots` likewise, of `bytes` together.
        newest: The event of the newest snapshot, 0 if there is none.
        torn: Files with what was cut from the end of a segment.
        aside: Directories with logs that a restore has put aside.
        is_unfinished: Whether a restore was interrupted, which the next start goes on with.
        failures: What is wrong, for people.
    """

    segments: int = 0
    snapshots: int = 0
    bytes: int = 0
    newest: int = 0
    torn: list[Path] = attrs.field(factory=list)
    aside: list[Path] = attrs.field(factory=list)
    is_unfinished: bool = False
    failures: list[str] = attrs.field(factory=list)


def glance(directory: Directory, head: int = 0) -> Glance:
    """Look at a log.

    Args:
        directory: Where it is.
        head: The last event that is known to have been there.

    Raises:
        PermissionError: It may not be looked at.
    """
    found = Glance(is_unfinished=_restore.is_unfinished(directory))
    segments = directory.segments()  # before the snapshots: one that a server makes meanwhile explains that some go
    if directory.path.is_dir():
        found.torn = sorted(directory.path.glob("*.torn"))
        found.aside = sorted(directory.path.glob("before-restore-*"))
    for index, path in directory.snapshots():
        data = _begin(path, found)
        if data is None:
            continue
        found.snapshots += 1
        try:
            said = _format.peek_snapshot(data, directory.secret).index
            if said != index:
                raise Unreadable(f"it is that of event {said}")
            found.newest = index
        except (Unreadable, NotSealed) as error:
            found.failures.append(f"{path} cannot be used: {error}")
    for first, path in segments:
        data = _begin(path, found)
        if data is None:
            continue
        found.segments += 1
        try:
            said = _format.read_segment(data, directory.secret)[0].first
            if said != first:
                raise Unreadable(f"it says that it begins with event {said}")
        except NotSealed as error:
            found.failures.append(f"{path} cannot be read: {error}")
        except Unreadable as error:
            if first != segments[-1][0]:  # the head of the last one may be torn
                found.failures.append(f"{path} cannot be read: {error}")
    if found.is_unfinished:
        return found
    if segments and segments[0][0] > found.newest + 1:
        found.failures.append(
            f"what lies between event {found.newest}, up to which there is a snapshot, and event {segments[0][0]}, "
            "with which the segments begin, is missing"
        )
    if head > found.newest and not segments:
        found.failures.append(f"event {head} had been there, and the files end with event {found.newest}")
    return found


def _begin(path: Path, found: Glance) -> bytes | None:
    """Return how a file begins; None if a server has just removed it."""
    try:
        with path.open("rb") as file:
            data = file.read(HEAD)
            found.bytes += path.stat().st_size
            return data
    except FileNotFoundError:
        return None
