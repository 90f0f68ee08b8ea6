"""The objective and its gradient at one point, summed batch by batch over all processes.

Conventions
-----------
A row x (with a 1 appended for the bias) has the target distribution q over the K classes, the
one-hot vector of its label where it has one, and the weight c. At (W, b), together one (K, D)
point, its scores are z and its probabilities p(z), softmax's or another member's (:mod:`.members`).

    f(W, b) = Σ c · (Ω*(z) - ⟨z, q⟩) / Σ c + ½ · l2 · ‖W‖²,    Σ_k -q_k log p_k of softmax
    ∂f/∂z   = c · (p - q) / Σ c                           each row's share
    φ(t)    = f(point + t · direction)                    along a line
    φ'(t)   = Σ c · (p(z + t · dz) - q) · dz / Σ c + l2 · ⟨W + t · dW, dW⟩

dz being the scores of the direction: the slopes at many lengths t need no other product with x
than one. Scores may be shifted by a number a row, so softmax's log p serves as z.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.distributed
from torch import Tensor

from smx_lightning.errors import InputError
from smx_lightning.errors.targets import is_soft
from smx_lightning.optim.members import At, Softmax
from smx_lightning.optim.products import scores_of, sums_of
from smx_lightning.processes.distributed import in_group

AT_ONCE = 2**16  # entries of scores at several lengths: an operation takes longer to begin


class Evaluation(NamedTuple):
    """The objective at one point.

    ``gradient`` is (classes, features + 1) float64, the bias last. ``total_weight`` is Σ c and
    ``spread`` Σ c U (1 - Σ w²). ``separated`` says that every row is of one class, and has more
    than half of the probability there. ``masses`` (classes,) is Σ c U w (1 - w) / Σ c, ``targets``
    (classes,) Σ c q / Σ c, and ``slopes`` (lengths,) φ' at each length that was asked for. Of
    softmax w is p and U is 1.
    """

    objective: float
    gradient: Tensor
    total_weight: float
    rows: float
    spread: float
    separated: bool
    masses: Tensor
    targets: Tensor
    slopes: Tensor

    @property
    def largest(self) -> float:
        """Absolute entry of the gradient."""
        return float(torch.linalg.vector_norm(self.gradient, math.inf))


class Line(NamedTuple):
    """Step lengths (lengths,) along ``direction`` (classes, features + 1), both float64."""

    direction: Tensor
    lengths: Tensor


class EpochSums:
    """What batches add up to, in float64.

    Args:
        shape: (classes, features + 1).
        device: Where the batches are.
        member: What the scores end in.
        line: Where slopes are wanted too, from the present point; ``None``: nowhere.
        intercept: Whether the bias moves; where it does not its part of the gradient is 0.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        device: torch.device,
        member: Softmax,
        line: Line | None = None,
        *,
        intercept: bool = True,
    ) -> None:
        self._member, self._line, self._intercept = member, line, intercept
        # Views of one vector, which the processes add up as it is.
        sizes = [4, shape[0], shape[0], 0 if line is None else len(line.lengths), math.prod(shape)]
        self._all = torch.zeros(sum(sizes), dtype=torch.float64, device=device)
        parts = self._all.split_with_sizes(sizes)
        # _scalars: loss, total weight, rows in doubt, rows
        self._scalars, self._masses, self._targets, self._slopes, gradient = parts
        self._gradient = gradient.view(shape)
        self._weight, self._bias = self._gradient[:, :-1], self._gradient[:, -1]

    def add(self, x: Tensor, at: At, y: Tensor, weights: Tensor | None) -> None:
        """Add a batch; its probabilities are overwritten.

        Args:
            x: (batch, features).
            at: These rows at the present point.
            y: (batch,) labels or (batch, classes) distributions.
            weights: (batch,) or ``None``.
        """
        c = at.scores.new_ones(x.shape[0]) if weights is None else weights
        if self._line is not None:
            self._slopes += self._slopes_of(x, at.scores, y, c, self._line)
        masses = self._member.masses(at, c)
        if y.ndim == 1:
            losses, doubtful = self._member.losses(at, y)
            residual = at.probs.scatter_add_(0, y[None], c.new_full((1, y.shape[0]), -1.0))
            self._targets.scatter_add_(0, y, c.double())
        else:
            q = y.T.to(at.scores.dtype)
            losses, doubtful = self._member.losses(at, q)
            residual = at.probs.sub_(q)
            self._targets += (q @ c).double()
        if weights is not None:
            residual *= c
        rows = losses.new_tensor(float(x.shape[0]))
        wide = c.double()
        self._scalars += torch.stack([losses @ wide, wide.sum(), doubtful.double(), rows])
        self._masses += masses.double()
        self._weight += sums_of(x, residual)
        if self._intercept:
            self._bias += residual.sum(1)

    def _slopes_of(self, x: Tensor, scores: Tensor, y: Tensor, c: Tensor, line: Line) -> Tensor:
        """Σ c · (p(z + t dz) - q) · dz at each length t."""
        direction = line.direction.to(x.dtype)
        dz = scores_of(x, direction[:, :-1], direction[:, -1:])
        wanted = dz.gather(0, y[None])[0] if y.ndim == 1 else (dz * y.T).sum(0)
        lengths = line.lengths.to(x.dtype)
        at_once = min(max(AT_ONCE // max(dz.numel(), 1), 1), len(lengths))
        room = dz.new_empty(at_once, *dz.shape)
        slopes = [
            self._member.means(scores, dz, some, room[: len(some)]).sub_(wanted) @ c
            for some in torch.split(lengths, at_once)
        ]
        return torch.cat(slopes).double()

    def evaluation(self, weight: Tensor, l2: float) -> Evaluation:
        """Of all processes together, at ``weight`` (classes, features) float64."""
        summed(self._all)
        loss, total_weight, in_doubt, rows = self._scalars.tolist()
        if rows == 0:
            raise InputError(
                "expected training rows, got an epoch without any; check the data, and that the "
                "batches can be iterated more than once"
            )
        if not total_weight > 0:
            raise InputError(
                f"expected row weights with a positive sum, got a sum of {total_weight}; leave the "
                "weights out, or give some rows a positive one"
            )
        self._all /= total_weight
        self._weight.add_(weight, alpha=l2)
        if self._line is not None and l2:
            dw = self._line.direction[:, :-1]
            self._slopes += l2 * ((weight * dw).sum() + self._line.lengths * dw.square().sum())
        objective = loss / total_weight + 0.5 * l2 * float(weight.square().sum())
        spread = float(self._masses.sum()) * total_weight
        return Evaluation(
            objective,
            self._gradient,
            total_weight,
            rows,
            spread,
            in_doubt == 0,
            self._masses,
            self._targets,
            self._slopes,
        )


def smoothed(y: Tensor, smoothing: float, num_classes: int, dtype: torch.dtype) -> Tensor:
    """(1 - ε) q + ε / K of labels or distributions q; without smoothing, labels stay labels."""
    if is_soft(y):
        y = y.to(dtype)
        return y if not smoothing else (1 - smoothing) * y + smoothing / num_classes
    if not smoothing:
        return y
    q = torch.full((len(y), num_classes), smoothing / num_classes, dtype=dtype, device=y.device)
    return q.scatter_(1, y[:, None], 1 - smoothing + smoothing / num_classes)


def weighted(
    y: Tensor,
    row_weight: Tensor | None,
    class_weight: Tensor | None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor | None]:
    """Targets (rows,) or (rows, classes) and weights (rows,), those of the classes in the latter.

    Σ_k w_k q_k (-log p_k) is c Σ_k q'_k (-log p_k) with c = Σ w q and q' = w q / c, in the
    parameters' dtype or a wider one.
    """
    if y.ndim == 1 and class_weight is None:
        return y, row_weight
    if y.ndim == 1:
        assert class_weight is not None
        own = class_weight[y]
    else:  # also of a distribution that sums to 1 only about: else no bias would be at rest
        y = y.to(torch.promote_types(y.dtype, dtype))
        y = y if class_weight is None else y * class_weight
        own = y.sum(1)
        y = y / own.clamp(min=torch.finfo(y.dtype).tiny)[:, None]
    return y, own if row_weight is None else row_weight * own


def summed(tensor: Tensor, group: Any = None) -> Tensor:
    """The sum over all processes, or over those of a group; the same bits on each."""
    if in_group():
        torch.distributed.all_reduce(tensor, group=group)
    return tensor


def gathered(value: Any) -> list[Any]:
    """All processes' values, in their order, on each of them."""
    if not in_group():
        return [value]
    values = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values
