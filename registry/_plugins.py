"""Find plugins and load them, so that each one's origin is known and none can take others down.

Loading has two phases. The first lists what is installed: the entry points of the group
``shared_registry``, each with its distribution and version; no code of a plugin runs. The second imports each
plugin and calls its hook, in a ``try`` of its own: whatever it raises, the plugin is *broken*, which is
recorded, and the others go on. pluggy's own loader does neither (one broken import ends the loading, and a
second plugin of a name is skipped without a word), so here pluggy only checks hooks and calls them.

What clashes is decided by looking at all plugins at once, never by the order in which they are found:

* different records for one typeid in two plugins that were both asked for are an error;
* a plugin of the registry itself stays, the newcomer is switched *off*;
* of two others both are off: taking either would be a guess about what a name means;
* the same record in two plugins is no clash.

A plugin is off or on as a whole; half a plugin would be harder to understand than none.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import pickle
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal

import attrs
import pluggy

from registry import _codec, hookspecs
from registry.declarations import SharedObject, ValueType
from registry.errors import PluginError

__all__ = ["GROUP", "Plugin", "Plugins", "load", "whence"]

#: The group of entry points that plugins are found through.
GROUP: Final = "shared_registry"

_OURSELVES = "shared-registry"
# Typeids of `multiprocessing` with its meaning of them; loaded only into servers that ask for it.
_LEFT_OUT = frozenset({"registry_multiprocessing"})

_Stamp = tuple[int, int]


@attrs.frozen
class Plugin:
    """Tell what became of one plugin.

    Attributes:
        name: its name, unique among those loaded together: the entry point's where there is one.
        distribution: the distribution that installed it, or an empty string.
        version: that distribution's version, or an empty string.
        source: the value of the entry point, the module, or the path of the file.
        typeids: what it declares, also if it is off; empty if it is broken.
        status: ``"on"``, ``"off"`` (it clashes with others) or ``"broken"``.
        reason: why it is not on, with the cure; otherwise empty.
        files: the files that its code was loaded from, as absolute paths.
        traceback: of what broke it, as text; otherwise empty.
        asked_for: whether it was named, and not only found.
    """

    name: str
    distribution: str = ""
    version: str = ""
    source: str = ""
    typeids: tuple[str, ...] = ()
    status: Literal["on", "off", "broken"] = "on"
    reason: str = ""
    files: tuple[str, ...] = ()
    traceback: str = attrs.field(default="", repr=False)
    asked_for: bool = False

    def __str__(self) -> str:
        """Name the distribution and its version if there is one, else the plugin."""
        return f"{self.distribution} {self.version}".strip() or self.name


@attrs.frozen(eq=False)
class Plugins:
    """Hold the outcome of one loading.

    Attributes:
        plugins: all that were looked at, in the order in which they were loaded.
        declarations: the records of those that are on, by typeid.
        manager: a pluggy manager of its own, with the plugins that are on.
    """

    plugins: tuple[Plugin, ...]
    declarations: Mapping[str, SharedObject[Any]]
    manager: pluggy.PluginManager = attrs.field(repr=False)
    _origins: Mapping[str, Plugin] = attrs.field(repr=False)
    _fingerprint: Mapping[str, str] = attrs.field(repr=False)
    _stamps: Mapping[str, _Stamp | None] = attrs.field(repr=False)
    _only: tuple[object, ...] | None = attrs.field(repr=False)
    _extra: tuple[object, ...] = attrs.field(repr=False)

    @property
    def problems(self) -> tuple[Plugin, ...]:
        """The plugins that are off or broken."""
        return tuple(plugin for plugin in self.plugins if plugin.status != "on")

    def required(self) -> Plugins:
        """Return these, once every plugin that was named is on.

        Raises:
            PluginError: One that was named is off or broken; what was merely found may be.
        """
        for plugin in self.problems:
            if plugin.asked_for:
                raise PluginError(plugin.name, f"it is {plugin.status}: {plugin.reason}")
        return self

    @property
    def spec(self) -> tuple[tuple[object, ...] | None, tuple[object, ...]]:
        """`only` and `extra` in a form that can be pickled and given to `load` in another process.

        Names stay names, modules become names, files become absolute paths; classes, records and objects
        stay what they are where pickle can find them by name.

        Raises:
            PluginError: something was given that another process has no way to find.
        """
        only = None if self._only is None else tuple(map(_rebuildable, self._only))
        return only, tuple(map(_rebuildable, self._extra))

    def origin(self, typeid: str) -> Plugin:
        """Return the plugin whose record of `typeid` is used.

        Raises:
            KeyError: no plugin that is on declares it.
        """
        return self._origins[typeid]

    def whence(self, typeid: str) -> str | None:
        """Return who would provide a typeid, as ``"shared-cookies 1.2"``, whether or not it is on."""
        found = [plugin for plugin in self.plugins if typeid in plugin.typeids]
        return str(min(found, key=lambda plugin: plugin.status != "on")) if found else None

    def fingerprint(self) -> dict[str, str]:
        """Return the version of each plugin that is on, or a hash of its code where it has no version."""
        return dict(self._fingerprint)

    def code(self) -> dict[str, str]:
        """Return the version of each plugin that is on, with a hash of what it declares and of its code."""
        return {
            plugin.name: f"{plugin.version or 'without a version'} ({_hash(self._records_of(plugin), plugin.files)})"
            for plugin in self.plugins
            if plugin.status == "on"
        }

    def _records_of(self, plugin: Plugin) -> list[SharedObject[Any]]:
        return [self.declarations[typeid] for typeid in plugin.typeids if typeid in self.declarations]

    def changed(self) -> list[str]:
        """Return the files whose size or modification time is no longer what it was when they were loaded.

        Costs one ``stat`` call a file.
        """
        return [path for path, stamp in self._stamps.items() if _stamp(path) != stamp]


def load(only: Sequence[object] | None = None, extra: Sequence[object] = (), strict: bool = False) -> Plugins:
    """Load plugins: what is installed, or exactly what is named.

    An item of `only` or `extra` is the name of an entry point, the name of a module, the path of a file such
    as ``"./shared.py"``, a module, a class or object with hook implementations, or a `SharedObject`.

    Args:
        only: use exactly these (and `extra`). None means all that is installed, except for
            ``registry_multiprocessing``.
        extra: use these, too.
        strict: whether a plugin that is off or broken is an error.

    Raises:
        PluginError: an item cannot be found; two items clash; or `strict` and there are problems.
    """
    for items in (only, extra):
        if isinstance(items, str):
            raise PluginError(items, f"plugins are given as a list, such as [{items!r}]")
    # To look at all that is installed takes as long as to start a process.
    installed = _installed() if only is None or only or extra else []
    candidates: list[_Candidate] = []
    if only is None:
        candidates += (candidate for candidate in installed if candidate.name not in _LEFT_OUT)
    for item in (*(only or ()), *extra):
        candidate = _candidate(item, installed)
        candidate.asked_for = True
        candidates.append(candidate)

    loaded: list[_Candidate] = []
    for candidate in dict.fromkeys(candidates):
        _adopt(candidate)
        twin = next((c for c in loaded if c.plugin is candidate.plugin and c.plugin is not None), None)
        if twin is None:
            loaded.append(candidate)
        else:
            twin.asked_for |= candidate.asked_for
    _settle(loaded)
    _make_unique(loaded)

    plugins = _outcome(loaded, only, extra)
    if strict and plugins.problems:
        first = plugins.problems[0].name
        raise PluginError(first, "; ".join(f"{p.name} is {p.status}: {p.reason}" for p in plugins.problems))
    return plugins


def whence(typeid: str) -> str | None:
    """Return which installed distribution provides a typeid, as ``"shared-cookies 1.2"``, or None.

    Imports installed plugins until one has it, since nothing less would tell; meant for the text of an error.
    """
    for candidate in _installed():
        _adopt(candidate)
        if typeid in candidate.records:
            return str(candidate.frozen())
    return None


# Phase 1: list, without running any code of a plugin


@attrs.define(eq=False)
class _Candidate:
    """A plugin on its way from a name to an outcome; `Plugin` explains the fields they share."""

    name: str
    source: str
    find: Callable[[], object]
    distribution: str = ""
    version: str = ""
    asked_for: bool = False
    module: str = ""  # the module whose absence means that there is no such plugin
    plugin: object = None
    records: dict[str, SharedObject[Any]] = attrs.field(factory=dict)
    files: tuple[str, ...] = ()
    status: Literal["on", "off", "broken"] = "on"
    reason: str = ""
    traceback: str = ""

    @property
    def ours(self) -> bool:
        return _normal(self.distribution) == _OURSELVES

    def frozen(self) -> Plugin:
        typeids = tuple(self.records)
        return Plugin(
            self.name,
            self.distribution,
            self.version,
            self.source,
            typeids,
            self.status,
            self.reason,
            self.files,
            self.traceback,
            self.asked_for,
        )

    def __str__(self) -> str:
        by = f"{self.distribution} {self.version}".strip() or self.source
        return f"{self.name!r} ({by})"


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _installed() -> list[_Candidate]:
    """List the entry points of our group: our own first, then by distribution and name."""
    found: dict[str, list[_Candidate]] = {}
    for distribution in metadata.distributions():
        name = ""
        try:
            # Reading every distribution's name and version would cost more than all the rest.
            if GROUP not in (distribution.read_text("entry_points.txt") or ""):
                continue
            name, version = str(distribution.metadata["Name"]), distribution.version
            points = [point for point in distribution.entry_points if point.group == GROUP]
            new = [_Candidate(p.name, p.value, p.load, name, version) for p in points]
        except Exception as error:  # noqa: BLE001 - one distribution's garbled metadata is not the others' fault
            broken = _Candidate(name or "unknown", "entry_points.txt", _nothing, name)
            broken.status, broken.reason = "broken", f"its metadata cannot be read: {error!r}"
            new = [broken]
        # What comes first on the path hides what comes later, as with imports.
        found.setdefault(_normal(name), new)
    candidates = [candidate for group in found.values() for candidate in group]
    return sorted(candidates, key=lambda c: (not c.ours, _normal(c.distribution), c.name))


def _nothing() -> None:
    return None


def _candidate(item: object, installed: Sequence[_Candidate]) -> _Candidate:
    """Return the candidate that an item of `only` or `extra` means."""
    if isinstance(item, str):
        if _is_path(item):
            path = _path(item)
            if not path.is_file():
                raise PluginError(item, f"there is no file {path}")
            return _Candidate(path.stem, str(path), lambda: _from_file(path))
        known = _installed_as(item, installed)
        if known is not None:
            return known
        if not all(part.isidentifier() for part in item.split(".")):
            raise _not_found(item)
        return _Candidate(item, item, lambda: importlib.import_module(item), module=item)
    if isinstance(item, ModuleType):
        name = item.__name__
        known = _installed_as(name, installed)
        # A module of that name which is not the one that was given is somebody else's.
        if known is not None and sys.modules.get(known.source) is item:
            return known
        return _Candidate(name, name, lambda: item)
    home = item.factory if isinstance(item, SharedObject) else item
    if not hasattr(home, "__qualname__"):
        home = type(home)
    source = f"{home.__module__}:{home.__qualname__}"
    return _Candidate(item.typeid if isinstance(item, SharedObject) else source, source, lambda: item)


def _not_found(item: str) -> PluginError:
    return PluginError(
        item,
        "it is neither installed (`registry plugins` lists what is) nor a module that can be imported; a "
        "file is given by its path, such as ./shared.py",
    )


def _installed_as(name: str, installed: Sequence[_Candidate]) -> _Candidate | None:
    """Return the entry point of a name, or else the one that names a module."""
    for of_that_name in (
        [candidate for candidate in installed if candidate.name == name],
        [candidate for candidate in installed if candidate.source == name],
    ):
        if len({candidate.distribution for candidate in of_that_name}) > 1:
            both = " and ".join(map(str, of_that_name))
            raise PluginError(name, f"there is more than one: {both}; give the name of the module meant")
        if of_that_name:
            return of_that_name[0]
    return None


def _is_path(item: str) -> bool:
    return item.endswith(".py") or "/" in item or os.sep in item


def _path(item: str) -> Path:
    return Path(item).expanduser().resolve()


# Phase 2: import, and ask


@attrs.frozen(eq=False)
class _Single:
    """The plugin that a record makes by itself."""

    record: SharedObject[Any]

    @hookspecs.hookimpl
    def registry_shared_objects(self) -> Iterable[SharedObject[Any]]:
        return [self.record]


def _adopt(candidate: _Candidate) -> None:
    """Import a plugin and take its records; whatever it raises is recorded with it."""
    if candidate.status == "broken":
        return
    try:
        plugin = candidate.find()
        candidate.plugin = plugin
        if isinstance(plugin, SharedObject):
            plugin = _Single(plugin)
        elif isinstance(plugin, type):
            plugin = plugin()
        candidate.records, value_types = _records(plugin)
        _codec.declare(value_types)
        candidate.plugin = plugin
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a plugin may even try to exit; it must not take others down
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{candidate.module}.".startswith(f"{missing}."):
            raise _not_found(candidate.name) from None
        candidate.status = "broken"
        candidate.reason = f"{type(error).__name__}: {error}".rstrip(": ")
        candidate.traceback = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    candidate.files = _files(candidate)


def _manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def _records(plugin: object) -> tuple[dict[str, SharedObject[Any]], list[ValueType]]:
    """Return the types that a plugin shares and those of values, checking all that it says on the way."""
    # A manager for this plugin alone: checked and called by itself, it can be judged by itself.
    manager = _manager()
    manager.register(plugin, name="it")
    if not manager.get_hookcallers(plugin):
        raise TypeError("it implements no hook; mark registry_shared_objects with @registry.hookimpl")
    manager.check_pending()
    records: dict[str, SharedObject[Any]] = {}
    for record in _answer(manager.hook.registry_shared_objects, SharedObject):
        if record.typeid in records:
            raise ValueError(f"it declares the typeid {record.typeid!r} twice")
        records[record.typeid] = record
    return records, _answer(manager.hook.registry_value_types, ValueType)


def _answer(hook: Any, kind: type) -> list[Any]:
    """Return the records that a plugin's hook gives; none if it does not implement it."""
    if not hook.get_hookimpls():
        return []
    # pluggy leaves out a None.
    results = hook()
    result = results[0] if results else None
    if isinstance(result, (str, kind)) or not isinstance(result, Iterable):
        raise TypeError(f"{hook.name} returned {_shown(result)}, not a list of {kind.__name__} records")
    rows = list(result)
    for record in rows:
        if not isinstance(record, kind):
            raise TypeError(f"{hook.name} returned {_shown(record)} where a {kind.__name__} should be")
    return rows


def _shown(value: object) -> str:
    return f"{value!r} of type {type(value).__name__}"


def from_file(path: str) -> ModuleType:
    """Import the plugin file that a path means."""
    return _from_file(_path(path))


def _from_file(path: Path) -> ModuleType:
    """Import a file by its path, once; a file that is imported already is taken as it is."""
    for module in list(sys.modules.values()):
        file = _file_of(module)
        if file and os.path.basename(file) == path.name and os.path.realpath(file) == str(path):
            return module
    name = _name_of_file(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look for the module of a class there.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _name_of_file(path: Path) -> str:
    # Two files may have one name, and a file that of an installed module.
    stem = re.sub(r"\W", "_", path.stem)
    return f"{stem}_{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"


# Clashes


def _settle(candidates: Sequence[_Candidate]) -> None:
    """Switch off what clashes.

    Raises:
        PluginError: two plugins that were asked for clash.
    """
    for typeid, claimants in _claims(c for c in candidates if c.asked_for):
        if _differ(typeid, claimants):
            raise PluginError(
                ", ".join(candidate.name for candidate in claimants),
                f"each declares the typeid {typeid!r} in its own way; name one of them",
            )
    for typeid, claimants in _claims(candidates):
        ours = next((candidate for candidate in claimants if candidate.ours), None)
        for candidate in claimants:
            if ours is not None and _differ(typeid, [ours, candidate]):
                _switch_off(candidate, typeid, [ours])
    # What has lost against ours no longer counts against others.
    for typeid, claimants in _claims(c for c in candidates if c.status == "on"):
        if _differ(typeid, claimants):
            for candidate in claimants:
                _switch_off(candidate, typeid, [c for c in claimants if c is not candidate])


def _claims(candidates: Iterable[_Candidate]) -> list[tuple[str, list[_Candidate]]]:
    claims: dict[str, list[_Candidate]] = {}
    for candidate in candidates:
        for typeid in candidate.records:
            claims.setdefault(typeid, []).append(candidate)
    return list(claims.items())


def _differ(typeid: str, candidates: Sequence[_Candidate]) -> bool:
    return any(c.records[typeid] != candidates[0].records[typeid] for c in candidates[1:])


def _switch_off(candidate: _Candidate, typeid: str, others: Sequence[_Candidate]) -> None:
    candidate.status = "off"
    # The first clash is told; once it is settled the next, if there is one, comes up.
    candidate.reason = candidate.reason or (
        f"its typeid {typeid!r} is also declared by {', '.join(map(str, others))}; settle it by naming "
        f"the plugins to use, as in `--plugins A,B`"
    )


# The outcome


def _make_unique(candidates: Sequence[_Candidate]) -> None:
    taken: set[str] = set()
    for candidate in candidates:
        name, n = candidate.name, 1
        if name in taken:
            name = candidate.name = f"{name} of {candidate.distribution or candidate.source}"
        while candidate.name in taken:
            n += 1
            candidate.name = f"{name} {n}"
        taken.add(candidate.name)


def _outcome(candidates: Sequence[_Candidate], only: Sequence[object] | None, extra: Sequence[object]) -> Plugins:
    manager = _manager()
    declarations: dict[str, SharedObject[Any]] = {}
    origins: dict[str, Plugin] = {}
    fingerprint: dict[str, str] = {}
    plugins = []
    for candidate in candidates:
        plugin = candidate.frozen()
        plugins.append(plugin)
        if candidate.status != "on":
            continue
        manager.register(candidate.plugin, name=candidate.name)
        fingerprint[candidate.name] = candidate.version or _hash(candidate.records.values(), candidate.files)
        for typeid, record in candidate.records.items():
            declarations.setdefault(typeid, record)
            origins.setdefault(typeid, plugin)
    files = sorted({path for plugin in plugins for path in plugin.files})
    return Plugins(
        plugins=tuple(plugins),
        declarations=declarations,
        manager=manager,
        origins=origins,
        fingerprint=fingerprint,
        stamps={path: _stamp(path) for path in files},
        only=None if only is None else tuple(map(_absolute, only)),
        extra=tuple(map(_absolute, extra)),
    )


def _files(candidate: _Candidate) -> tuple[str, ...]:
    """Return the files behind a plugin: of its package what is loaded, and where its factories are from."""
    plugin = candidate.plugin
    factories = [getattr(record.factory, "func", record.factory) for record in candidate.records.values()]
    modules = {str(getattr(factory, "__module__", "")) for factory in factories}
    if isinstance(plugin, ModuleType):
        package = plugin.__name__
    elif plugin is None:
        package = candidate.source.partition(":")[0]
    else:
        package = "" if isinstance(plugin, _Single) else type(plugin).__module__
    top = package.partition(".")[0]
    if top:
        modules.update(name for name in list(sys.modules) if name == top or name.startswith(f"{top}."))
    paths = {
        _file_of(sys.modules.get(name))
        for name in modules
        # The standard library changes with the interpreter only.
        if name.partition(".")[0] not in sys.stdlib_module_names
    }
    if _is_path(candidate.source):
        paths.add(candidate.source)
    return tuple(sorted(path for path in paths if path))


def _file_of(module: object) -> str | None:
    path = vars(module).get("__file__") if isinstance(module, ModuleType) else None
    return os.path.abspath(path) if isinstance(path, str) else None


def _stamp(path: str) -> _Stamp | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _hash(records: Iterable[SharedObject[Any]], files: Iterable[str]) -> str:
    """Return a hash of what a plugin declares and of its code, but not of where the code lies."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(repr(record.interface.pack()).encode())
    for path in files:
        digest.update(os.path.basename(path).encode("utf-8", "surrogateescape"))
        try:
            digest.update(Path(path).read_bytes())
        except OSError:
            digest.update(b"?")
    return digest.hexdigest()[:16]


def _absolute(item: object) -> object:
    """Return a path that still means the same file in another working directory; all else as it is."""
    return str(_path(item)) if isinstance(item, str) and _is_path(item) else item


def _rebuildable(item: object) -> object:
    if isinstance(item, str):
        return item
    if isinstance(item, ModuleType):
        if sys.modules.get(item.__name__) is not item:
            raise PluginError(item.__name__, "another process cannot import this module by its name")
        path = _file_of(item)
        # The name of a file that was imported by its path means something in this process only.
        by_path = path is not None and item.__name__ == _name_of_file(Path(path))
        return path if by_path else item.__name__
    name = item.typeid if isinstance(item, SharedObject) else getattr(item, "__qualname__", repr(item))
    try:
        pickle.dumps(item)
    except Exception as error:
        raise PluginError(
            str(name),
            f"another process cannot rebuild it ({error}); put it, or its factory, at the top level of a "
            f"module that can be imported",
        ) from error
    return item
