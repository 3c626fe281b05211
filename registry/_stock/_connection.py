"""One connection of a stock client: its requests, one after the other, and their answers."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final

from registry import _codec, _disclosure, _peers, _rights
from registry._events import Output
from registry._framing import LARGEST, BadMessage, beginning, cut
from registry._questions import introduction
from registry._stock import _messages
from registry._wire import LONGEST_NAME, SMALL, Kind, ProtocolError
from registry.errors import AccessDenied, NoSuchObject, RegistryError, StateLost, UnknownType

if TYPE_CHECKING:
    from registry._attachments import Target
    from registry._peers import Peer
    from registry._stock._sessions import Session, StockSessions, Wire
    from registry.declarations import Interface

log = logging.getLogger("registry")

# What a peer may send that is going to be refused, so that it can read why.
_FROM_STRANGERS: Final = 1 << 20


class StockConnection:
    """Answer the requests of one connection.

    Attributes:
        peer: who it is, as far as the kernel says.
        domain: its trust domain, if it is ours.
        wire: where to write.
        role: what its key gives, see `_rights`.
        session: what it belongs to, once that matters.
    """

    def __init__(
        self, stock: StockSessions, peer: Peer, pidfd: int | None, domain: str, wire: Wire, role: str = _rights.ADMIN
    ) -> None:
        self.peer = peer
        self.domain = domain
        self.wire = wire
        self.role = role
        self.session: Session | None = None
        self._stock = stock
        self._server = stock.server
        self._pidfd = pidfd
        self._buffer = bytearray()
        # A pickle runs code, which is more than any other role may.
        self._trusted = bool(domain) or (self._server.trust == "key" and role == _rights.ADMIN)
        self._unread = 0  # bytes that are still to come of a request which is not kept, and why it is not
        self._why = ""
        self._ended = False
        self._serving = False
        self._owner = 0
        self._place: tuple[str, int] | None = None
        # The call that waits, with what makes its answer of its result; and the call whose reply may still
        # be on its way.
        self._waiting: int | None = None
        self._answered: int | None = None
        self._shape: Callable[[Any], object] | None = None
        here = self._server.address
        self._outgoing = _messages.outgoing(here)
        self._seal = _messages.opaque(domain)
        self._incoming = _messages.incoming(domain, here, self._server.url, self._exposed, self._server.host.trusted)

    # -- what the server calls

    def feed(self, data: bytes) -> None:
        """Take what has arrived. The caller flushes the server afterwards."""
        if self._unread:
            data = self._drop(data)
        self._buffer += data
        try:
            while not self._ended:
                if len(self._buffer) > SMALL and self._trusted and self._is_dropped():
                    continue
                limit = LARGEST if self._trusted else _FROM_STRANGERS
                request = cut(self._buffer, limit)
                if request is None:
                    return
                self._take(request)
        except (BadMessage, ProtocolError) as error:
            log.warning("closed the connection of %s: %s", self._label, error)
            self._say("#TRACEBACK", f"{error}\n")
            self._end()

    def _is_dropped(self) -> bool:
        """Drop a large request for which there is no room, also what is still to come of it, and tell whether it is."""
        found, server = beginning(self._buffer), self._server
        if found is None:
            return False
        length, here = sum(found), len(self._buffer)
        self._why = server.host.bounds.why_unread(length, server.now(), here)
        if self._why:
            del self._buffer[:length]
            self._unread = max(0, length - here)
            self._refuse_dropped()
        return bool(self._why)

    def _drop(self, data: bytes) -> bytes:
        """Drop what belongs to a request that is not kept, and return the rest."""
        part = min(self._unread, len(data))
        self._unread -= part
        self._refuse_dropped()
        return data[part:]

    def _refuse_dropped(self) -> None:
        """Answer a request that was dropped, once all of it has come."""
        if not self._unread:
            self._note_received()
            self._fail(self._server.host.bounds.unread(self._why))
            if not self._serving:
                self._end()

    def lost(self, *, unread: bool = False) -> None:
        """The connection is gone; with `unread` its last reply has not been read. May be said twice."""
        self._ended = True
        self._buffer.clear()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        session, self.session = self.session, None
        if session is None:
            return
        if self._waiting is not None:
            session.give_up(self._waiting)
        elif self._answered is not None:
            (session.give_up if unread else session.received)(self._answered)
        session.close(self, self._place)

    def take_pidfd(self) -> int | None:
        """Hand over the pidfd of the peer, once."""
        pidfd, self._pidfd = self._pidfd, None
        return pidfd

    # -- requests

    def _take(self, request: bytes) -> None:
        if not self._trusted:
            log.warning("refused a pickle from %s", self.peer)
            self._fail(AccessDenied(self._distrust()))
            self._end()
            return
        self._note_received()
        name: str | None = None
        try:
            ident, name, args, kwds = _messages.load(request)
        except BadMessage:
            raise
        except RegistryError as error:
            self._fail(error)
        except (Exception, SystemExit, GeneratorExit):  # noqa: BLE001 - a pickle runs code of its writer
            self._say("#TRACEBACK", traceback.format_exc())
        if self._serving:
            if name is not None:
                self._call(ident, name, args, kwds)
            return
        if name is not None:
            self._command(name, args, kwds)
        if not self._serving:
            self._end()

    def _note_received(self) -> None:
        """Take note that the client has the last answer, since it asks for another one."""
        session = self.session
        if session is not None:
            if self._waiting is not None:
                session.give_up(self._waiting)
            elif self._answered is not None:
                session.received(self._answered)
            self._waiting = self._answered = self._shape = None

    def _distrust(self) -> str:
        here = _peers.machine()
        who = f"user {os.getuid()}" if hasattr(os, "getuid") else "this user"
        is_lifted = self._server.trust == "key"
        cure = f"show the key of the role {_rights.ADMIN!r}" if is_lifted else "serve with --trust key"
        return (
            f"{self._name} takes the pickles of multiprocessing clients only from processes of {who} on {here}, since "
            f"a pickle runs code; use registry.connect(), which sends none, or {cure}"
        )

    @property
    def _name(self) -> str:
        """How the peer is told of the server."""
        host = self._server.host
        told = introduction(host, _disclosure.is_insider(self.role, self.domain))
        return str(told["name"] or "this server")

    @property
    def _label(self) -> str:
        return self.session.client.label if self.session is not None else self.peer.host

    # -- functions of the server

    def _command(self, name: str, args: tuple[Any, ...], kwds: dict[str, Any]) -> None:
        function = self._commands.get(name)
        if function is None:
            self._say("#TRACEBACK", f"{name!r} is no function of a manager's server\n")
            return
        try:
            needed = _rights.least("stock", name)
            if not _rights.may(self.role, needed):
                raise _rights.denial(f"the function {name!r}", needed, self.role)
            answer = function(*args, **kwds)
        except Exception as error:  # noqa: BLE001 - such as arguments that do not fit; the client is to know
            self._fail(error)
        else:
            if answer is not _ANSWERED:
                self._say("#RETURN", answer)

    @cached_property
    def _commands(self) -> dict[str, Callable[..., object]]:
        """What may be asked for; names from a peer are looked up here and nowhere else."""
        return {
            "accept_connection": self._accept,
            "create": self._create,
            "debug_info": self._debug_info,
            "decref": self._decref,
            "dummy": lambda: None,
            "get_methods": self._get_methods,
            "incref": self._incref,
            "number_of_objects": lambda: len(self._server.host.objects()),
            "shutdown": self._shutdown,
        }

    def _accept(self, name: str) -> None:
        name = str(name)
        self.session = self._stock.session(self, name)
        self._owner, self._place = self.session.owner(name)
        self._serving = True

    def _create(self, typeid: str, /, *args: Any, **kwds: Any) -> object:
        interface = self._interface(typeid)
        if interface.per == "name":
            if not args or not isinstance(args[0], str) or not args[0]:
                raise TypeError(
                    f'a shared {typeid} has a name: .{typeid}("NAME"); processes that use the same name '
                    "share the same object"
                )
            name, args = args[0], args[1:]
            if len(name) > LONGEST_NAME:
                raise ValueError(f"the name of a shared {typeid} has {LONGEST_NAME} letters at most")
        else:
            name = os.urandom(12).hex() if interface.per == "call" else ""
        ident = f"{typeid}:{name}"
        definition = _codec.encode_arguments(args, kwds, None, self._outgoing)
        session = self.session = self._stock.session(self, "")
        if interface.per == "call" and self.role == _rights.READ:
            raise NoSuchObject(typeid, _rights.not_made(typeid))
        if interface.per == "call":
            session = self._stock.hold(ident, session)
        if not session.create(self, session.define(ident, definition)):
            self._stock.release(ident)
            return _ANSWERED
        return ident, interface.exposed

    def _get_methods(self, token: Any) -> tuple[str, ...]:
        return self._interface(str(token.id).partition(":")[0]).exposed

    def _incref(self, ident: str) -> None:
        if self.role != _rights.READ:
            self._stock.incref(str(ident), self)

    def _decref(self, ident: str) -> None:
        if self.role != _rights.READ:
            self._stock.decref(str(ident), self)

    def _debug_info(self) -> str:
        rows = self._server.host.objects()
        return "\n".join(f"  {row[0]}:{row[1]}: made by {row[2]}, {row[5]} waiting" for row in rows)

    def _shutdown(self) -> object:
        if not self.domain:
            raise AccessDenied("only a process of the server's own user may shut it down this way")
        log.info("asked to stop by %s", self._label)
        self._say("#RETURN", None)
        self._server._begin_stop()
        return _ANSWERED

    def _exposed(self, typeid: str) -> tuple[str, ...] | None:
        declaration = self._server.host.declarations.get(typeid)
        return declaration.interface.exposed if declaration is not None else None

    def _interface(self, typeid: str) -> Interface:
        declaration = self._server.host.declarations.get(typeid)
        if declaration is None:
            raise UnknownType(typeid)
        return declaration.interface

    # -- calls of objects

    def _call(self, ident: Any, method: str, args: tuple[Any, ...], kwds: dict[str, Any]) -> None:
        session = self.session
        if session is None or not session.alive:
            self._fail(StateLost("the session of this process has ended"))
            self._end()
            return
        try:
            target = session.define(str(ident))
            plan = self._plan(target, method)
            if plan is None:
                return
            method, self._shape = plan
            carried = self._interface(target.typeid).carried.get(method)
            arguments = _codec.encode_arguments(args, kwds, carried, self._outgoing, self._seal)
        except Exception as error:  # noqa: BLE001 - a user's class may refuse to be pickled again in any way
            self._fail(error)
            return
        if target.declaration is not None and target.declaration.per == "call":
            self._stock.touch(str(ident))
        # Set first: the answer may come before `submit` returns.
        self._waiting = session.next
        session.submit(self, target, method, arguments, self._owner)

    def _plan(self, target: Target, method: str) -> tuple[str, Callable[[Any], object] | None] | None:
        """Return the method to call, and what to make of its result. None: it has been answered."""
        interface = self._interface(target.typeid)
        exposed = interface.exposed
        if method in exposed:
            # In the place of an iterator, which cannot cross, the client gets all items, but needs an
            # iterator.
            return method, iter if method in ("__iter__", "__reversed__") else None
        if method in ("#GETVALUE", "__str__", "__repr__"):
            content = _content(interface)
            if content is not None:
                name, make = content
                return name, make if method == "#GETVALUE" else partial(_shown, make)
            if method != "#GETVALUE":
                title = f"{target.typeid} {target.name!r}" if target.name else target.typeid
                self._say("#RETURN", f"<shared {title} on {self._server.host.identity.name}>")
                return None
        title = f"{target.typeid}:{target.name}" if target.name else target.typeid
        # As a text, and not as the AttributeError that it is: this is how a stock server says it.
        reason = f"shared {title} exposes no {method!r}; it has {', '.join(exposed)}"
        self._say("#TRACEBACK", f"AttributeError: {reason}\n")
        return None

    # -- answers

    def answer(self, output: Output) -> None:
        """Send the result of a call."""
        if self._ended:
            return
        if self._serving:
            self._waiting, self._answered = None, output.seq
        elif self.session is not None:
            self.session.received(output.seq)
        if output.kind == Kind.CANCELLED:
            self._fail(StateLost("the call was undone"))
            return
        try:
            value = _codec.decode(output.body, incoming=self._incoming)
            if output.kind == Kind.ERROR:
                self._fail(value)
                return
            if self._shape is not None:
                value = self._shape(value)
        except (RegistryError, ValueError, TypeError) as error:
            self._fail(error)
            return
        self._say("#RETURN", value)

    def _fail(self, error: BaseException) -> None:
        self.wire.write(_messages.failure(error, self._name))

    def _say(self, kind: str, value: object) -> None:
        self.wire.write(_messages.message(kind, value))

    def _end(self) -> None:
        self._ended = True
        self._buffer.clear()
        self.wire.end()


_ANSWERED: Final = object()


def _content(interface: Interface) -> tuple[str, Callable[[Any], object]] | None:
    """Return the method that tells what a container holds, and what makes a plain container of its result."""
    make = {"mapping": dict, "sequence": list, "set": set}.get(interface.shape or "")
    if make is None:
        return None
    names = ("copy", "items") if make is dict else ("copy", "__iter__")
    return next(((name, make) for name in names if name in interface.exposed), None)


def _shown(make: Callable[[Any], object], value: Any) -> str:
    return repr(make(value))
