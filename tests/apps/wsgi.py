"""A WSGI application."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from work import answer


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = answer(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
