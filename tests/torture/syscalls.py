"""Faults at the system calls of a log: each is made to fail, or kills who makes it, and what is found must be right.

`strace` does it, attached to a real server with a real client. First a life of the server is watched, call by call;
then the same life is lived once more for each of its calls, with a fault at that one. A call is named by what it is,
the file that it is made on, and how many of its kind its thread has made on that file since strace came; where two
threads make calls of one name, the first of them is the one that is hit.

A life has phases, and strace comes when the one begins that is walked:

==========  ===================================================================================
start       in an empty directory
recovery    in one that was left by a kill: a torn tail, a half-written file, events to replay
append      calls of a client, and the switch to the next segment; nothing is folded
folding     the server's part in a compaction: the head, the removal of what is not needed
compactor   the process that writes the snapshot
stop        a clean end
==========  ===================================================================================

The client makes calls one after the other and notes each answer. Whatever happens, what is found then is the state
after all calls that were answered, or after one more, which was in flight. The next start is without faults: the client
goes on with the session that it had, and in the end each call has been made exactly once.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from registry import _durability, _plugins, connect
from registry._addresses import EpochFile
from registry._log import Recovered, _recovery, _segments, _store
from registry._log._code import code
from registry._log._files import Directory
from registry.cli import run
from torture.nursery import PATIENCE, Child, Line, Nursery

NAME = "here"
EVENTS = 12  # after so many a segment is closed
CHANGING = "write,pwrite64,writev,pwritev,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,ftruncate,mkdir"
PHASES = ("start", "recovery", "append", "folding", "compactor", "stop")
DONE = r"folded the log up to|could not be folded"

_PR_SET_PTRACER = 0x59616D61
_ROW = re.compile(r"(\d+) +([\d.]+) (.*)")
_CALL = re.compile(r"(\w+)\((.*)")
_CHANGES = re.compile("O_CREAT|O_RDWR|O_WRONLY|O_DIRECTORY")
_FILES = re.compile(r'"([^"]+)"|\d+<([^<>]+?)>')


class Target(NamedTuple):
    """A system call: its name, its file, and which it is of those that its thread makes on that file."""

    name: str
    path: str
    nth: int
    thread: int

    def __str__(self) -> str:
        return f"{self.name} {self.nth} on {os.path.basename(self.path)} in thread {self.thread}"


class Fault(NamedTuple):
    """What happens at a call: an error, as often as told, or a signal."""

    kind: str
    times: int = 1

    def options(self, target: Target) -> list[str]:
        last = f"..{target.nth + self.times - 1}" if self.times > 1 else ""
        effect = "signal=KILL" if self.kind == "KILL" else f"error={self.kind}"
        return ["-e", f"inject={target.name}:{effect}:when={target.nth}{last}", "-P", target.path]


KILL, EIO, ENOSPC = Fault("KILL"), Fault("EIO"), Fault("ENOSPC", 3)
FAULTS = {fault.kind: fault for fault in (KILL, EIO, ENOSPC)}


# -- the processes


def allow_strace() -> None:
    """Let any process of this user trace us, where usually only a parent may."""
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)


def be_watched(line: Line) -> None:
    """Do nothing, and let it be watched."""
    allow_strace()
    line.say()
    line.hear(None)


def serve(line: Line, log: str, state: str, said: int, folds: bool, python: str) -> None:
    """Be a server, as the command line makes one, whose segments are small."""
    os.dup2(said, 2)
    os.close(said)
    allow_strace()
    _store.SEGMENT_EVENTS = EVENTS
    _segments.RETRY = 0.02
    _durability.SETTLE = 0.5
    sys.executable = python
    if not folds:
        _store.Store.fold = lambda *args: None  # type: ignore[method-assign]
    line.hear(None)
    status = run(["serve", NAME, "--log", log, "--state", state])
    sys.stderr.flush()
    os._exit(status)


def work(line: Line, first: int) -> None:
    """Make calls one after the other up to the number that we are told, and say when each was answered."""
    shared = None
    while True:
        (upto,) = line.hear(None)
        if shared is None:
            shared = connect(NAME, timeout=PATIENCE)
            count, held, items = shared.counter("c"), shared.dict("d"), shared.queue("q")
        for number in range(first, upto):
            if number % 3 == 0:
                count.incr()
            elif number % 3 == 1:
                held[str(number)] = number
            else:
                items.put(number)
            line.say(number, time.time())
        line.say("done", time.time())
        first = upto


def audit(line: Line, total: int) -> None:
    """Read everything, and tell what is not as it should be after so many calls."""
    shared = connect(NAME, timeout=PATIENCE)
    items = shared.queue("q")
    found = (
        shared.counter("c").get(),
        dict(shared.dict("d")),
        [items.get(timeout=0) for _ in range(items.qsize())],
    )
    expected = (len(range(0, total, 3)), {str(n): n for n in range(1, total, 3)}, [*range(2, total, 3)])
    line.say([] if found == expected else [f"{found} instead of {expected}"])
    line.hear(None)


class Server:
    """A server process under test, and what it says."""

    def __init__(self, nursery: Nursery, log: str, state: Path, *, folds: bool = False, python: str = "") -> None:
        self._said, theirs = os.pipe()
        self.child: Child = nursery.fork(serve, log, os.fspath(state), theirs, folds, python or sys.executable)
        os.close(theirs)
        self.text = ""
        self.ended = False
        self._seen = 0

    def heed(self, *lines: Line) -> bool:
        """Wait until it says something or has ended, or a line does; tell whether a line does."""
        if any(line.has_more for line in lines):
            return True
        ready = select.select([self._said, *lines], [], [], PATIENCE)[0]
        if not ready:
            raise TimeoutError("nothing happens any more")
        if self._said in ready:
            data = os.read(self._said, 65536)
            self.text += data.decode(errors="replace")
            self.ended = not data
        return len(ready) > (self._said in ready)

    def until(self, pattern: str) -> bool:
        """Wait until it says something; False if it ends instead."""
        while not (found := re.compile(pattern).search(self.text, self._seen)):
            if self.ended:
                return False
            self.heed()
        self._seen = found.end()
        return True

    def wait(self) -> int:
        """Wait for its end, and return how it ended."""
        while not self.ended:
            self.heed()
        os.close(self._said)
        return self.child.wait()


class Strace:
    """strace, attached to a process and to all that it starts."""

    def __init__(self, pid: int, output: Path, options: Sequence[str]) -> None:
        command = [*command_of(output, options), "-p", str(pid)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        said = []
        for row in self._process.stderr or ():
            said.append(row)
            if "attached" in row:
                return
        self.leave()
        raise PermissionError("".join(said).strip())

    def leave(self) -> None:
        """Let go of what runs."""
        self._process.terminate()
        self._process.communicate()

    def wait(self) -> None:
        """Wait until all that was watched has ended."""
        try:
            self._process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.leave()


def command_of(output: Path, options: Sequence[str]) -> list[str]:
    """Return the command that watches the calls which change files, and lets some of them fail."""
    return ["strace", "-f", "-y", "-ttt", "-s", "0", "-e", f"trace={CHANGING},openat", "-o", str(output), *options]


def refused() -> dict[str, Any]:
    """Tell why calls cannot be made to fail here, with an empty text if they can."""
    if not shutil.which("strace"):
        return {"refused": "strace is not installed"}
    with Nursery() as nursery, tempfile.TemporaryDirectory() as directory:
        child = nursery.fork(be_watched)
        child.hear()
        try:
            Strace(child.pid, Path(directory, "out"), []).leave()
        except PermissionError as error:
            return {"refused": f"strace may not attach to a process: {error}"}
    return {"refused": ""}


def rows(output: Path) -> Iterator[tuple[str, float, str]]:
    """Yield what strace has written: thread, time, and what it did."""
    if output.exists():
        for row in output.read_text(errors="replace").splitlines():
            found = _ROW.fullmatch(row)
            if found:
                yield found[1], float(found[2]), found[3]


# -- what a life leaves


def read(state: Path) -> Recovered:
    """Read a log without changing it.

    Raises:
        RegistryError: It is damaged.
    """
    plugins = _plugins.load()
    known = EpochFile(state / "epoch").read()
    head = (known.head, known.chain) if known is not None else (0, 0)
    found = _recovery.recover(Directory(state), plugins.declarations, code(plugins), head)
    assert not found.diverged and not found.warnings, (found.diverged, found.warnings)
    return found


def calls_in(found: Recovered) -> int:
    """Return how many calls have been made in a state, which must be what so many leave."""
    each = [found.engine.find(*name) for name in (("counter", "c"), ("dict", "d"), ("queue", "q"))]
    count, held, items = (hosted.instance if hosted is not None else None for hosted in each)
    made = (
        0 if count is None else count.get(),
        0 if held is None else len(held),
        0 if items is None else items.qsize(),
    )
    expected = tuple(len(range(first, sum(made), 3)) for first in range(3))
    assert made == expected, f"{made} is what no number of calls leaves"
    return sum(made)


class Template(NamedTuple):
    """A directory to begin with, and how many calls have been made in it."""

    path: Path
    calls: int


def templates(log: str, home: Path) -> dict[str, Template]:
    """Make what each phase begins with."""
    fresh = Template(home / "fresh", 0)
    stopped = Template(home / "stopped", 3 * EVENTS)
    torn = Template(home / "torn", 4 * EVENTS)
    calls = 0
    for template, folds in ((Template(stopped.path, EVENTS), True), (stopped, True), (torn, False)):
        with Nursery() as nursery:
            if template is torn:
                shutil.copytree(stopped.path, torn.path)
            worker, server = nursery.fork(work, calls), Server(nursery, log, template.path, folds=folds)
            server.child.say()
            server.until("serving ")
            worker.say(template.calls)
            while not (server.heed(worker) and worker.hear()[0] == "done"):
                pass
            calls = template.calls
            if template is torn:
                server.child.kill()
                continue
            server.until(DONE)
            server.child.signal(signal.SIGTERM)
            server.wait()
    last = Directory(torn.path).segments()[-1][1]
    with open(last, "ab") as file:
        file.write(last.read_bytes()[-50:-7])
    (torn.path / f"{5:020d}.snapshot.1.new").write_bytes(b"half a snapshot")
    assert len(Directory(stopped.path).snapshots()) == 2
    return {phase: {"start": fresh, "recovery": torn}.get(phase, stopped) for phase in PHASES}


# -- lives


class Walk:
    """Lives of servers with one log, each with a fault at another call of one phase.

    Args:
        log: ``process`` or ``disk``.
        phase: Which part of a life is walked.
        home: A directory for all that this needs.
        template: What each life begins with.

    Attributes:
        problems: What was not as it must be.
        counted: How often what was seen.
    """

    def __init__(self, log: str, phase: str, home: Path, template: Template) -> None:
        self.log = log
        self.phase = phase
        self.template = template
        self.total = template.calls + EVENTS * (2 if phase == "append" else 1)
        self.problems: list[str] = []
        self.counted: Counter[str] = Counter()
        self._home = home
        self._state = home / "state"
        self._output = home / "strace"
        self._answered: list[float] = []  # when which call was

    def targets(self) -> list[Target]:
        """Watch a life and return the calls that the phase makes on the files of the log, in order."""
        self._prepare()
        with Nursery() as nursery:
            worker, server = nursery.fork(work, self.template.calls), self._server(nursery, [])
            until = self._live(server, worker, [])
            assert server.wait() == 0, server.text
        threads: dict[str, int] = {}
        counted: Counter[tuple[str, str, str]] = Counter()
        seen: set[tuple[str, str, int]] = set()
        targets = []
        for tid, when, what in rows(self._output):
            found = _CALL.match(what)
            if not found:
                continue
            name, rest = found.groups()
            number = threads.setdefault(tid, len(threads))
            files = [one or other for one, other in _FILES.findall(rest)]
            files = [path for path in files if f"{path}/".startswith(f"{self._state}/")]
            for path in set(files):
                counted[tid, name, path] += 1
            if not files or when > until or (name == "openat" and not _CHANGES.search(rest)):
                continue
            if name == "mkdir" and "EEXIST" in rest:
                continue  # nothing is made
            if self.phase == "folding" and not (name.startswith("unlink") or files[0].endswith("epoch")):
                continue  # the switch before it is walked as a part of `append`, and the process by itself
            target = Target(name, files[0], counted[tid, name, files[0]], number)
            if target[:3] in seen:
                self.counted["not told apart"] += 1
            else:
                seen.add(target[:3])
                targets.append(target)
        return targets

    def strike(self, target: Target, fault: Fault) -> None:
        """Live with a fault at one call, and look what comes of it."""
        self._prepare()
        options = fault.options(target)
        problems: list[str] = []
        with Nursery() as nursery:
            worker, server = nursery.fork(work, self.template.calls), self._server(nursery, options)
            try:
                self._live(server, worker, options)
                status = server.wait()
                mark = "+++ killed by SIGKILL" if fault is KILL else "(INJECTED)"
                struck = [(tid, when) for tid, when, what in rows(self._output) if mark in what]
                if not struck:
                    self.counted["missed"] += 1
                    return
                self.counted["struck"] += 1
                problems += self._judge(
                    fault, status, server.text, any(tid != str(server.child.pid) for tid, _ in struck)
                )
                problems += self._go_on(nursery, worker, struck[0][1] if fault is EIO else None)
            except Exception as error:  # noqa: BLE001 - the walk goes on, and tells
                problems.append(f"{type(error).__name__}: {error}")
        for problem in problems:
            self.problems.append(f"{fault.kind} at {self.log} {self.phase} {target}: {problem}\n{server.text}")

    def relapse(self, targets: Sequence[Target]) -> None:
        """Kill one server after the other at its recovery of one directory, each at another call, then go on."""
        self._prepare()
        first = self._next_life()
        for target in targets:
            # The names of what is being written tell the life.
            path = target.path.replace(f".{first}.", f".{self._next_life()}.")
            options = KILL.options(target._replace(path=path))
            with Nursery() as nursery, contextlib.ExitStack() as stack:
                server = self._server(nursery, options)
                stack.callback(Strace(server.child.pid, self._output, options).wait)
                server.child.say()
                struck = not server.until("serving ")
                self.counted["struck" if struck else "missed"] += 1
                server.child.kill()
            made = calls_in(read(self._state))
            if made != self.template.calls:
                self.problems.append(f"{made} calls are left of {self.template.calls} after {target}")
        with Nursery() as nursery:
            self.problems += self._go_on(nursery, nursery.fork(work, self.template.calls), None)

    def _next_life(self) -> int:
        known = EpochFile(self._state / "epoch").read()
        return 1 + (known.number if known is not None else 0)

    def _prepare(self) -> None:
        shutil.rmtree(self._state, ignore_errors=True)
        self._output.unlink(missing_ok=True)
        self._answered = []
        if self.template.calls:
            shutil.copytree(self.template.path, self._state)

    def _server(self, nursery: Nursery, options: Sequence[str]) -> Server:
        python = ""
        if self.phase == "compactor":
            # The interpreter that the server starts is strace with one.
            wrapper = self._home / "python-watched"
            words = [*command_of(self._output, options), sys.executable]
            wrapper.write_text("#!/bin/sh\nexec " + " ".join(f"'{word}'" for word in words) + ' "$@"\n')
            wrapper.chmod(stat.S_IRWXU)
            python = str(wrapper)
        return Server(nursery, self.log, self._state, folds=self.phase in ("folding", "compactor"), python=python)

    def _live(self, server: Server, worker: Child, options: Sequence[str]) -> float:
        """Have a server live through a life, as far as it comes, and return when the phase had ended."""
        with contextlib.ExitStack() as stack:

            def watch(*phases: str) -> None:
                if self.phase in phases:
                    stack.callback(Strace(server.child.pid, self._output, options).wait)

            watch("start", "recovery")
            server.child.say()
            if not server.until("serving "):
                return 0.0
            watch("append", "folding")
            if not self._work(server, worker):
                return 0.0
            if self.phase in ("folding", "compactor") and not server.until(DONE):
                return 0.0
            # What comes before the first answer belongs to a start.
            ended = self._answered[0] if self.phase in ("start", "recovery") else time.time()
            watch("stop")
            server.child.signal(signal.SIGTERM)
            while not server.ended:
                server.heed()
            return time.time() if self.phase == "stop" else ended

    def _work(self, server: Server, worker: Child) -> bool:
        """Have the client make its calls; False if the server has ended before."""
        worker.say(self.total)
        while not server.ended:
            if server.heed(worker) and self._hear(worker):
                return True
        return False

    def _hear(self, worker: Child) -> bool:
        """Take what the client says; tell whether it has made all its calls."""
        what, when = worker.hear()
        if what != "done":
            self._answered.append(when)
        return what == "done"

    # -- what must be

    def _judge(self, fault: Fault, status: int, said: str, in_thread: bool) -> Iterator[str]:
        """Yield what is wrong with how the life ended, and what was said."""
        aside = self.phase in ("folding", "compactor")  # the server goes on without
        if fault is KILL:
            if status != (0 if self.phase == "compactor" else -signal.SIGKILL):
                yield f"the server ended with {status}"
            if self.phase == "compactor" and "could not be folded" not in said:
                yield "that the compactor was killed is not said"
            return
        reason = "Input/output error" if fault is EIO else "No space left"
        names = str(self._state) in said.partition(reason)[0] + said.partition(reason)[2][:200]
        if aside:
            if status or "could not be folded" not in said or reason not in said:
                yield f"the server ended with {status}, and should go on and tell why there is no snapshot"
        elif fault is EIO:
            if self.phase == "stop" and not status:
                if "snapshot could not be finished" not in said or reason not in said:
                    yield "what could not be written at the end is not said"
            elif status <= 0 or reason not in said or not names:
                yield f"the server ended with {status}, and should say what it could not write, and why"
            elif self.phase == "append" and "nothing since event" not in said:
                yield "since when nothing was acknowledged is not said"
        elif self.phase == "append":
            # What fails in the loop is tried again by a thread, which need not fail.
            waited = not in_thread or ("no space for the log" in said and "there is space for the log" in said)
            if status or not waited:
                yield f"the server ended with {status}, and should wait for space and go on"
            if len(self._answered) != self.total - self.template.calls:
                yield "not all calls were answered"
        elif not (reason in said and names) and "no space for the log" not in said:
            yield f"the server ended with {status}, and does not say why"

    def _go_on(self, nursery: Nursery, worker: Child, failed: float | None) -> Iterator[str]:
        """Start without faults, and yield what is not as it should be."""
        found = read(self._state)
        made = calls_in(found)
        finished = len(self._answered) == self.total - self.template.calls
        began = time.time()
        folds = self.phase in ("folding", "compactor")
        server = Server(nursery, self.log, self._state, folds=folds)
        server.child.say()
        if not server.until("serving "):
            server.wait()
            yield f"the next start fails: {server.text}"
            return
        if folds and found.replayed and not server.until(DONE):
            yield f"the next life ends: {server.text}"
        if not (finished or self._work(server, worker)):
            yield f"the next life ends: {server.text}"
        before = self.template.calls + sum(when < began for when in self._answered)
        if not before <= made <= before + 1:
            yield f"{before} calls were answered, and {made} found"
        if failed is not None and self.phase not in ("folding", "compactor"):
            late = sum(failed < when < began for when in self._answered)
            if late > 1:  # one may be on its way that was safe before
                yield f"{late} calls were answered after the error"
            self.counted["answers on their way"] += late
        auditor = nursery.fork(audit, self.total)
        (wrong,) = auditor.hear()
        yield from wrong
        server.child.signal(signal.SIGTERM)
        if server.wait():
            yield f"the next life does not end well: {server.text}"
        again = read(self._state)
        if again.replayed:
            yield "there is something to replay after a clean stop"
        left = sorted(path.name for path in self._state.iterdir())
        if any(name.endswith(".new") for name in left):
            yield f"something half is left: {left}"
        torn = {(self._state / name).read_bytes() for name in left if name.endswith(".torn")}
        if len(torn) != (self.phase == "recovery"):
            yield f"{len(torn)} ends are put aside: {left}"


def walk(log: str, stride: int = 1, kinds: str = "KILL,EIO,ENOSPC", phases: str = ",".join(PHASES)) -> dict[str, Any]:
    """Walk the calls of a life, and let each fail in each way.

    Args:
        log: ``process`` or ``disk``.
        stride: From one call to the next, in each phase and kind; 1 is each.
        kinds: Which faults, with commas.
        phases: Which phases, with commas.

    Returns:
        How many calls there are in each phase and how many were struck in which way, and what was wrong.
    """
    counted: dict[str, Any] = {"problems": []}
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as directory:
        home = Path(directory).resolve()
        beginnings = templates(log, home)
        for phase in phases.split(","):
            this = Walk(log, phase, home, beginnings[phase])
            found = this.targets()
            counted[phase] = {"calls": len(found), **this.counted}
            for place, kind in enumerate(kinds.split(",")):
                this.counted.clear()
                began = time.monotonic()
                for target in found[place % stride % len(found) :: stride]:
                    this.strike(target, FAULTS[kind])
                counted[phase][kind] = dict(this.counted)
                seconds = time.monotonic() - began
                print(log, phase, kind, f"{len(found)} calls, {this.counted}, {seconds:.0f} s", file=sys.stderr)
            counted["problems"] += this.problems
    return counted


def relapses(log: str, stride: int = 1) -> dict[str, Any]:
    """Kill one recovery after the other, at each of its calls in turn, and begin the next with what that has left."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as directory:
        home = Path(directory).resolve()
        this = Walk(log, "recovery", home, templates(log, home)["recovery"])
        found = this.targets()[::stride]
        this.relapse(found)
        return {"calls": len(found), **this.counted, "problems": this.problems}


def calls(log: str, phase: str) -> dict[str, Any]:
    """Return the calls that a phase makes, for people."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as directory:
        home = Path(directory).resolve()
        this = Walk(log, phase, home, templates(log, home)[phase])
        return {"calls": [*map(str, this.targets())], **this.counted}
