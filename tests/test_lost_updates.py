"""In development mode a write over what somebody else has written since it was read is warned about."""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import another

from registry import ManagerClient, ManagerServer
from registry.errors import LostUpdateWarning
from registry.proxies import _watched


class Odd:
    """What only a pickle carries, without an `==` of use."""

    def __init__(self, value: int) -> None:
        self.value = value


@pytest.fixture(params=[True, False], ids=["cached", "asked"])
def clients(
    home: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[tuple[ManagerClient, ManagerClient]]:
    """Be two processes that are being developed, with a cache of reads and without one."""
    monkeypatch.setenv("REGISTRY_DEBUG", "1")
    with ManagerServer("x"):
        with another("x", None, cache=request.param) as ours, another("x", None) as theirs:
            yield ours, theirs


@pytest.fixture
def prices(clients: tuple[ManagerClient, ManagerClient]) -> Any:
    """Return a dict as our process sees it."""
    return clients[0].dict("prices")


@pytest.fixture
def theirs(clients: tuple[ManagerClient, ManagerClient]) -> Any:
    """Return the same dict as another process sees it."""
    return clients[1].dict("prices")


def said(work: Callable[[], object]) -> list[str]:
    """Do something, and return what was warned about."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
    assert {each.category for each in caught} <= {LostUpdateWarning}
    assert {each.filename for each in caught} <= {__file__}  # where the write stands
    return [str(each.message) for each in caught]


LOST = (
    "'prices'['BTC'] was changed by somebody else after this thread had read it, and is replaced here: that change is "
    "lost; for numbers there is prices.incr('BTC', by), for all else there is \"with prices.edit('BTC') as v\""
)


@pytest.mark.parametrize("value", [1, "text", (1, [2]), {"usd": 1}, Odd(1), float("nan"), b"x" * 300_000])
def test_a_lost_update_is_told_with_its_cure(prices: Any, theirs: Any, value: object) -> None:
    """Read, changed by another, written: the write is made, and warned about where it stands."""
    prices["BTC"] = value
    prices["BTC"]
    theirs["BTC"] = 2
    assert said(lambda: prices.__setitem__("BTC", 3)) == [LOST]
    assert theirs["BTC"] == 3


@pytest.mark.parametrize("value", [1, {"usd": 1}, Odd(1), float("nan"), b"x" * 300_000])
def test_what_is_as_it_was_read_may_be_replaced(prices: Any, theirs: Any, value: object) -> None:
    """Whatever it is, it is told from a change by its encoding."""
    theirs["BTC"] = value
    prices["BTC"]
    assert said(lambda: prices.__setitem__("BTC", 3)) == []


def test_a_value_that_was_changed_in_place_is_compared_as_it_was_read(prices: Any, theirs: Any) -> None:
    """An object of a class of one's own can be changed by its reader, which is no change of the shared one."""
    theirs["BTC"] = Odd(1)
    read = prices["BTC"]
    read.value = 2
    assert said(lambda: prices.__setitem__("BTC", read)) == []
    read = prices["BTC"]
    theirs["BTC"] = Odd(7)
    assert said(lambda: prices.__setitem__("BTC", read)) == [LOST]


def test_a_key_that_was_not_there_when_it_was_read(prices: Any, theirs: Any) -> None:
    """``d[k] = d.get(k, 0) + 1`` loses what was written in between as well."""
    assert prices.get("BTC", 0) == 0
    theirs["BTC"] = 5
    assert said(lambda: prices.__setitem__("BTC", 1)) == [LOST.replace("was changed", "was written")]
    with pytest.raises(KeyError):
        prices["ETH"]
    theirs["ETH"] = 5
    assert len(said(lambda: prices.__setitem__("ETH", 1))) == 1


def test_a_key_that_is_gone_has_nothing_to_lose(prices: Any, theirs: Any) -> None:
    """Where another has deleted the key, the write replaces nothing."""
    prices["BTC"] = 1
    prices["BTC"]
    del theirs["BTC"]
    assert said(lambda: prices.__setitem__("BTC", 2)) == []


def test_a_write_that_follows_no_read_is_never_asked_about(prices: Any, theirs: Any) -> None:
    """A value that is only ever written is replaced on purpose; so is what was read before an earlier write."""
    theirs["BTC"] = 1
    assert said(lambda: prices.__setitem__("BTC", 2)) == []
    prices["BTC"]
    prices["BTC"] = 3
    theirs["BTC"] = 4
    assert said(lambda: prices.__setitem__("BTC", 5)) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.incr("BTC"),
        lambda d: d.pop("BTC"),
        lambda d: d.__delitem__("BTC"),
        lambda d: d.clear(),
        lambda d: d.compare_and_set("BTC", 1, 7),
        lambda d: d.update({"BTC": 7}),
    ],
)
def test_what_this_thread_changes_itself_is_no_surprise(prices: Any, change: Callable[[Any], object]) -> None:
    """After a change of one's own what was read before is not what counts."""
    prices["BTC"] = 1
    prices["BTC"]
    change(prices)
    assert said(lambda: prices.__setitem__("BTC", 2)) == []


def test_many_keys_at_once(prices: Any, theirs: Any) -> None:
    """`update` looks at each of its keys that was read, and takes whatever it takes otherwise."""
    prices.update({"BTC": 1, "ETH": 1, "SOL": 1})
    prices["BTC"], prices.get("ETH")
    theirs.update({"BTC": 2, "SOL": 2})
    told = said(lambda: prices.update((pair for pair in [("BTC", 3), ("ETH", 3), ("SOL", 3)]), XRP=3))
    assert told == [LOST]
    assert theirs.copy() == {"BTC": 3, "ETH": 3, "SOL": 3, "XRP": 3}


def test_threads_of_one_process_lose_updates_too(prices: Any) -> None:
    """What counts is what this thread has read, not what any thread has."""
    prices["BTC"] = 1
    prices["BTC"]

    def other() -> None:
        prices["BTC"] = prices["BTC"] + 1

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert said(lambda: prices.__setitem__("BTC", 2)) == [LOST]


def test_proxies_of_one_object_are_one(clients: tuple[ManagerClient, ManagerClient], theirs: Any) -> None:
    """Reading through one proxy and writing through another is the same mistake; another object is another matter."""
    ours, _ = clients
    ours.dict("prices")["BTC"] = 1
    ours.dict("prices")["BTC"]
    ours.dict("other")["BTC"] = 1
    theirs["BTC"] = 2
    assert said(lambda: ours.dict("other").__setitem__("BTC", 5)) == []
    assert said(lambda: ours.dict("prices").__setitem__("BTC", 5)) == [LOST]


def test_equal_keys_of_other_types_are_not_mixed_up(prices: Any, theirs: Any) -> None:
    """What was read as 1 is not taken for what was read as True."""
    theirs[1] = "a"
    prices[1]
    assert said(lambda: prices.__setitem__(True, "b")) == []


def test_what_is_no_key_is_refused_as_ever(prices: Any) -> None:
    """The look does not get in the way of the error."""
    prices["BTC"] = 1
    for work in (lambda: prices.__setitem__([], 1), lambda: prices.pop([]), lambda: prices[[]]):
        with pytest.raises(TypeError):
            work()


def test_what_is_remembered_is_bounded(prices: Any, theirs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that reads many keys forgets the oldest."""
    monkeypatch.setattr(_watched, "MOST", 2)
    theirs.update({"a": 1, "b": 1, "c": 1})
    for key in "abc":
        prices[key]
    theirs.update({"a": 2, "b": 2, "c": 2})
    assert len(said(lambda: prices.update({"a": 3, "b": 3, "c": 3}))) == 2


def test_verbs_that_lose_nothing_are_never_warned_about(prices: Any, theirs: Any) -> None:
    """`incr` and `edit` are the cures."""
    prices.update({"BTC": 1, "row": {"usd": 1}})
    prices["BTC"], prices["row"]
    theirs["BTC"] = 5
    theirs["row"] = {"usd": 5}

    def change() -> None:
        prices.incr("BTC")
        with prices.edit("row") as row:
            row["usd"] += 1

    assert said(change) == []
    assert theirs.copy() == {"BTC": 6, "row": {"usd": 6}}


SCRIPT = """
import threading, registry
with registry.connect("memory://") as shared:
    prices = shared.dict("prices")
    prices["BTC"] = 1
    read = prices["BTC"]
    thread = threading.Thread(target=prices.__setitem__, args=("BTC", 5))
    thread.start()
    thread.join()
    prices["BTC"] = read + 1
    print(type(prices).__setitem__.__module__)
"""


@pytest.mark.parametrize(("options", "warned"), [(["-X", "dev"], True), ([], False)])
def test_only_processes_in_development_pay_for_it(options: list[str], warned: bool) -> None:
    """``python -X dev`` warns; without it the methods are those that they are."""
    done = subprocess.run(
        [sys.executable, *options, "-c", SCRIPT], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert ("LostUpdateWarning: 'prices'['BTC'] was changed by somebody else" in done.stderr) is warned
    assert done.stdout.split() == ["registry.proxies._watched" if warned else "registry.proxies"]
