"""Clients that come, make things and are killed; what the server has left of them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from time import monotonic
from typing import Any

from servers import KEY, THINGS, Served, another

from registry import ManagerClient, connect
from torture.nursery import PATIENCE, Line, Nursery, heard

LOCKS = 8  # names of each kind: what has a name stays, so that the names must not grow in number


def come_and_die(line: Line, url: str, number: int) -> None:
    """Connect, use something of every kind, hold and wait for some of it, and be killed by ourselves."""
    client = connect(url, KEY)
    what = number % 6
    if what == 0:
        client.ticket(number).bump()  # an object of its own
    elif what == 1:
        client.slow("s").greet()  # a thread of its own
    elif what == 2:
        client.semaphore(f"s{number % LOCKS}", 2).acquire()
        with client.lock(f"free{number % LOCKS}"):
            pass
    elif what == 3:
        client.lock(f"l{number % LOCKS}").acquire(timeout=0)
    elif what == 4:
        jobs = client.queue("q")
        jobs.put(number)
        jobs.claim(timeout=0).__enter__()
    else:
        line.say()
        client.gate("g").wait()  # until we are killed in it
        return
    client.counter("c").incr()
    os.kill(os.getpid(), signal.SIGKILL)


def churn(count: int, at_once: int = 8) -> dict[str, Any]:
    """Have `count` processes connect, make something and be killed, some at a time.

    Returns:
        How many came, and what the server has: descriptors, threads, sessions and objects, before and after.
    """
    with Served("here", plugins=(THINGS,)) as server, another("here") as watcher, Nursery() as nursery:
        # What stays by its nature is there before.
        for number in range(at_once * 6):
            nursery.fork(come_and_die, server.url, number)
        harvest(nursery, 0)
        before = belongings(server.pid, watcher)
        counted = watcher.counter("c").get()
        for number in range(count):
            nursery.fork(come_and_die, server.url, number)
            harvest(nursery, at_once)
        harvest(nursery, 0)
        after = settled(server.pid, watcher, before)
        counted = watcher.counter("c").get() - counted
        queued = watcher.queue("q").qsize()
        claims = len(watcher.statistics(watcher.queue("q"))["holders"])
    waited = sum(1 for number in range(count) if number % 6 == 5)
    return {
        "came": count,
        "counted": counted + waited,
        "before": before,
        "after": after,
        "queued": queued - sum(1 for number in range(at_once * 6) if number % 6 == 4),
        "put": sum(1 for number in range(count) if number % 6 == 4),
        "claims": claims,
    }


def harvest(nursery: Nursery, left: int) -> None:
    """Wait for the ends of processes until at most so many are left; those that wait are killed."""
    while len(nursery.children) > left:
        for child in heard(nursery.children):
            # It waits, or it has died: in both cases its end is now.
            child.kill()


def belongings(pid: int, client: ManagerClient) -> dict[str, Any]:
    """Return what a server has, once the locks of the dead have been taken and released."""
    for number in range(LOCKS):
        lock = client.lock(f"l{number}")
        lock.acquire().release()
    status = client.statistics()
    return {
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": len(os.listdir(f"/proc/{pid}/task")),
        "sessions": status["sessions"],
        "objects": status["objects"],
        "waiting": status["waiting"],
        "KiB": resident(pid),
    }


def settled(pid: int, client: ManagerClient, before: dict[str, Any]) -> dict[str, Any]:
    """Return what a server has when the last deaths have been heard of: as before, or else what it stays at."""
    limit = monotonic() + PATIENCE
    while True:
        after = belongings(pid, client)
        if all(after[key] == before[key] for key in before if key != "KiB") or monotonic() > limit:
            return after


def resident(pid: int) -> int:
    """Return how much memory a process has, in KiB."""
    for row in Path(f"/proc/{pid}/status").read_text().splitlines():
        if row.startswith("VmRSS:"):
            return int(row.split()[1])
    return 0
