"""Weights in fewer bytes: float16, or int8 with one scale a feature. No torch here.

Only the weights are rounded; the arithmetic stays float32, so that a row's answer depends neither
on its batch-mates (as with dynamic quantisation) nor on an output's grid (as with static). An int8
weight is q · s, and the file computes ``q @ (s · x)``: a DequantizeLinear of the weights would say
the same, but OpenVINO 2026.4 answers it wrongly for batches under five, by several nats.

One int8 scale a *feature*, not a class: standardisation, folded into the weights, multiplies each
feature's column by a factor of its own, and a grid that all features shared would be too coarse for
most of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_export.profile import Width

LARGEST = 127  # of int8, symmetric: -128 would have no counterpart
NEGLIGIBLE = LARGEST * float(np.finfo(np.float32).tiny)  # below it a scale would lose its digits


@dataclass(frozen=True)
class Rounded:
    """Weights ``stored · scale``, (classes, features).

    Attributes:
        stored: float16 or int8.
        scale: (features,) float32 of int8, ``None`` of float16.
    """

    stored: NDArray[Any]
    scale: NDArray[np.float32] | None

    @property
    def shape(self) -> tuple[int, int]:
        """(classes, features)."""
        rows, columns = self.stored.shape
        return rows, columns


def rounded(weight: NDArray[np.floating], width: Width) -> Rounded:
    """Round weights (classes, features).

    >>> rounded(np.array([[1.0, -2.0], [0.5, 254.0]]), "int8").stored
    array([[127,  -1],
           [ 64, 127]], dtype=int8)
    """
    if width == "float16":
        with np.errstate(over="ignore"):  # the caller says which weight is too large
            return Rounded(np.ascontiguousarray(weight, np.float16), None)
    largest = np.abs(weight).max(0)
    scale = np.where(largest > NEGLIGIBLE, largest / LARGEST, 1).astype(np.float32)
    return Rounded(np.rint(weight / scale).astype(np.int8), scale)
