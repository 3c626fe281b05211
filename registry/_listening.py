"""The sockets that a server listens at."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from registry import _addresses
from registry._addresses import Address

BACKLOG = 1024  # connections that the kernel keeps until they are taken


def listen_tcp(address: Address) -> socket.socket:
    """Bind a TCP socket; port 0 is whichever is free.

    Raises:
        OSError: Somebody else listens there, or nobody may.
    """
    host, port = address.host or "", address.port or 0
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(
            error.errno, f"cannot listen at {address}: {error.strerror}; is a server running there already?"
        ) from error
    return listener


def listen_unix(path: Path, gid: int | None = None) -> socket.socket:
    """Bind a unix socket; the lock of its server says that a left-over one is nobody's.

    Args:
        path: Where.
        gid: The group whose members may connect; None: only this user can.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise OSError("this system has no unix sockets; serve tcp://127.0.0.1:PORT")
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        if gid is not None:
            _addresses.give(str(path), gid, 0o660)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
