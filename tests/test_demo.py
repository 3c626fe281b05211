"""``registry demo``: the job is done, nothing is lost or counted twice, and no process is left."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import registry
from registry.cli import _demo, _demo_worker, run

pytestmark = [pytest.mark.once, pytest.mark.skipif(os.name != "posix", reason="the demo kills a process")]


@pytest.fixture(autouse=True)
def temporary(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the demo make its directory where the test can look."""
    monkeypatch.setattr(_demo, "_directory", lambda: str(home))
    return home


def test_the_totals_are_equal_though_a_worker_was_killed(capsys: pytest.CaptureFixture[str]) -> None:
    """Several processes find what one finds, file by file, and one of them was killed on the way."""
    assert run(["demo", "--files", "24", "--workers", "3", "--json"]) == 0
    out, err = capsys.readouterr()
    outcome = json.loads(out)
    assert outcome["equal"] is True
    assert outcome["files"] == 24
    assert outcome["identifiers"] > outcome["distinct"] > 100
    assert outcome["calls"] > 24 * 8
    assert 0 < outcome["hand_over_seconds"] < 30
    # What was told on the way: a death, and a grant to somebody else.
    killed, took_over = err.splitlines()
    assert killed.startswith(f"{outcome['killed']} was killed while it held the lock")
    assert took_over.startswith("worker ") and not took_over.startswith(outcome["killed"])
    assert Path(outcome["put_back"]).name in killed


def test_a_difference_is_a_failure(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """If one file's count differs by one, the table says so and the exit code is 1."""
    count_alone = _demo._count_alone

    def count_wrongly(*arguments: Any) -> dict[str, Any]:
        counts = count_alone(*arguments)
        found = next(found for found in counts.values() if found)
        found[next(iter(found))] += 1
        return counts

    monkeypatch.setattr(_demo, "_count_alone", count_wrongly)
    assert run(["demo", "--files", "6", "--workers", "2"]) == 1
    out = capsys.readouterr().out
    assert "DIFFER" in out
    assert "hand-over" in out


def test_a_worker_that_fails_ends_the_demo(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The reason is told in the words of the process that failed."""
    monkeypatch.setattr(_demo, "sources", lambda limit: (tmp_path, ["here.py", "gone.py"]))
    (tmp_path / "here.py").write_text("x = 1\n")
    assert run(["demo"]) == 1
    assert "alone has ended: FileNotFoundError" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_behind(
    number: signal.Signals, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C or a SIGTERM in the middle of the work ends all processes and removes the directory."""
    count_together = _demo._count_together
    pids: list[int] = []

    def interrupted(crew: Any, *arguments: Any) -> Any:
        pids.extend(process.pid for process in crew._running.values())
        os.kill(os.getpid(), number)
        return count_together(crew, *arguments)

    monkeypatch.setattr(_demo, "_count_together", interrupted)
    before = signal.getsignal(number)
    if number == signal.SIGINT:
        assert run(["demo", "--files", "6", "--workers", "2"]) == 1
    else:
        with pytest.raises(SystemExit, match="143"):
            run(["demo", "--files", "6", "--workers", "2"])
    assert len(pids) == 3
    for pid in pids:
        # Not even as a zombie: each has been waited for.
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert list(temporary.glob("registry-demo-*")) == []
    assert signal.getsignal(number) is before


def test_an_open_step_is_undone_and_may_be_undone_twice() -> None:
    """The next worker finds the state from before the step that was open, and its file in the queue."""
    with registry.connect("memory://") as shared:
        desk = _demo_worker.Desk(shared)
        _demo_worker._count(desk, "worker 1", "a.py", {"x": 2}, False)
        record = {"worker": "worker 1", "file": "b.py", "counted": 1, "identifiers": 2}
        for _ in range(2):
            desk.journal["open"] = record
            desk.counts["b.py"] = {"y": 5}
            desk.counted.incr()
            _demo_worker._undo(desk, "worker 2", 1.5)
            assert desk.counts.copy() == {"a.py": {"x": 2}}
            assert (desk.counted.get(), desk.identifiers.get()) == (1, 2)
            assert desk.files.get() == ["b.py", False]
            assert desk.reports.get() == ["put back", "worker 2", "b.py", 1.5]
            assert "open" not in desk.journal


def test_a_file_that_is_counted_already_is_left_alone() -> None:
    """A file that came back twice is counted once."""
    with registry.connect("memory://") as shared:
        desk = _demo_worker.Desk(shared)
        for _ in range(2):
            desk.files.put([__file__, False])
        desk.files.put(None)
        _demo_worker.work(shared, "worker 1")
        assert desk.counted.get() == 1
        assert desk.identifiers.get() == sum(desk.counts[__file__].values())


def test_identifiers_are_names_that_are_no_keywords(tmp_path: Path) -> None:
    """Words in texts and comments do not count; a file that is no Python has no count."""
    path = tmp_path / "a.py"
    path.write_text('def f(x):\n    return x  # x\n"x"\n')
    assert _demo_worker.identifiers(path) == {"f": 1, "x": 2}
    path.write_bytes(b"# \xff\n")
    assert _demo_worker.identifiers(path) is None


def test_the_files_are_spread_over_the_library() -> None:
    """A part of the files is a part of each part, and tests are not among them."""
    root, names = _demo.sources(None)
    _, few = _demo.sources(10)
    assert len(few) == 10 and set(few) < set(names)
    assert (root / few[0]).is_file()
    assert names.index(few[9]) > len(names) * 0.8
    assert not any("test" in Path(name).parts for name in names)
