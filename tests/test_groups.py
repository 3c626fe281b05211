"""A server for the members of a group: they get to key and socket, nobody else does, and no pickle crosses."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any

import pytest
import server_processes
from test_doctor import told

import registry
from registry import ManagerServer, cli, errors
from registry._addresses import Place, admit, closed_to, exclude, gid_of, give, load_key
from registry.cli._doctor import _address, _key
from registry.cli._doctor._scene import look

posix = pytest.mark.skipif(os.name != "posix", reason="files have groups here only")
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be another user")

GROUP = 54_321  # that nobody is a member of
USER = 54_322


def mode(path: Path) -> int:
    """Return the permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def place(home: Path) -> Place:
    """Make the directory and the key of the name ``x``."""
    place = Place("x")
    place.ensure()
    load_key(place.key, create=True)
    return place


def a_group_of_ours() -> int:
    """Return a group that this process may give files to."""
    return GROUP if os.geteuid() == 0 else os.getegid()


# The files


@posix
def test_a_group_is_let_through_by_name_only(place: Place) -> None:
    """Members may pass the directory and read the key; the directory cannot be listed, and the rest stays closed."""
    place.epoch.write_bytes(b"")
    place.epoch.chmod(0o600)
    gid = a_group_of_ours()
    admit(place, gid)
    assert (mode(place.directory), mode(place.key), mode(place.epoch)) == (0o710, 0o640, 0o600)
    assert (place.directory.stat().st_gid, place.key.stat().st_gid) == (gid, gid)
    place.ensure()
    assert len(load_key(place.key)) == 32
    exclude(place)
    assert (mode(place.directory), mode(place.key)) == (0o700, 0o600)


@posix
@pytest.mark.parametrize(("directory", "key"), [(0o700, 0o640), (0o710, 0o644), (0o710, 0o660)])
def test_a_key_that_no_server_has_shown_to_a_group_is_refused(place: Place, directory: int, key: int) -> None:
    """A key that others can read by accident is refused as ever, whatever its directory says."""
    admit(place, a_group_of_ours())
    place.key.chmod(key)
    place.directory.chmod(directory)
    with pytest.raises(errors.AccessDenied, match="is open to others"):
        load_key(place.key)


@as_root
def test_a_key_of_another_group_than_its_directory_is_refused(place: Place) -> None:
    """Both are let to one group, or it was not a server that did it."""
    admit(place, GROUP)
    os.chown(place.key, -1, GROUP + 1)
    with pytest.raises(errors.AccessDenied, match="is open to others"):
        load_key(place.key)


@posix
def test_a_directory_that_a_group_can_change_is_refused(place: Place) -> None:
    """To pass is all that a group may do."""
    place.directory.chmod(0o730)
    with pytest.raises(errors.AccessDenied, match=r"is open to others \(mode 730\): chmod 700 "):
        place.ensure()


@posix
def test_what_members_cannot_pass_is_named(tmp_path: Path) -> None:
    """The first directory on the way that is closed to them."""
    way = tmp_path / "a" / "b"
    way.mkdir(parents=True)
    gid = a_group_of_ours()
    for path in (tmp_path / "a", way):
        path.chmod(0o711)
    # What lies above the test's own directory is not ours to open.
    above = closed_to(str(tmp_path / "x"), gid)
    (tmp_path / "a").chmod(0o700)
    assert closed_to(str(way / "x"), gid) == (above or str(tmp_path / "a"))
    if os.geteuid() == 0:
        os.chown(tmp_path / "a", -1, gid)
        (tmp_path / "a").chmod(0o710)
        assert closed_to(str(way / "x"), gid) == above


@posix
def test_groups_are_found_by_name_or_number() -> None:
    """A name that is none is told."""
    import grp

    known = grp.getgrgid(os.getegid()).gr_name
    assert gid_of(known) == os.getegid()
    assert gid_of(str(GROUP)) == GROUP
    with pytest.raises(ValueError, match="there is no group 'no-such-group' on this host"):
        gid_of("no-such-group")


# The server


@posix
def test_a_server_of_a_group_and_the_next_one_of_none(home: Path) -> None:
    """With a group the socket is the group's, too; the next server without one closes everything again."""
    place = Place("x")
    server = ManagerServer("x")
    server.gid = a_group_of_ours()
    with server, registry.connect("x") as shared:
        assert (mode(place.directory), mode(place.key), mode(place.socket)) == (0o710, 0o640, 0o660)
        assert place.socket.stat().st_gid == server.gid
        assert mode(place.lock) == 0o600
        shared.counter("hits").incr()
        status, found, _ = told(_address.directory(look("x")))[0]
        assert status == "ok"
        assert "open to its user, and to be passed by the group" in found
        assert "readable by the group" in told(_key.key(look("x")))[0][1]
    with ManagerServer("x"), registry.connect("x"):
        assert (mode(place.directory), mode(place.key), mode(place.socket)) == (0o700, 0o600, 0o600)


@posix
@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["x", "--group", "no-such-group"], "there is no group 'no-such-group' on this host"),
        (["-a", "tcp://127.0.0.1:0", "--group", str(GROUP)], "--group is for the socket of a name or of unix:///path"),
        (["-a", "unix:///tmp/x.sock", "--group", str(GROUP)], "with --authkey-file"),
    ],
)
def test_a_group_that_could_not_connect_is_a_wrong_use(home: Path, words: list[str], text: str) -> None:
    """What would let nobody in is refused before anybody is served."""
    done = subprocess.run(
        server_processes.command("serve", *words), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert text in done.stderr.splitlines()[-1]


@posix
def test_a_group_of_which_one_is_no_member_is_refused(place: Place) -> None:
    """Only a member may give files to a group; they stay as they were."""
    if os.geteuid() == 0:
        os.chown(place.key, USER, USER)
        place.directory.parent.chmod(0o711)
        place.directory.chmod(0o711)
        kind, text = as_user(USER, [], lambda: give(str(place.key), GROUP, 0o640))
    else:
        with pytest.raises(errors.AccessDenied) as caught:
            give(str(place.key), GROUP, 0o640)
        kind, text = "AccessDenied", str(caught.value)
    assert kind == "AccessDenied", text
    assert f"{place.key} cannot be given to the group {GROUP}, of which this user is no member" in text
    assert mode(place.key) == 0o600


# Two users


def as_user(uid: int, groups: list[int], work: Callable[[], Any]) -> Any:
    """Do something as another user, in a forked child, and return what it returned, or its error as text.

    What it needs must have been imported: that user may not be able to read the files of this Python.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(reading)
            os.setgroups(groups)
            os.setgid(uid)
            os.setuid(uid)
            try:
                said = ["ok", work()]
            except Exception as error:  # noqa: BLE001 - it is the test's to judge
                said = [type(error).__name__, str(error)]
            os.write(writing, json.dumps(said).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        said = json.loads(file.read() or '["died", null]')
    os.waitpid(pid, 0)
    return said


class Odd:
    """What only a pickle can carry."""


@pytest.fixture
def served(home: Path) -> Iterator[subprocess.Popen[str]]:
    """Serve the name ``x`` for a group, in a process of its own, where others can get to."""
    home.chmod(0o711)
    with server_processes.running("serve", "x", "--group", str(GROUP), "--json") as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process


@as_root
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel must tell who connects")
def test_two_users_share_what_is_typed(
    home: Path, served: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member connects with the two variables that the server has told; what was pickled stays opaque to it."""
    with registry.connect("x", start=False) as ours:
        ours.dict("prices").update({"BTC": 97_000, "odd": Odd()})
        ours.dict("prices").items()
        monkeypatch.setenv("REGISTRY_ADDRESS", f"unix://{home}/x/socket")
        monkeypatch.setenv("REGISTRY_AUTHKEY_FILE", str(home / "x" / "key"))

        def work() -> list[Any]:
            with registry.connect(start=False) as shared:
                prices = shared.dict("prices")
                prices["ETH"] = 3_500
                lock = shared.lock("login")
                lock.acquire()
                return [prices["BTC"], type(prices["odd"]).__name__, shared.objects()[0]["maker"]]

        with registry.connect(start=False) as shared:  # so that all is imported
            shared.lock("login").acquire().release()
            shared.objects()
        said = as_user(USER, [GROUP], work)
        assert said[0] == "ok", said
        assert said[1][:2] == [97_000, "OpaqueValue"]
        assert ours.dict("prices")["ETH"] == 3_500
        # The kernel tells of its death, as of that of a process of our own.
        grant = ours.lock("login").acquire(timeout=10)
        assert grant
        assert grant.abandoned


@as_root
def test_a_stranger_is_denied(home: Path, served: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is no member gets to neither key nor socket, and is told so."""
    key = home / "key"
    key.write_bytes((home / "x" / "key").read_bytes())
    os.chown(key, USER, -1)
    key.chmod(0o600)
    url = f"unix://{home}/x/socket"
    registry.connect(url, start=False).close()

    def with_key() -> None:
        monkeypatch.setenv("REGISTRY_AUTHKEY_FILE", str(key))
        registry.connect(url, start=False)

    kind, text = as_user(USER, [], with_key)
    assert kind == "AccessDenied", text
    assert f"the socket {home}/x/socket is closed to this user" in text
    kind, text = as_user(USER, [], lambda: (home / "x" / "key").read_bytes())
    assert kind == "PermissionError"


class Manager(BaseManager):
    """A stock client."""


Manager.register("dict")


@as_root
@pytest.mark.parametrize("trust", ["uid", "key"])
def test_a_stock_client_of_another_user(home: Path, trust: str) -> None:
    """Its pickles are refused, key or no key, in a line that names both cures; where the key is enough it is served."""
    key = home / "key"
    key.write_bytes(b"a key of two users")
    key.chmod(0o600)
    words = ("serve", "-a", "tcp://127.0.0.1:0", "--authkey-file", str(key), "--trust", trust, "--json")
    with server_processes.running(*words) as process:
        assert process.stdout is not None
        said = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
        host, _, port = said["address"].removeprefix("tcp://").rpartition(":")

        def work() -> int:
            manager: Any = Manager((host, int(port)), b"a key of two users")
            manager.connect()
            manager.dict("prices").update({"BTC": 1})
            return len(manager.dict("prices")._callmethod("#GETVALUE"))

        with registry.connect(said["address"], b"a key of two users") as ours:
            outcome = as_user(USER, [], work)
            if trust == "key":
                assert outcome == ["ok", 1]
                assert ours.dict("prices")["BTC"] == 1
            else:
                assert outcome[0] == "PermissionError"
                assert (
                    f"takes the pickles of multiprocessing clients only from processes of user {os.getuid()}"
                    in outcome[1]
                )
                assert "use registry.connect(), which sends none, or serve with --trust key" in outcome[1]
                assert ours.objects() == []


@as_root
def test_a_member_that_cannot_get_there_is_warned_of(home: Path) -> None:
    """Where a directory above is closed to the group, the server says so when it starts."""
    with server_processes.running("serve", "x", "--group", str(GROUP), "--json") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        log = process.communicate(timeout=20)[1]
    members = f"members of the group {GROUP}"
    assert f"{members} connect with REGISTRY_ADDRESS=unix://{home}/x/socket REGISTRY_AUTHKEY_FILE={home}/x/key" in log
    assert f"{members} cannot get to {home}/x/socket: {home} is closed to them" in log


@posix
def test_a_socket_that_is_closed_to_this_user(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line ends with 4, as for every denial."""

    def refuse(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    with ManagerServer("x"):
        monkeypatch.setattr(registry.client, "dial", refuse)
        assert cli.run(["status", "-a", "x"]) == 4
