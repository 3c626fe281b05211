"""What TLS costs beside TCP, on this machine: round trips, large values, and connections."""

from __future__ import annotations

from functools import partial

from benchmarks.harness import PLACES, Bench, Row, Server, pinned, serve
from benchmarks.peers import Statement
from benchmarks.peers.ours import ask_network

WORK = {"get": "get, not cached", "set": "set", "bytes": "1 MB set and read, through the socket"}


def measure(bench: Bench) -> list[Row]:
    """Measure on one CPU, and split over two."""
    rows = []
    if bench.present("registry, network"):
        for place in PLACES:
            with (
                serve("registry", place, over="tls") as tls,
                serve("registry", place, over="tcp") as tcp,
                pinned(place),
            ):
                rows += _rows(bench, {"tls": tls, "tcp": tcp}, place.name)
    return rows


def _rows(bench: Bench, servers: dict[str, Server], place: str) -> list[Row]:
    clients = {name: server.connect("registry, network") for name, server in servers.items()}
    rows = [
        Row("network", what, "us", bench.contest({name: client.does(work) for name, client in clients.items()}), place)
        for work, what in WORK.items()
    ]
    asked = {name: Statement("ask()", {"ask": partial(ask_network, server.home)}) for name, server in servers.items()}
    return [*rows, Row("network", "connect, get one key, and leave", "us", bench.contest(asked), place)]
