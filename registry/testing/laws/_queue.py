"""The laws of a queue."""

from __future__ import annotations

import inspect
import queue
from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st

from registry.client import ManagerClient
from registry.testing.laws._laws import (
    DURABLE,
    SERVED,
    Laws,
    Other,
    Place,
    Step,
    needs,
    only,
    plain,
    settled,
    step,
    waiting,
)


class QueueLaws(Laws):
    """What everybody expects of a queue: first in, first out, each item to one taker, as `queue.Queue` does it.

    Attributes:
        items: What is put: at least three.
    """

    shape: ClassVar[str] = "queue"
    items: ClassVar[Sequence[Any]] = ("a", 2, None, [3, {"four": (5,)}])

    @classmethod
    def applies(cls, law: Any) -> bool:
        """As for all laws; and what is said of bounds, of queues that can have one."""
        return super().applies(law) and (not getattr(law, "bounded", False) or cls.can_be_bounded())

    @classmethod
    def can_be_bounded(cls) -> bool:
        """Tell whether `make_bounded` can make a queue with a bound: whether the factory takes a ``maxsize``."""
        try:
            return "maxsize" in inspect.signature(cls.declaration.factory).parameters
        except (TypeError, ValueError):
            return False

    def make_bounded(self, client: ManagerClient, name: str, maxsize: int) -> Any:
        """Return a queue that has room for so many items."""
        names = (name,) if self.declaration.per == "name" else ()
        return client.open(self.declaration, *names, *self.args, **{**self.kwargs, "maxsize": maxsize})

    @staticmethod
    def _bounded(law: Any) -> Any:
        law.bounded = True
        return law

    # -- one after the other

    def test_first_in_first_out(self, subject: Any) -> None:
        """Items come out in the order in which they went in, as what they were."""
        for item in self.items:
            subject.put(item)
        assert [plain(subject.get()) for _ in self.items] == [plain(item) for item in self.items]

    def test_nothing_is_queue_empty(self, subject: Any) -> None:
        """At once, or after the timeout."""
        for arguments in ((False,), (True, 0.01), (True, 0)):
            with pytest.raises(queue.Empty):
                subject.get(*arguments)
        with pytest.raises(ValueError, match="timeout"):
            subject.get(True, -1)

    @needs("get_nowait")
    def test_get_nowait_takes_what_is_there(self, subject: Any) -> None:
        """Or raises `queue.Empty`."""
        subject.put(self.items[0])
        assert plain(subject.get_nowait()) == plain(self.items[0])
        with pytest.raises(queue.Empty):
            subject.get_nowait()

    @needs("qsize", "empty")
    def test_it_tells_how_many_are_in_it(self, subject: Any) -> None:
        """By number, and whether there are any."""
        assert (subject.qsize(), subject.empty()) == (0, True)
        for number, item in enumerate(self.items, 1):
            subject.put(item)
            assert (subject.qsize(), subject.empty()) == (number, False)

    def test_what_is_taken_is_the_takers(self, subject: Any) -> None:
        """A container may be changed in place: nobody else has it."""
        if any(type(item) is list for item in self.items):
            subject.put([1])
            taken = subject.get()
            taken.append(2)
            assert taken == [1, 2]

    # -- those who wait

    def test_who_waits_gets_what_comes(self, place: Place, subject: Any) -> None:
        """In the order in which they began to wait."""
        with Other(place) as one, Other(place) as two:
            first = one.submit(self.again(one.client, subject).get)
            waiting(place.client, subject, 1)
            second = two.submit(self.again(two.client, subject).get, True, 30.0)
            waiting(place.client, subject, 2)
            subject.put(self.items[0])
            assert plain(settled(first)) == plain(self.items[0])
            subject.put(self.items[1])
            assert plain(settled(second)) == plain(self.items[1])

    def test_each_item_goes_to_one_taker(self, place: Place, subject: Any) -> None:
        """Many put and many take at once: nothing is lost, nothing comes twice, and each putter's order is kept."""

        def put(proxy: Any, who: str) -> None:
            for number in range(30):
                proxy.put([who, number])

        def take(proxy: Any) -> list[Any]:
            return [tuple(proxy.get(timeout=30.0)) for _ in range(30)]

        if not any(type(item) is list for item in self.items):
            return
        with Other(place) as one, Other(place) as two, Other(place) as three, Other(place) as four:
            taking = [each.submit(take, self.again(each.client, subject)) for each in (one, two)]
            for each, who in ((three, "three"), (four, "four")):
                each.submit(put, self.again(each.client, subject), who)
            taken = [settled(future) for future in taking]
        assert sorted(taken[0] + taken[1]) == [(who, number) for who in ("four", "three") for number in range(30)]
        for each in taken:
            for who in ("three", "four"):
                numbers = [number for by, number in each if by == who]
                assert numbers == sorted(numbers)

    @only(SERVED)
    def test_a_taker_that_dies_takes_nothing(self, place: Place, subject: Any) -> None:
        """An item goes to the next, if who was first in line has gone."""
        with Other(place) as living:
            dead = place.server.client()
            dead.submit(_get, subject._remote.typeid, subject._remote.name)
            waiting(place.client, subject, 1)
            alive = living.submit(self.again(living.client, subject).get)
            waiting(place.client, subject, 2)
            dead.kill()
            subject.put(self.items[0])
            assert plain(settled(alive)) == plain(self.items[0])

    @only(SERVED)
    def test_a_cut_connection_loses_nothing(self, place: Place, subject: Any) -> None:
        """What is put is in it once, and who waits goes on waiting."""
        with Other(place) as somebody:
            got = somebody.submit(self.again(somebody.client, subject).get)
            waiting(place.client, subject, 1)
            place.server.cut()
            waiting(place.client, subject, 1)
            for item in self.items:
                place.server.cut()
                subject.put(item)
            assert plain(settled(got)) == plain(self.items[0])
            assert [plain(subject.get(timeout=30.0)) for _ in self.items[1:]] == [
                plain(item) for item in self.items[1:]
            ]

    # -- bounds

    @_bounded
    def test_it_may_have_a_bound(self, place: Place) -> None:
        """What finds no room is `queue.Full`, at once or after the timeout, and is not in it."""
        subject = self.make_bounded(place.client, "bounded", 2)
        subject.put(self.items[0]), subject.put(self.items[1])
        for arguments in ((False,), (True, 0.01)):
            with pytest.raises(queue.Full):
                subject.put(self.items[2], *arguments)
        with pytest.raises(ValueError, match="timeout"):
            subject.put(self.items[2], True, -1)
        assert [plain(subject.get()) for _ in range(2)] == [plain(item) for item in self.items[:2]]
        with pytest.raises(queue.Empty):
            subject.get(False)

    @_bounded
    def test_who_waits_for_room_gets_it(self, place: Place) -> None:
        """In the order in which they came."""
        subject = self.make_bounded(place.client, "bounded", 1)
        subject.put(self.items[0])
        with Other(place) as one, Other(place) as two:
            putting = []
            for number, each in ((1, one), (2, two)):
                putting.append(each.submit(self.again(each.client, subject).put, self.items[number]))
                waiting(place.client, subject, number)
            assert [plain(subject.get(timeout=30.0)) for _ in range(3)] == [plain(item) for item in self.items[:3]]
            assert [settled(future) for future in putting] == [None, None]

    # -- claims

    @needs("claim")
    def test_a_claim_is_done_or_put_back(self, subject: Any) -> None:
        """At the end of its block it is done; after an exception it is in front again."""
        subject.put(self.items[0]), subject.put(self.items[1])
        with pytest.raises(ZeroDivisionError), subject.claim() as item:
            raise ZeroDivisionError(item)
        with subject.claim() as item:
            assert plain(item) == plain(self.items[0])
        assert plain(subject.get()) == plain(self.items[1])
        with pytest.raises(queue.Empty):
            subject.get(False)

    # -- all of it

    def test_any_series_of_calls_does_what_it_does_to_a_queue(self, place: Place) -> None:
        """Results, errors and content are those of a `queue.Queue`, whichever client makes a call."""
        items = st.sampled_from(self.items)
        known = {
            "put": step("put", items),
            "put_nowait": step("put_nowait", items),
            "get": st.just(Step("get", (False,))),
            "get_nowait": step("get_nowait"),
            "qsize": step("qsize"),
            "empty": step("empty"),
        }
        exposed = self.declaration.interface.exposed
        steps: st.SearchStrategy[Step] = st.one_of(*[each for method, each in known.items() if method in exposed])

        def fill(subject: Any, model: Any) -> None:
            for item in model.queue:
                subject.put(item)

        self.agree(place, steps, self._model, lambda target: target.qsize(), fill)

    def _model(self) -> Any:
        model: queue.Queue[Any] = queue.Queue()
        model.queue = deque(self.items)
        return model

    @only(DURABLE)
    def test_it_outlives_its_server(self, place: Place) -> None:
        """With a log the items are there when the server was killed, and each comes out once."""

        def before(subject: Any) -> Any:
            for item in self.items:
                subject.put(item)
            return [plain(item) for item in self.items]

        def after(subject: Any) -> Any:
            taken = [plain(subject.get(timeout=30.0)) for _ in self.items]
            with pytest.raises(queue.Empty):
                subject.get(False)
            return taken

        self.outlives(place.name, before, after)


def _get(shared: ManagerClient, typeid: str, name: str) -> Any:
    """Take an item, in another process."""
    return shared._home.find(typeid, name).get()
