"""``registry state verify``, ``dump``, ``backup`` and ``restore``: the log of a server, whether it runs or not.

A server that runs is asked to close its segment. What is in closed files never changes, so that this process reads
them beside the server, which goes on; it has them open, so that the server may remove what it needs no more. The
directory of a server that does not run is taken, so that none begins meanwhile.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from registry import errors
from registry.cli import _common, _control

if TYPE_CHECKING:
    from registry._addresses import EpochFile, Place
    from registry._log._check import Checked
    from registry._log._files import Directory
    from registry._plugins import Plugins


@click.group()
def state() -> None:
    """Check, show, back up and restore what survives a server."""


def _of_a_server(function: Callable[..., Any]) -> Any:
    """Give a command what says whose log is meant."""
    option = click.option(
        "--state", "directory", metavar="DIR", type=click.Path(), help="The directory of the log itself, or a backup."
    )
    return _common.address_option(option(_common.json_option(function)))


def _with_plugins(function: Callable[..., Any]) -> Any:
    """Give a command what says with which plugins it replays."""
    only = click.option("--plugins", metavar="A,B", help="Replay with exactly these. [default: those of the server]")
    extra = click.option(
        "-p", "--plugin", "extra", metavar="X", multiple=True, help="Use this one, too, as for `serve`."
    )
    return only(extra(function))


class _Log:
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
        self.notes = _control._info(place) if place is not None else {}

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

        names: list[str] | None
        if only is not None or extra:
            sys.path.append(os.getcwd())  # as `serve` does
            names, words = (_listed(only) if only is not None else None), list(extra)
        elif "options" in self.notes:
            options = [str(word) for word in self.notes["options"]]
            sys.path.extend(str(entry) for entry in self.notes.get("path", ()) if entry not in sys.path)
            names = next(
                (_listed(word[len("--plugins=") :]) for word in options if word.startswith("--plugins=")), None
            )
            words = [word for before, word in pairwise(options) if before == "-p"]
        else:
            settings = _settings_of(self.place)
            names, words = settings.get("plugins"), settings.get("plugin", [])
        return _plugins.load(names, words).required()

    def interpreter(self) -> str:
        """Return the Python that its server runs in, if it is another one than this."""
        python = str(self.notes.get("python", sys.executable))
        return "" if python == sys.executable else python


def _listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


@contextmanager
def _opened(name: str | None, address: str | None, directory: str | None, verb: str) -> Iterator[_Log]:
    """Have the log of a server at hand for as long as the block lasts: through it if it runs, else by its lock."""
    asked = _asked(name, address)
    with ExitStack() as stack:
        log = None
        if directory is not None and os.path.isfile(directory):
            log = _packed(Path(directory).absolute(), stack)
        elif directory is None or asked is not None:
            log = _held(asked, directory, verb, stack)
        yield log if log is not None else _taken(asked, directory, stack)


def _asked(name: str | None, address: str | None) -> str | None:
    if name is not None and address is not None:
        raise click.UsageError("give NAME or --address, not both")
    return address if name is None else name


def _packed(path: Path, stack: ExitStack) -> _Log:
    """Return the log in a backup."""
    from registry._addresses import EpochFile
    from registry._log import _backup

    backup = _backup.Backup(path)
    stack.callback(backup.close)
    log = _Log(backup, EpochFile(os.devnull), None)  # nothing is counted in a backup
    log.number = backup.manifest.epoch
    log.head = (backup.manifest.index, backup.manifest.chain)
    return log


def _held(asked: str | None, directory: str | None, verb: str, stack: ExitStack) -> _Log | None:
    """Return the log of a server that runs, as it is now; None if none runs, or it has another directory."""
    from registry._addresses import EpochFile
    from registry._log._files import Held

    try:
        client = stack.enter_context(_common.connected(asked, f"state {verb}"))
    except errors.ServerNotFound:
        return None
    place = _local(asked, client.statistics(), verb)
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
    log = _Log(held, EpochFile(answer["epoch_file"]), place)
    log.upto = answer["index"]
    log.head = (answer["index"], answer["chain"])
    return log


def _local(asked: str | None, status: dict[str, Any], verb: str) -> Place:
    """Return the place of a server that keeps a log on this machine.

    Raises:
        Conflict: It keeps none, or is elsewhere.
    """
    label = f"server {status['name']!r} (pid {status['pid']})"
    place = _control._place(asked, status)
    if place is None:
        raise _common.Conflict(f'{label} runs on {status["host"]}; run "registry state {verb}" there')
    if status["log"] == "memory":
        raise _common.Conflict(f"{label} keeps everything in memory, and no log; `serve --log process` keeps one")
    return place


def _taken(asked: str | None, directory: str | None, stack: ExitStack) -> _Log:
    """Return the log of a server that does not run, and keep it from beginning to.

    Raises:
        Conflict: Somebody has it.
        RegistryError: There is none.
    """
    from registry._log import _restore

    log = _stopped(asked, directory)
    is_unfinished = _restore.is_unfinished(log.directory)
    if log.directory.is_empty and not is_unfinished:
        raise errors.RegistryError(f"there is no log in {log.path}; --state names another directory")
    _take(log.directory, stack)
    if is_unfinished:
        raise _common.Conflict(
            f"a restore into {log.path} was interrupted; start the server, which goes on with it, or run "
            "`registry state restore` again"
        )
    return log


def _stopped(asked: str | None, directory: str | None) -> _Log:
    """Return the log of a server that does not run. Nothing is looked at yet."""
    from registry._addresses import EpochFile, Place
    from registry._log._files import Directory

    place = None
    if directory is None or asked is not None:
        with _common.usage():
            place = Place(asked)
        directory = directory or _configured(place)
    if directory is not None:
        path = Path(directory).absolute()
        return _Log(Directory(path), EpochFile(path / "epoch"), place)
    if place is None:
        raise click.UsageError("give NAME, --address or --state")
    return _Log(Directory(place.state), EpochFile(place.epoch), place)


def _configured(place: Place) -> str | None:
    """Return the directory that the server of a place was told to keep its state in, if it was told one."""
    options = _control._info(place).get("options")
    if options is not None:
        return next((str(word)[len("--state=") :] for word in options if str(word).startswith("--state=")), None)
    found = _settings_of(place).get("state")
    return str(found) if found else None


def _settings_of(place: Place | None) -> dict[str, Any]:
    from registry.cli import _settings

    path = place.directory / "registry.toml" if place is not None and place.address.name is not None else None
    return _settings.read(path) if path is not None and path.is_file() else {}


def _take(directory: Directory, stack: ExitStack) -> None:
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
def _progress(verb: str) -> Iterator[Callable[..., None]]:
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


# verify


@state.command()
@click.argument("name", required=False)
@_of_a_server
@_with_plugins
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

    with _opened(name, address, directory, "verify") as log:
        why = ""
        loaded: Plugins | None = None
        try:
            loaded = log.plugins(plugins, extra)
        except errors.PluginError as error:
            if plugins is not None or extra:
                raise
            why = f"nothing was replayed: {error}"
        log.epoch.counted()  # raises where that is damaged
        with _progress("checking") as progress:
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


def _record(log: _Log, found: Checked) -> dict[str, Any]:
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


def _print_checked(log: _Log, found: Checked) -> None:
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


# dump


@state.command()
@click.argument("name", required=False)
@_of_a_server
@_with_plugins
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

    with _opened(name, address, directory, "dump") as log:
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


def _state_of(log: _Log, plugins: str | None, extra: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Return the state that a log tells of, and what people are to know of it, if anything."""
    from registry import _image
    from registry._log import _code, _dump, _recovery

    try:
        loaded = log.plugins(plugins, extra)
        with _progress("replaying") as progress:
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


def _print_state(log: _Log, found: dict[str, Any]) -> None:
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


# backup


@state.command()
@click.argument("target", metavar="FILE_OR_DIR", type=click.Path())
@click.argument("name", required=False)
@_of_a_server
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

    with _opened(name, address, directory, "backup") as log:
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


# restore


@state.command()
@click.argument("source", metavar="BACKUP", type=click.Path(exists=True))
@click.argument("name", required=False)
@_of_a_server
@_control.yes_option
def restore(
    source: str, name: str | None, address: str | None, directory: str | None, as_json: bool, yes: bool
) -> None:
    """Put a backup in the place of what is there, which is kept aside.

    BACKUP is a file that `backup` wrote, or a directory that an earlier restore has put aside. It is checked as a whole
    before anything is done. A server that runs is stopped and started again. If there is a log, you are asked first.
    """
    asked = _asked(name, address)
    if directory is not None and os.path.isfile(directory):
        raise click.UsageError(f"--state {directory} is a file; a log is restored into a directory")
    with ExitStack() as stack:
        backup = _Source(Path(source).absolute(), stack)
        done: dict[str, Any] | None = None
        if directory is None or asked is not None:
            done = _restore_through(backup, asked, directory, as_json, yes)
        if done is None:
            done = {**_put_in_place(backup, _stopped(asked, directory), yes), "started": None}
    if as_json:
        _common.print_json(done)
        return
    text = f"restored the state after event {done['index']} into {done['directory']}"
    if done["aside"]:
        text += f"; what was there before is in {done['aside']}"
    if done["started"]:
        text += f"; the server runs again (pid {done['started']})"
    _common.say(text)


class _Source:
    """What is to be restored, once every byte of it has been looked at.

    Attributes:
        directory: Its files.
        index: Its last event; `chain` is the sum of that event's record.
        epoch: The highest number of a life in it.
    """

    def __init__(self, path: Path, stack: ExitStack) -> None:
        from registry._log import _backup, _recovery
        from registry._log._files import Directory

        self.directory: Directory
        if path.is_dir():
            self.directory = Directory(path)
            if self.directory.is_empty:
                raise errors.RegistryError(f"there is no log in {path}, and nothing to restore. Nothing was changed")
            _take(self.directory, stack)
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
            server = stack.enter_context(_control._Stopping(asked, "state restore", as_json, yes))
        except errors.ServerNotFound:
            return None
        place = _local(asked, server.status, "restore")
        files = server.ask("log")
        path = Path(files["directory"])
        if directory is not None and os.path.realpath(directory) != os.path.realpath(path):
            return None
        if not server.notes:
            raise _common.Conflict(
                f'{server.label} was not started by "registry serve"; stop the program that has it, restore, and start '
                "it again. Nothing was done"
            )
        _confirm(source, f"the state of {server.label}, which is stopped for that,", files["index"], yes)
        server.end()
        try:
            done = _put_in_place(source, _log_of(files, place), True)
        except BaseException:
            _start(server, place)
            raise
        return {**done, "started": _start(server, place)}


def _log_of(files: dict[str, Any], place: Place) -> _Log:
    from registry._addresses import EpochFile
    from registry._log._files import Directory

    return _Log(Directory(files["directory"]), EpochFile(files["epoch_file"]), place)


def _start(server: _control._Stopping, place: Place) -> int:
    """Start a server again as it was, and return its pid."""
    from registry import _starter

    try:
        return _starter.launch(
            place,
            [str(option) for option in server.notes["options"]],
            monotonic() + _control.STARTING,
            python=str(server.notes["python"]),
            path=[str(entry) for entry in server.notes["path"]],
        )
    except _starter.Busy:
        return int(_control._info(place)["pid"])  # whoever looks after it has started it


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


def _put_in_place(source: _Source, log: _Log, yes: bool) -> dict[str, Any]:
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
        _take(target, stack)
        if not target.is_empty:
            newest = max(index for index, _ in (*target.segments(), *target.snapshots()))
            _confirm(source, f"the state in {log.path},", newest, yes)
        aside = _restore.restore(source.directory, source.index, source.chain, source.epoch, target, log.epoch)
    return {
        "directory": str(target.path),
        "index": source.index,
        "epoch": log.epoch.counted(),
        "aside": str(aside) if aside is not None else None,
    }
