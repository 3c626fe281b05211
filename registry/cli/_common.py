"""What the commands share: their common options, how they speak to people, and how they end."""

from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from registry import errors

if TYPE_CHECKING:
    from registry.client import ManagerClient

F = TypeVar("F", bound=Callable[..., Any])

FAILED, USAGE, NO_SERVER, DENIED, CONFLICT = 1, 2, 3, 4, 5

PATIENCE = 10.0  # seconds for a server's answer

_TLS = "registry.tls"  # what a command has been given of TLS, in its context


class Conflict(Exception):
    """Raised when something stands against what was asked for, and nothing was done."""


def address_option(function: F) -> F:
    """Give a command ``-a``, and the files that it takes for TLS."""
    helps = {
        "ca": "For tls://: who may have signed the server's certificate. [default: REGISTRY_TLS_CA, else the system's]",
        "cert": "For tls://: the certificate to show. [default: REGISTRY_TLS_CERT]",
        "key": "For tls://: its private key. [default: REGISTRY_TLS_KEY]",
    }
    for name, text in reversed(helps.items()):
        path = click.Path(dir_okay=False)
        function = click.option(
            f"--tls-{name}", metavar="F", type=path, expose_value=False, callback=_note_tls, help=text
        )(function)
    return address_alone(function)


def address_alone(function: F) -> F:
    """Give a command ``-a``."""
    return click.option(
        "-a",
        "--address",
        metavar="ADDRESS",
        help="The server: a name or a URL. [default: REGISTRY_ADDRESS, else 'default']",
    )(function)


def _note_tls(context: click.Context, option: click.Parameter, path: str | None) -> None:
    if path is not None:
        context.meta.setdefault(_TLS, {})[str(option.name).removeprefix("tls_")] = path


def json_option(function: F) -> F:
    """Give a command ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(function)


def yes_option(function: F) -> F:
    """Give a command ``--yes``."""
    return click.option("--yes", "-y", is_flag=True, help="Do not ask.")(function)


def listed(text: str) -> list[str]:
    """Return the items of a text that has commas between them."""
    return [item.strip() for item in text.split(",") if item.strip()]


@contextmanager
def usage() -> Iterator[None]:
    """Make a wrong value a wrong use of the command: the user typed it."""
    try:
        yield
    except errors.RegistryError:
        raise
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def client_of(address: str | None, what: str) -> ManagerClient:
    """Return the client of a command, which starts no server. It has not connected yet.

    Args:
        address: As the user gave it.
        what: The command, for the server's list of sessions.

    Raises:
        ValueError: The files of TLS are given for an address that speaks none, or one of a pair is missing.
    """
    from registry import _addresses
    from registry.client import ManagerClient

    refuse_stock(address)
    context = click.get_current_context(silent=True)
    tls = context.meta.get(_TLS) if context is not None else None
    if tls:
        tls = {**_addresses.environment_tls().paths, **tls}
    return ManagerClient(address, start=False, timeout=PATIENCE, label=f"registry {what}", tls=tls)


@contextmanager
def connected(address: str | None, what: str, role: str = "read") -> Iterator[ManagerClient]:
    """Connect to a server that runs, as `client_of`.

    Args:
        address: As the user gave it.
        what: The command, for the server's list of sessions.
        role: The least that the command takes. It is looked at before anybody is asked whether something may be done.

    Raises:
        AccessDenied: The key gives less, or is none of the server's.
    """
    from registry import _rights

    with usage():
        client = client_of(address, what)
    with client:
        with usage():
            client.connect()
        if role != _rights.READ:
            link = client._home.link()
            given = link.ensure().role
            if not _rights.may(given, role):
                raise _rights.denial(f'"registry {what}"', role, given).located(link.label)
        yield client


def refuse_stock(address: str | None) -> None:
    """Say that a stock `multiprocessing` server is nothing that a command looks after."""
    from registry.client import STOCK, written

    url = written(address)
    if url.startswith(STOCK):
        raise click.UsageError(
            f"{url} is a stock multiprocessing server, which none of these commands can look after; registry.connect() "
            "uses it, and its own program stops it"
        )


# Speaking


def say(text: str) -> None:
    """Tell people one thing."""
    click.echo(f"registry: {text}", err=True)


def print_json(value: object) -> None:
    """Print a value for programs."""
    import json

    click.echo(json.dumps(value, indent=2, default=str))


def print_table(rows: Iterable[Sequence[object]], columns: Sequence[str] = (), *, err: bool = False) -> None:
    """Print rows in columns: fitted to a terminal, and otherwise each row on one line.

    Args:
        rows: The cells; None is an empty one.
        columns: Their headings, if they have any.
        err: Print to the standard error.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, show_header=bool(columns), pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*(Text("" if cell is None else shown(cell)) for cell in row))
    console = Console(stderr=err, highlight=False)
    if not console.is_terminal:
        console.width = 10_000
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        click.echo(line.rstrip(), err=err)


def shown(value: object) -> str:
    """Return a text without what would steer a terminal: names and labels come from any client."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "backslashreplace").decode()
        for letter in str(value)
    )


def clock(seconds: float) -> str:
    """Return a time as people write it."""
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def duration(seconds: float) -> str:
    """Return how long something lasts as people write it: ``42 s``, ``3 min 20 s``, ``5 h 1 min``, ``3 d 4 h``."""
    left = max(0, int(seconds))
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if left >= size:
            rest = left % size // part
            return f"{left // size} {unit} {rest} {smaller}" if rest else f"{left // size} {unit}"
    return f"{left} s"


def who(row: Mapping[str, Any]) -> str:
    """Return the text for one who holds or waits, as a server's statistics tell them."""
    from registry._leaves import Caller

    return str(Caller(*(row[field] for field in Caller._fields)))


def plural(count: int, noun: str) -> str:
    """Return ``1 object`` or ``2 objects``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def interactive() -> bool:
    """Tell whether there is somebody who could answer a question."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr is not None and sys.stderr.isatty()


def show_warnings_to_people() -> None:
    """Show our warnings like all else that is said; called inside ``warnings.catch_warnings()``."""
    usual = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: Any = None,
    ) -> None:
        if issubclass(category, errors.StaleServer):
            say(f"warning: {message}")
        else:
            usual(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    warnings.simplefilter("always", errors.StaleServer)


# Ending


def text_of(error: BaseException) -> str:
    """Return what people are told of an error, as one line."""
    if isinstance(error, click.UsageError):
        text = error.format_message()
        if error.ctx is not None:
            text = f'{text.rstrip(".")} (see "{error.ctx.command_path} --help")'
    elif isinstance(error, click.ClickException):
        text = error.format_message()
    elif isinstance(error, click.Abort):
        text = "interrupted"
    elif isinstance(error, (errors.RegistryError, Conflict)):
        text = str(error)
    elif isinstance(error, OSError):
        named = f": {error.filename}" if error.filename is not None else ""
        text = f"{error.strerror or error}{named}"
    else:
        text = f"unexpected {type(error).__name__}: {error}; REGISTRY_DEBUG=1 shows where"
    return " ".join(shown(line.strip()) for line in text.splitlines())


def exit_code(error: BaseException) -> int:
    """Return the exit code that an error stands for."""
    if isinstance(error, click.UsageError):
        return USAGE
    if isinstance(error, errors.ServerNotFound):
        return NO_SERVER
    if isinstance(error, PermissionError):
        return DENIED
    # A directory of a log that another server has is told by a `BlockingIOError`.
    conflicts = (Conflict, errors.DefinitionConflict, errors.EditConflict, errors.NotOwner, BlockingIOError)
    if isinstance(error, conflicts) or is_taken(error):
        return CONFLICT
    return FAILED


def is_taken(error: BaseException) -> bool:
    """Tell whether an error says that somebody else serves at an address."""
    return isinstance(error, OSError) and error.errno == errno.EADDRINUSE


def size(count: int) -> str:
    """Return a number of bytes as people write it: ``812 bytes``, ``64 MB``, ``1.9 GB``."""
    if count < 1 << 10:
        return plural(count, "byte")
    unit, bits = next(row for row in (("GB", 30), ("MB", 20), ("kB", 10)) if count >= 1 << row[1])
    value = count / (1 << bits)
    return f"{value:.1f} {unit}" if value < 10 and value != int(value) else f"{value:.0f} {unit}"


def amount(count: float, unit: str) -> str:
    """Return a number of something as people write it: ``64 MB``, ``3 objects``."""
    return size(int(count)) if unit == "bytes" else f"{count} {unit}"
