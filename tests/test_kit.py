"""The kit: servers with the plugins named and no others, clients that are processes, and what happens to both."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from types import ModuleType
from typing import Any

import kit_classes
import parcel_plugin
import pytest
from kit_classes import SEATS

import registry
from registry import ManagerClient, SharedObject
from registry.errors import PluginError, StateLost
from registry.testing import Client, Server, until

linux = pytest.mark.skipif(sys.platform != "linux", reason="what Linux tells of processes")


@pytest.fixture(params=["thread", "process"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Serve the seats, in both ways."""
    with Server(SEATS, process=request.param == "process") as server:
        yield server


@pytest.fixture
def shared(server: Server) -> ManagerClient:
    """Return a client of this process."""
    return server.connect()


def waiting(shared: ManagerClient, number: int = 1) -> None:
    """Wait until so many wait for a seat."""
    until(lambda: len(shared.statistics(shared.seats("room"))["waiters"]) == number)


# -- servers


@pytest.mark.parametrize("plugin", [SEATS, kit_classes, "kit_classes", kit_classes.__file__])
def test_a_server_has_the_plugins_named_and_no_others(plugin: Any) -> None:
    """However they are named, on a thread and in a process."""
    for process in (False, True):
        with Server(plugin, "registry_sync", process=process) as server, server.connect() as shared:
            types = shared.statistics()["types"]
            assert "seats" in types and "lock" in types and "dict" not in types
            assert shared.seats("room", count=2).left() == 2


@pytest.mark.parametrize("plugin", [parcel_plugin, "parcel_plugin", parcel_plugin.__file__])
@pytest.mark.parametrize("process", [False, True], ids=["thread", "process"])
def test_clients_know_what_the_plugins_declare_of_values(plugin: Any, process: bool) -> None:
    """Classes that the server's plugins declare cross to its clients, which name no plugin themselves."""
    with Server(plugin, process=process) as server:
        assert server.client().run(parcel_plugin.put, 1, 12) == parcel_plugin.Parcel(12)
        assert server.connect().depot("north").everything() == [parcel_plugin.Parcel(12)]
        assert server.connect(plugins=()).depot("north").everything()  # this process has heard of it by now


def test_a_server_of_a_test_meets_no_other(home: Path) -> None:
    """It keeps nothing in the home of named servers, and leaves nothing behind."""
    with Server(SEATS, log="process") as server, server.connect() as shared:
        shared.seats("room").take()
        directory = server._directory
        assert (directory / "place" / "epoch").exists()
        assert not any(home.iterdir())
    assert not directory.exists()


def test_two_servers_are_two() -> None:
    """Tests may run at once, and one test may have several."""
    with Server(SEATS) as one, Server(SEATS) as two:
        one.connect().seats("room").take()
        assert two.connect().seats("room").left() == 1


def test_a_server_may_have_a_name() -> None:
    """Then it is what code finds that connects by the name, with nothing given to it."""
    with Server(SEATS, address="scrapers") as server:
        with registry.connect("scrapers", start=False) as shared:
            shared.seats("room").take()
        assert server.connect().statistics()["name"] == "scrapers"


def test_a_plugin_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    """It is told where the server is made, whether it is a thread or a process; nothing is left of it."""
    file = tmp_path / "broken.py"
    file.write_text("raise RuntimeError('as always')")
    for process in (False, True):
        with pytest.raises(PluginError, match="as always"), Server(str(file), process=process):
            pass
    local = SharedObject("seats", lambda: 1, exposed=["bit_length"])
    with pytest.raises(PluginError, match="a server of another process cannot find it"), Server(local, process=True):
        pass


def test_what_a_server_process_cannot_import_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class of a module that only this process has is named."""
    module = ModuleType("only_here")
    module.Only = type("Only", (), {"get": lambda self: 1, "__module__": "only_here"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "only_here", module)
    only = SharedObject[Any]("only", module.Only)
    with pytest.raises(RuntimeError, match="ModuleNotFoundError: No module named 'only_here'"):
        Server(only, process=True).start()


def test_a_server_goes_on_after_a_restart(server: Server, shared: ManagerClient) -> None:
    """At the same address; without a log all is gone, as who had changed something is told."""
    shared.seats("room").take()
    url = server.url
    server.restart()
    assert server.url == url
    with pytest.raises(StateLost):
        shared.seats("room").left()
    assert shared.seats("room").left() == 1


@pytest.mark.parametrize("log", ["process", "disk"])
def test_a_server_with_a_log_can_be_killed(log: Any) -> None:
    """Who holds something does so after it, and a wait that was under way ends in the next life."""
    with Server(SEATS, process=True, log=log) as server:
        shared = server.connect()
        one, two = server.clients(2)
        seat = one.run(kit_classes.take)
        late = two.submit(kit_classes.take)
        waiting(shared)
        server.kill()
        server.start()
        shared.seats("room").leave(seat)
        assert late.result() != seat


def test_a_server_on_tcp_keeps_its_port() -> None:
    """A port that was free in the first life is that of the next ones."""
    with Server(SEATS, address="tcp://127.0.0.1:0") as server:
        url, shared = server.url, server.connect()
        server.restart()
        assert server.url == url != "tcp://127.0.0.1:0"
        assert shared.seats("room").left() == 1


def test_a_thread_can_be_neither_killed_nor_paused() -> None:
    """What cannot be done is said, with the cure, and nothing happens."""
    with Server(SEATS) as server, server.connect() as shared:
        for function in (server.kill, server.pause, server.resume):
            with pytest.raises(RuntimeError, match=r"make it Server\(\.\.\., process=True\)"):
                function()
        assert shared.seats("room").left() == 1


def test_a_server_that_is_stopped_says_so() -> None:
    """Before `start`, and after `stop`, there is nothing to cut."""
    server = Server(SEATS)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"stopped> does not run: start\(\) it first"):
            server.cut()
        server.start().start()
        server.stop(), server.stop()
    server.close()


# -- what happens to it


def test_connections_are_cut_and_made_again(server: Server, shared: ManagerClient) -> None:
    """A call that waits goes on waiting, and the session is the same."""
    seat = shared.seats("room").take()
    client = server.client()
    late = client.submit(kit_classes.take)
    waiting(shared)
    for _ in range(3):
        server.cut()
        waiting(shared)
    shared.seats("room").leave(seat)
    assert late.result() > seat


def test_nobody_gets_through_for_a_while(server: Server, shared: ManagerClient) -> None:
    """Calls wait at the door; who was connected is away meanwhile, and keeps what it has."""
    seat = shared.seats("room").take()
    client = server.client()
    with server.unreachable():
        found = client.submit(kit_classes.left)
        with pytest.raises(registry.errors.ServerNotFound):
            registry.connect(server.url, server.authkey, timeout=0.1)
        assert not found.done()
    assert found.result() == 0
    shared.seats("room").leave(seat)
    assert client.run(kit_classes.left) == 1


def test_time_goes_by(server: Server, shared: ManagerClient) -> None:
    """Deadlines of objects and of waits come at once, one after the other; nobody is taken for dead."""
    client = server.client()
    seats = shared.seats("room", seconds=1000.0)
    seats.take()
    early, late = (server.client() for _ in range(2))
    patient = late.submit(kit_classes.take)
    waiting(shared)
    hasty = early.submit(kit_classes.take, timeout=500.0)
    waiting(shared, 2)
    server.advance(600)
    assert hasty.result() is None
    assert not patient.done()
    server.advance(600)
    assert patient.result()
    server.advance(0)
    assert client.run(kit_classes.left) == 0
    with pytest.raises(ValueError, match="time goes forward only, not by -1 seconds"):
        server.advance(-1)


@pytest.mark.parametrize("address", [None, "tcp://127.0.0.1:0"])
def test_a_lease_runs_out_for_who_is_away(address: str | None) -> None:
    """A client that stands still behind a cut network is dead when its lease is over, and others are not."""
    with Server(SEATS, address=address) as server:
        shared = server.connect()
        client = server.client()
        client.run(kit_classes.take)
        client.pause()
        server.cut()
        assert shared.seats("room").left() == 0  # which makes this one come back
        server.advance(29)
        assert shared.seats("room").left() == 0
        server.advance(2)
        assert shared.seats("room").left() == 1
        client.resume()
        with pytest.raises(StateLost):
            client.run(kit_classes.left)


def test_a_server_that_stands_still_is_waited_for() -> None:
    """Nothing is answered until it goes on."""
    with Server(SEATS, process=True) as server:
        client = server.client()
        server.pause()
        found = client.submit(kit_classes.left)
        with pytest.raises(futures.TimeoutError):
            found.result(0.1)
        server.resume()
        assert found.result() == 1


def test_a_server_that_stands_still_can_be_ended() -> None:
    """At the end of its block it goes, whatever the test has left it in."""
    with Server(SEATS, process=True) as server:
        server.pause()


# -- clients


def test_clients_are_processes(server: Server) -> None:
    """Each is one of its own, and another session of the server."""
    clients = server.clients(3)
    pids = {client.run(kit_classes.pid) for client in clients}
    assert pids == {client.pid for client in clients}
    assert len(pids) == 3 and os.getpid() not in pids


def test_clients_of_this_process_are_sessions_of_their_own(server: Server, shared: ManagerClient) -> None:
    """For the server each is somebody else; who connects in another way shares nothing with them."""
    other = server.connect()
    plain = ManagerClient(server.url, server.authkey)
    with shared, other, plain:
        assert len({id(client._home.link()) for client in (shared, other, plain)}) == 3
        seat = shared.seats("room").take()
        other.close()
        assert plain.seats("room").left() == 0
        shared.close()
        until(lambda: plain.seats("room").left() == 1)
        assert seat


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_is_another_session(server: Server, shared: ManagerClient) -> None:
    """A client with a session of its own begins another one in a child, as every client does."""
    shared.seats("room").take()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            status = shared.seats("room").left()
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert shared.seats("room").left() == 0


@linux
def test_who_is_killed_is_dead_at_once(server: Server, shared: ManagerClient) -> None:
    """What it held goes to the next in line; what it was asked for fails, and so does all that comes later."""
    one, two = server.clients(2)
    one.run(kit_classes.take)
    late = two.submit(kit_classes.take)
    waiting(shared)
    hangs = one.submit(kit_classes.take)
    waiting(shared, 2)
    one.kill()
    assert late.result()
    for future in (hangs, one.submit(kit_classes.left)):
        with pytest.raises(ChildProcessError, match=rf"client process {one.pid} was killed by SIGKILL"):
            future.result()
    with pytest.raises(ChildProcessError):
        one.run(kit_classes.left)
    assert repr(one) == f"<client process {one.pid}, ended>"


@linux
def test_who_stands_still_keeps_what_it_has(server: Server, shared: ManagerClient) -> None:
    """A process that is paused is no dead one."""
    client = server.client()
    client.run(kit_classes.take)
    client.pause()
    late = client.submit(kit_classes.left)
    assert shared.seats("room").left() == 0
    assert not late.done()
    client.resume()
    assert late.result() == 0


def test_a_client_ends_in_order(server: Server, shared: ManagerClient) -> None:
    """What it was asked for is done first, and what it had is free without anybody's having to miss it."""
    with server.client() as client:
        asked = [client.submit(kit_classes.take, name) for name in "abc"]
    assert all(future.result() for future in asked)
    until(lambda: shared.seats("a").left() == 1)
    with pytest.raises(ChildProcessError, match="ended with status 0"):
        client.run(kit_classes.left)


def test_errors_come_back(server: Server) -> None:
    """As themselves, with a note that tells where; and what cannot cross is told."""
    client = server.client()
    with pytest.raises(KeyError, match="'gone'") as caught:
        client.run(kit_classes.fail, "gone")
    if sys.version_info >= (3, 11):
        assert "in the client's process:" in caught.value.__notes__[0]
        assert "in fail" in caught.value.__notes__[0]
    with pytest.raises(TypeError):  # pickle needs two arguments to make it again
        client.run(kit_classes.fail_oddly)
    with pytest.raises(TypeError, match="cannot be returned to another process"):
        client.run(kit_classes.give)
    assert client.run(kit_classes.left) == 1


def test_what_another_process_cannot_call_is_refused(server: Server) -> None:
    """A function without a name, an argument that cannot be pickled: said here, and nothing is sent."""
    client = server.client()

    def inside(shared: ManagerClient) -> None:
        """Be out of reach."""

    with pytest.raises(TypeError, match=r"inside has no name at the top of a module: put it there"):
        client.run(inside)
    with pytest.raises(TypeError, match=r"<lambda> has no name at the top of a module"):
        client.run(lambda shared: None)
    with pytest.raises(TypeError, match="another process cannot be given this"):
        client.run(kit_classes.take, threading.Lock())  # type: ignore[arg-type]
    assert client.run(kit_classes.left) == 1


def test_a_process_that_ends_by_itself_is_told(server: Server) -> None:
    """With its status, whatever was under way."""
    client = server.client()
    with pytest.raises(ChildProcessError, match="ended with status 3"):
        client.run(kit_classes.end, 3)


def test_what_a_function_prints_comes_between_nothing(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    """It goes where errors go, and there is nothing to read."""
    with server.client() as client:
        assert client.run(kit_classes.speak) == ""
    assert "a line" in capfd.readouterr().err


def test_a_client_that_cannot_connect_is_told(server: Server) -> None:
    """The error of connecting is raised where the client is made, and no process is left."""
    server.authkey = b"another"
    with pytest.raises(registry.errors.AccessDenied):
        server.client()
    with pytest.raises(registry.errors.AccessDenied):
        server.connect()


PROGRAM = """
from registry import SharedObject
from registry.testing import Server

class Box:
    def __init__(self): self.content = None
    def put(self, value): self.content = value
    def get(self): return self.content

class Thing:
    pass

BOX = SharedObject("box", Box, readonly=["get"], carried=["put.value"])

def put(shared, value):
    shared.box("b").put(value)
    return value

if __name__ == "__main__":
    with Server(BOX, process=True) as server, server.client() as client:
        assert type(client.run(put, Thing())) is Thing
        assert type(server.connect().box("b").get()).__name__ == "Thing"
    print("done")
"""


def test_a_program_may_be_its_own_test(tmp_path: Path) -> None:
    """Functions and classes of the program that runs are found by its file."""
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    done = subprocess.run([sys.executable, "-W", "error", str(file)], capture_output=True, text=True, timeout=50)
    assert (done.stdout, done.stderr) == ("done\n", "")


# -- waiting for something


def test_until_returns_what_was_said() -> None:
    """The first answer that is true."""
    answers = iter([0, [], None, "so"])
    assert until(lambda: next(answers)) == "so"


def test_until_gives_up() -> None:
    """It says how long it has asked, and what the last answer was."""
    with pytest.raises(TimeoutError, match=r"within 0.01 seconds; the last answer was \[\]"):
        until(list, timeout=0.01)


def test_an_interrupted_program_leaves_no_processes(tmp_path: Path) -> None:
    """Servers and clients end with the program that has made them, whatever ends it."""
    code = """
import sys
from registry.testing import Server
server = Server("registry_sync", process=True).start()
client = server.client()
print(client.pid, server._life._process.pid, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        pids = list(map(int, program.stdout.readline().split()))
        program.send_signal(signal.SIGKILL)
    until(lambda: not any(map(_runs, pids)))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_names_of_the_kit_are_public() -> None:
    """They are found at the top, and say so where they are shown."""
    assert registry.testing.__all__ == sorted(registry.testing.__all__, key=lambda name: (name[0].islower(), name))
    for name in registry.testing.__all__:
        assert getattr(registry.testing, name) is not None
        assert name in dir(registry.testing)
    assert Client.__module__ == Server.__module__ == "registry.testing"
    with pytest.raises(AttributeError, match=r"module 'registry.testing' has no attribute 'serve'"):
        registry.testing.serve
