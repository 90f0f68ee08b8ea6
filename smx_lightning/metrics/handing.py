"""What a metric is given of a batch: weights if it takes them, distributions unless it cannot.

torchmetrics' own collection hands a keyword on to all who do not say that they lack it, wrappers
among them, whose own metric then fails.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from smx_lightning.errors import InputError

OF_LABELS = "torchmetrics.classification."  # where every update is of labels


def hand(metrics: MetricCollection, log_probs: Tensor, y: Tensor, weight: Tensor | None) -> None:
    """Update a collection, with the weights what takes them."""
    if weight is None:
        metrics.update(log_probs, y)
    elif type(metrics) is MetricCollection:  # without groups, see stages.py
        for metric in metrics.values(copy_state=False):
            given = {"weight": weight} if takes_weights(metric) else {}
            metric.update(log_probs, y, **given)
    else:
        given = {} if unweighted(metrics) else {"weight": weight}
        metrics.update(log_probs, y, **given)


def takes_weights(metric: nn.Module) -> bool:
    """Whether its ``update`` has an argument ``weight``; of a wrapper, whether all in it have."""
    parameters = inspect.signature(metric.update).parameters
    if "weight" in parameters:
        return True
    passes = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    wrapped = [*_wrapped(metric)]
    return passes and bool(wrapped) and all(map(takes_weights, wrapped))


def unweighted(metrics: MetricCollection) -> list[str]:
    """Those that weights are not handed to, in words.

    A subclass of MetricCollection updates its metrics in ways of its own: if not all of them take
    weights, none is given them.
    """
    named = [(name, metric) for name, metric in metrics.items(copy_state=False)]
    without = [pair for pair in named if not takes_weights(pair[1])]
    if type(metrics) is not MetricCollection and not (takes_weights(metrics) and not without):
        without = named
    return [_in_words(name, metric) for name, metric in without]


def warn_of_unweighted(metrics: MetricCollection, where: str) -> None:
    """Say which metrics count rows alike although these have weights."""
    if names := unweighted(metrics):
        rank_zero_warn(
            f"The {where} have weights, which no update of {', '.join(names)} takes: every row "
            "counts as one there, but those of weight 0 are left out. The metrics of "
            "smx_lightning.metrics are weighted, and those with update(preds, target, weight=None)."
        )


def check_distributions(metrics: MetricCollection, where: str) -> None:
    """Complain about metrics that would take distributions over the classes for labels.

    Raises:
        InputError: For torchmetrics' classification metrics, also in a wrapper: some of them would
            count nonsense in silence.
    """
    for name, metric in metrics.items(copy_state=False):
        for part in metric.modules():
            if isinstance(part, Metric) and type(part).update.__module__.startswith(OF_LABELS):
                raise InputError(
                    f"expected labels in the {where} for {_in_words(name, part)}, got "
                    "distributions over the classes; take it out of configure_metrics, or override "
                    "its update with super().update(preds, target.argmax(1))"
                )


def _wrapped(module: nn.Module) -> Iterator[Metric]:
    """The metrics in it, not those in them."""
    for child in module.children():
        if isinstance(child, Metric):
            yield child
        else:
            yield from _wrapped(child)


def _in_words(name: str, metric: Metric) -> str:
    return f"{name} ({type(metric).__name__})"
