"""argmax of scores with noise: the relaxations of it that are random."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor

from smx_lightning.activations.derivatives import check_scores, widened
from smx_lightning.activations.functions import hardmax, positive, softmax
from smx_lightning.errors import InputError


def gumbel_softmax(
    scores: Tensor,
    temperature: float = 1.0,
    dim: int = -1,
    *,
    hard: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """softmax((scores + Gumbel noise) / temperature) (Jang, Gu & Poole; Maddison et al. 2017).

    Args:
        scores: Any shape.
        temperature: Above 0. As it goes to 0 the values become one-hot draws from softmax(scores).
        dim: Where the classes are.
        hard: Whether values are exactly one-hot, with the gradient of those that are not
            (straight-through).
        generator: Of the noise.

    Raises:
        InputError: Of a temperature that is not above 0, or scores as in :func:`.entmax`.
    """
    check_scores(scores, dim)
    wide = widened(scores)
    soft = softmax(wide + gumbel_noise(wide, generator), temperature, dim)
    if hard:
        soft = hardmax(soft, dim) + (soft - soft.detach())
    return soft.to(scores.dtype)


def perturbed_argmax(
    scores: Tensor,
    sigma: float = 1.0,
    dim: int = -1,
    *,
    samples: int = 100,
    noise: Literal["normal", "gumbel"] = "normal",
    generator: Generator | None = None,
) -> Tensor:
    """The mean of hardmax(scores + sigma · noise) over samples (Berthet et al. 2020).

    Draw Z from the density exp(-ν). The draw s + σZ keeps its place when s moves by δ, and
    its density then is multiplied by exp(ν(Z) - ν(Z - δ / σ)): weighted so, the mean has
    unbiased derivatives of every order, the first of them E[hardmax · ∇ν(Z)ᵀ] / σ. With Gumbel
    noise the expectation is softmax(scores / sigma).

    Args:
        scores: Any shape; the work is done on ``samples`` copies at a time.
        sigma: The noise's scale, above 0.
        dim: Where the classes are.
        samples: Number of draws, at least 1. Errors fall with its square root.
        noise: Its distribution.
        generator: Of the noise.

    Raises:
        InputError: Of arguments out of these ranges, or scores as in :func:`.entmax`.
    """
    check_scores(scores, dim)
    wide = widened(scores)
    sigma = positive(sigma, "sigma", wide.dtype)
    if not isinstance(samples, int) or samples < 1 or noise not in ("normal", "gumbel"):
        raise InputError(
            "expected at least 1 of samples, a whole number, and noise 'normal' or 'gumbel', "
            f"got {samples} and {noise!r}"
        )
    axis = dim % scores.ndim + 1
    wide = wide.expand(samples, *scores.shape)
    drawn = gumbel_noise(wide, generator) if noise == "gumbel" else _normal(wide, generator)
    moved = torch.where(wide.isfinite(), wide, 0.0)
    shift = (moved - moved.detach()) / sigma
    weights = _log_ratio(drawn, shift, noise).sum(axis, keepdim=True).exp()
    return (hardmax(wide + sigma * drawn, axis) * weights).mean(0).to(scores.dtype)


def gumbel_noise(like: Tensor, generator: Generator | None = None) -> Tensor:
    """-log of exponential noise, of the shape and dtype of ``like``."""
    waits = torch.empty(like.shape, dtype=like.dtype, device=like.device)
    return -waits.exponential_(generator=generator).log()


def _normal(like: Tensor, generator: Generator | None) -> Tensor:
    return torch.randn(like.shape, dtype=like.dtype, device=like.device, generator=generator)


def _log_ratio(drawn: Tensor, shift: Tensor, noise: str) -> Tensor:
    """ν(Z) - ν(Z - shift): ν(z) = z² / 2 of normal noise, z + exp(-z) of Gumbel noise."""
    if noise == "normal":
        return drawn * shift - shift.square() / 2
    return shift - (-drawn).exp() * torch.expm1(shift)
