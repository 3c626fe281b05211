"""The timer by which a server judges the leases of its sessions.

While any session lives on a lease, a timer ticks. A tick that comes late tells that the loop, the process or the
machine has stood still, which is credited to every lease. Leases are judged two turns later: the loop may run timers
before it looks at its sockets, so that the heartbeats of all clients may still lie there when the timer runs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from registry._attachments import Attachment
from registry._connection import Connection
from registry._host import Host

log = logging.getLogger("registry")

STALL = 0.1  # seconds by which a timer is late when the loop, or the machine, has stood still
TICK = 0.5  # seconds between two looks at the leases, or a tenth of a lease


class Pulse:
    """The ticks of one server.

    Args:
        loop: The server's.
        host: Whose leases are judged.
        now: Seconds since 1970.
        judge: Ends the sessions whose lease has run out, and sends what comes of it.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, host: Host, now: Callable[[], float], judge: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._host = host
        self._now = now
        self._end = judge
        self._period = min(TICK, host.lease / 10)
        self._ticked = 0.0
        self.is_ticking = False

    def tick(self) -> None:
        """Look at the leases again in a while, if there are any."""
        self.is_ticking = self._host.believes
        if self.is_ticking:
            self._ticked = _boot_time()
            self._loop.call_later(self._period, self._on_tick)

    def _on_tick(self) -> None:
        self._credit_stall(self._period)
        # uvloop runs this before it looks at the sockets, and what this asks for too.
        self._loop.call_soon(self._loop.call_soon, self._judge)

    def _judge(self) -> None:
        self._credit_stall(0.0)
        self._end()
        self.tick()

    def _credit_stall(self, expected: float) -> None:
        """Look whether more time than expected has gone by since the last look, in which nobody could be heard."""
        now = _boot_time()
        passed, self._ticked = now - self._ticked, now
        if passed - expected > STALL:
            log.warning("stood still for %.1f s, which is credited to every lease", passed - expected)
            self._host.credit(passed, self._now())


def is_behind(attachment: Attachment) -> bool:
    """Tell whether a connection has brought what has not been taken yet: its session lives."""
    connection: Connection | None = attachment.sink
    return connection is not None and connection.is_behind


def _boot_time() -> float:
    """Return seconds that go on while the machine is suspended, where the system counts them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
