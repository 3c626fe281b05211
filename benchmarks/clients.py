"""Many client processes at once: uncached gets, all together."""

from __future__ import annotations

from benchmarks.harness import FREE, Bench, Row, Server, crew

PEERS = ("registry", "manager", "redis", "rpyc", "Pyro5")
CURVE = ("registry", "manager", "redis")
COUNTS = (1, 4, 16, 32, 64, 256)


def measure(bench: Bench) -> list[Row]:
    """Measure from 1 client to 256."""
    rows = []
    names = bench.present(*PEERS)
    for count in bench.size(COUNTS, (1, 4)):
        chosen = [name for name in names if name in CURVE or count == 32]
        with bench.served(chosen) as servers:
            rates: dict[str, list[float]] = {name: [] for name in servers}
            for _ in range(bench.rounds if count < 100 else max(1, bench.rounds // 2)):
                for name in list(rates):
                    try:
                        rates[name].append(together(bench, servers[name], count))
                    except RuntimeError as error:  # it does not bear so many
                        bench.skipped[f"{name}: {count} clients"] = str(error)
                        del rates[name]
        what = f"{count} client{'s' if count > 1 else ''}, gets together, not cached"
        rows.append(Row("clients", what, "1/s", rates, FREE.name, "clients", count))
    four = next((row.median("registry") for row in rows if row.x == 4), None)
    for row in rows:
        if row.x == bench.size(32, 4):
            ours = row.median("registry")
            row.at_least(3, "manager")
            row.within(">= 0.85 x our own 4 clients", 0.85, ours / four if ours and four else None, least=True)
    return rows


def together(bench: Bench, server: Server, count: int, **options: object) -> float:
    """Return how many calls a second so many clients make together."""
    seconds = bench.size(1.0, 0.02)
    with crew("work", server, clients=count, seconds=seconds, **options) as clients:
        return float(clients.result())
