"""Under frameworks: gunicorn that loads before it forks, greenlets of gevent, and event loops."""

from __future__ import annotations

import http.client
import importlib.util
import json
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import servers
from servers import Script, until
from sizes import size

from registry import ManagerClient, ManagerServer, connect

APPS = str(Path(__file__).with_name("apps"))
GUNICORN = "import sys; sys.argv[0] = 'gunicorn'; from gunicorn.app.wsgiapp import run; run()"
WORKERS = {
    "sync": ("wsgi:app", []),
    "gthread": ("wsgi:app", ["--threads", "4"]),
    "gevent": ("wsgi:app", []),
    "uvicorn.workers.UvicornWorker": ("asgi:app", []),
}
# Those in which one process serves several requests at a time.
SEVERAL = [name for name in WORKERS if name != "sync"]


def need(*names: str) -> None:
    """Skip the test where a package is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed for Python {sys.version_info[0]}.{sys.version_info[1]}")


need_gevent = pytest.mark.skipif(
    importlib.util.find_spec("gevent") is None,
    reason=f"gevent is not installed for Python {sys.version_info[0]}.{sys.version_info[1]}",
)


class Web(Script):
    """A gunicorn that serves one of the applications at a unix socket."""

    def __init__(self, home: Path, kind: str, workers: int) -> None:
        need("gunicorn", *(["gevent"] if kind == "gevent" else []), *(["uvicorn"] if "uvicorn" in kind else []))
        app, options = WORKERS[kind]
        self._path = str(home / "http")
        words = ["-c", f"{APPS}/gunicorn_conf.py", "--chdir", APPS, "-k", kind, "-w", workers, *options, app]
        super().__init__(GUNICORN, *words)
        line = self.line().split()
        assert line[:1] == ["ready"], line

    def get(self, path: str) -> dict[str, Any] | None:
        """Return the answer to a request, None if the worker ended instead."""
        connection = http.client.HTTPConnection("localhost", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(30)
        try:
            connection.sock.connect(self._path)
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
            assert response.status == 200, body
            answer: dict[str, Any] = json.loads(body)
            return answer
        except (http.client.HTTPException, ConnectionError):
            return None
        finally:
            connection.close()

    def end(self) -> None:
        """Have it end in order."""
        self.signal(signal.SIGTERM)
        assert self.wait() == 0


@pytest.fixture
def client(home: Path) -> Iterator[ManagerClient]:
    """A client of the server that the applications use."""
    with ManagerServer("web", plugins=[servers.THINGS]), connect("web", start=False) as client:
        yield client


@pytest.mark.parametrize("kind", WORKERS)
def test_gunicorn_counts_each_request_once(
    kind: str, home: Path, client: ManagerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers forked from a master that uses the registry are sessions of their own, and locks exclude them."""
    monkeypatch.setenv("MASTER_HOLDS", "yes")
    requests = size(60, 5_000)
    with Web(home, kind, workers=2) as web:
        assert client.counter("loads").get() == 1
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(web.get, ["/hit"] * requests))
        assert all(answer is not None and answer["together"] == 1 for answer in answers)
        assert sorted(answer["count"] for answer in answers if answer) == list(range(1, requests + 1))
        assert not any(answer["abandoned"] for answer in answers if answer)
        workers = {answer["pid"] for answer in answers if answer}
        assert web.pid not in workers
        # The master, this process, and each worker that was asked.
        assert client.statistics()["sessions"] == 2 + len(workers)
        # Whom the kernel's pidfd stands for, not who uses the descriptor now.
        refused = client.lock("only master").acquire(timeout=0)
        assert not refused and f"pid {web.pid}" in refused.holder
        web.end()
    until(lambda ask: ask.statistics()["sessions"] == 1, client)
    grant = client.lock("only master").acquire(timeout=10)
    assert grant and grant.abandoned
    assert client.counter("hits").get() == requests
    assert client.counter("inside").get() == 0


@pytest.mark.parametrize("kind", WORKERS)
def test_a_worker_that_is_killed_frees_its_lock(
    kind: str, home: Path, client: ManagerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next to have the lock is told, and neither the master nor the worker in its place has lost anything."""
    monkeypatch.setenv("MASTER_HOLDS", "yes")
    with Web(home, kind, workers=1) as web:
        for round in range(1, size(2, 20) + 1):
            before = web.get("/hit")
            assert before is not None and before["count"] == 2 * round - 1
            assert web.get("/die") is None
            after = web.get("/hit")
            assert after is not None and after["count"] == 2 * round
            assert after["abandoned"] and after["together"] == 1
            assert after["pid"] != before["pid"]
            # It was told and has released in order.
            assert not client.lock("turn").acquire(timeout=10).release()
        assert not client.lock("only master").acquire(timeout=0)
        web.end()


@pytest.mark.parametrize("kind", SEVERAL)
@pytest.mark.parametrize("early", [False, True], ids=["", "used before"])
def test_a_wait_of_one_request_does_not_stop_others(
    kind: str, early: bool, home: Path, client: ManagerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one process, threads and greenlets take turns; each of them is an owner, from which others are excluded.

    With `early` the worker has a session before gevent replaces the threads and sockets of its process.
    """
    if early:
        monkeypatch.setenv("BEFORE_PATCHING", "yes")
    with Web(home, kind, workers=1) as web, ThreadPoolExecutor(4) as pool:
        for _ in range(size(3, 100)):
            waiting = pool.submit(web.get, "/take")
            until(lambda ask: any(row["waiting"] for row in ask.objects("queue:parcels")), client)
            entered, counted = web.get("/enter"), web.get("/hit")
            assert entered is not None and counted is not None
            assert not entered["entered"] and counted["together"] == 1
            given = web.get("/give")
            taken = waiting.result(30)
            assert given is not None and taken is not None and taken["parcel"] == "a parcel"
            assert entered["pid"] == counted["pid"] == given["pid"] == taken["pid"] != web.pid
            entered = web.get("/enter")
            assert entered is not None and entered["entered"]
        assert client.counter("loads").get() == 1 + early
        web.end()


# -- gevent by itself -----------------------------------------------------------------------------

GREENLETS = """
import sys
from gevent import monkey
{before}
monkey.patch_all()
{after}
"""

# Used before threads are replaced, with a grant held by the thread that becomes the main greenlet.
USED = """
from registry import connect
client = connect(sys.argv[1], start=False, timeout=20)
lock, again = client.lock("l"), client.rlock("r")
lock.__enter__()
held = again.acquire()
"""
IMPORTED = "from registry import connect"


def greenlets(address: str, code: str, before: str = "") -> list[str]:
    """Run code in a process that gevent has patched, and return the lines that it prints."""
    with Script(GREENLETS.format(before=before, after=code), address) as script:
        lines = list(iter(script.line, ""))
        assert script.wait() == 0
    return lines


@need_gevent
@pytest.mark.parametrize("before", ["", IMPORTED], ids=["patched first", "imported first"])
def test_greenlets_share_a_session(client: ManagerClient, before: str) -> None:
    """Greenlets read for each other as threads do, and each call gets its own reply."""
    code = """
import gevent
from registry import connect
client = connect(sys.argv[1], start=False, timeout=20)
count, jobs = client.counter("c"), client.queue("q")
seen = []
def add():
    for _ in range(50):
        seen.append(count.incr())
        gevent.sleep(0)
taker = gevent.spawn(lambda: [jobs.get() for _ in range(20)])
putter = gevent.spawn(lambda: [jobs.put(i) for i in range(20)])
gevent.joinall([gevent.spawn(add) for _ in range(10)], raise_error=True)
print(sorted(seen) == list(range(1, 501)), taker.get() == list(range(20)), client.statistics()["sessions"])
"""
    assert greenlets("web", code, before) == ["True True 2"]


@need_gevent
def test_what_was_held_before_patching_is_held_after(client: ManagerClient) -> None:
    """Same session, same owner: the main greenlet re-enters, leaves and releases; others are excluded."""
    code = """
import gevent
print(bool(again.acquire(timeout=0)), bool(gevent.spawn(again.acquire, timeout=0).get()))
lock.__exit__(None, None, None)
again.release()
held.release()
with gevent.spawn(again.acquire, timeout=5).get() as other:
    print(bool(other), lock.locked())
print(client.statistics()["sessions"])
"""
    assert greenlets("web", code, USED) == ["True False", "True False", "2"]


LEASED = """
import os
from registry import connect
client = connect(sys.argv[1], sys.argv[2].encode(), timeout=20)
held = client.lock("l").acquire()
{fork}
"""
FORKED = """
child = os.fork()
if child:
    os.waitpid(child, 0)
    held.release()
    os._exit(0)
"""


@need_gevent
@pytest.mark.parametrize("fork", ["", FORKED], ids=["same process", "forked"])
def test_a_leased_session_is_looked_after_by_a_greenlet(fork: str, home: Path) -> None:
    """The thread that sends heartbeats was one of the time before; a greenlet takes its place."""
    code = """
import gevent, threading
import registry._keeper
states = []
client.listen(states.append)
count = client.counter("c")
gevent.joinall([gevent.spawn(count.incr) for _ in range(10)], raise_error=True)
with gevent.Timeout(20):
    while "connected" not in states:
        gevent.sleep(0)
print(count.get(), bool(client.lock("l").acquire(timeout=0)), registry._keeper._keeper.threads is threading.local)
"""
    with ManagerServer(("127.0.0.1", 0), servers.KEY) as server:
        program = GREENLETS.format(before=LEASED.format(fork=fork), after=code)
        with Script(program, server.url, servers.KEY.decode()) as script:
            assert list(iter(script.line, "")) == ["10 False True"]
            assert script.wait() == 0


@need_gevent
def test_a_greenlet_gives_up_in_time(home: Path) -> None:
    """A server that does not answer keeps no greenlet past its deadline, and all the others go on."""
    code = """
import gevent, os, registry._link, signal
from registry import connect
from registry.errors import CallTimeout
registry._link.SETTLE = 0.1
client = connect(sys.argv[1], sys.argv[2].encode(), timeout=1.1)
count = client.counter("c")
count.incr()
server = client.statistics()["pid"]
os.kill(server, signal.SIGSTOP)
turns = [0]
def others():
    while True:
        gevent.sleep(0.01)
        turns[0] += 1
gevent.spawn(others)
with gevent.Timeout(30):
    for _ in range(2):
        try:
            count.get()
        except CallTimeout as error:
            print(error.call, turns[0] > 10)
os.kill(server, signal.SIGCONT)
client._home.timeout = 20
print(count.incr())
"""
    with servers.Served("here") as served:
        try:
            with Script(GREENLETS.format(before="", after=code), served.url, servers.KEY.decode()) as script:
                assert list(iter(script.line, "")) == ["counter:c.get() True"] * 2 + ["2"]
                assert script.wait() == 0
        finally:
            served.signal(signal.SIGCONT)


@need_gevent
def test_a_close_ends_the_calls_of_other_greenlets(client: ManagerClient) -> None:
    """The one who reads and the one who waits for it are both told, though the socket waits outside of the kernel."""
    code = """
import gevent
from registry import connect
from registry.errors import Closed
client = connect(sys.argv[1], start=False, timeout=20)
jobs = client.queue("q")
def take():
    try:
        jobs.get()
    except Closed:
        return "closed"
takers = [gevent.spawn(take) for _ in range(3)]
watcher = connect("web", start=False)
while watcher.objects("queue:q")[0]["waiting"] < 3 if watcher.objects("queue:q") else True:
    gevent.sleep(0)
watcher.close()
client.close()
print([taker.get() for taker in takers])
"""
    assert greenlets("web", code) == ["['closed', 'closed', 'closed']"]


@need_gevent
def test_a_large_value_passes_between_greenlets(client: ManagerClient) -> None:
    """More than the socket's buffer holds is sent in parts, while others wait their turn to send."""
    code = """
import gevent
from registry import connect
client = connect(sys.argv[1], start=False, timeout=20)
d, count = client.dict("d"), client.counter("c")
def put(key):
    d[key] = bytes([65 + key]) * 5_000_000
gevent.joinall([*[gevent.spawn(put, key) for key in range(4)], gevent.spawn(count.incr)], raise_error=True)
print([d[key] == bytes([65 + key]) * 5_000_000 for key in range(4)], count.get())
"""
    assert greenlets("web", code) == ["[True, True, True, True] 1"]


@need_gevent
def test_memory_works_between_greenlets() -> None:
    """The engine of ``memory://`` becomes a greenlet like the rest."""
    code = """
import gevent
from registry import connect
with connect("memory://") as client:
    jobs = client.queue("q")
    taker = gevent.spawn(jobs.get)
    gevent.sleep(0)
    jobs.put("x")
    print(taker.get())
"""
    assert greenlets("", code) == ["x"]


@need_gevent
def test_a_server_does_not_run_in_a_greenlet(home: Path) -> None:
    """It would stop all others: it is refused, with what to do instead."""
    code = """
from registry import ManagerServer
try:
    ManagerServer("other").start()
except RuntimeError as error:
    print(error)
"""
    (line,) = greenlets("", code)
    assert "gevent has replaced threads here" in line and "registry serve --address" in line


@need_gevent
def test_a_server_is_started_on_demand_from_a_greenlet(home: Path) -> None:
    """`subprocess` is gevent's there; the server that it starts is a process like any other."""
    import server_processes

    code = """
from registry import connect
with connect(sys.argv[1]) as client:
    print(client.counter("c").incr())
"""
    try:
        assert greenlets("fresh", code) == ["1"]
    finally:
        server_processes.end_all(home)


@need_gevent
def test_greenlets_go_on_in_a_forked_child(client: ManagerClient) -> None:
    """A fork copies greenlets, calls under way included: the child's are told that those are the parent's."""
    code = """
import gevent, os
from registry import connect
from registry.errors import OutcomeUnknown
client = connect(sys.argv[1], start=False, timeout=20)
jobs, count = client.queue("q"), client.counter("c")
def take():
    try:
        return jobs.get()
    except OutcomeUnknown:
        return "the parent's"
takers = [gevent.spawn(take) for _ in range(2)]
while not any(row["waiting"] == 2 for row in client.objects("queue:q")):
    gevent.sleep(0)
child = os.fork()
if not child:
    said = [taker.get() for taker in takers]
    count.incr()
    jobs.put("a")
    jobs.put("b")
    print(said, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(sorted(taker.get() for taker in takers), count.incr())
"""
    assert greenlets("web", code) == ['["the parent\'s", "the parent\'s"]', "['a', 'b'] 2"]
