"""How far apart two machines may fold the same weights.

Weights are folded entry by entry, which gives the same bits everywhere. The bias is
``b - Σ w·m``, summed in float64 in the order of the machine's choice, so that a file from another
machine may hold the float32 number next to ours: at n terms either sum is off by at most

    γₙ · (|b| + Σ|w||m|),   γₙ = n·u / (1 - n·u),   u = 2⁻⁵³,

and what float32 makes of numbers within twice that is allowed. Likewise the logarithms (of other
members than softmax, the powers) of the threshold, of two units in the last place each.

What torch's exporter folds beforehand has no such bound: ``SAFETY`` roundings of the tensor's
largest entry are allowed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_export.artifact.activation import SOFTMAX, difference
from smx_export.artifact.tolerance import UNIT_ROUNDOFF
from smx_export.graph.inference_copy import InferenceCopy, alpha_of_model, has_own_head, is_linear
from smx_export.parity.reference import SAFETY

UNIT_ROUNDOFF_64 = 2.0**-53
Array = NDArray[Any]


class Rounding:
    """How far the initialisers of two machines may lie apart.

    Attributes:
        loose: Whether one was met that is not derived.
    """

    def __init__(self, inference: InferenceCopy) -> None:
        self.loose = False
        self.traced = not is_linear(inference.model)
        self.intervals: list[tuple[str, Array, Array, Array]] = []
        if has_own_head(inference.model):
            self.intervals.append(("Gemm", *_bias(inference)))
        if inference.model.threshold is not None:
            alpha = alpha_of_model(inference.model)
            self.intervals.append(("Add", *_ahead(inference.model.threshold, alpha)))

    def allows(self, expected: Array, got: Array, reader: str, place: int) -> bool:
        """Whether an initialiser may stand for another of its dtype and shape."""
        for op, value, low, high in self.intervals:
            if op == reader and _same(expected, value):
                return bool(((low <= got) & (got <= high)).all())
        if not self.traced or expected.dtype.kind != "f":
            return False
        finite = np.isfinite(expected)
        if not _same(expected[~finite], got[~finite]):
            return False
        right = expected[finite].astype(np.float64)
        apart, largest = (np.abs(of).max(initial=0) for of in (right - got[finite], right))
        if not apart <= SAFETY * UNIT_ROUNDOFF * largest:
            return False
        self.loose = True
        return True


def _bias(inference: InferenceCopy) -> tuple[Array, Array, Array]:
    """The folded bias (classes,), and the least and the largest that another machine may store."""
    model = inference.unrounded
    statistics, linear = model.preprocessing, model.linear
    _, bias, shift = statistics.fold(linear)
    value = bias.numpy()
    weight = (linear.weight.detach().double() / statistics.scale.double()).abs()
    terms = (weight @ statistics.centre.abs()).numpy()
    n = weight.shape[1] + 2
    gamma = n * UNIT_ROUNDOFF_64 / (1 - n * UNIT_ROUNDOFF_64)
    summed = shift is None and terms > 0  # what is not summed is the same everywhere
    error = np.where(summed, gamma * (linear.bias.detach().double().abs().numpy() + terms), 0)
    with np.errstate(over="ignore"):
        low, high = ((value + side * 2 * error).astype(np.float32) for side in (-1, 1))
        return value.astype(np.float32), low, high


def _ahead(threshold: float, alpha: float) -> tuple[Array, Array, Array]:
    """The same of what the threshold adds to the scores: of softmax (log γ - log(1 - γ), 0)."""
    size = abs(math.log(threshold)) + abs(math.log1p(-threshold))
    if alpha != SOFTMAX:
        size = 2 / (alpha - 1)  # of two powers that are at most 1
    error = np.array([8 * UNIT_ROUNDOFF_64 * size, 0])
    value = np.array([difference(threshold, alpha), 0])
    low, high = ((value + side * error).astype(np.float32) for side in (-1, 1))
    return value.astype(np.float32), low, high


def _same(one: Array, other: Array) -> bool:
    return (
        one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    )
