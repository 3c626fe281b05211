"""A server that does what a test says: it loses its connections, lets nobody in, and has time go by.

On a thread of the test it is told so by calls. As a process it reads orders from standard input, one JSON list a line,
and answers each with a line on standard output: what it has done, or why it could not.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

import attrs

from registry import _plugins
from registry._pulse import is_behind
from registry.errors import PluginError
from registry.server import ManagerServer
from registry.testing import _where
from registry.testing._where import Declared

PATIENCE: Final = 30.0  # seconds for whatever a server is told to do
_PROGRAM: Final = "from registry.testing._serving import main; main()"


@attrs.frozen
class Settings:
    """What a server is made with.

    Attributes:
        address: Where it listens.
        authkey: Its key.
        plugins: What it loads: names, paths of files, and declarations.
        log: What survives it.
        lease: For how many seconds a silent session is believed.
        directory: Where it keeps its files; None for that of its name.
    """

    address: str
    authkey: bytes
    plugins: tuple[Any, ...]
    log: str
    lease: float
    directory: str | None

    def pickled(self) -> bytes:
        """Return these for a server of another process.

        Raises:
            PluginError: That could not find a plugin.
        """
        plugins = [_where.sendable(plugin) for plugin in self.plugins]
        return pickle.dumps((attrs.evolve(self, plugins=tuple(plugins)), _where.path()))


def _received(plugin: Any) -> Any:
    if not isinstance(plugin, Declared):
        return plugin
    found = plugin.made()
    if found is None:
        raise PluginError(plugin.fields["typeid"], f"there is no {plugin.where}")
    return found


class Tame(ManagerServer):
    """A server that is told what happens to it. What it is told may come from any thread but its own."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            settings.address,
            settings.authkey,
            plugins=_plugins.load(only=settings.plugins).required(),
            log=settings.log,  # type: ignore[arg-type]
            lease=settings.lease,
        )
        self._directory = settings.directory
        self._connections = self._door = _Door()

    def cut(self) -> None:
        """Cut every connection."""

        def cut() -> None:
            for connection in list(self._connections):
                connection.abort()

        self._order(cut)
        self._order(lambda: None)  # by then the loop has said goodbye to them

    def shut(self) -> None:
        """Cut every connection, and each that is made from now on."""
        self._door.is_shut = True
        self.cut()

    def let_in(self) -> None:
        """Take connections again."""
        self._door.is_shut = False

    def pass_time(self, seconds: float) -> None:
        """Have the time of the objects go on, and what is due by then happen."""

        def pass_time() -> None:
            self._offset += seconds
            for client in self.host.clients.values():
                if client.attachment is not None:
                    client.heard += seconds  # who is connected has been heard all the while
            for client, _ in self.host.judge(self.now(), is_behind):
                self.lifelines.unwatch(client)
            if self._timer is not None:
                self._timer.cancel()  # it was set by the time before
                self._timer = None
            self.host.fire(self.now())

        self._order(pass_time)

    def _order(self, function: Callable[[], None]) -> None:
        """Do something on the thread of the loop, send what comes out of it, and wait for that."""
        done: Future[None] = Future()

        def run() -> None:
            try:
                function()
            except BaseException as error:  # noqa: BLE001 - handed on to who has ordered it
                done.set_exception(error)
            else:
                done.set_result(None)

        self._post(run)
        done.result(PATIENCE)


class _Door(set[Any]):
    """The connections of a server, who is shown out at once while the door is shut."""

    is_shut = False

    def add(self, connection: Any) -> None:
        """Take one more."""
        super().add(connection)
        if self.is_shut:
            connection._handshake = None  # nothing is said, so that there is nothing to answer before it is shown out
            connection._server._soon(connection.abort)


# -- in a process of its own


def command() -> list[str]:
    """Return the words that start a server in a process of its own."""
    return [sys.executable, *["-O"] * sys.flags.optimize, "-c", _PROGRAM]


def main() -> None:
    """Serve until told to stop, or until standard input ends. The first line says how, as hexadecimal digits."""
    orders = os.fdopen(os.dup(0), "r")
    answers = os.fdopen(os.dup(1), "w")
    # What a plugin prints must not come between.
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

    def say(*row: object) -> None:
        answers.write(json.dumps(row) + "\n")
        answers.flush()

    try:
        settings, sys.path[:] = pickle.loads(bytes.fromhex(orders.readline()))
        settings = attrs.evolve(settings, plugins=tuple(map(_received, settings.plugins)))
        server = Tame(settings)
        server.open()
    except Exception as error:  # noqa: BLE001 - the test is told
        say("failed", f"{type(error).__name__}: {error}")
        sys.exit(1)
    server.on_ready = lambda: say("ready", server.url)
    known: dict[str, Callable[..., None]] = {
        "cut": server.cut,
        "shut": server.shut,
        "let_in": server.let_in,
        "pass_time": server.pass_time,
    }

    def obey() -> None:
        for line in orders:
            verb, *arguments = json.loads(line)
            if verb == "stop":
                break
            try:
                known[verb](*arguments)
            except Exception as error:  # noqa: BLE001 - the test is told
                say("failed", f"{type(error).__name__}: {error}")
            else:
                say("done")
        server.stop()

    threading.Thread(target=obey, name="orders", daemon=True).start()
    server.run()


def place() -> Path:
    """Make a directory for a server, whose path leaves room for the name of a socket."""
    import tempfile

    return Path(tempfile.mkdtemp(prefix="r", dir="/tmp" if os.path.isdir("/tmp") else None))
