"""Which pickles a log holds, and whose they are. None of them is opened.

A pickle has a *stamp*: the trust domain of its writer, which is a user and a machine, and a part that the log was given
when it was begun. A log that comes from elsewhere is given another one, drawn at random. So nothing that was in it
before has the stamp that readers have now, whatever it says; its pickles stay closed until the operator says whose are
trusted.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import msgspec

from registry import _image, _peers
from registry._events import AnyEvent, Call, Create, Open
from registry._leaves import Parts
from registry._log import _recovery
from registry._log._files import Directory
from registry._log._recovery import Extent
from registry._wire import BadBody

# Of the extensions of `_codec`: a pickle, one that stands beside the encoding, and those whose payload is no msgpack.
_PICKLE, _BESIDE = 36, 47
_PLAIN = frozenset({4, 6, 11, 12, 13, 18, 35, 46, 48})


def here() -> str:
    """Return the trust domain of this process; empty where the system has no users."""
    return _peers.trust_domain(os.geteuid()) if hasattr(os, "geteuid") else ""


def drawn() -> str:
    """Return a stamp that no log has had."""
    return f"{here()}/{os.urandom(8).hex()}"


def taken_over(found: Extent) -> tuple[str, dict[str, bool]]:
    """Return the stamp for what is written from now on behind a log, and what is to be thought of others in it."""
    if not found.origin:
        return drawn(), dict(found.others)
    origin = f"{here()}/{found.origin.rpartition('/')[2]}"
    others = {stamp: trusted for stamp, trusted in found.others.items() if stamp != origin}
    if found.origin != origin:  # it was moved to another machine, or is another user's now
        others.setdefault(found.origin, False)
    return origin, others


def in_log(directory: Directory) -> Counter[str]:
    """Return how many pickles there are of each stamp in the newest snapshot and in the events behind it.

    Stamps of which there are none, though they might be, are counted 0.

    Raises:
        RegistryError: The log is damaged.
    """
    found: Counter[str] = Counter()
    newest = _recovery.newest_snapshot(directory, lambda text: None)
    extent = Extent()
    if newest is not None:
        extent = Extent.of(newest[1])
        found = in_image(bytes(newest[2]))
    snapshot = extent.snapshot
    for segment, names, record in _recovery.walk(directory, extent, None):
        found.update(dict.fromkeys((segment.description.origin, *segment.description.others), 0))
        if record.last > snapshot:
            for event, _, _ in _recovery.events(segment, names, record)[max(0, snapshot + 1 - record.first) :]:
                found.update(_of_event(event))
    found.update(dict.fromkeys((extent.origin, *extent.others), 0))
    del found[""]
    return found


def in_image(image: bytes) -> Counter[str]:
    """Return how many pickles there are of each stamp in a state."""
    found: Counter[str] = Counter()
    *_, sessions, objects, _, _ = _image.read(image)
    for _, _, _, domain, _, _, _, replies, *_ in sessions:
        found[domain] += 0
        for _, _, body, *_ in replies:
            found.update(_in(body if type(body) is bytes else Parts(body[0], tuple(body[1]))))
    for row in zip(*objects, strict=True):
        found.update(_in(row[12]))
    return found


def _of_event(event: AnyEvent) -> Iterator[str] | dict[str, int]:
    if isinstance(event, Open):
        return {event.domain: 0}
    return _in(event.arguments) if isinstance(event, (Call, Create)) else {}


def _in(data: bytes | Parts) -> Iterator[str]:
    """Yield the stamps of the pickles in an encoding, of which no value is made."""
    stamps: list[str] = []

    def look(code: int, payload: memoryview) -> None:
        if code == _PICKLE:
            stamps.append(_opaque(payload)[0])
        elif code == _BESIDE:
            stamps.extend(map(str, _beside(payload)[1:2]))
        elif code not in _PLAIN:
            msgspec.msgpack.decode(payload, ext_hook=look)

    try:
        msgspec.msgpack.decode(data.head if isinstance(data, Parts) else data, ext_hook=look)
    except BadBody:
        pass  # the server has refused it
    return filter(None, stamps)


_opaque = msgspec.msgpack.Decoder(tuple[str, str, bytes]).decode
_beside = msgspec.msgpack.Decoder(list[int | str]).decode
