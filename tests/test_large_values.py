"""Large values: beside their messages, through files between processes of one host, else in further frames."""

from __future__ import annotations

import gc
import os
import re
import sys
import threading
from collections.abc import Iterator
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any

import pytest
from servers import KEY, Script, Served, Wire, another, running

from registry import ManagerClient, ManagerServer, _codec, _shelf, _wire
from registry._attachments import Attachment, joined
from registry._leaves import Carried, OpaqueValue, Parts
from registry._objects import redacted
from registry._wire import Frame, Kind, ProtocolError, Reader
from registry.errors import NotShareable

MB = 1 << 20

PUTTER = """
import sys
from registry import connect
shared = connect(sys.argv[1], b"the key of the tests")
shared.dict("d")["blob"] = b"x" * int(sys.argv[2])
print("put", flush=True)
sys.stdin.readline()
"""
PEAK = """
import resource, sys
from registry import _shelf, connect
_shelf.is_visible = lambda path: False
size = int(sys.argv[2])
blobs = connect(sys.argv[1], b"the key of the tests").dict("d")
blobs["small"] = b"s" * 1000
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
value = bytes(size)
blobs["blob"] = value
del value
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, flush=True)
assert len(blobs["blob"]) == size
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, flush=True)
"""

needs_files = pytest.mark.skipif(sys.platform != "linux", reason="files of large values need Linux")


class Bulk:
    """A value that only pickle knows, with a buffer that can stand outside of the pickle."""

    def __init__(self, memory: Any) -> None:
        self.memory = memory

    def __reduce_ex__(self, protocol: Any) -> Any:
        import pickle

        return Bulk, (pickle.PickleBuffer(self.memory),)


@pytest.fixture(params=["files", "socket"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How values travel: by files, or by the socket as between hosts."""
    if request.param == "socket":
        monkeypatch.setattr(_shelf, "is_visible", lambda path: False)
    elif sys.platform != "linux":
        pytest.skip("files of large values need Linux")
    return str(request.param)


@pytest.fixture
def server() -> Iterator[ManagerServer]:
    server = ManagerServer("here", KEY).start()
    yield server
    server.stop()


@pytest.fixture
def client(server: ManagerServer, way: str) -> Iterator[ManagerClient]:
    with another(server.url) as client:
        yield client


def files(server: ManagerServer, room: str = "out") -> list[str]:
    assert server._shelf is not None
    return sorted(os.listdir(os.path.join(server._shelf.path, room)))


BESIDE = _codec._bulk.BESIDE
SIZES = [BESIDE - 6, BESIDE, _shelf.LARGE - 6, _shelf.LARGE, MB, _wire.MAX_BODY + 1]


@pytest.mark.parametrize("size", SIZES)
def test_they_come_back_as_they_were(client: ManagerClient, size: int) -> None:
    """Around each threshold: bytes, containers of them, and what pickle makes, by every verb that gives back."""
    blobs, jobs = client.dict("d"), client.queue("q")
    value = os.urandom(1000) * (size // 1000) + bytes(size % 1000)
    blobs["k"] = value
    assert blobs["k"] == value
    assert blobs.compare_and_set("k", value, [value, 1])
    assert blobs["k"] == [value, 1]
    blobs.update({"a": value, "b": 1, "c": Bulk(bytearray(value))})
    back = blobs.copy()
    assert (back["a"], back["b"], back["k"]) == (value, 1, [value, 1])
    assert bytes(back["c"].memory) == value
    assert [key for key, _ in blobs.items()] == ["k", "a", "b", "c"]
    assert blobs.pop("a") == value
    with blobs.edit("k") as changed:
        changed[1] = value
    assert blobs["k"] == [value, value]
    jobs.put(value)
    with jobs.claim() as item:
        assert item == value


@pytest.mark.parametrize("size", SIZES[-2:])
def test_memory_servers_take_them_too(size: int) -> None:
    """Without a socket the frames are the same."""
    with ManagerClient("memory://") as shared:
        shared.dict("d")["k"] = bytes(size)
        assert shared.dict("d")["k"] == bytes(size)


@needs_files
def test_a_value_is_one_file_of_the_servers(server: ManagerServer) -> None:
    """It is gone when it is replaced, readers that have mapped it go on, and a stop leaves nothing."""
    with another(server.url) as one, another(server.url) as two:
        blobs = one.dict("d")
        blobs["k"] = Bulk(b"x" * MB)
        assert len(files(server)) == 1 and files(server, "in") == []
        mapped = two.dict("d")["k"].memory
        assert mapped.readonly
        blobs["k"] = 1
        two.dict("d")["k"]  # its session has said by now that it has the reply before
        gc.collect()
        assert files(server) == []
        assert bytes(mapped) == b"x" * MB
        blobs["k"] = b"y" * MB
        path = server._shelf.path if server._shelf is not None else ""
    server.stop()
    assert path and not os.path.exists(path)


@needs_files
def test_it_outlives_its_writer(server: ManagerServer) -> None:
    """The value stays when the process that put it is killed."""
    with Script(PUTTER, server.url, MB) as writer:
        assert writer.line() == "put"
        writer.kill()
    with another(server.url) as client:
        assert client.dict("d")["blob"] == b"x" * MB
    assert len(files(server)) == 1


@needs_files
def test_a_killed_server_leaves_nothing_for_long(home: Path) -> None:
    """The next server that starts sweeps the shelf of one that was killed."""
    with Served("here") as server, another(server.url) as client:
        client.dict("d")["k"] = bytes(MB)
        path = client._home.link().files
        assert os.path.isdir(path)
        server.kill()
        assert os.path.isdir(path)
        with Served("there"):
            assert not os.path.exists(path)


@needs_files
def test_a_file_that_was_removed_on_the_way_is_sent(server: ManagerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody clears the directory before the server has taken a file, the call runs once, with its bytes."""
    put = _shelf.put

    def put_and_lose(path: str, name: str, pieces: Any) -> bool:
        assert put(path, name, pieces)
        os.unlink(os.path.join(path, "in", name))
        return True

    monkeypatch.setattr(_shelf, "put", put_and_lose)
    with another(server.url) as client:
        client.queue("q").put(b"z" * MB)
        assert client.queue("q").qsize() == 1
        assert client.queue("q").get() == b"z" * MB
        client.queue("q").put(b"y" * MB)
        assert client.queue("q").qsize() == 1


@needs_files
@pytest.mark.parametrize("verb", ["get", "pop", "read"])
def test_a_file_that_was_removed_later_is_sent(server: ManagerServer, verb: str) -> None:
    """Where somebody clears the directory afterwards, nothing is lost: neither an item that was taken, nor a value."""
    with another(server.url) as client:
        blobs, jobs = client.dict("d"), client.queue("q")
        jobs.put(b"z" * MB)
        blobs["k"] = b"z" * MB
        assert server._shelf is not None
        for name in files(server):
            os.unlink(os.path.join(server._shelf.path, "out", name))
        taken = {"get": jobs.get, "pop": lambda: blobs.pop("k"), "read": lambda: blobs["k"]}[verb]()
        assert taken == b"z" * MB
        assert jobs.qsize() == (0 if verb == "get" else 1)
        assert len(blobs) == (0 if verb == "pop" else 1)


@needs_files
def test_without_room_the_socket_takes_them(server: ManagerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container, whose tmpfs is small."""

    class Full:
        f_bavail = 1
        f_frsize = 4096

    monkeypatch.setattr(os, "statvfs", lambda path: Full)
    with another(server.url) as client:
        client.dict("d")["k"] = b"x" * MB
        assert client.dict("d")["k"] == b"x" * MB
    assert files(server) == []


@needs_files
def test_what_a_session_has_left_is_swept(server: ManagerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose call never came goes with the session of its writer."""
    monkeypatch.setattr(_wire, "call_pieces", lambda body, items: [_wire.encode(body)])
    with another(server.url) as client:
        with pytest.raises(ValueError, match="the arguments of this call cannot be read"):
            client.dict("d")["k"] = b"x" * MB
        assert len(files(server, "in")) == 1
    with another(server.url) as client:
        client.dict("d").copy()
        assert files(server, "in") == []


def test_cuts_lose_and_double_nothing(way: str) -> None:
    """Over a wire that is cut in the middle of values, each item is put once and taken once, whole."""
    with ManagerServer("tcp://127.0.0.1:0", KEY) as server:
        host, port = server.address
        with Wire(str(host), int(port)) as wire, another(f"tcp://127.0.0.1:{wire.port}") as client:
            wire.cut_between(200_000, 900_000)
            jobs = client.queue("q")
            for number in range(12):
                jobs.put(bytes([number]) * 150_000)
                if number % 3 == 2:
                    wire.cut()
            assert jobs.qsize() == 12
            assert [jobs.get()[:2] for _ in range(12)] == [bytes([number]) * 2 for number in range(12)]
            assert jobs.empty()
            wire.cut_no_more()
        assert wire.cuts


@pytest.mark.once
def test_a_hundred_megabytes_take_two_copies_at_most(home: Path) -> None:
    """By the socket, on both sides and both ways; and meanwhile others are served."""
    size = 100 * MB
    with Served("here") as server, another(server.url) as other:
        counter = other.counter("c")
        before = _peak(server.pid)
        stop = threading.Event()

        def count() -> None:
            while not stop.is_set():
                counter.incr()

        with running(count), Script(PEAK, server.url, size) as client:
            try:
                put, got = int(client.line()) * 1024, int(client.line()) * 1024
            finally:
                stop.set()
            assert client.wait() == 0
        assert put < 1.5 * size and got < 2.5 * size
        assert _peak(server.pid) - before < 2.5 * size
        assert int(counter) > 10


def _peak(pid: int) -> int:
    """Return the most memory that a process has had at once."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def test_a_log_holds_the_bytes(home: Path, way: str) -> None:
    """After the death of the server, and its files with it, the values and the items are there."""
    with Served("here", log="process") as server, another(server.url) as client:
        client.dict("d")["k"] = b"x" * MB
        client.queue("q").put(Bulk(b"y" * MB))
        server.kill()
        with Served("here", log="process"):
            assert client.dict("d")["k"] == b"x" * MB
            client.dict("d")["l"] = b"z" * MB
        with Served("here", log="process"):
            assert client.dict("d")["l"] == b"z" * MB
            assert bytes(client.queue("q").get().memory) == b"y" * MB


# -- frames


def read_all(pieces: list[Any], step: int = 70_000) -> list[Frame]:
    """Feed a reader in parts, and return what comes out."""
    reader, data, found = Reader(), b"".join(pieces), []
    for start in range(0, len(data), step):
        reader.feed(data[start : start + step])
        found += list(reader)
    assert reader.pending == reader.missing == 0
    return found


@pytest.mark.parametrize("step", [1 << 20, 65_536, 9_999])
@pytest.mark.parametrize("sizes", [[10], [_wire.SMALL], [_wire.MAX_BODY], [_wire.MAX_BODY + 1, 3, 70_000, 0]])
def test_pieces_are_frames(sizes: list[int], step: int) -> None:
    """However a body is cut into pieces, and the stream into reads, one message comes out of it."""
    pieces = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    frames = _wire.pack_pieces(Kind.REPLY, list(pieces), flags=_wire.PARTS, generation=2, sequence=3, applied=4)
    small = _wire.pack(Kind.HEARD, b"beat")
    found = read_all([*frames, small, *frames], step)
    assert [frame.kind for frame in found] == [Kind.REPLY, Kind.HEARD, Kind.REPLY]
    assert found[0].body == b"".join(pieces)
    assert (found[0].generation, found[0].sequence, found[0].applied, found[0].flags) == (2, 3, 4, _wire.PARTS)
    assert found[1].body == b"beat"


def test_items_lie_as_numbers_should() -> None:
    """What stands beside a reply begins at a multiple of 16 bytes; files stand as their names."""
    for length in range(20):
        row = [b"i" * 70_001, ("1", 5), _codec.Pieces([b"ab", b"c" * 70_000])]
        body = b"".join(_wire.reply_pieces(b"h" * length, row))
        head, items = _wire.split_reply(body)
        assert head == b"h" * length
        assert [bytes(item) if type(item) is not tuple else item for item in items] == [row[0], row[1], bytes(row[2])]
        for item in (items[0], items[2]):
            assert body.index(bytes(item[:70_001])) % 16 == 0
    with pytest.raises(ProtocolError, match="a reply that cannot be read"):
        _wire.split_reply(b"\xc1")


def test_a_value_above_the_limit_is_refused_before_it_is_there() -> None:
    """The sum of the parts is looked at when each is announced."""
    reader = Reader(limit=200_000)
    header = _wire.HEADER.pack(150_000, Kind.CALL, _wire.MORE, 0, 1, 1, 0, 0)
    reader.feed(header + bytes(150_000) + header)
    with pytest.raises(ProtocolError, match="a value of more than 200000 bytes"):
        reader.next()


def test_what_is_too_large_is_refused_at_the_sender(client: ManagerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a call nor a reply may be larger than what its reader takes; nothing is sent, and the rest goes on."""
    blobs = client.dict("d")
    blobs["a"] = blobs["b"] = b"x" * 600_000
    monkeypatch.setattr(_codec._bulk, "MOST", 1_000_000)
    cure = "bytes cannot be shared: one call or reply may have 1000000: send it in parts"
    with pytest.raises(NotShareable, match=f"a value of 10000.. {cure}"):
        blobs["c"] = b"y" * 1_000_000
    with pytest.raises(NotShareable, match=f"a value of 12000.. {cure}"):
        blobs.copy()
    assert blobs.keys() == ["a", "b"]
    assert blobs["a"] == b"x" * 600_000


# -- encodings with parts


def test_others_do_not_get_a_large_pickle() -> None:
    """What stands beside a reply is taken out of it for readers of another domain."""
    secret, plain = Carried(bytes(MB), "host:1", "shop.Cookie"), Carried(_codec.encode(b"p" * MB))
    body = _codec.encode_result([secret, plain, 1])
    assert isinstance(body, Parts) and len(body.buffers) == 2
    assert redacted(body, "host:1") is body
    other = redacted(body, "host:2")
    assert isinstance(other, Parts) and other.buffers == (plain.data,)
    assert _codec.decode(other) == [OpaqueValue("shop.Cookie", "host:1"), plain, 1]


def test_parts_are_the_same_wherever_they_lie() -> None:
    """A reply of views is that of the bytes, so that an engine which has read its log gives the same."""
    data = _codec.encode(b"p" * MB)
    one, two = (_codec.encode_result({"k": Carried(each)}) for each in (data, memoryview(data)))  # type: ignore[arg-type]
    assert one == two
    assert Carried(data) == Carried(memoryview(data)) and hash(Carried(data)) == hash(Carried(memoryview(data)))  # type: ignore[arg-type]
    assert _codec.canonical([Carried(data)]) == _codec.canonical([Carried(memoryview(data))])  # type: ignore[arg-type]


@pytest.mark.parametrize("head", [[5], [-1], [0, "", "kind"], [0, 1, 2], "0", []])
def test_wrong_parts_are_refused(head: Any) -> None:
    """A number without a part, and whatever else is not as drawn."""
    import msgspec

    data = msgspec.msgpack.encode(msgspec.msgpack.Ext(47, msgspec.msgpack.encode(head)))
    with pytest.raises(_codec.CodecError):
        _codec.decode(Parts(data, (b"\x01",)))
    with pytest.raises(_codec.CodecError):
        _codec.decode(data)


def test_damaged_blobs_are_refused() -> None:
    """A value with buffers that was cut, or whose table points elsewhere, is none."""
    whole = bytes(_codec._bulk.blob(b"\xd6\x28\x91\x00\x00\x00"[:3], [memoryview(b"b" * 5000)]))
    skeleton, buffers = _codec._bulk.split(whole)
    assert (bytes(skeleton), list(map(bytes, buffers))) == (b"\xd6\x28\x91", [b"b" * 5000])
    assert not (len(whole) - 5000) % 64
    for damaged in (
        whole[:-1],
        whole + b"x",
        whole[:12] + b"\xff" + whole[13:],
        whole[:20],
        whole[:16] + b"\x00" * 8 + whole[24:],
    ):
        with pytest.raises(_codec.CodecError):
            _codec.decode_carried(Carried(damaged))


@pytest.mark.parametrize("size", [1000, 10_000, MB])
def test_stock_clients_read_them_too(server: ManagerServer, size: int) -> None:
    """What stands outside of a pickle goes with it, and is opened by the reader alone."""

    class Stock(BaseManager):
        pass

    Stock.register("dict")
    stock = Stock(server.address, KEY)
    with another(server.url) as client:
        client.dict("d").update({"blob": b"b" * size, "bulk": Bulk(b"x" * size)})
        stock.connect()
        proxy = stock.dict("d")  # type: ignore[attr-defined]
        assert proxy.get("blob") == b"b" * size
        assert bytes(proxy.get("bulk").memory) == b"x" * size
        proxy.update({"back": b"c" * size})
        assert client.dict("d")["back"] == b"c" * size


def test_dumps_show_them(home: Path) -> None:
    """What a log holds is shown also where it is large, or of a class that only its users have declared."""
    import msgspec

    from registry._log import _dump

    call = _codec.encode_call(("k", b"x" * MB), {}, {"value": 1})
    assert isinstance(call, Parts)
    whole = Parts(call.head, tuple(map(bytes, call.buffers)))
    assert _dump._arguments(whole) == f"'k', {b'x' * MB!r}"
    declared = msgspec.msgpack.encode(msgspec.msgpack.Ext(32, msgspec.msgpack.encode(["nobody.Knows", 1])))
    assert repr(_dump.opened(Carried(declared))) == "<a value of the declared type 'nobody.Knows'>"


class NoFiles:
    """A shelf on which nothing lies."""

    def take(self, name: str, length: int) -> memoryview:
        raise LookupError(name)

    def name_of(self, buffer: object) -> str:
        return ""

    def discard(self, key: bytes) -> None:
        """There is nothing."""


def test_wrong_items_end_the_connection_and_missing_files_do_not() -> None:
    """A call that names nothing, or too much, breaks the protocol; one whose file is gone is asked for again."""
    seeing, blind = Attachment(), Attachment()
    seeing.sees_files = True
    for items in ([], [("1", 0)], [("1", -1)], [("1", _wire.MAX_VALUE + 1)]):
        with pytest.raises(ProtocolError):
            joined(seeing, b"", items, NoFiles())
    with pytest.raises(ProtocolError):
        joined(seeing, Parts(b"", ()), [b"x"], NoFiles())
    for attachment, files in ((seeing, NoFiles()), (seeing, None), (blind, NoFiles()), (None, NoFiles())):
        with pytest.raises(LookupError):
            joined(attachment, b"", [("1", 5)], files)
    assert joined(blind, b"h", [b"one", memoryview(b"two")], None) == Parts(b"h", (b"one", b"two"))
