"""Stock clients of other users: whoever may not run code in the server sends it no pickle that is opened."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

import pytest
from servers import KEY, Script
from test_groups import USER, as_root, as_user

from registry import ManagerServer, _peers

pytestmark = [pytest.mark.once, pytest.mark.skipif(sys.platform != "linux", reason="the kernel must tell who connects")]

SERVE = """
import sys
from registry import ManagerServer
server = ManagerServer(sys.argv[1], {key!r}, trust=sys.argv[2])
server.on_ready = lambda: print(server.url, flush=True)
server.run()
"""


class Sign:
    """A value whose pickle leaves a sign where it is opened."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.fixture
def sign(home: Path) -> Path:
    """A directory that is there once a pickle has been opened."""
    return home / "sign"


@pytest.fixture
def address(request: pytest.FixtureRequest, home: Path) -> Iterator[Any]:
    """Where a server listens of the user of these tests, whom `request.param` tells to trust, so that others can."""
    kind, trust = request.param
    home.chmod(0o711)
    url = f"unix://{home}/sock" if kind == "unix" else "tcp://127.0.0.1:0"
    with Script(SERVE.format(key=KEY), url, trust) as server:
        ready = server.line()
        if kind == "unix":
            (home / "sock").chmod(0o666)
            yield str(home / "sock")
        else:
            yield "127.0.0.1", int(ready.rpartition(":")[2])


def told(address: Any, sign: Path) -> list[str]:
    """Send a request with a pickle that leaves a sign, and return what is answered."""
    with Client(address, authkey=KEY) as client:
        client.send((None, "dummy", (Sign(str(sign)),), {}))
        kind, value = client.recv()
        return [kind, str(value)]


@as_root
@pytest.mark.parametrize("address", [("unix", "uid"), ("tcp", "uid")], indirect=True)
def test_a_pickle_of_another_user_is_not_opened(address: Any, sign: Path) -> None:
    """The key is not enough, on a unix socket and over loopback. It is told what would be; our own user is served."""
    said = as_user(USER, [], lambda: told(address, sign))
    assert said[0] == "ok", said
    kind, text = said[1]
    assert kind in ("#ERROR", "#TRACEBACK") and "--trust key" in text
    assert not sign.exists()
    told(address, sign)
    assert sign.exists()


@as_root
@pytest.mark.parametrize("address", [("unix", "key"), ("tcp", "key")], indirect=True)
def test_with_the_key_trusted_it_is(address: Any, sign: Path) -> None:
    """As the operator has said; so the test above would see it."""
    said = as_user(USER, [], lambda: told(address, sign))
    assert said[0] == "ok", said
    assert sign.exists()


@pytest.mark.parametrize("kind", ["no row", "another state", "no tables"])
def test_whom_the_kernel_does_not_know_is_a_stranger(kind: str, sign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the row of a connection is not found, though it may be of our own user."""
    if kind == "no row":
        monkeypatch.setattr(_peers, "_row_of", lambda *args: None)
    elif kind == "another state":
        monkeypatch.setattr(_peers, "_ESTABLISHED", b"06")
    else:
        monkeypatch.setattr(_peers._row_of, "__defaults__", (("/nowhere/tcp", "/nowhere/tcp6"),))
        monkeypatch.setattr(_peers._uid_of, "__defaults__", (("/nowhere/tcp", "/nowhere/tcp6"),))
    with ManagerServer("tcp://127.0.0.1:0", KEY) as server:
        kind, text = told(server.address, sign)
        assert kind in ("#ERROR", "#TRACEBACK") and "--trust key" in text
    assert not sign.exists()


def test_the_sign_is_one(sign: Path) -> None:
    """A pickle of it that is opened leaves it."""
    pickle.loads(pickle.dumps(Sign(str(sign))))
    assert sign.exists()
