"""The user's own rows out of a table, by the schema of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from smx_export.graph.arrays import Data
from smx_export.graph.metadata import feature_names_of
from smx_export.runtime.frames import is_frame
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.tables import Column, Schema
from smx_lightning.tables.encoding import encoded
from smx_lightning.tables.labels import targets
from smx_lightning.tables.reading import SUFFIXES, suffix_of, whole


def names_table(path: str | Path) -> bool:
    """Whether a path is that of a table, or of a folder of them, by its name."""
    return Path(path).is_dir() or suffix_of(Path(path)) in SUFFIXES


def takes_frame(model: SoftmaxRegression, data: Any) -> bool:
    """Whether data are columns with names, for a model that knows the names of its features."""
    return feature_names_of(model) is not None and is_frame(data)


def table_data(source: Any, model: SoftmaxRegression) -> Data:
    """Inputs (n, features), and class indices where the table holds the labels.

    Of a table with labels the rows without one are left out; of one whose labels are distributions
    the inputs alone are taken.

    Args:
        source: A path, or a table in memory.
        model: Its schema says which columns, and which one holds the labels.

    Raises:
        InputError: Where the model knows no names, or the table does not fit it.
    """
    names = feature_names_of(model)
    if names is None:
        raise InputError(
            f"expected rows in an .npz file for a model that names no features, got {source}; train"
            " it on a table, or with feature_names"
        )
    schema = model.schema or Schema(tuple(map(Column, names)))
    table, place = whole(source, schema=schema)
    x = encoded(schema, table, place=place)
    if not isinstance(schema.target, str) or schema.target not in table.column_names:
        return x
    y = targets(schema, model.class_names, table, place=place)
    labelled = np.flatnonzero(y >= 0)
    return x[labelled], y[labelled]
