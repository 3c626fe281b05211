"""The client for asyncio: ``async with aio.connect() as shared``, and every verb awaited.

>>> import asyncio
>>> from registry import aio
>>> async def main():
...     async with aio.connect("memory://") as shared:
...         prices = shared.dict("prices")
...         await prices.setitem("BTC", 97_000)
...         async with shared.lock("login") as grant:
...             return await prices.getitem("BTC"), bool(grant)
>>> asyncio.run(main())
(97000, True)

It is the client of `registry.connect`, in an event loop: a loop has one session with a server, as a process has, and
its tasks are owners, as threads are. No call keeps the loop waiting. A cancelled call is settled: it has no effect, or
what it gave goes back, unless it had run before the server heard of that.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from registry.aio._bridge import run
from registry.aio._homes import Front
from registry.aio._proxies import AsyncProxy, Grant
from registry.client import ManagerClient as BlockingClient
from registry.client import TlsPaths, named_plugins, written

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from registry.aio._typed import FirstParty
    from registry.declarations import SharedObject
else:
    FirstParty = object

__all__ = ["Grant", "ManagerClient", "connect"]


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
) -> Connecting:
    """Connect to a server: ``async with connect() as shared``, or ``shared = await connect()``.

    The arguments are those of `registry.connect`. So are the errors, which come when it is awaited.
    """
    return Connecting(
        ManagerClient(
            address, authkey, start=start, timeout=timeout, cache=cache, plugins=plugins, label=label, tls=tls
        )
    )


class Connecting:
    """What `connect` returns: awaited it is the client, entered it is the client until the end of the block."""

    def __init__(self, client: ManagerClient) -> None:
        self._client = client

    def __await__(self) -> Generator[Any, None, ManagerClient]:
        return self._connect().__await__()

    async def _connect(self) -> ManagerClient:
        try:
            return await self._client.connect()
        except BaseException:
            await self._client.close()
            raise

    async def __aenter__(self) -> ManagerClient:
        return await self._connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.close()


class ManagerClient(FirstParty):
    """Use the shared objects of a server from asynchronous code: ``client.<typeid>(name)`` returns a proxy.

    Takes the arguments of `registry.connect`. It does no I/O until it is first used, so that a module may hold it, and
    the proxies that it gives. Each event loop that uses it has a session of its own.
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
        self._front = Front(written(address), authkey, start, timeout, named_plugins(plugins), label or "", cache, tls)

    def _here(self) -> BlockingClient:
        return BlockingClient._with(self._front.here())

    async def connect(self) -> Self:
        """Connect now, unless connected. Raises as `registry.connect` does."""
        await run(self._here().connect)
        return self

    async def close(self) -> None:
        """Leave. With the last client of a server in this loop its session ends, and what it held is freed."""
        await run(self._here().close)

    async def __aenter__(self) -> Self:
        return await self.connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<asynchronous client of {self._front.known.address}, {self._front.known.state}>"

    def __getattr__(self, typeid: str) -> Callable[..., Any]:
        if typeid.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {typeid!r}")
        self._check(typeid)
        return partial(self.open, typeid)

    def _check(self, typeid: str) -> None:
        home = self._front.found()
        if home is not None and typeid not in home.link().table:
            raise home.unknown(typeid)

    def __dir__(self) -> Iterable[str]:
        home = self._front.found()
        return sorted({*super().__dir__(), *(home.link().table if home is not None else ())})

    def open(self, declaration: SharedObject[Any] | str, /, *args: Any, **kwargs: Any) -> Any:
        """Return a proxy for an object: ``open(COOKIES, "x")`` is ``client.cookies("x")``.

        Args:
            declaration: The declaration, or its typeid.
            *args: The object's name, where the type has names, then the arguments that define it.
            **kwargs: Further arguments that define it.
        """
        typeid = declaration if isinstance(declaration, str) else declaration.typeid
        self._check(typeid)
        return self._front.open(typeid, args, kwargs)

    async def delete(self, proxy: Any) -> None:
        """Delete a shared object, as `registry.ManagerClient.delete`."""
        await run(self._here().delete, await _behind(proxy))

    def listen(self, callback: Callable[[str], object]) -> Callable[[], None]:
        """Have `callback` called with each new state of this loop's session, as `registry.ManagerClient.listen`.

        It is called in the loop, and must not wait.
        """
        return self._here().listen(callback)

    async def objects(self, pattern: str = "*") -> list[dict[str, Any]]:
        """Return what the server holds, as `registry.ManagerClient.objects`."""
        return await run(self._here().objects, pattern)

    async def statistics(self, proxy: Any = None) -> dict[str, Any]:
        """Return what an object tells of itself, or without one what the server does."""
        return await run(self._here().statistics, await _behind(proxy))


async def _behind(proxy: Any) -> Any:
    return (await proxy._part()).proxy if isinstance(proxy, AsyncProxy) else proxy
