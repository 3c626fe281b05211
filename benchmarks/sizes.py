"""What a call costs as there is more: keys in a dict, objects in a server, waiters in line, sessions that idle."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import cycle

from benchmarks.harness import ONE, PLACES, Bench, Row, crew, pinned, serve
from benchmarks.peers import Statement
from benchmarks.peers.ours import client

PLACE = ONE if ONE in PLACES else PLACES[0]


def measure(bench: Bench) -> list[Row]:
    """Measure each curve with all its sizes in turns, on one CPU."""
    return [*_keys(bench), *_objects(bench), *_waiters(bench), *_idle(bench)]


def _keys(bench: Bench) -> list[Row]:
    gets: dict[str, Statement | None] = {}
    sets: dict[str, Statement | None] = {}
    sizes = bench.size((1_000, 10_000, 100_000, 1_000_000), (10, 100))
    with ExitStack() as stack:
        for size in sizes:
            server = stack.enter_context(serve("registry", PLACE))
            entries = server.connect().d  # type: ignore[attr-defined]
            for start in range(0, size, 10_000):
                entries.update({f"key-{n:07}": n for n in range(start, min(size, start + 10_000))})
            spread = cycle([f"key-{n * size // 1000:07}" for n in range(1000)] if size >= 1000 else ["key-0000001"])
            gets[f"{size}"] = Statement("d[next(keys)]", {"d": entries, "keys": spread})
            sets[f"{size}"] = Statement("d[next(keys)] = 1", {"d": entries, "keys": spread})
        with pinned(PLACE):
            return [
                *_curve("get from a dict of {:,} keys, not cached", "keys, get", bench.contest(gets), 1.15),
                *_curve("set in a dict of {:,} keys", "keys, set", bench.contest(sets), 1.15),
            ]


def _objects(bench: Bench) -> list[Row]:
    statements: dict[str, Statement | None] = {}
    with ExitStack() as stack:
        for size in bench.size((1, 100, 10_000), (1, 10)):
            server = stack.enter_context(serve("registry", PLACE))
            shared = server.connect().shared  # type: ignore[attr-defined]
            counters = [shared.counter(f"c{number}") for number in range(size)]
            for counter in counters:
                counter.incr()
            some = cycle(counters[:: max(1, size // 1000)])
            statements[f"{size}"] = Statement("next(counters).incr()", {"counters": some})
        with pinned(PLACE):
            what = "increment of one of {:,} counters"
            return _curve(what, "objects", bench.contest(statements), 1.15)


def _waiters(bench: Bench) -> list[Row]:
    puts: dict[str, Statement | None] = {}
    gets: dict[str, Statement | None] = {}
    with ExitStack() as stack:
        for size in bench.size((1, 10, 100, 1000), (1, 10)):
            server = stack.enter_context(serve("registry", PLACE))
            stack.enter_context(crew("waiters", server, place=PLACE, count=size))
            mine = server.connect()
            queue = mine.shared.queue("q")  # type: ignore[attr-defined]
            puts[f"{size}"] = Statement("q.put(1)", {"q": queue})
            gets[f"{size}"] = mine.does("get")
        with pinned(PLACE):
            return [
                *_curve("get, not cached, while {:,} threads wait", "waiters, get", bench.contest(gets)),
                *_curve("put for one of {:,} threads that wait", "waiters, put", bench.contest(puts)),
            ]


def _idle(bench: Bench) -> list[Row]:
    sizes = bench.size((0, 1000, 5000), (0, 20))
    statements: dict[str, Statement | None] = {}
    kilobytes = 0.0
    with ExitStack() as stack:
        for size in sizes:
            server = stack.enter_context(serve("registry", PLACE))
            mine = server.connect()
            before = server.memory
            if size:
                stack.enter_context(crew("idle", server, sessions=size))
                kilobytes = (server.memory - before) / size
            statements[f"{size}"] = mine.does("get")
        with pinned(PLACE):
            rows = _curve("get, not cached, beside {:,} idle sessions", "idle", bench.contest(statements))
    few, many = rows[0].median("registry"), rows[-1].median("registry")
    ratio = many / few if few and many else None
    rows[-1].within(f"<= 1.3 x beside none, {sizes[-1]:,} idle sessions", 1.3, ratio)
    row = Row("sizes", f"server memory of each of {sizes[-1]:,} idle sessions", "KB", {"registry": [kilobytes]})
    return [*rows, row.within("<= 20 KB each", 20, kilobytes)]


def _curve(what: str, series: str, figures: dict[str, list[float]], limit: float | None = None) -> list[Row]:
    """Make a row of each size; the last has the bar, if there is one: the dearest beside the cheapest."""
    rows = [
        Row("sizes", what.format(int(size)), "us", {"registry": rounds}, PLACE.name, series, float(size))
        for size, rounds in figures.items()
    ]
    medians = [median for row in rows if (median := row.median("registry")) is not None]
    if limit is not None and rows:
        rows[-1].within("dearest size within 15 % of the cheapest", limit, max(medians) / min(medians))
    return rows


def fill(home: object, size: int) -> None:
    """Put so many small entries into the dict of a server of ours."""
    with client(home) as shared:  # type: ignore[arg-type]
        entries = shared.dict("d")
        for start in range(0, size, 10_000):
            entries.update({f"key-{n}": n for n in range(start, min(size, start + 10_000))})
