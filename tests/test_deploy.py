"""What a server is kept by: systemd, which is told of its life, a composition of containers, and the files for both."""

from __future__ import annotations

import configparser
import os
import re
import select
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import server_processes
import yaml
from test_docs import ROOT

import registry
from registry import _starter, cli
from registry.cli import _servers
from registry.cli._supervisor import Supervisor

pytestmark = pytest.mark.once

DEPLOY = ROOT / "docs" / "deploy"
SECONDS = 20.0

unix = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="systemd is told over a unix socket")


class Notices:
    """What a service manager would be told."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.name = str(path)

    def next(self) -> dict[str, str]:
        """Wait for the next notice."""
        if not select.select([self.socket], [], [], SECONDS)[0]:
            raise TimeoutError("nothing was told")
        return dict(line.split("=", 1) for line in self.socket.recv(4096).decode().splitlines())

    def is_quiet(self) -> bool:
        """Tell whether nothing more was told."""
        return not select.select([self.socket], [], [], 0)[0]


@pytest.fixture
def notices(home: Path) -> Iterator[Notices]:
    """Be the service manager."""
    notices = Notices(home / "notify")
    with notices.socket:
        yield notices


@pytest.fixture(autouse=True)
def servers(home: Path, nothing_left_running: None) -> Iterator[None]:
    """End the servers that a test has started."""
    yield
    server_processes.end_all(home)


# What is told


@unix
def test_systemd_is_told_when_clients_can_connect_and_when_the_end_begins(
    home: Path, notices: Notices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two notices: the first once a connection succeeds, the second before anything ends."""
    monkeypatch.setenv("NOTIFY_SOCKET", notices.name)
    with server_processes.running("serve", "x") as process:
        first = notices.next()
        assert first["READY"] == "1"
        assert re.fullmatch(rf"serving unix://{home}/x/socket with \d+ types", first["STATUS"])
        registry.connect("x", start=False).close()
        assert notices.is_quiet()
        process.terminate()
        assert notices.next() == {"STOPPING": "1"}
        assert process.wait(SECONDS) == 0
    assert notices.is_quiet()


@unix
def test_an_abstract_socket_is_told_as_well() -> None:
    """An @ stands for the zero byte that no text of the environment can have."""
    name = f"registry-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        Supervisor({"NOTIFY_SOCKET": f"@{name}"}).stopping()
        assert listener.recv(100) == b"STOPPING=1"


@unix
def test_who_cannot_be_told_is_logged(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A manager that is gone ends no server."""
    Supervisor({"NOTIFY_SOCKET": str(home / "gone")}).ready("well")
    assert f"READY=1 cannot be told to {home}/gone" in caplog.text


def test_nobody_else_speaks_for_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the processes that a server starts, nor a server that a service's program starts, inherit the socket."""
    environment = {"NOTIFY_SOCKET": "/run/notify"}
    supervisor = Supervisor(environment)
    assert environment == {}
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    assert "NOTIFY_SOCKET" not in _starter.environment([])
    supervisor.reloading()
    assert environment == {"NOTIFY_SOCKET": "/run/notify"}


def test_without_a_manager_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """In a terminal there is nobody to tell."""
    supervisor = Supervisor({})
    supervisor.ready("x")
    supervisor.stopping()
    assert caplog.text == ""


# What it keeps


@pytest.mark.parametrize(
    ("environment", "cgroup", "command"),
    [
        ({}, "/system.slice/registry@x.service", ""),
        ({"SYSTEMD_EXEC_PID": "1"}, "/system.slice/registry@x.service", ""),
        ({"SYSTEMD_EXEC_PID": "{pid}"}, "/system.slice/registry@x.service", "systemctl restart registry@x.service"),
        ({"NOTIFY_SOCKET": "/run/n"}, "/system.slice/registry@x.service", "systemctl restart registry@x.service"),
        ({"NOTIFY_SOCKET": "/run/n"}, "/user.slice/session-3.scope", ""),
        (
            {"SYSTEMD_EXEC_PID": "{pid}"},
            "/user.slice/user-{uid}.slice/user@{uid}.service/app.slice/registry@x.service",
            "systemctl --user restart registry@x.service",
        ),
    ],
)
def test_the_command_that_restarts_it_is_known(
    tmp_path: Path, environment: dict[str, str], cgroup: str, command: str
) -> None:
    """Only the first process of a unit is one that the unit keeps; a shell in it is not."""
    here = {"pid": os.getpid(), "uid": os.geteuid()}
    table = tmp_path / "cgroup"
    table.write_text(f"0::{cgroup.format(**here)}\n")
    filled = {name: value.format(**here) for name, value in environment.items()}
    assert Supervisor(filled).command(str(table)) == command


@unix
def test_what_a_service_keeps_is_not_restarted_behind_its_back(
    home: Path, notices: Notices, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be started outside of its unit: the command that does it is named, and nothing is done."""
    with server_processes.running("serve", "x", "--json") as process:
        assert process.stdout is not None
        process.stdout.readline()
        known = _servers.info
        keeper = "systemctl restart registry@x.service"
        monkeypatch.setattr(_servers, "info", lambda place: {**known(place), "keeper": keeper})
        assert cli.run(["restart", "-a", "x", "--yes"]) == 5
        assert capsys.readouterr().err == (
            f"registry: server 'x' (pid {process.pid}) is kept by a service; {keeper} does it. Nothing was done\n"
        )
        assert cli.run(["status", "-a", "x"]) == 0


# The files


def unit() -> configparser.SectionProxy:
    """Read the unit that is shipped."""
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "registry@.service")
    return parser["Service"]


@unix
def test_the_unit_starts_a_server_and_hears_of_it(
    home: Path, notices: Notices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its command line, as systemd would run it for a name, serves that name with a log."""
    service = unit()
    assert service["Type"] == "notify"
    program, command, *words = service["ExecStart"].replace("%i", "x").split()
    assert (program, command) == ("/usr/bin/env", "registry")
    monkeypatch.setenv("NOTIFY_SOCKET", notices.name)
    with server_processes.running(*words) as process:
        assert notices.next()["READY"] == "1"
        with registry.connect("x", start=False) as shared:
            assert shared.statistics()["log"] == "process"
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0


@pytest.mark.skipif(not os.path.exists("/usr/bin/systemd-analyze"), reason="systemd is not here to judge its unit")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """No key of it is unknown, and no value is wrong."""
    path = tmp_path / "registry@x.service"
    path.write_text((DEPLOY / "registry@.service").read_text())
    done = subprocess.run(
        ["/usr/bin/systemd-analyze", "verify", str(path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert path.name not in done.stderr


def composition() -> dict[str, Any]:
    """Read the compose file that is shipped."""
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


@unix
def test_the_composition_serves_and_is_healthy(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands, with its variables, serve a client; the health check tells whether it does."""
    services = composition()["services"]
    server, worker = services["registry"], services["worker"]
    for name in ("run", "state"):
        (home / name).mkdir(0o700)
    key = home / "key"
    key.write_bytes(b"k" * 44 + b"\n")
    key.chmod(0o600)
    moved = {
        "/run/registry": str(home / "run"),
        "/run/secrets/registry_key": str(key),
        "/var/lib/registry": str(home / "state"),
    }

    def here(text: str) -> str:
        for path, place in moved.items():
            text = text.replace(path, place)
        return text

    for name, value in server["environment"].items():
        monkeypatch.setenv(name, here(value))
    assert worker["environment"] == server["environment"]
    program, *health = server["healthcheck"]["test"][1:]
    assert program == server["command"][0] == "registry"
    check = server_processes.command(*health)
    assert subprocess.run(check, capture_output=True, check=False).returncode == 3
    with server_processes.running(*map(here, server["command"][1:]), "--json") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "{\n"
        assert subprocess.run(check, capture_output=True, check=False).returncode == 0
        for count in (1, 2):
            done = subprocess.run(
                server_processes.command()[:1] + worker["command"][1:], capture_output=True, text=True, check=False
            )
            assert (done.returncode, done.stdout) == (0, f"{count}\n"), done.stderr


def test_the_composition_shares_what_has_to_be_shared() -> None:
    """Key as a secret, socket in a volume, one shared memory of some size."""
    found = composition()
    server, worker = found["services"]["registry"], found["services"]["worker"]
    assert found["secrets"]["registry_key"]["file"]
    assert server["secrets"] == worker["secrets"] == ["registry_key"]
    assert server["shm_size"] == "1gb"
    assert (server["ipc"], worker["ipc"]) == ("shareable", "service:registry")
    assert worker["depends_on"]["registry"]["condition"] == "service_healthy"
    assert set(worker["volumes"]) < set(server["volumes"])


def _made(directory: Path, *words: str) -> None:
    """Run the script that makes certificates."""
    subprocess.run(["sh", str(DEPLOY / "certificate.sh"), *words], cwd=directory, check=True, capture_output=True)


def _files(directory: Path, name: str) -> dict[str, Path]:
    return {"cert": directory / f"{name}.pem", "key": directory / f"{name}.key", "ca": directory / "ca.pem"}


def _has_openssl() -> bool:
    if not (shutil.which("sh") and shutil.which("openssl")):
        return False
    said = subprocess.run(["openssl", "version"], capture_output=True, text=True, check=False).stdout
    return said.startswith("OpenSSL 3")


@pytest.mark.skipif(not _has_openssl(), reason="the script takes OpenSSL 3")
def test_the_script_makes_certificates_that_are_accepted(tmp_path: Path, home: Path) -> None:
    """Of a server and of a client, by one CA; made again they are renewed, and nobody else can read a key."""
    _made(tmp_path, "db1.example.org", "DNS:localhost", "IP:127.0.0.1")
    _made(tmp_path, "worker.example.org")
    first = (tmp_path / "db1.example.org.pem").read_bytes()
    authority = (tmp_path / "ca.pem").read_bytes()
    for path in tmp_path.glob("*.key"):
        assert path.stat().st_mode & 0o077 == 0
    key, worker = os.urandom(32), _files(tmp_path, "worker.example.org")
    with registry.ManagerServer("tls://127.0.0.1:0", key, tls=_files(tmp_path, "db1.example.org")) as server:
        for host in ("127.0.0.1", "localhost"):
            url = server.url.replace("127.0.0.1", host)
            with registry.connect(url, key, tls=worker) as shared:
                assert shared.counter("c").incr() > 0
        _made(tmp_path, "db1.example.org", "DNS:localhost", "IP:127.0.0.1")
        assert (tmp_path / "db1.example.org.pem").read_bytes() != first
        assert (tmp_path / "ca.pem").read_bytes() == authority
        with registry.connect(server.url, key, tls=worker) as shared:
            assert shared.counter("c").incr() > 0
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".key"] * 3 + [".pem"] * 3
