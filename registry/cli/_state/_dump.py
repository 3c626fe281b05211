"""``registry state dump``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from registry import errors
from registry.cli import _common
from registry.cli._state import _opened

if TYPE_CHECKING:
    from registry.cli._state._opened import Log


@click.command()
@click.argument("name", required=False)
@_opened.of_a_server
@_opened.with_plugins
@click.option("--events", is_flag=True, help="List the events of the log instead of the state.")
def dump(
    name: str | None,
    address: str | None,
    directory: str | None,
    plugins: str | None,
    extra: tuple[str, ...],
    events: bool,
    as_json: bool,
) -> None:
    """Show what a log holds: objects with their values, sessions, locks. Pickles are named, and never opened."""
    from registry._log import _dump

    with _opened.opened(name, address, directory, "dump") as log:
        if events:
            _print_events(_dump.events(log.directory, log.upto), as_json)
            return
        found, behind = _state_of(log, plugins, extra)
        if behind:
            _common.say(behind)
        if as_json:
            _common.print_json(_dump.plain(found))
        else:
            _print_state(log, found)


def _state_of(log: Log, plugins: str | None, extra: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Return the state that a log tells of, and what people are to know of it, if anything."""
    from registry import _image
    from registry._log import _code, _dump, _recovery

    try:
        loaded = log.plugins(plugins, extra)
        with _opened.progress_of("replaying") as progress:
            recovered = _recovery.recover(
                log.directory, loaded.declarations, _code.code(loaded), log.head, upto=log.upto, progress=progress
            )
        return _dump.state(_image.capture(recovered.engine), recovered.engine), "; ".join(recovered.warnings)
    except (errors.CodeChanged, errors.PluginError, errors.UnknownType, ValueError) as error:
        newest = _recovery.newest_snapshot(log.directory, _common.say)
        if newest is None:
            raise
        _, picture, image = newest
        text = f"this is the state of the last snapshot, of event {picture.index}; what followed is not in it: {error}"
        return _dump.state(bytes(image)), text


def _print_state(log: Log, found: dict[str, Any]) -> None:
    rows: list[tuple[str, object]] = [
        ("log", log.path),
        ("state", f"after event {found['index']}, {_common.clock(found['now'])}, life {found['epoch']}"),
        ("lives", ", ".join(f"from event {life['event']}" for life in found["lives"])),
        *(("session", f"{row['session']}: {row['who']}") for row in found["sessions"]),
    ]
    _common.print_table(rows)
    for row in found["objects"]:
        stopped = f", stopped: {row['stopped']}" if row["stopped"] else ""
        click.echo()
        click.echo(_common.shown(f"{row['object']}({row['arguments']}), made by {row['maker']}{stopped}"))
        shown = row["state"] if row["content"] is None else row["content"]
        click.echo(_common.shown(f"  {shown!r}"))
        for holder in row["holders"] or ():
            since = _common.clock(holder["since"]) if holder["since"] else "?"
            click.echo(_common.shown(f"  held by {holder['who']} since {since}, token {holder['token']}"))
        for waiter in row["waiting"]:
            click.echo(_common.shown(f"  awaited by {waiter['who']} since {_common.clock(waiter['since'])}"))


def _print_events(rows: Iterable[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        _print_json_rows(rows)
        return
    for row in rows:
        who = f"session {row['session']}" if "session" in row else ""
        what = f"{row.get('object', '')}{'.' + row['method'] if 'method' in row else ''}"
        if "arguments" in row:
            what += f"({row['arguments']})"
        said = [str(row["index"]), _common.clock(row["now"]), row["event"], who, what]
        click.echo(_common.shown("  ".join(filter(None, said))))


def _print_json_rows(rows: Iterable[dict[str, Any]]) -> None:
    """Print a JSON array row by row: a log may be longer than the memory is large."""
    import json

    from registry._log import _dump

    before = "[\n"
    for row in rows:
        click.echo(before + json.dumps(_dump.plain(row)), nl=False)
        before = ",\n"
    click.echo("[]" if before == "[\n" else "\n]")
