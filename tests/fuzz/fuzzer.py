"""Run one target under atheris, which is to say libFuzzer: ``python -m fuzz.fuzzer NAME OPTION...``."""

from __future__ import annotations

import sys
import time

import atheris

with atheris.instrument_imports(include=["registry"]):
    from fuzz.targets import TARGETS

SLOW = 0.1  # seconds of processor time


def main() -> None:
    name, *options = sys.argv[1:]
    target = TARGETS[name]

    def one(data: bytes) -> None:
        began = time.thread_time()
        target(data)
        took = time.thread_time() - began
        if took > SLOW:
            raise TimeoutError(f"{len(data)} bytes took {took:.2f} s")

    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


main()
