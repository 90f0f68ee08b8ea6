"""Tables as rows of features, by what a file says of its columns. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smx_export.contract import FEATURE_NAMES, INPUT
from smx_export.runtime.policy import OnNan
from smx_lightning.errors.extras import tables_needed

if TYPE_CHECKING:
    import pyarrow as pa

    from smx_lightning.tables import Schema

MOST_NAMED = 5  # columns in a sentence


def is_frame(x: Any) -> bool:
    """Whether inputs are columns with names: a data frame, an Arrow table, or a dict of columns."""
    if isinstance(x, Mapping):
        return x.keys() != {INPUT}
    return hasattr(x, "__arrow_c_stream__") or hasattr(x, "to_arrow")


def table_of(x: Any) -> pa.Table:
    """A data frame, an Arrow table or a dict of columns as an Arrow table.

    Raises:
        TypeError: For a dict whose values are no columns of equal length.
        TablesNotInstalled: Where pyarrow is missing.
    """
    with tables_needed():
        import pyarrow as pa
    if not isinstance(x, Mapping):
        return pa.table(x) if hasattr(x, "__arrow_c_stream__") else x.to_arrow()
    try:
        return pa.table({str(name): column_of(values) for name, values in x.items()})
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise TypeError(
            f"expected a column of as many values for each name, got {_sizes(x)}; give lists or "
            "arrays of one length, a single row as lists of one value"
        ) from error


def column_of(values: Any) -> Any:
    """What Arrow takes as a column: a text is none, though it has a length."""
    if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
        raise TypeError("no column")
    return values


def _sizes(x: Mapping[Any, Any]) -> str:
    told = [
        f"{name} {len(v) if hasattr(v, '__len__') and not isinstance(v, str) else type(v).__name__}"
        for name, v in [*x.items()][:MOST_NAMED]
    ]
    return ", ".join(told)


class Frames:
    """Rows of features out of tables, and a count of the categories that are not known.

    Args:
        schema: Of the file.
        on_nan: Whether a missing value that the schema has no number for is refused (``raise``), or
            becomes NaN, of which the file's answer says that there is none.

    Attributes:
        schema: Of the file.
        unknown: How many values of each column were none of the known categories so far.
    """

    def __init__(self, schema: Schema, on_nan: OnNan) -> None:
        self.schema = schema
        self.unknown: Counter[str] = Counter()
        self._used = schema if on_nan == "raise" else _with_nan(schema)

    @classmethod
    def of(
        cls, metadata: Mapping[str, str], width: int, path: str | Path, on_nan: OnNan
    ) -> Frames | None:
        """Of a file with this metadata; ``None`` where it names no features.

        Raises:
            FileError: Where what it says does not fit it.
        """
        if FEATURE_NAMES not in metadata:
            return None
        from smx_export.artifact.columns import schema_in  # arrays alone need none of it

        schema = schema_in(metadata, width, path)
        return None if schema is None else cls(schema, on_nan)

    @property
    def columns(self) -> list[str]:
        """Names of the columns that are asked for, in the order of the features."""
        return [column.name for column in self.schema.columns]

    def rows(self, table: pa.Table | pa.RecordBatch) -> NDArray[np.float64]:
        """Features (rows, features) of a table, whose columns are found by name.

        Raises:
            InputError: As :func:`smx_lightning.tables.encoding.encoded`.
        """
        from smx_lightning.tables.encoding import encoded

        with tables_needed():
            rows = encoded(self._used, table)
        self._count(table, rows)
        return rows

    def _count(self, table: pa.Table | pa.RecordBatch, rows: NDArray[np.float64]) -> None:
        start = 0
        for column in self.schema.columns:
            stop = start + len(column.feature_names)
            if column.kind == "category":
                none = ~rows[:, start:stop].any(1)
                gaps = table.column(column.name).is_null().to_numpy(zero_copy_only=False)
                self.unknown[column.name] += int(np.count_nonzero(none & ~gaps.astype(bool)))
            start = stop

    def told(self) -> str:
        """A sentence about the unknown categories; nothing where there were none."""
        found = +self.unknown
        if not found:
            return ""
        counts = ", ".join(f"{n:,} of {name!r}" for name, n in found.most_common(MOST_NAMED))
        more = f" and {len(found) - MOST_NAMED} more columns" if len(found) > MOST_NAMED else ""
        return (
            f"expected categories that the model was trained with, got others: {counts}{more}; "
            "they count as none of the known ones"
        )


def _with_nan(schema: Schema) -> Schema:
    """A schema that makes NaN of what it would refuse to be missing."""
    return replace(
        schema,
        columns=tuple(
            replace(column, fill=float("nan"))
            if column.fill is None and column.kind != "category"
            else column
            for column in schema.columns
        ),
    )
