"""The data term: the mean loss of rows with labels or distributions, and with weights.

Conventions
-----------
A row has scores s (log-probabilities of softmax), a target q over the K classes, the one-hot vector
of its label where it has one, and a weight r, 1 by default. With ``label_smoothing`` ε and class
weights w

    q' = (1 - ε) q + ε / K,    c = r · Σ_k w_k q'_k,    loss = Σ c · L(s, q'') / Σ c

where q''_k = w_k q'_k / Σ_j w_j q'_j, and L = Ω*(s) - ⟨s, q''⟩, which is Σ_k -q''_k log p_k of
softmax. So ``c · L`` is what torch's cross_entropy adds up, ``Σ_k -w_k q'_k log p_k``; it divides
by ``Σ w[y]`` of labels, also smoothed ones, and by the number of rows of distributions, where this
divides by ``Σ c``: as scikit-learn does, so that a row of a distribution is K rows of weights q_k.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from smx_lightning.activations import SOFTMAX, Activation, fenchel_young_loss
from smx_lightning.errors import InputError
from smx_lightning.errors.checks import class_indices
from smx_lightning.errors.targets import is_soft
from smx_lightning.optim.evaluation import smoothed, weighted

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression


def mean_loss(model: SoftmaxRegression, scores: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
    """The (weighted) mean loss of scores (batch, classes), see the module.

    Args:
        model: Its activation, class weights and smoothing count.
        scores: Log-probabilities of softmax, else scores.
        y: (batch,) labels, or (batch, classes) distributions.
        weight: (batch,) or ``None``.
    """
    member, y = model._smx_activation, class_indices(y)
    if weight is None and not model.label_smoothing and not is_soft(y):
        classes = model.class_weights_for(scores)
        if member == SOFTMAX:
            return nn.functional.nll_loss(scores, y, classes)
        return fenchel_young_loss(scores, y, member, weight=classes)
    targets, weights = shares(model, scores, y, weight)
    losses = _losses(scores, targets, member)
    if weights is None:
        return losses.mean()
    return (losses * weights).sum() / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)


def shares(
    model: SoftmaxRegression, scores: Tensor, y: Tensor, weight: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """q'', or labels, and c (batch,), ``None`` for 1, in the dtype of the scores."""
    y = smoothed(y, model.label_smoothing, model.num_classes, scores.dtype)
    weight = None if weight is None else weight.to(scores.dtype)
    return weighted(y, weight, model.class_weights_for(scores))


def weight_of(
    model: SoftmaxRegression, scores: Tensor, y: Tensor, weight: Tensor | None
) -> Tensor | float:
    """Σ c of some rows."""
    if model.class_weight is None and not is_soft(y):
        return len(y) if weight is None else weight.to(scores.dtype).sum()
    _, weights = shares(model, scores, y, weight)
    assert weights is not None
    return weights.sum()


def check_takes_weight(model: SoftmaxRegression) -> None:
    """Complain about rows with weights where the loss of a subclass knows of none.

    Raises:
        InputError: It says what the override is to take.
    """
    if not _takes_weight(type(model)):  # type: ignore[arg-type]  # classes are hashable
        name = type(model).__name__
        raise InputError(
            f"expected {name}.loss to take the weights of rows, loss(scores, y, weight=None), got "
            "batches with weights and a loss without; let it take and apply them, or leave "
            "weights out of the batches"
        )


@cache
def _takes_weight(kind: Any) -> bool:
    parameters = inspect.signature(kind.loss).parameters.values()
    return any(p.name == "weight" or p.kind is p.VAR_KEYWORD for p in parameters)


def _losses(scores: Tensor, targets: Tensor, member: Activation) -> Tensor:
    """L of each row, (batch,)."""
    if not is_soft(targets):
        if member == SOFTMAX:
            return -scores.gather(1, targets[:, None])[:, 0]
        return fenchel_young_loss(scores, targets, member, reduction="none")
    if member == SOFTMAX:  # a class that is not wanted costs nothing, however improbable
        return -torch.where(targets > 0, targets * scores, 0).sum(1)
    # Without the entropy of the targets, which no weight of the model changes.
    loss = fenchel_young_loss(scores, targets, member, reduction="none")
    return loss + member.entropy(targets)
