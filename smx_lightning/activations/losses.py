"""Fenchel-Young losses of the family: for each map from scores to probabilities its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from smx_lightning.activations.derivatives import check_scores, widened
from smx_lightning.activations.family import SOFTMAX, Activation, activation_of
from smx_lightning.errors import InputError

Spec: TypeAlias = str | Mapping[str, Any] | Activation
Reduction: TypeAlias = Literal["none", "mean", "sum"]


def fenchel_young_loss(
    scores: Tensor,
    target: Tensor,
    activation: Spec = "softmax",
    *,
    weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> Tensor:
    """L(s; q) = Ω*(s) + Ω(q) - ⟨s, q⟩, at least 0, with the gradient p(s) - q.

    Shapes and names are those of torch.nn.functional.cross_entropy, which it is for ``softmax`` and
    labels. Of a sparse member it is exactly 0 where the label's score is ahead of all others by the
    margin, 1 / (α - 1) for α-entmax (Blondel, Martins & Niculae, "Learning with Fenchel-Young
    losses", JMLR 21, 2020).

    Args:
        scores: (classes), (batch, classes) or (batch, classes, …).
        target: Labels, integers of the scores' shape without the classes; or distributions,
            floating-point numbers of the scores' shape, on the simplex. No gradient goes to them.
        activation: The member, as :func:`.activation_of` takes it.
        weight: (classes), of each class. A distribution weighs ⟨weight, q⟩.
        sample_weight: Of each row, of the scores' shape without the classes.
        ignore_index: A label whose rows count for nothing.
        reduction: ``mean`` is Σ wᵢ Lᵢ / Σ wᵢ with the product wᵢ of both weights. (Where
            distributions are weighted, cross_entropy divides by the number of rows.)

    Returns:
        In the scores' precision, float32 at least: the loss, or with ``none`` wᵢ Lᵢ of each row.

    Raises:
        InputError: Of shapes that do not fit, or another reduction.
    """
    member = activation_of(activation)
    _check_reduction(reduction)
    check_scores(scores, axis := min(1, scores.ndim - 1))
    rows = widened(scores).movedim(axis, -1)
    if target.dtype.is_floating_point:
        q, kept = _distributions(rows, target.detach(), axis), None
    else:
        q, kept = _one_hot(rows, target, ignore_index)
        rows = torch.where(kept.unsqueeze(-1), rows, 0.0)
    function = _FenchelYoung if torch.compiler.is_compiling() else _WithTangents
    losses = function.apply(rows, member.probs(rows), q, member)  # type: ignore[no-untyped-call]
    return _reduced(losses, _row_weights(q, kept, weight, sample_weight), reduction)


class FenchelYoungLoss(nn.Module):
    """:func:`fenchel_young_loss` as a module; arguments are the same."""

    weight: Tensor | None

    def __init__(
        self,
        activation: Spec = "softmax",
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        _check_reduction(reduction)
        self.activation = activation_of(activation)
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.reduction: Reduction = reduction

    def forward(
        self, scores: Tensor, target: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        """The loss."""
        return fenchel_young_loss(
            scores,
            target,
            self.activation,
            weight=self.weight,
            sample_weight=sample_weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )


class _FenchelYoung(torch.autograd.Function):
    """The loss of each row, whose derivative by the scores is p - q to the last digit.

    p is an argument, so that the second derivative is p's first.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(scores: Tensor, p: Tensor, q: Tensor, member: Activation) -> Tensor:
        shifted = scores - scores.amax(-1, keepdim=True)
        if member == SOFTMAX:
            conjugate = shifted.logsumexp(-1)
        else:
            conjugate = _inner(p, shifted) + member.entropy(p)
        losses: Tensor = conjugate - _inner(q, shifted) - member.entropy(q)
        return losses.clamp(min=0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, p, q, _ = inputs
        ctx.save_for_backward(p, q)
        ctx.save_for_forward(p, q)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        p, q = ctx.saved_tensors
        return gradients[0].unsqueeze(-1) * (p - q), None, None, None


class _WithTangents(_FenchelYoung):
    """With forward-mode derivatives, which torch.compile does not take."""

    @staticmethod
    def jvp(ctx: Any, scores: Tensor, *_: Any) -> Tensor:
        p, q = ctx.saved_tensors
        slope: Tensor = ((p - q) * scores).sum(-1)
        return slope


def _inner(p: Tensor, scores: Tensor) -> Tensor:
    """⟨p, s⟩; a class with p = 0 adds nothing, of a score of minus infinity, too."""
    product: Tensor = torch.where(p == 0, 0.0, p * scores).sum(-1)
    return product


def _distributions(rows: Tensor, target: Tensor, axis: int) -> Tensor:
    q = target.movedim(axis, -1) if target.ndim == rows.ndim else target
    if q.shape != rows.shape:
        raise InputError(
            f"expected a distribution for each row of scores, got {tuple(target.shape)} for "
            f"(…, classes) = {tuple(rows.shape)}; labels are integers"
        )
    return q.to(rows.dtype)


def _one_hot(rows: Tensor, labels: Tensor, ignored: int) -> tuple[Tensor, Tensor]:
    """Labels as distributions, and which rows count."""
    if labels.shape != rows.shape[:-1] or labels.dtype == torch.bool:
        raise InputError(
            f"expected an integer label for each row of scores, {tuple(rows.shape[:-1])}, got "
            f"{labels.dtype} of the shape {tuple(labels.shape)}"
        )
    kept = labels != ignored
    places = torch.where(kept, labels, 0).long().unsqueeze(-1)
    return torch.zeros_like(rows.detach()).scatter(-1, places, 1.0), kept


def _row_weights(
    q: Tensor, kept: Tensor | None, weight: Tensor | None, sample_weight: Tensor | None
) -> Tensor:
    """The product of both weights, 0 where a row is ignored."""
    if weight is not None and weight.shape != q.shape[-1:]:
        raise InputError(
            f"expected a weight for each of {q.shape[-1]} classes, got {tuple(weight.shape)}"
        )
    weights = torch.ones_like(q[..., 0]) if weight is None else q @ weight.to(q.dtype)
    if kept is not None:
        weights = weights * kept
    if sample_weight is None:
        return weights
    if sample_weight.shape != weights.shape:
        raise InputError(
            f"expected a sample weight for each row of scores, {tuple(weights.shape)}, got "
            f"{tuple(sample_weight.shape)}"
        )
    return weights * sample_weight


def _reduced(losses: Tensor, weights: Tensor, reduction: str) -> Tensor:
    weighted = losses * weights
    if reduction == "none":
        return weighted
    if reduction == "sum":
        return weighted.sum()
    return weighted.sum() / weights.sum()


def _check_reduction(reduction: str) -> None:
    if reduction not in get_args(Reduction):
        raise InputError(f"expected a reduction out of none, mean, sum, got {reduction!r}")
