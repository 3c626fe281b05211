"""How much of a repeated test to run: a little in every run, all of it where ``REGISTRY_LONG=1`` is set."""

from __future__ import annotations

import os

LONG = os.environ.get("REGISTRY_LONG") == "1"


def size(usual: int, long: int) -> int:
    """Return the number of repetitions of this run."""
    return long if LONG else usual
