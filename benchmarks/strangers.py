"""What peers cost that do not behave: those who never show the key, hostile lengths, and a client that never reads.

Each figure stands beside the same one of a server that is left alone, measured in the same run.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from benchmarks.harness import Bench, Row, Server, crew
from benchmarks.peers import Statement

SILENT, DRIPPING = 2000, 200
LARGE = 100_000  # bytes of a reply that nobody reads
REPLIES = 1000

NATIVE = struct.Struct("!IBBHIQQQ")
FRAME_CALL = 2


def measure(bench: Bench) -> list[Row]:
    """Measure all three on servers of their own."""
    return [*_strangers(bench), _headers(bench), *_deaf(bench)]


def path_of(server: Server) -> str:
    """Return the socket of our server."""
    return str(server.home / server.home.name / "socket")


def _strangers(bench: Bench) -> Iterator[Row]:
    """Connect as a client does, alone and beside a crowd that never shows the key, and look when that is cut."""
    silent, dripping = bench.size((SILENT, DRIPPING), (20, 5))
    handshake = bench.size(10.0, 1.0)
    with bench.served(["registry"], limits=f"handshake={handshake},strangers={2 * (silent + dripping)}") as servers:
        server = servers["registry"]
        server.connect()
        figures: dict[str, list[float]] = {"beside strangers": [], "alone": []}

        def connect(name: str) -> None:
            with crew("connecting", server, number=bench.size(30, 2)) as process:
                figures[name].append(median(process.result()) * 1e6)

        late: list[float] = []
        for _ in range(max(1, bench.rounds // 2)):
            connect("alone")
            with _crowd(path_of(server), silent, dripping) as opened:
                connect("beside strangers")
                late += [seconds - handshake for seconds in _ends(opened)]
            connect("alone")
        note = f"{silent} silent connections, {dripping} of which a byte comes now and then"
        yield Row("strangers", "connect to first answer", "us", figures, note=note).at_most(3, "alone")
        worst = {"first": [min(late)], "last": [max(late)]}
        row = Row("strangers", "strangers are cut, from their deadline", "s", worst)
        yield row.within("within 1 s", 1.0, max(map(abs, late)))


@contextmanager
def _crowd(path: str, silent: int, dripping: int) -> Iterator[dict[socket.socket, float]]:
    """Have strangers at a server: each with the time when it was accepted."""
    opened: dict[socket.socket, float] = {}
    stop = threading.Event()
    for _ in range(silent + dripping):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        sock.recv(4096)  # the challenge: it has been accepted, from when on its time counts
        opened[sock] = time.monotonic()
    drops = list(opened)[silent:]

    def drip() -> None:
        # A length of a handshake's message, and then a byte of it each time.
        for data in (b"\0", b"\0", b"\0", b"\x6a", *[b"x"] * 1000):
            for sock in drops:
                try:
                    sock.send(data)
                except OSError:
                    continue
            if stop.wait(0.5):
                return

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield opened
    finally:
        stop.set()
        thread.join()
        for sock in opened:
            sock.close()


def _ends(opened: dict[socket.socket, float]) -> Iterator[float]:
    """Yield for each connection after how many seconds it was cut."""
    poll = select.poll()
    by_number = {sock.fileno(): sock for sock in opened}
    for number in by_number:
        poll.register(number, select.POLLRDHUP | select.POLLHUP)
    left = set(by_number)
    while left:
        found = poll.poll(30_000)
        if not found:
            raise RuntimeError(f"{len(left)} strangers are still connected")
        now = time.monotonic()
        for number, _ in found:
            poll.unregister(number)
            left.discard(number)
            yield now - opened[by_number[number]]


def hostile() -> list[bytes]:
    """Return what begins like a message of great length: before the handshake, and as a frame after it."""
    lengths = [struct.pack("!i", length) for length in (0x7FFFFFFF, -2, 257)]
    lengths += [struct.pack("!iQ", -1, length) for length in (1 << 63, 0x7FFFFFFF)]
    return lengths + [NATIVE.pack(length, FRAME_CALL, 0, 0, 1, 1, 0, 0) for length in (0x7FFFFFFF, 0xFFFFFFFF, 1 << 24)]


def _headers(bench: Bench) -> Row:
    """Send each hostile length in both places, keep the connection, and look at the server's memory."""
    with bench.served(["registry"]) as servers:
        server = servers["registry"]
        server.connect()
        before = server.memory
        kept = [_send(path_of(server), data) for data in hostile()]
        kept += [_attached(server, data) for data in hostile()]
        server.connect()
        grown = server.memory - before
        for sock in kept:
            sock.close()
    row = Row(
        "strangers", "memory for 8 hostile lengths, before the key is shown and after", "kB", {"registry": [grown]}
    )
    return row.within("< 1 MiB", 1024, grown)


def _send(path: str, data: bytes) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    sock.recv(4096)
    sock.sendall(data)
    return sock


def _attached(server: Server, data: bytes = b"") -> socket.socket:
    """Return the connection of a session that obeys nobody."""
    from registry import _wire
    from registry._addresses import load_key, parse
    from registry._transport import SocketTransport, dial

    key = load_key(server.home / server.home.name / "key", create=False)
    dialed = dial(parse(f"unix://{path_of(server)}"), key, time.monotonic() + 30)
    transport = dialed.transport
    if not isinstance(transport, SocketTransport):
        raise TypeError("a unix socket has another transport")
    hello = _wire.Attach(os.urandom(16), os.getpid(), "", "deaf", "deaf", "1", 0, {})
    transport.send(_wire.pack(_wire.Kind.ATTACH, _wire.encode(hello), generation=1))
    sock = transport.detach()
    sock.recv(4096)
    if data:
        sock.sendall(data)
    return sock


def _deaf(bench: Bench) -> Iterator[Row]:
    """Have one client ask for large replies and read none, and another go on as before."""
    from registry import _codec, _wire

    with bench.served(["registry"]) as servers:
        server = servers["registry"]
        client = server.connect()
        names = {"d": client.d}  # type: ignore[attr-defined]
        names["d"]["large"] = bytes(LARGE)
        get = {"alone": Statement("d['k']", names)}
        alone = bench.contest(get)["alone"]
        before = server.memory
        sock = _attached(server)
        sock.setblocking(False)
        definition = _wire.encode(["dict", "d", _wire.msgspec.Raw(_codec.encode([[], {}]))])
        body = _wire.encode(
            _wire.CallBody(
                1,
                "__getitem__",
                _wire.msgspec.Raw(_codec.encode([["large"], {}])),
                {_wire.DEFINITION: _wire.msgspec.Raw(definition)},
            )
        )
        rest = b"".join(
            _wire.pack(_wire.Kind.CALL, body, generation=1, sequence=seq)
            for seq in range(1, bench.size(REPLIES, 50) + 1)
        )
        try:
            while rest:
                rest = rest[sock.send(rest) :]
        except BlockingIOError:
            pass  # it takes nothing more
        get = {"beside one that never reads": Statement("d['k']", names)}
        beside = bench.contest(get)["beside one that never reads"]
        grown = server.memory - before
        sock.close()
    row = Row("strangers", "get", "us", {"beside one that never reads": beside, "alone": alone})
    yield row.at_most(2, "alone")
    row = Row("strangers", "memory for one that never reads", "kB", {"registry": [grown]})
    yield row.within("<= 8 MiB", 8192, grown)
