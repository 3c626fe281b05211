"""``registry state backup``."""

from __future__ import annotations

from pathlib import Path

import click

from registry.cli import _common
from registry.cli._state import _opened


@click.command()
@click.argument("target", metavar="FILE_OR_DIR", type=click.Path())
@click.argument("name", required=False)
@_opened.of_a_server
@click.option("--force", is_flag=True, help="Replace a file of that name.")
def backup(
    target: str, name: str | None, address: str | None, directory: str | None, force: bool, as_json: bool
) -> None:
    """Write one file with a consistent state: all that was acknowledged before the command began.

    A server that runs goes on meanwhile. In a directory the file is named after the server and the time.
    """
    import time

    import msgspec

    from registry import _peers
    from registry._log import _backup

    with _opened.opened(name, address, directory, "backup") as log:
        path = Path(target).absolute()
        if not path.parent.is_dir():
            raise click.UsageError(f"there is no directory {path.parent}")
        if path.is_dir():
            path /= f"{log.server or log.directory.path.name}-{time.strftime('%Y%m%d-%H%M%S')}.registry.tar"
        try:
            manifest = _backup.write(
                log.directory,
                path,
                head=log.head,
                upto=log.upto,
                epoch=log.number,
                server=log.server,
                host=_peers.machine(),
                force=force,
                warn=_common.say,
            )
        except FileExistsError as error:
            raise _common.Conflict(f"{error.filename}: {error.strerror}") from None
    size = path.stat().st_size
    if as_json:
        _common.print_json({"file": str(path), "bytes": size, **msgspec.to_builtins(manifest)})
    else:
        _common.say(f"wrote {path}, {size:,} bytes: the state after event {manifest.index}")
