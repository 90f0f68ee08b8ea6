"""The two products that a pass makes with its rows: their scores, and sums of them.

Conventions
-----------
x are (rows, features). All that has a row for each class has the rows of x last in memory: a
softmax over few classes is ten times faster that way.

One product with few classes a BLAS divides badly among its threads, and waits for all of them each
time. Products of as many rows each, of which every thread makes one, take less of a pass where
features are many, and more where they are few: docs/solver.md has the figures.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST_FEATURES = 256
LEAST_ROWS = 64  # of a thread


def scores_of(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``W xᵀ + b``, (classes, rows), of weight (classes, features) and bias (classes, 1)."""
    shares, rows = _shares(x)
    if shares == 1:
        return torch.addmm(bias, weight, x.T)
    scores = x.new_empty(len(weight), len(x))
    each = torch.baddbmm(bias, weight.expand(shares, -1, -1), _shared(x, shares, rows).mT)
    scores[:, :rows].view(len(weight), shares, -1).copy_(each.transpose(0, 1))
    if rows < len(x):
        scores[:, rows:] = torch.addmm(bias, weight, x[rows:].T)
    return scores


def sums_of(x: Tensor, residual: Tensor) -> Tensor:
    """``Σ residual xᵀ`` over the rows, (classes, features), of a residual (classes, rows)."""
    shares, rows = _shares(x)
    if shares == 1:
        return residual @ x
    each = residual[:, :rows].view(len(residual), shares, -1).transpose(0, 1)
    sums = torch.bmm(each, _shared(x, shares, rows)).sum(0)
    return sums.addmm_(residual[:, rows:], x[rows:]) if rows < len(x) else sums


def _shares(x: Tensor) -> tuple[int, int]:
    """Of how many products, and of how many rows together."""
    shares = min(torch.get_num_threads(), len(x) // LEAST_ROWS)
    # Without MKL torch makes the products of a batch one after the other.
    mkl = x.device.type == "cpu" and torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    if not mkl or shares < 2 or x.shape[1] < LEAST_FEATURES:
        return 1, len(x)
    return shares, len(x) - len(x) % shares


def _shared(x: Tensor, shares: int, rows: int) -> Tensor:
    return x[:rows].view(shares, -1, x.shape[1])
