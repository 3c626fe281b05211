"""The server's half of the protocol, without I/O: frames in, frames out, one engine in the middle.

A shell (the socket server, ``memory://``, a simulated network) makes an `Attachment` for each connection,
feeds it frames with the time, and sends what its `outbox` holds. The host turns frames into events, feeds the
engine, and turns outputs into frames of the session's present connection. What is lost on the way is asked
for again by the client.

A session outlives its connections. A new connection of a session *fences* the old one: what the old one still
brings is dropped, so that no request can run after the cancel that was sent for it on the new one. A session
without a connection is *suspended*, and ends when its lease runs out, when its process is known to be dead,
or by a goodbye. So does one that is connected and silent for longer than its lease, unless its shell watches its
process in another way; what its connection still brings after that is dropped.

Time out of which nobody could be heard must not count: a shell judges leases (`Host.judge`) only when it has read
all that had come, and credits them (`Host.credit`) with the time for which it stood still itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any

import msgspec

from registry import _attachments, _bounds, _codec, _disclosure, _questions, _rights, _wire
from registry._attachments import Attachment, Client, Files, Identity, Log, Target, Threads, Words
from registry._engine import Engine
from registry._events import (
    Advance,
    Begin,
    Call,
    Cancel,
    Create,
    Event,
    Halted,
    Output,
    OwnerEnded,
    Resumed,
    SessionEnded,
    Suspended,
)
from registry._leases import Leases
from registry._leaves import Parts
from registry._limits import Limits
from registry._objects import Hosted, redacted
from registry._sessions import Ranges
from registry._wire import CALL, DELETE, OPERATORS, READ, SHOWN, Frame, Kind, ProtocolError
from registry.declarations import SharedObject
from registry.errors import NoSuchObject, OutcomeUnknown, RegistryError, StateLost, UnknownType

Sample = Callable[[int, object], bytes]

REMEMBERED_DELETIONS = 16_384

# What may tell of an error: a call that an undo came too late for may have failed, too.
WITH_ERRORS = (int(Kind.ERROR), int(Kind.STANDS))


class Host(Leases):
    """One server life without its sockets.

    Args:
        declarations: The shared objects by typeid.
        identity: What clients are told of the server.
        seed: Random bytes for `hosting.call().random`.
        now: Seconds since 1970.
        lease: How long a session is believed that is silent, or has no connection, in seconds.
        limits: What its clients may take of it.
        threads: Where threaded objects run; without it they are refused.
        control: Answers to questions to the server itself that only the shell can give, by verb. An answer that comes
            later is a function: it is called with what takes the answer.
        freshness: Called at an attach with the client's modules and versions, and whether it may see into the server;
            its text becomes a `StaleServer`.
        warn: Called with a text about what may be wrong in the clients: a suspected deadlock.
        abandoned: Called with a text for each lock that a session has left held.
        withheld: Called with what an error says that is not told to an outsider, see `_disclosure`.
        engine: The state to go on from, as a log tells it; a new one without.
        files: Where large values lie that clients map; without, they are sent.
        words: What caches of reads hang on; without it none is cached.
        room: Tells whether there is memory for more; without, there is.
        log: Where events are added. What comes out of one is then held until `release` says that it is safe.
        others: Trust domains of which there may be opaque values though nobody of them comes, and whether sessions of
            ours may read these.
    """

    def __init__(
        self,
        declarations: Mapping[str, SharedObject[Any]],
        identity: Identity,
        *,
        seed: bytes,
        now: float,
        lease: float = 30.0,
        limits: Limits | None = None,
        threads: Threads | None = None,
        control: Mapping[str, Callable[..., object]] | None = None,
        freshness: Callable[[dict[str, str], bool], str] | None = None,
        warn: Callable[[str], None] | None = None,
        abandoned: Callable[[str], None] | None = None,
        withheld: Callable[[str], None] | None = None,
        engine: Engine | None = None,
        log: Log | None = None,
        files: Files | None = None,
        words: Words | None = None,
        others: Mapping[str, bool] | None = None,
        room: _bounds.Room | None = None,
    ) -> None:
        super().__init__(lease)
        self.limits = limits or Limits()
        self.declarations = declarations
        self.identity = identity
        self.engine = engine or Engine(declarations)
        self.recovered = self.engine.index
        self.calls = 0
        self.dirty: list[Attachment] = []
        self._numbered: dict[int, Client] = {}
        self._deleted: dict[int, None] = {}
        # While every session is of one trust domain, no reply needs a second look before it leaves.
        self._domains: set[str] = set(others or ())
        self.trusted = frozenset(domain for domain, trusted in (others or {}).items() if trusted)
        self._threads = threads
        self.control = dict(control or {})
        self.usage: Callable[[], list[list[object]]] | None = None
        self._freshness = freshness
        self._warn = warn
        self._abandoned = abandoned
        self._discretion = _disclosure.Discretion(seed, withheld)
        self._log = log
        self._files = files
        self._words = words
        self.bounds = _bounds.Bounds(identity, self.limits, room)
        self._safe: float = inf if log is None else self.engine.index
        self._held: deque[tuple[int, Client, Output]] = deque()
        self._greetings: dict[tuple[str, bool], bytes] = {}
        self._feed(Begin(now=now, epoch=identity.epoch, seed=seed, life=identity.life))
        self._recall(now)

    def greet(self, role: str = _rights.ADMIN, domain: str = "") -> bytes:
        """Return what a client is told in the handshake's answer: who the server is, its role, the table of typeids."""
        which = role, _disclosure.is_insider(role, domain)
        greeting = self._greetings.get(which)
        if greeting is None:
            greeting = self._greetings[which] = _questions.greeting(self, *which)
        return greeting

    # -- connections

    def receive(self, attachment: Attachment, frame: Frame, now: float) -> None:
        """Take one frame of a connection.

        Raises:
            ProtocolError: No client of ours sends this; close the connection.
        """
        client = attachment.client
        if client is None:
            if frame.kind != Kind.ATTACH:
                raise ProtocolError("the first frame of a connection must attach it to a session")
            self._attach(attachment, frame, now)
            return
        if client.attachment is not attachment or frame.generation != attachment.generation:
            return  # fenced by a newer connection of the session, or by its end
        client.heard = now
        try:
            if self._held and client.held >= self.limits.calls:
                raise ProtocolError(f"{client.held} answers wait to be safe, and more are asked for")
            if frame.kind == CALL or frame.kind == READ:
                self._call(client, frame, now)
            elif frame.kind == Kind.CANCEL:
                self._cancel(client, frame, now)
            elif frame.kind == Kind.CONTROL:
                _questions.answer(self, client, frame, now)
            elif frame.kind == Kind.OWNER_ENDED:
                self._owner_ended(client, _wire.decode_int(frame.body), now)
            elif frame.kind == Kind.HEARTBEAT:
                self._beat(attachment, frame)
            elif frame.kind == Kind.GOODBYE:
                above = _wire.decode_sequences(frame.body) if frame.body else ()
                self._acknowledge(client, frame.received, above)
                self.end(client, now)
            else:
                raise ProtocolError(f"a frame of kind {frame.kind} is not for a server")
        except _wire.BadBody as error:
            self.detach(attachment, now)
            raise ProtocolError(f"a body that cannot be read: {error}") from error
        except ProtocolError:
            self.detach(attachment, now)  # what follows it is not to be trusted
            raise

    def hear(self, attachment: Attachment, now: float) -> None:
        """Take bytes of a connection that make no whole frame yet as a sign of life."""
        client = attachment.client
        if client is not None and client.attachment is attachment:
            client.heard = now

    def detach(self, attachment: Attachment, now: float) -> None:
        """A connection is gone. Its session, if it has no newer one, is suspended and lives on its lease."""
        client = attachment.client
        if client is None or client.attachment is not attachment:
            return
        client.attachment = None
        client.deliver = None
        self._leased.pop(client.key, None)
        if client.key in self.clients:
            client.expires = now + self.lease
            self._suspended[client.key] = None
            if client.number and self.engine.sessions[client.number].waits:
                self._feed(Suspended(now=now, session=client.number))

    def _attach(self, attachment: Attachment, frame: Frame, now: float) -> None:
        try:
            hello = _wire.decode_attach(frame.body)
        except _wire.BadBody as error:
            raise ProtocolError(f"an attach that cannot be read: {error}") from error
        if len(hello.key) != 16:
            raise ProtocolError("a session's key has 16 bytes")
        if not attachment.role:
            self._answer_attach(attachment, frame.generation, False, denied=_rights.NO_ROLE)
            return
        client = self.clients.get(hello.key)
        resumed = hello.resumes or client is not None
        if hello.resumes:
            reason = self._loss_of(hello, client)
            if reason:
                if client is not None and client.attachment is None and client.generation < frame.generation:
                    self.end(client, now)  # what it has seen is gone, and with it what it believes to hold
                self._answer_attach(attachment, frame.generation, False, reason)
                return  # without a session, since its client is about to begin another one
        if client is None:
            caller = _attachments.caller_of(attachment, hello)
            self.bounds.crowd.check(attachment.pid, caller.host)
            client = Client(hello.key, caller, attachment.domain, attachment.pid, attachment.process, attachment.role)
            # What it sent to an earlier life has left no trace there, unless it was for a threaded object.
            client.before = hello.sent if hello.resumes else 0
            self._enter(client)
        elif frame.generation <= client.generation:
            raise ProtocolError("a newer connection of this session is open")
        elif client.domain != attachment.domain or client.pid != attachment.pid:
            raise ProtocolError("this session belongs to another process")
        elif client.role != attachment.role:
            denied = _rights.other_role(client.role, attachment.role)
            self._answer_attach(attachment, frame.generation, False, denied=denied)
            return
        client.generation = frame.generation
        client.attachment = attachment
        client.expires = None
        client.heard = now
        self._suspended.pop(client.key, None)
        if attachment.leased:
            self._leased[client.key] = None
        attachment.client = client
        attachment.generation = frame.generation
        attachment.sees_files = hello.files and self._files is not None and bool(client.domain)
        outbox = attachment.outbox
        generation = frame.generation
        is_insider = client.is_insider

        def deliver(output: Output) -> None:
            if not is_insider and output.kind in WITH_ERRORS:
                output = self._discretion.told(client, output)
            body = output.body
            if len(self._domains) > 1 and body:
                body = redacted(body, client.domain, self.trusted)
            if not outbox:
                self.dirty.append(attachment)
            if isinstance(body, bytes):
                kind = output.kind
                if output.words:
                    kind, body = SHOWN, output.words + body
                outbox.extend(_wire.pack_row(kind, body, generation, output.seq, output.index))
            else:
                outbox.extend(_attachments.frames_of(attachment, output, body, self._files))

        client.deliver = deliver
        stale = self._freshness(hello.code, is_insider) if self._freshness is not None else ""
        if hello.resumes and hello.life != self.identity.life:
            client.before = max(client.before, hello.sent)
        self._answer_attach(attachment, generation, resumed, stale=stale)
        self._came_back(client, now)

    def _loss_of(self, hello: _wire.Attach, client: Client | None) -> str:
        """Return why a session cannot go on, or empty. One of which an earlier life has logged nothing can."""
        engine = self.engine
        end = engine.end_of(hello.life)
        if end is None:
            if self._log is None:
                return "it is gone with what it held in memory"
            return "its state was replaced by one that knows nothing of this session's time"
        if hello.applied > end and hello.life != self.identity.life:
            return f"it has lost what came after event {end}, and this session had seen event {hello.applied}"
        is_same = hello.life == self.identity.life
        if client is None and (is_same or hello.acknowledged or hello.key in engine.ended):
            return "the server took this session for dead, and freed what it held"
        return ""

    def _answer_attach(
        self,
        attachment: Attachment,
        generation: int,
        resumed: bool,
        reason: str = "",
        stale: str = "",
        denied: str = "",
    ) -> None:
        lease = self.lease if attachment.leased else 0.0
        words = self._words.told if self._words is not None and attachment.domain else None
        answer = _wire.encode(_wire.Attached(resumed, reason, stale, lease, words, denied))
        self.dirty.append(attachment)
        attachment.outbox.append(_wire.pack(Kind.ATTACHED, answer, generation=generation))

    # -- sessions

    def _recall(self, now: float) -> None:
        """Take the sessions of a state that has a past: they have no connection, and their lease to get one."""
        for number, session in list(self.engine.sessions.items()):
            pid = session.caller.pid if session.process else None
            client = Client(session.key, session.caller, session.domain, pid, session.process, session.role)
            client.number = number
            client.received = session.mark
            client.above = Ranges(session.above.rows())
            client.expires = now + self.lease
            self._numbered[number] = client
            self._enter(client)
            self._suspended[client.key] = None
            if session.waits and not session.away:
                self._feed(Suspended(now=now, session=number))

    def adopt(self, client: Client) -> None:
        """Take a session of another protocol. Its shell sets `Client.deliver`, and feeds it by `submit`.

        Raises:
            ProtocolError: Its peer has too many.
        """
        self.bounds.crowd.check(client.pid, client.caller.host)
        self._enter(client)

    def _enter(self, client: Client) -> None:
        self.clients[client.key] = client
        self._domains.add(client.domain)
        self.bounds.crowd.enter(client)

    def resume(self, client: Client, now: float) -> None:
        """Believe a session again for as long as its shell does."""
        client.expires = None
        self._suspended.pop(client.key, None)
        self._came_back(client, now)

    def _came_back(self, client: Client, now: float) -> None:
        """Have the waits of a session passed over no longer."""
        if client.number and self.engine.sessions[client.number].away:
            self._feed(Resumed(now=now, session=client.number))

    def halt(self, typeid: str, name: str, reason: str, now: float) -> None:
        """Have an object refuse further calls."""
        self._feed(Halted(now=now, typeid=typeid, name=name, reason=reason))

    def end(self, client: Client, now: float) -> None:
        """End a session: a goodbye, a death, or a lease that ran out. What it held goes on in this step."""
        if self.clients.pop(client.key, None) is None:
            return
        self.bounds.crowd.leave(client)
        self._suspended.pop(client.key, None)
        self._leased.pop(client.key, None)
        client.attachment = None
        client.deliver = None
        client.pins.clear()
        if self._files is not None:
            self._files.discard(client.key)
        if self._threads is not None:
            self._threads.owner_ended(client, None)
        if client.number:
            for number in self.engine.sessions[client.number].owned:
                self._note_deleted(number)
            above = client.above.rows()
            tell = self._abandoned
            held = _questions.held_by(self.engine, client.number) if tell is not None else []
            self._feed(SessionEnded(now=now, session=client.number, received=client.received, above=above))
            del self._numbered[client.number]
            if tell is not None and held:
                for text in _questions.abandoned(self.engine, held, now):
                    tell(text)

    def advance(self, now: float) -> None:
        """Let time pass: end what is due, and the sessions whose lease has run out.

        For a shell that has taken all that had come by `now`; another one calls `fire` and, once it has, `judge`.
        """
        self.fire(now)
        self.judge(now)

    def next_due(self) -> float | None:
        """Return when `advance` is needed next, or None."""
        times = [time for time in (self.engine.next_due(), self.next_judgement()) if time is not None]
        return min(times, default=None)

    def fire(self, now: float) -> None:
        """End what is due."""
        due = self.engine.next_due()
        if due is not None and due <= now:
            self._feed(Advance(now=now))

    def _beat(self, attachment: Attachment, frame: Frame) -> None:
        """Answer a heartbeat; that it has come is all that counts."""
        if len(frame.body) > _wire.HEARTBEAT_BODY:
            raise ProtocolError(f"a heartbeat of {len(frame.body)} bytes")
        if not attachment.outbox:
            self.dirty.append(attachment)
        attachment.outbox.append(_wire.pack(Kind.HEARD, frame.body, generation=attachment.generation))

    def _open(self, client: Client, now: float) -> None:
        """Make the session known to the engine, at its first call that is not a read."""
        self._feed(client.opening(now))
        client.number = self.engine.session_of(client.key)
        self._numbered[client.number] = client

    def _owner_ended(self, client: Client, owner: int, now: float) -> None:
        if client.number:
            self._feed(OwnerEnded(now=now, session=client.number, owner=owner))
        if self._threads is not None:
            self._threads.owner_ended(client, owner)

    # -- calls

    def _call_unread(self, client: Client, frame: Frame, now: float) -> None:
        """Refuse a call whose arguments were not kept; if it has been answered, it is again."""
        call = _bounds.unread(client, frame, now)
        if client.slow and self._is_slow(client, call):
            return
        if client.number and self.engine.knows(client.number, call.seq):
            self._feed(call)
            return
        self._check_room(client)
        self._refuse(client, call.seq, self.bounds.unread(bytes(frame.body).decode()))

    def _call(self, client: Client, frame: Frame, now: float) -> None:
        if frame.flags == _wire.UNREAD:
            self._call_unread(client, frame, now)
            return
        body = _wire.decode_call(frame.body)
        sequence = frame.sequence
        if frame.received >= sequence:
            raise ProtocolError("a call acknowledges its own reply")
        if sequence <= client.received or (client.above.firsts and sequence in client.above):
            return  # the session has its reply
        above: list[int] = []
        definition: tuple[str, str, msgspec.Raw] | None = None
        owner = _wire.DEFAULT_OWNER
        grants: tuple[tuple[str, str, int], ...] = ()
        remaining: float | None = None
        thread = ""
        arguments: bytes | Parts = bytes(body.arguments)
        for number, raw in body.fields.items() if body.fields else ():
            if number == _wire.OWNER:
                owner = _wire.decode_int(raw)
            elif number == _wire.DEFINITION:
                definition = _wire.decode_definition(raw)
            elif number == _wire.RECEIVED_SET:
                above = _wire.decode_sequences(raw)
                _bounds.check_number(above, _bounds.MOST_TOLD, "acknowledgements")
                if max(above, default=0) >= sequence:
                    raise ProtocolError("a call acknowledges replies of later calls")
            elif number == _wire.GRANTS:
                grants = tuple(_wire.decode_grants(raw))
                _bounds.check_number(grants, _bounds.MOST_GRANTS, "grants")
            elif number == _wire.REMAINING:
                seconds = _wire.decode_float(raw)
                remaining = None if seconds == inf else max(0.0, seconds)
            elif number == _wire.BUFFERS:
                try:
                    arguments = _attachments.joined(client.attachment, arguments, _wire.split_items(raw), self._files)
                except LookupError:
                    self._ask_again(client, sequence)
                    return
            elif number == _wire.THREAD:
                thread = _wire.decode_text(raw)[: _wire.LONGEST_THREAD]
            elif number < _wire.IGNORED_FROM and number not in _wire.KNOWN_FIELDS:
                raise ProtocolError(f"a call with an unknown field {number}")
        if definition is not None:
            typeid, name, defining = definition
            target = self._define(client, body.handle, typeid, name, bytes(defining))
        elif body.handle in client.handles:
            target = client.handles[body.handle]
        else:
            raise ProtocolError(f"handle {body.handle} was never defined on this connection")
        if above or client.above.firsts:
            self._acknowledge(client, frame.received, above)
        elif frame.received > client.received:
            client.received = frame.received
            if client.pins:
                client.unpin()
        self.submit(
            client,
            target,
            Call(
                now=now,
                session=client.number,
                seq=sequence,
                owner=owner,
                typeid=target.typeid,
                name=target.name,
                method=body.method,
                arguments=arguments,
                received=client.received,
                above=client.above.rows() if client.above.firsts else (),
                grants=grants,
                remaining=remaining,
                thread=thread,
            ),
            self._words.sample if frame.kind == READ and self._words is not None else None,
        )

    def _ask_again(self, client: Client, sequence: int) -> None:
        """Have a call sent with the bytes of its large values, since their files are not there."""
        attachment = client.attachment
        if attachment is not None:
            if not attachment.outbox:
                self.dirty.append(attachment)
            attachment.outbox.append(_wire.pack(Kind.AGAIN, b"", generation=attachment.generation, sequence=sequence))

    def _acknowledge(self, client: Client, received: int, above: Iterable[int]) -> None:
        """Note which replies a session has. The engine is told with the next call that is not a read."""
        for seq in above:
            client.above.add(seq, seq)
        client.received = max(client.received, received)
        client.above.discard_through(client.received)
        if client.pins:
            client.unpin()

    def _define(self, client: Client, handle: int, typeid: str, name: str, definition: bytes) -> Target:
        _bounds.check_names(typeid, name)
        handles = client.handles
        known = handles.pop(handle, None)  # so that those which were told last stand last, as their client counts them
        target = Target(typeid, name, definition, self.declarations.get(typeid))
        if known is not None and (known.typeid, known.name) == (typeid, name):
            target.number = known.number
        handles[handle] = target
        if len(handles) > self.limits.handles:
            del handles[next(iter(handles))]
        return target

    def submit(self, client: Client, target: Target, call: Call, sample: Sample | None = None) -> None:
        """Run a call of a session: as a read, as an event, or on a thread. `sample` is `Engine.read`'s."""
        self.calls += 1
        if client.slow and self._is_slow(client, call):
            return
        if not client.is_insider:
            client.last = _disclosure.remembered(call)
        if not client.is_admin and (
            call.method in OPERATORS or (client.is_reader and call.method not in target.readonly)
        ):
            if self._denied(client, target, call):
                return
        if client.number in self.engine.losses.untold:
            call = msgspec.structs.replace(call, session=client.number)
            lost = self.engine.losses.owed(call)
            if lost is not None:
                if target.number == lost.target:
                    target.number = 0  # if its object is deleted, this says that, too
                self._feed(call)  # a read as well: that it has been told is to be remembered
                return
        if call.method in target.readonly and target.compared:
            # What most calls are. A read may run again, so that nobody asks whether it has been seen.
            known = self.engine.find(target.typeid, target.name)
            if known is not None and known.number == target.number:
                self._read(client, call, sample)
                return
        if client.number and self.engine.knows(client.number, call.seq):
            self._feed(call)
            return
        self._check_room(client)
        declaration = target.declaration
        if declaration is None:
            self._refuse(client, call.seq, UnknownType(target.typeid))
            return
        if declaration.threaded:
            self._submit_threaded(client, target, call, declaration)
            return
        hosted = self.engine.find(target.typeid, target.name)
        if hosted is None or hosted.number != target.number or not target.compared:
            hosted = self._prepare(client, target, call, hosted)
            if hosted is None:
                return
        if call.method in target.readonly:
            self._read(client, call, sample)
            return
        if (room := self.bounds.room) is not None:
            room.left -= len(call.arguments) if type(call.arguments) is bytes else _bounds.length_of(call.arguments)
            tight = room.left < 0 or call.now >= room.until
            if tight and self._refused(client, call, self.bounds.growing(call, hosted)):
                return
        if not client.number:
            self._open(client, call.now)
        if call.session != client.number:
            call = msgspec.structs.replace(call, session=client.number)
        self._feed(call)
        if client.above.firsts:
            client.above = Ranges()  # the engine knows now
        if call.method == DELETE and self.engine.find(target.typeid, target.name) is not hosted:
            self._note_deleted(hosted.number)

    def _denied(self, client: Client, target: Target, call: Call) -> bool:
        """Tell whether a session may not make a call; then that has been delivered as the reply."""
        needed = _rights.least_for(call.method, target.readonly, target.declaration)
        if _rights.may(client.role, needed) or (target.declaration is None and call.method not in OPERATORS):
            return False
        self._check_room(client)
        what = f"{target.title}.{call.method.removeprefix('#')}()"
        self._refuse(client, call.seq, _rights.denial(what, needed, client.role))
        return True

    def _read(self, client: Client, call: Call, sample: Sample | None) -> None:
        self.deliver(client, self.engine.read(call, domain=client.domain, caller=client.caller, sample=sample))

    def _is_slow(self, client: Client, call: Call) -> bool:
        """Tell whether the engine does not remember a call that has been seen; send its reply again."""
        above = Ranges(call.above)
        for seq, done in list(client.slow.items()):
            if done is not None and (seq <= call.received or seq in above):
                del client.slow[seq]
        if call.seq not in client.slow:
            return False
        done = client.slow[call.seq]
        if done is not None:
            self.deliver(client, done)
        return True

    def _check_room(self, client: Client) -> None:
        """Refuse a session that leaves too much unanswered or unacknowledged."""
        held = len(client.slow)
        session = self.engine.sessions.get(client.number)
        if session is not None:
            held += len(session.waits) + len(session.replies)
        if held >= self.limits.calls:
            raise ProtocolError(f"more than {self.limits.calls} calls are unanswered or unacknowledged")

    def _note_deleted(self, number: int) -> None:
        """Remember that an object is gone, so that each handle of it is told so once."""
        self._deleted[number] = None
        if len(self._deleted) > REMEMBERED_DELETIONS:
            del self._deleted[next(iter(self._deleted))]

    def prepare(self, client: Client, target: Target, call: Call) -> bool:
        """Make the object of a call, or compare its definition, without calling it.

        Returns:
            False where that is refused; the reason has been delivered as the reply to the call. A threaded
            object is made on its own thread, at its first call.
        """
        if target.declaration is None:
            self._refuse(client, call.seq, UnknownType(target.typeid))
            return False
        if target.declaration.threaded:
            return True
        return self._prepare(client, target, call, self.engine.find(target.typeid, target.name)) is not None

    def _prepare(self, client: Client, target: Target, call: Call, hosted: Hosted | None) -> Hosted | None:
        """Find a handle's object, make it at its first use, and compare its definition. None: refused."""
        if target.number in self._deleted:
            target.number = 0
            reason = "it was deleted" if client.is_reader else "it was deleted; the next call makes a new one"
            self._refuse(client, call.seq, NoSuchObject(target.title, reason))
            return None
        if hosted is None:
            if client.is_reader or call.method in OPERATORS:
                reason = _rights.not_made(target.title) if client.is_reader else "nothing has that name"
                self._refuse(client, call.seq, NoSuchObject(target.title, reason))
                return None
            if self._refused(client, call, self.bounds.making(call, len(self.engine.objects))):
                return None
            if not client.number:
                self._open(client, call.now)
            self._feed(
                Create(
                    now=call.now,
                    session=client.number,
                    seq=call.seq,
                    owner=call.owner,
                    typeid=target.typeid,
                    name=target.name,
                    arguments=target.definition,
                )
            )
            hosted = self.engine.find(target.typeid, target.name)
            if hosted is None:
                return None  # the engine has replied with the reason
        else:
            try:
                hosted.check(target.definition)
            except (RegistryError, TypeError, ValueError) as error:
                self._refuse(client, call.seq, error)
                return None
        target.compared = True
        target.number = hosted.number
        return hosted

    def _submit_threaded(self, client: Client, target: Target, call: Call, declaration: SharedObject[Any]) -> None:
        if self._threads is None:
            self._refuse(client, call.seq, RegistryError(f"{target.typeid} is threaded; this server runs no threads"))
            return
        if call.method == DELETE:
            if self._threads.delete(target.typeid, target.name):
                self.deliver(client, Output(0, call.seq, Kind.REPLY, _codec.encode(None), self.engine.index))
            else:
                self._refuse(client, call.seq, NoSuchObject(f"{target.typeid}:{target.name}", "nothing has that name"))
            return
        if call.seq <= client.before:
            reason = "the server that it was made to is gone, and a threaded object leaves no trace of what it did"
            self._refuse(client, call.seq, OutcomeUnknown(f"{target.typeid}:{target.name}.{call.method}()", reason))
            return
        if not self._threads.has_room(client, call.owner):
            self._refuse(client, call.seq, self.bounds.no_thread(call))
            return
        client.slow[call.seq] = None
        self._threads.submit(client, call, declaration, target.definition)

    def finish(self, client: Client, seq: int, kind: int, body: bytes | Parts) -> None:
        """Take the result of a threaded call and send it on."""
        if client.key not in self.clients:
            return
        output = client.slow[seq] = Output(client.number, seq, kind, body, self.engine.index)
        if seq in client.late:
            client.late.discard(seq)
            output = msgspec.structs.replace(output, kind=Kind.STANDS)
        self.deliver(client, output)

    def _cancel(self, client: Client, frame: Frame, now: float) -> None:
        body = _wire.decode_cancel(frame.body)
        self.cancel(client, frame.sequence, undo=body.undo, now=now)

    def cancel(self, client: Client, seq: int, *, undo: bool, now: float) -> None:
        """Settle a call: it has run, and that is said or its reply comes again, or it never will."""
        if seq in client.slow:
            done = client.slow[seq]
            if done is None and self._threads is not None and self._threads.withdraw(client, seq):
                done = client.slow[seq] = Output(client.number, seq, Kind.CANCELLED, b"", self.engine.index)
            if done is None:
                if undo:
                    client.late.add(seq)  # it runs, and cannot be stopped
            elif undo and done.kind != Kind.CANCELLED:
                self.deliver(client, msgspec.structs.replace(done, kind=Kind.STANDS))
            else:
                self.deliver(client, done)
            return
        if client.is_reader:
            # It had no effect and has none, and no event is to tell of it. That is said whatever the log waits for.
            self.deliver(client, Output(0, seq, Kind.CANCELLED, b"", 0))
            return
        if not client.number:
            self._open(client, now)
        if not self.engine.knows(client.number, seq):
            self._check_room(client)
        self._feed(Cancel(now=now, session=client.number, seq=seq, undo=undo))

    def drain(self, reason: str) -> None:
        """Tell those who wait that this life ends; what they waited for goes with it."""
        body = _codec.encode_exception(StateLost(reason))
        for number, session in self.engine.sessions.items():
            client = self._numbered.get(number)
            if client is None:
                continue
            for seq in session.waits:
                self.deliver(client, Output(number, seq, Kind.ERROR, body, self.engine.index))

    # -- what it tells of itself

    @property
    def safe(self) -> int:
        """The last event whose outputs may leave."""
        return int(min(self._safe, self.engine.index))

    @property
    def syncs(self) -> int:
        """How many times the log has waited for the disk."""
        return self._log.syncs if self._log is not None else 0

    def objects(self) -> list[list[object]]:
        """Return a row for each object: typeid, name, maker, when it was made, if it is ephemeral, waits."""
        rows: list[list[object]] = [
            [typeid, name, hosted.maker, hosted.made, False, len(hosted.waits)]
            for (typeid, name), hosted in self.engine.objects.items()
        ]
        if self._threads is not None:
            rows += self._threads.objects()
        return sorted(rows, key=lambda row: (str(row[0]), str(row[1])))

    def statistics(self, typeid: str, name: str) -> dict[str, object]:
        """Return what an object tells of itself.

        Raises:
            NoSuchObject: Nothing has that name.
        """
        hosted = self.engine.find(typeid, name)
        if hosted is None:
            threaded = self._threads.statistics(typeid, name) if self._threads is not None else None
            if threaded is not None:
                return threaded
            raise NoSuchObject(f"{typeid}:{name}", "nothing has that name")
        return self.engine.statistics(hosted)

    def client(self, session: int) -> Client | None:
        """Return the session that the engine knows by a number."""
        return self._numbered.get(session)

    # -- outputs

    def _feed(self, event: Event) -> None:
        outputs = self.engine.step(event)
        if self._words is not None:
            self._words.move(self.engine.touched)  # before anything that comes out of it leaves
        if self._log is not None:
            self._log.append(event, outputs, self.engine.verdicts)
        for output in outputs:
            client = self._numbered.get(output.session)
            if client is not None:
                self.deliver(client, output)
        if self.engine.suspicions and self._warn is not None:
            for text in self.engine.suspicions:
                self._warn(text)

    def deliver(self, client: Client, output: Output) -> None:
        """Send an output to its session once it may leave; what it comes from is safe then."""
        if output.index > self._safe:
            self._held.append((output.index, client, output))
            client.held += 1
        elif client.deliver is not None:
            # While the session has no connection nothing is lost: a change is remembered, a read is asked again.
            client.deliver(output)

    def release(self, index: int) -> None:
        """Let what is held leave, as far as events up to `index` are behind it: they are safe."""
        self._safe = index
        held = self._held
        while held and held[0][0] <= index:
            _, client, output = held.popleft()
            client.held -= 1
            if client.deliver is not None:
                client.deliver(output)

    def _refused(self, client: Client, call: Call, error: Exception | None) -> bool:
        """Refuse a call if there is an error; tell whether there is."""
        if error is not None:
            self._refuse(client, call.seq, error)
        return error is not None

    def _refuse(self, client: Client, seq: int, error: Exception) -> None:
        """Answer a call that does not reach the engine, in the same way if it comes again."""
        body = _codec.encode_exception(error)
        output = client.slow[seq] = Output(client.number, seq, Kind.ERROR, body, self.engine.index)
        self.deliver(client, output)
