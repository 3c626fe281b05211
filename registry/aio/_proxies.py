"""Proxies whose verbs are awaited.

Each stands before a proxy of `registry.proxies`, another one in each event loop, and has it do everything: its verbs
run in the task that awaits them (`_bridge`). So there is nothing in here of how a mapping or a lock behaves.

A block of ``async with`` is a block of that proxy's ``with``. Python looks ``__aexit__`` up before it enters, and lets
go of what it found when the block has been left. That is a `Block`, which nobody else refers to, and which has in the
same way what it found as ``__exit__``; so that what it has taken goes back also where a task is thrown away.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable
from contextlib import AbstractContextManager
from functools import partial, wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar
from weakref import WeakKeyDictionary, ref

from registry._leaves import Grant as HeldGrant
from registry.aio._bridge import run
from registry.declarations import DUNDERS, Interface
from registry.proxies import Proxy, Remote, proxy_class

if TYPE_CHECKING:
    from types import TracebackType

    from registry.aio._homes import Front, LoopHome

P = ParamSpec("P")
R = TypeVar("R")

# The shapes whose blocks are a thread's, so that each task has a proxy of its own.
_OF_TASKS = ("lock", "semaphore", "condition")
_GRANTING = (*_OF_TASKS, "rwlock")
# What holds for the process whatever it holds.
_OF_PROCESSES = ("queue", "semaphore")
# The verbs that give something to enter.
_BLOCKS: dict[str | None, tuple[str, ...]] = {
    **dict.fromkeys(_OF_TASKS, ("acquire",)),
    "rwlock": ("read", "write"),
    "mapping": ("edit",),
    "queue": ("claim",),
}
_SPELLED = {name.strip("_"): name for name in DUNDERS}


# -- blocks


class Block:
    """One block of ``async with``."""

    __slots__ = ("__weakref__", "_exit")

    def __init__(self) -> None:
        self._exit: Callable[..., Any] | None = None

    async def enter(self, make: Callable[[], Any]) -> Any:
        """Enter the block of the context manager that `make` returns."""
        self._exit, value = await run(_enter, make)
        return face(value)

    async def leave(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Any:
        """Leave it, as ``__aexit__`` does."""
        leave, self._exit = self._exit, None
        if leave is None:
            return None
        hold = getattr(leave, "hold", None)
        if kind is GeneratorExit and hold is not None:
            hold.forsake()  # whoever is thrown away, or a generator that is, cannot wait for the reply
            return None
        return await run(leave, kind, error, traceback)


def _enter(make: Callable[[], AbstractContextManager[Any]]) -> tuple[Any, Any]:
    manager = make()
    leave = manager.__exit__  # before the block is entered, as `with` does it
    return leave, manager.__enter__()


class _Leaving:
    """The ``__aexit__`` of what can be entered: looked up before a block begins, it is for that block alone."""

    def __get__(self, of: Blocks | None, owner: type) -> Callable[..., Coroutine[Any, Any, Any]]:
        if of is None:
            return _leave_last
        block = Block()
        of._row().opening = ref(block)
        return block.leave


async def _leave_last(
    of: Blocks,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
) -> Any:
    """Leave the block that this task has entered last; for `contextlib.AsyncExitStack`, which asks the class."""
    return await of._row().entered.pop().leave(kind, error, traceback)


class Row:
    """What a task has of something that can be entered: the block that it is about to enter, and those it is in."""

    def __init__(self) -> None:
        self.opening: ref[Block] | None = None
        self.entered: list[Block] = []


class Blocks:
    """What can be entered by ``async with``."""

    __slots__ = ()  # those that inherit have one for `_rows`
    _rows: WeakKeyDictionary[Any, Row] | None

    def _row(self) -> Row:
        if self._rows is None:
            self._rows = WeakKeyDictionary()  # type: ignore[misc]
        return self._rows.setdefault(_task(), Row())

    async def _manager(self) -> Callable[[], Any]:
        """Return what makes the context manager; it is called where it may wait."""
        raise NotImplementedError

    async def __aenter__(self) -> Any:
        row = self._row()
        opening, row.opening = row.opening, None
        block = opening() if opening is not None else None
        if block is not None:
            return await block.enter(await self._manager())
        block = Block()
        value = await block.enter(await self._manager())
        row.entered.append(block)
        return value

    if TYPE_CHECKING:

        async def __aexit__(
            self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
        ) -> bool | None: ...

    else:
        __aexit__ = _Leaving()


def _task() -> Any:
    """Return the task that runs, or what runs it."""
    loop = asyncio.get_running_loop()
    return asyncio.current_task(loop) or loop


# -- grants


class Grant(Blocks):
    """What ``acquire`` gave: truthy if it was given, falsy if not. As `registry.Grant`, with verbs that are awaited.

    ``async with grant:`` releases it at the end of the block, and raises `CallTimeout` if it was not given.
    """

    __slots__ = ("__weakref__", "_held", "_rows")

    def __init__(self, held: HeldGrant) -> None:
        self._rows = None
        self._held = held

    @property
    def number(self) -> int:
        """Its number, larger than that of every grant before it; 0 if nothing was given."""
        return self._held.number

    @property
    def token(self) -> int | None:
        """The fencing token for things outside, such as a database; None where there is none."""
        return self._held.token

    @property
    def abandoned(self) -> bool:
        """Whether the last holder died while it held."""
        return self._held.abandoned

    @property
    def holder(self) -> str:
        """Who holds it; of a falsy grant, who has it instead."""
        return self._held.holder

    @property
    def since(self) -> float:
        """Since when, in seconds of the wall clock."""
        return self._held.since

    async def release(self) -> None:
        """Give back what was granted.

        Raises:
            NotOwner: It was given back before.
            LockLost: It was taken away meanwhile.
        """
        await run(self._held.release)

    def guard(self) -> AbstractContextManager[HeldGrant]:
        """Return a context, for a plain ``with``, in which the calls of the task that runs carry the grant.

        It is for tasks that a holder starts: calls made in it raise `LockLost` once the grant is lost.
        """
        return self._held.guard()

    async def _manager(self) -> Callable[[], Any]:
        return lambda: self._held

    def __bool__(self) -> bool:
        return bool(self._held)

    def __eq__(self, other: object) -> bool:
        return self._held == other._held if isinstance(other, Grant) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._held)

    def __repr__(self) -> str:
        return repr(self._held)


def face(value: Any) -> Any:
    """Return what tasks see of a value."""
    return Grant(value) if type(value) is HeldGrant else value


# -- verbs


class Call(Coroutine[Any, Any, Any]):
    """A call of a verb: a coroutine to await, or a block to enter, as ``async with shared.rwlock("x").read():``."""

    __slots__ = ("__name__", "__qualname__", "__weakref__", "_block", "_coroutine", "_make")

    def __init__(self, proxy: AsyncProxy, verb: str, /, *args: Any, **kwargs: Any) -> None:
        self._make = partial(proxy._enter, verb, args, kwargs)
        self._block: Block | None = None
        self._coroutine = proxy._call_later(verb, *args, **kwargs)
        self.__name__, self.__qualname__ = self._coroutine.__name__, self._coroutine.__qualname__

    def __await__(self) -> Generator[Any, None, Any]:
        return self._coroutine.__await__()  # type: ignore[no-any-return]

    def send(self, value: Any) -> Any:
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    async def __aenter__(self) -> Any:
        self._coroutine.close()
        self._block = block = Block()
        return await self._make(block)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Any:
        return None if self._block is None else await self._block.leave(kind, error, traceback)


# -- proxies


class Part:
    """What stands behind a proxy in one event loop."""

    def __init__(self, remote: Remote, interface: Interface) -> None:
        self.remote = remote
        self.interface = interface
        self.link: Any = remote.home.link()
        self.cls = proxy_class(interface)
        self._shared = self.cls(remote)
        self._names: dict[str, str] = {}
        self._of_tasks: WeakKeyDictionary[Any, Proxy] | None = None
        if interface.shape in _OF_TASKS:
            self._of_tasks = WeakKeyDictionary()

    @property
    def proxy(self) -> Proxy:
        """The proxy for threads that does what the task that runs asks for."""
        if self._of_tasks is None:
            return self._shared
        task = _task()
        proxy = self._of_tasks.get(task)
        if proxy is None:
            proxy = self._of_tasks[task] = self.cls(self.remote)
        return proxy

    def name_of(self, verb: str) -> str:
        """Return the name of a method, empty where the type has none of that verb."""
        name = self._names.get(verb)
        if name is None:
            dunder = _SPELLED.get(verb, "")
            if verb in self.interface.exposed or (not verb.startswith("_") and hasattr(self.cls, verb)):
                name = verb
            else:
                name = dunder if dunder in self.interface.exposed else ""
            self._names[verb] = name
        return name

    def verbs(self) -> list[str]:
        """Return the verbs of the type, sorted."""
        names = {name.strip("_") if name in DUNDERS else name for name in self.interface.exposed}
        of_shape = (name for name in dir(self.cls) if not name.startswith("_") and hasattr(self.cls, name))
        return sorted(names.union(of_shape))

    def has_blocks(self, verb: str) -> bool:
        """Tell whether a verb gives something to enter."""
        return verb in _BLOCKS.get(self.interface.shape, ())

    def may_hold(self, name: str, value: object) -> bool:
        """Tell whether a task that has called a method may hold something which goes when it ends.

        A block gives back what it has taken by itself, before its task can end.
        """
        interface = self.interface
        if interface.threaded:
            return True  # a thread of the server's
        if not interface.owned or name in interface.readonly or interface.shape in _OF_PROCESSES:
            return False
        if interface.shape in _GRANTING:
            return type(value) is HeldGrant and bool(value)
        return interface.shape is None or name in interface.waiting


class AsyncProxy(Blocks, Proxy):
    """Stand for a hosted object in asynchronous code: each verb returns a coroutine."""

    __slots__ = ("_front", "_parts", "_rows")
    __hash__ = Proxy.__hash__

    def __init__(self, front: Front, typeid: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(Remote(front.outside, typeid, args, kwargs))
        self._rows = None
        self._front = front
        self._parts: WeakKeyDictionary[LoopHome, Part] = WeakKeyDictionary()

    # -- what it is in the loop that runs

    def _known(self) -> Part | None:
        """Return what stands behind it here, where that takes no call."""
        home = self._front.found()
        if home is None:
            return None
        part = self._parts.get(home)
        if part is None and self._remote.typeid in home.link().table:
            part = self._find(home)
        return part

    async def _part(self) -> Part:
        """Return what stands behind it here, once the client has connected."""
        home = self._front.here()
        part = self._parts.get(home)
        return await run(self._find, home) if part is None else part

    def _find(self, home: LoopHome) -> Part:
        seed = self._remote
        interface = home.interface(seed.typeid)  # which may take a while
        with self._front.resolving:
            part = self._parts.get(home)  # another task may have been quicker
            if part is None:
                remote = Remote(home, seed.typeid, seed._args, seed._kwargs)
                remote.is_found = seed.is_found
                if seed.interface is not None:
                    remote.name, remote.definition, remote.interface = seed.name, seed.definition, seed.interface
                interface = remote.resolve()
                # One object for all loops, also where each proxy makes a new one.
                seed.name, seed.definition, seed.interface = remote.name, remote.definition, interface
                part = self._parts[home] = Part(remote, interface)
            return part

    # -- verbs

    def _call_later(self, verb: str, /, *args: Any, **kwargs: Any) -> Any:
        """Return the coroutine that calls a verb. Of one that nobody awaits Python says what it was."""
        coroutine: Any = self._invoke(verb, *args, **kwargs)
        coroutine.__name__, coroutine.__qualname__ = verb, f"{self._remote.title}.{verb}"
        return coroutine

    async def _invoke(self, verb: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a verb."""
        part = await self._part()
        name = self._name(part, verb)
        value: object = None
        try:
            value = await run(getattr(part.proxy, name), *map(_behind, args), **kwargs)
        finally:
            if part.may_hold(name, value):
                part.link.tell_end_of_task()
        if part.has_blocks(verb) and type(value) is not HeldGrant and hasattr(value, "__exit__"):
            raise TypeError(f"{self!r}.{verb}() is a block: async with ...{verb}(...)")
        return face(value)

    async def _enter(self, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any], block: Block) -> Any:
        """Call a verb, and enter what it gives."""
        part = await self._part()
        method = getattr(part.proxy, self._name(part, verb))
        if not part.has_blocks(verb):
            raise TypeError(f"{self!r}.{verb}() is no block: await ...{verb}(...)")
        return await block.enter(partial(method, *args, **kwargs))

    def _name(self, part: Part, verb: str) -> str:
        name = part.name_of(verb)
        if not name:
            raise self._unknown(part, verb)
        return name

    def __getattr__(self, verb: str) -> Any:
        if verb.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {verb!r}", name=verb, obj=self)
        part = self._known()
        if part is not None:
            self._name(part, verb)
            if not part.has_blocks(verb):
                return partial(self._call_later, verb)
        return partial(Call, self, verb)

    def _unknown(self, part: Part, verb: str) -> AttributeError:
        return AttributeError(
            f"shared {self._remote.title} on server {part.remote.home.link().label} has no verb {verb!r}; "
            f"it has {', '.join(part.verbs())}",
            name=verb,
            obj=self,
        )

    def __dir__(self) -> Iterable[str]:
        part = self._known()
        return sorted({*object.__dir__(self), *(part.verbs() if part is not None else ())})

    # -- what it is like

    async def _manager(self) -> Callable[[], Any]:
        part = await self._part()
        if not hasattr(part.cls, "__enter__"):
            raise TypeError(f"{self!r} is no block; it has {', '.join(part.verbs())}")
        return lambda: part.proxy

    def __aiter__(self) -> AsyncIterator[Any]:
        return _Items(self)

    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """Wrap a coroutine function so that it runs in a block of the lock."""
        if not iscoroutinefunction(function):
            raise TypeError(f"{self!r} decorates coroutine functions (async def), not {function!r}")

        @wraps(function)
        async def locked(*args: P.args, **kwargs: P.kwargs) -> R:
            async with self:
                return await function(*args, **kwargs)

        return locked

    def __bool__(self) -> bool:
        part = self._known()
        if part is not None and part.interface.shape not in _GRANTING:
            for dunder in ("__bool__", "__len__"):
                if dunder in part.interface.exposed:
                    raise self._awaited(dunder)
        return True

    def _awaited(self, dunder: str) -> TypeError:
        how = {"__iter__": "async for", "__enter__": "async with"}.get(dunder) or f"await {dunder.strip('_')}(...)"
        return TypeError(f"{self!r} belongs to an event loop, and every use of it is awaited: {how}")


def _refusing(dunder: str) -> Callable[..., NoReturn]:
    def method(self: AsyncProxy, *args: object) -> NoReturn:
        raise self._awaited(dunder)

    method.__name__ = method.__qualname__ = dunder
    return method


for _dunder in {*DUNDERS, "__enter__", "__exit__"} - {"__bool__", "__call__"}:
    setattr(AsyncProxy, _dunder, _refusing(_dunder))


class _Items:
    """The items of a queue as they come, or what a container has at this moment."""

    def __init__(self, proxy: AsyncProxy) -> None:
        self._proxy = proxy
        self._rest: Any = None

    def __aiter__(self) -> _Items:
        return self

    async def __anext__(self) -> Any:
        proxy = self._proxy
        if self._rest is None:
            part = await proxy._part()
            if part.interface.shape == "queue":
                return await proxy._invoke("get")
            if "__iter__" not in part.interface.exposed:
                raise TypeError(f"{proxy!r} is no row of items; it has {', '.join(part.verbs())}")
            self._rest = await proxy._invoke("iter")
        try:
            return next(self._rest)
        except StopIteration:
            raise StopAsyncIteration from None


def _behind(value: object) -> object:
    """Return the proxy that stands behind an argument, which may be asked for what the object has."""
    if isinstance(value, AsyncProxy):
        part = value._known()
        return part.proxy if part is not None else value
    return value
