"""What a pass takes from the member of the family that the scores end in: p, losses, curvature.

Conventions
-----------
Rows are last: (classes, rows), as all that has a row for each class. A row's scores s may be
shifted by a number, so log p serves as softmax's. With Ω*(s) = ⟨p, s⟩ - Ω(p) a row's loss is
Ω*(s) - ⟨s, q⟩, its gradient p - q, and its Hessian

    U (diag(w) - w wᵀ),    u = p^(2-α) where p > 0, 0 elsewhere,    U = Σu,    w = u / U,

softmax's at the probabilities w, U times. Softmax has w = p and U = 1, and its Ω*(s) is 0 of log p.
Every u is at most 1 where α ≤ 2, so that the gradient is Lipschitz. Beyond, u has no bound.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from smx_lightning.activations.family import SOFTMAX, Activation, Entmax
from smx_lightning.errors import InputError

LOG_HALF = math.log(0.5)
MANY = 2**13  # scores, beyond which a look at some of them costs next to nothing
SAMPLE = 64  # rows that are looked at
LARGEST_ALPHA = 2


class At(NamedTuple):
    """Rows at one point.

    ``scores``, ``probs`` and ``weights``, w, are (classes, rows); ``scale``, U, is (rows,), or
    ``None`` for 1.
    """

    scores: Tensor
    probs: Tensor
    weights: Tensor
    scale: Tensor | None


class Softmax:
    """Softmax: log p for scores.

    Attributes:
        activation: The member.
        attains: Whether the objective has a minimum on every data, without a penalty too.
        rounding: What computing p and losses does to a score of about 0, in units of ε.
        patience: Passes without progress that rounding could show, before the solver gives up.
    """

    activation: Activation = SOFTMAX
    attains = False
    rounding = 1.0
    patience = 6

    def at_zero(self, num_classes: int) -> float:
        """A row's loss where all scores are equal, whatever its target."""
        return math.log(num_classes)

    def scale_at_zero(self, num_classes: int) -> float:
        """U there."""
        return 1.0

    def at(self, scores: Tensor) -> At:
        """Of rows with these scores."""
        if _underflows(scores):
            shifted = scores - scores.amax(0)
            probs = shifted.clamp(min=_least(scores.dtype)).exp_()
            total = probs.sum(0)
            log_probs, probs = shifted.sub_(total.log()), probs.div_(total)
        else:
            log_probs = scores.log_softmax(0)
            probs = log_probs.exp()
        probs = without_subnormal(probs)
        return At(log_probs, probs, probs, None)

    def masses(self, at: At, c: Tensor) -> Tensor:
        """Σ c U w (1 - w), (classes,), of rows of weights c (rows,)."""
        return at.weights @ c - at.weights.square() @ c

    def losses(self, at: At, y: Tensor) -> tuple[Tensor, Tensor]:
        """Each row's loss (rows,) float64, and how many rows are in doubt.

        A row is not where it is of one class, which has more than half of the probability.

        Args:
            at: The rows.
            y: (rows,) labels, or distributions (classes, rows).
        """
        if y.ndim == 1:
            own = at.scores.gather(0, y[None])[0]
            return -own.double(), (own <= LOG_HALF).sum()
        # A class that is not wanted costs nothing, however improbable.
        losses = -torch.where(y > 0, y * at.scores, 0).sum(0, dtype=torch.float64)
        return losses, _in_doubt(at.probs, y)

    def means(self, scores: Tensor, towards: Tensor, lengths: Tensor, room: Tensor) -> Tensor:
        """⟨p, dz⟩ at the scores s + t dz of several t, (lengths, rows).

        Args:
            scores: s, (classes, rows).
            towards: dz, of the same shape.
            lengths: t, (lengths,).
            room: (lengths, classes, rows), overwritten.
        """
        torch.addcmul(scores, lengths[:, None, None], towards, out=room)
        room.sub_(room.amax(1, keepdim=True))
        if _underflows(scores):
            room.clamp_(min=_least(scores.dtype))
        room.exp_()  # less than half of softmax's time on a CPU
        total = room.sum(1)
        return room.mul_(towards).sum(1).div_(total)


class Sparse(Softmax):
    """Every other member whose Jacobian is softmax's at other probabilities.

    Which classes have some probability is found row by row, and the curvature jumps with each:
    passes near the optimum gain less than those of softmax, some less than rounding shows.
    """

    patience = 30

    def __init__(self, activation: Activation) -> None:
        self.activation = activation
        self.attains = activation.sparse
        if isinstance(activation, Entmax):  # what is compared is (α - 1) s, with a threshold
            self.rounding = max(1.0, 1 / (activation.alpha - 1))

    def at_zero(self, num_classes: int) -> float:
        """See :class:`Softmax`."""
        return float(self.activation.entropy(_equal(num_classes)))

    def scale_at_zero(self, num_classes: int) -> float:
        """See :class:`Softmax`."""
        return float(self.activation.jacobian(_equal(num_classes)).scale)

    def at(self, scores: Tensor) -> At:
        """See :class:`Softmax`."""
        scores = scores - scores.amax(0)
        probs = without_subnormal(self.activation.probs(scores, dim=0))
        weights, scale = self.activation.jacobian(probs, dim=0)
        return At(scores, probs, weights, scale[0])

    def masses(self, at: At, c: Tensor) -> Tensor:
        """See :class:`Softmax`."""
        shares = c if at.scale is None else c * at.scale
        return (at.weights - at.weights.square()) @ shares  # 0 where w is 0 or 1

    def losses(self, at: At, y: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Softmax`."""
        conjugate = self.activation.entropy(at.probs, dim=0) + (at.probs * at.scores).sum(0)
        if y.ndim == 1:
            own = at.scores.gather(0, y[None])[0]
            doubtful = (at.probs.gather(0, y[None])[0] <= 0.5).sum()
        else:
            own = torch.where(y > 0, y * at.scores, 0).sum(0)
            doubtful = _in_doubt(at.probs, y)
        return (conjugate.double() - own.double()).clamp(min=0), doubtful  # but for rounding

    def means(self, scores: Tensor, towards: Tensor, lengths: Tensor, room: Tensor) -> Tensor:
        """See :class:`Softmax`."""
        torch.addcmul(scores, lengths[:, None, None], towards, out=room)
        return (self.activation.probs(room, dim=1) * towards).sum(1)


def member(activation: Activation) -> Softmax:
    """How a pass takes the rows of this member.

    Raises:
        InputError: For a member without this Hessian, or one without a bound.
    """
    if activation == SOFTMAX:
        return Softmax()
    if isinstance(activation, Entmax) and not activation.alpha <= LARGEST_ALPHA:
        raise InputError(
            f"the exact solver expects α from 1 to {LARGEST_ALPHA}, got {activation.alpha:g}, "
            f"whose curvature has no bound; take α ≤ {LARGEST_ALPHA}, or another optimiser, such "
            "as torch.optim.Adam"
        )
    try:
        activation.jacobian(_equal(2))
    except (NotImplementedError, InputError) as error:
        raise InputError(
            "the exact solver expects softmax, sparsemax or an α-entmax with α from 1 to "
            f"{LARGEST_ALPHA}, got {activation.name}, whose Jacobian is another; take one of "
            "these, or another optimiser, such as torch.optim.Adam"
        ) from error
    return Sparse(activation)


def without_subnormal(probs: Tensor) -> Tensor:
    """With 0 for what is tiny, in place: such products take a hundred times as long."""
    return torch.threshold_(probs, math.sqrt(torch.finfo(probs.dtype).tiny), 0.0)


def _underflows(scores: Tensor) -> bool:
    """Whether exp of scores (classes, rows) is to be kept from numbers below the normal ones.

    On a CPU such an exp takes up to a hundred times as long as any other.
    """
    if scores.device.type != "cpu" or scores.numel() < MANY:
        return False
    some = scores[:, :: max(scores.shape[1] // SAMPLE, 1)]
    tiny = torch.finfo(scores.dtype).tiny
    return bool((some.amax(0) - some.amin(0)).max() > -math.log(tiny))


def _least(dtype: torch.dtype) -> float:
    """A score, less the largest one, whose probability :func:`without_subnormal` takes for 0."""
    return math.log(torch.finfo(dtype).tiny) / 2 - 1


def _equal(num_classes: int) -> Tensor:
    return torch.full((num_classes,), 1 / num_classes, dtype=torch.float64)


def _in_doubt(probs: Tensor, q: Tensor) -> Tensor:
    return ((q * probs).amax(0) <= 0.5).logical_or(q.amax(0) < 1).sum()
