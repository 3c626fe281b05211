"""The contract with plugins."""

from __future__ import annotations

import inspect

import pluggy
import pytest

from registry import hookspecs
from registry.declarations import SharedObject
from registry.hookspecs import hookimpl

# Each hook with its exact arguments. A change here breaks plugins.
CONTRACT = {"registry_shared_objects": (), "registry_value_types": ()}


def hooks() -> dict[str, object]:
    """Return the functions that are marked as specifications."""
    return {name: value for name, value in vars(hookspecs).items() if hasattr(value, "registry_spec")}


def test_the_contract():
    """There are these hooks with these arguments, and no others."""
    found = {name: tuple(inspect.signature(hook).parameters) for name, hook in hooks().items()}
    assert found == CONTRACT


@pytest.mark.parametrize("name", CONTRACT)
def test_the_docstring_is_the_manual(name):
    """Each hook says when, where and how often it is called, what it returns, and what if it raises."""
    manual = inspect.getdoc(hooks()[name])
    for heading in ("When:", "Where:", "How often:", "Returns:", "If it raises:"):
        assert heading in manual


def test_an_implementation_is_called():
    """What a marked function returns comes out of the hook."""

    class Plugin:
        @hookimpl
        def registry_shared_objects(self):
            return [SharedObject("scores", dict)]

    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(Plugin())
    manager.check_pending()
    assert manager.hook.registry_shared_objects() == [[SharedObject("scores", dict)]]


def test_a_specification_is_never_called():
    """Calling the specification itself is a mistake, and says so."""
    with pytest.raises(NotImplementedError):
        hookspecs.registry_shared_objects()


def test_names():
    """The public names exist, and the two markers are of one project."""
    assert all(hasattr(hookspecs, name) for name in hookspecs.__all__)
    assert hookspecs.hookspec.project_name == hookspecs.hookimpl.project_name == "registry"
