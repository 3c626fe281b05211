"""How far the limits of a server are used."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import attrs

from registry._connection import Connection
from registry._host import Host
from registry._limits import Limits

if TYPE_CHECKING:
    from registry._door import Door
    from registry._threads import ThreadedObjects


def usage(
    limits: Limits, host: Host, door: Door, threads: ThreadedObjects, connections: Collection[Connection]
) -> list[list[object]]:
    """Return a row for each limit: its name, what it counts, how much there may be, and how much there is.

    Where a limit is one of each session, there is as much as the largest has. How much there is, is None where that is
    no matter of a moment; how much there may be, where the system does not tell.
    """
    room = host.bounds.room
    sessions = host.engine.sessions.values()
    used: dict[str, int | None] = {
        "strangers": len(door),
        "sessions": host.bounds.crowd.largest,
        "calls": max((len(each.waits) + len(each.replies) for each in sessions), default=0),
        "handles": max((len(client.handles) for client in host.clients.values()), default=0),
        "threads": threads.count,
        "objects": len(host.engine.objects),
        "stored": room.used() if room is not None else None,
        "unsent": max((connection.unsent for connection in connections), default=0),
    }
    may = {**attrs.asdict(limits), "stored": room.limit if room is not None else None}
    return [[name, Limits.unit(name), most, used.get(name)] for name, most in may.items()]
