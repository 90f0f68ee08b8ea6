"""The inputs on which a file and its model are compared.

Random rows alone miss what matters: a wrong weight of a feature that is rarely large, a softmax
that overflows, a bias that only shows at zero. One-hot rows look at the weights one by one: all
of a row's products but one are exactly zero, so is their rounding error, and the tolerance shrinks
to a few units in the last place of a single weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

RANDOM = "random rows"
RANDOM_ROWS = 256
MOST_ONE_HOTS = 4096  # rows; of more features several share one
ONE_HOT = 1024.0  # in deviations: large enough that a weight outweighs the rounding of the bias
ONE_HOT_ROWS = 256  # of images at a time
WHITE = 255.0
FLOAT32 = np.dtype(np.float32)
HUGE = 1e4
TINY = 1e-6
CHUNK_ELEMENTS = 4_000_000  # 32 MB of float64: a dozen such arrays are in use at a time


class Probe(NamedTuple):
    """A named set of inputs.

    Attributes:
        name: What kind they are.
        x: float32 (rows, *input_shape), or float64 where the file takes that.
        first: Number of the first row among all of that name.
    """

    name: str
    x: NDArray[np.floating]
    first: int = 0

    def blocks(self, width: int) -> Iterator[Probe]:
        """The same rows in batches that fit in memory; a row costs some ``width`` numbers."""
        step = max(4, CHUNK_ELEMENTS // width)
        for start in range(0, len(self.x), step):
            yield Probe(self.name, self.x[start : start + step], self.first + start)


def probes(
    input_shape: tuple[int, ...],
    centre: NDArray[np.floating],
    spread: NDArray[np.floating],
    *,
    origin: NDArray[np.floating] | float = 0.0,
    huge: float = HUGE,
    one_hots: int = MOST_ONE_HOTS,
    nan_row: bool = True,
    dtype: np.dtype[Any] = FLOAT32,
    seed: int = 0,
) -> Iterator[Probe]:
    """Batches of 1, 2 and n; random and adversarial inputs around where the training data lay.

    Args:
        input_shape: Shape of one input.
        centre: Mean of the features, (d,) or a number.
        spread: Their deviation, likewise.
        origin: What the one-hot rows are added to: where the features are zero to the file.
        huge: By how much random rows are multiplied at least to overflow what can overflow.
        one_hots: How many one-hot rows at the most; more features than that share them.
        nan_row: Whether to include rows with NaN and infinity.
        dtype: Of the inputs.
        seed: Of the random inputs.
    """
    rng = np.random.default_rng(seed)
    d = math.prod(input_shape)
    noise = rng.standard_normal((RANDOM_ROWS, d))
    random = centre + spread * noise

    def shaped(rows: NDArray[np.floating]) -> NDArray[np.floating]:
        return np.asarray(rows, dtype).reshape(-1, *input_shape)

    yield Probe("batch of 1", shaped(random[:1]))
    yield Probe("batch of 2", shaped(random[1:3]))
    yield Probe(RANDOM, shaped(random))
    yield Probe("zeros", shaped(np.zeros((2, d))))
    yield Probe("huge", shaped(max(huge, HUGE) * random[:64]))
    yield Probe("tiny", shaped(TINY * random[:64]))
    # Features that share a row each have a factor of their own, which tells them apart.
    factor = 1.0 if d <= one_hots else rng.uniform(1, 2, d)
    size = ONE_HOT * factor * np.broadcast_to(spread, (d,))
    start = np.broadcast_to(np.asarray(origin, dtype), (d,))
    for first, rows in _one_hot_rows(start, np.asarray(size, dtype), min(d, one_hots)):
        yield Probe("one-hot", shaped(rows), first)
    if nan_row:
        poisoned = random[:5].copy()
        poisoned[[1, 2, 3], d // 2] = np.nan, np.inf, -np.inf
        yield Probe("NaN and infinity", shaped(poisoned))


def _one_hot_rows(
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


def ordinary(
    rows: int,
    input_shape: tuple[int, ...],
    centre: NDArray[np.floating] | np.floating,
    spread: NDArray[np.floating] | np.floating,
    *,
    pixels: bool,
    dtype: np.dtype[Any] = FLOAT32,
    seed: int = 1,
) -> NDArray[np.floating]:
    """Random rows (n, *input_shape) as the training data were; of images, pixels of all values."""
    rng = np.random.default_rng(seed)
    d = math.prod(input_shape)
    x = (
        rng.integers(0, 256, (rows, d))
        if pixels
        else centre + spread * rng.standard_normal((rows, d))
    )
    return np.asarray(x, dtype).reshape(rows, *input_shape)


def image_probes(
    input_shape: tuple[int, ...], *, one_hots: int = MOST_ONE_HOTS, seed: int = 0
) -> Iterator[Probe]:
    """Batches of 1, 2 and n pixel images: random, black, white, and every pixel alone."""
    random = ordinary(
        RANDOM_ROWS, input_shape, np.float32(0), np.float32(1), pixels=True, seed=seed
    )
    yield Probe("batch of 1", random[:1])
    yield Probe("batch of 2", random[1:3])
    yield Probe(RANDOM, random)
    yield Probe("black", np.zeros_like(random[:2]))
    yield Probe("white", np.full_like(random[:2], WHITE))
    d = math.prod(input_shape)
    for first in range(0, min(d, one_hots), ONE_HOT_ROWS):
        pixels = np.arange(first, min(first + ONE_HOT_ROWS, d, one_hots))
        rows = np.zeros((len(pixels), d), np.float32)
        rows[np.arange(len(pixels)), pixels] = WHITE
        yield Probe("one-hot", rows.reshape(-1, *input_shape), first)
