"""The command line: what it prints, how it ends, and what it does to servers."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import server_processes
from test_starter import PLUGIN

import registry
from registry import ManagerServer, cli, errors
from registry.cli import _common, _servers, _settings

toml = pytest.mark.skipif(
    not (importlib.util.find_spec("tomllib") or importlib.util.find_spec("tomli")),
    reason="this Python cannot read TOML",
)


@pytest.fixture(autouse=True)
def servers(home: Path, nothing_left_running: None) -> Iterator[None]:
    """End the servers that a test has started."""
    yield
    server_processes.end_all(home)


@pytest.fixture
def server() -> Iterator[ManagerServer]:
    """Serve the name ``x`` on a thread of this process."""
    with ManagerServer("x") as server:
        yield server


def finished(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, to its end."""
    return subprocess.run(
        server_processes.command(*words),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        **options,
    )


# The frame


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """``--help``, or no word at all, lists what there is."""
    assert cli.run(["--help"], "registry") == 0
    said = capsys.readouterr().out
    for name in ("serve", "status", "stop", "restart", "objects", "plugins"):
        assert f"\n  {name} " in said
    assert cli.run([], "registry") == 0
    assert capsys.readouterr().out == said


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """``--version`` is the version of the package."""
    assert cli.run(["--version"], "registry") == 0
    assert capsys.readouterr().out == f"registry {registry.__version__}\n"


def test_help_is_light() -> None:
    """Listing the commands loads neither the client nor the server nor what prints tables."""
    script = (
        "import sys; from registry import cli; cli.run(['--help'])\n"
        "print([m for m in ('rich', 'msgspec', 'asyncio', 'pluggy', 'registry.client') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["stauts"], "No such command 'stauts'"),
        (["status", "--nope"], "--nope"),
        (["status", "-a", "no name"], "the address 'no name' is no name"),
        (["status", "-a", "stock+tcp://h:1"], "stock+tcp://h:1 is a stock multiprocessing server, which none of these"),
        (["doctor", "-a", "stock+unix:///s"], "stock+unix:///s is a stock multiprocessing server, which none of these"),
        (["stop", "-a", "stock+tcp://h:1"], "its own program stops it"),
        (["serve", "a", "-a", "b"], "give NAME or --address, not both"),
        (["serve", "--trust", "me"], "'me' is not one of"),
        (["serve", "--config", "/nowhere"], "does not exist"),
        (["serve", "--limit", "stored"], "--limit takes NAME=VALUE, such as stored=512M, not 'stored'"),
        (
            ["serve", "--limit", "store=1"],
            "there is no limit 'store', did you mean 'stored'?; the limits are handshake",
        ),
    ],
)
def test_a_wrong_use_is_one_line_and_exit_2(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What was typed wrongly is told in one line that names the help."""
    assert cli.run(words, "registry") == 2
    said = capsys.readouterr().err
    assert said.startswith("registry: ")
    assert text in said
    assert said.count("\n") == 1
    assert said.endswith(f'(see "registry {words[0]} --help")\n') or words[0] == "stauts"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["serve", "memory://"], "a server listens at a name"),
        (["serve", "x", "--lease", "-1"], "lease must be a number of seconds above 0"),
        (["serve", "x", "--limit", "objects=0"], "the limit objects must be a number of objects, at least 1, not 0"),
    ],
)
def test_what_the_server_refuses_is_a_wrong_use(words: list[str], text: str) -> None:
    """A value that the server itself refuses was typed wrongly, too."""
    done = finished(*words)
    assert done.returncode == 2
    # Installed plugins may have been warned about before.
    assert text in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("command", ["status", "stop", "restart", "objects"])
def test_no_server_is_exit_3(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Where none runs, none is started, and the way to start one is told."""
    assert cli.run([command, "-a", "x"]) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("registry: no server at x: ")
    assert '"registry serve x"' in said.err


def test_a_wrong_key_is_exit_4(
    server: ManagerServer, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever does not know the key is denied."""
    (home / "other").write_bytes(b"another key")
    (home / "other").chmod(0o600)
    monkeypatch.setenv("REGISTRY_AUTHKEY_FILE", str(home / "other"))
    assert cli.run(["status", "-a", "x"]) == 4
    assert capsys.readouterr().err.startswith("registry: access denied")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ServerNotFound("x", "why"), 3),
        (errors.AccessDenied("why"), 4),
        (PermissionError(13, "Permission denied", "/x"), 4),
        (errors.NotOwner("lock:a", "b"), 5),
        (OSError(98, "taken"), 5),
        (_common.Conflict("why"), 5),
        (errors.PluginError("a", "why"), 1),
        (click.Abort(), 1),
        (RuntimeError("a bug"), 1),
    ],
)
def test_each_error_has_its_exit_code(error: Exception, code: int) -> None:
    """The exit code tells a program what kind of failure it was."""
    assert _common.exit_code(error) == code
    assert "\n" not in _common.text_of(error)


def test_people_get_no_traceback_unless_they_ask(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unexpected error is one line; ``REGISTRY_DEBUG=1`` shows where it comes from."""

    def fail(*args: Any) -> None:
        raise KeyError("two\nlines")

    monkeypatch.setattr(_common, "connected", fail)
    assert cli.run(["status"]) == 1
    text = "registry: unexpected KeyError: 'two\\nlines'; REGISTRY_DEBUG=1 shows where\n"
    assert capsys.readouterr().err == text
    monkeypatch.setenv("REGISTRY_DEBUG", "1")
    assert cli.run(["status"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert said.endswith(text)


def test_a_reader_that_has_seen_enough_is_no_error(server: ManagerServer) -> None:
    """``registry status | head -0`` ends without a complaint."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            server_processes.command("status", "-a", "x"), stdout=writing, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_what_others_named_cannot_steer_a_terminal() -> None:
    """Names come from any client: what is not printable is escaped."""
    assert _common.shown("a\x1b[2J\n\u202eb") == "a\\x1b[2J\\n\\u202eb"
    assert _common.shown("größe 价格") == "größe 价格"


def test_a_warning_of_ours_is_told_like_all_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """That a server runs old code is one line without the place in the source."""
    import warnings

    with warnings.catch_warnings():
        _common.show_warnings_to_people()
        warnings.warn(errors.StaleServer("old code"), stacklevel=1)
    assert capsys.readouterr().err == "registry: warning: old code\n"


# status, objects


def test_status(server: ManagerServer, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The status tells who the server is and how much it holds, without counting the one who asks."""
    with registry.connect("x") as client:
        client.dict("prices")["BTC"] = 1
    assert cli.run(["status", "-a", "x", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["name"], found["pid"], found["sessions"], found["objects"]) == ("x", os.getpid(), 0, 1)
    assert found["directory"] == str(home / "x")
    assert {name: used for name, _, _, used in found["limits"]}["objects"] == 1
    assert cli.run(["status", "-a", "x"]) == 0
    said = capsys.readouterr().out
    assert f"server     x (pid {os.getpid()} on " in said
    assert "\nobjects    1\n" in said
    assert "\nlimits     handshake 10.0 seconds, strangers 0 of " in said
    assert ", objects 1 of 1000000 objects, arguments 1 GB, stored " in said


def test_objects(server: ManagerServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The objects are listed in a table, or as JSON, those that a pattern matches alone."""
    with registry.connect("x") as client:
        client.dict("prices")["BTC"] = 1
        client.counter("hits[0]").incr()
    assert cli.run(["objects", "-a", "x"]) == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["object", "made", "by", "since", "waiting"]
    assert [row.split()[0] for row in rows] == ["counter:hits[0]", "dict:prices"]
    assert cli.run(["objects", "dict:*", "-a", "x", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["typeid"], row["name"], row["ephemeral"]) == ("dict", "prices", False)


# stop, restart


def test_stop_of_an_empty_server_asks_nothing(server: ManagerServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing would be lost the server stops, and the command ends once it has."""
    assert cli.run(["stop", "-a", "x"]) == 0
    assert capsys.readouterr().err == f"registry: stopped server 'x' (pid {os.getpid()})\n"
    ManagerServer("x").start().stop()


@pytest.mark.parametrize("command", ["stop", "restart"])
def test_nothing_is_lost_unasked(
    command: str, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a terminal nothing is done to a server that holds objects; what would be lost is listed."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with server_processes.running("serve", "x", "--json") as process:
        assert process.stdout is not None
        process.stdout.readline()
        # In another process: its session is not that of the command below.
        holder = "import registry; c = registry.connect('x'); c.dict('prices')['a'] = 1; c.lock('login').acquire()"
        with subprocess.Popen(
            [sys.executable, "-c", f"{holder}; print(flush=True); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as other:
            assert other.stdout is not None
            other.stdout.readline()
            assert cli.run([command, "-a", "x"]) == 5
            said = capsys.readouterr().err.splitlines()
            assert cli.run([command, "-a", "x", "--json"]) == 5
            rows = json.loads(capsys.readouterr().out)["conflict"]
            assert cli.run(["status", "-a", "x"]) == 0
            other.communicate(b"\n")
    assert said[0].startswith("dict:prices  made by ")
    assert said[1].startswith("lock:login   held by ")
    assert said[2] == (
        f"registry: server 'x' (pid {process.pid}) keeps everything in memory: 2 objects and 1 held lock "
        f"would be lost; nothing was done. --yes does it all the same"
    )
    assert [(row["object"], bool(row["holder"])) for row in rows] == [
        ("dict:prices", False),
        ("lock:login", True),
    ]


def test_stop_asks_whoever_is_there(
    server: ManagerServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a terminal the question decides."""
    monkeypatch.setattr(_common, "interactive", lambda: True)
    with registry.connect("x") as client:
        client.dict("prices")["BTC"] = 1
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    assert cli.run(["stop", "-a", "x"]) == 5
    said = capsys.readouterr().err
    assert "1 object would be lost. Stop it? [y/N]" in said
    assert said.endswith("registry: nothing was done\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert cli.run(["stop", "-a", "x"]) == 0
    assert cli.run(["status", "-a", "x"]) == 3


def test_stop_yes_asks_nobody(server: ManagerServer, capsys: pytest.CaptureFixture[str]) -> None:
    """``--yes`` is the answer."""
    with registry.connect("x") as client:
        client.dict("prices")["BTC"] = 1
    assert cli.run(["stop", "-a", "x", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"stopped": os.getpid()}


def test_stop_reaches_a_server_by_its_url(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A server without a name is stopped by its URL."""
    with ManagerServer("tcp://127.0.0.1:0") as server:
        assert cli.run(["stop", "-a", server.url]) == 0
        assert cli.run(["stop", "-a", server.url]) == 3


def test_restart_of_a_program_is_refused_before_it_stops(
    server: ManagerServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server inside a program of somebody's cannot be started again from outside, so it is not stopped."""
    assert cli.run(["restart", "-a", "x", "--yes"]) == 5
    assert 'was not started by "registry serve"; restart the program that has it' in capsys.readouterr().err
    assert cli.run(["status", "-a", "x"]) == 0


def test_restart_starts_the_same_server_again(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A restarted server has its options, wherever it was started; a new process serves, in the back."""
    (tmp_path / "jars.py").write_text(PLUGIN)
    with subprocess.Popen(
        server_processes.command("serve", "x", "-p", "./jars.py", "--lease", "7", "--no-md5", "--json"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with registry.connect("x") as client:
            assert client.jar("a").add() == 1
        assert cli.run(["restart", "-a", "x", "--yes", "--json"]) == 0
        assert process.wait(10) == 0
    done = json.loads(capsys.readouterr().out)
    assert done == {"stopped": process.pid, "started": server_processes.pid_of(home / "x")}
    notes = _servers.info(registry._addresses.Place("x"))
    assert {"--lease=7.0", "--no-md5"} <= set(notes["options"])
    assert notes["options"][-2:] == ["--idle-exit", "0.0"]
    with registry.connect("x") as client:
        assert client.jar("a").add() == 1


def test_restart_of_a_server_that_was_started_on_demand(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It stays one that ends when nobody needs it."""
    registry.connect("x").close()
    first = server_processes.pid_of(home / "x")
    assert cli.run(["restart", "-a", "x"]) == 0
    second = server_processes.pid_of(home / "x")
    assert second not in (None, first)
    assert _servers.info(registry._addresses.Place("x"))["options"][-2:] == ["--idle-exit", "3600.0"]
    assert f"started it again (pid {second})" in capsys.readouterr().err


# serve


def test_serve_runs_until_it_is_told_to_end(home: Path) -> None:
    """The server says where it is, serves, logs to the standard error, and ends with 0 on SIGTERM."""
    with server_processes.running("serve", "x", "--json") as process:
        assert process.stdout is not None
        said = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
        assert said == {"name": "x", "address": f"unix://{home}/x/socket", "pid": process.pid}
        with registry.connect("x", start=False) as client:
            client.dict("prices")["BTC"] = 1
        taken = finished("serve", "x")
        process.terminate()
        log = process.communicate(timeout=10)[1]
        assert process.returncode == 0
    assert taken.returncode == 5
    assert taken.stderr.splitlines()[-1].startswith(f"registry: x is served already by pid {process.pid}")
    assert "stopping on SIGTERM" in log


def test_a_log_that_another_server_has_is_a_conflict(home: Path) -> None:
    """Two servers never write one log: the second ends with exit code 5, and says who has it."""
    words = ("--log", "process", "--state", str(home / "log"))
    with server_processes.running("serve", "x", *words, "--json") as process:
        assert process.stdout is not None
        process.stdout.readline()
        taken = finished("serve", "y", *words)
    assert taken.returncode == 5
    assert f"is in use by pid {process.pid}; stop that server" in taken.stderr.splitlines()[-1]


def test_serve_tells_the_port_that_it_got(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With port 0 the system chooses; a key file of the user's own lets clients in."""
    key = home / "secret"
    key.write_bytes(b"secret\n")
    key.chmod(0o600)
    words = ("serve", "-a", "tcp://127.0.0.1:0", "--authkey-file", str(key), "--json")
    with server_processes.running(*words) as process:
        assert process.stdout is not None
        said = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
        with registry.connect(said["address"], b"secret") as client:
            assert client.statistics()["pid"] == process.pid


def test_serve_refuses_an_open_network(home: Path) -> None:
    """An address that other hosts can reach needs the operator's word."""
    done = finished("serve", "-a", "tcp://0.0.0.0:0")
    assert done.returncode == 4
    assert "--insecure-network" in done.stderr


def test_serve_strict_refuses_a_broken_plugin(home: Path, tmp_path: Path) -> None:
    """A broken plugin is logged, and with ``--strict`` it is the end."""
    (tmp_path / "broken.py").write_text("1 / 0\n")
    done = finished("serve", "x", "-p", "./broken.py", "--strict", cwd=tmp_path)
    assert done.returncode == 1
    assert "broken is broken: ZeroDivisionError: division by zero" in done.stderr


def test_serve_finds_a_module_of_the_working_directory(home: Path, tmp_path: Path) -> None:
    """``-p`` takes a module from where the command runs, by whichever of its names it is run."""
    (tmp_path / "jars_here.py").write_text(PLUGIN)
    script = "import sys; from registry.cli import main; sys.path.remove(''); main()"
    with subprocess.Popen(
        [sys.executable, "-c", script, "serve", "x", "--plugins", "jars_here", "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with registry.connect("x") as client:
            assert client.statistics()["types"] == ["jar"]
        process.terminate()


def test_an_idle_server_ends(home: Path) -> None:
    """A server that was started on demand ends once it has had nothing to do for a while."""
    with server_processes.running("serve", "x", "--idle-exit", "0.05") as process:
        assert process.wait(10) == 0
        assert "nothing shared and nobody connected" in process.communicate()[1]


# The configuration


def options_of(name: str) -> list[str]:
    """Return the options that would start the server of a name again."""
    options: list[str] = _servers.info(registry._addresses.Place(name))["options"]
    return options


@toml
def test_serve_reads_the_names_configuration(home: Path) -> None:
    """A file in the name's directory holds options; what the command line says goes before."""
    directory = home / "x"
    directory.mkdir(0o700)
    (directory / "jars.py").write_text(PLUGIN)
    text = 'plugins = ["./jars.py"]\nlease = 60\nno-md5 = true\n[limits]\narguments = "1M"\nobjects = 3\n'
    (directory / "registry.toml").write_text(text)
    with registry.connect("x") as client:
        assert client.statistics()["types"] == ["jar"]
    limits = {"--limit=arguments=1048576", "--limit=objects=3"}
    assert {"--lease=60.0", "--no-md5", *limits} <= set(options_of("x"))
    server_processes.end_all(home)
    with server_processes.running("serve", "x", "--lease", "5", "--limit", "objects=4", "--json") as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert {"--lease=5.0", "--limit=arguments=1048576", "--limit=objects=4"} <= set(options_of("x"))


@toml
def test_serve_reads_a_configuration_that_is_named(home: Path, tmp_path: Path) -> None:
    """``--config`` may name the address, too."""
    (tmp_path / "c.toml").write_text('address = "y"\n')
    with server_processes.running("serve", "--config", str(tmp_path / "c.toml"), "--json") as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert server_processes.pid_of(home / "y") == process.pid


@toml
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("leese = 3", "unknown key 'leese', did you mean 'lease'?; it has the options of `serve`"),
        ("lease = true", "lease must be a number, not True"),
        ("strict = 1", "strict must be true or false, not 1"),
        ("plugins = [1]", "plugins must be a list of texts, not [1]"),
        ("state = ''", "state must be a path, not ''"),
        ("lease =", "is not TOML"),
        ("limits = 3", "limits must be a table, such as [limits], not 3"),
        ("[limits]\nstored = '1 pound'", "the limit stored must be a size in bytes such as 512M, not '1 pound'"),
    ],
)
def test_a_wrong_configuration_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    """What is wrong in the file is told with the file, the key and the value."""
    path = tmp_path / "registry.toml"
    path.write_text(text)
    with pytest.raises(click.UsageError) as caught:
        _settings.read(path)
    assert str(path) in caught.value.message
    assert complaint in caught.value.message


@toml
def test_paths_of_a_configuration_are_beside_it(tmp_path: Path) -> None:
    """A relative path means a file beside the configuration; a module stays a name."""
    path = tmp_path / "registry.toml"
    path.write_text('authkey-file = "key"\nstate = "/srv"\nplugin = "a, ./b.py"\nstrict = true\n')
    assert _settings.read(path) == {
        "authkey-file": str(tmp_path / "key"),
        "state": "/srv",
        "plugin": ["a", str(tmp_path / "b.py")],
        "strict": True,
    }


def test_a_python_without_toml_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no TOML can be read, a configuration that is there is an error and not overlooked."""
    for name in ("tomllib", "tomli"):
        monkeypatch.setitem(sys.modules, name, None)
    path = tmp_path / "registry.toml"
    path.write_text("")
    with pytest.raises(errors.RegistryError, match=r"needs Python 3.11, or the package tomli"):
        _settings.read(path)


# plugins


def test_plugins_are_listed_with_their_origin(capsys: pytest.CaptureFixture[str]) -> None:
    """Each plugin is listed with what became of it, where it is from, and its types."""
    assert cli.run(["plugins", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["registry_sync"]["types"][:2] == ["lock", "rlock"]
    assert rows["registry_sync"]["distribution"] == "shared-registry"
    assert cli.run(["plugins", "--plugins", "registry_sync", "--check"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["plugin", "status", "from", "types"]
    assert any(line.startswith("registry_sync ") and line.endswith("barrier, latch") for line in lines)


def test_plugins_check_shows_what_broke(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken plugin is listed with its reason; ``--check`` shows the traceback and fails."""
    (tmp_path / "broken.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    words = ["plugins", "--plugins", "registry_sync,./broken.py"]
    assert cli.run(words) == 0
    said = capsys.readouterr()
    assert any(line.split()[:2] == ["broken", "broken"] for line in said.out.splitlines())
    assert said.err == "registry: plugin broken is broken: ZeroDivisionError: division by zero\n"
    assert cli.run([*words, "--check"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    assert cli.run([*words, "--strict"]) == 1


def test_plugins_are_compared_with_a_servers(
    server: ManagerServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With an address, what the server runs stands beside what is here."""
    (tmp_path / "jars.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert cli.run(["plugins", "--plugins", "registry_sync,./jars.py", "-a", "x"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["registry_sync"].endswith(f"barrier, latch  {server.plugins.fingerprint()['registry_sync']}")
    assert lines["jars"].endswith("not there")
    assert lines["registry_queues"].split()[1:3] == ["not", "here"]
    assert cli.run(["plugins", "--plugins", "./jars.py", "-a", "x", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["server"] is None
