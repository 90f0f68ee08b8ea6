"""The regression's optimum without a Trainer: a plain loop over batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from smx_lightning.activations.family import SOFTMAX, Activation, activation_of
from smx_lightning.errors import InputError
from smx_lightning.errors.checks import at_least, non_negative
from smx_lightning.optim.descent import Descent
from smx_lightning.optim.loop import OVERHEAD, one_pass
from smx_lightning.optim.problem import Batches, Problem
from smx_lightning.optim.status import Status, message


@dataclass(frozen=True)
class Solution:
    """Where the solver stopped, and why.

    Attributes:
        weight: (classes, features) in the dtype asked for.
        bias: (classes,).
        status: A :class:`Status`.
        message: The same in a sentence.
        objective: At this point.
        gap: How much of the objective more passes could take off at most, about; see
            docs/solver.md.
        rounding: Up to how large an entry of the gradient rounding explains at this point.
        evaluations: Passes over the batches; those in the span of gathered rows are not counted.
    """

    weight: Tensor
    bias: Tensor
    status: Status
    message: str
    objective: float
    gap: float
    rounding: float
    evaluations: int


@torch.no_grad()
def minimise(
    batches: Iterable[Sequence[Tensor]],
    num_features: int,
    num_classes: int,
    *,
    l2: float = 0.0,
    tol: float = 1e-6,
    memory: int = 20,
    class_weight: Tensor | None = None,
    start: tuple[Tensor, Tensor] | None = None,
    dtype: torch.dtype = torch.float32,
    max_evaluations: int = 1000,
    activation: str | Mapping[str, Any] | Activation = SOFTMAX,
    intercept: bool = True,
) -> Solution:
    """Minimise  Σ c · Σ_k -q_k log p_k / Σ c + ½ · l2 · ‖W‖²  over W and b.

    Of other activations Σ_k … is Ω*(s) - ⟨s, q⟩ (:mod:`smx_lightning.activations.family`).

    Args:
        batches: Iterated once a pass: the same rows each time, as (x, y) or (x, y, weight); x
            (rows, features), y (rows,) labels or (rows, classes) distributions, weight (rows,).
        num_features: d.
        num_classes: K, at least 2.
        l2: Weight of the penalty; the bias is free.
        tol: Stop when the largest absolute entry of the gradient is at most this.
        memory: Curvature pairs that L-BFGS remembers.
        class_weight: (classes,), times each row's own weight, or a distribution's q_k.
        start: Weight and bias to start from; ``None``: zero.
        dtype: float32 or float64, of parameters and products.
        max_evaluations: Passes over the batches, at most.
        activation: ``"softmax"``, ``"sparsemax"``, ``"entmax15"``, or ``{"alpha": 1 to 2}``.
        intercept: Whether there is a bias: it stays 0 otherwise.

    Raises:
        InputError: For rows that come and go, and for other arguments than these.
    """
    problem = Problem(num_features, num_classes, class_weight, dtype=dtype, intercept=intercept)
    descent = Descent(
        problem.start(start),
        dtype=_dtype(dtype),
        tol=non_negative("tol", tol),
        memory=at_least("memory", memory, 1),
        overhead=OVERHEAD,
        activation=activation_of(activation),
        intercept=intercept,
    )
    l2, most = non_negative("l2", l2), at_least("max_evaluations", max_evaluations, 1)
    _descend(descent, problem, batches, l2, most)
    return _solution(descent)


def _descend(descent: Descent, problem: Problem, batches: Batches, l2: float, most: int) -> None:
    count = float(len(batches)) if isinstance(batches, Sequence) else float("inf")
    while descent.status is Status.RUNNING and descent.evaluations < most:
        weighted = problem.weighted(batches, first=descent.evaluations == 0)
        one_pass(descent, weighted, l2=l2, count=count, held=isinstance(batches, (list, tuple)))


def _dtype(dtype: torch.dtype) -> torch.dtype:
    if dtype not in (torch.float32, torch.float64):
        name = str(dtype).removeprefix("torch.")
        raise InputError(f"expected dtype float32 or float64, got {name}; take float32")
    return dtype


def _solution(descent: Descent) -> Solution:
    point, best = descent.parameters, descent.best
    return Solution(
        weight=point[:, :-1].to(descent.dtype, copy=True),  # no inference tensors
        bias=point[:, -1].to(descent.dtype, copy=True),
        status=descent.status,
        message=message(descent.status, best),
        objective=descent.objective,
        gap=descent.gap,
        rounding=descent.rounding,
        evaluations=descent.evaluations,
    )
