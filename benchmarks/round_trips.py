"""One call at a time: get, set, and a lock taken and released."""

from __future__ import annotations

from benchmarks.harness import ONE, PLACES, SPLIT, Bench, Row, pinned

PEERS = ("registry", "manager", "echo", "uvloop echo", "redis", "diskcache", "lmdb", "UltraDict", "rpyc", "Pyro5")
WORK = {"get": "get, not cached", "set": "set", "pair": "lock, acquire + release"}


def measure(bench: Bench) -> list[Row]:
    """Measure on one CPU, and split over two."""
    rows = []
    names = bench.present(*PEERS)
    for place in PLACES:
        with bench.served(names, place) as servers, pinned(place):
            clients = {name: server.connect() for name, server in servers.items()}
            for work, what in WORK.items():
                figures = bench.contest({name: client.does(work) for name, client in clients.items()})
                rows.append(Row("round-trips", what, "us", figures, place.name))
    for row in rows:
        if row.what == WORK["pair"]:
            row.at_most(0.2, "redis")
            if row.place == ONE.name:
                row.at_most(0.5, "manager")
        elif row.place == ONE.name:
            row.at_most(0.75, "manager").at_most(1.6, "echo")
        elif row.place == SPLIT.name:
            row.at_most(1.25, "uvloop echo")
    return rows
