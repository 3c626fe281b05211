"""Sessions: sets of sequence numbers as ranges, and what acknowledgements make a session forget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from registry._leaves import Caller
from registry._sessions import Ranges, Reply, Session

numbers = st.integers(1, 40)


def rows_of(members: set[int]) -> tuple[tuple[int, int], ...]:
    """Return a set as ranges, the slow way."""
    firsts = sorted(number for number in members if number - 1 not in members)
    lasts = sorted(number for number in members if number + 1 not in members)
    return tuple(zip(firsts, lasts))


@given(st.lists(st.tuples(st.booleans(), numbers, st.integers(0, 6))))
def test_ranges_are_a_set(steps: list[tuple[bool, int, int]]) -> None:
    """Ranges hold what a set would, in the fewest rows."""
    ranges, model = Ranges(), set()
    for adds, number, length in steps:
        if adds:
            ranges.add(number, number + length)
            model |= set(range(number, number + length + 1))
        else:
            ranges.discard_through(number)
            model = {member for member in model if member > number}
        assert ranges.rows() == rows_of(model)
        assert bool(ranges) == bool(model)
        assert {number for number in range(50) if number in ranges} == model
        assert Ranges(ranges.rows()).rows() == ranges.rows()


def test_ranges_are_bounded() -> None:
    """Past so many gaps the lowest are closed."""
    ranges = Ranges()
    for number in range(0, 4 * Ranges.MOST, 2):
        ranges.add(number, number)
    assert len(ranges.rows()) == Ranges.MOST
    assert ranges.rows()[0][0] == 0
    assert 4 * Ranges.MOST - 3 not in ranges


def make_session(*replies: int) -> Session:
    """Make a session that remembers some replies."""
    session = Session(1, b"k", Caller(label="label"), "")
    for seq in replies:
        session.replies[seq] = Reply(17, b"", seq)
    return session


def test_the_mark_forgets_all_up_to_it() -> None:
    """Replies at or below the mark are forgotten, and the mark never goes back."""
    session = make_session(1, 2, 3, 1000)
    session.acknowledge(2)
    assert list(session.replies) == [3, 1000]
    session.acknowledge(1)
    assert session.mark == 2
    session.acknowledge(999)
    assert list(session.replies) == [1000]
    assert session.is_stale(999)
    assert not session.is_stale(1000)


def test_the_set_above_the_mark_forgets_the_rest() -> None:
    """Replies above the mark are forgotten one by one, and are stale from then on."""
    session = make_session(2, 3, 5, 6)
    session.acknowledge(0, [(2, 3), (6, 6)])
    assert list(session.replies) == [5]
    assert [seq for seq in range(1, 8) if session.is_stale(seq)] == [2, 3, 6]
    session.acknowledge(4, [(1, 2)])
    assert session.above.rows() == ((6, 6),)
    assert [seq for seq in range(1, 8) if session.is_stale(seq)] == [1, 2, 3, 4, 6]


@given(st.lists(st.tuples(numbers, st.lists(st.tuples(numbers, numbers), max_size=3)), max_size=8))
def test_acknowledging_twice_changes_nothing(steps: list[tuple[int, list[tuple[int, int]]]]) -> None:
    """A resent acknowledgement has no effect, and what is stale stays so."""
    session = make_session(*range(1, 80))
    stale: set[int] = set()
    for mark, above in steps:
        session.acknowledge(mark, above)
        rows, kept = session.above.rows(), list(session.replies)
        session.acknowledge(mark, above)
        assert (session.above.rows(), list(session.replies)) == (rows, kept)
        now = {seq for seq in range(1, 80) if session.is_stale(seq)}
        assert stale <= now
        assert now.isdisjoint(kept)
        assert now | set(kept) == set(range(1, 80))
        stale = now
