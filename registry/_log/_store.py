"""The log of one server, from its start to its end: what it finds, what it writes, what it folds."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from registry import _image
from registry._addresses import EpochFile, ServerLock
from registry._engine import Engine
from registry._log import _format, _pickles, _recovery, _restore
from registry._log._code import code
from registry._log._files import Directory, boot
from registry._log._folding import Folded, Folding
from registry._log._format import Description, Picture
from registry._log._recovery import Recovered
from registry._log._segments import SegmentLog
from registry._plugins import Plugins

SEGMENT_BYTES = 32 << 20  # a segment that has grown to this is closed, and folded into a snapshot
SEGMENT_EVENTS = 100_000


class Store:
    """A directory with the log of one server.

    The order of use: `lock`, `recover`, `begin`, and at the end `fold` and `close`.

    Args:
        path: The directory.
        epoch: The epoch file of the same server.
        plugins: What its objects are made by.
        disk: Whether events are on the disk before they are acknowledged.
        post: Runs a function on the loop's thread; called from another one.
        on_safe, on_failure: See `SegmentLog`.
        say: Called with what people are to know; from any thread.
    """

    def __init__(
        self,
        path: Path,
        epoch: EpochFile,
        plugins: Plugins,
        *,
        disk: bool,
        post: Callable[[Callable[[], None]], None],
        on_safe: Callable[[int], None],
        on_failure: Callable[[BaseException], None],
        say: Callable[[str], None],
    ) -> None:
        self.directory = Directory(path)
        self.plugins = plugins
        self.code = code(plugins)
        self.log = SegmentLog(self.directory, disk=disk, post=post, on_safe=on_safe, on_failure=on_failure, say=say)
        self.snapshot = 0  # the event of the newest one
        self.origin = ""  # the stamp of pickles from now on
        self.others: dict[str, bool] = {}  # that pickles have, and whether readers of `origin` may open them
        self.folding: Folding | None = None
        self._epoch = epoch
        self._post = post
        self._say = say
        self._lock = ServerLock(self.directory.lock)
        self._found: Recovered | None = None
        self._first = self._closed = (
            0  # since the last fold: the first event, and the bytes in segments that are closed
        )
        self._life = b""
        self._number = 0

    # -- the start

    def lock(self) -> None:
        """Take the directory.

        Raises:
            OSError: Another server has it.
        """
        self.directory.ensure()
        self._lock = take(self.directory)
        if _restore.finish(self.directory, self._epoch):
            self._say("put the rest of a backup in place, which had been interrupted")

    def recover(self) -> Recovered:
        """Return the state that the log tells of. Nothing is changed."""
        known = self._epoch.read()
        head = (known.head, known.chain) if known is not None else (0, 0)
        began = time.monotonic()

        def progress(done: int, total: int) -> None:
            self._say(f"replaying the log: event {done}" + (f" of more than {total}" if total > done else ""))

        found = _recovery.recover(self.directory, self.plugins.declarations, self.code, head, progress=progress)
        self._found = found
        self.snapshot = found.snapshot
        self.origin, self.others = _pickles.taken_over(found)
        if found.origin not in ("", self.origin):
            self._say(self._closed_pickles(found))
        for text in found.warnings:
            self._say(text)
        if found.index:
            self._say(
                f"recovered {len(found.engine.objects)} objects and {len(found.engine.sessions)} sessions as of event "
                f"{found.index}, {found.replayed} of them replayed, in {time.monotonic() - began:.1f} s"
            )
        return found

    def _closed_pickles(self, found: Recovered) -> str:
        """Return what people are to know of a log that was written by another user, or on another machine."""
        count = _pickles.in_image(_image.capture(found.engine))[found.origin]
        return (
            f"the log in {self.directory.path} was written as {found.origin}, and this server is {self.origin}: "
            f"{count} values in it that are pickles stay closed. To open them: `registry state backup FILE`, then "
            f"`registry state restore FILE --trust {found.origin}`"
        )

    def begin(self, number: int, life: bytes) -> None:
        """Begin to write, as the life of this number and id."""
        found, self._found = self._found, None
        if found is None:
            raise RuntimeError("a log begins where it was recovered")
        self._life, self._number = life, number
        self.directory.life = number
        self.directory.sweep()
        salvage(self.directory, found, number)
        self.log.begin(self._describe(found.index, found.chain, found.index, found.seal))
        self._first = self.log.first
        if found.index:
            self._epoch.record(found.index, found.chain)

    def _describe(self, index: int, chain: int, synced: int, seal: bytes) -> Description:
        return Description(
            format=_format.FORMAT,
            first=index + 1,
            chain=chain,
            synced=synced,
            boot=boot(),
            code=self.code,
            life=self._life,
            epoch=self._number,
            began=time.time(),
            seal=seal,
            origin=self.origin,
            others=self.others,
        )

    # -- while it is served

    @property
    def is_full(self) -> bool:
        """Whether so much is in the segments since the last that was to be folded that it should be folded."""
        log = self.log
        return log.size + self._closed > SEGMENT_BYTES or log.index - self._first >= SEGMENT_EVENTS

    def roll(self, then: Callable[[int], None]) -> None:
        """Close the open segment, to be folded, and go on in the next; see `close_segment`."""
        self.close_segment(then)
        self._first, self._closed = self.log.first, 0

    def close_segment(self, then: Callable[[int], None]) -> None:
        """Close the open segment, if there is anything in it, and go on in the next.

        Args:
            then: Called with the last event once that is on the disk in a segment that never changes again.
        """
        log = self.log
        index = log.index
        if index < log.first:
            log.when_synced(lambda: then(index))
            return
        self._closed += log.size  # segments that are closed for a backup are folded with those that follow
        log.roll(self._describe(index, log.chain, 0, log.seal), lambda: then(index))

    def fold(self, upto: int, start: Folding.Start, done: Callable[[Folded], None]) -> None:
        """Fold the closed segments up to an event into a snapshot, unless that is under way already."""
        if self.folding is not None or upto <= self.snapshot:
            return

        def finished(folded: Folded) -> None:
            self.folding = None
            if folded.index:
                self.snapshot = folded.index
            done(folded)

        def ended(folded: Folded) -> None:
            self._post(lambda: finished(folded))

        self.folding = Folding(self.directory, self._epoch, self.code, upto, start, ended)
        self.folding.begin()

    def take_picture(self, engine: Engine) -> Callable[[], None]:
        """Return what writes a snapshot of the state as it is now, in which all that was added is committed.

        To be called once that is on the disk. Both block for as long as the state is large.
        """
        index, chain = engine.index, self.log.chain
        picture = Picture(
            format=_format.FORMAT,
            index=index,
            chain=chain,
            code=self.code,
            life=self._life,
            epoch=self._number,
            made=time.time(),
            seal=self.log.seal,
            origin=self.origin,
            others=self.others,
        )
        secret = self.directory.own_secret()
        content = _format.pack_snapshot(picture, _image.capture(engine), secret) if index > self.snapshot else ()

        def write() -> None:
            if index > self.snapshot:
                self.directory.put(self.directory.snapshot(index), content)
                self._epoch.record(index, chain)
                self.directory.trim()
                self.snapshot = index

        return write

    # -- the end

    def stop(self) -> None:
        """Finish writing. Blocks; `log.failure` tells whether that was possible."""
        if self.folding is not None:
            self.folding.stop()
        self.log.close()

    def release(self) -> None:
        """Let go of the directory, wherever the order of use was left."""
        self.stop()
        self._lock.release()

    def close_inherited(self) -> None:
        """In a forked child: let go of what is the parent's."""
        self.log.abandon()
        self._lock.release()


def take(directory: Directory) -> ServerLock:
    """Take the lock of a directory.

    Raises:
        OSError: Somebody has it.
    """
    lock = ServerLock(directory.lock)
    if not lock.succeed():
        info: dict[str, Any] = lock.read_info() or {}
        raise OSError(
            errno.EAGAIN,
            f"the state in {directory.path} is in use by pid {info.get('pid', '?')}; stop that server, or give this "
            "one another directory with --state",
        )
    try:
        lock.write_info({"pid": os.getpid(), "since": time.time()})
    except BaseException:
        lock.release()
        raise
    return lock


def salvage(directory: Directory, found: Recovered, number: int) -> None:
    """Write what was found at the end of the log to new files, and put aside what was cut from it.

    The system may have dropped what it failed to write, and shows it all the same as long as it remembers it; what is
    served must be on the disk.
    """
    for path in found.beyond:
        path.rename(path.with_name(f"{path.name}.{number}.torn"))
    for segment in found.unsure:
        directory.put(segment.path, [segment.path.read_bytes()])
    tail = found.tail
    if tail is None or (tail.end == tail.size and tail.index <= found.snapshot):
        return
    data = tail.path.read_bytes()
    if tail.end < tail.size:
        directory.put(tail.path.with_name(f"{tail.path.name}.{number}.torn"), [data[tail.end :]])
    if tail.end:
        directory.put(tail.path, [data[: tail.end]])
    else:
        tail.path.unlink()
