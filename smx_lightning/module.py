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
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

import torch
from jaxtyping import Float, Int, Shaped
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its customary name)

from smx_lightning import metrics
from smx_lightning.checkpoint.describing import describe, write
from smx_lightning.checkpoint.loading import load_model
from smx_lightning.checkpoint.matching import check_loaded
from smx_lightning.data.sharing import rows_of_batch
from smx_lightning.errors import InputError
from smx_lightning.errors.checks import (
    at_least,
    check_labels,
    check_range,
    check_threshold,
    names_of,
    non_negative,
)
from smx_lightning.errors.class_weight import ClassWeight, class_weights
from smx_lightning.metrics.tally import Tally
from smx_lightning.optim import ExactSolver
from smx_lightning.optim.evaluation import summed
from smx_lightning.optim.training import end_epoch, evaluate
from smx_lightning.preprocessing.digits import check_digits
from smx_lightning.preprocessing.standardization import Method, Preprocessing
from smx_lightning.processes.sharding import data_group, local, parallel_loss, shard, whole
from smx_lightning.training.hooks import CONFUSION, Bookkeeping, followed
from smx_lightning.training.statistics import Batch, statistics_of

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from typing_extensions import Self

STAGES = ("train", "val", "test")
# Hooks whose work is done although a subclass overrides them: first ours, or first its own.
BEFORE_AN_OVERRIDE = (
    *("setup", "on_fit_start", "on_train_start", "on_train_epoch_start", "on_train_epoch_end"),
    "on_train_batch_start",
    *(
        "on_train_end",
        "on_after_backward",
        "on_validation_start",
        "on_validation_epoch_end",
        "on_test_start",
    ),
    *("on_test_epoch_end", "on_predict_start"),
)
BEHIND_AN_OVERRIDE = ("configure_model", "on_save_checkpoint", "on_load_checkpoint")


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
        optimizer: Called with the parameters, as in LightningCLI; and once before, with parameters
            of the same shapes and no memory, to describe it in the hyper-parameters. An
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
        # As descriptions these follow below: a checkpoint holds plain values only.
        self.save_hyperparameters(ignore=["optimizer", "lr_scheduler"])

        self.num_features = num_features
        self.num_classes = num_classes
        self.class_names = tuple(class_names)
        self.input_shape = tuple(input_shape)
        self.input_range = None if input_range is None else check_range(input_range)
        self.l2 = l2
        self.class_weight = class_weight
        self._threshold = threshold
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
        self._run_of: dict[str, Any] | None = None  # descriptions, of optimisers in use
        self._began_with: str | None = None  # hash of the weights that a checkpoint brought
        self._called: frozenset[str] = frozenset()  # names of the constructor's arguments
        self._objects: dict[str, str] = {}  # arguments that are no plain values, in words
        self._shares = 1  # of each batch: processes that see different rows
        self._parallel_loss = False
        self._range_is_learned = False  # input_range: from an earlier fit's data, not told
        self._keeps_statistics = False  # in this fit: they are known, or a checkpoint brings them
        self._evaluations = 0  # of the exact solver, when the epoch began
        # "train" itself is taken: it is a method of every module.
        collections = {
            stage: metrics.stage_metrics(self.configure_metrics(stage), stage) for stage in STAGES
        }
        confusion = metrics.confusion_matrix(num_classes, threshold=threshold)
        if confusion is not None:
            collections[CONFUSION] = confusion
        self._metrics = nn.ModuleDict({f"{name}_metrics": m for name, m in collections.items()})
        self.tallies = {
            name: Tally(collection, num_classes, f"{name} batches")
            for name, collection in collections.items()
        }
        self.confusion_matrix: Tensor | None = None
        describe(self)

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

    def configure_metrics(self, stage: str) -> metrics.Given:
        """The metrics of a stage: ``train``, ``val`` or ``test``; updated with (log_probs, y).

        A MetricCollection, a dict of metrics by name, or one metric. They are logged as ``stage/``
        and their names.
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
    def threshold(self) -> float | None:
        """γ, see the class; one that is set later counts in the metrics too, from then on."""
        return self._threshold

    @threshold.setter
    def threshold(self, threshold: float | None) -> None:
        check_threshold(threshold, self.num_classes)
        for tally in self.tallies.values():
            tally.flush()
        metrics.set_threshold(self._metrics.modules(), self._threshold, threshold)
        self._threshold = threshold

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

    def objective(
        self, x: Shaped[Tensor, "batch ..."], y: Int[Tensor, " batch"]
    ) -> Float[Tensor, ""]:
        """The whole loss of a batch, data term and penalty, for a training step of one's own.

        Under a Trainer the batch is counted in the stage's metrics too, and on several processes
        their average is the mean over the whole batch.

        Args:
            x: Inputs, as :meth:`forward` takes them.
            y: Class indices.

        Raises:
            InputError: Where statistics are needed that nobody has fitted, see
                :meth:`fit_statistics`.
        """
        trained = self._trainer is None or self._trainer.training
        if trained and self.needs_statistics and not self.class_counts.any():
            raise InputError(
                "expected the statistics of the training data before the first step, got none: "
                "call fit_statistics(batches) with batches (x, y) of what this model is fed, in "
                "on_fit_start for example"
            )
        return self._objective(x, y, self._tallies_of_stage())

    @property
    def needs_statistics(self) -> bool:
        """Whether something is decided by the training data: standardisation, balanced weights."""
        return self.preprocessing.method != "none" or self.class_weight == "balanced"

    def fit_statistics(self, batches: Iterable[Batch]) -> None:
        """Fit what the training data decides: standardisation and class counts.

        The Trainer's module gets this by itself before its first step. A model that is a part of
        another module is told by its host, which knows what it feeds: once, before training, on
        every process with that process's share. Where there were statistics already, the linear
        layer is changed with them, so that the predictions stay.

        Args:
            batches: Pairs of inputs (batch, …) and labels (batch,), one pass of them.

        Raises:
            InputError: For features that are not finite, labels out of range, and a class without
                a row where weights are balanced.
        """
        moments, counts = statistics_of(self, batches)
        if self.class_weight == "balanced" and not counts.all():
            absent = self.class_names[int((counts == 0).nonzero()[0])]
            raise InputError(
                f"class_weight='balanced' needs a training sample of every class, got none of "
                f"{absent!r}; give the weights as a list or drop the class"
            )
        check_digits(self, moments.wide.nonzero().flatten().tolist())
        behind = [local(p.detach()) for p in self.linear.parameters()]
        self.preprocessing.fit(moments, behind=behind if self.class_counts.any() else ())
        self.class_counts.copy_(counts)
        self._keeps_statistics = True

    # The Trainer's hooks: what must happen in each of them is in bookkeeping.py ---------------

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let hooks do their work although a subclass overrides them without ``super()``."""
        super().__init_subclass__(**kwargs)
        for name in (*BEFORE_AN_OVERRIDE, *BEHIND_AN_OVERRIDE):
            override, ours = getattr(cls, name), getattr(SoftmaxRegression, name)
            if override is ours or hasattr(override, "does_both"):
                continue
            hooks = (ours, override) if name in BEFORE_AN_OVERRIDE else (override, ours)
            setattr(cls, name, followed(*hooks))

    @property
    def trainer(self) -> Trainer:
        """The Trainer that this module, or the one that it is a part of, is attached to."""
        return super().trainer

    @trainer.setter
    def trainer(self, trainer: Trainer | None) -> None:
        LightningModule.trainer.fset(self, trainer)  # type: ignore[attr-defined]
        if trainer is None:
            return
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        hosted = trainer.lightning_module is not self
        if hosted and not any(isinstance(callback, Bookkeeping) for callback in callbacks):
            callbacks.insert(0, BOOKKEEPING)
        if trainer.state.fn == TrainerFn.FITTING:
            self._keeps_statistics = False
            if self.solver is not None:  # of an earlier fit: now Lightning may step another one
                self.solver, self.automatic_optimization = None, True

    def setup(self, stage: str) -> None:
        """Refuse a trainer that ignores the processes that a launcher has started."""
        BOOKKEEPING.setup(self.trainer, self, stage)

    def on_fit_start(self) -> None:
        """Refuse an optimiser that sharded classes cannot have, before a checkpoint is read."""
        BOOKKEEPING.on_fit_start(self.trainer, self)

    def on_train_start(self) -> None:
        """Fit what the training data decides: standardisation and class counts."""
        BOOKKEEPING.on_train_start(self.trainer, self)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """See :meth:`Bookkeeping.on_train_batch_start`."""
        BOOKKEEPING.on_train_batch_start(self.trainer, self, batch, batch_idx)

    def on_train_epoch_start(self) -> None:
        """Let the exact solver, where there is one, move to the point that this epoch evaluates."""
        BOOKKEEPING.on_train_epoch_start(self.trainer, self)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's training metrics."""
        BOOKKEEPING.on_train_epoch_end(self.trainer, self)

    def on_after_backward(self) -> None:
        """Count no further evaluation of the batch."""
        BOOKKEEPING.on_after_backward(self.trainer, self)

    def on_train_end(self) -> None:
        """Leave the exact solver's best point behind, whatever stopped the training."""
        BOOKKEEPING.on_train_end(self.trainer, self)

    def on_validation_start(self) -> None:
        """Share the rows out."""
        BOOKKEEPING.on_validation_start(self.trainer, self)

    def on_validation_epoch_end(self) -> None:
        """Log the ``val/`` metrics."""
        BOOKKEEPING.on_validation_epoch_end(self.trainer, self)

    def on_test_start(self) -> None:
        """Share the rows out."""
        BOOKKEEPING.on_test_start(self.trainer, self)

    def on_test_epoch_end(self) -> None:
        """Log the ``test/`` metrics; ``confusion_matrix`` holds the counts from then on."""
        BOOKKEEPING.on_test_epoch_end(self.trainer, self)

    def on_predict_start(self) -> None:
        """Share the rows out."""
        BOOKKEEPING.on_predict_start(self.trainer, self)

    def configure_model(self) -> None:
        """Spread the classes over processes, where ModelParallelStrategy asks for it."""
        if self.device_mesh is not None:
            shard(self)
            # Its gradient is that of nll_loss only.
            self._parallel_loss = type(self).loss is SoftmaxRegression.loss

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """The objective on one batch ``(x, y)``; y (batch,) integer labels."""
        x, y = batch
        if self.solver is not None:
            if self.solver.evaluations > self._evaluations:
                raise InputError(
                    "the exact solver expects one super().training_step(…) a batch, got a second "
                    "with the last one; pass all rows of a batch on at once"
                )
            check_labels(y, self.num_classes, "train batches")
            self.tallies["train"].add(evaluate(self, self.solver, x, y), y)
            if self.trainer.is_last_batch:  # judged before validation runs
                end_epoch(self, self.solver)
            return None
        return self._objective(x, y, ("train",), batch_idx)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """As of every LightningModule, on sharded classes where there are such."""
        with parallel_loss(self._parallel_loss):
            super().backward(loss, *args, **kwargs)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Add one batch to the ``val/`` metrics."""
        x, y = batch
        self._score(x, y, ("val",))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Add one batch to the ``test/`` metrics and the confusion matrix."""
        x, y = batch
        self._score(x, y, ("test", CONFUSION))

    def predict_step(self, batch: Any, batch_idx: int) -> Prediction:
        """Labels and probabilities of a batch ``x`` or ``(x, y)``.

        The label of a row without an answer, one with NaN among its probabilities, is -1.
        """
        log_probs = whole(self(batch[0] if isinstance(batch, (tuple, list)) else batch))
        label = self.decide(log_probs).masked_fill(log_probs.isnan().any(1), -1)
        return Prediction(label, log_probs.exp())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say which class wrote the checkpoint, and what training had reached."""
        write(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Complain about a checkpoint of another problem, or of other settings."""
        if self._trainer is not None:
            BOOKKEEPING.on_load_checkpoint(self.trainer, self, checkpoint)
        check_loaded(self, checkpoint)

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: str | Path | IO[bytes],
        map_location: Any = None,
        hparams_file: str | Path | None = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        allow: Sequence[type] | type = (),
        **kwargs: Any,
    ) -> Self:
        """The model of a checkpoint, which is read as plain data: nothing in it is executed.

        Its optimiser and schedule come back where they are torch's own, the exact solver, or among
        ``allow``; with others the model predicts and exports, and asks for them once it is trained.

        Args:
            checkpoint_path: The checkpoint: a path, a URL or an open file.
            map_location: Where the weights go, as torch.load's; where they were by default.
            hparams_file: Plain YAML with the arguments, in place of the checkpoint's.
            strict: Whether all weights must fit; as the class says by default.
            weights_only: ``True``, whatever is given; ``False`` is refused.
            allow: Classes, or one, of optimisers and schedules of your own that the checkpoint
                may name.
            **kwargs: Arguments of the class that count in place of the checkpoint's.

        Raises:
            InputError: For a file that is no such checkpoint, or arguments that do not fit it.
        """
        if weights_only is False:
            raise InputError(
                "expected to read a checkpoint as plain data, got weights_only=False, which would "
                "run code from it; leave it out"
            )
        return load_model(
            cls,
            checkpoint_path,
            kwargs,
            map_location=map_location,
            hparams_file=hparams_file,
            strict=strict,
            allow=allow,
        )

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

    @classmethod
    def _base(cls) -> type[SoftmaxRegression]:
        """The class that subclasses override, for modules that this one imports."""
        return SoftmaxRegression

    # Details ---------------------------------------------------------------------------------

    def _objective(
        self, x: Tensor, y: Tensor, tallies: Sequence[str], batch_idx: int | None = None
    ) -> Tensor:
        """:meth:`objective`, counted; the index is that of a batch of the Trainer's own loader."""
        with parallel_loss(self._parallel_loss):
            log_probs = self._score(x, y, tallies)
            if self._parallel_loss:  # which would not complain
                check_labels(y, self.num_classes, "train batches")
            try:
                loss = self._mean_loss(log_probs, y, batch_idx)
            except (IndexError, RuntimeError):  # labels at fault are worth a clearer complaint
                check_labels(y, self.num_classes, "train batches")
                raise
        return loss + self.penalty() if self.l2 else loss

    def _score(self, x: Tensor, y: Tensor, tallies: Sequence[str]) -> Tensor:
        """Log-probabilities of a batch, counted."""
        log_probs = self(x)
        if not self._parallel_loss:  # a loss of a subclass's own sees all classes
            log_probs = whole(log_probs)
        counted = whole(log_probs.detach())
        for name in tallies:
            if name in self.tallies:
                self.tallies[name].add(counted, y)
        return cast("Tensor", log_probs)

    def _tallies_of_stage(self) -> tuple[str, ...]:
        """Where a batch of the stage that the Trainer is in counts."""
        trainer = self._trainer
        if trainer is None or trainer.predicting:
            return ()
        if trainer.testing:
            return ("test", CONFUSION)
        return ("train",) if trainer.training else ("val",)

    def _mean_loss(self, log_probs: Tensor, y: Tensor, batch_idx: int | None) -> Tensor:
        """The loss, so scaled that the processes' average is the mean over the whole batch.

        That is the mean over this process's rows, times the number of processes, times the part of
        the batch's weight that these rows have.
        """
        if self._shares == 1:
            return whole(self.loss(log_probs, y))
        weights = self.class_weights_for(log_probs)
        own: Tensor | float = len(y) if weights is None else weights[y].sum()
        total: Tensor | float | None = None
        if weights is None and batch_idx is not None:
            total = rows_of_batch(self.trainer, batch_idx)
        if total is None:
            share = torch.as_tensor(own, dtype=torch.float64, device=y.device).clone()
            total = summed(share, data_group(self))
        if len(y) == 0:
            return whole(log_probs.sum())  # zero, with the gradients that the others wait for
        return whole(self.loss(log_probs, y)) * (own * self._shares / total)

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
            if not total and self._trainer is not None and self._trainer.sanity_checking:
                return torch.ones_like(self.class_counts, dtype=like.dtype)  # counted in a moment
            if not total:
                raise InputError(
                    "class_weight='balanced' needs the class counts of the training data, got none "
                    "yet; call fit_statistics(batches) with batches (x, y) first, or fit under a "
                    "Trainer, which does"
                )
            return (total / (self.num_classes * self.class_counts)).to(like.dtype)
        return torch.tensor(self.class_weight).to(like)


BOOKKEEPING = Bookkeeping(SoftmaxRegression)

# Lightning inspects it at every step, for 15 µs; this is where ``inspect`` looks first.
SoftmaxRegression.training_step.__signature__ = inspect.signature(  # type: ignore[attr-defined]
    SoftmaxRegression.training_step
)
