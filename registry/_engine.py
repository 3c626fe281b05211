"""The deterministic engine: every shared object, session, owner, waiter, deadline and remembered reply.

Rules of this file:

* Events go in by `Engine.step`, outputs come out of it; nothing else changes the engine.
* It does no I/O, reads no clock, draws no random number and starts no thread. Time is the stamp of the
  events, random bytes are hashed from the epoch's seed, the index of the event and a count.
* Two engines that were fed the same events have the same image (`_image.capture`), byte for byte. So nothing here
  may hang on the order of a set, on `id()`, on the text of an exception or on what a read did.
* It knows no type: what a lock or a queue is stands in the plugins.

Theory of operation. A call names an object by (typeid, name), a method, and its arguments in their encoded
form, which the engine alone decodes, so that no two engines ever share a mutable argument. The method runs to
its end inside the step. What it returns becomes a reply, encoded in the same step and remembered until the
session acknowledges it; or it returns a `Waiter`, which then stands in three places: in the `Waiters` of the
object, in the session under the call's sequence, and, with a deadline, in the heap. `resolve` is the one way
out of all three.

A read (`Engine.read`) is the same call without the traces: no event, no remembered reply.

The approach is state-machine replication (Schneider 1990; Viewstamped Replication; Tango, SOSP'13).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from registry import _codec, hosting
from registry._deadlines import Deadlines, Due
from registry._deadlock import Need, Row, Waits
from registry._events import (
    Advance,
    Begin,
    Call,
    Cancel,
    Create,
    Event,
    Halted,
    Open,
    Output,
    OwnerEnded,
    Resumed,
    SessionEnded,
    Suspended,
    Verdicts,
)
from registry._leaves import EVERY, Caller, Owner, Parts
from registry._losses import Losses
from registry._objects import Hosted, bind
from registry._outcomes import bound, check_durable, failure, is_stopped, is_verdict, named, outcome, stamp, unopened
from registry._sessions import Reply, Session
from registry._wire import DELETE, ERROR, LONGEST_WORD, OPERATORS, REPLY, Kind
from registry.declarations import SharedObject
from registry.errors import (
    DeclarationError,
    LockLost,
    NoSuchObject,
    RemoteError,
    UnknownType,
)
from registry.hosting import Holder, Waiter

EPOCH_SHIFT = 40
KEPT_VACANT = 1024
KEPT_LIVES = 4096
KEPT_DEAD = 65_536
DEAD_FOR = 86_400.0  # seconds for which the key of a session that has ended is known
NOBODY = Caller()


class _Reading:
    """What a read may ask for (`hosting.Steps`): nothing that would leave a trace."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._draws = 0

    def draw(self, n: int) -> bytes:
        """Return `n` bytes that no step draws."""
        self._draws += 1
        return self._engine.hashed(b"read %d/%d" % (self._engine.index, self._draws), n)

    def title(self, target: int) -> str:
        """Return the name of an object."""
        return self._engine.title(target)

    def _refuse(self, *args: object) -> NoReturn:
        rule = "must not name a method that changes, waits, wakes, sets an alarm, takes a token or asks what was taken"
        raise DeclarationError("readonly", rule, hosting.call().title)

    next_token = next_order = resolve = moved = set_alarm = taken = touch = _refuse


class Engine:
    """Everything that is shared, as one deterministic state machine.

    Args:
        declarations: The shared objects by typeid. They are code, not state: restoring an image needs the same ones.
    """

    def __init__(self, declarations: Mapping[str, SharedObject[Any]]) -> None:
        self.declarations = declarations
        self.index = 0
        self.now = 0.0
        self.epoch = 0
        self.seed = b""
        self.sessions: dict[int, Session] = {}
        self.objects: dict[tuple[str, str], Hosted] = {}
        self.lives: dict[bytes, int] = {}  # the event with which each server life began
        self.ended: dict[bytes, float] = {}  # when sessions ended, by their keys
        self._numbered: dict[int, Hosted] = {}
        self._keys: dict[bytes, int] = {}
        self._last_session = 0
        self._last_object = 0
        self._last_token = 0
        self._last_order = 0
        self._draws = 0
        self.losses = Losses(self)
        self._instances: dict[int, Hosted] = {}  # by id(), while they live; not part of the state
        self._vacant: dict[int, None] = {}
        self.deadlines = Deadlines()
        self._reading = _Reading(self)
        self._entries = 0
        self._given: dict[int, str] = {}
        self._found: list[tuple[int, str]] = []
        self._waits = Waits(self._need, self.title)
        self._outputs: list[Output] = []
        self.touched: list[tuple[int, object]] = []  # by the last step: objects, 0 for all, and which key or `EVERY`
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            Begin: self._begin,
            Open: self._open,
            Create: self._create,
            Call: self._call,
            Cancel: self._cancel,
            OwnerEnded: self._owner_ended,
            SessionEnded: self._session_ended,
            Suspended: self._suspended,
            Resumed: self._resumed,
            Halted: self._halted,
            Advance: self._advance,
        }

    # -- the two doors

    def step(self, event: Event, verdicts: Verdicts = ()) -> list[Output]:
        """Apply one event and return what comes out of it, in order.

        What is due by the event's stamp happens first, each at its own time. Within one moment only an
        `Advance` does that, so that events with one stamp follow each other.

        Args:
            event: What happened.
            verdicts: When an event is replayed, the `verdicts` that it had: the code that these speak of is not run.
        """
        self.index += 1
        self._draws = 0
        self._entries = 0
        self.touched = []
        if self._found or verdicts or self._given:
            self._found, self._given = [], dict(verdicts)
        waits = self._waits
        if waits.suspicions:
            waits.suspicions = []
        if event.now > self.now or type(event) is Advance:
            until = max(event.now, self.now)
            if self.deadlines.heap:
                self._fire_due(until)
            self.now = until
        self._handlers[type(event)](event)
        if waits.changed:
            self._look_again()
        outputs = self._outputs
        if outputs:
            self._outputs = []
        return outputs

    def read(
        self,
        call: Call,
        *,
        domain: str = "",
        caller: Caller = NOBODY,
        sample: Callable[[int, object], bytes] | None = None,
    ) -> Output:
        """Answer a call of a method declared readonly. It leaves no trace and is never remembered.

        The reply's index is that of the last event that may have changed the object.

        Args:
            call: The call.
            domain: The trust domain of the caller.
            caller: Who calls, for people.
            sample: Tells what a reply hangs on, by the number of the object and the key that was read, or `EVERY`. It
                is not asked where the method has looked at the call, since others would be answered otherwise.
        """
        hosted: Hosted | None = None
        try:
            hosted = self.objects.get((call.typeid, call.name))
            if hosted is None or hosted.stopped or call.grants:
                hosted, lost = self._target(call)
                if lost is not None:
                    raise lost
            args, kwargs = _codec.decode_arguments(call.arguments, incoming=stamp(domain), rows=unopened)
            method = hosted.methods.get(call.method) or self._method(hosted, call.method)
            step = hosting.Call(self._reading, self.now, call.session, call.owner, caller, hosted.number, call.seq)
            value = self._within(step, method, *args, **kwargs)
            body = _codec.encode_result(value)
        except BaseException as error:  # noqa: BLE001 - nothing that a method raises may end the server
            changed = hosted.changed if hosted else self.index
            return Output(call.session, call.seq, ERROR, failure(error), changed)
        words = b""
        if sample is not None and not step.looked:
            words = sample(hosted.number, args[0] if args and call.method in hosted.keyed else EVERY)
        return Output(call.session, call.seq, REPLY, body, hosted.changed, words)

    # -- questions that change nothing

    def find(self, typeid: str, name: str) -> Hosted | None:
        """Return the object of that name, or None."""
        return self.objects.get((typeid, name))

    def by_number(self, number: int) -> Hosted | None:
        """Return the object that sessions know by a number, or None."""
        return self._numbered.get(number)

    def session_of(self, key: bytes) -> int:
        """Return the number of the session with this key, or 0."""
        return self._keys.get(key, 0)

    def knows(self, session: int, seq: int) -> bool:
        """Tell whether a call has been seen: it waits, its reply is kept, or the session has it already."""
        known = self.sessions[session]
        return seq in known.replies or seq in known.waits or known.is_stale(seq)

    def next_due(self) -> float | None:
        """Return when the next deadline is, in the engine's time, or None."""
        return self.deadlines.first()

    def statistics(self, hosted: Hosted) -> dict[str, object]:
        """Return what the object tells of itself, with what the engine knows."""
        holders = [holder.row() for holder in self.holders(hosted)]
        told: dict[str, object] = {
            "holder": holders[0] if holders else None,
            "holders": holders,
            "waiters": [waiter.row() for waiter in hosted.waits.values()],
        }
        if hasattr(hosted.instance, "statistics"):
            step = hosting.Call(self._reading, self.now, 0, 0, NOBODY, hosted.number, 0)
            told.update(self._within(step, hosted.instance.statistics))
        return {"maker": hosted.maker, "made": hosted.made, "stopped": hosted.stopped, **told}

    @property
    def verdicts(self) -> Verdicts:
        """What ended hosted code in the last step without being its doing: want of memory, or of depth.

        It would not happen again in a replay, so that it belongs to the event.
        """
        return tuple(self._found)

    def end_of(self, life: bytes) -> int | None:
        """Return the last event of a server life that this state comes from; None if it knows nothing of that life."""
        began = self.lives.get(life)
        if began is None:
            return None
        return min((later - 1 for later in self.lives.values() if later > began), default=self.index)

    @property
    def suspicions(self) -> list[str]:
        """What the last event has brought about that may be a deadlock, as texts; it is no part of the state."""
        return self._waits.suspicions

    def suspected(self) -> list[tuple[Row, ...]]:
        """Return the circles of those who wait for each other, whether or not another thread may still end them.

        Each is a row of (who waits, for which object, for whom), whoever is in it once.
        """
        return self._waits.suspected()

    def holders(self, hosted: Hosted) -> list[Holder]:
        """Return who holds an object by which grants, the oldest first."""
        if hosted.stopped or not hasattr(hosted.instance, "holders"):
            return []
        step = hosting.Call(self._reading, self.now, 0, 0, NOBODY, hosted.number, 0)
        try:
            return [each for each in self._within(step, hosted.instance.holders) if type(each) is Holder]
        except Exception:  # noqa: BLE001 - a hook of a user's class may raise anything, and then tells of nobody
            return []

    def is_abandoned(self, hosted: Hosted) -> bool:
        """Tell whether an object that is held by grants says that a holder died, and nobody has put it in order."""
        try:
            return hasattr(hosted.instance, "holders") and self.statistics(hosted).get("abandoned") is True
        except Exception:  # noqa: BLE001 - a hook of a user's class may raise anything, and then tells nothing
            return False

    # -- events

    def _begin(self, event: Begin) -> None:
        self.epoch = event.epoch
        self.seed = event.seed
        self.lives[event.life] = self.index
        if len(self.lives) > KEPT_LIVES:
            del self.lives[next(iter(self.lives))]
        self._last_token = max(self._last_token, event.epoch << EPOCH_SHIFT)

    def _open(self, event: Open) -> None:
        if event.key in self._keys:
            return
        self._last_session += 1
        caller = Caller(event.host, event.pid, event.command, "", event.label)
        session = Session(self._last_session, event.key, caller, event.domain, event.process, event.role)
        self.sessions[session.number] = session
        self._keys[event.key] = self._last_session

    def _create(self, event: Create) -> None:
        if (event.typeid, event.name) in self.objects or self.knows(event.session, event.seq):
            return
        session = self.sessions[event.session]
        try:
            declaration = self.declarations.get(event.typeid)
            if declaration is None:
                raise UnknownType(event.typeid)
            self._make(declaration, event, session)
        except BaseException as error:  # noqa: BLE001 - nothing that a factory raises may end the server
            self._reply(session, event.seq, ERROR, failure(error))

    def _call(self, event: Call) -> None:
        session = self.sessions[event.session]
        session.acknowledge(event.received, event.above)
        seq = event.seq
        if session.is_stale(seq):
            return
        remembered = session.replies.get(seq)
        if remembered is not None:
            self._outputs.append(Output(session.number, seq, remembered.kind, remembered.body, remembered.index))
            return
        waiter = session.waits.get(seq)
        if waiter is not None:
            if event.remaining is not None:
                waiter.deadline = self.now + event.remaining
                self._watch(waiter)
            return
        try:
            if self.losses.untold:
                self.losses.tell(event)
            lost: LockLost | None = None
            hosted = self.objects.get((event.typeid, event.name))
            if hosted is None or hosted.stopped or event.grants:
                hosted, lost = self._target(event)
                if lost is not None and event.method not in hosted.gives_back:
                    raise lost
            if event.method in OPERATORS:
                self._reply(session, seq, REPLY, _codec.encode(self._administer(hosted, session, event)))
                return
            args, kwargs = _codec.decode_arguments(event.arguments, incoming=stamp(session.domain), rows=unopened)
            method = hosted.methods.get(event.method) or self._method(hosted, event.method)
        except Exception as error:  # noqa: BLE001 - what is wrong with a call is its caller's to know
            self._reply(session, seq, ERROR, failure(error))
            return
        if hosted.tells_owner and session.number not in hosted.sessions:
            hosted.sessions[session.number] = None
            session.objects[hosted.number] = None
        self._run(hosted, session, event, method, args, kwargs, lost)
        if hosted.tells_vacant:
            self._note_vacancy(hosted)

    def _run(
        self,
        hosted: Hosted,
        session: Session,
        event: Call,
        method: Callable[..., Any],
        args: list[Any],
        kwargs: dict[str, Any],
        lost: LockLost | None,
    ) -> None:
        """Run a method of a call that is not a read, and reply or park."""
        seq = event.seq
        kind: int
        body: bytes | Parts
        self._change(hosted, args[0] if args and event.method in hosted.keyed else EVERY)
        caller = session.caller._replace(thread=event.thread) if event.thread else session.caller
        step = hosting.Call(self, self.now, session.number, event.owner, caller, hosted.number, seq, lost=lost)
        try:
            value = self._within(step, method, *args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - nothing that a method raises may end the server
            if is_verdict(error):
                error = self._stop(hosted, event.method, error)
            kind, body = ERROR, failure(error)
        else:
            if value is step.parked is not None:
                if step.parked.home is not None:
                    self._park(session, hosted, event, step.parked)
                return
            kind, body = outcome(hosted, value)
        parked = step.parked
        if parked is not None:
            # It has an outcome of its own after all, which is the one that counts.
            self._leave(parked)
            self._outputs = [out for out in self._outputs if (out.session, out.seq) != (session.number, seq)]
        undoable = event.method in hosted.declaration.waiting and hasattr(hosted.instance, "take_back")
        target = hosted.number if kind == REPLY and undoable else 0
        self._reply(session, seq, kind, body, target)

    def _park(self, session: Session, hosted: Hosted, event: Call, waiter: Waiter) -> None:
        if event.method not in hosted.declaration.waiting:
            self._leave(waiter)
            rule = f"must name {event.method!r}, which waits"
            error = DeclarationError(f"{event.typeid}.waiting", rule, hosted.declaration.waiting)
            self._reply(session, event.seq, ERROR, failure(error))
            return
        if event.remaining is not None:
            remaining = self.now + event.remaining
            waiter.deadline = remaining if waiter.deadline is None else min(waiter.deadline, remaining)
        waiter.away = session.away and hosted.passes_over
        self._waits.add(waiter)
        hopeless = self._find_hopeless(waiter)
        if hopeless is not None:
            self._leave(waiter)
            self._reply(session, event.seq, ERROR, failure(hopeless))
            self._gave_up([waiter])
            return
        session.waits[event.seq] = waiter
        hosted.waits[waiter.number] = waiter
        self._watch(waiter)

    def _stop(self, hosted: Hosted, method: str, error: BaseException) -> RemoteError:
        """Refuse further calls of an object that an error of the interpreter may have left half changed."""
        self._halt(hosted, f"{type(error).__name__} in {method}()")
        return RemoteError(f"{hosted.title}.{method}()", type(error).__name__, str(is_stopped(hosted)))

    def _halt(self, hosted: Hosted, reason: str) -> None:
        hosted.stopped = reason
        self._change(hosted)
        for waiter in list(hosted.waits.values()):
            self.resolve(waiter, is_stopped(hosted))

    def _cancel(self, event: Cancel) -> None:
        session = self.sessions[event.session]
        session.acknowledge(event.received)
        seq = event.seq
        if session.is_stale(seq):
            return
        waiter = session.waits.pop(seq, None)
        if waiter is not None:
            self._leave(waiter)
            self._reply(session, seq, Kind.CANCELLED, b"")
            self._gave_up([waiter])
            return
        reply = session.replies.get(seq)
        if reply is None or (event.undo and reply.target and self._take_back(reply)):
            self._reply(session, seq, Kind.CANCELLED, b"")
        elif event.undo and reply.kind != Kind.CANCELLED:
            self._outputs.append(Output(session.number, seq, Kind.STANDS, reply.body, reply.index))
        else:
            self._outputs.append(Output(session.number, seq, reply.kind, reply.body, reply.index))

    def _owner_ended(self, event: OwnerEnded) -> None:
        session = self.sessions[event.session]
        owner = Owner(session.number, event.owner)
        given_up = [waiter for waiter in session.waits.values() if waiter.owner == owner]
        for waiter in given_up:
            del session.waits[waiter.seq]
            self._leave(waiter)
            self._reply(session, waiter.seq, Kind.CANCELLED, b"")
        self._gave_up(given_up)
        for number in list(session.objects):
            hosted = self._numbered.get(number)
            if hosted is not None:  # an earlier one of this row may have made its record go
                self._enter(hosted, "owner_ended", owner)
                self._note_vacancy(hosted)

    def _session_ended(self, event: SessionEnded) -> None:
        session = self.sessions[event.session]
        session.acknowledge(event.received, event.above)
        given_up = list(session.waits.values())
        for waiter in given_up:
            self._leave(waiter)
        session.waits.clear()
        self._gave_up(given_up)
        for number in list(session.objects):
            hosted = self._numbered.get(number)
            if hosted is not None:  # an earlier one of this row may have made its record go
                self._enter(hosted, "owner_ended", Owner(session.number, 0))
                hosted.sessions.pop(session.number, None)
                self._note_vacancy(hosted)
        # Latest first, so that what goes back to the front of a queue stands there in its old order.
        for seq in sorted(session.replies, reverse=True):
            reply = session.replies[seq]
            if reply.target:
                self._take_back(reply)
        for number in list(session.owned):
            self._delete(self._numbered[number], "its session has ended")
        self.losses.forget(session.number)
        del self.sessions[session.number]
        del self._keys[session.key]
        self._note_end(session.key)

    def _note_end(self, key: bytes) -> None:
        """Remember the key of a session that has ended: whoever knows it has lost something."""
        ended = self.ended
        ended[key] = self.now
        while (oldest := next(iter(ended))) and (len(ended) > KEPT_DEAD or ended[oldest] < self.now - DEAD_FOR):
            del ended[oldest]

    def _halted(self, event: Halted) -> None:
        hosted = self.objects.get((event.typeid, event.name))
        if hosted is not None and not hosted.stopped:
            self._halt(hosted, event.reason)

    def _suspended(self, event: Suspended) -> None:
        self._set_away(self.sessions[event.session], True, "went_away")

    def _resumed(self, event: Resumed) -> None:
        self._set_away(self.sessions[event.session], False, "came_back")

    def _set_away(self, session: Session, away: bool, hook: str) -> None:
        """Have a session's waits passed over, or no longer, where their object can tell what follows from it."""
        if session.away == away:
            return
        session.away = away
        waiting = [waiter for waiter in session.waits.values() if self._numbered[waiter.target].passes_over]
        for waiter in waiting:
            waiter.away = away
        for waiter in waiting:
            hosted = self._numbered.get(waiter.target)
            if hosted is None or waiter.home is None:
                continue  # an earlier one of this row has ended it
            self._change(hosted)
            if hasattr(hosted.instance, hook):
                self._enter(hosted, hook, waiter)
                self._note_vacancy(hosted)
        if not away:
            self._waits.changed.extend(session.waits.values())

    def _advance(self, event: Advance) -> None:
        """Do nothing further: what was due has been done by the time that an event is applied."""

    # -- objects

    def _make(self, declaration: SharedObject[Any], event: Create, session: Session) -> None:
        args, kwargs, definition = bind(declaration, event.arguments)
        self._last_object += 1
        hosted = Hosted(
            self._last_object,
            declaration,
            event.name,
            event.arguments,
            definition,
            maker=str(session.caller),
            made=self.now,
            session=session.number if declaration.per == "call" else 0,
        )
        # Known by its number while it is being made, since the factory may ask for an alarm.
        self._numbered[hosted.number] = hosted
        try:
            step = hosting.Call(self, self.now, session.number, event.owner, session.caller, hosted.number, 0)
            hosted.live(self._within(step, declaration.factory, *args, **kwargs))
            other = self._instances.get(id(hosted.instance))
            if other is not None:
                rule = f"must make a new object each time, and this one is {other.title} already"
                raise DeclarationError("factory", rule, declaration.typeid)
            check_durable(hosted.instance)
        except BaseException:
            hosted.alarm = None
            del self._numbered[hosted.number]
            raise
        self._change(hosted)
        self._instances[id(hosted.instance)] = hosted
        self.objects[declaration.typeid, event.name] = hosted
        if hosted.session:
            session.owned[hosted.number] = None

    def _target(self, call: Call) -> tuple[Hosted, LockLost | None]:
        """Return the object that a call is for, and the loss of a grant that the call relies on, if one is lost."""
        lost = self.losses.relied_on(call) if call.grants else None
        hosted = self.objects.get((call.typeid, call.name))
        if hosted is None:
            if call.typeid not in self.declarations:
                raise UnknownType(call.typeid)
            raise lost or NoSuchObject(f"{call.typeid}:{call.name}", "nothing has that name")
        if hosted.stopped and call.method != DELETE:
            raise lost or is_stopped(hosted)
        return hosted, lost

    def _method(self, hosted: Hosted, name: str) -> Callable[..., Any]:
        """Look a method up in what the class exposes; a peer's name is never an attribute's by itself."""
        method = hosted.methods.get(name)
        if method is None:
            exposed = hosted.declaration.interface.exposed
            if name not in exposed:
                raise AttributeError(
                    f"shared {hosted.title} exposes no {name[:LONGEST_WORD]!r}; it has {', '.join(exposed)}"
                )
            method = hosted.methods[name] = bound(hosted, name)
        return method

    # -- what operators do

    def _administer(self, hosted: Hosted, session: Session, event: Call) -> bool | None:
        """Delete an object, or take a grant of it away: then tell whether it was out."""
        if event.method == DELETE:
            self._delete(hosted, "it was deleted")
            return None
        (number,), _ = _codec.decode_arguments(event.arguments)
        found = [holder for holder in self.holders(hosted) if holder.number == number]
        if not found or not number or not hasattr(hosted.instance, "take_away"):
            return False
        self.losses.note(hosted, found[0], f"it was released by force, by {session.caller}")
        self._enter(hosted, "take_away", number)
        self._note_vacancy(hosted)
        return True

    # -- objects that go

    def _delete(self, hosted: Hosted, reason: str) -> None:
        """Retire an object: take back what is held of it, end the waits in it, forget it."""
        for holder in self.holders(hosted):
            self.losses.note(hosted, holder, reason)
        for waiter in list(hosted.waits.values()):
            self.resolve(waiter, NoSuchObject(hosted.title, reason))
        self._forget(hosted)

    def _forget(self, hosted: Hosted) -> None:
        for number in hosted.sessions:
            self.sessions[number].objects.pop(hosted.number, None)
        if hosted.session in self.sessions:
            self.sessions[hosted.session].owned.pop(hosted.number, None)
        self._vacant.pop(hosted.number, None)
        hosted.alarm = None
        del self._numbered[hosted.number]
        del self._instances[id(hosted.instance)]
        del self.objects[hosted.declaration.typeid, hosted.name]
        self._change(hosted)

    def _change(self, hosted: Hosted, key: object = EVERY) -> None:
        """Note that a step may have changed an object, or what one key of it names."""
        hosted.changed = self.index
        self.touched.append((hosted.number, key))

    def _note_vacancy(self, hosted: Hosted) -> None:
        """Remember that an object's record may go; the oldest goes once more than `KEPT_VACANT` may."""
        if not hosted.tells_vacant:
            return
        if hosted.waits or hosted.stopped or not self._is_vacant(hosted):
            self._vacant.pop(hosted.number, None)
            return
        self._vacant.setdefault(hosted.number)
        if len(self._vacant) > KEPT_VACANT:
            self._forget(self._numbered[next(iter(self._vacant))])

    def _is_vacant(self, hosted: Hosted) -> bool:
        try:
            return bool(hosted.instance.vacant())
        except BaseException as error:  # noqa: BLE001 - a hook of a user's class may raise anything
            self._stop(hosted, "vacant", error)
            return False

    def _enter(self, hosted: Hosted, name: str, *args: object) -> object:
        """Call an optional method. What it raises can be told nobody, and stops the object: False."""
        if hosted.stopped:
            return False
        self._change(hosted)
        step = hosting.Call(self, self.now, 0, 0, NOBODY, hosted.number, 0)
        try:
            return self._within(step, getattr(hosted.instance, name), *args)
        except BaseException as error:  # noqa: BLE001 - a hook of a user's class may raise anything
            self._stop(hosted, name, error)
            return False

    def _take_back(self, reply: Reply) -> bool:
        hosted = self._numbered.get(reply.target)
        if hosted is None or reply.kind != REPLY:
            return False
        # False means that there was nothing to undo, such as a put that has happened: then its reply stands.
        undone = self._enter(hosted, "take_back", _codec.decode(reply.body)) is not False
        self._note_vacancy(hosted)
        return undone

    # -- waits and replies

    def _reply(self, session: Session, seq: int, kind: int, body: bytes | Parts, target: int = 0) -> None:
        session.replies[seq] = Reply(kind, body, self.index, target)
        self._outputs.append(Output(session.number, seq, kind, body, self.index))

    def _leave(self, waiter: Waiter) -> None:
        """Take a wait out of its object."""
        self._waits.discard(waiter)
        if waiter.home is not None:
            waiter.home._dismiss(waiter)
        hosted = self._numbered.get(waiter.target)
        if hosted is not None:
            hosted.waits.pop(waiter.number, None)
            self._change(hosted)

    def _gave_up(self, waiters: Iterable[Waiter]) -> None:
        """Tell the objects of waits that ended without their doing, once all of these are out of their lines."""
        for waiter in waiters:
            hosted = self._numbered.get(waiter.target)
            if hosted is not None:
                if hosted.tells_giving_up:
                    self._enter(hosted, "gave_up", waiter)
                self._note_vacancy(hosted)

    def _need(self, waiter: Waiter, widely: bool) -> Need | None:
        """Return who has to go on for a wait to end, as ``blocked_by`` of its object tells; None if nobody has to."""
        hosted = self._numbered[waiter.target]
        if waiter.deadline is not None or not hosted.tells_blocked:
            return None
        if self.sessions[waiter.owner.session].away:
            return None  # its lease may end; if it comes back, it is looked at again
        if not widely and getattr(hosted.instance, "any_thread_releases", False):
            return None
        step = hosting.Call(self._reading, self.now, 0, 0, NOBODY, hosted.number, 0)
        groups = self._within(step, hosted.instance.blocked_by, waiter)
        return None if groups is None else tuple(tuple(group) for group in groups)

    def _find_hopeless(self, waiter: Waiter) -> BaseException | None:
        """Return why a wait can never end, if that is so, or what an object raised that was asked about it."""
        try:
            return self._waits.look(waiter)
        except BaseException as error:  # noqa: BLE001 - a hook of a user's class may raise anything
            return error

    def _look_again(self) -> None:
        """End waits that have lost their last way out without being new: they changed lines, or were one of two."""
        changed = self._waits.changed
        while changed:
            waiter = changed.popleft()
            error = self._find_hopeless(waiter) if waiter in self._waits else None
            if error is not None:
                self._settle(waiter, ERROR, failure(error))
                self._gave_up([waiter])

    def resolve(self, waiter: Waiter, value: object) -> None:
        """End a wait with its reply; an exception instance is raised in the caller."""
        if isinstance(value, BaseException):
            self._settle(waiter, ERROR, failure(value))
        else:
            self._settle(waiter, *outcome(self._numbered[waiter.target], value))

    def _settle(self, waiter: Waiter, kind: int, body: bytes | Parts) -> None:
        """End a wait with an encoded reply."""
        self._leave(waiter)
        session = self.sessions[waiter.owner.session]
        session.waits.pop(waiter.seq, None)
        hosted = self._numbered[waiter.target]
        target = hosted.number if kind == REPLY and hasattr(hosted.instance, "take_back") else 0
        self._reply(session, waiter.seq, kind, body, target)
        if session.is_stale(waiter.seq):
            del session.replies[waiter.seq]  # the session has said that it has this reply, and will never ask for it

    def _watch(self, waiter: Waiter) -> None:
        if waiter.deadline is not None:
            self.deadlines.push(waiter.deadline, waiter.number, waiter)

    def _fire_due(self, until: float) -> None:
        """Do what is due up to `until`, in the order of (deadline, sequence), each at its own time."""
        newest = self._last_order
        again: list[Due] = []
        while (entry := self.deadlines.pop(until)) is not None:
            time, order, _, item = entry
            if order > newest and time <= self.now:
                again.append(entry)  # asked for in here, for no later time: it would go on for ever
                continue
            self.now = max(self.now, time)
            if isinstance(item, Hosted):
                item.alarm = None
                self._enter(item, "due", self.now)
            else:
                failed, body = item.late
                self._settle(item, ERROR if failed else REPLY, body)
                self._gave_up([item])
            self._look_again()
        for entry in again:
            self.deadlines.put_back(entry)

    # -- what a step may ask for (`hosting.Steps`)

    def _within(self, step: hosting.Call, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run a piece of a hosted class with `hosting.call` in place."""
        self._entries = entry = self._entries + 1
        token = hosting._current.set(step)
        try:
            if self._given and entry in self._given:
                raise named(self._given[entry])
            return function(*args, **kwargs)
        except BaseException as error:
            if is_verdict(error):
                self._found.append((entry, type(error).__name__))
            raise
        finally:
            hosting._current.reset(token)

    def draw(self, n: int) -> bytes:
        """Return `n` bytes that are the same at every replay (BLAKE2b over seed, index and count)."""
        self._draws += 1
        return self.hashed(b"%d/%d" % (self.index, self._draws), n)

    def hashed(self, material: bytes, n: int) -> bytes:
        """Return `n` bytes hashed from the seed and `material`."""
        blocks = (b"%b/%d" % (material, block) for block in range(-(-n // 64)))
        return b"".join(hashlib.blake2b(block, key=self.seed[:64]).digest() for block in blocks)[:n]

    def next_token(self) -> int:
        """Return the next fencing token."""
        self._last_token += 1
        return self._last_token

    def next_order(self) -> int:
        """Return the next number for a wait or an alarm; it breaks ties between deadlines."""
        self._last_order += 1
        return self._last_order

    def title(self, target: int) -> str:
        """Return the name of an object as errors write it."""
        return self._numbered[target].title

    def moved(self, waiter: Waiter) -> None:
        """Take note that a wait stands in another line."""
        self._waits.changed.append(waiter)

    def taken(self, step: hosting.Call, number: int | None) -> str:
        """Return why a grant was taken from the caller, which counts as told; empty if none was."""
        return self.losses.taken(step, number)

    def touch(self, target: int, key: object) -> None:
        """Note that a step changes what a key of an object names."""
        self.touched.append((target, key))

    def set_alarm(self, target: int, time: float | None) -> None:
        """Set, replace or take back the alarm of an object."""
        hosted = self._numbered[target]
        if time is None:
            hosted.alarm = None
            return
        hosted.alarm = (float(time), self.next_order())
        self.deadlines.push(*hosted.alarm, hosted)
