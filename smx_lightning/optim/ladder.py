"""Which model of the curvature is in use, and when to pay for a better one.

As whoever rents skis buys them when the rent paid reaches their price, a richer model is collected
once the passes so far have cost about as much as it will. On small problems the price is below a
pass: every pass then takes the whole Hessian, which is Newton's method. All processes choose alike.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from smx_lightning.optim.curvature import Curvature, pass_work
from smx_lightning.optim.evaluation import Evaluation, summed
from smx_lightning.optim.hessians import LADDER, restored
from smx_lightning.optim.rows import Rows
from smx_lightning.optim.spectrum import Diagonal, Moments, Spectrum

PATIENCE = 0.45  # pay for new curvature when the passes so far have cost this much of its price
MOST_AT_ONCE = 2048  # features and bias, of which the first pass collects the spectrum
AT_ONCE = 5.0  # passes that it may cost to be used at once: it saves more, mostly
DEARER = 3  # times the present model's price: a better one is not saved for
UNKNOWN_BATCHES = 64  # in a pass whose length is not known
# Products with the Hessian of some rows (:mod:`.rows`) take the place of a model, where
# - a tenth of the rows are so many for each feature that the Hessian is right within a tenth, or
# - they are as many as the unknowns that the rows decide, and any matrix costs a hundred passes.
PRODUCTS = 8  # a step, about
MANY_ROWS = 100  # a feature
LEAST_ROWS = 0.1  # of all
FEW_ROWS = 0.8  # an unknown that the rows decide
MOST_ROWS = 0.5  # of all: with more a step costs several passes
MANY_PASSES = 40
BEFORE_ROWS = 2.5  # passes: where the first step saturates the softmax no row seems to matter
MOST_FALL = 1.4  # of a class's mass from one point to the next
KEPT = ("masses", "on_rows", "rows_factor", "work", "work_at_refresh", "largest", "sums")


class Ladder:
    """The models, from the cheapest to the exact one.

    Args:
        shape: (classes, features + 1).
        like: Gives the rows' dtype and device.
        tol: The largest gradient entry that is aimed at.
        overhead: What a pass costs besides its products, in multiplications and additions.
        at_once: Whether the first pass may collect the features' spectrum.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        *,
        like: Tensor,
        tol: float,
        overhead: float,
        at_once: bool = True,
    ) -> None:
        self._shape, self._like, self._tol, self._overhead = shape, like, tol, overhead
        self._at_once = at_once
        self.model: Curvature | None = None
        self._rows: Rows | None = None  # where they take the model's place
        self._masses = like.new_zeros(shape[0], dtype=torch.float64)  # Σ c p (1 - p) / Σ c, about
        self._on_rows, self._rows_factor = False, 1.0
        self._wanted = 0.0
        self._work = self._work_at_refresh = 0.0
        self._largest: list[float] = []  # gradient entry, of the accepted points since the refresh
        # Σ c, then Σ c x and Σ c x² a feature, of the first pass.
        self._sums = like.new_zeros(1 + 2 * (shape[1] - 1), dtype=torch.float64)
        self._known: Evaluation | None = None
        self._due: type[Curvature | Rows] | None = None
        self._collecting: Curvature | Rows | None = None

    @property
    def quasi_newton(self) -> bool:
        """Whether L-BFGS's pairs may rescale the model."""
        return self._rows is None and self.model is not None and self.model.quasi_newton

    def solve(self, gradient: Tensor) -> Tensor:
        """Model⁻¹ · gradient, as :meth:`Curvature.solve`."""
        assert self.model is not None
        return (self._rows or self.model).solve(gradient)

    @property
    def moments(self) -> Moments:
        """Of the first pass's rows."""
        width = self._shape[1]
        return Moments(float(self._sums[0]), self._sums[1:width], self._sums[width:])

    def begin(self, known: Evaluation | None, batches: float) -> None:
        """A pass begins; ``known`` is the best point's, ``batches`` those of all processes."""
        self._known, self._collecting = known, None
        if known is None:
            self._sums.zero_()
            self._batches = min(batches, UNKNOWN_BATCHES)
            few = Spectrum in LADDER and self._shape[1] <= MOST_AT_ONCE
            self._due = Spectrum if few and self._at_once else None
        else:
            self._due = self._choose(known)

    def add(self, x: Tensor, probs: Tensor, weights: Tensor | None) -> None:
        """A batch x (rows, features) passes, at probs (classes, rows) with weights (rows,)."""
        if len(x) == 0 or (self._known is not None and self._due is None):
            return
        squares = x.square()
        if self._known is None:
            c = x.new_ones(len(x)) if weights is None else weights.to(x.dtype)
            self._sums += torch.cat([c.sum()[None], c @ x, c @ squares]).double()
        if self._due is None:
            return
        if self._collecting is None:
            self._collecting = self._new(self._due, len(x))
        # Rare features, however small, are as much a part of the Hessian as common ones.
        moments = self.moments
        scale = torch.where(moments.squares > 0, moments.total / moments.squares, 0.0)
        unusual = squares @ scale.to(x.dtype) / x.shape[1]
        self._collecting.add(x, probs, 0.5 + 0.5 * unusual, weights)

    def end(self, evaluation: Evaluation) -> None:
        """All processes' rows have passed at this point."""
        if self._known is None:
            self._sums = summed(self._sums)
        self._work += self._pass_work(evaluation.rows)

    def accept(self, evaluation: Evaluation, l2: float, fits: bool) -> bool:
        """The pass's point is the best now; whether it brought another model into use.

        ``fits`` says whether the model in use was right about the step.
        """
        self._largest.append(float(evaluation.gradient.abs().max()))
        if self._on_rows and not fits:
            self._rows_factor *= 2
        before, self._rows, self._on_rows = self.model, None, self._due is Rows
        if self._on_rows:
            self._rows = self._finished_rows(evaluation, l2)
        elif self._due is not None:
            self.model = self._finished(self._due, evaluation, l2)
        elif self.model is None:
            self.model = Diagonal.of(self.moments, self._shape[0], l2)
        self._follow(evaluation.masses)
        self.model.follow(self._masses)
        if self.model is not before:
            self._work_at_refresh, self._largest = self._work, self._largest[-1:]
        return self._on_rows or self.model is not before

    def fall_back(self, l2: float) -> bool:
        """Take the model of bounded condition into use; whether it was another one."""
        if type(self.model) is Diagonal and not self._on_rows:
            return False
        self._rows, self._on_rows = None, False
        if type(self.model) is not Diagonal:
            self.model = Diagonal.of(self.moments, self._shape[0], l2)
            self.model.follow(self._masses)
        return True

    def _follow(self, masses: Tensor) -> None:
        """Of the point that is accepted.

        On the way to the optimum of well separated classes most rows are certain, some of them
        wrongly: the curvature that they will have once they turn over must not be forgotten.
        """
        self._masses = torch.maximum(masses, self._masses / MOST_FALL)

    def _finished_rows(self, evaluation: Evaluation, l2: float) -> Rows:
        rows = self._collecting or self._new(Rows, 1)
        self._collecting = None
        return rows.finish(self.model.at(evaluation.masses), evaluation.total_weight, l2, summed)

    def _finished(self, due: type[Curvature], evaluation: Evaluation, l2: float) -> Curvature:
        collected = self._collecting or self._new(due, 1)  # this process had no rows
        self._collecting = None
        if self.model is None:
            dear = due.factoring(*self._shape) > AT_ONCE * self._pass_work(evaluation.rows)
            if dear:
                return Diagonal.of(self.moments, self._shape[0], l2)
        try:
            return collected.finish(evaluation.total_weight, l2, summed)
        except FloatingPointError:  # of features too large for a product of two
            return self.model or Diagonal.of(self.moments, self._shape[0], l2)

    def _new(self, due: type[Curvature], rows: float) -> Curvature:
        """To collect a model with; ``rows`` are a batch's, of a pass about which nothing is known.

        Σ c (1 - Σ p²) and Σ c are the best point's, or as if p were 1/K.
        """
        num_classes = self._shape[0]
        if self._known is None:
            rows, total = rows * self._batches, float(self._sums[0]) * self._batches
            spread = total * (1 - 1 / num_classes)
        else:
            rows, total = self._known.rows, self._known.total_weight
            spread = self._known.spread
        if due is Rows:
            assert self._known is not None
            return Rows(self._shape, wanted=self._wanted, spread=spread, like=self._like)
        expected = due.mass(spread, total, num_classes)
        return due(*self._shape, expected=expected, rows=rows, like=self._like)

    def _pass_work(self, rows: float) -> float:
        return pass_work(*self._shape, rows) + self._overhead

    def _choose(self, known: Evaluation) -> type[Curvature] | None:
        """The model of the curvature to collect in the coming pass, if any."""
        if self.model is None:
            return None
        models = [model for model in LADDER if model.fits(*self._shape)]
        a_pass = self._pass_work(known.rows)
        ahead = self._passes_ahead() * a_pass
        present = LADDER.index(type(self.model))
        prices = [model.work(*self._shape, known.rows) for model in LADDER]
        dear = [prices[LADDER.index(model)] for model in models if not model.quasi_newton]
        chosen, price_of_chosen = None, math.inf
        saving = False  # for a better model: the same one again only where there is none
        for model in reversed(models):
            rank = LADDER.index(model)
            price = prices[rank]
            paid = a_pass + self._work - (self._work_at_refresh if rank == present else 0.0)
            again = rank == present and not model.quasi_newton and not saving
            saving |= rank > present and price < DEARER * prices[present]
            if (rank > present or again) and PATIENCE * price <= paid and price < ahead:
                chosen, price_of_chosen = model, price
                break
        self._wanted = self._rows_for_products(known, price_of_chosen, min(dear, default=math.inf))
        return Rows if self._wanted else chosen

    def _rows_for_products(self, known: Evaluation, chosen: float, dear: float) -> float:
        """How many rows to multiply with in place of a factored model, if any.

        Args:
            known: Of the best point.
            chosen: Price of the model that would be collected; infinite for none.
            dear: Price of the cheapest factored model.
        """
        if not isinstance(self.model, Spectrum):
            return 0.0
        rows, a_pass = known.rows, self._pass_work(known.rows)
        many = max(self._rows_factor * MANY_ROWS * self._shape[1], LEAST_ROWS * rows)
        if many <= MOST_ROWS / 2 * rows and pass_work(*self._shape, PRODUCTS * many) < chosen:
            return many
        few = self._rows_factor * FEW_ROWS * self.model.dimension(known.masses)
        waited = self._work > BEFORE_ROWS * a_pass and dear > MANY_PASSES * a_pass
        return few if waited and few <= MOST_ROWS * rows else 0.0

    def _passes_ahead(self) -> float:
        """How many more it takes at the rate since the last refresh; infinite while unknown."""
        largest = self._largest[-5:]
        if len(largest) < 5 or self._tol == 0 or not largest[-1] < largest[0]:
            return math.inf
        rate = math.log(largest[0] / largest[-1]) / (len(largest) - 1)
        return math.log(max(largest[-1] / self._tol, 1.0)) / rate

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps; the model, nearly all of it, is apart."""
        return {name: getattr(self, f"_{name}") for name in KEPT}

    def restore(self, state: dict[str, Any], model: dict[str, Any] | None) -> None:
        """Inverse of :meth:`state`, and of the model's."""
        for name in KEPT:
            setattr(self, f"_{name}", state[name])
        self.model = None if model is None else restored(model, *self._shape, self._like)
