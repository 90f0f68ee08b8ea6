"""Whether inputs are in the units of the training data, as far as their range tells.

The range in a file is the smallest and the largest entry of the training data. New rows stray
beyond it a little, so only what lies far outside, or what fills next to nothing of it, is spoken
of. Units that give a similar range, such as 0..1 for -1..1, cannot be told apart.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_export.contract import INPUT_RANGE, INPUT_SHAPE

# Of the range: how far outside an entry may lie. Pixels are bounded, other features have tails.
PICTURE_MARGIN, MARGIN = 0.5, 4.0
NARROW = 1 / 12  # of the range: 0..1 is 1/16 of the digits' 0..16, and 1/255 of bytes
FEWEST = 16  # rows: that many pictures in succession are not all blank
PIXELS = (0.0, 255.0)


def declared_range(metadata: Mapping[str, str]) -> tuple[float, float] | None:
    """The range in a file's metadata: two finite numbers, the smaller first; ``None`` without."""
    try:
        low, high = (float(bound) for bound in json.loads(metadata[INPUT_RANGE]))
    except (KeyError, ValueError, TypeError, OverflowError, RecursionError):
        return None
    return (low, high) if -math.inf < low < high < math.inf else None


def declared_shape(metadata: Mapping[str, str]) -> tuple[int, ...]:
    """The shape of one input of the training data in a file's metadata; empty without."""
    try:
        shape = tuple(json.loads(metadata[INPUT_SHAPE]))
    except (KeyError, ValueError, TypeError, RecursionError):
        return ()
    return shape if all(type(side) is int and side > 0 for side in shape) else ()


class InputRange:
    """The range of a file's inputs, and what was seen of them so far.

    Entries that fill little of it mean another scale only where they would otherwise differ: in
    pictures. Of one feature among many the range of all of them says nothing.

    Args:
        low: The smallest entry of the training data.
        high: The largest.
        pictures: Whether the inputs are pictures.
        bytes_only: Whether the file takes bytes alone, which fill 0..255.

    Attributes:
        least: What is below this lies far outside.
        most: What is above, likewise.
    """

    def __init__(
        self, low: float, high: float, *, pictures: bool, bytes_only: bool = False
    ) -> None:
        self.low, self.high = low, high
        pictures = pictures or (low, high) == PIXELS
        margin = (PICTURE_MARGIN if pictures else MARGIN) * (high - low)
        self.least, self.most = low - margin, high + margin
        self._narrow = NARROW * (high - low) if pictures else -1.0
        self._bytes_only = bytes_only
        self._rows, self._low, self._high = 0, math.inf, -math.inf  # of narrow rows in succession

    @classmethod
    def of(cls, metadata: Mapping[str, str], *, pixels: bool) -> InputRange | None:
        """That of a file with this metadata; ``None`` where they hold none.

        Args:
            metadata: Of the file.
            pixels: Whether it takes uint8: of every model these go from 0 to 255.
        """
        declared = PIXELS if pixels else declared_range(metadata)
        if declared is None:
            return None
        return cls(*declared, pictures=len(declared_shape(metadata)) > 1, bytes_only=pixels)

    def is_ordinary(self, low: float, high: float) -> bool:
        """Whether there is nothing to say or to count about inputs from ``low`` to ``high``."""
        within = self.least <= low <= high <= self.most
        return within and high - low > self._narrow and not self._rows

    def complaint(self, x: NDArray[Any], low: float, high: float) -> str | None:
        """One sentence where entries are clearly not in the units of training, else ``None``.

        Args:
            x: Inputs (batch, …).
            low: Their smallest finite entry.
            high: Their largest.
        """
        if low < self.least or high > self.most:
            said = f"entries from {low:g} to {high:g}"
        elif self._is_narrow(x, low, high):
            said = f"pictures of nothing but {self._low:g} to {self._high:g}"
        else:
            return None
        return (
            f"expected inputs in the range of the training data, {self.low:g} to {self.high:g}, "
            f"got {said}; {self._remedy(low, high)}"
        )

    def _is_narrow(self, x: NDArray[Any], low: float, high: float) -> bool:
        low, high = min(low, self._low), max(high, self._high)
        if high - low > self._narrow:
            self._rows, self._low, self._high = 0, math.inf, -math.inf
            return False
        self._low, self._high = low, high
        self._rows += len(x)
        # Whole numbers are bytes as they were, of dark pictures.
        scaled = self._bytes_only or bool((x != np.rint(x)).any())
        return self._rows >= FEWEST and high > low and scaled

    def _remedy(self, low: float, high: float) -> str:
        if self._bytes_only:
            return "give pixels from 0 to 255"
        if low >= 0 and 1 < high <= PIXELS[1] and (self.low, self.high) != PIXELS:
            step = (self.high - self.low) / PIXELS[1]
            return (
                "scale them as the training data were; pixels from 0 to 255 with "
                f"numpy.float32({self.low!r} + {step!r} * x)"
            )
        return "scale them as the training data were"


def remedy(x: NDArray[Any], wanted: np.dtype[Any], in_training: tuple[float, float] | None) -> str:
    """How inputs of a dtype that a file does not take become those that it takes.

    Args:
        x: The inputs.
        wanted: The file's dtype, float32 or uint8.
        in_training: Range of the training data: its bounds are the pixels 0 and 255.
    """
    if x.dtype.kind == "c":
        return "convert them to real numbers"
    if x.ndim == 0 and hasattr(x.item(), "toarray"):  # of scipy.sparse
        return "convert them with x.toarray()"
    try:
        values = x.astype(np.float64)
    except (ValueError, TypeError):
        return "convert them with the encoding of the training data, to numbers"
    values = values[np.isfinite(values)]
    least, most = (values.min(), values.max()) if values.size else (0.0, 0.0)
    plain = f"convert them with x.astype(numpy.{wanted})"
    if wanted == np.float32:
        fits = max(most, -least) <= np.finfo(np.float32).max
        return plain if fits else "leave out what float32 cannot hold"
    low, high = PIXELS if in_training is None else in_training
    margin = PICTURE_MARGIN * (high - low)
    fractions = bool((values % 1).any())
    if least >= 0 and high + margin < most <= PIXELS[1] and not fractions:
        return plain  # these are pixels already: no values of the training data
    narrow = fractions and most - least <= NARROW * (high - low)
    if least < low - margin or most > high + margin or narrow:
        return (
            f"convert them into pixels from 0 to 255, of which 0 stands for {low:g} and 255 for "
            f"{high:g} in the training data"
        )
    return (
        f"convert values from {low:g} to {high:g} into pixels with numpy.rint((x.astype(float) - "
        f"{low!r}) * {PIXELS[1] / (high - low)!r}).clip(0, 255).astype(numpy.uint8)"
    )
