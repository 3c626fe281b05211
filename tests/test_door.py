"""The door: what strangers may cost, how late a wrong key is answered, and which keys are none."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from multiprocessing.connection import Client
from typing import Any

import pytest
from servers import KEY

from registry import ManagerServer, connect
from registry._door import LONGEST, PATIENCE, WEAK, Door, weakness
from registry.errors import AccessDenied


class Guest:
    def __init__(self) -> None:
        self.is_gone = False

    def abort(self) -> None:
        self.is_gone = True


class Clock:
    """A clock that is moved by hand, and what was asked to be called later, with the delays."""

    def __init__(self) -> None:
        self.now = 0.0
        self.delays: list[float] = []

    def later(self, delay: float, function: Callable[[], object]) -> None:
        self.delays.append(delay)
        function()


def door(clock: Clock, most: int = 3) -> Door:
    return Door(lambda: clock.now, clock.later, most)


def test_of_too_many_strangers_the_oldest_goes(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever has shown the key is none; the log says it once in a while, and not for each."""
    clock, guests = Clock(), [Guest() for _ in range(8)]
    standing = door(clock)
    with caplog.at_level(logging.WARNING, "registry"):
        for guest in guests[:3]:
            standing.enter(guest)
        standing.leave(guests[0])
        for guest in guests[3:]:
            standing.enter(guest)
        clock.now = 100.0
        standing.enter(Guest())
    assert [guest.is_gone for guest in guests] == [False, True, True, True, True, True, False, False]
    assert len(standing) == 3
    assert [record.getMessage() for record in caplog.records] == [
        "more than 3 connections have not shown the key; dropped the oldest (1 so far)",
        "more than 3 connections have not shown the key; dropped the oldest (5 so far)",
    ]


def test_each_wrong_key_is_answered_later_than_the_one_before() -> None:
    """Up to a limit; after a while without any it begins anew."""
    clock, answered = Clock(), []
    standing = door(clock)
    for number in range(10):
        standing.refuse(lambda number=number: answered.append(number))  # type: ignore[misc]
    assert answered == list(range(10))
    assert clock.delays[:3] == [PATIENCE, 2 * PATIENCE, 4 * PATIENCE]
    assert clock.delays[-1] == LONGEST
    clock.now = 31.0
    standing.refuse(lambda: None)
    assert clock.delays[-1] == PATIENCE


@pytest.mark.parametrize(
    "key", [b"abracadabra", b"secret", b"aaaaaaaaaaaaaaaaaaaaaaaa", b"Secret Password", b"0101" * 8]
)
def test_what_everybody_tries_first_is_no_key(key: bytes) -> None:
    """However long it is."""
    assert weakness(key) == "is one that everybody tries first"


def test_a_short_key_is_weak() -> None:
    """And one that is long enough is not."""
    assert weakness(b"x7#kq") == "has 5 bytes, fewer than 16"
    assert weakness(bytes(range(WEAK))) == weakness(KEY * 4) == ""


@pytest.mark.parametrize("key", [b"secret", b"x7#kq"])
def test_a_weak_key_is_refused_where_other_hosts_can_connect(key: bytes) -> None:
    """Nothing has been bound then; on this host it is said in the log."""
    server = ManagerServer("tcp://0.0.0.0:0", key, insecure_network=True)
    with pytest.raises(AccessDenied, match=r"which other hosts can reach, .*secrets.token_hex\(32\)"):
        server.open()
    assert server._listener is None


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:0", "here"])
def test_a_weak_key_is_said_on_this_host(address: str, caplog: pytest.LogCaptureFixture, home: Any) -> None:
    """It works, since people try things out with such keys."""
    with caplog.at_level(logging.WARNING, "registry"), ManagerServer(address, b"secret") as server:
        with connect(server.url, b"secret") as shared:
            assert shared.counter("c").incr() == 1
    assert any(
        "is one that everybody tries first; take another one" in record.getMessage() for record in caplog.records
    )


def _count(server: ManagerServer) -> int:
    return len(server._connections)


def test_a_crowd_of_strangers_keeps_nobody_out(home: Any) -> None:
    """Whoever has the key comes in, and of those who are silent no more stay than may."""
    with ManagerServer("tcp://127.0.0.1:0", KEY) as server:
        server.door._most = 20
        strangers = [socket.create_connection(server.address) for _ in range(100)]
        for stranger in strangers[:40]:
            stranger.settimeout(30)
            while stranger.recv(4096):
                pass  # the challenge, and then the end
        with connect(server.url, KEY) as shared:
            assert shared.counter("c").incr() == 1
            assert len(server.door) <= 20
            assert _count(server) <= 21
        for stranger in strangers:
            stranger.close()


def test_a_wrong_key_is_answered_after_a_while_and_nothing_else_meanwhile(home: Any) -> None:
    """Native and stock clients wait for their answer; what they send meanwhile is not read; the right key waits not."""
    with ManagerServer("tcp://127.0.0.1:0", KEY) as server:
        held: list[Callable[[], object]] = []
        server.door._later = lambda delay, answer: held.append(answer)
        with socket.create_connection(server.address) as stranger:
            stranger.settimeout(30)
            stranger.recv(4096)
            stranger.sendall(len(b"x" * 16).to_bytes(4, "big") + b"x" * 16)
            while not held:
                with connect(server.url, KEY) as shared:
                    assert shared.counter("c").incr() >= 1
            stranger.sendall(b"more")
            (answer,) = held
            assert server._loop is not None
            server._loop.call_soon_threadsafe(answer)
            assert b"#FAILURE#" in stranger.recv(4096)
        server.door._later = server._later
        with pytest.raises(AccessDenied, match="has another key than this process"):
            connect(server.url, b"another key of some length")
        with pytest.raises(Exception, match="digest sent was rejected|another"):
            Client(server.address, authkey=b"another key of some length")
