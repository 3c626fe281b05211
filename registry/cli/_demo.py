"""``registry demo``: a real job, done by processes that know nothing of each other; one of them is killed.

The job is to count the identifiers in the sources of the standard library. One process does it alone, then
several do it together through a server in a temporary directory; `_demo_worker` tells how. In the middle of
the work one of them is killed with SIGKILL while it holds the lock and has made half of its changes. In the
end both counts must be equal, file by file.

The moment of the kill is certain, and nothing sleeps to meet it: one file is marked, and whoever gets it
stays in the middle of its step until it is killed. The demo is told so, asks the server who holds the lock
and whether others wait for it, and only then kills. One file is held back until then, so that somebody does
come for the lock. The hand-over is the time from just before the kill to the moment in which the next
process has returned from ``acquire``, by the clock that all processes of a machine share.

Whatever happens, no process outlives the command: a signal is remembered and acted upon between two steps,
never while a process is being started, and every wait has a limit.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import select
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from registry.cli import _common
from registry.cli._demo_worker import Desk

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from typing_extensions import Self

    from registry.client import ManagerClient

__all__ = ["Outcome", "demo"]

PLUGINS = "registry_containers,registry_queues,registry_sync"
# Tests are half of the library, and some of their files are not meant to be valid.
SKIPPED = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"})

LOOK = 0.05  # seconds between two looks at the processes, while no report comes
PATIENCE = 30.0  # seconds that one thing may take which should be quick
ROUND_TRIPS = 500
LONGEST_DIRECTORY = 60  # bytes, so that the path of a socket in it stays below its limit


@attrs.frozen
class Outcome:
    """What the demo found.

    Attributes:
        files: how many were counted.
        unreadable: how many of them are no valid Python.
        identifiers: how many identifiers were found in them.
        distinct: how many of those are different.
        workers: how many processes worked together.
        killed: the one that was killed.
        calls: how many calls the server answered meanwhile.
        seconds: how long it took them.
        calls_per_second: the quotient of the two.
        call_seconds: what one call took afterwards, the median, when nothing else was going on.
        alone_seconds: how long one process took alone.
        hand_over_seconds: from the kill until the next process had the lock.
        put_back: the file that the killed process was at.
        equal: whether both counts are the same for each file, and the shared counters agree.
    """

    files: int
    unreadable: int
    identifiers: int
    distinct: int
    workers: int
    killed: str
    calls: int
    seconds: float
    calls_per_second: float
    call_seconds: float
    alone_seconds: float
    hand_over_seconds: float
    put_back: str
    equal: bool


@click.command()
@click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(2, 64),
    default=4,
    show_default=True,
    help="How many work together.",
)
@click.option(
    "--files",
    metavar="N",
    type=click.IntRange(min=2),
    help="Take this many files, spread over all. [default: all]",
)
@_common.json_option
def demo(workers: int, files: int | None, as_json: bool) -> int:
    """Do a real job with several processes, and kill one of them.

    They count the identifiers in the sources of the standard library through a private server. The count
    must equal that of a single process; the exit code is 1 if it does not.
    """
    if os.name != "posix":
        raise click.ClickException("the demo needs SIGKILL and unix sockets, which this system does not have")
    root, names = sources(files)
    with (
        _Signals() as signals,
        tempfile.TemporaryDirectory(prefix="registry-demo-", dir=_directory()) as directory,
        _Crew(Path(directory), signals) as crew,
        _Show() as show,
    ):
        outcome = _run(crew, show, [str(root / name) for name in names], workers)
    if as_json:
        _common.print_json(attrs.asdict(outcome))
    else:
        _print(outcome, root)
    return 0 if outcome.equal else _common.FAILED


def sources(limit: int | None) -> tuple[Path, list[str]]:
    """Return where the standard library is, and its files; of so many as asked for, spread over all of it."""
    root = Path(sysconfig.get_path("stdlib"))
    names = []
    for directory, below, files in os.walk(root):
        below[:] = [name for name in below if name not in SKIPPED]
        names += [os.path.join(directory, name) for name in files if name.endswith(".py")]
    names = sorted(os.path.relpath(name, root) for name in names)
    if limit is not None and limit < len(names):
        names = [names[place * len(names) // limit] for place in range(limit)]
    if len(names) < 2:
        raise click.ClickException(f"there are no sources of the standard library in {root}")
    return root, names


def _directory() -> str | None:
    usual = tempfile.gettempdir()
    return "/tmp" if len(os.fsencode(usual)) > LONGEST_DIRECTORY else None


# The job


def _run(crew: _Crew, show: _Show, names: list[str], workers: int) -> Outcome:
    began = time.monotonic()
    expected = _count_alone(crew, show.bar("one process", len(names)), names)
    alone_seconds = time.monotonic() - began

    with _server(crew) as (shared, url):
        desk = Desk(shared)
        labels = [f"worker {number}" for number in range(1, workers + 1)]
        for label in labels:
            crew.start(label, "-m", "registry.cli._demo_worker", "work", url, label)
        for _ in labels:
            crew.report(desk)
        calls = shared.statistics()["calls"]
        began = time.monotonic()
        kill = _count_together(crew, show, shared, desk, names, workers)
        seconds = time.monotonic() - began
        calls = shared.statistics()["calls"] - calls
        alive = [label for label in labels if label != kill.worker]
        for _ in alive:
            desk.files.put(None)
        for label in alive:
            crew.wait(label)
        counts = desk.counts.copy()
        counted, identifiers = desk.counted.get(), desk.identifiers.get()
        trip = _round_trip(desk)

    totals: Counter[str] = Counter()
    for found in counts.values():
        totals.update(found or {})
    return Outcome(
        files=len(counts),
        unreadable=sum(found is None for found in counts.values()),
        identifiers=totals.total(),
        distinct=len(totals),
        workers=workers,
        killed=kill.worker,
        calls=calls,
        seconds=seconds,
        calls_per_second=calls / seconds,
        call_seconds=trip,
        alone_seconds=alone_seconds,
        hand_over_seconds=kill.hand_over,
        put_back=kill.file,
        equal=counts == expected
        and counted == len(expected)
        and identifiers == sum(sum(found.values()) for found in expected.values() if found),
    )


def _count_alone(crew: _Crew, tick: Callable[[], None], names: list[str]) -> dict[str, Any]:
    given, result = crew.directory / "files.json", crew.directory / "alone.json"
    given.write_text(json.dumps(names), "utf-8")
    crew.start("alone", "-m", "registry.cli._demo_worker", "alone", str(given), str(result), stdout=subprocess.PIPE)
    for _ in crew.lines("alone"):
        tick()
    crew.wait("alone")
    counts: dict[str, Any] = json.loads(result.read_text("utf-8"))
    return counts


@contextlib.contextmanager
def _server(crew: _Crew) -> Iterator[tuple[ManagerClient, str]]:
    """Serve in the temporary directory, with a key that exists only there."""
    from registry.client import connect

    url = f"unix://{crew.directory}/demo.sock"
    words = ("-m", "registry", "serve", "--address", url, "--plugins", PLUGINS, "--json")
    process = crew.start("server", *words, stdout=subprocess.PIPE)
    # It prints where it listens once it does.
    text = ""
    for line in crew.lines("server"):
        text += line
        if line.startswith("}"):
            break
    else:
        crew.wait("server")
        raise crew.failure("server")
    with connect(url, crew.key, start=False, timeout=PATIENCE, cache=False, label="demo") as shared:
        yield shared, json.loads(text)["address"]
    process.terminate()
    crew.wait("server")


@attrs.define
class _Kill:
    """The death of a worker: who, at which file, when, and how long until the next had the lock."""

    worker: str
    file: str
    at: float | None = None
    hand_over: float = 0.0
    is_told: bool = False


def _count_together(
    crew: _Crew, show: _Show, shared: ManagerClient, desk: Desk, names: list[str], workers: int
) -> _Kill:
    tick = show.bar(f"{workers} processes", len(names))
    *most, last = names
    for place, name in enumerate(most):
        desk.files.put([name, place == len(most) // 2])
    kill: _Kill | None = None
    counted: set[str] = set()
    while len(counted) < len(names) or kill is None or not kill.is_told:
        waits = kill is not None and kill.at is None
        kind, worker, *facts = crew.report(desk, once=waits) or ("", "")
        if kind == "counted" and facts[0] not in counted:
            counted.add(facts[0])
            tick()
        elif kind == "stays":
            kill = _Kill(worker, facts[0])
            desk.files.put([last, False])
        elif kind == "put back" and kill is not None and kill.at is not None:
            kill.hand_over = facts[1] - kill.at
            kill.is_told = True
            show.say(f"{worker} has the lock, {_milliseconds(kill.hand_over)} later, and puts the file back")
        if kill is not None and kill.at is None:
            told = shared.statistics(desk.step)
            if told["holder"] and told["holder"]["label"] == kill.worker and told["waiters"]:
                kill.at = crew.kill(kill.worker)
                show.say(f"{kill.worker} was killed while it held the lock, at {Path(kill.file).name}")
    return kill


def _round_trip(desk: Desk) -> float:
    """Return the seconds of one call, when nothing else is going on."""
    trips = []
    for _ in range(ROUND_TRIPS):
        began = time.perf_counter()
        desk.counted.get()
        trips.append(time.perf_counter() - began)
    return statistics.median(trips)


# Processes


class _Signals:
    """Remember the signals that would end this process, until `check`."""

    def __init__(self) -> None:
        self._number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        # Elsewhere Python allows no handlers, and needs none: signals do not raise there.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                # What is ignored stays so, as under nohup.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is None:
            self.check()

    def _take(self, number: int, frame: FrameType | None) -> None:
        self._number = number

    def check(self) -> None:
        """Raise what the signal stands for, if one has come."""
        if self._number == signal.SIGINT:
            raise KeyboardInterrupt
        if self._number:
            raise SystemExit(128 + self._number)


class _Crew:
    """The processes that were started. Leaving its block ends them all."""

    def __init__(self, directory: Path, signals: _Signals) -> None:
        self.directory = directory
        self.key = secrets.token_hex(32).encode()
        self._signals = signals
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._environment = _environment(directory)

    def __enter__(self) -> Self:
        descriptor = os.open(self.directory / "key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(self.key)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def start(self, name: str, *words: str, stdout: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Start a Python; what it complains about is kept for `failure`."""
        self._signals.check()
        with open(self._log(name), "wb") as log:
            # A session of its own, so that Ctrl-C reaches this process alone, and in order.
            self._running[name] = subprocess.Popen(
                [sys.executable, *words],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=log,
                cwd=self.directory,
                env=self._environment,
                start_new_session=True,
            )
        return self._running[name]

    def check(self) -> None:
        """Raise if somebody has died, or this process is to end."""
        self._signals.check()
        for name, process in self._running.items():
            if process.poll() is not None:
                raise self.failure(name)

    def report(self, desk: Desk, *, once: bool = False) -> list[Any] | None:
        """Return the next report; with `once`, None if there is none soon."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self.check()
            try:
                report: list[Any] = desk.reports.get(timeout=LOOK)
                return report
            except queue.Empty:
                if once:
                    return None
                if time.monotonic() > deadline:
                    raise click.ClickException(f"no worker did anything for {PATIENCE:.0f} s") from None

    def lines(self, name: str) -> Iterator[str]:
        """Yield the lines that a process prints, until its end."""
        stream = self._running[name].stdout
        if stream is None:
            return
        deadline, begun = time.monotonic() + PATIENCE, b""
        while True:
            self._signals.check()
            if not select.select([stream], [], [], LOOK)[0]:
                if time.monotonic() > deadline:
                    raise click.ClickException(f"{name} did nothing for {PATIENCE:.0f} s")
                continue
            data = os.read(stream.fileno(), 1 << 16)
            if not data:
                return
            deadline = time.monotonic() + PATIENCE
            *lines, begun = (begun + data).split(b"\n")
            yield from (line.decode() for line in lines)

    def kill(self, name: str) -> float:
        """Kill a process, and return when."""
        process = self._running.pop(name)
        now = time.monotonic()
        process.kill()
        process.wait()
        return now

    def wait(self, name: str) -> None:
        """Wait for the end of a process, which must not be a failure."""
        process = self._running[name]
        deadline = time.monotonic() + PATIENCE
        while True:
            self._signals.check()
            try:
                status = process.wait(LOOK)
                break
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    raise click.ClickException(f"{name} does not end") from None
        if status:
            raise self.failure(name)
        del self._running[name]
        if process.stdout is not None:
            process.stdout.close()

    def failure(self, name: str) -> click.ClickException:
        """Return an error that says why a process ended, in its own last words."""
        said = [line for line in self._log(name).read_text("utf-8", "replace").splitlines() if line.strip()]
        return click.ClickException(f"{name} has ended: {said[-1] if said else 'it did not say why'}")

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.log"


def _environment(directory: Path) -> dict[str, str]:
    from registry._starter import search_path

    environment = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
    environment["REGISTRY_HOME"] = str(directory / "home")
    environment["REGISTRY_AUTHKEY_FILE"] = str(directory / "key")
    environment["PYTHONPATH"] = os.pathsep.join(search_path(whole=False))
    if not environment["PYTHONPATH"]:
        del environment["PYTHONPATH"]
    return environment


# What people see


class _Show:
    """A progress bar on the standard error, if that is a terminal."""

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description:>12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def bar(self, title: str, total: int) -> Callable[[], None]:
        """Add a bar, and return what moves it by one."""
        task = self._progress.add_task(title, total=total)
        return lambda: self._progress.advance(task)

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(text, markup=False)


def _print(outcome: Outcome, root: Path) -> None:
    unreadable = f", {outcome.unreadable} of them no valid Python" if outcome.unreadable else ""
    put_back = Path(outcome.put_back).relative_to(root)
    _common.print_table(
        [
            ("files", f"{outcome.files:,} in {root}{unreadable}"),
            ("identifiers", f"{outcome.identifiers:,}, {outcome.distinct:,} different"),
            ("one process", f"{outcome.alone_seconds:.2f} s"),
            (f"{outcome.workers} processes", f"{outcome.seconds:.2f} s, with {outcome.calls:,} calls"),
            ("calls per second", f"{outcome.calls_per_second:,.0f} beside the counting"),
            ("one call, alone", f"{outcome.call_seconds * 1e6:,.0f} µs (median of {ROUND_TRIPS})"),
            ("killed", f"{outcome.killed}, holding the lock; its file went back: {put_back}"),
            ("hand-over", f"{_milliseconds(outcome.hand_over_seconds)} from the kill to the next grant"),
            (
                "totals",
                "equal to those of the single process" if outcome.equal else "DIFFER from the single process",
            ),
        ]
    )


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"
