"""What `semaphore` and `bounded_semaphore` have in common: permits, who has them, and a line of waiters."""

from __future__ import annotations

from collections import deque
from math import isfinite

from registry.errors import LockLost, NotOwner
from registry.hosting import Caller, Grant, Holder, Owner, Waiter, Waiters, at, call
from registry_sync._exclusive import patience

__all__ = ["Permits"]

# Who has a permit: the thread that acquired it, how people are told of it, since when, and when it expires.
_Permit = tuple[Owner, Caller, float, "float | None"]

# How many numbers of expired permits are known, to tell those who release one of them what has happened.
_REMEMBERED = 64


class Permits:
    """Let a number of callers in at a time, first come, first served.

    Args:
        value: How many permits there are to begin with.
    """

    # Between any two steps, where somebody waits who can be reached there is no permit left.

    gives_back = ("release",)

    def __init__(self, value: int = 1) -> None:
        if type(value) is not int or value < 0:
            raise ValueError(f"value must be an int and not negative, not {value!r}")
        self._initial = value
        self._value = value
        self._permits: dict[int, _Permit] = {}
        self._waiters = Waiters()
        # For how long each of those who wait wants its permit, by the number of the wait.
        self._terms: dict[int, float] = {}
        self._expired: deque[int] = deque(maxlen=_REMEMBERED)

    # -- what a kind of semaphore decides

    def _check_surplus(self, n: int) -> None:
        """Say what to do where the call under way returns `n` permits more than its process has."""
        raise NotImplementedError

    # -- verbs

    def acquire(
        self, blocking: bool = True, timeout: float | None = None, *, expiry: float | None = None
    ) -> Waiter | Grant:
        """Take a permit, or wait for one.

        Args:
            blocking: Whether to wait while there is none.
            timeout: How long to wait, in seconds. None, or -1 as in `threading`, waits.
            expiry: After how many seconds the permit returns by itself, unless released before. None keeps
                it as long as this process lives.

        Returns:
            A grant: truthy if a permit was given, else falsy and naming who has had one for longest.

        Raises:
            ValueError: The timeout is negative, or given for a call that does not block; the expiry is not
                a positive number.
        """
        seconds = patience(blocking, timeout)
        if expiry is not None and not (expiry > 0 and isfinite(expiry)):
            raise ValueError(f"expiry must be a positive number of seconds, not {expiry!r}")
        if self._value:
            self._value -= 1
            step = call()
            return self._give(step.owner, step.caller, expiry)
        if seconds == 0:
            return self._refusal()
        waiter: Waiter = self._waiters.wait(seconds, otherwise=self._refusal())
        if expiry is not None:
            self._terms[waiter.number] = expiry
        return waiter

    def release(self, n: int = 1, number: int | None = None) -> None:
        """Return permits: those of the calling thread first, then others of its process.

        Args:
            n: How many.
            number: The number of a grant, whose one permit is to return.

        Raises:
            ValueError: `n` is less than one, or not one where a grant is given.
            NotOwner: This process does not have that permit, or not so many where that matters.
            LockLost: The permit has expired, or was taken from this process by force.
        """
        if type(n) is not int or n < 1 or (n > 1 and number is not None):
            raise ValueError(f"n must be one or more, and one for a grant, not {n!r}")
        caller = call().owner
        if taken := call().taken(number):
            raise LockLost(call().title, taken)
        if number is None:
            # The newest first, and of other threads only what this one has not.
            own = [key for key, permit in self._permits.items() if permit[0].session == caller.session]
            own.sort(key=lambda key: (self._permits[key][0] != caller, -key))
            returned = own[:n]
            if len(returned) < n:
                self._check_surplus(n - len(returned))
        else:
            permit = self._permits.get(number)
            if permit is None or permit[0].session != caller.session:
                if number in self._expired:
                    raise LockLost(call().title, "its permit has expired")
                raise NotOwner(call().title, self._who())
            returned = [number]
        self._return(returned, n)

    def value(self) -> int:
        """Return how many permits are left."""
        return self._value

    # -- what the engine calls

    def owner_ended(self, owner: Owner) -> None:
        """Return the permits of a process that has ended; the end of a thread alone returns none."""
        if not owner.number:
            self._return([key for key, permit in self._permits.items() if owner.covers(permit[0])])

    def take_back(self, value: object) -> bool:
        """Return a permit that its caller never heard of."""
        if not isinstance(value, Grant) or value.number not in self._permits:
            return False
        self._return([value.number])
        return True

    def gave_up(self, waiter: Waiter) -> None:
        """Drop what was kept for a wait."""
        self._terms.pop(waiter.number, None)

    def came_back(self, waiter: Waiter) -> None:
        """Give a permit to somebody who could not be reached when it was free."""
        if self._value:
            self._value -= 1
            self._return([], 1)

    def due(self, now: float) -> None:
        """Return the permits that have expired."""
        expired = [key for key, (_, _, _, expires) in self._permits.items() if expires is not None and expires <= now]
        self._expired.extend(expired)
        self._return(expired)
        self._set_alarm()

    def take_away(self, number: int) -> None:
        """Return a permit by force."""
        self._return([number])
        self._set_alarm()

    def vacant(self) -> bool:
        """Tell whether the semaphore is as good as one that is made without arguments."""
        return self._initial == self._value == 1 and not self._permits and not self._waiters

    def holds(self, number: int) -> bool:
        """Tell whether the grant of this number is valid."""
        return number in self._permits

    def holders(self) -> list[Holder]:
        """Return who has a permit, and until when."""
        # A permit is its process's: whichever thread of it calls next is to hear that it was taken away.
        return [
            Holder(Owner(owner.session, 0), caller, since, number, {"expires": expires})
            for number, (owner, caller, since, expires) in self._permits.items()
        ]

    def statistics(self) -> dict[str, object]:
        """Return how many permits are left."""
        return {"value": self._value}

    # -- within

    def _give(self, owner: Owner, caller: Caller, expiry: float | None) -> Grant:
        step = call()
        number = step.token()
        expires = None if expiry is None else step.now + expiry
        self._permits[number] = (owner, caller, step.now, expires)
        if expires is not None:
            self._set_alarm()
        return Grant(number, False, str(caller), step.now)

    def _who(self) -> str:
        return ", ".join(str(caller) for _, caller, _, _ in self._permits.values())

    def _refusal(self) -> Grant:
        for _, caller, since, _ in self._permits.values():
            return Grant(0, False, str(caller), since)
        return Grant(0)

    def _return(self, numbers: list[int], n: int | None = None) -> None:
        """Take permits from those who have them, and give as many, or `n`, to those who wait."""
        for number in numbers:
            del self._permits[number]
        given = False
        for _ in range(len(numbers) if n is None else n):
            waiter = self._waiters.first
            if waiter is None:
                self._value += 1
                continue
            term = self._terms.pop(waiter.number, None)
            self._waiters.wake(self._give(waiter.owner, waiter.caller, term))
            given = True
        if given:
            # Whoever waits in vain is to be told who has one by then, not who had it when the wait began.
            refusal = self._refusal()
            for waiter in self._waiters:
                if waiter.deadline is not None:
                    waiter.otherwise = refusal

    def _set_alarm(self) -> None:
        at(min((permit[3] for permit in self._permits.values() if permit[3] is not None), default=None))
