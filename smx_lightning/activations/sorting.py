"""Thresholds in closed form, of sorted scores: the quickest where there are few.

Of the k largest z the threshold τₖ at which they alone have the sum 1 is at most the threshold of
all, as others only add to the sum; and it is that of all where they are the support. So of those
supports that have no class below their threshold the right one has the largest.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sorted_sparsemax(z: Tensor, dim: int, *, precise: bool) -> list[Tensor]:
    """The τ of Σ relu(z - τ) = 1 (Held, Wolfe & Crowder 1974): the largest (Σ zᵢ - 1) / k.

    A support with a class below its threshold has a smaller one than without that class.

    Args:
        z: Any shape.
        dim: Where the classes are.
        precise: Whether τ is wanted as a sum of two, the second what the first has no digits for.

    Returns:
        The one or two.
    """
    counts = _counts(z, dim)
    ordered, found = z.sort(dim, descending=True).values, []
    for _ in range(1 + precise):
        sums = ordered.cumsum(dim)
        found.append(sums.sub_(1).div_(counts).amax(dim, keepdim=True))
        if precise:
            ordered.sub_(found[-1])
    return found


def sorted_entmax15(z: Tensor, dim: int) -> Tensor:
    """The τ of Σ relu(z - τ)² = 1 (Peters, Niculae & Martins 2019), z at most 0."""
    largest = z.sort(dim, descending=True).values
    counts = _counts(z, dim)
    sums, squares = largest.cumsum(dim), largest.square().cumsum(dim)
    # k τ² - 2 τ Σz + Σz² - 1 = 0, its lower root
    root = torch.addcmul(sums.square(), counts, squares.sub_(1), value=-1).relu_().sqrt_()
    tau = sums.sub_(root).div_(counts)
    inside = tau <= largest  # of minus infinity neither is so
    return tau.masked_fill_(inside.logical_not_(), -1.0).amax(dim, keepdim=True)


def _counts(z: Tensor, dim: int) -> Tensor:
    """1, 2, … along ``dim``."""
    numbers = torch.arange(1, z.shape[dim] + 1, dtype=z.dtype, device=z.device)
    behind = z.ndim - 1 - dim % z.ndim
    return numbers.view(-1, *[1] * behind) if behind else numbers
