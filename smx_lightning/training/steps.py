"""The steps of the model: what it makes of one batch, in training, evaluation and prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from smx_lightning.metrics import CONFUSION, Prediction, predicted
from smx_lightning.optim.training import add_batch
from smx_lightning.processes.sharding import parallel_loss, whole
from smx_lightning.training.hooks import signed_as

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression


@signed_as()
def training_step(self: SoftmaxRegression, batch: Any, batch_idx: int) -> Tensor | None:
    """The objective on one batch ``(x, y)``; y (batch,) integer labels."""
    x, y = batch
    if self.solver is None:
        return self._smx_objective.of_batch(self, x, y, ("train",), batch_idx)
    add_batch(self, self.solver, x, y)
    return None


def backward(self: SoftmaxRegression, loss: Tensor, *args: Any, **kwargs: Any) -> None:
    """As of every LightningModule, on sharded classes where there are such."""
    with parallel_loss(self._smx_objective.sharded):
        super(self._smx_hooks.kind, self).backward(loss, *args, **kwargs)


def validation_step(self: SoftmaxRegression, batch: Any, batch_idx: int) -> None:
    """Add one batch to the ``val/`` metrics."""
    self._smx_metrics.score(self, batch, ("val",))


def test_step(self: SoftmaxRegression, batch: Any, batch_idx: int) -> None:
    """Add one batch to the ``test/`` metrics and the confusion matrix."""
    self._smx_metrics.score(self, batch, ("test", CONFUSION))


def predict_step(self: SoftmaxRegression, batch: Any, batch_idx: int) -> Prediction:
    """Labels and probabilities of a batch ``x`` or ``(x, y)``; label -1 where these are NaN."""
    log_probs = whole(self(batch[0] if isinstance(batch, (tuple, list)) else batch))
    return predicted(log_probs, self.decide(log_probs))
