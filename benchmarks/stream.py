"""Fairness: what one client's calls cost while another sends without ever waiting for replies."""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks.harness import FREE, PLACES, Bench, Place, Row, crew, pinned, serve


def measure(bench: Bench) -> list[Row]:
    """Measure a client alone and beside the stream, on servers of their own, in turns."""
    # Where there are two CPUs, the two clients share the one that the server does not have.
    return [_beside(bench, place) for place in (PLACES[-1], *([FREE] if PLACES[-1] is not FREE else []))]


def _beside(bench: Bench, place: Place) -> Row:
    with ExitStack() as stack:
        alone = stack.enter_context(serve("registry", place))
        busy = stack.enter_context(serve("registry", place))
        statements = {"beside it": busy.connect().does("get"), "idle": alone.connect().does("get")}
        figures: dict[str, list[float]] = {name: [] for name in statements}
        with pinned(place):
            for _ in range(bench.rounds):
                # Only while it is its turn, or it would take the processor from the other.
                with crew("stream", busy, place=place):
                    figures["beside it"] += _once(bench, "beside it", statements)
                figures["idle"] += _once(bench, "idle", statements)
    row = Row("stream", "get beside an endless stream of calls", "us", figures, place.name)
    return row.at_most(3, "idle")


def _once(bench: Bench, name: str, statements: object) -> list[float]:
    one = Bench(rounds=1, quick=bench.quick)
    return one.contest({name: statements[name]}, 0.2)[name]  # type: ignore[index]
