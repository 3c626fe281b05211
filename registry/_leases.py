"""Which sessions are believed to live, and for how long: those without a connection, and those that must say so.

A session without a connection is *suspended*, and believed until its lease has run out. A connected one of which the
shell is not told when its process ends gives signs of life; it ends when it was silent for longer than its lease.
"""

from __future__ import annotations

from collections.abc import Callable

from registry._attachments import Attachment, Client


class Leases:
    """The sessions of a host, and which of them live on a lease.

    Attributes:
        lease: How long a session is believed that is silent, or has no connection, in seconds.
        clients: The sessions, by their keys.
    """

    def __init__(self, lease: float) -> None:
        self.lease = lease
        self.clients: dict[bytes, Client] = {}
        self._suspended: dict[bytes, None] = {}
        self._leased: dict[bytes, None] = {}  # connected, and to give signs of life

    def end(self, client: Client, now: float) -> None:
        """End a session."""
        raise NotImplementedError

    def suspend(self, client: Client, until: float) -> None:
        """Believe a session until a time; it ends then, unless it is resumed."""
        if client.key in self.clients:
            client.expires = until
            self._suspended[client.key] = None

    @property
    def believes(self) -> bool:
        """Whether any session lives on its lease, so that it must be judged in time."""
        return bool(self._suspended or self._leased)

    def judge(
        self, now: float, is_behind: Callable[[Attachment], bool] = lambda attachment: False
    ) -> list[tuple[Client, Attachment | None]]:
        """End the sessions that have been silent, or without a connection, for longer than their lease.

        To be called when everything that had come by `now` has been taken.

        Args:
            now: Seconds since 1970.
            is_behind: Tells whether a connection has brought what has not been taken yet: its session is alive.

        Returns:
            The sessions that were ended, with their connections; the shell closes these.
        """
        ended: list[tuple[Client, Attachment | None]] = []
        for key in list(self._suspended):
            client = self.clients[key]
            if client.expires is not None and client.expires <= now:
                self.end(client, now)
                ended.append((client, None))
        for key in list(self._leased):
            client, attachment = self.clients[key], self.clients[key].attachment
            if client.heard + self.lease > now:
                continue
            if attachment is not None and is_behind(attachment):
                client.heard = now
                continue
            self.end(client, now)
            ended.append((client, attachment))
        return ended

    def next_judgement(self) -> float | None:
        """Return when a lease runs out next, or None."""
        times = [self.clients[key].heard + self.lease for key in self._leased]
        times += [until for key in self._suspended if (until := self.clients[key].expires) is not None]
        return min(times, default=None)

    def credit(self, seconds: float, now: float) -> None:
        """Make every lease longer, up to a whole one from now: for so long the server itself could hear nobody."""
        for key in self._leased:
            client = self.clients[key]
            client.heard = max(client.heard, min(now, client.heard + seconds))
        for key in self._suspended:
            client = self.clients[key]
            if client.expires is not None:
                client.expires = max(client.expires, min(now + self.lease, client.expires + seconds))
