"""Classes that were declared, so that their instances cross as themselves.

The table is one for a process, as the classes are: it says which class a name means here. Names that come from the
other side are looked up in it and nowhere else. It grows when plugins are loaded; what a client's plugins declare is
asked for when a class or a name is first met that is not in it, by the *sources* that its clients have given.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from ..declarations import ValueType, kind_of
from ..errors import DeclarationError, NotShareable
from ._base import CodecError, qualified

_by_name: dict[str, ValueType] = {}
_by_class: dict[type | str, ValueType] = {}
_sources: dict[object, Callable[[], Iterable[ValueType]]] = {}
_silent: dict[object, str] = {}  # sources that could not be asked, and why


def declare(records: Iterable[ValueType]) -> None:
    """Add to the table: all of the records, or none.

    Raises:
        DeclarationError: a name, or a class, has another meaning here already.
    """
    records = list(records)
    names, classes = dict(_by_name), dict(_by_class)
    for record in records:
        known = names.setdefault(record.name, record)
        if known != record and not _is_again(known, record):
            raise DeclarationError("name", f"is that of {_shown(known)} in this process already", record.name)
        named = classes.setdefault(record.cls, record)
        if named.name != record.name:
            raise DeclarationError(f"{record.name}.cls", f"is {named.name!r} in this process already", record.cls)
        names[record.name] = classes[record.cls] = record
    _by_name.update(names)
    _by_class.update(classes)


def add_source(key: object, source: Callable[[], Iterable[ValueType]]) -> None:
    """Have somebody asked, once, when something is met that is not in the table."""
    _sources.setdefault(key, source)


def of_class(cls: type) -> ValueType | None:
    """Return what was declared of a class."""
    return _find(lambda: _by_class.get(cls) or _of_lazy(cls))


def of_name(name: str) -> ValueType | None:
    """Return what was declared under a name."""
    return _find(lambda: _by_name.get(name))


def _find(look: Callable[[], ValueType | None]) -> ValueType | None:
    found = look()
    while found is None and _sources:
        key = next(iter(_sources))
        source = _sources.pop(key)
        try:
            declare(source())
        except Exception as error:  # noqa: BLE001 - a module of somebody's may raise anything when it is imported
            # Most of what is not in the table is in no plugin's either: only who is refused for it is to hear of this.
            _silent[key] = f"{type(error).__name__}: {error}"
        except BaseException:
            _sources.setdefault(key, source)
            raise
        found = look()
    return found


def unasked() -> str:
    """Return what a refusal is to add: which plugins could not be asked whether they know a class or a name."""
    return "".join(f"; the plugin {key} could not be asked: {why}" for key, why in _silent.items())


def _of_lazy(cls: type) -> ValueType | None:
    top = cls.__module__.partition(".")[0] if type(cls.__module__) is str else ""
    for where, record in list(_by_class.items()):
        if type(where) is str and where.partition(":")[0].partition(".")[0] == top and _at(where) is cls:
            _by_class[cls] = record
            return record
    return None


def _at(where: str) -> Any:
    """Return what is at ``"module:Class"``, None if the module is not loaded."""
    module, _, path = where.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found


def _is_again(known: ValueType, record: ValueType) -> bool:
    """Tell whether a record is of a class that was made anew, as by `importlib.reload`."""
    ours, theirs = known.cls, record.cls
    return isinstance(ours, type) and isinstance(theirs, type) and qualified(ours) == qualified(theirs)


def _shown(record: ValueType) -> str:
    return qualified(record.cls) if isinstance(record.cls, type) else record.cls


# -- instances


def taken_apart(record: ValueType, value: Any) -> object:
    """Return what crosses for an instance."""
    if record.encode is not None:
        return record.encode(value)
    cls = type(value)
    kind = kind_of(cls)
    if kind == "enum":
        # A combination of flags has no name of its own.
        return value.name if value.name in cls.__members__ else value.value
    if kind == "tuple":
        return list(value)
    return {name: getattr(value, name) for name, _, _ in _fields(cls)}


def put_together(name: str, payload: Any) -> object:
    """Make an instance of what has crossed.

    Raises:
        NotShareable: nothing of this name was declared here, or its module is not installed.
        CodecError: it cannot be made of that.
    """
    record = of_name(name)
    if record is None:
        cure = (
            "declare its class in the hook registry_value_types of a plugin, and name that in connect(plugins=[...]); "
            "a server takes it by -p"
        )
        raise NotShareable(
            f"a value of the declared type {name!r}", f"this process does not know it: {cure}{unasked()}"
        )
    if record.decode is not None:
        try:
            return record.decode(payload)
        except ImportError as error:
            what = f"a value of the declared type {name!r}"
            raise NotShareable(what, f"this process cannot read it: {error}") from None
    cls: Any = record.cls
    kind = kind_of(cls)
    if kind == "enum":
        return cls.__members__[payload] if type(payload) is str and payload in cls.__members__ else cls(payload)
    if kind == "tuple":
        if type(payload) is not list:
            raise CodecError(f"a {name} is a row of its items")
        return cls._make(payload)
    if type(payload) is not dict:
        raise CodecError(f"a {name} is its fields")
    given = dict(payload)
    fields = _fields(cls)
    made = cls(**{parameter: given.pop(field) for field, parameter, takes in fields if takes and field in given})
    for field, _, takes in fields:
        if not takes and field in given:
            object.__setattr__(made, field, given.pop(field))
    if given:
        raise CodecError(f"a {name} here has no {', '.join(map(str, given))}")
    return made


def _fields(cls: Any) -> list[tuple[str, str, bool]]:
    """Return each field with the parameter that it is given by, and whether it is given at all."""
    if "__attrs_attrs__" in vars(cls):
        return [(field.name, field.alias or field.name.lstrip("_"), field.init) for field in cls.__attrs_attrs__]
    # What dataclasses.fields() does, without importing it: variables of the class and of __init__ alone are no fields.
    fields = cls.__dataclass_fields__.values()
    return [(field.name, field.name, field.init) for field in fields if field._field_type.name == "_FIELD"]
