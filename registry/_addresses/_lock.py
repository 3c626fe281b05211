"""The lock that makes a server the only one of its place."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping

from registry._addresses._files import about, write_all

if sys.platform != "win32":
    import fcntl
else:
    import msvcrt


LEFT_BEHIND = 5.0  # seconds that a process between fork and exec may need on a busy machine


class ServerLock:
    """The lock that makes a server the only one of its place.

    The system frees it with the process, however that ends. The file is never removed, since a second
    starter could hold the removed one. Something else may remove it (the temporary directory is swept of
    what is old), so whoever gets the lock looks whether its file still has its name, and `touch` keeps the
    sweeper away.

    A forked child shares its parent's lock: there, `release` gives up its share and leaves the parent's.
    """

    __slots__ = ("_fd", "_path", "_pid")

    # Locked on Windows, where what is locked cannot be read: a byte far behind the content.
    _WINDOWS_OFFSET = 1 << 30

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._fd: int | None = None
        self._pid = 0

    def __repr__(self) -> str:
        return f"<{'held' if self.held else 'free'} server lock {self._path}>"

    @property
    def held(self) -> bool:
        """True while this object holds the lock, in the process that took it."""
        return self._fd is not None and self._pid == os.getpid()

    def acquire(self) -> bool:
        """Take the lock if it is free, and tell whether this object holds it now."""
        return self._take(self._lock)

    def succeed(self) -> bool:
        """Take the lock as the next server: as `acquire`, but wait a moment where the one that had it is gone.

        A process that it was about to start may hold the lock still, until it has become another program.
        """
        if self.acquire():
            return True
        pid = (self.read_info() or {}).get("pid")
        return isinstance(pid, int) and not _runs(pid) and self.wait(LEFT_BEHIND)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the lock, and tell whether this object holds it now.

        Args:
            timeout: in seconds; ``None`` waits for as long as it takes.
        """
        if timeout is None and sys.platform != "win32":
            return self._take(self._lock_blocking)
        # A wait in flock has no deadline and cannot be called back, neither by a signal that belongs to the
        # application nor from another thread: so it is asked for again and again.
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = 0.001
        while not self.acquire():
            left = pause if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(pause, left))
            pause = min(pause * 2, 0.05)
        return True

    def release(self) -> None:
        """Let go of the lock. Nothing happens where it is not held."""
        fd, self._fd = self._fd, None
        if fd is None:
            return
        try:
            if self._pid == os.getpid():
                # By name: closing would not do while a forked child has the file open too.
                self._unlock(fd)
        finally:
            os.close(fd)

    def touch(self) -> bool:
        """Mark the lock as used, and tell whether it is still the one that others would find.

        A server calls this now and then. False means that the file was removed or replaced, so that another
        server may start beside this one.
        """
        if self._fd is None:
            return False
        if os.utime in os.supports_fd:
            os.utime(self._fd)
        return self._in_place(self._fd)

    def write_info(self, info: Mapping[str, object]) -> None:
        """Tell others who holds the lock.

        Args:
            info: plain JSON values, such as ``pid``, ``since`` and ``address``.

        Raises:
            RuntimeError: the lock is not held.
        """
        import json

        if self._fd is None or not self.held:
            raise RuntimeError(f"{self._path} is written by the holder of the lock alone")
        line = json.dumps(dict(info)).encode() + b"\n"
        # One write, then the rest of a longer one is cut: a reader that comes between takes the first line.
        with about(self._path):
            os.lseek(self._fd, 0, os.SEEK_SET)
            write_all(self._fd, line)
            os.ftruncate(self._fd, len(line))

    def read_info(self) -> dict[str, object] | None:
        """Return what the last holder wrote, held or not; ``None`` if it wrote nothing that can be read.

        It may be the word of a server that is gone: look at its pid, or ask at its address.
        """
        import json

        try:
            with open(self._path, "rb") as file:
                line = file.readline()
        except OSError:
            return None
        try:
            info = json.loads(line)
        except ValueError:
            return None
        return info if isinstance(info, dict) else None

    def _take(self, lock: Callable[[int], bool]) -> bool:
        if self.held:
            return True
        self.release()  # a parent's, after a fork
        while True:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
            fd = os.open(self._path, flags, 0o600)
            kept = False
            try:
                if not lock(fd):
                    return False
                if self._in_place(fd):
                    kept = True
                    self._fd, self._pid = fd, os.getpid()
                    return True
                # Removed between opening and locking: what is locked now is nobody's lock.
            finally:
                if not kept:
                    os.close(fd)

    def _in_place(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), os.lstat(self._path))
        except FileNotFoundError:
            return False

    if sys.platform != "win32":

        @staticmethod
        def _lock(fd: int) -> bool:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        @staticmethod
        def _lock_blocking(fd: int) -> bool:
            fcntl.flock(fd, fcntl.LOCK_EX)
            return True

        @staticmethod
        def _unlock(fd: int) -> None:
            fcntl.flock(fd, fcntl.LOCK_UN)

    else:

        @staticmethod
        def _lock(fd: int) -> bool:
            os.lseek(fd, ServerLock._WINDOWS_OFFSET, os.SEEK_SET)
            try:
                msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
            except OSError:
                return False
            return True

        @staticmethod
        def _unlock(fd: int) -> None:
            os.lseek(fd, ServerLock._WINDOWS_OFFSET, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)


def _runs(pid: int) -> bool:
    """Tell whether there is a process of that number; True where the system does not tell."""
    if sys.platform == "win32":
        return True  # there the question would end it
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
