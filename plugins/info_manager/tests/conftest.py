"""Give each test a home of its own, and a port that nobody listens at."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Keep servers and clients of the person who runs the tests out of them."""
    path = tempfile.mkdtemp(prefix="r", dir="/tmp")
    monkeypatch.setenv("REGISTRY_HOME", path)
    for name in ("REGISTRY_ADDRESS", "REGISTRY_AUTHKEY_FILE", "REGISTRY_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def port() -> int:
    """Return a port that is free in this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
