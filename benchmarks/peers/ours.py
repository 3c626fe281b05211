"""This project."""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers import Client

KEY = "the key of the benchmarks"


def serve(
    home: Path,
    ready: Callable[[], None],
    log: str = "memory",
    segment: str = "",
    collections: str = "",
    over: str = "",
    limits: str = "",
) -> None:
    """Serve with a log, where one is named; segments of so many events; collections of garbage noted in a file.

    It is over ``tcp`` or ``tls``, where that is named, and then a file of the home says where. Limits are given as
    ``name=value``, with commas between.
    """
    import registry
    from registry._log import _store

    logging.getLogger("registry").setLevel(logging.ERROR)  # a busy machine is no news here
    if segment:
        _store.SEGMENT_EVENTS = int(segment)
    if collections:
        _note_collections(collections)
    address = f"{over}://127.0.0.1:0" if over else _name(home)
    key = KEY if over else None
    tls = _certificates(home) if over == "tls" else None
    given = dict(word.split("=", 1) for word in limits.split(",") if word)
    server = registry.ManagerServer(address, key, log=log, tls=tls, limits=given)  # type: ignore[arg-type]

    def tell() -> None:
        (home / "url").write_text(server.url)
        ready()

    server.on_ready = tell
    server.run()


def _certificates(home: Path) -> dict[str, Path]:
    """Make a CA and a certificate of this host."""
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(home / "ca.pem")
    leaf = authority.issue_cert("127.0.0.1")
    leaf.cert_chain_pems[0].write_to_path(home / "cert.pem")
    (home / "key.pem").touch(mode=0o600)
    leaf.private_key_pem.write_to_path(home / "key.pem")
    return {"cert": home / "cert.pem", "key": home / "key.pem"}


def _name(home: Path) -> str:
    """Return the name of the server that has this home, which no other benchmark's has."""
    os.environ["REGISTRY_HOME"] = str(home)
    return home.name


def _note_collections(path: str) -> None:
    """Note when collections of cyclic garbage begin and end, those that take more than a millisecond."""
    file = open(path, "w", buffering=1)
    began = 0.0

    def note(phase: str, info: dict[str, int]) -> None:
        nonlocal began
        now = time.monotonic()
        if phase == "start":
            began = now
        elif now - began > 0.001:
            file.write(f"{began} {now}\n")

    gc.callbacks.append(note)


def client(home: Path, **options: Any) -> Any:
    """Return a client of the product's own."""
    import registry

    return registry.connect(_name(home), start=False, **options)


class Ours(Client):
    """A client, and what it uses."""

    def __init__(self, shared: Any) -> None:
        self.shared = shared
        self.d = shared.dict("d")
        self.lock = shared.lock("lock")
        self.d["k"] = 1

    def statements(self) -> dict[str, str]:
        return {
            "get": "d['k']",
            "set": "d['k'] = 1",
            "pair": "lock.acquire(); lock.release()",
            "update": "d.update(MANY)",
            "array": "d['array']",
            "bytes": "d['bytes'] = BYTES; d['bytes']",
        }

    def keep_array(self, array: Any) -> None:
        self.d["array"] = array

    def close(self) -> None:
        self.shared.close()


def ask(home: Path) -> None:
    """Connect, get one key, and leave."""
    with client(home) as shared:
        shared.dict("d")["k"]


def connect(home: Path) -> Client:
    """Connect as users do."""
    return Ours(client(home))


def connect_uncached(home: Path) -> Client:
    """Connect without a cache: each read is a round trip."""
    return Ours(client(home, cache=False))


def _network(home: Path) -> Any:
    """Return a client over TCP or TLS, without a cache; large values go through the socket, as between hosts."""
    import registry
    from registry import _shelf

    url = (home / "url").read_text()
    is_visible = _shelf.is_visible
    _shelf.is_visible = lambda path: False
    try:
        tls = {"ca": home / "ca.pem"} if url.startswith("tls") else None
        return registry.connect(url, KEY, cache=False, tls=tls)
    finally:
        _shelf.is_visible = is_visible


def connect_network(home: Path) -> Client:
    """Connect over TCP or TLS, whichever the server speaks."""
    return Ours(_network(home))


def ask_network(home: Path) -> None:
    """Connect over TCP or TLS with a session of its own, get one key, and leave."""
    import registry.client

    with registry.client._links_lock:
        links = dict(registry.client._links)
        registry.client._links.clear()  # as in another process
    try:
        with _network(home) as shared:
            shared.dict("d")["k"]
    finally:
        registry.client._links.update(links)
