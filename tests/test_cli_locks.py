"""``registry locks`` and ``registry release``: what they print, how they end, and what they leave alone."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import click
import pytest
from servers import another, running, until

from registry import ManagerClient, ManagerServer, cli
from registry.cli import _common
from registry.errors import LockLost, NoSuchObject

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO())


@pytest.fixture
def server(home: Path) -> Iterator[ManagerServer]:
    with ManagerServer("x") as server:
        yield server


@pytest.fixture
def holder(server: ManagerServer) -> Iterator[ManagerClient]:
    with another("x", None, label="worker") as client:
        yield client


@pytest.fixture
def waiter(server: ManagerServer) -> Iterator[ManagerClient]:
    with another("x", None) as client:
        yield client


def waiting(client: ManagerClient, name: str, asker: ManagerClient) -> threading.Thread:
    """Have a thread of a client wait for a lock, and return it once it does."""
    thread = threading.Thread(target=lambda: client.lock(name).acquire().release(), name="Worker-3")
    thread.start()
    until(lambda ask: ask.statistics(ask.lock(name))["waiters"], asker)
    return thread


def run(captured: Captured, *words: str) -> tuple[int, str, str]:
    """Run a command and return how it ended and what it said."""
    captured.readouterr()
    code = cli.run([*words, "-a", "x"])
    said = captured.readouterr()
    return code, said.out, said.err


def test_a_duration_as_people_write_it() -> None:
    """In its two largest units."""
    texts = {0.9: "0 s", 59: "59 s", 60: "1 min", 200: "3 min 20 s", 7300: "2 h 1 min", 90_000: "1 d 1 h", -5: "0 s"}
    assert {seconds: _common.duration(seconds) for seconds in texts} == texts


def test_locks_lists_what_is_held_or_awaited(holder: ManagerClient, waiter: ManagerClient, capsys: Captured) -> None:
    """Holder, since when, token, how many wait; with an option who they are. What nobody holds is left out."""
    grant = holder.lock("login").acquire()
    holder.semaphore("slots", 2).acquire()
    holder.counter("c").incr()
    holder.lock("free").acquire().release()
    thread = waiting(waiter, "login", holder)
    code, out, err = run(capsys, "locks")
    heading, *lines = out.splitlines()
    assert (code, err) == (0, "") and heading.split() == ["object", "holder", "for", "token", "waiting"]
    me = re.escape(f"worker (pid {os.getpid()} on ") + r"\S+\)"
    assert re.fullmatch(rf"lock:login +{me} +\d+ s +{grant.token} +1", lines[0])
    assert re.fullmatch(rf"semaphore:slots +{me} +\d+ s +\d+", lines[1]) and len(lines) == 2
    _, out, _ = run(capsys, "locks", "lock:*", "--waiters")
    assert len(out.splitlines()) == 3 and re.search(r"waits: .+\(pid \d+ on \S+\), thread Worker-3 ", out)
    code, out, _ = run(capsys, "locks", "lock:*", "--json")
    (row,) = json.loads(out)["locks"]
    assert (row["object"], row["abandoned"], row["holders"][0]["state"]) == ("lock:login", False, "connected")
    assert (row["holders"][0]["label"], row["holders"][0]["pid"]) == ("worker", os.getpid())
    assert (row["waiters"][0]["thread"], row["waiters"][0]["deadline"]) == ("Worker-3", None)
    assert json.loads(out)["suspected"] == []
    grant.release()
    thread.join(20)
    assert run(capsys, "locks", "nothing:*")[:2] == (0, "")


def test_locks_shows_what_was_abandoned(server: ManagerServer, holder: ManagerClient, capsys: Captured) -> None:
    """Until somebody has taken and released it, since what it protects may be half changed."""
    with another("x", None) as client:
        client.lock("login").acquire()
    _, out, _ = run(capsys, "locks")
    assert out.splitlines()[1].split() == ["lock:login", "abandoned"]
    holder.lock("login").acquire().release()
    assert run(capsys, "locks")[1] == ""


def test_locks_shows_suspected_deadlocks(holder: ManagerClient, waiter: ManagerClient, capsys: Captured) -> None:
    """Two processes that hold a lock each and wait for the other's may be in one."""
    together = threading.Barrier(2)

    def get(client: ManagerClient, first: str, second: str) -> None:
        client.lock(first).acquire()
        together.wait()
        with pytest.raises(NoSuchObject):
            client.lock(second).acquire()

    with running(lambda: get(holder, "a", "b"), lambda: get(waiter, "b", "a")):
        with another("x", None) as asker:
            until(lambda ask: ask.statistics()["waiting"] == 2, asker)
            _, _, err = run(capsys, "locks")
            for name in ("a", "b"):
                asker.delete(asker.lock(name))
    assert err.startswith("registry: suspected deadlock: ") and "waits for lock:a until" in err
    assert "waits for lock:b until" in err


def test_release_does_nothing_unasked(holder: ManagerClient, capsys: Captured) -> None:
    """Without a terminal it says who holds the lock, and that it lives, and ends with 5."""
    grant = holder.lock("login").acquire()
    code, out, err = run(capsys, "release", "lock:login")
    assert (code, out) == (5, "")
    assert re.fullmatch(
        rf"registry: lock:login is held by worker \(pid {os.getpid()} on \S+\), for \d+ s: it lives, and may be at "
        r"work on what the lock protects; nothing was done. --yes releases it all the same\n",
        err,
    )
    grant.release()


@pytest.mark.parametrize("answer", [True, False])
def test_release_asks(holder: ManagerClient, capsys: Captured, monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
    """A no leaves the lock where it is."""
    monkeypatch.setattr(_common, "interactive", lambda: True)
    asked: list[str] = []
    monkeypatch.setattr(click, "confirm", lambda text, **options: asked.append(text) or answer)
    holder.lock("login").acquire()
    code, _, err = run(capsys, "release", "lock:login")
    assert asked[0].endswith("protects. Release it?")
    assert code == (0 if answer else 5)
    assert holder.statistics(holder.lock("login"))["abandoned"] is answer
    assert ("nothing was done" in err) is not answer


def test_release_takes_the_lock(holder: ManagerClient, waiter: ManagerClient, capsys: Captured) -> None:
    """The next in line has it, and is told of it; the former holder's next call says that it is lost."""
    holder.lock("login").acquire()
    thread = waiting(waiter, "login", holder)
    code, out, err = run(capsys, "release", "lock:login", "--yes")
    assert (code, out) == (0, "")
    assert re.fullmatch(
        rf"registry: released lock:login, which was held by worker \(pid {os.getpid()} on \S+\); its next call raises "
        r"LockLost\n",
        err,
    )
    thread.join(20)
    with pytest.raises(LockLost, match=r"^lock:login on server 'x' .* by force, by registry release \(pid "):
        holder.counter("c").incr()
    assert holder.counter("c").incr() == 1
    holder.lock("login").acquire()
    code, out, _ = run(capsys, "release", "lock:login", "--yes", "--json")
    said = json.loads(out)
    assert (code, said["released"], said["holder"]["label"]) == (0, "lock:login", "worker")


def test_release_of_one_among_several(holder: ManagerClient, capsys: Captured) -> None:
    """Which one is to be said; the others stay."""
    slots = holder.semaphore("slots", 2)
    first, second = slots.acquire(), slots.acquire()
    code, _, err = run(capsys, "release", "semaphore:slots", "--yes")
    assert code == 5 and "is held by several" in err and f"by {first.token}" in err and "--token" in err
    assert run(capsys, "release", "semaphore:slots", "--yes", "--token", str(first.token))[0] == 0
    second.release()
    with pytest.raises(LockLost):
        first.release()
    assert slots.value() == 2


@pytest.mark.parametrize("lock", ["lock:free", "lock:nowhere", "nothing:x", "dict:d"])
def test_release_of_what_nobody_holds(holder: ManagerClient, capsys: Captured, lock: str) -> None:
    """It is a conflict, and nothing happens, nor is anything made."""
    holder.lock("free").acquire().release()
    holder.dict("d")["k"] = 1
    before = [row["name"] for row in holder.objects()]
    code, _, err = run(capsys, "release", lock, "--yes")
    assert (code, err) == (5, f"registry: nobody holds {lock}; nothing was done\n")
    assert [row["name"] for row in holder.objects()] == before


def test_a_turn_to_edit_cannot_be_released(holder: ManagerClient, capsys: Captured) -> None:
    """It has no grant that could be lost; its holder ends it."""
    shared = holder.dict("d")
    shared["k"] = [1]
    with shared.edit("k") as value:
        code, _, err = run(capsys, "release", "dict:d", "--yes")
        assert code == 5 and "holds dict:d without a grant that could be taken; nothing was done" in err
        value.append(2)
    assert shared["k"] == [1, 2]


@pytest.mark.parametrize("command", [["locks"], ["release", "lock:login", "--yes"]])
def test_no_server(home: Path, capsys: Captured, command: list[str]) -> None:
    """None is started to be asked."""
    assert run(capsys, *command)[0] == 3
    assert not (home / "x" / "socket").exists()
