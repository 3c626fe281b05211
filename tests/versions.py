"""Clients and servers of this package on different Pythons: each pair of them, in each direction.

    python tests/versions.py PYTHON PYTHON...

Each is an interpreter that has the package installed. One line is printed for each pair, ``client 3.10, server 3.13:
ok``, and the exit status is 1 if any of them is not. `.ci/run` does it with the wheel.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

TOGETHER = 2  # clients at once
PATIENCE = 60.0  # seconds for one client

#: What both sides know by name, and what only the server has.
PLUGIN = '''
from __future__ import annotations

import dataclasses
import enum

from registry import SharedObject, ValueType, hookimpl, hosting


class Side(enum.Enum):
    BUY = 1
    SELL = 2


@dataclasses.dataclass(frozen=True)
class Order:
    side: Side
    amount: float


class Book:
    """Keep orders."""

    def __init__(self, depth: int = 5) -> None:
        self.depth = depth
        self.orders: list[Order] = []

    def add(self, order: Order, *, twice: bool = False) -> int:
        """Add one."""
        self.orders += [order] * (2 if twice else 1)
        return len(self.orders)

    def best(self) -> tuple[Order, int]:
        """Return the last."""
        return self.orders[-1], self.depth

    def fail(self) -> None:
        """Raise what cannot cross."""
        raise type("Own", (Exception,), {})("of the server")


@hookimpl
def registry_shared_objects() -> list[SharedObject]:
    return [SharedObject("book", Book, readonly=["best"])]


@hookimpl
def registry_value_types() -> list[ValueType]:
    return [ValueType(Order, "versions.order"), ValueType(Side, "versions.side")]
'''

SERVER = """
import sys
import registry
server = registry.ManagerServer(sys.argv[1], b"the key of all versions", plugins=["book_plugin"])
server.on_ready = lambda: print(server.url, flush=True)
server.run()
"""

CLIENT = """
import collections, datetime, decimal, fractions, ipaddress, math, queue, sys, uuid
import registry
from book_plugin import Order, Side
from registry import errors

TYPED = {
    "numbers": (1, -2**63, 2**200, 1.5, math.inf, 1j, True, None),
    "texts": ["", "\\u00e9\\ud800", b"\\x00", bytearray(b"x")],
    "dates": [datetime.datetime(2026, 1, 2, 3, 4, 5, 6, datetime.timezone.utc), datetime.date(1, 1, 1),
              datetime.time(1, 2), datetime.timedelta(-1, 2, 3)],
    "sets": ({1, "a"}, frozenset({(1, 2)}), {"k": {1: {(2, 3): []}}}),
    "others": (uuid.UUID(int=5), decimal.Decimal("1.10")),
    "declared": [Order(Side.BUY, 1.5), {Side.SELL: 2}],
}
OPAQUE = [fractions.Fraction(1, 3), ipaddress.ip_network("10.0.0.0/8"), collections.Counter("abca"),
          collections.OrderedDict(a=1), Exception("x", 2).args, b"z" * 300_000, fractions.Fraction(5)]
me = "%d.%d" % sys.version_info[:2]


def refused(attempt, kind, text):
    try:
        attempt()
    except kind as error:
        if text not in str(error):
            raise
    else:
        raise RuntimeError("nothing was raised instead of " + kind.__name__)


def same(one, other):
    if one != other or type(one) is not type(other) and not isinstance(one, type(other)):
        raise RuntimeError("%r instead of %r" % (one, other))


with registry.connect(sys.argv[1], b"the key of all versions", plugins=["book_plugin"]) as shared:
    typed, opaque = shared.dict("typed"), shared.dict("opaque")
    typed[me], opaque[me] = TYPED, OPAQUE
    for table, value in ((typed, TYPED), (opaque, OPAQUE)):
        for writer, found in table.items():  # what clients of every version have left
            same(found, value)
            same(table[writer], value)

    book = shared.book(me, depth=7)
    same(book.add(Order(Side.SELL, 2.0), twice=True), 2)
    same(book.best(), (Order(Side.SELL, 2.0), 7))
    refused(book.fail, errors.RemoteError, "Own: of the server")
    refused(lambda: shared.book(me, depth=8).best(), errors.DefinitionConflict, "depth")
    refused(lambda: typed["none"], KeyError, "none")
    refused(lambda: shared.cookies("x"), errors.UnknownType, "cookies")
    refused(shared.lock(me).release, errors.NotOwner, me)
    refused(lambda: typed.__setitem__(object(), 1), errors.NotShareable, "object")

    numbers, seen, jobs, hits = shared.list(me), shared.set(me), shared.queue(me), shared.counter("hits")
    numbers.extend(range(1000))
    same(numbers[-1], 999)
    same(numbers[2:4], [2, 3])
    same(seen.add((1, "a")), True)
    same((1, "a") in seen, True)
    jobs.put_many([1, Order(Side.BUY, 1.0)])
    same(jobs.get(), 1)
    with jobs.claim() as item:
        same(item, Order(Side.BUY, 1.0))
    refused(lambda: jobs.get(timeout=0), queue.Empty, "")
    hits.incr()
    with shared.lock("one"), shared.rlock(me), shared.rlock(me):
        hits.get()
    with opaque.edit(me) as kept:
        kept.append("edited")
    same(opaque[me][-1], "edited")
    opaque[me] = OPAQUE

    prices = shared.dict("prices " + me)
    prices["BTC"] = 1
    same(prices["BTC"], 1)
    link = shared._home.link()
    if link.words is not None:
        before = link._next
        for _ in range(5):
            same(prices["BTC"], 1)
        same(link._next, before)
    prices["BTC"] = 2
    same(prices["BTC"], 2)
print("ok")
"""


def version_of(python: str) -> str:
    """Return the version of an interpreter."""
    return run(python, "import sys; print('%d.%d' % sys.version_info[:2])")


def run(python: str, code: str, *words: str) -> str:
    """Run a program, and return the last line that it said; of an error that is the error."""
    done = subprocess.run(
        [python, "-c", code, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    return (done.stdout.strip().splitlines() or [f"it ended with {done.returncode} and said nothing"])[-1]


@contextmanager
def serving(python: str, name: str) -> Iterator[str]:
    """Run a server, and give its URL."""
    process = subprocess.Popen(
        [python, "-c", SERVER, name], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield process.stdout.readline().strip() if process.stdout is not None else ""
        finally:
            process.terminate()


def main(pythons: list[str]) -> int:
    """Try each pair, and return the exit status."""
    with ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="v"))
        Path(home, "book_plugin.py").write_text(PLUGIN)
        # Away from the sources: the package can only be what each interpreter has installed.
        pythons = list(map(os.path.abspath, pythons))
        os.environ.update(REGISTRY_HOME=home, PYTHONPATH=home)
        os.chdir(home)
        versions = {version_of(python): python for python in pythons}
        urls = {version: stack.enter_context(serving(path, version)) for version, path in versions.items()}
        pool = stack.enter_context(ThreadPoolExecutor(TOGETHER))
        pairs = [(client, server) for client in versions for server in versions]
        outcomes = list(pool.map(lambda pair: run(versions[pair[0]], CLIENT, urls[pair[1]]), pairs))
    for (client, server), outcome in zip(pairs, outcomes):
        print(f"client {client}, server {server}: {outcome}")
    return 0 if set(outcomes) == {"ok"} else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
