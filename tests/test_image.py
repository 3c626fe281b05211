"""Tests of the engine's image: whatever the state, it comes back, and equal states have equal images."""

from __future__ import annotations

import pytest
from engine_driver import WAITING, Driver
from hosted_classes import DECLARATIONS

from registry._deadlines import KEPT_DEAD


@pytest.fixture
def driver() -> Driver:
    """An engine with all the classes."""
    return Driver(*DECLARATIONS.values())


def test_waits_whose_line_is_gone_keep_their_deadlines(driver: Driver) -> None:
    """However many of them are restored, each still ends when it is due."""
    client = driver.client()
    owners = range(1, KEPT_DEAD + 10)
    waits = [client.send("gate:x", "pass_line", "north", 5.0, owner=owner) for owner in owners]
    client.call("gate:x", "drop_line", "north")
    driver.restart()
    driver.advance(4.0)
    assert all(wait.result() is WAITING for wait in waits)
    driver.advance(1.0)
    assert {wait.outcome() for wait in waits} == {"north"}
