"""Mappings, sequences and sets: compared by content, every verb one call, what they read a snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from time import monotonic
from typing import TYPE_CHECKING, Any

from registry._codec import carry_dict, carry_list
from registry._leaves import OpaqueValue
from registry.errors import EditConflict, LockLost, RegistryError, SnapshotError
from registry.proxies._base import Proxy, item, taking
from registry.proxies._blocks import Hold, Leaving, leaving, opening

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from weakref import ref

    from typing_extensions import Self


ATTEMPTS = 1000  # of a comparison, before a server is told that changes what is there each time


class Container(Proxy):
    """Compare by content; have no hash, as containers have none."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def _content(self) -> Any:
        raise TypeError(f"{self!r} does not show its content")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Container):
            return self._identity() == other._identity() or bool(self._content() == other._content())
        return bool(self._content() == other)


class MappingShape(Container):
    """A mapping in which every verb is one call."""

    __slots__ = ()
    __getitem__ = item

    def _content(self) -> Any:
        return self._call("copy") if "copy" in self._interface.exposed else dict(self._call("items"))

    def get(self, key: object, default: Any = None) -> Any:
        """Return the value of `key`, or `default`, which never leaves this process."""
        try:
            kind, value, view, place, word, words, _ = self._items[key]
            if view[place] == word and monotonic() < words.until and type(key) is kind:
                return value
        except (KeyError, TypeError):
            pass
        try:
            return self._read("__getitem__", (key,))
        except KeyError:
            return default

    def pop(self, key: object, *default: Any) -> Any:
        """Remove `key` and return its value, plain: it is the caller's now."""
        try:
            return self._call("pop", key)
        except KeyError:
            if default:
                return default[0]
            raise

    def copy(self) -> dict[Any, Any]:
        """Return the whole mapping of one moment as a plain dict."""
        return dict(self._content())

    def keys(self) -> Any:
        """Return the keys of one moment."""
        return self._read("keys", ())

    def values(self) -> Any:
        """Return the values of one moment."""
        return self._read("values", ())

    def items(self) -> Any:
        """Return the pairs of one moment."""
        return self._read("items", ())

    def __iter__(self) -> Iterator[Any]:
        return iter(self._call("__iter__"))

    def update(self, other: Any = (), /, **kwargs: Any) -> None:
        """Set many keys in one call, at one moment."""
        given: dict[Any, Any] = {}
        given.update(other.items() if isinstance(other, MappingShape) else other)
        given.update(kwargs)
        # Each value is encoded by itself where the class keeps any without decoding it.
        self._call("update", carry_dict(given, self._remote.carry) if self._interface.carried else given)

    def compare_and_set(self, key: object, expected: object, value: object) -> bool:
        """Set `key` if its value equals `expected`; one call where the two are spelled alike."""
        version = 0
        for _ in range(ATTEMPTS):
            answer = self._call("compare_and_set", key, expected, value, version)
            if isinstance(answer, bool):
                return answer
            version, present = answer
            if present != expected:
                return False
        remote = self._remote
        raise RegistryError(
            f"{remote.title}.compare_and_set() on server {remote.home.link().label}: it changes its mind about what is "
            f"there, {ATTEMPTS} times by now; nothing was set"
        )

    def edit(self, key: object) -> Edit:
        """Change the value of `key` in place: ``with d.edit(key) as v``."""
        return Edit(self, key)


class Edit:
    """The turn to change one value of a mapping.

    Entering takes the key's turn, first come, first served, and gives a plain copy. Leaving writes it back, unless
    somebody wrote or deleted the key meanwhile: then `EditConflict`, and nothing is changed. An exception in the body
    writes nothing.
    """

    def __init__(self, proxy: MappingShape, key: object) -> None:
        self._proxy = proxy
        self._remote = proxy._remote
        self._key = key
        self._value: Any = None
        self._hold: Hold | None = None
        self._turn = 0
        self.opening: ref[Leaving] | None = None

    @taking
    def __enter__(self) -> Any:
        block = opening(self)
        proxy = self._proxy
        self._turn, self._value = proxy._call("edit", self._key)
        if not _is_mutable(self._value):
            proxy._call("edit", self._key, self._turn)
            raise SnapshotError(
                f"the value of {proxy._remote.name!r}[{self._key!r}] is {_article(self._value)}, which cannot be "
                f"changed in place; for numbers there is incr({self._key!r}, by), for the rest compare_and_set"
            )
        self._hold = hold = Hold(self._remote, None, "edit", self._key, self._turn)
        if block is not None:
            block.hold = hold
        return self._value

    @leaving
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        hold: Hold | None = None,
    ) -> None:
        hold = self._hold
        if hold is None:
            return  # it was never entered
        try:
            if kind is None:
                hold.finish(self._key, self._turn, self._value)
            else:
                hold.finish()
        except LockLost as lost:
            if kind is None:
                remote = self._remote
                if lost.object != remote.title:
                    raise  # a lock in whose block the edit stands
                raise EditConflict(remote.title, repr(self._key), remote.home.link().label) from None
        except RegistryError:
            # The body's own error tells more.
            if kind is None:
                raise

    def _here(self) -> Edit:
        return self


_IMMUTABLE = (type(None), bool, int, float, complex, str, bytes, tuple, frozenset)


def _is_mutable(value: object) -> bool:
    return not isinstance(value, (*_IMMUTABLE, OpaqueValue))


def _article(value: object) -> str:
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


class SequenceShape(Container):
    """A sequence; iteration and comparison take one call, and so does whatever is given many values."""

    __slots__ = ()
    __getitem__ = item

    def _content(self) -> Any:
        return self._call("copy") if "copy" in self._interface.exposed else list(self._call("__iter__"))

    def _given(self, values: Iterable[object]) -> object:
        """Return what is sent for many values: each encoded by itself where the class decodes none."""
        content = values._content() if isinstance(values, SequenceShape) else list(values)
        return carry_list(content, self._remote.carry) if self._interface.carried else content

    def __setitem__(self, index: object, value: Any) -> None:
        if isinstance(index, slice):
            value = self._given(value)
        elif self._interface.carried:
            value = self._remote.carry(value)
        self._call("__setitem__", index, value)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._read("__iter__", ()))

    def __iadd__(self, values: Iterable[object]) -> Self:
        self.extend(values)
        return self

    def extend(self, values: Iterable[object]) -> None:
        """Add values at the end, in one call."""
        self._call("extend", self._given(values))

    def copy(self) -> list[Any]:
        """Return the whole sequence of one moment as a plain list."""
        return list(self._content())


class SetShape(Container):
    """A set; iteration and comparison take one call.

    What a set becomes by ``|=`` and its kin it becomes in one call; ``|`` and its kin give a plain set.
    """

    __slots__ = ()

    def _content(self) -> Any:
        return self._call("copy") if "copy" in self._interface.exposed else set(self._call("__iter__"))

    def __iter__(self) -> Iterator[Any]:
        return iter(self._call("__iter__"))

    def copy(self) -> set[Any]:
        """Return the whole set of one moment as a plain set."""
        return set(self._content())


def _plain(other: object) -> Any:
    return other._content() if isinstance(other, SetShape) else other


def _returning(name: str, reflected: bool = False) -> Callable[[SetShape, object], Any]:
    """Return the operator that makes a plain set, or compares, out of the content of one moment."""

    def operator(self: SetShape, other: object) -> Any:
        given = _plain(other)
        if not isinstance(given, AbstractSet):
            return NotImplemented
        mine = set(self._content())
        return getattr(set(given), name)(mine) if reflected else getattr(mine, name)(set(given))

    return operator


def _changing(method: str) -> Callable[[SetShape, object], Any]:
    """Return the operator that changes the set in one call."""

    def operator(self: SetShape, other: object) -> Any:
        given = _plain(other)
        if not isinstance(given, AbstractSet):
            return NotImplemented
        self._call(method, given)
        return self

    return operator


for _name, _method in (
    ("or", "update"),
    ("and", "intersection_update"),
    ("sub", "difference_update"),
    ("xor", "symmetric_difference_update"),
):
    setattr(SetShape, f"__{_name}__", _returning(f"__{_name}__"))
    setattr(SetShape, f"__r{_name}__", _returning(f"__{_name}__", reflected=True))
    setattr(SetShape, f"__i{_name}__", _changing(_method))
for _name in ("lt", "le", "gt", "ge"):
    setattr(SetShape, f"__{_name}__", _returning(f"__{_name}__"))
