"""What outsiders are told of errors and of the server: no path, no traceback, but a number that its log has."""

from __future__ import annotations

import builtins
import os
import queue
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import another
from test_groups import GROUP, USER, as_root, as_user

import registry
from registry import ManagerClient, ManagerServer, SharedObject, _codec, connect
from registry._connection import Connection
from registry._disclosure import PATH, disclosed, is_insider, number_of, public, remembered, without_paths
from registry._events import Call, Output
from registry._leaves import Parts
from registry.errors import NoSuchObject, RemoteError, StaleServer
from registry.hosting import Waiter, Waiters

KEYS = {role: f"the key of {role} in these tests".encode() for role in ("admin", "write", "read")}
HERE = os.path.abspath(__file__)
NUMBER = re.compile(r"error [0-9a-f]{8}")


# -- paths in texts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[Errno 2] No such file or directory: '/srv/app/data.db'", "[Errno 2] No such file or directory: '<path>'"),
        ("cannot read /srv/app/data.db, line 3", "cannot read <path>, line 3"),
        ("in '/home/ann/My Files/x y.db' and elsewhere", "in '<path>' and elsewhere"),
        ('in "C:\\Users\\Ann Lee\\x.db"', 'in "<path>"'),
        ("C:\\Users\\x.db is open", "<path> is open"),
        ("\\\\host\\share\\x", "<path>"),
        ("PATH=/usr/bin:/home/ann/bin", "PATH=<path>:<path>"),
        ("(/etc/passwd)", "(<path>)"),
        ("//srv/x is odd", "<path> is odd"),
        ("~/x or ~ann/y or ./z.py or ../w", "<path> or <path> or <path> or <path>"),
        ("file:///srv/x and unix:///run/y/socket", "<path> and <path>"),
        ("data/x.db is locked", "<path> is locked"),
        ("cannot import name 'x' from 'y' (/srv/y.py)", "cannot import name 'x' from 'y' (<path>)"),
        # What is no path stays.
        ("see https://example.org/a/b.html", "see https://example.org/a/b.html"),
        ("text/html at 3 km/h, and/or 1/2", "text/html at 3 km/h, and/or 1/2"),
        ("unsupported operand type(s) for /: 'int' and 'str'", "unsupported operand type(s) for /: 'int' and 'str'"),
        ("'BTC'", "'BTC'"),
        ("dict:prices was made with maxsize=5", "dict:prices was made with maxsize=5"),
        ("tcp://127.0.0.1:6000", "tcp://127.0.0.1:6000"),
    ],
)
def test_paths_are_taken_out_of_texts(text: str, told: str) -> None:
    """Of this system and of others, quoted or not; once, so that it can be done again."""
    assert without_paths(text) == told
    assert without_paths(told) == told


@given(st.lists(st.from_regex(r"[A-Za-z0-9_.-]{1,8}", fullmatch=True), min_size=1, max_size=4), st.text(max_size=3))
def test_no_absolute_path_gets_through(parts: list[str], before: str) -> None:
    """Behind a space or a quote, whatever stands before that."""
    path = "/" + "/".join(parts)
    for text in (f"{before} {path}", f"{before} '{path}'", f"{before}: {path}, at line 3"):
        assert path not in without_paths(text)


def test_what_the_caller_has_said_is_told_again() -> None:
    """A key may look like a path, and is the caller's own."""
    said = _codec.encode_arguments(("/users/ann",), {})
    assert without_paths("'/users/ann' is not in /srv/app/users.db", said) == "'/users/ann' is not in <path>"


def test_who_may_see_inside() -> None:
    """Operators wherever they are, and processes of the server's user on its host whatever they may."""
    assert is_insider("admin", "")
    assert is_insider("read", "here:1000")
    assert not is_insider("write", "")
    assert not is_insider("read", "")


def test_a_number_is_of_one_error_and_one_server() -> None:
    """It comes again with the same reply, and tells nothing to whoever does not know the key."""
    assert number_of(b"key", b"session", b"1", b"body") == number_of(b"key", b"session", b"1", b"body")
    others = [number_of(b"other", b"session", b"1", b"body"), number_of(b"key", b"session", b"2", b"body")]
    assert number_of(b"key", b"session", b"1", b"body") not in others
    assert all(NUMBER.fullmatch(each) for each in others)


def test_what_is_no_error_is_left_alone() -> None:
    """An undo that came too late brings a result, which is the caller's."""
    body = _codec.encode({"path": "/srv/app"})
    assert disclosed(body, "error 0", b"") == (body, "")


def test_an_error_that_cannot_be_made_again_is_told_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class of a plugin that has become of another mind must not end the server's turn."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError(f"no longer, says {HERE}")

    body = _codec.encode_exception(ValueError("3 is odd"))
    monkeypatch.setattr(_codec, "decode", refuse)
    told, full = disclosed(body, "error 0", b"")
    monkeypatch.undo()
    error = _codec.decode(told)
    assert isinstance(error, RemoteError)
    assert error.message == "error 0; the log of the server tells more under this number"
    assert f"no longer, says {HERE}" in full


@pytest.mark.parametrize(
    ("arguments", "kept"), [(b"small", b"small"), (b"x" * 100_000, b""), (Parts(b"h", (b"x",)), b"")]
)
def test_large_arguments_are_not_kept_for_what_may_come(arguments: bytes | Parts, kept: bytes) -> None:
    """Of its latest call an outsider costs the server a few kilobytes."""
    call = Call(now=1.0, session=1, seq=1, owner=1, typeid="t", name="n", method="m", arguments=arguments)
    assert remembered(call).arguments == kept


def test_a_place_that_is_a_path_has_no_name_for_outsiders() -> None:
    """The server of a name is known by that, any other by what its clients call it."""
    said = {"address": "unix:///run/x/socket", "name": "x", "files": "/dev/shm/registry-0-1", "plugins": {"p": "1"}}
    hidden = {"files": "", "realm": ""}
    assert public(said) == {"address": "x", "name": "x", "plugins": {"p": "1"}, **hidden}
    nameless = {**said, "name": said["address"], "plugins": {"jars of /srv/jars.py": "1"}}
    assert public(nameless) == {"address": "", "name": "", "plugins": {f"jars of {PATH}": "1"}, **hidden}
    tcp = {**said, "address": "tcp://127.0.0.1:1", "name": "tcp://127.0.0.1:1"}
    assert public(tcp) == {**tcp, **hidden}


# -- a plugin that raises all sorts -----------------------------------------------------------------------------------


class Unknown(Exception):
    """What clients have no class for."""


class Unprintable(Exception):
    """What has no text."""

    def __str__(self) -> str:
        raise OSError(2, "No such file", HERE)


def noted(error: BaseException, note: str) -> BaseException:
    error.__dict__["__notes__"] = [note]
    return error


class Bad:
    """Raise whatever one can, with paths wherever they fit."""

    def __init__(self, path: str = "") -> None:
        if path:
            raise ValueError(f"{path} is no database; the default is {HERE}")
        self.waiters = Waiters()

    def unknown(self) -> None:
        raise Unknown(f"cannot open {HERE}")

    def unprintable(self) -> None:
        raise Unprintable

    def chained(self) -> None:
        try:
            open(os.path.join(HERE, "x"))
        except OSError as error:
            raise Unknown("as above") from error

    def missing(self) -> None:
        open(HERE + ".no such file")

    def moved(self) -> None:
        os.rename(HERE + ".no", HERE + ".such")

    def imported(self) -> None:
        raise ImportError(f"cannot import name 'x' from 'y' ({HERE})", name="y", path=HERE)

    def syntax(self) -> None:
        compile("x = = 1", HERE, "exec")

    def key(self) -> None:
        raise KeyError(HERE)

    def value(self) -> None:
        raise ValueError({"in": [HERE, (HERE.encode(), 3)], HERE: {HERE}})

    def unicode(self) -> None:
        HERE.encode().join([b"\xff"] * 2).decode()

    def noted(self) -> None:
        raise noted(ValueError("3 is odd"), f"seen in {HERE}")

    def traced(self) -> None:
        import traceback

        try:
            raise Unknown("inner")
        except Unknown:
            raise RuntimeError(traceback.format_exc()) from None

    def grouped(self) -> None:
        kind: Any = getattr(builtins, "ExceptionGroup", None)  # of Python 3.11 on
        raise ValueError(HERE) if kind is None else kind("two", [ValueError(HERE), Unknown(HERE)])

    def empty(self) -> None:
        raise queue.Empty(HERE)

    def barrier(self) -> None:
        raise threading.BrokenBarrierError(HERE)

    def ours(self) -> None:
        raise NoSuchObject("jar:x", f"it is not in {HERE}")

    def remote(self) -> None:
        raise RemoteError("jar:x.get()", "other.Error", f"in {HERE}", f'Traceback ...\n  File "{HERE}", line 3')

    def exits(self) -> None:
        raise Unknown(sys.executable)

    def stuck(self) -> Waiter:
        return self.waiters.wait(0.0, otherwise=Unknown(f"nobody has come to {HERE}"))

    def unsent(self) -> object:
        return PurePosixPath(HERE)

    def forged(self, text: str) -> None:
        raise noted(ValueError(text), HERE)

    def plain(self) -> None:
        raise ValueError("3 is odd")

    def lookup(self, key: str) -> None:
        raise KeyError(key)

    def statistics(self) -> dict[str, object]:
        raise Unknown(f"no statistics in {HERE}")


class Threaded(Bad):
    """The same on threads."""

    def stuck(self) -> None:  # type: ignore[override]
        raise Unknown(HERE)


BAD = SharedObject("bad", Bad, waiting=("stuck",))
THREADED = SharedObject("threaded", Threaded, threaded=True)
HARMLESS = ("plain", "lookup", "unsent", "forged")  # what they say is for their callers
METHODS = [name for name in BAD.interface.exposed if name not in HARMLESS]


@pytest.fixture
def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ManagerServer]:
    """Serve ``x`` to clients that the kernel tells to be another user's."""
    monkeypatch.setattr(Connection, "_domain", "")
    with ManagerServer("x", KEYS["admin"], plugins=[BAD, THREADED], roles={"write": KEYS["write"]}) as server:
        yield server


def texts(error: BaseException) -> Iterator[str]:
    """Return all that an error tells."""
    yield from (str(error), repr(error), repr(error.args), repr(vars(error)))
    for name in ("filename", "filename2", "path", "msg", "text", "print_file_and_line", "object", "reason"):
        yield repr(getattr(error, name, None))
    for inner in getattr(error, "exceptions", ()):
        yield from texts(inner)


def assert_blind(error: BaseException, *roots: str) -> None:
    """Fail if an error tells a path that there is, or where code runs."""
    for text in texts(error):
        assert 'File "' not in text
        assert "Traceback" not in text
        for word in re.split(r"[\s'\"(),;:\[\]{}<>=]+", text):
            assert os.sep not in word or not os.path.exists(word), text
        for root in (HERE, os.path.dirname(HERE), sys.prefix, *roots):
            assert root not in text


def raised(function: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as caught:
        function()
    return caught.value


@pytest.mark.parametrize("typeid", ["bad", "threaded"])
@pytest.mark.parametrize("method", METHODS)
def test_an_outsider_is_told_a_number_and_the_log_the_rest(
    server: ManagerServer, home: Path, caplog: pytest.LogCaptureFixture, typeid: str, method: str
) -> None:
    """Whatever a method raises: the class, a number, no path and no traceback; the operator finds all by the number."""
    with connect("x", KEYS["write"]) as shared:
        error = raised(getattr(shared.open(typeid, "b"), method))
    assert_blind(error, str(home))
    numbers = {found for text in texts(error) for found in NUMBER.findall(text)}
    assert len(numbers) == 1, (error, vars(error))
    (number,) = numbers
    (line,) = [each.getMessage() for each in caplog.records if number in each.getMessage()]
    assert f"who has called {typeid}:b.{method}(): " in line
    assert HERE in line or sys.executable in line
    if isinstance(error, RemoteError):
        assert error.type_name.rpartition(".")[2] in line
        assert error.traceback == ""
    if method in ("unknown", "unprintable", "chained"):
        assert isinstance(error, RemoteError)
        assert error.type_name == f"test_disclosure.{type_of(method)}"
        assert error.message == f"{number}; the log of the server tells more under this number"
        assert f'File "{HERE}", line ' in line


def type_of(method: str) -> str:
    return "Unprintable" if method == "unprintable" else "Unknown"


@pytest.mark.parametrize("typeid", ["bad", "threaded"])
def test_errors_for_the_caller_are_told_as_they_are(server: ManagerServer, typeid: str) -> None:
    """A builtin exception keeps class and text, and a key that looks like a path is the caller's."""
    with connect("x", KEYS["write"]) as shared:
        bad = shared.open(typeid, "b")
        error = raised(bad.plain)
        assert (type(error), error.args) == (ValueError, ("3 is odd",))
        error = raised(lambda: bad.lookup(HERE))
        assert (type(error), error.args) == (KeyError, (HERE,))
        if typeid == "bad":
            assert vars(error) == {}
        with pytest.raises(registry.errors.NotShareable, match="PosixPath cannot be shared: "):
            bad.unsent()


def test_the_log_cannot_be_forged_by_what_an_error_says(
    server: ManagerServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A line of an error is no line of the log, and what would steer a terminal is shown."""
    with connect("x", KEYS["write"]) as shared:
        raised(lambda: shared.bad("b").forged("3 is odd\n2026-01-01 INFO stopping\x1b[2J"))
    (line,) = [text for text in caplog.messages if NUMBER.search(text)]
    assert "\n    2026-01-01 INFO stopping\\x1b[2J\n    made of " in line


def test_operators_see_everything(server: ManagerServer, caplog: pytest.LogCaptureFixture) -> None:
    """From wherever they come; nothing of it is in the log then."""
    with connect("x", KEYS["admin"]) as shared:
        error = raised(shared.bad("b").unknown)
        assert isinstance(error, RemoteError)
        assert error.message == f"cannot open {HERE}"
        assert f'File "{HERE}", line ' in error.traceback
    assert not NUMBER.search(caplog.text)


def test_processes_of_the_server_s_user_see_everything(home: Path) -> None:
    """They could read it where it lies, whatever their key lets them do."""
    with ManagerServer("x", KEYS["admin"], plugins=[BAD], roles={"write": KEYS["write"]}):
        with connect("x", KEYS["write"]) as shared:
            error = raised(shared.bad("b").unknown)
    assert isinstance(error, RemoteError)
    assert f'File "{HERE}", line ' in error.traceback


def test_what_an_object_cannot_be_made_of(server: ManagerServer, home: Path) -> None:
    """The errors of a factory, of the arguments of a definition, and of a definition that differs."""
    with connect("x", KEYS["write"]) as shared:
        error = raised(shared.bad("other", "x").plain)
        assert_blind(error, str(home))
        assert "is no database" in str(error)
        assert_blind(raised(shared.bad("other", nonsense=3).plain), str(home))
        with pytest.raises(ValueError, match="3 is odd"):
            shared.bad("b").plain()
        assert_blind(raised(shared.bad("b", "x").plain), str(home))


def test_an_error_of_statistics_is_kept_inside(server: ManagerServer, caplog: pytest.LogCaptureFixture) -> None:
    """A question runs code of the class, too."""
    with connect("x", KEYS["write"]) as shared:
        with pytest.raises(ValueError, match="3 is odd"):
            shared.bad("b").plain()
        error = raised(lambda: shared.statistics(shared.bad("b")))
    assert isinstance(error, RemoteError)
    assert_blind(error)
    (number,) = NUMBER.findall(str(error))
    assert f"no statistics in {HERE}" in next(text for text in caplog.messages if number in text)


def test_a_reply_that_comes_again_has_its_number(server: ManagerServer, caplog: pytest.LogCaptureFixture) -> None:
    """A call that is made once has one error, and the log has it once."""
    with another("x", KEYS["write"]) as shared:
        link = shared._home.link()
        remote = shared.bad("b")._remote
        remote.resolve()
        handle = remote._handle_of(link)
        frame = link.call(handle, "unknown", _codec.encode_arguments((), {}), about=remote)
        (client,) = server.host.clients.values()
        again: list[bytes] = []
        done = threading.Event()

        def send_again() -> None:
            reply = server.host.engine.sessions[client.number].replies[frame.sequence]
            attachment = client.attachment
            assert attachment is not None
            assert client.deliver is not None
            client.deliver(Output(client.number, frame.sequence, reply.kind, reply.body, reply.index))
            again.extend(attachment.outbox)
            attachment.outbox.clear()
            done.set()

        server._post(send_again)
        assert done.wait(20)
    assert [piece.endswith(frame.body) for piece in again] == [True]
    assert len(NUMBER.findall(caplog.text)) == 1


# -- what a server says of itself -------------------------------------------------------------------------------------


def every_text(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from every_text(key)
            yield from every_text(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from every_text(item)
    elif not isinstance(value, bytes):
        yield str(value)


@pytest.mark.parametrize("address", ["x", "unix://{home}/socket", "tcp://127.0.0.1:0"])
def test_answers_to_outsiders_have_no_paths(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """Neither the greeting nor any question that a writer may ask."""
    monkeypatch.setattr(Connection, "_domain", "")
    plugin = tmp_path / "jars.py"
    plugin.write_text("import registry\nclass Jar:\n    def get(self): ...\nJAR = registry.SharedObject('jar', Jar)\n"
                      "@registry.hookimpl\ndef registry_shared_objects(): return [JAR]\n")  # fmt: skip
    server = ManagerServer(
        address.format(home=home), KEYS["admin"], plugins=[str(plugin)], log="process", roles={"write": KEYS["write"]}
    )
    with server:
        with connect(server.url, KEYS["write"]) as shared:
            shared.counter("hits").incr()
            plugin.write_text("# another\n")
            link = shared._home.link()
            told = [vars(link.greeting), shared.statistics(), link.ask("about"), shared.objects(), link.ask("locks")]
            told[0].pop("table")
            for text in every_text(told):
                shown = text.replace(server.url, "")  # the client has called it so
                assert os.sep not in shown, text
            assert link.ask("about")["changed"] == ["a file of a plugin"]
        server._freshness = (-1e9, "")  # it looks once in a second
        with pytest.warns(StaleServer) as caught, connect(server.url, KEYS["write"]):
            pass
        assert [str(each.message) for each in caught] == [
            "the server runs other code than lies in its files now, or than this process does"
        ]
        with pytest.warns(StaleServer, match=re.escape(str(plugin))), connect(server.url, KEYS["admin"]) as admin:
            assert admin._home.link().ask("about")["changed"] == [str(plugin)]
            assert admin.statistics()["address"] == server.url


def test_a_stock_client_of_another_user_is_told_no_path(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before its pickle is opened, and the refusal does not say where the server lives."""
    from multiprocessing.connection import Client
    from multiprocessing.managers import dispatch

    monkeypatch.setattr(Connection, "_domain", "")
    for trust, cure in (("uid", "serve with --trust key"), ("key", "show the key of the role 'admin'")):
        path = f"unix://{home}/s"
        server = ManagerServer(path, KEYS["admin"], trust=trust, roles={"write": KEYS["write"]})  # type: ignore[arg-type]
        with server:
            with Client(server.address, authkey=KEYS["write"]) as connection, pytest.raises(PermissionError) as caught:
                dispatch(connection, None, "dummy")
            assert str(home) not in str(caught.value)
            assert f"which sends none, or {cure}" in str(caught.value)
            with Client(server.address, authkey=KEYS["admin"]) as connection:
                if trust == "key":  # who may do everything may run code, too
                    assert dispatch(connection, None, "dummy") is None
                else:
                    with pytest.raises(PermissionError):
                        dispatch(connection, None, "dummy")


# -- another user, as the kernel tells it -----------------------------------------------------------------------------


@as_root
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel must tell who connects")
def test_a_member_of_a_group_writes_and_sees_nothing_inside(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With the key of a lesser role: it may not stop, and the number that it is told is in the log."""
    key = home / "write.key"
    key.write_bytes(KEYS["write"])
    os.chown(key, -1, GROUP)
    key.chmod(0o640)
    home.chmod(0o711)
    server = ManagerServer("x", plugins=[BAD], roles={"write": KEYS["write"]})
    server.gid = GROUP
    url = f"unix://{home}/x/socket"

    def work() -> list[str]:
        with ManagerClient(url, KEYS["write"], start=False) as shared:
            shared.connect()
            told = [str(raised(shared.bad("b").unknown))]
            try:
                shared.delete(shared.bad("b"))
            except registry.errors.AccessDenied as error:
                told.append(error.reason)
            return told

    with server:
        assert (home / "x" / "key").stat().st_mode & 0o777 == 0o600
        with connect(url, KEYS["write"]) as ours:  # so that all is imported
            raised(ours.bad("b").unknown)
        kind, told = as_user(USER, [GROUP], work)
    assert kind == "ok", told
    (number,) = NUMBER.findall(told[0])
    assert HERE not in told[0]
    assert f"cannot open {HERE}" in next(text for text in caplog.messages if number in text)
    assert "takes the role 'admin', and the key that this process has shown gives 'write'" in told[-1]
