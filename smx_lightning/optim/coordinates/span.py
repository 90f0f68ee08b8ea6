"""Fewer rows than features: the same problem in as many features as there are rows.

With an l2 the optimum's W lies in the span of the rows: a part across it changes no logit, and is
penalised. The bias is free, so that the rows X (n, d) may be taken from any point μ, with b + W μ
in place of b: from their mean, which the pass knows. Then

    (X - μ)(X - μ)ᵀ = R Rᵀ,    Q = (X - μ)ᵀ R⁻ᵀ with QᵀQ = 1

and W = V Qᵀ has the same logits as V of the rows R (n, r), r ≤ n (:mod:`.basis`), and ‖W‖ = ‖V‖:
the same objective in r features.

A product of n × n × d once takes the place of one of n × d × K in every pass. Where X is rounded R
is, too: what is found is a step, and the problem itself has the last word.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from smx_lightning.optim.coordinates.basis import Basis, basis
from smx_lightning.optim.evaluation import gathered
from smx_lightning.optim.models.dense import add_gram, joined
from smx_lightning.optim.models.sampling import pass_work
from smx_lightning.optim.models.spectrum import Moments

MOST_ENTRIES = 2**28  # of the rows gathered: 1 GB in float32
PASSES = 50  # what the factor may cost, in passes: about as many as it saves
BLOCK = 4096  # features whose products are summed up, before those sums are
NEAR = 4  # times the mean that so many rows have by chance: not worth a subtraction


def worthwhile(shape: tuple[int, int], rows: float) -> bool:
    """Whether so many rows, of (classes, features + 1), are solved in their span sooner."""
    features = shape[1] - 1
    price = rows**3 / 3 + 2 * rows**2 * features
    saved = PASSES * (pass_work(*shape, rows) - pass_work(shape[0], int(rows), rows))
    return 1 < rows < features and price <= saved and rows * features <= MOST_ENTRIES


class Gathered:
    """The rows of a pass, as long as they are few enough.

    Args:
        shape: (classes, features + 1).

    Attributes:
        few: Whether they still are.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self._shape = shape
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []
        self._rows = 0
        self.few = True

    def add(self, x: Tensor, y: Tensor, weights: Tensor | None, *, held: bool) -> None:
        """A batch x (rows, features), y labels or distributions, weights (rows,).

        They are copied, since a loader may fill its buffers anew, unless they are held.
        """
        self._rows += len(x)
        self.few &= self._rows < self._shape[1] and self._rows * self._shape[1] <= MOST_ENTRIES
        if not self.few:
            self._parts.clear()
        elif len(x):
            c = x.new_ones(len(x)) if weights is None else weights
            self._parts.append((x, y, c) if held else (x.clone(), y.clone(), c.clone()))

    def spanned(self, rows: float, moments: Moments) -> Span | None:
        """All processes' rows in their span; ``None`` where it is not worth while.

        Args:
            rows: How many there are, over all processes.
            moments: Theirs.
        """
        if not worthwhile(self._shape, rows):
            return None
        mean = moments.mean
        if rows * float(mean.square().sum()) <= NEAR * float(moments.squares.sum()) / moments.total:
            mean = torch.zeros_like(mean)
        parts = [part for parts in gathered(self._parts) for part in parts]
        if len({y.ndim for _, y, _ in parts}) > 1:  # labels here, distributions there
            parts = [(x, _distributions(y, self._shape[0]), c) for x, y, c in parts]
        x, y, c = (joined([t.to(mean.device) for t in some]) for some in zip(*parts, strict=True))
        return Span.of(x, y, c, mean, self._shape[0])


def _distributions(y: Tensor, num_classes: int) -> Tensor:
    return y if y.ndim == 2 else torch.nn.functional.one_hot(y, num_classes).float()


class Span(NamedTuple):
    """Rows R (n, r) in the place of x (n, d), their targets and weights, and the way back.

    ``mean`` is μ (d,).
    """

    basis: Basis
    targets: Tensor
    weights: Tensor
    x: Tensor
    mean: Tensor

    @classmethod
    def of(
        cls, x: Tensor, targets: Tensor, weights: Tensor, mean: Tensor, num_classes: int
    ) -> Span | None:
        """``None`` where all rows are the same."""
        mean, far = mean.to(x.dtype), bool(mean.any())
        blocks = zip(torch.split(x, BLOCK, 1), torch.split(mean, BLOCK), strict=True)
        products = x.new_zeros(len(x), len(x))
        for part, middle in blocks:
            add_gram(products, (part - middle if far else part).T)
        found = basis(products, num_classes, centred=far)
        return None if found is None else cls(found, targets, weights, x, mean)

    @property
    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """All rows, as :func:`.one_pass` takes them."""
        return self.basis.rows, self.targets, self.weights

    def narrow(self, point: Tensor) -> Tensor:
        """Of (K, d + 1) the (K, r + 1) with the same logits; float64."""
        weight, bias = point[:, :-1].to(self.x.dtype), point[:, -1:]
        if not weight.any():  # where most begin
            return torch.cat([bias.new_zeros(len(bias), self.basis.rows.shape[1]), bias], 1)
        scores = torch.addmm(-(weight @ self.mean)[:, None], weight, self.x.T)
        bias = bias + (point[:, :-1] @ self.mean.double())[:, None]
        return torch.cat([self.basis.inward(scores).double(), bias], 1)

    def widen(self, point: Tensor) -> Tensor:
        """Of (K, r + 1) the (K, d + 1) with the same logits; float64."""
        parts = self.basis.outward(point[:, :-1].to(self.x.dtype))
        total = parts.sum(1, keepdim=True)
        weight = (parts @ self.x - total * self.mean).double()
        bias = point[:, -1] + self.basis.level * total[:, 0].double() - weight @ self.mean.double()
        return torch.cat([weight, bias[:, None]], 1)
