"""What a loss of power leaves: with `disk` everything that was acknowledged, with `process` what came before a moment.

The experiments are in `torture.power`, with a file system that is copied while it is used, and in `torture.disks`, with
every state that a disk may be left in.
"""

from __future__ import annotations

import sys

import pytest
from sizes import size
from torture import power
from torture.nursery import experiment

pytestmark = [pytest.mark.timeout(size(300, 7200)), pytest.mark.once]


@pytest.fixture(scope="module")
def mounts() -> None:
    """Skip the test where no file system can be mounted."""
    if sys.platform != "linux":
        pytest.skip("there are loop devices and pidfds on Linux only")
    obstacle = power.obstacle()
    if obstacle:
        pytest.skip(obstacle)


@pytest.mark.usefixtures("mounts")
def test_nothing_acknowledged_is_lost_with_power() -> None:
    """With `disk` all that dead clients were told is there, locks are free and flagged, tokens grow."""
    count = size(12, 120)
    counted = experiment("power.deaths", count, "disk")
    assert counted["losses"] == counted["wrong"] == []
    assert counted["cuts"] == counted["prefixes"] == count
    assert counted["acknowledged"] > 0 and counted["seen"]["abandoned"] > 0


@pytest.mark.usefixtures("mounts")
def test_clients_elsewhere_see_a_pause_only() -> None:
    """With `disk` clients on other machines go on: each effect is there once, and none is told of a loss."""
    count = size(8, 80)
    counted = experiment("power.outlived", count, "disk")
    assert counted["wrong"] == []
    assert counted["cuts"] == counted["prefixes"] == count
    assert counted["told"] == 0 < counted["acknowledged"]


@pytest.mark.usefixtures("mounts")
def test_what_is_left_with_process_is_the_state_after_some_event() -> None:
    """With `process` the last events are lost, and nothing that came before them."""
    count = size(3, 40)
    counted = experiment("power.deaths", count, "process")
    assert counted["wrong"] == []
    assert counted["cuts"] == counted["prefixes"] == count
    assert counted["events lost"] > 0


@pytest.mark.usefixtures("mounts")
def test_whoever_knows_more_than_the_server_is_told() -> None:
    """With `process` a client on another machine that has lost something hears it; whoever has not, goes on."""
    count = size(3, 40)
    counted = experiment("power.outlived", count, "process")
    assert counted["wrong"] == []
    assert counted["cuts"] == counted["prefixes"] == count
    assert counted["told"] >= counted["knew more"] > 0


@pytest.mark.usefixtures("mounts")
def test_a_server_that_does_not_sync_is_found_out() -> None:
    """The cuts do lose what is not on the disk: a server that lies is seen to have lost what it had acknowledged."""
    assert experiment("power.deaths", 2, "lies")["losses"]


@pytest.mark.skipif(sys.version_info < (3, 11) or sys.platform == "win32", reason="pathlib keeps functions of its own")
@pytest.mark.parametrize("where", ["", "deep/below"])
@pytest.mark.parametrize("log", ["disk", "process"])
def test_whatever_a_disk_may_lose(log: str, where: str) -> None:
    """Blocks and names that were not synced may be there or not: a server starts, with what had to be there."""
    counted = experiment("disks.losses", size(1, 10), size(80, 1_000), log, where)
    assert not counted["wrong"], counted["such as"]
    assert counted["disks"] >= size(80, 10_000) > counted["empty"]
    assert (counted["told"] > 0) == (log == "process")
