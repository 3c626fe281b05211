"""What ``import registry`` adds to the start of an interpreter."""

from __future__ import annotations

import subprocess
import sys
from statistics import median
from time import perf_counter
from typing import Any

STATEMENTS = {
    "import registry": "import registry",
    "from registry import connect": "from registry import connect",
    "import multiprocessing.managers": "import multiprocessing.managers",
}


def measure(rounds: int) -> list[dict[str, Any]]:
    """Start interpreters in turn, with and without the import."""
    times: dict[str, list[float]] = {"pass": [], **{text: [] for text in STATEMENTS}}
    for _ in range(rounds):
        for text, row in times.items():
            begun = perf_counter()
            subprocess.run([sys.executable, "-c", text if text == "pass" else STATEMENTS[text]], check=True)
            row.append((perf_counter() - begun) * 1000)
    bare = median(times.pop("pass"))
    return [
        {
            "what": f"{text}, beyond a bare interpreter",
            "ours": median(row) - bare,
            "beside": bare,
            "unit": "ms",
            "ratio": None,
            "note": "beside: the bare interpreter",
        }
        for text, row in times.items()
    ]
