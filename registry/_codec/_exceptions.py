"""Which exceptions cross as themselves, and what the others become."""

from __future__ import annotations

import builtins
from typing import Any

from .. import errors
from ..errors import RemoteError
from ._base import is_loaded, is_misfit, qualified

_CLASSES: dict[str, type[BaseException]] = {
    **{cls.__name__: cls for cls in vars(builtins).values() if isinstance(cls, type) and issubclass(cls, Exception)},
    **{f"registry.errors.{name}": getattr(errors, name) for name in errors.__all__},
}
_NAMES = {cls: name for name, cls in _CLASSES.items()}

# `queue` imports threading, which a process that shares nothing but a dict never needs.
_IMPORTED_LATE = {
    "queue.Empty": ("queue", "Empty"),
    "queue.Full": ("queue", "Full"),
    "threading.BrokenBarrierError": ("threading", "BrokenBarrierError"),
}


def public_name(cls: type) -> str | None:
    """Return the name under which an exception class crosses, if it does."""
    name = _NAMES.get(cls)
    if name is None:
        for public, (module, short) in _IMPORTED_LATE.items():
            if is_loaded(cls, module, short):
                return public
    return name


def is_ours(name: str) -> bool:
    """Tell whether a public name is one of `registry.errors`."""
    return name.startswith("registry.errors.")


def arguments(error: BaseException) -> tuple[Any, ...]:
    """Return what an exception of a class that crosses is made from again."""
    if isinstance(error, OSError) and not isinstance(error, errors.RegistryError):
        return OSError.__reduce__(error)[1]  # type: ignore[return-value]  # with the file names, which args lacks
    return error.args


def remote(error: BaseException, traceback: str) -> RemoteError:
    """Return what an exception that cannot cross becomes."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the class is a user's, and so is what its __str__ raises
        text = "its text cannot be made"
    stand_in = RemoteError("", qualified(type(error)), text, traceback)
    _annotate(stand_in, getattr(error, "__notes__", None))
    return stand_in


def rebuild(name: str, args: list[Any], traceback: str, notes: list[str]) -> BaseException:
    """Make an exception of what came over the wire; a `RemoteError` if that cannot be."""
    error: BaseException | None = None
    if name in _IMPORTED_LATE:
        from importlib import import_module

        module, short = _IMPORTED_LATE[name]
        error = getattr(import_module(module), short)(*args)
    elif name in _CLASSES:
        try:
            error = _CLASSES[name](*args)
            str(error)  # which is made of the arguments, and must not fail where somebody only wants to log it
        except Exception as misfit:  # such as that of UnicodeDecodeError, of any arguments but its own
            if not is_misfit(misfit):
                raise
            error = None
    if not isinstance(error, BaseException):
        message = args[0] if len(args) == 1 and type(args[0]) is str else ", ".join(map(repr, args))
        error = RemoteError("", name, message, traceback)
    _annotate(error, [f"remote traceback:\n{traceback}", *notes] if traceback else notes)
    return error


def _annotate(error: BaseException, notes: list[str] | None) -> None:
    if notes:
        # As add_note() of Python 3.11 does; before that it is at least there to be read.
        error.__dict__["__notes__"] = list(notes)
