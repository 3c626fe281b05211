"""The client's half of a session: one connection for a whole process, shared by its threads.

Theory of operation. Every call takes the next sequence number and is sent under one lock, so a process's calls reach
the server in the order in which it made them. Who reads the replies is told in `_line`.

A connection is only transport. Where one ends, a new one is made, and what is unanswered goes out again (`_joining`).

A call that is given up, by its deadline or by an exception, is *settled*: the server is asked to say that it never
took effect, or to hand over its reply. It stays in the row of unanswered calls until then, so that the received mark
cannot pass it.

A server that has a log goes on in another life. Where it cannot, the session is lost with everything that it held.

A session that lives on a lease, that somebody listens to, or that has a server with a log, is also looked after by a
thread (`_keeper`), which leads where nobody else does.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from registry import _codec, _wire, hosting
from registry._cache import Cache
from registry._joining import Joining
from registry._leaves import Parts
from registry._loops import would_be_stopped
from registry._pending import AgainError, Guards, Local, Mark, Pending, each_thread, thread_name
from registry._transport import DeadlinePassed, Dialed, Greeting, Transport, is_gone, left
from registry._wire import CALL, CANCELLED, CONTROL, ERROR, READ, REPLY, Frame, Kind
from registry.declarations import Interface
from registry.errors import (
    BlockingInLoop,
    CallTimeout,
    Closed,
    LockLost,
    NotShareable,
    OutcomeUnknown,
    RegistryError,
    RemoteError,
    ServerNotFound,
    StateLost,
)

SETTLE = 5.0  # seconds that a call past its deadline may take to learn its outcome
_NOTHING = msgspec.Raw(b"\x00")


class Link(Joining):
    """One process's session with one server.

    Args:
        connect: Makes a connection: ``connect(deadline, resume)``. With `resume` it must not start a server.
        address: The server's address, for people.
        timeout: Seconds that a call which should be instant may take, reconnects included.
        label: What the server calls this session, for people; empty lets it choose.
        code: The plugin modules of this client, with their versions.
    """

    def __init__(
        self,
        connect: Callable[[float, bool], Dialed],
        address: str,
        *,
        timeout: float | None = 30.0,
        label: str = "",
        code: dict[str, str] | None = None,
    ) -> None:
        self._connect_now = connect
        self.address = address
        self.timeout = timeout
        self.users = 0
        self._label = label
        self._code = dict(code or {})
        self.greeting: Greeting | None = None
        self.closed = False
        self.listeners: dict[int, Callable[[str], object]] = {}
        self.caches: list[Cache] = []  # of its clients
        self._is_last = False
        self.reset()

    def reset(self) -> None:
        """Begin a session that nobody knows yet; the state of a new link, and of a forked child's."""
        super().reset()
        self.pid = os.getpid()
        self._taken: list[Pending] = []
        self._later: list[tuple[Pending, bytes]] = []
        self._definitions: dict[tuple[str, str, bytes], int] = {}
        self._rows: dict[int, tuple[str, str, bytes]] = {}
        self._heads: dict[tuple[int, str], bytes] = {}  # of calls without fields, by handle and method
        self._tell: Exception | None = None
        # Of a loss that calls under way are to be told of, until one of them is.
        self._untold: Exception | None = None
        self._broke = 0
        self._why = ""
        self._new_session()

    def _make_locks(self) -> None:
        super()._make_locks()
        self._threads = threading.local  # what they were made for
        self._relying: WeakValueDictionary[int, Guards] = WeakValueDictionary()
        self._each = each_thread(self._relying)

    def _patched(self) -> None:
        """Go on with greenlets for threads, since gevent has replaced these: same session, and same owner here."""
        before, transport = self.local, self._transport
        self._make_locks()
        self._each.mine = before
        self._relying[-1] = before.guards
        self.kept = None  # by a thread; the next connection has a greenlet see to it
        if transport is not None:
            self._break(transport)  # a socket of the kernel's would keep all greenlets waiting

    def _new_session(self) -> None:
        super()._new_session()
        self.key = os.urandom(16)
        self.same_user = False
        self.lease = 0.0  # seconds for which the server believes it without a sign of life; 0.0 needs none
        self._known = False
        self._life = b""  # of the server that it was attached to last
        self._owners = 0
        self._told = False
        self._defined: dict[int, None] = {}  # the handles that the server knows, those told last at the end
        # The grants of exclusive locks that this process has, by type and name: numbers, and the threads that got them.
        self.given: dict[tuple[str, str], list[tuple[int, int]]] = {}

    # -- what clients and proxies use

    @property
    def label(self) -> str:
        """The server, for errors."""
        return self.greeting.label if self.greeting is not None else self.address

    @property
    def table(self) -> Mapping[str, Interface]:
        """The shared types of the server; known once connected."""
        return self.greeting.table if self.greeting is not None else {}

    def ensure(self, timeout: float | None = None) -> Greeting:
        """Connect unless connected.

        Raises:
            ServerNotFound: No server, or none of ours, answers by the deadline.
            AccessDenied: The keys differ.
        """
        self._check_usable()
        if self._transport is None or self.greeting is None:
            deadline = self._deadline(timeout)
            try:
                if not self._reading.acquire(True, left(deadline)):
                    raise CallTimeout("connect", self.timeout or 0.0, server=self.label)
                while self._transport is None:  # also where it was made, and has broken at once
                    self._connect(deadline)
            finally:
                self._stop_leading()
        if self.greeting is None:
            raise ServerNotFound(self.address, "it went away while connecting")
        return self.greeting

    def handle(self, typeid: str, name: str, definition: bytes) -> int:
        """Return the number by which calls name an object; it is told to the server at its first use."""
        key = (typeid, name, definition)
        handle = self._definitions.get(key)
        if handle is None:
            with self._sending:
                handle = self._definitions.get(key) or len(self._definitions) + 1
                # In this order: where a signal handler raises in between, the number is simply drawn again.
                self._rows[handle] = key
                self._definitions[key] = handle
        return handle

    def call(
        self,
        handle: int,
        method: str,
        arguments: bytes | Parts,
        *,
        about: Any,
        readonly: bool = False,
        waiting: bool = False,
        timeout: float | None = None,
        kind: int = CALL,
    ) -> Frame:
        """Make a call and wait for its reply.

        Args:
            handle: From `handle`.
            method: A name that the object exposes.
            arguments: ``[args, kwargs]``, encoded.
            about: The object, for errors; anything with a `title`.
            readonly: The method has no effect, so that it may simply be asked again.
            waiting: The method may wait; without `timeout` there is then no deadline.
            timeout: Seconds; None takes the default.
            kind: READ where the reply may be cached.

        Returns:
            A frame of kind REPLY, SHOWN or ERROR.

        Raises:
            CallTimeout: The deadline came, and the call had no effect.
            OutcomeUnknown: The deadline came, and the server could not be asked.
            ServerNotFound: No server could be reached, and the call was not sent.
            StateLost: The server has lost this session's earlier changes.
            LockLost: A lock that this call relies on went with the server's life.
        """
        seconds = timeout if waiting or timeout is not None else self.timeout
        slot = Pending(kind, handle, method, arguments, about, readonly, waiting, seconds=seconds)
        return self._run(slot, None if seconds is None else monotonic() + seconds)

    def prepare(
        self, handle: int, method: str, arguments: bytes | Parts, *, about: Any, timeout: float | None
    ) -> Pending:
        """Return a call that gives something back, for `finish` or `insist`. Nothing is sent yet."""
        seconds = self.timeout if timeout is None else timeout
        return Pending(CALL, handle, method, arguments, about, False, insisting=True, seconds=seconds)

    def finish(self, slot: Pending) -> Frame:
        """Make a prepared call and wait for its reply. Where that is interrupted, it is made all the same.

        Raises:
            OutcomeUnknown: There was no reply in time; the call goes on.
            StateLost, LockLost: As `call`.
        """
        return self._run(slot, None if slot.seconds is None else monotonic() + slot.seconds)

    def insist(self, slot: Pending, session: bytes) -> None:
        """Have a prepared call made in a session, once, if it is not under way; nobody waits for its reply.

        Does not block for more than a write. May be called by destructors, wherever they run.
        """
        if self._sending._is_owned():
            self._later.append((slot, session))  # this thread is writing; its next call begins with it
            return
        with self._sending:
            self._register_later(slot, session)

    def give_back(self, slot: Pending, session: bytes, mark: Mark) -> bool:
        """Have a prepared call made without waiting for its reply, where it can hardly fail; tell whether that is so.

        It gives back what this process has by its own record (`given`), and goes before whatever this process calls
        next. Where there may be news, it is to wait: a session on a lease learns by it that its grant was lost, and one
        that has something to read may be told so. What is lost after that look was not relied on any more.

        Args:
            slot: From `prepare`.
            session: The one that has what is given back.
            mark: The grant.
        """
        self._check_usable()
        try:
            with self._sending:
                transport = self._transport
                if self.lease or transport is None or self._tell is not None or self.key is not session:
                    return False
                if self.greeting is None or self.greeting.durable:
                    return False  # what has been given back is to be so after the server's death, too
                if not self.gave_back(mark) or mark.number in self.lost or not transport.is_quiet():
                    return False
                self._register_later(slot, session)
                return True
        except BaseException as error:
            if slot.seq:
                self._give_up(slot, error)  # it stands in the row, and may not have been written
            raise

    def gave_back(self, mark: Mark) -> bool:
        """Take note that this process no longer has a grant, and tell whether it had it."""
        rows = self.given.get((mark.typeid, mark.name), [])
        try:
            last = rows[-1]
            if last[0] != mark.number:
                return False
            rows.remove(last)
            return True
        except (IndexError, ValueError):
            return False  # there is none, or another thread was quicker

    def ask(self, verb: str, *args: object, **kwargs: object) -> Any:
        """Ask the server itself something, and return its answer."""
        body = _codec.encode([list(args), kwargs])
        slot = Pending(Kind.CONTROL, 0, verb, body, None, True, seconds=self.timeout)
        return self.result(self._run(slot, self._deadline(None)))

    def result(
        self,
        frame: Frame,
        incoming: Callable[[Any], object] | None = None,
        about: Any = None,
        method: str = "",
        rows: Callable[[list[Any]], list[Any]] | None = None,
    ) -> Any:
        """Return what a reply says, or raise it; `about` and `method` are what an error inside the object names."""
        body = frame.body
        try:
            value = (
                _codec.decode(body) if incoming is None else _codec.decode_result(body, incoming=incoming, rows=rows)
            )
        except _codec.CodecError as error:
            raise self.unreadable(error) from error
        if frame.kind == ERROR:
            if isinstance(value, RegistryError):
                if isinstance(value, StateLost):
                    self._told = True
                if isinstance(value, RemoteError) and not value.call:
                    value = RemoteError(f"{about.title}.{method}()" if about else method, *value.args[1:])
                raise value.located(self.label)
            if isinstance(value, Exception):
                raise value
            raise RegistryError(f"server {self.label} sent an error that is none")
        return value

    def unreadable(self, error: Exception) -> RegistryError:
        """Return the error that tells of a reply which is none."""
        return RegistryError(f"server {self.label} sent a reply that cannot be read: {error}")

    def take_back(self) -> None:
        """Have the server undo what the last call of this thread gave, since the caller never got it."""
        slot = self.local.taking
        self.given.clear()  # one of these may be what nobody got
        if slot is not None and not slot.delivered and self._pending.get(slot.seq) is slot:
            self._abandon(slot)

    def owner_ended(self, owner: int) -> None:
        """Tell the server that a task of this session has ended; nothing waits for it."""
        with self._sending:
            if self._transport is not None:
                self._send_frame(Kind.OWNER_ENDED, 0, _wire.encode(owner))

    @property
    def local(self) -> Local:
        """What this thread has of the session."""
        return self._each.mine

    @property
    def guards(self) -> list[Mark]:
        """The grants that the calls of this thread rely on, innermost last."""
        return self._each.mine.guards

    def rely(self, mark: Mark) -> None:
        """Have the calls of this thread rely on a grant; its reads are asked then, since they may be refused."""
        self.local.guards.append(mark)
        words = self.words
        if words is not None:
            words.hold()

    def _is_relying(self) -> bool:
        return any(guards() for guards in self._relying.valuerefs())

    def _forget(self, slot: Pending) -> None:
        """Have nothing cached answer that was read before a call which nobody waits for: what follows it is asked."""
        about = slot.about
        if about is not None:
            for cache in self.caches:
                cache.forget(about.typeid, about.name)

    def close(self) -> None:
        """Say goodbye: the session ends, and what it held is freed at once. Calls under way get `Closed`."""
        if self.closed:
            return
        self.closed = True
        if self.pid != os.getpid():
            return
        with self._sending:
            for slot in list(self._pending.values()):
                slot.failure = Closed(f"the client of {self.label}", "connect again")
                self._wake(slot)
            self._note("")
            self._drop_words()
            transport, self._transport = self._transport, None
            if transport is not None:
                self._say_goodbye(transport)
                transport.close()

    def last_words(self, patience: float) -> None:
        """Say goodbye because the interpreter ends. Daemon threads end with it, and are told nothing any more.

        Args:
            patience: Seconds to wait for a thread that is sending; after that the end itself has to tell.
        """
        if self.closed or self.pid != os.getpid():
            return
        self.closed = self._is_last = True
        if not self._sending.acquire(True, patience):
            return
        transport, self._transport = self._transport, None
        if transport is not None:
            self._say_goodbye(transport)
            if self._reading.acquire(False):  # else the end is for the one who reads
                transport.close()
        self._sending.release()

    def _say_goodbye(self, transport: Transport) -> None:
        """Tell the server that the session ends, and what has arrived; `_sending` is held."""
        try:
            self._sweep()
            received = self._mark()
            above = [seq for seq in self._above if seq > received]
            goodbye = _wire.pack(
                Kind.GOODBYE,
                _wire.encode(above) if above else b"",
                generation=self._generation,
                received=received,
            )
            transport.send(goodbye)
        except OSError:
            pass  # a server that is gone has freed everything

    def drop_inherited(self) -> None:
        """In a forked child: let go of the parent's connection and begin a session of one's own."""
        transport, words = self._transport, self.words
        if transport is not None:
            transport.drop()
        if words is not None:
            words.drop_inherited()
        # A signal handler or a greenlet may have forked inside of a call, which is the parent's to finish.
        for slot in self._pending.values():
            slot.failure = OutcomeUnknown(slot.title, "it was made by the process that this one was forked from")
            self._wake(slot)
        self.reset()

    # -- one call

    def _check_open(self) -> None:
        if self.closed:
            if self._is_last and threading.current_thread().daemon:
                threading.Event().wait()  # for the end of the interpreter
            raise Closed(f"the client of {self.address}", "connect again")

    def _check_usable(self) -> None:
        if self.closed:
            self._check_open()
        if self._threads is not threading.local:
            self._patched()
        if self._sending._is_owned():
            raise RuntimeError(
                f"a call to {self.address} within another that is being written, by a signal handler or a destructor; "
                "have the handler note the signal, and make the call outside"
            )
        step = hosting._current.get()
        if step is not None and self.greeting is not None and self.greeting.pid == os.getpid():
            raise RuntimeError(
                f"a hosted object called its own server {self.label}: this call would wait for itself; "
                "return what is needed instead, or declare the object threaded"
            )

    def check_may_wait(
        self, about: Any, interface: Interface, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Refuse a call of a method that may wait where an event loop would wait with it.

        Raises:
            BlockingInLoop: One runs in this thread.
        """
        if would_be_stopped(interface, method, args, kwargs):
            raise BlockingInLoop(f"{about.title}.{method}()")

    def _deadline(self, timeout: float | None) -> float | None:
        seconds = self.timeout if timeout is None else timeout
        return None if seconds is None else monotonic() + seconds

    def _run(self, slot: Pending, deadline: float | None) -> Frame:
        self._check_usable()
        if type(slot.arguments) is not bytes or len(slot.arguments) > _wire.SMALL:
            self._check_size(slot)
        local = self._each.mine
        if local.session != self.key:
            self._enter_session(local)
        tell = self._tell
        if tell is not None:
            self._tell = None
            raise tell
        taking = local.taking
        if taking is not None:
            local.taking = None
            taking.delivered = True
        thread = thread_name() if slot.waiting else ""
        try:
            with self._sending:
                if self._taken:
                    self._sweep()
                if self.key is not local.session:
                    # It has just been lost, by whoever reads.
                    raise StateLost("the session has ended", self.label) if slot.insisting else AgainError
                if self._later:
                    self._send_later()
                if local.owner != _wire.DEFAULT_OWNER or thread or local.guards or self._above:
                    self._add_fields(slot, local, thread)
                self._register(slot)
            try:
                self._await(slot, deadline)
                if slot.reply is not None and slot.reply.flags:
                    self._open_parts(slot, deadline)
            except DeadlinePassed:
                if slot.failure is None:
                    self._settle(slot)
            except ServerNotFound as error:
                if slot.failure is None:
                    if slot.sent and not slot.readonly:  # on a connection before
                        raise OutcomeUnknown(slot.title, str(error.reason), self.label) from error
                    raise
            frame = slot.reply
            if frame is None:
                raise slot.failure or RegistryError("a call ended without a reply")
            if slot.waiting and frame.kind == REPLY:
                local.taking = slot
                self._taken.append(slot)
                return frame
            seq = slot.seq
            # In this order, which is the other one than that in which `_lose` replaces them.
            above, pending = self._above, self._pending
            if pending.get(seq) is slot:  # else its session was lost meanwhile, though not its reply
                if len(pending) > 1 or not slot.readonly:
                    self._note_arrival(slot, frame, above)
                # A statement and not a call: nothing can raise between it and the return.
                del pending[seq]
            if frame.kind == CANCELLED:
                raise CallTimeout(slot.title, slot.seconds, server=self.label)
            return frame
        except AgainError:
            return self._run(slot.again(), deadline)
        except BaseException as error:
            self._give_up(slot, error)
            raise

    def _check_size(self, slot: Pending) -> None:
        """Refuse a call whose arguments the server would refuse; nothing is sent of them.

        Raises:
            NotShareable: They are larger than it takes.
        """
        arguments = slot.arguments
        parts = (arguments.head, *arguments.buffers) if isinstance(arguments, Parts) else (arguments,)
        length = sum(map(len, parts))
        most = self.greeting.limits["arguments"] if self.greeting is not None else _wire.MAX_VALUE
        if length > most:
            raise NotShareable(
                f"the arguments of {slot.title}",
                f"they have {length} bytes, and server {self.label} takes {most} in one call, its limit 'arguments'. "
                "Put them in parts, or serve with --limit arguments=SIZE",
            )

    def _register(self, slot: Pending) -> None:
        """Give a call its number and write it, if there is a connection; `_sending` is held."""
        seq = self._next
        # No calls in here, so that a signal handler raises before or behind it.
        self._next = seq + 1
        self._pending[seq] = slot
        slot.seq = seq
        if self._transport is not None:
            self._send(slot)

    def _register_later(self, slot: Pending, session: bytes) -> None:
        if self.key is session and not (self.closed or slot.seq):
            slot.unattended = True
            self._register(slot)
            self._forget(slot)

    def _send_later(self) -> None:
        while self._later:
            self._register_later(*self._later.pop())

    def _sweep(self) -> None:
        """Acknowledge what has reached its caller; `_sending` is held."""
        for slot in self._taken[:]:
            there = self._pending.get(slot.seq) is slot and not slot.abandoned
            if there and not slot.delivered:
                continue
            if there:
                if self._mark() != slot.seq - 1:
                    self._above.append(slot.seq)
                    self._unlogged[slot.seq] = 0
                self._acknowledged = max(self._acknowledged, slot.seq)
                if self._unlogged:
                    self._note_logged(slot)
                del self._pending[slot.seq]
            self._taken.remove(slot)

    def _enter_session(self, local: Local) -> None:
        """Give this thread its number in the present session. What it relied on in a lost one is lost."""
        if local.guards and local.session:  # a thread may begin with the guard of a grant that it was given
            self._tell = None  # this says it
            lost = local.guards[-1]
            reason = self._why or "the server that granted it is gone"
            raise LockLost(f"{lost.typeid}:{lost.name}", reason, self.label)
        with self._sending:
            self._owners += 1
            local.session, local.owner = self.key, self._owners

    def _add_fields(self, slot: Pending, local: Local, thread: str) -> None:
        if slot.kind == Kind.CONTROL:
            return  # it has none
        fields: dict[int, msgspec.Raw] = {}
        if thread:
            fields[_wire.THREAD] = msgspec.Raw(_wire.encode(thread))
        if local.owner != _wire.DEFAULT_OWNER:
            fields[_wire.OWNER] = msgspec.Raw(_wire.encode(local.owner))
        if local.guards and (slot.relying or not slot.insisting):  # what is given back relies on nothing
            fields[_wire.GRANTS] = msgspec.Raw(_wire.encode(local.guards))
        if self._above:
            above, self._above = self._above, []
            mark = self._mark()
            told = [seq for seq in above if seq > mark]
            if told:
                fields[_wire.RECEIVED_SET] = msgspec.Raw(_wire.encode(told))
                for seq in self._unlogged.keys() & told:
                    self._unlogged[seq] = self._next
        slot.fields = fields or None

    def _send(self, slot: Pending, remaining: float | None = None) -> None:
        """Write a call to the present connection; `_sending` is held."""
        arguments = slot.arguments
        body: bytes | list[_wire.Buffer]
        is_told = False
        if slot.kind == CONTROL:
            body = _wire.encode(_wire.ControlBody(slot.method, msgspec.Raw(arguments)))  # type: ignore[arg-type]
        elif slot.fields is None and remaining is None and type(arguments) is bytes and slot.handle in self._defined:
            # As most calls are.
            head = self._heads.get((slot.handle, slot.method)) or self._head(slot)
            body = head + arguments if len(arguments) <= _wire.SMALL else [head, arguments]
        else:
            fields = slot.fields
            is_told = slot.handle not in self._defined or remaining is not None
            if is_told:
                fields = dict(fields or {})
                if remaining is not None:
                    fields[_wire.REMAINING] = msgspec.Raw(_wire.encode(max(0.0, remaining)))
                typeid, name, definition = self._rows[slot.handle]
                definition_field = _wire.encode([typeid, name, msgspec.Raw(definition)])
                fields[_wire.DEFINITION] = msgspec.Raw(definition_field)
            head, parts = (arguments.head, arguments.buffers) if isinstance(arguments, Parts) else (arguments, ())
            call = _wire.CallBody(slot.handle, slot.method, msgspec.Raw(head), fields)
            body = _wire.call_pieces(call, list(map(self._item, parts))) if parts else _wire.encode(call)
        before, slot.sent = slot.sent, True
        kind = CALL if slot.kind == READ and self.words is None else slot.kind
        if not self._send_frame(kind, slot.seq, body):
            slot.sent = before  # what is not whole is not run
        elif is_told:
            self._note_told(slot.handle)

    def _note_told(self, handle: int) -> None:
        """Note that the server knows what a handle stands for. Of too many it forgets what it was told first."""
        defined = self._defined
        defined.pop(handle, None)
        defined[handle] = None
        # Some fewer than it keeps: where a signal handler has raised before this, it knows one more than we do.
        if self.greeting is not None and len(defined) > self.greeting.limits["handles"] * 7 // 8:
            del defined[next(iter(defined))]

    def _head(self, slot: Pending) -> bytes:
        """Return how the body of such a call begins; its arguments are the rest of it."""
        whole = _wire.encode((slot.handle, slot.method, _NOTHING))
        head = self._heads[slot.handle, slot.method] = whole[: -len(_NOTHING)]
        return head

    # -- giving up

    def _settle(self, slot: Pending) -> None:
        """Past the deadline: have the call undone, or learn its reply. Returns with the reply in place."""
        seconds = slot.seconds
        if slot.insisting:
            raise OutcomeUnknown(slot.title, "there was no answer in time; it takes effect once it arrives", self.label)
        with self._sending:  # or else a new connection might send it meanwhile
            if slot.failure is not None:
                return  # its session was lost in that moment, and this call may be the one that is to say so
            if slot.kind == Kind.CONTROL or not slot.sent:
                slot.failure = CallTimeout(slot.title, seconds, server=self.label)
                return
            self._send_cancel(slot, undo=False)
        try:
            limit = monotonic() + SETTLE
            self._await(slot, limit)
            self._open_parts(slot, limit)
        except (DeadlinePassed, ServerNotFound):
            if slot.readonly:
                raise CallTimeout(slot.title, seconds, "it has no effect in any case", self.label) from None
            raise OutcomeUnknown(slot.title, "the server could not be asked in time", self.label) from None

    def _send_cancel(self, slot: Pending, *, undo: bool) -> None:
        slot.settling = True
        if self._send_frame(Kind.CANCEL, slot.seq, _wire.encode(_wire.CancelBody(undo))):
            slot.asked = self._generation

    def _give_up(self, slot: Pending, error: BaseException) -> None:
        """The caller leaves without its reply. Make sure that the call is settled, and that others have a reader."""
        try:
            try:
                open_still = self._withdraw(slot, error)
            except BaseException as raised:
                # A signal handler has raised while this waited for another thread to write, or in the write.
                self._withdraw(slot, raised)
                raise
            if open_still and not isinstance(error, RegistryError):
                self._reconnect()
        finally:
            self._stop_leading()

    def _withdraw(self, slot: Pending, error: BaseException) -> bool:
        """Take a call whose caller leaves out of the row, or have it settled; tell whether it is there still."""
        slot.parked = False  # nobody is to be woken to read who has left
        answered = slot.reply is not None and slot.reply.kind != Kind.REPLY
        with self._sending:  # or else a new connection might send it meanwhile
            if isinstance(slot.failure, RegistryError) and self._untold is not None:
                if error is not slot.failure:  # interrupted before it was told: the next call is
                    self._tell = self._untold
                self._untold = None
            if self._pending.get(slot.seq) is not slot:
                return False
            if slot.insisting and slot.failure is None:
                self._forget(slot)
                slot.unattended = True  # before a look at the reply: whoever brings that looks in the other order
                self._dismiss(slot)
                if slot.reply is None and self._transport is not None:
                    self._send(slot)  # perhaps once more, which does no harm
            elif error is slot.failure or not slot.sent or slot.kind == Kind.CONTROL or answered:
                self._tell_again(slot)
                del self._pending[slot.seq]
                return False
            else:
                self._tell_again(slot)
                self._undo(slot)
            return True

    def _tell_again(self, slot: Pending) -> None:
        """Have another call tell which replies are there, since this one, which was to tell it, may never arrive."""
        told = slot.fields.pop(_wire.RECEIVED_SET, None) if slot.fields is not None else None
        if told is not None:
            again = _wire.decode_sequences(told)
            self._above += again
            for seq in self._unlogged.keys() & again:
                self._unlogged[seq] = 0

    def _abandon(self, slot: Pending) -> None:
        """Have a call undone that nobody waits for any more."""
        self._undo(slot)
        try:
            self._reconnect()
        finally:
            self._stop_leading()

    def _undo(self, slot: Pending) -> None:
        with self._sending:
            if self._pending.get(slot.seq) is not slot:
                return  # what its session held is lost, and the next one gives its number to another call
            slot.asked = 0
            slot.parked = False  # nobody is to be woken to read who has left
            slot.abandoned = True
            slot.reply = None
            self._send_cancel(slot, undo=True)
            self._forget(slot)

    def _reconnect(self) -> None:
        """Where the connection is broken, make another: what nobody waits for goes out with it.

        If somebody else reads, they make it; if nobody can, there is nothing to settle.
        """
        try:
            if self._transport is None and self._reading.acquire(False):
                self._connect(monotonic() + SETTLE)
        except (RegistryError, OSError) as error:
            if not (isinstance(error, RegistryError) or is_gone(error)):
                raise

    def _look_after(self, transport: Transport | None = None) -> None:
        from registry import _keeper

        _keeper.keep(self, transport)
