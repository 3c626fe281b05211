"""Processes that an experiment forks, and that talk with it in lines.

A child that has imported everything already is there in a millisecond, so that thousands can be killed. It shares
nothing with its parent but one socket; when the parent ends, however that happens, its next word ends the child.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

PATIENCE = 60.0  # seconds after which something that does not come is a failure, and not a slow machine
TESTS = Path(__file__).parents[1]

T = TypeVar("T")


class Gone(Exception):
    """The other end has closed."""


class Line:
    """One end of a line between two processes: values go over it as JSON."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._rest = b""

    def fileno(self) -> int:
        return self.sock.fileno()

    def say(self, *values: Any) -> None:
        """Tell the other end something."""
        try:
            self.sock.sendall(json.dumps(values).encode() + b"\n")
        except OSError as error:
            raise Gone from error

    def hear(self, patience: float | None = PATIENCE) -> list[Any]:
        """Return what the other end says next.

        Raises:
            Gone: It has closed.
            TimeoutError: It says nothing.
        """
        while b"\n" not in self._rest:
            self.sock.settimeout(patience)
            try:
                data = self.sock.recv(65536)
            except ConnectionError:
                data = b""
            finally:
                self.sock.settimeout(None)
            if not data:
                raise Gone
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        values: list[Any] = json.loads(line)
        return values

    def await_end(self) -> None:
        """Wait until the other end has closed; what it says meanwhile is for somebody else."""
        poll = select.poll()
        poll.register(self.sock, select.POLLRDHUP)
        poll.poll()

    @property
    def has_more(self) -> bool:
        """Whether another line is here already."""
        return b"\n" in self._rest

    def close(self) -> None:
        self.sock.close()


class Child(Line):
    """A forked process that runs ``function(line, *args)`` and ends.

    Attributes:
        pid: Its number.
        status: How it ended, as `os.waitstatus_to_exitcode` says; None before that is known.
    """

    def __init__(self, nursery: Nursery, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        ours, theirs = socket.socketpair()
        self.status: int | None = None
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            status = 1
            try:
                ours.close()
                for sibling in nursery.children:
                    sibling.close()
                random.seed()
                function(Line(theirs), *args)
                status = 0
            except Gone:
                pass
            except BaseException:  # noqa: BLE001 - whatever it is, the experiment is to see it
                traceback.print_exc()
            finally:
                os._exit(status)
        theirs.close()
        super().__init__(ours)
        nursery.children.append(self)
        self._nursery = nursery

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it with SIGKILL, and have it gone."""
        if self.status is None:
            self.signal(signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        """Wait for its end, and return how it ended."""
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            self.close()
            self._nursery.children.remove(self)
        return self.status

    def end(self) -> None:
        """Wait for its end, which must be in order."""
        status = self.wait()
        if status:
            raise RuntimeError(f"a process of the experiment ended with {status}")


class Nursery:
    """The forked processes of an experiment. None outlives its block."""

    def __init__(self) -> None:
        self.children: list[Child] = []

    def fork(self, function: Callable[..., object], *args: Any) -> Child:
        """Run a function in a process of its own; its first argument is the `Line` to this one."""
        return Child(self, function, args)

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *exc: object) -> None:
        for child in list(self.children):
            child.kill()


def heard(lines: Iterable[Line], patience: float = PATIENCE) -> list[Line]:
    """Wait until one of them has something to say, or has closed; return those that have."""
    lines = list(lines)
    ready = [line for line in lines if line.has_more]
    if not ready:
        ready = select.select(lines, [], [], patience)[0]
    if not ready:
        raise TimeoutError("nobody says anything")
    return ready


def experiment(name: str, *args: object, patience: float = 3600.0) -> dict[str, Any]:
    """Run an experiment in a process of its own, and return what it has counted."""
    code = f"import sys; sys.path.insert(0, {str(TESTS)!r}); from torture.__main__ import main; main(*sys.argv[1:])"
    command = [sys.executable, "-c", code, name, *map(str, args)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            output, _ = process.communicate(timeout=patience)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    if process.returncode:
        raise AssertionError(f"the experiment {name} ended with {process.returncode}; see its standard error")
    counted: dict[str, Any] = json.loads(output.splitlines()[-1])
    print(name, json.dumps(counted))
    return counted
