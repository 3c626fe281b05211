"""``registry plugins``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from registry.cli import _common

if TYPE_CHECKING:
    from registry._plugins import Plugin


@click.command()
@click.option("--plugins", metavar="A,B", help="Look at exactly these plugins.")
@click.option("-p", "--plugin", "extra", metavar="X", multiple=True, help="Look at this plugin, too.")
@click.option("--check", is_flag=True, help="Show where a broken plugin broke; fail unless all are on.")
@click.option("--strict", is_flag=True, help="Load them as `serve --strict` does.")
@_common.address_option
@_common.json_option
def plugins(
    plugins: str | None, extra: tuple[str, ...], check: bool, strict: bool, address: str | None, as_json: bool
) -> None:
    """List the plugins that this Python has, and what became of each.

    With -a, also which version of each the server runs.
    """
    from registry import _plugins

    only = _common.listed(plugins) if plugins is not None else None
    if only or extra:
        sys.path.append(os.getcwd())  # as `serve` does
    found = _plugins.load(only, list(extra), strict)
    running: dict[str, str] | None = None
    if address is not None:
        with _common.connected(address, "plugins") as client:
            running = client.statistics()["plugins"]
    if as_json:
        _common.print_json([_record(plugin, found.fingerprint(), running) for plugin in found.plugins])
    else:
        _print(found.plugins, running)
        for plugin in found.problems:
            _common.say(f"plugin {plugin.name} is {plugin.status}: {plugin.reason}")
            if check and plugin.traceback:
                click.echo(plugin.traceback, err=True, nl=False)
    if check and found.problems:
        raise click.exceptions.Exit(_common.FAILED)


def _record(plugin: Plugin, fingerprint: dict[str, str], running: dict[str, str] | None) -> dict[str, Any]:
    record: dict[str, Any] = {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "source": plugin.source,
        "types": list(plugin.typeids),
        "status": plugin.status,
        "reason": plugin.reason,
        "fingerprint": fingerprint.get(plugin.name),
    }
    return record if running is None else {**record, "server": running.get(plugin.name)}


def _print(found: tuple[Plugin, ...], running: dict[str, str] | None) -> None:
    columns = ["plugin", "status", "from", "types"]
    rows: list[list[object]] = []
    for plugin in found:
        origin = f"{plugin.distribution} {plugin.version}".strip() or plugin.source
        rows.append([plugin.name, plugin.status, origin, ", ".join(plugin.typeids)])
    if running is not None:
        columns.append("on the server")
        for row, plugin in zip(rows, found):
            row.append(running.get(plugin.name, "not there"))
        known = {plugin.name for plugin in found}
        rows += [[name, "not here", None, None, version] for name, version in running.items() if name not in known]
    _common.print_table(rows, columns)
