"""What a server that has the key can do to a client by what it says: nothing but have calls fail."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import struct
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile import TYPES, Hostile, answer, attached, greeting, watched
from servers import KEY

from registry import _codec, _peers, _wire, aio, connect
from registry._leaves import Carried, Handle, OpaqueValue
from registry._wire import Frame, Kind
from registry.errors import AccessDenied, RegistryError, RemoteError

pytestmark = pytest.mark.once

INF = float("inf")
NAN = float("nan")
encode = _codec.encode


def greet(**changed: Any) -> dict[str, Any]:
    return {"greeting": encode(greeting(**changed))}


def attach(**changed: Any) -> dict[str, Any]:
    return {"attach": lambda frame: answer(frame, attached(**changed), Kind.ATTACHED)}


def attach_with(say: Callable[[Frame], bytes]) -> dict[str, Any]:
    return {"attach": say}


def reply(body: bytes, kind: int = Kind.REPLY, **changed: Any) -> dict[str, Any]:
    return {"reply": lambda frame: answer(frame, body, kind, **changed)}


def reply_with(*items: Any) -> dict[str, Any]:
    """Answer with a value, beside which stand these: bytes, or a file's name and length."""

    def say(frame: Frame) -> bytes:
        pieces = _wire.reply_pieces(_beside(0), list(items))
        fields = {"generation": frame.generation, "sequence": frame.sequence}
        return b"".join(_wire.pack_pieces(Kind.REPLY, pieces, flags=_wire.PARTS, **fields))

    return {"reply": say}


def _beside(place: int) -> bytes:
    return _wire.encode(_codec.Ext(47, _wire.encode([place])))


def hang_up(frame: Frame) -> bytes:
    raise ConnectionResetError


def header(length: int, kind: int, flags: int = 0, reserved: int = 0) -> bytes:
    return struct.pack("!IBBHIQQQ", length, kind, flags, reserved, 1, 1, 0, 0)


def row(**changed: Any) -> list[Any]:
    """Return the row of a dict in the table of types, with some of it changed."""
    fields = dict(zip("typeid per shape threaded exposed readonly waiting carried doc keyed owned".split(),
                      TYPES["dict"].interface.pack(), strict=True))  # fmt: skip
    return list({**fields, **changed}.values())


# What ends every call, and how: a part of the text.
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "a greeting that is no value": ({"greeting": b"\xc1"}, "greeting that cannot be read"),
    "an empty greeting": ({"greeting": b""}, "greeting that cannot be read"),
    "a greeting that is a list": ({"greeting": encode([1])}, "greeting that cannot be read"),
    "a greeting with nothing in it": ({"greeting": encode({})}, "greeting that cannot be read"),
    "a greeting of a class that nobody knows": (
        {"greeting": _wire.encode(_codec.Ext(32, _wire.encode(["os.system", "true"])))}, "greeting that cannot be"),
    **{
        f"a greeting with {field}={value!r:.20}": (greet(**{field: value}), "greeting that cannot be read")
        for field, value in [
            ("pid", INF), ("pid", "x"), ("pid", None), ("since", INF), ("since", NAN), ("since", 1e300), ("since", "x"),
            ("life", 1 << 33), ("life", "x"), ("epoch", INF), ("name", [[1]]), ("role", "owner"), ("files", 3),
            ("realm", b"x"),
            ("types", None), ("types", []), ("types", {1: b""}), ("types", {"dict": 1}), ("types", {"dict": b"\xc1"}),
            ("types", {"dict": encode([])}), ("types", {"dict": encode({})}), ("log", {}),
            ("protocol", None),
        ]
    },
    **{
        f"a type with {field}={value!r:.30}": (
            greet(types={"dict": encode(row(**{field: value}))}), "greeting that cannot be read")
        for field, value in [
            ("exposed", ["__class__"]), ("exposed", ["__reduce__"]), ("exposed", ["__del__"]),
            ("exposed", ["__init__"]), ("exposed", ["mro()"]),
            ("exposed", ["_remote"]), ("exposed", ["__getattribute__"]), ("exposed", ["a.b"]), ("exposed", ["a\0b"]),
            ("exposed", "copy"), ("exposed", [[]]), ("exposed", ["x"] * 100_000), ("shape", "os.system"), ("per", "x"),
            ("doc", "\x1b[2J"), ("doc", "x" * 10**6), ("doc", 3), ("threaded", 1), ("carried", {"__class__": {"x": 0}}),
            ("carried", {"get": {"key": 10**9}}), ("readonly", ["nothing"]),
        ]
    },
    **{f"a lease of {lease}": (attach(lease=lease), "a lease of") for lease in (INF, NAN, -1.0, 1e-12, -INF, 1e300)},
    "a lease that is text": (attach(lease="x"), "does not keep to the protocol"),
    "words that are text": (attach(words="x"), "does not keep to the protocol"),
    "an answer to the attach that is none": (
        attach_with(lambda frame: answer(frame, b"\xc1", Kind.ATTACHED)), "does not keep to the protocol"),
    "a refusal": (attach_with(lambda frame: answer(frame, b"\xff\x00", Kind.REFUSED)), "no server at"),
    "unknown flags": (attach_with(lambda frame: header(0, 17, 255, 9)), "unknown flags"),
    "a frame of 4 GiB": (attach_with(lambda frame: header(2**32 - 1, 17)), "4294967295 bytes"),
    "parts of nothing without end": (attach_with(lambda frame: header(0, 17, _wire.MORE) * 9), "holds nothing"),
    "the end of the connection": ({"attach": hang_up}, "no server at|closed"),
    "a reply that is no value": (reply(b"\xc1"), "cannot be read"),
    "an empty reply": (reply(b""), "cannot be read"),
    "an error that is none": (reply(encode(3), Kind.ERROR), "sent an error that is none"),
    "an error that is no value": (reply(b"\xc1", Kind.ERROR), "cannot be read"),
    "a reply of an unknown kind": (reply(encode(1), 99), "a frame of kind 99"),
    "an attach that answers a call": (reply(encode(1), Kind.ATTACHED), "a frame of kind 16"),
    "a heartbeat that answers a call": (reply(encode(1), Kind.HEARD), "a frame of kind 22"),
    "a question again for files that were not named": (reply(b"", Kind.AGAIN), "a frame of kind 24"),
    "a word without a value": (reply(b"\1", Kind.SHOWN), "cannot be read"),
    "a loss that is no number": (reply(encode("x"), Kind.LOST, sequence=0), "a loss that cannot be read"),
    "state of an engine": (reply(_wire.encode(_codec.Ext(41, b"\x01"))), "."),
    "a value deeper than any": (reply(b"\x91" * 5000 + b"\x01"), "cannot be read"),
    "a fraction of a million digits": (
        reply(_wire.encode(_codec.Ext(19, b"\x92\x01" + _wire.encode(_codec.Ext(6, b"\x01" * 10**6))))), "cannot be"),
    "an unknown declared class": (
        reply(_wire.encode(_codec.Ext(32, _wire.encode(["subprocess.Popen", ["true"]])))), "does not know it"),
    "a pickle in a carried value": (
        reply(_wire.encode(_codec.Ext(35, _wire.encode(_codec.Ext(36, _wire.encode(["d", "k", b"cos\nsystem\n."])))))),
        "cannot be read"),
    "parts that are none": (
        {"reply": lambda frame: b"".join(_wire.pack_pieces(Kind.REPLY, [b"\xc1"], flags=_wire.PARTS,
                                                            generation=frame.generation, sequence=frame.sequence))},
        "cannot be read"),
    "a part that is missing": (reply(_beside(7)), "a part of this value is missing"),
    **{
        f"a file {name!r:.20} of {length} bytes": (reply_with((name, length)), "no name of a file")
        for name, length in [
            ("../../../../etc/passwd", 100), ("/etc/passwd", 100), ("", 1), ("1", 10), ("1", 0), ("1", -1),
            ("1", 2**62), ("a\0b", 1), (".", 1),
        ]
    },
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_whatever_it_says_is_an_error_and_nothing_else(name: str, kind: str) -> None:
    """An error of ours, which says what is wrong. Nothing is run, opened or connected to; the next server is fine."""
    script, text = BROKEN[name]
    uses = with_threads if kind == "threads" else with_asyncio
    with Hostile(**script) as server:
        with watched() as deeds, pytest.raises(RegistryError, match=text):
            uses(server.url)
        assert server.accepted <= 30  # where the connection ends each time, after pauses
    assert (deeds.forbidden, [path for path in deeds.opened if is_named(path)]) == ([], [])
    assert set(deeds.connected) <= {("127.0.0.1", int(server.url.rpartition(":")[2]))}
    with Hostile() as another:
        uses(another.url)


def is_named(path: str) -> bool:
    """Tell whether a path may come from the server, and is not the interpreter's, or the kernel's."""
    known = (sys.prefix, sys.base_prefix, "/proc/", "/etc/machine-id", "/tmp/r")
    return not path.startswith(known) and "/registry" not in path


def with_threads(url: str, timeout: float = 5.0) -> None:
    with connect(url, KEY, timeout=timeout) as client:
        client.dict("d")["k"]


def with_asyncio(url: str, timeout: float = 5.0) -> None:
    async def main() -> None:
        async with aio.connect(url, KEY, timeout=timeout) as client:
            await client.dict("d").getitem("k")

    asyncio.run(main())


# -- what looks like a reply


def told(error: bytes) -> BaseException:
    """Return what a client raises that is told this error."""
    with Hostile(**reply(error, Kind.ERROR)) as server, connect(server.url, KEY, timeout=5.0) as client:
        with pytest.raises(Exception) as raised:
            client.dict("d")["k"]
    return raised.value


def exception(name: str, *args: object, traceback: str = "", notes: Any = ()) -> bytes:
    """Return the encoding of an exception, whatever its class can make of that."""
    return _wire.encode(_codec.Ext(39, _wire.encode([name, list(args), traceback, list(notes)])))


@pytest.mark.parametrize(
    "name",
    "SystemExit KeyboardInterrupt GeneratorExit BaseException os.system subprocess.Popen builtins.eval eval "
    "__import__ type object print registry.errors.__builtins__ registry.errors.TYPE_CHECKING registry._link.Link "
    "Exception.__class__ ValueError.__init__ queue.Queue threading.Thread asyncio.CancelledError".split()
    + ["", "\0", "ValueError\0", "\uff36alueError"],
)
def test_no_other_class_is_raised_by_its_name(name: str) -> None:
    """Nothing but errors, and none that would end the program; all else is told as a text."""
    with watched() as deeds:
        error = told(exception(name, "touch", "this"))
    assert type(error) is RemoteError and isinstance(error, Exception)
    assert deeds.forbidden == []


@pytest.mark.parametrize("name", [*_codec._exceptions._CLASSES])
@pytest.mark.parametrize(
    "args",
    [
        (),
        ("x",),
        (1, "x", None),
        ("x", ("f", 1, 2, "t", 3, 4)),
        (b"x",) * 5,
        (float("nan"), "x", "", ""),
        ({}, [], (), 1),
    ],
    ids=range(7),
)
def test_errors_can_be_shown_whatever_they_are_made_of(name: str, args: tuple[Any, ...]) -> None:
    """An error that cannot be printed would hide what has happened."""
    data = exception(name, *args, notes=["a note", "\x1b[2J"])
    error = _codec.decode(data)
    assert isinstance(error, Exception)
    assert isinstance(str(error), str) and isinstance(repr(error), str)
    located = error.located("there") if isinstance(error, RegistryError) else error
    assert isinstance(str(located), str)
    assert error.__notes__ == ["a note", "\x1b[2J"]


def test_notes_that_are_no_texts_are_refused() -> None:
    """Python prints what they are."""
    error = told(_wire.encode(_codec.Ext(39, _wire.encode(["ValueError", [], "", [1]]))))
    assert type(error) is RegistryError and "notes of an exception are text" in str(error)


# -- what leads elsewhere


class Elsewhere:
    """A port to which somebody might be led, and that tells whether anybody was."""

    def __init__(self) -> None:
        import socket

        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.url = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def has_been_visited(self) -> bool:
        try:
            self._listener.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def __enter__(self) -> Elsewhere:
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.close()


@pytest.mark.parametrize("typeid", ["dict", "lock", "queue", "counter", "unheard_of", "__class__"])
def test_a_proxy_that_leads_elsewhere_is_not_followed(typeid: str) -> None:
    """Not by reading, showing, comparing, hashing, copying or sending it on: only by whoever calls it."""
    with Elsewhere() as elsewhere:
        handle = Handle(elsewhere.url, typeid, "x")
        with Hostile(
            reply=lambda frame: answer(frame, encode([handle, {"in": handle}], outgoing=lambda leaf: leaf))
        ) as server:
            with connect(server.url, KEY, timeout=5.0) as client, watched() as deeds:
                found = client.dict("d")["k"]
                proxy = found[0]
                repr(found), hash(proxy), proxy == proxy, proxy == 3, proxy != {}, found == [1], proxy in [1, None]
                client.dict("d")["other"] = found
                found.copy()
        assert not elsewhere.has_been_visited
        assert deeds.connected == [] and deeds.forbidden == []


def test_a_comparison_is_not_led_elsewhere() -> None:
    """The value that is there, as the server says, is compared with the one that is expected."""
    with Elsewhere() as elsewhere:
        present = [1, Handle(elsewhere.url, "dict", "x")]
        with Hostile(reply=lambda frame: answer(frame, encode(present, outgoing=lambda leaf: leaf))) as server:
            with connect(server.url, KEY, timeout=5.0) as client:
                assert client.dict("d").compare_and_set("k", {}, 2) is False
        assert not elsewhere.has_been_visited


def test_names_of_servers_that_are_never_used_are_forgotten() -> None:
    """However many a server tells of."""
    from registry import client as module

    handles = [Handle(f"tcp://127.0.0.1:1#{number}", "dict", "x") for number in range(5000)]
    with Hostile(reply=lambda frame: answer(frame, encode(handles, outgoing=lambda leaf: leaf))) as server:
        with connect(server.url, KEY, timeout=5.0) as client:
            assert len(client.dict("d")["k"]) == 5000
    assert len(module._homes) <= module.MOST_HOMES + 1


# -- values that are for others


def opaque(domain: str) -> bytes:
    """Return a pickle that would have an effect, stamped with a domain."""
    return encode(Carried(b"cos\nsystem\n(S'touch pickle-was-opened'\ntR.", domain, "a kind"))


def test_a_pickle_of_another_domain_is_not_opened() -> None:
    """Nor one that says that it is of this one, if its server is not this user's."""
    ours = _peers.trust_domain(os.geteuid()) if hasattr(os, "geteuid") else "here"
    for domain in ("elsewhere:0", ours + "/realm", ours + ":1", ours.upper()):
        with Hostile(**reply(opaque(domain))) as server, connect(server.url, KEY, timeout=5.0) as client:
            with watched() as deeds:
                assert client.dict("d")["k"] == OpaqueValue("a kind", domain)
            assert deeds.forbidden == []


def test_a_pickle_of_a_server_of_another_user_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stamp it has. That the server is of another user is what the kernel says."""
    monkeypatch.setattr("registry._transport._is_ours", lambda sock, address: False)
    domain = _peers.trust_domain(os.geteuid())
    with Hostile(**reply(opaque(domain))) as server, connect(server.url, KEY, timeout=5.0) as client:
        with watched() as deeds:
            assert client.dict("d")["k"] == OpaqueValue("a kind", domain)
        assert deeds.forbidden == []


# -- files


@pytest.mark.skipif(sys.platform != "linux", reason="there are no shelves elsewhere")
@pytest.mark.parametrize("what", ["a link", "a pipe", "a socket", "a directory", "another length"])
def test_only_plain_files_of_the_shelf_are_mapped(what: str, tmp_path: Path, home: Path) -> None:
    """What else lies there under the name that was told is not read, nor waited for."""
    import socket

    shelf = home / "shelf"
    for room in ("in", "out"):
        (shelf / room).mkdir(mode=0o700, parents=True)
    shelf.chmod(0o700)
    (tmp_path / "file").write_bytes(encode("x" * 500))
    target = shelf / "out" / "1"
    if what == "a link":
        target.symlink_to(tmp_path / "file")
    elif what == "a pipe":
        os.mkfifo(target)
    elif what == "a socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(target))
    elif what == "a directory":
        target.mkdir()
    else:
        target.write_bytes(b"x")
    script = {**greet(files=str(shelf)), **reply_with(("1", 503))}
    with Hostile(home / "socket", **script) as server, watched() as deeds:
        with pytest.raises(RegistryError, match="no name of a file"), connect(server.url, KEY, timeout=5.0) as client:
            client.dict("d")["k"]
    assert server.accepted == 2  # what could not be mapped was asked for again, on a connection that sees no files
    assert deeds.forbidden == []


@pytest.mark.parametrize("what", ["a pipe", "a link", "a device", "nothing", "a file of ours"])
def test_words_are_mapped_of_the_very_file_only(what: str, home: Path) -> None:
    """A client reads none from what else is there, and goes on without a cache."""
    path = home / "words"
    if what == "a pipe":
        os.mkfifo(path)
    elif what == "a link":
        (home / "file").write_bytes(bytes(100))
        path.symlink_to(home / "file")
    elif what == "a device":
        path = Path("/dev/zero")
    elif what == "a file of ours":
        path.write_bytes(bytes(100))
    found = os.stat(path) if path.exists() else None
    words = [str(path), found.st_dev if found else 1, found.st_ino if found else 1, found.st_size if found else 1, 0]
    script = {**attach(words=words), **reply(bytes(12) + encode(1), Kind.SHOWN)}
    with Hostile(home / "socket", **script) as server, connect(server.url, KEY, timeout=5.0) as client:
        asked = client.dict("d")
        assert [asked["k"] for _ in range(2)] == [1, 1]
        link = client._home.link()
        assert link.words is not None and link.words.view() is None


# -- without end


def test_replies_to_calls_that_nobody_made_are_dropped() -> None:
    """However many there are: none is kept."""
    junk = b"".join(
        _wire.pack(kind, encode(number), generation=1, sequence=number)
        for number in range(1000, 21_000)
        for kind in (Kind.REPLY,)
    ) + b"".join(_wire.pack(Kind.LOST, encode(number), generation=1) for number in range(20_000))
    with Hostile(reply=lambda frame: junk + answer(frame, encode(1))) as server:
        with connect(server.url, KEY, timeout=20.0) as client:
            link = client._home.link()
            assert client.dict("d")["k"] == 1
            assert (len(link._pending), len(link.lost)) == (0, _wire.IN_FLIGHT)


def flood(frame: Frame) -> Any:
    """Answer with heartbeats, without end."""
    return itertools.repeat(_wire.pack(Kind.HEARD, bytes(8), generation=frame.generation) * 1000)


@pytest.mark.parametrize("script", [{"reply": flood}, {"attach": flood}], ids=["to a call", "to the attach"])
@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_a_call_ends_though_the_server_never_stops_talking(
    kind: str, script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what answers nobody. The call has its deadline."""
    monkeypatch.setattr("registry._link.SETTLE", 0.3)
    with Hostile(**script) as server, pytest.raises(RegistryError):
        (with_threads if kind == "threads" else with_asyncio)(server.url, 0.5)


def test_a_value_without_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client keeps no more of it than a value may have; here that is less, so that the test is quick."""
    monkeypatch.setattr(_wire.Reader.__init__, "__defaults__", (1 << 20, None))

    def without_end(frame: Frame) -> Any:
        part = struct.pack("!IBBHIQQQ", 1 << 16, Kind.REPLY, _wire.MORE, 0, frame.generation, frame.sequence, 0, 0)
        return itertools.repeat(part + bytes(1 << 16))

    with Hostile(reply=without_end) as server, connect(server.url, KEY, timeout=20.0) as client:
        tracemalloc.start()
        try:
            with pytest.raises(RegistryError, match="a value of more than 1048576 bytes"):
                client.dict("d")["k"]
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < 20 << 20


def test_a_turn_that_never_comes_to_be_ours_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server says each time that another version is there, of the value that was expected."""
    versions = itertools.count()
    with Hostile(reply=lambda frame: answer(frame, encode((next(versions), 1)))) as server:
        with connect(server.url, KEY, timeout=20.0) as client, pytest.raises(RegistryError, match="changes its mind"):
            client.dict("d").compare_and_set("k", 1, 2)


# -- questions to the server itself


@pytest.mark.parametrize("answered", [3, None, "x", [1], [[]], {"a": 1}, [["dict"]], ValueError("x")], ids=repr)
def test_answers_of_another_form_are_refused(answered: Any) -> None:
    """What a server tells of itself and of its objects is shown, or is an error of ours."""
    with Hostile(**reply(encode(answered))) as server, connect(server.url, KEY, timeout=5.0) as client:
        for ask in (client.objects, client.statistics):
            try:
                found = ask()
            except (RegistryError, ValueError) as error:
                assert isinstance(error, RegistryError) or type(answered) is ValueError
            else:
                assert isinstance(found, list | dict)
        assert client.dict("d")["k"] is not ...


def test_a_proxy_of_a_stock_server_is_followed_only_where_the_program_named_that_server() -> None:
    """What such a server answers is unpickled: a server of ours must not lead anybody there."""
    with Elsewhere() as elsewhere:
        url = f"stock+{elsewhere.url}"
        value = encode([Handle(url, "Token", "0x1")], outgoing=lambda leaf: leaf)
        with Hostile(reply=lambda frame: answer(frame, value)) as server:
            with connect(server.url, KEY, timeout=5.0) as client, watched() as deeds:
                (proxy,) = client.dict("d")["k"]
                for use in (lambda: proxy.get(), lambda: len(proxy), lambda: proxy["x"], lambda: list(proxy)):
                    with pytest.raises(AccessDenied, match=re.escape(f'connect("{url}") if that may be')):
                        use()
        assert not elsewhere.has_been_visited
        assert deeds.connected == [] and deeds.forbidden == []
