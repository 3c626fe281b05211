"""What the web applications do for a request; the master does some of it while it loads them."""

from __future__ import annotations

import json
import os
import signal

from shared import hits, inside, loads, mine, only_master, parcels, turn

loads.incr()
if os.environ.get("MASTER_HOLDS"):
    only_master.acquire()


def hit() -> object:
    """Count, alone among all processes and threads."""
    with turn as grant:
        together = inside.incr()
        count = hits.incr()
        inside.incr(-1)
        return {"together": together, "count": count, "abandoned": bool(grant.abandoned)}


def die() -> object:
    """Be killed inside of the lock."""
    with turn:
        os.kill(os.getpid(), signal.SIGKILL)


def take() -> object:
    """Wait for a parcel; nobody else may enter meanwhile, and this one may twice."""
    with mine, mine:
        return {"parcel": parcels.get(timeout=20)}


def give() -> object:
    """Bring a parcel."""
    parcels.put("a parcel")
    return {}


def enter() -> object:
    """Look whether one could enter where another request of this process may be."""
    grant = mine.acquire(timeout=0)
    if grant:
        grant.release()
    return {"entered": bool(grant)}


def answer(path: str) -> bytes:
    """Return the body for a path."""
    result = {"/hit": hit, "/die": die, "/take": take, "/give": give, "/enter": enter}[path]()
    return json.dumps({"pid": os.getpid(), **result}).encode()
