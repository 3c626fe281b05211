"""Large values, and many at once, beside the standard manager.

python -m benchmarks.large_values
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.round_trips import _our_server, _standard

MB = 1 << 20
KEYS = 10_000


def measure(rounds: int) -> list[dict[str, Any]]:
    """Measure each beside the standard manager, in turns of one run."""
    with tempfile.TemporaryDirectory(prefix="reg") as home:
        os.environ["REGISTRY_HOME"] = home
        with _our_server(None) as shared, _standard(None) as standard:
            ours, theirs = shared.dict("d"), standard.dict()
            rows = [_megabyte(ours, theirs, rounds), *_many(ours, theirs, rounds)]
            try:
                rows += _array(shared.dict("arrays"), standard.dict(), max(3, rounds // 4))
            except ImportError:
                print("NumPy is not installed: no row about arrays", file=sys.stderr)
            return rows


def _megabyte(ours: Any, theirs: Any, rounds: int) -> dict[str, Any]:
    value = os.urandom(MB)

    def pair(shared: Any) -> None:
        shared["blob"] = value
        if len(shared["blob"]) != MB:
            raise RuntimeError("that is not what was put there")

    return _row("set and get 1 MB of bytes", *_alternate(lambda: pair(ours), lambda: pair(theirs), rounds * 4))


def _many(ours: Any, theirs: Any, rounds: int) -> list[dict[str, Any]]:
    ints = {f"key:{n}": n for n in range(KEYS)}
    texts = {f"key:{n}": f"value {n}" for n in range(KEYS)}
    return [*_update("ints", ints, ours, theirs, rounds), *_update("short texts", texts, ours, theirs, rounds)]


def _update(what: str, values: dict[str, Any], ours: Any, theirs: Any, rounds: int) -> list[dict[str, Any]]:
    update = _alternate(lambda: ours.update(values), lambda: theirs.update(values), rounds)
    items = _alternate(ours.items, theirs.items, rounds)
    return [_each(f"update with {KEYS:,} {what}", *update), _each(f"items of {KEYS:,} {what}", *items)]


def _array(ours: Any, theirs: Any, rounds: int) -> list[dict[str, Any]]:
    import numpy as np

    array = np.random.default_rng(1).random(64 * MB // 8)

    def put(shared: Any) -> None:
        shared["array"] = array

    def get(shared: Any) -> None:
        if shared["array"][-1] != array[-1]:
            raise RuntimeError("that is not what was put there")

    rows = [_row("set an array of 64 MB", *_alternate(lambda: put(ours), lambda: put(theirs), rounds))]
    return [*rows, _row("get an array of 64 MB", *_alternate(lambda: get(ours), lambda: get(theirs), rounds))]


def _alternate(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Return the medians of both, in microseconds, called in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for function, row in zip((ours, theirs), times):
            before = perf_counter()
            function()
            row.append(perf_counter() - before)
    return median(times[0][1:]) * 1e6, median(times[1][1:]) * 1e6


def _each(what: str, ours: float, beside: float) -> dict[str, Any]:
    return _row(f"{what}, per key", ours / KEYS, beside / KEYS)


def _row(what: str, ours: float, beside: float) -> dict[str, Any]:
    return {
        "what": what,
        "ours": ours,
        "beside": beside,
        "unit": "us",
        "ratio": ours / beside,
        "note": "beside: the standard manager",
    }


if __name__ == "__main__":
    for row in measure(int(sys.argv[1]) if len(sys.argv) > 1 else 20):
        print(f"{row['what']:36} {row['ours']:12.2f} us, beside {row['beside']:12.2f}: {row['ratio']:.3f}")
