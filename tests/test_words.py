"""Version words: what moves them and what does not, the file that they are in, and who may still believe it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cached_classes import CROWD, EXPIRING, LRU, PLAIN, SAYINGS
from engine_driver import START, Driver
from sizes import size

from registry import SharedObject, _codec, _peers, _words
from registry._engine import Engine
from registry._events import Call, Create, Event, Halted, Open, Output
from registry._leaves import EVERY
from registry._wire import DELETE, RELEASE, WORD, Words
from registry._words import COUNT, FIRST, LEASE, POISON, SIZE, STAMP, Mapped, WordFile, WordPool
from registry.errors import DeclarationError
from registry_containers import COUNTER, DICT
from registry_queues import QUEUE
from registry_sync import CONDITION, EVENT, LOCK, RLOCK, RWLOCK, SEMAPHORE

linux = pytest.mark.skipif(not _words.IS_SUPPORTED, reason="no words on this system")


def make_pool(first: int = 7) -> WordPool:
    """Make words that nobody else sees."""
    return WordPool(memoryview(bytearray(SIZE)).cast("Q"), first)


# -- what moves a word

KEYS: tuple[Any, ...] = ("a", "b", 1)
READS: dict[str, list[tuple[str, tuple[Any, ...]]]] = {
    "counter": [("get", ()), ("__int__", ())],
    "dict": [(name, ()) for name in ("__len__", "copy", "items", "keys")]
    + [(name, (key,)) for name in ("__getitem__", "__contains__", "get") for key in (*KEYS, True, 1.0, ("a", 1))],
    "plain": [("__len__", ()), ("copy", ())] + [("get", (key,)) for key in (*KEYS, True, 1.0)],
    "lru": [("count", ())] + [("get", (key,)) for key in KEYS],
    "expiring": [(name, (key,)) for name in ("get", "left") for key in KEYS],
    "sayings": [(name, ()) for name in ("all", "last", "whose", "when", "chance", "mine")],
    "queue": [(name, ()) for name in QUEUE.readonly],
    "crowd": [("waiting", ()), ("in_reach", ())],
    **{
        each.typeid: [(name, ()) for name in each.readonly]
        for each in (LOCK, RLOCK, RWLOCK, SEMAPHORE, EVENT, CONDITION)
    },
}
CALLS: dict[str, list[tuple[str, tuple[Any, ...]]]] = {
    "counter": [("incr", ()), ("set", (1,)), ("set", ("wrong",))],
    "dict": [
        ("__setitem__", ("a", 1)), ("__setitem__", ("b", [1])), ("__setitem__", (True, 2)), ("__setitem__", (1.0, 3)),
        ("__setitem__", (("a", 1), 0)), ("__delitem__", ("a",)), ("pop", ("b", None)), ("setdefault", (1, 1)),
        ("incr", ("a",)), ("incr", ("n", 2)), ("compare_and_set", ("a", 1, 2)), ("edit", ("a",)), ("edit", ("b",)),
        ("popitem", ()), ("clear", ()), ("update", ({"a": 5, "b": 6},)),
    ],
    "plain": [("__setitem__", ("a", 1)), ("__setitem__", (True, 2)), ("pop", (1, None)), ("clear", ())],
    "lru": [("put", (key, value)) for key in (*KEYS, "c") for value in (1, 2)] + [("wipe", ())],
    "expiring": [("put", (key, value, 1.5)) for key in KEYS for value in (1, 2)],
    "sayings": [("say", (1,))],
    "queue": [("put", (1,)), ("put", (2, False)), ("get", (False,)), ("get", (True, 3.0)), ("claim", (True, 3.0))],
    "lock": [("acquire", (True, 5.0)), ("acquire", (False,)), ("release", ())],
    "rlock": [("acquire", (True, 5.0)), ("release", ())],
    "rwlock": [(name, args) for name in RWLOCK.interface.exposed for args in ((True, 5.0), ())],
    "semaphore": [("acquire", (True, 5.0)), ("release", ())],
    "crowd": [("wait", (1.5,)), ("wait", ()), ("open", ())],
    "event": [("set", ()), ("clear", ()), ("wait", (3.0,))],
    "condition": [("acquire", ()), ("release", ()), ("wait", (3.0,)), ("notify", ())],
}  # fmt: skip
TYPES = (COUNTER, DICT, PLAIN, LRU, EXPIRING, SAYINGS, CROWD, QUEUE, LOCK, RLOCK, RWLOCK, SEMAPHORE, EVENT, CONDITION)


class Watched(Driver):
    """An engine of which everything is read before and after each event, as one who caches all of it would.

    Attributes:
        changes: How often a read answered otherwise than before.
        kept: How often one could still be answered from a cache.
    """

    def __init__(self, *declarations: SharedObject[Any]) -> None:
        self.pool = make_pool()
        self.changes = self.kept = 0
        super().__init__(*declarations)

    def observe(self) -> dict[Any, tuple[bytes, int, int]]:
        """Make every read that may be cached; return what was answered, and the word that it hangs on."""
        seen = {}
        for (typeid, name), hosted in self.engine.objects.items():
            for method, args in READS[typeid]:
                call = Call(
                    now=self.now, session=0, seq=0, owner=1, typeid=typeid, name=name, method=method,
                    arguments=_codec.encode_arguments(args, {}),
                )  # fmt: skip
                output = self.engine.read(call, sample=self.pool.sample)
                if output.words:
                    seen[hosted.number, method, repr(args)] = (output.body, *WORD.unpack(output.words))
        return seen

    def feed(self, event: Event) -> list[Output]:
        before = self.observe()
        outputs = super().feed(event)
        self.pool.move(self.engine.touched)
        after = self.observe()
        for read, (body, place, word) in before.items():
            same = self.pool.view[place] == word
            self.kept += same
            if read not in after or after[read][0] != body:
                self.changes += 1
                assert not same, f"{read} changed by {event}, and its word did not move"
        return outputs


def play(seed: int) -> Watched:
    """Do things at random: calls that change, wait and fail, deaths, deadlines, cancels, deletions, force."""
    random = Random(seed)
    driver = Watched(*TYPES)
    clients = [driver.client() for _ in range(3)]
    tickets: list[Any] = []
    for _ in range(60):
        client, typeid = random.choice(clients), random.choice(TYPES).typeid
        title, what = f"{typeid}:{random.choice('xy')}", random.random()
        if client.away or what < 0.04:
            client.away = client.away or not client.number
            client.resume() if client.away else client.suspend()
        elif what < 0.7:
            method, args = random.choice(CALLS[typeid])
            tickets.append(client.send(title, method, *args, owner=random.randint(1, 2)))
        elif what < 0.8:
            driver.advance(random.choice((0.1, 1.0, 2.0)))
        elif what < 0.85:
            client.end()
        elif what < 0.9:
            client.end_owner(random.randint(1, 2))
        elif what < 0.95 and tickets and tickets[-1].client.number == tickets[-1].event.session:
            tickets[-1].cancel()
        elif driver.engine.find(*title.split(":")) is not None:
            if what < 0.97:
                driver.feed(Halted(now=driver.now, typeid=typeid, name=title[-1], reason="a test"))
            else:
                client.send(title, DELETE)
    return driver


def test_whatever_changes_moves_the_word_that_hangs_on_it() -> None:
    """By whichever door a change comes, what was read before it is not taken for what is read after it."""
    changes = kept = 0
    for seed in range(size(25, 2_000)):
        driver = play(seed)
        changes += driver.changes
        kept += driver.kept
    assert changes > 500
    assert kept > 10 * changes  # or else there would be no cache


def quiet(function: str) -> Any:
    """Return a way to note a change that forgets those which this function of the engine notes."""
    change = Engine._change

    def forgetful(self: Engine, hosted: Any, key: object = EVERY) -> None:
        if sys._getframe(1).f_code.co_name == function:
            hosted.changed = self.index
        else:
            change(self, hosted, key)

    return forgetful


def unmoved(self: WordPool, touched: Any, move: Any = WordPool.move) -> None:
    """Move words, but leave the stripes of what has changed as a whole."""
    told, self._told = self._told, {}
    move(self, touched)
    self._told = told


CARELESS: dict[str, tuple[Any, str, Any]] = {
    **{
        f"what {name} changes is forgotten": (Engine, "_change", quiet(name))
        for name in ("_run", "_leave", "_enter", "_set_away", "_forget", "_halt")
    },
    "what is evicted is forgotten": (Engine, "touch", lambda self, target, key: None),
    "equal keys have words of their own": (
        _words, "_stripe", lambda number, key: _words.STRIPE + zlib.crc32(repr((number, key)).encode()) % 65_536,
    ),
    "a change of everything leaves the stripes": (WordPool, "move", unmoved),
}  # fmt: skip


@pytest.mark.parametrize("careless", CARELESS)
def test_a_careless_engine_is_found_out(careless: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way to forget a change shows in one of a few seeds."""
    monkeypatch.setattr(*CARELESS[careless])
    with pytest.raises(AssertionError, match="its word did not move"):
        for seed in range(60):
            play(seed)


def word(driver: Driver, pool: WordPool, title: str, method: str, *args: Any) -> tuple[int, int] | None:
    """Make a read, and return the word that it hangs on and its value; None where it may not be cached."""
    typeid, name = title.split(":")
    call = Call(
        now=driver.now, session=0, seq=0, owner=1, typeid=typeid, name=name, method=method,
        arguments=_codec.encode_arguments(args, {}),
    )  # fmt: skip
    output = driver.engine.read(call, sample=pool.sample)
    return WORD.unpack(output.words) if output.words else None


def test_a_key_leaves_the_others_alone() -> None:
    """A keyed change moves its own key and what hangs on all of the object, and no other key."""
    driver, pool = Driver(DICT), make_pool()
    client = driver.client()
    for key in ("a", "b"):
        client.call("dict:d", "__setitem__", key, 1)
    before = {key: word(driver, pool, "dict:d", "get", key) for key in ("a", "b")}
    length = word(driver, pool, "dict:d", "__len__")
    client.call("dict:d", "__setitem__", "a", 2)
    pool.move(driver.engine.touched)
    assert word(driver, pool, "dict:d", "get", "a") != before["a"]
    assert word(driver, pool, "dict:d", "get", "b") == before["b"]
    assert word(driver, pool, "dict:d", "__len__") != length
    client.call("dict:d", "clear")
    pool.move(driver.engine.touched)
    assert word(driver, pool, "dict:d", "get", "b") != before["b"]


def test_one_object_leaves_the_others_alone() -> None:
    """Two objects of one type hang on different words, as long as the pool has any."""
    driver, pool = Driver(COUNTER), make_pool()
    client = driver.client()
    client.call("counter:x", "incr"), client.call("counter:y", "incr")
    before = word(driver, pool, "counter:x", "get")
    client.call("counter:y", "incr")
    pool.move(driver.engine.touched)
    assert word(driver, pool, "counter:x", "get") == before


def test_objects_that_share_a_word_cost_each_other_a_look() -> None:
    """In a pool that is too small a change moves what it need not, and never leaves what it must move."""
    pool = make_pool()
    place, before = WORD.unpack(pool.sample(5, EVERY))
    assert WORD.unpack(pool.sample(5 + _words.ANYS, EVERY)) == (place, before)
    pool.move([(5 + _words.ANYS, EVERY)])
    assert WORD.unpack(pool.sample(5, EVERY)) == (place, before + 1)


@pytest.mark.parametrize("key", [True, 1.0, Decimal(1), 1 + 0j])
def test_keys_that_are_equal_have_one_word(key: object) -> None:
    """A dict takes 1 and 1.0 for one key, and so do the words."""
    pool = make_pool()
    assert pool.sample(3, 1) == pool.sample(3, key)
    before = pool.sample(3, 1)
    pool.move([(3, key)])
    assert pool.sample(3, 1) != before


def test_what_can_be_no_key_counts_as_all() -> None:
    """A list has no hash: a read of it hangs on every change, and a change by it moves everything."""
    pool = make_pool()
    assert pool.sample(3, [1]) == pool.sample(3, EVERY)
    before = pool.sample(3, "a")
    pool.move([(3, [1])])
    assert pool.sample(3, "a") != before


def test_a_forced_loss_moves_everything() -> None:
    """Who is to be told of a lost grant by its next call makes one, whatever it has read."""
    driver, pool = Driver(LOCK, COUNTER, DICT), make_pool()
    holder, operator = driver.client(), driver.client()
    holder.call("counter:c", "incr"), holder.call("dict:d", "__setitem__", "k", 1)
    grant = holder.call("lock:l", "acquire")
    before = [word(driver, pool, "counter:c", "get"), word(driver, pool, "dict:d", "get", "k")]
    assert operator.call("lock:l", RELEASE, grant.number) is True
    pool.move(driver.engine.touched)
    after = [word(driver, pool, "counter:c", "get"), word(driver, pool, "dict:d", "get", "k")]
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_what_looks_at_the_call_is_not_cached() -> None:
    """A read that asks who calls, when, or for chance, hangs on nothing, since others would be answered otherwise."""
    driver, pool = Driver(SAYINGS, EXPIRING), make_pool()
    driver.client().call("sayings:s", "say", 1)
    driver.client().call("expiring:e", "put", "a", 1, 9.0)
    for method in ("whose", "mine", "when", "chance"):
        assert word(driver, pool, "sayings:s", method) is None
    assert word(driver, pool, "expiring:e", "left", "a") is None
    assert word(driver, pool, "expiring:e", "get", "a") is not None
    assert word(driver, pool, "sayings:s", "all") is not None


def test_a_read_touches_nothing() -> None:
    """A method that says what it changes is none that may be declared readonly."""
    driver = Driver(SAYINGS)
    client = driver.client()
    client.call("sayings:s", "say", 1)
    with pytest.raises(DeclarationError, match="readonly must not name a method that changes"):
        client.call("sayings:s", "peek")


def test_an_error_is_not_cached() -> None:
    """Only what was returned hangs on a word."""
    driver, pool = Driver(DICT), make_pool()
    driver.client().call("dict:d", "clear")
    assert word(driver, pool, "dict:d", "__getitem__", "missing") is None


def test_words_are_no_state() -> None:
    """What an event touches is told for that event alone, and a restored engine knows nothing of it."""
    driver = Driver(COUNTER, twin=True)
    client = driver.client()
    client.call("counter:c", "incr")
    assert driver.engine.touched == [(1, EVERY)]
    driver.advance(1.0)
    assert driver.engine.touched == []


def test_what_is_made_and_goes_is_told() -> None:
    """An object that is deleted takes everything with it that was read of it."""
    driver = Driver(COUNTER)
    driver.feed(Open(now=START, key=b"k", label="", domain=""))
    driver.feed(
        Create(now=START, session=1, seq=1, owner=1, typeid="counter", name="c", arguments=_codec.encode([[], {}]))
    )
    assert (1, EVERY) in driver.engine.touched
    driver.feed(
        Call(
            now=START, session=1, seq=2, owner=1, typeid="counter", name="c", method=DELETE,
            arguments=_codec.encode([[], {}]),
        )
    )  # fmt: skip
    assert (1, EVERY) in driver.engine.touched


# -- the file


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the files of this test in a directory of its own."""
    path = tmp_path / "shm"
    path.mkdir()
    monkeypatch.setattr(_words, "SHARED_MEMORY", str(path))
    return path


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Write down how long is slept, and do not sleep."""
    naps: list[float] = []
    monkeypatch.setattr(_words.time, "sleep", naps.append)
    yield naps


@pytest.fixture(autouse=True)
def begun() -> Iterator[None]:
    """Let go of all files at the end."""
    yield
    while _begun:
        _begun.pop().close_inherited()


_begun: list[WordFile] = []


def begin(directory: Path, is_first: bool = False) -> WordFile:
    """Begin a server life there."""
    directory.mkdir(exist_ok=True)
    words = _words.begin(str(directory), is_first)
    assert words is not None
    _begun.append(words)
    return words


def mapped(words: WordFile) -> Mapped:
    """Map the words of a life as a client does."""
    assert words.told is not None
    found = Mapped(words.told, 1, lambda: False)
    assert found.view() is not None
    return found


@linux
def test_the_file_is_this_users_alone(tmp_path: Path, shared: Path, naps: list[float]) -> None:
    """It lies in memory, 0600 in a folder 0700, with room for all words, and nobody waits for a first one."""
    words = begin(tmp_path / "home", is_first=True)
    assert words.told is not None
    path = Path(words.told.path)
    assert path.parent.parent == shared
    assert path.parent.stat().st_mode & 0o777 == 0o700
    found = path.stat()
    assert (found.st_mode & 0o777, found.st_size) == (0o600, SIZE)
    assert found.st_blocks * 512 >= SIZE  # no holes
    assert naps == []


@linux
def test_words_begin_at_a_number_of_their_own(tmp_path: Path, shared: Path) -> None:
    """All words of a life begin at one number, which is another in the next life."""
    one, two = begin(tmp_path / "one", True), begin(tmp_path / "two", True)
    assert len(set(one.view[_words.ANY :])) == 1
    assert one.view[COUNT - 1] == one.view[FIRST] != two.view[FIRST]
    assert one.view[FIRST] < 1 << 62 < POISON


@linux
def test_a_client_sees_the_words_and_cannot_change_them(tmp_path: Path, shared: Path) -> None:
    """What the server moves the client sees, in memory that it may only read."""
    words = begin(tmp_path / "home", True)
    words.stamp()
    client = mapped(words)
    view = client.view()
    assert view is not None and client.is_fresh()
    place, before = WORD.unpack(words.sample(1, "key"))
    assert view[place] == before
    words.move([(1, "key")])
    assert view[place] == before + 1
    with pytest.raises(TypeError):
        view[place] = 0


@linux
def test_the_next_life_poisons_the_words_of_one_that_was_killed(
    tmp_path: Path, shared: Path, naps: list[float]
) -> None:
    """It is found by its record; whoever maps it still is not answered by it again; nobody has to wait."""
    killed = begin(tmp_path / "home", True)
    killed.stamp()
    client = mapped(killed)
    view = client.view()
    assert view is not None and client.is_fresh()
    place, before = WORD.unpack(killed.sample(1, "key"))
    again = begin(tmp_path / "home")
    assert view[place] > before
    assert not client.is_fresh()
    assert killed.told is not None and not os.path.exists(killed.told.path)
    assert naps == []
    assert again.told != killed.told


@linux
def test_poisoned_words_can_be_moved(tmp_path: Path, shared: Path) -> None:
    """A server that somebody else took for dead goes on, and its caches are of no use."""
    words = begin(tmp_path / "home", True)
    before = WORD.unpack(words.sample(1, "key"))[1]
    begin(tmp_path / "home")
    words.move([(1, "key"), (1, EVERY), (0, EVERY)])
    assert WORD.unpack(words.sample(1, "key"))[1] > before


@linux
@pytest.mark.parametrize("how", ["vanished", "another file", "other words", "another size", "no record", "nonsense"])
def test_a_life_whose_words_cannot_be_found_is_waited_out(
    how: str, tmp_path: Path, shared: Path, naps: list[float]
) -> None:
    """Where it is not certain that the old words are poisoned, nobody is served before their lease is over."""
    home = tmp_path / "home"
    words = begin(home, True)
    assert words.told is not None
    path, record = Path(words.told.path), home / "words"
    if how == "vanished":
        path.unlink()
    elif how == "another file":
        content = path.read_bytes()
        path.rename(tmp_path / "kept")
        path.write_bytes(content)
    elif how == "other words":
        words.view[FIRST] += 1
    elif how == "another size":
        os.truncate(path, SIZE + 8)
    elif how == "no record":
        record.unlink()
    else:
        record.write_bytes(b"nonsense")
    said: list[str] = []
    again = _words.begin(str(home), False, said.append)
    assert again is not None
    again.close()
    assert naps == [LEASE]
    assert said == ["the version words of the last server cannot be found; waiting 2 s for caches to give up"]


@linux
def test_who_ends_in_order_is_not_waited_for(tmp_path: Path, shared: Path, naps: list[float]) -> None:
    """A clean end poisons the words, removes their file, and says so."""
    words = begin(tmp_path / "home", True)
    words.stamp()
    client = mapped(words)
    assert client.is_fresh()
    words.close()
    assert not client.is_fresh()
    assert words.told is not None and not os.path.exists(words.told.path)
    begin(tmp_path / "home")
    assert naps == []


@linux
def test_another_start_of_the_machine_is_not_waited_for(
    tmp_path: Path, shared: Path, naps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No cache outlives the machine, so that a file which went with it is not missed."""
    words = begin(tmp_path / "home", True)
    assert words.told is not None
    os.unlink(words.told.path)
    monkeypatch.setattr(_peers, "boot", lambda: "another/pid:[1]")
    begin(tmp_path / "home")
    assert naps == []


@linux
def test_without_shared_memory_the_file_is_beside_the_socket(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no file system in memory, or no room in it, the server's own directory has the file."""
    shared.rmdir()
    words = begin(tmp_path / "home", True)
    assert words.told is not None and Path(words.told.path).parent == tmp_path / "home"
    assert mapped(words).view() is not None


@linux
def test_without_any_room_there_are_no_words(
    tmp_path: Path, shared: Path, naps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server on a full disk serves without, leaves no half file, and the next one need not wait."""

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    home = tmp_path / "home"
    home.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        assert _words.begin(str(home), True) is None
    assert [path.name for path in home.iterdir()] == ["words"]
    assert not any(path.is_file() for path in shared.rglob("*"))
    begin(home)
    assert naps == []


@linux
def test_a_folder_that_others_can_enter_is_not_used(tmp_path: Path, shared: Path) -> None:
    """Somebody else may have made the folder before; then the file is beside the socket."""
    folder = shared / f"registry-{os.geteuid()}"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    words = begin(tmp_path / "home", True)
    assert words.told is not None and Path(words.told.path).parent == tmp_path / "home"


@linux
def test_the_files_of_places_that_are_gone_are_removed(tmp_path: Path, shared: Path) -> None:
    """A server that was killed leaves its file to the next one, unless its directory is gone; one that lives has it."""
    import fcntl

    killed, lives, there = (begin(tmp_path / name, True) for name in ("killed", "lives", "there"))
    for words in (killed, there):
        fcntl.flock(words._fd, fcntl.LOCK_UN)  # as a death does
    for name in ("killed", "lives"):
        shutil.rmtree(tmp_path / name)
    begin(tmp_path / "new", True)
    assert killed.told is not None and not os.path.exists(killed.told.path)
    assert lives.told is not None and os.path.exists(lives.told.path)
    assert there.told is not None and os.path.exists(there.told.path)


# -- what a client believes


@linux
@pytest.mark.parametrize("field", ["path", "device", "inode", "size", "first"])
def test_only_the_very_file_is_mapped(field: str, tmp_path: Path, shared: Path) -> None:
    """A file that is not the one that the server told of is not believed."""
    told = begin(tmp_path / "home", True).told
    assert told is not None
    wrong: Any = {name: getattr(told, name) for name in told.__struct_fields__}
    wrong[field] = str(tmp_path / "home" / "words") if field == "path" else wrong[field] + 1
    assert Mapped(Words(**wrong), 1, lambda: False).view() is None


@linux
def test_a_file_of_another_user_is_not_mapped(tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever owns the file can say what he likes in it."""
    told = begin(tmp_path / "home", True).told
    assert told is not None
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert Mapped(told, 1, lambda: False).view() is None


class Clock:
    """A clock for `Mapped`, with words that carry a stamp."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pool = make_pool()
        self.now = 1000.0
        self.relying = False
        monkeypatch.setattr(_words, "monotonic", lambda: self.now)
        monkeypatch.setattr(_words, "map_words", lambda told: self.pool.view)
        self.mapped = Mapped(Words("", 0, 0, SIZE, 7), 1, lambda: self.relying)
        self.mapped.view()

    def stamp(self, when: float) -> None:
        self.pool.view[STAMP] = int(when * 1e9)


def test_a_stamp_is_good_for_a_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is answered that was last confirmed a lease ago; a new stamp confirms it."""
    clock = Clock(monkeypatch)
    assert not clock.mapped.is_fresh()  # never stamped
    clock.stamp(1000.0)
    assert clock.mapped.is_fresh()
    assert clock.mapped.until == 1000.0 + LEASE
    clock.now += LEASE
    assert not clock.mapped.is_fresh()
    clock.stamp(clock.now)
    assert clock.mapped.is_fresh()


def test_a_stamp_of_the_future_is_of_another_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """In another time namespace the stamp says nothing."""
    clock = Clock(monkeypatch)
    clock.stamp(1001.0)
    assert not clock.mapped.is_fresh()
    assert clock.mapped.until == 0.0


def test_while_a_thread_relies_on_a_grant_nothing_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick look fails for all threads, and the other ones are told by the slow one."""
    clock = Clock(monkeypatch)
    clock.stamp(1000.0)
    assert clock.mapped.is_fresh()
    clock.relying = True
    clock.mapped.hold()
    assert clock.mapped.until == 0.0
    assert clock.mapped.is_fresh()
    assert clock.mapped.until == 0.0
    clock.relying = False
    assert clock.mapped.is_fresh()
    assert clock.mapped.until == 1000.0 + LEASE


def test_what_is_dropped_never_answers_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries of a connection that has ended are over, whatever the clock says later."""
    clock = Clock(monkeypatch)
    clock.stamp(1000.0)
    assert clock.mapped.is_fresh()
    clock.mapped.drop()
    assert clock.mapped.until == 0.0
    assert not clock.mapped.is_fresh()
    assert clock.mapped.until == 0.0


@linux
def test_words_move_in_another_process(tmp_path: Path, shared: Path) -> None:
    """What is mapped is shared memory, and not a copy."""
    words = begin(tmp_path / "home", True)
    assert words.told is not None
    place, before = WORD.unpack(words.sample(1, "key"))
    code = f"""
import sys
from registry._wire import Words
from registry._words import map_words
view = map_words(Words(*{tuple(getattr(words.told, name) for name in words.told.__struct_fields__)!r}))
print(view[{place}], flush=True); sys.stdin.readline(); print(view[{place}], flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        assert int(process.stdout.readline()) == before
        words.move([(1, "key")])
        process.stdin.write("\n")
        process.stdin.flush()
        assert int(process.stdout.readline()) == before + 1


def test_a_file_that_another_server_has_just_removed_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two servers that start look at the same left-over files."""
    monkeypatch.setattr(_words, "SHARED_MEMORY", str(tmp_path))
    folder = _words._shared_folder()
    (Path(folder) / "words-1").write_bytes(b"")
    (Path(folder) / "words-2").write_bytes(b"")
    monkeypatch.setattr(_words, "_sweep", os.unlink)
    listdir = os.listdir

    def raced(path: str) -> list[str]:
        return [*listdir(path), "words-0"]

    monkeypatch.setattr(os, "listdir", raced)
    assert _words._shared_folder() == folder
    assert listdir(folder) == []
