"""The batches of a fit's first epoch, one pass of them before the first step.

The rows are those that training will see: as the Trainer limits them and as its hooks hand them
over. The pass leaves no trace in generators of random numbers, loaders and their workers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.fabric.utilities.seed import _collect_rng_states, _set_rng_states
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.trainer.call import _call_strategy_hook
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Generator
from torch.utils.data import IterableDataset
from tqdm.auto import tqdm

from smx_lightning.errors import InputError
from smx_lightning.preprocessing.digits import check_unconverted

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from smx_lightning.module import SoftmaxRegression


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
