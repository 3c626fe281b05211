"""What a check has found, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import attrs

from registry import errors
from registry.cli import _common


@attrs.frozen
class Finding:
    """One row of the doctor's.

    Attributes:
        check: What was looked at, in a word or two.
        status: ``"ok"``; ``"note"``, what works otherwise than it could; ``"problem"``, what does not.
        found: What is so.
        cure: What to do about it, a command where there is one; empty where there is nothing to do.
    """

    check: str
    status: Literal["ok", "note", "problem"]
    found: str
    cure: str = ""


def ok(check: str, found: str) -> Finding:
    """Return that something is well."""
    return Finding(check, "ok", found)


def note(check: str, found: str, cure: str = "") -> Finding:
    """Return that something works otherwise than it could."""
    return Finding(check, "note", found, cure)


def problem(check: str, found: str, cure: str = "") -> Finding:
    """Return that something does not work, or is not safe."""
    return Finding(check, "problem", found, cure)


def refused(check: str, error: Exception) -> Finding:
    """Return a problem that the product itself refuses to live with; its text ends with the cure."""
    text = str(error.reason if isinstance(error, errors.AccessDenied) else error)
    found, colon, cure = text.rpartition(": ")
    return problem(check, found, cure) if colon else problem(check, cure)


def show(findings: Iterable[Finding]) -> None:
    """Print findings for people: a line each, with the cure below."""
    rows: list[tuple[str | None, str | None, str]] = []
    for each in findings:
        rows.append((each.status, each.check, each.found))
        if each.cure:
            rows.append((None, None, f"cure: {each.cure}"))
    _common.print_table(rows)


def user_of(uid: int) -> str:
    """Return how people call a user."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def group_of(gid: int) -> str:
    """Return how people call a group, and who is in it."""
    import grp

    try:
        group = grp.getgrgid(gid)
    except KeyError:
        return f"gid {gid}"
    return f"{group.gr_name} ({', '.join(group.gr_mem)})" if group.gr_mem else group.gr_name
