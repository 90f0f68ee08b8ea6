"""What training and evaluation need of a model, whatever hooks its subclass overrides.

Lightning's users override hooks, and few of them call ``super()``. So each hook of the model calls
its namesake here, and :func:`followed` lets it do so behind an override too. Where the model is a
part of another module, whose hooks are its host's, the same is a callback that it brings along.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from smx_lightning.checkpoint.matching import begin_run
from smx_lightning.checkpoint.progress import restore_digits, settle
from smx_lightning.checkpoint.reading import read_safely
from smx_lightning.data.sharing import share_out
from smx_lightning.errors import InputError
from smx_lightning.errors.checks import check_eps
from smx_lightning.optim import ExactSolver
from smx_lightning.optim.training import (
    begin_epoch,
    check_optimizers,
    exact_solver,
    is_exact_solver_s,
    log_epoch,
)
from smx_lightning.preprocessing.digits import check_batch, check_digits, keep_equal_averages
from smx_lightning.processes.distributed import (
    check_world_size,
    leave_group_at_exit,
    log_agreed,
    raised_anywhere,
    sharing,
)
from smx_lightning.training.input_range import know_range
from smx_lightning.training.statistics import training_batches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from smx_lightning.module import SoftmaxRegression

Hook = Callable[..., Any]

CONFUSION = "confusion"
PROGRESS_BAR = ("train/nll", "val/nll", "val/accuracy_micro")


class Bookkeeping(Callback):
    """Statistics before the first step, metrics after each epoch, and the exact solver's epochs.

    Everything here may run twice at one moment, for an override that calls ``super()`` as well.

    Args:
        kind: The class whose instances are looked after.
    """

    def __init__(self, kind: type[SoftmaxRegression]) -> None:
        self.kind = kind

    def models(self, pl_module: LightningModule) -> Iterator[tuple[str, SoftmaxRegression]]:
        """Every model in a module, with the prefix of its metrics; the module itself has none."""
        for path, module in pl_module.named_modules():
            if isinstance(module, self.kind):
                yield f"{path}/" if path else "", module

    # Before training -------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a trainer that ignores the processes that a launcher has started."""
        read_safely(trainer.strategy.checkpoint_io)
        check_world_size(trainer)
        leave_group_at_exit()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse an optimiser that sharded classes cannot have."""
        for _, model in self.models(pl_module):
            check_optimizers(model)
        if isinstance(pl_module, self.kind):  # what a host is given its heads need not see
            # A tuner restores its own checkpoint, too, but has ended with that by now.
            pl_module._keeps_statistics = bool(trainer._checkpoint_connector._loaded_checkpoint)
            know_range(trainer, pl_module)
            restore_digits(trainer)
            begin_run(pl_module)
            check_digits(pl_module)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Know that this fit goes on from another, which found the statistics; rewind an epoch."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        for _, model in self.models(pl_module):
            model._keeps_statistics = True
        if any(is_exact_solver_s(state) for state in checkpoint.get("optimizer_states", [])):
            settle(checkpoint["loops"]["fit_loop"], rewind=True)  # it needs the epoch whole

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit what the training data decides, and find the exact solver."""
        share_out(trainer, trainer.train_dataloader)
        check_eps(trainer.optimizers)
        keep_equal_averages(trainer)
        exact = any(isinstance(optimizer, ExactSolver) for optimizer in trainer.optimizers)
        for _, model in self.models(pl_module):
            _, model._shares = sharing(trainer)
            if exact and model is not pl_module:
                raise InputError(
                    "the exact solver expects a SoftmaxRegression as the Trainer's module, got one "
                    f"inside {type(pl_module).__name__}; train it by itself on the features, or "
                    "take another optimiser"
                )
        if not isinstance(pl_module, self.kind):  # a host knows what it feeds to its heads
            return
        own_loss = type(pl_module).loss is not self.kind.loss
        pl_module.solver = exact_solver(pl_module, own_loss=own_loss)
        if pl_module.solver is not None and trainer.fit_loop.restarted_mid_epoch:
            _begin_epoch(pl_module, pl_module.solver)  # on_train_epoch_start's, of other epochs
        known = pl_module._keeps_statistics and bool(pl_module.class_counts.any())
        if pl_module.needs_statistics and not known:
            pl_module.fit_statistics(training_batches(trainer))

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch's first evaluation; refuse a first batch whose digits would be lost."""
        self._seal(trainer, pl_module, False)
        if batch_idx == 0 and isinstance(pl_module, self.kind):
            check_batch(pl_module, batch)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What a closure evaluates from now on are other points, which an optimiser only tries."""
        self._seal(trainer, pl_module, pl_module.automatic_optimization)

    def _seal(self, trainer: Trainer, pl_module: LightningModule, sealed: bool) -> None:
        if isinstance(pl_module, self.kind):
            pl_module.tallies["train"].sealed = sealed
        elif any(isinstance(optimizer, torch.optim.LBFGS) for optimizer in trainer.optimizers):
            for _, model in self.models(pl_module):
                model.tallies["train"].sealed = sealed

    # While training --------------------------------------------------------------------------

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the exact solver, where there is one, move to the point that this epoch evaluates."""
        for _, model in self.models(pl_module):
            model.tallies["train"].restore([])  # of an epoch that broke off
            if model.solver is not None and model is pl_module:
                _begin_epoch(model, model.solver)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch's training metrics."""
        for prefix, model in self.models(pl_module):
            solver = model.solver if model is pl_module else None
            rejected = False
            if solver is not None:
                if solver.evaluations == model._evaluations and not trainer.should_stop:
                    raise InputError(
                        "the exact solver expects the rows of every batch, got an epoch whose last "
                        "batch never came; call super().training_step(batch, batch_idx) for each "
                        "in an override, and skip none, or take another optimiser"
                    )
                model._evaluations = -1  # of this epoch nothing more is expected
                rejected = log_epoch(model, solver)
            if rejected and trainer.callback_metrics.keys() >= {*model.tallies["train"].metrics}:
                model.tallies["train"].restore([])
                continue  # the values of the point that the parameters went back to stand
            nll = _log(pl_module, prefix, model, "train").get("train/nll")
            if nll is not None and not torch.isfinite(nll) and not rejected:
                raise InputError(
                    f"the training loss became {float(nll)} in epoch {trainer.current_epoch}: "
                    "expected finite features and a step that converges; look for NaN or infinite "
                    "values in the data, standardise it, or lower the learning rate"
                )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the exact solver's best point behind."""
        if isinstance(pl_module, self.kind) and pl_module.solver is not None:
            pl_module.solver.restore()

    # Evaluation and prediction ---------------------------------------------------------------

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Share the rows out."""
        self._check_digits(pl_module)
        share_out(trainer, trainer.val_dataloaders)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Share the rows out."""
        self._check_digits(pl_module)
        share_out(trainer, trainer.test_dataloaders)
        for _, model in self.models(pl_module):
            model.confusion_matrix = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Share the rows out."""
        self._check_digits(pl_module)
        share_out(trainer, trainer.predict_dataloaders)

    def _check_digits(self, pl_module: LightningModule) -> None:
        for _, model in self.models(pl_module):
            check_digits(model)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the ``val/`` metrics."""
        for prefix, model in self.models(pl_module):
            _log(pl_module, prefix, model, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the ``test/`` metrics; ``confusion_matrix`` holds the counts from then on."""
        for prefix, model in self.models(pl_module):
            _log(pl_module, prefix, model, "test")
            counts = _values(model, CONFUSION) if CONFUSION in model.tallies else {}
            if counts:
                model.confusion_matrix = counts[CONFUSION].cpu()


def _begin_epoch(model: SoftmaxRegression, solver: ExactSolver) -> None:
    begin_epoch(model, solver)
    model._evaluations = solver.evaluations


def _log(
    pl_module: LightningModule, prefix: str, model: SoftmaxRegression, stage: str
) -> dict[str, Tensor]:
    values = _values(model, stage)
    for name, value in values.items():
        log_agreed(pl_module, prefix + name, value, prog_bar=prefix + name in PROGRESS_BAR)
    return values


def _values(model: SoftmaxRegression, stage: str) -> dict[str, Tensor]:
    """The stage's metrics over all rows of the epoch; none, where a step of its own counts none."""
    return model.tallies[stage].compute() if _counted(model, stage) else {}


def _counted(model: SoftmaxRegression, stage: str) -> bool:
    """Whether any process has counted a batch."""
    return raised_anywhere(model.tallies[stage].counted, model.device)


def followed(first: Hook, then: Hook) -> Hook:
    """A hook that does the work of two."""

    @wraps(first)
    def both(self: Any, *args: Any, **kwargs: Any) -> Any:
        answers = first(self, *args, **kwargs), then(self, *args, **kwargs)
        return next((answer for answer in answers if answer is not None), None)

    both.does_both = True  # type: ignore[attr-defined]
    return both
