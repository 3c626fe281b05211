"""Rules about the files themselves: what may import what, and what no file may contain.

The order of our own modules is guarded by import-linter; here is what they may take from outside.
The files are read, not imported, so that one which cannot be imported is judged too.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import registry

PACKAGE = Path(registry.__file__).parent
TESTS = Path(__file__).parent
PLUGINS = ("registry_arrays", "registry_containers", "registry_multiprocessing", "registry_queues", "registry_sync")

# Rows 0 to 3 of the ladder: what the engine is made of. They do no I/O, read no clock, draw no random
# number and start no thread, so that the same events always give the same state.
PURE = {
    "errors", "_leaves",
    "_state", "declarations", "_snapshots", "_codec", "_wire", "_framing",
    "hookspecs", "hosting", "_auth", "_limits",
    "_events", "_objects", "_sessions", "_outcomes", "_deadlines",
    "_losses", "_deadlock", "_engine", "_image", "_questions",
    "_attachments", "_leases", "_bounds", "_host", "_plugins",
}  # fmt: skip
IMPURE = {"asyncio", "multiprocessing", "random", "selectors", "socket", "ssl", "threading", "time", "uvloop"}

# A file that grows past this becomes a package of the same name.
LONGEST = 850


def plugin_files() -> Iterator[Path]:
    """Find the files of the first-party plugins, wherever they are installed."""
    for name in PLUGINS:
        spec = importlib.util.find_spec(name)
        for place in (spec and spec.submodule_search_locations) or ():
            yield from sorted(Path(place).rglob("*.py"))


# Where it is installed, the template of plugins lies in the package; it is a distribution of its own.
PACKAGE_FILES = sorted(path for path in PACKAGE.rglob("*.py") if "_template" not in path.parts)
PLUGIN_FILES = list(plugin_files())
PRODUCT_FILES = PACKAGE_FILES + PLUGIN_FILES
# Tests that others inherit: what they say they say by `assert`, which pytest rewrites.
LAWS = PACKAGE / "testing" / "laws"
TEST_FILES = sorted(TESTS.rglob("test_*.py"))


@cache
def parse(path: Path) -> ast.Module:
    """Parse a file once for all tests."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module_of(path: Path) -> str:
    """Name the module, or the package inside ours, that a file is part of: ``client``, ``cli``."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path, *, of_types: bool = False) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each import of a file as (module, names), those inside functions too.

    Args:
        path: The file.
        of_types: Whether to count what stands under ``if TYPE_CHECKING:``, which never runs.
    """
    skipped: set[ast.AST] = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.If) and not of_types and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            skipped.update(inner for statement in node.body for inner in ast.walk(statement))
        elif node in skipped:
            continue
        elif isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # The folders of a file that count are those with an `__init__.py`.
            package = [up.name for up in path.parents if (up / "__init__.py").is_file()][::-1]
            above = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*above, *(node.module or "").split(".")]).rstrip(".")
            yield module, tuple(alias.name for alias in node.names)


def name(path: Path) -> str:
    """Name a file in the report."""
    return "/".join(path.parts[-2:])


@pytest.mark.parametrize("path", PRODUCT_FILES + TEST_FILES, ids=name)
def test_a_file_says_what_it_is(path: Path) -> None:
    """Every file opens with a docstring and postpones its annotations."""
    tree = parse(path)
    assert ast.get_docstring(tree), "no docstring"
    assert ("__future__", ("annotations",)) in imports(path), "no `from __future__ import annotations`"


@pytest.mark.parametrize("path", PRODUCT_FILES, ids=name)
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    """No file of the product grows past its limit."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


@pytest.mark.parametrize("path", [path for path in PRODUCT_FILES if path.parent != LAWS], ids=name)
def test_nothing_is_guarded_by_assert_or_run_from_text(path: Path) -> None:
    """The product has no ``assert``, which ``python -O`` removes, and runs no text as code."""
    for node in ast.walk(parse(path)):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: assert"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("exec", "eval", "__import__"), f"line {node.lineno}: {node.func.id}"


@pytest.mark.parametrize("path", [p for p in PACKAGE_FILES if module_of(p) in PURE], ids=name)
def test_the_engine_does_no_io(path: Path) -> None:
    """Rows 0 to 3 import nothing that does I/O, tells the time, draws or starts a thread."""
    found = {module.partition(".")[0] for module, _ in imports(path)}
    assert not found & IMPURE


@pytest.mark.parametrize("path", PACKAGE_FILES, ids=name)
def test_pluggy_stays_behind_two_doors(path: Path) -> None:
    """Only the hook specifications and the loader know pluggy."""
    found = {module.partition(".")[0] for module, _ in imports(path)}
    assert "pluggy" not in found or module_of(path) in ("hookspecs", "_plugins")


@pytest.mark.parametrize("path", PACKAGE_FILES, ids=name)
def test_the_core_knows_no_plugin(path: Path) -> None:
    """No module of the core imports a first-party plugin."""
    found = {module.partition(".")[0] for module, _ in imports(path)}
    assert not {module for module in found if module.startswith("registry_")}


@pytest.mark.parametrize("path", PACKAGE_FILES, ids=name)
def test_nothing_climbs_over_the_top_of_the_ladder(path: Path) -> None:
    """Inside the package a name is imported from its own module, not through `registry` itself."""
    inside = {module_of(file) for file in PACKAGE_FILES}
    for module, names in imports(path):
        if module == "registry":
            assert set(names) <= inside | {"__version__"}


# Empty where the plugins are not installed.
@pytest.mark.parametrize("path", PLUGIN_FILES, ids=name)
def test_plugins_use_the_public_door(path: Path) -> None:
    """A plugin imports no private module of ours: what it needs, anyone's plugin can have."""
    for module, names in imports(path, of_types=True):
        parts = module.split(".") + (list(names) if module == "registry" else [])
        if parts[0] == "registry":
            assert not [part for part in parts if part.startswith("_")], f"imports {'.'.join(parts)}"


def test_public_names_are_one_list() -> None:
    """``__all__``, the table of homes, the imports for type checkers and ``dir()`` agree."""
    assert registry.__all__ == sorted(registry.__all__)
    assert list(registry._HOMES) == registry.__all__
    assert set(registry.__all__) <= set(dir(registry))
    typed: dict[str, str | None] = {}
    for module, names in imports(PACKAGE / "__init__.py", of_types=True):
        for public in names:
            if module == "registry":
                typed[public] = None
            elif module.startswith("registry."):
                typed[public] = module.removeprefix("registry.")
    assert typed == registry._HOMES


def test_the_package_is_typed() -> None:
    """``py.typed`` is installed, so that type checkers believe our annotations."""
    assert (PACKAGE / "py.typed").is_file()


def test_the_command_has_the_packages_name() -> None:
    """``python -m registry`` is a module of the package and finds the command line's `main`."""
    assert ("registry.cli", ("main",)) in imports(PACKAGE / "__main__.py")


@pytest.mark.parametrize("path", TEST_FILES, ids=name)
def test_every_test_says_what_it_shows(path: Path) -> None:
    """Every test function has a docstring: read together they are a specification."""
    silent = [
        f"{node.name} (line {node.lineno})"
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert not silent


def test_our_modules_do_not_shadow_the_standard_library() -> None:
    """No import package of ours has the name of a standard module."""
    assert not {"registry", *PLUGINS} & sys.stdlib_module_names
