"""The command line over TLS: the options of the server, and those of the commands that ask it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import server_processes
from certificates import DAY, HOST, Authority, now, replace, served
from servers import KEY
from test_cli import finished, toml

from registry import ManagerServer, cli
from registry.cli._doctor import _tls
from registry.cli._doctor._scene import Scene, look

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def servers(home: Path, nothing_left_running: None) -> Iterator[None]:
    """End the servers that a test has started."""
    yield
    server_processes.end_all(home)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def key(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the key, which the environment names."""
    path = home / "authkey"
    path.touch(mode=0o600)
    path.write_bytes(KEY)
    monkeypatch.setenv("REGISTRY_AUTHKEY_FILE", str(path))
    return path


def words(tls: dict[str, str]) -> list[str]:
    return [word for name, path in tls.items() for word in (f"--tls-{name}", path)]


def test_serve_and_ask(
    authority: Authority, key: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that asks for certificates is asked by options or by the environment; who shows none is denied."""
    mine = authority.issue("me.example.org")
    with server_processes.running(
        "serve",
        "-a",
        f"tls://{HOST}:0",
        *words(authority.issue(not_after=now() + 100 * DAY)),
        "--log",
        "process",
        "--json",
    ) as process:
        assert process.stdout is not None
        url = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")["address"]
        assert cli.run(["status", "-a", url]) == 4
        assert "by no CA that this system believes" in capsys.readouterr().err
        assert cli.run(["objects", "-a", url, "--tls-ca", str(authority.ca)]) == 4
        assert "none was shown: name its files by" in capsys.readouterr().err
        assert cli.run(["status", "-a", url, *words(mine)]) == 0
        said = capsys.readouterr().out
        assert f"\naddress    {url}\n" in said
        assert f"\ntls        TLSv1.3, with a certificate for {HOST} that expires at 20" in said
        for name, path in mine.items():
            monkeypatch.setenv(f"REGISTRY_TLS_{name.upper()}", path)
        found = json.loads(_out(["status", "-a", url, "--json"], capsys))
        assert found["tls"]["version"] == "TLSv1.3"
        assert found["tls"]["names"] == [HOST]
        assert cli.run(["restart", "-a", url]) == 0
        process.wait(20)
        assert cli.run(["status", "-a", url]) == 0
        assert cli.run(["stop", "-a", url]) == 0


def _out(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.run(arguments) == 0
    return capsys.readouterr().out


@toml
def test_the_options_can_stand_in_a_file(authority: Authority, key: Path, tmp_path: Path) -> None:
    """With paths beside it; what is wrong with them is one line, and denied."""
    tls = authority.issue(name="server")
    config = authority.ca.with_name("registry.toml")
    config.write_text(
        f'address = "tls://{HOST}:0"\ntls-cert = "server.pem"\ntls-key = "server.key"\ntls-ca = "{tls["ca"]}"\n'
    )
    with server_processes.running("serve", "--config", str(config), "--json") as process:
        assert process.stdout is not None
        url = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")["address"]
        assert cli.run(["status", "-a", url, *words(authority.issue())]) == 0
    os.chmod(tls["key"], 0o644)
    done = finished("serve", "--config", str(config))
    assert done.returncode == 4
    assert f"chmod 600 {tls['key']}" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["serve", "-a", "tls://127.0.0.1:0"], "shows a certificate"),
        (["serve", "x", "--tls-cert", "a", "--tls-key", "b"], "files of TLS are for tls://host:port"),
        (["status", "-a", "x", "--tls-ca", "a"], "files of TLS are for tls://host:port, not for x"),
        (["status", "-a", "tls://127.0.0.1:1", "--tls-cert", "a"], "tls has a cert of TLS and no key"),
        (["doctor", "-a", "x", "--tls-ca", "a"], "files of TLS are for tls://host:port, not for x"),
    ],
)
def test_a_wrong_use_is_exit_2(arguments: list[str], text: str, key: Path) -> None:
    """One is nothing without the other, and neither is anything to other addresses."""
    done = finished(*arguments)
    assert done.returncode == 2
    assert text in done.stderr.splitlines()[-1]


# -- the doctor -----------------------------------------------------------------------------------


def rows(scene: Scene) -> list[tuple[str, str, str]]:
    return [(each.status, each.found, each.cure) for each in _tls.tls(scene)]


def test_the_doctor_tells_how_long_a_certificate_lasts(
    authority: Authority, key: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that ends soon is a note with its cure; other addresses have no such row."""
    monkeypatch.setenv("REGISTRY_TLS_CA", str(authority.ca))
    tls = served(authority.issue(name="server", not_after=now() + 100 * DAY))
    with ManagerServer(f"tls://{HOST}:0", KEY, tls=tls) as server:
        ((status, found, cure),) = rows(look(server.url))
        assert (status, cure) == ("ok", "")
        assert found.startswith(f"TLSv1.3; the server's certificate, for {HOST}, expires in 99 d 23 h")
        server._tls._looked = -1.0  # type: ignore[union-attr] # as a second later
        replace(tls, authority.issue(not_after=now() + 5 * DAY))
        ((status, found, cure),) = rows(look(server.url))
        assert status == "note"
        assert "expires in 4 d 23 h" in found
        assert cure == "make a new one in the place of its files; the server reads them by itself"
        cli.run(["doctor", "-a", server.url])  # it may find fault with the plugins that are installed here
        assert "a new one in the place of" in capsys.readouterr().out
    with ManagerServer("x", KEY):
        assert rows(look("x")) == []


def test_the_doctor_tells_why_there_is_no_tls(
    authority: Authority, key: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A refusal, or a file of this process; the key is not blamed for it."""
    with ManagerServer(f"tls://{HOST}:0", KEY, tls=served(authority.issue())) as server:
        assert cli.run(["doctor", "-a", server.url]) == 1
        said = capsys.readouterr().out
        assert "is signed by no CA that this system believes" in said
        assert "cure: see TLS below" in said
        assert 'cure: name the file with the certificate of its CA by "ca" in tls=' in said
        assert "the server refuses the key" not in said
        monkeypatch.setenv("REGISTRY_TLS_CA", f"{authority.ca}.not")
        ((status, found, cure),) = rows(look(server.url))
        assert (status, found) == ("problem", "the file of the CA is not there")
        assert cure == f"{authority.ca}.not"
        cli.run(["doctor", "-a", server.url, "--tls-ca", str(authority.ca)])
        assert "server's certificate, for" in capsys.readouterr().out
