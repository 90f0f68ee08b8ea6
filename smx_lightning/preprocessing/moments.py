"""Moments of the rows seen so far, merged over batches and processes without loss of digits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor

from smx_lightning.errors.checks import check_dense

TINY = torch.finfo(torch.float32).tiny
LEAST = 2.0**24 * TINY  # of a deviation: a smaller one is not far from where float32 ends
LOST = 2.0**-10  # of a deviation: an input that float32 moves by more needs float64
ROUNDED = (torch.float64, torch.int32, torch.int64)  # inputs that float32 may round


@dataclass
class Moments:
    """Of rows seen so far: count, mean, squared deviations, largest magnitude, largest rounding.

    All are float64; ``rounding`` is the largest ``|x - float32(x)|``, 0 of rows that came as
    float32 or less. Of weighted rows ``count`` is the sum of the weights.

    Batches, and processes, are merged pairwise, which keeps every digit that a second pass would
    (Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances", 1979).

    >>> rows = torch.arange(12.0).reshape(4, 3)
    >>> halves = Moments.of(rows[:1]).merged(Moments.of(rows[1:]))
    >>> halves.count, halves.mean.tolist(), (halves.deviations / 4).tolist()
    (4, [4.5, 5.5, 6.5], [11.25, 11.25, 11.25])
    """

    count: float
    mean: Tensor
    deviations: Tensor
    magnitude: Tensor
    rounding: Tensor

    @classmethod
    def empty(cls, num_features: int) -> Moments:
        """No rows yet."""
        zeros = torch.zeros(num_features, dtype=torch.float64)
        return cls(0, zeros, zeros.clone(), zeros.clone(), zeros.clone())

    @classmethod
    def of(
        cls, rows: Shaped[Tensor, "rows features"], weight: Shaped[Tensor, " rows"] | None = None
    ) -> Moments:
        """The moments of one batch of rows, computed on the CPU: not every device has float64.

        Args:
            rows: The batch.
            weight: Of each row, above 0 and float64; 1 by default.
        """
        check_dense(rows)
        given, rows = rows.dtype, rows.detach().cpu().double()
        if len(rows) == 0:
            return cls.empty(rows.shape[1])
        total = len(rows) if weight is None else float(weight.sum())
        # From the first row on, so that the mean of what never changes is that, to the last digit;
        # of weights in proportion to their sum, so that no product overflows.
        mean = rows.mean(0) if weight is None else rows[0] + weight / total @ (rows - rows[0])
        rounding = (rows - rows.float()).abs().amax(0) if given in ROUNDED else 0 * mean
        squares = (rows - mean).square()
        deviations = squares.sum(0) if weight is None else weight @ squares
        return cls(total, mean, deviations, rows.abs().amax(0), rounding)

    def merged(self, other: Moments) -> Moments:
        """The moments of both sets of rows together."""
        count = self.count + other.count
        if count == 0:
            return self
        shift = other.mean - self.mean
        between = shift.square() * (self.count * other.count / count)
        return Moments(
            count,
            self.mean + shift * (other.count / count),
            self.deviations + other.deviations + between,
            torch.maximum(self.magnitude, other.magnitude),
            torch.maximum(self.rounding, other.rounding),
        )

    @property
    def deviation(self) -> Tensor:
        """The standard deviation of each feature, (features,)."""
        return (self.deviations / (self.count or 1)).sqrt()

    @property
    def constant(self) -> Tensor:
        """Which features have one value only, (features,) bool.

        Rounding leaves such a feature with a deviation of about eps·|mean|, not 0.
        """
        return self.deviation <= 1e-12 * self.magnitude

    @property
    def wide(self) -> Tensor:
        """Which features need float64, (features,) bool; see the module."""
        lost = (self.rounding > LOST * self.deviation) & ~self.constant
        # What overflows or underflows in float32 is another matter.
        return lost & self.rounding.isfinite() & (self.deviation > LEAST)

    def packed(self) -> Tensor:
        """All five as one float64 tensor (5, features), the form in which processes exchange it."""
        count = torch.full_like(self.mean, float(self.count))
        return torch.stack([count, self.mean, self.deviations, self.magnitude, self.rounding])

    @classmethod
    def unpacked(cls, packed: Tensor) -> Moments:
        """Inverse of :meth:`packed`."""
        count, mean, deviations, magnitude, rounding = packed.cpu().double()
        total = float(count[0])
        whole = int(total) if total.is_integer() else total
        return cls(whole, mean, deviations, magnitude, rounding)
