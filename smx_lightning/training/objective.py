"""The objective of a batch: data term, class weights and penalty, on one process or on several.

The bias is never penalised, so scikit-learn's ``C`` corresponds to ``l2 = 1 / (C · Σ c)``, c being
a row's weight. The mean is the weighted one, ``Σ c · loss / Σ c``, as scikit-learn's; see
:mod:`smx_lightning.training.loss`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from smx_lightning.activations import SOFTMAX
from smx_lightning.data.sharing import rows_of_batch
from smx_lightning.errors import InputError
from smx_lightning.errors.checks import class_indices
from smx_lightning.errors.targets import check_targets, is_soft
from smx_lightning.metrics.epochs import scored
from smx_lightning.optim.evaluation import summed
from smx_lightning.processes.sharding import data_group, parallel_loss, whole
from smx_lightning.training.loss import check_takes_weight, weight_of
from smx_lightning.training.rows import checked_weight, counting

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression


@dataclass
class Objective:
    """How the loss of a batch is made of the rows that this process sees.

    Attributes:
        shares: Processes that see different rows of each batch.
        alike: Whether all rows of the Trainer's training loader are known to count, each as 1: then
            the weight of a whole batch is its number of rows, and no process need ask the others.
        sharded: Whether loss and gradient can run on classes that are spread over processes, which
            only those of :func:`torch.nn.functional.nll_loss` can: a loss of a subclass's own sees
            all classes, and so does one of weighted rows, of distributions, and with smoothing.
        in_parts: Whether the last batch's did.
        all_count: Whether all rows of the batch under way are known to count.
        rows: That this process has seen in the epoch so far.
        evaluations: Of the exact solver, when the epoch began.
    """

    shares: int = 1
    alike: bool = False
    sharded: bool = False
    in_parts: bool = False
    all_count: bool = False
    rows: int = 0
    evaluations: int = 0

    def of_rows(
        self,
        model: SoftmaxRegression,
        x: Any,
        y: Tensor,
        weight: Tensor | None,
        tallies: Iterable[str],
    ) -> Tensor:
        """:meth:`of_batch` of those rows that have a label, and a weight above 0."""
        y = class_indices(y)
        weight = checked_weight(weight, y.shape[:1].numel())
        rows = counting(x, y, weight, model.ignore_index)
        return self.of_batch(model, *rows, tallies)

    def of_batch(
        self,
        model: SoftmaxRegression,
        x: Any,
        y: Tensor,
        weight: Tensor | None,
        tallies: Iterable[str],
        batch_idx: int | None = None,
    ) -> Tensor:
        """Data term and penalty of a batch, which is counted in the tallies of the model's metrics.

        Args:
            model: Its ``loss`` is the data term.
            x: Inputs, as its ``forward`` takes them.
            y: (batch,) int64 class indices, or (batch, classes) distributions.
            weight: (batch,), above 0, or ``None``.
            tallies: Their names.
            batch_idx: The index of a batch of the Trainer's own training loader.

        Raises:
            InputError: For labels out of range, and for weights that the model's loss knows not of.
        """
        if weight is not None:
            check_takes_weight(model)
        soft = is_soft(y)
        plain = not soft and weight is None and not model.label_smoothing
        self.in_parts = self.sharded and plain
        with parallel_loss(self.in_parts):
            scores = scored(model, x)
            if not self.in_parts:
                scores = whole(scores)
            model._smx_metrics.add(tallies, whole(scores.detach()), y, weight)
            self.rows += len(y)
            # Whose loss would not complain.
            if soft or self.in_parts or model._smx_activation != SOFTMAX or weight is not None:
                check_targets(y, model.num_classes, "train batches")
            try:
                loss = self._mean_loss(model, scores, y, weight, batch_idx)
            except (IndexError, RuntimeError):  # targets at fault are worth a clearer complaint
                check_targets(y, model.num_classes, "train batches")
                raise
        return loss + model.penalty() if model.l2 else loss

    def _mean_loss(
        self,
        model: SoftmaxRegression,
        scores: Tensor,
        y: Tensor,
        weight: Tensor | None,
        batch_idx: int | None,
    ) -> Tensor:
        """The loss, so scaled that the processes' average is the mean over the whole batch.

        That is the mean over this process's rows, times the number of processes, times the part of
        the batch's weight that these rows have.
        """
        scale: Tensor | float = 1.0
        if self.shares > 1:
            own = weight_of(model, scores, y, weight)
            total: Tensor | float | None = None
            if self.alike and model.class_weight is None and batch_idx is not None:
                total = rows_of_batch(model.trainer, batch_idx)
            if total is None:
                share = torch.as_tensor(own, dtype=torch.float64, device=y.device).clone()
                total = summed(share, data_group(model)).clamp(min=torch.finfo(torch.float64).tiny)
            scale = own * self.shares / total
        if len(y) == 0:
            return whole(scores.sum())  # zero, with the gradients that others may wait for
        loss = whole(
            model.loss(scores, y) if weight is None else model.loss(scores, y, weight=weight)
        )
        return loss if self.shares == 1 else loss * scale


def l2_penalty(weight: Tensor, l2: float) -> Tensor:
    """½ · l2 · ‖W‖², in float32 or wider."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    return whole(0.5 * l2 * weight.to(wide).square().sum())


def class_weights_of(model: SoftmaxRegression, like: Tensor) -> Tensor | None:
    """The weight of each class, (classes,), in the dtype and on the device of ``like``.

    Raises:
        InputError: Where they are balanced, and nobody has counted the classes yet.
    """
    if model.class_weight is None:
        return None
    if model.class_weight != "balanced":
        return like.new_tensor(model.class_weight)  # float64 of a model in float64
    total = model.class_counts.sum()
    if not total and model._trainer is not None and model._trainer.sanity_checking:
        return torch.ones_like(model.class_counts, dtype=like.dtype)  # counted in a moment
    if not total:
        raise InputError(
            "class_weight='balanced' needs the class counts of the training data, got none "
            "yet; call fit_statistics(batches) with batches (x, y) first, or fit under a "
            "Trainer, which does"
        )
    wide = torch.promote_types(like.dtype, torch.float32)
    counts = model.class_counts.to(wide)
    return (total.to(wide) / (model.num_classes * counts)).to(like.dtype)
