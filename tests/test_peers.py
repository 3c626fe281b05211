"""Who a peer is: on unix sockets, over TCP, and as a process."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from registry import _peers
from registry._peers import Peer, alive, boot, command, ended, machine, of_tcp, of_unix, started, trust_domain

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what the kernel tells is asked of Linux here")


@pytest.fixture
def child() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start Python processes that are ended with the test; each has printed a line when it is returned."""
    processes = []

    def start(code: str, *arguments: str, fds: tuple[int, ...] = ()) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=fds,
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


CONNECT = """
import socket, sys
path, port = sys.argv[1], int(sys.argv[2])
if port:
    sock = socket.create_connection((path, port))
else:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def listener(home: Path) -> Iterator[socket.socket]:
    """Listen on a unix socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{home}/s")
        sock.listen()
        yield sock


# Unix sockets


def test_a_peer_on_a_unix_socket(listener: socket.socket, child: Callable[..., subprocess.Popen[str]]) -> None:
    """The kernel names the process that connected, and its pidfd tells of its end."""
    process = child(CONNECT, listener.getsockname(), "0")
    sock, _ = listener.accept()
    with sock:
        peer, pidfd = of_unix(sock)
    assert pidfd is not None
    try:
        assert peer == Peer(
            kind="unix",
            uid=os.getuid(),
            pid=process.pid,
            started=started(process.pid),
            host=machine(),
            command=f"{os.path.basename(sys.executable)} -c",
        )
        assert not os.get_inheritable(pidfd)
        assert not ended(pidfd)
        process.kill()
        assert select.select([pidfd], [], [], 30)[0]
        assert ended(pidfd)  # though nobody has waited for it
    finally:
        os.close(pidfd)


def test_a_peer_that_has_ended_is_nobody(listener: socket.socket, child: Callable[..., subprocess.Popen[str]]) -> None:
    """A process that died before it was accepted gets no pid: that number may be a stranger's by now."""
    process = child(CONNECT, listener.getsockname(), "0")
    process.kill()
    process.communicate()
    sock, _ = listener.accept()
    with sock:
        peer, pidfd = of_unix(sock)
    assert pidfd is None
    assert (peer.uid, peer.pid, peer.started) == (os.getuid(), None, None)


class Wrapped:
    """A socket with one answer replaced."""

    def __init__(self, sock: socket.socket, option: int, answer: OSError | bytes) -> None:
        self._sock = sock
        self._option = option
        self._answer = answer

    def getsockopt(self, level: int, optname: int, buflen: int = 0, /) -> Any:
        """Ask the socket, except for the one option."""
        if optname == self._option:
            if isinstance(self._answer, OSError):
                raise self._answer
            return self._answer
        return self._sock.getsockopt(level, optname, buflen) if buflen else self._sock.getsockopt(level, optname)

    def getpeername(self) -> object:
        """Ask the socket."""
        return self._sock.getpeername()

    def getsockname(self) -> object:
        """Ask the socket."""
        return self._sock.getsockname()


def test_an_older_kernel_is_asked_by_pid() -> None:
    """Where the kernel does not know SO_PEERPIDFD, the process of the pid is opened."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer, pidfd = of_unix(Wrapped(ours, 77, OSError(errno.ENOPROTOOPT, "")))
    assert pidfd is not None
    os.close(pidfd)
    assert (peer.pid, peer.started) == (os.getpid(), started(os.getpid()))


@pytest.mark.parametrize("error", [errno.ESRCH, errno.EINVAL, errno.ENODATA])
def test_any_other_error_is_the_peers_end(error: int) -> None:
    """If the kernel has no process to stand for, its number is not looked up."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer, pidfd = of_unix(Wrapped(ours, 77, OSError(error, "")))
    assert (peer.uid, peer.pid, pidfd) == (os.getuid(), None, None)


def test_a_peer_of_another_pid_namespace() -> None:
    """A process that has no number here is known by its uid alone."""
    credentials = _peers._PEERCRED.pack(0, 1234, 1234)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer, pidfd = of_unix(Wrapped(ours, socket.SO_PEERCRED, credentials))
    assert (peer, pidfd) == (Peer("unix", uid=1234, host=machine()), None)


def test_a_peer_that_ends_while_we_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read about a number is dropped if its process had ended by then."""
    ours, theirs = socket.socketpair()
    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(_peers, "ended", lambda pidfd: True)
    with ours, theirs:
        peer, pidfd = of_unix(ours)
        assert (peer.pid, peer.started, peer.command, pidfd) == (None, None, "", None)
        assert len(os.listdir("/proc/self/fd")) == len(before)


def test_nothing_leaks_when_it_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception between two questions closes the pidfd."""

    def interrupted(pidfd: int) -> bool:
        raise KeyboardInterrupt

    ours, theirs = socket.socketpair()
    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(_peers, "ended", interrupted)
    with ours, theirs:
        with pytest.raises(KeyboardInterrupt):
            of_unix(ours)
        assert len(os.listdir("/proc/self/fd")) == len(before)


# TCP


def accepted(family: int, host: str, connect: str | None = None) -> tuple[socket.socket, socket.socket]:
    """Return both ends of a loopback connection."""
    try:
        with socket.create_server((host, 0), family=socket.AddressFamily(family)) as server:
            client = socket.create_connection((connect or host, server.getsockname()[1]))
            return server.accept()[0], client
    except OSError as error:
        pytest.skip(f"no {host} here: {error}")


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_loopback_peer_has_a_uid(family: int, host: str) -> None:
    """Both ends of a loopback connection are in the kernel's table, with their uids."""
    sock, client = accepted(family, host)
    with sock, client:
        assert of_tcp(sock) == Peer("tcp", uid=os.getuid(), host=host)


def test_an_ipv4_peer_of_an_ipv6_listener() -> None:
    """An address that comes mapped into IPv6 is the IPv4 address that it stands for."""
    try:
        server = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    except (OSError, ValueError) as error:
        pytest.skip(f"no dual stack here: {error}")
    with server, socket.create_connection(("127.0.0.1", server.getsockname()[1])) as client:
        sock, _ = server.accept()
        with sock, client:
            assert of_tcp(sock) == Peer("tcp", uid=os.getuid(), host="127.0.0.1")


HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def table(path: Path, *rows: tuple[str, str, str, int, int]) -> str:
    """Write a table of sockets: local, remote, state, uid, inode."""
    lines = [
        f"   {number}: {local} {remote} {state} 00000000:00000000 00:00000000 00000000  {uid}        0 {inode} 1 x\n"
        for number, (local, remote, state, uid, inode) in enumerate(rows)
    ]
    path.write_text(HEAD + "".join(lines))
    return str(path)


def words(packed: bytes, port: int) -> str:
    """Write an endpoint as this machine's kernel does."""
    return (
        "".join(f"{int.from_bytes(packed[at : at + 4], sys.byteorder):08X}" for at in range(0, len(packed), 4))
        + f":{port:04X}"
    )


LOOPBACK = bytes([127, 0, 0, 1])


def test_the_peers_own_row_counts(home: Path) -> None:
    """Of the two rows of a connection the peer's is the one whose local end is the peer's."""
    theirs, ours = (LOOPBACK, 40000), (LOOPBACK, 6000)
    mine = (words(*ours), words(*theirs), "01", 0, 10)
    path = table(home / "tcp", mine, (words(*theirs), words(*ours), "01", 1000, 11))
    assert _peers._uid_of(theirs, ours, (path,)) == 1000
    assert _peers._uid_of(theirs, ours, (table(home / "tcp", mine),)) is None


@pytest.mark.parametrize(("state", "inode"), [("04", 0), ("06", 0), ("08", 12), ("0A", 12), ("01", 0)])
def test_a_row_that_is_not_established_says_nothing(home: Path, state: str, inode: int) -> None:
    """What a closed socket leaves behind is listed under uid 0, which must not make a stranger root."""
    theirs, ours = (LOOPBACK, 40000), (LOOPBACK, 6000)
    path = table(home / "tcp", (words(*theirs), words(*ours), state, 0, inode))
    assert _peers._uid_of(theirs, ours, (path,)) is None


def test_another_connection_of_that_port_says_nothing(home: Path) -> None:
    """Both ends must be those of the connection."""
    theirs, ours = (LOOPBACK, 40000), (LOOPBACK, 6000)
    path = table(
        home / "tcp",
        (words(*theirs), words(LOOPBACK, 6001), "01", 1, 10),
        (words(bytes([127, 0, 0, 2]), 40000), words(*ours), "01", 2, 11),
        (words(LOOPBACK, 40001), words(*ours), "01", 3, 12),
    )
    assert _peers._uid_of(theirs, ours, (path,)) is None


def test_a_mapped_row_is_found_in_the_other_table(home: Path) -> None:
    """A client socket of the IPv6 family that talks IPv4 stands in the table of IPv6."""
    theirs, ours = (LOOPBACK, 40000), (LOOPBACK, 6000)
    mapped = bytes(10) + b"\xff\xff" + LOOPBACK
    path = table(home / "tcp6", (words(mapped, 40000), words(mapped, 6000), "01", 1000, 10))
    assert _peers._uid_of(theirs, ours, (str(home / "none"), path)) == 1000


def test_a_garbled_table_says_nothing(home: Path) -> None:
    """A table in a form that is not known is no table."""
    (home / "tcp").write_text(HEAD + "  0: x:9C40 y:1770 01 0 0 0 1000 0 11\n  1: :9C40 \n")
    assert _peers._uid_of((LOOPBACK, 40000), (LOOPBACK, 6000), (str(home / "tcp"),)) is None


class Named(Wrapped):
    """A socket that says where its ends are."""

    def __init__(self, theirs: object, ours: object) -> None:
        self._theirs = theirs
        self._ours = ours

    def getpeername(self) -> object:
        """Say it."""
        return self._theirs

    def getsockname(self) -> object:
        """Say it."""
        return self._ours


def test_a_peer_elsewhere_is_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody tells the uid of a process on another machine; the table is not even asked."""

    def asked(*arguments: object) -> int:
        raise AssertionError

    monkeypatch.setattr(_peers, "_uid_of", asked)
    assert of_tcp(Named(("192.0.2.7", 40000), ("192.0.2.1", 6000))) == Peer("tcp", host="192.0.2.7")
    linked = Named(("fe80::1%eth0", 40000, 0, 2), ("fe80::2%eth0", 6000, 0, 2))
    assert of_tcp(linked) == Peer("tcp", host="fe80::1")
    assert of_tcp(Named(("::ffff:192.0.2.7", 40000, 0, 0), ("::ffff:192.0.2.1", 6000, 0, 0))).host == "192.0.2.7"
    assert of_tcp(Named("", "")) == Peer("tcp")


def test_a_broken_connection_raises() -> None:
    """A connection that is gone has no peer."""
    with socket.socket() as sock, pytest.raises(OSError):
        of_tcp(sock)


# Pseudo sockets


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_sockets_of_event_loops_will_do(loop: str, home: Path, child: Callable[..., subprocess.Popen[str]]) -> None:
    """What a transport gives as its socket is enough, on unix sockets and over TCP."""
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if loop == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop
    runner = factory()
    peers: asyncio.Queue[tuple[Peer, int | None]] = asyncio.Queue()

    class Accept(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            sock = transport.get_extra_info("socket")
            peers.put_nowait(of_unix(sock) if sock.family == socket.AF_UNIX else (of_tcp(sock), None))
            transport.close()

    async def both() -> None:
        unix = await runner.create_unix_server(Accept, f"{home}/s")
        process = await asyncio.to_thread(child, CONNECT, f"{home}/s", "0")
        peer, pidfd = await peers.get()
        assert (peer.uid, peer.pid) == (os.getuid(), process.pid)
        assert pidfd is not None
        os.close(pidfd)
        unix.close()
        await unix.wait_closed()
        tcp = await runner.create_server(Accept, "127.0.0.1", 0)
        await asyncio.to_thread(child, CONNECT, "127.0.0.1", str(tcp.sockets[0].getsockname()[1]))
        assert await peers.get() == (Peer("tcp", uid=os.getuid(), host="127.0.0.1"), None)
        tcp.close()
        await tcp.wait_closed()

    try:
        runner.run_until_complete(both())
        runner.run_until_complete(runner.shutdown_default_executor())
    finally:
        runner.close()


# Processes


def test_a_process_lives_until_it_ends(child: Callable[..., subprocess.Popen[str]]) -> None:
    """A process that has ended is dead, waited for or not; so is a stranger of its number."""
    process = child("print('ready', flush=True); input()")
    since = started(process.pid)
    assert since is not None
    assert alive(process.pid)
    assert alive(process.pid, since)
    assert not alive(process.pid, since + 1)
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not alive(process.pid)
    assert not alive(process.pid, since)
    process.communicate()
    assert not alive(process.pid, since)
    assert started(process.pid) is None
    assert command(process.pid) == ""


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1])
def test_no_process_has_this_number(pid: int) -> None:
    """Numbers that no process can have are dead, and no signal goes anywhere."""
    assert not alive(pid)


def test_a_name_with_anything_in_it(home: Path) -> None:
    """A program may be called ``) R 1 1``; the fields behind its name are found all the same."""
    program = home / ") R 1 1"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([str(program), "60"]) as process:
        try:
            since = started(process.pid)
            assert since is not None
            assert since >= (started(os.getpid()) or 0)
            assert alive(process.pid, since)
        finally:
            process.kill()


def test_where_start_times_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without /proc a process lives if one of its number does."""
    with monkeypatch.context() as patch:
        patch.setattr(_peers, "_stat", lambda pid: None)
        assert not alive(os.getpid())  # on Linux no entry means no process
        patch.setattr(sys, "platform", "other")
        assert alive(os.getpid(), 1)
        assert not alive(2**22 + 1)
        assert started(os.getpid()) is None


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["/usr/bin/vim", "secret"], "vim"),
        (["python3", "/opt/jobs/scrape.py", "--password", "x"], "scrape.py"),
        (["/usr/bin/python3.11", "/usr/bin/gunicorn", "app:app"], "gunicorn"),
        (["python", "-m", "http.server", "8000"], "python -m http.server"),
        (["python", "-Imhttp.server"], "python -m http.server"),
        (["python", "-X", "dev", "-W", "error", "-u", "job.py"], "job.py"),
        (["python", "-Xdev", "-Wmodule", "job.py"], "job.py"),
        (["python", "--check-hash-based-pycs", "always", "job.py"], "job.py"),
        (["python", "-c", "import secrets"], "python -c"),
        (["python", "-Ic", "import secrets"], "python -c"),
        (["python", "-m"], "python -m "),
        (["python", "-"], "python"),
        (["python"], "python"),
        (["pypy3", "job.py", ""], "job.py"),
        (["/opt/my programs/run", "x"], "run"),
        (["nginx: master process /usr/sbin/nginx"], "nginx"),
        ([""], ""),
    ],
)
def test_a_command_in_a_word(words: list[str], shown: str) -> None:
    """A script, a module or a program; never its arguments."""
    assert _peers._shown_command(words) == shown


def test_a_command_is_safe_to_print(home: Path) -> None:
    """Control characters that a process puts into its name do not reach a terminal."""
    program = home / "\x1b[2Jx"
    program.symlink_to(sys.executable)
    with subprocess.Popen(
        [str(program), "-c", "print('ready', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONHOME": sys.base_prefix},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert command(process.pid) == "?[2Jx"
        process.kill()


def test_our_own_process() -> None:
    """This process is alive, has started and runs something."""
    assert alive(os.getpid(), started(os.getpid()))
    assert command(os.getpid())


# This machine


def test_this_boot_is_one() -> None:
    """The name of the boot does not change, and has the pid namespace in it."""
    assert boot() == boot()
    assert "/pid:[" in boot()


def test_trust_is_a_user_on_a_machine(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Two users here, and one number on two machines, are told apart."""
    assert trust_domain(1000) == trust_domain(1000)
    assert trust_domain(1000) != trust_domain(1001)
    assert trust_domain(1000).endswith(":1000")


@pytest.mark.parametrize(
    ("content", "domain"),
    [(b"0123abcd\n", "0123abcd:7"), (b"", "here:7"), (b"uninitialized\n", "here:7"), (None, "here:7")],
)
def test_a_machine_without_an_id_goes_by_its_name(
    monkeypatch: pytest.MonkeyPatch, home: Path, content: bytes | None, domain: str
) -> None:
    """A container often has no machine id, or an empty one."""
    if content is not None:
        (home / "machine-id").write_bytes(content)
    monkeypatch.setattr(_peers, "_MACHINE_IDS", (str(home / "machine-id"),))
    monkeypatch.setattr(socket, "gethostname", lambda: "here")
    assert trust_domain(7) == domain


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's table of sockets is Linux's")
@pytest.mark.parametrize("likely", [[], [os.getpid()], [1]])
def test_the_process_behind_a_loopback_connection_is_found(likely: list[int]) -> None:
    """The peer over loopback is the process that has the socket open, whichever is looked at first."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as client:
            accepted, _ = listener.accept()
            with accepted:
                found = _peers.process_of_tcp(accepted, likely)
                assert found is not None
                peer, pidfd = found
                try:
                    assert (peer.kind, peer.pid, peer.uid) == ("tcp", os.getpid(), os.getuid())
                    assert peer.started == _peers.started(os.getpid())
                    assert not _peers.ended(pidfd)
                finally:
                    os.close(pidfd)
                client.close()
                assert _peers.process_of_tcp(accepted, likely) is None
