"""The metrics of one stage, counted many batches at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torch.utils._pytree import tree_map_only
from torchmetrics import Metric, MetricCollection

from smx_lightning.activations import SOFTMAX, Activation
from smx_lightning.errors.checks import check_labels
from smx_lightning.errors.targets import check_one_each, check_row_weights, check_targets
from smx_lightning.metrics.beside import beside
from smx_lightning.metrics.handing import check_distributions, hand, warn_of_unweighted
from smx_lightning.metrics.weights import on, told, untold, widest

Weighed: TypeAlias = tuple[Tensor, Tensor, Tensor | None]  # scores, targets and weights

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
        self._weighed: list[Weighed] = []
        self._entries = 0
        self._empty, self._updated = True, False
        self._looked: set[str] = set()
        self.paused = False

    def anew(self) -> Tally:
        """One of the same metrics that has counted nothing; what one warned of, both have."""
        tally = Tally(self.metrics.clone(), self.num_classes, self.where, self.activation)
        tally.metrics.reset()
        tally._looked = self._looked
        return tally

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # a graph for every length otherwise
    def add(self, scores: Tensor, y: Tensor, weight: Tensor | None = None) -> None:
        """Count a batch; labels and weights are copied, since a loader may fill its buffers anew.

        Args:
            scores: (batch, classes).
            y: (batch,) labels, or (batch, classes) distributions, floating-point.
            weight: (batch,), how much each row counts; ``None`` where all count alike.

        Raises:
            InputError: For another number of weights, and distributions where metrics need labels.
        """
        if self.paused:
            return
        if weight is None and not y.is_floating_point():
            self._batches.append((scores.detach(), y.clone()))
        else:
            self._add_weighed(scores.detach(), y, weight)
        self._entries += scores.numel()
        if self._entries >= ENTRIES:
            self.flush()

    def _add_weighed(self, scores: Tensor, y: Tensor, weight: Tensor | None) -> None:
        if y.is_floating_point() and "distributions" not in self._looked:
            check_distributions(self.metrics, self.where)
            self._looked.add("distributions")
        if weight is not None:
            check_one_each(weight, len(scores))
            weight = weight.detach().to(widest(weight.device), copy=True)
            if "weights" not in self._looked:
                warn_of_unweighted(self.metrics, self.where)
                self._looked.add("weights")
        self._weighed.append((scores, y.detach().clone(), weight))

    @property
    def counted(self) -> bool:
        """Whether there was any batch since the last :meth:`compute`."""
        return bool(self._batches or self._weighed) or not self._empty

    def flush(self) -> None:
        """Update the metrics with what has been collected.

        Raises:
            InputError: For labels out of range, rows that are no distributions, and weights below 0
                or not finite.
        """
        batches, self._batches, self._entries = self._batches, [], 0
        weighed, self._weighed = self._weighed, []
        if batches:
            scores, y = (_joined(parts) for parts in zip(*batches, strict=True))
            check_labels(y, self.num_classes, self.where)
            self._update(scores, y)
        for scores, y, weight in _alike(weighed):
            check_targets(y, self.num_classes, self.where)
            if weight is not None:
                check_row_weights(weight, len(y))
                self._empty = self._empty and not len(y)  # also where all of them weigh nothing
                kept = weight > 0
                scores, y, weight = scores[kept], y[kept], weight[kept]
            self._update(scores, y, weight)

    def _update(self, scores: Tensor, y: Tensor, weight: Tensor | None = None) -> None:
        if not len(y):
            return
        self._empty, self._updated = False, True
        if self.activation == SOFTMAX:
            hand(self.metrics, scores, y, weight)
            return
        log_probs = self.activation.log_probs(scores, 1)
        with beside(self.metrics, log_probs, scores):
            hand(self.metrics, log_probs, y, weight)

    def state(self) -> dict[str, Any]:
        """What has been counted since the last :meth:`compute`, as plain values on the CPU.

        It is told as it ever was where no row has had a weight or a distribution.
        """
        pending = [torch.cat(parts).cpu() for parts in zip(*self._batches, strict=True)]
        weighed = [tree_map_only(Tensor, _on_cpu, [*parts]) for parts in _alike(self._weighed)]
        counted = {
            name: {key: move_data_to_device(value, "cpu") for key, value in told(metric).items()}
            for name, metric in self._counters()
        }
        return {"pending": pending, "counted": counted} | ({"weighed": weighed} if weighed else {})

    def restore(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on from what was counted then; several states, of several processes, add up."""
        self.metrics.reset()
        self._batches, self._weighed, self._entries = [], [], 0
        self._empty, self._updated = True, False
        for position, state in enumerate(states):
            for name, metric in self._counters():
                counted = untold(metric) | self._moved(state["counted"][name])
                if position:
                    metric.merge_state(counted)
                else:
                    for key, value in counted.items():
                        setattr(metric, key, value)
                    metric._update_count = 1
            if state["pending"]:
                scores, y = self._moved(state["pending"])
                self._batches.append((scores, y))
                self._entries += scores.numel()
            for scores, y, weight in self._moved(state.get("weighed", [])):
                self._weighed.append((scores, y, weight))
                self._entries += scores.numel()

    def _moved(self, values: Any) -> Any:
        return tree_map_only(Tensor, lambda value: on(value, self._device), values)

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
            if not self._updated:  # other processes had rows, or all of them weigh nothing
                warnings.filterwarnings("ignore", ".*was called before the ``update`` method")
            values: dict[str, Tensor] = self.metrics.compute()
        self.metrics.reset()
        self._empty, self._updated = True, False
        return values


def _joined(parts: tuple[Tensor, ...]) -> Tensor:
    if len(parts) == 1:  # cat copies one, too
        return parts[0]
    if parts[0].ndim == 2 and parts[0].stride(0) == 1:  # rows last in memory, the solver's scores
        return torch.cat([part.T for part in parts], 1).T
    return torch.cat(parts)


def _on_cpu(part: Tensor) -> Tensor:
    return part.clone().cpu()  # of a view a file would hold all that it is a view of


def _alike(batches: Sequence[Weighed]) -> Iterator[Weighed]:
    """Batches of a kind as one: labels or distributions, with weights or without.

    In an order that does not depend on which came first, as restored ones come in another.
    """
    kinds: dict[Any, list[Weighed]] = {}
    for batch in batches:
        _, y, weight = batch
        kinds.setdefault((weight is None, y.is_floating_point(), y.shape[1:]), []).append(batch)
    for kind in sorted(kinds):
        parts: tuple[Any, ...] = tuple(zip(*kinds[kind], strict=True))
        weighs = parts[2][0] is not None
        yield _joined(parts[0]), _joined(parts[1]), _joined(parts[2]) if weighs else None
