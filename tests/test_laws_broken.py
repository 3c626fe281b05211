"""Laws that are broken are found broken, by the law that says so; and what is wrong with the tests is told."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from registry import SharedObject
from registry.testing.laws import LockLaws, MappingLaws, QueueLaws
from registry_containers import COUNTER, DICT
from registry_queues import QUEUE

pytest_plugins = ["pytester"]

ANY_DICT = "test_any_series_of_calls_does_what_it_does_to_a_dict"
OUTLIVES = "test_it_outlives_its_server"

# Of each class the laws of its shape, and those that it breaks.
BROKEN = {
    "LENIENT": ("MappingLaws", ["test_del_removes_a_key", ANY_DICT]),
    "RESTLESS": ("MappingLaws", ["test_the_last_value_counts", ANY_DICT]),
    "SECRETIVE": ("MappingLaws", ["test_everybody_sees_it_at_once"]),
    "ELSEWHERE": ("MappingLaws", [OUTLIVES, "test_it_may_be_logged"]),
    "SEQUENCE": ("SequenceLaws", ["test_any_series_of_calls_does_what_it_does_to_a_list"]),
    "SET": ("SetLaws", ["test_an_item_is_in_it_once", "test_any_series_of_calls_does_what_it_does_to_a_set"]),
    "STACK": ("QueueLaws", ["test_first_in_first_out", "test_any_series_of_calls_does_what_it_does_to_a_queue"]),
    "STICKY": ("LockLaws", ["test_a_dead_holder_frees_it"]),
}
PLACE = {OUTLIVES: "process", "test_everybody_sees_it_at_once": "server", "test_a_dead_holder_frees_it": "server"}


@pytest.mark.once
@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_law_is_found(broken: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each class fails the laws that it breaks."""
    laws, names = BROKEN[broken]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    pytester.makeconftest(
        """
        import hypothesis
        import registry.testing.laws._laws as laws

        laws.PATIENCE = 0.5  # what never comes is given up soon
        hypothesis.settings.register_profile("found", phases=[hypothesis.Phase.generate])  # and is not made shorter
        hypothesis.settings.load_profile("found")
        """
    )
    pytester.makepyfile(
        f"""
        from broken_classes import {broken}
        from registry.testing.laws import {laws}

        class TestBroken({laws}):
            declaration = {broken}
        """
    )
    wanted = " or ".join(f"({name} and {PLACE.get(name, 'memory')})" for name in names)
    wanted = wanted.replace("(test_it_may_be_logged and memory)", "test_it_may_be_logged")
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-k", wanted, timeout=60)
    failed = set(re.findall(r"^FAILED \S+::(\w+)", done.stdout.str(), re.MULTILINE))
    assert failed == set(names), done.stdout.str()


def test_laws_of_another_shape_are_refused() -> None:
    """The error says what the declaration is, and what it should say."""
    with pytest.raises(TypeError, match="has the laws of a lock, and 'dict' is declared as mapping: say shape='lock'"):
        type("TestIt", (LockLaws,), {"declaration": DICT})
    with pytest.raises(TypeError, match="has the laws of a mapping, and 'counter' is declared as no shape"):
        type("TestIt", (MappingLaws,), {"declaration": COUNTER})
    with pytest.raises(TypeError, match=r"TestIt\.declaration must be a SharedObject, not <class 'dict'>"):
        type("TestIt", (MappingLaws,), {"declaration": dict})


def test_places_that_there_are_not_are_refused() -> None:
    """A slip in a name must not leave laws out."""
    with pytest.raises(TypeError, match=r"TestIt\.places are out of .*, and not \['memory'\]"):
        type("TestIt", (MappingLaws,), {"declaration": DICT, "places": ["memory"]})


def test_only_laws_that_apply_are_tests() -> None:
    """A class is not asked for methods that it does not have, and no law is skipped."""

    class Small:
        """A queue with nothing but the two verbs."""

        def put(self, item: object) -> None: ...
        def get(self, block: bool = True, timeout: float | None = None) -> object: ...

    small = SharedObject("small", Small, waiting=["get"], shape="queue")
    laws: type[QueueLaws] = type("TestIt", (QueueLaws,), {"declaration": small, "places": ["memory://"]})
    kept = {name for name in dir(laws) if name.startswith("test_") and getattr(laws, name) is not None}
    assert "test_first_in_first_out" in kept
    for name in ("test_get_nowait_takes_what_is_there", "test_it_may_have_a_bound", "test_it_outlives_its_server"):
        assert name not in kept
        assert callable(getattr(QueueLaws, name))
    full: type[QueueLaws] = type("TestIt", (QueueLaws,), {"declaration": QUEUE})
    assert all(getattr(full, name) is not None for name in dir(full) if name.startswith("test_"))


def test_what_runs_on_threads_is_tried_where_it_can_be() -> None:
    """It is in no log, so that it is not expected to outlive its server."""
    threaded = SharedObject("threaded", dict, threaded=True)
    laws: type[MappingLaws] = type("TestIt", (MappingLaws,), {"declaration": threaded})
    assert laws.test_it_outlives_its_server is None
    assert laws._places_of(laws.test_it_begins_empty) == ["memory://", "server"]
