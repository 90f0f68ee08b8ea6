"""Softmax regression's optimum without a Trainer: a plain loop over batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from smx_lightning.errors.checks import at_least, non_negative
from smx_lightning.optim.descent import Descent
from smx_lightning.optim.evaluation import Evaluation, weighted
from smx_lightning.optim.span import spanned
from smx_lightning.optim.status import Status, message

CACHED_ENTRIES = 2**21  # 8 MB of float32: with little else in a last-level cache
OVERHEAD = 2e7  # of a pass of a few small operations, in fast multiplications and additions


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
        evaluations: Of the objective, whether over the batches or over rows in their span.
    """

    weight: Tensor
    bias: Tensor
    status: Status
    message: str
    objective: float
    gap: float
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
) -> Solution:
    """Minimise  Σ c · Σ_k -q_k log p_k / Σ c + ½ · l2 · ‖W‖²  over W and b.

    Args:
        batches: Iterated once a pass: the same rows each time, as (x, y) or (x, y, weight); x
            (rows, features), y (rows,) labels or (rows, classes) distributions, weight (rows,).
        num_features: d.
        num_classes: K, at least 2.
        l2: Weight of the penalty; the bias is free.
        tol: Stop when the largest absolute entry of the gradient is at most this.
        memory: Curvature pairs that L-BFGS remembers.
        class_weight: (classes,), times each row's own weight. Of a distribution, q_k counts times
            the weight of class k.
        start: Weight and bias to start from; ``None``: zero.
        dtype: float32 or float64, of parameters and products.
        max_evaluations: Evaluations, at most; rows fewer than features and with an l2 are gathered
            (up to 1 GB) and solved in their span, see :mod:`smx_lightning.optim.span`.

    Raises:
        InputError: For rows that come and go, and for other arguments than these.
    """
    non_negative("l2", l2)
    non_negative("tol", tol)
    point = _start(start, at_least("num_classes", num_classes, 2), num_features)
    begin = partial(Descent, dtype=dtype, memory=at_least("memory", memory, 1), overhead=OVERHEAD)

    def run(descent: Descent, batches: Iterable[Sequence[Tensor]], most: int) -> None:
        count = float(len(batches)) if isinstance(batches, Sequence) else float("inf")
        while descent.status is Status.RUNNING and descent.evaluations < most:
            _pass(descent, batches, l2, count, class_weight)

    span = spanned(batches, num_features, num_classes, dtype) if l2 > 0 else None
    before = 0
    if span is not None:
        inner = begin(span.narrow(point), tol=tol / 2, at_once=False)
        run(inner, [span.batch], max_evaluations - 1)
        point, before = span.widen(inner.point), inner.evaluations
    descent = begin(point, tol=tol, at_once=span is None)
    run(descent, batches, max_evaluations - before)
    return _solution(descent, before + descent.evaluations)


def _start(start: tuple[Tensor, Tensor] | None, num_classes: int, num_features: int) -> Tensor:
    if start is None:
        return torch.zeros(num_classes, num_features + 1, dtype=torch.float64)
    weight, bias = start
    return torch.cat([weight, bias[:, None]], 1).double()


def _pass(
    descent: Descent,
    batches: Iterable[Sequence[Tensor]],
    l2: float,
    count: float,
    class_weight: Tensor | None,
) -> Evaluation:
    """Every batch once, at the point that is asked for."""
    point = descent.begin(l2=l2, batches=count)
    weight, bias = point[:, :-1].to(descent.dtype), point[:, -1].to(descent.dtype)
    for x, y, *rest in batches:
        y, weights = weighted(y, rest[0] if rest else None, class_weight)
        rows = x.to(descent.dtype)
        # In parts that stay in a cache from the product with W to the product with the residuals.
        size = max(CACHED_ENTRIES // max(x.shape[1], 1), 1)
        for at in range(0, len(x), size):
            part = slice(at, at + size)
            log_probs = torch.addmm(bias[:, None], weight, rows[part].T).log_softmax(0).T
            descent.add(rows[part], log_probs, y[part], None if weights is None else weights[part])
    return descent.end()


def _solution(descent: Descent, evaluations: int) -> Solution:
    point, best = descent.point, descent.best
    return Solution(
        weight=point[:, :-1].to(descent.dtype),
        bias=point[:, -1].to(descent.dtype),
        status=descent.status,
        message=message(descent.status, best),
        objective=float("inf") if best is None else best.objective,
        gap=descent.gap,
        evaluations=evaluations,
    )
