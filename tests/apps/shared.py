"""What all processes of the web applications share, as users write it: handles on a client that connects lazily."""

from __future__ import annotations

from registry import ManagerClient

shared = ManagerClient("web", start=False, timeout=20)

hits = shared.counter("hits")
loads = shared.counter("loads")
inside = shared.counter("inside")
turn = shared.lock("turn")
mine = shared.rlock("mine")
parcels = shared.queue("parcels")
only_master = shared.lock("only master")
