"""How far the first step goes, from some of the rows, before a pass is spent on it.

At zero weights all classes are equal, and a model of the curvature there promises too much: where
classes are nearly separable its step is twenty times too long, and a pass over all rows is spent on
finding that out. A thousand rows tell the slopes along it as well, each row's share being p - q at
scores that are the same for all rows at zero weights; and they tell the masses Σ c U w (1 - w) at
its end, so that the pass that evaluates there can choose the rows that matter there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from smx_lightning.optim.evaluation import EpochSums, Evaluation, Line, summed
from smx_lightning.optim.members import Softmax
from smx_lightning.optim.models.sampling import Thresholds
from smx_lightning.optim.steps.search import Step

ROWS = 1024  # that are kept, up to twice as many; of each process
ONE_OF = 8  # rows at most
LENGTHS = (0.0, *(2.0**-i for i in range(8, -1, -1)))  # that are looked at, of the whole step
BETWEEN = 6  # more, between two of these


class Forecast(NamedTuple):
    """Where the step should end, and Σ c U w (1 - w) / Σ c there, (classes,)."""

    length: float
    masses: Tensor


class Pilot:
    """Some rows of a pass in which all rows have the same scores.

    A row is kept where its random number is below a limit, which is halved as rows come: which ones
    are kept depends on their order, and not on the batches.

    Args:
        like: (classes, features), gives dtype and device.
    """

    def __init__(self, like: Tensor) -> None:
        self._thresholds = Thresholds(like.device)
        self._limit, self._count = 1 / ONE_OF, 0
        none = like.new_empty(0)
        self._kept = [(like[:0], none.long(), none, none)]  # with targets, weights, random numbers

    def add(self, x: Tensor, y: Tensor, weights: Tensor | None) -> None:
        """A batch passes, as in :meth:`.EpochSums.add`."""
        c = x.new_ones(len(x)) if weights is None else weights
        self._keep(*self._chosen(x, y, c, self._thresholds.next(c)))
        while self._count > 2 * ROWS:
            self._limit /= 2
            kept, self._kept, self._count = self._kept, self._kept[:1], 0
            for rows in kept[1:]:
                self._keep(*self._chosen(*rows))

    def _keep(self, x: Tensor, y: Tensor, c: Tensor, numbers: Tensor) -> None:
        if len(x):  # of a million small batches most have none
            self._kept.append((x, y, c, numbers))
            self._count += len(x)

    def _chosen(
        self, x: Tensor, y: Tensor, c: Tensor, numbers: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        some = (numbers <= self._limit).nonzero()[:, 0]
        return x[some], y[some], c[some], numbers[some]

    def forecast(
        self, step: Step, rows: float, member: Softmax, *, bias: Tensor, l2: float
    ) -> Forecast | None:
        """Of the whole step; ``None`` where too few rows passed to be worth it, or to tell.

        Args:
            step: From zero weights.
            rows: How many passed, over all processes.
            member: What the scores end in.
            bias: The scores of every row, (classes, 1).
            l2: Weight of the penalty.
        """
        if rows < ONE_OF * ROWS:
            return None
        x, y, c, _ = map(torch.cat, zip(*self._kept, strict=True))
        c = c / self._limit  # processes have limits of their own
        if not float(summed(c.sum(dtype=torch.float64))) > 0:
            return None

        def evaluated(length: float, line: Line | None = None) -> Evaluation:
            point = length * step.direction
            rounded = point.to(x.dtype)
            scores = torch.addmm(bias + rounded[:, -1:], rounded[:, :-1], x.T)
            sums = EpochSums((point.shape[0], point.shape[1]), x.device, member, line)
            sums.add(x, member.at(scores), y, c)
            return sums.evaluation(point[:, :-1], l2)

        def slopes(lengths: Sequence[float]) -> list[float]:
            line = Line(step.direction, step.direction.new_tensor(lengths))
            return evaluated(0.0, line).slopes.tolist()

        length = _zero(slopes)
        if length is None:
            return None
        masses = evaluated(length).masses
        return Forecast(length, masses) if bool(masses.isfinite().all()) else None


def _zero(slopes: Callable[[Sequence[float]], list[float]]) -> float | None:
    """Where slopes, which rise with the length, are zero; the whole step where that is later."""
    low, high, lengths = 0.0, 1.0, LENGTHS
    for _ in range(2):
        found = slopes(lengths)
        over = next((i for i, slope in enumerate(found) if not slope < 0), None)
        if over is None:
            return 1.0
        if over == 0:  # too few rows to tell
            return None
        low, high, at_low, at_high = *lengths[over - 1 : over + 1], *found[over - 1 : over + 1]
        lengths = tuple(low + (high - low) * i / (BETWEEN + 1) for i in range(BETWEEN + 2))
    share = at_low / (at_low - at_high) if math.isfinite(at_high) else 0.5
    return low + share * (high - low)
