"""What processes that die, are cut off, stopped or interrupted leave to the others: everything, in order.

The experiments are in the package `torture`. They count, and what must be is asserted here of the counts; times are
printed (``pytest -s``) and never judged.
"""

from __future__ import annotations

import sys

import pytest
from sizes import size
from torture.nursery import experiment

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="deaths are exact where there are pidfds"),
    pytest.mark.timeout(size(300, 7200)),
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
