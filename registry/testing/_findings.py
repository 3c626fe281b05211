"""What is wrong with a class, as the author is told: what, where in the source, and the cure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from registry.testing._keys import strays
from registry.testing._passes import Moment, Outcome, Recording, Trouble, difference
from registry.testing._places import of_attribute, of_kept_sets, of_local_sets, of_method, written
from registry.testing._watch import Watch

_ORDER: Final = "the order of a set is no part of its value: sort it, or keep a dict (dict.fromkeys) in its place"
_SAVE: Final = (
    "let state() return it and load() take it back, or make it a field; "
    "name it in check(derived=...) if the class makes it again from the rest whenever it is needed"
)
_KEEP: Final = "keep everything in the object's own attributes: not in its class, its module or a cache of functions"
_TOUCH: Final = "name these keys by registry.hosting.touch() where they change, or take the method out of keyed="
_WAIT: Final = "name it in waiting=, so that its calls have no deadline of their own"
_READ: Final = "take it out of readonly="
_RETURN: Final = (
    "return numbers, texts, bytes, dates and containers of these, or declare the class as a ValueType in a plugin "
    "and name that in check(plugins=[...])"
)
#: Passes over the series: in an engine that was restored, with sets of another history, in other interpreters.
RESTORED: Final = "after a restore"
JUMBLED: Final = "after a restore, with sets of another history"
ELSEWHERE: Final = "in another interpreter"
_CURES: Final = {RESTORED: _KEEP, JUMBLED: _ORDER, ELSEWHERE: f"{_KEEP}; and {_ORDER}"}
# Cures of what has nothing to do with a log.
_DECLARED: Final = frozenset({_TOUCH, _WAIT, _READ, _RETURN})
# What the engine runs that is no method of the author's to look into.
_MAKING: Final = "__init__"


@attrs.frozen
class Finding:
    """One thing that is wrong.

    Attributes:
        class_name: The class.
        method: The method in which it was seen; empty where there is none to name.
        what: What is wrong, as a sentence without its subject.
        places: Where in the source, as ``jar.py:12``; what may be the reason where several are named.
        cure: What to do about it.
    """

    class_name: str
    method: str
    what: str
    places: tuple[str, ...]
    cure: str

    def __str__(self) -> str:
        subject = f"{self.class_name}.{self.method}()" if self.method else self.class_name
        where = f"\n   at {', '.join(self.places)}" if self.places else ""
        return f"{subject} {self.what}{where}\n   {self.cure}"


class CheckFailed(AssertionError):
    """Raised when a class is not fit for a log; the text tells every finding.

    Attributes:
        typeid: What was checked.
        findings: What was found.
    """

    def __init__(self, typeid: str, findings: tuple[Finding, ...]) -> None:
        super().__init__(typeid, findings)
        self.typeid = typeid
        self.findings = findings

    def __str__(self) -> str:
        how = "as it is declared" if all(finding.cure in _DECLARED for finding in self.findings) else "with a log"
        count = "1 finding" if len(self.findings) == 1 else f"{len(self.findings)} findings"
        rows = [f"{number}. {finding}" for number, finding in enumerate(self.findings, 1)]
        return "\n".join([f"shared type {self.typeid!r} must not be served {how}: {count}", *rows])


# Tracebacks and pickles have the public name, which does not move when a private file does.
for _public in (Finding, CheckFailed):
    _public.__module__ = "registry.testing"


class Findings:
    """What was found of one class; each thing once."""

    def __init__(self, recording: Recording, watch: Watch) -> None:
        self.found: dict[tuple[str, ...], Finding] = {}
        self._recording = recording
        self._watch = watch
        self._class = type(recording.instance)
        self._sighted = {self._named(sight.method) for sight in watch.sights}

    def add(self, key: tuple[str, ...], method: str, what: str, places: Iterable[tuple[str, int]], cure: str) -> None:
        """Add a finding, unless one with this key is there."""
        shown = tuple(dict.fromkeys(filter(None, map(written, places))))
        self.found.setdefault(key, Finding(self._class.__qualname__, method, what, shown, cure))

    def sights(self) -> None:
        """Add what methods were seen to call."""
        for sight in self._watch.sights:
            place = sight.place if sight.place[0] else of_method(self._class, sight.method)
            self.add((sight.doing, written(place)), self._named(sight.method), sight.doing, [place], sight.cure)

    def troubles(self) -> None:
        """Add what was found while the series was recorded, and of what is keyed."""
        for trouble in (*self._recording.troubles, *strays(self._recording)):
            number = self._recording.moments.index(trouble.moment)
            method = self._method(trouble.moment, number)
            names = ", ".join(map(repr, filter(None, trouble.names)))
            place = of_attribute(self._class, method, trouble.names[0] if trouble.names else "")
            what, cure = _worded(trouble, names)
            self.add((trouble.kind, method, names), method, f"{what} (in {trouble.moment.title})", [place], cure)

    def differences(self, outcomes: Sequence[Outcome], others: Sequence[Outcome], where: str) -> None:
        """Add the moments in which two passes over the series have come to different outcomes.

        Args:
            outcomes: Those of the first pass.
            others: Those of the second.
            where: What was different there, one of `RESTORED`, `JUMBLED` and `ELSEWHERE`.
        """
        for number, (one, other) in enumerate(zip(outcomes, others)):
            found = difference(one, other)
            if found is None:
                continue
            moment = self._recording.moments[number]
            method = self._method(moment, number)
            if method in self._sighted:
                continue  # the reason stands there already
            what, values = found
            text = f"has another {what} {where.partition(',')[0]}: {values} (in {moment.title})"
            places = self._sets(moment, method, where)
            if places:
                self.add(("difference", method), method, f"goes through a set and {text}", places, _ORDER)
                continue
            suspects = list(self._watch.suspects.get(number, ()))
            if suspects:
                doing = " and ".join(dict.fromkeys(sight.doing for sight in suspects))
                cure = f"what {doing} returns is another in every process: it must not show"
                self.add(("difference", method), method, text, [sight.place for sight in suspects], cure)
                continue
            self.add(("difference", method), method, text, [of_method(self._class, method)], _CURES[where])

    def _sets(self, moment: Moment, method: str, where: str) -> list[tuple[str, int]]:
        try:
            kept = of_kept_sets(self._recording.declaration, self._recording.name, moment)
        except Exception:  # noqa: BLE001 - such a set is of another class, which the author's code may refuse
            kept = []
        return kept or (of_local_sets(self._class, method) if where == ELSEWHERE else [])

    def _method(self, moment: Moment, number: int) -> str:
        if moment.method:
            return self._named(moment.method)
        ran = self._watch.ran.get(number, [])
        return ran[0] if ran else ""

    def _named(self, method: str) -> str:
        made = (_MAKING, self._class.__name__, getattr(self._recording.declaration.factory, "__name__", ""))
        return _MAKING if method in made else method


def _worded(trouble: Trouble, names: str) -> tuple[str, str]:
    """Return what a trouble is, and its cure."""
    which = f"attribute {names}" if names else "the state"
    if trouble.kind == "unsaved":
        return f"leaves {which} out of the state: after a restore it {trouble.text}", _SAVE
    if trouble.kind == "stray":
        return f"is declared keyed and changes what {trouble.text} returns, which clients have cached", _TOUCH
    if trouble.kind == "readonly":
        rule = "take it out of readonly=, or let it change nothing; counts of reads belong in the caller"
        return f"is declared readonly and changes {which}", rule
    if trouble.kind == "waiting":
        return "waits, and is not declared to", _WAIT
    if trouble.kind == "reading":
        return "is declared readonly and has an effect", _READ
    if trouble.kind == "uncrossable":
        return f"returns what cannot cross: {trouble.text}", _RETURN
    if trouble.kind == "round trip":
        return f"leaves a state that does not come back: {which} differs after load()", (
            "let load() take back exactly what state() returned, types included"
        )
    if trouble.kind == "unrestorable":
        return f"leaves a state that cannot be restored: {trouble.text}", (
            "let the factory and load() take what they were given, and what state() returned"
        )
    return f"leaves a state that cannot be kept, {which}: {trouble.text}", (
        "keep numbers, texts, bytes, dates and containers of these, tell them by state() and load(), or declare the "
        "class as a ValueType in a plugin and name that in check(plugins=[...])"
    )
