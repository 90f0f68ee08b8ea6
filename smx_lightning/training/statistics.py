"""What the training data decides before the first step: feature moments and class counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from smx_lightning.errors import InputError
from smx_lightning.errors.checks import check_labels
from smx_lightning.preprocessing.digits import check_digits
from smx_lightning.preprocessing.moments import Moments
from smx_lightning.processes.distributed import in_group
from smx_lightning.processes.sharding import data_group, local
from smx_lightning.training.first_epoch import training_batches

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression

Inputs = Tensor | Mapping[str, Tensor]
Batch = tuple[Inputs, Tensor]


class Statistics(NamedTuple):
    """Of all training rows, on all processes: moments of the features, (classes,) counts."""

    moments: Moments
    counts: Tensor


@dataclass
class DataStatistics:
    """Which of a model's settings and statistics are those of training data, and of which fit.

    Attributes:
        known: Whether those that the model has are this fit's: fitted in it, or brought by the
            checkpoint that it resumes.
        range_is_learned: Whether ``input_range`` is that of an earlier fit's data, and no argument.
    """

    known: bool = False
    range_is_learned: bool = False

    def fit(self, model: SoftmaxRegression, batches: Iterable[Batch]) -> None:
        """Fit standardisation and class counts; the predictions of a fitted model stay.

        Args:
            model: It gets them.
            batches: Pairs of inputs (batch, …) and labels (batch,), one pass of them.

        Raises:
            InputError: For features that are not finite, labels out of range, and a class without
                a row where weights are balanced.
        """
        moments, counts = statistics_of(model, batches)
        if model.class_weight == "balanced" and not counts.all():
            absent = model.class_names[int((counts == 0).nonzero()[0])]
            raise InputError(
                f"class_weight='balanced' needs a training sample of every class, got none of "
                f"{absent!r}; give the weights as a list or drop the class"
            )
        check_digits(model, moments.wide.nonzero().flatten().tolist())
        behind = [local(p.detach()) for p in model.linear.parameters()]
        model.preprocessing.fit(moments, behind=behind if model.class_counts.any() else ())
        model.class_counts.copy_(counts)
        self.known = True

    def fit_before_training(self, model: SoftmaxRegression) -> None:
        """Fit them on the batches of the attached trainer, where this fit needs and lacks them."""
        known = self.known and bool(model.class_counts.any())
        if model.needs_statistics and not known:
            model.fit_statistics(training_batches(model.trainer))

    @staticmethod
    def check(model: SoftmaxRegression) -> None:
        """Complain about a training step without the statistics that it stands on."""
        trained = model._trainer is None or model._trainer.training
        if trained and model.needs_statistics and not model.class_counts.any():
            raise InputError(
                "expected the statistics of the training data before the first step, got none: "
                "call fit_statistics(batches) with batches (x, y) of what this model is fed, in "
                "on_fit_start for example"
            )


@torch.no_grad()
def statistics_of(model: SoftmaxRegression, batches: Iterable[Batch]) -> Statistics:
    """One pass over batches (x, y), merged across processes.

    Raises:
        InputError: For features that are not finite, or labels out of range.
    """
    num_features = model.num_features
    moments = Moments.empty(num_features)
    counts = torch.zeros(model.num_classes, dtype=torch.int64)
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        for batch in batches:
            x, y = _pair(batch)
            check_labels(y.cpu(), model.num_classes, "training batches")
            counts += torch.bincount(y.cpu(), minlength=model.num_classes)
            x = move_data_to_device(x, model.device)
            moments = moments.merged(Moments.of(model.checked_features(x)))
    finally:
        for module in training:  # one by one: a frozen backbone was, and stays, in eval mode
            module.training = True
    moments, counts = _of_all_processes(model, moments, counts)
    if not moments.count:
        raise InputError("expected training rows, got batches without any; check the loader")
    finite = torch.isfinite(moments.deviations)
    if not finite.all():
        raise InputError(
            f"expected finite features, got NaN or infinity in feature "
            f"{int((~finite).nonzero()[0])} of the training data; remove or impute such rows"
        )
    return Statistics(moments, counts)


def _pair(batch: Any) -> Batch:
    if isinstance(batch, (list, tuple)) and len(batch) == 2:
        parts = batch[0].values() if isinstance(batch[0], Mapping) else [batch[0]]
        if {*map(type, (*parts, batch[1]))} == {Tensor}:
            return batch[0], batch[1]
    raise InputError(
        "expected batches (x, y) of tensors to fit standardisation or balanced weights on, got "
        f"{type(batch).__name__}; make such ones in on_after_batch_transfer, or call "
        "fit_statistics(batches) yourself in on_fit_start"
    )


def _of_all_processes(model: SoftmaxRegression, moments: Moments, counts: Tensor) -> Statistics:
    """Merged in the order of the ranks: the same bits on each."""
    if not in_group():
        return Statistics(moments, counts)
    # float64 holds counts exactly up to 2⁵³ rows.
    packed = moments.packed()
    share = torch.cat([packed.flatten(), counts.double()]).to(model.device)
    group = data_group(model)
    shares = [torch.empty_like(share) for _ in range(torch.distributed.get_world_size(group))]
    torch.distributed.all_gather(shares, share, group=group)
    moments, counts = Moments.empty(model.num_features), torch.zeros_like(counts)
    for part in shares:
        values, count = torch.split(part.cpu(), [packed.numel(), model.num_classes])
        moments = moments.merged(Moments.unpacked(values.reshape(packed.shape)))
        counts += count.long()
    return Statistics(moments, counts)
