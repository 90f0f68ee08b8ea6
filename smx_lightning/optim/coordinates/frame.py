"""Rows seen from their mean, where that is far from zero: W x + b = W (x - μ) + (b + W μ).

Of a feature around 10⁴ that varies by 1, four of float32's eight digits are left: sums of rows, as
gradient and curvature are, cannot tell its values apart, and its weight and the bias are all but
the same unknown. Seen from μ it is like any other; only b is still rounded where it is. W, its
penalty and the objective are the same in both views; of the gradient

    ∂f/∂W = Σ r (x - μ)ᵀ + (Σ r) μᵀ,    ∂f/∂b = Σ r

the former is the first term (r a row's residual, c (p - q) / Σ c).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from smx_lightning.optim.evaluation import Evaluation
from smx_lightning.optim.models.spectrum import Moments

FAR = 30  # standard deviations of a feature


class Frame(NamedTuple):
    """Where rows are seen from: ``origin`` is μ (features,) float64, or ``None`` for zero."""

    origin: Tensor | None = None

    @classmethod
    def of(cls, moments: Moments, dtype: torch.dtype) -> Frame:
        """The rows' mean, where one of the features is far from zero; to the digits of the rows."""
        mean = moments.mean
        variances = moments.squares / moments.total - mean.square()
        far = (mean.square() > FAR**2 * variances).any()
        return cls(mean.to(dtype).double() if far else None)

    def rows(self, x: Tensor) -> Tensor:
        """Their differences x - μ from there, (rows, features)."""
        return x if self.origin is None else x - self.origin.to(x.dtype)

    def shift(self, point: Tensor) -> Tensor:
        """W μ of a point (classes, features + 1), (classes,), where rows are seen from μ."""
        assert self.origin is not None
        return point[:, :-1] @ self.origin

    def shifted(self, point: Tensor) -> float:
        """By how much a bias differs there at most."""
        return 0.0 if self.origin is None else float(self.shift(point).abs().max())

    def inside(self, point: Tensor) -> Tensor:
        """With the bias b + W μ."""
        if self.origin is None:
            return point
        return torch.cat([point[:, :-1], (point[:, -1] + self.shift(point))[:, None]], 1)

    def outside(self, point: Tensor) -> Tensor:
        """Inverse of :meth:`inside`: weight and bias of the rows as they are."""
        if self.origin is None:
            return point
        return torch.cat([point[:, :-1], (point[:, -1] - self.shift(point))[:, None]], 1)

    def rounded(self, point: Tensor, dtype: torch.dtype) -> Tensor:
        """The point inside whose parameters are numbers of the dtype; of W first, then of b."""
        if self.origin is None:
            return point.to(dtype).double()
        weight = point[:, :-1].to(dtype).double()
        point = self.outside(torch.cat([weight, point[:, -1:]], 1))
        return self.inside(point.to(dtype).double())

    def gradient(self, evaluation: Evaluation) -> Evaluation:
        """The same evaluation with its gradient by the parameters themselves."""
        if self.origin is None:
            return evaluation
        gradient = evaluation.gradient.clone()
        gradient[:, :-1] += gradient[:, -1:] * self.origin
        return evaluation._replace(gradient=gradient)

    def bound(self, bound: Tensor) -> Tensor:
        """Of what bounds the gradient's columns (features + 1,) inside, the same outside."""
        if self.origin is None:
            return bound
        return torch.cat([bound[:-1] + self.origin.abs() * bound[-1], bound[-1:]])
