"""What a server tells of itself and of what it holds, when it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from registry import _codec, _rights, _wire
from registry._disclosure import public, public_about
from registry._events import Output
from registry._outcomes import failure
from registry._wire import Frame, Kind

if TYPE_CHECKING:
    from registry._attachments import Client
    from registry._engine import Engine
    from registry._host import Host
    from registry._objects import Hosted
    from registry.hosting import Holder


def answer(host: Host, client: Client, frame: Frame, now: float) -> None:
    """Answer a question of a session: what stands here, or what the shell of the host tells.

    Raises:
        MsgspecError: No client of ours sends this.
    """
    body = _wire.decode_control(frame.body)
    try:
        needed = _rights.least("question", body.verb)
        if not _rights.may(client.role, needed):
            raise _rights.denial(f"the question {body.verb!r}", needed, client.role)
        args, kwargs = _codec.decode_arguments(bytes(body.arguments))
        questions: dict[str, Callable[..., Any]] = {
            "status": partial(status, host, client),
            "objects": host.objects,
            "statistics": host.statistics,
            "locks": partial(locks, host, now),
            **host.control,
        }
        question = questions.get(body.verb)
        if question is None:
            raise AttributeError(f"a server does not answer {body.verb!r}; it has {', '.join(sorted(questions))}")
        found = question(*args, **kwargs)
        if body.verb == "about" and not client.is_insider:
            found = public_about(found)
        if callable(found):
            found(partial(_answer_later, host, client, frame.sequence))
            return
        kind, encoded = Kind.REPLY, _codec.encode(found)
    except Exception as error:  # noqa: BLE001 - an object's own statistics() may raise anything
        kind, encoded = Kind.ERROR, failure(error)
    # Where nothing can be written, who asks what is wrong is answered all the same.
    index = 0 if body.verb in ("status", "stop") else host.engine.index
    host.deliver(client, Output(client.number, frame.sequence, kind, encoded, index))


def _answer_later(host: Host, client: Client, seq: int, value: object) -> None:
    host.deliver(client, Output(client.number, seq, Kind.REPLY, _codec.encode(value), host.engine.index))


def introduction(host: Host, is_insider: bool) -> dict[str, Any]:
    """Return who the server is, as it says to peers that may see inside, or to others."""
    said = attrs.asdict(host.identity)
    return said if is_insider else public(said)


def greeting(host: Host, role: str, is_insider: bool) -> bytes:
    """Return what a client of a role is told in the handshake's answer."""
    # Each row by itself: a client reads those of the types that it uses.
    types = {typeid: _codec.encode(each.interface.pack()) for typeid, each in host.declarations.items()}
    limits = host.limits.told()
    return _codec.encode(
        {"protocol": _wire.VERSION, **introduction(host, is_insider), "role": role, "types": types, "limits": limits}
    )


def status(host: Host, client: Client) -> dict[str, object]:
    """Return who the server is and how much it holds; ``role`` is what the session may do that has asked."""
    return {
        **introduction(host, client.is_insider),
        "role": client.role,
        "life": host.identity.life.hex(),
        "sessions": len(host.clients),
        "objects": len(host.objects()),
        "waiting": sum(len(session.waits) for session in host.engine.sessions.values()),
        "calls": host.calls,
        "events": host.engine.index,
        "safe": host.safe,
        "syncs": host.syncs,
        "types": sorted(host.declarations),
        "limits": host.usage() if host.usage is not None else [],
    }


def locks(host: Host, now: float) -> dict[str, object]:
    """Return what is held or awaited, and the deadlocks that are suspected.

    Returns:
        ``now``: the time, by the same clock as what is told here. ``locks``: a row for each object, with typeid, name,
        ``holders`` and ``waiters`` as its statistics tell them, each with the ``state`` of its session, *connected* or
        *suspended*; and ``abandoned``, whether a holder died and nobody has released it in order since. ``suspected``:
        a row for each circle of those who wait for each other: lists of who waits, for which object, and for whom.
    """
    engine = host.engine
    rows: list[dict[str, object]] = []
    for (typeid, name), hosted in sorted(engine.objects.items()):
        holders = [each.row(state=_state(host, each.owner.session)) for each in engine.holders(hosted)]
        waiters = [each.row(state=_state(host, each.owner.session)) for each in hosted.waits.values()]
        abandoned = engine.is_abandoned(hosted)
        if holders or waiters or abandoned:
            row = {"typeid": typeid, "name": name, "holders": holders, "waiters": waiters, "abandoned": abandoned}
            rows.append(row)
    suspected = [[[who, what, list(whom)] for who, what, whom in circle] for circle in engine.suspected()]
    return {"now": max(now, engine.now), "locks": rows, "suspected": suspected}


def held_by(engine: Engine, session: int) -> list[tuple[Hosted, Holder]]:
    """Return what a session holds: each object, with the grant."""
    known = [engine.by_number(number) for number in engine.sessions[session].objects]
    return [
        (hosted, holder)
        for hosted in known
        if hosted is not None
        for holder in engine.holders(hosted)
        if holder.owner.session == session
    ]


def abandoned(engine: Engine, held: list[tuple[Hosted, Holder]], now: float) -> Iterator[str]:
    """Tell of what a session held that has ended since, where whoever has it next is told so, too."""
    for hosted, holder in held:
        if engine.find(hosted.declaration.typeid, hosted.name) is hosted and engine.is_abandoned(hosted):
            seconds = max(0.0, now - holder.since)
            yield f"{hosted.title} was abandoned by {holder.caller}, who had had it for {seconds:.1f} s"


def _state(host: Host, session: int) -> str:
    """Tell whether a session has a connection now."""
    client = host.client(session)
    return "connected" if client is not None and client.attachment is not None else "suspended"
