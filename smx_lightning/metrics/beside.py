"""Metrics of scores, among others that are updated with log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torchmetrics import Metric

from smx_lightning.errors import InputError


class OfScores(Metric):
    """A metric that needs the scores, although its collection is updated with (log_probs, y).

    By itself it is updated with scores; log-probabilities of softmax are such.
    """

    _beside: tuple[Tensor, Tensor] | None = None

    def scores_beside(self, preds: Tensor) -> Tensor:
        """The scores of what an update is given.

        Raises:
            InputError: Where somebody, a wrapper that draws rows anew, gives others than the tally.
        """
        if self._beside is None:
            return preds
        log_probs, scores = self._beside
        if preds is not log_probs:
            raise InputError(
                f"{type(self).__name__} expected the log-probabilities of the batch as they are, "
                f"got others of shape {tuple(preds.shape)}; use it without a wrapper that changes "
                "them"
            )
        return scores


@contextmanager
def beside(metrics: nn.Module, log_probs: Tensor, scores: Tensor) -> Iterator[None]:
    """Let the metrics that need scores know those of an update with ``log_probs``."""
    asking = [metric for metric in metrics.modules() if isinstance(metric, OfScores)]
    for metric in asking:
        metric._beside = (log_probs, scores)
    try:
        yield
    finally:
        for metric in asking:
            metric._beside = None
