"""A server that is killed, again and again, under clients that are to notice nothing but a pause."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from servers import Script, Served, another

# What each client does until it is told to stop: count, work in a section, put and take items of a queue. It prints
# what it was told had happened, and whatever it was told went wrong.
CLIENT = """
import json, os, select, sys
from registry import connect
url, who = sys.argv[1], sys.argv[2]
shared = connect(url, b"the key of the tests", timeout=120.0)
count, lock, state, items = shared.counter("c"), shared.lock("l"), shared.dict("d"), shared.queue("q")
told = {"counted": 0, "sections": 0, "put": [], "got": [], "errors": [], "tokens": []}
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    try:
        count.incr()
        told["counted"] += 1
        with lock.acquire() as grant:
            told["tokens"].append(grant.token)
            if grant.abandoned:
                told["errors"].append("abandoned")
            if state.get("inside") is not None:
                told["errors"].append("two holders")
            state["inside"] = who
            if state["inside"] != who:
                told["errors"].append("two holders")
            state["inside"] = None
            told["sections"] += 1
        item = f"{who}:{len(told['put'])}"
        items.put(item)
        told["put"].append(item)
        told["got"].append(items.get(timeout=100))
    except Exception as error:
        told["errors"].append(f"{type(error).__name__}: {error}")
print(json.dumps(told), flush=True)
"""


def kills(count: int = 50, clients: int = 8, log: str = "process", pause: int = 30) -> dict[str, Any]:
    """Kill a server and start it again, as often as asked, after at least `pause` increments each time.

    Returns:
        What the clients were told, summed up, and what the server has: the same numbers, if nothing was lost.
    """
    served = Served("kills", log=log)
    workers: list[Script] = []
    try:
        watch = another(served.url, timeout=120.0)
        workers = [Script(CLIENT, served.url, f"w{number}") for number in range(clients)]
        for worker in workers:
            worker.line()
        for _ in range(count):
            seen = watch.counter("c").get()
            while watch.counter("c").get() < seen + pause:
                pass
            served.kill()
            served.__exit__()
            served = Served("kills", log=log)
        told = []
        for worker in workers:
            worker.say()
        for worker in workers:
            told.append(json.loads(worker.line()))
        left = watch.queue("q").qsize()
        counted = watch.counter("c").get()
        tokens = [each["tokens"] for each in told]
        put = Counter(item for each in told for item in each["put"])
        got = Counter(item for each in told for item in each["got"])
        watch.close()
    finally:
        for worker in workers:
            worker.__exit__()
        served.__exit__()
    every = [token for row in tokens for token in row]
    return {
        "kills": count,
        "errors": [error for each in told for error in each["errors"]],
        "counted": sum(each["counted"] for each in told),
        "counter": counted,
        "sections": sum(each["sections"] for each in told),
        "tokens that came twice": len(every) - len(set(every)),
        "tokens that did not grow": sum(row != sorted(row) for row in tokens),
        "put": put.total(),
        "got or left": got.total() + left,
        "got twice": sum(number - 1 for number in got.values()),
        "got and never put": len(set(got) - set(put)),
    }
