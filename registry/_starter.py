"""Start the server of a name when somebody needs it and nobody runs it.

Any number of processes may find at once that there is no server. One of them takes the *turn*, a lock file
beside the server's own, looks again, and starts one; the others find the server there, and use it. A server
that is coming up or going down, by whomever it was started, holds the server's lock, and is waited for.

What is started is ``python -m registry serve NAME --on-demand``, exec'ed anew so that it inherits neither
threads nor open files, in a session of its own, and forked once more so that it is nobody's child: a program
that waits for all of its children must not meet one that it does not know. Over a pipe the server says when
clients can connect, or why it gives up (`Report`): nobody has to ask again and again.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from registry._addresses import Place, ServerLock, find_authkey
from registry._transport import Dialed
from registry.errors import PluginError, ServerNotFound

__all__ = ["Busy", "Report", "detach", "launch", "revive", "search_path", "start_server", "tidy", "turn", "unit"]

LOOK = 0.2  # seconds between two looks at a server that has the lock and does not listen
ENDING = 5.0  # seconds that a process which was to start a server may take to end
REPORT_LIMIT = 65_536

_ABSENT = (FileNotFoundError, ConnectionRefusedError)


class Busy(Exception):
    """Raised when the server that was started found another one in its place."""


def start_server(
    name: str,
    plugins: Sequence[Any],
    deadline: float,
    dial: Callable[[], Dialed],
    authkey: bytes | None = None,
) -> Dialed:
    """Start the server of a name, unless somebody else is quicker, and connect to it.

    Args:
        name: The server's.
        plugins: What it is to load besides the installed plugins: names, modules or files.
        deadline: When to give up, as `time.monotonic` counts.
        dial: Connects; raises `FileNotFoundError` or `ConnectionRefusedError` while nobody listens.
        authkey: The key that the user gave, if any.

    Raises:
        PluginError: A plugin exists in this process only.
        ServerNotFound: The server could not be started.
    """
    options = [option for plugin in plugins for option in ("-p", _word(plugin))]
    place = Place(name)
    place.ensure()
    if authkey is not None and authkey != find_authkey(None, place.address, create=True):
        raise ServerNotFound(
            name,
            "none runs, and one that is started on demand has the key of its directory, not the given one; "
            f'leave out authkey=, or start it with "registry serve {name} --authkey-file F"',
        )
    path = search_path(whole=bool(options))
    dialed, pid = _in_turn(place, deadline, dial, lambda: launch(place, options, deadline, path=path))
    service = unit() if pid else ""
    if service:
        _say(f'it runs inside {service} and ends with it; a unit of its own would run "registry serve {name}"')
    return dialed


def revive(name: str, deadline: float, dial: Callable[[], Dialed]) -> Dialed | None:
    """Start a server again that was killed, as it had been started, and connect to it.

    That is for servers which were started on demand and keep a log: they go on from it, and nobody else would start
    them. One that has ended by itself was told to, or cannot go on.

    Args:
        name, deadline, dial: As for `start_server`.

    Returns:
        None where the server is not one of these.

    Raises:
        ServerNotFound: It could not be started.
    """
    place = Place(name)

    def begin() -> int:
        info = ServerLock(place.lock).read_info() or {}
        if not info.get("revived") or "ended" in info:
            raise _NotOurs
        options, path = (_texts(info.get(field)) for field in ("options", "path"))
        return launch(place, options, deadline, python=str(info.get("python", "")), path=path)

    try:
        return _in_turn(place, deadline, dial, begin)[0]
    except (_NotOurs, FileNotFoundError):
        return None


class _NotOurs(Exception):
    """Raised where somebody else is to start the server again."""


def _texts(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []


def _in_turn(place: Place, deadline: float, dial: Callable[[], Dialed], begin: Callable[[], int]) -> tuple[Dialed, int]:
    """Take the turn, start a server unless somebody was quicker, and connect.

    Args:
        begin: Starts one, and returns its pid.

    Returns:
        The connection, and the pid of the server if it was started here, else 0.
    """
    name = place.address.label
    lock = turn(place)
    while not lock.wait(min(LOOK, max(0.0, deadline - monotonic()))):
        try:
            return dial(), 0
        except _ABSENT as error:
            if monotonic() >= deadline:
                raise ServerNotFound(
                    name, f"another process is starting it, and is not done; log {tidy(place.log)}"
                ) from error
    try:
        while True:
            dialed = _look(place, name, deadline, dial)
            if dialed is not None:
                return dialed, 0
            try:
                pid = begin()
                break
            except Busy:
                pass  # one was started by hand in this moment
    finally:
        lock.release()
    _say(f"started server {name!r} (pid {pid}), log {tidy(place.log)}")
    try:
        return dial(), pid
    except _ABSENT as error:
        raise ServerNotFound(name, f"it was started (pid {pid}) and has ended; log {tidy(place.log)}") from error


def turn(place: Place) -> ServerLock:
    """Return the lock that a process holds while it starts or stops a place's server."""
    return ServerLock(place.directory / "starting")


def _look(place: Place, name: str, deadline: float, dial: Callable[[], Dialed]) -> Dialed | None:
    """Connect if there is a server. None: there is none, and there will be none by itself."""
    server = ServerLock(place.lock)
    while True:
        try:
            return dial()
        except _ABSENT as error:
            left = deadline - monotonic()
            if server.wait(min(LOOK, max(0.0, left))):
                server.release()
                return None
            if left <= 0:
                pid = (server.read_info() or {}).get("pid", "?")
                raise ServerNotFound(
                    name, f"pid {pid} is its server and does not listen; log {tidy(place.log)}"
                ) from error


def launch(place: Place, options: Sequence[str], deadline: float, *, python: str = "", path: Sequence[str] = ()) -> int:
    """Exec a server in the background, and return its pid once clients can connect.

    Args:
        place: Where it is to live.
        options: Of ``registry serve``.
        deadline: When to give up, as `time.monotonic` counts.
        python: The interpreter; this process's own if empty.
        path: Where it finds modules besides its own, see `search_path`.

    Raises:
        Busy: There is a server already.
        ServerNotFound: It did not start; the text has its reason.
    """
    name = place.address.label
    if os.name != "posix":
        raise ServerNotFound(name, f'on this system nothing is started on demand; run "registry serve {name}"')
    import subprocess

    where = [name] if place.address.name and not name.startswith("-") else [f"--address={name}"]
    command = [python or interpreter(name), "-m", "registry", "serve", *where, *options]
    log = os.open(place.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    reading, writing = os.pipe()
    try:
        try:
            written = os.fstat(log).st_size
            process = subprocess.Popen(
                [*command, "--on-demand", "--ready-fd", str(writing)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environment(path),
                pass_fds=(writing,),
                start_new_session=True,
            )
        except OSError as error:
            raise ServerNotFound(name, f"{command[0]} cannot be run ({error.strerror})") from error
        finally:
            os.close(writing)
            os.close(log)
        try:
            kind, text = _read_report(reading, deadline) or ("failed", _tail(place, written))
            process.wait(ENDING)
        except TimeoutError as error:
            raise ServerNotFound(name, f"it was started and is not ready yet; log {tidy(place.log)}") from error
        except subprocess.TimeoutExpired:
            pass  # the server has spoken; what it was forked from has nothing more to do
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    finally:
        os.close(reading)
    if kind == "ready":
        return int(text)
    if kind == "busy":
        raise Busy(text)
    raise ServerNotFound(name, f"it was started and gave up: {text}; log {tidy(place.log)}")


# The report over the pipe: one line, a JSON array of what it is and its text.


class Report:
    """The server's end of the pipe on which it says, once, how its start went.

    Args:
        fd: The pipe's, or None where nobody waits for it.
    """

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        if fd is not None:
            os.set_inheritable(fd, False)

    def ready(self) -> None:
        """Say that clients can connect."""
        self._send("ready", str(os.getpid()))

    def failed(self, text: str, *, busy: bool = False) -> None:
        """Say why there is no server; `busy` if there is another one."""
        self._send("busy" if busy else "failed", text)

    def _send(self, kind: str, text: str) -> None:
        fd, self._fd = self._fd, None
        if fd is None:
            return
        import json

        try:
            os.write(fd, json.dumps([kind, text[:4096]]).encode() + b"\n")
        except BrokenPipeError:
            pass  # whoever waited has given up, or has ended
        finally:
            os.close(fd)


def _read_report(fd: int, deadline: float) -> tuple[str, str] | None:
    """Wait for the report; None if the pipe ends without one.

    Raises:
        TimeoutError: The deadline came first.
    """
    import json
    import select

    waiting = select.poll()
    waiting.register(fd, select.POLLIN)
    data = b""
    # The line's end counts, not the stream's: a fork of this process may hold the other end, too.
    while not data.endswith(b"\n") and len(data) < REPORT_LIMIT:
        left = deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        if waiting.poll(min(left, 3600.0) * 1000):
            more = os.read(fd, 4096)
            if not more:
                return None
            data += more
    try:
        kind, text = json.loads(data)
    except ValueError:
        return None
    return str(kind), str(text)


def detach() -> None:
    """Go on in a child that is nobody's, and end the process that was started."""
    import signal

    # Whoever started us may have signals blocked or ignored, and that is inherited; a server is ended by one.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.fork():
        os._exit(0)


# What the started process is given


def search_path(*, whole: bool) -> list[str]:
    """Return where this process finds modules and a fresh interpreter would not look by itself.

    Args:
        whole: All of it, as plugins need. Otherwise no more than where this package is and what the
            environment says: the directory of whichever script comes first should not decide what a server
            imports.
    """
    own = _own_directories()
    entries = sys.path
    if not whole:
        package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        entries = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), package]
    found = dict.fromkeys(os.path.abspath(entry) for entry in entries if isinstance(entry, str))
    return [entry for entry in found if os.path.exists(entry) and os.path.realpath(entry) not in own]


def _own_directories() -> set[str]:
    import site
    import sysconfig

    paths = [sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")]
    library = sysconfig.get_path("stdlib")
    paths += [os.path.join(library, "lib-dynload"), *site.getsitepackages(), site.getusersitepackages()]
    return {os.path.realpath(path) for path in paths}


def environment(path: Sequence[str]) -> dict[str, str]:
    """Return the environment of a Python that finds modules there."""
    variables = dict(os.environ)
    # Nothing may mean something else in another working directory, nor may that one be looked into.
    variables["PYTHONSAFEPATH"] = "1"
    variables.pop("PYTHONPATH", None)
    variables.pop("NOTIFY_SOCKET", None)  # that is for whoever started this process to speak of itself
    if path:
        variables["PYTHONPATH"] = os.pathsep.join(path)
    if variables.get("REGISTRY_AUTHKEY_FILE"):
        variables["REGISTRY_AUTHKEY_FILE"] = os.path.abspath(variables["REGISTRY_AUTHKEY_FILE"])
    return variables


def interpreter(name: str) -> str:
    """Return the Python to run: where one is embedded, as in uWSGI, `sys.executable` is its host or empty."""
    candidates = [sys.executable, os.path.join(sys.exec_prefix, "bin", "python3")]
    for candidate in candidates:
        if candidate and os.path.basename(candidate).startswith(("python", "pypy")):
            return candidate
    raise ServerNotFound(name, f'this program has no Python to run; start it with "registry serve {name}"')


def _word(plugin: object) -> str:
    """Return how a plugin is named on the command line."""
    from registry import _plugins

    word = _plugins._rebuildable(_plugins._absolute(plugin))
    if isinstance(word, str) and word != "__main__":
        return word
    shown = "__main__" if isinstance(word, str) else getattr(plugin, "typeid", None) or repr(plugin)
    raise PluginError(
        str(shown),
        "a server in a process of its own finds a plugin by the name of its module or by its file: put it in "
        "one and give that, or serve it in this process with ManagerServer(plugins=...)",
    )


# What people are told


def unit(table: str = "/proc/self/cgroup") -> str:
    """Return the systemd service that this process is part of; it takes its processes along when it ends.

    Args:
        table: Where the system tells that of a process.
    """
    try:
        with open(table, encoding="utf-8", errors="replace") as file:
            paths = [
                line.rstrip("\n").split(":", 2)[-1]
                for line in file
                if line.startswith("0::") or ":name=systemd:" in line
            ]
    except OSError:
        return ""
    return next(filter(None, map(_service, paths)), "")


def _service(path: str) -> str:
    # The innermost unit counts: what a terminal has is a scope somewhere inside user@1000.service.
    units = [part for part in path.split("/") if part.endswith((".service", ".scope"))]
    innermost = units[-1] if units else ""
    return innermost if innermost.endswith(".service") and not innermost.startswith("user@") else ""


def _say(text: str) -> None:
    try:
        print(f"registry: {text}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass  # a daemon may have closed it


def tidy(path: str | os.PathLike[str]) -> str:
    """Return a path as people write it, with ``~`` for their home."""
    text, home = os.fspath(path), os.path.expanduser("~")
    return f"~{text[len(home) :]}" if home != "/" and text.startswith(f"{home}/") else text


def _tail(place: Place, start: int) -> str:
    """Return the last line that was logged since `start`."""
    try:
        with open(place.log, "rb") as file:
            file.seek(max(start, os.fstat(file.fileno()).st_size - 4096))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError as error:
        return f"its log cannot be read ({errno.errorcode.get(error.errno or 0, error)})"
    said = [line.strip() for line in lines if line.strip()]
    return said[-1].removeprefix("registry: ")[:300] if said else "it ended without a word"
