"""What training and evaluation need of a model, whatever hooks its subclass overrides.

Most hooks of the model are made by :func:`hook` from their namesakes in :class:`Bookkeeping`; those
about checkpoints and sharding are functions below. Lightning's users override hooks, and few of
them call ``super()``: :mod:`smx_lightning.training.overrides` lets both happen.
Where the model is a part of another module, whose hooks are its host's, the same is a callback that
it brings along.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from smx_lightning.checkpoint.content import read_safely
from smx_lightning.checkpoint.describing import write
from smx_lightning.checkpoint.progress import restore_digits, settle
from smx_lightning.checkpoint.resuming import begin_run, check_loaded
from smx_lightning.data.sharing import share_out
from smx_lightning.errors import InputError
from smx_lightning.errors.checks import check_eps
from smx_lightning.metrics.epochs import CONFUSION, log_stage
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
    raised_anywhere,
    sharing,
)
from smx_lightning.processes.sharding import shard
from smx_lightning.training.input_range import know_range
from smx_lightning.training.overrides import joined
from smx_lightning.training.rows import all_are_alike

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smx_lightning.module import SoftmaxRegression

Method = TypeVar("Method", bound=Callable[..., Any])


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
        """Refuse a trainer that ignores the processes that a launcher has started.

        Checkpoints are read as plain data from now on, and the process group ends with the process.
        """
        read_safely(trainer.strategy.checkpoint_io)
        check_world_size(trainer)
        leave_group_at_exit()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse optimisers that sharded classes cannot have, and data whose digits would be lost.

        Between the two the run begins: the data's range, the checkpoint's digits, the optimisers.
        """
        for _, model in self.models(pl_module):
            check_optimizers(model)
        if isinstance(pl_module, self.kind):  # what a host is given its heads need not see
            # A tuner restores its own checkpoint, too, but has ended with that by now.
            pl_module._smx_statistics.known = bool(trainer._checkpoint_connector._loaded_checkpoint)
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
            model._smx_statistics.known = True
        if any(is_exact_solver_s(state) for state in checkpoint.get("optimizer_states", [])):
            settle(checkpoint["loops"]["fit_loop"], rewind=True)  # it needs the epoch whole

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit what the training data decides, and find the exact solver."""
        share_out(trainer, trainer.train_dataloader)
        check_eps(trainer.optimizers)
        keep_equal_averages(trainer)
        exact = any(isinstance(optimizer, ExactSolver) for optimizer in trainer.optimizers)
        for _, model in self.models(pl_module):
            _, shares = sharing(trainer)
            model._smx_objective.shares = shares
            model._smx_objective.alike = shares > 1 and all_are_alike(trainer, model)
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
            begin_epoch(pl_module, pl_module.solver)  # on_train_epoch_start's, of other epochs
        pl_module._smx_statistics.fit_before_training(pl_module)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch's first evaluation; refuse a first batch whose digits would be lost."""
        self._pause_counting(trainer, pl_module, False)
        if batch_idx == 0 and isinstance(pl_module, self.kind):
            check_batch(pl_module, batch)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What a closure evaluates from now on are other points, which an optimiser only tries."""
        self._pause_counting(trainer, pl_module, pl_module.automatic_optimization)

    def _pause_counting(self, trainer: Trainer, pl_module: LightningModule, paused: bool) -> None:
        if isinstance(pl_module, self.kind):
            pl_module.tallies["train"].paused = paused
        elif any(isinstance(optimizer, torch.optim.LBFGS) for optimizer in trainer.optimizers):
            for _, model in self.models(pl_module):
                model.tallies["train"].paused = paused

    # While training --------------------------------------------------------------------------

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the exact solver, where there is one, choose the point that this epoch evaluates."""
        for _, model in self.models(pl_module):
            model.tallies["train"].restore([])  # of an epoch that broke off
            model._smx_objective.rows = 0
            if model.solver is not None and model is pl_module:
                begin_epoch(model, model.solver)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch's training metrics."""
        for prefix, model in self.models(pl_module):
            solver = model.solver if model is pl_module else None
            rejected = solver is not None and log_epoch(model, solver)
            metrics, tally = model._smx_metrics, model.tallies["train"]
            if rejected and solver and solver.metrics.keys() >= {*tally.metrics}:
                tally.restore([])
                metrics.log_values(solver.metrics, pl_module, prefix)  # of where the parameters are
                continue
            values = metrics.log("train", pl_module, prefix)
            if solver is not None:
                solver.metrics = values
            loss = values.get(f"train/{metrics.loss}")
            # The exact solver looks at the features, and leaves a start like that for zero weights.
            if loss is not None and not torch.isfinite(loss) and solver is None:
                if not raised_anywhere(model._smx_objective.rows > 0, model.device):
                    raise InputError(
                        "expected training rows with a label and a weight above 0, got an epoch "
                        "without any; check the labels: those of "
                        f"ignore_index={model.ignore_index} say that there is none"
                    )
                raise InputError(
                    f"the training loss became {float(loss)} in epoch {trainer.current_epoch}: "
                    "expected finite features and a step that converges; look for NaN or infinite "
                    "values in the data, standardise it, or lower the learning rate"
                )

    # Evaluation and prediction ---------------------------------------------------------------

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Share the rows out."""
        self._check_digits(pl_module)
        share_out(trainer, trainer.val_dataloaders)
        for _, model in self.models(pl_module):
            model._smx_metrics.begin("val", len(trainer.num_val_batches))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Share the rows out."""
        self._check_digits(pl_module)
        share_out(trainer, trainer.test_dataloaders)
        for _, model in self.models(pl_module):
            model._smx_metrics.begin("test", len(trainer.num_test_batches))
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
        loaders = len(trainer.num_val_batches)
        log_stage("val", pl_module, self.models(pl_module), loaders)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the ``test/`` metrics; ``confusion_matrix`` holds the counts from then on."""
        loaders = len(trainer.num_test_batches)
        log_stage("test", pl_module, self.models(pl_module), loaders)
        for _, model in self.models(pl_module):
            counts = model._smx_metrics.compute(CONFUSION, model.device)
            if counts:
                model.confusion_matrix = counts[CONFUSION].cpu()


def hook(work: Callable[..., None]) -> Callable[..., None]:
    """The hook of a model that does the bookkeeping of the same name for the model itself."""

    @joined("before")
    @wraps(work)
    def done(self: SoftmaxRegression, *args: Any, **kwargs: Any) -> None:
        work(self._smx_hooks, self.trainer, self, *args, **kwargs)

    own, _, _, *given = inspect.signature(work).parameters.values()
    done.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [own, *given], return_annotation="None"
    )
    done.__annotations__ = {p.name: p.annotation for p in given} | {"return": "None"}
    done.__qualname__ = f"SoftmaxRegression.{work.__name__}"
    return done


def trainer_of(model: SoftmaxRegression) -> Trainer:
    """The Trainer that this module, or the one that it is a part of, is attached to."""
    trainer: Trainer = LightningModule.trainer.fget(model)  # type: ignore[attr-defined]
    return trainer


def attach(model: SoftmaxRegression, trainer: Trainer | None) -> None:
    """Set ``trainer``; a module that holds the model gets the bookkeeping as a callback."""
    LightningModule.trainer.fset(model, trainer)  # type: ignore[attr-defined]
    if trainer is None:
        return
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    hosted = trainer.lightning_module is not model
    if hosted and not any(isinstance(callback, Bookkeeping) for callback in callbacks):
        callbacks.insert(0, model._smx_hooks)
    if trainer.state.fn == TrainerFn.FITTING:
        model._smx_statistics.known = False
        if model.solver is not None:  # of an earlier fit: now Lightning may step another one
            model.solver, model.automatic_optimization = None, True


@joined("behind")
def on_load_checkpoint(model: SoftmaxRegression, checkpoint: dict[str, Any]) -> None:
    """Complain about a checkpoint of another problem, or of other settings."""
    if model._trainer is not None:
        model._smx_hooks.on_load_checkpoint(model.trainer, model, checkpoint)
    check_loaded(model, checkpoint)


@joined("behind")
def on_save_checkpoint(model: SoftmaxRegression, checkpoint: dict[str, Any]) -> None:
    """Say which class wrote the checkpoint, and what training had reached."""
    write(model, checkpoint)


@joined("behind")
def configure_model(model: SoftmaxRegression) -> None:
    """Spread the classes over processes, where ModelParallelStrategy asks for it."""
    if model.device_mesh is not None:
        shard(model)
        model._smx_objective.sharded = type(model).loss is model._smx_hooks.kind.loss


def signed_as(other: Callable[..., Any] | None = None) -> Callable[[Method], Method]:
    """Of a method: its signature and its text are those of a function that does its work.

    Without one its signature is its own, where ``inspect`` finds it at once: Lightning asks for
    that of ``training_step`` before every batch, which takes 15 µs otherwise.
    """

    def signed(method: Method) -> Method:
        method.__signature__ = inspect.signature(other or method)  # type: ignore[attr-defined]
        method.__doc__ = (other or method).__doc__
        return method

    return signed
