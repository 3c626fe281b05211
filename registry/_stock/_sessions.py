"""Sessions of stock clients: who a connection belongs to, and what its process has called and received."""

from __future__ import annotations

import bisect
import hashlib
import logging
import os
from collections.abc import Callable, Container
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final, Protocol

from registry import _peers
from registry._attachments import Attachment, Client, Target
from registry._events import Call, Output
from registry._host import Host
from registry._leaves import Caller
from registry._lifelines import Lifelines
from registry._objects import NO_ARGUMENTS
from registry._peers import Peer
from registry._rights import ADMIN
from registry._stock._connection import StockConnection
from registry._wire import DELETE
from registry.errors import NoSuchObject, UnknownType

if TYPE_CHECKING:
    from registry.declarations import SharedObject

log = logging.getLogger("registry")

#: Seconds for which a session without a process is believed after its connection has closed.
STOCK_GRACE: Final = 10.0

# Seconds for which an object that such a client made for itself is kept, if nobody calls it or lets go of it.
REFERENCE_GRACE: Final = 3600.0


class Server(Protocol):
    """What is asked of the server around."""

    host: Host
    trust: Any
    lifelines: Lifelines

    @property
    def address(self) -> str | tuple[str, int]: ...
    @property
    def url(self) -> str: ...
    def now(self) -> float: ...
    def _begin_stop(self) -> None: ...


class Wire(Protocol):
    """What is asked of a connection of the server."""

    @property
    def sock(self) -> Any: ...
    def write(self, data: bytes) -> None: ...
    def end(self) -> None: ...
    def drain(self) -> None: ...


class Session:
    """A process, or where that cannot be known a name, with all its connections.

    Attributes:
        client: what the host knows it as.
        connections: those that are open.
        made: the objects that end with it, by ident.
    """

    __slots__ = (
        "_acknowledged",
        "_at_end",
        "_calls",
        "_definitions",
        "_last",
        "_open",
        "_targets",
        "_unread",
        "client",
        "connections",
        "made",
        "stock",
    )  # fmt: skip

    def __init__(self, stock: StockSessions, client: Client, at_end: Callable[[], object]) -> None:
        self.stock = stock
        self.client = client
        self.connections: set[StockConnection] = set()
        self.made: set[str] = set()
        self._at_end = at_end
        self._targets: dict[str, Target] = {}
        # The server drops the record of an object that is as good as new; the next call makes it again, as
        # it was.
        self._definitions: dict[str, bytes] = {}
        self._calls: dict[int, StockConnection] = {}
        self._last = 0
        # Calls whose replies are remembered for us, in their order, and ranges of calls that we have the
        # replies to, but have not yet told the engine so.
        self._unread: list[int] = []
        self._acknowledged: list[tuple[int, int]] = []
        self._open: set[tuple[str, int]] = set()
        client.deliver = self._deliver
        client.attachment = Attachment(client.domain, client.label, client.pid)
        client.attachment.sink = self

    @property
    def alive(self) -> bool:
        """Whether the host still has it."""
        return self.client.key in self.stock.server.host.clients

    @property
    def next(self) -> int:
        """The number of the next call."""
        return self._last + 1

    def recall(self) -> None:
        """Go on where the session stands in the engine: number calls from there, and own what it owns."""
        engine = self.stock.server.host.engine
        known = engine.sessions[self.client.number]
        self._last = max([known.mark, *known.replies, *known.waits, *(last for _, last in known.above.rows())])
        self.made.update(hosted.title for hosted in engine.objects.values() if hosted.number in known.owned)
        self._unread = sorted(known.waits)
        for seq in list(self._unread):
            self.give_up(seq)  # nobody is there who could read its reply

    # -- owners

    def owner(self, name: str) -> tuple[int, tuple[str, int]]:
        """Return the owner of a new connection of that name, and its place, to be given back by `close`."""
        k = 0
        while (name, k) in self._open:
            k += 1
        place = (name, k)
        self._open.add(place)
        return owner_number(name, k), place

    def close(self, connection: StockConnection, place: tuple[str, int] | None) -> None:
        """A connection is gone. Nothing that it has brought is."""
        self.connections.discard(connection)
        if place is not None:
            self._open.discard(place)
        self.stock.closed(self)

    # -- calls

    def define(self, ident: str, definition: bytes | None = None) -> Target:
        """Return what an ident stands for.

        Args:
            ident: ``typeid:name``.
            definition: the arguments of its factory, where the client has given some.

        Raises:
            UnknownType, NoSuchObject: it stands for nothing here.
        """
        host = self.stock.server.host
        target = self._targets.get(ident)
        typeid, _, name = ident.partition(":")
        if target is not None and definition is None:
            if target.definition is None and host.engine.find(typeid, name) is None:
                target.definition = self._definitions.get(ident)
            return target
        declaration = self.stock.declared(ident, is_new=definition is not None)
        known = host.engine.find(typeid, name)
        fresh = Target(typeid, name, definition or NO_ARGUMENTS, declaration)
        if target is not None:
            fresh.number = target.number
        elif known is not None and definition is None:
            fresh.number = known.number
        self._targets[ident] = fresh
        if len(self._targets) > host.limits.handles:
            oldest = next(iter(self._targets))
            del self._targets[oldest]
            self._definitions.pop(oldest, None)
        if definition not in (None, NO_ARGUMENTS):
            self._definitions[ident] = fresh.definition or NO_ARGUMENTS
        return fresh

    def forget(self, ident: str) -> None:
        """An object without a name is gone, and never comes back."""
        self.made.discard(ident)
        self._targets.pop(ident, None)
        self._definitions.pop(ident, None)

    def create(self, connection: StockConnection, target: Target) -> bool:
        """Make an object. False: it was refused, and the client has been told."""
        call = self._numbered(connection, target, "", NO_ARGUMENTS, 0)
        if not self.stock.server.host.prepare(self.client, target, call):
            return False
        self._calls.pop(call.seq, None)
        self.received(call.seq)
        return True

    def submit(
        self, connection: StockConnection | None, target: Target, method: str, arguments: bytes, owner: int
    ) -> int:
        """Call a method; the reply goes to the connection. Returns the number of the call."""
        call = self._numbered(connection, target, method, arguments, owner)
        self.stock.server.host.submit(self.client, target, call)
        return call.seq

    def _numbered(
        self, connection: StockConnection | None, target: Target, method: str, arguments: bytes, owner: int
    ) -> Call:
        seq = self._last = self._last + 1
        threaded = target.declaration is not None and target.declaration.threaded
        above: tuple[tuple[int, int], ...] = ()
        if threaded or method not in target.readonly:
            # Reads are not remembered, so they need no acknowledgement and carry none.
            self._unread.append(seq)
            above = tuple(self._acknowledged)
            if not threaded:
                self._acknowledged = []
        self.client.received = self._mark()
        if connection is not None:
            self._calls[seq] = connection
        return Call(
            now=self.stock.server.now(),
            session=self.client.number,
            seq=seq,
            owner=owner,
            typeid=target.typeid,
            name=target.name,
            method=method,
            arguments=arguments,
            received=self.client.received,
            above=above,
        )

    def received(self, seq: int) -> None:
        """The client has the reply to a call."""
        place = bisect.bisect_left(self._unread, seq)
        if self._unread[place : place + 1] != [seq]:
            return
        del self._unread[place]
        if place:
            # Whatever lies between two unread ones has been read, so that what is told grows with the
            # waiting calls only.
            first = self._unread[place - 1] + 1
            last = self._unread[place] - 1 if place < len(self._unread) else self._last
            while self._acknowledged and self._acknowledged[-1][0] >= first and self._acknowledged[-1][1] <= last:
                self._acknowledged.pop()
            self._acknowledged.append((first, last))
        self.client.received = self._mark()

    def _mark(self) -> int:
        """Return the highest number up to which we have all replies."""
        return (self._unread[0] if self._unread else self._last + 1) - 1

    def give_up(self, seq: int) -> None:
        """The client no longer waits for the reply to a call, or has not read it: undo what can be undone."""
        self._calls.pop(seq, None)
        if self.alive and seq in self._unread:
            server = self.stock.server
            server.host.cancel(self.client, seq, undo=True, now=server.now())
        self.received(seq)

    def _deliver(self, output: Output) -> None:
        connection = self._calls.pop(output.seq, None)
        if connection is not None:
            connection.answer(output)

    # -- the end

    def drain(self) -> None:
        """The process has ended: take what it had sent, and learn what it had read, before we forget it."""
        for connection in list(self.connections):
            connection.wire.drain()
        for ident in list(self.made):
            self.stock.release(ident)
        self._at_end()

    def end(self) -> None:
        """Close what a child of the process may have inherited: nothing that it sends there is its own."""
        for connection in list(self.connections):
            connection.wire.end()


def owner_number(name: str, k: int) -> int:
    """Return the number of an owner. It is made of the name, so that another life of the server knows it again."""
    digest = hashlib.blake2b(f"{k} {name}".encode("utf-8", "surrogatepass"), digest_size=7).digest()
    return int.from_bytes(digest, "big") + 1  # 0 is the whole session


class StockSessions:
    """The sessions of stock clients of one server.

    Attributes:
        server: the server.
        references: how many proxies each process has of each object that is its maker's alone, by ident and by the key
            of its session. The empty key stands for all of whom nothing is known; after a restart they have some
            without end.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.references: dict[str, dict[bytes, float]] = {}
        self._makers: dict[str, Session] = {}
        # A process that has shown the keys of two roles has two sessions.
        self._processes: dict[tuple[int, int | None, str], Session] = {}
        self._named: dict[tuple[str, str, int], Session] = {}
        self._drawn = 0

    def accept(
        self, peer: Peer, pidfd: int | None, domain: str, connection: Wire, role: str = ADMIN
    ) -> StockConnection:
        """Take a connection that has shown the key.

        Args:
            peer: who it is, as far as the kernel says.
            pidfd: of its process, or None; taken over.
            domain: its trust domain, if it is ours.
            connection: where to write.
            role: what its key gives.
        """
        return StockConnection(self, peer, pidfd, domain, connection, role)

    def session(self, connection: StockConnection, name: str) -> Session:
        """Return the session that a connection belongs to, in which it has given `name`."""
        peer, pidfd = connection.peer, connection.take_pidfd()
        if peer.kind == "tcp" and connection.domain:
            found = _peers.process_of_tcp(connection.wire.sock, [pid for pid, *_ in self._processes])
            if found is not None:
                peer, pidfd = found
        if peer.pid is not None and pidfd is not None:
            session = self._of_process(peer, connection.domain, connection.role)
            self.server.lifelines.watch(session.client, pidfd)
        else:
            if pidfd is not None:
                os.close(pidfd)
            session = self._of_name(peer, connection.domain, name, connection.role)
        session.connections.add(connection)
        return session

    def closed(self, session: Session) -> None:
        """A connection of a session is gone; one that is not a process is not believed for long without."""
        if session.client.pid is None and not session.connections and session.alive:
            self.server.host.suspend(session.client, self.server.now() + STOCK_GRACE)

    def _of_process(self, peer: Peer, domain: str, role: str) -> Session:
        pid = peer.pid or 0
        row = (pid, peer.started, role)
        known = self._processes.get(row)
        if known is not None and known.alive:
            self.server.host.resume(known.client, self.server.now())
            return known
        key = f"stock-process:{pid}:{peer.started}" + ("" if role == ADMIN else f":{role}")
        caller = Caller(peer.host, pid, peer.command)
        session = self._processes[row] = self._make(
            key.encode(), caller, domain, pid, role, lambda: self._processes.pop(row, None), peer.process
        )
        log.info("session of %s began, a stock client", session.client.label)
        return session

    def _of_name(self, peer: Peer, domain: str, name: str, role: str) -> Session:
        host = peer.host or "unknown"
        scope = _scope(host, peer.pid, role)
        k = 0
        while (known := self._named.get((scope, name, k))) is not None and known.connections and known.alive:
            k += 1
        if known is not None and known.alive:
            self.server.host.resume(known.client, self.server.now())
            return known
        for row in [row for row, session in self._named.items() if not session.alive]:
            del self._named[row]
        session = self._named[scope, name, k] = self._nameless(Caller(host, peer.pid or 0, label=name), domain, role)
        log.info("session of %s began, a stock client", session.client.label)
        return session

    def _nameless(self, caller: Caller, domain: str, role: str) -> Session:
        self._drawn += 1
        return self._make(f"stock-session:{self._drawn:012}".encode(), caller, domain, None, role, lambda: None)

    def _make(
        self,
        key: bytes,
        caller: Caller,
        domain: str,
        pid: int | None,
        role: str,
        at_end: Callable[[], object],
        process: str = "",
    ) -> Session:
        # The keys of native sessions have 16 bytes: none of them can be one of these.
        client = Client(key, caller, domain, pid, process, role)
        self.server.host.adopt(client)
        return Session(self, client, at_end)

    def recall(self, watched: Container[bytes]) -> None:
        """Take the sessions of stock clients that a log has told of.

        Their connections are gone, and they make no others for the threads that had them. What they hold stays theirs:
        a process that is watched has it until it ends, any other for the grace that it always has. The proxies of the
        objects that they had made for themselves were not logged, so that these objects go with their makers.

        Args:
            watched: the keys of the sessions whose processes the server watches.
        """
        host = self.server.host
        for client in list(host.clients.values()):
            kind, _, rest = client.key.partition(b":")
            if kind == b"stock-process":
                row = (*_process(rest), client.role)
                session = self._processes[row] = Session(self, client, partial(self._processes.pop, row, None))
            elif kind == b"stock-session":
                self._drawn = max(self._drawn, int(rest))
                session = Session(self, client, lambda: None)
                host.suspend(client, self.server.now() + STOCK_GRACE)
            else:
                continue
            session.recall()
            if client.key in watched:
                host.resume(client, self.server.now())
            if kind == b"stock-session" and not session.made:
                self._name(session)
            for ident in session.made:
                self.references[ident] = {b"": inf}
                self._makers[ident] = session
                self.touch(ident)

    def _name(self, session: Session) -> None:
        """Have a session known by the name that its client gave, and by the first number that is free."""
        who, k = session.client.caller, 0
        scope = _scope(who.host, who.pid or None, session.client.role)
        while (scope, who.label, k) in self._named:
            k += 1
        self._named[scope, who.label, k] = session

    # -- objects that go with their last proxy

    def hold(self, ident: str, session: Session) -> Session:
        """Count the first proxy of an object that a client makes for itself, and return whose it is.

        It ends with the process that made it. A client whose process is not known gets a session for the
        object alone.
        """
        holder = _holder(session)
        if not holder:
            session = self._nameless(session.client.caller, session.client.domain, session.client.role)
        self.references[ident] = {holder: 1}
        self._makers[ident] = session
        session.made.add(ident)
        self.touch(ident)
        return session

    def is_held(self, ident: str) -> bool:
        """Tell whether such an object is still there."""
        maker = self._makers.get(ident)
        if maker is not None and not maker.alive:
            self.release(ident)
        return ident in self.references

    def touch(self, ident: str) -> None:
        """Keep such an object a while longer."""
        maker = self._makers.get(ident)
        if maker is not None and maker.client.pid is None:
            self.server.host.suspend(maker.client, self.server.now() + REFERENCE_GRACE)

    def declared(self, ident: str, *, is_new: bool = False) -> SharedObject[Any]:
        """Return the declaration of what an ident stands for.

        Args:
            ident: ``typeid:name``.
            is_new: whether it is being made, and may be unknown as yet.

        Raises:
            UnknownType, NoSuchObject: it stands for nothing here.
        """
        typeid, colon, name = ident.partition(":")
        declaration = self.server.host.declarations.get(typeid)
        if declaration is None:
            raise UnknownType(typeid)
        if not colon or bool(name) == (declaration.per == "server"):
            raise NoSuchObject(ident, "this is not how an object is named here; make the proxy anew")
        if declaration.per == "call" and not is_new and not self.is_held(ident):
            raise NoSuchObject(ident, "it went with the process that had made it, or with its last proxy")
        return declaration

    def incref(self, ident: str, connection: StockConnection) -> None:
        """Count a proxy; those of named objects need no counting.

        Raises:
            UnknownType, NoSuchObject: there is no such object.
        """
        if self.declared(ident).per == "call":
            counts, holder = self.references[ident], _holder(self._session_of(connection))
            counts[holder] = counts.get(holder, 0) + 1
            self.touch(ident)

    def decref(self, ident: str, connection: StockConnection) -> None:
        """Let go of a proxy, and with the last one of the object.

        Raises:
            NoSuchObject: the process has none.
        """
        if not self.is_held(ident):
            return
        session = self._session_of(connection)
        counts, holder = self.references[ident], _holder(session)
        if holder not in counts:
            if holder and b"" not in counts:
                raise NoSuchObject(ident, "this process has no proxy of it that it could give up")
            holder = b"" if b"" in counts else next(iter(counts))
        counts[holder] -= 1
        if not counts[holder]:
            del counts[holder]
        if counts:
            return
        session.received(session.submit(None, session.define(ident), DELETE, NO_ARGUMENTS, 0))
        session.forget(ident)
        self.release(ident)

    def _session_of(self, connection: StockConnection) -> Session:
        """Return the session of a connection on which a function of the server is called."""
        if connection.session is None:
            connection.session = self.session(connection, "")
        return connection.session

    def release(self, ident: str) -> None:
        """Forget an object that is gone."""
        self.references.pop(ident, None)
        maker = self._makers.pop(ident, None)
        if maker is not None:
            maker.forget(ident)
            if maker.client.pid is None:
                self.server.host.end(maker.client, self.server.now())


def _holder(session: Session) -> bytes:
    """Return by what the references of a process are counted; empty where nobody knows the process."""
    return session.client.key if session.client.pid is not None else b""


def _scope(host: str, pid: int | None, role: str) -> str:
    """Return within what the name that a client gives means one."""
    return f"{role} {host} pid {pid}" if pid is not None else f"{role} {host}"


def _process(text: bytes) -> tuple[int, int | None]:
    """Return the pid and the start time of which the key of a session is made."""
    pid, started, *_ = text.split(b":")
    return int(pid), int(started) if started != b"None" else None
