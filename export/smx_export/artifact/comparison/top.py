"""The most probable classes of each row: are they these, in this order? No torch.

Where answers lie within their tolerance of the right ones, the r-th largest of them does, too: it
is off by no more than the largest of all. So the class at rank r may differ from the right one by
its own tolerance and that, and not more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_export.artifact.comparison.expected import Expected
from smx_export.artifact.tolerance import Array
from smx_export.contract import TOP_CLASSES, TOP_PROBS


def differences_of_top(expected: Expected, outputs: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """The largest error over tolerance of classes and probabilities of comparable rows.

    Args:
        expected: The answers to n rows.
        outputs: ``top_classes`` (n, k), different ones out of 0..K-1, the most probable first, and
            ``top_probs`` (n, k), theirs, where it is there.
    """
    classes = outputs[TOP_CLASSES].astype(np.int64)
    right, tolerance = expected.in_units(expected.log_probs), expected.tolerance
    ranked = -np.sort(-right, axis=1)[:, : classes.shape[1]]
    allowed = _at(tolerance, classes) + tolerance.max(1, keepdims=True)
    found = {TOP_CLASSES: worst(_at(right, classes) - ranked, allowed)}
    if TOP_PROBS in outputs:
        apart = outputs[TOP_PROBS] - np.exp(_at(expected.log_probs, classes))
        found[TOP_PROBS] = worst(apart, _at(expected.probs_tolerance, classes))
    return found


def unfit_top(name: str, output: NDArray[Any], truth: Array) -> list[str]:
    """What no such output can be, in words: classes that there are not, or twice, or NaN.

    Args:
        name: ``top_classes`` or ``top_probs``.
        output: (n, k).
        truth: The right log-probabilities (n, K); a row that holds NaN has no order.
    """
    missing = np.isnan(truth)
    rows = output[~missing.any(1)]
    if name == TOP_PROBS:
        whole = np.isfinite(rows).all() and np.isnan(output[missing.all(1)]).all()
        return [] if whole else [f"{name} is not finite where the answer is"]
    known = ((rows >= 0) & (rows < truth.shape[1])).all()
    ordered = np.sort(rows, axis=1)
    once = (ordered[:, 1:] != ordered[:, :-1]).all()
    return [] if known and once else [f"{name} names a class twice, or one that there is not"]


def worst(error: Array, tolerance: Array) -> float:
    """The largest error over tolerance; NaN where one is."""
    return float(np.max(np.abs(error) / tolerance))


def _at(values: Array, classes: NDArray[np.int64]) -> Array:
    return np.asarray(np.take_along_axis(values, classes, 1))
