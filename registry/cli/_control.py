"""``registry status``, ``registry stop`` and ``registry restart``."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from registry import errors
from registry.cli import _common

if TYPE_CHECKING:
    from registry._addresses import Place
    from registry.client import ManagerClient

ENDING = 15.0  # seconds that a server may take to end
STARTING = 30.0

yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


@click.command()
@_common.address_option
@_common.json_option
def status(address: str | None, as_json: bool) -> None:
    """Show who the server is and how much it holds."""
    from registry import _starter

    with _common.connected(address, "status") as client:
        found = client.statistics()
    found["sessions"] -= 1  # this one
    place = _place(address, found)
    if place is not None:
        found["directory"] = str(place.directory)
    if as_json:
        _common.print_json(found)
        return
    rows: list[tuple[str, object]] = [
        (
            "server",
            f"{found['name']} (pid {found['pid']} on {found['host']}, since {_common.clock(found['since'])})",
        ),
        ("address", found["address"]),
        ("version", f"shared-registry {found['version']}, Python {found['python']}"),
        ("types", ", ".join(found["types"]) or "none"),
        ("log", _log_of(found)),
        (
            "files",
            f"large values in {found['files']}" if found.get("files") else "none; large values go through the socket",
        ),
        *((name, found[name]) for name in ("sessions", "objects", "waiting", "calls")),
    ]
    if place is not None:
        rows.insert(2, ("directory", _starter.tidy(place.directory)))
    _common.print_table(rows)


@click.command()
@_common.address_option
@_common.json_option
@yes_option
def stop(address: str | None, as_json: bool, yes: bool) -> None:
    """Stop the server. If it holds objects, it is asked first."""
    with _Stopping(address, "stop", as_json, yes) as server:
        server.end()
    if as_json:
        _common.print_json({"stopped": server.status["pid"]})
    else:
        _common.say(f"stopped {server.label}")


@click.command()
@_common.address_option
@_common.json_option
@yes_option
def restart(address: str | None, as_json: bool, yes: bool) -> None:
    """Stop the server and start it again with the same options, in the background.

    It loads its plugins anew. If it holds objects, it is asked first.
    """
    from registry import _starter

    with _Stopping(address, "restart", as_json, yes) as server:
        place, notes = server.place, server.notes
        if place is None:
            raise _common.Conflict(f"{server.label} runs on {server.status['host']}; restart it there")
        if not notes:
            raise _common.Conflict(
                f'{server.label} was not started by "registry serve"; restart the program that has it'
            )
        server.end()
        pid = _starter.launch(
            place,
            [str(option) for option in notes["options"]],
            monotonic() + STARTING,
            python=str(notes["python"]),
            path=[str(entry) for entry in notes["path"]],
        )
    if as_json:
        _common.print_json({"stopped": server.status["pid"], "started": pid})
    else:
        _common.say(f"stopped {server.label}, and started it again (pid {pid}), log {_starter.tidy(place.log)}")


class _Stopping:
    """A server that is to be stopped, once everybody concerned agrees.

    While this is open nobody else starts or stops the server.

    Attributes:
        status: What it told of itself.
        label: How people are told of it.
        place: Its directory, if it runs on this machine.
        notes: How it was started, if it was by ``registry serve``.
    """

    def __init__(self, address: str | None, verb: str, as_json: bool, yes: bool) -> None:
        self._address = address
        self._verb = verb
        self._as_json = as_json
        self._yes = yes
        self._turn: Any = None
        self.notes: dict[str, Any] = {}

    def __enter__(self) -> _Stopping:
        self._connection = _common.connected(self._address, self._verb)
        self._client = self._connection.__enter__()
        try:
            self.status = self._client.statistics()
            self.label = f"server {self.status['name']!r} (pid {self.status['pid']})"
            self.place = _place(self._address, self.status)
            if self.place is not None:
                info = _info(self.place)
                if {"options", "python", "path"} <= info.keys():
                    self.notes = info
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


def _log_of(found: dict[str, Any]) -> str:
    """Tell what survives the server."""
    if found["log"] == "memory":
        return "memory: what is shared ends with the server"
    waiting = found["events"] - found["safe"]
    text = f"{found['log']}, {_common.plural(found['events'], 'event')}"
    return f"{text}; {waiting} of them wait to be written" if waiting else text


def _place(address: str | None, status: dict[str, Any]) -> Place | None:
    """Return the directory of a server that runs on this machine, else None."""
    from registry import _peers
    from registry._addresses import Place

    if status["host"] != _peers.machine() or status["address"].startswith("memory:"):
        return None
    place = Place(status["address"] if status["name"] == status["address"] else status["name"])
    return place if _info(place).get("pid") == status["pid"] else None


def _info(place: Place) -> dict[str, Any]:
    from registry._addresses import ServerLock

    return dict(ServerLock(place.lock).read_info() or {})
