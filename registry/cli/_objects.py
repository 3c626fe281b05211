"""``registry objects``, ``call`` and ``delete``: what a server holds, and what can be done to it by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from registry import errors
from registry.cli import _common

if TYPE_CHECKING:
    from registry.client import ManagerClient
    from registry.proxies import Remote

if TYPE_CHECKING:
    pass


@click.command()
@click.argument("pattern", default="*")
@_common.address_option
@_common.json_option
def objects(pattern: str, address: str | None, as_json: bool) -> None:
    """List what the server holds.

    PATTERN is a shell pattern for typeid:name, such as "dict:*".
    """
    with _common.connected(address, "objects") as client:
        rows = client.objects(pattern)
    if as_json:
        _common.print_json(rows)
        return
    if rows:
        _common.print_table(
            [
                (
                    f"{row['typeid']}:{row['name']}",
                    row["maker"],
                    _common.clock(row["made"]),
                    row["waiting"] or None,
                    "ends with the server" if row["ephemeral"] else None,
                )
                for row in rows
            ],
            ["object", "made by", "since", "waiting", ""],
        )


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("object", metavar="OBJECT")
@click.argument("method")
@click.argument("arguments", metavar="[ARG]...", nargs=-1)
@_common.address_option
@_common.json_option
def call(object: str, method: str, arguments: tuple[str, ...], address: str | None, as_json: bool) -> None:
    """Call METHOD of OBJECT, such as counter:hits, and show what it returns.

    An ARG is JSON, such as 42, true, null or [1, 2], and text where it is none: "dict:prices setitem BTC 97000". The
    underscores of special methods may be left out. No object is made by this: OBJECT must be there, unless its type has
    one object only. A method that waits does so until it is interrupted; what is taken, such as a lock, is given back
    at the end of the command. Pickles are named, and never opened.
    """
    from registry.cli._shown import ShownRemote, plain

    given = [_argument(text) for text in arguments]
    with _common.connected(address, "call") as client:
        typeid, name = _named(client, object)
        remote = ShownRemote.of(client, typeid, name)
        spelled = _spelled(remote, object, method)
        try:
            value = remote.invoke(spelled, given)
        except errors.RegistryError:
            raise
        except Exception as error:
            raise click.ClickException(f"{object}.{method}() raised {type(error).__name__}: {error}") from error
    if as_json:
        _common.print_json(plain(value))
    elif value is not None:
        click.echo(_common.shown(repr(value)))


def _argument(text: str) -> Any:
    """Return what a word means; one that begins like an option is a number, or was meant for one.

    Raises:
        click.UsageError: It is no option.
    """
    try:
        return json.loads(text)
    except ValueError:
        if text.startswith("-"):
            raise click.UsageError(
                f"No such option: {text}; a text that begins so is given as JSON: '{json.dumps(text)}'"
            ) from None
        return text


def _named(client: ManagerClient, title: str) -> tuple[str, str]:
    """Return the type and the name that ``typeid:name`` means.

    Raises:
        UnknownType: The server has no such type.
        click.UsageError: Objects of that type are named otherwise.
    """
    typeid, _, name = title.partition(":")
    is_single = client._home.interface(typeid).per == "server"
    if is_single and name:
        raise click.UsageError(f"a server has one {typeid}, which has no name: write {typeid}")
    if not is_single and not name:
        raise click.UsageError(f"each {typeid} has a name: write {typeid}:NAME; `registry objects` lists them")
    return typeid, name


def _spelled(remote: Remote, title: str, method: str) -> str:
    """Return the name that the server knows a method by: ``getitem`` is ``__getitem__``, unless it is there as such.

    Raises:
        click.UsageError: There is no such method.
    """
    exposed = remote.resolve().exposed
    for name in (method, f"__{method}__"):
        if name in exposed:
            return name
    raise click.UsageError(f"shared {title} has no method {method!r}; it has {', '.join(exposed)}")


@click.command()
@click.argument("object", metavar="OBJECT")
@_common.address_option
@_common.json_option
@_common.yes_option
def delete(object: str, address: str | None, as_json: bool, yes: bool) -> None:
    """Delete OBJECT, such as dict:prices, with all that it holds.

    Calls that wait in it end with NoSuchObject, and what is held of it is lost to its holder. Each process that has
    used it is told so once; its next call makes a new, empty one.
    """
    with _common.connected(address, "delete", "admin") as client:
        typeid, name = _named(client, object)
        told = client._home.link().ask("statistics", typeid, name)
        if not yes:
            _confirm(object, told)
        client.delete(client._home.find(typeid, name))
    if as_json:
        _common.print_json({"deleted": object})
    else:
        _common.say(f"deleted {object}")


def _confirm(title: str, told: dict[str, Any]) -> None:
    """Say whom the deletion concerns, and ask.

    Raises:
        Conflict: Nobody says that it may go.
    """
    concerned = [f"held by {_common.who(holder)}" for holder in told.get("holders") or ()]
    if told.get("waiters"):
        concerned.append(f"{len(told['waiters'])} waiting")
    made = f"made by {told['maker']} at {_common.clock(told['made'])}"
    text = f"{title} would be gone with all that it holds: {', '.join([made, *concerned])}"
    if not _common.interactive():
        raise _common.Conflict(f"{text}; nothing was done. --yes does it all the same")
    if not click.confirm(f"registry: {text}. Delete it?", err=True):
        raise _common.Conflict("nothing was done")
