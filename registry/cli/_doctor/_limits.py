"""What the system allows the server, and whom it goes with: its control group, and its open files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from registry.cli._doctor._findings import Finding, note, ok, problem, size

if TYPE_CHECKING:
    from registry.cli._doctor._scene import Scene

NEARLY = 0.9  # of a limit
NONE = 1 << 60  # bytes; what is above is how a control group of the first version says that there is no limit


class Memory(NamedTuple):
    """The memory of a control group, in bytes.

    Attributes:
        limit: What it may have; `used` what it has.
        killed: How many of its processes were killed since they wanted more.
    """

    limit: int
    used: int
    killed: int


def control_group(scene: Scene) -> Iterator[Finding]:
    """Check how much memory the server may have, and which service it ends with."""
    from registry._starter import unit

    pid = scene.pid
    if scene.status and pid is None:
        yield note("control group", "not looked at, since the server is in another container, or on another host")
        return
    whose = "the server" if pid is not None else "a server that is started from here"
    table = Path(scene.proc, str(pid) if pid is not None else "self", "cgroup")
    try:
        text = table.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return  # this system has none, or the process has just ended
    memory = memory_of(text, Path(scene.groups))
    if memory is not None:
        told = f"{whose} may have {size(memory.limit)} of memory, of which its group has {size(memory.used)}"
        cure = "raise MemoryMax= of its unit, or --memory of its container"
        if memory.killed:
            yield problem("control group", f"{told}; {memory.killed} processes of it were killed for want of it", cure)
        elif memory.used > memory.limit * NEARLY:
            yield problem("control group", f"{told}; the server is killed when it wants more", cure)
        else:
            yield note("control group", told)
    service = unit(str(table))
    on_demand = bool(scene.notes.get("unit")) if pid is not None else bool(service)
    if service and on_demand:
        is_named = scene.address is not None and scene.address.name is not None
        unit_of_its_own = f"registry@{scene.label}" if is_named else f"one with registry serve -a {scene.label}"
        cure = f"systemctl enable --now {unit_of_its_own}, a unit of its own"
        yield note("control group", f"{whose} is part of {service}, and ends with it", cure)
    elif memory is None:
        told = f"{whose} is part of {service}" if service else "there is no service that the server would end with"
        yield ok("control group", f"{told}, and no limit to its memory")


def memory_of(text: str, groups: Path) -> Memory | None:
    """Return the tightest limit that a process is under; None if there is none.

    Args:
        text: What ``/proc/PID/cgroup`` says.
        groups: Where the control groups are.
    """
    found: list[Memory] = []
    for line in text.splitlines():
        number, kinds, path = line.split(":", 2)
        if number == "0" and not kinds:
            found += _limits(groups, path, "memory.max", "memory.current", "memory.events")
        elif "memory" in kinds.split(","):
            root = groups / "memory"
            found += _limits(root, path, "memory.limit_in_bytes", "memory.usage_in_bytes", "memory.oom_control")
    return min(found, key=lambda memory: memory.limit - memory.used, default=None)


def _limits(root: Path, path: str, limit: str, used: str, events: str) -> Iterator[Memory]:
    """Yield the limits of a group and of all above it."""
    group = root / path.lstrip("/")
    # From within a container its own group may be shown as the root, or not be there.
    while root in (group, *group.parents):
        try:
            most = (group / limit).read_text().strip()
            if most.isdigit() and int(most) < NONE:
                killed = [line.split()[1] for line in _lines(group / events) if line.startswith("oom_kill ")]
                yield Memory(int(most), int((group / used).read_text()), int(killed[0]) if killed else 0)
        except (OSError, ValueError):
            pass
        group = group.parent


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def open_files(scene: Scene) -> Iterator[Finding]:
    """Check how many files the server may open: two for each client."""
    pid = scene.pid
    if scene.status and pid is None:
        return
    process = Path(scene.proc, str(pid) if pid is not None else "self")
    row = next((line.split() for line in _lines(process / "limits") if line.startswith("Max open files")), None)
    if row is None or not row[3].isdigit():
        return
    most = int(row[3])
    if pid is None:
        yield ok("open files", f"a server that is started from here may have {most}, two for each client")
        return
    try:
        count = len(os.listdir(process / "fd"))
    except OSError:
        return
    told = f"the server has {count} of {most} that it may have, two for each client"
    if count > most * NEARLY:
        yield problem(
            "open files", f"{told}; it takes no clients beyond that", "LimitNOFILE= of its unit, or ulimit -n"
        )
    else:
        yield ok("open files", told)
