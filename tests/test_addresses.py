"""Addresses, directories, keys, the lock and the epoch."""

from __future__ import annotations

import os
import pwd
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import _addresses
from registry._addresses import (
    Address,
    EpochFile,
    Place,
    ServerLock,
    _files,
    _names,
    find_authkey,
    home,
    load_key,
    parse,
)
from registry.errors import AccessDenied, RegistryError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@pytest.fixture
def root(request: pytest.FixtureRequest) -> Path:
    """Return the test's ``REGISTRY_HOME``, under a name that is not our function's."""
    path = request.getfixturevalue("home")
    assert isinstance(path, Path)
    return path


# Addresses


def test_a_name_is_an_address(root: Path) -> None:
    """A name stands for the socket in its directory."""
    address = parse("scrapers")
    assert (address.kind, address.name, address.path) == ("unix", "scrapers", f"{root}/scrapers/socket")
    assert str(address) == f"unix://{root}/scrapers/socket"
    assert (address.label, repr(address)) == ("scrapers", "<address scrapers>")
    assert address.is_local
    assert address.stock_form == f"{root}/scrapers/socket"
    assert parse(address) is address


def test_nothing_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an address the environment decides, and then it is the name ``default``."""
    assert parse() == parse(None) == parse("default")
    monkeypatch.setenv("REGISTRY_ADDRESS", "tcp://example.org:7000")
    assert parse() == Address("tcp", host="example.org", port=7000)
    monkeypatch.setenv("REGISTRY_ADDRESS", "")
    assert parse().name == "default"


@pytest.mark.parametrize(
    ("text", "address", "local", "stock"),
    [
        ("unix:///run/x.sock", Address("unix", path="/run/x.sock"), True, "/run/x.sock"),
        ("stock+unix:///run/x", Address("stock+unix", path="/run/x"), True, "/run/x"),
        ("tcp://127.0.0.1:6000", Address("tcp", host="127.0.0.1", port=6000), True, ("127.0.0.1", 6000)),
        (
            "tcp://127.example.org:6",
            Address("tcp", host="127.example.org", port=6),
            False,
            ("127.example.org", 6),
        ),
        ("tcp://[::1]:6000", Address("tcp", host="::1", port=6000), True, ("::1", 6000)),
        ("tcp://localhost:0", Address("tcp", host="localhost", port=0), True, ("localhost", 0)),
        ("tcp://:6000", Address("tcp", host="", port=6000), False, ("", 6000)),
        ("stock+tcp://h:65535", Address("stock+tcp", host="h", port=65535), False, ("h", 65535)),
        ("tls://db.example.org:7", Address("tls", host="db.example.org", port=7), False, None),
        ("memory://", Address("memory"), True, None),
    ],
)
def test_urls(text: str, address: Address, local: bool, stock: object) -> None:
    """Every kind of URL is read, written back, placed and given to multiprocessing."""
    assert parse(text) == address
    assert str(address) == text == address.label
    assert address.is_local is local
    if stock is None:
        with pytest.raises(ValueError, match="no address for multiprocessing"):
            _ = address.stock_form
    else:
        assert address.stock_form == stock


def test_a_pair_is_tcp() -> None:
    """``(host, port)`` is what BaseManager takes."""
    assert parse(("127.0.0.1", 6000)) == parse("tcp://127.0.0.1:6000")
    assert parse(("::1", 6000)) == parse("tcp://[::1]:6000")
    assert parse(("", 0)) == parse("tcp://:0")


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("", "is no name"),
        (".", "is no name"),
        ("..", "is no name"),
        ("a b", "is no name"),
        ("a/b", "is no name"),
        ("a+b", "is no name"),
        ("näme", "is no name"),
        ("name\n", "is no name"),
        ("/run/x.sock", "write unix:///run/x.sock"),
        ("localhost:6000", "write tcp://localhost:6000"),
        ("unix://x", "no absolute path"),
        ("unix://", "no absolute path"),
        ("unix:///tmp/", "no path that a socket can have"),
        ("unix:///a\0b", "no path that a socket can have"),
        ("tcp://h", "has no port"),
        ("tcp://h:", "has no port"),
        ("tcp://h:x", "has no port"),
        ("tcp://h:-1", "has no port"),
        ("tcp://h:६", "has no port"),
        ("tcp://h:65536", "outside 0 to 65535"),
        ("tcp://::1:6000", "without brackets"),
        ("tcp://[h]:6000", "no IPv6 address"),
        ("tcp://h/x:6000", "no host name"),
        ("tcp://user@h:6000", "no host name"),
        ("tcp://h h:6000", "no host name"),
        ("memory://x", "behind memory://"),
        ("http://h:80", "no scheme that is known"),
        ("TCP://h:80", "no scheme that is known"),
        (("h",), "is no pair"),
        (("h", 1, 2), "is no pair"),
        (("h", "1"), "no pair of a text and a number"),
        ((b"h", 1), "no pair of a text and a number"),
        (("h", True), "no pair of a text and a number"),
        (("h", 70000), "outside 0 to 65535"),
        (b"name", "is no address"),
        (7, "is no address"),
    ],
)
def test_wrong_addresses_name_the_cure(address: object, text: str) -> None:
    """What is wrong is said, and what to write instead."""
    with pytest.raises(ValueError, match=text) as caught:
        parse(address)  # type: ignore[arg-type]
    assert repr(address) in str(caught.value)


def test_a_name_too_long_for_a_socket(root: Path) -> None:
    """The limit of socket paths is told before the system's own riddle, with the cure."""
    room = _addresses.SOCKET_PATH_LIMIT - len(f"{root}//socket")
    assert parse("n" * room).name == "n" * room
    with pytest.raises(ValueError, match="REGISTRY_HOME"):
        parse("n" * (room + 1))
    with pytest.raises(ValueError, match="shorter directory"):
        parse("unix:///" + "x" * _addresses.SOCKET_PATH_LIMIT)


def test_the_limit_is_the_systems(root: Path) -> None:
    """The longest path that is allowed can be listened on."""
    import socket

    path = f"{root}/" + "x" * (_addresses.SOCKET_PATH_LIMIT - len(str(root)) - 1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(parse(f"unix://{path}").path or "")


@given(st.text(LETTERS, min_size=1, max_size=20).filter(lambda name: name not in (".", "..")))
def test_every_name_comes_back_from_its_url(name: str) -> None:
    """The URL of a name leads to the same address, name included."""
    assert parse(str(parse(name))) == parse(name)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_every_path_comes_back_from_its_url(path: str) -> None:
    """A path is taken as it is, whatever letters it has."""
    if path.endswith("/"):
        path += "x"
    address = parse(f"unix:///{path}")
    assert address.path == f"/{path}"
    assert parse(str(address)) == address


@given(
    st.one_of(st.ip_addresses().map(str), st.from_regex(r"\A[a-z0-9.-]{1,20}\Z")),
    st.integers(0, 65535),
    st.sampled_from(["tcp", "tls", "stock+tcp"]),
)
def test_every_host_comes_back_from_its_url(host: str, port: int, kind: str) -> None:
    """A network address survives its URL."""
    address = Address(kind, host=host, port=port)
    assert parse(str(address)) == address


# Directories


def test_the_home_comes_from_the_environment_or_the_password_database(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``REGISTRY_HOME`` decides; else neither ``HOME`` nor ``XDG_*`` nor ``TMPDIR`` is asked."""
    assert home() == root
    monkeypatch.delenv("REGISTRY_HOME")
    for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(root / name))
    monkeypatch.setattr(_names, "_own_home", lambda: "/home/somebody")
    assert home() == Path("/home/somebody/.local/state/registry")


def test_a_relative_home_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory never decides which server is meant."""
    monkeypatch.setenv("REGISTRY_HOME", "here")
    with pytest.raises(ValueError, match="make it absolute"):
        home()


def account(directory: str) -> pwd.struct_passwd:
    """Return this account with another home."""
    return pwd.struct_passwd(("somebody", "x", os.geteuid(), os.getegid(), "", directory, "/bin/sh"))


def test_an_account_without_a_home_meets_in_the_temporary_directory(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home that is missing or not the account's own counts as none, one that is read-only as its own."""
    monkeypatch.delenv("REGISTRY_HOME")
    for directory in ("/nonexistent", "", "relative"):
        monkeypatch.setattr(pwd, "getpwuid", lambda uid, directory=directory: account(directory))
        assert home() == Path(f"/tmp/registry-{os.geteuid()}")
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: account(str(root)))
    root.chmod(0o500)
    assert home() == root / ".local/state/registry"
    root.chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)  # now it is another's
    assert home() == Path(f"/tmp/registry-{os.getuid() + 1}")

    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert home() == Path(f"/tmp/registry-{os.getuid() + 1}")


def test_the_shared_temporary_directory_is_not_trusted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another user, or a link, has put in the place of ours is refused."""
    ours = root / f"registry-{os.geteuid()}"
    assert _names._shared_tmp(str(root)) == str(ours)
    ours.mkdir(0o700)
    assert _names._shared_tmp(str(root)) == str(ours)
    ours.chmod(0o770)
    with pytest.raises(AccessDenied, match=f"chmod 700 {ours}"):
        _names._shared_tmp(str(root))
    ours.rmdir()
    (root / "elsewhere").mkdir(0o700)
    ours.symlink_to(root / "elsewhere")
    with pytest.raises(AccessDenied, match="symbolic link"):
        _names._shared_tmp(str(root))
    ours.unlink()
    ours.touch()
    with pytest.raises(AccessDenied, match="no directory"):
        _names._shared_tmp(str(root))
    ours.unlink()
    uid = os.geteuid()
    (root / f"registry-{uid + 1}").mkdir(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with pytest.raises(AccessDenied, match=f"belongs to uid {uid}"):
        _names._shared_tmp(str(root))


MOUNTS = rb"""
/dev/sda1 / ext4 rw 0 0
proc /proc proc rw 0 0
auto /home autofs rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/local ext4 rw 0 0
host:/x /mnt/with\040space fuse.sshfs rw 0 0
odd
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/homes", "ext4"),
        ("/home", "nfs4"),
        ("/home/a/.local/state/registry", "nfs4"),
        ("/home/local/a", "ext4"),
        ("/mnt/with space/a", "fuse.sshfs"),
    ],
)
def test_the_file_system_of_a_path(root: Path, path: str, kind: str) -> None:
    """The deepest mount decides, and of two on one point the later."""
    table = root / "mounts"
    table.write_bytes(MOUNTS)
    assert _files.file_system(path, str(table)) == kind
    assert _files.file_system(path, str(root / "none")) == ""


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p"])
def test_a_home_on_a_network_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks there do not hold between hosts; the text names the way out."""
    monkeypatch.setattr(_names, "file_system", lambda path: kind)
    with pytest.raises(ValueError, match="REGISTRY_HOME"):
        home()
    with pytest.raises(ValueError, match=kind.replace(".", r"\.")):
        parse("name")
    assert parse("unix:///run/name/socket").name is None


def test_the_files_of_a_place(root: Path) -> None:
    """A name's directory holds all that its server needs."""
    place = Place("scrapers")
    assert place.directory == root / "scrapers"
    for name in ("socket", "key", "lock", "epoch", "log", "state"):
        assert getattr(place, name) == root / "scrapers" / name
    assert place == Place(parse("scrapers"))
    assert repr(place) == f"<place {root}/scrapers>"
    assert not place.directory.exists()


def test_other_addresses_have_a_place_of_a_derived_name(root: Path) -> None:
    """The directory of an address that is no name can be no name's, nor another address's."""
    assert Place(("127.0.0.1", 6000)).directory == root / "tcp+127.0.0.1+6000"
    assert Place("tcp://[::1]:6000").directory == root / "tcp+%3A%3A1+6000"
    assert Place("tcp://:6000").directory == root / "tcp++6000"
    one, other = Place("unix:///run/a/x.sock"), Place("unix:///run/b/x.sock")
    assert one.directory.parent == root
    assert one.directory.name.startswith("unix+x.sock+")
    assert one.directory != other.directory
    assert one.socket == Path("/run/a/x.sock")
    with pytest.raises(ValueError, match="memory://"):
        Place("memory://")


def test_ensure_makes_a_private_directory(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the umask, the directory is its account's alone, with what leads to it."""
    monkeypatch.setenv("REGISTRY_HOME", str(root / "deep" / "er"))
    before = os.umask(0)
    try:
        place = Place("name")
        place.ensure()
        place.ensure()
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(place.directory.parent.stat().st_mode) == 0o700


def test_ensure_refuses_what_is_not_ours(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open directory, a link, a file and another's directory are refused with their cures."""
    place = Place("name")
    place.ensure()
    place.directory.chmod(0o755)
    with pytest.raises(AccessDenied, match=f"chmod 700 {place.directory}"):
        place.ensure()
    place.directory.rename(root / "other")
    place.directory.symlink_to(root / "other")
    with pytest.raises(AccessDenied, match="symbolic link"):
        place.ensure()
    place.directory.unlink()
    place.directory.touch()
    with pytest.raises(AccessDenied, match="no directory"):
        place.ensure()
    place.directory.unlink()
    root.chmod(0o777)
    with pytest.raises(AccessDenied, match="chmod go-w"):
        place.ensure()
    root.chmod(0o700)
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with pytest.raises(AccessDenied, match=f"belongs to uid {uid}"):
        place.ensure()


def test_a_home_that_cannot_be_made_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that cannot be created names the way out."""
    (root / "file").touch()
    monkeypatch.setenv("REGISTRY_HOME", str(root / "file" / "below"))
    with pytest.raises(AccessDenied, match="set REGISTRY_HOME"):
        Place("name").ensure()


# Keys


def test_a_key_is_made_once(root: Path) -> None:
    """A new key is 32 bytes that only its owner can read; later calls return it."""
    with pytest.raises(FileNotFoundError):
        load_key(root / "key")
    key = load_key(root / "key", create=True)
    assert len(key) == 32
    assert stat.S_IMODE((root / "key").stat().st_mode) == 0o600
    assert load_key(root / "key") == load_key(root / "key", create=True) == key
    assert os.listdir(root) == ["key"]


def test_racing_processes_get_one_key(root: Path) -> None:
    """Twenty processes that all find no key end with the same one."""
    code = (
        "import sys; from registry._addresses import load_key; print('ready', flush=True); sys.stdin.read(); "
        "print(load_key(sys.argv[1], create=True).hex())"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(root / "key")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        for _ in range(20)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
    finally:
        for process in processes:  # all stand at the start; now they run
            assert process.stdin is not None
            process.stdin.close()
            process.stdin = None
        keys = {process.communicate()[0] for process in processes}
    assert keys == {(root / "key").read_bytes().hex() + "\n"}
    assert os.listdir(root) == ["key"]


def test_racing_threads_get_one_key(root: Path) -> None:
    """In a tight race, again and again, nobody sees half a key or a second one."""
    for turn in range(20):
        barrier = threading.Barrier(8)
        keys: list[bytes] = []

        def race(path: Path, barrier: threading.Barrier = barrier, keys: list[bytes] = keys) -> None:
            barrier.wait()
            keys.append(load_key(path, create=True))

        threads = [threading.Thread(target=race, args=(root / f"key{turn}",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(keys) == 8
        assert len(set(keys)) == 1
    assert len(os.listdir(root)) == 20


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o666])
def test_an_open_key_file_is_refused(root: Path, mode: int) -> None:
    """A key that others can read lets them in; the cure is a command to copy."""
    load_key(root / "key", create=True)
    (root / "key").chmod(mode)
    with pytest.raises(AccessDenied, match=f"chmod 600 {root}/key"):
        load_key(root / "key")


def test_a_key_file_that_is_none_is_refused(root: Path) -> None:
    """Links, pipes, directories and empty files are no keys."""
    load_key(root / "key", create=True)
    (root / "link").symlink_to(root / "key")
    with pytest.raises(AccessDenied, match="symbolic link"):
        load_key(root / "link", create=True)
    os.mkfifo(root / "pipe", 0o600)
    with pytest.raises(AccessDenied, match="no plain file"):
        load_key(root / "pipe")
    (root / "empty").touch(0o600)
    with pytest.raises(ValueError, match="empty"):
        load_key(root / "empty", create=True)


def test_anothers_key_file_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that somebody else has put there is not used."""
    load_key(root / "key", create=True)
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with pytest.raises(AccessDenied, match=f"belongs to uid {uid}"):
        load_key(root / "key")


def test_the_argument_is_the_key(root: Path) -> None:
    """What the user gives is taken; text stands for its UTF-8."""
    assert find_authkey(b"key", "name") == find_authkey(bytearray(b"key")) == find_authkey("key") == b"key"
    assert find_authkey("schlüssel") == "schlüssel".encode()
    assert type(find_authkey(bytearray(b"key"))) is bytes
    for empty in (b"", ""):
        with pytest.raises(ValueError, match="empty"):
            find_authkey(empty)
    with pytest.raises(TypeError, match="not int"):
        find_authkey(7)  # type: ignore[arg-type]
    assert os.listdir(root) == []


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (b"secret\n", b"secret"),
        (b"secret", b"secret"),
        (b"secret\n\n", b"secret\n"),
        (b"\x00\n\xff", b"\x00\n\xff"),
    ],
)
def test_a_key_file_of_the_users(root: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, key: bytes) -> None:
    """The file that the environment names is bytes, without the one newline that editors add."""
    (root / "file").write_bytes(content)
    (root / "file").chmod(0o640)
    (root / "link").symlink_to(root / "file")
    monkeypatch.setenv("REGISTRY_AUTHKEY_FILE", str(root / "link"))
    assert find_authkey(None, "name") == find_authkey(None, "tcp://example.org:6000") == key
    assert find_authkey(b"argument", "name") == b"argument"


def test_a_key_file_of_the_users_that_cannot_be_used(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing, open or empty file is named; nothing else is tried in its place."""
    monkeypatch.setenv("REGISTRY_AUTHKEY_FILE", str(root / "file"))
    with pytest.raises(AccessDenied, match="REGISTRY_AUTHKEY_FILE"):
        find_authkey(None, "name", create=True)
    (root / "file").write_bytes(b"\n")
    (root / "file").chmod(0o604)
    with pytest.raises(AccessDenied, match="chmod 600"):
        find_authkey(None, "name")
    (root / "file").chmod(0o600)
    with pytest.raises(ValueError, match="empty"):
        find_authkey(None, "name")


def test_the_key_of_a_place() -> None:
    """Otherwise the server's own directory has the key, under its name and under its URL."""
    with pytest.raises(AccessDenied, match="no key for name"):
        find_authkey(None, "name")
    key = find_authkey(None, "name", create=True)
    assert find_authkey(None, "name") == find_authkey(None, str(parse("name"))) == Place("name").key.read_bytes()
    assert len(key) == 32
    assert find_authkey(None, "other", create=True) != key
    assert find_authkey(None, ("127.0.0.1", 6000), create=True) == Place(("127.0.0.1", 6000)).key.read_bytes()
    assert find_authkey(None, "memory://") == b""


# The lock


def test_one_holder_at_a_time(root: Path) -> None:
    """Who comes second waits until the first lets go; to take or let go twice does nothing."""
    first, second = ServerLock(root / "lock"), ServerLock(root / "lock")
    assert first.acquire()
    assert first.acquire()
    assert first.held
    assert not second.acquire()
    assert not second.wait(0.01)
    assert not second.held
    first.release()
    first.release()
    assert second.wait(0)
    assert not first.acquire()
    assert (repr(first), repr(second)) == (
        f"<free server lock {root}/lock>",
        f"<held server lock {root}/lock>",
    )
    second.release()
    assert (root / "lock").exists()
    assert stat.S_IMODE((root / "lock").stat().st_mode) == 0o600


@pytest.mark.parametrize("timeout", [None, 30.0])
def test_a_wait_ends_with_the_release(root: Path, timeout: float | None) -> None:
    """A waiter gets the lock once it is free, with and without a timeout."""
    first, second = ServerLock(root / "lock"), ServerLock(root / "lock")
    assert first.acquire()
    result: list[bool] = []
    thread = threading.Thread(target=lambda: result.append(second.wait(timeout)))
    thread.start()
    first.release()
    thread.join()
    assert result == [True]
    second.release()


def test_the_lock_ends_with_its_process(root: Path) -> None:
    """A holder that is killed leaves no lock behind, and its last words can be read."""
    code = (
        "import sys, os; from registry._addresses import ServerLock; lock = ServerLock(sys.argv[1]); "
        "print(lock.acquire(), flush=True); "
        "lock.write_info({'pid': os.getpid()}); print('told', flush=True); sys.stdin.read()"
    )
    lock = ServerLock(root / "lock")
    command = [sys.executable, "-c", code, str(root / "lock")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        assert process.stdout.readline() == "told\n"
        assert not lock.acquire()
        assert lock.read_info() == {"pid": process.pid}
        process.send_signal(signal.SIGKILL)
    assert lock.wait(30)
    lock.release()


def test_a_killed_holder_leaves_the_lock_to_the_next_once_its_child_has_let_go(root: Path) -> None:
    """What it had forked has its lock for a moment; that is no other server. One that lives is."""
    script = (
        "import os, sys; from registry._addresses import ServerLock; lock = ServerLock(sys.argv[1])\n"
        "lock.acquire(); lock.write_info({'pid': os.getpid()})\n"
        "if os.fork() == 0: sys.stdin.read(); os._exit(0)\n"
        "print('held', flush=True); os.read(int(sys.argv[2]), 1)"
    )
    reading, writing = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", script, root / "lock", str(reading)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[reading],
    ) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        assert holder.stdout.readline() == b"held\n"
        lock = ServerLock(root / "lock")
        assert not lock.succeed()  # at once: it lives
        holder.kill()
        holder.wait()
        assert not lock.acquire()
        taken: list[bool] = []
        thread = threading.Thread(target=lambda: taken.append(lock.succeed()))
        thread.start()
        holder.stdin.close()  # the child ends
        thread.join()
        assert taken == [True]
        lock.release()
    os.close(reading)
    os.close(writing)


def test_of_many_starters_one_wins(root: Path) -> None:
    """However many try at once, one holds the lock, also when the file did not exist."""
    for turn in range(20):
        locks = [ServerLock(root / f"lock{turn}") for _ in range(8)]
        barrier = threading.Barrier(8)

        def race(lock: ServerLock, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            lock.acquire()

        threads = [threading.Thread(target=race, args=(lock,)) for lock in locks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [lock.held for lock in locks].count(True) == 1
        for lock in locks:
            lock.release()


def test_a_removed_file_is_noticed(root: Path) -> None:
    """A sweeper that removes the file is seen by `touch`; the next starter locks the new one."""
    first, second = ServerLock(root / "lock"), ServerLock(root / "lock")
    assert not first.touch()
    assert first.acquire()
    os.utime(root / "lock", (0, 0))
    assert first.touch()
    assert (root / "lock").stat().st_mtime > 0
    (root / "lock").unlink()
    assert not first.touch()
    assert second.acquire()
    assert second.touch()
    assert not first.touch()
    first.release()
    assert not first.acquire()
    second.release()


def test_a_file_removed_between_opening_and_locking(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock on a file that has lost its name is no lock: it is tried again on the new file."""
    path = root / "lock"
    lock, other = ServerLock(path), ServerLock(path)
    original = ServerLock._lock
    removed: list[int] = []

    def late(fd: int) -> bool:
        if not removed:
            removed.append(fd)
            path.unlink()
        return original(fd)

    monkeypatch.setattr(ServerLock, "_lock", staticmethod(late))
    assert lock.acquire()
    assert removed
    assert not other.acquire()
    lock.release()


def test_a_forked_child_does_not_free_its_parents_lock(root: Path) -> None:
    """In a child the lock is not held, and to release it gives up the child's share only."""
    lock, other = ServerLock(root / "lock"), ServerLock(root / "lock")
    assert lock.acquire()
    pid = os.fork()
    if pid == 0:
        held = lock.held
        lock.release()
        os._exit(1 if held else 0)
    assert os.waitpid(pid, 0)[1] == 0
    assert lock.held
    assert not other.acquire()
    lock.release()
    assert other.acquire()
    other.release()


def test_a_release_counts_while_a_forked_child_lives(root: Path) -> None:
    """A child that still has the file open does not keep the lock of a parent that has let go."""
    lock, other = ServerLock(root / "lock"), ServerLock(root / "lock")
    assert lock.acquire()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    try:
        lock.release()
        assert other.acquire()
    finally:
        os.close(write)
        os.waitpid(pid, 0)
    other.release()


def test_a_link_is_no_lock(root: Path) -> None:
    """A lock file that is a symbolic link is not followed."""
    (root / "lock").symlink_to(root / "elsewhere")
    with pytest.raises(OSError):
        ServerLock(root / "lock").acquire()
    assert not (root / "elsewhere").exists()


def test_info_is_the_holders(root: Path) -> None:
    """The holder says who it is, longer or shorter than before; nobody else may."""
    lock = ServerLock(root / "lock")
    assert lock.read_info() is None
    with pytest.raises(RuntimeError, match="holder"):
        lock.write_info({})
    assert lock.acquire()
    assert lock.read_info() is None
    for info in ({"pid": 1, "address": "x" * 100}, {"pid": 2}, {"pid": 3, "since": 1.5}):
        lock.write_info(info)
        assert ServerLock(root / "lock").read_info() == info
    lock.release()
    for content in (b"[]\n", b'{"pid": 1', b"\xff\xfe\n"):
        (root / "lock").write_bytes(content)
        assert lock.read_info() is None
    (root / "lock").write_bytes(b'{"pid": 1}\n: "the rest of a longer one"}\n')
    assert lock.read_info() == {"pid": 1}


# The epoch


def test_epochs_count(root: Path) -> None:
    """Each life has the next number and an id of its own."""
    epoch = EpochFile(root / "epoch")
    assert epoch.read() is None
    lives = [EpochFile(root / "epoch").begin(100.0 + number) for number in range(5)]
    assert [number for number, _ in lives] == [1, 2, 3, 4, 5]
    assert len({life for _, life in lives}) == 5
    assert all(len(life) == 16 for _, life in lives)
    assert epoch.read() == (5, 104.0, lives[-1][1], 0, 0)
    assert (root / "epoch").stat().st_size == 4096
    assert stat.S_IMODE((root / "epoch").stat().st_mode) == 0o600
    assert os.listdir(root) == ["epoch"]


def test_it_is_on_the_disk_before_it_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File and directory are synced at each beginning, at the first one all directories above, which may be new, too;
    a disk that fails is not passed over."""
    synced: list[tuple[int, int]] = []
    original = os.fsync

    def fsync(fd: int) -> None:
        status = os.fstat(fd)
        synced.append((status.st_dev, status.st_ino))
        original(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    path = root / "a" / "b" / "epoch"
    path.parent.mkdir(parents=True)
    known = [(path.parents[place].stat().st_dev, path.parents[place].stat().st_ino) for place in range(3)]
    for expected in (known, known[:1]):
        synced.clear()
        EpochFile(path).begin(0.0)
        assert synced[1 : len(expected) + 1] == expected
        assert len(synced) > 4 or expected != known

    def failing(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="Input/output"):
        EpochFile(root / "epoch").begin(0.0)


def test_an_empty_file_is_a_beginning(root: Path) -> None:
    """A file without content has had no life in it."""
    (root / "epoch").touch()
    assert EpochFile(root / "epoch").begin(0.0)[0] == 1


@pytest.mark.parametrize("content", [b"\0" * 4096, b"x", b"x" * 4096, b"x" * 10_000, b"RGE1" * 1024])
def test_a_damaged_file_is_never_a_beginning(root: Path, content: bytes) -> None:
    """Where no record can be read the numbers do not start again; the text says what to do."""
    (root / "epoch").write_bytes(content)
    with pytest.raises(RegistryError, match=r"damaged.*remove the file"):
        EpochFile(root / "epoch").begin(0.0)
    assert EpochFile(root / "epoch").read() is None
    assert (root / "epoch").read_bytes() == content


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 39), st.binary(min_size=1, max_size=60)), max_size=12))
def test_numbers_grow_whatever_one_slot_suffers(damages: list[tuple[int, int, bytes]]) -> None:
    """Between two lives any one slot may be garbled, also the newest, and no number comes twice."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "epoch")
        last, _ = EpochFile(path).begin(0.0)
        last, _ = EpochFile(path).begin(0.0)
        for slot, offset, garbage in damages:
            content = bytearray(path.read_bytes())
            start = slot * 2048 + offset
            content[start : start + len(garbage)] = garbage
            path.write_bytes(content)
            number, life = EpochFile(path).begin(0.0)
            assert last < number <= last + 2
            assert EpochFile(path).read() == (number, 0.0, life, 0, 0)
            last = number


@given(st.integers(0, 40), st.integers(1, 4))
def test_a_torn_write_loses_nothing(cut: int, lives: int) -> None:
    """If power fails within the write of a record, the numbers go on above all that were told."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "epoch")
        for _ in range(lives):
            last, _ = EpochFile(path).begin(0.0)
        before = path.read_bytes()
        EpochFile(path).begin(1.0)  # this one was not told to anybody
        after = path.read_bytes()
        start = next(offset for offset in (0, 2048) if before[offset : offset + 40] != after[offset : offset + 40])
        path.write_bytes(before[:start] + after[start : start + cut] + before[start + cut :])
        assert EpochFile(path).begin(2.0)[0] > last


def test_a_file_that_was_cut_short(root: Path) -> None:
    """One whole slot is enough."""
    for _ in range(3):
        EpochFile(root / "epoch").begin(0.0)
    os.truncate(root / "epoch", 2048)
    assert EpochFile(root / "epoch").begin(0.0)[0] > 3


def test_epochs_fit_into_tokens(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bits that a token has for them there are no more epochs."""
    assert EpochFile.LIMIT == 2**23
    monkeypatch.setattr(EpochFile, "LIMIT", 3)
    assert [EpochFile(root / "epoch").begin(0.0)[0] for _ in range(2)] == [1, 2]
    with pytest.raises(RegistryError, match="no tokens"):
        EpochFile(root / "epoch").begin(0.0)


@pytest.mark.parametrize("lives", [0, 1, 3, 70])
def test_a_log_that_is_put_back(root: Path, lives: int) -> None:
    """Numbers go on above all that were told, whatever one slot suffers then; done again it is as if done once."""
    epoch = EpochFile(root / "epoch")
    assert epoch.counted() == 0
    for _ in range(lives):
        epoch.begin(0.0)
    epoch.record(900, 7) if lives else None
    epoch.put_back(50, 1.0, 40, 3)
    number = epoch.counted()
    assert number == (50 if lives < 50 else 72)
    for _ in range(2):
        epoch.put_back(50, 1.0, 40, 3)
        assert epoch.read() is not None and epoch.read()[::3] == (number, 40)  # type: ignore[index]
    content = (root / "epoch").read_bytes()
    for slot in (0, 2048):
        (root / "epoch").write_bytes(content[:slot] + b"x" * 60 + content[slot + 60 :])
        assert epoch.begin(2.0)[0] > number
    (root / "epoch").write_bytes(content)
    assert epoch.begin(2.0)[0] == number + 1
    assert EpochFile(root / "epoch").read()[3:] == (40, 3)  # type: ignore[index]


def test_a_log_is_not_put_back_beside_a_damaged_count(root: Path) -> None:
    """Nobody can tell what is above."""
    (root / "epoch").write_bytes(b"x" * 4096)
    with pytest.raises(RegistryError, match=r"damaged.*remove the file"):
        EpochFile(root / "epoch").put_back(50, 1.0, 40, 3)
    with pytest.raises(RegistryError, match=r"damaged.*remove the file"):
        EpochFile(root / "epoch").counted()
    assert (root / "epoch").read_bytes() == b"x" * 4096
