"""A look at a log that does not read it: what is missing, cut or foreign is found by the heads of its files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from test_log_tools import content, head, lives

from registry._log._files import Directory
from registry._log._glance import Glance, glance


def seen(path: Path) -> Glance:
    """Look at a log, with what its epoch file knows."""
    return glance(Directory(path), head(path)[0])


def test_a_log_that_is_whole_has_no_failures(tmp_path: Path) -> None:
    """What the servers of a place have left is counted, and nothing is wrong with it."""
    lives(tmp_path)
    before = content(tmp_path)
    found = seen(tmp_path)
    directory = Directory(tmp_path)
    assert found.failures == []
    assert (found.segments, found.snapshots) == (len(directory.segments()), len(directory.snapshots()))
    assert found.newest == directory.snapshots()[-1][0]
    files = [path for _, path in (*directory.segments(), *directory.snapshots())]
    assert found.bytes == sum(path.stat().st_size for path in files)
    assert content(tmp_path) == before


def test_an_empty_place_is_whole(tmp_path: Path) -> None:
    """Where no server has kept a log there is nothing, and nothing is missing; nor is a directory made."""
    assert glance(Directory(tmp_path / "state")) == Glance()
    assert not (tmp_path / "state").exists()


def cut(path: Path) -> None:
    """Leave the first three bytes."""
    os.truncate(path, 3)


def garble(path: Path) -> None:
    """Change the first byte."""
    path.write_bytes(b"?" + path.read_bytes()[1:])


@pytest.mark.parametrize("spoil", [cut, garble])
def test_a_head_that_is_not_whole_is_named(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """Each file says what it is at its beginning; one that does not is named, but for the last, which may be torn."""
    lives(tmp_path)
    directory = Directory(tmp_path)
    for _, path in directory.snapshots():
        kept = path.read_bytes()
        spoil(path)
        assert [text.partition(": ")[0] for text in seen(tmp_path).failures if str(path) in text] == [
            f"{path} cannot be used"
        ]
        path.write_bytes(kept)
    *others, (_, last) = directory.segments()
    assert others
    for _, path in others:
        kept = path.read_bytes()
        spoil(path)
        assert [text.partition(": ")[0] for text in seen(tmp_path).failures] == [f"{path} cannot be read"]
        path.write_bytes(kept)
    spoil(last)
    assert seen(tmp_path).failures == []


def test_a_file_of_another_event_is_named(tmp_path: Path) -> None:
    """A file that was renamed is not what its name says."""
    lives(tmp_path)
    directory = Directory(tmp_path)
    (first, path), *_ = directory.segments()
    path.rename(directory.segment(first + 1))
    assert any(f"it says that it begins with event {first}" in text for text in seen(tmp_path).failures)
    (index, path) = directory.snapshots()[-1]
    path.rename(directory.snapshot(index + 100))
    assert any(f"it is that of event {index}" in text for text in seen(tmp_path).failures)


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    """Without its snapshots a log begins behind them; without any file it does not hold what had been there."""
    lives(tmp_path)
    directory = Directory(tmp_path)
    for _, path in directory.snapshots():
        path.unlink()
    (first, _), *_ = directory.segments()
    assert first > 1
    assert [f"and event {first}, with which the segments begin, is missing" in text for text in seen(tmp_path).failures]
    for _, path in directory.segments():
        path.unlink()
    last = head(tmp_path)[0]
    assert seen(tmp_path).failures == [f"event {last} had been there, and the files end with event 0"]


def test_what_lies_beside_a_log_is_told(tmp_path: Path) -> None:
    """Torn tails, logs that a restore has put aside, and a restore that was interrupted are seen."""
    lives(tmp_path)
    (tmp_path / "00000000000000000001.segment.2.torn").write_bytes(b"x")
    (tmp_path / "before-restore-1").mkdir()
    (tmp_path / "restoring").mkdir()
    found = seen(tmp_path)
    assert [path.name for path in found.torn] == ["00000000000000000001.segment.2.torn"]
    assert [path.name for path in found.aside] == ["before-restore-1"]
    assert found.is_unfinished
