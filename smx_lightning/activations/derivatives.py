"""α-entmax with its derivatives, of any order, by the scores and by α."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from smx_lightning.activations.threshold import entmax_probs
from smx_lightning.errors import InputError

SINGLE = 4  # bytes a number of float32
SERIES = 0.5  # |y| up to which ψ is summed up, as its closed form cancels there
TERMS = 18


def entmax(scores: Tensor, alpha: float | Tensor = 1.5, dim: int = -1) -> Tensor:
    """α-entmax: softmax at α = 1, sparse probabilities above (Peters, Niculae & Martins, 2019).

    float16 and bfloat16 are computed in float32. An entry of minus infinity gets 0; probabilities
    along ``dim`` are NaN where a score is NaN or plus infinity, or all are minus infinity, as of
    softmax.

    Args:
        scores: Floating-point numbers of any shape.
        alpha: At least 1. A tensor may be learnt: its shape broadcasts to the scores', with 1 along
            ``dim``; its values are not looked at, and one below 1 counts as 1 in p.
        dim: Where the classes are.

    Returns:
        Probabilities, in the shape and the dtype of the scores.

    Raises:
        InputError: Of scores that are no floating-point numbers, or have no class, or where α is a
            number below 1 or a tensor of another shape.
    """
    check_scores(scores, dim)
    if not isinstance(alpha, Tensor) and not 1 <= alpha < math.inf:
        raise InputError(f"expected alpha to be a finite number of at least 1, got {alpha}")
    wide = widened(scores)
    if isinstance(alpha, Tensor):
        check_beside(alpha, "alpha", scores, dim)
        alpha = alpha.to(wide.dtype)
    elif alpha == 1:
        return scores.softmax(dim)
    p = _apply(wide, alpha, dim % scores.ndim)
    return p if wide is scores else p.to(scores.dtype)


def widened(scores: Tensor) -> Tensor:
    """In float32 where they have fewer digits."""
    return scores.float() if scores.dtype.itemsize < SINGLE else scores


def check_scores(scores: Tensor, dim: int) -> None:
    """Complain about scores without floating-point numbers, or without a class along ``dim``."""
    if not scores.dtype.is_floating_point:
        raise InputError(
            f"expected scores of a floating-point dtype, got {scores.dtype}: convert them by "
            "float()"
        )
    if scores.ndim == 0 or not -scores.ndim <= dim < scores.ndim or scores.shape[dim] == 0:
        raise InputError(
            f"expected scores with at least one class along dimension {dim}, got the shape "
            f"{tuple(scores.shape)}"
        )


def check_beside(values: Tensor, name: str, scores: Tensor, dim: int) -> None:
    """Complain about numbers that differ between the classes of a row, or are of more rows.

    Args:
        values: What has one number for all classes along ``dim``.
        name: What it is called.
        scores: They passed :func:`check_scores`.
        dim: Where the classes are.
    """
    rows = list(scores.shape)
    rows[dim] = 1
    least = scores.ndim - values.ndim
    if least < 0 or any(n not in (1, m) for n, m in zip(values.shape, rows[least:], strict=True)):
        raise InputError(
            f"expected {name} of a shape that broadcasts to {tuple(rows)}, one number for all "
            f"classes of a row, got {tuple(values.shape)}: expand the scores where it has more rows"
        )


class _Entmax(torch.autograd.Function):
    """p, and its derivatives in terms of p: J = diag(u) - u uᵀ / Σu, u = p^(2-α) on the support."""

    @staticmethod
    def forward(scores: Tensor, alpha: float | Tensor, dim: int) -> Tensor:
        return entmax_probs(scores, alpha, dim)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _save(ctx, output, *inputs[1:])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return _backward(ctx, *gradients)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        scores, alpha, dim = inputs
        rows, alphas, _ = in_dims
        axes = scores.ndim - (rows is not None)
        scores = scores.unsqueeze(0) if rows is None else scores.movedim(rows, 0)
        if alphas is not None:
            alpha = alpha.movedim(alphas, 0)
            alpha = alpha.reshape(len(alpha), *[1] * (axes - alpha.ndim + 1), *alpha.shape[1:])
            scores = scores.expand(info.batch_size, *scores.shape[1:])
        return _apply(scores, alpha, dim + 1), 0


class _WithTangents(_Entmax):
    """With forward-mode derivatives, which torch.compile does not take."""

    @staticmethod
    def jvp(ctx: Any, *directions: Tensor | None) -> Tensor:
        return _tangent(ctx, *directions[:2])


class _Eager(torch.autograd.Function):
    """The same where nothing is traced or transformed: few scores take an eighth less time."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, alpha: float | Tensor, dim: int) -> Tensor:
        p = entmax_probs(scores, alpha, dim)
        _save(ctx, p, alpha, dim)
        return p

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return _backward(ctx, *gradients)

    @staticmethod
    def jvp(ctx: Any, *directions: Tensor | None) -> Tensor:
        return _tangent(ctx, *directions[:2])


def _save(ctx: Any, p: Tensor, alpha: float | Tensor, dim: int) -> None:
    """Keep what derivatives are made of."""
    learnt = (alpha,) if isinstance(alpha, Tensor) else ()
    ctx.alpha, ctx.dim = (None if learnt else alpha), dim
    ctx.set_materialize_grads(False)  # a loss gives none to p
    ctx.save_for_backward(p, *learnt)
    ctx.save_for_forward(p, *learnt)


def _backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, ...]:
    if gradient is None:
        return None, None, None
    p, *learnt = ctx.saved_tensors
    alpha = learnt[0] if learnt else ctx.alpha
    by_scores = jacobian_product(p, gradient, alpha, ctx.dim)
    if not (learnt and ctx.needs_input_grad[1]):
        return by_scores, None, None
    by_alpha = -(by_scores * _growth(p, alpha)).sum_to_size(alpha.shape)
    return by_scores, by_alpha, None


def _tangent(ctx: Any, scores: Tensor | None, alpha: Tensor | None) -> Tensor:
    p, *learnt = ctx.saved_tensors
    given = learnt[0] if learnt else ctx.alpha
    if alpha is None and scores is not None:
        # torch takes what a jvp computes for constant: a tangent's tangent would be 0.
        with forward_ad._set_fwd_grad_enabled(True):
            return jacobian_product(p, scores, given, ctx.dim)
    direction = torch.zeros_like(p) if scores is None else scores
    if alpha is not None:
        direction = direction - alpha * _growth(p, given)
    return jacobian_product(p, direction, given, ctx.dim)


def _apply(scores: Tensor, alpha: float | Tensor, dim: int) -> Tensor:
    function: type[torch.autograd.Function] = _Eager
    if torch.compiler.is_compiling():
        function = _Entmax
    elif torch._C._are_functorch_transforms_active():
        function = _WithTangents
    p: Tensor = function.apply(scores, alpha, dim)  # type: ignore[no-untyped-call]
    return p


def jacobian_product(p: Tensor, direction: Tensor, alpha: float | Tensor, dim: int) -> Tensor:
    """J d = u∘d - u ⟨u, d⟩ / Σu, itself differentiable; 0 off the support, whatever d is there."""
    u = _weights(p, alpha)
    weighted = u * direction
    mean = weighted.sum(dim, keepdim=True) / u.sum(dim, keepdim=True)
    return torch.addcmul(weighted, u, mean, value=-1)


def _weights(p: Tensor, alpha: float | Tensor) -> Tensor:
    """Of p the u = p^(2-α), and 0 where p is 0, with no infinite slope there."""
    if not isinstance(alpha, Tensor) and alpha == 2:
        return p.sign()
    if not isinstance(alpha, Tensor) and alpha == 1.5:
        if not torch.is_grad_enabled():  # else the slope of the root counts, too
            return p.sqrt()
        return p.clamp(min=torch.finfo(p.dtype).tiny).sqrt() * p.sign()
    inside = p > 0
    return torch.where(inside, torch.where(inside, p, 1.0).pow(2 - alpha), p)


def _growth(p: Tensor, alpha: Tensor) -> Tensor:
    """By how much ln_ε(p) grows with ε = α - 1 at that p: α changes p as scores lower by it would.

    ∂/∂ε (p^ε - 1) / ε = L² ψ(εL) with L = log p, ψ(y) = (1 + (y - 1) exp y) / y²
    = Σ (k - 1) y^(k-2) / k! over k from 2. Where p is 0 it does not count, and is 0 here.
    """
    inside = torch.where(p > 0, p, 1.0)
    logs = inside.log()
    y = (alpha - 1) * logs
    near = y.abs() <= SERIES
    small, large = torch.where(near, y, 0.0), torch.where(near, 1.0, y)
    series = torch.zeros_like(small)
    for k, factorial in reversed(FACTORIALS):
        series = series * small + (k - 1) / factorial
    closed = (1 + (large - 1) * large.exp()) / large.square()
    return logs.square() * torch.where(near, series, closed)


def _factorials() -> list[tuple[int, float]]:
    found, product = [], 1.0
    for k in range(2, TERMS):
        product *= k
        found.append((k, product))
    return found


FACTORIALS = _factorials()
