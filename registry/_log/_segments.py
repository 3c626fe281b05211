"""The log that is being written: events in, an index out up to which they are safe.

Theory of operation. The loop adds events to a record (`append`) and ends a turn with `commit`. What is *safe* then may
leave the server: with `process` once the system has the bytes, with `disk` once the disk has them.

* With `process` the loop writes, since that costs less than waking another thread. A thread syncs every second, so that
  a loss of power costs no more than that.
* With `disk` the thread writes and syncs all that has come together while it did so before. So a batch forms by itself,
  and grows with the load.

A write that fails leaves nothing in doubt. Where there is no space, what was to be written waits, everything later
waits behind it, and it goes on when there is space. A sync that fails for want of space may have dropped what it was to
write, so that this is written again. After any other error nothing is acknowledged any more: the log is broken, and the
server ends (`on_failure`).
"""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import attrs
from msgspec import structs

from registry._events import Event, Output, Verdicts
from registry._log import _format
from registry._log._files import Directory
from registry._log._format import Description, Writer
from registry._log._secret import Secret

NO_SPACE = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
RETRY = 0.1  # seconds between two attempts to write where there is no space
SYNC = 1.0  # seconds after which `process` syncs what it has written

_sync_data = getattr(os, "fdatasync", os.fsync)


@attrs.define
class _File:
    """The open segment: where it is written, and what has been written since the last sync, which may yet fail."""

    fd: int
    synced_size: int
    unsynced: deque[tuple[bytes, int]] = attrs.field(factory=deque)  # with the last event of each, 0 if it goes on

    def write(self, record: bytes, index: int) -> bytes:
        """Write as much of a record as there is space for, and return the rest."""
        written = os.write(self.fd, record)
        if written == len(record):
            self.unsynced.append((record, index))
            return b""
        self.unsynced.append((record[:written], 0))
        return record[written:]

    def sync(self) -> int:
        """Sync what has been written by now, and return its last event, 0 if there is none."""
        count = len(self.unsynced)
        _sync_data(self.fd)
        last = 0
        for _ in range(count):
            data, index = self.unsynced.popleft()
            self.synced_size += len(data)
            last = index or last
        return last

    def write_again(self) -> None:
        """Write again what a failed sync may have dropped."""
        place = self.synced_size
        for data, _ in list(self.unsynced):
            rest = memoryview(data)
            while rest:
                written = os.pwrite(self.fd, rest, place)
                rest, place = rest[written:], place + written

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


_Job = Callable[["SegmentLog"], None]


@attrs.frozen
class _Write:
    """Something to write, and its last event."""

    record: bytes
    index: int

    def __call__(self, log: SegmentLog) -> None:
        log._write(self.record, self.index)


class SegmentLog:
    """A row of segment files, of which the last is open.

    All methods are for the loop's thread.

    Args:
        directory: Where the files are.
        disk: Whether what is safe is on the disk; else the system has it.
        post: Runs a function on the loop's thread; called from another one.
        on_safe: Called there when more is safe, with the index.
        on_failure: Called there once, with the error, when nothing can be written any more.
        say: Called from any thread with what people are to know.

    Attributes:
        index: The last event that was added.
        safe: The last event whose outputs may leave.
        synced: The last event that is on the disk.
        size: Bytes in the open segment, `first` its first event.
        syncs: How many times the disk was waited for.
        failure: Why nothing can be written any more, or None.
    """

    def __init__(
        self,
        directory: Directory,
        *,
        disk: bool,
        post: Callable[[Callable[[], None]], None],
        on_safe: Callable[[int], None],
        on_failure: Callable[[BaseException], None],
        say: Callable[[str], None],
    ) -> None:
        self.directory = directory
        self.disk = disk
        self.index = self.safe = self.synced = 0
        self.first = self.size = self.syncs = 0
        self.failure: BaseException | None = None
        self._post = post
        self._on_safe = on_safe
        self._on_failure = on_failure
        self._say = say
        self._secret: Secret
        self._writer: Writer
        self._file: _File
        self._thread: threading.Thread | None = None
        self._wake = threading.Condition()
        # What the thread is to do, in order. While it is behind, nothing is written past it.
        self._jobs: deque[_Job] = deque()
        self._behind = 0  # jobs that it has not done, as far as the loop has been told
        self._closing = False
        self._ending = threading.Event()
        self._rolled: deque[tuple[_File, Callable[[], None]]] = deque()

    # -- on the loop's thread

    def begin(self, description: Description) -> None:
        """Open the first segment of this life. Blocks until it is on the disk.

        Raises:
            OSError: It cannot be written.
        """
        self.index = self.safe = self.synced = description.first - 1
        self._secret = self.directory.own_secret()
        self._writer = Writer(self.index, description.chain, self._secret, description.seal)
        self._file = self._open(description)
        self.first, self.size = description.first, self._file.synced_size
        self._thread = threading.Thread(target=self._run, name="registry log", daemon=True)
        self._thread.start()

    @property
    def chain(self) -> int:
        """The sum of the last record."""
        return self._writer.chain

    @property
    def seal(self) -> bytes:
        """The seal of the last record."""
        return self._writer.seal

    def append(self, event: Event, outputs: list[Output], verdicts: Verdicts = ()) -> None:
        """Add an event that has been applied, with what came out of it."""
        self._writer.add(event, outputs, verdicts)
        self.index += 1

    @property
    def pending(self) -> int:
        """How many events were added since the last `commit`."""
        return len(self._writer)

    def commit(self) -> None:
        """End a turn: make a record of what was added, and write it or have it written."""
        if self.failure is not None or not len(self._writer):
            return
        index, record = self.index, self._writer.take(self.synced)
        self.size += len(record)
        if not (self.disk or self._behind):
            is_first = not self._file.unsynced
            try:
                record = self._file.write(record, index)
            except OSError as error:
                if error.errno not in NO_SPACE:
                    self._fail(error)
                    return
            if is_first:
                with self._wake:
                    self._wake.notify()  # it is to be synced in a while
            if not record:
                self._made_safe(index)
                return
        self._give(_Write(record, index))

    def roll(self, description: Description, closed: Callable[[], None]) -> None:
        """Go on in another segment; `closed` is called here once the one before is whole and on the disk."""
        self._writer = Writer(self.index, self._writer.chain, self._secret, self._writer.seal)
        self.first, self.size = description.first, 0
        self._give(lambda log: log._roll(description, closed))

    def when_synced(self, done: Callable[[], None]) -> None:
        """Call `done` here once all that was committed is on the disk."""

        def sync(log: SegmentLog) -> None:
            log._finish_closed()
            log._sync(log._file)
            log._post(done)

        self._give(sync)

    def close(self) -> None:
        """Write and sync all that was committed, and end. Blocks. `failure` tells whether that was possible."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
            for file in (self._file, *(rolled for rolled, _ in self._rolled)):
                file.close()

    def abandon(self) -> None:
        """In a forked child: let go of the parent's file."""
        self.failure = self.failure or OSError("it is the parent's")
        self._file.close()

    def _give(self, job: _Job) -> None:
        if self.failure is not None:
            return  # a segment that was begun now would continue what was never written
        with self._wake:
            self._behind += 1
            self._jobs.append(job)
            self._wake.notify()

    def _made_safe(self, index: int) -> None:
        self.safe = index
        self._on_safe(index)

    def _has_done(self, jobs: int) -> None:
        self._behind -= jobs

    def _fail(self, error: BaseException) -> None:
        if self.failure is None:
            self.failure = error
            self._on_failure(error)

    # -- on the thread

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as error:  # noqa: BLE001 - whatever it is, nothing may be acknowledged any more
            failure = self.failure = self.failure or error
            self._post(lambda: self._on_failure(failure))

    def _turn(self) -> bool:
        """Do what is to be done next; False when that was all for ever."""
        with self._wake:
            if not (self._jobs or self._closing or self._file.unsynced):
                self._wake.wait()
            if not (self._jobs or self._closing) and self._file.unsynced:
                self._wake.wait(SYNC)
            jobs, self._jobs = self._jobs, deque()
            closing = self._closing and not jobs
        if jobs:
            for job in _joined(jobs):
                job(self)
            self._post(lambda: self._has_done(len(jobs)))
        else:
            self._sync(self._file)
        self._finish_closed()
        return not closing

    def _finish_closed(self) -> None:
        """Have on the disk what was written before the open segment, which must not be there without it."""
        while self._rolled:
            file, closed = self._rolled.popleft()
            self._sync(file)
            file.close()
            self._post(closed)

    def _write(self, record: bytes, index: int) -> None:
        def write() -> None:
            nonlocal record
            while record:
                record = self._file.write(record, index)

        self._with_space(write)
        if self.disk:
            self._sync(self._file)
        self._post(lambda: self._made_safe(index))

    def _sync(self, file: _File) -> None:
        failed = False

        def sync() -> None:
            nonlocal failed
            if failed:
                file.write_again()
            failed = True
            self.synced = max(self.synced, file.sync())
            self.syncs += 1

        if file.unsynced:
            self._with_space(sync)

    def _roll(self, description: Description, closed: Callable[[], None]) -> None:
        before = self._file

        def open() -> None:
            self._file = self._open(structs.replace(description, synced=self.synced))

        self._with_space(open)
        self._rolled.append((before, closed))

    def _open(self, description: Description) -> _File:
        head = _format.pack_segment(description, self._secret)
        return _File(self.directory.open(self.directory.segment(description.first), head), len(head))

    def _with_space(self, attempt: Callable[[], None]) -> None:
        """Do something until there is space for it."""
        waited = False
        while True:
            try:
                attempt()
                break
            except OSError as error:
                if error.errno not in NO_SPACE or self._ending.is_set():
                    raise
                if not waited:
                    self._say(f"no space for the log in {self.directory.path}: replies wait until there is")
                waited = True
                self._ending.wait(RETRY)
        if waited:
            self._say(f"there is space for the log in {self.directory.path} again")


def _joined(jobs: Iterable[_Job]) -> Iterator[_Job]:
    """Make one write of those that follow each other."""
    records: list[bytes] = []
    index = 0
    for job in jobs:
        if isinstance(job, _Write):
            records.append(job.record)
            index = job.index
            continue
        if records:
            yield _Write(b"".join(records), index)
            records = []
        yield job
    if records:
        yield _Write(b"".join(records), index)
