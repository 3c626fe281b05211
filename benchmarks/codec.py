"""Values as bytes and back: the typed codec, which needs no trust to read, beside pickle, which does."""

from __future__ import annotations

from typing import Any

from benchmarks.harness import Bench, Row
from benchmarks.peers import Statement

VALUES: dict[str, Any] = {
    "1,000 ints": list(range(1000)),
    "1,000 floats in a tuple": tuple(number / 7 for number in range(1000)),
    "1,000 texts": [f"text {number}" for number in range(1000)],
    "a dict of 1,000 pairs": {f"key-{number}": (number, str(number)) for number in range(1000)},
}
LIMIT = 8  # times pickle, for what is written and read


def measure(bench: Bench) -> list[Row]:
    """Write and read each value, in this process."""
    import pickle

    from registry import _codec

    rows = []
    for what, value in VALUES.items():
        names = {"value": value, "encode": _codec.encode, "decode": _codec.decode}
        pickled = {"value": value, "dumps": pickle.dumps, "loads": pickle.loads}
        figures = bench.contest(
            {
                "registry": Statement("decode(encode(value))", names),
                "pickle": Statement("loads(dumps(value, 5))", pickled),
            }
        )
        row = Row("codec", f"{what}, written and read", "us", figures)
        rows.append(row.at_most(LIMIT, "pickle") if what == "1,000 ints" else row)
    return rows
