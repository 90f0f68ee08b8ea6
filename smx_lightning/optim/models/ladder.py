"""The models of the curvature, from the cheapest to the exact one: which is in use, and collecting.

A pass collects what :mod:`.choice` says; a point that is accepted brings it into use.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from smx_lightning.optim.evaluation import Evaluation, summed
from smx_lightning.optim.models.choice import Choice, Due
from smx_lightning.optim.models.hessians import LADDER, restored
from smx_lightning.optim.models.rows import Rows
from smx_lightning.optim.models.sampling import Curvature
from smx_lightning.optim.models.spectrum import Diagonal, Moments, Spectrum

MOST_AT_ONCE = 2048  # features and bias, of which the first pass collects the spectrum
AT_ONCE = 5.0  # passes that it may cost to be used at once: it saves more, mostly
UNKNOWN_BATCHES = 64  # in a pass whose length is not known
LEAST_AT_START = 0.1
MOST_FALL = 1.4  # of a class's mass from one point to the next
USUAL = 2.0  # up to there all rows may as well be taken for as unusual as the mean, 1
KEPT = ("masses", "collected_at", "expected", "on_rows", "sums", "usual")


class Ladder:
    """The model in use, and what the pass under way collects.

    Args:
        shape: (classes, features + 1).
        like: Gives the rows' dtype and device.
        tol: The largest gradient entry that is aimed at.
        overhead: What a pass costs besides its products, in multiplications and additions.
        at_once: Whether the first pass may collect the features' spectrum.
        scale: U of a row whose classes are all equal; 1 of softmax.
        intercept: Whether the bias moves. Where it does not, rows are seen from zero, not from
            their mean, and end in a 0 in place of the 1.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        *,
        like: Tensor,
        tol: float,
        overhead: float,
        at_once: bool = True,
        scale: float = 1.0,
        intercept: bool = True,
    ) -> None:
        self._shape, self._like, self._at_once = shape, like, at_once
        self._one = float(intercept)
        self._choice = Choice(shape, tol=tol, overhead=overhead)
        self.model: Curvature | None = None
        self._rows: Rows | None = None  # where they take the model's place
        self._on_rows = False  # whether they did at the best point
        # Σ c U w (1 - w) / Σ c, about; at a saturated start no less than a share of that at zero.
        at_zero = scale * (1 - 1 / shape[0]) / shape[0]
        self._masses = like.new_full((shape[0],), LEAST_AT_START * at_zero, dtype=torch.float64)
        # Σ c U w (1 - w) / Σ c where the model was collected.
        self._collected_at: Tensor | None = None
        self._expected: Tensor | None = None  # the same at the next pass's point, where known
        # Σ c, then Σ c x and Σ c x² a feature, of the first pass.
        self._sums = like.new_zeros(1 + 2 * (shape[1] - 1), dtype=torch.float64)
        self._moments: Moments | None = None
        self._usual = False  # whether a pass has found no row that is unusual
        self._most: Tensor | None = None  # how unusual the rows of this one are, at most
        self._known: Evaluation | None = None
        self._due = Due()
        self._collecting: Curvature | None = None
        self._collecting_rows: Rows | None = None

    @property
    def moments(self) -> Moments:
        """Of the first pass's rows, so far or all of them."""
        if self._moments is None:
            width = self._shape[1]
            sums = self._sums[1:width] * self._one
            self._moments = Moments(float(self._sums[0]), sums, self._sums[width:])
        return self._moments

    @property
    def quasi_newton(self) -> bool:
        """Whether L-BFGS's pairs may rescale what solves."""
        return self._rows is None and self.model is not None and self.model.quasi_newton

    def solve(self, gradient: Tensor) -> Tensor:
        """Model⁻¹ · gradient, both (classes, features + 1) float64."""
        assert self.model is not None
        return (self._rows or self.model).solve(gradient)

    # A pass ----------------------------------------------------------------------------------

    def begin(self, known: Evaluation | None, batches: float) -> None:
        """A pass begins; ``known`` is the best point's, ``batches`` those of all processes."""
        self._known, self._collecting, self._collecting_rows = known, None, None
        self._most = None
        if known is None:
            self._sums.zero_()
            self._moments = None
            self._batches = min(batches, UNKNOWN_BATCHES)
            few = Spectrum in LADDER and self._shape[1] <= MOST_AT_ONCE
            self._due = Due(Spectrum if few and self._at_once else None)
        else:  # without a model it has stopped
            if self._expected is not None:
                spread = float(self._expected.sum()) * known.total_weight
                known = known._replace(masses=self._expected, spread=spread)
                self._known, self._expected = known, None
            self._due = Due() if self.model is None else self._chosen(self.model, known)
        if known is not None and self._due.rows:
            self._collecting_rows = Rows(
                self._shape,
                wanted=self._due.rows,
                spread=known.spread,
                like=self._like,
                one=self._one,
            )

    def _chosen(self, model: Curvature, known: Evaluation) -> Due:
        before, change = self._collected_at, 0.0
        if before is not None:  # an earlier version's checkpoint does not tell
            change = float((known.masses - before).abs().sum() / before.sum())  # NaN of zeros
        # How far the coming point is from the one where the model was collected nobody knows.
        return self._choice.choose(model, known, change or math.inf)

    def add(
        self,
        x: Tensor,
        probs: Tensor,
        weights: Tensor | None,
        scale: Tensor | None = None,
        *,
        parts: int = 1,
    ) -> None:
        """A batch passes.

        Args:
            x: (rows, features).
            probs: w, (classes, rows).
            weights: c, (rows,) or ``None``.
            scale: U, (rows,); ``None`` for 1. It is part of the curvature, not of the features.
            parts: Of which this is one, together one of the batches of a pass.
        """
        if x.shape[0] == 0 or (self._known is not None and self._due == Due()):
            return
        squares = None
        if self._known is None:
            c = x.new_ones(x.shape[0]) if weights is None else weights
            squares = x.square()
            self._sums += torch.cat([c.sum()[None], c @ x, c @ squares]).double()
            self._moments = None
        if self._due.model is not None and self._collecting is None:
            self._collecting = self._new(self._due.model, x.shape[0], parts)
        collecting = self._collecting_rows or self._collecting
        if collecting is not None:
            chooses = collecting.chooses
            importance = self._importance(x, squares) if chooses else x.new_empty(0)
            if scale is not None and not isinstance(collecting, Spectrum):
                weights = scale if weights is None else scale * weights
            collecting.add(x, probs, importance, weights)

    def _importance(self, x: Tensor, squares: Tensor | None) -> Tensor:
        """How unusual each row's features are, (rows,), about 1.

        Rare features, however small, are as much a part of the Hessian as common ones.
        """
        if self._usual:  # it is the same in every pass, and costs a tenth of one
            return x.new_ones(x.shape[0])
        moments = self.moments
        scale = torch.where(moments.squares > 0, moments.total / moments.squares, 0.0)
        squares = x.square() if squares is None else squares
        importance = 0.5 + 0.5 / x.shape[1] * (squares @ scale.to(x.dtype))
        if self._known is not None:  # the moments are those of all rows
            most = importance.max()
            self._most = most if self._most is None else torch.maximum(self._most, most)
        return importance

    def expect(self, masses: Tensor) -> None:
        """Where the next pass evaluates Σ c U w (1 - w) / Σ c is about this, (classes,)."""
        self._expected = masses
        self._choice.expected()

    def end(self, rows: float) -> None:
        """All processes' rows have passed."""
        if self._known is None:
            self._sums, self._moments = summed(self._sums), None
        elif self._most is not None:
            self._usual = bool(self._most <= USUAL)
        self._choice.passed(rows)

    # A point ---------------------------------------------------------------------------------

    def accept(self, evaluation: Evaluation, l2: float, *, fits: bool, noise: float) -> bool:
        """The pass's point is the best now; whether it brought another model into use.

        ``fits`` says whether the model in use was right about the step, ``noise`` what rounding
        does to the objective.
        """
        self._choice.accepted(evaluation, noise)
        if self._on_rows and not fits:
            self._choice.too_few_rows()
        before = self.model
        if self._due.model is not None:
            self.model = self._finished(self._due.model, evaluation, l2)
        elif self.model is None:
            self.model = Diagonal.of(self.moments, self._shape[0], l2)
        assert self.model is not None
        # On the way to the optimum of well separated classes most rows are certain, some of them
        # wrongly: the curvature that they will have once they turn over must not be forgotten.
        self._masses = torch.maximum(evaluation.masses, self._masses / MOST_FALL)
        self.model.follow(self._masses)
        if self.model is not before:
            self._choice.refreshed()
            self._collected_at = evaluation.masses
        self._rows, self._on_rows = self._collecting_rows, self._collecting_rows is not None
        if self._rows is not None:
            metric = self.model.at(evaluation.masses)
            assert isinstance(metric, Spectrum)  # else no rows are chosen
            self._rows.finish(metric, evaluation.total_weight, l2, summed)
        return self._on_rows or self.model is not before

    def fall_back(self, l2: float) -> bool:
        """Take the model of bounded condition into use; whether it was another one."""
        if type(self.model) is Diagonal and not self._on_rows:
            return False
        self._rows, self._on_rows = None, False
        self.model = Diagonal.of(self.moments, self._shape[0], l2)
        self.model.follow(self._masses)
        return True

    def _finished(self, due: type[Curvature], evaluation: Evaluation, l2: float) -> Curvature:
        collected = self._collecting or self._new(due, 1)  # this process had no rows
        self._collecting = None
        if self.model is None:
            most = AT_ONCE * self._choice.pass_work(evaluation.rows)
            if due.factoring(*self._shape) > most:
                return Diagonal.of(self.moments, self._shape[0], l2)
        try:
            return collected.finish(evaluation.total_weight, l2, summed)
        except FloatingPointError:  # of features too large for a product of two
            return self.model or Diagonal.of(self.moments, self._shape[0], l2)

    def _new(self, due: type[Curvature], rows: float, parts: int = 1) -> Curvature:
        """To collect a model with.

        Of a pass about which nothing is known ``rows`` of the first of a batch's parts tell.

        Σ c (1 - Σ p²) and Σ c are the best point's, or as if p were 1/K.
        """
        num_classes = self._shape[0]
        if self._known is None:
            times = parts * self._batches
            rows, total = rows * times, float(self._sums[0]) * times
            spread = total * (1 - 1 / num_classes)
        else:
            rows, total = self._known.rows, self._known.total_weight
            spread = self._known.spread
        expected = due.mass(spread, total, num_classes)
        return due(*self._shape, expected=expected, rows=rows, like=self._like, one=self._one)

    # Checkpoints -----------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps; the model, nearly all of it, is apart.

        Rows are not kept: they have answered, and the next pass brings others.
        """
        return self._choice.state() | {name: getattr(self, f"_{name}") for name in KEPT}

    def restore(self, state: dict[str, Any], model: dict[str, Any] | None) -> None:
        """Inverse of :meth:`state`, and of the model's."""
        self._choice.restore(state)
        for name in state.keys() & set(KEPT):
            setattr(self, f"_{name}", state[name])
        self._moments = None
        self.model = None if model is None else restored(model, *self._shape, self._like)
