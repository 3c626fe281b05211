"""Arrays and tables cross as themselves, whichever of their packages is there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from servers import KEY, another

from registry import ManagerClient, ManagerServer, _codec, _shelf
from registry._leaves import Carried
from registry.errors import NotShareable

np = pytest.importorskip("numpy")


@pytest.fixture(scope="module", autouse=True)
def known() -> None:
    """Have the table know what every client knows."""
    from registry_arrays import registry_value_types

    _codec.declare(registry_value_types())


ARRAYS = [
    np.arange(10),
    np.arange(10_000, dtype="u2").reshape(100, 100),
    np.asfortranarray(np.random.default_rng(1).random((300, 40))),
    np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
    np.arange(100)[::3],
    np.arange(6, dtype=">i4"),
    np.array(5.5),
    np.zeros((0, 3)),
    np.zeros((2, 0, 3), dtype="f4"),
    np.array(["a", "bcd"]),
    np.array([b"a", b"bcd"]),
    np.array(["2024-01-01", "NaT"], dtype="M8[D]"),
    np.array([1, 2], dtype="m8[ns]"),
    np.array([True, False]),
    np.array([1 + 2j]),
    np.array([(1, 2.5), (3, 4.5)], dtype=[("x", "i4"), ("y", "f8")]),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype} {array.shape}")
def test_arrays_are_the_same(array: Any) -> None:
    """Type, shape, order and content come back; what has come cannot be written."""
    back = _codec.decode_carried(_codec.carry(array))
    assert type(back) is np.ndarray
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(back, array)
    assert not back.flags.writeable and back.flags.aligned
    assert back.flags.c_contiguous or not array.flags.c_contiguous
    assert back.flags.f_contiguous or not array.flags.f_contiguous


@pytest.mark.parametrize("dtype", ["O", [("x", "i4"), ("y", "O")]])
def test_arrays_of_objects_have_no_form(dtype: Any) -> None:
    """Among processes of one user they are pickled; to others they are refused, with the cure."""
    array = np.zeros(2, dtype=dtype)
    with pytest.raises(NotShareable, match=r"an array of Python objects has no form that others can read"):
        _codec.carry(array)
    with ManagerClient("memory://") as shared:
        shared.dict("d")["k"] = array
        np.testing.assert_array_equal(shared.dict("d")["k"], array)


@pytest.mark.parametrize(
    "parts",
    [[["|O"], [1], "C", b""], ["|O", [1], "C", bytes(8)], ["<i8", [3], "C", bytes(8)], ["<i8", [-1], "C", bytes(8)], 5],
)
def test_what_does_not_fit_is_refused(parts: Any) -> None:
    """No objects are read out of memory, and no array is larger than its memory."""
    import msgspec

    data = msgspec.msgpack.encode(msgspec.msgpack.Ext(32, msgspec.msgpack.encode(["numpy.ndarray", parts])))
    with pytest.raises(_codec.CodecError):
        _codec.decode(data)


@pytest.fixture(params=["files", "socket"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ManagerClient]:
    if request.param == "socket":
        monkeypatch.setattr(_shelf, "is_visible", lambda path: False)
    with ManagerServer("here", KEY) as server, another(server.url) as client:
        yield client


@pytest.mark.parametrize("count", [100, 10_000, 1_000_000])
def test_arrays_are_shared(client: ManagerClient, count: int) -> None:
    """Of every size, alone and in containers; what is read is aligned and cannot be written, a copy of it can."""
    arrays = client.dict("d")
    array = np.random.default_rng(2).random(count)
    arrays["k"] = array
    arrays["l"] = {"x": [array, array[:10]], "y": 1}
    for back in (arrays["k"], arrays["l"]["x"][0], dict(arrays.items())["k"]):
        np.testing.assert_array_equal(back, array)
        assert not back.flags.writeable and back.flags.aligned
    mine = arrays["k"].copy()
    mine[0] = 5
    arrays["k"] = mine
    assert arrays["k"][0] == 5


def test_a_mapped_array_outlives_its_value(client: ManagerClient) -> None:
    """Who has read an array goes on with it when it is replaced, and when the server has gone."""
    arrays = client.dict("d")
    arrays["k"] = np.arange(200_000)
    mapped = arrays["k"]
    arrays["k"] = 0
    del arrays["k"]
    assert mapped.sum() == sum(range(200_000))


def test_tables_and_frames_are_the_same(client: ManagerClient) -> None:
    """With pandas and Arrow, in Arrow's own format."""
    pd = pytest.importorskip("pandas")
    pa = pytest.importorskip("pyarrow")
    tables = client.dict("d")
    table = pa.table({"a": [1, 2, None], "b": ["x", None, "z"], "c": [[1], [], None]})
    frame = pd.DataFrame(
        {"n": range(5), "t": list("abcde"), "x": [0.5] * 5}, index=pd.date_range("2024", periods=5, freq="D")
    )
    series = pd.Series(range(100_000), name=("a", 1))
    tables["t"], tables["f"], tables["s"] = table, frame, series
    assert tables["t"].equals(table)
    pd.testing.assert_frame_equal(tables["f"], frame, check_freq=False)
    pd.testing.assert_series_equal(tables["s"], series)
    assert not _codec.carry(frame).domain and not _codec.carry(table).domain and not _codec.carry(series).domain


def test_what_arrow_does_not_take_is_pickled(client: ManagerClient) -> None:
    """Mixed objects in a column, or in the names of columns, go as other objects do, between processes of one user."""
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    for frame in (pd.DataFrame({"mixed": [1, "x", (2,)]}), pd.DataFrame({"a": [1], 2: [3]})):
        client.dict("d")["f"] = frame
        pd.testing.assert_frame_equal(client.dict("d")["f"], frame)


def test_nothing_is_imported_before_it_is_needed() -> None:
    """Neither a client nor the plugin loads NumPy, pandas or Arrow; a value of theirs does."""
    script = (
        "import sys, registry, registry_arrays\n"
        "list(registry_arrays.registry_value_types())\n"
        "with registry.connect('memory://') as shared:\n"
        "    shared.dict('d')['k'] = {1: [2]}\n"
        "    try: shared.dict('d')['l'] = object()\n"
        "    except Exception: pass\n"
        "print(sorted({'numpy', 'pandas', 'pyarrow'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_reader_without_the_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has not installed what a value is of hears that, by the name of the value."""
    data = _codec.carry(np.arange(3)).data
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(
        NotShareable, match="a value of the declared type 'numpy.ndarray' cannot be shared: this process"
    ):
        _codec.decode_carried(Carried(data))


def test_a_table_that_lies_about_itself_is_refused() -> None:
    """Wherever a number in its bytes is another one: what is read is whole, or it is no value."""
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"number": list(range(20)), "text": ["some text"] * 20})
    data = bytes(_codec.carry(table).data)
    counted = {"read": 0, "refused": 0}
    for place in range(0, len(data) - 4, 4):
        try:
            read = _codec.decode_carried(Carried(data[:place] + b"\xff\xff\xff\x7f" + data[place + 4 :]))
        except (_codec.CodecError, NotShareable):
            counted["refused"] += 1
        else:
            counted["read"] += 1
            if isinstance(read, pa.Table):
                read.validate(full=True)
                read.to_pylist()
    assert min(counted.values()) > 20
