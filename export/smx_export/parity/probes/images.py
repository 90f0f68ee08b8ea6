"""Images of the plainest kinds: one grey, low contrast, checkerboards, gradients, single pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from smx_export.parity.probes.ordinary import WHITE
from smx_export.parity.probes.probe import CHUNK_ELEMENTS, Probe, Space

ROWS_AT_A_TIME = 256
LEVELS = 256
CONTRASTS = (1, 2, 4, 8, 16, 32, 64)
PERIODS = (1, 2, 4, 7)
MOST_IMAGES = 2 * LEVELS  # half of them of one grey each: all there are


def images(space: Space, *, rows: int = MOST_IMAGES, seed: int = 8) -> Iterator[Probe]:
    """So many of those that no single pixel makes, fewer where they would not fit in memory.

    Images of numbers are pixels mapped to the bounds.
    """
    low, high = space.bounds or (0.0, 1.0)
    rows = min(rows, max(12, CHUNK_ELEMENTS // space.width))
    pixels = _images(space.input_shape, rows, np.random.default_rng(seed))
    for first in range(0, len(pixels), ROWS_AT_A_TIME):
        part = low + (high - low) / WHITE * pixels[first : first + ROWS_AT_A_TIME]
        yield Probe("plain images", space.shaped(space.fitting(part)), first, regular=True)


def pixels_alone(space: Space, most: int, *, seed: int = 9) -> Iterator[Probe]:
    """Each pixel alone: white on black; and a grey one, every other on white."""
    d = space.width
    rng = np.random.default_rng(seed)
    for first in range(0, min(d, most), ROWS_AT_A_TIME):
        at = np.arange(first, min(first + ROWS_AT_A_TIME, d, most))
        ground = WHITE * (at % 2)
        for name, others, level in (
            ("one-hot", np.zeros(len(at)), np.full(len(at), WHITE)),
            ("one grey pixel", ground, rng.integers(1, 255, len(at))),
        ):
            rows = np.repeat(others[:, None], d, 1)
            rows[np.arange(len(at)), at] = level
            yield Probe(name, space.shaped(rows), first)


def _images(shape: Sequence[int], rows: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Pixels 0..255 of each kind, (n, d)."""
    d = math.prod(shape)
    axes = np.argsort(shape, kind="stable")[-2:]  # the longest two: not the channels
    places = np.indices(shape).reshape(len(shape), d)[axes]
    across = places / np.maximum(np.array(shape)[axes, None] - 1, 1)
    greys = rng.permutation(LEVELS)[: rows // 2, None]
    others = rows // 6
    return np.concatenate([
        np.repeat(greys.astype(np.float64), d, 1),
        _low_contrast(d, others, rng),
        _checkerboards(places, others, rng),
        _gradients(across, others, rng),
    ])  # fmt: skip


def _low_contrast(d: int, rows: int, rng: np.random.Generator) -> NDArray[np.float64]:
    contrast = np.resize(rng.permutation(CONTRASTS), rows)[:, None]
    ground = rng.integers(0, LEVELS - contrast)
    return np.asarray(ground + rng.integers(0, contrast + 1, (rows, d)), np.float64)


def _checkerboards(
    places: NDArray[np.int_], rows: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Fields of each size, every other one black and white."""
    boards = []
    for i in range(rows):
        odd = (places // PERIODS[i // 2 % len(PERIODS)]).sum(0) % 2
        first, second = (0, WHITE) if i % 2 else rng.choice(LEVELS, 2, replace=False)
        boards.append(np.where(odd, first, second))
    return np.asarray(boards, np.float64)


def _gradients(
    across: NDArray[np.float64], rows: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Along each axis and across, rising and falling, every other one from end to end."""
    ways = [*across, across.mean(0)]
    slopes = []
    for i in range(rows):
        start, stop = rng.permutation([0, LEVELS - 1]) if i % 2 else rng.integers(0, LEVELS, 2)
        slopes.append(np.rint(start + (stop - start) * ways[i // 2 % len(ways)]))
    return np.asarray(slopes)
