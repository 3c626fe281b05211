"""Connections that are cut: at every byte of a request and its reply, at every byte of a handshake, and at random."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, get_args

from servers import KEY, Served, Wire, another

from registry import ManagerClient
from registry.errors import ServerNotFound
from torture.nursery import Line, Nursery, heard
from torture.scissors import Direction, Scissors

# -- what is done while the connection is cut, and what must have come of it

Deed = Callable[[ManagerClient, ManagerClient, int], str]


def increment(client: ManagerClient, near: ManagerClient, number: int) -> str:
    """Count: the value is one more, and is what is there."""
    before = near.counter("c").get()
    told = client.counter("c").incr()
    there = near.counter("c").get()
    return "" if told == there == before + 1 else f"{before} became {there}, and {told} was told"


def take_and_release(client: ManagerClient, near: ManagerClient, number: int) -> str:
    """Acquire and release: nobody has the lock afterwards, and nobody is said to have died."""
    lock = client.lock("l")
    grant = lock.acquire()
    grant.release()
    after = near.lock("l").acquire(timeout=0)
    if not after or after.abandoned or after.number <= grant.number:
        return f"after {grant} came {after}"
    after.release()
    return ""


def enter_a_block(client: ManagerClient, near: ManagerClient, number: int) -> str:
    """Call something inside a block: it is done once, and the block is left."""
    before = near.counter("c").get()
    with client.lock("l"):
        told = client.counter("c").incr()
    if near.lock("l").locked():
        return "the lock is held"
    return "" if told == near.counter("c").get() == before + 1 else f"{before} became {told}"


def put(client: ManagerClient, near: ManagerClient, number: int) -> str:
    """Put: the item is there once."""
    client.queue("q").put(number)
    items = [near.queue("q").get_nowait() for _ in range(near.queue("q").qsize())]
    return "" if items == [number] else f"{number} was put, and {items} was there"


def get(client: ManagerClient, near: ManagerClient, number: int) -> str:
    """Get: the item comes, and is gone."""
    near.queue("q").put(number)
    near.queue("q").put("next")
    item = client.queue("q").get()
    rest = [near.queue("q").get_nowait() for _ in range(near.queue("q").qsize())]
    return "" if item == number and rest == ["next"] else f"of {number} came {item}, and {rest} was left"


def claim(client: ManagerClient, near: ManagerClient, number: int) -> str:
    """Claim an item and be done with it: it comes, and is gone; nobody claims it any more."""
    near.queue("q").put(number)
    with client.queue("q").claim() as item:
        pass
    left = near.queue("q").qsize(), near.statistics(near.queue("q"))["holders"]
    return "" if item == number and left == (0, []) else f"of {number} came {item}, and {left} was left"


def edit(client: ManagerClient, near: ManagerClient, number: int) -> str:
    """Edit a value: it is written once, and its turn is free."""
    near.dict("d")["k"] = [number]
    with client.dict("d").edit("k") as value:
        value.append("more")
    with near.dict("d").edit("k") as after:
        pass
    return "" if after == [number, "more"] else f"{after} is there"


DEEDS: tuple[Deed, ...] = (increment, take_and_release, enter_a_block, put, get, claim, edit)


@contextmanager
def stage() -> Iterator[tuple[Served, Scissors, ManagerClient]]:
    """A server behind scissors, and a client that is connected past them."""
    with Served("tcp://127.0.0.1:0") as server:
        host, _, port = server.url.removeprefix("tcp://").rpartition(":")
        with Scissors(host, int(port)) as scissors, another(server.url) as near:
            near.queue("q").qsize()
            near.counter("c").get()
            yield server, scissors, near


# -- at every byte


def of_calls(stride: int = 1) -> dict[str, Any]:
    """Do each deed with the connection cut after n bytes of its requests, and of the replies, for each n.

    Args:
        stride: From one n to the next.

    Returns:
        For each deed how many cuts there were, and what went wrong.
    """
    cuts: dict[str, int] = {}
    wrong: list[str] = []
    with stage() as (_, scissors, near), another(("127.0.0.1", scissors.port)) as client:
        for deed in DEEDS:
            for direction in get_args(Direction):
                cuts[f"{deed.__name__} {direction}"] = 0
                for number in count(0, stride):
                    client.counter("other").incr()  # connects where it was cut, and acknowledges what was
                    scissors.cut_after(direction, number)
                    trouble = deed(client, near, number)
                    if trouble:
                        wrong.append(f"{deed.__name__}, cut {direction} after {number}: {trouble}")
                    if scissors.spare():
                        break  # it has gone through uncut: there are not so many bytes
                    cuts[f"{deed.__name__} {direction}"] += 1
    return {"cuts": sum(cuts.values()), "of": cuts, "wrong": wrong}


def of_reconnects(stride: int = 1) -> dict[str, Any]:
    """Do each deed with the connection cut, and the next one cut again after n bytes of its handshake and what follows.

    Returns:
        As `of_calls`.
    """
    cuts: dict[str, int] = {}
    wrong: list[str] = []
    with stage() as (_, scissors, near), another(("127.0.0.1", scissors.port)) as client:
        for place, deed in enumerate(DEEDS):
            for direction in get_args(Direction):
                cuts[f"{deed.__name__} {direction}"] = 0
                for number in count(place % stride, stride):
                    client.counter("other").incr()
                    scissors.cut_next_after(direction, number)
                    trouble = deed(client, near, number)
                    if trouble:
                        wrong.append(f"{deed.__name__}, reconnect cut {direction} after {number}: {trouble}")
                    if scissors.spare():
                        break
                    cuts[f"{deed.__name__} {direction}"] += 1
    return {"cuts": sum(cuts.values()), "of": cuts, "wrong": wrong}


def of_first_connects(stride: int = 1) -> dict[str, Any]:
    """Connect for the first time with the connection cut after n bytes, for each n.

    Returns:
        How many cuts there were, how many clients were told that there is no server, and what went wrong. Whoever was
        told so connects all the same when it tries again.
    """
    cuts = told = 0
    wrong: list[str] = []
    with stage() as (_, scissors, near):
        for direction in get_args(Direction):
            for number in count(0, stride):
                scissors.cut_next_after(direction, number)
                with ManagerClient(("127.0.0.1", scissors.port), KEY) as client:
                    try:
                        client.connect()
                    except ServerNotFound:
                        told += 1
                    trouble = increment(client, near, number)
                if trouble:
                    wrong.append(f"connect cut {direction} after {number}: {trouble}")
                if scissors.spare():
                    break
                cuts += 1
    return {"cuts": cuts, "told": told, "wrong": wrong}


# -- at random


def at_random(increments: int, processes: int = 4) -> dict[str, Any]:
    """Increment a counter from some processes, through a wire that is cut after random numbers of bytes.

    Returns:
        The value of the counter, how many increments were acknowledged, with how many different values, and the cuts.
    """
    told: list[int] = []
    with Served("tcp://127.0.0.1:0") as server, Nursery() as nursery:
        wire = nursery.fork(carry, server.url, 1, 12_000)
        (port,) = wire.hear()
        share = increments // processes
        crowd = [nursery.fork(count_up, port, share) for _ in range(processes)]
        for child in crowd:
            child.hear()  # it is connected: a first connection that is cut tells so, and does not try again
        wire.say("cut")
        for child in crowd:
            child.say("go")
        while crowd:
            for child in heard(crowd):
                told += child.hear()
                child.end()
                crowd.remove(child)  # type: ignore[arg-type]
        wire.say("end")
        (cuts,) = wire.hear()
        wire.end()
        with another(server.url) as near:
            value = near.counter("c").get()
    return {"value": value, "acknowledged": len(told), "different": len(set(told)), "highest": max(told), "cuts": cuts}


def count_up(line: Line, port: int, times: int) -> None:
    """Increment the counter, and tell what came of each time."""
    with another(("127.0.0.1", port)) as client:
        counter = client.counter("c")
        line.say("connected")
        line.hear()
        line.say(*[counter.incr() for _ in range(times)])


def carry(line: Line, url: str, low: int, high: int) -> None:
    """Carry bytes to the server; when told, begin to cut connections after random numbers of them, and then end."""
    host, _, port = url.removeprefix("tcp://").rpartition(":")
    with Wire(host, int(port)) as wire:
        line.say(wire.port)
        line.hear()
        wire.cut_between(low, high)
        wire.cut()
        line.hear(None)
        wire.cut_no_more()
        line.say(wire.cuts)
