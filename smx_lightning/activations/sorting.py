"""Thresholds in closed form, of sorted scores: the quickest where there are few.

Of the k largest z the threshold τₖ at which they alone have the sum 1 is that of all where they are
the support. With fewer it is at most that, as others only add to the sum. With more it may be more,
but then the last of them is at most the threshold, and is taken in its place.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sorted_sparsemax(z: Tensor, dim: int) -> Tensor:
    """The τ of Σ relu(z - τ) = 1 (Held, Wolfe & Crowder 1974): the largest (Σ zᵢ - 1) / k.

    A class below the threshold makes it smaller.

    Args:
        z: Any shape, the largest of each row 0.
        dim: Where the classes are.
    """
    sums = _ordered(z, dim).cumsum(dim)
    return sums.sub_(1).div_(_counts(z, dim)).amax(dim, keepdim=True)


def sorted_entmax15(z: Tensor, dim: int) -> Tensor:
    """The τ of Σ relu(z - τ)² = 1 (Peters, Niculae & Martins 2019), of such z."""
    largest, counts = _ordered(z, dim), _counts(z, dim)
    sums, squares = largest.cumsum(dim), largest.square().cumsum(dim)
    # k τ² - 2 τ Σz + Σz² - 1 = 0, its lower root
    root = torch.addcmul(counts, sums, sums).addcmul_(counts, squares, value=-1).relu_().sqrt_()
    tau = sums.sub_(root).div_(counts)
    return torch.minimum(tau, largest).amax(dim, keepdim=True)


def _ordered(z: Tensor, dim: int) -> Tensor:
    """From the largest; below -1, where no threshold is, all are alike, and none is infinite."""
    return z.clamp(min=-1).sort(dim, descending=True).values


def _counts(z: Tensor, dim: int) -> Tensor:
    """1, 2, … along ``dim``."""
    numbers = torch.arange(1, z.shape[dim] + 1, dtype=z.dtype, device=z.device)
    behind = z.ndim - 1 - dim % z.ndim
    return numbers.view(-1, *[1] * behind) if behind else numbers
