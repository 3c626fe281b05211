"""Who a peer is, as its kernel and ours can tell; what it says of itself is not asked.

On a unix socket the kernel vouches for uid and pid of the process that connected, and hands out a *pidfd*: a
descriptor that stands for that very process, becomes readable when it ends and is never taken over by
another one with the same number. Where a number must do (in a log, across a restart), it is kept together
with the start time of the process and the boot it belongs to.

Over TCP a peer is an address. One case is better: both ends of a loopback connection are in our kernel's
table of sockets, with the uid that made them.

Nothing here needs more of a socket than ``getsockopt``, ``getpeername`` and ``getsockname``, so that the
pseudo sockets of event loops will do. What a system cannot tell is ``None``.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import sys
from collections.abc import Iterable
from functools import lru_cache
from typing import Protocol, overload

import attrs


class SocketLike(Protocol):
    """As much of a socket as is needed here."""

    @overload
    def getsockopt(self, level: int, optname: int, /) -> int: ...
    @overload
    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...

    def getpeername(self) -> object:
        """As `socket.socket` has it."""

    def getsockname(self) -> object:
        """As `socket.socket` has it."""


@attrs.frozen
class Peer:
    """The process at the other end of a connection.

    Attributes:
        kind: ``unix`` or ``tcp``.
        uid: of its user; over TCP of a peer on this machine only.
        pid: of the process, in our numbering.
        started: when it started, in clock ticks since the boot; with the pid it names one process of a boot.
        host: its host's address; this machine's name for ``unix``.
        command: what it runs, for people to read. Anyone may write anything there.
    """

    kind: str
    uid: int | None = None
    pid: int | None = None
    started: int | None = None
    host: str = ""
    command: str = ""

    def __str__(self) -> str:
        """Return what people are told of a peer that has said nothing of itself: ``python (pid 812, uid 1000)``."""
        known = [f"{name} {number}" for name, number in (("pid", self.pid), ("uid", self.uid)) if number is not None]
        who = self.command or self.host or "an unknown process"
        return f"{who} ({', '.join(known)})" if known else who

    @property
    def process(self) -> str:
        """A name of the process that means no other one, also after a restart of ours; empty where there is none."""
        here = boot()
        return f"{here}/{self.pid}/{self.started}" if here and self.pid and self.started else ""


# Unix sockets

_PEERCRED = struct.Struct("=iII")  # struct ucred: pid, uid, gid
_SO_PEERPIDFD = 77  # Linux 6.5; the socket module has no name for it
_SOL_LOCAL = 0  # macOS
_LOCAL_PEERCRED = 1
_LOCAL_PEERPID = 2
_XUCRED = struct.Struct("=II")  # the head of struct xucred: version, uid


def of_unix(sock: SocketLike) -> tuple[Peer, int | None]:
    """Tell who connected to a unix socket.

    Args:
        sock: the accepted connection.

    Returns:
        The peer, and a pidfd of its process that the caller must close. There is none where the system has
        none, where the peer is in a pid namespace that we cannot see into, and where it has ended already;
        in the last two cases there is no pid either.

    Raises:
        OSError: the connection is broken.
    """
    host = machine()
    if sys.platform == "darwin":
        return _of_unix_darwin(sock, host), None
    if sys.platform != "linux":
        return Peer("unix", host=host), None
    number, uid, _ = _PEERCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))
    if number <= 0:
        return Peer("unix", uid=uid, host=host), None
    pidfd = _pidfd(sock, number)
    if pidfd is None:
        # Had it ended, a look at /proc could find a stranger that has its number now.
        pid = None if hasattr(os, "pidfd_open") else number
        return Peer("unix", uid=uid, pid=pid, host=host), None
    try:
        peer = Peer("unix", uid=uid, pid=number, started=started(number), host=host, command=command(number))
        if ended(pidfd):
            # The number may have been given away before we looked.
            peer = Peer("unix", uid=uid, host=host)
            os.close(pidfd)
            return peer, None
    except BaseException:  # whatever interrupts us, the descriptor does not leak
        os.close(pidfd)
        raise
    return peer, pidfd


def _pidfd(sock: SocketLike, pid: int) -> int | None:
    if sys.platform != "linux":
        return None
    try:
        return sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        # Any other error is about the peer: it has ended, and its number may be another's.
        if error.errno != errno.ENOPROTOOPT:
            return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _of_unix_darwin(sock: SocketLike, host: str) -> Peer:
    uid = pid = None
    try:
        _, uid = _XUCRED.unpack_from(sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, 128))
        number = sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID)
        pid = number if number > 0 else None
    except OSError:
        pass  # it is gone, and its end is about to be read
    return Peer("unix", uid=uid, pid=pid, host=host)


def ended(pidfd: int) -> bool:
    """Tell whether the process of a pidfd has ended, waited for by its parent or not."""
    if sys.platform == "win32":
        raise OSError("there are no pidfds on Windows")
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


# TCP

_ESTABLISHED = b"01"


def of_tcp(sock: SocketLike) -> Peer:
    """Tell who connected over TCP: the address, and the uid where the other end is on this machine.

    Raises:
        OSError: the connection is broken.
    """
    theirs = _endpoint(sock.getpeername())
    ours = _endpoint(sock.getsockname())
    if theirs is None or ours is None:
        return Peer("tcp")
    host = _host(theirs[0])
    uid = _uid_of(theirs, ours) if _is_loopback(theirs[0]) else None
    return Peer("tcp", uid=uid, host=host)


_Endpoint = tuple[bytes, int]  # packed address, IPv4 as 4 bytes also where it came mapped into IPv6; port

_MAPPED = bytes(10) + b"\xff\xff"


def _endpoint(name: object) -> _Endpoint | None:
    if not isinstance(name, tuple) or len(name) < 2:
        return None
    host, port = name[0], name[1]
    try:
        if ":" in host:
            return _unmapped(socket.inet_pton(socket.AF_INET6, host.partition("%")[0])), port
        return socket.inet_pton(socket.AF_INET, host), port
    except (OSError, TypeError):
        return None


def _unmapped(packed: bytes) -> bytes:
    return packed[12:] if packed.startswith(_MAPPED) else packed


def _host(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def _is_loopback(packed: bytes) -> bool:
    return packed[0] == 127 if len(packed) == 4 else packed == bytes(15) + b"\1"


def _uid_of(
    theirs: _Endpoint, ours: _Endpoint, tables: tuple[str, ...] = ("/proc/net/tcp", "/proc/net/tcp6")
) -> int | None:
    """Find the row of the peer's end, the one whose *local* address is the peer's, and return its uid.

    Only an established socket counts: what is left of a closed one is listed under uid 0. A client socket of
    the IPv6 family that talks IPv4 stands in the other table, with mapped addresses.
    """
    row = _row_of(theirs, ours, tables)
    return row[0] if row is not None else None


def _row_of(
    theirs: _Endpoint, ours: _Endpoint, tables: tuple[str, ...] = ("/proc/net/tcp", "/proc/net/tcp6")
) -> tuple[int, int] | None:
    """Return the uid and the inode of the peer's end, as `_uid_of` finds it."""
    mark = b":%04X " % theirs[1]
    for table in tables:
        try:
            with open(table, "rb") as file:
                for line in file:
                    # Most rows are told to be others' without being taken apart.
                    if mark not in line:
                        continue
                    row = line.split()
                    if len(row) < 10 or row[3] != _ESTABLISHED or row[9] == b"0":
                        continue
                    if _row_endpoint(row[1]) == theirs and _row_endpoint(row[2]) == ours:
                        return int(row[7]), int(row[9])
        except (OSError, ValueError):
            continue  # no such table here, or none that we can read
    return None


def process_of_tcp(sock: SocketLike, likely: Iterable[int] = ()) -> tuple[Peer, int] | None:
    """Tell which process is at the other end of a loopback connection, where the kernel lets us look.

    The kernel's table has the inode of the peer's socket; whoever has a descriptor of it is the peer. A
    forked child may have one too, which nobody can tell from its parent.

    Args:
        sock: the accepted connection.
        likely: pids to look at first; a look at all processes costs a call for each descriptor of our user's.

    Returns:
        The peer, and a pidfd of its process that the caller must close; ``None`` where it cannot be known.
    """
    if sys.platform != "linux":
        return None
    try:
        theirs, ours = _endpoint(sock.getpeername()), _endpoint(sock.getsockname())
        if theirs is None or ours is None or not _is_loopback(theirs[0]):
            return None
        row = _row_of(theirs, ours)
        if row is None:
            return None
        uid, inode = row
        link = f"socket:[{inode}]"
        first = [pid for pid in likely if _has_open(pid, link)]
        for pid in first or (int(name) for name in os.listdir("/proc") if name.isdigit()):
            # Looked at once more when the descriptor has fixed which process the number means.
            if not _has_open(pid, link):
                continue
            pidfd = os.pidfd_open(pid)
            if not _has_open(pid, link):
                os.close(pidfd)
                continue
            return Peer("tcp", uid, pid, started(pid), _host(theirs[0]), command(pid)), pidfd
    except OSError:
        pass  # it has ended, or the system has no pidfds
    return None


def _has_open(pid: int, link: str) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        for name in os.listdir(folder):
            try:
                if os.readlink(f"{folder}/{name}") == link:
                    return True
            except OSError:
                continue  # closed meanwhile
    except OSError:
        pass  # somebody else's, or gone
    return False


def _row_endpoint(text: bytes) -> _Endpoint:
    address, _, port = text.partition(b":")
    # Words of four bytes, each written as a number of this machine's byte order.
    packed = b"".join(
        int(address[start : start + 8], 16).to_bytes(4, sys.byteorder) for start in range(0, len(address), 8)
    )
    return _unmapped(packed), int(port, 16)


# Processes


def started(pid: int) -> int | None:
    """Return when a process started, in clock ticks since the boot; ``None`` if it cannot be known."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def alive(pid: int, since: int | None = None) -> bool:
    """Tell whether a process lives.

    Args:
        pid: its number.
        since: when it started, as `started` says. With it a stranger that has its number now does not count.

    Returns:
        False also for a process that has ended and was not waited for. Where the system does not tell start
        times, whether there is any process of that number.
    """
    if pid <= 0:
        return False
    fields = _stat(pid)
    if fields:
        return fields[0] not in (b"Z", b"X") and since in (None, int(fields[19]))
    if sys.platform in ("linux", "win32"):
        return False  # kill(pid, 0) ends processes on Windows
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is somebody's
    return True


def find(process: str) -> tuple[bool, int | None]:
    """Look for a process by the name that `Peer.process` has given it.

    Returns:
        Whether it has ended for certain, and a pidfd of it where it lives and the system has them; the caller closes
        that.
    """
    ours = boot()
    if not process or not ours:
        return False, None
    there, number, start = process.rsplit("/", 2)
    if there != ours:
        # Of another boot it cannot live; of another namespace we cannot see it.
        return there.partition("/")[0] != ours.partition("/")[0], None
    pid, since = int(number), int(start)
    pidfd = None
    try:
        pidfd = os.pidfd_open(pid) if sys.platform == "linux" and hasattr(os, "pidfd_open") else None
    except ProcessLookupError:
        return True, None
    except OSError:
        pass  # it cannot be watched
    # After that, so that the descriptor is that of the process which was looked at.
    if alive(pid, since):
        return False, pidfd
    if pidfd is not None:
        os.close(pidfd)
    return True, None


def command(pid: int) -> str:
    """Return what a process runs, in a word or two: a script, ``-m`` and a module, or a program."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = [os.fsdecode(word) for word in file.read(4096).split(b"\0")]
    except OSError:
        return ""
    # The arguments are left out: people write passwords there, and others are shown this.
    shown = _shown_command(words)
    return "".join(letter if letter.isprintable() else "?" for letter in shown)[:64]


_OPTIONS_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")


def _shown_command(words: list[str]) -> str:
    # A server that has written a title of its own ("nginx: master process") has it all in one word.
    program = os.path.basename(words[0].partition(": ")[0])
    if not program.lower().startswith(("python", "pypy")):
        return program
    index = 1
    while index < len(words) and words[index].startswith("-"):
        word = words[index]
        if word in _OPTIONS_WITH_VALUE:
            index += 2
            continue
        if not word.startswith("--"):
            # Short options may be written as one: -Im module.
            for letter in word[1:]:
                if letter == "c":
                    return f"{program} -c"
                if letter == "m":
                    module = word.partition("m")[2] or "".join(words[index + 1 : index + 2])
                    return f"{program} -m {module}"
                if letter in "WX":
                    break
        index += 1
    if index < len(words) and words[index]:
        return os.path.basename(words[index])
    return program


def _stat(pid: int) -> list[bytes] | None:
    """Return the fields of ``/proc/PID/stat`` from the third (the state) on."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    # The second is the name of the program, in parentheses and with anything in it.
    fields = text.rpartition(b")")[2].split()
    return fields if len(fields) > 19 else None


# This machine

_MACHINE_IDS = ("/etc/machine-id", "/var/lib/dbus/machine-id")


def machine() -> str:
    """Return this machine's name, for people to read."""
    return socket.gethostname()


def boot() -> str:
    """Return what tells this boot and pid namespace from others; empty where the system does not tell.

    Numbers and start times of processes mean something within one only.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def myself() -> str:
    """Return the name of this process that means no other one, as `Peer.process`; empty where there is none."""
    return Peer("unix", pid=os.getpid(), started=started(os.getpid())).process


def trust_domain(uid: int) -> str:
    """Return the name of a user on this machine, told from the same number elsewhere.

    It is made of the machine's id, or its host name where it has none, and the uid.
    """
    return f"{_machine_id(_MACHINE_IDS) or machine()}:{uid}"


@lru_cache(maxsize=1)
def _machine_id(paths: tuple[str, ...]) -> str:
    """Return what a machine is named by from its installation on; empty where it has no such name."""
    for path in paths:
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                identity = file.read().strip()
        except OSError:
            continue
        if identity and identity != "uninitialized":
            return identity
    return ""
