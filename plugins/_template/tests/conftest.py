"""What the fixtures of `registry.testing.pytest_plugin` serve: this plugin, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import registry

from shared_tally import TALLY


@pytest.fixture
def registry_plugins() -> list[registry.SharedObject[Any]]:
    """Serve these."""
    return [TALLY]
