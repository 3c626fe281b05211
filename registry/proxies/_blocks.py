"""The blocks of ``with`` statements: what is taken at their beginning goes back at their end, exactly once.

A signal handler may raise anywhere, also at the very entry of an ``__exit__``, before its first instruction, where no
``try`` of ours can stand. So three things work together:

* The call that gives something back is *prepared* when the block is entered. Sending it twice is impossible: it is one
  call with one number, whoever sends it (`Link.insist`).
* Python looks ``__exit__`` up before it enters a block, and lets go of what it found when the block has been left.
  `leaving` makes that an object of its own, a `Leaving`, which nobody else refers to. When it dies, what the block
  held has gone back, or it goes back then.
* What is only given back relies on no grant: that an outer lock was lost must not keep an inner one. Where that has an
  effect, as the end of an edit that writes, it does: then it goes back without.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import ref

from registry.errors import LockLost, NoSuchObject, OutcomeUnknown, StateLost

if TYPE_CHECKING:
    from types import TracebackType

    from registry._leaves import Grant
    from registry._link import Link
    from registry._pending import Pending
    from registry.proxies._base import Remote


class Hold:
    """What a block has taken, and how it goes back.

    While it is there, the calls of this thread carry the grant, if there is one, so that they fail once it is lost.

    Args:
        remote: What gave it.
        number: The number of the grant that the calls of this thread are to carry; None for none.
        method: What gives it back, called with `arguments`.
    """

    __slots__ = ("_guards", "_link", "_mark", "_pid", "_remote", "_session", "_slot", "_stack", "grant")
    grant: Grant

    def __init__(self, remote: Remote, number: int | None, method: str, *arguments: object) -> None:
        self._link: Link = remote.home.link()
        self._remote = remote
        self._session = self._link.key
        self._pid = self._link.pid
        self._slot: Pending = remote.prepare(method, arguments)
        self._stack: list[Hold] = []
        self._guards = self._link.guards
        self._mark = remote.mark(number or 0)
        if number is not None:
            self._link.rely(self._mark)

    def push(self, stack: list[Hold], grant: Grant) -> None:
        """Stand in a row of blocks, with what was granted, until this one has been left."""
        self.grant = grant
        self._stack = stack
        stack.append(self)

    @property
    def is_inherited(self) -> bool:
        """Tell whether the block was entered by a parent process; a forked child owns nothing of it."""
        return self._link.pid != self._pid

    @property
    def is_lost(self) -> bool:
        """Tell whether the session that took it is over."""
        return self._link.key is not self._session

    def finish(self, *arguments: object) -> None:
        """Give it back, with other arguments than prepared if any are given. Whatever interrupts this, it goes back.

        Raises:
            LockLost: It was lost meanwhile.
            OutcomeUnknown: The server could not be reached in time; it is given back once it can be.
        """
        try:
            if self.is_inherited:
                return
            if arguments:
                self._slot.arguments = self._remote.prepare(self._slot.method, arguments).arguments
                self._slot.relying = True
            self.relax()
            try:
                if not self.is_lost:
                    if arguments or not self._remote.give_back(self._slot, self._session, self._mark):
                        self._link.gave_back(self._mark)
                        self._remote.finish(self._slot)
                    return
            except NoSuchObject as error:
                raise LockLost(self._remote.title, error.reason, self._link.label) from None
            except (OutcomeUnknown, StateLost):
                if not self.is_lost:
                    raise
            raise LockLost(self._remote.title, "the session that held it has ended", self._link.label)
        finally:
            self.forsake()

    def forsake(self) -> None:
        """Have it given back without waiting, unless that is under way."""
        self.relax()
        if not self._slot.seq:
            self._link.gave_back(self._mark)
            self._link.insist(self._slot, self._session)

    def relax(self) -> None:
        """Have the calls of the thread rely on the grant no more."""
        with suppress(ValueError):  # it was done before
            self._guards.remove(self._mark)
        with suppress(ValueError):
            self._stack.remove(self)


class Left:
    """What a `Leaving` has become when its block has been left in order.

    It has no destructor: what a signal handler raises in one is lost.
    """

    __slots__ = ("__weakref__", "_function", "_instance", "hold")

    def __init__(self, instance: object, function: Callable[..., Any]) -> None:
        self._instance = instance
        self._function = function
        self.hold: Hold | None = None


class Leaving(Left):
    """The end of one block, looked up before its beginning; it lives on the stack of the ``with`` statement."""

    __slots__ = ()

    def __call__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Any:
        result = self._function(self._instance, kind, error, traceback, self.hold)
        self.__class__ = Left  # type: ignore[assignment]
        return result

    def __del__(self) -> None:
        hold = getattr(self, "hold", None)  # it may have been interrupted while it was made
        if hold is not None:
            hold.forsake()


class leaving:
    """Decorate an ``__exit__`` so that what its block holds goes back even if it is interrupted at its entry.

    What `_here` of the instance gives remembers the `Leaving` that was looked up last; ``__enter__`` takes it with
    `opening` and gives it the `Hold` of the block. Called through the class, as `contextlib.ExitStack` does, it is the
    plain function, which is given no `Hold`.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self._function
        made = Leaving(instance, self._function)
        instance._here().opening = ref(made)
        return made


def opening(here: Any) -> Leaving | None:
    """Return the `Leaving` of the block that is being entered, once; None where nobody has looked one up."""
    found: ref[Leaving] | None = getattr(here, "opening", None)
    here.opening = None
    return found() if found is not None else None
