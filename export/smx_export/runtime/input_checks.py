"""Whether rows are such as a file takes: their digits, their axes, and what a mask hides."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def lost_digits(given: np.dtype[Any], wanted: np.dtype[Any]) -> str:
    """What is wrong with rows of a dtype that cannot hold what a file takes float64 for, if any."""
    if wanted != np.float64 or given.kind != "f" or given.itemsize >= wanted.itemsize:
        return ""
    return (
        f"expected float64 inputs or integers, got {given}, which cannot hold the digits that the "
        f"file takes float64 for; give the values from before they became {given}"
    )


def other_axes(given: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """What is wrong with rows that have as many axes as a model's inputs, but others, if any.

    Flat rows are as good as the model's own shape, and axes of length 1 do not count.
    """
    one, other = ([side for side in shape if side != 1] for shape in (given, wanted))
    if one == other or len(one) != len(other):
        return ""
    return (
        f"expected inputs of shape {('batch', *wanted)}, got {('batch', *given)}, whose numbers "
        "lie in another order; put the axes into that of the training data"
    )


def unmasked(array: NDArray[Any]) -> NDArray[Any]:
    """NaN for what a mask hides."""
    if not isinstance(array, np.ma.MaskedArray):
        return array
    if array.dtype.kind != "f" and np.ma.is_masked(array):
        raise ValueError(
            f"expected inputs without a mask, got masked entries, for which {array.dtype} has no "
            "NaN; fill them in with x.filled(…)"
        )
    return np.asarray(array.filled(np.nan) if array.dtype.kind == "f" else array.data)
