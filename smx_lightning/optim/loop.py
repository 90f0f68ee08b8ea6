"""A pass over batches in memory."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from smx_lightning.optim.evaluation import Evaluation

if TYPE_CHECKING:
    from smx_lightning.optim.descent import Descent

CACHED_ENTRIES = 2**20  # 4 MB of float32: with little else in a cache that others use, too
OVERHEAD = 2e7  # of a pass of a few small operations, in fast multiplications and additions


def one_pass(
    descent: Descent,
    batches: Iterable[tuple[Tensor, Tensor, Tensor | None]],
    *,
    l2: float,
    count: float,
    held: bool,
) -> Evaluation:
    """Every batch once, (x, y, weights) as :meth:`Descent.add` takes them, at the next point.

    Args:
        descent: It moves.
        batches: Of the pass.
        l2: Weight of the penalty.
        count: How many they are.
        held: Whether the caller holds them all, so that none is written over.
    """
    # Operations on few rows take a fifth less time in inference mode. Batches are made outside of
    # it: what is made there knows no gradients, and whoever makes them may keep them.
    with torch.inference_mode():
        descent.begin(l2=l2, batches=count)
    for x, y, weights in batches:
        with torch.inference_mode():
            rows = x.to(descent.dtype)
            descent.gather(rows, y, weights, held=held)
            shares = slices(rows)
            for part in shares:
                some = None if weights is None else weights[part]
                descent.add(rows[part], y[part], some, parts=len(shares))
    with torch.inference_mode():
        return descent.end()


def slices(x: Tensor) -> list[slice]:
    """Parts of a batch (rows, features), one at least, of about as many rows each.

    On a CPU those that stay in a cache from the product with W to that with the residuals: each
    entry is read from memory once.
    """
    rows, fits = max(len(x), 1), max(CACHED_ENTRIES // max(x.shape[1], 1), 1)
    size = math.ceil(rows / math.ceil(rows / fits)) if x.device.type == "cpu" else rows
    return [slice(at, at + size) for at in range(0, rows, size)]
