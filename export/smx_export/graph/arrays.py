"""Inputs and labels as users give them → arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from smx_lightning import InputError

Data = ArrayLike | tuple[ArrayLike, ArrayLike | None]
NUMPYS = (torch.float16, torch.float32, torch.float64)  # of torch's floats


def pair_of(data: Data | None) -> tuple[Any, Any]:
    """Inputs and labels; ``None`` for what is not given."""
    if not isinstance(data, tuple):
        return data, None
    if len(data) != 2:
        raise InputError(
            f"expected data as inputs, or as a pair (inputs, labels), got a tuple of {len(data)}; "
            "leave the rest out"
        )
    x, y = data
    return x, y


def inputs_of(data: Data | None, shape: Sequence[int]) -> NDArray[np.floating]:
    """The inputs (n, *shape) float32 in what a user gave; none where nothing was given.

    Raises:
        InputError: Where they are no real numbers, or of another shape.
    """
    x, _ = pair_of(data)
    dtype = np.dtype(np.float32)
    return np.empty((0, *shape), dtype) if x is None else as_inputs(x, shape, dtype)


def as_inputs(given: Any, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[np.floating]:
    """Inputs (n, *shape) in ``dtype`` out of rows of any shape that has as many entries."""
    x, wanted = _numbers(given, dtype), math.prod(shape)
    if x.ndim < 2 or len(x) == 0 or x[0].size != wanted:
        raise InputError(
            f"expected data of shape (rows, {wanted}), got {x.shape}; it must be what the "
            "model was trained on"
        )
    return x.reshape(len(x), *shape)


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
