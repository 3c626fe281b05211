"""``registry serve`` with keys for roles: by the command line, by the configuration, after a restart, for a group."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import click
import pytest
import server_processes
from test_cli import toml
from test_groups import a_group_of_ours, posix

import registry
from registry import cli, errors
from registry._addresses import Place
from registry.cli import _serve, _servers, _settings

READ, WRITE = b"the key of readers in these tests", b"the key of writers in these tests"


def key_file(directory: Path, role: str, mode: int = 0o600) -> Path:
    """Write the key of a role, with a newline behind it as editors do."""
    path = directory / f"{role}.key"
    path.write_bytes((READ if role == "read" else WRITE) + b"\n")
    path.chmod(mode)
    return path


def serve(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a server that is expected to give up at once."""
    command = server_processes.command("serve", *words)
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)


def role_of(key: bytes | None) -> str:
    """Return the role that a key gives on the server ``x``."""
    with registry.connect("x", key, start=False) as shared:
        return str(shared.statistics()["role"])


def test_keys_of_roles_are_named_on_the_command_line(home: Path, tmp_path: Path) -> None:
    """Each gives its role; a server that is started again has them, from whatever directory."""
    for role in ("read", "write"):
        key_file(tmp_path, role)
    with subprocess.Popen(
        server_processes.command("serve", "x", "--role", "read=read.key", "--role", "write=write.key", "--json"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert [role_of(key) for key in (None, READ, WRITE)] == ["admin", "read", "write"]
        assert cli.run(["restart", "-a", "x", "--yes"]) == 0
        assert process.wait(10) == 0
    options = _servers.info(Place("x"))["options"]
    assert {f"--role={role}={tmp_path / role}.key" for role in ("read", "write")} <= set(options)
    assert [role_of(key) for key in (None, READ, WRITE)] == ["admin", "read", "write"]
    server_processes.end_all(home)


@toml
def test_keys_of_roles_are_named_in_the_configuration(home: Path, tmp_path: Path) -> None:
    """Beside it; also for a server that is started on demand. The command line goes before."""
    directory = home / "x"
    directory.mkdir(0o700)
    key_file(directory, "read")
    (directory / "registry.toml").write_text('[roles]\nread = "read.key"\n')
    with registry.connect("x") as shared:
        assert list(shared.statistics()["roles"]) == ["admin", "read"]
        assert role_of(READ) == "read"
    server_processes.end_all(home)
    write = key_file(tmp_path, "write")
    with server_processes.running("serve", "x", "--role", f"write={write}", "--json") as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert role_of(WRITE) == "write"
        with pytest.raises(errors.AccessDenied, match="another key"):
            role_of(READ)


@toml
@pytest.mark.parametrize("text", ["roles = 'read.key'", "[roles]\nread = 3", "[roles]\nread = ''"])
def test_a_wrong_table_of_roles_is_named(tmp_path: Path, text: str) -> None:
    """With the file."""
    path = tmp_path / "registry.toml"
    path.write_text(text)
    with pytest.raises(click.UsageError) as caught:
        _settings.read(path)
    assert str(path) in caught.value.message
    assert "roles must be a table of key files, not " in caught.value.message


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--role", "read"], "--role takes ROLE=FILE, such as read=read.key, not 'read'"),
        (["--role", "=x"], "--role takes ROLE=FILE"),
        (["--role", "read="], "--role takes ROLE=FILE"),
        (["--role", "read=a", "--role", "read=b"], "--role gives the role 'read' two key files, and it has one key"),
        (["--role", "reed={key}"], "roles has keys for 'read' and 'write', and authkey is that of 'admin'; not 'reed'"),
        (["--role", "admin={key}"], "not 'admin'"),
    ],
)
def test_a_wrong_role_is_a_wrong_use(home: Path, tmp_path: Path, words: list[str], text: str) -> None:
    """One line, exit code 2, and nobody is served."""
    key = key_file(tmp_path, "read")
    done = serve("x", *[word.format(key=key) for word in words])
    assert done.returncode == 2
    assert text in done.stderr.splitlines()[-1]


def test_key_files_of_roles_are_checked_as_that_of_the_server(home: Path, tmp_path: Path) -> None:
    """One that is not there, is open to others or is that of another role is refused: exit code 4."""
    missing = serve("x", "--role", f"read={tmp_path}/nothing")
    assert (missing.returncode, missing.stderr.splitlines()[-1]) == (
        4,
        f"registry: access denied: the key file of the role 'read' is not there: {tmp_path}/nothing",
    )
    key = key_file(tmp_path, "read")
    same = serve("x", "--role", f"read={key}", "--role", f"write={key}")
    assert same.returncode == 4
    assert "the roles 'read' and 'write' of x have one key" in same.stderr.splitlines()[-1]
    if os.name == "posix":
        key.chmod(0o644)
        open_ = serve("x", "--role", f"read={key}")
        assert open_.returncode == 4
        assert f"{key} is open to others" in open_.stderr.splitlines()[-1]
    assert server_processes.pid_of(home / "x") is None


@posix
def test_members_of_a_group_get_the_keys_of_their_roles(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And not that of the server, which stays closed to them; whether they can read theirs is told."""
    key = key_file(tmp_path, "write")
    gid = a_group_of_ours()
    with server_processes.running("serve", "x", "--group", str(gid), "--role", f"write={key}", "--json") as process:
        assert process.stdout is not None
        assert json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")["name"] == "x"
        assert Place("x").key.stat().st_mode & 0o777 == 0o600
        assert Place("x").socket.stat().st_mode & 0o777 == 0o660
        process.terminate()
        assert process.stderr is not None
        said = process.stderr.read()
    assert f"connect with REGISTRY_ADDRESS=unix://{Place('x').socket} REGISTRY_AUTHKEY_FILE={key}" in said
    assert f"cannot read the key: chgrp {gid} {key}; chmod 640 {key}" in said
    assert str(Place("x").key) not in said


def test_a_socket_elsewhere_needs_a_key_that_members_can_read() -> None:
    """Of a role, too."""
    where = registry._addresses.parse("unix:///tmp/x.sock")
    gid = str(os.getegid()) if hasattr(os, "getegid") else "0"
    with pytest.raises(ValueError, match="with --authkey-file or --role"):
        _serve._gid(gid, where, None)
    if os.name == "posix":
        assert _serve._gid(gid, where, "write") == int(gid)
