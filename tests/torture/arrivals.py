"""Many who wait for one lock, and the order in which they get it."""

from __future__ import annotations

import os
import random
import signal
import tempfile
from typing import Any

from servers import KEY, Served, another

from registry import connect
from torture.deaths import await_waiters
from torture.nursery import Line, Nursery, heard


def queue_up(line: Line, url: str, path: str) -> None:
    """Take the lock as often as asked; while it is held, write down who holds it and by which token."""
    lock = connect(url, KEY).lock("l")
    log = os.open(path, os.O_WRONLY | os.O_APPEND)
    me = os.getpid()
    line.say("ready")
    while True:
        line.hear(None)
        with lock as grant:
            os.write(log, f"{me} {grant.number}\n".encode())
        line.say("done")


def rounds(count: int, waiters: int = 32) -> dict[str, Any]:
    """Let processes queue up for a lock that is held, `count` times, and let it go.

    In every other round they come one by one, each once the one before is seen to wait. In the others they all come at
    once, and the order is that which the engine tells. In every eighth some are killed while they wait.

    Returns:
        How many rounds there were, in how many the order was kept, how many grants there were, how many of their tokens
        were larger than all before, and how many were killed in line.
    """
    kept = grants = grown = killed = 0
    last = 0
    draw = random.Random(32)
    with (
        tempfile.NamedTemporaryFile("rb") as log,
        Served("here") as server,
        another("here") as watcher,
        Nursery() as nursery,
    ):
        lock = watcher.lock("l")
        crowd = [nursery.fork(queue_up, server.url, log.name) for _ in range(waiters)]
        for child in crowd:
            child.hear()
        for number in range(count):
            grant = lock.acquire()
            order = draw.sample(crowd, len(crowd))
            for place, child in enumerate(order, 1):
                child.say("go")
                if number % 2:
                    await_waiters(watcher, lock, place)
            line = await_waiters(watcher, lock, len(crowd))
            expected = [child.pid for child in order] if number % 2 else [waiter["pid"] for waiter in line]
            if number % 8 == 7:
                for child in draw.sample(crowd, 3):
                    child.signal(signal.SIGKILL)
                    child.wait()
                    killed += 1
                    expected.remove(child.pid)
                    crowd.remove(child)
                    place = len(expected)
                    await_waiters(watcher, lock, place, exactly=True)
            grant.release()
            waiting = set(crowd)
            while waiting:
                for child in heard(waiting):
                    child.hear()
                    waiting.discard(child)
            rows = [tuple(map(int, row.split())) for row in log.read().splitlines()]
            kept += [pid for pid, _ in rows] == expected
            for _, token in rows:
                grants += 1
                grown += token > last
                last = max(last, token)
            while len(crowd) < waiters:
                crowd.append(nursery.fork(queue_up, server.url, log.name))
                crowd[-1].hear()
    return {"rounds": count, "kept": kept, "grants": grants, "tokens grown": grown, "killed in line": killed}
