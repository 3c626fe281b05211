"""`SECURITY.md`: each row of its table names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = (HERE.parent / "SECURITY.md").read_text()


def test_each_threat_names_its_tests() -> None:
    """By file and function, and there are some in each row."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| threat ")]
    assert len(rows) > 15
    for row in rows:
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", row)
        assert named, row
        for file, function in named:
            assert f"def {function}(" in (HERE / file).read_text(), (file, function)
