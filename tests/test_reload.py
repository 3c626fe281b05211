"""``registry serve --reload``: new code takes the place of the old, if it can be loaded; what is shared stays."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import server_processes
from test_deploy import Notices

import registry
from registry import _plugins, cli
from registry.cli import _reload
from registry.cli._reload import Reloader

SECONDS = 30.0

PLUGIN = """
import registry

class Jar:
    def __init__(self):
        self.count = 0

    def add(self):
        self.count += 1
        return [self.count, "FIRST"]

@registry.hookimpl
def registry_shared_objects():
    return [registry.SharedObject("jar", Jar)]
"""


@pytest.fixture(autouse=True)
def servers(home: Path, nothing_left_running: None) -> Iterator[None]:
    """End the servers that a test has started."""
    yield
    server_processes.end_all(home)


@pytest.fixture
def jars(tmp_path: Path) -> Path:
    """Write a plugin."""
    path = tmp_path / "jars.py"
    path.write_text(PLUGIN)
    return path


def write(path: Path, text: str) -> None:
    """Write a file as editors do, so that its time is another one whatever the clock of its file system shows."""
    before = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(before + 1_000_000, before + 1_000_000))


def until_logged(process: subprocess.Popen[str], text: str) -> str:
    """Read what a server says until a line has a text, and return that."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"it ended without {text!r}")


def test_new_code_goes_on_with_what_is_shared(home: Path, jars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same process serves the new code, systemd hears of it, a client's session goes on, and nothing is lost."""
    notices = Notices(home / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", notices.name)
    words = ("serve", "x", "--log", "process", "-p", str(jars), "--reload")
    with notices.socket, server_processes.running(*words) as process:
        assert notices.next()["READY"] == "1"
        with registry.connect("x", start=False) as shared, warnings.catch_warnings():
            # Between the change and the new code every connect may say that the server is stale.
            warnings.simplefilter("ignore", registry.errors.StaleServer)
            assert shared.jar("a").add() == [1, "FIRST"]
            grant = shared.lock("login").acquire()
            write(jars, PLUGIN.replace("FIRST", "SECOND"))
            assert notices.next()["RELOADING"] == "1"
            assert notices.next()["READY"] == "1"
            assert server_processes.pid_of(home / "x") == process.pid
            assert shared.jar("a").add() == [2, "SECOND"]
            grant.release()
        process.terminate()
        assert notices.next() == {"STOPPING": "1"}
        assert process.wait(SECONDS) == 0


def test_broken_code_is_told_and_not_served(home: Path, jars: Path) -> None:
    """Code that cannot be loaded is logged with its reason; the old goes on, until there is some that can."""
    with server_processes.running("serve", "x", "--log", "process", "-p", str(jars), "--reload") as process:
        until_logged(process, "INFO serving")
        write(jars, PLUGIN + "\n1 / 0\n")
        said = until_logged(process, "jars.py changed")
        assert "what was loaded before is served on: plugin jars is broken: ZeroDivisionError: division by zero" in said
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", registry.errors.StaleServer)
            with registry.connect("x", start=False) as shared:
                assert shared.jar("a").add() == [1, "FIRST"]
        write(jars, PLUGIN.replace("FIRST", "THIRD"))
        assert "jars.py changed: beginning anew" in until_logged(process, "jars.py changed")
        until_logged(process, "INFO serving")
        with registry.connect("x", start=False) as shared:
            assert shared.jar("a").add() == [2, "THIRD"]


def test_without_a_log_it_is_said_that_nothing_is_kept(home: Path, jars: Path) -> None:
    """A server that keeps everything in memory loses it with each reload, and says so before."""
    with server_processes.running("serve", "x", "-p", str(jars), "--reload") as process:
        until_logged(process, "what is shared is gone after each reload; --log process keeps it")


def test_a_port_that_changes_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Clients could not find the server again."""
    assert cli.run(["serve", "-a", "tcp://127.0.0.1:0", "--reload"]) == 2
    assert "--reload needs a port that stays the same, not 0" in capsys.readouterr().err


def reloader(jars: Path, stopped: threading.Event) -> Reloader:
    """Return a reloader of a plugin that has been loaded."""
    return Reloader(_plugins.load([str(jars)]), [f"--plugins={jars}"], stopped.set)


def test_a_plugin_that_would_be_off_or_gone_is_not_served(jars: Path, tmp_path: Path) -> None:
    """All that is served now must be there afterwards."""
    found = reloader(jars, threading.Event())
    assert found._why_not() == ""
    found._names.append("cookies")
    assert found._why_not() == "cookies is gone"
    jars.unlink()
    assert "there is no file" in found._why_not()


@pytest.mark.skipif(sys.platform != "linux", reason="another process opens our pipe by its number")
def test_an_end_does_not_wait_for_another_interpreter(
    jars: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A plugin that takes for ever to be loaded does not keep the server from ending."""
    reading, writing = os.pipe()
    stopped = threading.Event()
    found = reloader(jars, stopped)
    monkeypatch.setattr(_reload, "PERIOD", 0.01)
    write(
        jars, f"import os\nos.write(os.open('/proc/{os.getpid()}/fd/{writing}', os.O_WRONLY), b'!')\nopen(0).read()\n"
    )
    # An interpreter that waits for its end: its input is a terminal that nobody writes to.
    keep, other = os.pipe()
    monkeypatch.setattr(subprocess, "DEVNULL", keep)
    try:
        found.begin()
        assert select.select([reading], [], [], SECONDS)[0]
        found.end()
    finally:
        for number in (reading, writing, keep, other):
            os.close(number)
    assert not stopped.is_set()
    assert not found.is_due


def test_a_file_that_is_being_written_is_left_alone(jars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only once a file is the same in two looks is it loaded; one that comes back as it was is no change."""
    stopped = threading.Event()
    found = reloader(jars, stopped)
    looks: list[Any] = []
    tried: list[Any] = []
    stamps = iter([1, 2, 3, 0, 0, 4, 4])
    original = dict(found._tried)
    path = next(iter(original))

    def look(_: str) -> Any:
        looks.append(next(stamps))
        return original[path] if looks[-1] == 0 else (looks[-1], 1)

    found._tried = {path: original[path]}
    monkeypatch.setattr(_reload, "PERIOD", 0.0)
    monkeypatch.setattr(_plugins, "_stamp", look)
    monkeypatch.setattr(found, "_why_not", lambda: tried.append(list(looks)) or "")
    found._watch()
    assert tried == [[1, 2, 3, 0, 0, 4, 4]]
    assert found.is_due
    assert stopped.is_set()
