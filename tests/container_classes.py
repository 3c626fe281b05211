"""Containers as anybody writes them: nothing in here knows that it is shared."""

from __future__ import annotations

from collections import UserDict, UserList
from collections.abc import ItemsView, Iterator, KeysView, MutableMapping, MutableSet, ValuesView
from typing import Any

from registry import SharedObject
from registry.hosting import call


class Jar(UserDict[Any, Any]):
    """Keep cookies: all of it is inherited."""


class Shelf(MutableMapping[Any, Any]):
    """Keep books in a mapping with the five methods that it must have, and views that come by inheritance."""

    def __init__(self) -> None:
        self.books: dict[Any, Any] = {}

    def __getitem__(self, title: Any) -> Any:
        return self.books[title]

    def __setitem__(self, title: Any, book: Any) -> None:
        self.books[title] = book

    def __delitem__(self, title: Any) -> None:
        del self.books[title]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.books)

    def __len__(self) -> int:
        return len(self.books)


class Lazy(Shelf):
    """Tell what is there by generators, and copy itself as itself."""

    def __iter__(self) -> Iterator[Any]:
        yield from self.books

    def keys(self) -> Any:
        yield from self.books

    def values(self) -> Any:
        return map(self.books.__getitem__, self.books)

    def items(self) -> Any:
        return ((title, self[title]) for title in self.books)

    def copy(self) -> Lazy:
        copy = Lazy()
        copy.books.update(self.books)
        return copy


class Curious(Shelf):
    """Look at who calls in whatever is done, and fail where it is told to."""

    def __getitem__(self, title: Any) -> Any:
        if self.books[title] == "torn":
            raise OSError(f"{title} cannot be read")
        return f"{self.books[title]}, read at {call().now:g}"

    def views(self) -> list[KeysView[Any] | ValuesView[Any] | ItemsView[Any, Any]]:
        """Return what cannot cross inside of something else."""
        return [self.keys(), self.values(), self.items()]


class Row(UserList[Any]):
    """Keep a row: all of it is inherited."""


class Tags(MutableSet[Any]):
    """Keep tags in the order in which they came."""

    def __init__(self) -> None:
        self.tags: dict[Any, None] = {}

    def __contains__(self, tag: object) -> bool:
        return tag in self.tags

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tags)

    def __len__(self) -> int:
        return len(self.tags)

    def add(self, tag: Any) -> None:
        self.tags[tag] = None

    def discard(self, tag: Any) -> None:
        self.tags.pop(tag, None)

    def copy(self) -> Tags:
        return self.union(())

    def union(self, others: Any) -> Tags:
        tags = Tags()
        tags.tags = dict.fromkeys([*self.tags, *others])
        return tags


JAR = SharedObject("jar", Jar)
SHELF = SharedObject("bookshelf", Shelf, readonly=["__getitem__", "__contains__", "__iter__", "__len__", "items"])
LAZY = SharedObject("lazy", Lazy, readonly=["keys", "values", "items", "copy"])
CURIOUS = SharedObject("curious", Curious)
ROW = SharedObject("row", Row)
TAGS = SharedObject("tags", Tags, readonly=["union", "copy"])
THREADED_JAR = SharedObject("threaded_jar", Jar, threaded=True)
THREADED_LAZY = SharedObject("threaded_lazy", Lazy, threaded=True)
