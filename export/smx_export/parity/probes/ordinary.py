"""Rows as the training data were, and the same where everything overflows or nothing is left."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from smx_export.parity.probes.probe import Probe, Space

RANDOM_ROWS = 256
WHITE = 255.0
HUGE = 1e4
TINY = 1e-6


def ordinary(
    space: Space, rows: int, *, pixels: bool = False, seed: int = 1
) -> NDArray[np.floating]:
    """Random rows (n, *input_shape) as the training data were; of images, pixels of all values."""
    rng = np.random.default_rng(seed)
    if pixels:
        return space.shaped(rng.integers(0, 256, (rows, space.width)).astype(np.float64))
    return space.shaped(space.centre + space.spread * rng.standard_normal((rows, space.width)))


def extremes(space: Space, random: NDArray[np.floating], huge: float) -> Iterator[Probe]:
    """Zeros, and random rows multiplied.

    Args:
        space: Where the inputs lie.
        random: Ordinary rows.
        huge: By how much they are multiplied at least to overflow what can overflow.
    """
    wide = random.astype(np.float64)
    yield Probe("zeros", np.zeros_like(random[:2]))
    yield Probe("huge", space.shaped(max(huge, HUGE) * wide))
    yield Probe("tiny", space.shaped(TINY * wide))
