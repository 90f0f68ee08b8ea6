"""A pass over batches in memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor

from smx_lightning.optim.evaluation import Evaluation

if TYPE_CHECKING:
    from smx_lightning.optim.descent import Descent

CACHED_ENTRIES = 2**21  # 8 MB of float32: with little else in a last-level cache
OVERHEAD = 2e7  # of a pass of a few small operations, in fast multiplications and additions


def one_pass(
    descent: Descent,
    batches: Iterable[tuple[Tensor, Tensor, Tensor | None]],
    *,
    l2: float,
    count: float,
) -> Evaluation:
    """Every batch once, (x, y, weights) as :meth:`Descent.add` takes them, at the next point."""
    descent.begin(l2=l2, batches=count)
    for x, y, weights in batches:
        rows = x.to(descent.dtype)
        # In parts that stay in a cache from the product with W to the product with the residuals.
        size = max(CACHED_ENTRIES // max(x.shape[1], 1), 1)
        for at in range(0, len(x), size):
            part = slice(at, at + size)
            descent.add(rows[part], y[part], None if weights is None else weights[part])
    return descent.end()
