"""Fewer rows than features: the same problem in as many features as there are rows.

With an l2 the optimum's W lies in the span of the rows: a part across it changes no logit, and is
penalised. The bias is free, so that the rows X (n, d) may be taken from their mean μ, with b + W μ
in place of b. Then

    (X - μ)(X - μ)ᵀ = U Λ Uᵀ,    X - μ = (U √Λ) Qᵀ,    Q = (X - μ)ᵀ U Λ^-½ with QᵀQ = 1

and W = V Qᵀ has the same logits as V of the rows U √Λ (n, r), r < n, and ‖W‖ = ‖V‖: the same
objective in r features, which are uncorrelated. A product of n × n × d once takes the place of one
of n × d × K in every pass. Where X is rounded Λ is, too: what is found is a start, and the problem
itself has the last word.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from smx_lightning.optim.curvature import pass_work
from smx_lightning.optim.spectrum import EIGEN

MOST_ENTRIES = 2**28  # of the rows gathered: 1 GB in float32
PASSES = 50  # what the decomposition may cost, in passes: about as many as it saves
BLOCK = 1024  # features whose products are summed before they go into float64


class Span(NamedTuple):
    """Rows (n, r) in the place of x (n, d), their targets and weights, and the way back.

    ``axes`` is Qᵀ (r, d), ``mean`` μ (d,).
    """

    rows: Tensor
    targets: Tensor
    weights: Tensor | None
    axes: Tensor
    mean: Tensor

    @property
    def batch(self) -> tuple[Tensor, ...]:
        """All rows, as the plain loop takes them."""
        rest = () if self.weights is None else (self.weights,)
        return (self.rows, self.targets, *rest)

    def narrow(self, point: Tensor) -> Tensor:
        """Of (K, d + 1) the (K, r + 1) with the same logits; float64."""
        weight, bias = point[:, :-1], point[:, -1] + point[:, :-1] @ self.mean
        return torch.cat([(weight.to(self.axes) @ self.axes.T).double(), bias[:, None]], 1)

    def widen(self, point: Tensor) -> Tensor:
        """Of (K, r + 1) the (K, d + 1) with the same logits; float64."""
        weight = (point[:, :-1].to(self.axes) @ self.axes).double()
        return torch.cat([weight, (point[:, -1] - weight @ self.mean)[:, None]], 1)


def spanned(
    batches: Iterable[Sequence[Tensor]], num_features: int, num_classes: int, dtype: torch.dtype
) -> Span | None:
    """The rows of these batches in their span; ``None`` where they are too many to gain by it."""
    gathered = _gathered(batches, num_features, num_classes)
    if gathered is None:
        return None
    x, targets, *weights = (torch.cat(parts) for parts in zip(*gathered, strict=True))
    x = x.to(dtype)
    mean = x.mean(0, dtype=torch.float64)
    x = x - mean.to(dtype)
    gram = x.new_zeros(len(x), len(x), dtype=torch.float64)
    for part in torch.split(x, BLOCK, 1):
        gram += part @ part.T
    values, vectors = torch.linalg.eigh(gram)
    kept = values > len(x) * torch.finfo(dtype).eps * values[-1]
    if not kept.any():  # every row is the same
        return None
    root, vectors = values[kept].sqrt(), vectors[:, kept]
    return Span(
        rows=(vectors * root).to(dtype),
        targets=targets,
        weights=weights[0] if weights else None,
        axes=(vectors / root).T.to(dtype) @ x,
        mean=mean,
    )


def _gathered(
    batches: Iterable[Sequence[Tensor]], num_features: int, num_classes: int
) -> list[Sequence[Tensor]] | None:
    gathered: list[Sequence[Tensor]] = []
    rows = 0
    for batch in batches:
        rows += len(batch[0])
        price = EIGEN * rows**3 + 2 * rows**2 * num_features
        worth = PASSES * pass_work(num_classes, num_features + 1, rows)
        if rows >= num_features or price > worth or rows * num_features > MOST_ENTRIES:
            return None
        gathered.append(batch)
    return gathered if rows > 1 else None
