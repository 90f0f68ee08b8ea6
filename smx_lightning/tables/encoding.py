"""A table's columns as features, by a schema."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smx_lightning.errors import InputError
from smx_lightning.errors.text import printable
from smx_lightning.tables.places import SOMEWHERE, Place
from smx_lightning.tables.schema import Column, Schema
from smx_lightning.tables.unknown import Unknown
from smx_lightning.tables.values import numbers, texts

if TYPE_CHECKING:
    import pyarrow as pa

Features = NDArray[np.float64]
LISTED = 10  # names in a sentence


def encoded(
    schema: Schema,
    table: pa.Table | pa.RecordBatch,
    *,
    place: Place = SOMEWHERE,
    unknown: Unknown | None = None,
) -> Features:
    """Rows of features (rows, features) of a table, whose columns are found by name.

    Args:
        schema: Says which columns, and how.
        table: In any order of columns; what is not named in the schema is left alone.
        place: Where the rows come from, for complaints.
        unknown: Counts categories and gaps that the schema does not know; where it is ``None``, a
            warning tells of them.

    Raises:
        InputError: For a column that is missing or of another kind, for a missing value where the
            schema has no fill, and for infinite ones; it names column and row.
    """
    counted = Unknown() if unknown is None else unknown
    counted.rows += table.num_rows
    names = [column.name for column in schema.columns]
    features = np.zeros((table.num_rows, len(schema.feature_names)))
    start = 0
    for column, values in zip(schema.columns, columns_of(table, names, place), strict=True):
        stop = start + len(column.feature_names)
        fill = _categories if column.kind == "category" else _numbers
        fill(features[:, start:stop], column, values, place, counted)
        start = stop
    if unknown is None:
        for note in counted.notes:
            warnings.warn(note, stacklevel=2)
    return features


def columns_of(table: Any, names: list[str], place: Place = SOMEWHERE) -> list[Any]:
    """Columns by name, an array each.

    Raises:
        InputError: Where one is missing, or there are two of its name.
    """
    found = table.schema.names
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(
            f"expected the columns {listed(names)} in {place.source}, found no {listed(missing)} "
            f"among {listed(found) or 'none'}; add these, or name others"
        )
    twice = [name for name in dict.fromkeys(names) if found.count(name) > 1]
    if twice:
        raise InputError(
            f"expected one column of each name in {place.source}, got several called "
            f"{listed(twice)}; rename these"
        )
    columns = [table.column(name) for name in names]
    return [c.combine_chunks() if hasattr(c, "combine_chunks") else c for c in columns]


def listed(names: list[str]) -> str:
    """Names with commas between them, only the first of many."""
    shown = [printable(name) if name else "''" for name in names[:LISTED]]
    return ", ".join([*shown, *["…"] * (len(names) > LISTED)])


def _numbers(
    features: Features, column: Column, values: Any, place: Place, unknown: Unknown
) -> None:
    made = numbers(column, values, place)
    gaps = np.isnan(made)
    if gaps.any():
        if column.fill is None:
            row = int(gaps.argmax())
            raise InputError(
                f"expected a value in every row of column {printable(column.name)!r}, got none in "
                f"{place.row(row)} ({int(gaps.sum())} such rows); fill these, or train with "
                "missing='indicator'"
            )
        made = np.where(gaps, column.fill, made)
        if column.missing:
            features[:, 1] = gaps
        else:
            unknown.gaps(column.name, int(gaps.sum()))
    features[:, 0] = made


def _categories(
    features: Features, column: Column, values: Any, place: Place, unknown: Unknown
) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    text = texts(column, values, place)
    known = pa.array([*column.categories, *column.other], pa.string())
    index = pc.fill_null(pc.index_in(text, known), -1).to_numpy(zero_copy_only=False)
    index = np.minimum(index, len(column.categories))  # the others share the place behind
    rows = np.flatnonzero(index >= 0)
    features[rows, index[rows]] = 1
    if len(rows) == len(index):
        return
    gaps = text.is_null().to_numpy(zero_copy_only=False)
    if column.missing:
        features[:, -1] = gaps
    elif gaps.any():
        unknown.gaps(column.name, int(gaps.sum()))
    new = np.flatnonzero((index < 0) & ~gaps)
    if len(new):
        first = pc.unique(text.take(pa.array(new[:1000])))[:10].to_pylist()
        unknown.categories(column.name, first, len(new))
