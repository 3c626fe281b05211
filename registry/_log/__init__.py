"""The log: what makes a server survive its own death.

The engine is deterministic, so that a log of its events is its state: objects of every plugin, locks held, waits,
remembered replies. Events are written before what comes out of them leaves the server.

===============  =========================================================================
``_format``      the bytes of segments, records and snapshots; no I/O
``_files``       the directory
``_secret``      seals, which nobody can make who does not have the directory's secret
``_segments``    writing: which events are safe
``_recovery``    reading: every byte is checked, and damage is refused
``_code``        what events run through; a replay needs the same
``_folding``     snapshots, made by a process of its own (``_folder``)
``_store``       all that a server needs of it
``_check``       everything that is there, read and replayed
``_backup``      one file with a consistent state
``_restore``     another log in the place of the one that is there
``_pickles``     which pickles a log holds, and whose
``_dump``        what people can read
===============  =========================================================================

The way is that of replicated state machines over a shared log (Schneider 1990; Tango, SOSP'13), with the log on a disk.
"""

from __future__ import annotations

from registry._log._folding import Folded, Folding
from registry._log._recovery import Recovered
from registry._log._segments import SegmentLog
from registry._log._store import Store

__all__ = ["Folded", "Folding", "Recovered", "SegmentLog", "Store"]
