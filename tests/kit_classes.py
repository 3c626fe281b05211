"""What the tests of the kit share: a class, and functions that clients call in processes of their own."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from registry import ManagerClient, SharedObject, hookimpl
from registry.hosting import Owner, Waiters, at, call


class Seats:
    """Give out seats, and get them back from the dead and from those whose time is up."""

    def __init__(self, count: int = 1, seconds: float = 0.0) -> None:
        self.free = count
        self.seconds = seconds
        self.taken: dict[int, tuple[Owner, float]] = {}
        self.waiters = Waiters()

    def take(self, timeout: float | None = None) -> int:
        """Wait for a seat."""
        if not self.free:
            return self.waiters.wait(timeout)
        self.free -= 1
        return self._give(call().owner)

    def leave(self, seat: int) -> None:
        """Give a seat back."""
        del self.taken[seat]
        self._pass_on()

    def left(self) -> int:
        """Return how many are free."""
        return self.free

    def owner_ended(self, owner: Owner) -> None:
        for seat in [seat for seat, (holder, _) in self.taken.items() if owner.covers(holder)]:
            self.leave(seat)

    def due(self, now: float) -> None:
        for seat in [seat for seat, (_, until) in self.taken.items() if until <= now]:
            self.leave(seat)

    def _give(self, owner: Owner) -> int:
        seat = call().token()
        self.taken[seat] = owner, call().now + self.seconds
        if self.seconds:
            at(min(until for _, until in self.taken.values()))
        return seat

    def _pass_on(self) -> None:
        waiter = self.waiters.first
        if waiter is None:
            self.free += 1
        else:
            self.waiters.wake(self._give(waiter.owner))


SEATS = SharedObject("seats", Seats, waiting=["take"], readonly=["left"])


@hookimpl
def registry_shared_objects() -> Iterable[SharedObject[Any]]:
    """Share them."""
    return [SEATS]


def take(shared: ManagerClient, name: str = "room", timeout: float | None = None, **kwargs: Any) -> int | None:
    """Take a seat, and keep it."""
    seat: int | None = shared.seats(name, **kwargs).take(timeout=timeout)
    return seat


def left(shared: ManagerClient, name: str = "room") -> int:
    """Return how many seats are free."""
    return int(shared.seats(name).left())


def pid(shared: ManagerClient) -> int:
    """Return whose process this is."""
    return os.getpid()


def fail(shared: ManagerClient, text: str) -> None:
    """Raise something."""
    raise KeyError(text)


class Odd(Exception):
    """An error that cannot be pickled."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def fail_oddly(shared: ManagerClient) -> None:
    """Raise what cannot be pickled."""
    raise Odd(1, 2)


def give(shared: ManagerClient) -> object:
    """Return what cannot be pickled."""
    return lambda: None


def end(shared: ManagerClient, status: int) -> None:
    """End the process."""
    os._exit(status)


def speak(shared: ManagerClient) -> str:
    """Print, and read from standard input, which nobody writes to."""
    print("a line")
    return input() if False else os.read(0, 10).decode()


def remains(line: str) -> bool:
    """Tell whether the process or the directory of a line is still there."""
    pid, home = line.split()
    try:
        os.kill(int(pid), 0)
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:
        return os.path.exists(home)
    return state not in (b"Z", b"X") or os.path.exists(home)
