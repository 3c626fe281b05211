"""A lock that many may hold to read, or one to write.

Promise
    Either one thread or task holds the lock to write, or any number hold it to read, of whatever processes, as
    long as the server lives or has a log. All stand in one line and are served in the order in which they
    came, readers that stand next to each other together. So no writer starves behind readers that keep
    coming, and no reader behind writers.

    Whoever holds the lock may take it again without waiting: the writer to read and to write, a reader to
    read. A writer that gives ``write`` back and keeps ``read`` has become a reader, with nobody in between.
    A reader that asks for ``write`` waits until the others have stopped reading, before everybody else; for
    a second one who asks that at the same time it is a `Deadlock`, since each would wait for the other.

Cost
    ``read`` and ``write`` are O(1). ``release`` is O(1) by the owner itself and O(holders) by a grant, and O(those
    who wait with a timeout) when it lets somebody in.

Failure
    *The writer dies*, its process or its thread or task alone: the lock goes to the next at once. What it was
    changing may be half done, so every grant from then on is ``abandoned``, to read too, and names who died,
    until a writer has released. *A reader dies*: it no longer holds the lock, and nothing is marked.
    *A waiter dies*, or gives up: its place in line goes. If it had been granted the lock and could not be
    told, the lock is as if it had not been.
    *The server dies*: holders and line are state and come back from the log. Without a log the lock is free
    afterwards; until a holder from before makes its next call, and hears `LockLost`, there may be two.

Example::

    >>> import registry
    >>> with registry.connect("memory://") as shared:
    ...     table = shared.rwlock("table")
    ...     with table.read():
    ...         table.write(blocking=False).token, table.locked()
    ...     with table.write(timeout=5):
    ...         table.locked()
    (None, True)
    True
"""

from __future__ import annotations

from registry.errors import Deadlock, LockLost, NotOwner
from registry.hosting import Caller, Grant, Holder, Owner, Waiter, Waiters, call
from registry_sync._exclusive import patience

__all__ = ["RWLock"]

READ = "read"
WRITE = "write"

# What one owner holds: how people are told of it, since when, and its levels, innermost last, each to read or to
# write and with the number of its grant.
_Held = tuple[Caller, float, "list[tuple[str, int]]"]


class RWLock:
    """Let many in to read, or one to write."""

    # Between any two steps, the first in line of those who can be reached cannot be let in.

    gives_back = ("release",)

    def __init__(self) -> None:
        self._holders: dict[Owner, _Held] = {}
        self._writer: Owner | None = None
        self._abandoned = False
        self._died = ""
        self._line = Waiters()
        self._wants: dict[int, str] = {}  # of those in the line, by the number of the wait
        self._upgrade = Waiters()  # the one reader that waits to write

    # -- verbs

    def read(self, blocking: bool = True, timeout: float | None = None) -> Waiter | Grant:
        """Take the lock to read, or wait for it.

        Args:
            blocking: Whether to wait while there is a writer, or one waits.
            timeout: How long to wait, in seconds. None, or -1 as in `threading`, waits.

        Returns:
            A grant: truthy if the lock was given, else falsy and naming a holder.

        Raises:
            ValueError: The timeout is negative, or given for a call that does not block.
            Deadlock: It would wait for ever, as those before it wait for something that the caller has.
        """
        seconds = patience(blocking, timeout)
        step = call()
        free = self._writer is None and self._line.first is None and self._upgrade.first is None
        if free or step.owner in self._holders:
            return self._give(step.owner, step.caller, READ)
        return self._wait(READ, seconds)

    def write(self, blocking: bool = True, timeout: float | None = None) -> Waiter | Grant:
        """Take the lock to write, or wait for it; a reader becomes the writer.

        Args:
            blocking: Whether to wait while there is another writer, or a reader.
            timeout: How long to wait, in seconds. None, or -1 as in `threading`, waits.

        Returns:
            A grant: truthy if the lock was given, else falsy and naming a holder.

        Raises:
            ValueError: The timeout is negative, or given for a call that does not block.
            Deadlock: The caller reads, and so does another one that waits to write; or it would wait for ever, as
                one who has the lock waits for something that the caller has.
        """
        seconds = patience(blocking, timeout)
        step = call()
        if self._writer == step.owner or not self._others(step.owner):
            return self._give(step.owner, step.caller, WRITE)
        if seconds == 0 or step.owner not in self._holders:
            return self._wait(WRITE, seconds)
        for other in self._upgrade:  # whether it can be reached or not: it reads
            raise Deadlock(
                f"{other.caller} reads {step.title} too and waits to write, so that each would wait for the other "
                f"to stop reading; release what you read, and take write() from the start"
            )
        return self._upgrade.wait(seconds, otherwise=self._refusal())

    def release(self, number: int | None = None) -> None:
        """Give back what was taken last, or what a grant is for, and let in who can be.

        Args:
            number: The number of the grant to give back; None for what the calling thread or task took last.

        Raises:
            NotOwner: The caller holds nothing, or not by this grant.
            LockLost: It was taken from the caller by force.
        """
        if taken := call().taken(number):
            raise LockLost(call().title, taken)
        owner: Owner | None = call().owner
        if number is not None:
            # By its grant it may be released from any thread, as a `with` block may be left in another one.
            owner = self._holder_of(number, call().session)
        if owner is None or owner not in self._holders:
            raise NotOwner(call().title, self._who())
        if self._take(owner, number):
            self._abandoned = False
            self._died = ""
        self._let_in()

    def locked(self) -> bool:
        """Tell whether somebody holds it, to read or to write."""
        return bool(self._holders)

    # -- what the engine calls

    def owner_ended(self, owner: Owner) -> None:
        """Free the lock of an owner that has ended; if it could write, those who come are told."""
        for holder in [holder for holder in self._holders if owner.covers(holder)]:
            caller, _, _ = self._holders.pop(holder)
            if holder == self._writer:
                self._writer = None
                self._abandon(caller)
        self._let_in()

    def take_away(self, number: int) -> None:
        """Take by force what is held by a grant; if it was to write, those who come are told."""
        owner = self._holder_of(number)
        if owner is None:
            return
        caller = self._holders[owner][0]
        while self._holder_of(number) is not None:
            if self._take(owner, number):
                self._abandon(caller)
        self._let_in()

    def take_back(self, value: object) -> bool:
        """Undo a grant that its caller never heard of."""
        if not isinstance(value, Grant) or not value:
            return False
        owner = self._holder_of(value.number)
        if owner is None:
            return False
        self._take(owner, value.number)
        self._let_in()
        return True

    def gave_up(self, waiter: Waiter) -> None:
        """Let in who waited behind somebody that waits no longer."""
        self._wants.pop(waiter.number, None)
        self._let_in()

    def blocked_by(self, waiter: Waiter) -> list[list[Owner]] | None:
        """Return who has to go on for a wait to end: every holder, or for a reader the writer, or one who is to be."""
        if waiter.home is self._upgrade or self._wants[waiter.number] == WRITE:
            return [[holder] for holder in self._holders if holder != waiter.owner]
        if self._writer is not None:
            return [[self._writer]]
        # They all wait for the same readers. One with a deadline gives up if need be, one that is away is passed over.
        for ahead in (*self._upgrade, *self._line):
            if ahead is waiter:
                break
            if (
                ahead.deadline is None
                and not ahead.away
                and (ahead.home is self._upgrade or self._wants[ahead.number] == WRITE)
            ):
                return [[ahead.owner]]
        return None

    def went_away(self, waiter: Waiter) -> None:
        """Let in who waited behind somebody that cannot be reached."""
        self._let_in()

    def came_back(self, waiter: Waiter) -> None:
        """Let in somebody who could not be reached when there was room."""
        self._let_in()

    def vacant(self) -> bool:
        """Tell whether the lock is as good as new."""
        return not (self._holders or self._abandoned or self._line or self._upgrade)

    def holds(self, number: int) -> bool:
        """Tell whether the grant of this number is valid."""
        return self._holder_of(number) is not None

    def holders(self) -> list[Holder]:
        """Return who holds the lock, and to do what."""
        return [
            Holder(owner, caller, since, number, {"mode": mode})
            for owner, (caller, since, levels) in self._holders.items()
            for mode, number in dict.fromkeys(levels)
        ]

    def statistics(self) -> dict[str, object]:
        """Return whether a writer died, and who waits to do what, in the order in which they will be let in."""
        waiting = [waiter.row(mode=WRITE) for waiter in self._upgrade]
        waiting += [waiter.row(mode=self._wants[waiter.number]) for waiter in self._line]
        return {"abandoned": self._abandoned, "waiters": waiting}

    # -- within

    def _abandon(self, caller: Caller) -> None:
        self._abandoned = True
        self._died = str(caller)

    def _others(self, owner: Owner) -> bool:
        """Tell whether anybody else holds the lock."""
        return len(self._holders) > (owner in self._holders)

    def _who(self) -> str:
        return ", ".join(str(caller) for caller, _, _ in self._holders.values())

    def _holder_of(self, number: int, session: Owner | None = None) -> Owner | None:
        """Return who holds the lock by the grant of a number; if it is of a session, where one is given."""
        for owner, (_, _, levels) in self._holders.items():
            if any(own == number for _, own in levels):
                return owner if session is None or session.covers(owner) else None
        return None

    def _give(self, owner: Owner, caller: Caller, mode: str) -> Grant:
        step = call()
        caller, since, levels = self._holders.setdefault(owner, (caller, step.now, []))
        number = next((own for own_mode, own in levels if own_mode == mode), None) or step.token()
        levels.append((mode, number))
        if mode == WRITE:
            self._writer = owner
        return Grant(number, self._abandoned, self._died if self._abandoned else str(caller), since)

    def _take(self, owner: Owner, number: int | None) -> bool:
        """Take a level from an owner, the last or the last of a grant; tell whether it was a writer by it."""
        _, _, levels = self._holders[owner]
        place = max(at for at, (_, own) in enumerate(levels) if number in (None, own))
        del levels[place]
        if not levels:
            del self._holders[owner]
        if owner != self._writer or any(mode == WRITE for mode, _ in levels):
            return False
        self._writer = None
        return True

    def _refusal(self) -> Grant:
        for owner, (caller, since, _) in self._holders.items():
            if self._writer in (None, owner):
                return Grant(0, False, str(caller), since)
        return Grant(0)

    def _wait(self, mode: str, seconds: float | None) -> Waiter | Grant:
        if seconds == 0:
            return self._refusal()
        waiter: Waiter = self._line.wait(seconds, otherwise=self._refusal())
        self._wants[waiter.number] = mode
        return waiter

    def _let_in(self) -> None:
        """Let in who can be, from the front of the line."""
        before = self._refusal()
        first = self._upgrade.first
        if first is not None and not self._others(first.owner):
            self._upgrade.wake(self._give(first.owner, first.caller, WRITE))
        while self._writer is None and self._upgrade.first is None:
            first = self._line.first
            # Its thread may have come to read meanwhile, where a signal handler asked while it waited for that.
            if first is None or (self._wants[first.number] == WRITE and self._others(first.owner)):
                break
            self._line.wake(self._give(first.owner, first.caller, self._wants.pop(first.number)))
        refusal = self._refusal()
        if refusal != before:
            # Whoever waits in vain is to be told who has it by then, not who had it when the wait began.
            for waiter in (*self._upgrade, *self._line):
                if waiter.deadline is not None:
                    waiter.otherwise = refusal
