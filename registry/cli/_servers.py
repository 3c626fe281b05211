"""Servers of this machine, as commands see them from outside: their directories, their notes, and their end."""

from __future__ import annotations

import sys
from itertools import pairwise
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from registry import errors
from registry.cli import _common

if TYPE_CHECKING:
    from registry._addresses import Place
    from registry._plugins import Plugins
    from registry.client import ManagerClient

ENDING = 15.0  # seconds that a server may take to end
STARTING = 30.0


def place_of(status: dict[str, Any]) -> Place | None:
    """Return the directory of a server that runs on this machine, else None."""
    from registry import _peers
    from registry._addresses import Place

    if status["host"] != _peers.machine() or not status["address"] or status["address"].startswith("memory:"):
        return None
    place = Place(status["address"] if status["name"] == status["address"] else status["name"])
    return place if info(place).get("pid") == status["pid"] else None


def info(place: Place) -> dict[str, Any]:
    """Return what the last server of a place has noted of itself, whether it runs or not."""
    from registry._addresses import ServerLock

    return dict(ServerLock(place.lock).read_info() or {})


def tls_of(client: ManagerClient) -> dict[str, Any] | None:
    """Return what a client sees of its server's TLS: its version, whom its certificate names, and until when.

    Returns:
        None where the connection is not encrypted. Times are seconds since 1970.
    """
    layer = getattr(client._home.link()._transport, "layer", None)
    if layer is None:
        return None
    import ssl

    certificate = layer.certificate or {}
    return {
        "version": layer.version,
        "names": [name for _, name in certificate.get("subjectAltName", ())],
        "expires": ssl.cert_time_to_seconds(certificate["notAfter"]),
    }


def option(place: Place, name: str) -> str | None:
    """Return an option of ``registry serve`` that the last server of a place was given, or the next one will be.

    Args:
        place: Where it lives.
        name: One that takes a value, without dashes.
    """
    options = info(place).get("options")
    if options is not None:
        start = f"--{name}="
        return next((str(word)[len(start) :] for word in options if str(word).startswith(start)), None)
    found = settings_of(place).get(name)
    return str(found) if found else None


def settings_of(place: Place | None) -> dict[str, Any]:
    """Return what stands in the configuration file of a name."""
    from registry.cli import _settings

    path = place.directory / "registry.toml" if place is not None and place.address.name is not None else None
    return _settings.read(path) if path is not None and path.is_file() else {}


def plugins_of(place: Place | None, notes: dict[str, Any]) -> Plugins:
    """Load the plugins that a server has, or had, or will have.

    Args:
        place: Where it lives, if that is known.
        notes: What it has noted of itself, if anything.
    """
    from registry import _plugins

    if "options" not in notes:
        settings = settings_of(place)
        return _plugins.load(settings.get("plugins"), settings.get("plugin", []))
    options = [str(word) for word in notes["options"]]
    sys.path.extend(str(entry) for entry in notes.get("path", ()) if entry not in sys.path)
    start = "--plugins="
    only = next((_common.listed(word[len(start) :]) for word in options if word.startswith(start)), None)
    return _plugins.load(only, [word for before, word in pairwise(options) if before == "-p"])


class Stopping:
    """A server that is to be stopped, once everybody concerned agrees.

    While this is open nobody else starts or stops the server.

    Attributes:
        status: What it told of itself.
        label: How people are told of it.
        place: Its directory, if it runs on this machine.
        notes: How it was started, if it was by ``registry serve``.
        keeper: What restarts it, where a service keeps it; else empty.
    """

    def __init__(self, address: str | None, verb: str, as_json: bool, yes: bool) -> None:
        self._address = address
        self._verb = verb
        self._as_json = as_json
        self._yes = yes
        self._turn: Any = None
        self.notes: dict[str, Any] = {}
        self.keeper = ""

    def __enter__(self) -> Stopping:
        self._connection = _common.connected(self._address, self._verb, "admin")
        self._client = self._connection.__enter__()
        try:
            self.status = self._client.statistics()
            self.label = f"server {self.status['name']!r} (pid {self.status['pid']})"
            self.place = place_of(self.status)
            if self.place is not None:
                notes = info(self.place)
                if {"options", "python", "path"} <= notes.keys():
                    self.notes = notes
                self.keeper = str(notes.get("keeper", ""))
        except BaseException:
            self._client.close()
            raise
        return self

    def ask(self, verb: str) -> Any:
        """Ask the server itself something."""
        return self._client._home.link().ask(verb)

    def end(self) -> None:
        """Ask, stop the server, and wait until it has ended.

        Raises:
            Conflict: Something would be lost, and nobody says that it may.
        """
        self._ask()
        if self.place is None:
            self.ask("stop")
            self._client.close()
            return
        from registry import _starter
        from registry._addresses import ServerLock

        self._turn = _starter.turn(self.place)
        if not self._turn.wait(ENDING):
            raise _common.Conflict(f"another process is starting or stopping {self.label}; nothing was done")
        self.ask("stop")
        self._client.close()
        lock = ServerLock(self.place.lock)
        if not lock.wait(ENDING):
            raise errors.RegistryError(
                f"{self.label} was told to stop, and runs on; end it with `kill {self.status['pid']}`"
            )
        lock.release()

    def start_again(self, place: Place) -> int:
        """Start the server in the background, once it has ended, with the options that it had. Return its pid.

        Raises:
            ServerNotFound: It did not start; the text has its reason.
        """
        from registry import _starter

        try:
            return _starter.launch(
                place,
                [str(option) for option in self.notes["options"]],
                monotonic() + STARTING,
                python=str(self.notes["python"]),
                path=[str(entry) for entry in self.notes["path"]],
            )
        except _starter.Busy:
            return int(info(place)["pid"])  # whoever looks after it has started it

    def __exit__(self, *exception: object) -> None:
        self._client.close()
        if self._turn is not None:
            self._turn.release()

    def _ask(self) -> None:
        if self._yes or self.status["log"] != "memory":
            return
        rows = _what_would_be_lost(self._client)
        if not rows:
            return
        held = sum(1 for row in rows if row["holder"])
        said = f"{_common.plural(len(rows), 'object')}" + (f" and {_common.plural(held, 'held lock')}" if held else "")
        if self._as_json:
            _common.print_json({"conflict": rows})
        else:
            lines = [
                (row["object"], f"held by {row['holder']}" if row["holder"] else f"made by {row['maker']}")
                for row in rows
            ]
            _common.print_table(lines, err=True)
        text = f"{self.label} keeps everything in memory: {said} would be lost"
        if not _common.interactive():
            raise _common.Conflict(f"{text}; nothing was done. --yes does it all the same")
        if not click.confirm(f"registry: {text}. {self._verb.capitalize()} it?", err=True):
            raise _common.Conflict("nothing was done")


def _what_would_be_lost(client: ManagerClient) -> list[dict[str, Any]]:
    """Return the objects of a server, and who holds those that are held."""
    held = {
        (row["typeid"], row["name"]): ", ".join(_common.who(holder) for holder in row["holders"])
        for row in client._home.link().ask("locks")["locks"]
    }
    return [
        {
            "object": f"{row['typeid']}:{row['name']}",
            "maker": row["maker"],
            "holder": held.get((row["typeid"], row["name"])) or None,
        }
        for row in client.objects()
    ]
