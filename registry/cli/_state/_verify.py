"""``registry state verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from registry import errors
from registry.cli import _common
from registry.cli._state import _opened

if TYPE_CHECKING:
    from registry._log._check import Checked
    from registry._plugins import Plugins
    from registry.cli._state._opened import Log


@click.command()
@click.argument("name", required=False)
@_opened.of_a_server
@_opened.with_plugins
def verify(
    name: str | None,
    address: str | None,
    directory: str | None,
    plugins: str | None,
    extra: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check every byte of a log, and that its events lead to the states that its snapshots have.

    Nothing is changed. A server that runs goes on meanwhile; the log is checked up to the moment of the command.
    """
    from registry._log import _check

    with _opened.opened(name, address, directory, "verify") as log:
        why = ""
        loaded: Plugins | None = None
        try:
            loaded = log.plugins(plugins, extra)
        except errors.PluginError as error:
            if plugins is not None or extra:
                raise
            why = f"nothing was replayed: {error}"
        log.epoch.counted()  # raises where that is damaged
        with _opened.progress_of("checking") as progress:
            found = _check.check(log.directory, log.head, loaded, upto=log.upto, progress=progress)
        if why:
            found.skipped.append(why)
        if as_json:
            _common.print_json(_record(log, found))
        else:
            _print_checked(log, found)
        for text in found.skipped:
            _common.say(text)
        if found.skipped and log.interpreter():
            _common.say(
                f"its server runs in {log.interpreter()}: {log.interpreter()} -m registry state verify replays it"
            )
        for text in found.failures:
            _common.say(text)
    if found.failures:
        raise click.exceptions.Exit(_common.FAILED)


def _record(log: Log, found: Checked) -> dict[str, Any]:
    return {
        "directory": str(log.directory.path),
        "live": log.upto is not None,
        "segments": [{"file": each.path.name, "bytes": each.size} for each in found.segments],
        "snapshots": [
            {"file": each.path.name, "bytes": each.bytes, "event": index, "blake2b": each.hash, "agrees": each.agrees}
            for index, each in found.snapshots.items()
        ],
        "bytes": found.bytes,
        "first": found.first,
        "index": found.index,
        "chain": found.chain,
        "head": log.head[0],
        "torn": found.torn,
        "replayed": found.replayed,
        "skipped": found.skipped,
        "blake2b": found.hash or None,
        "failures": found.failures,
    }


def _print_checked(log: Log, found: Checked) -> None:
    agrees = {
        None: "not compared: the events before it were not replayed",
        True: "is what the events before it lead to",
        False: "is not what the events before it lead to",
    }
    rows: list[tuple[str, object]] = [
        ("log", log.path + (f", up to event {found.index}; its server goes on" if log.upto is not None else "")),
        (
            "files",
            f"{_common.plural(len(found.segments), 'segment')}, {_common.plural(len(found.snapshots), 'snapshot')}, "
            f"{found.bytes:,} bytes, all whole",
        ),
        ("events", f"{found.first} to {found.index}" if found.index >= found.first else f"none after {found.index}"),
        ("head", f"event {log.head[0]}, which is there" if log.head[0] else "none recorded"),
        *(("snapshot", f"of event {index}: {agrees[each.agrees]}") for index, each in found.snapshots.items()),
        ("replayed", _common.plural(found.replayed, "event")),
        ("state", f"BLAKE2b {found.hash}" if found.hash else "not known without a replay"),
    ]
    if found.torn:
        rows.append(("torn tail", f"{_common.plural(found.torn, 'byte')} at the end, put aside by the next start"))
    _common.print_table(rows)
