"""The user's own rows, checked, and as the inference copy takes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_export.graph.arrays import Data, array_of, as_inputs, as_rows, pair_of
from smx_export.graph.inference_copy import InferenceCopy
from smx_export.graph.metadata import feature_names_of
from smx_export.parity.probes import Probe
from smx_export.runtime.frames import is_frame
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.data.labels import classes_named, labels
from smx_lightning.data.named import read_named
from smx_lightning.data.npz import read_npz
from smx_lightning.tables import Column, Schema
from smx_lightning.tables.encoding import encoded
from smx_lightning.tables.labels import targets
from smx_lightning.tables.reading import SUFFIXES, suffix_of, whole

YOUR_DATA = "your data"


def mixed_data(path: str, model: SoftmaxRegression) -> Data:
    """Inputs and class indices in an .npz file, for a model of several inputs, or of integers.

    Raises:
        InputError: Where the file is none, or its labels are not the model's classes.
    """
    if isinstance(model.input_shape, dict):
        arrays = read_named(path, [*model.input_shape])
        x: Any = {name: arrays[name] for name in model.input_shape}
        name, y = "y", arrays["y"]
    else:
        arrays = read_npz(path)
        name = "y_test" if "x_test" in arrays else "y"
        x, y = arrays[name.replace("y", "x", 1)], arrays[name]
    return x, labels(y, classes_named(y, model.class_names), name)


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


@dataclass(frozen=True)
class UserRows:
    """Checked rows.

    Attributes:
        x: (n, *input_shape) of the inference copy's own dtype, as it takes them.
        y: (n,) class indices, or ``None``.
    """

    x: NDArray[np.floating]
    y: NDArray[np.int64] | None

    @classmethod
    def of(cls, inference: InferenceCopy, data: Data | None) -> UserRows | None:
        """Rows out of what a user gave.

        Raises:
            InputError: Where it does not fit the model, or has no labels where they are needed.
        """
        model, profile = inference.model, inference.profile
        given_x, given_y = pair_of(data)
        if takes_frame(model, given_x):
            given_x, own = pair_of(table_data(given_x, model))
            given_y = own if given_y is None else given_y
        if profile.weights is not None and given_y is None:
            raise InputError(
                f"expected labelled data to judge what {profile.weights} weights cost, got none; "
                "give it with --data FILE.npz (in Python: data=(x, y)), or choose another profile"
            )
        if given_x is None:
            return None
        if inference.mixed:
            x = as_rows(given_x, model)
        else:
            dtype = np.dtype(np.float64) if profile.image else inference.dtype
            x = inference.seen(as_inputs(given_x, model.input_shape, dtype))
        if given_y is None:
            return cls(x, None)
        y = array_of(given_y)
        if y.shape == (len(x), 1):  # a column of a table
            y = y[:, 0]
        if y.dtype.kind not in "iub":
            raise InputError(
                f"expected labels as class indices, got {y.dtype}; look names up in "
                "model.class_names"
            )
        if y.shape != (len(x),) or y.min() < 0 or y.max() >= model.num_classes:
            raise InputError(
                f"expected one label in 0..{model.num_classes - 1} for each of {len(x)} rows, got "
                f"{y.tolist() if y.size < 5 else f'{y.shape}, {y.min()} to {y.max()}'}"
            )
        return cls(x, y.astype(np.int64))

    def blocks(self, width: int) -> Iterator[tuple[Probe, NDArray[np.int64] | None]]:
        """The rows in batches that fit in memory, with their labels."""
        for block in Probe(YOUR_DATA, self.x).blocks(width):
            rows = slice(block.first, block.first + len(block.x))
            yield block, None if self.y is None else self.y[rows]
