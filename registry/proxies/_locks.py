"""Locks and their kin: what is held by grants, works in ``with``, and decorates functions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from time import monotonic
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from weakref import ref

from registry._leaves import Grant
from registry.errors import CallTimeout, LockLost, NoSuchObject, OutcomeUnknown, RegistryError, StateLost
from registry.proxies._base import Proxy, Remote, taking
from registry.proxies._blocks import Hold, Leaving, leaving, opening

if TYPE_CHECKING:
    from types import TracebackType

P = ParamSpec("P")
R = TypeVar("R")


class Bond:
    """Tie a grant to the lock that gave it, in the session that got it.

    Args:
        remote: The lock.
        method: The method that gave it.
        before: The arguments of ``release`` that stand before the number of the grant.
    """

    __slots__ = ("_before", "_holds", "_method", "_pid", "_remote", "_session", "opening")

    def __init__(self, remote: Remote, method: str, before: tuple[int, ...] = ()) -> None:
        link = remote.home.link()
        self._remote = remote
        self._method = method
        self._before = before
        self._session = link.key
        self._pid = link.pid
        self._holds: list[Hold] = []  # of the blocks that were entered with the grant
        self.opening: ref[Leaving] | None = None

    def release(self, grant: Grant) -> None:
        remote = self._remote
        link = remote.home.link()
        try:
            if link.key is self._session:
                _release(remote, (*self._before, grant.number))
                return
        except NoSuchObject as error:
            raise LockLost(remote.title, error.reason, link.label) from None
        except (OutcomeUnknown, StateLost):
            if link.key is self._session:
                raise
        raise LockLost(remote.title, "the session that held it has ended", link.label)

    def exit(self, grant: Grant) -> Leaving:
        made = Leaving(grant, self._leave)
        self.opening = ref(made)
        return made

    def enter(self, grant: Grant) -> Grant:
        block = opening(self)
        remote = self._remote
        if not grant:
            raise CallTimeout(
                f"{remote.title}.{self._method}()", None, _held_by(grant.holder), remote.home.link().label
            )
        guards = remote.home.link().guards
        depth = len(guards)
        hold = None
        try:
            # From here to the end of the block the calls of this thread carry the grant.
            hold = Hold(remote, grant.number, "release", *self._before, grant.number)
            hold.push(self._holds, grant)
            if block is not None:
                block.hold = hold
            return grant
        except BaseException:
            # Interrupted on the way in: nobody else would give it back. A hold that was half made has left its mark.
            (hold or Hold(remote, grant.number, "release", *self._before, grant.number)).forsake()
            del guards[depth:]
            raise

    def _leave(
        self,
        grant: Grant,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        hold: Hold | None = None,
    ) -> None:
        if self._remote.home.link().pid != self._pid:
            return  # a forked child owns nothing of its parent's
        if hold is None and self._holds:
            hold = self._holds[-1]
        try:
            if hold is None:
                self.release(grant)  # it was not entered, or it has been left before
            else:
                hold.finish()
        except RegistryError:
            # The body's own error tells more than that its lock was lost meanwhile.
            if error is None:
                raise

    @contextmanager
    def guard(self, grant: Grant) -> Iterator[Grant]:
        link = self._remote.home.link()
        if link.key is not self._session:
            raise LockLost(self._remote.title, "the session that held it has ended", link.label)
        mark = self._remote.mark(grant.number)
        link.rely(mark)
        try:
            yield grant
        finally:
            self._remote.home.link().guards.remove(mark)


def _release(remote: Remote, arguments: tuple[int, ...]) -> None:
    """Give a grant back, without waiting for the reply where this process is known to have it."""
    link, mark = remote.home.link(), remote.mark(arguments[-1])
    if not remote.give_back(remote.prepare("release", arguments), link.key, mark):
        link.gave_back(mark)
        remote.invoke("release", arguments)


def _held_by(holder: str) -> str:
    return f"it is held by {holder}" if holder else "nobody has released it"


class GrantingShape(Proxy):
    """What is held by grants: always true, and each `Grant` can be entered and released by itself."""

    __slots__ = ()
    _before: tuple[int, ...] = ()

    def _call(self, method: str, /, *args: object, **kwargs: object) -> Any:
        value = super()._call(method, *args, **kwargs)
        if type(value) is Grant:
            value._bond = Bond(self._remote, method, self._before)
        return value

    def __bool__(self) -> bool:
        return True


class LockShape(GrantingShape):
    """A lock: `acquire` gives a `Grant`, ``with`` takes and releases one, and so does a call of what it decorates."""

    __slots__ = ()

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        return locking(self, function)

    def _call(self, method: str, /, *args: object, **kwargs: object) -> Any:
        value = super()._call(method, *args, **kwargs)
        if type(value) is Grant and value and self._interface.shape == "lock":
            remote = self._remote
            link = remote.home.link()
            rows = link.given.setdefault((remote.typeid, remote.name), [])
            if rows and rows[-1][0] != value.number:
                rows.clear()  # it was lost
            rows.append((value.number, link.local.owner))
        return value

    def release(self, *args: Any, **kwargs: Any) -> None:
        """Give back what this process, or this thread, has of it."""
        remote = self._remote
        link = remote.home.link()
        key = (remote.typeid, remote.name)
        last = link.given.get(key, [])[-1:]
        if args or kwargs or not last or last[0][1] != link.local.owner:
            link.given.pop(key, None)  # which of them goes back is the server's to say
            self._call("release", *args, **kwargs)
        else:
            _release(remote, (last[0][0],))

    def __enter__(self) -> Grant:
        here = self._here()
        block = opening(here)
        link = self._remote.home.link()
        local = link.local
        guards = link.guards
        depth, height = len(guards), len(here.holds)
        try:
            grant: Grant = self._call("acquire")
            hold = Hold(self._remote, grant.number, "release", *self._before, grant.number)
            hold.push(here.holds, grant)
            if block is not None:
                block.hold = hold
            taking = local.taking
            if taking is not None:
                taking.delivered = True
            return grant
        except BaseException:
            # Interrupted on the way in, or refused: the block is not entered, and nobody would ever release.
            if block is not None:
                block.hold = None
            del guards[depth:], here.holds[height:]
            link.take_back()
            raise

    @leaving
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        hold: Hold | None = None,
    ) -> None:
        try:
            if hold is None:
                hold = self._here().holds[-1]
            hold.finish()
        except RegistryError:
            # The body's own error tells more than that its lock was lost meanwhile.
            if error is None:
                raise
        except BaseException:
            if hold is None:
                hold = self._here().holds[-1]
            hold.forsake()
            raise

    def _here(self) -> _Here:
        """Return what this thread has of the proxy."""
        local = self._local
        if type(local) is not threading.local:  # the first use, or the first since gevent has replaced threads
            before = getattr(local, "here", None)
            local = self._local = threading.local()
            if before is not None:
                local.here = before
        try:
            here: _Here = local.here
        except AttributeError:
            here = local.here = _Here()
        return here


class _Here:
    """What a thread has of a lock: the blocks that it is in, and the end of the one that it is about to enter."""

    def __init__(self) -> None:
        self.opening: ref[Leaving] | None = None
        self.holds: list[Hold] = []


class SemaphoreShape(LockShape):
    """A lock for several; what is released is counted, and one with a grant."""

    __slots__ = ()
    _before = (1,)


class ConditionShape(LockShape):
    """A lock in whose block one can wait; the predicate of `wait_for` never leaves this process."""

    __slots__ = ()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait to be notified, without the lock meanwhile; False if the time was up first."""
        return bool(self._wait(timeout, False))

    def wait_for(self, predicate: Callable[[], R], timeout: float | None = None) -> R:
        """Wait until `predicate()` is true, and return what it said last."""
        deadline = None if timeout is None else monotonic() + timeout
        passing = False
        result = predicate()
        while not result:
            notified = self._wait(None if deadline is None else max(0.0, deadline - monotonic()), passing)
            try:
                result = predicate()
            except BaseException:
                if notified:
                    # It was of no use here, and there may be somebody else whom it helps.
                    with suppress(RegistryError):
                        self._call("notify")
                raise
            if not notified:
                break
            passing = True
        return result

    @taking
    def _wait(self, timeout: float | None, passing: bool) -> bool:
        notification, grant = self._call("wait_for", timeout, passing)
        for hold in self._here().holds:
            held = hold.grant
            held.number, held.abandoned, held.holder = grant.number, grant.abandoned, grant.holder
            held.since = grant.since
        return bool(notification)


# Of code that runs after its call has returned: CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR of `inspect`.
_RUNS_LATER = 0x20 | 0x80 | 0x200


def locking(proxy: Any, function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function so that it runs in a block of the lock."""
    if not callable(function):
        raise TypeError(f"{proxy!r} decorates functions, not {function!r}")
    if getattr(getattr(function, "__code__", None), "co_flags", 0) & _RUNS_LATER:
        raise TypeError(
            f"{proxy!r} cannot decorate {function!r}, which runs after its call has returned; use it in a with "
            f"statement inside"
        )

    @wraps(function)
    def locked(*args: P.args, **kwargs: P.kwargs) -> R:
        with proxy:
            return function(*args, **kwargs)

    return locked
