"""Tables as rows of features, by what a file says of its columns. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smx_export.artifact.columns import schema_in
from smx_export.contract import INPUT
from smx_export.runtime.policy import OnNan
from smx_lightning.errors.extras import require_arrow
from smx_lightning.tables import Schema
from smx_lightning.tables.encoding import encoded
from smx_lightning.tables.places import SOMEWHERE, Place
from smx_lightning.tables.sources.in_memory import table_in_memory
from smx_lightning.tables.unknown import Unknown

if TYPE_CHECKING:
    import pyarrow as pa


def is_frame(x: Any) -> bool:
    """Whether inputs are columns with names: a data frame, an Arrow table, or a dict of columns."""
    if isinstance(x, Mapping):
        return x.keys() != {INPUT}
    return hasattr(x, "__arrow_c_stream__") or hasattr(x, "to_arrow")


class Frames:
    """Rows of features out of tables, and a count of what the schema does not know.

    Args:
        schema: Of the file.
        on_nan: Whether a missing value that the schema has no number for is refused (``raise``), or
            becomes NaN, of which the file's answer says that there is none.

    Attributes:
        schema: Of the file.
    """

    def __init__(self, schema: Schema, on_nan: OnNan) -> None:
        self.schema = self._used = schema
        self._unknown = Unknown()
        self._told: frozenset[str] = frozenset()
        if on_nan != "raise":
            unfilled = {c.name for c in schema.columns if c.fill is None and c.kind != "category"}
            self._used, self._unknown = _with_nan(schema, unfilled), _Answered(unfilled)

    @classmethod
    def of(
        cls, metadata: Mapping[str, str], width: int, path: str | Path, on_nan: OnNan
    ) -> Frames | None:
        """Of a file with this metadata; ``None`` where it names no features.

        Raises:
            FileError: Where what it says does not fit it.
        """
        schema = schema_in(metadata, width, path)
        return None if schema is None else cls(schema, on_nan)

    @property
    def columns(self) -> list[str]:
        """Names of the columns that are asked for, in the order of the features."""
        return [column.name for column in self.schema.columns]

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each kind of thing that the schema did not know so far."""
        return self._unknown.notes

    def news(self) -> tuple[str, ...]:
        """:attr:`notes` where they tell of a column that was not told of before."""
        if self._unknown.columns <= self._told:
            return ()
        self._told = self._unknown.columns
        return self.notes

    def rows(
        self, table: pa.Table | pa.RecordBatch, place: Place = SOMEWHERE
    ) -> NDArray[np.float64]:
        """Features (rows, features) of a table, whose columns are found by name.

        Args:
            table: With the schema's columns, in any order, and perhaps others.
            place: Where its rows come from, for complaints.

        Raises:
            InputError: As :func:`smx_lightning.tables.encoding.encoded`.
        """
        return encoded(self._used, table, place=place, unknown=self._unknown)

    def takes(self, x: Any) -> bool:
        """Whether inputs are :func:`is_frame`, and not features already."""
        return is_frame(x)

    def rows_of(self, x: Any) -> NDArray[np.float64]:
        """:meth:`rows` of a data frame, an Arrow table or a dict of columns.

        Raises:
            InputError: For columns of no one type or length, and where pyarrow is missing.
        """
        require_arrow()
        return self.rows(table_in_memory(x))


class _Answered(Unknown):
    """Counts no gaps of columns whose gaps have no answer, which tells enough of them."""

    def __init__(self, unfilled: set[str]) -> None:
        super().__init__()
        self._unfilled = unfilled

    def gaps(self, column: str, count: int) -> None:
        if column not in self._unfilled:
            super().gaps(column, count)


def _with_nan(schema: Schema, unfilled: set[str]) -> Schema:
    """A schema that makes NaN of what it would refuse to be missing."""
    columns = (
        replace(column, fill=float("nan")) if column.name in unfilled else column
        for column in schema.columns
    )
    return replace(schema, columns=tuple(columns))
