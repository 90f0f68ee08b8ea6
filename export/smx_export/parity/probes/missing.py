"""Rows with NaN and infinity: in each feature alone, in pairs, and here and there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from smx_export.parity.probes.probe import CHUNK_ELEMENTS, Probe, Space

NAME = "NaN and infinity"
VALUES = (np.nan, np.inf, -np.inf)
MOST_ALONE = 4096  # rows of NaN; of more features, some that are drawn
MOST_INFINITE = 1024  # likewise of either infinity
SCATTERED = 64


def scattered(
    space: Space, random: NDArray[np.floating], rows: int = SCATTERED, *, seed: int = 5
) -> Iterator[Probe]:
    """Ordinary rows, every fourth as it is, the others with one, two or many such values."""
    rng = np.random.default_rng(seed)
    x = random[np.arange(rows) % len(random)].reshape(rows, -1).copy()
    d = x.shape[1]
    for i, row in enumerate(x):
        count = (0, 1, 2, int(rng.integers(1, d + 1)))[i % 4]
        row[rng.choice(d, min(count, d), replace=False)] = rng.choice(VALUES, min(count, d))
    yield Probe(NAME, space.shaped(x))


def alone(
    space: Space,
    random: NDArray[np.floating],
    *,
    finite: NDArray[np.bool_] | None = None,
    seed: int = 6,
) -> Iterator[Probe]:
    """NaN, and either infinity, in each feature alone.

    Args:
        space: Where the inputs lie.
        random: Ordinary rows, which the others are.
        finite: Features (d,) that have no turn to be infinite.
        seed: Of the features that have a turn, where there are more than rows.
    """
    rng = np.random.default_rng(seed)
    flat, d = random.reshape(len(random), -1), space.width
    infinite = np.arange(d) if finite is None else np.flatnonzero(~finite)
    first = 0
    for value in VALUES:
        features, most = (
            (np.arange(d), MOST_ALONE) if np.isnan(value) else (infinite, MOST_INFINITE)
        )
        if len(features) > most:
            features = np.sort(rng.choice(features, most, replace=False))
        for part in np.array_split(features, max(1, -(-len(features) * d // CHUNK_ELEMENTS))):
            x = flat[np.arange(len(part)) % len(flat)]  # a copy
            x[np.arange(len(part)), part] = value
            if len(part):
                yield Probe(f"{NAME}, each feature alone", space.shaped(x), first)
            first += len(part)
