"""Fencing tokens only grow: across the lives of servers, however these end, and with the wall clock set anywhere."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_driver import Driver
from servers import KEY, Script, another
from sizes import size

from registry._addresses import EpochFile
from registry._events import Begin
from registry_sync import LOCK, SEMAPHORE

# A server whose wall clock shows another year; its monotonic clock goes on as it does.
SERVE = f"""
import sys, time
shift, real = float(sys.argv[2]), time.time
time.time = lambda: real() + shift
from registry import ManagerServer
server = ManagerServer(sys.argv[1], {KEY!r})
server.on_ready = lambda: print("ready", flush=True)
server.run()
"""
YEAR = 365 * 86400.0


def tokens(count: int) -> Iterator[int]:
    """Yield the tokens of some grants: of two locks and a semaphore, all from one count."""
    with another("here", KEY) as client:
        gives = [client.lock("a"), client.lock("b"), client.semaphore("s")]
        for number in range(count):
            with gives[number % 3].acquire() as grant:
                assert grant.token is not None
                yield grant.token


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_tokens_grow_across_lives_and_clocks(home: Path, ending: signal.Signals) -> None:
    """Servers that follow each other, each with its clock set years back or ahead, never give a token twice."""
    seen: list[int] = []
    for shift in (0.0, -10 * YEAR, 5 * YEAR, -20 * YEAR, 0.0)[: size(4, 5)]:
        with Script(SERVE, "here", shift) as server:
            assert server.line() == "ready"
            seen += tokens(size(6, 60))
            server.signal(ending)
            server.wait()
    assert seen == sorted(set(seen))
    epochs = [token >> 40 for token in dict.fromkeys(token >> 40 << 40 for token in seen)]
    assert epochs == list(range(1, size(4, 5) + 1))


def test_the_epoch_goes_by_no_clock(tmp_path: Path) -> None:
    """What time it is, is only written down."""
    file = EpochFile(tmp_path / "epoch")
    assert [file.begin(now)[0] for now in (2e9, 1.0, -5.0, 1e12, 0.0)] == [1, 2, 3, 4, 5]


def test_an_engine_never_takes_a_token_back() -> None:
    """Within a life the count goes on whatever the stamps of events say; a life of a lower epoch changes nothing."""
    driver = Driver(LOCK, SEMAPHORE, twin=True, epoch=3)
    client = driver.client()
    seen = []
    for epoch, now in ((3, 10.0), (4, -1e9), (2, 5.0), (4, 0.0)):
        driver.now = now
        driver.feed(Begin(now=now, epoch=epoch, seed=bytes(32)))
        for title in ("lock:a", "semaphore:s", "lock:b"):
            seen.append(client.call(title, "acquire").number)
            before = (1,) if title.startswith("semaphore") else ()
            client.call(title, "release", *before, seen[-1])
    assert seen == sorted(set(seen)) and seen[0] > 3 << 40
