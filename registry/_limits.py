"""What a server lets its clients take of it: one record, set by its operator, with a default for each.

A limit is there so that one client's excess is refused to that client, in words, and nobody else notices. What cannot
be set, since both ends have to agree about it, stands beside the record in `FIXED`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import inf
from typing import Any, Final

import attrs

from registry import _codec, _wire

__all__ = ["FIXED", "Limits", "Row", "size"]

_UNITS: Final = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_SIZE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", re.IGNORECASE)

SECONDS: Final = "seconds"
BYTES: Final = "bytes"


@attrs.frozen
class Row:
    """A limit that is not set by anybody.

    Attributes:
        name: What it is about.
        unit: What is counted.
        value: How much of it there may be.
    """

    name: str
    unit: str
    value: int


#: What both ends of the protocol have to agree about.
FIXED: Final = (
    Row("frame", BYTES, _wire.MAX_BODY),
    Row("depth", "containers", _codec.LIMIT),
    Row("name", "letters", _wire.LONGEST_NAME),
    Row("label", "letters", _wire.LONGEST_LABEL),
    Row("question", BYTES, _wire.SMALL),
)


def _limit(default: float | None, unit: str, low: float, high: float = inf) -> Any:
    bounds = f"at least {low:g}" if high == inf else f"{low:g} to {high:g}"

    def check(limits: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        kinds = (int, float) if unit == SECONDS else (int,)
        if type(value) not in kinds or not low <= value <= high or value == inf:
            raise ValueError(f"the limit {attribute.name} must be {_kind(unit)}, {bounds}, not {value!r}")

    validator = check if default is not None else attrs.validators.optional(check)
    return attrs.field(default=default, validator=validator, metadata={"unit": unit})


def _kind(unit: str) -> str:
    return "a size in bytes such as 512M" if unit == BYTES else f"a number of {unit}"


@attrs.frozen(kw_only=True)
class Limits:
    """What clients may take of one server. What is None is chosen by the server when it begins to serve.

    Attributes:
        handshake: Seconds that a connection has to show the key.
        strangers: Connections that have not shown it yet; of more, the one that came first is dropped. None: 1024, or a
            quarter of the files that may be open.
        sessions: Sessions of one peer, which is a process, or where that is not known a host; one more is refused.
            None: 4096, or half of the files that may be open.
        calls: Calls of one session that are unanswered, or whose answer it has not acknowledged. Its connection is
            closed at one more; an event loop's session waits before that.
        handles: Objects that a session has a number for. Of more, the oldest number is forgotten, and told again by
            its client where it is used.
        threads: Threads for calls of threaded objects; one session may have a quarter of them. Those that idle make
            room, and a call for which there is none is refused.
        objects: Shared objects; making one more is refused.
        arguments: Bytes of the arguments of one call; what is larger is refused before it is sent.
        stored: Bytes of memory that the server's process may take for what is shared, with large values in files.
            Beyond it, calls that would add to that are refused. None: four fifths of what the control group or the
            machine lets it have; with a log two fifths, since the process that folds the log takes as much once more.
        unsent: Bytes of output that wait for a client to read them; beyond that nothing more is taken from it.
        stuck: Seconds in which it reads nothing of that, after which it is cut.
    """

    handshake: float = _limit(10.0, SECONDS, 0.01, 3600.0)
    strangers: int | None = _limit(None, "connections", 1)
    sessions: int | None = _limit(None, "sessions", 1)
    # As many gaps of a session's numbers can be told apart, see `_sessions.Ranges`.
    calls: int = _limit(_wire.IN_FLIGHT, "calls", 16, 8192)
    handles: int = _limit(65_536, "objects", 16)
    threads: int = _limit(1024, "threads", 4)
    objects: int = _limit(1_000_000, "objects", 1)
    arguments: int = _limit(_wire.MAX_VALUE, BYTES, _wire.SMALL, _wire.MAX_VALUE)
    stored: int | None = _limit(None, BYTES, 1 << 20)
    unsent: int = _limit(1 << 20, BYTES, _wire.SMALL)
    stuck: float = _limit(30.0, SECONDS, 0.01, 86_400.0)

    def told(self) -> dict[str, int]:
        """Return what clients keep to by themselves; they are told it in the handshake."""
        return {"arguments": self.arguments, "calls": self.calls, "handles": self.handles}

    @classmethod
    def of(cls, given: Limits | Mapping[str, object] | None) -> Limits:
        """Return the limits that somebody has set, with the defaults of the others.

        Args:
            given: By name: numbers, or texts as the command line has them, such as ``"512M"``.

        Raises:
            ValueError: There is no limit of that name, or it cannot be that.
        """
        if isinstance(given, Limits):
            return given
        found: dict[str, Any] = {name: cls.read(name, value) for name, value in (given or {}).items()}
        return cls(**found)

    @classmethod
    def read(cls, name: str, value: object) -> object:
        """Return what a text says that a limit is to be; anything else as it is.

        Raises:
            ValueError: There is no limit of that name, or the text is no number.
        """
        units = {field.name: field.metadata["unit"] for field in attrs.fields(cls)}
        unit = units.get(name)
        if unit is None:
            raise ValueError(f"there is no limit {name!r}{_closest(name, units)}; the limits are {', '.join(units)}")
        if isinstance(value, str):
            try:
                return float(value) if unit == SECONDS else size(value) if unit == BYTES else int(value)
            except ValueError:
                raise ValueError(f"the limit {name} must be {_kind(unit)}, not {value!r}") from None
        return value

    @classmethod
    def unit(cls, name: str) -> str:
        """Return what a limit counts."""
        return str(attrs.fields_dict(cls)[name].metadata["unit"])


def size(text: str) -> int:
    """Return how many bytes a text such as ``512M`` means; the units are powers of 1024.

    Raises:
        ValueError: It means none.
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no size")
    return int(float(found[1]) * (1 << _UNITS[found[2].upper()]))


def _closest(name: str, names: Mapping[str, object]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, names, n=1)
    return f", did you mean {close[0]!r}?" if close else ""
