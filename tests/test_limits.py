"""Limits: how they are set, what is refused beyond each, and that nobody but the one who is refused notices."""

from __future__ import annotations

import contextlib
import inspect
import os
import pickle
import queue
import re
import select
import socket
import struct
import sys
import threading
import time
from multiprocessing.connection import Client
from multiprocessing.managers import RemoteError as StockError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import msgspec
import pytest
import server_processes
from hosted_classes import START
from servers import KEY, Script, another
from test_host import IDENTITY, Pipe, make_host
from test_stock import Process, Server

from registry import ManagerServer, SharedObject, _room, _threads, _wire, connect
from registry._addresses import load_key, parse
from registry._attachments import Attachment
from registry._connection import Connection
from registry._framing import frame
from registry._host import Host
from registry._leaves import Caller
from registry._limits import FIXED, Limits, size
from registry._shelf import Shelf, put
from registry._stock import StockSessions
from registry._threads import ThreadedObjects
from registry._transport import SocketTransport, dial
from registry._wire import DELETE, Kind, ProtocolError
from registry.cli._common import amount
from registry.errors import NotShareable, RegistryError

linux = pytest.mark.skipif(sys.platform != "linux", reason="what a process has is told by Linux only")

# -- the record


@pytest.mark.parametrize(
    ("text", "count"), [("0", 0), ("17", 17), ("1k", 1024), ("64 KiB", 65_536), ("1.5M", 1_572_864), ("2GB", 2 << 30)]
)
def test_sizes_are_read_as_people_write_them(text: str, count: int) -> None:
    """The units are powers of 1024."""
    assert size(text) == count


@pytest.mark.parametrize("text", ["", "M", "-1", "1 pound", "1e3", "1MM"])
def test_what_is_no_size(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match="is no size"):
        size(text)


def test_limits_are_given_by_name_as_numbers_or_texts() -> None:
    """Those that are not given have their defaults; a record is taken as it is."""
    limits = Limits.of({"handshake": "2.5", "calls": "32", "stored": "64M", "objects": 7})
    assert limits == Limits(handshake=2.5, calls=32, stored=64 << 20, objects=7)
    assert limits.arguments == Limits().arguments
    assert Limits.of(limits) is limits
    assert Limits.of(None) == Limits.of({}) == Limits()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"object": 3}, "there is no limit 'object', did you mean 'objects'?; the limits are handshake, strangers, "),
        ({"xyz": 3}, "there is no limit 'xyz'; the limits are handshake, strangers, "),
        ({"objects": 0}, "the limit objects must be a number of objects, at least 1, not 0"),
        ({"objects": True}, "the limit objects must be a number of objects, at least 1, not True"),
        ({"objects": None}, "the limit objects must be a number of objects, at least 1, not None"),
        ({"objects": "many"}, "the limit objects must be a number of objects, not 'many'"),
        ({"calls": 9000}, "the limit calls must be a number of calls, 16 to 8192, not 9000"),
        ({"stored": "64 megs"}, "the limit stored must be a size in bytes such as 512M, not '64 megs'"),
        ({"stored": 1.5}, "the limit stored must be a size in bytes such as 512M, at least "),
        ({"handshake": float("nan")}, "the limit handshake must be a number of seconds, 0.01 to 3600, not nan"),
        ({"stuck": "inf"}, "the limit stuck must be a number of seconds, 0.01 to 86400, not inf"),
    ],
)
def test_nonsense_is_refused(given: dict[str, object], text: str) -> None:
    """By the name of the limit, with what it could be; a server is not made with it."""
    with pytest.raises(ValueError) as caught:
        ManagerServer("x", limits=given)
    assert str(caught.value).startswith(text)


def test_what_the_server_chooses_leaves_files_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strangers get a quarter of the files that may be open, one peer's sessions a half; what was set stands."""
    resource = pytest.importorskip("resource")
    for soft, strangers, sessions in (
        (1024, 256, 512),
        (20_000, 1024, 4096),
        (40, 16, 20),
        (resource.RLIM_INFINITY, 1024, 4096),
    ):
        monkeypatch.setattr(resource, "getrlimit", lambda which, soft=soft: (soft, soft))
        limits = _room.chosen(Limits())
        assert (limits.strangers, limits.sessions) == (strangers, sessions)
    assert _room.chosen(Limits(strangers=5, sessions=6)) == Limits(strangers=5, sessions=6)


def test_every_limit_has_a_unit_and_is_explained() -> None:
    """The record is what the documentation is compared with."""
    assert Limits.__doc__ is not None
    for field in attrs.fields(Limits):
        assert Limits.unit(field.name)
        assert f"    {field.name}: " in inspect.cleandoc(Limits.__doc__)
    assert all(row.value > 0 for row in FIXED)


def test_the_documentation_names_every_limit_as_it_is() -> None:
    """With its unit and its default; and those that nobody sets with what they are."""
    text = (Path(__file__).resolve().parents[1] / "docs" / "limits.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]+) \| .+ \|$", text, re.MULTILINE)
    told = {name: (unit, value) for name, unit, value in rows}
    assert len(told) == len(rows)
    chosen = {
        "strangers": "1024, or a quarter of the files that may be open",
        "sessions": "4096, or half of the files that may be open",
        "stored": "see below",
    }
    expected = {
        field.name: (Limits.unit(field.name), chosen.get(field.name) or written(field.default, Limits.unit(field.name)))
        for field in attrs.fields(Limits)
    }
    expected |= {row.name: (row.unit, written(row.value, row.unit)) for row in FIXED}
    assert told == expected


def written(value: float, unit: str) -> str:
    """Return a number as the documentation has it."""
    return amount(value, unit) if unit == "bytes" else f"{value:.0f}"


# -- objects, handles, sessions, threads: what the host keeps


def host_with(**limits: Any) -> Host:
    """Return a host with these limits."""
    return make_host(limits=Limits(**limits))


def test_one_object_too_many_is_refused() -> None:
    """It is not made; those that are there go on, and once one is deleted there is room."""
    host = host_with(objects=2)
    pipe = Pipe(host)
    for name in ("a", "b"):
        pipe.ask(f"plain:{name}", "setdefault", name)
    for _ in range(2):
        with pytest.raises(RegistryError) as caught:
            pipe.ask("plain:c", "setdefault", "c")
        assert str(caught.value) == (
            "plain:c.setdefault() had no effect: server 'x' (pid 1) has 2 objects, its limit 'objects'. Delete some "
            "(registry objects, registry delete), or serve with --limit objects=N"
        )
    assert host.engine.find("plain", "c") is None
    pipe.ask("plain:a", "setdefault", "again")
    pipe.ask("plain:b", DELETE)
    pipe.ask("plain:c", "setdefault", "c")


def test_a_refusal_is_remembered_as_any_reply() -> None:
    """A call that was refused and comes again is refused again, though there is room by then: it never runs."""
    host = host_with(objects=1)
    pipe = Pipe(host)
    pipe.ask("plain:a", "setdefault", "a")
    seq = pipe.call("plain:b", "setdefault", "b")
    pipe.deliver()
    pipe.attachment.outbox.clear()  # its answer is lost
    other = Pipe(host, 2)
    other.ask("plain:a", DELETE)
    pipe.connect()
    pipe.flush()
    assert isinstance(pipe.outcomes[seq], RegistryError)
    assert host.engine.find("plain", "b") is None


def test_the_handles_of_a_session_are_bounded() -> None:
    """Of too many the first is forgotten, and a client that is one of ours tells it again."""
    host = host_with(handles=16)
    pipe = Pipe(host)
    for number in range(100):
        pipe.ask(f"plain:{number}", "setdefault", number)
        (client,) = host.clients.values()
        assert len(client.handles) <= 16
    pipe.call("plain:1", "copy")
    with pytest.raises(ProtocolError, match="handle 2 was never defined on this connection"):
        pipe.flush()


def test_a_client_tells_a_forgotten_handle_again(home: Path) -> None:
    """Whoever uses many objects in turns notices nothing of that."""
    with ManagerServer("x", KEY, limits={"handles": 16}) as server, connect("x", KEY) as shared:
        counters = [shared.counter(str(number)) for number in range(60)]
        for turn in range(1, 4):
            assert [counter.incr() for counter in counters] == [turn] * 60
        assert all(len(client.handles) <= 16 for client in server.host.clients.values())


def test_one_peer_has_so_many_sessions_and_no_more() -> None:
    """Another one has its own; when one of them ends there is room again."""
    host = host_with(sessions=3)
    pipes = [Pipe(host, number, pid=7) for number in range(1, 4)]
    with pytest.raises(ProtocolError, match=r"pid 7 has 3 sessions here, the limit 'sessions'\. Close some, or serve"):
        Pipe(host, 4, pid=7)
    assert len(host.clients) == 3
    Pipe(host, 5, pid=8).ask("plain:x", "setdefault", 1)
    pipes[0].send(Kind.GOODBYE, 0)
    pipes[0].deliver()
    Pipe(host, 6, pid=7).ask("plain:x", "setdefault", 1)
    assert host.bounds.crowd.largest == 3


def test_sessions_that_nobody_comes_back_to_count() -> None:
    """Whoever connects, begins a session and goes, again and again, is stopped before others are."""
    host = host_with(sessions=5)
    for number in range(1, 6):
        pipe = Pipe(host, number, pid=7)
        host.detach(pipe.attachment, START)
    with pytest.raises(ProtocolError, match="pid 7 has 5 sessions"):
        Pipe(host, 6, pid=7)
    host.advance(START + 31.0)
    Pipe(host, 7, pid=7)


def test_what_a_process_says_of_itself_is_cut() -> None:
    """However long its label, host and command are; in errors and in the log they would stand in full."""
    host = make_host()
    attachment = Attachment()
    hello = _wire.Attach(b"k" * 16, 1, "h" * 9999, "c" * 9999, "l" * 9999, "1", 0, {})
    frame = _wire.Frame(Kind.ATTACH, 1, 0, 0, 0, _wire.encode(hello))
    host.receive(attachment, frame, START)
    (client,) = host.clients.values()
    assert client.caller == Caller("h" * 200, 1, "c" * 200, "", "l" * 200)


@pytest.mark.parametrize(
    ("title", "method", "fields", "text"),
    [
        ("plain:" + "x" * 4097, "setdefault", {}, "a name of 4097 letters; at most 4096 are taken"),
        ("l" * 257 + ":x", "setdefault", {}, "a name of 257 letters"),
        (
            "plain:x",
            "setdefault",
            {_wire.GRANTS: [["lock", "x", 1]] * 1025},
            "1025 grants in one frame; at most 1024 are taken",
        ),
        (
            "plain:x",
            "setdefault",
            {_wire.RECEIVED_SET: [0] * 65_537},
            "65537 acknowledgements in one frame; at most 65536",
        ),
    ],
    ids=["name", "type", "grants", "acknowledgements"],
)
def test_what_no_client_sends_is_refused(title: str, method: str, fields: dict[int, Any], text: str) -> None:
    """Names without end, and rows that would keep the server busy for one frame."""
    host = make_host()
    pipe = Pipe(host)
    pipe.call(title, method, fields=fields)
    before = host.engine.index
    with pytest.raises(ProtocolError, match=text):
        pipe.deliver()
    assert host.engine.index == before


def test_methods_that_do_not_exist_leave_nothing_behind() -> None:
    """However many and however long: the reply is short, and goes when it is acknowledged."""
    host = make_host()
    pipe = Pipe(host)
    pipe.ask("plain:x", "setdefault", 1)
    hosted = host.engine.find("plain", "x")
    assert hosted is not None
    known = dict(hosted.methods)
    for number in range(50):
        with pytest.raises(AttributeError) as caught:
            pipe.ask("plain:x", f"m{number}" + "x" * 50_000)
        assert len(str(caught.value)) < 1000
    assert hosted.methods == known
    pipe.ask("plain:x", "setdefault", 1)
    assert len(pipe.session.replies) == 1


def test_answers_that_wait_for_the_disk_are_bounded() -> None:
    """Reads of what is not safe yet are held; whoever asks without end is refused, and others go on."""
    log = Kept()
    host = make_host(limits=Limits(calls=16), log=log)
    pipe, other = Pipe(host, 1), Pipe(host, 2)
    pipe.call("plain:x", "setdefault", 1)
    pipe.deliver()
    for _ in range(15):
        pipe.call("plain:x", "copy")
    pipe.deliver()
    pipe.call("plain:x", "copy")
    with pytest.raises(ProtocolError, match="16 answers wait to be safe, and more are asked for"):
        pipe.deliver()
    assert len(host._held) == 16
    other.call("plain:x", "setdefault", 2)
    other.deliver()
    host.release(host.engine.index)
    other.hear()
    assert list(other.outcomes.values()) == [None]
    (client, _) = host.clients.values()
    assert client.held == 0


class Kept:
    """A log that keeps nothing, and is never safe."""

    syncs = 0

    def append(self, *event: object) -> None:
        pass


# -- arguments


def test_arguments_that_are_too_large_are_refused_before_they_are_sent(home: Path) -> None:
    """The client knows the limit; nothing is sent, and what is as large as may be goes."""
    with ManagerServer("x", KEY, limits={"arguments": "100K"}) as server, connect("x", KEY) as shared:
        d = shared.dict("d")
        d["a"] = bytes(100_000)
        calls = server.host.calls
        for value in (bytes(110_000), [1.5] * 20_000, bytes(400_000)):
            with pytest.raises(NotShareable) as caught:
                d["a"] = value
            assert str(caught.value).startswith("the arguments of dict:d.__setitem__() cannot be shared: they have ")
            assert f"bytes, and server 'x' (pid {server.host.identity.pid}, since " in str(caught.value)
            assert str(caught.value).endswith(
                "takes 102400 in one call, its limit 'arguments'. Put them in parts, or serve with --limit "
                "arguments=SIZE"
            )
        assert server.host.calls == calls
        assert len(d["a"]) == 100_000


def test_a_client_that_does_not_look_is_refused_by_the_server(home: Path) -> None:
    """In words, as the reply to that call, which had no effect; its connection goes on."""
    with ManagerServer("x", KEY, limits={"arguments": "100K"}), connect("x", KEY) as shared:
        d = shared.dict("d")
        d["a"] = 1
        link = d._remote.home.link()
        link.greeting.limits["arguments"] = 1 << 30
        generation = link._generation
        for _ in range(2):
            with pytest.raises(RegistryError) as caught:
                d["a"] = bytes(150_000)
            assert str(caught.value) == (
                f"the call had no effect: server 'x' (pid {link.greeting.pid}) takes 102400 bytes of arguments in one "
                "call, its limit 'arguments'. Put them in parts"
            )
        assert d["a"] == 1
        d["a"] = 2
        assert (d["a"], link._generation) == (2, generation)


def test_a_call_that_was_answered_is_answered_again_though_it_is_too_large_by_now() -> None:
    """What has run has run: it comes again because its reply was lost, and is not refused for its size."""
    host = make_host()
    pipe = Pipe(host)
    seq = pipe.call("plain:x", "setdefault", "a", "value")
    pipe.deliver()
    pipe.attachment.outbox.clear()
    pipe.connect()
    pipe.wire.clear()
    frame = _wire.Frame(Kind.CALL, pipe.generation, seq, 0, 0, b"no room", _wire.UNREAD)
    host.receive(pipe.attachment, frame, START)
    pipe.hear()
    assert pipe.outcomes == {seq: "value"}
    host.receive(pipe.attachment, attrs_replace(frame, sequence=seq + 1), START)
    pipe.pending[seq + 1] = ("plain:x", "setdefault", b"", {})
    pipe.hear()
    assert str(pipe.outcomes[seq + 1]) == "the call had no effect: server 'x' (pid 1) no room"


def attrs_replace(frame: _wire.Frame, **changes: Any) -> _wire.Frame:
    """Return a frame with some fields changed."""
    return msgspec.structs.replace(frame, **changes)


def test_a_name_has_an_end(home: Path) -> None:
    """A name that is too long is refused by the client, and nothing is made of it."""
    with ManagerServer("x", KEY) as server, connect("x", KEY) as shared:
        assert shared.counter("n" * 4096).incr() == 1
        with pytest.raises(
            ValueError, match="the name of a shared counter has 4096 letters at most, and this one 4097"
        ):
            shared.counter("n" * 4097).incr()
        assert len(server.host.objects()) == 1


# -- memory


class Heap:
    """Memory that a test fills, and an allocator that keeps what was freed until it is asked to give it back."""

    def __init__(self) -> None:
        self.used = 0
        self.kept = 0
        self.looks = 0
        self.trims = 0

    def look(self) -> int:
        self.looks += 1
        return self.used + self.kept

    def trim(self) -> None:
        self.trims += 1
        self.kept = 0


def test_it_is_looked_as_seldom_as_can_be() -> None:
    """When as much has come as there was room for, or a tenth of a second has gone by."""
    heap = Heap()
    room = _room.Room(1_000_000, heap.look, heap.trim)
    for _ in range(900):
        assert not room.refuses(0.0, 1000)
        room.left -= 1000
    assert heap.looks == 1
    for _ in range(200):
        heap.used += 1000
        room.refuses(0.0, 1000)
        room.left -= 1000
    assert 2 <= heap.looks <= 3
    looks = heap.looks
    assert not room.refuses(0.2, 1)
    assert not room.refuses(0.25, 1)
    assert heap.looks == looks + 1


def test_small_calls_have_a_little_more_room() -> None:
    """Up to the limit all is taken, in the eighth above only what is small, beyond that nothing."""
    heap = Heap()
    room = _room.Room(80_000, heap.look, heap.trim)
    for used, small, large in (
        (80_000, False, False),
        (80_001, False, True),
        (90_000, False, True),
        (90_001, True, True),
    ):
        heap.used = used
        room.until = 0.0
        assert (room.refuses(1.0, 10), room.refuses(1.0, 2000)) == (small, large)
    heap.used = 50_000
    assert not room.refuses(1.0, 2000)
    assert room.has_for(1.0, 28_000)
    assert not room.has_for(1.0, 30_001)


def test_what_was_freed_is_asked_for_before_anything_is_refused() -> None:
    """At most once a second, and only where something was freed since."""
    heap = Heap()
    room = _room.Room(1000, heap.look, heap.trim)
    heap.used, heap.kept = 500, 600
    assert not room.refuses(1.0, 0)
    assert heap.trims == 1
    heap.used = 1200
    assert room.refuses(1.2, 0)
    room.note_freed()
    heap.used, heap.kept = 900, 300
    assert room.refuses(1.3, 0)
    assert heap.trims == 1
    assert not room.refuses(2.1, 0)
    assert heap.trims == 2


def test_who_finds_no_room_can_read_and_remove() -> None:
    """And delete; nothing that adds to what is held is done, and no object is made."""
    heap = Heap()
    room = _room.Room(1_000_000, heap.look, heap.trim)
    host = make_host(room=room)
    pipe = Pipe(host)
    pipe.ask("plain:x", "setdefault", "a", 1)
    heap.used = 2_000_000
    pipe.now += 1.0
    index = host.engine.index
    for title, method, args in (("plain:x", "setdefault", ("b", 1)), ("plain:y", "pop", ("a",))):
        with pytest.raises(RegistryError) as caught:
            pipe.ask(title, method, *args)
        assert str(caught.value) == (
            f"{title}.{method}() had no effect: server 'x' (pid 1) holds 2000000 bytes of at most 1000000, its limit "
            "'stored'. Remove or delete what is not needed, or serve with --limit stored=N"
        )
    assert host.engine.index == index
    assert pipe.ask("plain:x", "copy") == {"a": 1}
    assert pipe.ask("plain:x", "pop", "a") == 1
    assert pipe.ask("plain:x", DELETE) is None
    heap.used = 0
    pipe.now += 1.0
    pipe.ask("plain:z", "setdefault", "b", 1)


def test_what_gives_back_finds_room() -> None:
    """A lock can be released, and a turn ended, however full it is; but not with a value of size."""
    heap = Heap()
    host = make_host(room=_room.Room(1_000_000, heap.look, heap.trim))
    pipe = Pipe(host)
    pipe.ask("lock:l", "acquire")
    pipe.ask("dict:d", "__setitem__", "k", 1)
    turn = pipe.ask("dict:d", "edit", "k")[0]
    heap.used = 2_000_000
    pipe.now += 1.0
    with pytest.raises(RegistryError, match=r"dict:d\.edit\(\) had no effect"):
        pipe.ask("dict:d", "edit", "k", turn, "x" * 200)
    pipe.ask("dict:d", "edit", "k", turn)
    pipe.ask("lock:l", "release")
    with pytest.raises(RegistryError, match=r"lock:l\.acquire\(\) had no effect"):
        pipe.ask("lock:l", "acquire")


def test_a_queue_can_be_emptied(home: Path) -> None:
    """Consumers go on where producers are refused."""
    with ManagerServer("x", KEY) as server, connect("x", KEY) as shared:
        jobs = shared.queue("jobs")
        for number in range(5):
            jobs.put(number)
        heap = Heap()
        heap.used = 2_000_000
        server.host.bounds.room = _room.Room(1_000_000, heap.look, heap.trim)
        with pytest.raises(RegistryError, match=r"queue:jobs\.put\(\) had no effect"):
            jobs.put(5)
        with jobs.claim() as item:
            assert item == 0
        assert [jobs.get(), jobs.get_nowait(), *jobs.get_many(5)] == [1, 2, 3, 4]


@linux
@pytest.mark.parametrize("size", [100_000, 400_000], ids=["socket", "file"])
def test_a_server_ends_writes_before_the_system_ends_it(home: Path, size: int) -> None:
    """With a real limit and real memory: reads and deletes go on, and after these so do writes."""
    with server_processes.running("serve", "x", "--limit", "stored=16M", "--json") as process:
        assert process.stdout is not None
        process.stdout.readline()
        with connect("x", start=False) as shared:
            d = shared.dict("d")
            d["small"] = 1
            with pytest.raises(RegistryError, match="its limit 'stored'"):
                for number in range(1000):
                    d[number] = os.urandom(size)
            assert 12_000_000 // size <= len(d) <= 20_000_000 // size
            kept = len(d) - 2
            assert len(d[kept]) == size
            with pytest.raises(RegistryError, match="its limit 'stored'"):
                d[0] = os.urandom(size)
            d["small"] = 2
            for number in range(kept + 1):
                del d[number]
            d.clear()
            for number in range(5):
                d[number] = os.urandom(size)
            assert len(d) == 5


@linux
def test_what_others_could_be_killed_for_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four fifths of the tightest limit, or of the machine's memory; half of that with a log, which is folded."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "cgroup").write_text("0::/a/b\n")
    monkeypatch.setattr(_room, "_GROUP", str(tmp_path / "cgroup"))
    monkeypatch.setattr(_room, "_GROUPS", str(tmp_path))
    assert _room.allowed(log=False) == int(machine * 0.8)
    (tmp_path / "a" / "memory.max").write_text("100000000\n")
    (tmp_path / "a" / "memory.current").write_text("99000000\n")
    (tmp_path / "a" / "b" / "memory.max").write_text("max\n")
    (tmp_path / "a" / "b" / "memory.current").write_text("5000\n")
    assert _room.allowed(log=False) == 80_000_000
    assert _room.allowed(log=True) == 40_000_000
    room = _room.ServersRoom(None, log=False)
    assert 0 <= room.used() < 50_000_000
    assert room.limit <= 80_000_000
    room.close()


@linux
def test_files_of_large_values_count(tmp_path: Path) -> None:
    """They are memory, too, as long as they are the server's."""
    shelf = Shelf.open(str(tmp_path))
    assert shelf is not None
    try:
        assert put(shelf.path, "x", [bytes(1000)])
        taken = shelf.take("x", 1000)
        assert shelf.held == 1000
        del taken
        assert shelf.held == 0
    finally:
        shelf.close()


# -- threads


def test_threads_that_idle_make_room_and_others_do_not() -> None:
    """A session whose threads come and go is served; one that keeps all of its own busy is told so."""
    posts: queue.SimpleQueue[Any] = queue.SimpleQueue()
    limits = Limits(threads=8)
    threads = ThreadedObjects(posts.put, limits)
    gate = threading.Semaphore(0)
    declaration = SharedObject("gated", lambda: Gated(gate), threaded=True, exposed=("go", "wait"))
    host = Host({"gated": declaration}, IDENTITY, seed=b"", now=START, threads=threads, limits=limits)
    threads.host = host
    pipe, other = Pipe(host, 1), Pipe(host, 2)

    def take(count: int) -> None:
        for _ in range(count):
            posts.get(timeout=10)()
        pipe.hear()

    try:
        for owner in range(1, 12):
            seq = pipe.call("gated:x", "go", fields={_wire.OWNER: owner})
            pipe.deliver()
            take(1)
            assert pipe.outcomes[seq] == "gone"
            assert threads.count <= 2
        busy = [pipe.call("gated:x", "wait", fields={_wire.OWNER: owner}) for owner in (20, 21)]
        pipe.deliver()
        refused = pipe.call("gated:x", "wait", fields={_wire.OWNER: 22})
        pipe.deliver()
        pipe.hear()
        assert str(pipe.outcomes[refused]) == (
            "gated:x.wait() had no effect: server 'x' (pid 1) has 8 threads, of which one session has a quarter, and "
            "none is free, its limit 'threads'. Try again once calls have ended, or serve with --limit threads=N"
        )
        seq = other.call("gated:x", "go")
        other.deliver()
        take(1)
        other.hear()
        assert other.outcomes[seq] == "gone"
        gate.release(2)
        take(2)
        assert [pipe.outcomes[seq] for seq in busy] == ["waited", "waited"]
    finally:
        gate.release(100)
        threads.stop()


def test_a_thread_does_not_idle_while_a_call_is_on_its_way_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the queue and the call neither the one nor the other shows that there is something to do."""
    taken, go = threading.Event(), threading.Event()

    class Between(queue.SimpleQueue[Any]):
        def get(self, *args: Any) -> Any:
            job = super().get(*args)
            taken.set()
            go.wait(10)
            return job

    monkeypatch.setattr(_threads, "queue", SimpleNamespace(SimpleQueue=Between))
    worker = _threads._Worker("between")
    worker.give(lambda: None)
    assert taken.wait(10)
    assert not worker.is_idle
    go.set()
    worker.end()
    worker.thread.join(10)
    assert worker.is_idle


class Gated:
    """Wait where it is told to, as only a threaded object may."""

    def __init__(self, gate: threading.Semaphore) -> None:
        self.gate = gate

    def go(self) -> str:
        return "gone"

    def wait(self) -> str:
        self.gate.acquire()
        return "waited"


def test_threaded_objects_are_counted_too() -> None:
    """One too many is refused on its thread, with the same words."""
    posts: queue.SimpleQueue[Any] = queue.SimpleQueue()
    limits = Limits(objects=1)
    threads = ThreadedObjects(posts.put, limits)
    declaration = SharedObject("gated", lambda: Gated(threading.Semaphore()), threaded=True, exposed=("go",))
    host = Host({"gated": declaration}, IDENTITY, seed=b"", now=START, threads=threads, limits=limits)
    threads.host = host
    pipe = Pipe(host)
    try:
        for name in "xy":
            pipe.call(f"gated:{name}", "go")
            pipe.deliver()
            posts.get(timeout=10)()
        pipe.hear()
        assert pipe.outcomes[1] == "gone"
        assert "gated:y.go() had no effect: server 'x' (pid 1) has 1 objects, its limit 'objects'" in str(
            pipe.outcomes[2]
        )
        assert [row[1] for row in threads.objects()] == ["x"]
    finally:
        threads.stop()


# -- stock clients


def stock_server(**limits: Any) -> Server:
    """Return a server for stock clients with these limits."""
    server = Server()
    server.host = Host(server.host.declarations, IDENTITY, seed=b"seed", now=START, limits=Limits(**limits))
    server.stock = StockSessions(server)
    return server


def test_a_stock_request_that_is_too_large_is_refused_in_words() -> None:
    """It is dropped as it comes, and the connection is asked further."""
    server = stock_server(arguments=100_000)
    process = Process(server)
    ident = process.make("dict", "d")
    thread = process.thread()
    thread.call(ident, "__setitem__", "a", 1)
    request = frame(pickle.dumps((ident, "__setitem__", ("a", bytes(200_000)), {}), 2))
    more = frame(pickle.dumps((ident, "get", ("a",), {}), 2))
    for start in range(0, len(request), 50_000):
        thread.stock.feed(request[start : start + 50_000])
        assert len(thread.stock._buffer) < 100_000
    ((kind, error),) = thread.answers()
    assert kind == "#TRACEBACK"
    assert "takes 100000 bytes of arguments in one call, its limit 'arguments'. Put them in parts" in str(error)
    thread.stock.feed(request + more)
    (_, (kind, value)) = thread.answers()
    assert (kind, value) == ("#RETURN", 1)


def test_what_a_stock_session_has_a_name_for_is_bounded() -> None:
    """However many objects a process calls; each of them is found again."""
    server = stock_server(handles=16)
    process = Process(server)
    idents = [process.make("counter", str(number)) for number in range(40)]
    thread = process.thread()
    for turn in (1, 2):
        assert [thread.call(ident, "incr") for ident in idents] == [turn] * 40
    session = thread.stock.session
    assert session is not None
    assert len(session._targets) <= 16
    assert len(session._definitions) <= 16


def test_a_stock_peer_has_so_many_sessions_and_no_more() -> None:
    """A host whose clients name themselves anew each time is stopped, in words."""
    server = stock_server(sessions=3)
    host = Process(server, None, host="10.0.0.7")
    for number in range(3):
        host.thread(f"name {number}")
    with pytest.raises(StockError, match="host 10.0.0.7 has 3 sessions here, the limit 'sessions'"):
        host.thread("one more")
    Process(server, None, host="10.0.0.8").thread("another")


def test_a_stock_name_has_an_end() -> None:
    """As any other name."""
    server = stock_server()
    with pytest.raises(ValueError, match="the name of a shared counter has 4096 letters at most"):
        Process(server).make("counter", "n" * 4097)
    assert server.host.objects() == []


# -- files that may be open

CROWDED = """
import asyncio, logging, os, resource, sys
from registry import ManagerServer, server as module
from registry._process import new_loop

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s %(message)s")
logging.getLogger("registry").addFilter(lambda record: "accepting" in record.getMessage())
if sys.argv[2] == "asyncio":
    module.new_loop = asyncio.new_event_loop
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[3]), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
server = ManagerServer(sys.argv[1], b"the key of the tests", limits={"strangers": 4096})
server.on_ready = lambda: print("ready", flush=True)
server.run()
"""


@linux
@pytest.mark.parametrize("loop", ["installed", "asyncio"])
def test_where_no_file_can_be_opened_nobody_is_accepted_until_some_are_closed(home: Path, loop: str) -> None:
    """Clients that are there go on; who comes waits, and is let in; the log says it once, and then that it is over."""
    with Script(CROWDED, "x", loop, 80) as process:
        while process.line() != "ready":
            pass
        with connect("x", KEY, start=False) as shared:
            d = shared.dict("d")
            d["large"] = bytes(300_000)  # goes through a file of the server's
            crowd = [socket.socket(socket.AF_UNIX) for _ in range(120)]
            try:
                for stranger in crowd:
                    stranger.connect(str(home / "x" / "socket"))
                assert process.line() == (
                    "WARNING accepting no connections until some have gone, since nearly all files are open that may "
                    "be (80 may be open); raise LimitNOFILE= of the unit, or ulimit -n"
                )
                descriptors = f"/proc/{process.pid}/fd"
                for number in range(50):
                    d["large"] = bytes([number]) * 300_000
                    assert d["large"][0] == number
                    assert len(os.listdir(descriptors)) <= 80 - 4
                late = threading.Thread(target=come_late)
                late.start()
                for stranger in crowd:
                    stranger.close()
                assert process.line() == "INFO accepting connections again"
                late.join(20)
                assert not late.is_alive()
                assert d["late"] == 1
            finally:
                for stranger in crowd:
                    stranger.close()


def come_late() -> None:
    """Connect as a client of its own, however long that takes, and leave a trace."""
    with another("x", KEY, start=False) as client:
        client.dict("d")["late"] = 1


# -- lengths that nobody has


def memory_of(pid: int) -> int:
    """Return how many bytes of memory a process has for itself."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")


def stock_length(length: int) -> bytes:
    """Return the beginning of a message as multiprocessing writes it."""
    return struct.pack("!i", length) if -2 <= length <= 0x7FFFFFFF else struct.pack("!iQ", -1, length)


HOSTILE = [
    ("before", stock_length(0x7FFFFFFF)),
    ("before", stock_length(-2)),
    ("before", stock_length(1 << 63)),
    ("native", _wire.HEADER.pack(0x7FFFFFFF, Kind.CALL, 0, 0, 1, 1, 0, 0)),
    ("native", _wire.HEADER.pack(0xFFFFFFFF, Kind.CALL, 0, 0, 1, 1, 0, 0)),
    ("native", _wire.HEADER.pack(_wire.MAX_BODY, Kind.CALL, _wire.MORE, 0, 1, 1, 0, 0)),
    ("stock", stock_length(0x7FFFFFFF)),
    ("stock", stock_length(1 << 63)),
    ("stock", stock_length(-2)),
    ("stock", stock_length(200 << 20)),
]


@linux
def test_hostile_lengths_take_no_memory(home: Path) -> None:
    """Before the key is shown and after, in both protocols, too long, negative and as long as may be."""
    with server_processes.running("serve", "x", "--json") as process, contextlib.ExitStack() as kept:
        assert process.stdout is not None
        process.stdout.readline()
        path = home / "x" / "socket"
        shared = kept.enter_context(connect("x", start=False))
        counter = shared.counter("c")
        for where, _ in HOSTILE:  # what is needed for a connection of each kind is there then
            opened(path, where, kept)
        counter.incr()
        before = memory_of(process.pid)
        for where, head in HOSTILE:
            opened(path, where, kept).sendall(head)
        for _ in range(5):
            counter.incr()
        assert memory_of(process.pid) - before < 1 << 20


def opened(path: Path, where: str, kept: contextlib.ExitStack) -> socket.socket:
    """Return a connection that has shown no key, or is a native or a stock client's, and does as it likes."""
    key = load_key(path.parent / "key", create=False)
    if where == "stock":
        client = Client(str(path), authkey=key)
        kept.callback(client.close)
        return kept.enter_context(socket.socket(fileno=os.dup(client.fileno())))
    if where == "native":
        transport = dial(parse(f"unix://{path}"), key, time.monotonic() + 30).transport
        assert isinstance(transport, SocketTransport)
        hello = _wire.Attach(os.urandom(16), 0, "", "raw", "raw", "1", 0, {})
        transport.send(_wire.pack(Kind.ATTACH, _wire.encode(hello), generation=1))
        sock = kept.enter_context(transport.detach())
    else:
        sock = kept.enter_context(socket.socket(socket.AF_UNIX))
        sock.connect(str(path))
    assert sock.recv(4096)
    return sock


# -- strangers


def test_those_who_never_show_the_key_are_cut_in_order_and_keep_nobody_out(home: Path) -> None:
    """Silent ones, and those who send a byte now and then: all go, and meanwhile a client comes in."""
    with ManagerServer("x", KEY, limits={"handshake": 0.5, "strangers": 500}) as server:
        crowd = [socket.socket(socket.AF_UNIX) for _ in range(220)]
        ends: list[int] = []
        try:
            for stranger in crowd:
                stranger.connect(str(server.address))
                assert stranger.recv(4096)
            for data in (b"\0", b"\0", b"\0", b"\x6a", b"x"):
                for stranger in crowd[200:]:
                    with contextlib.suppress(OSError):
                        stranger.send(data)
                with another("x", KEY) as client:
                    client.counter("c").incr()
            poll = select.poll()
            places = {stranger.fileno(): place for place, stranger in enumerate(crowd)}
            for number in places:
                poll.register(number, select.POLLHUP)
            while len(ends) < len(crowd):
                found = poll.poll(20_000)
                assert found
                for number, _ in found:
                    poll.unregister(number)
                    ends.append(places[number])
        finally:
            for stranger in crowd:
                stranger.close()
        assert sorted(ends) == list(range(220))
        with connect("x", KEY) as shared:
            assert shared.counter("c").get() == 5
            assert len(server.door) == 0


def test_large_answers_to_one_that_does_not_read_end_its_turn() -> None:
    """No more are made than may wait, though more calls have come."""
    connection = Connection.__new__(Connection)
    connection._attachment = Attachment()
    connection._server = SimpleNamespace(limits=Limits(unsent=100_000))  # type: ignore[assignment]
    assert not connection._has_much_to_send()
    connection._attachment.outbox += [bytes(60_000)]
    assert not connection._has_much_to_send()
    connection._attachment.outbox += [bytes(60_000)]
    assert connection._has_much_to_send()
