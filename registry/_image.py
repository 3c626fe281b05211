"""The engine's whole state as bytes, and back: an *image*.

Equal states have equal images, so two engines are compared by them. An image holds data and no code: who restores one
needs the declarations of the objects in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from registry import _codec, _state, hosting
from registry._engine import NOBODY, Engine
from registry._leaves import Owner, Parts
from registry._objects import Hosted, arguments_of, state_leaf
from registry._sessions import Lost, Ranges, Reply, Session
from registry.declarations import SharedObject
from registry.errors import UnknownType
from registry.hosting import Waiter, Waiters

FORMAT = 5
READABLE = (4, FORMAT)  # of format 4 no session tells its role: all had that of the one key


def capture(engine: Engine) -> bytes:
    """Return the whole state of an engine in canonical form: equal states give equal bytes."""
    sessions = [
        [
            *(
                session.number,
                session.key,
                session.caller,
                session.domain,
                session.process,
                session.mark,
                session.above.rows(),
            ),
            [
                [seq, int(reply.kind), _flat(reply.body), reply.index, reply.target]
                for seq, reply in sorted(session.replies.items())
            ],
            list(session.objects),
            list(session.owned),
            session.away,
            [[number, *msgspec.structs.astuple(lost)] for number, lost in session.lost.items()],
            session.role,
        ]
        for _, session in sorted(engine.sessions.items())
    ]
    objects = [
        [
            *(hosted.number, hosted.declaration.typeid, hosted.name, hosted.arguments, hosted.definition),
            *(hosted.maker, hosted.made, hosted.session, list(hosted.sessions), hosted.alarm),
            *(hosted.changed, hosted.stopped),
            _codec.canonical(_state.capture(hosted.instance), outgoing=state_leaf),
        ]
        for _, hosted in sorted(engine._numbered.items())
    ]
    waits = [
        [
            *(waiter.number, tuple(waiter.owner), waiter.caller, waiter.seq, waiter.target, waiter.since),
            waiter.deadline,
            waiter.late,
        ]
        for _, hosted in sorted(engine._numbered.items())
        for waiter in hosted.waits.values()
    ]
    counters = [engine._last_session, engine._last_object, engine._last_token, engine._last_order]
    begun = [engine.index, engine.now, engine.epoch, engine.seed]
    known = [list(engine.lives.items()), list(engine.ended.items())]
    return _codec.canonical(
        [FORMAT, begun, counters, known, sessions, _columns(objects), _columns(waits), list(engine._vacant)]
    )


def _flat(body: bytes | Parts) -> bytes | list[object]:
    """Return a reply as a value of the codec."""
    return [body.head, [bytes(buffer) for buffer in body.buffers]] if isinstance(body, Parts) else body


def _unflat(body: Any) -> bytes | Parts:
    return body if type(body) is bytes else Parts(body[0], tuple(body[1]))


def _columns(rows: list[list[Any]]) -> list[list[Any]]:
    """Return rows as columns, for the codec is quick with a row of scalars, and many rows are of few columns.

    No rows have no columns.
    """
    return [list(column) for column in zip(*rows, strict=True)]


def read(image: bytes) -> list[Any]:
    """Return what is in an image, as `capture` writes it.

    Raises:
        ValueError: The bytes are no image of this format.
    """
    tree: Any = _codec.decode(image)
    if not isinstance(tree, list) or len(tree) != 8 or tree[0] not in READABLE:
        raise ValueError(f"not an image of format {FORMAT}")
    return tree


def restore(declarations: Mapping[str, SharedObject[Any]], image: bytes) -> Engine:
    """Return an engine in the state of an image; it goes on as if it had never stopped.

    Raises:
        ValueError: The bytes are no image of this format.
        UnknownType: An object's type is not declared here.
    """
    tree = read(image)
    _, begun, counters, known, sessions, objects, waits, vacant = tree
    engine = Engine(declarations)
    engine.index, engine.now, engine.epoch, engine.seed = begun
    engine.lives, engine.ended = (dict(rows) for rows in known)
    for number, key, caller, domain, process, mark, above, replies, used, owned, away, lost, *role in sessions:
        session = Session(number, key, caller, domain, process, *role)
        session.away = away
        session.mark, session.above = mark, Ranges(above)
        session.replies = {seq: Reply(kind, _unflat(body), *row) for seq, kind, body, *row in replies}
        session.objects, session.owned = dict.fromkeys(used), dict.fromkeys(owned)
        session.lost = {row[0]: Lost(*row[1:]) for row in lost}
        if not all(each.told for each in session.lost.values()):
            engine.losses.untold[number] = None
        engine.sessions[number] = session
        engine._keys[key] = number
    waiters: dict[int, Waiter] = {}
    for number, owner, caller, seq, target, since, deadline, late in sorted(zip(*waits, strict=True)):
        waiters[number] = Waiter(number, Owner(*owner), caller, seq, target, since, deadline, late)
        engine.sessions[owner[0]].waits[seq] = waiters[number]
    waiting: dict[int, list[Waiter]] = {}
    for waiter in waiters.values():
        waiting.setdefault(waiter.target, []).append(waiter)
    for row in zip(*objects, strict=True):
        _restore_object(engine, row, waiters, waiting.get(row[0], ()))
    engine._vacant = dict.fromkeys(vacant)
    engine._last_session, engine._last_object, engine._last_token, engine._last_order = counters
    return engine


def _restore_object(
    engine: Engine, row: tuple[Any, ...], waiters: dict[int, Waiter], waiting: Iterable[Waiter]
) -> None:
    (
        number,
        typeid,
        name,
        arguments,
        definition,
        maker,
        made,
        session,
        sessions,
        alarm,
        changed,
        stopped,
        state,
    ) = row
    declaration = engine.declarations.get(typeid)
    if declaration is None:
        raise UnknownType(typeid, f"the state holds {typeid}:{name}")
    hosted = Hosted(number, declaration, name, arguments, definition, maker=maker, made=made, session=session)
    engine._numbered[number] = hosted
    args, kwargs = arguments_of(arguments)
    step = hosting.Call(engine, engine.now, 0, 0, NOBODY, number, 0)

    def revive() -> None:
        hosted.live(declaration.factory(*args, **kwargs))
        _state.rebuild(hosted.instance, _codec.decode(state, incoming=_reviver(waiters)))

    engine._within(step, revive)
    hosted.sessions = dict.fromkeys(sessions)
    hosted.changed, hosted.stopped, hosted.alarm = changed, stopped, alarm
    if alarm is not None:
        time, order = alarm
        engine.deadlines.push(time, order, hosted)
    for waiter in waiting:
        if waiter.home is None:
            Waiters()._admit(waiter)  # its object has let go of the line that it stood in
        hosted.waits[waiter.number] = waiter
        engine._waits.add(waiter)
        waiter.away = hosted.passes_over and engine.sessions[waiter.owner.session].away
        engine._watch(waiter)
    engine._instances[id(hosted.instance)] = hosted
    engine.objects[typeid, name] = hosted


def _reviver(waiters: dict[int, Waiter]) -> Callable[[Any], object]:
    """Return what puts the restored waits back into the state of an object."""

    def revive(leaf: Any) -> object:
        if type(leaf) is tuple and leaf[0] == 41:
            restored = Waiters()
            for number in leaf[1]:
                restored._admit(waiters[number])
            return restored
        return leaf

    return revive
