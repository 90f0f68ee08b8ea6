"""A named set of inputs, and the batches that they are given in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

RANDOM = "random rows"
FLOAT32 = np.dtype(np.float32)
CHUNK_ELEMENTS = 4_000_000  # 32 MB of float64: a dozen such arrays are in use at a time
MOST_REPEATED = 4 * CHUNK_ELEMENTS  # of a batch that repeats rows: it takes no float64


class Probe(NamedTuple):
    """A named set of inputs.

    Attributes:
        name: What kind they are.
        x: float32 (rows, *input_shape), or float64 where the file takes that.
        first: Number of the first row among all of that name.
        at: Which of the rows the batch consists of, in order and as often as they occur there;
            all of them, once, where that is ``None``.
        regular: Whether the rows are so regular (of whole numbers, of one value) that the live
            model may round them all luckily, and a correct file need not.
    """

    name: str
    x: NDArray[np.floating]
    first: int = 0
    at: NDArray[np.intp] | None = None
    regular: bool = False

    @property
    def batch(self) -> NDArray[np.floating]:
        """The inputs as they are given, in one batch."""
        return self.x if self.at is None else self.x[self.at]

    def blocks(self, width: int) -> Iterator[Probe]:
        """The same rows in batches that fit in memory; a row costs some ``width`` numbers."""
        step = max(4, CHUNK_ELEMENTS // width)
        if self.at is not None or len(self.x) <= step:
            yield self
            return
        for start in range(0, len(self.x), step):
            part = self.x[start : start + step]
            yield self._replace(x=part, first=self.first + start)


class Space(NamedTuple):
    """Where the inputs lie.

    Attributes:
        input_shape: Shape of one input.
        centre: Mean of the features, float64 (d,).
        spread: Their deviation, likewise.
        bounds: Smallest and largest entry of an input, where that is known.
        dtype: Of the inputs.
        pixels: Whether they are whole numbers from 0 to 255.
        largest: How many deviations from the mean float32 still has room for the answers.
    """

    input_shape: tuple[int, ...]
    centre: NDArray[np.float64]
    spread: NDArray[np.float64]
    bounds: tuple[float, float] | None = None
    dtype: np.dtype[Any] = FLOAT32
    pixels: bool = False
    largest: float = np.inf

    @property
    def width(self) -> int:
        """d, the number of features."""
        return len(self.centre)

    def shaped(self, rows: NDArray[np.floating]) -> NDArray[np.floating]:
        """Rows (n, d) as inputs (n, *input_shape), images as the nearest pixels."""
        if self.pixels:
            rows = np.rint(rows).clip(0, 255)
        return np.asarray(rows, self.dtype).reshape(-1, *self.input_shape)

    def fitting(self, rows: NDArray[np.floating]) -> NDArray[np.floating]:
        """Those of the rows (n, d) that lie within ``largest``."""
        if math.isinf(self.largest):
            return rows
        return rows[(np.abs(rows - self.centre) <= self.largest * self.spread).all(1)]
