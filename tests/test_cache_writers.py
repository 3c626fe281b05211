"""Whoever writes, whoever has cached what was there before sees it: stock clients, clients without a cache, the clock.

Writers tell readers by pipes what they have written, and readers tell each other what they have seen. What a reader has
been told of, its next read shows, or something newer.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
from collections.abc import Callable, Iterator
from multiprocessing.managers import BaseManager, BaseProxy
from pathlib import Path
from random import Random
from typing import Any

import cached_classes
import pytest
import things
from servers import KEY, PATIENCE, Script, Served, another, until
from sizes import LONG, size

from registry import ManagerClient, ManagerServer, SharedObject, _words
from registry._wire import Words
from registry.errors import NoSuchObject

pytestmark = pytest.mark.skipif(not _words.IS_SUPPORTED, reason="no words on this system")

JAR = SharedObject("jar", cached_classes.Rows, per="call", readonly=("__getitem__",))
BOARD = SharedObject("board", cached_classes.Rows, per="server", readonly=("__getitem__",))


class Manager(BaseManager):
    """A client that knows nothing of us."""


TYPEIDS = ("board", "counter", "dict", "expiring", "jar", "lock", "lru", "plain", "queue", "sayings")
for _typeid in TYPEIDS:
    Manager.register(_typeid)


@pytest.fixture
def server(home: Path) -> Iterator[ManagerServer]:
    """Serve the classes of the tests from a thread."""
    with ManagerServer(f"unix://{home}/socket", KEY, plugins=[cached_classes, things, JAR, BOARD]) as server:
        yield server


@pytest.fixture
def stock(server: ManagerServer) -> Iterator[Any]:
    """Return a connected stock manager, whose connections are forgotten afterwards."""
    manager = Manager(address=server.address, authkey=KEY)  # type: ignore[arg-type]
    manager.connect()
    yield manager
    BaseProxy._address_to_local.clear()  # type: ignore[attr-defined]


@pytest.fixture
def shared(server: ManagerServer) -> Iterator[ManagerClient]:
    """Return a client that caches."""
    with another(server.url) as client:
        yield client


# -- one after the other, in every order


def outcome(function: Callable[[], Any]) -> object:
    """Return what a call returns, or the class of what it raises."""
    try:
        return function()
    except (LookupError, TypeError) as error:
        return type(error)


# What anybody may do to an object, and what shows of it; `v` is a number that was never used before.
CHANGES: dict[str, list[Callable[[Any, Any, int], object]]] = {
    "dict": [
        lambda d, k, v: d.__setitem__(k, v),
        lambda d, k, v: d.__setitem__(k, [v, {"in": (v,)}]),
        lambda d, k, v: d.__setitem__(k, bytes(300_000) + b"%d" % v),  # which goes by a file
        lambda d, k, v: d.__setitem__(k, things.Point(v)),
        lambda d, k, v: d.__delitem__(k),
        lambda d, k, v: d.update({k: v, "other": v}),
        lambda d, k, v: d.setdefault(k, v),
        lambda d, k, v: d.pop(k, None),
        lambda d, k, v: d.popitem(),
        lambda d, k, v: d.incr(k),
        lambda d, k, v: d.compare_and_set(k, None, v),
        lambda d, k, v: d.clear(),
    ],
    "plain": [
        lambda d, k, v: d.__setitem__(k, v),
        lambda d, k, v: d.pop(k, None),
        lambda d, k, v: d.clear(),
    ],
    "counter": [lambda c, k, v: c.incr(), lambda c, k, v: c.set(v)],
    "queue": [lambda q, k, v: q.put(v), lambda q, k, v: q.qsize() and q.get()],
    "lru": [lambda x, k, v: x.put(k, v), lambda x, k, v: x.wipe()],
    "expiring": [lambda x, k, v: x.put(k, v, 1000.0), lambda x, k, v: x.put(k, v, 0.0)],
    "sayings": [lambda s, k, v: s.say([v])],
    "lock": [lambda x, k, v: x.acquire(False) and (x.locked(), x.release())],
}  # fmt: skip
READS: dict[str, list[Callable[[Any, Any], object]]] = {
    "dict": [
        lambda d, k: d[k],
        lambda d, k: d.get(k),
        lambda d, k: d.get(k, "none"),
        lambda d, k: k in d,
        lambda d, k: len(d),
        lambda d, k: list(d),
        lambda d, k: list(d.items()),
        lambda d, k: d.copy(),
    ],
    "plain": [lambda d, k: d.get(k), lambda d, k: len(d), lambda d, k: d.copy()],
    "counter": [lambda c, k: c.get(), lambda c, k: int(c)],
    "queue": [lambda q, k: q.qsize(), lambda q, k: q.empty()],
    "lru": [lambda x, k: x.get(k), lambda x, k: x.count()],
    "expiring": [lambda x, k: x.get(k)],
    "sayings": [lambda s, k: s.all()],
    "lock": [lambda x, k: x.locked()],
}
KEYS = ("a", "b", 1, True, 1.0, ("a", 1))


@pytest.mark.parametrize("typeid", CHANGES)
def test_all_clients_agree_after_every_call(
    typeid: str, server: ManagerServer, stock: Any, shared: ManagerClient
) -> None:
    """Whichever of them has made a change, two that cache read what one reads that has no cache, at once."""
    random = Random(typeid)
    with another(server.url, cache=False) as plain, another(server.url) as second:
        caching = [getattr(client, typeid)("x") for client in (shared, second)]
        asking = getattr(plain, typeid)("x")
        writers = [getattr(stock, typeid)("x"), asking, *caching]
        link = shared._home.link()
        before, reads = link._next, 0
        for number in range(size(120, 3_000)):
            key = random.choice(KEYS)
            outcome(lambda: random.choice(CHANGES[typeid])(random.choice(writers), key, number))  # noqa: B023
            for read in random.sample(READS[typeid], min(3, len(READS[typeid]))):
                for key in random.sample(KEYS, 2):
                    truth = outcome(lambda: read(asking, key))  # noqa: B023
                    for client in (*caching, *caching):
                        seen = outcome(lambda: read(client, key))  # noqa: B023
                        assert seen == truth, f"after change {number}, {read.__code__.co_firstlineno}: {key!r}"
                    reads += 2
        assert link._next - before < reads  # some were answered by the cache


# -- whose doing a change is


def test_a_stock_client_changes_what_its_own_process_has_cached(stock: Any, shared: ManagerClient) -> None:
    """A program on its way from one to the other may use both."""
    theirs, ours = stock.dict("d"), shared.dict("d")
    for number in range(50):
        theirs["k"] = number
        assert ours["k"] == ours["k"] == ours.get("k") == number


def test_the_one_object_of_a_server_is_seen_by_all(stock: Any, shared: ManagerClient) -> None:
    """An object without a name has words like any other."""
    theirs, ours = stock.board(), shared.board()
    for number in range(3):
        theirs.put("k", number)
        assert ours["k"] == ours["k"] == number


def test_what_ends_with_its_last_stock_proxy_is_gone(stock: Any, shared: ManagerClient) -> None:
    """An object that a stock client made for itself goes with its proxy, from every cache as well."""
    theirs, ours = stock.jar(), shared.dict("d")
    theirs.put("k", 1)
    stock.dict("d")["jar"] = theirs
    found = ours["jar"]
    assert found["k"] == found["k"] == 1
    theirs.put("k", 2)
    assert found["k"] == found["k"] == 2
    del theirs
    with pytest.raises(NoSuchObject):
        found["k"]


def test_what_a_stock_client_drives_out_is_gone(stock: Any, shared: ManagerClient) -> None:
    """A key that was evicted by another one is read as missing, and those that stay are not asked for again."""
    theirs, ours = stock.lru("l", 2), shared.lru("l", 2)
    theirs.put("a", 1), theirs.put("b", 2)
    assert [ours.get(key) for key in "abab"] == [1, 2] * 2
    theirs.put("c", 3)
    before = shared._home.link()._next
    assert [ours.get("b"), ours.get("a"), ours.get("c")] == [2, None, 3]
    assert shared._home.link()._next - before == 2


def test_what_one_has_seen_expire_has_expired_for_all(server: ManagerServer, stock: Any, shared: ManagerClient) -> None:
    """As soon as anybody has been told so, nobody reads what was there before."""
    theirs, ours = stock.expiring("e"), shared.expiring("e")
    for number in range(5):
        theirs.put("k", number, 0.02)
        while ours.get("k") == number:
            pass
        assert theirs.get("k") is None
        theirs.put("k", number, 0.02)
        while theirs.get("k") == number:
            ours.get("k")
        assert ours.get("k") is None


HOLDER = """
import sys
from multiprocessing.managers import BaseManager
class Manager(BaseManager): pass
Manager.register("lock")
m = Manager(address=sys.argv[1], authkey=sys.argv[2].encode()); m.connect()
lock = m.lock("l"); lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_the_death_of_a_stock_client_is_seen(server: ManagerServer, shared: ManagerClient) -> None:
    """A lock that it held is free, also for those who had cached that it was not."""
    lock = shared.lock("l")
    assert lock.locked() is lock.locked() is False
    with Script(HOLDER, server.address, KEY.decode()) as holder:
        assert holder.line() == "held"
        assert lock.locked() is lock.locked() is True
        holder.kill()
        until(lambda ask: not lock.locked(), shared)
        assert lock.locked() is False


# -- forks


def in_child(function: Callable[[], object]) -> str:
    """Return the repr of what a function returns in a forked child."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(read)
            os.write(write, repr(outcome(function)).encode())
        finally:
            os._exit(0)
    os.close(write)
    assert select.select([read], [], [], PATIENCE)[0], "the child does not answer"
    said = os.read(read, 65536).decode()
    os.close(read)
    os.waitpid(pid, 0)
    return said


def test_parent_and_child_tell_each_other(stock: Any, server: ManagerServer) -> None:
    """What the parent had cached at a fork is no cache of the child's, and each sees what the other has seen."""
    with ManagerClient(server.url, KEY) as shared:
        theirs, ours = stock.dict("d"), shared.dict("d")
        for number in range(3):
            theirs["k"] = number
            assert ours["k"] == ours["k"] == number

            def change(number: int = number) -> list[object]:
                before = [ours["k"], ours["k"]]
                ours["k"] = number + 100
                return [*before, ours["k"], ours["k"]]

            assert in_child(change) == repr([number, number, number + 100, number + 100])
            assert ours["k"] == ours["k"] == number + 100


def test_a_forked_stock_client_writes(server: ManagerServer, stock: Any, shared: ManagerClient) -> None:
    """As the children of a pool do, with the connections that each makes for itself."""
    ours = shared.dict("d")
    stock.dict("d")["k"] = 0
    for number in range(1, 4):
        assert ours["k"] == ours["k"] == number - 1

        def write(number: int = number) -> None:
            BaseProxy._address_to_local.clear()  # type: ignore[attr-defined]
            manager = Manager(address=server.address, authkey=KEY)  # type: ignore[arg-type]
            manager.connect()
            manager.dict("d")["k"] = number  # type: ignore[attr-defined]

        assert in_child(write) == "None"
        assert ours["k"] == ours["k"] == number


# -- the file of the words, while its server lives


def words_of(client: ManagerClient) -> Words:
    """Return which file a client was told of."""
    words = client._home.link().words
    assert words is not None
    return words._told


def test_words_that_were_poisoned_too_early(server: ManagerServer, stock: Any, shared: ManagerClient) -> None:
    """A server that another one has taken for dead goes on: nobody reads what was before, and caches come back."""
    theirs, ours = stock.dict("d"), shared.dict("d")
    theirs["k"] = 1
    assert ours["k"] == ours["k"] == 1
    view = _words._map(words_of(shared), os.O_RDWR, _words.mmap.PROT_READ | _words.mmap.PROT_WRITE)
    assert view is not None
    _words._poison(view)
    link = shared._home.link()
    before = link._next
    assert ours["k"] == 1
    assert link._next == before + 1
    for number in range(2, 50):
        theirs["k"] = number
        assert ours["k"] == ours["k"] == ours.get("k") == number
    while view[_words.STAMP] == 0:
        ours["k"]  # until the server has stamped them again
    theirs["k"] = 0
    assert ours["k"] == 0
    before = link._next
    assert ours["k"] == ours["k"] == 0
    assert link._next == before


def test_a_file_that_vanishes_is_missed_by_new_clients_alone(
    server: ManagerServer, stock: Any, shared: ManagerClient
) -> None:
    """Who has mapped it goes on with it; who comes later asks, and all see the same."""
    theirs, ours = stock.dict("d"), shared.dict("d")
    theirs["k"] = 0
    assert ours["k"] == ours["k"] == 0
    os.unlink(words_of(shared).path)
    with another(server.url) as late:
        link = late._home.link()
        for number in range(1, 20):
            theirs["k"] = number
            before = link._next
            assert [each["k"] for each in (ours, late.dict("d")) * 2] == [number] * 4
            assert link._next == before + 2
        before = shared._home.link()._next
        assert ours["k"] == 19
        assert shared._home.link()._next == before


# -- processes, who tell each other by pipes

WRITE = """
import struct, sys
out, back, url, kind = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4]

def find():
    if kind == "stock":
        from multiprocessing.managers import BaseManager, BaseProxy
        class Manager(BaseManager): pass
        Manager.register("dict"), Manager.register("counter")
        BaseProxy._address_to_local.clear()
        where = url.partition("://")[2]
        host, _, port = where.rpartition(":")
        m = Manager(address=(host, int(port)) if host else where, authkey={key!r})
        m.connect()
        return m.dict("d"), m.counter("c")
    from registry import ManagerClient
    shared = ManagerClient(url, {key!r}, cache=kind == "caching")
    return shared.dict("d"), shared.counter("c")

d, c = find()
life = n = 0
d["k"] = 0
c.set(0)
print("ready", flush=True)
sys.stdin.readline()
out, back = open(out, "wb", buffering=0), open(back, "rb", buffering=0)
print("begun", flush=True)
while sys.stdin.readline().strip() == "go":
    for _ in range(40):
        n += 1
        try:
            d["k"] = n
            c.set(n)
        except (OSError, EOFError):  # StateLost and OutcomeUnknown too
            print("lost", flush=True)
            sys.stdin.readline()
            life += 1
            d, c = find()
            continue
        out.write(struct.pack("=QQ", life, n))
        back.read(16)
    print("written", flush=True)
"""

READ = """
import struct, sys
from registry import ManagerClient
told, tell, url, last = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
shared = ManagerClient(url, {key!r}).connect()
link = shared._home.link()
d, c = shared.dict("d"), shared.counter("c")
reads = wrong = latest = calls = 0
before = link._next

def look(read, n, life):
    global reads, wrong
    reads += 1
    try:
        seen = read() or 0
    except KeyError:
        seen = 0
    if seen >= n:
        return seen
    # What a server without a log has held is gone with it, until somebody has written to the next one.
    wrong += not (seen == 0 and life < last)
    return n

print("ready", flush=True)
told, tell = open(told, "rb", buffering=0), open(tell, "wb", buffering=0)
while True:
    message = told.read(16)
    if not message:
        break
    life, n = struct.unpack("=QQ", message)
    kept = link
    seen = look(lambda: d["k"], n, life)
    # What it has seen itself, it sees.
    for read in (lambda: d["k"], lambda: d.get("k"), lambda: d.get("k"), lambda: max(d.values(), default=0)):
        look(read, seen, life)
    count = look(lambda: c.get(), n, life)
    look(lambda: c.get(), count, life)
    if link._next < before:
        before = 0  # a session of its own in each life
    calls, before = calls + link._next - before, link._next
    tell.write(struct.pack("=QQ", life, max(n, min(seen, count))))
print(wrong, reads, calls, flush=True)
"""


class Chain:
    """A writer, and readers each of whom tells the next; the last tells the writer, who goes on then."""

    def __init__(self, folder: Path, url: str, kind: str, *, readers: int = 3, lives: int = 0) -> None:
        self._stack = contextlib.ExitStack()
        pipes = [folder / f"pipe{number}" for number in range(readers + 1)]
        for pipe in pipes:
            os.mkfifo(pipe)
        try:
            self.writer = self._start(WRITE, pipes[0], pipes[-1], url, kind)
            self.readers = [self._start(READ, *pair, url, lives) for pair in itertools.pairwise(pipes)]
        except BaseException:
            self._stack.close()
            raise
        self.writer.say()
        assert self.writer.line() == "begun"

    def _start(self, code: str, *args: object) -> Script:
        script = self._stack.enter_context(Script(code.replace("{key!r}", repr(KEY)), *args))
        assert script.line() == "ready"
        return script

    def begin(self) -> None:
        """Have the writer write a while."""
        self.writer.say("go")

    def finish(self) -> bool:
        """Wait until it has; tell whether its server was lost to it meanwhile, so that it had to begin anew."""
        line = self.writer.line()
        lost = line == "lost"
        if lost:
            self.writer.say()
            line = self.writer.line()
        assert line == "written"
        return lost

    def run(self) -> None:
        """Have the writer write a while, undisturbed."""
        self.begin()
        assert not self.finish()

    def end(self) -> None:
        """Stop, and look at what the readers have seen."""
        self.writer.say("end")
        for reader in self.readers:
            wrong, reads, calls = map(int, reader.line().split())
            assert wrong == 0
            assert 0 < calls < reads  # some were answered by the cache

    def __enter__(self) -> Chain:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


KINDS = ("stock", "asking", "caching")
MIXED = [("stock", "memory"), ("stock", "process"), ("stock", "disk"), ("asking", "disk"), ("caching", "process")]


@pytest.mark.once
@pytest.mark.parametrize(("kind", "log"), MIXED)
def test_what_a_writer_tells_is_seen(kind: str, log: str, home: Path, tmp_path: Path) -> None:
    """Each reader sees at least what it was told of, by the writer or by another reader."""
    with Served(f"unix://{home}/socket", log=log) as server, Chain(tmp_path, server.url, kind) as chain:
        for _ in range(size(2, 200)):
            chain.run()
        chain.end()


@pytest.mark.once
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_writer_tells_is_seen_over_loopback(kind: str, home: Path, tmp_path: Path) -> None:
    """Writers and readers of one user on one host cache over TCP as well."""
    with Served("tcp://127.0.0.1:0") as server, Chain(tmp_path, server.url, kind) as chain:
        for _ in range(size(2, 200)):
            chain.run()
        chain.end()


@pytest.mark.once
@pytest.mark.parametrize(("kind", "log"), [*MIXED, ("asking", "memory")] if LONG else MIXED[:2] + MIXED[3:])
def test_what_a_writer_tells_is_seen_across_the_lives_of_a_server(
    kind: str, log: str, home: Path, tmp_path: Path
) -> None:
    """The server is killed in the middle of it, and started again; once more with its words gone; and once in order."""
    url, lost = f"unix://{home}/socket", 3 if log == "memory" or kind == "stock" else 0
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Served(url, log=log))
        chain = stack.enter_context(Chain(tmp_path, url, kind, lives=lost))
        chain.run()
        for how in ("killed", "vanished", "stopped"):
            with another(url) as client:
                path = words_of(client).path
            chain.begin()
            if how == "stopped":
                server.signal(signal.SIGTERM)
                assert server.wait() == 0
            else:
                server.kill()
            if how == "vanished":
                os.unlink(path)
            server = stack.enter_context(Served(url, log=log))
            assert chain.finish() == bool(lost)
            chain.run()
        chain.end()


@pytest.mark.once
@pytest.mark.parametrize("how", ["found", "vanished"])
def test_who_stood_still_meanwhile_sees_what_it_is_told(how: str, home: Path, tmp_path: Path) -> None:
    """A reader that was stopped while its server died, and another one was written to, reads nothing of before."""
    url = f"unix://{home}/socket"
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Served(url, log="process"))
        with another(url) as client:
            client.dict("d")["k"] = 1
            path = words_of(client).path
        reader = stack.enter_context(Script(STOPPED.format(key=KEY), url))
        assert reader.line() == "cached"
        reader.signal(signal.SIGSTOP)
        server.kill()
        if how == "vanished":
            os.unlink(path)
        server = stack.enter_context(Served(url, log="process"))
        manager = Manager(address=url.partition("://")[2], authkey=KEY)
        manager.connect()
        manager.dict("d")["k"] = 2  # type: ignore[attr-defined]
        reader.say()
        reader.signal(signal.SIGCONT)
        assert reader.line() == "2"
        BaseProxy._address_to_local.clear()  # type: ignore[attr-defined]


STOPPED = """
import sys
from registry import ManagerClient
shared = ManagerClient(sys.argv[1], {key!r}).connect()
link, d = shared._home.link(), shared.dict("d")
while True:
    before = link._next
    if d["k"] == d["k"] == 1 and link._next == before:
        break
print("cached", flush=True)
sys.stdin.readline()
print(d["k"], flush=True)
"""


# -- whether any of this would be seen

CARELESS = """
import sys
from registry import ManagerServer, _words
from registry._stock._sessions import Session
submit, move, quiet = Session.submit, _words.WordPool.move, []

def submitted(self, *args, **kwargs):
    quiet.append(1)
    try:
        return submit(self, *args, **kwargs)
    finally:
        quiet.pop()

Session.submit = submitted
_words.WordPool.move = lambda self, touched: None if quiet else move(self, touched)
server = ManagerServer(sys.argv[1], {key!r})
server.on_ready = lambda: print(server.url, flush=True)
server.run()
"""


@pytest.mark.once
def test_a_server_that_forgets_stock_clients_is_found_out(home: Path, tmp_path: Path) -> None:
    """The chain of readers shows what it is there to show."""
    with Script(CARELESS.format(key=KEY), f"unix://{home}/socket") as server:
        with Chain(tmp_path, server.line(), "stock") as chain:
            chain.run()
            with pytest.raises(AssertionError, match="assert .* == 0"):
                chain.end()
