"""Processes that fork, exec and end: each is a session of its own, and what it held goes on when it is gone."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.util import Finalize
from typing import Any

import pytest
import servers
from servers import KEY, Script, Served, running, until
from sizes import size

import registry.client
from registry import ManagerClient, ManagerServer, connect
from registry.errors import Closed, LockLost, NotOwner, ServerNotFound

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")

METHODS = [name for name in ("fork", "spawn", "forkserver") if name in multiprocessing.get_all_start_methods()]
ADDRESSES = ("here", ("127.0.0.1", 0))


@pytest.fixture(params=ADDRESSES, ids=["unix", "tcp"])
def server(request: pytest.FixtureRequest, home: object) -> Iterator[ManagerServer]:
    """A server whose key is in no file, and whose leases outlast every test."""
    with ManagerServer(request.param, KEY, lease=3600.0) as server:
        yield server


@pytest.fixture
def client(server: ManagerServer) -> Iterator[ManagerClient]:
    with connect(server.url, KEY, timeout=20) as client:
        yield client


def in_child(function: Callable[[], object]) -> object:
    """Run a function in a forked child, and return what it returns or raises."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - the parent looks at it
                result = type(error)
            os.write(writer, pickle.dumps(result))
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    return pickle.loads(data)


# -- multiprocessing ------------------------------------------------------------------------------


def work(url: str, lock: Any, inside: Any, count: Any, times: int) -> int:
    """Count in the lock; return how many sessions there were, and whether it was ever entered by two."""
    client = ManagerClient(url, KEY)
    worst = 0
    for _ in range(times):
        with lock:
            worst = max(worst, inside.incr())
            count.incr()
            inside.incr(-1)
    sessions: int = client.statistics()["sessions"]
    return sessions if worst == 1 else -worst


def work_and_say(answers: Any, *args: Any) -> None:
    answers.put("here")
    answers.put(work(*args))


@pytest.mark.parametrize("method", METHODS)
def test_proxies_are_arguments(method: str, server: ManagerServer, client: ManagerClient) -> None:
    """A child uses what it is given, by the key that its own client has; proxy and client are one session."""
    context = get_context(method)
    lock, inside, count = client.lock("l"), client.counter("i"), client.counter("c")
    answers = context.SimpleQueue()
    with lock:
        process = context.Process(target=work_and_say, args=(answers, server.url, lock, inside, count, 5))
        process.start()
        assert answers.get() == "here"
        until(lambda ask: any(row["waiting"] for row in ask.objects("lock:l")), client)
        assert count.incr() == 1
    assert answers.get() == 2
    process.join()
    answers.close()
    assert process.exitcode == 0
    assert count.get() == 6


@pytest.mark.parametrize("method", METHODS)
def test_a_pool_counts_each_job_once(method: str, server: ManagerServer, client: ManagerClient) -> None:
    """Workers exclude each other, and are as many sessions as they are processes."""
    lock, inside, count = client.lock("l"), client.counter("i"), client.counter("c")
    jobs = size(12, 400)
    count.incr(0)
    with get_context(method).Pool(3) as pool:
        seen = pool.starmap(work, [(server.url, lock, inside, count, 4)] * jobs, chunksize=1)
        pool.close()
        pool.join()
    assert count.get() == 4 * jobs
    assert min(seen) >= 2 and max(seen) <= 4


def take_and_return(url: str, name: str) -> None:
    ManagerClient(url, KEY).lock(name).acquire()


@pytest.mark.parametrize("method", METHODS)
def test_a_child_says_goodbye(method: str, server: ManagerServer, client: ManagerClient) -> None:
    """Children of `multiprocessing` end without `atexit`; still what they hold is free at once, over TCP too."""
    process = get_context(method).Process(target=take_and_return, args=(server.url, "l"))
    process.start()
    process.join()
    assert process.exitcode == 0
    grant = client.lock("l").acquire(timeout=10)
    assert grant and grant.abandoned


def leave_a_thread(url: str, pipe: Any) -> None:
    client = ManagerClient(url, KEY, timeout=20)
    jobs, count = client.queue("q"), client.counter("c")
    jobs.put("first")

    def go_on() -> None:
        pipe.send(jobs.get())
        pipe.send(jobs.get())
        count.incr()

    threading.Thread(target=go_on).start()
    Finalize(None, pipe.send, args=("left",), exitpriority=-2000)


@pytest.mark.parametrize("method", METHODS)
def test_a_child_that_still_works_says_no_goodbye(method: str, server: ManagerServer, client: ManagerClient) -> None:
    """Its function has returned, but not its threads: they work on."""
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        process = get_context(method).Process(target=leave_a_thread, args=(server.url, theirs))
        process.start()
        # Before 3.13 a child is as good as ended when its function returns, and only then waits for its threads.
        first = {"first", "left"} if sys.version_info < (3, 13) else {"first"}
        assert {ours.recv() for _ in first} == first
        client.queue("q").put("second")
        assert ours.recv() == "second"
        process.join()
    assert process.exitcode == 0
    assert client.counter("c").get() == 1


# -- forks at any moment --------------------------------------------------------------------------


def test_children_of_children_are_sessions(client: ManagerClient) -> None:
    """Each generation begins anew, and leaves those before it alone."""
    lock, count = client.lock("l"), client.counter("c")

    def child(depth: int) -> object:
        taken = bool(lock.acquire(timeout=0))
        below = in_child(lambda: child(depth - 1)) if depth else ()
        return (taken, client.statistics()["sessions"], count.incr(), *below)  # type: ignore[misc]

    with lock:
        # Over TCP those that have ended without a goodbye are believed for their lease.
        taken, _, number, *below = in_child(lambda: child(2))  # type: ignore[misc]
        assert not taken and not below[0] and not below[3]
        assert sorted([number, below[2], below[5]]) == [1, 2, 3]
        assert below[4] == 4  # the innermost sees all that wait for it
        assert count.incr() == 4
    assert not lock.locked()


def test_a_child_that_closes_leaves_the_parent_connected(client: ManagerClient) -> None:
    """The goodbye of a child is about its own session."""
    lock = client.lock("l")
    with lock:

        def child() -> object:
            client.counter("c").incr()
            client.close()
            with pytest.raises(Closed):
                client.counter("c").incr()
            return "closed"

        assert in_child(child) == "closed"
        assert in_child(lambda: client.close()) is None  # also where it was not used
        assert lock.locked()
        assert client.counter("c").incr() == 2
    assert not lock.locked()


def test_leaving_an_inherited_block_does_nothing(client: ManagerClient) -> None:
    """Whatever is left in a child, a block, a grant's block, an edit, it stays the parent's."""
    lock, again, both, d = client.lock("l"), client.rlock("r"), client.rwlock("w"), client.dict("d")
    d["k"] = [1]
    with lock as outer, again, again, both.write() as writing, d.edit("k") as value:
        value.append(2)

        def child() -> object:
            lock.__exit__(None, None, None)
            again.__exit__(None, None, None)
            again.__exit__(None, None, None)
            outer.__exit__(None, None, None)
            writing.__exit__(None, None, None)
            with pytest.raises(LockLost):
                outer.release()
            with pytest.raises((NotOwner, LockLost)):
                again.release()
            with client.lock("of the child"):
                return [bool(each.acquire(timeout=0)) for each in (lock, again)]

        assert in_child(child) == [False, False]
        assert client.statistics(d)["stopped"] == ""
    assert d["k"] == [1, 2]
    assert not lock.locked()


def test_a_fork_while_locks_of_the_client_are_held(server: ManagerServer) -> None:
    """Another thread may be anywhere: making a session, sending, reading, drawing a number."""
    used, fresh = connect(server.url, KEY), ManagerClient(server.url, KEY)
    link = used._home.link()
    used.counter("c").incr()
    held, done = threading.Barrier(2), threading.Event()

    def hold() -> None:
        with used._home._lock, fresh._home._lock, registry.client._links_lock, link._sending, link._reading:
            held.wait()
            done.wait()

    with running(hold):
        held.wait()
        try:
            assert in_child(lambda: (used.counter("c").incr(), fresh.counter("c").incr())) == (2, 3)
        finally:
            done.set()
    used.close()
    fresh.close()


FORKS_INSIDE = """
import os, signal, sys
from registry import connect
from registry.errors import OutcomeUnknown
client = connect(sys.argv[1], sys.argv[2].encode() or None, timeout=20)
jobs, count = client.queue("q"), client.counter("c")
child = 0
def fork(*args):
    global child
    child = os.fork()
signal.signal(signal.SIGUSR1, fork)
print("ready", flush=True)
try:
    got = jobs.get(timeout=20)
except OutcomeUnknown as error:
    got = error.call
    if not child and not sys.argv[1].startswith("memory"):
        count.incr()
if child:
    os.waitpid(child, 0)
print(bool(child), got, flush=True)
if child:
    sys.stdin.readline()
os._exit(0)
"""


def test_a_signal_handler_that_forks_inside_of_a_call(server: ManagerServer, client: ManagerClient) -> None:
    """The call is the parent's: the child is told so, and goes on with a session of its own."""
    with Script(FORKS_INSIDE, server.url, KEY.decode()) as script:
        assert script.line() == "ready"
        until(lambda ask: any(row["waiting"] for row in ask.objects("queue:q")), client)
        script.signal(signal.SIGUSR1)
        assert script.line() == "False queue:q.get()"
        assert client.counter("c").get() == 1
        client.queue("q").put("for the parent")
        assert script.line() == "True for the parent"
        script.say()
        assert script.wait() == 0


def test_a_fork_inside_of_a_call_to_memory() -> None:
    """Its server stays with the parent, and the child does not wait for it."""
    code = FORKS_INSIDE.replace(
        'print("ready", flush=True)',
        "import threading; threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()\n"
        "threading.Timer(0.5, jobs.put, ('x',)).start()",
    )
    with Script(code, "memory://", "") as script:
        assert script.line() == "False queue:q.get()"
        assert script.line() == "True x"
        script.say()
        assert script.wait() == 0


# -- forks of processes that serve ----------------------------------------------------------------


def test_the_child_of_a_server_is_its_client(server: ManagerServer, client: ManagerClient) -> None:
    """What serves on a thread of the parent is reached from the child over a connection of its own."""
    lock, count = client.lock("l"), client.counter("c")
    for round in range(size(3, 100)):
        with lock:

            def child() -> object:
                with connect(server.url, KEY) as mine:
                    return bool(lock.acquire(timeout=0)), count.incr(), mine.counter("c").incr()

            assert in_child(child) == (False, 3 * round + 1, 3 * round + 2)
        assert count.incr() == 3 * round + 3


def test_a_child_ends_in_order_though_its_parent_serves() -> None:
    """A child that leaves by `sys.exit` closes what it inherited and stops nothing."""
    code = """
import os, sys
from registry import ManagerServer, connect
with ManagerServer(sys.argv[1], sys.argv[2].encode()) as server, connect("memory://") as own:
    client = connect(server.url, sys.argv[2].encode())
    own.counter("c").incr()
    client.counter("c").incr()
    child = os.fork()
    if not child:
        client.counter("c").incr()
        with connect("memory://") as fresh:
            print(fresh.counter("c").incr(), flush=True)
        sys.exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), own.counter("c").incr(), client.counter("c").incr())
    client.close()
"""
    with Script(code, "here", KEY.decode()) as script:
        assert list(iter(script.line, "")) == ["1", "7 2 3"]
        assert script.wait() == 0


def test_memory_stays_with_the_parent() -> None:
    """A child of `multiprocessing` is told at once; the parent goes on."""
    with connect("memory://") as client:
        count = client.counter("c")
        count.incr()
        assert in_child(count.incr) is ServerNotFound
        assert in_child(client.close) is None
        assert count.incr() == 2


# -- ends -----------------------------------------------------------------------------------------

ENDS = """
import os, signal, sys
from registry import connect
client = connect(sys.argv[1], sys.argv[2].encode())
lock = client.lock("l")
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored where tests run in the background
def end():
    print("held", flush=True)
    sys.stdin.readline()
    {end}
{body}
"""
INSIDE = "with lock: end()"
HOLDING = "lock.acquire(); end()"


@pytest.mark.parametrize(
    ("body", "end", "code", "abandoned"),
    [
        (INSIDE, "sys.exit(3)", 3, False),
        (INSIDE, "raise ValueError('at the top')", 1, False),
        (INSIDE, "os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT, False),
        (INSIDE, "os._exit(3)", 3, True),
        (INSIDE, "os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, True),
        (HOLDING, "sys.exit(3)", 3, True),
        (HOLDING, "raise ValueError('at the top')", 1, True),
        (HOLDING, "client.close()", 0, True),
    ],
)
def test_each_end_tells_what_it_was(body: str, end: str, code: int, abandoned: bool, home: object) -> None:
    """What leaves a block has released; what leaves the process has abandoned. The next has the lock at once."""
    with Served("here") as served, connect(served.url, KEY) as client:
        with Script(ENDS.format(body=body, end=end), served.url, KEY.decode()) as script:
            assert script.line() == "held"
            assert not client.lock("l").acquire(timeout=0)
            script.say()
            assert script.wait() == code
        grant = client.lock("l").acquire(timeout=10)
        assert grant and bool(grant.abandoned) is abandoned
        assert client.statistics()["sessions"] == 1


DAEMONS = """
import atexit, os, sys, threading
threads, reports = [], []
def look():
    for thread in threads:
        thread.join(0.1)
    print(all(thread.is_alive() for thread in threads), *reports, flush=True)
    from registry.errors import Closed
    try:
        client.counter("new").incr()
    except Closed:
        print("closed", flush=True)
atexit.register(look)  # the first in is the last out: it runs after the goodbye
from registry import connect
threading.excepthook = lambda args: reports.append(args.exc_type.__name__)
client = connect(sys.argv[1], sys.argv[2].encode())
jobs, count, lock = client.queue("q"), client.counter("c"), client.lock("l")
grant = lock.acquire()
def again(function):
    while True:
        function()
for function in (jobs.get, jobs.get, count.incr, count.incr, lock.acquire):
    threads.append(threading.Thread(target=again, args=(function,), daemon=True))
    threads[-1].start()
while not count.get() > 50:
    pass
print("started", flush=True)
sys.stdin.readline()
"""


def test_daemon_threads_end_without_a_word(server: ManagerServer, client: ManagerClient) -> None:
    """Those in a call when the interpreter ends see no error; what their process held is free at once."""
    for _ in range(size(2, 50)):
        with Script(DAEMONS, server.url, KEY.decode()) as script:
            assert script.line() == "started"
            script.say()
            assert [script.line(), script.line()] == ["True", "closed"]
            grant = client.lock("l").acquire(timeout=10)
            assert grant and grant.abandoned
            grant.release()
            assert script.wait() == 0
        until(lambda ask: ask.statistics()["sessions"] == 1, client)
        assert all(row["waiting"] == 0 for row in client.objects())


def test_an_end_does_not_wait_for_a_server_that_does_not_read(home: object) -> None:
    """A thread that is sending has the connection; the process ends all the same, and the kernel tells."""
    code = """
import os, signal, sys, threading
from registry import connect
client = connect(sys.argv[1], sys.argv[2].encode())
lock, d = client.lock("l"), client.dict("d")
lock.acquire()
os.kill(client.statistics()["pid"], signal.SIGSTOP)
link = client._home.link()
threading.Thread(target=d.__setitem__, args=("k", "x" * 5_000_000), daemon=True).start()
while link._sending.acquire(False):
    link._sending.release()
"""
    with Served("here") as served, connect(served.url, KEY) as client:
        try:
            with Script(code, served.url, KEY.decode()) as script:
                assert script.wait() == 0
        finally:
            served.signal(signal.SIGCONT)
        grant = client.lock("l").acquire(timeout=10)
        assert grant and grant.abandoned


# -- the same process, or one that looks like it --------------------------------------------------

EXECS = """
import os, sys
from registry import connect
client = connect(sys.argv[1], sys.argv[2].encode(), start=False)
print(bool(client.lock("l").acquire(timeout=0)), os.getpid(), flush=True)
sys.stdin.readline()
if sys.argv[3] != "last":
    words = sys.argv[1:3] + ["last"]
    os.execv(sys.executable, [sys.executable, "-c", sys.argv[4], *words])
sys.stdin.readline()
"""
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs a handle of the process from the kernel")


@LINUX
def test_what_execs_is_suspended(home: object) -> None:
    """The process lives and its session is without a connection: believed for its lease, and freed by its death."""
    with Served("here", lease=3600.0) as served, connect(served.url, KEY) as client:
        with Script(EXECS, served.url, KEY.decode(), "first", EXECS) as script:
            held, pid = script.line().split()
            script.say()
            after, same = script.line().split()
            # What runs now has that pid and holds nothing, nor is the lock free for it.
            assert (held, after) == ("True", "False") and pid == same
            assert not client.lock("l").acquire(timeout=0)
            assert client.statistics()["sessions"] == 3
            script.kill()
        grant = client.lock("l").acquire(timeout=10)
        assert grant and grant.abandoned
        until(lambda ask: ask.statistics()["sessions"] == 1, client)


@LINUX
def test_the_lease_of_what_execs_runs_out(home: object) -> None:
    """Whoever waits gets the lock after the lease, though the process lives."""
    with Served("here", lease=0.5) as served, connect(served.url, KEY) as client:
        with Script(EXECS, served.url, KEY.decode(), "first", "print(flush=True); input()") as script:
            assert script.line().split()[0] == "True"
            script.say()
            script.line()
            grant = client.lock("l").acquire(timeout=20)
            assert grant and grant.abandoned
            assert script.process.poll() is None


# In a pid namespace of its own a process can be given a number that was another's.
SAME_PID = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from servers import KEY, Script, Served, until
from registry import connect

HOLD = '''
import sys
from registry import connect
client = connect(sys.argv[1], sys.argv[2].encode(), start=False)
grant = client.lock("l").acquire(timeout=float(sys.argv[3]))
print(bool(grant), bool(grant and grant.abandoned), grant.holder, flush=True)
sys.stdin.readline()
'''
# Its child keeps the connection open, unknown to Python.
KEEP = HOLD.replace("print(", "import ctypes\\nif not ctypes.CDLL(None).fork(): sys.stdin.readline()\\nprint(", 1)

with Served("here", lease=3600.0) as served, connect(served.url, KEY, start=False) as client:
    for code in (HOLD, KEEP):
        with Script(code, served.url, KEY.decode(), 10) as first:
            assert first.line().startswith("True False"), "held"
            served.signal(signal.SIGSTOP)
            first.kill()
            with open("/proc/sys/kernel/ns_last_pid", "w") as file:
                file.write(str(first.pid - 1))
            with Script(HOLD, served.url, KEY.decode(), 10) as second:
                served.signal(signal.SIGCONT)
                print(first.pid == second.pid, second.line().split()[:2])
                until(lambda ask: ask.statistics()["sessions"] == 2, client)
                print(bool(client.lock("l").acquire(timeout=0)))
            until(lambda ask: ask.statistics()["sessions"] == 1, client)
            grant = client.lock("l").acquire(timeout=10)
            print(bool(grant.abandoned))
            grant.release()
os._exit(0)
"""


@LINUX
def test_a_process_with_the_number_of_another_is_a_stranger(home: object) -> None:
    """The holder is killed while the server stands still, and another process gets its pid before that is seen."""
    alone = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    try:
        subprocess.run([*alone, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no pid namespace can be made here: {error}")
    words = [*alone, sys.executable, "-c", SAME_PID, os.path.dirname(servers.THINGS)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=50)
    if "PermissionError" in done.stderr:
        pytest.skip("the next pid cannot be chosen here")
    assert done.stdout.splitlines() == ["True ['True', 'True']", "False", "True"] * 2, done.stderr
