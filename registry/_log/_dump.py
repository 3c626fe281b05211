"""A state and the events that led to it, as people can read them.

Nothing is unpickled: values are shown where they are typed, and named where they are pickles. What would let a reader
act for somebody else, the keys of sessions and the seed of random numbers, is left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import structs

from registry import _codec, _image
from registry._engine import Engine
from registry._events import AnyEvent, Call, Create
from registry._leaves import Carried, Parts
from registry._log import _recovery
from registry._log._files import Directory
from registry._objects import NO_ARGUMENTS, Hosted
from registry._wire import Kind
from registry.errors import NotShareable

_SECRET = {"key", "seed"}
_SCALARS = (str, int, float, bool, type(None))


class Shown:
    """What stands in the place of a value that is not shown; ``repr()`` is its text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"<{self.text}>"


def opened(leaf: Any) -> object:
    """Return what stands for a leaf of the codec: a typed value itself, a pickle and what is the engine's by name."""
    if type(leaf) is Carried:
        if leaf.domain:
            return Shown(f"pickle of {leaf.kind or 'a value'}, {len(leaf.data)} bytes, written by {leaf.domain}")
        try:
            return _codec.decode_carried(leaf, opened)
        except ValueError:  # the server never looked at the bytes
            return Shown(f"{len(leaf.data)} bytes that are no value")
        except NotShareable as error:  # such as of a class that nobody has declared here
            return Shown(error.what)
    if type(leaf) is tuple and leaf[:1] == (41,):
        return Shown(f"{len(leaf[1])} waiting")
    return leaf


def plain(value: object) -> Any:
    """Return a value as JSON has room for it; what it has none for becomes text."""
    if isinstance(value, _SCALARS):
        return value
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else repr(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return [plain(item) for item in value]
    return repr(value)


def state(image: bytes, engine: Engine | None = None) -> dict[str, Any]:
    """Return what is in an image.

    Args:
        image: The canonical image of a state.
        engine: In the same state, where it could be restored: only the classes themselves know who holds them.
    """
    _, begun, _, known, sessions, objects, waits, _ = _image.read(image)
    index, now, epoch, _ = begun
    lives, _ = known
    waiting: dict[int, list[dict[str, Any]]] = {}
    for _, _, caller, _, target, since, deadline, _ in zip(*waits, strict=True):
        waiting.setdefault(target, []).append({"who": str(caller), "since": since, "deadline": deadline})
    return {
        "index": index,
        "now": now,
        "epoch": epoch,
        "lives": [{"life": bytes(life).hex(), "event": began} for life, began in lives],
        "sessions": [
            {
                "session": row[0],
                "who": str(row[2]),
                "domain": row[3],
                "away": row[10],
                "replies": len(row[7]),
            }
            for row in sessions
        ],
        "objects": [_object(row, waiting.get(row[0], []), engine) for row in zip(*objects, strict=True)],
    }


def _object(row: tuple[Any, ...], waiting: list[dict[str, Any]], engine: Engine | None) -> dict[str, Any]:
    _, typeid, name, arguments, _, maker, made, _, _, _, changed, stopped, content = row
    hosted = engine.find(typeid, name) if engine is not None else None
    holders = engine.holders(hosted) if engine is not None and hosted is not None else None
    return {
        "object": f"{typeid}:{name}" if name else typeid,
        "typeid": typeid,
        "name": name,
        "maker": maker,
        "made": made,
        "changed": changed,
        "stopped": stopped,
        "arguments": _arguments(arguments),
        "state": _codec.decode(content, incoming=opened),
        "content": _content(engine, hosted) if engine is not None and hosted is not None else None,
        "holders": None
        if holders is None
        else [{"who": str(each.caller), "since": each.since, "token": each.number or None} for each in holders],
        "waiting": waiting,
    }


def _content(engine: Engine, hosted: Hosted) -> object:
    """Return what a container holds, as a client would be told; None of what is none."""
    interface = hosted.declaration.interface
    if interface.shape not in ("mapping", "sequence", "set") or "copy" not in interface.readonly or hosted.stopped:
        return None
    call = Call(
        now=engine.now, session=0, seq=0, owner=0, typeid=interface.typeid, name=hosted.name, method="copy",
        arguments=NO_ARGUMENTS,
    )  # fmt: skip
    output = engine.read(call)
    return _codec.decode(output.body, incoming=opened) if output.kind == Kind.REPLY else None


def events(directory: Directory, upto: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield the events of a log as rows, from the oldest that is still there.

    Raises:
        RegistryError: It is damaged.
    """
    for index, event in _events(directory, upto):
        fields = {name: value for name, value in structs.asdict(event).items() if name not in _SECRET}
        row: dict[str, Any] = {"index": index, "event": type(event).__name__, **fields}
        if isinstance(event, (Call, Create)):
            row["object"] = f"{event.typeid}:{event.name}" if event.name else event.typeid
            row["arguments"] = _arguments(event.arguments)
        if "life" in row:
            row["life"] = bytes(row["life"]).hex()
        yield row


def _events(directory: Directory, upto: int | None) -> Iterator[tuple[int, AnyEvent]]:
    extent = _recovery.beginning(directory)
    for segment, names, record in _recovery.walk(directory, extent, upto):
        for place, (event, _, _) in enumerate(_recovery.events(segment, names, record)):
            yield record.first + place, event


def _arguments(data: bytes | Parts) -> str:
    """Return the arguments of a call as they are written in Python."""
    try:
        args, kwargs = _codec.decode_arguments(data, incoming=opened)
    except (ValueError, NotShareable):
        return "<arguments that cannot be read>"
    return ", ".join([*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())])
