"""``registry doctor``: whether a server and the way to it are well, and what to do where they are not.

Each check is a function that takes the `Scene` and yields rows. It starts nothing and changes nothing, so that it may
be run at any time. The exit code is 1 if there is a problem; what works otherwise than it could is a note, and none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import attrs
import click

from registry.cli import _common
from registry.cli._doctor import _address, _code, _findings, _key, _limits, _log, _memory, _tls
from registry.cli._doctor._findings import Finding
from registry.cli._doctor._scene import look

if TYPE_CHECKING:
    from registry.cli._doctor._scene import Scene

__all__ = ["doctor"]

Check = Callable[["Scene"], Iterable[Finding]]

CHECKS: tuple[Check, ...] = (
    _address.address,
    _address.directory,
    _address.server,
    _tls.tls,
    _key.key,
    _code.versions,
    _code.stale,
    _code.plugins,
    _memory.shared_memory,
    _memory.reads,
    _memory.deaths,
    _log.log,
    _limits.control_group,
    _limits.open_files,
    _limits.limits,
)


@click.command()
@_common.address_option
@_common.json_option
def doctor(address: str | None, as_json: bool) -> int:
    """Check a server and the way to it, and say what to do.

    Nothing is started and nothing is changed. The exit code is 1 if there is a problem.
    """
    scene = look(address)
    findings = list(examine(scene))
    problems = [each for each in findings if each.status == "problem"]
    if as_json:
        rows = [{**attrs.asdict(each), "cure": each.cure or None} for each in findings]
        _common.print_json({"address": scene.label, "problems": len(problems), "findings": rows})
    else:
        _findings.show(findings)
        if problems:
            _common.say(f"{_common.plural(len(problems), 'problem')} found")
    return _common.FAILED if problems else 0


def examine(scene: Scene, checks: Iterable[Check] = CHECKS) -> Iterator[Finding]:
    """Make the checks. One that fails is a problem itself, and the others go on."""
    for check in checks:
        try:
            yield from check(scene)
        except Exception as error:  # noqa: BLE001 - what a check has met must not keep the others from being made
            title = check.__name__.replace("_", " ")
            yield _findings.problem(title, f"could not be checked: {_common.text_of(error)}")
