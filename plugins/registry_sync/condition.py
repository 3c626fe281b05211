"""A lock whose holders tell each other that something has changed.

Promise
    At most one thread or task holds the lock, as with `rlock`. ``wait`` gives it up, with all its levels, until
    somebody that holds it calls ``notify``, and has it again when it returns. Those who wait are notified in
    the order in which they came. A notification reaches somebody who began to wait before it was made, and
    is not lost with its receiver: what a waiter cannot use passes on to the next.

    ``wait_for`` asks a question of your own, in your process, before and after each wait. A notification that
    leaves the answer at no passes on too, so that ``notify()`` reaches the one who can use it.

Cost
    ``acquire`` is O(1). ``notify`` is O(n), ``notify_all`` O(those who wait). ``release`` is O(those who wait for the
    lock with a timeout), ``wait`` and each end of its timeout is O(those who wait).

Failure
    *The holder dies*: as with `rlock`, the next has the lock, and its grant is ``abandoned``.
    *A waiter dies*, or gives up: it held nothing, so nothing is marked. If it had been notified and had not yet
    returned from ``wait``, the notification passes on to the next. A notification whose receiver died just
    after it had returned may thus reach another one too.
    *A waiter is cut off*: others are notified before it, and have the lock before it, until it is back. If it
    had been notified it keeps that, and passes it on if it does not come back.
    *The time is up*: ``wait`` returns False, with the lock: the timeout is for the notification, not for the
    lock, for which it waits as long as it takes.
    *Whoever has the lock waits for something that the waiter has*, when it is notified or its time is up: ``wait``
    raises `Deadlock`, without the lock, and the notification passes on.
    *The server dies*: holder and lines are state and come back from the log. Without a log the lock is free
    afterwards, and whoever waits is told.

    The lock that ``wait`` comes back with is another grant with another number, since others have held it
    meanwhile. ``with work as grant`` and calls made in the block go by the new one.

Example::

    >>> import registry
    >>> with registry.connect("memory://") as shared:
    ...     work, jobs = shared.condition("work"), shared.dict("jobs")
    ...     with work:
    ...         jobs["next"] = "sweep"
    ...         work.notify()
    ...     with work:
    ...         work.wait_for(lambda: len(jobs), timeout=5)
    1
"""

from __future__ import annotations

from math import isnan

from registry.errors import LockLost, NotOwner
from registry.hosting import Caller, Grant, Owner, Waiter, Waiters, at, call
from registry_sync.rlock import RLock

__all__ = ["Condition"]


class Condition(RLock):
    """Let one thread or task at a time in, and let it wait for what another one does."""

    # A call that waits stands in two lines, one after the other: in `_waiting` until it is notified or its time
    # is up, then in `_waiters`, as those who acquire. A notification has a number, and a waiter knows how
    # many there had been when it came: it had the lock then and has seen what they were about, so these are
    # of no use to it. That is why a notification that passes on comes to an end.

    def __init__(self) -> None:
        super().__init__()
        self._numbers: list[int] = []  # of the grants by which the holder has its levels
        self._given = 0  # the notification that the holder came back with
        self._notified = 0  # how many notifications there have been
        self._lost = 0  # the number by which the last one held the lock that died holding it
        self._waiting = Waiters()
        self._waits: dict[int, _Wait] = {}

    # -- verbs

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> Waiter | Grant:
        """Take the lock, take it once more, or wait for it; as that of `rlock`."""
        is_held = self._holder is not None and self._holder == call().owner
        given = super().acquire(blocking, timeout)
        if is_held:
            self._numbers.append(self._number)
        return given

    def release(self, number: int | None = None) -> None:
        """Give the lock to the next, or back; as that of `rlock`."""
        numbers = self._numbers  # the next holder has a list of its own
        super().release(number)
        numbers.remove(number if number in numbers else numbers[-1])

    def wait(self, timeout: float | None = None) -> Waiter:
        """Give the lock up, wait to be notified, and take the lock again.

        Args:
            timeout: How long to wait for the notification, in seconds. None waits.

        Returns:
            True, or False if the time was up first.

        Raises:
            NotOwner: The caller does not hold the lock.
            Deadlock: It could never have the lock again, and has it no longer.
        """
        return self._wait(timeout, False, True)

    def wait_for(self, timeout: float | None = None, passing: bool = False) -> Waiter:
        """Wait once, as a client does again and again until its predicate is true.

        A client's ``wait_for(predicate, timeout=None)`` is made of this. It returns what the predicate said last.

        Args:
            timeout: How long to wait for the notification, in seconds. None waits.
            passing: Whether to pass on the notification that the caller came back with, since it was of no
                use.

        Returns:
            The number of the notification, 0 if the time was up first, and the grant that the caller has now.

        Raises:
            NotOwner: The caller does not hold the lock.
        """
        return self._wait(timeout, passing, False)

    def notify(self, n: int = 1) -> None:
        """Notify the first `n` of those who wait.

        Raises:
            NotOwner: The caller does not hold the lock.
        """
        self._check_held()
        # Those who can be reached first; in the line for the lock all stand as they came.
        chosen = sorted(self._waiting, key=_reach)[: max(0, n)]
        for waiter in sorted(chosen, key=lambda waiter: waiter.number):
            self._notified += 1
            self._notify(waiter, self._notified)

    def notify_all(self) -> None:
        """Notify all who wait.

        Raises:
            NotOwner: The caller does not hold the lock.
        """
        self.notify(len(self._waiting))

    # -- what the engine calls

    def owner_ended(self, owner: Owner) -> None:
        """Free the lock, with all its levels, of an owner that has ended; the next is told."""
        if self._holder is not None and owner.covers(self._holder):
            self._lost = self._number
        super().owner_ended(owner)

    def take_away(self, number: int) -> None:
        """Free the lock, with all its levels, by force; the next is told."""
        self._lost = self._number
        super().take_away(number)

    def take_back(self, value: object) -> bool:
        """Undo a grant, or the end of a wait, that its caller never heard of."""
        if isinstance(value, Grant):
            numbers, is_held = self._numbers, bool(value) and value.number == self._number
            if not super().take_back(value):
                return False
            if is_held:
                numbers.pop()
            return True
        if not isinstance(value, list):
            return False
        notification, grant = value
        if grant.number == self._number:
            self._pass_notification(notification)
            self._pass_on()
            return True
        # It died with the lock in its hands, of which it may not have known; else it has used it since.
        if grant.number != self._lost:
            return False
        self._pass_notification(notification)
        self._grant_if_free()
        return True

    def gave_up(self, waiter: Waiter) -> None:
        """Pass on the notification of somebody that waits no longer."""
        wait = self._waits.pop(waiter.number, None)
        if wait is not None:
            self._pass_notification(wait[3])
            self._grant_if_free()

    def due(self, now: float) -> None:
        """Have those come back whose time is up."""
        for waiter in self._waiting:
            deadline = self._waits[waiter.number][4]
            if deadline is not None and deadline <= now:
                self._notify(waiter, 0)
        self._grant_if_free()
        self._set_alarm()

    def blocked_by(self, waiter: Waiter) -> list[list[Owner]] | None:
        """Return who has the lock, for those who wait for it; anybody may notify the others."""
        return super().blocked_by(waiter) if waiter.home is self._waiters else None

    def vacant(self) -> bool:
        """Tell whether the condition is as good as new."""
        return super().vacant() and not self._waiting

    def holds(self, number: int) -> bool:
        """Tell whether the grant of this number is valid; that from before a wait is again after it."""
        return super().holds(number) or (self._holder is not None and number in self._numbers)

    def statistics(self) -> dict[str, object]:
        """Return whether the last holder died, who waits for the lock, and who waits to be notified."""
        waiting = [waiter.row(deadline=self._waits[waiter.number][4]) for waiter in self._waiting]
        return {**super().statistics(), "waiting": waiting}

    # -- within

    def _may_release(self, holder: Owner, number: int | None) -> bool:
        return super()._may_release(holder, self._number if number in self._numbers else number)

    def _check_held(self) -> None:
        if self._holder is None or self._holder != call().owner:
            raise NotOwner(call().title, self._who())

    def _wait(self, timeout: float | None, passing: bool, is_plain: bool) -> Waiter:
        self._check_held()
        step = call()
        if timeout is not None and isnan(timeout):
            raise ValueError(f"timeout must be a number of seconds, not {timeout!r}")
        # It has no deadline of its own, since it is to have the lock when its time is up; see `due`.
        waiter: Waiter = self._waiting.wait(otherwise=LockLost(step.title, "the time for this call was up"))
        deadline = None if timeout is None else step.now + timeout
        self._waits[waiter.number] = (self._notified, self._levels, self._numbers, 0, deadline, is_plain)
        if passing:
            self._pass_notification(self._given)
        if timeout is not None and timeout <= 0:
            self._notify(waiter, 0)
        # As after a release by its holder, who was told if it had been abandoned.
        self._abandoned = False
        self._died = ""
        self._pass_on()
        self._set_alarm()
        return waiter

    def _notify(self, waiter: Waiter, notification: int) -> None:
        """Have a waiter come back, with a notification or, where that is 0, because its time is up."""
        seen, levels, numbers, _, _, is_plain = self._waits[waiter.number]
        self._waits[waiter.number] = (seen, levels, numbers, notification, None, is_plain)
        self._waiters.adopt(waiter)

    def _pass_notification(self, notification: int) -> None:
        """Give a notification that was of no use to the next one whom it may help."""
        if notification:
            for waiter in sorted(self._waiting, key=_reach):
                if self._waits[waiter.number][0] < notification:
                    self._notify(waiter, notification)
                    break

    def _pass_on(self) -> None:
        self._numbers = []
        self._given = 0
        super()._pass_on()

    def _answer(self, waiter: Waiter) -> object:
        wait = self._waits.pop(waiter.number, None)
        grant = self._give(waiter.owner, waiter.caller)
        if wait is None:
            return grant
        _, self._levels, self._numbers, self._given, _, is_plain = wait
        return self._given > 0 if is_plain else [self._given, grant]

    def _give(self, owner: Owner, caller: Caller) -> Grant:
        grant = super()._give(owner, caller)
        self._numbers = [self._number]
        return grant

    def _grant_if_free(self) -> None:
        if self._holder is None:
            self._pass_on()

    def _set_alarm(self) -> None:
        deadlines = [wait[4] for wait in self._waits.values() if wait[4] is not None]
        at(min(deadlines, default=None))


def _reach(waiter: Waiter) -> bool:
    """Sort those who cannot be reached behind the others."""
    return waiter.away


# A call that waits: how many notifications there had been when it came, how many levels it had of the lock and by
# which grants, its notification or 0, when its time is up, and whether it returns no more than a bool.
_Wait = tuple[int, int, "list[int]", int, "float | None", bool]
