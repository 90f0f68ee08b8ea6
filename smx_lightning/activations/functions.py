"""The members as functions of scores, by the field's names.

All take scores of any shape with the classes along ``dim``, compute float16 and bfloat16 in
float32, give back the dtype that they took, and answer NaN along ``dim`` where a score is NaN or
plus infinity, or all are minus infinity; one of minus infinity gets 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from smx_lightning.activations.derivatives import (
    check_beside,
    check_scores,
    entmax,
    widened,
)
from smx_lightning.errors import InputError

FAR = 1024  # noise of float64 is never larger


def hardmax(scores: Tensor, dim: int = -1) -> Tensor:
    """1 for the largest score, the first of them where several are, and 0 for others.

    It is constant wherever it is continuous, so that it has no gradient.
    """
    check_scores(scores, dim)
    largest, place = scores.detach().max(dim, keepdim=True)
    return torch.zeros_like(scores.detach()).scatter(dim, place, 1.0) + (largest - largest)


def softmax(scores: Tensor, temperature: float | Tensor = 1.0, dim: int = -1) -> Tensor:
    """Softmax of scores / temperature: near :func:`hardmax` at 0, uniform at infinity.

    Args:
        scores: See the module.
        temperature: Above 0. A tensor's shape broadcasts to the scores', with 1 along ``dim``; its
            values are not looked at.
        dim: Where the classes are.

    Raises:
        InputError: Of a temperature that is not above 0, or of another shape, or scores as in
            :func:`entmax`.
    """
    return _tempered(scores, temperature, dim, torch.softmax)


def log_softmax(scores: Tensor, temperature: float | Tensor = 1.0, dim: int = -1) -> Tensor:
    """The logarithm of :func:`softmax`, where that is 0, too."""
    return _tempered(scores, temperature, dim, torch.log_softmax)


def _tempered(
    scores: Tensor,
    temperature: float | Tensor,
    dim: int,
    function: Callable[[Tensor, int], Tensor],
) -> Tensor:
    """The function of (s - max s) / temperature: s / temperature may overflow."""
    check_scores(scores, dim)
    wide = widened(scores)
    if isinstance(temperature, Tensor):
        check_beside(temperature, "temperature", scores, dim)
    elif temperature == 1:
        return function(scores, dim)
    else:
        temperature = positive(temperature, "temperature", wide.dtype)
    shifted = wide - wide.detach().amax(dim, keepdim=True)
    return function(shifted / temperature, dim).to(scores.dtype)


def positive(value: float, name: str, dtype: torch.dtype) -> float:
    """A finite number above 0, where need be nearer to 1, so that products stay in the dtype."""
    if not 0 < value < math.inf:
        raise InputError(f"expected {name} to be a finite number above 0, got {value}")
    limits = torch.finfo(dtype)
    return min(max(value, limits.tiny), limits.max / FAR)


def sparsemax(scores: Tensor, dim: int = -1) -> Tensor:
    """The nearest point of the simplex (Martins & Astudillo 2016): α-entmax of α = 2."""
    return entmax(scores, 2.0, dim)


def entmax15(scores: Tensor, dim: int = -1) -> Tensor:
    """α-entmax of α = 1.5 (Peters, Niculae & Martins 2019), between softmax and sparsemax."""
    return entmax(scores, 1.5, dim)


def normmax(scores: Tensor, alpha: float = 2.0, dim: int = -1) -> Tensor:
    """Argmax over the simplex of ⟨p, s⟩ - ‖p‖_α (Blondel, Martins & Niculae 2020, sec. 4.3).

    With r = p / ‖p‖_α optimality is s - τ = r^(α-1) on the support, Σ r^α = 1: with ε = 1 - 1/α,
    r^α is (1 + ε)-entmax of s / ε.

    Args:
        scores: See the module.
        alpha: Above 1.
        dim: Where the classes are.

    Raises:
        InputError: Of an α that is not above 1, or scores as in :func:`entmax`.
    """
    if not 1 < alpha < math.inf:
        raise InputError(f"expected alpha to be a finite number above 1, got {alpha}")
    check_scores(scores, dim)
    power = 1 - 1 / alpha
    wide = widened(scores)
    shifted = wide - wide.detach().amax(dim, keepdim=True)
    q = entmax(shifted / power, 1 + power, dim)
    r = torch.where(q > 0, torch.where(q > 0, q, 1.0).pow(1 / alpha), q)
    return (r / r.sum(dim, keepdim=True)).to(scores.dtype)
