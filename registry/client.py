"""The client: connect to a server, or start one, and use what it shares.

All clients of a process that name the same server with the same key use one session and one connection. A client is
safe to share between threads, and may be held at module level: `ManagerClient` does no I/O until it is first used.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload

from registry import _addresses, _codec, _peers
from registry._addresses import Address, TlsFiles
from registry._cache import Cache
from registry._link import Link
from registry._transport import Dialed, dial
from registry._wire import DELETE
from registry.errors import AccessDenied, Closed, RegistryError, ServerNotFound, UnknownType
from registry.proxies import Proxy, Remote, Unresolved, proxy_class

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from registry._leaves import Handle
    from registry._stock_client import StockServer
    from registry._typed import FirstParty
    from registry.declarations import Interface, SharedObject, ValueType
else:
    FirstParty = object

__all__ = ["ManagerClient", "connect"]

T = TypeVar("T")
TlsPaths = Mapping[str, "str | os.PathLike[str]"]

# The one session of this process with each server and key.
_links: dict[tuple[str, bytes], Link] = {}
_links_lock = threading.Lock()

_all_homes: weakref.WeakSet[Home] = weakref.WeakSet()

# The plugin for arrays and tables, which every installation has; a client that meets one asks it.
ARRAYS = "registry_arrays"

STOCK = "stock+"  # what the address of a stock `multiprocessing` server begins with
MOST_HOMES = 1000  # addresses of proxies that arrived in values, of which those without a session are kept

LAST_WORDS = 1.0  # seconds that the end of the interpreter waits for a thread that is sending


def connect(
    address: str | tuple[str, int] | None = None,
    authkey: bytes | str | None = None,
    *,
    start: bool | None = None,
    timeout: float | None = 30.0,
    cache: bool = True,
    plugins: Iterable[Any] = (),
    label: str | None = None,
    tls: TlsPaths | None = None,
) -> ManagerClient:
    """Connect to a server now, and return the client.

    A name, such as ``connect("scrapers")``, is one server of this user on this machine, and is started if it does not
    run. `ManagerClient` is the same without connecting yet.

    Args:
        address: A name, a URL (``unix:///path``, ``tcp://host:port``, ``tls://host:port``, ``memory://``), or a (host,
            port) tuple. None is the environment's ``REGISTRY_ADDRESS``, else the name ``"default"``.
            ``stock+unix:///path`` and ``stock+tcp://host:port`` are servers of `multiprocessing` itself, whose pickles
            are opened here.
        authkey: The secret shared with the server. None is the file named by ``REGISTRY_AUTHKEY_FILE``, else the
            name's own key file.
        start: Whether to start a server that does not run. None: names yes, all else no.
        timeout: Seconds that a call which should be instant may take, reconnects included. None waits for ever.
        cache: Whether reads may be answered from a coherent cache of this process, where the server keeps one.
        plugins: Plugins that this program uses: installed names, modules or files. A server that is started here
            gets them, and differences from a running one are warned about.
        label: What the server's lists call this process. None: its command and pid.
        tls: For ``tls://``, files in PEM: ``"ca"`` has the certificates of those who may have signed the server's,
            ``"cert"`` and ``"key"`` are what is shown to it. None are the files that ``REGISTRY_TLS_CA``,
            ``REGISTRY_TLS_CERT`` and ``REGISTRY_TLS_KEY`` name; without a CA those are believed that the system
            believes.

    Raises:
        ServerNotFound: Nothing answers there.
        AccessDenied: The keys differ, or one of the two does not accept the other's certificate.
    """
    client = ManagerClient(
        address, authkey, start=start, timeout=timeout, cache=cache, plugins=plugins, label=label, tls=tls
    )
    try:
        client.connect()
    except BaseException:
        client.close()
        raise
    return client


class ManagerClient(FirstParty):
    """Use the shared objects of a server: ``client.<typeid>(name)`` returns a proxy.

    Takes the arguments of `connect`. It does no I/O until it is first used.
    """

    def __init__(
        self,
        address: str | tuple[str, int] | None = None,
        authkey: bytes | str | None = None,
        *,
        start: bool | None = None,
        timeout: float | None = 30.0,
        cache: bool = True,
        plugins: Iterable[Any] = (),
        label: str | None = None,
        tls: TlsPaths | None = None,
    ) -> None:
        make = StockHome if written(address).startswith(STOCK) else Home
        self._home = make(address, authkey, start, timeout, named_plugins(plugins), label or "", cache, tls)

    @classmethod
    def _with(cls, home: Home) -> Self:
        """Return the client of a home that is there already."""
        client = cls.__new__(cls)
        client._home = home
        return client

    def connect(self) -> Self:
        """Connect now, unless connected. Raises as `connect` does."""
        self._home.connect()
        return self

    def close(self) -> None:
        """Leave. With the last client of a server in this process its session ends, and what it held is freed."""
        self._home.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<client of {self._home.address}, {self._home.state}>"

    def __getattr__(self, typeid: str) -> Callable[..., Any]:
        if typeid.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {typeid!r}")
        self._home.check(typeid)
        return partial(self._home.open, typeid)

    def __dir__(self) -> Iterable[str]:
        return sorted({*super().__dir__(), *self._home.typeids()})

    @overload
    def open(self, declaration: SharedObject[T], /, *args: Any, **kwargs: Any) -> T: ...
    @overload
    def open(self, declaration: str, /, *args: Any, **kwargs: Any) -> Any: ...
    def open(self, declaration: SharedObject[T] | str, /, *args: Any, **kwargs: Any) -> Any:
        """Return a proxy for an object: ``open(COOKIES, "x")`` is ``client.cookies("x")``, and knows its type.

        Args:
            declaration: The declaration, or its typeid.
            *args: The object's name, where the type has names, then the arguments that define it.
            **kwargs: Further arguments that define it.
        """
        typeid = declaration if isinstance(declaration, str) else declaration.typeid
        return self._home.open(typeid, *args, **kwargs)

    def delete(self, proxy: Any) -> None:
        """Delete a shared object. Waits in it end with `NoSuchObject`; its name is free for a new one.

        Each process that has used it gets `NoSuchObject` once; its next call makes a new object.
        """
        self._home.delete(proxy)

    def listen(self, callback: Callable[[str], object]) -> Callable[[], None]:
        """Have `callback` called with each new state of this process's session with the server.

        - ``"connected"``: the session has a connection.
        - ``"suspended"``: it has none. What it holds is kept for it, as long as the server believes that it will be
          back.
        - ``"lost"``: it is gone, with all that it held; another process may have that by now. The server says so or is
          another one, or has not answered for the whole lease. In that last case ``"connected"`` may still show
          that it had stood still itself, and everything is as before.

        Each change is told once and in order. A process that begins anew after ``"lost"`` is told ``"connected"``.
        The state at the time of this call is not told, and nothing once the client has been closed.

        Callbacks run one after the other on a thread of this package, which also sends the signs of life of a session
        over TCP: one that does not return in a fraction of the lease has it end. What it raises is logged. After a
        fork it listens to the child's own session in the child, too.

        Returns:
            What ends this; it takes no arguments, and may be called at any time. A call that is under way goes on.
        """
        return self._home.listen(callback)

    def objects(self, pattern: str = "*") -> list[dict[str, Any]]:
        """Return what the server holds, as rows with typeid, name, maker, made, ephemeral and waiting.

        Args:
            pattern: A shell pattern for ``typeid:name``.
        """
        return self._home.objects(pattern)

    def statistics(self, proxy: Any = None) -> dict[str, Any]:
        """Return what an object tells of itself, or without one what the server does."""
        return self._home.statistics(proxy)


def written(address: str | tuple[str, int] | None) -> str:
    """Return an address as errors and proxies show it, the environment's or the usual one where none is given."""
    if address is None:
        address = os.environ.get("REGISTRY_ADDRESS") or _addresses.DEFAULT
    # Looking a name up reads the account's home directory, which a client held by a module must not do yet.
    return address if isinstance(address, str) else str(_addresses.parse(address))


def named_plugins(plugins: Iterable[Any]) -> tuple[Any, ...]:
    """Return the plugins that a client uses, the environment's where none are given."""
    return tuple(plugins) or tuple(name for name in os.environ.get("REGISTRY_PLUGINS", "").split(",") if name)


class Home:
    """What stands behind a client: which server, with which key, and the session that is shared with other clients.

    Attributes:
        address: The server's name or URL, as errors and proxies show it.
        link_type: What kind of session it has.
    """

    link_type: ClassVar[type[Link]] = Link

    def __init__(
        self,
        address: str | tuple[str, int] | None,
        authkey: bytes | str | None,
        start: bool | None,
        timeout: float | None,
        plugins: tuple[Any, ...],
        label: str,
        cache: bool = True,
        tls: TlsPaths | None = None,
    ) -> None:
        self.address = written(address)
        self._tls = _addresses.given_tls(tls, self.address)
        self._authkey = authkey.encode() if isinstance(authkey, str) else authkey
        self._start = start
        # Seconds that a call which should be instant may take, for this client; its session may be shared.
        self.timeout = float("inf") if timeout is None else timeout
        self.plugins = plugins
        _codec.add_source(ARRAYS, partial(_value_types, ARRAYS))
        for plugin in plugins:
            if isinstance(plugin, str) and _is_file(plugin):
                plugin = os.path.abspath(plugin)  # where it is now, whatever directory this process goes to
            _codec.add_source(plugin if isinstance(plugin, str) else id(plugin), partial(_value_types, plugin))
        self._label = label
        self.cache = Cache(cache)
        self._link: Link | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._memory: Any = None
        self._listening: list[Callable[[], None]] = []
        self.is_revived = False  # made for proxies that came without a client, see `home_of`
        self.is_alone = False  # has a session that no other client of this process shares; for tests
        _all_homes.add(self)

    @property
    def is_connected(self) -> bool:
        return self._link is not None and self._link.greeting is not None

    @property
    def state(self) -> str:
        return "closed" if self._closed else "connected" if self.is_connected else "not connected"

    @property
    def domain(self) -> str:
        """The trust domain of this process with this server: values pickled here are unpickled only in it."""
        domain = _peers.trust_domain(os.geteuid()) if hasattr(os, "geteuid") else ""
        greeting = self._link.greeting if self._link is not None else None
        return f"{domain}/{greeting.realm}" if greeting is not None and greeting.realm else domain

    def link(self) -> Link:
        """Return this process's session with the server; it need not be connected."""
        link = self._link
        if link is not None:
            return link
        with self._lock:
            if self._closed:
                raise Closed(f"this client of {self.address}", "make another one with connect()")
            if self._link is None:
                link = self._make_link()
                link.caches.append(self.cache)
                self._link = link
            return self._link

    def connect(self) -> None:
        """As `ManagerClient.connect`."""
        self.link().ensure()

    def check(self, typeid: str) -> None:
        """Say at once that the server has no such type, where that is known."""
        if self.is_connected:
            self.interface(typeid)

    def typeids(self) -> Iterable[str]:
        """Return the types that the server has, where that is known."""
        return self.link().table if self.is_connected else ()

    def delete(self, proxy: Any) -> None:
        """As `ManagerClient.delete`."""
        _remote_of(proxy).invoke(DELETE)

    def objects(self, pattern: str) -> list[dict[str, Any]]:
        """As `ManagerClient.objects`."""
        from fnmatch import fnmatchcase

        columns = ("typeid", "name", "maker", "made", "ephemeral", "waiting")
        link = self.link()
        try:
            rows = [dict(zip(columns, row)) for row in link.ask("objects")]
            return [row for row in rows if fnmatchcase(f"{row['typeid']}:{row['name']}", pattern)]
        except (TypeError, KeyError) as error:
            raise link.unreadable(error) from error

    def statistics(self, proxy: Any) -> dict[str, Any]:
        """As `ManagerClient.statistics`."""
        link = self.link()
        if proxy is None:
            found = link.ask("status")
        else:
            remote = _remote_of(proxy)
            remote.resolve()
            found = link.ask("statistics", remote.typeid, remote.name)
        if not isinstance(found, dict):
            raise link.unreadable(TypeError(f"statistics of type {type(found).__name__}"))
        return dict(found)

    def listen(self, callback: Callable[[str], object]) -> Callable[[], None]:
        """As `ManagerClient.listen`, until this client is closed."""
        from registry import _keeper

        stop = _keeper.listen(self.link(), callback)
        self._listening.append(stop)
        return stop

    def adopt(self, link: Link) -> None:
        """Use a session that is open already, for as long as its clients keep it open."""
        link.caches.append(self.cache)
        self._link = link

    def close(self) -> None:
        """Leave the session; the last to leave ends it."""
        with self._lock:
            link, self._link = self._link, None
            self._closed = True
            listening, self._listening = self._listening, []
            self.cache.close()
        if link is None:
            return
        for stop in listening:
            stop()
        link.caches.remove(self.cache)
        links = self._shared_links()
        with _links_lock:
            link.users -= 1
            last = link.users <= 0
            if last:
                for key in [key for key, known in links.items() if known is link]:
                    del links[key]
        if last:
            link.close()
        if self._memory is not None:
            self._memory.stop()

    def _shared_links(self) -> dict[tuple[str, bytes], Link]:
        """Return the sessions that clients share."""
        return _links

    def _memory_server(self) -> Any:
        """Return the server of ``memory://``, which is this client's own."""
        from registry._memory import MemoryServer

        return MemoryServer(self.plugins)

    def _make_link(self) -> Link:
        address = _addresses.parse(self.address)
        links = self._shared_links()
        make = partial(
            self.link_type,
            address=self.address,
            timeout=None if self.timeout == float("inf") else self.timeout,
            label=self._label,
            code=_versions(self.plugins),
        )
        if address.kind == "memory":
            self._memory = self._memory_server()
            link = make(self._memory.dial)
            link.users = 1
            with _links_lock:
                links[self.address, link.key] = link
            return link
        if address.kind.startswith("stock"):
            raise ServerNotFound(
                self.address,
                "a stock multiprocessing server is used by registry.connect() only, and by a loop in a thread",
            )
        if address.kind not in ("unix", "tcp", "tls"):
            raise ServerNotFound(self.address, f"this version does not speak {address.kind}")
        start = address.name is not None if self._start is None else self._start
        given, files = _given_for(self.address) if self.is_revived else (self._authkey, self._tls)
        mark = hashlib.sha256(given).digest() if given is not None else b""
        if address.kind == "tls":
            files = files or _addresses.environment_tls()
            mark += files.mark
        identity = (str(address), os.urandom(16) if self.is_alone else mark)
        with _links_lock:
            shared = links.get(identity)
            if shared is None or shared.closed:
                shared = links[identity] = make(partial(_dial, address, given, start, self.plugins, files))
            shared.users += 1
            return shared

    def open(self, typeid: str, /, *args: Any, **kwargs: Any) -> Any:
        """Return a proxy; unresolved while nothing has connected yet."""
        remote = Remote(self, typeid, args, kwargs)
        if not self.is_connected:
            return Unresolved(remote)
        return proxy_class(remote.resolve())(remote)

    def interface(self, typeid: str) -> Interface:
        """Return the row of a type in the server's table, connecting if need be.

        Raises:
            UnknownType: The server has no such type.
        """
        link = self.link()
        interface = link.table.get(typeid) or link.ensure().table.get(typeid)
        if interface is None:
            raise self.unknown(typeid)
        return interface

    def unknown(self, typeid: str) -> UnknownType:
        """Return the error that says that the server has no such type, and who has."""
        link = self.link()
        return UnknownType(typeid, _hint(typeid, self, link.table), link.label)

    @property
    def reopen(self) -> Callable[[str, str, str], Any]:
        """What unpickles a proxy."""
        return _reopen

    def revive(self, handle: Handle) -> Any:
        """Return the proxy that a handle in a value stands for."""
        home = self if handle.address in ("", self.address) else home_of(handle.address)
        if isinstance(home, StockHome) and not home.is_asked_for:
            remote = Remote(home, handle.typeid, (handle.name,), {})
            remote.is_found = True
            return Unresolved(remote)  # whose use says why it is of none
        return home.find(handle.typeid, handle.name)

    def find(self, typeid: str, name: str) -> Any:
        """Return a proxy for an object by the name that it has, also where each call makes a new one."""
        remote = Remote(self, typeid, (name,) if name else (), {})
        remote.is_found = True
        return proxy_class(remote.resolve())(remote) if self.is_connected else Unresolved(remote)


class StockHome(Home):
    """What stands behind a client of a stock `multiprocessing` server: not a session, but what `_stock_client` has."""

    def __init__(self, *options: Any) -> None:
        super().__init__(*options)
        if self._start:
            raise ValueError(f"{self.address} cannot be started from here: its own program has to start a stock server")
        self._server: StockServer | None = None

    @property
    def is_connected(self) -> bool:
        return self._server is not None and self._server.is_connected

    @property
    def is_asked_for(self) -> bool:
        """Whether this program has named the server itself: what it answers is unpickled, which runs code."""
        return not self.is_revived or any(
            home.address == self.address and not (home.is_revived or home._closed) for home in list(_all_homes)
        )

    def server(self) -> StockServer:
        """Return the server; nothing need be connected."""
        with self._lock:
            if self._closed:
                raise Closed(f"this client of {self.address}", "make another one with connect()")
            if self._server is None:
                # Not before: it brings `multiprocessing` along.
                from registry._stock_client import StockServer

                address = _addresses.parse(self.address)
                key = _addresses.find_authkey(_key_for(self.address) if self.is_revived else self._authkey, address)
                self._server = StockServer(address, key, self.timeout, self._label, _reopen, _key_for)
            return self._server

    def connect(self) -> None:
        self.server().connect()

    def close(self) -> None:
        with self._lock:
            server, self._server = self._server, None
            self._closed = True
        if server is not None:
            server.close()

    def open(self, typeid: str, /, *args: Any, **kwargs: Any) -> Any:
        """Have the server make an object, or give the one that it has, and return a proxy."""
        return self.server().create(typeid, args, kwargs)

    def find(self, typeid: str, name: str) -> Any:
        return self.server().find(typeid, name)

    def check(self, typeid: str) -> None:
        """Nothing is known of the types of a stock server before it is asked for an object."""

    def typeids(self) -> Iterable[str]:
        return ()

    def statistics(self, proxy: Any) -> dict[str, Any]:
        if proxy is not None:
            raise self._lacks("tell of one object", "statistics() without one tells how many there are")
        server = self.server()
        return {
            "address": server.url,
            "objects": server.ask("number_of_objects"),
            "debug_info": server.ask("debug_info"),
        }

    def delete(self, proxy: Any) -> None:
        raise self._lacks("delete an object", "it goes with its last proxy")

    def objects(self, pattern: str) -> list[dict[str, Any]]:
        raise self._lacks("list its objects", "statistics() tells what it says of them")

    def listen(self, callback: Callable[[str], object]) -> Callable[[], None]:
        raise self._lacks("keep a session", "there is nothing to listen to")

    def link(self) -> Link:
        raise self._lacks("keep a session", "this needs one")

    def interface(self, typeid: str) -> Interface:
        if self.is_asked_for:
            raise self._lacks("tell its types", "they are what its program registers")
        raise AccessDenied(
            f"a value holds a proxy that leads to {self.address}, and what a multiprocessing server answers is "
            f'unpickled, which runs code here: connect("{self.address}") if that may be, and read the value again'
        )

    def _lacks(self, what: str, instead: str) -> RegistryError:
        return RegistryError(
            f"{self.address} is a stock multiprocessing server, which cannot {what}: {instead}. "
            "A server of this package can, such as `registry serve`"
        )


def _remote_of(proxy: Any) -> Remote:
    if not isinstance(proxy, Proxy):
        raise TypeError(f"this takes a proxy, such as client.dict('prices'), not {proxy!r}")
    return proxy._remote


def _hint(typeid: str, home: Home, table: Iterable[str]) -> str:
    """Say who could provide a type; the only place where a client looks at what is installed."""
    from difflib import get_close_matches

    from registry import _plugins

    close = get_close_matches(typeid, list(table), n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    where = _plugins.whence(typeid)
    if where:
        return (
            f"This interpreter has it from {where}; that server does not: install it there and "
            f'"registry restart -a {home.address}", or use a server of another name, such as connect("scrapers")'
        )
    if home.plugins and typeid in _plugins.load(only=home.plugins).declarations:
        return (
            f"This client names a plugin that has it, but that server was started without: "
            f'"registry stop -a {home.address}" and connect again, or use a server of another name'
        )
    return f"It has {', '.join(sorted(table)) or 'none'}. A type comes with a plugin: see `registry plugins`"


def home_of(address: str) -> Home:
    """Return what serves proxies that arrive in values and pickles, which never hold a key.

    It is this process's open session with the address, or else a lazy client; that has the key that another client
    here was given for the address, or finds it as any other.
    """
    with _links_lock:
        home = _homes.get(address)
        if home is None or (home._link is not None and home._link.closed):
            if len(_homes) >= MOST_HOMES:  # a server may name as many as it likes; proxies keep their own
                for each in [each for each, known in _homes.items() if known._link is None]:
                    del _homes[each]
            make = StockHome if address.startswith(STOCK) else Home
            home = _homes[address] = make(address, None, None, 30.0, (), "")
            home.is_revived = True
        if home._link is None:
            links = [link for link in _links.values() if link.address == address and not link.closed]
            if address == "memory://" and len(links) != 1:
                which = f"which of its {len(links)} clients is meant" if links else "it went with its client"
                raise ServerNotFound(address, f"a proxy leads back only in its own process, and {which}")
            if links:
                home.adopt(links[0])
        return home


def _given_for(address: str) -> tuple[bytes | None, TlsFiles | None]:
    """Return the key and the files of TLS that a client of this process was given for an address, used yet or not."""
    homes = [home for home in _all_homes if home.address == address and not home._closed]
    keys = [home._authkey for home in homes if home._authkey is not None]
    files = [home._tls for home in homes if home._tls is not None]
    return next(iter(keys), None), next(iter(files), None)


def _key_for(address: str) -> bytes | None:
    return _given_for(address)[0]


_homes: dict[str, Home] = {}


def _reopen(address: str, typeid: str, name: str) -> Any:
    """Make a proxy from its pickle, which never holds a key: this process's own client for the address serves it."""
    return home_of(address).find(typeid, name)


def _dial(
    address: Address,
    authkey: bytes | None,
    start: bool,
    plugins: tuple[Any, ...],
    tls: TlsFiles | None,
    deadline: float,
    resume: bool,
) -> Dialed:
    """Connect to a socket address, starting the server of a name where that is asked for and nobody answers."""
    _promise_goodbye()
    named = start and address.name is not None
    starts = named and not resume
    try:
        key = _addresses.find_authkey(authkey, address, create=starts)
    except AccessDenied:
        if address.name is not None and not _addresses.Place(address).socket.exists():
            raise ServerNotFound(address.name, _absence(address, None)) from None
        raise
    try:
        if address.path is not None and address.name is None:
            _addresses.check_socket(address.path)
        return dial(address, key, deadline, tls)
    except PermissionError as error:
        if isinstance(error, AccessDenied):
            raise
        raise AccessDenied(
            f"the socket {address.path} is closed to this user: run as the user of the server, or have it started by a "
            "member of a group that both are in, with --group"
        ) from error
    except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError, BrokenPipeError) as error:
        # A reset is a server that was just going down.
        absence = ServerNotFound(str(address.name or address), _absence(address, error))
        if not named:
            raise absence from error
    from registry import _starter

    def again() -> Dialed:
        return dial(address, key, deadline)

    if starts:
        return _starter.start_server(address.name or "", plugins, deadline, again, authkey)
    dialed = _starter.revive(address.name or "", deadline, again)
    if dialed is None:
        raise absence
    return dialed


def _absence(address: Address, error: OSError | None) -> str:
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return "it closed the connection during the handshake"
    if address.name is not None:
        return f'no server of that name runs; start it with "registry serve {address.name}", or connect(start=True)'
    reason = error.strerror if error else "no socket"
    return f'nothing listens there ({reason}); start one with "registry serve --address {address}"'


def _is_file(plugin: str) -> bool:
    return plugin.endswith(".py") or "/" in plugin or os.sep in plugin


def _value_types(plugin: Any) -> Iterable[ValueType]:
    """Return what a plugin that a client names declares of values; it is imported, but pluggy is not asked."""
    if isinstance(plugin, str):
        module = sys.modules.get(plugin)
        if module is None and _is_file(plugin):
            from registry import _plugins

            module = _plugins.from_file(plugin)
        elif module is None:
            from importlib import import_module
            from importlib.util import find_spec

            # The name of an entry point need not be that of a module; only the server knows what it means.
            module = import_module(plugin) if find_spec(plugin.partition(".")[0]) is not None else None
        plugin = module
    elif isinstance(plugin, type):
        plugin = plugin()
    hook = getattr(plugin, "registry_value_types", None)
    return hook() if callable(hook) else ()


def _versions(plugins: tuple[Any, ...]) -> dict[str, str]:
    """Return the plugin modules that this program has loaded, with what tells their versions apart."""
    versions: dict[str, str] = {}
    for plugin in plugins:
        name = plugin if isinstance(plugin, str) else getattr(plugin, "__name__", "")
        module = sys.modules.get(name)
        version = getattr(module, "__version__", None)
        if isinstance(version, str):
            versions[name] = version
    return versions


@atexit.register
def _say_goodbye() -> None:
    """Free at once what this process holds, when its interpreter ends in order."""
    for link in list(_links.values()):
        link.last_words(LAST_WORDS)


def _say_goodbye_as_child() -> None:
    # In some versions the function of a child has returned before its threads are waited for.
    main = threading.main_thread()
    if all(thread.daemon or thread is main for thread in threading.enumerate()):
        _say_goodbye()


def _promise_goodbye() -> None:
    """See to it that a child of `multiprocessing` says goodbye, too: it ends without `atexit`."""
    global _promised
    process = sys.modules.get("multiprocessing.process")
    if _promised != os.getpid() and process is not None and process.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, _say_goodbye_as_child, exitpriority=-1000)  # after those of everybody else
        _promised = os.getpid()


_promised = 0


def forget(directory: str) -> None:
    """End the sessions with the servers whose sockets are in a directory; their clients begin anew. For tests.

    Clients that modules hold go on after it: they look up again what their names mean.
    """
    for link in forgotten(_links, directory):
        link.close()


def forgotten(links: dict[tuple[str, bytes], Link], directory: str) -> list[Link]:
    """Take those sessions out of a table, and out of their clients, and return them."""
    inside = f"unix://{directory}/"
    with _links_lock:
        gone = [links.pop(mark) for mark in list(links) if mark[0].startswith(inside)]
    for home in list(_all_homes):
        with home._lock:
            if home._link not in gone:
                continue
            home._link = None
            home.cache.drop_inherited()
            listening, home._listening = home._listening, []
        for stop in listening:
            stop()
    return gone


def _after_fork() -> None:
    """In a forked child: a new session at first use. It owns nothing that its parent holds."""
    global _links_lock
    _links_lock = threading.Lock()
    for home in _all_homes:
        home._lock = threading.Lock()
        home.cache.drop_inherited()
    for link in _links.values():
        link.drop_inherited()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
