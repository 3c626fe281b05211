"""The table of rights: that it names all that there is, that the documentation shows it, and roles of certificates."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from test_host import IDENTITY

from registry import ManagerServer, _rights, connect
from registry._attachments import Attachment
from registry._host import Host
from registry._peers import Peer
from registry._rights import ADMIN, READ, ROLES, VERBS, WRITE, lesser, may, names_in, of_certificate
from registry._stock import StockConnection
from registry._wire import OPERATORS, Kind

TRUST = (Path(__file__).resolve().parents[1] / "docs" / "trust.md").read_text()


def named(where: str) -> set[str]:
    """Return what stands in the table of one kind."""
    return {verb.name for verb in VERBS if verb.where == where}


def test_each_role_may_what_those_before_it_may() -> None:
    """And is the lesser of itself and any of those behind it."""
    assert ROLES == (READ, WRITE, ADMIN)
    for one, other in itertools.product(ROLES, ROLES):
        assert may(one, other) == (ROLES.index(one) >= ROLES.index(other))
        assert lesser(one, other) == (other if may(one, other) else one)


def test_the_table_names_each_verb_once() -> None:
    """With a role that there is."""
    assert len({(verb.where, verb.name) for verb in VERBS}) == len(VERBS)
    assert {verb.role for verb in VERBS} == set(ROLES)


def test_the_table_names_all_that_a_client_may_send() -> None:
    """The kinds of frames below those of the server, and the calls of operators."""
    assert named("frame") == {kind.name for kind in Kind if kind < Kind.ATTACHED}
    assert named("call") >= OPERATORS


def test_the_table_names_all_questions(home: Path) -> None:
    """Those of a server with a log, which has the most of them; it tells them to whoever asks another one."""
    with ManagerServer("x", log="process"), connect("x") as shared:
        with pytest.raises(AttributeError) as caught:
            shared._home.link().ask("what else")
        assert set(str(caught.value).partition("it has ")[2].split(", ")) == named("question")


def test_the_table_names_all_functions_of_a_stock_server(home: Path) -> None:
    """And the three methods that every proxy of `multiprocessing` may call."""
    with ManagerServer("x") as server:
        connection = StockConnection(server.stock, Peer("unix"), None, "", None)  # type: ignore[arg-type]
        assert named("stock") == {*connection._commands, "#GETVALUE", "__str__", "__repr__"}


def test_what_is_in_no_row_takes_all_rights() -> None:
    """So that a verb which somebody adds is closed until it is thought of."""
    assert _rights.least("question", "reboot") == ADMIN
    assert _rights.least("stock", "reboot") == ADMIN


def test_the_documentation_shows_the_table() -> None:
    """Row by row, and nothing else between the first and the last of them."""
    rows = [
        f"| {verb.where} | {verb.name if ' ' in verb.name else f'`{verb.name}`'} | `{verb.role}` | {verb.effect} |"
        for verb in VERBS
    ]
    shown = [line for line in TRUST.splitlines() if line.startswith(tuple(f"| {verb.where} |" for verb in VERBS))]
    assert shown == rows


def test_connections_are_of_operators_unless_they_are_told_otherwise() -> None:
    """As those of ``memory://``, and of a server with one key."""
    assert Attachment().role == ADMIN
    assert Host({}, IDENTITY, seed=b"s", now=1.0).identity.roles == (ADMIN,)


# Certificates, as `ssl` tells of them

CERTIFICATE: dict[str, Any] = {
    "subject": ((("countryName", "NL"),), (("commonName", "dashboard"), ("organizationName", "Ann"))),
    "issuer": ((("commonName", "CN:root"),),),
    "subjectAltName": (
        ("DNS", "web1.example.org"),
        ("DNS", "*.example.org"),
        ("URI", "spiffe://example.org/jobs"),
        ("email", "ann@example.org"),
        ("IP Address", "10.0.0.1"),
        ("DirName", ((("commonName", "boss"),),)),
    ),
}


def test_the_names_of_a_certificate() -> None:
    """Each behind its kind: what is a host for one kind is nobody for another. The issuer is not who shows it."""
    assert list(names_in(CERTIFICATE)) == [
        "CN:dashboard",
        "DNS:web1.example.org",
        "DNS:*.example.org",
        "URI:spiffe://example.org/jobs",
        "email:ann@example.org",
        "IP Address:10.0.0.1",
    ]
    assert list(names_in({})) == []


@pytest.mark.parametrize(
    ("named", "role"),
    [
        ({"CN:dashboard": "read"}, "read"),
        ({"URI:spiffe://example.org/jobs": "write"}, "write"),
        ({"CN:dashboard": "admin", "DNS:web1.example.org": "write"}, "write"),  # the least of several
        ({"DNS:web2.example.org": "admin"}, None),  # what a wildcard is good for is not who has it
        ({"CN:boss": "admin"}, None),
        ({"CN:root": "admin", "CN:CN:root": "admin"}, None),
        ({"DNS:dashboard": "admin"}, None),
        ({"CN:Dashboard": "admin"}, None),
        ({}, None),
    ],
)
def test_a_certificate_gives_the_role_of_its_names(named: dict[str, str], role: str | None) -> None:
    """Exactly those; with none that is known it gives no role."""
    assert of_certificate(CERTIFICATE, named) == role
    assert of_certificate({}, named) is None
