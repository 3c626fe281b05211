"""The processes of a server's sessions, as far as the kernel tells of their end: a pidfd for each."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from registry._attachments import Client


class Lifelines:
    """Pidfds, each of which becomes readable in the moment in which the process of its session ends.

    Until `begin` they are only kept: those of sessions that a log has told of come before there is a loop.

    Args:
        ended: Called with a session whose process has ended, once.
    """

    def __init__(self, ended: Callable[[Client], None]) -> None:
        self._ended = ended
        self._pidfds: dict[bytes, tuple[Client, int]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def __contains__(self, key: object) -> bool:
        """Tell whether the process of a session, of that key, is watched."""
        return key in self._pidfds

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch, from now on."""
        self._loop = loop
        for client, pidfd in self._pidfds.values():
            loop.add_reader(pidfd, self._has_ended, client)

    def watch(self, client: Client, pidfd: int) -> None:
        """End a session in the moment in which its process ends. Takes over the pidfd."""
        if client.key in self._pidfds:
            os.close(pidfd)
            return
        self._pidfds[client.key] = client, pidfd
        if self._loop is not None:
            self._loop.add_reader(pidfd, self._has_ended, client)

    def unwatch(self, client: Client) -> None:
        """Stop watching the process of a session that has ended otherwise."""
        _, pidfd = self._pidfds.pop(client.key, (None, None))
        if pidfd is not None:
            self._let_go(pidfd)

    def end(self) -> None:
        """Watch nobody any more."""
        for _, pidfd in self._pidfds.values():
            self._let_go(pidfd)
        self._pidfds.clear()
        self._loop = None

    def forget(self) -> list[int]:
        """In a forked child: leave the loop, which is the parent's, alone, and return what is open here."""
        numbers = [pidfd for _, pidfd in self._pidfds.values()]
        self._pidfds.clear()
        self._loop = None
        return numbers

    def _has_ended(self, client: Client) -> None:
        self.unwatch(client)
        self._ended(client)

    def _let_go(self, pidfd: int) -> None:
        if self._loop is not None:
            self._loop.remove_reader(pidfd)
        os.close(pidfd)
