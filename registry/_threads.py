"""Threaded objects: outside the engine, each owner's calls on a thread of its own.

They may block and may do anything. They are never logged and never cached, and go with the server.
"""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

from registry import _codec
from registry._attachments import Client
from registry._events import Call
from registry._host import Host
from registry._leaves import Parts
from registry._limits import Limits
from registry._objects import Hosted, bind
from registry._outcomes import bound, outcome, stamp, unopened
from registry._rights import not_made
from registry._wire import LONGEST_WORD, Kind
from registry.declarations import SharedObject
from registry.errors import NoSuchObject


class _Worker:
    """The thread of one owner: its calls, one after the other."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._given = 0  # counted by whoever gives, and here what was done: so that a call on its way is seen as well
        self._done = 0
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def give(self, job: Callable[[], None]) -> None:
        """Have a call made once those before it have ended."""
        self._given += 1
        self._jobs.put(job)

    def end(self) -> None:
        """End once all calls have."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            self._done += 1

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing to do."""
        return self._done == self._given


class ThreadedObjects:
    """The threaded objects of one server.

    Args:
        post: Runs a function on the host's own thread; may be called from any thread.
        limits: How many threads and objects there may be.
    """

    def __init__(self, post: Callable[[Callable[[], None]], object], limits: Limits | None = None) -> None:
        self.host: Host | None = None
        self._post = post
        self._limits = limits or Limits()
        self._objects: dict[tuple[str, str], Hosted] = {}
        # The sessions that objects of a call end with.
        self._owned: dict[tuple[str, str], bytes] = {}
        self._making = threading.Lock()
        self._workers: dict[tuple[bytes, int], _Worker] = {}
        # Whether a call runs or has been withdrawn: whoever says so first. `setdefault` of a dict is atomic.
        self._runs: dict[tuple[bytes, int], bool] = {}

    def has_room(self, client: Client, owner: int) -> bool:
        """Tell whether an owner has a thread, or can get one: where all are made, one that idles ends for it.

        One session can have a quarter of them.
        """
        if (client.key, owner) in self._workers:
            return True
        own = [key for key in self._workers if key[0] == client.key]
        if len(own) >= self._limits.threads // 4:
            return self._end_idle(own)
        return len(self._workers) < self._limits.threads or self._end_idle(list(self._workers))

    def _end_idle(self, keys: list[tuple[bytes, int]]) -> bool:
        for key in keys:
            if self._workers[key].is_idle:
                self._workers.pop(key).end()
                return True
        return False

    @property
    def count(self) -> int:
        """How many threads there are."""
        return len(self._workers)

    def submit(self, client: Client, call: Call, declaration: SharedObject[Any], definition: bytes) -> None:
        """Run a call on its owner's thread."""
        key = (client.key, call.owner)
        worker = self._workers.get(key)
        if worker is None:
            worker = self._workers[key] = _Worker(f"registry owner {call.owner} of {client.label}")
        worker.give(partial(self._run, client, call, declaration, definition))

    def withdraw(self, client: Client, seq: int) -> bool:
        """Keep a call that has not started from running. False: it has."""
        return not self._runs.setdefault((client.key, seq), False)

    def owner_ended(self, client: Client, owner: int | None) -> None:
        """End the threads of an owner, or of a whole session."""
        for key in [key for key in self._workers if key[0] == client.key and owner in (None, key[1])]:
            self._workers.pop(key).end()
        if owner is None:
            for name in [name for name, key in list(self._owned.items()) if key == client.key]:
                self.delete(*name)

    def delete(self, typeid: str, name: str) -> bool:
        """Forget an object. False: there is none."""
        self._owned.pop((typeid, name), None)
        return self._objects.pop((typeid, name), None) is not None

    def objects(self) -> list[list[object]]:
        """Return the rows of `Host.objects`; these are ephemeral."""
        # A list of its own, since other threads add to the dict.
        hosted = list(self._objects.values())
        return [[each.declaration.typeid, each.name, each.maker, each.made, True, 0] for each in hosted]

    def statistics(self, typeid: str, name: str) -> dict[str, object] | None:
        """Return what is known of an object, or None. It is not asked itself, since that might block."""
        live = self._objects.get((typeid, name))
        return None if live is None else {"maker": live.maker, "made": live.made, "stopped": "", "threaded": True}

    def stop(self) -> None:
        """Let the threads end after the call that each is in."""
        for worker in self._workers.values():
            worker.end()
        self._workers.clear()

    def _run(self, client: Client, call: Call, declaration: SharedObject[Any], definition: bytes) -> None:
        key = (client.key, call.seq)
        if self._runs.setdefault(key, True):
            kind, body = self._result(client, call, declaration, definition)
            self._post(partial(self._finish, client, call.seq, kind, body))
        else:
            del self._runs[key]

    def _finish(self, client: Client, seq: int, kind: int, body: bytes | Parts) -> None:
        del self._runs[client.key, seq]
        if self.host is not None:
            self.host.finish(client, seq, kind, body)

    def _result(
        self, client: Client, call: Call, declaration: SharedObject[Any], definition: bytes
    ) -> tuple[int, bytes | Parts]:
        try:
            hosted = self._hosted(client, call, declaration, definition)
            if call.method not in declaration.interface.exposed:
                raise AttributeError(f"shared {call.typeid}:{call.name} exposes no {call.method[:LONGEST_WORD]!r}")
            args, kwargs = _codec.decode_arguments(call.arguments, incoming=stamp(client.domain), rows=unopened)
            return outcome(hosted, bound(hosted, call.method)(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - what a user's object raises is its caller's to know
            return Kind.ERROR, _codec.encode_exception(error, traceback.format_exc())

    def _hosted(self, client: Client, call: Call, declaration: SharedObject[Any], definition: bytes) -> Hosted:
        """Return the object of a call, made at its first use, or compare its definition."""
        key = (call.typeid, call.name)
        hosted = self._objects.get(key)
        if hosted is None:
            with self._making:
                hosted = self._objects.get(key)
                if hosted is None:
                    if client.is_reader:
                        raise NoSuchObject(f"{call.typeid}:{call.name}", not_made(f"{call.typeid}:{call.name}"))
                    return self._make(client, call, declaration, definition)
        hosted.check(definition)
        return hosted

    def _make(self, client: Client, call: Call, declaration: SharedObject[Any], definition: bytes) -> Hosted:
        if self.host is not None and (error := self.host.bounds.making(call, len(self._objects))) is not None:
            raise error
        args, kwargs, bound = bind(declaration, definition)
        maker, made = client.label, time.time()
        hosted = Hosted(0, declaration, call.name, definition, bound, maker=maker, made=made, session=0)
        hosted.live(declaration.factory(*args, **kwargs))
        self._objects[call.typeid, call.name] = hosted
        if declaration.per == "call":
            self._owned[call.typeid, call.name] = client.key
        return hosted
