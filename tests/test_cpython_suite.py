"""CPython's own tests of its managers, run with ours; `cpython_suite` is what runs them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("cpython_suite.py")
HAS_TESTS = (
    importlib.util.find_spec("test._test_multiprocessing") is not None if importlib.util.find_spec("test") else 0
)

# What CPython's authors skip, because it says nothing about managers.
SKIPPED = 9

# 15 that use each type from two processes, and those with a manager: 73 in Python 3.10, 74 in the next two, 75 in 3.13.
FEWEST = 88 + (sys.version_info >= (3, 11)) + (sys.version_info >= (3, 13))

pytestmark = [
    pytest.mark.skipif(not HAS_TESTS, reason="this interpreter has been installed without the package `test`"),
    pytest.mark.skipif(sys.platform == "win32", reason="private servers listen at unix sockets"),
    pytest.mark.timeout(400),
]


def counts(method: str) -> dict[str, int]:
    """Run all of them in an interpreter of its own, and return how it ended."""
    ended = subprocess.run(
        [sys.executable, str(PROGRAM), "--method", method], capture_output=True, text=True, timeout=380, check=False
    )
    found: dict[str, int] = json.loads(ended.stdout.strip().rpartition("\n")[2] or "{}")
    assert found.get("failed") == 0, ended.stderr[-8000:]
    assert "Warning -- " not in ended.stderr, ended.stderr  # objects, processes or threads that were left behind
    return found


def test_all_of_them_pass() -> None:
    """As many run as with the standard manager, which are all that there are, and none fails."""
    found = counts("fork")
    assert found["run"] == found["loaded"] >= FEWEST
    assert found["skipped"] == SKIPPED


@pytest.mark.once
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_they_pass_however_processes_start(method: str) -> None:
    """Neither the server nor its clients count on what a fork hands down."""
    found = counts(method)
    assert found["run"] == found["loaded"] >= FEWEST
