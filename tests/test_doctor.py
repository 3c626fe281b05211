"""``registry doctor``: each check by itself, on scenes that are made for it, and all of them on servers that run."""

from __future__ import annotations

import json
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import server_processes
from test_log_tools import lives
from test_starter import PLUGIN

import registry
from registry import ManagerServer, _room, _words, cli, errors
from registry._addresses import Place, load_key, parse
from registry.cli._common import size
from registry.cli._doctor import CHECKS, _address, _code, _key, _limits, _log, _memory, examine
from registry.cli._doctor._findings import Finding, ok, problem, refused
from registry.cli._doctor._scene import Scene, look

pytestmark = pytest.mark.once

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells this")


@pytest.fixture(autouse=True)
def servers(home: Path, nothing_left_running: None) -> Iterator[None]:
    """End the servers that a test has started."""
    yield
    server_processes.end_all(home)


@pytest.fixture
def place(home: Path) -> Place:
    """Make the directory of the name ``x``, as a server does."""
    place = Place("x")
    place.ensure()
    return place


@pytest.fixture(autouse=True)
def only_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the plugins of other distributions, which may be broken or at odds with ours."""
    ours = metadata.distribution("shared-registry")
    monkeypatch.setattr(metadata, "distributions", lambda **_: [ours])


def scene_of(asked: str | None = "x", **known: Any) -> Scene:
    """Return a scene that nobody has looked at."""
    address = parse(asked)
    return Scene(asked, address, place=Place(address), **known)


def told(findings: Any) -> list[tuple[str, str, str]]:
    """Return the rows of findings without what was checked."""
    return [(each.status, each.found, each.cure) for each in findings]


def content(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Return mode and content of all that lies below a directory."""
    return {
        str(path.relative_to(directory)): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(directory.rglob("*"))
    }


# All of them together


def test_a_server_that_is_well(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where all is well no row is a problem, the exit code is 0, and nothing is said beside the rows."""
    with ManagerServer("x") as server:
        before = content(home)
        assert cli.run(["doctor", "-a", "x"]) == 0
        assert content(home) == before
    said = capsys.readouterr()
    assert said.err == ""
    rows = [line.split(None, 1) for line in said.out.splitlines() if not line.startswith(" ")]
    assert {status for status, _ in rows} <= {"ok", "note"}
    assert f"pid {os.getpid()} on " in said.out
    assert server.url in said.out


def test_rows_for_programs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--json`` has every row, with a cure or null."""
    with ManagerServer("x"):
        assert cli.run(["doctor", "-a", "x", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["address"], found["problems"]) == ("x", 0)
    assert {tuple(row) for row in found["findings"]} == {("check", "status", "found", "cure")}
    checks = [row["check"] for row in found["findings"]]
    assert list(dict.fromkeys(checks))[:7] == ["address", "directory", "server", "key", "versions", "code", "plugins"]


def test_nobody_is_started_and_nothing_is_made(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That no server runs is told, and stays so; not even a directory is made. For a name this is no problem."""
    assert cli.run(["doctor", "-a", "x"]) == 0
    assert "none runs, and the first connect() starts one" in capsys.readouterr().out
    assert list(home.iterdir()) == []


def test_a_problem_is_exit_1_and_has_its_cure_below(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What does not work is a problem; its cure stands in the next line, under what was found."""
    assert cli.run(["doctor", "-a", "tcp://127.0.0.1:9"]) == 1
    said = capsys.readouterr()
    assert said.err == "registry: 1 problem found\n"
    lines = said.out.splitlines()
    (place,) = [number for number, line in enumerate(lines) if line.startswith("problem")]
    column = lines[place].index("there is none for")
    assert lines[place + 1].index("cure: export REGISTRY_AUTHKEY_FILE=") == column


def test_a_check_that_fails_keeps_no_other_from_being_made() -> None:
    """An error of a check is a problem of its own, and the next check is made."""

    def broken_check(scene: Scene) -> list[Finding]:
        raise OSError(5, "Input/output error", "/x")

    found = list(examine(Scene(), [broken_check, lambda scene: [ok("next", "made")]]))
    assert found == [problem("broken check", "could not be checked: Input/output error: /x"), ok("next", "made")]


def test_every_check_can_be_made_of_nothing() -> None:
    """A scene in which nothing is known gives no errors."""
    for check in CHECKS:
        for each in check(Scene(asked="x")):
            assert each.status in ("ok", "note", "problem")


@pytest.mark.parametrize(
    ("count", "text"),
    [(1, "1 byte"), (1023, "1023 bytes"), (1024, "1 kB"), (1536, "1.5 kB"), (64 << 20, "64 MB"), (78 << 30, "78 GB")],
)
def test_sizes_are_written_as_people_do(count: int, text: str) -> None:
    """A size has a unit and no more digits than matter."""
    assert size(count) == text


def test_what_the_product_refuses_has_its_cure_in_its_text() -> None:
    """The texts of errors end with the cure behind a colon."""
    error = errors.AccessDenied("/k is open to others (mode 644): chmod 600 /k")
    assert refused("key", error) == problem("key", "/k is open to others (mode 644)", "chmod 600 /k")
    assert refused("key", ValueError("empty")) == problem("key", "empty")


# Address, directory, server


def test_where_an_address_comes_from(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """The row names the URL, the name, and who has chosen it; that a home is set is a note."""
    url = f"unix://{home}/x/socket"
    assert told(_address.address(scene_of()))[0] == ("ok", f"{url}, the socket of the name 'x'", "")
    first, second = told(_address.address(scene_of(None)))
    assert first[1].endswith("the name 'default', since none is given")
    assert second[0] == "note"
    assert second[2] == f"set REGISTRY_HOME={home} for all of them, or for none"
    monkeypatch.setenv("REGISTRY_ADDRESS", "tcp://127.0.0.1:9")
    assert told(_address.address(scene_of(None))) == [("ok", "tcp://127.0.0.1:9, as REGISTRY_ADDRESS says", "")]


def test_an_address_that_means_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with an address, or with the home of all names, is a problem with its cure; the rest is checked."""
    assert told(_address.address(look("no name"))) == [
        ("problem", "the address 'no name' is no name", "a name is made of letters, digits, '.', '_' and '-'")
    ]
    monkeypatch.setenv("REGISTRY_HOME", "here")
    ((status, found, cure),) = told(_address.address(look("x")))
    assert (status, cure) == ("problem", "make it absolute")
    assert found.startswith("REGISTRY_HOME is 'here'")
    assert any(each.check == "shared memory" for each in examine(look("x")))


def test_a_server_within_a_process_cannot_be_looked_at() -> None:
    """``memory://`` is nowhere that a command could look."""
    scene = look("memory://")
    assert told(_address.address(scene))[0][0] == "note"
    assert list(_address.server(scene)) == []


def test_a_directory_that_others_may_enter(place: Place) -> None:
    """A directory that is open to others, or that another user owns, is a problem."""
    assert told(_address.directory(scene_of()))[0][0] == "ok"
    place.directory.chmod(0o755)
    assert told(_address.directory(scene_of())) == [
        ("problem", f"{place.directory} is open to others (mode 755)", f"chmod 700 {place.directory}")
    ]


def test_a_directory_that_cannot_be_made(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the directory is missing, whoever starts a server must be able to make it."""
    assert told(_address.directory(scene_of())) == [("ok", f"{home}/x is not there yet; the first server makes it", "")]
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    ((status, found, cure),) = told(_address.directory(scene_of()))
    assert (status, found) == ("problem", f"{home}/x is not there, and {home} cannot be written by this process")
    assert cure.startswith("set REGISTRY_HOME")


def test_a_directory_that_is_a_link(home: Path, tmp_path: Path) -> None:
    """A symbolic link could lead anywhere."""
    (home / "x").symlink_to(tmp_path)
    ((status, found, _),) = told(_address.directory(scene_of()))
    assert status == "problem"
    assert "is a symbolic link" in found


def test_nobody_at_a_url_is_a_problem(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL starts no server, so that one must run there."""
    key = home / "key"
    key.write_bytes(b"k" * 32)
    key.chmod(0o600)
    monkeypatch.setenv("REGISTRY_AUTHKEY_FILE", str(key))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
    ((status, found, cure),) = told(_address.server(look(url)))
    assert (status, cure) == ("problem", f"registry serve -a {url}")
    assert "nothing listens there" in found


def test_a_server_that_was_killed_is_remembered(home: Path) -> None:
    """The lock file tells that the last server did not end by itself."""
    registry.connect("x").close()
    pid = server_processes.pid_of(home / "x")
    assert pid is not None
    server_processes.end(pid, 9)
    status, found, _ = told(_address.server(look("x")))[0]
    assert status == "note"
    assert f"the last one (pid {pid}) was killed, or went with the machine" in found
    registry.connect("x").close()
    assert cli.run(["stop", "-a", "x"]) == 0
    assert told(_address.server(look("x")))[0][1] == "none runs, and the first connect() starts one"


def test_a_server_that_does_not_answer(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose socket is gone cannot be reached; the process is named, and how to end it."""
    with server_processes.running("serve", "x", "--json") as process:
        assert process.stdout is not None
        process.stdout.readline()
        (home / "x" / "socket").unlink()
        status, found, cure = told(_address.server(look("x")))[0]
    assert status == "problem"
    assert found.startswith(f"pid {process.pid} is the server and does not answer; its socket is gone")
    assert cure.endswith(f"kill {process.pid} ends it")


def test_what_is_in_the_place_of_a_socket(place: Place) -> None:
    """Another file in the socket's place, and a socket that everybody may connect to, are told."""
    place.socket.write_bytes(b"")
    assert told(_address._socket(str(place.socket)))[0][:2] == ("problem", f"{place.socket} is there and is no socket")
    place.socket.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place.socket))
        place.socket.chmod(0o666)
        assert told(_address._socket(str(place.socket)))[0][0::2] == ("note", f"chmod 600 {place.socket}")
        place.socket.chmod(0o600)
        assert told(_address._socket(str(place.socket))) == []


# The key


def test_a_key_that_is_its_users_alone(place: Place) -> None:
    """The row names who can read the key."""
    load_key(place.key, create=True)
    ((status, found, _),) = told(_key.key(look("x")))
    assert status == "ok"
    assert found.startswith(f"{place.key}, readable by ")
    assert found.endswith(" alone")


def test_a_key_that_others_can_read(place: Place) -> None:
    """A key that others can read is refused by the product, and the doctor says why and how to mend it."""
    load_key(place.key, create=True)
    place.key.chmod(0o640)
    ((status, found, cure),) = told(_key.key(look("x")))
    assert (status, cure) == ("problem", f"chmod 600 {place.key}")
    assert f"{place.key} is open to others (mode 640)" in found


def test_a_key_file_of_a_group(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key file that is named may be a group's, which is told."""
    key = home / "shared"
    key.write_bytes(os.urandom(32))
    key.chmod(0o640)
    monkeypatch.setenv("REGISTRY_AUTHKEY_FILE", str(key))
    ((status, found, _),) = told(_key.key(look("x")))
    assert status == "note"
    assert "is readable by the group" in found


def test_a_key_that_could_be_guessed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short key is told, with how to make another one; it is never shown."""
    key = home / "short"
    key.write_bytes(b"aaaaaaa")
    key.chmod(0o600)
    monkeypatch.setenv("REGISTRY_AUTHKEY_FILE", str(key))
    found = told(_key.key(look("x")))
    assert found[0][:2] == ("note", f"the key in {key} is one that everybody tries first")
    assert not any("aaaaaaa" in text for row in found for text in row)
    assert "aaaaaaa" not in repr(look("x"))


def test_a_key_that_the_server_refuses(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server has another key that is a problem of server and key, and the server's own key file is named."""
    mine, theirs = home / "mine", home / "theirs"
    for path in (mine, theirs):
        path.write_bytes(os.urandom(32))
        path.chmod(0o600)
    with server_processes.running("serve", "x", "--authkey-file", str(theirs), "--json") as process:
        assert process.stdout is not None
        process.stdout.readline()
        monkeypatch.setenv("REGISTRY_AUTHKEY_FILE", str(mine))
        scene = look("x")
    assert told(_address.server(scene))[0][0] == "problem"
    assert told(_key.key(scene))[0] == (
        "problem",
        f"the server refuses the key in {mine}",
        f"export REGISTRY_AUTHKEY_FILE={theirs}",
    )


# Code


def test_versions_that_differ(home: Path) -> None:
    """A server of another version is a note that says how to get to one version."""
    status = {"version": "0.0.1", "python": "3.9.1"}
    rows = told(_code.versions(scene_of(status=status, about={"python": "/opt/python"})))
    assert rows[1] == (
        "note",
        f"the server runs shared-registry 0.0.1, and this process {registry.__version__}",
        "registry restart -a x, or install the same version in both",
    )
    assert rows[2][1] == "the server runs Python 3.9.1 in /opt/python"


def test_a_server_with_old_code(home: Path, tmp_path: Path) -> None:
    """Files that have changed since the server loaded them are a problem, told once, with the cure."""
    path = tmp_path / "jars.py"
    path.write_text(PLUGIN)
    with ManagerServer("x", plugins=[str(path)]):
        scene = look("x")
        assert [each.status for each in _code.stale(scene)] == ["ok"]
        assert scene.about["code"]["jars"].startswith("without a version (")
        path.write_text(PLUGIN + "\n# changed")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scene = look("x")
    assert told(_code.stale(scene)) == [
        ("problem", f"the server runs old code: {path} changed since it was started", "registry restart -a x")
    ]


def test_plugins_are_compared_with_the_servers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each plugin that differs, is missing here or is missing there is told; those that are the same in one row."""
    from registry import _plugins

    here = _plugins.load()
    theirs = {**here.fingerprint(), "registry_sync": "9.9", "cookies": "1.2"}
    del theirs["registry_queues"]
    code = {**here.code(), "registry_containers": "other"}
    about = {"python": sys.executable, "code": code}
    found = told(_code.plugins(scene_of(status={"plugins": theirs}, about=about)))
    cure = "registry restart -a x"
    assert ("problem", f"registry_sync is 9.9 on the server, and {registry.__version__} here", cure) in found
    assert ("note", "cookies 1.2 is on the server, and not here", "registry plugins") in found
    assert ("note", "registry_queues is installed here, and the server was started without it", cure) in found
    assert any(
        row[0] == "problem" and f"registry_containers {registry.__version__} has other code on" in row[1]
        for row in found
    )
    assert found[-1] == ("ok", "the same here and on the server: registry_arrays", "")


def test_another_interpreter_has_to_compare_for_itself(home: Path) -> None:
    """What another Python would load cannot be told from here; the command that can is named."""
    scene = scene_of(status={"plugins": {}}, about={"python": "/opt/python", "changed": []})
    assert told(_code.plugins(scene))[0][2] == "/opt/python -m registry doctor -a x"


def test_a_broken_plugin_of_the_name(place: Path, tmp_path: Path) -> None:
    """What the next server would load is loaded, and what is broken about it is told; no traces of that stay."""
    (tmp_path / "broken.py").write_text("1 / 0\n")
    notes = {"options": ["-p", str(tmp_path / "broken.py")], "path": [str(tmp_path)]}
    path = list(sys.path)
    ((status, found, cure),) = told(_code.plugins(scene_of(notes=notes)))
    assert (status, found) == ("problem", "broken is broken: ZeroDivisionError: division by zero")
    assert cure == "registry plugins --check"
    assert sys.path == path
    assert [each.name for each in tmp_path.iterdir()] == ["broken.py"]
    notes = {"options": ["-p", "/nowhere.py"]}
    assert told(_code.plugins(scene_of(notes=notes)))[0][0] == "problem"


# Shared memory, reads, deaths


class Tmpfs:
    """What a file system says of itself."""

    def __init__(self, whole: int, free: int) -> None:
        self.f_frsize = 4096
        self.f_blocks = whole // 4096
        self.f_bavail = free // 4096


@linux
def test_a_small_tmpfs_is_told_with_its_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a container of docker's there are 64 MB: what finds no room goes through the socket, and more can be given."""
    monkeypatch.setattr(os, "statvfs", lambda path: Tmpfs(64 << 20, 60 << 20))
    monkeypatch.setattr("registry._addresses._files.file_system", lambda path: "tmpfs")
    ((status, found, cure),) = told(_memory.shared_memory(Scene(memory=str(tmp_path))))
    assert status == "note"
    assert found.startswith(f"{tmp_path} has 64 MB, 60 MB of them free; a value takes half of what is free at most")
    assert "--shm-size=1g" in cure
    assert "shm_size: 1gb" in cure


@linux
def test_a_tmpfs_that_is_full_or_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A full one, a disk in its place, and none at all are told: values go through the socket."""
    monkeypatch.setattr("registry._addresses._files.file_system", lambda path: "tmpfs")
    monkeypatch.setattr(os, "statvfs", lambda path: Tmpfs(8 << 30, 1 << 20))
    assert told(_memory.shared_memory(Scene(memory=str(tmp_path))))[0][0] == "note"
    monkeypatch.setattr(os, "statvfs", lambda path: Tmpfs(8 << 30, 4 << 30))
    assert told(_memory.shared_memory(Scene(memory=str(tmp_path))))[0] == (
        "ok",
        f"{tmp_path} has 8 GB, 4 GB of them free",
        "",
    )
    monkeypatch.setattr("registry._addresses._files.file_system", lambda path: "ext4")
    assert told(_memory.shared_memory(Scene(memory=str(tmp_path))))[0][1] == (
        f"{tmp_path} is no memory, but ext4: large values go over a disk"
    )
    assert told(_memory.shared_memory(Scene(memory="/nowhere")))[0][1] == (
        "there is no /nowhere: values of 256 kB and more go through the socket"
    )


@linux
def test_a_folder_that_somebody_else_could_change(tmp_path: Path) -> None:
    """The folder of the version words is used only if it is this user's alone."""
    folder = tmp_path / f"registry-{os.geteuid()}"
    folder.mkdir(mode=0o700)
    assert told(_memory._own_folder(str(tmp_path))) == []
    folder.chmod(0o777)
    assert told(_memory._own_folder(str(tmp_path)))[0][0] == "problem"


@linux
def test_large_values_of_a_server_that_cannot_be_seen(tmp_path: Path) -> None:
    """Where the server's directory is another container's, values are sent; that is told with how to share it."""
    ((status, found, cure),) = told(_memory._files(scene_of(status={"files": str(tmp_path / "gone")})))
    assert status == "note"
    assert "which this process cannot use" in found
    assert "--ipc=container:NAME" in cure


def test_why_reads_are_round_trips(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Whether reads are answered here is what the connection shows; where they are not, the reason is told."""
    monkeypatch.setattr(_words, "IS_SUPPORTED", False)
    ((status, found, _),) = told(_memory.reads(Scene()))
    assert status == "note"
    assert found.startswith("each is a round trip: that takes x86-64 Linux, and this is ")
    assert told(_memory.reads(Scene(reads="of that")))[0][:2] == ("note", "each is a round trip: of that")
    assert told(_memory.reads(Scene(reads="")))[0][0] == "ok"
    with ManagerServer("x"):
        assert look("x").reads is not None
        assert "x86-64" in str(look("x").reads)


@pytest.mark.skipif(not _words.IS_SUPPORTED, reason="no reads are cached here")
def test_reads_without_a_call(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same host reads need no call, unless the words cannot be mapped, or the server has no room for them."""
    with ManagerServer("x"):
        assert look("x").reads == ""
        monkeypatch.setattr(_words, "map_words", lambda told: None)
        assert "cannot be mapped" in str(look("x").reads)
    monkeypatch.undo()
    monkeypatch.setenv("REGISTRY_HOME", str(home))
    monkeypatch.setattr(_words, "begin", lambda *args: None)
    with ManagerServer("y"):
        assert "has found no room" in str(look("y").reads)


@linux
def test_how_deaths_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a socket of this host at once, over TCP by the lease."""
    assert told(_memory.deaths(scene_of()))[0][0] == "ok"
    assert told(_memory.deaths(scene_of("tcp://127.0.0.1:9")))[0][0] == "note"
    status, found, cure = told(_memory.deaths(scene_of(lease=30.0)))[0]
    assert status == "note"
    assert found.startswith("what a client holds is freed when its lease of 30 s has run out, not at its death")
    assert "--pid=host" in cure
    monkeypatch.delattr(os, "pidfd_open")
    assert told(_memory.deaths(scene_of()))[0][0] == "note"
    with ManagerServer("tcp://127.0.0.1:0", lease=7.0) as server:
        assert look(server.url).lease == 7.0


# The log


def test_no_log_and_a_log_that_nobody_serves(place: Place) -> None:
    """That nothing survives is said; a log that lies there while the server keeps none is a note."""
    assert [each.status for each in _log.log(scene_of())] == ["ok"]
    lives(place.state)
    assert told(_log.log(scene_of(status={"log": "memory"})))[0][0::2] == ("note", "registry serve --log process")


def test_a_log_that_is_whole(place: Place) -> None:
    """Mode, room and files are told; nothing is changed."""
    lives(place.state)
    (place.state / "epoch").rename(place.epoch)
    place.state.chmod(0o700)
    before = content(place.directory)
    found = told(_log.log(scene_of(status={"log": "disk", "events": 9, "safe": 7})))
    assert [row[0] for row in found] == ["ok", "ok", "ok"]
    assert found[0][1].endswith("; 2 events wait to be written")
    assert "segments and" in found[2][1]
    assert '"registry state verify -a x" reads all of them' in found[2][1]
    assert content(place.directory) == before


def test_a_log_that_is_damaged(place: Place) -> None:
    """What is seen of damage without reading is a problem with the command that reads it all."""
    lives(place.state)
    for path in place.state.glob("*.snapshot"):
        path.write_bytes(b"?")
    found = told(_log.files(place.state, place.state / "epoch", " -a x"))
    assert {row[0] for row in found} == {"problem"}
    assert {row[2] for row in found} == {"registry state verify -a x, and registry state restore BACKUP"}


def test_a_count_of_lives_that_is_damaged(place: Place) -> None:
    """Without its count of lives a server does not start."""
    place.epoch.write_bytes(b"?" * 4096)
    ((status, found, _),) = told(_log.files(place.state, place.epoch))
    assert status == "problem"
    assert "fencing tokens could come twice" in found


def test_a_log_that_others_can_read_or_that_has_no_room(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The values of everybody are in it, and it must be able to grow."""
    place.state.mkdir(mode=0o755)
    place.state.chmod(0o755)
    assert told(_log._directory(place.state))[0][0::2] == ("problem", f"chmod 700 {place.state}")
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1 << 40, 1 << 40, 5 << 20))
    ((status, found, cure),) = told(_log._room(place.state))
    assert (status, cure) == ("problem", f"df -h {place.state}")
    assert found.startswith("5 MB are free")


# The control group, open files


def grouped(tmp_path: Path, path: str, **files: str) -> Path:
    """Make a tree of control groups with files in one of them."""
    folder = tmp_path / "cgroup" / path.strip("/")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(f"{text}\n")
    return tmp_path / "cgroup"


def process(tmp_path: Path, cgroup: str, pid: str = "self") -> str:
    """Make a table of processes in which one is part of a control group."""
    folder = tmp_path / "proc" / pid
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup").write_text(cgroup)
    return str(tmp_path / "proc")


def test_the_tightest_limit_of_all_groups_above(tmp_path: Path) -> None:
    """A group has its own limit and those of all that it is part of; the one that leaves the least counts."""
    grouped(tmp_path, "/a.slice", memory_max="1073741824", memory_current="1000000000", memory_events="oom_kill 2")
    groups = grouped(
        tmp_path, "/a.slice/b.service", memory_max="536870912", memory_current="1000", memory_events="low 0"
    )
    found = _room.group_of("0::/a.slice/b.service\n", groups)
    assert found == (1 << 30, 1_000_000_000, 2)
    assert _room.group_of("0::/other\n", groups) is None
    grouped(tmp_path, "/free", memory_max="max", memory_current="1")
    assert _room.group_of("0::/free\n", groups) is None


def test_limits_of_the_first_version(tmp_path: Path) -> None:
    """Older systems have a tree of its own for memory, and a very large number for no limit."""
    folder = tmp_path / "cgroup" / "memory" / "docker" / "x"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text("536870912\n")
    (folder / "memory.usage_in_bytes").write_text("4096\n")
    (folder.parent / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    text = "3:cpu,cpuacct:/x\n2:memory:/docker/x\n1:name=systemd:/x\n"
    assert _room.group_of(text, tmp_path / "cgroup") == (536870912, 4096, 0)


def test_a_limit_and_what_comes_of_it(tmp_path: Path) -> None:
    """A limit is a note; one that is nearly reached, or that has killed before, is a problem."""
    proc = process(tmp_path, "0::/x\n")

    def seen(used: int, killed: int) -> tuple[str, str, str]:
        groups = grouped(
            tmp_path, "/x", memory_max="1000000000", memory_current=str(used), memory_events=f"oom_kill {killed}"
        )
        return told(_limits.control_group(Scene(proc=proc, groups=str(groups))))[0]

    assert seen(1000, 0)[0] == "note"
    assert seen(950_000_000, 0)[0] == "problem"
    status, found, cure = seen(1000, 3)
    assert status == "problem"
    assert "3 processes of it were killed for want of it" in found
    assert cure == "raise MemoryMax= of its unit, or --memory of its container"


def test_a_server_that_ends_with_a_service(tmp_path: Path) -> None:
    """One that is started on demand from within a service ends with it; a unit of its own does not."""
    proc = process(tmp_path, "0::/system.slice/cron.service\n")
    groups = str(tmp_path / "none")
    assert told(_limits.control_group(scene_of(proc=proc, groups=groups))) == [
        (
            "note",
            "a server that is started from here is part of cron.service, and ends with it",
            "systemctl enable --now registry@x, a unit of its own",
        )
    ]
    from registry import _peers

    pid = str(os.getpid())
    process(tmp_path, "0::/system.slice/registry@x.service\n", pid)
    status = {"pid": os.getpid(), "host": _peers.machine()}
    own = scene_of(proc=proc, groups=groups, status=status)
    assert told(_limits.control_group(own)) == [
        ("ok", "the server is part of registry@x.service, and no limit to its memory", "")
    ]
    own.notes = {"unit": "registry@x.service"}
    assert told(_limits.control_group(own))[0][0] == "note"


def test_a_system_without_control_groups(tmp_path: Path) -> None:
    """Where the system tells nothing there is nothing to say."""
    assert list(_limits.control_group(Scene(proc=str(tmp_path)))) == []
    assert list(_limits.open_files(Scene(proc=str(tmp_path)))) == []


@linux
def test_a_server_in_another_container_is_not_taken_for_a_process_of_this_one(tmp_path: Path) -> None:
    """Its number is that of another process here, even where the host has the same name."""
    from registry import _peers

    proc = process(tmp_path, "0::/system.slice/cron.service\n", str(os.getpid()))
    scene = scene_of(proc=proc, status={"pid": os.getpid(), "host": _peers.machine()})
    scene.notes = {"process": _peers.myself()}
    assert scene.pid == os.getpid()
    scene.notes = {"process": f"another-boot/pid:[1]/{os.getpid()}/1"}
    assert scene.pid is None
    assert told(_limits.control_group(scene))[0][:2] == (
        "note",
        "not looked at, since the server is in another container, or on another host",
    )
    assert list(_limits.open_files(scene)) == []


def test_open_files(tmp_path: Path) -> None:
    """How many clients there may be is a matter of open files."""
    from registry import _peers

    folder = tmp_path / str(os.getpid())
    (folder / "fd").mkdir(parents=True)
    (folder / "limits").write_text("Limit  Soft\nMax open files            10      4096    files\n")
    for number in range(4):
        (folder / "fd" / str(number)).touch()
    status = {"pid": os.getpid(), "host": _peers.machine()}
    scene = scene_of(proc=str(tmp_path), status=status)
    assert told(_limits.open_files(scene))[0][:2] == (
        "ok",
        "the server has 4 of 10 that it may have, two for each client",
    )
    for number in range(10):
        (folder / "fd" / str(number)).touch()
    assert told(_limits.open_files(scene))[0][0] == "problem"


def test_limits_that_are_nearly_used_up() -> None:
    """Each of them is a problem with its cure; else it is told which is used most."""
    rows = [
        ["handshake", "seconds", 10.0, None],
        ["objects", "objects", 100, 50],
        ["stored", "bytes", 1 << 30, 1 << 20],
    ]
    scene = scene_of(status={"limits": rows})
    assert told(_limits.limits(scene)) == [("ok", "50% of objects at most", "")]
    rows[1][3] = 95
    rows[2][3] = 1 << 30
    assert told(_limits.limits(scene)) == [
        (
            "problem",
            "objects: 95 objects of 100 objects; what is beyond is refused",
            "registry serve --limit objects=N, or objects = N under [limits]",
        ),
        (
            "problem",
            "stored: 1 GB of 1 GB; what is beyond is refused",
            "registry serve --limit stored=N, or stored = N under [limits]",
        ),
    ]
    assert told(_limits.limits(scene_of(status={}))) == []


# What is not there


def test_a_server_of_a_version_that_knows_no_doctor(home: Path) -> None:
    """A server that does not know the question is looked at all the same."""
    server = ManagerServer("x")
    server.open()
    del server.host.control["about"]
    with server:
        scene = look("x")
    assert scene.status["pid"] == os.getpid()
    assert scene.about == {}
    assert scene.error is None


def test_a_peer_that_says_nothing(home: Path, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What listens and never speaks is a problem, told after a limited time."""
    from registry.cli import _common

    monkeypatch.setattr(_common, "PATIENCE", 0.2)
    load_key(place.key, create=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place.directory / "silent"))
        listener.listen()
        monkeypatch.setenv("REGISTRY_AUTHKEY_FILE", str(place.key))
        scene = look(f"unix://{place.directory}/silent")
    assert told(_address.server(scene))[0][0] == "problem"
