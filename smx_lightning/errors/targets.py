"""Checks of targets and weights of rows: labels, distributions over the classes, numbers ≥ 0."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from smx_lightning.errors import InputError
from smx_lightning.errors.checks import check_labels, number

SUMS_TO = 1e-3  # how far from 1 a distribution may sum: of float16 targets, say
SMALLEST, LARGEST = -66, 50  # exponents of 2 of weights that leave float32 room for what is added


def check_smoothing(given: float) -> float:
    """``label_smoothing`` as a plain float, if it lies in 0..1."""
    if not 0 <= (smoothing := number("label_smoothing", given)) <= 1:
        raise InputError(f"label_smoothing must lie in 0..1, got {given}; 0 smooths nothing")
    return smoothing


def is_soft(y: Tensor) -> bool:
    """Whether targets are meant as distributions (n, classes)."""
    return y.ndim == 2 and y.is_floating_point() and y.shape[1] > 1


@torch.compiler.disable  # type: ignore[untyped-decorator]  # it looks at values
def check_targets(y: Tensor, num_classes: int, where: str) -> None:
    """Complain about targets that are neither class indices (n,) nor distributions (n, classes).

    Args:
        y: The targets.
        num_classes: K.
        where: Which rows they are, for the complaint.

    Raises:
        InputError: For such; on a CPU also for labels out of range, and for rows that are no
            distributions.
    """
    if not is_soft(y):
        check_labels(y, num_classes, where)
        return
    if y.shape[1] != num_classes:
        raise InputError(
            f"expected labels, or a distribution over {num_classes} classes a row, got "
            f"{str(y.dtype).removeprefix('torch.')} targets of shape {tuple(y.shape)} in the "
            f"{where}; give y.long() of whole numbers, or a column a class"
        )
    if y.device.type == "cpu" and not (
        (y >= 0).all() and ((y.sum(1, dtype=torch.float64) - 1).abs() <= SUMS_TO).all()
    ):
        raise InputError(
            f"expected distributions over the classes, got targets below 0 or rows that do not "
            f"sum to 1 in the {where}; divide each row by its sum, and give the sum as the row's "
            "weight"
        )


def check_row_weights(weights: Any, count: int, what: str = "row weights") -> None:
    """Complain about weights that are not ``count`` finite numbers of at least 0."""
    check_one_each(weights, count, what)
    counts = (weights >= 0) & weights.isfinite()
    if not counts.all():
        raise InputError(
            f"expected {what} that are finite and not below 0, got {weights[~counts][0].item()}; "
            "leave out, or give the weight 0 to, what is not to count"
        )


def check_one_each(weights: Any, count: int, what: str = "row weights") -> None:
    """The same of their kind and shape alone, which waits for no device."""
    if not isinstance(weights, Tensor):
        raise InputError(
            f"expected {what} as a tensor, got {type(weights).__name__}; make it one with "
            "torch.as_tensor"
        )
    if weights.is_complex():
        raise InputError(f"expected real {what}, got {weights.dtype}; take their real part")
    if weights.shape != (count,):
        raise InputError(
            f"expected {count} {what}, got shape {tuple(weights.shape)}; give one each"
        )


def check_scale(weights: Tensor, what: str = "row weights") -> None:
    """Complain about weights that leave float32 no room for what is added up of them."""
    largest = float(weights.max()) if weights.numel() else 0.0
    if largest and not 2.0**SMALLEST <= largest <= 2.0**LARGEST:
        raise InputError(
            f"expected {what} whose largest lies between {2.0**SMALLEST:.2g} and "
            f"{2.0**LARGEST:.2g}, got {largest:.2g}; divide all of them by their mean: only their "
            "ratios count"
        )
