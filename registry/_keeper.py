"""The one thread of a process that looks after its sessions while nobody calls.

It is there for three things only, and without them it is never started: sessions that live on a lease, as over TCP;
sessions with a server that has a log, which may die and come back while its client makes no call; and programs that
listen to what becomes of their session.

Theory of operation. Every third of a lease it sends a heartbeat, which the server sends back. It reads only where no
caller does: a thread that waits for its reply reads for all, and takes the answers of heartbeats with the rest. So it
asks for the same lock as callers do, never waits for it, and holds it no longer than it takes to read what is there.
A connection that ends is made again by the next caller, or here, so that a suspended session is resumed though its
program makes no call. It tries once and then stands aside; a caller that wants to connect is never kept from it for
longer than one attempt, which is made for it too.

A session is *believed* for its lease, counted from when the last heartbeat that was answered had been sent: the server
counts from when it came, which is later. After that the session may have ended, whatever the program thinks it holds.
"""

from __future__ import annotations

import itertools
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from registry._transport import DeadlinePassed, Transport, clock
from registry._wire import STAMP, Kind
from registry.errors import RegistryError

if TYPE_CHECKING:
    from registry._link import Link

CONNECTED = "connected"
SUSPENDED = "suspended"
LOST = "lost"

BACKOFF = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
ATTEMPT = 5.0  # seconds that one attempt to connect may take
ASIDE = 0.01  # seconds for which it leaves a connection to the caller that reads from it
IDLE = 3600.0

_HUNG_UP = getattr(select, "POLLRDHUP", 0)


class Kept:
    """One session that the thread looks after.

    Attributes:
        state: What its listeners were told last; empty before its first connection.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self.state = ""
        # What happened, from the threads in which it did, and who listened then. Two threads may tell in the other
        # order.
        self._changes: deque[tuple[str, Transport | None, list[int]]] = deque()
        self._connection: Transport | None = None  # the one that `state` speaks of
        self._beat_at = 0.0
        self._beaten = 0.0
        self._attempts = 0
        self._attempt_at = 0.0
        self._aside_until = 0.0
        self._awaited: Transport | None = None  # the connection of which `poll` is to say something

    def note(self, change: str, connection: Transport | None = None) -> None:
        """Take a change of the session, and wake whoever tells of it."""
        self._changes.append((change, connection, list(self.link.listeners)))
        self.wake()

    def wake(self) -> None:
        """Have it looked at what has happened."""
        _keeper.wake()

    def begin(self, connected: Transport | None) -> None:
        """Look after the session from now on.

        Args:
            connected: The connection that it has just got, where its listeners are still to be told so.
        """
        link = self.link
        self._beat_at = monotonic() + link.lease / 3
        link.kept = self
        if connected is not None:
            self.note(CONNECTED, connected)
        elif link._transport is not None:
            self._connection, self.state = link._transport, CONNECTED

    @property
    def is_wanted(self) -> bool:
        """Whether there is still something to look after."""
        link = self.link
        if link.closed or link.kept is not self:
            return False
        if link.listeners or self._changes:
            return True
        durable = link.greeting is not None and link.greeting.durable
        return (link.lease > 0 or durable) and self.state != LOST

    @property
    def _ends(self) -> float:
        """When the session is believed no longer, by `clock`."""
        return self.link.heard + self.link.lease if self.link.lease and self.state != LOST else float("inf")

    def pause(self) -> float:
        """Return after how many seconds there is something to do, unless something happens before."""
        if self._changes:
            return 0.0
        now = monotonic()
        due = now + IDLE
        if self.link._transport is None:
            due = min(due, self._attempt_at)
        elif self.link.lease:
            due = min(due, self._beat_at)
        if self._aside_until > now:
            due = min(due, self._aside_until)
        return max(0.0, min(due - now, self._ends - clock()))

    def events(self) -> tuple[int, int]:
        """Return the descriptor to poll, -1 for none, and for which events."""
        self._awaited = connection = self.link._transport
        if connection is None or self._aside_until > monotonic():
            return -1, 0
        answers = self._beaten > self.link.heard or not _HUNG_UP
        return connection.fileno(), (select.POLLIN if answers else 0) | _HUNG_UP

    def take_turn(self, is_ready: bool, attempt: float) -> None:
        """Do what is to be done now, as `turn`. What goes wrong with it is logged, and tried again."""
        try:
            self.turn(is_ready, attempt)
        except Exception:  # one session must not end the others
            import logging

            logging.getLogger("registry").exception("cannot look after the session with %s", self.link.label)
            self._attempt_at = self._beat_at = self._aside_until = monotonic() + 1.0

    def turn(self, is_ready: bool, attempt: float) -> None:
        """Do what is to be done now.

        Args:
            is_ready: Whether the connection has something to read, or has ended.
            attempt: Seconds that an attempt to connect may take.
        """
        link = self.link
        if link.kept is not self:
            return  # gevent has replaced this thread, and its greenlet looks after the session
        self._tell_changes()
        connection = link._transport
        if connection is None:
            if monotonic() >= self._attempt_at and self.is_wanted:
                self._reconnect(attempt)
        else:
            self._attempts = 0
            self._attempt_at = 0.0
            if is_ready and connection is self._awaited and not self._read(connection):
                self._aside_until = monotonic() + ASIDE
            if link.lease and monotonic() >= self._beat_at:
                self._beat(connection)
        if clock() >= self._ends and self.is_wanted:
            if connection is not None:
                link._break(connection)
            self._tell_changes()
            self._tell(LOST, list(link.listeners))
        self._tell_changes()

    def _read(self, connection: Transport) -> bool:
        """Take what has come, unless a caller reads; False if one does."""
        link = self.link
        if not link._reading.acquire(False):
            return False
        try:
            if link._transport is connection:
                link._read(connection, 0.0)  # a deadline that has passed, so that it never waits
        except DeadlinePassed:
            pass  # somebody else has taken it
        finally:
            link._stop_leading()
        return True

    def _beat(self, connection: Transport) -> None:
        link, now = self.link, clock()
        self._beat_at = monotonic() + link.lease / 3
        # Where a caller is sending, or the connection takes nothing more, there are signs of life on their way.
        if _is_writable(connection.fileno()) and link._sending.acquire(False):
            try:
                if link._send_frame(Kind.HEARTBEAT, 0, STAMP.pack(now)):
                    self._beaten = now
            finally:
                link._sending.release()

    def _reconnect(self, attempt: float) -> None:
        """Bring the session onto a new connection, unless a caller does. Try once, and start no server anew."""
        link = self.link
        if not link._reading.acquire(False):
            self._attempt_at = monotonic() + ASIDE
            return
        try:
            if link._transport is None and not link.closed:
                deadline = monotonic() + attempt
                link._meet(link._connect_now(deadline, True), deadline)
        except (DeadlinePassed, RegistryError, OSError):
            pass  # the next attempt may find it, or a call that says what is wrong
        finally:
            link._stop_leading()
        if link._transport is None:
            self._attempts += 1
            pause = BACKOFF[min(self._attempts, len(BACKOFF) - 1)]
            # A server that hears and answers again has just found the session without a connection: be back in time.
            self._attempt_at = monotonic() + (min(pause, link.lease / 10) if link.lease else pause)

    def _tell_changes(self) -> None:
        while self._changes:
            change, connection, listeners = self._changes.popleft()
            if not change:
                continue
            if change == SUSPENDED:
                if connection is self._connection is not None:
                    self._connection = None
                    self._tell(SUSPENDED, listeners)
                continue
            if self._connection is not None:  # its end is still to be told
                self._tell(SUSPENDED, listeners)
            self._connection = connection
            self._beat_at = monotonic() + self.link.lease / 3
            self._tell(change, listeners)

    def _tell(self, state: str, listeners: list[int]) -> None:
        if state == self.state:
            return
        self.state = state
        for number in listeners:
            callback = self.link.listeners.get(number)
            try:
                if callback is not None:
                    callback(state)
            except BaseException:  # whatever a listener raises, the session is to live on
                import logging

                logging.getLogger("registry").exception("a listener of %s raised", self.link.label)


class Keeper:
    """The thread, and the sessions that it looks after."""

    def __init__(self) -> None:
        self.threads = threading.local  # those of its time, see `_current`
        self._lock = threading.Lock()
        self._all: dict[int, Kept] = {}
        self._thread: threading.Thread | None = None
        self._woken: socket.socket | None = None
        self._waker: socket.socket | None = None

    def keep(self, link: Link, connected: Transport | None = None) -> None:
        """Look after a session from now on, as long as there is a reason.

        Args:
            link: The session.
            connected: The connection that it has just got, where its listeners are still to be told so.
        """
        with self._lock:
            kept = link.kept
            if kept is None:
                kept = self._all[id(link)] = Kept(link)
                kept.begin(connected)
            if self._thread is None:
                self._woken, self._waker = socket.socketpair()
                self._woken.setblocking(False)
                self._waker.setblocking(False)
                thread = threading.Thread(target=self._run, name="registry keeper", daemon=True)
                self._thread = thread
                try:
                    thread.start()
                except RuntimeError:  # the interpreter is ending, and the session with it
                    self._stop()
                    return
        self.wake()

    def dismiss(self) -> None:
        """Have the thread end, and look after nobody any more."""
        self._all.clear()
        self.wake()

    def wake(self) -> None:
        """Have the thread look at what has happened."""
        waker = self._waker
        if waker is not None:
            try:
                waker.send(b"x")
            except OSError:
                pass  # enough wakes are on their way, or the thread has just ended

    def _stop(self) -> None:
        """Forget the thread, which ends or, in a forked child, is not there."""
        self._thread = None
        for end in (self._woken, self._waker):
            if end is not None:
                end.close()
        self._woken = self._waker = None

    def _run(self) -> None:
        while True:
            with self._lock:
                for number, kept in list(self._all.items()):
                    if not kept.is_wanted:
                        del self._all[number]
                        if kept.link.kept is kept:
                            kept.link.kept = None
                woken = self._woken
                if not self._all or woken is None:
                    self._stop()
                    return
                everyone = list(self._all.values())
            ready = self._wait(woken, everyone)
            for kept in everyone:
                # As long as a server that stands still may need, but no longer than the others can be silent.
                others = [other.link.lease / 3 for other in everyone if other is not kept and other.link.lease]
                kept.take_turn(kept in ready, min([ATTEMPT, kept.link.lease or ATTEMPT, *others]))

    def _wait(self, woken: socket.socket, everyone: list[Kept]) -> list[Kept]:
        """Wait until something is to be done; return the sessions whose connection says something."""
        numbers = {}
        for kept in everyone:
            number, events = kept.events()
            if number >= 0:
                numbers[number] = kept, events
        pause = min(kept.pause() for kept in everyone)
        polled = {number: events for number, (_, events) in numbers.items()}
        said = _poll({woken.fileno(): select.POLLIN, **polled}, pause)
        if woken.fileno() in said:
            try:
                while woken.recv(4096):
                    pass
            except OSError:
                pass  # that were all
        return [kept for number, (kept, _) in numbers.items() if number in said]


def _poll(events: dict[int, int], seconds: float) -> set[int]:
    """Wait for any of the descriptors; one that is closed meanwhile says nothing, or wakes us for nothing."""
    if hasattr(select, "poll"):
        poll = select.poll()
        for number, mask in events.items():
            poll.register(number, mask)
        return {number for number, _ in poll.poll(seconds * 1000)}
    try:
        return set(select.select(list(events), [], [], seconds)[0])
    except OSError:
        return set(events)


def _is_writable(number: int) -> bool:
    if number < 0:
        return False
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(number, select.POLLOUT)
        return bool(poll.poll(0))
    return bool(select.select([], [number], [], 0)[1])


_keeper = Keeper()
_numbers = itertools.count()


def _current() -> Keeper:
    """Return the keeper: another one since gevent has replaced threads, with a lock and a thread of gevent's."""
    global _keeper
    if _keeper.threads is not threading.local:
        before, _keeper = _keeper, Keeper()
        before.dismiss()
    return _keeper


def keep(link: Link, connected: Transport | None = None) -> None:
    """Look after a session of this process from now on, as long as there is a reason; see `Keeper.keep`."""
    _current().keep(link, connected)


def listen(link: Link, callback: Callable[[str], object]) -> Callable[[], None]:
    """Call `callback` with each new state of a session from now on; return what ends that."""
    number = next(_numbers)
    link.listeners[number] = callback
    if link._known:  # else the next connection sees to it
        link._look_after()

    def stop() -> None:
        link.listeners.pop(number, None)
        if link.kept is not None:
            link.kept.note("")

    return stop


def _after_fork() -> None:
    """In a forked child: no thread of the parent is here, and none of its sessions."""
    global _keeper
    inherited, _keeper = _keeper, Keeper()
    inherited._stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
