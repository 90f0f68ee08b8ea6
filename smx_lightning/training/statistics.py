"""What the training data decides before the first step: feature moments and class counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from smx_lightning.data.labels import class_counts
from smx_lightning.errors import InputError
from smx_lightning.errors.targets import check_targets
from smx_lightning.preprocessing.digits import check_digits
from smx_lightning.preprocessing.moments import Moments
from smx_lightning.processes.distributed import in_group
from smx_lightning.processes.sharding import data_group, local
from smx_lightning.training.evaluating import evaluating
from smx_lightning.training.first_epoch import training_batches
from smx_lightning.training.loss import check_takes_weight
from smx_lightning.training.rows import labelled

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression


IN_A_HOOK = ", or call fit_statistics(batches) yourself in on_fit_start"
COUNTED = 62  # bits of an int64 that counts of weights fill


class Statistics(NamedTuple):
    """Of all training rows, on all processes: moments of the features, (classes,) counts.

    Both are weighted; counts are float64, which holds whole ones exactly up to 2⁵³.
    """

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

    @classmethod
    def of(cls, model: SoftmaxRegression) -> DataStatistics:
        """Of a model that is being made: its buffer ``class_counts``, and what DDP leaves alone."""
        counts = torch.zeros(model.num_classes, dtype=torch.int64)
        model.register_buffer("class_counts", counts)
        # Alike on all processes: DDP need not broadcast them at every step, a fifth of a small one.
        ignored = [name for name, _ in model.named_buffers()]
        model._ddp_params_and_buffers_to_ignore = ignored
        return cls()

    def fit(self, model: SoftmaxRegression, batches: Iterable[Any]) -> None:
        """Fit standardisation and class counts; the predictions of a fitted model stay.

        Args:
            model: It gets them.
            batches: One pass of them, as the model's ``unpack`` reads them.

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
        model.class_counts.copy_(_whole_counts(counts))
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
        if not trained or not model.needs_statistics:
            return
        balanced = model.class_weight == "balanced"  # which a new class has no share in yet
        if not (model.class_counts.all() if balanced else model.class_counts.any()):
            raise InputError(
                "expected the statistics of the training data before the first step, got none"
                f"{' of some class' if model.class_counts.any() else ''}: "
                "call fit_statistics(batches) with batches (x, y) of what this model is fed, in "
                "on_fit_start for example"
            )


@torch.no_grad()
def statistics_of(model: SoftmaxRegression, batches: Iterable[Any]) -> Statistics:
    """One pass over batches (x, y) or (x, y, weight), merged across processes.

    Raises:
        InputError: For features that are not finite, or labels out of range.
    """
    num_features = model.num_features
    moments = Moments.empty(num_features)
    counts = torch.zeros(model.num_classes, dtype=torch.float64)
    with evaluating(model):
        for batch in batches:
            x, y, weight = labelled(model, batch, "training batches", remedy=IN_A_HOOK)
            if weight is not None:
                check_takes_weight(model)
            y, weight = y.cpu(), None if weight is None else weight.cpu().double()
            check_targets(y, model.num_classes, "training batches")
            counts += class_counts(y, weight, model.num_classes)
            x = move_data_to_device(x, model.device)
            moments = moments.merged(Moments.of(model.checked_features(x), weight))
    moments, counts = _of_all_processes(model, moments, counts)
    if not moments.count:
        raise InputError(
            "expected training rows with a label and a weight above 0, got batches without any; "
            "check the loader"
        )
    finite = torch.isfinite(moments.deviations)
    if not finite.all():
        raise InputError(
            f"expected finite features, got NaN or infinity in feature "
            f"{int((~finite).nonzero()[0])} of the training data; remove or impute such rows"
        )
    return Statistics(moments, counts)


def _of_all_processes(model: SoftmaxRegression, moments: Moments, counts: Tensor) -> Statistics:
    """Merged in the order of the ranks: the same bits on each."""
    if not in_group():
        return Statistics(moments, counts)
    packed = moments.packed()
    share = torch.cat([packed.flatten(), counts]).to(model.device)
    group = data_group(model)
    shares = [torch.empty_like(share) for _ in range(torch.distributed.get_world_size(group))]
    torch.distributed.all_gather(shares, share, group=group)
    moments, counts = Moments.empty(model.num_features), torch.zeros_like(counts)
    for part in shares:
        values, count = torch.split(part.cpu(), [packed.numel(), model.num_classes])
        moments = moments.merged(Moments.unpacked(values.reshape(packed.shape)))
        counts += count
    return Statistics(moments, counts)


def _whole_counts(counts: Tensor) -> Tensor:
    """Counts as int64, fractional ones in a unit of a power of 2: only their ratios count.

    No precision setting casts integers, and every device has them.
    """
    if bool((counts == counts.round()).all()) and float(counts.sum()) < 2.0**53:
        return counts.long()
    _, exponent = torch.frexp(counts.sum())
    return torch.ldexp(counts, COUNTED - exponent).round().long()
