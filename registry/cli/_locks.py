"""``registry locks`` and ``registry release``: who holds what, and how to take it from them."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import click

from registry import errors
from registry.cli import _common

if TYPE_CHECKING:
    from registry.client import ManagerClient


@click.command()
@click.argument("pattern", default="*")
@click.option("--waiters", "-w", "in_full", is_flag=True, help="Show who waits, too.")
@_common.address_option
@_common.json_option
def locks(pattern: str, in_full: bool, address: str | None, as_json: bool) -> None:
    """List what is held or awaited, and by whom.

    PATTERN is a shell pattern for typeid:name, such as "lock:*".
    """
    with _common.connected(address, "locks") as client:
        now, rows, suspected = _ask(client)
    rows = [row for row in rows if fnmatchcase(row["object"], pattern)]
    if as_json:
        _common.print_json({"now": now, "locks": rows, "suspected": suspected})
        return
    if rows:
        columns = ["object", "holder", "for", "token", "waiting", ""]
        _common.print_table((line for row in rows for line in _lines(row, now, in_full)), columns)
    for circle in suspected:
        told = ", and ".join(
            f"{who} waits for {what} until {' or '.join(whom)} can go on" for who, what, whom in circle
        )
        _common.say(f"suspected deadlock: {told}")


@click.command()
@click.argument("lock")
@click.option("--token", type=int, help="Take this grant back, where several are out.")
@_common.address_option
@_common.json_option
@_common.yes_option
def release(lock: str, token: int | None, address: str | None, as_json: bool, yes: bool) -> None:
    """Take LOCK, such as lock:login, from whoever holds it.

    The next in line has it then, and is told that it was abandoned. The former holder's next call raises LockLost;
    what it does without a call, nobody can keep it from.
    """
    from registry._wire import RELEASE

    with _common.connected(address, "release", "admin") as client:
        now, rows, _ = _ask(client)
        holder = _chosen(lock, token, [row for row in rows if row["object"] == lock])
        if not yes:
            _confirm(lock, holder, now)
        typeid, _, name = lock.partition(":")
        try:
            proxy = client._home.find(typeid, name)
            freed = proxy._remote.invoke(RELEASE, (holder["token"],))
        except errors.NoSuchObject:
            freed = False
    if not freed:
        raise _common.Conflict(f"{_common.who(holder)} does not hold {lock} any more; nothing was done")
    if as_json:
        _common.print_json({"released": lock, "holder": holder})
    else:
        _common.say(f"released {lock}, which was held by {_common.who(holder)}; its next call raises LockLost")


def _ask(client: ManagerClient) -> tuple[float, list[dict[str, Any]], list[Any]]:
    """Return the server's time, a row for each object that is held or awaited, and suspected deadlocks."""
    answer = client._home.link().ask("locks")
    for row in answer["locks"]:
        row["object"] = f"{row['typeid']}:{row['name']}" if row["name"] else row["typeid"]
    return answer["now"], answer["locks"], answer["suspected"]


def _lines(row: dict[str, Any], now: float, in_full: bool) -> Iterable[tuple[object, ...]]:
    """Return the lines of an object: one for each holder, then those who wait, if they are to be shown."""
    waiting = len(row["waiters"]) or None
    abandoned = "abandoned" if row["abandoned"] else None
    title = row["object"]
    for holder in row["holders"] or [None]:
        if holder is None:
            yield title, None, None, None, waiting, abandoned
        else:
            lasts = _common.duration(now - holder["since"])
            yield title, _described(holder), lasts, holder["token"], waiting, abandoned
        title = waiting = abandoned = None
    for waiter in row["waiters"] if in_full else ():
        left = waiter["deadline"]
        until = None if left is None else f"gives up in {_common.duration(left - now)}"
        yield None, f"  waits: {_described(waiter)}", _common.duration(now - waiter["since"]), None, None, until


def _described(row: dict[str, Any]) -> str:
    """Return one who holds or waits, with what it holds it for, and that it has no connection."""
    notes = [str(row[key]) for key in ("mode", "key") if row.get(key) is not None]
    if row["state"] != "connected":
        notes.append(row["state"])
    return f"{_common.who(row)} [{', '.join(notes)}]" if notes else _common.who(row)


def _chosen(lock: str, token: int | None, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the holder whose grant is to be taken.

    Raises:
        Conflict: There is none, or more than one.
    """
    holders: list[dict[str, Any]] = [holder for row in rows for holder in row["holders"]]
    found = [holder for holder in holders if token in (None, holder["token"])]
    if not found:
        by = f" by the grant {token}" if token is not None and holders else ""
        raise _common.Conflict(f"nobody holds {lock}{by}; nothing was done")
    if len(found) > 1:
        said = ", ".join(f"{_common.who(holder)} by {holder['token']}" for holder in found)
        raise _common.Conflict(f"{lock} is held by several: {said}; name one with --token. Nothing was done")
    if found[0]["token"] is None:
        raise _common.Conflict(
            f"{_common.who(found[0])} holds {lock} without a grant that could be taken; nothing was done"
        )
    return found[0]


def _confirm(lock: str, holder: dict[str, Any], now: float) -> None:
    """Say who holds the lock and whether it lives, and ask.

    Raises:
        Conflict: Nobody says that it may be taken.
    """
    lives = {
        "connected": "it lives, and may be at work on what the lock protects",
        "suspended": "it has no connection now, and may come back",
    }[holder["state"]]
    lasts = _common.duration(now - holder["since"])
    text = f"{lock} is held by {_common.who(holder)}, for {lasts}: {lives}"
    if not _common.interactive():
        raise _common.Conflict(f"{text}; nothing was done. --yes releases it all the same")
    if not click.confirm(f"registry: {text}. Release it?", err=True):
        raise _common.Conflict("nothing was done")
