"""Servers of tests: with the plugins named and no others, in a place of their own, and at the test's mercy."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs

from registry import _addresses
from registry.client import ManagerClient
from registry.testing import _serving
from registry.testing._clients import Client, stop
from registry.testing._serving import Settings, Tame

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

PATIENCE: Final = 60.0  # seconds for a server to begin or to end, and for whatever a test waits for


class Server:
    """A server with the plugins named, and no others, that a test starts, stops and does things to.

    It has a directory of its own, which goes with it, and meets no other server of this user. With ``with`` it is
    started, and at the end everything ends that it has made::

        with Server(COOKIES) as server, server.connect() as shared:
            shared.cookies("crawler").put("example.org", "theme", "dark")

    Args:
        plugins: Exactly these: declarations, modules, names of installed plugins such as ``"registry_sync"``, or files.
        process: Whether it is a process of its own, which can be killed and paused, and not a thread of this one.
        log: What survives it, as for `ManagerServer`.
        lease: For how many seconds a session is believed that is silent over TCP, or has no connection.
        address: Where it listens. None: a unix socket in its directory, or a port of 127.0.0.1 where there are none.
            With a name it is the server that clients of this ``REGISTRY_HOME`` find by that name.

    Attributes:
        url: Where it listens.
        authkey: Its key.

    Raises:
        PluginError: A plugin cannot be loaded, or two of them clash.
    """

    def __init__(
        self,
        *plugins: Any,
        process: bool = False,
        log: Literal["memory", "process", "disk"] = "memory",
        lease: float = 30.0,
        address: str | None = None,
    ) -> None:
        self._directory = _serving.place()
        self._removed = weakref.finalize(self, shutil.rmtree, self._directory, ignore_errors=True)
        if address is None:
            address = "tcp://127.0.0.1:0" if sys.platform == "win32" else f"unix://{self._directory}/socket"
        parsed = _addresses.parse(address)
        named = parsed.name is not None
        self.url = str(parsed)
        self.authkey = _addresses.find_authkey(None, parsed, create=True) if named else os.urandom(16)
        # Epoch, log and version words lie in a directory of its own, unless its name has one.
        place = None if named else str(self._directory / "place")
        self._settings = Settings(self.url, self.authkey, plugins, log, lease, place)
        # Of these a client may ask what their values are; of modules it is told the names, since other processes are.
        self._modules = [
            plugin.__name__ if isinstance(plugin, ModuleType) else plugin
            for plugin in plugins
            if isinstance(plugin, (str, ModuleType))
        ]
        self._is_process = process
        self._life: _Thread | _Process | None = None
        self._clients: list[Client | ManagerClient] = []

    def __repr__(self) -> str:
        return f"<server of a test at {self.url}, {'running' if self._life is not None else 'stopped'}>"

    # -- life

    def start(self) -> Self:
        """Start it, and return once clients can connect. Does nothing while it runs."""
        if self._life is None:
            self._life = (_Process if self._is_process else _Thread)(self._settings)
            self.url = self._life.url
            self._settings = attrs.evolve(self._settings, address=self.url)  # with the port that it was given
        return self

    def stop(self) -> None:
        """Stop it in order. Does nothing while it is stopped."""
        life, self._life = self._life, None
        if life is not None:
            life.stop()

    def restart(self) -> None:
        """Stop it in order, and start it again: without a log everything is gone, with one it goes on."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """Kill it, as a loss of memory or an operator does, and return once it is gone. `start` makes the next one.

        Raises:
            RuntimeError: It is a thread of this process, which nobody can kill.
        """
        process = self._process("killed")
        self._life = None
        process.kill()

    def close(self) -> None:
        """Stop it, and end everything that it has made: clients, and its directory."""
        for client in self._clients:
            client.kill() if isinstance(client, Client) else client.close()
        self._clients.clear()
        self.stop()
        self._removed()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- who uses it

    def connect(self, **options: Any) -> ManagerClient:
        """Return a connected client of this process, with a session of its own: for the server it is somebody else.

        Args:
            options: As `registry.connect` takes them: ``timeout``, ``cache``, ``plugins``, ``label``. Of the plugins of
                the server it knows what they declare of values, unless it is given others.
        """
        client = ManagerClient(self.url, self.authkey, **{"plugins": self._modules, **options})
        client._home.is_alone = True
        self._clients.append(client)
        return client.connect()

    def client(self, **options: Any) -> Client:
        """Return a connected client that is a process of its own; `options` are those of `connect`."""
        return self.clients(1, **options)[0]

    def clients(self, n: int, **options: Any) -> list[Client]:
        """Return so many connected clients, each a process of its own."""
        clients = []
        for _ in range(n):
            clients.append(Client(self.url, self.authkey, {"plugins": self._modules, **options}))
            self._clients.append(clients[-1])
        return [client.connected() for client in clients]

    # -- what happens to it

    def pause(self) -> None:
        """Have it stand still: clients wait, and time does not go on for it.

        Raises:
            RuntimeError: It is a thread of this process, which nobody can stop.
        """
        self._process("paused").pause()

    def resume(self) -> None:
        """Let it go on."""
        self._process("paused").resume()

    def cut(self) -> None:
        """Cut every connection, in the middle of whatever is under way. Clients make others."""
        self._running.order("cut")

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        """Cut every connection, and let nobody connect for as long as the block lasts."""
        life = self._running
        life.order("shut")
        try:
            yield
        finally:
            if self._life is life:
                life.order("let_in")

    def advance(self, seconds: float) -> None:
        """Have time go by at once, for the shared objects: deadlines come, and leases of those who are away run out.

        Clients that are connected count as heard all the while. Their own clocks stay as they are.

        Args:
            seconds: How much.
        """
        if not seconds >= 0:
            raise ValueError(f"time goes forward only, not by {seconds!r} seconds")
        self._running.order("pass_time", seconds)

    # -- within

    @property
    def _running(self) -> _Thread | _Process:
        if self._life is None:
            raise RuntimeError(f"{self!r} does not run: start() it first")
        return self._life

    def _process(self, what: str) -> _Process:
        life = self._running
        if not isinstance(life, _Process):
            raise RuntimeError(f"a server that is a thread cannot be {what}: make it Server(..., process=True)")
        return life


class _Thread:
    """A life of a server on a thread of this process."""

    def __init__(self, settings: Settings) -> None:
        self._server = Tame(settings)
        self._server.start()
        self.url = self._server.url

    def order(self, verb: str, *arguments: Any) -> None:
        """Have something done."""
        getattr(self._server, verb)(*arguments)

    def stop(self) -> None:
        """End it in order."""
        self._server.stop(PATIENCE)


class _Process:
    """A life of a server in a process of its own."""

    def __init__(self, settings: Settings) -> None:
        pickled = settings.pickled()
        self._process = subprocess.Popen(_serving.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            self.url = str(self._ask(pickled.hex())[0])
        except BaseException:
            self.kill()
            raise

    def order(self, verb: str, *arguments: Any) -> None:
        """Have something done."""
        self._ask(json.dumps([verb, *arguments]))

    def stop(self) -> None:
        """End it in order, even if it was paused."""
        self.resume()
        self._say(json.dumps(["stop"]))
        try:
            status = self._process.wait(PATIENCE)
        finally:
            self.kill()
        if status:
            raise RuntimeError(f"the server ended with status {status}")

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait(PATIENCE)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    pass  # what was not written has nobody to read it

    def pause(self) -> None:
        """Have it stand still."""
        stop(self._process)  # type: ignore[arg-type]

    def resume(self) -> None:
        """Let it go on."""
        if sys.platform != "win32":
            self._process.send_signal(signal.SIGCONT)

    def _ask(self, line: str) -> list[Any]:
        """Say something, and return the answer."""
        self._say(line)
        stream = self._process.stdout
        said = stream.readline() if stream is not None else ""
        if not said:
            raise RuntimeError(f"the server has ended with status {self._process.wait(PATIENCE)}")
        answer: list[Any] = json.loads(said)
        if answer[0] == "failed":
            raise RuntimeError(f"the server could not do that: {answer[1]}")
        return answer[1:]

    def _say(self, line: str) -> None:
        stream = self._process.stdin
        try:
            if stream is not None:
                stream.write(line + "\n")
                stream.flush()
        except OSError:
            pass  # it has ended, as whoever waits for it is told


def until(condition: Callable[[], Any], timeout: float = PATIENCE) -> Any:
    """Ask again and again until something is so, and return what was said then.

    For what a test cannot wait for otherwise, such as that somebody waits: each question should be a call to a server,
    ``until(lambda: shared.statistics(lock)["waiters"])``, so that nobody spins.

    Args:
        condition: What is asked; anything true is an answer.
        timeout: Seconds after which it is given up.

    Raises:
        TimeoutError: It was not so in time.
    """
    __tracebackhide__ = True
    end = monotonic() + timeout
    while not (answer := condition()):
        if monotonic() > end:
            raise TimeoutError(f"it did not come to be so within {timeout:g} seconds; the last answer was {answer!r}")
    return answer


# Tracebacks and pickles have the public name, which does not move when a private file does.
Server.__module__ = until.__module__ = "registry.testing"
