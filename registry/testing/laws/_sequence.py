"""The laws of a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st

from registry.testing.laws._laws import DURABLE, SERVED, Laws, Other, Place, Step, needs, only, plain, settled, step


class SequenceLaws(Laws):
    """What everybody expects of a sequence.

    Attributes:
        items: What is used as items: at least three, none equal to another.
    """

    shape: ClassVar[str] = "sequence"
    items: ClassVar[Sequence[Any]] = ("a", 2, None, [3, {"four": (5,)}])

    def fill(self, subject: Any, content: Sequence[Any]) -> None:
        """Give a new object its content, one item after the other."""
        for item in content:
            subject.append(item)

    @pytest.fixture
    def filled(self, subject: Any) -> Any:
        """Make an object with the items in it."""
        self.fill(subject, self.items)
        return subject

    # -- what is in it

    def test_it_begins_empty(self, subject: Any) -> None:
        """A new one has nothing in it, and is false."""
        assert (len(subject), list(subject), bool(subject)) == (0, [], False)

    @needs("__getitem__")
    def test_items_are_found_by_their_places(self, filled: Any) -> None:
        """From either end, and many at once by a slice, in the types in which they came."""
        items = list(self.items)
        for place, item in enumerate(items):
            assert plain(filled[place]) == plain(filled[place - len(items)]) == plain(item)
        assert plain(list(filled[1:])) == plain(items[1:])
        assert len(filled) == len(items)

    @needs("__getitem__")
    def test_a_place_that_is_not_there_is_an_index_error(self, filled: Any) -> None:
        """Behind either end."""
        for place in (len(self.items), -len(self.items) - 1):
            with pytest.raises(IndexError):
                filled[place]

    @needs("__iter__")
    def test_it_keeps_the_order(self, filled: Any) -> None:
        """It is iterated as it was filled."""
        assert plain(list(filled)) == plain(list(self.items))

    @needs("__contains__")
    def test_in_looks_for_an_item(self, filled: Any) -> None:
        """By ``==``."""
        assert all(item in filled for item in self.items)
        assert "somewhere else" not in filled

    @needs("pop")
    def test_pop_gives_and_removes_the_last(self, filled: Any) -> None:
        """Until it is empty; then it is an `IndexError`."""
        assert [plain(filled.pop()) for _ in self.items] == [plain(item) for item in self.items[::-1]]
        with pytest.raises(IndexError):
            filled.pop()

    # -- what it is as a whole

    def test_it_is_compared_by_content(self, filled: Any) -> None:
        """With a list, from either side; and it has no hash."""
        assert filled == list(self.items) and list(self.items) == filled
        assert filled != list(self.items[1:])
        with pytest.raises(TypeError, match="unhashable"):
            hash(filled)

    @needs("copy")
    def test_a_copy_is_a_plain_list(self, filled: Any) -> None:
        """The caller's own: what is done to it is done to nothing else."""
        copy = filled.copy()
        assert type(copy) is list and plain(copy) == plain(list(self.items))
        copy.clear()
        assert filled == list(self.items)

    # -- who sees it

    @needs("append")
    def test_everybody_sees_it_at_once(self, place: Place, subject: Any) -> None:
        """As soon as a write has returned, every other process reads it, whatever it has read and kept before."""
        theirs = self.again(place.connect(), subject)
        written: list[Any] = []
        for item in [*self.items] * 5:
            subject.append(item)
            written.append(item)
            assert [plain(list(theirs)), len(theirs), len(theirs)] == [plain(written), len(written), len(written)]

    @needs("append")
    def test_what_many_append_is_all_there(self, place: Place, subject: Any) -> None:
        """Nobody overwrites anybody, and what one appends stays in its order."""
        item = self.items[0]

        def work(proxy: Any) -> None:
            for _ in range(40):
                proxy.append(item)

        with Other(place) as one, Other(place) as two:
            working = [each.submit(work, self.again(each.client, subject)) for each in (one, two)]
            for future in working:
                settled(future)
        assert len(subject) == 80

    @only(SERVED)
    @needs("append")
    def test_a_cut_connection_loses_nothing(self, place: Place, subject: Any) -> None:
        """What is appended is there once."""
        for item in self.items:
            place.server.cut()
            subject.append(item)
        assert plain(list(subject)) == plain(list(self.items))

    # -- all of it

    @needs("append", "__iter__")
    def test_any_series_of_calls_does_what_it_does_to_a_list(self, place: Place) -> None:
        """Results, errors and content are those of a list, whichever client makes a call."""
        items, places = st.sampled_from(self.items), st.integers(-3, 3)
        slices = st.builds(slice, places | st.none(), places | st.none())
        known = {
            "__contains__": step("__contains__", items),
            "__delitem__": step("__delitem__", places),
            "__getitem__": step("__getitem__", places) | step("__getitem__", slices),
            "__len__": step("__len__"),
            "__reversed__": step("__reversed__"),
            "__setitem__": step("__setitem__", places, items),
            "append": step("append", items),
            "clear": step("clear"),
            "count": step("count", items),
            "extend": step("extend", st.lists(items, max_size=3)),
            "index": step("index", items),
            "insert": step("insert", places, items),
            "pop": step("pop") | step("pop", places),
            "remove": step("remove", items),
            "reverse": step("reverse"),
        }
        exposed = self.declaration.interface.exposed
        steps: st.SearchStrategy[Step] = st.one_of(*[each for method, each in known.items() if method in exposed])
        self.agree(place, steps, lambda: list(self.items), lambda target: plain(list(target)), self.fill)

    @only(DURABLE)
    @needs("append", "__iter__")
    def test_it_outlives_its_server(self, place: Place) -> None:
        """With a log the items are there when the server was killed."""

        def before(subject: Any) -> Any:
            self.fill(subject, self.items)
            return plain(list(self.items))

        self.outlives(place.name, before, lambda subject: plain(list(subject)))
