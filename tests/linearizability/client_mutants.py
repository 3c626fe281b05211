"""Clients that are broken on purpose, one way each, to show that the simulation of real clients would notice.

As in `mutants`, but what is put in the place of something are methods of the link, or of the host where it has to do
with what a link is told.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from linearizability.crew import Interruption
from linearizability.mutants import Change, Method, Mutant
from registry import _wire
from registry._attachments import Attachment
from registry._host import Host
from registry._leaves import EVERY
from registry._link import Link
from registry._pending import Pending
from registry._transport import Transport, is_gone
from registry._wire import Frame, Kind
from registry._words import WordPool
from registry.errors import RegistryError

CLIENT_MUTANTS: list[Mutant] = []


def mutant(title: str, *kinds: str) -> Any:
    """Add what the function returns to the list."""

    def add(changes: Any) -> None:
        CLIENT_MUTANTS.append(Mutant(title, kinds, changes()))

    return add


@mutant("a call that is sent again gets another number", "counter")
def _() -> tuple[Change, ...]:
    def change(send: Method) -> Method:
        def renumbering(self: Link, slot: Pending, *rest: Any) -> None:
            if slot.sent and self._pending.get(slot.seq) is slot:
                del self._pending[slot.seq]
                self._pending[self._next] = slot
                slot.seq = self._next
                self._next += 1
            send(self, slot, *rest)

        return renumbering

    return ((Link, "_send", change),)


@mutant("a call that is given up is forgotten", "lock", "semaphore")
def _() -> tuple[Change, ...]:
    def change(undo: Method) -> Method:
        def forgetful(self: Link, slot: Pending) -> None:
            self._pending.pop(slot.seq, None)

        return forgetful

    return ((Link, "_undo", change),)


@mutant("the received mark passes a call that was given up", "lock", "semaphore")
def _() -> tuple[Change, ...]:
    def change(send_frame: Method) -> Method:
        def passing(self: Link, kind: int, seq: int, body: bytes) -> bool:
            transport = self._transport
            if transport is None:
                return False
            unanswered = next((number for number, slot in self._pending.items() if not slot.abandoned), seq)
            try:
                transport.send(_wire.pack(kind, body, self._generation, seq, min(unanswered, seq) - 1 if seq else 0))
            except BaseException as error:
                self._break(transport)
                if not is_gone(error):
                    raise
                return False
            return True

        return passing

    return ((Link, "_send_frame", change),)


@mutant("what was granted is acknowledged before its caller has it", "queue")
def _() -> tuple[Change, ...]:
    def change(sweep: Method) -> Method:
        def hasty(self: Link) -> None:
            for slot in self._pending.values():
                if slot.waiting and slot.reply is not None:
                    slot.delivered = True
                    self._taken += [] if slot in self._taken else [slot]
            sweep(self)

        return hasty

    def register(before: Method) -> Method:
        def sweeping(self: Link, slot: Pending) -> None:
            self._sweep()
            before(self, slot)

        return sweeping

    return ((Link, "_sweep", change), (Link, "_register", register))


@mutant("a reply counts as the answer to an undo", "lock", "semaphore")
def _() -> tuple[Change, ...]:
    def change(hand_out: Method) -> Method:
        def trusting(self: Link, frame: Frame) -> None:
            slot = self._pending.get(frame.sequence)
            if slot is not None and slot.abandoned and frame.kind == Kind.REPLY:
                frame = msgspec.structs.replace(frame, kind=Kind.STANDS)
            hand_out(self, frame)

        return trusting

    return ((Link, "_hand_out", change),)


@mutant("replies are handed out in the order of the calls", "counter")
def _() -> tuple[Change, ...]:
    def change(hand_out: Method) -> Method:
        def sorting(self: Link, frame: Frame) -> None:
            first = next((seq for seq, slot in self._pending.items() if not slot.done), 0)
            if frame.kind == Kind.REPLY and first:
                frame = msgspec.structs.replace(frame, sequence=first)
            hand_out(self, frame)

        return sorting

    return ((Link, "_hand_out", change),)


@mutant("an interrupted connection is read on", "counter")
def _() -> tuple[Change, ...]:
    def change(drop: Method) -> Method:
        def careless(self: Link, transport: Transport) -> None:
            if not isinstance(sys.exc_info()[1], Interruption):
                drop(self, transport)

        return careless

    return ((Link, "_break", change),)


@mutant("what was sent is said to be unsent", "counter")
def _() -> tuple[Change, ...]:
    def change(lose: Method) -> Method:
        def hopeful(self: Link, *rest: Any, **others: Any) -> None:
            for slot in self._pending.values():
                slot.sent = False
            lose(self, *rest, **others)

        return hopeful

    return ((Link, "_lose", change),)


@mutant("the loss of a session is told to nobody", "counter", "queue")
def _() -> tuple[Change, ...]:
    def change(lose: Method) -> Method:
        def silent(self: Link, *rest: Any, **others: Any) -> None:
            lose(self, *rest, **others)
            self._tell = self._untold = None

        return silent

    return ((Link, "_lose", change),)


@mutant("a session that is gone is begun anew", "counter", "lock")
def _() -> tuple[Change, ...]:
    def change(attach: Method) -> Method:
        def obliging(self: Host, attachment: Attachment, frame: Frame, now: float) -> None:
            hello = msgspec.structs.replace(_wire.decode_attach(frame.body), resumes=False)
            attach(self, attachment, msgspec.structs.replace(frame, body=_wire.encode(hello)), now)

        return obliging

    return ((Host, "_attach", change),)


@mutant("calls inside a block rely on nothing", "lock")
def _() -> tuple[Change, ...]:
    def change(send: Method) -> Method:
        def unguarded(self: Link, slot: Pending, *rest: Any) -> None:
            fields = slot.fields
            slot.fields = {number: raw for number, raw in (fields or {}).items() if number != _wire.GRANTS}
            try:
                send(self, slot, *rest)
            finally:
                slot.fields = fields

        return unguarded

    return ((Link, "_send", change),)


@mutant("a release that is interrupted is not made", "lock", "semaphore")
def _() -> tuple[Change, ...]:
    def change(give_up: Method) -> Method:
        def quitting(self: Link, slot: Pending, error: BaseException) -> None:
            if slot.insisting and not isinstance(error, RegistryError):
                self._pending.pop(slot.seq, None)
            give_up(self, slot, error)

        return quitting

    return ((Link, "_give_up", change),)


@mutant("who stops reading wakes nobody", "counter", "lock")
def _() -> tuple[Change, ...]:
    return ((Link, "_promote", lambda promote: lambda self: None),)


@mutant("threads of one process are one", "rlock")
def _() -> tuple[Change, ...]:
    def change(enter: Method) -> Method:
        def merging(self: Link, local: Any) -> None:
            enter(self, local)
            local.owner = 1

        return merging

    return ((Link, "_enter_session", change),)


@mutant("words do not move", "counter")
def _() -> tuple[Change, ...]:
    return ((WordPool, "move", lambda move: lambda self, touched: None),)


@mutant("a key moves the word of another", "dict")
def _() -> tuple[Change, ...]:
    def change(move: Method) -> Method:
        def misled(self: WordPool, touched: Any) -> None:
            move(self, [(number, key if key is EVERY else "another") for number, key in touched])

        return misled

    return ((WordPool, "move", change),)
