"""What a model's injected optimiser and schedule become for the Trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression


def configured(
    model: SoftmaxRegression,
    make_optimizer: OptimizerCallable,
    make_scheduler: LRSchedulerCallable | None,
) -> Any:
    """An optimiser over the model's trained parameters, and its schedule, as Lightning takes them.

    Args:
        model: Its ``lr``, where it is set, takes the place of the optimiser's.
        make_optimizer: Called with the parameters.
        make_scheduler: Called with the optimiser.
    """
    optimizer = make_optimizer([p for p in model.parameters() if p.requires_grad])
    if model.lr is not None:
        for group in optimizer.param_groups:
            group["lr"] = model.lr
    if make_scheduler is None:
        return optimizer
    scheduler = make_scheduler(optimizer)
    schedule: dict[str, Any] = {"scheduler": scheduler}
    if isinstance(scheduler, ReduceLROnPlateau):
        schedule["monitor"] = scheduler.monitor
    return {"optimizer": optimizer, "lr_scheduler": schedule}
