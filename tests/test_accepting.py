"""Connections that are taken, and those that a server which stops has only just taken."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable

import pytest

from registry._accepting import Acceptor
from registry._process import new_loop

if sys.platform == "win32":
    pytest.skip("its loops take connections themselves", allow_module_level=True)


@pytest.mark.parametrize("make", [new_loop, asyncio.new_event_loop], ids=["installed", "asyncio"])
@pytest.mark.parametrize("turns", range(4))
def test_who_has_not_begun_when_it_ends_is_hung_up_on(
    make: Callable[[], asyncio.AbstractEventLoop], turns: int
) -> None:
    """However far the beginning has come: no socket is left open, and the peer sees the end."""
    listener = socket.create_server(("127.0.0.1", 0))
    begun: list[asyncio.BaseTransport] = []

    class Connection(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            begun.append(transport)

    async def story() -> None:
        acceptor = Acceptor(loop, listener, Connection)
        with socket.create_connection(listener.getsockname()) as peer:
            acceptor._accept()
            for _ in range(turns):
                await asyncio.sleep(0)
            await acceptor.close()
            for transport in begun:
                transport.close()
            await asyncio.sleep(0)
            peer.settimeout(20)
            assert peer.recv(1) == b""

    loop = make()
    try:
        loop.run_until_complete(asyncio.wait_for(story(), 20))
    finally:
        loop.close()
