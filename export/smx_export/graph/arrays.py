"""Inputs, targets and weights as users give them → arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from smx_export.artifact.rows import joined, parts_of, rows_dtype
from smx_lightning import InputError, SoftmaxRegression

Given = ArrayLike | Mapping[str, ArrayLike]  # of several inputs an array each, by name
Data = Given | tuple[Given, ArrayLike | None] | tuple[Given, ArrayLike | None, ArrayLike | None]
NUMPYS = (torch.float16, torch.float32, torch.float64)  # of torch's floats


def parts_of_data(data: Data | None) -> tuple[Any, Any, Any]:
    """Inputs, targets and weights; ``None`` for what is not given."""
    if not isinstance(data, tuple):
        return data, None, None
    if len(data) not in (2, 3):
        raise InputError(
            f"expected data as inputs, (inputs, labels) or (inputs, labels, weights), got a tuple "
            f"of {len(data)}; leave the rest out"
        )
    x, y, *weight = data
    return x, y, weight[0] if weight else None


def dtype_of(model: SoftmaxRegression) -> np.dtype[Any]:
    """Of the rows that a model takes, which are (n, *row_shape(model))."""
    shape = model.input_shape
    if not isinstance(shape, Mapping):
        dtype: np.dtype[Any] = np.dtype(model.input_dtype)
        return dtype
    return rows_dtype({n: (np.dtype(model.input_dtype[n]), side) for n, side in shape.items()})


def row_shape(model: SoftmaxRegression) -> tuple[int, ...]:
    """Shape of a row: that of the input; of several inputs ``()``, as a row is one record."""
    return () if isinstance(model.input_shape, Mapping) else tuple(model.input_shape)


def tensors_of(rows: NDArray[Any]) -> Any:
    """Rows as a model takes them: a tensor, of several inputs a dict of them."""
    if rows.dtype.names is None:
        return torch.from_numpy(rows)
    return {name: torch.from_numpy(part) for name, part in parts_of(rows).items()}


def each_float(change: Callable[[Tensor], Tensor], x: Any) -> Any:
    """What :func:`tensors_of` made, with its floating-point tensors changed."""
    if isinstance(x, dict):
        return {name: each_float(change, part) for name, part in x.items()}
    return change(x) if x.is_floating_point() else x


def inputs_of(data: Data | None, shape: Sequence[int]) -> NDArray[np.floating]:
    """The inputs (n, *shape) float32 in what a user gave; none where nothing was given.

    Raises:
        InputError: Where they are no real numbers, or of another shape.
    """
    x, *_ = parts_of_data(data)
    dtype = np.dtype(np.float32)
    return np.empty((0, *shape), dtype) if x is None else as_inputs(x, shape, dtype)


def as_inputs(
    given: Any, shape: Sequence[int], dtype: np.dtype[Any] | None
) -> NDArray[np.floating]:
    """Inputs (n, *shape) in ``dtype``, or as they are, out of rows with as many entries."""
    x, wanted = array_of(given) if dtype is None else _numbers(given, dtype), math.prod(shape)
    if x.ndim < 2 or len(x) == 0 or x[0].size != wanted:
        raise InputError(
            f"expected data of shape (rows, {wanted}), got {x.shape}; it must be what the "
            "model was trained on"
        )
    x = np.require(x, requirements="W")  # pandas lends arrays that torch warns of
    return x.reshape(len(x), *shape)


def as_rows(given: Any, model: SoftmaxRegression) -> NDArray[Any]:
    """Rows of a model with several inputs, or with one of integers, out of what a user gave.

    Raises:
        InputError: For other inputs, other shapes, and numbers that are none of the inputs'.
    """
    shape = model.input_shape
    if not isinstance(shape, Mapping):
        dtype, bounds = np.dtype(model.input_dtype), model.input_range
        return _whole(as_inputs(array_of(given), shape, None), dtype, bounds, "data")
    if not isinstance(given, Mapping) or given.keys() != shape.keys():
        got = ", ".join(map(str, given)) if isinstance(given, Mapping) else type(given).__name__
        raise InputError(
            f"expected data as a dict of the inputs {', '.join(shape)}, got {got}; give an array "
            "for each, by name"
        )
    parts = {}
    for name, sides in shape.items():
        dtype = np.dtype(model.input_dtype[name])
        x = array_of(given[name])
        if x.ndim == 0 or len(x) == 0 or x[0].size != math.prod(sides):
            raise InputError(
                f"expected {name} of shape {('rows', *sides)}, got {x.shape}; it must be what the "
                "model was trained on"
            )
        bounds = (model.input_range or {}).get(name)
        x = _numbers(x, dtype) if dtype.kind == "f" else _whole(x, dtype, bounds, name)
        parts[name] = x.reshape(len(x), *sides)
    if len({len(part) for part in parts.values()}) > 1:
        raise InputError(
            "expected as many rows of each input, got "
            f"{', '.join(f'{len(part)} of {name}' for name, part in parts.items())}; cut them alike"
        )
    return joined(parts)


def _whole(
    x: NDArray[Any], dtype: np.dtype[Any], bounds: Sequence[int] | None, name: str
) -> NDArray[Any]:
    """Integers in their dtype and range."""
    if x.dtype.kind not in "iub" and not (x.dtype.kind == "f" and (x == np.rint(x)).all()):
        raise InputError(
            f"expected {name} of whole numbers, as {dtype} is, got {x.dtype}; encode it as the "
            "training data were"
        )
    low, high = bounds or ((0, 1) if dtype.kind == "b" else (0, 255))
    if bounds is None and dtype.itemsize > 1:
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    if x.size and not low <= x.min() <= x.max() <= high:
        raise InputError(
            f"expected {name} from {low} to {high}, got {x.min()} to {x.max()}; give what the "
            "model was trained on, or a wider input_range"
        )
    return x.astype(dtype)


def _numbers(given: Any, dtype: np.dtype[Any]) -> NDArray[np.floating]:
    """Real numbers in ``dtype``, of which those that a mask hides are NaN."""
    array = array_of(given)
    if array.dtype.kind not in "fiub":
        raise InputError(
            f"expected data of real numbers, got {array.dtype}; encode it as the training data were"
        )
    with np.errstate(over="ignore"):  # to infinity, as in training
        return np.ma.filled(array.astype(dtype, copy=False), np.nan)


def array_of(given: Any) -> NDArray[Any]:
    """A tensor of whatever device, graph and precision, or what else numpy takes, as an array."""
    if isinstance(given, torch.Tensor):
        given = given.detach().cpu()
        if given.is_floating_point() and given.dtype not in NUMPYS:
            given = given.float()  # exact: the others are all narrower
    try:
        return given if isinstance(given, np.ma.MaskedArray) else np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(
            f"expected data as one array, got {type(given).__name__} that is none ({error}); give "
            "inputs, or (inputs, labels) as a tuple"
        ) from error
