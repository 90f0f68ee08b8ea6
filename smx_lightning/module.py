"""Softmax regression as a LightningModule.

Conventions
-----------
For a batch of n inputs with d features and K classes

    log_probs = log_softmax(W x + b)         x (n, d), W (K, d), b (K,), log_probs (n, K)
    objective = mean negative log-likelihood + ½ · l2 · ‖W‖²

The bias is never penalised, so scikit-learn's ``C`` corresponds to ``l2 = 1 / (C · n)``. With class
weights the mean is the weighted one, ``Σ w[y] · nll / Σ w[y]``, as in scikit-learn and torch.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from jaxtyping import Float, Int, Shaped
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its customary name)

from smx_lightning import metrics
from smx_lightning.checks import (
    at_least,
    check_eps,
    check_labels,
    check_range,
    check_same_problem,
    check_threshold,
    names_of,
    non_negative,
)
from smx_lightning.class_weight import ClassWeight, class_weights
from smx_lightning.data.loading import sharing
from smx_lightning.distributed import (
    check_world_size,
    leave_group_at_exit,
    log_agreed,
    rows_of_batch,
    share_out,
)
from smx_lightning.errors import InputError
from smx_lightning.fitting import training_statistics
from smx_lightning.optim import ExactSolver
from smx_lightning.optim.evaluation import summed
from smx_lightning.optim.training import (
    begin_epoch,
    end_epoch,
    evaluate,
    exact_solver,
    is_exact_solver_s,
    log_epoch,
)
from smx_lightning.preprocessing import Method, Preprocessing
from smx_lightning.progress import restore_digits, settle
from smx_lightning.sharding import check_optimizers, data_group, parallel_loss, shard, whole
from smx_lightning.tally import Tally

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

CHECKPOINT_KEY = "smx_lightning"
STAGES = ("train", "val", "test")
CONFUSION = "confusion"
PROGRESS_BAR = ("train/nll", "val/nll", "val/accuracy_micro")


class Prediction(NamedTuple):
    """What ``predict_step`` answers: label (batch,) int64, probs (batch, classes)."""

    label: Tensor
    probs: Tensor


class SoftmaxRegression(LightningModule):
    """``y = softmax(W x + b)``: one perceptron a class, the largest logit wins.

    Subclass it by overriding one small method: :meth:`features` (a backbone), :meth:`loss`,
    :meth:`configure_metrics` or :meth:`configure_optimizers`. Logging, checkpoints, ONNX export and
    the parity check go on working.

    Args:
        num_features: d, entries of an input after unrolling, or of what :meth:`features` returns.
        num_classes: K, at least 2.
        class_names: One name a class; ``"0"``, ``"1"``, … by default.
        input_shape: Shape of one input without the batch dimension; ``(num_features,)`` by default.
        input_range: Smallest and largest value of an input's entries, such as (0, 255) of pixels:
            the model itself needs it not, but the exported file tells it to who makes inputs.
        l2: Weight of the penalty ½‖W‖², at least 0.
        class_weight: ``None`` (all 1), ``"balanced"`` (n / (K · count), counted on the training
            data), one weight a class, or a dict from class name to weight (1 for those left out).
        preprocessing: ``none``, ``standardize`` or ``scale``, fitted on the training data in one
            pass before the first epoch, see :mod:`smx_lightning.preprocessing`.
        threshold: γ of a binary problem: class 1 is predicted where its probability is at least γ.
        optimizer: Called with the parameters, as in LightningCLI. An
            :class:`~smx_lightning.optim.ExactSolver` makes an epoch one evaluation of the whole
            objective, and stops the trainer at the optimum.
        lr_scheduler: Called with the optimiser; stepped once an epoch.

    Attributes:
        lr: Takes the place of the optimiser's learning rate once it is set, as Lightning's
            ``Tuner.lr_find`` does; ``None`` before.
        smx: ``nn.Sequential(nn.Linear(num_features, num_classes), nn.LogSoftmax(dim=1))``.
        solver: The exact solver of the last training, with its status; ``None`` with others.
        tallies: What has been counted of each stage's epoch so far.
        confusion_matrix: Counts (classes, classes) of the last test, a row a label; ``None`` before
            it, and beyond 1000 classes.

    Raises:
        InputError: For an argument that is out of its range; it says what was expected.

    >>> model = SoftmaxRegression(num_features=4, num_classes=3)
    >>> model(torch.zeros(2, 4)).exp().sum(1).round(decimals=4)
    tensor([1., 1.], grad_fn=<RoundBackward1>)
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        class_names: Sequence[str] | None = None,
        input_shape: Sequence[int] | None = None,
        input_range: Sequence[float] | None = None,
        l2: float = 0.0,
        class_weight: ClassWeight = None,
        preprocessing: Method = "none",
        threshold: float | None = None,
        optimizer: OptimizerCallable = lambda params: torch.optim.Adam(params, lr=0.01),
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        num_features = at_least("num_features", num_features, 1)
        num_classes = at_least("num_classes", num_classes, 2)
        class_names = names_of(class_names, num_classes)
        input_shape = list(input_shape or (num_features,))
        input_range = None if input_range is None else list(check_range(input_range))
        class_weight = class_weights(class_weight, class_names)
        l2 = non_negative("l2", l2)
        check_threshold(threshold, num_classes)
        # Plain values only, so that a checkpoint loads without unpickling code.
        self.save_hyperparameters(ignore=["optimizer", "lr_scheduler"])

        self.num_features = num_features
        self.num_classes = num_classes
        self.class_names = tuple(class_names)
        self.input_shape = tuple(input_shape)
        self.input_range = None if input_range is None else check_range(input_range)
        self.l2 = l2
        self.class_weight = class_weight
        self.threshold = threshold
        self._optimizer = optimizer
        self._lr_scheduler = lr_scheduler

        self.smx = nn.Sequential(nn.Linear(num_features, num_classes), nn.LogSoftmax(dim=1))
        self.preprocessing = Preprocessing(num_features, preprocessing)
        # Integers, which no precision setting casts. All zeros: not counted yet.
        self.class_counts: Tensor
        self.register_buffer("class_counts", torch.zeros(num_classes, dtype=torch.int64))
        # Alike on all processes: DDP need not broadcast them at every step, a fifth of a small one.
        self._ddp_params_and_buffers_to_ignore = [name for name, _ in self.named_buffers()]
        self.solver: ExactSolver | None = None
        self.lr: float | None = None
        self._shares = 1  # of each batch: processes that see different rows
        self._parallel_loss = False
        # "train" itself is taken: it is a method of every module.
        collections = {stage: self.configure_metrics(stage) for stage in STAGES}
        confusion = metrics.confusion_matrix(num_classes, threshold=threshold)
        if confusion is not None:
            collections[CONFUSION] = confusion
        self._metrics = nn.ModuleDict({f"{name}_metrics": m for name, m in collections.items()})
        self.tallies = {
            name: Tally(collection, num_classes, f"{name} batches")
            for name, collection in collections.items()
        }
        self.confusion_matrix: Tensor | None = None

    # What subclasses override: one small method each -----------------------------------------

    def features(self, x: Shaped[Tensor, "batch ..."]) -> Shaped[Tensor, "batch features"]:
        """Inputs of any shape → feature vectors (batch, num_features).

        The default unrolls raw pixels. Override it to put a backbone in front; standardisation and
        the linear layer follow by themselves.
        """
        if x.ndim < 2:
            raise InputError(
                f"expected inputs of shape (batch, …), got {tuple(x.shape)}; add a batch dimension "
                "with x[None]"
            )
        return x.flatten(1)

    def loss(
        self, log_probs: Float[Tensor, "batch classes"], y: Int[Tensor, " batch"]
    ) -> Float[Tensor, ""]:
        """The data term of the objective: the (class-weighted) mean negative log-likelihood.

        Override it for label smoothing, focal loss and so on; the penalty is added elsewhere.
        """
        return F.nll_loss(log_probs, y, self.class_weights_for(log_probs))

    def configure_metrics(self, stage: str) -> MetricCollection:
        """The metrics of a stage: ``train``, ``val`` or ``test``; updated with (log_probs, y).

        Their names, prefix included, are the names in the log.
        """
        if stage == "train":
            return metrics.training_metrics(self.num_classes, threshold=self.threshold)
        return metrics.evaluation_metrics(
            self.num_classes, prefix=f"{stage}/", threshold=self.threshold
        )

    def configure_optimizers(self) -> Any:
        """The injected optimiser over the parameters that are trained, and its schedule."""
        optimizer = self._optimizer([p for p in self.parameters() if p.requires_grad])
        if self.lr is not None:
            for group in optimizer.param_groups:
                group["lr"] = self.lr
        if self._lr_scheduler is None:
            return optimizer
        scheduler = self._lr_scheduler(optimizer)
        schedule: dict[str, Any] = {"scheduler": scheduler}
        if isinstance(scheduler, ReduceLROnPlateau):
            schedule["monitor"] = scheduler.monitor
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    @property
    def linear(self) -> nn.Linear:
        """The linear layer of :attr:`smx`: weight (classes, features), bias (classes,)."""
        return cast("nn.Linear", self.smx[0])

    # The model -------------------------------------------------------------------------------

    def forward(self, x: Shaped[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """Log-probabilities (batch, classes) of a batch of inputs of any shape.

        Whatever the precision around it, the linear layer and the log-softmax run in float32 or
        wider: float16 overflows at logits of 65504, and a bfloat16 log-softmax sums to .993–1.013.
        """
        x = self.checked_features(x)
        if torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return self.head(x)
        return self.head(x)

    def checked_features(self, x: Shaped[Tensor, "batch ..."]) -> Shaped[Tensor, "batch features"]:
        """What :meth:`features` answers, if it has ``num_features`` entries a row."""
        x = self.features(x)
        if x.ndim != 2 or x.shape[1] != self.num_features:
            raise InputError(
                f"expected {self.num_features} features a row, got {math.prod(x.shape[1:])} "
                f"(shape {tuple(x.shape)}); num_features must match the data"
            )
        return x

    def head(self, x: Shaped[Tensor, "batch features"]) -> Float[Tensor, "batch classes"]:
        """Feature vectors → log-probabilities: standardisation, linear layer, log-softmax."""
        x = self.preprocessing(x)
        dtype = self.linear.weight.dtype
        if dtype.itemsize < 4:  # bf16-true, 16-true
            wide = {name: p.to(x.dtype) for name, p in self.smx.named_parameters()}
            return cast("Tensor", torch.func.functional_call(self.smx, wide, x))
        return cast("Tensor", self.smx(x.to(dtype)))

    def decide(self, log_probs: Float[Tensor, "batch classes"]) -> Int[Tensor, " batch"]:
        """The predicted class of each row, at the threshold γ where there is one."""
        return metrics.decide(log_probs, self.threshold)

    def penalty(self) -> Float[Tensor, ""]:
        """½ · l2 · ‖W‖²; added to the loss where l2 is not 0."""
        weight = self.linear.weight
        wide = torch.promote_types(weight.dtype, torch.float32)
        return whole(0.5 * self.l2 * weight.to(wide).square().sum())

    # The Trainer's hooks ---------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Refuse a trainer that ignores the processes that a launcher has started."""
        check_world_size(self.trainer)
        leave_group_at_exit()

    def configure_model(self) -> None:
        """Spread the classes over processes, where ModelParallelStrategy asks for it."""
        if self.device_mesh is not None:
            shard(self)
            # Its gradient is that of nll_loss only.
            self._parallel_loss = type(self).loss is SoftmaxRegression.loss

    def on_fit_start(self) -> None:
        """Refuse an optimiser that sharded classes cannot have, before a checkpoint is read.

        Give float64 models the digits back that Lightning takes from those it resumes.
        """
        check_optimizers(self)
        restore_digits(self.trainer)

    def on_train_start(self) -> None:
        """Fit what the training data decides: standardisation and class counts.

        One pass over the training batches, once: a resumed run finds both in its checkpoint.
        """
        _, self._shares = sharing(self.trainer)
        share_out(self.trainer, self.trainer.train_dataloader)
        check_eps(self.trainer.optimizers)
        own_loss = type(self).loss is not SoftmaxRegression.loss
        self.solver = exact_solver(self, own_loss=own_loss)
        if self.solver is not None and self.trainer.fit_loop.restarted_mid_epoch:
            begin_epoch(self, self.solver)  # which is on_train_epoch_start's, of other epochs
        balanced = self.class_weight == "balanced"
        if (self.preprocessing.method == "none" and not balanced) or self.class_counts.any():
            return
        moments, counts = training_statistics(self)
        if balanced and not counts.all():
            absent = self.class_names[int((counts == 0).nonzero()[0])]
            raise InputError(
                f"class_weight='balanced' needs a training sample of every class, got none of "
                f"{absent!r}; give the weights as a list or drop the class"
            )
        self.preprocessing.fit(moments)
        self.class_counts.copy_(counts)

    def on_train_epoch_start(self) -> None:
        """Let the exact solver, where there is one, move to the point that this epoch evaluates."""
        self.tallies["train"].restore([])  # of an epoch that broke off
        if self.solver is not None:
            begin_epoch(self, self.solver)

    def on_train_end(self) -> None:
        """Leave the exact solver's best point behind, whatever stopped the training."""
        if self.solver is not None:
            self.solver.restore()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """The objective on one batch ``(x, y)``; y (batch,) integer labels."""
        if self.solver is not None:
            x, y = batch
            check_labels(y, self.num_classes, "train batches")
            self.tallies["train"].add(evaluate(self, self.solver, x, y), y)
            if self.trainer.is_last_batch:  # judged before validation runs
                end_epoch(self, self.solver)
            return None
        with parallel_loss(self._parallel_loss):
            log_probs, y = self._score(batch, "train")
            if self._parallel_loss:  # which would not complain
                check_labels(y, self.num_classes, "train batches")
            try:
                loss = self._mean_loss(log_probs, y, batch_idx)
            except (IndexError, RuntimeError):  # labels at fault are worth a clearer complaint
                check_labels(y, self.num_classes, "train batches")
                raise
        return loss + self.penalty() if self.l2 else loss

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """As of every LightningModule, on sharded classes where there are such."""
        with parallel_loss(self._parallel_loss):
            super().backward(loss, *args, **kwargs)

    def on_validation_start(self) -> None:
        """Share the rows out."""
        share_out(self.trainer, self.trainer.val_dataloaders)

    def on_test_start(self) -> None:
        """Share the rows out."""
        share_out(self.trainer, self.trainer.test_dataloaders)

    def on_predict_start(self) -> None:
        """Share the rows out."""
        share_out(self.trainer, self.trainer.predict_dataloaders)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Add one batch to the ``val/`` metrics."""
        self._score(batch, "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Add one batch to the ``test/`` metrics and the confusion matrix."""
        self._score(batch, "test", CONFUSION)

    def predict_step(self, batch: Any, batch_idx: int) -> Prediction:
        """Labels and probabilities of a batch ``x`` or ``(x, y)``."""
        log_probs = whole(self(batch[0] if isinstance(batch, (tuple, list)) else batch))
        return Prediction(self.decide(log_probs), log_probs.exp())

    def on_train_epoch_end(self) -> None:
        """Log the epoch's training metrics."""
        if self.solver is not None:
            log_epoch(self, self.solver)
        values = self._log_epoch("train")
        nll = values.get("train/nll")
        if nll is not None and not torch.isfinite(nll):
            raise InputError(
                f"the training loss became {float(nll)} in epoch {self.current_epoch}: expected "
                "finite features and a step that converges; look for NaN or infinite values in the "
                "data, standardise it, or lower the learning rate"
            )

    def on_validation_epoch_end(self) -> None:
        """Log the ``val/`` metrics."""
        self._log_epoch("val")

    def on_test_epoch_end(self) -> None:
        """Log the ``test/`` metrics; ``confusion_matrix`` holds the counts from then on."""
        self._log_epoch("test")
        if CONFUSION in self.tallies:
            self.confusion_matrix = self.tallies[CONFUSION].compute()[CONFUSION].cpu()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say which class wrote the checkpoint, and what training had reached."""
        checkpoint[CHECKPOINT_KEY] = {
            "class": f"{type(self).__module__}.{type(self).__qualname__}",
            "training": self.training_summary(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Complain about a checkpoint of another problem, rewind one of the exact solver's."""
        optimizers = checkpoint.get("optimizer_states", [])
        if any(is_exact_solver_s(state) for state in optimizers):
            settle(checkpoint["loops"]["fit_loop"], rewind=True)  # it needs the epoch whole
        check_same_problem(checkpoint, self.linear.weight.shape, self.class_names)

    def training_summary(self) -> dict[str, Any] | None:
        """Epochs begun, steps taken, finite held-out metrics; ``None`` without a trainer."""
        trainer = self._trainer
        if trainer is None:
            return None
        # Not the training metrics: while a checkpoint is saved they are the epoch before's.
        held_out = {
            name: round(float(value), 6)
            for name, value in sorted(trainer.callback_metrics.items())
            if name.startswith(("val/", "test/")) and torch.isfinite(value)
        }
        epochs = trainer.fit_loop.epoch_progress.current.ready
        return {"epochs": epochs, "steps": trainer.global_step, "metrics": held_out}

    def to_onnx(  # type: ignore[override]  # a safer promise than Lightning's: a path, verified
        self, file_path: str | Path, input_sample: Tensor | None = None, **kwargs: Any
    ) -> Path:
        """Write one ONNX file and prove that it is this model, see :func:`smx_export.export_onnx`.

        Args:
            file_path: The file to write; on a failed check what was there stays.
            input_sample: A batch; its shape without the first dimension replaces ``input_shape``.
            **kwargs: Passed on to ``export_onnx``.
        """
        from smx_export import export_onnx

        if input_sample is not None:
            kwargs.setdefault("input_shape", tuple(input_sample.shape[1:]))
        return export_onnx(self, file_path, **kwargs).path

    # Details ---------------------------------------------------------------------------------

    def _score(self, batch: Any, *tallies: str) -> tuple[Tensor, Tensor]:
        """Log-probabilities and labels of a batch, counted."""
        x, y = batch
        log_probs = self(x)
        if not self._parallel_loss:  # a loss of a subclass's own sees all classes
            log_probs = whole(log_probs)
        counted = whole(log_probs.detach())
        for name in tallies:
            if name in self.tallies:
                self.tallies[name].add(counted, y)
        return log_probs, y

    def _mean_loss(self, log_probs: Tensor, y: Tensor, batch_idx: int) -> Tensor:
        """The loss, so scaled that the processes' average is the mean over the whole batch.

        That is the mean over this process's rows, times the number of processes, times the part of
        the batch's weight that these rows have.
        """
        if self._shares == 1:
            return whole(self.loss(log_probs, y))
        weights = self.class_weights_for(log_probs)
        total: Tensor | float | None = None
        if weights is None:
            own: Tensor | float = len(y)
            total = rows_of_batch(self.trainer, batch_idx)
        else:
            own = weights[y].sum()
        if total is None:
            rows = torch.as_tensor(own, dtype=torch.float64, device=y.device).clone()
            total = summed(rows, data_group(self))
        if len(y) == 0:
            return whole(log_probs.sum())  # zero, with the gradients that the others wait for
        return whole(self.loss(log_probs, y)) * (own * self._shares / total)

    def _log_epoch(self, stage: str) -> dict[str, Tensor]:
        values = self.tallies[stage].compute()
        for name, value in values.items():
            log_agreed(self, name, value, prog_bar=name in PROGRESS_BAR)
        return values

    def __setattr__(self, name: str, value: Any) -> None:
        """As of every module, with a short cut for a string that Lightning sets 46 times a step."""
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def class_weights_for(self, like: Tensor) -> Tensor | None:
        """The weight of each class, (classes,), in the dtype and on the device of ``like``."""
        if self.class_weight is None:
            return None
        if self.class_weight == "balanced":
            total = self.class_counts.sum()
            return (total / (self.num_classes * self.class_counts)).to(like.dtype)
        return torch.tensor(self.class_weight).to(like)


# Lightning inspects it at every step, for 15 µs; this is where ``inspect`` looks first.
SoftmaxRegression.training_step.__signature__ = inspect.signature(  # type: ignore[attr-defined]
    SoftmaxRegression.training_step
)
