"""Proxies: what stands in a client for a hosted object.

A proxy's class is made from the server's table of typeids, once for each row: one method for each exposed name, on top
of the mixin of the type's *shape*. The mixins know no type, only how a mapping, a sequence, a set, a queue or a lock
behaves in a client: containers compare by content, locks work in ``with``, what a read returns is a snapshot. So a
proxy has no public name that the hosted class has not.

A proxy made before the client has connected is *unresolved*: its `repr`, `hash` and pickling work without I/O,
anything else connects, takes the row and fixes the class.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import wraps
from time import monotonic
from types import FunctionType
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, Protocol, TypeVar

from registry import _codec
from registry._leaves import Carried, Grant, Handle, OpaqueValue
from registry._snapshots import freeze
from registry.declarations import DUNDERS, ITERATING, Interface
from registry.errors import (
    CallTimeout,
    EditConflict,
    LockLost,
    NotShareable,
    OutcomeUnknown,
    RegistryError,
    SnapshotError,
    StateLost,
)

if TYPE_CHECKING:
    from types import TracebackType

    from registry._link import Link

P = ParamSpec("P")
R = TypeVar("R")

__all__ = ["Proxy", "proxy_class"]

_MISSING: Any = object()

Mark = tuple[str, str, int]


class Home(Protocol):
    """What a proxy needs of its client."""

    address: str
    timeout: float

    def link(self) -> Link: ...
    def interface(self, typeid: str) -> Interface: ...
    def revive(self, handle: Handle) -> Any: ...
    @property
    def reopen(self) -> Callable[[str, str, str], Any]: ...
    @property
    def domain(self) -> str: ...


class Remote:
    """One object of one server, as a client knows it. Its proxies hold it; it has no public face.

    Attributes:
        home: The client it was reached through.
        typeid: Its type; `name` its name, empty where the type has one object only.
        definition: The arguments that make it, encoded.
        interface: The type's row in the server's table, once it is known.
    """

    __slots__ = ("_args", "_at", "_handle", "_kwargs", "definition", "home", "interface", "is_found", "name", "typeid")

    def __init__(self, home: Home, typeid: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.home = home
        self.typeid = typeid
        self.name = args[0] if args and isinstance(args[0], str) else ""  # until the type's row says what it is
        self.definition = b""
        self.interface: Interface | None = None
        self._args = args
        self._kwargs = kwargs
        self.is_found = False  # it came as a handle: where each call makes a new object, this one is there
        self._at: tuple[Link, bytes] | None = None
        self._handle = 0

    def resolve(self) -> Interface:
        """Take the row of the type, connecting if need be, and read the arguments by it.

        Raises:
            UnknownType: The server has no such type.
            TypeError: A name is missing, or one is given where the type has none.
        """
        interface = self.interface
        if interface is None:
            interface = self.home.interface(self.typeid)
            args = self._args
            if interface.per == "name":
                if not args or not isinstance(args[0], str) or not args[0]:
                    raise TypeError(
                        f'a shared {self.typeid} has a name: .{self.typeid}("NAME"); processes that use the same '
                        "name share the same object"
                    )
                self.name, args = args[0], args[1:]
            elif interface.per == "call" and self.is_found:
                args = ()
            elif interface.per == "call":
                self.name = os.urandom(12).hex()
            else:
                self.name = ""
            self.definition = _codec.encode_arguments(args, self._kwargs, None, _outgoing)
            self.interface = interface
        return interface

    @property
    def title(self) -> str:
        return f"{self.typeid}:{self.name}" if self.name else self.typeid

    def invoke(
        self,
        method: str,
        args: Iterable[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> Any:
        """Call a method of the hosted object and return its result, containers not yet frozen."""
        interface = self.interface or self.resolve()
        link = self.home.link()
        at = self._at
        if at is None or at[0] is not link or at[1] is not link.key:
            self._handle = link.handle(self.typeid, self.name, self.definition)
            self._at = (link, link.key)
        arguments = _codec.encode_arguments(
            args, kwargs or {}, interface.carried.get(method), _outgoing, self._opaque if link.same_user else None
        )
        frame = link.call(
            self._handle,
            method,
            arguments,
            about=self,
            readonly=method in interface.readonly,
            waiting=method in interface.waiting,
            timeout=None if method in interface.waiting else self.home.timeout,
        )
        return link.result(frame, self._incoming, self, method)

    def _opaque(self, value: object) -> Carried:
        """Pickle a carried value that has no typed form; only processes of this user on this host get it back."""
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        try:
            return Carried(pickle.dumps(value, protocol=5), self.home.domain, kind)
        except Exception as error:
            raise NotShareable(f"a {kind}", f"it has no typed form and cannot be pickled: {error}") from error

    def carry(self, value: object) -> Carried:
        """Encode a value as a parameter declared *carried* would."""
        try:
            return _codec.carry(value, _outgoing)
        except NotShareable:
            if not self.home.link().same_user:
                raise
            return self._opaque(value)

    def mark(self, number: int) -> Mark:
        """Return what calls carry that rely on a grant of this object."""
        return (self.typeid, self.name, number)

    def relax(self, mark: Mark) -> None:
        """Have the calls of this thread rely on a grant no more; where they do several times, once less."""
        guards = self.home.link().guards
        for place in range(len(guards) - 1, -1, -1):
            if guards[place] == mark:
                del guards[place]
                return

    def _incoming(self, leaf: Any) -> object:
        kind = type(leaf)
        if kind is Carried:
            if not leaf.domain:
                return _codec.decode_carried(leaf, self._incoming)
            if leaf.domain != self.home.domain or not self.home.link().same_user:
                return OpaqueValue(leaf.kind, leaf.domain)
            # Written by a process of this user on this host, as the server's stamp says; it never was another's.
            return pickle.loads(leaf.data)
        if kind is Handle:
            return self.home.revive(leaf)
        return leaf


class Bond:
    """Tie a grant to the lock that gave it, in the session that got it.

    Args:
        remote: The lock.
        method: The method that gave it.
        before: The arguments of ``release`` that stand before the number of the grant.
    """

    __slots__ = ("_before", "_mark", "_method", "_pid", "_remote", "_session")

    def __init__(self, remote: Remote, method: str, before: tuple[int, ...] = ()) -> None:
        link = remote.home.link()
        self._remote = remote
        self._method = method
        self._before = before
        # Of the block that was entered; the number of the grant may be another by its end.
        self._mark: Mark | None = None
        self._session = link.key
        self._pid = link.pid

    def release(self, grant: Grant) -> None:
        remote = self._remote
        link = remote.home.link()
        try:
            if link.key is self._session:
                remote.invoke("release", (*self._before, grant.number))
                return
        except (OutcomeUnknown, StateLost):
            if link.key is self._session:
                raise
        raise LockLost(remote.title, "the session that held it has ended", link.label)

    def enter(self, grant: Grant) -> Grant:
        remote = self._remote
        if not grant:
            raise CallTimeout(
                f"{remote.title}.{self._method}()", None, _held_by(grant.holder), remote.home.link().label
            )
        # From here to `leave` the calls of this thread carry the grant, so that they fail once it is lost.
        self._mark = remote.mark(grant.number)
        remote.home.link().guards.append(self._mark)
        return grant

    def leave(
        self,
        grant: Grant,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._remote.home.link().pid != self._pid:
            return  # a forked child owns nothing of its parent's
        try:
            self._remote.relax(self._mark or self._remote.mark(grant.number))
            self.release(grant)
        except RegistryError:
            # The body's own error tells more than that its lock was lost meanwhile.
            if error is None:
                raise

    @contextmanager
    def guard(self, grant: Grant) -> Iterator[Grant]:
        mark = self._remote.mark(grant.number)
        self._remote.home.link().guards.append(mark)
        try:
            yield grant
        finally:
            self._remote.relax(mark)


def _held_by(holder: str) -> str:
    return f"it is held by {holder}" if holder else "nobody has released it"


def _outgoing(value: object) -> object:
    """Send a proxy as the handle of its object."""
    if isinstance(value, Proxy):
        remote = value._remote
        return Handle(remote.home.address, remote.typeid, remote.name)
    return NotImplemented


class Proxy:
    """Stand for a hosted object."""

    __slots__ = ("__weakref__", "_local", "_remote")
    _remote: Remote
    _local: Any
    _interface: Interface

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._local = None

    def _call(self, method: str, /, *args: object, **kwargs: object) -> Any:
        """Call the hosted method; what comes back is this class's to freeze."""
        return self._remote.invoke(method, args, kwargs)

    def _snapshot(self, value: Any, key: object = _MISSING) -> Any:
        name = self._remote.name or self._remote.typeid
        return freeze(value, name) if key is _MISSING else freeze(value, name, key)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
        remote = self._remote
        raise AttributeError(
            f"shared {remote.title} on server {remote.home.link().label} has no method {name!r}; "
            f"it has {', '.join(self._interface.exposed)}",
            name=name,
            obj=self,
        )

    def __repr__(self) -> str:
        remote = self._remote
        name = f" {remote.name!r}" if remote.name else ""
        return f"<shared {remote.typeid}{name} on {remote.home.address}>"

    def __eq__(self, other: object) -> bool:
        return self._identity() == other._identity() if isinstance(other, Proxy) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[str, str, str]:
        return (self._remote.home.address, self._remote.typeid, self._remote.name)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str, str]]:
        return self._remote.home.reopen, self._identity()

    def __copy__(self) -> Proxy:
        return self

    def __deepcopy__(self, memo: object) -> Proxy:
        return self


def _taking(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method that may wait: what it gives goes back if an exception keeps it from its caller."""

    @wraps(function)
    def method(self: Any, /, *args: object, **kwargs: object) -> Any:
        link = self._remote.home.link()
        local = link.local
        try:
            value = function(self, *args, **kwargs)
            taking = local.taking
            if taking is not None:
                # A statement and not a call: nothing can raise between it and the return.
                taking.delivered = True
            return value
        except BaseException:
            link.take_back()
            raise

    return method


# -- shapes


class Container(Proxy):
    """Compare by content; have no hash, as containers have none."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def _content(self) -> Any:
        raise TypeError(f"{self!r} does not show its content")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Container):
            return self._identity() == other._identity() or bool(self._content() == other._content())
        return bool(self._content() == other)


class MappingShape(Container):
    """A mapping in which every verb is one call."""

    __slots__ = ()

    def _content(self) -> Any:
        return self._call("copy") if "copy" in self._interface.exposed else dict(self._call("items"))

    def __getitem__(self, key: object) -> Any:
        return self._snapshot(self._call("__getitem__", key), key)

    def get(self, key: object, default: Any = None) -> Any:
        """Return the value of `key`, or `default`, which never leaves this process."""
        try:
            return self[key]
        except KeyError:
            return default

    def pop(self, key: object, *default: Any) -> Any:
        """Remove `key` and return its value, plain: it is the caller's now."""
        try:
            return self._call("pop", key)
        except KeyError:
            if default:
                return default[0]
            raise

    def copy(self) -> dict[Any, Any]:
        """Return the whole mapping of one moment as a plain dict."""
        return dict(self._content())

    def keys(self) -> Any:
        """Return the keys of one moment."""
        return self._snapshot(self._call("keys"))

    def values(self) -> Any:
        """Return the values of one moment."""
        return self._snapshot(self._call("values"))

    def items(self) -> Any:
        """Return the pairs of one moment."""
        return self._snapshot(self._call("items"))

    def __iter__(self) -> Iterator[Any]:
        return iter(self._call("__iter__"))

    def update(self, other: Any = (), /, **kwargs: Any) -> None:
        """Set many keys in one call, at one moment."""
        if isinstance(other, (Mapping, MappingShape)):
            pairs = list(other.items())
        elif hasattr(other, "keys"):
            pairs = [(key, other[key]) for key in other.keys()]
        else:
            pairs = [(key, value) for key, value in other]
        pairs += kwargs.items()
        if any(parameters for parameters in self._interface.carried.values()):
            pairs = [(key, self._remote.carry(value)) for key, value in pairs]
        self._call("update", [[key, value] for key, value in pairs])

    def compare_and_set(self, key: object, expected: object, value: object) -> bool:
        """Set `key` if its value equals `expected`; one call where the two are spelled alike."""
        version = 0
        while True:
            answer = self._call("compare_and_set", key, expected, value, version)
            if isinstance(answer, bool):
                return answer
            version, present = answer
            if present != expected:
                return False

    def edit(self, key: object) -> Edit:
        """Change the value of `key` in place: ``with d.edit(key) as v``."""
        return Edit(self, key)


class Edit:
    """The turn to change one value of a mapping.

    Entering takes the key's turn, first come, first served, and gives a plain copy. Leaving writes it back, unless
    somebody wrote or deleted the key meanwhile: then `EditConflict`, and nothing is changed. An exception in the body
    writes nothing.
    """

    def __init__(self, proxy: MappingShape, key: object) -> None:
        self._proxy = proxy
        self._key = key
        self._turn = 0
        self._session = b""
        self._pid = os.getpid()
        self._value: Any = None

    @property
    def _remote(self) -> Remote:
        return self._proxy._remote

    @_taking
    def __enter__(self) -> Any:
        proxy = self._proxy
        turn, value = proxy._call("edit", self._key)
        self._session = proxy._remote.home.link().key
        self._turn = turn
        if not _is_mutable(value):
            proxy._call("edit", self._key, turn)
            raise SnapshotError(
                f"the value of {proxy._remote.name!r}[{self._key!r}] is {_article(value)}, which cannot be changed "
                f"in place; for numbers there is incr({self._key!r}, by), for the rest compare_and_set"
            )
        self._value = value
        return value

    @_taking
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        proxy = self._proxy
        if os.getpid() != self._pid:
            return  # a forked child owns no turn of its parent's
        if proxy._remote.home.link().key is not self._session:
            if kind is None and self._session:
                raise EditConflict(proxy._remote.title, repr(self._key), proxy._remote.home.link().label)
            return
        if kind is None:
            proxy._call("edit", self._key, self._turn, self._value)
        else:
            proxy._call("edit", self._key, self._turn)


_IMMUTABLE = (type(None), bool, int, float, complex, str, bytes, tuple, frozenset)


def _is_mutable(value: object) -> bool:
    return not isinstance(value, (*_IMMUTABLE, OpaqueValue))


def _article(value: object) -> str:
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


class SequenceShape(Container):
    """A sequence; iteration and comparison take one call."""

    __slots__ = ()

    def _content(self) -> Any:
        return self._call("copy") if "copy" in self._interface.exposed else list(self._call("__iter__"))

    def __getitem__(self, index: object) -> Any:
        return self._snapshot(self._call("__getitem__", index), index)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._snapshot(self._call("__iter__")))

    def copy(self) -> list[Any]:
        """Return the whole sequence of one moment as a plain list."""
        return list(self._content())


class SetShape(Container):
    """A set; iteration and comparison take one call."""

    __slots__ = ()

    def _content(self) -> Any:
        return self._call("copy") if "copy" in self._interface.exposed else set(self._call("__iter__"))

    def __iter__(self) -> Iterator[Any]:
        return iter(self._call("__iter__"))

    def copy(self) -> set[Any]:
        """Return the whole set of one moment as a plain set."""
        return set(self._content())


class QueueShape(Proxy):
    """A queue: what comes out of it is the taker's own, so nothing is frozen."""

    __slots__ = ()

    @_taking
    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the next item, waiting for one."""
        return self._call("get", block, timeout)

    def get_nowait(self) -> Any:
        """Take the next item if there is one."""
        return self._call("get", False)  # a waiting verb, so that an item that does not arrive goes back

    def claim(self, block: bool = True, timeout: float | None = None) -> Claim:
        """Take the next item for as long as it is worked on: ``with q.claim() as item``."""
        return Claim(self, block, timeout)


class Claim:
    """An item of a queue that is being worked on.

    Entering takes it, waiting for one. At the end of the block it is done; after an exception it goes back to the front
    of the queue, as it does when this process dies. Calls made in the block raise `LockLost` once the claim is lost.
    """

    def __init__(self, proxy: QueueShape, block: bool, timeout: float | None) -> None:
        self._proxy = proxy
        self._arguments = (block, timeout)
        self._number = 0
        self._session = b""
        self._pid = 0

    def __enter__(self) -> Any:
        remote = self._proxy._remote
        link = remote.home.link()
        local = link.local
        depth = len(local.guards)
        try:
            self._number, item = self._proxy._call("claim", *self._arguments)
            self._session, self._pid = link.key, link.pid
            local.guards.append(remote.mark(self._number))
            taking = local.taking
            if taking is not None:
                taking.delivered = True
            return item
        except BaseException:
            # Interrupted on the way in: the block is not entered, and nobody would ever settle it.
            del local.guards[depth:]
            link.take_back()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        remote = self._proxy._remote
        if remote.home.link().pid != self._pid:
            return  # a forked child has claimed nothing
        remote.relax(remote.mark(self._number))
        try:
            self._settle(kind is None)
        except RegistryError:
            # The body's own error tells more than that its claim was lost meanwhile.
            if kind is None:
                raise
        except BaseException:
            # A signal handler raised, perhaps before anything was sent: the block is left all the same.
            with suppress(RegistryError):
                self._settle(kind is None)
            raise

    def _settle(self, done: bool) -> None:
        remote = self._proxy._remote
        link = remote.home.link()
        try:
            if link.key is self._session:
                remote.invoke("settle", (self._number, done))
                return
        except (OutcomeUnknown, StateLost):
            if link.key is self._session:
                raise
        raise LockLost(remote.title, "the session that had claimed the item has ended", link.label)


class GrantingShape(Proxy):
    """What is held by grants: always true, and each `Grant` can be entered and released by itself."""

    __slots__ = ()
    _before: tuple[int, ...] = ()

    def _call(self, method: str, /, *args: object, **kwargs: object) -> Any:
        value = super()._call(method, *args, **kwargs)
        if type(value) is Grant:
            value._bond = Bond(self._remote, method, self._before)
        return value

    def __bool__(self) -> bool:
        return True


class LockShape(GrantingShape):
    """A lock: `acquire` gives a `Grant`, ``with`` takes and releases one, and so does a call of what it decorates."""

    __slots__ = ()

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        return _locking(self, function)

    def __enter__(self) -> Grant:
        link = self._remote.home.link()
        local = link.local
        held = _held(self)
        guards, depth = len(local.guards), len(held)
        try:
            grant: Grant = self._call("acquire")
            grant.__enter__()
            held.append(grant)
            taking = local.taking
            if taking is not None:
                taking.delivered = True
            return grant
        except BaseException:
            # Interrupted on the way in, or refused: the block is not entered, and nobody would ever release.
            del local.guards[guards:], held[depth:]
            link.take_back()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        grant = None
        try:
            held = _held(self)
            grant = held[-1]
            grant.__exit__(kind, error, traceback)
            del held[-1]
        except BaseException as raised:
            held = _held(self)
            if held and grant in (None, held[-1]):
                grant = held.pop()
                if not isinstance(raised, RegistryError):  # but what a signal handler raised
                    grant.__exit__(type(raised), raised, None)
            raise


class SemaphoreShape(LockShape):
    """A lock for several; what is released is counted, and one with a grant."""

    __slots__ = ()
    _before = (1,)


class ConditionShape(LockShape):
    """A lock in whose block one can wait; the predicate of `wait_for` never leaves this process."""

    __slots__ = ()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait to be notified, without the lock meanwhile; False if the time was up first."""
        return bool(self._wait(timeout, False))

    def wait_for(self, predicate: Callable[[], R], timeout: float | None = None) -> R:
        """Wait until `predicate()` is true, and return what it said last."""
        deadline = None if timeout is None else monotonic() + timeout
        passing = False
        result = predicate()
        while not result:
            notified = self._wait(None if deadline is None else max(0.0, deadline - monotonic()), passing)
            try:
                result = predicate()
            except BaseException:
                if notified:
                    # It was of no use here, and there may be somebody else whom it helps.
                    with suppress(RegistryError):
                        self._call("notify")
                raise
            if not notified:
                break
            passing = True
        return result

    @_taking
    def _wait(self, timeout: float | None, passing: bool) -> bool:
        notification, grant = self._call("wait_for", timeout, passing)
        for held in _held(self):
            held.number, held.abandoned, held.holder = grant.number, grant.abandoned, grant.holder
            held.since = grant.since
        return bool(notification)


# Of code that runs after its call has returned: CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR of `inspect`.
_RUNS_LATER = 0x20 | 0x80 | 0x200


def _locking(proxy: Any, function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function so that it runs in a block of the lock."""
    if not callable(function):
        raise TypeError(f"{proxy!r} decorates functions, not {function!r}")
    if getattr(getattr(function, "__code__", None), "co_flags", 0) & _RUNS_LATER:
        raise TypeError(
            f"{proxy!r} cannot decorate {function!r}, which runs after its call has returned; use it in a with "
            f"statement inside"
        )

    @wraps(function)
    def locked(*args: P.args, **kwargs: P.kwargs) -> R:
        with proxy:
            return function(*args, **kwargs)

    return locked


def _held(proxy: LockShape) -> list[Grant]:
    """Return this thread's stack of grants that were entered through the proxy itself."""
    import threading

    if proxy._local is None:
        proxy._local = threading.local()
    try:
        stack: list[Grant] = proxy._local.stack
    except AttributeError:
        stack = proxy._local.stack = []
    return stack


SHAPES: dict[str | None, type[Proxy]] = {
    None: Proxy,
    "mapping": MappingShape,
    "sequence": SequenceShape,
    "set": SetShape,
    "queue": QueueShape,
    "lock": LockShape,
    "semaphore": SemaphoreShape,
    "rwlock": GrantingShape,
    "condition": ConditionShape,
}


# -- classes

_CONTAINERS = frozenset({dict, list, set, tuple})


def _method(name: str, waiting: bool = False) -> Callable[..., Any]:
    def method(self: Proxy, /, *args: object, **kwargs: object) -> Any:
        value = self._call(name, *args, **kwargs)
        if type(value) in _CONTAINERS and name in self._interface.readonly:
            return self._snapshot(value)
        return value

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"Call `{name}` of the hosted object."
    return _taking(method) if waiting else method


_classes: dict[bytes, type[Proxy]] = {}


def proxy_class(interface: Interface) -> type[Proxy]:
    """Return the class of the proxies of a type; the same row of the table gives the same class."""
    key = _codec.encode(interface.pack())
    if key not in _classes:
        _classes[key] = _make_class(interface)
    return _classes[key]


def _make_class(interface: Interface) -> type[Proxy]:
    base = SHAPES.get(interface.shape, Proxy)
    body: dict[str, Any] = {
        "__slots__": (),
        "__doc__": interface.doc or None,
        "__module__": __name__,
        "_interface": interface,
    }
    spelled = {name for cls in base.__mro__ if cls is not object for name in vars(cls)}
    for name in interface.exposed:
        # What the shape spells out is the client's side of the same method.
        if name not in spelled:
            body[name] = _method(name, name in interface.waiting)
    for name in _PUBLIC.get(interface.shape, frozenset()) - set(interface.exposed):
        body[name] = _Absent()
    for name in ITERATING & set(interface.exposed) - spelled:
        body[name] = _iterating(name)
    return type(f"{interface.typeid}_proxy", (base,), body)


def _iterating(name: str) -> Callable[[Proxy], Iterator[Any]]:
    return lambda self: iter(self._call(name))


class _Absent:
    """Hide a method of the shape that the hosted class does not have."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type | None = None) -> NoReturn:
        raise AttributeError(self._name)  # `Proxy.__getattr__` says what there is


_PUBLIC = {
    shape: frozenset(
        name for cls in base.__mro__ if cls is not object for name in vars(cls) if not name.startswith("_")
    )
    for shape, base in SHAPES.items()
}


class Unresolved(Proxy):
    """A proxy that does not know its class yet. Its first use connects and fixes it."""

    __slots__ = ()
    __hash__ = Proxy.__hash__

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        _resolve(self)
        return getattr(self, name)

    def __dir__(self) -> Iterable[str]:
        _resolve(self)
        return dir(self)

    def __eq__(self, other: object) -> bool:
        _resolve(self)
        return bool(self == other)


def _resolve(proxy: Proxy) -> None:
    # A function, since the class may be fixed by now: by another thread, or in a `with` block by its beginning.
    interface = proxy._remote.resolve()
    if type(proxy) is Unresolved:
        proxy.__class__ = proxy_class(interface)  # type: ignore[assignment]


def _forward(name: str) -> Callable[..., Any]:
    def method(self: Unresolved, /, *args: Any) -> Any:
        _resolve(self)
        found = getattr(type(self), name, None)
        if found is None:
            if name == "__bool__":
                return bool(self)
            raise TypeError(f"{self!r} has no {name}")
        return found(self, *args)

    method.__name__ = name
    return method


for _name in (*DUNDERS, "__enter__", "__exit__"):
    setattr(Unresolved, _name, _forward(_name))


def _decorate(self: Unresolved, /, *args: Any, **kwargs: Any) -> Any:
    """Call the object, or decorate a function, which needs no server before the function is called."""
    if len(args) == 1 and not kwargs and type(args[0]) is FunctionType:
        return _locking(self, args[0])
    _resolve(self)
    return type(self).__call__(self, *args, **kwargs)


Unresolved.__call__ = _decorate  # type: ignore[method-assign]
