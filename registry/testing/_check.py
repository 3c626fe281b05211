"""The check of a hosted class: is it the same when its calls are played again?"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from registry.declarations import SharedObject
from registry.errors import DeclarationError
from registry.testing import _others, _where
from registry.testing._findings import ELSEWHERE, JUMBLED, RESTORED, CheckFailed, Findings
from registry.testing._passes import Recording, Unplayable, replay
from registry.testing._series import Call, given, made_up
from registry.testing._watch import Watch

__all__ = ["Report", "check"]


@attrs.frozen
class Report:
    """What a check has run.

    Attributes:
        typeid: What was checked.
        calls: How many calls were made.
        restores: How many times an engine was restored in the middle.
        ran: The exposed methods that have returned, or waited, at least once; sorted.
        missed: The exposed methods that no call was made of, or that have only raised; sorted.
        seeds: The hash seeds of the interpreters in which it was played too.
        skipped: What was not possible, and why.
    """

    typeid: str
    calls: int
    restores: int
    ran: tuple[str, ...]
    missed: tuple[str, ...]
    seeds: tuple[int, ...]
    skipped: tuple[str, ...]


def check(
    declaration: SharedObject[Any],
    calls: Iterable[Call] | None = None,
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    derived: Iterable[str] = (),
    plugins: Sequence[Any] = (),
    seeds: Sequence[int] = (1, 2, 3),
) -> Report:
    """Find out whether a class may be served with a log. Blocks, mostly for the start of other interpreters.

    Args:
        declaration: What is declared; not with ``threaded=True``.
        calls: The series: tuples of a method and its arguments, `Use` and `End`. None makes one up from the
            signatures and annotations of the exposed methods. What a method raises is a reply like any other.
        args: What the object is made with.
        kwargs: What it is made with, by name.
        derived: Names of attributes that are rightly left out of the state, since the class makes them again
            from the rest whenever it needs them.
        plugins: The plugins that declare the classes of values in the state, as `Server` takes them.
        seeds: The hash seeds of the other interpreters, one each, all started at once; none for an empty one.

    Returns:
        What was run, and what could not be.

    Raises:
        CheckFailed: Something is wrong with the class, or with what is declared of it; the text tells what, where, and
            the cures.
        PluginError: A plugin cannot be loaded.
        DeclarationError: The declaration is threaded, or the factory does not make a new object each time.
        NotDurable: The state of a new object cannot be captured.
        NotShareable: An argument cannot cross to a server.
        TypeError: `args` do not fit the factory, or `calls` hold something else.
    """
    __tracebackhide__ = True  # pytest shows the author's line
    if _where.importing:
        raise _where.Enough
    if not isinstance(declaration, SharedObject):
        raise DeclarationError("declaration", "must be a SharedObject", declaration)
    if declaration.threaded:
        rule = "must be False, since what runs on threads is never logged and has nothing to check"
        raise DeclarationError(f"{declaration.typeid}.threaded", rule, True)
    known = [_where.sendable(plugin) for plugin in plugins]
    recording = _recorded(declaration, calls, args, kwargs or {}, derived)
    skipped = [f"the object refused all calls after a {recording.stopped}"] if recording.stopped else []
    moments = recording.moments
    if recording.troubles and recording.troubles[-1].kind in ("uncapturable", "unrestorable"):
        moments = moments[:-1]

    watch = Watch()
    if sys.getprofile() is None:
        numbers = iter(range(len(moments)))
        declarations = recording.declarations
        _exhaust(
            replay(declarations, recording.name, moments, around=lambda e, m: watch.attach(e, next(numbers), m.method))
        )
    else:
        skipped.append("clocks, random numbers and the like were not watched for: a profiler is running")

    findings = Findings(recording, watch)
    findings.sights()
    findings.troubles()
    played = [moment.outcome for moment in moments]
    # Of sets that are iterated one way in the first and another way in the second, one is not as it was.
    again = list(replay(recording.declarations, recording.name, moments))
    findings.differences(played, again, RESTORED)
    again = list(replay(recording.declarations, recording.name, moments[::-1], jumbled=True))
    findings.differences(played, again[::-1], JUMBLED)
    ran_with = _elsewhere(recording, len(moments), known, seeds, findings, skipped)
    if findings.found:
        raise CheckFailed(declaration.typeid, tuple(findings.found.values()))
    exposed = declaration.interface.exposed
    return Report(
        typeid=declaration.typeid,
        calls=sum(recording.called.values()),
        restores=len(moments) * (4 + len(ran_with)),
        ran=tuple(name for name in exposed if name in recording.answered),
        missed=tuple(name for name in exposed if name not in recording.answered),
        seeds=ran_with,
        skipped=tuple(skipped),
    )


def _recorded(
    declaration: SharedObject[Any],
    calls: Iterable[Call] | None,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    derived: Iterable[str],
) -> Recording:
    __tracebackhide__ = True
    try:
        recording = Recording(declaration, args, kwargs, derived)
    except Unplayable as error:
        reason = error.__cause__ or error
        raise reason from None
    if calls is None:
        recording.play(made_up(declaration, recording.instance, recording.results))
    else:
        recording.play(given(calls))
    return recording


def _elsewhere(
    recording: Recording,
    count: int,
    plugins: Sequence[Any],
    seeds: Sequence[int],
    findings: Findings,
    skipped: list[str],
) -> tuple[int, ...]:
    """Play the moments in other interpreters, and return the hash seeds of those in which they were."""
    if not seeds:
        return ()
    where = _where.of_declaration(recording.declaration)
    if isinstance(where, str):
        told: Any = where
    else:
        told = _others.run(recording.declaration, where, recording.name, recording.moments[:count], plugins, seeds)
    if isinstance(told, str):
        skipped.append(f"other hash seeds were not tried: {told}")
        return ()
    for outcomes in told[1:]:
        findings.differences(told[0], outcomes, ELSEWHERE)
    return tuple(seeds)


def _exhaust(outcomes: Iterable[object]) -> None:
    for _ in outcomes:
        pass


# Tracebacks and pickles have the public name, which does not move when a private file does.
Report.__module__ = check.__module__ = "registry.testing"
