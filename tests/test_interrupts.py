"""A signal handler that raises loses nothing, wherever it raises.

Python runs handlers between instructions: at the first of a function, after a call, and where a loop goes back. A
trace function that raises at the n-th such place of a story stands for the signal, so that every place gets its turn.
"""

from __future__ import annotations

import contextlib
import dis
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import registry
from registry import ManagerClient
from registry.errors import RegistryError

OURS = str(Path(registry.__file__).parent)
LOOKS = ("RESUME", "JUMP_BACKWARD")


pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 looks for signals at other places")


class Interrupt(BaseException):
    """What the handler raises."""


@cache
def places(code: CodeType) -> frozenset[int]:
    """Return the offsets of the instructions before which a handler may run."""
    found = set()
    after = False
    for instruction in dis.get_instructions(code):
        if after or instruction.opname in LOOKS:
            found.add(instruction.offset)
        after = instruction.opname.startswith("CALL")
    return frozenset(found)


class Interrupter:
    """Raise `Interrupt` once, at the n-th place in our own code where a handler may run."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.was_raised = False

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        if frame.f_code.co_name == "__del__":
            return None  # what a handler raises there is told, and dropped, by Python
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if event == "opcode" and not self.was_raised and frame.f_lasti in places(frame.f_code):
            self.left -= 1
            if not self.left:
                self.was_raised = True
                raise Interrupt
        return self

    def run(self, story: Callable[[], object]) -> None:
        """Run a story with one interrupt in it."""
        before = sys.gettrace()
        sys._getframe().f_trace_opcodes = True  # or else 3.12 shows none before the next `settrace`
        sys.settrace(self)
        try:
            story()
        except Interrupt:
            pass
        finally:
            sys.settrace(before)


@pytest.fixture
def client() -> Iterator[ManagerClient]:
    with registry.connect("memory://") as shared:
        yield shared


def everywhere(story: Callable[[], object], check: Callable[[], object]) -> int:
    """Run a story once for each place, and a check after it. Return how often it was interrupted."""
    story()
    number = 1
    interrupts = 0
    while True:
        interrupter = Interrupter(number)
        interrupter.run(story)
        check()
        if not interrupter.was_raised:
            return interrupts
        interrupts += 1
        number += 1


def test_the_block_of_a_lock(client: ManagerClient) -> None:
    """Afterwards the lock is free, nobody is said to have died, and no call relies on a grant."""
    lock = client.lock("l")

    def story() -> None:
        with lock:
            pass

    def check() -> None:
        grant = lock.acquire(timeout=0)
        assert grant
        assert not grant.abandoned
        grant.release()
        assert client._home.link().guards == []

    assert everywhere(story, check) > 10


def test_nested_blocks_of_an_rlock(client: ManagerClient) -> None:
    """No level is released twice, or not at all."""
    lock = client.rlock("l")
    inside: list[bool] = []

    def story() -> None:
        with lock:
            try:
                with lock:
                    pass
            finally:
                inside.append(lock.locked())

    def check() -> None:
        assert not lock.locked()
        assert all(inside)
        inside.clear()
        assert client._home.link().guards == []

    assert everywhere(story, check) > 10


def test_the_block_of_a_semaphore(client: ManagerClient) -> None:
    """All permits are there again, and not one more."""
    permits = client.semaphore("s", 2)

    def story() -> None:
        with permits:
            pass

    def check() -> None:
        assert permits.value() == 2

    assert everywhere(story, check) > 10


def test_a_claim(client: ManagerClient) -> None:
    """The item is done, or there again."""
    jobs = client.queue("q")

    def story() -> None:
        if not jobs.qsize():
            jobs.put("item")
        with jobs.claim():
            pass

    def check() -> None:
        assert client.statistics(jobs)["holders"] == []
        assert jobs.qsize() <= 1
        assert client._home.link().guards == []

    assert everywhere(story, check) > 10


def test_an_edit(client: ManagerClient) -> None:
    """The turn is free again, and the value is the old or the new one."""
    prices = client.dict("d")
    prices["n"] = [0]

    def story() -> None:
        with prices.edit("n") as value:
            value[0] += 1

    def check() -> None:
        before = prices["n"][0]
        with prices.edit("n") as value:
            assert value[0] == before
            value[0] = 0
        assert prices["n"] == [0]

    assert everywhere(story, check) > 10


def test_an_item(client: ManagerClient) -> None:
    """An item that did not reach its taker is there again; none is there twice."""
    jobs = client.queue("q")
    taken: list[object] = []

    def story() -> None:
        taken.append(jobs.get(timeout=0))

    def check() -> None:
        assert len(taken) + jobs.qsize() == 1
        if taken:
            jobs.put(taken.pop())

    jobs.put("item")
    story()
    check()
    assert everywhere(lambda: (check(), story()), check) > 10


def test_a_call_in_the_middle_of_a_call_is_refused(client: ManagerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that calls while a call is being written is told so, and that call goes on."""
    notes = client.dict("d")
    notes["x"] = 1
    link = client._home.link()
    transport: Any = link._transport
    send = transport.send
    said: list[str] = []

    def interrupted(data: bytes) -> None:
        monkeypatch.setattr(transport, "send", send)
        with pytest.raises(RuntimeError, match="within another that is being written") as caught:
            notes["x"] = 2
        said.append(str(caught.value))
        send(data)

    monkeypatch.setattr(transport, "send", interrupted)
    notes["y"] = 3
    assert said
    assert notes.copy() == {"x": 1, "y": 3}


def test_a_look_at_the_exit_is_no_exit(client: ManagerClient) -> None:
    """Whoever only looks an exit up, as `hasattr` does, neither leaves the block nor the next one."""
    lock = client.lock("l")
    with lock as grant:
        assert hasattr(lock, "__exit__")
        assert hasattr(grant, "__exit__")
        assert lock.locked()
    looked_up = lock.__exit__
    with lock:
        del looked_up
        assert lock.locked()
    assert not lock.locked()


def test_an_exit_stack_leaves_its_blocks(client: ManagerClient) -> None:
    """`contextlib.ExitStack` looks exits up in the class."""
    lock, jobs = client.lock("l"), client.queue("q")
    jobs.put("item")
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock)
        assert stack.enter_context(jobs.claim()) == "item"
        stack.enter_context(client.semaphore("s").acquire())
        assert lock.locked()
    assert not lock.locked()
    assert client.statistics(jobs)["holders"] == []
    assert client.semaphore("s").value() == 1


def test_an_inner_lock_goes_back_though_the_outer_one_is_lost(client: ManagerClient) -> None:
    """What is given back relies on no grant."""
    outer, inner = client.lock("outer"), client.lock("inner")
    with pytest.raises(RegistryError, match="lock:outer"), outer, inner:
        outer.release()
    assert not inner.locked()
    assert not outer.locked()
