"""Version words: by what a process knows, without asking, that what it has read is still so.

A server keeps 64-bit words in memory that processes of its user on its host may map. Each reply to a read that may be
cached tells one word with the value that it had in the same step. Whatever changes what was read moves that word before
anything else can be known of the change, so as long as the word has this value the reply is what a call would get. The
change takes effect with the first move, and what is answered from a cache with the look at the word: since the reply to
a change leaves after the move, nobody who has heard of it can see what was before.

Two kinds of words, and only their movement means anything:

* A read that is not keyed hangs on its object's *any*, which every change of the object moves.
* A keyed read hangs on the *stripe* of its object and key, which changes of that key move. A change that is not keyed
  moves all stripes of its object that have been told to anybody since the last such change: as many as were read, so
  that a read pays for the move of its stripe. (A third word, *whole*, moved by those changes alone, would make each
  hit look at two.)

Objects and keys share the words of a pool; two that meet in one word cost each other a look at the server, and nothing
else. Which word it is the server alone says, with Python's hash: keys that are equal have the same. Words begin at one
random number, only grow, and are never put back.

Across the lives of a server. The file's first word is the server's monotonic clock, renewed while anybody maps it.
Nothing is answered from a cache that saw it `LEASE` ago or earlier. A new server finds the file of the one before by a
record in its directory and *poisons* it: all words move far away. Where it cannot prove that it has found that file, it
serves nobody before the lease of the old one is over.

The file, in words of the machine's own order::

    place         size          content
    0             1             the server's monotonic clock, in nanoseconds; 0 once it is poisoned
    1             1             what all words began with; it tells the file from any other
    2             1             bytes in the directory of the server
    3             509           that directory
    512           8,192         any
    8,704         65,536        stripes

It is written and read through a `memoryview` of 64-bit items, whose loads and stores are never torn; `struct` in a
standard size copies bytes one by one. On x86-64 other processors see stores in the order in which they were made, which
all of this leans on. Elsewhere there are no words, and reads are round trips.
"""

from __future__ import annotations

import mmap
import os
import stat
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

import msgspec

from registry import _peers
from registry._leaves import EVERY
from registry._wire import WORD, BadBody, Words, encode

__all__ = ["LEASE", "PERIOD", "Mapped", "WordFile", "WordPool", "begin"]

LEASE = 2.0  # seconds for which a look at the server's clock lets a cache answer
PERIOD = 0.5  # seconds between two stamps

STAMP, FIRST, LENGTH, PATH = 0, 1, 2, 3
ANY = 512
ANYS = 8192
STRIPE = ANY + ANYS
STRIPES = 65_536
COUNT = STRIPE + STRIPES
SIZE = COUNT * 8
POISON = 1 << 63  # words begin below a half of it, and do not grow by that much in any life

IS_SUPPORTED = sys.platform == "linux" and sys.maxsize > 2**32 and os.uname().machine == "x86_64"
SHARED_MEMORY = "/dev/shm"


# -- the server's side


class WordPool:
    """The words of one server life.

    Args:
        view: `COUNT` items of 64 bits.
        first: What all words begin with.

    Attributes:
        told: What clients are told of them; None where nobody else can map them.
    """

    told: Words | None = None

    def __init__(self, view: memoryview[Any], first: int) -> None:
        self.view = view
        view[ANY:] = memoryview(array("Q", [first]) * (COUNT - ANY))
        view[FIRST] = first
        # The stripes that were told since the last change of all of their object, by its number.
        self._told: dict[int, set[int]] = {}

    def move(self, touched: Iterable[tuple[int, object]]) -> None:
        """Move the words of what a step has touched: objects by number, 0 for all, and a key of each or `EVERY`."""
        view = self.view
        for number, key in touched:
            if not number:
                self._move_all()
                continue
            view[ANY + (number & ANYS - 1)] += 1
            stripe = 0 if key is EVERY else _stripe(number, key)
            if stripe:
                view[stripe] += 1
            elif number in self._told:
                for stripe in self._told.pop(number):
                    view[stripe] += 1

    def sample(self, number: int, key: object) -> bytes:
        """Return the place of the word that a read of an object hangs on, and its value, as SHOWN begins."""
        place = 0 if key is EVERY else _stripe(number, key)
        if not place:
            place = ANY + (number & ANYS - 1)
        elif number in self._told:
            self._told[number].add(place)
        else:
            self._told[number] = {place}
        return WORD.pack(place, self.view[place])

    def stamp(self) -> None:
        """Let caches answer for another `LEASE`."""
        self.view[STAMP] = time.monotonic_ns()

    def poison(self) -> None:
        """Let caches never answer again."""
        _poison(self.view)

    def _move_all(self) -> None:
        view = self.view
        for place in range(ANY, STRIPE):
            view[place] += 1
        told, self._told = self._told, {}
        for stripes in told.values():
            for place in stripes:
                view[place] += 1


def _stripe(number: int, key: object) -> int:
    """Return the place of the stripe of a key, the same for all keys that are equal; 0 for what can be no key."""
    try:
        return STRIPE + (hash((number, key)) & STRIPES - 1)
    except Exception:  # noqa: BLE001 - a list has no hash, and that of a time may ask its zone, which may raise
        return 0


def _poison(view: memoryview[Any]) -> None:
    view[ANY:] = memoryview(array("Q", [POISON]) * (COUNT - ANY))
    view[STAMP] = 0


class WordFile(WordPool):
    """The words of one server life, in a file that only processes of its user can map.

    Args:
        path: The file, which is made.
        directory: The directory of the server.

    Raises:
        OSError: There is no room for it, or it may not be made.
    """

    def __init__(self, path: str, directory: str) -> None:
        import fcntl  # there is none on Windows, where there are no words either

        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            # Held for as long as we live: others must not take the file for one that nobody needs.
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            # A file with holes would end the server with SIGBUS once the file system is full.
            os.posix_fallocate(self._fd, 0, SIZE)
            found = os.fstat(self._fd)
            view = memoryview(mmap.mmap(self._fd, SIZE)).cast("Q")
        except BaseException:
            os.close(self._fd)
            os.unlink(path)
            raise
        super().__init__(view, int.from_bytes(os.urandom(8), "big") >> 2)
        name = os.fsencode(directory)[: (ANY - PATH) * 8]
        view[PATH : PATH + -(-len(name) // 8)] = memoryview(name.ljust(-(-len(name) // 8) * 8, b"\0")).cast("Q")
        view[LENGTH] = len(name)
        self.told = Words(path, found.st_dev, found.st_ino, SIZE, view[FIRST])
        self._directory = directory

    def close(self) -> None:
        """End it in order: the next server need not look for it."""
        self.poison()
        try:
            _record(self._directory, None)
        except OSError:
            pass  # then it has to wait
        if self.told is not None:
            _unlink(self.told.path)
        self.close_inherited()

    def close_inherited(self) -> None:
        """In a forked child: let go of what is the parent's."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def begin(directory: str, is_first: bool, say: Callable[[str], object] = lambda text: None) -> WordFile | None:
    """End the words of the server life before, and begin those of a new one. May wait for `LEASE`.

    To be called by the holder of the server's lock, before it serves anybody.

    Args:
        directory: The server's, where it keeps a record of the file.
        is_first: Whether no server has lived there before.
        say: Is told where there is a wait.

    Returns:
        The new words; None where there is no room for a file, or this machine has no memory that is shared in order.
    """
    if not IS_SUPPORTED:
        return None
    if not _end_previous(directory, is_first):
        say(f"the version words of the last server cannot be found; waiting {LEASE:.0f} s for caches to give up")
        time.sleep(LEASE)
    for folder in (_shared_folder(), directory):
        try:
            words = folder and WordFile(os.path.join(folder, f"words-{os.urandom(8).hex()}"), directory)
        except OSError:
            continue
        if words:
            try:
                _record(directory, words.told)
            except OSError:
                words.close()
                return None
            return words
    try:
        _record(directory, None)
    except OSError:
        pass  # then the next one has to wait
    return None


def _end_previous(directory: str, is_first: bool) -> bool:
    """Poison the words of the life before; False unless it is certain that nobody looks at them any more."""
    try:
        try:
            with open(_record_path(directory), "rb") as file:
                boot, told = _decode_record(file.read())
        except FileNotFoundError:
            return is_first
        if told is None or (boot and boot != _boot()):
            return True
        view = _map(told, os.O_RDWR, mmap.PROT_READ | mmap.PROT_WRITE)
        if view is None:
            return False
        _poison(view)
        os.unlink(told.path)
        return True
    except (OSError, *BadBody):
        return False  # it has vanished, or the record is none that a server has written


def _record_path(directory: str) -> str:
    return os.path.join(directory, "words")


def _record(directory: str, told: Words | None) -> None:
    """Write down which file the words of this life are in, before anybody is told."""
    path = _record_path(directory)
    with open(f"{path}.new", "wb") as file:
        file.write(encode([_boot(), told]))
    os.replace(f"{path}.new", path)


_decode_record = msgspec.msgpack.Decoder(tuple[str, Words | None]).decode


def _boot() -> str:
    """Return what tells this start of the machine from others."""
    return _peers.boot().partition("/")[0]


def _shared_folder() -> str:
    """Return our own folder on a file system that is memory, empty where there is none; remove what nobody needs."""
    folder = os.path.join(SHARED_MEMORY, f"registry-{os.geteuid()}")
    try:
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            pass
        found = os.lstat(folder)
        if found.st_uid != os.geteuid() or found.st_mode & 0o170077 != 0o040000:
            return ""
        for name in os.listdir(folder):
            try:
                _sweep(os.path.join(folder, name))
            except OSError:
                pass  # another server has just removed it
        return folder
    except OSError:
        return ""


def _sweep(path: str) -> None:
    """Remove a file whose server was killed, and whose directory is gone: no server will look for it."""
    import fcntl

    with open(path, "rb") as file:
        head = file.read(ANY * 8)
        view = memoryview(head).cast("Q") if len(head) == ANY * 8 else None
        if view is None or os.path.isdir(head[PATH * 8 : PATH * 8 + view[LENGTH]]):
            return
        try:
            # One that lives may have its directory where we cannot see it, in another container.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        _unlink(path)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


# -- the client's side


class Mapped:
    """The words of a server life as one connection of a client sees them.

    Args:
        told: Which file they are in.
        generation: The connection on which that was told: replies on others speak of other words.
        is_relying: Tells whether any thread relies on a grant at this moment.

    Attributes:
        until: When the last look at the server's clock lets a cache answer at most, by `time.monotonic`. It is 0.0
            while any thread relies on a grant, since a thread that does must ask; then `is_fresh` tells.
    """

    __slots__ = ("_is_over", "_is_relying", "_limit", "_lock", "_told", "_view", "generation", "until")

    def __init__(self, told: Words, generation: int, is_relying: Callable[[], bool]) -> None:
        self.generation = generation
        self.until = 0.0
        self._limit = 0.0
        self._told = told
        self._view: memoryview[Any] | None = None
        self._is_relying = is_relying
        self._is_over = False
        self._lock = threading.RLock()

    def view(self) -> memoryview[Any] | None:
        """Return the words, mapped at the first need; None where they cannot be."""
        if self._view is None and not self._is_over:
            self._view = map_words(self._told)
            self._is_over = self._view is None
        return self._view

    def is_fresh(self) -> bool:
        """Look at the server's clock; tell whether a cache may answer."""
        view = self._view
        with self._lock:
            if view is None or self._is_over:
                return False
            stamp = view[STAMP] / 1e9
            now = monotonic()
            # A stamp of the future is of another clock, such as another time namespace's.
            self._limit = limit = stamp + LEASE if 0.0 < stamp <= now else 0.0
            self.until = 0.0 if self._is_relying() else limit
            return now < limit

    def hold(self) -> None:
        """A thread relies on a grant from now on."""
        with self._lock:
            self.until = 0.0

    def drop(self) -> None:
        """Let nothing be answered any more that hangs on this."""
        with self._lock:
            self._is_over = True
            self.until = self._limit = 0.0

    def drop_inherited(self) -> None:
        """As `drop`, in a forked child, where another thread of the parent may have had the lock."""
        self._lock = threading.RLock()
        self.drop()


def map_words(told: Words) -> memoryview[Any] | None:
    """Map the words that a server has told of, to read only; None unless it is that very file."""
    if not IS_SUPPORTED:
        return None
    try:
        return _map(told, os.O_RDONLY, mmap.PROT_READ)
    except OSError:
        return None  # it is in another container, perhaps


def _map(told: Words, flags: int, protection: int) -> memoryview[Any] | None:
    fd = os.open(told.path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(fd)
        known = (told.device, told.inode, told.size, SIZE, os.geteuid())
        if not stat.S_ISREG(found.st_mode):
            return None
        if (found.st_dev, found.st_ino, found.st_size, found.st_size, found.st_uid) != known:
            return None
        view = memoryview(mmap.mmap(fd, SIZE, prot=protection)).cast("Q")
    finally:
        os.close(fd)
    return view if view[FIRST] == told.first else None
