"""The configuration file of ``registry serve``: the options of the command line, under the same names.

    # ~/.local/state/registry/scrapers/registry.toml
    plugin = ["shared_cookies", "./shared.py"]
    lease = 60

    [limits]
    stored = "512M"

A relative path means a file beside the configuration. What the command line says goes before.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click

from registry.errors import RegistryError

NAMES = {
    "address": "text",
    "plugins": "list",
    "plugin": "list",
    "authkey-file": "path",
    "log": "text",
    "state": "path",
    "roles": "table of key files",
    "certificates": "table of roles",
    "trust": "text",
    "no-md5": "yes or no",
    "group": "text",
    "tls-cert": "path",
    "tls-key": "path",
    "tls-ca": "path",
    "insecure-network": "yes or no",
    "lease": "number",
    "limits": "table",
    "strict": "yes or no",
}


def read(path: Path) -> dict[str, Any]:
    """Read a configuration file.

    Raises:
        click.UsageError: A key or a value is wrong, or the file is not TOML.
        RegistryError: This Python cannot read TOML.
    """
    try:
        data = _parser().loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise click.UsageError(f"{path} is not TOML: {error}") from error
    settings: dict[str, Any] = {}
    for name, value in data.items():
        kind = NAMES.get(name)
        if kind is None:
            raise click.UsageError(f"{path}: unknown key {name!r}{_closest(name)}; it has the options of `serve`")
        settings[name] = _checked(path, name, kind, value)
    return settings


def _parser() -> Any:
    # In the standard library from 3.11 on; before, a package of the same make may be there.
    for name in ("tomllib", "tomli"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise RegistryError("a configuration file needs Python 3.11, or the package tomli: pip install tomli")


def _closest(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, NAMES, n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _checked(path: Path, name: str, kind: str, value: object) -> object:
    if kind == "list":
        items = [item.strip() for item in value.split(",")] if isinstance(value, str) else value
        if isinstance(items, list) and all(isinstance(item, str) and item for item in items):
            return [_beside(path, item) for item in items]
        kind = "list of texts"
    elif kind == "yes or no":
        if isinstance(value, bool):
            return value
        kind = "true or false"
    elif kind == "number":
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif kind == "table of roles":
        if isinstance(value, dict) and all(isinstance(role, str) and role for role in value.values()):
            return value
    elif kind == "table of key files":
        if isinstance(value, dict) and all(isinstance(file, str) and file for file in value.values()):
            return {role: _checked(path, name, "path", file) for role, file in value.items()}
    elif kind == "table":
        return _limits(path, value)
    elif isinstance(value, str) and value:
        return str((path.parent / Path(value).expanduser()).absolute()) if kind == "path" else value
    raise click.UsageError(f"{path}: {name} must be a {kind}, not {value!r}".replace("a true", "true"))


def _limits(path: Path, value: object) -> dict[str, object]:
    from registry._limits import Limits

    if not isinstance(value, dict):
        raise click.UsageError(f"{path}: limits must be a table, such as [limits], not {value!r}")
    try:
        return {name: Limits.read(name, each) for name, each in value.items()}
    except ValueError as error:
        raise click.UsageError(f"{path}: {error}") from error


def _beside(path: Path, item: str) -> str:
    """Return a plugin's file as an absolute path; a name as it is."""
    is_file = "/" in item or item.endswith(".py")
    return str((path.parent / Path(item).expanduser()).absolute()) if is_file else item
