"""Tests of the values with a leaf of their own."""

from __future__ import annotations

import contextlib
import copy
import pickle
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import _codec
from registry._leaves import Caller, Carried, Exit, Grant, Handle, OpaqueValue, Owner
from registry.errors import Closed

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
)


def test_a_session_covers_its_owners() -> None:
    """What an owner holds goes with it and with its session, and with nobody else."""
    session, thread = Owner(1, 0), Owner(1, 7)
    assert session.covers(thread)
    assert session.covers(session)
    assert thread.covers(thread)
    assert not thread.covers(session)
    assert not thread.covers(Owner(1, 8))
    assert not Owner(2, 0).covers(thread)


@pytest.mark.parametrize(
    "caller, text",
    [
        (Caller(), "process"),
        (Caller("web1", 812, "worker.py"), "worker.py (pid 812 on web1)"),
        (Caller("web1", 812, "worker.py", "Worker-3"), "worker.py (pid 812 on web1), thread Worker-3"),
        (Caller("web1", 812, "worker.py", "", "billing"), "billing (pid 812 on web1)"),
        (Caller("10.0.0.7"), "process on 10.0.0.7"),
        (Caller("", 812, "worker.py"), "worker.py (pid 812)"),
        (Caller(label="billing"), "billing"),
    ],
)
def test_people_are_told_of_a_caller(caller: Caller, text: str) -> None:
    """The label comes first, else the command; what is not known is not named."""
    assert str(caller) == text
    assert str(caller.process()) == text.partition(", thread")[0]


def test_handles_are_values() -> None:
    """Two handles of one object are equal, hash alike and survive pickling."""
    handle = Handle("unix:///x", "lock", "login")
    assert handle == pickle.loads(pickle.dumps(handle)) == Handle("unix:///x", "lock", "login")
    assert {handle: 1}[copy.copy(handle)] == 1
    assert handle != Handle("", "lock", "login")
    assert str(handle) == "lock:login"
    with pytest.raises(AttributeError):
        handle.name = "other"  # type: ignore[misc]


def test_an_opaque_value_says_what_it_stands_for() -> None:
    """Who cannot read a value learns its class and its writer."""
    assert repr(OpaqueValue("shop.Jar", "host:1000")) == "OpaqueValue(kind='shop.Jar', writer='host:1000')"


@given(SCALARS)
def test_a_carried_scalar_is_what_it_was(value: object) -> None:
    """A bare scalar comes back exactly, in the bytes that the codec writes for it."""
    carried = Carried.of(value)  # type: ignore[arg-type]
    back = carried.scalar()
    assert type(back) is type(value)
    assert repr(back) == repr(value)
    assert carried == _codec.carry(value)


@given(st.recursive(SCALARS, lambda item: st.lists(item) | st.tuples(item)))
def test_scalar_takes_scalars_alone(value: object) -> None:
    """A container is a TypeError and is not decoded."""
    carried = _codec.carry(value)
    if isinstance(value, (list, tuple)):
        with pytest.raises(TypeError, match="is not a bare scalar"):
            carried.scalar()
    else:
        assert repr(carried.scalar()) == repr(value)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x01\x02", b"\xa5abc", b"\xd4\x05\x01", b"\xd6\xff\0\0\0\0"])
def test_scalar_refuses_damage(data: bytes) -> None:
    """Bytes that are no scalar are a TypeError, whatever they are."""
    with pytest.raises(TypeError):
        Carried(data).scalar()


def test_scalar_refuses_opaque_bytes() -> None:
    """A pickle is not taken for typed bytes that it happens to look like."""
    with pytest.raises(TypeError):
        Carried(b"\x01", "host:1000", "int").scalar()


def test_only_scalars_are_made_from() -> None:
    """A container needs the codec."""
    with pytest.raises(TypeError, match="a list"):
        Carried.of([1])  # type: ignore[arg-type]


def test_carried_are_equal_by_bytes_and_domain() -> None:
    """The class of a pickle is only told; bytes and domain are the value."""
    assert Carried(b"a") == Carried(b"a")
    assert Carried(b"a", "d", "k") == Carried(b"a", "d", "other")
    assert Carried(b"a", "d") != Carried(b"a")
    assert Carried(b"a") != b"a"
    assert len({Carried(b"a"), Carried(b"a"), Carried(b"b")}) == 2
    again = pickle.loads(pickle.dumps(Carried(b"a", "d", "k")))
    assert (again.data, again.domain, again.kind) == (b"a", "d", "k")


def test_repr_of_carried_shows_no_content() -> None:
    """A log line may show a carried value without showing what it carries."""
    assert repr(Carried(b"abc")) == "<carried value, 3 bytes>"
    assert repr(Carried(b"abc", "host:1000", "shop.Jar")) == "<carried shop.Jar of host:1000, 3 bytes>"


def test_tokens_come_from_an_epoch() -> None:
    """A grant has a token if its server keeps an epoch; a refusal has none."""
    assert Grant(1 << 40).token == 1 << 40
    assert Grant(7).token is None
    assert Grant(0).token is None
    assert "keeps no epoch" in repr(Grant(7))
    assert repr(Grant(1 << 40, True)) == "<grant 1099511627776, abandoned by the last holder>"
    assert repr(Grant(0, holder="cron.py (pid 7)")) == "<no grant: cron.py (pid 7) holds it>"


def test_truth_is_the_number() -> None:
    """A grant is truthy, a refusal is falsy and names who holds it instead."""
    assert Grant(7)
    assert not Grant(0, holder="cron.py (pid 7)")


def test_grants_are_equal_by_their_fields() -> None:
    """A copy in another process is equal, and bound to nothing."""
    grant = Grant(7, True, "me", 1.5)
    grant._bond = Recorder()
    again = pickle.loads(pickle.dumps(grant))
    assert again == grant
    assert hash(again) == hash(grant)
    assert again._bond is None
    assert grant != Grant(8, True, "me", 1.5)
    assert grant != 7


class Recorder:
    """A bond that writes down what it is asked for."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def release(self, grant: Grant) -> None:
        """Record a release."""
        self.calls.append(("release", grant))

    @contextlib.contextmanager
    def guard(self, grant: Grant) -> Iterator[Grant]:
        """Record a guarded block."""
        self.calls.append(("guard", grant))
        yield grant

    def enter(self, grant: Grant) -> Grant:
        """Record a block's begin."""
        self.calls.append(("enter", grant))
        return grant

    def exit(self, grant: Grant) -> Exit:
        """Record a block's end."""

        def leave(kind: type[BaseException] | None, error: object, traceback: object) -> None:
            self.calls.append(("leave", grant, kind))

        return leave


def test_a_bound_grant_acts_through_its_bond() -> None:
    """Releasing, guarding and ``with`` are the client's doing."""
    grant = Grant(7)
    grant._bond = bond = Recorder()
    with grant as entered, grant.guard() as guarded:
        assert entered is guarded is grant
    grant.release()
    with pytest.raises(KeyError), grant:
        raise KeyError
    assert bond.calls == [
        ("enter", grant),
        ("guard", grant),
        ("leave", grant, None),
        ("release", grant),
        ("enter", grant),
        ("leave", grant, KeyError),
    ]


def test_an_unbound_grant_says_so() -> None:
    """The server's side, or a copy, cannot act on the lock."""
    with pytest.raises(Closed, match="use the grant that acquire"):
        Grant(7).release()
    with pytest.raises(Closed), Grant(7):
        pass
    with pytest.raises(Closed):
        Grant(7).guard()
