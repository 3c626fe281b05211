"""``registry status``, ``registry stop`` and ``registry restart``."""

from __future__ import annotations

from typing import Any

import click

from registry.cli import _common, _servers


@click.command()
@_common.address_option
@_common.json_option
def status(address: str | None, as_json: bool) -> None:
    """Show who the server is and how much it holds."""
    from registry import _starter

    with _common.connected(address, "status") as client:
        found = client.statistics()
        tls = _servers.tls_of(client)
    found["sessions"] -= 1  # this one
    if tls is not None:
        found["tls"] = tls
    place = _servers.place_of(found)
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
        ("role", f"{found['role']}; there are keys for {', '.join(found['roles'])}"),
        ("types", ", ".join(found["types"]) or "none"),
        ("log", _log_of(found)),
        (
            "files",
            f"large values in {found['files']}" if found.get("files") else "none; large values go through the socket",
        ),
        *((name, found[name]) for name in ("sessions", "objects", "waiting", "calls")),
        *(("limits", text) for text in _limits_of(found)),
    ]
    if tls is not None:
        names, expires = ", ".join(tls["names"]), _common.clock(tls["expires"])
        rows.insert(2, ("tls", f"{tls['version']}, with a certificate for {names} that expires at {expires}"))
    if place is not None:
        rows.insert(2, ("directory", _starter.tidy(place.directory)))
    _common.print_table(rows)


@click.command()
@_common.address_option
@_common.json_option
@_common.yes_option
def stop(address: str | None, as_json: bool, yes: bool) -> None:
    """Stop the server. If it holds objects, it is asked first."""
    with _servers.Stopping(address, "stop", as_json, yes) as server:
        server.end()
    if as_json:
        _common.print_json({"stopped": server.status["pid"]})
    else:
        _common.say(f"stopped {server.label}")


@click.command()
@_common.address_option
@_common.json_option
@_common.yes_option
def restart(address: str | None, as_json: bool, yes: bool) -> None:
    """Stop the server and start it again with the same options, in the background.

    It loads its plugins anew. If it holds objects, it is asked first.
    """
    from registry import _starter

    with _servers.Stopping(address, "restart", as_json, yes) as server:
        place = server.place
        if place is None:
            raise _common.Conflict(f"{server.label} runs on {server.status['host']}; restart it there")
        if not server.notes:
            raise _common.Conflict(
                f'{server.label} was not started by "registry serve"; restart the program that has it'
            )
        if server.keeper:
            raise _common.Conflict(f"{server.label} is kept by a service; {server.keeper} does it. Nothing was done")
        server.end()
        pid = server.start_again(place)
    if as_json:
        _common.print_json({"stopped": server.status["pid"], "started": pid})
    else:
        _common.say(f"stopped {server.label}, and started it again (pid {pid}), log {_starter.tidy(place.log)}")


def _limits_of(found: dict[str, Any]) -> list[str]:
    """Tell how far each limit is used."""
    texts = []
    for name, unit, most, used in found.get("limits", []):
        limit = _common.amount(most, unit) if most else "an unknown size"
        there = "" if used is None else f"{_common.size(used) if unit == 'bytes' else used} of "
        texts.append(f"{name} {there}{limit}")
    return [", ".join(texts)] if texts else []


def _log_of(found: dict[str, Any]) -> str:
    """Tell what survives the server."""
    if found["log"] == "memory":
        return "memory: what is shared ends with the server"
    waiting = found["events"] - found["safe"]
    text = f"{found['log']}, {_common.plural(found['events'], 'event')}"
    return f"{text}; {waiting} of them wait to be written" if waiting else text
