"""The laws of a set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st

from registry.testing.laws._laws import DURABLE, SERVED, Laws, Place, Step, needs, only, step


class SetLaws(Laws):
    """What everybody expects of a set.

    Attributes:
        items: What is used as items: at least three, none equal to another.
    """

    shape: ClassVar[str] = "set"
    items: ClassVar[Sequence[Any]] = ("a", 2, None, (3, "four"))

    def fill(self, subject: Any, content: Iterable[Any]) -> None:
        """Give a new object its content, one item after the other."""
        for item in content:
            subject.add(item)

    @pytest.fixture
    def filled(self, subject: Any) -> Any:
        """Make an object with the items in it, but for the last."""
        self.fill(subject, self.items[:-1])
        return subject

    # -- what is in it

    def test_it_begins_empty(self, subject: Any) -> None:
        """A new one has nothing in it, and is false."""
        assert (len(subject), set(subject), bool(subject)) == (0, set(), False)

    @needs("add")
    def test_an_item_is_in_it_once(self, filled: Any) -> None:
        """However often it is added."""
        for item in self.items[:-1]:
            filled.add(item)
        assert len(filled) == len(self.items) - 1
        assert set(filled) == set(self.items[:-1])

    @needs("__contains__")
    def test_in_tells_whether_an_item_is_there(self, filled: Any) -> None:
        """For items that are, and for one that is not."""
        assert [item in filled for item in self.items] == [True] * (len(self.items) - 1) + [False]

    @needs("remove")
    def test_remove_wants_it_to_be_there(self, filled: Any) -> None:
        """A missing item is a `KeyError`, and nothing happens."""
        filled.remove(self.items[0])
        with pytest.raises(KeyError):
            filled.remove(self.items[0])
        assert set(filled) == set(self.items[1:-1])

    @needs("discard")
    def test_discard_does_not(self, filled: Any) -> None:
        """An item that is not there is as good as removed."""
        for _ in range(2):
            filled.discard(self.items[0])
        assert set(filled) == set(self.items[1:-1])

    @needs("add", "discard")
    def test_a_change_may_be_told(self, filled: Any) -> None:
        """What `add` and `discard` return is nothing, as of a set, or whether something has changed."""
        known, missing = self.items[0], self.items[-1]
        told = [filled.add(known), filled.add(missing), filled.discard(missing), filled.discard(missing)]
        assert told in ([None] * 4, [False, True, True, False])

    # -- what it is as a whole

    def test_it_is_compared_by_content(self, filled: Any) -> None:
        """With a set, from either side; and it has no hash."""
        assert filled == set(self.items[:-1]) and set(self.items[:-1]) == filled
        assert filled != set(self.items)
        with pytest.raises(TypeError, match="unhashable"):
            hash(filled)

    @needs("copy")
    def test_a_copy_is_a_plain_set(self, filled: Any) -> None:
        """The caller's own: what is done to it is done to nothing else."""
        copy = filled.copy()
        assert type(copy) is set and copy == set(self.items[:-1])
        copy.clear()
        assert filled == set(self.items[:-1])

    # -- who sees it

    @needs("add", "discard", "__contains__")
    def test_everybody_sees_it_at_once(self, place: Place, subject: Any) -> None:
        """As soon as a write has returned, every other process reads it, whatever it has read and kept before."""
        theirs = self.again(place.connect(), subject)
        for item in [*self.items] * 3:
            subject.add(item)
            assert [each for each in self.items if each in theirs] == [item]
            assert len(theirs) == 1
            subject.discard(item)
            assert [each for each in self.items if each in theirs] == []
            assert not theirs

    @only(SERVED)
    @needs("add")
    def test_a_cut_connection_loses_nothing(self, place: Place, subject: Any) -> None:
        """What is added is there."""
        for item in self.items:
            place.server.cut()
            subject.add(item)
        assert set(subject) == set(self.items)

    # -- all of it

    @needs("add", "__iter__")
    def test_any_series_of_calls_does_what_it_does_to_a_set(self, place: Place) -> None:
        """Results, errors and content are those of a set, whichever client makes a call."""
        items = st.sampled_from(self.items)
        several = st.frozensets(items).map(set)
        known = {
            "__contains__": step("__contains__", items),
            "__len__": step("__len__"),
            "add": step("add", items, is_silent=True),
            "clear": step("clear"),
            "discard": step("discard", items, is_silent=True),
            "remove": step("remove", items),
            **{
                method: step(method, several)
                for method in (
                    "difference", "difference_update", "intersection", "intersection_update", "isdisjoint",
                    "issubset", "issuperset", "symmetric_difference", "symmetric_difference_update", "union", "update",
                )
            },
        }  # fmt: skip
        exposed = self.declaration.interface.exposed
        steps: st.SearchStrategy[Step] = st.one_of(*[each for method, each in known.items() if method in exposed])
        self.agree(place, steps, lambda: set(self.items[:-1]), lambda target: (len(target), set(target)), self.fill)

    @only(DURABLE)
    @needs("add", "__iter__")
    def test_it_outlives_its_server(self, place: Place) -> None:
        """With a log the items are there when the server was killed."""

        def before(subject: Any) -> Any:
            self.fill(subject, self.items)
            return set(self.items)

        self.outlives(place.name, before, set)
