"""The threshold of α-entmax without sorting, in a number of steps that is known beforehand.

With ε = α - 1 and t = s - max s, p = exp_ε(t - θ), where exp_ε(v) = relu(1 + εv)^(1/ε) is the
inverse of ln_ε(p) = (p^ε - 1) / ε, and θ is where S(θ) = Σ p is 1. As max t = 0, θ lies between 0,
where S is at least 1, and -ln_ε(1/K), where all p are at most 1/K.

For ε from 0 to 1, f(θ) = ln_ε(S(θ)) is convex and decreasing (S^ε is the 1/ε-norm of
relu(1 + ε(t - θ)), and at ε → 0 f is the log-sum-exp of t - θ), so that Newton's method from
θ = 0 comes from below and never passes the solution. :func:`newton_steps` says when it has arrived.
Beyond ε = 1 f is not convex, and the interval is halved.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from smx_lightning.activations.sorting import sorted_entmax15, sorted_sparsemax

BLOCK = 2**17  # entries that are worked on at a time, so that they stay in a processor's cache
LINE = 16  # neighbouring numbers that a cache fetches together
SORTED = 2**12  # entries up to which the threshold starts from sorted ones
FEW = 16  # classes up to which the digits of a threshold are enough
MOST_CLASSES = 2**24  # where their number is not known before the graph runs


def entmax_probs(scores: Tensor, alpha: float | Tensor, dim: int) -> Tensor:
    """α-entmax of float32 or float64 scores, without a gradient.

    Args:
        scores: Any shape.
        alpha: At least 1; a tensor has the shape of the scores with 1 along ``dim``, or fewer axes.
        dim: Where the classes are.

    Returns:
        p, as ``scores``: at least 0, with sums of 1. NaN along ``dim`` where a score is NaN or plus
        infinity, or all are minus infinity, as of softmax.
    """
    shifted = scores - scores.amax(dim, keepdim=True)
    if isinstance(alpha, Tensor):
        return _halved(shifted, (alpha - 1).clamp(min=torch.finfo(scores.dtype).eps), dim)
    if alpha > 2:
        return _halved(shifted, torch.full_like(shifted[..., :1].sum(), alpha - 1), dim)
    if alpha == 1:
        return shifted.softmax(dim)
    # By a table, for which torch.compile takes α as a number; else it follows it, and rounds anew.
    solve = {2.0: _sparsemax_, 1.5: _entmax15_}.get(alpha, _entmax_)
    if solve is not _entmax_ and _is_small(shifted):
        wide = shifted.double()
        if wide is not shifted:  # beside float32's its rounding is nothing
            solve(wide, alpha - 1, 0, dim, True)
            return wide.float()
        solve(wide, alpha - 1, int(scores.shape[dim] > FEW), dim, True)
        return wide.div_(wide.sum(dim, keepdim=True))
    steps = newton_steps(_known(scores.shape[dim]), alpha - 1, torch.finfo(scores.dtype).eps)
    for block in _blocks(shifted, dim):
        solve(block, alpha - 1, steps, dim, False)
    return shifted


def newton_steps(classes: int, power: float, eps: float) -> int:
    """Steps after which S(θ) - 1 is at most ``eps``, whatever the scores.

    A step of Newton's method goes to where the tangent is 0. The next tangent, taken back to where
    the last step began, lies below f there, as f is convex: f' + g'·f/g ≤ f, with f' and g' the
    next value and the next slope's modulus, and so f'/f + g'/g ≤ 1. Then
    (f'/f)^λ (g'/g)^(1-λ) ≤ 2^(-H(λ)) for every λ in (0, 1), with H(λ) the entropy of a coin in
    bits: n steps divide f^λ g^(1-λ) by at least 2^(n H(λ)). At the start f ≤ ln_ε(K) and g ≤ K^ε,
    and g is never below 1 (norms: ‖x‖_q ≥ ‖x‖_r ≥ K^(1/r - 1/q) ‖x‖_q where q ≤ r). With a and b
    the binary logarithms of ln_ε(K) / ``eps`` and of K^ε, f is at most ``eps`` after

        n = (λ a + (1 - λ) b) / H(λ) steps;

    λ = 1/2 says that each divides f·g by 4. Near the least of them is λ = b / (a + b). For
    sparsemax K steps do, too: each but the last takes a class out of the support.

    Args:
        classes: K, at least 1.
        power: ε = α - 1, above 0 and at most 1.
        eps: Above 0.
    """
    if classes < 2:
        return 1
    a = math.log2(math.expm1(power * math.log(classes)) / (power * eps))
    b = power * math.log2(classes)
    share = b / (a + b)
    bits = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    needed = math.ceil((share * a + (1 - share) * b) / bits)
    return min(needed, classes) if power == 1 else needed


def _is_small(z: Tensor) -> bool:
    """Whether sorting takes less time than to start the operators of all steps."""
    if torch.compiler.is_compiling() or z.device.type == "mps":  # which has no float64
        return False
    return z.numel() <= SORTED


def _known(classes: int) -> int:
    """Number of classes, or the most there may be where a graph leaves it open."""
    return MOST_CLASSES if isinstance(classes, torch.SymInt) else classes


def _blocks(shifted: Tensor, dim: int) -> tuple[Tensor, ...]:
    """Views of it along another axis, small enough for a cache; in a graph, all of it."""
    if torch.compiler.is_compiling() or shifted.ndim < 2 or shifted.numel() <= BLOCK:
        return (shifted,)
    rest = [axis for axis in range(shifted.ndim) if axis != dim % shifted.ndim]
    longest = max(rest, key=lambda axis: shifted.shape[axis])
    least = LINE if longest == shifted.ndim - 1 else 1
    rows = max(least, BLOCK * shifted.shape[longest] // shifted.numel())
    blocks: tuple[Tensor, ...] = torch.split(shifted, rows, longest)
    return blocks


def _sparsemax_(z: Tensor, _power: float, steps: int, dim: int, near: bool) -> None:
    """Puts p in the place of z = t: p = relu(z - τ), τ = θ - 1, where τ rises by (S - 1) / N.

    z itself is lowered, as a small z - τ has more digits than τ; with many classes these are most
    of the sum. No step goes back: where rounding has gone past τ and left one class in the support,
    it would let thousands in again. A step falls short by more than its rounding, so as not to.
    """
    short = 1 - 8 * torch.finfo(z.dtype).eps
    z.sub_(sorted_sparsemax(z, dim) if near else -1)
    x = torch.empty_like(z) if steps else z
    for _ in range(steps):
        torch.clamp(z, min=0, out=x)
        surplus = x.sum(dim, keepdim=True).sub_(1).relu_()
        z.sub_(surplus.mul_(short).div_(x.sign_().sum(dim, keepdim=True)))
    z.relu_()
    if not near:
        z.div_(z.sum(dim, keepdim=True))


def _entmax15_(z: Tensor, _power: float, steps: int, dim: int, near: bool) -> None:
    """Puts p in the place of z = t: p = relu(z / 2 - τ)², τ = θ / 2 - 1, by (S - √S) / Σ √p."""
    z.mul_(0.5)
    tau = sorted_entmax15(z, dim) if near else torch.full_like(z.narrow(dim, 0, 1), -1.0)
    last = steps > 0 and _known(z.shape[dim]) > FEW
    x = torch.empty_like(z) if steps else z
    for _ in range(steps - last):
        torch.sub(z, tau, out=x).relu_()
        slope = x.sum(dim, keepdim=True)
        total = x.square_().sum(dim, keepdim=True)
        tau.addcdiv_(total - total.sqrt(), slope)
    z.sub_(tau)
    if last:
        x = z.relu()
        slope = x.sum(dim, keepdim=True)
        total = x.square_().sum(dim, keepdim=True)
        z.addcdiv_(total.sqrt().sub_(total), slope).relu_().square_()
    else:
        z.relu_().square_()
        if not near:
            z.div_(z.sum(dim, keepdim=True))


def _entmax_(z: Tensor, power: float, steps: int, dim: int, _near: bool) -> None:
    """Puts p in the place of z = t; θ rises by ln_ε(S) S^(1-ε) / Σ p^(1-ε)."""
    theta = torch.zeros_like(z.narrow(dim, 0, 1))
    for _ in range(steps):
        logs = _log_exp(z - theta, power)
        slope = (logs * (1 - power)).exp_().sum(dim, keepdim=True)
        log_total = logs.exp_().sum(dim, keepdim=True).log_()
        rise = (log_total * power).expm1_().div_(power).mul_((log_total * (1 - power)).exp_())
        theta.addcdiv_(rise, slope)
    logs = _log_exp(z.sub_(theta), power)
    slopes = (logs * (1 - power)).exp_()
    p = logs.exp_()
    surplus = p.sum(dim, keepdim=True).sub_(1).div_(slopes.sum(dim, keepdim=True))
    p.sub_(slopes.mul_(surplus)).relu_()
    p.div_(p.sum(dim, keepdim=True))


def _log_exp(v: Tensor, power: float | Tensor) -> Tensor:
    """Logarithm of exp_ε(v), in place; right also where ε is next to nothing."""
    return v.mul_(power).clamp_(min=-1).log1p_().div_(power)


def _halved(shifted: Tensor, power: Tensor, dim: int) -> Tensor:
    """Halves [0, -ln_ε(1/K)] down to neighbouring numbers.

    Of the p at both ends, one sum is at least 1 and one at most; p is their mean with weights by
    which the sum is 1. Above α = 2, where a class enters the support with an infinite slope and a
    unit of rounding may be much of its p, what the others leave goes to the classes at the edge.
    """
    classes = _known(shifted.shape[dim])
    low = torch.zeros_like(shifted.narrow(dim, 0, 1))
    high = low - torch.expm1(-power * math.log(classes)) / power
    for _ in range(4 - round(math.log2(torch.finfo(shifted.dtype).eps))):
        middle = (low + high) / 2
        above = _log_exp(shifted - middle, power).exp_().sum(dim, keepdim=True) >= 1
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    more, less = (_log_exp(shifted - end, power).exp_() for end in (low, high))
    surplus, deficit = more.sum(dim, keepdim=True) - 1, 1 - less.sum(dim, keepdim=True)
    width = surplus + deficit
    share = torch.where(width > 0, deficit / torch.where(width > 0, width, 1), 1.0)
    p = less + share.clamp(0, 1) * (more - less)
    return p / p.sum(dim, keepdim=True)
