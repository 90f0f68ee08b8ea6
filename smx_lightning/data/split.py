"""Stratified splits that can have a class with one sample."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Split(NamedTuple):
    """Row indices, each sorted: what stays and what is held out."""

    kept: Tensor
    held_out: Tensor


def stratified_split(y: Tensor, fraction: float, seed: int) -> Split:
    """Hold out ``fraction`` of the rows, of every class its share.

    The number held out is ``round(fraction · n)`` where the classes allow it: each class gives the
    whole part of its share, and the rows still owed come from the classes with the largest
    remainders (Hamilton's method). A class always keeps at least one row.

    Args:
        y: (n,) labels.
        fraction: Between 0 and 1.
        seed: The same seed gives the same split on every machine.

    >>> y = torch.tensor([0] * 8 + [1] * 4 + [2])
    >>> y[stratified_split(y, 0.25, seed=0).held_out]
    tensor([0, 0, 1])
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(y), generator=generator)
    order = order[torch.argsort(y[order], stable=True)]  # shuffled within each class
    _, counts = torch.unique(y, return_counts=True)

    share = counts.double() * fraction
    quota = share.floor().long()
    owed = round(fraction * len(y)) - int(quota.sum())
    for k in torch.argsort(share - quota, descending=True, stable=True)[: max(owed, 0)].tolist():
        quota[k] += 1
    quota = torch.minimum(quota, counts - 1)

    rank_in_class = torch.arange(len(y)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    held_out = rank_in_class < quota.repeat_interleave(counts)
    return Split(order[~held_out].sort().values, order[held_out].sort().values)
