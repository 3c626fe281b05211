"""``registry new-plugin``: what it writes works under any name, and what it refuses leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from server_processes import command

from registry import __version__
from registry.cli import _new_plugin
from registry.cli._new_plugin import Names

pytestmark = pytest.mark.once


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of ours to its end."""
    return subprocess.run(command(*words), cwd=cwd, capture_output=True, text=True, timeout=50)


def made(directory: Path) -> dict[str, str]:
    """Return the files below a directory, by their paths."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_text(encoding="utf-8") for path in paths}


@pytest.mark.parametrize("name", ["cookie-jar", "cookie_jar", "shared-cookie-jar"])
def test_a_plugin_is_called_as_it_is_named(name: str, tmp_path: Path) -> None:
    """Distribution, package, class, declaration and typeid are made of one name, however it is written."""
    done = run("new-plugin", name, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "shared-cookie-jar shares the class CookieJar: shared.cookie_jar(name)\n"
        'Now: cd shared-cookie-jar && pip install -e ".[dev]" && pytest\n'
    )
    files = made(tmp_path / "shared-cookie-jar")
    assert set(files) == {
        ".github/workflows/ci.yml",
        ".gitignore",
        "README.md",
        "pyproject.toml",
        "src/shared_cookie_jar/__init__.py",
        "src/shared_cookie_jar/py.typed",
        "tests/conftest.py",
        "tests/test_cookie_jar.py",
    }
    source = files["src/shared_cookie_jar/__init__.py"]
    for line in ("class CookieJar:", "COOKIE_JAR = registry.SharedObject(", '    "cookie_jar",', "    CookieJar,"):
        assert line in source.splitlines()
    assert 'name = "shared-cookie-jar"' in files["pyproject.toml"].splitlines()
    assert 'shared_cookie_jar = "shared_cookie_jar"' in files["pyproject.toml"].splitlines()
    assert "tally" not in "".join([*files, *files.values()]).lower()


def test_it_is_green_at_once(tmp_path: Path) -> None:
    """Its own tests pass: the class, two processes that share it, a death, and the rules of a log."""
    done = run("new-plugin", "cookies", "--into", "mine", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    directory = Path(told["directory"])
    assert directory == tmp_path / "mine" / "shared-cookies"
    assert told["files"] == list(made(directory))
    assert (told["distribution"], told["package"]) == ("shared-cookies", "shared_cookies")
    assert (told["cls"], told["constant"], told["typeid"]) == ("Cookies", "COOKIES", "cookies")
    path = os.pathsep.join(["src", *filter(None, [os.environ.get("PYTHONPATH")])])
    tests = subprocess.run(
        # What needs it to be installed is tried where its wheel is built.
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--deselect",
         "tests/test_cookies.py::test_servers_find_it"],
        cwd=directory, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert tests.returncode == 0, tests.stdout
    assert "4 passed, 1 deselected" in tests.stdout


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Cookies", "'Cookies' is no name: write lower-case letters, digits and '-', as in cookie-jar"),
        ("2fast", "'2fast' is no name"),
        ("-", "'-' is no name"),
        ("../up", "'../up' is no name"),
        ("a--b", "'a--b' is no name"),
        ("", "'' is no name"),
        ("a" * 33, "has more than 32 letters: take a shorter name"),
        ("x", "'x' is too short: the class and its declaration would have one name"),
        ("x1", "'x1' is too short"),
        ("class", "'class' is a word that clients or Python have already: take another name"),
        ("close", "'close' is a word that clients or Python have already"),
        ("any", "the class would be called Any, as something of Python's is: take another name"),
        ("key-error", "the class would be called KeyError"),
        ("dict", f"'dict' is what shared-registry {__version__} calls something already: take another name"),
        ("registry", "'registry' is what shared-registry calls something already"),
    ],
)  # fmt: skip
def test_what_could_not_be_used_is_refused(name: str, reason: str, tmp_path: Path) -> None:
    """As a wrong use of the command, with the reason, and nothing is written."""
    done = run("new-plugin", "--", name, cwd=tmp_path)
    assert done.returncode == 2
    assert reason in done.stderr
    assert not list(tmp_path.iterdir())


def test_what_is_there_stays(tmp_path: Path) -> None:
    """A directory of that name is a conflict, whatever is in it."""
    (tmp_path / "shared-cookies").mkdir()
    (tmp_path / "shared-cookies" / "README.md").write_text("mine")
    done = run("new-plugin", "cookies", cwd=tmp_path)
    assert done.returncode == 5
    assert done.stderr == (
        "registry: shared-cookies is there already, and nothing was written: "
        "remove it, or take another name or --into\n"
    )
    assert made(tmp_path) == {"shared-cookies/README.md": "mine"}


def test_a_place_that_is_no_directory_is_said(tmp_path: Path) -> None:
    """The error of the system names it."""
    (tmp_path / "file").write_text("")
    done = run("new-plugin", "cookies", "--into", "file", cwd=tmp_path)
    assert done.returncode == 1
    assert "file" in done.stderr
    assert made(tmp_path) == {"file": ""}


def test_it_is_the_template_under_another_name() -> None:
    """Under the template's own name what is written is the template."""
    same = _new_plugin.files(Names("shared-tally", "shared_tally", "Tally", "TALLY", "tally"))
    assert same == {path: (_new_plugin.template() / path).read_text(encoding="utf-8") for path in same}
    assert "src/shared_tally/__init__.py" in same
    assert not [path for path in same if "cache" in path]
