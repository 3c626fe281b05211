"""The linearizability checker, itself checked, and what it says of the engine and of broken ones."""

from __future__ import annotations

from itertools import permutations
from math import inf
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linearizability.checker import UNKNOWN, Model, Operation, Undecided, check, check_objects
from linearizability.histories import EXAMPLES, Example, parse_jepsen, recorded, verdicts
from linearizability.models import Counter, FairLock, Lock, Queue, Register, Semaphore
from linearizability.mutants import MUTANTS, Mutant
from linearizability.simulation import KINDS, MODELS, record
from sizes import size

from registry.errors import NotOwner

# -- the checker


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_small_histories_are_judged_rightly(example: Example) -> None:
    """Every history of our own has the verdict that was written beside it."""
    verdict = check(example.history, example.model)
    assert bool(verdict) is example.linearizable, str(verdict)


def test_recorded_histories_are_judged_rightly() -> None:
    """The verdicts on histories that Jepsen recorded of etcd are those that are known."""
    place = recorded()
    if place is None:
        pytest.skip("no recorded histories here: REGISTRY_HISTORIES may name a directory with VERDICTS and its logs")
    wrong = []
    count = 0
    for path, linearizable in verdicts(place):
        count += 1
        history = parse_jepsen(path.read_text(encoding="utf-8").splitlines())
        if bool(check(history, Register())) is not linearizable:
            wrong.append(path.name)
    assert count
    assert not wrong


def test_a_log_of_jepsen_is_read() -> None:
    """What failed, what timed out and what never ended are told apart."""
    log = """
        INFO  jepsen.util - 0	:invoke	:write	3
        INFO  jepsen.util - 1   :invoke :cas    [3 4]
        INFO  jepsen.util - 0	:ok	:write	3
        INFO  jepsen.util - 1   :fail   :cas    [3 4]
        INFO  jepsen.util - 2	:invoke	:read	nil
        INFO  jepsen.util - 2	:fail	:read	:timed-out
        INFO  jepsen.util - 3	:invoke	:write	1
        INFO  jepsen.util - 4	:invoke	:read	nil
        INFO  jepsen.util - 4	:ok	:read	nil
        INFO  jepsen.util - 5	:invoke	:cas	[1 2]
        INFO  jepsen.util - 5	:info	:cas	:timed-out
    """
    told = [(op.process, op.verb, op.argument, op.result, op.returned < inf) for op in parse_jepsen(log.splitlines())]
    assert told == [
        ("0", "write", 3, None, True),
        ("1", "cas", (3, 4), False, True),
        ("2", "read", None, UNKNOWN, False),
        ("4", "read", None, None, True),
        ("5", "cas", (1, 2), UNKNOWN, False),
        ("3", "write", 1, UNKNOWN, False),
    ]


@pytest.mark.parametrize(
    "log", ["nonsense", "0 :ok :read 3", "0 :invoke :read nil\n0 :invoke :read nil"], ids=["text", "end", "twice"]
)
def test_a_log_that_is_none_is_refused(log: str) -> None:
    """A reader that skips what it does not understand would call anything linearizable."""
    with pytest.raises(ValueError, match="line"):
        parse_jepsen(log.splitlines())


def test_a_history_that_cannot_be_is_refused() -> None:
    """An operation does not end before it begins, and has an end if and only if it has a result."""
    good = Operation(process="A", verb="read", invoked=2, returned=3)
    for change in ({"returned": 1}, {"returned": inf}, {"result": UNKNOWN}):
        with pytest.raises(ValueError):
            check([attrs.evolve(good, **change)], Register())


def test_the_search_gives_up_at_its_limit() -> None:
    """A search that has found nothing by then says so, and says neither yes nor no."""
    history = [Operation(process=number, verb="write", argument=number, invoked=0, returned=9) for number in range(9)]
    history.append(Operation(process="A", verb="read", result=10, invoked=10, returned=11))
    assert not check(history, Register())
    with pytest.raises(Undecided):
        check(history, Register(), limit=100)


def test_a_violation_is_explained() -> None:
    """The report names the object, the longest order, and what did not fit."""
    history = [
        Operation(process="A", verb="incr", argument=1, result=1, invoked=0, returned=1, subject="counter:c"),
        Operation(process="B", verb="incr", argument=1, result=1, invoked=2, returned=3, subject="counter:c"),
        Operation(process="B", verb="read", result=None, invoked=2, returned=3, subject="register:r"),
    ]
    verdict = check_objects(history, {"counter:c": Counter(), "register:r": Register()})
    assert not verdict
    assert verdict.part == ("counter:c", "")
    assert verdict.order == (history[0],)
    assert verdict.stuck == (history[1],)
    assert "[2, 3] B: incr(1) -> 1" in str(verdict)


def test_many_calls_with_no_known_result_are_no_trouble() -> None:
    """Of calls that do the same it does not matter which took effect, so the search does not try them all."""
    history = [
        Operation(process=number, verb="incr", argument=1, result=UNKNOWN, invoked=number) for number in range(40)
    ]
    for seen, linearizable in ((20, True), (41, False)):
        read = Operation(process="A", verb="get", result=seen, invoked=50, returned=51)
        verdict = check([*history, read], Counter())
        assert bool(verdict) is linearizable
        assert verdict.explored < 1000


# -- the checker beside one that tries everything


def by_force(history: list[Operation], model: Model) -> bool:
    """Try every order of every choice of operations that there is."""
    for part in model.split(history).values():
        known = [op for op in part if op.result is not UNKNOWN]
        loose = [op for op in part if op.result is UNKNOWN]
        if not any(
            fits(order, model)
            for choice in range(1 << len(loose))
            for order in permutations(known + [op for place, op in enumerate(loose) if choice >> place & 1])
        ):
            return False
    return True


def fits(order: tuple[Operation, ...], model: Model) -> bool:
    """Tell whether operations may happen in this order, one at a time."""
    if any(later.returned < op.invoked for place, op in enumerate(order) for later in order[place + 1 :]):
        return False
    states = {model.initial()}
    for op in order:
        states = {after for state in states for after in model.step(state, op)}
    return bool(states)


def operations(*rows: tuple[str, Any, list[Any]]) -> st.SearchStrategy[Operation]:
    """Draw an operation: one of the verbs, with its argument and one of its results."""

    @st.composite
    def operation(draw: st.DrawFn) -> Operation:
        verb, arguments, results = draw(st.sampled_from(rows))
        process = draw(st.sampled_from("AB"))
        invoked = draw(st.integers(0, 9))
        result = draw(st.sampled_from([*results, UNKNOWN]))
        return Operation(
            process=process,
            verb=verb,
            argument=draw(st.sampled_from(arguments)),
            result=result,
            invoked=invoked,
            returned=inf if result is UNKNOWN else invoked + draw(st.integers(0, 5)),
            call=(process, draw(st.integers(1, 2))),
        )

    return operation()


CASES: list[tuple[Model, st.SearchStrategy[Operation]]] = [
    (
        Register(0),
        operations(("read", [None], [0, 1, 2]), ("write", [1, 2], [None]), ("cas", [(0, 1), (1, 2)], [True, False])),
    ),
    (Counter(), operations(("incr", [1], [1, 2, 3]), ("get", [None], [0, 1, 2]), ("set", [1], [None]))),
    (
        Queue(2),
        operations(
            ("put", [1, 2], [None]),
            ("get", [None], [1, 2]),
            ("undo", [("A", 1), ("B", 1)], [None]),
            ("end", [((("A", 1), False),), ((("A", 1), True), (("A", 2), False))], [None]),
        ),
    ),
    *(
        (
            model,
            operations(
                ("acquire", ["wait", "try"], [(1, False), (2, False), (2, True), False]),
                ("release", [None, 1], [None, NotOwner]),
                ("undo", [("A", 1), ("B", 1)], [None]),
                ("end", [()], [None]),
            ),
        )
        for model in (Lock(), FairLock())
    ),
    (
        Semaphore(1),
        operations(
            ("acquire", [None], [True, 7, False]),
            ("release", [None, 7], [None, NotOwner]),
            ("value", [None], [0, 1]),
            ("undo", [("A", 1)], [None]),
            ("end", [()], [None]),
        ),
    ),
]


@pytest.mark.parametrize(("model", "operation"), CASES, ids=[type(model).__name__ for model, _ in CASES])
@given(data=st.data())
@settings(max_examples=size(150, 5_000))
def test_the_search_agrees_with_trying_everything(
    model: Model, operation: st.SearchStrategy[Operation], data: st.DataObject
) -> None:
    """On tiny histories the search and its shortcuts find what all orders of all choices show."""
    history = data.draw(st.lists(operation, max_size=3 if isinstance(model, FairLock) else 5))
    assert bool(check(history, model)) is by_force(history, model)


# -- the engine


def test_a_seed_is_a_history() -> None:
    """What a seed has shown it shows again."""
    assert record(7) == record(7)
    assert record(7) != record(8)


@pytest.mark.once
def test_every_history_of_the_engine_is_linearizable() -> None:
    """Cut, cancelled, resent and killed as they are, the calls of a simulated crowd could have come one at a time."""
    begun = 0
    for seed in range(size(250, 10_000)):
        recording = record(seed)
        assert not recording.refused, f"seed {seed}: {recording.refused}"
        assert not recording.stalled, f"seed {seed}: calls without an answer"
        verdict = check_objects(recording.history, MODELS)
        assert verdict, f"seed {seed}: {verdict}"
        begun += len(recording.history)
    assert begun > 20 * len(KINDS)


@pytest.mark.once
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.title)
def test_what_is_broken_is_found_out(mutant: Mutant) -> None:
    """Each way to be broken shows in the history of one of a few seeds."""
    with mutant.active():
        for seed in range(200):
            try:
                history = record(seed, mutant.kinds).history
                if not check_objects(history, MODELS, limit=20_000):
                    return
            except Undecided:
                continue  # the next one may be easier
            except Exception:  # noqa: BLE001 - what is broken may fall over, which is not for the checker to find
                continue
    pytest.fail("the checker has not noticed")


def test_there_are_mutants_enough() -> None:
    """At least ten of them, and no type without one."""
    assert len(MUTANTS) >= 10
    assert {kind for mutant in MUTANTS for kind in mutant.kinds} == set(KINDS)


def test_a_mutant_leaves_no_trace() -> None:
    """After its block everything is as it was."""
    before = [[owner.__dict__.get(name) for owner, name, _ in mutant.changes] for mutant in MUTANTS]
    for mutant in MUTANTS:
        with mutant.active():
            pass
    assert before == [[owner.__dict__.get(name) for owner, name, _ in mutant.changes] for mutant in MUTANTS]
