"""Proxies of locks and their kin: grants of two sides, blocks, decorators, predicates, claims."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import KEY, Script, Served, running, until

from registry import ManagerClient, ManagerServer, connect
from registry.errors import CallTimeout, LockLost, NotOwner
from registry.proxies import Unresolved


@pytest.fixture
def shared() -> Iterator[ManagerClient]:
    with connect("memory://") as client:
        yield client
        assert client._home.link().guards == []


# -- decorators


@pytest.mark.parametrize("typeid", ["lock", "rlock", "semaphore", "bounded_semaphore", "condition"])
def test_a_lock_decorates(shared: ManagerClient, typeid: str) -> None:
    """The function runs in a block of the lock, each time that it is called."""
    lock = getattr(shared, typeid)("l")
    with lock:  # the first call creates it, and only then are there statistics
        pass

    def is_held() -> object:
        return shared.statistics(lock)["holder"]

    @lock
    def work(x: int, *, y: int = 0) -> int:
        """Work."""
        assert is_held()
        if not x:
            raise ZeroDivisionError
        return x + y

    assert not is_held()
    assert work(1, y=2) == work(3) == 3
    with pytest.raises(ZeroDivisionError):
        work(0)
    assert not is_held()
    assert (work.__name__, work.__doc__) == ("work", "Work.")


def test_decorating_needs_no_server(home: Path) -> None:
    """A module may decorate its functions with the locks of a lazy client; the first call connects."""
    client = ManagerClient("here", KEY, start=False)
    lock = client.lock("l")

    @lock
    def work() -> bool:
        return bool(lock.locked())

    assert type(lock) is Unresolved and list(home.iterdir()) == []
    with ManagerServer("here", KEY), client:
        assert work() is True
        assert lock.locked() is False


def test_what_runs_later_is_not_decorated(shared: ManagerClient) -> None:
    """A generator or coroutine would run after the lock was released."""

    def generator() -> Iterator[int]:
        yield 1

    async def coroutine() -> None:
        pass

    for function in (generator, coroutine):
        with pytest.raises(TypeError, match="runs after its call has returned"):
            shared.lock("l")(function)
    with pytest.raises(TypeError, match="decorates functions, not 5"):
        shared.lock("l")(5)


# -- rwlocks


def test_both_sides_give_grants(shared: ManagerClient) -> None:
    """Each can be entered, released, and carried by the calls inside its block."""
    table = shared.rwlock("t")
    assert table
    with table.read() as one, table.read():
        assert one and table.locked()
        refused: list[Any] = []
        with running(lambda: refused.append(table.write(blocking=False))):
            pass
        assert not refused[0]
        with table.write(timeout=5) as both:
            assert both.number != one.number
    assert not table.locked()
    grant = table.write()
    with running(grant.release):
        pass
    with pytest.raises(NotOwner):
        grant.release()
    with pytest.raises((TypeError, AttributeError)), table:  # the latter is what Python 3.10 says
        pass


def test_a_refused_side_says_which(shared: ManagerClient) -> None:
    """The error of a block that is not entered names the method and the holder."""
    table = shared.rwlock("t")
    entered = threading.Event()
    leave = threading.Event()

    def write() -> None:
        with table.write():
            entered.set()
            leave.wait(20)

    with running(write):
        entered.wait(20)
        try:
            with pytest.raises(CallTimeout, match=r"rwlock:t\.read\(\).*it is held by"):
                with table.read(timeout=0):
                    pytest.fail("unreachable")
        finally:
            leave.set()
    with table.read(), table.read():
        pass


# -- semaphores


def test_semaphores_in_blocks(shared: ManagerClient) -> None:
    """A block returns its own permit; a plain release returns so many."""
    slots = shared.semaphore("s", 2)
    with slots as one, slots as two:
        assert one.number < two.number and slots.value() == 0
        with pytest.raises(CallTimeout):
            with slots.acquire(timeout=0):
                pytest.fail("unreachable")
    slots.release(3)
    assert slots.value() == 5
    grant = slots.acquire()
    grant.release()
    with pytest.raises(NotOwner):
        grant.release()
    with pytest.raises(NotOwner):
        shared.bounded_semaphore("b").release()


def test_a_permit_that_has_expired_is_lost(shared: ManagerClient) -> None:
    """The calls in its block are refused, and its end says why."""
    slots, count = shared.semaphore("s"), shared.counter("c")
    with pytest.raises(LockLost, match="its permit has expired"):
        with slots.acquire(expiry=0.01):
            with running(slots.acquire):  # which waits until it has expired
                pass
            with pytest.raises(LockLost):
                count.incr()
    assert count.get() == 0


# -- conditions


def test_wait_for_asks_here(shared: ManagerClient) -> None:
    """The predicate is asked in this process and with the lock; what it said last is returned."""
    work, jobs = shared.condition("w"), shared.dict("d")
    got: list[Any] = []
    assert not work.locked()  # the first call creates it, and only then are there statistics

    def take() -> None:
        with work as grant:
            before = grant.number
            got.append(work.wait_for(lambda: jobs.get("job"), timeout=20))
            got.append(grant.number > before and jobs.incr("taken"))

    def is_waiting(client: ManagerClient) -> bool:
        return bool(client.statistics(work).get("waiting"))

    with running(take):
        until(is_waiting, shared)
        with work:
            work.notify()  # of no use
        until(is_waiting, shared)
        with work, work:
            jobs["job"] = "sweep"
            work.notify()
    assert got == ["sweep", 1]
    assert not work.locked()


def test_a_wait_has_an_end(shared: ManagerClient) -> None:
    """Its time passes without the lock, and it is back afterwards; the predicate is asked once more."""
    work = shared.condition("w")
    answers = iter([0, 0])
    with work, work:
        assert work.wait(0.01) is False
        assert work.wait_for(lambda: next(answers), timeout=0.01) == 0
        assert work.wait_for(lambda: "yes") == "yes"
        assert work.locked()
    assert not work.locked()
    with pytest.raises(NotOwner):
        work.wait(1)


def test_notify_reaches_the_one_who_can_use_it(shared: ManagerClient) -> None:
    """One notification finds its way past those whose predicates are false."""
    work, flags = shared.condition("w"), shared.dict("d")
    names = ["a", "b", "c"]
    passed: list[str] = []
    assert not work.locked()

    def wait(name: str) -> None:
        with work:
            assert work.wait_for(lambda: flags.get(name), timeout=20)
            passed.append(name)

    def all_wait(count: int) -> Any:
        return lambda client: len(client.statistics(work).get("waiting", ())) == count

    with running(*[lambda name=name: wait(name) for name in names]):
        until(all_wait(3), shared)
        for left, name in ((2, "c"), (1, "a"), (0, "b")):
            with work:
                flags[name] = True
                work.notify()
            until(all_wait(left), shared)
    assert passed == ["c", "a", "b"]


def test_a_predicate_that_raises_uses_nothing(shared: ManagerClient) -> None:
    """The notification that woke it goes to the next."""
    work = shared.condition("w")
    woken: list[object] = []
    asked: list[int] = []
    assert not work.locked()

    def fragile() -> bool:
        asked.append(1)
        if len(asked) > 1:
            raise ZeroDivisionError
        return False

    def first() -> None:
        with pytest.raises(ZeroDivisionError), work:
            work.wait_for(fragile, timeout=20)

    def second() -> None:
        with work:
            woken.append(work.wait(20))

    def waiting(count: int) -> Any:
        return lambda client: len(client.statistics(work).get("waiting", ())) == count

    with running(first):
        until(waiting(1), shared)
        with running(second):
            until(waiting(2), shared)
            with work:
                work.notify()
    assert woken == [True]


# -- claims


def test_a_claim_is_done_or_back(shared: ManagerClient) -> None:
    """After the block the item is gone, after an exception at the front."""
    jobs = shared.queue("q")
    for item in ({"n": [1]}, 2):
        jobs.put(item)
    with pytest.raises(ZeroDivisionError), jobs.claim() as item:
        item["n"].append(1 / 0)
    with jobs.claim() as item:
        assert item == {"n": [1]} and jobs.qsize() == 1
        with jobs.claim(timeout=1) as other:
            assert other == 2
    assert jobs.empty() and shared.statistics(jobs)["holders"] == []
    with pytest.raises(queue.Empty), jobs.claim(block=False):
        pytest.fail("unreachable")
    with pytest.raises(queue.Empty), jobs.claim(timeout=0.01):
        pytest.fail("unreachable")


def test_calls_in_a_claim_rely_on_it(shared: ManagerClient) -> None:
    """Once the claim is lost no call of the block takes effect, and its end says so."""
    jobs, count = shared.queue("q"), shared.counter("c")
    count.incr()
    jobs.put(1)
    with pytest.raises(LockLost, match="queue:q"):
        with jobs.claim():
            (claim,) = shared.statistics(jobs)["holders"]
            with running(lambda: jobs.settle(claim["token"], False)):
                pass
            with pytest.raises(LockLost):
                count.incr()
    assert count.get() == 1 and jobs.get() == 1


WORKER = """
import sys
import registry
shared = registry.connect(sys.argv[1], bytes.fromhex(sys.argv[2]))
verb = sys.argv[3]
if verb == "claim":
    with shared.queue("q").claim() as item:
        print(item, flush=True)
        sys.stdin.readline()
elif verb == "semaphore":
    with shared.semaphore("s") as grant:
        print("in", flush=True)
        sys.stdin.readline()
elif verb == "write":
    with shared.rwlock("t").write():
        print("in", flush=True)
        sys.stdin.readline()
elif verb == "barrier":
    print("in", flush=True)
    shared.barrier("b", 3).wait()
elif verb == "condition":
    work = shared.condition("w")
    with work:
        print("in", flush=True)
        work.wait()
"""


def test_death_frees_all_of_the_family(home: Path) -> None:
    """Killed with a claim, a permit, a lock to write, a place at a barrier, in a wait: others go on at once."""
    with Served("here") as server, ManagerClient("here", KEY) as shared:
        shared.queue("q").put("job")
        scripts = {
            verb: Script(WORKER, server.url, KEY.hex(), verb)
            for verb in ("claim", "semaphore", "write", "barrier", "condition")
        }
        try:
            for verb, script in scripts.items():
                assert script.line() == ("job" if verb == "claim" else "in")
            work, start = shared.condition("w"), shared.barrier("b", 3)
            work.locked()
            until(lambda ask: ask.statistics(work)["waiting"], shared)
            until(lambda ask: start.n_waiting() == 1, shared)
            assert not shared.semaphore("s").acquire(blocking=False)
            outcomes: list[object] = []

            def meet() -> None:
                with pytest.raises(threading.BrokenBarrierError):
                    start.wait()
                outcomes.append("broken")

            def read() -> None:
                with shared.rwlock("t").read() as grant:
                    outcomes.append(grant.abandoned)

            with running(meet, read):
                until(lambda ask: start.n_waiting() == 2, shared)
                until(lambda ask: ask.statistics(shared.rwlock("t"))["waiters"], shared)
                for script in scripts.values():
                    script.kill()
            assert sorted(map(str, outcomes)) == ["True", "broken"]
            with shared.semaphore("s").acquire(timeout=20) as permit:
                assert permit.abandoned is False
            with shared.queue("q").claim(timeout=20) as item:
                assert item == "job"
            until(lambda ask: not ask.statistics(work)["waiting"], shared)
            with work as grant:
                assert grant.abandoned is False
        finally:
            for script in scripts.values():
                script.__exit__()


# -- who holds


@pytest.mark.parametrize("typeid", ["lock", "rlock", "semaphore", "condition"])
def test_the_thread_that_holds_is_named(shared: ManagerClient, typeid: str) -> None:
    """A grant tells the thread that got it, unless that was the main thread."""
    lock = getattr(shared, typeid)("l")
    with lock as grant:
        assert "thread" not in grant.holder
    holders: list[str] = []

    def work() -> None:
        threading.current_thread().name = "Worker-3"
        with lock as grant:
            holders.append(grant.holder)

    with running(work):
        pass
    assert holders == [f"{grant.holder}, thread Worker-3"]
