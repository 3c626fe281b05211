"""The class by itself, in a server with two processes, and under a log."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest
import registry
from registry import testing

from shared_tally import TALLY, Tally


def count(shared: registry.ManagerClient, name: str, times: int) -> list[int]:
    """Count a name in a process of its own, which finds this function because it stands at the top of a module."""
    visits = shared.open(TALLY, "visits")
    return [visits.count(name) for _ in range(times)]


def test_it_is_an_ordinary_class() -> None:
    """It needs no server."""
    visits = Tally(limit=2)
    assert [visits.count("ann"), visits.count("ben"), visits.count("ann", by=2)] == [1, 1, 3]
    assert (visits.of("ann"), visits.of("eve"), visits.top(1)) == (3, 0, [("ann", 3)])
    with pytest.raises(OverflowError, match="there are 2 names already"):
        visits.count("eve")


def test_two_processes_share_it(registry_server: testing.Server, registry_client: registry.ManagerClient) -> None:
    """No count is lost, and none is given twice."""
    one, two = registry_server.clients(2)
    counting = [client.submit(count, "ann", 100) for client in (one, two)]
    counts = [number for future in counting for number in future.result()]
    assert sorted(counts) == list(range(1, 201))
    assert registry_client.open(TALLY, "visits").of("ann") == 200


def test_what_the_dead_have_counted_stays(registry_server: testing.Server) -> None:
    """A process that is killed takes nothing along."""
    one, two = registry_server.clients(2)
    one.run(count, "ann", 2)
    one.kill()
    assert two.run(count, "ann", 1) == [3]


def test_it_may_be_logged() -> None:
    """A server that was killed has the same again: the class keeps the rules of a log."""
    ben = testing.Use("count", "ben", by=2, session=2)
    report = testing.check(TALLY, [("count", "ann"), ben, ("of", "ben"), ("top", 2)])
    assert report.missed == ()


def test_servers_find_it() -> None:
    """It is installed, with the line that makes it a plugin."""
    found = {point.name: point for point in entry_points(group="shared_registry")}
    plugin = found["shared_tally"].load()
    assert plugin.TALLY is TALLY
