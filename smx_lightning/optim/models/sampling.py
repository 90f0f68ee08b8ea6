"""Curvature of the objective, gathered from few rows while an epoch passes.

A model of the Hessian is made of Gram matrices Σ v · x xᵀ, one a "column" of row weights v; the
models and their weights are in :mod:`.hessians`. Rows with large v and unusual features matter,
the rest hardly: a row of importance r goes in with probability q = min(1, v r / τ) and then weighs
v / q, which is unbiased, and exact where q is 1. Systematic sampling (Madow & Madow, 1944) decides
without a random number: a row goes in where the running sum of probabilities passes an integer.

What is left out must not be replaced by a smooth average: the weakest directions, those that make
the problem hard, owe their curvature to few rows, and any average overstates it.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from smx_lightning.optim.models.dense import cholesky, gram

if TYPE_CHECKING:
    from collections.abc import Callable

PENDING_ENTRIES = 2**22  # 16 MB of rows that wait for their Gram matrices: fast products
MOST_ENTRIES = 2**26  # of a model: 256 MB in float32
# A pass costs more than its 4 n D K operations: products with few columns run at a fraction of the
# speed of square ones, as slowly as with about 32.
NARROW = 32
ENOUGH = 100  # rows an unknown: the model is right within a tenth
ENTRY = 1000  # what choosing costs, for each row and column
MOST_KEPT = 0.7  # of a batch's rows: to leave out fewer is not worth a copy
CHEAP = 5e7  # multiplications and additions that take about a millisecond: not worth saving


def pass_work(num_classes: int, width: int, rows: float) -> float:
    """Multiplications and additions of a pass, in units of fast ones, about."""
    return 4 * rows * width * max(num_classes, NARROW)


def complement(probs: Tensor) -> Tensor:
    """1 - p, (classes, rows), with all of its digits also where p is nearly 1."""
    large = probs > 0.5  # one class at most
    rest = probs.masked_fill(large, 0.0).sum(0, keepdim=True)
    return torch.where(large, rest, 1 - probs)


def systematic(probability: Tensor, carry: Tensor) -> Tensor:
    """Where a column's running sum passes an integer, of (columns, rows) probabilities.

    ``carry`` (columns,) float64 keeps the fractions for the next batch.
    """
    if probability.shape[1] == 0:
        return probability.bool()
    past = probability.cumsum(1, dtype=torch.float64).add_(carry[:, None]).frac_()
    carry.copy_(past[:, -1])
    # An integer lies within the last step of the sum, if what is past it is less than the step.
    return past < probability


class Curvature:
    """A model of the Hessian: collects an epoch's rows, then turns gradients into directions.

    Args:
        num_classes: K.
        width: D, features and bias.
        expected: Σ v over all rows of all processes and all columns, about, as :meth:`mass`
            says; τ follows from it.
        rows: Expected number of rows, over all processes.
        like: Gives dtype and device.

    Attributes:
        chooses: Whether some rows are left out.
    """

    rows_per_unknown: ClassVar[float]
    quasi_newton: ClassVar[bool] = False  # whether L-BFGS's pairs may rescale it

    def __init__(
        self, num_classes: int, width: int, *, expected: float, rows: float, like: Tensor
    ) -> None:
        self.num_classes, self.width = num_classes, width
        wanted = self.rows_wanted(num_classes, width, rows)
        # Where all of them are wanted, those of hardly any weight are too.
        self.chooses = wanted < rows * self.columns(num_classes)
        self._threshold = max(expected / wanted, torch.finfo(like.dtype).tiny)
        self._carry = like.new_zeros(self.columns(num_classes), dtype=torch.float64)
        self._rows: list[Tensor] = []
        self._weights: list[Tensor] = []
        self._like = like.new_empty(())
        self.factor: Tensor | None = None

    @cached_property
    def _grams(self) -> Tensor:
        """The sums: in memory from the first row on, until they are factored."""
        return self._like.new_zeros(self.shape(self.num_classes, self.width))

    # What the models differ in -----------------------------------------------------------------

    @staticmethod
    def columns(num_classes: int) -> int:
        """How many Gram matrices there are."""
        raise NotImplementedError

    @staticmethod
    def shape(num_classes: int, width: int) -> tuple[int, ...]:
        """Shape of the tensor that holds the model."""
        raise NotImplementedError

    @staticmethod
    def fits(num_classes: int, width: int) -> bool:
        """Whether the model is small enough to be had."""
        raise NotImplementedError

    @staticmethod
    def mass(spread: float, total: float, num_classes: int) -> float:
        """Σ v over rows and columns, of Σ c (1 - Σ p²) and Σ c."""
        raise NotImplementedError

    def weights(self, probs: Tensor) -> Tensor:
        """The v / c of each row, (columns, rows), of (classes, rows) probabilities."""
        raise NotImplementedError

    def deposit(self, column: int, gram: Tensor) -> None:
        """Add one column's (D, D) Gram matrix to the model."""
        self._grams[column] += gram

    def penalised(self, penalty: Tensor) -> Tensor:
        """The model with the penalty's (D,) diagonal."""
        self._grams.diagonal(dim1=-2, dim2=-1).add_(penalty)
        return self._grams

    def follow(self, masses: Tensor) -> None:
        """Fit to another point's Σ c p (1 - p) / Σ c, (classes,), where the model can."""

    def at(self, masses: Tensor) -> Curvature:
        """To precondition with at a point of these masses."""
        return self

    def solve(self, gradient: Tensor) -> Tensor:
        """Model⁻¹ · gradient, both (K, D) float64 and summing to zero over the classes."""
        raise NotImplementedError

    # What they share -------------------------------------------------------------------------

    @classmethod
    def unknowns(cls, num_classes: int, width: int) -> float:
        """How many coefficients the sampled rows must pin down."""
        return width * cls.columns(num_classes)

    @classmethod
    def rows_wanted(cls, num_classes: int, width: int, rows: float) -> float:
        """Rows to sample: so many a coefficient, or as many as cost what a pass costs."""
        for_a_pass = (pass_work(num_classes, width, rows) + CHEAP) / (2 * width**2)
        unknowns = cls.unknowns(num_classes, width)
        return max(cls.rows_per_unknown * unknowns, min(for_a_pass, ENOUGH * unknowns))

    @classmethod
    def work(cls, num_classes: int, width: int, rows: float) -> float:
        """Multiplications and additions of collecting and factoring, about."""
        entries = rows * cls.columns(num_classes)
        wanted = cls.rows_wanted(num_classes, width, rows)
        collecting = 2 * width**2 * min(wanted, entries)
        if wanted < entries:
            collecting += ENTRY * entries
        return collecting + cls.factoring(num_classes, width)

    @classmethod
    def factoring(cls, num_classes: int, width: int) -> float:
        """Multiplications and additions of factoring alone."""
        *blocks, size, _ = cls.shape(num_classes, width)
        return math.prod(blocks) * size**3 / 3

    @torch.no_grad()
    def add(self, x: Tensor, probs: Tensor, importance: Tensor, row_weights: Tensor | None) -> None:
        """Choose from a batch.

        Rows are last: a sum over few classes is ten times faster that way.

        Args:
            x: (rows, features).
            probs: (classes, rows).
            importance: (rows,), about 1: how unusual a row's features are; read where ``chooses``.
            row_weights: (rows,) or ``None``.
        """
        v = self.weights(probs)
        if row_weights is not None:
            v = v * row_weights
        if self.chooses:
            probability = (v * (importance / self._threshold)).clamp(max=1)
            chosen = systematic(probability, self._carry)
            v = torch.where(chosen, torch.maximum(v, self._threshold / importance), 0)
            some = chosen.any(0).nonzero()[:, 0]
            if len(some) < MOST_KEPT * len(x):
                x, v = x[some], v[:, some]
        self._rows.append(torch.nn.functional.pad(x, (0, 1), value=1.0))
        self._weights.append(v)
        if sum(map(len, self._rows)) * self.width >= PENDING_ENTRIES:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        rows = self._rows[0] if len(self._rows) == 1 else torch.cat(self._rows)
        root = torch.cat(self._weights, 1).sqrt()
        self._rows, self._weights = [], []
        for column, weights in enumerate(root):
            chosen = weights.nonzero()[:, 0]
            if len(chosen):
                self.deposit(column, gram(rows[chosen].mul_(weights[chosen, None])))

    @torch.no_grad()
    def finish(
        self, total_weight: float, l2: float, reduce: Callable[[Tensor], Tensor]
    ) -> Curvature:
        """Average over all processes, and factor; ``self``, ready to solve."""
        self._flush()
        self._grams = reduce(self._grams).div_(total_weight)
        self.factored(total_weight, l2)
        del self._grams
        return self

    def factored(self, total_weight: float, l2: float) -> None:
        """Turn the sums over all processes into what :meth:`solve` needs."""
        penalty = self._grams.new_full((self.width,), l2)
        penalty[-1] = 0
        self.factor = cholesky(self.penalised(penalty))

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of a finished model."""
        assert self.factor is not None
        return {"model": type(self).__name__, "factor": self.factor}

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        self.factor = state["factor"]
