"""Rows of inputs: of one input an array (n, …), of several a structured array (n,). No torch.

A structured array has a field an input, in the order of their names, so that rows are picked, cut
and joined as those of any other array.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_export.contract import INPUT

Fields = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]  # dtype and shape of each input


def rows_dtype(fields: Fields) -> np.dtype[Any]:
    """The dtype of rows of several inputs."""
    return np.dtype([(name, *fields[name]) for name in sorted(fields)])


def joined(parts: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Rows of several inputs out of the arrays (n, …) of each."""
    fields = {name: (part.dtype, part.shape[1:]) for name, part in parts.items()}
    rows = np.empty(len(next(iter(parts.values()))), rows_dtype(fields))
    for name, part in parts.items():
        rows[name] = part
    return rows


def parts_of(rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The array (n, …) of each input by name; of one input under the name that files give it."""
    if rows.dtype.names is None:
        return {INPUT: rows}
    # Copies: of one row numpy calls strides contiguous that torch refuses.
    return {name: np.array(rows[name], order="C") for name in rows.dtype.names}


def width_of(rows: NDArray[Any]) -> int:
    """Numbers in a row, of all inputs together."""
    return sum(part[0].size for part in parts_of(rows[:1]).values())


def numbers(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Rows (n, …) of all inputs side by side, (n, numbers), in float64."""
    parts = parts_of(rows).values()
    return np.concatenate([part.reshape(len(rows), -1).astype(np.float64) for part in parts], 1)


def are_floats(rows: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of the :func:`numbers` of a row are floating-point numbers to the file."""
    parts = parts_of(rows[:1]).values()
    return np.concatenate([np.full(part.size, part.dtype.kind == "f") for part in parts])


def scaled(row: Any, factor: float) -> Any:
    """A row, or rows, times a number; of several inputs those that are floating-point numbers."""
    if row.dtype.names is None:
        return row * row.dtype.type(factor)
    row = row.copy()
    for name in row.dtype.names:
        if row.dtype[name].base.kind == "f":
            row[name] *= row.dtype[name].base.type(factor)
    return row


def told(dtype: np.dtype[Any]) -> str | list[Any]:
    """A dtype of rows as JSON holds it; :func:`heard` is the inverse."""
    if dtype.names is None:
        return str(dtype.str)
    return [[name, dtype[name].base.str, list(dtype[name].shape)] for name in dtype.names]


def heard(dtype: Any) -> np.dtype[Any]:
    """What :func:`told` said."""
    if isinstance(dtype, str):
        return np.dtype(dtype)
    return np.dtype([(name, code, tuple(shape)) for name, code, shape in dtype])
