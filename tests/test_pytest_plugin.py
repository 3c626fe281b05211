"""The plugin for pytest: tests of others, run by a pytest of their own, and whom they meet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit_classes import remains
from server_processes import end_all

import registry

pytest_plugins = ["pytester"]

CONFTEST = """
import pytest
from kit_classes import SEATS

pytest_plugins = ["registry.testing.pytest_plugin"]

@pytest.fixture
def registry_plugins():
    return [SEATS]
"""


@pytest.fixture(autouse=True)
def surroundings(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each pytest as somebody would who has nothing but the package and his own plugin."""
    here = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    monkeypatch.setenv("PYTHONPATH", here)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\nfilterwarnings = error\n")


def run(pytester: pytest.Pytester, *options: str, passed: int) -> None:
    """Run the tests that there are, and see so many pass and nothing else."""
    done = pytester.runpytest_subprocess(*options, timeout=50)
    done.assert_outcomes(passed=passed)
    assert done.ret == 0


@pytest.fixture
def real(home: Path) -> Iterator[registry.ManagerClient]:
    """Run the server that the person who runs the tests has: the one of this home, with something in it."""
    try:
        with registry.connect() as shared:
            shared.dict("precious")["k"] = 1
            yield shared
            assert shared.dict("precious").copy() == {"k": 1}
    finally:
        end_all(home)


REACHING_OUT = """
import os
import registry

at_import = registry.connect()
at_import.dict("precious").clear()
held = registry.ManagerClient()
precious = held.dict("precious")

def test_one():
    assert "REGISTRY_ADDRESS" not in os.environ
    with registry.connect() as shared:
        assert shared.dict("precious").copy() == {}
        shared.dict("precious")["k"] = "of test one"
    assert precious["k"] == "of test one"
    assert precious["k"] == "of test one"

def test_two():
    assert precious.copy() == {}
    precious["k"] = "of test two"
    with registry.connect() as shared:
        assert shared.dict("precious").copy() == {"k": "of test two"}

def test_three():
    assert held.dict("precious").copy() == {}
    assert at_import.dict("precious").copy() == {}
"""


@pytest.mark.once
@pytest.mark.parametrize("early", [False, True])
def test_a_bare_connect_never_reaches_the_real_server(
    early: bool, pytester: pytest.Pytester, real: registry.ManagerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in a test, not in a client that a module holds, not while modules are imported; each test has its own."""
    monkeypatch.setenv("REGISTRY_ADDRESS", "default")
    if early:
        pytester.makeconftest("import registry\nregistry.connect().dict('precious').clear()\n")
        options = ["-p", "registry.testing.pytest_plugin"]
    else:
        pytester.makeconftest('pytest_plugins = ["registry.testing.pytest_plugin"]')
        options = []
    pytester.makepyfile(REACHING_OUT)
    run(pytester, *options, passed=3)


EMPTIED = """
import os
from unittest import mock
import pytest
import registry

held = registry.ManagerClient()

@pytest.mark.parametrize("connect", [registry.connect, held.connect])
def test_nobody_is_met(connect):
    with mock.patch.dict(os.environ, {}, clear=True):
        with pytest.raises(RuntimeError, match="this test has emptied its environment, where REGISTRY_HOME keeps it"):
            connect()
    with registry.connect() as shared:
        assert shared.dict("precious").copy() == {}

def test_another_home_may_be_given(tmp_path):
    kept = {"REGISTRY_HOME": os.environ["REGISTRY_HOME"]}
    with mock.patch.dict(os.environ, kept, clear=True), registry.connect() as shared:
        assert shared.dict("precious").copy() == {}
"""


def test_an_emptied_environment_leads_to_no_real_server(
    pytester: pytest.Pytester, real: registry.ManagerClient
) -> None:
    """Whoever clears the environment of a test is told what that would have led to, and meets nobody."""
    pytester.makeconftest('pytest_plugins = ["registry.testing.pytest_plugin"]')
    pytester.makepyfile(EMPTIED)
    run(pytester, passed=3)


IN_LOOPS = """
import asyncio
import threading
from registry import aio

held = aio.ManagerClient()
precious = held.dict("precious")
resting = asyncio.new_event_loop()
running = asyncio.new_event_loop()
thread = threading.Thread(target=running.run_forever, daemon=True)
thread.start()

async def once(value):
    assert await precious.copy() == {}
    await precious.setitem("k", value)
    async with aio.connect() as shared:
        assert await shared.dict("precious").copy() == {"k": value}

def test_one():
    asyncio.run(once(1))

def test_two():
    resting.run_until_complete(once(2))

def test_three():
    resting.run_until_complete(once(3))

def test_four():
    asyncio.run_coroutine_threadsafe(once(4), running).result()

def test_five():
    asyncio.run_coroutine_threadsafe(once(5), running).result()

def test_six():
    resting.run_until_complete(held.close())
    asyncio.run_coroutine_threadsafe(held.close(), running).result()
    running.call_soon_threadsafe(running.stop)
    thread.join()
    resting.close()
    running.close()
"""


@pytest.mark.once
def test_clients_of_event_loops_look_up_again_what_names_mean(
    pytester: pytest.Pytester, real: registry.ManagerClient
) -> None:
    """In a loop of the test, in one that rests between tests, and in one that runs all the while."""
    pytester.makeconftest('pytest_plugins = ["registry.testing.pytest_plugin"]')
    pytester.makepyfile(IN_LOOPS)
    run(pytester, passed=6)


@pytest.mark.once
def test_nothing_is_left_running(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """A server that was started on demand ends with its test, one of an import with the run; no directory stays."""
    told = tmp_path / "told"
    pytester.makeconftest('pytest_plugins = ["registry.testing.pytest_plugin"]')
    pytester.makepyfile(
        f"""
        import os
        import registry
        from kit_classes import remains

        def note(shared):
            with open({str(told)!r}, "a") as file:
                print(shared.statistics()["pid"], os.environ["REGISTRY_HOME"], file=file)

        note(registry.connect("others"))

        def test_one():
            note(registry.connect())
            note(registry.connect("more"))

        def test_two():
            with open({str(told)!r}) as file:
                assert not [line for line in file.readlines()[1:] if remains(line)]
        """
    )
    run(pytester, passed=2)
    lines = told.read_text().splitlines()
    assert len(lines) == 3
    assert not [line for line in lines if remains(line)]


def test_each_test_may_have_a_server(pytester: pytest.Pytester) -> None:
    """With the plugins that the fixture gives; a bare connect() finds it, and so do clients in other processes."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        """
        import kit_classes
        import pytest
        import registry

        held = registry.ManagerClient()

        def take_by_default(shared):
            return registry.connect(start=False).seats("room").take()

        @pytest.mark.parametrize("again", [1, 2])
        def test_it(registry_server, registry_client, again):
            assert registry_client.statistics()["types"] == ["seats"]
            assert registry_client.seats("room").left() == 1
            assert registry_server.client().run(take_by_default)
            assert registry_client.seats("room").left() == 0
            assert held.seats("room").left() == 0

        def test_nothing_is_served_that_is_not_asked_for():
            with pytest.raises(registry.errors.ServerNotFound):
                registry.connect(start=False)
        """
    )
    run(pytester, passed=3)


@pytest.mark.once
def test_a_module_may_serve_something_else(pytester: pytest.Pytester) -> None:
    """The fixture can be defined anew, as every fixture can; without one there are no types."""
    pytester.makeconftest('pytest_plugins = ["registry.testing.pytest_plugin"]')
    pytester.makepyfile(
        test_own="""
        import pytest

        @pytest.fixture
        def registry_plugins():
            return ["registry_sync"]

        def test_it(registry_client):
            assert "lock" in registry_client.statistics()["types"]
        """,
        test_none="""
        def test_it(registry_client):
            assert registry_client.statistics()["types"] == []
        """,
    )
    run(pytester, passed=2)


@pytest.mark.once
def test_it_works_where_tests_run_side_by_side(pytester: pytest.Pytester) -> None:
    """Each process of pytest-xdist has a home of its own."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        """
        import pytest
        import registry

        @pytest.mark.parametrize("number", range(4))
        def test_it(registry_client, number):
            with registry.connect() as shared:
                assert shared.seats("room").take()
        """
    )
    run(pytester, "-n", "2", passed=4)


def test_the_environment_is_as_before(pytester: pytest.Pytester, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process that goes on after the run."""
    monkeypatch.setenv("REGISTRY_ADDRESS", "mine")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile("def test_it(registry_home):\n    assert registry_home.is_dir()\n")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    pytester.runpytest_inprocess().assert_outcomes(passed=1)
    assert os.environ["REGISTRY_HOME"] == str(home)
    assert os.environ["REGISTRY_ADDRESS"] == "mine"
    assert home.is_dir()
