"""A file system that is full, and has space again: a small one, in a namespace that ends with the process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from registry import connect
from torture.nursery import Child, Nursery
from torture.syscalls import NAME, Server, audit, calls_in, read, work

CALLS = 200  # in each round; what is left of a page takes some before it is full
QUESTIONS = 50  # asked while nothing can be written

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_REC, _MS_PRIVATE, _MNT_DETACH = 1 << 14, 1 << 18, 2


@contextlib.contextmanager
def mounted(size: str) -> Iterator[Path]:
    """Give a small file system that only this process and its children see.

    Raises:
        PermissionError: That is not allowed here.
    """
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as directory:
        path = Path(directory).resolve()
        reason = _mount(path, size)
        if reason:
            raise PermissionError(reason)
        try:
            yield path
        finally:
            ctypes.CDLL(None).umount2(os.fsencode(path), _MNT_DETACH)


def _mount(path: Path, size: str) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWNS):
        if libc.unshare(_CLONE_NEWNS | _CLONE_NEWUSER):
            return f"no namespace for mounts: {os.strerror(ctypes.get_errno())}"
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            Path("/proc/self", name).write_text(text)
    if libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) or libc.mount(
        b"tmpfs", os.fsencode(path), b"tmpfs", 0, f"size={size},mode=700,uid={user},gid={group}".encode()
    ):
        return f"nothing may be mounted: {os.strerror(ctypes.get_errno())}"
    return ""


def refused() -> dict[str, Any]:
    """Tell why there can be no small file system here, with an empty text if there can."""
    try:
        with mounted("1m"):
            return {"refused": ""}
    except PermissionError as error:
        return {"refused": str(error)}


def fill(path: Path) -> None:
    """Take all the space that there is."""
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


def answers(worker: Child) -> int:
    """Take what the client has said by now, and return how many calls were answered."""
    count = 0
    while worker.has_more or select.select([worker], [], [], 0)[0]:
        count += worker.hear()[0] != "done"
    return count


def rounds(log: str, count: int = 5) -> dict[str, Any]:
    """Fill the disk under a server, free it and go on, as often as asked; then stop and start on a full one.

    Returns:
        How many calls were answered, and how many of those while the disk was full and the server had said so.
    """
    with mounted(f"{2 + count // 4}m") as home, Nursery() as nursery:  # nothing is folded, nor removed
        state, filler = home / "state", home / "filler"
        worker = nursery.fork(work, 0)
        server = Server(nursery, log, state)
        server.child.say()
        server.until("serving ")
        watch = connect(NAME)
        total = answered = overtook = asked = 0
        for _ in range(count):
            fill(filler)
            total += CALLS
            worker.say(total)
            assert server.until("no space for the log"), server.text
            for _ in range(QUESTIONS):
                asked += watch.statistics()["pid"] > 0
            answered += answers(worker)  # what had left before
            for _ in range(QUESTIONS):
                asked += watch.statistics()["pid"] > 0
            overtook += answers(worker)
            filler.unlink()
            assert server.until("there is space for the log"), server.text
            while answered + overtook < total:
                server.heed(worker)
                answered += answers(worker)
        # A stop: what was answered is there, and that not all could be written is said.
        fill(filler)
        total += CALLS
        worker.say(total)
        assert server.until("no space for the log"), server.text
        answered += answers(worker)
        server.child.signal(signal.SIGTERM)
        stopped = server.wait()
        stop_says = "could not be finished: [Errno 28]" in server.text
        # A start is refused.
        other = Server(nursery, log, state)
        other.child.say()
        began = other.until("serving ")
        other.child.signal(signal.SIGTERM)
        start = other.wait()
        start_says = "No space left on device" in other.text or "no space for the log" in other.text
        found = calls_in(read(state))
        kept = answered <= found <= answered + 1
        # And with space it all goes on.
        filler.unlink()
        server = Server(nursery, log, state)
        server.child.say()
        server.until("serving ")
        while answered < total:
            server.heed(worker)
            answered += answers(worker)
        auditor = nursery.fork(audit, total)
        (wrong,) = auditor.hear()
        server.child.signal(signal.SIGTERM)
        status = server.wait()
        watch.close()
        return {
            "rounds": count,
            "calls": total,
            "answered": answered + overtook,
            "answered while full": overtook,
            "questions asked while full": 2 * QUESTIONS * count,
            "questions answered while full": asked,
            "stop on a full disk": [stopped, stop_says],
            "start on a full disk": [start, began, start_says],
            "kept": kept,
            "wrong": wrong,
            "status": status,
        }
