"""A table's columns as features, by a schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smx_lightning.tables.schema import Column, Schema

if TYPE_CHECKING:
    import pyarrow as pa


def encoded(schema: Schema, table: pa.Table | pa.RecordBatch) -> NDArray[np.float64]:
    """Rows of features (rows, features) of a table, whose columns are found by name.

    Args:
        schema: Says which columns, and how.
        table: In any order of columns; what is not named in the schema is left alone.

    Raises:
        InputError: For a column that is missing or of another kind, for a missing value where the
            schema has no fill, and for infinite ones; it names column and row.
    """
    parts = [_features(column, table.column(column.name)) for column in schema.columns]
    return np.concatenate(parts, 1) if parts else np.empty((table.num_rows, 0))


def _features(column: Column, values: Any) -> NDArray[np.float64]:
    import pyarrow as pa
    import pyarrow.compute as pc

    gaps = values.is_null().to_numpy(zero_copy_only=False)[:, None].astype(float)
    if column.kind == "category":
        known = [*column.categories]
        index = pc.index_in(values.cast(pa.string()), pa.array(known, pa.string()))
        one_hot = pc.fill_null(index, -1).to_numpy(zero_copy_only=False)[:, None] == np.arange(
            len(known)
        )
        other = pc.is_in(values.cast(pa.string()), pa.array([*column.other], pa.string()))
        parts = [one_hot.astype(float)]
        if column.other:
            parts.append(other.to_numpy(zero_copy_only=False)[:, None].astype(float))
    else:
        if column.kind == "date":
            values = values.cast(pa.timestamp(column.unit or "s")).cast(pa.int64())
        numbers = pc.fill_null(values.cast(pa.float64()), column.fill or 0.0)
        parts = [numbers.to_numpy(zero_copy_only=False)[:, None]]
    return np.concatenate([*parts, gaps] if column.missing else parts, 1)
