"""The range of the training data, from the data module that tells it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from smx_lightning.checkpoint.describing import note
from smx_lightning.errors.checks import check_range
from smx_lightning.errors.inputs import FLOAT

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from smx_lightning.module import SoftmaxRegression


def know_range(trainer: Trainer, model: SoftmaxRegression) -> None:
    """Let a model that was not told its ``input_range`` take that of the data of each fit.

    Checkpoints and exported files tell it then, as those of the command line do. As there, a
    subclass whose ``__init__`` takes none is left alone: its checkpoint could not bring it back.
    """
    if model.input_dtype != FLOAT:  # the smallest and largest id of some rows are no vocabulary's
        return
    told = getattr(getattr(trainer, "datamodule", None), "input_range", None)
    if model.input_range is not None and not model._smx_statistics.range_is_learned:
        return
    if _takes_range(type(model)):
        model.input_range = None if told is None else check_range(told)
        model._smx_statistics.range_is_learned = told is not None
        note(model, {"input_range": told and list(check_range(told))})


def _takes_range(kind: type[SoftmaxRegression]) -> bool:
    parameters = inspect.signature(kind).parameters
    extra = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return extra or "input_range" in parameters
