"""Cuts of power: the next server has what the disk had at one moment, and nothing of what was in memory.

The state of a server is on a file system of its own, in a file that is mounted as a disk. In a cut the server stands
still while that file is copied, until two copies agree; then it is killed. Pages that the system had not yet written to
the disk are not in the copy. It is mounted, its file system recovers from its journal, and the next server is started
on it, in what it takes for another boot of the machine.

The file keeps what was written to it without a flush too, in order, so that a real disk may lose more: what `disks`
loses. What needs privileges is here: to mount, as root, and what `mkfs.ext4` needs.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from queue import Empty
from time import monotonic
from typing import Any

from servers import KEY, Script, another

from registry import _image, _peers, _plugins, connect
from registry._addresses import EpochFile
from registry._log import _code, _recovery
from registry._log._files import Directory
from registry.errors import LockLost, OutcomeUnknown, RegistryError, StateLost
from torture.nursery import Child, Line, Nursery

SIZE = 32 << 20
TOOLS = ("mkfs.ext4", "mount", "umount")
EVENTS = 1_500  # of a segment, so that snapshots are made

SERVE = """
import sys
from registry import ManagerServer, _peers
from registry._log import _segments, _store
address, state, log, boot, events = sys.argv[1:]
_peers.boot = lambda: boot
_store.SEGMENT_EVENTS = int(events)
if log == "lies":
    log, _segments._sync_data = "disk", lambda fd: None
server = ManagerServer(address, {key!r}, log=log, state=state)
server.on_ready = lambda: print(server.url, flush=True)
server.run()
"""


def obstacle() -> str:
    """Return why no file system can be mounted here, or empty."""
    missing = [tool for tool in TOOLS if _tool(tool) is None]
    if missing:
        return f"{', '.join(missing)} cannot be found (e2fsprogs, mount)"
    with tempfile.TemporaryDirectory() as folder:
        try:
            with Disk.made(Path(folder)):
                return ""
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", b"") or str(error).encode()
            return f"no file system can be mounted here: {said.decode(errors='replace').strip()}"


def _tool(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _run(tool: str, *words: object) -> None:
    subprocess.run([_tool(tool) or tool, *map(str, words)], check=True, capture_output=True)


def mount_for_ourselves() -> None:
    """Let what this process mounts be seen by it and its children alone, and be gone with them."""
    new_namespace = 0x00020000
    if ctypes.CDLL(None, use_errno=True).unshare(new_namespace):
        raise OSError(ctypes.get_errno(), "no mounts of its own for this process")
    _run("mount", "--make-rprivate", "/")


class Disk:
    """A file with a file system, which is mounted as long as the block lasts.

    Attributes:
        image: The file.
        point: Where it is mounted.
    """

    def __init__(self, image: Path) -> None:
        self.image = image
        self.point = image.with_suffix(".mounted")

    @classmethod
    def made(cls, folder: Path) -> Disk:
        """Make an empty one."""
        image = folder / "0.image"
        with open(image, "xb") as file:
            file.truncate(SIZE)
        _run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
        return cls(image)

    @property
    def state(self) -> Path:
        """The directory of the server."""
        return self.point / "deep" / "state"

    def cut(self, image: Path) -> Disk:
        """Return another one, which has what is on this one now. Nobody may be writing."""
        content = self.image.read_bytes()
        while (again := self.image.read_bytes()) != content:
            content = again
        image.write_bytes(content)
        return Disk(image)

    def __enter__(self) -> Disk:
        self.point.mkdir()
        try:
            _run("mount", "-o", "loop", self.image, self.point)
        except BaseException:
            self.point.rmdir()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        # A process that was making a snapshot may just be ending.
        _run("umount", "--lazy", self.point)
        self.point.rmdir()
        self.image.unlink()


class Machine:
    """One that loses its power again and again, with a server.

    Attributes:
        boots: How often it was started.
        cuts: How often its power was cut.
    """

    def __init__(self, address: str, log: str, folder: Path) -> None:
        self.address = address
        self.log = log
        self.boots = self.cuts = 0
        self.server: Script | None = None
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self.disk = self._stack.enter_context(Disk.made(folder))

    def boot(self) -> None:
        """Start the server on what the disk has."""
        self.boots += 1
        self.server = Script(
            SERVE.format(key=KEY), self.address, self.disk.state, self.log, self.here, random.choice((EVENTS, 200))
        )

    @property
    def here(self) -> str:
        """What names the boot to the server."""
        return f"boot-{self.boots}/pid:[1]"

    def ready(self) -> str:
        """Return where the server listens."""
        if self.server is None:
            raise RuntimeError("it has not been started")
        url = self.server.line()
        if not url:
            raise RuntimeError("the server did not start")
        return url

    def cut(self) -> dict[str, int]:
        """Cut the power. Return how much of what was written is lost, and whether all that came before is there."""
        server, before = self.server, self.disk
        if server is None:
            raise RuntimeError("it has not been started")
        server.signal(signal.SIGSTOP)
        folders = children(server.pid)
        for folder in folders:
            with contextlib.suppress(ProcessLookupError):
                os.kill(folder, signal.SIGSTOP)
        self.cuts += 1
        after = before.cut(self._folder / f"{self.cuts}.image")
        written = self._folder / "written"
        if before.state.exists():
            shutil.copytree(before.state, written)
        for folder in folders:
            with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
                os.kill(folder, signal.SIGKILL)
        server.kill()
        server.__exit__()
        self.server = None
        self._stack.close()
        self.disk = self._stack.enter_context(after)
        found = compare(after.state, written, f"boot-{self.boots + 1}/pid:[1]")
        shutil.rmtree(written, ignore_errors=True)
        return found

    def close(self) -> None:
        if self.server is not None:
            self.server.__exit__()
        self._stack.close()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def children(pid: int) -> list[int]:
    """Return the processes that a stopped one has started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for task in tasks for word in task.read_text(encoding="ascii").split()]


def compare(left: Path, written: Path, boot: str) -> dict[str, int]:
    """Compare what a cut has left with what had been written until then: it must be the state after some event."""
    plugins = _plugins.load()
    code = _code.code(plugins)
    if not left.exists():
        return {"lost": 0, "is a prefix": True}
    here, _peers.boot = _peers.boot, lambda: boot  # type: ignore[assignment]
    try:
        known = EpochFile(left / "epoch").read()
        head = (known.head, known.chain) if known is not None else (0, 0)
        found = _recovery.recover(Directory(left), plugins.declarations, code, head)  # as the next server does
    finally:
        _peers.boot = here
    every = _recovery.recover(Directory(written), plugins.declarations, code)
    for index, path in Directory(written).snapshots():
        if index > found.index:
            path.unlink()  # it was about to be written
    for first, path in Directory(written).segments():
        if first > found.index:
            path.unlink()
        elif found.tail is not None and path.name == found.tail.path.name:
            os.truncate(path, found.tail.end)
    there = _recovery.recover(Directory(written), plugins.declarations, code)
    same = there.index == found.index and _image.capture(there.engine) == _image.capture(found.engine)
    return {"lost": every.index - found.index, "is a prefix": same}


# -- what the processes do


class Notes:
    """What a process has begun and what it was told, in a file, so that it can be read when the process is dead."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def add(self, *values: Any) -> None:
        os.write(self._fd, json.dumps(values).encode() + b"\n")


class Diary:
    """What a process has noted, read as it grows.

    Attributes:
        rows: What was read by now.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = 0
        self.rows: list[list[Any]] = []

    def read(self) -> list[list[Any]]:
        """Read what has come since, and return all rows."""
        with open(self._path, "rb") as file:
            file.seek(self._place)
            whole, newline, _ = file.read().rpartition(b"\n")  # the last may be cut off
        self._place += len(whole) + len(newline)
        self.rows += map(json.loads, whole.splitlines())
        return self.rows


def work(line: Line, url: str, who: str, path: Path) -> None:
    """Count, write down how far, work in a section, put an item and take one, and note each step."""
    noted = Notes(path)
    shared = connect(url, KEY, timeout=120.0)
    count, state, lock, items = shared.counter(who), shared.dict("d"), shared.lock("l"), shared.queue("q")
    number = 0
    line.say("ready")
    while not line_has_word(line):
        number += 1
        try:
            noted.add("count?", number)
            noted.add("count", number, count.incr())
            noted.add("set?", number)
            state[who] = number
            noted.add("set", number)
            noted.add("acquire?")
            with lock.acquire() as grant:
                noted.add("acquire", grant.token, bool(grant.abandoned))
                noted.add("release?")
            noted.add("release")
            noted.add("put?", f"{who}:{number}")
            items.put(f"{who}:{number}")
            noted.add("put", f"{who}:{number}")
            noted.add("get?")
            noted.add("get", items.get(timeout=100))
        except (StateLost, OutcomeUnknown, LockLost) as error:
            noted.add("told", type(error).__name__, str(error))
            while True:
                try:
                    number = count.get()
                except (StateLost, OutcomeUnknown, LockLost) as another_one:
                    noted.add("told", type(another_one).__name__, str(another_one))
                else:
                    break
            noted.add("again", number)
        except Exception as error:  # noqa: BLE001 - for the experiment to see
            noted.add("error", f"{type(error).__name__}: {error}")
            return
    noted.add("end")


def line_has_word(line: Line) -> bool:
    """Tell whether the other end has said something, without waiting."""
    return bool(select.select([line], [], [], 0)[0])


class Told:
    """What one process had been told when it ended, and what it had been about to do.

    Attributes:
        begun: What it had begun and not been answered, as "count".
        counted, put, got: What it was told had happened.
        tokens: Those of its grants, `holds` whether it had the lock.
    """

    def __init__(self, who: str, rows: list[list[Any]]) -> None:
        self.who = who
        self.begun = ""
        self.counted = self.set = 0
        self.put: list[str] = []
        self.got: list[str] = []
        self.tokens: list[int] = []
        self.holds = False
        self.wrong: list[str] = []
        self.told: list[str] = []
        self.about = ""
        self.last = ""
        for what, *values in rows:
            if what.endswith("?"):
                self.begun, self.about = what[:-1], values[0] if values else ""
                continue
            self.begun = ""
            self.last = what
            if what == "count":
                if values[0] != values[1]:
                    self.wrong.append(f"{who} counted to {values[0]} and was told {values[1]}")
                self.counted = values[0]
            elif what == "set":
                self.set = values[0]
            elif what == "acquire":
                self.tokens.append(values[0])
                self.holds = True
            elif what == "release":
                self.holds = False
            elif what == "put":
                self.put.append(values[0])
            elif what == "get":
                self.got.append(values[0])
            elif what == "told":
                self.told.append(values[0])
                self.holds = False
            elif what == "again":
                self.counted = values[0]
            elif what == "error":
                self.wrong.append(f"{who}: {values[0]}")


# -- the whole machine goes


def deaths(count: int, log: str = "disk", clients: int = 6) -> dict[str, Any]:
    """Cut the power of a machine with a server and its clients, `count` times.

    With `log` "lies" the server does not sync what it says is on the disk, so that losses must be found.

    Returns:
        Which acknowledged effects were lost and what else was wrong, how often what was left was the state after
        some event, and how much of what had been written was lost.
    """
    result: dict[str, Any] = {"cuts": 0, "acknowledged": 0, "losses": [], "wrong": [], "prefixes": 0, "events lost": 0}
    seen: Counter[str] = Counter()
    number = 0
    mount_for_ourselves()
    highest = 0
    with tempfile.TemporaryDirectory(prefix="power") as name:
        folder = Path(name)
        url = f"unix://{folder}/socket"
        with Machine(url, log, folder) as machine, Nursery() as nursery:
            machine.boot()
            machine.ready()
            while machine.cuts < count:
                workers: dict[str, Child] = {}
                for _ in range(clients):
                    number += 1
                    workers[f"w{number}"] = nursery.fork(work, url, f"w{number}", folder / f"w{number}")
                for worker in workers.values():
                    worker.hear()
                pause(random.uniform(0.0, 0.3 if log == "disk" else 1.5))
                try:
                    _note(result, machine.cut())
                except RegistryError as error:
                    result["losses"].append(f"what is left is refused: {error}")
                    break
                for worker in workers.values():
                    worker.kill()
                machine.boot()
                while machine.cuts % 5 == 3 and machine.cuts < count:  # the power goes while the server starts, too
                    pause(random.uniform(0, 0.6))
                    _note(result, machine.cut())
                    machine.boot()
                machine.ready()
                told = [Told(who, Diary(folder / who).read()) for who in workers]
                highest = check(url, told, highest, log, result, seen)
    result["seen"] = dict(sorted(seen.items()))
    return result


def _note(result: dict[str, Any], found: dict[str, int]) -> None:
    result["cuts"] += 1
    result["prefixes"] += found["is a prefix"]
    result["events lost"] += found["lost"]


def pause(seconds: float) -> None:
    """Let the others work for a while."""
    with contextlib.suppress(TimeoutError):
        one, other = socket.socketpair()
        with one, other:
            one.settimeout(max(seconds, 0.001))
            one.recv(1)


def check(url: str, told: list[Told], highest: int, log: str, result: dict[str, Any], seen: Counter[str]) -> int:
    """Compare what dead clients were told with what there is; return the highest token."""
    wrong, losses = result["wrong"], result["losses"]
    with another(url) as watch:
        for each in told:
            wrong += each.wrong
            seen[each.begun or "nothing"] += 1
            count, value = watch.counter(each.who).get(), watch.dict("d").get(each.who, 0)
            result["acknowledged"] += each.counted + each.set + len(each.tokens) + len(each.put) + len(each.got)
            if log != "process":
                if not each.counted <= count <= each.counted + (each.begun == "count"):
                    losses.append(f"{each.who} was told {each.counted}, and it is {count}")
                if not each.set <= value <= each.set + (each.begun == "set"):
                    losses.append(f"{each.who} had set {each.set}, and it is {value}")
            if not 0 <= count - value <= 1:
                wrong.append(f"{each.who} counted to {count} and has set {value}")
        grant = watch.lock("l").acquire(blocking=False)
        tokens = [token for each in told for token in each.tokens]
        if not grant:
            wrong.append(f"the lock is held by {grant.holder}")
        elif grant.token is None or grant.token <= max(tokens, default=highest):
            wrong.append(f"token {grant.token} comes after {max(tokens, default=highest)}")
        held = any(each.holds and each.begun != "release" for each in told)
        perhaps = any(each.begun in ("acquire", "release") for each in told)
        if log != "process" and bool(grant.abandoned) != held and not (perhaps and not held):
            wrong.append(f"the lock was held: {held}, and is said to be abandoned: {bool(grant.abandoned)}")
        seen["abandoned"] += bool(grant.abandoned)
        if grant:
            grant.release()
        left: list[str] = []
        with contextlib.suppress(Empty):
            while True:
                left.append(watch.queue("q").get(block=False))
        put = Counter(item for each in told for item in each.put)
        got = Counter([*(item for each in told for item in each.got), *left])
        twice = [item for item, times in got.items() if times > 1]
        if log != "process":
            missing = list((put - got).elements())
            if len(missing) > sum(each.begun == "get" for each in told):
                losses.append(f"items are missing: {missing}")
            # An item that was taken goes back where nothing tells that its taker has got it.
            back = {each.got[-1] for each in told if each.last == "get"}
            twice = [item for item in twice if item not in back]
            more = set(got - put) - back - {str(each.about) for each in told if each.begun == "put"}
            if more or twice:
                wrong.append(f"items came twice: {twice}, or from nowhere: {sorted(more)}")
        return max([highest, *tokens, grant.token or 0])


# -- the machine of the server goes, and its clients are elsewhere


def outlived(count: int, log: str = "disk", clients: int = 6) -> dict[str, Any]:
    """Cut the power of a server whose clients are not on its machine, `count` times.

    Returns:
        What was wrong, such as a client that found something missing and was not told; how often clients were told of
        a loss, and how many of these had indeed counted further than the next server.
    """
    result: dict[str, Any] = {"cuts": 0, "prefixes": 0, "events lost": 0, "told": 0, "knew more": 0, "wrong": []}
    mount_for_ourselves()
    with tempfile.TemporaryDirectory(prefix="power") as name, socket.create_server(("127.0.0.1", 0)) as held:
        folder = Path(name)
        url = f"tcp://127.0.0.1:{held.getsockname()[1]}"
        held.close()
        with Machine(url, log, folder) as machine, Nursery() as nursery:
            machine.boot()
            machine.ready()
            workers = {f"w{n}": nursery.fork(work, url, f"w{n}", folder / f"w{n}") for n in range(clients)}
            for worker in workers.values():
                worker.hear()
            diaries = [Diary(folder / who) for who in workers]
            for _ in range(count):
                pause(random.uniform(0.0, 0.3 if log == "disk" else 1.5))
                _note(result, machine.cut())
                before = [len(diary.read()) for diary in diaries]
                machine.boot()
                machine.ready()
                for diary, known in zip(diaries, before):
                    await_progress(diary, known)
                    result["knew more"] += knew_more(diary.rows, known)
            for worker in workers.values():
                worker.say("end")
            for worker in workers.values():
                worker.end()
            told = [Told(who, diary.read()) for who, diary in zip(workers, diaries)]
            with another(url) as watch:
                left: list[str] = []
                with contextlib.suppress(Empty):
                    while True:
                        left.append(watch.queue("q").get(block=False))
                counters = [watch.counter(each.who).get() for each in told]
            result["told"] = sum(len(each.told) for each in told)
            result["acknowledged"] = sum(each.counted for each in told)
            result["wrong"] += [text for each in told for text in each.wrong]
            tokens = [token for each in told for token in each.tokens]
            if len(set(tokens)) < len(tokens) or any(each.tokens != sorted(each.tokens) for each in told):
                result["wrong"].append("tokens came twice, or did not grow")
            if log != "process":
                put = Counter(item for each in told for item in each.put)
                got = Counter([*(item for each in told for item in each.got), *left])
                if put != got:
                    result["wrong"].append(f"put and not got: {put - got}; got and not put: {got - put}")
                if counters != [each.counted for each in told]:
                    result["wrong"].append(f"{counters} is not {[each.counted for each in told]}")
    return result


def await_progress(diary: Diary, known: int) -> None:
    """Wait until a client has gone on behind what is known of it, or has ended."""
    limit = monotonic() + 60
    while True:
        whats = [row[0] for row in diary.read()[known:]]
        if whats.count("count") > 1 or "error" in whats:
            return
        if monotonic() > limit:
            raise TimeoutError(f"a client does not go on: {diary.rows[-3:]}")
        pause(0.01)


def knew_more(rows: list[list[Any]], known: int) -> bool:
    """Tell whether a client that was told of a loss then found less than it had counted."""
    again = next((values[0] for what, *values in rows[known:] if what == "again"), None)
    counted = next((values[0] for what, *values in reversed(rows[:known]) if what in ("count", "again")), 0)
    return again is not None and again < counted
