"""What a log is after its server was killed at a system call, or one failed: right, whichever call it was.

The experiments are in `torture.syscalls`, which tells what is walked and what must hold, and `torture.full`. They
count, and what must be is asserted here of the counts.
"""

from __future__ import annotations

import sys

import pytest
from sizes import size

if sys.platform != "linux":
    pytest.skip("strace, and namespaces for mounts, are Linux's", allow_module_level=True)

from torture.nursery import experiment
from torture.syscalls import PHASES

pytestmark = [pytest.mark.timeout(size(300, 7200)), pytest.mark.once]


@pytest.fixture(scope="module")
def strace() -> None:
    """Skip where calls cannot be made to fail."""
    refused = experiment("syscalls.refused")["refused"]
    if refused:
        pytest.skip(refused)


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("log", ["process", "disk"])
def test_every_system_call_may_fail(log: str) -> None:
    """A kill, an error and a full disk at each call: what was answered is there, once, and what failed is said."""
    counted = experiment("syscalls.walk", log, size(23, 1))
    assert counted["problems"] == []
    for phase in PHASES:
        calls = counted[phase]["calls"]
        assert calls > 5
        for kind in ("KILL", "EIO", "ENOSPC"):
            assert counted[phase][kind]["struck"] >= 0.9 * calls / size(23, 1), (phase, kind)


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("log", ["process", "disk"])
def test_a_recovery_may_be_killed_again_and_again(log: str) -> None:
    """Each goes on from what the last has left, and the state that it was about is still there in the end."""
    counted = experiment("syscalls.relapses", log, size(6, 1))
    assert counted["problems"] == []
    assert counted["struck"] >= counted["calls"] / 2  # some calls are not made again once they were


@pytest.mark.parametrize("log", ["process", "disk"])
def test_a_full_disk_holds_answers(log: str) -> None:
    """Nothing is answered or lost while there is no space, whoever stops or starts then; with space it goes on."""
    refused = experiment("full.refused")["refused"]
    if refused:
        pytest.skip(refused)
    rounds = size(2, 50)
    counted = experiment("full.rounds", log, rounds)
    assert counted["answered"] == counted["calls"]
    assert counted["questions answered while full"] == counted["questions asked while full"] > 0
    assert counted["answered while full"] == 0
    assert counted["stop on a full disk"] == [1, True]
    assert counted["start on a full disk"] == [1, False, True]
    assert counted["kept"]
    assert (counted["wrong"], counted["status"]) == ([], 0)
