"""The files that TLS is set up from: how users name them, and who may read them. What is in them `registry._tls` reads.

A client's are what `tls=` says, else what ``REGISTRY_TLS_CA``, ``REGISTRY_TLS_CERT`` and ``REGISTRY_TLS_KEY`` name. A
server's are never taken from the environment: a variable that is there for clients must not change who is let in.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Mapping

import attrs

from registry._addresses._names import Address
from registry.errors import AccessDenied

NAMES = ("cert", "key", "ca")
VARIABLES = {name: f"REGISTRY_TLS_{name.upper()}" for name in NAMES}
EXAMPLE = 'tls={"cert": FILE, "key": FILE}'

_OPEN_TO_OTHERS = 0o027  # as for a key file that the user names: its group may read it, and nobody else


@attrs.frozen
class TlsFiles:
    """The files of one end of TLS, as absolute paths; empty where there is none.

    Attributes:
        cert: The certificate that this end shows, with those that lead from it to its CA.
        key: The private key that belongs to it.
        ca: The certificates of those who may have signed the other end's.
    """

    cert: str = ""
    key: str = ""
    ca: str = ""

    @property
    def paths(self) -> dict[str, str]:
        """Those that there are, by name."""
        return {name: path for name in NAMES if (path := getattr(self, name))}

    @property
    def mark(self) -> bytes:
        """What tells these files from others."""
        return "\0".join((self.cert, self.key, self.ca)).encode("utf-8", "surrogateescape")

    def stamp(self) -> tuple[object, ...]:
        """Return what changes when one of the files does."""
        return tuple(map(_stamp, self.paths.values()))


def given_tls(tls: Mapping[str, str | os.PathLike[str]] | None, address: str) -> TlsFiles | None:
    """Read `tls=` as users write it. No file is looked at.

    Args:
        tls: Paths by the names ``cert``, ``key`` and ``ca``.
        address: What they are for, a name or a URL.

    Raises:
        ValueError: A name or a path is wrong, one of a pair is missing, or the address is none that speaks TLS.
    """
    if tls is None:
        return None
    if not address.startswith("tls://"):
        raise ValueError(f"files of TLS are for tls://host:port, not for {address}: leave them out, or write tls://")
    if not isinstance(tls, Mapping):
        raise ValueError(f"tls must be a mapping of paths, such as {EXAMPLE}, not {tls!r}")
    unknown = [name for name in tls if name not in NAMES]
    if unknown:
        raise ValueError(f"tls has {unknown[0]!r}, and takes the paths 'cert', 'key' and 'ca'")
    return _checked({name: _path(name, path) for name, path in tls.items()}, "tls")


def environment_tls() -> TlsFiles:
    """Return what the environment has for clients.

    Raises:
        ValueError: One of a pair is missing.
    """
    found = {name: os.environ.get(variable) for name, variable in VARIABLES.items()}
    return _checked({name: os.path.abspath(path) for name, path in found.items() if path}, "the environment")


def served_tls(tls: Mapping[str, str | os.PathLike[str]] | None, address: Address) -> TlsFiles | None:
    """Read the `tls=` of a server; None where its address speaks no TLS.

    Raises:
        ValueError: As `given_tls`; or an address that speaks it comes without certificate and key.
    """
    files = given_tls(tls, str(address))
    if address.kind == "tls" and (files is None or not files.cert):
        raise ValueError(f"a server at {address} shows a certificate: {EXAMPLE}, or serve --tls-cert F --tls-key F")
    return files


def check_file(path: str, what: str, *, secret: bool = False) -> bytes:
    """Return what is in a file of TLS.

    Args:
        path: The file.
        what: How the user is told of it.
        secret: Refuse one that others can read.

    Raises:
        AccessDenied: It cannot be read, or is open to others.
    """
    try:
        # A pipe that nobody writes must not keep a server waiting.
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise AccessDenied(f"{what} is not there: {path}") from error
        raise AccessDenied(f"{what} {path} cannot be read by this user: {error.strerror}") from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise AccessDenied(f"{what} {path} is no plain file")
        if secret and sys.platform != "win32" and status.st_mode & _OPEN_TO_OTHERS:
            raise AccessDenied(
                f"{what} {path} is open to others (mode {status.st_mode & 0o777:o}), and whoever has it passes for its "
                f"owner: chmod 600 {path}"
            )
        with open(fd, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(fd)


def _path(name: str, path: object) -> str:
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise ValueError(f"tls[{name!r}] must be a path, not {path!r}")
    return os.path.abspath(os.fsdecode(path))


def _checked(paths: dict[str, str], where: str) -> TlsFiles:
    for name, other in (("cert", "key"), ("key", "cert")):
        if name in paths and other not in paths:
            raise ValueError(f"{where} has a {name} of TLS and no {other}, and one needs the other: name both")
    return TlsFiles(**paths)


def _stamp(path: str) -> object:
    try:
        status = os.stat(path)
    except OSError as error:
        return error.errno
    return status.st_mtime_ns, status.st_size, status.st_ino
