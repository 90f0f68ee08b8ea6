"""The user's own rows, checked, and as the inference copy takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from smx_export.graph.arrays import Data, array_of, as_inputs, as_rows, parts_of_data
from smx_export.graph.inference_copy import InferenceCopy
from smx_export.graph.metadata import feature_names_of
from smx_export.parity.probes import Probe
from smx_export.runtime.frames import is_frame
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.data.labels import classes_named, labels
from smx_lightning.data.named import read_named
from smx_lightning.data.npz import WEIGHTS, read_npz, weights
from smx_lightning.errors.targets import check_row_weights, check_targets
from smx_lightning.tables import Column, Schema
from smx_lightning.tables.encoding import encoded
from smx_lightning.tables.labels import row_weights
from smx_lightning.tables.labels import targets as targets_of
from smx_lightning.tables.reading import whole

YOUR_DATA = "your data"


def mixed_data(path: str, model: SoftmaxRegression) -> Data:
    """Inputs and class indices in an .npz file, for a model of several inputs, or of integers.

    Raises:
        InputError: Where the file is none, or its labels are not the model's classes.
    """
    if isinstance(model.input_shape, dict):
        arrays = read_named(path, [*model.input_shape])
        x: Any = {name: arrays[name] for name in model.input_shape}
        return x, labels(arrays["y"], classes_named(arrays["y"], model.class_names), "y")
    arrays = read_npz(path)
    name = "x_test" if "x_test" in arrays else "x"
    return arrays[name], *targets_in(arrays, name, model)


def targets_in(
    arrays: Mapping[str, NDArray[Any]], name: str, model: SoftmaxRegression
) -> tuple[Any, Any]:
    """Targets and weights of the inputs of that name in a data file; -1 says no label.

    Raises:
        InputError: Where they are not of the model's classes.
    """
    y_name = name.replace("x", "y", 1)
    y = arrays[y_name]
    return labels(y, classes_named(y, model.class_names), y_name), weights(arrays, WEIGHTS[name])


@dataclass(frozen=True)
class Targets:
    """Targets and weights of rows.

    Attributes:
        y: (n,) class indices or (n, classes) distributions.
        known: (n,) bool, which rows count: those with a target and a weight above 0.
        weight: (n,) float64; ``None``: all alike.
    """

    y: NDArray[Any]
    known: NDArray[np.bool_]
    weight: NDArray[np.float64] | None

    @classmethod
    def of(cls, given_y: Any, given_weight: Any, model: SoftmaxRegression, rows: int) -> Targets:
        """Out of what a user gave.

        Raises:
            InputError: For anything else than labels, distributions and weights, one a row.
        """
        y = array_of(given_y)
        if y.shape == (rows, 1):  # a column of a table
            y = y[:, 0]
        soft = y.ndim == 2 and y.dtype.kind == "f"
        if y.dtype.kind not in "iub" and not soft:
            raise InputError(
                f"expected labels as class indices, got {y.dtype}; look names up in "
                "model.class_names"
            )
        if y.shape != ((rows, model.num_classes) if soft else (rows,)):
            raise InputError(
                f"expected one label in 0..{model.num_classes - 1}, or a distribution over the "
                f"classes, for each of {rows} rows, got {y.shape}; give one a row"
            )
        known = ~np.isnan(y).all(1) if soft else y != model.ignore_index
        check_targets(torch.from_numpy(y[known] if soft else y[known].astype(np.int64)),
                      model.num_classes, "data")  # fmt: skip
        weight = None
        if given_weight is not None:
            weight = array_of(given_weight)
            if weight.dtype.kind not in "fiub":
                raise InputError(f"expected weights as numbers, got {weight.dtype}; leave them out")
            weight = weight.astype(np.float64).reshape(-1)
            check_row_weights(torch.from_numpy(weight), rows, "weights of the data's rows")
            known &= weight > 0
        return cls(y if soft else y.astype(np.int64), known, weight)

    def of_rows(self, index: Any) -> Targets:
        """Those of some rows."""
        weight = None if self.weight is None else self.weight[index]
        return Targets(self.y[index], self.known[index], weight)


def takes_frame(model: SoftmaxRegression, data: Any) -> bool:
    """Whether data are columns with names, for a model that knows the names of its features."""
    return feature_names_of(model) is not None and is_frame(data)


def table_data(source: Any, model: SoftmaxRegression) -> tuple[Any, Any, Any]:
    """Inputs (n, features), targets and weights; ``None`` of those that the table does not hold.

    Args:
        source: A path, or a table in memory.
        model: Its schema says which columns, and which ones hold labels and weights.

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
    x, held = encoded(schema, table, place=place), {*table.column_names}
    target = {schema.target} if isinstance(schema.target, str) else {*(schema.target or ())}
    if not target or not target <= held:
        return x, None, None
    y = targets_of(schema, model.class_names, table, place=place)
    if y.ndim == 1:
        y = np.where(y < 0, model.ignore_index, y)
    return x, y, row_weights(schema, table, place=place) if schema.weight in held else None


@dataclass(frozen=True)
class UserRows:
    """Checked rows.

    Attributes:
        x: (n, *input_shape) of the inference copy's own dtype, as it takes them.
        targets: Of those rows, or ``None``.
    """

    x: NDArray[np.floating]
    targets: Targets | None

    @classmethod
    def of(cls, inference: InferenceCopy, data: Data | None) -> UserRows | None:
        """Rows out of what a user gave.

        Raises:
            InputError: Where it does not fit the model, or has no labels where they are needed.
        """
        model, profile = inference.model, inference.profile
        given_x, given_y, weight = parts_of_data(data)
        if takes_frame(model, given_x):
            given_x, y, own = table_data(given_x, model)
            given_y, weight = (y, own) if given_y is None else (given_y, weight)
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
        return cls(x, None if given_y is None else Targets.of(given_y, weight, model, len(x)))

    def blocks(self, width: int) -> Iterator[tuple[Probe, Targets | None]]:
        """The rows in batches that fit in memory, with their targets."""
        for block in Probe(YOUR_DATA, self.x).blocks(width):
            rows = slice(block.first, block.first + len(block.x))
            yield block, None if self.targets is None else self.targets.of_rows(rows)
