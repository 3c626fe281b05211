"""Roles: what each may do of each type, by every kind of client, and that what is denied leaves no trace."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from multiprocessing.connection import Client as StockConnection
from multiprocessing.managers import dispatch
from pathlib import Path
from typing import Any

import msgspec
import pytest
from loops import in_loop
from servers import another, until
from test_host import IDENTITY, Pipe, define
from things import ALL, COOKIES

from registry import ManagerClient, ManagerServer, SharedObject, _codec, _image, _plugins, _wire, aio, cli, connect
from registry._host import Host
from registry._rights import ROLES
from registry._wire import DELETE, OPERATORS, RELEASE, Kind
from registry.aio._bridge import run as in_task
from registry.errors import AccessDenied, LockLost, NoSuchObject, StateLost, UnknownType

pytestmark = pytest.mark.once

FIRST_PARTY = ("registry_arrays", "registry_containers", "registry_queues", "registry_sync")
KEYS = {role: f"the key of {role} in these tests".encode() for role in ROLES}
BESIDE = {role: KEYS[role] for role in ("read", "write")}
DECLARATIONS = _plugins.load(only=FIRST_PARTY, extra=ALL).declarations
ARGUMENTS = {"barrier": (2,), "latch": (1,)}  # of the types that cannot be made without
START = 1000.0

Cell = tuple[str, str, str]  # type, method, the least role that may call it


def cells(declarations: dict[str, SharedObject[Any]] | Any = DECLARATIONS) -> Iterator[Cell]:
    """Tell what each method of each type takes, from the declarations alone."""
    for typeid, declaration in declarations.items():
        for method in declaration.interface.exposed:
            yield typeid, method, "read" if method in declaration.readonly else "write"
        yield typeid, DELETE, "write" if declaration.per == "call" else "admin"
        yield typeid, RELEASE, "admin"


def may(role: str, needed: str) -> bool:
    return ROLES.index(role) >= ROLES.index(needed)


def name_of(typeid: str) -> str:
    return "" if DECLARATIONS[typeid].per == "server" else "x"


def said(title: str, method: str, needed: str, role: str) -> str:
    """What a client is told, from the name of the object to the cure."""
    able = {"write": "'write' or 'admin'", "admin": "'admin'"}[needed]
    return (
        f"{title}.{method.removeprefix('#')}() takes the role '{needed}', and the key that this process has shown "
        f"gives '{role}'; nothing was done. Connect with a key that gives {able}: by authkey=, or by the file that "
        "REGISTRY_AUTHKEY_FILE names"
    )


# -- each cell, in a host without sockets -----------------------------------------------------------------------------


class Of(Pipe):
    """A client of a role, of another user."""

    def __init__(self, host: Host, role: str, number: int = 1, domain: str = "") -> None:
        self.role = role
        super().__init__(host, number, domain)

    def connect(self) -> None:
        self.late += self.wire
        self.wire = []
        self.generation += 1
        self.attachment = self.attachment_of()
        self.reader = _wire.Reader()
        self.defined = set()
        hello = _wire.Attach(self.key, self.pid or 0, "", "test", "", "1", 0, {})
        self.send(Kind.ATTACH, 0, _wire.encode(hello), received=0)
        self.flush()

    def attachment_of(self) -> Any:
        from registry._attachments import Attachment

        return Attachment(self.domain, f"client {self.key[-1]}", self.pid, role=self.role)


@pytest.fixture
def host() -> Host:
    """A host of all types, with one object of each that can be there."""
    host = Host(DECLARATIONS, IDENTITY, seed=b"seed", now=START)
    maker = Of(host, "admin", 9)
    for typeid, declaration in DECLARATIONS.items():
        if not declaration.threaded:
            method = next(iter(declaration.readonly), declaration.interface.exposed[0])
            maker.call(f"{typeid}:{name_of(typeid)}{define(*ARGUMENTS.get(typeid, ()))}", method)
    maker.flush()
    assert len(host.engine.objects) == sum(not each.threaded for each in DECLARATIONS.values())
    return host


def call(pipe: Pipe, typeid: str, method: str, *args: object) -> Any:
    """Make a call, and return what came of it; an error as a value, None while it waits."""
    seq = pipe.call(f"{typeid}:{name_of(typeid)}", method, *args)
    pipe.flush()
    return pipe.outcomes.get(seq)


@pytest.mark.parametrize(("typeid", "method", "needed"), list(cells()))
@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_call_what_it_may_and_nothing_else(
    host: Host, role: str, typeid: str, method: str, needed: str
) -> None:
    """A denied call leaves state, log, sessions and objects as they were; a reader's leaves them so in any case."""
    pipe = Of(host, role)
    before, index = _image.capture(host.engine), host.engine.index
    outcome = call(pipe, typeid, method)
    if may(role, needed):
        assert not isinstance(outcome, AccessDenied)
    else:
        assert isinstance(outcome, AccessDenied)
        title = typeid if DECLARATIONS[typeid].per == "server" else f"{typeid}:x"
        assert outcome.reason == said(title, method, needed, role)
    if role == "read" or not may(role, needed):
        assert _image.capture(host.engine) == before
        assert host.engine.index == index
        # Its handle is good for what it may do.
        readonly = next(iter(DECLARATIONS[typeid].readonly), None)
        if readonly is not None:
            assert not isinstance(call(pipe, typeid, readonly), AccessDenied)


@pytest.mark.parametrize("typeid", DECLARATIONS)
def test_a_reader_makes_nothing(typeid: str) -> None:
    """A name that nothing has is an error, whatever is asked of it, and stays free."""
    host = Host(DECLARATIONS, IDENTITY, seed=b"seed", now=START)
    pipe = Of(host, "read")
    before = _image.capture(host.engine)
    for method in DECLARATIONS[typeid].readonly:
        outcome = call(pipe, typeid, method)
        if DECLARATIONS[typeid].threaded:
            continue
        assert isinstance(outcome, NoSuchObject)
        assert "nothing has that name, and the role 'read' makes nothing" in outcome.reason
        assert "with a key that gives 'write' or 'admin'" in outcome.reason
    assert _image.capture(host.engine) == before
    assert host.objects() == []


def test_what_no_type_has_is_told_before_rights() -> None:
    """A type that is misspelled is no question of rights."""
    host = Host(DECLARATIONS, IDENTITY, seed=b"seed", now=START)
    pipe = Of(host, "read")
    seq = pipe.call("dixt:x", "get", "BTC")
    pipe.flush()
    assert isinstance(pipe.outcomes[seq], UnknownType)


def test_a_denied_call_that_comes_again_is_denied_again(host: Host) -> None:
    """Over a connection that failed, too: the same answer, and still no event."""
    pipe = Of(host, "write")
    call(pipe, "counter", "incr")
    index = host.engine.index
    seq = pipe.call("counter:x", DELETE)
    pipe.deliver()  # the reply is lost with its connection
    pipe.connect()
    pipe.send_call(seq)
    pipe.flush()
    assert isinstance(pipe.outcomes[seq], AccessDenied)
    assert host.engine.index == index


def test_denied_calls_that_are_never_acknowledged_are_bounded(host: Host) -> None:
    """Refusals are kept until they are received, and so they count as what is unanswered."""
    pipe = Of(host, "read")
    with pytest.raises(_wire.ProtocolError, match="more than 4096 calls"):
        for _ in range(_wire.IN_FLIGHT + 1):
            pipe.call("counter:x", "incr")
            pipe.deliver()
            pipe.attachment.outbox.clear()


@pytest.mark.parametrize("undo", [False, True])
def test_a_reader_s_cancel_is_no_event(host: Host, undo: bool) -> None:
    """Whatever it cancels had no effect, and that is what it is told."""
    pipe = Of(host, "read")
    before = _image.capture(host.engine)
    pipe.pending[7] = ("counter:x", "get", b"", {})
    pipe.cancel(7, undo)
    pipe.send(Kind.OWNER_ENDED, 0, _wire.encode(1))
    pipe.flush()
    assert pipe.outcomes[7] == "cancelled"
    pipe.send(Kind.GOODBYE, 0)
    pipe.flush()
    assert pipe.key not in host.clients
    assert _image.capture(host.engine) == before


@pytest.mark.parametrize("role", ROLES)
def test_questions_take_the_role_that_the_table_says(role: str) -> None:
    """What is not known to be harmless takes all rights, as a question of a later version would."""
    asked: list[str] = []
    control: dict[str, Callable[..., object]] = {
        verb: (lambda verb=verb: asked.append(verb)) for verb in ("stop", "log", "reboot")
    }
    control["about"] = lambda: {
        "changed": ["/srv/x.py"],
        "python": "/usr/bin/python",
        "code": {"x": "1"},
        "state": "/s",
    }
    host = Host(DECLARATIONS, IDENTITY, seed=b"seed", now=START, control=control)
    pipe = Of(host, role)
    for verb in ("status", "objects", "locks", "about", "stop", "log", "reboot"):
        seq, pipe.next = pipe.next, pipe.next + 1
        pipe.pending[seq] = (verb, "", b"", {})
        body = _wire.ControlBody(verb, msgspec.Raw(_codec.encode([[], {}])))
        pipe.send(Kind.CONTROL, seq, _wire.encode(body))
        pipe.flush()
        outcome = pipe.outcomes[seq]
        if role != "admin" and verb in control and verb != "about":
            assert isinstance(outcome, AccessDenied)
            assert outcome.reason.startswith(f"the question '{verb}' takes the role 'admin', and the key")
        else:
            assert not isinstance(outcome, Exception)
    assert asked == (["stop", "log", "reboot"] if role == "admin" else [])


# -- sessions keep their role -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("had", "has"), [("write", "admin"), ("admin", "write"), ("write", "read"), ("read", "write")])
def test_a_session_keeps_its_role(host: Host, had: str, has: str) -> None:
    """Who comes back by another key does not get it, does not fence its connection, and may come back by the first."""
    pipe = Of(host, had)
    call(pipe, "lock", "acquire" if had != "read" else "locked")
    before, attachment, client = _image.capture(host.engine), pipe.attachment, host.clients[pipe.key]
    pipe.role = has
    pipe.connect()
    assert pipe.attached is not None
    assert not pipe.attached.resumed
    assert f"has the role '{had}', and the key that was shown now gives '{has}'" in pipe.attached.denied
    assert client.attachment is attachment
    assert (client.role, client.generation) == (had, 1)
    assert _image.capture(host.engine) == before
    pipe.role = had
    pipe.connect()
    assert pipe.attached.resumed
    assert not pipe.attached.denied


def test_the_role_of_a_session_survives_its_server() -> None:
    """It is state, so that a session which a log tells of is nobody's to be raised."""
    host = Host(DECLARATIONS, IDENTITY, seed=b"seed", now=START)
    pipe = Of(host, "write")
    call(pipe, "lock", "acquire")
    engine = _image.restore(DECLARATIONS, _image.capture(host.engine))
    pipe.host = Host(DECLARATIONS, IDENTITY, seed=b"seed", now=START, engine=engine)
    pipe.role = "admin"
    pipe.connect()
    assert pipe.attached is not None
    assert "has the role 'write'" in pipe.attached.denied
    pipe.role = "write"
    pipe.connect()
    assert not pipe.attached.denied
    assert isinstance(call(pipe, "lock", DELETE), AccessDenied)


def test_sessions_of_an_earlier_format_have_the_role_of_the_one_key() -> None:
    """What a server of an earlier version has left goes on."""
    host = Host(DECLARATIONS, IDENTITY, seed=b"seed", now=START)
    pipe = Of(host, "admin")
    call(pipe, "lock", "acquire")
    tree: Any = _codec.decode(_image.capture(host.engine))
    assert [session.pop() for session in tree[4]] == ["admin"]
    engine = _image.restore(DECLARATIONS, _codec.canonical([4, *tree[1:]]))
    assert _image.capture(engine) == _image.capture(host.engine)


# -- real clients -----------------------------------------------------------------------------------------------------


@pytest.fixture
def server(home: Path) -> Iterator[ManagerServer]:
    """Serve ``x`` with a key for each role."""
    with ManagerServer("x", KEYS["admin"], plugins=ALL, roles=BESIDE) as server:
        yield server


@pytest.fixture
def objects(server: ManagerServer) -> Iterator[dict[str, str]]:
    """Make an object of each type; return their names."""
    names: dict[str, str] = {}
    with connect("x", KEYS["admin"]) as admin:
        for typeid, declaration in DECLARATIONS.items():
            arguments = ("x",) if declaration.per == "name" else ()
            remote = admin.open(typeid, *arguments, *ARGUMENTS.get(typeid, ()))._remote
            with contextlib.suppress(Exception):
                remote.invoke("greet" if declaration.threaded else next(iter(declaration.readonly), "bump"))
            names[typeid] = remote.name
        assert len(admin.objects()) == len(DECLARATIONS)
        yield names


def state(server: ManagerServer) -> tuple[bytes, int, list[list[object]]]:
    """Return what the server holds, while nobody calls."""
    return _image.capture(server.host.engine), server.host.engine.index, server.host.objects()


def denied(role: str) -> list[Cell]:
    return [cell for cell in cells() if not may(role, cell[2])]


@pytest.mark.parametrize("role", ["read", "write"])
def test_a_client_is_denied_what_its_role_may_not(server: ManagerServer, objects: dict[str, str], role: str) -> None:
    """Each cell, over a socket: the error names the call, the right, the role and the server; nothing has changed."""
    before = state(server)
    with connect("x", KEYS[role]) as shared:
        assert shared.statistics()["role"] == role
        for typeid, method, needed in denied(role):
            remote = shared._home.find(typeid, objects[typeid])._remote
            with pytest.raises(AccessDenied) as caught:
                remote.invoke(method, (0,) if method == RELEASE else ())
            assert caught.value.reason == said(remote.title, method, needed, role)
            assert str(caught.value).startswith(f"access denied on server 'x' (pid {server.host.identity.pid}, since ")
        if role == "read":
            for typeid, method in [(typeid, method) for typeid, method, needed in cells() if needed == "read"]:
                with contextlib.suppress(TypeError, LookupError, ValueError):  # of arguments that are not there
                    shared._home.find(typeid, objects[typeid])._remote.invoke(method)
    assert state(server) == before


@pytest.mark.parametrize("role", ["read", "write"])
@in_loop
async def test_a_client_of_a_loop_is_denied_what_its_role_may_not(
    server: ManagerServer, objects: dict[str, str], role: str
) -> None:
    """The same where verbs are awaited."""
    before = state(server)
    async with aio.connect("x", KEYS[role]) as shared:
        for typeid, method, needed in denied(role):
            arguments = (objects[typeid],) if objects[typeid] and DECLARATIONS[typeid].per == "name" else ()
            part = await shared.open(typeid, *arguments)._part()
            with pytest.raises(AccessDenied) as caught:
                await in_task(part.remote.invoke, method)
            assert caught.value.reason == said(part.remote.title, method, needed, role)
    assert state(server) == before


@pytest.mark.parametrize("role", ["read", "write"])
def test_a_stock_client_is_denied_what_its_role_may_not(
    server: ManagerServer, objects: dict[str, str], role: str
) -> None:
    """By the key that it has shown; what nobody can call by its name is told as ever."""
    _, _, objects["ticket"] = once(server, "write", "create", "ticket")[0].partition(":")
    before = state(server)
    with StockConnection(server.address, authkey=KEYS[role]) as connection:
        dispatch(connection, None, "accept_connection", ("reader",))
        for typeid, method, needed in denied(role):
            ident = f"{typeid}:{objects[typeid]}"
            if method in OPERATORS:
                with pytest.raises(Exception, match="exposes no '#"):
                    dispatch(connection, ident, method)
                continue
            with pytest.raises(PermissionError) as caught:
                dispatch(connection, ident, method)
            assert said(ident.removesuffix(":"), method, needed, role) in str(caught.value)
    assert state(server) == before


def once(server: ManagerServer, role: str, function: str, *args: object) -> Any:
    """Ask a function of a stock server on a connection of its own."""
    with StockConnection(server.address, authkey=KEYS[role]) as connection:
        return dispatch(connection, None, function, args)


def test_a_stock_reader_finds_and_makes_nothing(server: ManagerServer, objects: dict[str, str]) -> None:
    """It gets a proxy of what is there, counts nothing and keeps nothing alive, and may not stop the server."""
    before = state(server)
    assert once(server, "read", "create", "dict", "x")[0] == "dict:x"
    with pytest.raises(LookupError, match=r"no object dict:y on server x: .* the role 'read' makes nothing"):
        once(server, "read", "create", "dict", "y")
    with pytest.raises(LookupError, match="the role 'read' makes nothing"):
        once(server, "read", "create", "ticket")
    ident, _ = once(server, "write", "create", "ticket")
    counted = server.stock.references[ident]
    once(server, "read", "incref", ident)
    once(server, "read", "decref", ident)
    assert server.stock.references[ident] == counted
    once(server, "write", "decref", ident)  # what a call has made goes with its last proxy, by whom it is for
    assert ident not in server.stock.references
    for role in ("read", "write"):
        with pytest.raises(PermissionError, match=r"the function 'shutdown' takes the role 'admin'.*gives '" + role):
            once(server, role, "shutdown")
    for function in ("dummy", "number_of_objects", "debug_info"):
        once(server, "read", function)
    with StockConnection(server.address, authkey=KEYS["read"]) as connection:
        dispatch(connection, None, "accept_connection", ("reader",))
        for method in ("#GETVALUE", "__str__", "__repr__"):
            assert str(dispatch(connection, "dict:x", method)) == "{}"
    assert state(server)[2] == before[2]
    assert once(server, "admin", "shutdown") is None


def test_a_process_with_two_keys_has_two_stock_sessions(server: ManagerServer) -> None:
    """A connection by the key of readers does not get the session in which its process writes."""
    once(server, "write", "create", "dict", "x")
    with StockConnection(server.address, authkey=KEYS["read"]) as connection:
        dispatch(connection, None, "accept_connection", ("MainThread",))
        with pytest.raises(PermissionError, match="takes the role 'write'"):
            dispatch(connection, "dict:x", "__setitem__", ("BTC", 1))
        with StockConnection(server.address, authkey=KEYS["write"]) as other:
            dispatch(other, None, "accept_connection", ("MainThread",))
            dispatch(other, "dict:x", "__setitem__", ("BTC", 1))
        assert dispatch(connection, "dict:x", "get", ("BTC",)) == 1
    roles = sorted(client.role for client in server.host.clients.values())
    assert roles == ["read", "write"]


# -- commands ---------------------------------------------------------------------------------------------------------


Captured = pytest.CaptureFixture[str]


@pytest.fixture
def as_role(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> Callable[..., tuple[int, str, str]]:
    """Run a command by the key of a role; return how it ended, and what it said."""
    monkeypatch.setattr(sys, "stdin", StringIO())

    def run(role: str, *words: str) -> tuple[int, str, str]:
        path = tmp_path / f"{role}.key"
        path.write_bytes(KEYS[role])
        path.chmod(0o600)
        monkeypatch.setenv("REGISTRY_AUTHKEY_FILE", str(path))
        capsys.readouterr()
        code = cli.run([*words, "-a", "x"])
        done = capsys.readouterr()
        return code, done.out, done.err

    return run


@pytest.mark.parametrize("role", ["read", "write"])
def test_a_command_is_denied_what_its_role_may_not(
    server: ManagerServer, objects: dict[str, str], as_role: Callable[..., tuple[int, str, str]], role: str
) -> None:
    """Exit code 4, before anybody is asked whether it may be done, and nothing is."""
    before = state(server)
    for typeid, method, needed in denied(role):
        title = f"{typeid}:{objects[typeid]}" if objects[typeid] else typeid
        words = [method[1:], title] if method in OPERATORS else ["call", title, method]
        code, out, err = as_role(role, *words)
        assert (code, out) == (4, ""), err
        if method in OPERATORS:
            what, needed = f'"registry {method[1:]}"', "admin"  # whatever it is used on
        else:
            what = f"{title}.{method}()"
        assert f"{what} takes the role '{needed}', and the key that this process has shown gives '{role}'" in err
    for words in (["stop"], ["restart"]):
        code, _, err = as_role(role, *words)
        assert code == 4
        assert f"\"registry {words[0]}\" takes the role 'admin'" in err
    assert state(server) == before


def test_commands_that_look_are_a_reader_s(
    server: ManagerServer, objects: dict[str, str], as_role: Callable[..., tuple[int, str, str]]
) -> None:
    """And tell which role it is."""
    for words in (["objects"], ["locks"], ["call", "counter:x", "get"]):
        assert as_role("read", *words)[0] == 0
    code, out, _ = as_role("read", "status")
    assert code == 0
    assert re.search("^role +read; there are keys for admin, read, write$", out, re.MULTILINE)
    found = json.loads(as_role("write", "status", "--json")[1])
    assert (found["role"], found["roles"]) == ("write", ["admin", "read", "write"])
    assert "it gives the role 'read': this process may look, and change nothing" in as_role("read", "doctor")[1]
    assert "it gives the role 'write': this process may do all but delete" in as_role("write", "doctor")[1]


# -- what a reader has of the rest ------------------------------------------------------------------------------------


def test_a_reader_s_cache_is_coherent(server: ManagerServer) -> None:
    """It hits as anybody's, and misses what somebody has changed."""
    with connect("x", KEYS["write"]) as writer, connect("x", KEYS["read"]) as reader:
        writer.dict("prices")["BTC"] = 1
        prices = reader.dict("prices")
        assert prices["BTC"] == 1
        calls = server.host.calls
        if reader._home.link().words is not None:
            assert [prices["BTC"] for _ in range(5)] == [1] * 5
            assert server.host.calls == calls
        writer.dict("prices")["BTC"] = 2
        assert prices["BTC"] == 2
        assert len(server.host.engine.sessions) == 1


def test_a_reader_is_told_once_that_an_object_is_gone(server: ManagerServer) -> None:
    """And that it makes no other one."""
    with connect("x", KEYS["admin"]) as admin, connect("x", KEYS["read"]) as reader:
        admin.counter("hits").incr()
        hits = reader.counter("hits")
        assert hits.get() == 1
        admin.delete(admin.counter("hits"))
        with pytest.raises(NoSuchObject, match="it was deleted$"):
            hits.get()
        with pytest.raises(NoSuchObject, match="the role 'read' makes nothing"):
            hits.get()
        with connect("x", KEYS["write"]) as writer:
            writer.counter("hits").incr(5)
        assert hits.get() == 5


def test_a_threaded_object_is_made_by_writers(home: Path) -> None:
    """A reader calls the methods without effect of one that is there."""
    from things import Slow

    slow = SharedObject("slow", Slow, threaded=True, readonly=("greet",))
    with ManagerServer("x", KEYS["admin"], plugins=[slow], roles=BESIDE), connect("x", KEYS["read"]) as reader:
        with pytest.raises(NoSuchObject, match="the role 'read' makes nothing"):
            reader.slow("s").greet()
        with connect("x", KEYS["write"]) as writer:
            assert writer.slow("s").greet() == "hello"
        assert reader.slow("s").greet() == "hello"
        with pytest.raises(AccessDenied, match="takes the role 'write'"):
            reader.slow("s").fail()


def cut(server: ManagerServer) -> None:
    """End all connections, on the server's own thread."""
    for connection in list(server._connections):
        connection.abort()


def test_a_session_comes_back_by_the_key_that_it_had(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file with its key has been given another one meanwhile: it is denied, and its lock goes with its lease."""
    path = tmp_path / "key"
    path.write_bytes(KEYS["write"])
    path.chmod(0o600)
    monkeypatch.setenv("REGISTRY_AUTHKEY_FILE", str(path))
    with ManagerServer("x", KEYS["admin"], roles=BESIDE) as server:
        with connect("x") as shared, another("x", KEYS["admin"]) as admin:
            lock = shared.lock("login")
            lock.acquire()
            path.write_bytes(KEYS["read"])
            server._post(lambda: cut(server))
            until(lambda admin: admin.statistics()["sessions"] == 2, admin)
            with pytest.raises(AccessDenied, match="has the role 'write', and the key that was shown now gives 'read'"):
                shared.counter("hits").incr()
            assert admin.lock("login").locked()
            path.write_bytes(KEYS["write"])
            lock.release()
            assert not admin.lock("login").locked()


def test_a_session_that_is_lost_begins_anew_with_another_role(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the server has nothing of it, nothing is kept: its client is told of the loss, then of its rights."""
    path = tmp_path / "key"
    path.write_bytes(KEYS["write"])
    path.chmod(0o600)
    monkeypatch.setenv("REGISTRY_AUTHKEY_FILE", str(path))
    shared = ManagerClient("x", start=False)
    with shared:
        with ManagerServer("x", KEYS["admin"], roles=BESIDE):
            shared.counter("hits").incr()
        path.write_bytes(KEYS["read"])
        with ManagerServer("x", KEYS["admin"], roles=BESIDE):
            with pytest.raises((StateLost, LockLost)):
                shared.counter("hits").incr()
            with pytest.raises(AccessDenied, match="takes the role 'write'"):
                shared.counter("hits").incr()


def test_memory_servers_have_one_role() -> None:
    """Who has such a server is alone with it."""
    with connect("memory://") as shared:
        shared.counter("hits").incr()
        assert shared.statistics()["role"] == "admin"
        shared.delete(shared.counter("hits"))


# -- keys -------------------------------------------------------------------------------------------------------------


def test_roles_are_known_ones_with_keys() -> None:
    """What is wrong is told at once."""
    with pytest.raises(ValueError, match="'read' and 'write', and authkey is that of 'admin'; not 'reed'"):
        ManagerServer("x", roles={"reed": b"k"})
    with pytest.raises(ValueError, match="not 'admin'"):
        ManagerServer("x", roles={"admin": b"k"})
    with pytest.raises(ValueError, match="authkey is empty"):
        ManagerServer("x", roles={"read": b""})
    with pytest.raises(TypeError, match="the key of the role 'read' must be bytes or text, not None"):
        ManagerServer("x", roles={"read": None})  # type: ignore[dict-item]


@pytest.mark.parametrize("roles", [{"read": b"one key", "write": b"one key"}, {"read": KEYS["admin"]}])
def test_two_roles_have_two_keys(home: Path, roles: dict[str, bytes]) -> None:
    """Or nobody could tell which is meant; nothing is left behind."""
    server = ManagerServer("x", KEYS["admin"], roles=roles)
    with pytest.raises(AccessDenied, match=r"the roles '\w+' and '\w+' of x have one key"):
        server.start()
    assert not (home / "x" / "socket").exists()


def test_a_weak_key_of_a_role_is_as_weak(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Refused where other hosts can connect, remarked where none can."""
    with caplog.at_level(logging.WARNING), ManagerServer("x", KEYS["admin"], roles={"read": "secret"}):
        assert "the key of the role 'read' is one that everybody tries first" in caplog.text
    server = ManagerServer("tcp://0.0.0.0:0", KEYS["admin"], roles={"read": "secret"}, insecure_network=True)
    with pytest.raises(AccessDenied, match="the key of the role 'read', which other hosts can reach, is one that"):
        server.start()


def test_a_type_that_no_server_has_is_unknown_to_a_reader(server: ManagerServer) -> None:
    """As to anybody."""
    with connect("x", KEYS["read"]) as reader, pytest.raises(UnknownType):
        reader.open(COOKIES, "x").all()
