"""Features for n rows of which the products with each other are known: G = R Rᵀ, R (n, r).

Two factors of G serve. L, Cholesky's, is had at a tenth of the price of the eigenvectors, but its
features are correlated. So R = L P, with P orthogonal, whose first columns are the directions in
which the rows L vary most, found as Halko, Martinsson and Tropp find them ("Finding structure with
randomness", 2011, algorithms 4.3 and 5.1); what is left is about as uncorrelated as L-BFGS likes.
Rows that are seen from their mean add up to zero, and L would have no inverse. One more feature, of
the same value for all rows, is what a free bias is already: it has no weight at the optimum. So a
number ℓ is added to all products, R Rᵀ = G + ℓ 1 1ᵀ, and the bias is moved accordingly.

Where rows repeat, or are mixtures of few, L has no inverse still; R = U √Λ then, of the eigenvalues
that are not rounding's. So it is where these cost less than the passes that uncorrelated features
save, and all of them are known.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.linalg import solve_triangular

from smx_lightning.optim.loop import OVERHEAD
from smx_lightning.optim.models.sampling import pass_work
from smx_lightning.optim.models.spectrum import EIGEN

SAVED = 20  # passes, by uncorrelated features, at most
LEADING = 64  # directions in which rows vary most


class Basis(Protocol):
    """The features of R, and the way to them and back."""

    @property
    def rows(self) -> Tensor:
        """R (n, r)."""

    @property
    def level(self) -> float:
        """ℓ."""

    def inward(self, scores: Tensor) -> Tensor:
        """V (K, r) with V Rᵀ = ``scores`` (K, n)."""

    def outward(self, weight: Tensor) -> Tensor:
        """A (K, n) with A R = ``weight`` V (K, r): each row's part in it."""


class Triangular(NamedTuple):
    """R = L P, with P's Householder ``reflectors``."""

    rows: Tensor
    level: float
    factor: Tensor
    reflectors: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, factor: Tensor, level: float) -> Triangular:
        """Of L (n, n)."""
        reflectors = torch.geqrf(_leading(factor))
        rows = torch.ormqr(*reflectors, factor, left=False)
        return cls(rows.contiguous(), level, factor, reflectors)

    def inward(self, scores: Tensor) -> Tensor:
        """See :class:`Basis`."""
        inner = solve_triangular(self.factor.mT, scores, upper=True, left=False)
        return torch.ormqr(*self.reflectors, inner, left=False)

    def outward(self, weight: Tensor) -> Tensor:
        """See :class:`Basis`."""
        inner = torch.ormqr(*self.reflectors, weight, left=False, transpose=True)
        parts: Tensor = solve_triangular(self.factor, inner, upper=False, left=False)
        return parts


class Eigen(NamedTuple):
    """R = U √Λ."""

    rows: Tensor
    root: Tensor
    vectors: Tensor
    level: float = 0.0

    def inward(self, scores: Tensor) -> Tensor:
        """See :class:`Basis`."""
        return scores @ self.vectors / self.root

    def outward(self, weight: Tensor) -> Tensor:
        """See :class:`Basis`."""
        return weight / self.root @ self.vectors.T


def basis(products: Tensor, num_classes: int, *, centred: bool) -> Basis | None:
    """Of the rows' products (n, n); ``None`` where all of them are zero, or not finite.

    They are read up to the diagonal. ``centred`` says that rows are seen from their mean, and the
    bias is free.
    """
    rows = len(products)
    if not 0 < float(products.diagonal().max()) < math.inf:
        return None
    cheap = EIGEN * rows**3 <= SAVED * (pass_work(num_classes, rows, rows) + OVERHEAD)
    found = None if cheap else _triangular(products, centred=centred)
    if found is not None:
        return found
    values, vectors = torch.linalg.eigh(products)
    kept = values > rows * torch.finfo(products.dtype).eps * values[-1]
    if cheap and int((~kept).sum()) > centred:  # few large rows hide what the others tell
        found = _triangular(products, centred=centred)
    if found is not None:
        return found
    root, vectors = values[kept].sqrt(), vectors[:, kept]
    return Eigen(vectors * root, root, vectors)


def _triangular(products: Tensor, *, centred: bool) -> Triangular | None:
    """``None`` where a row is a mixture of others, or as good as one."""
    rows, diagonal = len(products), products.diagonal()
    level = float(diagonal.mean()) / rows if centred else 0.0
    factor, failed = torch.linalg.cholesky_ex(products + level)  # the lower triangle, as eigh does
    least = rows * torch.finfo(products.dtype).eps * diagonal
    unique = not failed and bool((factor.diagonal().square() > least).all())
    return Triangular.of(factor, level) if unique else None


def _leading(factor: Tensor) -> Tensor:
    """The directions in which the rows L (n, n) vary most, (n, ``LEADING``) or (n, n)."""
    size = (len(factor), min(LEADING, len(factor)))
    sketch = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=factor.dtype)
    found = torch.linalg.qr(factor @ (factor.T @ sketch.to(factor.device)))[0]
    leading: Tensor = torch.linalg.svd(factor.T @ found, full_matrices=False)[0]
    return leading
