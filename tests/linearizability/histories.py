"""Histories with known verdicts: recorded by others, and small ones of our own."""

from __future__ import annotations

import os
import queue
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs

from linearizability.checker import UNKNOWN, Model, Operation
from linearizability.models import Counter, DictKeys, FairLock, Lock, Queue, Register, Semaphore
from registry.errors import NotOwner

_LINE = re.compile(r"(\d+)\s+:(invoke|ok|fail|info)\s+:(read|write|cas)\s+(.*?)\s*$")


def parse_jepsen(lines: Iterable[str]) -> list[Operation]:
    """Read the log of a register as Jepsen writes it: process, what happened, operation, value.

    A line's number is its time. ``:fail`` of a compare-and-set says that the value was another one; with
    ``:timed-out`` nobody knows what happened, as with ``:info``.

    Raises:
        ValueError: A line is not of this form, or ends an operation that has not begun.
    """
    begun: dict[str, tuple[int, str, Any]] = {}
    operations = []
    for time, line in enumerate(lines):
        if not line.strip():
            continue
        match = _LINE.search(line)
        if match is None:
            raise ValueError(f"line {time + 1} is not of a register: {line!r}")
        process, what, verb, value = match.groups()
        if what == "invoke":
            if process in begun:
                raise ValueError(f"line {time + 1}: process {process} is in a call already")
            begun[process] = (time, verb, _value(value))
            continue
        if process not in begun:
            raise ValueError(f"line {time + 1} ends what has not begun: {line!r}")
        since, verb, given = begun.pop(process)
        if what == "info" or value == ":timed-out":
            operations.append(_operation(process, verb, given, since, UNKNOWN))
        else:
            result = _value(value) if verb == "read" else what == "ok" if verb == "cas" else None
            operations.append(_operation(process, verb, given, since, result, time))
    operations += [_operation(process, verb, given, since, UNKNOWN) for process, (since, verb, given) in begun.items()]
    return operations


def _operation(process: str, verb: str, given: Any, since: int, result: Any, time: float = float("inf")) -> Operation:
    return Operation(process=process, verb=verb, argument=given, result=result, invoked=since, returned=time)


def _value(text: str) -> Any:
    if text == "nil":
        return None
    if text.startswith("["):
        return tuple(int(part) for part in text.strip("[]").split())
    return int(text)


def recorded() -> Path | None:
    """Find the recorded histories: where ``REGISTRY_HISTORIES`` says, else beside the checkout; None without them."""
    told = os.environ.get("REGISTRY_HISTORIES")
    place = Path(told) if told else Path(__file__).parents[3] / "shared" / "data" / "histories"
    return place if (place / "VERDICTS").is_file() else None


def verdicts(place: Path) -> Iterator[tuple[Path, bool]]:
    """Yield each recorded history with whether it is linearizable."""
    for line in (place / "VERDICTS").read_text(encoding="utf-8").splitlines():
        name, verdict = line.split()
        yield place / name, verdict == "linearizable"


@attrs.frozen
class Example:
    """A small history, and what is known of it.

    Attributes:
        title: What it shows.
        model: What the object may answer.
        linearizable: Whether it is.
        history: Its operations.
    """

    title: str
    model: Model
    linearizable: bool
    history: tuple[Operation, ...]


def example(title: str, model: Model, linearizable: bool, *rows: str, **results: Any) -> Example:
    """Draw a history: a row for each operation.

    A row is ``process: verb(argument) -> result   |--|``. The bar shows when it began and ended, and one without
    an end, ``|--``, that nobody knows. ``#name`` before the verb names the call. Names stand for themselves.
    """
    return Example(title, model, linearizable, tuple(_drawn(row, results) for row in rows))


_ROW = re.compile(r"(?:#(\w+) )?([\w.]+): (\w+)\((.*)\)(?: -> (.+?))?\s+(\|-*\|?)(?:$|\s)")
_WORDS: dict[str, Any] = {
    "None": None,
    "True": True,
    "False": False,
    "KeyError": KeyError,
    "Empty": queue.Empty,
    "Full": queue.Full,
    "NotOwner": NotOwner,
    "ValueError": ValueError,
}


def _drawn(row: str, results: dict[str, Any]) -> Operation:
    match = _ROW.match(row)
    if match is None:
        raise ValueError(f"not a row of a history: {row!r}")
    call, process, verb, given, result, bar = match.groups()
    ended = len(bar) > 1 and bar.endswith("|")

    def read(text: str | None) -> Any:
        if text is None or text == "":
            return None
        if text in results:
            return results[text]
        if "," in text:
            return tuple(read(part.strip()) for part in text.split(",") if part.strip())
        if text in _WORDS:
            return _WORDS[text]
        return int(text) if re.fullmatch(r"-?\d+", text) else text

    start = match.start(6)
    return Operation(
        process=process,
        verb=verb,
        argument=_call(given) if verb == "undo" else () if verb == "end" and not given else read(given),
        result=read(result) if ended else UNKNOWN,
        invoked=start,
        returned=start + len(bar) - 1 if ended else float("inf"),
        call=_call(call) if call else None,
    )


def _call(name: str) -> tuple[str, str]:
    """Return a call as a pair of session and number: ``A1`` is the first of session ``A``."""
    return name[0], name[1:]


EXAMPLES = (
    example(
        "a write takes effect somewhere within its time",
        Register(0),
        True,
        "A: write(1)      |---------|",
        "B: read() -> 0     |-|",
        "C: read() -> 1         |-|",
    ),
    example(
        "what one reader has seen no later reader may miss",
        Register(0),
        False,
        "A: write(1)      |---------|",
        "B: read() -> 1     |-|",
        "C: read() -> 0         |-|",
    ),
    example(
        "a read after a write sees it",
        Register(0),
        False,
        "A: write(1)      |--|",
        "B: read() -> 0         |-|",
    ),
    example(
        "a write that nobody knows the end of may come late",
        Register(0),
        True,
        "A: write(1)      |--",
        "B: read() -> 0         |-|",
        "C: read() -> 1              |-|",
    ),
    example(
        "but it comes once",
        Register(0),
        False,
        "A: write(1)      |--",
        "B: read() -> 1         |-|",
        "C: write(2)                |-|",
        "D: read() -> 2                 |-|",
        "E: read() -> 1                     |-|",
    ),
    example(
        "and may never come",
        Register(0),
        True,
        "A: cas(0, 1)     |--",
        "B: cas(0, 2) -> True  |-|",
        "C: read() -> 2              |-|",
    ),
    example(
        "a write of what is there already may be needed later",
        Register(0),
        True,
        "A: write(1)               |--|",
        "B: write(1)                    |-------|",
        "C: cas(1, 0) -> True            |--|",
        "D: cas(1, 0) -> True                      |--|",
    ),
    example(
        "of two who compare and set one wins",
        Register(0),
        False,
        "A: cas(0, 1) -> True    |------|",
        "B: cas(0, 2) -> True       |------|",
    ),
    example(
        "keys do not depend on each other",
        DictKeys(),
        True,
        "A: __setitem__(a, 1)            |--|",
        "B: __getitem__(b,) -> KeyError        |--|",
        "C: pop(a,) -> 1                             |--|",
        "D: __contains__(a,) -> False                      |--|",
    ),
    example(
        "one entry is not popped twice",
        DictKeys(),
        False,
        "A: __setitem__(a, 1)   |--|",
        "B: pop(a,) -> 1             |----|",
        "C: pop(a,) -> 1               |----|",
    ),
    example(
        "no two callers count to the same number",
        Counter(),
        False,
        "A: incr(1) -> 1     |-----|",
        "B: incr(1) -> 1       |-----|",
    ),
    example(
        "a call that nobody knows the end of has counted once",
        Counter(),
        False,
        "A: incr(1)        |--",
        "B: incr(1) -> 3        |--|",
    ),
    example(
        "items come out in the order in which they went in",
        Queue(),
        False,
        "A: put(1)         |--|",
        "A: put(2)              |--|",
        "B: get() -> 2                |--|",
    ),
    example(
        "items that went in at one time come out in any order",
        Queue(),
        True,
        "A: put(1)         |------|",
        "B: put(2)            |------|",
        "C: get() -> 2                  |--|",
        "C: get() -> 1                       |--|",
        "C: get() -> Empty                        |--|",
    ),
    example(
        "an item goes to one getter",
        Queue(),
        False,
        "A: put(1)         |--|",
        "B: get() -> 1           |-----|",
        "C: get() -> 1              |-----|",
    ),
    example(
        "what was not acknowledged goes back to the front",
        Queue(),
        True,
        "A: put(1)             |--|",
        "A: put(2)                  |--|",
        "#B1 B: get() -> 1               |--|",
        "C: get() -> 2                        |--|",
        "B: end(unheard)                           |--|",
        "C: get() -> 1                                   |--|",
        unheard=((("B", "1"), False),),
    ),
    example(
        "what was acknowledged does not",
        Queue(),
        False,
        "A: put(1)             |--|",
        "B: get() -> 1              |--|",
        "B: end()                        |--|",
        "C: get() -> 1                         |--|",
    ),
    example(
        "a full queue has no room, and one that is not full has",
        Queue(1),
        False,
        "A: put(1)             |--|",
        "A: put(2) -> Full          |--|",
        "B: get() -> 1                   |--|",
        "A: put(2) -> Full                     |--|",
    ),
    example(
        "a lock that was given up is given on",
        Lock(),
        True,
        "A: acquire(wait) -> 1, False    |--|",
        "B: acquire(wait) -> 2, False      |------------|",
        "A: release(1)                          |--|",
    ),
    example(
        "two do not hold one lock",
        Lock(),
        False,
        "A: acquire(wait) -> 1, False    |--|",
        "B: acquire(wait) -> 2, False      |----|",
        "A: release(1)                             |--|",
    ),
    example(
        "tokens grow",
        Lock(),
        False,
        "A: acquire(wait) -> 2, False    |--|",
        "A: release(2)                        |--|",
        "B: acquire(wait) -> 1, False              |--|",
    ),
    example(
        "the next after a death is told, until one who was told has released",
        Lock(),
        True,
        "A: acquire(wait) -> 1, False    |--|",
        "A: end()                             |--|",
        "B: acquire(wait) -> 2, True               |--|",
        "B: release(2)                                   |--|",
        "C: acquire(wait) -> 3, False                          |--|",
    ),
    example(
        "the mark of a death is not forgotten",
        Lock(),
        False,
        "A: acquire(wait) -> 1, False    |--|",
        "A: end()                             |--|",
        "B: acquire(wait) -> 2, False              |--|",
    ),
    example(
        "the dead acquire nothing",
        Lock(),
        False,
        "A: acquire(wait)                |--",
        "A: end()                             |--|",
        "B: acquire(try) -> False                   |--|",
    ),
    example(
        "a call that was undone holds nothing",
        Lock(),
        False,
        "#A1 A: acquire(wait)            |--",
        "A: undo(A1)                          |--|",
        "B: acquire(try) -> False                   |--|",
    ),
    example(
        "only the holder releases",
        Lock(),
        False,
        "A: acquire(wait) -> 1, False    |--|",
        "B: release()                         |--|",
    ),
    example(
        "who is told so does not hold it",
        Lock(),
        True,
        "A: acquire(wait) -> 1, False    |--|",
        "B: release() -> NotOwner             |--|",
    ),
    example(
        "who was seen to wait comes before who came later",
        FairLock(),
        False,
        "#A1 A: acquire(wait) -> 1, False    |--|",
        "#B1 B: acquire(wait) -> 3, False         |-----------------------------|",
        "C: look() -> seen                          |--|",
        "#D1 D: acquire(wait) -> 2, False                 |------------|",
        "A: release(1)                                       |--|",
        "D: release(2)                                                     |--|",
        seen=("A", ("B",)),
    ),
    example(
        "who was not seen to wait may have come later",
        FairLock(),
        True,
        "#A1 A: acquire(wait) -> 1, False    |--|",
        "#B1 B: acquire(wait) -> 3, False         |-----------------------------|",
        "#D1 D: acquire(wait) -> 2, False                 |------------|",
        "A: release(1)                                       |--|",
        "D: release(2)                                                     |--|",
    ),
    example(
        "permits are not given twice",
        Semaphore(2),
        False,
        "A: acquire() -> True     |--|",
        "B: acquire() -> True        |--|",
        "C: acquire() -> True           |--|",
    ),
    example(
        "the permits of the dead come back",
        Semaphore(1),
        True,
        "A: acquire() -> True     |--|",
        "B: acquire() -> False         |--|",
        "A: end()                           |--|",
        "B: acquire() -> True                    |--|",
    ),
    example(
        "and no more than they had",
        Semaphore(1),
        False,
        "A: acquire() -> True     |--|",
        "A: release()                  |--|",
        "A: end()                           |--|",
        "B: acquire() -> True                    |--|",
        "C: acquire() -> True                          |--|",
    ),
    example(
        "a permit is returned once",
        Semaphore(2),
        False,
        "A: acquire() -> 7        |--|",
        "A: release(7)                 |--|",
        "A: release(7)                      |--|",
    ),
    example(
        "a bounded semaphore refuses a permit too many",
        Semaphore(1, bounded=True),
        True,
        "A: release() -> ValueError   |--|",
        "A: acquire() -> True              |--|",
        "A: release()                           |--|",
    ),
)
