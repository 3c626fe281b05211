"""What stands behind an asynchronous client: in each event loop a home of its own, with a session of that loop."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from registry._link import Link
from registry.aio._link import LoopLink
from registry.aio._proxies import AsyncProxy
from registry.client import LAST_WORDS, Home, forgotten
from registry.errors import ServerNotFound

if TYPE_CHECKING:
    from registry._leaves import Handle

Key = tuple[str, bytes]

# The one session of each event loop with each server and key.
_links: dict[asyncio.AbstractEventLoop, dict[Key, Link]] = {}
_fronts: weakref.WeakSet[Front] = weakref.WeakSet()
_revived: dict[str, Front] = {}


class LoopHome(Home):
    """What a client has in one event loop.

    Args:
        front: What stands behind it in all of them.
        options: As those of `Home`.
    """

    link_type: ClassVar[type[Link]] = LoopLink

    def __init__(self, front: Front, *options: Any) -> None:
        super().__init__(*options)
        self._front = front
        self.is_revived = front.is_revived

    def _shared_links(self) -> dict[Key, Link]:
        loop = asyncio.get_running_loop()
        links = _links.get(loop)
        if links is None:
            _forget_ended()
            links = _links.setdefault(loop, {})
        return links

    def _memory_server(self) -> Any:
        return self._front.memory_server()

    def close(self) -> None:
        self._memory = None  # which is the front's
        super().close()
        self._front.left()

    def revive(self, handle: Handle) -> Any:
        front = self._front if handle.address in ("", self.address) else front_of(handle.address)
        return front.find(handle.typeid, handle.name)

    @property
    def reopen(self) -> Callable[[str, str, str], Any]:
        return _reopen


class Front:
    """What stands behind a client in all event loops.

    Attributes:
        outside: The home where there is no loop: it knows the address, and never connects.
        resolving: Held while a proxy takes its type; nobody waits for anything meanwhile.
        is_revived: Made for proxies that came without a client, see `front_of`.
    """

    def __init__(self, *options: Any, is_revived: bool = False) -> None:
        self.is_revived = is_revived
        self._options = options
        self._homes: dict[asyncio.AbstractEventLoop, LoopHome] = {}
        self._memory: Any = None
        self.resolving = threading.Lock()
        self.outside = LoopHome(self, *options)
        _fronts.add(self)

    def here(self) -> LoopHome:
        """Return the home in the loop that runs.

        Raises:
            RuntimeError: None does.
        """
        loop = asyncio.get_running_loop()
        home = self._homes.get(loop)
        if home is None:
            for ended in [other for other in list(self._homes) if other.is_closed()]:
                self._homes.pop(ended, None)
            home = self._homes[loop] = LoopHome(self, *self._options)
        return home

    @property
    def known(self) -> LoopHome:
        """The home in the loop that runs, where there is one."""
        loop = asyncio._get_running_loop()
        return self.outside if loop is None else self._homes.get(loop, self.outside)

    def found(self) -> LoopHome | None:
        """Return the home in the loop that runs, where there is one that has connected."""
        return self.known if self.known.is_connected else None

    def open(self, typeid: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AsyncProxy:
        """Return a proxy; what is wrong with its arguments is said at once, where this loop has connected."""
        proxy = AsyncProxy(self, typeid, args, kwargs)
        proxy._known()
        return proxy

    def find(self, typeid: str, name: str) -> AsyncProxy:
        """Return a proxy for an object by the name that it has, also where each call makes a new one."""
        proxy = AsyncProxy(self, typeid, (name,) if name else (), {})
        proxy._remote.is_found = True
        return proxy

    def memory_server(self) -> Any:
        """Return the server of ``memory://``, which all loops of this client share."""
        if self._memory is None:
            self._memory = Home._memory_server(self.outside)
        return self._memory

    def left(self) -> None:
        """Stop that server with the last of the homes."""
        memory = self._memory
        if memory is not None and all(home._closed or loop.is_closed() for loop, home in self._homes.items()):
            self._memory = None
            memory.stop()


def _forget_ended() -> None:
    """Forget the loops that were closed, with all that is left of them; who did not shut them down has said nothing."""
    for loop in [loop for loop in list(_links) if loop.is_closed()]:
        for link in list(_links.pop(loop, {}).values()):
            link.close()


def forget(directory: str) -> None:
    """As `client.forget`, in every loop that there is, whether or not it runs."""
    for loop, links in list(_links.items()):
        for link in forgotten(links, directory):
            if loop.is_running() and asyncio._get_running_loop() is not loop:
                loop.call_soon_threadsafe(link.close)
            else:
                link.close()


def front_of(address: str) -> Front:
    """Return what serves proxies that arrive in values and pickles, which never hold a key.

    As `client.home_of`, it is a client that has connected in this loop, or else a lazy one.
    """
    for front in list(_fronts):
        if front.outside.address == address and front.found() is not None:
            return front
    if address == "memory://":
        raise ServerNotFound(address, "it went with its client")
    front = _revived.get(address) or Front(address, None, None, 30.0, (), "", is_revived=True)
    return _revived.setdefault(address, front)


def _reopen(address: str, typeid: str, name: str) -> Any:
    """Make a proxy from its pickle, which never holds a key: this process's own client for the address serves it."""
    return front_of(address).find(typeid, name)


@atexit.register
def _say_goodbye() -> None:
    """Free at once what this process holds, when its interpreter ends in order."""
    for links in list(_links.values()):
        for link in list(links.values()):
            link.last_words(LAST_WORDS)


def _after_fork() -> None:
    """In a forked child: its loop has sessions of its own. It owns nothing that its parent holds."""
    for links in list(_links.values()):
        for link in list(links.values()):
            link.drop_inherited()
    _links.clear()
    for front in list(_fronts):
        front.resolving = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
