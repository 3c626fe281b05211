"""The same moments in other interpreters, whose hash seeds differ.

Each is a process of its own that imports what is declared, is given the moments as bytes, and plays each by itself;
every second one begins with the last, so that what a class leaves in its module or in itself shows too. They also
have different time zones. What they tell is compared among them, and not with this process, in which a test may have
put something else in the place of this and that.

The parent writes one msgpack value to standard input, ``[[where, fields], name, moments, turned, path, plugins]``, and
reads one from standard output: a list of outcomes, or a text that says why there is none.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec

from registry import _plugins
from registry.declarations import SharedObject
from registry.testing import _where
from registry.testing._passes import Moment, Outcome, replay
from registry.testing._where import Declared, Where

# Seconds for one interpreter.
PATIENCE: Final = 120
_ZONES: Final = ("UTC0", "AAA-9:30", "BBB7")
_MAIN: Final = "from registry.testing._others import main; main()"


class Task(msgspec.Struct, array_like=True):
    """What another interpreter is to do."""

    declared: Declared
    name: str
    moments: list[Moment]
    turned: bool
    path: list[str]
    plugins: list[str]


def run(
    declaration: SharedObject[Any],
    where: Where,
    name: str,
    moments: Sequence[Moment],
    plugins: Sequence[str],
    seeds: Sequence[int],
) -> list[list[Outcome]] | str:
    """Play the moments in an interpreter for each hash seed, all at once.

    Returns:
        For each seed the outcomes of the moments, in their order; or why there are none.
    """
    declared = Declared.of(declaration, where)
    tasks = [
        msgspec.msgpack.encode(Task(declared, name, list(moments), number % 2 == 1, _where.path(), list(plugins)))
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
    path = os.pathsep.join(entry or os.curdir for entry in _where.path())
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
    where = task.declared.where
    try:
        if task.plugins:
            _plugins.load(only=task.plugins).required()
        declaration = task.declared.made()
    except BaseException as error:  # noqa: BLE001 - importing runs anything, and it is told whatever it was
        return (
            f"{where.module or where.file} cannot be imported in another interpreter: {type(error).__name__}: {error}"
        )
    if declaration is None:
        return f"{where.name} is not found in {where.module or where.file} by another interpreter"
    moments = task.moments[::-1] if task.turned else task.moments
    try:
        outcomes = list(replay({declaration.typeid: declaration}, task.name, moments))
    except BaseException as error:  # noqa: BLE001 - the author's factory or load() may raise anything
        return f"the state cannot be restored in another interpreter: {type(error).__name__}: {error}"
    return outcomes[::-1] if task.turned else outcomes
