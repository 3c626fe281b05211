"""An echo: what a round trip costs that does nothing."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers import BYTES, Client


def serve(home: Path, ready: Callable[[], None]) -> None:
    """Echo in two ways, on two sockets: from a thread for each client that blocks, and from a uvloop."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(home / "blocking"))
    listener.listen(128)
    threading.Thread(target=_accept, args=(listener,), daemon=True).start()
    try:
        import uvloop
    except ImportError:
        ready()
        threading.Event().wait()
    loop = uvloop.new_event_loop()
    loop.run_until_complete(_listen(loop, home / "uvloop"))
    ready()
    loop.run_forever()


def _accept(listener: socket.socket) -> None:
    while True:
        peer, _ = listener.accept()
        threading.Thread(target=_echo, args=(peer,), daemon=True).start()


def _echo(peer: socket.socket) -> None:
    while data := peer.recv(65536):
        peer.sendall(data)


async def _listen(loop: asyncio.AbstractEventLoop, path: Path) -> None:
    await loop.create_unix_server(Echo, str(path))


class Echo(asyncio.Protocol):
    """Sends back what comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = transport.write  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.write(data)


class Caller(Client):
    """A socket that blocks, whatever the server is."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.send, self.receive = self.socket.sendall, self.socket.recv
        self.message = BYTES

    def statements(self) -> dict[str, str]:
        once = "send(message); receive(65536)"
        return {"get": once, "set": once, "pair": f"{once}; {once}"}

    def close(self) -> None:
        self.socket.close()


def connect(home: Path) -> Client:
    """Connect to the one that blocks."""
    return Caller(home / "blocking")


def connect_uvloop(home: Path) -> Client:
    """Connect to the one with a uvloop."""
    return Caller(home / "uvloop")
