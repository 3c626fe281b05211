"""A server that has the key and means harm: it shakes hands as it should, and says whatever a test wants it to."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from servers import KEY

from registry import _codec, _plugins, _wire
from registry._auth import ServerHandshake
from registry._wire import Frame, Kind

Reply = Callable[[Frame], "bytes | Iterable[bytes] | None"]
TYPES = _plugins.load(["registry_containers", "registry_queues", "registry_sync"]).declarations


def greeting(**changed: Any) -> dict[str, Any]:
    """Return what a server tells with its proof, with some of it changed."""
    return {
        "protocol": _wire.VERSION,
        "address": "unix:///x",
        "name": "hostile",
        "pid": 1,
        "since": time.time(),
        "host": "here",
        "version": "1",
        "python": "3",
        "epoch": 1,
        "life": bytes(16),
        "plugins": {},
        "log": "memory",
        "files": "",
        "realm": "",
        "types": {typeid: _codec.encode(each.interface.pack()) for typeid, each in TYPES.items()},
        **changed,
    }


def attached(**changed: Any) -> bytes:
    """Return the body of an answer to an attach."""
    fields = {"resumed": True, "reason": "", "stale": "", "lease": 0.0, "words": None, **changed}
    return _wire.encode(list(fields.values()))


def answer(frame: Frame, body: bytes, kind: int = Kind.REPLY, **changed: Any) -> bytes:
    """Return a frame that answers another one."""
    fields = {"generation": frame.generation, "sequence": frame.sequence, **changed}
    return _wire.pack(kind, body, **fields)


class Hostile:
    """The server, on a thread of its own; it serves one connection after the other.

    Args:
        path: Of its socket; None: it listens at a port of this host.
        greeting: The body of its proof.
        attach: Answers an attach; None says nothing.
        reply: Answers every other frame; an iterator may never end.

    Attributes:
        url: Where it listens.
        accepted: How many connections it has had.
    """

    def __init__(
        self,
        path: Path | None = None,
        greeting: bytes | None = None,
        attach: Reply | None = None,
        reply: Reply | None = None,
    ) -> None:
        if path is None:
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.url = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(path))
            self._listener.listen()
            self.url = f"unix://{path}"
        self._greeting = greeting if greeting is not None else _codec.encode(globals()["greeting"]())
        self._attach = attach or (lambda frame: answer(frame, attached(), Kind.ATTACHED))
        self._reply = reply or (lambda frame: answer(frame, _codec.encode(None)))
        self.accepted = 0
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, name="hostile")
        self._thread.start()

    def __enter__(self) -> Hostile:
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._open[:] = [sock]
            self.accepted += 1
            with sock, contextlib.suppress(OSError):
                self._converse(sock)

    def _converse(self, sock: socket.socket) -> None:
        handshake = ServerHandshake({"admin": KEY})
        sock.sendall(handshake.opening())
        while handshake.outcome is None:
            sock.sendall(handshake.receive(sock.recv(65536)))
        if handshake.outcome != "native":
            return
        sock.sendall(handshake.accept(self._greeting))
        reader = _wire.Reader()
        reader.feed(handshake.leftover)
        while True:
            for frame in reader:
                said = (self._attach if frame.kind == Kind.ATTACH else self._reply)(frame)
                for piece in [said] if isinstance(said, bytes) else said or ():
                    sock.sendall(piece)
            data = sock.recv(65536)
            if not data:
                return
            reader.feed(data)


ROOT = Path(__file__).parents[1]

# -- what a client does meanwhile, by what the interpreter tells of it

_NEVER = frozenset(
    "os.system os.exec os.fork os.forkpty os.posix_spawn os.spawn os.startfile subprocess.Popen pty.spawn "
    "pickle.find_class exec ctypes.dlopen os.remove os.rename os.mkdir os.rmdir os.chmod os.chown os.link "
    "os.symlink os.truncate shutil.rmtree webbrowser.open".split()
)
_heard: list[tuple[str, tuple[Any, ...]]] | None = None
_listening = False


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if _heard is not None:
        _heard.append((event, args))


class Deeds:
    """What this process did in a while.

    Attributes:
        forbidden: What no answer of a server may bring about.
        opened: The paths of files that were opened.
        connected: The addresses to which it has connected.
        imported: The modules that were not there before.
    """

    forbidden: list[tuple[str, tuple[Any, ...]]]
    opened: list[str]
    connected: list[Any]
    imported: set[str]


def _is_import(event: str, args: tuple[Any, ...]) -> bool:
    """Tell whether code is run that lies in a file of the interpreter or of an installed package."""
    path = getattr(args[0], "co_filename", "") if event == "exec" else ""
    return path.startswith((sys.prefix, sys.base_prefix, f"{ROOT}/registry/", f"{ROOT}/plugins/", "<attrs generated"))


@contextlib.contextmanager
def watched() -> Iterator[Deeds]:
    """Note what this process does; a hook stays for ever, and does nothing outside of this."""
    global _heard, _listening
    if not _listening:
        sys.addaudithook(_hear)
        _listening = True
    before = set(sys.modules)
    heard: list[tuple[str, tuple[Any, ...]]] = []
    deeds = Deeds()
    _heard = heard
    try:
        yield deeds
    finally:
        _heard = None
        deeds.forbidden = [each for each in heard if each[0] in _NEVER and not _is_import(*each)]
        deeds.opened = [
            os.fsdecode(args[0]) for event, args in heard if event == "open" and not isinstance(args[0], int)
        ]
        deeds.connected = [args[1] for event, args in heard if event == "socket.connect"]
        deeds.imported = set(sys.modules) - before
