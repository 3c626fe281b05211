"""Serve: ``python -m benchmarks.peers NAME HOME [cpus=0,1] [OPTION=VALUE]...``; "ready" tells that it does."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.harness import pin
from benchmarks.peers import PEERS


def ready() -> None:
    """Tell whoever has started this process."""
    print("ready", flush=True)


def main(name: str, home: str, *options: str) -> None:
    """Serve until SIGTERM."""
    told = dict(option.split("=", 1) for option in options)
    pin(told.pop("cpus", ""))
    PEERS[name].load().serve(Path(home), ready, **told)


if __name__ == "__main__":
    main(*sys.argv[1:])
