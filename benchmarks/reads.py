"""Reads that need no round trip: of one key again and again, and of many while another process writes."""

from __future__ import annotations

import time

from benchmarks.harness import PLACES, SPLIT, Bench, Row, crew, pinned
from benchmarks.peers import Statement

PEERS = ("registry, cached", "registry", "manager", "redis", "diskcache", "lmdb", "UltraDict")


def measure(bench: Bench) -> list[Row]:
    """Measure the repeated read in both places, and the paced reads split over two CPUs."""
    rows = []
    names = [name for name in bench.present(*PEERS) if name != "registry"]
    for place in PLACES:
        with bench.served(names, place) as servers, pinned(place):
            clients = {name: server.connect() for name, server in servers.items()}
            clients["registry"] = servers["registry, cached"].connect("registry")
            statements = {name: client.does("get") for name, client in clients.items()}
            statements["dict"] = Statement("d['k']", {"d": {"k": 1}})
            row = Row("reads", "get of one key again and again", "us", bench.contest(statements), place.name)
            rows.append(row.at_most(4, "dict").faster(100, "manager").faster(3, "lmdb").faster(3, "UltraDict"))
    return [*rows, _paced(bench)]


def _paced(bench: Bench) -> Row:
    """Read 2,000 times a second over 100 keys, while another writes 1,000 times a second over 10,000 others."""
    place = PLACES[-1] if PLACES[-1] is SPLIT else PLACES[0]
    seconds = bench.size(2.0, 0.05)
    local = []
    with bench.served(["registry, cached"], place) as servers, pinned(place):
        server = servers["registry, cached"]
        reader = server.connect()
        entries = reader.d  # type: ignore[attr-defined]
        entries.update({f"mine-{number}": number for number in range(100)})
        for _ in range(bench.rounds):
            with crew("writer", server, place=place, rate=1000, keys=10_000) as writing:
                # Asked by another process's server-side count: what was answered here never came to it.
                before = reader.shared.statistics()["calls"]  # type: ignore[attr-defined]
                done, began = 0, time.monotonic()
                while (now := time.monotonic()) - began < seconds:
                    while done < (now - began) * 2000:
                        entries[f"mine-{done % 100}"]
                        done += 1
                    time.sleep(0.0002)
                written = writing.result()
                calls = reader.shared.statistics()["calls"] - before  # type: ignore[attr-defined]
            local.append(100 * (1 - (calls - written) / done))
    row = Row("reads", "2,000 reads/s, 1,000 writes/s beside them", "% answered here", {"registry, cached": local})
    row.place = place.name
    value = row.median("registry, cached")
    return row.within(">= 95 % answered locally", 95, value, least=True)
