"""Run an experiment: ``python -m torture MODULE.FUNCTION [ARGUMENT]...`` prints what it has counted, as JSON."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from importlib import import_module


def argument(word: str) -> object:
    """Read a word of the command line: a number where it looks like one."""
    return int(word) if word.lstrip("-").isdigit() else word


def main(name: str, *words: str) -> None:
    """Run one experiment, with a home of its own unless there is one."""
    module, _, function = name.rpartition(".")
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as home:
        os.environ.setdefault("REGISTRY_HOME", home)
        counted = getattr(import_module(f"torture.{module}"), function)(*map(argument, words))
    print(json.dumps(counted), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
