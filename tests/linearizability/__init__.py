"""Prove or refute that a recorded history of calls could have happened one call at a time.

`checker` searches, `models` says what each type of object may answer, `histories` brings histories in,
`simulation` records them from a real host and engine behind a faulty network, and `mutants` breaks these on
purpose to show that the search would notice.
"""

from __future__ import annotations
