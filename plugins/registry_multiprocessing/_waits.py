"""What everything here waits on: a condition whose waits end when nobody waits for their outcome any more."""

from __future__ import annotations

import threading
from typing import Final

from registry.hosting import GivenUp, visit

__all__ = ["Waits"]

_NOTIFIED: Final = "notified"


class _Place:
    """A place in the line of a condition, in the place of the lock that `threading.Condition` puts there."""

    __slots__ = ("_lock", "_outcome")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        # How the wait ends, said once by whoever is first; `setdefault` of a dict is atomic.
        self._outcome: dict[None, object] = {}

    def release(self) -> None:
        """End the wait, since it has been notified. `threading.Condition.notify` passes over a place that raises."""
        if self._outcome.setdefault(None, _NOTIFIED) is not _NOTIFIED:
            raise RuntimeError("this wait has ended otherwise")
        self._lock.release()

    def give_up(self) -> None:
        """End the wait, since nobody waits for its outcome."""
        mine = object()
        if self._outcome.setdefault(None, mine) is mine:
            self._lock.release()

    def wait(self, timeout: float | None) -> bool:
        """Wait, and tell whether it has been notified."""
        if timeout is None:
            self._lock.acquire()
        else:
            self._lock.acquire(timeout=max(0.0, timeout))
        return self._outcome.setdefault(None, "late") is _NOTIFIED


class Waits(threading.Condition):
    """A condition for the inside of objects that clients wait at."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until notified.

        Args:
            timeout: Seconds; None waits as long as somebody waits for the outcome.

        Returns:
            Whether it has been notified.

        Raises:
            GivenUp: Nobody does any more. What it had been notified of is passed on.
        """
        if not self._is_owned():  # type: ignore[attr-defined]
            raise RuntimeError("cannot wait on un-acquired lock")
        here, place = visit(), _Place()
        self._waiters.append(place)  # type: ignore[attr-defined]
        saved = self._release_save()  # type: ignore[attr-defined]
        notified = False
        try:
            with here.waiting(place.give_up):
                notified = place.wait(timeout)
        finally:
            try:
                self._acquire_restore(saved)  # type: ignore[attr-defined]
            finally:
                try:
                    self._waiters.remove(place)  # type: ignore[attr-defined]
                except ValueError:
                    pass  # it was notified
                if notified and here.given_up:
                    super().notify()
        if here.given_up:
            raise GivenUp
        return notified
