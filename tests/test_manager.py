"""The generated manager class: its server, its proxies, and other processes that have to find it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from multiprocessing import AuthenticationError, ProcessError, get_context
from multiprocessing.managers import BaseManager, BaseProxy
from multiprocessing.process import current_process
from pathlib import Path
from typing import Any

import pytest

from registry import SharedObject, connect, manager_class
from registry.errors import PluginError

PLUGINS = ("registry_containers", "registry_queues", "registry_sync")
CONTEXTS = [name for name in ("fork", "spawn", "forkserver") if name in multiprocessing.get_all_start_methods()]

Manager: Any = manager_class(*PLUGINS)

FAMILY = ["barrier", "bounded_semaphore", "condition", "event", "latch", "lock", "rlock", "rwlock", "semaphore"]


class Jar:
    """Keep what it is given."""

    def __init__(self, first: object = None) -> None:
        self.content = first

    def get(self) -> object:
        """Return what is kept."""
        return self.content


JAR = SharedObject("jar", Jar, per="call", readonly=("get",))


class Mine(manager_class("registry_sync")):  # type: ignore[misc]
    """A subclass that has a name of its own."""


@pytest.fixture(autouse=True)
def no_old_connections() -> Iterator[None]:
    """Forget the connections of proxies to servers that have gone."""
    yield
    BaseProxy._address_to_local.clear()  # type: ignore[attr-defined]


def take_lock(lock: Any, pipe: Any) -> None:
    """Hold a lock in a process of its own, until killed."""
    lock.acquire()
    pipe.send("held")
    signal.pause()


def note(path: str) -> None:
    """Leave the number of this process in a file."""
    Path(path).write_text(str(os.getpid()))


def fail() -> None:
    """Fail as an initializer."""
    raise ValueError("no")


# The class


def test_it_is_a_base_manager_with_explicit_types() -> None:
    """Each type has callable, proxy type and exposed methods, and `BaseManager` itself is left alone."""
    assert issubclass(Manager, BaseManager)
    assert sorted(Manager._registry) == sorted(["counter", "dict", "list", "queue", "set", *FAMILY])
    for factory, exposed, method_to_typeid, proxytype in Manager._registry.values():
        assert callable(factory)
        assert set(exposed) & {"get", "append", "add", "acquire", "release", "wait"}
        assert method_to_typeid is None
        assert issubclass(proxytype, BaseProxy)
    assert BaseManager._registry == {}  # type: ignore[attr-defined]


def test_it_is_made_of_exactly_the_plugins_given() -> None:
    """Plugins that are not named are not in it, and one that is not there is an error."""
    assert sorted(manager_class("registry_sync")._registry) == FAMILY  # type: ignore[attr-defined]
    with pytest.raises(PluginError, match="no_such_plugin"):
        manager_class("no_such_plugin")


def test_it_is_pickled_as_what_it_is_made_of() -> None:
    """A class without a name is made again of its plugins; a subclass has a name."""
    again = pickle.loads(pickle.dumps(Manager))
    assert sorted(again._registry) == sorted(Manager._registry)
    assert pickle.loads(pickle.dumps(Mine)) is Mine


def test_a_callable_cannot_be_registered_afterwards() -> None:
    """The error names what to do; without a callable it is a client's registration, which works."""
    with pytest.raises(TypeError, match=r"SharedObject\('extra', Jar\)"):
        Manager.register("extra", Jar)

    class Client(Manager):  # type: ignore[misc]
        pass

    Client.register("elsewhere")
    assert hasattr(Client, "elsewhere")
    assert not hasattr(Manager, "elsewhere")


def test_only_pickle_is_spoken() -> None:
    """The other serializer of multiprocessing is refused when the manager is made."""
    with pytest.raises(ValueError, match="xmlrpclib"):
        Manager(serializer="xmlrpclib")


# A server process


@pytest.mark.parametrize("method", CONTEXTS)
def test_start_works_with_every_start_method(method: str, tmp_path: Path) -> None:
    """The server's process finds the plugins by name, whether or not it is a copy of this one."""
    manager = Manager(ctx=get_context(method))
    manager.start(note, (str(tmp_path / "pid"),))
    try:
        prices = manager.dict("prices")
        prices["BTC"] = 1
        with manager.lock("prices"):
            assert prices.copy() == {"BTC": 1}
        server = int((tmp_path / "pid").read_text())
        assert server != os.getpid()
    finally:
        manager.shutdown()
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)
    assert not isinstance(manager.address, str) or not os.path.exists(manager.address)
    with pytest.raises(ProcessError):
        manager.start()


def test_a_manager_is_a_context() -> None:
    """``with`` starts it and shuts it down, and its address is final meanwhile."""
    with Manager(("127.0.0.1", 0)) as manager:
        host, port = manager.address
        assert (host, port > 0) == ("127.0.0.1", True)
        assert manager.counter("visits").incr() == 1
        assert manager.queue("q").empty()
    with pytest.raises(ConnectionError):
        socket.create_connection((host, port), 1)


def test_ctrl_c_does_not_end_the_server() -> None:
    """SIGINT goes to all processes of a terminal; the server's is ended by its manager alone."""
    with Manager() as manager:
        os.kill(manager._process.pid, signal.SIGINT)
        assert manager.counter("visits").incr() == 1


def test_a_plugin_without_a_name_works_where_the_process_is_copied() -> None:
    """A factory inside a function can only be forked; the error of the others says so."""

    class Local:
        def get(self) -> int:
            """Return one."""
            return 1

    cls: Any = manager_class(SharedObject("local", Local))
    with cls(ctx=get_context("fork")) as manager:
        assert manager.local("x").get() == 1
    with pytest.raises(PluginError, match="fork"):
        cls(ctx=get_context("spawn")).start()


def test_what_stops_the_server_is_raised_here(home: Path) -> None:
    """An address that is taken is an error of ``start()``, as is an initializer that fails."""
    with Manager(str(home / "taken")):
        with pytest.raises(OSError, match="served already"):
            Manager(str(home / "taken")).start()
    with pytest.raises(TypeError):
        Manager().start(initializer=3)
    with pytest.raises(ProcessError):
        Manager().start(fail)


def test_an_address_may_be_a_url(home: Path) -> None:
    """URLs are for people; the manager and its tokens have the form of multiprocessing."""
    with Manager(f"unix://{home}/here") as manager:
        assert manager.address == f"{home}/here"
        assert manager.lock("l")._token.address == f"{home}/here"


def test_the_private_address_leaves_nothing_behind(home: Path) -> None:
    """A server that nobody looks for keeps its files with its socket, not among those with names."""
    with Manager() as manager:
        manager.lock("l").acquire()
    assert list(home.iterdir()) == []


# A server in this process


def test_get_server_serves_in_this_process() -> None:
    """The server listens as soon as it is there, and serves until it is shut down."""
    server = Manager(authkey=b"k").get_server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        manager = Manager(server.address, b"k")
        manager.connect()
        manager.dict("d")["k"] = 1
        with pytest.raises(ProcessError):
            manager.get_server()
        with pytest.raises(AuthenticationError):
            Manager(server.address, b"other").connect()
        with connect(server.url, b"k") as shared:
            assert shared.dict("d")["k"] == 1
    finally:
        server.stop()
        thread.join()


# Proxies


@pytest.fixture(scope="module")
def manager() -> Iterator[Any]:
    """Run one server for the tests of proxies."""
    cls: Any = manager_class(*PLUGINS, JAR)
    key, current_process().authkey = current_process().authkey, b"shared"
    with cls(authkey=b"shared") as manager:
        yield manager
    current_process().authkey = key


def test_proxies_have_the_methods_of_their_type(manager: Any) -> None:
    """What is exposed is there, special methods included, and nothing that is not."""
    d = manager.dict("methods")
    d["a"] = 1
    assert "a" in d
    assert list(d) == ["a"]
    assert len(d) == 1
    assert str(d) == "{'a': 1}"
    assert not hasattr(d, "owner_ended")
    assert type(d).__name__ == "DictProxy"
    counter = manager.counter("methods")
    assert (counter.incr(), int(counter)) == (1, 1)


def test_a_lock_is_a_context(manager: Any) -> None:
    """Proxies of locks work in a ``with`` block, and answer as the locks of multiprocessing."""
    lock = manager.lock("context")
    with lock:
        assert lock.locked() is True
        assert lock.acquire(False) is False
    assert lock.acquire() is True
    assert lock.release() is None


def test_a_named_object_outlives_its_proxies(manager: Any) -> None:
    """The name is what counts, not the proxies."""
    manager.dict("stays")["k"] = 1
    assert manager.dict("stays")["k"] == 1


def test_an_object_without_a_name_goes_with_its_proxies(manager: Any) -> None:
    """Counting is that of multiprocessing."""
    before = manager._number_of_objects()
    jar = manager.jar("full")
    other = pickle.loads(pickle.dumps(jar))
    del jar
    assert manager._number_of_objects() == before + 1
    assert other.get() == "full"
    del other
    assert manager._number_of_objects() == before


def test_a_proxy_can_be_pickled_and_put_into_a_container(manager: Any) -> None:
    """A proxy that is sent comes back as one of the same object."""
    lock, d = manager.lock("sent"), manager.dict("holder")
    again = pickle.loads(pickle.dumps(lock))
    assert type(again).__name__ == "LockProxy"
    d["lock"] = lock
    with lock:
        assert again.locked()
        assert d["lock"].locked()


@pytest.mark.parametrize("method", CONTEXTS)
def test_a_child_that_dies_frees_what_it_held(manager: Any, method: str) -> None:
    """A proxy that a child was given is the child's own: its death frees the lock, at once."""
    context = get_context(method)
    lock = manager.lock(f"child-{method}")
    here, there = context.Pipe()
    child = context.Process(target=take_lock, args=(lock, there))
    child.start()
    assert here.recv() == "held"
    assert lock.acquire(False) is False
    child.kill()
    assert lock.acquire(timeout=30) is True
    lock.release()
    child.join()
    here.close()
    there.close()


@pytest.mark.parametrize("name", ["MainThread", "Worker"])
def test_threads_have_a_connection_each(manager: Any, name: str) -> None:
    """Two threads of a process are two owners of an rlock, whatever they are called."""
    rlock = manager.rlock(f"threads-{name}")
    found: list[object] = []
    rlock.acquire()
    ask: Callable[[], None] = lambda: found.append(rlock.acquire(False))  # noqa: E731
    thread = threading.Thread(target=ask, name=name)
    thread.start()
    thread.join()
    rlock.release()
    assert found == [False]


def test_the_family_works_for_stock_clients(manager: Any) -> None:
    """Semaphores and conditions work in `with`, waits answer with plain values, errors are the standard library's."""
    slots, work = manager.semaphore("s", 2), manager.condition("c")
    start, table = manager.barrier("b", 2), manager.rwlock("t")
    with slots, slots:
        assert slots.value() == 0 and slots.acquire(False) is False
    slots.release()
    assert slots.value() == 3
    answers: list[object] = []

    def wait() -> None:
        with work:
            answers.append(work.wait_for(lambda: "ready" in answers, timeout=30))
        answers.append(start.wait())

    with work:
        assert work.wait(0.01) is False
        thread = threading.Thread(target=wait)
        thread.start()
        answers.append("ready")
        work.notify_all()
    assert start.wait(30) in (0, 1)
    thread.join()
    assert answers[1] is True and answers[2] in (0, 1)
    with pytest.raises(threading.BrokenBarrierError):
        start.wait(0)
    assert table.read() is True and table.read() is True and table.write(False) is True
    for _ in range(3):
        table.release()
    assert table.locked() is False
