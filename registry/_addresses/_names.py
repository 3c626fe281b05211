"""Addresses as users write them, and the directory that each stands for."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from typing import TYPE_CHECKING

import attrs

from registry._addresses._files import NETWORK_FILE_SYSTEMS, check_parent, check_private, file_system
from registry.errors import AccessDenied

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT = "default"

# What fits into sockaddr_un with its closing zero.
SOCKET_PATH_LIMIT = 107 if sys.platform == "linux" else 103

_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


@attrs.frozen(repr=False)
class Address:
    """Where a server is to be found. Made by `parse`; ``str()`` is its URL, which `parse` takes back.

    Attributes:
        kind: ``unix``, ``tcp``, ``tls``, ``memory``, ``stock+tcp`` or ``stock+unix``.
        path: of the socket, for the two unix kinds.
        host: for the network kinds; empty is every interface, for a server.
        port: for the network kinds; 0 lets a server choose.
        name: where the address was given as a name, or leads to the socket of one.
    """

    kind: str
    path: str | None = None
    host: str | None = None
    port: int | None = None
    name: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"{self.kind}://{self.path}"
        if self.host is not None:
            host = f"[{self.host}]" if ":" in self.host else self.host
            return f"{self.kind}://{host}:{self.port}"
        return f"{self.kind}://"

    def __repr__(self) -> str:
        return f"<address {self.label}>"

    @property
    def label(self) -> str:
        """How a person calls it: the name where there is one, else the URL."""
        return self.name or str(self)

    @property
    def is_local(self) -> bool:
        """True if the server is on this machine for certain."""
        if self.host is None:
            return True
        return self.host in ("localhost", "::1") or (
            self.host.startswith("127.") and self.host.replace(".", "").isdigit()
        )

    @property
    def stock_form(self) -> str | tuple[str, int]:
        """The address as `multiprocessing` takes it.

        Raises:
            ValueError: it has none, being ``tls://`` or ``memory://``.
        """
        if self.path is not None:
            return self.path
        if self.kind in ("tcp", "stock+tcp") and self.host is not None and self.port is not None:
            return self.host, self.port
        raise ValueError(f"{self} is no address for multiprocessing: give a name, unix:///path or tcp://host:port")


def parse(address: str | tuple[str, int] | Address | None = None) -> Address:
    """Read an address as users write it.

    Args:
        address: a name (``"scrapers"``), a URL (``unix:///path``, ``tcp://host:port``, ``tls://host:port``,
            ``memory://``, ``stock+tcp://host:port``, ``stock+unix:///path``) or ``(host, port)``. ``None`` is
            what ``REGISTRY_ADDRESS`` says, else the name ``default``.

    Raises:
        ValueError: it is none of these, or its socket path is too long.
        AccessDenied: the directory of all names is not this account's.
    """
    if isinstance(address, Address):
        return address
    if address is None:
        address = os.environ.get("REGISTRY_ADDRESS") or DEFAULT
    if isinstance(address, tuple):
        return _parse_pair(address)
    if not isinstance(address, str):
        raise ValueError(_say(address, "is no address", "give a name, a URL or (host, port)"))
    kind, separator, rest = address.partition("://")
    if not separator:
        return _parse_name(address)
    if kind in ("unix", "stock+unix"):
        return _parse_path(address, kind, rest)
    if kind in ("tcp", "tls", "stock+tcp"):
        return _parse_host(address, kind, rest)
    if kind == "memory":
        if rest:
            raise ValueError(_say(address, "has something behind memory://", "write memory:// alone"))
        return Address("memory")
    known = "unix://, tcp://, tls://, memory://, stock+tcp://, stock+unix://"
    raise ValueError(_say(address, "starts with no scheme that is known", f"use one of {known}"))


def _say(address: object, what: str, cure: str) -> str:
    return f"the address {address!r} {what}: {cure}"


def _is_name(text: str) -> bool:
    return bool(text) and _LETTERS.issuperset(text) and text not in (".", "..")


def _parse_name(name: str) -> Address:
    if not _is_name(name):
        if name.startswith("\0"):
            return _parse_path(name, "unix", name)
        if name.startswith("/"):
            raise ValueError(_say(name, "is a path", f"write unix://{name}"))
        host, colon, port = name.rpartition(":")
        if colon and port.isdigit():
            raise ValueError(_say(name, "is a host and a port", f"write tcp://{host}:{port}"))
        raise ValueError(_say(name, "is no name", "a name is made of letters, digits, '.', '_' and '-'"))
    path = os.path.join(_home(), name, "socket")
    _check_socket_path(path, f"the name {name!r}", "set REGISTRY_HOME to a shorter directory, or take a shorter name")
    return Address("unix", path=path, name=name)


def _parse_path(address: str, kind: str, path: str) -> Address:
    if path.startswith(("\0", "@")):
        what = "is an abstract socket, which any user of this host can listen at first"
        raise ValueError(_say(address, what, f"write {kind}:///path/of/the/socket, in a directory of your own"))
    if not path.startswith("/"):
        raise ValueError(_say(address, "has no absolute path", f"write {kind}:///path/of/the/socket"))
    if path.endswith("/") or "\0" in path:
        raise ValueError(_say(address, "has no path that a socket can have", f"write {kind}:///path/of/the/socket"))
    _check_socket_path(path, f"the address {address!r}", "take a socket in a shorter directory")
    name = None
    if kind == "unix" and path.endswith("/socket"):
        # The URL of a name leads back to the name, so that it finds the name's key.
        home, _, candidate = path[: -len("/socket")].rpartition("/")
        try:
            if _is_name(candidate) and home == _home():
                name = candidate
        except (ValueError, AccessDenied):
            pass  # no names can be used here, but a path can
    return Address(kind, path=path, name=name)


def _check_socket_path(path: str, whose: str, cure: str) -> None:
    size = len(os.fsencode(path))
    if size > SOCKET_PATH_LIMIT:
        raise ValueError(
            f"the socket path of {whose} has {size} bytes, and the system allows {SOCKET_PATH_LIMIT}: {cure} ({path})"
        )


def _parse_host(address: str, kind: str, rest: str) -> Address:
    cure = f"write {kind}://host:port, and {kind}://[::1]:port for an IPv6 address"
    host, colon, digits = rest.rpartition(":")
    if not colon or not (digits.isascii() and digits.isdigit() and len(digits) <= 5):
        raise ValueError(_say(address, "has no port", cure))
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise ValueError(_say(address, "has brackets around what is no IPv6 address", cure))
    elif ":" in host:
        raise ValueError(_say(address, "has an IPv6 address without brackets", cure))
    return _checked_host(address, kind, host, int(digits), cure)


def _parse_pair(address: tuple[object, ...]) -> Address:
    cure = "write (host, port), such as ('127.0.0.1', 6000)"
    if len(address) != 2:
        raise ValueError(_say(address, "is no pair", cure))
    host, port = address
    if not isinstance(host, str) or not isinstance(port, int) or isinstance(port, bool):
        raise ValueError(_say(address, "is no pair of a text and a number", cure))
    return _checked_host(address, "tcp", host, port, cure)


def _checked_host(address: object, kind: str, host: str, port: int, cure: str) -> Address:
    if not 0 <= port <= 65535:
        raise ValueError(_say(address, "has a port outside 0 to 65535", cure))
    if any(letter in "/@?#[]\\" or letter.isspace() or not letter.isprintable() for letter in host):
        raise ValueError(_say(address, "has no host name that could be looked up", cure))
    return Address(kind, host=host, port=port)


def home() -> Path:
    """Return the directory that holds the directories of all names.

    It is ``REGISTRY_HOME``, else ``.local/state/registry`` in the home that the password database has for
    this account. An account that has no home of its own gets a directory of its uid in ``/tmp``. Nothing is
    created here.

    Raises:
        ValueError: ``REGISTRY_HOME`` is not absolute, or the directory is on a network file system, where
            locks and sockets do not work between hosts.
        AccessDenied: the directory in ``/tmp`` is somebody else's.
    """
    from pathlib import Path  # on the way of a client, text will do

    return Path(_home())


def _home() -> str:
    path = os.environ.get("REGISTRY_HOME")
    if path:
        if not os.path.isabs(path):
            raise ValueError(f"REGISTRY_HOME is {path!r}, which depends on the working directory: make it absolute")
        path = os.path.normpath(path)
    elif sys.platform == "win32":
        path = os.path.join(os.path.expanduser("~"), "AppData", "Local", "registry")
    else:
        own = _own_home()
        path = os.path.join(own, ".local", "state", "registry") if own else _shared_tmp()
    kind = _file_system_of(path)
    if kind in NETWORK_FILE_SYSTEMS:
        raise ValueError(
            f"{path} is on a network file system ({kind}), where processes on two hosts would each take the "
            f"lock: set REGISTRY_HOME to a directory on a disk of this machine"
        )
    return path


def _file_system_of(path: str) -> str:
    """Return the type of the file system that a path is on; of what is there the table of mounts is read once."""
    try:
        return _file_system_on(path, os.stat(path).st_dev)
    except OSError:
        return file_system(path)


@lru_cache(maxsize=8)
def _file_system_on(path: str, device: int) -> str:
    return file_system(path)


def _own_home() -> str | None:
    """Return the home of this account if it is one; ``nobody`` and many services have ``/`` or nothing."""
    if sys.platform == "win32":
        return None
    import pwd

    try:
        path = pwd.getpwuid(os.geteuid()).pw_dir
        # Ownership, not permission to write: what a unit's sandbox makes read-only for one process is still
        # where all the others of this account meet. `Place.ensure` tells if something cannot be created.
        return path if os.path.isabs(path) and os.stat(path).st_uid == os.geteuid() else None
    except (KeyError, OSError):
        return None


def _shared_tmp(root: str = "/tmp") -> str:
    """Return this account's directory in the system's temporary directory."""
    if sys.platform == "win32":
        return root
    path = os.path.join(root, f"registry-{os.geteuid()}")
    if os.path.lexists(path):
        check_private(path)
    return path


@attrs.frozen(init=False, repr=False)
class Place:
    """The directory of one server.

    A name has the directory of that name. Any other address has one whose name is derived from it and has a
    ``+`` in it, which no name has: ``tcp+127.0.0.1+6000``.

    Attributes:
        address: the server's.
    """

    address: Address
    _directory: str

    def __init__(self, address: str | tuple[str, int] | Address | None = None, directory: str | None = None) -> None:
        """Find the place of an address. Nothing is created, see `ensure`.

        Args:
            address: the server's.
            directory: where it is, for a server that nobody finds by its address.

        Raises:
            ValueError: the address is wrong, or ``memory://``, which has no place.
        """
        address = parse(address)
        if address.kind == "memory":
            raise ValueError("memory:// is in this process alone and has no directory")
        if directory is not None:
            pass
        elif address.name is not None and address.path is not None:
            directory = os.path.dirname(address.path)
        else:
            directory = os.path.join(_home(), _derived_name(address))
        self.__attrs_init__(address, directory)

    def __repr__(self) -> str:
        return f"<place {self._directory}>"

    def _path(self, *parts: str) -> Path:
        from pathlib import Path

        return Path(self._directory, *parts)

    @property
    def directory(self) -> Path:
        """The directory itself."""
        return self._path()

    @property
    def socket(self) -> Path:
        """Where a server of a unix address listens; for others where it would."""
        return self._path("socket") if self.address.path is None else self._path(self.address.path)

    @property
    def key(self) -> Path:
        """The key file, see `load_key`."""
        return self._path("key")

    @property
    def lock(self) -> Path:
        """The lock file, see `ServerLock`; its content tells the server's pid."""
        return self._path("lock")

    @property
    def epoch(self) -> Path:
        """The epoch file, see `EpochFile`."""
        return self._path("epoch")

    @property
    def log(self) -> Path:
        """The text that a server started in the background writes."""
        return self._path("log")

    @property
    def state(self) -> Path:
        """The directory of the event log."""
        return self._path("state")

    def ensure(self) -> None:
        """Create the directory where it is missing, and check that it is this account's alone.

        Raises:
            AccessDenied: it is not, or may not be created; the text names the cure.
        """
        parent = os.path.dirname(self._directory)
        try:
            os.makedirs(parent, 0o700, exist_ok=True)
            try:
                os.mkdir(self._directory, 0o700)
            except FileExistsError:
                pass
        except OSError as error:
            raise AccessDenied(
                f"{self._directory} cannot be created ({error.strerror}): set REGISTRY_HOME to a "
                f"directory that this user may write to"
            ) from error
        _home()  # looks at the one in the temporary directory again, which now is there
        check_parent(parent)
        check_private(self._directory)


def _derived_name(address: Address) -> str:
    if address.path is not None:
        # Readable, and told apart by the whole path; the path itself may be longer than a file name.
        import hashlib

        digest = hashlib.sha256(os.fsencode(address.path)).hexdigest()[:16]
        return f"{address.kind}+{_quoted(os.path.basename(address.path))[-64:]}+{digest}"
    return f"{address.kind}+{_quoted(address.host or '')}+{address.port}"


def _quoted(text: str) -> str:
    return "".join(
        letter if letter in _LETTERS else "".join(f"%{byte:02X}" for byte in os.fsencode(letter)) for letter in text
    )
