"""One pass over the training rows: what the likelihood's derivatives at a point add up to.

Conventions
-----------
A row x (with a 1 appended for the bias, D = d + 1 entries) has the target distribution q, the
probabilities p, the row weight r and the class weight k, 1 where there are none. Unknowns are the
differences to the last class, v_k = w_k - w_K, which are ((K - 1) D,) together; of vectors over the
classes the last entry is left out. With c = r k

    gradient   g = Σ c (p - q) ⊗ x
    fisher     H = Σ c (diag(p) - p pᵀ) ⊗ x xᵀ
    scores     J = Σ a u uᵀ - g gᵀ / Σ a,    u = k (p - q) ⊗ x and a = r of frequencies,
                                             u = c (p - q) ⊗ x and a = 1 of sampling weights

H does not depend on the targets: it is the expected information as well as the observed one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from smx_lightning.errors import InputError
from smx_lightning.optim.evaluation import EpochSums, summed, weighted
from smx_lightning.optim.members import Softmax
from smx_lightning.optim.models.hessians import Whole

AT_ONCE = 2**22  # entries of p ⊗ x of the rows in one product: 32 MB


class TargetRows(NamedTuple):
    """Rows as the linear layer takes them, in float64: x (n, d), y (n,) or (n, K), weight (n,)."""

    x: Tensor
    y: Tensor
    weight: Tensor | None


@dataclass(frozen=True)
class Information:
    """The sums over all rows and processes; see the module.

    Attributes:
        gradient: g, ((K - 1) D,), without the penalty's.
        fisher: H.
        scores: J; ``None`` where nobody asked.
        total_weight: Σ c.
        rows: Σ r of frequencies, else how many rows weigh anything.
        separated: Whether each row has more than half of the probability on its one class.
        targets: (K,) what each class has of Σ c.
        extent: (D,) no magnitude of a feature is larger; at least 1 of the bias.
    """

    gradient: Tensor
    fisher: Tensor
    scores: Tensor | None
    total_weight: float
    rows: float
    separated: bool
    targets: Tensor
    extent: Tensor


class Sums:
    """Adds up the rows of this process.

    Args:
        point: (classes, features + 1) float64, the bias last.
        class_weight: (classes,) or ``None``.
        robust: Whether J is wanted.
        sampling: Whether row weights are those of sampling, and not frequencies.
    """

    def __init__(
        self, point: Tensor, class_weight: Tensor | None, *, robust: bool, sampling: bool
    ) -> None:
        self._point, self._class_weight, self._sampling = point, class_weight, sampling
        classes, width = point.shape
        self._sums = EpochSums((classes, width), point.device, Softmax())
        self._fisher = Whole(classes, width, expected=1.0, rows=1.0, like=point)
        unknowns = (classes - 1) * width
        self._scores = point.new_zeros(unknowns, unknowns) if robust else None
        self._rows = point.new_zeros(1)
        self._extent = point.new_ones(width)

    def add(self, rows: TargetRows) -> None:
        """Add a batch."""
        for part in _parts(rows, max(AT_ONCE // self._point.numel(), 1)):
            self._add(part)

    def _add(self, rows: TargetRows) -> None:
        x, r = rows.x, rows.weight
        y, k = weighted(rows.y, None, self._class_weight)
        ones = x.new_ones(len(x))
        r, k = (ones if part is None else part.double() for part in (r, k))
        at = Softmax().at(torch.addmm(self._point[:, -1:], self._point[:, :-1], x.T))
        self._fisher.add(x, at.probs, ones, r * k)
        if self._scores is not None:
            residual = at.probs - _distributions(y, len(self._point)).T
            u = residual[:-1] * (r * k if self._sampling else r.sqrt() * k)
            padded = torch.nn.functional.pad(x, (0, 1), value=1.0)
            products = (u[:, None] * padded.T).flatten(0, 1)
            self._scores.addmm_(products, products.T)
        self._rows += (r > 0).sum() if self._sampling else r.sum()
        if len(x):
            self._extent[:-1] = torch.maximum(self._extent[:-1], x.abs().amax(0))
        self._sums.add(x, at, y, r * k)  # at last: it writes over the probabilities

    def information(self) -> Information:
        """Of all processes together.

        Raises:
            InputError: Where there were no rows, or none that weighs anything.
        """
        evaluation = self._sums.evaluation(self._point[:, :-1], 0.0)
        gradient = evaluation.gradient[:-1].flatten() * evaluation.total_weight
        rows = float(summed(self._rows))
        scores = self._scores
        if scores is not None:
            scores = summed(scores).addr_(gradient, gradient, alpha=-1 / rows)
        return Information(
            gradient=gradient,
            fisher=summed(self._fisher.sums),
            scores=scores,
            total_weight=evaluation.total_weight,
            rows=rows,
            separated=evaluation.separated,
            targets=evaluation.targets,
            extent=summed(self._extent),
        )


def information_of(batches: Iterable[TargetRows], sums: Sums) -> Information:
    """One pass.

    Raises:
        InputError: For rows whose features are not finite, and without any.
    """
    for rows in batches:
        sums.add(rows)
    information = sums.information()
    if not (information.fisher.isfinite().all() and information.gradient.isfinite().all()):
        raise InputError(
            "expected finite features, got NaN or infinity in the training rows; remove or impute "
            "such rows"
        )
    return information


def _parts(rows: TargetRows, size: int) -> Iterator[TargetRows]:
    for at in range(0, len(rows.x), size):
        part = slice(at, at + size)
        weight = None if rows.weight is None else rows.weight[part]
        yield TargetRows(rows.x[part], rows.y[part], weight)


def _distributions(y: Tensor, num_classes: int) -> Tensor:
    """Targets as distributions (n, K) float64."""
    return y.double() if y.ndim == 2 else torch.nn.functional.one_hot(y, num_classes).double()
