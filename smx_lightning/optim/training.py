"""Where the exact solver meets the Trainer: what it refuses, its epochs' end, what it logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.utils.data import DistributedSampler

from smx_lightning.errors import InputError
from smx_lightning.optim.exact import ExactSolver
from smx_lightning.optim.status import Status
from smx_lightning.processes.distributed import log_agreed
from smx_lightning.processes.sharding import is_sharded

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression

CACHED_ENTRIES = 2**21  # 8 MB of float32: with little else in a last-level cache


def exact_solver(model: SoftmaxRegression, *, own_loss: bool) -> ExactSolver | None:
    """The exact solver among the attached trainer's optimisers, if there is one.

    Its epochs are optimised by hand: Lightning is told.

    Args:
        model: Attached to a trainer.
        own_loss: Whether its loss is another than the class-weighted negative log-likelihood.

    Raises:
        InputError: For what would make the optimum another one than was asked for.
    """
    optimizers = model.trainer.optimizers
    solver = next((o for o in optimizers if isinstance(o, ExactSolver)), None)
    if solver is None:
        return None
    model.automatic_optimization = False
    trainer = model.trainer
    refused = {
        "a loss of its own: the solver minimises the class-weighted negative log-likelihood, drop "
        "the override or take another optimiser": own_loss,
        "a second optimiser: leave only the solver": len(optimizers) > 1,
        "a learning-rate schedule or finder: the solver chooses its steps itself, drop it": bool(
            trainer.lr_scheduler_configs
        ),
        "gradient clipping: drop gradient_clip_val": bool(trainer.gradient_clip_val),
        "accumulated batches: the solver adds up the whole epoch by itself, drop "
        "accumulate_grad_batches": trainer.accumulate_grad_batches != 1,
        "a loader that drops rows: set drop_last=False": bool(
            getattr(trainer.train_dataloader, "drop_last", False)
            or getattr(getattr(trainer.train_dataloader, "batch_sampler", None), "drop_last", False)
        ),
        "part of the data: drop limit_train_batches": not (
            (isinstance(trainer.limit_train_batches, float) and trainer.limit_train_batches == 1.0)
            or bool(getattr(trainer, "overfit_batches", False))
            or bool(getattr(trainer, "fast_dev_run", False))
        ),
        "averaged weights, which are not the optimum: drop the callback": any(
            isinstance(callback, (StochasticWeightAveraging, WeightAveraging))
            for callback in trainer.callbacks  # type: ignore[attr-defined]
        ),
        "an accelerator without float64: take the CPU with accelerator='cpu'": (
            model.device.type == "mps"
        ),
        "precision 16-mixed, whose loss scaling it cannot undo: use bf16-mixed or 32-true": (
            str(trainer.precision) == "16-mixed"
        ),
    }
    for what, found in refused.items():
        if found:
            raise InputError(f"the exact solver does not go with {what}")
    sampler = getattr(trainer.train_dataloader, "sampler", None)
    if isinstance(sampler, DistributedSampler) and len(sampler) * sampler.num_replicas != len(
        sampler.dataset  # type: ignore[arg-type]  # a sized one, or there were no sampler
    ):
        rank_zero_warn(
            f"the sampler repeats rows to share them out evenly over {sampler.num_replicas} "
            "processes, so the optimum is that of the data with these rows twice; take "
            "smx_lightning.data.BatchLoader in place of the DataLoader"
        )
    return solver


def is_exact_solver_s(optimizer_state: dict[str, Any]) -> bool:
    """Whether a checkpoint's state of an optimiser is one of the exact solver's."""
    return "point" in optimizer_state.get("state", {})


def begin_epoch(model: SoftmaxRegression, solver: ExactSolver) -> None:
    """Let the solver move to the point that this epoch evaluates."""
    trainer = model.trainer
    solver.begin_epoch(l2=model.l2, batches=trainer.num_training_batches * trainer.world_size)


@torch.compiler.disable  # type: ignore[untyped-decorator]  # the solver's sums are no graph
@torch.no_grad()
def evaluate(model: SoftmaxRegression, solver: ExactSolver, x: Tensor, y: Tensor) -> Tensor:
    """Add a batch to the solver's sums; its log-probabilities (batch, classes).

    On a CPU in parts that stay in its cache from the product with W to the product with the
    residuals: each entry of x is read from memory once.
    """
    x = model.checked_features(x)
    size = max(CACHED_ENTRIES // x.shape[1], 1) if x.device.type == "cpu" else max(len(x), 1)
    log_probs = []
    with torch.autocast(x.device.type, enabled=False):
        for rows, labels in zip(torch.split(x, size), torch.split(y, size), strict=True):
            rows = model.preprocessing(rows).to(model.linear.weight.dtype)
            log_probs.append(_log_probs(model, rows))
            solver.add(rows, log_probs[-1], labels, model.class_weights_for(log_probs[-1]))
    return torch.cat(log_probs)


def _log_probs(model: SoftmaxRegression, rows: Tensor) -> Tensor:
    """As ``model.smx``, (batch, classes), but rows last in memory.

    Of few classes a CPU's log_softmax is ten times faster over the first dimension.
    """
    if rows.device.type != "cpu":
        return cast("Tensor", model.smx(rows))
    linear = model.linear
    return torch.addmm(linear.bias[:, None], linear.weight, rows.T).log_softmax(0).T


@torch.compiler.disable  # type: ignore[untyped-decorator]
def end_epoch(model: SoftmaxRegression, solver: ExactSolver) -> None:
    """Let the solver judge the epoch's point; stop the Trainer where the solver has stopped."""
    with torch.autocast(model.device.type, enabled=False):  # directions are not bfloat16's
        model.optimizers().step()  # type: ignore[union-attr]  # through Lightning, which counts steps
    if solver.status is not Status.RUNNING:
        model.trainer.should_stop = True


def log_epoch(model: SoftmaxRegression, solver: ExactSolver) -> bool:
    """Log objective and largest gradient entry of the present point; say why the solver stopped.

    Returns:
        Whether the epoch's rows passed at another point than this.
    """
    evaluation = solver.evaluation
    if evaluation is None:  # the first epoch broke off
        return False
    largest = evaluation.gradient.abs().max()
    log_agreed(model, "train/objective", evaluation.objective, prog_bar=True)
    log_agreed(model, "train/gradient_max", largest, prog_bar=True)
    if solver.status is not Status.RUNNING:
        rank_zero_info(
            f"{solver.message} (epoch {model.current_epoch}, objective "
            f"{evaluation.objective:.8g}, largest gradient entry {largest:.2g}, at most about "
            f"{solver.gap:.1g} of the objective to gain)"
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
                "the exact solver does not go with classes that are spread over processes: take "
                "strategy='ddp'"
            )
        if isinstance(optimizer, torch.optim.SGD) and not any(
            group["momentum"] for group in optimizer.param_groups
        ):
            raise InputError(
                "expected an optimiser with a state where classes are sharded, got SGD without "
                "momentum, whose checkpoints Lightning cannot load; set momentum, or take Adam"
            )
