"""Objects as the command line shows them: values as they are, and pickles by name, since opening one runs code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry._leaves import Carried
from registry._log._dump import opened, plain
from registry.proxies import Remote

if TYPE_CHECKING:
    from registry.client import ManagerClient

__all__ = ["ShownRemote", "plain"]


class ShownRemote(Remote):
    """An object of a server, whose pickles are not opened."""

    __slots__ = ()

    @classmethod
    def of(cls, client: ManagerClient, typeid: str, name: str) -> ShownRemote:
        """Find an object that is there.

        Raises:
            UnknownType: The server has no such type.
            NoSuchObject: Nothing has that name.
        """
        home = client._home
        remote = cls(home, typeid, (name,) if name else (), {})
        remote.is_found = True
        if home.interface(typeid).per != "server":
            home.link().ask("statistics", typeid, name)
        return remote

    def _incoming(self, leaf: Any) -> object:
        return opened(leaf) if type(leaf) is Carried and leaf.domain else super()._incoming(leaf)
