"""Products, factors and solutions of the dense matrices that model the curvature."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

HALVINGS = 2
LEAST_HALVED = 256  # columns
ALIGNED = 16  # entries: a cache line of float32


def add_gram(into: Tensor, rows: Tensor, halvings: int = HALVINGS) -> None:
    """Add ``rowsᵀ rows`` up to the diagonal, and little of what is above it: 5/8 of the work."""
    if halvings == 0 or rows.shape[1] < LEAST_HALVED:
        into.addmm_(rows.T, rows)
        return
    half = _half(rows.shape[1])
    left, right = rows[:, :half], rows[:, half:]
    add_gram(into[:half, :half], left, halvings - 1)
    add_gram(into[half:, half:], right, halvings - 1)
    into[half:, :half].addmm_(right.T, left)


def gram(rows: Tensor) -> Tensor:
    """``rowsᵀ rows``, all of it."""
    width = rows.shape[1]
    if width < LEAST_HALVED:
        return rows.T @ rows
    lower = rows.new_zeros(width, width)
    add_gram(lower, rows)
    return lower.tril_() + lower.tril(-1).T


def _half(width: int) -> int:
    return -(-width // (2 * ALIGNED)) * ALIGNED


def rows_like(rows: Tensor, count: int, width: int) -> Tensor:
    """Room for rows, each begun where a cache line does: products are a tenth faster."""
    return rows.new_empty(count, -(-width // ALIGNED) * ALIGNED)[:, :width]


def gram_work(width: int, halvings: int = HALVINGS) -> float:
    """Multiplications and additions of :func:`add_gram`, for each row of so many columns."""
    if halvings == 0 or width < LEAST_HALVED:
        return 2.0 * width**2
    half = _half(width)
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
