"""Four models of the Hessian, from the cheapest to the exact one.

Conventions
-----------
A row x, with a 1 appended for the bias, has D = d + 1 entries; p are its probabilities at the
current point, c its weight. Its share of the Hessian of Σ c · nll is

    c · (diag(p) - p pᵀ) ⊗ x xᵀ  =  Σ_{j<k} c · p_j p_k · (e_j - e_k)(e_j - e_k)ᵀ ⊗ x xᵀ,

a Laplacian over the classes with one (D, D) Gram matrix for each pair.

=========== ============================= ============ =======================================
model       v of a row                    columns      what it leaves out
=========== ============================= ============ =======================================
Diagonal    c p_k (1 - p_k)               K            all but the diagonal
Shared      c (1 - Σ p²) / (K - 1)        1            that classes differ; exact where p = 1/K
PerClass    c p_k (1 - p_k)               K            the coupling of classes
Coupled     c p_j p_k                     K (K - 1)/2  nothing
=========== ============================= ============ =======================================

Shared at p = 1/K is Böhning's bound ("Multinomial logistic regression algorithm", 1992) up to its
factor. Adding the same vector to every class changes no prediction, so all of them answer with
directions that sum to zero over the classes, where the objective is strictly convex.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from typing_extensions import override

from smx_lightning.optim.curvature import Curvature, solved

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_ENTRIES = 2**26  # of a model: 256 MB in float32
MOST_SHARED = 2**27  # of the one matrix that Shared has: d up to 11584
MOST_COUPLED_CLASSES = 32  # 496 pairs


class Shared(Curvature):
    """One (D, D) matrix for all classes."""

    rows_per_unknown = 8.0

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
        return width**2 <= MOST_SHARED

    @staticmethod
    @override
    def follows(num_classes: int) -> bool:
        # An average over more classes is too small for some of them, and steps go too far.
        return num_classes == 2

    @override
    def mass(self, spread: float) -> float:
        return spread / (self.num_classes - 1)

    @override
    def weights(self, probs: Tensor) -> Tensor:
        return (1 - probs.square().sum(1, keepdim=True)) / (self.num_classes - 1)

    @override
    def solve(self, gradient: Tensor) -> Tensor:
        assert self.factor is not None
        return solved(self.factor[0], gradient.T).T


class PerClass(Curvature):
    """One (D, D) matrix a class."""

    rows_per_unknown = 10.0

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
        # For two classes both blocks are the same, and Shared has it.
        return num_classes > 2 and num_classes * width**2 <= MOST_ENTRIES

    @override
    def mass(self, spread: float) -> float:
        return spread

    @override
    def weights(self, probs: Tensor) -> Tensor:
        return probs * (1 - probs)

    @override
    def solve(self, gradient: Tensor) -> Tensor:
        assert self.factor is not None
        direction = solved(self.factor, gradient[:, :, None])[:, :, 0]
        return direction - direction.mean(0)


class Diagonal(PerClass):
    """One number a coefficient, of all rows: for features too many for a matrix."""

    @staticmethod
    @override
    def shape(num_classes: int, width: int) -> tuple[int, ...]:
        return (num_classes, width)

    @staticmethod
    @override
    def fits(num_classes: int, width: int) -> bool:
        return not Shared.fits(num_classes, width)

    @staticmethod
    @override
    def follows(num_classes: int) -> bool:
        return False  # too coarse to be worth L-BFGS's pairs

    @classmethod
    @override
    def work(cls, num_classes: int, width: int, rows: float) -> float:
        return 2 * rows * num_classes * width

    @torch.no_grad()
    @override
    def add(self, x: Tensor, probs: Tensor, importance: Tensor, row_weights: Tensor | None) -> None:
        v = self.weights(probs)
        if row_weights is not None:
            v = v * row_weights[:, None]
        self._grams[:, :-1] += v.T @ x.square()
        self._grams[:, -1] += v.sum(0)

    @override
    def finish(
        self, total_weight: float, l2: float, reduce: Callable[[Tensor], Tensor]
    ) -> Curvature:
        self._grams = reduce(self._grams).div_(total_weight)
        self._grams[:, :-1] += l2
        self._grams[self._grams <= 0] = 1.0
        self.factor = self._grams
        del self._grams
        return self

    @override
    def solve(self, gradient: Tensor) -> Tensor:
        assert self.factor is not None
        direction = gradient / self.factor.double()
        return direction - direction.mean(0)


class Coupled(Curvature):
    """The whole Hessian, in the differences to the last class: ((K - 1) D, (K - 1) D).

    With v_k = w_k - w_K the last class drops out, the first K - 1 block rows of the Laplacian stay,
    and ½ l2 ‖W‖², at its least over what is added to all classes, is ½ l2 Σ v (I - 11ᵀ / K) v.
    """

    rows_per_unknown = 16.0

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
        few = 2 < num_classes <= MOST_COUPLED_CLASSES
        return few and ((num_classes - 1) * width) ** 2 <= MOST_ENTRIES

    @override
    def mass(self, spread: float) -> float:
        return spread / 2

    @override
    def weights(self, probs: Tensor) -> Tensor:
        first, second = self._pairs()
        return probs[:, first] * probs[:, second]

    def _pairs(self) -> Tensor:
        return torch.triu_indices(self.num_classes, self.num_classes, 1, device=self._carry.device)

    def _blocks(self) -> Tensor:
        return self._grams.view(self.num_classes - 1, self.width, self.num_classes - 1, self.width)

    @override
    def deposit(self, column: int, gram: Tensor) -> None:
        first, second = self._pairs()[:, column].tolist()
        blocks = self._blocks()
        blocks[first, :, first] += gram
        if second < self.num_classes - 1:
            blocks[second, :, second] += gram
            blocks[second, :, first] -= gram  # the lower triangle: Cholesky reads no other

    @override
    def penalised(self, penalty: Tensor) -> Tensor:
        blocks = self._blocks()
        for row in range(self.num_classes - 1):
            for column in range(row + 1):
                share = (row == column) - 1 / self.num_classes
                blocks[row, :, column].diagonal().add_(penalty, alpha=share)
        return self._grams

    @override
    def solve(self, gradient: Tensor) -> Tensor:
        assert self.factor is not None
        differences = solved(self.factor, gradient[:-1].reshape(-1, 1))
        direction = torch.cat([differences.view(-1, self.width), gradient.new_zeros(1, self.width)])
        return direction - direction.mean(0)


# From the cheapest to the best.
LADDER: tuple[type[Curvature], ...] = (Diagonal, Shared, PerClass, Coupled)


def restored(state: dict[str, Any], num_classes: int, width: int) -> Curvature:
    """Inverse of :meth:`Curvature.state`."""
    model = next(cls for cls in LADDER if cls.__name__ == state["model"])
    factor: Tensor = state["factor"]
    curvature = model(num_classes, width, spread=1.0, rows=1.0, like=factor.new_zeros(()))
    curvature.factor = factor
    return curvature
