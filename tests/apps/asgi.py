"""An ASGI application: what may wait runs on a thread, so that the loop goes on."""

from __future__ import annotations

import asyncio
from typing import Any

from work import answer


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    body = await asyncio.get_running_loop().run_in_executor(None, answer, scope["path"])
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
