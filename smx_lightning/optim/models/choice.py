"""When to pay for a better model of the curvature.

As whoever rents skis buys them when the rent paid reaches their price, a richer model is collected
once the passes so far have cost about as much as it will. On small problems the price is below a
pass: every pass then takes the whole Hessian, which is Newton's method.

Products with the Hessian of some rows (:mod:`.rows`) take a model's place where

- a tenth of the rows are a hundred for each feature: that Hessian is right within a tenth, or
- the unknowns which the rows decide are fewer than the rows, and every matrix costs many passes.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

from smx_lightning.optim.evaluation import Evaluation
from smx_lightning.optim.models.hessians import LADDER
from smx_lightning.optim.models.sampling import Curvature, pass_work
from smx_lightning.optim.models.spectrum import Spectrum

PATIENCE = 0.5  # pay for new curvature when the passes so far have cost this much of its price
DEARER = 3  # times the present model's price: a better one is not saved for
PRODUCTS = 8  # with the Hessian of some rows, a step, about
MANY_ROWS = 100  # a feature
LEAST_ROWS = 0.1  # of all
FEW_ROWS = 1.5  # an unknown that the rows decide
MOST_FEW = 0.3  # of all, until these have been too few
MOST_DECIDED = 0.65  # such unknowns for each of all rows
MOST_ROWS = 0.5  # of all: with more a step costs several passes
MANY_PASSES = 20
BEFORE_ROWS = 2.5  # passes: where the first step saturates the softmax no row seems to matter
RECENT = 5  # passes that tell the present rate, …
TELLING = 3  # … or so many of them; by fewer …
FORESEEN = 25  # … no more passes ahead are foreseen than these, or than there have been
KEPT = (
    "passes",
    "work",
    "work_at_refresh",
    "largest",
    "objectives",
    "noise",
    "rows_factor",
    "waits",
)


class Due(NamedTuple):
    """What the coming pass is to collect: a model, or so many rows in its place, or nothing."""

    model: type[Curvature] | None = None
    rows: float = 0.0


class Choice:
    """The rent paid, and what it buys. All processes choose alike.

    Args:
        shape: (classes, features + 1).
        tol: The largest gradient entry that is aimed at.
        overhead: What a pass costs besides its products, in multiplications and additions.
    """

    def __init__(self, shape: tuple[int, int], *, tol: float, overhead: float) -> None:
        self._shape, self._tol, self._overhead = shape, tol, overhead
        self._passes = 0
        self._work = self._work_at_refresh = 0.0
        # Of the best point, after the last passes; the least that a gradient's largest entry was.
        self._objectives: list[float] = []
        self._largest: list[float] = []
        self._noise = 0.0  # what rounding does to the objective there
        self._rows_factor = 1.0
        self._waits = BEFORE_ROWS
        self._prices: dict[type[Curvature], float] = {}

    def pass_work(self, rows: float) -> float:
        """Multiplications and additions of a pass, about."""
        return pass_work(*self._shape, rows) + self._overhead

    def passed(self, rows: float) -> None:
        """A pass has been paid."""
        self._passes += 1
        self._work += self.pass_work(rows)
        self._objectives = [*self._objectives[-RECENT:], *(self._objectives[-1:] or [math.inf])]
        self._largest = [*self._largest[-RECENT:], *(self._largest[-1:] or [math.inf])]

    def accepted(self, point: Evaluation, noise: float) -> None:
        """A point was accepted, whose objective rounding moves by ``noise``."""
        self._objectives[-1], self._noise = point.objective, noise
        self._largest[-1] = min(self._largest[-1], point.largest)

    def refreshed(self) -> None:
        """Another model is in use."""
        self._work_at_refresh = self._work
        self._objectives, self._largest = self._objectives[-1:], self._largest[-1:]

    def too_few_rows(self) -> None:
        """A step along products with the Hessian of some rows was not what they promised."""
        self._rows_factor *= 2

    def expected(self) -> None:
        """The first step has been chosen so that it does not saturate the softmax."""
        self._waits = 0.0

    def choose(self, present: Curvature, known: Evaluation, change: float) -> Due:
        """For the coming pass.

        Args:
            present: The model in use.
            known: Of the best point.
            change: Σ |m - m'| / Σ m' of the classes' masses, since the model was collected.
        """
        if not self._prices:  # every pass has the same rows
            models = [model for model in LADDER if model.fits(*self._shape)]
            self._prices = {model: model.work(*self._shape, known.rows) for model in models}
        prices = self._prices
        chosen = self._paid(present, known, prices, change)
        rows = 0.0
        if isinstance(present, Spectrum):
            dear = [price for model, price in prices.items() if not model.quasi_newton]
            price = math.inf if chosen is None else prices[chosen]
            rows = self._rows(present, known, price, min(dear, default=math.inf))
        return Due(rows=rows) if rows else Due(chosen)

    def _paid(
        self,
        present: Curvature,
        known: Evaluation,
        prices: dict[type[Curvature], float],
        change: float,
    ) -> type[Curvature] | None:
        """The best model whose price has been paid, if it is a better one, or needs renewal."""
        a_pass = self.pass_work(known.rows)
        ahead = self._passes_ahead() * a_pass
        rank, price_of_present = LADDER.index(type(present)), prices[type(present)]
        # Each pass's own where one pays for it: Newton's method.
        stale = PATIENCE * price_of_present <= a_pass or not change <= present.renewed_after
        stale = stale and not present.quasi_newton
        saving = False  # for a better model: the same one again only where there is none
        for model, price in reversed(prices.items()):
            better, same = LADDER.index(model) > rank, model is type(present)
            paid = a_pass + self._work - (self._work_at_refresh if same else 0.0)
            again, worth_it = same and stale and not saving, price < ahead
            saving |= better and worth_it and price < DEARER * price_of_present
            if (better or again) and worth_it and PATIENCE * price <= paid:
                return model
        return None

    def _rows(self, present: Spectrum, known: Evaluation, price: float, dear: float) -> float:
        """How many rows to multiply with in place of a model, if any.

        Args:
            present: The model in use, which preconditions.
            known: Of the best point.
            price: Of the model that is paid for otherwise; infinite for none.
            dear: Price of the cheapest matrix.
        """
        rows, a_pass = known.rows, self.pass_work(known.rows)
        many = max(self._rows_factor * MANY_ROWS * self._shape[1], LEAST_ROWS * rows)
        if many <= MOST_ROWS / 2 * rows and pass_work(*self._shape, PRODUCTS * many) < price:
            return many
        decided = present.dimension(known.masses)
        few = self._rows_factor * min(FEW_ROWS * decided, MOST_FEW * rows)
        waited = self._work > self._waits * a_pass and dear > MANY_PASSES * a_pass
        # Twice as many as the most: those were too few.
        fits = decided <= MOST_DECIDED * rows and few < 2 * MOST_ROWS * rows
        return min(few, MOST_ROWS * rows) if waited and fits else 0.0

    def _passes_ahead(self) -> float:
        """How many more it takes at the present rate; infinite where that leads nowhere.

        What a pass gains falls as the gap does, and the gradient as its root. Its largest entry
        goes up and down too much to tell; where rounding hides what is gained, the least that it
        was does. The rate is that from the first half of the passes to the second.
        """
        told = self._largest
        if self._tol > 0 and len(self._objectives) > 2:
            gains = [before - after for before, after in pairwise(self._objectives)]
            if max(gains[0], gains[-1]) > self._noise:
                told = [math.sqrt(max(gain, 0.0)) for gain in gains]
        few = self._tol > 0 and len(self._objectives) <= TELLING
        most = max(FORESEEN, self._passes) if few else math.inf
        half = max(len(told) // 2, 1)
        early, late = sum(told[:half]), sum(told[-half:])
        if self._tol == 0 or len(told) < 2 or not 0 < late < early:
            return most
        rate = math.log(early / late) / (len(told) - half)
        return min(math.log(max(self._largest[-1] / self._tol, 1.0)) / rate, most)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {name: getattr(self, f"_{name}") for name in KEPT}

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        for name in state.keys() & set(KEPT):
            setattr(self, f"_{name}", state[name])
