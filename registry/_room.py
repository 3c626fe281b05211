"""How much memory the server's process may take, and whether there is room for more.

The engine must not measure anything, since a replay would find something else. So it is the host that refuses a call
for want of room, before the engine hears of it, and what tells the host is here.

What counts is the memory of this process that no other has, and the large values that lie in files of its shelf, less
what it had when it began. It is looked at when so many bytes have come that the limit may have been reached, and at
most ten times a second otherwise: a look is one read of a file that stays open.

Up to the limit every call is taken. In the eighth above it only small ones are, so that clients can put away what they
hold by whatever methods their classes have for that. Beyond that, only calls that free something are.

What Python and the C library have freed they may keep for later. So once something was freed the C library is asked to
give back what it can, at most once a second, before a call is refused.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import attrs

from registry._limits import Limits

if TYPE_CHECKING:
    from registry._shelf import Shelf

__all__ = ["Group", "Memory", "Room", "ServersRoom", "allowed", "chosen", "group_of", "lines_of", "open_files"]

SMALL: Final = 1024  # bytes of arguments of a call that may still be made a little above the limit
PERIOD: Final = 0.1  # seconds for which a look counts
TRIM: Final = 1.0  # seconds between two requests to give back what was freed
SHARE: Final = 0.8  # of what the process may have
WITH_LOG: Final = 0.4
LEAST: Final = 8 << 20  # bytes that there is room for in any case

_NO_LIMIT: Final = 1 << 60  # what is above is how a control group of the first version says that there is none
_STATM: Final = "/proc/self/statm"
_GROUP: Final = "/proc/self/cgroup"
_GROUPS: Final = "/sys/fs/cgroup"


class Memory:
    """The memory that this process has for itself alone.

    Raises:
        OSError: This system does not tell.
    """

    def __init__(self, path: str = _STATM) -> None:
        # Open for as long as it lives: it must be told also when no further file can be opened.
        self._file = os.open(path, os.O_RDONLY)
        self._page = os.sysconf("SC_PAGE_SIZE")

    def used(self) -> int:
        """Return it in bytes."""
        fields = os.pread(self._file, 128, 0).split()
        return (int(fields[1]) - int(fields[2])) * self._page

    def close(self) -> None:
        """Look no more."""
        os.close(self._file)


class Room:
    """Whether there is room for what clients bring.

    Args:
        limit: How many bytes may be taken.
        used: Tells how many are.
        trim: Has what was freed given back to the system; None is the C library's own.

    Attributes:
        limit: As given.
        used: As given.
        left: How many bytes may come before the limit can have been reached. Whoever takes some takes them off here.
        until: When it is to be looked again in any case, in seconds.
    """

    def __init__(self, limit: int, used: Callable[[], int], trim: Callable[[], object] | None = None) -> None:
        self.limit = limit
        self.used = used
        self._trim = trim if trim is not None else _trimmer()
        self._reserve = limit // 8
        self.until = 0.0
        self.left = 0  # bytes that may come before the limit can have been reached
        self._level = 0
        self._freed = True
        self._trimmed = -TRIM

    def refuses(self, now: float, length: int) -> bool:
        """Tell whether a call that may add to what is held finds no room.

        Args:
            now: Seconds, of a clock that does not run backwards.
            length: Bytes of its arguments, which have been taken.
        """
        if self.left < 0 or now >= self.until:
            self._look(now)
        return self._level > (1 if length <= SMALL else 0)

    def has_for(self, now: float, length: int) -> bool:
        """Tell whether there is room for so many bytes that are still to be taken."""
        if self.left < length or now >= self.until:
            self._look(now)
        return self.left >= length

    def note_freed(self) -> None:
        """Take note of a call that may have freed something."""
        self._freed = True

    def _look(self, now: float) -> None:
        used = self.used()
        if used > self.limit and self._freed and now - self._trimmed >= TRIM:
            self._freed, self._trimmed = False, now
            self._trim()
            used = self.used()
        self.until = now + PERIOD
        self.left = self.limit - used
        self._level = 0 if self.left >= 0 else 1 if self.left >= -self._reserve else 2


class ServersRoom(Room):
    """The room of the server of this process. What is taken when it is made does not count.

    Args:
        limit: How many bytes may be taken from now on; None is `allowed`.
        log: Whether there is a log.

    Attributes:
        shelf: Where its large values lie, once there is one.

    Raises:
        OSError: This system does not tell how much memory a process has.
    """

    def __init__(self, limit: int | None, *, log: bool) -> None:
        self._memory = Memory()
        self._before = self._memory.used()
        self.shelf: Shelf | None = None
        super().__init__(max(LEAST, allowed(log) - self._before) if limit is None else limit, self._taken)

    def _taken(self) -> int:
        return max(0, self._memory.used() - self._before) + (self.shelf.held if self.shelf is not None else 0)

    def close(self) -> None:
        """Look no more."""
        self._memory.close()


def _trimmer() -> Callable[[], object]:
    """Return what has the C library give back what was freed; nothing where it has no such function."""
    if sys.platform == "linux":
        try:
            trim = ctypes.CDLL(None).malloc_trim
        except (OSError, AttributeError):
            return lambda: None
        return lambda: trim(0)
    return lambda: None


class Group(NamedTuple):
    """The memory of a control group, in bytes.

    Attributes:
        limit: What it may have; `used` what it has.
        killed: How many of its processes were killed since they wanted more.
    """

    limit: int
    used: int
    killed: int


def chosen(limits: Limits) -> Limits:
    """Return limits with a number in the place of those that follow from how many files may be open."""
    files = open_files()
    strangers = max(16, min(1024, files // 4)) if limits.strangers is None else limits.strangers
    sessions = max(16, min(4096, files // 2)) if limits.sessions is None else limits.sessions
    return attrs.evolve(limits, strangers=strangers, sessions=sessions)


def open_files() -> int:
    """Return how many files this process may have open."""
    try:
        import resource
    except ImportError:  # as on Windows
        return sys.maxsize
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def allowed(log: bool) -> int:
    """Return how many bytes of memory this process may take by default: a part of the machine's, or of its group's.

    Args:
        log: Whether there is one, which a second process will fold that holds as much again.
    """
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        group = group_of(Path(_GROUP).read_text(encoding="utf-8", errors="replace"), Path(_GROUPS), tightest=True)
    except OSError:
        group = None
    if group is not None:
        whole = min(whole, group.limit)
    return int(whole * (WITH_LOG if log else SHARE))


def group_of(text: str, groups: Path, *, tightest: bool = False) -> Group | None:
    """Return the limit that a process is under, of all groups that it is part of; None if there is none.

    Args:
        text: What ``/proc/PID/cgroup`` says.
        groups: Where the control groups are.
        tightest: Return the lowest of them, and not the one that leaves the least.
    """
    found: list[Group] = []
    for line in text.splitlines():
        number, kinds, path = line.split(":", 2)
        if number == "0" and not kinds:
            found += _limits(groups, path, "memory.max", "memory.current", "memory.events")
        elif "memory" in kinds.split(","):
            root = groups / "memory"
            found += _limits(root, path, "memory.limit_in_bytes", "memory.usage_in_bytes", "memory.oom_control")
    return min(found, key=lambda group: group.limit if tightest else group.limit - group.used, default=None)


def _limits(root: Path, path: str, limit: str, used: str, events: str) -> Iterator[Group]:
    """Yield the limits of a group and of all above it."""
    group = root / path.lstrip("/")
    # From within a container its own group may be shown as the root, or not be there.
    while root in (group, *group.parents):
        try:
            most = (group / limit).read_text().strip()
            if most.isdigit() and int(most) < _NO_LIMIT:
                killed = [line.split()[1] for line in lines_of(group / events) if line.startswith("oom_kill ")]
                yield Group(int(most), int((group / used).read_text()), int(killed[0]) if killed else 0)
        except (OSError, ValueError):
            pass
        group = group.parent


def lines_of(path: Path) -> list[str]:
    """Return the lines of a file of the system's; none where it is not there."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
