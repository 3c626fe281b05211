"""What each type of object may answer, one call at a time.

Two verbs stand for what happens to calls rather than for calls:

``undo``
    Its `argument` is a call that its caller gave up: from here on that call has no effect, and what it gave has
    gone back.
``end``
    The session of its `process` has ended, and with it whatever only the living can hold. Its `argument` is the
    calls whose results it had not acknowledged, in their order, each with whether that is certain.
"""

from __future__ import annotations

import queue
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import attrs

from linearizability.checker import UNKNOWN, Model, Operation
from registry.errors import LockLost, NotOwner

#: The state of a key that a dict has not.
MISSING: Final[Hashable] = type("Missing", (), {"__repr__": lambda self: "MISSING"})()


_READS = frozenset({"read", "get", "__getitem__", "__contains__"})


def _fits(operation: Operation, result: object) -> bool:
    return operation.result is UNKNOWN or operation.result == result


class _Single(Model):
    """An object whose answer follows from its state, and to which it does not matter who calls."""

    def outcome(self, state: Any, verb: str, argument: Any) -> tuple[object, Hashable]:
        """Return the result and the state afterwards."""
        raise NotImplementedError

    def step(self, state: Any, operation: Operation) -> Iterable[Hashable]:
        result, after = self.outcome(state, operation.verb, operation.argument)
        return (after,) if _fits(operation, result) else ()

    def reads(self, operation: Operation) -> bool:
        # Of all others what answers so has not found what it would have changed.
        if operation.verb in _READS or operation.result is KeyError:
            return True
        return operation.result is False and operation.verb in ("cas", "compare_and_set")

    def twin(self, operation: Operation) -> Hashable:
        return operation.verb, operation.argument


@attrs.frozen
class Register(_Single):
    """One value: ``read``, ``write(value)``, ``cas((old, new))``.

    Attributes:
        start: The value that it begins with.
    """

    start: Hashable = None

    def initial(self) -> Hashable:
        return self.start

    def outcome(self, state: Any, verb: str, argument: Any) -> tuple[object, Hashable]:
        if verb == "read":
            return state, state
        if verb == "write":
            return None, argument
        if verb == "cas":
            old, new = argument
            return (True, new) if state == old else (False, state)
        raise ValueError(f"a register has no {verb!r}")


class DictKeys(_Single):
    """The verbs of a shared dict that are about one key, which is the first of their arguments."""

    def initial(self) -> Hashable:
        return MISSING

    def split(self, history: Sequence[Operation]) -> Mapping[Hashable, Sequence[Operation]]:
        parts: dict[Hashable, list[Operation]] = {}
        for operation in history:
            parts.setdefault(operation.argument[0], []).append(operation)
        return parts

    def outcome(self, state: Any, verb: str, argument: Any) -> tuple[object, Hashable]:
        given = argument[1:]
        there = state is not MISSING
        if verb == "__getitem__":
            return (state, state) if there else (KeyError, state)
        if verb == "get":
            return (state if there else (*given, None)[0]), state
        if verb == "__contains__":
            return there, state
        if verb == "__setitem__":
            return None, given[0]
        if verb == "__delitem__":
            return (None if there else KeyError), MISSING
        if verb == "pop":
            return (state if there else given[0] if given else KeyError), MISSING
        if verb == "setdefault":
            return (state, state) if there else (given[0], given[0])
        if verb == "incr":
            total = (state if there else 0) + (*given, 1)[0]
            return total, total
        if verb == "compare_and_set":
            old, new = given
            return (True, new) if there and state == old else (False, state)
        raise ValueError(f"{verb!r} is not about one key of a dict")


@attrs.frozen
class Counter(_Single):
    """A number: ``incr(by)``, ``decr(by)``, ``get``, ``set(value)``."""

    start: int = 0

    def initial(self) -> Hashable:
        return self.start

    def outcome(self, state: Any, verb: str, argument: Any) -> tuple[object, Hashable]:
        if verb == "incr":
            return state + argument, state + argument
        if verb == "decr":
            return state - argument, state - argument
        if verb == "get":
            return state, state
        if verb == "set":
            return None, argument
        raise ValueError(f"a counter has no {verb!r}")


class QueueState(NamedTuple):
    """The items; those taken by calls that may be undone; the calls and sessions that are over; and the claims, in
    their order, as (session, call, number, item), where a number that nobody knows is None."""

    items: tuple[Any, ...] = ()
    taken: tuple[tuple[Hashable, Any], ...] = ()
    over: frozenset[Hashable] = frozenset()
    claimed: tuple[tuple[Hashable, Hashable, int | None, Any], ...] = ()


@attrs.frozen
class Queue(Model):
    """First in, first out: ``put(item)``, ``get``, ``qsize``, ``claim``, ``settle((number, done))``, ``undo``, ``end``.

    A claim is (number, item). What a session has claimed goes back to the front at its end.

    Nothing is said of the order in which those who wait are served. What goes back goes to the front.

    Attributes:
        maxsize: How many items it holds before ``put`` waits; 0 for any number.
    """

    maxsize: int = 0

    def initial(self) -> Hashable:
        return QueueState()

    def split(self, history: Sequence[Operation]) -> Mapping[Hashable, Sequence[Operation]]:
        # Only what may be undone has to be remembered in the state.
        undoable = {op.argument for op in history if op.verb == "undo"}
        undoable |= {call for op in history if op.verb == "end" for call, _ in op.argument}
        return {"": [op if op.call in undoable else attrs.evolve(op, call=None) for op in history]}

    def reads(self, operation: Operation) -> bool:
        return operation.verb == "qsize" or operation.result in (queue.Empty, queue.Full, LockLost)

    def step(self, state: QueueState, operation: Operation) -> Iterable[Hashable]:
        verb, result = operation.verb, operation.result
        items, taken, over, _ = state
        if verb == "qsize":
            return (state,) if _fits(operation, len(items)) else ()
        if verb == "undo":
            return self._returned(state, operation.argument)
        if verb == "end":
            return self._ended(state, operation)
        if operation.session in over or (operation.call is not None and operation.call in over):
            return ()
        if verb == "put":
            full = 0 < self.maxsize <= len(items)
            if full or result is queue.Full:
                return (state,) if full and result is queue.Full else ()
            return (state._replace(items=(*items, operation.argument)),) if _fits(operation, None) else ()
        if verb == "get":
            if not items or result is queue.Empty:
                return (state,) if not items and result is queue.Empty else ()
            if not _fits(operation, items[0]):
                return ()
            if operation.call is not None:
                taken = (*taken, (operation.call, items[0]))
            return (state._replace(items=items[1:], taken=taken),)
        if verb == "claim":
            return self._claimed(state, operation)
        if verb == "settle":
            return self._settled(state, operation)
        raise ValueError(f"a queue has no {verb!r}")

    def _claimed(self, state: QueueState, operation: Operation) -> Iterable[QueueState]:
        items, result = state.items, operation.result
        if not items or result is queue.Empty:
            return (state,) if not items and result is queue.Empty else ()
        number = None
        if result is not UNKNOWN:
            if not isinstance(result, tuple) or result[1] != items[0]:
                return ()
            number = result[0]
        row = (operation.session, operation.call, number, items[0])
        return (state._replace(items=items[1:], claimed=(*state.claimed, row)),)

    def _settled(self, state: QueueState, operation: Operation) -> Iterable[QueueState]:
        number, done = operation.argument
        rows = [row for row in state.claimed if row[0] == operation.session and row[2] in (None, number)]
        after = []
        if operation.result in (None, UNKNOWN):
            for row in rows:
                items = state.items if done else (row[3], *state.items)
                after.append(
                    state._replace(items=items, claimed=tuple(other for other in state.claimed if other != row))
                )
        if operation.result in (LockLost, UNKNOWN) and not any(row[2] == number for row in rows):
            after.append(state)
        return after

    def _returned(self, state: QueueState, call: Hashable) -> Iterable[QueueState]:
        items, taken, over, claimed = state
        back = tuple(item for taker, item in taken if taker == call)
        back += tuple(row[3] for row in claimed if row[1] == call)
        left = tuple(row for row in taken if row[0] != call)
        claimed = tuple(row for row in claimed if row[1] != call)
        return (QueueState(back + items, left, over | {call}, claimed),)

    def _ended(self, state: QueueState, operation: Operation) -> Iterable[QueueState]:
        back = tuple(row[3] for row in state.claimed if row[0] == operation.session)
        claimed = tuple(row for row in state.claimed if row[0] != operation.session)
        states = {state._replace(items=back + state.items, claimed=claimed)}
        # Latest first, so that what goes back stands in its old order.
        for call, certain in reversed(operation.argument):
            undone = {after for before in states for after in self._returned(before, call)}
            states = undone if certain else states | undone
        gone = {call for call, _ in operation.argument}
        # The session is over, so its calls need not be told apart any more.
        return [
            QueueState(
                items,
                tuple(row for row in taken if row[0] not in gone),
                (over - gone) | {operation.session},
                claimed,
            )
            for items, taken, over, claimed in states
        ]


class LockState(NamedTuple):
    """Who holds it by which call and token, and what outlasts them; what was counted under its guard."""

    holder: Hashable = None
    call: Hashable = None
    token: int | None = None
    abandoned: bool = False
    last: int = 0
    over: frozenset[Hashable] = frozenset()
    line: tuple[Any, ...] = ()
    count: int = 0

    def freed(self) -> LockState:
        """Return the state without its holder."""
        return self._replace(holder=None, call=None, token=None)


class Lock(Model):
    """At most one session holds it: ``acquire(how)``, ``release(token)``, ``locked``, ``look``, ``undo``, ``end``.

    A grant is (token, abandoned), and False where it was refused. Tokens only grow. A grant is abandoned from
    the death of a holder to the release of one who was told.

    ``guarded(token)`` counts one more under the guard of a grant and returns the count, or `LockLost` where that
    grant is no longer valid: whoever holds it, it is never counted after its loss. ``count`` reads.
    """

    def initial(self) -> Hashable:
        return LockState()

    def reads(self, operation: Operation) -> bool:
        return operation.verb in ("locked", "look", "count") or operation.result in (False, NotOwner, LockLost)

    def step(self, state: LockState, operation: Operation) -> Iterable[Hashable]:
        verb, result = operation.verb, operation.result
        if verb == "locked":
            return (state,) if _fits(operation, state.holder is not None) else ()
        if verb == "count":
            return (state,) if _fits(operation, state.count) else ()
        if verb == "look":
            return (state,) if self.seen(state, result) else ()
        if verb == "undo":
            return (self.undone(state, operation.argument),)
        if verb == "end":
            return (self.ended(state, operation.session),)
        if operation.session in state.over or (operation.call is not None and operation.call in state.over):
            return ()
        if verb == "guarded":
            # Who holds it without knowing by which token may rely on any.
            valid = state.holder is not None and state.token in (None, operation.argument)
            if result is LockLost:
                return () if valid and state.token is not None else (state,)
            return (state._replace(count=state.count + 1),) if valid and _fits(operation, state.count + 1) else ()
        if verb == "acquire":
            given = self.granted(state, operation) if result is not False else None
            denied = self.refused(state, operation) if result in (False, UNKNOWN) else None
            return [after for after in (given, denied) if after is not None]
        if verb == "release":
            holds = state.holder == operation.session and (
                operation.argument is None or state.token in (None, operation.argument)
            )
            # Who was granted it, but does not know by which token, may be told either.
            maybe = holds and state.token is None and operation.argument is not None
            after = []
            if holds and _fits(operation, None):
                after.append(state.freed()._replace(abandoned=False))
            if (not holds or maybe) and _fits(operation, NotOwner):
                after.append(state)
            return after
        raise ValueError(f"a lock has no {verb!r}")

    def seen(self, state: LockState, result: Any) -> bool:
        """Tell whether somebody who looks may see this."""
        return result is UNKNOWN or result[0] == state.holder

    def granted(self, state: LockState, operation: Operation) -> LockState | None:
        """Return the state in which the call has the lock, if it may."""
        if state.holder is not None:
            return None
        token = None
        if operation.result is not UNKNOWN:
            if not isinstance(operation.result, tuple):
                return None
            token, abandoned = operation.result
            if token <= state.last or abandoned != state.abandoned:
                return None
        last = state.last if token is None else token
        return state._replace(holder=operation.session, call=operation.call, token=token, last=last)

    def refused(self, state: LockState, operation: Operation) -> LockState | None:
        """Return the state in which the call was refused, if it may be."""
        return None if state.holder is None else state

    def undone(self, state: LockState, call: Hashable) -> LockState:
        """Return the state in which a call has no effect."""
        return (state.freed() if state.call == call else state)._replace(over=state.over | {call})

    def ended(self, state: LockState, session: Hashable) -> LockState:
        """Return the state after the death of a session."""
        over = frozenset(item for item in state.over if not (isinstance(item, tuple) and item[0] == session))
        if state.holder == session:
            state = state.freed()._replace(abandoned=True)
        return state._replace(over=over | {session})


class FairLock(Lock):
    """A lock that is granted in the order in which it was asked for.

    A call that waits does two things, each at a moment of its own (Scherer and Scott, DISC'04): it joins the
    line, and it leaves it. ``look`` sees the line: (holder, (sessions that wait, ...)). Every ``acquire`` needs
    its `call`, and says by its `argument` whether it may ``wait`` or will only ``try``.
    """

    def split(self, history: Sequence[Operation]) -> Mapping[Hashable, Sequence[Operation]]:
        row = []
        for operation in history:
            row.append(operation)
            if operation.verb == "acquire" and operation.argument == "wait":
                result = UNKNOWN if operation.result is UNKNOWN else None
                row.append(attrs.evolve(operation, verb="request", result=result))
        return {"": row}

    def reads(self, operation: Operation) -> bool:
        # Who waited in vain has left the line.
        return super().reads(operation) and operation.argument != "wait"

    def step(self, state: LockState, operation: Operation) -> Iterable[Hashable]:
        if operation.verb != "request":
            return super().step(state, operation)
        if operation.session in state.over or operation.call in state.over:
            return ()
        return (state._replace(line=(*state.line, operation.call)),)

    def seen(self, state: LockState, result: Any) -> bool:
        return result is UNKNOWN or result == (state.holder, tuple(session for session, _ in state.line))

    def granted(self, state: LockState, operation: Operation) -> LockState | None:
        if state.line[:1] != ((operation.call,) if operation.argument == "wait" else ()):
            return None
        return super().granted(state._replace(line=state.line[1:]), operation)

    def refused(self, state: LockState, operation: Operation) -> LockState | None:
        if operation.argument == "wait":
            if operation.call not in state.line:
                return None
            state = self._without(state, operation.call)
        return super().refused(state, operation)

    def undone(self, state: LockState, call: Hashable) -> LockState:
        return super().undone(self._without(state, call), call)

    def ended(self, state: LockState, session: Hashable) -> LockState:
        line = tuple(call for call in state.line if call[0] != session)
        return super().ended(state._replace(line=line), session)

    def _without(self, state: LockState, call: Hashable) -> LockState:
        return state._replace(line=tuple(other for other in state.line if other != call))


class ReentrantState(NamedTuple):
    """Which thread holds it, by which token, and the calls that its levels come from; what outlasts them."""

    holder: Hashable = None
    token: int | None = None
    levels: tuple[Hashable, ...] = ()
    abandoned: bool = False
    last: int = 0
    over: frozenset[Hashable] = frozenset()


class ReentrantLock(Model):
    """At most one thread holds it, as often as it likes: ``acquire(how)``, ``release(token)``, ``locked``, ``undo``,
    ``end``, and ``leave`` for the end of a thread alone.

    A grant is (token, abandoned), the same for all levels, and False where it was refused. With the token any thread
    of the session may release. Nothing is said of the order in which those who wait are served.
    """

    def initial(self) -> Hashable:
        return ReentrantState()

    def reads(self, operation: Operation) -> bool:
        return operation.verb == "locked" or operation.result in (False, NotOwner)

    def step(self, state: ReentrantState, operation: Operation) -> Iterable[Hashable]:
        verb, result = operation.verb, operation.result
        if verb == "locked":
            return (state,) if _fits(operation, state.holder is not None) else ()
        if verb == "undo":
            return (self._undone(state, operation.argument),)
        if verb == "leave":
            return (self._left(state) if state.holder == operation.process else state,)
        if verb == "end":
            over = frozenset(
                item for item in state.over if not (isinstance(item, tuple) and item[0] == operation.session)
            )
            if isinstance(state.holder, tuple) and state.holder[0] == operation.session:
                state = self._left(state)
            return (state._replace(over=over | {operation.session}),)
        if operation.session in state.over or (operation.call is not None and operation.call in state.over):
            return ()
        if verb == "acquire":
            return self._acquired(state, operation)
        if verb == "release":
            token = operation.argument
            holds = state.holder is not None and state.holder[0] == operation.session and state.token in (None, token)
            maybe = holds and state.token is None
            after = []
            if holds and _fits(operation, None):
                # Which call a level came from matters only to what undoes that call.
                for place in range(len(state.levels)):
                    levels = state.levels[:place] + state.levels[place + 1 :]
                    after.append(state._replace(levels=levels) if levels else self._freed(state, False))
            if (not holds or maybe) and result in (NotOwner, UNKNOWN):
                after.append(state)
            return after
        raise ValueError(f"an rlock has no {verb!r}")

    def _acquired(self, state: ReentrantState, operation: Operation) -> Iterable[Hashable]:
        result = operation.result
        after = []
        if state.holder in (None, operation.process) and result is not False:
            token, abandoned = (None, state.abandoned) if result is UNKNOWN else result
            again = state.holder is not None
            known = token is None or (state.token in (None, token) if again else token > state.last)
            if known and abandoned == state.abandoned:
                token = state.token if token is None else token
                levels = tuple(sorted((*state.levels, operation.call), key=repr))
                last = max(state.last, token or 0)
                after.append(state._replace(holder=operation.process, token=token, levels=levels, last=last))
        if result in (False, UNKNOWN) and state.holder not in (None, operation.process):
            after.append(state)
        return after

    def _undone(self, state: ReentrantState, call: Hashable) -> ReentrantState:
        state = state._replace(over=state.over | {call})
        if call not in state.levels:
            return state
        levels = tuple(other for other in state.levels if other != call)
        return state._replace(levels=levels) if levels else self._freed(state, state.abandoned)

    def _left(self, state: ReentrantState) -> ReentrantState:
        return self._freed(state, True)

    def _freed(self, state: ReentrantState, abandoned: bool) -> ReentrantState:
        return state._replace(holder=None, token=None, levels=(), abandoned=abandoned)


class SemaphoreState(NamedTuple):
    """The permits that are there, those that are out, and what is over.

    A permit that is out is (session, call, token), where what nobody will ask for is None.
    """

    free: int
    out: tuple[tuple[Hashable, Hashable, int | None], ...] = ()
    over: frozenset[Hashable] = frozenset()


@attrs.frozen
class Semaphore(Model):
    """Permits: ``acquire``, ``release(token)``, ``value``, ``undo``, ``end``.

    ``acquire`` gives a token or True, and False where it was refused. The permits of a session come back at its
    end. A session that has none may give one all the same, unless the semaphore is bounded. Nothing is said of
    the order in which those who wait are served.

    Attributes:
        permits: How many there are.
        bounded: Whether there can never be more.
    """

    permits: int = 1
    bounded: bool = False

    def initial(self) -> Hashable:
        return SemaphoreState(self.permits)

    def split(self, history: Sequence[Operation]) -> Mapping[Hashable, Sequence[Operation]]:
        undoable = {op.argument for op in history if op.verb == "undo"}
        return {"": [op if op.call in undoable else attrs.evolve(op, call=None) for op in history]}

    def reads(self, operation: Operation) -> bool:
        return operation.verb == "value" or operation.result in (False, NotOwner, ValueError)

    def step(self, state: SemaphoreState, operation: Operation) -> Iterable[Hashable]:
        verb, session, result = operation.verb, operation.session, operation.result
        free, out, over = state
        if verb == "value":
            return (state,) if _fits(operation, free) else ()
        if verb == "undo":
            left = tuple(permit for permit in out if permit[1] != operation.argument)
            return (SemaphoreState(free + len(out) - len(left), left, over | {operation.argument}),)
        if verb == "end":
            left = tuple(permit for permit in out if permit[0] != session)
            return (SemaphoreState(free + len(out) - len(left), left, over | {session}),)
        if session in over or (operation.call is not None and operation.call in over):
            return ()
        if verb == "acquire":
            if not free or result is False:
                return (state,) if not free and result is False else ()
            if not (result is UNKNOWN or isinstance(result, int)):
                return ()
            token = None if result is UNKNOWN or result is True else result
            # Sorted, for it does not matter who came first.
            out = tuple(sorted((*out, (session, operation.call, token)), key=repr))
            return (SemaphoreState(free - 1, out, over),)
        if verb == "release":
            return self._released(state, operation)
        raise ValueError(f"a semaphore has no {verb!r}")

    def _released(self, state: SemaphoreState, operation: Operation) -> Iterable[Hashable]:
        free, out, over = state
        token = operation.argument
        mine = [permit for permit in out if permit[0] == operation.session and token in (None, permit[2])]
        if not mine:
            if token is not None:
                return (state,) if _fits(operation, NotOwner) else ()
            if self.bounded and free + len(out) >= self.permits:
                return (state,) if _fits(operation, ValueError) else ()
        if not _fits(operation, None):
            return ()
        if not mine:
            return (SemaphoreState(free + 1, out, over),)
        after = []
        for permit in mine:
            left = list(out)
            left.remove(permit)
            after.append(SemaphoreState(free + 1, tuple(left), over))
        return after
