"""Much at once: 10,000 keys, a megabyte, and an array of 64 MB."""

from __future__ import annotations

import importlib.util

from benchmarks.harness import PLACES, Bench, Row, pinned

PEERS = ("registry", "manager", "redis", "diskcache", "lmdb", "rpyc", "Pyro5")


def measure(bench: Bench) -> list[Row]:
    """Measure in both places."""
    rows = []
    names = bench.present(*PEERS)
    for place in PLACES:
        with bench.served(names, place) as servers, pinned(place):
            clients = {name: server.connect() for name, server in servers.items()}
            per_key = bench.contest({name: client.does("update") for name, client in clients.items()}, 0.3)
            figures = {name: [each / 10_000 for each in rounds] for name, rounds in per_key.items()}
            row = Row("bulk", "update of 10,000 keys, of each", "us", figures, place.name, note="redis: a pipeline")
            rows.append(row.at_most(1.5, "manager").at_most(1, "redis"))
            megabyte = bench.contest({name: client.does("bytes") for name, client in clients.items()}, 0.3)
            rows.append(Row("bulk", "1 MB of bytes, set + get", "us", megabyte, place.name).at_most(0.5, "manager"))
            if importlib.util.find_spec("numpy") is None:
                bench.missing["numpy"] = "not installed, so that no array is read"
                continue
            import numpy

            able = {name: client for name, client in clients.items() if client.does("array") is not None}
            for client in able.values():
                client.keep_array(numpy.arange(bench.size(8 << 20, 1 << 10), dtype=numpy.float64))
            arrays = bench.contest({name: client.does("array") for name, client in able.items()}, 0.5)
            rows.append(Row("bulk", "array of 64 MB, get", "us", arrays, place.name).faster(20, "manager"))
    return rows
