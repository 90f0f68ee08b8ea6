"""Products, factors and solutions of the dense matrices that model the curvature."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

HALVINGS = 2
LEAST_HALVED = 256  # columns


def gram(rows: Tensor, halvings: int = HALVINGS) -> Tensor:
    """``rowsᵀ rows`` with little of the symmetric half computed twice: 5/8 of the work."""
    width = rows.shape[1]
    if halvings == 0 or width < LEAST_HALVED:
        return rows.T @ rows
    half = width // 2
    left, right = rows[:, :half], rows[:, half:]
    product = rows.new_empty(width, width)
    product[:half, :half] = gram(left, halvings - 1)
    product[half:, half:] = gram(right, halvings - 1)
    product[half:, :half] = right.T @ left
    product[:half, half:] = product[half:, :half].T
    return product


def gram_work(width: int, halvings: int = HALVINGS) -> float:
    """Multiplications and additions of :func:`gram`, for each row of so many columns."""
    if halvings == 0 or width < LEAST_HALVED:
        return 2.0 * width**2
    half = width // 2
    halves = gram_work(half, halvings - 1) + gram_work(width - half, halvings - 1)
    return halves + 2.0 * half * (width - half)


def joined(parts: Sequence[Tensor]) -> Tensor:
    """All rows; of a single part no copy."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def cholesky(matrix: Tensor) -> Tensor:
    """Lower factor of a matrix that may be singular: the diagonal grows until there is one.

    Cholesky's rounding is indifferent to the scaling of features (van der Sluis, 1969), so that the
    growth is relative, entry by entry.
    """
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    # Nothing was seen of these unknowns, and nothing penalises them: leave them where they are.
    unseen = diagonal <= 0
    diagonal.masked_fill_(unseen, 1.0)
    growth = 8 * torch.finfo(matrix.dtype).eps
    while True:
        diagonal.mul_(1 + growth)
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if not failed.any():
            return factor
        growth *= 32
        if not growth < 1:  # not even the diagonal dominates: not finite
            raise FloatingPointError("curvature is not finite")


def solved(factor: Tensor, right: Tensor) -> Tensor:
    """``(L Lᵀ)⁻¹ right`` in the factor's precision; answered in float64.

    Two triangular solves: ``cholesky_solve`` took ten times as long for one right-hand side.
    """
    right = right.to(factor.dtype)
    half = torch.linalg.solve_triangular(factor, right, upper=False)
    whole: Tensor = torch.linalg.solve_triangular(factor.mT, half, upper=True)
    return whole.double()
