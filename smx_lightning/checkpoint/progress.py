"""What a checkpoint says of the Trainer's progress and of the model's numbers, made exact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

LOOPS = ("fit_loop", "validate_loop", "test_loop", "predict_loop")
COUNTS = "progress"  # ends the names of what a loop has counted
OF_BATCHES = "batch_progress"
EPOCH, OPTIMIZER = f"epoch_loop.{OF_BATCHES}", "optim_progress"


def without_counts(loops: dict[str, Any] | None) -> str | None:
    """The first of the Trainer's loops that has not counted as Lightning's do, if there is one.

    Args:
        loops: ``checkpoint["loops"]``; ``None`` where only weights were saved.
    """
    if loops is None:
        return None
    for name in LOOPS:
        loop = loops.get(name)
        if not isinstance(loop, dict) or (name == LOOPS[0] and EPOCH not in loop):
            return name
        predicts = name == LOOPS[-1]  # without a last batch
        if not all(_counted(*part, last=not predicts) for part in loop.items()):
            return name
    return None


def _counted(name: Any, state: Any, *, last: bool) -> bool:
    """Whether a part of a loop's state is what its tracker counts, or another state."""
    if not isinstance(state, dict):
        return False
    if not str(name).endswith(COUNTS):
        return type(state.get("_batches_that_stepped", 0)) is int
    if str(name).endswith(OPTIMIZER):
        of = state.get("optimizer")
        parts = [of.get(part) for part in ("step", "zero_grad")] if isinstance(of, dict) else [None]
        return all(_counted(COUNTS, part, last=last) for part in parts)
    if last and str(name).endswith(OF_BATCHES) and "is_last_batch" not in state:
        return False
    return all(
        isinstance(state.get(part), dict)
        and all(type(count) is int and count >= 0 for count in state[part].values())
        for part in ("total", "current")
    )


def settle(fit_loop: dict[str, Any], *, rewind: bool = False) -> None:
    """Let the state say that the batches completed so far are, and that none is under way.

    Args:
        fit_loop: ``checkpoint["loops"]["fit_loop"]``, changed in place.
        rewind: Take those of the present epoch back too, unless it had no more to come.
    """
    progress = fit_loop[EPOCH]
    current, total = progress["current"], progress["total"]
    if rewind and progress["is_last_batch"]:
        return
    batches = 0 if rewind else current["completed"]
    completed = total["completed"] - current["completed"] + batches
    for counts, number in ((current, batches), (total, completed)):
        counts.update(dict.fromkeys(counts, number))
    progress["is_last_batch"] = False
    for loader in fit_loop["state_dict"].get("combined_loader", []):
        if loader.keys() == {"batches"}:
            loader["batches"] = batches


@torch.no_grad()
def restore_digits(trainer: Trainer) -> None:
    """Give the model the digits back that it lost in float32 on its way from a checkpoint.

    Lightning restores parameters and buffers before it makes them float64. Those that are what the
    checkpoint holds, rounded, become what it holds. To be called from ``on_fit_start``.
    """
    checkpoint = trainer._checkpoint_connector._loaded_checkpoint
    if not checkpoint or trainer.strategy.restore_checkpoint_after_setup:
        return
    present = trainer.lightning_module.state_dict()
    # The second is where WeightAveraging puts the weights that are trained.
    for name in ("state_dict", "current_model_state"):
        for key, saved in checkpoint.get(name, {}).items():
            mine = present.get(key)
            if mine is None or not (saved.dtype == mine.dtype == torch.float64):
                continue
            saved = saved.to(mine.device)
            if torch.equal(mine, saved.float().double()):
                mine.copy_(saved)


def resume(trainer: Trainer, file: Path) -> None:
    """Restore a run when the fit starts: the model has its device and its precision then.

    Lightning restores progress, optimisers and schedules next, as of a path given to ``fit``.
    """
    connector = trainer._checkpoint_connector
    connector.resume_start(file)
    if not trainer.strategy.restore_checkpoint_after_setup:  # else it is about to
        connector.restore_model()
        connector.restore_datamodule()
        connector.restore_callbacks()
