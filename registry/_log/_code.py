"""What events run through, as texts that change with it: interpreter, package, plugins."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

from registry import __version__, _image
from registry._plugins import Plugins

# What decides on the outcome of an event: rows 0 to 3 of the ladder, but for what only brings events.
ENGINE = (
    "errors", "_leaves", "_state", "declarations", "_codec", "hosting", "_events", "_objects", "_sessions", "_outcomes",
    "_deadlines", "_losses", "_deadlock", "_engine", "_image",
)  # fmt: skip


def code(plugins: Plugins) -> dict[str, str]:
    """Return the versions and hashes of all that the events of a log run through, by name."""
    major, minor, _ = platform.python_version_tuple()
    return {
        "Python": f"{platform.python_implementation()} {major}.{minor}",
        "shared-registry": f"{__version__} ({_image.FORMAT}, {_own()})",
        **{f"plugin {name}": text for name, text in plugins.code().items()},
    }


def changes(before: dict[str, str], now: dict[str, str]) -> str:
    """Return in which points two codes differ, as text; empty if they are the same."""
    rows = [
        f"{name} was {before.get(name, 'not there')} and is {now.get(name, 'not there')}"
        for name in sorted({**before, **now})
        if before.get(name) != now.get(name)
    ]
    return "; ".join(rows)


def _own() -> str:
    digest = hashlib.sha256()
    here = Path(__file__).parent.parent
    for name in ENGINE:
        module = here / f"{name}.py"
        for path in [module] if module.exists() else sorted((here / name).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
