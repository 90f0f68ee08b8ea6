"""Tables that are numbers already: most of what is too large for memory is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smx_lightning.tables.schema import Schema

if TYPE_CHECKING:
    import pyarrow as pa


def numbers(schema: Schema, table: pa.RecordBatch) -> NDArray[np.floating[Any]] | None:
    """What :func:`~smx_lightning.tables.encoding.encoded` makes of a table, in a tenth of the time.

    ``None`` where anything is to be encoded, filled or refused: where a feature is not a column of
    floating-point numbers, or a value is missing or not finite.

    Returns:
        (rows, features), float32 where all columns are.
    """
    import pyarrow as pa

    if not schema.columns or any(c.kind != "number" or c.missing for c in schema.columns):
        return None
    columns = [table.column(column.name) for column in schema.columns]
    wide_enough = (pa.float32(), pa.float64())
    if any(c.type not in wide_enough or c.null_count for c in columns):
        return None
    x = np.stack([column.to_numpy() for column in columns], 1)
    return x if np.isfinite(x).all() else None
