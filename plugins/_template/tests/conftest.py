"""What the fixtures of `registry.testing.pytest_plugin` serve: this plugin, and nothing else."""

from __future__ import annotations

import pytest


@pytest.fixture
def registry_plugins() -> list[str]:
    """Serve this one, by the name of its module."""
    return ["shared_tally"]
