"""Fold closed segments into a snapshot, in a process of its own, while the server goes on.

That process loads the newest snapshot, replays the closed segments, compares what comes out of each event with what
came out of it in the server, and writes the next snapshot. So the server never stands still for it, and that its state
can be had again from its log is proved all the time.

It is exec'ed, not forked: it shares nothing with the server but the files.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import attrs

from registry._addresses import EpochFile
from registry._log._files import Directory


@attrs.frozen
class Folded:
    """What came of it.

    Attributes:
        index: The event whose state the new snapshot has; 0 if there is none.
        diverged: What gave another result when it was replayed, for people; empty if nothing did.
        error: Why it failed otherwise, for people, or empty.
        seconds: How long it took.
    """

    index: int = 0
    diverged: str = ""
    error: str = ""
    seconds: float = 0.0


class Folding:
    """One run of the process.

    Args:
        directory: The files.
        epoch: Where the head is recorded.
        code: What the server runs; the process must run the same.
        upto: The last event to fold, which ends a closed segment.
        start: How the process finds the plugins.
        done: Called from another thread with what came of it, unless it was stopped.
    """

    @attrs.frozen
    class Start:
        """How to start a process that has the same plugins: interpreter, environment, and what `load` takes."""

        python: str
        environment: dict[str, str]
        spec: tuple[Any, Any]

    def __init__(
        self,
        directory: Directory,
        epoch: EpochFile,
        code: dict[str, str],
        upto: int,
        start: Start,
        done: Callable[[Folded], None],
    ) -> None:
        self._directory = directory
        self._epoch = epoch
        self._code = code
        self._upto = upto
        self._start = start
        self._done = done
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="registry folding", daemon=True)

    def begin(self) -> None:
        """Start."""
        self._thread.start()

    def stop(self) -> None:
        """End the process; what it has not finished is as if it had not begun. Blocks."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()
        self._thread.join()

    def _run(self) -> None:
        began = time.monotonic()
        try:
            folded = self._fold()
        except Exception as error:  # noqa: BLE001 - the server goes on without a snapshot, and says so
            folded = Folded(error=f"{type(error).__name__}: {error}")
        if not self._stopped:
            self._done(attrs.evolve(folded, seconds=time.monotonic() - began))

    def _fold(self) -> Folded:
        task = pickle.dumps(
            (os.fspath(self._directory.path), self._start.spec, self._upto, self._code, self._directory.life)
        )
        with self._lock:
            if self._stopped:
                return Folded()
            self._process = process = subprocess.Popen(
                [self._start.python, "-m", "registry._log._folder"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._start.environment,
                cwd="/" if os.name == "posix" else None,
                start_new_session=True,
            )
        out, err = process.communicate(task)
        try:
            said = json.loads(out)
        except ValueError:
            return Folded(error=_last_line(err) or f"it ended with status {process.returncode}")
        if said.get("index"):
            self._epoch.record(said["index"], said["chain"])
            self._directory.trim()
        return Folded(said.get("index", 0), said.get("diverged", ""), said.get("error", ""))


def _last_line(data: bytes) -> str:
    lines = data.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
