"""What the processes of ``registry demo`` do: ``python -m registry.cli._demo_worker``.

Two commands: ``alone LIST RESULT`` counts the identifiers of all files by itself; ``work ADDRESS LABEL`` is
one of several interpreters that take files from a shared queue until they are told that there are no more.

A worker takes a file, counts outside of the lock, and then makes one *step* under the lock:

1. it records the file, and what the counters were, in the journal;
2. it stores what it counted as one entry, whose key is the file;
3. it moves the two counters;
4. it closes the record.

A worker that dies on the way leaves a record that is open. Whoever gets the lock next is told that it was
abandoned, and undoes that step before its own: the counters are set back, the entry goes, the file goes back
into the queue. Each of these may happen twice and changes nothing the second time, as a file that is in the
dict is not counted again; so the one who undoes may die over it, too.

What the record does not cover is a death between taking a file and opening the record. It would not pass
unnoticed: the demo ends with an error if any worker dies but the one that it kills.
"""

from __future__ import annotations

import json
import sys
import time
import tokenize
from collections import Counter
from keyword import iskeyword
from pathlib import Path
from typing import Any

import registry

__all__ = ["FOLLOW", "Desk", "alone", "identifiers", "main", "work"]

FOLLOW = "."  # what `alone` prints for each file


class Desk:
    """The shared objects of the job, by the same names in each process.

    Attributes:
        files: a queue of ``[file, stay]``, then None for each worker; who gets a file with `stay` set stays
            in the middle of its step for ever, which is where the demo wants to kill it.
        counts: a dict of file to what was counted in it; None if it is no valid Python.
        counted: how many files that are.
        identifiers: how many identifiers were found in them.
        journal: a dict whose entry ``"open"`` is the step under way.
        step: the lock around steps.
        reports: a queue of what the demo is told: ``[kind, worker, ...]``.
        never: a queue into which nobody puts anything.
    """

    def __init__(self, shared: registry.ManagerClient) -> None:
        self.files = shared.queue("files")
        self.counts = shared.dict("counts")
        self.counted = shared.counter("counted")
        self.identifiers = shared.counter("identifiers")
        self.journal = shared.dict("journal")
        self.step = shared.lock("step")
        self.reports = shared.queue("reports")
        self.never = shared.queue("never")


def identifiers(path: Path) -> dict[str, int] | None:
    """Count the identifiers of a file of Python; None if it is no valid Python."""
    try:
        with tokenize.open(path) as file:
            tokens = tokenize.generate_tokens(file.readline)
            return Counter(t.string for t in tokens if t.type == tokenize.NAME and not iskeyword(t.string))
    except (SyntaxError, UnicodeDecodeError, tokenize.TokenError):
        return None


def alone(files: list[str]) -> dict[str, dict[str, int] | None]:
    """Count in one process, and print a dot for each file."""
    counts = {}
    for name in files:
        counts[name] = identifiers(Path(name))
        print(FOLLOW, flush=True)
    return counts


def work(shared: registry.ManagerClient, label: str) -> None:
    """Count with others until there are no more files."""
    desk = Desk(shared)
    desk.reports.put(["ready", label])
    while (task := desk.files.get()) is not None:
        name, stay = task
        found = identifiers(Path(name))
        with desk.step as grant:
            now = time.monotonic()
            if grant.abandoned:
                _undo(desk, label, now)
            if name not in desk.counts:
                _count(desk, label, name, found, stay)
        desk.reports.put(["counted", label, name])


def _count(desk: Desk, label: str, name: str, found: dict[str, int] | None, stay: bool) -> None:
    """Make a step; the caller holds the lock."""
    counted, total = desk.counted.get(), desk.identifiers.get()
    desk.journal["open"] = {"worker": label, "file": name, "counted": counted, "identifiers": total}
    desk.counts[name] = None if found is None else dict(found)
    if stay:
        desk.reports.put(["stays", label, name])
        desk.never.get()
    desk.counted.incr()
    desk.identifiers.incr(sum((found or {}).values()))
    del desk.journal["open"]


def _undo(desk: Desk, label: str, now: float) -> None:
    """Undo the step of a worker that died; the caller holds the lock that was abandoned."""
    record: dict[str, Any] | None = desk.journal.get("open")
    if record is None:
        return
    desk.counted.set(record["counted"])
    desk.identifiers.set(record["identifiers"])
    desk.counts.pop(record["file"], None)
    desk.files.put([record["file"], False])
    del desk.journal["open"]
    desk.reports.put(["put back", label, record["file"], now])


def main(words: list[str]) -> None:
    """Run one of the two commands."""
    command, first, second = words
    if command == "alone":
        counts = alone(json.loads(Path(first).read_text("utf-8")))
        Path(second).write_text(json.dumps(counts), "utf-8")
    else:
        with registry.connect(first, start=False, label=second) as shared:
            work(shared, second)


if __name__ == "__main__":
    main(sys.argv[1:])
