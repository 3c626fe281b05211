"""A plugin for pytest: no test meets a server of the person who runs it, and each may have one of its own.

It is asked for in the ``conftest.py`` at the top of the tests, or by ``-p registry.testing.pytest_plugin``::

    import pytest
    from cookies import COOKIES

    pytest_plugins = ["registry.testing.pytest_plugin"]

    @pytest.fixture
    def registry_plugins():
        return [COOKIES]

From then on ``REGISTRY_HOME`` is an empty directory, another one for each test, and no variable of the environment
names a server. A bare ``connect()``, or a client that a module holds, starts a server there if it needs one, or finds
that of the fixture `registry_server`. What was started on demand is stopped after its test.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from registry.client import ManagerClient
from registry.testing import Server
from registry.testing._homes import Home

_HOME = pytest.StashKey[Home]()


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Lead everybody away from the servers of this user before any code of the tests runs; only ``-p`` is so early."""
    _leave_home(early_config)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Do so at the latest before tests are collected, since modules may connect when they are imported."""
    _leave_home(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what was started outside of any test."""
    home = config.stash.get(_HOME, None)
    if home is not None:
        del config.stash[_HOME]
        home.__exit__(None, None, None)


def _leave_home(config: pytest.Config) -> None:
    if _HOME not in config.stash:
        config.stash[_HOME] = Home().__enter__()


@pytest.fixture(autouse=True)
def registry_home() -> Iterator[Path]:
    """Give the test an empty ``REGISTRY_HOME``; stop what was started there on demand."""
    with Home() as home:
        yield home.path


@pytest.fixture
def registry_plugins() -> Sequence[Any]:
    """Return what `registry_server` serves: nothing, until a ``conftest.py`` or a test module defines it anew."""
    return ()


@pytest.fixture
def registry_server(registry_home: Path, registry_plugins: Sequence[Any]) -> Iterator[Server]:
    """Serve `registry_plugins` on a thread, as the server that a bare ``connect()`` finds."""
    with Server(*registry_plugins, address="default") as server:
        yield server


@pytest.fixture
def registry_client(registry_server: Server) -> ManagerClient:
    """Return a connected client of `registry_server`, with a session of its own."""
    return registry_server.connect()
