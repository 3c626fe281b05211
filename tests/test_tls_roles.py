"""Roles over TLS: a client has the lesser of what its key and its certificate give."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import server_processes
from certificates import HOST, Authority
from test_cli import toml

import registry
from registry import ManagerServer
from registry.cli import _settings
from registry.errors import AccessDenied

URL = f"tls://{HOST}:0"
KEYS = {role: f"the key of {role} in these tests".encode() for role in ("admin", "write", "read")}
NAMED = {"CN:dashboard": "read", "DNS:worker.example.org": "write", "URI:spiffe://example.org/operators": "admin"}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def server(authority: Authority, home: Path) -> Iterator[ManagerServer]:
    """A server that asks for certificates, whose names have roles."""
    roles = {role: KEYS[role] for role in ("read", "write")}
    with ManagerServer(URL, KEYS["admin"], tls=authority.issue(), roles=roles, certificates=NAMED) as server:
        yield server


@pytest.mark.parametrize(
    ("name", "common_name", "key", "role"),
    [
        ("host.example.org", "dashboard", "admin", "read"),
        ("host.example.org", "dashboard", "read", "read"),
        ("worker.example.org", None, "admin", "write"),
        ("worker.example.org", None, "write", "write"),
        ("worker.example.org", None, "read", "read"),
        ("worker.example.org", "dashboard", "admin", "read"),  # the least of its names
    ],
)
def test_a_client_has_the_lesser_role_of_key_and_certificate(
    server: ManagerServer, authority: Authority, name: str, common_name: str | None, key: str, role: str
) -> None:
    """It is told so when it connects, and denied the rest."""
    mine = authority.issue(name, common_name=common_name)
    with registry.connect(server.url, KEYS[key], tls=mine) as shared:
        assert shared._home.link().ensure().role == role
        assert shared.statistics()["role"] == role
        if role == "read":
            with pytest.raises(AccessDenied, match="takes the role 'write'"):
                shared.counter("c").incr()
        else:
            assert shared.counter("c").incr() == 1
            with pytest.raises(AccessDenied, match="takes the role 'admin'"):
                shared.delete(shared.counter("c"))


def test_a_certificate_without_a_role_is_let_in_for_nothing(server: ManagerServer, authority: Authority) -> None:
    """Whatever the key: an operator who gives names their roles has thought of these."""
    mine = authority.issue("anybody.example.org", common_name="worker.example.org")
    for key in KEYS.values():
        with pytest.raises(AccessDenied, match="has none of the names that have a role on the server; show another"):
            registry.connect(server.url, key, tls=mine)
    assert not server.host.clients
    assert not server.host.engine.sessions


def test_names_that_nobody_shows_are_refused(authority: Authority) -> None:
    """And those that could never be shown."""
    files = authority.issue()
    with pytest.raises(ValueError, match="no client is asked for one: give a 'ca' of tls"):
        ManagerServer("x", certificates=NAMED)
    unasked = {name: files[name] for name in ("cert", "key")}
    with pytest.raises(ValueError, match="no client is asked for one"):
        ManagerServer(URL, KEYS["admin"], tls=unasked, certificates=NAMED)
    with pytest.raises(ValueError, match="names with their kind, such as 'CN:dashboard', not 'dashboard'"):
        ManagerServer(URL, KEYS["admin"], tls=files, certificates={"dashboard": "read"})
    with pytest.raises(ValueError, match="gives the roles 'read', 'write', 'admin', not 'reed'"):
        ManagerServer(URL, KEYS["admin"], tls=files, certificates={"CN:dashboard": "reed"})


def test_a_wrong_name_on_the_command_line_is_a_wrong_use(home: Path) -> None:
    """One line, exit code 2."""
    for words, text in (
        (["--certificate", "CN:dashboard"], "--certificate takes NAME=ROLE, such as CN:dashboard=read, not 'CN:dash"),
        (["--certificate", "CN:dashboard=read"], "no client is asked for one"),
    ):
        command = server_processes.command("serve", "x", *words)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
        assert done.returncode == 2
        assert text in done.stderr.splitlines()[-1]


@toml
def test_names_of_a_configuration_keep_their_letters(tmp_path: Path) -> None:
    """They are no paths, and no keys of ours."""
    path = tmp_path / "registry.toml"
    path.write_text('[certificates]\n"URI:spiffe://example.org/operators" = "admin"\n')
    assert _settings.read(path) == {"certificates": {"URI:spiffe://example.org/operators": "admin"}}
