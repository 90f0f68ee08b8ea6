"""Newton's method on some of the rows, by conjugate gradients: many unknowns, few of them decided.

No matrix is formed. With p the probabilities of a row x, weight c, the Hessian's product with V is

    u = V x,    h = c (p ∘ u - p ⟨p, u⟩),    Σ h xᵀ / Σ c + l2 · V  (the bias is not penalised)

at the price of a pass over as many rows as were kept; and in few directions alone, where the rows
may decide few: in the others the penalty has the most, and the metric is right. A row's share of
the Hessian has the trace c (1 - Σ p²) |x|², so that one of importance r goes in with probability
q = min(1, c (1 - Σ p²) r / τ), and then weighs c / q (Byrd, Chin, Neveitt & Nocedal, 2011).
:mod:`.spectrum` preconditions, and knows the directions.

Far from the optimum of classes that are well separated nearly all of W is what the penalty leaves
to it, and the rows decide few directions: about Σ m λ / (m λ + l2), over the classes' masses m and
the features' eigenvalues λ. About as many rows will do.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from smx_lightning.optim.models.sampling import Thresholds, doubt
from smx_lightning.optim.models.spectrum import Spectrum

MOST_PRODUCTS = 50
RESIDUAL = 0.3  # of the gradient, in the preconditioner's norm: few rows tell no more
PRODUCTS = 4  # mostly
DECIDED = 0.03  # of the penalty: with less curvature of the rows a direction is the penalty's


class Rows:
    """The Hessian of the rows that were kept, as products with it.

    Args:
        shape: (classes, features + 1).
        wanted: Rows to keep, over all processes, about.
        spread: Σ c (1 - Σ p²) over all rows, about.
        like: Gives dtype and device.
        one: What ends a row for the bias, as in :class:`.Curvature`.
    """

    chooses = True

    def __init__(
        self,
        shape: tuple[int, int],
        *,
        wanted: float,
        spread: float,
        like: Tensor,
        one: float = 1.0,
    ) -> None:
        classes, width = shape
        self._one = one
        self._threshold = max(spread / max(wanted, 1.0), torch.finfo(like.dtype).tiny)
        self._thresholds = Thresholds(like.device)
        none = (like.new_empty(0, width - 1), like.new_empty(classes, 0), like.new_empty(0))
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = [none]

    @torch.no_grad()
    def add(self, x: Tensor, probs: Tensor, importance: Tensor, row_weights: Tensor | None) -> None:
        """Choose from a batch, as :meth:`.Curvature.add`."""
        c = x.new_ones(len(x)) if row_weights is None else row_weights
        v = doubt(probs) * c
        probability = (v * (importance / self._threshold)).clamp(max=1)
        some = (probability >= self._thresholds.next(v)).nonzero()[:, 0]
        weights = c[some] / probability[some]
        # On a CPU x[some] takes five times as long.
        self._kept.append((x.index_select(0, some), probs.index_select(1, some), weights))

    def finish(
        self, metric: Spectrum, total_weight: float, l2: float, reduce: Callable[[Tensor], Tensor]
    ) -> None:
        """Get ready to solve: each process keeps its rows, and products are summed."""
        self._metric, self._l2, self._reduce = metric, l2, reduce
        self._total_weight = total_weight

    @torch.no_grad()
    def _gather(self) -> None:
        """Put the rows together, as they are or in the metric's leading directions.

        Not before they are asked: of the last pass nobody does.
        """
        x, probs, weights = zip(*self._kept, strict=True)
        self._kept = []
        self._probs, self._weights = torch.cat(probs, 1), torch.cat(weights) / self._total_weight
        self._narrow = self._deciding()
        if self._narrow is None:
            self._x = torch.cat(x)
            return
        metric = self._metric
        assert metric.vectors is not None
        vectors = metric.vectors[:, len(metric.mean) - self._narrow :]
        mean = metric.mean.to(vectors.dtype) @ vectors
        self._x = torch.cat([torch.addmm(-mean, rows, vectors) for rows in x])

    def _deciding(self) -> int | None:
        """How many of the metric's directions the rows decide; ``None`` where all are cheaper."""
        classes, width = len(self._probs), len(self._metric.mean)
        leading = self._metric.leading(DECIDED)
        # What turning the rows costs, and what products are spared by it.
        turning, spared = width * leading, 2 * PRODUCTS * classes * (width - leading)
        return None if self._metric.vectors is None or turning >= spared else leading

    def _product(self, direction: Tensor) -> Tensor:
        """The Hessian times a direction (classes, features + 1)."""
        u = torch.addmm(direction[:, -1:], direction[:, :-1], self._x.T)
        share = u.mul_(self._probs)
        share.addcmul_(self._probs, share.sum(0), value=-1).mul_(self._weights)
        ends = share.sum(1, keepdim=True).mul_(self._one)
        product = self._reduce(torch.cat([share @ self._x, ends], 1))
        product[:, :-1].add_(direction[:, :-1], alpha=self._l2)
        return product

    def solve(self, gradient: Tensor) -> Tensor:
        """Model⁻¹ · gradient, about, both (classes, features + 1) float64."""
        if self._kept:
            self._gather()
        if self._narrow is None:
            return self._conjugate(gradient, self._metric.solve)
        turned, scales = self._metric.turned(gradient), self._metric.scales
        answer = turned / scales
        last = slice(turned.shape[1] - self._narrow - 1, None)
        scales = scales[:, last].to(self._x.dtype)

        def better(rest: Tensor) -> Tensor:
            scaled = rest / scales
            return scaled - scaled.mean(0)

        answer[:, last] = self._conjugate(turned[:, last], better)
        return self._metric.turned_back(answer)

    def _conjugate(self, gradient: Tensor, solve: Callable[[Tensor], Tensor]) -> Tensor:
        """Conjugate gradients around ``solve``.

        Nocedal & Wright, "Numerical Optimization", 2006, algorithms 5.3 and 7.1.
        """
        dtype = self._x.dtype
        rest = gradient.to(dtype)
        answer = torch.zeros_like(rest)
        towards = better = solve(gradient).to(dtype)
        first = size = float((rest * better).sum())
        for _ in range(MOST_PRODUCTS):
            product = self._product(towards)
            curvature = float((towards * product).sum())
            if not curvature > 0:  # rounding has the upper hand
                break
            answer.add_(towards, alpha=size / curvature)
            rest = rest - (size / curvature) * product
            better = solve(rest).to(dtype)
            before, size = size, float((rest * better).sum())
            if not size > RESIDUAL**2 * first:
                break
            towards = better + (size / before) * towards
        return answer.double()
