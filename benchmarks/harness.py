"""What the benchmarks have in common: places, rounds in which subjects take turns, and rows with their bars.

All that is compared is measured in one run, in turns: a machine whose speed drifts favours nobody. A figure is the
median of its rounds, and the smallest and the largest round are kept beside it, as the noise.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from timeit import Timer
from typing import Any

import attrs

from benchmarks.peers import PEERS, Client, Statement

CPUS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []

SLICES = 10


@attrs.frozen
class Place:
    """On which CPUs client and server run; empty is wherever the system puts them."""

    name: str
    client: tuple[int, ...] = ()
    server: tuple[int, ...] = ()


FREE = Place("")
ONE = Place("one CPU", tuple(CPUS[:1]), tuple(CPUS[:1]))
SPLIT = Place("two CPUs", tuple(CPUS[:1]), tuple(CPUS[1:2]))
# Where CPUs cannot be chosen there is one place, and its name says so.
PLACES = (ONE, SPLIT) if len(CPUS) > 1 else (ONE,) if CPUS else (Place("unpinned"),)


@attrs.frozen
class Bar:
    """What a figure has to be.

    Attributes:
        text: As people read it, such as ``<= 0.75 x manager``.
        limit: The number in it; the value may not be above it, or with `least` not below.
        value: What was measured; None if it could not be.
    """

    text: str
    limit: float
    value: float | None
    least: bool = False

    @property
    def met(self) -> bool | None:
        """Whether it is met; None if that is not known."""
        if self.value is None:
            return None
        return self.value >= self.limit if self.least else self.value <= self.limit


@attrs.define
class Row:
    """What was measured of one kind of work.

    Attributes:
        subject: The benchmark that it belongs to.
        what: The work, in words.
        unit: Of all figures.
        figures: For each subject, by name, the rounds; ours comes first.
        place: See `Place`.
        series, x: The curve that this is a point of, and where it stands on it.
        note: What one has to know to read it.
        bars: What the figures have to be.
    """

    subject: str
    what: str
    unit: str
    figures: dict[str, list[float]]
    place: str = ""
    series: str = ""
    x: float | None = None
    note: str = ""
    bars: list[Bar] = attrs.field(factory=list)

    @property
    def ours(self) -> str:
        """The name of the subject that the bars are about."""
        return next(iter(self.figures))

    def median(self, name: str) -> float | None:
        """Return the median of a subject's rounds, None if it was not measured."""
        rounds = self.figures.get(name)
        return median(rounds) if rounds else None

    def ratio(self, name: str) -> float | None:
        """Return ours divided by another's."""
        ours, theirs = self.median(self.ours), self.median(name)
        return ours / theirs if ours is not None and theirs else None

    def at_most(self, limit: float, name: str) -> Row:
        """Ask that ours is at most so many times another's."""
        self.bars.append(Bar(f"<= {limit:g} x {name}", limit, self.ratio(name)))
        return self

    def at_least(self, limit: float, name: str) -> Row:
        """Ask that ours, a rate, is at least so many times another's."""
        self.bars.append(Bar(f">= {limit:g} x {name}", limit, self.ratio(name), least=True))
        return self

    def faster(self, limit: float, name: str) -> Row:
        """Ask that another's, a time, is at least so many times ours."""
        ratio = self.ratio(name)
        self.bars.append(Bar(f">= {limit:g} x faster than {name}", limit, 1 / ratio if ratio else None, least=True))
        return self

    def within(self, text: str, limit: float, value: float | None, *, least: bool = False) -> Row:
        """Ask something of a value that is no ratio of two subjects."""
        self.bars.append(Bar(text, limit, value, least))
        return self


@attrs.define
class Bench:
    """One run.

    Attributes:
        rounds: How often each figure is measured.
        quick: Whether sizes are tiny, so that the run shows nothing but that it runs.
        wanted: The peers to measure, None for all.
        missing: The peers that could not be measured, by name, with the reason.
        skipped: Why a kind of work could not be measured with a peer that is there.
    """

    rounds: int = 7
    quick: bool = False
    wanted: tuple[str, ...] | None = None
    missing: dict[str, str] = attrs.field(factory=dict)
    skipped: dict[str, str] = attrs.field(factory=dict)

    def size(self, usual: Any, quick: Any) -> Any:
        """Return how much of something is done in this run."""
        return quick if self.quick else usual

    def present(self, *names: str) -> list[str]:
        """Return those of the peers that can be measured here; the others are named at the end of the run."""
        there = []
        for name in names:
            if self.wanted is not None and not name.startswith("registry") and name not in self.wanted:
                continue
            reason = PEERS[name].missing()
            if reason:
                self.missing[name] = reason
            else:
                there.append(name)
        return there

    @contextmanager
    def served(self, names: list[str], place: Place = FREE, **options: str) -> Iterator[dict[str, Server]]:
        """Start the servers of these peers, each in a directory of its own, and end them."""
        with ExitStack() as stack:
            yield {name: stack.enter_context(serve(name, place, **options)) for name in names}

    def contest(self, statements: Mapping[str, Statement | None], seconds: float = 0.05) -> dict[str, list[float]]:
        """Time statements in turns, and return for each the microseconds of one run of it, a number for each round.

        A round is the median of slices, in which the statements take turns, too: one that is short enough is rarely
        interrupted by what else runs on the machine.

        Args:
            statements: By the name of who makes them; those of None are left out.
            seconds: How long one round of one statement takes.
        """
        timers = {name: Timer(each.text, globals=each.names) for name, each in statements.items() if each is not None}
        figures: dict[str, list[float]] = {name: [] for name in timers}
        slices: dict[str, list[int]] = {}
        for turn in range(self.rounds + 1):  # the first warms up, and tells how many fit into a round
            names = list(timers)
            names = names[turn % len(names) :] + names[: turn % len(names)] if names else []
            times: dict[str, list[float]] = {name: [] for name in names}
            for number in range(SLICES if turn else 1):
                for name in names:
                    try:
                        if not turn:
                            slices[name] = _slices(timers[name], self.size(seconds, 0.001))
                        elif name in timers and number < len(slices[name]):
                            calls = slices[name][number]
                            times[name].append(timers[name].timeit(calls) / calls * 1e6)
                    except Exception as error:  # noqa: BLE001 - a peer that fails is named, and the others go on
                        text = getattr(statements[name], "text", "")
                        self.skipped[f"{name}: {text}"] = f"{type(error).__name__}: {error}"[:200]
                        del timers[name], figures[name]
            if turn:
                for name in timers:
                    figures[name].append(median(times[name]))
        return figures


def _slices(timer: Timer, seconds: float) -> list[int]:
    """Return how many runs are to be timed at a time, so that all take about so long."""
    number = 1
    # The shortest of several: one that was interrupted would have slices of single calls, which are all cold.
    while (took := min(timer.timeit(number) for _ in range(3 if number < 1000 else 1))) < seconds / 20:
        number *= 2
    number = max(1, int(number * seconds / took))
    return [number // SLICES] * SLICES if number >= SLICES else [1] * number


@attrs.define
class Server:
    """A peer that serves.

    Attributes:
        peer: Its name.
        home: Its directory, which is also its address.
        process: None where the peer has no server.
    """

    peer: str
    home: Path
    process: subprocess.Popen[bytes] | None
    clients: list[Client] = attrs.field(factory=list)

    def connect(self, peer: str = "") -> Client:
        """Return a client in this process, of a kindred peer if one is named; it is closed with the server."""
        client = PEERS[peer or self.peer].connect(self.home)
        self.clients.append(client)
        return client

    @property
    def memory(self) -> float:
        """Kilobytes that the server's process has in memory."""
        if self.process is None:
            return 0.0
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return float(line.split()[1])
        return 0.0


@contextmanager
def serve(name: str, place: Place = FREE, home: Path | None = None, **options: str) -> Iterator[Server]:
    """Start the server of a peer, and end it; it may have a directory that outlives it."""
    directory = home or Path(tempfile.mkdtemp(prefix="b", dir="/tmp" if os.path.isdir("/tmp") else None))
    server = Server(name, directory, None)
    try:
        server.process = run("benchmarks.peers", name, str(directory), *cpus(place.server), **options)
        wait_for("ready", server.process, name)
        yield server
    finally:
        for client in server.clients:
            client.close()
        if server.process is not None:
            end(server.process)
        if home is None:
            shutil.rmtree(directory, ignore_errors=True)


def run(module: str, *words: str, **options: str) -> subprocess.Popen[bytes]:
    """Start a module of the benchmarks as a process with pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *words, *(f"{key}={value}" for key, value in options.items())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )


def cpus(which: tuple[int, ...]) -> list[str]:
    """Return the argument that tells a process where it runs."""
    return [f"cpus={','.join(map(str, which))}"] if which else []


def pin(text: str) -> None:
    """Have this process run where an argument says."""
    if text and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(each) for each in text.split(",")})


@contextmanager
def pinned(place: Place) -> Iterator[None]:
    """Have this process run where clients run."""
    if not place.client:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, place.client)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def wait_for(word: str, process: subprocess.Popen[bytes], who: str) -> None:
    """Read what a process says until a word comes."""
    if process.stdout is None:
        raise RuntimeError(f"{who} says nothing")
    for line in process.stdout:
        if word.encode() in line.lower():
            return
    raise RuntimeError(f"{who} ended before it was {word}, with status {process.wait()}")


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and see to it."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


@contextmanager
def crew(job: str, server: Server, peer: str = "", place: Place = FREE, **options: object) -> Iterator[Crew]:
    """Start processes that do a job beside this one, see `benchmarks.crew`, and end them."""
    told = {key: str(value) for key, value in options.items()}
    process = run("benchmarks.crew", job, peer or server.peer, str(server.home), *cpus(place.client), **told)
    try:
        wait_for("ready", process, f"{job} for {peer or server.peer}")
        yield Crew(process)
    finally:
        end(process)


@attrs.frozen
class Crew:
    """Processes that do a job until they are told to end it."""

    process: subprocess.Popen[bytes]

    def result(self) -> Any:
        """Have them go on, or end, and return what they say."""
        out, _ = self.process.communicate(b"\n")
        if self.process.returncode or not out:
            raise RuntimeError(f"{self.process.args!r} ended with status {self.process.returncode}")
        return json.loads(out)
