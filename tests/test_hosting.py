"""What authors of hosted classes use, at work in small classes and alone."""

from __future__ import annotations

from typing import Any

import pytest
from engine_driver import START, Driver

from registry import SharedObject, hosting
from registry._leaves import Carried
from registry.errors import NotShareable
from registry.hosting import Caller, Waiter, Waiters, at, call, carry, encode_reply


class Line:
    """Lets waits be looked at from inside."""

    def __init__(self) -> None:
        self.waiters = Waiters()
        self.other = Waiters()
        self.kept: dict[int, str] = {}

    def join(self, timeout: float | None = None) -> Waiter:
        return self.waiters.wait(timeout, otherwise={"tired": True})

    def look(self) -> list[object]:
        first = self.waiters.first
        return [
            len(self.waiters),
            [str(waiter.caller) for waiter in self.waiters],
            None if first is None else [tuple(first.owner), first.since, first.deadline, first.otherwise],
        ]

    def say(self, value: object) -> None:
        for waiter in self.waiters:
            waiter.otherwise = value

    def join_other(self) -> Waiter:
        waiter = self.other.wait()
        self.kept[waiter.number] = str(waiter.caller)
        return waiter

    def move(self) -> list[int]:
        for waiter in self.other:
            self.waiters.adopt(waiter)
        return [len(self.other), len(self.waiters)]

    def wake(self) -> None:
        self.waiters.wake("woken")

    def gave_up(self, waiter: Waiter) -> None:
        self.kept.pop(waiter.number, None)

    def wake_while_looking(self) -> int:
        return sum(self.waiters.wake(waiter.number) is waiter for waiter in self.waiters)


LINE = SharedObject("line", Line, readonly=("look",), waiting=("join", "join_other"))


@pytest.fixture
def driver() -> Driver:
    """An engine, with a twin that is restored between every two events."""
    return Driver(LINE, twin=True)


def test_there_is_a_call_only_in_a_step() -> None:
    """Outside, there is no caller and no time, and the error says where to try a class."""
    for function in (call, Waiters().wait, lambda: at(1.0)):
        with pytest.raises(RuntimeError, match="memory://"):
            function()
    # Nobody waits, so there is no step to ask for anything.
    assert Waiters().wake() is None


def test_the_example_of_the_module_runs() -> None:
    """The class in the docstring does what its author would expect."""
    text = (hosting.__doc__ or "").partition("An example that runs::")[2]
    lines = [line.removeprefix("    ") for line in text.splitlines()]
    names: dict[str, Any] = {"Waiters": Waiters}
    exec(compile("\n".join(lines), "<example>", "exec"), names)  # noqa: S102 - our own text
    gate = SharedObject("gate", names["Gate"], waiting=("pass_through",))
    driver = Driver(gate)
    client = driver.client()
    first, second = client.send("gate:x", "pass_through"), client.send("gate:x", "pass_through", timeout=1)
    driver.advance(1)
    client.call("gate:x", "unlock")
    assert (first.result(), second.result()) == (True, False)
    assert client.call("gate:x", "pass_through") is True


def test_waits_can_be_looked_at(driver: Driver) -> None:
    """A class sees who waits, since when and until when, longest first."""
    one, other = driver.client("one"), driver.client("other")
    assert one.call("line:x", "look") == [0, [], None]
    one.send("line:x", "join", 5, owner=3)
    driver.advance(1)
    other.send("line:x", "join")
    first = [(one.number, 3), START, START + 5, {"tired": True}]
    assert one.call("line:x", "look") == [2, ["one", "other"], first]


def test_the_reply_at_the_deadline_can_be_replaced(driver: Driver) -> None:
    """What a waiter is told in the end may change while it waits; it must be able to cross."""
    client = driver.client()
    ticket = client.send("line:x", "join", 5)
    client.call("line:x", "say", "full")
    driver.advance(5)
    assert ticket.result() == "full"


def test_waits_may_be_ended_while_they_are_looked_at(driver: Driver) -> None:
    """Iterating is over those who waited when it began."""
    client = driver.client()
    tickets = [client.send("line:x", "join") for _ in range(3)]
    assert client.call("line:x", "wake_while_looking") == 3
    numbers = [ticket.result() for ticket in tickets]
    assert numbers == sorted(numbers)


def test_a_waiter_can_be_moved_to_another_line(driver: Driver) -> None:
    """It stands at the end of that one, and its call waits on."""
    client = driver.client()
    moved = client.send("line:x", "join_other")
    first = client.send("line:x", "join")
    assert client.call("line:x", "move") == [0, 2]
    client.call("line:x", "wake")
    assert (first.result(), moved.waits) == ("woken", True)
    client.call("line:x", "wake")
    assert moved.result() == "woken"


@pytest.mark.parametrize("end", ["cancel", "death", "thread", "timeout"])
def test_a_class_hears_of_waits_that_end_without_it(driver: Driver, end: str) -> None:
    """What it kept for a wait can go, however that ended; a wait that it has woken itself is no news."""
    client, other = driver.client(), driver.client()
    kept = other.send("line:x", "join_other")
    ticket = client.send("line:x", "join_other", owner=2)
    if end == "timeout":
        ticket.resend(remaining=1.0)
    assert len(driver.instance("line:x").kept) == 2
    if end == "cancel":
        ticket.cancel()
    elif end == "death":
        client.end()
    elif end == "thread":
        client.end_owner(2)
    else:
        driver.advance(1)
    assert len(driver.instance("line:x").kept) == 1
    other.call("line:x", "move", owner=3)
    other.call("line:x", "wake", owner=3)
    assert kept.result() == "woken" and len(driver.instance("line:x").kept) == 1


def test_carry() -> None:
    """A plain value is carried as a client would have sent it; what is carried already stays as it is."""
    carried = Carried(b"pickle", "here", "Thing")
    assert carry(carried) is carried
    assert carry(5) == Carried.of(5)
    with pytest.raises(NotShareable):
        carry(object())


def test_replies_are_encoded_once_and_for_all() -> None:
    """An exception instance is an error; the order of a set does not show; what cannot cross is refused."""
    assert encode_reply({"b", "a", "c"}) == encode_reply({"c", "b", "a"})
    assert encode_reply(KeyError("k"))[0] is True
    with pytest.raises(NotShareable):
        encode_reply([object()])


def test_looking_at_the_call_is_noticed() -> None:
    """A read that looks at who asks or when is marked, so that nobody keeps its answer."""
    for name in ("session", "owner", "now", "caller"):
        step = hosting.Call(None, 1.0, 1, 2, Caller("web1", 7), 1, 1)  # type: ignore[arg-type]
        assert not step.looked
        getattr(step, name)
        assert step.looked


def test_touch_works_only_in_a_step() -> None:
    """Outside of one there is no object whose key it could be."""
    with pytest.raises(RuntimeError, match=r"hosting\.call\(\) works only inside a method that the engine runs"):
        hosting.touch("a key")
