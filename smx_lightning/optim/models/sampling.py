"""Curvature of the objective, gathered from few rows while an epoch passes.

A model of the Hessian is made of Gram matrices Σ v · x xᵀ, one a "column" of row weights v; the
models and their weights are in :mod:`.hessians`. Rows with large v and unusual features matter,
the rest hardly: a row of importance r goes in with probability q = min(1, v r / τ) and then weighs
v / q, which is unbiased, and exact where q is 1 (Poisson sampling). A row has one random number for
all columns, the same ones every time: it goes in where q is at least that.

What is left out must not be replaced by a smooth average: the weakest directions, those that make
the problem hard, owe their curvature to few rows, and any average overstates it.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from smx_lightning.optim.models.dense import add_gram, cholesky, gram_work, rows_like

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
    large, small = _parted(probs)
    return torch.where(large > 0, small.sum(0, keepdim=True), 1 - probs)


def doubt(probs: Tensor) -> Tensor:
    """Σ p (1 - p) = 1 - Σ p² of each row, (rows,), as exact as :func:`complement`."""
    small = _parted(probs)[1]
    rest = small.sum(0)  # 1 - p of a large one; 1 where there is none
    return rest * (2 - rest) - small.square_().sum(0)


def _parted(probs: Tensor) -> tuple[Tensor, Tensor]:
    """Those above ½, one of a row at most, and the others, both with 0 elsewhere.

    On a CPU a comparison and what it chooses take six times as long.
    """
    large = torch.threshold(probs, 0.5, 0.0)
    return large, probs - large


class Thresholds:
    """A random number in (0, 1] for row after row, the same ones every time.

    That leaves the program's own random numbers alone. Evenly spaced ones would vary less, but
    might fall into step with rows that take turns.
    """

    def __init__(self, device: torch.device) -> None:
        self._generator = torch.Generator(device).manual_seed(0)

    def next(self, like: Tensor) -> Tensor:
        """Of the next rows, (rows,), as many as ``like`` has in its last dimension."""
        size = like.shape[-1:]
        return 1 - torch.rand(size, generator=self._generator, dtype=like.dtype, device=like.device)


class Curvature:
    """A model of the Hessian: collects an epoch's rows, then turns gradients into directions.

    Args:
        num_classes: K.
        width: D, features and bias.
        expected: Σ v over all rows of all processes and all columns, about, as :meth:`mass`
            says; τ follows from it.
        rows: Expected number of rows, over all processes.
        like: Gives dtype and device.
        one: What is appended to a row for the bias: 0 where that is held at 0. Nothing is then
            seen of it, and :func:`.dense.cholesky` leaves it where it is.

    Attributes:
        chooses: Whether some rows are left out.
    """

    rows_per_unknown: ClassVar[float]
    # By how much of their sum the classes' masses must have changed before the same model is worth
    # its price again: what it leaves out hides less.
    renewed_after: ClassVar[float] = 0.0
    quasi_newton: ClassVar[bool] = False  # whether L-BFGS's pairs may rescale it

    def __init__(
        self,
        num_classes: int,
        width: int,
        *,
        expected: float,
        rows: float,
        like: Tensor,
        one: float = 1.0,
    ) -> None:
        self.num_classes, self.width, self.one = num_classes, width, one
        wanted = self.rows_wanted(num_classes, width, rows)
        # Where all of them are wanted, those of hardly any weight are too.
        self.chooses = wanted < rows * self.columns(num_classes)
        self._threshold = max(expected / wanted, torch.finfo(like.dtype).tiny)
        self._thresholds = Thresholds(like.device)
        self._pending: list[tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]] = []
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

    def deposit(self, column: int, rows: Tensor) -> None:
        """Add one column's Gram matrix, of scaled rows (rows, D), to the model's lower triangle."""
        add_gram(self._grams[column], rows)

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
        for_a_pass = (pass_work(num_classes, width, rows) + CHEAP) / gram_work(width)
        unknowns = cls.unknowns(num_classes, width)
        return max(cls.rows_per_unknown * unknowns, min(for_a_pass, ENOUGH * unknowns))

    @classmethod
    def work(cls, num_classes: int, width: int, rows: float) -> float:
        """Multiplications and additions of collecting and factoring, about."""
        entries = rows * cls.columns(num_classes)
        wanted = cls.rows_wanted(num_classes, width, rows)
        collecting = gram_work(width) * min(wanted, entries)
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
            chosen = v * (importance / self._threshold) >= self._thresholds.next(v)
        else:
            chosen = v > 0
        columns, rows = chosen.nonzero(as_tuple=True)
        weights = v[columns, rows]
        if self.chooses:
            weights = torch.maximum(weights, (self._threshold / importance)[rows])
        counts = columns.bincount(minlength=len(v)).tolist()
        kept, rows = self._with_ones(x, rows)
        parts = torch.split(rows, counts), torch.split(weights.sqrt(), counts)
        self._pending.append((kept, *parts))
        if sum(len(kept) for kept, *_ in self._pending) * self.width >= PENDING_ENTRIES:
            self._flush()

    def _with_ones(self, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The rows, or all where nearly all are wanted, a 1 appended; and where they are in it."""
        few = len(rows) < MOST_KEPT * len(x)
        kept = rows_like(x, len(rows) if few else len(x), self.width)
        kept[:, -1] = self.one
        if not few:
            kept[:, :-1] = x
            return kept, rows
        torch.index_select(x, 0, rows, out=kept[:, :-1])
        return kept, torch.arange(len(rows), device=x.device)

    def _flush(self) -> None:
        """Deposit what is pending, the rows of each column in one product."""
        pending, self._pending = self._pending, []
        columns = range(self.columns(self.num_classes) if pending else 0)
        counts = [sum(len(rows[column]) for _, rows, _ in pending) for column in columns]
        room = rows_like(self._like, max(counts, default=0), self.width)  # the same for each column
        for column in columns:
            end = 0
            for x, rows, root in pending:
                begin, end = end, end + len(rows[column])
                scaled = torch.index_select(x, 0, rows[column], out=room[begin:end])
                scaled *= root[column][:, None]
            if end:
                self.deposit(column, room[:end])

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
