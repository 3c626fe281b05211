"""What a client keeps of what it has read, as long as the version words say that it is still so (`_words`).

An *entry* is a tuple:

====  =========  ===========================================================================================
item  name       value
====  =========  ===========================================================================================
0     `kind`     the exact type of the key; None where the place in the table says everything
1     `value`    what the read returned, if nobody can change it; else its encoding, which each read decodes
2     `view`     the words
3     `place`    of the word that it hangs on
4     `word`     the value of that word when it was read
5     `words`    the `Mapped` that it was read by
6     `size`     bytes of its encoding
====  =========  ===========================================================================================

An entry carries its words, so that one of an earlier server life can never be compared with the words of another.

Where an entry stands. ``items[key]`` is what ``__getitem__`` of one key returned, ``hits[name]`` what a method without
arguments did, ``hits[name, key]`` one with one argument: where the key is exactly a str, an int or bytes, and the value
can be shared. All else stands under ``hits[name, arguments, None]``, by the encoding of its arguments. Since 1, 1.0 and
True are one key of a dict, whoever looks compares the type.

The cache is bounded, and gives what is used a second chance: entries are put into the young half; when that is full it
becomes the old half, and what was the old half is gone. What is found in the old half goes back to the young one. So a
hit of what is used often changes nothing at all.
"""

from __future__ import annotations

import threading
from time import monotonic
from typing import Any

__all__ = ["Cache", "Entry", "Shelf", "is_valid", "short"]

ENTRIES = 16_384  # that the young half may have
BYTES = 32 * 1024 * 1024  # that their encodings may have together

Entry = tuple[Any, Any, Any, int, int, Any, int]

_PLAIN = frozenset({str, int, bytes})


class Shelf:
    """What is kept of one object.

    Attributes:
        items: The young half of what ``__getitem__`` returned; `hits` that of everything else.
        is_out: Whether it is no longer in use, so that what is put there is not counted.
    """

    __slots__ = ("hits", "is_out", "items", "old_hits", "old_items")

    def __init__(self) -> None:
        self.items: dict[Any, Entry] = {}
        self.hits: dict[Any, Entry] = {}
        self.old_items: dict[Any, Entry] = {}
        self.old_hits: dict[Any, Entry] = {}
        self.is_out = False

    def empty(self) -> None:
        """Keep nothing, and take nothing any more."""
        self.is_out = True
        for table in (self.items, self.hits, self.old_items, self.old_hits):
            table.clear()


class Cache:
    """What one client keeps.

    Args:
        is_on: Whether it keeps anything.
    """

    def __init__(self, is_on: bool = True) -> None:
        self.is_on = is_on
        self._shelves: dict[tuple[str, str], dict[bytes, Shelf]] = {}  # of objects, by what defines them
        self._count = 0
        self._size = 0
        self._make_lock()

    def _make_lock(self) -> None:
        # A signal handler may read while its thread does.
        self._lock = threading.RLock()

    def shelf(self, typeid: str, name: str, definition: bytes) -> Shelf:
        """Return the shelf of an object."""
        with self._lock:
            shelves = self._shelves.setdefault((typeid, name), {})
            shelf = shelves.get(definition)
            if shelf is None:
                shelf = shelves[definition] = Shelf()
            return shelf

    def forget(self, typeid: str, name: str) -> None:
        """Keep nothing that was read of an object, nor what is on its way."""
        if (typeid, name) in self._shelves:
            with self._lock:
                for shelf in self._shelves.pop((typeid, name), {}).values():
                    shelf.empty()

    def find(self, shelf: Shelf, place: Any, key: Any, is_item: bool) -> Entry | None:
        """Return a valid entry, which is young from then on."""
        young, old = (shelf.items, shelf.old_items) if is_item else (shelf.hits, shelf.old_hits)
        entry = young.get(place)
        if entry is None:
            entry = old.pop(place, None)
            if entry is None:
                return None
            self.put(shelf, place, entry, is_item)
        return entry if (entry[0] is None or type(key) is entry[0]) and is_valid(entry) else None

    def put(self, shelf: Shelf, place: Any, entry: Entry, is_item: bool) -> None:
        """Keep an entry."""
        table = shelf.items if is_item else shelf.hits
        with self._lock:
            if shelf.is_out:
                return
            before = table.get(place)
            table[place] = entry
            self._count += before is None
            self._size += entry[6] - (before[6] if before is not None else 0)
            if self._count > ENTRIES or self._size > BYTES:
                self._turn_over()

    def _turn_over(self) -> None:
        self._count = self._size = 0
        for which, shelves in list(self._shelves.items()):
            for definition, shelf in list(shelves.items()):
                # Proxies know the young tables, which therefore stay the same.
                shelf.old_items, shelf.old_hits = shelf.items.copy(), shelf.hits.copy()
                shelf.items.clear()
                shelf.hits.clear()
                if not (shelf.old_items or shelf.old_hits):
                    shelf.is_out = True
                    del shelves[definition]
            if not shelves:
                del self._shelves[which]

    def close(self) -> None:
        """Keep nothing any more."""
        with self._lock:
            self.is_on = False
            self._clear()

    def drop_inherited(self) -> None:
        """In a forked child: begin with nothing; another thread of the parent may have had the lock."""
        self._make_lock()
        self._clear()

    def _clear(self) -> None:
        for shelves in list(self._shelves.values()):
            for shelf in shelves.values():
                shelf.empty()
        self._shelves = {}
        self._count = self._size = 0


def is_valid(entry: Entry) -> bool:
    """Tell whether what was read is still so."""
    _, _, view, place, word, words, _ = entry
    return bool(view[place] == word and (monotonic() < words.until or words.is_fresh()))


def short(method: str, args: Any, kwargs: Any) -> Any:
    """Return where what a call with these arguments returns may stand by its key; None where only by its arguments."""
    if kwargs or len(args) > 1:
        return None
    if not args:
        return method
    if type(args[0]) not in _PLAIN:
        return None
    return args[0] if method == "__getitem__" else (method, args[0])
