"""The log as files: every byte is checked, and what cannot be trusted is refused, never served."""

from __future__ import annotations

import errno
import os
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
import pytest
from engine_driver import SEED, START
from msgspec import structs

from registry import _codec, _image, _plugins
from registry._addresses import EpochFile
from registry._engine import Engine
from registry._events import Begin, Call, Create, Event, Open, SessionEnded
from registry._log import Recovered, Store, _format, _recovery, _segments
from registry._log._files import Directory
from registry.errors import CodeChanged, RegistryError

LIFE = b"l" * 16


class Written:
    """A log with some events in it, as a server writes it, and the engine that has seen them."""

    def __init__(self, path: Path, *, disk: bool = False) -> None:
        self.path = path
        self.plugins = _plugins.load(["registry_containers", "registry_sync"])
        self.epoch = EpochFile(path / "epoch")
        self.safe: list[int] = []
        self.failures: list[BaseException] = []
        self.said: list[str] = []
        self.posted: list[Callable[[], None]] = []
        self.store = Store(
            path,
            self.epoch,
            self.plugins,
            disk=disk,
            post=self.posted.append,
            on_safe=self.safe.append,
            on_failure=self.failures.append,
            say=self.said.append,
        )

    def begin(self) -> Recovered:
        self.store.lock()
        found = self.store.recover()
        self.engine = found.engine
        number, life = self.epoch.begin(START)
        self.store.begin(number, life)
        self.feed(Begin(now=START, epoch=number, seed=SEED, life=life))
        return found

    def feed(self, event: Event) -> None:
        self.store.log.append(event, self.engine.step(event), self.engine.verdicts)

    def use(self, first: int, last: int) -> None:
        """Count from one call to another, each a record of its own."""
        if not self.engine.session_of(b"k" * 16):
            self.feed(Open(now=START, key=b"k" * 16, label="test", domain=""))
            self.feed(Create(now=START, session=1, seq=first, owner=1, typeid="counter", name="c", arguments=NOTHING))
            self.store.log.commit()
        for seq in range(first, last + 1):
            self.feed(
                Call(now=START + seq, session=1, seq=seq, owner=1, typeid="counter", name="c", method="incr",
                     arguments=NOTHING, received=seq - 1)
            )  # fmt: skip
            self.store.log.commit()

    def turn(self) -> None:
        """Do what was posted to the loop."""
        while self.posted:
            self.posted.pop(0)()

    def end(self, *, fold: bool) -> None:
        self.store.log.commit()
        self.store.stop()
        self.turn()
        if fold:
            self.store.take_picture(self.engine)()
        self.store.release()


NOTHING = _codec.encode([[], {}])


def written(path: Path, *, fold: bool = False, calls: int = 12) -> bytes:
    """Write a log and return the image of the state that it tells of."""
    log = Written(path)
    log.begin()
    log.use(1, calls)
    log.end(fold=fold)
    return _image.capture(log.engine)


def read(path: Path) -> Recovered:
    log = Written(path)
    return log.store.recover()


def only_segment(path: Path) -> Path:
    ((_, segment),) = Directory(path).segments()
    return segment


def offsets(data: bytes) -> list[tuple[int, int, int]]:
    """Return where the records of a segment begin and end, and their last events."""
    description, start = _format.read_segment(data)
    rows = _format.records(data, start, description.first - 1, description.chain)
    return [(record.offset, record.end, record.last) for record in rows]


def test_a_log_tells_the_state(tmp_path: Path) -> None:
    """What is recovered is equal to what was, remembered replies and all."""
    image = written(tmp_path)
    assert _image.capture(read(tmp_path).engine) == image


def test_a_clean_stop_leaves_nothing_to_replay(tmp_path: Path) -> None:
    """The snapshot is the state, down to the last byte of its image."""
    image = written(tmp_path, fold=True)
    found = read(tmp_path)
    assert (found.replayed, _image.capture(found.engine)) == (0, image)


def test_lives_follow_each_other(tmp_path: Path) -> None:
    """Each goes on where the one before has ended, whether that was clean or not."""
    for life in range(5):
        log = Written(tmp_path)
        log.begin()
        log.use(life * 4 + 1, life * 4 + 4)
        log.end(fold=life % 2 == 1)
        counter = log.engine.find("counter", "c")
        assert counter is not None and counter.instance.get() == (life + 1) * 4
    assert log.engine.epoch == 5 and len(log.engine.lives) == 5


@pytest.mark.parametrize("bit", [0, 7])
def test_a_flipped_bit_before_the_tail_is_found(tmp_path: Path, bit: int) -> None:
    """In whatever part of a record it is, the file and the place are named, and nothing is changed."""
    written(tmp_path)
    segment = only_segment(tmp_path)
    data = segment.read_bytes()
    rows = offsets(data)
    for place, (start, end, _) in enumerate(rows[:-1]):
        for at in (start, start + 5, start + 13, start + 24, start + 30, start + 34, start + 40, end - 1):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            segment.write_bytes(changed)
            with pytest.raises(RegistryError, match=rf"{segment} is damaged at byte {rows[place][0]}: "):
                read(tmp_path)
            assert segment.read_bytes() == changed
    head = bytearray(data)
    head[20] ^= 1 << bit
    segment.write_bytes(head)
    with pytest.raises(RegistryError, match=f"{segment} is damaged at byte 0: its head is damaged"):
        read(tmp_path)


def test_a_tail_that_was_cut_is_a_prefix(tmp_path: Path) -> None:
    """Wherever the last segment is cut, what is whole before that counts."""
    written(tmp_path)
    segment = only_segment(tmp_path)
    data = segment.read_bytes()
    rows = offsets(data)
    for size in range(len(data)):
        segment.write_bytes(data[:size])
        found = read(tmp_path)
        assert found.index == max((last for _, end, last in rows if end <= size), default=0)


def test_a_torn_tail_is_put_aside(tmp_path: Path) -> None:
    """The next life goes on from what is whole, and keeps the rest for people."""
    written(tmp_path)
    segment = only_segment(tmp_path)
    data = segment.read_bytes()
    start, _, last = offsets(data)[-1]
    segment.write_bytes(data[:-3])
    log = Written(tmp_path)
    assert log.begin().replayed == last - 1
    log.end(fold=False)
    assert segment.read_bytes() == data[:start]
    (torn,) = tmp_path.glob("*.torn")
    assert torn.read_bytes() == data[start:-3]
    assert read(tmp_path).index == last  # the beginning of that life


def test_nothing_below_the_head_is_lost(tmp_path: Path) -> None:
    """What the epoch file says had been there is there, or the log is refused."""
    written(tmp_path)
    segment = only_segment(tmp_path)
    data = segment.read_bytes()
    start, end, last = offsets(data)[5]
    record = _format.read_record(data, start)
    assert record is not None
    EpochFile(tmp_path / "epoch").record(last, record.sum)
    segment.write_bytes(data[:end])
    assert read(tmp_path).index == last
    for size in (end - 1, start, 100, 0):
        segment.write_bytes(data[:size])
        with pytest.raises(RegistryError, match=f"event {last} had been there"):
            read(tmp_path)
    segment.unlink()
    with pytest.raises(RegistryError, match=f"event {last} had been there"):
        read(tmp_path)


def test_after_a_loss_of_power_the_tail_may_have_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What had not been synced may be there in part; what had been synced is proved by what came later."""
    written(tmp_path)
    segment = only_segment(tmp_path)
    data = segment.read_bytes()
    start, _, last = offsets(data)[-3]
    hole = data[:start] + bytes(40) + data[start + 40 :]
    segment.write_bytes(hole)
    with pytest.raises(RegistryError, match="is whole"):
        read(tmp_path)
    monkeypatch.setattr(_recovery, "boot", lambda: "another")
    assert read(tmp_path).index == last - 1
    # The same hole before a record that was written when all of that was on the disk.
    writer = _format.Writer(last + 1, 0, Directory(tmp_path).own_secret())
    writer.add(SessionEnded(now=START, session=1), [])
    segment.write_bytes(hole + writer.take(synced=last))
    with pytest.raises(RegistryError, match="is whole"):
        read(tmp_path)


def test_a_loss_of_power_may_leave_a_segment_without_the_end_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut between two records or within one: what follows is put aside, unless that had all been on the disk."""
    log = Written(tmp_path)
    log.begin()
    log.use(1, 4)
    log.store.roll(lambda upto: None)
    log.use(5, 6)
    log.end(fold=False)
    (_, first), (_, second) = Directory(tmp_path).segments()
    data, behind = first.read_bytes(), second.read_bytes()
    secret = Directory(tmp_path).own_secret()
    head, offset = _format.read_segment(behind)
    start, end, last = offsets(data)[-2]
    for length, index in ((end, last), (start + 10, last - 1)):
        first.write_bytes(data[:length])
        for synced in (index, index + 1):
            second.write_bytes(_format.pack_segment(structs.replace(head, synced=synced), secret) + behind[offset:])
            with pytest.raises(RegistryError, match="there are later ones in|what came before event"):
                read(tmp_path)
            with monkeypatch.context() as elsewhere:
                elsewhere.setattr(_recovery, "boot", lambda: "another")
                if synced > index:
                    with pytest.raises(RegistryError, match="there are later ones in|what came before event"):
                        read(tmp_path)
                else:
                    found = read(tmp_path)
                    assert (found.index, found.beyond) == (index, [second])
    second.write_bytes(_format.pack_segment(structs.replace(head, synced=0), secret) + behind[offset:])
    monkeypatch.setattr(_recovery, "boot", lambda: "another")
    after = Written(tmp_path)
    after.begin()
    after.end(fold=False)
    assert [path.name for path in tmp_path.glob(f"{second.name}*.torn")]
    assert _image.capture(read(tmp_path).engine) == _image.capture(after.engine)


def test_a_damaged_snapshot_is_passed_over(tmp_path: Path) -> None:
    """The one before it and what followed give the same state; without that, it is refused."""
    written(tmp_path, fold=True)
    log = Written(tmp_path)
    log.begin()
    log.use(13, 20)
    log.end(fold=True)
    (_, older), (_, newest) = Directory(tmp_path).snapshots()
    newest.write_bytes(newest.read_bytes()[:-1] + b"\0")
    found = read(tmp_path)
    assert _image.capture(found.engine) == _image.capture(log.engine)
    assert len(found.warnings) == 1 and str(newest) in found.warnings[0]
    older.unlink()
    with pytest.raises(RegistryError, match="what lies between is missing|begins with event"):
        read(tmp_path)


def test_a_missing_segment_is_found(tmp_path: Path) -> None:
    """What comes before or after the gap names it; so does a segment that was cut in the middle of the row."""
    for life in range(3):
        log = Written(tmp_path)
        log.begin()
        log.use(life * 4 + 1, life * 4 + 4)
        log.end(fold=False)
    (_, first), (_, second), _ = Directory(tmp_path).segments()
    content = second.read_bytes()
    second.unlink()
    with pytest.raises(RegistryError, match="it continues another log, or what came before event"):
        read(tmp_path)
    second.write_bytes(content[:-5])
    with pytest.raises(RegistryError, match=f"{second} is damaged at byte .* there are later ones"):
        read(tmp_path)
    second.write_bytes(content)
    first.unlink()
    with pytest.raises(RegistryError, match="what lies between is missing"):
        read(tmp_path)


def test_other_code_replays_nothing(tmp_path: Path) -> None:
    """An unclean end wants the code that it came from; after a clean stop there is nothing to want it for."""
    image = written(tmp_path)
    log = Written(tmp_path)
    log.store.code = {**log.store.code, "plugin registry_sync": "2.0"}
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CodeChanged, match=r"plugin registry_sync was .* and is 2\.0\. Run that code once more"):
        log.store.recover()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    again = Written(tmp_path)
    again.begin()
    again.end(fold=True)
    assert _image.capture(log.store.recover().engine) == _image.capture(again.engine) != image


def test_one_server_has_a_directory(tmp_path: Path) -> None:
    """A second one is refused, naming who has it, until the first lets go."""
    log, other = Written(tmp_path), Written(tmp_path)
    log.begin()
    with pytest.raises(OSError, match=f"is in use by pid {os.getpid()}"):
        other.store.lock()
    log.end(fold=False)
    other.begin()
    other.end(fold=False)


def test_nothing_is_safe_before_the_disk_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `disk` an event is safe after a sync that began when it had been written."""
    written_by_sync: list[int] = []

    def sync(fd: int) -> None:
        written_by_sync.append(os.fstat(fd).st_size)
        os.fsync(fd)

    monkeypatch.setattr(_segments, "_sync_data", sync)
    log = Written(tmp_path, disk=True)
    log.begin()
    log.use(1, 3)
    assert log.safe == []
    log.end(fold=False)
    data = only_segment(tmp_path).read_bytes()
    assert written_by_sync[-1] == len(data)
    assert log.safe[-1] == log.engine.index and log.safe == sorted(log.safe)


@pytest.mark.parametrize("disk", [False, True])
def test_replies_wait_for_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: bool) -> None:
    """A full disk holds what is written then and later, in order; nothing is lost, and it goes on."""
    log = Written(tmp_path, disk=disk)
    log.begin()
    log.store.log.commit()
    full = [True]
    attempts: list[int] = []
    write = os.write

    def writing(fd: int, data: bytes) -> int:
        if full[0] and fd == log.store.log._file.fd:
            attempts.append(fd)
            if len(attempts) == 1:
                return write(fd, data[:10])  # the last that there is space for
            if len(attempts) > 3:
                full[0] = False
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data)

    monkeypatch.setattr(_segments, "RETRY", 0.001)
    monkeypatch.setattr(os, "write", writing)
    safe = list(log.safe)
    log.use(1, 5)
    if not disk:
        assert log.safe == safe
    while full[0]:
        pass
    log.end(fold=False)
    assert not log.failures
    assert log.safe[-1] == log.engine.index
    assert [text for text in log.said if "no space" in text]
    assert _image.capture(read(tmp_path).engine) == _image.capture(log.engine)


@pytest.mark.parametrize("disk", [False, True])
def test_after_an_error_nothing_is_safe_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: bool) -> None:
    """The error is told once, and what is added later is not acknowledged."""
    log = Written(tmp_path, disk=disk)
    log.begin()
    log.use(1, 2)
    log.store.log.when_synced(lambda: None)
    while not log.safe or log.safe[-1] < log.engine.index:
        log.turn()
    safe = log.safe[-1]

    def broken(fd: int, data: bytes) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", broken)
        log.use(3, 4)
        while not log.failures:
            log.turn()
    log.use(5, 6)
    log.end(fold=False)
    assert (log.safe[-1], len(log.failures)) == (safe, 1)
    assert read(tmp_path).index >= safe


def test_a_sync_without_space_writes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may have dropped what it could not write."""
    path = tmp_path / "file"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    file = _segments._File(fd, 0)
    file.write(b"one", 1)
    file.write(b"two", 2)
    path.write_bytes(bytes(6))
    file.write_again()
    assert path.read_bytes() == b"onetwo"
    assert (file.sync(), file.synced_size, len(file.unsynced)) == (2, 6, 0)
    file.close()


def test_segments_follow_each_other(tmp_path: Path) -> None:
    """A segment is closed while events go on, and whole on the disk when that is said."""
    log = Written(tmp_path)
    log.begin()
    log.use(1, 3)
    closed: list[int] = []
    index = log.engine.index
    log.store.roll(closed.append)
    log.use(4, 6)
    while not closed:
        log.turn()
    assert closed == [index]
    log.end(fold=False)
    assert len(Directory(tmp_path).segments()) == 2
    assert _image.capture(read(tmp_path).engine) == _image.capture(log.engine)


def test_a_closed_segment_is_on_the_disk_before_what_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for the disk waits for all: a later segment there without an earlier one would be taken for damage."""
    synced: list[int] = []
    go = threading.Event()
    monkeypatch.setattr(_segments, "_sync_data", lambda fd: synced.append(os.fstat(fd).st_ino))
    log = Written(tmp_path)
    log.begin()

    def stand_still(log: _segments.SegmentLog) -> None:
        go.wait(20)

    log.store.log._give(stand_still)
    log.use(1, 4)
    log.store.roll(lambda upto: None)
    log.use(5, 6)
    log.store.log.when_synced(lambda: None)
    go.set()
    log.end(fold=False)
    assert synced == [path.stat().st_ino for _, path in Directory(tmp_path).segments()]


def test_what_may_not_be_on_the_disk_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments before the last one too: their server may have been killed when it had not yet synced them."""
    log = Written(tmp_path)
    log.begin()
    log.use(1, 4)
    log.store.roll(lambda upto: None)
    log.use(5, 6)
    log.end(fold=False)
    put: list[Path] = []
    real = Directory.put

    def noted(self: Directory, path: Path, parts: Iterable[bytes | memoryview]) -> None:
        put.append(path)
        real(self, path, parts)

    monkeypatch.setattr(Directory, "put", noted)
    segments = [path for _, path in Directory(tmp_path).segments()]
    description, _ = _format.read_segment(segments[1].read_bytes())
    after = Written(tmp_path)
    after.begin()
    # The second one says how far the first was on the disk when it was begun.
    assert put == (segments if description.synced < description.first - 1 else segments[1:])
    after.end(fold=False)
    put.clear()
    last = Written(tmp_path)
    found = last.begin()
    assert found.unsure == []
    assert _image.capture(found.engine) != _image.capture(Engine(found.engine.declarations))
    last.end(fold=False)
    assert put == [Directory(tmp_path).segments()[2][1]]


def test_a_verdict_is_replayed() -> None:
    """What ended a method for want of memory is not tried again: the object is stopped, as it was."""
    plugins = _plugins.load(["registry_containers"])
    first, second = Engine(plugins.declarations), Engine(plugins.declarations)
    events: list[tuple[Event, tuple[tuple[int, str], ...]]] = []

    def feed(event: Event) -> list[object]:
        outputs = first.step(event)
        events.append((event, first.verdicts))
        return [outputs]

    feed(Begin(now=START, epoch=1, seed=SEED, life=LIFE))
    feed(Open(now=START, key=b"k" * 16, label="", domain=""))
    feed(Create(now=START, session=1, seq=1, owner=1, typeid="counter", name="c", arguments=NOTHING))
    counter = first.find("counter", "c")
    assert counter is not None

    def fails(*args: object) -> None:
        raise MemoryError

    counter.methods["incr"] = fails
    feed(Call(now=START, session=1, seq=1, owner=1, typeid="counter", name="c", method="incr", arguments=NOTHING))
    assert events[-1][1] == ((1, "MemoryError"),)
    for event, verdicts in events:
        second.step(event, verdicts)
        assert second.verdicts == verdicts
    assert _image.capture(second) == _image.capture(first)
    stopped = second.find("counter", "c")
    assert stopped is not None and stopped.stopped == "MemoryError in incr()"


def test_nothing_overtakes_what_a_thread_still_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the thread has done what it was given first does not mean that it has done what came then."""
    log = Written(tmp_path)
    log.begin()
    log.store.log.commit()
    log.store.log.when_synced(lambda: None)
    while len(log.posted) < 2:
        pass  # the loop has not heard of it
    writes, go_on = threading.Event(), threading.Event()
    write = os.write

    def writing(fd: int, data: bytes) -> int:
        if threading.current_thread() is not threading.main_thread():
            writes.set()
            go_on.wait(30)
        return write(fd, data)

    monkeypatch.setattr(os, "write", writing)
    log.use(1, 1)
    assert writes.wait(30)
    log.turn()
    log.use(2, 3)
    go_on.set()
    log.end(fold=False)
    assert log.safe[-1] == log.engine.index and log.safe == sorted(log.safe)
    assert _image.capture(read(tmp_path).engine) == _image.capture(log.engine)


def test_after_an_error_no_segment_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would continue a record that was never written, and the log would be refused as a damaged one."""
    log = Written(tmp_path)
    log.begin()
    log.use(1, 2)
    index = log.engine.index

    def broken(fd: int, data: bytes) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", broken)
        log.use(3, 3)
    log.store.roll(lambda index: None)
    log.end(fold=False)
    assert len(log.failures) == len(Directory(tmp_path).segments()) == 1
    assert read(tmp_path).index == index


@pytest.mark.parametrize("what", ["write", "fsync", "replace"])
def test_half_a_file_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """It would take the space that there is too little of; the error names the file."""
    directory = Directory(tmp_path, 3)
    path = directory.snapshot(7)

    def broken(*args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, what, broken)
    with pytest.raises(OSError, match=rf"No space left on device: '{path}\.3\.new'"):
        directory.put(path, [b"one", b"two"])
    if what != "fsync":
        with pytest.raises(OSError, match=rf"No space left on device: '{path}\.3\.new'"):
            directory.open(path, b"one")
    assert list(tmp_path.iterdir()) == []


def test_two_lives_do_not_write_into_one_file(tmp_path: Path) -> None:
    """A process that folds outlives a server that is killed, and the next server may have the same folded."""
    path = Directory(tmp_path).snapshot(7)

    def parts() -> Iterator[bytes]:
        yield b"one"
        Directory(tmp_path, 2).put(path, [b"another"])
        yield b"two"

    Directory(tmp_path, 1).put(path, parts())
    assert [(each, each.read_bytes()) for each in tmp_path.iterdir()] == [(path, b"onetwo")]


def test_what_was_half_written_is_removed(tmp_path: Path) -> None:
    """Whatever it was to become; and nothing else."""
    written(tmp_path)
    left = ["{}.snapshot.4.new", "{}.segment.4.new", "{}.segment.4.torn.4.new", "{}.snapshot.new"]
    for name in left:
        (tmp_path / name.format("0" * 19 + "9")).write_bytes(b"half")
    (tmp_path / "mine.new").write_bytes(b"whole")
    log = Written(tmp_path)
    log.begin()
    log.end(fold=False)
    assert [path.name for path in tmp_path.glob("*.new")] == ["mine.new"]


def test_a_start_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a thread nor a lock: it can be tried again, in the same process too."""
    written(tmp_path)
    log = Written(tmp_path)

    def broken(*args: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "ftruncate", broken)
        with pytest.raises(OSError, match=f"Input/output error: '{tmp_path / 'lock'}'"):
            log.begin()
    with monkeypatch.context() as patched:
        patched.setattr(EpochFile, "record", broken)
        with pytest.raises(OSError, match="Input/output error"):
            log.begin()
    log.store.release()
    assert not [thread for thread in threading.enumerate() if thread.name == "registry log"]
    again = Written(tmp_path)
    again.begin()
    again.end(fold=True)


@pytest.mark.parametrize("text", [b"\xa3\xff\xff\xff", b"\xa1\x80"])
def test_a_head_that_is_no_text_where_one_should_be_is_refused(text: bytes) -> None:
    """Although its sum is right, as of a head that a faulty writer has written."""
    description = _format.Description(1, 1, 0, 0, "boot", {}, bytes(16), 1, 1.0)
    head = msgspec.msgpack.encode(description).replace(
        msgspec.msgpack.encode(
            "boot",
        )
        + b"\xa4code",
        text + b"\xa4code",
    )
    data = _format._LENGTH.pack(_format.UNSEALED_SEGMENT, len(head)) + head
    with pytest.raises(_format.Unreadable, match="of another version"):
        _format.read_segment(data + _format._SUM.pack(zlib.crc32(data)))
