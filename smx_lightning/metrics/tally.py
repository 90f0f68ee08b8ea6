"""The metrics of one stage, counted many batches at a time."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from smx_lightning.activations import SOFTMAX, Activation
from smx_lightning.errors.checks import check_labels
from smx_lightning.metrics.beside import beside

ENTRIES = 2**20  # of scores kept until then: 4 MB


class Tally:
    """Collects scores and labels, and updates the stage's metrics with many at once.

    An update of torchmetrics costs 100 µs whatever its rows, a quarter of a mini-batch step of a
    small model; checking labels costs 15.

    Args:
        metrics: The collection to update with (log_probs, y).
        num_classes: K, for the complaint about labels.
        where: Which rows they are, for the same.
        activation: What makes probabilities of the scores. Those of softmax are log-probabilities.

    Attributes:
        paused: Whether batches are not counted at present.
    """

    def __init__(
        self,
        metrics: MetricCollection,
        num_classes: int,
        where: str,
        activation: Activation = SOFTMAX,
    ) -> None:
        self.metrics, self.num_classes, self.where = metrics, num_classes, where
        self.activation = activation
        self._batches: list[tuple[Tensor, Tensor]] = []
        self._entries = 0
        self._empty = True
        self.paused = False

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # a graph for every length otherwise
    def add(self, scores: Tensor, y: Tensor, weight: Tensor | None = None) -> None:
        """Count a batch: scores (batch, classes), y (batch,)."""
        y = y.argmax(1) if y.ndim == 2 and y.is_floating_point() else y
        if self.paused:
            return
        self._batches.append((scores.detach(), y))
        self._entries += scores.numel()
        if self._entries >= ENTRIES:
            self.flush()

    @property
    def counted(self) -> bool:
        """Whether there was any batch since the last :meth:`compute`."""
        return bool(self._batches) or not self._empty

    def flush(self) -> None:
        """Update the metrics with what has been collected.

        Raises:
            InputError: For labels out of range.
        """
        batches, self._batches, self._entries = self._batches, [], 0
        if batches:
            scores, y = (_joined(parts) for parts in zip(*batches, strict=True))
            check_labels(y, self.num_classes, self.where)
            if len(y):
                self._update(scores, y)
                self._empty = False

    def _update(self, scores: Tensor, y: Tensor) -> None:
        if self.activation == SOFTMAX:
            self.metrics.update(scores, y)
            return
        log_probs = self.activation.log_probs(scores, 1)
        with beside(self.metrics, log_probs, scores):
            self.metrics.update(log_probs, y)

    def state(self) -> dict[str, Any]:
        """What has been counted since the last :meth:`compute`, as plain values on the CPU."""
        pending = [torch.cat(parts).cpu() for parts in zip(*self._batches, strict=True)]
        counted = {
            name: {key: move_data_to_device(value, "cpu") for key, value in m.metric_state.items()}
            for name, m in self._counters()
        }
        return {"pending": pending, "counted": counted}

    def restore(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on from what was counted then; several states, of several processes, add up."""
        self.metrics.reset()
        self._batches, self._entries, self._empty = [], 0, True
        for position, state in enumerate(states):
            for name, metric in self._counters():
                counted = move_data_to_device(state["counted"][name], self._device)
                if position:
                    metric.merge_state(counted)
                else:
                    for key, value in counted.items():
                        setattr(metric, key, value)
                    metric._update_count = 1
            if state["pending"]:
                scores, y = move_data_to_device(state["pending"], self._device)
                self._batches.append((scores, y))
                self._entries += scores.numel()

    @property
    def _device(self) -> torch.device:
        metric: Metric = next(iter(self.metrics.values()))
        return metric.device

    def _counters(self) -> list[tuple[str, Metric]]:
        """Every metric that holds a state, those within others too."""
        return [
            (name, metric)
            for name, metric in self.metrics.named_modules()
            if isinstance(metric, Metric) and metric.metric_state
        ]

    def compute(self) -> dict[str, Tensor]:
        """The values over all rows since the last time, under their names; begins anew."""
        self.flush()
        with warnings.catch_warnings():
            if self._empty:  # other processes had rows
                warnings.filterwarnings("ignore", ".*was called before the ``update`` method")
            values: dict[str, Tensor] = self.metrics.compute()
        self.metrics.reset()
        self._empty = True
        return values


def _joined(parts: tuple[Tensor, ...]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)  # which copies one, too
