"""The host in one life after another: which sessions go on, and why the others cannot."""

from __future__ import annotations

from itertools import count
from typing import Any

import attrs
import msgspec
import pytest
from hosted_classes import DECLARATIONS, START
from test_host import IDENTITY, Pipe

from registry import _image, _wire
from registry._attachments import Attachment
from registry._engine import Engine
from registry._events import Event, Output, Verdicts
from registry._host import Host
from registry._wire import Kind

_strangers = count(100)


class Kept:
    """A log that keeps everything at once."""

    syncs = 0

    def append(self, event: Event, outputs: list[Output], verdicts: Verdicts) -> None:
        """Take an event."""


def life(number: int, image: bytes | None = None) -> Host:
    """Return the host of a life that goes on from a state."""
    engine = _image.restore(DECLARATIONS, image) if image is not None else Engine(DECLARATIONS)
    identity = attrs.evolve(IDENTITY, epoch=number, life=number.to_bytes(16, "big"))
    host = Host(DECLARATIONS, identity, seed=b"seed", now=START, engine=engine, log=Kept())
    host.release(1 << 60)
    return host


def resume(pipe: Pipe, host: Host, *, applied: int | None = None, acknowledged: int = 0) -> _wire.Attached:
    """Attach the session of a pipe to a later life, as its client would, and return the answer."""
    attachment = Attachment(pipe.domain, "again", pipe.pid)
    hello = _wire.Attach(
        pipe.key, 0, "test", "", "", "1", acknowledged, {}, resumes=True, life=pipe.host.identity.life,
        applied=pipe.host.engine.index if applied is None else applied, sent=pipe.next - 1,
    )  # fmt: skip
    pipe.generation += 1
    host.receive(attachment, _wire.Frame(Kind.ATTACH, pipe.generation, 0, 0, 0, _wire.encode(hello)), START)
    reader = _wire.Reader()
    reader.feed(b"".join(attachment.outbox))
    answer = msgspec.msgpack.decode(next(iter(reader)).body, type=_wire.Attached)
    assert (attachment.client is not None) == answer.resumed
    return answer


@pytest.fixture
def first() -> Host:
    """Return the first life, in which something has happened already."""
    host = life(1)
    Pipe(host, 9).ask("counter:before", "incr")
    return host


def locked(host: Host) -> Any:
    """Tell whether the lock is held, as somebody new sees it."""
    return Pipe(host, next(_strangers)).ask("lock:l", "locked")


def test_a_session_goes_on_in_a_later_life(first: Host) -> None:
    """What it had seen is there: it keeps what it holds, two lives later, too."""
    pipe = Pipe(first)
    pipe.ask("lock:l", "acquire")
    second = life(2, _image.capture(first.engine))
    third = life(3, _image.capture(second.engine))
    for host in (second, third):
        assert resume(pipe, host, acknowledged=1).resumed
        assert locked(host)


def test_a_state_that_knows_nothing_of_its_time(first: Host) -> None:
    """Another directory, or a backup from before: whatever it had is not there."""
    old = _image.capture(life(5).engine)
    pipe = Pipe(first)
    pipe.ask("counter:x", "incr")
    for image in (None, old):
        answer = resume(pipe, life(2, image), acknowledged=1)
        assert not answer.resumed
        assert answer.reason == "its state was replaced by one that knows nothing of this session's time"


def test_a_server_that_has_lost_what_the_session_had_seen(first: Host) -> None:
    """It is told which events, and what it held by those that are left is free: nobody believes to hold it."""
    pipe = Pipe(first)
    pipe.ask("lock:l", "acquire")
    image, end = _image.capture(first.engine), first.engine.index
    pipe.ask("counter:x", "incr")
    second = life(2, image)
    assert locked(second)
    answer = resume(pipe, second, acknowledged=2)
    assert not answer.resumed
    assert answer.reason == f"it has lost what came after event {end}, and this session had seen event {end + 2}"
    assert not locked(second)


def test_it_is_the_end_of_its_own_life_that_counts(first: Host) -> None:
    """Later lives make the state longer, and give nothing back of what was lost in an earlier one."""
    pipe = Pipe(first)
    pipe.ask("lock:l", "acquire")
    image, end = _image.capture(first.engine), first.engine.index
    pipe.ask("counter:x", "incr")
    second = life(2, image)
    busy = Pipe(second, 8)
    for _ in range(5):
        busy.ask("counter:y", "incr")
    third = life(3, _image.capture(second.engine))
    assert third.engine.index > end + 5
    assert f"it has lost what came after event {end}," in resume(pipe, third, acknowledged=2).reason
    assert not locked(third)
    # One that had seen no more than what was left goes on.
    assert resume(busy, third, acknowledged=5).resumed


def test_an_older_connection_does_not_end_a_newer_one(first: Host) -> None:
    """An attach of an earlier generation is told the reason, and the session that is connected again stays."""
    pipe = Pipe(first)
    pipe.ask("lock:l", "acquire")
    second = life(2, _image.capture(first.engine))
    assert resume(pipe, second, acknowledged=1).resumed
    pipe.generation -= 1
    assert "it has lost what came after" in resume(pipe, second, applied=1 << 40, acknowledged=1).reason
    assert locked(second)


def test_a_session_that_was_taken_for_dead(first: Host) -> None:
    """In the same life or an earlier one, whatever it has seen: what it held was freed, and others may have it."""
    dead = "the server took this session for dead, and freed what it held"
    pipe = Pipe(first)
    pipe.ask("lock:l", "acquire")
    first.end(first.clients[pipe.key], START)
    assert resume(pipe, first, acknowledged=1).reason == dead
    second = life(2, _image.capture(first.engine))
    # By its key also where it has seen no reply: the grant that it may yet hear of is somebody else's.
    for acknowledged in (0, 1):
        assert resume(pipe, second, acknowledged=acknowledged).reason == dead
    assert not locked(second)


def test_a_dead_session_is_known_by_what_it_has_seen(first: Host) -> None:
    """Keys are forgotten after a day; a session that was answered is one that the state had."""
    pipe = Pipe(first)
    pipe.ask("lock:l", "acquire")
    first.end(first.clients[pipe.key], START)
    first.engine.ended.clear()
    second = life(2, _image.capture(first.engine))
    assert "took this session for dead" in resume(pipe, second, acknowledged=1).reason
    assert pipe.key not in second.clients


def test_a_session_of_which_nothing_was_logged_goes_on_as_a_new_one(first: Host) -> None:
    """It has only read, or what it had sent has not run: nothing is lost."""
    pipe = Pipe(first)
    second = life(2, _image.capture(first.engine))
    assert resume(pipe, second).resumed
    assert second.clients[pipe.key].number == 0
    # In its own life it would be known: it was ended.
    other = Pipe(first, 3)
    first.end(first.clients[other.key], START)
    assert "took this session for dead" in resume(other, first).reason


def test_without_a_log_nothing_goes_on() -> None:
    """Every life is the first."""
    pipe = Pipe(Host(DECLARATIONS, IDENTITY, seed=b"seed", now=START))
    identity = attrs.evolve(IDENTITY, epoch=4, life=b"another life 123")
    answer = resume(pipe, Host(DECLARATIONS, identity, seed=b"seed", now=START))
    assert (answer.resumed, answer.reason) == (False, "it is gone with what it held in memory")
