"""``registry state restore``."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from registry import errors
from registry.cli import _common, _servers
from registry.cli._state import _opened
from registry.cli._state._opened import Log

if TYPE_CHECKING:
    from registry._addresses import Place
    from registry._log._files import Directory


@click.command()
@click.argument("source", metavar="BACKUP", type=click.Path(exists=True))
@click.argument("name", required=False)
@_opened.of_a_server
@_common.yes_option
@click.option(
    "--trust",
    "trust",
    metavar="ORIGIN",
    multiple=True,
    help="Let the pickles be opened that are stamped so, in a log from elsewhere; may be given several times.",
)
def restore(
    source: str,
    name: str | None,
    address: str | None,
    directory: str | None,
    as_json: bool,
    yes: bool,
    trust: tuple[str, ...],
) -> None:
    """Put a backup in the place of what is there, which is kept aside.

    BACKUP is a file that `backup` wrote, or a directory that an earlier restore has put aside. It is checked as a whole
    before anything is done. A server that runs is stopped and started again. If there is a log, you are asked first.

    A log that was written in another directory, on another machine or by another user is restored with its pickles
    closed: opening one runs code, which whoever made the file has chosen. The command tells how many there are, and of
    which origin; --trust ORIGIN opens them.
    """
    asked = _opened.asked_for(name, address)
    if directory is not None and os.path.isfile(directory):
        raise click.UsageError(f"--state {directory} is a file; a log is restored into a directory")
    with ExitStack() as stack:
        backup = _Source(Path(source).absolute(), trust, stack)
        done: dict[str, Any] | None = None
        if directory is None or asked is not None:
            done = _restore_through(backup, asked, directory, as_json, yes)
        if done is None:
            done = {**_put_in_place(backup, _opened.stopped(asked, directory), yes), "started": None}
    if as_json:
        _common.print_json(done)
        return
    text = f"restored the state after event {done['index']} into {done['directory']}"
    if done["aside"]:
        text += f"; what was there before is in {done['aside']}"
    if done["started"]:
        text += f"; the server runs again (pid {done['started']})"
    _common.say(text)
    if not done["own"]:
        _common.say("it was not written in that directory: its pickles stay closed but for those of what --trust names")
    for origin, count in done["closed"].items():
        _common.say(f"{_common.plural(count, 'pickle')} of {origin} cannot be read; --trust {origin} opens them")


class _Source:
    """What is to be restored, once every byte of it has been looked at.

    Attributes:
        directory: Its files.
        index: Its last event; `chain` is the sum of that event's record.
        epoch: The highest number of a life in it.
        trust: The stamps of pickles in it that may be opened.
    """

    def __init__(self, path: Path, trust: tuple[str, ...], stack: ExitStack) -> None:
        from registry._log import _backup, _recovery
        from registry._log._files import Directory

        self.directory: Directory
        self.trust = trust
        if path.is_dir():
            self.directory = Directory(path)
            self.directory.judged_by(None)  # by the secret of the place that it is restored to
            if self.directory.is_empty:
                raise errors.RegistryError(f"there is no log in {path}, and nothing to restore. Nothing was changed")
            _opened.take(self.directory, stack)
            self.index, self.chain, self.epoch = _recovery.reach(self.directory)
        else:
            self.directory = backup = _backup.Backup(path)
            stack.callback(backup.close)
            manifest = backup.manifest
            self.index, self.chain, self.epoch = manifest.index, manifest.chain, manifest.epoch


def _restore_through(
    source: _Source, asked: str | None, directory: str | None, as_json: bool, yes: bool
) -> dict[str, Any] | None:
    """Stop a server that runs, restore, and start it again; None if none runs, or it has another directory."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(_servers.Stopping(asked, "state restore", as_json, yes))
        except errors.ServerNotFound:
            return None
        place = _opened.local(server.status, "restore")
        files = server.ask("log")
        path = Path(files["directory"])
        if directory is not None and os.path.realpath(directory) != os.path.realpath(path):
            return None
        if not server.notes:
            raise _common.Conflict(
                f'{server.label} was not started by "registry serve"; stop the program that has it, restore, and start '
                "it again. Nothing was done"
            )
        if server.keeper:
            raise _common.Conflict(
                f"{server.label} is kept by a service; stop that, restore, and start it again. Nothing was done"
            )
        _confirm(source, f"the state of {server.label}, which is stopped for that,", files["index"], yes)
        server.end()
        try:
            done = _put_in_place(source, _log_of(files, place), True)
        except BaseException:
            server.start_again(place)
            raise
        return {**done, "started": server.start_again(place)}


def _log_of(files: dict[str, Any], place: Place) -> Log:
    from registry._addresses import EpochFile
    from registry._log._files import Directory

    return Log(Directory(files["directory"]), EpochFile(files["epoch_file"]), place)


def _confirm(source: _Source, what: str, index: int, yes: bool) -> None:
    """Ask whether a state may go.

    Raises:
        Conflict: It may not, or nobody says so.
    """
    if yes:
        return
    text = (
        f"{what} after event {index} would be replaced by that of {source.directory.path}, after event {source.index}"
    )
    if not _common.interactive():
        raise _common.Conflict(f"{text}; nothing was done. --yes does it all the same")
    if not click.confirm(f"registry: {text}. Restore it?", err=True):
        raise _common.Conflict("nothing was done")


def _put_in_place(source: _Source, log: Log, yes: bool) -> dict[str, Any]:
    """Take the place of a server that does not run, ask, and restore."""
    from registry._addresses import ServerLock
    from registry._log import _restore

    target = log.directory
    if os.path.realpath(source.directory.path) == os.path.realpath(target.path):
        raise click.UsageError(f"{source.directory.path} is the log itself, not a backup of it")
    with ExitStack() as stack:
        if log.place is not None:
            log.place.ensure()
            lock = ServerLock(log.place.lock)
            if not lock.acquire():
                pid = (lock.read_info() or {}).get("pid", "?")
                raise _common.Conflict(f"{log.server} is served by pid {pid}, which does not answer; nothing was done")
            stack.callback(lock.release)
        target.ensure()
        _opened.take(target, stack)
        if not target.is_empty:
            newest = max(index for index, _ in (*target.segments(), *target.snapshots()))
            _confirm(source, f"the state in {log.path},", newest, yes)
        found = _restore.restore(
            source.directory, source.index, source.chain, source.epoch, target, log.epoch, source.trust
        )
    return {
        "directory": str(target.path),
        "index": source.index,
        "epoch": log.epoch.counted(),
        "aside": str(found.aside) if found.aside is not None else None,
        "own": found.own,
        "closed": found.closed,
    }
