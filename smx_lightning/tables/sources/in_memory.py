"""Tables that are in memory already: data frames of every library, dicts of columns, datasets."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

from smx_lightning.errors import InputError
from smx_lightning.errors.text import one_line, printable, shortened

PLAIN = (str, bytes, PathLike)  # paths, and what is no table


def table_in_memory(source: Any) -> Any:
    """A source as an Arrow table; ``None`` where it is a path.

    Raises:
        InputError: For what is neither, and for columns of no one type.
    """
    import pyarrow as pa

    if isinstance(source, PLAIN):
        return None
    try:
        table = _table(source)
        return None if table is None else without_views(table)
    except (pa.ArrowException, TypeError, ValueError, KeyError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"expected a table with columns of one type each, got a {type(source).__name__} of "
            f"which pyarrow says: {shortened(one_line(error), 300)}; give each column one type, "
            "a name of its own, and a value a row"
        ) from error


def without_views(table: Any) -> Any:
    """A table whose text lies in types that all of Arrow's functions take: polars' do not."""
    import pyarrow as pa
    import pyarrow.types as types

    is_view = getattr(types, "is_string_view", lambda _: False)
    for at, field in enumerate(table.schema):
        entries = types.is_dictionary(field.type) and is_view(field.type.value_type)
        if not entries and not is_view(field.type):
            continue
        column = table.column(at)
        if entries:
            column = pa.chunked_array([_entries_plain(chunk) for chunk in column.chunks])
        else:
            column = column.cast(pa.large_string())
        table = table.set_column(at, field.name, column)
    return table


def _entries_plain(chunk: Any) -> Any:
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(
        chunk.indices.cast(pa.int64()),
        chunk.dictionary.cast(pa.large_string()),
        ordered=chunk.type.ordered,
    )


def _table(source: Any) -> Any:
    import pyarrow as pa

    if isinstance(source, pa.Table):
        return source
    if isinstance(source, pa.RecordBatch):
        return pa.Table.from_batches([source])
    library = type(source).__module__.partition(".")[0]
    if library == "datasets":
        return _of_datasets(source)
    if isinstance(source, Mapping):
        return _of_columns(source)
    if library == "pandas" and hasattr(source, "columns"):
        return pa.Table.from_pandas(source, preserve_index=False)
    if library == "polars" and hasattr(source, "collect"):
        source = source.collect()
    if hasattr(source, "__arrow_c_stream__"):
        return pa.table(source)
    for method in ("to_arrow_table", "to_arrow", "arrow"):  # of duckdb, polars and others
        if hasattr(source, method):
            return pa.table(getattr(source, method)())
    return None


def _of_columns(source: Mapping[Any, Any]) -> Any:
    """Of a dict of arrays, lists or tensors (rows,)."""
    import numpy as np
    import pyarrow as pa

    columns = {}
    for name, values in source.items():
        if type(values).__module__.partition(".")[0] == "torch":
            values = values.detach().cpu().numpy()
        if getattr(values, "ndim", 1) != 1:
            raise InputError(
                f"expected columns of shape (rows,), got {tuple(values.shape)} in column "
                f"{printable(name)!r}; give a column each, with a name"
            )
        if isinstance(values, np.ndarray) and values.dtype.kind == "O":
            values = values.tolist()
        columns[str(name)] = values
    return pa.table(columns)


def _of_datasets(source: Any) -> Any:
    """Of Hugging Face's Dataset, with its selections, and the names of its class labels."""
    import pyarrow as pa

    if isinstance(source, Mapping):
        names = ", ".join(map(printable, source))
        raise InputError(
            f"expected one Dataset, got a {type(source).__name__} of {names}; "
            "give one of these as source, and others as val= and test="
        )
    if not hasattr(source, "with_format") or not hasattr(source, "__len__"):
        raise InputError(
            f"expected a Dataset in memory, got {type(source).__name__}, whose rows come one by "
            "one; make a Dataset of it"
        )
    table = source.with_format("arrow")[:]
    for name, feature in source.features.items():
        labels = getattr(feature, "names", None)
        if labels and hasattr(feature, "int2str"):
            values = table.column(name).combine_chunks().cast(pa.int32())
            known = pa.compute.if_else(pa.compute.less(values, 0), None, values)
            made = pa.DictionaryArray.from_arrays(known, pa.array(labels), ordered=True)
            table = table.set_column(table.schema.get_field_index(name), name, made)
    return table
