"""Read a log: check every byte, load the newest good snapshot, and replay what follows it.

The rules, all of which end in a refusal that names file and place rather than in a guess:

* The segments follow each other without a gap in index and chain, and begin where the snapshot ends or before.
* What cannot be read at the very end of the last segment is a torn tail, and is cut, unless something proves that it
  had been whole: a whole record behind it (`_format.judge`), or the head that is recorded in the epoch file at each
  snapshot and at a clean stop.
* A loss of power may leave a segment without the end of the one before it. The same proofs decide: without one, what
  follows the gap is put aside.
* What follows the newest good snapshot is replayed only through the code that it came from.

A replay compares what comes out of each event with the digest that was logged with it. Where they differ, the object's
class is not deterministic. What the object holds now is then not what its users have seen, so that it is halted.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from registry import _image
from registry._engine import Engine
from registry._events import AnyEvent, Call, Create, Event, Verdicts
from registry._log import _format
from registry._log._code import changes
from registry._log._files import Directory, boot
from registry._log._format import Description, Names, NotSealed, Picture, Record, Unreadable
from registry.declarations import SharedObject
from registry.errors import CodeChanged, RegistryError

PROGRESS = 50_000  # events between two reports


@attrs.frozen
class Divergence:
    """An event that gave something else when it was replayed.

    Attributes:
        index: The event's.
        typeid, name: The object whose method it called; empty where it called none.
        method: What it called.
        kind: The class of the object.
    """

    index: int
    typeid: str
    name: str
    method: str
    kind: str

    def __str__(self) -> str:
        called = f"{self.typeid}:{self.name}.{self.method}()" if self.typeid else "an end or a deadline"
        return (
            f"event {self.index}, {called}, gave another result when it was replayed: {self.kind} is not deterministic"
            ". It may iterate over a set, read a clock, draw random numbers, or keep an attribute that its state() "
            "does not tell; registry.testing.check names which. hosting.call() has the time and random numbers"
        )


@attrs.define
class Segment:
    """A segment as it was found.

    Attributes:
        path: The file.
        description: What it says of itself.
        index: Its last event; `chain` is the sum of that event's record.
        end: Where its last whole record ends, of `size` bytes; 0 if not even its head is whole.
    """

    path: Path
    description: Description
    index: int
    chain: int
    end: int
    size: int


@attrs.define
class Extent:
    """How far a log reaches.

    Attributes:
        snapshot: The event behind which it is read, that of a snapshot; 0 where there is none.
        chain: The sum of the record of the last event, `seal` its seal.
        origin: The stamp of the pickles that the last life has taken; empty where there is nothing.
        others: Further stamps that pickles have, and whether readers of `origin` may open them.
        tail: The last segment, None if there is none.
        unsure: Segments before it that may not be on the disk as they are shown.
        beyond: Segments behind it that a loss of power has left without what comes before them.
    """

    snapshot: int = 0
    chain: int = 0
    seal: bytes = b""
    origin: str = ""
    others: dict[str, bool] = attrs.field(factory=dict)
    tail: Segment | None = None
    unsure: list[Segment] = attrs.field(factory=list)
    beyond: list[Path] = attrs.field(factory=list)

    @classmethod
    def of(cls, picture: Picture) -> Extent:
        """Return that of a log which begins with a snapshot."""
        extent = cls()
        extent.begin(picture)
        return extent

    def begin(self, picture: Picture) -> None:
        """Begin with a snapshot."""
        self.snapshot, self.chain, self.seal = picture.index, picture.chain, picture.seal
        self.origin, self.others = picture.origin, picture.others


@attrs.define
class Recovered(Extent):
    """What was found.

    Attributes:
        engine: In the state after the last event.
        replayed: How many events were replayed.
        warnings: What people are to be told.
        diverged: Events that gave something else.
    """

    engine: Engine = attrs.field(kw_only=True)
    replayed: int = 0
    warnings: list[str] = attrs.field(factory=list)
    diverged: list[Divergence] = attrs.field(factory=list)

    @property
    def index(self) -> int:
        """The last event."""
        return self.engine.index


def damaged(path: Path, offset: int, what: str) -> RegistryError:
    """Return the error that refuses a damaged log."""
    return RegistryError(
        f"{path} is damaged at byte {offset}: {what}. Nothing of it is served, nothing was changed; restore a backup "
        "with `registry state restore`, or move the directory away to begin anew"
    )


class ForgedLog(RegistryError):
    """A log that nobody has written who has the secret of its directory."""


def forged(directory: Directory, path: Path, error: NotSealed) -> ForgedLog:
    """Return the error that refuses a file which is whole, and not of this directory."""
    return ForgedLog(
        f"{path} is forged, or comes from elsewhere: at byte {error.offset} {error}, and the log has that in "
        f"{directory.path / 'secret'}. Nothing of it is served, nothing was changed; restore a backup with "
        "`registry state restore`. If the log is yours, of another directory or of an earlier version: move "
        f"{directory.path} away, and restore it from there"
    )


def recover(
    directory: Directory,
    declarations: Mapping[str, SharedObject[Any]],
    code: dict[str, str],
    head: tuple[int, int] = (0, 0),
    *,
    upto: int | None = None,
    progress: Callable[[int, int], None] = lambda done, all: None,
) -> Recovered:
    """Return the state that a log tells of. Nothing is changed.

    Args:
        directory: Where it is.
        declarations: The shared objects by typeid.
        code: What is running now, see `_code.code`.
        head: The last event, and its chain, that are known to have been there.
        upto: The event to stop after; None is the last.
        progress: Called now and then with how many events have been replayed, and of how many.

    Raises:
        RegistryError: It is damaged.
        CodeChanged: There are events to replay that other code has brought about.
    """
    found = Recovered(engine=Engine(declarations))
    with uncollected():
        _load(directory, declarations, found)
        _replay(directory, found, code, head, upto, progress)
    return found


@contextmanager
def uncollected() -> Iterator[None]:
    """Do without the garbage collector: millions of objects are made and none goes."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _load(directory: Directory, declarations: Mapping[str, SharedObject[Any]], found: Recovered) -> None:
    """Load the newest snapshot that is whole."""
    newest = newest_snapshot(directory, found.warnings.append)
    if newest is not None:
        _, picture, image = newest
        found.engine = _image.restore(declarations, bytes(image))
        found.begin(picture)


def newest_snapshot(directory: Directory, warn: Callable[[str], None]) -> tuple[Path, Picture, memoryview] | None:
    """Return the newest snapshot that is whole."""
    for index, path in reversed(directory.snapshots()):
        try:
            return path, *read_snapshot(directory, path, directory.read(path), index)
        except Unreadable as error:
            warn(f"{path} cannot be used: {error}; an older snapshot is used")
    return None


def read_snapshot(directory: Directory, path: Path, data: bytes, index: int) -> tuple[Picture, memoryview]:
    """Return what the snapshot of an event says of itself, and the image.

    Raises:
        Unreadable: It is damaged, or that of another event.
        ForgedLog: It is not sealed as the files of the directory are.
    """
    try:
        picture, image = _format.read_snapshot(data, directory.secret)
    except NotSealed as error:
        raise forged(directory, path, error) from None
    if picture.index != index:
        raise Unreadable(f"it is that of event {picture.index}")
    return picture, image


def _replay(
    directory: Directory,
    found: Recovered,
    code: dict[str, str],
    head: tuple[int, int],
    upto: int | None,
    progress: Callable[[int, int], None],
) -> None:
    """Apply the events behind the snapshot."""
    chains = {found.index: found.chain}
    for segment, names, record in walk(directory, found, upto):
        applied = events(segment, names, record)
        if record.last > found.index:
            differs = changes(segment.description.code, code)
            if differs:
                raise CodeChanged(
                    f"{directory.path} holds events from {found.index + 1} on that other code has brought about: "
                    f"{differs}. Run that code once more and stop it with `registry stop`, which leaves nothing to "
                    "replay; or restore a backup with `registry state restore`"
                )
            for event, digest, verdicts in applied[found.index + 1 - record.first :]:
                step(found, event, digest, verdicts)
                if found.replayed % PROGRESS == 0:
                    progress(found.index, upto or head[0])
        elif record.last == found.snapshot and (record.sum, record.seal) != (found.chain, found.seal):
            raise unlike_snapshot(segment, record)
        chains[record.last] = record.sum
        if record.last == found.index:
            found.chain, found.seal = record.sum, record.seal
    expected = upto if upto is not None else head[0]
    if found.index < expected or (upto is None and chains.get(head[0], head[1]) != head[1]):
        raise cut(directory, found.index, expected)


def unlike_snapshot(segment: Segment, record: Record) -> RegistryError:
    """Return the error that refuses a record in whose place a snapshot has seen another one."""
    what = f"event {record.last} is not the one that the snapshot has seen"
    return damaged(segment.path, record.offset, what)


def cut(directory: Directory, index: int, expected: int) -> RegistryError:
    """Return the error that refuses a log which lacks what had been there for certain."""
    return RegistryError(
        f"{directory.path} does not hold what it held at the last snapshot or stop: it ends with event {index}, and "
        f"event {expected} had been there. Files are missing, cut or replaced. Restore a backup with "
        "`registry state restore`, or move the directory away to begin anew"
    )


def gap(directory: Directory, first: int, snapshot: int) -> RegistryError:
    """Return the error that refuses a log which begins behind the newest snapshot."""
    return RegistryError(
        f"the log in {directory.path} begins with event {first}, and the newest snapshot that can be used is that of "
        f"event {snapshot}: what lies between is missing. Restore a backup with `registry state restore`, or move the "
        "directory away to begin anew"
    )


def walk(directory: Directory, found: Extent, upto: int | None) -> Iterator[tuple[Segment, Names, Record]]:
    """Yield the records of all segments that reach behind the snapshot, in order; tell in `found` where they end.

    Raises:
        RegistryError: They are damaged.
    """
    segments = directory.segments()
    behind = [first for first, _ in segments[1:]]
    index = chain = -1  # of what comes before
    seal = b""
    for place, (first, path) in enumerate(segments):
        is_last = place == len(behind)
        if not is_last and behind[place] <= found.snapshot + 1:
            continue  # the snapshot covers it
        if upto is not None and first > upto:
            break
        data = directory.read(path)
        segment, offset = _describe(directory, path, first, data, is_last)
        if offset == 0:
            _go_on(found, segment)
            return
        said = segment.description
        if index < 0:
            index, chain, seal = first - 1, said.chain, said.seal
            if index > found.snapshot or (index == found.snapshot and (chain, seal) != (found.chain, found.seal)):
                raise gap(directory, first, found.snapshot)
        if (index + 1, chain, seal) != (first, said.chain, said.seal):
            raise damaged(path, 0, f"it continues another log, or what came before event {first} is missing")
        found.origin, found.others = said.origin, said.others
        names = Names()
        try:
            for record in _format.records(data, offset, index, chain, directory.secret, seal):
                yield segment, names, record
                index, chain, seal, offset = record.last, record.sum, record.seal, record.end
        except NotSealed as error:
            raise forged(directory, path, error) from None
        segment.index, segment.chain, segment.end = index, chain, offset
        _go_on(found, segment)
        later = [path for _, path in segments[place + 1 :]]
        is_cut = bool(later) and behind[place] > index + 1  # between two records, or a whole segment is missing
        if offset < len(data) or is_cut:
            proof = _proof(directory, segment, data, later)
            if proof and offset < len(data):
                raise damaged(path, offset, f"event {index + 1} cannot be read, and {proof}")
            if not proof:
                found.beyond = later
                return


def _go_on(found: Extent, segment: Segment) -> None:
    """Take the next segment as the last one. Of those before it, it says how far they were on the disk."""
    if found.tail is not None:
        found.unsure.append(found.tail)
    found.unsure = [each for each in found.unsure if each.index > max(segment.description.synced, found.snapshot)]
    found.tail = segment


def reach(directory: Directory) -> tuple[int, int, int]:
    """Return the last event that a log leads to, the sum of its record, and the highest epoch in it.

    Every byte that counts is looked at.

    Raises:
        RegistryError: It is damaged.
    """
    unusable: list[str] = []
    newest = newest_snapshot(directory, unusable.append)
    extent, epoch = Extent(), 0
    if newest is not None:
        extent, epoch = Extent.of(newest[1]), newest[1].epoch
    index, chain = extent.snapshot, extent.chain
    for segment, _, record in walk(directory, extent, None):
        epoch = max(epoch, segment.description.epoch)
        if record.last >= index:
            index, chain = record.last, record.sum
    if unusable:
        raise RegistryError(unusable[0])
    return index, chain, epoch


def beginning(directory: Directory) -> Extent:
    """Return an extent that begins where the oldest segment does."""
    segments = directory.segments()
    if not segments:
        return Extent()
    first, path = segments[0]
    try:
        description, _ = _format.read_segment(directory.read(path))
    except Unreadable:
        return Extent(first - 1)  # the walk judges it
    return Extent(first - 1, description.chain, description.seal)


def _describe(directory: Directory, path: Path, first: int, data: bytes, is_last: bool) -> tuple[Segment, int]:
    """Return a segment that is about to be read, and where its records begin; 0 if it was torn at its very head."""
    try:
        description, offset = _format.read_segment(data, directory.secret)
    except NotSealed as error:
        raise forged(directory, path, error) from None
    except Unreadable as error:
        if not is_last or _format.judge(data, 0, first, same_boot=True) is not None:
            raise damaged(path, 0, str(error)) from None
        nothing = Description(_format.FORMAT, first, 0, 0, "", {}, b"", 0, 0.0)
        return Segment(path, nothing, first - 1, 0, 0, len(data)), 0
    if description.first != first:
        raise damaged(path, 0, f"it says that it begins with event {description.first}")
    return Segment(path, description, first - 1, description.chain, offset, len(data)), offset


def _proof(directory: Directory, segment: Segment, data: bytes, later: list[Path]) -> str:
    """Return what proves that the event behind a segment's end had been whole, so that this is no torn tail."""
    here, index = boot(), segment.index + 1
    same_boot = bool(here) and segment.description.boot == here
    place = _format.judge(data, segment.end, index, same_boot)
    if place is not None:
        return f"a later one at byte {place} is whole"
    for path in later:
        behind = directory.read(path)
        try:
            is_proof = same_boot or _format.read_segment(behind)[0].synced >= index
        except Unreadable:
            is_proof = same_boot
        if is_proof or _format.judge(behind, 0, index, same_boot) is not None:
            return f"there are later ones in {path.name}"
    return ""


def events(segment: Segment, names: Names, record: Record) -> list[tuple[AnyEvent, int, Verdicts]]:
    """Return the events of a record, as `Names.events` does.

    Raises:
        RegistryError: They cannot be read.
    """
    try:
        return names.events(record)
    except Unreadable as error:
        raise damaged(segment.path, record.offset, str(error)) from None


def step(found: Recovered, event: Event, digest: int, verdicts: Verdicts) -> None:
    """Apply an event, and compare what comes out of it."""
    engine = found.engine
    if _format.digest(engine.step(event, verdicts)) != digest:
        typeid, name, method = "", "", ""
        if isinstance(event, (Call, Create)):
            typeid, name, method = event.typeid, event.name, getattr(event, "method", "")
        hosted = engine.find(typeid, name)
        kind = type(hosted.instance).__qualname__ if hosted is not None else "a class"
        found.diverged.append(Divergence(engine.index, typeid, name, method, kind))
    found.replayed += 1
