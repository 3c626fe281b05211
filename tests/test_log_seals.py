"""Seals: what somebody has written who does not have the directory's secret is refused, and opens no pickle."""

from __future__ import annotations

import contextlib
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_driver import START
from msgspec import structs
from servers import PATIENCE, another
from test_log import Written, offsets, only_segment, read, written

from registry import ManagerClient, ManagerServer, _image, _peers, cli
from registry._events import SessionEnded
from registry._leaves import OpaqueValue
from registry._log import _backup, _check, _dump, _format, _pickles, _recovery
from registry._log._files import Directory
from registry._log._glance import glance
from registry._log._recovery import ForgedLog
from registry._log._secret import Secret
from registry.errors import RegistryError

pytestmark = pytest.mark.once

STRANGER = Secret(b"of somebody else")


# -- what is forged


def parts(data: bytes) -> tuple[bytes, list[bytes]]:
    """Return the head of a segment, and its records."""
    rows = offsets(data)
    return data[: rows[0][0]], [data[start:end] for start, end, _ in rows]


def resummed(records: list[bytes], chain: int = 0) -> bytes:
    """Give records the chain and the sums of the order in which they are now; who has no secret leaves their seals."""
    found = b""
    for record in records:
        covered, body, tail = record[4:28], record[36:-20], record[-20:]
        covered = covered + struct.pack("!I", chain)
        chain = zlib.crc32(body, zlib.crc32(covered))
        found += record[:4] + covered + struct.pack("!I", chain) + body + tail
    return found


def another_call(data: bytes) -> bytes:
    """Change the arguments of the last call."""
    head, records = parts(data)
    body = records[-1][36:-20]
    records[-1] = records[-1][:36] + body[:-1] + bytes([body[-1] ^ 1]) + records[-1][-20:]
    return head + resummed(records)


def without_one(data: bytes) -> bytes:
    """Take a call out, and number those behind it again."""
    head, records = parts(data)
    del records[4]
    records[4:] = [
        each[:8] + struct.pack("!Q", struct.unpack_from("!Q", each, 8)[0] - 1) + each[16:] for each in records[4:]
    ]
    return head + resummed(records)


def one_more(data: bytes) -> bytes:
    """Add a call behind the last one, sealed with another secret."""
    last = offsets(data)[-1][2]
    record = _format.read_record(data, offsets(data)[-1][0])
    assert record is not None
    writer = _format.Writer(last, record.sum, STRANGER, record.seal)
    writer.add(SessionEnded(now=START + last, session=1), [])
    return data + writer.take(0)


def another_head(data: bytes) -> bytes:
    """Say that pickles of somebody else may be opened."""
    description, offset = _format.read_segment(data)
    description = structs.replace(description, others={"elsewhere:0": True})
    return _format.pack_segment(description, STRANGER) + data[offset:]


def unsealed(data: bytes) -> bytes:
    """Return a segment as an earlier version has written it, which knew no seals."""
    description, offset = _format.read_segment(data)
    described = structs.asdict(description)
    for name in ("seal", "origin", "others"):
        del described[name]
    body = _format._pack({**described, "format": 1})
    head = _format._LENGTH.pack(_format.UNSEALED_SEGMENT, len(body)) + body
    head += _format._SUM.pack(zlib.crc32(head))
    for record in _format.records(data, offset, description.first - 1, description.chain):
        head += _format.UNSEALED_RECORD + data[record.offset + 4 : record.end - 20]
    return head


@pytest.mark.parametrize("forge", [another_call, without_one, one_more, another_head, unsealed])
def test_a_forged_record_is_refused(tmp_path: Path, forge: Callable[[bytes], bytes]) -> None:
    """Though every sum is right: by file and place, and by whatever reads the log; nothing is changed."""
    written(tmp_path)
    segment = only_segment(tmp_path)
    data = forge(segment.read_bytes())
    segment.write_bytes(data)
    description, offset = _format.read_segment(data)
    whole = list(_format.records(data, offset, description.first - 1, description.chain))
    assert whole and whole[-1].end == len(data)  # there is nothing else wrong with it
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    text = rf"{segment} is forged, or comes from elsewhere: at byte \d+ .* `registry state restore`"
    for refused in (
        lambda: read(tmp_path),
        lambda: _recovery.reach(Directory(tmp_path)),
        lambda: _backup.write(Directory(tmp_path), tmp_path / "backup.tar"),
        lambda: _check.check(Directory(tmp_path), (0, 0), None),
        lambda: list(_dump.events(Directory(tmp_path))),
    ):
        with pytest.raises(ForgedLog, match=text):
            refused()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_the_place_of_a_forged_record_is_told(tmp_path: Path) -> None:
    """It is that of the first that is not ours."""
    written(tmp_path)
    segment = only_segment(tmp_path)
    data = segment.read_bytes()
    segment.write_bytes(without_one(data))
    with pytest.raises(ForgedLog, match=rf"at byte {offsets(data)[4][0]} event 7 is sealed with another secret"):
        read(tmp_path)
    segment.write_bytes(unsealed(data))
    with pytest.raises(ForgedLog, match=r"at byte 0 its head has no seal"):
        read(tmp_path)


def test_a_forged_snapshot_is_refused(tmp_path: Path) -> None:
    """Also where an older one and what follows it would do."""
    written(tmp_path, fold=True)
    log = Written(tmp_path)
    log.begin()
    log.use(13, 20)
    log.end(fold=True)
    *_, (_, newest) = Directory(tmp_path).snapshots()
    picture, image = _format.read_snapshot(newest.read_bytes())
    newest.write_bytes(b"".join(_format.pack_snapshot(picture, bytes(image), STRANGER)))
    with pytest.raises(ForgedLog, match=rf"{newest} is forged"):
        read(tmp_path)


def test_a_log_of_another_directory_is_refused(tmp_path: Path) -> None:
    """However whole it is; nor does it help to bring some of its files only, or to take the secret away."""
    written(tmp_path / "ours")
    written(tmp_path / "theirs")
    ours, theirs = only_segment(tmp_path / "ours"), only_segment(tmp_path / "theirs")
    content = ours.read_bytes()
    shutil.copy(theirs, ours)
    with pytest.raises(ForgedLog, match="at byte 0 its head is sealed with another secret"):
        read(tmp_path / "ours")
    ours.write_bytes(content)
    read(tmp_path / "ours")
    (tmp_path / "ours" / "secret").unlink()
    with pytest.raises(ForgedLog, match="at byte 0 its head is sealed with another secret"):
        read(tmp_path / "ours")
    assert not (tmp_path / "ours" / "secret").exists()  # no other one is made


def test_a_look_tells_of_files_from_elsewhere(tmp_path: Path) -> None:
    """Heads alone are looked at by the doctor, and say enough."""
    written(tmp_path / "ours", fold=True)
    written(tmp_path / "theirs", fold=True)
    assert glance(Directory(tmp_path / "ours")).failures == []
    for path in (tmp_path / "theirs").glob("0*"):
        shutil.copy(path, tmp_path / "ours")
    failures = glance(Directory(tmp_path / "ours")).failures
    assert len(failures) >= 2 and all("is sealed with another secret" in text for text in failures[:2])


def test_a_flipped_bit_in_a_seal_is_damage(tmp_path: Path) -> None:
    """No more and no less: who has flipped it has not made the sums anew."""
    written(tmp_path)
    segment = only_segment(tmp_path)
    data = segment.read_bytes()
    start, end, _ = offsets(data)[3]
    head = offsets(data)[0][0]
    for at, place in [*((at, start) for at in range(end - 20, end)), *((at, 0) for at in range(head - 20, head))]:
        changed = bytearray(data)
        changed[at] ^= 4
        segment.write_bytes(changed)
        with pytest.raises(RegistryError, match=f"{segment} is damaged at byte {place}: "):
            read(tmp_path)


def test_the_secret_is_made_once_and_is_this_users_alone(tmp_path: Path) -> None:
    """It is there before the first file that is sealed with it, and in no backup; one that is open is refused."""
    written(tmp_path / "a")
    secret = (tmp_path / "a" / "secret").read_bytes()
    assert len(secret) == 32 and (tmp_path / "a" / "secret").stat().st_mode & 0o777 == 0o600
    written(tmp_path / "a")
    assert (tmp_path / "a" / "secret").read_bytes() == secret
    _backup.write(Directory(tmp_path / "a"), tmp_path / "backup.tar")
    assert secret not in (tmp_path / "backup.tar").read_bytes()
    (tmp_path / "a" / "secret").chmod(0o644)
    with pytest.raises(RegistryError, match=r"secret is open to others .* chmod 600"):
        read(tmp_path / "a")


def test_seals_of_two_purposes_differ() -> None:
    """So that no head is ever taken for a record, nor a segment for a snapshot."""
    secret, data = Secret(b"s"), b"d" * 44
    found = {secret.of_segment(data), secret.of_snapshot(data), secret.of_record(data[:16], data[16:], b"")}
    assert len(found) == 3 and all(len(seal) == 16 for seal in found)
    assert secret.of_segment(data) != STRANGER.of_segment(data)


def test_what_an_earlier_version_wrote_is_restored_from_beside(tmp_path: Path) -> None:
    """As the refusal says: it is read once, and sealed."""
    image = written(tmp_path / "state")
    segment = only_segment(tmp_path / "state")
    segment.write_bytes(unsealed(segment.read_bytes()))
    (tmp_path / "state" / "secret").unlink()
    (tmp_path / "state").rename(tmp_path / "old")
    assert cli.run(["state", "restore", str(tmp_path / "old"), "--state", str(tmp_path / "state")]) == 0
    assert _image.capture(read(tmp_path / "state").engine) == image


# -- pickles from elsewhere


class Sign:
    """A value whose pickle leaves a sign when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return _leave_a_sign, (str(self.path),)


def _leave_a_sign(path: str) -> str:
    Path(path).write_text("opened")
    return "opened"


@pytest.fixture
def sign(tmp_path: Path) -> Path:
    """A file that is there once a pickle has been opened."""
    return tmp_path / "sign"


@contextlib.contextmanager
def served(state: Path) -> Iterator[ManagerServer]:
    server = ManagerServer("here", log="process", state=state).start()
    try:
        yield server
    finally:
        server.stop(PATIENCE)


def connected(server: ManagerServer) -> ManagerClient:
    return another(server.url, server.keys["admin"])


def filled(state: Path, sign: Path) -> str:
    """Have a server write a log with two pickles, of which one is in a snapshot; return their stamp."""
    for name in ("in the snapshot", "behind it"):
        with served(state) as server, connected(server) as client:
            client.dict("d")[name] = Sign(sign)
            client.dict("d")["plain"] = 1
    assert not sign.exists()
    return read_origin(state)


def read_origin(state: Path) -> str:
    directory = Directory(state)
    return _format.read_segment(directory.read(directory.segments()[-1][1]))[0].origin


STOCK = """
import sys
from multiprocessing.managers import BaseManager
BaseManager.register("dict", exposed=["get"])
stock = BaseManager(sys.argv[1], bytes.fromhex(sys.argv[2]))
stock.connect()
try:
    print(stock.dict("d").get("behind it"))
except TypeError as error:
    print(error)
"""


def stock_sees(server: ManagerServer) -> str:
    """Return what a program is told that uses `multiprocessing` alone."""
    command = [sys.executable, "-c", STOCK, str(server.address), server.keys["admin"].hex()]
    here = str(Path(__file__).parent)
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=here, timeout=PATIENCE).stdout


def seen(state: Path) -> dict[str, Any]:
    """Return what a client of a server on a log reads."""
    with served(state) as server, connected(server) as client:
        found = dict(client.dict("d").items())
        assert found == {name: client.dict("d")[name] for name in found}
        return found


def backed_up(state: Path) -> Path:
    target = state.with_suffix(".tar")
    assert cli.run(["state", "backup", str(target), "--state", str(state)]) == 0
    return target


def restored(source: Path, state: Path, *options: str) -> int:
    return cli.run(["state", "restore", str(source), "--state", str(state), "--yes", *options])


def is_closed(value: object) -> bool:
    return type(value) is OpaqueValue


def test_a_backup_of_its_own_is_as_before(tmp_path: Path, sign: Path) -> None:
    """What is put back where it was written is readable, and so is what was put aside for it."""
    filled(tmp_path / "a", sign)
    backup = backed_up(tmp_path / "a")
    assert restored(backup, tmp_path / "a") == 0
    assert seen(tmp_path / "a") == {"in the snapshot": "opened", "behind it": "opened", "plain": 1}
    assert restored(tmp_path / "a" / "before-restore-1", tmp_path / "a") == 0
    assert seen(tmp_path / "a")["behind it"] == "opened"


@pytest.mark.parametrize("uses_directory", [False, True], ids=["a backup", "a directory"])
def test_pickles_of_a_foreign_backup_are_opened_by_nobody(
    tmp_path: Path, sign: Path, capsys: pytest.CaptureFixture[str], uses_directory: bool
) -> None:
    """Not by clients, nor by stock clients; all else is readable, and how many there are of whom is said."""
    origin = filled(tmp_path / "a", sign)
    source = tmp_path / "a" if uses_directory else backed_up(tmp_path / "a")
    capsys.readouterr()
    assert restored(source, tmp_path / "b") == 0
    said = capsys.readouterr().err
    assert f"2 pickles of {origin} cannot be read; --trust {origin} opens them" in said
    found = seen(tmp_path / "b")
    assert found.pop("plain") == 1
    assert [(value.kind, value.writer) for value in found.values()] == [("test_log_seals.Sign", origin)] * 2
    with served(tmp_path / "b") as server:
        assert "only processes of its writer's user" in stock_sees(server)
    assert not sign.exists()
    # What is written from now on is of another stamp, and opened.
    with served(tmp_path / "b") as server, connected(server) as client:
        client.dict("d")["new"] = Sign(sign)
        assert client.dict("d")["new"] == "opened"
        assert is_closed(client.dict("d")["behind it"])
    assert read_origin(tmp_path / "b") != origin


def test_a_stamp_that_was_copied_opens_nothing(tmp_path: Path, sign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever makes a backup can write any stamp into it, that of the very place where it is to be restored, too."""
    ours = filled(tmp_path / "ours", tmp_path / "other sign")
    with monkeypatch.context() as theirs:
        theirs.setattr(_pickles, "drawn", lambda: ours)
        assert filled(tmp_path / "theirs", sign) == ours
    assert restored(backed_up(tmp_path / "theirs"), tmp_path / "ours") == 0
    found = seen(tmp_path / "ours")
    assert is_closed(found["in the snapshot"]) and is_closed(found["behind it"])
    assert not sign.exists()
    # Nor does it help to put the files there by hand.
    for path in (tmp_path / "ours").glob("0*"):
        path.unlink()
    for path in (tmp_path / "theirs").glob("0*"):
        shutil.copy(path, tmp_path / "ours")
    with pytest.raises(ForgedLog):
        seen(tmp_path / "ours")
    assert not sign.exists()


def test_pickles_of_whom_the_operator_names_are_opened(
    tmp_path: Path, sign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """That lasts, also through a backup of their own; an origin that is not there is refused, and nothing is done."""
    origin = filled(tmp_path / "a", sign)
    backup = backed_up(tmp_path / "a")
    assert restored(backup, tmp_path / "b", "--trust", "elsewhere:0") == 1
    assert f"holds no pickles of elsewhere:0, only of {origin}" in capsys.readouterr().err
    assert Directory(tmp_path / "b").is_empty
    assert restored(backup, tmp_path / "b", "--trust", origin) == 0
    assert "cannot be read" not in capsys.readouterr().err
    for _ in range(2):
        assert seen(tmp_path / "b") == {"in the snapshot": "opened", "behind it": "opened", "plain": 1}
    with served(tmp_path / "b") as server:
        assert stock_sees(server) == "opened\n"
    assert restored(backed_up(tmp_path / "b"), tmp_path / "b") == 0
    assert seen(tmp_path / "b")["behind it"] == "opened"
    # To restore it once more without a word takes the trust away.
    assert restored(backup, tmp_path / "b") == 0
    assert is_closed(seen(tmp_path / "b")["behind it"])


def test_a_directory_that_was_moved_to_another_machine_is_closed(
    tmp_path: Path, sign: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Secret and all: its server says so and how to open it, and that works; what is there anew is readable."""
    origin = filled(tmp_path / "a", sign)
    monkeypatch.setattr(_peers, "trust_domain", lambda uid: f"another-machine:{uid}")
    caplog.set_level("INFO", "registry")
    found = seen(tmp_path / "a")
    assert is_closed(found["in the snapshot"]) and is_closed(found["behind it"]) and not sign.exists()
    (said,) = [text for text in caplog.messages if "stay closed" in text]
    assert f"was written as {origin}" in said and "2 values in it that are pickles stay closed" in said
    assert f"`registry state restore FILE --trust {origin}`" in said
    caplog.clear()
    assert is_closed(seen(tmp_path / "a")["behind it"])  # the next life knows it, too, and does not say it again
    assert not [text for text in caplog.messages if "stay closed" in text]
    assert restored(backed_up(tmp_path / "a"), tmp_path / "a", "--trust", origin) == 0
    assert seen(tmp_path / "a")["behind it"] == "opened"


def test_sessions_of_elsewhere_end(tmp_path: Path, sign: Path) -> None:
    """A process that was connected when the backup was made is told that its state is lost, and goes on anew."""
    with served(tmp_path / "a") as server:
        client = connected(server)
        client.dict("d")["x"] = Sign(sign)
        backup = tmp_path / "a.tar"
        assert cli.run(["state", "backup", str(backup), "here"]) == 0
    assert restored(backup, tmp_path / "b") == 0
    with served(tmp_path / "b") as server:
        with pytest.raises(RegistryError):
            client.dict("d")["y"] = 2
        client.dict("d")["y"] = 2
        assert client.dict("d")["y"] == 2 and is_closed(client.dict("d")["x"])
        client.close()


def test_pickles_are_counted_without_being_read(tmp_path: Path, sign: Path) -> None:
    """Large ones too, which stand beside their calls, and those in replies that are remembered."""
    with served(tmp_path / "a") as server, connected(server) as client:
        client.dict("d")["large"] = [Sign(sign), bytes(300_000)]
        client.queue("q").put(Sign(sign))
        client.queue("q").put(3)
        origin = server.domain
        assert cli.run(["state", "backup", str(tmp_path / "a.tar"), "here"]) == 0
    backup = _backup.Backup(tmp_path / "a.tar")
    assert _pickles.in_log(backup) == _pickles.in_log(Directory(tmp_path / "a")) == {origin: 2}
    backup.close()
    assert not sign.exists()
