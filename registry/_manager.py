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

import asyncio
import copyreg
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from multiprocessing import ProcessError, connection, util
from multiprocessing.managers import (  # type: ignore[attr-defined]
    BaseManager,
    BaseProxy,
    ConditionProxy,
    State,
    SyncManager,
    dispatch,
)
from multiprocessing.process import parent_process
from typing import TYPE_CHECKING, Any, Final

from registry import _addresses, _plugins
from registry._plugins import Plugins
from registry._private import Door, Row, Table
from registry._rights import ADMIN
from registry.declarations import Interface, SharedObject
from registry.errors import PluginError
from registry.server import ManagerServer

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

__all__ = ["Manager", "manager_class"]


def Manager(ctx: BaseContext | None = None) -> SyncManager:
    """Start a server for this program and the processes that it starts, as `multiprocessing.Manager` does.

    Types, methods, values and errors are those of `multiprocessing`. What a process has of it, references and locks,
    goes with that process, however it ends; and the server goes with the process that has called this.

    Args:
        ctx: A context of `multiprocessing`, for those who would call its ``Manager()``; None is the default one.

    Returns:
        A started `multiprocessing.managers.SyncManager`. It is stopped by ``shutdown()``, at the end of a ``with``
        block, and when nobody refers to it any more.

    >>> from registry import Manager
    >>> with Manager() as manager:
    ...     prices = manager.dict(BTC=97_000)
    ...     prices.copy()
    {'BTC': 97000}
    """
    manager: SyncManager = _sync_manager()(ctx=ctx)
    manager.start()
    return manager


@cache
def _sync_manager() -> Any:
    return manager_class("registry_multiprocessing")


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
    private = [each for each in plugins.declarations.values() if each.proxy is not None]
    if private:
        return _private_class_of(namespace, private)
    for typeid, declaration in plugins.declarations.items():
        proxytype = proxy_type(declaration.interface)
        namespace["_registry"][typeid] = (  # type: ignore[index]
            declaration.factory, declaration.interface.exposed, None, proxytype,
        )  # fmt: skip
        namespace[typeid] = _maker(declaration.interface, proxytype)
    made: Any = _ManagerType("RegistryManager", (_Manager,), namespace)
    return made  # type: ignore[no-any-return]


def _private_class_of(namespace: dict[str, object], declarations: list[SharedObject[Any]]) -> type[BaseManager]:
    """Make a class whose objects are those of a private server."""
    made: Any = _ManagerType("RegistrySyncManager", (_PrivateManager,), namespace)
    returned = {typeid for each in declarations for typeid in getattr(each.proxy, "_method_to_typeid_", {}).values()}
    for each in declarations:
        # What other objects return is made by them alone.
        factory = None if each.typeid in returned else each.factory
        made.register(each.typeid, factory, each.proxy, create_method=each.typeid not in returned)
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
        return self._open_server(self._registry, self._address, self._authkey)

    @classmethod
    def _open_server(cls, rows: Any, address: Any, authkey: bytes) -> _Server:
        """Return a server that listens."""
        return _open(_Server, address, authkey, cls._plugins)

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
            args=(type(self), self._rows, self._address, self._authkey, writer, initializer, tuple(initargs)),
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

    # What goes to the server's process beside the class.
    _rows: Any = None

    def _check_initial(self) -> None:
        if self._state.value == State.STARTED:
            raise ProcessError("Already started server")
        if self._state.value == State.SHUTDOWN:
            raise ProcessError("Manager has shut down")


class _Server(ManagerServer):
    """A server as `BaseManager.get_server` returns it."""

    ends_with_parent = False  # whether it is the process of a manager that ends it

    def serve_forever(self) -> None:
        """Serve until it is shut down. Blocks."""
        try:
            self.run()
        finally:
            if self._directory is not None:
                shutil.rmtree(self._directory, ignore_errors=True)


class _PrivateServer(_Server):
    """A server of one program, whose objects are plain Python objects; see `registry._private`."""

    _private = True

    def __init__(self, *args: Any, rows: Mapping[str, Row], **kwds: Any) -> None:
        super().__init__(*args, **kwds)
        self._rows = rows

    def _begin(self, place: Any, since: float) -> tuple[int, bytes]:
        """Begin an epoch that nobody will ask for."""
        return 0, os.urandom(16)

    def _open_threads(self) -> Door:
        self._door = Door(self, Table(self._rows, self.address, self.keys[ADMIN]))
        return self._door

    def _open_stock(self) -> Door:
        return self._door

    def call_on_loop(self, function: Callable[[], object]) -> None:
        """Call something on the loop's thread."""
        loop = self._loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(function)
            except RuntimeError:
                pass  # the loop has closed, and with it everything that this is about

    async def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        ends = [self._door.watch.begin(loop), self._end_with(parent_process(), loop)]
        try:
            await super()._serve(loop)
        finally:
            for end in ends:
                end()

    def _end_with(self, parent: Any, loop: asyncio.AbstractEventLoop) -> Callable[[], object]:
        """Stop when the process that has started this one ends, however that is; return what ends the watch."""
        if parent is None or not self.ends_with_parent:
            return lambda: None
        pidfd = _pidfd_of(parent)
        # Else a pipe, whose other end children of that process may hold, too.
        number = pidfd if pidfd is not None else parent.sentinel

        def ended() -> None:
            loop.remove_reader(number)
            self._begin_stop()

        def end() -> None:
            loop.remove_reader(number)
            if pidfd is not None:
                os.close(pidfd)

        loop.add_reader(number, ended)
        return end


def _pidfd_of(parent: Any) -> int | None:
    if not hasattr(os, "pidfd_open") or not parent.is_alive():
        return None
    try:
        return os.pidfd_open(parent.pid)
    except OSError:
        return None


class _PrivateManager(_Manager, SyncManager):
    """A manager whose server is private, as `multiprocessing.managers.SyncManager`."""

    @classmethod
    def register(cls, *args: Any, **kwds: Any) -> None:
        """Add a type to this class, as `BaseManager.register` does."""
        super(_Manager, cls).register(*args, **kwds)

    @property
    def _rows(self) -> Any:
        # Programs register types of their own there.
        theirs: dict[str, Any] = getattr(SyncManager, "_registry", {})
        return {**theirs, **self._registry}

    def get_server(self) -> Any:
        """Return a server in this process, which listens already: ``address``, ``serve_forever()``."""
        self._check_initial()
        return self._open_server(self._rows, self._address, self._authkey)

    @classmethod
    def _open_server(cls, rows: Any, address: Any, authkey: bytes) -> _Server:
        return _open(_PrivateServer, address, authkey, _plugins.load(only=()), rows=rows)


def _open(cls: type[_Server], address: Any, authkey: bytes, plugins: Plugins, **more: Any) -> _Server:
    """Return a server that listens at an address of `multiprocessing`."""
    directory = None
    if address is None:
        # Nobody looks for it by its address; what is in the directory goes with the server, and all with this program.
        directory = tempfile.mkdtemp(prefix="manager-", dir=util.get_temp_dir())
        address = os.path.join(directory, "socket")
    if isinstance(address, str):
        address = f"unix://{os.path.abspath(address)}"
    server = cls(address, bytes(authkey), plugins=plugins, **more)
    server._directory = directory
    server.open()
    return server


def _run(
    cls: type[_Manager],
    rows: Any,
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
        server = cls._open_server(rows, address, authkey)
    except Exception as error:  # noqa: BLE001 - whatever stands in the way is for the process that waits to raise
        writer.send(error)
        return
    writer.send(server.address)
    writer.close()
    server.ends_with_parent = True
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
