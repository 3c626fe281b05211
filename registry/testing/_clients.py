"""Clients that are processes of their own, as a test sees them."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, BinaryIO, Concatenate, Final, ParamSpec, TypeVar

from registry.testing import _calling, _where
from registry.testing._calling import Errand, Outcome

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from registry.client import ManagerClient

P = ParamSpec("P")
R = TypeVar("R")

PATIENCE: Final = 60.0  # seconds that a function may take, and a process to begin or to end


class Client:
    """A client that is a process of its own, and calls functions of the test there. Made by `Server.client`.

    It calls one function at a time, in its main thread, each with the connected `ManagerClient` before the other
    arguments. They are found there by name, as `multiprocessing` finds them when it spawns: so they stand at the top of
    a module, and arguments and results can be pickled. Proxies can.

    Attributes:
        pid: The number of the process.
    """

    def __init__(self, url: str, authkey: bytes, options: dict[str, Any]) -> None:
        self._process = subprocess.Popen(_calling.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = self._process.pid
        self._calls: deque[Future[Any]] = deque()
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._ended = ""
        self._began: Future[Any] = Future()
        self._calls.append(self._began)
        self._reader = threading.Thread(target=self._read, name=f"client {self.pid}", daemon=True)
        self._reader.start()
        try:
            _calling.send(self._input, ((url, authkey, options), _where.path()))
        except OSError:
            pass  # it has ended, as `connected` will tell

    def connected(self) -> Self:
        """Return it once it has connected.

        Raises:
            Exception: What connecting has raised there.
        """
        self._began.result(PATIENCE)
        return self

    def __repr__(self) -> str:
        return f"<client process {self.pid}{', ended' if self._process.poll() is not None else ''}>"

    def run(self, function: Callable[Concatenate[ManagerClient, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function in the process, and return what it returns.

        Raises:
            TypeError: The process could not find the function, or an argument or the result cannot be pickled.
            ChildProcessError: The process has ended.
            TimeoutError: It has not returned within a minute.
            Exception: Whatever the function has raised there.
        """
        __tracebackhide__ = True
        future = self.submit(function, *args, **kwargs)
        try:
            return future.result(PATIENCE)
        except (TimeoutError, futures.TimeoutError):  # two classes before Python 3.11
            if future.done():
                raise  # the function's own
            name = getattr(function, "__qualname__", repr(function))
            raise TimeoutError(f"{name}() has not returned within {PATIENCE:.0f} s in {self!r}") from None

    def submit(
        self, function: Callable[Concatenate[ManagerClient, P], R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[R]:
        """As `run`, but do not wait for the result."""
        errand = Errand.of(function, args, kwargs)
        future: Future[R] = Future()
        with self._sending:
            with self._lock:
                if self._ended:
                    future.set_exception(ChildProcessError(self._ended))
                    return future
                self._calls.append(future)
            try:
                _calling.send(self._input, errand)
            except (OSError, ValueError):
                pass  # it has just ended, as the future will tell
        return future

    def kill(self) -> None:
        """Kill the process, as nothing can prevent, and return once it is gone. What it was calling fails."""
        self._process.kill()
        self._process.wait(PATIENCE)
        self._let_go()

    def pause(self) -> None:
        """Have the process stand still. The server and everybody else see it there, and hear nothing of it.

        Raises:
            NotImplementedError: There is no such thing on Windows.
        """
        stop(self._process)

    def resume(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Have the process end in order, once it has called everything, and return when it is gone."""
        try:
            self._input.close()
        except OSError:
            pass  # it has ended by itself
        self._process.wait(PATIENCE)
        self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close() if error is None else self.kill()

    # -- within

    @property
    def _input(self) -> BinaryIO:
        stream = self._process.stdin
        if stream is None:
            raise ChildProcessError(f"client process {self.pid} has no input")
        return stream  # type: ignore[return-value]

    def _read(self) -> None:
        """Hand out the answers, until there are no more."""
        stream = self._process.stdout
        while stream is not None:
            try:
                outcome: Outcome = _calling.receive(stream)  # type: ignore[arg-type]
            except (EOFError, OSError, ValueError):
                break
            with self._lock:
                future = self._calls.popleft()
            _settle(future, outcome)
        status = self._process.wait()
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        with self._lock:
            self._ended = f"client process {self.pid} {how}"
            left, self._calls = list(self._calls), deque()
        for future in left:
            future.set_exception(ChildProcessError(self._ended))

    def _let_go(self) -> None:
        self._reader.join(PATIENCE)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    pass  # what was not written has nobody to read it


# Tracebacks and pickles have the public name, which does not move when a private file does.
Client.__module__ = "registry.testing"


def _settle(future: Future[Any], outcome: Outcome) -> None:
    try:
        value = pickle.loads(outcome.value)
    except Exception as error:  # noqa: BLE001 - told to who waits for it
        value = TypeError(f"what came back from another process cannot be unpickled here: {error}")
        outcome = Outcome(b"", True, outcome.trace)
    if not outcome.is_error:
        future.set_result(value)
        return
    if hasattr(value, "add_note") and outcome.trace:
        value.add_note(f"in the client's process:\n{outcome.trace}")
    future.set_exception(value)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Have a process stand still, and return once it does."""
    if sys.platform == "win32":
        raise NotImplementedError("a process cannot be stopped on Windows")
    process.send_signal(signal.SIGSTOP)
    if hasattr(os, "waitid"):
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
