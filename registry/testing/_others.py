"""The same moments in other interpreters, whose hash seeds differ.

Each is a process of its own that imports what is declared, is given the moments as bytes, and plays each by itself;
every second one begins with the last, so that what a class leaves in its module or in itself shows too. They also
have different time zones. What they tell is compared among them, and not with this process, in which a test may have
put something else in the place of this and that.

The parent writes one msgpack value to standard input, ``[where, fields, name, moments, turned]``, and reads one from
standard output: a list of outcomes, or a text that says why there is none.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any, Final

import msgspec

from registry.declarations import SharedObject
from registry.testing._passes import Moment, Outcome, replay

# Seconds for one interpreter.
PATIENCE: Final = 120
_FIELDS: Final = ("typeid", "per", "readonly", "waiting", "exposed", "threaded", "carried", "shape")
_ZONES: Final = ("UTC0", "AAA-9:30", "BBB7")
_MAIN: Final = "from registry.testing._others import main; main()"


class Where(msgspec.Struct, array_like=True):
    """Where another interpreter finds what makes the objects.

    Attributes:
        module: The name of the module; empty for a program.
        file: Its file, or empty.
        name: The dotted name in it.
        is_declaration: Whether that is the declaration itself and not its factory.
    """

    module: str
    file: str
    name: str
    is_declaration: bool


class Task(msgspec.Struct, array_like=True):
    """What another interpreter is to do."""

    where: Where
    fields: dict[str, Any]
    name: str
    moments: list[Moment]
    turned: bool
    path: list[str]


class Enough(BaseException):
    """Ends a program that is only imported for its classes, where it comes to check them."""


#: Whether this process is one of the others and is importing.
importing = False


def find(declaration: SharedObject[Any]) -> Where | str:
    """Return where another interpreter finds a declaration, or why it cannot."""
    factory = declaration.factory
    module = sys.modules.get(getattr(factory, "__module__", None) or "")
    name = getattr(factory, "__qualname__", "")
    if module is not None and name and _resolved(module, name) is factory:
        return _reachable(module, name, False)
    for candidate in [module, *list(sys.modules.values())]:
        if isinstance(candidate, ModuleType):
            for key, value in list(vars(candidate).items()):
                if value is declaration:
                    return _reachable(candidate, key, True)
    if "<locals>" in name:
        return f"{name} is made inside a function: put it at the top of a module"
    return f"neither {declaration.typeid!r} nor its factory {factory!r} has a name at the top of a module"


def run(
    declaration: SharedObject[Any], where: Where, name: str, moments: Sequence[Moment], seeds: Sequence[int]
) -> list[list[Outcome]] | str:
    """Play the moments in an interpreter for each hash seed, all at once.

    Returns:
        For each seed the outcomes of the moments, in their order; or why there are none.
    """
    fields = {field: getattr(declaration, field) for field in _FIELDS}
    tasks = [
        msgspec.msgpack.encode(Task(where, fields, name, list(moments), number % 2 == 1, _path()))
        for number in range(len(seeds))
    ]
    with ThreadPoolExecutor(len(seeds)) as pool:
        told = list(pool.map(_ask, tasks, seeds, range(len(seeds))))
    outcomes: list[list[Outcome]] = []
    for each in told:
        if isinstance(each, str):
            return each
        outcomes.append(each)
    return outcomes


def _ask(task: bytes, seed: int, number: int) -> list[Outcome] | str:
    path = os.pathsep.join(entry or os.curdir for entry in _path())
    environment = {**os.environ, "PYTHONHASHSEED": str(seed), "TZ": _ZONES[number % 3], "PYTHONPATH": path}
    words = [sys.executable, *["-O"] * sys.flags.optimize, "-c", _MAIN]
    try:
        done = subprocess.run(words, input=task, capture_output=True, env=environment, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return f"an interpreter was not done within {PATIENCE} seconds"
    except OSError as error:
        return f"no other interpreter can be started: {error}"
    try:
        return msgspec.msgpack.decode(done.stdout, type=list[Outcome] | str)
    except msgspec.DecodeError:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["nothing"]
        return f"another interpreter ended with {done.returncode} and said {said[-1]}"


def _path() -> list[str]:
    return [entry or os.getcwd() for entry in sys.path if isinstance(entry, str)]


def _resolved(module: ModuleType, name: str) -> object:
    value: object = module
    for part in name.split("."):
        value = getattr(value, part, None)
    return value


def _reachable(module: ModuleType, name: str, is_declaration: bool) -> Where | str:
    file = getattr(module, "__file__", None) or ""
    title = module.__name__
    if title == "__main__":
        spec = getattr(module, "__spec__", None)
        title = spec.name if spec is not None else ""
        if not title and not os.path.isfile(file):
            return f"{name} was typed at a prompt: put it into a file"
    return Where(title, os.path.abspath(file) if file else "", name, is_declaration)


# -- in the other interpreter


def main() -> None:
    """Do one task, as another interpreter."""
    data = sys.stdin.buffer.read()
    sys.stdin.close()
    # What an imported module prints must not come between.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    answers.write(msgspec.msgpack.encode(_answer(msgspec.msgpack.decode(data, type=Task))))
    answers.flush()


def _answer(task: Task) -> list[Outcome] | str:
    sys.path[:] = task.path
    where = task.where
    try:
        found = _load(where)
    except BaseException as error:  # noqa: BLE001 - importing runs anything, and it is told whatever it was
        return (
            f"{where.module or where.file} cannot be imported in another interpreter: {type(error).__name__}: {error}"
        )
    if found is None:
        return f"{where.name} is not found in {where.module or where.file} by another interpreter"
    fields = dict(task.fields)
    factory = found.factory if where.is_declaration else found
    declaration = SharedObject[Any](fields.pop("typeid"), factory, **fields)
    moments = task.moments[::-1] if task.turned else task.moments
    try:
        outcomes = list(replay({declaration.typeid: declaration}, task.name, moments))
    except BaseException as error:  # noqa: BLE001 - the author's factory or load() may raise anything
        return f"the state cannot be restored in another interpreter: {type(error).__name__}: {error}"
    return outcomes[::-1] if task.turned else outcomes


def _load(where: Where) -> Any:
    """Import by name, or else from the file, under the same name."""
    global importing
    importing = True
    try:
        if where.module:
            try:
                found = _resolved(importlib.import_module(where.module), where.name)
                if found is not None or not where.file:
                    return found
            except (ImportError, Enough):
                if not where.file:
                    raise
        title = where.module or "__checked__"
        spec = importlib.util.spec_from_file_location(title, where.file)
        if spec is None or spec.loader is None:
            return None
        module = sys.modules[title] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Enough:
            pass
        return _resolved(module, where.name)
    finally:
        importing = False
