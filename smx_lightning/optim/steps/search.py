"""How far to go along a direction, each try being a pass over all rows.

Along a line every length's slope is a function of two logits a row (:mod:`.evaluation`), so a pass
that tries one length answers for several. The objective is convex: a length where the slope is
still at most ARMIJO times the first one satisfies Armijo's condition, and the slope's zero, which
lies between the last negative and the first positive one, is the best length.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from smx_lightning.optim.evaluation import Evaluation, Line

ARMIJO = 1e-4  # Nocedal & Wright, sec. 3.1
RATIOS = (1 / 256, 1 / 32, 1 / 8, 1 / 4, 1 / 2)  # of the length tried: where slopes are asked for
OVERSHOT = 0.5
FITS = 0.5  # of the first slope is left at a step's end, at most, where its model fits


class Step(NamedTuple):
    """One try: from a point with this slope along the direction, so far.

    ``direction`` is (classes, features + 1) float64. ``asks`` says that the pass is to answer for
    shorter lengths too.
    """

    direction: Tensor
    slope: float
    length: float
    asks: bool

    def line(self) -> Line | None:
        """Where the pass at the step's end finds the slopes that :meth:`shorter` reads."""
        if not self.asks or self.length == 0:
            return None
        back = [self.length * (ratio - 1) for ratio in RATIOS]
        return Line(self.direction, self.direction.new_tensor(back))

    def end_slope(self, new: Evaluation) -> float:
        """φ' at the step's end."""
        return float((new.gradient * self.direction).sum())

    def fits(self, new: Evaluation) -> bool:
        """Whether the model that chose the step was about right, so that its next one will be."""
        return abs(self.end_slope(new)) <= -FITS * self.slope

    def accepts(self, before: Evaluation, new: Evaluation, noise: float) -> bool:
        """Armijo's condition; within rounding, the slope decides (Hager & Zhang, 2005, eq. 4.1)."""
        gained = before.objective - new.objective
        if gained >= -ARMIJO * self.length * self.slope:
            return True
        return gained >= -noise and self.end_slope(new) <= (2 * ARMIJO - 1) * self.slope

    def overshot(self, before: Evaluation, new: Evaluation) -> bool:
        """Whether a shorter step, as its slopes say, would have gained half as much again."""
        if not len(new.slopes) or not new.slopes[-1] > 0:
            return False
        lengths = [self.length * ratio for ratio in (*RATIOS, 1.0)]
        slopes = [*new.slopes.tolist(), self.end_slope(new)]
        lost = 0.0
        for i in range(len(RATIOS)):
            low, high = max(slopes[i], 0.0), max(slopes[i + 1], 0.0)
            lost += (lengths[i + 1] - lengths[i]) * (low + high) / 2
        return lost > OVERSHOT * (before.objective - new.objective)

    def shorter(self, before: Evaluation, new: Evaluation) -> Step:
        """The step to try in place of this one, whose end was worse."""
        if len(new.slopes):
            length = self._zero(new)
        else:  # the least point of the parabola through both values and the slope, safeguarded
            excess = new.objective - before.objective - self.length * self.slope
            least = -self.slope * self.length**2 / (2 * excess) if math.isfinite(excess) else 0.0
            length = max(least, 0.1 * self.length)
        return self._replace(length=min(length, 0.5 * self.length), asks=True)

    def _zero(self, new: Evaluation) -> float:
        """Where the slope is zero, linear between the lengths that are known."""
        known = zip(RATIOS, new.slopes.tolist(), strict=True)
        low, at_low = 0.0, self.slope
        for ratio, slope in (*known, (1.0, self.end_slope(new))):
            if not slope < 0:  # also where it is not finite
                share = at_low / (at_low - slope) if math.isfinite(slope) else 0.5
                return self.length * (low + min(max(share, 0.05), 0.95) * (ratio - low))
            low, at_low = ratio, slope
        return 0.5 * self.length  # rounding has the upper hand


def first(direction: Tensor, gradient: Tensor, *, asks: bool) -> Step:
    """The full step along a direction."""
    return Step(direction, float((gradient * direction).sum()), 1.0, asks)
