"""Which code runs here and which in the server: versions, and the plugins down to their files."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from registry import __version__, errors
from registry.cli import _servers
from registry.cli._doctor._findings import Finding, note, ok, problem, refused

if TYPE_CHECKING:
    from registry._plugins import Plugins
    from registry.cli._doctor._scene import Scene

SHOWN = 3  # files that are named


def versions(scene: Scene) -> Iterator[Finding]:
    """Compare the package and the interpreter with those of the server."""
    python = f"Python {platform.python_version()}"
    yield ok("versions", f"shared-registry {__version__}, {python} in {sys.executable}")
    if not scene.status:
        return
    theirs = scene.status["version"]
    if theirs != __version__:
        yield note(
            "versions",
            f"the server runs shared-registry {theirs}, and this process {__version__}",
            f"registry restart{scene.option}, or install the same version in both",
        )
    if scene.status["python"] != platform.python_version() or _interpreter(scene) != sys.executable:
        yield ok("versions", f"the server runs Python {scene.status['python']} in {_interpreter(scene)}")


def _interpreter(scene: Scene) -> str:
    return str(scene.about.get("python") or scene.notes.get("python") or "an interpreter that is not known")


def stale(scene: Scene) -> Iterator[Finding]:
    """Tell whether the server has loaded what lies in the files now."""
    if not scene.status:
        return
    cure = f"registry restart{scene.option}"
    changed = scene.about.get("changed", [])
    if changed:
        shown = ", ".join(changed[:SHOWN]) + (f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else "")
        yield problem("code", f"the server runs old code: {shown} changed since it was started", cure)
    elif scene.warnings:
        yield problem("code", "; ".join(text.partition('; "registry restart')[0] for text in scene.warnings), cure)
    elif scene.about:
        yield ok("code", "the server has loaded what lies in the files of its plugins now")


def plugins(scene: Scene) -> Iterator[Finding]:
    """Load the plugins that the server has, or would have, and compare each with what the server runs."""
    if scene.trouble is not None:
        return
    interpreter = _interpreter(scene)
    if scene.status and scene.about and interpreter != sys.executable:
        yield note(
            "plugins",
            f"those of the server are not compared, since it runs in {interpreter}",
            f"{interpreter} -m registry doctor{scene.option}",
        )
        return
    try:
        with _no_traces():
            here = _servers.plugins_of(scene.place, scene.notes)
    except (errors.RegistryError, ValueError) as error:
        yield refused("plugins", error)
        return
    for plugin in here.problems:
        yield problem("plugins", f"{plugin.name} is {plugin.status}: {plugin.reason}", "registry plugins --check")
    if scene.status:
        yield from _compared(scene, here)
    elif not here.problems:
        names = ", ".join(plugin.name for plugin in here.plugins) or "none"
        yield ok("plugins", f"all that a server here would load can be loaded: {names}")


def _compared(scene: Scene, here: Plugins) -> Iterator[Finding]:
    ours, theirs = here.fingerprint(), scene.status["plugins"]
    code_here, code_there = here.code(), scene.about.get("code", {})
    cure = f"registry restart{scene.option}"
    same = []
    for name, version in theirs.items():
        if name not in ours:
            yield note("plugins", f"{name} {version} is on the server, and not here", "registry plugins")
        elif scene.about.get("changed"):
            continue  # as `stale` has told, and restarting cures the rest as well
        elif ours[name] != version:
            yield problem("plugins", f"{name} is {version} on the server, and {ours[name]} here", cure)
        elif name in code_there and code_there[name] != code_here[name]:
            found = (
                f"{name} {version} has other code on the server than here: {code_there[name]}, not {code_here[name]}"
            )
            yield problem("plugins", found, cure)
        else:
            same.append(name)
    for name in ours:
        if name not in theirs:
            yield note("plugins", f"{name} is installed here, and the server was started without it", cure)
    if same:
        yield ok("plugins", f"the same here and on the server: {', '.join(same)}")


@contextmanager
def _no_traces() -> Iterator[None]:
    """Import without leaving compiled files behind, nor a longer path."""
    before, path = sys.dont_write_bytecode, list(sys.path)
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
        sys.path[:] = path
