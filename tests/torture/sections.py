"""Critical sections of many processes that are killed and cut off, watched by two detectors that know nothing of us.

The first is the kernel: whoever is in a section tries to lock a file, which nobody else may have locked. The second is
a log, to which each process appends when it enters and when it leaves, with its token: read afterwards, every entry but
those of the killed is followed by its own leaving, and the tokens grow.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import random
import signal
import struct
import tempfile
from contextlib import ExitStack, suppress
from typing import Any

from servers import KEY, Served, another

from registry import connect
from torture.cuts import carry
from torture.nursery import Child, Line, Nursery, heard

RECORD = struct.Struct("!cIQ?7x")  # what, pid, token, abandoned
REPORT = 20  # sections after which a process tells how far it is
STOP = b"\1"


def enter_and_leave(line: Line, url: str, path: str, flag: mmap.mmap) -> None:
    """Enter and leave sections until the flag says that it is enough."""
    client = connect(url, KEY)
    link: Any = client._home.link()
    cut_when_told(link)
    lock, count = client.lock("l"), client.counter("c")
    log = os.open(path, os.O_WRONLY | os.O_APPEND)
    guarded = os.open(path + ".guarded", os.O_RDWR | os.O_CREAT)
    me = os.getpid()
    done = overlaps = counted = 0
    while flag[:1] != STOP:
        with lock as grant:
            try:
                fcntl.flock(guarded, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                overlaps += 1
            os.write(log, RECORD.pack(b"+", me, grant.number, bool(grant.abandoned)))
            if done % 4 == 0:
                count.incr()
                counted += 1
            os.write(log, RECORD.pack(b"-", me, grant.number, False))
            fcntl.flock(guarded, fcntl.LOCK_UN)
        done += 1
        if done % REPORT == 0:
            line.say(REPORT, overlaps, counted)
            overlaps = counted = 0
    line.say(done % REPORT, overlaps, counted)


def cut_when_told(link: Any) -> None:
    """On SIGUSR1 shut our connection, wherever we are."""
    import socket

    def cut(number: int, frame: object) -> None:
        transport = link._transport
        if transport is not None:
            with suppress(OSError):
                transport._sock.shutdown(socket.SHUT_RDWR)

    signal.signal(signal.SIGUSR1, cut)


def overlaps(count: int, kind: str = "unix", processes: int = 16, seed: int = 3) -> dict[str, Any]:
    """Have processes enter `count` sections, and kill them and cut them off at random meanwhile.

    Args:
        count: How many sections.
        kind: ``unix``; or ``tcp``, where the connections also lead through a wire that cuts after random numbers of
            bytes, and where a death is known only when the lease has ended, so that few are killed.
        processes: How many at a time. Others come for those who are killed.
        seed: Draws who is killed or cut off, and when.

    Returns:
        How many sections were entered, how many processes were killed, how many of them inside, how many connections
        were cut; the overlaps that the kernel and the log have seen, and whether whatever else has to hold does.
    """
    draw = random.Random(seed)
    killed: set[int] = set()
    cuts = seen = reported = counted = 0
    flag = mmap.mmap(-1, 1)
    with ExitStack() as stack:
        log = stack.enter_context(tempfile.NamedTemporaryFile("rb"))
        stack.callback(lambda: os.unlink(log.name + ".guarded"))
        unix = kind == "unix"
        server = stack.enter_context(Served("here") if unix else Served("tcp://127.0.0.1:0", lease=10.0))
        nursery = stack.enter_context(Nursery())
        url = server.url
        if not unix:
            # A process of its own: whoever forks should have no threads.
            wire = nursery.fork(carry, url, 20_000, 200_000)
            url = f"tcp://127.0.0.1:{wire.hear()[0]}"
            wire.say("cut")
        watcher = stack.enter_context(another(server.url))
        watcher.counter("c").get()
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # whoever has just been forked has no handler yet
        crowd: list[Child] = []
        while reported < count:
            while len(crowd) < processes:
                crowd.append(nursery.fork(enter_and_leave, url, log.name, flag))
            for child in heard(crowd):
                if child not in crowd:
                    continue
                sections, saw, incremented = child.hear()
                reported += sections
                seen += saw
                counted += incremented
                what = draw.random()
                if what < (0.05 if unix else 0.004):
                    victim = holder(log.fileno(), crowd) if draw.random() < 0.5 else draw.choice(crowd)
                    victim.signal(signal.SIGKILL)
                    victim.wait()
                    crowd.remove(victim)
                    killed.add(victim.pid)
                elif what < 0.3:
                    draw.choice(crowd).signal(signal.SIGUSR1)
                    cuts += 1
        flag[:1] = STOP
        for child in crowd:
            with suppress(StopIteration):
                while True:
                    sections, saw, incremented = child.hear()
                    reported += sections
                    seen += saw
                    counted += incremented
                    if sections != REPORT:
                        raise StopIteration
            child.end()
        if not unix:
            wire.say("end")
            cuts += wire.hear()[0]
            wire.end()
        free = bool(watcher.lock("l").acquire(timeout=30))
        increments = watcher.counter("c").get()
        log.seek(0)
        found = judge(log.read(), killed)
    return {
        **found,
        "reported": reported,
        "killed": len(killed),
        "cuts": cuts,
        "overlaps seen by the kernel": seen,
        "free afterwards": free,
        "increments": increments,
        "counted": counted,
    }


def holder(log: int, crowd: list[Child]) -> Child:
    """Return who is inside, or was a moment ago."""
    for _ in range(1_000):
        size = os.fstat(log).st_size // RECORD.size
        if size:
            what, pid, *_ = RECORD.unpack(os.pread(log, RECORD.size, (size - 1) * RECORD.size))
            for child in crowd:
                if child.pid == pid and what == b"+":
                    return child
    return crowd[0]


def judge(data: bytes, killed: set[int]) -> dict[str, Any]:
    """Read the log of a run, and count what must not be.

    Returns:
        The sections; those that a killed process has not left; overlaps; tokens that did not grow; entries that should
        have been flagged because somebody had died inside, and those that were flagged without a death.
    """
    sections = unfinished = overlapping = shrunk = flagged = not_flagged = 0
    inside: tuple[int, int] | None = None
    last = 0
    for what, pid, token, abandoned in RECORD.iter_unpack(data):
        if what == b"+":
            sections += 1
            died_inside = inside is not None and inside[0] in killed
            if inside is not None and not died_inside:
                overlapping += 1
            unfinished += died_inside
            not_flagged += died_inside and not abandoned
            shrunk += token <= last
            last = max(last, token)
            inside = (pid, token)
        else:
            overlapping += inside != (pid, token)
            inside = None
        flagged += abandoned
    return {
        "sections": sections,
        "left by the killed": unfinished,
        "overlaps seen in the log": overlapping,
        "tokens not grown": shrunk,
        "not flagged": not_flagged,
        # Of those who died before they had written that they enter, or after they had written that they leave, the log
        # does not know. But no death flags more than one: who was told and leaves in order takes the mark away.
        "wrongly flagged": max(0, flagged - len(killed)),
    }
