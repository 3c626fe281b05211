"""Caches of several processes, who tell each other what they saw: nobody sees what was before it."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import KEY, Script, Served, another
from sizes import size

from registry import _words
from registry._wire import Words

pytestmark = [
    pytest.mark.skipif(not _words.IS_SUPPORTED, reason="no words on this system"),
    pytest.mark.once,
]

# A second channel between processes, as quick as there is any: words that they all map.
CHANNEL = """
import mmap, sys
from registry import ManagerClient
from registry.errors import RegistryError
file = open(sys.argv[1], "r+b")
said = memoryview(mmap.mmap(file.fileno(), 4096)).cast("Q")
shared = ManagerClient(sys.argv[2], {key!r}).connect()
link = shared._home.link()
d = shared.dict("d")
"""

READER = (
    CHANNEL
    + """
me = int(sys.argv[3])
reads = wrong = last = 0
print("ready", flush=True)
sys.stdin.readline()
while not said[1]:
    # What the writer knows to be written, and what any other reader has seen.
    told = max(said[0], *said[2:10])
    seen = d["k"]
    reads += 1
    wrong += seen < told or seen < last or d.get("k") < seen
    last = said[me] = seen
print(wrong, reads, link._next, flush=True)
"""
)

WRITER = (
    CHANNEL
    + """
print("ready", flush=True)
sys.stdin.readline()
for number in range(1, int(sys.argv[3])):
    d["k"] = number
    said[0] = number
said[1] = 1
print("done", flush=True)
"""
)

WATCHER = (
    CHANNEL
    + """
while d["k"] == d["k"] == 1 and link.words is None:
    pass
before = link._next
assert d["k"] == 1 and link._next == before
print("cached", flush=True)
outcome = "stale"
while True:
    told = said[0]
    try:
        seen = d["k"]
    except (KeyError, RegistryError) as error:
        outcome = type(error).__name__
        break
    if told:
        outcome = str(seen)
        break
print(outcome, flush=True)
"""
)


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[memoryview[Any]]:
    """Return the words of the second channel."""
    path = tmp_path / "channel"
    path.write_bytes(bytes(4096))
    with path.open("r+b") as file:
        yield memoryview(mmap.mmap(file.fileno(), 4096)).cast("Q")


@pytest.mark.parametrize("log", ["memory", "process"])
def test_what_is_told_beside_the_server_is_seen_through_it(
    log: str, home: Path, tmp_path: Path, channel: memoryview[Any]
) -> None:
    """One writes, many read and pass on what they saw: a read never shows less than its reader had heard of before."""
    writes = size(600, 100_000)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Served(f"unix://{home}/socket", log=log))
        with another(server.url) as client:
            client.dict("d")["k"] = 0
        path = tmp_path / "channel"
        scripts = [
            stack.enter_context(Script(READER.format(key=KEY), path, server.url, number)) for number in range(2, 5)
        ]
        scripts.append(stack.enter_context(Script(WRITER.format(key=KEY), path, server.url, writes)))
        assert [script.line() for script in scripts] == ["ready"] * 4
        for script in scripts:
            script.say()
        assert scripts[-1].line() == "done"
        for script in scripts[:-1]:
            wrong, reads, calls = map(int, script.line().split())
            assert not wrong
            assert reads > calls  # some were answered by the cache, each of two
    assert channel[0] == writes - 1


@pytest.mark.parametrize("log", ["memory", "process"])
@pytest.mark.parametrize("how", ["found", "vanished"])
def test_a_cache_does_not_outlive_its_server(
    how: str, log: str, home: Path, tmp_path: Path, channel: memoryview[Any]
) -> None:
    """A client that only reads what it has cached hears of a new life before that has answered anybody."""
    url = f"unix://{home}/socket"
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Served(url, log=log))
        with another(url) as client:
            client.dict("d")["k"] = 1
            words = client._home.link().words
            assert words is not None
            told: Words = words._told
        watcher = stack.enter_context(Script(WATCHER.format(key=KEY), tmp_path / "channel", url))
        assert watcher.line() == "cached"
        server.kill()
        if how == "vanished":
            os.unlink(told.path)
        stack.enter_context(Served(url, log=log))
        assert os.path.exists(told.path) is False
        with another(url) as client:
            client.dict("d")["k"] = 2
            channel[0] = 1
        outcome = watcher.line()
        # Without a log the session is gone, and the object was made anew; it had changed nothing, so nothing is said.
        assert outcome == "2" or (log == "memory" and outcome == "KeyError")
