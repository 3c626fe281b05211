"""The log of a server that runs: when events are written, what leaves then, and when segments are folded.

How a log is written and read is told in `_log`; this is what a server's loop does with one. At the end of a turn the
events that it has brought become one record (`end_turn`, `commit`), and what came out of them leaves once that is safe.
A segment that has grown is closed and folded by another process. At a clean stop a snapshot is left, and nothing to
replay. A log that cannot be written ends the server: nothing is acknowledged any more, and its clients find that out.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from registry import _starter
from registry._addresses import EpochFile
from registry._host import Host
from registry._log import Folded, Folding, Recovered, SegmentLog, Store
from registry._plugins import Plugins
from registry.errors import PluginError, RegistryError

SETTLE = 5.0  # seconds that a stop waits for the log to be written

log = logging.getLogger("registry")


class Durability:
    """The log of one server life.

    The order of use: `recover`, `begin`, `serve`, `end_turn` after each turn; then `settle`, `finish`, `release`.

    Args:
        path: The directory of the log.
        epoch: The epoch file of the same server.
        plugins: What its objects are made by.
        disk: Whether events are on the disk before they are acknowledged.
        label: How people call the server.
        post: Runs a function in a turn of the loop; called from any thread.
        soon: Runs a function on the loop once what has come by now has been taken.
        flush: Sends what may leave.
        failed: Called once when nothing can be written any more.

    Attributes:
        failure: Why the log has ended badly, None if it has not.
    """

    def __init__(
        self,
        path: Path,
        epoch: EpochFile,
        plugins: Plugins,
        *,
        disk: bool,
        label: str,
        post: Callable[[Callable[[], None]], None],
        soon: Callable[[Callable[[], None]], None],
        flush: Callable[[], None],
        failed: Callable[[], None],
    ) -> None:
        self.failure: RegistryError | None = None
        self._epoch = epoch
        self._plugins = plugins
        self._label = label
        self._soon = soon
        self._flush = flush
        self._failed = failed
        self._host: Host
        self._committing = False
        self._closed = 0  # the last event of the segments that are to be folded
        self._settled: asyncio.Event | None = None
        self._store = Store(
            path,
            epoch,
            plugins,
            disk=disk,
            post=post,
            on_safe=self._made_safe,
            on_failure=self._cannot_write,
            say=log.info,
        )

    @property
    def log(self) -> SegmentLog:
        """Where events are added."""
        return self._store.log

    @property
    def path(self) -> str:
        """The directory of the log."""
        return str(self._store.directory.path)

    @property
    def origin(self) -> str:
        """The trust domain of our processes: what pickles are stamped with that they write."""
        return self._store.origin

    @property
    def others(self) -> dict[str, bool]:
        """Further stamps that pickles in the log have, and whether our processes may open them."""
        return self._store.others

    # -- the start

    def recover(self) -> Recovered:
        """Take the directory, and return the state that it tells of.

        Raises:
            OSError: Another server has it.
            CodeChanged: It holds events of an unclean end that other code has brought about.
            RegistryError: It is damaged.
        """
        self._store.lock()
        ephemeral = [typeid for typeid, each in self._plugins.declarations.items() if each.threaded]
        if ephemeral:
            log.warning("threaded objects are not in the log, and end with the server: %s", ", ".join(ephemeral))
        return self._store.recover()

    def begin(self, number: int, life: bytes) -> None:
        """Begin to write, as the life of this number and id."""
        self._store.begin(number, life)

    async def serve(self, host: Host, stopped: asyncio.Event) -> None:
        """Go on with a host that has been made of what was recovered; return once its beginning is on the disk.

        Clients tell the next life which one they knew. If that one had lost its beginning, by a loss of power for
        example, nobody could say what they have missed, and they would lose their sessions for nothing.

        Args:
            host: The host.
            stopped: Set where nobody needs to wait any longer.

        Raises:
            RegistryError: The log cannot be written.
        """
        self._host = host
        self._commit()
        begun = asyncio.Event()
        self.log.when_synced(begun.set)
        waiting = [asyncio.ensure_future(each.wait()) for each in (begun, stopped)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()
        if self.failure is not None:
            raise self.failure
        if host.recovered > self._store.snapshot:
            self._fold(host.recovered)

    # -- while it is served

    def close_segment(self) -> Callable[[Callable[[object], None]], None]:
        """Answer the question `log`: once all that has happened by now is on the disk in files that never change again.

        Whoever has asked may read these, as far as the event that the answer names.
        """
        self._commit()
        chain = self.log.chain
        files = {
            "directory": os.fspath(self._store.directory.path.absolute()),
            "epoch_file": os.path.abspath(self._epoch.path),
        }

        def ask(answer: Callable[[object], None]) -> None:
            self._store.close_segment(lambda index: answer({**files, "index": index, "chain": chain}))

        return ask

    def end_turn(self) -> None:
        """Have the events of this turn written; all that have come by the end of the loop's turn go together."""
        if self.log.pending and not self._committing:
            self._committing = True
            self._soon(self._commit)

    def _commit(self) -> None:
        self._committing = False
        if self.log.failure is None:
            self.log.commit()
            if self._store.is_full:
                self._store.roll(self._fold)

    def _made_safe(self, index: int) -> None:
        self._host.release(index)
        self._flush()

    def _cannot_write(self, error: BaseException) -> None:
        text = f"the log in {self._store.directory.path} cannot be written: {error}"
        log.critical("%s; nothing since event %d is acknowledged. Stopping", text, self.log.safe)
        self.failure = RegistryError(f"{text}; start the server again once that is mended: it goes on from the log")
        if self._settled is not None:
            self._settled.set()
        self._failed()

    def _fold(self, upto: int) -> None:
        """Have a process make a snapshot of what is in the segments up to an event, once the one before is done."""
        self._closed = upto
        try:
            start = Folding.Start(
                _starter.interpreter(self._label),
                _starter.environment(_starter.search_path(whole=True)),
                self._plugins.spec,
            )
        except PluginError as error:
            log.warning("no snapshots are made while the server runs: %s", error)
            return
        self._store.fold(upto, start, self._folded)

    def _folded(self, folded: Folded) -> None:
        if folded.index:
            log.info("folded the log up to event %d in %.1f s", folded.index, folded.seconds)
            if self._closed > folded.index:
                self._fold(self._closed)  # what was closed meanwhile
        elif folded.diverged:
            log.error("%s. A snapshot of what is served is made instead", folded.diverged)
            self._commit()
            write = self._store.take_picture(self._host.engine)
            self.log.when_synced(lambda: self._keep_picture(write))
        elif folded.error:
            log.warning("the log could not be folded: %s", folded.error)

    def _keep_picture(self, write: Callable[[], None]) -> None:
        try:
            write()
        except (OSError, RegistryError) as error:
            log.warning("the snapshot could not be finished (%s); the next start replays what is in none", error)

    # -- the end

    async def settle(self) -> None:
        """Wait until what was answered is safe and has left, unless there is no space for it."""
        self._commit()
        if self.log.failure is None:
            self._settled = asyncio.Event()
            self.log.when_synced(self._settled.set)
            try:
                await asyncio.wait_for(self._settled.wait(), SETTLE)
            except asyncio.TimeoutError:
                log.warning("stopping although not all of the log could be written; what is not in it was not answered")

    def finish(self) -> None:
        """End the log; after a clean stop leave a snapshot, and nothing to replay. Blocks."""
        self.log.commit()
        self._store.stop()
        if self.log.failure is None:
            self._keep_picture(self._store.take_picture(self._host.engine))
        elif self.failure is None:
            self.failure = RegistryError(
                f"the log in {self._store.directory.path} could not be finished: {self.log.failure}; what is not in it "
                "was not answered"
            )

    def release(self) -> None:
        """Let go of the directory."""
        self._store.release()

    def close_inherited(self) -> None:
        """In a forked child: let go of what is the parent's."""
        self._store.close_inherited()
