"""Proxies as such: what they know of their object, how they call it, and what all of them can do."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from sys import modules, version_info
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from registry import _codec
from registry._cache import Cache, Entry, Shelf, short
from registry._leaves import Carried, Handle, OpaqueValue
from registry._pending import Mark
from registry._snapshots import CONTAINERS, freeze, is_sealed, thaw
from registry._wire import CALL, LONGEST_NAME, READ, SHOWN, WORD
from registry.declarations import Interface
from registry.errors import NotShareable

if TYPE_CHECKING:
    from registry._link import Link
    from registry._pending import Pending

KEYED_SHAPES = ("mapping", "sequence")
NO_NAMES: Mapping[str, object] = {}  # of arguments
_BY_METHODS = "call the methods of its proxy"  # how to change an item of what has no `edit`

# What a type's row says of a method: whether it is readonly, whether it may wait, and which arguments are carried.
Verb = tuple[bool, bool, "Mapping[str, int] | None"]


class Home(Protocol):
    """What a proxy needs of its client."""

    address: str
    timeout: float
    cache: Cache
    is_revived: bool

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
        shelf: What this client keeps of it, once it has read it.
    """

    __slots__ = (
        "_args",
        "_at",
        "_handle",
        "_kwargs",
        "_verbs",
        "definition",
        "home",
        "interface",
        "is_found",
        "name",
        "shelf",
        "typeid",
    )

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
        self._verbs: dict[str, Verb] = {}
        self.shelf: Shelf | None = None

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
                if len(self.name) > LONGEST_NAME:
                    letters = f"{LONGEST_NAME} letters at most, and this one {len(self.name)}"
                    raise ValueError(f"the name of a shared {self.typeid} has {letters}")
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
        verb = self._verbs.get(method) or self._verb(method)
        readonly, waiting, carried = verb
        home = self.home
        link = home.link()
        if readonly and link.words is not None and home.cache.is_on:
            return self.read(method, tuple(args), kwargs or NO_NAMES, plain=True)
        if waiting and "asyncio" in modules:
            link.check_may_wait(self, self.interface or self.resolve(), method, tuple(args), kwargs or NO_NAMES)
        at = self._at
        frame = link.call(
            self._handle if at is not None and at[0] is link and at[1] is link.key else self._handle_of(link),
            method,
            _codec.encode_call(args, kwargs or NO_NAMES, carried, _outgoing, self._opaque if link.same_user else None),
            about=self,
            readonly=readonly,
            waiting=waiting,
            timeout=None if waiting else home.timeout,
        )
        return link.result(frame, self._incoming, self, method, self._incoming_row)

    def read(self, method: str, args: tuple[object, ...], kwargs: Mapping[str, object], *, plain: bool = False) -> Any:
        """Call a method without effect, or return what it would return where this client can tell.

        Args:
            method: The method.
            args: Its arguments; `kwargs` those given by name.
            plain: Return containers that are the caller's alone, and not a snapshot.
        """
        _, _, carried = self._verbs.get(method) or self._verb(method)
        home = self.home
        link, cache = home.link(), home.cache
        words = link.words if cache.is_on else None
        # What relies on a grant is asked, since it is refused once the grant is lost.
        view = words.view() if words is not None and not link.guards else None
        is_item = method == "__getitem__"
        shelf = None
        if view is not None:
            shelf = self.shelf
            if shelf is None or shelf.is_out:
                shelf = self.shelf = cache.shelf(self.typeid, self.name, self.definition)
            place, key = short(method, args, kwargs), args[0] if args else None
            entry = None if place is None else cache.find(shelf, place, key, is_item)
            if entry is not None:
                return thaw(entry[1]) if plain else entry[1]
        opaque = self._opaque if link.same_user else None
        arguments = _codec.encode_arguments(args, kwargs, carried, _outgoing, opaque)
        long = (method, arguments, None)
        if shelf is not None:
            entry = cache.find(shelf, long, None, False)
            if entry is not None:
                value = _codec.decode(entry[1], incoming=self._incoming)
                return value if plain else self._frozen(value, method, args)
        at = self._at
        frame = link.call(
            self._handle if at is not None and at[0] is link and at[1] is link.key else self._handle_of(link),
            method,
            arguments,
            about=self,
            readonly=True,
            timeout=home.timeout,
            kind=CALL if view is None else READ,
        )
        if frame.kind != SHOWN:
            value = link.result(frame, self._incoming, self, method)
            return value if plain else self._frozen(value, method, args)
        body = frame.body[WORD.size :]
        try:
            value = _codec.decode(body, incoming=self._incoming)
        except _codec.CodecError as error:
            raise link.unreadable(error) from error
        snapshot = self._frozen(value, method, args)
        if shelf is not None and words is not None and frame.generation == words.generation:  # else of other words
            at, word = WORD.unpack_from(frame.body)
            if view is None or at >= len(view):
                raise link.unreadable(IndexError(f"there is no word {at}"))
            if place is not None and is_sealed(snapshot):
                kind = None if place is method else type(key)
                cache.put(shelf, place, (kind, snapshot, view, at, word, words, len(body)), is_item)
            else:
                cache.put(shelf, long, (None, body, view, at, word, words, len(body)), False)
        return value if plain else snapshot

    def _frozen(self, value: Any, method: str, args: tuple[object, ...]) -> Any:
        """Return what a read has returned as a snapshot that says where it comes from."""
        if type(value) not in CONTAINERS:
            return value
        name = self.name or self.typeid
        interface = self.interface
        if method != "__getitem__" or interface is None or interface.shape not in KEYED_SHAPES:
            return freeze(value, name)
        return freeze(value, name, args[0], "" if "edit" in interface.exposed else _BY_METHODS)

    def _verb(self, method: str) -> Verb:
        """Return what the type's row says of a method; asked for once."""
        interface = self.interface or self.resolve()
        verb = (method in interface.readonly, method in interface.waiting, interface.carried.get(method))
        self._verbs[method] = verb
        return verb

    def prepare(self, method: str, args: Iterable[object]) -> Pending:
        """Return a call that gives something back, ready to be made: by `finish`, or by `Link.insist`."""
        link = self.home.link()
        _, _, carried = self._verbs.get(method) or self._verb(method)
        opaque = self._opaque if link.same_user else None
        arguments = _codec.encode_call(args, NO_NAMES, carried, _outgoing, opaque)
        if isinstance(arguments, _codec.Parts):
            # It may be sent when its caller is gone, and perhaps has changed what it gave.
            arguments = _codec.Parts(arguments.head, tuple(map(bytes, arguments.buffers)))
        return link.prepare(self._handle_of(link), method, arguments, about=self, timeout=self.home.timeout)

    def give_back(self, slot: Pending, session: bytes, mark: Mark) -> bool:
        """Make a prepared call that releases a lock, without waiting for its reply; False where it is to wait."""
        interface = self.interface
        return interface is not None and interface.shape == "lock" and self.home.link().give_back(slot, session, mark)

    def finish(self, slot: Pending) -> Any:
        """Make a prepared call and return its result."""
        link = self.home.link()
        return link.result(link.finish(slot), self._incoming, self, slot.method, self._incoming_row)

    def _handle_of(self, link: Link) -> int:
        """Return the number that stands for the object in the present session."""
        self._handle = link.handle(self.typeid, self.name, self.definition)
        self._at = (link, link.key)
        return self._handle

    def _opaque(self, value: object) -> Carried:
        """Pickle a carried value that has no typed form; only processes of this user on this host get it back."""
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        buffers: list[memoryview] = []

        def keep(buffer: pickle.PickleBuffer) -> bool:
            """Leave a large buffer out of the pickle; tell whether it stays in."""
            try:
                raw = buffer.raw()
            except BufferError:  # it is not in one piece
                return True
            if len(raw) < _codec.OUTSIDE:
                return True
            buffers.append(raw)
            return False

        try:
            pickled = pickle.dumps(value, protocol=5, buffer_callback=keep)
            return _codec.carry_pickle(pickled, buffers, self.home.domain, kind)
        except Exception as error:
            raise NotShareable(f"a {kind}", f"it has no typed form and cannot be pickled: {error}") from error

    def carry(self, value: object) -> Carried:
        """Encode a value as a parameter declared *carried* would."""
        try:
            return _codec.carry_in_pieces(value, _outgoing)
        except NotShareable:
            if not self.home.link().same_user:
                raise
            return self._opaque(value)

    def mark(self, number: int) -> Mark:
        """Return what calls carry that rely on a grant of this object."""
        return Mark(self.typeid, self.name, number)

    def _incoming(self, leaf: Any) -> object:
        kind = type(leaf)
        if kind is Carried:
            if not leaf.domain:
                return _codec.decode_carried(leaf, self._incoming)
            if leaf.domain != self.home.domain or not self.home.link().same_user:
                return OpaqueValue(leaf.kind, leaf.domain)
            # Written by a process of this user on this host, as the server's stamp says; it never was another's.
            pickled, buffers = _codec.split_pickle(leaf)
            try:
                return pickle.loads(pickled, buffers=buffers)
            except Exception as error:
                here = "this process, of Python {}.{}".format(*version_info[:2])
                reason = f"what its writer has pickled cannot be unpickled in {here}: {error}"
                raise NotShareable(f"a {leaf.kind}", reason) from error
        if kind is Handle:
            return self.home.revive(leaf)
        if kind is tuple:
            raise _codec.CodecError("state of an engine is for that engine alone")
        return leaf

    def _incoming_row(self, encodings: list[Any]) -> list[Any]:
        return _codec.decode_row(encodings, self._incoming)


def _outgoing(value: object) -> object:
    """Send a proxy as the handle of its object."""
    if isinstance(value, Proxy):
        remote = value._remote
        return Handle(remote.home.address, remote.typeid, remote.name)
    return NotImplemented


_EMPTY: dict[Any, Entry] = {}


class Proxy:
    """Stand for a hosted object."""

    __slots__ = ("__weakref__", "_hits", "_items", "_local", "_remote")
    _remote: Remote
    _local: Any
    _interface: Interface
    # The tables of what is cached, see `registry._cache`.
    _items: dict[Any, Entry]
    _hits: dict[Any, Entry]

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._local = None
        self._items = self._hits = _EMPTY

    def _call(self, method: str, /, *args: object, **kwargs: object) -> Any:
        """Call the hosted method; what comes back is this class's to freeze."""
        return self._remote.invoke(method, args, kwargs)

    def _read(self, method: str, args: tuple[object, ...], kwargs: Mapping[str, object] = NO_NAMES) -> Any:
        """Return a snapshot of what a hosted method returns that has no effect."""
        remote = self._remote
        value = remote.read(method, args, kwargs)
        shelf = remote.shelf
        if shelf is not None:
            self._items, self._hits = shelf.items, shelf.hits
        return value

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


def item(self: Proxy, key: object) -> Any:
    """Return what `__getitem__` of the hosted object returns."""
    try:
        # What `_cache.is_valid` does, spelled out: a hit is a fifth of a microsecond.
        kind, value, view, place, word, words, _ = self._items[key]
        if view[place] == word and monotonic() < words.until and type(key) is kind:
            return value
    except (KeyError, TypeError):
        pass
    return self._read("__getitem__", (key,))


def taking(function: Callable[..., Any]) -> Callable[..., Any]:
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
