"""`registry.Manager()`: what a program has of it, what it does at deaths, and what it refuses."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import select
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from multiprocessing import get_context, managers
from multiprocessing.managers import BaseProxy, RemoteError, SyncManager, Token
from multiprocessing.process import current_process
from typing import Any

import pytest

import registry
from registry import ManagerServer, SharedObject, _plugins, connect, hosting, manager_class
from registry._framing import frame
from registry._peers import Peer
from registry._private import Door, Table
from registry.errors import DeclarationError, PluginError, UnknownType
from registry_multiprocessing import Queue

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="deaths are exact where the kernel has pidfds")

CONTEXTS = ("fork", "spawn", "forkserver")
CATALOGUE = (
    "Array Barrier BoundedSemaphore Condition Event JoinableQueue Lock Namespace Pool Queue RLock Semaphore Value "
    "dict list".split()
)


class Point:
    """A class that is a program's own, and nobody has declared."""

    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and other.x == self.x

    __hash__ = None  # type: ignore[assignment]


class Account:
    """A class that a program registers."""

    def __init__(self, balance: int = 0) -> None:
        self.balance = balance

    def pay(self, amount: int) -> int:
        """Pay something in."""
        self.balance += amount
        return self.balance


class Bank(manager_class("registry_multiprocessing")):  # type: ignore[misc]
    """A manager with a type of its own."""


Bank.register("Account", Account)


@pytest.fixture(autouse=True)
def no_old_connections() -> Iterator[None]:
    """Forget the connections of proxies to servers that have gone."""
    yield
    BaseProxy._address_to_local.clear()  # type: ignore[attr-defined]


@pytest.fixture
def manager() -> Iterator[Any]:
    """Start a manager."""
    with registry.Manager() as manager:
        yield manager


def client_of(manager: Any) -> registry.ManagerClient:
    """Return a client of ours of the server of a manager, as the command line is one."""
    return connect(f"unix://{manager.address}", bytes(manager._authkey))


def rows(manager: Any) -> dict[str, Any]:
    """Return what `registry objects` would show, by typeid."""
    with client_of(manager) as shared:
        return {row["typeid"]: row for row in shared.objects()}


def until(true: Callable[[], object]) -> None:
    """Look again and again until something is so; each look is a round trip to the manager, so nobody spins."""
    for _ in range(20_000):
        if true():
            return
    raise AssertionError("it never came to be so")


def run(method: str, target: Callable[..., object], *args: Any) -> None:
    """Run something in a process of its own, to its end."""
    process = get_context(method).Process(target=target, args=args)
    process.start()
    process.join()
    assert process.exitcode == 0


# What a program has


def test_it_is_the_manager_of_multiprocessing(manager: Any) -> None:
    """Code that asks for its class, or its types by name, finds them."""
    assert isinstance(manager, SyncManager)
    assert [name for name in CATALOGUE if not callable(getattr(manager, name))] == []
    assert not hasattr(manager, "Iterator") and not hasattr(manager, "AsyncResult")
    assert os.path.exists(manager.address)


@pytest.mark.parametrize("method", CONTEXTS)
def test_a_context_is_what_it_is_called_with(method: str) -> None:
    """Where a context's ``Manager()`` was called, the context is handed over, and processes of it use the manager."""
    context = get_context(method)
    with registry.Manager(ctx=context) as manager:
        assert type(manager._process) is context.Process
        found = manager.list()
        run(method, fill, found)
        assert found[:] == [1, Point(2)]


def fill(found: Any) -> None:
    """Put something into a list."""
    found.append(1)
    found.append(Point(2))


def test_values_come_out_as_plain_copies(manager: Any) -> None:
    """What is read is the reader's own, also of classes that nobody has declared."""
    points = manager.list([Point(1), {"a": [1]}])
    found = points[1]
    found["a"].append(2)
    assert type(found) is dict and points[1] == {"a": [1]}
    assert points.index(Point(1)) == 0 and points.count(Point(1)) == 1
    points.remove(Point(1))
    assert points._getvalue() == [{"a": [1]}] and type(points._getvalue()) is list
    assert type(manager.dict(a=1).copy()) is dict
    assert sorted(manager.dict(b=1, a=2)) == ["a", "b"]


def test_what_methods_return_may_be_shared(manager: Any) -> None:
    """The iterator of a dict is a proxy, as is what a pool is still working on."""
    letters = iter(manager.dict(a=1, b=2))
    assert type(letters) is managers.IteratorProxy  # type: ignore[attr-defined]
    assert list(letters) == ["a", "b"]
    with manager.Pool(1) as pool:
        assert pool.apply_async(abs, (-3,)).get(30) == 3
        assert list(pool.imap(abs, [-1, -2])) == [1, 2]


def test_proxies_show_themselves_as_there(manager: Any) -> None:
    """``str()`` is that of what is shared, ``repr()`` that of the proxy."""
    namespace, value = manager.Namespace(x=1), manager.Value("i", 3)
    assert (str(namespace), str(value)) == ("Namespace(x=1)", "Value('i', 3)")
    assert str(manager.list([1])) == "[1]"
    assert repr(value).startswith("<ValueProxy object, typeid 'Value' at 0x")
    assert repr(manager.Queue()).startswith("<AutoProxy[Queue] object, typeid 'Queue' at 0x")
    assert str(manager.Lock()) == "<unlocked Lock>"
    assert str(manager.Semaphore(2)) == "<Semaphore value=2>"


def test_a_type_may_be_registered_on_a_subclass() -> None:
    """The server knows it, whether or not its process is a copy of this one, and the class it comes from does not."""
    for method in CONTEXTS:
        with Bank(ctx=get_context(method)) as bank:
            account = bank.Account(5)
            assert account.pay(2) == 7
            assert bank.list([account])[0].pay(1) == 8
    assert not hasattr(Bank.__base__, "Account")


def test_types_of_the_standard_class_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs register types on `SyncManager` itself, since `multiprocessing.Manager` makes one."""
    monkeypatch.setattr(SyncManager, "_registry", dict(SyncManager._registry))  # type: ignore[attr-defined]
    SyncManager.register("Account", Account)
    try:
        with registry.Manager() as manager:
            assert manager.Account(1).pay(1) == 2  # type: ignore[attr-defined]
    finally:
        del SyncManager.Account  # type: ignore[attr-defined]


def test_get_server_serves_in_this_process() -> None:
    """The server listens as soon as it is there, in any thread, and others connect."""
    cls: Any = manager_class("registry_multiprocessing")
    server = cls(authkey=b"k").get_server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        manager = cls(server.address, b"k")
        manager.connect()
        assert manager.list([1])[:] == [1]
    finally:
        server.stop()
        thread.join()


def test_two_managers_of_one_program_do_not_meet(home: Any) -> None:
    """Each has an address of its own, and leaves nothing behind."""
    multiprocessing.util.get_temp_dir()
    with registry.Manager() as one, registry.Manager() as other:
        assert one.address != other.address
        places = [os.path.dirname(each.address) for each in (one, other)]
        other.dict(manager=one.list([1]))["manager"].append(2)
    assert not any(map(os.path.exists, places))
    assert list(home.iterdir()) == []


# Proxies in other processes


def test_no_pickle_of_a_proxy_has_the_key(manager: Any) -> None:
    """The key goes to children by itself; a proxy that is written down gives nothing away."""
    key = bytes(manager._authkey)
    for proxy in (manager.list(), manager.Queue(), manager.Namespace(), manager.Lock()):
        assert key not in pickle.dumps(proxy)


def echo(box: Any, here: Any) -> None:
    """Use what comes out of a queue and a pipe."""
    box.get().append("by queue")
    pickle.loads(here.recv_bytes()).append("by pickle")


@pytest.mark.parametrize("method", CONTEXTS)
def test_a_proxy_works_wherever_it_arrives(method: str) -> None:
    """By a queue, by a pickle, in a container: it finds the key of its family."""
    context = get_context(method)
    with registry.Manager(ctx=context) as manager:
        found, box = manager.list(), manager.Queue()
        box.put(found)
        here, there = context.Pipe()
        here.send_bytes(pickle.dumps(found))
        run(method, echo, box, there)
        assert found[:] == ["by queue", "by pickle"]
        here.close()
        there.close()


def test_a_proxy_in_an_object_keeps_what_it_stands_for(manager: Any) -> None:
    """What is known by other objects alone is there, and goes with the last of them."""
    outer = manager.dict(inner=manager.list([manager.Value("i", 7)]))
    assert outer["inner"][0].value == 7
    assert set(rows(manager)) == {"dict", "list", "Value"}
    assert rows(manager)["list"]["ephemeral"] is True
    del outer["inner"]
    assert set(rows(manager)) == {"dict"}


def test_what_is_handed_on_is_there_when_it_arrives(manager: Any) -> None:
    """An item that has left its queue lives until the taker's own proxy of it does."""
    box = manager.Queue()
    for n in range(20):
        box.put(manager.list([n]))
    assert [box.get()[0] for _ in range(20)] == list(range(20))
    assert set(rows(manager)) == {"Queue"}


def test_a_long_chain_of_objects_goes_at_once(manager: Any) -> None:
    """Each is known by the next alone, and all go with the last."""
    last = manager.list()
    for _ in range(300):
        last = manager.list([last])
    with client_of(manager) as shared:
        assert len(shared.objects()) == 301
        del last
        assert shared.objects() == []


# Deaths


def hold(*args: Any) -> None:
    """Acquire everything, say so, and wait to be killed."""
    *held, pipe = args
    pipe.send([what.acquire() for what in held])
    signal.pause()


def await_it(what: Any, pipe: Any) -> None:
    """Wait for something that does not come."""
    pipe.send("about to")
    pipe.send(what())


def killed(method: str, target: Callable[..., object], *args: Any, when: Callable[[], object] = lambda: True) -> None:
    """Start a process, kill it once it has said something and `when` is so, and have it gone."""
    context = get_context(method)
    here, there = context.Pipe()
    process = context.Process(target=target, args=(*args, there))
    process.start()
    here.recv()
    until(when)
    process.kill()
    process.join()
    here.close()
    there.close()


@pytest.mark.parametrize("method", CONTEXTS)
def test_a_killed_holder_frees_what_it_held(method: str) -> None:
    """Whoever waits has it next, and it is whole again: it can be given back as often as it was taken."""
    with registry.Manager(ctx=get_context(method)) as manager:
        held = [getattr(manager, name)() for name in ("Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition")]
        killed(method, hold, *held)
        for what in held:
            assert what.acquire() is True
            what.release()
        for what in held:
            if "<Semaphore" not in str(what):
                with pytest.raises((RuntimeError, ValueError)):
                    what.release()


def test_a_release_in_the_place_of_the_dead_does_no_harm(manager: Any) -> None:
    """Programs that knew of locks which stay locked may release them; once, and only what was the dead's."""
    lock, slots, plain = manager.Lock(), manager.BoundedSemaphore(2), manager.Semaphore(1)
    for what in (lock, slots, plain):
        killed("fork", hold, what)
        until(lambda what=what: "unlocked" in str(what) or "value=2" in str(what) or "value=1" in str(what))
        what.release()
    with pytest.raises(RuntimeError, match="release unlocked lock"):
        lock.release()
    with pytest.raises(ValueError, match="too many times"):
        slots.release()
    assert str(plain) == "<Semaphore value=1>"


def test_a_semaphore_of_news_invents_none(manager: Any) -> None:
    """One that began with 0 counts what others have told; the death of who has heard it tells nothing."""
    news = manager.Semaphore(0)
    news.release()
    killed("fork", hold, news)
    until(lambda: "references=1," in manager._debug_info())  # those of the child have gone
    assert news.acquire(False) is False


@pytest.mark.parametrize("typeid", ["Lock", "RLock", "Semaphore", "Condition"])
def test_a_killed_waiter_leaves_the_line(manager: Any, typeid: str) -> None:
    """What it waited for goes to somebody who lives."""
    what, told = getattr(manager, typeid)(), manager.list()
    what.acquire()
    killed("fork", await_it, what.acquire)
    process = multiprocessing.Process(target=tell, args=(what, told))
    process.start()
    what.release()
    process.join()
    assert told[:] == [True]


def tell(what: Any, told: Any) -> None:
    """Acquire something, and note that."""
    with what:
        told.append(True)


def wait_at(news: Any, pipe: Any) -> None:
    """Wait at a condition."""
    with news:
        pipe.send("about to")
        news.wait()


def test_a_notification_of_the_dead_goes_to_the_next(manager: Any) -> None:
    """Who was notified and is killed before it could go on has somebody else go on in its place."""
    news, heard = manager.Condition(), manager.list()

    def wait() -> None:
        with news:
            heard.append(news.wait(30))

    thread = threading.Thread(target=wait)

    def notified() -> bool:
        until(lambda: waiting(manager) == 1)
        thread.start()
        until(lambda: waiting(manager) == 2)
        news.acquire()
        news.notify()
        return True

    killed("fork", wait_at, news, when=notified)
    until(lambda: waiting(manager) == 0)  # neither waits for news, and the lock is ours
    news.release()
    thread.join()
    assert heard[:] == [True]


def test_a_condition_may_have_a_lock_of_the_manager(manager: Any) -> None:
    """It is the object that is locked, also for who uses the lock by itself, and a death frees it."""
    for lock in (manager.Lock(), manager.RLock()):
        news = manager.Condition(lock)
        with news:
            assert "<locked" in str(lock)
            assert news.wait(0.001) is False
        killed("fork", hold, news)
        assert lock.acquire() is True
        lock.release()


def test_an_item_is_not_given_to_a_dead_waiter(manager: Any) -> None:
    """A process that is killed while it waits for an item takes none."""
    box = manager.Queue()
    killed("fork", await_it, box.get, when=lambda: waiting(manager) == 1)
    until(lambda: waiting(manager) == 0)
    box.put("item")
    assert box.get(timeout=30) == "item"


def waiting(manager: Any) -> int:
    """Return how many threads of the server wait for a client."""
    with client_of(manager) as shared:
        return sum(row["waiting"] for row in shared.objects())


def test_a_barrier_breaks_when_a_party_dies(manager: Any) -> None:
    """The others do not wait for who cannot come."""
    gate = manager.Barrier(3)
    broken: queue.Queue[object] = queue.Queue()

    def wait() -> None:
        try:
            broken.put(gate.wait())
        except threading.BrokenBarrierError as error:
            broken.put(error)

    thread = threading.Thread(target=wait)
    thread.start()
    killed("fork", await_it, gate.wait, when=lambda: gate.n_waiting == 2)
    assert isinstance(broken.get(timeout=30), threading.BrokenBarrierError)
    thread.join()
    assert gate.broken is True


def keep(what: Any, pipe: Any) -> None:
    """Make more proxies of something, and of things of one's own, and wait to be killed."""
    kept = [pickle.loads(pickle.dumps(what)) for _ in range(3)]
    pipe.send(len(kept))
    signal.pause()


@pytest.mark.parametrize("method", CONTEXTS)
def test_a_killed_process_leaves_no_references(method: str) -> None:
    """An object goes with the last proxy, also if that was lost by a kill."""
    with registry.Manager(ctx=get_context(method)) as manager, client_of(manager) as shared:
        what = manager.list([manager.Value("i", 1)])
        killed(method, keep, what)
        del what
        until(lambda: shared.objects() == [])
        assert manager._number_of_objects() == 0


PROGRAM = """
import multiprocessing, signal, sys, registry
if __name__ == "__main__":
    manager = registry.Manager(ctx=multiprocessing.get_context(sys.argv[1]))
    kept = manager.list()
    print(manager._process.pid, flush=True)
    signal.pause()
"""


@pytest.mark.parametrize("method", CONTEXTS)
def test_a_killed_program_leaves_no_server(method: str, tmp_path: Any) -> None:
    """The server ends with the process that has started it."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    program = subprocess.Popen([sys.executable, str(path), method], stdout=subprocess.PIPE, text=True)
    try:
        assert program.stdout is not None
        pidfd = os.pidfd_open(int(program.stdout.readline()))
        assert select.select([pidfd], [], [], 0)[0] == []
        program.kill()
        assert select.select([pidfd], [], [], 30)[0] == [pidfd]
        os.close(pidfd)
    finally:
        program.kill()
        program.communicate()


def test_an_interrupted_wait_is_taken_back(manager: Any) -> None:
    """The next call of that thread gets its own reply, and what it had waited for goes to others."""
    box, other = manager.Queue(), manager.list([1])
    box.empty()  # so that this thread has a connection
    box._tls.connection.send((box._id, "get", (), {}))  # what an interrupted call has left
    until(lambda: waiting(manager) == 1)
    assert other[0] == 1
    box.put("item")
    assert box.get(timeout=30) == "item"


def test_a_reply_that_nobody_has_read_is_undone(manager: Any) -> None:
    """An item whose taker has closed its connection without it is the next one."""
    box = manager.Queue()
    box.put("item")
    line = box._Client(manager.address, authkey=manager._authkey)
    managers.dispatch(line, None, "accept_connection", ("other",))  # type: ignore[attr-defined]
    line.send((box._id, "get", (), {}))
    assert line.poll(30)
    line.close()
    assert box.get(timeout=30) == "item"


# Bad input


def ask(manager: Any, method: str, *args: object) -> Any:
    """Ask the server something, as a stock client does."""
    with manager._Client(manager.address, authkey=manager._authkey) as line:
        return managers.dispatch(line, None, method, args)  # type: ignore[attr-defined]


def test_what_is_not_exposed_is_refused(manager: Any) -> None:
    """The error is that of the standard manager; its text says what there is, and nothing has changed."""
    numbers = manager.list([1])
    with pytest.raises(RemoteError, match=r"AttributeError: shared list:\w+ exposes no '__class__'; it has __add__"):
        numbers._callmethod("__class__")
    with pytest.raises(RemoteError, match="exposes no 'clear_all'"):
        numbers._callmethod("clear_all", ())
    with pytest.raises(RemoteError, match="shares no attribute '__dict__', since names with _ in front"):
        manager.Namespace(x=1)._callmethod("__getattribute__", ("__dict__",))
    with pytest.raises(RemoteError, match="cannot pickle"):
        manager.Lock()._getvalue()
    assert numbers[:] == [1]


def test_an_unknown_object_is_refused(manager: Any) -> None:
    """The error is that of the standard manager; its text names what was asked for, and nothing is made."""
    with pytest.raises(RemoteError, match="KeyError: no object list:beef in this manager: it went with its last proxy"):
        ask(manager, "incref", "list:beef")
    with pytest.raises(RemoteError, match="KeyError: no object None in this manager"):
        ask(manager, "decref", None)
    with pytest.raises(RemoteError, match="KeyError: no type 'Nothing' in this manager, which has Array"):
        ask(manager, "create", "Nothing")
    with pytest.raises(RemoteError, match="AttributeError: 'serve_client' is no function of a manager's server"):
        ask(manager, "serve_client")
    assert manager._number_of_objects() == 0


def test_a_token_of_an_earlier_life_is_refused(home: Any) -> None:
    """An ident is never used again, so an old proxy never reaches another object by accident."""
    cls: Any = manager_class("registry_multiprocessing")
    with cls(str(home / "here"), b"k") as earlier:
        token = Token("list", earlier.address, earlier.list([1])._id)
    BaseProxy._address_to_local.clear()  # type: ignore[attr-defined]
    with cls(str(home / "here"), b"k") as later:
        kept = later.list([2])
        with pytest.raises(RemoteError, match="or with an earlier server"):
            managers.ListProxy(token, "pickle", authkey=b"k")
        stale = managers.ListProxy(token, "pickle", authkey=b"k", incref=False)  # type: ignore[call-arg]
        with pytest.raises(RemoteError, match="or with an earlier server"):
            stale.append(3)
        assert kept[:] == [2]


def give_back(manager_address: Any, ident: str, pipe: Any) -> None:
    """Give back a reference that another process has."""
    with managers.listener_client["pickle"][1](manager_address, authkey=current_process().authkey) as line:  # type: ignore[attr-defined]
        line.send((None, "decref", (ident,), {}))
        pipe.send(line.recv())


def test_a_reference_of_another_process_is_not_given_back(manager: Any) -> None:
    """Whoever has none can give none back: an object does not go under its users' hands."""
    numbers = manager.list([1])
    here, there = multiprocessing.Pipe()
    run("spawn", give_back, manager.address, numbers._id, there)  # a fork would have its own reference
    kind, text = here.recv()
    assert kind == "#TRACEBACK" and f"has no reference to {numbers._id}" in text
    assert numbers[:] == [1]
    here.close()
    there.close()


def test_garbage_closes_its_connection_only(manager: Any) -> None:
    """What is no request is answered or cut, and the others go on."""
    numbers = manager.list([1])
    with manager._Client(manager.address, authkey=manager._authkey) as line:
        line.send_bytes(b"no pickle")
        assert line.recv()[0] == "#TRACEBACK"
    with manager._Client(manager.address, authkey=manager._authkey) as line:
        line.send((1, 2))
        assert line.recv()[0] == "#TRACEBACK"
    with manager._Client(manager.address, authkey=manager._authkey) as line:
        os.write(line.fileno(), b"\xff\xff\xff\xfe")
        with pytest.raises((EOFError, ConnectionError)):
            line.recv()
    assert numbers[:] == [1]


class Wire:
    """A connection of the loop that notes what is sent."""

    sock = None

    def __init__(self) -> None:
        self.sent = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        """Take what is sent."""
        self.sent += data

    def end(self) -> None:
        """Note that it is closed."""
        self.closed = True

    def hand_over(self) -> Any:
        """Be nobody's, since no thread may have it."""
        raise AssertionError("handed over")


class Opened:
    """A class that notes when one of its instances is unpickled."""

    times = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return Opened._made, ()

    @staticmethod
    def _made() -> None:
        Opened.times += 1


def test_a_stranger_s_pickle_is_not_opened() -> None:
    """A peer that is not of the server's user is told why it is not served, whatever key it has."""
    server: Any = types.SimpleNamespace(trust="uid", url="unix:///here", host=None)
    wire = Wire()
    arrival = Door(server, Table({}, "/here", b"k")).accept(Peer("unix", uid=12345), None, "", wire)
    arrival.feed(frame(pickle.dumps((None, "create", ("list", Opened()), {}))))
    kind, text = pickle.loads(wire.sent[4:])
    assert (kind, wire.closed, Opened.times) == ("#TRACEBACK", True, 0)
    assert text == "unix:///here takes pickles only from processes of its own user, since a pickle runs code\n"


def test_what_cannot_be_pickled_is_said(manager: Any) -> None:
    """A result that cannot cross is an error of the standard manager's kind, and the connection goes on."""
    numbers = manager.dict()
    with pytest.raises((pickle.PicklingError, AttributeError)):
        numbers["f"] = lambda: 1
    assert numbers.copy() == {}
    with pytest.raises(RemoteError, match="cannot pickle"):
        manager.Event()._getvalue()


# For this family alone


def test_native_clients_see_and_call_nothing(manager: Any) -> None:
    """What it serves are objects of one program; others look at them, and that is all."""
    kept = manager.list()
    with client_of(manager) as shared:
        assert [str(row) for row in shared.objects()] != []
        with pytest.raises(UnknownType):
            shared.list("numbers")
    assert len(kept) == 0


def test_another_server_does_not_serve_these_types() -> None:
    """Their meaning is that of multiprocessing, and their values are pickles of one family."""
    with pytest.raises(PluginError, match=r"registry\.Manager\(\) starts their server"):
        ManagerServer(plugins=_plugins.load(["registry_multiprocessing"]))
    assert "registry_multiprocessing" not in {plugin.name for plugin in _plugins.load().plugins}


def test_a_proxy_says_everything_about_its_type() -> None:
    """A declaration with a proxy is threaded, of one call, and has no exposed methods of its own."""
    good: dict[str, Any] = {"per": "call", "threaded": True, "proxy": managers.ListProxy}
    assert SharedObject("numbers", list, **good).interface.exposed == ()
    for more in ({"threaded": False}, {"per": "name"}, {"exposed": ["append"]}, {"shape": "sequence"}):
        with pytest.raises(DeclarationError, match=r"numbers\.proxy belongs to a type that is threaded"):
            SharedObject("numbers", list, **{**good, **more})
    with pytest.raises(DeclarationError, match=r"numbers\.proxy must be a class of proxies"):
        SharedObject("numbers", list, **{**good, "proxy": "ListProxy"})


def test_a_visit_is_made_by_a_server_alone() -> None:
    """Its objects, used elsewhere, say so; what does not wait works."""
    with pytest.raises(RuntimeError, match=r"hosting\.visit\(\) works only where a private server calls"):
        hosting.visit()
    box = Queue()
    box.put(1)
    with pytest.raises(RuntimeError, match="private server"):
        box.get()
    assert hosting.referent(box) is box
