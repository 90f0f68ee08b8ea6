"""What data modules check of their rows before anything is trained on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from smx_lightning.data.labels import NO_LABEL, class_counts, shown
from smx_lightning.data.loading import UNSELECTED, Rows
from smx_lightning.errors import InputError
from smx_lightning.errors.checks import number
from smx_lightning.errors.targets import (
    check_row_weights,
    check_scale,
    check_targets,
    is_soft,
)


def warn_of_empty_classes(rows: Rows, class_names: Sequence[str]) -> None:
    """Name the classes without a training row, or without weight in any."""
    counts = class_counts(rows.y, rows.weight, len(class_names))
    empty = [name for name, count in zip(class_names, counts.tolist(), strict=True) if not count]
    if empty:
        rank_zero_warn(
            f"expected a training row of every class, got none of {shown(empty)} "
            f"({len(empty)} of {len(class_names)} classes); nothing is learned of them: add rows, "
            "or leave them out of class_names"
        )


def check_fractions(val_fraction: float, test_fraction: float) -> tuple[float, float]:
    """Both as plain floats, if they are shares of rows; there may be none to test on."""
    fractions = number("val_fraction", val_fraction), number("test_fraction", test_fraction)
    for name, fraction in zip(("val_fraction", "test_fraction"), fractions, strict=True):
        if not (0 < fraction < 1 or (fraction == 0 and name == "test_fraction")):
            raise InputError(f"{name} must lie between 0 and 1, got {fraction}")
    return fractions


def check_rows(
    name: str, rows: Rows, num_classes: int, shape: Sequence[int], *, called: str
) -> None:
    """Every complaint about a split that can be made before training."""
    if len(rows.x) != len(rows.y):
        raise InputError(
            f"expected as many labels as inputs in the {name} rows, got {len(rows.y)} labels for "
            f"{len(rows.x)} inputs"
        )
    known = has_label(rows.y)
    check_inputs(name, rows.x, shape, called=called, among=known)
    if not known.any():
        raise InputError(
            f"expected a label in at least one of the {len(known)} {name} rows, got none; only "
            "predict takes rows without labels"
        )
    check_targets(rows.y[known], num_classes, f"{name} rows")
    if rows.weight is not None:
        check_row_weights(rows.weight, len(rows.x), f"row weights in the {name} rows")
        check_scale(rows.weight, f"row weights in the {name} rows")
        if not rows.weight[known].any():
            raise InputError(
                f"expected a weight above 0 in at least one labelled row of the {name} rows, got "
                "none; leave the weights out, or give some rows one"
            )


def has_label(y: Tensor) -> Tensor:
    """Which rows of labels (n,), -1 of those without, or of distributions (n, classes), have one.

    Of distributions those of NaN alone have none.
    """
    if is_soft(y):
        return ~y.isnan().all(1)
    return y != NO_LABEL if y.ndim == 1 else y.new_ones(len(y), dtype=torch.bool)


def check_inputs(
    name: str,
    x: Tensor,
    shape: Sequence[int],
    *,
    called: str = "the given inputs",
    among: Tensor | None = None,
) -> None:
    """Complain about inputs (n, …) that are none, of another shape, or not finite.

    Args:
        name: Of the rows.
        x: The inputs.
        shape: Of one row of the training inputs.
        called: What these inputs are called where they come from, as ``x in wine.npz``.
        among: Which rows have to be finite, (n,) bool; all by default.
    """
    if len(x) == 0:
        raise InputError(f"expected at least one row in the {name} rows, got none")
    if tuple(x.shape[1:]) != tuple(shape):
        raise InputError(
            f"expected {name} inputs of shape {tuple(shape)} like the training inputs, got "
            f"{tuple(x.shape[1:])}"
        )
    if x[0].numel() == 0:
        raise InputError(f"expected at least one feature, got inputs of shape {tuple(shape)}")
    if x.is_floating_point():
        finite = torch.isfinite(x.flatten(1)).all(1)
        finite = finite if among is None else finite | ~among
        if not finite.all():
            row = int((~finite).nonzero()[0])
            place = (~x[row].isfinite()).nonzero()[0].tolist()
            column = f"column {place[0]}" if len(place) == 1 else f"entry {place}"
            raise InputError(
                f"expected finite features, got NaN or infinity in row {row} of the {name} rows "
                f"({int((~finite).sum())} such rows); remove or impute them: the first is "
                f"{column} of row {row} of {called}, counted from 0"
            )


def check_scales(splits: Mapping[str, Rows | None]) -> None:
    """Complain about pixels of 0 to 255 in one split, and of 0 to 1 in another.

    Only about what cannot be else: whole numbers up to 128 or more, or bytes above 1, on one side,
    and fractions within 0..1 on the other.

    Raises:
        InputError: For such; it names the splits.
    """
    ranges = {name: extremes(rows.x) for name, rows in splits.items() if rows is not None}
    within = [name for name, (low, high) in ranges.items() if low >= 0 and high <= 1]
    for small in within:
        for large, (low, high) in ranges.items():
            x, fractions = splits[large].x, splits[small].x  # type: ignore[union-attr]
            pixels = high > 1 if x.dtype == torch.uint8 else low >= 0 and 128 <= high <= 255
            if pixels and not _whole(fractions) and _whole(x):
                raise InputError(
                    f"expected all rows on one scale, got {large} inputs of "
                    f"{low:g} to {high:g} ({_name(x)}) and {small} inputs of "
                    f"{ranges[small][0]:g} to {ranges[small][1]:g} "
                    f"({_name(fractions)}); multiply the latter by 255, or divide the former by it"
                )


def extremes(x: Tensor) -> tuple[float, float]:
    """Smallest and largest entry."""
    low, high = (x.double() if x.dtype in UNSELECTED else x).aminmax()
    return float(low), float(high)


def _whole(x: Tensor) -> bool:
    return not x.is_floating_point() or bool((x == x.trunc()).all())


def _name(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
