"""Play a series once, and each of its moments again in other circumstances.

`Recording` plays a series in an engine and keeps, for each event, the engine's image from before it and what came of
it. Since every moment has its image it can be played again by itself (`replay`): in an engine that is restored for it,
whose sets have had another life, in another interpreter, the last moment first. Whatever then comes out
differently is the doing of that moment's methods and not a consequence of an earlier one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from inspect import getattr_static
from typing import Any

import msgspec

from registry import _codec, _image, _state
from registry._engine import Engine
from registry._events import (
    Advance,
    AnyEvent,
    Begin,
    Call,
    Create,
    Open,
    Output,
    OwnerEnded,
    Resumed,
    SessionEnded,
    Suspended,
)
from registry._leaves import Carried, Parts
from registry._objects import Hosted, state_leaf
from registry._wire import Kind
from registry.declarations import SharedObject
from registry.errors import DeclarationError, NotShareable, RemoteError
from registry.testing._series import End, Item, Use
from registry.testing._sets import attributes, change_sets, jumble

START = 1_000_000_000.0
SEED = bytes(range(32))
NAME = "checked"

# What the engine refuses of a method, by the field of the declaration that it breaks.
_REFUSALS = {"waiting": "waiting", "readonly": "reading"}

# An object that asks for an alarm at each alarm has been seen enough after so many.
_ALARMS = 20


class Outcome(msgspec.Struct, array_like=True):
    """What came of one event.

    Attributes:
        replies: Session, number of the call, kind and value of each reply, in canonical form.
        state: The state of the object by attribute, in canonical form; under an empty name where it has none.
        rest: A digest of all else that the engine holds.
    """

    replies: list[tuple[int, int, int, bytes]]
    state: dict[str, bytes]
    rest: bytes


class Moment(msgspec.Struct, array_like=True):
    """One event of a series.

    Attributes:
        title: How people are told of it: ``call 3, add('ant')``.
        method: The method that was called, if one was.
        image: The engine before it.
        event: What happened.
        reads: Whether it is a read, which is no event for the engine.
        outcome: What came of it.
    """

    title: str
    method: str
    image: bytes
    event: AnyEvent
    reads: bool
    outcome: Outcome


class Trouble(msgspec.Struct):
    """Something that was found while the series was recorded: what kind of thing, where, and the values."""

    kind: str
    moment: Moment
    names: Sequence[str] = ()
    text: str = ""


class Unplayable(Exception):
    """The object could not be made; its cause says why."""


class Recording:
    """A series as it was played.

    Attributes:
        moments: Every event with what came of it.
        troubles: What was found on the way.
        results: What the calls have returned, in that order.
        called: How many calls were made of each method.
        answered: The methods that have returned, or waited.
        instance: The object.
    """

    def __init__(
        self, declaration: SharedObject[Any], args: Iterable[Any], kwargs: Mapping[str, Any], derived: Iterable[str]
    ) -> None:
        self.declaration = declaration
        self.declarations = {declaration.typeid: declaration}
        self.name = NAME if declaration.per == "name" else ""
        self.moments: list[Moment] = []
        self.troubles: list[Trouble] = []
        self.results: list[object] = []
        self.called: dict[str, int] = {}
        self.answered: dict[str, None] = {}
        self._derived = frozenset(derived)
        self._told: set[str] = set()
        self._engine = Engine(self.declarations)
        self._now = START
        self._numbers: dict[int, int] = {}  # of the sessions, by how the series calls them
        self._seqs: dict[int, int] = {}
        self._heard: dict[int, set[int]] = {}
        self._uses: dict[tuple[int, int], Use] = {}
        self._values: dict[Use, object] = {}
        self._is_over = False
        self._feed("the beginning", "", Begin(now=self._now, epoch=1, seed=SEED))
        session = self._session(1)
        create = Create(
            now=self._now,
            session=session,
            seq=self._next(session),
            owner=1,
            typeid=declaration.typeid,
            name=self.name,
            arguments=_codec.encode_arguments(list(args), dict(kwargs)),
        )
        outputs = self._feed("making it", "__init__", create)
        self._heard[session].add(create.seq)
        if outputs:
            raise Unplayable from _codec.decode(outputs[0].body)
        hosted = self._engine.find(declaration.typeid, self.name)
        self.instance: Any = hosted and hosted.instance
        self._hosted = hosted

    def play(self, series: Iterable[Use | End]) -> None:
        """Make the calls of a series, then have everybody cut off, wait for what is due, and die."""
        for item in series:
            if self._is_over:
                return
            if item.after:
                self._advance(self._now + item.after)
            if isinstance(item, Use):
                self._use(item)
            elif item.session in self._numbers:
                self._end(item)
        self._finish()

    @property
    def stopped(self) -> str:
        """Why the object refused further calls, or empty."""
        return self._hosted.stopped if self._hosted else ""

    # -- what happens

    def _use(self, use: Use) -> None:
        session = self._session(use.session)
        reads = use.method in self.declaration.interface.readonly
        seq = 0 if reads else self._next(session)
        carried = self.declaration.interface.carried.get(use.method)
        args = [self._argument(value) for value in use.args]
        kwargs = {name: self._argument(value) for name, value in use.kwargs.items()}
        event = Call(
            now=self._now,
            session=session,
            seq=seq,
            owner=use.owner,
            typeid=self.declaration.typeid,
            name=self.name,
            method=use.method,
            arguments=_codec.encode_arguments(args, kwargs, carried),
            received=self._mark(session),
        )
        number = sum(self.called.values()) + 1
        self.called[use.method] = self.called.get(use.method, 0) + 1
        self._uses[session, seq] = use
        if not self._is_over:
            outputs = self._feed(f"call {number}, {use}", use.method, event, reads=reads)
            if not outputs:
                self.answered[use.method] = None  # it waits

    def _argument(self, value: Any) -> Any:
        if isinstance(value, Item):
            return self._argument(value.use)[value.key]
        if isinstance(value, Use):
            if value not in self._values:
                raise ValueError(f"{value!r} is used as an argument and has no result by then")
            return self._values[value]
        return value

    def _end(self, end: End) -> None:
        if end.owner is not None:
            self._feed(str(end), "", OwnerEnded(now=self._now, session=self._numbers[end.session], owner=end.owner))
            return
        session = self._numbers.pop(end.session)
        self._feed(str(end), "", SessionEnded(now=self._now, session=session, received=self._mark(session)))

    def _finish(self) -> None:
        """Do what comes to every object in the end."""
        for label, number in self._numbers.items():
            if self._engine.sessions[number].waits:
                self._feed(f"session {label} is cut off", "", Suspended(now=self._now, session=number))
                self._feed(f"session {label} comes back", "", Resumed(now=self._now, session=number))
        for _ in range(_ALARMS):
            due = self._engine.next_due()
            if due is not None:
                self._advance(due)
        for label, number in list(self._numbers.items()):
            # As of one that dies before it has heard the last reply, so that the object has to take that back.
            self._heard[number].discard(self._seqs[number])
            self._end(End(label))

    def _advance(self, time: float) -> None:
        self._now = max(self._now, time)
        self._feed(f"the time that passes until second {self._now - START:g}", "", Advance(now=self._now))

    # -- sessions

    def _session(self, label: int) -> int:
        if label not in self._numbers:
            key = (len(self._seqs) + 1).to_bytes(16, "big")
            self._feed(f"session {label} opens", "", Open(now=self._now, key=key, label=f"session {label}", domain=""))
            number = self._engine.session_of(key)
            self._numbers[label] = number
            self._seqs[number], self._heard[number] = 0, set()
        return self._numbers[label]

    def _next(self, session: int) -> int:
        self._seqs[session] += 1
        return self._seqs[session]

    def _mark(self, session: int) -> int:
        mark = 0
        while mark + 1 in self._heard[session]:
            mark += 1
        return mark

    # -- one event

    def _feed(self, title: str, method: str, event: AnyEvent, *, reads: bool = False) -> list[Output]:
        if self._is_over:
            return []
        engine = self._engine
        moment = Moment(title, method, _image.capture(engine), event, reads, Outcome([], {}, b""))
        outputs = apply(engine, event, reads)
        self.moments.append(moment)
        for output in outputs:
            self._heard.get(output.session, set()).add(output.seq)
            self._take(output, moment)
        hosted = engine.find(self.declaration.typeid, self.name)
        try:
            moment.outcome = outcome(engine, hosted, outputs)
        except Exception as error:  # noqa: BLE001 - the author's state() may raise anything
            self.troubles.append(Trouble("uncapturable", moment, _unkept(hosted), _told(error)))
            self._is_over = True
            return outputs
        if reads:
            before = outcome(*_restored(self.declarations, self.name, moment.image), outputs)
            if moment.outcome != before:
                self.troubles.append(Trouble("readonly", moment, _differing(before.state, moment.outcome.state)))
        self._compare(moment, hosted)
        return outputs

    def _take(self, output: Output, moment: Moment) -> None:
        """Take note of a result, for later arguments and for the report, and of what no class may answer with."""
        use = self._uses.pop((output.session, output.seq), None)
        if output.kind == Kind.ERROR:
            error = _codec.decode(output.body)
            if isinstance(error, (DeclarationError, NotShareable)):
                method = use.method if use is not None else moment.method
                kind = _REFUSALS.get(getattr(error, "field", "").rpartition(".")[2], "uncrossable")
                if self._is_news(f"{kind} {method}"):
                    self.troubles.append(Trouble(kind, moment, text=str(error)))
        if use is None or output.kind != Kind.REPLY:
            return
        self.answered[use.method] = None
        value = _codec.decode(output.body, incoming=_opened)
        self._values[use] = value
        self.results.append(value)

    def _compare(self, moment: Moment, hosted: Hosted | None) -> None:
        """Restore the engine, and look whether everything is there that was."""
        image = _image.capture(self._engine)
        try:
            engine, again = _restored(self.declarations, self.name, image)
        except Exception as error:  # noqa: BLE001 - the author's factory or load() may raise anything
            self.troubles.append(Trouble("unrestorable", moment, text=_told(error)))
            self._is_over = True
            return
        if hosted is None or again is None or hosted.stopped:
            return
        state = outcome(engine, again, []).state
        names = [name for name in _differing(moment.outcome.state, state) if self._is_news(f"state {name}")]
        if names:
            self.troubles.append(Trouble("round trip", moment, names))
        cls = type(hosted.instance)
        live, restored = attributes(hosted.instance), attributes(again.instance)
        for name in {**live, **restored}:
            if name in self._derived or isinstance(getattr_static(cls, name, None), cached_property):
                continue
            missing = "missing"
            old, new = live.get(name, missing), restored.get(name, missing)
            if (name in live) != (name in restored) or not _are_alike(old, new):
                if name not in names and self._is_news(f"attribute {name}"):
                    lost = "is missing" if name not in restored else f"is {short(new)} and was {short(old)}"
                    self.troubles.append(Trouble("unsaved", moment, [name], lost))

    def _is_news(self, what: str) -> bool:
        if what in self._told:
            return False
        self._told.add(what)
        return True


def apply(engine: Engine, event: AnyEvent, reads: bool) -> list[Output]:
    """Have an event happen."""
    if reads and isinstance(event, Call):
        engine._reading._draws = 0  # how many reads there were before is no state, but random bytes show it
        return [engine.read(event)]
    return engine.step(event)


def outcome(engine: Engine, hosted: Hosted | None, outputs: Iterable[Output]) -> Outcome:
    """Return what an engine and an object look like after an event that has brought these outputs."""
    state: dict[str, bytes] = {}
    replies = [(each.session, each.seq, int(each.kind), _comparable(each.body, hosted)) for each in outputs]
    if hosted is not None and hosted.stopped:
        # How far it had come depends on the machine and on the depth of the stack; nobody will see it.
        return Outcome(replies, {"stopped": hosted.stopped.encode()}, b"")
    if hosted is not None:
        captured = _state.capture(hosted.instance)
        if isinstance(captured, dict) and all(type(name) is str for name in captured):
            state = {name: _codec.canonical(value, outgoing=state_leaf) for name, value in captured.items()}
            state["order"] = repr(list(captured)).encode() if type(hosted.instance) is dict else b""
        else:
            state = {"": _codec.canonical(captured, outgoing=state_leaf)}
    return Outcome(replies, state, hashlib.blake2b(_image.capture(engine), digest_size=16).digest())


def replay(
    declarations: Mapping[str, SharedObject[Any]],
    name: str,
    moments: Iterable[Moment],
    *,
    jumbled: bool = False,
    around: Callable[[Engine, Moment], None] | None = None,
) -> Iterator[Outcome]:
    """Play each moment by itself, in an engine that is restored for it.

    Args:
        declarations: The types.
        name: The name of the object.
        moments: In any order.
        jumbled: Whether the sets in the object's state get another history than the restore gives them.
        around: Is given each engine before its moment.
    """
    (typeid,) = declarations
    for moment in moments:
        engine, hosted = _restored(declarations, name, moment.image)
        if hosted is not None and jumbled:
            change_sets(hosted.instance, jumble)
        if around is not None:
            around(engine, moment)
        outputs = apply(engine, moment.event, moment.reads)
        yield outcome(engine, engine.find(typeid, name), outputs)


def _restored(declarations: Mapping[str, SharedObject[Any]], name: str, image: bytes) -> tuple[Engine, Hosted | None]:
    (typeid,) = declarations
    engine = _image.restore(declarations, image)
    return engine, engine.find(typeid, name)


def difference(one: Outcome, other: Outcome) -> tuple[str, str] | None:
    """Tell what differs between two outcomes of one event, as what and how; None where nothing does."""
    if one.replies != other.replies:
        for mine, theirs in zip(one.replies, other.replies):
            if mine != theirs:
                return "result", f"{readable(mine[3])} and {readable(theirs[3])}"
        return "result", f"{len(one.replies)} and {len(other.replies)} replies"
    names = _differing(one.state, other.state)
    if names and names != ["order"]:
        name = names[0]
        values = [readable(each.state[name]) if name in each.state else "nothing" for each in (one, other)]
        return f"attribute {name!r}" if name else "state", " and ".join(values)
    if names:
        return "state", "another order of the keys"
    if one.rest != other.rest:
        return "engine", "its tokens, alarms or waits differ"
    return None


def short(value: object) -> str:
    """Return the repr of a value, or the beginning of it."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def readable(data: bytes) -> str:
    """Show a value in canonical form to people."""
    value = _codec.decode(data, incoming=_opened)
    return f"{type(value).__name__} {value}" if isinstance(value, BaseException) else short(value)


def _comparable(body: bytes | Parts, hosted: Hosted | None) -> bytes:
    """Return a reply without what may differ: where it was raised, and the order of a set."""
    if not body:
        return b""
    value = _codec.decode(body)
    if isinstance(value, RemoteError):
        value = RemoteError(value.call, value.type_name, value.message)
    elif type(value) is list and hosted is not None and type(hosted.instance) is set:
        value = sorted(value, key=repr)  # the builtin set is drained for clients, who make a set of it again
    return _codec.canonical(value)


def _differing(one: Mapping[str, bytes], other: Mapping[str, bytes]) -> list[str]:
    return [name for name in {**one, **other} if one.get(name) != other.get(name)]


def _unkept(hosted: Hosted | None) -> list[str]:
    """Return the attributes of which the codec can make nothing."""
    names = []
    for name, value in attributes(hosted and hosted.instance).items():
        try:
            _codec.canonical(value, outgoing=state_leaf)
        except Exception:  # noqa: BLE001 - whatever a value raises, it is not one to keep
            names.append(name)
    return names


def _are_alike(one: object, other: object) -> bool:
    """Tell whether two attributes are the same, as far as can be told: by type where they are no values."""
    if type(one) is not type(other):
        return False
    try:
        return _codec.canonical(one, outgoing=state_leaf) == _codec.canonical(other, outgoing=state_leaf)
    except Exception:  # noqa: BLE001 - no value for the codec, so nothing that tells more than its type
        return True


def _opened(leaf: Any) -> Any:
    """Decode what was carried, as a client does."""
    return _codec.decode_carried(leaf) if isinstance(leaf, Carried) and not leaf.domain else leaf


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
