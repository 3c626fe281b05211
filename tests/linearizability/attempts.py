"""Write down what the clients of a simulation asked for and heard, as a history to check.

An *attempt* is a request with a number of its own in a session; a call is made in one, or in several where sessions
are lost. What becomes of an attempt is known by the end in one of these ways: it was answered; its answer was that it
has no effect, and never will; its answer, to an undo, was that its effect stands; or nobody knows.

A server that is restarted has forgotten everything, so each of its lives has a history of its own.
"""

from __future__ import annotations

from math import inf
from typing import Any

import attrs

from linearizability.checker import UNKNOWN, Model, Operation
from linearizability.models import Counter, DictKeys, Lock, Queue, ReentrantLock, Semaphore
from registry import _codec, _wire
from registry._leaves import Carried, Grant
from registry._pending import AgainError, Pending
from registry._wire import Frame, Kind
from registry.errors import CallTimeout, Deadlock, LockLost, ServerNotFound, StateLost

ROOM = 2  # in the queue
PERMITS = 2  # of the semaphore
CALLS = 100_000  # more than a session makes; how far apart the numbers of a process's sessions are

#: What each of the shared objects may answer. What is counted under the lock's guard belongs to the lock.
MODELS: dict[str, Model] = {
    "counter:c": Counter(),
    "dict:d": DictKeys(),
    "queue:q": Queue(ROOM),
    "lock:l": Lock(),  # whose line passes over those who are cut off
    "rlock:r": ReentrantLock(),
    "semaphore:s": Semaphore(PERMITS),
}
KINDS = tuple(subject.partition(":")[0] for subject in MODELS)
GUARDED = "counter:g"
RETURNING = ("queue:q", "lock:l", "rlock:r", "semaphore:s")  # what comes back at the end of a session


@attrs.define(eq=False)
class Attempt:
    """One request.

    Attributes:
        client: The name of the process that makes it.
        thread: Which of its threads.
        slot: The link's own record of it.
        begun: When it began, and when it `ended` for its caller.
        heard: The answer, by then or later.
        fate: What is known of it: "open", "answered", "nothing" (no effect), "undone" (no effect any more), "unknown".
        leaving: When it was given up.
        closed: When its undo was answered.
        confirmed: Its session has told that it has its reply; the answer to `confirmer` says so.
        confirms: Those whose replies its own answer confirms.
        applied: The event of its answer, which came by a connection that was made after so many `losses`.
    """

    client: str
    thread: int
    slot: Pending
    begun: float
    ended: float = inf
    heard: Frame | None = None
    fate: str = "open"
    leaving: float = inf
    closed: float = inf
    confirmed: bool = False
    confirmer: Attempt | None = None
    confirms: list[Attempt] = attrs.field(factory=list)
    applied: int = 0
    losses: int = 0

    @property
    def session(self) -> str:
        return f"{self.client}.{self.slot.seq // CALLS}"

    @property
    def call(self) -> tuple[str, int]:
        return self.session, self.slot.seq


class Record:
    """All that is written down of one seed."""

    def __init__(self) -> None:
        self.time = 0.0
        self.attempts: list[Attempt] = []
        self.by_slot: dict[int, Attempt] = {}
        self.names: dict[tuple[str, int], str] = {}  # the objects by process and handle
        self.lives: dict[str, int] = {}  # of the sessions
        self.ends: list[Operation] = []
        self.ended: dict[str, float] = {}  # the sessions that the server has ended, and when
        self.broken: list[str] = []
        self.fed: dict[tuple[str, int], int] = {}
        self.seen: dict[str, int] = {}  # the latest event that each session has seen the outcome of
        self.losses: list[int] = []  # the last events that were left each time what had been answered was lost
        self.looks: list[Operation] = []  # what was answered without a request
        self.late_looks: list[tuple[int, Operation]] = []  # those of what is lost by now, with the number of the loss
        self.answers: dict[int, float] = {}  # when each life of the server had first answered somebody

    def tick(self) -> float:
        """Return the next moment."""
        self.time += 1
        return self.time

    # -- the course of an attempt

    def begin(self, client: str, thread: int, slot: Pending) -> Attempt:
        """A thread makes a request."""
        attempt = Attempt(client, thread, slot, self.tick())
        attempt.confirms = [
            other
            for other in self.attempts
            if other.client == client and other.slot.delivered and not other.confirmed and other.fate == "answered"
        ]
        self.attempts.append(attempt)
        self.by_slot[id(slot)] = attempt  # the slot is kept by the attempt, so nothing else gets its place
        return attempt

    def end(self, attempt: Attempt, frame: Frame | None, error: BaseException | None) -> None:
        """The request has come to its end for the thread that made it, so or so."""
        now, slot = self.tick(), attempt.slot
        if attempt.fate != "open":
            return
        if not slot.seq:
            attempt.fate = "nothing"  # it was made again, or not at all
        elif isinstance(slot.failure, AgainError):
            attempt.fate = "unknown"
        elif frame is not None:
            attempt.fate, attempt.heard, attempt.ended = "answered", frame, now
            self.answers.setdefault(self.lives[attempt.session] + attempt.losses, now)
            if attempt.begun > self.ended.get(attempt.session, inf):
                self.broken.append(f"{attempt.call} was answered in a session that had ended, which nobody was told")
            for other in attempt.confirms:
                if other.session == attempt.session and not other.confirmed and self.tells_for_good(attempt):
                    other.confirmed, other.confirmer = True, attempt
        elif slot.insisting:
            attempt.leaving = min(attempt.leaving, now)  # it is made all the same, unless its session is lost
        elif isinstance(error, CallTimeout):
            attempt.fate, attempt.leaving, attempt.closed = "undone", now, now
        elif isinstance(error, ServerNotFound) or (isinstance(error, StateLost) and not slot.waiting):
            attempt.fate = "nothing"
        elif not slot.sent:
            attempt.fate = "nothing"
        else:
            attempt.leaving = min(attempt.leaving, now)
        guarded = slot.fields is not None and _wire.GRANTS in slot.fields
        if guarded and isinstance(error, StateLost) and slot.failure is error:
            self.broken.append(f"{attempt.call} relied on a grant and was told {error!r}")

    def abandoned(self, slot: Pending) -> None:
        """Nobody waits for it any more, and the server is asked to undo it; its answer may have been there already."""
        attempt = self.by_slot[id(slot)]
        if attempt.fate in ("open", "answered"):
            attempt.fate, attempt.heard, attempt.ended = "open", None, inf
            attempt.leaving = min(attempt.leaving, self.tick())

    def settled(self, slot: Pending, frame: Frame) -> None:
        """The server has answered an undo, or what nobody waits for."""
        attempt = self.by_slot[id(slot)]
        now = self.tick()
        if frame.kind == Kind.CANCELLED:
            attempt.fate, attempt.closed = "undone", now
        elif frame.kind == Kind.STANDS or slot.unattended:
            attempt.fate, attempt.heard, attempt.ended = "answered", frame, now
        else:
            self.broken.append(f"{attempt.call} was undone, and settled by a frame of kind {frame.kind}")

    # -- what is lost

    def tells_for_good(self, attempt: Attempt) -> bool:
        """Tell whether the server still knows which replies there were when it answered an attempt.

        A life of the server that is over has left of that what has come with a call that it had logged.
        """
        return attempt.losses == len(self.losses) or attempt.call in self.fed

    def arrived(self, slot: Pending, frame: Frame, losses: int) -> int:
        """An answer has arrived, by a connection that was made after so many losses; return what was seen before."""
        attempt = self.by_slot.get(id(slot))
        if attempt is None:
            return 0
        seen = self.seen.get(attempt.session, 0)
        attempt.applied, attempt.losses = frame.applied, losses
        self.seen[attempt.session] = max(seen, frame.applied)
        return seen

    def dropped(self, slot: Pending, seen: int) -> None:
        """An answer that has arrived was not taken, with its connection: the server is to be asked again."""
        attempt = self.by_slot.get(id(slot))
        if attempt is not None:
            self.seen[attempt.session] = seen

    def may_be_lost(self, attempt: Attempt) -> None:
        """Look whether the answer that a thread has just taken is lost by now."""
        if attempt.fate in ("answered", "undone") and any(
            attempt.applied > kept for kept in self.losses[attempt.losses :]
        ):
            self.void(attempt)

    def lose(self, kept: int, fed: dict[tuple[str, int], int]) -> None:
        """What came after an event has never been; `fed` has the first events of the calls that are left."""
        self.losses.append(kept)
        self.fed = fed
        for attempt in self.attempts:
            if attempt.applied > kept and attempt.fate in ("answered", "undone"):
                self.void(attempt)
                self.looks.clear()  # some may have shown what is lost

    def void(self, attempt: Attempt) -> None:
        """The answer to an attempt is lost: what came of it is unknown where it has begun before, and nothing else."""
        attempt.fate = "unknown" if attempt.call in self.fed else "nothing"
        attempt.heard, attempt.ended, attempt.closed, attempt.confirmed = None, inf, inf, False

    # -- the server's side

    def attached(self, session: str, life: int) -> None:
        """A session has attached. Whoever never heard so calls nothing, and may do it again in another life."""
        self.lives[session] = life

    def unheard(self, session: str) -> dict[str, tuple[tuple[Any, bool], ...]]:
        """Return for each object the calls of a session whose results it has not acknowledged, if it ends now."""
        rows: dict[str, list[tuple[Any, bool]]] = {subject: [] for subject in RETURNING}
        for attempt in self.attempts:
            subject = self.subject(attempt)
            if not attempt.slot.waiting or attempt.session != session or subject not in rows:
                continue
            if attempt.fate in ("open", "unknown"):
                rows[subject].append((attempt.call, True))
            elif attempt.fate == "answered" and not attempt.confirmed and attempt.heard is not None:
                if attempt.heard.kind == Kind.REPLY:
                    rows[subject].append((attempt.call, False))
        return {subject: tuple(sorted(row)) for subject, row in rows.items()}

    def has_called(self, session: str) -> bool:
        """Tell whether anything was sent in a session yet."""
        return any(attempt.slot.sent and attempt.session == session for attempt in self.attempts)

    def session_ended(self, session: str, life: int, begun: float, unheard: dict[str, Any]) -> None:
        """The server has ended a session, after the moment `begun`."""
        if not self.has_called(session):
            return  # its client never heard that it was there, and may begin it once more
        now = self.ended[session] = self.tick()
        for subject, row in unheard.items():
            self.ends.append(self.operation(subject, session, (session, -1), "end", row, begun, now))

    def thread_left(self, thread: int, session: str) -> None:
        """A thread has said that it ends; whether the server hears of it is not known."""
        if session in self.lives:
            end = self.operation("rlock:r", session, (session, thread), "leave", None, self.tick(), inf, UNKNOWN)
            self.ends.append(end)

    def looked(
        self, session: str, thread: int, subject: str, verb: str, argument: Any, begun: float, result: Any, life: int
    ) -> None:
        """A read was answered from a client's cache, as in a life of the server."""
        process, now = (session, thread), self.tick()
        for later, since in self.answers.items():
            if later > life and since < begun:
                self.broken.append(f"{subject} was read as in a life of the server after which another has answered")
        operation = self.operation(subject, session, process, verb, argument, begun, now, result)
        for number in range(life - self.lives[session], len(self.losses)):
            if self.seen.get(session, 0) > self.losses[number]:
                self.late_looks.append((number, operation))  # the server is down, and nobody can tell this client yet
                return
        self.looks.append(operation)

    def operation(
        self,
        subject: str,
        session: str,
        process: Any,
        verb: str,
        argument: Any,
        invoked: float,
        returned: float,
        result: Any = None,
        call: Any = None,
    ) -> Operation:
        """Return an operation on the object of this name in the life of a session."""
        return Operation(
            process=process,
            verb=verb,
            argument=argument,
            result=result,
            invoked=invoked,
            returned=returned,
            subject=f"{subject}@{self.lives[session]}",
            call=call,
        )

    # -- the history

    def history(self) -> tuple[Operation, ...]:
        """Return the operations."""
        rows = [*self.ends, *self.looks]
        for attempt in self.attempts:
            if attempt.slot.seq and attempt.fate != "nothing" and attempt.session in self.lives:
                rows += self.operations(attempt)
        return tuple(rows)

    def models(self, history: tuple[Operation, ...]) -> dict[str, Model]:
        """Return the models by subject."""
        return {operation.subject: MODELS[operation.subject.partition("@")[0]] for operation in history}

    def subject(self, attempt: Attempt) -> str:
        """Return the object that an attempt is for, or empty."""
        slot = attempt.slot
        return self.names.get((attempt.client, slot.handle), "") if slot.kind == Kind.CALL else ""

    def operations(self, attempt: Attempt) -> list[Operation]:
        """Return what an attempt is in the history."""
        slot, subject = attempt.slot, self.subject(attempt)
        if not subject or (slot.readonly and attempt.fate != "answered"):
            return []
        if attempt.fate == "undone" and not slot.waiting:
            return []
        session, process = attempt.session, (attempt.session, attempt.thread)
        result = self.result(attempt)
        returned = inf if result is UNKNOWN else attempt.ended
        subject, verb, argument = self.said(attempt, subject)
        if verb == "" or (result is LockLost and verb not in ("guarded", "settle")) or result is Deadlock:
            return []
        rows = [
            self.operation(subject, session, process, verb, argument, attempt.begun, returned, result, attempt.call)
        ]
        if slot.waiting and result is UNKNOWN and attempt.leaving < inf:
            closed = attempt.closed
            undone = None if closed < inf else UNKNOWN
            rows.append(
                self.operation(subject, session, process, "undo", attempt.call, attempt.leaving, closed, undone)
            )
        return rows

    def said(self, attempt: Attempt, subject: str) -> tuple[str, str, Any]:
        """Return object, verb and argument as the models take them; the verb is empty for what they do not know."""
        slot = attempt.slot
        args, kwargs = _codec.decode_arguments(slot.arguments, incoming=opened)
        verb, kind = slot.method, subject.partition(":")[0]
        if subject == GUARDED:
            if verb == "get":
                return "lock:l", "count", None
            grants = _wire.decode_grants((slot.fields or {})[_wire.GRANTS])
            return "lock:l", "guarded", grants[-1][2]
        if kind == "counter":
            return subject, verb, args[0] if args else 1 if verb != "get" else None
        if kind == "dict":
            return subject, verb, tuple(args)
        if kind == "queue":
            return subject, verb, args[0] if verb == "put" else tuple(args) if verb == "settle" else None
        if verb == "acquire":
            tries = (args or (True,))[0] is False or kwargs.get("blocking") is False
            how = "try" if tries else "wait"
            return subject, verb, how if kind != "semaphore" else None
        if verb == "release":
            return subject, verb, args[-1] if args else kwargs.get("number")
        return subject, verb, None

    def result(self, attempt: Attempt) -> Any:
        """Return what came of an attempt as the models say it."""
        frame = attempt.heard
        if attempt.fate != "answered" or frame is None:
            return UNKNOWN
        body = frame.body[_wire.WORD.size :] if frame.kind == Kind.SHOWN else frame.body
        value = _codec.decode(body, incoming=opened)
        subject = self.subject(attempt)
        if isinstance(value, BaseException):
            return type(value)
        if isinstance(value, Grant):
            if not value:
                return False
            return value.number if subject == "semaphore:s" else (value.number, value.abandoned)
        if attempt.slot.method == "claim":
            return tuple(value)
        return value


def opened(leaf: Any) -> Any:
    """Decode what was carried, as a client does."""
    return _codec.decode_carried(leaf) if isinstance(leaf, Carried) else leaf
