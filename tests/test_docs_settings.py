"""The commands, units, compositions and settings that the documentation shows: whoever is to read them takes them."""

from __future__ import annotations

import configparser
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from test_docs import DOCUMENTS, ROOT, Block, blocks, commands

from registry import cli
from registry.cli import _settings

pytestmark = pytest.mark.once


def of_language(language: str) -> list[tuple[Path, Block]]:
    """Return the blocks of a language, in all documents."""
    return [
        (path, block)
        for path in DOCUMENTS
        for block in blocks(path.read_text(encoding="utf-8"))
        if block.language == language
    ]


@pytest.fixture
def toml() -> Any:
    """Return what reads TOML, which the standard library does from Python 3.11 on."""
    return pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")


def services(block: Block) -> dict[str, Any]:
    """Read a composition."""
    found: dict[str, Any] = yaml.safe_load("\n".join(block.lines))
    return found


def unit(block: Block) -> configparser.ConfigParser:
    """Read a unit of systemd."""
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string("\n".join(block.lines))
    return parser


def shown() -> Iterator[tuple[str, str]]:
    """Yield each command line of a document with where it stands."""
    for path, block in of_language("console"):
        for line, command, below in commands(block):
            rest = iter(below.splitlines())
            while command.endswith("\\"):
                command = command[:-1] + next(rest)
            yield f"{path.name}:{line}", command
    for path, block in of_language("yaml"):
        for name, service in services(block)["services"].items():
            yield f"{path.name}:{block.line} {name}", service["command"]
            if "healthcheck" in service:
                yield f"{path.name}:{block.line} {name}'s health", service["healthcheck"]["test"]
    for path, block in of_language("ini"):
        yield f"{path.name}:{block.line}", unit(block)["Service"]["ExecStart"]


def ours() -> dict[str, list[str]]:
    """Return the words of our own command, where it is called, by where that stands."""
    found = {}
    for where, line in shown():
        for part in line.split("&&"):
            words = shlex.split(part)
            if words and re.fullmatch(r"(.*/)?registry", words[0]):
                found[where] = words[1:]
    return found


@pytest.mark.parametrize(("where", "words"), ours().items(), ids=ours())
def test_every_command_line_is_understood(where: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each option is one, has a value that it takes, and no argument is missing; nothing is done."""
    monkeypatch.setattr(click.Path, "convert", lambda self, value, *_: value)  # files that are named need not be here
    parse(where, words)


def parse(where: str, words: list[str]) -> None:
    """Have the words of a command line read as the command reads them."""
    group: click.Command = cli._registry
    context = click.Context(group)
    while isinstance(group, click.Group):
        name, *words = words
        found = group.get_command(context, name)
        assert found is not None, f"{where}: there is no command {name!r}"
        group = found
        context = click.Context(group, parent=context, info_name=name)
    with group.make_context(name, words, parent=context.parent):
        pass


def test_a_command_line_that_is_wrong_is_found() -> None:
    """The test above sees an option that there is not."""
    with pytest.raises(click.NoSuchOption):
        parse("here", ["status", "--adress", "x"])
    with pytest.raises(click.MissingParameter):
        parse("here", ["state", "backup"])
    assert len(ours()) > 25


@pytest.mark.parametrize("block", [block for _, block in of_language("yaml")], ids=lambda block: str(block.line))
def test_a_composition_names_what_it_has(block: Block) -> None:
    """Secrets, volumes and services that are used are there, and worker and server have one key and one address."""
    found = services(block)
    for service in found["services"].values():
        assert set(service.get("secrets", ())) <= set(found.get("secrets", ()))
        named = {volume.split(":")[0] for volume in service.get("volumes", ()) if not volume.startswith("/")}
        assert named <= set(found.get("volumes", ()))
        assert set(service.get("depends_on", ())) <= set(found["services"])
    server, worker = found["services"]["registry"], found["services"]["worker"]
    assert server["environment"]["REGISTRY_AUTHKEY_FILE"] == worker["environment"]["REGISTRY_AUTHKEY_FILE"]
    address, port = worker["environment"]["REGISTRY_ADDRESS"], r"tcp://[\w.]+"
    assert re.sub(port, "", address) == re.sub(port, "", shlex.split(server["command"])[3])


@pytest.mark.parametrize("block", [block for _, block in of_language("ini")], ids=lambda block: str(block.line))
def test_a_unit_has_its_parts(block: Block) -> None:
    """What is started, by whom, and when."""
    found = unit(block)
    assert found.sections() == ["Unit", "Service", "Install"]
    assert found["Install"]["WantedBy"] == "multi-user.target"


SETTINGS = [block for path, block in of_language("toml") if path.name == "servers.md"]


@pytest.mark.parametrize("block", SETTINGS, ids=lambda block: str(block.line))
def test_the_settings_of_a_name_are_settings(block: Block, toml: Any, tmp_path: Path) -> None:
    """Each file that stands beside a name is read as it is shown."""
    file = tmp_path / "registry.toml"
    file.write_text("\n".join(block.lines), encoding="utf-8")
    assert _settings.read(file).keys() == toml.loads(file.read_text(encoding="utf-8")).keys()


def test_the_distribution_of_a_plugin_has_its_entry_point(toml: Any) -> None:
    """Its entry point leads to a module that the same page shows."""
    ((path, block),) = [each for each in of_language("toml") if each[0].name == "plugins.md"]
    project = toml.loads("\n".join(block.lines))["project"]
    ((name, module),) = project["entry-points"]["shared_registry"].items()
    assert name == module
    assert f"# {module}.py\n" in path.read_text(encoding="utf-8")
    assert project["dependencies"] == [toml.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["name"]]
