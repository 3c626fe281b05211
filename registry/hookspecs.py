"""The contract between the registry and its plugins: every hook there is, with its manual.

A plugin is a module, a class or an object with functions of these names, each marked with `hookimpl`. It is
found through an entry point of the group ``shared_registry``, or given by name:

.. code-block:: toml

    [project.entry-points.shared_registry]
    cookies = "shared_cookies"
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import pluggy

if TYPE_CHECKING:
    from registry.declarations import SharedObject, ValueType

__all__ = ["hookimpl", "hookspec", "registry_shared_objects", "registry_value_types"]

#: The name that the markers share; hooks are prefixed with it.
PROJECT: Final = "registry"

hookspec: Final = pluggy.HookspecMarker(PROJECT)

#: Mark a function as the implementation of the hook of its name.
hookimpl: Final = pluggy.HookimplMarker(PROJECT)


@hookspec
def registry_shared_objects() -> Iterable[SharedObject[Any]]:
    """Return the types that this plugin shares.

    When:
        Once, while the plugins are loaded: before the server listens, and before an object is restored. What
        it returns is fixed for the life of the server.

    Where:
        In the process that hosts the objects, on the thread that loads the plugins. Under the start methods
        *spawn* and *forkserver* also in the process that asked for the server. A client calls it in the text
        of an `UnknownType` error at most.

    How often:
        Once in each of these processes for each time that plugins are loaded there, so that the function
        should only build records: no connections, no threads, no files.

    Returns:
        An iterable of `SharedObject` records, such as a list or a generator; it is read to its end at once.
        An empty one is allowed. Typeids must differ: two records of one typeid in one plugin are an error.
        Two plugins with different records for one typeid clash, which switches the newcomer off (a plugin of
        the registry itself stays, of two others neither is used) until the operator names the one that is
        meant. The same record from two plugins is no clash.

    If it raises:
        The plugin is broken: none of its types exists, ``registry plugins`` shows the traceback, and the
        others are loaded as if it were not installed. Under ``--strict`` the server does not start. The same
        holds for `SystemExit`, for an import that fails, and for a result that is not as described.

    >>> from registry import SharedObject, hookimpl
    >>> @hookimpl
    ... def registry_shared_objects():
    ...     return [SharedObject("scores", dict)]
    """
    raise NotImplementedError("a specification is never called")


@hookspec
def registry_value_types() -> Iterable[ValueType]:
    """Return the classes whose instances cross between processes as themselves.

    When:
        While the plugins are loaded, before the server listens and before a log is read. In a client when a value is
        first met whose class, or whose name, is not known there.

    Where:
        In the process that hosts the objects, as `registry_shared_objects`, and in each client that names the plugin
        in ``plugins=``, on whichever thread met the value. Clients scan no entry points: they ask the modules and files
        that they name, and the first-party plugin for arrays.

    How often:
        Once in each of these processes for each time that plugins are loaded there. What it returns holds for the whole
        process, since a class and its name belong together there; the function should only build records.

    Returns:
        An iterable of `ValueType` records, such as a list. Names must differ, and so must classes. The same record from
        two plugins is no clash.

    If it raises:
        In a server the plugin is broken, as with `registry_shared_objects`; so is one that gives a name or a class
        another meaning than a plugin before it. In a client it comes out of the call that met the value.

    >>> from enum import Enum
    >>> from registry import ValueType, hookimpl
    >>> class Colour(Enum):
    ...     RED = 1
    >>> @hookimpl
    ... def registry_value_types():
    ...     return [ValueType(Colour, "shop.Colour")]
    """
    raise NotImplementedError("a specification is never called")
