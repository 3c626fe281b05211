"""Prove or refute that a recorded history of calls could have happened one call at a time.

`checker` searches, `models` says what each type of object may answer, `histories` brings histories in,
`simulation` records them from a real host and engine behind a faulty network, and `mutants` breaks these on
purpose to show that the search would notice.

`clients` does the same with real clients: `programs` use shared objects on threads whose turns `crew` hands out, and
`attempts` writes down what they ask for and hear. `client_mutants` breaks the clients.

In `restarts` and `durable_clients` the servers of both die and go on from their log, which `logs` keeps on a disk that
is drawn from the seed, too. `log_mutants` breaks what goes on.
"""

from __future__ import annotations
