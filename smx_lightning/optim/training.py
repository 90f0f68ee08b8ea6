"""The exact solver under a Trainer: what it refuses, its batches and epochs, what it logs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.utils.data import DistributedSampler

from smx_lightning.errors import InputError
from smx_lightning.errors.checks import check_as_many, check_dense
from smx_lightning.errors.targets import check_targets
from smx_lightning.optim.evaluation import smoothed
from smx_lightning.optim.exact import ExactSolver
from smx_lightning.optim.loop import slices
from smx_lightning.optim.status import Status
from smx_lightning.processes.distributed import log_agreed
from smx_lightning.processes.sharding import is_sharded

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from smx_lightning.module import SoftmaxRegression

NOT_WITH = "the exact solver does not go with"
OR_ADAM = (
    "or take another optimiser, with --model.optimizer torch.optim.Adam, in Python "
    "optimizer=torch.optim.Adam"
)


def exact_solver(model: SoftmaxRegression, *, own_loss: bool) -> ExactSolver | None:
    """The exact solver among the attached trainer's optimisers, if there is one.

    Its epochs are optimised by hand: Lightning is told.

    Args:
        model: Attached to a trainer.
        own_loss: Whether its loss is another than the class-weighted one of its activation.

    Raises:
        InputError: For what would make the optimum another one than was asked for.
    """
    trainer = model.trainer
    solver = next((o for o in trainer.optimizers if isinstance(o, ExactSolver)), None)
    if solver is None:
        return None
    model.automatic_optimization = False
    if own_loss:
        raise InputError(
            f"{NOT_WITH} a loss of its own: the solver minimises the class-weighted loss of "
            f"{model._smx_activation.name}; drop the override, {OR_ADAM}"
        )
    for what, found in (*_other_steps(trainer), *_other_rows(trainer), *_other_digits(model)):
        if found:
            raise InputError(f"{NOT_WITH} {what}, {OR_ADAM}")
    _warn_of_repeated_rows(trainer)
    return solver


def _other_steps(trainer: Trainer) -> Iterator[tuple[str, bool]]:
    """What would step otherwise than the solver, and whether it was asked for."""
    yield "a second optimiser: leave only the solver", len(trainer.optimizers) > 1
    yield (
        "a learning-rate schedule or finder: the solver chooses its steps itself, drop it",
        bool(trainer.lr_scheduler_configs),
    )
    yield "gradient clipping: drop gradient_clip_val", bool(trainer.gradient_clip_val)
    yield (
        "accumulated batches: the solver adds up the whole epoch by itself, drop "
        "accumulate_grad_batches",
        trainer.accumulate_grad_batches != 1,
    )


def _other_rows(trainer: Trainer) -> Iterator[tuple[str, bool]]:
    """What would leave rows out, and whether it was asked for."""
    loader, limit = trainer.train_dataloader, trainer.limit_train_batches
    parts = (loader, getattr(loader, "batch_sampler", None))
    dropped = any(getattr(part, "drop_last", False) for part in parts)
    yield "a loader that drops rows: set drop_last=False", dropped
    trial = any(getattr(trainer, name, False) for name in ("overfit_batches", "fast_dev_run"))
    whole = (isinstance(limit, float) and limit == 1.0) or trial
    yield "part of the data: drop limit_train_batches", not whole


def _other_digits(model: SoftmaxRegression) -> Iterator[tuple[str, bool]]:
    """What would leave other parameters than the optimum's, and whether it was asked for."""
    trainer = model.trainer
    yield (
        "averaged weights, which are not the optimum: drop the callback",
        any(
            isinstance(callback, (StochasticWeightAveraging, WeightAveraging))
            for callback in trainer.callbacks  # type: ignore[attr-defined]
        ),
    )
    yield (
        "an accelerator without float64: take the CPU with accelerator='cpu'",
        model.device.type == "mps",
    )
    yield (
        "precision 16-mixed, whose loss scaling it cannot undo: use bf16-mixed or 32-true",
        str(trainer.precision) == "16-mixed",
    )


def _warn_of_repeated_rows(trainer: Trainer) -> None:
    sampler = getattr(trainer.train_dataloader, "sampler", None)
    if isinstance(sampler, DistributedSampler) and len(sampler) * sampler.num_replicas != len(
        sampler.dataset  # type: ignore[arg-type]  # a sized one, or there were no sampler
    ):
        rank_zero_warn(
            f"the sampler repeats rows to share them out evenly over {sampler.num_replicas} "
            "processes, so the optimum is that of the data with these rows twice; take "
            "smx_lightning.data.BatchLoader in place of the DataLoader"
        )


def is_exact_solver_s(optimizer_state: dict[str, Any]) -> bool:
    """Whether a checkpoint's state of an optimiser is one of the exact solver's."""
    return "point" in optimizer_state.get("state", {})


def begin_epoch(model: SoftmaxRegression, solver: ExactSolver) -> None:
    """Let the solver choose the point that this epoch evaluates."""
    trainer = model.trainer
    solver.begin_epoch(
        l2=model.l2,
        batches=trainer.num_training_batches * trainer.world_size,
        activation=model._smx_activation,
    )
    model._smx_objective.evaluations = solver.evaluations


def add_batch(
    model: SoftmaxRegression, solver: ExactSolver, x: Tensor, y: Tensor, weight: Tensor | None
) -> None:
    """Add a batch to the solver's sums and to the training metrics; the last one ends its epoch.

    Raises:
        InputError: For labels out of range, and for more batches than the Trainer's.
    """
    if solver.evaluations > model._smx_objective.evaluations:
        raise InputError(
            "the exact solver expects one super().training_step(…) a batch, got a second "
            "with the last one; pass all rows of a batch on at once"
        )
    check_targets(y, model.num_classes, "train batches")
    for part, scores in evaluate(model, solver, x, y, weight):
        model.tallies["train"].add(scores, y[part], None if weight is None else weight[part])
    if model.trainer.is_last_batch:  # compared with earlier points before validation runs
        end_epoch(model, solver)


@torch.compiler.disable  # type: ignore[untyped-decorator]  # the solver's sums are no graph
@torch.no_grad()
def evaluate(
    model: SoftmaxRegression,
    solver: ExactSolver,
    x: Tensor,
    y: Tensor,
    weight: Tensor | None = None,
) -> list[tuple[slice, Tensor]]:
    """Add a batch to the solver's sums; slices of it, and their scores at the trial point.

    Scores are (rows, classes). Rows are preprocessed in such slices, too, unless the solver keeps
    them: it would have to put them together again.
    """
    x = model.checked_features(x)
    check_dense(x)
    check_as_many(y, x.shape[0])
    last = model.trainer.is_last_batch
    answers, dtype = [], model.linear.weight.dtype
    with torch.autocast(x.device.type, enabled=False):
        shares = [slice(None)] if last and solver.gathers else slices(x)
        for part in shares:
            rows = model.preprocessing(x[part]).to(dtype)
            targets = smoothed(y[part], model.label_smoothing, model.num_classes, dtype)
            weights = None if weight is None else weight[part]
            classes = model.class_weights_for(rows)
            scores = solver.add(rows, targets, classes, weights, last=last, parts=len(shares))
            answers.append((part, scores))
    return answers


@torch.compiler.disable  # type: ignore[untyped-decorator]
def end_epoch(model: SoftmaxRegression, solver: ExactSolver) -> None:
    """Let the solver accept or reject the epoch's point; stop the Trainer where it has stopped."""
    with torch.autocast(model.device.type, enabled=False):  # directions are not bfloat16's
        model.optimizers().step()  # type: ignore[union-attr]  # through Lightning, which counts steps
    if solver.status is not Status.RUNNING:
        model.trainer.should_stop = True


def log_epoch(model: SoftmaxRegression, solver: ExactSolver) -> bool:
    """Log objective and largest gradient entry of the present point; say why the solver stopped.

    Returns:
        Whether the epoch's rows passed at another point than this.

    Raises:
        InputError: Where the epoch's last batch never came.
    """
    if solver.evaluations == model._smx_objective.evaluations and not model.trainer.should_stop:
        raise InputError(
            "the exact solver expects the rows of every batch, got an epoch whose last "
            "batch never came; call super().training_step(batch, batch_idx) for each "
            f"in an override, and skip none, {OR_ADAM}"
        )
    model._smx_objective.evaluations = -1  # of this epoch nothing more is expected
    evaluation = solver.evaluation
    if evaluation is None:  # the first epoch broke off
        return False
    largest = evaluation.gradient.abs().max()
    log_agreed(model, "train/objective", evaluation.objective, prog_bar=True)
    log_agreed(model, "train/gradient_max", largest, prog_bar=True)
    if solver.status is not Status.RUNNING:
        rank_zero_info(
            f"{solver.message} (epoch {model.current_epoch}, objective "
            f"{evaluation.objective:.8g}, largest gradient entry {largest:.2g}, of which rounding "
            f"explains up to {solver.rounding:.2g}, at most about {solver.gap:.1g} of the "
            "objective to gain)"
        )
    return solver.rejected


def check_optimizers(model: SoftmaxRegression) -> None:
    """Complain about an optimiser that cannot train sharded classes, or go on from a checkpoint.

    Raises:
        InputError: For the exact solver, and SGD without momentum: it has no state, and
            ModelParallelStrategy takes that for a damaged file.
    """
    if not is_sharded(model.smx):
        return
    for optimizer in model.trainer.optimizers:
        if isinstance(optimizer, ExactSolver):
            raise InputError(
                f"{NOT_WITH} classes that are spread over processes: take strategy='ddp', {OR_ADAM}"
            )
        if isinstance(optimizer, torch.optim.SGD) and not any(
            group["momentum"] for group in optimizer.param_groups
        ):
            raise InputError(
                "expected an optimiser with a state where classes are sharded, got SGD without "
                "momentum, whose checkpoints Lightning cannot load; set momentum, or take Adam"
            )
