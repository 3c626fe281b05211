"""Servers that start when they are needed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import server_processes
from sizes import size

import registry
from registry import _starter
from registry._addresses import Place, ServerLock
from registry.errors import PluginError, ServerNotFound

PLUGIN = """\
from registry import SharedObject, hookimpl

class Jar:
    def __init__(self):
        self.count = 0
    def add(self):
        self.count += 1
        return self.count

@hookimpl
def registry_shared_objects():
    return [SharedObject("jar", Jar)]
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture(autouse=True)
def servers(home: Path, nothing_left_running: None) -> Iterator[None]:
    """End the servers that a test has started."""
    yield
    server_processes.end_all(home)


def soon() -> float:
    """Return a deadline for what is to succeed."""
    return monotonic() + 20


@linux
def test_a_name_starts_a_server_that_is_nobodys_child(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The first connection starts a server, says so in one line, and is no parent of it."""
    with registry.connect("x") as client:
        pid = client.statistics()["pid"]
        assert pid == server_processes.pid_of(home / "x")
        said = capfd.readouterr().err
        assert said == f"registry: started server 'x' (pid {pid}), log {_starter.tidy(home / 'x' / 'log')}\n"
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        assert int(stat[1]) != os.getpid()
        assert os.getsid(pid) not in (os.getsid(0), pid)
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
        assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (1, 2)} == {str(home / "x" / "log")}
        assert (home / "x" / "log").stat().st_mode & 0o077 == 0
    with registry.connect("x") as client:
        assert client.statistics()["pid"] == pid
    assert capfd.readouterr().err == ""


@pytest.mark.timeout(size(60, 1800))
def test_racing_starters_meet_at_one_server(home: Path) -> None:
    """Of 20 processes that find no server at once, one starts it, and all use it."""
    script = "import registry; c = registry.connect('x'); print(c.statistics()['pid']); c.close()"
    for _ in range(size(2, 50)):
        crowd = [
            subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(20)
        ]
        said = [process.communicate(timeout=60) for process in crowd]
        assert [out.strip() for out, _ in said] == [str(server_processes.pid_of(home / "x"))] * len(crowd)
        assert sum("started server" in err for _, err in said) == 1
        server_processes.end_all(home)


def test_a_lost_server_is_started_again(home: Path) -> None:
    """What a killed server leaves behind does not stand in the way of the next."""
    registry.connect("x").close()
    first = server_processes.pid_of(home / "x")
    assert first is not None
    server_processes.end(first, 9)
    with registry.connect("x") as client:
        assert client.statistics()["pid"] != first


def test_a_server_does_not_inherit_deaf_ears(home: Path) -> None:
    """A server is ended by SIGTERM also where it was started with that signal blocked and ignored."""
    script = (
        "import signal, registry; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); registry.connect('x').close()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    pid = server_processes.pid_of(home / "x")
    assert pid is not None
    server_processes.end(pid)


def test_a_key_that_the_server_would_not_have_starts_none(home: Path) -> None:
    """A given key is never put aside: no server is started that would refuse it."""
    with pytest.raises(ServerNotFound, match='"registry serve x --authkey-file F"'):
        registry.connect("x", b"given")
    assert server_processes.pid_of(home / "x") is None
    registry.connect("x", (home / "x" / "key").read_bytes()).close()
    assert server_processes.pid_of(home / "x") is not None


class Dial:
    """A `dial` that finds nobody until `found` is set."""

    def __init__(self) -> None:
        self.found: Any = None
        self.asked = threading.Semaphore(0)

    def __call__(self) -> Any:
        self.asked.release()
        if self.found is None:
            raise FileNotFoundError
        return self.found


def test_a_server_that_comes_up_is_waited_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that has the lock and does not listen yet is waited for; none is started beside it."""
    monkeypatch.setattr(_starter, "launch", None)
    place, dial, found = Place("x"), Dial(), object()
    place.ensure()
    lock = ServerLock(place.lock)
    assert lock.acquire()

    def come_up() -> None:
        for _ in range(3):
            dial.asked.acquire()
        dial.found = found

    other = threading.Thread(target=come_up)
    other.start()
    assert _starter.start_server("x", (), soon(), dial) is found
    other.join()
    lock.release()


def test_a_server_that_goes_down_is_waited_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another server is started once the old one has let go of the lock."""
    place, dial, found = Place("x"), Dial(), object()
    place.ensure()
    lock = ServerLock(place.lock)
    assert lock.acquire()

    def launch(*args: Any, **kwargs: Any) -> int:
        assert not lock.held
        dial.found = found
        return 1

    monkeypatch.setattr(_starter, "launch", launch)

    def go_down() -> None:
        dial.asked.acquire()
        lock.release()

    other = threading.Thread(target=go_down)
    other.start()
    assert _starter.start_server("x", (), soon(), dial) is found
    other.join()


def test_a_server_that_never_listens_is_named(home: Path) -> None:
    """At the deadline the process that has the lock is named."""
    place = Place("x")
    place.ensure()
    lock = ServerLock(place.lock)
    assert lock.acquire()
    lock.write_info({"pid": 812})
    with pytest.raises(ServerNotFound, match="pid 812 is its server and does not listen"):
        _starter.start_server("x", (), monotonic() + 0.1, Dial())
    lock.release()


def test_a_starter_that_never_ends_is_not_waited_for_for_ever(home: Path) -> None:
    """At the deadline whoever waits for its turn gives up."""
    place = Place("x")
    place.ensure()
    lock = _starter.turn(place)
    assert lock.acquire()
    with pytest.raises(ServerNotFound, match="another process is starting it, and is not done"):
        _starter.start_server("x", (), monotonic() + 0.1, Dial())
    lock.release()


def test_whoever_waits_for_its_turn_uses_a_server_that_appears(home: Path) -> None:
    """A server that another process starts is used as soon as it listens."""
    place, dial, found = Place("x"), Dial(), object()
    place.ensure()
    lock = _starter.turn(place)
    assert lock.acquire()
    dial.found = found
    assert _starter.start_server("x", (), soon(), dial) is found
    lock.release()


def test_a_server_started_by_hand_meanwhile_is_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the new server finds another one in its place, that one is used."""
    dial, found = Dial(), object()

    def launch(*args: Any, **kwargs: Any) -> int:
        dial.found = found
        raise _starter.Busy

    monkeypatch.setattr(_starter, "launch", launch)
    assert _starter.start_server("x", (), soon(), dial) is found


def test_launching_beside_a_server_says_so(home: Path) -> None:
    """A server that finds its place taken says that, and not merely that it failed."""
    place = Place("x")
    place.ensure()
    lock = ServerLock(place.lock)
    assert lock.acquire()
    with pytest.raises(_starter.Busy, match="served already"):
        _starter.launch(place, [], soon())
    lock.release()


def test_the_reason_of_a_failure_arrives(home: Path) -> None:
    """A server that cannot start tells its starter why."""
    with pytest.raises(ServerNotFound) as caught:
        registry.connect("x", plugins=["no_such_plugin"])
    assert "it was started and gave up: plugin 'no_such_plugin': it is neither installed" in str(caught.value)
    assert str(caught.value).endswith(f"log {_starter.tidy(home / 'x' / 'log')}")


@pytest.mark.parametrize(
    ("script", "reason"),
    [("exit 3", "it ended without a word"), ("echo first; echo registry: out of luck >&2", "out of luck;")],
)
def test_a_server_that_just_ends_is_noticed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    """A process that ends without a report is not waited for; its last line in the log is told."""
    python = tmp_path / "python3"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(ServerNotFound, match=reason):
        _starter.start_server("x", (), soon(), Dial())


def test_a_server_that_hangs_is_ended_at_the_deadline(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that says nothing until the deadline is killed, and nothing of it is left."""
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(ServerNotFound, match="is not ready yet"):
        _starter.start_server("x", (), monotonic() + 0.2, Dial())


def test_a_python_that_is_not_there_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that cannot be run is an error that names it."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python3")
    with pytest.raises(ServerNotFound, match=re.escape("/nowhere/python3 cannot be run (No such file")):
        _starter.start_server("x", (), soon(), Dial())


def test_an_embedded_python_is_not_mistaken_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside of uWSGI, `sys.executable` is no Python; the one it embeds is run."""
    monkeypatch.setattr(sys, "executable", "/usr/bin/uwsgi")
    assert _starter.interpreter("x") == os.path.join(sys.exec_prefix, "bin", "python3")
    monkeypatch.setattr(sys, "executable", None)
    assert _starter.interpreter("x") == os.path.join(sys.exec_prefix, "bin", "python3")


def test_a_plugin_module_is_found_by_the_server(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that only this process's path leads to is a plugin of the server that it starts."""
    (tmp_path / "jars_of_ours.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    with registry.connect("x", plugins=["jars_of_ours"]) as client:
        assert client.jar("a").add() == 1


def test_a_plugin_file_is_found_by_the_server(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative file means the same to the server, which works in another directory."""
    (tmp_path / "jars.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    with registry.connect("x", plugins=["./jars.py"]) as client:
        assert client.jar("a").add() == 1


class Local:
    """Nothing that another process could find."""

    def add(self) -> None: ...


def test_plugins_of_this_process_alone_are_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command line cannot name is refused before anything is started."""
    monkeypatch.setattr(_starter, "launch", None)
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    unknown = types.ModuleType("unknown")
    for plugin in (registry.SharedObject("jar", Local), Local, main, unknown):
        with pytest.raises(PluginError, match=r"another process cannot|a server in a process of its own"):
            _starter.start_server("x", [plugin], soon(), Dial())


def test_the_search_path_is_what_a_fresh_python_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With plugins the whole path is handed on, without them no script's directory; the library's never."""
    script, given, gone = tmp_path / "script", tmp_path / "given", tmp_path / "gone"
    script.mkdir()
    given.mkdir()
    package = str(Path(registry.__file__).parent.parent)
    library = os.path.dirname(os.__file__)
    monkeypatch.setattr(sys, "path", [str(script), "", str(gone), library, str(given)])
    monkeypatch.setenv("PYTHONPATH", f"{given}{os.pathsep}{gone}")
    monkeypatch.chdir(tmp_path)
    assert _starter.search_path(whole=True) == [str(script), str(tmp_path), str(given)]
    assert set(_starter.search_path(whole=False)) <= {str(given), package}
    assert str(given) in _starter.search_path(whole=False)


def test_the_environment_means_the_same_in_another_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths of the environment are made absolute, and the working directory is not looked into."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REGISTRY_AUTHKEY_FILE", "key")
    monkeypatch.setenv("PYTHONPATH", "here")
    environment = _starter.environment([])
    assert environment["REGISTRY_AUTHKEY_FILE"] == str(tmp_path / "key")
    assert "PYTHONPATH" not in environment
    assert environment["PYTHONSAFEPATH"] == "1"
    assert _starter.environment(["/a", "/b"])["PYTHONPATH"] == os.pathsep.join(["/a", "/b"])


@pytest.mark.parametrize(
    ("path", "service"),
    [
        ("/system.slice/cron.service", "cron.service"),
        ("/system.slice/docker-1.scope", ""),
        ("/user.slice/user-1000.slice/session-2.scope", ""),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.scope", ""),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/jobs.service", "jobs.service"),
        ("/user.slice/user-1000.slice/user@1000.service", ""),
        ("/", ""),
    ],
)
def test_the_unit_that_a_server_ends_with(path: str, service: str) -> None:
    """A process dies with the innermost service that it is part of, if that is not the user's manager."""
    assert _starter._service(path) == service


def test_a_report_is_one_line() -> None:
    """What the server says arrives whole; it says one thing, once, and a pipe that just ends says nothing."""
    reading, writing = os.pipe()
    report = _starter.Report(writing)
    report.failed("two\nlines")
    report.ready()
    assert _starter._read_report(reading, soon()) == ("failed", "two\nlines")
    assert _starter._read_report(reading, soon()) is None
    os.close(reading)


def test_a_report_to_nobody_is_no_error() -> None:
    """A server whose starter has gone, or that has none, serves all the same."""
    reading, writing = os.pipe()
    os.close(reading)
    _starter.Report(writing).ready()
    _starter.Report(None).ready()


def test_paths_are_told_as_people_write_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path in the home directory begins with a tilde."""
    monkeypatch.setenv("HOME", "/home/me")
    assert _starter.tidy("/home/me/x") == "~/x"
    assert _starter.tidy("/home/meadow/x") == "/home/meadow/x"


# -- servers that keep a log


@pytest.fixture
def logged(home: Path) -> Path:
    """Have the server `x` keep a log."""
    place = Place("x")
    place.ensure()
    (place.directory / "registry.toml").write_text('log = "process"\n')
    return home / "x"


def kill(directory: Path) -> int:
    pid = server_processes.pid_of(directory)
    assert pid is not None
    server_processes.end(pid, 9)
    return pid


def test_who_waits_for_a_killed_server_with_a_log_starts_it_again(logged: Path) -> None:
    """As it had been started, so that it goes on from its log; nobody is told anything but that line."""
    with registry.connect("x") as client:
        assert client.counter("c").incr() == 1
        grant = client.lock("l").acquire()
        first = kill(logged)
        assert client.counter("c").incr() == 2
        assert server_processes.pid_of(logged) not in (None, first)
        assert client.lock("l").locked()
        grant.release()
        assert client.statistics()["log"] == "process"


@pytest.mark.parametrize("log", ["memory", "process"])
def test_who_waits_starts_nothing_that_was_stopped_or_has_no_log(logged: Path, log: str) -> None:
    """One that was told to stop stays so; and what was in memory is gone, which an empty server would hide."""
    (logged / "registry.toml").write_text(f'log = "{log}"\n')
    registry.connect("x").close()
    with registry.connect("x", timeout=3.0) as client:
        client.counter("c").incr()
        pid = server_processes.pid_of(logged)
        assert pid is not None
        server_processes.end(pid, 9 if log == "memory" else 15)
        with pytest.raises(registry.errors.RegistryError, match="no server of that name runs|nobody listens"):
            client.counter("c").get()
        assert server_processes.pid_of(logged) is None


def test_many_who_wait_start_one_server(logged: Path) -> None:
    """All of them go on with the same one."""
    script = (
        "import registry, sys; c = registry.connect('x'); c.counter('c').incr(); print('ready', flush=True)\n"
        "sys.stdin.readline(); c.counter('c').incr(); print(c.statistics()['pid'], flush=True)"
    )
    registry.connect("x").close()
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    for process in crowd:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    kill(logged)
    said = [process.communicate("\n", timeout=60) for process in crowd]
    assert [out.strip() for out, _ in said] == [str(server_processes.pid_of(logged))] * len(crowd)
    assert sum("started server" in err for _, err in said) == 1
    with registry.connect("x") as client:
        assert client.counter("c").get() == 16
