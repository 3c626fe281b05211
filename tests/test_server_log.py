"""What a server tells its operator, through ``logging.getLogger("registry")``: a line for each thing that matters."""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.managers import BaseManager
from pathlib import Path

import pytest
from servers import another

import registry
from registry import ManagerServer, errors
from registry._limits import Limits
from registry._peers import Peer


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Take all that is logged."""
    caplog.set_level(logging.INFO, "registry")
    return caplog


@pytest.fixture
def server(home: Path, log: pytest.LogCaptureFixture) -> Iterator[ManagerServer]:
    """Serve the name ``x``."""
    with ManagerServer("x") as server:
        yield server


def lines(log: pytest.LogCaptureFixture, pattern: str) -> list[str]:
    """Return the records that match a pattern, each with its level."""
    said = [f"{record.levelname} {record.getMessage()}" for record in log.records if record.name == "registry"]
    return [text for text in said if re.search(pattern, text)]


def killed_holder(address: str, key: str = "None") -> int:
    """Have another process take the lock ``login``, and end at once; return its pid."""
    script = (
        f"import os, registry; c = registry.connect({address!r}, {key}); c.lock('login').acquire();"
        "c.lock('b').acquire().release(); c.semaphore('slots').acquire(); os.kill(os.getpid(), 9)"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    process.wait(30)
    return process.pid


def test_a_session_that_begins(server: ManagerServer, log: pytest.LogCaptureFixture) -> None:
    """One line for a session, whatever it does afterwards; an end in order is no news."""
    with another("x", None, label="worker") as client:
        client.counter("hits").incr()
        client.counter("hits").incr()
    assert lines(log, "session of") == [f"INFO session of worker (pid {os.getpid()} on {socket.gethostname()}) began"]
    assert lines(log, "WARNING") == []


def test_a_session_over_tcp_and_one_of_a_stock_client(home: Path, log: pytest.LogCaptureFixture) -> None:
    """Each kind of client has its line."""

    class Manager(BaseManager):
        pass

    Manager.register("counter")
    with ManagerServer("tcp://127.0.0.1:0", b"k" * 7 + b"ey of some length") as server:
        with another(server.address, b"k" * 7 + b"ey of some length", label="far"):
            pass
        manager = Manager(server.address, b"k" * 7 + b"ey of some length")
        manager.connect()
        manager.counter("hits").incr()
        del manager
    first, second = lines(log, "session of")
    assert re.fullmatch(r"INFO session of far \(.*\) began", first)
    assert re.fullmatch(r"INFO session of .* began, a stock client", second)


def test_a_death_and_what_it_has_abandoned(server: ManagerServer, log: pytest.LogCaptureFixture) -> None:
    """One line for the process, and one for each lock that it held; what it had given back is not among them."""
    with registry.connect("x") as client:
        pid = killed_holder("x")
        with client.lock("login").acquire(timeout=10) as grant:
            assert grant.abandoned
    who = re.escape(f"python -c (pid {pid} on {socket.gethostname()})")
    assert len(lines(log, f"^INFO process of {who} has ended$")) == 1
    (said,) = lines(log, "abandoned")
    assert re.fullmatch(rf"WARNING lock:login was abandoned by {who}, who had had it for \d+\.\d s", said)


def test_a_lease_that_has_run_out(home: Path, log: pytest.LogCaptureFixture) -> None:
    """Over TCP a death is known when the lease has run out, and what was held is abandoned then."""
    with ManagerServer("tcp://127.0.0.1:0", b"a key of some length", lease=0.5) as server:
        with registry.connect(server.address, b"a key of some length") as client:
            pid = killed_holder(server.url, "b'a key of some length'")
            with client.lock("login").acquire(timeout=20) as grant:
                assert grant.abandoned
    assert len(lines(log, rf"^INFO the lease of .*pid {pid} .* has run out$")) == 1
    assert len(lines(log, rf"^WARNING lock:login was abandoned by .*pid {pid} ")) == 1


def test_a_goodbye_that_leaves_a_lock_held(server: ManagerServer, log: pytest.LogCaptureFixture) -> None:
    """Who leaves in order and holds a lock has abandoned it as well: whoever has it next is told so."""
    with another("x", None, label="worker") as client:
        client.lock("login").acquire()
    with registry.connect("x") as client:
        with client.lock("login").acquire(timeout=10) as grant:
            assert grant.abandoned
    assert len(lines(log, r"WARNING lock:login was abandoned by worker \(")) == 1


def test_a_death_while_the_server_was_down(home: Path, log: pytest.LogCaptureFixture) -> None:
    """What has been abandoned meanwhile is told when the server is there again."""
    with ManagerServer("x", log="process"):
        script = "import registry; registry.connect('x').lock('login').acquire(); print(flush=True); input()"
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdout is not None
        process.stdout.readline()
    process.kill()
    process.communicate()
    assert lines(log, "abandoned") == []
    with ManagerServer("x", log="process"):
        assert len(lines(log, rf"INFO process of .*pid {process.pid} .* has ended while the server was down")) == 1
        assert len(lines(log, rf"WARNING lock:login was abandoned by .*pid {process.pid} ")) == 1


def test_a_refusal_names_who_was_refused(server: ManagerServer, log: pytest.LogCaptureFixture) -> None:
    """Who has another key is told by what the kernel knows of it, and why."""
    with pytest.raises(errors.AccessDenied):
        registry.connect("x", b"another key of some length", start=False)
    (said,) = lines(log, "refused")
    assert re.match(rf"WARNING refused a connection from .+ \(pid {os.getpid()}, uid {os.geteuid()}\): ", said)
    assert lines(log, "session of") == []


def test_who_never_shows_a_key_is_refused(server: ManagerServer, log: pytest.LogCaptureFixture) -> None:
    """A peer that says nothing is cut, which is told."""
    server.limits = Limits(handshake=0.05)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(server.address))
        while silent.recv(4096):
            pass
    (said,) = lines(log, "refused")
    assert re.fullmatch(r"INFO refused a connection from .*: it did not show the key within 0.05 s", said)


@pytest.mark.parametrize(
    ("peer", "text"),
    [
        (Peer("unix", uid=1001, pid=812, host="web1", command="python x.py"), "python x.py (pid 812, uid 1001)"),
        (Peer("unix", uid=1001, host="web1"), "web1 (uid 1001)"),
        (Peer("tcp", host="10.0.0.7"), "10.0.0.7"),
        (Peer("tcp"), "an unknown process"),
    ],
)
def test_a_peer_as_people_are_told_of_it(peer: Peer, text: str) -> None:
    """As much as the kernel knows."""
    assert str(peer) == text


def test_an_object_that_a_session_only_used_is_not_abandoned(
    server: ManagerServer, log: pytest.LogCaptureFixture
) -> None:
    """Holding is what counts: a dict that was written and a permit that goes back by itself are no news."""
    with another("x", None) as client:
        client.dict("prices")["BTC"] = 1
        client.semaphore("slots", 2).acquire()
    with registry.connect("x") as client:
        assert client.semaphore("slots").acquire(timeout=10)
    assert lines(log, "abandoned") == []
