"""What everything here waits on: a condition whose waits end when nobody waits for their outcome any more."""

from __future__ import annotations

import threading

from registry.hosting import GivenUp, visit

__all__ = ["Waits"]


class _Place:
    """A place in the line of a condition, in the place of the lock that `threading.Condition` puts there."""

    __slots__ = ("_lock", "_open", "_was_notified")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        # Whoever takes this out ends the wait; `pop` of a dict is atomic.
        self._open = {None: True}
        self._was_notified = False

    def release(self) -> None:
        """End the wait, since it has been notified. `threading.Condition.notify` passes over a place that raises."""
        if not self._open.pop(None, False):
            raise RuntimeError("this wait has ended otherwise")
        self._was_notified = True
        self._lock.release()

    def give_up(self) -> None:
        """End the wait, since nobody waits for its outcome."""
        if self._open.pop(None, False):
            self._lock.release()

    def wait(self, timeout: float | None) -> bool:
        """Wait, and tell whether it has been notified."""
        if not self._lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            if self._open.pop(None, False):
                return False
            self._lock.acquire()  # which is about to be released
        return self._was_notified


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
                self._leave(place)
                if notified and here.given_up:
                    self._pass_on()
        if here.given_up:
            raise GivenUp
        return notified

    def _leave(self, place: _Place) -> None:
        try:
            self._waiters.remove(place)  # type: ignore[attr-defined]
        except ValueError:
            pass  # it was notified

    def _pass_on(self) -> None:
        """Notify the next, perhaps without the lock, which nobody has who could not have it back."""
        for place in list(self._waiters):  # type: ignore[attr-defined]
            try:
                place.release()
            except RuntimeError:
                continue  # that wait has ended
            self._leave(place)
            return
