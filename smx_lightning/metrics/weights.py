"""Metrics of rows that weigh, and of distributions in the place of labels.

Conventions
-----------
A row of the distribution q and the weight c counts as K rows, row k of label k and weight
``c q[k]``; a row without a weight has c = 1. So every metric is a mean over labels as ever, a
weighted one: scikit-learn's with its ``sample_weight``, and where weights are integers, that of
repeated rows.

torchmetrics' ``MeanMetric`` has weights too, in sums of float32, which count to 2²⁴.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from smx_lightning.errors.targets import check_row_weights, check_targets

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Shaped


class Weighing(Metric):
    """A metric that counts rows of labels, and beside them those that weigh, or have distributions.

    What has neither is counted as if there were no weights, to the bit, in states of its own.

    Attributes:
        sums: Of rows that weigh; in float64, which counts to 2⁵³, where there is such.
    """

    sums: Tensor

    def add_sums(self, *shape: int) -> None:
        """Make the state of rows that weigh."""
        dtype = widest(torch.empty(0).device)  # of a context, or the default
        self.add_state("sums", torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")

    @property
    def weighs(self) -> bool:
        """Whether any row had a weight above 0, or a distribution."""
        return bool(self.sums.any())

    def update(self, preds: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            preds: (batch, classes) log-probabilities.
            target: (batch,) labels, or (batch, classes) distributions, floating-point.
            weight: (batch,) of at least 0, ``None`` where rows count alike.

        Raises:
            InputError: For other weights, and rows that are no distributions.
        """
        if weight is None and not target.is_floating_point():
            self.count_alike(preds, target.long())
            return
        check_targets(target, preds.shape[1], "batch")
        if weight is not None:
            check_row_weights(weight, len(target))
        self.count_weighted(preds, *_shares(target, weight, self.sums.dtype))

    @abstractmethod
    def count_alike(
        self, preds: Float[Tensor, "batch classes"], target: Int[Tensor, " batch"]
    ) -> None:
        """Add rows of labels that weigh 1."""

    @abstractmethod
    def count_weighted(
        self,
        preds: Float[Tensor, "batch classes"],
        target: Shaped[Tensor, "batch ..."],
        weight: Float[Tensor, " batch"],
    ) -> None:
        """Add rows of weights to the sums, whose dtype weights and distributions have."""

    def _apply(
        self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = ""
    ) -> nn.Module:
        """Move the states as torchmetrics does; the sums keep their digits on the way."""
        this = super()._apply(fn, exclude_state=[*exclude_state, "sums"])
        wide = widest(self.device)
        self._defaults["sums"] = on(self._defaults["sums"], self.device).to(wide)
        self.sums = on(self.sums, self.device).to(wide)
        return this


def widest(device: torch.device) -> torch.dtype:
    """The dtype of sums of weights: float64, but on mps, which has none."""
    return torch.float32 if device.type == "mps" else torch.float64


def on(value: Tensor, device: torch.device) -> Tensor:
    """The same on a device, float64 as wide as it has it there."""
    if value.dtype == torch.float64:
        value = value.to(widest(device))
    if value.is_meta and device.type != "meta":  # zeros of a model made without memory
        return torch.zeros_like(value, device=device)
    return value.to(device)


def told(metric: Metric) -> dict[str, Any]:
    """A metric's state, without sums of weights where no row had any: so it is as it ever was."""
    state = dict(metric.metric_state)
    if isinstance(metric, Weighing) and not metric.weighs:
        del state["sums"]
    return state


def untold(metric: Metric) -> dict[str, Any]:
    """What :func:`told` leaves out."""
    return {"sums": torch.zeros_like(metric.sums)} if isinstance(metric, Weighing) else {}


def total(values: Float[Tensor, " batch"], weight: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
    """``Σ_i c[i] v[i]``; a row of weight 0 adds nothing, also where its value is not finite."""
    return torch.where(weight > 0, values.to(weight.dtype), 0) @ weight


def of_target(
    values: Float[Tensor, "batch classes"], target: Shaped[Tensor, "batch ..."]
) -> Float[Tensor, " batch"]:
    """A row's value of its label, or the mean ``Σ_k q[k] v[k]`` over the labels there may be.

    A label of probability 0 adds nothing, also where its value is infinite.
    """
    if target.ndim == 1:
        return values.gather(1, target[:, None])[:, 0]
    return torch.where(target > 0, target * values, 0).sum(1)


def share_of(
    classes: Int[Tensor, "batch several"], target: Shaped[Tensor, "batch ..."]
) -> Float[Tensor, " batch"]:
    """How much of each row's target some classes have: 1 or 0 of labels, Σ q of distributions."""
    if target.ndim == 1:
        return (classes == target[:, None]).any(1).float()
    return target.gather(1, classes).sum(1)


def _shares(target: Tensor, weight: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Targets and weights, in which the sum of a distribution is that sums to 1 only about."""
    weight = target.new_ones(len(target), dtype=dtype) if weight is None else weight.to(dtype)
    if not target.is_floating_point():
        return target.long(), weight
    target = target.to(dtype)
    own = target.sum(1)
    return target / own.clamp(min=torch.finfo(dtype).tiny)[:, None], weight * own
