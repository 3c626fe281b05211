"""Decide whether a history is linearizable.

A history is a row of operations, each with the time at which its caller began it and the time at which the
caller had its result. It is linearizable (Herlihy and Wing, TOPLAS'90) if each operation can be given one
moment between these two times such that a plain object, used by one caller at a time and in the order of
these moments, would have given the same results.

An operation whose result nobody knows, since its caller died or was cut off, may take effect at any time after
it began, or never. Calls that are known to have had no effect are not part of a history.

The search is that of Wing and Gong (JPDC'93) with Lowe's memory of what was tried (Concurrency and Computation
2017): the set of operations placed so far, and the state they led to. To it come four rules, none of which
loses an answer:

* a history is split by what its model says is independent, for an object is linearizable if its parts are;
* an operation that only reads is placed as soon as it fits, since it can stand in nobody's way. That a write
  happens to change nothing is not enough: it may be needed later;
* an operation with no known result is placed only where it changes something, and last among its equals in
  the order in which they began;
* whoever returned first is tried first: not needed, but it mostly is the right order.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import Any, Final

import attrs

#: The result of an operation that nobody has heard the end of.
UNKNOWN: Final[Any] = type("Unknown", (), {"__repr__": lambda self: "UNKNOWN"})()


@attrs.frozen(kw_only=True)
class Operation:
    """One call, as its caller saw it.

    Attributes:
        process: Who called; a tuple begins with the session.
        verb: What was called, with its `argument` as the model of the object takes it.
        result: What came of it: a value, the class of the exception, or `UNKNOWN`.
        invoked: When it began.
        returned: When the result was there; infinite where it is unknown. An operation that began at this very
            moment counts as concurrent.
        subject: The object, as ``typeid:name``, where a history is about several.
        call: The call, where others refer to it, such as an ``undo``; a pair of session and number.
    """

    process: Hashable
    verb: str
    argument: Any = None
    result: Any = None
    invoked: float
    returned: float = inf
    subject: str = ""
    call: Hashable = None

    @property
    def session(self) -> Hashable:
        """The session of the process."""
        return self.process[0] if isinstance(self.process, tuple) else self.process

    def __str__(self) -> str:
        end = "..." if self.returned == inf else f"{self.returned:g}"
        given = "" if self.argument is None else repr(self.argument)
        return f"[{self.invoked:g}, {end}] {self.process}: {self.verb}({given}) -> {self.result!r}"


class Model:
    """What an object may answer, one call at a time.

    States are immutable and hashable, and equal states have the same future.
    """

    def initial(self) -> Hashable:
        """Return the state that the object begins in."""
        raise NotImplementedError

    def step(self, state: Any, operation: Operation) -> Iterable[Hashable]:
        """Return the states that the operation may lead to; none where its result does not fit.

        A result that is `UNKNOWN` fits whatever the operation does.
        """
        raise NotImplementedError

    def split(self, history: Sequence[Operation]) -> Mapping[Hashable, Sequence[Operation]]:
        """Return the parts of a history that do not depend on each other, by what to call them."""
        return {"": history}

    def reads(self, operation: Operation) -> bool:
        """Tell whether an operation with this result leaves every state as it is."""
        return False

    def twin(self, operation: Operation) -> Hashable:
        """Return what makes two operations with no known result do the same."""
        return (operation.process, operation.verb, operation.argument, operation.call)


@attrs.frozen
class Verdict:
    """What the search has found; true if the history is linearizable.

    Attributes:
        linearizable: Whether it is.
        part: Which part of the history this is about: all, or the first that is not linearizable.
        explored: How many steps were tried.
        order: An order of the operations of that part; the longest that was found if there is none of all.
        stuck: The operations of which none can come next after that one.
    """

    linearizable: bool
    part: Hashable = ""
    explored: int = 0
    order: tuple[Operation, ...] = ()
    stuck: tuple[Operation, ...] = ()

    def __bool__(self) -> bool:
        return self.linearizable

    def __str__(self) -> str:
        if self.linearizable:
            return f"linearizable ({self.explored} steps)"
        lines = [f"{self.part!r} is not linearizable ({self.explored} steps); the longest order ends with"]
        lines += [f"    {operation}" for operation in self.order[-12:]]
        lines += ["and then none of these fits:"]
        lines += [f"    {operation}" for operation in self.stuck]
        return "\n".join(lines)


class Undecided(Exception):
    """The search has reached its limit."""


def check(history: Iterable[Operation], model: Model, *, limit: int = 2_000_000) -> Verdict:
    """Search for an order that explains the history of one object.

    Args:
        history: The operations, in any order.
        model: What the object may answer.
        limit: How many steps to try for each part.

    Raises:
        Undecided: There was no answer within the limit.
        ValueError: An operation returned before it began, or has a result and no end.
    """
    operations = list(history)
    for operation in operations:
        if not operation.invoked <= operation.returned:
            raise ValueError(f"it returned before it began: {operation}")
        if (operation.result is UNKNOWN) != (operation.returned == inf):
            raise ValueError(f"what has a result has an end, and what has none has none: {operation}")
    explored = 0
    verdict = Verdict(True)
    for part, row in model.split(operations).items():
        verdict = _search(part, row, model, limit)
        explored += verdict.explored
        if not verdict:
            break
    return attrs.evolve(verdict, explored=explored)


def check_objects(history: Iterable[Operation], models: Mapping[str, Model], *, limit: int = 2_000_000) -> Verdict:
    """Search for an order for each object of a history.

    Linearizability is local: if each object has an order, so has the whole.

    Args:
        history: The operations, in any order.
        models: The models by subject.
        limit: As for `check`.
    """
    subjects: dict[str, list[Operation]] = {}
    for operation in history:
        subjects.setdefault(operation.subject, []).append(operation)
    explored = 0
    for subject, row in subjects.items():
        verdict = check(row, models[subject], limit=limit)
        explored += verdict.explored
        if not verdict:
            return attrs.evolve(verdict, part=(subject, verdict.part), explored=explored)
    return Verdict(True, explored=explored)


class _Frame:
    """One placed operation on the way down."""

    __slots__ = ("done", "low", "moves", "operation", "state")

    def __init__(self, done: int, low: int, state: Hashable, operation: Operation | None) -> None:
        self.done = done
        self.low = low
        self.state = state
        self.operation = operation
        self.moves: Iterator[tuple[int, Operation, Hashable]] = iter(())


def _search(part: Hashable, row: Sequence[Operation], model: Model, limit: int) -> Verdict:
    known = sorted((op for op in row if op.result is not UNKNOWN), key=lambda op: op.invoked)
    loose = sorted((op for op in row if op.result is UNKNOWN), key=lambda op: op.invoked)
    count = len(known)
    goal = (1 << count) - 1
    # Bits: known operations first, then the loose ones. Of equal loose ones only the eldest may come next.
    elder: list[int] = []
    latest: dict[Hashable, int] = {}
    for place, operation in enumerate(loose):
        twin = model.twin(operation)
        elder.append(1 << latest[twin] if twin in latest else 0)
        latest[twin] = count + place

    def candidates(done: int, low: int) -> tuple[list[int], float]:
        """Return the known operations that may come next, and by when what comes next must have begun."""
        horizon = inf
        found = []
        place = low
        while place < count and known[place].invoked <= horizon:
            if not done >> place & 1:
                found.append(place)
                horizon = min(horizon, known[place].returned)
            place += 1
        return sorted(found, key=lambda place: known[place].returned), horizon

    def moves(done: int, low: int, state: Hashable) -> Iterator[tuple[int, Operation, Hashable]]:
        found, horizon = candidates(done, low)
        steps = []
        for place in found:
            operation = known[place]
            after = list(model.step(state, operation))
            if after and model.reads(operation):
                yield 1 << place, operation, state
                return
            steps.append((1 << place, operation, after))
        for bit, operation, after in steps:
            for next_state in after:
                yield bit, operation, next_state
        for place, operation in enumerate(loose):
            if operation.invoked > horizon:
                break
            bit = 1 << (count + place)
            if not done & bit and done & elder[place] == elder[place]:
                for next_state in model.step(state, operation):
                    if next_state != state:
                        yield bit, operation, next_state

    top = _Frame(0, 0, model.initial(), None)
    top.moves = moves(0, 0, top.state)
    stack = [top]
    seen = {(0, top.state)}
    explored = 0
    deepest: tuple[int, int, tuple[Operation, ...]] = (-1, 0, ())
    while stack:
        top = stack[-1]
        if top.done & goal == goal:
            order = tuple(frame.operation for frame in stack if frame.operation is not None)
            return Verdict(True, part, explored, order)
        move = next(top.moves, None)
        if move is None:
            depth = bin(top.done & goal).count("1")
            if depth > deepest[0]:
                order = tuple(frame.operation for frame in stack if frame.operation is not None)
                deepest = (depth, top.done, order)
            stack.pop()
            continue
        bit, operation, state = move
        explored += 1
        if explored > limit:
            raise Undecided(f"{part!r}: no answer after {limit} steps")
        done = top.done | bit
        if (done, state) in seen:
            continue
        seen.add((done, state))
        low = top.low
        while done >> low & 1 and low < count:
            low += 1
        frame = _Frame(done, low, state, operation)
        frame.moves = moves(done, low, state)
        stack.append(frame)
    places, _ = candidates(deepest[1], 0)
    return Verdict(False, part, explored, deepest[2], tuple(known[place] for place in places))
