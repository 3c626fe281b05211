"""Holders on the other side of a network that stand still for longer than their lease, and a server that does."""

from __future__ import annotations

import signal
from threading import Event
from typing import Any

from servers import KEY, Served, another, until

from registry import connect
from registry.errors import LockLost, RegistryError, StateLost
from torture.nursery import Line, Nursery

LEASE = 1.0  # seconds


def stand_still(line: Line, url: str, number: int, busy: bool) -> None:
    """Hold a lock and change things inside, over and over or once when told to; tell how that ended."""
    client = connect(url, KEY)
    lock, count = client.lock(f"l{number}"), client.counter(f"c{number}")
    count.get()
    first = last = ""
    acknowledged = 0
    try:
        with lock:
            line.say("held")
            if not busy:
                line.hear(None)
            try:
                while True:
                    count.incr()
                    acknowledged += 1
                    if acknowledged == 1 and busy:
                        line.say("changing")
                    if not busy:
                        break
            except RegistryError as error:
                first = type(error).__name__
                raise
    except LockLost:
        last = "LockLost"
    line.say(first, last, acknowledged)
    line.hear(None)
    # Where the block has not said everything, the next call does; then all is as ever.
    for _ in range(2):
        try:
            count.get()
        except StateLost:
            continue
        break
    with lock:
        line.say(count.get())
    line.hear(None)


def stopped_holders(count: int, at_once: int = 10) -> dict[str, Any]:
    """Stop a holder until its lease has ended and somebody else has the lock, `count` times, some at a time.

    Half of them are stopped in the middle of calls that they make one after the other.

    Returns:
        How many were stopped; how many locks were handed over, flagged; how many holders were told `LockLost` at their
        first call, and that their block was lost; how many changed something after that; how many went on in order.
    """
    handed = flagged = told = lost = late = unacknowledged = fine = 0
    with Served("tcp://127.0.0.1:0", lease=LEASE) as server, another(server.url) as watcher, Nursery() as nursery:
        for batch in range(0, count, at_once):
            numbers = range(batch, min(batch + at_once, count))
            holders = {number: nursery.fork(stand_still, server.url, number, number % 2 == 1) for number in numbers}
            for number, holder in holders.items():
                holder.hear()
                if number % 2:
                    holder.hear()
            for holder in holders.values():
                holder.signal(signal.SIGSTOP)
            values, grants = {}, {}
            for number in numbers:
                grant = grants[number] = watcher.lock(f"l{number}").acquire(timeout=60)
                handed += bool(grant)
                flagged += bool(grant) and grant.abandoned
                values[number] = watcher.counter(f"c{number}").get()
            for number, holder in holders.items():
                holder.signal(signal.SIGCONT)
                if not number % 2:
                    holder.say("change")
                first, last, acknowledged = holder.hear()
                told += first == "LockLost"
                lost += last == "LockLost"
                unacknowledged += not values[number] - 1 <= acknowledged <= values[number]
                late += watcher.counter(f"c{number}").get() != values[number]
                grants[number].release()
                holder.say("again")
                fine += holder.hear() == [values[number]]
                holder.say("leave")
                holder.end()
    return {
        "stopped": count,
        "handed over": handed,
        "flagged": flagged,
        "told": told,
        "blocks lost": lost,
        "changed afterwards": late,
        "acknowledged wrongly": unacknowledged,
        "fine afterwards": fine,
    }


def hold_on(line: Line, url: str, number: int) -> None:
    """Hold a lock until told; then change something in its block, and leave it."""
    client = connect(url, KEY)
    with client.lock(f"l{number}") as grant:
        line.say("held")
        line.hear(None)
        client.counter("c").incr()
        still = client.lock(f"l{number}").locked()
    line.say(still, grant.number)
    line.hear(None)
    client.close()


def stalled_server(count: int, lease: int = 1, stall: int = 2, holders: int = 8) -> dict[str, Any]:
    """Stop the server for longer than the lease, `count` times, while processes hold locks.

    Args:
        count: How often.
        lease: The lease, in seconds; `stall` for how long the server stands still.
        holders: How many processes hold a lock each.

    Returns:
        How often it stood still, how many holders there were, how many still held their locks and could work in their
        blocks, how many grants afterwards were flagged, and the sessions before and after.
    """
    kept = flagged = worked = 0
    with Served("tcp://127.0.0.1:0", lease=lease) as server, another(server.url) as watcher, Nursery() as nursery:
        for _ in range(count):
            crowd = [nursery.fork(hold_on, server.url, number) for number in range(holders)]
            for child in crowd:
                child.hear()
            before = holders + 1
            until(lambda ask: ask.statistics()["sessions"] == holders + 1, watcher)  # those before have said goodbye
            server.signal(signal.SIGSTOP)
            Event().wait(stall)  # what is looked at is time itself
            server.signal(signal.SIGCONT)
            after = watcher.statistics()["sessions"]
            kept += after - before + holders
            for number, child in enumerate(crowd):
                child.say("work")
                still, token = child.hear()
                worked += still
                grant = watcher.lock(f"l{number}").acquire(timeout=60)
                flagged += grant.abandoned or grant.number <= token
                grant.release()
            for child in crowd:
                child.say("leave")
                child.end()
        counted = watcher.counter("c").get()
    held = count * holders
    return {"stalls": count, "held": held, "kept": kept, "worked": worked, "counted": counted, "flagged": flagged}
