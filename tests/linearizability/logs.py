"""A disk that a seed owns, and the log that a simulated server keeps on it.

The bytes are those of `registry._log`: records by its `Writer`, read back by its `recover`, what is torn put aside by
its `salvage`. Only the files are a dict. What is written and what is synced is drawn, and so is what a crash leaves:

* After a *kill* the system has all that was written. Of what was on its way to it, it may have a part.
* After a *power cut* what had been synced is there. Of the rest any part may be missing, in the middle too.

Each state whose record is made is kept as an image, so that what is recovered can be compared with what was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import attrs

from registry import SharedObject, _image
from registry._engine import Engine
from registry._events import Event, Output, Verdicts
from registry._log import Recovered, _format, _recovery
from registry._log._files import NAMED, Directory
from registry._log._format import Description, Picture, Writer
from registry._log._secret import Secret
from registry._log._store import salvage


class File:
    """A file of the disk, as its name."""

    def __init__(self, disk: Disk, name: str) -> None:
        self.disk = disk
        self.name = name

    def __str__(self) -> str:
        return self.name

    def __lt__(self, other: File) -> bool:
        return self.name < other.name

    def read_bytes(self) -> bytes:
        return bytes(self.disk.files[self.name].data)

    def with_name(self, name: str) -> File:
        return File(self.disk, name)

    def rename(self, other: File) -> None:
        self.disk.files[other.name] = self.disk.files.pop(self.name)

    def unlink(self, missing_ok: bool = False) -> None:
        if self.disk.files.pop(self.name, None) is None and not missing_ok:
            raise FileNotFoundError(self.name)


@attrs.define
class Content:
    """What is in a file: up to `synced` for certain, whatever happens."""

    data: bytearray
    synced: int = 0

    def sync(self) -> None:
        self.synced = len(self.data)


SECRET = Secret(b"of the simulated disks")


class Disk(Directory):
    """What outlives the lives of a server.

    Attributes:
        durable: Whether what is safe is synced, as with ``--log disk``; else it is written, as with ``--log process``.
        lives: How many there have been.
        head: What the epoch file knows of the log.
        images: The states that were, by the last event.
        broken: What was not as it is promised.
    """

    def __init__(self, random: Random, declarations: Mapping[str, SharedObject[Any]], durable: bool) -> None:
        super().__init__("simulated")
        self.judged_by(SECRET)
        self.random = random
        self.declarations = declarations
        self.durable = durable
        self.lives = 0
        self.boots = 1
        self.head = (0, 0)
        self.files: dict[str, Content] = {}
        self.images: dict[int, bytes] = {}
        self.broken: list[str] = []

    def _named(self, kind: str) -> list[tuple[int, Path]]:
        found = [match for name in self.files if (match := NAMED.fullmatch(name)) and match[2] == kind]
        rows: list[Any] = sorted((int(match[1]), File(self, match[0])) for match in found)
        return rows

    def put(self, path: Path, parts: Iterable[bytes | memoryview]) -> None:
        data = bytearray().join(parts)
        self.files[path.name] = Content(data, len(data))

    def recover(self, upto: int | None = None) -> Recovered:
        """Read the log, and compare what it tells with what was."""
        boot, _recovery.boot = _recovery.boot, lambda: str(self.boots)
        try:
            found = _recovery.recover(self, self.declarations, {}, self.head if upto is None else (0, 0), upto=upto)
        finally:
            _recovery.boot = boot
        self.broken += [f"life {self.lives}: {each}" for each in found.diverged]
        self.broken += [f"life {self.lives}: {text}" for text in found.warnings]
        image = self.images.get(found.index)
        if found.index and image is None:
            self.broken.append(f"life {self.lives}: the log ends with event {found.index}, in the middle of a record")
        elif found.index and _image.capture(found.engine) != image:
            self.broken.append(f"life {self.lives}: the replay of event {found.index} gives another state")
        return found

    def fold(self, upto: int) -> None:
        """Make a snapshot of what ends with an event, as the server's other process does."""
        found = self.recover(upto)
        self.take_picture(found.engine, found.chain, found.seal)

    def take_picture(self, engine: Engine, chain: int, seal: bytes) -> None:
        """Make a snapshot of a state."""
        picture = Picture(_format.FORMAT, engine.index, chain, {}, b"", engine.epoch, 0.0, seal)
        name: Any = File(self, self.snapshot(engine.index).name)
        self.put(name, _format.pack_snapshot(picture, _image.capture(engine), SECRET))
        if self.random.random() < 0.9:  # else the end comes first
            self.head = (engine.index, chain)
            self.trim()

    def forget(self, index: int) -> None:
        """What was after an event has never been."""
        self.images = {each: image for each, image in self.images.items() if each <= index}

    def lose_power(self) -> None:
        """Lose some of what is not synced."""
        self.boots += 1
        for content in self.files.values():
            rest = len(content.data) - content.synced
            if not rest:
                continue
            start = content.synced + self.random.randint(0, rest)
            end = len(content.data)
            if self.random.random() < 0.3:
                end = self.random.randint(start, end)
                content.data[start:end] = bytes(end - start)  # and what lies behind is there
            else:
                del content.data[start:end]


class Log:
    """The log of one life: `registry._host.Log`, and when it is written.

    Args:
        disk: Where.
        found: What it goes on from.
        seen: Called with each event that is added, and its index.

    Attributes:
        index: The last event that was added.
        made: The last event of a record.
        safe: The last event whose outputs may leave.
        synced: The last event that is on the disk.
        closed: The last event of a segment that is closed, and on the disk; 0 if there is none.
    """

    syncs = 0

    def __init__(self, disk: Disk, found: Recovered, seen: Callable[[Event, int], None]) -> None:
        self.disk = disk
        self.seen = seen
        self.index = self.made = self.safe = self.synced = found.index
        self.closed = 0
        salvage(disk, found, disk.lives)
        if found.index:
            disk.head = (found.index, found.chain)
        self._queue: list[tuple[bytes, int]] = []
        self._written = found.index
        self._closing = 0
        self._open(found.chain, found.seal)

    def _open(self, chain: int, seal: bytes) -> None:
        disk, first = self.disk, self.index + 1
        self._first = first
        self._writer = Writer(self.index, chain, SECRET, seal)
        head = Description(_format.FORMAT, first, chain, self.synced, str(disk.boots), {}, b"", disk.lives, 0.0, seal)
        self._file = Content(bytearray(_format.pack_segment(head, SECRET)))
        self._file.sync()
        disk.files[disk.segment(first).name] = self._file

    def append(self, event: Event, outputs: list[Output], verdicts: Verdicts) -> None:
        self._writer.add(event, outputs, verdicts)
        self.index += 1
        self.seen(event, self.index)

    def commit(self, engine: Engine) -> None:
        """Make a record of what was added, which is on its way then."""
        if len(self._writer):
            self.disk.images[engine.index] = _image.capture(engine)
            self._queue.append((self._writer.take(self.synced), engine.index))
            self.made = engine.index

    def write(self) -> None:
        """Have the system take what is on its way."""
        for record, index in self._queue:
            self._file.data += record
            self._written = index
        self._queue.clear()
        if not self.disk.durable:
            self.safe = self._written

    def sync(self) -> None:
        """Have it on the disk."""
        self.write()
        for content in self.disk.files.values():
            content.sync()
        self.synced = self._written
        self.safe = max(self.safe, self.synced)
        self.closed = max(self.closed, self._closing)

    def roll(self) -> None:
        """Go on in another segment."""
        if self.disk.durable:
            self.sync()
        else:
            self.write()
        if not len(self._writer) and self.index >= self._first:
            self._closing = self.index
            self._open(self._writer.chain, self.seal)
            if self.disk.durable:
                self.sync()

    @property
    def chain(self) -> int:
        """The sum of the last record."""
        return self._writer.chain

    @property
    def seal(self) -> bytes:
        """The seal of the last record."""
        return self._writer.seal

    @property
    def rests(self) -> bool:
        """Whether all that was added is safe."""
        return self.safe == self.index

    def crash(self, power: bool) -> int:
        """End in the middle of everything; return the last event that must be there all the same."""
        if self.disk.random.random() < 0.5:
            rest = b"".join(record for record, _ in self._queue)
            self._file.data += rest[: self.disk.random.randint(0, len(rest))]
        if power:
            self.disk.lose_power()
            return self.synced
        return self.safe


class Logged:
    """What the simulation of a server does with its log; it is mixed into one that has a `host`, and can `collect`."""

    host: Any
    disk: Disk
    log: Log
    collect: Callable[[], None]

    def note_safe(self, index: int) -> None:
        """Take note of what has happened for certain."""

    def release(self) -> None:
        """Let the server send what is safe."""
        self.host.release(self.log.safe)
        self.collect()
        self.note_safe(self.log.safe)

    def commit(self) -> None:
        """End a turn of the server."""
        self.log.commit(self.host.engine)
        if not self.disk.durable and self.disk.random.random() < 0.9:  # else there is no space
            self.write()

    def write(self) -> None:
        """Have the system take what is on its way to it."""
        self.log.write()
        self.release()

    def sync(self) -> None:
        """Have the disk take what the system has."""
        self.log.sync()
        self.release()

    def begin(self) -> None:
        """Have the beginning of a life synced before anybody hears of it, as a server does."""
        self.log.commit(self.host.engine)
        self.sync()

    def roll(self) -> None:
        """Go on in another segment."""
        self.log.roll()
        self.release()

    def fold(self) -> None:
        """Have a snapshot made of what is in closed segments."""
        if self.log.closed:
            self.disk.fold(self.log.closed)
            self.log.closed = 0

    def stop(self) -> None:
        """End a life in order: leave a snapshot, and nothing to replay."""
        self.log.commit(self.host.engine)
        self.sync()
        self.disk.take_picture(self.host.engine, self.log.chain, self.log.seal)
