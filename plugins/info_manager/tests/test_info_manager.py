"""The recipe: our own client, its clients as they are, its classes, and the command that serves it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing.managers import BaseManager, RemoteError
from pathlib import Path
from typing import Any

import pytest

import registry
from info_manager import DICT, LOGIN_LOCK, DictItem, ManagerClient, ManagerServer
from registry.testing import End, Use, check

KEY = b"secret"

HOLD = """
import sys
from multiprocessing.managers import BaseManager
class InfoManager(BaseManager): pass
InfoManager.register("open_qq_login_lock")
manager = InfoManager(("127.0.0.1", int(sys.argv[1])), authkey=b"secret")
manager.connect()
lock = manager.open_qq_login_lock()
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def server(port: int) -> Iterator[ManagerServer]:
    """Run the recipe's server on a thread."""
    server = ManagerServer("127.0.0.1", port, KEY)
    thread = threading.Thread(target=server.run)
    thread.start()
    yield server
    server.stop()
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
def client(server: ManagerServer, port: int) -> Iterator[ManagerClient]:
    """Connect with the recipe's client."""
    client = ManagerClient("127.0.0.1", port, KEY)
    yield client
    client._client.close()


@pytest.fixture
def stock(server: ManagerServer, port: int) -> Any:
    """Connect as a program does that has the recipe, and nothing of ours."""

    class InfoManager(BaseManager):
        pass

    InfoManager.register("dict")
    InfoManager.register("open_qq_login_lock")
    manager = InfoManager(("127.0.0.1", port), authkey=KEY)
    manager.connect()
    return manager


def test_the_class_is_an_ordinary_class() -> None:
    """Without any server the dict sets and gets, and has None for what is missing."""
    item = DictItem()
    item.set("a", 1)
    item["b"] = 2
    assert (item.get("a"), item.get("b"), item.get("c")) == (1, 2, None)


def test_both_types_may_be_logged() -> None:
    """A server that replays its log has the same dict and the same lock again."""
    check(DICT, [("set", "a", 1), ("__setitem__", "b", {"c": [2]}), ("get", "a"), ("get", "missing")])
    waits = Use("acquire", timeout=5.0, session=2)
    check(LOGIN_LOCK, [("acquire",), ("acquire",), waits, Use("locked", after=9.0), Use("acquire", session=3), End(1)])


def test_our_client_sets_and_gets(client: ManagerClient) -> None:
    """The recipe's calls work, and so does the assignment that its own proxies refuse."""
    d = client.get_dict()
    assert d.get("k") is None
    d.set("k", "v")
    d["jar"] = {"cookies": [1, 2]}
    assert d.get("k") == "v"
    assert client.get_dict().get("jar") == {"cookies": [1, 2]}


def test_a_value_of_any_class_is_carried(client: ManagerClient) -> None:
    """A value that the server does not know comes back as what it was, since it is never decoded there."""
    client.get_dict()["path"] = Path("/etc")
    assert client.get_dict().get("path") == Path("/etc")


def test_there_is_one_dict_and_one_lock(client: ManagerClient) -> None:
    """They have no names: whoever asks gets the same, and a name is refused."""
    assert client.get_open_qq_login_lock() == client.get_open_qq_login_lock()
    with pytest.raises(TypeError):
        client._client.dict("another").get("k")


def test_the_lock_can_be_taken_again_by_its_holder(client: ManagerClient) -> None:
    """It is an RLock: a second acquire by the same thread does not wait, and others do."""
    lock = client.get_open_qq_login_lock()
    with lock, lock:
        assert lock.locked()
        refused: list[bool] = []
        other = threading.Thread(target=lambda: refused.append(bool(lock.acquire(blocking=False))))
        other.start()
        other.join()
        assert refused == [False]
    assert not lock.locked()


def test_a_client_that_has_only_multiprocessing_works(stock: Any, client: ManagerClient) -> None:
    """A stock client and ours see the same dict and wait for the same lock."""
    d, lock = stock.dict(), stock.open_qq_login_lock()
    assert lock.acquire() is True
    try:
        assert not client.get_open_qq_login_lock().acquire(blocking=False)
        d.set("stock", [1, (2, 3)])
    finally:
        lock.release()
    assert client.get_dict().get("stock") == [1, (2, 3)]
    client.get_dict()["ours"] = "v"
    assert d.get("ours") == "v"
    assert d.get("missing") is None


def test_what_is_not_declared_is_not_there(stock: Any) -> None:
    """A stock client cannot call what the class does not show."""
    with pytest.raises((AttributeError, RemoteError)):
        stock.dict()._callmethod("clear")


def test_a_holder_that_is_killed_leaves_the_lock_free_and_marked(server: Any, port: int, client: Any) -> None:
    """The recipe's deadlock: a client with nothing but multiprocessing is killed while it holds the lock."""
    command = [sys.executable, "-c", HOLD, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        lock = client.get_open_qq_login_lock()
        assert not lock.acquire(blocking=False)
        holder.send_signal(signal.SIGKILL)
        with lock.acquire(timeout=15) as grant:
            assert grant.abandoned


def test_the_wrong_key_is_refused(server: ManagerServer, port: int) -> None:
    """A client that does not know the key is told so."""
    with pytest.raises(registry.errors.AccessDenied):
        ManagerClient("127.0.0.1", port, b"wrong")


def test_the_command_serves_exactly_these_types(tmp_path: Path, home: str) -> None:
    """``registry serve --plugins info_manager`` has the recipe's dict, not the registry's own."""
    key = tmp_path / "key"
    key.touch(0o600)
    key.write_bytes(KEY + b"\n")
    words = ["serve", "--plugins", "info_manager", "--address", "tcp://127.0.0.1:0", "--json"]
    command = [sys.executable, "-m", "registry", *words, "--authkey-file", str(key)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ}) as server:
        try:
            assert server.stdout is not None
            lines = iter(server.stdout.readline, b"")
            text = b""
            while not text.endswith(b"}\n"):
                text += next(lines)
            port = int(json.loads(text)["address"].rpartition(":")[2])
            with registry.connect(("127.0.0.1", port), KEY) as shared:
                assert shared.statistics()["types"] == ["dict", "open_qq_login_lock"]
                shared.dict()["k"] = 1
                assert shared.dict().get("k") == 1
        finally:
            server.send_signal(signal.SIGTERM)
    assert server.returncode == 0
