"""``memory://``: the same session over a queue of this process."""

from __future__ import annotations

import os
import pickle
import threading

import pytest
from servers import running
from things import NOTES, SLOW

from registry import ManagerClient, _wire, connect
from registry._attachments import Attachment
from registry._memory import MemoryTransport
from registry._transport import DeadlinePassed
from registry.errors import Closed, ServerNotFound


def test_it_is_a_server_of_its_own() -> None:
    """Two clients of ``memory://`` share nothing, each being a life of its own."""
    with connect("memory://") as one, connect("memory://") as two:
        one.dict("d")["x"] = 1
        assert len(two.dict("d")) == 0
        assert one.statistics()["pid"] == os.getpid()
        assert one.dict("d") == {"x": 1}


def test_nothing_starts_before_the_first_use() -> None:
    """A lazy client has no engine and no thread yet."""
    before = threading.active_count()
    with ManagerClient("memory://") as client:
        proxy = client.dict("d")
        assert repr(proxy) == "<shared dict 'd' on memory://>"
        assert threading.active_count() == before
        proxy["x"] = 1
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_threads_wait_for_each_other() -> None:
    """A thread that waits for an item gets what another puts."""
    with connect("memory://") as client:
        jobs, got = client.queue("q"), []
        with running(lambda: got.extend([jobs.get(), jobs.get()])):
            jobs.put(1)
            jobs.put(2)
        assert got == [1, 2]


def test_a_timeout_comes_by_itself() -> None:
    """What is due happens though nobody calls."""
    with connect("memory://") as client, client.lock("l"):
        assert not client.lock("l").acquire(timeout=0.02)


def test_threaded_objects_live_here_too() -> None:
    """A threaded object runs on threads of this process, outside the engine."""
    with connect("memory://", plugins=[SLOW]) as client:
        pid, name = client.slow("s").where()
        assert pid == os.getpid()
        assert name.startswith("registry owner")
        with pytest.raises(KeyError, match="as always"):
            client.slow("s").fail()


def test_closed_is_closed() -> None:
    """After `close` every call says so, and the engine's thread is gone."""
    client = connect("memory://")
    proxy = client.dict("d")
    client.close()
    client.close()
    with pytest.raises(Closed, match="memory://"):
        proxy["x"] = 1
    with pytest.raises(Closed):
        client.connect()


def test_what_is_sent_is_not_kept() -> None:
    """The host's row of connections with something to send is emptied in each turn."""
    with connect("memory://") as client:
        count = client.counter("c")
        for _ in range(50):
            count.incr()
        assert len(client._home._memory.host.dirty) == 0


def test_a_broken_stream_is_refused_and_replaced() -> None:
    """Bytes that are no frame end their stream; the session goes on over another."""
    with connect("memory://") as client:
        client.counter("c").incr()
        link = client._home.link()
        link._transport.send(b"\xff" * 64)  # type: ignore[union-attr]
        assert client.counter("c").incr() == 2


def test_the_deadline_of_a_read(home: object) -> None:
    """A stream says that nothing came in time, and is as it was."""
    with connect("memory://") as client:
        transport = MemoryTransport(client._home._memory, Attachment())
        with pytest.raises(DeadlinePassed):
            transport.receive(0.0)
        transport.send(_wire.pack(_wire.Kind.CALL, b""))
        assert _wire.Kind.REFUSED == transport.receive(None)[4]
        transport.close()
        while transport.receive(None):
            pass


def test_a_forked_child_cannot_use_it() -> None:
    """The child of a fork has no engine thread; it is told so at once, and its parent is not disturbed."""
    with connect("memory://", plugins=[NOTES]) as client:
        notes = client.notes("n")
        notes.add(1)
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                notes.add(2)
                text = "no error"
            except ServerNotFound as error:
                text = str(error)
            except BaseException as error:  # noqa: BLE001 - it is compared in the parent
                text = repr(error)
            os.write(writer, text.encode())
            os._exit(0)
        os.close(writer)
        text = os.read(reader, 4096).decode()
        os.close(reader)
        os.waitpid(pid, 0)
        assert "it lives in the parent process" in text
        assert notes.all() == [1]


def test_a_pickled_proxy_leads_back_only_where_it_can() -> None:
    """In its process a proxy comes back as what it was; with no such client open it is refused."""
    with connect("memory://") as client:
        client.dict("d")["x"] = 1
        data = pickle.dumps(client.dict("d"))
        assert pickle.loads(data) == {"x": 1}
    with pytest.raises(ServerNotFound, match="went with its client"):
        pickle.loads(data)
    with connect("memory://"), connect("memory://"), pytest.raises(ServerNotFound, match="which of its 2"):
        pickle.loads(data)
