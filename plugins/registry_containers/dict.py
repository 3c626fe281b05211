"""A dict that many processes read and write.

Promise
    Each method is one step: nobody sees half of a `Dict.update`, and `Dict.items` shows one moment. Three
    verbs change a value without losing what others wrote: `Dict.incr` for numbers, `Dict.edit` for a change
    inside a value, `Dict.compare_and_set` for everything else. Values are kept as they came and are never
    decoded here; keys are decoded, and equal as in any dict: ``1``, ``1.0`` and ``True`` are one key. Order
    is that of a dict.

Cost
    =========================================================== ===================================
    ``d[k]``, ``d[k] = v``, ``del``, ``in``, ``len``, ``get``,
    ``pop``, ``popitem``, ``setdefault``, ``incr``,
    ``compare_and_set``                                         O(1)
    ``edit``                                                    O(1) to take a turn, and to end one;
                                                                O(keys waited for) to wait for one
    ``update``, ``get_many``                                    O(entries given), in one step
    iteration, ``keys``, ``values``, ``items``, ``copy``        O(entries), in one step
    ``clear``                                                   O(entries)
    =========================================================== ===================================

Failure
    *An editor dies*, or its thread ends: its turn goes to the next in line, and it has written nothing.
    *An editor lives but never ends*: all who edit that key wait, plain writes go on, and the editor's own
    write is then refused with `EditConflict`. Of two who each hold a turn the other wants the second is told
    that it is a `Deadlock`: take the turns of several keys in one order everywhere, or keep what changes
    together under one key.
    *A waiter dies*: its place in line goes, nobody else notices.
    *The server dies*: turns and line are state like the entries, and come back with them from the log.
    Without a log all is gone, and every client is told so once.

    What stays possible: ``d[k] += 1`` is a read and a write, and what others wrote in between is lost. ::

        A: d["n"] += 1    reads 5               writes 6
        B: d["n"] += 1            reads 5               writes 6, and one count is lost

Example::

    >>> import registry
    >>> with registry.connect("memory://") as shared:
    ...     prices = shared.dict("prices")
    ...     prices["BTC"] = {"usd": 97_000}
    ...     with prices.edit("BTC") as value:
    ...         value["eur"] = 89_000
    ...     prices["BTC"]
    {'usd': 97000, 'eur': 89000}
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, Final

from registry.errors import EditConflict
from registry.hosting import Caller, Carried, Holder, Owner, Waiter, Waiters, call, carry

__all__ = ["Dict"]

# Stands for an argument that was not given, since None is a value like any other.
_MISSING: Final[Any] = object()

_CARRIED: Final = frozenset({Carried})


class Dict:
    """Share a dict."""

    gives_back = ("edit",)

    # Versions and turns are drawn from one count that only grows, so that a key that was deleted and written
    # anew can never pass for the one that somebody has read.

    def __init__(self) -> None:
        self._count = 0
        self._values: dict[Hashable, Carried] = {}
        # The versions of the values that somebody has read to change them; a write ends them.
        self._versions: dict[Hashable, int] = {}
        # The turns under way: number, who has it, the version that was read, how people are told of them, and since
        # when.
        self._turns: dict[Hashable, tuple[int, Owner, int, Caller, float]] = {}
        # Who waits for a turn. A line ends with the last turn of its key.
        self._lines: dict[Hashable, Waiters] = {}

    # -- what a dict has ---------------------------------------------------------------------------

    def __getitem__(self, key: Hashable) -> Carried:
        return self._values[key]

    def __setitem__(self, key: Hashable, value: object) -> None:
        self._store(key, carry(value))

    def __delitem__(self, key: Hashable) -> None:
        del self._values[key]
        self._versions.pop(key, None)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._values)

    def get(self, key: Hashable, default: object = None) -> object:
        """Return the value of `key`, or `default` where there is none."""
        return self._values.get(key, default)

    def get_many(self, keys: Iterable[Hashable]) -> dict[Hashable, Carried]:
        """Return those of the keys that are there, with their values, in the order in which they were asked for."""
        values = self._values
        return {key: values[key] for key in keys if key in values}

    def pop(self, key: Hashable, default: object = _MISSING) -> object:
        """Remove `key` and return its value, or `default` where there is none.

        Raises:
            KeyError: There is no such key, and no default was given.
        """
        self._versions.pop(key, None)
        return self._values.pop(key) if default is _MISSING else self._values.pop(key, default)

    def popitem(self) -> tuple[Hashable, Carried]:
        """Remove the entry that was added last, and return its key and value."""
        if not self._values:
            raise KeyError("popitem(): dictionary is empty")
        key, value = self._values.popitem()
        self._versions.pop(key, None)
        return key, value

    def setdefault(self, key: Hashable, default: object = None) -> Carried:
        """Return the value of `key`; where there is none, store `default` and return it."""
        value = self._values.get(key)
        return self._store(key, carry(default)) if value is None else value

    def clear(self) -> None:
        """Remove every entry."""
        self._values.clear()
        self._versions.clear()

    def update(
        self,
        other: Mapping[Hashable, object] | Iterable[tuple[Hashable, object]] = (),
        /,
        **values: object,
    ) -> None:
        """Store the entries of a mapping or of pairs, and those given by keyword: all of them, or none."""
        given: dict[Hashable, Any] = dict(other, **values) if values or type(other) is not dict else other
        if not _CARRIED.issuperset(map(type, given.values())):
            given = {key: carry(value) for key, value in given.items()}
        self._values.update(given)
        if self._versions:
            for key in given:
                self._versions.pop(key, None)

    def keys(self) -> list[Hashable]:
        """Return the keys."""
        return list(self._values)

    def values(self) -> list[Carried]:
        """Return the values."""
        return list(self._values.values())

    def items(self) -> list[tuple[Hashable, Carried]]:
        """Return the keys with their values."""
        return list(self._values.items())

    def copy(self) -> dict[Hashable, Carried]:
        """Return the content as a plain dict."""
        return dict(self._values)

    # -- changes that lose nothing -----------------------------------------------------------------

    def incr(self, key: Hashable, by: int | float = 1) -> int | float:
        """Add `by` to the number of `key`, and return the new value. A missing key starts at 0.

        Raises:
            TypeError: `by` or the present value is not exactly an int or a float.
        """
        entry = self._values.get(key)
        present = 0 if entry is None else _number(entry)
        if present is None:
            raise TypeError(f"the value of {key!r} is not a number; to change it use edit({key!r})")
        if type(by) is not int and type(by) is not float:
            raise TypeError(f"by must be an int or a float, not {by!r} ({type(by).__name__})")
        value = present + by
        self._store(key, Carried.of(value))
        return value

    def compare_and_set(
        self, key: Hashable, expected: object, value: object, version: int | None = None
    ) -> bool | list[object]:
        """Store `value` if the present one is `expected`. A missing key never is.

        Args:
            key: The key; it must be there.
            expected: What the caller believes the value to be. Here values are compared by their encoding, in
                which 1 and 1.0 differ.
            value: What to store.
            version: Where a caller wants to compare by ``==``: 0 at first, then the version that it was told,
                if it found the value that came with it to be equal.

        Returns:
            Whether it was stored; with a `version` that did not decide it, the present version and value.
        """
        present = self._values.get(key)
        if present is None:
            return False
        if present == carry(expected) or (version is not None and version == self._versions.get(key)):
            self._store(key, carry(value))
            return True
        return False if version is None else [self._version(key), present]

    def edit(self, key: Hashable, turn: int | None = None, value: object = _MISSING) -> object:
        """Take the turn of `key`, or end it; proxies make a ``with`` block of this.

        ``edit(key)`` waits, first come, first served, while another thread, task or process has the turn,
        and returns the turn with the value. ``edit(key, turn)`` gives it up. ``edit(key, turn, value)``
        stores the value and gives it up.

        Raises:
            KeyError: There is no such key by the time that the turn comes.
            RuntimeError: The caller has the turn already.
            EditConflict: The key was written or deleted since the turn began, and nothing was stored; or the
                turn is no longer the caller's.
            Deadlock: Whoever has the turn waits for something that the caller has.
            LockLost: A lock is lost in whose block this was called: the turn ends, and nothing was stored.
        """
        step = call()
        if turn is None:
            if step.lost is not None:
                raise step.lost
            return self._take_turn(key)
        held = self._turns.get(key)
        # Any thread of the process may end it: a `with` block can be left elsewhere than it was entered.
        if held is None or held[0] != turn or held[1].session != step.session.session:
            raise EditConflict(step.title, repr(key))
        if step.lost is not None:
            self._pass_on(key)
            raise step.lost
        if value is _MISSING:
            self._pass_on(key)
            return None
        fresh = carry(value)
        unchanged = self._versions.get(key) == held[2]
        if unchanged:
            self._store(key, fresh)
        self._pass_on(key)
        if not unchanged:
            raise EditConflict(step.title, repr(key))
        return None

    # -- what the engine calls ---------------------------------------------------------------------

    def owner_ended(self, owner: Owner) -> None:
        """Free the turns of an owner that has ended."""
        for key in [key for key, held in self._turns.items() if owner.covers(held[1])]:
            self._pass_on(key)

    def take_back(self, value: object) -> bool:
        """Give back the turn of an edit that its caller never heard of. Nothing else can be undone."""
        if isinstance(value, list):
            for key, held in self._turns.items():
                if held[0] == value[0]:
                    self._pass_on(key)
                    return True
        return False

    def came_back(self, waiter: Waiter) -> None:
        """Give the turn to somebody who could not be reached when it was free."""
        for key, line in self._lines.items():
            if key not in self._turns and waiter in line:
                self._hand_on(key)
                break

    def blocked_by(self, waiter: Waiter) -> list[list[Owner]] | None:
        """Return who has the turn that somebody waits for."""
        for key, line in self._lines.items():
            if line is waiter.home and key in self._turns:
                return [[self._turns[key][1]]]
        return None

    def holders(self) -> list[Holder]:
        """Return who has the turn of a key, and of which; a turn has no grant."""
        return [Holder(turn[1], turn[3], turn[4], 0, {"key": repr(key)}) for key, turn in self._turns.items()]

    def state(self) -> list[object]:
        """Return the state as a row, which is shorter."""
        return [self._count, self._values, self._versions, self._turns, self._lines]

    def load(self, state: list[Any]) -> None:
        """Take what `state` returned."""
        self._count, self._values, self._versions, self._turns, self._lines = state

    def statistics(self) -> dict[str, object]:
        """Return the number of entries, and of keys that are being edited."""
        return {"entries": len(self._values), "editing": len(self._turns)}

    # -- within ------------------------------------------------------------------------------------

    def _store(self, key: Hashable, value: Carried) -> Carried:
        self._values[key] = value
        if self._versions:
            self._versions.pop(key, None)
        return value

    def _version(self, key: Hashable) -> int:
        """Return the version of the value of `key`, which is its own from now on until the next write."""
        version = self._versions.get(key)
        if version is None:
            self._count += 1
            version = self._versions[key] = self._count
        return version

    def _take_turn(self, key: Hashable) -> Waiter | list[object]:
        step = call()
        owner = step.owner
        held = self._turns.get(key)
        if held is None:
            if key not in self._values:
                raise KeyError(key)
            return self._give_turn(key, owner, step.caller)
        if held[1] == owner:
            raise RuntimeError(
                f"this thread or task is editing {key!r} of {step.title} already; leave that block first"
            )
        return self._lines.setdefault(key, Waiters()).wait()

    def _give_turn(self, key: Hashable, owner: Owner, caller: Caller) -> list[object]:
        value, version = self._values[key], self._version(key)
        self._count += 1
        self._turns[key] = (self._count, owner, version, caller, call().now)
        return [self._count, value]

    def _pass_on(self, key: Hashable) -> None:
        """End the turn of `key`; the next in line has it, or learns that the key is gone."""
        del self._turns[key]
        self._hand_on(key)

    def _hand_on(self, key: Hashable) -> None:
        """Give the turn of `key`, which nobody has, to the next in line."""
        line = self._lines.get(key)
        if line is None:
            return
        if key not in self._values:
            line.wake_all(KeyError(key))
        elif line.first is not None:
            line.wake(self._give_turn(key, line.first.owner, line.first.caller))
        if not line:
            del self._lines[key]


def _number(value: Carried) -> int | float | None:
    """Return what is carried if it is exactly an int or a float, else None."""
    try:
        scalar = value.scalar()
    except TypeError:
        return None
    return scalar if type(scalar) is int or type(scalar) is float else None
