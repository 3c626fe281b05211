"""The log that a command is about: which one it is, and how it is had at hand for as long as the command runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from registry import errors
from registry.cli import _common, _servers

if TYPE_CHECKING:
    from registry._addresses import EpochFile, Place
    from registry._log._files import Directory
    from registry._plugins import Plugins


def of_a_server(function: Callable[..., Any]) -> Any:
    """Give a command what says whose log is meant."""
    option = click.option(
        "--state", "directory", metavar="DIR", type=click.Path(), help="The directory of the log itself, or a backup."
    )
    return _common.address_option(option(_common.json_option(function)))


def with_plugins(function: Callable[..., Any]) -> Any:
    """Give a command what says with which plugins it replays."""
    only = click.option("--plugins", metavar="A,B", help="Replay with exactly these. [default: those of the server]")
    extra = click.option(
        "-p", "--plugin", "extra", metavar="X", multiple=True, help="Use this one, too, as for `serve`."
    )
    return only(extra(function))


class Log:
    """The log that a command is about.

    Attributes:
        directory: Its files.
        epoch: The epoch file that belongs to it.
        place: The directory of its server, if that is known.
        upto: The event that it is looked at up to, where a server goes on with it; else None.
        number: The number of the life that was counted last.
        head: The last event, and its chain, that are known to have been there.
        notes: How its server was started, or the last one, if it was by ``registry serve``.
    """

    def __init__(self, directory: Directory, epoch: EpochFile, place: Place | None) -> None:
        known = epoch.read()
        self.directory = directory
        self.epoch = epoch
        self.place = place
        self.upto: int | None = None
        self.number = known.number if known is not None else 0
        self.head = (known.head, known.chain) if known is not None else (0, 0)
        self.notes = _servers.info(place) if place is not None else {}

    @property
    def path(self) -> str:
        """The directory, as people write it."""
        from registry import _starter

        return _starter.tidy(self.directory.path)

    @property
    def server(self) -> str:
        """How people call its server, empty if nobody knows."""
        return self.place.address.label if self.place is not None else ""

    def plugins(self, only: str | None, extra: Sequence[str]) -> Plugins:
        """Load the plugins that are asked for, else those that the server has, or had."""
        from registry import _plugins

        if only is None and not extra:
            return _servers.plugins_of(self.place, self.notes).required()
        sys.path.append(os.getcwd())  # as `serve` does
        return _plugins.load(_common.listed(only) if only is not None else None, extra).required()

    def interpreter(self) -> str:
        """Return the Python that its server runs in, if it is another one than this."""
        python = str(self.notes.get("python", sys.executable))
        return "" if python == sys.executable else python


@contextmanager
def opened(name: str | None, address: str | None, directory: str | None, verb: str) -> Iterator[Log]:
    """Have the log of a server at hand for as long as the block lasts: through it if it runs, else by its lock."""
    asked = asked_for(name, address)
    with ExitStack() as stack:
        log = None
        if directory is not None and os.path.isfile(directory):
            log = _packed(Path(directory).absolute(), stack)
        elif directory is None or asked is not None:
            log = _held(asked, directory, verb, stack)
        yield log if log is not None else _taken(asked, directory, stack)


def asked_for(name: str | None, address: str | None) -> str | None:
    if name is not None and address is not None:
        raise click.UsageError("give NAME or --address, not both")
    return address if name is None else name


def _packed(path: Path, stack: ExitStack) -> Log:
    """Return the log in a backup."""
    from registry._addresses import EpochFile
    from registry._log import _backup

    backup = _backup.Backup(path)
    stack.callback(backup.close)
    log = Log(backup, EpochFile(os.devnull), None)  # nothing is counted in a backup
    log.number = backup.manifest.epoch
    log.head = (backup.manifest.index, backup.manifest.chain)
    return log


def _held(asked: str | None, directory: str | None, verb: str, stack: ExitStack) -> Log | None:
    """Return the log of a server that runs, as it is now; None if none runs, or it has another directory."""
    from registry._addresses import EpochFile
    from registry._log._files import Held

    try:
        client = stack.enter_context(_common.connected(asked, f"state {verb}", "admin"))
    except errors.ServerNotFound:
        return None
    place = local(client.statistics(), verb)
    while True:
        answer = client._home.link().ask("log")
        if directory is not None and os.path.realpath(directory) != os.path.realpath(answer["directory"]):
            return None
        try:
            held = Held(answer["directory"], answer["index"])
            break
        except FileNotFoundError:
            continue  # the server has a newer snapshot, and has removed what was before it
    stack.callback(held.close)
    log = Log(held, EpochFile(answer["epoch_file"]), place)
    log.upto = answer["index"]
    log.head = (answer["index"], answer["chain"])
    return log


def local(status: dict[str, Any], verb: str) -> Place:
    """Return the place of a server that keeps a log on this machine.

    Raises:
        Conflict: It keeps none, or is elsewhere.
    """
    label = f"server {status['name']!r} (pid {status['pid']})"
    place = _servers.place_of(status)
    if place is None:
        raise _common.Conflict(f'{label} runs on {status["host"]}; run "registry state {verb}" there')
    if status["log"] == "memory":
        raise _common.Conflict(f"{label} keeps everything in memory, and no log; `serve --log process` keeps one")
    return place


def _taken(asked: str | None, directory: str | None, stack: ExitStack) -> Log:
    """Return the log of a server that does not run, and keep it from beginning to.

    Raises:
        Conflict: Somebody has it.
        RegistryError: There is none.
    """
    from registry._log import _restore

    log = stopped(asked, directory)
    is_unfinished = _restore.is_unfinished(log.directory)
    if log.directory.is_empty and not is_unfinished:
        raise errors.RegistryError(f"there is no log in {log.path}; --state names another directory")
    take(log.directory, stack)
    if is_unfinished:
        raise _common.Conflict(
            f"a restore into {log.path} was interrupted; start the server, which goes on with it, or run "
            "`registry state restore` again"
        )
    return log


def stopped(asked: str | None, directory: str | None) -> Log:
    """Return the log of a server that does not run. Nothing is looked at yet."""
    from registry._addresses import EpochFile, Place
    from registry._log._files import Directory

    place = None
    if directory is None or asked is not None:
        with _common.usage():
            place = Place(asked)
        directory = directory or _servers.option(place, "state")
    if directory is not None:
        path = Path(directory).absolute()
        return Log(Directory(path), EpochFile(path / "epoch"), place)
    if place is None:
        raise click.UsageError("give NAME, --address or --state")
    return Log(Directory(place.state), EpochFile(place.epoch), place)


def take(directory: Directory, stack: ExitStack) -> None:
    """Take a directory that no server has.

    Raises:
        Conflict: Somebody has it.
    """
    from registry._addresses import ServerLock
    from registry._log import _store

    try:
        stack.callback(_store.take(directory).release)
    except BlockingIOError:
        pid = (ServerLock(directory.lock).read_info() or {}).get("pid", "?")
        raise _common.Conflict(
            f"{directory.path} is in use by pid {pid}, which does not answer here; give the NAME or --address of that "
            "server, or stop it. Nothing was done"
        ) from None


@contextmanager
def progress_of(verb: str) -> Iterator[Callable[..., None]]:
    """Tell people how far it is, where they look on."""
    line = ""

    def tell(index: int, total: int = 0) -> None:
        nonlocal line
        line = f"registry: {verb}, event {index}"
        click.echo(f"\r{line}", nl=False, err=True)

    try:
        yield tell if sys.stderr.isatty() else lambda *numbers: None
    finally:
        if line:
            click.echo(f"\r{' ' * len(line)}\r", nl=False, err=True)
