"""Share live objects between unrelated Python processes.

>>> import registry
>>> shared = registry.connect("scrapers")  # doctest: +SKIP
>>> shared.dict("prices")["BTC"] = 97_000  # doctest: +SKIP

Whatever stands in ``__all__`` is loaded at its first use: ``import registry`` alone loads no other
module, and a client never loads the server, the command line or the plugin manager.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry import aio, errors, hookspecs, hosting, testing
    from registry._leaves import Grant
    from registry._manager import Manager, manager_class
    from registry.client import ManagerClient, connect
    from registry.declarations import SharedObject, ValueType
    from registry.hookspecs import hookimpl
    from registry.server import ManagerServer

__version__ = "0.1.0"

__all__ = [
    "Grant",
    "Manager",
    "ManagerClient",
    "ManagerServer",
    "SharedObject",
    "ValueType",
    "aio",
    "connect",
    "errors",
    "hookimpl",
    "hookspecs",
    "hosting",
    "manager_class",
    "testing",
]

# Where each name lives; None for a module of that name.
_HOMES: dict[str, str | None] = {
    "Grant": "_leaves",
    "Manager": "_manager",
    "ManagerClient": "client",
    "ManagerServer": "server",
    "SharedObject": "declarations",
    "ValueType": "declarations",
    "aio": None,
    "connect": "client",
    "errors": None,
    "hookimpl": "hookspecs",
    "hookspecs": None,
    "hosting": None,
    "manager_class": "_manager",
    "testing": None,
}


def __getattr__(name: str) -> object:
    """Load a public name at its first use (PEP 562)."""
    value: object
    if name in _HOMES:
        from importlib import import_module

        home = _HOMES[name]
        module = import_module(f"{__name__}.{home or name}")
        value = module if home is None else getattr(module, name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # From now on the name is found without coming through here.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names too, loaded or not."""
    return sorted({*globals(), *__all__})
