"""Softmax regression as a LightningModule.

Conventions
-----------
For a batch of n inputs with d features and K classes

    log_probs = log_softmax(W x + b)         x (n, d), W (K, d), b (K,), log_probs (n, K)
    objective = (weighted) mean negative log-likelihood + ½ · l2 · ‖W‖²

or another map and its loss, of :mod:`smx_lightning.activations`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar, cast

import torch
from jaxtyping import Float, Int, Shaped
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from typing_extensions import Self

from smx_lightning import metrics
from smx_lightning.activations import Activation, activation_of
from smx_lightning.activations.layers import log_probabilities
from smx_lightning.checkpoint.describing import Record, describe, training_summary
from smx_lightning.checkpoint.loading import load_model
from smx_lightning.coefficients import Coefficients, coefficients_of
from smx_lightning.errors import checks, inputs
from smx_lightning.errors.class_weight import ClassWeight, class_weights
from smx_lightning.errors.targets import check_smoothing
from smx_lightning.metrics import Prediction as Prediction
from smx_lightning.optim.configuring import configured
from smx_lightning.preprocessing.standardization import Method, Preprocessing
from smx_lightning.tables.naming import in_use, named_features
from smx_lightning.training.classes import with_classes
from smx_lightning.training.hooks import Bookkeeping, signed_as
from smx_lightning.training.hyper_parameters import PlainHyperParameters
from smx_lightning.training.loss import mean_loss
from smx_lightning.training.objective import Objective, class_weights_of, l2_penalty
from smx_lightning.training.overrides import know_activation
from smx_lightning.training.precision import applied_wide, with_autocast_off
from smx_lightning.training.statistics import DataStatistics
from smx_lightning.training.steps import Steps


class SoftmaxRegression(PlainHyperParameters, Steps):
    """``y = softmax(W x + b)``: one perceptron a class, the largest logit wins.

    Subclass it by overriding one small method: :meth:`features` (a backbone), :meth:`loss`,
    :meth:`unpack` (batches), :meth:`configure_metrics` or :meth:`configure_optimizers`. Logging,
    checkpoints, ONNX export and the parity check go on working.

    Args:
        num_features: d, entries of an input after unrolling, or of what :meth:`features` returns.
        num_classes: K, at least 2.
        class_names: One name a class; ``"0"``, ``"1"``, … by default.
        input_shape: Shape of one input, ``(num_features,)`` by default; a dict by name of several.
        input_dtype: ``float32``, ``int64``, ``int32``, ``uint8``, ``bool``, or a dict by name.
        input_range: Smallest and largest entry of inputs, for the file's users; (0, 255) of pixels.
        l2: Weight of the penalty ½‖W‖², at least 0.
        class_weight: ``None``, ``"balanced"`` (n / (K · count)), one a class, or a dict by name or
            index; see :func:`smx_lightning.errors.class_weight.class_weights`.
        label_smoothing: ε from 0 to 1: the loss is of the targets (1 - ε) q + ε / K, as torch's.
        ignore_index: The label of rows without one, which count for nothing.
        preprocessing: ``none``, ``standardize`` or ``scale``, fitted in a pass of the first epoch.
        threshold: γ of a binary problem: class 1 is predicted where its probability is at least γ.
        activation: From scores to probabilities: ``softmax``, ``entmax15``, ``sparsemax``, or
            ``{"alpha": 1.3}``; see :func:`smx_lightning.activations.activation_of`.
        feature_names: One name an entry of an unrolled input; those of a schema, where it is given.
        schema: Which columns of a table the features are: a :class:`smx_lightning.tables.Schema`,
            or the dict that stands for it.
        optimizer: Called with the parameters; once before on the meta device, to be described.
            :class:`~smx_lightning.optim.ExactSolver` makes an epoch one evaluation of the whole
            objective, and stops the trainer at the optimum.
        lr_scheduler: Called with the optimiser; stepped once an epoch.

    Attributes:
        lr: Replaces the optimiser's learning rate once it is set, as ``Tuner.lr_find`` sets it.
        solver: The exact solver of the last training, with its status; ``None`` with others.
        activation: The :class:`~smx_lightning.activations.Activation` that was asked for.
        confusion_matrix: (classes, classes) of the last test, a row a label; up to 1000 classes.
            Integers, and float64 where rows had weights or distributions.

    Raises:
        InputError: For an argument that is out of its range; it says what was expected.

    >>> model = SoftmaxRegression(num_features=4, num_classes=3)
    >>> model(torch.zeros(2, 4)).exp().sum(1).round(decimals=4)
    tensor([1., 1.], grad_fn=<RoundBackward1>)
    """

    _smx_hooks: ClassVar[Bookkeeping]  # it serves all models and trainers
    class_counts: Tensor
    _ddp_params_and_buffers_to_ignore: list[str]
    activation: Activation
    _smx_activation: Activation

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        class_names: Sequence[str] | None = None,
        input_shape: inputs.Shape | None = None,
        input_dtype: inputs.Dtype = inputs.FLOAT,
        input_range: inputs.Range | None = None,
        l2: float = 0.0,
        class_weight: ClassWeight = None,
        label_smoothing: float = 0.0,
        ignore_index: int = -1,
        preprocessing: Method = "none",
        threshold: float | None = None,
        activation: str | dict[str, float] | Activation = "softmax",
        feature_names: Sequence[str] | None = None,
        schema: dict[str, Any] | None = None,
        optimizer: OptimizerCallable = lambda params: torch.optim.Adam(params, lr=0.01),
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        self._smx_objective, self._smx_record = Objective(), Record()
        num_features, num_classes = checks.sizes(num_features, num_classes)
        class_names = checks.names_of(class_names, num_classes)
        shape = (num_features,) if input_shape is None else input_shape
        told = inputs.checked(shape, input_dtype, input_range)
        input_shape, input_dtype, input_range = told  # plain values, for the hyper-parameters
        class_weight = class_weights(class_weight, class_names)
        l2, label_smoothing = checks.non_negative("l2", l2), check_smoothing(label_smoothing)
        ignore_index = checks.whole("ignore_index", ignore_index)
        threshold = checks.check_threshold(threshold, num_classes)
        checks.check_makers(optimizer, lr_scheduler)
        activation = (member := activation_of(activation)).spec
        schema, feature_names = columns = named_features(schema, feature_names, num_features)
        self.save_hyperparameters(ignore=["optimizer", "lr_scheduler"])  # described below
        self.num_features, self.num_classes = num_features, num_classes
        self.class_names = tuple(class_names)
        self.schema, self.feature_names = in_use(columns)
        self.input_shape, self.input_dtype, self.input_range = inputs.taken(self, *told)
        self.l2, self.class_weight, self._threshold = l2, class_weight, threshold
        self.label_smoothing, self.ignore_index = label_smoothing, ignore_index
        self._optimizer, self._lr_scheduler = optimizer, lr_scheduler
        self.smx = nn.Sequential(nn.Linear(num_features, num_classes), log_probabilities(member))
        know_activation(self, member)
        self.preprocessing = Preprocessing(num_features, preprocessing)
        self._smx_statistics = DataStatistics.of(self)
        epochs = metrics.EpochMetrics(self.configure_metrics, num_classes, threshold, member)
        self._smx_metrics, self.tallies = epochs, epochs.tallies
        describe(self)

    def features(self, x: Shaped[Tensor, "batch ..."]) -> Shaped[Tensor, "batch features"]:
        """Inputs of any shape → feature vectors (batch, num_features), by default the raw pixels.

        Override it to put a backbone in front; of several inputs it takes each by its name.
        """
        return checks.unrolled(x)

    def loss(
        self,
        scores: Float[Tensor, "batch classes"],
        y: Shaped[Tensor, "batch ..."],
        weight: Shaped[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, ""]:
        """The data term of the objective: the (weighted) mean negative log-likelihood.

        Of members other than softmax, the mean Fenchel-Young loss: :mod:`.training.loss`. Override
        it for focal loss and so on, without ``weight`` where no rows have one; the penalty is added
        elsewhere. The scores of softmax are its log-probabilities, and those of others W x + b.
        """
        return mean_loss(self, scores, y, weight)

    def configure_metrics(self, stage: str) -> metrics.Given:
        """The metrics of a stage: ``train``, ``val`` or ``test``; updated with (log_probs, y).

        A MetricCollection, a dict by name, or one metric; logged as ``stage/`` and their names.
        It is asked within ``__init__``: what it needs must be set before ``super().__init__()``.
        """
        return metrics.usual_metrics(
            stage, self.num_classes, threshold=self.threshold, activation=self._smx_activation
        )

    def configure_optimizers(self) -> Any:
        """The injected optimiser over the parameters that are trained, and its schedule."""
        return configured(self, self._optimizer, self._lr_scheduler)

    def forward(self, x: Shaped[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """Log-probabilities (batch, classes), -∞ of those that are 0, in float32 or wider."""
        return with_autocast_off(self.head, self.checked_features(x))

    def scores(self, x: Shaped[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """W x + b (batch, classes), of standardised features, in float32 or wider."""

        def head(x: Tensor) -> Tensor:
            return applied_wide(self.linear, self.linear.weight.dtype, self.preprocessing(x))

        return with_autocast_off(head, self.checked_features(x))

    def checked_features(self, x: Shaped[Tensor, "batch ..."]) -> Shaped[Tensor, "batch features"]:
        """What :meth:`features` answers, if it has ``num_features`` entries a row."""
        return checks.check_features(inputs.features_of(self, x), self.num_features)

    def head(self, x: Shaped[Tensor, "batch features"]) -> Float[Tensor, "batch classes"]:
        """Feature vectors → log-probabilities: standardisation, and :attr:`smx`."""
        return applied_wide(self.smx, self.linear.weight.dtype, self.preprocessing(x))

    def decide(self, log_probs: Float[Tensor, "batch classes"]) -> Int[Tensor, " batch"]:
        """The predicted class of each row, at the threshold γ where there is one."""
        return metrics.decide(log_probs, self.threshold)

    @property
    def threshold(self) -> float | None:
        """γ, see the class; one that is set later counts in the metrics too, from then on."""
        return self._threshold

    @threshold.setter
    def threshold(self, threshold: float | None) -> None:
        threshold = checks.check_threshold(threshold, self.num_classes)
        self._smx_metrics.move_threshold(self._threshold, threshold)
        self._threshold = threshold

    @property
    def linear(self) -> nn.Linear:
        """The linear layer of :attr:`smx`: weight (classes, features), bias (classes,)."""
        return cast("nn.Linear", self.smx[0])

    def objective(
        self,
        x: Shaped[Tensor, "batch ..."],
        y: Shaped[Tensor, "batch ..."],
        weight: Shaped[Tensor, "batch ..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The whole loss of a batch, data term and penalty, for a training step of one's own.

        Under a Trainer it is counted in the stage's metrics, and the average over processes is the
        mean over the whole batch. An InputError without statistics: :meth:`fit_statistics`.
        """
        self._smx_statistics.check(self)
        return self._smx_objective.of_rows(self, x, y, weight, metrics.tallies_of(self._trainer))

    def penalty(self) -> Float[Tensor, ""]:
        """½ · l2 · ‖W‖²; added to the loss where l2 is not 0."""
        return l2_penalty(self.linear.weight, self.l2)

    def class_weights_for(self, like: Tensor) -> Tensor | None:
        """The weight of each class, (classes,), in the dtype and on the device of ``like``."""
        return class_weights_of(self, like)

    @property
    def needs_statistics(self) -> bool:
        """Whether something is decided by the training data: standardisation, balanced weights."""
        return self.preprocessing.method != "none" or self.class_weight == "balanced"

    def fit_statistics(self, batches: Iterable[Any]) -> None:
        """Fit standardisation and class counts on batches, as :meth:`unpack` reads them.

        The Trainer's module does it by itself; a host once for its head, each process its share.
        """
        self._smx_statistics.fit(self, batches)

    @classmethod
    @signed_as(load_model)
    def load_from_checkpoint(
        cls, checkpoint_path: str | Path | IO[bytes], *args: Any, **kwargs: Any
    ) -> Self:
        """See :func:`smx_lightning.checkpoint.loading.load_model`, whose arguments it takes."""
        return load_model(cls, checkpoint_path, *args, **kwargs)

    @signed_as(coefficients_of)
    def coefficients(self, batches: Any = None, **kwargs: Any) -> Coefficients:
        """See :func:`smx_lightning.coefficients.coefficients_of`, whose arguments it takes."""
        return coefficients_of(self, batches, **kwargs)

    @signed_as(with_classes)
    def with_classes(self, *args: Any, **kwargs: Any) -> Self:
        """See :func:`smx_lightning.training.classes.with_classes`."""
        return with_classes(self, *args, **kwargs)

    def training_summary(self) -> dict[str, Any] | None:
        """Epochs begun, steps taken, finite held-out metrics; ``None`` without a trainer."""
        return None if self._trainer is None else training_summary(self._trainer)

    def to_onnx(  # type: ignore[override]  # a safer promise than Lightning's: a path, verified
        self, file_path: str | Path | IO[bytes], input_sample: Any = None, **kwargs: Any
    ) -> Path | None:
        """Write one ONNX file and prove that it is this model, see :func:`smx_export.export_onnx`.

        It takes that one's arguments, and those of ``torch.onnx.export`` that ask for what it does.
        """
        from smx_export import to_onnx

        return to_onnx(self, file_path, input_sample, **kwargs)


SoftmaxRegression._smx_hooks = Bookkeeping(SoftmaxRegression)
