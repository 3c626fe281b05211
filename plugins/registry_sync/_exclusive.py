"""What `lock`, `rlock` and `condition` have in common: a holder, a line of waiters, and the mark of a dead holder.

The mark says that a holder died, so that what it was changing may be half done. It is set by the death,
told by every grant from then on, and cleared by the clean release of a holder who was told; a grant that
was cancelled, or could not be delivered, or whose holder died too, leaves it. Since only a death sets it,
it is never set while somebody holds the lock without having been told.
"""

from __future__ import annotations

from math import inf

from registry.errors import LockLost, NotOwner
from registry.hosting import Caller, Grant, Holder, Owner, Waiter, Waiters, call

__all__ = ["Exclusive", "patience"]

NOBODY = Caller()


class Exclusive:
    """Be held by one owner at a time, first come, first served."""

    gives_back = ("release",)

    def __init__(self) -> None:
        self._holder: Owner | None = None
        self._caller = NOBODY
        self._taker: Owner | None = None  # the thread or task that took it, whoever may release it
        self._number = 0
        self._since = 0.0
        self._levels = 0
        self._abandoned = False
        self._died = ""
        self._waiters = Waiters()

    # -- what a kind of lock decides ---------------------------------------------------------------

    def _holder_for(self, owner: Owner) -> Owner:
        """Return who holds the lock when `owner` has acquired it."""
        raise NotImplementedError

    def _may_release(self, holder: Owner, number: int | None) -> bool:
        """Tell whether the call under way may release the lock of `holder`."""
        raise NotImplementedError

    # -- verbs -------------------------------------------------------------------------------------

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> Waiter | Grant:
        """Take the lock, or wait for it.

        Args:
            blocking: Whether to wait while it is held.
            timeout: How long to wait, in seconds. None, or -1 as in `threading`, waits.

        Returns:
            A grant: truthy if the lock was given, else falsy and naming the holder.

        Raises:
            ValueError: The timeout is negative, or given for a call that does not block.
            Deadlock: It would wait for ever, since whoever has the lock waits for something that the caller has.
                Never for a `lock`, which other threads of a process may release.
        """
        seconds = patience(blocking, timeout)
        if self._holder is None:
            step = call()
            return self._give(step.owner, step.caller)
        if seconds == 0:
            return self._refusal()
        return self._waiters.wait(seconds, otherwise=self._refusal())

    def release(self, number: int | None = None) -> None:
        """Give the lock to the next, or back.

        Args:
            number: The number of the grant to give back; None for that of the caller.

        Raises:
            NotOwner: The caller does not hold it, or not by this grant.
            LockLost: It was taken from the caller by force.
        """
        taken = call().taken() if number is None else ""
        if taken or self._holder is None or not self._may_release(self._holder, number):
            taken = taken or call().taken(number)
            raise LockLost(call().title, taken) if taken else NotOwner(call().title, self._who())
        self._levels -= 1
        if not self._levels:
            self._abandoned = False
            self._died = ""
            self._pass_on()

    def locked(self) -> bool:
        """Tell whether somebody holds it."""
        return self._holder is not None

    # -- what the engine calls ---------------------------------------------------------------------

    def owner_ended(self, owner: Owner) -> None:
        """Free the lock, with all its levels, of an owner that has ended; the next is told."""
        if self._holder is not None and owner.covers(self._holder):
            self._abandon()

    def take_away(self, number: int) -> None:
        """Free the lock, with all its levels, by force; the next is told."""
        if self.holds(number):
            self._abandon()

    def came_back(self, waiter: Waiter) -> None:
        """Give the lock to somebody who could not be reached when it was free."""
        if self._holder is None:
            self._pass_on()

    def take_back(self, value: object) -> bool:
        """Undo a grant that its caller never heard of."""
        if not isinstance(value, Grant) or not value or value.number != self._number:
            return False
        self._levels -= 1
        if not self._levels:
            self._pass_on()
        return True

    def blocked_by(self, waiter: Waiter) -> list[list[Owner]] | None:
        """Return who has to go on for a wait to end: whoever took the lock. Those in the line wait for the same."""
        return None if self._taker is None else [[self._taker]]

    def vacant(self) -> bool:
        """Tell whether the lock is as good as new."""
        return self._holder is None and not self._abandoned and not self._waiters

    def holds(self, number: int) -> bool:
        """Tell whether the grant of this number is valid."""
        return self._holder is not None and number == self._number

    def holders(self) -> list[Holder]:
        """Return who holds the lock."""
        return [] if self._holder is None else [Holder(self._holder, self._caller, self._since, self._number)]

    def statistics(self) -> dict[str, object]:
        """Return whether the last holder died, and who waits for the lock."""
        return {"abandoned": self._abandoned, "waiters": [waiter.row() for waiter in self._waiters]}

    # -- within ------------------------------------------------------------------------------------

    def _answer(self, waiter: Waiter) -> object:
        """Give the lock to a waiter, and return what its call returns."""
        return self._give(waiter.owner, waiter.caller)

    def _give(self, owner: Owner, caller: Caller) -> Grant:
        step = call()
        self._holder = self._holder_for(owner)
        self._caller = caller
        self._taker = owner
        self._number = step.token()
        self._since = step.now
        self._levels = 1
        return self._grant()

    def _grant(self) -> Grant:
        return Grant(self._number, self._abandoned, self._died if self._abandoned else self._who(), self._since)

    def _who(self) -> str:
        return str(self._caller) if self._holder is not None else ""

    def _refusal(self) -> Grant:
        return Grant(0, False, self._who(), self._since)

    def _abandon(self) -> None:
        """Pass on the lock of a holder that may have left a change half done."""
        self._abandoned = True
        self._died = str(self._caller)
        self._pass_on()

    def _pass_on(self) -> None:
        """Give the lock to whoever has waited longest and can be reached, or leave it to whoever comes."""
        self._levels = 0
        waiter = self._waiters.first
        if waiter is None:
            self._holder = None
            self._caller = NOBODY
            self._taker = None
            self._number = 0
            self._since = 0.0
            return
        self._waiters.wake(self._answer(waiter))
        # Whoever waits in vain is to be told who has it by then, not who had it when the wait began.
        refusal = self._refusal()
        for waiter in self._waiters:
            if waiter.deadline is not None:
                waiter.otherwise = refusal


def patience(blocking: bool, timeout: float | None) -> float | None:
    """Return for how many seconds to wait, None for ever, as `threading` reads the two arguments."""
    if timeout is None or timeout == -1:
        return None if blocking else 0.0
    if not blocking:
        raise ValueError("can't specify a timeout for a non-blocking call")
    if not timeout >= 0:  # so written because it is true of nan
        raise ValueError("timeout value must be a non-negative number")
    return None if timeout == inf else timeout
