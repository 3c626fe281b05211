"""The session of an event loop.

It is the session of `registry._link`, with everything that it keeps and every rule that it follows. What is its own:

* Who waits is a task. `_await` waits for the reply, in the task's greenlet (`_bridge`); the loop reads for all.
* A *thread* of that session is a task of this one, with an owner number and the grants that its calls rely on. Tasks
  are told apart by themselves, never by a context variable, which a task that was started would inherit.
* A connection is made by one task for all, as by the leader among threads. What may take long about that, to look names
  up or to start a server, a thread does, which ends with it (`_dial_aside`).
* Tasks are many. So that a session never has more under way than a server allows, they wait for room (`Lane`).

Everything happens in the thread of the loop. Only destructors may run elsewhere, and what they give back is handed over
to the loop.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import partial
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary, ref

from greenlet import getcurrent

from registry import _wire
from registry._keeper import ATTEMPT, Kept
from registry._link import Link
from registry._pending import Guards, Local, Pending
from registry._transport import DeadlinePassed, Dialed, Transport
from registry._wire import Frame
from registry.aio._bridge import Course, run, wait
from registry.aio._transport import LoopMemory, LoopSocket, Wake, for_loop
from registry.errors import CallTimeout

# Of the calls that a server allows a session. Those that wait leave room for those that end the waits of others.
MOST = _wire.IN_FLIGHT * 15 // 16
MOST_WAITS = _wire.IN_FLIGHT * 3 // 4


class Turn:
    """A lock between tasks, with what the client uses of `threading.RLock`.

    It is a greenlet's, since a task may be closed by another one, which then runs what is left of it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._owner: ref[Any] | None = None
        self._waiters: deque[Wake] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        deadline = None if timeout < 0 else monotonic() + timeout
        while self._owner is not None:
            if not blocking:
                return False
            wake = Wake(self._loop)
            self._waiters.append(wake)
            if not wake.wait(deadline):
                return False
        self._owner = ref(getcurrent())
        return True

    def release(self) -> None:
        self._owner = None
        while self._waiters:
            self._waiters.popleft().release()

    def _is_owned(self) -> bool:
        return self._owner is not None and self._owner() is getcurrent()


class EachTask:
    """What has a `Local` for each task, as `registry._pending.EachThread` has for each thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, everyone: Any) -> None:
        self._loop = loop
        self._everyone = everyone
        self._numbers = itertools.count()
        self._locals: WeakKeyDictionary[object, Local] = WeakKeyDictionary()

    @property
    def mine(self) -> Local:
        """What the task that runs has; code outside of a task has what the loop has."""
        course = getcurrent()
        if type(course) is Course:  # as nearly all of this is; it is one task's as long as it is one call's
            noted = course.note
            if noted is not None and noted[0] is self:
                return noted[1]  # type: ignore[no-any-return]
        who = asyncio.current_task(self._loop) or self._loop
        local = self._locals.get(who)
        if local is None:
            guards = self._everyone[next(self._numbers)] = Guards()
            local = self._locals[who] = Local(guards)
        if type(course) is Course:
            course.note = self, local
        return local

    @mine.setter
    def mine(self, local: Local) -> None:
        raise RuntimeError("gevent has replaced the threads of an event loop: patch before asyncio is used")


class Lane:
    """Calls that wait for room before they get their number, in order.

    Attributes:
        most: How many calls may be under way when another one of these begins.
        admitted: How many have been let in that have not begun yet.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.admitted = 0
        self.waiters: OrderedDict[Wake, None] = OrderedDict()


class LoopLink(Link):
    """One event loop's session with one server. Made in the loop."""

    def __init__(self, connect: Callable[[float, bool], Dialed], address: str, **options: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        # Tasks whose end is to be told, and in which session.
        self._awaited_ends: WeakKeyDictionary[asyncio.Task[Any], bytes] = WeakKeyDictionary()
        super().__init__(partial(_dial_aside, self.loop, connect), address, **options)
        self._ending = _until_the_loop_ends(self)
        try:
            self._ending.__anext__().send(None)
        except StopIteration:
            pass

    def _make_locks(self) -> None:
        super()._make_locks()
        self._reading = Turn(self.loop)
        self._each = EachTask(self.loop, self._relying)
        self._lanes = (Lane(MOST), Lane(MOST_WAITS))

    def _new_session(self) -> None:
        super()._new_session()
        # The owners of whose end the server may not have heard, each with the number of the call that came after it;
        # and those of them who are to be told on this connection, each before that call.
        self._ended: list[tuple[int, int]] = []
        self._untold_ends: list[tuple[int, int]] = []

    @property
    def is_elsewhere(self) -> bool:
        """Whether this code runs in another thread than the loop does."""
        return self.loop.is_running() and asyncio._get_running_loop() is not self.loop

    # -- connections

    def _pause(self, seconds: float) -> None:
        Wake(self.loop).wait(monotonic() + seconds)

    def _attach(self, dialed: Dialed, limit: float | None) -> None:
        self._untold_ends = self._ended.copy()
        super()._attach(dialed, limit)
        calls = dialed.greeting.limits["calls"]
        for lane, share in zip(self._lanes, (MOST, MOST_WAITS)):
            lane.most = calls * share // _wire.IN_FLIGHT
        transport = dialed.transport
        if self._transport is transport and isinstance(transport, LoopSocket | LoopMemory):
            self._tell_ends(self._next)
            transport.deliver_to(partial(self._arrived, transport))

    def _arrived(self, transport: Transport) -> None:
        """Read what there is, and hand it out."""
        if self._transport is transport:
            try:
                self._read(transport, 0.0)  # a deadline that has passed, so that it never waits
            except DeadlinePassed:
                pass  # there is only room to send again
            if self._ended and self._ended[0][0] <= self._acknowledged:
                self._ended = [entry for entry in self._ended if entry[0] > self._acknowledged]
            self._let_in()

    def _break(self, transport: Transport) -> None:
        super()._break(transport)
        self._promote()
        self._let_in()  # where room was kept from them by what that connection did not take

    def _promote(self) -> None:
        """Have one of those who wait make a connection, if there is none."""
        if self._transport is None and not self.closed:
            super()._promote()

    def _reconnect(self) -> None:
        """Where the connection is broken, have another made; nobody waits for it."""
        if self._transport is None and not (self.closed or self.loop.is_closed()):
            self._aside(run(self._reconnect_now))

    def _reconnect_now(self) -> None:
        try:
            super()._reconnect()
        finally:
            self._stop_leading()

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done by a task of its own."""
        task = self.loop.create_task(work, name=f"registry session with {self.address}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _look_after(self, transport: Transport | None = None) -> None:
        if self.kept is None:
            kept = LoopKept(self)
            kept.begin(transport)
            self._aside(kept.look_after())

    # -- calls

    def check_may_wait(self, *call: object) -> None:
        """Calls of a loop's session are awaited, and keep nobody waiting."""

    def _run(self, slot: Pending, deadline: float | None) -> Frame:
        try:
            if not slot.insisting:
                lane = self._lanes[slot.waiting and not self._each.mine.guards]
                if lane.waiters or self._room(lane) <= 0:
                    self._wait_for_room(lane, slot, deadline)
            return super()._run(slot, deadline)
        finally:
            self._let_in()

    def _room(self, lane: Lane) -> int:
        """Return how many calls of a lane may begin."""
        if self._transport is not None and getattr(self._transport, "is_full", False):
            return 0
        return lane.most - len(self._pending) - sum(each.admitted for each in self._lanes)

    def _wait_for_room(self, lane: Lane, slot: Pending, deadline: float | None) -> None:
        self._check_usable()
        wake = Wake(self.loop)
        lane.waiters[wake] = None
        try:
            if not wake.wait(deadline):
                raise CallTimeout(slot.title, slot.seconds, "too many calls were under way", self.label)
        finally:
            if wake in lane.waiters:
                del lane.waiters[wake]
            else:
                lane.admitted -= 1

    def _let_in(self) -> None:
        """Let in those for whom there is room by now; all, where they are to be told that there is none any more."""
        for lane in self._lanes:
            while lane.waiters and (self.closed or self._room(lane) > 0):
                wake, _ = lane.waiters.popitem(last=False)
                lane.admitted += 1
                wake.release()

    def close(self) -> None:
        super().close()
        self._let_in()

    def _await(self, slot: Pending, deadline: float | None) -> None:
        """Wait until the call has its reply or its failure; make a connection for all where there is none."""
        while slot.reply is None and slot.failure is None:
            if self._transport is None and self._reading.acquire(False):
                try:
                    self._connect(deadline)
                finally:
                    self._stop_leading()
                continue
            slot.wake = wake = Wake(self.loop)
            slot.parked = True
            try:
                if not wake.wait(deadline):
                    raise DeadlinePassed
            finally:
                slot.parked = False

    def insist(self, slot: Pending, session: bytes) -> None:
        if self.is_elsewhere:
            self.loop.call_soon_threadsafe(super().insist, slot, session)
        else:
            super().insist(slot, session)

    # -- the ends of tasks, and of the loop

    def tell_end_of_task(self) -> None:
        """Have the server told when the task that runs has ended, since it may hold something then."""
        task = asyncio.current_task(self.loop)
        local = self._each.mine
        if task is not None and local.session == self.key and self._awaited_ends.get(task) is not self.key:
            self._awaited_ends[task] = self.key
            task.add_done_callback(partial(self._task_ended, local.session, local.owner))

    def _task_ended(self, session: bytes, owner: int, task: object) -> None:
        if session == self.key and not self.closed:
            self.owner_ended(owner)

    def owner_ended(self, owner: int) -> None:
        self._ended.append((self._next, owner))
        if self._transport is not None:
            self._untold_ends.append((self._next, owner))
            self._tell_ends(self._next)

    def _send(self, slot: Pending, remaining: float | None = None) -> None:
        if self._untold_ends:
            self._tell_ends(slot.seq)
        transport = self._transport
        if isinstance(transport, LoopSocket):
            transport.is_eager = len(self._pending) == 1
        super()._send(slot, remaining)

    def _tell_ends(self, before: int) -> None:
        """Tell of the owners that ended before a call was made: what they did came before that, and what follows after.

        To be told twice does no harm, since their numbers are not used again.
        """
        while self._untold_ends and self._untold_ends[0][0] <= before:
            super().owner_ended(self._untold_ends.pop(0)[1])

    def last_words(self, patience: float) -> None:
        if self.is_elsewhere:
            said = threading.Event()
            self.loop.call_soon_threadsafe(self._say_last_words, said)
            said.wait(patience)
        else:
            super().last_words(patience)

    def _say_last_words(self, said: threading.Event) -> None:
        super().last_words(0.0)
        said.set()

    def drop_inherited(self) -> None:
        """In a forked child: let go of the parent's connection. The loop of the child begins a session of its own."""
        transport, words = self._transport, self.words
        self._transport = None
        self.closed = True
        if transport is not None:
            transport.drop()
        if words is not None:
            words.drop_inherited()


class LoopKept(Kept):
    """The session of a loop, looked after by a task of it, which also tells its listeners."""

    def __init__(self, link: LoopLink) -> None:
        super().__init__(link)
        self._loop = link.loop
        self._changed = Wake(link.loop)

    def wake(self) -> None:
        self._changed.release()

    async def look_after(self) -> None:
        """Do what is to be done, as long as there is a reason."""
        try:
            await run(self._turns)
        finally:
            if self.link.kept is self:
                self.link.kept = None

    def _turns(self) -> None:
        while self.is_wanted:
            self.take_turn(False, min(ATTEMPT, self.link.lease or ATTEMPT))
            self._changed.wait(monotonic() + self.pause())
            self._changed = Wake(self._loop)


async def _until_the_loop_ends(link: LoopLink) -> AsyncGenerator[None, None]:
    """Say goodbye when a loop is shut down in order: it closes the generators that began in it."""
    try:
        yield
    finally:
        link.close()


def _dial_aside(
    loop: asyncio.AbstractEventLoop, connect: Callable[[float, bool], Dialed], deadline: float, resume: bool
) -> Dialed:
    """Make a connection in a thread, and have the loop watch it. Where nobody waits for it any more, it is closed."""
    made: asyncio.Future[Dialed | BaseException] = loop.create_future()

    def deliver(result: Dialed | BaseException) -> None:
        if not made.done():
            made.set_result(result)
        elif isinstance(result, Dialed):
            result.transport.close()

    def dial() -> None:
        result: Dialed | BaseException
        try:
            result = connect(deadline, resume)
        except BaseException as error:  # noqa: BLE001 - it is raised in the task
            result = error
        try:
            loop.call_soon_threadsafe(deliver, result)
        except RuntimeError:  # the loop has been closed meanwhile
            if isinstance(result, Dialed):
                result.transport.close()

    threading.Thread(target=dial, name="registry connecting", daemon=True).start()
    try:
        wait(made)
    except BaseException:
        if made.done() and not made.cancelled():
            result = made.result()
            if isinstance(result, Dialed):
                result.transport.close()
        made.cancel()
        raise
    result = made.result()
    if isinstance(result, BaseException):
        raise result
    return Dialed(for_loop(loop, result.transport), result.greeting, result.leftover, result.same_user)
