"""What the training data decides before the first step: feature moments and class counts.

They are those of the rows that training sees: of the batches of its first epoch, as the Trainer
limits them and as its hooks hand them over.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.fabric.utilities.seed import _collect_rng_states, _set_rng_states
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.trainer.call import _call_strategy_hook
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Generator, Tensor
from torch.utils.data import IterableDataset
from tqdm.auto import tqdm

from smx_lightning.errors import InputError
from smx_lightning.errors.checks import check_labels
from smx_lightning.preprocessing.digits import check_unconverted
from smx_lightning.preprocessing.moments import Moments
from smx_lightning.processes.sharding import data_group

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
    in this process gives both the same rows.

    Raises:
        InputError: For loaders that can be iterated only once.
        SIGTERMException: Where the process is told to end.
    """
    loop = trainer.fit_loop
    assert loop._combined_loader is not None
    loader = CombinedLoader(loop._combined_loader.iterables, loop._combined_loader._mode)
    loader.limits = loop._combined_loader.limits
    for part in loader.flattened:
        _refuse_used_up(part)
        _set_sampler_epoch(part, trainer.current_epoch)
    numbers = itertools.count() if (most := _batches_ahead(trainer)) is None else range(most)
    hidden = not trainer.is_global_zero or trainer.progress_bar_callback is None
    with _leaving_no_trace(loader.flattened) as begin_again:
        batches = iter(loader)
        begin_again()  # the Trainer has made its iterator already
        for number in tqdm(numbers, "Fitting preprocessing", leave=False, delay=1, disable=hidden):
            try:  # a for loop over the batches would make the iterator anew
                batch, _, dataloader_idx = next(batches)
            except StopIteration:
                break
            if trainer.received_sigterm:
                raise SIGTERMException
            if number == 0:  # before the Trainer's precision makes it narrower
                check_unconverted(cast("SoftmaxRegression", trainer.lightning_module), batch)
            yield fetched(trainer, batch, dataloader_idx)


def _refuse_used_up(loader: Any) -> None:
    data = getattr(loader, "dataset", None)
    streams = isinstance(data, IterableDataset) and iter(data) is iter(data)
    if isinstance(loader, Iterator) or streams:
        raise InputError(
            "expected a training loader that can be iterated again, got one of a "
            f"{type(data if streams else loader).__name__} that cannot, which standardisation or "
            "balanced weights would use up; let __iter__ of an IterableDataset begin anew"
        )


def _batches_ahead(trainer: Trainer) -> int | None:
    """How many batches the first epoch has, as far as that is known; ``None`` of streams."""
    most = trainer.num_training_batches
    scheduled = any(
        isinstance(callback, GradientAccumulationScheduler)
        for callback in trainer.callbacks  # type: ignore[attr-defined]
    )
    # Elsewhere a step is not so many batches.
    if trainer.max_steps >= 0 and trainer.lightning_module.automatic_optimization and not scheduled:
        steps = trainer.max_steps - trainer.global_step
        most = min(most, steps * trainer.accumulate_grad_batches)
    return None if most == float("inf") else int(most)


@contextmanager
def _leaving_no_trace(loaders: Iterable[Any]) -> Iterator[Callable[[], None]]:
    """Random generators, and workers that stay, are afterwards as they were; yields a reset."""
    parts: list[Any] = []
    for loader in loaders:
        parts += [loader, getattr(loader, "sampler", None)]
    own = [g for part in parts if isinstance(g := getattr(part, "generator", None), Generator)]
    states, own_states = _collect_rng_states(), [generator.get_state() for generator in own]
    # A loader of persistent workers has one iterator, and the Trainer holds it.
    held = [part for part in parts if getattr(part, "_iterator", None) is not None]
    iterators = [part._iterator for part in held]

    def reset() -> None:
        _set_rng_states(states)
        for generator, state in zip(own, own_states, strict=True):
            generator.set_state(state)

    for part in held:
        part._iterator = None
    try:
        yield reset
    finally:
        reset()
        for part, iterator in zip(held, iterators, strict=True):
            if part._iterator is not None:
                part._iterator._shutdown_workers()
            part._iterator = iterator


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
            moments = moments.merged(Moments.of(model.checked_features(x.to(model.device))))
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
    if isinstance(batch, (list, tuple)) and [*map(type, batch)] == [Tensor, Tensor]:
        return batch[0], batch[1]
    raise InputError(
        "expected batches (x, y) of tensors to fit standardisation or balanced weights on, got "
        f"{type(batch).__name__}; make such ones in on_after_batch_transfer, or call "
        "fit_statistics(batches) yourself in on_fit_start"
    )


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
