"""Threaded objects: their calls run outside of the engine, and each has one outcome all the same."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from test_host import CANCELLED, IDENTITY, Pipe, define

from registry import SharedObject
from registry._host import Host
from registry._leaves import Carried
from registry._threads import ThreadedObjects
from registry._wire import DELETE, OWNER, Kind, encode
from registry.errors import DefinitionConflict, NoSuchObject, NotShareable, RemoteError


class Slow:
    """Blocks until the test lets it go on."""

    def __init__(self, start: int = 0) -> None:
        self.count = start
        self.started: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.gate = threading.Semaphore(0)
        made.append(self)

    def incr(self) -> int:
        self.count += 1
        return self.count

    def incr_slowly(self) -> int:
        self.started.put(threading.get_ident())
        self.gate.acquire()
        return self.incr()

    def leave(self) -> None:
        raise SystemExit(1)

    def fail(self) -> None:
        raise ValueError("in the thread")

    def uncrossable(self) -> object:
        self.count += 1
        return object()

    def keep(self, value: object) -> object:
        return value

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.count))

    def _private(self) -> None:
        pass


made: list[Slow] = []

SLOW = SharedObject("slow", Slow, threaded=True, carried=("keep.value",))
OWN = SharedObject("own", Slow, threaded=True, per="call")


class Shell:
    """A host with threads, whose posts wait until the test takes them."""

    def __init__(self) -> None:
        made.clear()
        self.posts: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.threads = ThreadedObjects(self.posts.put)
        self.host = Host({"slow": SLOW, "own": OWN}, IDENTITY, seed=b"", now=0.0, threads=self.threads)
        self.threads.host = self.host

    def take(self, count: int = 1) -> None:
        """Take so many results, as the loop of a server would."""
        for _ in range(count):
            self.posts.get(timeout=10)()

    def ask(self, pipe: Pipe, method: str, *args: object, title: str = "slow:x", **options: Any) -> Any:
        """Make a call and return its result or raise it."""
        seq = pipe.call(title, method, *args, **options)
        pipe.deliver()
        self.take()
        pipe.hear()
        if isinstance(pipe.outcomes[seq], Exception):
            raise pipe.outcomes[seq]
        return pipe.outcomes[seq]


@pytest.fixture
def shell() -> Iterator[Shell]:
    """A host with threads, which end with the test."""
    shell = Shell()
    yield shell
    for slow in made:
        slow.gate.release(1000)
    shell.threads.stop()


@pytest.fixture
def pipe(shell: Shell) -> Pipe:
    """A client of it."""
    return Pipe(shell.host)


def test_calls_of_an_owner_run_in_order_on_one_thread(shell: Shell, pipe: Pipe) -> None:
    """One owner's calls follow each other; another owner's do not wait for them."""
    shell.ask(pipe, "incr")
    (slow,) = made
    first = pipe.call("slow:x", "incr_slowly")
    second = pipe.call("slow:x", "incr_slowly")
    pipe.deliver()
    thread = slow.started.get(timeout=10)
    assert shell.ask(pipe, "incr", fields={OWNER: 2}) == 2
    assert slow.started.empty()
    slow.gate.release()
    assert slow.started.get(timeout=10) == thread
    slow.gate.release()
    shell.take(2)
    pipe.hear()
    assert (pipe.outcomes[first], pipe.outcomes[second]) == (3, 4)


def test_a_resent_call_does_not_run_again(shell: Shell, pipe: Pipe) -> None:
    """Neither while it runs nor afterwards: its result is kept until it was heard."""
    shell.ask(pipe, "incr")
    (slow,) = made
    seq = pipe.call("slow:x", "incr_slowly")
    pipe.deliver()
    slow.started.get(timeout=10)
    pipe.connect()
    pipe.deliver()
    slow.gate.release()
    shell.take()
    pipe.connect()
    pipe.flush()
    assert pipe.outcomes[seq] == 2
    assert shell.ask(pipe, "incr") == 3
    assert list(shell.host.clients[pipe.key].slow) == [seq + 1]
    assert shell.posts.empty()


def test_a_call_that_has_not_begun_can_be_cancelled(shell: Shell, pipe: Pipe) -> None:
    """It never runs; one that runs is answered when it has."""
    shell.ask(pipe, "incr")
    (slow,) = made
    runs, waits = pipe.call("slow:x", "incr_slowly"), pipe.call("slow:x", "incr")
    pipe.deliver()
    slow.started.get(timeout=10)
    pipe.cancel(runs)
    pipe.cancel(waits)
    pipe.flush()
    assert pipe.outcomes == {1: 1, waits: CANCELLED}
    slow.gate.release()
    shell.take()
    pipe.hear()
    assert pipe.outcomes[runs] == 2
    assert shell.ask(pipe, "incr") == 3


def test_a_cancel_counts_as_too_late_until_the_result_is_out(shell: Shell, pipe: Pipe) -> None:
    """Between the end of a call and its reply, nobody is told that it never ran."""
    shell.ask(pipe, "incr")
    (slow,) = made
    slow.gate.release()
    seq = pipe.call("slow:x", "incr_slowly")
    pipe.deliver()
    post = shell.posts.get(timeout=10)
    pipe.cancel(seq)
    pipe.flush()
    assert seq not in pipe.outcomes
    post()
    pipe.hear()
    assert pipe.outcomes[seq] == 2


def test_a_cancel_before_its_call(shell: Shell, pipe: Pipe) -> None:
    """A cancel that overtakes its call keeps it from running, as for every other object."""
    seq = pipe.call("slow:x", "incr")
    pipe.wire.reverse()
    pipe.cancel(seq)
    pipe.wire.reverse()
    pipe.flush()
    assert pipe.outcomes[seq] == CANCELLED
    assert not made


@pytest.mark.parametrize(("method", "error"), [("fail", ValueError), ("leave", RemoteError)])
def test_whatever_a_call_raises_is_its_callers(shell: Shell, pipe: Pipe, method: str, error: type[Exception]) -> None:
    """The error crosses, with its traceback, and the thread goes on."""
    with pytest.raises(error) as caught:
        shell.ask(pipe, method)
    assert "remote traceback" in str(getattr(caught.value, "__notes__", caught.value.args))
    assert shell.ask(pipe, "incr") == 1


def test_a_result_that_cannot_cross_says_that_the_call_took_effect(shell: Shell, pipe: Pipe) -> None:
    """The caller must not try again."""
    with pytest.raises(NotShareable, match="took effect"):
        shell.ask(pipe, "uncrossable")
    assert shell.ask(pipe, "incr") == 2
    assert shell.ask(pipe, "__iter__") == [0, 1]


@pytest.mark.parametrize("method", ["_private", "count", "__class__"])
def test_only_what_is_exposed_can_be_called(shell: Shell, pipe: Pipe, method: str) -> None:
    """Names from a peer are looked up in a table."""
    with pytest.raises(AttributeError, match="exposes no"):
        shell.ask(pipe, method)


def test_definitions_conflict(shell: Shell, pipe: Pipe) -> None:
    """A use with other arguments is refused; one without any, or with the same, is not."""
    assert shell.ask(pipe, "incr", title="slow:x" + define(5)) == 6
    with pytest.raises(DefinitionConflict):
        shell.ask(pipe, "incr", title="slow:x" + define(6))
    assert shell.ask(pipe, "incr") == 7
    assert len(made) == 1


def test_opaque_values_get_the_stamp_of_their_writer(shell: Shell) -> None:
    """What a writer claims is not asked here either."""
    here, nowhere = Pipe(shell.host, 1, "here:1"), Pipe(shell.host, 2, "")
    value = Carried(b"pickle", "forged", "Thing")
    assert shell.ask(here, "keep", value).domain == "here:1"
    with pytest.raises(NotShareable, match="one user"):
        shell.ask(nowhere, "keep", value)


def test_objects_are_listed_and_deleted(shell: Shell, pipe: Pipe) -> None:
    """A threaded object is listed as ephemeral, and made anew after it was deleted."""
    shell.ask(pipe, "incr")
    ((typeid, name, maker, _, ephemeral, waiting),) = shell.host.objects()
    assert (typeid, name, maker, ephemeral, waiting) == ("slow", "x", "client 1", True, 0)
    assert pipe.ask("slow:x", DELETE) is None
    assert not shell.host.objects()
    with pytest.raises(NoSuchObject):
        pipe.ask("slow:x", DELETE)
    assert shell.ask(pipe, "incr") == 1


def test_the_thread_of_an_owner_ends_with_it(shell: Shell, pipe: Pipe) -> None:
    """The end of an owner, or of its session, ends the threads."""
    shell.ask(pipe, "incr")
    shell.ask(pipe, "incr", fields={OWNER: 2})
    workers = [worker.thread for worker in shell.threads._workers.values()]
    pipe.send(Kind.OWNER_ENDED, 0, encode(2))
    pipe.deliver()
    workers[1].join(10)
    assert not workers[1].is_alive()
    shell.host.end(shell.host.clients[pipe.key], 0.0)
    workers[0].join(10)
    assert not workers[0].is_alive()


def test_objects_of_a_call_end_with_their_session(shell: Shell, pipe: Pipe) -> None:
    """What was made for one session goes with it; the rest stays."""
    shell.ask(pipe, "incr")
    shell.ask(pipe, "incr", title="own:abc")
    assert len(shell.host.objects()) == 2
    shell.host.end(shell.host.clients[pipe.key], 0.0)
    assert [row[0] for row in shell.host.objects()] == ["slow"]


def test_results_for_a_session_that_has_ended_are_dropped(shell: Shell, pipe: Pipe) -> None:
    """A call may outlive its session; its result then concerns nobody."""
    shell.ask(pipe, "incr")
    (slow,) = made
    pipe.call("slow:x", "incr_slowly")
    pipe.deliver()
    slow.started.get(timeout=10)
    client = shell.host.clients[pipe.key]
    shell.host.end(client, 0.0)
    slow.gate.release()
    shell.take()
    assert not shell.host.clients
