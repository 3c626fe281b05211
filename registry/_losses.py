"""Grants that were taken from their holders by force, and how these are told.

A grant is taken away by an operator (``registry release``), or goes with its object when that is deleted. Its holder
hears `LockLost` once, in the place of its next call, whatever that is; and whenever it gives back that very grant.

What only gives back another grant (``gives_back`` of a hosted class) is not refused for it: that grant would stay held,
and nobody would know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry import _codec, hosting
from registry._events import Output
from registry._leaves import EVERY
from registry._objects import Hosted
from registry._sessions import Lost
from registry._wire import Kind
from registry.errors import LockLost
from registry.hosting import Holder

if TYPE_CHECKING:
    from registry._engine import Engine
    from registry._events import Call


class Losses:
    """The losses of one engine. What is known of each stands in its session.

    Attributes:
        untold: The sessions that are to be told of a loss.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.untold: dict[int, None] = {}

    def note(self, hosted: Hosted, holder: Holder, reason: str) -> None:
        """Note that a grant was taken away, so that its holder's next call is told."""
        session = self._engine.sessions.get(holder.owner.session)
        if session is not None and holder.number:
            session.lose(holder.number, Lost(holder.owner.number, hosted.number, hosted.title, reason))
            self.untold[session.number] = None
            engine = self._engine
            notice = _codec.encode(holder.number)
            engine._outputs.append(Output(session.number, 0, Kind.LOST, notice, engine.index))
            self._engine.touch(0, EVERY)  # what it has cached would answer in the place of the call that is to tell it

    def owed(self, call: Call) -> Lost | None:
        """Return the loss that a caller is to be told of by this call, which is not to run then."""
        engine = self._engine
        if call.session not in self.untold or engine.knows(call.session, call.seq):
            return None
        hosted = engine.objects.get((call.typeid, call.name))
        for lost in engine.sessions[call.session].untold(call.owner):
            # What went with its object cannot be given back.
            gone = hosted is not None and lost.title == hosted.title and lost.target != hosted.number
            if hosted is None or gone or call.method not in hosted.gives_back:
                return lost
        return None

    def tell(self, call: Call) -> None:
        """Raise the loss that a call's caller is to be told of, in the place of the call."""
        lost = self.owed(call)
        if lost is not None:
            self._tell(call.session, lost)
            raise LockLost(lost.title, lost.reason)

    def relied_on(self, call: Call) -> LockLost | None:
        """Return the loss of a grant that a call relies on, if one is lost; a read may ask, too."""
        engine = self._engine
        for typeid, name, number in call.grants:
            lock = engine.objects.get((typeid, name))
            holds = getattr(lock.instance, "holds", None) if lock is not None else None
            if holds is None or not holds(number):
                session = engine.sessions.get(call.session)
                known = session.lost.get(number) if session is not None else None
                reason = known.reason if known is not None else "the grant that this call relies on is no longer valid"
                return LockLost(f"{typeid}:{name}", reason)
        return None

    def taken(self, step: hosting.Call, number: int | None) -> str:
        """Return why a grant of the object under way was taken from the caller, see `hosting.Call.taken`."""
        session = self._engine.sessions.get(step._session)
        if session is None:
            return ""
        untold = session.untold(step._number)
        for each, lost in session.lost.items():
            if lost.title == step.title and (lost in untold if number is None else each == number):
                self._tell(session.number, lost)
                return lost.reason
        return ""

    def forget(self, session: int) -> None:
        """Take note that a session has ended."""
        self.untold.pop(session, None)

    def _tell(self, session: int, lost: Lost) -> None:
        lost.told = True
        if all(each.told for each in self._engine.sessions[session].lost.values()):
            self.untold.pop(session, None)
