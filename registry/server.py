"""The server: an event loop that feeds the engine from sockets.

Two protocols are spoken on one port. The server opens as a stock `multiprocessing` manager does; what the client
answers tells which it is (`_auth`). A native client's frames go to the `Host`, a stock client's requests to `_stock`.

Life of a native call: bytes arrive in `_Connection.data_received`, are cut into frames, at most 64 or one millisecond
of them in a turn, and go through `Host.receive` into the engine; the outputs of the turn leave in one write for each
connection. A process that ends is noticed by its pidfd: what it had sent is read to the end, then its session ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import signal
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from registry import __version__, _addresses, _peers, _plugins, _wire
from registry._addresses import Place
from registry._auth import ServerHandshake
from registry._host import Attachment, Client, Host, Identity
from registry._stock import StockConnection, StockSessions
from registry._threads import ThreadedObjects
from registry._wire import Kind, ProtocolError
from registry.errors import AccessDenied

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from typing_extensions import Self

__all__ = ["ManagerServer"]

log = logging.getLogger("registry")

HANDSHAKE = 10.0  # seconds that a peer may take to show the key
FRAMES_A_TURN = 64
SECONDS_A_TURN = 0.001
UNSENT = 1 << 20  # bytes of output that may wait before reading from their reader is paused
STUCK = 30.0  # seconds without progress after which a peer that does not read is cut
STALL = 0.1  # seconds by which a timer is late when the loop, or the machine, has stood still
FRESHNESS = 1.0  # seconds between two looks at the files of the plugins
IDLE_CHECK = 60.0


class ManagerServer:
    """Host shared objects for other processes.

    Args:
        address: A name, a URL (``unix:///path``, ``tcp://host:port``), or a (host, port) tuple. None: ``"default"``.
        authkey: The secret that clients must know. None is the file named by ``REGISTRY_AUTHKEY_FILE``, else the key
            file in the server's own directory, made at first need.
        plugins: What to serve besides the installed plugins: names, modules, files, objects with hooks or declarations.
        log: Where events are kept; ``"memory"`` keeps none.
        state: The directory of what survives the server. None: its own directory.
        trust: Whom pickles are taken from: ``"uid"``, processes of this user on this host; ``"key"``, whoever has
            the key, who may then run code here.
        lease: Seconds that a session without a connection is believed to live.
        insecure_network: Allow an address that other hosts can reach, without encryption.

    Raises:
        AccessDenied: The address can be reached from other hosts, and nothing allows that.
        OSError: The address is in use.
    """

    def __init__(
        self,
        address: str | tuple[str, int] | None = None,
        authkey: bytes | str | None = None,
        *,
        plugins: Iterable[Any] | _plugins.Plugins | None = None,
        log: Literal["memory"] = "memory",
        state: str | os.PathLike[str] | None = None,
        trust: Literal["uid", "key"] = "uid",
        lease: float = 30.0,
        insecure_network: bool = False,
    ) -> None:
        self._address = _addresses.parse(address)
        if self._address.kind not in ("unix", "tcp"):
            raise ValueError(f"a server listens at a name, unix:///path or tcp://host:port, not at {self._address}")
        if log != "memory":
            raise ValueError(f"log must be 'memory', not {log!r}")
        if trust not in ("uid", "key"):
            raise ValueError(f"trust must be 'uid' or 'key', not {trust!r}")
        if not lease > 0:
            raise ValueError(f"lease must be a number of seconds above 0, not {lease!r}")
        if not (self._address.is_local or insecure_network):
            raise AccessDenied(
                f"{self._address} can be reached from other hosts, and nothing is encrypted there; bind 127.0.0.1, or "
                "say insecure_network=True (serve --insecure-network) if the network itself is trusted"
            )
        self._given_key = authkey.encode() if isinstance(authkey, str) else authkey
        self.plugins = (
            plugins if isinstance(plugins, _plugins.Plugins) else _plugins.load(extra=list(plugins or ())).required()
        )
        self.trust = trust
        self.lease = lease
        self.idle_limit: float | None = None
        self.notes: dict[str, Any] = {}
        self.on_ready: Callable[[], None] | None = None
        self._state = Path(state) if state is not None else None
        self._directory: str | None = None  # instead of the one that belongs to the address
        self._listener: socket.socket | None = None
        self._accepting: socket.socket | None = None  # the loop's own descriptor of the listener
        self._lock: _addresses.ServerLock | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._stopped = threading.Event()
        self._connections: set[_Connection] = set()
        self._watched: dict[bytes, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._freshness = (0.0, "")
        self._idle_since: float | None = None
        self._offset = time.time() - time.monotonic()
        self.authkey = b""
        self.host: Host
        self.stock: StockSessions

    # -- life

    @property
    def address(self) -> str | tuple[str, int]:
        """Where it listens, as `multiprocessing` writes addresses; with the real port once it does."""
        return self._address.stock_form

    @property
    def url(self) -> str:
        """Where it listens, as a URL."""
        return str(self._address)

    def open(self) -> None:
        """Bind and listen; connections wait until `run` or `start`. Does nothing when it is open."""
        if self._listener is not None:
            return
        since = time.time()
        if self._address.kind == "tcp":
            self._listener = self._listen_tcp()
        place = Place(self._address, self._directory)
        try:
            place.ensure()
            self._take_lock(place)
            self.authkey = self._find_key(place)
            epoch, life = self._begin(place, since)
            if self._listener is None:
                self._listener = _listen_unix(Path(self._address.path or ""))
            if self._lock is not None:
                info = {"pid": os.getpid(), "since": since, "address": self.url}
                self._lock.write_info({**info, **self.notes})
        except BaseException:
            self._release()
            raise
        threads = ThreadedObjects(self._post)
        self.host = Host(
            self.plugins.declarations,
            Identity(
                address=self.url,
                name=self._address.name or self.url,
                pid=os.getpid(),
                since=since,
                host=_peers.machine(),
                version=__version__,
                python=platform.python_version(),
                epoch=epoch,
                life=life,
                plugins=self.plugins.fingerprint(),
            ),
            seed=os.urandom(32),
            now=self.now(),
            lease=self.lease,
            threads=threads,
            control={"stop": self._asked_to_stop},
            freshness=self._stale,
        )
        threads.host = self.host
        self._threads = threads
        self.stock = StockSessions(self)
        _servers.add(self)

    def run(self) -> None:
        """Serve until `stop`, SIGINT or SIGTERM. Blocks."""
        self.open()
        try:
            self._loop = loop = _new_loop()
            try:
                loop.run_until_complete(self._serve(loop))
            finally:
                self._loop = None
                loop.close()
        finally:
            self._threads.stop()
            self._release()
            self._stopped.set()

    def start(self) -> Self:
        """Serve on a thread of this process, and return once clients can connect."""
        if self._thread is not None:
            raise RuntimeError("this server has been started already")
        self.open()
        ready = threading.Event()
        self.on_ready = ready.set
        failures: list[BaseException] = []

        def run() -> None:
            try:
                self.run()
            except BaseException as error:
                if ready.is_set():
                    raise
                failures.append(error)
            finally:
                ready.set()

        self._thread = threading.Thread(target=run, name=f"registry {self.url}", daemon=True)
        self._thread.start()
        ready.wait()
        if failures:
            self._thread.join()
            raise failures[0]
        return self

    def stop(self, timeout: float = 5.0) -> None:
        """Stop: take no more connections, answer what has arrived, tell those who wait. May be called from any thread.

        Args:
            timeout: Seconds to wait for the end of the thread that `start` made.
        """
        loop = self._loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self._begin_stop)
            except RuntimeError:
                pass  # it has just ended by itself
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)
        elif loop is None:
            self._release()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # -- getting ready

    def _listen_tcp(self) -> socket.socket:
        host, port = self._address.host or "", self._address.port or 0
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            if os.name == "posix":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(1024)
        except OSError as error:
            listener.close()
            raise OSError(
                error.errno, f"cannot listen at {self.url}: {error.strerror}; is a server running there already?"
            ) from error
        if port == 0:
            self._address = _addresses.parse((host, listener.getsockname()[1]))
        return listener

    def _take_lock(self, place: Place) -> None:
        lock = _addresses.ServerLock(place.lock)
        if not lock.acquire():
            info = lock.read_info() or {}
            raise OSError(
                98,
                f"{self._address.label} is served already by pid {info.get('pid', '?')}; stop it, or take another name",
            )
        self._lock = lock

    def _find_key(self, place: Place) -> bytes:
        if self._given_key is not None or os.environ.get("REGISTRY_AUTHKEY_FILE"):
            return _addresses.find_authkey(self._given_key, self._address)
        return _addresses.load_key(place.key, create=True)

    def _begin(self, place: Place, since: float) -> tuple[int, bytes]:
        """Begin an epoch. Where no file can be kept there is none, and grants say that they have no token."""
        path = place.epoch
        if self._state is not None:
            self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._state / "epoch"
        try:
            return _addresses.EpochFile(path).begin(since)
        except PermissionError as error:
            log.warning("no epoch can be kept (%s); grants carry no fencing tokens", error)
            return 0, os.urandom(16)

    def _release(self) -> None:
        """Let go of the address."""
        _servers.discard(self)
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
            if self._address.kind == "unix":
                Path(self._address.path or "").unlink(missing_ok=True)
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    # -- the loop

    def now(self) -> float:
        """Return seconds since 1970 that never run backwards, whatever is done to the wall clock."""
        return self._offset + time.monotonic()

    async def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        self._stop = asyncio.Event()
        restore = self._take_signals(loop)
        if self._listener is None:
            raise RuntimeError("this server has been stopped")
        make = loop.create_unix_server if self._address.kind == "unix" else loop.create_server
        self._accepting = self._listener.dup()
        acceptor = await make(lambda: _Connection(self), sock=self._accepting)
        log.info("serving %s with %d types (pid %d)", self.url, len(self.plugins.declarations), os.getpid())
        if self.on_ready is not None:
            self.on_ready()
        if self.idle_limit is not None:
            loop.call_later(min(IDLE_CHECK, self.idle_limit), self._check_idle)
        try:
            await self._stop.wait()
        finally:
            acceptor.close()
            self.host.drain("the server was stopped")
            self.flush()
            for connection in list(self._connections):
                connection.end()
            # Let the last bytes leave: the transports close once their buffers are empty.
            for _ in range(100):
                if not self._connections:
                    break
                await asyncio.sleep(0.01)
            for pidfd in self._watched.values():
                loop.remove_reader(pidfd)
                os.close(pidfd)
            self._watched.clear()
            restore()
            log.info("stopped %s", self.url)

    def _take_signals(self, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
        """Make SIGINT and SIGTERM drain the server instead of raising in the middle of a step."""
        if threading.current_thread() is not threading.main_thread():
            return lambda: None
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        # What was ignored stays so, as under nohup: Ctrl-C does not end the server of a manager.
        before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}

        def drain(number: int, frame: FrameType | None = None) -> None:
            log.info("stopping on %s", signal.Signals(number).name)
            loop.call_soon_threadsafe(self._begin_stop)

        for number in before:
            try:
                loop.add_signal_handler(number, drain, number)
            except NotImplementedError:  # Windows
                signal.signal(number, drain)

        def restore() -> None:
            for number, handler in before.items():
                try:
                    loop.remove_signal_handler(number)
                except NotImplementedError:
                    pass
                signal.signal(number, handler)

        return restore

    def _begin_stop(self) -> None:
        if self._stop is not None:
            self._stop.set()

    def _asked_to_stop(self) -> int:
        """Answer the question `stop`: it happens once the answer has left."""
        if self._loop is not None:
            self._loop.call_soon(self._begin_stop)
        return os.getpid()

    def _post(self, function: Callable[[], None]) -> None:
        """Run something on the loop's thread, and send what comes out of it."""

        def turn() -> None:
            function()
            self.flush()

        loop = self._loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(turn)
            except RuntimeError:
                pass  # the loop has closed; nobody waits for this any more

    def flush(self) -> None:
        """End a turn: send what each connection has to send, and set the timer for what is due next."""
        dirty = self.host.dirty
        for attachment in dirty:
            outbox = attachment.outbox
            sink: _Connection | None = attachment.sink
            if sink is not None and outbox:
                sink.write(outbox[0] if len(outbox) == 1 else b"".join(outbox))
            outbox.clear()
        dirty.clear()
        due = self.host.next_due()
        if due is not None and self._loop is not None and (self._timer is None or due < self._timer_at):
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = due
            self._timer = self._loop.call_later(max(0.0, due - self.now()), self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        now = self.now()
        if now - self._timer_at > STALL:
            # The loop stood still, so that nobody could be heard: no lease may end by that.
            self.host.excuse(now)
        self.host.advance(now)
        self.flush()

    def _check_idle(self) -> None:
        """Stop a server that was started on demand, once it has had nothing to do for `idle_limit`."""
        if self._loop is None or self.idle_limit is None:
            return
        if self.host.clients or self.host.objects():
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = time.monotonic()
        elif time.monotonic() - self._idle_since >= self.idle_limit:
            log.info("stopping: nothing shared and nobody connected for %.0f s", self.idle_limit)
            self._begin_stop()
            return
        self._loop.call_later(min(IDLE_CHECK, self.idle_limit), self._check_idle)

    def _stale(self, theirs: dict[str, str]) -> str:
        """Return a warning where the plugins' files, or those of the client, are not what is running here."""
        checked, text = self._freshness
        if time.monotonic() - checked >= FRESHNESS:
            changed = self.plugins.changed()
            text = f"{', '.join(changed[:3])} changed since {self._address.label} was started" if changed else ""
            self._freshness = (time.monotonic(), text)
        ours = self.host.identity.plugins
        other = [name for name, version in theirs.items() if name in ours and ours[name] != version]
        if other and not text:
            text = f"{self._address.label} runs other versions of {', '.join(other)} than this process"
        return f'{text}; "registry restart -a {self._address.label}" loads the new code' if text else ""

    # -- processes

    def watch(self, client: Client, pidfd: int) -> None:
        """End a session in the moment in which its process ends. Takes over the pidfd."""
        if client.key in self._watched or self._loop is None:
            os.close(pidfd)
            return
        self._watched[client.key] = pidfd
        self._loop.add_reader(pidfd, self._process_ended, client)

    def unwatch(self, client: Client) -> None:
        """Stop watching the process of a session that has ended otherwise."""
        pidfd = self._watched.pop(client.key, None)
        if pidfd is not None and self._loop is not None:
            self._loop.remove_reader(pidfd)
            os.close(pidfd)

    def _process_ended(self, client: Client) -> None:
        self.unwatch(client)
        attachment = client.attachment
        sink = attachment.sink if attachment is not None else None
        if sink is not None:
            sink.drain()
        if client.key in self.host.clients:
            log.info("process of %s has ended", client.label)
        self.host.end(client, self.now())
        self.flush()
        if sink is not None:
            sink.end()  # a child may hold the other end; nothing that it sends there is its own

    def close_inherited(self) -> None:
        """In a forked child: let go of what belongs to the server of the parent."""
        numbers = [connection.fileno() for connection in self._connections]
        numbers += self._watched.values()
        if self._accepting is not None:
            numbers.append(self._accepting.fileno())
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in numbers:
            if number >= 0:
                # Not closed: objects of the parent's loop would close the number again, whosever it is by then.
                os.dup2(nothing, number, inheritable=False)
        os.close(nothing)
        self._connections.clear()
        self._watched.clear()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        self._loop = None
        self._thread = None


class _Connection(asyncio.Protocol):
    """One connection: the handshake, then frames or stock requests."""

    def __init__(self, server: ManagerServer) -> None:
        self._server = server
        self._transport: Any = None
        self._handshake: ServerHandshake | None = ServerHandshake(server.authkey)
        self._reader = _wire.Reader()
        self._attachment: Attachment | None = None
        self._stock: StockConnection | None = None
        self._backlog = False
        self._blocked = False
        self._pidfd: int | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._peer: _peers.Peer

    # -- events of the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        server = self._server
        server._connections.add(self)
        sock = transport.get_extra_info("socket")
        try:
            if server._address.kind == "unix":
                self._peer, self._pidfd = _peers.of_unix(sock)
            else:
                self._peer = _peers.of_tcp(sock)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=UNSENT)
        if self._handshake is not None:
            self._transport.write(self._handshake.opening())
        self._deadline = asyncio.get_running_loop().call_later(HANDSHAKE, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        if self._handshake is not None:
            self._shake(data)
        elif self._stock is not None:
            self._stock.feed(data)
            self._server.flush()
        elif self._backlog or (frame := self._reader.whole(data)) is None:
            if self._backlog:
                self._reader.feed(data)
            else:
                self._turn()
        else:
            self._take(frame)
            self._server.flush()

    def connection_lost(self, error: Exception | None) -> None:
        server = self._server
        server._connections.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        if self._stock is not None:
            # A unix socket that is closed with bytes unread in it is reset.
            self._stock.lost(unread=isinstance(error, ConnectionResetError))
        elif self._attachment is not None:
            client = self._attachment.client
            server.host.detach(self._attachment, server.now())
            self._attachment.sink = None
            if client is not None and client.key not in server.host.clients:
                server.unwatch(client)
        if server._loop is not None:
            server.flush()

    def pause_writing(self) -> None:
        """The peer does not read: take nothing more from it, and cut it if that does not change."""
        self._blocked = True
        self._transport.pause_reading()
        unsent = self._transport.get_write_buffer_size()
        asyncio.get_running_loop().call_later(STUCK, self._check_progress, unsent)

    def resume_writing(self) -> None:
        self._blocked = False
        if self._backlog:
            asyncio.get_running_loop().call_soon(self._next_turn)
        else:
            self._transport.resume_reading()

    # -- what they do

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self._transport.write(data)

    def end(self) -> None:
        """Close, once everything has been sent."""
        self._transport.close()

    def fileno(self) -> int:
        """Return the descriptor of the socket, -1 when it is closed."""
        sock = self._transport.get_extra_info("socket")
        return sock.fileno() if sock is not None else -1

    @property
    def sock(self) -> Any:
        """The socket, as far as the loop shows it."""
        return self._transport.get_extra_info("socket")

    def drain(self) -> None:
        """Take everything that the peer has sent before it ended, from our own buffer and from the kernel's.

        A child of the peer may hold the socket, so there may be no end of the stream to wait for.
        """
        while self._backlog:
            self._turn()
        number = self.fileno()
        if number < 0:
            return
        sock = socket.socket(fileno=os.dup(number))
        try:
            while data := sock.recv(1 << 16, getattr(socket, "MSG_DONTWAIT", 0)):
                self.data_received(data)
                while self._backlog:
                    self._turn()
            if self._stock is not None:
                self._stock.lost()
        except BlockingIOError:
            pass  # that was all
        except ConnectionError:
            if self._stock is not None:
                self._stock.lost(unread=True)
        finally:
            sock.close()

    def _check_progress(self, unsent: int) -> None:
        if self._blocked and not self._transport.is_closing():
            now = self._transport.get_write_buffer_size()
            if now >= unsent:
                log.warning("cut a connection of %s that does not read", self._label)
                self._transport.abort()
            else:
                asyncio.get_running_loop().call_later(STUCK, self._check_progress, now)

    @property
    def _label(self) -> str:
        if self._attachment is not None and self._attachment.client is not None:
            return self._attachment.client.label
        return self._peer.host

    def _shake(self, data: bytes) -> None:
        handshake = self._handshake
        if handshake is None:
            return
        answer = handshake.receive(data)
        if answer:
            self._transport.write(answer)
            self._acknowledge()
        if handshake.outcome is None:
            return
        if self._deadline is not None:
            self._deadline.cancel()
        self._handshake = None
        server = self._server
        if handshake.outcome == "refused":
            log.warning("refused a connection from %s: %s", self._peer.host, handshake.reason)
            self._transport.close()
        elif handshake.outcome == "native":
            self._transport.write(handshake.accept(server.host.greeting))
            self._attachment = Attachment(domain=self._domain, label=self._peer_label, pid=self._peer.pid)
            self._attachment.sink = self
            if handshake.leftover:
                self.data_received(handshake.leftover)
        else:
            self._stock = server.stock.accept(self._peer, self._pidfd, self._domain, self)
            self._pidfd = None
            if handshake.leftover:
                self.data_received(handshake.leftover)

    def _acknowledge(self) -> None:
        """Have the next bytes acknowledged at once.

        The request of a stock client follows its last word of the handshake, and its kernel (Nagle's algorithm)
        would hold it back until our kernel's delayed acknowledgement: 40 ms for each of its many connections.
        """
        if self._peer.kind == "tcp" and hasattr(socket, "TCP_QUICKACK"):
            try:
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            except OSError:
                pass  # it has been reset, which the loop is about to say

    @property
    def _domain(self) -> str:
        """The trust domain of the peer: only processes of our own user on our own host are in ours."""
        uid = self._peer.uid
        if uid is None or not hasattr(os, "geteuid") or uid != os.geteuid():
            return ""
        return _peers.trust_domain(uid)

    @property
    def _peer_label(self) -> str:
        peer = self._peer
        return f"{peer.command or 'process'} (pid {peer.pid} on {peer.host})" if peer.pid is not None else ""

    def _take(self, frame: _wire.Frame) -> None:
        """Hand one frame to the host."""
        attachment = self._attachment
        if attachment is None:
            return
        try:
            self._server.host.receive(attachment, frame, self._server.now())
            if frame.kind == Kind.ATTACH:
                self._attached(attachment)
        except ProtocolError as error:
            self._refuse(str(error))

    def _turn(self) -> None:
        """Handle what has arrived, but not so much that others wait for it."""
        server, reader = self._server, self._reader
        until = time.monotonic() + SECONDS_A_TURN
        taken = 0
        try:
            while (frame := reader.next()) is not None:
                self._take(frame)
                taken += 1
                if taken >= FRAMES_A_TURN or time.monotonic() > until:
                    self._set_backlog(True)
                    asyncio.get_running_loop().call_soon(self._next_turn)
                    break
            else:
                self._set_backlog(False)
        except ProtocolError as error:
            self._refuse(str(error))
        server.flush()

    def _next_turn(self) -> None:
        if self._backlog and not self._blocked:
            self._turn()

    def _set_backlog(self, backlog: bool) -> None:
        if backlog == self._backlog:
            return
        self._backlog = backlog
        if self._transport.is_closing():
            return
        if backlog:
            self._transport.pause_reading()
        elif not self._blocked:
            self._transport.resume_reading()

    def _attached(self, attachment: Attachment) -> None:
        client = attachment.client
        if client is not None and self._pidfd is not None:
            self._server.watch(client, self._pidfd)
            self._pidfd = None
            if client.generation == 1:
                log.info("session of %s", client.label)

    def _refuse(self, reason: str) -> None:
        log.warning("closed the connection of %s: %s", self._label, reason)
        self._set_backlog(False)
        self._transport.write(_wire.pack(Kind.REFUSED, reason.encode()))
        self._transport.close()


def _listen_unix(path: Path) -> socket.socket:
    """Bind a unix socket that only this user can connect to; the lock says that a left-over one is nobody's."""
    if not hasattr(socket, "AF_UNIX"):
        raise OSError("this system has no unix sockets; serve tcp://127.0.0.1:PORT")
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(1024)
    except BaseException:
        listener.close()
        raise
    return listener


def _new_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop: uvloop's where it is installed, since round trips are most of what we do."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


_servers: weakref.WeakSet[ManagerServer] = weakref.WeakSet()


def _after_fork() -> None:
    for server in list(_servers):
        server.close_inherited()
    _servers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
