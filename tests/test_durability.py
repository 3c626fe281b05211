"""A server with a log while it runs: segments are closed and folded beside it, and what it served is what it kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import another, until
from test_durable import end_badly

from registry import ManagerClient, ManagerServer, _image
from registry._addresses import EpochFile, Place
from registry._log import _recovery, _store
from registry._log._code import code
from registry._log._files import Directory
from registry._log._recovery import Recovered

KEY = b"the key of the tests"

# What it says hangs on how long its process has run: another one replays it differently.
DIVERGING = """
import os, registry

class Tired:
    def __init__(self):
        self.said = []

    def tell(self):
        self.said.append(os.getpid())
        return self.said[-1]

    def all(self):
        return self.said

@registry.hookimpl
def registry_shared_objects():
    return [registry.SharedObject("tired", Tired, readonly=["all"])]
"""


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_store, "SEGMENT_EVENTS", 60)


@pytest.fixture
def plugins(tmp_path: Path) -> list[str]:
    path = tmp_path / "tired.py"
    path.write_text(DIVERGING)
    return [str(path)]


@pytest.fixture
def server(home: Path, plugins: list[str]) -> Iterator[ManagerServer]:
    with ManagerServer("here", KEY, log="process", plugins=plugins) as server:
        yield server


@pytest.fixture
def client(server: ManagerServer) -> Iterator[ManagerClient]:
    with another("here") as client:
        yield client


def directory() -> Directory:
    return Directory(Place("here").state)


def recovered(server: ManagerServer) -> Recovered:
    """Return what a start would find now."""
    life = EpochFile(Place("here").epoch).read()
    assert life is not None
    return _recovery.recover(directory(), server.plugins.declarations, code(server.plugins), (life.head, life.chain))


def count(client: ManagerClient, more: int) -> int:
    counter = client.counter("c")
    return [counter.incr() for _ in range(more)][-1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_segments_are_folded_while_events_go_on(
    server: ManagerServer, client: ManagerClient, plugins: list[str]
) -> None:
    """Another process makes the snapshots; files that neither of the last two needs go; nothing is missing."""
    total = folds = 0
    for _ in range(6):
        known = directory().snapshots()
        total = count(client, 70)
        until(lambda ask, known=known: directory().snapshots() != known, client)
        folds += 1
    until(lambda ask: len(directory().snapshots()) == 2, client)
    (older, _), (newest, _) = directory().snapshots()
    segments = [first for first, _ in directory().segments()]
    assert segments[0] <= older + 1 and all(first > segments[0] for first in segments[1:])
    assert len(segments) < folds
    found = recovered(server)
    counter = found.engine.find("counter", "c")
    assert counter is not None and counter.instance.get() == total
    assert 0 < newest <= found.snapshot
    end_badly(server)
    with ManagerServer("here", KEY, log="process", plugins=plugins) as again:
        assert again.host.recovered >= found.index
        assert count(client, 1) == total + 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_another_process_replays_differently_is_kept_as_it_was_served(
    server: ManagerServer, client: ManagerClient, plugins: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The class is named, and the snapshot is taken of what clients have seen, with what happens meanwhile."""
    tired = client.tired("t")
    told = [tired.tell()]
    while not directory().snapshots():
        told.append(tired.tell())
        count(client, 1)
    assert "tired:t.tell(), gave another result when it was replayed: Tired is not deterministic" in caplog.text
    assert "A snapshot of what is served is made instead" in caplog.text
    ((index, path),) = directory().snapshots()
    picture, image = _store._format.read_snapshot(path.read_bytes())
    assert picture.index == index
    # It continues in the segment that was open then: what follows it there is replayed on it.
    engine = _image.restore(server.plugins.declarations, bytes(image))
    kept = engine.find("tired", "t")
    assert kept is not None and kept.instance.said == told[: len(kept.instance.said)] != []
    total = count(client, 3)
    server.stop()
    with ManagerServer("here", KEY, log="process", plugins=plugins):
        assert list(tired.all()) == told
        assert count(client, 1) == total + 1


def test_a_fold_that_fails_is_said_and_tried_again(
    server: ManagerServer, client: ManagerClient, plugins: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Code that changed under a running server makes no snapshot; its segments stay, and a clean stop folds them."""
    path = Path(plugins[0])
    content = path.read_text()
    path.write_text(content + "\n# changed\n")
    total = count(client, 70)
    until(lambda ask: "the code has changed since the server was started" in caplog.text, client)
    assert directory().snapshots() == []
    path.write_text(content)
    total = count(client, 70)
    until(lambda ask: len(directory().snapshots()) == 1, client)
    server.stop()
    assert len(directory().snapshots()) == 2
    with ManagerServer("here", KEY, log="process", plugins=plugins):
        assert count(client, 1) == total + 1
