"""Rows in which one feature alone is away from where the others are.

All of a row's products but one are exactly zero, so is their rounding error, and the tolerance
shrinks to a few units in the last place of a single weight.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from smx_export.parity.probes.probe import CHUNK_ELEMENTS, Probe, Space

MOST_ONE_HOTS = 4096  # rows; of more features several share one
ONE_HOT = 1024.0  # in deviations: large enough that a weight outweighs the rounding of the bias
DECADES = np.arange(-3, 6)  # of further sizes, in deviations: each begins one
MANY = 2048  # rows of further sizes: of fewer features each has more of them


def one_hots(
    space: Space, origin: NDArray[np.floating], *, most: int = MOST_ONE_HOTS, seed: int = 3
) -> Iterator[Probe]:
    """Every feature alone, far away.

    Args:
        space: Where the inputs lie.
        origin: (d,), what the rows are added to: where the features are zero to the file.
        most: How many rows at the most; more features than that share them.
        seed: Of the factors that tell features of one row apart.
    """
    d = space.width
    rng = np.random.default_rng(seed)
    factor = 1.0 if d <= most else rng.uniform(1, 2, d)
    size = np.asarray(ONE_HOT * factor * space.spread, space.dtype)
    start = np.asarray(origin, space.dtype)
    for first, rows in _rows(start, size, min(d, most)):
        yield Probe("one-hot", space.shaped(rows), first)


def of_all_sizes(
    space: Space,
    origin: NDArray[np.floating],
    *,
    most: int = MOST_ONE_HOTS,
    turns: int | None = None,
    seed: int = 4,
) -> Iterator[Probe]:
    """Every feature alone on both sides, from 1e-3 to 1e6 deviations away.

    Each side has a turn, and the features of a turn are of different sizes; few features have
    so many turns that all sizes are seen of each.

    Args:
        space: Where the inputs lie.
        origin: As of :func:`one_hots`.
        most: How many rows a turn at the most.
        turns: How many of them, where features and rows do not decide.
        seed: Of the sizes within a decade.
    """
    d = space.width
    rng = np.random.default_rng(seed)
    start = np.asarray(origin, space.dtype)
    turns = turns or min(2 * len(DECADES), max(2, MANY // min(d, most)))
    first = 0
    for turn in range(turns):
        decade = DECADES[(np.arange(d) + turn // 2) % len(DECADES)]
        size = np.minimum(10.0 ** (decade + rng.random(d)), space.largest) * (-1) ** turn
        for at, rows in _rows(start, np.asarray(size * space.spread, space.dtype), min(d, most)):
            yield Probe("one-hot of any size", space.shaped(rows), first + at)
        first += min(d, most)


def _rows(
    start: NDArray[np.floating], size: NDArray[np.floating], count: int
) -> Iterator[tuple[int, NDArray[np.floating]]]:
    """``count`` rows in which the features take turns to be ``size`` away from ``start``.

    Args:
        start: (d,).
        size: (d,).
        count: At most d; of fewer rows each has several features that are away.

    Yields:
        The number of the first row, and rows (n, d) that fit in memory.
    """
    d = len(start)
    row = np.arange(d) % count
    for part in np.array_split(np.arange(count), -(-count * d // CHUNK_ELEMENTS)):
        here = np.flatnonzero((part[0] <= row) & (row <= part[-1]))
        rows = np.tile(start, (len(part), 1))
        rows[row[here] - part[0], here] += size[here]
        yield int(part[0]), rows
