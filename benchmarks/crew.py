"""Processes beside the one that measures: ``python -m benchmarks.crew JOB PEER HOME [NAME=VALUE]...``.

Each says "ready" when it has begun, goes on until a line or the end of its input comes, and prints one JSON value.
"""

from __future__ import annotations

import json
import os
import select
import sys
import threading
import time
from pathlib import Path
from timeit import Timer
from typing import Any

from benchmarks.harness import pin
from benchmarks.peers import PEERS

BATCH = 20  # calls between two looks at the clock


def work(peer: str, home: Path, clients: str, seconds: str, kind: str = "get") -> Any:
    """Be so many client processes that work at the same time; how many calls they made together in a second."""
    gate, opener = os.pipe()
    results, result = os.pipe()
    pids = []
    PEERS[peer].load()  # imported once, and inherited
    for _ in range(int(clients)):
        pid = os.fork()
        if pid == 0:
            os.close(opener)
            os._exit(_work(peer, home, kind, float(seconds), gate, result))
        pids.append(pid)
    os.close(result)
    for _ in pids:
        if os.read(results, 1) != b"+":
            raise RuntimeError(f"a client of {peer} could not connect")
    tell("ready")
    sys.stdin.readline()
    os.close(opener)
    with open(results, "rb") as file:
        rates = [float(line) for line in file]
    for pid in pids:
        os.waitpid(pid, 0)
    if len(rates) != len(pids):
        raise RuntimeError(f"{len(pids) - len(rates)} clients of {peer} failed")
    return sum(rates)


def _work(peer: str, home: Path, kind: str, seconds: float, gate: int, result: int) -> int:
    client = PEERS[peer].connect(home)
    statement = client.does(kind)
    if statement is None:
        return 1
    timer = Timer(statement.text, globals=statement.names)
    timer.timeit(1)
    os.write(result, b"+")
    os.read(gate, 1)  # ends for all at once
    began, done = time.perf_counter(), 0
    while (now := time.perf_counter()) - began < seconds:
        timer.timeit(BATCH)
        done += BATCH
    os.write(result, b"%f\n" % (done / (now - began)))
    return 0


def idle(peer: str, home: Path, sessions: str) -> Any:
    """Be so many sessions that do nothing; one process has one, so that they are made behind its back."""
    import resource

    from benchmarks.peers.ours import client
    from registry import client as module

    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    kept = []
    for _ in range(int(sessions)):
        kept.append(client(home))
        module._links.clear()
    tell("ready")
    sys.stdin.readline()
    os._exit(0)  # without five thousand goodbyes


def waiters(peer: str, home: Path, count: str) -> Any:
    """Be so many threads that wait for a queue."""
    from benchmarks.peers.ours import client

    shared = client(home)
    queue = shared.queue("q")
    threading.stack_size(256 << 10)

    def wait() -> None:
        while True:
            queue.get()

    for _ in range(int(count)):
        threading.Thread(target=wait, daemon=True).start()
    while sum(row["waiting"] for row in shared.objects("queue:q")) < int(count):
        pass
    tell("ready")
    sys.stdin.readline()
    os._exit(0)


def writer(peer: str, home: Path, rate: str, keys: str) -> Any:
    """Write so many times a second, over so many keys that nobody else uses; how many writes that were."""
    entries = PEERS[peer].connect(home).d  # type: ignore[attr-defined]
    tell("ready")
    done, began = 0, time.monotonic()
    while not select.select([sys.stdin], [], [], 0)[0]:
        due = int((time.monotonic() - began) * int(rate)) + 1
        while done < due:
            entries[f"other-{done % int(keys)}"] = done
            done += 1
        time.sleep(0.5 / int(rate))
    return done


def stream(peer: str, home: Path, flight: str = "512") -> Any:
    """Send reads without waiting for their replies, so many on their way at any time; how many were answered."""
    from benchmarks.peers.ours import client
    from registry._wire import HEADER

    shared = client(home, cache=False)
    entries = shared.dict("d")
    entries["k"] = 1
    link = shared._home.link()
    transport = link._transport
    sent: list[bytes] = []
    received: list[bytes] = []
    send, receive = transport.send, transport.receive
    transport.send = lambda data: (sent.append(data), send(data))[1]
    transport.receive = lambda deadline: received.append(receive(deadline)) or received[-1]
    for _ in range(2):  # the first defines the name
        entries["k"]
    # One call as the client writes it; what follows differs in its number and in what has arrived.
    length, kind, flags, spare, generation, number, _, applied = HEADER.unpack_from(sent[-1])
    body, reply = sent[-1][HEADER.size :], len(received[-1])
    tell("ready")
    first, answered, got, end = number, 0, 0, select.poll()
    end.register(0, select.POLLIN | select.POLLHUP)
    sock = transport._sock
    sock.setblocking(True)
    buffer = bytearray(1 << 18)
    while not end.poll(0):
        room = int(flight) - (number - first - answered)
        frames = []
        for _ in range(min(room, 64)):
            number += 1
            head = HEADER.pack(length, kind, flags, spare, generation, number, first + answered, applied)
            frames.append(head + body)
        sock.sendall(b"".join(frames))
        got += sock.recv_into(buffer)
        answered = got // reply
    os.write(1, json.dumps(answered).encode() + b"\n")
    os._exit(0)


def connecting(peer: str, home: Path, number: str) -> Any:
    """Connect, ask, and leave, so many times; the seconds of each."""
    ask = PEERS[peer].load().ask
    ask(home)
    seconds = []
    tell("ready")
    sys.stdin.readline()
    for _ in range(int(number)):
        began = time.perf_counter()
        ask(home)
        seconds.append(time.perf_counter() - began)
    return seconds


def tell(word: str) -> None:
    """Say something to whoever has started this process."""
    print(word, flush=True)


JOBS = {each.__name__: each for each in (work, idle, waiters, writer, stream, connecting)}


def main(job: str, peer: str, home: str, *options: str) -> None:
    """Do a job."""
    told = dict(option.split("=", 1) for option in options)
    pin(told.pop("cpus", ""))
    print(json.dumps(JOBS[job](peer, Path(home), **told)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
