"""``registry serve --reload``: begin anew with the new code when the files of the plugins change.

A thread looks at the files that the server's plugins were loaded from. Once they have changed, and have been left alone
for a moment, another interpreter loads them. If that goes well the server ends in order, and the same command takes the
place of this process (`exec`): same pid, same terminal, same unit. If not, the reason is logged, and the server goes on
with what it has loaded. What is shared is kept by the log, as for any other end of a server.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from registry import _plugins

if TYPE_CHECKING:
    from registry._plugins import Plugins

log = logging.getLogger("registry")

PERIOD = 0.25  # seconds between two looks
LOADING = 60.0  # seconds that another interpreter may take to load the plugins


class Reloader:
    """Looks after the code of a server.

    Args:
        plugins: What the server has loaded.
        options: Those of the command that say what it loads.
        stop: Ends the server; called from another thread.

    Attributes:
        is_due: Whether the server was ended so that it begins anew.
    """

    def __init__(self, plugins: Plugins, options: Sequence[str], stop: Callable[[], None]) -> None:
        self.is_due = False
        self._names = [plugin.name for plugin in plugins.plugins if plugin.status == "on"]
        self._options = list(options)
        self._stop = stop
        self._ended = threading.Event()
        self._tried = dict(plugins._stamps)  # of the files that were loaded, or would not do
        self._thread = threading.Thread(target=self._watch, name="registry reload", daemon=True)

    def begin(self) -> None:
        """Look from now on."""
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        before = self._tried
        while not self._ended.wait(PERIOD):
            now = {path: _plugins._stamp(path) for path in self._tried}
            if now == before and now != self._tried:  # whoever writes them is done
                changed = ", ".join(os.path.basename(path) for path in now if now[path] != self._tried[path])
                why = self._why_not()
                if self._ended.is_set():
                    return
                if not why:
                    log.info("%s changed: beginning anew", changed)
                    self.is_due = True
                    self._stop()
                    return
                log.error("%s changed, and what was loaded before is served on: %s", changed, why)
                self._tried = now
            before = now

    def _why_not(self) -> str:
        """Have another interpreter load the plugins; return why that cannot be served, empty if it can."""
        command = [sys.executable, "-m", "registry", "plugins", "--json", *self._options]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as loading:
            deadline = time.monotonic() + LOADING
            while True:
                try:
                    out, err = loading.communicate(timeout=PERIOD)
                    break
                except subprocess.TimeoutExpired:
                    if self._ended.is_set() or time.monotonic() > deadline:
                        loading.kill()
        if loading.returncode:
            return (err.strip().splitlines() or ["it could not be loaded in time"])[-1].removeprefix("registry: ")
        rows = {row["name"]: row for row in json.loads(out)}
        return "; ".join(
            f"plugin {name} is {rows[name]['status']}: {rows[name]['reason']}" if name in rows else f"{name} is gone"
            for name in self._names
            if name not in rows or rows[name]["status"] != "on"
        )


def take_over() -> NoReturn:
    """Have the command that this process runs take its place anew."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
