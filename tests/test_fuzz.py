"""The fuzzers' corpus: every input that has ever reached new code is read again, and a short while more is searched."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz.__main__ import corpus
from fuzz.targets import TARGETS
from sizes import size

pytestmark = pytest.mark.once


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_known_shows_no_fault(name: str) -> None:
    """Neither does the half of it, nor two in a row."""
    inputs = corpus(name)
    assert len(inputs) > 10
    target, before = TARGETS[name], b""
    for data in inputs:
        for each in (data, data[: len(data) // 2], before + data):
            target(each)
        before = data


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no package for this Python")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", TARGETS)
def test_no_fault_is_found_in_a_while(name: str) -> None:
    """A minute for all of them together, and a minute each in the long run.

    Where nobody looks on, the same is tried each time, so that a red run is red again.
    """
    command = [sys.executable, "-m", "fuzz", name, "--seconds", str(size(12, 60))]
    if os.environ.get("CI"):
        command += ["--seed", "1"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
