"""``registry state``: of servers that run and of those that do not, and what their clients see of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import server_processes
from servers import another, running, until
from sizes import size
from test_cli import finished, toml
from test_starter import PLUGIN

from registry import ManagerServer, _addresses, _image, _plugins, cli
from registry._addresses import EpochFile, ServerLock
from registry._log import _format, _store
from registry._log._files import Directory
from registry.cli import _common
from registry.errors import StateLost

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def servers(home: Path, nothing_left_running: None) -> Iterator[None]:
    """End the servers that a test has started."""
    yield
    server_processes.end_all(home)


@contextlib.contextmanager
def serving(name: str = "x", *options: str) -> Iterator[subprocess.Popen[str]]:
    """Have ``registry serve`` run with a log."""
    with server_processes.running("serve", name, "--log", "process", "--json", *options) as process:
        assert process.stdout is not None
        while process.stdout.readline() not in ("}\n", ""):
            pass
        yield process


def client(name: str = "x") -> Any:
    return another(name, _addresses.load_key(_addresses.Place(name).key, create=True))


def used(name: str = "x") -> None:
    """Leave something in a server's log, and the server stopped in order."""
    with serving(name), client(name) as shared:
        shared.dict("prices")["BTC"] = 97_000
        shared.counter("c").incr()


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    """Run a command, and return what it prints as JSON."""
    assert cli.run(["state", *words, "--json"], "registry") == code
    return json.loads(capsys.readouterr().out)


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Run a command that fails, and return its exit code and what it says."""
    code = cli.run(["state", *words], "registry")
    captured = capsys.readouterr()
    assert captured.out == ""
    return code, captured.err


def files(path: Path) -> dict[str, bytes]:
    return {
        str(each.relative_to(path)): each.read_bytes()
        for each in sorted(path.rglob("*"))
        if each.is_file() and each.name not in ("lock", "starting", "log", "key")
    }


# What they say


def test_the_group_has_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """``--help`` lists the four."""
    assert cli.run(["state", "--help"], "registry") == 0
    out = capsys.readouterr().out
    for name in ("verify", "dump", "backup", "restore"):
        assert f"\n  {name} " in out


@pytest.mark.parametrize("live", [False, True])
def test_verify_tells_what_is_there(home: Path, capsys: pytest.CaptureFixture[str], live: bool) -> None:
    """The same of a server that runs and of one that does not; a server goes on, and gets nothing changed."""
    used()
    with serving() if live else contextlib.nullcontext(), contextlib.ExitStack() as stack:
        before = files(home)
        if live:
            shared = stack.enter_context(client())
            shared.counter("c").incr()
        found = said(capsys, "verify", "x")
        if not live:
            assert files(home) == before
        assert found["live"] is live
        assert (found["failures"], found["skipped"], found["torn"]) == ([], [], 0)
        assert found["directory"] == str(home / "x" / "state")
        assert found["snapshots"][-1]["agrees"] is True
        assert found["head"] == found["index"]
        assert len(found["blake2b"]) == 64
        assert found.keys() == {
            "directory", "live", "segments", "snapshots", "bytes", "first", "index", "chain", "head", "torn",
            "replayed", "skipped", "blake2b", "failures",
        }  # fmt: skip
        assert cli.run(["state", "verify", "-a", "x"]) == 0
        out = capsys.readouterr().out
        assert ("its server goes on" in out) is live
        assert "is what the events before it lead to" in out
        if live:
            assert shared.counter("c").get() == 2


def test_verify_names_file_and_offset(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Damage is exit 1, also that which a start would not look at, and nothing is changed."""
    used()
    ((_, path),) = Directory(home / "x" / "state").segments()
    data = path.read_bytes()
    path.write_bytes(data[:100] + b"?" + data[101:])
    before = files(home)
    code, text = refusal(capsys, "verify", "x")
    assert code == 1
    assert f"{path} is damaged at byte 0: its head is damaged" in text
    assert "restore a backup with `registry state restore`" in text
    assert files(home) == before


def test_verify_fails_where_a_replay_leads_elsewhere(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The snapshot that differs is named, exit 1; to people who look on it is told how far it is."""
    used()
    ((_, path),) = Directory(home / "x" / "state").snapshots()
    secret = Directory(home / "x" / "state").own_secret()
    picture, image = _format.read_snapshot(path.read_bytes())
    engine = _image.restore(_plugins.load(["registry_containers"]).declarations, bytes(image))
    counter = engine.find("counter", "c")
    assert counter is not None
    counter.instance.incr()
    path.write_bytes(b"".join(map(bytes, _format.pack_snapshot(picture, _image.capture(engine), secret))))
    monkeypatch.setattr("registry._log._recovery.PROGRESS", 3)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert cli.run(["state", "verify", "x", "--json"]) == 1
    captured = capsys.readouterr()
    (failure,) = json.loads(captured.out)["failures"]
    assert failure.startswith(f"{path} has not the state that the events lead to")
    assert f"registry: {failure}\n" in captured.err
    assert re.search(r"\rregistry: checking, event \d+\r +\r", captured.err)
    (home / "x" / "epoch").write_bytes(b"x" * 4096)
    assert cli.run(["state", "verify", "x"]) == 1
    assert "are damaged, so that fencing tokens could come twice" in capsys.readouterr().err


def test_verify_says_why_it_could_not_replay(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With other plugins than the server's only the bytes are checked; unless told, those of the server are used."""
    (tmp_path / "jars.py").write_text(PLUGIN)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with serving("x", "-p", str(tmp_path / "jars.py")), client() as shared:
        shared.jar("j").add()
    assert said(capsys, "verify", "x")["skipped"] == []
    found = said(capsys, "verify", "x", "--plugins", "registry_sync")
    assert found["replayed"] == 0 and found["blake2b"] is None
    assert "plugin jars was" in " ".join(found["skipped"])
    (tmp_path / "jars.py").write_text("1 / 0\n")
    for name in [name for name in sys.modules if name.startswith("jars_")]:
        del sys.modules[name]
    found = said(capsys, "verify", "x")
    assert found["skipped"][0].startswith("nothing was replayed: ") and "jars" in found["skipped"][0]
    assert refusal(capsys, "verify", "x", "-p", str(tmp_path / "jars.py"))[0] == 1  # it was asked for
    assert found["segments"] and found["replayed"] == 0


def test_dump_shows_values_and_holders(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a server that runs, with who holds what; of one that does not, the same; and what happened."""
    with serving(), client() as shared:
        shared.dict("prices")["BTC"] = 97_000
        shared.dict("prices")["odd"] = Odd()
        grant = shared.lock("login").acquire()
        found = said(capsys, "dump", "x")
        rows = {row["object"]: row for row in found["objects"]}
        assert rows["dict:prices"]["content"]["BTC"] == 97_000
        assert rows["dict:prices"]["content"]["odd"].startswith("<pickle of test_cli_state.Odd")
        assert rows["lock:login"]["holders"][0]["token"] == grant.token
        assert [str(os.getpid()) in row["who"] for row in found["sessions"]] == [True]
        assert cli.run(["state", "dump", "x"]) == 0
        out = capsys.readouterr().out
        assert "'BTC': 97000" in out and f"token {grant.token}" in out
        events = said(capsys, "dump", "x", "--events")
        assert [row["index"] for row in events] == list(range(1, len(events) + 1))
        grant.release()
    assert cli.run(["state", "dump", "x", "--events"]) == 0
    assert "dict:prices.__setitem__('BTC', 97000)" in capsys.readouterr().out
    found = said(capsys, "dump", "x", "--plugins", "registry_sync")
    assert list({row["object"]: row["state"] for row in found["objects"]}["dict:prices"][1]) == ["BTC", "odd"]


class Odd:
    """It has no typed form."""


def test_without_the_code_dump_shows_the_last_snapshot(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And says what is not in it."""
    used()
    with serving() as process, client() as shared:
        shared.counter("c").incr()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert cli.run(["state", "dump", "x", "--plugins", "registry_sync", "--json"]) == 0
    captured = capsys.readouterr()
    assert {row["object"]: row["state"] for row in json.loads(captured.out)["objects"]}["counter:c"] == {"_value": 1}
    assert "this is the state of the last snapshot, of event" in captured.err
    assert "what followed is not in it" in captured.err
    assert {row["object"]: row["state"] for row in said(capsys, "dump", "x")["objects"]}["counter:c"] == {"_value": 2}


# What they refuse


@pytest.mark.parametrize("verb", ["verify", "dump", "backup"])
def test_no_log_is_exit_1(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    """Nothing is made where there is nothing."""
    words = [verb, str(tmp_path / "b.tar")] if verb == "backup" else [verb]
    code, text = refusal(capsys, *words, "x")
    assert code == 1 and f"there is no log in {home}/x/state" in text
    assert not (home / "x").exists() and not (tmp_path / "b.tar").exists()
    assert cli.run(["state", *words, "x", "-a", "y"]) == 2
    assert "give NAME or --address, not both" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["verify"], ["dump"], ["backup", "b.tar"], ["restore"]])
def test_who_cannot_be_asked_is_a_conflict(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """A directory that somebody has, and a server without a log, or in a program: exit 5, and nothing is done."""
    used()
    monkeypatch.chdir(tmp_path)
    assert cli.run(["state", "backup", "a.tar", "x"]) == 0
    capsys.readouterr()
    words = [*words, "a.tar", "--yes"] if words == ["restore"] else words
    directory = Directory(home / "x" / "state")
    lock = _store.take(directory)
    before = files(home)
    code, text = refusal(capsys, *words, "--state", str(directory.path))
    assert code == 5 and f"is in use by pid {os.getpid()}" in text
    assert files(home) == before
    lock.release()
    with ManagerServer("y"):
        code, text = refusal(capsys, *words, "y")
        assert code == 5 and "keeps everything in memory" in text
    if words[0] == "restore":
        with ManagerServer("x", log="process") as server:
            before = files(home)
            code, text = refusal(capsys, *words, "x")
            assert code == 5 and 'was not started by "registry serve"; stop the program that has it' in text
            assert server.host.engine.find("counter", "c") is not None
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.tar"]


def test_backup_replaces_nothing(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without ``--force``; in a directory the file gets a name of its own."""
    used()
    (tmp_path / "b.tar").write_text("mine")
    code, text = refusal(capsys, "backup", str(tmp_path / "b.tar"), "x")
    assert code == 5 and "nothing was written; --force replaces it" in text
    assert (tmp_path / "b.tar").read_text() == "mine"
    found = said(capsys, "backup", str(tmp_path / "b.tar"), "x", "--force")
    assert (found["file"], found["bytes"]) == (str(tmp_path / "b.tar"), (tmp_path / "b.tar").stat().st_size)
    assert {"index", "chain", "epoch", "code", "server", "host", "made", "version", "files"} <= found.keys()
    found = said(capsys, "backup", str(tmp_path), "x")
    assert Path(found["file"]).parent == tmp_path and Path(found["file"]).name.startswith("x-")
    code, text = refusal(capsys, "backup", str(tmp_path / "no" / "b.tar"), "x")
    assert code == 2 and f"there is no directory {tmp_path}/no" in text


def test_a_backup_is_looked_at_as_a_log_is(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--state`` takes it: it can be verified and shown before anybody needs it, and is refused if it is damaged."""
    used()
    with serving() as process, client() as shared:
        shared.counter("c").incr()
        process.send_signal(signal.SIGKILL)
        process.wait()
    backup = tmp_path / "b.tar"
    said(capsys, "backup", str(backup), "x")
    live = said(capsys, "verify", "x")
    found = said(capsys, "verify", "--state", str(backup))
    assert [found[key] for key in ("index", "chain", "blake2b", "failures")] == [
        live["index"],
        live["chain"],
        live["blake2b"],
        [],
    ]
    rows = {row["object"]: row["state"] for row in said(capsys, "dump", "--state", str(backup))["objects"]}
    assert rows["counter:c"] == {"_value": 2}
    data = backup.read_bytes()
    backup.write_bytes(data[:600] + b"?" + data[601:])
    assert refusal(capsys, "verify", "--state", str(backup))[0] == 1


def test_restore_asks_before_it_replaces(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal it does nothing and exits with 5; into an empty place it does not ask."""
    used()
    backup = str(tmp_path / "b.tar")
    said(capsys, "backup", backup, "x")
    before = files(home)
    code, text = refusal(capsys, "restore", backup, "x")
    assert code == 5 and "would be replaced by that of" in text and "nothing was done. --yes does it all the" in text
    assert files(home) == before
    assert refusal(capsys, "restore", backup, "--state", backup, "--yes")[0] == 2
    asked: list[str] = []
    for answer in (False, True):
        monkeypatch.setattr(_common, "interactive", lambda: True)
        monkeypatch.setattr("click.confirm", lambda text, err, answer=answer: asked.append(text) or answer)
        assert cli.run(["state", "restore", backup, "x"]) == (0 if answer else 5)
        assert (files(home) == before) is not answer
    assert len(asked) == 2 and asked[0].startswith("registry: the state in ") and asked[0].endswith(" Restore it?")
    assert f"what was there before is in {home}/x/state/before-restore-1" in capsys.readouterr().err
    found = said(capsys, "restore", backup, "y")
    assert found.keys() == {"directory", "index", "epoch", "aside", "own", "closed", "started"}
    assert (found["directory"], found["aside"], found["started"]) == (str(home / "y" / "state"), None, None)
    with serving("y"), client("y") as shared:
        assert shared.dict("prices")["BTC"] == 97_000


def test_restore_refuses_what_is_no_backup(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A damaged one and a foreign file; the server that runs is not stopped for it."""
    used()
    said(capsys, "backup", str(tmp_path / "b.tar"), "x")
    data = (tmp_path / "b.tar").read_bytes()
    (tmp_path / "b.tar").write_bytes(data[:700] + b"?" + data[701:])
    (tmp_path / "c.tar").write_text("no tar at all")
    (tmp_path / "d").mkdir()
    with serving() as process, client() as shared:
        before = files(home)
        for name, what in (("b.tar", "is damaged"), ("c.tar", "cannot be restored"), ("d", "there is no log in")):
            code, text = refusal(capsys, "restore", str(tmp_path / name), "x", "--yes")
            assert code == 1 and what in text and "Nothing was changed" in text
        assert process.poll() is None and files(home) == before
        assert shared.counter("c").get() == 1
    code, _ = refusal(capsys, "restore", str(tmp_path / "none"), "x")
    assert code == 2
    code, text = refusal(capsys, "restore", str(home / "x" / "state"), "x", "--yes")
    assert code == 2 and "is the log itself, not a backup of it" in text


def test_an_interrupted_restore_is_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Until somebody goes on with it, there is nothing that could be looked at."""
    used()
    (home / "x" / "state" / "restoring").mkdir()
    code, text = refusal(capsys, "verify", "x")
    assert code == 5 and "was interrupted; start the server, which goes on with it" in text


# What they do


def test_state_of_a_directory_of_its_own(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--state`` of the server is found by its name, whether it runs or not; or it is given."""
    state = tmp_path / "s"
    with serving("x", "--state", str(state)), client() as shared:
        shared.counter("c").incr()
        assert said(capsys, "verify", "x")["directory"] == str(state)
        assert said(capsys, "verify", "x", "--state", str(state))["live"] is True
    for words in (["x"], ["--state", str(state)], ["x", "--state", str(state)]):
        found = said(capsys, "verify", *words)
        assert (found["directory"], found["live"], found["failures"]) == (str(state), False, [])
    said(capsys, "backup", str(tmp_path / "b.tar"), "x")
    found = said(capsys, "restore", str(tmp_path / "b.tar"), "x", "--yes")
    assert found["directory"] == str(state)
    assert found["epoch"] == EpochFile(state / "epoch").counted() > 1000


@toml
def test_the_configuration_names_directory_and_plugins(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no server has been started by ``registry serve``, they are those of the name's ``registry.toml``."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (home / "x").mkdir(0o700)
    (home / "x" / "jars.py").write_text(PLUGIN)
    (home / "x" / "registry.toml").write_text(f'plugin = ["./jars.py"]\nstate = "{tmp_path}/s"\n')
    plugins = [str(home / "x" / "jars.py")]
    with ManagerServer("x", log="process", state=tmp_path / "s", plugins=plugins), client() as shared:
        shared.jar("j").add()
    found = said(capsys, "verify", "x")
    assert (found["directory"], found["skipped"]) == (f"{tmp_path}/s", [])


@pytest.mark.once
def test_a_backup_under_load_has_all_that_was_acknowledged(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of four writers, each backup is a moment: a prefix of what each wrote, with all that it had been told by then."""
    stop = threading.Event()
    counts = [0, 0, 0, 0]

    def write(number: int) -> None:
        with client() as shared:
            row, count = shared.queue(f"q{number}"), shared.counter(f"c{number}")
            while not stop.is_set():
                row.put(counts[number])
                count.incr()
                counts[number] += 1

    with serving(), client() as asking:
        with running(*[lambda number=number: write(number) for number in range(4)]):
            try:
                backups = []
                for number in range(size(3, 20)):
                    until(lambda ask: min(counts) > 50 * number, asking)  # noqa: B023
                    before = list(counts)
                    path = tmp_path / f"{number}.tar"
                    assert cli.run(["state", "backup", str(path), "x"]) == 0
                    backups.append((path, before))
                assert said(capsys, "verify", "x")["failures"] == []
            finally:
                stop.set()
    for number, (path, before) in enumerate(backups):
        found = said(capsys, "restore", str(path), f"y{number}")
        with serving(f"y{number}"), client(f"y{number}") as shared:
            for writer, count in enumerate(before):
                items = []
                while (row := shared.queue(f"q{writer}")).qsize():
                    items.append(row.get(timeout=0))
                assert items == list(range(len(items)))
                assert len(items) >= count
                assert shared.counter(f"c{writer}").get() in (len(items), len(items) - 1)
        assert found["started"] is None


def test_restore_through_a_server_that_runs(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is another life: who has seen more is told so once, who has not goes on, and tokens only grow."""
    with serving() as process, client() as idle, client() as busy:
        held = idle.lock("idle").acquire()
        busy.counter("c").incr()
        said(capsys, "backup", str(tmp_path / "b.tar"), "x")
        busy.counter("c").incr()
        later = busy.lock("busy").acquire()
        found = said(capsys, "restore", str(tmp_path / "b.tar"), "x", "--yes")
        assert process.wait(20) == 0
        assert found["started"] == server_processes.pid_of(home / "x") != process.pid
        assert Path(found["aside"]) == home / "x" / "state" / "before-restore-1"
        with pytest.raises(StateLost, match="it has lost what came after event"):
            busy.counter("c").get()
        assert busy.counter("c").get() == 1
        assert not busy.lock("busy").locked()
        assert idle.lock("idle").locked()
        held.release()
        grant = busy.lock("busy").acquire()
        assert grant.token > later.token > held.token
        status = idle.statistics()
        assert status["epoch"] > found["epoch"] > 1000
        # And again, to what was there before: its lives are told apart from those of the restored one.
        found = said(capsys, "restore", found["aside"], "x", "--yes")
        with pytest.raises(StateLost):
            busy.counter("c").get()
        assert busy.counter("c").get() == 2
        assert busy.lock("busy").acquire(blocking=False).token is None  # its holder of then may come back
        assert busy.lock("more").acquire().token > grant.token
        with pytest.raises(StateLost, match="was replaced by one that knows nothing of this session's time"):
            idle.lock("idle").locked()
        assert idle.statistics()["epoch"] > status["epoch"] + 1000


def test_a_server_starts_again_though_the_restore_failed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what it had."""
    used()
    said(capsys, "backup", str(tmp_path / "b.tar"), "x")

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with serving(), client() as shared:
        shared.counter("c").incr()
        monkeypatch.setattr("registry._log._restore.restore", full)
        code, text = refusal(capsys, "restore", str(tmp_path / "b.tar"), "x", "--yes")
        assert code == 1 and "No space left on device" in text
        assert shared.counter("c").get() == 2
        assert server_processes.pid_of(home / "x") is not None
    assert not ServerLock(home / "x" / "lock").held
    assert finished("state", "verify", "x").returncode in (0, 5)
