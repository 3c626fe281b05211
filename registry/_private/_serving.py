"""Connections of a private server: handed over by the loop, and served by a thread each."""

from __future__ import annotations

import logging
import os
import selectors
import socket
import threading
import traceback
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from registry import _peers, hosting
from registry._attachments import Client
from registry._framing import BadMessage, cut, frame, head
from registry._host import Host
from registry._leaves import Caller, Owner
from registry._lifelines import Lifelines
from registry._peers import Peer
from registry._private._table import Refused, Session, Table, answer
from registry._rights import ADMIN
from registry.hosting import GivenUp, Visit

if TYPE_CHECKING:
    import asyncio

log = logging.getLogger("registry")

# A value may be as large as memory allows, as between any two processes of one program.
_LIMIT: Final = 1 << 62
_CHUNK: Final = 1 << 18

_NONE: Final = frame(answer("#RETURN", None)[0])


class Server(Protocol):
    """What is asked of the server around. Only `call_on_loop` may be called on other threads."""

    host: Host

    @property
    def url(self) -> str: ...
    @property
    def lifelines(self) -> Lifelines: ...
    def call_on_loop(self, function: Callable[[], object]) -> None: ...
    def _begin_stop(self) -> None: ...


class Wire(Protocol):
    """What is asked of a connection of the loop."""

    @property
    def sock(self) -> Any: ...
    def write(self, data: bytes) -> None: ...
    def end(self) -> None: ...
    def hand_over(self) -> socket.socket: ...


class Door:
    """Where connections come in. It takes the place of `_stock.StockSessions` and of `_threads.ThreadedObjects`."""

    def __init__(self, server: Server, table: Table) -> None:
        self.server = server
        self.table = table
        self.watch = Watch()
        self.host: Host | None = None
        self._sessions: dict[bytes, Session] = {}
        self._drawn = 0

    # -- on the loop

    def accept(self, peer: Peer, pidfd: int | None, domain: str, connection: Wire, role: str = ADMIN) -> Arrival:
        """Take a connection that has shown a key. The pidfd is taken over."""
        return Arrival(self, peer, pidfd, domain if role == ADMIN else "", connection)

    def session(self, peer: Peer, pidfd: int | None, domain: str, wire: Wire) -> Session:
        """Return the session of a peer, and have it end with its process. Takes over the pidfd."""
        if peer.kind == "tcp" and domain:
            known = [client.pid for client in self.server.host.clients.values() if client.pid is not None]
            peer, pidfd = _peers.process_of_tcp(wire.sock, known) or (peer, None)
        key = f"private:{peer.host}:{peer.pid}:{peer.started}".encode()
        session = self._sessions.get(key)
        if session is None:
            self._drawn += 1
            caller = Caller(peer.host, peer.pid or 0, peer.command)
            session = self._sessions[key] = Session(self._drawn, caller)
            client = Client(key, caller, domain, peer.pid, peer.process)
            self.server.host.adopt(client)
            log.info("session of %s began, of the family", client.label)
        if pidfd is not None:
            self.server.lifelines.watch(self.server.host.clients[key], pidfd)
        return session

    def owner_ended(self, client: Client, owner: int | None) -> None:
        """The process of a session has ended."""
        session = self._sessions.pop(client.key, None)
        if session is not None:
            # An object may be busy, and what is in it may take its time to go.
            threading.Thread(target=self.table.end, args=(session,), name="registry end", daemon=True).start()

    def objects(self) -> list[list[object]]:
        """Return the rows of `Host.objects`."""
        return self.table.objects()

    def statistics(self, typeid: str, name: str) -> dict[str, object] | None:
        """Return what is known of an object, or None."""
        return self.table.statistics(typeid, name)

    def delete(self, typeid: str, name: str) -> bool:
        """Delete nothing: whoever has a proxy has the object."""
        return False

    def stop(self) -> None:
        """Do nothing: threads that serve end with the process."""


class Watch:
    """The sockets of clients that wait for an answer, which the loop looks at meanwhile.

    Not given to the loop one by one: that would take a word with it for each wait, and uvloop would have them block no
    more.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()

    def begin(self, loop: asyncio.AbstractEventLoop) -> Callable[[], object]:
        """Have the loop look; return what ends that."""
        number: Callable[[], int] | None = getattr(self._selector, "fileno", None)
        if number is None:
            return lambda: None  # Windows; waits of the interrupted end with their processes there
        loop.add_reader(number(), self._look)
        return lambda: loop.remove_reader(number())

    def add(self, sock: socket.socket, visit: Visit) -> None:
        """Have a visit given up if anything comes from its client, who waits for its answer."""
        with self._lock:
            self._selector.register(sock, selectors.EVENT_READ, visit)

    def remove(self, sock: socket.socket) -> None:
        """Look at a socket no more."""
        with self._lock:
            try:
                self._selector.unregister(sock)
            except KeyError:
                pass  # something has come

    def _look(self) -> None:
        with self._lock:
            found = [key for key, _ in self._selector.select(0)]
            for key in found:
                self._selector.unregister(key.fileobj)
        for key in found:
            key.data._give_up()


class Arrival:
    """A connection until its first request, which it goes to a thread with. On the loop."""

    def __init__(self, door: Door, peer: Peer, pidfd: int | None, domain: str, wire: Wire) -> None:
        self._door = door
        self._peer = peer
        self._pidfd = pidfd
        self._domain = domain
        self._wire = wire
        self._ended = False

    def feed(self, data: bytes) -> None:
        """Take the first bytes."""
        if self._ended:
            return
        self._ended = True
        server, pidfd = self._door.server, self._pidfd
        self._pidfd = None
        if not self._domain:
            if pidfd is not None:
                os.close(pidfd)
            log.warning("refused a pickle from %s", self._peer)
            text = f"{server.url} takes pickles only from processes of its own user, since a pickle runs code\n"
            self._wire.write(frame(answer("#TRACEBACK", text)[0]))
            self._wire.end()
            return
        session = self._door.session(self._peer, pidfd, self._domain, self._wire)
        serving = Serving(self._door, session, self._wire.hand_over(), data)
        threading.Thread(target=serving.run, name=f"registry {session.caller}", daemon=True).start()

    def lost(self, *, unread: bool = False) -> None:
        """The connection is gone, or is a thread's."""
        self._ended = True
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


class Serving:
    """One connection, on the thread that serves it."""

    def __init__(self, door: Door, session: Session, sock: socket.socket, data: bytes) -> None:
        self._server = door.server
        self._table = door.table
        self._watch = door.watch
        self._session = session
        self._sock = sock
        self._buffer = bytearray(data)
        self._at: object = None  # the object that is called
        # The visit whose answer may still be on its way, and the proxies in that answer.
        self._answered: Visit | None = None
        self._kept: list[Any] = []

    def run(self) -> None:
        """Serve, until the client closes."""
        try:
            request = self._request()
            if request is not None:
                self._command(request)
        except OSError:
            pass  # it is gone
        except BadMessage as error:
            log.warning("closed a connection of %s: %s", self._session.caller, error)
        finally:
            self._sock.close()

    # -- messages

    def _request(self) -> bytes | None:
        """Return the next request; None: the client has closed, having read all answers."""
        buffer = self._buffer
        while (message := cut(buffer, _LIMIT)) is None:
            try:
                data = self._sock.recv(_CHUNK)
            except ConnectionResetError:
                self._undo()  # it was closed with bytes unread in it
                raise
            if not data:
                return None
            buffer += data
        self._answered = None
        self._kept = []
        return message

    def _undo(self) -> None:
        visit, self._answered = self._answered, None
        if visit is not None:
            visit._not_delivered()

    def _say(self, kind: str, value: object) -> None:
        if value is None and kind == "#RETURN":
            self._sock.sendall(_NONE)
            return
        try:
            data, self._kept = answer(kind, value)
        except Exception:  # noqa: BLE001 - a class may refuse to be pickled in any way
            data, self._kept = answer("#UNSERIALIZABLE", traceback.format_exc())
        if len(data) < _CHUNK:
            self._sock.sendall(frame(data))
        else:
            self._sock.sendall(head(len(data)))
            self._sock.sendall(data)

    # -- functions of the server

    def _command(self, request: bytes) -> None:
        try:
            _, name, args, kwds = self._table.load(request)
            function = self._commands.get(name)
            if function is None:
                raise Refused(f"AttributeError: {name!r} is no function of a manager's server")
            result = function(*args, **kwds)
        except Refused as error:
            self._say("#TRACEBACK", f"{error}\n")
        except Exception:  # noqa: BLE001 - whatever a factory raises, its client waits for an answer
            self._say("#TRACEBACK", traceback.format_exc())
        else:
            if name == "accept_connection":
                self._serve(result)
                return
            self._say("#RETURN", result)
            if name == "shutdown":
                log.info("asked to stop by %s", self._session.caller)
                self._server.call_on_loop(self._server._begin_stop)

    @property
    def _commands(self) -> dict[str, Callable[..., Any]]:
        """What may be asked for; names from a peer are looked up here and nowhere else."""
        table, session = self._table, self._session
        return {
            "accept_connection": str,  # the name of the thread
            "create": self._create,
            "debug_info": table.describe,
            "decref": partial(table.decref, session),
            "dummy": lambda: None,
            "get_methods": lambda token: tuple(table.find(token.id).exposed),
            "incref": partial(table.incref, session),
            "number_of_objects": table.__len__,
            "shutdown": lambda: None,
        }

    def _create(self, typeid: str, /, *args: Any, **kwds: Any) -> object:
        place, owner, caller = self._session.enter("")
        token = hosting._visit.set(Visit(owner, caller, self))
        try:
            shared = self._table.create(self._session, typeid, args, kwds)
        finally:
            hosting._visit.reset(token)
            self._session.leave(place)
        return shared.ident, tuple(shared.exposed)

    # -- calls of objects

    def _serve(self, name: str) -> None:
        threading.current_thread().name = name
        place, owner, caller = self._session.enter(name)
        try:
            self._sock.sendall(_NONE)
            while (request := self._request()) is not None:
                self._call(request, owner, caller)
        finally:
            self._session.leave(place)

    def _call(self, request: bytes, owner: Owner, caller: Caller) -> None:
        visit = Visit(owner, caller, self)
        hosting._visit.set(visit)
        try:
            self._at, method, args, kwds = self._table.load(request)
            kind, value = self._table.call(self._session, self._at, method, args, kwds)
        except GivenUp:
            return
        except Refused as error:
            kind, value = "#TRACEBACK", f"{error}\n"
        except Exception:  # noqa: BLE001 - a request may fail in any way, and is to be answered
            kind, value = "#TRACEBACK", traceback.format_exc()
        if visit.given_up:
            visit._not_delivered()
            return
        self._answered = visit
        try:
            self._say(kind, value)
        except OSError:
            self._undo()
            raise

    # -- waits, as `hosting.VisitLine`

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._session.ended

    def watch(self, visit: Visit) -> None:
        """Have a visit that waits given up with its process, or if anything comes from its client."""
        self._session.visits.add(visit)
        self._table.waits(self._at, 1)
        self._watch.add(self._sock, visit)
        if self._buffer:
            visit._give_up()  # the next request has come with the one that waits

    def unwatch(self, visit: Visit) -> None:
        """The wait has ended."""
        self._watch.remove(self._sock)
        self._table.waits(self._at, -1)
        self._session.visits.discard(visit)
