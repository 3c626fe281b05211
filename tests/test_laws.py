"""The laws of the shapes: our own types keep them in every place, and so do those of the standard library."""

from __future__ import annotations

import pytest

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
