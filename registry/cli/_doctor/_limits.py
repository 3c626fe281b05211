"""What the system allows the server, and whom it goes with: its control group, and its open files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from registry.cli._common import amount, size
from registry.cli._doctor._findings import Finding, note, ok, problem

if TYPE_CHECKING:
    from registry.cli._doctor._scene import Scene

NEARLY = 0.9  # of a limit


def control_group(scene: Scene) -> Iterator[Finding]:
    """Check how much memory the server may have, and which service it ends with."""
    from registry._room import group_of
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
    memory = group_of(text, Path(scene.groups))
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


def limits(scene: Scene) -> Iterator[Finding]:
    """Check how far the limits of the server are used."""
    rows = [(name, unit, most, used) for name, unit, most, used in scene.status.get("limits", []) if used and most]
    shares = {name: used / most for name, _, most, used in rows}
    for name, unit, most, used in rows:
        if shares[name] > NEARLY:
            told = f"{name}: {amount(used, unit)} of {amount(most, unit)}; what is beyond is refused"
            yield problem("limits", told, f"registry serve --limit {name}=N, or {name} = N under [limits]")
    if scene.status.get("limits") and not any(share > NEARLY for share in shares.values()):
        fullest = max(shares, key=lambda name: shares[name], default="")
        yield ok("limits", f"{shares[fullest]:.0%} of {fullest} at most" if fullest else "nothing of them is used")


def open_files(scene: Scene) -> Iterator[Finding]:
    """Check how many files the server may open: two for each client."""
    pid = scene.pid
    if scene.status and pid is None:
        return
    from registry._room import lines_of

    process = Path(scene.proc, str(pid) if pid is not None else "self")
    row = next((line.split() for line in lines_of(process / "limits") if line.startswith("Max open files")), None)
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
