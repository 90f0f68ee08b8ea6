"""Accuracy and NLL on the user's labelled rows, and what rounding the weights costs in them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from smx_export.graph.inference_copy import InferenceCopy
from smx_export.parity.report import Flip, Rounding
from smx_export.parity.user_data import YOUR_DATA, Targets, UserRows
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.activations import SOFTMAX, Activation, fenchel_young_loss


@dataclass
class Score:
    """Accuracy and mean negative log-likelihood of rows that arrive in parts, weighted means.

    Of a distribution q they are Σ_k q_k [k is chosen] and Σ_k -q_k log p_k. Rows without a target
    count for nothing.
    """

    rows: int = 0
    total: float = 0
    correct: float = 0
    nats: float = 0.0

    def add(
        self,
        log_probs: NDArray[np.floating] | None,
        chosen: NDArray[np.int64],
        targets: Targets,
    ) -> None:
        """Count a part: log-probabilities (n, classes) if there are any, choices and targets."""
        known = targets.known
        if not known.all():
            chosen, targets = chosen[known], targets.of_rows(known)
            log_probs = None if log_probs is None else log_probs[known]
        y, weight = targets.y, targets.weight
        at = np.arange(len(y))
        hits = chosen == y if y.ndim == 1 else y[at, chosen]
        self.rows += len(y)
        self.total += len(y) if weight is None else float(weight.sum())
        self.correct += float(hits.sum() if weight is None else weight @ hits)
        if log_probs is None:  # a label alone
            self.nats = math.nan
            return
        own = log_probs[at, y] if y.ndim == 1 else _expected(log_probs, y)
        self.nats -= float(own.sum(dtype=np.float64) if weight is None else weight @ own)

    @property
    def accuracy(self) -> float:
        """Share of rows that were chosen right."""
        return self.correct / self.total

    @property
    def nll(self) -> float:
        """Nats a row."""
        return self.nats / self.total


def _expected(log_probs: NDArray[np.floating], q: NDArray[np.floating]) -> NDArray[np.floating]:
    """Σ_k q_k log p_k of each row; a class that is not wanted costs nothing."""
    with np.errstate(invalid="ignore"):
        expected: NDArray[np.floating] = np.where(q > 0, q * log_probs, 0).sum(1)
    return expected


def decided(model: SoftmaxRegression, log_probs: NDArray[np.floating]) -> NDArray[np.int64]:
    """The class of each row, at the threshold γ where there is one."""
    chosen: NDArray[np.int64] = model.decide(torch.from_numpy(log_probs)).numpy()
    return chosen


def _lost(scores: torch.Tensor, targets: Targets, member: Activation) -> float:
    """The sum of some rows' losses, those of distributions without the entropy of these."""
    target, weight = torch.from_numpy(targets.y), targets.weight
    losses = fenchel_young_loss(scores, target, member, reduction="none")
    if target.ndim == 2:
        losses = losses + member.entropy(target.double())
    return float(losses.sum() if weight is None else torch.from_numpy(weight) @ losses)


def cost_of_rounding(inference: InferenceCopy, own: UserRows) -> Rounding:
    """What rounding the weights costs on labelled rows, without those that have no answer.

    Raises:
        InputError: Where no row has one.
    """
    before, after, flips = Score(), Score(), []
    model, exactly = inference.model, inference.unrounded
    names, member = model.class_names, model._smx_activation
    lost = np.zeros(2)  # of a sparse activation its loss: log p may be -∞, which no budget holds
    for block, targets in own.blocks(inference.width):
        assert targets is not None
        x = torch.from_numpy(block.x)
        with torch.no_grad():
            exact, coarse = (side(x).double().numpy() for side in (exactly, model))
            answered = ~np.isnan(exact).any(1) & targets.known
            targets = targets.of_rows(answered)
            if member != SOFTMAX:
                lost += [
                    _lost(side.scores(x[torch.from_numpy(answered)]).double(), targets, member)
                    for side in (exactly, model)
                ]
        exact, coarse = exact[answered], coarse[answered]
        chosen, moved = decided(model, exact), decided(model, coarse)
        before.add(exact, chosen, targets)
        after.add(coarse, moved, targets)
        for row in np.flatnonzero(chosen != moved):
            k, j = chosen[row], moved[row]
            margin = float(exact[row, k] - exact[row, j])
            given = block.first + int(np.flatnonzero(answered)[row])
            flips.append(Flip(YOUR_DATA, given, names[k], names[j], margin, 0))
    if not before.rows:
        raise InputError(
            "expected data with rows that have an answer, got NaN or what overflows in all of "
            f"{len(own.x)}; remove or impute such rows"
        )
    nll, measure = (before.nll, after.nll), "NLL"
    if member != SOFTMAX:
        nll, measure = (float(lost[0] / before.total), float(lost[1] / before.total)), "loss"
    return Rounding(before.rows, before.accuracy, after.accuracy, *nll, tuple(flips), measure)
