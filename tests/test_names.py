"""Names that a peer sends: of methods, types and objects. What is not exposed is not there, however it is written."""

from __future__ import annotations

import random
import string
import unicodedata
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from test_host import Pipe
from test_stock import Connection, Process, Server

from registry import SharedObject
from registry._attachments import Identity
from registry._host import Host
from registry._wire import LONGEST_WORD, OPERATORS, ProtocolError
from registry.errors import UnknownType

pytestmark = pytest.mark.once

COUNT = 5000
START = 1000.0


class Trap:
    """Has everything that must not be reached, and notes when it is."""

    reached: list[str] = []  # noqa: RUF012 - of all of them, on purpose
    attribute = "an attribute"

    def __init__(self) -> None:
        self.field = "a field"

    def open(self) -> str:
        """Return a word: the one method that is exposed."""
        return "open"

    def hidden(self, *args: object) -> str:
        """Be public, and not exposed."""
        self.reached.append("hidden")
        return "reached"

    def _private(self, *args: object) -> str:
        self.reached.append("_private")
        return "reached"

    def state(self) -> str:
        """Be for the engine alone."""
        return "state"

    def load(self, state: object) -> None:
        """Be for the engine alone."""
        if state != "state":
            self.reached.append("load")

    def __call__(self, *args: object) -> str:
        self.reached.append("__call__")
        return "reached"


TRAP = SharedObject("trap", Trap, exposed=("open",))


def names() -> list[str]:
    """Return 5,000 names that are not exposed: random, of the interpreter, and written so that they may look alike."""
    how = random.Random(7)
    found = dict.fromkeys(
        name
        for cls in (object, type, type(random), type(len), Trap, SharedObject, Host, dict, BaseException)
        for name in dir(cls)
    )
    found.update(
        dict.fromkeys(["", "\0", "open\0", "\0open", " open", "open ", "OPEN", "open()", "open\n", "op\u200ben"])
    )
    found.update(dict.fromkeys(["#", "#nothing", "# release", "#RELEASE", "x" * 100_000, "open." * 10_000]))
    found.update(dict.fromkeys(f"{path}.open" for path in ("open", "__self__", "open.__self__", "__class__", ".", "")))
    found.update(dict.fromkeys(f"open.{name}" for name in dir(Trap.open)))
    found.update(dict.fromkeys(f"{name}.__globals__" for name in ("open", "__init__", "hidden")))
    alike = [
        chr(code) for code in range(128, 0x1F000) if unicodedata.normalize("NFKC", chr(code)) in ("o", "p", "e", "n")
    ]
    found.update(dict.fromkeys("open".replace(unicodedata.normalize("NFKC", letter), letter) for letter in alike))
    letters = string.ascii_letters + string.digits + "_.-#/\\:() " + "éßμＡ\u2024\u202e"
    found["open\ud800"] = None
    while len(found) <= COUNT:
        size = how.choice([1, 2, 3, 5, 8, 20])
        found["".join(how.choices(letters, k=size))] = None
        found[f"__{''.join(how.choices(string.ascii_lowercase, k=size))}__"] = None
    del found["open"]
    return [name for name in found if name not in OPERATORS][:COUNT]


def is_text(name: str) -> bool:
    """Tell whether a name can be written in UTF-8 at all."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@pytest.fixture(autouse=True)
def nothing_reached() -> Iterator[None]:
    Trap.reached.clear()
    yield
    assert Trap.reached == []


def host_of(*declarations: SharedObject[Any]) -> Host:
    identity = Identity("unix:///x", "x", 1, START, "here", "0", "3", 1, b"life", {})
    return Host({each.typeid: each for each in declarations}, identity, seed=b"seed", now=START)


def test_no_name_reaches_what_is_not_exposed() -> None:
    """5,000 names of methods in native calls, with and without arguments: each is refused, by the same error."""
    pipe = Pipe(host_of(TRAP))
    assert pipe.ask("trap:x", "open") == "open"
    counted: Counter[str] = Counter()
    for name in filter(is_text, names()):
        for args in ((), ("x",)):
            with pytest.raises(AttributeError, match="exposes no"):
                pipe.ask("trap:x", name, *args)
            counted["refused"] += 1
    assert counted["refused"] == 2 * (COUNT - 1)
    assert pipe.ask("trap:x", "open") == "open"


def test_no_name_is_that_of_a_type() -> None:
    """The same as typeids: there is one, and no name finds another."""
    pipe = Pipe(host_of(TRAP))
    refused = 0
    for name in filter(is_text, names()):
        if not {":", " "} & set(name) and name != "trap":  # which this pipe has a use of its own for
            if len(name) > LONGEST_WORD:
                with pytest.raises(
                    ProtocolError, match=f"a name of {len(name)} letters; at most {LONGEST_WORD} are taken"
                ):
                    pipe.ask(f"{name}:x", "open")
                pipe = Pipe(host_of(TRAP))
            else:
                with pytest.raises(UnknownType):
                    pipe.ask(f"{name}:x", "open")
            refused += 1
    assert refused > COUNT * 0.6


def test_no_name_reaches_anything_by_a_stock_request() -> None:
    """As methods of an object, as functions of the server and as typeids, in the requests of `multiprocessing`."""
    server = Server()
    server.host.declarations = server.host.engine.declarations = {"trap": TRAP}
    process = Process(server)
    ident = process.make("trap", "x")
    thread = process.thread()
    assert thread.call(ident, "open") == "open"
    counted: Counter[str] = Counter()
    for name in names():
        ((kind, value),) = thread.ask(ident, name)
        if name in SHOWN:
            assert (kind, value) == ("#RETURN", "<shared trap 'x' on ours>")
            continue
        assert kind in ("#ERROR", "#TRACEBACK") and "exposes no" in str(value), (name, kind, value)
        counted["method"] += 1
        for request in ((None, name), (None, "create", name)):
            if name not in FUNCTIONS and ":" not in name:
                connection = Connection(server, process.peer, process.domain)
                ((kind, value),) = connection.ask(*request)
                assert kind in ("#ERROR", "#TRACEBACK"), (request, kind, value)
                counted[str(request[1:-1])] += 1
    assert min(counted.values()) > COUNT * 0.95
    assert thread.call(ident, "open") == "open"


# What a stock client can ask of any object, and of a server.
SHOWN = frozenset({"__str__", "__repr__"})
FUNCTIONS = frozenset(
    "shutdown create accept_connection get_methods debug_info number_of_objects dummy incref decref".split()
)
