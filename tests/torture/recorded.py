"""Record what real processes call and are told, while they are killed, stopped and cut off, and have it judged.

Every process writes down each call before it makes it and when it has its result, with the time of one clock that all
share. A call without a result, of a process that was killed in it, may have taken effect or not. What was recorded is
checked for each object by `linearizability`. A history that fails is written to a file, to be looked at.
"""

from __future__ import annotations

import json
import os
import queue
import random
import signal
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic, monotonic_ns
from typing import Any

from linearizability.checker import UNKNOWN, Model, Operation, Undecided, check_objects
from linearizability.models import Counter, DictKeys, FairLock, Lock, Queue, Semaphore
from servers import KEY, Served, another

from registry import ManagerClient, connect
from registry.errors import NoSuchObject, NotOwner
from torture.cuts import carry
from torture.nursery import PATIENCE, Child, Line, Nursery, heard
from torture.sections import cut_when_told

CLIENTS = 8
ROOM = 2  # in the queue
PERMITS = 2  # of the semaphore
WAIT = 0.03  # seconds that a call waits, so that nobody waits for ever for one who was killed
KINDS = ("counter", "dict", "queue", "lock", "semaphore")
ERRORS = {error.__name__: error for error in (KeyError, queue.Empty, queue.Full, NotOwner)}

#: What each of the objects may answer. Whoever waits for the lock and is cut off is passed over until it is back.
MODELS: dict[str, Model] = {
    "counter": Counter(),
    "dict": DictKeys(),
    "queue": Queue(ROOM),
    "lock": Lock(),
    "semaphore": Semaphore(PERMITS),
}


# -- who calls


class Recorder:
    """A process's own objects, and its diary.

    Args:
        client: Its client.
        turn: Which history this is: each has objects of its own.
        path: Where the diary goes, a line for each beginning and each end of a call.
    """

    def __init__(self, client: ManagerClient, turn: int, path: str) -> None:
        self.client = client
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._calls = 0
        self.counter = client.counter(f"c{turn}")
        self.dict = client.dict(f"d{turn}")
        self.queue = client.queue(f"q{turn}", maxsize=ROOM)
        self.lock = client.lock(f"l{turn}")
        self.semaphore = client.semaphore(f"s{turn}", PERMITS)
        self.grant: Any = None
        self.permits: list[Any] = []

    def note(self, kind: str, verb: str, argument: Any, call: Any) -> Any:
        """Make a call and write it down; return its result."""
        self._calls += 1
        self._write(self._calls, monotonic_ns(), kind, verb, argument)
        try:
            result = call()
        except tuple(ERRORS.values()) as error:
            result = None
            told: Any = ["error", type(error).__name__]
        else:
            told = ["value", self._told(kind, verb, result)]
        self._write(self._calls, monotonic_ns(), told)
        return result

    def look(self) -> dict[str, Any]:
        """See who holds the lock and who waits; what nobody has used yet, nobody holds."""
        try:
            return self.client.statistics(self.lock)
        except NoSuchObject:
            return {"holder": None, "waiters": []}

    def _told(self, kind: str, verb: str, result: Any) -> Any:
        if verb == "acquire":
            if not result:
                return False
            return [result.number, bool(result.abandoned)] if kind == "lock" else result.number
        if verb == "look":
            holder = result["holder"]
            return [holder and holder["pid"], [waiter["pid"] for waiter in result["waiters"]]]
        return result

    def _write(self, *row: Any) -> None:
        os.write(self._file, json.dumps(row).encode() + b"\n")


def one_call(self: Recorder, draw: random.Random, item: str) -> None:
    """Call something."""
    kind = draw.choice(KINDS)
    what = draw.random()
    patience = draw.choice((0, WAIT))
    if kind == "counter":
        verb, by = draw.choice((("incr", 1), ("incr", 3), ("decr", 2), ("get", None)))
        self.note(kind, verb, by, lambda: getattr(self.counter, verb)(*(() if by is None else (by,))))
    elif kind == "dict":
        key = draw.choice("ab")
        small, other = draw.randint(0, 2), draw.randint(0, 2)
        verb, *given = draw.choice(
            (
                ("__setitem__", small),
                ("__setitem__", small),
                ("__getitem__",),
                ("get",),
                ("__contains__",),
                ("__delitem__",),
                ("pop", None),
                ("setdefault", small),
                ("incr", 3),
                ("compare_and_set", small, other),
                ("compare_and_set", small, other),
            )
        )
        self.note(kind, verb, [key, *given], lambda: getattr(self.dict, verb)(key, *given))
    elif kind == "queue":
        if what < 0.5:
            self.note(kind, "put", item, lambda: self.queue.put(item, timeout=patience))
        elif what < 0.9:
            self.note(kind, "get", None, lambda: self.queue.get(timeout=patience))
        else:
            self.note(kind, "qsize", None, self.queue.qsize)
    elif kind == "lock":
        if self.grant and what < 0.7:
            release(self)
        elif what < 0.2:
            self.note(kind, "look", None, self.look)
        elif what < 0.3:
            self.note(kind, "locked", None, self.lock.locked)
        elif not self.grant:
            how = "wait" if patience else "try"
            self.grant = self.note(kind, "acquire", how, lambda: self.lock.acquire(timeout=patience))
    elif self.permits and what < 0.6:
        release_permit(self)
    elif what < 0.7:
        self.note(kind, "value", None, self.semaphore.value)
    else:
        permit = self.note(kind, "acquire", None, lambda: self.semaphore.acquire(timeout=patience))
        if permit:
            self.permits.append(permit)


def release(self: Recorder) -> None:
    """Release the lock. It is free once the next call of the process has its reply; the release waits for none."""
    grant, self.grant = self.grant, None

    def give_back() -> None:
        grant.release()
        self.client.statistics()

    self.note("lock", "release", grant.number, give_back)


def release_permit(self: Recorder) -> None:
    """Return a permit."""
    permit = self.permits.pop()
    self.note("semaphore", "release", permit.number, permit.release)


def live(line: Line, url: str, turn: int, path: str, seed: int) -> None:
    """Make calls, one each time we are told to, until told to leave; then give back what we hold."""
    client = connect(url, KEY)
    cut_when_told(client._home.link())
    recorder = Recorder(client, turn, path)
    draw = random.Random(seed)
    line.say("connected")
    number = 0
    for calls in iter(lambda: line.hear(None)[0], 0):
        for _ in range(calls):
            number += 1
            one_call(recorder, draw, f"{os.getpid()}.{number}")
        line.say("called")
    if recorder.grant:
        release(recorder)
    while recorder.permits:
        release_permit(recorder)
    client.close()  # what it got last is its own from here on
    line.say("left")


def audit(url: str, turn: int, path: str) -> None:
    """Ask for everything that is there at the end, so that nothing can be missing unnoticed."""
    with another(url) as client:
        recorder = Recorder(client, turn, path)
        recorder.note("counter", "get", None, recorder.counter.get)
        for key in "ab":
            recorder.note("dict", "get", [key], lambda key=key: recorder.dict.get(key))
        if recorder.note("lock", "acquire", "try", lambda: recorder.lock.acquire(timeout=0)):
            recorder.lock.release()
        for _ in range(PERMITS + 1):
            recorder.note("semaphore", "acquire", None, lambda: recorder.semaphore.acquire(timeout=0))
        for _ in range(ROOM + CLIENTS):
            recorder.note("queue", "get", None, lambda: recorder.queue.get(block=False))


# -- what is recorded


class Death:
    """When a process was killed, and by when the server knew."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.since = monotonic_ns()
        self.known = 0


def read(pid: int, path: str, death: Death | None) -> list[Operation]:
    """Read the diary of a process."""
    begun: dict[int, tuple[int, str, str, Any]] = {}
    operations = []
    unconfirmed: dict[int, str] = {}
    for text in Path(path).read_bytes().splitlines():
        row = json.loads(text)
        if len(row) > 3:
            number, since, kind, verb, argument = row
            begun[number] = (since, kind, verb, argument)
            continue
        number, until, (how, value) = row
        since, kind, verb, argument = begun.pop(number)
        result = ERRORS[value] if how == "error" else _frozen(value)
        operations.append(_operation(pid, number, since, kind, verb, argument, result, until))
        if verb != "look":  # its frame has told that everything before it has arrived; a question's does not
            unconfirmed = {}
        unconfirmed[number] = kind
    if death is None and begun:
        raise RuntimeError(f"process {pid} has left without the end of {begun}")
    for number, (since, kind, verb, argument) in begun.items():
        operations.append(_operation(pid, number, since, kind, verb, argument, UNKNOWN, None))
    if death is not None:
        for kind in ("queue", "lock", "semaphore"):
            rows = {number: True for number, call in begun.items() if call[1] == kind}
            rows |= {number: False for number, other in unconfirmed.items() if other == kind}
            operations.append(
                Operation(
                    process=pid,
                    verb="end",
                    argument=tuple(((pid, number), certain) for number, certain in sorted(rows.items())),
                    result=None,
                    invoked=death.since,
                    returned=death.known,
                    subject=kind,
                )
            )
    return operations


def _operation(
    pid: int, number: int, since: int, kind: str, verb: str, argument: Any, result: Any, until: int | None
) -> Operation:
    return Operation(
        process=pid,
        verb=verb,
        argument=_frozen(argument),
        result=result,
        invoked=since,
        returned=float("inf") if until is None else until,
        subject=kind,
        call=(pid, number),
    )


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


# -- a history


class Course:
    """One history in the making.

    Args:
        server: The server; `url` leads to it, perhaps through a wire.
        turn: Its number; draws what happens.
        calls: How many calls each client makes; whoever takes the place of one who was killed makes what is left.
        kills: Whether anybody is killed; `cuts` whether anybody is cut off.
    """

    def __init__(
        self, server: Served, url: str, turn: int, calls: int, *, kills: bool, cuts: bool, nursery: Nursery
    ) -> None:
        self.server = server
        self.url = url
        self.turn = turn
        self.left = calls * CLIENTS
        self.kills = kills
        self.cutting = cuts
        self.nursery = nursery
        self.draw = random.Random(turn)
        self.folder = tempfile.TemporaryDirectory(prefix="h")
        self.crowd: list[Child] = []
        self.stopped: list[Child] = []
        self.deaths: dict[int, Death] = {}
        self.pids: list[int] = []
        self.cuts = self.pauses = 0

    def run(self, watcher: ManagerClient) -> list[Operation]:
        """Let everybody call, and return what they have recorded."""
        with self.folder:
            others = watcher.statistics()["sessions"]
            while self.left > 0:
                while len(self.crowd) < CLIENTS:
                    self.join()
                self.turns()
                if self.kills and self.draw.random() < 0.02:
                    self.kill(watcher, others)
            self.wake()
            for child in self.crowd:
                child.say(0)
                while child.hear() != ["left"]:
                    pass
                child.end()
            audit(self.server.url, self.turn, self.path(0))
            history = read(0, self.path(0), None)
            for pid in self.pids:
                history += read(pid, self.path(pid), self.deaths.get(pid))
        return sorted(history, key=lambda operation: operation.invoked)

    def path(self, pid: int) -> str:
        return os.path.join(self.folder.name, f"{pid}")

    def join(self) -> None:
        """Let another client come."""
        child = self.nursery.fork(self.come, self.draw.randrange(1 << 30))
        child.hear()
        self.pids.append(child.pid)
        self.crowd.append(child)
        child.say(self.draw.randint(1, 8))

    def come(self, line: Line, seed: int) -> None:
        live(line, self.url, self.turn, self.path(os.getpid()), seed)

    def turns(self) -> None:
        """Hear who has made its calls, and let it make more; disturb somebody now and then."""
        try:
            ready = heard(self.crowd, 0.02 if self.stopped else PATIENCE)
        except TimeoutError:
            if not self.stopped:
                raise
            self.wake()
            return
        for child in ready:
            child.hear()
            calls = self.draw.randint(1, 8)
            self.left -= calls
            child.say(calls)
            what = self.draw.random()
            if what < 0.1 and self.cutting:
                self.draw.choice(self.crowd).signal(signal.SIGUSR1)
                self.cuts += 1
            elif 0.1 < what < 0.2:
                victim = self.draw.choice(self.crowd)
                victim.signal(signal.SIGSTOP)
                self.stopped.append(victim)
                self.pauses += 1
            elif 0.2 < what < 0.35:
                self.wake()
            elif 0.35 < what < 0.37:
                self.server.signal(signal.SIGSTOP)
                with suppress(TimeoutError):
                    heard(set(self.crowd) - {child}, 0.01)
                self.server.signal(signal.SIGCONT)

    def wake(self) -> None:
        """Let those who were stopped go on."""
        for child in self.stopped:
            child.signal(signal.SIGCONT)
        self.stopped.clear()

    def kill(self, watcher: ManagerClient, others: int) -> None:
        """Kill somebody, and see by when the server knows."""
        child = self.draw.choice(self.crowd)
        death = self.deaths[child.pid] = Death(child.pid)
        child.kill()
        self.crowd.remove(child)
        self.stopped = [other for other in self.stopped if other is not child]
        limit = monotonic() + PATIENCE
        while watcher.statistics()["sessions"] > others + len(self.crowd):
            if monotonic() > limit:
                raise TimeoutError(f"the server does not learn of the end of {child.pid}")
        death.known = monotonic_ns()


def judge(history: list[Operation], *, fair: bool, limit: int = 2_000_000) -> tuple[str, str]:
    """Check a history: ``"well"``, ``"wrong"`` or ``"undecided"``, and why.

    Args:
        history: What was recorded.
        fair: Whether the lock must have been granted in the order in which it was asked for.
        limit: As for `check`.
    """
    models = {**MODELS, "lock": FairLock()} if fair else MODELS
    try:
        verdict = check_objects(history, models, limit=limit)
    except Undecided as error:
        return "undecided", str(error)
    return ("well" if verdict else "wrong"), str(verdict)


def write(history: list[Operation], verdict: str, path: Path) -> None:
    """Write a history to a file: the verdict, then each object by itself, with times in µs since the first call."""
    start = min(operation.invoked for operation in history)
    with path.open("w", encoding="utf-8") as file:
        file.write(verdict + "\n")
        for kind in KINDS:
            file.write(f"\n{kind}\n")
            for operation in history:
                if operation.subject == kind:
                    end = "..." if operation.result is UNKNOWN else f"{(operation.returned - start) / 1000:.1f}"
                    what = f"{operation.verb}({'' if operation.argument is None else repr(operation.argument)})"
                    when = f"[{(operation.invoked - start) / 1000:.1f}, {end}]"
                    file.write(f"{when:>28} {operation.call or operation.process}: {what} -> {operation.result!r}\n")


def histories(count: int, folder: str = "/tmp", calls: int = 100, first: int = 0) -> dict[str, Any]:
    """Record histories of `CLIENTS` processes, and judge them.

    Of four, two are with clients that are killed, stopped and cut off, while the server is stopped now and then. In one
    nobody is cut off, and the lock has to be fair. In one the clients are behind a wire that is cut after random
    numbers of bytes, and nobody is killed.

    Args:
        count: How many histories.
        folder: Where those that fail are written.
        calls: How many calls each process makes.
        first: The number of the first; it draws what happens, though not when.

    Returns:
        How many there were, how many calls they had, how many of these nobody knows the end of; kills, pauses and cuts;
        how many histories were wrong or undecided, and where they have been written.
    """
    found = {"well": 0, "wrong": 0, "undecided": 0}
    written = []
    operations = unknown = kills = pauses = cuts = 0
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # whoever has just been forked has no handler yet
    with ExitStack() as stack:
        near = stack.enter_context(Served("here"))
        far = stack.enter_context(Served("tcp://127.0.0.1:0"))
        nursery = stack.enter_context(Nursery())
        wire = nursery.fork(carry, far.url, 6_000, 20_000)
        (port,) = wire.hear()
        wire.say("cut")
        watchers = {server: stack.enter_context(another(server.url)) for server in (near, far)}
        for turn in range(first, first + count):
            server = far if turn % 4 == 3 else near
            url = f"tcp://127.0.0.1:{port}" if server is far else near.url
            cutting = turn % 4 != 2
            course = Course(server, url, turn, calls, kills=server is near, cuts=cutting, nursery=nursery)
            history = course.run(watchers[server])
            verdict, why = judge(history, fair=not cutting)
            found[verdict] += 1
            if verdict != "well":
                path = Path(folder) / f"history-{turn}-{verdict}.txt"
                write(history, why, path)
                written.append(str(path))
            operations += len(history)
            unknown += sum(operation.result is UNKNOWN for operation in history)
            kills += len(course.deaths)
            pauses += course.pauses
            cuts += course.cuts
        wire.say("end")
        cuts += wire.hear()[0]
    return {
        "histories": count,
        **found,
        "calls": operations,
        "unknown": unknown,
        "kills": kills,
        "pauses": pauses,
        "cuts": cuts,
        "written": written,
    }
