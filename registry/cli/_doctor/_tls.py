"""TLS: whether the two accept each other's certificates, and for how long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from registry.cli import _common
from registry.cli._doctor._findings import Finding, note, ok, refused

if TYPE_CHECKING:
    from registry.cli._doctor._scene import Scene

SOON = 14 * 86_400.0  # seconds before its end from which on a certificate is to be renewed


def tls(scene: Scene) -> Iterator[Finding]:
    """Check the certificates of a server that speaks TLS, and of this process."""
    if scene.no_tls is not None:
        yield refused("tls", scene.no_tls)
    if scene.tls is None:
        return
    names = ", ".join(scene.tls["names"])
    left = scene.tls["expires"] - time.time()
    found = f"{scene.tls['version']}; the server's certificate, for {names}, expires in {_common.duration(left)}"
    if left < SOON:
        yield note("tls", found, "make a new one in the place of its files; the server reads them by itself")
    else:
        yield ok("tls", found)
