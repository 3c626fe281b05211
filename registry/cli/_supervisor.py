"""Who looks after a server that runs in the foreground, and what they are told: systemd, or the init of a container.

A unit of ``Type=notify`` counts as started once its process says so (`sd_notify(3)`): a datagram of a few lines to the
socket that ``NOTIFY_SOCKET`` names. What such a unit keeps is not restarted behind its back: the command that does it
is noted where ``registry restart`` finds it.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import MutableMapping

log = logging.getLogger("registry")

_VARIABLE = "NOTIFY_SOCKET"


class Supervisor:
    """What this process was started by, if that wants to hear of it.

    The variable is taken out of the environment, since nobody but this process is to speak for it.

    Args:
        environment: The environment; that of this process without.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._environment = environment
        self._name = environment.pop(_VARIABLE, "")

    def ready(self, status: str) -> None:
        """Say that clients can connect, and what people are to see."""
        self._tell("READY=1", f"STATUS={status}")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._tell("STOPPING=1")

    def reloading(self) -> None:
        """Say that another program takes the place of this one, and will be ready in its turn."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000 if hasattr(time, "CLOCK_MONOTONIC") else 0
        self._tell("RELOADING=1", f"MONOTONIC_USEC={microseconds}")
        if self._name:
            self._environment[_VARIABLE] = self._name

    def _tell(self, *lines: str) -> None:
        if not self._name:
            return
        # An abstract socket has a zero byte where it is written with an @.
        address = f"\0{self._name[1:]}" if self._name.startswith("@") else self._name
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notice:
                notice.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            log.warning("%s cannot be told to %s: %s", lines[0], self._name, error)

    def command(self, table: str = "/proc/self/cgroup") -> str:
        """Return what restarts this process, where it is one that somebody keeps; else empty.

        Args:
            table: Where the system tells the control group of this process.
        """
        from registry._starter import unit

        if os.getpid() == 1:
            return "a restart of its container"
        is_main = bool(self._name) or self._environment.get("SYSTEMD_EXEC_PID") == str(os.getpid())
        name = unit(table) if is_main else ""
        if not name:
            return ""
        with open(table, encoding="utf-8", errors="replace") as file:
            is_own = f"/user@{os.geteuid()}.service/" in file.read()
        return f"systemctl {'--user ' if is_own else ''}restart {name}"
