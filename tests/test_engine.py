"""The engine: its laws over stories of events, and its rules one by one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import hosted_classes
import pytest
from engine_driver import CANCELLED, WAITING, Client, Driver, labels
from hosted_classes import (
    DECLARATIONS,
    GATE,
    ODD,
    START,
    Gate,
    Odd,
    Scratch,
    feed,
    random_steps,
    story,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from registry import SharedObject, _codec, _image
from registry._engine import KEPT_VACANT, Engine
from registry._events import Advance, Begin, Create, Open, OwnerEnded
from registry._leaves import Carried
from registry._wire import DELETE, Kind
from registry.errors import (
    DeclarationError,
    DefinitionConflict,
    LockLost,
    NoSuchObject,
    NotDurable,
    NotShareable,
    RegistryError,
    RemoteError,
    UnknownType,
)
from registry_queues import QUEUE
from registry_sync import LOCK

stories = st.lists(
    st.tuples(st.integers(0, 14), st.integers(0, len(hosted_classes.CALLS) - 1), st.integers(0, 59)),
    max_size=40,
)


# -- laws -----------------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(stories)
def test_the_same_events_give_the_same_state_and_outputs(steps: Any) -> None:
    """Two engines that were fed the same events cannot be told apart."""
    events = story(steps)
    one, other = Engine(DECLARATIONS), Engine(DECLARATIONS)
    assert feed(one, events) == feed(other, events)
    assert _image.capture(one) == _image.capture(other)


@settings(max_examples=100)
@given(stories)
def test_a_restored_engine_goes_on_as_if_it_had_never_stopped(steps: Any) -> None:
    """A snapshot and a restore between every two events change nothing that can be seen."""
    one, other = Engine(DECLARATIONS), Engine(DECLARATIONS)
    for event in story(steps):
        snapshot = _image.capture(other)
        other = _image.restore(DECLARATIONS, snapshot)
        assert _image.capture(other) == snapshot
        assert other.next_due() == one.next_due()
        assert other.step(event) == one.step(event)
        assert _image.capture(other) == _image.capture(one)


@settings(max_examples=150)
@given(stories)
def test_a_call_has_one_outcome(steps: Any) -> None:
    """However often a call arrives, it has one outcome; only an undo replaces it, by saying so."""
    outcomes = defaultdict(list)
    for output in feed(Engine(DECLARATIONS), story(steps)):
        seen = outcomes[output.session, output.seq]
        if output.kind == Kind.STANDS and seen and seen[-1][1] == output.body:
            continue  # said again, since an undo came too late
        if not seen or seen[-1] != (output.kind, output.body):
            seen.append((output.kind, output.body))
    for seen in outcomes.values():
        assert len(seen) == 1 or [kind for kind, _ in seen] == [Kind.REPLY, Kind.CANCELLED], seen


@settings(max_examples=100)
@given(stories)
def test_nothing_is_left_of_sessions_that_have_ended(steps: Any) -> None:
    """When every session has ended nobody waits, nothing is remembered, and no object belongs to one."""
    engine = Engine(DECLARATIONS)
    feed(engine, story(steps))
    for number in list(engine.sessions):
        engine.step(hosted_classes.SessionEnded(now=engine.now, session=number))
    assert not engine.sessions
    for hosted in engine.objects.values():
        assert not hosted.waits
        assert not hosted.sessions
        assert not hosted.session
        if isinstance(hosted.instance, (Gate, Scratch)):
            assert not hosted.instance.waiters


def test_no_hash_seed_shows() -> None:
    """Processes with different hash seeds reach the same states, byte for byte."""
    path = os.pathsep.join(sys.path)
    running = [
        subprocess.Popen(
            [sys.executable, str(Path(hosted_classes.__file__))],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
        )
        for seed in ("0", "1")
    ]
    said = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert said[0] == said[1]
    assert len(said[0]) == 65


def test_a_story_can_be_cut_and_continued_elsewhere() -> None:
    """A snapshot taken anywhere in a story leads to the same end."""
    for seed in range(10):
        events = story(random_steps(seed))
        whole = Engine(DECLARATIONS)
        feed(whole, events)
        for place in range(0, len(events), 17):
            engine = Engine(DECLARATIONS)
            feed(engine, events[:place])
            engine = _image.restore(DECLARATIONS, _image.capture(engine))
            feed(engine, events[place:])
            assert _image.capture(engine) == _image.capture(whole)


# -- calls ----------------------------------------------------------------------------------------------


@pytest.fixture
def driver() -> Driver:
    """An engine with all the classes, and a twin that is restored between every two events."""
    return Driver(*DECLARATIONS.values(), twin=True)


@pytest.fixture
def client(driver: Driver) -> Client:
    """A session of it."""
    return driver.client()


def test_an_exception_leaves_what_was_done(driver: Driver, client: Client) -> None:
    """A step is isolated, not undone."""
    with pytest.raises(ValueError, match="half done"):
        client.call("odd:x", "half", 1)
    assert client.call("odd:x", "numbers") == [0, 1]


def test_a_result_that_cannot_cross_says_that_the_call_took_effect(client: Client) -> None:
    """The caller must not try again."""
    with pytest.raises(NotShareable, match="The call took effect") as caught:
        client.call("odd:x", "uncrossable")
    assert "odd:x" in str(caught.value)
    assert client.call("odd:x", "numbers") == [0, "done"]


def test_a_refusal_from_inside_a_method_does_not_say_so(client: Client) -> None:
    """What a method itself raises is not about its result."""
    with pytest.raises(NotShareable) as caught:
        client.call("odd:x", "refused_inside")
    assert "took effect" not in str(caught.value)


def test_an_exception_can_be_a_value(client: Client) -> None:
    """An exception that is returned is no error of the call."""
    value = client.call("odd:x", "error_as_a_value")
    assert isinstance(value, ValueError)


@pytest.mark.parametrize(
    "name", ["_private", "notes", "__init__", "__class__", "__dict__", "note.__globals__", "", "x" * 100]
)
@pytest.mark.parametrize("reads", [False, True])
def test_only_what_is_exposed_can_be_called(client: Client, name: str, reads: bool) -> None:
    """A name from a peer is looked up in the table, never in the object."""
    client.call("odd:x", "note", 1)
    if reads:
        event = client.send("odd:x", "numbers").event
        output = client.driver.engine.read(hosted_classes.msgspec.structs.replace(event, method=name))
        with pytest.raises(AttributeError, match="exposes no"):
            raise _codec.decode(output.body)
    else:
        with pytest.raises(AttributeError, match="exposes no"):
            client.call("odd:x", name)
    assert client.call("odd:x", "numbers") == [0, 1]


def test_keyword_arguments_may_have_any_name(client: Client) -> None:
    """No name of the engine's own stands in the way of a keyword argument."""
    names = dict.fromkeys(["self", "step", "function", "method", "hosted"], 1)
    client.call("plain:x", "update", **names)
    assert client.call("plain:x", "copy") == names


def test_arguments_that_do_not_fit_are_the_callers_error(client: Client) -> None:
    """A call with too many arguments raises TypeError there, and changes nothing."""
    with pytest.raises(TypeError):
        client.call("odd:x", "note", 1, 2, 3)
    assert client.call("odd:x", "numbers") == [0]


@pytest.mark.parametrize("reads", [False, True])
def test_values_that_lie_too_deep_are_refused(client: Client, reads: bool) -> None:
    """No peer can make the engine run out of stack by nesting values."""
    method = "numbers" if reads else "note"
    client.call("odd:x", "note", 1)
    for arguments in (b"\x92\x91" + b"\x91" * 100_000 + b"\x01\x80", b"\xc1", b"", b"\x92\x90\x90"):
        event = client.send("odd:x", "numbers").event
        event = hosted_classes.msgspec.structs.replace(event, method=method, arguments=arguments)
        if reads:
            output = client.driver.engine.read(event)
        else:
            seq = client._seq = client._seq + 1
            event = hosted_classes.msgspec.structs.replace(event, seq=seq)
            (output,) = client.driver.feed(event)
        assert output.kind == Kind.ERROR
        assert isinstance(_codec.decode(output.body), ValueError)
    assert client.call("odd:x", "numbers") == [0, 1]


def test_state_of_an_engine_is_not_taken_from_a_peer(client: Client) -> None:
    """A peer cannot put waits of others into a value."""
    ticket = client.send("odd:x", "note", 1)
    seq = client._seq = client._seq + 1
    forged = _codec.encode([[_Leaf()], {}], outgoing=lambda value: (41, [1]))
    event = hosted_classes.msgspec.structs.replace(ticket.event, seq=seq, arguments=forged)
    (output,) = client.driver.feed(event)
    assert output.kind == Kind.ERROR


class _Leaf:
    pass


@pytest.mark.parametrize("method", ["too_deep", "exhaust", "leave", "interrupt"])
def test_an_error_of_the_interpreter_stops_that_object_only(method: str) -> None:
    """The call fails, remembered like any reply; the object refuses further calls; the rest goes on."""
    driver = Driver(ODD, GATE)
    client = driver.client()
    client.call("odd:other", "note", 1)
    ticket = client.send("odd:x", method)
    with pytest.raises(RemoteError, match="stopped since"):
        ticket.result()
    with pytest.raises(RegistryError, match="is stopped since"):
        client.call("odd:x", "note", 1)
    with pytest.raises(RegistryError, match="is stopped since"):
        client.call("odd:x", "numbers")
    assert client.call("odd:other", "note", 2) == 3
    before = _image.capture(driver.engine)
    driver.restart()
    assert _image.capture(driver.engine) == before
    with pytest.raises(RegistryError, match="is stopped since"):
        client.call("odd:x", "note", 1)
    assert client.call("odd:x", DELETE) is None
    assert client.call("odd:x", "note", 1) == 2


def test_a_read_that_breaks_stops_nothing() -> None:
    """What a read raises concerns its caller alone."""

    class Reader:
        def __init__(self) -> None:
            self.count = 0

        def incr(self) -> int:
            self.count += 1
            return self.count

        def read(self, what: str) -> int:
            raise {"exit": SystemExit, "memory": MemoryError, "interrupt": KeyboardInterrupt}[what]

    driver = Driver(SharedObject("reader", Reader, readonly=("read",)))
    client = driver.client()
    client.call("reader:x", "incr")
    for what in ("exit", "memory", "interrupt"):
        with pytest.raises((RemoteError, MemoryError)):
            client.call("reader:x", "read", what)
    assert client.call("reader:x", "incr") == 2


def test_reads_leave_no_trace(driver: Driver, client: Client) -> None:
    """A declared read that would wait, wake, take a token or set an alarm is refused, and changes nothing."""
    client.call("odd:x", "note", 1)
    waiting = client.send("gate:x", "pass_through")
    before = _image.capture(driver.engine)
    for title, method in (
        ("odd:x", "sly_token"),
        ("odd:x", "sly_alarm"),
        ("gate:x", "sly_wait"),
        ("gate:x", "sly_wake"),
    ):
        with pytest.raises(DeclarationError, match="readonly"):
            client.call(title, method)
    assert _image.capture(driver.engine) == before
    assert waiting.waits
    assert len(driver.instance("gate:x").waiters) == 1
    assert client.call("odd:x", "who")[0] == (client.number, 1)


def test_random_bytes_and_tokens_replay(driver: Driver, client: Client) -> None:
    """What a method draws comes from the seed, the event and a count: never twice the same, always again."""
    first, second = client.call("odd:x", "draw"), client.call("odd:x", "draw")
    assert first[0] != first[1][:16]
    assert len(first[1]) == 140
    assert not {first[0], first[1]} & {second[0], second[1]}
    assert [first[3], second[3]] == [(1 << 40) + 1, (1 << 40) + 2]
    assert first[4:] == [client.label, "odd:x"]
    client.call("odd:x", "who")
    driver.feed(Begin(now=driver.now, epoch=2, seed=b"another"))
    assert client.call("odd:x", "draw")[3] == (2 << 40) + 1


def test_time_never_runs_backwards(driver: Driver, client: Client) -> None:
    """The engine's time is the greatest stamp that it has seen."""
    client.call("odd:x", "note", 1)
    driver.now -= 100
    assert client.call("odd:x", "draw")[2] == hosted_classes.START
    assert driver.engine.now == START


# -- waits ------------------------------------------------------------------------------------------------


def test_a_wait_ends_by_a_wake(client: Client) -> None:
    """Waits are ended in the order in which they began, by the value given to wake."""
    first, second = client.send("gate:x", "pass_through"), client.send("gate:x", "pass_through")
    assert client.call("gate:x", "open_one", 1) is True
    assert (first.result(), second.result()) == (1, WAITING)
    assert client.call("gate:x", "open_all", 2) == 1
    assert second.result() == 2
    assert client.call("gate:x", "open_one", 3) is False


def test_a_wait_ends_at_its_deadline(driver: Driver, client: Client) -> None:
    """What is due happens before the event that comes later, in the order of deadlines."""
    late = client.send("gate:x", "pass_through", 2.0, "late")
    early = client.send("gate:x", "pass_or_fail", 0.5)
    assert driver.engine.next_due() == START + 0.5
    driver.now += 5
    outputs = driver.feed(Advance(now=driver.now))
    assert [output.seq for output in outputs] == [early.event.seq, late.event.seq]
    assert late.result() == "late"
    with pytest.raises(KeyError):
        early.result()
    assert driver.engine.next_due() is None


def test_a_timeout_of_zero_ends_with_the_next_event(driver: Driver, client: Client) -> None:
    """What is due at the moment of the last event is done by an advance to that same moment."""
    ticket = client.send("gate:x", "pass_through", 0.0, "late")
    assert ticket.waits
    driver.advance(0)
    assert ticket.result() == "late"


def test_what_is_given_for_the_deadline_is_a_value_then(driver: Driver, client: Client) -> None:
    """A list given as the reply at the deadline may be changed afterwards; the reply is what it was."""
    ticket = client.send("gate:x", "pass_late", 1.0)
    other = driver.client()
    other.call("gate:x", "open_one", "change")
    again = client.send("gate:x", "pass_late", 1.0)
    driver.advance(2)
    assert ticket.result() == "change"
    assert again.result() == ["late", "change"]


def test_endless_and_senseless_timeouts(driver: Driver, client: Client) -> None:
    """An infinite timeout waits for ever; one that is no number is refused."""
    ticket = client.send("gate:x", "pass_through", float("inf"))
    assert ticket.waits
    assert driver.engine.next_due() is None
    with pytest.raises(ValueError, match="number of seconds"):
        client.call("gate:x", "pass_through", float("nan"))
    client.call("gate:x", "open_all")
    assert ticket.result() is True


def test_a_wait_that_was_ended_in_its_own_call(client: Client) -> None:
    """A method may wait and be woken before it returns."""
    assert client.call("gate:x", "through_at_once", 7) == 7


@pytest.mark.parametrize(
    ("method", "outcome"),
    [
        ("wait_then_raise", ValueError),
        ("through_then_raise", ValueError),
        ("wait_then_return", "did not wait"),
        ("wait_twice", RuntimeError),
        ("undeclared", DeclarationError),
        ("return_another", None),
    ],
)
def test_a_call_that_did_not_wait_after_all(driver: Driver, client: Client, method: str, outcome: object) -> None:
    """The last word of a method counts, once, and no wait of it stays behind."""
    ticket = client.send("gate:x", method)
    assert ticket.outcome() == outcome
    assert len(ticket.outputs) == 1
    assert not driver.instance("gate:x").waiters
    assert not driver.engine.sessions[client.number].waits


def test_a_wait_that_is_not_declared_is_told_with_the_method(client: Client) -> None:
    """The error says where the name belongs."""
    with pytest.raises(DeclarationError) as caught:
        client.call("gate:x", "undeclared")
    assert str(caught.value).startswith("gate.waiting must name 'undeclared', which waits, not ('pass_through', ")


def test_a_wait_of_another_call_cannot_be_returned(driver: Driver, client: Client) -> None:
    """A wait belongs to the call that made it."""
    waiting = client.send("gate:x", "pass_through")
    with pytest.raises(NotShareable):
        client.call("gate:x", "return_another")
    assert waiting.waits


def test_a_wait_that_ends_with_what_cannot_cross(client: Client) -> None:
    """The one who waits is told so; the one who wakes goes on."""
    waiting = client.send("gate:x", "pass_through")
    assert client.call("gate:x", "uncrossable_all") == 1
    with pytest.raises(NotShareable, match="took effect"):
        waiting.result()


def test_nobody_waits_outside_a_call() -> None:
    """A factory, or a hook, cannot wait."""

    class Waiting:
        def __init__(self, wait: bool = False) -> None:
            self.waiters = hosted_classes.Waiters()
            if wait:
                self.waiters.wait(1)

        def touch(self) -> None:
            at = hosted_classes.at
            at(hosted_classes.call().now + 1)

        def due(self, now: float) -> None:
            self.waiters.wait(1)

    driver = Driver(SharedObject("waiting", Waiting), twin=True)
    client = driver.client()
    with pytest.raises(RuntimeError, match="only a method that a client has called"):
        client.create("waiting:x", True)
    client.call("waiting:y", "touch")
    driver.advance(2)
    with pytest.raises(RegistryError, match="RuntimeError in due"):
        client.call("waiting:y", "touch")


def test_a_line_that_its_object_has_let_go_of(driver: Driver, client: Client) -> None:
    """Waits in a line that is no part of the state any more still end at their deadline."""
    ticket = client.send("gate:x", "pass_line", "a", 1.0)
    client.call("gate:x", "drop_line", "a")
    driver.restart()
    driver.advance(1)
    assert ticket.result() == "a"


def test_a_resent_wait_has_the_time_that_is_left(driver: Driver, client: Client) -> None:
    """A resend of a call that waits does not run it again; it sets the deadline."""
    ticket = client.send("gate:x", "pass_through", 10.0, "late")
    ticket.resend(2.0)
    ticket.resend(10.0)
    ticket.resend(10.0)
    ticket.resend()
    ticket.resend(2.0)
    assert len(driver.instance("gate:x").waiters) == 1
    driver.advance(2)
    assert ticket.result() == "late"
    assert len(ticket.outputs) == 1


def test_the_heap_does_not_grow_with_waits_that_have_ended(client: Client) -> None:
    """Waits that ended early leave little behind."""
    driver = Driver(GATE)
    client = driver.client()
    for _ in range(3000):
        client.send("gate:x", "pass_through", 1e6)
        client.call("gate:x", "open_one")
    assert len(driver.engine.deadlines) < 2100


def test_the_end_of_an_owner_settles_its_waits(driver: Driver, client: Client) -> None:
    """A wait of a thread that has ended is over, and says so if its session asks again."""
    mine = client.send("gate:x", "pass_through", owner=1)
    other = client.send("gate:x", "pass_through", owner=2)
    client.end_owner(1)
    assert mine.result() is CANCELLED
    mine.resend()
    assert mine.result() is CANCELLED
    # Gate wakes the first of those who are left when an owner ends.
    assert other.result() == ["ended", (client.number, 1)]


# -- exactly once
# ---------------------------------------------------------------------------------------------


def test_a_resent_call_is_answered_from_memory(driver: Driver, client: Client) -> None:
    """A call that has run does not run again: its reply comes again, with the index it had."""
    ticket = client.send("odd:x", "note", 1)
    ticket.resend()
    assert [output.body for output in ticket.outputs] == [ticket.outputs[0].body] * 2
    assert ticket.outputs[0].index == ticket.outputs[1].index
    assert client.call("odd:x", "numbers") == [0, 1]


def test_a_call_that_raised_is_remembered_too(client: Client) -> None:
    """An error is a reply like any other."""
    ticket = client.send("odd:x", "half", 1)
    ticket.resend()
    assert len(ticket.outputs) == 2
    assert client.call("odd:x", "numbers") == [0, 1]


def test_what_was_acknowledged_is_stale(driver: Driver, client: Client) -> None:
    """A frame at or below the mark, or in the set above it, has no effect and no answer."""
    waiting = client.send("gate:x", "pass_through")
    ticket = client.send("odd:x", "note", 1)
    client.call("odd:x", "note", 2)
    assert driver.engine.sessions[client.number].mark == 0
    ticket.resend()
    ticket.cancel()
    assert len(ticket.outputs) == 1
    client.call("gate:x", "open_all", 3)
    client.call("odd:x", "note", 3)
    assert driver.engine.sessions[client.number].mark == waiting.event.seq + 3
    waiting.resend()
    assert len(waiting.outputs) == 1
    assert client.call("odd:x", "numbers") == [0, 1, 2, 3]


def test_a_call_that_waits_pins_no_other_reply(client: Client) -> None:
    """One thread parks; ten thousand calls of another leave nothing behind."""
    driver = Driver(GATE, ODD, QUEUE)
    client = driver.client()
    client.send("gate:x", "pass_through")
    for _ in range(10_000):
        client.send("odd:x", "give", None)
        client._received = set(sorted(client._received)[-2:])
    session = driver.engine.sessions[client.number]
    assert session.mark == 0
    assert len(session.replies) <= 2
    assert len(session.above.rows()) <= 2


def test_a_cancel_before_its_call_keeps_it_from_running(driver: Driver, client: Client) -> None:
    """A cancel that overtakes its call leaves a tombstone."""
    client.call("odd:x", "note", 1)
    ticket = client.send("odd:x", "numbers")
    seq = client._seq + 1
    driver.feed(hosted_classes.Cancel(now=driver.now, session=client.number, seq=seq, undo=True))
    event = hosted_classes.msgspec.structs.replace(ticket.event, seq=seq, method="note")
    (output,) = driver.feed(event)
    assert output.kind == Kind.CANCELLED
    assert client.call("odd:x", "numbers") == [0, 1]


def test_a_cancel_ends_a_wait(driver: Driver, client: Client) -> None:
    """A cancelled wait leaves the line, and cannot be woken."""
    first, second = client.send("gate:x", "pass_through"), client.send("gate:x", "pass_through")
    first.cancel(undo=False)
    assert first.result() is CANCELLED
    client.call("gate:x", "open_one", 1)
    assert second.result() == 1
    first.cancel()
    assert first.result() is CANCELLED


def test_a_cancel_without_undo_tells_what_has_happened(client: Client) -> None:
    """A call that has run keeps its reply."""
    ticket = client.send("lock:x", "acquire")
    ticket.cancel(undo=False)
    assert len(ticket.outputs) == 2
    assert ticket.result().number


def test_a_cancel_with_undo_gives_a_lock_to_the_next(driver: Driver, client: Client) -> None:
    """A grant that nobody heard of goes to whoever waits, in the same step."""
    client.deaf = True
    other = driver.client()
    mine, next_one = client.send("lock:x", "acquire"), other.send("lock:x", "acquire")
    mine.cancel(undo=True)
    assert mine.result() is CANCELLED
    assert next_one.result().number
    assert not next_one.result().abandoned


def test_a_cancel_with_undo_puts_an_item_back_to_the_front(driver: Driver, client: Client) -> None:
    """An item that nobody heard of is the first again."""
    for item in (1, 2):
        client.call("queue:x", "put", item)
    client.deaf = True
    ticket = client.send("queue:x", "get")
    ticket.cancel(undo=True)
    assert ticket.result() is CANCELLED
    other = driver.client()
    assert [other.call("queue:x", "get") for _ in range(2)] == [1, 2]


def test_what_could_not_be_undone_keeps_its_reply(client: Client) -> None:
    """An object may say that there is nothing to undo."""
    ticket = client.send("gate:x", "through_at_once", "keep")
    ticket.cancel(undo=True)
    assert ticket.result() == "keep"
    assert len(ticket.outputs) == 2


@pytest.mark.parametrize("how", ["take_back", "stopped"])
def test_an_object_that_cannot_undo_any_more_keeps_its_reply(driver: Driver, client: Client, how: str) -> None:
    """Nothing is said to be undone that was not."""
    client.call("broken:x", "set", how)
    ticket = client.send("broken:x", "grant")
    if how == "stopped":
        client.call("broken:x", "set", "due")
        driver.advance(2)
    ticket.cancel(undo=True)
    assert ticket.result() == "granted"
    with pytest.raises(RegistryError, match="is stopped since"):
        client.call("broken:x", "grant")


def test_what_a_dead_session_did_not_hear_of_is_taken_back(driver: Driver, client: Client) -> None:
    """Unacknowledged items go back in their old order; acknowledged ones are the dead session's."""
    other = driver.client()
    for item in range(4):
        other.call("queue:x", "put", item)
    assert client.call("queue:x", "get") == 0
    client.deaf = True
    client.send("queue:x", "get")
    client.send("queue:x", "get")
    client.end()
    assert [other.call("queue:x", "get") for _ in range(3)] == [1, 2, 3]


def test_a_goodbye_acknowledges_above_the_mark(driver: Driver, client: Client) -> None:
    """An item that was heard of is not given out again because another call still waits."""
    other = driver.client()
    other.call("queue:x", "put", 1)
    client.send("gate:x", "pass_through")
    assert client.call("queue:x", "get") == 1
    driver.feed(hosted_classes.SessionEnded(now=driver.now, session=client.number, received=0, above=((2, 2),)))
    assert other.call("queue:x", "empty") is True


@pytest.mark.parametrize("breaks", ["owner_ended", "vacant", "due"])
def test_a_hook_that_raises_stops_its_object(driver: Driver, client: Client, breaks: str) -> None:
    """Nobody is there to be told but those who wait in it, and those who call it later."""
    other = driver.client()
    waiting = other.send("broken:x", "pass_through")
    client.send("broken:x", "set", breaks)
    if breaks == "vacant":
        waiting.cancel()
    client.end_owner(1)
    driver.advance(2)
    client.send("broken:x", "grant")
    if breaks != "vacant":
        with pytest.raises(RegistryError, match="is stopped since ZeroDivisionError in " + breaks):
            waiting.result()
    with pytest.raises(RegistryError, match="is stopped since"):
        client.call("broken:x", "grant")
    assert other.call("odd:x", "note", 1) == 2


# -- alarms -------------------------------------------------------------------------------------------------


def test_an_alarm_rings_at_its_time(driver: Driver, client: Client) -> None:
    """An alarm that sets itself again rings as often as time has passed, each at its own time."""
    client.call("timer:x", "every", 1.0)
    waiting = client.send("timer:x", "next_ring")
    driver.advance(3.5)
    assert client.call("timer:x", "rung") == [START + 1, START + 2, START + 3]
    assert waiting.result() == START + 1
    client.call("timer:x", "never")
    driver.advance(10)
    assert len(client.call("timer:x", "rung")) == 3
    assert driver.engine.next_due() is None


def test_an_alarm_for_no_later_time_does_not_ring_for_ever(driver: Driver, client: Client) -> None:
    """One that is asked for inside of due for the same moment waits for the next event."""
    client.call("timer:x", "every", 0.0)
    driver.advance(1)
    driver.advance(0)
    driver.advance(1)
    assert client.call("timer:x", "rung") == [START, START + 1, START + 1]


def test_a_factory_may_set_an_alarm(driver: Driver, client: Client) -> None:
    """The alarm that a factory asks for rings once, also after a restore."""
    client.create("timer:x", 1.0)
    driver.restart()
    driver.advance(5)
    assert client.call("timer:x", "rung") == [START + 1]


def test_an_object_that_is_gone_does_not_ring(driver: Driver, client: Client) -> None:
    """Deleting an object takes its alarm with it, and so does a factory that fails."""
    client.call("timer:x", "every", 1.0)
    client.call("timer:x", DELETE)

    class Failing:
        def __init__(self) -> None:
            hosted_classes.at(hosted_classes.call().now + 1)
            raise ValueError

        def due(self, now: float) -> None:
            pass

        def touch(self) -> None:
            pass

    assert driver.engine.next_due() is None
    other = Driver(SharedObject("failing", Failing))
    with pytest.raises(ValueError):
        other.client().call("failing:x", "touch")
    assert other.engine.next_due() is None


@pytest.mark.parametrize("time", [float("nan"), "soon"])
def test_an_alarm_needs_a_time(time: Any) -> None:
    """What is no number is refused where it was given."""

    class Late:
        def set(self, time: Any) -> None:
            hosted_classes.at(time)

    client = Driver(SharedObject("late", Late)).client()
    with pytest.raises(ValueError):
        client.call("late:x", "set", time)
    client.call("late:x", "set", float("inf"))
    assert client.driver.engine.next_due() is None


# -- objects
# ---------------------------------------------------------------------------------------------------


def test_definitions_are_compared_by_meaning(driver: Driver, client: Client) -> None:
    """Arguments that say the same in other ways are the same; others conflict, naming both and the maker."""
    client.create("queue:x", 3)
    hosted = driver.engine.find("queue", "x")
    assert hosted is not None
    hosted.check(_codec.encode_arguments((), {"maxsize": 3}))
    hosted.check(_codec.encode_arguments((), {}))
    with pytest.raises(DefinitionConflict) as caught:
        hosted.check(_codec.encode_arguments((4,), {}))
    assert (caught.value.stored, caught.value.given) == ("maxsize=3", "maxsize=4")
    assert caught.value.maker == client.label
    with pytest.raises(TypeError, match="queue"):
        hosted.check(_codec.encode_arguments((), {"size": 4}))


def test_unknown_types_and_objects(driver: Driver, client: Client) -> None:
    """A call of what is not there says which part of it is not."""
    client.call("odd:x", "note", 1)
    for typeid, error in (("nowhere", UnknownType), ("odd", NoSuchObject)):
        seq = client._seq = client._seq + 1
        event = client.send("odd:x", "numbers").event
        event = hosted_classes.msgspec.structs.replace(event, seq=seq, typeid=typeid, name="y", method="note")
        (output,) = driver.feed(event)
        assert isinstance(_codec.decode(output.body), error)
    create = Create(
        now=driver.now,
        session=client.number,
        seq=99,
        owner=1,
        typeid="nowhere",
        name="y",
        arguments=b"\x92\x90\x80",
    )
    (output,) = driver.feed(create)
    assert isinstance(_codec.decode(output.body), UnknownType)


def test_deleting_ends_the_waits_in_an_object(driver: Driver, client: Client) -> None:
    """Who waits in an object that is deleted is told; a new one of that name knows nothing of the old."""
    waiting = client.send("gate:x", "pass_through")
    client.call("gate:x", DELETE)
    with pytest.raises(NoSuchObject, match="deleted"):
        waiting.result()
    assert client.call("gate:x", "waiting") == []


def test_objects_of_a_call_end_with_their_session(driver: Driver, client: Client) -> None:
    """What was made for one session goes with it, and others who wait there are told."""
    other = driver.client()
    client.call("scratch:abc", "write", "a")
    assert other.call("scratch:abc", "read") == ["a"]
    waiting = other.send("scratch:abc", "await_more")
    client.end()
    with pytest.raises(NoSuchObject, match="session has ended"):
        waiting.result()
    assert driver.engine.find("scratch", "abc") is None


def test_state_that_cannot_be_captured_is_refused_at_once(client: Client) -> None:
    """An object that no snapshot could hold is never made."""

    class Holds:
        def __init__(self) -> None:
            self.file = object()

        def touch(self) -> None:
            pass

    class Slotted:
        __slots__ = ("value",)

    def make() -> Any:
        return Slotted()

    driver = Driver(
        SharedObject("holds", Holds),
        SharedObject("slotted", make, exposed=("touch",)),
    )
    client = driver.client()
    for typeid, name in (("holds", "Holds"), ("slotted", "Slotted")):
        with pytest.raises(NotDurable, match=name):
            client.create(f"{typeid}:x")
        assert driver.engine.find(typeid, "x") is None


def test_two_objects_are_never_one(client: Client) -> None:
    """A factory that returns the same instance twice is refused, until the first is gone."""
    jar = Odd()
    driver = Driver(SharedObject("jar", lambda: jar, exposed=("note",)))
    client = driver.client()
    client.create("jar:a")
    with pytest.raises(DeclarationError, match="jar:a"):
        client.create("jar:b")
    client.call("jar:a", DELETE)
    client.create("jar:b")


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, RecursionError])
def test_a_factory_that_raises_ends_nothing(kind: type[BaseException]) -> None:
    """Its error is the reply, and there is no object."""

    def make() -> Odd:
        raise kind

    driver = Driver(SharedObject("odd", make))
    with pytest.raises((RemoteError, RecursionError)):
        driver.client().create("odd:x")
    assert not driver.engine.objects
    assert not driver.engine._numbered


def test_definitions_hold_no_pickles(driver: Driver) -> None:
    """The arguments of a factory are typed: nobody has vouched for a pickle in them."""
    client = driver.client(domain="here")
    with pytest.raises(NotShareable, match="definition"):
        client.create("odd:x", Carried(b"pickle", "elsewhere", "Thing"))


def test_records_of_vacant_objects_go(client: Client) -> None:
    """Of objects that are as good as new only so many are kept; those in use stay."""
    driver = Driver(LOCK)
    client = driver.client()
    client.call("lock:held", "acquire")
    for number in range(KEPT_VACANT + 10):
        client.call(f"lock:{number}", "acquire")
        client.call(f"lock:{number}", "release")
    engine = driver.engine
    assert len(engine.objects) == KEPT_VACANT + 1
    assert engine.find("lock", "held") is not None
    assert engine.find("lock", "9") is None
    assert len(engine.sessions[client.number].objects) == KEPT_VACANT + 1


def test_a_call_may_rely_on_a_grant(driver: Driver, client: Client) -> None:
    """A guarded call runs only while the grant is valid; after that it is refused, and so is a read."""
    grant = client.call("lock:x", "acquire")
    client.call("odd:x", "note", 1)
    event = client.send("odd:x", "numbers").event

    def guarded(method: str, number: int) -> Any:
        seq = client._seq = client._seq + 1
        guards = (("lock", "x", number),)
        call = hosted_classes.msgspec.structs.replace(event, seq=seq, method=method, grants=guards)
        call = hosted_classes.msgspec.structs.replace(
            call, arguments=_codec.encode_arguments((2,) if method == "note" else (), {})
        )
        output = driver.engine.read(call) if method == "numbers" else driver.feed(call)[0]
        return _codec.decode(output.body)

    assert guarded("note", grant.number) == 3
    assert guarded("numbers", grant.number) == [0, 1, 2]
    client.call("lock:x", "release")
    assert isinstance(guarded("note", grant.number), LockLost)
    assert isinstance(guarded("numbers", grant.number), LockLost)
    assert isinstance(guarded(DELETE, grant.number), LockLost)
    assert client.call("odd:x", "numbers") == [0, 1, 2]


# -- opaque values ------------------------------------------------------------------------------------------


def test_opaque_values_get_the_stamp_of_their_writer(driver: Driver) -> None:
    """What a writer claims is not asked; a writer without a domain has no pickles to share."""
    here, nowhere = driver.client(domain="here"), driver.client()
    value = Carried(b"pickle", "forged", "Thing")
    here.call("odd:x", "note", value)
    stored = driver.instance("odd:x").notes[1]
    assert (stored.data, stored.domain, stored.kind) == (b"pickle", "here", "Thing")
    with pytest.raises(NotShareable, match="one user"):
        nowhere.call("odd:x", "note", value)
    assert len(driver.instance("odd:x").notes) == 2


# -- snapshots
# -------------------------------------------------------------------------------------------------


def test_a_snapshot_of_another_kind_is_refused(driver: Driver, client: Client) -> None:
    """Bytes that are no snapshot raise ValueError; a type that is not declared here is named."""
    for data in (b"", b"\xc1", _codec.encode([99, 1, 2, 3, 4, 5, 6]), _codec.encode({"a": 1})):
        with pytest.raises(ValueError):
            _image.restore({}, data)
    client.call("odd:x", "note", 1)
    with pytest.raises(UnknownType, match="odd"):
        _image.restore({}, _image.capture(driver.engine))


def test_an_unknown_session_is_opened_once() -> None:
    """A session's key names it for good."""
    engine = Engine(DECLARATIONS)
    for _ in range(2):
        engine.step(Open(now=1.0, key=b"k", label="one", domain=""))
    assert engine.session_of(b"k") == 1
    assert len(engine.sessions) == 1
    engine.step(OwnerEnded(now=1.0, session=1, owner=1))
    assert engine.session_of(b"other") == 0


def test_statistics(driver: Driver, client: Client) -> None:
    """An object's own statistics come with what the engine knows, and change nothing."""
    client.call("lock:x", "acquire")
    before = _image.capture(driver.engine)
    told = driver.statistics("lock:x")
    assert told["maker"] == client.label
    assert labels(told["holder"]) == [client.label]
    assert _image.capture(driver.engine) == before
