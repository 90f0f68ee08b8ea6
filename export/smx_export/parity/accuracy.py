"""Accuracy and NLL on the user's labelled rows, and what rounding the weights costs in them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from smx_export.graph.inference_copy import InferenceCopy
from smx_export.parity.report import Flip, Rounding
from smx_export.parity.user_data import YOUR_DATA, UserRows
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.activations import SOFTMAX, fenchel_young_loss


@dataclass
class Score:
    """Accuracy and mean negative log-likelihood of rows that arrive in parts."""

    rows: int = 0
    correct: int = 0
    nats: float = 0.0

    def add(
        self,
        log_probs: NDArray[np.floating] | None,
        chosen: NDArray[np.int64],
        labels: NDArray[np.int64],
    ) -> None:
        """Count a part: log-probabilities (n, classes) if there are any, choices, labels (n,)."""
        self.rows += len(labels)
        self.correct += int((chosen == labels).sum())
        if log_probs is None:  # a label alone
            self.nats = math.nan
        else:
            self.nats -= float(log_probs[np.arange(len(labels)), labels].sum(dtype=np.float64))

    @property
    def accuracy(self) -> float:
        """Share of rows that were chosen right."""
        return self.correct / self.rows

    @property
    def nll(self) -> float:
        """Nats a row."""
        return self.nats / self.rows


def decided(model: SoftmaxRegression, log_probs: NDArray[np.floating]) -> NDArray[np.int64]:
    """The class of each row, at the threshold γ where there is one."""
    chosen: NDArray[np.int64] = model.decide(torch.from_numpy(log_probs)).numpy()
    return chosen


def cost_of_rounding(inference: InferenceCopy, own: UserRows) -> Rounding:
    """What rounding the weights costs on labelled rows, without those that have no answer.

    Raises:
        InputError: Where no row has one.
    """
    before, after, flips = Score(), Score(), []
    model, exactly = inference.model, inference.unrounded
    names, member = model.class_names, model._smx_activation
    lost = np.zeros(2)  # of a sparse activation its loss: log p may be -∞, which no budget holds
    for block, labels in own.blocks(inference.width):
        assert labels is not None
        x = torch.from_numpy(block.x)
        with torch.no_grad():
            exact, coarse = (side(x).double().numpy() for side in (exactly, model))
            answered = ~np.isnan(exact).any(1)
            if member != SOFTMAX:
                x, y = x[answered], torch.from_numpy(labels[answered])
                lost += [
                    float(fenchel_young_loss(side.scores(x).double(), y, member, reduction="sum"))
                    for side in (exactly, model)
                ]
        exact, coarse, labels = exact[answered], coarse[answered], labels[answered]
        chosen, moved = decided(model, exact), decided(model, coarse)
        before.add(exact, chosen, labels)
        after.add(coarse, moved, labels)
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
        nll, measure = (float(lost[0]) / before.rows, float(lost[1]) / before.rows), "loss"
    return Rounding(before.rows, before.accuracy, after.accuracy, *nll, tuple(flips), measure)
