"""Check a log as a whole: its bytes, and whether its events lead from each snapshot to the next.

`recover` looks at what it needs. This looks at everything: every byte of every segment and snapshot, also of those that
a newer snapshot covers. Then it replays: from each snapshot, and from the beginning where that is still there, over the
events that follow. What comes out of each event is compared with what came out of it in the server, and the state with
the next snapshot, by the BLAKE2b of its canonical image. Nothing is changed.

A stretch of events is replayed only through the code that it came from; what could not be replayed is told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import attrs

from registry import _image
from registry._engine import Engine
from registry._log import _recovery
from registry._log._code import changes, code
from registry._log._files import Directory
from registry._log._format import Names, Picture, Record, Unreadable
from registry._log._recovery import Extent, Recovered, Segment
from registry._plugins import Plugins


@attrs.define
class Snapshot:
    """A snapshot that is whole.

    Attributes:
        path: The file, `bytes` of them.
        picture: What it says of itself.
        hash: The BLAKE2b of its image, 32 bytes in hexadecimal.
        agrees: Whether a replay has led to the same state; None if none has led there.
    """

    path: Path
    bytes: int
    picture: Picture
    hash: str
    agrees: bool | None = None


@attrs.define
class Checked:
    """What was found; all of it is whole.

    Attributes:
        segments: Those that were read, in order.
        snapshots: By their events, in order.
        bytes: How many were read.
        first, index: The first and the last event; `chain` is the sum of the last record.
        torn: Bytes at the very end that make no whole record.
        replayed: How many events were replayed; `skipped` says of the others why they were not.
        hash: The BLAKE2b of the state after the last event, empty if it could not be had.
        failures: What gave something else in a replay, for people.
    """

    segments: list[Segment] = attrs.field(factory=list)
    snapshots: dict[int, Snapshot] = attrs.field(factory=dict)
    bytes: int = 0
    first: int = 0
    index: int = 0
    chain: int = 0
    torn: int = 0
    replayed: int = 0
    skipped: list[str] = attrs.field(factory=list)
    hash: str = ""
    failures: list[str] = attrs.field(factory=list)


def check(
    directory: Directory,
    head: tuple[int, int],
    plugins: Plugins | None,
    *,
    upto: int | None = None,
    progress: Callable[[int], None] = lambda index: None,
) -> Checked:
    """Check a log.

    Args:
        directory: Where it is.
        head: The last event, and its chain, that are known to have been there.
        plugins: What its objects are made by; None checks the bytes alone.
        upto: The event to stop at, which ends a segment; None is the last.
        progress: Called now and then with the event that has been come to.

    Raises:
        RegistryError: It is damaged, or lacks something; the text names file and offset.
    """
    found = Checked()
    for index, path in directory.snapshots():
        found.snapshots[index] = _read(directory, index, path, found)
    extent = _recovery.beginning(directory)
    newest = max(found.snapshots, default=0)
    if extent.snapshot > newest:
        raise _recovery.gap(directory, extent.snapshot + 1, newest)
    replay = _Replay(directory, plugins, found)
    with _recovery.uncollected():
        replay.begin(extent.snapshot if directory.segments() else newest)
        sums = _walk(directory, extent, upto, found, replay, progress)
        found.index = max([newest, *([extent.tail.index] if extent.tail is not None else [])])
        replay.finish()
    found.first = extent.snapshot + 1
    if found.index < head[0] or sums.get(head[0], head[1]) != head[1]:
        raise _recovery.cut(directory, found.index, head[0])
    found.chain = sums[found.index]
    return found


def _read(directory: Directory, index: int, path: Path, found: Checked) -> Snapshot:
    data = directory.read(path)
    found.bytes += len(data)
    try:
        picture, image = _recovery.read_snapshot(directory, path, data, index)
    except Unreadable as error:
        raise _recovery.damaged(path, 0, f"{error}, somewhere in its {len(data)} bytes") from None
    return Snapshot(path, len(data), picture, hashed(image))


def hashed(image: bytes | memoryview) -> str:
    """Return how states are compared, and told of."""
    return hashlib.blake2b(image, digest_size=32).hexdigest()


def _walk(
    directory: Directory,
    extent: Extent,
    upto: int | None,
    found: Checked,
    replay: _Replay,
    progress: Callable[[int], None],
) -> dict[int, int]:
    """Read every record, and replay it; return the sums of all by their last events."""
    sums = {extent.snapshot: extent.chain}
    sums.update((index, snapshot.picture.chain) for index, snapshot in found.snapshots.items())
    told = 0
    for segment, names, record in _recovery.walk(directory, extent, upto):
        if not found.segments or found.segments[-1] is not segment:
            found.segments.append(segment)
        sums[record.last] = record.sum
        snapshot = found.snapshots.get(record.last)
        said = snapshot.picture if snapshot is not None else None
        if said is not None and (said.chain, said.seal) != (record.sum, record.seal):
            raise _recovery.unlike_snapshot(segment, record)
        replay.take(segment, names, record)
        if record.last - told >= _recovery.PROGRESS:
            told = record.last
            progress(told)
    tail = extent.tail
    if tail is not None:
        if tail not in found.segments:
            found.segments.append(tail)  # without a record
        found.torn = tail.size - tail.end + sum(len(directory.read(path)) for path in extent.beyond)
    found.bytes += sum(segment.size for segment in found.segments)
    return sums


class _Replay:
    """An engine that goes through the events where their code is here, and begins again at each snapshot."""

    def __init__(self, directory: Directory, plugins: Plugins | None, found: Checked) -> None:
        self._directory = directory
        self._declarations = plugins.declarations if plugins is not None else {}
        self._code = code(plugins) if plugins is not None else None
        self._found = found
        self._state: Recovered | None = None

    def begin(self, index: int) -> None:
        """Take the state after an event, as a snapshot has it."""
        self._state = None
        if self._code is None:
            return
        snapshot = self._found.snapshots.get(index)
        if snapshot is None:
            if index == 0:
                self._state = Recovered(engine=Engine(self._declarations))
            else:
                self._skip(index + 1, "what came before them is not kept any more")
            return
        image = bytes(
            _recovery.read_snapshot(self._directory, snapshot.path, self._directory.read(snapshot.path), index)[1]
        )
        try:
            engine = _image.restore(self._declarations, image)
        except Exception as error:  # noqa: BLE001 - a factory or load() of a user's class may raise anything
            text = f"the state in {snapshot.path} cannot be loaded: {type(error).__name__}: {error}"
            is_ours = not changes(snapshot.picture.code, self._code)
            (self._found.failures if is_ours else self._found.skipped).append(text)
            return
        self._state = Recovered(engine=engine)

    def take(self, segment: Segment, names: Names, record: Record) -> None:
        """Go through the events of a record."""
        events = _recovery.events(segment, names, record)
        if self._state is not None and self._code is not None:
            differs = changes(segment.description.code, self._code)
            if differs:
                self._state = None
                self._skip(record.first, f"other code has brought them about: {differs}")
        if self._state is not None:
            for event, digest, verdicts in events:
                _recovery.step(self._state, event, digest, verdicts)
            self._found.replayed += len(events)
            self._found.failures += map(str, self._state.diverged)
            self._state.diverged.clear()
        snapshot = self._found.snapshots.get(record.last)
        if snapshot is not None:
            if self._state is not None:
                self._compare(snapshot, self._state)
            self.begin(record.last)

    def _skip(self, first: int, reason: str) -> None:
        self._found.skipped.append(f"events from {first} up to the next snapshot were not replayed: {reason}")

    def _compare(self, snapshot: Snapshot, state: Recovered) -> None:
        here = hashed(_image.capture(state.engine))
        snapshot.agrees = here == snapshot.hash
        if not snapshot.agrees:
            self._found.failures.append(
                f"{snapshot.path} has not the state that the events lead to (BLAKE2b {snapshot.hash[:16]}, and "
                f"{here[:16]} from a replay)"
            )

    def finish(self) -> None:
        """Tell the state that the log ends with."""
        if self._state is not None and self._state.index == self._found.index:
            self._found.hash = hashed(_image.capture(self._state.engine))
