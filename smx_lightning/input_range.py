"""The range of the training data, from the data module that tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smx_lightning.checks import check_range

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from smx_lightning.module import SoftmaxRegression


def know_range(trainer: Trainer, model: SoftmaxRegression) -> None:
    """Let a model that was not told its ``input_range`` take the data module's, if it has one.

    Checkpoints and exported files tell it then, as those of the command line do.
    """
    told = getattr(getattr(trainer, "datamodule", None), "input_range", None)
    if model.input_range is None and told is not None:
        model.input_range = check_range(told)
        model.hparams["input_range"] = list(model.input_range)
