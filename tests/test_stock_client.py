"""Our client of stock `multiprocessing` servers: what it can do, what it says, what becomes of calls and objects."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any

import pytest
from servers import Script, running
from stock_servers import KEY, Stock

import registry
from registry import ManagerClient, ManagerServer, aio, connect
from registry._stock_client import StockServer, Wire
from registry.errors import (
    AccessDenied,
    CallTimeout,
    Closed,
    NoSuchObject,
    NotShareable,
    OutcomeUnknown,
    RegistryError,
    RemoteError,
    ServerNotFound,
    UnknownType,
)


@pytest.fixture(scope="module")
def stock() -> Iterator[Stock]:
    """Run a stock server for all tests that leave it as it was."""
    with Stock() as server:
        yield server


@pytest.fixture
def shared(stock: Stock) -> Iterator[ManagerClient]:
    """Return a client of it."""
    with connect(stock.url, KEY, timeout=20) as client:
        yield client


def objects(client: ManagerClient) -> int:
    """Return how many objects the server keeps."""
    return int(client.statistics()["objects"])


# Calls


def test_what_a_stock_server_has_is_used_by_the_methods_that_it_tells(shared: ManagerClient) -> None:
    """Special methods, arguments of all kinds, iteration and locks work as on the object itself."""
    items = shared.items()
    items["BTC"] = {"usd": (97_000, {1, 2})}
    items.update(ETH=1)
    assert items["BTC"] == {"usd": (97_000, {1, 2})}
    assert sorted(items) == ["BTC", "ETH"]
    assert len(items) == 2
    assert "ETH" in items
    del items["BTC"]
    assert items._getvalue() == {"ETH": 1}
    assert items._callmethod("pop", ("ETH",)) == 1
    assert shared.counter(5).echo(1, *"ab", key=b"c") == ((1, "a", "b"), {"key": b"c"})
    numbers = shared.list([1, 2])
    assert [*numbers, *(numbers + [3]), *(2 * numbers)] == [1, 2, 1, 2, 3, 1, 2, 1, 2]
    jobs = shared.jobs()
    jobs.put("job", timeout=1)
    assert jobs.get(block=False) == "job"
    with shared.login():
        assert shared.login().acquire(False) is False
    assert shared.login().acquire() is True
    shared.login().release()


def test_large_values_cross(shared: ManagerClient) -> None:
    """A value of many chunks comes back as it went."""
    value = os.urandom(1 << 20) * 5
    assert shared.counter().echo(value) == ((value,), {})


@pytest.mark.parametrize(
    ("kind", "arguments"), [("KeyError", ("k",)), ("ValueError", ("no", 2)), ("OSError", (5, "broken"))]
)
def test_errors_are_as_they_are(shared: ManagerClient, kind: str, arguments: tuple[Any, ...]) -> None:
    """What a method raises is raised here, and the next call goes on."""
    counter = shared.counter()
    with pytest.raises((KeyError, ValueError, OSError)) as caught:
        counter.fail(kind, *arguments)
    assert type(caught.value).__name__ == kind
    assert caught.value.args == arguments
    assert counter.add() == 1


def test_errors_that_are_texts_keep_the_traceback(shared: ManagerClient) -> None:
    """What the server could not send is told in one line, with its traceback beside it."""
    counter = shared.counter()
    with pytest.raises(
        RemoteError, match=r"^counter\.sealed on server stock.* raised TypeError: it is sealed$"
    ) as caught:
        counter.sealed()
    assert "Traceback" in caught.value.traceback
    with pytest.raises(RemoteError, match="raised ZeroDivisionError: division by zero"):
        shared.bomb()
    assert counter.add() == 1


def test_a_type_that_is_not_registered_is_named(shared: ManagerClient) -> None:
    """A stock server cannot tell what it has; what it has not is an error of ours."""
    with pytest.raises(UnknownType, match=r"no shared type 'cookies' on server stock\+tcp.*cannot tell what"):
        shared.cookies()
    assert "items" not in dir(shared)


def test_names_are_explained(shared: ManagerClient) -> None:
    """Who names an object as ours are named is told that these have no names."""
    with pytest.raises(RemoteError, match=r"takes 0 positional arguments but 1 was given\. Objects of a stock server"):
        shared.items("prices")


def test_what_a_stock_server_cannot_do_is_said_with_the_cure(shared: ManagerClient) -> None:
    """Each verb of a client that needs more than that protocol has says so in one line."""
    items = shared.items()
    for attempt in (
        lambda: shared.delete(items),
        lambda: shared.objects(),
        lambda: shared.listen(print),
        lambda: shared.statistics(items),
    ):
        with pytest.raises(RegistryError, match=r"is a stock multiprocessing server, which cannot .*`registry serve`$"):
            attempt()
    with pytest.raises(AttributeError, match=r"has no method 'edit'; it has .*setdefault.*`registry serve` may have$"):
        items.edit("k")
    with pytest.raises(ValueError, match="its own program has to start a stock server"):
        connect("stock+tcp://127.0.0.1:1", KEY, start=True)
    with pytest.raises(ServerNotFound, match=r"by registry\.connect\(\) only"):
        asyncio.run(aio.connect("stock+tcp://127.0.0.1:1", KEY).__aenter__())


def test_names_from_the_server_are_taken_with_care(shared: ManagerClient) -> None:
    """A server that tells special, private or impossible names gives a proxy none of them."""
    lock = shared.rlogin()
    names = vars(type(lock))
    assert {"acquire", "release"} <= names.keys()
    assert not {"__class__", "__del__", "_private", "no name"} & names.keys()
    with pytest.raises(RemoteError, match="raised KeyError: 'unheard of'"):
        lock._callmethod("unheard of")


def test_what_cannot_be_pickled_is_not_sent(shared: ManagerClient) -> None:
    """An argument that cannot cross is named, and a result whose class is not here; the connection goes on."""
    counter = shared.counter()
    with pytest.raises(NotShareable, match=r"an argument of counter\.echo cannot be shared"):
        counter.echo(lambda: 1)
    with pytest.raises(NotShareable, match=r"an argument of items"):
        shared.items(lambda: 1)
    with pytest.raises(
        NotShareable, match=r"the result of counter\.#GETVALUE cannot be shared: it cannot be unpickled"
    ):
        counter._getvalue()
    assert counter.add() == 1


# Proxies and references


def test_objects_live_as_long_as_their_proxies(shared: ManagerClient) -> None:
    """Each proxy is one reference: made, returned by a method, read from a list, or unpickled."""
    before = objects(shared)
    counter = shared.counter(1)
    forked = counter.fork()
    assert (forked.add(), counter.add()) == (2, 2)
    assert objects(shared) == before + 2
    box = shared.list([forked])
    again = box[0]
    assert again == forked
    assert again is not forked
    assert again.add() == 3
    del forked
    assert again.add() == 4
    unpickled = pickle.loads(pickle.dumps(again))
    assert KEY not in pickle.dumps(again)
    del again, box
    assert unpickled.add() == 5
    assert objects(shared) == before + 2
    del unpickled
    assert objects(shared) == before + 1
    del counter
    assert objects(shared) == before


def test_an_error_keeps_no_proxy(shared: ManagerClient) -> None:
    """Iterators go when they are through, and what has raised goes when it is let go, without a collection."""
    before = objects(shared)
    gc.disable()
    try:
        items = shared.items()
        assert list(items) == []
        with contextlib.suppress(KeyError):
            shared.counter().fail("KeyError")
        assert objects(shared) == before + 1
    finally:
        gc.enable()


def test_a_client_that_closes_gives_up_its_objects(stock: Stock, shared: ManagerClient) -> None:
    """With the client its proxies go; what they say then tells why."""
    before = objects(shared)
    client = ManagerClient(stock.url, KEY)
    assert "not connected" in repr(client)
    counter = client.counter()
    assert "not connected" not in repr(client)
    client.close()
    assert objects(shared) == before
    for attempt in (counter.add, client.counter, client.connect):
        with pytest.raises(Closed, match=f"this client of {re.escape(stock.url)} is closed"):
            attempt()


def test_an_object_that_went_is_named(shared: ManagerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pickle of a proxy holds nothing: where the last proxy is gone, so is the object."""
    counter = shared.counter()
    pickled = pickle.dumps(counter)
    behind: Any = shared._home
    behind.server()._count("decref", "counter", counter._ident, 10)  # as a client would that counts wrongly
    for attempt in (counter.add, lambda: pickle.loads(pickled)):
        with pytest.raises(NoSuchObject, match=r"no object counter on server .*: it went with its last proxy"):
            attempt()


def test_proxies_are_shown_without_a_call(shared: ManagerClient) -> None:
    """What a proxy is can be told, compared and hashed."""
    items = shared.items()
    assert repr(items).startswith("<shared items ")
    assert items == shared.items()
    assert len({items, shared.items(), shared.login()}) == 2
    assert items != "items"


def test_a_proxy_can_be_kept_in_a_server_of_ours(shared: ManagerClient) -> None:
    """What is read from a shared dict is a proxy again, in a process that has a client of that server."""
    counter = shared.counter(7)
    with connect("memory://") as ours:
        ours.dict("d")["counter"] = counter
        assert ours.dict("d")["counter"].add() == 8


def test_a_proxy_in_a_value_may_name_the_server_otherwise(stock: Stock, shared: ManagerClient) -> None:
    """What others have kept under another name of the server, or under all of its interfaces, is found there."""
    assert isinstance(stock.address, tuple)
    port = stock.address[1]
    for host in ("0.0.0.0", "localhost"):
        with connect(f"stock+tcp://{host}:{port}", KEY, timeout=20) as other:
            counter, box = other.counter(), other.list()
            box.append(counter)
            shared.jobs().put(box)
            again = shared.jobs().get()[0]
            assert [again.add(), counter.add()] == [1, 2]
            del again


def test_a_proxy_in_a_value_may_be_of_another_server(shared: ManagerClient) -> None:
    """It is shown the key that this process has for it, and the same key where it has none."""
    with Stock() as second:
        with connect(second.url, KEY, timeout=20) as client:
            counter = client.counter()
            box = shared.list([counter])
            assert box[0] == counter
            assert [box[0].add(), counter.add()] == [1, 2]
            del counter
        assert box[0].add() == 3  # the list has a reference of its own
        del box


# Threads and processes


def test_each_thread_is_an_owner(shared: ManagerClient) -> None:
    """A stock server knows threads by their connections: an RLock is that of the thread that took it."""
    lock = shared.rlogin()
    refused: list[bool] = []
    with lock, lock:
        with running(lambda: refused.append(lock.acquire(False))):
            pass
    with running(lambda: refused.append(lock.acquire(False) and lock.release())):
        pass
    assert refused == [False, None]


def test_the_connection_of_a_thread_ends_with_it(shared: ManagerClient) -> None:
    """Threads that come and go leave no connections."""
    counter = shared.counter()
    counter.add()
    behind: Any = shared._home
    wires = behind.server()._here().wires
    before = len(wires)
    for _ in range(3):
        with running(counter.add):
            pass
    assert len(wires) == before
    assert counter.add() == 5


def test_a_forked_child_has_references_of_its_own(shared: ManagerClient) -> None:
    """A child that uses a proxy keeps the object; one that does not is no trouble to its parent."""
    counter = shared.counter()
    counter.add()
    to_child, from_parent = os.pipe()
    to_parent, from_child = os.pipe()
    before = objects(shared)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            assert counter.add() == 2
            os.write(from_child, b"1")
            assert os.read(to_child, 1)
            assert counter.add() == 3
            shared.close()
            status = 0
        finally:
            os._exit(status)
    assert os.read(to_parent, 1)
    del counter
    assert objects(shared) == before  # the child's
    os.write(from_parent, b"1")
    assert os.waitpid(pid, 0)[1] == 0
    assert objects(shared) == before - 1
    for descriptor in (to_child, from_parent, to_parent, from_child):
        os.close(descriptor)
    assert shared.counter().add() == 1


CHILD = """
import os, sys, registry
shared = registry.connect(sys.argv[1], sys.argv[2])
counter = shared.counter()
counter.add()
pid = os.fork()
if pid == 0:
    counter.add()
    sys.exit()
assert os.waitpid(pid, 0)[1] == 0
print(counter.add(), shared.statistics()["objects"])
"""


def test_what_a_process_had_goes_at_its_end(stock: Stock, shared: ManagerClient) -> None:
    """A program that ends in order, and a child of it that does, give up their references, and only theirs."""
    before = objects(shared)
    with Script(CHILD, stock.url, KEY.decode()) as script:
        assert script.line() == f"3 {before + 1}"
        assert script.wait() == 0
    assert objects(shared) == before


PARENT = """
import multiprocessing, sys, registry

def work(counter, answers):
    answers.put(counter.add())

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[2])
    with registry.connect(sys.argv[1]) as shared:
        counter, answers = shared.counter(), context.Queue()
        for _ in range(2):
            process = context.Process(target=work, args=(counter, answers))
            process.start()
            print(answers.get())
            process.join()
        rows = shared.statistics()["debug_info"].split("\\n")
        (mine,) = [row for row in rows if row.split(":")[0].strip() == counter._ident]
        print(mine.rpartition(" ")[2])
"""


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_proxy_is_an_argument_of_a_process(
    stock: Stock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """However it is started, a child of `multiprocessing` uses it, and gives up the reference that it has taken."""
    (tmp_path / "key").write_bytes(KEY)
    (tmp_path / "key").chmod(0o600)
    monkeypatch.setenv("REGISTRY_AUTHKEY_FILE", str(tmp_path / "key"))
    (tmp_path / "parent.py").write_text(PARENT)
    command = [sys.executable, str(tmp_path / "parent.py"), stock.url, method]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, timeout=50)
    assert (done.stdout.split(), done.stderr) == (["1", "2", "refcount=1"], "")


# Silence, interruptions, ends


@pytest.fixture
def paused() -> Iterator[Stock]:
    """Return a server that is stopped at the end if it was not before."""
    with Stock() as server:
        yield server


def test_a_server_that_stands_still_is_given_up(paused: Stock) -> None:
    """Neither a call, nor a question, nor the end of a proxy waits for ever; afterwards all goes on."""
    with connect(paused.url, KEY, timeout=0.2) as client:
        counter, other = client.counter(), client.counter()
        assert counter.add() == 1
        paused.signal(signal.SIGSTOP)
        with pytest.raises(OutcomeUnknown, match=r"counter\.add.*no sign of life for 0.2 seconds"):
            counter.add()
        with pytest.raises(ServerNotFound, match="accepted the connection and then said nothing"):
            client.counter()
        del other
        with pytest.raises(ServerNotFound, match="said nothing"):
            connect(paused.url, KEY, timeout=0.05)
        paused.signal(signal.SIGCONT)
        behind: Any = client._home
        behind.timeout = behind.server().timeout = 20
        assert counter.add() >= 2


def test_a_server_that_falls_silent_after_the_handshake(shared: ManagerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question that is not answered in time had no effect, and says so."""
    behind: Any = shared._home

    def silent(self: Wire, deadline: float) -> bytes:
        raise registry._transport.DeadlinePassed

    shared.counter()
    monkeypatch.setattr(Wire, "receive", silent)
    with pytest.raises(CallTimeout, match=r"dummy on server .* was not done within 3 seconds: the server is silent"):
        behind.server().ask("dummy", seconds=3)


def test_a_call_that_takes_long_is_waited_for(shared: ManagerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the server gives signs of life a call may wait as long as it likes."""
    gate, asked = shared.gate("long"), threading.Semaphore(0)
    behind: Any = shared._home
    behind.server().timeout = 0.1
    ask = StockServer.ask

    def counted(self: StockServer, function: str, *args: Any, seconds: float | None = None) -> Any:
        asked.release()
        return ask(self, function, *args, seconds=20)

    monkeypatch.setattr(StockServer, "ask", counted)
    answers: list[bool] = []
    with running(lambda: answers.append(gate.wait())):
        for _ in range(3):
            assert asked.acquire(timeout=30)
        behind.server().timeout = 20
        gate.set()
    assert answers == [True]


class Interrupt(Exception):
    """What a signal handler of a user raises."""


@pytest.mark.parametrize("error", [Interrupt, KeyboardInterrupt, TimeoutError])
def test_an_interrupted_call_does_not_answer_the_next_one(
    shared: ManagerClient, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """The connection of a call that was interrupted is of no use any more."""
    counter = shared.counter()
    assert counter.add() == 1
    receive = Wire.receive

    def interrupted(self: Wire, deadline: float) -> bytes:
        monkeypatch.setattr(Wire, "receive", receive)
        raise error

    monkeypatch.setattr(Wire, "receive", interrupted)
    with pytest.raises(error):
        counter.add(10)
    assert counter.echo("mine") == (("mine",), {})


def test_a_call_within_a_call_has_a_connection_of_its_own(
    shared: ManagerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a signal handler calls while this thread waits for a reply does not take that reply."""
    counter = shared.counter()
    assert counter.add() == 1
    receive, inner = Wire.receive, []

    def handled(self: Wire, deadline: float) -> bytes:
        monkeypatch.setattr(Wire, "receive", receive)
        inner.append(counter.echo("inner"))
        return receive(self, deadline)

    monkeypatch.setattr(Wire, "receive", handled)
    assert counter.echo("outer") == (("outer",), {})
    assert inner == [(("inner",), {})]
    assert counter.add() == 2


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_another_server_at_the_same_place_has_no_objects_of_ours(kind: str, home: Path) -> None:
    """Objects are known by addresses in memory, so what a dead server had is never asked of the next one."""
    with Stock(home / "s" if kind == "unix" else "127.0.0.1:0") as first:
        client = connect(first.url, KEY, timeout=20)
        counter, items = client.counter(), client.items()
        items["k"] = counter.add()
        with pytest.raises(OutcomeUnknown, match=r"counter\.leave on server .* the connection broke before the reply"):
            counter.leave()
        first.wait()
        with pytest.raises(ServerNotFound, match="its own program has to start a stock server"):
            items["k"]
    (home / "s").unlink(missing_ok=True)
    where = first.address if isinstance(first.address, str) else "{}:{}".format(*first.address)
    with Stock(where) as second, client:
        assert second.url == first.url
        for proxy in (counter, items):
            with pytest.raises(NoSuchObject, match="the server that had it has ended, and another one knows nothing"):
                proxy._callmethod("#GETVALUE")
        before = objects(client)
        del counter, items, proxy
        fresh = client.items()
        assert len(fresh) == 0
        assert objects(client) == before + 1


GREENLETS = """
from gevent import monkey; monkey.patch_all()
import gevent, sys, registry
with registry.connect(sys.argv[1], sys.argv[2], timeout=20) as shared:
    counter, gate, lock = shared.counter(), shared.gate("g"), shared.rlogin()
    waiters = [gevent.spawn(gate.wait) for _ in range(3)]
    with lock:
        refused = gevent.spawn(lock.acquire, False)
        refused.join()
    gate.set()
    gevent.joinall(waiters)
    print([each.value for each in waiters], refused.value, counter.add(), flush=True)
    sys.stdin.readline()
    for attempt in (counter.add, counter.add):
        try:
            attempt()
        except registry.errors.RegistryError as error:
            print(type(error).__name__, flush=True)
    print(shared.counter(4).add())
"""


def test_greenlets_are_threads(home: Path) -> None:
    """Where gevent has patched the library they wait side by side, own what they took, and see a server end."""
    pytest.importorskip("gevent")
    where = home / "s"
    with Stock(where) as first, Script(GREENLETS, first.url, KEY.decode()) as script:
        assert script.line() == "[True, True, True] False 1"
        first.kill()
        where.unlink()
        with Stock(where):
            script.say()
            assert [script.line() for _ in range(3)] == ["NoSuchObject", "NoSuchObject", "5"]
            assert script.wait() == 0


# Who is there


def test_keys_that_differ(stock: Stock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong key is told as such, and so is none."""
    with pytest.raises(AccessDenied, match=f"on server {re.escape(stock.url)}: .* has another key than this process"):
        connect(stock.url, b"wrong")
    with pytest.raises(AccessDenied, match="there is no key for stock"):
        connect(stock.url)


def test_what_is_no_stock_server(home: Path) -> None:
    """Silence, another protocol and an empty place are told apart."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"stock+tcp://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ServerNotFound, match="said nothing"):
            connect(url, KEY, timeout=0.05)
        listener.accept()[0].close()  # of that client, who has gone

        def banner() -> None:
            with listener.accept()[0] as peer:
                peer.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

        with running(banner):
            with pytest.raises(ServerNotFound, match=r"no multiprocessing server: .*SSH-2\.0-OpenSSH_9\.6"):
                connect(url, KEY)
    with pytest.raises(ServerNotFound, match=r"nothing listens there \(Connection refused\)"):
        connect(url, KEY)
    with pytest.raises(ServerNotFound, match="No such file"):
        connect(f"stock+unix://{home}/nothing", KEY)


def test_a_native_client_is_told_how_to_use_a_stock_server(stock: Stock) -> None:
    """Who gives the address without ``stock+`` is told to say so; nothing is unpickled without it."""
    assert isinstance(stock.address, tuple)
    with pytest.raises(ServerNotFound, match=f'"{re.escape(stock.url)}" is how to use one'):
        connect(stock.address, KEY)


def test_a_server_of_ours_can_be_asked_as_a_stock_server(home: Path) -> None:
    """It serves our stock client as it serves any."""
    with ManagerServer("here", KEY) as server, connect(f"stock+{server.url}", KEY, timeout=20) as client:
        prices = client.dict("prices")
        prices["BTC"] = 1
        assert list(prices) == ["BTC"]
        with client.lock("login"):
            assert not client.lock("login").acquire(False)
        with pytest.raises(KeyError):
            prices["ETH"]
        with pytest.raises(TypeError, match="has a name"):
            client.dict()


def test_a_stock_client_beside_ours(stock: Stock, shared: ManagerClient) -> None:
    """What a client of `multiprocessing` itself has done is seen, and the other way round."""

    class Manager(BaseManager):
        pass

    Manager.register("items")
    manager = Manager(stock.address, KEY)
    manager.connect()
    theirs, ours = manager.items(), shared.items()  # type: ignore[attr-defined]
    ours["mine"] = 1
    theirs.update({"theirs": 2})
    assert ours.pop("theirs") == 2
    assert theirs.pop("mine") == 1
