"""The metrics that a model holds: which of them count a batch, and what an epoch's end reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from torch import Tensor, nn

from smx_lightning.activations import SOFTMAX, Activation
from smx_lightning.metrics.stages import (
    Given,
    confusion_matrix,
    loss_name,
    set_threshold,
    stage_metrics,
)
from smx_lightning.metrics.tally import Tally
from smx_lightning.processes.distributed import log_agreed, raised_anywhere
from smx_lightning.processes.sharding import whole

if TYPE_CHECKING:
    import torch
    from lightning.pytorch import LightningModule, Trainer

    from smx_lightning.module import SoftmaxRegression

STAGES = ("train", "val", "test")
CONFUSION = "confusion"


class EpochMetrics(nn.ModuleDict):
    """The collections of all stages, ``train_metrics`` and so on, and one tally of each.

    Args:
        configure: The metrics of a stage, as a model's ``configure_metrics`` answers.
        num_classes: K.
        threshold: γ of a binary problem, for the confusion matrix.
        activation: The model's.

    Attributes:
        tallies: What has been counted of each stage's epoch so far, and of ``confusion``.
        loss: The name of the loss among the usual metrics.
    """

    def __init__(
        self,
        configure: Callable[[str], Given],
        num_classes: int,
        threshold: float | None,
        activation: Activation = SOFTMAX,
    ) -> None:
        # "train" itself is taken: it is a method of every module.
        collections = {stage: stage_metrics(configure(stage), stage) for stage in STAGES}
        confusion = confusion_matrix(num_classes, threshold=threshold)
        if confusion is not None:
            collections[CONFUSION] = confusion
        super().__init__({f"{name}_metrics": m for name, m in collections.items()})
        self.tallies = {
            name: Tally(collection, num_classes, f"{name} batches", activation)
            for name, collection in collections.items()
        }
        self.loss = loss_name(activation)

    def add(self, names: Iterable[str], scores: Tensor, y: Tensor) -> None:
        """Count a batch, scores (batch, classes) and y (batch,), in each tally that exists."""
        for name in names:
            if name in self.tallies:
                self.tallies[name].add(scores, y)

    def score(
        self, model: SoftmaxRegression, batch: tuple[Tensor, Tensor], names: Iterable[str]
    ) -> None:
        """Count a batch (x, y) of which a model tells the scores."""
        x, y = batch
        self.add(names, whole(scored(model, x).detach()), y)

    def compute(self, name: str, device: torch.device) -> dict[str, Tensor]:
        """The values over all rows of the epoch; none where no process has counted a batch.

        Args:
            name: Of a tally.
            device: Where processes meet; all of them must call this.
        """
        if name not in self.tallies or not raised_anywhere(self.tallies[name].counted, device):
            return {}
        return self.tallies[name].compute()

    def log(self, name: str, module: LightningModule, prefix: str) -> dict[str, Tensor]:
        """Compute, and log under the prefix from a hook of the Trainer's module."""
        values = self.compute(name, module.device)
        self.log_values(values, module, prefix)
        return values

    def log_values(self, values: dict[str, Tensor], module: LightningModule, prefix: str) -> None:
        """Log what was computed under the prefix, from a hook of the Trainer's module."""
        shown = (f"train/{self.loss}", f"val/{self.loss}", "val/accuracy_micro")
        for key, value in values.items():
            log_agreed(module, prefix + key, value, prog_bar=prefix + key in shown)

    def move_threshold(self, old: float | None, new: float | None) -> None:
        """Let what decided at ``old`` decide at ``new`` from the next batch on."""
        for tally in self.tallies.values():
            tally.flush()
        set_threshold(self.modules(), old, new)


def scored(model: SoftmaxRegression, x: Tensor) -> Tensor:
    """What losses and tallies are of, (batch, classes): log-probabilities of softmax, else scores.

    The probabilities of other members do not tell a loss: it goes on where they are 0.
    """
    answer: Tensor = model(x) if model._smx_activation == SOFTMAX else model.scores(x)
    return answer


def tallies_of(trainer: Trainer | None) -> tuple[str, ...]:
    """The tallies in which a batch of the stage that the Trainer is in counts."""
    if trainer is None or trainer.predicting:
        return ()
    if trainer.testing:
        return ("test", CONFUSION)
    return ("train",) if trainer.training else ("val",)
