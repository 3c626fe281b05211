"""Share a dict and a login lock with every process that has the key.

This is a recipe that many programs carry: a `multiprocessing.managers.BaseManager` with a dict and an
`RLock`, a `ManagerServer` that runs it, and a `ManagerClient` for all others. Here it is a plugin. The two
types have the recipe's names and methods, so that its clients, which use nothing but `multiprocessing`, work
as they are.

`ManagerServer` and `ManagerClient` have its faces, for programs that import them::

    ManagerServer("127.0.0.1", 6000, b"secret").run()

    client = ManagerClient("127.0.0.1", 6000, b"secret")
    with client.get_open_qq_login_lock():
        client.get_dict()["cookie"] = log_in()

What differs from the recipe: ``d["k"] = v`` works; the lock is freed when its holder dies, and the next to
acquire it is told so (``grant.abandoned``); a client that was interrupted never reads another call's reply.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import registry
from registry import SharedObject, hookimpl
from registry_sync import RLock

__all__ = ["DICT", "LOGIN_LOCK", "DictItem", "ManagerClient", "ManagerServer", "registry_shared_objects"]


class DictItem:
    """Keep values by key. Each call is one step, and O(1); values are kept as they came and never decoded."""

    def __init__(self) -> None:
        self._items: dict[Hashable, object] = {}

    def set(self, key: Hashable, value: object) -> None:
        """Store a value."""
        self._items[key] = value

    def get(self, key: Hashable) -> object:
        """Return the value of a key, or None where there is none."""
        return self._items.get(key)

    def __setitem__(self, key: Hashable, value: object) -> None:
        self.set(key, value)


DICT = SharedObject("dict", DictItem, per="server", readonly=("get",), carried=("set.value", "__setitem__.value"))

LOGIN_LOCK = SharedObject(
    "open_qq_login_lock", RLock, per="server", readonly=("locked",), waiting=("acquire",), shape="lock"
)


@hookimpl
def registry_shared_objects() -> Iterable[SharedObject[Any]]:
    """Share the dict and the lock."""
    return [DICT, LOGIN_LOCK]


class ManagerServer:
    """Serve the dict and the lock, and nothing else. Listens at once; clients wait until `run`."""

    def __init__(self, domain: str, port: int, auth_key: bytes) -> None:
        manager = registry.manager_class("info_manager")
        self._server: Any = manager((domain, port), auth_key).get_server()

    def run(self) -> None:
        """Serve until `stop`, SIGINT or SIGTERM. Blocks."""
        self._server.serve_forever()

    def stop(self) -> None:
        """Make `run` return. May be called from any thread."""
        self._server.stop()


class ManagerClient:
    """Use the dict and the lock of a server. Connects at once."""

    def __init__(self, domain: str, port: int, auth_key: bytes) -> None:
        self._client = registry.connect((domain, port), auth_key)

    def get_dict(self) -> Any:
        """Return the dict; all processes get the same."""
        return self._client.dict()

    def get_open_qq_login_lock(self) -> Any:
        """Return the lock; all processes get the same."""
        return self._client.open_qq_login_lock()
