"""Why the solver stopped, and what it knows of how far it got."""

from __future__ import annotations

import math
from enum import Enum

import torch
from torch import Tensor

from smx_lightning.errors.checks import LISTED
from smx_lightning.optim.evaluation import Evaluation

NEAR = 0.01  # of the objective: where more is left, digits ended far from the optimum
ROUNDING = 16  # times ε |x|: errors of many terms, which cancel for the most part


class Status(Enum):
    """Why the solver stopped; the value is the message."""

    RUNNING = "still running"
    CONVERGED = "converged: no entry of the gradient is larger than tol"
    PRECISION = "stopped at the limit of the parameters' precision"
    STALLED = (
        "stopped short of the optimum: no step lowers the objective any more, though its gradient "
        "is larger than rounding explains"
    )
    CHANGING = (
        "stopped: the same weights gave another objective in another epoch, so there is no "
        "optimum to find; rows or features differ from epoch to epoch (dropout or batch "
        "normalisation in train mode, a sampler that draws, random augmentation): make them the "
        "same, or take another optimiser"
    )
    SEPARABLE = (
        "stopped: every training row has more than half of the probability on its own class and "
        "l2 is 0, so the objective falls for ever and has no minimum; set l2 above 0"
    )
    UNSEEN_CLASS = (
        "stopped where the gradient is small, but the objective has no minimum: the bias of a "
        "class without training rows falls for ever, since l2 does not penalise it; drop such "
        "classes, or add rows"
    )


class Rounding:
    """What the rounding of products and parameters does to sums over all rows, at a point.

    It moves a logit by some ε Σ_j |w_j x_j|, here 1 + the largest class's sum with the features'
    root mean squares in place of x: ε z. A row's loss and its p move by no more.

    Args:
        point: (classes, features + 1).
        typical: (features + 1,) root mean squares of the features, 1 for the bias.
        dtype: Of parameters and products.
        shifted: By how much the parameters' bias, which is rounded, differs from the point's.
        own: What takes the place of 1 where p and its loss are less exact than softmax's.
    """

    def __init__(
        self,
        point: Tensor,
        typical: Tensor,
        dtype: torch.dtype,
        shifted: float,
        own: float = 1.0,
    ) -> None:
        self._typical = typical
        self._epsilon = torch.finfo(dtype).eps
        self._logit = self._epsilon * (own + float((point.abs() @ typical).max()))
        self._bias = self._epsilon * shifted

    def objective(self, evaluation: Evaluation) -> float:
        """Of the mean loss: errors of many rows cancel, but for those of rows that are alike."""
        alike = max(self._epsilon / 8, 1e-15) * abs(evaluation.objective)
        return 2 * self._logit / math.sqrt(evaluation.rows) + alike

    def gradient(self) -> Tensor:
        """Of each entry of the gradient's rows, (features + 1,): p's error times |x|."""
        return ROUNDING * (self._logit + self._bias) * self._typical


def verdict(best: Evaluation, again: Evaluation, rounding: Rounding, *, unseen: bool) -> Status:
    """Why nothing helps, of two evaluations of one point: other data, rounding, or neither.

    ``unseen`` says that classes without rows leave no minimum.
    """
    bound = rounding.gradient()
    if ((again.gradient - best.gradient).abs() > bound).any():
        return Status.CHANGING
    if unseen:
        return Status.UNSEEN_CLASS
    return Status.PRECISION if (best.gradient.abs() <= bound).all() else Status.STALLED


def relative_gap(evaluation: Evaluation, l2: float, decrement: float) -> float:
    """How much of the objective a longer run could still take off, at most, about.

    With g the gradient, f the objective and f* its least value,

        f - f* ≤ ‖g_W‖² / (2 l2) + ⟨g_b, b - b*⟩

    since f is strongly convex in W with modulus l2, and convex in b. The first term is a bound. The
    second, for b* is not known, is estimated: g_b² / 2m summed over the classes, m a class's mass,
    which is what a Newton step of each bias would gain, the others held. Without l2 all of it is an
    estimate, ``decrement``. The objective is not negative, so that no gap is above 1.

    Args:
        evaluation: At the point.
        l2: Weight of the penalty.
        decrement: What the next step is expected to gain, -⟨g, direction⟩ / 2.
    """
    g_w, g_b = evaluation.gradient[:, :-1], evaluation.gradient[:, -1]
    masses = evaluation.masses.clamp(min=torch.finfo(g_b.dtype).tiny)
    gap = decrement
    if l2 > 0:
        gap = float(g_w.square().sum() / (2 * l2) + (g_b.square() / (2 * masses)).sum())
    return min(1.0, gap / evaluation.objective) if evaluation.objective > 0 else 0.0


def without_rows(evaluation: Evaluation) -> list[int]:
    """The classes that no row wants, not even in part."""
    missing: list[int] = (evaluation.targets == 0).nonzero()[:, 0].tolist()
    return missing


def message(status: Status, evaluation: Evaluation | None) -> str:
    """The status in a sentence, with the classes that it is about."""
    if status is not Status.UNSEEN_CLASS or evaluation is None:
        return status.value
    missing = without_rows(evaluation)
    named = ", ".join(map(str, missing[:LISTED])) + (", …" if len(missing) > LISTED else "")
    return f"{status.value} (without rows: {named})"
