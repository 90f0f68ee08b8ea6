"""The metrics that a model holds: which of them count a batch, and what an epoch's end reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection
from torch import Tensor, nn

from smx_lightning.activations import SOFTMAX, Activation
from smx_lightning.errors.checks import check_as_many
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
LOADER = _ResultCollection.DATALOADER_SUFFIX  # "/dataloader_idx_{}" behind a metric's name


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

    def __repr__(self) -> str:
        """The stages alone: who prints a model asks for its layers."""
        return f"{type(self).__name__}({', '.join(n for n in self.tallies if '/' not in n)})"

    def add(
        self, names: Iterable[str], scores: Tensor, y: Tensor, weight: Tensor | None = None
    ) -> None:
        """Count a batch in each tally that exists, see :meth:`.Tally.add`.

        Raises:
            InputError: For another number of labels or weights.
        """
        check_as_many(y, scores.shape[0])
        for name in names:
            if name in self.tallies:
                self.tallies[name].add(scores, y, weight)

    def score(
        self,
        model: SoftmaxRegression,
        x: Any,
        y: Tensor,
        names: Iterable[str],
        weight: Tensor | None = None,
    ) -> None:
        """Count a batch of which a model tells the scores."""
        self.add(names, whole(scored(model, x).detach()), y, weight)

    def compute(self, name: str, device: torch.device) -> dict[str, Tensor]:
        """The values over all rows of the epoch; none where no process has counted a batch.

        Args:
            name: Of a tally.
            device: Where processes meet; all of them must call this.
        """
        if name not in self.tallies or not raised_anywhere(self.tallies[name].counted, device):
            return {}
        return self.tallies[name].compute()

    def begin(self, stage: str, loaders: int) -> None:
        """Get ready to count a stage's batches, by loader too where there are several."""
        for name in [name for name in self.tallies if name.startswith(stage + LOADER.format(""))]:
            del self.tallies[name]
        for index in range(loaders if loaders > 1 else 0):
            self.tallies[stage + LOADER.format(index)] = self.tallies[stage].anew()

    def log(self, name: str, module: LightningModule, prefix: str) -> dict[str, Tensor]:
        """Compute, and log under the prefix from a hook of the Trainer's module.

        What was counted by loader is logged too, as ``val/nll/dataloader_idx_1``.
        """
        values = self.compute(name, module.device)
        for tally in [n for n in self.tallies if n.startswith(name + LOADER.format(""))]:
            suffix = tally.removeprefix(name)
            values |= {k + suffix: v for k, v in self.compute(tally, module.device).items()}
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
        return ("test", CONFUSION, *loader_of("test", trainer))
    return ("train",) if trainer.training else ("val", *loader_of("val", trainer))


def loader_of(stage: str, trainer: Trainer | None) -> tuple[str, ...]:
    """The tally of the loader that a batch of a stage is of; none where there is one loader."""
    results = None if trainer is None else trainer._results
    index = None if results is None else results.dataloader_idx
    return () if index is None else (stage + LOADER.format(index),)


def log_stage(
    stage: str,
    module: LightningModule,
    models: Iterable[tuple[str, SoftmaxRegression]],
    loaders: int,
) -> None:
    """Log what every model of a Trainer's module has counted in an evaluation of some loaders."""
    logged: dict[str, Tensor] = {}
    for prefix, model in models:
        values = model._smx_metrics.log(stage, module, prefix)
        logged |= {prefix + name: value for name, value in values.items()}
    if loaders > 1:
        _show_by_loader(module.trainer, logged, loaders)


def _show_by_loader(trainer: Trainer, logged: dict[str, Tensor], loaders: int) -> None:
    """Let what the Trainer returns and prints of each of several loaders be that loader's.

    It puts all that an epoch's end logs into the answer of every loader, and its table cuts the
    loader off a name, so that the last value of a name counts; here that is the loader's own.
    """
    outputs = trainer._evaluation_loop._logged_outputs
    ends = [LOADER.format(index) for index in range(loaders)]
    own = [{name: v for name, v in logged.items() if name.endswith(end)} for end in ends]
    own = own[:1] + [values for values in own[1:] if values]  # the Trainer passes empty ones over
    if len(outputs) == len(own):
        for index, (given, last) in enumerate(zip(outputs, own, strict=True)):
            others = {name: value for name, value in logged.items() if name not in last}
            outputs[index] = {**others, **last, **given}
