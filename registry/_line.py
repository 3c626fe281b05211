"""One connection at a time, shared by the threads of a process: who writes to it, and who reads for all.

Whatever is written is written whole, under one lock. A thread that waits for its reply reads for all (*leader and
followers*): the first to find nobody reading reads until its own reply is there, handing out those of the others, then
wakes one of those still waiting. So one thread alone pays one write and one read for a call, and never a hand-over.

Whatever exception comes out of a socket operation, a signal handler's included, may have taken bytes with it. So the
connection is dropped; whoever reads next makes another.
"""

from __future__ import annotations

import threading
from time import monotonic
from typing import Any

import msgspec

from registry import _shelf, _wire
from registry._leaves import Parts
from registry._pending import Pending
from registry._transport import CHUNK, DeadlinePassed, Transport, clock, is_gone, left
from registry._wire import AGAIN, CONTROL, REPLY, Frame, Kind
from registry._words import Mapped
from registry.errors import OutcomeUnknown, RegistryError

MOST = 1 << 20  # bytes that are read at once of a large frame
_SETTLED = (Kind.CANCELLED, Kind.STANDS)
_ANSWERS = frozenset(map(int, (Kind.REPLY, Kind.SHOWN, Kind.ERROR, Kind.CANCELLED, Kind.STANDS)))
PATIENCE = 3  # connections in a row on which a server may break the protocol before its calls are told so
_NONE = msgspec.Raw(b"\x90")  # no sequences


class Broken(_wire.ProtocolError):
    """The server has broken the protocol, and no client has had a part in it."""


class Line:
    """The row of unanswered calls of a session, and the connection that their replies come by."""

    key: bytes
    address: str

    def reset(self) -> None:
        """Begin without a connection, and without locks that another thread may hold."""
        self._make_locks()
        self._pending: dict[int, Pending] = {}
        self._transport: Transport | None = None
        self.kept: Any = None  # by `_keeper`
        self.words: Mapped | None = None  # what cached reads hang on, on this connection

    def _make_locks(self) -> None:
        # They know their owners: a signal handler may raise between an acquisition and the very next instruction, or
        # call in the middle of a call, and so may a destructor.
        self._sending: Any = threading.RLock()
        self._reading: Any = threading.RLock()

    def _new_session(self) -> None:
        self.heard = 0.0  # when what the server has answered last had been sent, by `_transport.clock`
        self.files = ""  # the server's directory of large values, where this process sees it
        self.files_work = True  # none of its files was missing yet
        self._written = 0
        self._generation = 0
        self._next = 1
        self._acknowledged = 0
        self._applied = 0  # the latest event of the server that an answer has come from
        self._above: list[int] = []
        # Those of them that can be taken back, and with which call each was told, 0 for none: until a later call has
        # been logged, a server that dies may have known of it from a read, which no log has.
        self._unlogged: dict[int, int] = {}
        # The numbers of grants that were taken away, as far as the server has told; the oldest are forgotten.
        self.lost: dict[int, None] = {}
        self._faults = 0  # connections in a row on which the server has broken the protocol
        self._reader = _wire.Reader()

    def _connect(self, deadline: float | None) -> None:
        """As the leader: make a connection."""
        raise NotImplementedError

    def _note(self, change: str, transport: Transport | None = None) -> None:
        """Tell the keeper, if there is one, what has become of the session."""
        kept = self.kept  # which the keeper may take away meanwhile
        if kept is not None:
            kept.note(change, transport)

    def _mark(self) -> int:
        """Return the received mark: every call up to it has its reply."""
        return next(iter(self._pending), self._next) - 1

    def _note_arrival(self, slot: Pending, frame: Frame, above: list[int] | None = None) -> None:
        """Note that the reply to a call has arrived, which is about to leave the row of unanswered calls.

        Args:
            slot: The call.
            frame: The reply.
            above: The replies above the mark that its session is to tell of; None for those of the present one.
        """
        seq = slot.seq
        if self._mark() != seq - 1:
            (self._above if above is None else above).append(seq)
        if not slot.readonly and frame.kind == REPLY:
            if seq > self._acknowledged:
                self._acknowledged = seq
            if self._unlogged:
                self._note_logged(slot)

    def _note_logged(self, slot: Pending) -> None:
        """Take what was told with a call, or before it, for logged, unless a thread of the server has run the call."""
        if not getattr(getattr(slot.about, "interface", None), "threaded", False):
            self._unlogged = {seq: told for seq, told in self._unlogged.items() if not 0 < told <= slot.seq}

    def _tell_unlogged(self, unanswered: list[Pending]) -> None:
        """Have told again to another life of the server what the one before may have known from a read.

        Args:
            unanswered: What is about to be sent to it; the last call of these tells, else the next one.
        """
        again = [seq for seq, told in self._unlogged.items() if told]
        for slot in reversed(unanswered):
            if again and slot.kind != CONTROL and slot.seq > max(again):
                fields = slot.fields or {}
                more = _wire.decode_sequences(fields.get(_wire.RECEIVED_SET, _NONE))
                slot.fields = {**fields, _wire.RECEIVED_SET: msgspec.Raw(_wire.encode(sorted({*again, *more})))}
                self._unlogged.update(dict.fromkeys(again, slot.seq))
                return
        self._above += again
        self._unlogged.update(dict.fromkeys(again, 0))

    # -- writing

    def _send_frame(self, kind: int, seq: int, body: bytes | list[_wire.Buffer]) -> bool:
        """Write a frame; False where the connection is gone, and did not take the whole frame."""
        transport = self._transport
        if transport is None:
            return False
        unanswered = next(iter(self._pending), seq)  # as `_mark`
        received = (unanswered if unanswered < seq else seq) - 1 if seq else 0
        try:
            if isinstance(body, bytes):
                transport.send(_wire.pack(kind, body, self._generation, seq, received))
            else:
                generation = self._generation
                transport.send_pieces(
                    _wire.pack_pieces(kind, body, generation=generation, sequence=seq, received=received)
                )
        except BaseException as error:
            # Whoever reads next makes a new connection, and everything is sent again. Before anybody else may write:
            # after half a frame the next would be read as its rest.
            self._break(transport)
            if not is_gone(error):
                raise
            return False
        return True

    def _break(self, transport: Transport) -> None:
        """Drop a connection, once. Whoever reads from it sees its end."""
        if self._transport is transport:
            self._transport = None
            self._drop_words()
            self._note("suspended", transport)
        transport.close()

    # -- large values

    def _item(self, part: Any) -> object:
        """Return what stands for a large value in a call: the name and length of a file, or the bytes themselves."""
        if not self.files or len(part) < _shelf.LARGE:
            return part
        self._written += 1
        name = f"{_shelf.prefix_of(self.key)}{self._generation}-{self._written}"
        return (name, len(part)) if _shelf.put(self.files, name, getattr(part, "parts", (part,))) else part

    def _open_parts(self, slot: Pending, deadline: float | None) -> None:
        """Have at hand what stands beside a reply, before its call is taken for answered.

        Where a file is missing, which somebody has removed, the reply is dropped: the server has the value still, and
        sends its bytes by a new connection.

        Raises:
            DeadlinePassed: They have not come by the deadline.
            ServerNotFound: No server can be asked for them.
        """
        while (frame := slot.reply) is not None and frame.flags & _wire.PARTS:
            try:
                head, items = _wire.split_reply(frame.body)
                parts: list[Any] = [_shelf.get(self.files, *item) if type(item) is tuple else item for item in items]
                slot.reply = msgspec.structs.replace(frame, body=Parts(head, tuple(parts)), flags=0)
            except _wire.ProtocolError as error:
                slot.reply, slot.failure = None, RegistryError(f"server {self.address}: {error}")
            except _shelf.Unusable as error:
                if not self.files:
                    # It names a file on a connection on which it was told that none is seen.
                    slot.reply, slot.failure = None, RegistryError(f"server {self.address}: {error}")
                    return
                self.files_work = False
                slot.reply = None
                transport = self._transport
                if transport is not None:
                    self._break(transport)
                self._await(slot, deadline)

    def _drop_words(self) -> None:
        """Have nothing answered any more by what was cached on this connection."""
        words, self.words = self.words, None
        if words is not None:
            words.drop()

    # -- leader and followers

    def _await(self, slot: Pending, deadline: float | None) -> None:
        """Wait until the call has its reply or its failure, reading for all while nobody else does."""
        reading = self._reading  # another one in a forked child, where greenlets go on
        while slot.reply is None and slot.failure is None:
            slot.parked = True
            try:
                if reading.acquire(False):
                    slot.parked = False
                    while slot.reply is None and slot.failure is None:
                        transport = self._transport
                        if transport is None:
                            self._connect(deadline)
                        else:
                            self._read(transport, deadline)
                            # A server may send without end what answers nobody.
                            if slot.reply is None and deadline is not None and deadline <= monotonic():
                                raise DeadlinePassed
                    return
            finally:
                if not slot.parked or reading._is_owned():
                    reading.release()
                    if len(self._pending) > 1:
                        self._promote()
            if slot.wake is None:
                wake = threading.Lock()
                wake.acquire()
                slot.wake = wake
                continue  # look again: the leader may have left before it could see the lock
            if not slot.wake.acquire(True, left(deadline)):
                raise DeadlinePassed

    def _stop_leading(self) -> None:
        """Read no longer, if this thread did, and see to it that somebody does."""
        while self._reading._is_owned():
            self._reading.release()
        self._promote()

    def _promote(self) -> None:
        """Wake one of those who wait, since nobody reads any more."""
        for slot in list(self._pending.values()):
            if slot.parked and slot.wake is not None:
                self._wake(slot)
                if not slot.done:  # else a leader was interrupted before it could tell
                    return

    def _wake(self, slot: Pending) -> None:
        wake = slot.wake
        if wake is not None:
            try:
                wake.release()
            except RuntimeError:
                pass  # it was woken already

    def _read(self, transport: Transport, deadline: float | None) -> None:
        """As the leader: read once from the connection, and hand out what came."""
        try:
            reader = self._reader
            missing = reader.missing
            data = transport.receive(deadline) if missing <= CHUNK else transport.receive(deadline, min(missing, MOST))
            frame = reader.whole(data)  # as most reads bring it
            if frame is not None:
                self._hand_out(frame)
            elif data:
                while (frame := self._next_frame(reader)) is not None:
                    self._hand_out(frame)
            else:
                self._break(transport)
        except DeadlinePassed:
            raise
        except BaseException as error:
            # Where a signal handler has raised, bytes that had left the kernel may be lost with it.
            self._break(transport)
            if isinstance(error, Broken):
                self._note_fault(str(error))
            elif not (is_gone(error) or isinstance(error, _wire.ProtocolError)):
                raise

    def _next_frame(self, reader: _wire.Reader) -> Frame | None:
        try:
            return reader.next()
        except _wire.ProtocolError as error:
            raise Broken(str(error)) from error

    def _note_fault(self, text: str) -> None:
        """The server has broken the protocol. Another connection may be better; where none is, calls are told so."""
        self._faults += 1
        if self._faults < PATIENCE:
            return
        self._faults = 0
        what = f"it does not keep to the protocol: {text}"
        for slot in list(self._pending.values()):
            if slot.reply is None and not (slot.abandoned or slot.unattended):
                is_unknown = slot.sent and not slot.readonly
                slot.failure = (
                    OutcomeUnknown(slot.title, what, self.address)
                    if is_unknown
                    else RegistryError(f"server {self.address}: {what}")
                )
                self._wake(slot)

    def _hand_out(self, frame: Frame) -> None:
        slot = self._pending.get(frame.sequence)
        if slot is None or frame.generation != self._generation:
            if frame.kind == Kind.REFUSED:
                raise _wire.ProtocolError(bytes(frame.body).decode("utf-8", "replace"))
            if frame.kind == Kind.LOST and frame.generation == self._generation:
                self._note_lost(frame)
            if frame.kind == Kind.HEARD and len(frame.body) == _wire.STAMP.size:
                sent: float = _wire.STAMP.unpack(frame.body)[0]
                if self.heard < sent <= clock():
                    self.heard = sent
        elif frame.kind not in _ANSWERS:
            if frame.kind != AGAIN or not self.files:
                raise Broken(f"a frame of kind {frame.kind} answers a call")
            self.files_work = False
            raise _wire.ProtocolError("a file was removed; the bytes go by a new connection")
        elif slot.abandoned:
            if slot.asked != self._generation:
                raise _wire.ProtocolError("interrupted before its cancel was sent, which a new connection begins with")
            if frame.kind in _SETTLED:  # any other is its own reply, which was on its way
                self._applied = max(self._applied, frame.applied)
                del self._pending[frame.sequence]
        else:
            if frame.applied > self._applied:
                self._applied = frame.applied
            if self._faults:
                self._faults = 0
            slot.reply = frame
            if slot.parked:
                self._wake(slot)
            if slot.unattended:
                self._dismiss(slot)

    def _note_lost(self, frame: Frame) -> None:
        try:
            self.lost[_wire.decode_int(frame.body)] = None
        except _wire.BadBody as error:
            raise Broken(f"a loss that cannot be read: {error}") from error
        if len(self.lost) > _wire.IN_FLIGHT:
            del self.lost[next(iter(self.lost))]

    def _dismiss(self, slot: Pending) -> None:
        """Let go of a call that nobody waits for, once its reply is there."""
        if slot.reply is not None and self._pending.get(slot.seq) is slot:
            self._note_arrival(slot, slot.reply)
            self._pending.pop(slot.seq, None)
