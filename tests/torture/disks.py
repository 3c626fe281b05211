"""Every state that a loss of power may leave on a disk, and what a server makes of it.

A disk promises little: what was written to a file is on it once the file was synced, and a name once its directory was.
Of everything else any part may be there: of what was written any blocks, with zeros for those before them, and of the
names in a directory what was done up to some moment. File systems that lose all that such a disk may lose exist
(Pillai et al., "All file systems are not created equal", OSDI'14), and most lose less.

So what a server does to its files is recorded, call by call, together with the moments in which a client has its
answer. Then disks are made as they may be left at any of these moments, and servers are started on them.
"""

from __future__ import annotations

import contextlib
import copy
import os
import random
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
from servers import KEY, another, running

from registry import ManagerServer, _image, _peers, _plugins, _wire, _words
from registry._addresses import EpochFile
from registry._engine import Engine
from registry._log import _folder, _folding, _format, _recovery, _segments, _store
from registry._log._code import code
from registry._log._files import Directory

BLOCK = 512  # what a disk writes as a whole

# What is done, each with its place in the record as the first value of `Medium.do`:
#   ("make", folder, name, what)      a name for a file (a number) or a folder (its path)
#   ("drop", folder, name)
#   ("move", folder, name, other)
#   ("write", file, place, data)
#   ("cut", file, length)
#   ("sync", file or folder, place)   all before that place is on the disk
#   ("answered", client, index)       a client has seen the outcome of an event
Deed = tuple[Any, ...]


@attrs.define
class Thing:
    """A file or a folder: what is on the disk of it, and what was done to it since."""

    there: Any
    since: list[tuple[int, Deed]] = attrs.field(factory=list)


class Medium:
    """The disk: for each file and folder what is on it for certain, and what may be.

    Attributes:
        files: By number.
        folders: By their path below the root, which is ``""``.
    """

    def __init__(self) -> None:
        self.files: dict[int, Thing] = {}
        self.folders: dict[str, Thing] = {"": Thing({})}

    @classmethod
    def of(cls, tree: dict[str, bytes | None]) -> Medium:
        """Return a disk that has this for certain, see `left`."""
        medium = cls()
        for number, (path, content) in enumerate(tree.items(), 1):
            folder, _, name = path.rpartition("/")
            medium.folders[folder].there[name] = path if content is None else number
            if content is None:
                medium.folders[path] = Thing({})
            else:
                medium.files[number] = Thing(bytearray(content))
        return medium

    def do(self, place: int, deed: Deed) -> None:
        """Take what was done."""
        kind, what, *values = deed
        if kind == "answered":
            return
        if kind == "sync":
            thing = self.folders[what] if isinstance(what, str) else self.files[what]
            done = [each for each in thing.since if each[0] < values[0]]
            thing.since = thing.since[len(done) :]
            apply = self._rename if isinstance(what, str) else self._write
            for _, each in done:
                apply(thing.there, each)
            return
        if kind == "make":
            if isinstance(values[1], str):
                self.folders.setdefault(values[1], Thing({}))
            else:
                self.files.setdefault(values[1], Thing(bytearray()))
        (self.folders if isinstance(what, str) else self.files)[what].since.append((place, deed))  # type: ignore[index]

    @staticmethod
    def _rename(names: dict[str, Any], deed: Deed) -> None:
        kind, _, name, *values = deed
        if kind == "make":
            names[name] = values[0]
        elif kind == "drop":
            names.pop(name, None)
        elif name in names:
            names[values[0]] = names.pop(name)

    @staticmethod
    def _write(content: bytearray, deed: Deed) -> None:
        kind, _, place, *values = deed
        if kind == "cut":
            del content[place:]
            content.extend(bytes(place - len(content)))
        else:
            (data,) = values
            content.extend(bytes(max(0, place - len(content))))
            content[place : place + len(data)] = data

    def names(self) -> dict[str, Any]:
        """Return all that has a name now, by its path."""
        found: dict[str, Any] = {}
        for path, folder in self.folders.items():
            names = dict(folder.there)
            for _, deed in folder.since:
                self._rename(names, deed)
            found.update({f"{path}/{name}".lstrip("/"): what for name, what in names.items()})
        return found

    def written(self, number: int) -> bytes:
        """Return all that was written to a file."""
        return self._content(self.files[number], None)

    def left(self, how: random.Random | None = None) -> dict[str, bytes | None]:
        """Return what a loss of power may leave, or without `how` all that was done: by path; folders are None."""
        found: dict[str, bytes | None] = {}

        def walk(path: str) -> None:
            folder = self.folders[path]
            names = dict(folder.there)
            for _, deed in folder.since[: how.randint(0, len(folder.since)) if how is not None else None]:
                self._rename(names, deed)
            for name, what in names.items():
                below = f"{path}/{name}".lstrip("/")
                found[below] = None if isinstance(what, str) else self._content(self.files[what], how)
                if isinstance(what, str):
                    walk(what)

        walk("")
        return found

    def _content(self, file: Thing, how: random.Random | None) -> bytes:
        content = bytearray(file.there)
        taste = how.choice(("all", "nothing", "first", "some", "size")) if how is not None else "all"
        since = [deed for _, deed in file.since]
        if taste == "first" and how is not None:
            since = since[: how.randint(0, len(since))]
        for deed in since if taste != "nothing" else ():
            if deed[0] == "cut" or taste in ("all", "first"):
                self._write(content, deed)
                continue
            _, number, place, data = deed
            start = 0
            while start < len(data):
                end = min(len(data), start + BLOCK - (place + start) % BLOCK)
                if taste == "some" and how is not None and how.random() < 0.5:
                    self._write(content, ("write", number, place + start, data[start:end]))
                start = end
            if taste == "size":
                content.extend(bytes(max(0, place + len(data) - len(content))))
        return bytes(content)


class Recorder:
    """Records what this process does to the files below a folder, as long as the block lasts.

    Nothing is synced indeed: what is on the disk of the model is all that counts.

    Attributes:
        deeds: What was done.
    """

    ON = ("open", "close", "write", "pwrite", "ftruncate", "lseek", "fsync", "fdatasync")
    ON_NAMES = ("mkdir", "replace", "rename", "link", "unlink")

    def __init__(self, root: Path, medium: Medium | None = None, base: int = 0) -> None:
        self.root = os.fspath(root)
        self.deeds: list[Deed] = []
        self._base = base  # how many deeds there were before
        self._lock = threading.RLock()
        self._opened: dict[int, list[Any]] = {}  # by descriptor: file and place in it, or folder
        self._names: dict[str, Any] = {"": ""}
        self._count = 0
        self._stack = contextlib.ExitStack()
        if medium is not None:
            self._names.update(medium.names())
            self._count = max(medium.files, default=0)

    def __enter__(self) -> Recorder:
        for name in self.ON + self.ON_NAMES:
            self._replace(os, name, getattr(self, f"on_{name}"))
        self._replace(_segments, "_sync_data", self.on_fdatasync)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _replace(self, module: Any, name: str, ours: Callable[..., Any]) -> None:
        real = getattr(module, name)
        self._stack.callback(setattr, module, name, real)

        def recorded(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                return ours(real, *args, **kwargs)

        setattr(module, name, recorded)

    def note(self, *deed: Any) -> None:
        """Add a deed."""
        with self._lock:
            self.deeds.append(deed)

    def _below(self, path: Any) -> str | None:
        """Return where a path is below the root, or None."""
        path = os.path.abspath(os.fspath(path))
        return path[len(self.root) + 1 :] if f"{path}/".startswith(f"{self.root}/") else None

    def _name(self, path: str, what: Any) -> None:
        folder, _, name = path.rpartition("/")
        self._names[path] = what
        self.deeds.append(("make", folder, name, what))

    # -- what is recorded; each is given what it stands in for

    def on_open(self, real: Any, path: Any, flags: int, mode: int = 0o777, **kwargs: Any) -> int:
        fd: int = real(path, flags, mode, **kwargs)
        below = self._below(path)
        if below is None:
            self._opened.pop(fd, None)
            return fd
        if below not in self._names:
            if not flags & os.O_CREAT:
                return fd
            self._count += 1
            self._name(below, self._count)
        elif flags & os.O_TRUNC:
            self.deeds.append(("cut", self._names[below], 0))
        self._opened[fd] = [self._names[below], 0]
        return fd

    def on_close(self, real: Any, fd: int) -> None:
        self._opened.pop(fd, None)
        real(fd)

    def on_write(self, real: Any, fd: int, data: Any) -> int:
        written: int = real(fd, data)
        known = self._opened.get(fd)
        if known is not None:
            self.deeds.append(("write", *known, bytes(memoryview(data)[:written])))
            known[1] += written
        return written

    def on_pwrite(self, real: Any, fd: int, data: Any, place: int) -> int:
        written: int = real(fd, data, place)
        if fd in self._opened:
            self.deeds.append(("write", self._opened[fd][0], place, bytes(memoryview(data)[:written])))
        return written

    def on_ftruncate(self, real: Any, fd: int, length: int) -> None:
        real(fd, length)
        if fd in self._opened:
            self.deeds.append(("cut", self._opened[fd][0], length))

    def on_lseek(self, real: Any, fd: int, place: int, how: int) -> int:
        found: int = real(fd, place, how)
        if fd in self._opened:
            self._opened[fd][1] = found
        return found

    def on_fsync(self, real: Any, fd: int) -> None:
        if fd in self._opened:
            self.deeds.append(("sync", self._opened[fd][0], self._base + len(self.deeds)))

    on_fdatasync = on_fsync

    def on_mkdir(self, real: Any, path: Any, mode: int = 0o777, **kwargs: Any) -> None:
        real(path, mode, **kwargs)
        below = self._below(path)
        if below is not None:
            self._name(below, below)

    def on_replace(self, real: Any, old: Any, new: Any, **kwargs: Any) -> None:
        real(old, new, **kwargs)
        before, after = self._below(old), self._below(new)
        if before in self._names and after is not None:
            folder, _, name = before.rpartition("/")
            self._names[after] = self._names.pop(before)
            self.deeds.append(("move", folder, name, after.rpartition("/")[2]))

    on_rename = on_replace

    def on_link(self, real: Any, old: Any, new: Any, **kwargs: Any) -> None:
        real(old, new, **kwargs)
        before, after = self._below(old), self._below(new)
        if before in self._names and after is not None:
            self._name(after, self._names[before])

    def on_unlink(self, real: Any, path: Any, **kwargs: Any) -> None:
        real(path, **kwargs)
        below = self._below(path)
        if below in self._names:
            del self._names[below]
            folder, _, name = below.rpartition("/")
            self.deeds.append(("drop", folder, name))


# -- servers on such disks


@contextlib.contextmanager
def booted(boot: str, home: Path) -> Iterator[None]:
    """Be on the machine of this boot, with its home, where no client has a cache that is to be waited for."""
    real, lease, there = _peers.boot, _words.LEASE, os.environ.get("REGISTRY_HOME")
    _peers.boot = lambda: f"{boot}/pid:[1]"
    _words.LEASE = 0.0
    os.environ["REGISTRY_HOME"] = os.fspath(home / "home")
    try:
        yield
    finally:
        _peers.boot, _words.LEASE = real, lease
        if there is not None:
            os.environ["REGISTRY_HOME"] = there


@contextlib.contextmanager
def folding_here(events: int, sync: float) -> Iterator[None]:
    """Make segments short, sync often, and fold them in this process, so that it is recorded."""

    def fold(folding: Any) -> _folding.Folded:
        path = os.fspath(folding._directory.path)
        life = folding._directory.life
        said: dict[str, Any] = _folder.fold(path, folding._start.spec, folding._upto, folding._code, life)
        if said.get("index"):
            folding._epoch.record(said["index"], said["chain"])
            folding._directory.trim()
        return _folding.Folded(said.get("index", 0), said.get("diverged", ""), said.get("error", ""))

    before = _store.SEGMENT_EVENTS, _segments.SYNC, _folding.Folding._fold
    _store.SEGMENT_EVENTS, _segments.SYNC = events, sync
    _folding.Folding._fold = fold  # type: ignore[method-assign]
    try:
        yield
    finally:
        _store.SEGMENT_EVENTS, _segments.SYNC = before[:2]
        _folding.Folding._fold = before[2]  # type: ignore[method-assign]


@attrs.define
class Life:
    """A life of a server, as it was recorded.

    Attributes:
        deeds: What it did, and what clients were told.
        states: Sums of the state after the events that end a record.
        life: Its id; `keys` those of the sessions of its clients.
    """

    deeds: list[Deed]
    states: dict[int, int]
    life: bytes
    keys: dict[int, bytes]


def live(root: Path, log: str, where: str, calls: int) -> Life:
    """Have a server live on an empty disk, with clients that call it."""
    recorder = Recorder(root)
    keys: dict[int, bytes] = {}

    def work(number: int) -> None:
        with another("here", KEY) as client:
            link = client._home.link()
            keys[number] = link.key
            count, lock, items = client.counter("c"), client.lock("l"), client.queue("q")
            for n in range(calls):
                if n % 4 == 0:
                    client.dict("d")[f"{number}"] = "x" * random.randint(0, 2_000)
                elif n % 4 == 1:
                    count.incr()
                elif n % 4 == 2:
                    with lock:
                        recorder.note("answered", number, link._applied)
                else:
                    items.put(n)
                recorder.note("answered", number, link._applied)

    with booted("boot-1", root), folding_here(calls, 0.01), recorder:
        with ManagerServer("here", KEY, log=log, state=root / where if where else None) as server:  # type: ignore[arg-type]
            life = server.host.identity.life
            with running(*(lambda number=number: work(number) for number in range(3))):
                pass
    return Life(recorder.deeds, states(recorder.deeds), life, keys)


def states(deeds: list[Deed]) -> dict[int, int]:
    """Return the sum of the state after each record of all segments that there ever were."""
    medium, segments = Medium(), {}
    for place, deed in enumerate(deeds):
        medium.do(place, deed)
        if deed[0] == "move" and deed[3].endswith(".segment"):
            segments[int(deed[3][:20])] = medium.names()[f"{deed[1]}/{deed[3]}".lstrip("/")]
    engine = Engine(_plugins.load().declarations)
    found = {0: hash(_image.capture(engine))}
    for _, number in sorted(segments.items()):
        data = medium.written(number)
        description, offset = _format.read_segment(data)
        names = _format.Names()
        for record in _format.records(data, offset, engine.index, description.chain):
            for event, _, verdicts in names.events(record):
                engine.step(event, verdicts)
            found[engine.index] = hash(_image.capture(engine))
    return found


def losses(
    lives: int = 2, samples: int = 400, log: str = "disk", where: str = "", calls: int = 60, seed: int = 0
) -> dict[str, Any]:
    """Make disks as a loss of power may leave them, and start servers on them.

    Of some the server is killed first, and the power goes while the next one starts; of others it goes once more while
    the server starts on what the first loss has left.

    Args:
        lives: How many servers are recorded.
        samples: How many disks are made of what each has done.
        log: What the servers' log survives.
        where: The directory of the log below the root of the disk, or empty for its usual place.
        calls: How many calls each client makes.
        seed: What chooses.

    Returns:
        How many disks were made, how many of them had nothing, what was wrong, and how many clients were to be told.
    """
    how = random.Random(seed)
    counted: Counter[str] = Counter()
    wrong: list[str] = []
    for number in range(lives):
        with tempfile.TemporaryDirectory(prefix="d", dir="/tmp") as name:
            recorded = live(Path(name), log, where, calls)
            counted["deeds"] += len(recorded.deeds)
            counted["events"] += max(recorded.states)
            trial = Trial(Path(name), recorded, log, where, how, counted)
            medium = Medium()
            done = 0
            for place in sorted(how.choices(range(len(recorded.deeds) + 1), k=samples)):
                for deed in recorded.deeds[done:place]:
                    medium.do(done, deed)
                    trial.note(deed, medium)
                    done += 1
                for text in trial.of(medium, place):
                    wrong.append(f"life {number}, after deed {place}: {text}")
    return {**dict(sorted(counted.items())), "wrong": len(wrong), "such as": wrong[:5]}


def last_event(data: bytes) -> int:
    """Return the last event in a segment, 0 if it is none, or has none."""
    try:
        description, offset = _format.read_segment(data)
    except _format.Unreadable:
        return 0
    rows = _format.records(data, offset, description.first - 1, description.chain)
    return max((record.last for record in rows), default=0)


def make(root: Path, tree: dict[str, bytes | None]) -> None:
    """Make files and folders."""
    root.mkdir(mode=0o700, parents=True)
    for path, content in tree.items():
        if content is None:
            (root / path).mkdir(mode=0o700)
        else:
            (root / path).write_bytes(content)
            (root / path).chmod(0o600)


class Trial:
    """Servers that are started on disks which another one has left.

    Attributes:
        seen: The latest event that each client has seen the outcome of.
        safe: The latest event in a file that was synced.
    """

    def __init__(
        self, folder: Path, recorded: Life, log: str, where: str, how: random.Random, counted: Counter[str]
    ) -> None:
        self.seen: dict[int, int] = {}
        self.safe = 0
        self._root = folder / "after"
        self._recorded = recorded
        self._log: Any = log
        self._where = where
        self._how = how
        self._counted = counted

    def note(self, deed: Deed, medium: Medium) -> None:
        """Note what has to be there after something was done."""
        if deed[0] == "answered":
            self.seen[deed[1]] = max(self.seen.get(deed[1], 0), deed[2])
        elif deed[0] == "sync" and isinstance(deed[1], int):
            self.safe = max(self.safe, last_event(bytes(medium.files[deed[1]].there)))

    def of(self, medium: Medium, place: int) -> list[str]:
        """Lose the power there, and return what is wrong with what is left."""
        wrong: list[str] = []
        way = self._how.choice(("once", "once", "twice", "killed"))
        try:
            if way == "once":
                self._judge(medium.left(self._how), "boot-2", wrong)
                return wrong
            if way == "twice":
                after = Medium.of(medium.left(self._how))
                recorder = Recorder(self._root, after, place)
                with self._made(after.left()):
                    self._begin("boot-2", wrong, recorder)
            else:
                after = copy.deepcopy(medium)
                recorder = Recorder(self._root, after, place)
                with self._made(after.left()):
                    self._begin("boot-1", wrong, recorder)
            for number, deed in enumerate(recorder.deeds[: self._how.randint(0, len(recorder.deeds))], place):
                after.do(number, deed)
            self._judge(after.left(self._how), "boot-3", wrong)
        except Exception as error:  # noqa: BLE001 - whatever it is, the server should have started
            wrong.append(f"{type(error).__name__}: {error}")
        return [f"{text} ({way})" for text in wrong]

    @contextlib.contextmanager
    def _made(self, tree: dict[str, bytes | None]) -> Iterator[None]:
        make(self._root, tree)
        self._counted["disks"] += 1
        try:
            yield
        finally:
            shutil.rmtree(self._root, ignore_errors=True)

    def _begin(
        self, boot: str, wrong: list[str], recorder: contextlib.AbstractContextManager[object] | None = None
    ) -> ManagerServer:
        """Begin the life of a server, end it again at once, and compare its state with the true one."""
        plugins = _plugins.load()
        root, where = self._root, self._where
        path = root / where if where else root / "home" / "here" / "state"
        with booted(boot, root):
            epoch = EpochFile(path / "epoch" if where else path.parent / "epoch").read()
            head = (epoch.head, epoch.chain) if epoch is not None else (0, 0)
            found = _recovery.recover(Directory(path), plugins.declarations, code(plugins), head)
            if hash(_image.capture(found.engine)) != self._recorded.states.get(found.index):
                wrong.append(f"what is there is not the state after event {found.index}")
            server = ManagerServer("here", KEY, log=self._log, state=root / where if where else None)
            with recorder or Recorder(root):
                server.open()
                if server._durability is not None:
                    server._durability.log.close()
            server.stop()
        return server

    def _judge(self, tree: dict[str, bytes | None], boot: str, wrong: list[str]) -> None:
        """Start a server on a disk, and look whether all is there that has to be, and whether clients are told."""
        with self._made(tree):
            server = self._begin(boot, wrong)
        index = server.host.recovered
        self._counted["empty"] += not index
        known = max(self.seen.values(), default=0)
        if self._log == "disk" and index < known:
            wrong.append(f"events up to {known} were acknowledged, and those up to {index} are there")
        if index < self.safe:
            wrong.append(f"events up to {self.safe} had been synced, and those up to {index} are there")
        for number, applied in self.seen.items():
            key, life = self._recorded.keys[number], self._recorded.life
            hello = _wire.Attach(key, 1, "", "", "", "1", 1, {}, resumes=True, life=life, applied=applied)
            reason = server.host._loss_of(hello, server.host.clients.get(key))
            lost = "has lost what came" if index else "knows nothing of"
            self._counted["told"] += applied > index
            if (lost if applied > index else "for dead") not in reason:
                wrong.append(f"a client that had seen event {applied} of {index} is told: {reason!r}")
