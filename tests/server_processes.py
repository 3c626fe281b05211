"""Servers in processes of their own: what tests start, they end here."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from registry._addresses import ServerLock

SECONDS = 20.0


def pid_of(directory: Path) -> int | None:
    """Return the pid of the process that serves in a directory, None if nobody does."""
    path = directory / "lock"
    if not path.exists():
        return None
    lock = ServerLock(path)
    if lock.acquire():
        lock.release()
        return None
    pid = (lock.read_info() or {}).get("pid")
    return pid if isinstance(pid, int) else None


def end(pid: int, number: int = signal.SIGTERM) -> None:
    """Send a signal to a process that is not our child, and wait until it has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(pidfd, number)
        if not select.select([pidfd], [], [], SECONDS)[0]:
            raise TimeoutError(f"process {pid} goes on")
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def end_all(home: Path) -> None:
    """End the servers of a home that are processes of their own."""
    for directory in home.iterdir():
        pid = pid_of(directory) if directory.is_dir() else None
        if pid is not None and pid != os.getpid():
            end(pid)


def command(*words: str) -> list[str]:
    """Return the command line with these words."""
    return [sys.executable, "-m", "registry", *words]


@contextmanager
def running(*words: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command in the background; its process ends with the block."""
    process = subprocess.Popen(
        command(*words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=SECONDS)
