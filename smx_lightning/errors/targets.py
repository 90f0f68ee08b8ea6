"""Checks of targets and weights: labels or distributions over the classes, and how much rows count.

They look at values on every device, so they belong where waiting for it costs little.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from smx_lightning.errors import InputError
from smx_lightning.errors.checks import check_labels

SUMS_TO = 1e-3  # how far from 1 a distribution may sum: of float16 targets, say


@torch.compiler.disable  # type: ignore[untyped-decorator]  # it looks at values
def check_targets(y: Tensor, num_classes: int, where: str) -> None:
    """Complain about what is neither labels (n,) nor distributions (n, classes).

    Args:
        y: Integers, or floating-point numbers ``q[i, k] >= 0`` whose rows sum to 1.
        num_classes: K.
        where: Which rows they are.

    Raises:
        InputError: For another shape, labels out of range, and rows that are no distributions.
    """
    if not (y.ndim == 2 and y.is_floating_point()):
        check_labels(y, num_classes, where)
        return
    if y.shape[1] != num_classes:
        raise InputError(
            f"expected labels, or a distribution over {num_classes} classes a row, got "
            f"{str(y.dtype).removeprefix('torch.')} targets of shape {tuple(y.shape)} in the "
            f"{where}; give an integer or {num_classes} probabilities a row"
        )
    if not ((y >= 0).all() and ((y.sum(1) - 1).abs() <= SUMS_TO).all()):
        raise InputError(
            f"expected distributions over the classes in the {where}, got targets below 0 or rows "
            "that do not sum to 1; divide each row by its sum, and give the sum as the row's weight"
        )


@torch.compiler.disable  # type: ignore[untyped-decorator]
def check_weights(weight: Any, rows: int, what: str) -> None:
    """Complain about weights that are not (rows,) finite numbers of at least 0.

    Args:
        weight: Of any real dtype.
        rows: How many there are.
        what: Weighs so much, ``row`` or ``class``.

    Raises:
        InputError: For those, and for what is no tensor.
    """
    check_one_each(weight, rows, what)
    counts = (weight >= 0) & weight.isfinite()
    if not counts.all():
        wrong = weight[~counts][0]
        raise InputError(
            f"expected {what} weights that are finite and not below 0, got {wrong.item()}; a {what}"
            " that is not to count weighs 0"
        )


def check_one_each(weight: Any, rows: int, what: str) -> None:
    """The same of their shape alone, which waits for no device."""
    if not isinstance(weight, Tensor):
        raise InputError(
            f"expected {what} weights as a tensor, got {type(weight).__name__}; make it one with "
            "torch.as_tensor"
        )
    if weight.shape != (rows,):
        raise InputError(
            f"expected {rows} {what} weights, got shape {tuple(weight.shape)}; give one a {what}"
        )
