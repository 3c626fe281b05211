"""Holders that die: with the lock in their hands, and after they have given it back.

Half of those who are killed have forked a child that keeps their socket open, so that the connection never ends by
itself. Of those who release, some wait for the answer, some end at once, and some end while the server is not reading
from them: because it was stopped, because it takes turns, or because they do not read what it sends.
"""

from __future__ import annotations

import os
import select
import signal
from statistics import median
from time import monotonic
from typing import Any

from servers import KEY, THINGS, Served, another

from registry import ManagerClient, _codec, connect
from registry._link import Pending
from registry._wire import Kind
from torture.nursery import PATIENCE, Line, Nursery

# -- what the processes do


def hold(line: Line, url: str, child: bool) -> None:
    """Take the lock and keep it; if asked, with a child that keeps the socket."""
    client = connect(url, KEY)
    if child:
        keep_the_socket(client, line)
    grant = client.lock("l").acquire()
    line.say(grant.number, bool(grant.abandoned))
    line.hear(None)


def keep_the_socket(client: ManagerClient, line: Line) -> None:
    """Fork a child that has our connection, as one made by C code has it, and outlives us."""
    number = os.dup(socket_of(client).fileno())
    if not os.fork():
        try:
            line.await_end()
        finally:
            os._exit(0)
    os.close(number)


def socket_of(client: ManagerClient) -> Any:
    """Return the socket of a client's session."""
    transport: Any = client._home.link()._transport
    return transport._sock


def inherit(line: Line, url: str) -> None:
    """Be the next in line, as often as asked, and tell what was given and when."""
    client = connect(url, KEY)
    lock = client.lock("l")
    while True:
        line.hear(None)
        grant = lock.acquire(timeout=60)
        now = monotonic()
        line.say(bool(grant), bool(grant.abandoned), grant.holder, grant.number, now)
        if grant:
            grant.release()


# -- killed holders


def handovers(count: int) -> dict[str, Any]:
    """Kill a holder while somebody waits, `count` times.

    Returns:
        How many were killed, how many of them left a child with their socket, how many locks were handed over, how
        many grants were flagged and how many named who died; the time from the kill to the grant in ms.
    """
    handed = flagged = named = kept = clean = 0
    times = []
    last = 0
    with Served("here") as server, another("here") as watcher, Nursery() as nursery:
        lock = watcher.lock("l")
        heir = nursery.fork(inherit, server.url)
        for number in range(count):
            with_child = number % 2 == 1
            holder = nursery.fork(hold, server.url, with_child)
            token, abandoned = holder.hear()
            clean += not abandoned
            heir.say("wait")
            await_waiters(watcher, lock, 1)
            began = monotonic()
            holder.signal(signal.SIGKILL)
            given, abandoned, who, next_token, when = heir.hear()
            handed += given and last < token < next_token
            flagged += abandoned
            named += f"(pid {holder.pid} on " in who
            kept += with_child
            times.append((when - began) * 1000)
            last = next_token
            holder.wait()
    return {
        "killed": count,
        "with a child": kept,
        "handed over": handed,
        "flagged": flagged,
        "named": named,
        "clean before": clean,
        "median ms": round(median(times), 2),
        "worst ms": round(max(times), 2),
    }


def await_waiters(client: ManagerClient, lock: Any, count: int, *, exactly: bool = False) -> list[Any]:
    """Ask until so many wait for a lock, or more unless `exactly`; return who, in the order of the line."""
    limit = monotonic() + PATIENCE
    while monotonic() < limit:
        waiters: list[Any] = client.statistics(lock)["waiters"]
        if len(waiters) == count or (len(waiters) > count and not exactly):
            return waiters
    raise TimeoutError(f"{len(waiters)} wait, and not {count}")


# -- clean releases


def release_and_end(line: Line, url: str, how: str) -> None:
    """Take the lock, give it back, and end in one of several ways."""
    client = connect(url, KEY)
    if how == "with a child":
        keep_the_socket(client, line)
    grant = client.lock("l").acquire()
    line.say("held", bool(grant.abandoned))
    line.hear(None)
    if how in ("answered", "with a child"):
        grant.release()
    elif how == "goodbye":
        grant.release()
        client.close()
    elif how == "block":
        with grant:
            pass
    else:
        last_words(client, grant, how)
    os._exit(0)


def last_words(client: ManagerClient, grant: Any, how: str) -> None:
    """Send a row of calls and the release behind them at once, without reading a single answer."""
    link = client._home.link()
    transport: Any = link._transport
    notes = client.notes("n")
    frames: list[bytes] = []
    before = transport.send
    transport.send = frames.append
    if how == "unread":
        # Far more answers than the server keeps for one who does not read.
        for _ in range(100):
            post(client, notes, "big", 100_000)
    elif how != "unanswered":
        for number in range(300):
            post(client, notes, "echo", b"x" * (number % 400))
    post(client, client.lock("l"), "release", grant.number)
    before(b"".join(frames))
    if how == "unread" and link._transport is not None:
        # The first answer is here: the server has begun to send, and has been stopped by what we do not read.
        select.select([transport._sock], [], [], 60)


def post(client: ManagerClient, proxy: Any, method: str, *args: object) -> None:
    """Send a call, and do not wait for its answer."""
    link, remote = client._home.link(), proxy._remote
    remote.resolve()
    handle = link.handle(remote.typeid, remote.name, remote.definition)
    slot = Pending(Kind.CALL, handle, method, _codec.encode_arguments(args, {}), remote, False)
    with link._sending:
        slot.seq = link._next
        link._next += 1
        link._pending[slot.seq] = slot
        link._send(slot)


WAYS = ("answered", "with a child", "goodbye", "block", "unanswered", "in turns", "unread", "stopped")


def clean_ends(count: int) -> dict[str, Any]:
    """Have a holder release and end, `count` times, in each of several ways in turn.

    Returns:
        How many there were, how many locks were given on, how many of these grants were not flagged, and how many were
        flagged by the way in which the holder had ended.
    """
    given_on = clean = 0
    flagged = dict.fromkeys(WAYS, 0)
    with Served("here", plugins=(THINGS,)) as server, another("here") as watcher, Nursery() as nursery:
        lock = watcher.lock("l")
        watcher.notes("n").add("made")
        heir = nursery.fork(inherit, server.url)
        for number in range(count):
            how = WAYS[number % len(WAYS)]
            in_line = number // len(WAYS) % 2 == 1
            holder = nursery.fork(release_and_end, server.url, how)
            holder.hear()
            if in_line:
                heir.say("wait")
                await_waiters(watcher, lock, 1)
            if how == "stopped":
                server.signal(signal.SIGSTOP)
            holder.say("go")
            holder.end()
            if how == "stopped":
                server.signal(signal.SIGCONT)
            if not in_line:
                heir.say("wait")
            given, abandoned, *_ = heir.hear()
            given_on += given
            clean += given and not abandoned
            flagged[how] += abandoned
    return {"ended": count, "given on": given_on, "clean": clean, "flagged": flagged}
