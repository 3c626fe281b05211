"""Stock `multiprocessing` of every CPython from 3.6 on, as a client of our server and as the server of our client.

One that is not installed is skipped, and says so. The programs on the other side know nothing of this package.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from servers import Script
from stock_servers import KEY, MINORS, SHA256_SINCE, Stock, python

from registry import ManagerServer, connect
from registry.errors import NoSuchObject, RemoteError, UnknownType

pytestmark = pytest.mark.once

KINDS = ["unix", pytest.param("tcp", marks=pytest.mark.once)]

#: What a stock client does: it says what came of each step in a line, and waits for a line where it holds the lock.
CLIENT = """
import sys
from multiprocessing import AuthenticationError
from multiprocessing.managers import BaseManager, RemoteError

class Manager(BaseManager):
    pass

for typeid in ("dict", "queue", "lock", "rlock", "counter"):
    Manager.register(typeid)

address = sys.argv[1]
if ":" in address:
    host, port = address.rsplit(":", 1)
    address = (host, int(port))
manager = Manager(address, authkey=sys.argv[2].encode())
try:
    manager.connect()
except AuthenticationError:
    print("AuthenticationError")
    sys.exit()
prices, lock, jobs = manager.dict("prices"), manager.lock("login"), manager.queue("jobs")
prices["BTC"] = {"usd": (97000, {1, 2}, None, 2 ** 70, b"b")}
prices.update({"ETH": 1})
value = prices._getvalue()
print(value == {"BTC": {"usd": (97000, {1, 2}, None, 2 ** 70, b"b")}, "ETH": 1}, str(prices) == repr(value))
print(prices["BTC"]["usd"][1], len(prices), sorted(prices), "ETH" in prices, manager.counter("c").incr(by=3))
attempts = (lambda: prices["none"], lambda: jobs.get(timeout=0), lambda: prices._callmethod("__class__"), lock.release)
for attempt in attempts:
    try:
        attempt()
        print("nothing was raised")
    except Exception as error:
        print((type(error).__name__ + " " + str(error).replace("\\n", " ")).strip("- "))
rlock = manager.rlock("r")
print(rlock.acquire(), rlock.acquire(False), rlock.release(), rlock.release(), lock.acquire(), lock.locked())
lock.release()
lock.acquire()
other = manager.lock("other")
del other
print("held", flush=True)
sys.stdin.readline()
"""


def where(server: ManagerServer) -> str:
    """Return the address of a server as the programs here take it."""
    address = server.address
    return address if isinstance(address, str) else "{}:{}".format(*address)


@contextmanager
def serving(kind: str, **options: Any) -> Iterator[ManagerServer]:
    """Run a server of ours on a thread."""
    address: Any = "here" if kind == "unix" else ("127.0.0.1", 0)
    with ManagerServer(address, KEY, **options) as server:
        yield server


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("minor", MINORS)
def test_a_stock_client_of_each_python(minor: int, kind: str) -> None:
    """It makes, calls, copies and locks, is told errors as it knows them, and what it held is free at its death."""
    with serving(kind) as server, Script(CLIENT, where(server), KEY.decode(), python=python(minor)) as client:
        assert client.line() == "True True"
        assert client.line() == "{1, 2} 2 ['BTC', 'ETH'] True 3"
        assert client.line() == "KeyError 'none'"
        assert client.line() == "Empty"
        assert "exposes no '__class__'" in client.line()
        assert "login" in client.line()
        assert client.line() == "True True None None True True"
        assert client.line() == "held"
        with connect(server.url, KEY) as shared:
            assert shared.dict("prices")["BTC"] == {"usd": (97_000, {1, 2}, None, 2**70, b"b")}
            lock = shared.lock("login")
            refused = lock.acquire(blocking=False)
            assert not refused
            assert f"pid {client.pid}" in refused.holder
            client.kill()
            with lock.acquire(timeout=30) as grant:
                assert grant.abandoned


@pytest.mark.once
@pytest.mark.parametrize("minor", MINORS)
def test_a_server_that_takes_no_md5(minor: int, caplog: pytest.LogCaptureFixture) -> None:
    """Older ones are refused in one line of the log and in the word that they have for it, the newer ones served."""
    program = python(minor)
    with caplog.at_level(logging.WARNING, "registry"), serving("tcp", no_md5=True) as server:
        with Script(CLIENT, where(server), KEY.decode(), python=program) as client:
            told = client.line()
        said = [record.getMessage() for record in caplog.records if "MD5" in record.getMessage()]
        if minor >= SHA256_SINCE:
            assert (told, said) == ("True True", [])
        else:
            assert told == "AuthenticationError"
            (line,) = said
            assert line.startswith("refused a connection from ")
            assert line.endswith(
                ": a stock client that answers with MD5, which this server was told not to take; "
                "Python 3.12 and newer speak SHA-256"
            )
            assert not server.host.objects()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("minor", MINORS)
def test_a_stock_server_of_each_python(minor: int, kind: str, home: Path) -> None:
    """Our client makes, calls, copies, locks and lets go there, and is told errors as they are."""
    with Stock(home / "s" if kind == "unix" else "127.0.0.1:0", python(minor)) as stock:
        with connect(stock.url, KEY, timeout=30) as shared:
            items, counter = shared.items(), shared.counter(5)
            items["BTC"] = value = {"usd": (97_000, {1, 2}, None, 2**70, b"b")}
            assert items["BTC"] == value
            assert (list(items), len(items), items._getvalue()) == (["BTC"], 1, {"BTC": value})
            assert counter.add(by=3) == 8
            assert counter.fork().add() == 9
            with shared.login(), shared.rlogin(), shared.rlogin():
                assert shared.login().acquire(False) is False
            jobs = shared.jobs()
            jobs.put(counter.echo(1, x=2))
            assert jobs.get() == ((1,), {"x": 2})
            _refuses(lambda: items["none"], KeyError, "'none'")
            _refuses(lambda: counter.fail("OSError", 2, "gone"), FileNotFoundError, "gone")
            _refuses(counter.sealed, RemoteError, "TypeError: it is sealed")
            _refuses(lambda: shared.cookies(), UnknownType, "cookies")
            before = shared.statistics()["objects"]
            other = shared.counter()
            assert shared.statistics()["objects"] == before + 1
            pickled = pickle.dumps(other)
            del other
            assert shared.statistics()["objects"] == before
            _refuses(lambda: pickle.loads(pickled), NoSuchObject, "it went with its last proxy")


def _refuses(attempt: Callable[[], object], kind: type[BaseException], text: str) -> None:
    with pytest.raises(kind) as caught:
        attempt()
    assert text in str(caught.value)
