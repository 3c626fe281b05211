"""How a session gets onto a connection, and what becomes of it where it cannot go on.

A new connection of a session has the same key and the next generation, which fences the old one. First come the cancels
of calls that were given up, then everything unanswered again, in order; the server answers what has run from memory.

Where the server does not know the session any more, it is lost with everything that it held. Who is told what: waits,
reads and calls not yet sent get `StateLost`, changes sent and unanswered `OutcomeUnknown`, calls inside a ``with``
`LockLost`; if nobody was told, the next call gets `StateLost` once. A session that never changed anything is told
nothing.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from time import monotonic

from registry import __version__, _peers, _shelf, _wire, hosting
from registry._line import Line
from registry._pending import AgainError, Pending
from registry._transport import DeadlinePassed, Dialed, Greeting, Transport, attached, clock, command, is_gone
from registry._wire import Kind
from registry._words import Mapped
from registry.errors import (
    AccessDenied,
    LockLost,
    OutcomeUnknown,
    RegistryError,
    ServerNotFound,
    StaleServer,
    StateLost,
)

BACKOFF = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)  # seconds between attempts to connect


class Joining(Line):
    """A session, as far as it comes onto connections and is lost. What it is made of is told in `_link`."""

    key: bytes
    address: str
    closed: bool
    greeting: Greeting | None
    same_user: bool
    lease: float
    listeners: dict[int, Callable[[str], object]]
    _connect_now: Callable[[float, bool], Dialed]
    _label: str
    _code: dict[str, str]
    _known: bool
    _life: bytes
    _broke: int
    _why: str
    _taken: list[Pending]
    _told: bool
    _tell: Exception | None
    _untold: Exception | None
    _defined: dict[int, None]

    @property
    def label(self) -> str:
        """The server, for errors."""
        raise NotImplementedError

    def _check_open(self) -> None:
        raise NotImplementedError

    def _deadline(self, timeout: float | None) -> float | None:
        raise NotImplementedError

    def _is_relying(self) -> bool:
        raise NotImplementedError

    def _send(self, slot: Pending, remaining: float | None = None) -> None:
        raise NotImplementedError

    def _send_cancel(self, slot: Pending, *, undo: bool) -> None:
        raise NotImplementedError

    def _look_after(self, transport: Transport | None = None) -> None:
        """Have somebody see to what must go on while nobody calls; `transport` is the connection that is new."""
        raise NotImplementedError

    def _connect(self, deadline: float | None) -> None:
        """As the leader: make a connection, and bring the session onto it.

        Raises:
            ServerNotFound: No server by the deadline. Calls that were sent are told that their outcome is unknown.
        """
        self._check_open()
        if hosting._current.get() is not None:
            raise RuntimeError(
                f"a hosted object cannot connect to {self.address} within a call: it might wait for itself; "
                "return what is needed instead, or declare the object threaded"
            )
        limit = self._deadline(None)
        if deadline is not None:
            limit = deadline if limit is None else min(limit, deadline)
        resume = self._known
        try:
            dialed = self._dial(limit if limit is not None else float("inf"), resume)
        except ServerNotFound as error:
            if resume:
                self._lose(OutcomeUnknown, str(error.reason), server_gone=error)
            raise
        self._meet(dialed, limit)

    def _meet(self, dialed: Dialed, limit: float | None) -> None:
        """As the leader: bring the session onto a connection that has just been made."""
        self.greeting = dialed.greeting
        try:
            self._attach(dialed, limit)
            self._broke = 0
        except BaseException as error:
            self._break(dialed.transport)
            if not is_gone(error):
                raise
            # It broke at once. The next turn tries again, the less eagerly the more often that happens.
            self._broke += 1
            if self._broke > 1:
                self._pause(BACKOFF[min(self._broke, len(BACKOFF)) - 1])

    def _take_leave(self, transport: Transport) -> None:
        """Have the server forget a session that it may have begun, and that nobody here knows to have begun."""
        try:
            transport.send(_wire.pack(Kind.GOODBYE, b"", generation=self._generation))
        except OSError:
            pass  # it has not begun, or lives on its lease

    def _dial(self, limit: float, resume: bool) -> Dialed:
        """Connect, again and again while a resume may still find its server."""
        attempt = 0
        reason = "nothing answered in time"
        while True:
            try:
                return self._connect_now(limit, resume)
            except DeadlinePassed as error:
                raise ServerNotFound(self.address, str(error) or reason) from error
            except (ServerNotFound, OSError) as error:
                if not (isinstance(error, ServerNotFound) or is_gone(error)):
                    raise
                reason = str(error.reason) if isinstance(error, ServerNotFound) else str(error)
                left = limit - monotonic()
                if not resume or left <= 0:
                    raise ServerNotFound(self.address, reason) from error
                pause = BACKOFF[min(attempt, len(BACKOFF) - 1)]
                attempt += 1
                self._pause(min(pause, left))

    def _pause(self, seconds: float) -> None:
        """Wait before the next attempt."""
        threading.Event().wait(seconds)

    def _attach(self, dialed: Dialed, limit: float | None) -> None:
        """Say which session this is; cancels go first, then what is unanswered, in order."""
        transport = dialed.transport
        reader = _wire.Reader()
        reader.feed(dialed.leftover)
        # Drawn anew for each attempt: the server may have taken one whose answer never came.
        self._generation += 1
        files = dialed.greeting.files if dialed.same_user and self.files_work else ""
        files = files if _shelf.is_visible(files) else ""
        hello = _wire.Attach(
            key=self.key,
            pid=os.getpid(),
            host=_peers.machine(),
            command=command(),
            label=self._label,
            version=__version__,
            acknowledged=self._acknowledged,
            code=self._code,
            resumes=self._known,
            life=self._life,
            applied=self._applied,
            sent=self._next - 1,
            files=bool(files),
        )
        sent = clock()
        transport.send(_wire.pack(Kind.ATTACH, _wire.encode(hello), generation=self._generation))
        try:
            answer = attached(transport, reader, limit, self.address)
        except BaseException:
            if not self._known:
                self._take_leave(transport)
            raise
        if answer.denied:
            raise AccessDenied(answer.denied, self.label)
        if self._known and not answer.resumed:
            self._lose(StateLost, answer.reason)
            transport.close()
            return
        self.same_user = dialed.same_user
        if answer.stale:
            warnings.warn(StaleServer(answer.stale), stacklevel=2)
        with self._sending:
            if self.closed:
                transport.close()
                return
            self._reader = reader
            self.files = files
            self._defined = {}
            self._known = True
            is_another, self._life = self._life != dialed.greeting.life, dialed.greeting.life
            self.lease, self.heard = answer.lease, sent
            told = answer.words
            # A file of ours that a server of another user names is none that it keeps for us.
            self.words = (
                None if told is None or not self.same_user else Mapped(told, self._generation, self._is_relying)
            )
            self._transport = transport
            self._note("connected", transport)
            for slot in list(self._pending.values()):
                if slot.unattended:
                    self._dismiss(slot)  # where an exception kept its reply from that
            # What was given up is unanswered even where its reply came in that very moment.
            unanswered = [slot for slot in list(self._pending.values()) if slot.abandoned or not slot.done]
            calls = [slot for slot in unanswered if not (slot.abandoned or slot.settling)]
            for slot in unanswered:
                if slot.abandoned or slot.settling:
                    self._send_cancel(slot, undo=slot.abandoned)
            if is_another and self._unlogged:
                self._tell_unlogged(calls)
            for slot in calls:
                if self._transport is transport:
                    self._send(slot)
        if self.lease or self.listeners or dialed.greeting.durable:
            self._look_after(transport)

    def _lose(self, kind: type[RegistryError], reason: str, server_gone: ServerNotFound | None = None) -> None:
        """The session is lost. Tell those who wait, or the next call; then begin a new one."""
        changed = self._acknowledged > 0 or bool(self._taken)
        told = self._told
        with self._sending:
            for slot in list(self._pending.values()):
                if slot.abandoned or slot.unattended or slot.done:
                    continue  # its thread may take it out at this moment
                if slot.insisting:
                    slot.failure = StateLost(reason, self.label)  # what it gives back is lost, as its caller will say
                    told = True
                    self._wake(slot)
                    continue
                unknown = slot.sent and not slot.readonly and not (slot.waiting and kind is StateLost)
                grants = slot.fields.get(_wire.GRANTS) if slot.fields is not None else None
                if grants is not None:
                    typeid, name, _ = _wire.decode_grants(grants)[-1]
                    also = "; whether the call took effect is unknown" if unknown else ""
                    slot.failure = LockLost(f"{typeid}:{name}", reason + also, self.label)
                elif unknown:
                    slot.failure = OutcomeUnknown(slot.title, reason, self.label)
                elif server_gone is not None:
                    slot.failure = server_gone
                elif changed and not self._told:
                    slot.failure = StateLost(reason, self.label)
                else:
                    slot.failure = AgainError()
                    self._wake(slot)
                    continue
                told = True
                self._wake(slot)
            self._pending = {}
            self._taken = []
            self._new_session()
            self._why = reason
            self._note("lost")
            if changed and told:
                self._untold = StateLost(reason, self.label)
            elif changed:
                self._tell = StateLost(reason, self.label)
