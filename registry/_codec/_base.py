"""What writing and reading share."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    Outgoing = Callable[[object], object]
    Incoming = Callable[[Any], object]
    Rows = Callable[[list[Any]], list[Any]]
    Buffer = bytes | bytearray | memoryview

#: How many containers may lie in each other.
LIMIT: Final = 200

# Reducing a Fraction takes time quadratic in its length, which a peer should not have for the asking.
MOST_FRACTION_BITS: Final = 1 << 16

SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})


class CodecError(ValueError):
    """Raised when bytes are not the encoding of a value."""


_MISFITS = (ArithmeticError, AttributeError, ImportError, LookupError, RecursionError, TypeError, ValueError)


def is_misfit(error: Exception) -> bool:
    """Tell what a constructor says of arguments that it never expected.

    It is not all of `Exception`: a signal handler may raise meanwhile, and what it raises is its program's.
    """
    return isinstance(error, _MISFITS) or (isinstance(error, OSError) and error.errno is not None)


def is_loaded(cls: type, module: str, name: str) -> bool:
    """Tell whether a class is the one of that name, in a module that need not be imported."""
    return getattr(sys.modules.get(module), name, None) is cls


def qualified(cls: type) -> str:
    """Name a class as people do."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
