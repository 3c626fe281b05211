"""The client of a stock `multiprocessing` server, which ``stock+tcp://`` and ``stock+unix://`` stand for.

The protocol is the one that `registry._stock` serves; here is its other end. Pickles, tokens and what a proxy is
pickled as are those of `multiprocessing`. What is not:

*Silence.* A call that takes long may be a lock that is held. So when half of the client's timeout has gone by without
a reply, the server is asked for a sign of life, the function ``dummy``, on a connection of its own. While it gives one
the call waits on; a server that gives none is given up.

*Interruptions.* A call that does not end with its reply closes its connection, so that the next call on it cannot take
that reply for its own.

*Threads.* A stock server has a thread for each connection, which is who holds an `RLock` there. So each thread of this
process has one connection, made at its first call and closed at its end.

*References.* An object lives while a process says that it has a proxy of it. The reference that the server counts when
it makes an object is ours from then on, where a stock client asks for another and gives that one back. A forked child
takes one of its own when it first uses a proxy, and so does a process that was given one as an argument.

*Lives.* An object is known there by its address in the server's memory. The next server at the same place may have
another object at that address, and no answer tells. So one connection, the *anchor*, has no other use than to end with
the server; whoever makes a connection looks at it, and proxies that are older than its end are refused.

*Names from the server.* Methods become attributes by their names. No text of the server is run, as stock clients do,
and no special name is taken but those of a closed list.
"""

from __future__ import annotations

import errno
import io
import os
import pickle
import socket
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from math import inf
from multiprocessing.managers import AutoProxy, RebuildProxy, Token  # type: ignore[attr-defined]
from multiprocessing.process import current_process
from multiprocessing.reduction import ForkingPickler
from multiprocessing.util import Finalize
from time import monotonic
from typing import Any, Final, NoReturn

from registry import _framing
from registry._addresses import Address, parse
from registry._transport import DeadlinePassed, PatchedTransport, SocketTransport, dial_stock, is_gone
from registry.declarations import DUNDERS
from registry.errors import (
    AccessDenied,
    CallTimeout,
    Closed,
    NoSuchObject,
    NotShareable,
    OutcomeUnknown,
    RegistryError,
    RemoteError,
    ServerNotFound,
    UnknownType,
)

LAST_WORDS: Final = 1.0  # seconds that the end of a proxy waits for the server
PROTOCOL: Final = 4  # what every Python since 3.4 reads
LONGEST: Final = 1 << 40  # bytes of a reply; the server was chosen by the user

NAMELESS: Final = (
    "Objects of a stock server have no names: what stands in the brackets goes to its factory. Leave it out, or use a "
    "server that has names, as `registry serve` does"
)

#: Special methods that a proxy may have from a stock server, beside those of `DUNDERS`.
SPECIAL: Final = DUNDERS | {"__add__", "__mul__", "__next__", "__rmul__"}


class Wire:
    """One connection to a stock server."""

    __slots__ = ("__weakref__", "_buffer", "_pid", "_transport")

    def __init__(self, transport: SocketTransport, leftover: bytes) -> None:
        self._transport = transport
        self._buffer = bytearray(leftover)
        self._pid = os.getpid()

    def send(self, message: bytes) -> None:
        """Send a message. Raises `OSError` when the connection has ended, or the server does not read."""
        self._transport.send(_framing.frame(message))

    def receive(self, deadline: float) -> bytes:
        """Return the next message.

        Raises:
            DeadlinePassed: It has not come by then; what has stays.
            OSError: The connection has ended.
        """
        while (message := _framing.cut(self._buffer, LONGEST)) is None:
            data = self._transport.receive(None if deadline == inf else deadline)
            if not data:
                raise ConnectionResetError(errno.ECONNRESET, "the server closed the connection")
            self._buffer += data
        return message

    @property
    def has_ended(self) -> bool:
        """Whether the server has closed it. To be asked where no reply is due."""
        if not isinstance(self._transport, PatchedTransport):
            return not self._transport.is_quiet()
        sock = self._transport.detach()
        try:
            sock.settimeout(0.0)  # who reads sets it for himself
            sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    @property
    def is_inherited(self) -> bool:
        """Whether it is that of a parent process."""
        return self._pid != os.getpid()

    def close(self) -> None:
        """Close it; in a forked child let go of it."""
        if self.is_inherited:
            self._transport.drop()
        else:
            self._transport.close()

    def __del__(self) -> None:
        self._transport.drop()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Here:
    """What one process has of a server. A forked child begins anew.

    Attributes:
        pid: Of the process.
        lock: Held while the anchor is made.
        anchor: The connection that ends with the server.
        threads: Each thread's connection, as ``wire`` while no call is under way on it.
        wires: All of them.
    """

    __slots__ = ("anchor", "lock", "pid", "threads", "wires")

    def __init__(self, inherited: Wire | None = None) -> None:
        self.pid = os.getpid()
        self.lock = threading.RLock()  # not a plain lock: a proxy may end, and look, while it is held
        self.anchor = inherited
        self.threads = threading.local()
        self.wires: weakref.WeakValueDictionary[int, Wire] = weakref.WeakValueDictionary()


class StockServer:
    """A stock server, as one client sees it.

    Args:
        address: Of kind stock+unix or stock+tcp.
        authkey: The secret that both sides know.
        timeout: Seconds for which the server may be silent.
        label: What the server's threads are called; empty: the name of this process.
        reopen: What unpickles a proxy, by the URL of its server, typeid and ident.
        key_for: What tells the key that this process was given for another server, by its URL.
    """

    def __init__(
        self,
        address: Address,
        authkey: bytes,
        timeout: float,
        label: str,
        reopen: Callable[[str, str, str], Any],
        key_for: Callable[[str], bytes | None],
    ) -> None:
        self.address = address
        self.url = str(address)
        self.timeout = timeout
        self.reopen = reopen
        self.life = 0
        self._authkey = authkey
        self._key_for = key_for
        self._others: dict[str, StockServer] = {}
        self._label = label
        self._closed = False
        self._is_mute = False
        self._process = Here()
        self._held: dict[int, Finalize] = {}
        self._classes: dict[tuple[str, ...], type[StockProxy]] = {}

    # -- the life of a client

    @property
    def is_connected(self) -> bool:
        """Whether the server has been met."""
        return self._here().anchor is not None and not self._closed

    def connect(self) -> None:
        """Find out whether the server is there."""
        self._look()

    def close(self) -> None:
        """Give up all proxies, and close all connections."""
        for other in list(self._others.values()):
            other.close()
        here = self._here()
        for reference in list(self._held.values()):
            reference()
        self._closed = True
        for reference_to in here.wires.valuerefs():  # a list at once, while other threads make connections
            wire = reference_to()
            if wire is not None:
                wire.close()

    def _here(self) -> Here:
        here = self._process
        if here.pid != os.getpid():
            self._held = {}  # what the parent has told the server of its proxies stays its own
            here = self._process = Here(here.anchor)
        return here

    def _look(self) -> int:
        """Return which life of the server this is, connecting if need be.

        Raises:
            ServerNotFound: Nobody answers, in time, or what answers is of another kind.
            AccessDenied: The keys differ.
        """
        here = self._here()
        with here.lock:
            anchor = here.anchor
            if anchor is None or anchor.is_inherited or anchor.has_ended:
                if anchor is not None:
                    self.life += anchor.has_ended
                    here.anchor = None
                    anchor.close()
                here.anchor = self._dial_serving()
            return self.life

    # -- connections

    def _dial(self, seconds: float) -> Wire:
        """Make a connection. Raises as `_look` does."""
        if self._closed:
            raise self._is_closed()
        try:
            wire = Wire(*dial_stock(self.address, self._authkey, monotonic() + seconds))
        except DeadlinePassed as error:
            raise ServerNotFound(self.url, str(error) or f"nothing answered within {seconds:g} seconds") from error
        except RegistryError:
            raise
        except PermissionError as error:
            reason = f"the socket {self.address.path} is closed to this user: run as the user of the server"
            raise AccessDenied(reason, self.url) from error
        except OSError as error:
            if not (is_gone(error) or isinstance(error, ConnectionResetError)):
                raise  # of a signal handler
            reason = f"nothing listens there ({error.strerror or error}); its own program has to start a stock server"
            raise ServerNotFound(self.url, reason) from error
        self._here().wires[id(wire)] = wire
        return wire

    def _dial_serving(self) -> Wire:
        """Make a connection on which methods of objects can be called."""
        wire = self._dial(self.timeout)
        name = self._label or current_process().name
        if threading.current_thread() is not threading.main_thread():
            name += f"|{threading.current_thread().name}"
        try:
            self._ask(wire, "accept_connection", (name,), self.timeout)
        except BaseException:
            wire.close()
            raise
        return wire

    def _wire(self) -> Wire:
        """Take this thread's connection; it is put back when the call on it is over."""
        threads = self._here().threads
        wire: Wire | None = getattr(threads, "wire", None)
        threads.wire = None
        if wire is not None and not wire.has_ended and not self._closed:
            return wire
        if wire is not None:
            wire.close()
        wire = self._dial_serving()
        self._look()
        return wire

    def _put_back(self, wire: Wire) -> None:
        """Keep a connection for the next call of this thread; a signal handler may have put one there meanwhile."""
        threads = self._here().threads
        other: Wire | None = threads.wire
        threads.wire = wire
        if other is not None:
            other.close()

    # -- requests

    def _exchange(self, wire: Wire, message: bytes, title: str, limit: float | None) -> bytes:
        """Send a request and return its reply. Whatever is raised, the connection is of no further use.

        Args:
            wire: The connection.
            message: The request.
            title: What errors call it.
            limit: When to give up; None: as long as the server lives.

        Raises:
            OutcomeUnknown: The server has ended, or gives no sign of life.
            DeadlinePassed: The limit came first.
        """
        try:
            wire.send(message)
            reply = self._wait(wire, title) if limit is None else wire.receive(limit)
        except (OSError, _framing.BadMessage) as error:
            if isinstance(error, OSError) and not is_gone(error):
                raise
            if self._closed:
                raise self._is_closed() from error
            raise OutcomeUnknown(title, f"the connection broke before the reply ({error})", self.url) from error
        self._is_mute = False
        return reply

    def _wait(self, wire: Wire, title: str) -> bytes:
        """Return the reply to a call, however long it takes, while the server gives signs of life."""
        while True:
            try:
                return wire.receive(monotonic() + self.timeout / 2)
            except DeadlinePassed:
                try:
                    self.ask("dummy", seconds=self.timeout / 2)
                except (CallTimeout, OutcomeUnknown, ServerNotFound) as error:
                    raise OutcomeUnknown(
                        title,
                        f"the server has given no sign of life for {self.timeout:g} seconds, and a stock server cannot "
                        "be asked what became of a call",
                        self.url,
                    ) from error

    def ask(self, function: str, *args: Any, seconds: float | None = None) -> Any:
        """Call a function of the server that has no effect, on a connection of its own.

        Raises:
            CallTimeout: It was not answered in time.
        """
        seconds = self.timeout if seconds is None else seconds
        with self._dial(seconds) as wire:
            return self._ask(wire, function, args, seconds)

    def _ask(self, wire: Wire, function: str, args: tuple[Any, ...], seconds: float) -> Any:
        message = self._pickled((None, function, args, {}), function)
        try:
            reply = self._exchange(wire, message, function, monotonic() + seconds)
        except DeadlinePassed as error:
            raise CallTimeout(function, seconds, "the server is silent", self.url) from error
        return self._result(reply, function)

    def create(self, typeid: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> StockProxy:
        """Have the server call what it has registered as `typeid`, and return a proxy of the object.

        Raises:
            UnknownType: It has registered nothing of that name.
            RemoteError: The factory has raised an error.
        """
        message = self._pickled((None, "create", (typeid, *args), dict(kwargs)), typeid)
        with self._dial(self.timeout) as wire:
            life = self._look()
            reply = self._exchange(wire, message, typeid, None)
        try:
            ident, exposed = self._result(reply, typeid)
        except RemoteError as error:
            if (error.type_name, error.message) == ("KeyError", repr(typeid)):
                hint = "It is a stock multiprocessing server, which has what its program registers and cannot tell what"
                raise UnknownType(typeid, hint, self.url) from error
            if args and error.type_name == "TypeError":
                told = f"{error.message}. {NAMELESS}"
                raise RemoteError(typeid, error.type_name, told, error.traceback, self.url) from error
            raise
        return self._made(typeid, ident, exposed, life)

    def find(self, typeid: str, ident: str, exposed: Iterable[str] | None = None) -> StockProxy:
        """Return a proxy for an object by what it is known as there."""
        life = self._look()
        # An argument of a process of `multiprocessing` that is just beginning is its parent's until it is used, since
        # finalizers that are made so early are forgotten.
        is_borrowed = getattr(current_process(), "_inheriting", False)
        try:
            if exposed is None:
                exposed = self.ask("get_methods", Token(typeid, self.address.stock_form, ident))
            if not is_borrowed:
                self._count("incref", typeid, ident, self.timeout)
        except RemoteError as error:
            raise self._gone(typeid, error) from error
        return self._made(typeid, ident, exposed, life, holds=not is_borrowed)

    def call(self, proxy: StockProxy, method: str, args: Iterable[Any], kwds: Mapping[str, Any]) -> Any:
        """Call a method of an object, and return its result.

        Raises:
            NoSuchObject: The object, or the server that had it, is gone.
            OutcomeUnknown: The server has ended, or gives no sign of life.
            NotShareable: The arguments, or the result, cannot be pickled.
            Exception: Whatever the method raises.
        """
        title = f"{proxy._typeid}.{method}"
        message = self._pickled((proxy._ident, method, tuple(args), dict(kwds)), title)
        wire = self._wire()
        try:
            self._check(proxy)
        except BaseException:
            self._put_back(wire)
            raise
        try:
            reply = self._exchange(wire, message, title, None)
        except BaseException:
            # The reply may still come, and must not be the reply to another call.
            wire.close()
            raise
        self._put_back(wire)
        try:
            return self._result(reply, title)
        except RemoteError as error:
            if (error.type_name, error.message) == ("KeyError", repr(proxy._ident)):
                raise self._gone(proxy._typeid, error) from error
            raise

    def _check(self, proxy: StockProxy) -> None:
        """See to it that an object is still the one that its proxy was made for, and that this process holds it."""
        if proxy._life != self.life:
            raise self._gone(proxy._typeid, None)
        if proxy._holder != os.getpid():
            try:
                self._count("incref", proxy._typeid, proxy._ident, self.timeout)
            except RemoteError as error:
                raise self._gone(proxy._typeid, error) from error
            self._hold(proxy)

    def _gone(self, typeid: str, error: RemoteError | None) -> NoSuchObject:
        if error is None:
            reason = "the server that had it has ended, and another one knows nothing of it; make the proxy anew"
        else:
            reason = "it went with its last proxy, as objects of a stock server do; keep one, or make the object anew"
        return NoSuchObject(typeid, reason, self.url)

    def _is_closed(self) -> Closed:
        return Closed(f"this client of {self.url}", "make another one with connect()")

    # -- references

    def _made(self, typeid: str, ident: str, exposed: Iterable[str], life: int, *, holds: bool = True) -> StockProxy:
        """Return a proxy, which takes over a reference that the server counts already, where it `holds` one."""
        names = tuple(exposed)
        kind = self._classes.get(names)
        if kind is None:
            kind = self._classes[names] = _class_of(names)
        proxy = kind(self, typeid, ident, names, life)
        if holds:
            self._hold(proxy)
        return proxy

    def _hold(self, proxy: StockProxy) -> None:
        number = id(proxy)
        proxy._holder = os.getpid()
        arguments = (number, proxy._typeid, proxy._ident, proxy._life)
        self._held[number] = Finalize(proxy, self._let_go, args=arguments, exitpriority=10)

    def _let_go(self, number: int, typeid: str, ident: str, life: int) -> None:
        """Tell the server that a proxy is gone. It must not wait for long, and has nobody to tell of an error."""
        self._held.pop(number, None)
        if self._is_mute or self._closed or life != self.life:
            return
        try:
            self._count("decref", typeid, ident, LAST_WORDS)
        except Exception:  # noqa: BLE001 - the server has gone, or stands still; there is nothing else to be done
            self._is_mute = True

    def _count(self, function: str, typeid: str, ident: str, seconds: float) -> None:
        """Tell the server of a reference, if it is still the same server."""
        with self._dial(seconds) as wire:
            anchor = self._here().anchor
            if anchor is None or anchor.has_ended:
                raise self._gone(typeid, None)
            self._ask(wire, function, (ident,), seconds)

    # -- pickles

    def _pickled(self, request: tuple[Any, ...], title: str) -> bytes:
        buffer = io.BytesIO()
        try:
            _Pickler(buffer, PROTOCOL).dump(request)
        except Exception as error:
            raise NotShareable(f"an argument of {title}", f"it cannot be pickled: {error}") from error
        return buffer.getvalue()

    def _result(self, reply: bytes, title: str) -> Any:
        """Return the result that a reply has, or raise its error.

        It is unpickled, which may run code: the user has named the server as one to be trusted with that.
        """
        try:
            kind, result = _Unpickler(reply, self._rebuilt).load()
        except RegistryError:
            raise
        except Exception as error:
            raise NotShareable(f"the result of {title}", f"it cannot be unpickled here: {error}") from error
        if kind == "#RETURN":
            return result
        if kind == "#PROXY":
            exposed, token = result
            return self._made(token.typeid, token.id, exposed, self.life)
        if kind == "#ERROR" and isinstance(result, BaseException):
            try:
                raise result
            finally:
                del result  # its traceback has this frame, and with it the proxy
        text = str(result)
        name, _, message = (text.rstrip().splitlines() or [""])[-1].partition(": ")
        raise RemoteError(title, name, message, text, self.url)

    def _rebuilt(self, function: object, token: Any, serializer: str, kwds: dict[str, Any]) -> Any:
        """Return the proxy that stands in a reply: of this server, or of another one.

        That other one is shown the key that this process has for it, else the same as this one: what has come in a
        pickle of this server could have taken the key by itself.
        """
        server = self
        if not self._is_here(token.address):
            path = isinstance(token.address, str)
            url = f"stock+unix://{token.address}" if path else "stock+tcp://{}:{}".format(*token.address)
            key = self._key_for(url) or self._authkey
            server = self._others.get(url) or StockServer(
                parse(url), key, self.timeout, self._label, self.reopen, self._key_for
            )
            self._others[url] = server
        return server.find(token.typeid, token.id, kwds.get("exposed"))

    def _is_here(self, address: object) -> bool:
        """Tell whether the address in a token is this server's, which may listen on all interfaces."""
        if address == self.address.stock_form:
            return True
        return isinstance(address, tuple) and address in [(host, self.address.port) for host in ("", "0.0.0.0", "::")]


class _Pickler(ForkingPickler):
    """Pickle as `multiprocessing` does, with proxies as a stock server knows them."""

    def reducer_override(self, value: object) -> Any:
        if not isinstance(value, StockProxy):
            return NotImplemented
        token = Token(value._typeid, value._server.address.stock_form, value._ident)
        return RebuildProxy, (AutoProxy, token, "pickle", {"exposed": value._exposed})


class _Unpickler(pickle.Unpickler):
    """Unpickle a reply. Proxies in it become ours: those of `multiprocessing` would try the key of this process."""

    def __init__(self, data: bytes, rebuilt: Callable[..., Any]) -> None:
        super().__init__(io.BytesIO(data))
        self._rebuilt = rebuilt

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("multiprocessing.managers", "RebuildProxy"):
            return self._rebuilt
        return super().find_class(module, name)


# Proxies


class StockProxy:
    """Stand for an object of a stock server. Its class has a method for each name that the server tells.

    `_callmethod` and `_getvalue` are those of `multiprocessing.managers.BaseProxy`.
    """

    __slots__ = ("__weakref__", "_exposed", "_holder", "_ident", "_life", "_server", "_typeid")

    def __init__(self, server: StockServer, typeid: str, ident: str, exposed: tuple[str, ...], life: int) -> None:
        self._server = server
        self._typeid = typeid
        self._ident = ident
        self._exposed = exposed
        self._life = life
        self._holder = 0

    def _callmethod(self, methodname: str, args: Iterable[Any] = (), kwds: Mapping[str, Any] | None = None) -> Any:
        """Call a method by its name, and return its result."""
        return self._server.call(self, methodname, args, kwds or {})

    def _getvalue(self) -> Any:
        """Return a copy of the object."""
        return self._callmethod("#GETVALUE")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
        raise AttributeError(
            f"{self._typeid} on {self._server.url} has no method {name!r}; it has {', '.join(self._exposed)}. It is a "
            "stock multiprocessing server: what its objects lack, those of `registry serve` may have",
            name=name,
            obj=self,
        )

    def __repr__(self) -> str:
        return f"<shared {self._typeid} {self._ident} on {self._server.url}>"

    def __eq__(self, other: object) -> bool:
        return self._identity() == other._identity() if isinstance(other, StockProxy) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[str, str, str]:
        return self._server.url, self._typeid, self._ident

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str, str]]:
        return self._server.reopen, self._identity()

    def __copy__(self) -> StockProxy:
        return self

    def __deepcopy__(self, memo: object) -> StockProxy:
        return self


def _class_of(exposed: tuple[str, ...]) -> type[StockProxy]:
    """Return a class with a method for each name that may be one."""
    body: dict[str, Any] = {"__slots__": ()}
    for name in exposed:
        if name in SPECIAL or (name.isidentifier() and not name.startswith("_")):
            body[name] = _method(name)
    if {"acquire", "release"} <= body.keys():
        body["__enter__"] = _method("acquire")
        body["__exit__"] = lambda self, *error: self._callmethod("release")
    if "__next__" in body:
        body.setdefault("__iter__", lambda self: self)
    return type("StockProxy", (StockProxy,), body)


def _method(name: str) -> Callable[..., Any]:
    def method(self: StockProxy, /, *args: Any, **kwds: Any) -> Any:
        return self._callmethod(name, args, kwds)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"Call `{name}` of the object on the server."
    return method
