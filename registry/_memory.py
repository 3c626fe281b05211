"""``memory://``: a server in this process, without a socket.

The same engine, host and frames as over a socket; what differs is how bytes get there. The engine runs on a
thread of its own, because a signal handler, which Python runs in the main thread, must never raise in the
middle of a step.
"""

from __future__ import annotations

import errno
import os
import platform
import queue
import threading
import time
from collections.abc import Iterable
from typing import Any

from registry import __version__, _peers, _plugins, _wire
from registry._attachments import Attachment, Identity
from registry._host import Host
from registry._threads import ThreadedObjects
from registry._transport import DeadlinePassed, Dialed, Greeting
from registry.errors import ServerNotFound


class MemoryServer:
    """A server life in this process, for one client.

    Args:
        plugins: As for a server: what to load besides what is installed.
    """

    def __init__(self, plugins: Iterable[Any] = ()) -> None:
        loaded = _plugins.load(extra=list(plugins)).required()
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._pid = os.getpid()
        self._readers: dict[int, _wire.Reader] = {}
        threads = ThreadedObjects(self._inbox.put)
        self.host = Host(
            loaded.declarations,
            Identity(
                address="memory://",
                name="memory://",
                pid=self._pid,
                since=time.time(),
                host=_peers.machine(),
                version=__version__,
                python=platform.python_version(),
                epoch=0,
                life=os.urandom(16),
                plugins=loaded.fingerprint(),
            ),
            seed=os.urandom(32),
            now=time.time(),
            threads=threads,
            warn=_warn,
        )
        threads.host = self.host
        self._threads = threads
        self._domain = _peers.trust_domain(os.geteuid()) if hasattr(os, "geteuid") else ""
        self._has_ended = False
        self._thread = threading.Thread(target=self._serve, name="registry memory://", daemon=True)
        self._thread.start()

    def dial(self, deadline: float, resume: bool) -> Dialed:
        """Connect, as `_transport.dial` does over a socket."""
        if self._pid != os.getpid():
            raise ServerNotFound("memory://", "it lives in the parent process; use a named server across a fork")
        transport = MemoryTransport(self, Attachment(domain=self._domain))
        return Dialed(transport, Greeting(self.host.greet(), "memory://"), b"", same_user=True)

    def stop(self) -> None:
        """End the server and its thread."""
        if self._pid == os.getpid():
            self._inbox.put(None)
            self._thread.join()
            self._threads.stop()

    def put(self, transport: MemoryTransport, data: bytes | None) -> None:
        """Hand bytes of a client to the engine's thread; None for the end of its stream."""
        # Not `is_alive`: where a signal handler raises in it, Python 3.11 takes a thread that runs for one that ended.
        if self._has_ended:
            raise BrokenPipeError(errno.EPIPE, "the memory:// server has stopped")
        self._inbox.put((transport, data))

    def _serve(self) -> None:
        try:
            self._run()
        finally:
            self._has_ended = True

    def _run(self) -> None:
        transports: dict[MemoryTransport, _wire.Reader] = {}
        clock = _Clock()
        while True:
            due = self.host.next_due()
            try:
                # However far off a deadline is: a wait of more than some centuries is refused.
                item = self._inbox.get(timeout=None if due is None else min(max(0.0, due - clock.now()), 3600.0))
            except queue.Empty:
                item = ()
            if item is None:
                break
            now = clock.now()
            if callable(item):
                item()
            elif item:
                transport, data = item
                reader = transports.setdefault(transport, _wire.Reader())
                self._take(transport, reader, data, now)
                if data is None:
                    del transports[transport]
            self.host.advance(clock.now())
            for attachment in self.host.dirty:
                attachment.sink.flush()
            self.host.dirty.clear()
        for transport in transports:
            transport.inbox.put(b"")

    def _take(self, transport: MemoryTransport, reader: _wire.Reader, data: bytes | None, now: float) -> None:
        if data is None:
            self.host.detach(transport.attachment, now)
            transport.inbox.put(b"")
            return
        reader.feed(data)
        try:
            for frame in reader:
                self.host.receive(transport.attachment, frame, now)
        except _wire.ProtocolError as error:
            transport.attachment.outbox.append(_wire.pack(_wire.Kind.REFUSED, str(error).encode()))
            self.host.dirty.append(transport.attachment)


class MemoryTransport:
    """A byte stream to a server in the same process."""

    def __init__(self, server: MemoryServer, attachment: Attachment) -> None:
        self._server = server
        self.attachment = attachment
        attachment.sink = self
        self.inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def send(self, data: bytes) -> None:
        self._server.put(self, data)

    def send_pieces(self, pieces: list[_wire.Buffer]) -> None:
        self._server.put(self, b"".join(pieces))

    def receive(self, deadline: float | None, most: int = 0) -> bytes:
        try:
            return self.inbox.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise DeadlinePassed from None

    def is_quiet(self) -> bool:
        return False

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        try:
            self._server.put(self, None)
        except BrokenPipeError:
            self.inbox.put(b"")

    def drop(self) -> None:
        """Nothing is shared with a forked child but memory that it has a copy of."""
        self.inbox.put(b"")

    def flush(self) -> None:
        """Send what the host has for this connection; on the engine's thread."""
        outbox = self.attachment.outbox
        if outbox:
            self.inbox.put(b"".join(outbox))
            outbox.clear()


def _warn(text: str) -> None:
    import logging  # rare, and heavy for a client

    logging.getLogger("registry").warning(text)


class _Clock:
    """Seconds since 1970 that never run backwards, whatever is done to the wall clock."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        return self._offset + time.monotonic()
