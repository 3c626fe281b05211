"""The laws of a mapping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st

from registry.errors import EditConflict, SnapshotError
from registry.testing.laws._laws import DURABLE, SERVED, Laws, Other, Place, Step, needs, only, plain, settled, step


class MappingLaws(Laws):
    """What everybody expects of a mapping.

    Attributes:
        keys: What is used as keys: at least three, none equal to another.
        values: What is used as values.
    """

    shape: ClassVar[str] = "mapping"
    keys: ClassVar[Sequence[Any]] = ("a", "b", "c", 4, (5, "e"))
    values: ClassVar[Sequence[Any]] = (1, "two", None, [3, {"four": (5,)}])

    def fill(self, subject: Any, content: Mapping[Any, Any]) -> None:
        """Give a new object its content, one key after the other."""
        for key, value in content.items():
            subject[key] = value

    def content(self) -> dict[Any, Any]:
        """Return the keys, but for the last, each with one of the values."""
        return {key: self.values[number % len(self.values)] for number, key in enumerate(self.keys[:-1])}

    @pytest.fixture
    def filled(self, subject: Any) -> Any:
        """Make an object with something in it."""
        self.fill(subject, self.content())
        return subject

    # -- what is in it

    def test_it_begins_empty(self, subject: Any) -> None:
        """A new one has nothing in it, and is false."""
        assert (len(subject), list(subject), bool(subject)) == (0, [], False)

    @needs("__getitem__")
    def test_what_is_put_is_there(self, filled: Any) -> None:
        """Each key has its value, and of the same types."""
        for key, value in self.content().items():
            assert plain(filled[key]) == plain(value)
        assert len(filled) == len(self.content())
        assert bool(filled)

    @needs("__getitem__", "__setitem__")
    def test_the_last_value_counts(self, filled: Any) -> None:
        """A key that is written again has the new value, in the old place."""
        for value in self.values:
            filled[self.keys[0]] = value
            assert plain(filled[self.keys[0]]) == plain(value)
        assert list(filled) == list(self.content())

    @needs("__getitem__")
    def test_a_missing_key_is_a_key_error(self, filled: Any) -> None:
        """It names the key, as that of a dict does."""
        with pytest.raises(KeyError) as caught:
            filled[self.keys[-1]]
        assert caught.value.args == (self.keys[-1],)

    @needs("__contains__")
    def test_in_tells_whether_a_key_is_there(self, filled: Any) -> None:
        """For keys that are, and for one that is not."""
        assert [key in filled for key in self.keys] == [True] * (len(self.keys) - 1) + [False]

    @needs("get")
    def test_get_has_a_default(self, filled: Any) -> None:
        """None, or what the caller gives, which is returned as itself."""
        default = object()
        assert filled.get(self.keys[-1]) is None
        assert filled.get(self.keys[-1], default) is default
        assert plain(filled.get(self.keys[0], default)) == plain(self.values[0])

    @needs("__iter__", "keys", "values", "items")
    def test_it_keeps_the_order(self, filled: Any) -> None:
        """Keys stand in the order in which they came; all views of one moment agree."""
        content = self.content()
        assert list(filled) == list(filled.keys()) == list(content)
        assert plain(list(filled.values())) == plain(list(content.values()))
        assert [tuple(pair) for pair in filled.items()] == list(content.items())

    @needs("__delitem__")
    def test_del_removes_a_key(self, filled: Any) -> None:
        """That key alone; a missing one is a `KeyError`, and nothing happens."""
        del filled[self.keys[0]]
        with pytest.raises(KeyError):
            del filled[self.keys[0]]
        assert list(filled) == list(self.content())[1:]

    @needs("pop")
    def test_pop_gives_and_removes(self, filled: Any) -> None:
        """The value is the caller's; a missing key gives the default, or else a `KeyError`."""
        value = filled.pop(self.keys[0])
        assert plain(value) == plain(self.values[0])
        default = object()
        assert filled.pop(self.keys[0], default) is default
        with pytest.raises(KeyError):
            filled.pop(self.keys[0])
        assert list(filled) == list(self.content())[1:]

    @needs("popitem")
    def test_popitem_gives_and_removes_a_pair(self, filled: Any) -> None:
        """Which one is for the class to say: a dict takes the last, a `MutableMapping` the first."""
        left = self.content()
        while left:
            key, value = filled.popitem()
            assert plain(value) == plain(left.pop(key))
            assert len(filled) == len(left)
        with pytest.raises(KeyError):
            filled.popitem()

    @needs("clear")
    def test_clear_removes_everything(self, filled: Any) -> None:
        """It is as it was in the beginning."""
        filled.clear()
        assert (len(filled), list(filled)) == (0, [])

    # -- what it is as a whole

    def test_it_is_compared_by_content(self, place: Place, filled: Any) -> None:
        """With a dict, with another one, from either side; and it has no hash, as containers have none."""
        content = self.content()
        assert filled == content and content == filled
        assert filled != {} and filled != 1
        if self.declaration.per == "name":
            other = self.make(place.client, "other")
            assert filled != other
            self.fill(other, content)
            assert filled == other
        with pytest.raises(TypeError, match="unhashable"):
            hash(filled)

    @needs("copy")
    def test_a_copy_is_a_plain_dict(self, filled: Any) -> None:
        """The caller's own, all the way down: what is done to it is done to nothing else."""
        copy = filled.copy()
        assert type(copy) is dict and plain(copy) == plain(self.content())
        copy.clear()
        assert filled == self.content()

    @needs("__getitem__", "__setitem__")
    def test_what_a_read_returns_is_not_changed_in_place(self, filled: Any) -> None:
        """A container in a value refuses changes, which would be lost; of a copy they are not."""
        if not any(type(value) is list for value in self.values):
            return
        filled[self.keys[0]] = [1]
        with pytest.raises(SnapshotError, match="a change here would be lost"):
            filled[self.keys[0]].append(2)
        filled[self.keys[0]].copy().append(2)
        assert filled[self.keys[0]] == [1]

    # -- who sees it

    @needs("__setitem__")
    def test_everybody_sees_it_at_once(self, place: Place, filled: Any) -> None:
        """As soon as a write has returned, every other process reads it, whatever it has read and kept before."""
        asking = self.again(place.connect(cache=False), filled)
        theirs = self.again(place.connect(), filled)
        for value in [*self.values] * 3:
            for key in self.keys:
                filled[key] = value
                assert plain(theirs.get(key)) == plain(value)
                for each in self.keys:
                    assert plain(theirs.get(each)) == plain(asking.get(each))

    @only(SERVED)
    @needs("__setitem__")
    def test_a_cut_connection_loses_nothing(self, place: Place, filled: Any) -> None:
        """What was written is there, and the next write is made once."""
        for value in self.values:
            place.server.cut()
            filled[self.keys[0]] = value
            place.server.cut()
            assert plain(filled.get(self.keys[0])) == plain(value)

    # -- changes that lose nothing

    @needs("incr", "__setitem__")
    def test_counts_are_not_lost(self, place: Place, subject: Any) -> None:
        """Everybody counts at once, and every count is in the sum."""
        key = self.keys[0]
        with Other(place) as one, Other(place) as two:
            counting = [
                each.submit(lambda proxy: [proxy.incr(key) for _ in range(50)], self.again(each.client, subject))
                for each in (one, two)
            ]
            counts = [number for future in counting for number in settled(future)]
        assert sorted(counts) == list(range(1, 101))
        assert subject[key] == 100

    @needs("edit", "__setitem__")
    def test_edit_changes_in_place(self, subject: Any) -> None:
        """What the block leaves is written; an exception in it writes nothing; a missing key is a `KeyError`."""
        key = self.keys[0]
        subject[key] = [1]
        with subject.edit(key) as value:
            value.append(2)
        assert subject[key] == [1, 2]
        with pytest.raises(ZeroDivisionError), subject.edit(key) as value:
            value.append(1 / 0)
        assert subject[key] == [1, 2]
        with pytest.raises(KeyError), subject.edit(self.keys[1]):
            pass

    @needs("edit", "__setitem__")
    def test_a_write_during_an_edit_is_not_lost(self, place: Place, subject: Any) -> None:
        """The edit ends with a conflict, and changes nothing."""
        key = self.keys[0]
        subject[key] = [1]
        with Other(place) as somebody:
            theirs = self.again(somebody.client, subject)
            with pytest.raises(EditConflict), subject.edit(key) as value:
                value.append(2)
                somebody.run(theirs.__setitem__, key, [3])
        assert subject[key] == [3]

    @needs("compare_and_set", "__setitem__")
    def test_compare_and_set_compares(self, subject: Any) -> None:
        """It stores where the value equals what is expected, by ``==``; a missing key equals nothing."""
        key = self.keys[0]
        subject[key] = 1
        assert subject.compare_and_set(key, 2, 3) is False
        assert subject.compare_and_set(key, 1.0, 3) is True
        assert subject.compare_and_set(self.keys[1], None, 3) is False
        assert subject == {key: 3}

    # -- all of it

    @needs("__setitem__", "items")
    def test_any_series_of_calls_does_what_it_does_to_a_dict(self, place: Place) -> None:
        """Results, errors and content are those of a dict, whichever client makes a call."""
        keys, values = st.sampled_from(self.keys), st.sampled_from(self.values)
        pairs = st.dictionaries(keys, values, max_size=3)
        known = {
            "__contains__": step("__contains__", keys),
            "__delitem__": step("__delitem__", keys),
            "__getitem__": step("__getitem__", keys),
            "__iter__": step("__iter__"),
            "__len__": step("__len__"),
            "__setitem__": step("__setitem__", keys, values),
            "clear": step("clear"),
            "get": step("get", keys) | step("get", keys, values),
            "pop": step("pop", keys) | step("pop", keys, values),
            "setdefault": step("setdefault", keys, values),
            "update": step("update", pairs),
        }
        exposed = self.declaration.interface.exposed
        steps: st.SearchStrategy[Step] = st.one_of(*[each for method, each in known.items() if method in exposed])
        self.agree(place, steps, self.content, _content, self.fill)

    @only(DURABLE)
    @needs("__setitem__", "items")
    def test_it_outlives_its_server(self, place: Place) -> None:
        """With a log the content is there when the server was killed, in the same order."""

        def before(subject: Any) -> Any:
            self.fill(subject, self.content())
            return plain(self.content())

        self.outlives(place.name, before, _content)


def _content(target: Any) -> Any:
    """Return what a mapping holds, as something that can be compared."""
    return plain(dict(target.items()))
