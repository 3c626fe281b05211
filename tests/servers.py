"""Servers and clients for tests that need real ones: processes, sessions of their own, a wire that can be cut.

Nothing here sleeps: whoever waits, waits for a line, a byte or the end of a process.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import registry.client
from registry import ManagerClient

KEY = b"the key of the tests"
PATIENCE = 20.0  # seconds after which a line that does not come is a failure
THINGS = str(Path(__file__).with_name("things.py"))

SERVE = """
import sys, logging
from registry import ManagerServer
server = ManagerServer(sys.argv[1], {key!r}, plugins={plugins!r}, lease={lease!r}, log={log!r})
server.on_ready = lambda: print(server.url, flush=True)
server.run()
print("ended", flush=True)
"""


class Script:
    """A Python process that talks with the test in lines.

    Attributes:
        process: the process.
    """

    def __init__(self, code: str, *args: object, python: str = sys.executable) -> None:
        self.process = subprocess.Popen(
            [python, "-c", code, *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._rest = b""

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> str:
        """Return the next line that the process prints; an empty one is the end."""
        assert self.process.stdout is not None
        number = self.process.stdout.fileno()
        while b"\n" not in self._rest:
            assert select.select([number], [], [], PATIENCE)[0], "the process does not say anything"
            data = os.read(number, 65536)
            if not data:
                break
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def say(self, text: str = "") -> None:
        """Give the process a line to read."""
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def signal(self, number: int) -> None:
        """Send it a signal; one that stops it has done so when this returns."""
        self.process.send_signal(number)
        if number == signal.SIGSTOP and hasattr(os, "waitid"):
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def wait(self) -> int:
        """Return the exit status."""
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """Kill it, and have it gone."""
        self.process.kill()
        self.wait()

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class Served(Script):
    """A server in a process of its own.

    Attributes:
        url: where it listens.
    """

    def __init__(
        self, address: str, *, plugins: tuple[str, ...] = (), lease: float = 30.0, log: str = "memory"
    ) -> None:
        super().__init__(SERVE.format(key=KEY, plugins=list(plugins), lease=lease, log=log), address)
        self.url = self.line()
        assert self.url, "the server did not start"


def another(address: Any, key: bytes = KEY, **kwargs: Any) -> ManagerClient:
    """Return a connected client with a session of its own, though the process may have one with that server."""
    client = ManagerClient(address, key, **kwargs)
    link = client._home.link()
    with registry.client._links_lock:
        for known in [known for known, other in registry.client._links.items() if other is link]:
            del registry.client._links[known]
    return client.connect()


class Wire:
    """A TCP port that leads to a server, and that can be cut.

    Attributes:
        port: where to connect.
        cuts: how often it was cut.
    """

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cuts = 0
        self._wake, self._waker = socket.socketpair()
        self._random = random.Random(7)
        self._limits: tuple[int, int] | None = None
        self._stopped = False
        self._held = False
        self._thread = threading.Thread(target=self._run, name="wire")
        self._thread.start()

    def cut_between(self, low: int, high: int) -> None:
        """From the next connection on, cut each after so many bytes, of both directions together."""
        self._limits = (low, high)

    def cut_no_more(self) -> None:
        self._limits = None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Cut what is open, and let nothing through for as long as the block lasts; who connects waits."""
        self._held = True
        self.cut()
        try:
            yield
        finally:
            self._held = False
            self.cut()

    def cut(self) -> None:
        """Cut what is open now."""
        self._waker.send(b"x")

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopped = True
        self._waker.send(b"x")
        self._thread.join()
        for each in (self._listener, self._wake, self._waker):
            each.close()

    def _run(self) -> None:
        pairs: dict[socket.socket, tuple[socket.socket, list[int]]] = {}

        def drop(one: socket.socket) -> None:
            other, _ = pairs.pop(one)
            pairs.pop(other)
            one.close()
            other.close()
            self.cuts += 1

        while True:
            listening = [] if self._held else [self._listener]
            for ready in select.select([*listening, self._wake, *pairs], [], [])[0]:
                if ready is self._wake:
                    self._wake.recv(64)
                    for each in list(pairs):
                        if each in pairs:
                            drop(each)
                    if self._stopped:
                        return
                elif ready is self._listener:
                    near = self._listener.accept()[0]
                    far = socket.create_connection(self._to)
                    budget = [self._random.randint(*self._limits) if self._limits else 1 << 60]
                    pairs[near], pairs[far] = (far, budget), (near, budget)
                elif ready in pairs:
                    other, budget = pairs[ready]
                    try:
                        data = ready.recv(min(65536, budget[0]))
                        other.sendall(data)
                    except OSError:
                        data = b""
                    budget[0] -= len(data)
                    if not data or not budget[0]:
                        drop(ready)


@contextlib.contextmanager
def running(*functions: Any) -> Iterator[list[threading.Thread]]:
    """Run functions on threads of their own, and join them; what one raises is raised here."""
    errors: list[BaseException] = []

    def guarded(function: Any) -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - handed on to the test
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads:
            thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "a thread does not end"
    if errors:
        raise errors[0]


def until(condition: Any, ask: ManagerClient) -> None:
    """Ask the server again and again until something is so; each question is a round trip, so nobody spins."""
    for _ in range(20_000):
        if condition(ask):
            return
        ask.statistics()
    raise AssertionError("it never came to be so")
