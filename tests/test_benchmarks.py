"""``python -m benchmarks``: every subject runs, every bar is told, and what is missing is named. No time is judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.__main__ import SUBJECTS
from benchmarks.harness import Bench, Row
from benchmarks.peers import PEERS, Statement

ROOT = Path(__file__).resolve().parents[1]


def row() -> Row:
    """Return a row of times, ours being half of the manager's."""
    return Row("x", "get", "us", {"registry": [3.0, 1.0, 2.0], "manager": [4.0, 4.0]}, "one CPU")


def test_a_ratio_is_of_medians() -> None:
    """The median of ours is divided by the median of theirs; who is not there has none."""
    assert row().ratio("manager") == 0.5
    assert row().ratio("redis") is None


@pytest.mark.parametrize(
    ("bar", "text", "value", "met"),
    [
        (row().at_most(0.5, "manager"), "<= 0.5 x manager", 0.5, True),
        (row().at_most(0.4, "manager"), "<= 0.4 x manager", 0.5, False),
        (row().at_least(0.5, "manager"), ">= 0.5 x manager", 0.5, True),
        (row().at_least(3, "manager"), ">= 3 x manager", 0.5, False),
        (row().faster(2, "manager"), ">= 2 x faster than manager", 2.0, True),
        (row().faster(3, "manager"), ">= 3 x faster than manager", 2.0, False),
        (row().faster(3, "redis"), ">= 3 x faster than redis", None, None),
        (row().within("< 5 s", 5, 5.5), "< 5 s", 5.5, False),
    ],
)
def test_a_bar_is_met_or_not_or_not_known(bar: Row, text: str, value: float | None, met: bool | None) -> None:
    """A bar says what is asked, keeps what was measured, and is met by its very limit."""
    assert (bar.bars[0].text, bar.bars[0].value, bar.bars[0].met) == (text, value, met)


def test_a_row_shows_the_noise_and_whether_its_bar_is_met() -> None:
    """Median, smallest and largest round, the ratio, and a verdict in words."""
    assert report.text(row().at_most(0.4, "manager").faster(3, "redis")).splitlines() == [
        "get, one CPU (us)",
        "    registry                2.00  (1.00..3.00)",
        "    manager                 4.00  (4.00..4.00)               0.5 x",
        "    NOT MET      <= 0.4 x manager: 0.5",
        "    not measured >= 3 x faster than redis",
    ]


def test_a_run_comes_back_from_json_and_becomes_a_table(tmp_path: Path) -> None:
    """What was written can be shown again, with the bars and with what was missing."""
    run = report.Run(
        {"day": "2026-01-01", "processor": "2 x CPU", "Python": "3.11"}, {"redis": "no redis-server"}, {}, [row()]
    )
    run.rows[0].at_most(0.4, "manager")
    again = report.load(json.loads(json.dumps(report.dump(run))))
    assert again == run
    report.write(again, tmp_path)
    table = (tmp_path / "figures.md").read_text()
    assert "| get, one CPU | ≤ 0.4 x manager | 0.5 | NOT MET |" in table
    assert "Missing in this run: redis, no redis-server." in table


def test_a_missing_peer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not installed is left out, with the reason and the cure."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    bench = Bench()
    assert bench.present("registry", "lmdb") == ["registry"]
    assert bench.missing == {"lmdb": 'not installed: pip install "shared-registry[bench]"'}


def test_a_statement_that_fails_is_named_and_the_others_go_on() -> None:
    """One peer's failure costs nobody else's figures."""
    bench = Bench(rounds=2, quick=True)
    figures = bench.contest({"good": Statement("pass", {}), "bad": Statement("1 / 0", {}), "none": None})
    assert list(figures) == ["good"]
    assert len(figures["good"]) == 2
    assert bench.skipped == {"bad: 1 / 0": "ZeroDivisionError: division by zero"}


@pytest.mark.once
@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform != "linux", reason="it chooses processors, and reads the kernel's own figures")
def test_every_subject_runs(tmp_path: Path, home: Path) -> None:
    """At tiny sizes, beside what needs nothing installed: each has rows with figures, and no work fails."""
    found = tmp_path / "run.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--rounds", "1", "--peers", "manager,echo", "--json"]
    done = subprocess.run([*command, found], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run = report.load(json.loads(found.read_text()))
    assert run.skipped == {}
    assert {each.subject for each in run.rows} == set(SUBJECTS)
    assert [each.what for each in run.rows if not all(each.figures.values())] == []
    assert {name for each in run.rows for name in each.figures} >= {"registry", "registry, cached", "manager", "echo"}
    assert f"{len([bar for each in run.rows for bar in each.bars])} bars are met" in done.stdout
    assert os.listdir(home) == []


def test_every_peer_has_its_module() -> None:
    """Each peer can be loaded where it is installed, and serves."""
    for peer in PEERS.values():
        if not peer.missing():
            assert callable(peer.load().serve)
            assert callable(getattr(peer.load(), peer.kind))
