"""The models of the Hessian, from the cheapest to the exact one.

Conventions
-----------
A row x, with a 1 appended for the bias, has D = d + 1 entries; p are its probabilities at the
current point, c its weight. Its share of the Hessian of Σ c · nll is

    c · (diag(p) - p pᵀ) ⊗ x xᵀ  =  Σ_{j<k} c · p_j p_k · (e_j - e_k)(e_j - e_k)ᵀ ⊗ x xᵀ,

a Laplacian over the classes with one (D, D) Gram matrix for each pair.

=========== ============================= ============ =======================================
model       v of a row                    columns      what it leaves out
=========== ============================= ============ =======================================
Diagonal    c                             1            all but the features' variances
Spectrum    c                             1            that rows differ in p, classes' coupling
PerClass    c p_k (1 - p_k)               K            classes' coupling
Coupled     c p_j p_k                     K (K - 1)/2  nothing, but for the rows left out
Whole                                                  nothing
=========== ============================= ============ =======================================

The first two are in :mod:`.spectrum`. Adding the same vector to every class changes no prediction,
so all of them answer with directions that sum to zero over the classes, where the objective is
strictly convex.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from smx_lightning.optim.models.dense import gram, solved
from smx_lightning.optim.models.sampling import MOST_ENTRIES, PENDING_ENTRIES, Curvature, complement
from smx_lightning.optim.models.spectrum import Diagonal, Spectrum

MOST_COUPLED_CLASSES = 32  # 496 pairs


class PerClass(Curvature):
    """One (D, D) matrix a class."""

    rows_per_unknown = 10.0
    renewed_after = 0.05

    @staticmethod
    @override
    def columns(num_classes: int) -> int:
        return num_classes

    @staticmethod
    @override
    def shape(num_classes: int, width: int) -> tuple[int, ...]:
        return (num_classes, width, width)

    @staticmethod
    @override
    def fits(num_classes: int, width: int) -> bool:
        # For two classes both blocks are the same, and Coupled has it.
        return num_classes > 2 and num_classes * width**2 <= MOST_ENTRIES

    @staticmethod
    @override
    def mass(spread: float, total: float, num_classes: int) -> float:
        return spread

    @override
    def weights(self, probs: Tensor) -> Tensor:
        return probs * complement(probs)

    @override
    def solve(self, gradient: Tensor) -> Tensor:
        assert self.factor is not None
        direction = solved(self.factor, gradient[:, :, None])[:, :, 0]
        return direction - direction.mean(0)


class Coupled(Curvature):
    """The whole Hessian, in the differences to the last class: ((K - 1) D, (K - 1) D).

    With v_k = w_k - w_K the last class drops out, the first K - 1 block rows of the Laplacian stay,
    and ½ l2 ‖W‖², at its least over what is added to all classes, is ½ l2 Σ v (I - 11ᵀ / K) v.
    """

    rows_per_unknown = 16.0
    renewed_after = 0.02

    @staticmethod
    @override
    def columns(num_classes: int) -> int:
        return num_classes * (num_classes - 1) // 2

    @staticmethod
    @override
    def shape(num_classes: int, width: int) -> tuple[int, ...]:
        return ((num_classes - 1) * width, (num_classes - 1) * width)

    @classmethod
    @override
    def unknowns(cls, num_classes: int, width: int) -> float:
        return (num_classes - 1) * width

    @staticmethod
    @override
    def fits(num_classes: int, width: int) -> bool:
        few = num_classes <= MOST_COUPLED_CLASSES
        return few and ((num_classes - 1) * width) ** 2 <= MOST_ENTRIES

    @staticmethod
    @override
    def mass(spread: float, total: float, num_classes: int) -> float:
        return spread / 2

    @override
    def weights(self, probs: Tensor) -> Tensor:
        first, second = self._pairs()
        return probs[first] * probs[second]

    def _pairs(self) -> Tensor:
        return torch.triu_indices(self.num_classes, self.num_classes, 1, device=self._like.device)

    def _blocks(self) -> Tensor:
        return self._grams.view(self.num_classes - 1, self.width, self.num_classes - 1, self.width)

    @override
    def deposit(self, column: int, rows: Tensor) -> None:
        first, second = self._pairs()[:, column].tolist()
        blocks, block = self._blocks(), gram(rows)
        blocks[first, :, first] += block
        if second < self.num_classes - 1:
            blocks[second, :, second] += block
            blocks[second, :, first] -= block  # the lower triangle: Cholesky reads no other

    @override
    def penalised(self, penalty: Tensor) -> Tensor:
        shares = torch.eye(self.num_classes - 1, dtype=penalty.dtype, device=penalty.device)
        shares -= 1 / self.num_classes
        self._blocks().diagonal(dim1=1, dim2=3).add_(shares[:, :, None] * penalty)
        return self._grams

    @override
    def solve(self, gradient: Tensor) -> Tensor:
        assert self.factor is not None
        differences = solved(self.factor, gradient[:-1].reshape(-1, 1))
        direction = torch.cat([differences.view(-1, self.width), gradient.new_zeros(1, self.width)])
        return direction - direction.mean(0)


class Whole(Coupled):
    """The whole Hessian of all rows, in one product of p ⊗ x with itself: no pair is looked at."""

    renewed_after = 0.0

    @staticmethod
    @override
    def fits(num_classes: int, width: int) -> bool:
        return ((num_classes - 1) * width) ** 2 <= MOST_ENTRIES

    @classmethod
    @override
    def rows_wanted(cls, num_classes: int, width: int, rows: float) -> float:
        return math.inf

    @classmethod
    @override
    def work(cls, num_classes: int, width: int, rows: float) -> float:
        unknowns = cls.unknowns(num_classes, width)
        return 2 * rows * unknowns**2 + cls.factoring(num_classes, width)

    @property
    def sums(self) -> Tensor:
        """Σ c (diag(p) - p pᵀ) ⊗ x xᵀ of the rows so far, ((K - 1) D, (K - 1) D)."""
        return self._grams

    @torch.no_grad()
    @override
    def add(self, x: Tensor, probs: Tensor, importance: Tensor, row_weights: Tensor | None) -> None:
        step = max(PENDING_ENTRIES // (self.num_classes * self.width), 1)
        ones = torch.nn.functional.pad(x, (0, 1), value=self.one)
        for at in range(0, x.shape[0], step):
            part = slice(at, at + step)
            c = None if row_weights is None else row_weights[part]
            self._add_all(ones[part].T, probs[:, part], c)

    def _add_all(self, rows: Tensor, probs: Tensor, c: Tensor | None) -> None:
        """Σ c (diag(p) - p pᵀ) ⊗ x xᵀ of every row, the last class left out.

        Args:
            rows: x, (D, rows).
            probs: (K, rows).
            c: (rows,), or ``None`` for ones.
        """
        classes = self.num_classes - 1
        scaled = (probs[:classes, None] * rows).flatten(0, 1)
        # The blocks on the diagonal apart: as p - p² little would be left of them where p is 1.
        v = (probs * complement(probs))[:classes, None]
        v, weighted = (v, scaled) if c is None else (v * c, scaled * c)
        product = weighted @ scaled.T
        own = (v * rows) @ rows.T
        view = product.view(classes, self.width, classes, self.width)
        view.diagonal(dim1=0, dim2=2).copy_(-own.permute(1, 2, 0))
        self._grams -= product


# From the cheapest to the best.
LADDER: tuple[type[Curvature], ...] = (Diagonal, Spectrum, PerClass, Coupled, Whole)


def restored(state: dict[str, Any], num_classes: int, width: int, like: Tensor) -> Curvature:
    """Inverse of :meth:`Curvature.state`; ``like`` gives dtype and device."""
    model = next(cls for cls in LADDER if cls.__name__ == state["model"])
    curvature = model(num_classes, width, expected=1.0, rows=1.0, like=like)
    curvature.restore(state)
    return curvature
