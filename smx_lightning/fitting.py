"""What the training data decides before the first step: feature moments and class counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor
from tqdm.auto import tqdm

from smx_lightning.checks import check_labels
from smx_lightning.errors import InputError
from smx_lightning.preprocessing import Moments
from smx_lightning.sharding import data_group

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression


class Statistics(NamedTuple):
    """Of all training rows, on all processes: moments of the features, (classes,) counts."""

    moments: Moments
    counts: Tensor


@torch.no_grad()
def training_statistics(model: SoftmaxRegression) -> Statistics:
    """One pass over the attached trainer's training batches, merged across processes.

    Raises:
        InputError: For features that are not finite, or labels out of range.
    """
    trainer, num_features = model.trainer, model.num_features
    moments = Moments.empty(num_features)
    counts = torch.zeros(model.num_classes, dtype=torch.int64)
    training = [module for module in model.modules() if module.training]
    model.eval()
    hidden = not trainer.is_global_zero or trainer.progress_bar_callback is None
    loader = trainer.train_dataloader
    try:
        for x, y in tqdm(loader, "Fitting preprocessing", leave=False, delay=1, disable=hidden):
            check_labels(y, model.num_classes, "training batches")
            counts += torch.bincount(y.cpu(), minlength=model.num_classes)
            moments = moments.merged(Moments.of(model.checked_features(x.to(model.device))))
    finally:
        for module in training:  # one by one: a frozen backbone was, and stays, in eval mode
            module.training = True

    # float64 holds counts exactly up to 2⁵³ rows.
    packed = moments.packed()
    share = torch.cat([packed.flatten(), counts.double()]).to(model.device)
    shares = (
        cast("Tensor", model.all_gather(share, group=data_group(model)))
        .reshape(-1, len(share))
        .cpu()
    )
    moments, counts = Moments.empty(num_features), torch.zeros_like(counts)
    for part in shares:
        values, count = part.split([packed.numel(), model.num_classes])
        moments = moments.merged(Moments.unpacked(values.reshape(packed.shape)))
        counts += count.long()

    finite = torch.isfinite(moments.deviations)
    if not finite.all():
        raise InputError(
            f"expected finite features, got NaN or infinity in feature "
            f"{int((~finite).nonzero()[0])} of the training data; remove or impute such rows"
        )
    return Statistics(moments, counts)
