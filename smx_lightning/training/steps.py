"""The Trainer's side of the model: its hooks, and its steps, what it makes of one batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from lightning.pytorch import LightningModule
from torch import Tensor

from smx_lightning.metrics import CONFUSION, Prediction, loader_of, predicted
from smx_lightning.optim.training import add_batch
from smx_lightning.processes.sharding import parallel_loss, whole
from smx_lightning.training import hooks
from smx_lightning.training.batches import parts_of, unpacked
from smx_lightning.training.hooks import Bookkeeping, hook, signed_as
from smx_lightning.training.overrides import check_activation, join_overrides
from smx_lightning.training.rows import labelled, look

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression
    from smx_lightning.optim import ExactSolver


class Steps(LightningModule):
    """What a Trainer calls; what a subclass of the model overrides otherwise is the model's own.

    Hooks do their work although a subclass overrides them without ``super()``.
    """

    if not TYPE_CHECKING:  # whose checkers see those of LightningModule
        trainer = property(hooks.trainer_of, hooks.attach)

        def __setattr__(self, name: str, value: Any) -> None:
            if name == "_current_fx_name":  # a short cut: Lightning sets it 46 times a step
                object.__setattr__(self, name, value)
                return
            if name == "activation":
                check_activation(self, value)
            super().__setattr__(name, value)

    configure_model = hooks.configure_model
    setup = hook(Bookkeeping.setup)
    on_fit_start = hook(Bookkeeping.on_fit_start)
    on_train_start = hook(Bookkeeping.on_train_start)
    on_train_epoch_start = hook(Bookkeeping.on_train_epoch_start)
    on_train_batch_start = hook(Bookkeeping.on_train_batch_start)
    on_after_backward = hook(Bookkeeping.on_after_backward)
    on_train_epoch_end = hook(Bookkeeping.on_train_epoch_end)
    on_validation_start = hook(Bookkeeping.on_validation_start)
    on_validation_epoch_end = hook(Bookkeeping.on_validation_epoch_end)
    on_test_start = hook(Bookkeeping.on_test_start)
    on_test_epoch_end = hook(Bookkeeping.on_test_epoch_end)
    on_predict_start = hook(Bookkeeping.on_predict_start)
    on_save_checkpoint = hooks.on_save_checkpoint
    on_load_checkpoint = hooks.on_load_checkpoint

    lr: float | None
    solver: ExactSolver | None
    confusion_matrix: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.lr = self.solver = self.confusion_matrix = None  # each model's own

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let hooks do their work although a subclass overrides them without ``super()``."""
        super().__init_subclass__(**kwargs)
        join_overrides(cls, Steps)

    def unpack(self, batch: Any) -> tuple[Any, Tensor | None] | tuple[Any, Tensor | None, Tensor]:
        """Inputs x, targets y and weights of a batch; override it for batches of another kind.

        Every step, the statistics, the exact solver and the export read batches through it. It
        takes ``(x, y)``, ``(x, y, weight)``, ``x`` or ``[x]`` without labels, and dicts,
        dataclasses and namedtuples, by name. Their inputs are ``x``, ``input``, ``inputs``,
        ``features``, ``image``, ``images`` or ``pixel_values``, or else all entries but targets and
        weights, as a dict; their targets ``y``, ``label``, ``labels``, ``target`` or ``targets``;
        their weights ``weight``, ``weights`` or ``sample_weight``. Of a model of several inputs x
        is a dict of those, by their names in ``input_shape``.

        A third entry of a tuple is a weight where it is a floating-point tensor (batch,) or
        (batch, 1); others, and all that follow, are left alone.

        Args:
            batch: As the Trainer hands it to a step, through the hooks of transfer.

        Returns:
            x as :meth:`features` takes it; y, ``None`` where a batch has no labels, as those to
            predict need none, else (batch,) integers or bool, ``ignore_index`` of rows without one,
            or (batch, classes) distributions, NaN of such rows; and a weight (batch,) of at least 0
            where rows have one.

        Raises:
            InputError: For another kind of batch, and for names of which several would do.
        """
        shape = cast("SoftmaxRegression", self).input_shape
        return unpacked(batch, shape if isinstance(shape, Mapping) else ())

    def _on_before_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        """As of every LightningModule; what leaves the CPU is looked at while it is there."""
        batch = super()._on_before_batch_transfer(batch, dataloader_idx)
        if self.device.type != "cpu":
            look(cast("SoftmaxRegression", self), batch)
        return batch

    @signed_as()
    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """The objective on one batch, as :meth:`unpack` reads it."""
        model = cast("SoftmaxRegression", self)
        rows = labelled(model, batch, "train batches")
        if model.solver is None:
            return model._smx_objective.of_batch(model, *rows, ("train",), batch_idx)
        add_batch(model, model.solver, *rows)
        return None

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """As of every LightningModule, on sharded classes where there are such."""
        with parallel_loss(cast("SoftmaxRegression", self)._smx_objective.in_parts):
            super().backward(loss, *args, **kwargs)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add one batch to the ``val/`` metrics, and to those of its loader where they are many."""
        model = cast("SoftmaxRegression", self)
        x, y, weight = labelled(model, batch, "val batches")
        names = ("val", *loader_of("val", model._trainer))
        model._smx_metrics.score(model, x, y, names, weight)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add one batch to the ``test/`` metrics, likewise, and to the confusion matrix."""
        model = cast("SoftmaxRegression", self)
        x, y, weight = labelled(model, batch, "test batches")
        names = ("test", CONFUSION, *loader_of("test", model._trainer))
        model._smx_metrics.score(model, x, y, names, weight)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Prediction:
        """Labels and probabilities of a batch, with labels or not; label -1 where these are NaN."""
        model = cast("SoftmaxRegression", self)
        log_probs = whole(model(parts_of(model, batch).x))
        return predicted(log_probs, model.decide(log_probs))
