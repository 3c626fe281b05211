"""Find keyed methods that change more than they say: what clients have cached of the other keys would stay.

Each call of a keyed method is played again in an engine that is restored for it. Before and after, everything is read
that the series reads, and what each keyed read without further arguments has to say of each key of the series. What
is read otherwise afterwards has to hang on what the call has touched.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

import msgspec

from registry import _codec, _image
from registry._engine import Engine
from registry._events import Call
from registry._leaves import EVERY
from registry._wire import Kind
from registry.testing._passes import Recording, Trouble

_READS = 200  # that are made before and after each call


def strays(recording: Recording) -> Iterator[Trouble]:
    """Yield the calls of keyed methods after which another key has another answer."""
    interface = recording.declaration.interface
    calls = [moment for moment in recording.moments if moment.method in interface.keyed and not moment.reads]
    if not calls or not interface.readonly:
        return
    reads = _reads(recording)
    told = set()
    for moment in calls:
        if moment.method in told:
            continue
        engine = _image.restore(recording.declarations, moment.image)
        before = {text: _answer(engine, read) for text, read in reads.items()}
        engine.step(moment.event)
        touched = engine.touched
        for text, (answer, key) in before.items():
            if key is None or _is_touched(key[0], touched) or _answer(engine, reads[text])[0] == answer:
                continue
            told.add(moment.method)
            yield Trouble("stray", moment, [moment.method], text)
            break


def _reads(recording: Recording) -> dict[str, Call]:
    """Return the reads to make, by how they are told."""
    interface = recording.declaration.interface
    found: dict[str, Call] = {}
    keys: dict[str, Any] = {}
    example: Call | None = None
    for moment in recording.moments:
        call = moment.event
        if not isinstance(call, Call):
            continue
        example = call
        args, kwargs = _codec.decode_arguments(call.arguments)
        if moment.reads:
            named = [f"{name}={value!r}" for name, value in kwargs.items()]
            found.setdefault(f"{call.method}({', '.join([*map(repr, args), *named])})", call)
        if args and moment.method in interface.keyed:
            keys.setdefault(repr(args[0]), args[0])
    if example is not None:
        for method in set(interface.keyed) & set(interface.readonly):
            for text, key in keys.items():
                arguments = _codec.encode_arguments([key], {})
                read = msgspec.structs.replace(example, seq=0, method=method, arguments=arguments, grants=())
                found.setdefault(f"{method}({text})", read)
    return dict(sorted(found.items())[:_READS])


def _answer(engine: Engine, read: Call) -> tuple[object, tuple[object] | None]:
    """Return what a read answers, and the key that it hangs on; None where it is not to be cached."""
    hangs_on: list[object] = []

    def sample(number: int, key: object) -> bytes:
        hangs_on.append(key)
        return b""

    output = engine.read(read, sample=sample)
    answer = output.kind, output.body if output.kind == Kind.REPLY else b""
    return answer, (hangs_on[0],) if hangs_on else None


def _is_touched(key: object, touched: list[tuple[int, object]]) -> bool:
    """Tell whether what hangs on a key is asked for again: what hangs on all of an object always is."""
    keys = [each for _, each in touched]
    if key is EVERY or not isinstance(key, Hashable) or any(each is EVERY for each in keys):
        return bool(touched)
    try:
        return any(each == key or not isinstance(each, Hashable) for each in keys)
    except Exception:  # noqa: BLE001 - values that cannot be compared are different keys
        return False
