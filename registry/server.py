"""The server: an event loop that feeds the engine from sockets.

Two protocols are spoken on one port. The server opens as a stock `multiprocessing` manager does; what the client
answers tells which it is (`_auth`). A native client's frames go to the `Host`, a stock client's requests to `_stock`;
`_connection` is where they part.

Life of a native call: bytes arrive in `Connection.data_received`, are cut into frames, at most 8 or one millisecond
of them in a turn, and go through `Host.receive` into the engine; the outputs of the turn leave in one write for each
connection. A process that ends is noticed by its pidfd: what it had sent is read to the end, then its session ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs

from registry import __version__, _addresses, _peers, _plugins, _rights, _room, _shelf, _words
from registry._accepting import Acceptor
from registry._addresses import Place
from registry._attachments import Client, Identity
from registry._connection import Connection
from registry._door import Door, weakness
from registry._durability import Durability
from registry._host import Host
from registry._lifelines import Lifelines
from registry._limits import Limits
from registry._listening import listen_tcp, listen_unix
from registry._log import Recovered
from registry._process import garbage_spared, new_loop, signals_taken
from registry._pulse import Pulse, is_behind
from registry._rights import ADMIN, READ, WRITE
from registry._stock import StockSessions
from registry._threads import ThreadedObjects
from registry._tls import Renewed
from registry._tls_connection import TlsConnection
from registry._usage import usage
from registry.errors import AccessDenied, PluginError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["ManagerServer"]

log = logging.getLogger("registry")

FRESHNESS = 1.0  # seconds between two looks at the files of the plugins
IDLE_CHECK = 60.0


class ManagerServer:
    """Host shared objects for other processes.

    Args:
        address: A name, a URL (``unix:///path``, ``tcp://host:port``, ``tls://host:port``), or a (host, port) tuple.
            None: ``"default"``.
        authkey: The secret that clients must know; it gives the role ``"admin"``. None is the file named by
            ``REGISTRY_AUTHKEY_FILE``, else the key file in the server's own directory, made at first need.
        plugins: What to serve besides the installed plugins: names, modules, files, objects with hooks or declarations.
        log: What the shared objects survive: ``"memory"``, nothing; ``"process"``, the death of the server; ``"disk"``,
            loss of power, too. Both need a plugin's objects to be found again: what they are made by must be the same.
        state: The directory of what survives the server. None: its own directory.
        roles: Further keys, by the roles that they give: ``"read"``, whose clients look and change nothing, and
            ``"write"``, whose clients may all but delete, release by force and stop.
        trust: Whom pickles are taken from: ``"uid"``, processes of this user on this host; ``"key"``, whoever has
            `authkey`, who may then run code here.
        no_md5: Refuse stock `multiprocessing` clients of Python 3.11 and older, which show the key by HMAC-MD5.
        lease: Seconds that a session is believed to live that is silent over TCP, or has no connection.
        insecure_network: Allow an address that other hosts can reach, without encryption.
        tls: For ``tls://``, files in PEM: ``"cert"`` and ``"key"`` are what clients are shown; with ``"ca"`` they must
            show a certificate that one of these has signed. They are read again when they change.
        certificates: Roles by the names in clients' certificates, such as ``{"CN:dashboard": "read"}``, with a
            ``"ca"`` of `tls`. A client has the lesser of this role and that of its key; without any of the names, none.
        limits: What clients may take of it, by name: numbers, or texts such as ``"512M"``. Each has a default.

    Raises:
        AccessDenied: The address can be reached from other hosts, and nothing allows that; two roles have one key; when
            it opens, a file of TLS cannot be used, or others can read the key.
        OSError: The address, or the directory of the log, is in use.
        CodeChanged: The log holds events of an unclean end that other code has brought about.
        RegistryError: The log is damaged.
    """

    def __init__(
        self,
        address: str | tuple[str, int] | None = None,
        authkey: bytes | str | None = None,
        *,
        plugins: Iterable[Any] | _plugins.Plugins | None = None,
        log: Literal["memory", "process", "disk"] = "memory",
        state: str | os.PathLike[str] | None = None,
        roles: Mapping[str, bytes | str] | None = None,
        trust: Literal["uid", "key"] = "uid",
        no_md5: bool = False,
        lease: float = 30.0,
        insecure_network: bool = False,
        tls: Mapping[str, str | os.PathLike[str]] | None = None,
        certificates: Mapping[str, str] | None = None,
        limits: Limits | Mapping[str, object] | None = None,
    ) -> None:
        self._address = _addresses.parse(address)
        if self._address.kind not in ("unix", "tcp", "tls"):
            raise ValueError(
                f"a server listens at a name, unix:///path, tcp://host:port or tls://host:port, not at {self._address}"
            )
        self._tls_files = _addresses.served_tls(tls, self._address)
        self._certificates = _rights.checked(certificates or {}, bool(tls and "ca" in tls))
        if log not in ("memory", "process", "disk"):
            raise ValueError(f"log must be 'memory', 'process' or 'disk', not {log!r}")
        if trust not in ("uid", "key"):
            raise ValueError(f"trust must be 'uid' or 'key', not {trust!r}")
        if not lease > 0:
            raise ValueError(f"lease must be a number of seconds above 0, not {lease!r}")
        if not (self._address.is_local or self._address.kind == "tls" or insecure_network):
            raise AccessDenied(
                f"{self._address} can be reached from other hosts, and nothing is encrypted there; bind 127.0.0.1, "
                "serve tls://, or say insecure_network=True (serve --insecure-network) if the network itself is trusted"
            )
        self._given_key = authkey.encode() if isinstance(authkey, str) else authkey
        self._role_keys = _role_keys(roles or {})
        self.plugins = (
            plugins if isinstance(plugins, _plugins.Plugins) else _plugins.load(extra=list(plugins or ())).required()
        )
        self._refuse_private()
        self.trust = trust
        self.no_md5 = no_md5
        self.lease = lease
        self.limits = _room.chosen(Limits.of(limits))
        self.idle_limit: float | None = None
        self.gid: int | None = None  # of a group whose members may connect to the socket
        self.notes: dict[str, Any] = {}
        self.on_ready: Callable[[], None] | None = None
        self.on_stopping: Callable[[], None] | None = None
        self.log: Literal["memory", "process", "disk"] = log
        self._state = Path(state) if state is not None else None
        self._durability: Durability | None = None
        self._shelf: _shelf.Shelf | None = None
        self._words: _words.WordFile | None = None
        self._room: _room.ServersRoom | None = None
        self._is_stamping = False
        self._tls: Renewed | None = None
        self._directory: str | None = None  # instead of the one that belongs to the address
        self._listener: socket.socket | None = None
        self._accepting: socket.socket | None = None  # the loop's own descriptor of the listener
        self._acceptor: Acceptor | None = None
        self._lock: _addresses.ServerLock | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._stopped = threading.Event()
        self._connections: set[Connection] = set()
        self.lifelines = Lifelines(self._process_ended)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._pulse: Pulse | None = None
        self._freshness = (0.0, "")
        self._idle_since: float | None = None
        self._offset = time.time() - time.monotonic()
        self.door = Door(time.monotonic, self._later, self.limits.strangers or 1)
        self.domain = _peers.trust_domain(os.geteuid()) if hasattr(os, "geteuid") else ""
        self.keys: dict[str, bytes] = {}  # by the roles that they give
        self.host: Host
        self.stock: StockSessions

    # -- life

    @property
    def address(self) -> str | tuple[str, int]:
        """Where it listens, as `multiprocessing` writes addresses; with the real port once it does.

        Raises:
            ValueError: It speaks TLS, which `multiprocessing` does not; `url` tells where.
        """
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
        if self._address.path is not None and self._address.name is None:
            _addresses.check_socket(self._address.path, listening=True)
        if self._tls_files is not None:
            self._tls = Renewed(self._tls_files, self._address.label)
        if self._address.host is not None:
            self._listener = listen_tcp(self._address)
            if not self._address.port:
                self._address = attrs.evolve(self._address, port=self._listener.getsockname()[1])
        place = Place(self._address, self._directory)
        try:
            place.ensure()
            self._take_lock(place)
            if self.gid is None:
                _addresses.exclude(place)
            self.keys = {ADMIN: self._find_key(place), **self._role_keys}
            self._check_keys()
            if self.gid is not None:
                _addresses.admit(place, self.gid, with_key=not self._role_keys)
            self._room = self._measure()
            recovered = self._recover(place)
            if self._durability is not None:
                self.domain = self._durability.origin
            epoch, life = self._begin(place, since)
            if self._durability is not None:
                self._durability.begin(epoch, life)
            self._words = _words.begin(str(place.directory), epoch <= 1, log.info)
            if self._listener is None:
                self._listener = listen_unix(Path(self._address.path or ""), self.gid)
            if self._lock is not None:
                self._lock.write_info(self._info(since))
        except BaseException:
            self._release()
            raise
        self._shelf = shelf = self._open_shelf()
        if self._room is not None:
            self._room.shelf = shelf
        threads = self._open_threads()
        self.host = Host(
            {} if self._private else self.plugins.declarations,
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
                log=self.log,
                roles=tuple(self.keys),
                files=shelf.path if shelf is not None else "",
                realm=self.domain.partition("/")[2],
            ),
            seed=os.urandom(32),
            now=self.now(),
            lease=self.lease,
            limits=self.limits,
            threads=threads,
            control={
                "stop": self._asked_to_stop,
                "about": self._about,
                **({"log": self._durability.close_segment} if self._durability is not None else {}),
            },
            freshness=self._stale,
            warn=log.warning,
            abandoned=log.warning,
            withheld=log.error,
            engine=recovered.engine if recovered is not None else None,
            log=self._durability.log if self._durability is not None else None,
            files=shelf,
            words=self._words,
            others=self._durability.others if self._durability is not None else None,
            room=self._room,
        )
        self.host.usage = self._usage
        threads.host = self.host
        self._threads = threads
        self.stock = self._open_stock()
        _servers.add(self)
        if recovered is not None:
            self._resume(recovered)

    def run(self) -> None:
        """Serve until `stop`, SIGINT or SIGTERM. Blocks."""
        self.open()
        durability = self._durability
        try:
            # On a thread of somebody's process the collector is not ours to tell, and plain objects may need it.
            with garbage_spared() if self._thread is None and not self._private else nullcontext():
                self._loop = loop = new_loop()
                try:
                    loop.run_until_complete(self._serve(loop))
                finally:
                    self._loop = self._pulse = None
                    loop.close()
                if durability is not None:
                    durability.finish()
        finally:
            if self._lock is not None:
                # Not killed: who waits for this server does not start it again.
                self._lock.write_info({**self._info(self.host.identity.since), "ended": time.time()})
            self._threads.stop()
            self._release()
            self._stopped.set()
        if durability is not None and durability.failure is not None:
            raise durability.failure

    def start(self) -> Self:
        """Serve on a thread of this process, and return once clients can connect."""
        if self._thread is not None:
            raise RuntimeError("this server has been started already")
        monkey = sys.modules.get("gevent.monkey")
        if monkey is not None and monkey.is_module_patched("threading"):
            raise RuntimeError(
                "gevent has replaced threads here, and an event loop in a greenlet would stop all others; "
                f'run the server in a process of its own: "registry serve --address {self.url}"'
            )
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

    _private = False  # whether it serves types with a `proxy`, see `_private`

    def _refuse_private(self) -> None:
        for typeid, declaration in self.plugins.declarations.items():
            if declaration.proxy is not None and not self._private:
                reason = f"its {typeid!r} is for one program and its children; registry.Manager() starts their server"
                raise PluginError(self.plugins.origin(typeid).name, reason)

    def _open_threads(self) -> Any:
        return ThreadedObjects(self._post, self.limits)

    def _open_stock(self) -> Any:
        return StockSessions(self)

    def _take_lock(self, place: Place) -> None:
        lock = _addresses.ServerLock(place.lock)
        if not lock.succeed():
            info = lock.read_info() or {}
            raise OSError(
                98,
                f"{self._address.label} is served already by pid {info.get('pid', '?')}; stop it, or take another name",
            )
        self._lock = lock

    def _info(self, since: float) -> dict[str, Any]:
        """Return what the lock file tells of this server."""
        process = _peers.myself()
        return {"pid": os.getpid(), "process": process, "since": since, "address": self.url, **self.notes}

    def _find_key(self, place: Place) -> bytes:
        if self._given_key is not None or os.environ.get("REGISTRY_AUTHKEY_FILE"):
            return _addresses.find_authkey(self._given_key, self._address)
        return _addresses.load_key(place.key, create=True)

    def _check_keys(self) -> None:
        """Refuse a key that strangers can guess where there are any, and say so where there are none.

        Raises:
            AccessDenied: That, or one key for two roles.
        """
        cure = "take another one, such as of: python -c 'import secrets; print(secrets.token_hex(32))'"
        for role, key in self.keys.items():
            what = f"the key for {self._address.label}" if role == ADMIN else f"the key of the role {role!r}"
            other = next((each for each in self.keys if each != role and self.keys[each] == key), None)
            if other is not None:
                raise AccessDenied(
                    f"the roles {role!r} and {other!r} of {self._address.label} have one key, which cannot tell them "
                    f"apart; {cure}"
                )
            fault = weakness(key)
            if fault and not self._address.is_local:
                raise AccessDenied(f"{what}, which other hosts can reach, {fault}; {cure}")
            if fault:
                log.warning("%s %s; %s", what, fault, cure)

    def _begin(self, place: Place, since: float) -> tuple[int, bytes]:
        """Begin an epoch. Where no file can be kept there is none, and grants say that they have no token."""
        try:
            return _addresses.EpochFile(self._epoch_path(place)).begin(since)
        except PermissionError as error:
            if self._durability is not None:
                raise
            log.warning("no epoch can be kept (%s); grants carry no fencing tokens", error)
            return 0, os.urandom(16)

    def _epoch_path(self, place: Place) -> Path:
        if self._state is None:
            return place.epoch
        self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._state / "epoch"

    # -- the log

    def _recover(self, place: Place) -> Recovered | None:
        """Read the log, if there is one, and return what it tells."""
        if self.log == "memory":
            return None
        self._durability = Durability(
            self._state or place.state,
            _addresses.EpochFile(self._epoch_path(place)),
            self.plugins,
            disk=self.log == "disk",
            label=self._address.label,
            post=self._post,
            soon=self._soon,
            flush=self.flush,
            failed=self._cannot_go_on,
        )
        found = self._durability.recover()
        # A clock that was set back must not make the time of the objects stand still.
        self._offset = max(self._offset, found.engine.now - time.monotonic())
        return found

    def _resume(self, recovered: Recovered) -> None:
        """Go on from what the log has told, before anybody connects."""
        for each in recovered.diverged:
            log.error("%s", each)
            self.host.halt(each.typeid, each.name, str(each), self.now())
        for client in list(self.host.clients.values()):
            ended, pidfd = _peers.find(client.process)
            if ended:
                log.info("process of %s has ended while the server was down", client.label)
                self.host.end(client, self.now())
            elif client.domain not in ("", self.domain):
                log.info("%s belongs to where the log comes from", client.label)
                self.host.end(client, self.now())
                if pidfd is not None:
                    os.close(pidfd)
            elif pidfd is not None:
                self.lifelines.watch(client, pidfd)
        self.stock.recall(self.lifelines)

    def _cannot_go_on(self) -> None:
        """Answer nobody any more: what was not acknowledged may be lost, and clients are to find that out."""
        for connection in list(self._connections):
            connection.abort()
        self._begin_stop()

    def _release(self) -> None:
        """Let go of the address."""
        _servers.discard(self)
        self.lifelines.end()
        durability, self._durability = self._durability, None
        if durability is not None:
            durability.release()
        shelf, self._shelf = self._shelf, None
        if shelf is not None:
            shelf.close()
        words, self._words = self._words, None
        if words is not None:
            words.close()
        room, self._room = self._room, None
        if room is not None:
            room.close()
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
            if self._address.kind == "unix":
                Path(self._address.path or "").unlink(missing_ok=True)
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def _measure(self) -> _room.ServersRoom | None:
        """Begin to count what memory this process takes, if the system tells."""
        try:
            return _room.ServersRoom(self.limits.stored, log=self.log != "memory")
        except (AttributeError, OSError, ValueError) as error:
            if self.limits.stored is not None:
                log.warning("the limit 'stored' cannot be kept, since this system does not tell of memory: %s", error)
            return None

    def _open_shelf(self) -> _shelf.Shelf | None:
        """Make the directory of large values, for clients that see it."""
        shelf = _shelf.Shelf.open()
        if shelf is not None and shelf.size < _shelf.SMALL_TMPFS:
            log.warning(
                "%s has %d MB: large values that find no room there go through the socket",
                _shelf.ROOT,
                shelf.size >> 20,
            )
        return shelf

    # -- the loop

    def now(self) -> float:
        """Return seconds since 1970 that never run backwards, whatever is done to the wall clock."""
        return self._offset + time.monotonic()

    async def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._listener is None:
            raise RuntimeError("this server has been stopped")
        self._stop = asyncio.Event()
        self._accepting = self._listener.dup()
        with signals_taken(loop, self._begin_stop):
            await self._serve_until(self._stop, loop, self._accepting)
        log.info("stopped %s", self.url)

    async def _serve_until(
        self, stop: asyncio.Event, loop: asyncio.AbstractEventLoop, accepting: socket.socket
    ) -> None:
        self.lifelines.begin(loop)
        self._pulse = Pulse(loop, self.host, self.now, self._judge)
        durability = self._durability
        acceptor: Acceptor | asyncio.AbstractServer | None = None
        try:
            if durability is not None:
                await durability.serve(self.host, stop)
            try:
                acceptor = self._acceptor = Acceptor(loop, accepting, self._connection)
            except NotImplementedError:  # Windows
                acceptor = await loop.create_server(self._connection, sock=accepting)
            log.info("serving %s with %d types (pid %d)", self.url, len(self.plugins.declarations), os.getpid())
            if self.on_ready is not None:
                self.on_ready()
            if self.idle_limit is not None:
                loop.call_later(min(IDLE_CHECK, self.idle_limit), self._check_idle)
            await stop.wait()
        finally:
            if self.on_stopping is not None:
                self.on_stopping()
            self._acceptor = None
            if isinstance(acceptor, Acceptor):
                await acceptor.close()
            elif acceptor is not None:
                acceptor.close()
            else:
                accepting.close()
            if durability is None:
                self.host.drain("the server was stopped")  # else they come back, and wait on
            self.flush()
            if durability is not None:
                await durability.settle()
            for connection in list(self._connections):
                connection.end()
            # Let the last bytes leave: the transports close once their buffers are empty.
            for _ in range(100):
                if not self._connections:
                    break
                await asyncio.sleep(0.01)
            self.lifelines.end()

    def _connection(self) -> Connection:
        """Return what serves a peer that has just connected."""
        return Connection(self) if self._tls is None else TlsConnection(self, self._tls.current())

    def role_of(self, role: str, certificate: Mapping[str, Any] | None) -> str:
        """Return what a peer may do: the lesser of what its key and its certificate give; empty for nothing."""
        if not self._certificates:
            return role
        given = _rights.of_certificate(certificate or {}, self._certificates)
        return _rights.lesser(role, given) if given is not None else ""

    def _begin_stop(self) -> None:
        if self._stop is not None:
            self._stop.set()

    def _asked_to_stop(self) -> int:
        """Answer the question `stop`: it happens once the answer has left."""
        if self._loop is not None:
            self._loop.call_soon(self._begin_stop)
        return os.getpid()

    def _about(self) -> dict[str, object]:
        """Answer the question `about`: what nobody but this process knows of it."""
        changed = self.plugins.changed()
        return {
            "python": sys.executable,
            "changed": changed,
            "code": {} if changed else self.plugins.code(),  # of the files, which are what was loaded
            "state": self._durability.path if self._durability is not None else "",
        }

    def _usage(self) -> list[list[object]]:
        """Tell how far the limits are used."""
        return usage(self.limits, self.host, self.door, self._threads, self._connections)

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

    def _later(self, seconds: float, function: Callable[[], object]) -> None:
        if self._loop is not None:
            self._loop.call_later(seconds, function)

    def _soon(self, function: Callable[[], None]) -> None:
        """Run something once what has come by now has been taken."""
        if self._loop is not None:
            self._loop.call_soon(function)

    def flush(self) -> None:
        """End a turn: send what each connection has to send, and set the timer for what is due next.

        With a log the turn's events are written first.
        """
        host = self.host
        if self._durability is not None:
            self._durability.end_turn()
        dirty = host.dirty
        for attachment in dirty:
            outbox = attachment.outbox
            sink: Connection | None = attachment.sink
            if sink is not None and outbox:
                sink.write_all(outbox)
            outbox.clear()
        dirty.clear()
        if self._pulse is not None and not self._pulse.is_ticking and host.believes:
            self._pulse.tick()
        if host.engine.deadlines.heap:
            self._set_timer(host.engine.next_due())

    def _set_timer(self, due: float | None) -> None:
        """Have what is due next done in time."""
        if due is not None and self._loop is not None and (self._timer is None or due < self._timer_at):
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = due
            self._timer = self._loop.call_later(max(0.0, due - self.now()), self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self.host.fire(self.now())
        self.flush()

    def why_unread(self, length: int, here: int) -> str:
        """Return why the arguments of a call are not to be kept; empty if they are. See `Bounds.why_unread`."""
        return self.host.bounds.why_unread(length, self.now(), here)

    def note_closed(self) -> None:
        """Take note that a connection has gone, with its descriptors: another one may be accepted."""
        if self._acceptor is not None and self._acceptor.is_paused:
            self._soon(self._acceptor.resume)

    def stamp(self) -> None:
        """Let the caches of clients answer, from now on for as long as there is any client."""
        if self._words is not None and not self._is_stamping:
            self._stamp_again()

    def _stamp_again(self) -> None:
        self._is_stamping = False
        if self._words is not None and self._loop is not None and self.host.clients:
            self._words.stamp()
            self._is_stamping = True
            self._loop.call_later(_words.PERIOD, self._stamp_again)

    # -- sessions that end by themselves

    def _judge(self) -> None:
        """End the sessions whose lease has run out; all that had come from them has been taken."""
        for client, attachment in self.host.judge(self.now(), is_behind):
            log.info("the lease of %s has run out", client.label)
            self.lifelines.unwatch(client)
            if attachment is not None and attachment.sink is not None:
                attachment.sink.abort()
        self.flush()

    def _process_ended(self, client: Client) -> None:
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

    def _stale(self, theirs: dict[str, str], is_insider: bool) -> str:
        """Return a warning where the plugins' files, or those of the client, are not what is running here.

        Where they lie is told to those only that may see into the server.
        """
        checked, text = self._freshness
        if time.monotonic() - checked >= FRESHNESS:
            changed = self.plugins.changed()
            text = f"{', '.join(changed[:3])} changed since {self._address.label} was started" if changed else ""
            self._freshness = (time.monotonic(), text)
        ours = self.host.identity.plugins
        other = [name for name, version in theirs.items() if name in ours and ours[name] != version]
        if other and not text:
            text = f"{self._address.label} runs other versions of {', '.join(other)} than this process"
        if text and not is_insider:
            return "the server runs other code than lies in its files now, or than this process does"
        return f'{text}; "registry restart -a {self._address.label}" loads the new code' if text else ""

    def close_inherited(self) -> None:
        """In a forked child: let go of what belongs to the server of the parent."""
        numbers = [connection.fileno() for connection in self._connections]
        numbers += self.lifelines.forget()
        if self._accepting is not None:
            numbers.append(self._accepting.fileno())
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in numbers:
            if number >= 0:
                # Not closed: objects of the parent's loop would close the number again, whosever it is by then.
                os.dup2(nothing, number, inheritable=False)
        os.close(nothing)
        self._connections.clear()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        if self._shelf is not None:
            self._shelf.close_inherited()
            self._shelf = None
        if self._durability is not None:
            self._durability.close_inherited()
            self._durability = None
        if self._words is not None:
            self._words.close_inherited()
            self._words = None
        if self._room is not None:
            self._room.close()
            self._room = None
        self._loop = None
        self._thread = None


_servers: weakref.WeakSet[ManagerServer] = weakref.WeakSet()


def _role_keys(roles: Mapping[str, bytes | str]) -> dict[str, bytes]:
    """Return the keys of the roles beside that of `authkey`.

    Raises:
        ValueError: There is no such role, or a key is empty.
        TypeError: A key is neither bytes nor text.
    """
    for role, key in roles.items():
        if role not in (READ, WRITE):
            raise ValueError(f"roles has keys for 'read' and 'write', and authkey is that of 'admin'; not {role!r}")
        if key is None:
            raise TypeError(f"the key of the role {role!r} must be bytes or text, not None")
    return {role: _addresses.find_authkey(key) for role, key in roles.items()}


def _after_fork() -> None:
    for server in list(_servers):
        server.close_inherited()
    _servers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
