"""What processes that die, are cut off, stopped or interrupted leave to the others: everything, in order.

The experiments are in the package `torture`. They count, and what must be is asserted here of the counts; times are
printed (``pytest -s``) and never judged.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from linearizability.checker import Operation
from sizes import LONG, size
from torture.nursery import experiment
from torture.recorded import judge, write

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="deaths are exact where there are pidfds"),
    pytest.mark.timeout(size(300, 7200)),
    pytest.mark.once,
]


# -- deaths


def test_every_lock_of_a_killed_holder_is_handed_over() -> None:
    """The next in line is given the lock and told who died, also where a child of the dead keeps its socket."""
    count = size(40, 1_000)
    counted = experiment("deaths.handovers", count)
    assert counted["with a child"] == count // 2
    assert [counted[what] for what in ("handed over", "flagged", "named", "clean before")] == [count] * 4


def test_nobody_who_has_released_is_taken_for_one_who_died_holding() -> None:
    """A release that was sent counts, however its process ends, and though the server was not reading from it."""
    count = size(64, 1_600)
    counted = experiment("deaths.clean_ends", count)
    assert counted["given on"] == counted["clean"] == count, counted["flagged"]


def test_a_server_has_nothing_left_of_the_killed() -> None:
    """Descriptors, threads, sessions and objects are as many as before, and what was claimed is back in its queue."""
    count = size(240, 10_000)
    counted = experiment("leaks.churn", count)
    before, after = counted["before"], counted["after"]
    del before["KiB"], after["KiB"]
    assert after == before
    assert counted["counted"] == counted["came"] == count
    assert counted["queued"] == counted["put"]
    assert counted["claims"] == 0


# -- one at a time


@pytest.mark.parametrize(("kind", "count"), [("unix", size(2_000, 50_000)), ("tcp", size(500, 10_000))])
def test_critical_sections_never_overlap(kind: str, count: int) -> None:
    """Neither the kernel nor the log has seen two processes in a section, whoever was killed or cut off."""
    counted = experiment("sections.overlaps", count, kind)
    assert counted["sections"] >= counted["reported"] >= count
    assert counted["cuts"] > 0
    assert counted["killed"] > 0 or kind == "tcp"
    for what in ("seen by the kernel", "seen in the log"):
        assert counted[f"overlaps {what}"] == 0
    for what in ("tokens not grown", "not flagged", "wrongly flagged"):
        assert counted[what] == 0, what
    assert counted["free afterwards"]
    assert counted["increments"] >= counted["counted"]
    if not counted["killed"]:
        assert counted["increments"] == counted["counted"]


def test_waiters_are_served_in_their_order() -> None:
    """Of 32 processes each gets the lock when those before it have had it, whether they came one by one or at once."""
    count = size(24, 1_000)
    counted = experiment("arrivals.rounds", count)
    assert counted["kept"] == counted["rounds"] == count
    assert counted["grants"] == counted["tokens grown"] == 32 * count - counted["killed in line"]
    assert counted["killed in line"] == count // 8 * 3


# -- cuts


def test_calls_that_are_cut_at_any_byte_run_once() -> None:
    """With its connection cut after each byte of its requests and replies in turn, every deed is done exactly once."""
    counted = experiment("cuts.of_calls", size(9, 1))
    assert not counted["wrong"]
    assert len(counted["of"]) == 14 and all(counted["of"].values())


def test_calls_that_are_cut_again_in_the_handshake_run_once() -> None:
    """The connection that takes the place of a cut one is cut too, at any byte; a third one brings everything right."""
    counted = experiment("cuts.of_reconnects", size(211, 3))
    assert not counted["wrong"]
    assert all(counted["of"].values())


def test_a_first_connection_that_is_cut_at_any_byte_is_told_or_mended() -> None:
    """Whoever connects for the first time is connected, or told that there is no server and free to try again."""
    counted = experiment("cuts.of_first_connects", size(61, 1))
    assert not counted["wrong"]
    assert counted["cuts"] >= counted["told"] > 0


def test_increments_through_a_wire_that_is_cut_count_once() -> None:
    """The value is the number of increments that were acknowledged; none was lost, none ran twice, none is unknown."""
    count = size(600, 10_000)
    counted = experiment("cuts.at_random", count)
    assert counted["value"] == counted["acknowledged"] == counted["different"] == counted["highest"] == count
    assert counted["cuts"] > 0


# -- interruptions


def test_signal_handlers_that_raise_lose_nothing() -> None:
    """Interrupted anywhere in calls and blocks: no reply is wrong, no lock, item, claim, edit or count is lost."""
    count = size(300, 2_000)
    counted = experiment("signals.interruptions", count)
    assert counted["interrupted"] == count
    assert not counted["wrong"]
    assert not counted["locks lost"]
    for what in ("items lost", "items invented", "edits lost", "edits invented"):
        assert counted[what] == [], what
    for what in ("items twice", "edits twice", "claims left", "turns left", "guards left", "counter off", "entry off"):
        assert not counted[what], what
    assert counted["items"] and counted["blocks"]


# -- everything at once


def test_what_real_processes_are_told_is_linearizable(tmp_path: Path) -> None:
    """What clients that are killed, stopped and cut off are told of five kinds of objects could have come in turn."""
    count = size(4, 200)
    counted = experiment("recorded.histories", count, tmp_path)
    assert counted["well"] == count, f"what failed can be looked at: {counted['written']}"
    assert counted["calls"] > 700 * count
    assert counted["pauses"] and counted["cuts"]


def test_a_wrong_history_is_found_and_written_down(tmp_path: Path) -> None:
    """An item that came twice is judged wrong, and the file shows the verdict and every call."""
    twice = [
        Operation(process=7, verb="put", argument="x", invoked=1_000, returned=2_000, subject="queue", call=(7, 1)),
        Operation(process=8, verb="get", result="x", invoked=3_000, returned=4_000, subject="queue", call=(8, 1)),
        Operation(process=9, verb="get", result="x", invoked=3_500, returned=9_000, subject="queue", call=(9, 1)),
    ]
    verdict, why = judge(twice, fair=True)
    assert verdict == "wrong"
    write(twice, why, tmp_path / "twice.txt")
    text = (tmp_path / "twice.txt").read_text(encoding="utf-8")
    assert "'queue', '') is not linearizable" in text
    assert "[0.0, 1.0] (7, 1): put('x') -> None" in text
    assert text.count("get() -> 'x'") >= 3


# -- leases


def test_nothing_takes_effect_that_a_stopped_holder_sends_past_its_lease() -> None:
    """Whoever stood still past its lease is told at its first call in the block, and has changed nothing since."""
    count = size(10, 100)
    counted = experiment("leases.stopped_holders", count)
    for what in ("handed over", "flagged", "told", "blocks lost", "fine afterwards"):
        assert counted[what] == count, what
    assert counted["changed afterwards"] == counted["acknowledged wrongly"] == 0


def test_a_server_that_stood_still_lets_nobody_expire() -> None:
    """Holders keep their locks while the server stands still for longer than the lease."""
    counted = experiment("leases.stalled_server", *((10, 1, 2) if LONG else (1, 2, 3)))
    assert counted["held"] == counted["kept"] == counted["worked"] == counted["counted"]
    assert counted["flagged"] == 0
