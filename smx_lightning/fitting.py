"""What the training data decides before the first step: feature moments and class counts.

They are those of the rows that training sees: of the batches of its first epoch, as the Trainer
limits them and as its hooks hand them over.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.fabric.utilities.seed import _collect_rng_states, _set_rng_states
from lightning.pytorch.trainer.call import _call_strategy_hook
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor
from tqdm.auto import tqdm

from smx_lightning.checks import check_labels
from smx_lightning.errors import InputError
from smx_lightning.preprocessing import Moments
from smx_lightning.sharding import data_group

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from smx_lightning.module import SoftmaxRegression

Batch = tuple[Tensor, Tensor]


class Statistics(NamedTuple):
    """Of all training rows, on all processes: moments of the features, (classes,) counts."""

    moments: Moments
    counts: Tensor


def fetched(trainer: Trainer, batch: Any, dataloader_idx: int = 0) -> Any:
    """A loader's batch as the Trainer hands it to a step: converted, moved, through all hooks."""
    batch = trainer.precision_plugin.convert_input(batch)
    batch = trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx)
    return _call_strategy_hook(trainer, "batch_to_device", batch, dataloader_idx=dataloader_idx)


def training_batches(trainer: Trainer) -> Iterator[Any]:
    """One pass over the batches of the first epoch, with the rows that training will see.

    Random numbers drawn on the way are drawn again by the training, so that a loader which shuffles
    by the global generator, in this process, gives both the same rows.

    Raises:
        InputError: For loaders that can be iterated only once.
        SIGTERMException: Where the process is told to end.
    """
    loop = trainer.fit_loop
    assert loop._combined_loader is not None
    loader = CombinedLoader(loop._combined_loader.iterables, loop._combined_loader._mode)
    loader.limits = loop._combined_loader.limits
    for part in loader.flattened:
        if isinstance(part, Iterator):
            raise InputError(
                "expected a training loader that can be iterated again, got "
                f"{type(part).__name__}, which standardisation or balanced weights would use up; "
                "wrap it in an IterableDataset and a DataLoader"
            )
        _set_sampler_epoch(part, trainer.current_epoch)
    most = trainer.num_training_batches
    if trainer.max_steps >= 0:
        most = min(most, trainer.max_steps * trainer.accumulate_grad_batches)
    hidden = not trainer.is_global_zero or trainer.progress_bar_callback is None
    states = _collect_rng_states()
    try:
        batches = iter(loader)
        _set_rng_states(states)  # the Trainer has made its iterator already
        numbers = itertools.count() if most == float("inf") else range(int(most))
        for _ in tqdm(numbers, "Fitting preprocessing", leave=False, delay=1, disable=hidden):
            try:  # a for loop over the batches would make the iterator anew
                batch, _, dataloader_idx = next(batches)
            except StopIteration:
                break
            if trainer.received_sigterm:
                raise SIGTERMException
            yield fetched(trainer, batch, dataloader_idx)
    finally:
        _set_rng_states(states)


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
        for x, y in batches:
            check_labels(y.cpu(), model.num_classes, "training batches")
            counts += torch.bincount(y.cpu(), minlength=model.num_classes)
            moments = moments.merged(Moments.of(model.checked_features(x.to(model.device))))
    finally:
        for module in training:  # one by one: a frozen backbone was, and stays, in eval mode
            module.training = True
    moments, counts = _of_all_processes(model, moments, counts)
    finite = torch.isfinite(moments.deviations)
    if not finite.all():
        raise InputError(
            f"expected finite features, got NaN or infinity in feature "
            f"{int((~finite).nonzero()[0])} of the training data; remove or impute such rows"
        )
    return Statistics(moments, counts)


def _of_all_processes(model: SoftmaxRegression, moments: Moments, counts: Tensor) -> Statistics:
    """Merged in the order of the ranks: the same bits on each."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
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
