"""What everybody expects of a mapping, a sequence, a set, a queue or a lock, as tests to inherit.

A class that is shared by many keeps what it promises to all of them: with other processes at the same time, across cut
connections, and, with a log, across the death of its server. Three lines say that a class of yours does::

    from registry.testing.laws import MappingLaws
    from cookies import JAR

    class TestJar(MappingLaws):
        declaration = JAR

pytest then runs every law that the class's exposed methods allow, in each of four *places*: ``memory://``, a server,
and servers with ``log="process"`` and ``"disk"``. What a class takes that is no plain container is said by attributes::

    class TestJar(MappingLaws):
        declaration = JAR
        kwargs = {"limit": 100}         # what an object is made with
        keys = ("example.org", "example.com")
        values = ("dark", "light")

and by methods: `Laws.make` makes an object, ``fill`` of the container laws gives it its content.

Needs pytest and hypothesis: ``pip install "shared-registry[testing]"``.
"""

from __future__ import annotations

import pytest

# Before they are imported: an assert tells more then, and `python -O` leaves it.
pytest.register_assert_rewrite(
    *(f"{__name__}.{name}" for name in ("_laws", "_lock", "_mapping", "_queue", "_sequence", "_set"))
)

from registry.testing.laws._laws import Laws, Place
from registry.testing.laws._lock import LockLaws
from registry.testing.laws._mapping import MappingLaws
from registry.testing.laws._queue import QueueLaws
from registry.testing.laws._sequence import SequenceLaws
from registry.testing.laws._set import SetLaws

__all__ = ["Laws", "LockLaws", "MappingLaws", "Place", "QueueLaws", "SequenceLaws", "SetLaws"]

# Reports have the public name, which does not move when a private file does.
for _public in (Laws, LockLaws, MappingLaws, Place, QueueLaws, SequenceLaws, SetLaws):
    _public.__module__ = __name__
