"""Watch what methods call while they run in a step: clocks, random numbers, the environment, files.

`sys.setprofile` tells of each call of a C function with the frame that makes it, so that file and line can be named,
however many functions lie in between. Only what runs in a step of the hosted class counts: neither our
own code nor what a module does while it is imported, nor a log line, which is no part of the state.
"""

from __future__ import annotations

import builtins
import datetime
import gc
import importlib.util
import os
import random
import select
import socket
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final, NamedTuple

import registry
from registry._engine import Engine

CLOCK: Final = "use hosting.call().now, which is the same at every replay"
RANDOM: Final = "use hosting.call().random(n), which gives the same bytes at every replay"
SURROUNDINGS: Final = "let the caller pass it as an argument, or give it to the factory"
PROCESS: Final = "who calls is told by hosting.call().caller, session and owner"
SLEEP: Final = "return a wait of hosting.Waiters, or ask for due() by hosting.at(); a step holds up everybody"
OUTSIDE: Final = "do it in the caller and pass what came of it, or declare the class with threaded=True"

_METHODS_OF_DATES: Final = ("now", "today", "utcnow")


class Sight(NamedTuple):
    """What a method was seen to do.

    Attributes:
        method: The method of the hosted class that the engine ran.
        doing: In words: ``reads a clock: time.time()``.
        place: File and line in the author's code, or ("", 0).
        cure: What to do instead.
    """

    method: str
    doing: str
    place: tuple[str, int]
    cure: str


def _functions(doing: str, cure: str, module: Any, names: str) -> dict[Any, tuple[str, str]]:
    title = module.__name__.lstrip("_")
    return {
        getattr(module, name): (f"{doing}: {title}.{name}()", cure) for name in names.split() if hasattr(module, name)
    }


def _table() -> dict[Any, tuple[str, str]]:
    import _thread

    clocks = "time time_ns monotonic monotonic_ns perf_counter perf_counter_ns process_time process_time_ns"
    table = {
        **_functions(
            "reads a clock", CLOCK, time, f"{clocks} thread_time thread_time_ns clock_gettime clock_gettime_ns"
        ),
        **_functions("sleeps", SLEEP, time, "sleep"),
        **_functions("draws a random number", RANDOM, os, "urandom getrandom"),
        **_functions("looks at its process", PROCESS, os, "getpid getppid getuid geteuid getlogin"),
        **_functions("looks at its process", PROCESS, _thread, "get_ident get_native_id"),
        **_functions("looks at its machine", SURROUNDINGS, os, "getcwd uname cpu_count getloadavg"),
        **_functions("looks at its machine", SURROUNDINGS, socket, "gethostname getaddrinfo gethostbyname"),
        **_functions("looks at files", OUTSIDE, os, "stat lstat listdir scandir access open read write"),
        **_functions("starts a thread", OUTSIDE, _thread, "start_new_thread start_joinable_thread"),
        **_functions("waits for something", OUTSIDE, select, "select poll epoll"),
        builtins.open: ("opens a file: open()", OUTSIDE),
        builtins.input: ("asks a person: input()", OUTSIDE),
    }
    for doing, cure, name, function in (
        ("starts a process", OUTSIDE, "_posixsubprocess", "fork_exec"),
        ("draws a random number", RANDOM, "_uuid", "generate_time_safe"),
    ):
        if importlib.util.find_spec(name) is not None:
            table |= _functions(doing, cure, importlib.import_module(name), function)
    return table


_FUNCTIONS: Final = _table()
# What these return may differ and need not: they are named where an outcome does.
_SUSPECTS: Final[dict[Any, str]] = {
    builtins.id: "id()",
    builtins.hash: "hash()",
    time.localtime: "time.localtime()",
    time.gmtime: "time.gmtime()",
    time.ctime: "time.ctime()",
    time.strftime: "time.strftime()",
}
_ENVIRONMENT: Final[frozenset[CodeType]] = frozenset(
    vars(type(os.environ))[name].__code__ for name in ("__getitem__", "__iter__", "__len__")
)
# The generator behind the functions of `random`; other instances may have been given a seed.
_GENERATOR: Final = getattr(random.random, "__self__", None)

_OURS: Final = str(Path(registry.__file__).parent) + os.sep
_LIBRARY: Final = sysconfig.get_path("stdlib") + os.sep
_INSTALLED: Final = tuple(sysconfig.get_path(name) + os.sep for name in ("purelib", "platlib"))
# Parts of the standard library that read clocks and files for reasons of their own, which no result shows.
_QUIET: Final = tuple(
    _LIBRARY + part for part in "logging warnings.py linecache.py traceback.py zoneinfo importlib _strptime.py".split()
) + ("<frozen importlib",)


class Watch:
    """What the methods of one class were seen to do.

    Attributes:
        sights: What is never right.
        suspects: What may explain an outcome that differs, by the number of its moment.
        ran: The methods that the engine ran in each moment, by its number.
    """

    def __init__(self) -> None:
        self.sights: dict[Sight, None] = {}
        self.suspects: dict[int, dict[Sight, None]] = {}
        self.ran: dict[int, list[str]] = {}
        self._number = -1
        self._running = [""]

    def attach(self, engine: Engine, number: int, method: str) -> None:
        """Watch what an engine runs from here on, in the moment of this number."""
        inner = engine._within
        self._number = number

        def watched(step: Any, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            name = getattr(function, "__name__", "")
            name = method if name in ("<lambda>", "") else name
            self.ran.setdefault(number, []).append(name)
            self._running.append(name)
            before, collects = sys.getprofile(), gc.isenabled()
            # What others do when garbage is collected would be taken for the method's doing.
            gc.disable()
            sys.setprofile(self._saw)
            try:
                return inner(step, function, *args, **kwargs)
            finally:
                sys.setprofile(before)
                if collects:
                    gc.enable()
                self._running.pop()

        self._top = watched.__code__
        engine._within = watched  # type: ignore[method-assign]

    def _saw(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "c_call":
            found = _FUNCTIONS.get(arg) or _odd(arg)
            if found is not None:
                self._note(frame, *found)
                return
            suspect = _SUSPECTS.get(arg) or _suspect(arg)
            if suspect and _is_authors(frame.f_code.co_filename):
                sight = Sight(self._running[-1], suspect, (frame.f_code.co_filename, frame.f_lineno), "")
                self.suspects.setdefault(self._number, {})[sight] = None
        elif event == "call" and frame.f_code in _ENVIRONMENT and frame.f_back is not None:
            self._note(frame.f_back, "reads the environment: os.environ", SURROUNDINGS)

    def _note(self, frame: FrameType, doing: str, cure: str) -> None:
        if frame.f_code.co_filename.startswith(_OURS):
            return
        place, through = ("", 0), ""
        outer: FrameType | None = frame
        while outer is not None and outer.f_code is not self._top:
            file = outer.f_code.co_filename
            if file.startswith(_QUIET):
                return
            if not place[0] and _is_authors(file) and not _is_generated(outer):
                place = (file, outer.f_lineno)
            elif not place[0]:
                through = f", by {outer.f_code.co_name}()"
            outer = outer.f_back
        self.sights[Sight(self._running[-1], doing + (through if place[0] else ""), place, cure)] = None


def _odd(function: Any) -> tuple[str, str] | None:
    """Tell of methods of C classes, which are other objects each time."""
    owner = getattr(function, "__self__", None)
    if owner is None:
        return None
    if isinstance(owner, type):
        if issubclass(owner, datetime.date) and function.__name__ in _METHODS_OF_DATES:
            return f"reads a clock: {owner.__name__}.{function.__name__}()", CLOCK
        return None
    if owner is _GENERATOR:
        return f"draws a random number: random.{function.__name__}()", RANDOM
    if isinstance(owner, socket.socket) and function.__name__ in ("connect", "send", "sendall", "recv"):
        return f"talks to a socket: {function.__name__}()", OUTSIDE
    return None


def _suspect(function: Any) -> str:
    """Tell of methods of dates that know the time zone of the process."""
    name, owner = getattr(function, "__name__", ""), getattr(function, "__self__", None)
    if name == "fromtimestamp" and isinstance(owner, type) and issubclass(owner, datetime.date):
        return f"{owner.__name__}.fromtimestamp() without a zone"
    return "datetime.astimezone()" if name == "astimezone" and isinstance(owner, datetime.datetime) else ""


def _is_generated(frame: FrameType) -> bool:
    """Tell whether code was made in a module, such as the `__init__` of a dataclass: nobody finds it in a file."""
    return frame.f_code.co_filename == "<string>" and "__file__" in frame.f_globals


def _is_authors(file: str) -> bool:
    """Tell whether code is neither ours, nor of the standard library, nor made by a library such as attrs."""
    if file.startswith("<") and not file.startswith(("<stdin", "<input", "<ipython", "<python", "<doctest", "<string")):
        return False
    if file.startswith(_OURS):
        return False
    return file.startswith(_INSTALLED) or not file.startswith(_LIBRARY)
