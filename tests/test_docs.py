"""The documentation: every example in it runs and says what it is said to, and what it names is there.

A document is read from top to bottom, as a reader would try it:

* a ``python`` block whose first line is ``# name.py`` is a file of that name;
* the other ``python`` blocks of a document are one script;
* a ``pycon`` block is a session at the prompt, and its answers are compared;
* in a ``console`` block the lines ``$ python name.py`` and ``$ python -m pytest ...`` are run, and what stands
  below is compared; other commands need a shell, a network or an operator, and are read but not run;
* a ``py`` block needs a package that the product does without, which its first line names: ``# tasks.py, needs
  celery``. It must be Python, and what it imports from us and from the other files be there; where the package is
  installed it is run, by `test_docs_others`;
* units, compositions and settings are read by whoever is to read them, as all command lines of ours are
  (`test_docs_settings`); what else is not Python is not run.

A document that makes a plugin is read in order: a file may have its folder in its name and takes the place of one that
is there, and ``registry new-plugin``, ``cd``, ``pip install -e`` and ``pytest`` do what they do, but that an
installation is only the path and the metadata that it leaves.

Each runs in an interpreter of its own, with a server of its own, and any warning in it is an error.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import registry

pytestmark = pytest.mark.once

# Beside the tests, also where these are run from a copy that is away from the sources.
ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(registry.__file__).parent
PLUGINS = ("registry_containers", "registry_queues", "registry_sync")
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

PATIENCE = 50.0  # seconds for one program of a document
COMPARED = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Block(NamedTuple):
    """A fenced block: its language, the number of its first line, and its lines."""

    language: str
    line: int
    lines: tuple[str, ...]

    @property
    def file(self) -> str:
        """The name of the file that the block is, or an empty string."""
        found = re.fullmatch(r"# ([\w./-]+\.py)", self.lines[0]) if self.lines else None
        return found[1] if found else ""


def blocks(text: str) -> Iterator[Block]:
    """Cut the fenced blocks out of a document."""
    fence, language, start, held = "", "", 0, []
    for number, line in enumerate(text.splitlines(), 1):
        found = re.match(r"(`{3,}|:{3,})\s*(\S*)", line)
        if not fence and found:
            fence, language, start, held = found[1], found[2], number + 1, []
        elif fence and line.strip() == fence:
            yield Block(language, start, tuple(held))
            fence = ""
        elif fence:
            held.append(line)
    if fence:
        raise ValueError(f"the block that begins at line {start - 1} never ends")


def placed(parts: list[Block]) -> str:
    """Join blocks so that each line keeps its number in the document."""
    lines: list[str] = []
    for part in parts:
        lines += [""] * (part.line - 1 - len(lines))
        lines += part.lines
    return "\n".join(lines) + "\n"


def commands(block: Block) -> Iterator[tuple[int, str, str]]:
    """Cut a ``console`` block into (line, command, what it is said to print)."""
    command, start, said = "", 0, []
    for number, line in enumerate(block.lines, block.line):
        if line.startswith("$ "):
            if command:
                yield start, command, "\n".join(said)
            command, start, said = line[2:], number, []
        else:
            said.append(line)
    if command:
        yield start, command, "\n".join(said)


def python(directory: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a directory, as somebody would who has the product installed."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONWARNINGS": "error", **environment},
    )


def is_test(name: str) -> bool:
    """Tell whether a file is one that pytest runs."""
    return name == "conftest.py" or name.startswith("test_")


def stop_servers(home: Path) -> None:
    """Stop the servers that were started in a home; those without a name end with their programs."""
    for place in home.glob("*/lock"):
        if "+" in place.parent.name:
            continue
        ended = python(home, "-m", "registry", "stop", "--yes", "--address", place.parent.name)
        # 3: that one has ended by itself.
        assert ended.returncode in (0, 3), ended.stderr


def missing(found: list[Block]) -> str:
    """Return what examples import that does not exist for every Python, if it is not installed for this one."""
    lines = {line for block in found if block.language == "python" for line in block.lines}
    return "gevent" if "import gevent" in lines and importlib.util.find_spec("gevent") is None else ""


def makes_a_plugin(path: Path) -> bool:
    """Tell whether a document is to be read in order, in the directory of a plugin that it makes."""
    return "\n$ registry new-plugin " in path.read_text(encoding="utf-8")


def installed(directory: Path) -> None:
    """Leave what ``pip install -e`` leaves of a plugin beside its path: where its entry point leads."""
    text = (directory / "pyproject.toml").read_text(encoding="utf-8")
    point = re.search(r'^\[project.entry-points.shared_registry\]\n(\w+) = "(\w+)"$', text, re.MULTILINE)
    assert point is not None
    metadata = directory / "src" / f"{point[1]}-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {point[1]}\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text(f"[shared_registry]\n{point[1]} = {point[2]}\n")


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if makes_a_plugin(path)], ids=lambda path: path.name)
def test_a_document_that_makes_a_plugin_runs(path: Path, home: Path, tmp_path: Path) -> None:
    """Whoever does what it says, in its order, sees what it says."""
    here, source = tmp_path, ""
    shown = list(blocks(path.read_text(encoding="utf-8")))
    try:
        for block in shown:
            if block.language == "python":
                assert block.file, f"line {block.line} is no file"
                (here / block.file).write_text(placed([block]), encoding="utf-8")
            for line, command, said in commands(block) if block.language == "console" else ():
                words = shlex.split(command)
                if words[0] == "cd":
                    here = here / words[1]
                    continue
                if words[:3] == ["pip", "install", "-e"]:
                    installed(here)
                    source = str(here / "src")
                    continue
                words = words[1:] if words[0] == "python" else ["-m", *words]
                path_there = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH", "")]))
                done = python(here, *words, PYTHONPATH=path_there, PYTHONDONTWRITEBYTECODE="1")
                assert done.returncode == 0, f"line {line}:\n{done.stdout}{done.stderr}"
                if not doctest.OutputChecker().check_output(said + "\n", done.stdout, COMPARED):
                    pytest.fail(f"line {line}: not {said!r} but {done.stdout!r}", pytrace=False)
    finally:
        stop_servers(home)


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if not makes_a_plugin(path)], ids=lambda path: path.name)
def test_a_document_runs(path: Path, home: Path, tmp_path: Path) -> None:
    """Everything that a document shows in Python does what the document says."""
    found = list(blocks(path.read_text(encoding="utf-8")))
    files = {block.file: block for block in found if block.language == "python" and block.file}
    script = [block for block in found if block.language == "python" and not block.file]
    session = [block for block in found if block.language == "pycon"]
    for name, block in files.items():
        (tmp_path / name).write_text(placed([block]), encoding="utf-8")
    if needed := missing(found):
        pytest.skip(f"{needed} is not installed for Python {sys.version_info[0]}.{sys.version_info[1]}")
    unused = set(files)
    try:
        for block in found:
            for line, command, said in commands(block) if block.language == "console" else ():
                words = command.split()
                tests = words[:3] == ["python", "-m", "pytest"]
                if tests or (words[0] == "python" and words[1] in files):
                    unused -= {name for name in files if is_test(name)} if tests else {words[1]}
                    done = python(tmp_path, *words[1:])
                    assert done.returncode == 0, f"line {line}:\n{done.stderr}"
                    if not doctest.OutputChecker().check_output(said + "\n", done.stdout, COMPARED):
                        pytest.fail(f"line {line}: not {said!r} but {done.stdout!r}", pytrace=False)
        for name in sorted(unused):
            done = python(tmp_path, name)
            assert done.returncode == 0, f"{name}:\n{done.stderr}"
        if script:
            (tmp_path / "document.py").write_text(placed(script), encoding="utf-8")
            done = python(tmp_path, "document.py")
            assert done.returncode == 0, done.stderr
        if session:
            (tmp_path / "session.txt").write_text(placed(session), encoding="utf-8")
            done = python(tmp_path, "-m", "doctest", "-o", "ELLIPSIS", "session.txt")
            assert done.returncode == 0, done.stdout + done.stderr
    finally:
        stop_servers(home)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_what_needs_another_package_is_python(path: Path) -> None:
    """A ``py`` block says what it needs, can be compiled, and imports nothing from beside it that is not there."""
    found = list(blocks(path.read_text(encoding="utf-8")))
    trees = {block.file: ast.parse(placed([block])) for block in found if block.language == "python" and block.file}
    for block in found:
        if block.language != "py":
            continue
        assert re.fullmatch(r"# [\w.-]+\.py, needs [\w -]+", block.lines[0]), block.lines[0]
        for node in ast.walk(ast.parse(placed([block]))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "registry":
                there = set(dir(importlib.import_module(node.module))) | set(registry.__all__)
            elif isinstance(node, ast.ImportFrom) and f"{node.module}.py" in trees:
                there = names(trees[f"{node.module}.py"])
            else:
                continue
            for alias in node.names:
                assert alias.name in there, f"line {node.lineno}: {node.module} has no {alias.name}"


def names(tree: ast.Module) -> set[str]:
    """Return what a module defines or imports at its top."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign):
            found |= {each.id for target in node.targets for each in ast.walk(target) if isinstance(each, ast.Name)}
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {alias.asname or alias.name for alias in node.names}
    return found


def with_examples() -> Iterator[str]:
    """Name the modules whose docstrings have examples."""
    packages = [PACKAGE]
    for name in PLUGINS:
        spec = importlib.util.find_spec(name)
        packages += [Path(place) for place in (spec and spec.submodule_search_locations) or ()]
    for package in packages:
        for file in sorted(package.rglob("*.py")):
            if re.search(r"^\s*>>> ", file.read_text(encoding="utf-8"), re.MULTILINE):
                parts = file.relative_to(package.parent).with_suffix("").parts
                yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("name", list(with_examples()))
def test_the_examples_of_docstrings_run(name: str) -> None:
    """What a docstring shows at the prompt is what the prompt answers."""
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    report: list[str] = []
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        runner.run(test, out=report.append)
    assert runner.summarize(verbose=False).attempted, "no example was found"
    assert not runner.failures, "".join(report)


def test_the_commands_that_the_documents_name_are_there() -> None:
    """Each ``registry WORD`` of a document is a command."""
    named = set()
    for path in DOCUMENTS:
        for block in blocks(path.read_text(encoding="utf-8")):
            for _, command, _ in commands(block) if block.language == "console" else ():
                named.update(re.findall(r"(?<![\w/.-])registry ([a-z]+(?:-[a-z]+)*)\b", command))
    assert "serve" in named
    for word in sorted(named):
        done = python(ROOT, "-m", "registry", word, "--help")
        assert done.returncode == 0, f"registry {word}: {done.stderr}"


def test_the_files_that_the_architecture_names_are_there() -> None:
    """Every file of ours that the page about the architecture walks through is where it says."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:registry|plugins/registry_\w+)/[\w/]*(?:\.py)?)`", text))
    assert "registry/_engine.py" in named
    for name in sorted(named):
        parts = Path(name.removeprefix("plugins/")).parts
        spec = importlib.util.find_spec(parts[0])
        assert spec is not None and spec.origin is not None, name
        assert Path(spec.origin).parent.joinpath(*parts[1:]).exists(), name


def test_every_public_name_is_in_the_reference() -> None:
    """Whatever stands in ``registry.__all__`` has its place in the pages of the reference."""
    reference = "".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in ("api.md", "hooks.md"))
    missing = [name for name in registry.__all__ if not re.search(rf"\bregistry\S*\.{name}\b", reference)]
    assert not missing
