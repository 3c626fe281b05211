"""The objects of a private server, who refers to them, and calls of their methods."""

from __future__ import annotations

import io
import logging
import os
import pickle
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from math import inf
from multiprocessing import managers
from multiprocessing.reduction import ForkingPickler
from typing import Any, Final

from registry import hosting
from registry._leaves import Caller, Owner
from registry._stock._sessions import owner_number
from registry.hosting import Visit

log = logging.getLogger("registry")

#: What a typeid stands for, as `multiprocessing.managers.BaseManager` keeps it: what makes an object (None: it is
#: given), what is exposed (None: all public methods), which methods return objects of which type, and what makes
#: proxies.
Row = tuple[
    "Callable[..., Any] | None", "Iterable[str] | None", "Mapping[str, str] | None", "Callable[..., Any]"
]  # fmt: skip

# Types whose values are pickled without a look at how classes ask to be pickled.
_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})
_REBUILD: Final = b"RebuildProxy"


class Refused(Exception):
    """What a client has asked for cannot be; the text is what a stock server would end its traceback with."""


class Session:
    """A process that uses a private server; where that cannot be known, whoever comes from one host.

    Attributes:
        number: Its number, never used again.
        caller: Who it is, for people.
        ended: Whether the process has ended. What it had asked for may still be on its way.
        held: The objects that it has references to.
        visits: Its calls that wait.
        places: The names of its open connections, each with a number that tells apart those of one name.
    """

    def __init__(self, number: int, caller: Caller) -> None:
        self.number = number
        self.caller = caller
        self.ended = False
        self.held: set[str] = set()
        self.visits: set[Visit] = set()
        self.places: set[tuple[str, int]] = set()
        self._lock = threading.Lock()

    def enter(self, name: str) -> tuple[tuple[str, int], Owner, Caller]:
        """Return the place of a new connection of this name, who owns what is acquired there, and who that is."""
        with self._lock:
            k = 0
            while (name, k) in self.places:
                k += 1
            place = (name, k)
            self.places.add(place)
        return place, Owner(self.number, owner_number(*place)), self.caller._replace(thread=name.partition("|")[2])

    def leave(self, place: tuple[str, int]) -> None:
        """The connection is gone. What was acquired there is not: the thread may come again."""
        with self._lock:
            self.places.discard(place)


class Shared:
    """One object.

    Attributes:
        exposed: The methods that clients may call.
        makes: The types of what methods return, of those whose results are shared, too.
        counts: How many proxies each session has, by its number; without end for one that uses the object and has none.
        inside: How many proxies other objects have.
        waiting: How many calls of it wait.
    """

    __slots__ = ("counts", "exposed", "ident", "inside", "instance", "made", "maker", "makes", "typeid", "waiting")

    def __init__(
        self, typeid: str, instance: Any, exposed: frozenset[str], makes: Mapping[str, str], maker: str
    ) -> None:
        self.typeid = typeid
        self.ident = f"{typeid}:{os.urandom(8).hex()}"
        self.instance = instance
        self.exposed = exposed
        self.makes = makes
        self.maker = maker
        self.made = time.time()
        self.counts: dict[int, float] = {}
        self.inside = 0
        self.waiting = 0


class Table:
    """The objects of one private server. May be used on any thread.

    Args:
        rows: The types, by typeid.
        address: Where the server listens, in the form that tokens have.
        authkey: Its key, which proxies inside of it have.
    """

    def __init__(self, rows: Mapping[str, Row], address: Any, authkey: bytes) -> None:
        self.address = address
        self._rows = rows
        self._authkey = authkey
        self._objects: dict[str, Shared] = {}
        self._lock = threading.Lock()
        # Idents of proxies inside of objects that have gone. They go in the middle of anything, so nothing is done then
        # that could wait.
        self._dropped: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._sweeping = threading.local()

    # -- objects and references

    def create(self, session: Session, typeid: str, args: tuple[Any, ...], kwds: dict[str, Any]) -> Shared:
        """Make an object, to which the session has one reference.

        Raises:
            Refused: There is no such type.
            Exception: Whatever its factory raises.
        """
        row = self._rows.get(typeid)
        if row is None:
            raise Refused(f"KeyError: no type {typeid!r} in this manager, which has {', '.join(sorted(self._rows))}")
        make = row[0]
        if make is not None:
            return self._add(session, typeid, make(*args, **kwds))
        if kwds or len(args) != 1:
            raise Refused(f"ValueError: {typeid!r} is made of one object, and of nothing else")
        return self._add(session, typeid, args[0])

    def _add(self, session: Session, typeid: str, instance: Any) -> Shared:
        _, names, makes, _ = self._rows[typeid]
        exposed = frozenset(_public(instance) if names is None else names) | frozenset(makes or ())
        shared = Shared(typeid, instance, exposed, makes or {}, str(session.caller))
        with self._held():
            if session is _NOBODY:
                self._objects[shared.ident] = shared
            elif not session.ended:
                self._objects[shared.ident] = shared
                shared.counts[session.number] = 1
                session.held.add(shared.ident)
        return shared

    def find(self, ident: object) -> Shared:
        """Return an object.

        Raises:
            Refused: There is none of that ident.
        """
        shared = self._objects.get(ident) if isinstance(ident, str) else None
        if shared is None:
            raise Refused(_gone(ident))
        return shared

    def incref(self, session: Session, ident: object) -> None:
        """Count a proxy of a session.

        Raises:
            Refused: There is no such object.
        """
        with self._held():
            shared = self.find(ident)
            if not session.ended:
                shared.counts[session.number] = shared.counts.get(session.number, 0) + 1
                session.held.add(shared.ident)

    def decref(self, session: Session, ident: object) -> None:
        """Let go of a proxy of a session, and with the last one of all of the object.

        Raises:
            Refused: There is no such object, or the session has no proxy of it.
        """
        with self._held():
            shared = self.find(ident)
            count = shared.counts.get(session.number, 0)
            if count < 1:
                raise Refused(f"ValueError: {session.caller} has no reference to {ident}, so it cannot give one back")
            if count > 1:
                shared.counts[session.number] = count - 1
                return
            del shared.counts[session.number]
            session.held.discard(shared.ident)
            gone = self._forget(shared)
        del shared, gone  # what is in it goes now, outside of the lock

    def end(self, session: Session) -> None:
        """Let go of everything that a session has, once its process has ended."""
        session.ended = True
        for visit in list(session.visits):
            visit._give_up()
        owner = Owner(session.number, 0)
        for shared in list(self._objects.values()):
            ended = getattr(shared.instance, "owner_ended", None)
            if ended is not None:
                try:
                    ended(owner)
                except Exception:
                    log.exception("%s does not free what %s held", shared.ident, session.caller)
        gone = []
        with self._held():
            for ident in session.held:
                shared = self._objects[ident]
                del shared.counts[session.number]
                gone.append(self._forget(shared))
            session.held.clear()
        gone.clear()

    def drop(self, ident: str) -> None:
        """Let go of a proxy inside of an object. May be called in the middle of anything."""
        self._dropped.put(ident)
        self._sweep()

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Have the lock. What others have dropped meanwhile, and could not forget, is forgotten after it."""
        try:
            with self._lock:
                yield
        finally:
            self._sweep()

    def _sweep(self) -> None:
        """Forget the objects that were known by dropped proxies alone. Objects may do anything as they go."""
        if getattr(self._sweeping, "here", False):
            return  # what is forgotten further down has dropped more, which is seen there
        self._sweeping.here = True
        try:
            while not self._dropped.empty():
                # Whoever has the lock, and it may be this very thread, sweeps when it is done.
                if not self._lock.acquire(blocking=False):
                    return
                try:
                    gone = self._forget_dropped()
                finally:
                    self._lock.release()
                del gone
        finally:
            self._sweeping.here = False

    def _forget_dropped(self) -> Shared | None:
        try:
            shared = self._objects.get(self._dropped.get_nowait())
        except queue.Empty:
            return None
        if shared is None:
            return None
        shared.inside -= 1
        return self._forget(shared)

    def _forget(self, shared: Shared) -> Shared | None:
        """Take an object out that nobody refers to. The caller has the lock, and drops what this returns without it."""
        if shared.counts or shared.inside:
            return None
        return self._objects.pop(shared.ident, None)

    def waits(self, ident: object, more: int) -> None:
        """Count the calls of an object that wait."""
        with self._held():
            shared = self._objects.get(ident) if isinstance(ident, str) else None
            if shared is not None:
                shared.waiting += more

    # -- what is told

    def __len__(self) -> int:
        """Return how many objects there are that processes refer to."""
        return sum(1 for shared in list(self._objects.values()) if shared.counts)

    def describe(self) -> str:
        """Return a text for people about what there is."""
        return "\n".join(
            f"  {shared.ident}: made by {shared.maker}, references={sum(shared.counts.values()):g}, "
            f"in other objects={shared.inside}\n    {str(shared.instance)[:75]}"
            for shared in sorted(self._objects.values(), key=lambda shared: shared.made)
        )

    def objects(self) -> list[list[object]]:
        """Return the rows of `Host.objects`; these are ephemeral."""
        return [
            [shared.typeid, shared.ident.partition(":")[2], shared.maker, shared.made, True, shared.waiting]
            for shared in list(self._objects.values())
        ]

    def statistics(self, typeid: str, name: str) -> dict[str, object] | None:
        """Return what is known of an object, or None. It is not asked itself, since that might block."""
        shared = self._objects.get(f"{typeid}:{name}")
        if shared is None:
            return None
        references = sum(1 if count == inf else count for count in shared.counts.values())
        return {
            "maker": shared.maker,
            "made": shared.made,
            "stopped": "",
            "threaded": True,
            "references": int(references),
            "inside": shared.inside,
        }

    # -- calls

    def call(
        self, session: Session, ident: object, method: str, args: tuple[Any, ...], kwds: dict[str, Any]
    ) -> tuple[str, Any]:
        """Call a method, and return the answer as the stock protocol has it: a kind and a value.

        Raises:
            Refused: There is no such object, or it exposes no such method.
            GivenUp: Nobody waits for the answer.
        """
        shared = self.find(ident)
        if session.number not in shared.counts:
            self._borrow(session, shared)
        if method not in shared.exposed:
            return "#RETURN", self._fallback(shared, method, *args, **kwds)
        if method in _BY_NAME and args and str(args[0]).startswith("_"):
            reason = f"shares no attribute {args[0]!r}, since names with _ in front are its own"
            raise Refused(f"AttributeError: {shared.ident} {reason}")
        try:
            result = getattr(shared.instance, method)(*args, **kwds)
        except (hosting.GivenUp, Refused):
            raise
        except Exception as error:  # noqa: BLE001 - what an object raises is its caller's to know
            return "#ERROR", error
        typeid = shared.makes.get(method)
        if typeid is None:
            return "#RETURN", result
        made = self._add(session, typeid, result)
        return "#PROXY", (tuple(made.exposed), managers.Token(typeid, self.address, made.ident))

    def _borrow(self, session: Session, shared: Shared) -> None:
        """Have a session refer to an object to its end: it was started with a proxy that it has not counted."""
        with self._held():
            if not session.ended and shared.ident in self._objects:
                shared.counts[session.number] = inf
                session.held.add(shared.ident)

    def _fallback(self, shared: Shared, method: str) -> Any:
        if method == "#GETVALUE":
            return shared.instance
        if method == "__str__":
            return str(shared.instance)
        if method == "__repr__":
            return repr(shared.instance)
        has = ", ".join(sorted(shared.exposed))
        raise Refused(f"AttributeError: shared {shared.ident} exposes no {method!r}; it has {has}")

    # -- values, and proxies in them

    def load(self, data: bytes) -> Any:
        """Unpickle what came from a client; proxies of objects that are here become proxies inside."""
        if _REBUILD in data:
            return _Unpickler(data, self).load()
        return pickle.loads(data)

    def proxy(self, make: Callable[..., Any], token: Any, serializer: str, kwds: dict[str, Any]) -> Any:
        """Make a proxy that an object of this server can keep, and that keeps what it stands for.

        It calls in this process, for whoever the calling thread works for, and passes copies, as other proxies do.

        Raises:
            Refused: There is no such object.
        """
        with self._held():
            shared = self.find(token.id)
            shared.inside += 1
        inside = _Inside(self, shared.ident)
        options = {**kwds, "authkey": self._authkey, "incref": False, "manager_owned": True}
        proxy = make(token, serializer, **options)
        proxy._callmethod = inside
        return proxy

    def proxy_of(self, exposed: tuple[str, ...], token: Any) -> Any:
        """Make a proxy inside of what a call of another one has returned."""
        return self.proxy(self._rows[token.typeid][3], token, "pickle", {"exposed": exposed})


class _Inside:
    """What a proxy inside of an object calls, in the place of `BaseProxy._callmethod`. It is the reference."""

    __slots__ = ("_ident", "_table")

    def __init__(self, table: Table, ident: str) -> None:
        self._table = table
        self._ident = ident

    def __call__(self, methodname: str, args: tuple[Any, ...] = (), kwds: Mapping[str, Any] = {}) -> Any:
        table = self._table
        args, kwds = table.load(dump((args, dict(kwds))))
        try:
            kind, value = table.call(_NOBODY, self._ident, methodname, args, dict(kwds))
        except Refused as error:
            raise managers.RemoteError(f"{error}\n") from None
        if kind == "#ERROR":
            raise value
        if kind == "#PROXY":
            return table.proxy_of(*value)
        return table.load(dump(value))

    @property
    def referent(self) -> Any:
        """What it stands for, see `hosting.referent`."""
        return self._table.find(self._ident).instance

    def __del__(self) -> None:
        self._table.drop(self._ident)


class _Nobody(Session):
    """Who calls from inside: it needs no references, since the proxy that is called is one."""

    def __init__(self) -> None:
        super().__init__(0, Caller(command="the manager itself"))
        self.ended = True


_NOBODY: Final = _Nobody()

# Methods that take the name of an attribute first.
_BY_NAME: Final = frozenset({"__getattribute__", "__setattr__", "__delattr__"})


class _Unpickler(pickle.Unpickler):
    """Make proxies of objects of this server without a connection to it."""

    def __init__(self, data: bytes, table: Table) -> None:
        super().__init__(io.BytesIO(data))
        self._table = table

    def find_class(self, module: str, name: str) -> Any:
        if name == "RebuildProxy" and module == "multiprocessing.managers":
            # Not a method of this, which would keep what it has made until the collector comes by.
            return partial(_rebuild, self._table)
        return super().find_class(module, name)


def _rebuild(table: Table, make: Callable[..., Any], token: Any, serializer: str, kwds: dict[str, Any]) -> Any:
    if token.address != table.address:
        return managers.RebuildProxy(make, token, serializer, kwds)  # type: ignore[attr-defined]
    return table.proxy(make, token, serializer, kwds)


class _Collector(ForkingPickler):
    """Find the proxies in a value."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), pickle.HIGHEST_PROTOCOL)
        self.proxies: list[Any] = []

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, managers.BaseProxy):
            self.proxies.append(value)
        return NotImplemented


def dump(value: object) -> bytes:
    """Pickle as `multiprocessing` does, for another process of the same program."""
    buffer = io.BytesIO()
    ForkingPickler(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()


def answer(kind: str, value: object) -> tuple[bytes, list[Any]]:
    """Pickle an answer; return with it the proxies in it, which are to be kept until the client has its own."""
    if type(value) in _PLAIN:
        return pickle.dumps((kind, value)), []
    data = dump((kind, value))
    if _REBUILD not in data:
        return data, []
    collector = _Collector()
    collector.dump(value)
    return data, collector.proxies


def _gone(ident: object) -> str:
    return f"KeyError: no object {ident} in this manager: it went with its last proxy, or with an earlier server"


def _public(instance: object) -> list[str]:
    return [name for name in dir(instance) if name[0] != "_" and callable(getattr(instance, name))]
