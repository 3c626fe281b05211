"""What is done with a log as files: checked as a whole, backed up, put back, shown."""

from __future__ import annotations

import io
import itertools
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from engine_driver import START
from test_log import NOTHING, Written, offsets, read, written

from registry import _codec, _image, _plugins
from registry._addresses import EpochFile
from registry._events import Call
from registry._leaves import Carried
from registry._log import _backup, _check, _dump, _format, _recovery, _restore, _store
from registry._log._backup import Backup
from registry._log._files import Directory, Held
from registry.errors import RegistryError

pytestmark = pytest.mark.once

PLUGINS = ["registry_containers", "registry_sync"]


def lives(path: Path, count: int = 3, calls: int = 6) -> bytes:
    """Write a log of some lives, of which each but the last ends in order; return the image of the last state."""
    for life in range(count):
        log = Written(path)
        log.begin()
        log.use(life * calls + 1, (life + 1) * calls)
        log.end(fold=life + 1 < count)
    return _image.capture(log.engine)


BESIDE = ("epoch", "secret")  # what is in the directory and no file of the log


def content(path: Path) -> dict[str, bytes]:
    """Return all files below a directory, but for locks."""
    return {
        str(each.relative_to(path)): each.read_bytes()
        for each in sorted(path.rglob("*"))
        if each.is_file() and each.name != "lock"
    }


def head(path: Path) -> tuple[int, int]:
    life = EpochFile(path / "epoch").read()
    return (life.head, life.chain) if life is not None else (0, 0)


def checked(path: Path, plugins: Any = PLUGINS) -> _check.Checked:
    loaded = _plugins.load(plugins) if plugins is not None else None
    return _check.check(Directory(path), head(path), loaded)


def backed_up(path: Path, target: Path) -> _backup.Manifest:
    known = EpochFile(path / "epoch").read()
    return _backup.write(Directory(path), target, head=head(path), epoch=known.number if known else 0)


def put_back(backup: Path, path: Path) -> Path | None:
    path.mkdir(exist_ok=True)
    source = Backup(backup)
    manifest = source.manifest
    try:
        return _restore.restore(
            source, manifest.index, manifest.chain, manifest.epoch, Directory(path), EpochFile(path / "epoch")
        ).aside
    finally:
        source.close()


# -- checks


def test_a_check_reads_and_replays_everything(tmp_path: Path) -> None:
    """Each snapshot is compared with what leads to it, the state is told by its hash, and nothing is changed."""
    image = lives(tmp_path)
    before = content(tmp_path)
    found = checked(tmp_path)
    assert content(tmp_path) == before
    assert (found.failures, found.skipped, found.torn) == ([], [], 0)
    assert found.hash == _check.hashed(image)
    # What led to the older of the two snapshots is not kept any more.
    assert [each.agrees for each in found.snapshots.values()] == [None, True]
    assert found.first == min(found.snapshots) + 1
    assert found.replayed == found.index + 1 - found.first
    size = sum(len(data) for name, data in before.items() if name not in BESIDE)
    assert found.bytes == size


def test_what_a_newer_snapshot_covers_is_checked_too(tmp_path: Path) -> None:
    """A start does not look at it any more, and a check names file and offset in whichever file it is."""
    lives(tmp_path)
    for path in [path for _, path in (*Directory(tmp_path).segments(), *Directory(tmp_path).snapshots())]:
        data = path.read_bytes()
        for at in range(0, len(data), 97):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            if path == Directory(tmp_path).segments()[-1][1] and at >= offsets(data)[-1][0]:
                continue  # the last record: nothing proves that it had been whole
            with pytest.raises(RegistryError, match=rf"{path} is damaged at byte \d+: "):
                checked(tmp_path)
        path.write_bytes(data)
    assert not checked(tmp_path).failures


def test_missing_files_are_found(tmp_path: Path) -> None:
    """A segment between, what a segment continues, or what is known to have been there."""
    log = Written(tmp_path)
    log.begin()
    for seq in (1, 2, 3):
        log.use(seq, seq)
        log.store.close_segment(lambda index: None)
    log.end(fold=True)
    (_, first), (_, second), *_ = Directory(tmp_path).segments()
    ((_, snapshot),) = Directory(tmp_path).snapshots()
    kept = content(tmp_path)
    second.unlink()
    with pytest.raises(RegistryError, match="is damaged at byte 0: it continues another log, or what came before"):
        checked(tmp_path)
    second.write_bytes(kept[second.name])
    first.unlink()
    assert checked(tmp_path).first > 1  # the snapshot covers it
    snapshot.unlink()
    with pytest.raises(RegistryError, match="the newest snapshot that can be used is that of event 0: what lies betw"):
        checked(tmp_path)
    first.write_bytes(kept[first.name])
    assert checked(tmp_path).failures == []
    EpochFile(tmp_path / "epoch").record(10_000, 1)
    with pytest.raises(RegistryError, match="and event 10000 had been there"):
        checked(tmp_path)


def test_a_snapshot_of_another_state_is_named(tmp_path: Path) -> None:
    """It is whole, and what it holds is not what the events lead to."""
    lives(tmp_path)
    index, path = Directory(tmp_path).snapshots()[-1]
    picture, image = _format.read_snapshot(path.read_bytes())
    secret = Directory(tmp_path).own_secret()
    engine = _image.restore(_plugins.load(PLUGINS).declarations, bytes(image))
    counter = engine.find("counter", "c")
    assert counter is not None
    counter.instance.incr()
    path.write_bytes(b"".join(map(bytes, _format.pack_snapshot(picture, _image.capture(engine), secret))))
    found = checked(tmp_path)
    assert found.snapshots[index].agrees is False
    assert f"{path} has not the state that the events lead to" in found.failures[0]


def test_an_event_that_gives_something_else_is_named(tmp_path: Path) -> None:
    """What came out of it is not what is logged with it."""
    log = Written(tmp_path)
    log.begin()
    log.use(1, 2)
    call = Call(now=START, session=1, seq=3, owner=1, typeid="counter", name="c", method="incr", arguments=NOTHING)
    log.engine.step(call)
    log.store.log.append(call, [], ())
    log.end(fold=False)
    (failure,) = checked(tmp_path).failures
    assert f"event {log.engine.index}, counter:c.incr(), gave another result" in failure


def test_without_the_code_the_bytes_are_checked(tmp_path: Path) -> None:
    """What could not be replayed is told, with what differs; damage is found all the same."""
    lives(tmp_path)
    found = checked(tmp_path, ["registry_containers", "registry_queues"])
    assert (found.hash, found.replayed, found.failures) == ("", 0, [])
    assert "plugin registry_queues was not there and is" in found.skipped[0]
    assert "other code has brought them about" in found.skipped[0]
    assert (checked(tmp_path, None).replayed, checked(tmp_path, None).skipped) == (0, [])
    path = Directory(tmp_path).segments()[0][1]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RegistryError, match=f"{path} is damaged"):
        checked(tmp_path, None)


def test_a_torn_tail_is_no_damage(tmp_path: Path) -> None:
    """It is told, and left to the next start."""
    written(tmp_path)
    path = Directory(tmp_path).segments()[-1][1]
    data = path.read_bytes()
    start, end, last = offsets(data)[-1]
    path.write_bytes(data[:-3])
    found = checked(tmp_path)
    assert (found.index, found.torn) == (last - 1, end - start - 3)
    assert path.read_bytes() == data[:-3]


# -- files that a server writes on


def test_files_are_held_though_they_are_removed(tmp_path: Path) -> None:
    """What was there at the moment stays readable, and what comes later is not seen."""
    image = lives(tmp_path)
    index = read(tmp_path).index
    before = content(tmp_path)
    held = Held(tmp_path, index)
    for _, path in (*Directory(tmp_path).segments(), *Directory(tmp_path).snapshots()):
        path.unlink()
    (tmp_path / f"{index + 1:020d}.segment").write_bytes(b"of later")
    assert {path.name: held.read(path) for _, path in (*held.segments(), *held.snapshots())} == {
        name: data for name, data in before.items() if name not in BESIDE
    }
    found = _check.check(held, (index, read_chain(before)), _plugins.load(PLUGINS), upto=index)
    assert found.hash == _check.hashed(image)
    held.close()


def read_chain(files: dict[str, bytes]) -> int:
    data = files[max(name for name in files if name.endswith(".segment"))]
    description, start = _format.read_segment(data)
    return [record.sum for record in _format.records(data, start, description.first - 1, description.chain)][-1]


def test_closed_segments_are_folded_with_those_that_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the segment is closed for a backup, the log is folded when it has grown; none is closed empty."""
    monkeypatch.setattr(_store, "SEGMENT_EVENTS", 30)
    log = Written(tmp_path)
    log.begin()
    closed: list[int] = []
    grown = []
    for seq in range(1, 40):
        log.use(seq, seq)
        log.store.close_segment(closed.append)
        log.store.close_segment(closed.append)
        grown.append(log.store.is_full)
    assert grown.index(True) == 27 and all(grown[27:])
    log.store.roll(closed.append)
    assert not log.store.is_full
    log.end(fold=False)
    assert closed == sorted(closed) and len(set(closed)) == 39
    assert len(Directory(tmp_path).segments()) == 40
    assert read(tmp_path).index == log.engine.index


def test_all_is_on_the_disk_when_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what is in a segment that was closed in the same moment."""
    log = Written(tmp_path)
    log.begin()
    log.use(1, 3)
    synced: list[int] = []
    monkeypatch.setattr("registry._log._segments._sync_data", synced.append)
    fd = log.store.log._file.fd
    with log.store.log._wake:  # the thread finds both at once
        log.store.roll(lambda index: None)
        log.store.log.when_synced(lambda: log.said.append(f"synced {fd in synced}"))
    while not log.said:
        log.turn()
    assert log.said == ["synced True"]
    log.end(fold=False)


# -- backups


def test_a_backup_is_the_state(tmp_path: Path) -> None:
    """Put in place elsewhere it is equal, with a snapshot and what follows; its manifest says so."""
    image = lives(tmp_path / "a")
    manifest = backed_up(tmp_path / "a", tmp_path / "b.tar")
    assert (tmp_path / "b.tar").stat().st_mode & 0o777 == 0o600
    assert put_back(tmp_path / "b.tar", tmp_path / "c") is None
    found = read(tmp_path / "c")
    assert _image.capture(found.engine) == image
    assert (found.index, found.snapshot) == (manifest.index, manifest.snapshot)
    assert [each.name for each in manifest.files] == sorted(
        name for name in content(tmp_path / "c") if name not in BESIDE
    )[::1]
    with tarfile.open(tmp_path / "b.tar") as tar:  # as any tool reads it
        assert tar.getnames() == [*(each.name for each in manifest.files), "manifest"]


def test_a_backup_after_a_clean_stop_is_a_snapshot(tmp_path: Path) -> None:
    """There is nothing to replay."""
    image = written(tmp_path / "a", fold=True)
    manifest = backed_up(tmp_path / "a", tmp_path / "b.tar")
    assert [each.name for each in manifest.files] == [f"{manifest.index:020d}.snapshot"]
    put_back(tmp_path / "b.tar", tmp_path / "c")
    found = read(tmp_path / "c")
    assert (_image.capture(found.engine), found.replayed) == (image, 0)
    log = Written(tmp_path / "c")
    log.begin()
    log.use(20, 22)
    log.end(fold=False)
    assert read(tmp_path / "c").index > manifest.index


def test_a_torn_tail_is_not_backed_up(tmp_path: Path) -> None:
    """The backup ends with the last whole record."""
    written(tmp_path / "a")
    path = Directory(tmp_path / "a").segments()[-1][1]
    path.write_bytes(path.read_bytes()[:-3])
    manifest = backed_up(tmp_path / "a", tmp_path / "b.tar")
    put_back(tmp_path / "b.tar", tmp_path / "c")
    assert read(tmp_path / "c").index == manifest.index
    assert checked(tmp_path / "c").torn == 0


def test_a_backup_does_without_a_damaged_snapshot(tmp_path: Path) -> None:
    """Where an older one and what follows it are there; it is told."""
    image = lives(tmp_path / "a", 3)
    *_, (_, path) = Directory(tmp_path / "a").snapshots()
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    told: list[str] = []
    manifest = _backup.write(Directory(tmp_path / "a"), tmp_path / "b.tar", head=head(tmp_path / "a"), warn=told.append)
    assert told == [f"{path} cannot be used: it is damaged; an older snapshot is used"]
    put_back(tmp_path / "b.tar", tmp_path / "c")
    assert _image.capture(read(tmp_path / "c").engine) == image
    assert len(manifest.files) == 3


def test_damage_is_not_backed_up(tmp_path: Path) -> None:
    """It is named, and no file is left."""
    written(tmp_path / "a")
    path = Directory(tmp_path / "a").segments()[0][1]
    data = path.read_bytes()
    start = offsets(data)[2][0]
    path.write_bytes(data[:start] + b"X" + data[start + 1 :])
    with pytest.raises(RegistryError, match=f"{path} is damaged at byte {start}"):
        backed_up(tmp_path / "a", tmp_path / "b.tar")
    path.write_bytes(data[: offsets(data)[1][1]])
    EpochFile(tmp_path / "a" / "epoch").record(offsets(data)[5][2], 1)
    with pytest.raises(RegistryError, match="does not hold what it held"):
        backed_up(tmp_path / "a", tmp_path / "b.tar")
    (tmp_path / "none").mkdir()
    with pytest.raises(RegistryError, match="there are no events in"):
        _backup.write(Directory(tmp_path / "none"), tmp_path / "b.tar")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "none"]


def test_a_file_is_replaced_only_by_force(tmp_path: Path) -> None:
    """Whatever it is; with force it is replaced at once, by what is whole."""
    written(tmp_path / "a")
    (tmp_path / "b.tar").write_text("mine")
    with pytest.raises(FileExistsError):
        backed_up(tmp_path / "a", tmp_path / "b.tar")
    with pytest.raises(FileExistsError):
        _backup._name(tmp_path / "a" / "epoch", tmp_path / "b.tar")
    assert (tmp_path / "b.tar").read_text() == "mine"
    _backup.write(Directory(tmp_path / "a"), tmp_path / "b.tar", force=True)
    Backup(tmp_path / "b.tar").close()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "b.tar"]


def refused(backup: Path, target: Path, match: str = "") -> None:
    """A backup is refused, and nothing is done."""
    before = content(target)
    with pytest.raises(RegistryError, match=rf"{backup} cannot be restored: .*{match}.*\. Nothing was changed"):
        put_back(backup, target)
    assert content(target) == before


def test_no_damaged_backup_is_restored(tmp_path: Path) -> None:
    """Whatever bit is flipped: it is refused, or it says nothing (the padding of a tar) and the state is the same."""
    image = lives(tmp_path / "a", 2)
    backed_up(tmp_path / "a", tmp_path / "b.tar")
    written(tmp_path / "c", calls=3)
    data = (tmp_path / "b.tar").read_bytes()
    harmless = 0
    for at in range(0, data.rindex(b"\n"), 61):
        (tmp_path / "b.tar").write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        try:
            Backup(tmp_path / "b.tar").close()
        except RegistryError as error:
            assert "cannot be restored: " in str(error) and "Nothing was changed" in str(error)
            continue
        harmless += 1
        shutil.rmtree(tmp_path / "d", ignore_errors=True)
        put_back(tmp_path / "b.tar", tmp_path / "d")
        assert _image.capture(read(tmp_path / "d").engine) == image
    assert harmless < 40  # of the padding behind each member, and fields of the tar that say nothing
    end = data.rindex(b"\n") + 1
    for size in (0, 1, 511, 512, 700, end // 2, end - 1, end - 30):
        (tmp_path / "b.tar").write_bytes(data[:size])
        refused(tmp_path / "b.tar", tmp_path / "c")


def packed(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_what_is_no_backup_is_not_restored(tmp_path: Path) -> None:
    """Other files, other tars, members with paths, a manifest that lists something else, another format."""
    written(tmp_path / "a")
    manifest = backed_up(tmp_path / "a", tmp_path / "b.tar")
    with tarfile.open(tmp_path / "b.tar") as tar:
        members = [(each.name, tar.extractfile(each).read()) for each in tar]  # type: ignore[union-attr]
    other, target = tmp_path / "o.tar", tmp_path / "t"
    target.mkdir()

    def says(**changes: Any) -> tuple[str, bytes]:
        line = msgspec.json.encode(msgspec.structs.replace(manifest, **changes))
        return "manifest", line + b"\n" + _backup._hash(line).encode() + b"\n"

    (tmp_path / "o.tar").write_bytes(b"a text, not a tar " * 100)
    refused(other, target)
    refused(packed(other), target, "it has no manifest")
    refused(packed(other, ("etc/passwd", b"x")), target, "it has no manifest; it is cut off, or no backup")
    refused(packed(other, *members[:-1]), target, "it has no manifest")
    refused(packed(other, members[-1]), target, "what is in it is not what its manifest lists")
    refused(packed(other, *members, ("more", b"")), target, "what is in it is not what its manifest lists")
    refused(packed(other, *members[:-1], says(format=9)), target, "it is of format 9, and this version reads format 1")
    refused(packed(other, *members[:-1], says(index=3)), target, "and says that it ends with event 3")
    (name, data) = members[0]
    evil = _backup.Member("../../evil.segment", len(data), _backup._hash(data))
    refused(packed(other, (evil.name, data), says(files=[evil])), target, "is no file of a log")
    end = offsets(data)[3][1]
    cut = _backup.Member(name, end, _backup._hash(data[:end]))
    refused(packed(other, (name, data[:end]), says(files=[cut])), target, "it ends with event")
    start = offsets(data)[2][0]
    bad = data[:start] + b"X" + data[start + 1 :]
    refused(packed(other, (name, bad), says(files=[_backup.Member(name, len(bad), _backup._hash(bad))])), target, "dam")


# -- what is put in place


def test_the_old_log_is_kept_aside(tmp_path: Path) -> None:
    """Under the next free name; it can be put back in turn."""
    first = lives(tmp_path / "a", 2)
    backed_up(tmp_path / "a", tmp_path / "b.tar")
    lives(tmp_path / "c", 1, calls=9)
    second = _image.capture(read(tmp_path / "c").engine)
    files = {name: data for name, data in content(tmp_path / "c").items() if name not in BESIDE}
    aside = put_back(tmp_path / "b.tar", tmp_path / "c")
    assert aside == tmp_path / "c" / "before-restore-1"
    assert content(aside) == files
    assert _image.capture(read(tmp_path / "c").engine) == first
    source = Directory(aside)
    source.judged_by(None)
    index, chain, epoch = _recovery.reach(source)
    again = _restore.restore(
        source, index, chain, epoch, Directory(tmp_path / "c"), EpochFile(tmp_path / "c" / "epoch")
    )
    assert again.own and again.aside == tmp_path / "c" / "before-restore-2"
    assert _image.capture(read(tmp_path / "c").engine) == second


@pytest.mark.parametrize(("there", "backed"), [(1, 3), (5, 2), (0, 2)])
def test_epochs_only_grow(tmp_path: Path, there: int, backed: int) -> None:
    """Whatever has counted more, the place or the backup: the next life has a higher number, and higher tokens."""
    lives(tmp_path / "a", backed)
    manifest = backed_up(tmp_path / "a", tmp_path / "b.tar")
    if there:
        lives(tmp_path / "c", there)
    put_back(tmp_path / "b.tar", tmp_path / "c")
    assert read(tmp_path / "c").index == manifest.index
    log = Written(tmp_path / "c")
    log.begin()
    number = log.engine.epoch
    assert number > max(there, backed) + _restore.STEP
    assert log.engine.next_token() > number << 40
    log.end(fold=True)
    log = Written(tmp_path / "c")
    log.begin()
    assert log.engine.epoch > number
    log.end(fold=True)


def test_a_damaged_epoch_file_is_refused(tmp_path: Path) -> None:
    """Nobody can tell which tokens have been given out; nothing is changed."""
    lives(tmp_path / "a", 2)
    backed_up(tmp_path / "a", tmp_path / "b.tar")
    lives(tmp_path / "c", 2)
    (tmp_path / "c" / "epoch").write_bytes(b"x" * 4096)
    before = content(tmp_path / "c")
    with pytest.raises(RegistryError, match="both records of .* are damaged, so that fencing tokens could come twice"):
        put_back(tmp_path / "b.tar", tmp_path / "c")
    assert content(tmp_path / "c") == before


STEPS = [
    (Path, "rename"),
    (Path, "unlink"),
    (Path, "rmdir"),
    (Path, "mkdir"),
    (os, "replace"),
    (os, "fsync"),
    (os, "open"),
]


def stopping(monkeypatch: Any, place: int, stop: Callable[[], None]) -> None:
    """Have something happen before the step of this number that changes a file, counted from 0."""
    count = itertools.count()

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(count) == place:
                stop()
            return function(*args, **kwargs)

        return call

    for owner, name in STEPS:
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process is ended in the middle")
def test_a_crash_leaves_one_or_the_other(tmp_path: Path) -> None:
    """At whichever step the process ends, the next start has the old state whole, or the new one, and so for ever."""
    new = lives(tmp_path / "a", 2)
    backed_up(tmp_path / "a", tmp_path / "b.tar")
    lives(tmp_path / "old", 3)
    old = _image.capture(read(tmp_path / "old").engine)
    was = []
    for place in itertools.count():
        path = tmp_path / "c"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(tmp_path / "old", path)
        pid = os.fork()
        if pid == 0:
            try:
                stopping(pytest.MonkeyPatch(), place, lambda: os._exit(9))
                put_back(tmp_path / "b.tar", path)
            finally:
                os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        log = Written(path)
        log.store.lock()
        image = _image.capture(log.store.recover().engine)
        log.store.release()
        assert image in (old, new)
        was.append(image == new)
        assert log.epoch.counted() == (3 if image == old else 3 + _restore.STEP)
        assert not any((path / name).exists() for name in ("restore.new", "restoring", "restored"))
        if image == new:
            shutil.copy(path / "secret", path / "before-restore-1")
            assert _image.capture(read(path / "before-restore-1").engine) == old
        else:
            assert not list(path.glob("before-*"))
        if code == 0:
            break
        assert code == 9
    assert was == sorted(was) and 10 < was.count(False) and 10 < was.count(True)


def test_an_error_leaves_one_or_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it does where a step fails, as with a full disk: nothing was done, or the next one goes on."""
    new = lives(tmp_path / "a", 2)
    backed_up(tmp_path / "a", tmp_path / "b.tar")
    lives(tmp_path / "old", 2, calls=3)
    old = _image.capture(read(tmp_path / "old").engine)

    def full() -> None:
        raise OSError(28, "No space left on device")

    for place in itertools.count():
        path = tmp_path / "c"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(tmp_path / "old", path)
        with monkeypatch.context() as patched:
            stopping(patched, place, full)
            try:
                put_back(tmp_path / "b.tar", path)
                failed = False
            except OSError:
                failed = True
        is_begun = _restore.is_unfinished(Directory(path))
        if failed and not is_begun and not list(path.glob("before-*")):
            assert content(path) == content(tmp_path / "old")
            continue
        _restore.finish(Directory(path), EpochFile(path / "epoch"))
        assert _image.capture(read(path).engine) == new != old
        if not failed:
            break


def test_a_start_goes_on_with_a_restore(tmp_path: Path) -> None:
    """And says so."""
    lives(tmp_path / "a", 2)
    backed_up(tmp_path / "a", tmp_path / "b.tar")
    put_back(tmp_path / "b.tar", tmp_path / "c")
    restored = tmp_path / "c" / "restored"
    restored.mkdir()
    for path in _restore._log_files(tmp_path / "c"):
        path.rename(restored / path.name)
    staged = Directory(restored)
    staged.judged_by(Directory(tmp_path / "c").own_secret())
    index, chain, _ = _recovery.reach(staged)
    (restored / "plan").write_bytes(msgspec.json.encode(_restore.Plan(index, chain, 5000, "before-restore-1")))
    log = Written(tmp_path / "c")
    log.begin()
    assert (log.engine.index, log.engine.epoch) == (index + 1, 5001)
    assert "put the rest of a backup in place, which had been interrupted" in log.said
    log.end(fold=False)


# -- what people can read


def test_a_state_is_shown_with_and_without_the_code(tmp_path: Path) -> None:
    """Values, what the arguments were, who is there; neither the keys of sessions nor the seed."""
    image = lives(tmp_path, 2)
    engine = _image.restore(_plugins.load(PLUGINS).declarations, image)
    for found in (_dump.state(image, engine), _dump.state(image)):
        (row,) = found["objects"]
        assert (row["object"], row["arguments"], row["state"]) == ("counter:c", "", {"_value": 12})
        assert [each["session"] for each in found["sessions"]] == [1]
        assert len(found["lives"]) == 2
        text = repr(_dump.plain(found))
        assert repr(b"k" * 16) not in text and "kkkk" not in text


def test_pickles_are_named_and_not_opened() -> None:
    """What is typed is shown, whatever it is."""
    leaf = Carried(b"cos\nsystem\n(S'exit 1'\ntR.", "host:1000", "app.Point")
    assert repr(_dump.opened(leaf)) == "<pickle of app.Point, 25 bytes, written by host:1000>"
    assert _dump.opened(Carried(_codec.encode((1, {2})))) == (1, {2})
    assert repr(_dump.opened(Carried(b"\xc1"))) == "<1 bytes that are no value>"
    assert _dump.plain({1: (2, {3}), "b": b"x"}) == {"1": [2, [3]], "b": "b'x'"}


def test_events_are_shown(tmp_path: Path) -> None:
    """All that are there, with what was called and by whom; of a session not its key."""
    lives(tmp_path, 2, calls=2)
    rows = list(_dump.events(Directory(tmp_path)))
    assert [row["index"] for row in rows] == list(range(1, len(rows) + 1))
    assert [row["event"] for row in rows] == ["Begin", "Open", "Create", "Call", "Call", "Begin", "Call", "Call"]
    assert (rows[3]["object"], rows[3]["method"], rows[3]["arguments"]) == ("counter:c", "incr", "")
    assert all("key" not in row and "seed" not in row for row in rows)
    assert _recovery.beginning(Directory(tmp_path)).snapshot == 0
