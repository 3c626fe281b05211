"""Stock `multiprocessing` servers and clients, of any Python: programs that know nothing of this package."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from servers import Script

KEY = b"the key of a stock server"
MINORS = range(6, 14)
SHA256_SINCE = 12  # the minor version of Python from which on `multiprocessing` shows the key by SHA-256

#: A server with what people register, for every Python from 3.6 on.
SERVER = """
import os, sys, threading
from multiprocessing import current_process
from multiprocessing.managers import BaseManager, DictProxy, IteratorProxy, ListProxy, NamespaceProxy, Namespace
from queue import Queue

class Sealed:
    def __reduce__(self):
        raise TypeError("it is sealed")

class Counter(object):
    def __init__(self, start=0):
        self.value = start
    def add(self, by=1):
        self.value += by
        return self.value
    def fail(self, kind, *args):
        raise {"KeyError": KeyError, "ValueError": ValueError, "OSError": OSError}[kind](*args)
    def sealed(self):
        return Sealed()
    def echo(self, *args, **kwargs):
        return args, kwargs
    def leave(self):
        os._exit(3)
    def fork(self):
        return Counter(self.value)

items, login, rlogin, jobs, gates = {}, threading.Lock(), threading.RLock(), Queue(), {}

class Manager(BaseManager):
    pass

def gate(name):
    return gates.setdefault(name, threading.Event())

Manager.register("items", callable=lambda: items, proxytype=DictProxy)
Manager.register("login", callable=lambda: login)
odd = ["acquire", "release", "__class__", "__del__", "_private", "no name"]
Manager.register("rlogin", callable=lambda: rlogin, exposed=odd)
Manager.register("jobs", callable=lambda: jobs)
Manager.register("gate", callable=gate)
names = ["add", "fail", "sealed", "echo", "leave", "fork"]
Manager.register("counter", Counter, exposed=names, method_to_typeid={"fork": "forked"})
Manager.register("forked", exposed=["add"], create_method=False)
Manager.register("list", list, proxytype=ListProxy)
Manager.register("dict", dict, proxytype=DictProxy)
Manager.register("Iterator", proxytype=IteratorProxy, create_method=False)
Manager.register("bomb", lambda: 1 / 0)

address = sys.argv[1]
if ":" in address:
    host, port = address.rsplit(":", 1)
    address = (host, int(port))
# Proxies that it gets of other servers, and of itself under another name, it opens with the key of its process.
current_process().authkey = sys.argv[2].encode()
server = Manager(address, authkey=sys.argv[2].encode()).get_server()
print(server.address if isinstance(server.address, str) else "%s:%d" % server.address, flush=True)
server.serve_forever()
"""


@cache
def find(minor: int) -> str:
    """Return the path of a CPython of a minor version, on the path or where pyenv has them; empty where none is."""
    root = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    # Unlike pathlib's, this glob finds nothing where it may not look.
    candidates = [shutil.which(f"python3.{minor}"), *glob.glob(f"{root}/versions/3.{minor}.*/bin/python3")]
    if sys.version_info[1] == minor:
        candidates.insert(0, sys.executable)
    return next((path for path in candidates if path and _minor_of(path) == minor), "")


def python(minor: int) -> str:
    """Return the path of a CPython, or skip the test, which says so, where there is none."""
    path = find(minor)
    if not path:
        pytest.skip(f"no CPython 3.{minor} is installed here, neither on the path nor by pyenv")
    return path


def _minor_of(path: str) -> int:
    code = "import sys; print(sys.version_info[1] if sys.implementation.name == 'cpython' else -1)"
    done = subprocess.run([path, "-c", code], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    return int(done.stdout) if done.returncode == 0 else -1


class Stock(Script):
    """A stock server in a process of its own.

    Args:
        where: ``host:port``, or the path of a socket.
        python: The interpreter.

    Attributes:
        url: Where our clients find it.
        address: Where stock clients do.
    """

    def __init__(self, where: str | Path = "127.0.0.1:0", python: str = sys.executable) -> None:
        super().__init__(SERVER, where, KEY.decode(), python=python)
        said = self.line()
        assert said, "the server did not start"
        host, colon, port = said.rpartition(":")
        self.address: str | tuple[str, int] = (host, int(port)) if colon else said
        self.url = f"stock+tcp://{said}" if colon else f"stock+unix://{said}"
