"""The first models of the curvature: one for all classes, scaled by each class's own share.

Conventions
-----------
With the Hessian's coupling of classes left out, and a row's p_k (1 - p_k) replaced by its mean m_k
over the rows, class k's block is m_k · S, S = Σ c x xᵀ / Σ c with a 1 appended to x. Seen from the
rows' mean μ, that is with b + W μ in place of b, S falls into the covariance C of the features and
a 1 for the bias. C = Q Λ Qᵀ is decomposed once; the m_k are of the present point, sums of the
last pass, so that the model follows the point at no cost:

    direction_W = Q (m_k Λ + l2)⁻¹ Qᵀ (g_W - g_b μᵀ),    direction_b = g_b / m_k - direction_W μ

Diagonal leaves Q out and takes the variances for Λ; Spectrum has it. Λ and the m_k are bounded from
below, in proportion to their largest: so is the model's condition, whatever the data.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from smx_lightning.errors import InputError
from smx_lightning.optim.models.sampling import MOST_ENTRIES, Curvature

LEAST_MASS = 1e-6  # of the largest class's
LEAST_MASS_AT = 1e-3
LEAST_LARGEST = 1e-12
EIGEN = 10.0  # D³ times this is what an eigendecomposition costs, in units of fast products, about


@dataclass(frozen=True)
class Moments:
    """Of the rows of one pass: Σ c, Σ c x and Σ c x² a feature, float64."""

    total: float
    sums: Tensor
    squares: Tensor

    def check(self, dtype: torch.dtype) -> None:
        """Complain about rows that are not finite, or whose squares are not.

        Raises:
            InputError: With the first such feature.
        """
        wrong = (~(self.squares.isfinite() & self.sums.isfinite())).nonzero()[:, 0]
        if len(wrong):
            name = str(dtype).removeprefix("torch.")
            raise InputError(
                f"expected features whose squares are finite in {name}, got NaN, infinity or a "
                f"larger number in feature {int(wrong[0])}; look for missing values, or scale it"
            )

    @property
    def mean(self) -> Tensor:
        """Of each feature, (features,)."""
        return self.sums / self.total

    @cached_property
    def typical(self) -> Tensor:
        """Root mean squares, (features + 1,), 1 for the bias."""
        squares = self.squares / self.total
        return torch.cat([squares, squares.new_ones(1)]).sqrt()


def _from_below(masses: Tensor, least: float) -> Tensor:
    """No mass less than ``least`` times the largest."""
    return masses.clamp(min=least * max(float(masses.max()), LEAST_LARGEST))


class Spectrum(Curvature):
    """Λ are the eigenvalues of the covariance of a sample of the rows."""

    rows_per_unknown = 20.0
    quasi_newton = True
    mean: Tensor
    values: Tensor
    vectors: Tensor | None = None
    _masses: Tensor | None = None

    @staticmethod
    @override
    def columns(num_classes: int) -> int:
        return 1

    @staticmethod
    @override
    def shape(num_classes: int, width: int) -> tuple[int, ...]:
        return (1, width, width)

    @staticmethod
    @override
    def fits(num_classes: int, width: int) -> bool:
        return width**2 <= MOST_ENTRIES

    @classmethod
    @override
    def factoring(cls, num_classes: int, width: int) -> float:
        return EIGEN * width**3

    @staticmethod
    @override
    def mass(spread: float, total: float, num_classes: int) -> float:
        return total

    @override
    def weights(self, probs: Tensor) -> Tensor:
        return torch.ones_like(probs[:1])

    @override
    def factored(self, total_weight: float, l2: float) -> None:
        second = self._grams[0] / self._grams[0, -1, -1] if self.one else self._grams[0]
        mean = second[-1, :-1]  # the lower triangle: eigh reads no other
        values, self.vectors = torch.linalg.eigh(second[:-1, :-1] - mean[:, None] * mean)
        self._set(mean.double(), values.double(), l2, torch.finfo(second.dtype).eps)

    def _set(self, mean: Tensor, values: Tensor, l2: float, epsilon: float) -> None:
        least = 8 * epsilon * float(values.max())
        self.mean, self.values = mean, values.clamp(min=least if least > 0 else 1.0)
        self.l2 = l2

    @override
    def follow(self, masses: Tensor) -> None:
        self._masses = _from_below(masses, LEAST_MASS)

    @override
    def at(self, masses: Tensor) -> Spectrum:
        """The same model at these masses, which are no further apart than conjugate gradients like.

        Not the present ones' successors: those may fall slowly only.
        """
        model = copy.copy(self)
        model._masses = _from_below(masses, LEAST_MASS_AT)
        return model

    def dimension(self, masses: Tensor) -> float:
        """The trace of H (H + l2)⁻¹, the unknowns that the rows decide rather than the penalty."""
        data = masses[:, None] * self.values
        return float((data / (data + self.l2)).sum())

    def leading(self, least: float) -> int:
        """How many of the last directions some class's rows have ``least`` · l2 or more of.

        Eigenvalues rise: the others are the first ones, and what the penalty leaves of them.
        """
        assert self._masses is not None
        data = float(self._masses.max()) * self.values
        return int((data >= least * self.l2).sum())

    @override
    def solve(self, gradient: Tensor) -> Tensor:
        return self.turned_back(self.turned(gradient) / self.scales)

    @property
    def scales(self) -> Tensor:
        """The model along its directions and for the bias, (classes, features + 1)."""
        assert self._masses is not None
        masses = self._masses[:, None]
        return torch.cat([masses * self.values + self.l2, masses], 1)

    def turned(self, gradient: Tensor) -> Tensor:
        """A gradient along the model's directions, features seen from their mean, of its shape."""
        rest, bias = gradient[:, :-1] - gradient[:, -1:] * self.mean, gradient[:, -1:]
        if self.vectors is not None:
            rest = (rest.to(self.vectors.dtype) @ self.vectors).double()
        return torch.cat([rest, bias], 1)

    def turned_back(self, direction: Tensor) -> Tensor:
        """What is to be added to the parameters, of a step along the model's directions."""
        rest, bias = direction[:, :-1], direction[:, -1]
        if self.vectors is not None:
            rest = (rest.to(self.vectors.dtype) @ self.vectors.T).double()
        direction = torch.cat([rest, (bias - rest @ self.mean)[:, None]], 1)
        return direction - direction.mean(0)

    @override
    def state(self) -> dict[str, Any]:
        kept = {"mean": self.mean, "values": self.values, "vectors": self.vectors}
        return {"model": type(self).__name__, "l2": self.l2, "masses": self._masses, **kept}

    @override
    def restore(self, state: dict[str, Any]) -> None:
        self.mean, self.values, self.vectors = (
            state[name] for name in ("mean", "values", "vectors")
        )
        self.l2, self._masses = state["l2"], state["masses"]


class Diagonal(Spectrum):
    """Λ are the features' variances: known from the first pass on, for any number of features."""

    @staticmethod
    @override
    def fits(num_classes: int, width: int) -> bool:
        return True

    @classmethod
    @override
    def work(cls, num_classes: int, width: int, rows: float) -> float:
        return 0.0

    @classmethod
    def of(cls, moments: Moments, num_classes: int, l2: float) -> Diagonal:
        """The model of rows with these moments."""
        mean = moments.mean
        model = cls(num_classes, len(mean) + 1, expected=1.0, rows=1.0, like=mean)
        values = moments.squares / moments.total - mean.square()
        model._set(mean, values, l2, torch.finfo(values.dtype).eps)
        return model
