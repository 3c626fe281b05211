"""What every test stands on: a home of its own, and nothing left running behind it.

`home` gives each test an empty ``REGISTRY_HOME``, so that no test meets a server of another test or
of the person who runs them. `nothing_left_running` fails a test that leaves a thread, a child process
or a server behind.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

import pytest
from hypothesis import settings

# How long what is already ending may take to end, in seconds. It costs nothing where nothing is left.
GRACE = 3.0

# A machine that runs several tests at once is slow now and then: that is no fault of the example.
settings.register_profile("registry", deadline=None)
# Where nobody looks on, a red run must be red again when it is repeated.
settings.register_profile("registry-ci", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("registry-ci" if os.environ.get("CI") else "registry")


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the test an empty ``REGISTRY_HOME``, and an environment that names no server."""
    # The path is short because the path of a unix socket may not pass 107 bytes: `tmp_path` is too long.
    short = "/tmp" if os.path.isdir("/tmp") else None
    path = tempfile.mkdtemp(prefix="r", dir=short)
    monkeypatch.setenv("REGISTRY_HOME", path)
    for name in ("ADDRESS", "AUTHKEY_FILE", "PLUGINS", "DEBUG", "TLS_CA", "TLS_CERT", "TLS_KEY"):
        monkeypatch.delenv(f"REGISTRY_{name}", raising=False)
    yield Path(path)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(autouse=True)
def nothing_left_running(home: Path) -> Iterator[None]:
    """Fail the test if a thread, a child process or a server that it started outlives it."""
    threads = set(threading.enumerate())
    children = _children()
    yield
    deadline = time.monotonic() + GRACE
    left = [_describe(pid) for pid in _end(_servers(home), deadline)]
    left += [_describe(pid) for pid in _end(_children() - children, deadline)]
    for thread in threading.enumerate():
        # A dummy stands for a thread that Python did not start; there is nothing to join.
        if thread not in threads and not isinstance(thread, threading._DummyThread):
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                left.append(f"thread {thread.name!r}")
    if left:
        pytest.fail("left running by this test: " + "; ".join(left), pytrace=False)


def _helpers() -> set[int | None]:
    """Return the pids of what `multiprocessing` starts once in a process, and keeps to its end."""
    return {
        getattr(resource_tracker._resource_tracker, "_pid", None),
        getattr(forkserver._forkserver, "_forkserver_pid", None),
    }


def _children() -> set[int]:
    """Return the pids of this process's children that still run."""
    # Reaps what has ended, on every system.
    pids = {child.pid for child in multiprocessing.active_children()}
    if sys.platform == "linux":
        for path in Path("/proc/self/task").glob("*/children"):
            try:
                pids.update(map(int, path.read_text().split()))
            except OSError:
                # That thread has ended in between.
                continue
    return {pid for pid in pids - _helpers() if pid is not None and _runs(pid)}


def _servers(home: Path) -> set[int]:
    """Return the pids of the processes, children or not, that were exec'ed with this home."""
    # A server leaves files in its home; without any, the look at every process is spared.
    if sys.platform != "linux" or not any(home.iterdir()):
        return set()
    mark = f"REGISTRY_HOME={home}".encode()
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                # Gone, or somebody else's.
                continue
            if mark in environment.split(b"\0"):
                found.add(int(entry.name))
    return {pid for pid in found - _helpers() if _runs(pid)}


def _end(pids: set[int], deadline: float) -> list[int]:
    """Wait for processes to end by themselves; kill those that do not, and return them."""
    stubborn = []
    for pid in sorted(pids):
        if sys.platform != "linux":
            # Without a pidfd only children are known, and they can be killed at once.
            stubborn.append(pid)
            os.kill(pid, signal.SIGKILL)
            continue
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if _runs(pid) and not select.select([pidfd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                stubborn.append(pid)
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
    return stubborn


def _runs(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and was not waited for does not."""
    if sys.platform != "linux":
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def _describe(pid: int) -> str:
    """Name a process by its pid and command."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        words = []
    return f"process {pid} ({b' '.join(words).decode(errors='replace').strip()[:80] or 'command unknown'})"
