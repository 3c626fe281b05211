"""The laws of a lock."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from registry.client import ManagerClient
from registry.errors import CallTimeout
from registry.testing.laws._laws import DURABLE, SERVED, Laws, Other, Place, needs, only, settled, waiting


class LockLaws(Laws):
    """What everybody expects of a lock: one at a time, first come, first served, and free when its holder dies.

    Attributes:
        reentrant: Whether its holder may take it again, as that of a `threading.RLock`.
    """

    shape: ClassVar[str] = "lock"
    reentrant: ClassVar[bool] = False

    # -- one at a time

    def test_it_is_true(self, subject: Any) -> None:
        """Held or not, as those of `threading`."""
        assert subject
        with subject:
            assert subject

    def test_who_acquires_has_it(self, place: Place, subject: Any) -> None:
        """And nobody else, at once or after a timeout; who is refused is told who has it."""
        grant = subject.acquire()
        assert grant
        with Other(place) as somebody:
            theirs = self.again(somebody.client, subject)
            for arguments in ((False,), (True, 0.01), (True, 0)):
                refused = somebody.run(theirs.acquire, *arguments)
                assert not refused and refused.holder
            subject.release()
            # A release of a lock does not wait for its reply, so that somebody else may come a moment before it.
            assert somebody.run(theirs.acquire, True, 30.0)
            somebody.run(theirs.release)

    @needs("locked")
    def test_it_tells_whether_it_is_held(self, place: Place, subject: Any) -> None:
        """To its holder and to everybody else, as soon as it changes."""
        with Other(place) as somebody:
            theirs = self.again(somebody.client, subject)
            for _ in range(3):
                assert [subject.locked(), theirs.locked(), theirs.locked()] == [False] * 3
                with subject:
                    assert [subject.locked(), theirs.locked(), theirs.locked()] == [True] * 3

    def test_it_works_in_with(self, place: Place, subject: Any) -> None:
        """The block has it, and gives it back however it ends."""
        with Other(place) as somebody:
            theirs = self.again(somebody.client, subject)
            with pytest.raises(ZeroDivisionError), subject as grant:
                assert grant and not somebody.run(theirs.acquire, False)
                raise ZeroDivisionError
            with subject.acquire(timeout=30.0):
                assert not somebody.run(theirs.acquire, False)
            assert somebody.run(theirs.acquire, True, 30.0)
            with pytest.raises(CallTimeout), subject.acquire(timeout=0.01):
                raise AssertionError("the block was entered")
            somebody.run(theirs.release)

    def test_what_is_not_held_is_not_released(self, place: Place, subject: Any) -> None:
        """Not when it is free, nor when somebody else has it, who keeps it."""
        with pytest.raises(RuntimeError):
            subject.release()
        with Other(place) as somebody:
            theirs = self.again(somebody.client, subject)
            somebody.run(theirs.acquire)
            if place.name != "memory://" or self.reentrant:
                with pytest.raises(RuntimeError):
                    subject.release()
                assert not subject.acquire(False)
            somebody.run(theirs.release)

    def test_it_waits_as_threading_does(self, subject: Any) -> None:
        """A timeout below zero is refused, but for -1, and one for a call that does not wait; nothing happens."""
        for arguments in ((True, -2), (False, 1)):
            with pytest.raises(ValueError, match="timeout"):
                subject.acquire(*arguments)
        assert subject.acquire(True, -1)
        subject.release()

    def test_its_holder_may_take_it_again_or_not(self, subject: Any) -> None:
        """Where it is reentrant it is free after as many releases; else even its holder waits."""
        with subject:
            again = subject.acquire(timeout=0.01)
            assert bool(again) is self.reentrant
            if again:
                subject.release()
        with pytest.raises(RuntimeError):
            subject.release()

    # -- one after the other

    def test_first_come_first_served(self, place: Place, subject: Any) -> None:
        """Who has waited longest is next, and each grant has a larger token than all before."""
        order: list[Any] = []
        with Other(place) as one, Other(place) as two:
            subject.acquire()
            working = []
            for number, each in ((1, one), (2, two)):
                working.append(each.submit(self._enter, self.again(each.client, subject), order, number))
                waiting(place.client, subject, number)
            subject.release()
            for future in working:
                settled(future)
        assert [number for number, _ in order] == [1, 2]
        assert order[0][1].number < order[1][1].number

    @staticmethod
    def _enter(lock: Any, order: list[Any], number: int) -> None:
        with lock as grant:
            order.append((number, grant))

    def test_many_count_without_losing(self, place: Place, subject: Any) -> None:
        """What is read and written inside is nobody else's meanwhile."""
        box = {"count": 0}

        def work(lock: Any) -> None:
            for _ in range(25):
                with lock:
                    seen = box["count"]
                    lock.locked() if "locked" in self.declaration.interface.exposed else repr(lock)
                    box["count"] = seen + 1

        with Other(place) as one, Other(place) as two, Other(place) as three:
            working = [each.submit(work, self.again(each.client, subject)) for each in (one, two, three)]
            for future in working:
                settled(future)
        assert box["count"] == 75

    # -- deaths

    @only(SERVED)
    def test_a_dead_holder_frees_it(self, place: Place, subject: Any) -> None:
        """The next in line has it, and is told that it was abandoned, and by whom; the one after that is not."""
        holder = place.server.client()
        assert holder.run(_acquire, subject._remote.typeid, subject._remote.name)
        with Other(place) as somebody:
            theirs = self.again(somebody.client, subject)
            late = somebody.submit(theirs.acquire)
            waiting(place.client, subject, 1)
            holder.kill()
            grant = settled(late)
            assert grant and grant.abandoned and f"pid {holder.pid}" in grant.holder
            somebody.run(theirs.release)
        with subject as grant:
            assert not grant.abandoned

    @only(SERVED)
    def test_who_dies_in_the_line_is_passed_over(self, place: Place, subject: Any) -> None:
        """The lock goes to the next who lives, and is not abandoned."""
        subject.acquire()
        dead = place.server.client()
        dead.submit(_acquire, subject._remote.typeid, subject._remote.name)
        waiting(place.client, subject, 1)
        with Other(place) as somebody:
            theirs = self.again(somebody.client, subject)
            late = somebody.submit(theirs.acquire)
            waiting(place.client, subject, 2)
            dead.kill()
            waiting(place.client, subject, 1)
            subject.release()
            grant = settled(late)
            assert grant and not grant.abandoned
            somebody.run(theirs.release)

    @only(SERVED)
    def test_a_cut_connection_loses_nothing(self, place: Place, subject: Any) -> None:
        """Its holder has it, and who waits goes on waiting."""
        with Other(place) as somebody:
            theirs = self.again(somebody.client, subject)
            with subject:
                late = somebody.submit(theirs.acquire)
                waiting(place.client, subject, 1)
                place.server.cut()
                waiting(place.client, subject, 1)
            grant = settled(late)
            assert grant and not grant.abandoned
            somebody.run(theirs.release)

    @only(DURABLE)
    def test_it_outlives_its_server(self, place: Place) -> None:
        """With a log its holder has it when the server was killed, and gives it back to the next life."""

        def before(subject: Any) -> Any:
            return subject.acquire().number

        def after(subject: Any) -> Any:
            client = subject._remote.home
            assert len(client.link().ask("statistics", subject._remote.typeid, subject._remote.name)["holders"]) == 1
            subject.release()
            grant = subject.acquire(False)
            assert grant and not grant.abandoned
            return min(grant.number, told[0])

        told: list[int] = []

        def noted(subject: Any) -> Any:
            told.append(before(subject))
            return told[0]

        self.outlives(place.name, noted, after)


def _acquire(shared: ManagerClient, typeid: str, name: str) -> bool:
    """Take a lock, in another process, and keep it."""
    return bool(shared._home.find(typeid, name).acquire())
