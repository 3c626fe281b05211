"""A `multiprocessing` manager class made of plugins, for programs that are written for `BaseManager`.

`manager_class` returns a subclass of `BaseManager` that has a method for each shared type, with callable,
proxy type and exposed methods all explicit. Its server is ours, so what is shared has names, a lock is
freed when the process that holds it dies, and native clients may use the same objects at the same time. Its
clients speak the stock protocol.

A class made at run time has no name under which pickle could find it. So its metaclass has it pickled as
what it was made of, the plugins, and another process makes it again: ``start()`` works with every start
method, as long as the plugins can be found there by name. Proxies are made again from the row of their
type.
"""

from __future__ import annotations

import copyreg
import os
import signal
from collections.abc import Callable, Iterable, Mapping
from multiprocessing import ProcessError, connection, util
from multiprocessing.managers import (  # type: ignore[attr-defined]
    BaseManager,
    BaseProxy,
    ConditionProxy,
    State,
    dispatch,
)
from typing import Any, Final

from registry import _addresses, _plugins
from registry._plugins import Plugins
from registry.declarations import Interface
from registry.errors import PluginError
from registry.server import ManagerServer

__all__ = ["manager_class"]


def manager_class(*plugins: object) -> type[BaseManager]:
    """Make a `BaseManager` subclass that shares what plugins declare.

    Args:
        plugins: Exactly these: names of installed plugins, modules, ``"./file.py"``, objects with hooks, or
            `SharedObject` records. None at all means everything that is installed.

    Returns:
        A class that is used as any manager: ``get_server()``, ``start()``, ``connect()``, ``with``. Its
        methods are the typeids; those of named types take the name first.

    Raises:
        PluginError: A plugin cannot be found, or two of them clash.

    >>> Manager = manager_class("registry_containers", "registry_sync")
    >>> with Manager() as manager:
    ...     prices = manager.dict("prices")
    ...     with manager.lock("prices"):
    ...         prices["BTC"] = 97_000
    ...     prices.copy()
    {'BTC': 97000}
    """
    return _class_of(_plugins.load(only=plugins or None).required())


def _class_of(plugins: Plugins) -> type[BaseManager]:
    namespace: dict[str, object] = {
        "__doc__": f"Share {', '.join(sorted(plugins.declarations)) or 'nothing'}.",
        "__module__": __name__,
        "_plugins": plugins,
        "_registry": {},
    }
    for typeid, declaration in plugins.declarations.items():
        proxytype = proxy_type(declaration.interface)
        namespace["_registry"][typeid] = (  # type: ignore[index]
            declaration.factory, declaration.interface.exposed, None, proxytype,
        )  # fmt: skip
        namespace[typeid] = _maker(declaration.interface, proxytype)
    made: Any = _ManagerType("RegistryManager", (_Manager,), namespace)
    return made  # type: ignore[no-any-return]


# Pickling


class _ManagerType(type):
    """The class of generated classes."""


def _rebuild(only: tuple[object, ...] | None, extra: tuple[object, ...]) -> type[BaseManager]:
    return _class_of(_plugins.load(only=only, extra=extra))


def _reduce_class(cls: type) -> str | tuple[Any, ...]:
    if "_plugins" not in vars(cls):
        return cls.__qualname__  # a subclass, which has a name of its own
    return _rebuild, cls._plugins.spec  # type: ignore[attr-defined]


copyreg.pickle(_ManagerType, _reduce_class)


# Proxies


def proxy_type(interface: Interface) -> type[BaseProxy]:
    """Make the class of a type's proxies."""
    namespace: dict[str, object] = {
        "__doc__": interface.doc or None,
        "__module__": __name__,
        "_exposed_": interface.exposed,
        "_interface": interface,
    }
    for name in interface.exposed:
        namespace[name] = _method(name)
    if interface.shape in ("lock", "semaphore", "condition"):
        namespace["__enter__"] = _enter
        namespace["__exit__"] = _exit
    if interface.shape == "condition":
        namespace["wait_for"] = ConditionProxy.wait_for
    base = _CountedProxy if interface.per == "call" else _Proxy
    return type(f"{interface.typeid.capitalize()}Proxy", (base,), namespace)


def _method(name: str) -> Callable[..., object]:
    def method(self: Any, /, *args: Any, **kwds: Any) -> object:
        return self._callmethod(name, args, kwds)

    method.__name__ = method.__qualname__ = name
    return method


def _enter(self: Any) -> object:
    return self._callmethod("acquire")


def _exit(self: Any, *error: object) -> None:
    self._callmethod("release")


class _CountedProxy(BaseProxy):
    """A proxy of an object that goes with its last one; counted as `multiprocessing` counts."""

    _interface: Interface

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild, (_, token, serializer, kwds) = super().__reduce__()
        return rebuild, (_Rebuilder(self._interface.pack()), token, serializer, kwds)


class _Proxy(_CountedProxy):
    """A proxy of an object that has a name, and lives without any proxy."""

    def _incref(self) -> None:
        """Count nothing: this would be a connection of its own, and one more at the end."""


class _Rebuilder:
    """What a pickled proxy calls to make its class again."""

    __slots__ = ("row",)

    def __init__(self, row: object) -> None:
        self.row = row

    def __call__(self, token: Any, serializer: str, **kwds: Any) -> BaseProxy:
        return proxy_type(Interface.unpack(self.row))(token, serializer, **kwds)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Rebuilder, (self.row,)


def _maker(interface: Interface, proxytype: Any) -> Callable[..., BaseProxy]:
    """Return the method of a manager that makes proxies of a type."""
    typeid = interface.typeid

    def make(self: _Manager, /, *args: Any, **kwds: Any) -> BaseProxy:
        token, exposed = self._create(typeid, *args, **kwds)
        proxy: BaseProxy = proxytype(token, self._serializer, manager=self, authkey=self._authkey, exposed=exposed)
        if interface.per == "call":
            # `create` has counted one, the proxy another.
            with self._Client(token.address, authkey=self._authkey) as conn:
                dispatch(conn, None, "decref", (token.id,))
        return proxy

    make.__name__ = make.__qualname__ = typeid
    make.__doc__ = interface.doc or None
    return make


# The manager and its server


class _Manager(BaseManager):
    """What all generated classes have in common."""

    _plugins: Plugins
    # Of BaseManager, which does not tell their types.
    _registry: dict[str, Any]
    _Client: Any
    _authkey: bytes
    _ctx: Any
    _serializer: str
    _state: Any
    _create: Any

    def __init__(
        self,
        address: Any = None,
        authkey: bytes | None = None,
        serializer: str = "pickle",
        ctx: Any = None,
        *,
        shutdown_timeout: float = 1.0,
    ) -> None:
        """Make a manager; nothing is started or connected.

        Args:
            address: A (host, port) pair or the path of a unix socket; a URL of either is taken too. None is
            a private
                address that is drawn when the server starts.
            authkey: The secret. None is that of the current process.
            serializer: ``"pickle"``; there is no other.
            ctx: A context of `multiprocessing`, which decides how `start` starts.
            shutdown_timeout: Seconds that the server may take to stop before it is killed.
        """
        if serializer != "pickle":
            raise ValueError(f"serializer must be 'pickle', not {serializer!r}")
        if isinstance(address, str) and "://" in address:
            address = _addresses.parse(address).stock_form
        super().__init__(address, authkey, serializer, ctx)
        self._address = address
        self._shutdown_timeout = shutdown_timeout
        self._process: Any = None

    def get_server(self) -> Any:
        """Return a server in this process, which listens already: ``address``, ``serve_forever()``."""
        self._check_initial()
        return _serve_at(type(self)._plugins, self._address, self._authkey)

    def start(self, initializer: Callable[..., object] | None = None, initargs: Iterable[Any] = ()) -> None:
        """Start a server process, in the way of the context, and connect to it.

        Args:
            initializer: Called in the new process, before it listens, with `initargs`.

        Raises:
            PluginError: A plugin cannot be found by name in another process, and the context does not fork.
            OSError: The address is in use.
        """
        self._check_initial()
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        context = self._ctx
        if context.get_start_method() != "fork":
            try:
                _ = type(self)._plugins.spec
            except PluginError as error:
                raise PluginError(
                    error.plugin, f"{error.reason}; or use the context of 'fork', which copies this process"
                ) from error
        reader, writer = connection.Pipe(duplex=False)
        self._process = context.Process(
            target=_run,
            args=(type(self), self._address, self._authkey, writer, initializer, tuple(initargs)),
        )
        number = ":".join(map(str, self._process._identity))
        self._process.name = f"{type(self).__name__}-{number}"
        self._process.start()
        writer.close()
        try:
            answer = reader.recv()
        except EOFError:
            answer = ProcessError("the server's process ended before it could serve")
        finally:
            reader.close()
        if isinstance(answer, BaseException):
            self._process.join()
            raise answer
        self._address = answer
        self._state.value = State.STARTED
        finish = (
            self._process, self._address, self._authkey, self._state, self._Client, self._shutdown_timeout,
        )  # fmt: skip
        self.shutdown = util.Finalize(self, _finalize, args=finish, exitpriority=0)

    @classmethod
    def register(
        cls,
        typeid: str,
        callable: Callable[..., object] | None = None,
        proxytype: Any = None,
        exposed: Any = None,
        method_to_typeid: Mapping[str, str] | None = None,
        create_method: bool = True,
    ) -> None:
        """Refuse: what is shared stands in the plugins, where other processes find it too.

        Without a callable it is what a client does that only connects, and works as ever.
        """
        if callable is not None:
            raise TypeError(
                f"{typeid!r} cannot be added to a generated manager class: declare it, SharedObject("
                f"{typeid!r}, {getattr(callable, '__name__', 'factory')}), and give it to manager_class()"
            )
        super().register(typeid, None, proxytype, exposed, method_to_typeid, create_method)

    def _check_initial(self) -> None:
        if self._state.value == State.STARTED:
            raise ProcessError("Already started server")
        if self._state.value == State.SHUTDOWN:
            raise ProcessError("Manager has shut down")


class _Server(ManagerServer):
    """A server as `BaseManager.get_server` returns it."""

    def serve_forever(self) -> None:
        """Serve until it is shut down. Blocks."""
        self.run()


def _serve_at(plugins: Plugins, address: Any, authkey: bytes) -> _Server:
    """Return a server that listens at an address of `multiprocessing`."""
    directory = None
    if address is None:
        address = connection.arbitrary_address("AF_UNIX")  # type: ignore[attr-defined]
        # Nobody looks for it by its address, and the directory goes with this process.
        directory = os.path.dirname(address)
    if isinstance(address, str):
        address = f"unix://{os.path.abspath(address)}"
    server = _Server(address, bytes(authkey), plugins=plugins)
    server._directory = directory
    server.open()
    return server


def _run(
    cls: type[_Manager],
    address: Any,
    authkey: bytes,
    writer: Any,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
) -> None:
    """Be the server's process."""
    # Ctrl-C goes to all processes of a terminal, and this one is ended by its manager.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if initializer is not None:
        initializer(*initargs)
    try:
        server = _serve_at(cls._plugins, address, authkey)
    except Exception as error:  # noqa: BLE001 - whatever stands in the way is for the process that waits to raise
        writer.send(error)
        return
    writer.send(server.address)
    writer.close()
    util.info("manager serving at %r", server.address)
    server.serve_forever()


def _finalize(process: Any, address: Any, authkey: bytes, state: Any, client: Any, timeout: float) -> None:
    """Stop the server's process; kill it if it does not."""
    if process.is_alive():
        try:
            with client(address, authkey=authkey) as conn:
                dispatch(conn, None, "shutdown")
        except Exception:  # noqa: BLE001 - it may be dead or deaf; in any case it is ended below
            util.debug("the manager's server did not take the request to stop")
        for end in (None, process.terminate, process.kill):
            if end is not None:
                end()
            process.join(timeout)
            if not process.is_alive():
                break
    state.value = State.SHUTDOWN
    _proxies_by_address.pop(address, None)


# The connections of this process's proxies, by address, which a later server there must not meet.
_proxies_by_address: Final[dict[Any, Any]] = BaseProxy._address_to_local
