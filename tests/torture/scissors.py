"""A TCP port that leads to a server, and that cuts a connection after a certain byte of one direction."""

from __future__ import annotations

import select
import socket
import threading
from typing import Literal

Direction = Literal["up", "down"]


class Scissors:
    """Carry bytes to a server and back, and cut where it was told.

    What was to arrive arrives to the last byte: to the other end a cut looks like an end of the stream behind it.

    Attributes:
        port: Where to connect.
        cuts: How often a connection was cut where it was asked for.
    """

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cuts = 0
        # For the connections that are open, and for the next one that comes: direction, and bytes that may pass.
        self._now: list[object] | None = None
        self._next: list[object] | None = None
        self._wake, self._waker = socket.socketpair()
        self._heard = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="scissors")
        self._thread.start()

    def cut_after(self, direction: Direction, count: int) -> None:
        """Cut what is open now as soon as another byte comes, once so many have passed in a direction."""
        self._now = [direction, count]

    def cut_next_after(self, direction: Direction, count: int) -> None:
        """Cut what is open now at once, and the next connection after so many bytes of a direction."""
        self._next = [direction, count]
        self._heard.clear()
        self._waker.send(b"x")
        self._heard.wait()

    def spare(self) -> bool:
        """Cut no more; tell whether what was asked for last is still to come."""
        waits = self._now is not None or self._next is not None
        self._now = self._next = None
        return waits

    def __enter__(self) -> Scissors:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopped = True
        self._waker.send(b"x")
        self._thread.join()
        for each in (self._listener, self._wake, self._waker):
            each.close()

    def _run(self) -> None:
        pairs: dict[socket.socket, tuple[socket.socket, Direction]] = {}

        def drop(one: socket.socket) -> None:
            other, _ = pairs.pop(one)
            del pairs[other]
            one.close()
            other.close()

        while True:
            for ready in select.select([self._listener, self._wake, *pairs], [], [])[0]:
                if ready is self._wake:
                    self._wake.recv(64)
                    while pairs:
                        drop(next(iter(pairs)))
                    if self._stopped:
                        return
                    self._heard.set()
                elif ready is self._listener:
                    near = self._listener.accept()[0]
                    far = socket.create_connection(self._to)
                    for sock in (near, far):
                        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    pairs[near], pairs[far] = (far, "up"), (near, "down")
                    if self._next is not None:
                        self._now, self._next = self._next, None
                elif ready in pairs and not self._carry(ready, *pairs[ready]):
                    drop(ready)

    def _carry(self, source: socket.socket, target: socket.socket, direction: Direction) -> bool:
        """Carry what has come; False where that was the end."""
        rule = self._now
        left = 65536
        if rule is not None and rule[0] == direction:
            left = min(left, rule[1])  # type: ignore[call-overload]
            if not left:
                self._now = None
                self.cuts += 1
                return False
            rule[1] -= left  # type: ignore[operator]
        try:
            data = source.recv(left)
            target.sendall(data)
        except OSError:
            data = b""
        if rule is not None and rule[0] == direction:
            rule[1] += left - len(data)  # type: ignore[operator]
        return bool(data)
