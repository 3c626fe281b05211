"""The laws of the shapes: our own types keep them in every place, and so do containers as anybody writes them."""

from __future__ import annotations

import pytest
from container_classes import JAR, LAZY, ROW, SHELF, TAGS, THREADED_JAR, THREADED_LAZY

from registry import SharedObject
from registry.testing.laws import LockLaws, MappingLaws, QueueLaws, SequenceLaws, SetLaws
from registry_containers import DICT, LIST, SET
from registry_queues import QUEUE
from registry_sync import LOCK, RLOCK


class TestDict(MappingLaws):
    """Our dict."""

    declaration = DICT


@pytest.mark.once
class TestPlainDict(MappingLaws):
    """A dict of Python, shared as it is."""

    declaration = SharedObject("plain", dict)


class TestList(SequenceLaws):
    """Our list."""

    declaration = LIST


class TestSet(SetLaws):
    """Our set."""

    declaration = SET


@pytest.mark.once
class TestPlainList(SequenceLaws):
    """A list of Python, shared as it is."""

    declaration = SharedObject("items", list)


@pytest.mark.once
class TestPlainSet(SetLaws):
    """A set of Python, shared as it is."""

    declaration = SharedObject("tags", set)


class TestQueue(QueueLaws):
    """Our queue."""

    declaration = QUEUE


class TestLock(LockLaws):
    """Our lock."""

    declaration = LOCK


@pytest.mark.once
class TestRlock(LockLaws):
    """Our rlock."""

    declaration = RLOCK
    reentrant = True


class TestUserDict(MappingLaws):
    """A class that derives from `collections.UserDict`, and nothing more."""

    declaration = JAR


class TestMutableMapping(MappingLaws):
    """A class with the five methods that `MutableMapping` asks for."""

    declaration = SHELF


@pytest.mark.once
class TestGenerators(MappingLaws):
    """A mapping that tells what is there by generators, and copies itself as itself."""

    declaration = LAZY


@pytest.mark.once
class TestThreadedUserDict(MappingLaws):
    """The same on threads."""

    declaration = THREADED_JAR


@pytest.mark.once
class TestThreadedGenerators(MappingLaws):
    """Generators on threads."""

    declaration = THREADED_LAZY


@pytest.mark.once
class TestUserList(SequenceLaws):
    """A class that derives from `collections.UserList`, and nothing more."""

    declaration = ROW


@pytest.mark.once
class TestMutableSet(SetLaws):
    """A class with what `MutableSet` asks for, whose copies and unions are of its own class."""

    declaration = TAGS
