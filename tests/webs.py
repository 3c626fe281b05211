"""Web servers with an event loop, as processes of tests, and what they answer."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

from servers import Script

APPS = Path(__file__).with_name("apps")
UVICORN = """
import sys
sys.path.insert(0, sys.argv[1])
import uvicorn

class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print("ready", flush=True)

Server(uvicorn.Config(sys.argv[2], uds=sys.argv[3], loop=sys.argv[4], log_level="warning")).run()
"""


class Web(Script):
    """A uvicorn that serves an application at a unix socket.

    Args:
        home: Where its socket is to be.
        loop: What uvicorn calls the event loop.
        app: The application, as ``module:name``.
        directory: Where its module is.
    """

    def __init__(self, home: Path, loop: str, app: str = "awaiting:app", directory: Path = APPS) -> None:
        self._path = str(home / "http")
        super().__init__(UVICORN, directory, app, self._path, loop)
        assert self.line() == "ready"

    async def get(self, path: str) -> Any:
        """Return what comes in answer to a GET, as JSON."""
        status, body = await self.ask("GET", path)
        assert status == 200, body
        return body

    async def ask(self, method: str, path: str) -> tuple[int, Any]:
        """Return the status of the answer to a request, and its body as JSON."""
        reader, writer = await asyncio.open_unix_connection(self._path)
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n".encode())
        response = await reader.read()
        writer.close()
        await writer.wait_closed()
        head, _, body = response.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 "), head
        return int(head.split()[1]), json.loads(body.split(b"\r\n")[1] if b"chunked" in head else body)

    def end(self) -> None:
        """Have it end in order."""
        self.signal(signal.SIGTERM)
        assert self.wait() in (0, -signal.SIGTERM)
