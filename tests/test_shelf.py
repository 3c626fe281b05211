"""Large values in files: who owns them, how long they live, and what happens where there is no room."""

from __future__ import annotations

import gc
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry import _codec, _shelf
from registry._leaves import Carried
from registry._shelf import Shelf, Unusable

if sys.platform != "linux":
    pytest.skip("files of large values need Linux", allow_module_level=True)


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path)


@pytest.fixture
def shelf(root: str) -> Iterator[Shelf]:
    shelf = Shelf.open(root)
    assert shelf is not None
    yield shelf
    shelf.close()


def names(shelf: Shelf, room: str) -> list[str]:
    return sorted(os.listdir(os.path.join(shelf.path, room)))


def test_what_a_client_writes_becomes_the_servers(shelf: Shelf) -> None:
    """The server moves a file to where it alone works, and nobody can open it for writing by accident."""
    assert _shelf.is_visible(shelf.path)
    assert _shelf.put(shelf.path, "a-1", [b"one", memoryview(b""), b"two"])
    view = shelf.take("a-1", 6)
    assert view == b"onetwo"
    assert view.readonly
    assert names(shelf, "in") == []
    name = shelf.name_of(view)
    assert names(shelf, "out") == [name]
    assert stat.S_IMODE(os.stat(os.path.join(shelf.path, "out", name)).st_mode) == 0o400
    assert _shelf.get(shelf.path, name, 6) == b"onetwo"
    assert not shelf.name_of(view[1:])  # only the whole of a file has its name
    assert not shelf.name_of(b"onetwo")


def test_a_file_goes_with_the_last_reference(shelf: Shelf) -> None:
    """The name goes when the value is replaced; who has mapped it reads on."""
    _shelf.put(shelf.path, "a-1", [b"x" * 10_000])
    view = shelf.take("a-1", 10_000)
    again = view[:]
    reader = _shelf.get(shelf.path, shelf.name_of(view), 10_000)
    del view
    gc.collect()
    assert len(names(shelf, "out")) == 1
    del again
    gc.collect()
    assert names(shelf, "out") == []
    assert reader == b"x" * 10_000
    with pytest.raises(TypeError):
        reader[0] = 1


def store(shelf: Shelf, name: str, content: bytes) -> memoryview:
    """Have the server take what a client writes."""
    assert _shelf.put(shelf.path, name, [content])
    return shelf.take(name, len(content))


def file_of(shelf: Shelf, view: memoryview) -> int:
    """Return the number of the file that holds a value."""
    return os.stat(os.path.join(shelf.path, "out", shelf.name_of(view))).st_ino


def test_a_file_that_nobody_needs_is_written_anew(shelf: Shelf) -> None:
    """The next value of about that size is in the same file, whether it is shorter or longer."""
    size = 2 * _shelf.LARGE
    view = store(shelf, "a-1", b"1" * size)
    number = file_of(shelf, view)
    for content in (b"2" * (size - 1000), b"3" * size, b"4" * (size // 2 + 1)):
        del view
        assert len(names(shelf, "spare")) == 1
        assert names(shelf, "out") == []
        view = store(shelf, "a-1", content)
        assert names(shelf, "spare") == []
        assert file_of(shelf, view) == number
        assert view == content


def test_a_file_that_somebody_has_mapped_is_not(shelf: Shelf) -> None:
    """A reader goes on with what it has mapped, and nobody writes there."""
    content = b"1" * _shelf.LARGE
    view = store(shelf, "a-1", content)
    reader = _shelf.get(shelf.path, shelf.name_of(view), len(content))
    del view
    assert names(shelf, "spare") == names(shelf, "out") == []
    store(shelf, "a-2", b"2" * _shelf.LARGE)
    assert reader == content


def test_so_is_one_that_a_child_of_the_reader_has_mapped(shelf: Shelf) -> None:
    """A fork takes the mapping along."""
    content = b"1" * _shelf.LARGE
    view = store(shelf, "a-1", content)
    reader = _shelf.get(shelf.path, shelf.name_of(view), len(content))
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.close(theirs)
        os.read(ours, 1)
        os._exit(0 if reader == content else 1)
    os.close(ours)
    del reader, view
    assert names(shelf, "spare") == []
    store(shelf, "a-2", b"2" * _shelf.LARGE)
    os.close(theirs)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_few_files_are_spared(shelf: Shelf) -> None:
    """Of each size two, and none that is small or very large."""
    views = [store(shelf, f"a-{n}", bytes([n]) * _shelf.LARGE) for n in range(5)]
    views.append(store(shelf, "small", b"s" * (_shelf.LARGE - 1)))
    views.append(store(shelf, "huge", b"h" * (_shelf.MODERATE + 1)))
    del views
    assert len(names(shelf, "spare")) == _shelf.SPARE
    assert names(shelf, "out") == []


def test_no_file_is_spared_where_the_kernel_does_not_tell(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that gives a lease on what is mapped, or none at all, has its files removed."""
    for answer in (True, False):
        monkeypatch.setattr(_shelf, "_is_alone", lambda descriptor, answer=answer: answer)
        shelf = Shelf.open(root)
        assert shelf is not None
        view = store(shelf, "a-1", b"1" * _shelf.LARGE)
        del view
        assert names(shelf, "spare") == names(shelf, "out") == []
        shelf.close()


def test_to_find_out_what_the_kernel_tells_leaves_nothing(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a file nor a descriptor stays, also where nothing can be mapped."""

    def refused(*args: object, **kwargs: object) -> object:
        raise OSError("nothing can be mapped")

    before = set(os.listdir("/proc/self/fd"))
    assert _shelf._tells_of_readers(os.path.join(root, "probe"))
    monkeypatch.setattr(_shelf.mmap, "mmap", refused)
    assert not _shelf._tells_of_readers(os.path.join(root, "probe"))
    assert os.listdir(root) == []
    assert set(os.listdir("/proc/self/fd")) == before


def test_bytes_are_read_into_those_that_the_reader_gets(shelf: Shelf) -> None:
    """Nothing copies them again; what only begins like the encoding of bytes is mapped like all else."""
    content = os.urandom(_shelf.LARGE)
    encoding = _codec.head_of_bytes(len(content)) + content
    view = store(shelf, "a-1", encoding)
    pieces = _shelf.get(shelf.path, shelf.name_of(view), len(encoding))
    assert isinstance(pieces, _codec.Pieces)
    assert bytes(pieces) == encoding
    assert _codec.decode_carried(Carried(pieces)) is pieces.parts[1]  # type: ignore[arg-type]
    assert pieces.parts[1] == content
    longer = store(shelf, "a-2", encoding + b"more")
    assert isinstance(_shelf.get(shelf.path, shelf.name_of(longer), len(longer)), memoryview)


def test_a_file_that_somebody_can_still_write_is_copied(shelf: Shelf) -> None:
    """Neither a change nor a truncation by its writer reaches the value: no SIGBUS, no other bytes."""
    path = os.path.join(shelf.path, "in", "a-1")
    with open(path, "w+b") as file:
        file.write(b"y" * 10_000)
        file.flush()
        view = shelf.take("a-1", 10_000)
        name = shelf.name_of(view)
        file.seek(0)
        file.write(b"n" * 10)
        file.truncate(10)
        assert view == b"y" * 10_000
        assert _shelf.get(shelf.path, name, 10_000) == b"y" * 10_000
    assert names(shelf, "out") == [name]


def test_one_that_nobody_writes_is_not_copied(shelf: Shelf) -> None:
    """The bytes are copied once, by their writer: the server's file is the one that was written."""
    _shelf.put(shelf.path, "a-1", [b"z" * 100])
    number = os.stat(os.path.join(shelf.path, "in", "a-1")).st_ino
    view = shelf.take("a-1", 100)
    assert os.stat(os.path.join(shelf.path, "out", shelf.name_of(view))).st_ino == number


@pytest.mark.parametrize("name", ["nowhere", "../out/1", "a/b", "", "A", "x" * 81])
def test_other_names_are_refused(shelf: Shelf, name: str) -> None:
    """What is named must be a file of that length in the room of the clients; a refusal leaves nothing behind."""
    with pytest.raises(Unusable):
        shelf.take(name, 3)
    assert names(shelf, "out") == []


def test_what_is_no_plain_file_of_that_length_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    """A length that is not the file's, a link and a pipe are refused, and removed."""
    (tmp_path / "secret").write_bytes(b"abc")
    room = Path(shelf.path, "in")
    (room / "short").write_bytes(b"ab")
    (room / "link").symlink_to(tmp_path / "secret")
    os.link(tmp_path / "secret", room / "hard")
    os.mkfifo(room / "pipe")
    for name in ("short", "link", "hard", "pipe"):
        with pytest.raises(Unusable):
            shelf.take(name, 3)
    assert names(shelf, "out") == names(shelf, "in") == []
    assert (tmp_path / "secret").read_bytes() == b"abc"


def test_a_reader_takes_only_what_it_was_told_of(shelf: Shelf) -> None:
    """A file that is gone, or of another length, is not mapped."""
    _shelf.put(shelf.path, "a-1", [b"abc"])
    view = shelf.take("a-1", 3)
    for name, length in ((shelf.name_of(view), 4), ("77", 3), ("../in/a-1", 3)):
        with pytest.raises(Unusable):
            _shelf.get(shelf.path, name, length)


def test_what_a_session_has_left_goes_with_it(shelf: Shelf) -> None:
    """Files that were written and never named are removed at the end of the session, and no others."""
    mine, yours = _shelf.prefix_of(b"mine"), _shelf.prefix_of(b"yours")
    _shelf.put(shelf.path, f"{mine}1-1", [b"a"])
    _shelf.put(shelf.path, f"{yours}1-1", [b"b"])
    shelf.discard(b"mine")
    assert names(shelf, "in") == [f"{yours}1-1"]


def test_shelves_of_dead_servers_are_swept(root: str) -> None:
    """A server that starts removes those whose lock nobody holds, and leaves those of servers that live."""
    one = Shelf.open(root)
    assert one is not None
    dead = Path(root, f"registry-{os.geteuid()}-0123456789abcdef", "out")
    dead.mkdir(parents=True)
    (dead / "1").write_bytes(b"left")
    other = Path(root, "somebody-elses")
    other.mkdir()
    two = Shelf.open(root)
    assert two is not None
    assert sorted(os.listdir(root)) == sorted([os.path.basename(one.path), os.path.basename(two.path), other.name])
    one.close()
    two.close()
    assert os.listdir(root) == [other.name]


def test_without_room_nothing_is_written(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that would take more than half of what is left, and one that finds the disk full, go another way."""

    class Full:
        f_bavail = 3
        f_frsize = 1000

    monkeypatch.setattr(os, "statvfs", lambda path: Full)
    assert not _shelf.put(shelf.path, "a-1", [b"x" * 1501])
    assert _shelf.put(shelf.path, "a-2", [b"x" * 1500])
    monkeypatch.undo()

    def full(descriptor: int, pieces: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "writev", full)
    assert not _shelf.put(shelf.path, "a-3", [b"x"])
    assert names(shelf, "in") == ["a-2"]


def test_a_directory_of_others_is_not_used(root: str) -> None:
    """No directory, one that others can enter, and a link to one are none of ours."""
    assert not _shelf.is_visible("")
    assert not _shelf.is_visible(os.path.join(root, "nowhere"))
    open_to_all = Path(root, "open")
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    assert not _shelf.is_visible(str(open_to_all))
    Path(root, "private").mkdir(mode=0o700)
    assert _shelf.is_visible(os.path.join(root, "private"))
    Path(root, "link").symlink_to("private")
    assert not _shelf.is_visible(os.path.join(root, "link"))


def test_without_a_tmpfs_there_is_no_shelf(root: str) -> None:
    """Where the directory is not there, values go through the socket."""
    assert Shelf.open(os.path.join(root, "nowhere")) is None
