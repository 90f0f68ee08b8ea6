"""From sums over rows to standard errors, in any coding of the classes and any units.

Conventions
-----------
See :mod:`.information`. With λ = l2 Σ c, at the optimum

    A = H + λ (I - 11ᵀ / K) ⊗ diag(1, …, 1, 0)       of the objective, by v
    V = A⁻¹ M A⁻¹                                    the covariance of v

where M is H of the model's errors and J of robust ones. The penalty's part is ½ λ ‖W‖² at its least
over what is added to all classes. Without it V is H⁻¹ and White's H⁻¹ J H⁻¹.

Differences to a class and to the mean are T v, T (rows, K - 1). Units are x = s x' + m: the layer
behind sees x', so that w = w' / s and b = b' - Σ w' m / s, whose variance is aᵀ V a with
a = (-m / s, 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from smx_lightning.coefficients.information import Information

# 1 - R² of an unknown on those before it, at the curvature's weights: less is rounding.
LEAST_PIVOT = 1e-11
# Where a pivot is less, A⁻¹ M A⁻¹ shows the rounding of M, 1e-16 over the pivot's square.
DIRECT = 1e-4
# Eigenvalues of H, scaled, relative to the largest: below the first they are 0 but for rounding,
# above the second they have digits, and between them nobody knows.
NOTHING, SOMETHING = 1e-14, 1e-12


@dataclass(frozen=True)
class Factored:
    """A, scaled so that its diagonal is 1, as L Lᵀ.

    Attributes:
        lower: L.
        scale: (unknowns,) 1 / √diagonal of A.
        singular: The first unknown that those before it determine; ``None`` where there is none.
        smallest: The unknown of the least pivot, which those before it determine the most.
        least_pivot: 1 - R² of it.
    """

    lower: Tensor
    scale: Tensor
    singular: int | None
    smallest: int
    least_pivot: float

    def solved(self, right: Tensor) -> Tensor:
        """A⁻¹ right, (unknowns, columns)."""
        scaled = torch.cholesky_solve(self.scale[:, None] * right, self.lower)
        return scaled.mul_(self.scale[:, None])

    def least_distance(self, gradient: Tensor) -> float:
        """The largest |g| / √diagonal of A: at most :meth:`distance`, and A need have no factor."""
        return float((self.scale * gradient).abs().max())

    def distance(self, gradient: Tensor) -> float:
        """√(gᵀ A⁻¹ g), the Newton decrement of the sum over rows.

        By Cauchy and Schwarz a Newton step moves no linear combination u of the unknowns by more
        than that times √(uᵀ A⁻¹ u), which without a penalty is its standard error.
        """
        right = (self.scale * gradient)[:, None]
        return float(torch.linalg.solve_triangular(self.lower, right, upper=False).norm())

    def sandwich(self, meat: Tensor | None) -> Tensor:
        """A⁻¹ M A⁻¹; A⁻¹ where ``meat`` is ``None``."""
        if meat is None:
            inverse = torch.cholesky_inverse(self.lower)
            return inverse.mul_(self.scale).mul_(self.scale[:, None])
        return self.solved(self.solved(meat).T)


def factored(information: Information, l2: float) -> Factored:
    """A of a penalty's weight ``l2``, which is per unit of Σ c."""
    classes = len(information.targets)
    bread = information.fisher.clone()
    _penalise(bread, classes, l2 * information.total_weight)
    unseen = (bread.diagonal() <= 0).nonzero().flatten().tolist()
    scale = bread.diagonal().clamp(min=torch.finfo(bread.dtype).tiny).rsqrt()
    lower, failed = torch.linalg.cholesky_ex(bread.mul_(scale).mul_(scale[:, None]))
    pivots = lower.diagonal().square()
    small = (pivots < LEAST_PIVOT).nonzero().flatten().tolist()
    first = [*unseen, *([int(failed) - 1] if failed else small)]
    smallest = int(pivots.argmin())
    least = float(pivots[smallest])
    return Factored(lower, scale, min(first) if first else None, smallest, least)


def _penalise(matrix: Tensor, classes: int, strength: float) -> None:
    """Add λ (I - 11ᵀ / K) ⊗ diag(1, …, 1, 0) in place."""
    if not strength:
        return
    width = len(matrix) // (classes - 1)
    shares = torch.eye(classes - 1, dtype=matrix.dtype, device=matrix.device) - 1 / classes
    blocks = matrix.view(classes - 1, width, classes - 1, width)
    diagonal = blocks.diagonal(dim1=1, dim2=3)[..., :-1]  # the bias is free
    diagonal += (strength * shares)[:, :, None]


def covariance(
    information: Information, bread: Factored, meat: Tensor | None, l2: float
) -> Tensor | None:
    """V = A⁻¹ M A⁻¹; A⁻¹ where ``meat`` is ``None``.

    Of a small penalty A⁻¹ M A⁻¹ is huge where the rows say nothing, as of features that others
    determine, and M is zero there but for rounding. In eigenvectors of H, Z = (R, N) with H N = 0,
    M N = 0 as well, and V is what is left of the blocks, without any quotient of small numbers:

        S = Zᵀ λP Z,  Y = R - N S_nn⁻¹ S_nr,  V = Y C⁻¹ (Rᵀ M R) C⁻¹ Yᵀ,
        C = Rᵀ H R + S_rr - S_rn S_nn⁻¹ S_nr.

    Returns:
        V, or ``None`` where float64 cannot tell whether the rows say something.
    """
    if meat is None or not l2 or bread.least_pivot > DIRECT:
        return bread.sandwich(meat)
    fisher, own = information.fisher, information.fisher.diagonal()
    penalty = torch.zeros_like(fisher)
    _penalise(penalty, len(information.targets), l2 * information.total_weight)
    seen = own > NOTHING * penalty.diagonal()
    scale = torch.where(seen, own.clamp(min=torch.finfo(own.dtype).tiny).rsqrt(), bread.scale)
    penalty.mul_(scale).mul_(scale[:, None])
    values, vectors = torch.linalg.eigh((scale[:, None] * fisher).mul_(scale))
    nothing = values <= NOTHING * values[-1]
    known, unknown = vectors[:, ~nothing], vectors[:, nothing]
    shrunk = penalty @ known
    held = values[~nothing] + (known * shrunk).sum(0)
    unsure = values[~nothing] < SOMETHING * values[-1]
    if (held[unsure] < SOMETHING**0.5 * values[-1]).any():
        return None
    lift = -torch.linalg.solve(unknown.T @ penalty @ unknown, unknown.T @ shrunk)
    curvature = known.T @ shrunk + shrunk.T @ unknown @ lift
    curvature.diagonal().add_(values[~nothing])
    spread = torch.linalg.solve(curvature, (known + unknown @ lift).T).T
    scaled = (scale[:, None] * meat).mul_(scale)
    answer: Tensor = spread @ (known.T @ scaled @ known) @ spread.T
    answer.mul_(scale).mul_(scale[:, None])
    return answer


def contrasts(num_classes: int, reference: int | None) -> Tensor:
    """T (rows, K): differences to a class, of all others, or to the mean, of all."""
    whole = torch.eye(num_classes, dtype=torch.float64)
    if reference is None:
        return whole - 1 / num_classes
    rows = [k for k in range(num_classes) if k != reference]
    return whole[rows] - whole[reference]


@dataclass(frozen=True)
class Units:
    """x = spread · x' + centre, both (features,) float64: the layer sees x'."""

    centre: Tensor
    spread: Tensor

    def estimate(self, point: Tensor) -> Tensor:
        """A point (rows, features + 1), the bias last, as (rows, 1 + features) in these units."""
        weight = point[:, :-1] / self.spread
        bias = point[:, -1] - weight @ self.centre
        return torch.cat([bias[:, None], weight], 1)

    def std_error(self, covariance: Tensor, coding: Tensor) -> Tensor:
        """Of T v, (rows, 1 + features), in these units.

        Args:
            covariance: V, (unknowns, unknowns).
            coding: T, (rows, K); 1ᵀ Tᵀ = 0, so that the last class drops out.
        """
        coding = coding[:, :-1]
        classes, width = coding.shape[1], len(self.centre) + 1
        blocks = covariance.view(classes, width, classes, width)
        own = torch.einsum(
            "ak,klj,al->aj", coding, blocks.diagonal(dim1=1, dim2=3)[..., :-1], coding
        )
        towards = torch.cat([-self.centre / self.spread, self.centre.new_ones(1)])
        biases = torch.einsum("kilj,j->kil", blocks, towards)
        biases = torch.einsum("ak,kil,i,al->a", coding, biases, towards, coding)
        variances = torch.cat([biases[:, None], own / self.spread.square()], 1)
        return variances.clamp(min=0).sqrt()  # 0 of what only the penalty decides
