"""Arrays and tables as values: those of NumPy, pandas and Arrow cross to other hosts as themselves.

Nothing of theirs is imported before there is a value of theirs. Whoever reads one needs the package that it is of.

NumPy
    The type of the items, the shape, and the memory as it lies, in one piece. An array of Python objects has no such
    form, nor has one of a structured type with objects in it.
pandas and Arrow
    A table, a data frame and a series cross in Arrow's format for streams (IPC), so that pandas needs ``pyarrow``, too.

What is read cannot be written: an array is a view of what has come, or of a file that all readers share.
``array.copy()`` is one's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from registry import ValueType, hookimpl

__all__ = ["registry_value_types"]


def _array_out(array: Any) -> list[object]:
    if array.dtype.hasobject:
        raise TypeError("an array of Python objects has no form that others can read: pass array.tolist()")
    import numpy as np

    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    # Turned over, an array in Fortran's order is one in C's.
    flat = np.ascontiguousarray(array.T if order == "F" else array)
    described = np.lib.format.dtype_to_descr(array.dtype)
    if np.lib.format.descr_to_dtype(described) != array.dtype:
        raise TypeError(f"the type {array.dtype} of its items has no name that others know")
    return [described, list(array.shape), order, memoryview(flat.reshape(-1).view(np.uint8))]


def _array_in(parts: list[Any]) -> Any:
    import numpy as np

    described, shape, order, memory = parts
    dtype = np.lib.format.descr_to_dtype(described)
    if dtype.hasobject:
        raise ValueError("an array of Python objects cannot be read from memory")
    if any(type(length) is not int or length < 0 for length in shape):
        raise ValueError(f"{shape} is no shape of an array")
    return np.ndarray(tuple(shape), dtype, memory, order=order)


def _table_out(table: Any) -> memoryview:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return memoryview(sink.getvalue())


def _table_in(memory: Any) -> Any:
    import pyarrow as pa

    try:
        table = pa.ipc.open_stream(pa.py_buffer(memory)).read_all()
        # Arrow believes what a stream says of itself, such as where a text begins: it would look outside of the memory.
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"it is no table: {error}") from error
    return table


def _frame_out(frame: Any) -> memoryview:
    import pyarrow as pa

    if frame.columns.inferred_type.startswith("mixed"):
        raise TypeError("its columns have names of several types, which Arrow would make texts")
    return _table_out(pa.Table.from_pandas(frame))


def _frame_in(memory: Any) -> Any:
    return _table_in(memory).to_pandas()


def _series_out(series: Any) -> list[object]:
    return [series.name, _frame_out(series.to_frame("values"))]


def _series_in(parts: list[Any]) -> Any:
    name, memory = parts
    return _frame_in(memory)["values"].rename(name)


@hookimpl
def registry_value_types() -> Iterable[ValueType]:
    """Declare the types of this package."""
    return [
        ValueType("numpy:ndarray", "numpy.ndarray", _array_out, _array_in),
        ValueType("pyarrow:Table", "pyarrow.Table", _table_out, _table_in),
        ValueType("pandas:DataFrame", "pandas.DataFrame", _frame_out, _frame_in),
        ValueType("pandas:Series", "pandas.Series", _series_out, _series_in),
    ]
